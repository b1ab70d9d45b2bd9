/* Fail-the-n-th scenarios of <morsel/observe.h>. */
#include <stdio.h>

#include <morsel/observe.h>

#include "stress/fail_nth_scenarios.h"

static int act_counters(struct bench *b)
{
	struct morsel_counters counters = {.size = sizeof(counters)};

	return scenario_done(morsel_pool_counters(b->pool, &counters));
}

static int act_usage(struct bench *b)
{
	struct morsel_usage usage = {.size = sizeof(usage)};

	return scenario_done(morsel_usage(b->morsel, &usage));
}

static int count_holder(void *ctx, const struct morsel_holder *holder)
{
	++*(unsigned *)ctx;
	return 0;
}

static int act_who(struct bench *b)
{
	struct morsel_page page = {.size = sizeof(page)};
	unsigned holders = 0;

	return scenario_done(morsel_who(b->morsel, 4096, &page, count_holder, &holders));
}

const struct scenario observe_scenarios[] = {
	{"morsel_pool_counters", act_counters},
	{"morsel_usage", act_usage},
	{"morsel_who", act_who},
};
const size_t observe_scenarios_count = sizeof(observe_scenarios) / sizeof(observe_scenarios[0]);
