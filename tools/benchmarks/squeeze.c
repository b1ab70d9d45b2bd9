/*
 * The model in half the memory that it needs: an evictable morsel in a pool whose budget is half of
 * the file, and a swap file for what does not fit. Four processes hash all of it at once; the
 * kernel could not do this for shared memory on demand, and a plain copy in each would need four
 * times the file.
 */
#include "quickstart.h"

#include "bench.h"
#include "pages.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include <morsel/morsel.h>
#include <morsel/observe.h>

#define PROCESSES 4u

static int fail(const char *what)
{
	bench_say("%s: %s", what, morsel_errormsg());
	return -1;
}

/* Half of the model beside what the pool needs for itself. */
static int set_half(struct morsel_pool *pool, uint64_t bytes)
{
	struct morsel_pool_stat stat = {.size = sizeof(stat)};
	uint64_t budget;

	if (morsel_pool_stat(pool, &stat))
		return fail("morsel_pool_stat");
	budget = stat.bytes_resident + bytes / 2 / PAGE_BYTES * PAGE_BYTES;
	return morsel_pool_set_budget(pool, budget) ? fail("morsel_pool_set_budget") : 0;
}

static int say_counters(struct morsel_pool *pool)
{
	struct morsel_counters count = {.size = sizeof(count)};

	if (morsel_pool_counters(pool, &count))
		return fail("morsel_pool_counters");
	printf("  on the way %" PRIu64 " pages were evicted and %" PRIu64
	       " brought in again, for all processes at once\n",
	       count.pages_out, count.pages_in);
	return 0;
}

static int squeeze(struct morsel_pool *pool, const char *model, const char *hashes)
{
	struct morsel_opts opts = {.size = sizeof(opts), .flags = MORSEL_EVICTABLE};
	struct morsel *morsel;
	int error;

	if (morsel_import(pool, QUICKSTART_MORSEL, model, &opts, &morsel))
		return fail("morsel_import");
	error = hash_in_processes(morsel_pool_fd(pool), PROCESSES, false, hashes);
	if (!error)
		error = say_counters(pool);
	morsel_close(morsel);
	return error;
}

int squeeze_model(const char *model, const char *hashes, const char *dir)
{
	uint64_t bytes = file_bytes(model);
	struct morsel_pool_opts opts = {.size = sizeof(opts),
					.flags = MORSEL_POOL_CREATE,
					.bytes = (2 * bytes / BENCH_GIB + 2) * BENCH_GIB};
	struct morsel_swap_opts swap = {.size = sizeof(swap), .bytes = 2 * bytes + BENCH_MIB};
	struct morsel_pool *pool;
	char file[4096];
	int error;

	setvbuf(stdout, NULL, _IOLBF, 0);
	snprintf(file, sizeof(file), "%s/morsel-quickstart-swap-%d", dir, (int)getpid());
	swap.path = file;
	if (morsel_pool_open(NULL, &opts, &pool))
		return fail("morsel_pool_open") ? 1 : 0;
	error = morsel_swap_add(pool, &swap, NULL) ? fail("morsel_swap_add")
						   : set_half(pool, bytes);
	if (!error)
		error = squeeze(pool, model, hashes);
	morsel_pool_close(pool);
	unlink(file);
	return error ? 1 : 0;
}
