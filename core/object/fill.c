/*
 * Lazy morsels: frames and memory on demand, by any process, without the record's lock.
 *
 * Each block is got, backed and only then linked, so that a page with a frame can be touched by
 * anybody who finds it. Two that fill the same page meet at the link: the second gives its block
 * back. While it works the filler publishes a view of its own up to the end of the range: so nobody
 * trims the tables under it (view.c).
 *
 * A lazy morsel never is a run without a table: becoming one would need the record's lock.
 *
 * What can be evicted need not have memory: where the budget has no room for a new morsel its
 * frames get theirs when they are used, and what was used before goes.
 */
#include <errno.h>

#include "object/internal.h"
#include "object/evict.h"
#include "object/share.h"

/* Blocks that one transition fills at most. */
#define FILL_BLOCKS 64u

struct fill {
	struct morsel *morsel;
	struct mrs_txn txn;
	unsigned blocks; /* in this transition; 0: none is open */
	uint64_t hint;	 /* the frame after the last block */
};

static int fill_begin(struct fill *fill)
{
	int rc;

	if (fill->blocks && fill->blocks < FILL_BLOCKS)
		return 0;
	if (fill->blocks)
		mrs_txn_end(&fill->txn);
	fill->blocks = 0;
	rc = mrs_share_begin(fill->morsel, MRS_INTENT_RESIZE, 0, &fill->txn);
	if (rc)
		return rc;
	fill->blocks = 1;
	return 0;
}

static void fill_end(struct fill *fill)
{
	if (fill->blocks)
		mrs_txn_end(&fill->txn);
	fill->blocks = 0;
}

static int get_block(struct fill *fill, unsigned order, uint64_t *frame)
{
	enum mrs_frame_class class = order >= MRS_HUGE_ORDER ? MRS_FRAME_HUGE : MRS_FRAME_MOVABLE;

	if (fill->hint && !(fill->hint & ((1ull << order) - 1)) &&
	    mrs_place_is_free(fill->morsel->pool, fill->hint, order) &&
	    !mrs_txn_get_at(&fill->txn, order, fill->hint)) {
		*frame = fill->hint;
		return 0;
	}
	return mrs_txn_get(&fill->txn, order, class, fill->hint, frame);
}

/* One leaf: got, backed, linked. -EEXIST if somebody else was quicker with it, or with a part. */
static int fill_leaf(struct fill *fill, uint64_t page, unsigned order)
{
	struct morsel *morsel = fill->morsel;
	unsigned level = order / MRS_HUGE_ORDER;
	uint64_t frame;
	int rc = fill_begin(fill);

	if (!rc)
		rc = mrs_share_own_tables(morsel, &fill->txn, page);
	if (!rc)
		rc = mrs_table_prepare(&morsel->table, &fill->txn, page, level);
	if (rc)
		return rc;
	rc = get_block(fill, order, &frame);
	if (rc)
		return rc;
	MRS_PROBE("fill.got");
	rc = mrs_pool_back(
		&fill->txn, frame, 1ull << order,
		mrs_pages_of(morsel->record->state) == MORSEL_PAGES_4K ? 0 : MRS_BACK_HUGE, NULL);
	if (rc) {
		mrs_place_unget(&fill->txn, order, frame, false);
		return rc;
	}
	MRS_PROBE("fill.backed");
	rc = mrs_table_set_whole(&morsel->table, &fill->txn, page, level, frame);
	if (rc) {
		mrs_place_unget(&fill->txn, order, frame, true);
		return rc;
	}
	mrs_fetch_add(&morsel->record->allocated, 1ull << order);
	MRS_PROBE("fill.linked");
	fill->hint = frame + (1ull << order);
	fill->blocks++;
	return 0;
}

/* Is all of the aligned block around page a hole, and inside the morsel? */
static bool is_open(struct morsel *morsel, uint64_t page, unsigned order)
{
	uint64_t size = 1ull << order, first = mrs_round_down(page, size);
	struct mrs_run run;

	return first + size <= mrs_morsel_pages(morsel) &&
	       !mrs_table_lookup(&morsel->table, first, size, &run) && !run.mapped &&
	       run.pages == size;
}

