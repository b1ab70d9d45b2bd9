/*
 * Faults: one touch of a view that the kernel could not serve, and ranges that are wanted at once.
 *
 * Everything happens under the leaf's lock, after a new look at the entry (retarget.c, 6 to 8):
 *
 *	missing		EVICTED	  brought back, with its neighbours
 *			MAPPED	  a peer was quicker: wake; or its memory was given back: zeros
 *			POISONED  -EIO
 *	write-protected MAPPED	  DIRTY, then the protection of the own view is lifted
 *
 * Pages that a relative of a clone has too are brought back as for reading; the write is broken off
 * to a page of one's own by share.h. While a clone is being made (frozen) nothing becomes writable.
 *
 * A page that is not there for an instant (a shrink that is undone) is -EAGAIN, not -ERANGE.
 *
 * Neighbours: a fault that begins where the last one of its stream ended fetches ahead, twice as
 * much each time; one near the last fetches what is around it; one elsewhere fetches less and less.
 * Advice decides where there is any. Neighbours stay protected, and so are clean when they go.
 *
 * Async-signal-safe: no lock of another library, no stdio; the batch (4 KiB) is on the stack, pages
 * are in the work area of the intent.
 */
#include <errno.h>

#include "base/trace.h"
#include "object/bring.h"
#include "object/internal.h"
#include "object/retarget_probe.h"
#include "object/share.h"
#include "view/pager.h"

#define ROOM_NS	       1000000000ll
#define AROUND_PAGES   16u
#define AHEAD_MAX      512u
#define NEAR_PAGES     64u
#define STREAMS	       256u
#define STREAM_PAGES   13 /* log2 of the pages that one stream's word is for */
#define STREAM_SIZE_AT 48

struct touch {
	struct morsel *morsel;
	const struct mrs_window *window;
	uint64_t page;
	bool write;
	bool try;	    /* no waiting for leaves */
	uint64_t from, end; /* pages that are fetched */
};

static void count(const struct touch *t, enum mrs_counter which, uint64_t n)
{
	mrs_fetch_add(&mrs_pool_state(t->morsel->pool)->count[which], n);
}

/* ---- neighbours ---- */

/* Where the last fetch of a stream ended, and how many pages it was; a hint, races do no harm. */
static uint64_t streams[STREAMS];

static uint64_t *stream_of(const struct touch *t)
{
	uint64_t key = (t->window->address >> MRS_PAGE_SHIFT) + (t->page >> STREAM_PAGES);

	return &streams[(key * 0x9e3779b97f4a7c15ull) >> 56];
}

/* How many pages are fetched, and with ahead from the page on. */
static unsigned fetch_size(const struct touch *t, bool *ahead)
{
	uint64_t *word = stream_of(t), last = mrs_load_relaxed(word);
	uint64_t end = last & ((1ull << STREAM_SIZE_AT) - 1), far;
	unsigned size = (unsigned)(last >> STREAM_SIZE_AT);

	*ahead = size && t->page == end;
	if (*ahead)
		return mrs_min(2 * size, AHEAD_MAX);
	far = t->page > end ? t->page - end : end - t->page;
	if (!size || far <= NEAR_PAGES)
		return AROUND_PAGES;
	return mrs_max(size / 4, 1u);
}

static void plan(struct touch *t)
{
	struct mrs_cell_coherence *coherence = mrs_morsel_coherence(t->morsel);
	uint64_t advice = coherence ? mrs_load_relaxed(&coherence->advice) : 0;
	uint64_t block = mrs_round_down(t->page, MRS_BRING_PAGES);
	bool ahead = true;
	unsigned size;

	switch (advice) {
	case MORSEL_ADVICE_RANDOM:
		size = 1;
		break;
	case MORSEL_ADVICE_SEQUENTIAL:
		size = AHEAD_MAX;
		break;
	default:
		size = fetch_size(t, &ahead);
	}
	t->from = ahead ? t->page : mrs_round_down(t->page, mrs_max(size, 1u));
	t->end = mrs_min(t->from + size, block + MRS_BRING_PAGES);
	mrs_store_relaxed(stream_of(t), (t->end & ((1ull << STREAM_SIZE_AT) - 1)) |
						(uint64_t)size << STREAM_SIZE_AT);
}

/* ---- locking ---- */

static bool want(void *ctx, uint64_t page, uint64_t entry)
{
	const struct touch *t = ctx;
	uint64_t pages = 1ull << 9 * mrs_entry_level(entry);

	return mrs_entry_state(entry) == MRS_ENTRY_EVICTED ||
	       (t->page >= page && t->page < page + pages);
}

