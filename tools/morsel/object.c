/*
 * Commands that make, change and remove morsels. They print nothing when all went well.
 */
#include <errno.h>

#include "commands.h"
#include "parse.h"

int open_morsel(const struct command *self, const struct args *args, const char *name,
		struct morsel_pool **pool, struct morsel **morsel)
{
	int code = open_pool(self, args, 0, pool);
	int rc;

	if (code != EXIT_OK)
		return code;
	rc = morsel_open(*pool, name, NULL, morsel);
	if (rc >= 0)
		return EXIT_OK;
	code = complain_library(self, rc);
	morsel_pool_close(*pool);
	return code;
}

void close_morsel(struct morsel *morsel, struct morsel_pool *pool)
{
	morsel_close(morsel);
	morsel_pool_close(pool);
}

/* ---- create ---- */

struct creation {
	struct morsel_opts opts;
	const char *name;
	bool lazy, evictable, contiguous, scattered;
};

static uint32_t creation_flags(const struct creation *c)
{
	return MORSEL_CREATE | MORSEL_EXCL | (c->lazy ? MORSEL_LAZY : 0) |
	       (c->evictable ? MORSEL_EVICTABLE : 0) | (c->contiguous ? MORSEL_CONTIGUOUS : 0) |
	       (c->scattered ? MORSEL_SCATTERED : 0);
}

static int create(struct morsel_pool *pool, void *ctx)
{
	const struct creation *c = ctx;
	struct morsel *morsel;
	int rc = morsel_open(pool, c->name, &c->opts, &morsel);

	return rc < 0 ? rc : morsel_close(morsel);
}

int object_create(const struct command *self, int argc, char **argv)
{
	struct creation c = {.opts.size = sizeof(c.opts)};
	const struct option_spec options[] = {
		{'l', "lazy", NULL, OPTION_FLAG, &c.lazy, "take memory when it is first touched"},
		{'e', "evictable", NULL, OPTION_FLAG, &c.evictable,
		 "allow its pages to be evicted and moved"},
		{'c', "contiguous", NULL, OPTION_FLAG, &c.contiguous, "one run or nothing"},
		{0, "scattered", NULL, OPTION_FLAG, &c.scattered,
		 "every page wherever it falls: for tests and benchmarks"},
		{0, "pages", PAGES_CHOICES, OPTION_CHOICE, &c.opts.pages,
		 "size of the pages, default mixed: the largest that fits"},
	};
	struct args args;
	const char *why;
	int code = args_read(self, options, array_length(options), argc, argv, &args);

	if (code != ARGS_RUN)
		return code;
	if (parse_size(args.operand[1], &c.opts.bytes, &why))
		return complain_usage(self, "'%s': %s", args.operand[1], why);
	c.opts.flags = creation_flags(&c);
	c.name = args.operand[0];
	return on_pool(self, &args, 0, create, &c);
}

/* ---- names ---- */

struct removal {
	const struct command *self;
	const struct args *args;
	bool force;
};

static int remove_all(struct morsel_pool *pool, void *ctx)
{
	const struct removal *removal = ctx;
	int code = EXIT_OK, i;

	for (i = 0; i < removal->args->operands; i++) {
		int rc = morsel_unlink(pool, removal->args->operand[i]);

		if (rc < 0 && !(removal->force && rc == -ENOENT))
			code = complain_library(removal->self, rc);
	}
	return code;
}

int object_rm(const struct command *self, int argc, char **argv)
{
	struct args args;
	struct removal removal = {.self = self, .args = &args};
	const struct option_spec options[] = {
		{'f', "force", NULL, OPTION_FLAG, &removal.force,
		 "a name that does not exist is fine"},
	};
	int code = args_read(self, options, array_length(options), argc, argv, &args);

	return code == ARGS_RUN ? on_pool(self, &args, 0, remove_all, &removal) : code;
}

static int rename_one(struct morsel_pool *pool, void *ctx)
{
	char **operand = ctx;

	return morsel_rename(pool, operand[0], operand[1]);
}

int object_rename(const struct command *self, int argc, char **argv)
{
	struct args args;
	int code = args_read(self, NULL, 0, argc, argv, &args);

	return code == ARGS_RUN ? on_pool(self, &args, 0, rename_one, args.operand) : code;
}

static int publish(struct morsel *morsel, void *ctx)
{
	return morsel_publish(morsel, ctx);
}

int object_publish(const struct command *self, int argc, char **argv)
{
	struct args args;
	int code = args_read(self, NULL, 0, argc, argv, &args);

	return code == ARGS_RUN ? on_morsel(self, &args, publish, args.operand[1]) : code;
}

/* ---- size and state ---- */

static int resize(struct morsel *morsel, void *ctx)
{
	return morsel_resize(morsel, *(const uint64_t *)ctx);
}

int object_resize(const struct command *self, int argc, char **argv)
{
	struct args args;
	uint64_t bytes;
	const char *why;
	int code = args_read(self, NULL, 0, argc, argv, &args);

	if (code != ARGS_RUN)
		return code;
	if (parse_size(args.operand[1], &bytes, &why))
		return complain_usage(self, "'%s': %s", args.operand[1], why);
	return on_morsel(self, &args, resize, &bytes);
}

static int seal(struct morsel *morsel, void *ctx)
{
	return morsel_seal(morsel);
}

int object_seal(const struct command *self, int argc, char **argv)
{
	struct args args;
	int code = args_read(self, NULL, 0, argc, argv, &args);

	return code == ARGS_RUN ? on_morsel(self, &args, seal, NULL) : code;
}
