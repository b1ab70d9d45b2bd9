/*
 * morsel pool ...: pools as a whole. Everything that needs a pool opens it here.
 */
#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "parse.h"

#define NOT_GIVEN UINT64_MAX

int complain_library(const struct command *self, int code)
{
	const char *words = morsel_errormsg();

	complain(self, "%s", *words ? words : strerror(-code));
	return EXIT_FAILED;
}

int open_pool(const struct command *self, const struct args *args, uint32_t flags,
	      struct morsel_pool **pool)
{
	struct morsel_pool_opts opts = {.size = sizeof(opts), .flags = flags};
	int rc = morsel_pool_open(args->pool, &opts, pool);

	return rc < 0 ? complain_library(self, rc) : EXIT_OK;
}

/* The exit code for what an act has answered. */
static int exit_code_of(const struct command *self, int rc)
{
	return rc < 0 ? complain_library(self, rc) : rc;
}

int on_pool(const struct command *self, const struct args *args, uint32_t flags,
	    int (*act)(struct morsel_pool *pool, void *ctx), void *ctx)
{
	struct morsel_pool *pool;
	int code = open_pool(self, args, flags, &pool);

	if (code != EXIT_OK)
		return code;
	code = exit_code_of(self, act(pool, ctx));
	morsel_pool_close(pool);
	return code;
}

int on_morsel(const struct command *self, const struct args *args,
	      int (*act)(struct morsel *morsel, void *ctx), void *ctx)
{
	struct morsel_pool *pool;
	struct morsel *morsel;
	int code = open_morsel(self, args, args->operand[0], &pool, &morsel);

	if (code != EXIT_OK)
		return code;
	code = exit_code_of(self, act(morsel, ctx));
	close_morsel(morsel, pool);
	return code;
}

const char *pool_kind_name(uint32_t kind)
{
	static const char *const names[] = {"auto", "memfd", "tmpfs", "hugetlb", "file"};

	return kind < array_length(names) ? names[kind] : "unknown";
}

/* ---- create ---- */

struct creation {
	struct morsel_pool_opts opts;
	const char *group;
	uint64_t node;
	bool no_huge;
};

static int find_group(const struct command *self, const char *group, uint32_t *gid_plus_1)
{
	const struct group *entry = getgrnam(group);
	const char *why;
	uint64_t number;

	if (entry) {
		*gid_plus_1 = (uint32_t)entry->gr_gid + 1;
		return ARGS_RUN;
	}
	if (parse_number(group, 0, UINT32_MAX - 2, &number, &why))
		return complain_usage(self, "--group '%s': no such group", group);
	*gid_plus_1 = (uint32_t)number + 1;
	return ARGS_RUN;
}

static int read_creation(const struct command *self, int argc, char **argv, struct args *args,
			 struct creation *c)
{
	const struct option_spec options[] = {
		{'s', "size", "SIZE", OPTION_SIZE, &c->opts.bytes,
		 "size of the pool, default 1G; costs nothing until it is used"},
		{0, "max", "SIZE", OPTION_SIZE, &c->opts.bytes_max,
		 "up to what it can grow, default 1T"},
		{0, "budget", "SIZE", OPTION_SIZE, &c->opts.budget_bytes,
		 "most memory that it may hold, default no limit"},
		{0, "low", "SIZE", OPTION_SIZE, &c->opts.budget_low_bytes,
		 "where evicting ahead of need stops, default 7/8 of the budget"},
		{0, "high", "SIZE", OPTION_SIZE, &c->opts.budget_high_bytes,
		 "where it begins, default 15/16 of the budget"},
		{0, "kind", "auto|memfd|tmpfs|hugetlb|file", OPTION_CHOICE, &c->opts.kind,
		 "fail unless the path is on such a file system"},
		{0, "mode", "MODE", OPTION_MODE, &c->opts.mode, "mode of the file, default 0600"},
		{0, "group", "GROUP", OPTION_TEXT, &c->group, "group of the file"},
		{0, "node", "N", OPTION_NUMBER, &c->node, "NUMA node to take memory from"},
		{0, "no-huge", NULL, OPTION_FLAG, &c->no_huge, "never ask for huge pages"},
	};

