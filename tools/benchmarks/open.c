/*
 * bench_open: how long it takes to open one of a million morsels by name, and to attach a sparse
 * pool of 1 TiB. Both are only reported; every sample is a fresh process.
 */
#include "bench.h"
#include "probe.h"
#include "subject.h"

#include <stdio.h>

#include <morsel/morsel.h>

#define NAMES	     1000000u
#define OPENS	     1000u
#define POOL_BYTES   (4 * BENCH_GIB)
#define SPARSE_BYTES (1024 * BENCH_GIB)

static const char no_pool[] = "morsel_pool_open: %s";

static struct morsel_pool *new_pool(uint64_t bytes)
{
	struct morsel_pool_opts opts = {
		.size = sizeof(opts), .flags = MORSEL_POOL_CREATE, .bytes = bytes};
	struct morsel_pool *pool;

	return morsel_pool_open(NULL, &opts, &pool) < 0 ? NULL : pool;
}

static void sample_probe(const struct bench_opts *opts, struct bench_case *c,
			 struct probe_request *request, struct morsel_pool *pool,
			 double (*of)(const struct probe_result *))
{
	struct probe_result result = {0};
	unsigned i;

	for (i = 0; i < opts->pairs; i++) {
		request->seed = i + 1;
		if (probe_run(request, morsel_pool_fd(pool), &result)) {
			bench_failed(c, "a probe failed: %s", result.text);
			return;
		}
		bench_ours(c, of(&result));
	}
}

/* ---- by name ---- */

static double open_us(const struct probe_result *result)
{
	return (double)result->map_ns / 1e3 / OPENS;
}

/* Lazy morsels of one page: a record and a name each, no memory behind them. */
static int create_names(struct morsel_pool *pool, unsigned count)
{
	struct morsel_opts opts = {.size = sizeof(opts),
				   .flags = MORSEL_CREATE | MORSEL_EXCL | MORSEL_LAZY,
				   .bytes = 4096};
	struct morsel *morsel;
	char name[32];
	unsigned i;

	for (i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "morsel-%u", i);
		if (morsel_open(pool, name, &opts, &morsel) < 0)
			return -1;
		morsel_close(morsel);
	}
	return 0;
}

/* In this process, which has made them all: nothing of the directory is new to it. */
static void sample_here(const struct bench_opts *opts, struct bench_case *opens,
			struct bench_case *closes, struct probe_request *request,
			struct morsel_pool *pool)
{
	unsigned i;

	for (i = 0; i < opts->pairs; i++) {
		struct probe_result result = {0};

		request->seed = i + 1;
		if (open_names(pool, request, &result)) {
			bench_failed(opens, "%s", result.text);
			bench_failed(closes, "%s", result.text);
			return;
		}
		bench_ours(opens, open_us(&result));
		bench_ours(closes, (double)result.unmap_ns / 1e3 / OPENS);
	}
}

static void measure_names(struct bench *bench, const struct bench_opts *opts,
			  struct morsel_pool *pool)
{
	struct probe_request request = {.what = PROBE_OPEN_NAMES, .bytes = OPENS, .count = NAMES};
	struct bench_case *opens = bench_case(bench, "by-name-in-1e6", "us", NULL, NULL);
	struct bench_case *closes = bench_case(bench, "by-name-in-1e6-close", "us", NULL, NULL);
	struct bench_case *fresh =
		bench_case(bench, "by-name-in-1e6-new-process", "us", NULL, NULL);
	uint64_t start = bench_now();

	bench_say("making %u morsels", NAMES);
	if (create_names(pool, NAMES)) {
		bench_failed(opens, "morsel_open: %s", morsel_errormsg());
		return;
	}
	bench_note(opens,
		   "morsel_open of a random name, mean of %u, in the process that made all of "
		   "them: a pool of %u lazy morsels of one page, each of which took %.2f us to "
		   "create and close. Goal: 5 us.",
		   OPENS, NAMES, (double)(bench_now() - start) / 1e3 / NAMES);
	bench_note(closes, "morsel_close of the same.");
	bench_note(fresh,
		   "The first %u in a fresh process: the page faults on the directory, which "
		   "is new to it, are included.",
		   OPENS);
	sample_here(opts, opens, closes, &request, pool);
	sample_probe(opts, fresh, &request, pool, open_us);
}

static void measure_by_name(struct bench *bench, const struct bench_opts *opts)
{
	struct morsel_pool *pool = new_pool(POOL_BYTES);

	if (!pool) {
		bench_failed(bench_case(bench, "by-name-in-1e6", "us", NULL, NULL), no_pool,
			     morsel_errormsg());
		return;
	}
	measure_names(bench, opts, pool);
	morsel_pool_close(pool);
}

/* ---- attach ---- */

static double attach_ms(const struct probe_result *result)
{
	return bench_ms(result->map_ns);
}

static void measure_attach(struct bench *bench, const struct bench_opts *opts)
{
	struct probe_request request = {.what = PROBE_ATTACH};
	struct bench_case *c = bench_case(bench, "attach-1tib-sparse", "ms", NULL, NULL);
	struct morsel_pool *pool;
	uint64_t start = bench_now();

	bench_say("making a sparse pool of 1 TiB");
	pool = new_pool(SPARSE_BYTES);
	if (!pool) {
		bench_failed(c, no_pool, morsel_errormsg());
		return;
	}
	bench_note(c,
		   "morsel_pool_open_fd of a sparse memfd pool of 1 TiB in a fresh process; "
		   "creating it took %.2f ms. Goal: 10 ms.",
		   bench_ms(bench_now() - start));
	sample_probe(opts, c, &request, pool, attach_ms);
	morsel_pool_close(pool);
}

int main(int argc, char **argv)
{
	struct bench_opts opts = {.pairs = 9};
	struct bench *bench;

	probe_main(argc, argv);
	bench = bench_start("open", &opts, argc, argv);
	if (bench_wants(bench, "by-name-in-1e6"))
		measure_by_name(bench, &opts);
	if (bench_wants(bench, "attach-1tib-sparse"))
		measure_attach(bench, &opts);
	return bench_finish(bench);
}
