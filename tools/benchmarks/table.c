/*
 * What mapping a large object costs, every way that there is: an object of distinct, numbered pages
 * that are filled from a model's tensors, mapped by fresh processes. Times are medians of single
 * processes; memory is that of one of eight which have read all of it at the same time.
 *
 * One object exists at a time, so that it can be as large as the memory allows.
 */
#include "quickstart.h"

#include "bench.h"
#include "probe.h"
#include "store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <morsel/morsel.h>

#define PATTERN_BYTES_MAX (64 * BENCH_MIB)
#define SAMPLES		  3

struct way {
	enum store_kind kind;
	uint32_t flags;
	const char *words;
};

static const struct way ways[] = {
	{STORE_MEMFD, PROBE_POPULATE, "memfd, 4 KiB pages, populated"},
	{STORE_MEMFD, 0, "memfd, 4 KiB pages, lazy"},
	{STORE_MEMFD_HUGE, PROBE_POPULATE, "memfd, huge pages, populated"},
	{STORE_HUGETLB, PROBE_POPULATE, "hugetlb 2 MiB, populated"},
	{STORE_FILE, PROBE_POPULATE, "hot file on disk, populated"},
	{STORE_MORSEL, 0, "morsel: pooled view"},
	{STORE_MORSEL, PROBE_POPULATE, "morsel: pooled view, populated"},
	{STORE_SCATTERED, PROBE_POPULATE, "morsel: stitched view, populated"},
};
#define WAYS (sizeof(ways) / sizeof(ways[0]))

struct row {
	bool measured;
	double map_ms, touch_ms;
	uint64_t table_kb;
	double pss_mib;
	char missing[200];
};

/* ---- the tensors that the object is filled with ---- */

struct buffer {
	char *at;
	uint64_t used;
};

static void add_tensor(struct buffer *buffer, const char *at, uint64_t bytes)
{
	if (bytes > PATTERN_BYTES_MAX - buffer->used)
		bytes = PATTERN_BYTES_MAX - buffer->used;
	memcpy(buffer->at + buffer->used, at, bytes);
	buffer->used += bytes;
}

/* All tensors one after the other, or the whole file if it has none. */
static void add_tensors(struct buffer *buffer, struct morsel *morsel, struct morsel_view *view)
{
	struct morsel_tensor tensor;
	uint64_t i;

	for (i = 0; morsel_tensor_at(morsel, i, &tensor) >= 0; i++)
		add_tensor(buffer, (char *)morsel_addr(view) + tensor.offset, tensor.bytes);
	if (!buffer->used)
		add_tensor(buffer, morsel_addr(view), morsel_view_bytes(view));
}

/* Whole pages only; a small model is repeated until it fills one. */
static int read_tensors(struct morsel_pool *pool, const char *model, struct pattern *pattern)
{
	struct buffer buffer = {malloc(PATTERN_BYTES_MAX), 0};
	struct morsel_map_opts opts = {.size = sizeof(opts), .access = MORSEL_READ};
	struct morsel *morsel;
	struct morsel_view *view;

	if (!buffer.at)
		bench_die("out of memory");
	if (morsel_import(pool, "model", model, NULL, &morsel) < 0 ||
	    morsel_map(morsel, &opts, &view) < 0) {
		bench_say("%s", morsel_errormsg());
		return -1;
	}
	while (buffer.used < PAGE_BYTES)
		add_tensors(&buffer, morsel, view);
	morsel_view_destroy(view);
	morsel_close(morsel);
	pattern->at = buffer.at;
	pattern->bytes = buffer.used / PAGE_BYTES * PAGE_BYTES;
	return 0;
}

static int make_pattern(const char *model, struct pattern *pattern)
{
	struct morsel_pool_opts opts = {
		.size = sizeof(opts), .flags = MORSEL_POOL_CREATE, .bytes = 16 * BENCH_GIB};
	struct morsel_pool *pool;
	int error;

	if (morsel_pool_open(NULL, &opts, &pool) < 0) {
		bench_say("morsel_pool_open: %s", morsel_errormsg());
		return -1;
	}
	error = read_tensors(pool, model, pattern);
	morsel_pool_close(pool);
	return error;
}

/* ---- measuring ---- */

static struct probe_request request_for(const struct store *store, const struct way *way,
					uint32_t flags)
{
	return (struct probe_request){.what = store_probe(store->kind),
				      .flags = way->flags | PROBE_READ | flags,
				      .bytes = store->bytes};
}

static int measure_times(const struct store *store, const struct way *way, struct row *row)
{
	struct probe_request request = request_for(store, way, 0);
	double map[SAMPLES], touch[SAMPLES];
	struct probe_result result;
	unsigned i;

	for (i = 0; i < SAMPLES; i++) {
		if (probe_run(&request, store->fd, &result))
			return -1;
		map[i] = bench_ms(result.map_ns + result.touch_ns);
		touch[i] = bench_ms(result.read_ns);
	}
	row->map_ms = bench_median(map, SAMPLES);
	row->touch_ms = bench_median(touch, SAMPLES);
	return 0;
}

