/*
 * Commands that make a morsel of another: clone, and snapshot, which is a clone that is sealed.
 */
#include <morsel/clone.h>

#include "commands.h"

static int clone(struct morsel *morsel, void *ctx)
{
	return morsel_clone(morsel, ctx, NULL);
}

static int snapshot(struct morsel *morsel, void *ctx)
{
	return morsel_snapshot(morsel, ctx, NULL);
}

int clone_morsel(const struct command *self, int argc, char **argv)
{
	struct args args;
	int code = args_read(self, NULL, 0, argc, argv, &args);

	return code == ARGS_RUN ? on_morsel(self, &args, clone, args.operand[1]) : code;
}

int clone_snapshot(const struct command *self, int argc, char **argv)
{
	struct args args;
	int code = args_read(self, NULL, 0, argc, argv, &args);

	return code == ARGS_RUN ? on_morsel(self, &args, snapshot, args.operand[1]) : code;
}
