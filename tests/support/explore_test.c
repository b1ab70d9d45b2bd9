/*
 * The explorer finds what it is for: a lost update, an ABA, a lock that dies with its holder; and
 * it sees every order of a small case, which a person can count.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/atomic.h"
#include "support/explore.h"

/* ---- every order ---- */

static struct {
	uint64_t word[4];
	char order[8];
	size_t length;
	char seen[32][8];
	size_t seen_count;
} orders;

static void orders_setup(void *ctx)
{
	memset(orders.word, 0, sizeof(orders.word));
	memset(orders.order, 0, sizeof(orders.order));
	orders.length = 0;
}

static void two_verbs(char first, uint64_t *word)
{
	for (int i = 0; i < 2; i++) {
		mrs_store_relaxed(&word[i], 1);
		orders.order[orders.length++] = (char)(first + i);
	}
}

static void orders_a(void *ctx)
{
	two_verbs('a', &orders.word[0]);
}

static void orders_b(void *ctx)
{
	two_verbs('x', &orders.word[2]);
}

static int orders_check(void *ctx)
{
	for (size_t i = 0; i < orders.seen_count; i++)
		if (!strcmp(orders.seen[i], orders.order))
			return 0;
	strcpy(orders.seen[orders.seen_count++], orders.order);
	return 0;
}

static size_t count_orders(unsigned preemptions, unsigned deaths)
{
	struct mrs_explore scenario = {
		.name = "orders",
		.threads = 2,
		.setup = orders_setup,
		.op = {orders_a, orders_b},
		.check = orders_check,
		.preemptions = preemptions,
		.deaths = deaths,
	};
	struct mrs_explore_result result;

	orders.seen_count = 0;
	assert_int_equal(mrs_explore_run(&scenario, &result), 0);
	assert_false(result.truncated);
	assert_int_equal(result.points[0], 2);
	assert_true(result.states >= result.schedules);
	return orders.seen_count;
}

static void test_every_order_is_seen(void **state)
{
	/* ab xy merged: 4 over 2. With one preemption all but axby and xayb (and their kin). */
	assert_int_equal(count_orders(3, 0), 6);
	assert_int_equal(count_orders(1, 0), 4);
	/* One dead before its first or second verb: the other's two, with at most one before. */
	assert_int_equal(count_orders(3, 1), 6 + 2 + 6);
}

/* ---- planted: lost update ---- */

static struct {
	uint64_t word;
	uint64_t lock;
} counter;

static void counter_setup(void *ctx)
{
	counter.word = counter.lock = 0;
}

static void add_lossy(void *ctx)
{
	mrs_store_relaxed(&counter.word, mrs_load_relaxed(&counter.word) + 1);
}

static void add_by_cas(void *ctx)
{
	uint64_t seen = mrs_load_relaxed(&counter.word);

	while (!mrs_cas(&counter.word, &seen, seen + 1))
		;
}

static void add_locked(void *ctx)
{
	while (mrs_swap(&counter.lock, 1))
		mrs_spin_hint();
	mrs_store_relaxed(&counter.word, mrs_load_relaxed(&counter.word) + 1);
	mrs_store_release(&counter.lock, 0);
}

static int counter_check(void *ctx)
{
	return counter.word == *(unsigned *)ctx ? 0 : 1;
}

static int explore_counter(void (*op)(void *), unsigned threads, struct mrs_explore_result *result,
			   unsigned deaths)
{
	struct mrs_explore scenario = {
		.name = "counter",
		.threads = threads,
		.setup = counter_setup,
		.op = {op, op, op},
		.check = counter_check,
		.ctx = &threads,
		.deaths = deaths,
		.steps_max = 200,
	};

	return mrs_explore_run(&scenario, result);
}

static void test_finds_a_lost_update(void **state)
{
	struct mrs_explore scenario = {
		.name = "counter-again",
		.threads = 2,
		.setup = counter_setup,
		.op = {add_lossy, add_lossy},
		.check = counter_check,
		.ctx = &(unsigned){2},
	};
	struct mrs_explore_result found, again;

	assert_int_equal(explore_counter(add_lossy, 2, &found, 0), 1);
	assert_int_equal(found.verdict, MRS_EXPLORE_VIOLATED);
	/* The schedule that it prints leads there again; an undisturbed one does not. */
	assert_int_equal(mrs_explore_replay(&scenario, found.schedule, &again), 1);
	assert_int_equal(again.verdict, MRS_EXPLORE_VIOLATED);
	assert_int_equal(mrs_explore_replay(&scenario, "0@end 1@end", &again), 0);
	assert_int_equal(mrs_explore_replay(&scenario, "0@99 1@end", &again), -1);
	assert_int_equal(mrs_explore_replay(&scenario, "nonsense", &again), -1);
}

