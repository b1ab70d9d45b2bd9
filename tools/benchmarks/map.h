/*
 * The map bench's plan, shared by its two halves: mapping.c (an object that is in memory already)
 * and endtoend.c (a file on disk until n processes have read all of it).
 */
#ifndef BENCH_MAP_H
#define BENCH_MAP_H

#include "bench.h"
#include "pages.h"

struct plan {
	struct bench *bench;
	uint64_t bytes;	     /* of the object that is mapped */
	uint64_t file_bytes; /* of the file that is read end to end */
	unsigned pairs;
	const char *dir;
	struct pattern pattern;
	char scaled[128]; /* a sentence if bytes is smaller than asked for; else empty */
};

#define OBJECT_BYTES (3492 * HUGE_BYTES) /* 6.82 GiB */

/* Makes the plan fit the memory that is available, and says so in plan->scaled. */
void plan_fit(struct plan *plan);

void measure_mapping(struct plan *plan);
void measure_end_to_end(struct plan *plan);

#endif
