/*
 * Moving, promotion and compaction: content and pool stay right whatever moves, views follow, who
 * cannot follow keeps the old number out of use, and a death anywhere loses nothing.
 */
#include "core/object_support.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <morsel/compact.h>
#include <morsel/observe.h>

#include "object/move.h"
#include "object/promote.h"
#include "object/share.h"
#include "support/counts.h"

#define PAGES 512u
#define BYTES (PAGES * MRS_PAGE_BYTES)
#define ADDED 4u /* pages with a writer */

static struct morsel_view *map(struct morsel *morsel, uint32_t access)
{
	struct morsel_map_opts opts = {
		.size = sizeof(opts), .access = access, .kind = MORSEL_VIEW_STITCHED};
	struct morsel_view *view;

	assert_ok(morsel_map(morsel, &opts, &view));
	return view;
}

static void fill(struct morsel_view *view, uint64_t seed, uint64_t bytes)
{
	uint64_t *at = morsel_addr(view);

	for (uint64_t i = 0; i < bytes / 8; i++)
		at[i] = object_word(seed, 8 * i);
}

static void assert_same(struct morsel_view *view, uint64_t seed, uint64_t bytes)
{
	const uint64_t *at = morsel_addr(view);

	for (uint64_t i = 0; i < bytes / 8; i++)
		if (at[i] != object_word(seed, 8 * i))
			fail_msg("page %llu differs", (unsigned long long)(8 * i / MRS_PAGE_BYTES));
}

static struct morsel *scattered(struct morsel_pool *pool, const char *name, uint64_t bytes)
{
	return object_create(pool, name, bytes, MORSEL_EVICTABLE | MORSEL_SCATTERED,
			     MORSEL_PAGES_4K);
}

static uint64_t frame_of(struct morsel *morsel, uint64_t page)
{
	uint64_t frame = 0;

	assert_true(mrs_move_is_movable(morsel, page, &frame));
	return frame;
}

/* Some free frame, far from the data. */
static uint64_t free_frame(struct morsel_pool *pool, uint64_t after)
{
	uint64_t first = mrs_pool_super(pool)->frame_data, end = mrs_pool_frames_end(pool);

	for (uint64_t i = 0; i < end - first; i++) {
		uint64_t frame = first + (after - first + i) % (end - first);

		if (mrs_place_is_free(pool, frame, 0))
			return frame;
	}
	fail_msg("no frame is free");
	return 0;
}

static struct morsel_counters counters(struct morsel_pool *pool)
{
	struct morsel_counters now = {.size = sizeof(now)};

	assert_ok(morsel_pool_counters(pool, &now));
	return now;
}

/* ---- moving ---- */

static void a_moved_page_keeps_its_content(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = scattered(pool, "m", BYTES);
	struct morsel_view *view = map(morsel, MORSEL_READ | MORSEL_WRITE);
	struct morsel_view *other = map(morsel, MORSEL_READ);

	fill(view, 1, BYTES);
	for (uint64_t page = 0; page < 40; page++) {
		uint64_t from = frame_of(morsel, page), to = free_frame(pool, from + 1);

		assert_int_equal(mrs_move(morsel, page, from, from), -EEXIST);
		assert_int_equal(mrs_move(morsel, page, from + 1, to), -EAGAIN);
		assert_int_equal(mrs_move(morsel, page, from, to), 0);
		assert_int_equal(frame_of(morsel, page), to);
	}
	assert_same(view, 1, BYTES);
	assert_same(other, 1, BYTES);
	fill(view, 2, BYTES);
	assert_same(other, 2, BYTES);
	assert_int_equal(mrs_quarantine_sweep(pool), 0);
	assert_int_equal(counters(pool).pages_moved, 40);
	morsel_view_destroy(other);
	morsel_view_destroy(view);
	assert_ok(morsel_close(morsel));
	object_pool_end(pool);
}

/* Adds one to the first word of each page, again and again; says how often in the second. */
struct adder {
	uint64_t *words;
	uint32_t stop;
	uint64_t rounds;
};

static void *add_words(void *ctx)
{
	struct adder *adder = ctx;

	while (!mrs_load_acquire32(&adder->stop)) {
		for (uint64_t page = 0; page < ADDED; page++)
			((volatile uint64_t *)adder->words)[page * MRS_PAGE_BYTES / 8]++;
		mrs_store_release(&adder->rounds, adder->rounds + 1);
	}
	return NULL;
}

