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
	bool lazy, evictable, contiguous, scattered;
};

static uint32_t creation_flags(const struct creation *c)
{
	return MORSEL_CREATE | MORSEL_EXCL | (c->lazy ? MORSEL_LAZY : 0) |
	       (c->evictable ? MORSEL_EVICTABLE : 0) | (c->contiguous ? MORSEL_CONTIGUOUS : 0) |
	       (c->scattered ? MORSEL_SCATTERED : 0);
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
	struct morsel_pool *pool;
	struct morsel *morsel;
	struct args args;
	const char *why;
	int code = args_read(self, options, array_length(options), argc, argv, &args);
	int rc;

	if (code != ARGS_RUN)
		return code;
	if (parse_size(args.operand[1], &c.opts.bytes, &why))
		return complain_usage(self, "'%s': %s", args.operand[1], why);
	c.opts.flags = creation_flags(&c);
	code = open_pool(self, &args, 0, &pool);
	if (code != EXIT_OK)
		return code;
	rc = morsel_open(pool, args.operand[0], &c.opts, &morsel);
	if (rc < 0)
		code = complain_library(self, rc);
	else
		morsel_close(morsel);
	morsel_pool_close(pool);
	return code;
}

/* ---- names ---- */

int object_rm(const struct command *self, int argc, char **argv)
{
	bool force = false;
	const struct option_spec options[] = {
		{'f', "force", NULL, OPTION_FLAG, &force, "a name that does not exist is fine"},
	};
	struct morsel_pool *pool;
	struct args args;
	int code = args_read(self, options, array_length(options), argc, argv, &args);
	int i;

	if (code != ARGS_RUN)
		return code;
	code = open_pool(self, &args, 0, &pool);
	if (code != EXIT_OK)
		return code;
	for (i = 0; i < args.operands; i++) {
		int rc = morsel_unlink(pool, args.operand[i]);

		if (rc < 0 && !(force && rc == -ENOENT))
			code = complain_library(self, rc);
	}
	morsel_pool_close(pool);
	return code;
}

int object_rename(const struct command *self, int argc, char **argv)
{
	struct morsel_pool *pool;
	struct args args;
	int code = args_read(self, NULL, 0, argc, argv, &args);
	int rc;

	if (code != ARGS_RUN)
		return code;
	code = open_pool(self, &args, 0, &pool);
	if (code != EXIT_OK)
		return code;
	rc = morsel_rename(pool, args.operand[0], args.operand[1]);
	if (rc < 0)
		code = complain_library(self, rc);
	morsel_pool_close(pool);
	return code;
}

int object_publish(const struct command *self, int argc, char **argv)
{
	struct morsel_pool *pool;
	struct morsel *morsel;
	struct args args;
	int code = args_read(self, NULL, 0, argc, argv, &args);
	int rc;

	if (code != ARGS_RUN)
		return code;
	code = open_morsel(self, &args, args.operand[0], &pool, &morsel);
	if (code != EXIT_OK)
		return code;
	rc = morsel_publish(morsel, args.operand[1]);
	if (rc < 0)
		code = complain_library(self, rc);
	close_morsel(morsel, pool);
	return code;
}

/* ---- size and state ---- */

int object_resize(const struct command *self, int argc, char **argv)
{
	struct morsel_pool *pool;
	struct morsel *morsel;
	struct args args;
	uint64_t bytes;
	const char *why;
	int code = args_read(self, NULL, 0, argc, argv, &args);
	int rc;

	if (code != ARGS_RUN)
		return code;
	if (parse_size(args.operand[1], &bytes, &why))
		return complain_usage(self, "'%s': %s", args.operand[1], why);
	code = open_morsel(self, &args, args.operand[0], &pool, &morsel);
	if (code != EXIT_OK)
		return code;
	rc = morsel_resize(morsel, bytes);
	if (rc < 0)
		code = complain_library(self, rc);
	close_morsel(morsel, pool);
	return code;
}

int object_seal(const struct command *self, int argc, char **argv)
{
	struct morsel_pool *pool;
	struct morsel *morsel;
	struct args args;
	int code = args_read(self, NULL, 0, argc, argv, &args);
	int rc;

	if (code != ARGS_RUN)
		return code;
	code = open_morsel(self, &args, args.operand[0], &pool, &morsel);
	if (code != EXIT_OK)
		return code;
	rc = morsel_seal(morsel);
	if (rc < 0)
		code = complain_library(self, rc);
	close_morsel(morsel, pool);
	return code;
}
