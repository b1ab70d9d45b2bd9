/*
 * list, info and map: what is in a pool, for people as tables, for programs as JSON.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "commands.h"
#include "parse.h"

const char *pages_name(uint32_t pages)
{
	static const char *const names[] = {"mixed", "4k", "2m", "1g"};

	return pages < array_length(names) ? names[pages] : "unknown";
}

void json_morsel(struct json *json, const struct morsel_info *info)
{
	json_name(json, info->name);
	json_u64(json, "id", info->id);
	json_u64(json, "bytes", info->bytes);
	json_u64(json, "bytes_allocated", info->bytes_allocated);
	json_u64(json, "runs", info->runs);
	json_text(json, "pages", pages_name(info->pages));
	json_bool(json, "lazy", info->flags & MORSEL_LAZY);
	json_bool(json, "evictable", info->flags & MORSEL_EVICTABLE);
	json_bool(json, "contiguous", info->flags & MORSEL_CONTIGUOUS);
	json_bool(json, "sealed", info->sealed);
	json_text(json, "format", morsel_format_name(info->format));
	json_u64(json, "tensor_count", info->tensors);
	json_u64(json, "users", info->users);
	json_i64(json, "created_ns", info->created_ns);
}

/* "lazy,sealed" or "-". */
static const char *flags_text(const struct morsel_info *info, char buffer[64])
{
	snprintf(buffer, 64, "%s%s%s%s", info->flags & MORSEL_LAZY ? ",lazy" : "",
		 info->flags & MORSEL_EVICTABLE ? ",evictable" : "",
		 info->flags & MORSEL_CONTIGUOUS ? ",contiguous" : "",
		 info->sealed ? ",sealed" : "");
	return *buffer ? buffer + 1 : "-";
}

/* ---- list ---- */

struct listing {
	const struct args *args;
	bool raw; /* names only, each followed by a zero byte */
	struct table table;
	struct json json;
};

static int list_one(void *ctx, const struct morsel_info *info)
{
	struct listing *listing = ctx;
	char flags[64];

	if (listing->raw) {
		fwrite(info->name, 1, strlen(info->name) + 1, stdout);
		return 0;
	}
	if (listing->args->json) {
		json_object(&listing->json, NULL);
		json_morsel(&listing->json, info);
		json_close(&listing->json);
		return 0;
	}
	table_add_name(&listing->table, info->name);
	table_add_size(&listing->table, info->bytes, listing->args->exact);
	table_add_size(&listing->table, info->bytes_allocated, listing->args->exact);
	table_add(&listing->table, "%" PRIu64, info->runs);
	table_add(&listing->table, "%s", pages_name(info->pages));
	table_add(&listing->table, "%s", morsel_format_name(info->format));
	table_add(&listing->table, "%" PRIu64, info->tensors);
	table_add(&listing->table, "%" PRIu64, info->users);
	table_add(&listing->table, "%s", flags_text(info, flags));
	return 0;
}

static int list_print(const struct command *self, struct morsel_pool *pool, struct listing *listing)
{
	static const char *const heads[] = {"NAME",   "SIZE",	 "MEMORY", "RUNS", "PAGES",
					    "FORMAT", "TENSORS", "USERS",  "FLAGS"};
	bool json = listing->args->json && !listing->raw;
	int rc;

	if (json) {
		json_begin(&listing->json, stdout);
		json_list(&listing->json, "morsels");
	}
	table_begin(&listing->table, 9, "lrrrllrrl", heads);
	rc = morsel_list(pool, list_one, listing);
	table_sort(&listing->table);
	if (json)
		json_end(&listing->json);
	else if (!listing->raw)
		table_end(&listing->table);
	table_drop(&listing->table);
	return rc < 0 ? complain_library(self, rc) : EXIT_OK;
}

int show_list(const struct command *self, int argc, char **argv)
{
	struct listing listing = {0};
	const struct option_spec options[] = {
		{'0', "null", NULL, OPTION_FLAG, &listing.raw,
		 "names only, as they are, each followed by a zero byte"},
	};
	struct morsel_pool *pool;
	struct args args;
	int code = args_read(self, options, array_length(options), argc, argv, &args);

	if (code != ARGS_RUN)
		return code;
	code = open_pool(self, &args, MORSEL_POOL_READ_ONLY, &pool);
	if (code != EXIT_OK)
		return code;
	listing.args = &args;
	code = list_print(self, pool, &listing);
	morsel_pool_close(pool);
	return code;
}

/* ---- one morsel ---- */

/* A morsel that is looked at. */
struct look {
	struct morsel_pool *pool;
	struct morsel *morsel;
	bool holds; /* its handle is counted among the users, and keeps it from going away */
};

/*
 * Attaches if that is possible, so that the morsel stays while it is looked at; a user who may only
 * read the pool, or who finds all slots taken, looks without.
 */
