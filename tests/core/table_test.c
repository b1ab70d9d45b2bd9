/*
 * The page table against an array: page -> frame. Whatever is set, trimmed and expanded, both must
 * say the same, every frame in use must be found by a walk, and a get that fails must change
 * nothing.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "core/table_memory.h"
#include "support/counts.h"

#define PAGES (3u << 18) /* what the array covers: three times 1 GiB */
#define ANY   UINT64_MAX
#define GIANT (1ull << 18)

struct model {
	struct memory m;
	struct memory_txn txn;
	uint32_t *frame; /* per page, 0 a hole */
	uint64_t mapped;
	uint64_t random;
	uint64_t keep; /* release() must not see a frame of a page below this */
};

static void model_open(struct model *t, uint64_t seed)
{
	memset(t, 0, sizeof(*t));
	memory_open(&t->m);
	t->frame = calloc(PAGES, sizeof(*t->frame));
	assert_non_null(t->frame);
	t->random = seed;
}

static void model_close(struct model *t)
{
	memory_close(&t->m);
	free(t->frame);
}

/* The run at page, found the obvious way. */
static struct mrs_run model_run(const struct model *t, uint64_t page, uint64_t limit)
{
	struct mrs_run run = {.page = page, .frame = t->frame[page], .mapped = t->frame[page]};

	while (run.pages < limit && page + run.pages < PAGES) {
		uint64_t frame = t->frame[page + run.pages];

		if (frame != (run.mapped ? run.frame + run.pages : 0))
			break;
		run.pages++;
	}
	return run;
}

static void check_lookup(struct model *t, uint64_t page, uint64_t limit)
{
	struct mrs_run want, run;

	limit = mrs_min(limit, PAGES - page);
	want = model_run(t, page, limit);
	assert_int_equal(mrs_table_lookup(&t->m.table, page, limit, &run), 0);
	assert_int_equal(run.page, page);
	assert_int_equal(run.mapped, want.mapped);
	assert_int_equal(run.frame, want.frame);
	assert_int_equal(run.pages, want.pages);
	assert_true(run.order == 0 || run.order == 9 || run.order == 18);
}

struct window {
	struct model *t;
	uint64_t page;
};

static int check_run(void *ctx, const struct mrs_run *run)
{
	struct window *w = ctx;
	struct mrs_run want = model_run(w->t, w->page, PAGES);

	assert_int_equal(run->page, w->page);
	assert_int_equal(run->mapped, want.mapped);
	assert_int_equal(run->frame, want.frame);
	assert_true(run->pages <= want.pages);
	w->page += run->pages;
	return 0;
}

static void check_all(struct model *t)
{
	struct window w = {.t = t};

	assert_int_equal(mrs_table_each_run(&t->m.table, 0, PAGES, check_run, &w), 0);
	assert_int_equal(w.page, PAGES);
	memory_audit(&t->m);
}

static bool model_is_hole(const struct model *t, uint64_t page, unsigned level)
{
	for (uint64_t i = 0; i < 1ull << 9 * level; i++)
		if (t->frame[page + i])
			return false;
	return true;
}

static void model_set(struct model *t, uint64_t page, unsigned level, uint64_t frame)
{
	for (uint64_t i = 0; i < 1ull << 9 * level; i++)
		t->frame[page + i] = frame + i;
	t->mapped += 1ull << 9 * level;
}

/* A page at which things happen: mostly near an edge, or close to the last one. */
static uint64_t random_page(struct model *t, unsigned level)
{
	static const uint64_t edges[] = {0,	    511,	 512,	   513,
					 1024,	    GIANT - 1,	 GIANT,	   GIANT + 512,
					 2 * GIANT, PAGES - 512, PAGES - 1};
	uint64_t r = test_random(&t->random);
	uint64_t page;

	if (r % 3 == 0)
		page = edges[(r >> 8) % mrs_array_length(edges)];
	else if (r % 3 == 1)
		page = (r >> 8) % 4096;
	else
		page = (r >> 8) % PAGES;
	return mrs_round_down(page, 1ull << 9 * level);
}

static uint64_t random_frame(struct model *t, uint64_t page, unsigned level)
{
	uint64_t next = page ? t->frame[page - 1] + 1ull : 0;
	uint64_t r = test_random(&t->random);

	/* Often what continues the page before, so that runs have something to merge. */
	if (next > 1 && r & 1 && !(next & ((1ull << 9 * level) - 1)) &&
	    memory_take_at(&t->m, next, 9 * level))
		return next;
	return memory_take(&t->m, r >> 1, 9 * level);
}

