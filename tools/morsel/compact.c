/*
 * morsel pool compact: once, or again and again until it is told to end.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "commands.h"

struct compaction {
	const struct args *args;
	struct morsel_compact_opts opts;
	uint64_t every; /* seconds; 0: once */
};

static void print_result(const struct args *args, const struct morsel_compact_result *result)
{
	struct json json;

	if (args->json) {
		json_begin(&json, stdout);
		json_u64(&json, "huge_gained", result->huge_gained);
		json_u64(&json, "pages_moved", result->pages_moved);
		json_u64(&json, "moves_least", result->moves_least);
		json_u64(&json, "refused", result->refused);
		json_end(&json);
		return;
	}
	printf("%" PRIu64 " huge frames gained, %" PRIu64 " pages moved (at least %" PRIu64
	       " had to be), %" PRIu64 " in use could not be\n",
	       result->huge_gained, result->pages_moved, result->moves_least, result->refused);
}

/* True after SIGINT or SIGTERM, which are blocked. */
static bool wait_for_end(uint64_t seconds)
{
	struct timespec time = {.tv_sec = (time_t)seconds};
	sigset_t ends;

	sigemptyset(&ends);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGTERM);
	return sigtimedwait(&ends, NULL, &time) > 0;
}

static void block_ends(void)
{
	sigset_t ends;

	sigemptyset(&ends);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGTERM);
	sigprocmask(SIG_BLOCK, &ends, NULL);
}

static int compact(struct morsel_pool *pool, void *ctx)
{
	const struct compaction *compaction = ctx;
	int rc;

	if (compaction->every)
		block_ends();
	do {
		struct morsel_compact_result result = {.size = sizeof(result)};

		rc = morsel_pool_compact(pool, &compaction->opts, &result);
		if (!rc)
			print_result(compaction->args, &result);
		fflush(stdout);
	} while (!rc && compaction->every && !wait_for_end(compaction->every));
	return rc;
}

int pool_compact(const struct command *self, int argc, char **argv)
{
	struct args args;
	struct compaction compaction = {.args = &args, .opts.size = sizeof(compaction.opts)};
	const struct option_spec options[] = {
		{0, "huge", "N", OPTION_NUMBER, &compaction.opts.huge_max,
		 "gain at most N huge frames"},
		{0, "moves", "N", OPTION_NUMBER, &compaction.opts.move_max,
		 "move at most N pages"},
		{0, "every", "SECONDS", OPTION_NUMBER, &compaction.every,
		 "again after so many seconds, until SIGINT or SIGTERM"},
	};
	int code = args_read(self, options, array_length(options), argc, argv, &args);

	return code == ARGS_RUN ? on_pool(self, &args, 0, compact, &compaction) : code;
}
