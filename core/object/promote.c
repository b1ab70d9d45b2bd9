/*
 * Promotion, in the order that a death may cut anywhere:
 *
 *  1 All 512 leaves are locked: nobody fills, evicts, moves or unprotects a page of them.
 *
 *  2 The kernel makes one huge folio of what is behind them (MADV_COLLAPSE through the metadata
 *    mapping, which nobody has registered). Translations of all views go, and come back at a touch;
 *    protections stay, as marks. A page that somebody has pinned makes it refuse: then nothing has
 *    changed.
 *
 *  3 The table of the leaves is noted as the huge frame's DEPOSIT, for the split that may come.
 *
 *  4 One leaf is linked in the table's place, and the table becomes stale (mrs_table_join).
 *
 *  5 The leaf is unlocked.
 *
 * Death before 4: the deposit is forgotten and the leaves are unlocked; after it the leaf is
 * (retarget_repair.c). A folio that was made stays, and does no harm.
 */
#include "base/trace.h"
#include "object/promote.h"

#include <errno.h>

#include "object/internal.h"
#include "object/move.h"
#include "pool/property.h"

#define PAGES 512u

static bool is_mapped(void *ctx, uint64_t page, uint64_t entry)
{
	return mrs_entry_state(entry) == MRS_ENTRY_MAPPED && !mrs_entry_level(entry) &&
	       !(entry & MRS_ENTRY_SHARED);
}

/* On the frames of one huge frame, in order? */
static bool is_in_order(const struct mrs_retarget *batch)
{
	uint64_t first = mrs_entry_frame(batch->before[0]);

	if (first % PAGES)
		return false;
	for (unsigned i = 0; i < PAGES; i++)
		if (mrs_entry_frame(batch->before[i]) != first + i)
			return false;
	return true;
}

/* Steps 3 and 4. The leaves are locked; when this returns 0 they are one, locked, in *leaf. */
static int join(struct mrs_retarget *batch, struct mrs_leaf *leaf)
{
	struct mrs_prop deposit = {.value = batch->table};
	uint64_t frame = mrs_entry_frame(batch->before[0]), table;
	int rc = mrs_table_parent(&batch->morsel->table, batch->page, leaf);

	if (rc || leaf->shared)
		return -EAGAIN;
	rc = mrs_prop_set(&batch->txn, frame, MRS_PROP_DEPOSIT, &deposit);
	if (rc)
		return rc;
	MRS_PROBE("promote.deposited");
	rc = mrs_table_join(&batch->morsel->table, leaf, &table);
	if (rc)
		mrs_prop_clear(&batch->txn, frame, MRS_PROP_DEPOSIT, NULL);
	MRS_PROBE("promote.joined");
	return rc ? -EAGAIN : 0;
}

static int promote_locked(struct mrs_retarget *batch)
{
	struct morsel_pool *pool = batch->morsel->pool;
	struct mrs_leaf leaf;
	uint64_t huge;
	int rc = mrs_pool_make_huge(pool, mrs_entry_frame(batch->before[0]), PAGES, &huge);

	MRS_PROBE("promote.collapsed");
	if (!rc)
		rc = join(batch, &leaf);
	if (rc) {
		mrs_retarget_abort(batch);
		return rc;
	}
	for (size_t i = 0; i < mrs_array_length(batch->locked); i++)
		batch->locked[i] = 0; /* they are stale */
	mrs_entry_put(pool, leaf.place, mrs_entry_unlocked(leaf.entry));
	MRS_PROBE("promote.unlocked");
	mrs_retarget_end(batch);
	mrs_fetch_add(&mrs_pool_state(pool)->count[MRS_COUNT_PROMOTIONS], 1);
	MRS_TRACE(promote, batch->morsel->record->id, batch->page);
	return 0;
}

int mrs_promote_in_place(struct morsel *morsel, uint64_t page)
{
	struct mrs_retarget batch;
	uint64_t next;
	int locked = mrs_retarget_begin(morsel, MRS_RETARGET_PROMOTE, page, PAGES, is_mapped, NULL,
					&batch, &next);

	if (locked < 0)
		return locked;
	if (!locked)
		return -EAGAIN;
	if (locked < (int)PAGES || batch.level || batch.page != page || !is_in_order(&batch)) {
		mrs_retarget_abort(&batch);
		return -EAGAIN;
	}
	return promote_locked(&batch);
}

/* ---- with moving ---- */

