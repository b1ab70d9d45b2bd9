/*
 * Tables that somebody wrote to do harm: random words, entries that are right in themselves but
 * name each other in circles, roots of every kind. Every function must come back, touch no memory
 * outside the pool (AddressSanitizer watches) and not run for ever.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/base.h"
#include "support/counts.h"
#include "table/table.h"

#define FRAMES 48u

struct hostile {
	uint64_t (*frames)[512];
	uint64_t random;
	uint64_t root;
	uint64_t run_pages;
	uint64_t building;
	struct mrs_table table;
};

static uint64_t *hostile_at(void *ctx, uint64_t frame)
{
	struct hostile *h = ctx;

	return frame < FRAMES ? h->frames[frame] : NULL;
}

/* An allocator whose metadata is damaged too: any frame, in use or not, or none at all. */
static int hostile_get(void *ctx, void *txn, uint64_t *frame)
{
	struct hostile *h = ctx;

	if (test_random(&h->random) % 4 == 0)
		return -ENOSPC;
	*frame = test_random(&h->random) % (FRAMES + 3);
	return 0;
}

static void hostile_settle(void *ctx, void *txn)
{
}

static void hostile_put_begin(void *ctx, void *txn, unsigned order, uint64_t frame)
{
}

static uint64_t *hostile_building(void *ctx, void *txn)
{
	return &((struct hostile *)ctx)->building;
}

static const struct mrs_table_ops hostile_ops = {
	.at = hostile_at,
	.get = hostile_get,
	.settle = hostile_settle,
	.put_begin = hostile_put_begin,
	.put_end = hostile_settle,
	.building = hostile_building,
};

static uint64_t random_entry(struct hostile *h, unsigned depth)
{
	uint64_t r = test_random(&h->random);
	uint64_t frame = (r >> 16) % (FRAMES + 2);
	unsigned level = r >> 8 & 3;

	switch (r % 8) {
	case 0:
		return test_random(&h->random);
	case 1:
		return 0;
	case 2:
		return mrs_entry_make(MRS_ENTRY_MAPPED, 0, frame);
	case 3:
		return mrs_entry_make((enum mrs_entry_state)(r >> 32 & 15), level, frame);
	default: /* most often a table of the level that fits: the way into circles */
		return mrs_entry_make(MRS_ENTRY_TABLE, depth ? depth - 1 : level, frame);
	}
}

/* Frame f plays the part of a table of level f % 4, so that whole towers of aliases stand. */
static void hostile_fill(struct hostile *h)
{
	for (unsigned f = 0; f < FRAMES; f++) {
		unsigned level = f % 4;

		for (unsigned i = 0; i < 512; i++) {
			uint64_t entry = random_entry(h, level);

			if (level && test_random(&h->random) % 4)
				entry = mrs_entry_make(MRS_ENTRY_TABLE, level - 1,
						       (f - 1) % FRAMES);
			h->frames[f][i] = entry;
		}
	}
	h->root = random_entry(h, 0);
	if (test_random(&h->random) % 2)
		h->root = mrs_entry_make(MRS_ENTRY_TABLE, 3, 3 + 4 * (h->root % 8));
	h->run_pages = test_random(&h->random) % 3 ? test_random(&h->random) % 64 : UINT64_MAX;
	h->building = random_entry(h, 0);
}

static int few_runs(void *ctx, const struct mrs_run *run)
{
	assert_true(run->pages > 0);
	if (run->mapped)
		assert_true(run->frame && run->frame + run->pages <= FRAMES);
	return ++*(int *)ctx >= 300;
}

static int walk_inside(void *ctx, uint64_t frame, uint64_t count, bool is_table)
{
	assert_true(frame && frame + count <= FRAMES);
	return 0;
}

static void no_release(void *ctx, uint64_t frame, unsigned order)
{
	assert_true(frame && frame + (1ull << order) <= FRAMES);
}

static void attack(struct hostile *h)
{
	uint64_t page = test_random(&h->random) % (1ull << 36);
	struct mrs_run run;
	int count = 0;

	switch (test_random(&h->random) % 9) {
	case 0:
		mrs_table_lookup(&h->table, page, 1 + page % 5000, &run);
		break;
	case 1:
		mrs_table_each_run(&h->table, page, (1ull << 36) - page, few_runs, &count);
		break;
	case 2:
		mrs_table_walk(&h->table, walk_inside, NULL);
		break;
	case 3:
		mrs_table_validate(&h->table, page, NULL, NULL);
		break;
	case 4:
		mrs_table_set(&h->table, NULL, page, 0, 1 + page % FRAMES);
		break;
	case 5:
		mrs_table_set(&h->table, NULL, mrs_round_down(page, 512), 1, 512);
		mrs_table_prepare(&h->table, NULL, mrs_round_down(page, 1 << 18), 2);
		break;
	case 6:
		mrs_table_expand(&h->table, NULL);
		break;
	case 7:
		mrs_table_discard(&h->table, NULL, &h->building);
		assert_int_equal(h->building, 0);
		break;
	default:
		mrs_table_trim(&h->table, NULL, page & 1 ? 0 : page, no_release, NULL);
	}
}