	return args_read(self, options, array_length(options), argc, argv, args);
}

int pool_create(const struct command *self, int argc, char **argv)
{
	struct creation c = {.opts.size = sizeof(c.opts),
			     .opts.flags = MORSEL_POOL_CREATE | MORSEL_POOL_EXCL,
			     .node = NOT_GIVEN};
	struct morsel_pool *pool;
	struct args args;
	int code = read_creation(self, argc, argv, &args, &c);
	int rc;

	if (code == ARGS_RUN && c.group)
		code = find_group(self, c.group, &c.opts.gid_plus_1);
	if (code != ARGS_RUN)
		return code;
	if (c.opts.kind == MORSEL_POOL_MEMFD)
		return complain_usage(self,
				      "--kind memfd: a memfd pool has no path; a program makes "
				      "one with morsel_pool_open()");
	if (c.no_huge)
		c.opts.flags |= MORSEL_POOL_NO_HUGE;
	if (c.node != NOT_GIVEN)
		c.opts.node_plus_1 = (uint32_t)c.node + 1;
	rc = morsel_pool_open(args.pool, &c.opts, &pool);
	if (rc < 0)
		return complain_library(self, rc);
	morsel_pool_close(pool);
	return EXIT_OK;
}

/* ---- info ---- */

static void uuid_text(const uint8_t uuid[16], char text[37])
{
	int i;

	for (i = 0; i < 16; i++)
		text += sprintf(text, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x",
				uuid[i]);
}

static void info_json(const struct args *args, const struct morsel_pool_stat *stat)
{
	struct json json;
	char uuid[37];

	uuid_text(stat->uuid, uuid);
	json_begin(&json, stdout);
	json_text(&json, "path", args->pool);
	json_text(&json, "kind", pool_kind_name(stat->kind));
	json_text(&json, "uuid", uuid);
	json_u64(&json, "extents", stat->extents);
	json_u64(&json, "bytes", stat->bytes);
	json_u64(&json, "bytes_max", stat->bytes_max);
	json_u64(&json, "bytes_resident", stat->bytes_resident);
	json_u64(&json, "bytes_budget", stat->bytes_budget);
	json_u64(&json, "bytes_low", stat->bytes_low);
	json_u64(&json, "bytes_high", stat->bytes_high);
	json_u64(&json, "bytes_compressed", stat->bytes_compressed);
	json_u64(&json, "bytes_free", stat->bytes_free);
	json_u64(&json, "bytes_huge_free", stat->bytes_huge_free);
	json_u64(&json, "bytes_metadata", stat->bytes_metadata);
	json_u64(&json, "morsels", stat->morsels);
	json_u64(&json, "slots", stat->slots);
	json_u64(&json, "slots_used", stat->slots_used);
	json_u64(&json, "reaped", stat->reaped);
	json_end(&json);
}

static void info_size(struct table *table, const char *label, uint64_t bytes, bool exact)
{
	table_add(table, "%s", label);
	table_add_size(table, bytes, exact);
}

static void info_count(struct table *table, const char *label, uint64_t count)
{
	table_add(table, "%s", label);
	table_add(table, "%" PRIu64, count);
}

