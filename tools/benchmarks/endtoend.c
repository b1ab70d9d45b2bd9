/*
 * From a file on disk until n processes have read all of it: n processes that import the file into
 * a pool (one reads it, the others wait), attach and map, beside n processes that read the file
 * into memory of their own, or map it. Each of them sums every word. A sample takes seconds: there
 * are no more than the fewest pairs. The clock runs from before the first process is started, and
 * before the pool is created, until the last one has its sum.
 */
#include "map.h"

#include "probe.h"
#include "store.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <morsel/morsel.h>

#define READERS_MAX 8

struct crowd {
	const struct plan *plan;
	int file;
	char path[64];
	uint64_t sum;
	bool cold; /* the page cache forgets the file before each sample */
};

static const unsigned readers_tried[] = {1, 2, 4, 8};
#define TRIED (sizeof(readers_tried) / sizeof(readers_tried[0]))

static int end_all(struct probe *probes, unsigned started)
{
	struct probe_result result;
	unsigned i;
	int error = 0;

	for (i = 0; i < started; i++)
		error |= probe_end(&probes[i], &result);
	return error;
}

/* Starts n probes and waits until all have read everything. */
static int read_all(const struct crowd *crowd, enum probe_what what, unsigned n, int fd,
		    uint64_t start, double *ms)
{
	struct probe_request request = {
		.what = what, .bytes = crowd->plan->file_bytes, .sum = crowd->sum};
	struct probe probes[READERS_MAX];
	unsigned started, i;
	int error = 0;

	snprintf(request.file, sizeof(request.file), "%s", crowd->path);
	for (started = 0; !error && started < n; started += !error)
		error = probe_start(&probes[started], &request, fd);
	for (i = 0; !error && i < started; i++)
		error = probe_ready(&probes[i]);
	*ms = bench_ms(bench_now() - start);
	return end_all(probes, started) ? -1 : error;
}

static int read_by_import(const struct crowd *crowd, unsigned n, double *ms)
{
	struct morsel_pool_opts opts = {.size = sizeof(opts),
					.flags = MORSEL_POOL_CREATE,
					.bytes = (crowd->plan->file_bytes / BENCH_GIB + 2) *
						 BENCH_GIB};
	uint64_t start = bench_now();
	struct morsel_pool *pool;
	int error;

	if (morsel_pool_open(NULL, &opts, &pool) < 0) {
		bench_say("morsel_pool_open: %s", morsel_errormsg());
		return -1;
	}
	error = read_all(crowd, PROBE_IMPORT_FILE, n, morsel_pool_fd(pool), start, ms);
	morsel_pool_close(pool);
	return error;
}

/* One sample: n readers by what. */
static int sample(const struct crowd *crowd, enum probe_what what, unsigned n, double *ms)
{
	if (crowd->cold)
		posix_fadvise(crowd->file, 0, 0, POSIX_FADV_DONTNEED);
	if (what == PROBE_IMPORT_FILE)
		return read_by_import(crowd, n, ms);
	return read_all(crowd, what, n, crowd->file, bench_now(), ms);
}

static void compare_readers(const struct crowd *crowd, struct bench_case *c, unsigned n,
			    enum probe_what theirs)
{
	double ms[2];
	unsigned round;

	bench_say("  %u readers%s", n, crowd->cold ? "" : ", file in the page cache");
	bench_note(c, "File of %.2f GiB, %s.", (double)crowd->plan->file_bytes / BENCH_GIB,
		   crowd->cold ? "dropped from the page cache before every sample"
			       : "in the page cache");
	bench_note(c,
		   "ours: %u fresh processes call morsel_pool_open_fd, morsel_import, morsel_map "
		   "at once and sum every word; creating the pool is included.",
		   n);
	for (round = 0; round < BENCH_PAIRS_MIN; round++) {
		bool theirs_first = round % 2;

		if (sample(crowd, theirs_first ? theirs : PROBE_IMPORT_FILE, n,
			   &ms[theirs_first]) ||
		    sample(crowd, theirs_first ? PROBE_IMPORT_FILE : theirs, n,
			   &ms[!theirs_first])) {
			bench_failed(c, "a reader failed");
			return;
		}
		bench_ours(c, ms[0]);
		bench_theirs(c, ms[1]);
	}
}

