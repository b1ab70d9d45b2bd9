/*
 * Mapping an object that is in memory: morsels beside plain mappings. Every sample is a fresh
 * process (probe.h). The two sides of a pair run one after the other, and which goes first
 * alternates.
 *
 * At most two objects exist at a time: the morsel and one baseline.
 */
#include "map.h"

#include "probe.h"
#include "store.h"

#include <stdio.h>
#include <string.h>

struct side {
	const struct store *store;
	uint32_t flags;
	struct probe_result result;
};

static int run_side(struct side *side)
{
	struct probe_request request = {.what = store_probe(side->store->kind),
					.flags = side->flags,
					.bytes = side->store->bytes};

	return probe_run(&request, side->store->fd, &side->result);
}

static int run_pair(unsigned round, struct side *ours, struct side *theirs)
{
	struct side *first = round % 2 ? theirs : ours, *second = round % 2 ? ours : theirs;

	return run_side(first) || run_side(second) ? -1 : 0;
}

static double map_ms(const struct side *side)
{
	return bench_ms(side->result.map_ns + side->result.touch_ns);
}

static double all_ms(const struct side *side)
{
	return map_ms(side) + bench_ms(side->result.read_ns);
}

static double unmap_ms(const struct side *side)
{
	return bench_ms(side->result.unmap_ns);
}

static double table_kb(const struct side *side)
{
	return (double)side->result.table_kb;
}

/* A case and what of the two sides is its sample. */
struct figure {
	struct bench_case *c;
	double (*of)(const struct side *side);
};

static void add_pair(struct figure *figures, size_t count, const struct side *ours,
		     const struct side *theirs)
{
	size_t i;

	for (i = 0; i < count; i++) {
		bench_ours(figures[i].c, figures[i].of(ours));
		bench_theirs(figures[i].c, figures[i].of(theirs));
	}
}

/* All pairs of one comparison; the figures share them. */
static void compare(const struct plan *plan, struct figure *figures, size_t count,
		    const struct store *ours_store, uint32_t ours_flags,
		    const struct store *theirs_store, uint32_t theirs_flags)
{
	struct side ours = {.store = ours_store, .flags = ours_flags | PROBE_SMAPS};
	struct side theirs = {.store = theirs_store, .flags = theirs_flags};
	unsigned round;
	size_t i;

	for (round = 0; round < plan->pairs; round++) {
		if (run_pair(round, &ours, &theirs)) {
			for (i = 0; i < count; i++)
				bench_failed(figures[i].c, "a probe failed: %s%s", ours.result.text,
					     theirs.result.text);
			return;
		}
		add_pair(figures, count, &ours, &theirs);
	}
	for (i = 0; i < count; i++)
		bench_note(figures[i].c, "ours: %.0f %% of the object mapped by huge entries.",
			   100.0 * (double)ours.result.huge_kb * 1024 / (double)ours_store->bytes);
}

static struct bench_case *new_case(const struct plan *plan, const char *name, const char *unit,
				   const char *baseline_name, const char *baseline)
{
	struct bench_case *c = bench_case(plan->bench, name, unit, baseline_name, baseline);

	bench_note(c, "%.2f GiB, distinct numbered pages.", (double)plan->bytes / BENCH_GIB);
	if (plan->scaled[0])
		bench_note(c, "%s", plan->scaled);
	return c;
}

static const char populate_memfd4k[] =
	"fresh process: mmap(MAP_SHARED | MAP_POPULATE) of a memfd of 4 KiB pages, then the first "
	"byte of every GiB";

/* ---- one run, pooled ---- */

static void compare_attached(const struct plan *plan, const struct store *ours,
			     const struct store *theirs)
{
	struct figure attached = {
		new_case(plan, "pooled-6.82g-attached", "ms", "populate-memfd4k", populate_memfd4k),
		map_ms};
	struct figure first = {new_case(plan, "pooled-6.82g-attached-first-map", "ms",
					"populate-memfd4k", populate_memfd4k),
			       map_ms};

	compare(plan, &attached, 1, ours, PROBE_ATTACHED | PROBE_WARM, theirs, PROBE_POPULATE);
	bench_note(attached.c,
		   "ours: fresh process that has the pool open and has mapped another morsel "
		   "before; timed: morsel_open, morsel_map (pooled), first byte of every GiB.");
	compare(plan, &first, 1, ours, PROBE_ATTACHED, theirs, PROBE_POPULATE);
	bench_note(first.c, "the same, but it is the first morsel that the process maps.");
}