static void step_set(struct model *t)
{
	uint64_t r = test_random(&t->random) % 64;
	unsigned level = r == 0 ? 2 : r < 8 ? 1 : 0;
	uint64_t page = random_page(t, level);
	uint64_t frame = random_frame(t, page, level);
	bool hole = model_is_hole(t, page, level);
	int rc;

	if (!frame)
		return;
	rc = mrs_table_set(&t->m.table, &t->txn, page, level, frame);
	assert_int_equal(rc, hole ? 0 : -EEXIST);
	if (!rc) {
		model_set(t, page, level, frame);
		return;
	}
	memset(&t->m.used[frame], 0, 1ull << 9 * level);
	t->m.in_use -= 1ull << 9 * level;
}

/* Each leaf goes once, whole, and only from what is trimmed. */
static void release(void *ctx, uint64_t frame, unsigned order)
{
	struct model *t = ctx;

	assert_int_equal(frame & ((1ull << order) - 1), 0);
	for (uint64_t i = 0; i < 1ull << order; i++)
		assert_int_equal(t->m.used[frame + i], 1);
	t->mapped -= 1ull << order;
}

static void model_trim(struct model *t, uint64_t page)
{
	uint64_t left = 0;

	assert_int_equal(mrs_table_trim(&t->m.table, &t->txn, page, release, t), 0);
	for (uint64_t i = 0; i < page; i++)
		left += t->frame[i] != 0;
	memset(&t->frame[page], 0, (PAGES - page) * sizeof(*t->frame));
	assert_int_equal(t->mapped, left);
}

static void step_trim(struct model *t)
{
	uint64_t r = test_random(&t->random);
	uint64_t page = random_page(t, r % 3);

	if (r % 16 == 0)
		page = 0;
	else if (r % 16 < 10)
		page = PAGES - (r >> 8) % 100000;
	model_trim(t, page);
	if (!page)
		assert_true(!t->m.root && !t->m.in_use);
}

/* Gives an empty morsel a run, or a run a longer one. */
static void step_run(struct model *t)
{
	uint64_t r = test_random(&t->random);
	uint64_t first = t->frame[0] ? t->frame[0] : DATA_FIRST + (r >> 40) % 3 * 256;
	uint64_t had = 0, pages;
	bool is_run = t->m.root && mrs_entry_state(t->m.root) != MRS_ENTRY_TABLE;

	if (t->m.root && !is_run) {
		assert_int_equal(mrs_table_set_run(&t->m.table, &t->txn, first, 5), -EEXIST);
		return;
	}
	had = is_run ? t->m.run_pages : 0;
	for (pages = had; pages < had + 1 + (r >> 8) % 2000 && pages < PAGES; pages++)
		if (!memory_take_at(&t->m, first + pages, 0))
			break;
	if (pages == had)
		return;
	assert_int_equal(mrs_table_set_run(&t->m.table, &t->txn, first, pages), 0);
	for (; had < pages; had++, t->mapped++)
		t->frame[had] = first + had;
}

static void test_model(void **state)
{
	struct model t;
	uint64_t steps = COUNT_TABLE_MODEL_STEPS;

	model_open(&t, test_seed());
	for (uint64_t i = 0; i < steps; i++) {
		uint64_t r = test_random(&t.random) % 1000;

		if (r < 700)
			step_set(&t);
		else if (r < 704)
			step_trim(&t);
		else if (r < 710)
			step_run(&t);
		else if (r < 715)
			assert_int_equal(mrs_table_expand(&t.m.table, &t.txn), 0);
		else
			check_lookup(&t, random_page(&t, 0), 1 + test_random(&t.random) % 3000);
		if (i % 500 == 0)
			check_all(&t);
	}
	check_all(&t);
	model_trim(&t, 0);
	assert_int_equal(t.m.in_use, 0);
	model_close(&t);
}

