/* Fail-the-n-th scenarios of <morsel/pager.h>. */
#include <morsel/pager.h>

#include "stress/fail_nth_scenarios.h"

static int failure_of(int64_t code)
{
	return code < 0 ? (int)code : 0;
}

static int act_faults(struct bench *b)
{
	return scenario_done(failure_of(morsel_pool_faults(b->pool)));
}

static int act_pager(struct bench *b)
{
	return scenario_done(failure_of(morsel_pool_pager(b->pool)));
}

static int act_zero_ahead(struct bench *b)
{
	int code = scenario_done(morsel_pool_zero_ahead(b->pool, 2 << 20));

	return code ? code : morsel_pool_zero_ahead(b->pool, 0);
}

const struct scenario pager_scenarios[] = {
	{"morsel_pool_zero_ahead", act_zero_ahead},
	{"morsel_pool_faults", act_faults},
	{"morsel_pool_pager", act_pager},
};
const size_t pager_scenarios_count = sizeof(pager_scenarios) / sizeof(pager_scenarios[0]);