static int look_open(const struct command *self, const struct args *args, const char *name,
		     struct look *look)
{
	struct morsel_pool_opts opts = {.size = sizeof(opts)};
	int rc = morsel_pool_open(args->pool, &opts, &look->pool);

	look->holds = rc >= 0;
	if (rc == -EACCES || rc == -EROFS || rc == -EUSERS) {
		opts.flags = MORSEL_POOL_READ_ONLY;
		rc = morsel_pool_open(args->pool, &opts, &look->pool);
	}
	if (rc < 0)
		return complain_library(self, rc);
	rc = morsel_open(look->pool, name, NULL, &look->morsel);
	if (rc >= 0)
		return EXIT_OK;
	complain_library(self, rc);
	morsel_pool_close(look->pool);
	return EXIT_FAILED;
}

/* ---- info ---- */

static void shape_text(const struct morsel_tensor *tensor, char *buffer, size_t room)
{
	size_t used = 0;
	uint32_t i;

	*buffer = 0;
	for (i = 0; i < tensor->rank && i < MORSEL_TENSOR_RANK_MAX && used < room; i++)
		used += (size_t)snprintf(buffer + used, room - used, i ? "x%" PRIu64 : "%" PRIu64,
					 tensor->shape[i]);
	if (!tensor->rank)
		snprintf(buffer, room, "scalar");
}

static void tensor_json(struct json *json, const struct morsel_tensor *tensor)
{
	uint32_t i;

	json_object(json, NULL);
	json_name(json, tensor->name);
	json_text(json, "type", morsel_type_name(tensor->type));
	json_flat_list(json, "shape");
	for (i = 0; i < tensor->rank && i < MORSEL_TENSOR_RANK_MAX; i++)
		json_u64(json, NULL, tensor->shape[i]);
	json_close(json);
	json_u64(json, "offset", tensor->offset);
	json_u64(json, "bytes", tensor->bytes);
	json_bool(json, "encoded", tensor->flags & MORSEL_TENSOR_ENCODED);
	json_bool(json, "external", tensor->flags & MORSEL_TENSOR_EXTERNAL);
	json_close(json);
}

static void tensor_row(struct table *table, const struct morsel_tensor *tensor, bool exact)
{
	char shape[24 * MORSEL_TENSOR_RANK_MAX];

	shape_text(tensor, shape, sizeof(shape));
	table_add_name(table, tensor->name);
	table_add(table, "%s%s", morsel_type_name(tensor->type),
		  tensor->flags & MORSEL_TENSOR_ENCODED	   ? " (encoded)"
		  : tensor->flags & MORSEL_TENSOR_EXTERNAL ? " (external)"
							   : "");
	table_add(table, "%s", shape);
	table_add(table, "%" PRIu64, tensor->offset);
	table_add_size(table, tensor->bytes, exact);
}

/* Every tensor, into json if it is given, else into table. 0 or a negative errno. */
static int each_tensor(struct morsel *morsel, uint64_t count, struct json *json,
		       struct table *table, bool exact)
{
	struct morsel_tensor *tensor = malloc(sizeof(*tensor));
	uint64_t i;
	int rc = tensor ? 0 : -ENOMEM;

	for (i = 0; i < count && rc >= 0; i++) {
		rc = morsel_tensor_at(morsel, i, tensor);
		if (rc >= 0 && json)
			tensor_json(json, tensor);
		else if (rc >= 0)
			tensor_row(table, tensor, exact);
	}
	free(tensor);
	return rc;
}

static int info_json(struct morsel *morsel, const struct morsel_info *info)
{
	struct json json;
	int rc;

	json_begin(&json, stdout);
	json_morsel(&json, info);
	json_list(&json, "tensors");
	rc = each_tensor(morsel, info->tensors, &json, NULL, true);
	json_end(&json);
	return rc;
}

static void time_text(int64_t ns, char buffer[40])
{
	time_t seconds = (time_t)(ns / 1000000000);
	struct tm local;

	if (!localtime_r(&seconds, &local) || !strftime(buffer, 40, "%Y-%m-%d %H:%M:%S %z", &local))
		snprintf(buffer, 40, "%" PRId64 " ns", ns);
}

static void info_table(const struct morsel_info *info, bool exact)
{
	struct table table;
	char text[64];

	table_begin(&table, 2, "ll", NULL);
	table_add(&table, "name");
	table_add_name(&table, info->name);
	table_add(&table, "id");
	table_add(&table, "%" PRIu64, info->id);
	table_add(&table, "size");
	table_add_size(&table, info->bytes, exact);
	table_add(&table, "memory");
	table_add_size(&table, info->bytes_allocated, exact);
	table_add(&table, "runs");
	table_add(&table, "%" PRIu64, info->runs);
	table_add(&table, "pages");
	table_add(&table, "%s", pages_name(info->pages));
	table_add(&table, "flags");
	table_add(&table, "%s", flags_text(info, text));
	table_add(&table, "format");
	table_add(&table, "%s", morsel_format_name(info->format));
	table_add(&table, "tensors");
	table_add(&table, "%" PRIu64, info->tensors);
	table_add(&table, "users");
	table_add(&table, "%" PRIu64, info->users);
	time_text(info->created_ns, text);
	table_add(&table, "created");
	table_add(&table, "%s", text);
	table_end(&table);
}

