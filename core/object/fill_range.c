/*
 * Ranges that are wanted resident: for grants and prefetches. See retarget.h and fault.c.
 *
 * Batch by batch: what is evicted is brought back; with write, what is mapped becomes DIRTY and its
 * protection is lifted, after relatives of a clone have been given what is theirs. A leaf that
 * somebody else has locked is waited for outside any transition, and looked at again.
 *
 * A window that has not followed a move of its morsel may show the number that a page has left:
 * what would be copied in there would be lost. Such a window follows first, leaf by leaf, as its
 * faults do.
 */
#include <errno.h>
#include <time.h>

#include "object/bring.h"
#include "object/internal.h"
#include "object/retarget_probe.h"
#include "object/share.h"
#include "view/pager.h"

#define ROOM_NS 200000000ll

struct range {
	struct morsel *morsel;
	const struct mrs_window *window;
	bool write;
};

/* Through a window that only reads (a device's) there is no protection to lift: DIRTY is all. */
static bool want(void *ctx, uint64_t page, uint64_t entry)
{
	const struct range *r = ctx;

	return mrs_entry_state(entry) == MRS_ENTRY_EVICTED ||
	       (r->write && mrs_entry_state(entry) == MRS_ENTRY_MAPPED &&
		(r->window->writable || !(entry & MRS_ENTRY_DIRTY)));
}

static uint64_t frozen_by(const struct range *r)
{
	struct mrs_cell_coherence *coherence = mrs_morsel_coherence(r->morsel);

	return coherence ? mrs_load_acquire(&coherence->frozen) : 0;
}

/*
 * Who has pinned pages to write them waits here for a clone that is being made. One that begins
 * later sees the pin: each looks, after a full fence, at what the other has set before it.
 */
static void await_thaw(const struct range *r)
{
	uint64_t frozen;

	while ((frozen = frozen_by(r)))
		mrs_pool_wait_word(r->morsel->pool, &mrs_morsel_coherence(r->morsel)->frozen,
				   frozen);
}

/* All locked MAPPED leaves: DIRTY, then one call per stretch of them, then unlocked. */
static int open_stretch(const struct range *r, struct mrs_retarget *batch, unsigned i, unsigned end)
{
	const struct mrs_window *w = r->window;
	unsigned shift = 9 * batch->level;
	uint64_t from = mrs_max(batch->page + ((uint64_t)i << shift), w->first);
	uint64_t to = mrs_min(batch->page + ((uint64_t)end << shift), w->first + w->pages);
	int rc = 0;

	for (unsigned k = i; k < end; k++)
		mrs_retarget_dirty(batch, k);
	for (unsigned k = i; k < end; k++)
		MRS_PROBE_LEAF("fill.range.lifting", batch, k, batch->before[k]);
	if (from < to && w->writable)
		rc = mrs_uffd_protect(w->fd, mrs_window_at(w, from), (to - from) * MRS_PAGE_BYTES,
				      false);
	for (unsigned k = i; k < end; k++)
		mrs_retarget_drop(batch, k);
	return rc;
}

static bool is_mapped(const struct mrs_retarget *batch, unsigned i)
{
	return mrs_retarget_has(batch, i) && mrs_entry_state(batch->before[i]) == MRS_ENTRY_MAPPED;
}

static int open_for_writing(const struct range *r, struct mrs_retarget *batch)
{
	for (unsigned i = 0; i < batch->count; i++) {
		unsigned end = i;
		int rc;

		while (end < batch->count && is_mapped(batch, end))
			end++;
		rc = end > i ? open_stretch(r, batch, i, end) : 0;
		if (rc)
			return rc;
		if (end > i)
			i = end - 1;
	}
	return 0;
}

static void drop_rest(struct mrs_retarget *batch)
{
	for (unsigned i = 0; i < batch->count; i++)
		if (mrs_retarget_has(batch, i))
			mrs_retarget_drop(batch, i);
	mrs_retarget_end(batch);
}

/*
 * The first page of [page, end) that is not as it is wanted; end if there is none. Waits for a leaf
 * that is locked. -EIO in words if a page is lost.
 */
static int look(const struct range *r, uint64_t page, uint64_t end, uint64_t *first)
{
	while (page < end) {
		struct mrs_leaf leaf;
		int rc = mrs_table_leaf(&r->morsel->table, page, &leaf);

		if (rc)
			return rc;
		if (leaf.place && mrs_entry_lock(leaf.entry)) {
			mrs_entry_wait(r->morsel->pool, leaf.place, leaf.entry);
			continue;
		}
		if (mrs_entry_state(leaf.entry) == MRS_ENTRY_POISONED)
			return mrs_fail(-EIO,
					"page %llu of the morsel is lost: it could not be read "
					"back from the swap target",
					(unsigned long long)page);
		if (mrs_entry_state(leaf.entry) == MRS_ENTRY_EVICTED ||
		    (r->write && mrs_entry_state(leaf.entry) == MRS_ENTRY_MAPPED &&
		     !(leaf.entry & MRS_ENTRY_DIRTY)))
			break;
		page = leaf.place ? leaf.page + (1ull << 9 * leaf.level) : page + 1;
	}
	*first = mrs_min(page, end);
	return 0;
}