/* What is written while the page is copied is in the copy, or waits for it. */
static void a_writer_goes_on(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = scattered(pool, "m", BYTES);
	struct morsel_view *view = map(morsel, MORSEL_READ | MORSEL_WRITE);
	struct adder adder = {.words = morsel_addr(view)};
	uint64_t to = frame_of(morsel, 0);
	pthread_t thread;

	fill(view, 1, BYTES);
	for (uint64_t page = 0; page < ADDED; page++)
		adder.words[page * MRS_PAGE_BYTES / 8] = 0;
	assert_int_equal(pthread_create(&thread, NULL, add_words, &adder), 0);
	while (!mrs_load_acquire(&adder.rounds))
		sched_yield();
	for (unsigned i = 0; i < COUNT_MOVES_WRITTEN; i++) {
		uint64_t from = frame_of(morsel, i % ADDED);
		int rc;

		to = free_frame(pool, to + 1);
		rc = mrs_move(morsel, i % ADDED, from, to);
		/* A fault of the writer may have the leaf. */
		if (rc != -EAGAIN)
			assert_int_equal(rc, 0);
	}
	mrs_store_release32(&adder.stop, 1);
	assert_int_equal(pthread_join(thread, NULL), 0);
	for (uint64_t page = 0; page < ADDED; page++)
		assert_int_equal(adder.words[page * MRS_PAGE_BYTES / 8], adder.rounds);
	assert_true(counters(pool).pages_moved > 0);
	morsel_view_destroy(view);
	assert_ok(morsel_close(morsel));
	object_pool_end(pool);
}

static void what_is_held_stays(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = scattered(pool, "m", BYTES);
	struct morsel *run = object_create(pool, "r", BYTES, MORSEL_EVICTABLE | MORSEL_CONTIGUOUS,
					   MORSEL_PAGES_4K);
	struct morsel_view *view = map(morsel, MORSEL_READ | MORSEL_WRITE);
	struct morsel_map_opts pooled = {.size = sizeof(pooled), .kind = MORSEL_VIEW_POOLED};
	struct morsel_view *fixed;
	struct morsel_grant grant;
	uint64_t from = frame_of(morsel, 3), to = free_frame(pool, from);

	assert_ok(morsel_map(run, &pooled, &fixed));
	assert_false(mrs_move_is_possible(run));
	assert_int_equal(mrs_move(run, 0, frame_of(run, 0), to), -EBUSY);
	assert_ok(morsel_acquire(view, 3 * MRS_PAGE_BYTES, 10, MORSEL_READ, &grant));
	assert_int_equal(mrs_move(morsel, 3, from, to), -EBUSY);
	assert_int_equal(frame_of(morsel, 3), from);
	morsel_release(&grant);
	assert_int_equal(mrs_move(morsel, 3, from, to), 0);
	assert_int_equal(mrs_quarantine_sweep(pool), 0);
	morsel_view_destroy(fixed);
	morsel_view_destroy(view);
	assert_ok(morsel_close(run));
	assert_ok(morsel_close(morsel));
	object_pool_end(pool);
}

/* ---- another process ---- */

/* Maps, says so, and stops; continued, it verifies and answers with its exit code. */
static int child_view(struct morsel_pool *pool)
{
	struct morsel *morsel = object_open(pool, "m");
	struct morsel_view *view = map(morsel, MORSEL_READ);

	assert_same(view, 1, BYTES);
	raise(SIGSTOP);
	assert_same(view, 1, BYTES);
	morsel_view_destroy(view);
	return morsel_close(morsel);
}

static void a_stopped_viewer_keeps_the_number(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = scattered(pool, "m", BYTES);
	struct morsel_view *view = map(morsel, MORSEL_READ | MORSEL_WRITE);
	uint64_t from = frame_of(morsel, 7), to = free_frame(pool, from);
	int status;
	pid_t pid;

	fill(view, 1, BYTES);
	pid = object_child_start(pool, "view", "", NULL);
	assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
	assert_true(WIFSTOPPED(status));
	assert_int_equal(mrs_move(morsel, 7, from, to), 0);
	assert_same(view, 1, BYTES);
	/* He may still have it mapped. */
	assert_int_equal(mrs_quarantine_sweep(pool), 1);
	assert_false(mrs_place_is_free(pool, from, 0));
	object_check(pool);
	kill(pid, SIGCONT);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(mrs_quarantine_sweep(pool), 0);
	assert_true(mrs_place_is_free(pool, from, 0));
	morsel_view_destroy(view);
	assert_ok(morsel_close(morsel));
	object_pool_end(pool);
}