static unsigned leaf_of(const struct mrs_retarget *batch, uint64_t page)
{
	return (unsigned)((page - batch->page) >> 9 * batch->level);
}

static bool has_page(const struct mrs_retarget *batch, uint64_t page)
{
	return page >= batch->page && leaf_of(batch, page) < batch->count &&
	       mrs_retarget_has(batch, leaf_of(batch, page));
}

/* The page's leaf is locked by somebody, or was a moment ago: -EAGAIN; there is none: -ERANGE. */
static int why_not(const struct touch *t)
{
	uint64_t state = mrs_load_acquire(&t->morsel->record->state);
	struct mrs_leaf leaf;
	int rc = mrs_table_leaf(&t->morsel->table, t->page, &leaf);

	if (rc)
		return rc;
	if (mrs_entry_state(leaf.entry) == MRS_ENTRY_EMPTY ||
	    t->page >= mrs_morsel_pages(t->morsel) || mrs_state_of(state) == MRS_RECORD_FREEING)
		return -ERANGE;
	return -EAGAIN;
}

/* Locks the page's leaf, and of its neighbours what can be had. 0; -EAGAIN; -ERANGE. */
static int lock_leaves(const struct touch *t, enum mrs_retarget_kind kind,
		       struct mrs_retarget *batch)
{
	uint64_t next;
	int rc = mrs_retarget_begin(t->morsel, kind, t->from, t->end - t->from, want, (void *)t,
				    batch, &next);

	if (rc < 0)
		return rc;
	if (rc > 0 && has_page(batch, t->page))
		return 0;
	if (rc > 0)
		mrs_retarget_abort(batch);
	if (t->try)
		return why_not(t);
	rc = mrs_retarget_one(t->morsel, kind, t->page, batch);
	return rc == -ENOENT ? -ERANGE : rc;
}

/* ---- what becomes writable ---- */

/* A clone is being made: 0, or the word to wait for. After fence B of the lock. */
static uint64_t frozen_by(const struct touch *t)
{
	struct mrs_cell_coherence *coherence = mrs_morsel_coherence(t->morsel);

	return coherence ? mrs_load_acquire(&coherence->frozen) : 0;
}

static int await_thaw(const struct touch *t, uint64_t by)
{
	struct mrs_cell_coherence *coherence = mrs_morsel_coherence(t->morsel);

	if (!t->try && by)
		mrs_pool_wait_word(t->morsel->pool, &coherence->frozen, by);
	return -EAGAIN;
}

/*
 * After frozen_by() and under the lock: retarget.c, 5. The way must still end at the leaf that is
 * locked: else another thread has broken the page off meanwhile, in a table of the morsel's own,
 * and what the view shows until it follows is the relatives'.
 */
static bool is_shared(const struct touch *t, const struct mrs_retarget *batch)
{
	struct mrs_leaf now;

	if (!mrs_share_is_any(t->morsel->pool) || mrs_table_leaf(&t->morsel->table, t->page, &now))
		return false;
	return now.shared || now.place != &batch->entries[leaf_of(batch, t->page)];
}

/* The part of a leaf that the window shows becomes writable; it is DIRTY, and locked. */
static int lift(const struct touch *t, const struct mrs_retarget *batch, unsigned i)
{
	const struct mrs_window *w = t->window;
	uint64_t pages = 1ull << 9 * batch->level, first = batch->page + i * pages;
	uint64_t from = mrs_max(first, w->first);
	uint64_t end = mrs_min(first + pages, w->first + w->pages);
	int rc;

	MRS_PROBE_LEAF("fault.lifting", batch, i, batch->before[i]);
	rc = mrs_uffd_protect(w->fd, mrs_window_at(w, from), (end - from) * MRS_PAGE_BYTES, false);
	if (rc != -ENOENT && rc != -ESRCH)
		return rc;
	/* It is being unmapped, or was invalidated and may come back: who waits touches it anew. */
	mrs_uffd_wake(w->fd, mrs_window_at(w, from), (end - from) * MRS_PAGE_BYTES);
	return 0;
}

/* ---- missing ---- */

/* Policies of large pages want them back as such; else a leaf is split for what is fetched. */
static bool wants_whole(const struct morsel *morsel)
{
	return mrs_pages_of(mrs_load_relaxed(&morsel->record->state)) >= MORSEL_PAGES_2M;
}

