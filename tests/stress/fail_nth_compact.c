/* Fail-the-n-th scenarios of <morsel/compact.h>. */
#include <stdio.h>

#include <morsel/compact.h>

#include "stress/fail_nth_scenarios.h"
#include "support/fail_nth.h"

#define MORSELS 40u
#define BYTES	(1u << 16)

static void name_of(unsigned i, char name[16])
{
	snprintf(name, 16, "part%u", i);
}

/* Evictable morsels of scattered small pages: every other one goes, and leaves gaps. */
static int make_gaps(struct bench *b)
{
	struct morsel_opts opts = {
		.size = sizeof(opts),
		.bytes = BYTES,
		.flags = MORSEL_CREATE | MORSEL_EVICTABLE | MORSEL_SCATTERED,
		.pages = MORSEL_PAGES_4K,
	};
	char name[16];

	for (unsigned i = 0; i < MORSELS; i++) {
		struct morsel *morsel;
		int code;

		name_of(i, name);
		code = morsel_open(b->pool, name, &opts, &morsel);
		if (!code)
			code = morsel_close(morsel);
		if (code)
			return code;
	}
	for (unsigned i = 0; i < MORSELS; i += 2) {
		int code;

		name_of(i, name);
		code = morsel_unlink(b->pool, name);
		if (code)
			return code;
	}
	return 0;
}

/* What it could not move stays where it is; nothing else may change. */
static int act_compact(struct bench *b)
{
	struct morsel_compact_opts opts = {.size = sizeof(opts), .huge_max = 1};
	struct morsel_compact_result result = {.size = sizeof(result)};
	char name[16];
	int code;

	fail_nth_disarm();
	code = make_gaps(b);
	if (code)
		return code;
	scenario_arm();
	code = scenario_done(morsel_pool_compact(b->pool, &opts, &result));
	for (unsigned i = 1; i < MORSELS; i += 2) {
		name_of(i, name);
		morsel_unlink(b->pool, name);
	}
	return code;
}

const struct scenario compact_scenarios[] = {
	{"morsel_pool_compact", act_compact},
};
const size_t compact_scenarios_count = sizeof(compact_scenarios) / sizeof(compact_scenarios[0]);
