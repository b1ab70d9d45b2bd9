/*
 * Interleavings of the frame allocator: all pairs of operations on a tiny allocator, in every order
 * with at most two preemptions at the atomic verbs (three in the full check), and some triples with
 * two.
 *
 * After each schedule: everything is valid; each frame is allocated exactly if the results of the
 * operations say so, once; and a get was refused only if before or after the other operations there
 * was nothing to be had. Linked against a planted fault (FRAME_PLANTED), the same walk must find
 * it.
 */
#include "frame_model.h"
#include "support/explore.h"

#define HUGE	   MORSEL_FRAMES_HUGE
#define FRAMES	   (2 * HUGE)
#define LOCALS	   4 /* 0 to 2 are the threads', 3 idles */
#define IDLE	   3
#define THREADS	   MRS_EXPLORE_THREADS_MAX
#define GOT_MAX	   4
#define SAME_FRAME 20

struct outcome {
	int error;
	bool gets;
	unsigned order;
	unsigned count;
	uint64_t frame[GOT_MAX];
};

/* What an operation does; thread is also its local. */
struct op {
	const char *name;
	struct outcome (*run)(struct morsel_frames *f, unsigned thread);
};

static struct {
	struct frames_box box;
	void *snapshot;
	bool begun[FRAMES]; /* what is allocated at the beginning */
	bool used[FRAMES];
	const struct op *op[THREADS];
	unsigned threads;
	struct outcome out[THREADS];
} world;

/* ---- Operations ------------------------------------------------------------------------------ */

static struct outcome get(struct morsel_frames *f, unsigned thread, unsigned order)
{
	struct outcome o = {.gets = true, .order = order, .count = 1};

	o.error = morsel_frames_get(f, thread, order, MORSEL_FRAMES_MOVABLE, 0, &o.frame[0]);
	return o;
}

static struct outcome put(struct morsel_frames *f, unsigned thread, uint64_t frame, unsigned order)
{
	struct outcome o = {.order = order, .count = 1, .frame = {frame}};

	o.error = morsel_frames_put(f, thread, frame, order, 0);
	return o;
}

static struct outcome get_0(struct morsel_frames *f, unsigned thread)
{
	return get(f, thread, 0);
}

static struct outcome get_1(struct morsel_frames *f, unsigned thread)
{
	return get(f, thread, 1);
}

static struct outcome get_7(struct morsel_frames *f, unsigned thread)
{
	return get(f, thread, 7);
}

static struct outcome get_9(struct morsel_frames *f, unsigned thread)
{
	return get(f, thread, 9);
}

static struct outcome get_10(struct morsel_frames *f, unsigned thread)
{
	return get(f, thread, 10);
}

static struct outcome get_many(struct morsel_frames *f, unsigned thread)
{
	struct outcome o = {.gets = true};
	int n = morsel_frames_get_many(f, thread, MORSEL_FRAMES_MOVABLE, 0, 2, o.frame);

	o.error = n < 0 ? n : 0;
	o.count = n < 0 ? 0 : (unsigned)n;
	return o;
}

static struct outcome get_at(struct morsel_frames *f, unsigned thread)
{
	struct outcome o = {.gets = true, .order = 1, .count = 1, .frame = {2}};

	o.error = morsel_frames_get_at(f, thread, 2, 1, 0);
	return o;
}

static struct outcome put_own(struct morsel_frames *f, unsigned thread)
{
	return put(f, thread, 100 + 64 * thread, 0);
}

static struct outcome put_same(struct morsel_frames *f, unsigned thread)
{
	return put(f, thread, SAME_FRAME, 0);
}

static struct outcome put_part(struct morsel_frames *f, unsigned thread)
{
	return put(f, thread, 64 * (thread + 1), 3);
}

static struct outcome put_huge(struct morsel_frames *f, unsigned thread)
{
	return put(f, thread, 0, 9);
}

static struct outcome put_get(struct morsel_frames *f, unsigned thread)
{
	struct outcome o = put_own(f, thread);

	/* What was put goes into the pocket, and may be got from there. */
	if (!o.error && !morsel_frames_get(f, thread, 0, MORSEL_FRAMES_MOVABLE, 0, &o.frame[0])) {
		o.gets = true;
		world.used[100 + 64 * thread] = false;
	}
	return o;
}

static struct outcome give_idle(struct morsel_frames *f, unsigned thread)
{
	struct outcome o = {0};

	o.error = morsel_frames_return_local(f, IDLE);
	return o;
}

/* ---- Beginnings ------------------------------------------------------------------------------ */

