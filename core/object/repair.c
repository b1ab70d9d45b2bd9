/*
 * Repair after a death: what the reaper asks this room to do.
 *
 * With the gate closed nobody else is inside a transition, so that an intent can be judged from
 * what it left:
 *
 *	CREATE	 finished if the dirent is linked; else the dirent goes, and the nameless record
 * stays for drop_open(), because the dead slot's open entry names it
 *	RESIZE	 by step (internal.h); without the lock it was a fill, which has only to be
 * recounted UNLINK	 finished RENAME	 finished if the new dirent is linked; else that
 * goes PUBLISH	 finished if the dirent means the record; else a new dirent goes FREE	 back to
 * UNLINKED: drop_open() begins it anew OTHER	 an OPEN cell that is in no chain goes
 *
 * A record is touched only if its lock is the dead intent's: otherwise the operation was past it.
 * Everything can be done twice: the repairer may die as well.
 */
#include <errno.h>

#include "object/evict.h"
#include "object/internal.h"
#include "object/share.h"
#include "view/registry.h"

/* The record named in cell[which], if this intent holds its lock. */
static bool locked_record(struct mrs_txn *txn, unsigned which, struct morsel *morsel)
{
	mrs_cell cell = mrs_load_acquire(&txn->intent->cell[which]);

	return cell && mrs_handle_init(morsel, txn->pool, cell) &&
	       mrs_record_locked_by(txn, morsel->record);
}

static void unlock_all(struct mrs_txn *txn)
{
	struct morsel morsel;

	for (unsigned i = 0; i < mrs_array_length(txn->intent->cell); i++)
		if (locked_record(txn, i, &morsel))
			mrs_record_release(txn, morsel.record);
}

static int count_record(void *ctx, mrs_cell cell, void *memory)
{
	++*(uint64_t *)ctx;
	return 0;
}

static void recount_morsels(struct morsel_pool *pool)
{
	uint64_t records = 0;

	mrs_cell_each(mrs_pool_cells(pool), MRS_CELL_RECORD, count_record, &records);
	mrs_store_release(&mrs_pool_state(pool)->morsels, records);
}

static void repair_create(struct mrs_txn *txn)
{
	struct mrs_cells *cells = mrs_pool_cells(txn->pool);
	const mrs_cell *cell = txn->intent->cell;
	struct morsel morsel;

	if (mrs_cell_at(cells, cell[0], MRS_CELL_CLAIMED))
		mrs_cell_put(cells, cell[0]);
	if (mrs_handle_init(&morsel, txn->pool, cell[0]) && cell[1] &&
	    mrs_dir_is_linked(cells, cell[1])) {
		mrs_record_move(morsel.record, 1 << MRS_RECORD_NEW, MRS_RECORD_LIVE);
	} else {
		if (morsel.record && morsel.record->dirent == cell[1])
			mrs_store_release(&morsel.record->dirent, 0);
		mrs_dirent_free(cells, cell[1]);
	}
	MRS_PROBE("repair.create");
	recount_morsels(txn->pool);
}

/* A tree that expand() had not linked: of the record, or of one that is gone. */
static void discard_building(struct mrs_txn *txn)
{
	uint64_t root = 0, pages = 0;
	struct mrs_table none = {
		.ops = &mrs_object_table_ops, .ctx = txn->pool, .root = &root, .run_pages = &pages};
	struct morsel morsel;

	for (unsigned i = 0; i < mrs_array_length(txn->intent->cell); i++)
		if (txn->intent->cell[i] &&
		    mrs_handle_init(&morsel, txn->pool, txn->intent->cell[i])) {
			mrs_table_discard(&morsel.table, txn, &txn->intent->arg[2]);
			return;
		}
	mrs_table_discard(&none, txn, &txn->intent->arg[2]);
}