static void info_table(const struct args *args, const struct morsel_pool_stat *stat)
{
	struct table table;
	char uuid[37];

	uuid_text(stat->uuid, uuid);
	table_begin(&table, 2, "ll", NULL);
	table_add(&table, "pool");
	table_add_name(&table, args->pool);
	table_add(&table, "kind");
	table_add(&table, "%s", pool_kind_name(stat->kind));
	table_add(&table, "uuid");
	table_add(&table, "%s", uuid);
	info_size(&table, "size", stat->bytes, args->exact);
	info_size(&table, "can grow to", stat->bytes_max, args->exact);
	info_count(&table, "extents", stat->extents);
	info_size(&table, "resident", stat->bytes_resident, args->exact);
	if (stat->bytes_compressed)
		info_size(&table, "of it compressed", stat->bytes_compressed, args->exact);
	table_add(&table, "budget");
	if (stat->bytes_budget)
		table_add_size(&table, stat->bytes_budget, args->exact);
	else
		table_add(&table, "none");
	if (stat->bytes_budget) {
		info_size(&table, "evicts above", stat->bytes_high, args->exact);
		info_size(&table, "evicts down to", stat->bytes_low, args->exact);
	}
	info_size(&table, "free", stat->bytes_free, args->exact);
	info_size(&table, "free in 2 MiB", stat->bytes_huge_free, args->exact);
	info_size(&table, "metadata", stat->bytes_metadata, args->exact);
	info_count(&table, "morsels", stat->morsels);
	table_add(&table, "attached");
	table_add(&table, "%" PRIu32 " of %" PRIu32, stat->slots_used, stat->slots);
	info_count(&table, "reaped", stat->reaped);
	table_end(&table);
}

static int print_info(struct morsel_pool *pool, void *ctx)
{
	struct morsel_pool_stat stat = {.size = sizeof(stat)};
	const struct args *args = ctx;
	int rc = morsel_pool_stat(pool, &stat);

	if (rc < 0)
		return rc;
	if (args->json)
		info_json(args, &stat);
	else
		info_table(args, &stat);
	return 0;
}

int pool_info(const struct command *self, int argc, char **argv)
{
	struct args args;
	int code = args_read(self, NULL, 0, argc, argv, &args);

	if (code != ARGS_RUN)
		return code;
	return on_pool(self, &args, MORSEL_POOL_READ_ONLY, print_info, &args);
}

/* ---- check ---- */

struct findings {
	bool as_json;
	struct json json;
};

static void print_finding(void *ctx, const char *finding)
{
	struct findings *findings = ctx;

	if (findings->as_json) {
		json_text(&findings->json, NULL, finding);
		return;
	}
	print_words(stdout, finding);
	putchar('\n');
}

static int check(struct morsel_pool *pool, void *ctx)
{
	struct findings findings = {.as_json = ((const struct args *)ctx)->json};
	int count;

	if (findings.as_json) {
		json_begin(&findings.json, stdout);
		json_list(&findings.json, "findings");
	}
	count = morsel_pool_check(pool, print_finding, &findings);
	if (findings.as_json) {
		json_close(&findings.json);
		json_bool(&findings.json, "clean", count == 0);
		json_end(&findings.json);
	} else if (count == 0) {
		puts("clean");
	}
	return count > 0 ? EXIT_FAILED : count;
}

int pool_check(const struct command *self, int argc, char **argv)
{
	struct args args;
	int code = args_read(self, NULL, 0, argc, argv, &args);

	return code == ARGS_RUN ? on_pool(self, &args, 0, check, &args) : code;
}

/* ---- destroy, grow, budget, reap ---- */

int pool_destroy(const struct command *self, int argc, char **argv)
{
	bool force = false;
	const struct option_spec options[] = {
		{'f', "force", NULL, OPTION_FLAG, &force,
		 "even while processes have it attached; they keep what they map"},
	};
	struct args args;
	int code = args_read(self, options, array_length(options), argc, argv, &args);
	int rc;

	if (code != ARGS_RUN)
		return code;
	rc = morsel_pool_destroy(args.pool, force);
	return rc < 0 ? complain_library(self, rc) : EXIT_OK;
}

struct growth {
	uint64_t bytes;
	uint64_t node;
};

