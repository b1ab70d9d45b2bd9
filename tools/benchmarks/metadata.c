/*
 * bench_metadata: counting the owners of shared frames up and down, in the pool's properties of
 * frames and in a flat array with a count for every frame.
 *
 * The properties were a hash of cache lines first: 3 to 6 times the array's cost. What is measured
 * here is what is shipped: an array whose pages get memory when they are needed
 * (core/pool/counts.h), with 512 frames in one call, as a table's entries are counted when it is
 * copied after a clone.
 *
 * Both lie in shared memory of 4 KiB pages, count in 32 bits by an atomic fetch-and-add, and are
 * walked in the same order. The array has a count for each frame of a pool of 32 GiB; one frame in
 * eight is shared.
 */
#include "bench.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "pool/property.h"

#define POOL_BYTES (32 * BENCH_GIB)
#define FRAMES	   (POOL_BYTES / 4096)
#define SHARED	   (FRAMES / 8)
#define ROUND	   (SHARED / 2) /* frames of one sample */
#define RUN	   512u

enum order {
	RUNS,	/* tables' worth of neighbours, one after the other, as a clone's are counted */
	RANDOM, /* the same frames, in random order */
	RANDOM_ALONE, /* frames anywhere, in random order */
};

static struct morsel_pool *pool;
static struct mrs_txn txn;
static uint32_t *array;
static uint64_t *frames; /* that are shared */
static uint64_t rng = 88172645463325252u;

static uint64_t next_random(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

static void shuffle(uint64_t *of, uint64_t count)
{
	for (uint64_t i = count; i > 1; i--) {
		uint64_t j = next_random() % i, swap = of[i - 1];

		of[i - 1] = of[j];
		of[j] = swap;
	}
}

/* SHARED different frames. */
static void choose(enum order order)
{
	uint64_t units = order == RANDOM_ALONE ? FRAMES : FRAMES / RUN, *unit = malloc(units * 8);
	uint64_t per_unit = FRAMES / units, at = 0;

	if (!unit)
		bench_die("out of memory");
	for (uint64_t i = 0; i < units; i++)
		unit[i] = i;
	shuffle(unit, units);
	for (uint64_t i = 0; at < SHARED; i++)
		for (uint64_t k = 0; k < per_unit; k++)
			frames[at++] = unit[i] * per_unit + k;
	free(unit);
	if (order == RANDOM)
		shuffle(frames, SHARED);
}

static void add(uint64_t frame, int64_t delta)
{
	uint64_t now;

	if (mrs_prop_add(&txn, frame, MRS_PROP_SHARES, delta, &now))
		bench_die("%s", morsel_errormsg());
}

/* As many at once as a table has entries: so a clone's are counted. */
static void add_many(uint64_t first, int64_t delta)
{
	unsigned done;

	for (uint64_t i = first; i < first + ROUND; i += RUN)
		if (mrs_prop_add_many(&txn, frames + i, RUN, MRS_PROP_SHARES, delta, NULL, &done))
			bench_die("%s", morsel_errormsg());
}

static uint64_t random_start(void)
{
	return next_random() % (SHARED - ROUND);
}

static double hash_incdec(void)
{
	uint64_t first = random_start(), begin = bench_now();

	add_many(first, 1);
	add_many(first, -1);
	return (double)(bench_now() - begin) / (2 * ROUND);
}

static double array_incdec(void)
{
	uint64_t first = random_start(), begin = bench_now();

	for (uint64_t i = first; i < first + ROUND; i++)
		__atomic_fetch_add(&array[frames[i]], 1, __ATOMIC_ACQ_REL);
	for (uint64_t i = first; i < first + ROUND; i++)
		__atomic_fetch_sub(&array[frames[i]], 1, __ATOMIC_ACQ_REL);
	return (double)(bench_now() - begin) / (2 * ROUND);
}

static void count_frames(void *ctx, uint64_t frame, uint64_t count, const char *by)
{
	*(uint64_t *)ctx += count;
}

static void measure(struct bench *bench, unsigned pairs, const char *name, enum order order)
{
	struct bench_case *c;
	uint64_t table = 0;

	if (!bench_wants(bench, name))
		return;
	c = bench_case(bench, name, "ns", "flat-array-incdec",
		       "atomic fetch-and-add on uint32_t array[frame], shared memory, same frames");
	bench_say("%s", name);
	choose(order);
	for (uint64_t i = 0; i < SHARED; i++)
		add(frames[i], 1);
	mrs_prop_owned(pool, count_frames, &table);
	bench_note(c,
		   "%llu of %llu frames have a count; ours is an array with holes and takes %llu "
		   "KiB of frame numbers, the array %llu KiB",
		   (unsigned long long)SHARED, (unsigned long long)FRAMES,
		   (unsigned long long)table * 4, (unsigned long long)FRAMES * 4 / 1024);
	hash_incdec();
	array_incdec();
	for (unsigned i = 0; i < pairs; i++) {
		bench_ours(c, hash_incdec());
		bench_theirs(c, array_incdec());
	}
	for (uint64_t i = 0; i < SHARED; i++)
		add(frames[i], -1);
}

int main(int argc, char **argv)
{
	struct bench_opts opts = {.pairs = 9};
	struct bench *bench = bench_start("metadata", &opts, argc, argv);
	struct morsel_pool_opts pool_opts = {
		.size = sizeof(pool_opts), .flags = MORSEL_POOL_CREATE, .bytes = POOL_BYTES};

	frames = malloc(SHARED * sizeof(*frames));
	array = mmap(NULL, FRAMES * sizeof(*array), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (!frames || array == MAP_FAILED)
		bench_die("out of memory");
	if (morsel_pool_open(NULL, &pool_opts, &pool) ||
	    mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn))
		bench_die("%s", morsel_errormsg());
	measure(bench, opts.pairs, "hash-incdec", RUNS);
	measure(bench, opts.pairs, "hash-incdec-random", RANDOM);
	measure(bench, opts.pairs, "hash-incdec-alone", RANDOM_ALONE);
	mrs_txn_end(&txn);
	morsel_pool_close(pool);
	return bench_finish(bench);
}