static void repair_resize(struct mrs_txn *txn)
{
	struct morsel morsel;

	if (locked_record(txn, 0, &morsel)) {
		switch (mrs_load_acquire32(&txn->intent->step)) {
		case MRS_RESIZE_SEALING:
			mrs_record_clear(morsel.record, MRS_RECORD_SEALED);
			break;
		case MRS_RESIZE_SHAPING:
			break;
		case MRS_RESIZE_SIZING:
			mrs_resize_undo(&morsel, txn);
			/* fall through */
		default:
			mrs_resize_cut(&morsel, txn);
		}
	}
	MRS_PROBE("repair.resize");
}

static void repair_unlink(struct mrs_txn *txn)
{
	struct mrs_cells *cells = mrs_pool_cells(txn->pool);
	mrs_cell dirent = txn->intent->cell[1];
	struct morsel morsel;

	if (!dirent || !locked_record(txn, 0, &morsel))
		return;
	mrs_dir_unlink(cells, dirent);
	MRS_PROBE("repair.unlink");
	mrs_store_release(&morsel.record->dirent, 0);
	mrs_record_move(morsel.record, 1 << MRS_RECORD_NEW | 1 << MRS_RECORD_LIVE,
			MRS_RECORD_UNLINKED);
	mrs_dirent_free(cells, dirent);
}

static void repair_rename(struct mrs_txn *txn)
{
	struct mrs_cells *cells = mrs_pool_cells(txn->pool);
	const mrs_cell *cell = txn->intent->cell;
	struct morsel morsel;

	if (!cell[1] || !locked_record(txn, 2, &morsel))
		return;
	if (mrs_dir_is_linked(cells, cell[1]))
		mrs_rename_finish(cells, cell);
	else
		mrs_dirent_free(cells, cell[1]);
	MRS_PROBE("repair.rename");
}

static void repair_publish(struct mrs_txn *txn)
{
	struct mrs_cells *cells = mrs_pool_cells(txn->pool);
	const mrs_cell *named = txn->intent->cell;
	mrs_cell cell[4] = {named[0], named[1], named[2], named[3]};
	struct morsel morsel, former;

	if (!cell[1] || !locked_record(txn, 0, &morsel))
		return;
	/* Its lock is free again: it may have a new name since. */
	if (!locked_record(txn, 2, &former))
		cell[2] = 0;
	if (mrs_dir_is_linked(cells, cell[1]) && mrs_dirent_target(cells, cell[1]) == cell[0])
		mrs_publish_finish(cells, cell);
	else if (!named[2])
		mrs_dirent_free(cells, cell[1]);
	MRS_PROBE("repair.publish");
}

static void repair_free(struct mrs_txn *txn)
{
	struct mrs_cells *cells = mrs_pool_cells(txn->pool);
	struct morsel morsel;

	if (locked_record(txn, 0, &morsel)) {
		mrs_record_move(morsel.record, 1 << MRS_RECORD_FREEING, MRS_RECORD_UNLINKED);
	} else if (mrs_handle_init(&morsel, txn->pool, txn->intent->cell[0]) &&
		   !mrs_load_acquire(&morsel.record->lock) &&
		   mrs_state_of(mrs_load_acquire(&morsel.record->state)) == MRS_RECORD_FREEING) {
		/* Between unlocking and putting the cell: it is empty. */
		mrs_cell_put(cells, txn->intent->cell[0]);
	}
	MRS_PROBE("repair.free");
	recount_morsels(txn->pool);
}

/* The clone, if its record links something by now, goes with the dead slot's open entry. */
static void repair_clone(struct mrs_txn *txn)
{
	struct mrs_cell_coherence *coherence;
	struct morsel morsel;

	if (!locked_record(txn, 0, &morsel))
		return;
	coherence = mrs_morsel_coherence(&morsel);
	if (coherence && mrs_load_acquire(&coherence->frozen) == txn->index + 1) {
		mrs_store_release(&coherence->frozen, 0);
		mrs_pool_wake_word(&coherence->frozen);
	}
	MRS_PROBE("repair.clone");
}

static bool is_break(const struct mrs_txn *txn)
{
	return mrs_load_acquire32(&txn->intent->op) == MRS_INTENT_RETARGET &&
	       mrs_load_acquire32(&txn->intent->step) >> 8 == MRS_RETARGET_BREAK;
}

