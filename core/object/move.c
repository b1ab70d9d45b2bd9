/*
 * Moving a page: retarget.c's protocol, with these steps between lock and unlock.
 *
 *  1 Look: a clone that is being made (its cut would not hold in views that follow), other owners,
 * a pin, a pooled or a device view refuses. Stop the writers in every view.
 *
 *  2 Get the new frame (the allocator's record names it), put memory behind it, copy. Claim a cell
 *    of the quarantine for the old number.
 *
 *  3 The entry names the new frame, DIRTY and locked. Both frames hold the same bytes.
 *
 *  4 The old number goes into quarantine, and its memory away with every process's translation: who
 *    still maps it faults at a touch, waits for the leaf, and maps the new frame in its place.
 *
 *  5 The move is counted, and this process's views follow at once; others are told by mail, and
 *    where they do not answer they follow at their next touch.
 *
 *  6 Unlock. The old number is free when nobody lags behind.
 *
 * Death: up to 3 nothing has happened, the frame and the cell go back. After it the page is
 * resident where its entry says; the repair does 4. Views that did not follow find out by
 * themselves.
 */
#include "object/move.h"

#include <errno.h>
#include <string.h>

#include "object/internal.h"
#include "object/share.h"
#include "swap/swap.h"
#include "view/follow.h"
#include "view/mailbox.h"
#include "view/pager.h"
#include "view/registry.h"

#define FOLLOW_NS 20000000ll	/* who is slower follows by himself */
#define MOVE_NS	  10000000000ll /* a letter to the pager */

/* ---- what may be moved ---- */

static int refuse_fixed(void *ctx, const struct mrs_seen_view *view)
{
	return view->flags & (MRS_VIEW_POOLED | MRS_VIEW_BY_MAIL) ? 1 : 0;
}

bool mrs_move_is_possible(struct morsel *morsel)
{
	const struct mrs_cell_coherence *coherence = mrs_morsel_coherence(morsel);

	return coherence && mrs_morsel_is_evictable(morsel) &&
	       !mrs_registry_each(morsel->pool, mrs_load_acquire(&coherence->family), 0,
				  UINT64_MAX >> 1, refuse_fixed, NULL);
}

bool mrs_move_is_movable(struct morsel *morsel, uint64_t page, uint64_t *frame)
{
	struct mrs_leaf leaf;

	if (mrs_table_leaf(&morsel->table, page, &leaf) || leaf.level || leaf.shared ||
	    !leaf.place || mrs_entry_state(leaf.entry) != MRS_ENTRY_MAPPED)
		return false;
	*frame = mrs_entry_frame(leaf.entry);
	return true;
}

/* ---- one move ---- */

/* Is the leaf what was to be moved? Frozen first, then shared: retarget.c, 5. */
static bool is_as_asked(const struct mrs_retarget *batch, uint64_t from)
{
	uint64_t entry = batch->before[0];

	return !mrs_load_acquire(&mrs_morsel_coherence(batch->morsel)->frozen) && !batch->level &&
	       mrs_entry_state(entry) == MRS_ENTRY_MAPPED && mrs_entry_frame(entry) == from &&
	       !mrs_share_is_shared(batch->morsel, batch->page);
}

/* Step 1. */
static int stop(struct morsel *morsel, uint64_t page)
{
	uint64_t family = mrs_load_acquire(&mrs_morsel_coherence(morsel)->family);
	struct mrs_seen_view by;
	struct mrs_pin pin;

	if (mrs_registry_pinned(morsel->pool, family, page, page + 1, &by, &pin) ||
	    mrs_registry_each(morsel->pool, family, page, page + 1, refuse_fixed, NULL))
		return -EBUSY;
	return mrs_pager_protect(morsel->pool, family, page, page + 1) ? -EAGAIN : 0;
}

/* What was never written, or was given back, is not touched: it reads as zero. */
static void copy(struct morsel_pool *pool, uint64_t from, uint64_t to)
{
	uint64_t at = from * MRS_PAGE_BYTES, end;

	if (mrs_pool_next_content(pool, &at, at + MRS_PAGE_BYTES, &end))
		memcpy(mrs_pool_at(pool, to, 1), mrs_pool_at(pool, from, 1), MRS_PAGE_BYTES);
}