/* How large a block page gets, wanted at least up to end. */
static unsigned fill_order(struct morsel *morsel, uint64_t page, uint64_t end)
{
	uint64_t state = mrs_load_relaxed(&morsel->record->state);
	unsigned granule = __builtin_ctzll(mrs_record_granule(morsel->pool, state));

	if (granule || mrs_pages_of(state) != MORSEL_PAGES_MIXED)
		return granule;
	if (!(page & ((1ull << MRS_GIANT_ORDER) - 1)) && page + (1ull << MRS_GIANT_ORDER) <= end &&
	    is_open(morsel, page, MRS_GIANT_ORDER))
		return MRS_GIANT_ORDER;
	return is_open(morsel, page, MRS_HUGE_ORDER) ? MRS_HUGE_ORDER : 0;
}

/*
 * One block at page, smaller if no large one is left or a part of it has been filled meanwhile;
 * *next is the page after it.
 */
static int fill_page(struct fill *fill, uint64_t page, uint64_t end, uint64_t *next)
{
	uint64_t state = mrs_load_relaxed(&fill->morsel->record->state);
	unsigned order = fill_order(fill->morsel, page, end);
	bool mixed = mrs_pages_of(state) == MORSEL_PAGES_MIXED &&
		     mrs_record_granule(fill->morsel->pool, state) == 1;
	int rc = fill_leaf(fill, mrs_round_down(page, 1ull << order), order);

	while ((rc == -ENOSPC || rc == -EEXIST) && order && mixed) {
		order -= MRS_HUGE_ORDER;
		rc = fill_leaf(fill, mrs_round_down(page, 1ull << order), order);
	}
	*next = mrs_round_down(page, 1ull << order) + (1ull << order);
	/* The smallest that there can be is there: that of somebody else. */
	return rc == -EEXIST ? 0 : rc;
}

static int fill_holes(struct fill *fill, uint64_t page, uint64_t end)
{
	while (page < end) {
		struct mrs_run run;
		int rc = mrs_table_lookup(&fill->morsel->table, page, end - page, &run);

		if (rc)
			return rc;
		if (run.mapped) {
			fill->hint = run.frame + run.pages;
			page += run.pages;
			continue;
		}
		rc = fill_page(fill, page, end, &page);
		if (rc)
			return rc;
	}
	return 0;
}

/* ---- pages with frames and without memory ---- */

static bool is_mapped(void *ctx, uint64_t page, uint64_t entry)
{
	return mrs_entry_state(entry) == MRS_ENTRY_MAPPED;
}

/* Locked leaves from first on whose frames are consecutive get memory; *end is the leaf after them.
 */
static int back_row(struct mrs_retarget *batch, unsigned first, unsigned *end)
{
	uint64_t span = 1ull << MRS_HUGE_ORDER * batch->level;
	uint64_t frame = mrs_entry_frame(batch->before[first]);
	unsigned flags = batch->level ? MRS_BACK_HUGE : 0, i = first;

	while (i < batch->count && mrs_retarget_has(batch, i) &&
	       mrs_entry_frame(batch->before[i]) == frame + (i - first) * span)
		i++;
	*end = i;
	return mrs_pool_back(&batch->txn, frame, (i - first) * span, flags, NULL);
}

/*
 * Where pages come and go a frame may be evicted at any time, and memory that is put behind it then
 * would be a page of zeros in place of its content: so only under the leaf's lock. Room was asked
 * for before: while leaves are locked nobody waits for the pager.
 */
static int back_leaves(struct morsel *morsel, uint64_t page, uint64_t end)
{
	struct mrs_retarget batch;
	uint64_t next;
	int rc = 0;

	for (; !rc && page < end; page = next) {
		int locked = mrs_retarget_begin(morsel, MRS_RETARGET_DIRTY, page, end - page,
						is_mapped, NULL, &batch, &next);

		if (locked <= 0) {
			rc = locked;
			continue;
		}
		for (unsigned i = 0, after; i < batch.count; i = after) {
			after = i + 1;
			if (!rc && mrs_retarget_has(&batch, i))
				rc = back_row(&batch, i, &after);
		}
		for (unsigned i = 0; i < batch.count; i++)
			if (mrs_retarget_has(&batch, i))
				mrs_retarget_drop(&batch, i);
		mrs_retarget_end(&batch);
	}
	return rc;
}

