/*
 * Bringing evicted pages back: gather, load, copy in, unlock. See bring.h, and steps 7 and 8 at the
 * top of retarget.c.
 *
 * Pages that turn out to be there already (a filler died, or a relative of a clone was quicker) are
 * kept as they are, and count as written: what is on the swap target may be older.
 */
#include "object/bring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "object/internal.h"
#include "object/retarget_probe.h"
#include "view/pager.h"

/* ---- work areas ---- */

struct areas {
	struct mrs_part part;
	struct mrs_bring *area; /* one per intent */
};

#define AREAS_BYTES (MRS_INTENTS_PER_SLOT * sizeof(struct mrs_bring))

static void stop_areas(struct mrs_part *part)
{
	struct areas *areas = (struct areas *)part;

	munmap(areas->area, AREAS_BYTES);
	free(areas);
}

static int make_areas(struct morsel_pool *pool, struct mrs_part **part)
{
	struct areas *areas = calloc(1, sizeof(*areas));
	void *memory = areas ? mmap(NULL, AREAS_BYTES, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
			     : MAP_FAILED;

	if (memory == MAP_FAILED) {
		free(areas);
		return mrs_fail(-ENOMEM, "no memory to bring evicted pages back");
	}
	/* A child of fork serves no faults; content of a pool that is not to be dumped stays out.
	 */
	madvise(memory, AREAS_BYTES, MADV_DONTFORK);
	if (mrs_pool_is_no_dump(pool))
		madvise(memory, AREAS_BYTES, MADV_DONTDUMP);
	areas->part = (struct mrs_part){.pool = pool, .stop = stop_areas};
	areas->area = memory;
	*part = &areas->part;
	return 0;
}

int mrs_bring_prepare(struct morsel_pool *pool)
{
	struct mrs_part *part;

	return mrs_pool_part_make(pool, MRS_PART_BRING, make_areas, &part);
}

int mrs_bring_area(const struct mrs_retarget *batch, struct mrs_bring **area)
{
	struct morsel_pool *pool = batch->morsel->pool;
	int rc = mrs_bring_prepare(pool);

	if (rc)
		return rc;
	*area = &((struct areas *)mrs_pool_part(pool, MRS_PART_BRING))
			 ->area[batch->txn.index % MRS_INTENTS_PER_SLOT];
	(*area)->count = 0;
	return 0;
}

bool mrs_bring_in_signal(struct morsel_pool *pool)
{
	return mrs_pool_faults(pool) == MORSEL_FAULTS_SIGBUS;
}

/* ---- gather ---- */

static void add_page(struct mrs_bring *area, struct morsel_pool *pool, unsigned leaf,
		     uint64_t number, uint64_t frame)
{
	unsigned k = area->count++;
	uint32_t epoch;

	area->leaf[k] = (uint16_t)leaf;
	area->number[k] = number;
	area->frame[k] = frame;
	area->memory[k] = area->data[k];
	area->page[k].slot = 0;
	area->page[k].rc = 0;
	/* An evicted page without a slot is lost: slot 0 cannot be read. */
	if (!mrs_swap_kept(pool, frame, &area->page[k], &epoch))
		mrs_log(MRS_LOG_ERROR, "%s is damaged: frame %llu is evicted to nowhere",
			mrs_pool_path(pool), (unsigned long long)frame);
}

static void add_leaf(struct mrs_bring *area, const struct mrs_retarget *batch, unsigned i)
{
	unsigned pages = 1u << 9 * batch->level;
	uint64_t number = batch->page + (uint64_t)i * pages;
	uint64_t frame = mrs_entry_frame(batch->before[i]);

	for (unsigned k = 0; k < pages; k++)
		add_page(area, batch->morsel->pool, i, number + k, frame + k);
}

/* ---- load ---- */

/* The first error that is not of one page; each page's own is in its rc. */
static int load(struct mrs_bring *area, const struct mrs_retarget *batch)
{
	struct morsel_pool *pool = batch->morsel->pool;
	struct mrs_swap *swap = mrs_swap_of(pool);

	if (!swap)
		return -EIO;
	MRS_PROBE_LEAVES("bring.loading", batch, area->leaf, area->count);
	if (area->count > 1 && !mrs_bring_in_signal(pool)) {
		mrs_swap_load(swap, area->page, area->memory, area->count);
		return 0;
	}
	for (unsigned k = 0; k < area->count; k++)
		mrs_swap_load_one(swap, &area->page[k], area->memory[k]);
	return 0;
}

static bool all_loaded(const struct mrs_bring *area)
{
	for (unsigned k = 0; k < area->count; k++)
		if (area->page[k].rc)
			return false;
	return true;
}

/* ---- copy in ---- */

/* How many pages from k on go in by one call: consecutive, loaded, and protected alike. */
static unsigned stretch(const struct mrs_bring *area, unsigned k, uint64_t dirty)
{
	unsigned n = 1;

	if (area->number[k] == dirty)
		return 1;
	while (k + n < area->count && !area->page[k + n].rc &&
	       area->number[k + n] == area->number[k] + n && area->number[k + n] != dirty)
		n++;
	return n;
}

/* One call, again where memory was short for a moment. How many pages were there; -errno. */
static int copy_in(struct morsel_pool *pool, const struct mrs_window *window, uint64_t page,
		   const void *data, uint64_t pages, bool protect)
{
	int rc = -ENOMEM;

	for (unsigned tries = 0; tries < 3 && (rc == -ENOMEM || rc == -ENOSPC); tries++)
		rc = mrs_uffd_copy(window->fd, (void *)(uintptr_t)mrs_window_at(window, page), data,
				   pages * MRS_PAGE_BYTES, protect);
	if (rc != -ENOENT && rc != -ESRCH)
		return rc;
	/*
	 * The view is being unmapped, or the range was invalidated and may come back. Who began to
	 * wait before that waits on the mapping that was, and nothing else would wake it.
	 */
	mrs_uffd_wake(window->fd, mrs_window_at(window, page), pages * MRS_PAGE_BYTES);
	return -ESTALE;
}

/*
 * What the window does not show (an invalidated range, or it is being unmapped) goes in through a
 * page of address space that nobody knows: it may be part of a huge page that somebody waits for.
 */
static int copy_beside(struct mrs_bring *area, const struct mrs_retarget *batch,
		       const struct mrs_window *window, unsigned k)
{
	unsigned count = area->count; /* the next call begins to gather anew */
	struct mrs_window beside;
	int rc = mrs_window_beside(batch, window, area->number[k], area->frame[k], &beside);

	area->count = count;
	if (!rc)
		rc = copy_in(batch->morsel->pool, &beside, area->number[k], area->data[k], 1,
			     false);
	mrs_window_beside_end(&beside);
	MRS_PROBE("bring.beside");
	return rc;
}

/* Page k and those that go in with it, *n of them; how many were there. */
static int copy_stretch(struct mrs_bring *area, const struct mrs_retarget *batch,
			const struct mrs_window *window, unsigned k, uint64_t dirty, unsigned *n)
{
	struct morsel_pool *pool = batch->morsel->pool;
	bool protect = window->writable && area->number[k] != dirty;
	int rc;

	*n = stretch(area, k, dirty);
	rc = copy_in(pool, window, area->number[k], area->data[k], *n, protect);
	if (rc == -ESTALE && *n > 1) {
		*n = 1;
		rc = copy_in(pool, window, area->number[k], area->data[k], *n, protect);
	}
	return rc == -ESTALE ? copy_beside(area, batch, window, k) : rc;
}

/* Bits of leaves some page of which was there already go into there. */
static int copy_all(struct mrs_bring *area, const struct mrs_retarget *batch,
		    const struct mrs_window *window, uint64_t dirty, uint64_t there[8])
{
	for (unsigned k = 0; k < area->count;) {
		unsigned n = 1;
		int rc;

		if (!area->page[k].rc) {
			rc = copy_stretch(area, batch, window, k, dirty, &n);
			if (rc < 0)
				return rc;
			for (unsigned j = k; rc && j < k + n; j++)
				there[area->leaf[j] / 64] |= 1ull << area->leaf[j] % 64;
		}
		MRS_PROBE_LEAVES("bring.copied", batch, &area->leaf[k], n);
		k += n;
	}
	return 0;
}

/* ---- unlock ---- */

static uint64_t in_state(uint64_t entry, enum mrs_entry_state state)
{
	return (entry & ~(15ull << MRS_ENTRY_STATE_SHIFT)) | (uint64_t)state
								     << MRS_ENTRY_STATE_SHIFT;
}

static void count(struct morsel_pool *pool, enum mrs_counter which, uint64_t n)
{
	if (n)
		mrs_fetch_add(&mrs_pool_state(pool)->count[which], n);
}

static void poison(struct mrs_retarget *batch, const struct mrs_bring *area, unsigned k)
{
	mrs_log(MRS_LOG_ERROR, "%s: page %llu of a morsel is lost: its content cannot be read (%s)",
		mrs_pool_path(batch->morsel->pool), (unsigned long long)area->number[k],
		area->page[k].rc == -EBADMSG ? "wrong checksum" : "error of the swap target");
	count(batch->morsel->pool, MRS_COUNT_POISONED, 1);
	mrs_retarget_set(batch, area->leaf[k],
			 in_state(batch->before[area->leaf[k]], MRS_ENTRY_POISONED));
}

/* Its slot may be needed no longer than the page is away: of a target that is being emptied. */
static bool is_leaving(struct mrs_retarget *batch, const struct mrs_bring *area, unsigned k)
{
	if (!mrs_swap_is_leaving(batch->morsel->pool, area->page[k].slot))
		return false;
	mrs_swap_forget(&batch->txn, area->frame[k]);
	return true;
}

static unsigned unlock_all(struct mrs_bring *area, struct mrs_retarget *batch, uint64_t dirty,
			   const uint64_t there[8])
{
	unsigned pages = 1u << 9 * batch->level, filled = 0;

	for (unsigned k = 0; k < area->count; k += pages) {
		unsigned leaf = area->leaf[k];
		uint64_t entry = in_state(batch->before[leaf], MRS_ENTRY_MAPPED);
		bool written = there[leaf / 64] >> leaf % 64 & 1;

		if (area->page[k].rc) {
			poison(batch, area, k);
			continue;
		}
		for (unsigned j = k; j < k + pages; j++)
			written |= is_leaving(batch, area, j) || area->number[j] == dirty;
		mrs_retarget_set(batch, leaf, entry | (written ? MRS_ENTRY_DIRTY : 0));
		filled += pages;
	}
	return filled;
}

/* ---- together ---- */

struct wanted {
	uint64_t from, end; /* pages */
	bool whole;	    /* leaves of 512 pages stay such */
	uint64_t dirty;
};

static bool is_wanted(const struct mrs_retarget *batch, const struct wanted *wanted, unsigned i)
{
	uint64_t pages = 1ull << 9 * batch->level, first = batch->page + i * pages;

	return mrs_retarget_has(batch, i) &&
	       mrs_entry_state(batch->before[i]) == MRS_ENTRY_EVICTED && first < wanted->end &&
	       first + pages > wanted->from;
}

static void count_in(struct mrs_retarget *batch, unsigned filled)
{
	struct mrs_cell_coherence *coherence = mrs_morsel_coherence(batch->morsel);

	if (!filled)
		return;
	count(batch->morsel->pool, MRS_COUNT_PAGES_IN, filled);
	if (coherence)
		mrs_fetch_sub(&coherence->evicted, filled);
}

static int bring_added(struct mrs_bring *area, struct mrs_retarget *batch,
		       const struct mrs_window *window, uint64_t dirty)
{
	uint64_t there[8] = {0};
	unsigned filled;
	int rc = copy_all(area, batch, window, dirty, there);

	if (rc)
		return rc;
	filled = unlock_all(area, batch, dirty, there);
	count_in(batch, filled);
	return (int)filled;
}

/* Leaves of one page: what is wanted of them. */
static int bring_small(struct mrs_retarget *batch, const struct mrs_window *window,
		       const struct wanted *wanted)
{
	struct mrs_bring *area;
	int rc = mrs_bring_area(batch, &area);

	if (rc)
		return rc;
	for (unsigned i = 0; i < batch->count; i++)
		if (is_wanted(batch, wanted, i) && mrs_window_holds(window, batch->page + i, 1))
			add_leaf(area, batch, i);
	if (!area->count)
		return 0;
	rc = load(area, batch);
	return rc ? rc : bring_added(area, batch, window, wanted->dirty);
}

/* One leaf of 512 pages as it is; 0 if one of its pages cannot be read. */
static int bring_huge(struct mrs_retarget *batch, const struct mrs_window *window, unsigned i,
		      uint64_t dirty)
{
	struct mrs_bring *area;
	int rc = mrs_bring_area(batch, &area);

	if (rc)
		return rc;
	add_leaf(area, batch, i);
	rc = load(area, batch);
	if (rc || !all_loaded(area))
		return rc;
	return bring_added(area, batch, window, dirty);
}

static void drop_others(struct mrs_retarget *batch, unsigned except)
{
	for (unsigned i = 0; i < batch->count; i++)
		if (i != except && mrs_retarget_has(batch, i))
			mrs_retarget_drop(batch, i);
}

static int bring_large(struct mrs_retarget *batch, const struct mrs_window *window,
		       const struct wanted *wanted)
{
	int filled = 0, rc;

	for (unsigned i = 0; i < batch->count; i++) {
		uint64_t first = batch->page + (uint64_t)i * MRS_BRING_PAGES;

		if (!is_wanted(batch, wanted, i))
			continue;
		rc = wanted->whole && mrs_window_holds(window, first, MRS_BRING_PAGES)
			     ? bring_huge(batch, window, i, wanted->dirty)
			     : 0;
		if (rc < 0)
			return rc;
		filled += rc;
		if (rc)
			continue;
		drop_others(batch, i);
		rc = mrs_retarget_split(batch, i);
		if (!rc)
			rc = bring_small(batch, window, wanted);
		return rc < 0 ? rc : filled + rc;
	}
	return filled;
}

int mrs_bring_evicted(struct mrs_retarget *batch, const struct mrs_window *window, uint64_t from,
		      uint64_t end, bool whole, uint64_t dirty)
{
	const struct wanted wanted = {.from = from, .end = end, .whole = whole, .dirty = dirty};

	return batch->level ? bring_large(batch, window, &wanted)
			    : bring_small(batch, window, &wanted);
}

/* ---- pages that never were evicted ---- */

bool mrs_bring_is_resident(struct morsel_pool *pool, uint64_t frame)
{
	unsigned char resident = 0;

	/* Asks without touching: a touch of the metadata mapping would make a page. */
	return !mincore(mrs_pool_at(pool, frame, 1), MRS_PAGE_BYTES, &resident) && resident & 1;
}

int mrs_bring_zero(struct morsel_pool *pool, const struct mrs_window *window, uint64_t page,
		   uint64_t frame, bool protect)
{
	static const unsigned char zeros[4096] __attribute__((aligned(4096)));

	if (mrs_bring_is_resident(pool, frame)) {
		if (!mrs_bring_in_signal(pool))
			mrs_uffd_wake(window->fd, mrs_window_at(window, page), MRS_PAGE_BYTES);
		return 1;
	}
	return copy_in(pool, window, page, zeros, 1, protect);
}
