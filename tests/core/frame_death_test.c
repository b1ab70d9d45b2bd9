/*
 * Death in the frame allocator: a child process is killed at the n-th probe, for every n, in the
 * middle of gets and puts of every kind; then its local is repaired. After that everything is
 * valid, what the survivor has is untouched, and what the dead one had not linked is free.
 *
 * "Linked" is a table in shared memory: the child links a frame after a tracked get and settles,
 * and unlinks it before a put, as the pool does with its page tables.
 */
#include "frame_model.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define FRAMES	 (3 * MORSEL_FRAMES_HUGE)
#define SURVIVOR 0
#define VICTIM	 1
#define STEPS	 60

static struct frames_box box;
static bool *linked; /* per frame; shared */
static uint64_t rng;

/*
 * In place of the library's probe, which reads its environment once per program: here a death is
 * ordered anew for every fork.
 */
static unsigned probes_left; /* 0: nobody dies */

void mrs_probe_hit(const char *name);
void mrs_probe_hit(const char *name)
{
	if (probes_left && !--probes_left)
		kill(getpid(), SIGKILL);
}

static bool is_linked(void *ctx, uint64_t frame)
{
	return linked[frame];
}

static void link_frames(uint64_t frame, unsigned order, bool on)
{
	memset(linked + frame, on, (size_t)1 << order);
}

static void victim_get(unsigned order)
{
	uint64_t frame;

	if (morsel_frames_get(&box.f, VICTIM, order, test_random(&rng) % 3, MORSEL_FRAMES_TRACKED,
			      &frame))
		return;
	link_frames(frame, order, true);
	morsel_frames_settle(&box.f, VICTIM);
}

static void victim_get_many(void)
{
	uint64_t out[100];
	int n = morsel_frames_get_many(&box.f, VICTIM, MORSEL_FRAMES_MOVABLE, MORSEL_FRAMES_TRACKED,
				       1 + test_random(&rng) % 100, out);

	for (int i = 0; i < n; i++)
		linked[out[i]] = true;
	morsel_frames_settle(&box.f, VICTIM);
}

/* Is the whole block linked, and not by the survivor? */
static bool mine(const bool *survivors, uint64_t frame, unsigned order)
{
	for (uint64_t i = frame; i < frame + (1u << order); i++)
		if (!linked[i] || survivors[i])
			return false;
	return true;
}

static void victim_put(const bool *survivors, unsigned order)
{
	uint64_t first = test_random(&rng) % FRAMES & ~((1ull << order) - 1);

	for (uint64_t i = 0; i < FRAMES >> order; i++) {
		uint64_t frame = (first + (i << order)) % FRAMES & ~((1ull << order) - 1);

		if (frame + (1u << order) > FRAMES || !mine(survivors, frame, order))
			continue;
		link_frames(frame, order, false);
		morsel_frames_put(&box.f, VICTIM, frame, order, 0);
		return;
	}
}

static void victim(const bool *survivors)
{
	for (unsigned i = 0; i < STEPS; i++) {
		unsigned order = test_random(&rng) % 2 ? 0 : test_random(&rng) % 11;

		switch (test_random(&rng) % 5) {
		case 0:
		case 1:
			victim_get(order);
			break;
		case 2:
			victim_get_many();
			break;
		default:
			victim_put(survivors, order);
		}
	}
}

/* Some frames for the survivor, some of them unlinked but pending. */
static void survivor_begins(bool *survivors)
{
	for (unsigned i = 0; i < 40; i++) {
		uint64_t frame;
		unsigned order = i % 5;

		if (morsel_frames_get(&box.f, SURVIVOR, order, MORSEL_FRAMES_MOVABLE, 0, &frame))
			continue;
		memset(survivors + frame, true, (size_t)1 << order);
		link_frames(frame, order, true);
	}
	for (uint64_t frame = 0; frame < FRAMES; frame += 3)
		if (survivors[frame]) {
			linked[frame] = survivors[frame] = false;
			assert_int_equal(morsel_frames_put(&box.f, SURVIVOR, frame, 0, 0), 0);
		}
}

/* Runs the victim until its n-th probe. True if it died there. */
static bool killed_at(unsigned n, const bool *survivors)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid) {
		probes_left = n;
		victim(survivors);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

static void check_after(const bool *survivors)
{
	struct morsel_frames_pending pending;
	uint64_t free = 0;

	assert_false(morsel_frames_pending(&box.f, VICTIM, &pending));
	box_valid(&box);
	for (uint64_t frame = 0; frame < FRAMES; frame++) {
		assert_int_equal(morsel_frames_is_allocated(&box.f, frame, 0), linked[frame]);
		assert_true(linked[frame] || !survivors[frame]);
		free += !linked[frame];
	}
	/* All that is free can be had. */
	for (uint64_t i = 0; i < free; i++) {
		uint64_t frame;

		assert_int_equal(morsel_frames_get(&box.f, SURVIVOR, 0, 0, 0, &frame), 0);
	}
}

static bool one_death(unsigned n, uint64_t seed)
{
	static bool survivors[FRAMES];
	bool died;

	memset(survivors, 0, sizeof(survivors));
	memset(linked, 0, FRAMES);
	box_make(&box, FRAMES, 4, FRAMES, 0);
	survivor_begins(survivors);
	rng = seed;
	died = killed_at(n, survivors);
	morsel_frames_repair(&box.f, VICTIM, 1, is_linked, NULL);
	assert_int_equal(morsel_frames_return_local(&box.f, VICTIM), 0);
	check_after(survivors);
	box_free(&box);
	return died;
}

static void test_death_everywhere(void **state)
{
	uint64_t seed = test_seed();
	unsigned deaths = 0;

	for (unsigned run = 0; run < COUNT_FRAME_DEATH_RUNS; run++) {
		unsigned n = 1;

		while (one_death(n, seed + run)) {
			deaths++;
			n += 1 + n / 40;
		}
	}
	printf("%u deaths\n", deaths);
	assert_true(deaths > 20);
}

/* The frames of a live one that it has not linked yet are not taken away. */
static void test_live_pending_is_kept(void **state)
{
	uint64_t frame, other;

	memset(linked, 0, FRAMES);
	box_make(&box, FRAMES, 4, FRAMES, 0);
	assert_int_equal(morsel_frames_get(&box.f, SURVIVOR, 3, 0, MORSEL_FRAMES_TRACKED, &frame),
			 0);
	assert_int_equal(morsel_frames_get(&box.f, VICTIM, 0, 0, MORSEL_FRAMES_TRACKED, &other), 0);
	assert_int_equal(morsel_frames_return_local(&box.f, VICTIM), -EBUSY);
	assert_int_equal(morsel_frames_repair(&box.f, VICTIM, 1, is_linked, NULL), 1);
	assert_true(morsel_frames_is_allocated(&box.f, frame, 3));
	assert_true(morsel_frames_is_free(&box.f, other, 0));
	assert_int_equal(morsel_frames_repair(&box.f, VICTIM, 1, is_linked, NULL), 0);
	assert_int_equal(morsel_frames_repair(&box.f, SURVIVOR, 4, is_linked, NULL), 8);
	box_valid(&box);
	box_free(&box);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_death_everywhere),
		cmocka_unit_test(test_live_pending_is_kept),
	};

#ifndef MORSEL_PROBES
	fprintf(stderr, "skipped: built without MORSEL_PROBES\n");
	return 77;
#endif
	linked = mmap(NULL, FRAMES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (linked == MAP_FAILED)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
