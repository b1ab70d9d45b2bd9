/*
 * morsel swap: where the content of evicted pages is kept.
 */
#include <inttypes.h>
#include <string.h>

#include "commands.h"

#define COMPRESSIONS "auto|lz4|zstd"

static const char *compression_name(uint32_t compression)
{
	static const char *const names[] = {"auto", "lz4", "zstd"};

	return compression < array_length(names) ? names[compression] : "?";
}

static const char *state_name(uint32_t state)
{
	static const char *const names[] = {"?", "in use", "failing", "emptying", "missing"};

	return state < array_length(names) ? names[state] : "?";
}

/* ---- add ---- */

static int add(struct morsel_pool *pool, void *ctx)
{
	unsigned id;
	int rc = morsel_swap_add(pool, ctx, &id);

	if (!rc)
		printf("%u\n", id);
	return rc;
}

int swap_add(const struct command *self, int argc, char **argv)
{
	struct morsel_swap_opts opts = {.size = sizeof(opts)};
	bool plain = false, overwrite = false, sparse = false;
	uint64_t priority = 0;
	const struct option_spec options[] = {
		{'s', "size", "SIZE", OPTION_SIZE, &opts.bytes,
		 "at most so much; default all of it, or a quarter of the pool as memory"},
		{0, "priority", "N", OPTION_NUMBER, &priority,
		 "the highest is filled first; default 0"},
		{0, "compression", COMPRESSIONS, OPTION_CHOICE, &opts.compression,
		 "of memory; zstd is smaller and slower"},
		{0, "plain", NULL, OPTION_FLAG, &plain, "one request at a time, without io_uring"},
		{0, "overwrite", NULL, OPTION_FLAG, &overwrite, "what is in the file is lost"},
		{0, "sparse", NULL, OPTION_FLAG, &sparse, "do not reserve room on the disk now"},
	};
	struct args args;
	int code = args_read(self, options, array_length(options), argc, argv, &args);

	if (code != ARGS_RUN)
		return code;
	if (priority > INT32_MAX)
		return complain_usage(self, "a priority is at most %d", INT32_MAX);
	opts.priority = (int32_t)priority;
	opts.path = strcmp(args.operand[0], "memory") ? args.operand[0] : NULL;
	opts.flags = (plain ? MORSEL_SWAP_PLAIN_IO : 0) | (overwrite ? MORSEL_SWAP_OVERWRITE : 0) |
		     (sparse ? MORSEL_SWAP_SPARSE : 0);
	return on_pool(self, &args, 0, add, &opts);
}

/* ---- remove, on ---- */

struct target {
	const char *name; /* its number or path */
	unsigned flags;	  /* of morsel_swap_remove() */
	unsigned id;
	bool found;
};

static int find(void *ctx, const struct morsel_swap_info *info)
{
	struct target *target = ctx;
	char number[16];

	snprintf(number, sizeof(number), "%u", info->id);
	if (strcmp(number, target->name) && (!info->path || strcmp(info->path, target->name)))
		return 0;
	target->id = info->id;
	target->found = true;
	return 1;
}

static int change(struct morsel_pool *pool, void *ctx)
{
	struct target *target = ctx;
	int rc = morsel_swap_list(pool, find, target);

	if (rc < 0)
		return rc;
	if (!target->found) {
		print_words(stderr, "morsel: no swap target has the number or path '");
		print_words(stderr, target->name);
		fprintf(stderr, "'; morsel swap list shows them\n");
		return EXIT_FAILED;
	}
	return morsel_swap_remove(pool, target->id, target->flags);
}

int swap_remove(const struct command *self, int argc, char **argv)
{
	struct target target = {0};
	bool lose = false;
	const struct option_spec options[] = {
		{0, "lose", NULL, OPTION_FLAG, &lose,
		 "also if pages are there: they are lost, who touches them gets SIGBUS"},
	};
	struct args args;
	int code = args_read(self, options, array_length(options), argc, argv, &args);

	if (code != ARGS_RUN)
		return code;
	target.name = args.operand[0];
	target.flags = lose ? MORSEL_SWAP_LOSE : 0;
	return on_pool(self, &args, 0, change, &target);
}

int swap_on(const struct command *self, int argc, char **argv)
{
	struct target target = {.flags = MORSEL_SWAP_KEEP};
	struct args args;
	int code = args_read(self, NULL, 0, argc, argv, &args);

	if (code != ARGS_RUN)
		return code;
	target.name = args.operand[0];
	return on_pool(self, &args, 0, change, &target);
}

/* ---- list ---- */

struct list {
	const struct args *args;
	struct table table;
	struct json json;
};

static int add_row(void *ctx, const struct morsel_swap_info *info)
{
	struct list *list = ctx;
	bool exact = list->args->exact;

	table_add(&list->table, "%u", info->id);
	table_add_name(&list->table, info->path ? info->path : "memory");
	table_add(&list->table, "%s", info->path ? "" : compression_name(info->compression));
	table_add(&list->table, "%" PRId32, info->priority);
	table_add(&list->table, "%s", state_name(info->state));
	table_add_size(&list->table, info->bytes, exact);
	table_add(&list->table, "%" PRIu64, info->pages);
	table_add_size(&list->table, info->path ? info->stored_bytes : info->memory_bytes, exact);
	table_add(&list->table, "%" PRIu64,
		  info->errors_read + info->errors_write + info->errors_content);
	return 0;
}

static int add_object(void *ctx, const struct morsel_swap_info *info)
{
	struct list *list = ctx;
	struct json *json = &list->json;

	json_object(json, NULL);
	json_u64(json, "id", info->id);
	json_text(json, "path", info->path);
	json_text(json, "compression", info->path ? NULL : compression_name(info->compression));
	json_i64(json, "priority", info->priority);
	json_text(json, "state", state_name(info->state));
	json_u64(json, "bytes", info->bytes);
	json_u64(json, "pages", info->pages);
	json_u64(json, "bytes_stored", info->stored_bytes);
	json_u64(json, "bytes_memory", info->memory_bytes);
	json_u64(json, "errors_read", info->errors_read);
	json_u64(json, "errors_write", info->errors_write);
	json_u64(json, "errors_content", info->errors_content);
	json_close(json);
	return 0;
}

static int list_targets(struct morsel_pool *pool, void *ctx)
{
	static const char *const heads[] = {"ID",	"TARGET", "COMPRESSION",
					    "PRIORITY", "STATE",  "CAPACITY",
					    "PAGES",	"USED",	  "ERRORS"};
	struct list *list = ctx;
	int rc;

	if (list->args->json) {
		json_begin(&list->json, stdout);
		json_list(&list->json, "targets");
		rc = morsel_swap_list(pool, add_object, list);
		json_close(&list->json);
		json_end(&list->json);
		return rc;
	}
	table_begin(&list->table, array_length(heads), "lllrlrrrr", heads);
	rc = morsel_swap_list(pool, add_row, list);
	if (rc)
		table_drop(&list->table);
	else
		table_end(&list->table);
	return rc;
}

int swap_list(const struct command *self, int argc, char **argv)
{
	struct args args;
	struct list list = {.args = &args};
	int code = args_read(self, NULL, 0, argc, argv, &args);

	return code == ARGS_RUN ? on_pool(self, &args, MORSEL_POOL_READ_ONLY, list_targets, &list)
				: code;
}