/* Moves eight pages back and forth, and promotes what can be: dies somewhere. */
static int child_move(struct morsel_pool *pool)
{
	struct morsel *morsel = object_open(pool, "m");
	struct morsel_view *view = map(morsel, MORSEL_READ | MORSEL_WRITE);

	for (uint64_t page = 0; page < 4; page++) {
		uint64_t from = frame_of(morsel, page), to = from;
		int rc = -EAGAIN;

		/* The pager gets everyone's descriptor within moments; others take frames, too. */
		for (unsigned i = 0; (rc == -EAGAIN || rc == -EEXIST) && i < 1000; i++) {
			if (rc == -EAGAIN && i)
				usleep(5000);
			to = free_frame(pool, to + 1);
			rc = mrs_move(morsel, page, from, to);
		}
		if (rc)
			return 3;
	}
	mrs_quarantine_sweep(pool);
	mrs_promote(morsel, PAGES);
	morsel_view_destroy(view);
	return morsel_close(morsel);
}

static int child_fill(struct morsel_pool *pool)
{
	struct morsel *morsel = object_open(pool, "m");
	struct morsel_view *view = map(morsel, MORSEL_READ | MORSEL_WRITE);

	fill(view, 5, 3 * BYTES);
	morsel_view_destroy(view);
	return morsel_close(morsel);
}

/* Every fourth round dies at one of the steps, the others anywhere. */
static void choose_death(unsigned round, uint64_t *random, char where[48])
{
	static const char *const steps[] = {
		"move.stopped",	      "move.got",      "move.copied",
		"quarantine.claimed", "move.linked",   "quarantine.committed",
		"quarantine.punched", "move.followed", "promote.joined"};

	if (round % 4 == 1)
		snprintf(where, 48, "%s:%llu", steps[round / 4 % mrs_array_length(steps)],
			 (unsigned long long)(1 + test_random(random) % 4));
	else
		snprintf(where, 48, "*:%llu",
			 (unsigned long long)(1 + test_random(random) % COUNT_MOVE_PROBES));
}

static void death_while_moving(void **state)
{
	uint64_t random = test_seed(), killed = 0;

	for (unsigned round = 0; round < COUNT_MOVE_DEATHS; round++) {
		struct morsel_pool *pool = object_pool(64 * MIB);
		struct morsel *morsel = scattered(pool, "m", 3 * BYTES);
		/* Where this process has no view the child is the pager, which moves. */
		struct morsel_view *view =
			round % 2 ? NULL : map(morsel, MORSEL_READ | MORSEL_WRITE);
		char where[48];
		int status;

		if (view)
			fill(view, 5, 3 * BYTES);
		else
			assert_int_equal(object_child(pool, "fill", "", NULL), 0);
		choose_death(round, &random, where);
		snprintf(object_context, sizeof(object_context), "killed at probe %s", where);
		status = object_child(pool, "move", "", where);
		killed += WIFSIGNALED(status);
		if (!WIFSIGNALED(status))
			assert_int_equal(status, 0);
		assert_true(morsel_pool_reap(pool) >= 0);
		if (round % 2)
			view = map(morsel, MORSEL_READ);
		assert_same(view, 5, 3 * BYTES);
		mrs_quarantine_sweep(pool);
		object_check(pool);
		morsel_view_destroy(view);
		assert_ok(morsel_close(morsel));
		object_pool_end(pool);
	}
	assert_true(killed > 0);
}

/* ---- promotion ---- */

static unsigned level_at(struct morsel *morsel, uint64_t page)
{
	struct mrs_leaf leaf;

	assert_ok(mrs_table_leaf(&morsel->table, page, &leaf));
	assert_int_equal(mrs_entry_lock(leaf.entry), 0);
	return leaf.level;
}

