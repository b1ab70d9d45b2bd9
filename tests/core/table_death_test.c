/*
 * Death at every step: an operation ends in the middle of each call that it makes to the allocator,
 * as if the process had been killed there. After the repair every page is as before or as after,
 * nothing is leaked, and the operation can be done again.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "core/table_memory.h"
#include "support/counts.h"

#define GIANT (1ull << 18)

static void no_release(void *ctx, uint64_t frame, unsigned order)
{
}

static void set(struct memory *m, uint64_t page, unsigned level, uint64_t frame)
{
	struct memory_txn txn = {0};

	assert_int_equal(memory_set(m, &txn, page, level, frame), 0);
}

static void make_run(struct memory *m)
{
	struct memory_txn txn = {0};

	for (uint64_t i = 0; i < 1500; i++)
		assert_true(memory_take_at(m, DATA_FIRST + 3 + i, 0));
	assert_int_equal(mrs_table_set_run(&m->table, &txn, DATA_FIRST + 3, 1500), 0);
}

static void make_mix(struct memory *m)
{
	set(m, 3, 0, DATA_FIRST + 1);
	set(m, 512, 1, DATA_FIRST + 1024);
	set(m, 4000, 0, DATA_FIRST + 2);
	set(m, GIANT, 2, DATA_FIRST + GIANT);
	set(m, 3 * GIANT + 5, 0, DATA_FIRST + 3);
}

static void make_small(struct memory *m)
{
	set(m, 3, 0, DATA_FIRST + 1);
}

static void do_set_far(struct memory *m, struct memory_txn *txn)
{
	struct mrs_run run;

	/* The second time the first may have been complete. */
	assert_int_equal(mrs_table_lookup(&m->table, (GIANT << 9) + 3, 1, &run), 0);
	if (!run.mapped)
		assert_int_equal(memory_set(m, txn, (GIANT << 9) + 3, 0, DATA_FIRST + 9000), 0);
}

static void do_expand(struct memory *m, struct memory_txn *txn)
{
	assert_int_equal(mrs_table_expand(&m->table, txn), 0);
}

static void do_trim(struct memory *m, struct memory_txn *txn, uint64_t page)
{
	assert_int_equal(mrs_table_trim(&m->table, txn, page, no_release, NULL), 0);
}

static void do_trim_all(struct memory *m, struct memory_txn *txn)
{
	do_trim(m, txn, 0);
}

static void do_trim_inside(struct memory *m, struct memory_txn *txn)
{
	do_trim(m, txn, 700);
}

static const struct scenario {
	const char *name;
	void (*make)(struct memory *m);
	void (*act)(struct memory *m, struct memory_txn *txn);
	uint64_t mapped_before[2]; /* pages: what stays, what may go */
	uint64_t mapped_after;
} scenarios[] = {
	{"set, tree grows", make_small, do_set_far, {1, 0}, 2},
	{"set beyond a run", make_run, do_set_far, {1500, 0}, 1501},
	{"expand", make_run, do_expand, {1500, 0}, 1500},
	{"trim all", make_mix, do_trim_all, {0, 3 + 512 + GIANT}, 0},
	{"trim inside", make_mix, do_trim_inside, {1 + 700 - 512, 0}, 1 + 700 - 512},
	{"trim a run", make_run, do_trim_inside, {700, 0}, 700},
	{"trim a run away", make_run, do_trim_all, {0, 0}, 0},
};

static int count_mapped(void *ctx, uint64_t frame, uint64_t count, bool is_table)
{
	if (!is_table)
		*(uint64_t *)ctx += count;
	return 0;
}

static uint64_t mapped(struct memory *m)
{
	uint64_t count = 0;

	assert_int_equal(mrs_table_walk(&m->table, count_mapped, &count), 0);
	return count;
}

/* Both the victim and its frames live in static memory: longjmp leaves them as they are. */
static bool die_and_repair(const struct scenario *s, int n)
{
	static struct memory m;
	static struct memory_txn txn;
	volatile bool died = true;

	memory_open(&m);
	memset(&txn, 0, sizeof(txn));
	s->make(&m);
	m.die_at = n;
	if (!setjmp(m.death)) {
		s->act(&m, &txn);
		died = false;
	}
	memory_repair(&m, &txn);
	memory_audit(&m);
	assert_true(mapped(&m) >= s->mapped_before[0]);
	s->act(&m, &txn);
	memory_audit(&m);
	assert_int_equal(mapped(&m), s->mapped_after);
	do_trim_all(&m, &txn);
	assert_int_equal(m.in_use, 0);
	memory_close(&m);
	return died;
}

static void test_death(void **state)
{
	for (unsigned i = 0; i < mrs_array_length(scenarios); i++) {
		int n = 0;

		while (die_and_repair(&scenarios[i], n))
			n++;
		printf("%s: died at %d places\n", scenarios[i].name, n);
		assert_true(n > 3);
	}
}

/* Death right after the link, and somebody else makes the root grow before the repair comes. */
static void test_growth_before_repair(void **state)
{
	struct memory_txn dead = {0}, other = {0};
	struct memory m;
	uint64_t before;

	memory_open(&m);
	make_run(&m);
	do_expand(&m, &dead);
	dead.building = m.root; /* the store that clears it was not reached */
	do_set_far(&m, &other);
	before = mapped(&m);
	memory_repair(&m, &dead);
	memory_audit(&m);
	assert_int_equal(mapped(&m), before);
	do_trim_all(&m, &other);
	assert_int_equal(m.in_use, 0);
	memory_close(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_death),
		cmocka_unit_test(test_growth_before_repair),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