/* What the kernel leaves out of Pss, hugetlb memory, is divided by the number of its mappers. */
static double pss_mib(const struct probe_result *result)
{
	return ((double)result->pss_kb + (double)result->hugetlb_kb / (QUICKSTART_PROCESSES + 1)) /
	       1024;
}

static int measure_memory(const struct store *store, const struct way *way, struct row *row)
{
	struct probe_request request = request_for(store, way, PROBE_SMAPS);
	struct probe probes[QUICKSTART_PROCESSES];
	struct probe_result result = {0};
	unsigned started, i;
	int error = 0;

	for (started = 0; !error && started < QUICKSTART_PROCESSES; started += !error)
		error = probe_start(&probes[started], &request, store->fd);
	for (i = 0; !error && i < started; i++)
		error = probe_ready(&probes[i]);
	for (i = 0; !error && i < started; i++)
		error = probe_count(&probes[i]);
	for (i = 0; i < started; i++) {
		if (probe_end(&probes[i], &result))
			error = -1;
	}
	row->table_kb = result.table_kb;
	row->pss_mib = pss_mib(&result);
	return error;
}

/* All ways that use this kind of store. -1 if one that exists could not be measured. */
static int measure_store(enum store_kind kind, uint64_t bytes, const char *dir,
			 const struct pattern *pattern, struct row *rows)
{
	bool ours = kind == STORE_MORSEL || kind == STORE_SCATTERED, made;
	struct store store;
	int error = 0;
	size_t i;

	made = !store_make(&store, kind, bytes, dir, pattern);
	for (i = 0; i < WAYS; i++) {
		if (ways[i].kind != kind)
			continue;
		if (!made) {
			snprintf(rows[i].missing, sizeof(rows[i].missing), "%s", store.missing);
			continue;
		}
		if (measure_times(&store, &ways[i], &rows[i]) ||
		    measure_memory(&store, &ways[i], &rows[i]))
			error = -1;
		else
			rows[i].measured = true;
	}
	if (made)
		store_drop(&store);
	else if (ours)
		bench_say("%s", store.missing);
	return made || !ours ? error : -1;
}

/* ---- the table ---- */

static void print_row(const struct way *way, const struct row *row)
{
	if (row->measured)
		printf("  %-34s %10.3f %16.1f %16llu %18.1f\n", way->words, row->map_ms,
		       row->touch_ms, (unsigned long long)row->table_kb, row->pss_mib);
	else
		printf("  %-34s not measured: %s\n", way->words,
		       row->missing[0] ? row->missing : "a process failed, see above");
}

static void print_rows(uint64_t bytes, const struct row *rows)
{
	size_t i;

	printf("\nMapping %.2f GiB that is in memory already, in a fresh process:\n\n",
	       (double)bytes / BENCH_GIB);
	printf("  %-34s %10s %16s %16s %18s\n", "", "map", "first touch of", "page tables",
	       "memory per process");
	printf("  %-34s %10s %16s %16s %18s\n", "", "ms", "every page, ms", "kB per process",
	       "MiB, of 8 at once");
	for (i = 0; i < WAYS; i++)
		print_row(&ways[i], &rows[i]);
	printf("\n  map: all calls until the address is known and the first byte of every GiB is "
	       "read.\n"
	       "  memory: proportional share (Pss; of hugetlb its size over its mappers), with "
	       "the\n"
	       "  maker of the object as a ninth; every page was read and its number verified.\n");
}

/* One object, what its pages tables need, and a gibibyte for everyone else. */
static uint64_t fit(uint64_t bytes)
{
	uint64_t available = bench_memory_available();
	uint64_t most =
		available > BENCH_GIB ? (available - BENCH_GIB) / HUGE_BYTES * HUGE_BYTES : 0;

	if (most < 16 * HUGE_BYTES)
		bench_die("too little memory: %llu MiB are available",
			  (unsigned long long)(available / BENCH_MIB));
	if (bytes <= most)
		return bytes / HUGE_BYTES * HUGE_BYTES;
	printf("memory is short: an object of %.2f GiB instead of %.2f GiB\n",
	       (double)most / BENCH_GIB, (double)bytes / BENCH_GIB);
	return most;
}

int print_table(const char *model, uint64_t bytes, const char *dir)
{
	static const enum store_kind kinds[] = {STORE_MEMFD, STORE_MEMFD_HUGE, STORE_HUGETLB,
						STORE_FILE,  STORE_MORSEL,     STORE_SCATTERED};
	struct row rows[WAYS] = {0};
	struct pattern pattern;
	int error = 0;
	size_t i;

	if (make_pattern(model, &pattern))
		return 1;
	bytes = fit(bytes);
	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (measure_store(kinds[i], bytes, dir, &pattern, rows))
			error = 1;
	}
	free((void *)pattern.at);
	print_rows(bytes, rows);
	return error;
}
