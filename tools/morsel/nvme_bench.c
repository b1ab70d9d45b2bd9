/*
 * morsel nvme bench: how long commands take, by queue depth, access pattern, and the way in which
 * their memory is described.
 *
 * One queue, one thread: submit until the queue is as deep as asked for, poll, take the time of
 * each answer. Latencies go into a histogram whose steps grow: 8 to each power of two of
 * nanoseconds.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "commands.h"
#include "nvme.h"

#define DEPTH_MAX 128u
#define STEPS	  8u /* of the histogram, to each power of two */
#define BINS	  (64u * STEPS)

struct histogram {
	uint64_t count[BINS];
	uint64_t sum, total, max;
};

struct bench {
	const struct args *args;
	uint64_t ns, depth, block, seconds_ms, count;
	uint32_t pattern, pointers; /* as the options name them */
	bool write, polled, overwrite;
	struct json json;
	struct table table;
	/* Of one run. */
	struct morsel_nvme *nvme;
	struct morsel_nvme_namespace space;
	struct morsel_grant grant;
	uint64_t start[DEPTH_MAX];
	bool busy[DEPTH_MAX];
	uint64_t next, random;
};

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* ---- the histogram ---- */

static unsigned bin_of(uint64_t ns)
{
	unsigned power = ns ? 63u - (unsigned)__builtin_clzll(ns) : 0;

	if (power < 3)
		return (unsigned)ns;
	return power * STEPS + (unsigned)(ns >> (power - 3) & (STEPS - 1));
}

/* The smallest that falls into the bin after this one. */
static uint64_t bin_end(unsigned bin)
{
	unsigned power = bin / STEPS;

	if (bin < 3 * STEPS)
		return bin + 1;
	return (uint64_t)(STEPS + bin % STEPS + 1) << (power - 3);
}

static void note(struct histogram *histogram, uint64_t ns)
{
	histogram->count[bin_of(ns)]++;
	histogram->sum += ns;
	histogram->total++;
	if (ns > histogram->max)
		histogram->max = ns;
}

static uint64_t percentile(const struct histogram *histogram, unsigned per_mille)
{
	uint64_t wanted = (histogram->total * per_mille + 999) / 1000, seen = 0;

	for (unsigned i = 0; i < BINS; i++) {
		seen += histogram->count[i];
		if (seen >= wanted && seen)
			return bin_end(i) < histogram->max ? bin_end(i) : histogram->max;
	}
	return histogram->max;
}

/* ---- one run ---- */

static uint64_t next_block(struct bench *bench, bool random)
{
	uint64_t step = bench->block / bench->space.block_bytes;
	uint64_t places = bench->space.blocks / step;

	if (!random)
		return bench->next++ % places * step;
	bench->random ^= bench->random << 13;
	bench->random ^= bench->random >> 7;
	bench->random ^= bench->random << 17;
	return bench->random % places * step;
}

static int submit(struct bench *bench, unsigned slot, bool random, uint32_t flags)
{
	struct morsel_nvme_piece piece = {bench->grant.iova + slot * bench->block, bench->block};
	struct morsel_nvme_io io = {.op = bench->write ? MORSEL_NVME_WRITE : MORSEL_NVME_READ,
				    .flags = flags,
				    .ns = (uint32_t)bench->ns,
				    .block = next_block(bench, random),
				    .blocks = (uint32_t)(bench->block / bench->space.block_bytes),
				    .pieces = &piece,
				    .count = 1,
				    .user = &bench->start[slot]};

	bench->start[slot] = now();
	return morsel_nvme_submit(bench->nvme, 0, &io);
}

static int fly(struct bench *bench, unsigned depth, bool random, uint32_t flags,
	       struct histogram *histogram, uint64_t *elapsed)
{
	uint64_t begin = now(), end = begin + bench->seconds_ms * 1000000, submitted = 0;
	struct morsel_nvme_done done[DEPTH_MAX];
	unsigned flying = 0;

	memset(bench->busy, 0, sizeof(bench->busy));
	for (;;) {
		bool more = now() < end && (!bench->count || submitted < bench->count);
		int got, rc;

		for (unsigned i = 0; more && flying < depth && i < depth; i++) {
			if (bench->busy[i])
				continue;
			rc = submit(bench, i, random, flags);
			if (rc)
				return rc;
			bench->busy[i] = true;
			flying++;
			submitted++;
		}
		if (!flying)
			break;
		got = morsel_nvme_poll(bench->nvme, 0, done, DEPTH_MAX, -1);
		for (int i = 0; i < got; i++) {
			uint64_t *start = done[i].user;

			if (done[i].rc)
				return morsel_fail(done[i].rc, "a command ended with: %s",
						   morsel_nvme_status_words(done[i].status));
			note(histogram, now() - *start);
			bench->busy[start - bench->start] = false;
			flying--;
		}
		if (got < 0)
			return got;
	}
	*elapsed = now() - begin;
	return 0;
}

