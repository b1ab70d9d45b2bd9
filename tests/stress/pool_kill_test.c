/*
 * Death at every probe of every operation of the pool room.
 *
 * Each operation is a program of its own that is started again and again, to be killed at its
 * first, second, ... probe, until it comes through. After each death the pool must be clean by the
 * check (which compares the allocator with the list of links), hold no memory that nobody owns, and
 * serve the next process. Reapers are killed in the same way, over a pool that the dead have left.
 */
#include "core/pool_support.h"

#include "base/probe.h"
#include "support/counts.h"

#define LINKS 64

static char path[128];

/* ---- what the killed do ---- */

static int op_create(void)
{
	return morsel_pool_close(pool_create(path, 8 * MIB, 72 * MIB));
}

static int op_attach(void)
{
	return morsel_pool_close(pool_open(path, 0));
}

static int op_grow(void)
{
	struct morsel_pool *pool = pool_open(path, 0);
	int rc = morsel_pool_grow(pool, 64 * MIB, 0);

	return rc ? rc : morsel_pool_close(pool);
}

static void take(struct mrs_txn *txn, unsigned at, unsigned order, unsigned flags)
{
	enum mrs_frame_class class = order >= 9 ? MRS_FRAME_HUGE : MRS_FRAME_MOVABLE;
	uint64_t frame;

	if (mrs_txn_get(txn, order, class, 0, &frame))
		return;
	if (!mrs_pool_back(txn, frame, 1ull << order, flags, NULL)) {
		memset(mrs_pool_at(txn->pool, frame, 1ull << order), 0x42, 4096);
		MRS_PROBE("test.backed");
		pool_double_link(at, frame, order);
		MRS_PROBE("test.linked");
	} else {
		mrs_txn_put_begin(txn, order, frame);
		mrs_txn_put_end(txn);
	}
	mrs_txn_settle(txn);
}

static void give(struct mrs_txn *txn, unsigned at)
{
	unsigned order = mrs_putting_order(pool_double->link[at]);
	uint64_t frame = pool_double_frame(at);

	mrs_txn_put_begin(txn, order, frame);
	pool_double_unlink(at);
	MRS_PROBE("test.unlinked");
	mrs_pool_unback(txn->pool, frame, 1ull << order);
	MRS_PROBE("test.unbacked");
	mrs_txn_put_end(txn);
}

/* A few gets and puts of every kind, and a table. */
static int op_frames(void)
{
	static const unsigned orders[] = {0, 3, 9, 0, 6, 10};
	struct morsel_pool *pool = pool_open(path, 0);
	struct mrs_txn txn;
	uint64_t table;

	for (unsigned i = 0; i < LINKS; i++) {
		if (mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn))
			return 1;
		if (pool_double_frame(i))
			give(&txn, i);
		else if (i < 6)
			take(&txn, i, orders[i], MRS_BACK_HUGE);
		else if (i == 6 && !mrs_txn_get_table(&txn, &table)) {
			pool_double_link(i, table, 0);
			mrs_txn_settle(&txn);
		}
		mrs_txn_end(&txn);
		if (i == 7)
			i = LINKS - 8;
	}
	return morsel_pool_close(pool);
}

/* Takes, and gives back. */
static int op_twice(void)
{
	return op_frames() || op_frames();
}

/* Takes all there is, so that the number space comes online in steps. */
static int op_online(void)
{
	struct morsel_pool *pool = pool_open(path, 0);
	struct mrs_txn txn;
	uint64_t frame, wanted = mrs_pool_state(pool)->online_end;

	if (mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn))
		return 1;
	if (!pool_double_frame(60) && wanted < mrs_pool_frames_end(pool) &&
	    !mrs_txn_get_at(&txn, 0, wanted + 5)) {
		pool_double_link(60, wanted + 5, 0);
		mrs_txn_settle(&txn);
	}
	if (!pool_double_frame(61) && !mrs_txn_get(&txn, 18, MRS_FRAME_HUGE, 0, &frame)) {
		pool_double_link(61, frame, 18);
		mrs_txn_settle(&txn);
	}
	mrs_txn_end(&txn);
	return morsel_pool_close(pool);
}