/* A huge frame that is free at this moment: nobody keeps it for us. 0 if there is none. */
static uint64_t free_huge_frame(struct morsel_pool *pool)
{
	uint64_t frame = 0;
	struct mrs_txn txn;

	if (mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn))
		return 0;
	if (mrs_txn_get(&txn, MRS_HUGE_ORDER, MRS_FRAME_HUGE, 0, &frame))
		frame = 0;
	else
		mrs_place_unget(&txn, MRS_HUGE_ORDER, frame, false);
	mrs_txn_end(&txn);
	return frame;
}

static bool all_movable(struct morsel *morsel, uint64_t page)
{
	uint64_t frame;

	for (unsigned i = 0; i < PAGES; i++)
		if (!mrs_move_is_movable(morsel, page + i, &frame))
			return false;
	return true;
}

int mrs_promote(struct morsel *morsel, uint64_t page)
{
	uint64_t *count = mrs_pool_state(morsel->pool)->count, to;
	int rc = mrs_promote_in_place(morsel, page);

	if (rc != -EAGAIN || !all_movable(morsel, page))
		return rc;
	to = free_huge_frame(morsel->pool);
	if (!to)
		return -ENOSPC;
	for (unsigned i = 0; i < PAGES; i++) {
		uint64_t from;

		if (!mrs_move_is_movable(morsel, page + i, &from))
			return -EAGAIN;
		rc = mrs_move(morsel, page + i, from, to + i);
		if (rc)
			return rc == -EEXIST ? -EAGAIN : rc;
	}
	rc = mrs_promote_in_place(morsel, page);
	if (!rc)
		mrs_fetch_add(&count[MRS_COUNT_PROMOTIONS_MOVED], 1);
	return rc;
}

/* ---- by itself ---- */

#define TICK_BLOCKS 64u /* looked at in one tick, of all morsels */

struct tick {
	struct morsel_pool *pool;
	unsigned left;
};

static bool may_promote(uint64_t state)
{
	return mrs_flags_of(state) & MORSEL_EVICTABLE && mrs_state_of(state) == MRS_RECORD_LIVE &&
	       mrs_pages_of(state) != MORSEL_PAGES_4K && mrs_pages_of(state) != MORSEL_PAGES_1G;
}

/* Is it worth locking: small leaves, the first and last of which stand where they should? */
static bool looks_ready(struct morsel *morsel, uint64_t page)
{
	struct mrs_leaf first, last;

	return !mrs_table_leaf(&morsel->table, page, &first) && !first.level && first.place &&
	       is_mapped(NULL, page, first.entry) && !(mrs_entry_frame(first.entry) % PAGES) &&
	       !mrs_table_leaf(&morsel->table, page + PAGES - 1, &last) && !last.level &&
	       is_mapped(NULL, page, last.entry) &&
	       mrs_entry_frame(last.entry) == mrs_entry_frame(first.entry) + PAGES - 1;
}

static void tick_morsel(struct tick *tick, struct morsel *morsel)
{
	struct mrs_cell_coherence *coherence = mrs_morsel_coherence(morsel);
	uint64_t blocks = mrs_morsel_pages(morsel) / PAGES, block;

	if (!coherence || !blocks)
		return;
	block = mrs_load_relaxed(&coherence->promote_hand) % blocks;
	for (uint64_t i = 0; i < blocks && tick->left; i++, tick->left--) {
		if (looks_ready(morsel, block * PAGES))
			mrs_promote_in_place(morsel, block * PAGES);
		block = (block + 1) % blocks;
	}
	mrs_store_relaxed(&coherence->promote_hand, block);
}

static int tick_record(void *ctx, mrs_cell cell, void *memory)
{
	struct mrs_cell_record *record = memory;
	struct tick *tick = ctx;
	struct morsel *morsel;

	if (!may_promote(mrs_load_acquire(&record->state)) ||
	    mrs_handle_open_aside(tick->pool, cell, &morsel))
		return 0;
	tick_morsel(tick, morsel);
	morsel_close(morsel);
	return !tick->left;
}

/* Huge pages are evicted whole: where memory is short they are no gain. */
static bool is_short(struct morsel_pool *pool)
{
	uint64_t budget = mrs_load_acquire(&mrs_pool_state(pool)->budget_frames);

	return budget && mrs_pool_charged(pool) > budget - budget / 4;
}

void mrs_promote_tick(struct morsel_pool *pool)
{
	struct tick tick = {.pool = pool, .left = TICK_BLOCKS};

	if (is_short(pool))
		return;
	mrs_cell_each(mrs_pool_cells(pool), MRS_CELL_RECORD, tick_record, &tick);
}