static void compare_new_process(const struct plan *plan, const struct store *ours,
				const struct store *theirs)
{
	struct figure figures[] = {
		{new_case(plan, "pooled-6.82g-new-process", "ms", "populate-memfd4k",
			  populate_memfd4k),
		 map_ms},
		{new_case(plan, "unmap-6.82g", "ms", "munmap-memfd4k",
			  "munmap of that mapping after every page has been read"),
		 unmap_ms},
		{new_case(plan, "page-table-kb-per-process", "kB", "memfd4k-page-table-kb",
			  "VmPTE of the process that has mapped the 4 KiB memfd and read it all"),
		 table_kb},
	};

	compare(plan, figures, 3, ours, PROBE_READ, theirs, PROBE_POPULATE | PROBE_READ);
	bench_note(figures[0].c, "ours: morsel_pool_open_fd, morsel_open, morsel_map (pooled), "
				 "first byte of every GiB, in a fresh process.");
	bench_note(figures[1].c, "ours: morsel_view_destroy after every page has been read.");
	bench_note(figures[2].c, "both: VmPTE of the whole process.");
}

static void compare_lazy(const struct plan *plan, const struct store *ours,
			 const struct store *theirs)
{
	struct figure figure = {
		new_case(plan, "pooled-read-all", "ms", "lazy-memfd4k-read-all",
			 "fresh process: mmap(MAP_SHARED) of a memfd of 4 KiB pages, one word "
			 "of every page read and verified"),
		all_ms};

	compare(plan, &figure, 1, ours, PROBE_READ, theirs, PROBE_READ);
	bench_note(figure.c, "ours: fresh process, pool opened, mapped without populating, one "
			     "word of every page read and verified.");
}

static bool wants_small(const struct plan *plan)
{
	static const char *const names[] = {"pooled-6.82g-attached-first-map", "pooled-read-all",
					    "pooled-6.82g-new-process", "unmap-6.82g",
					    "page-table-kb-per-process"};
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (bench_wants(plan->bench, names[i]))
			return true;
	}
	return false;
}

/* The object could not be made: one case says so, and the program fails. */
static void cannot(const struct plan *plan, const char *name, const struct store *store)
{
	bench_failed(new_case(plan, name, "ms", "populate-memfd4k", populate_memfd4k), "%s",
		     store->missing);
}

static void measure_pooled(const struct plan *plan, const struct store *theirs)
{
	struct store ours;

	if (!wants_small(plan))
		return;
	if (store_make(&ours, STORE_MORSEL, plan->bytes, plan->dir, &plan->pattern)) {
		cannot(plan, "pooled-6.82g-attached", &ours);
		return;
	}
	compare_attached(plan, &ours, theirs);
	compare_new_process(plan, &ours, theirs);
	compare_lazy(plan, &ours, theirs);
	store_drop(&ours);
}

/* ---- scattered runs, stitched ---- */

static void measure_stitched(const struct plan *plan, const struct store *theirs)
{
	struct figure figure = {NULL, map_ms};
	struct store ours;

	if (!bench_wants(plan->bench, "stitched-2m-6.82g"))
		return;
	if (store_make(&ours, STORE_SCATTERED, plan->bytes, plan->dir, &plan->pattern)) {
		cannot(plan, "stitched-2m-6.82g", &ours);
		return;
	}
	figure.c = new_case(plan, "stitched-2m-6.82g", "ms", "populate-memfd4k", populate_memfd4k);
	compare(plan, &figure, 1, &ours, PROBE_POPULATE, theirs, PROBE_POPULATE);
	bench_note(figure.c,
		   "ours: morsel_pool_open_fd, morsel_open, morsel_map (stitched, populated), "
		   "first byte of every GiB, in a fresh process; %llu runs.",
		   (unsigned long long)ours.runs);
	if (ours.runs < plan->bytes / HUGE_BYTES / 2)
		bench_failed(figure.c, "the morsel is not scattered: it has %llu runs",
			     (unsigned long long)ours.runs);
	store_drop(&ours);
}

/* ---- against the best that there is ---- */

#define RIVAL_PAIRS_MAX 64

struct rival {
	enum store_kind kind;
	const char *name, *words;
	double ours[RIVAL_PAIRS_MAX], theirs[RIVAL_PAIRS_MAX];
	unsigned pairs;
	char missing[256]; /* why it is not on this machine */
};

static struct rival *new_rivals(size_t *count)
{
#define READ_ALL ", one word of every page read and verified"
	static struct rival rivals[] = {
		{.kind = STORE_MEMFD_HUGE,
		 .name = "populate-memfd-huge",
		 .words = "fresh process: mmap(MAP_SHARED | MAP_POPULATE) of a memfd of huge "
			  "pages (MADV_COLLAPSE)" READ_ALL},
		{.kind = STORE_HUGETLB,
		 .name = "populate-hugetlb2m",
		 .words = "fresh process: mmap(MAP_SHARED | MAP_POPULATE) of a memfd of 2 MiB "
			  "hugetlb pages" READ_ALL},
		{.kind = STORE_FILE,
		 .name = "populate-hot-file",
		 .words = "fresh process: mmap(MAP_SHARED | MAP_POPULATE) of a file on disk that "
			  "is in the page cache" READ_ALL},
	};

