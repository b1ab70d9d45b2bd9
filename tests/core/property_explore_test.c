/*
 * Every interleaving of pairs of operations on the lines of properties.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "pool/prop_lines.h"
#include "support/explore.h"

#define ORDER 7 /* two pages of lines: the ways of many keys cross */

static uint64_t words[MRS_PROP_LINE_WORDS << ORDER] __attribute__((aligned(64)));
static struct mrs_prop_lines lines = {.words = words, .order = ORDER};

static struct {
	uint64_t *line[2];
	bool claimed[2];
	bool found, torn, cleared;
} seen;

static void setup_empty(void *ctx)
{
	(void)ctx;
	memset(words, 0, sizeof(words));
	memset(&seen, 0, sizeof(seen));
}

static void set(uint64_t frame, uint64_t value, unsigned who)
{
	struct mrs_prop prop = {.value = value, .aux = ~value};
	uint64_t *line = mrs_prop_lines_claim(&lines, mrs_prop_key(frame, MRS_PROP_SWAP),
					      &seen.claimed[who]);

	seen.line[who] = line;
	mrs_prop_line_set(line, frame, &prop, NULL);
}

/* ---- two claim the same key, and two different ones of which the ways cross ---- */

static void claim_0(void *ctx)
{
	set(*(uint64_t *)ctx, 1, 0);
}

static void claim_1(void *ctx)
{
	set(((uint64_t *)ctx)[1], 2, 1);
}

static int check_same(void *ctx)
{
	(void)ctx;
	if (mrs_explore_is_dead(0) || mrs_explore_is_dead(1))
		return 0;
	return seen.line[0] != seen.line[1] || seen.claimed[0] == seen.claimed[1];
}

static int check_apart(void *ctx)
{
	uint64_t *frames = ctx;
	struct mrs_prop got;

	for (unsigned i = 0; i < 2; i++) {
		uint64_t *end, *line;

		if (mrs_explore_is_dead(i))
			continue;
		line = mrs_prop_lines_find(&lines, mrs_prop_key(frames[i], MRS_PROP_SWAP), &end);
		if (!line || !mrs_prop_line_get(line, frames[i], &got) || got.value != i + 1)
			return 1;
	}
	return 0;
}

/* A frame of another group whose way begins at the same line. */
static uint64_t rival_of(uint64_t frame)
{
	struct mrs_prop_way way = mrs_prop_way_of(mrs_prop_key(frame, MRS_PROP_SWAP), ORDER);

	for (uint64_t other = frame + 3;; other += 3) {
		struct mrs_prop_way its =
			mrs_prop_way_of(mrs_prop_key(other, MRS_PROP_SWAP), ORDER);

		if (its.page == way.page && its.line == way.line)
			return other;
	}
}

/* ---- a reader sees both words of one state ---- */

static void setup_one(void *ctx)
{
	setup_empty(ctx);
	set(5, 7, 0);
}

static void replace_it(void *ctx)
{
	(void)ctx;
	set(5, 9, 0);
}

static void clear_it(void *ctx)
{
	static const struct mrs_prop none;
	uint64_t *end, *line = mrs_prop_lines_find(&lines, mrs_prop_key(5, MRS_PROP_SWAP), &end);

	(void)ctx;
	seen.cleared = line && mrs_prop_line_set(line, 5, &none, NULL);
}

static void read_it(void *ctx)
{
	uint64_t *end, *line = mrs_prop_lines_find(&lines, mrs_prop_key(5, MRS_PROP_SWAP), &end);
	struct mrs_prop got = {0};

	(void)ctx;
	seen.found = line && mrs_prop_line_get(line, 5, &got);
	seen.torn = seen.found && got.aux != ~got.value;
}

static int check_not_torn(void *ctx)
{
	(void)ctx;
	return seen.torn;
}

static int check_there(void *ctx)
{
	(void)ctx;
	return seen.torn || (!mrs_explore_is_dead(1) && !seen.found);
}

static void explore(const char *name, void (*setup)(void *), void (*a)(void *), void (*b)(void *),
		    int (*check)(void *), void *ctx)
{
	struct mrs_explore scenario = {
		.name = name,
		.threads = 2,
		.setup = setup,
		.op = {a, b},
		.check = check,
		.ctx = ctx,
		.deaths = 1,
	};
	struct mrs_explore_result result;

	assert_int_equal(mrs_explore_run(&scenario, &result), 0);
	assert_false(result.truncated);
}

static void test_pairs(void **state)
{
	uint64_t same[2] = {5, 5}, neighbours[2] = {5, 4}, crossing[2] = {5, rival_of(5)};

	(void)state;
	explore("claim-same", setup_empty, claim_0, claim_1, check_same, same);
	explore("claim-neighbour", setup_empty, claim_0, claim_1, check_apart, neighbours);
	explore("claim-crossing", setup_empty, claim_0, claim_1, check_apart, crossing);
	explore("replace-read", setup_one, replace_it, read_it, check_there, NULL);
	explore("clear-read", setup_one, clear_it, read_it, check_not_torn, NULL);
	explore("clear-replace", setup_one, clear_it, replace_it, check_not_torn, NULL);
	explore("first-read", setup_empty, replace_it, read_it, check_not_torn, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_pairs)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