static void test_hostile(void **state)
{
	uint64_t rounds = COUNT_TABLE_HOSTILE;
	struct hostile h = {.random = test_seed()};
	time_t start = time(NULL);

	/* On the heap and no larger than the pool, so that one entry too far is seen. */
	h.frames = malloc(FRAMES * sizeof(*h.frames));
	assert_non_null(h.frames);
	h.table = (struct mrs_table){
		.ops = &hostile_ops, .ctx = &h, .root = &h.root, .run_pages = &h.run_pages};
	for (uint64_t i = 0; i < rounds; i++) {
		hostile_fill(&h);
		for (int j = 0; j < 4; j++)
			attack(&h);
	}
	printf("%llu hostile pools in %lld s\n", (unsigned long long)rounds,
	       (long long)(time(NULL) - start));
	free(h.frames);
}

/* Every table names the next one 512 times: 512^4 paths, four tables. */
static void test_tower(void **state)
{
	struct hostile h = {.random = 1};
	int count = 0;

	h.frames = calloc(FRAMES, sizeof(*h.frames));
	assert_non_null(h.frames);
	h.table = (struct mrs_table){
		.ops = &hostile_ops, .ctx = &h, .root = &h.root, .run_pages = &h.run_pages};
	for (unsigned level = 0; level < 4; level++)
		for (unsigned i = 0; i < 512; i++)
			h.frames[level + 1][i] =
				level ? mrs_entry_make(MRS_ENTRY_TABLE, level - 1, level)
				      : mrs_entry_make(MRS_ENTRY_MAPPED, 0, 9);
	h.root = mrs_entry_make(MRS_ENTRY_TABLE, 3, 4);
	assert_int_equal(mrs_table_walk(&h.table, walk_inside, NULL), -EINVAL);
	assert_true(mrs_table_validate(&h.table, 1ull << 36, NULL, NULL) > 500);
	assert_int_equal(mrs_table_each_run(&h.table, 0, 1ull << 36, few_runs, &count), 1);
	assert_int_equal(mrs_table_trim(&h.table, NULL, 0, no_release, NULL), 0);
	assert_int_equal(h.root, 0);
	free(h.frames);
}

/* What is wrong is said. */
static void test_words(void **state)
{
	static const struct {
		uint64_t entry;
		unsigned level;
		const char *problem;
	} cases[] = {
		{0, 0, NULL},
		{5, 0, "an empty entry is not zero"},
		{1ull << 62, 0, "reserved bits are set"},
		{1ull << 50, 0, NULL}, /* empty, locked by an intent */
		{(1ull << 40) | (2ull << 42) | 512, 1, NULL},
		{(1ull << 40) | (2ull << 42) | 511, 1, "a leaf's frame is not aligned to its size"},
		{(0ull << 40) | (2ull << 42) | 512, 1, "a leaf of the wrong level"},
		{(3ull << 40) | (2ull << 42) | (1 << 27), 3, "a leaf of the wrong level"},
		{(2ull << 42), 0, "a leaf in frame 0"},
		{(1ull << 42) | 7, 1, NULL},
		{(1ull << 42) | 7, 0, "a table of the wrong level"},
		{(1ull << 42) | 7, 2, "a table of the wrong level"},
		{(1ull << 42), 1, "a table in frame 0"},
		{(7ull << 42) | 7, 0, "an unknown state"},
	};

	for (unsigned i = 0; i < mrs_array_length(cases); i++) {
		const char *problem = mrs_entry_problem(cases[i].entry, cases[i].level);

		if (cases[i].problem)
			assert_string_equal(problem, cases[i].problem);
		else
			assert_null(problem);
	}
}

static void test_unusable(void **state)
{
	struct hostile h = {.random = 1};
	struct mrs_run run;
	struct mrs_leaf leaf;

	h.frames = calloc(FRAMES, sizeof(*h.frames));
	assert_non_null(h.frames);
	h.table = (struct mrs_table){
		.ops = &hostile_ops, .ctx = &h, .root = &h.root, .run_pages = &h.run_pages};
	h.root = mrs_entry_make(MRS_ENTRY_TABLE, 0, 1);
	h.frames[1][3] = mrs_entry_make(MRS_ENTRY_POISONED, 0, 5);
	h.frames[1][4] = mrs_entry_make(MRS_ENTRY_EVICTED, 0, 6);
	h.frames[1][5] = mrs_entry_make(MRS_ENTRY_MAPPED, 0, FRAMES);
	h.frames[1][6] = mrs_entry_make(MRS_ENTRY_STALE, 0, 0);
	assert_int_equal(mrs_table_lookup(&h.table, 0, 100, &run), 0);
	assert_int_equal(run.pages, 3);
	/* Without memory, but in their places: a run of two that says so. */
	assert_int_equal(mrs_table_lookup(&h.table, 3, 100, &run), 0);
	assert_true(run.mapped && run.evicted && run.poisoned);
	assert_int_equal(run.pages, 2);
	assert_int_equal(run.away, 2);
	assert_int_equal(mrs_table_lookup(&h.table, 4, 100, &run), 0);
	assert_true(run.evicted && !run.poisoned);
	assert_int_equal(run.frame, 6);
	assert_int_equal(mrs_table_lookup(&h.table, 5, 100, &run), -EINVAL);
	/* A stale entry that stays linked is damage, not a search without end. */
	assert_int_equal(mrs_table_lookup(&h.table, 6, 100, &run), -EINVAL);
	assert_int_equal(mrs_table_leaf(&h.table, 6, &leaf), -EINVAL);
	assert_int_equal(mrs_table_leaf(&h.table, 4, &leaf), 0);
	assert_int_equal(leaf.entry, h.frames[1][4]);
	free(h.frames);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_tower),
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_unusable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
