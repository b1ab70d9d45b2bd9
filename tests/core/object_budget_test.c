/*
 * The budget, with eviction: it falls, room is made for who needs it, what stays is told, and
 * several processes use a morsel that is larger than it.
 */
#include "core/object_support.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <morsel/observe.h>
#include <morsel/swap.h>

#include "object/evict.h"
#include "object/retarget.h"
#include "support/counts.h"

static char swap_path[128];

static struct morsel_pool *budget_pool(uint64_t bytes, uint64_t swap_bytes)
{
	struct morsel_pool *pool = object_pool(bytes);
	const char *directory = getenv("TMPDIR");
	struct morsel_swap_opts opts = {.size = sizeof(opts),
					.path = swap_path,
					.bytes = swap_bytes,
					.flags = MORSEL_SWAP_PLAIN_IO | MORSEL_SWAP_SPARSE};

	snprintf(swap_path, sizeof(swap_path), "%.60s/morsel-test-%d-budget",
		 directory ? directory : "/tmp", (int)getpid());
	unlink(swap_path);
	if (swap_bytes)
		assert_ok(morsel_swap_add(pool, &opts, NULL));
	return pool;
}

static void budget_pool_end(struct morsel_pool *pool)
{
	object_pool_end(pool);
	unlink(swap_path);
}

static struct morsel_view *map(struct morsel *morsel)
{
	struct morsel_view *view;

	assert_ok(morsel_map(morsel, NULL, &view));
	return view;
}

static void fill(struct morsel_view *view, uint64_t seed, uint64_t bytes)
{
	uint64_t *at = morsel_addr(view);

	for (uint64_t i = 0; i < bytes; i += 8)
		at[i / 8] = object_word(seed, i);
}

static uint64_t differs(struct morsel_view *view, uint64_t seed, uint64_t bytes)
{
	const uint64_t *at = morsel_addr(view);

	for (uint64_t i = 0; i < bytes; i += 8)
		if (at[i / 8] != object_word(seed, i))
			return i;
	return UINT64_MAX;
}

static uint64_t resident(struct morsel_pool *pool)
{
	return mrs_pool_resident(pool) * 4096;
}

static uint64_t counted(struct morsel_pool *pool, enum mrs_counter which)
{
	return mrs_load_acquire(&mrs_pool_state(pool)->count[which]);
}

/* The evictor keeps what is resident below the budget, if it is given time. */
static void await_resident(struct morsel_pool *pool, uint64_t bytes)
{
	for (int i = 0; i < 2000 && resident(pool) > bytes; i++)
		usleep(10000);
	if (resident(pool) > bytes)
		fail_msg("%llu bytes are resident, of %llu", (unsigned long long)resident(pool),
			 (unsigned long long)bytes);
}

/* ---- the budget falls ---- */