/* ---- what is told ---- */

static const char *const patterns[] = {"both", "sequential", "random"};
static const char *const pointer_names[] = {"both", "prp", "sgl"};

static void tell_json(struct bench *bench, unsigned depth, unsigned pattern, unsigned pointers,
		      const struct histogram *histogram, uint64_t elapsed)
{
	struct json *json = &bench->json;

	json_object(json, NULL);
	json_text(json, "pattern", patterns[pattern]);
	json_text(json, "pointers", pointer_names[pointers]);
	json_u64(json, "depth", depth);
	json_u64(json, "commands", histogram->total);
	json_u64(json, "ns", elapsed);
	json_u64(json, "ns_mean", histogram->total ? histogram->sum / histogram->total : 0);
	json_u64(json, "ns_p50", percentile(histogram, 500));
	json_u64(json, "ns_p90", percentile(histogram, 900));
	json_u64(json, "ns_p99", percentile(histogram, 990));
	json_u64(json, "ns_p999", percentile(histogram, 999));
	json_u64(json, "ns_max", histogram->max);
	json_list(json, "histogram");
	for (unsigned i = 0; i < BINS; i++) {
		if (!histogram->count[i])
			continue;
		json_object(json, NULL);
		json_u64(json, "ns_below", bin_end(i));
		json_u64(json, "commands", histogram->count[i]);
		json_close(json);
	}
	json_close(json);
	json_close(json);
}

static void tell_row(struct bench *bench, unsigned depth, unsigned pattern, unsigned pointers,
		     const struct histogram *histogram, uint64_t elapsed)
{
	double seconds = (double)elapsed / 1e9;
	struct table *table = &bench->table;

	table_add(table, "%s", patterns[pattern]);
	table_add(table, "%s", pointer_names[pointers]);
	table_add(table, "%u", depth);
	table_add(table, "%.0f", (double)histogram->total / seconds);
	table_add(table, "%.1f", (double)(histogram->total * bench->block) / seconds / (1 << 20));
	table_add(table, "%.1f", (double)percentile(histogram, 500) / 1e3);
	table_add(table, "%.1f", (double)percentile(histogram, 990) / 1e3);
	table_add(table, "%.1f", (double)percentile(histogram, 999) / 1e3);
	table_add(table, "%.1f", (double)histogram->max / 1e3);
}

static int run_one(struct bench *bench, unsigned depth, unsigned pattern, unsigned pointers)
{
	struct histogram *histogram = calloc(1, sizeof(*histogram));
	uint64_t elapsed = 1;
	int rc;

	if (!histogram)
		return morsel_fail(-ENOMEM, "no memory for a histogram");
	rc = fly(bench, depth, pattern == 2, pointers == 2 ? MORSEL_NVME_SGL : MORSEL_NVME_PRP,
		 histogram, &elapsed);
	if (!rc && bench->args->json)
		tell_json(bench, depth, pattern, pointers, histogram, elapsed);
	else if (!rc)
		tell_row(bench, depth, pattern, pointers, histogram, elapsed);
	free(histogram);
	return rc;
}

static int run_all(struct bench *bench)
{
	struct morsel_nvme_info info = {.size = sizeof(info)};
	int rc = morsel_nvme_info(bench->nvme, &info);

	for (unsigned pattern = 1; pattern <= 2; pattern++)
		for (unsigned pointers = 1; pointers <= 2; pointers++) {
			if ((bench->pattern && bench->pattern != pattern) ||
			    (bench->pointers ? bench->pointers != pointers
					     : pointers == 2 && !info.sgl))
				continue;
			for (unsigned depth = 1; !rc && depth <= info.depth && depth <= DEPTH_MAX;
			     depth *= 2)
				if (!bench->depth || depth == bench->depth)
					rc = run_one(bench, depth, pattern, pointers);
		}
	return rc;
}

/* ---- memory, and the whole ---- */

/* After an error, too, nothing is under way when the memory goes. */
static void land(struct bench *bench)
{
	struct morsel_nvme_done done[DEPTH_MAX];

	while (morsel_nvme_poll(bench->nvme, 0, done, DEPTH_MAX, -1) > 0)
		;
}