static int in_words(struct morsel *morsel, int rc)
{
	switch (rc) {
	case -ENOMEM:
		return mrs_fail(rc, "no memory to bring evicted pages of %s back",
				mrs_pool_path(morsel->pool));
	case -EIO:
		return mrs_fail(rc,
				"evicted pages of %s are on a swap target that this process "
				"cannot use",
				mrs_pool_path(morsel->pool));
	case -ESTALE:
		return mrs_fail(-EINVAL, "the view was unmapped meanwhile");
	default:
		return rc;
	}
}

static bool is_stale(const struct range *r)
{
	return mrs_window_is_stale(r->morsel, r->window);
}

/* The window shows what the table says; what is evicted comes back. Lost pages: look() tells. */
static int follow(const struct range *r, uint64_t page, uint64_t end)
{
	struct timespec pause = {.tv_nsec = 1000000};
	struct mrs_leaf leaf;
	int rc;

	while (page < end) {
		rc = mrs_fault(r->morsel, r->window, page, MRS_FAULT_MISSING);
		if (rc == -EAGAIN) {
			nanosleep(&pause, NULL); /* the morsel's end is undecided */
			continue;
		}
		if (rc && rc != -EIO && rc != -ERANGE)
			return rc;
		rc = mrs_table_leaf(&r->morsel->table, page, &leaf);
		if (rc)
			return rc;
		page = leaf.place ? leaf.page + (1ull << 9 * leaf.level) : page + 1;
	}
	return 0;
}

/* What can be had of [page, end) at once; *next is where to go on. */
static int bring_locked(const struct range *r, uint64_t page, uint64_t end, uint64_t *next)
{
	struct mrs_retarget batch;
	uint64_t frozen = 0;
	int rc = mrs_retarget_begin(r->morsel, MRS_RETARGET_FILL, page, end - page, want, (void *)r,
				    &batch, next);

	if (rc <= 0)
		return rc;
	if (r->write)
		frozen = frozen_by(r);
	if (!frozen) {
		/* Under the locks: what moved before them has been counted. */
		rc = is_stale(r)
			     ? 0
			     : mrs_bring_evicted(&batch, r->window, page, end, true, UINT64_MAX);
		if (rc >= 0 && r->write)
			rc = open_for_writing(r, &batch);
	}
	drop_rest(&batch);
	if (frozen)
		mrs_pool_wait_word(r->morsel->pool, &mrs_morsel_coherence(r->morsel)->frozen,
				   frozen);
	return in_words(r->morsel, mrs_min(rc, 0));
}

static int bring_some(const struct range *r, uint64_t page, uint64_t end, uint64_t *next)
{
	int rc;

	if (!is_stale(r))
		return bring_locked(r, page, end, next);
	*next = end = mrs_min(end, page + MRS_BRING_PAGES);
	rc = follow(r, page, end);
	if (rc)
		return in_words(r->morsel, rc);
	/* A window for reading has not made them DIRTY. */
	return r->write ? bring_locked(r, page, end, next) : 0;
}

static int bring_all(const struct range *r, uint64_t page, uint64_t end)
{
	int64_t wait = ROOM_NS;

	while (page < end) {
		uint64_t next;
		int rc;

		if (mrs_load_relaxed(&mrs_pool_state(r->morsel->pool)->budget_frames) &&
		    mrs_evict_make_room(r->morsel->pool, mrs_min(end - page, 512), wait))
			wait = 0; /* nothing can go: not asked for again and again */
		rc = bring_some(r, page, end, &next);
		if (!rc)
			rc = look(r, page, mrs_min(next, end), &page);
		if (rc)
			return rc;
	}
	return 0;
}

int mrs_fill_range(struct morsel *morsel, const struct mrs_window *window, uint64_t page,
		   uint64_t pages, bool write)
{
	struct range r = {.morsel = morsel, .window = window};
	int rc = bring_all(&r, page, page + pages);

	if (rc || !write)
		return rc;
	await_thaw(&r);
	rc = mrs_share_break(morsel, page, pages);
	if (rc)
		return rc;
	r.write = true;
	return bring_all(&r, page, page + pages);
}