/* The leaf is locked and EVICTED. */
static int bring_back(const struct touch *t, struct mrs_retarget *batch, bool writable)
{
	int rc = mrs_bring_evicted(batch, t->window, t->from, t->end, wants_whole(t->morsel),
				   writable ? t->page : UINT64_MAX);

	if (rc > 1)
		count(t, MRS_COUNT_READ_AHEAD, (uint64_t)rc - 1);
	return rc == -ESTALE ? 0 : mrs_min(rc, 0);
}

/* The leaf is locked and MAPPED. */
static int find_or_zero(const struct touch *t, struct mrs_retarget *batch, bool writable)
{
	unsigned i = leaf_of(batch, t->page);
	uint64_t first = batch->page + ((uint64_t)i << 9 * batch->level);
	uint64_t frame = mrs_entry_frame(batch->before[i]) + (t->page - first);
	int rc;

	if (writable)
		mrs_retarget_dirty(batch, i);
	rc = mrs_bring_zero(t->morsel->pool, t->window, t->page, frame,
			    t->window->writable && !writable);
	if (rc > 0)
		count(t, MRS_COUNT_FAULTS_PEER, 1);
	return rc == -ESTALE ? 0 : mrs_min(rc, 0);
}

/* A view that may write maps the frame without a mark: when nobody else has it, or is getting it.
 */
static int map_anew(const struct touch *t, struct mrs_retarget *batch, unsigned i)
{
	if (t->window->writable && frozen_by(t))
		return -EAGAIN;
	if (t->window->writable && is_shared(t, batch))
		return -EBUSY;
	return mrs_window_map(batch, t->window, i);
}

/*
 * The mapping is older than a move of some page, perhaps of this one. -EAGAIN: the page has memory
 * now, and its leaf has to be locked anew, or a clone is being made; -EBUSY: it has to be broken
 * off first.
 */
static int serve_stale(const struct touch *t, struct mrs_retarget *batch)
{
	unsigned i = leaf_of(batch, t->page);
	uint64_t first = batch->page + ((uint64_t)i << 9 * batch->level), entry = batch->before[i];
	struct mrs_window beside;
	int rc;

	if (mrs_entry_state(entry) == MRS_ENTRY_MAPPED)
		return map_anew(t, batch, i);
	if (mrs_entry_state(entry) != MRS_ENTRY_EVICTED)
		return -EIO;
	rc = mrs_window_beside(batch, t->window, t->page,
			       mrs_entry_frame(entry) + (t->page - first), &beside);
	if (!rc)
		rc = mrs_bring_evicted(batch, &beside, t->page, t->page + 1, false, UINT64_MAX);
	mrs_window_beside_end(&beside);
	return rc < 0 ? rc : -EAGAIN;
}

static int serve_missing(const struct touch *t, struct mrs_retarget *batch)
{
	uint64_t entry = batch->before[leaf_of(batch, t->page)];
	bool writable = t->write && !frozen_by(t) && !is_shared(t, batch);

	if (mrs_window_is_stale(t->morsel, t->window))
		return serve_stale(t, batch);
	switch (mrs_entry_state(entry)) {
	case MRS_ENTRY_EVICTED:
		return bring_back(t, batch, writable);
	case MRS_ENTRY_MAPPED:
		return find_or_zero(t, batch, writable);
	default:
		return -EIO;
	}
}

/* What is still locked goes back as it was. */
static void end(struct mrs_retarget *batch)
{
	for (unsigned i = 0; i < batch->count; i++)
		if (mrs_retarget_has(batch, i))
			mrs_retarget_drop(batch, i);
	mrs_retarget_end(batch);
}

static int page_state(const struct touch *t, bool *shared)
{
	struct mrs_leaf leaf;
	int rc = mrs_table_leaf(&t->morsel->table, t->page, &leaf);

	*shared = leaf.shared;
	return rc ? rc : mrs_entry_state(leaf.entry) == MRS_ENTRY_POISONED ? -EIO : 0;
}

/* The page becomes the morsel's own. Whoever waits at the mapping that was there touches anew. */
static int break_off(const struct touch *t)
{
	int rc = mrs_share_break(t->morsel, t->page, 1);

	if (!rc)
		mrs_uffd_wake(t->window->fd, mrs_window_at(t->window, t->page), MRS_PAGE_BYTES);
	return rc;
}