static void take_back(const uint64_t *frame, unsigned count, unsigned local)
{
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(morsel_frames_put(&world.box.f, local, frame[i], 0, 0), 0);
}

/* Both children full but for three frames: one in a pocket, two in nobody's. */
static void begin_tight(struct morsel_frames *f)
{
	static const uint64_t first[] = {2, 3}, last[] = {600};
	uint64_t huge;

	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(morsel_frames_get(f, 0, 9, 0, 0, &huge), 0);
	take_back(first, 2, IDLE);
	assert_int_equal(morsel_frames_return_local(f, IDLE), 0);
	take_back(last, 1, IDLE);
}

/* An idle local has reserved a child that has room; the other child is allocated as huge frame. */
static void begin_reserved(struct morsel_frames *f)
{
	uint64_t frame;

	assert_int_equal(morsel_frames_get_at(f, 0, 0, 9, 0), 0);
	assert_int_equal(morsel_frames_get(f, IDLE, 0, 0, 0, &frame), 0);
	assert_int_equal(morsel_frames_put(f, IDLE, frame, 0, 0), 0);
}

/* All is free: one child was a huge frame, the other is an idle local's. */
static void begin_all_free(struct morsel_frames *f)
{
	begin_reserved(f);
	assert_int_equal(morsel_frames_put(f, 0, 0, 9, 0), 0);
}

static void world_begin(void (*begin)(struct morsel_frames *f))
{
	if (world.box.block)
		box_free(&world.box);
	box_make(&world.box, FRAMES, LOCALS, FRAMES, 0);
	begin(&world.box.f);
	free(world.snapshot);
	world.snapshot = malloc(world.box.bytes);
	assert_non_null(world.snapshot);
	memcpy(world.snapshot, world.box.block, world.box.bytes);
	for (uint64_t i = 0; i < FRAMES; i++)
		world.begun[i] = morsel_frames_is_allocated(&world.box.f, i, 0);
}

/* ---- A walk ---------------------------------------------------------------------------------- */

static void setup(void *ctx)
{
	memcpy(world.box.block, world.snapshot, world.box.bytes);
	memcpy(world.used, world.begun, sizeof(world.used));
	memset(world.out, 0, sizeof(world.out));
}

static void run(unsigned thread)
{
	world.out[thread] = world.op[thread]->run(&world.box.f, thread);
}

static void run_0(void *ctx)
{
	run(0);
}

static void run_1(void *ctx)
{
	run(1);
}

static void run_2(void *ctx)
{
	run(2);
}

static bool had(const bool *used, unsigned order)
{
	struct model m = {.used = (bool *)(uintptr_t)used, .frames = FRAMES};

	return model_has(&m, order);
}

enum { HOLDS, INVALID, TWO_OWNERS, NOT_ALLOCATED, FALSE_REFUSAL, REFUSED_PUT };

static bool puts_many_words(void)
{
	for (unsigned t = 0; t < world.threads; t++)
		if (world.op[t]->run == put_huge)
			return true;
	return false;
}

static int check(void *ctx)
{
	struct morsel_frames *f = &world.box.f;
	bool before[FRAMES], after[FRAMES];
	int have[FRAMES];

	memcpy(before, world.used, sizeof(before));
	for (uint64_t i = 0; i < FRAMES; i++)
		have[i] = before[i];
	for (unsigned t = 0; t < world.threads; t++) {
		const struct outcome *o = &world.out[t];

		for (unsigned n = 0; n < o->count && !o->error; n++)
			for (uint64_t i = 0; i < 1u << o->order; i++)
				have[o->frame[n] + i] += o->gets ? 1 : -1;
	}
	for (uint64_t i = 0; i < FRAMES; i++) {
		after[i] = morsel_frames_is_allocated(f, i, 0);
		/* Overlapping puts at one instant, one of them of many words: freed once. */
		if (have[i] == -1 && puts_many_words())
			have[i] = 0;
		if (have[i] < 0 || have[i] > 1)
			return TWO_OWNERS;
		if (after[i] != (have[i] == 1))
			return NOT_ALLOCATED;
	}
	for (unsigned t = 0; t < world.threads; t++) {
		const struct outcome *o = &world.out[t];

		if (o->gets && o->error == -ENOMEM && had(before, o->order) &&
		    had(after, o->order) && world.threads == 2)
			return FALSE_REFUSAL;
		if (o->error && (world.op[t]->run == put_own ||
				 (world.op[t]->run == put_part && !puts_many_words())))
			return REFUSED_PUT;
	}
	return morsel_frames_validate(f, NULL, NULL) ? INVALID : HOLDS;
}