static int tensors_table(struct morsel *morsel, uint64_t count, bool exact)
{
	static const char *const heads[] = {"TENSOR", "TYPE", "SHAPE", "OFFSET", "SIZE"};
	struct table table;
	int rc;

	table_begin(&table, 5, "lllrr", heads);
	rc = each_tensor(morsel, count, NULL, &table, exact);
	table_end(&table);
	return rc;
}

int show_info(const struct command *self, int argc, char **argv)
{
	struct morsel_info info = {.size = sizeof(info)};
	bool tensors = false;
	const struct option_spec options[] = {
		{'t', "tensors", NULL, OPTION_FLAG, &tensors,
		 "list the tensors of a model (--json always does)"},
	};
	struct look look;
	struct args args;
	int code = args_read(self, options, array_length(options), argc, argv, &args);
	int rc;

	if (code != ARGS_RUN)
		return code;
	code = look_open(self, &args, args.operand[0], &look);
	if (code != EXIT_OK)
		return code;
	rc = morsel_info(look.morsel, &info);
	if (rc >= 0)
		info.users -= look.holds;
	if (rc >= 0 && args.json)
		rc = info_json(look.morsel, &info);
	else if (rc >= 0 && tensors)
		rc = tensors_table(look.morsel, info.tensors, args.exact);
	else if (rc >= 0)
		info_table(&info, args.exact);
	if (rc < 0)
		code = complain_library(self, rc);
	close_morsel(look.morsel, look.pool);
	return code;
}

/* ---- map ---- */

struct mapping {
	const struct args *args;
	struct table table;
	struct json json;
};

static int map_one(void *ctx, const struct morsel_run *run)
{
	struct mapping *mapping = ctx;

	if (mapping->args->json) {
		json_object(&mapping->json, NULL);
		json_u64(&mapping->json, "offset", run->offset);
		json_u64(&mapping->json, "bytes", run->bytes);
		json_u64(&mapping->json, "frame", run->frame);
		json_u64(&mapping->json, "order", run->order);
		json_bool(&mapping->json, "allocated", run->frame);
		json_bool(&mapping->json, "resident", run->resident);
		json_close(&mapping->json);
		return 0;
	}
	table_add(&mapping->table, "%" PRIu64, run->offset);
	table_add_size(&mapping->table, run->bytes, mapping->args->exact);
	if (run->frame) {
		table_add(&mapping->table, "%" PRIu64, run->frame);
		table_add(&mapping->table, "%" PRIu32, run->order);
	} else {
		table_add(&mapping->table, "-");
		table_add(&mapping->table, "-");
	}
	return 0;
}

static int map_print(struct morsel *morsel, struct mapping *mapping, uint64_t offset,
		     uint64_t bytes)
{
	static const char *const heads[] = {"OFFSET", "SIZE", "FRAME", "ORDER"};
	int rc;

	if (mapping->args->json) {
		json_begin(&mapping->json, stdout);
		json_list(&mapping->json, "runs");
	}
	table_begin(&mapping->table, 4, "rrrr", heads);
	rc = morsel_runs(morsel, offset, bytes, map_one, mapping);
	if (mapping->args->json)
		json_end(&mapping->json);
	else
		table_end(&mapping->table);
	table_drop(&mapping->table);
	return rc;
}

int show_map(const struct command *self, int argc, char **argv)
{
	struct morsel_info info = {.size = sizeof(info)};
	uint64_t offset = 0, bytes = UINT64_MAX;
	const struct option_spec options[] = {
		{'o', "offset", "SIZE", OPTION_SIZE, &offset, "begin here, default 0"},
		{'n', "length", "SIZE", OPTION_SIZE, &bytes, "so far, default to the end"},
	};
	struct mapping mapping = {0};
	struct look look;
	struct args args;
	int code = args_read(self, options, array_length(options), argc, argv, &args);
	int rc;

	if (code != ARGS_RUN)
		return code;
	code = look_open(self, &args, args.operand[0], &look);
	if (code != EXIT_OK)
		return code;
	mapping.args = &args;
	rc = morsel_info(look.morsel, &info);
	if (rc >= 0 && bytes == UINT64_MAX)
		bytes = offset < info.bytes ? info.bytes - offset : 0;
	if (rc >= 0)
		rc = map_print(look.morsel, &mapping, offset, bytes);
	if (rc < 0)
		code = complain_library(self, rc);
	close_morsel(look.morsel, look.pool);
	return code;
}
