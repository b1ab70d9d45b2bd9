/* The compaction plan against brute force over all subsets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "object/compact_plan.h"
#include "support/counts.h"

#define HUGE	512u
#define MAX_USE 9u

static bool can_go(const struct mrs_huge_use *use)
{
	return use->used && use->used < HUGE && use->used == use->movable;
}

static size_t random_use(uint64_t *random, struct mrs_huge_use *use)
{
	size_t count = test_random(random) % (MAX_USE + 1);

	for (size_t i = 0; i < count; i++) {
		uint16_t used = (uint16_t)(1 + test_random(random) % HUGE);

		if (!(test_random(random) % 3))
			used = (uint16_t)(1 + test_random(random) % 8);
		use[i] = (struct mrs_huge_use){.huge = 1000 + i, .used = used, .movable = used};
		if (!(test_random(random) % 4))
			use[i].movable = (uint16_t)(test_random(random) % (used + 1u));
	}
	return count;
}

/* What emptying the subset moves; UINT64_MAX if it cannot be done. */
static uint64_t moves_of(const struct mrs_huge_use *use, size_t count, unsigned subset)
{
	uint64_t moves = 0, room = 0;

	for (size_t i = 0; i < count; i++) {
		if (!(subset >> i & 1))
			room += HUGE - use[i].used;
		else if (can_go(&use[i]))
			moves += use[i].used;
		else
			return UINT64_MAX;
	}
	return moves <= room ? moves : UINT64_MAX;
}

/* Most huge frames that can be gained, and the fewest moves for each number of them. */
static unsigned best_gain(const struct mrs_huge_use *use, size_t count, uint64_t *fewest)
{
	unsigned best = 0;

	for (size_t i = 0; i <= count; i++)
		fewest[i] = UINT64_MAX;
	for (unsigned subset = 0; subset < 1u << count; subset++) {
		unsigned gain = (unsigned)__builtin_popcount(subset);
		uint64_t moves = moves_of(use, count, subset);

		if (moves == UINT64_MAX)
			continue;
		best = gain > best ? gain : best;
		fewest[gain] = moves < fewest[gain] ? moves : fewest[gain];
	}
	return best;
}

static void check_targets(const struct mrs_huge_use *use, size_t count,
			  const struct mrs_compact_plan *plan)
{
	uint64_t room = 0, moves = 0;

	for (size_t i = 0; i < count; i++) {
		if (i < plan->victims) {
			assert_true(can_go(&use[i]));
			moves += use[i].used;
			continue;
		}
		room += HUGE - use[i].used;
		if (i > plan->first_target)
			assert_true(use[i - 1].used >= use[i].used);
	}
	assert_int_equal(moves, plan->moves);
	assert_true(room >= moves);
}

static void plan_is_as_good_as_brute_force(void **state)
{
	uint64_t random = test_seed();

	for (unsigned round = 0; round < COUNT_COMPACT_PLANS; round++) {
		struct mrs_huge_use use[MAX_USE];
		uint64_t fewest[MAX_USE + 1];
		struct mrs_compact_plan plan;
		size_t count = random_use(&random, use);
		unsigned best = best_gain(use, count, fewest);

		mrs_compact_plan(use, count, 0, 0, &plan);
		assert_int_equal(plan.victims, best);
		assert_int_equal(plan.moves, fewest[best]);
		assert_int_equal(mrs_compact_least(use, count, best), fewest[best]);
		check_targets(use, count, &plan);
	}
}

static void limits_are_kept(void **state)
{
	struct mrs_huge_use use[] = {{1, 10, 10}, {2, 20, 20}, {3, 30, 30}, {4, 400, 0}};
	struct mrs_compact_plan plan;

	mrs_compact_plan(use, 4, 2, 0, &plan);
	assert_int_equal(plan.victims, 2);
	assert_int_equal(plan.moves, 30);
	mrs_compact_plan(use, 4, 0, 29, &plan);
	assert_int_equal(plan.victims, 1);
	assert_int_equal(plan.moves, 10);
	assert_int_equal(use[plan.first_target].used, 400);
	assert_true(mrs_compact_least(use, 4, 4) == UINT64_MAX);
	mrs_compact_plan(use, 0, 0, 0, &plan);
	assert_int_equal(plan.victims, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plan_is_as_good_as_brute_force),
		cmocka_unit_test(limits_are_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
