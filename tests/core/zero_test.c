/*
 * Huge frames zeroed beforehand: always zero, counted, given up, and harmless when their maker
 * dies.
 */
#include "core/pool_support.h"

#include <time.h>

#include "pool/zero.h"

#include <morsel/pager.h>

#define HUGE ((uint64_t)512)

static char path[128];

static int setup(void **state)
{
	(void)state;
	pool_double_reset();
	strcpy(path, pool_path("pool"));
	return 0;
}

static void begin(struct morsel_pool *pool, struct mrs_txn *txn)
{
	if (mrs_txn_begin(pool, MRS_INTENT_OTHER, txn))
		abort();
}

/* Takes a huge frame as a morsel would, with memory; returns ns of the latter. */
static int64_t take(struct morsel_pool *pool, unsigned at, uint64_t *frame)
{
	struct mrs_txn txn;
	int64_t ns;

	begin(pool, &txn);
	assert_int_equal(mrs_txn_get(&txn, 9, MRS_FRAME_HUGE, 0, frame), 0);
	ns = mrs_now_ns();
	assert_int_equal(mrs_pool_back(&txn, *frame, HUGE, MRS_BACK_HUGE, NULL), 0);
	ns = mrs_now_ns() - ns;
	pool_double_link(at, *frame, 9);
	mrs_txn_settle(&txn);
	mrs_txn_end(&txn);
	return ns;
}

static void give(struct morsel_pool *pool, unsigned at)
{
	uint64_t frame = pool_double_frame(at);
	struct mrs_txn txn;

	begin(pool, &txn);
	mrs_pool_unback(pool, frame, HUGE);
	mrs_txn_put_begin(&txn, 9, frame);
	pool_double_unlink(at);
	mrs_txn_put_end(&txn);
	mrs_txn_end(&txn);
}

static void assert_zero(struct morsel_pool *pool, uint64_t frame)
{
	const uint64_t *word = mrs_pool_at(pool, frame, HUGE);

	for (uint64_t i = 0; i < 2 * MIB / 8; i++)
		assert_int_equal(word[i], 0);
}

static uint64_t fill_stock(struct morsel_pool *pool)
{
	while (mrs_zero_tick(pool))
		;
	return mrs_load_acquire(&mrs_pool_state(pool)->zeroed);
}

/* False, with words, where the kernel gives no huge folios at all. */
static bool has_stock(struct morsel_pool *pool, uint64_t bytes)
{
	assert_int_equal(morsel_pool_zero_ahead(pool, bytes), 0);
	if (fill_stock(pool) == bytes / MRS_PAGE_BYTES)
		return true;
	fprintf(stderr, "the kernel made no huge folios\n");
	return false;
}

static void test_always_zero(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 128 * MIB, 0);
	uint64_t frame[16];

	(void)state;
	if (!has_stock(pool, 16 * MIB))
		skip();
	assert_clean(pool);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 16; i++) {
			take(pool, i, &frame[i]);
			assert_zero(pool, frame[i]);
			memset(mrs_pool_at(pool, frame[i], HUGE), 0xff, 2 * MIB);
		}
		assert_int_equal(mrs_pool_state(pool)->zeroed, 0);
		assert_clean(pool);
		for (unsigned i = 0; i < 16; i++)
			give(pool, i);
		assert_int_equal(fill_stock(pool), 8 * HUGE);
	}
	assert_int_equal(morsel_pool_zero_ahead(pool, 0), 0);
	assert_int_equal(mrs_pool_state(pool)->zeroed, 0);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
}

/* What is in the stock is resident, goes when the budget is short, and comes back to nobody's harm.
 */
static void test_budget(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 128 * MIB, 0);
	uint64_t before = mrs_pool_resident(pool), with;

	(void)state;
	if (!has_stock(pool, 16 * MIB))
		skip();
	with = mrs_pool_resident(pool);
	assert_in_range(with - before, 8 * HUGE, 8 * HUGE + 8);
	assert_int_equal(morsel_pool_set_budget(pool, with * MRS_PAGE_BYTES + 4096), 0);
	mrs_zero_tick(pool);
	assert_true(mrs_pool_resident(pool) <= with - with / 16 + HUGE);
	assert_int_equal(mrs_zero_give_up(pool, UINT64_MAX) % HUGE, 0);
	assert_in_range(mrs_pool_resident(pool), before, before + 8);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
}