static void promoted_pages_keep_their_content(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = object_create(pool, "m", 3 * BYTES,
					      MORSEL_EVICTABLE | MORSEL_SCATTERED, MORSEL_PAGES_4K);
	struct morsel_view *view = map(morsel, MORSEL_READ | MORSEL_WRITE);
	struct morsel_view *other = map(morsel, MORSEL_READ);
	struct mrs_retarget batch;
	int rc;

	fill(view, 1, 3 * BYTES);
	assert_int_equal(mrs_promote_in_place(morsel, PAGES), -EAGAIN);
	rc = mrs_promote(morsel, PAGES);
	if (rc == -ENOMEM)
		skip(); /* this machine has no huge folio now */
	assert_int_equal(rc, 0);
	assert_int_equal(level_at(morsel, PAGES), 1);
	assert_int_equal(level_at(morsel, 0), 0);
	assert_same(view, 1, 3 * BYTES);
	assert_same(other, 1, 3 * BYTES);
	assert_int_equal(counters(pool).promotions, 1);
	assert_int_equal(counters(pool).promotions_moved, 1);
	object_check(pool);
	/* And back: the kept table is used again. */
	assert_ok(mrs_retarget_one(morsel, MRS_RETARGET_SPLIT, PAGES + 9, &batch));
	assert_ok(mrs_retarget_split(&batch, 0));
	mrs_retarget_abort(&batch);
	assert_int_equal(level_at(morsel, PAGES), 0);
	fill(view, 2, 3 * BYTES);
	assert_same(other, 2, 3 * BYTES);
	assert_int_equal(mrs_promote_in_place(morsel, PAGES), 0);
	assert_same(other, 2, 3 * BYTES);
	assert_int_equal(mrs_quarantine_sweep(pool), 0);
	morsel_view_destroy(other);
	morsel_view_destroy(view);
	assert_ok(morsel_close(morsel));
	object_pool_end(pool);
}

/* ---- compaction ---- */

#define SMALL	    120u /* morsels */
#define SMALL_PAGES 48u

static void small_name(unsigned i, char name[16])
{
	snprintf(name, 16, "s%u", i);
}

static void compaction_gains_what_it_can(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel_compact_result result = {.size = sizeof(result)};
	struct morsel *kept[SMALL] = {0};
	struct morsel_view *view[SMALL];
	uint64_t random = test_seed();
	char name[16];

	for (unsigned i = 0; i < SMALL; i++) {
		small_name(i, name);
		kept[i] = scattered(pool, name, SMALL_PAGES * MRS_PAGE_BYTES);
		view[i] = map(kept[i], MORSEL_READ | MORSEL_WRITE);
		fill(view[i], i, SMALL_PAGES * MRS_PAGE_BYTES);
	}
	for (unsigned i = 0; i < SMALL; i++) {
		if (test_random(&random) % 4 == 0)
			continue;
		small_name(i, name);
		morsel_view_destroy(view[i]);
		assert_ok(morsel_close(kept[i]));
		assert_ok(morsel_unlink(pool, name));
		kept[i] = NULL;
	}
	assert_ok(morsel_pool_compact(pool, NULL, &result));
	print_message("%llu huge frames gained by %llu moves, at least %llu were needed\n",
		      (unsigned long long)result.huge_gained,
		      (unsigned long long)result.pages_moved,
		      (unsigned long long)result.moves_least);
	assert_true(result.huge_gained > 0);
	assert_int_equal(result.refused, 0);
	assert_true(result.pages_moved <= result.moves_least);
	object_check(pool);
	for (unsigned i = 0; i < SMALL; i++) {
		if (!kept[i])
			continue;
		assert_same(view[i], i, SMALL_PAGES * MRS_PAGE_BYTES);
		morsel_view_destroy(view[i]);
		assert_ok(morsel_close(kept[i]));
	}
	/* There is nothing more to gain. */
	assert_ok(morsel_pool_compact(pool, NULL, &result));
	assert_int_equal(result.huge_gained, 0);
	object_pool_end(pool);
}

static int run_child(int argc, char **argv)
{
	struct morsel_pool *pool;
	int rc;

	if (morsel_pool_open_fd(atoi(argv[3]), NULL, &pool))
		return 2;
	if (!strcmp(argv[2], "fill"))
		rc = child_fill(pool);
	else
		rc = strcmp(argv[2], "move") ? child_view(pool) : child_move(pool);
	return rc ? rc : morsel_pool_close(pool) ? 4 : 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_moved_page_keeps_its_content),
		cmocka_unit_test(a_writer_goes_on),
		cmocka_unit_test(what_is_held_stays),
		cmocka_unit_test(a_stopped_viewer_keeps_the_number),
		cmocka_unit_test(death_while_moving),
		cmocka_unit_test(promoted_pages_keep_their_content),
		cmocka_unit_test(compaction_gains_what_it_can),
	};

	if (argc > 1 && !strcmp(argv[1], "--child"))
		return run_child(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