static int grow(struct morsel_pool *pool, void *ctx)
{
	const struct growth *growth = ctx;

	return morsel_pool_grow(pool, growth->bytes,
				growth->node == NOT_GIVEN ? 0 : (uint32_t)growth->node + 1);
}

int pool_grow(const struct command *self, int argc, char **argv)
{
	struct growth growth = {.node = NOT_GIVEN};
	const struct option_spec options[] = {
		{0, "node", "N", OPTION_NUMBER, &growth.node, "NUMA node to take memory from"},
	};
	struct args args;
	const char *why;
	int code = args_read(self, options, array_length(options), argc, argv, &args);

	if (code != ARGS_RUN)
		return code;
	if (parse_size(args.operand[0], &growth.bytes, &why))
		return complain_usage(self, "'%s': %s", args.operand[0], why);
	return on_pool(self, &args, 0, grow, &growth);
}

struct budget {
	bool given;
	uint64_t bytes, low, high;
};

static int set_budget(struct morsel_pool *pool, void *ctx)
{
	const struct budget *budget = ctx;
	int rc = budget->given ? morsel_pool_set_budget(pool, budget->bytes) : 0;

	if (rc || (budget->given && !budget->low && !budget->high))
		return rc;
	return morsel_pool_set_watermarks(pool, budget->low, budget->high);
}

int pool_budget(const struct command *self, int argc, char **argv)
{
	struct budget budget = {0};
	const struct option_spec options[] = {
		{0, "low", "SIZE", OPTION_SIZE, &budget.low,
		 "where evicting ahead of need stops, default 7/8 of the budget"},
		{0, "high", "SIZE", OPTION_SIZE, &budget.high,
		 "where it begins, default 15/16 of the budget"},
	};
	struct args args;
	const char *why;
	int code = args_read(self, options, array_length(options), argc, argv, &args);

	if (code != ARGS_RUN)
		return code;
	budget.given = strcmp(args.operand[0], "same");
	if (budget.given && strcmp(args.operand[0], "none") &&
	    parse_size(args.operand[0], &budget.bytes, &why))
		return complain_usage(self, "'%s': %s", args.operand[0], why);
	return on_pool(self, &args, 0, set_budget, &budget);
}

static void print_reaped(const struct args *args, uint64_t reaped)
{
	struct json json;

	if (!args->json) {
		printf("%" PRIu64 " dead process%s cleaned up\n", reaped, reaped == 1 ? "" : "es");
		return;
	}
	json_begin(&json, stdout);
	json_u64(&json, "reaped", reaped);
	json_end(&json);
}

/*
 * Attaching reaps as well; so what this command does is the difference of the pool's own count,
 * which a read-only handle can see before.
 */
static int reap(const struct command *self, const struct args *args, uint64_t *reaped)
{
	struct morsel_pool_stat before = {.size = sizeof(before)};
	struct morsel_pool_stat after = {.size = sizeof(after)};
	struct morsel_pool *pool;
	int code = open_pool(self, args, MORSEL_POOL_READ_ONLY, &pool);
	int rc;

	if (code != EXIT_OK)
		return code;
	rc = morsel_pool_stat(pool, &before);
	morsel_pool_close(pool);
	if (rc < 0)
		return complain_library(self, rc);
	code = open_pool(self, args, 0, &pool);
	if (code != EXIT_OK)
		return code;
	rc = morsel_pool_reap(pool);
	if (rc >= 0)
		rc = morsel_pool_stat(pool, &after);
	if (rc < 0)
		code = complain_library(self, rc);
	else
		*reaped = after.reaped - before.reaped;
	morsel_pool_close(pool);
	return code;
}

int pool_reap(const struct command *self, int argc, char **argv)
{
	struct args args;
	uint64_t reaped;
	int code = args_read(self, NULL, 0, argc, argv, &args);

	if (code != ARGS_RUN)
		return code;
	code = reap(self, &args, &reaped);
	if (code == EXIT_OK)
		print_reaped(&args, reaped);
	return code;
}
