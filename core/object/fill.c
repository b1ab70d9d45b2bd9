/*
 * Lazy morsels: frames and memory on demand, by any process, without the record's lock.
 *
 * Each block is got, backed and only then linked, so that a page with a frame can be touched by
 * anybody who finds it. Two that fill the same page meet at the link: the second gives its block
 * back. While it works the filler publishes a view of its own up to the end of the range: so nobody
 * trims the tables under it (view.c).
 *
 * A lazy morsel never is a run without a table: becoming one would need the record's lock.
 */
#include <errno.h>

#include "object/internal.h"

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
	rc = mrs_txn_begin(fill->morsel->pool, MRS_INTENT_RESIZE, &fill->txn);
	if (rc)
		return rc;
	fill->txn.intent->cell[0] = fill->morsel->cell;
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

/* Pages with frames may have lost their memory to MORSEL_ADVICE_FREE: it is reserved anew. */
static int fill_thin(struct fill *fill, uint64_t page, uint64_t end)
{
	int rc;

	fill_end(fill);
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