#define ROOM_NS 2000000000ll

struct lack {
	struct morsel_pool *pool;
	uint64_t frames;
};

static int count_lacking(void *ctx, const struct mrs_run *run)
{
	struct lack *lack = ctx;

	if (run->mapped)
		lack->frames += mrs_pool_lacks(lack->pool, run->frame, run->pages);
	return 0;
}

/* The pages of the leaf that page is in. */
static int leaf_around(struct morsel *morsel, uint64_t page, uint64_t *first, uint64_t *end)
{
	struct mrs_leaf leaf;
	int rc = mrs_table_leaf(&morsel->table, page, &leaf);

	*first = leaf.place ? leaf.page : page;
	*end = leaf.place ? leaf.page + (1ull << MRS_HUGE_ORDER * leaf.level) : page + 1;
	return rc;
}

static int fill_coherent(struct morsel *morsel, uint64_t page, uint64_t end)
{
	struct lack lack = {.pool = morsel->pool};
	uint64_t first, last, past;
	int rc = leaf_around(morsel, page, &first, &past);

	if (!rc)
		rc = leaf_around(morsel, end - 1, &last, &past);
	if (!rc)
		rc = mrs_table_each_run(&morsel->table, first, past - first, count_lacking, &lack);
	if (rc || !lack.frames)
		return rc;
	/* An answer of no is left to mrs_pool_back(), which has the words. */
	mrs_evict_room_for(morsel->pool, lack.frames, ROOM_NS);
	mrs_pool_may_wait(false);
	rc = back_leaves(morsel, page, end);
	mrs_pool_may_wait(true);
	return rc;
}

/* Pages with frames may have lost their memory to MORSEL_ADVICE_FREE: it is reserved anew. */
static int fill_thin(struct fill *fill, uint64_t page, uint64_t end)
{
	int rc;

	fill_end(fill);
	if (mrs_morsel_coherence(fill->morsel))
		return fill_coherent(fill->morsel, page, end);
	rc = fill_begin(fill);
	return rc ? rc : mrs_place_back(fill->morsel, &fill->txn, page, end);
}

static int fill_range(struct morsel *morsel, uint64_t state, uint64_t page, uint64_t end)
{
	struct fill fill = {.morsel = morsel};
	int rc = 0;

	if (mrs_flags_of(state) & MORSEL_LAZY)
		rc = fill_holes(&fill, page, end);
	if (!rc && state & MRS_RECORD_THIN)
		rc = fill_thin(&fill, page, end);
	fill_end(&fill);
	return rc;
}

static bool is_full(uint64_t state)
{
	return !(state & MRS_RECORD_THIN) && !(mrs_flags_of(state) & MORSEL_LAZY);
}

int mrs_morsel_fill(struct morsel *morsel, uint64_t page, uint64_t pages)
{
	uint64_t state = mrs_load_acquire(&morsel->record->state);
	uint64_t hold;
	int rc;

	if (!pages || is_full(state))
		return 0;
	rc = mrs_check_writable(morsel->pool, "filling a morsel");
	if (!rc)
		rc = mrs_morsel_view_publish(morsel, page + pages, false, &hold);
	if (rc)
		return rc;
	rc = fill_range(morsel, state, page, page + pages);
	/* What dead processes held open comes back outside a transition only. */
	if (rc == -ENOSPC && mrs_pool_relieve(morsel->pool))
		rc = fill_range(morsel, state, page, page + pages);
	mrs_morsel_view_withdraw(morsel, hold);
	return rc;
}

int mrs_fill_new(struct morsel *morsel, struct mrs_txn *txn, uint64_t first, uint64_t end)
{
	struct morsel_pool *pool = morsel->pool;
	bool may_lack = mrs_morsel_is_evictable(morsel) &&
			mrs_load_acquire(&mrs_pool_state(pool)->swap_table);
	int rc = -ENOSPC;

	if (!may_lack || mrs_pool_fits(pool, end - first))
		rc = mrs_place_back(morsel, txn, first, end);
	if (rc != -ENOSPC || !may_lack)
		return rc;
	mrs_record_set(morsel->record, MRS_RECORD_THIN);
	return 0;
}