static void test_passes_what_is_right(void **state)
{
	struct mrs_explore_result result;

	assert_int_equal(explore_counter(add_by_cas, 3, &result, 0), 0);
	assert_int_equal(explore_counter(add_locked, 3, &result, 0), 0);
	assert_true(result.schedules > 100);
}

static void test_finds_a_lock_that_dies_with_its_holder(void **state)
{
	struct mrs_explore_result result;

	assert_int_equal(explore_counter(add_locked, 2, &result, 1), 1);
}

static void test_says_when_it_stops_early(void **state)
{
	struct mrs_explore scenario = {
		.name = "cut-short",
		.threads = 3,
		.setup = counter_setup,
		.op = {add_by_cas, add_by_cas, add_by_cas},
		.check = counter_check,
		.ctx = &(unsigned){3},
		.schedules_max = 10,
	};
	struct mrs_explore_result result;

	assert_int_equal(mrs_explore_run(&scenario, &result), 0);
	assert_true(result.truncated);
	assert_int_equal(result.schedules, 10);
}

/* ---- planted: ABA in a stack of three numbered items ---- */

static struct {
	uint64_t top; /* item plus 1; with_tag: and a count in the upper half */
	uint64_t below[3];
	bool with_tag;
	unsigned held[3];
} stack;

static void stack_setup(void *ctx)
{
	stack.top = 1;
	stack.below[0] = 2;
	stack.below[1] = 3;
	stack.below[2] = 0;
	memset(stack.held, 0, sizeof(stack.held));
}

static uint64_t stack_tag(uint64_t top)
{
	return stack.with_tag ? (top & ~0xffffffffull) + (1ull << 32) : 0;
}

static unsigned stack_pop(void)
{
	uint64_t top = mrs_load_acquire(&stack.top);
	unsigned item;

	do {
		item = (unsigned)(top & 3);
		if (!item)
			return 0;
	} while (!mrs_cas(&stack.top, &top,
			  stack_tag(top) | mrs_load_relaxed(&stack.below[item - 1])));
	stack.held[item - 1]++;
	return item;
}

static void stack_push(unsigned item)
{
	uint64_t top = mrs_load_acquire(&stack.top);

	stack.held[item - 1]--;
	do {
		mrs_store_relaxed(&stack.below[item - 1], top & 3);
	} while (!mrs_cas(&stack.top, &top, stack_tag(top) | item));
}

static void stack_take(void *ctx)
{
	stack_pop();
}

static void stack_take_two_return_first(void *ctx)
{
	unsigned first = stack_pop();

	stack_pop();
	if (first)
		stack_push(first);
}

/* Each item is held once or on the stack once. */
static int stack_check(void *ctx)
{
	unsigned times[3], steps = 0;

	memcpy(times, stack.held, sizeof(times));
	for (uint64_t item = stack.top & 3; item && steps < 10;
	     item = stack.below[item - 1], steps++)
		times[item - 1]++;
	return times[0] == 1 && times[1] == 1 && times[2] == 1 ? 0 : 1;
}

static void test_finds_an_aba(void **state)
{
	struct mrs_explore scenario = {
		.name = "aba",
		.threads = 2,
		.setup = stack_setup,
		.op = {stack_take, stack_take_two_return_first},
		.check = stack_check,
	};
	struct mrs_explore_result result;

	stack.with_tag = false;
	assert_int_equal(mrs_explore_run(&scenario, &result), 1);
	stack.with_tag = true;
	assert_int_equal(mrs_explore_run(&scenario, &result), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_order_is_seen),
		cmocka_unit_test(test_finds_a_lost_update),
		cmocka_unit_test(test_passes_what_is_right),
		cmocka_unit_test(test_finds_a_lock_that_dies_with_its_holder),
		cmocka_unit_test(test_says_when_it_stops_early),
		cmocka_unit_test(test_finds_an_aba),
	};

	return cmocka_run_group_tests_name("explore", tests, NULL, NULL);
}