static uint64_t states, schedules;

/* 1 if a schedule breaks a promise. */
static int walk(const struct op *a, const struct op *b, const struct op *c)
{
	struct mrs_explore scenario = {.threads = c ? 3 : 2,
				       .setup = setup,
				       .op = {run_0, run_1, run_2},
				       .check = check,
				       .preemptions = MRS_COUNT(2, c ? 2 : 3),

				       .quiet = true};
	struct mrs_explore_result result;
	char name[64];
	int broken;

	snprintf(name, sizeof(name), "%s-%s%s%s", a->name, b->name, c ? "-" : "", c ? c->name : "");
	scenario.name = name;
	world.op[0] = a;
	world.op[1] = b;
	world.op[2] = c;
	world.threads = scenario.threads;
	broken = mrs_explore_run(&scenario, &result);
	states += result.states;
	schedules += result.schedules;
	return broken;
}

/* All pairs, with themselves, too. Returns how many broke. */
static unsigned walk_pairs(const char *name, const struct op *ops, size_t count)
{
	unsigned broken = 0;

	states = schedules = 0;
	for (size_t a = 0; a < count; a++)
		for (size_t b = a; b < count; b++) {
			/* One caller at a time returns a local. */
			if (ops[a].run == give_idle && ops[b].run == give_idle)
				continue;
			broken += walk(&ops[a], &ops[b], NULL) != 0;
		}
	printf("%s: %llu schedules, %llu states\n", name, (unsigned long long)schedules,
	       (unsigned long long)states);
	return broken;
}

static const struct op tight[] = {
	{"get", get_0},	    {"get1", get_1},	 {"many", get_many},  {"at", get_at},
	{"put", put_own},   {"same", put_same},	 {"putget", put_get}, {"part", put_part},
	{"huge", put_huge}, {"idle", give_idle},
};

static const struct op reserved[] = {
	{"get", get_0},	    {"get7", get_7},	 {"get9", get_9},    {"part", put_part},
	{"huge", put_huge}, {"idle", give_idle}, {"many", get_many},
};

static const struct op all_free[] = {
	{"get", get_0},	   {"get7", get_7}, {"get9", get_9},
	{"get10", get_10}, {"at", get_at},  {"idle", give_idle},
};

#ifndef FRAME_PLANTED
static void test_tight(void **state)
{
	world_begin(begin_tight);
	assert_int_equal(walk_pairs("tight", tight, sizeof(tight) / sizeof(tight[0])), 0);
}

static void test_reserved(void **state)
{
	world_begin(begin_reserved);
	assert_int_equal(walk_pairs("reserved", reserved, sizeof(reserved) / sizeof(reserved[0])),
			 0);
}

static void test_all_free(void **state)
{
	world_begin(begin_all_free);
	assert_int_equal(walk_pairs("free", all_free, sizeof(all_free) / sizeof(all_free[0])), 0);
}

static void test_triples(void **state)
{
	states = schedules = 0;
	world_begin(begin_tight);
	assert_int_equal(walk(&tight[0], &tight[0], &tight[5]), 0);
	assert_int_equal(walk(&tight[0], &tight[6], &tight[9]), 0);
	world_begin(begin_reserved);
	assert_int_equal(walk(&reserved[3], &reserved[3], &reserved[4]), 0);
	assert_int_equal(walk(&reserved[0], &reserved[2], &reserved[5]), 0);
	world_begin(begin_all_free);
	assert_int_equal(walk(&all_free[0], &all_free[2], &all_free[5]), 0);
	printf("triples: %llu schedules, %llu states\n", (unsigned long long)schedules,
	       (unsigned long long)states);
}
#else
/* The planted fault is found, and by more than one pair. */
static void test_planted(void **state)
{
	unsigned broken;

	world_begin(begin_tight);
	broken = walk_pairs("planted", tight, sizeof(tight) / sizeof(tight[0]));
	world_begin(begin_all_free);
	broken += walk_pairs("planted", all_free, sizeof(all_free) / sizeof(all_free[0]));
	world_begin(begin_reserved);
	broken += walk_pairs("planted", reserved, sizeof(reserved) / sizeof(reserved[0]));
	assert_true(broken > 1);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
#ifndef FRAME_PLANTED
		cmocka_unit_test(test_tight),
		cmocka_unit_test(test_reserved),
		cmocka_unit_test(test_all_free),
		cmocka_unit_test(test_triples),
#else
		cmocka_unit_test(test_planted),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
