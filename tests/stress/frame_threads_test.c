/*
 * The frame allocator under threads and under processes that share it. Everyone marks the frames
 * that it has in one table, and finds there whoever else had the same frame; at the end the sums
 * must be right. Meant for ThreadSanitizer as well.
 */
#include "core/frame_model.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKERS	 2
#define FRAMES	 (6 * MORSEL_FRAMES_HUGE)
#define HAVE_MAX 512

struct shared {
	uint32_t owner[FRAMES]; /* 0: free, else worker + 1 */
	uint32_t broken;
	uint32_t refused;
};

struct have {
	uint64_t frame;
	unsigned order;
};

struct worker {
	struct morsel_frames f;
	struct shared *shared;
	unsigned id;
	uint64_t rng;
	uint64_t ops;
	struct have have[HAVE_MAX];
	unsigned count;
	uint64_t frames; /* in have */
};

static void mark(struct worker *w, uint64_t frame, unsigned order, uint32_t from, uint32_t to)
{
	for (uint64_t i = frame; i < frame + (1u << order); i++)
		if (__atomic_exchange_n(&w->shared->owner[i], to, __ATOMIC_RELAXED) != from)
			__atomic_fetch_add(&w->shared->broken, 1, __ATOMIC_RELAXED);
}

static void keep(struct worker *w, uint64_t frame, unsigned order)
{
	mark(w, frame, order, 0, w->id + 1);
	w->have[w->count++] = (struct have){frame, order};
	w->frames += 1u << order;
}

static void give_frame(struct worker *w, uint64_t frame, unsigned order)
{
	mark(w, frame, order, w->id + 1, 0);
	w->frames -= 1u << order;
	if (morsel_frames_put(&w->f, w->id, frame, order, 0))
		__atomic_fetch_add(&w->shared->broken, 1, __ATOMIC_RELAXED);
}

/* Puts one of what it has, whole or in two halves. */
static void give(struct worker *w)
{
	unsigned i = test_random(&w->rng) % w->count;
	struct have h = w->have[i];

	w->have[i] = w->have[--w->count];
	if (h.order && test_random(&w->rng) % 2) {
		h.order--;
		give_frame(w, h.frame + (1u << h.order), h.order);
	}
	give_frame(w, h.frame, h.order);
}

static void take(struct worker *w)
{
	unsigned order = test_random(&w->rng) % 4 ? 0 : test_random(&w->rng) % 12;
	struct morsel_frames_want want = {.order = order, .cls = test_random(&w->rng) % 3};
	struct morsel_frames_got got;
	uint64_t frame, out[64];
	int n;

	switch (test_random(&w->rng) % 8) {
	case 0:
		want.near_set = true;
		want.near = test_random(&w->rng) % FRAMES;
		if (!morsel_frames_get_want(&w->f, w->id, &want, &got))
			keep(w, got.frame, order);
		break;
	case 1:
		frame = test_random(&w->rng) % FRAMES & ~((1ull << order) - 1);
		if (!morsel_frames_get_at(&w->f, w->id, frame, order, 0))
			keep(w, frame, order);
		break;
	case 2:
		n = morsel_frames_get_many(&w->f, w->id, want.cls, 0, 64, out);
		for (int i = 0; i < n && w->count < HAVE_MAX; i++)
			keep(w, out[i], 0);
		break;
	default:
		if (!morsel_frames_get(&w->f, w->id, order, want.cls, 0, &frame))
			keep(w, frame, order);
		else
			__atomic_fetch_add(&w->shared->refused, 1, __ATOMIC_RELAXED);
	}
}

/* More gets than puts for a while, then the other way round. */
static void work(struct worker *w)
{
	for (uint64_t i = 0; i < w->ops; i++) {
		bool rising = i / 4096 % 2 == 0;

		if (w->count + 64 >= HAVE_MAX ||
		    (w->count && test_random(&w->rng) % 8 < (rising ? 3 : 5)))
			give(w);
		else
			take(w);
	}
	while (w->count)
		give(w);
}