static const struct {
	const char *name;
	int (*run)(void);
} ops[] = {
	{"create", op_create}, {"attach", op_attach}, {"grow", op_grow},
	{"frames", op_frames}, {"online", op_online}, {"twice", op_twice},
};

static int child_main(const char *name, const char *at)
{
	snprintf(path, sizeof(path), "%s", at);
	pool_double_attach();
	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		if (!strcmp(ops[i].name, name))
			return ops[i].run() ? 1 : 0;
	return 125;
}

/* ---- judging ---- */

/* No memory behind data frames that no link names. */
static void assert_no_leaked_memory(struct morsel_pool *pool)
{
	int fd = morsel_pool_fd(pool);
	off_t end = (off_t)(mrs_pool_frames_end(pool) * 4096);
	off_t at = lseek(fd, (off_t)(pool->super.frame_data * 4096), SEEK_DATA);

	while (at >= 0 && at < end) {
		if (!mrs_object_repair.referenced(pool, (uint64_t)at >> 12, 1))
			fail_msg("frame %lld is free and has content", (long long)at >> 12);
		at = lseek(fd, at + 4096, SEEK_DATA);
	}
}

static void judge(struct morsel_pool *pool, bool memory)
{
	morsel_pool_reap(pool);
	assert_int_equal(pool_stat(pool).slots_used, 1);
	assert_int_equal(mrs_pool_state(pool)->gate, 0);
	assert_clean(pool);
	if (memory)
		assert_no_leaked_memory(pool);
}

/* Starts op to be killed at its n-th probe; true if it was. */
static bool killed_at(const char *op, unsigned n)
{
	char text[16];
	int status;

	snprintf(text, sizeof(text), "*:%u", n);
	status = pool_wait(pool_spawn(op, path, text));
	if (WIFSIGNALED(status)) {
		assert_int_equal(WTERMSIG(status), SIGKILL);
		return true;
	}
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		fail_msg("%s ended with %#x at probe %u", op, status, n);
	return false;
}

static void kill_everywhere(const char *op, uint64_t bytes, uint64_t bytes_max)
{
	struct morsel_pool *pool = pool_create(path, bytes, bytes_max);
	unsigned n = 0;

	do {
		pool_double_reset();
		assert_int_equal(morsel_pool_close(pool), 0);
		assert_int_equal(morsel_pool_destroy(path, 1), 0);
		pool = pool_create(path, bytes, bytes_max);
		/* Every probe at first; a claim of 1 GiB hits the allocator's a thousand times. */
		n += 1 + n / 24;
		if (!killed_at(op, n))
			break;
		judge(pool, true);
		/* The pool serves the next one, through the same operation. */
		assert_false(killed_at(op, 1000000));
		judge(pool, true);
	} while (n < 10000);
	printf("%s: killed on the way through its %u probes\n", op, n - 1);
	assert_true(n > 5);
	assert_int_equal(morsel_pool_close(pool), 0);
	assert_int_equal(morsel_pool_destroy(path, 1), 0);
}

static void test_frames(void **state)
{
	kill_everywhere("twice", 16 * MIB, 16 * MIB);
	(void)state;
}

static void test_attach(void **state)
{
	kill_everywhere("attach", 16 * MIB, 16 * MIB);
	(void)state;
}

static void test_grow(void **state)
{
	kill_everywhere("grow", 2 * MIB, 1024 * MIB);
	(void)state;
}

static void test_online(void **state)
{
	kill_everywhere("online", 200 * GIB, 200 * GIB);
	(void)state;
}