	*count = sizeof(rivals) / sizeof(rivals[0]);
	return rivals;
}

/* The pairs with one rival; false if a probe failed. A rival that is not there has no pairs. */
static bool meet(const struct plan *plan, struct rival *rival, const struct store *ours_store)
{
	struct side ours = {.store = ours_store, .flags = PROBE_POPULATE | PROBE_READ};
	struct store theirs_store;
	struct side theirs = {.store = &theirs_store, .flags = PROBE_POPULATE | PROBE_READ};
	unsigned pairs = plan->pairs < RIVAL_PAIRS_MAX ? plan->pairs : RIVAL_PAIRS_MAX;
	bool ok = true;

	if (store_make(&theirs_store, rival->kind, plan->bytes, plan->dir, &plan->pattern)) {
		snprintf(rival->missing, sizeof(rival->missing), "%s", theirs_store.missing);
		bench_say("not on this machine: %s", rival->missing);
		return true;
	}
	for (rival->pairs = 0; ok && rival->pairs < pairs;) {
		ok = !run_pair(rival->pairs, &ours, &theirs);
		if (ok) {
			rival->ours[rival->pairs] = all_ms(&ours);
			rival->theirs[rival->pairs++] = all_ms(&theirs);
		}
	}
	store_drop(&theirs_store);
	return ok;
}

static struct rival *fastest(struct rival *rivals, size_t count)
{
	struct rival *best = NULL;
	size_t i;

	for (i = 0; i < count; i++) {
		if (rivals[i].pairs && (!best || bench_median(rivals[i].theirs, rivals[i].pairs) <
							 bench_median(best->theirs, best->pairs)))
			best = &rivals[i];
	}
	return best;
}

static void report_rival(const struct plan *plan, const struct rival *rival, bool best)
{
	struct bench_case *c;
	char name[64];
	unsigned i;

	snprintf(name, sizeof(name), "pooled-read-all-%s%s", best ? "best" : "vs-",
		 best ? "" : rival->name);
	c = new_case(plan, name, "ms", best ? "best-existing-baseline" : rival->name, rival->words);
	for (i = 0; i < rival->pairs; i++) {
		bench_ours(c, rival->ours[i]);
		bench_theirs(c, rival->theirs[i]);
	}
	bench_note(c, "ours: fresh process, pool opened, mapped pooled and populated, one word of "
		      "every page read and verified.");
	if (best)
		bench_note(c, "The best baseline of this machine is %s.", rival->name);
}

static void report_rivals(const struct plan *plan, struct rival *rivals, size_t count)
{
	struct rival *best = fastest(rivals, count);
	size_t i;

	if (!best) {
		bench_failed(new_case(plan, "pooled-read-all-best", "ms", "best-existing-baseline",
				      "none could be made"),
			     "no baseline could be made: %s", rivals[0].missing);
		return;
	}
	report_rival(plan, best, true);
	for (i = 0; i < count; i++) {
		if (rivals[i].pairs && &rivals[i] != best)
			report_rival(plan, &rivals[i], false);
	}
}

static void measure_best(const struct plan *plan)
{
	struct store ours;
	struct rival *rivals;
	size_t count, i;
	bool ok = true;

	if (!bench_wants(plan->bench, "pooled-read-all-best"))
		return;
	if (store_make(&ours, STORE_MORSEL, plan->bytes, plan->dir, &plan->pattern)) {
		cannot(plan, "pooled-read-all-best", &ours);
		return;
	}
	rivals = new_rivals(&count);
	for (i = 0; ok && i < count; i++)
		ok = meet(plan, &rivals[i], &ours);
	store_drop(&ours);
	if (ok)
		report_rivals(plan, rivals, count);
	else
		bench_failed(new_case(plan, "pooled-read-all-best", "ms", "best-existing-baseline",
				      rivals[i - 1].words),
			     "a probe failed");
}

void measure_mapping(struct plan *plan)
{
	struct store theirs;

	if (wants_small(plan) || bench_wants(plan->bench, "stitched-2m-6.82g")) {
		if (store_make(&theirs, STORE_MEMFD, plan->bytes, plan->dir, &plan->pattern)) {
			cannot(plan, "pooled-6.82g-attached", &theirs);
			return;
		}
		measure_stitched(plan, &theirs);
		measure_pooled(plan, &theirs);
		store_drop(&theirs);
	}
	measure_best(plan);
}
