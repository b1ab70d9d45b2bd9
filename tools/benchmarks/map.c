/*
 * bench_map: what it costs a process to get at a large object that others already have in memory,
 * beside every other way that this machine offers, and end to end from a file on disk.
 */
#include "map.h"

#include "probe.h"

#include <stdio.h>
#include <stdlib.h>

/* Bytes that repeat after 1 MiB: the number of each page makes it unlike all others. */
static void make_pattern(struct pattern *pattern)
{
	uint64_t *word = malloc(BENCH_MIB), seed = 1, i;

	if (!word)
		bench_die("out of memory");
	for (i = 0; i < BENCH_MIB / sizeof(*word); i++) {
		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		word[i] = seed;
	}
	pattern->at = word;
	pattern->bytes = BENCH_MIB;
}

void plan_fit(struct plan *plan)
{
	uint64_t available = bench_memory_available();
	uint64_t most = available > BENCH_GIB ? (available - BENCH_GIB) / 2 : 0;

	plan->file_bytes = BENCH_GIB / 2;
	if (plan->bytes > most) {
		uint64_t asked = plan->bytes;

		plan->bytes = most / HUGE_BYTES * HUGE_BYTES;
		if (plan->bytes < 16 * HUGE_BYTES)
			bench_die("too little memory: %llu MiB are available",
				  (unsigned long long)(available / BENCH_MIB));
		snprintf(plan->scaled, sizeof(plan->scaled),
			 "Memory is short: %.2f GiB instead of %.2f GiB.",
			 (double)plan->bytes / BENCH_GIB, (double)asked / BENCH_GIB);
		bench_say("%s", plan->scaled);
	}
	/* Eight private copies, the page cache, the pool, and a gibibyte for everyone else. */
	if (plan->file_bytes > plan->bytes)
		plan->file_bytes = plan->bytes;
	if (plan->file_bytes > most * 2 / 10)
		plan->file_bytes = most * 2 / 10 / HUGE_BYTES * HUGE_BYTES;
}

int main(int argc, char **argv)
{
	struct bench_opts opts = {.bytes = OBJECT_BYTES, .pairs = 9};
	struct plan plan = {0};
	int status;

	probe_main(argc, argv);
	plan.bench = bench_start("map", &opts, argc, argv);
	plan.bytes = opts.bytes / HUGE_BYTES * HUGE_BYTES;
	plan.pairs = opts.pairs;
	plan.dir = opts.dir;
	make_pattern(&plan.pattern);
	plan_fit(&plan);
	measure_mapping(&plan);
	measure_end_to_end(&plan);
	status = bench_finish(plan.bench);
	free((void *)plan.pattern.at);
	return status;
}