/* Runs of every alignment: expanded they say the same, with the largest leafs that fit. */
static void test_expand(void **state)
{
	static const uint64_t starts[] = {0, 1, 511, 512, 513};
	static const uint64_t lengths[] = {1,	 2,	    511,   512,	      513,	  1024,
					   5000, GIANT - 1, GIANT, GIANT + 1, GIANT + 512};

	for (unsigned s = 0; s < mrs_array_length(starts); s++) {
		for (unsigned l = 0; l < mrs_array_length(lengths); l++) {
			uint64_t first = DATA_FIRST + starts[s], pages = lengths[l];
			struct mrs_run run;
			struct model t;

			model_open(&t, 1);
			for (uint64_t i = 0; i < pages; i++) {
				assert_true(memory_take_at(&t.m, first + i, 0));
				t.frame[i] = first + i;
			}
			assert_int_equal(mrs_table_set_run(&t.m.table, &t.txn, first, pages), 0);
			assert_int_equal(mrs_table_expand(&t.m.table, &t.txn), 0);
			assert_int_equal(mrs_entry_state(t.m.root), MRS_ENTRY_TABLE);
			check_all(&t);
			assert_int_equal(mrs_table_lookup(&t.m.table, 0, PAGES, &run), 0);
			assert_int_equal(run.pages, pages);
			assert_int_equal(run.order, starts[s] % 512 || pages < 512 ? 0
						    : starts[s] || pages < GIANT   ? 9
										   : 18);
			t.mapped = pages;
			model_trim(&t, pages / 2);
			check_all(&t);
			model_trim(&t, 0);
			assert_int_equal(t.m.in_use, 0);
			model_close(&t);
		}
	}
}

/* Far pages: the root grows to every height, and what was below stays. */
static void test_height(void **state)
{
	static const uint64_t far[] = {0, 512, 511, GIANT, GIANT << 9, (1ull << 36) - 1};
	struct mrs_run run;
	struct model t;

	model_open(&t, 1);
	for (unsigned i = 0; i < mrs_array_length(far); i++) {
		uint64_t frame = DATA_FIRST + 7 + i;

		assert_int_equal(memory_set(&t.m, &t.txn, far[i], 0, frame), 0);
		assert_int_equal(memory_set(&t.m, &t.txn, far[i], 0, frame + 100), -EEXIST);
		for (unsigned j = 0; j <= i; j++) {
			assert_int_equal(mrs_table_lookup(&t.m.table, far[j], 1, &run), 0);
			assert_int_equal(run.frame, DATA_FIRST + 7 + j);
		}
		memory_audit(&t.m);
	}
	assert_int_equal(mrs_table_set(&t.m.table, &t.txn, 1ull << 36, 0, DATA_FIRST), -EINVAL);
	assert_int_equal(mrs_table_set(&t.m.table, &t.txn, 1, 1, DATA_FIRST), -EINVAL);
	assert_int_equal(mrs_table_set(&t.m.table, &t.txn, 512, 1, DATA_FIRST + 1), -EINVAL);
	assert_int_equal(mrs_table_set(&t.m.table, &t.txn, 1, 0, DATA_END), -EINVAL);
	assert_int_equal(mrs_table_set(&t.m.table, &t.txn, 1, 3, DATA_FIRST), -EINVAL);
	assert_int_equal(mrs_table_lookup(&t.m.table, 1ull << 36, 1, &run), -EINVAL);
	assert_int_equal(mrs_table_lookup(&t.m.table, 1, 0, &run), -EINVAL);
	t.mapped = mrs_array_length(far);
	assert_int_equal(mrs_table_trim(&t.m.table, &t.txn, GIANT, release, &t), 0);
	assert_int_equal(t.mapped, 3);
	memory_audit(&t.m);
	assert_int_equal(mrs_table_trim(&t.m.table, &t.txn, 0, release, &t), 0);
	assert_int_equal(t.m.in_use, 0);
	model_close(&t);
}

/* ---- the n-th get fails ---- */

struct action {
	const char *name;
	void (*prepare)(struct model *t);
	int (*act)(struct model *t);
};

static void prepare_run(struct model *t)
{
	for (uint64_t i = 0; i < 3000; i++) {
		assert_true(memory_take_at(&t->m, DATA_FIRST + 3 + i, 0));
		t->frame[i] = DATA_FIRST + 3 + i;
	}
	assert_int_equal(mrs_table_set_run(&t->m.table, &t->txn, DATA_FIRST + 3, 3000), 0);
	t->mapped = 3000;
}

static void prepare_giant(struct model *t)
{
	assert_int_equal(memory_set(&t->m, &t->txn, GIANT, 2, DATA_FIRST + GIANT), 0);
	model_set(t, GIANT, 2, DATA_FIRST + GIANT);
}

static void prepare_one(struct model *t)
{
	assert_int_equal(memory_set(&t->m, &t->txn, 5, 0, DATA_FIRST + 9), 0);
	model_set(t, 5, 0, DATA_FIRST + 9);
}

static void prepare_nothing(struct model *t)
{
}

static int act_set_far(struct model *t)
{
	int rc = memory_set(&t->m, &t->txn, PAGES - 1, 0, DATA_FIRST + 4000);

	if (!rc)
		model_set(t, PAGES - 1, 0, DATA_FIRST + 4000);
	return rc;
}

static int act_expand(struct model *t)
{
	return mrs_table_expand(&t->m.table, &t->txn);
}

