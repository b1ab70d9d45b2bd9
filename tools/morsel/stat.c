/*
 * morsel stat: what the pool's number space and memory are used for, summed over its morsels.
 *
 *   number space (bytes) = free + metadata + owned by morsels and their tables
 *   memory (resident)   <= budget, if there is one; what the file system has left bounds it too
 */
#include <inttypes.h>
#include <sys/statvfs.h>

#include "commands.h"
#include "counters.h"

struct usage {
	struct morsel_pool_stat pool;
	struct morsel_counters counters;
	uint64_t store_free; /* bytes that the file system below has left */
	uint64_t morsels, bytes, allocated, runs, users, tensors;
	uint64_t lazy, sealed, models;
};

static int count_one(void *ctx, const struct morsel_info *info)
{
	struct usage *usage = ctx;

	usage->morsels++;
	usage->bytes += info->bytes;
	usage->allocated += info->bytes_allocated;
	usage->runs += info->runs;
	usage->users += info->users;
	usage->tensors += info->tensors;
	usage->lazy += (info->flags & MORSEL_LAZY) != 0;
	usage->sealed += info->sealed != 0;
	usage->models += info->format != MORSEL_FORMAT_BYTES;
	return 0;
}

static int gather(struct morsel_pool *pool, struct usage *usage)
{
	struct statvfs store;
	int rc;

	usage->pool.size = sizeof(usage->pool);
	rc = morsel_pool_stat(pool, &usage->pool);
	if (rc < 0)
		return rc;
	usage->counters.size = sizeof(usage->counters);
	rc = morsel_pool_counters(pool, &usage->counters);
	if (rc < 0)
		return rc;
	if (fstatvfs(morsel_pool_fd(pool), &store) == 0)
		usage->store_free = (uint64_t)store.f_bavail * store.f_frsize;
	return morsel_list(pool, count_one, usage);
}

static void print_json(const struct args *args, const struct usage *usage)
{
	struct json json;

	json_begin(&json, stdout);
	json_text(&json, "path", args->pool);
	json_u64(&json, "bytes", usage->pool.bytes);
	json_u64(&json, "bytes_free", usage->pool.bytes_free);
	json_u64(&json, "bytes_huge_free", usage->pool.bytes_huge_free);
	json_u64(&json, "bytes_metadata", usage->pool.bytes_metadata);
	json_u64(&json, "bytes_resident", usage->pool.bytes_resident);
	json_u64(&json, "bytes_budget", usage->pool.bytes_budget);
	json_u64(&json, "bytes_low", usage->pool.bytes_low);
	json_u64(&json, "bytes_high", usage->pool.bytes_high);
	json_u64(&json, "bytes_compressed", usage->pool.bytes_compressed);
	json_u64(&json, "store_bytes_free", usage->store_free);
	json_u64(&json, "slots", usage->pool.slots);
	json_u64(&json, "slots_used", usage->pool.slots_used);
	json_u64(&json, "reaped", usage->pool.reaped);
	json_object(&json, "morsels");
	json_u64(&json, "count", usage->morsels);
	json_u64(&json, "bytes", usage->bytes);
	json_u64(&json, "bytes_allocated", usage->allocated);
	json_u64(&json, "runs", usage->runs);
	json_u64(&json, "users", usage->users);
	json_u64(&json, "lazy", usage->lazy);
	json_u64(&json, "sealed", usage->sealed);
	json_u64(&json, "models", usage->models);
	json_u64(&json, "tensors", usage->tensors);
	json_close(&json);
	json_u64(&json, "bytes_evicted", usage->counters.bytes_evicted);
	json_u64(&json, "bytes_quarantine", usage->counters.bytes_quarantine);
	json_u64(&json, "bytes_zeroed", usage->counters.bytes_zeroed);
	json_u64(&json, "pager_pid", usage->counters.pager_pid);
	json_object(&json, "counters");
	for (size_t i = 0; i < counter_specs_count; i++)
		json_u64(&json, counter_specs[i].name,
			 counter_value(&usage->counters, &counter_specs[i]));
	json_u64(&json, "shootdown_ns", usage->counters.shootdown_ns);
	json_end(&json);
}