static void *work_thread(void *arg)
{
	work(arg);
	return NULL;
}

static struct shared *shared_make(void)
{
	struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(shared, MAP_FAILED);
	return shared;
}

static struct worker *workers_make(struct frames_box *box, struct shared *shared, uint64_t ops)
{
	struct worker *w = calloc(WORKERS, sizeof(*w));
	uint64_t seed = test_seed();

	assert_non_null(w);
	for (unsigned i = 0; i < WORKERS; i++) {
		w[i].shared = shared;
		w[i].id = i;
		w[i].rng = seed * 1000 + i;
		w[i].ops = ops;
		w[i].f = box->f;
	}
	return w;
}

static void all_free(struct frames_box *box, struct shared *shared)
{
	struct morsel_frames_stat exact, fast;

	assert_int_equal(shared->broken, 0);
	box_valid(box);
	morsel_frames_stat_exact(&box->f, &exact);
	morsel_frames_stat_fast(&box->f, &fast);
	assert_int_equal(exact.free, FRAMES);
	assert_int_equal(exact.huge_free, FRAMES / MORSEL_FRAMES_HUGE);
	assert_memory_equal(&exact, &fast, sizeof(exact));
	printf("%u refusals\n", shared->refused);
	munmap(shared, sizeof(*shared));
	box_free(box);
}

static void test_threads(void **state)
{
	struct shared *shared = shared_make();
	pthread_t thread[WORKERS];
	struct frames_box box;
	struct worker *w;

	box_make(&box, FRAMES, WORKERS, FRAMES, 0);
	w = workers_make(&box, shared, COUNT_FRAME_STRESS_OPS);
	for (unsigned i = 0; i < WORKERS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, work_thread, &w[i]), 0);
	for (unsigned i = 0; i < WORKERS; i++)
		pthread_join(thread[i], NULL);
	free(w);
	all_free(&box, shared);
}

static void test_processes(void **state)
{
	struct shared *shared = shared_make();
	struct frames_box box;
	struct worker *w;

	box_make(&box, FRAMES, WORKERS, FRAMES, 0);
	w = workers_make(&box, shared, COUNT_FRAME_STRESS_OPS);
	for (unsigned i = 0; i < WORKERS; i++) {
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (!pid) {
			/* Elsewhere in its address space, so that no pointer can hide in the block.
			 */
			void *again = mremap(box.block, 0, box.bytes, MREMAP_MAYMOVE);

			munmap(box.block, box.bytes);
			if (morsel_frames_attach(&w[i].f, again, box.bytes))
				_exit(1);
			work(&w[i]);
			_exit(0);
		}
	}
	for (unsigned i = 0; i < WORKERS; i++) {
		int status;

		assert_true(wait(&status) > 0);
		assert_int_equal(status, 0);
	}
	free(w);
	all_free(&box, shared);
}

/* ---- Races for one frame --------------------------------------------------------------------- */

struct race {
	struct morsel_frames f;
	pthread_barrier_t barrier;
	unsigned order;
	uint64_t rounds;
	uint64_t frame;
	int result[WORKERS];
	bool gets;
};

struct racer {
	struct race *race;
	unsigned id;
};

static void *race_thread(void *arg)
{
	struct racer *me = arg;
	struct race *r = me->race;

	for (uint64_t i = 0; i < r->rounds; i++) {
		pthread_barrier_wait(&r->barrier);
		if (r->gets)
			r->result[me->id] =
				morsel_frames_get_at(&r->f, me->id, r->frame, r->order, 0);
		else
			r->result[me->id] = morsel_frames_put(&r->f, me->id, r->frame, r->order, 0);
		pthread_barrier_wait(&r->barrier);
		pthread_barrier_wait(&r->barrier);
	}
	return NULL;
}