/* Somebody took a part of a frame of the stock by chance: the hint is old. */
static void test_old_hint(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 64 * MIB, 0);
	struct mrs_txn txn;
	uint64_t *hints, frame, got;

	(void)state;
	if (!has_stock(pool, 2 * MIB))
		skip();
	hints = mrs_pool_at(pool, mrs_pool_state(pool)->swap_words[2], 1);
	frame = hints[0] - 1;
	begin(pool, &txn);
	assert_int_equal(mrs_txn_get_at(&txn, 0, frame + 17), 0);
	pool_double_link(0, frame + 17, 0);
	mrs_txn_settle(&txn);
	mrs_txn_end(&txn);
	take(pool, 1, &got);
	assert_true(got != frame);
	assert_zero(pool, got);
	assert_int_equal(mrs_pool_state(pool)->zeroed, 0);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
}

static int child_ticks(const char *pool_file)
{
	struct morsel_pool *pool = pool_open(pool_file, 0);

	if (morsel_pool_zero_ahead(pool, 16 * MIB))
		return 1;
	fill_stock(pool);
	mrs_zero_give_up(pool, HUGE);
	return morsel_pool_close(pool) ? 2 : 0;
}

static void test_death(void **state)
{
	static const char *const places[] = {"zero.hints.linked:1", "zero.fill.taken:2",
					     "zero.fill.backed:3",  "zero.take.hint:1",
					     "zero.give_up.bare:1", "pool.frames.putting:4"};
	struct morsel_pool *pool = pool_create(NULL, 64 * MIB, 0);
	bool works = has_stock(pool, 2 * MIB);

	(void)state;
	assert_int_equal(morsel_pool_close(pool), 0);
	if (!works)
		skip();
	for (unsigned i = 0; i < mrs_array_length(places); i++) {
		uint64_t frame[20];

		pool = pool_create(path, 64 * MIB, 0);
		if (!WIFSIGNALED(pool_wait(pool_spawn("ticks", path, places[i]))))
			fail_msg("%s was not met", places[i]);
		assert_true(morsel_pool_reap(pool) >= 0);
		assert_clean(pool);
		for (unsigned k = 0; k < 20; k++) {
			take(pool, k, &frame[k]);
			assert_zero(pool, frame[k]);
		}
		assert_clean(pool);
		for (unsigned k = 0; k < 20; k++)
			give(pool, k);
		assert_int_equal(morsel_pool_close(pool), 0);
		assert_int_equal(morsel_pool_destroy(path, 1), 0);
	}
}

/* Not judged: times are printed. */
static void test_times(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 128 * MIB, 0);
	int64_t fresh = INT64_MAX, stocked = INT64_MAX;
	uint64_t frame;

	(void)state;
	for (unsigned i = 0; i < 8; i++)
		fresh = mrs_min(fresh, take(pool, i, &frame));
	for (unsigned i = 0; i < 8; i++)
		give(pool, i);
	if (!has_stock(pool, 16 * MIB))
		skip();
	for (unsigned i = 0; i < 8; i++)
		stocked = mrs_min(stocked, take(pool, i, &frame));
	printf("memory for a huge frame: fresh %lld ns, from the stock %lld ns\n", (long long)fresh,
	       (long long)stocked);
	assert_int_equal(morsel_pool_close(pool), 0);
}

static void test_bad(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 64 * MIB, 0);
	struct morsel_pool_opts opts =
		pool_opts(MORSEL_POOL_CREATE | MORSEL_POOL_NO_HUGE, 64 * MIB, 0);

	(void)state;
	assert_int_equal(morsel_pool_zero_ahead(pool, 2 * GIB), -EINVAL);
	assert_int_equal(morsel_pool_close(pool), 0);
	assert_int_equal(morsel_pool_open(NULL, &opts, &pool), 0);
	assert_int_equal(morsel_pool_zero_ahead(pool, 2 * MIB), -EOPNOTSUPP);
	assert_int_equal(morsel_pool_close(pool), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_always_zero, setup),
		cmocka_unit_test_setup(test_budget, setup),
		cmocka_unit_test_setup(test_old_hint, setup),
		cmocka_unit_test_setup(test_death, setup),
		cmocka_unit_test_setup(test_times, setup),
		cmocka_unit_test_setup(test_bad, setup),
	};
	int failed;

	if (argc == 4 && !strcmp(argv[1], "--child")) {
		pool_double_attach();
		return child_ticks(argv[3]);
	}
	pool_folder_make("/dev/shm");
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	pool_folder_remove();
	return failed;
}
