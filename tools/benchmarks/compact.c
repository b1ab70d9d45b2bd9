/*
 * bench_compact: how many pages are moved for a huge frame that compaction gains, and how long.
 *
 * A pool is filled with small morsels of scattered 4 KiB pages, of which random ones are removed,
 * so that their frames are free here and there. Then the pool is compacted. The other side is an
 * oracle that sees every free frame and who may be moved at once: the sum of the least used huge
 * frames' pages is the fewest moves that gain as many. Each pair is another seed.
 */
#include "bench.h"

#include <stdio.h>
#include <string.h>

#include <morsel/morsel.h>

#define PAGE	     4096ull
#define MORSEL_PAGES 24u
#define FILL_PERCENT 70u
#define GONE_PERCENT 50u

static void ok(int rc, const char *what)
{
	if (rc < 0)
		bench_die("%s: %s", what, morsel_errormsg());
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void name_of(unsigned i, char name[16])
{
	snprintf(name, 16, "m%u", i);
}

static struct morsel_pool *open_pool(uint64_t bytes)
{
	struct morsel_pool_opts opts = {
		.size = sizeof(opts), .flags = MORSEL_POOL_CREATE, .bytes = bytes};
	struct morsel_pool *pool;

	ok(morsel_pool_open(NULL, &opts, &pool), "pool");
	return pool;
}

static void write_pages(struct morsel *morsel, unsigned i)
{
	struct morsel_map_opts opts = {.size = sizeof(opts), .kind = MORSEL_VIEW_STITCHED};
	struct morsel_view *view;

	ok(morsel_map(morsel, &opts, &view), "view");
	for (unsigned page = 0; page < MORSEL_PAGES; page++)
		*(uint64_t *)((char *)morsel_addr(view) + page * PAGE) = i * MORSEL_PAGES + page;
	morsel_view_destroy(view);
}

static void fill(struct morsel_pool *pool, unsigned count)
{
	struct morsel_opts opts = {
		.size = sizeof(opts),
		.flags = MORSEL_CREATE | MORSEL_EVICTABLE | MORSEL_SCATTERED,
		.bytes = MORSEL_PAGES * PAGE,
		.pages = MORSEL_PAGES_4K,
	};
	char name[16];

	for (unsigned i = 0; i < count; i++) {
		struct morsel *morsel;

		name_of(i, name);
		ok(morsel_open(pool, name, &opts, &morsel), "morsel");
		write_pages(morsel, i);
		ok(morsel_close(morsel), "close");
	}
}

static void remove_some(struct morsel_pool *pool, unsigned count, uint64_t seed, bool gone[])
{
	char name[16];

	for (unsigned i = 0; i < count; i++) {
		gone[i] = next_random(&seed) % 100 < GONE_PERCENT;
		if (!gone[i])
			continue;
		name_of(i, name);
		ok(morsel_unlink(pool, name), "unlink");
	}
}

static void verify(struct morsel_pool *pool, unsigned i)
{
	struct morsel_map_opts opts = {
		.size = sizeof(opts), .access = MORSEL_READ, .kind = MORSEL_VIEW_STITCHED};
	struct morsel_view *view;
	struct morsel *morsel;
	char name[16];

	name_of(i, name);
	ok(morsel_open(pool, name, NULL, &morsel), "open");
	ok(morsel_map(morsel, &opts, &view), "view");
	for (unsigned page = 0; page < MORSEL_PAGES; page++)
		if (*(const uint64_t *)((char *)morsel_addr(view) + page * PAGE) !=
		    i * MORSEL_PAGES + page)
			bench_die("page %u of %s is not what was written", page, name);
	morsel_view_destroy(view);
	ok(morsel_close(morsel), "close");
}

#define MORSELS_MAX 65536u

struct samples {
	struct bench_case *moves, *time;
};

static void one_seed(struct samples *to, uint64_t bytes, uint64_t seed)
{
	static bool gone[MORSELS_MAX];
	struct morsel_compact_result result = {.size = sizeof(result)};
	struct morsel_pool *pool = open_pool(bytes);
	uint64_t wanted = bytes / PAGE * FILL_PERCENT / 100 / MORSEL_PAGES, start;
	unsigned count = (unsigned)(wanted < MORSELS_MAX ? wanted : MORSELS_MAX);

	fill(pool, count);
	remove_some(pool, count, seed, gone);
	start = bench_now();
	ok(morsel_pool_compact(pool, NULL, &result), "compact");
	start = bench_now() - start;
	if (!result.huge_gained || !result.pages_moved)
		bench_die("seed %llu: nothing was gained", (unsigned long long)seed);
	for (unsigned i = 0; i < count; i++)
		if (!gone[i])
			verify(pool, i);
	ok(morsel_pool_close(pool), "close");
	if (to->moves) {
		bench_ours(to->moves, (double)result.pages_moved / (double)result.huge_gained);
		bench_theirs(to->moves, (double)result.moves_least / (double)result.huge_gained);
	}
	if (to->time)
		bench_ours(to->time, (double)start / 1e3 / (double)result.pages_moved);
	bench_say("seed %llu: %llu huge frames by %llu moves, %llu refused",
		  (unsigned long long)seed, (unsigned long long)result.huge_gained,
		  (unsigned long long)result.pages_moved, (unsigned long long)result.refused);
}

int main(int argc, char **argv)
{
	struct bench_opts opts = {.pairs = 7, .bytes = 256 * BENCH_MIB};
	struct bench *bench = bench_start("compact", &opts, argc, argv);
	struct samples to = {0};

	if (bench_wants(bench, "moves-per-huge")) {
		to.moves = bench_case(
			bench, "moves-per-huge", "pages", "oracle",
			"the pages in as many huge frames as were gained, those that hold least "
			"and "
			"nothing that must stay, all free frames and owners known at once");
		bench_note(to.moves,
			   "%llu MiB pool, %u %% filled with morsels of %u pages, %u %% of them "
			   "removed "
			   "at random; a sample is a seed.",
			   (unsigned long long)(opts.bytes / BENCH_MIB), FILL_PERCENT, MORSEL_PAGES,
			   GONE_PERCENT);
	}
	if (bench_wants(bench, "time-per-page"))
		to.time = bench_case(bench, "time-per-page", "us", NULL, NULL);
	for (unsigned i = 0; (to.moves || to.time) && i < opts.pairs; i++)
		one_seed(&to, opts.bytes, 88172645463325252u + i * 7919u);
	return bench_finish(bench);
}