/* A pool that is being created is there whole, or not at all, and leaves nothing beside it. */
static void test_create(void **state)
{
	unsigned n = 0, there = 0;

	pool_double_reset();
	while (killed_at("create", ++n)) {
		struct morsel_pool *pool;
		char command[256];

		if (!access(path, F_OK)) {
			pool = pool_open(path, 0);
			judge(pool, true);
			assert_int_equal(morsel_pool_close(pool), 0);
			assert_int_equal(morsel_pool_destroy(path, 0), 0);
			there++;
		}
		snprintf(command, sizeof(command), "test -z \"$(ls -A '%s')\"", pool_folder);
		assert_int_equal(system(command), 0);
	}
	printf("create: killed at each of %u probes, the pool was there after %u\n", n - 1, there);
	assert_true(n > 5 && there > 0 && there < n - 1);
	assert_int_equal(morsel_pool_destroy(path, 1), 0);
	(void)state;
}

/* The reaper dies at each of its own steps, over somebody who died at a random one. */
static void test_reapers_die(void **state)
{
	uint64_t seed = test_seed();
	unsigned rounds = COUNT_POOL_REAPERS, reaper_deaths = 0;
	struct morsel_pool *pool;

	for (unsigned i = 0; i < rounds; i++) {
		unsigned steps = 0;

		pool_double_reset();
		pool = pool_create(path, 16 * MIB, 16 * MIB);
		killed_at("frames", 8 + (unsigned)(test_random(&seed) % 150));
		/* Each reaper comes one random stretch further, and may leave its own mess. */
		while (steps++ < 4 && killed_at("attach", 1 + (unsigned)(test_random(&seed) % 24)))
			reaper_deaths++;
		judge(pool, true);
		assert_int_equal(morsel_pool_close(pool), 0);
		assert_int_equal(morsel_pool_destroy(path, 1), 0);
	}
	printf("reapers killed: %u in %u rounds\n", reaper_deaths, rounds);
	assert_true(reaper_deaths > rounds / 4);
	(void)state;
}

/* Four at once over one pool, killed at random probes; the pool goes on being used. */
static void test_random_kills(void **state)
{
	uint64_t seed = test_seed();
	unsigned rounds = COUNT_POOL_KILLS / 4, kills = 0;
	struct morsel_pool *pool;

	pool_double_reset();
	pool = pool_create(path, 64 * MIB, 64 * MIB);
	for (unsigned i = 0; i < rounds; i++) {
		pid_t pid[4];

		for (unsigned k = 0; k < 4; k++) {
			char text[16];

			snprintf(text, sizeof(text), "*:%u",
				 1 + (unsigned)(test_random(&seed) % (k ? 12 : 120)));
			pid[k] = pool_spawn(k ? "attach" : "frames", path, text);
		}
		for (unsigned k = 0; k < 4; k++)
			kills += WIFSIGNALED(pool_wait(pid[k]));
		judge(pool, true);
	}
	printf("processes killed: %u\n", kills);
	assert_true(kills > rounds / 2);
	assert_int_equal(morsel_pool_close(pool), 0);
	assert_int_equal(morsel_pool_destroy(path, 1), 0);
	(void)state;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_create),	     cmocka_unit_test(test_attach),
		cmocka_unit_test(test_grow),	     cmocka_unit_test(test_frames),
		cmocka_unit_test(test_online),	     cmocka_unit_test(test_reapers_die),
		cmocka_unit_test(test_random_kills),
	};
	int failed;

	if (argc == 4 && !strcmp(argv[1], "--child"))
		return child_main(argv[2], argv[3]);
#ifndef MORSEL_PROBES
	fprintf(stderr, "skipped: this build has no probes (MORSEL_PROBES)\n");
	return 77;
#endif
	if (getenv("MORSEL_TEST"))
		cmocka_set_test_filter(getenv("MORSEL_TEST"));
	pool_folder_make("/dev/shm");
	snprintf(path, sizeof(path), "%s", pool_path("killed"));
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	pool_folder_remove();
	return failed;
}