/* Could the death have left counts of links that are not right? */
static bool may_share(struct mrs_txn *txn)
{
	struct morsel morsel;

	if (mrs_share_owes(txn))
		return true;
	switch (mrs_load_acquire32(&txn->intent->op)) {
	case MRS_INTENT_CLONE:
		return true;
	case MRS_INTENT_RETARGET:
		return is_break(txn);
	case MRS_INTENT_RESIZE:
	case MRS_INTENT_FREE:
		return mrs_handle_init(&morsel, txn->pool, txn->intent->cell[0]) &&
		       mrs_share_is_family(&morsel);
	default:
		return false;
	}
}

static void recount_named(struct mrs_txn *txn)
{
	struct morsel morsel;

	for (unsigned i = 0; i < mrs_array_length(txn->intent->cell); i++)
		if (txn->intent->cell[i] &&
		    mrs_handle_init(&morsel, txn->pool, txn->intent->cell[i]))
			mrs_place_recount(&morsel);
}

/* False: a part of it is for later. */
static bool repair_intent(struct mrs_txn *txn)
{
	discard_building(txn);
	switch ((enum mrs_intent_op)mrs_load_acquire32(&txn->intent->op)) {
	case MRS_INTENT_CREATE:
		repair_create(txn);
		break;
	case MRS_INTENT_RESIZE:
		mrs_share_repair(txn); /* of a fill, which moves no page */
		/* Cutting on will owe something else. */
		if (mrs_share_owes(txn) && !mrs_share_recount(txn))
			return false;
		repair_resize(txn);
		break;
	case MRS_INTENT_UNLINK:
		repair_unlink(txn);
		break;
	case MRS_INTENT_RENAME:
		repair_rename(txn);
		break;
	case MRS_INTENT_PUBLISH:
		repair_publish(txn);
		break;
	case MRS_INTENT_FREE:
		mrs_share_repair(txn);
		repair_free(txn);
		break;
	case MRS_INTENT_OTHER:
		if (mrs_load_acquire32(&txn->intent->step) == MRS_CHAIN_OPEN)
			mrs_open_chain_repair(txn);
		else
			mrs_registry_repair(txn);
		break;
	case MRS_INTENT_CLONE:
		repair_clone(txn);
		break;
	case MRS_INTENT_RETARGET:
		if (!is_break(txn)) {
			mrs_retarget_repair(txn);
			return true; /* no page more or less than before */
		}
		if (!mrs_share_repair(txn))
			return false;
		break;
	default:
		return true; /* the pool room's own */
	}
	if (may_share(txn) && !mrs_share_recount(txn))
		return false;
	recount_named(txn);
	unlock_all(txn);
	return true;
}

/* ---- a dead slot's open morsels ---- */

static void drop_entry(void *ctx, struct mrs_open *entry)
{
	struct morsel_pool *pool = ctx;
	struct morsel morsel;

	mrs_store_release(&entry->view, 0);
	if (!mrs_handle_init(&morsel, pool, mrs_load_acquire(&entry->record))) {
		mrs_open_release(entry);
		return;
	}
	morsel.open_entry = entry;
	mrs_handle_leave(&morsel);
	MRS_PROBE("repair.dropped");
}

static void drop_open(struct morsel_pool *pool, unsigned slot)
{
	mrs_open_each(pool, mrs_pool_slot(pool, slot), drop_entry, pool);
	mrs_open_chain_free(pool, slot);
	mrs_registry_drop_slot(pool, slot);
	mrs_quarantine_forget(pool, slot);
	mrs_resize_restore_views(pool, slot);
}

const struct mrs_repair_ops mrs_object_repair = {
	.intent = repair_intent,
	.referenced = mrs_check_referenced,
	.drop_open = drop_open,
	.make_room = mrs_evict_room_for,
	.stays = mrs_evict_stays,
	.walk = mrs_check_walk,
};