/* Two that put (or get) the same frame at once: one of them does, the other is refused. */
static void race(unsigned order, bool gets)
{
	struct race r = {.order = order, .gets = gets};
	struct racer racer[WORKERS];
	pthread_t thread[WORKERS];
	struct frames_box box;

	r.rounds = COUNT_FRAME_STRESS_OPS / 600;
	box_make(&box, 8 * MORSEL_FRAMES_HUGE, 3, 8 * MORSEL_FRAMES_HUGE, 0);
	r.f = box.f;
	pthread_barrier_init(&r.barrier, NULL, WORKERS + 1);
	for (unsigned i = 0; i < WORKERS; i++) {
		racer[i] = (struct racer){&r, i};
		assert_int_equal(pthread_create(&thread[i], NULL, race_thread, &racer[i]), 0);
	}
	for (uint64_t i = 0; i < r.rounds; i++) {
		if (!gets)
			assert_int_equal(morsel_frames_get_at(&box.f, 2, r.frame, order, 0), 0);
		pthread_barrier_wait(&r.barrier);
		pthread_barrier_wait(&r.barrier);
		assert_int_equal(!r.result[0] + !r.result[1], 1);
		box_valid(&box);
		if (gets)
			assert_int_equal(morsel_frames_put(&box.f, 2, r.frame, order, 0), 0);
		pthread_barrier_wait(&r.barrier);
	}
	for (unsigned i = 0; i < WORKERS; i++)
		pthread_join(thread[i], NULL);
	pthread_barrier_destroy(&r.barrier);
	box_free(&box);
}

static void test_racing_puts(void **state)
{
	for (unsigned order = 0; order <= 12; order += order == 0 ? 3 : 1)
		race(order, false);
}

static void test_racing_gets(void **state)
{
	for (unsigned order = 0; order <= 12; order += 3)
		race(order, true);
}

/* Two threads that put different parts of one huge frame: both parts are free, the rest is not. */
struct splitter {
	struct morsel_frames *f;
	pthread_barrier_t *barrier;
	uint64_t at;
	unsigned local;
	int result;
};

static void *split_thread(void *arg)
{
	struct splitter *s = arg;

	pthread_barrier_wait(s->barrier);
	s->result = morsel_frames_put(s->f, s->local, s->at, 3, 0);
	return NULL;
}

static void test_racing_splits(void **state)
{
	struct frames_box box;
	pthread_barrier_t barrier;

	box_make(&box, 2 * MORSEL_FRAMES_HUGE, 3, 2 * MORSEL_FRAMES_HUGE, 0);
	pthread_barrier_init(&barrier, NULL, 2);
	for (uint64_t i = 0; i < COUNT_FRAME_STRESS_OPS / 3000; i++) {
		struct splitter s[2];
		pthread_t thread[2];
		uint64_t huge;

		assert_int_equal(morsel_frames_get(&box.f, 2, 9, 0, 0, &huge), 0);
		for (unsigned t = 0; t < 2; t++) {
			s[t] = (struct splitter){&box.f, &barrier, huge + t * 64 + i % 8 * 8, t, 1};
			assert_int_equal(pthread_create(&thread[t], NULL, split_thread, &s[t]), 0);
		}
		for (unsigned t = 0; t < 2; t++) {
			pthread_join(thread[t], NULL);
			assert_int_equal(s[t].result, 0);
			assert_int_equal(morsel_frames_get_at(&box.f, 2, s[t].at, 3, 0), 0);
		}
		box_valid(&box);
		assert_int_equal(morsel_frames_put(&box.f, 2, huge, 9, 0), 0);
	}
	pthread_barrier_destroy(&barrier);
	box_free(&box);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_threads),	      cmocka_unit_test(test_processes),
		cmocka_unit_test(test_racing_puts),   cmocka_unit_test(test_racing_gets),
		cmocka_unit_test(test_racing_splits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