/* Step 2. */
static int prepare(struct mrs_retarget *batch, uint64_t from, uint64_t to)
{
	struct mrs_txn *txn = &batch->txn;
	int rc;

	if (!mrs_place_is_free(txn->pool, to, 0) || mrs_txn_get_at(txn, 0, to))
		return -EEXIST;
	MRS_PROBE("move.got");
	rc = mrs_pool_back(txn, to, 1, 0, NULL);
	if (rc) {
		mrs_place_unget(txn, 0, to, false);
		return rc;
	}
	copy(txn->pool, from, to);
	MRS_PROBE("move.copied");
	rc = mrs_quarantine_claim(txn, batch->morsel, batch->page, from, 0);
	if (rc)
		mrs_place_unget(txn, 0, to, true);
	return rc;
}

struct others {
	struct morsel *morsel;
	struct mrs_slot_set who;
	bool any;
};

static int add_other(void *ctx, const struct mrs_seen_view *view)
{
	struct others *others = ctx;

	if (view->record != others->morsel->cell || !(view->flags & MRS_VIEW_CPU) ||
	    view->slot == mrs_pool_own_slot(others->morsel->pool))
		return 0;
	mrs_slot_set_add(&others->who, view->slot);
	others->any = true;
	return 0;
}

/* Step 5. What fails here is made good by a fault. */
static void follow(struct mrs_retarget *batch, uint64_t to)
{
	struct morsel *morsel = batch->morsel;
	struct others others = {.morsel = morsel};
	uint64_t family = mrs_load_acquire(&mrs_morsel_coherence(morsel)->family);
	uint64_t move = 0;

	/* The old memory is gone: who does not follow now does at a touch, or when he is hurried.
	 */
	if (mrs_view_follow_own(morsel, batch->page, 1, to, &move) && !move)
		move = mrs_fetch_add(&mrs_morsel_coherence(morsel)->moves, 1) + 1;
	mrs_quarantine_number(&batch->txn, move);
	MRS_PROBE("move.followed");
	mrs_registry_each(morsel->pool, family, batch->page, batch->page + 1, add_other, &others);
	if (others.any)
		mrs_mail_ask(&batch->txn, &others.who, MRS_REQUEST_REMAP, morsel->cell, batch->page,
			     1, move, FOLLOW_NS, NULL);
}

/* Steps 3 to 6. */
static void relink(struct mrs_retarget *batch, uint64_t from, uint64_t to)
{
	uint64_t entry = mrs_entry_make(MRS_ENTRY_MAPPED, 0, to) | MRS_ENTRY_DIRTY;

	/* Release: who finds the frame finds its content. The leaf stays ours. */
	mrs_store_release(&batch->entries[0], mrs_entry_locked(entry, batch->txn.index));
	MRS_PROBE("move.linked");
	mrs_quarantine_enter(&batch->txn);
	mrs_txn_settle(&batch->txn);
	mrs_swap_forget(&batch->txn, from);
	follow(batch, to);
	mrs_retarget_set(batch, 0, entry);
	mrs_fetch_add(&mrs_pool_state(batch->txn.pool)->count[MRS_COUNT_PAGES_MOVED], 1);
}

int mrs_move_here(struct morsel *morsel, uint64_t page, uint64_t from, uint64_t to)
{
	struct mrs_retarget batch;
	int rc = mrs_retarget_one(morsel, MRS_RETARGET_MOVE, page, &batch);

	if (rc)
		return -EAGAIN;
	rc = is_as_asked(&batch, from) ? stop(morsel, page) : -EAGAIN;
	MRS_PROBE("move.stopped");
	if (!rc)
		rc = prepare(&batch, from, to);
	if (rc) {
		mrs_retarget_abort(&batch);
		return rc;
	}
	relink(&batch, from, to);
	mrs_retarget_end(&batch);
	return 0;
}

/* ---- from any process ---- */

static int ask_pager(struct morsel *morsel, uint64_t page, uint64_t from, uint64_t to)
{
	struct morsel_pool *pool = morsel->pool;
	unsigned pager = mrs_pager_slot(pool);
	struct mrs_slot_set who = {0};
	struct mrs_txn txn;
	int rc;

	if (pager >= MRS_SLOTS)
		return -EAGAIN;
	mrs_slot_set_add(&who, pager);
	rc = mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn);
	if (rc)
		return rc;
	rc = mrs_mail_ask(&txn, &who, MRS_REQUEST_MOVE, morsel->cell, page, from, to, MOVE_NS,
			  NULL);
	mrs_txn_end(&txn);
	return rc;
}

int mrs_move(struct morsel *morsel, uint64_t page, uint64_t from, uint64_t to)
{
	int rc = mrs_pager_ensure(morsel->pool);

	if (rc)
		return rc;
	return mrs_pager_is_self(morsel->pool) ? mrs_move_here(morsel, page, from, to)
					       : ask_pager(morsel, page, from, to);
}