static int with_memory(struct bench *bench, struct nvme_device *device, struct morsel_pool *pool)
{
	struct morsel_opts opts = {
		.size = sizeof(opts), .flags = MORSEL_CREATE, .bytes = DEPTH_MAX * bench->block};
	struct morsel *morsel;
	struct morsel_view *view;
	int rc = morsel_open(pool, "bench", &opts, &morsel);

	if (rc)
		return rc;
	rc = morsel_iommu_view(morsel, device->device, NULL, &view);
	if (rc)
		goto close_morsel;
	rc = morsel_acquire(view, 0, opts.bytes, MORSEL_READ | MORSEL_WRITE, &bench->grant);
	if (!rc) {
		rc = run_all(bench);
		if (rc)
			land(bench);
		morsel_release(&bench->grant);
	}
	morsel_view_destroy(view);
close_morsel:
	morsel_close(morsel);
	return rc;
}

static int check(struct bench *bench, struct nvme_device *device)
{
	struct morsel_nvme_info info = {.size = sizeof(info)};
	int rc;

	bench->space.size = sizeof(bench->space);
	rc = morsel_nvme_namespace(device->nvme, (uint32_t)bench->ns, &bench->space);
	if (!rc)
		rc = morsel_nvme_info(device->nvme, &info);
	if (rc)
		return rc;
	if (bench->block < bench->space.block_bytes || bench->block % bench->space.block_bytes ||
	    bench->block > info.transfer_max)
		return morsel_fail(-EINVAL,
				   "commands of %" PRIu64
				   " bytes: whole blocks of %u are wanted, at "
				   "most %" PRIu64 " bytes",
				   bench->block, bench->space.block_bytes, info.transfer_max);
	return 0;
}

static int act(struct nvme_device *device, void *ctx)
{
	static const char *const heads[] = {"PATTERN",	  "POINTERS", "DEPTH",
					    "COMMANDS/S", "MiB/S",    "P50 us",
					    "P99 us",	  "P99.9 us", "MAX us"};
	struct morsel_pool_opts opts = {.size = sizeof(opts), .flags = MORSEL_POOL_CREATE};
	struct bench *bench = ctx;
	struct morsel_pool *pool;
	int rc = check(bench, device);

	bench->nvme = device->nvme;
	bench->random = 88172645463325252u;
	if (!rc)
		rc = morsel_pool_open(NULL, &opts, &pool);
	if (rc)
		return rc;
	if (bench->args->json) {
		json_begin(&bench->json, stdout);
		json_text(&bench->json, "operation", bench->write ? "write" : "read");
		json_u64(&bench->json, "bytes_command", bench->block);
		json_bool(&bench->json, "polled", bench->polled);
		json_list(&bench->json, "runs");
	} else {
		table_begin(&bench->table, array_length(heads), "llrrrrrrr", heads);
	}
	rc = with_memory(bench, device, pool);
	if (bench->args->json) {
		json_close(&bench->json);
		json_end(&bench->json);
	} else if (rc) {
		table_drop(&bench->table);
	} else {
		table_end(&bench->table);
	}
	morsel_pool_close(pool);
	return rc;
}

int nvme_bench(const struct command *self, int argc, char **argv)
{
	struct bench bench = {.ns = 1, .block = 4096, .seconds_ms = 1000};
	struct morsel_nvme_opts opts = {.size = sizeof(opts), .depth = DEPTH_MAX};
	const struct option_spec options[] = {
		{'n', "namespace", "N", OPTION_NUMBER, &bench.ns, "default 1"},
		{0, "block", "SIZE", OPTION_SIZE, &bench.block, "of one command; default 4K"},
		{0, "depth", "N", OPTION_NUMBER, &bench.depth,
		 "in flight, a power of two up to 128; default all of them"},
		{0, "pattern", "both|sequential|random", OPTION_CHOICE, &bench.pattern, ""},
		{0, "pointers", "both|prp|sgl", OPTION_CHOICE, &bench.pointers,
		 "how memory is described"},
		{0, "time", "MS", OPTION_NUMBER, &bench.seconds_ms, "of one run; default 1000"},
		{0, "count", "N", OPTION_NUMBER, &bench.count, "commands of one run, at most"},
		{0, "polled", NULL, OPTION_FLAG, &bench.polled, "without interrupts"},
		{0, "write", NULL, OPTION_FLAG, &bench.write,
		 "write: what is on the device is lost"},
		{0, "overwrite", NULL, OPTION_FLAG, &bench.overwrite, "with --write: yes, really"},
	};
	struct args args;
	int code = args_read(self, options, array_length(options), argc, argv, &args);

	if (code != ARGS_RUN)
		return code;
	if (bench.depth & (bench.depth - 1) || bench.depth > DEPTH_MAX)
		return complain_usage(self, "a depth is a power of two up to %u", DEPTH_MAX);
	if (bench.write && !bench.overwrite)
		return complain_usage(self,
				      "writing destroys what is on the device: say --overwrite");
	bench.args = &args;
	opts.flags = bench.polled ? MORSEL_NVME_POLLED : 0;
	return nvme_on_device(self, args.operand[0], &opts, act, &bench);
}
