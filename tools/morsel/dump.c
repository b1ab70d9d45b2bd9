/*
 * dump and restore: morsels to files of the project's own format and back. Cancelled by SIGINT or
 * SIGTERM like import and export.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <morsel/dump.h>

#include "commands.h"

/* ---- dump ---- */

struct dump {
	struct args args;
	struct morsel_dump_opts opts;
	struct progress progress;
	uint64_t range[2];
	uint64_t in_flight;
	bool full;
	const char *snapshot;
};

static const char *kind_name(uint32_t kind)
{
	static const char *const names[] = {"unknown", "full", "range", "incremental"};

	return kind < array_length(names) ? names[kind] : names[0];
}

static void dump_json(const struct morsel_dump_info *info)
{
	struct json json;

	json_begin(&json, stdout);
	json_name(&json, info->name);
	json_text(&json, "kind", kind_name(info->kind));
	json_u64(&json, "bytes", info->bytes);
	json_u64(&json, "bytes_file", info->bytes_file);
	json_u64(&json, "bytes_stored", info->bytes_stored);
	json_u64(&json, "bytes_zero", info->bytes_zero);
	json_u64(&json, "bytes_same", info->bytes_same);
	json_end(&json);
}

static void dump_words(const struct dump *dump, const struct morsel_dump_info *info)
{
	char all[SIZE_TEXT_BYTES], stored[SIZE_TEXT_BYTES], same[SIZE_TEXT_BYTES];
	char *name = name_text(info->name);
	bool exact = dump->args.exact;

	printf("%s: %s, %s stored", name, size_text(info->bytes, exact, all),
	       size_text(info->bytes_stored, exact, stored));
	if (info->kind == MORSEL_DUMP_INCREMENTAL)
		printf(", %s as in the base", size_text(info->bytes_same, exact, same));
	putchar('\n');
	free(name);
}

static int open_snapshot(struct dump *dump, struct morsel_pool *pool)
{
	return dump->snapshot ? morsel_open(pool, dump->snapshot, NULL, &dump->opts.snapshot) : 0;
}

static int dump_it(struct dump *dump, struct morsel *morsel)
{
	struct morsel_dump_info info = {.size = sizeof(info)};
	int rc;

	dump->opts.size = sizeof(dump->opts);
	dump->opts.offset = dump->range[0];
	dump->opts.bytes = dump->range[1];
	dump->opts.in_flight = (uint32_t)dump->in_flight;
	dump->opts.progress = on_progress;
	dump->opts.progress_ctx = &dump->progress;
	watch_interrupts();
	progress_begin(&dump->progress, "dump");
	rc = morsel_dump(morsel, dump->args.operand[1], &dump->opts, &info);
	progress_end(&dump->progress);
	if (rc < 0)
		return rc;
	if (dump->args.json)
		dump_json(&info);
	else
		dump_words(dump, &info);
	return 0;
}

static int dump_one(struct morsel_pool *pool, void *ctx)
{
	struct dump *dump = ctx;
	struct morsel *morsel;
	int rc = morsel_open(pool, dump->args.operand[0], NULL, &morsel);

	if (rc < 0)
		return rc;
	rc = open_snapshot(dump, pool);
	if (rc >= 0)
		rc = dump_it(dump, morsel);
	morsel_close(dump->opts.snapshot);
	morsel_close(morsel);
	return rc;
}

int dump_write(const struct command *self, int argc, char **argv)
{
	struct dump dump = {0};
	const struct option_spec options[] = {
		{'f', "full", NULL, OPTION_FLAG, &dump.full, "everything (default)"},
		{'r', "range", "OFFSET BYTES", OPTION_RANGE, dump.range, "only this part"},
		{'i', "incremental", "BASE", OPTION_TEXT, &dump.opts.base,
		 "only what differs from BASE, an earlier dump"},
		{'s', "snapshot", "NAME", OPTION_TEXT, &dump.snapshot,
		 "only what differs from NAME, a sealed morsel of the same pool"},
		{0, "in-flight", "COUNT", OPTION_NUMBER, &dump.in_flight,
		 "requests at once, default 4"},
	};
	int code = args_read(self, options, array_length(options), argc, argv, &dump.args);

	if (code != ARGS_RUN)
		return code;
	if (dump.full + (dump.range[1] != 0) + (dump.opts.base || dump.snapshot) > 1)
		return complain_usage(self, "--full, --range and --incremental exclude each other");
	return on_pool(self, &dump.args, 0, dump_one, &dump);
}

/* ---- restore ---- */

struct restore {
	struct args args;
	struct morsel_restore_opts opts;
	struct progress progress;
	uint64_t range[2];
	uint64_t in_flight;
	bool lazy, more;
};

static int restore_more(struct restore *restore, struct morsel_pool *pool, const char *name,
			struct morsel **morsel)
{
	struct morsel_dump_info info = {.size = sizeof(info)};
	int rc;

	if (!name) {
		rc = morsel_dump_look(restore->args.operand[0], &info);
		if (rc < 0)
			return rc;
		name = info.name;
	}
	rc = morsel_open(pool, name, NULL, morsel);
	if (rc < 0)
		return rc;
	rc = morsel_restore_range(*morsel, restore->args.operand[0], &restore->opts);
	if (rc < 0)
		morsel_close(*morsel);
	return rc;
}

static int restore_one(struct morsel_pool *pool, void *ctx)
{
	struct restore *restore = ctx;
	const char *name = restore->args.operands > 1 ? restore->args.operand[1] : NULL;
	struct morsel_info info = {.size = sizeof(info)};
	struct morsel *morsel;
	struct json json;
	int rc;

	watch_interrupts();
	progress_begin(&restore->progress, "restore");
	rc = restore->more ? restore_more(restore, pool, name, &morsel)
			   : morsel_restore(pool, name, restore->args.operand[0], &restore->opts,
					    &morsel);
	progress_end(&restore->progress);
	if (rc < 0)
		return rc;
	rc = morsel_info(morsel, &info);
	if (rc >= 0 && restore->args.json) {
		json_begin(&json, stdout);
		json_morsel(&json, &info);
		json_end(&json);
	}
	morsel_close(morsel);
	return rc;
}

int dump_restore(const struct command *self, int argc, char **argv)
{
	struct restore restore = {.opts.size = sizeof(restore.opts)};
	const struct option_spec options[] = {
		{'l', "lazy", NULL, OPTION_FLAG, &restore.lazy, "load nothing now: see --more"},
		{'r', "range", "OFFSET BYTES", OPTION_RANGE, restore.range,
		 "load only this part now"},
		{'m', "more", NULL, OPTION_FLAG, &restore.more,
		 "load into a morsel that was restored in part"},
		{0, "base", "FILE", OPTION_TEXT, &restore.opts.base,
		 "what an incremental dump stands on, if it is not beside it"},
		{0, "in-flight", "COUNT", OPTION_NUMBER, &restore.in_flight,
		 "requests at once, default 4"},
	};
	int code = args_read(self, options, array_length(options), argc, argv, &restore.args);

	if (code != ARGS_RUN)
		return code;
	if (restore.lazy && (restore.more || restore.range[1]))
		return complain_usage(self, "--lazy loads nothing: without --more and --range");
	restore.opts.flags = restore.lazy ? MORSEL_LAZY : 0;
	restore.opts.offset = restore.range[0];
	restore.opts.bytes = restore.range[1];
	restore.opts.in_flight = (uint32_t)restore.in_flight;
	restore.opts.progress = on_progress;
	restore.opts.progress_ctx = &restore.progress;
	return on_pool(self, &restore.args, 0, restore_one, &restore);
}