static int missing(struct touch *t)
{
	struct mrs_retarget batch;
	bool shared = false;
	int rc;

	plan(t);
	/* Before anything is locked: the evictor may want these very leaves. Over budget or not, a
	 * fault is served. */
	if (mrs_load_relaxed(&mrs_pool_state(t->morsel->pool)->budget_frames) &&
	    mrs_evict_make_room(t->morsel->pool, 1, ROOM_NS))
		count(t, MRS_COUNT_OVER_BUDGET, 1);
	rc = lock_leaves(t, MRS_RETARGET_FILL, &batch);
	if (rc)
		return rc;
	count(t, MRS_COUNT_FAULTS, 1);
	rc = serve_missing(t, &batch);
	end(&batch);
	if (rc == -EBUSY)
		return break_off(t);
	if (rc == -EAGAIN)
		return await_thaw(t, frozen_by(t));
	/* It may have become poisoned while it was brought back. */
	if (!rc)
		rc = page_state(t, &shared);
	if (!rc && t->write && shared && mrs_share_is_shared(t->morsel, t->page))
		rc = break_off(t);
	return rc;
}

/* ---- write-protected ---- */

static int protected(struct touch *t)
{
	struct mrs_retarget batch;
	uint64_t entry, frozen;
	int rc;

	t->from = t->page;
	t->end = t->page + 1;
	rc = lock_leaves(t, MRS_RETARGET_DIRTY, &batch);
	if (rc)
		return rc;
	entry = batch.before[leaf_of(&batch, t->page)];
	frozen = frozen_by(t);
	if (!frozen && mrs_window_is_stale(t->morsel, t->window)) {
		/* What is protected there may be another's frame by now. */
		rc = serve_stale(t, &batch);
		end(&batch);
		return rc == -EBUSY ? break_off(t) : rc;
	}
	if (!frozen && mrs_entry_state(entry) == MRS_ENTRY_MAPPED && !is_shared(t, &batch)) {
		mrs_retarget_dirty(&batch, leaf_of(&batch, t->page));
		rc = lift(t, &batch, leaf_of(&batch, t->page));
		end(&batch);
		count(t, MRS_COUNT_FAULTS_WRITE, 1);
		return rc;
	}
	end(&batch);
	if (frozen)
		return await_thaw(t, frozen);
	switch (mrs_entry_state(entry)) {
	case MRS_ENTRY_MAPPED:
		return break_off(t);
	case MRS_ENTRY_EVICTED: /* the touch comes again, as one of a missing page */
		t->write = true;
		return missing(t);
	default:
		return -EIO;
	}
}

/* ---- pages that are not there ---- */

static bool is_inside(const struct touch *t)
{
	struct mrs_leaf leaf;

	return t->page < mrs_morsel_pages(t->morsel) &&
	       !mrs_table_leaf(&t->morsel->table, t->page, &leaf) &&
	       mrs_entry_state(leaf.entry) != MRS_ENTRY_EMPTY;
}

/*
 * True while the page may come back. Two states are seen before they are decided, under the
 * record's lock: a size that views may refuse (resize.c), and FREEING, which ends as it came while
 * somebody has the morsel open, and whoever faults has. Does not wait: a region's hold may be what
 * the shrink waits for. The same version before and after a look without a lock: it was the size of
 * that moment.
 */
static bool is_undecided(const struct touch *t)
{
	struct mrs_cell_record *record = t->morsel->record;
	uint64_t version = mrs_load_acquire(&record->format);

	if (mrs_load_acquire(&record->lock)) {
		mrs_reap_repair(t->morsel->pool); /* its owner may be dead */
		return true;
	}
	if (mrs_state_of(mrs_load_acquire(&record->state)) == MRS_RECORD_FREEING || is_inside(t))
		return true;
	return mrs_load_acquire(&record->lock) || mrs_load_acquire(&record->format) != version;
}

int mrs_fault(struct morsel *morsel, const struct mrs_window *window, uint64_t page,
	      enum mrs_fault_kind kind)
{
	struct touch t = {
		.morsel = morsel,
		.window = window,
		.page = page,
		.write = (kind & ~MRS_FAULT_TRY) != MRS_FAULT_MISSING,
		.try = kind & MRS_FAULT_TRY,
	};
	int rc;

	do {
		rc = (kind & ~MRS_FAULT_TRY) == MRS_FAULT_PROTECTED ? protected(&t) : missing(&t);
	} while (rc == -EAGAIN && !t.try);
	if (rc == -ERANGE && is_undecided(&t))
		rc = -EAGAIN;
	MRS_PROBE("fault.served");
	MRS_TRACE(fault, morsel->record->id, page, (int)t.write, rc);
	return rc;
}
