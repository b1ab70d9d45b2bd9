/*
 * Commands that advise: evict, prefetch, and the rest by name. They print nothing when all went
 * well.
 */
#include <string.h>

#include "commands.h"

#define NOT_GIVEN UINT64_MAX

struct advice {
	int advice;
	uint64_t offset, bytes;
};

static int advise(struct morsel *morsel, void *ctx)
{
	struct morsel_info info = {.size = sizeof(info)};
	struct advice *advice = ctx;
	int rc;

	if (advice->bytes == NOT_GIVEN) {
		rc = morsel_info(morsel, &info);
		if (rc < 0)
			return rc;
		advice->bytes = info.bytes > advice->offset ? info.bytes - advice->offset : 0;
	}
	return morsel_advise(morsel, advice->offset, advice->bytes, advice->advice);
}

/* Reads the arguments with --offset and --length, as all of these commands have them. */
static int read_range(const struct command *self, int argc, char **argv, struct args *args,
		      struct advice *advice)
{
	const struct option_spec options[] = {
		{0, "offset", "SIZE", OPTION_SIZE, &advice->offset, "begin here, default 0"},
		{0, "length", "SIZE", OPTION_SIZE, &advice->bytes, "so much, default to the end"},
	};

	advice->bytes = NOT_GIVEN;
	return args_read(self, options, array_length(options), argc, argv, args);
}

static int run(const struct command *self, int argc, char **argv, int advice)
{
	struct advice given = {.advice = advice};
	struct args args;
	int code = read_range(self, argc, argv, &args, &given);

	return code == ARGS_RUN ? on_morsel(self, &args, advise, &given) : code;
}

int advise_evict(const struct command *self, int argc, char **argv)
{
	return run(self, argc, argv, MORSEL_ADVICE_EVICT);
}

int advise_prefetch(const struct command *self, int argc, char **argv)
{
	return run(self, argc, argv, MORSEL_ADVICE_PREFETCH);
}

/* In the order of enum morsel_advice. */
static const char *const names[] = {"prefetch",	  "huge",   "free",	 "evict",      "normal",
				    "sequential", "random", "will-need", "do-not-need"};

int advise_named(const struct command *self, int argc, char **argv)
{
	struct advice given = {0};
	struct args args;
	int code = read_range(self, argc, argv, &args, &given);

	if (code != ARGS_RUN)
		return code;
	for (size_t i = 0; i < array_length(names); i++)
		if (!strcmp(args.operand[1], names[i]))
			given.advice = (int)i + MORSEL_ADVICE_PREFETCH;
	if (!given.advice)
		return complain_usage(
			self,
			"there is no advice '%s': prefetch, huge, free, evict, normal, "
			"sequential, random, will-need or do-not-need",
			args.operand[1]);
	return on_morsel(self, &args, advise, &given);
}