static int act_trim_inside(struct model *t)
{
	int rc = mrs_table_trim(&t->m.table, &t->txn, GIANT + 700, release, t);

	if (!rc)
		memset(&t->frame[GIANT + 700], 0, (PAGES - GIANT - 700) * sizeof(*t->frame));
	return rc;
}

static const struct action actions[] = {
	{"set into nothing", prepare_nothing, act_set_far},
	{"set beyond a page", prepare_one, act_set_far},
	{"set beyond a run", prepare_run, act_set_far},
	{"expand", prepare_run, act_expand},
	{"trim inside 1 GiB", prepare_giant, act_trim_inside},
};

static void test_fail_nth(void **state)
{
	for (unsigned a = 0; a < mrs_array_length(actions); a++) {
		int n = 0, rc;

		do {
			struct model t;

			model_open(&t, 1);
			actions[a].prepare(&t);
			t.m.fail_at = n;
			rc = actions[a].act(&t);
			assert_true(!rc || rc == -ENOSPC);
			t.m.fail_at = -1;
			check_all(&t);
			assert_int_equal(t.txn.building, 0);
			if (rc)
				assert_int_equal(actions[a].act(&t), 0);
			check_all(&t);
			assert_int_equal(mrs_table_trim(&t.m.table, &t.txn, 0, release, &t), 0);
			assert_int_equal(t.m.in_use, 0);
			model_close(&t);
			n++;
		} while (rc);
		printf("%s: %d gets, each failed once\n", actions[a].name, n - 1);
		assert_true(n > 1);
	}
}

/* A leaf goes into a table that stands already; a page that is in the way stops all of it. */
static void test_leaf_over_table(void **state)
{
	struct model t;

	model_open(&t, 1);
	assert_int_equal(memory_set(&t.m, &t.txn, 1024 + 77, 0, DATA_FIRST + 5), 0);
	model_set(&t, 1024 + 77, 0, DATA_FIRST + 5);
	assert_int_equal(memory_set(&t.m, &t.txn, 1024, 1, DATA_FIRST + 512), -EEXIST);
	check_all(&t);
	assert_int_equal(memory_set(&t.m, &t.txn, 0, 2, DATA_FIRST + GIANT), -EEXIST);
	check_all(&t);
	assert_int_equal(mrs_table_prepare(&t.m.table, &t.txn, 2048, 0), 0);
	assert_int_equal(memory_set(&t.m, &t.txn, 2048, 1, DATA_FIRST + 512), 0);
	model_set(&t, 2048, 1, DATA_FIRST + 512);
	check_all(&t);
	model_trim(&t, 2048 + 100);
	check_all(&t);
	model_close(&t);
}

/* As one leaf or not at all, also where the table that is in the way is empty. */
static void test_leaf_whole(void **state)
{
	struct model t;

	model_open(&t, 1);
	assert_int_equal(mrs_table_prepare(&t.m.table, &t.txn, 1024, 0), 0);
	assert_int_equal(mrs_table_set_whole(&t.m.table, &t.txn, 1024, 1, DATA_FIRST + 512),
			 -EEXIST);
	check_all(&t);
	assert_int_equal(memory_set(&t.m, &t.txn, 512, 1, DATA_FIRST + 1024), 0);
	model_set(&t, 512, 1, DATA_FIRST + 1024);
	assert_int_equal(mrs_table_set_whole(&t.m.table, &t.txn, 512, 1, DATA_FIRST + 512),
			 -EEXIST);
	check_all(&t);
	model_close(&t);
}

static int stop_at_second(void *ctx, const struct mrs_run *run)
{
	return ++*(int *)ctx == 2 ? 42 : 0;
}

static int stop_at_once(void *ctx, uint64_t frame, uint64_t count, bool is_table)
{
	return -EINTR;
}

static void test_stop(void **state)
{
	struct model t;
	int calls = 0;

	model_open(&t, 1);
	prepare_one(&t);
	assert_int_equal(mrs_table_each_run(&t.m.table, 0, 100, stop_at_second, &calls), 42);
	assert_int_equal(calls, 2);
	assert_int_equal(mrs_table_walk(&t.m.table, stop_at_once, NULL), -EINTR);
	assert_int_equal(mrs_table_each_run(&t.m.table, 1, ANY, stop_at_second, &calls), -EINVAL);
	model_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model),		cmocka_unit_test(test_expand),
		cmocka_unit_test(test_height),		cmocka_unit_test(test_fail_nth),
		cmocka_unit_test(test_leaf_over_table), cmocka_unit_test(test_stop),
		cmocka_unit_test(test_leaf_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