static struct bench_case *reader_case(const struct crowd *crowd, const char *name, unsigned n,
				      enum probe_what theirs)
{
	static const char *const numbers[] = {"no",   "one", "two",   "three", "four",
					      "five", "six", "seven", "eight"};
	char baseline[200], baseline_name[64];

	if (theirs == PROBE_READ_FILE) {
		snprintf(baseline_name, sizeof(baseline_name), "%s-plain-reader%s", numbers[n],
			 n > 1 ? "s" : "");
		snprintf(baseline, sizeof(baseline),
			 "%u fresh processes at once: open, read(2) of the whole file into private "
			 "memory, sum of every word",
			 n);
	} else {
		snprintf(baseline_name, sizeof(baseline_name), "%s-mmap-reader%s", numbers[n],
			 n > 1 ? "s" : "");
		snprintf(baseline, sizeof(baseline),
			 "%u fresh processes at once: open, mmap(MAP_SHARED) of the file, sum of "
			 "every word",
			 n);
	}
	return bench_case(crowd->plan->bench, name, "ms", baseline_name, baseline);
}

/* All numbers of readers, and from which number on the import pays. */
static void measure_numbers(const struct crowd *crowd)
{
	struct bench_case *c, *even;
	unsigned at = 0;
	size_t i = TRIED;

	while (i-- > 0) {
		unsigned n = readers_tried[i];
		char name[64];

		snprintf(name, sizeof(name), "end-to-end-%u-reader%s", n, n > 1 ? "s" : "");
		c = reader_case(crowd, name, n, PROBE_READ_FILE);
		compare_readers(crowd, c, n, PROBE_READ_FILE);
		if (bench_median_ours(c) > 0 && bench_median_ours(c) <= bench_median_theirs(c))
			at = n;
		else
			break;
	}
	even = bench_case(crowd->plan->bench, "end-to-end-break-even", "processes", NULL, NULL);
	if (at)
		bench_ours(even, at);
	else
		bench_failed(even, "the import did not pay at %u readers",
			     readers_tried[TRIED - 1]);
	bench_note(even, "The smallest number of readers, of 1, 2, 4 and 8, from which on "
			 "importing is not slower than plain readers.");
}

static void measure_others(struct crowd *crowd)
{
	struct bench_case *c;

	c = reader_case(crowd, "end-to-end-8-readers-vs-mmap", 8, PROBE_MMAP_FILE);
	compare_readers(crowd, c, 8, PROBE_MMAP_FILE);
	crowd->cold = false;
	c = reader_case(crowd, "end-to-end-8-readers-hot", 8, PROBE_READ_FILE);
	compare_readers(crowd, c, 8, PROBE_READ_FILE);
}

void measure_end_to_end(struct plan *plan)
{
	struct crowd crowd = {.plan = plan, .cold = true};
	char missing[256];

	if (!bench_wants(plan->bench, "end-to-end-8-readers") &&
	    !bench_wants(plan->bench, "end-to-end-break-even"))
		return;
	bench_say("end to end: a file of %.2f GiB until up to 8 processes have read it",
		  (double)plan->file_bytes / BENCH_GIB);
	crowd.file = store_make_file(plan->dir, plan->file_bytes, &plan->pattern, &crowd.sum,
				     missing, sizeof(missing));
	if (crowd.file < 0) {
		bench_failed(reader_case(&crowd, "end-to-end-8-readers", 8, PROBE_READ_FILE), "%s",
			     missing);
		return;
	}
	/* It has no name any more: probes open it through the descriptor of this process. */
	snprintf(crowd.path, sizeof(crowd.path), "/proc/%d/fd/%d", (int)getpid(), crowd.file);
	measure_numbers(&crowd);
	measure_others(&crowd);
	close(crowd.file);
}