static void test_falls(void **state)
{
	struct morsel_pool *pool = budget_pool(64 * MIB, 32 * MIB);
	struct morsel *morsel =
		object_create(pool, "m", 8 * MIB, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	struct morsel_view *view = map(morsel);
	uint64_t before;

	fill(view, 1, 8 * MIB);
	before = resident(pool);
	assert_ok(morsel_pool_set_budget(pool, before - 4 * MIB));
	assert_true(resident(pool) <= before - 4 * MIB);
	assert_int_equal(differs(view, 1, 8 * MIB), UINT64_MAX);
	assert_ok(morsel_pool_set_budget(pool, 0));
	morsel_view_destroy(view);
	assert_ok(morsel_close(morsel));
	budget_pool_end(pool);
}

static void test_stays(void **state)
{
	struct morsel_pool *pool = budget_pool(64 * MIB, 32 * MIB);
	struct morsel *morsel =
		object_create(pool, "m", 8 * MIB, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	struct morsel *plain = object_create(pool, "p", 4 * MIB, 0, 0);
	struct morsel_view *view = map(morsel);
	struct morsel_pool_stat stat = {.size = sizeof(stat)};
	struct morsel_grant grant;

	fill(view, 1, 8 * MIB);
	assert_ok(morsel_acquire(view, 0, 6 * MIB, MORSEL_READ, &grant));
	assert_fails(morsel_pool_set_budget(pool, 4 * MIB), -EBUSY, "6.00 MiB of it are pinned");
	assert_ok(morsel_pool_stat(pool, &stat));
	assert_int_equal(stat.bytes_budget, 0);
	assert_int_equal(differs(view, 1, 8 * MIB), UINT64_MAX);
	morsel_release(&grant);
	assert_fails(morsel_pool_set_budget(pool, 2 * MIB), -EBUSY, "0 B of it are pinned");
	assert_ok(morsel_pool_set_budget(pool, resident(pool) - 6 * MIB));
	assert_ok(morsel_pool_set_budget(pool, 0));
	assert_int_equal(differs(view, 1, 8 * MIB), UINT64_MAX);
	morsel_view_destroy(view);
	assert_ok(morsel_close(plain));
	assert_ok(morsel_close(morsel));
	budget_pool_end(pool);
}

/* ---- room is made ---- */

static void test_room(void **state)
{
	struct morsel_pool *pool = budget_pool(64 * MIB, 32 * MIB);
	struct morsel *morsel =
		object_create(pool, "m", 8 * MIB, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	struct morsel_opts opts = {.size = sizeof(opts),
				   .flags = MORSEL_CREATE,
				   .bytes = 4 * MIB,
				   .pages = MORSEL_PAGES_4K};
	struct morsel_view *view = map(morsel);
	struct morsel *plain, *other;
	struct timespec begin, end;

	fill(view, 1, 8 * MIB);
	assert_ok(morsel_pool_set_budget(pool, resident(pool) + MIB));
	assert_ok(morsel_open(pool, "p", &opts, &plain));
	assert_true(counted(pool, MRS_COUNT_PAGES_OUT) > 500);
	assert_int_equal(differs(view, 1, 8 * MIB), UINT64_MAX);
	/* What cannot be had is refused, and soon. */
	opts.bytes = 6 * MIB;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	assert_fails(morsel_open(pool, "o", &opts, &other), -ENOSPC, "budget");
	clock_gettime(CLOCK_MONOTONIC, &end);
	assert_true(end.tv_sec - begin.tv_sec < 20);
	assert_int_equal(differs(view, 1, 8 * MIB), UINT64_MAX);
	assert_ok(morsel_pool_set_budget(pool, 0));
	morsel_view_destroy(view);
	assert_ok(morsel_close(plain));
	assert_ok(morsel_close(morsel));
	budget_pool_end(pool);
}

static void import_large(uint32_t pages, uint64_t align)
{
	struct morsel_pool *pool = budget_pool(128 * MIB, 64 * MIB);
	const char *file = object_file("large", 7, 32 * MIB + 72);
	struct morsel_opts opts = {.size = sizeof(opts),
				   .flags = MORSEL_EVICTABLE,
				   .pages = pages,
				   .tensor_align = align};
	char copy[160], command[400];
	struct morsel *morsel;

	snprintf(copy, sizeof(copy), "%s.copy", file);
	snprintf(command, sizeof(command), "cmp '%s' '%s'", file, copy);
	assert_ok(morsel_pool_set_budget(pool, 16 * MIB));
	assert_ok(morsel_import(pool, "m", file, &opts, &morsel));
	assert_ok(morsel_export(morsel, copy, NULL));
	assert_int_equal(system(command), 0);
	await_resident(pool, 16 * MIB);
	assert_ok(morsel_pool_set_budget(pool, 0));
	assert_ok(morsel_close(morsel));
	unlink(file);
	unlink(copy);
	budget_pool_end(pool);
}

/* Its own earlier pages go while it is read. */
static void test_import(void **state)
{
	import_large(MORSEL_PAGES_4K, 0);
	import_large(MORSEL_PAGES_MIXED, 0);
}

/* Without a swap target nothing could go: said before anything is read. */
static void test_no_target(void **state)
{
	struct morsel_pool *pool = budget_pool(64 * MIB, 0);
	struct morsel_opts opts = {
		.size = sizeof(opts), .flags = MORSEL_CREATE | MORSEL_EVICTABLE, .bytes = 32 * MIB};
	struct morsel *morsel;

	assert_ok(morsel_pool_set_budget(pool, 16 * MIB));
	assert_fails(morsel_open(pool, "m", &opts, &morsel), -ENOSPC, "swap target");
	budget_pool_end(pool);
}

/* ---- watermarks ---- */

static void assert_watermarks(struct morsel_pool *pool, uint64_t low, uint64_t high)
{
	struct morsel_pool_stat stat = {.size = sizeof(stat)};
	struct morsel_counters counters = {.size = sizeof(counters)};

	assert_ok(morsel_pool_stat(pool, &stat));
	assert_int_equal(stat.bytes_low, low);
	assert_int_equal(stat.bytes_high, high);
	assert_ok(morsel_pool_counters(pool, &counters));
	assert_int_equal(counters.budget_low, low);
	assert_int_equal(counters.budget_high, high);
}

static void test_watermark_bounds(void **state)
{
	struct morsel_pool *pool = budget_pool(64 * MIB, 0);

	assert_watermarks(pool, 0, 0);
	assert_fails(morsel_pool_set_watermarks(pool, MIB, 2 * MIB), -EINVAL, "there is none");
	assert_ok(morsel_pool_set_watermarks(pool, 0, 0));
	assert_ok(morsel_pool_set_budget(pool, 32 * MIB));
	assert_watermarks(pool, 28 * MIB, 30 * MIB);
	assert_fails(morsel_pool_set_watermarks(pool, 0, 33 * MIB), -EINVAL,
		     "33.00 MiB is more than the budget of 32.00 MiB");
	assert_fails(morsel_pool_set_watermarks(pool, 20 * MIB, 20 * MIB), -EINVAL, "not below");
	assert_fails(morsel_pool_set_watermarks(pool, 31 * MIB, 0), -EINVAL,
		     "not below the upper one of 30.00 MiB");
	assert_fails(morsel_pool_set_watermarks(pool, 1, 0), -EINVAL, "less than a page");
	assert_watermarks(pool, 28 * MIB, 30 * MIB);
	assert_ok(morsel_pool_set_watermarks(pool, 0, 20 * MIB));
	assert_watermarks(pool, 20 * MIB, 20 * MIB);
	assert_ok(morsel_pool_set_watermarks(pool, 20 * MIB, 32 * MIB));
	assert_watermarks(pool, 20 * MIB, 32 * MIB);
	/* A new budget is not what they were meant for. */
	assert_ok(morsel_pool_set_budget(pool, 16 * MIB));
	assert_watermarks(pool, 14 * MIB, 15 * MIB);
	assert_ok(morsel_pool_set_budget(pool, 0));
	assert_watermarks(pool, 0, 0);
	budget_pool_end(pool);
}

static void test_watermarks_at_creation(void **state)
{
	struct morsel_pool_opts opts = {.size = sizeof(opts),
					.flags = MORSEL_POOL_CREATE,
					.bytes = 64 * MIB,
					.budget_low_bytes = 8 * MIB,
					.budget_high_bytes = 16 * MIB};
	struct morsel_pool *pool;

	assert_fails(morsel_pool_open(NULL, &opts, &pool), -EINVAL, "there is none");
	opts.budget_bytes = 12 * MIB;
	assert_fails(morsel_pool_open(NULL, &opts, &pool), -EINVAL, "more than the budget");
	opts.budget_bytes = 32 * MIB;
	assert_ok(morsel_pool_open(NULL, &opts, &pool));
	assert_watermarks(pool, 8 * MIB, 16 * MIB);
	assert_ok(morsel_pool_close(pool));
}

/* Nobody asks for room: the evictor works between the watermarks all the same. */
static void test_watermarks_are_kept(void **state)
{
	struct morsel_pool *pool = budget_pool(64 * MIB, 32 * MIB);
	struct morsel *morsel =
		object_create(pool, "m", 16 * MIB, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	struct morsel_view *view = map(morsel);

	fill(view, 1, 16 * MIB);
	assert_ok(morsel_pool_set_budget(pool, 32 * MIB));
	usleep(300000);
	assert_int_equal(counted(pool, MRS_COUNT_PAGES_OUT), 0);
	assert_ok(morsel_pool_set_watermarks(pool, 6 * MIB, 10 * MIB));
	/* What saving needs is counted too, when it is over. */
	await_resident(pool, 6 * MIB + MIB / 2);
	assert_true(resident(pool) > 5 * MIB);
	assert_int_equal(differs(view, 1, 16 * MIB), UINT64_MAX);
	assert_ok(morsel_pool_set_budget(pool, 0));
	morsel_view_destroy(view);
	assert_ok(morsel_close(morsel));
	budget_pool_end(pool);
}

/* ---- grants ---- */

/* Pins that do not fit are refused before anything goes or comes for them. */
static void test_grants_beyond(void **state)
{
	struct morsel_pool *pool = budget_pool(64 * MIB, 48 * MIB);
	struct morsel *morsel =
		object_create(pool, "m", 32 * MIB, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	struct morsel_view *view = map(morsel);
	struct morsel_grant grant[3];
	uint64_t evicted;

	fill(view, 1, 32 * MIB);
	assert_ok(morsel_pool_set_budget(pool, 16 * MIB));
	assert_fails(morsel_acquire(view, 0, 20 * MIB, MORSEL_READ, &grant[0]), -ENOSPC,
		     "20.00 MiB pinned by grants");
	assert_non_null(strstr(morsel_errormsg(), "budget of 16.00 MiB: release grants"));
	assert_ok(morsel_acquire(view, 0, 4 * MIB, MORSEL_WRITE, &grant[0]));
	assert_ok(morsel_acquire(view, 8 * MIB, 4 * MIB, MORSEL_READ, &grant[1]));
	evicted = counted(pool, MRS_COUNT_PAGES_IN);
	assert_fails(morsel_acquire(view, 16 * MIB, 12 * MIB, MORSEL_READ, &grant[2]), -ENOSPC,
		     "20.00 MiB pinned by grants");
	assert_int_equal(counted(pool, MRS_COUNT_PAGES_IN), evicted);
	/* What is pinned already is not counted twice. */
	assert_ok(morsel_acquire(view, 0, 12 * MIB, MORSEL_READ, &grant[2]));
	morsel_release(&grant[2]);
	morsel_release(&grant[1]);
	assert_ok(morsel_acquire(view, 16 * MIB, 8 * MIB, MORSEL_READ, &grant[2]));
	morsel_release(&grant[2]);
	morsel_release(&grant[0]);
	/* Nothing of what was refused is pinned. */
	assert_ok(mrs_evict(morsel, 0, 32 * MIB / 4096, &evicted));
	assert_int_equal(differs(view, 1, 32 * MIB), UINT64_MAX);
	assert_ok(morsel_pool_set_budget(pool, 0));
	morsel_view_destroy(view);
	assert_ok(morsel_close(morsel));
	budget_pool_end(pool);
}

/* ---- compressed memory ---- */

/* Three quarters of each page are the same in all of them. */
static void fill_softly(void *memory, uint64_t seed, uint64_t bytes)
{
	uint64_t *at = memory;

	for (uint64_t i = 0; i < bytes; i += 8)
		at[i / 8] = i / 8 % 4 ? i % 4096 : object_word(seed, i);
}

/* It has a limit of its own: what goes into it leaves the budget by its whole size. */
static void test_compressed_is_beside(void **state)
{
	struct morsel_pool *pool = budget_pool(128 * MIB, 0);
	struct morsel_swap_opts swap = {.size = sizeof(swap), .bytes = 24 * MIB};
	struct morsel_pool_stat stat = {.size = sizeof(stat)};
	struct morsel *morsel;
	struct morsel_view *view;
	struct morsel_grant grant;

	if (morsel_swap_add(pool, &swap, NULL) == -EOPNOTSUPP) {
		budget_pool_end(pool);
		skip();
	}
	morsel =
		object_create(pool, "m", 32 * MIB, MORSEL_EVICTABLE | MORSEL_LAZY, MORSEL_PAGES_4K);
	view = map(morsel);
	assert_ok(morsel_pool_set_budget(pool, 16 * MIB));
	for (uint64_t at = 0; at < 32 * MIB; at += MIB) {
		assert_ok(morsel_acquire(view, at, MIB, MORSEL_WRITE, &grant));
		fill_softly(grant.addr, at, MIB);
		morsel_release(&grant);
	}
	assert_ok(morsel_pool_stat(pool, &stat));
	assert_in_range(stat.bytes_compressed, 4 * MIB, 24 * MIB);
	assert_int_equal(stat.bytes_resident, resident(pool));
	assert_true(stat.bytes_resident > 16 * MIB);
	assert_int_equal(mrs_pool_charged(pool) * 4096,
			 stat.bytes_resident - stat.bytes_compressed);
	for (uint64_t at = 0; at < 32 * MIB; at += MIB)
		for (uint64_t i = 0; i < MIB; i += 32)
			if (((uint64_t *)morsel_addr(view))[(at + i) / 8] != object_word(at, i))
				fail_msg("byte %llu differs", (unsigned long long)(at + i));
	morsel_view_destroy(view);
	assert_ok(morsel_unlink(pool, "m"));
	assert_ok(morsel_close(morsel));
	assert_ok(morsel_pool_stat(pool, &stat));
	assert_in_range(stat.bytes_compressed, 0, MIB);
	budget_pool_end(pool);
}

/* ---- several processes, and a morsel that is larger than the budget ---- */

#define LARGE	  (24 * MIB)
#define SMALL	  (12 * MIB)
#define WORKERS	  4u
#define OWN_WORDS 8u /* of each page, for who writes */

static int complain(int code)
{
	fprintf(stderr, "child: %s\n", morsel_errormsg());
	return code;
}

/* Its own word in each page counts up; now and then all of the content is read. */
static int child_work(struct morsel_pool *pool, const char *argument)
{
	unsigned which = (unsigned)atoi(argument), rounds = COUNT_BUDGET_ROUNDS;
	uint64_t pages = LARGE / 4096, random = test_seed() * 8 + which;
	uint64_t *wrote = calloc(pages, sizeof(*wrote));
	struct morsel_view *view;
	struct morsel *morsel;
	volatile uint64_t *at;

	if (!wrote || morsel_open(pool, "m", NULL, &morsel) || morsel_map(morsel, NULL, &view))
		return complain(2);
	at = morsel_addr(view);
	for (uint64_t i = 0; i < rounds * pages; i++) {
		/* Mostly near the beginning: some pages are used more than others. */
		uint64_t page = test_random(&random) % (test_random(&random) % pages + 1);
		volatile uint64_t *word = &at[page * 512 + which];

		if (*word != wrote[page])
			return 3;
		if (at[page * 512 + 100] != object_word(1, page * 4096 + 800))
			return 4;
		if (i % 3)
			*word = ++wrote[page];
	}
	for (uint64_t page = 0; page < pages; page++)
		if (at[page * 512 + which] != wrote[page])
			return 5;
	free(wrote);
	morsel_view_destroy(view);
	morsel_close(morsel);
	return 0;
}

static int child_hash(struct morsel_pool *pool, const char *argument)
{
	struct morsel_view *view;
	struct morsel *morsel;
	const uint64_t *at;

	if (morsel_open(pool, "m", NULL, &morsel) || morsel_map(morsel, NULL, &view))
		return complain(2);
	at = morsel_addr(view);
	for (uint64_t i = 0; i < LARGE / 8; i++)
		if (i % 512 >= OWN_WORDS && at[i] != object_word(1, i * 8))
			return 3;
	printf("hash %08x\n", mrs_crc32c(0, at, LARGE));
	morsel_view_destroy(view);
	morsel_close(morsel);
	return morsel_pool_close(pool) ? 4 : 0;
}

/* Maps it, says so, and is stopped by its parent. */
static int child_stop(struct morsel_pool *pool, const char *argument)
{
	struct morsel_view *view;
	struct morsel *morsel;

	if (morsel_open(pool, "m", NULL, &morsel) || morsel_map(morsel, NULL, &view))
		return complain(2);
	((volatile uint64_t *)morsel_addr(view))[OWN_WORDS - 1] = 1;
	/* What its fault brings beside the page has an end, too: stopped in it, others would wait.
	 */
	usleep(300000);
	raise(SIGSTOP);
	return ((volatile uint64_t *)morsel_addr(view))[OWN_WORDS - 1] == 1 ? 0 : 3;
}

static void make_large(struct morsel_pool *pool)
{
	struct morsel *morsel = object_create(pool, "m", LARGE, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	struct morsel_view *view = map(morsel);

	fill(view, 1, LARGE);
	for (uint64_t page = 0; page < LARGE / 4096; page++)
		for (unsigned i = 0; i < WORKERS; i++)
			((uint64_t *)morsel_addr(view))[page * 512 + i] = 0;
	morsel_view_destroy(view);
	assert_ok(morsel_close(morsel));
}

static void print_counts(struct morsel_pool *pool)
{
	printf("out %llu, clean %llu, second chance %llu, over budget %llu, faults %llu, poisoned "
	       "%llu, "
	       "swap errors %llu\n",
	       (unsigned long long)counted(pool, MRS_COUNT_PAGES_OUT),
	       (unsigned long long)counted(pool, MRS_COUNT_PAGES_OUT_CLEAN),
	       (unsigned long long)counted(pool, MRS_COUNT_SECOND_CHANCE),
	       (unsigned long long)counted(pool, MRS_COUNT_OVER_BUDGET),
	       (unsigned long long)counted(pool, MRS_COUNT_FAULTS),
	       (unsigned long long)counted(pool, MRS_COUNT_POISONED),
	       (unsigned long long)counted(pool, MRS_COUNT_SWAP_ERRORS));
}

static void end_children(struct morsel_pool *pool, pid_t *pid, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		int status;

		assert_int_equal(waitpid(pid[i], &status, 0), pid[i]);
		if (status)
			print_counts(pool);
		if (status)
			fail_msg("child %u ended with status 0x%x", i, status);
	}
}

static void test_processes(void **state)
{
	struct morsel_pool *pool = budget_pool(128 * MIB, 64 * MIB);
	pid_t pid[WORKERS], stopped;
	char number[8];
	int status;

	make_large(pool);
	assert_ok(morsel_pool_set_budget(pool, SMALL));
	stopped = object_child_start(pool, "stop", "", NULL);
	assert_int_equal(waitpid(stopped, &status, WUNTRACED), stopped);
	assert_true(WIFSTOPPED(status));
	for (unsigned i = 0; i < WORKERS; i++) {
		snprintf(number, sizeof(number), "%u", i);
		pid[i] = object_child_start(pool, "work", number, NULL);
	}
	end_children(pool, pid, WORKERS);
	for (unsigned i = 0; i < WORKERS; i++)
		pid[i] = object_child_start(pool, "hash", "", NULL);
	end_children(pool, pid, WORKERS);
	print_counts(pool);
	await_resident(pool, SMALL);
	assert_true(counted(pool, MRS_COUNT_PAGES_OUT) > LARGE / 4096);
	kill(stopped, SIGCONT);
	end_children(pool, &stopped, 1);
	assert_ok(morsel_pool_set_budget(pool, 0));
	assert_ok(morsel_unlink(pool, "m"));
	budget_pool_end(pool);
}

static int child_main(char **argv)
{
	static const struct {
		const char *op;
		int (*run)(struct morsel_pool *pool, const char *argument);
	} ops[] = {{"work", child_work}, {"hash", child_hash}, {"stop", child_stop}};
	struct morsel_pool *pool;

	if (morsel_pool_open_fd(atoi(argv[3]), NULL, &pool))
		return 1;
	for (size_t i = 0; i < mrs_array_length(ops); i++)
		if (!strcmp(argv[2], ops[i].op))
			return ops[i].run(pool, argv[4]);
	return 1;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_falls),
		cmocka_unit_test(test_stays),
		cmocka_unit_test(test_room),
		cmocka_unit_test(test_import),
		cmocka_unit_test(test_no_target),
		cmocka_unit_test(test_processes),
		cmocka_unit_test(test_watermark_bounds),
		cmocka_unit_test(test_watermarks_at_creation),
		cmocka_unit_test(test_watermarks_are_kept),
		cmocka_unit_test(test_compressed_is_beside),
		cmocka_unit_test(test_grants_beyond),
	};

	if (argc == 5 && !strcmp(argv[1], "--child"))
		return child_main(argv);
	return cmocka_run_group_tests_name("object: budget", tests, NULL, NULL);
}