static void row(struct table *table, const char *label, uint64_t bytes, uint64_t whole, bool exact)
{
	table_add(table, "%s", label);
	table_add_size(table, bytes, exact);
	if (whole)
		table_add(table, "%.1f %%", 100.0 * (double)bytes / (double)whole);
	else
		table_add(table, "%s", "");
}

static void count_row(struct table *table, const char *label, uint64_t count)
{
	table_add(table, "%s", label);
	table_add(table, "%" PRIu64, count);
	table_add(table, "%s", "");
}

/* Those that count something; a pool of which nothing is ever evicted has none. */
static void counter_rows(struct table *table, const struct usage *usage)
{
	char label[64];

	for (size_t i = 0; i < counter_specs_count; i++) {
		uint64_t value = counter_value(&usage->counters, &counter_specs[i]);

		snprintf(label, sizeof(label), "  %s", counter_specs[i].name);
		for (char *at = label; *at; at++)
			*at = *at == '_' ? ' ' : *at;
		if (value)
			count_row(table, label, value);
	}
}

static void print_table(const struct args *args, const struct usage *usage)
{
	const struct morsel_pool_stat *pool = &usage->pool;
	struct table table;

	table_begin(&table, 3, "lrr", NULL);
	row(&table, "number space", pool->bytes, 0, args->exact);
	row(&table, "  morsels", usage->allocated, pool->bytes, args->exact);
	row(&table, "  metadata", pool->bytes_metadata, pool->bytes, args->exact);
	row(&table, "  free", pool->bytes_free, pool->bytes, args->exact);
	row(&table, "  free in 2 MiB", pool->bytes_huge_free, pool->bytes, args->exact);
	row(&table, "memory", pool->bytes_resident, 0, args->exact);
	if (pool->bytes_compressed)
		row(&table, "  compressed pages", pool->bytes_compressed, 0, args->exact);
	if (pool->bytes_budget) {
		row(&table, "  budget", pool->bytes_budget, 0, args->exact);
		row(&table, "  evicts above", pool->bytes_high, 0, args->exact);
		row(&table, "  evicts down to", pool->bytes_low, 0, args->exact);
	}
	if (usage->counters.bytes_evicted)
		row(&table, "  evicted", usage->counters.bytes_evicted, 0, args->exact);
	if (usage->counters.bytes_quarantine)
		row(&table, "  in quarantine", usage->counters.bytes_quarantine, 0, args->exact);
	row(&table, "  left in the file system", usage->store_free, 0, args->exact);
	count_row(&table, "morsels", usage->morsels);
	row(&table, "  size", usage->bytes, 0, args->exact);
	count_row(&table, "  runs", usage->runs);
	count_row(&table, "  open handles", usage->users);
	count_row(&table, "  lazy", usage->lazy);
	count_row(&table, "  sealed", usage->sealed);
	count_row(&table, "  models", usage->models);
	count_row(&table, "  tensors", usage->tensors);
	count_row(&table, "attached", pool->slots_used);
	count_row(&table, "  of at most", pool->slots);
	count_row(&table, "  died and cleaned up", pool->reaped);
	counter_rows(&table, usage);
	table_end(&table);
}

int stat_show(const struct command *self, int argc, char **argv)
{
	struct usage usage = {0};
	struct morsel_pool *pool;
	struct args args;
	bool openmetrics = false;
	const struct option_spec options[] = {
		{'o', "openmetrics", NULL, OPTION_FLAG, &openmetrics,
		 "print OpenMetrics text, for a scraper"},
	};
	int code = args_read(self, options, array_length(options), argc, argv, &args);
	int rc;

	if (code != ARGS_RUN)
		return code;
	if (openmetrics && args.json)
		return complain_usage(self, "--openmetrics and --json exclude each other");
	code = open_pool(self, &args, MORSEL_POOL_READ_ONLY, &pool);
	if (code != EXIT_OK)
		return code;
	rc = openmetrics ? print_openmetrics(pool, args.pool) : gather(pool, &usage);
	if (rc < 0)
		code = complain_library(self, rc);
	else if (args.json)
		print_json(&args, &usage);
	else if (!openmetrics)
		print_table(&args, &usage);
	morsel_pool_close(pool);
	return code;
}
