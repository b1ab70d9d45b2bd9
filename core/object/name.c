/*
 * Names: unlink, rename, publish.
 *
 * A dirent that means a record changes only under that record's lock: it is unlinked, replaced or
 * made to mean another record by whoever holds it. So a name operation is: find, open (the record
 * stays), lock, look again, one compare-and-swap that is the instant, tidy up. Looking again finds
 * what others did meanwhile; then the operation begins anew.
 *
 *	unlink	 dir_unlink(dirent)		       instant: the name is gone
 *	rename	 dir_link(new), dir_unlink(old)	       instant: the new name is there
 *	publish	 retarget(dirent, former -> morsel)    instant: the name means the morsel
 *
 * The intent names all cells before each step. Repair finishes what is past its instant, and undoes
 * the rest.
 */
#include <errno.h>

#include "object/internal.h"

/* Does this dirent, linked, mean the record? Its lock is held. */
static bool means(struct mrs_cells *cells, mrs_cell dirent, const struct morsel *morsel)
{
	enum mrs_record_state state = mrs_state_of(mrs_load_acquire(&morsel->record->state));

	return (state == MRS_RECORD_LIVE || state == MRS_RECORD_NEW) &&
	       mrs_load_acquire(&morsel->record->dirent) == dirent &&
	       mrs_dirent_target(cells, dirent) == morsel->cell && mrs_dir_is_linked(cells, dirent);
}

static int no_such(struct morsel_pool *pool, const char *name)
{
	return mrs_fail(-ENOENT, "no morsel '%s' in the pool %s", name, mrs_pool_path(pool));
}

static int taken(struct morsel_pool *pool, const char *name)
{
	return mrs_fail(-EEXIST, "a morsel '%s' exists already in the pool %s", name,
			mrs_pool_path(pool));
}

/* Opens what name means and locks it, cell[which] of the intent. */
static int open_locked(struct morsel_pool *pool, const char *name, enum mrs_intent_op op,
		       unsigned which, struct morsel **morsel, mrs_cell *dirent,
		       struct mrs_txn *txn)
{
	for (unsigned i = 0; i < 100000; i++) {
		int rc = mrs_open_named(pool, name, morsel, dirent);

		if (rc == -ENOENT)
			return no_such(pool, name);
		if (rc)
			return rc;
		rc = mrs_record_lock(*morsel, op, which, txn);
		if (rc) {
			morsel_close(*morsel);
			return rc;
		}
		if (means(mrs_pool_cells(pool), *dirent, *morsel))
			return 0;
		mrs_record_unlock(*morsel, txn);
		morsel_close(*morsel);
	}
	return mrs_fail(-EIO, "%s is damaged: the name '%s' never means what it leads to",
			mrs_pool_path(pool), name);
}

int morsel_unlink(struct morsel_pool *pool, const char *name)
{
	struct mrs_cells *cells;
	struct morsel *morsel;
	struct mrs_txn txn;
	mrs_cell dirent;
	int rc = mrs_check_writable(pool, "removing a morsel");

	if (!rc)
		rc = mrs_dir_check_name(name);
	if (!rc)
		rc = open_locked(pool, name, MRS_INTENT_UNLINK, 0, &morsel, &dirent, &txn);
	if (rc)
		return rc;
	cells = mrs_pool_cells(pool);
	mrs_store_release(&txn.intent->cell[1], dirent);
	MRS_PROBE("unlink.noted");
	mrs_dir_unlink(cells, dirent);
	MRS_PROBE("unlink.unlinked");
	mrs_store_release(&morsel->record->dirent, 0);
	mrs_record_move(morsel->record, 1 << MRS_RECORD_NEW | 1 << MRS_RECORD_LIVE,
			MRS_RECORD_UNLINKED);
	MRS_PROBE("unlink.nameless");
	mrs_dirent_free(cells, dirent);
	MRS_PROBE("unlink.freed");
	mrs_record_unlock(morsel, &txn);
	return morsel_close(morsel);
}

/* cell: old dirent, new dirent (linked), record. */
void mrs_rename_finish(struct mrs_cells *cells, const mrs_cell cell[4])
{
	struct mrs_cell_record *record = mrs_cell_at(cells, cell[2], MRS_CELL_RECORD);

	if (record)
		mrs_store_release(&record->dirent, cell[1]);
	MRS_PROBE("rename.meant");
	mrs_dir_unlink(cells, cell[0]);
	MRS_PROBE("rename.unlinked");
	mrs_dirent_free(cells, cell[0]);
	MRS_PROBE("rename.freed");
}

int morsel_rename(struct morsel_pool *pool, const char *from, const char *to)
{
	struct mrs_cells *cells;
	struct morsel *morsel;
	struct mrs_txn txn;
	mrs_cell old, new, existing;
	int rc = mrs_check_writable(pool, "renaming a morsel");

	if (!rc)
		rc = mrs_dir_check_name(from);
	if (!rc)
		rc = mrs_dir_check_name(to);
	if (!rc)
		rc = open_locked(pool, from, MRS_INTENT_RENAME, 2, &morsel, &old, &txn);
	if (rc)
		return rc;
	cells = mrs_pool_cells(pool);
	mrs_store_release(&txn.intent->cell[0], old);
	MRS_PROBE("rename.noted");
	rc = mrs_dirent_make(cells, &txn, to, morsel->cell, &txn.intent->cell[1], &new);
	if (rc)
		goto unlock;
	MRS_PROBE("rename.made");
	rc = mrs_dir_link(cells, &txn, new, &existing);
	if (rc) {
		mrs_dirent_free(cells, new);
		goto unlock;
	}
	MRS_PROBE("rename.linked");
	mrs_rename_finish(cells, txn.intent->cell);
unlock:
	mrs_record_unlock(morsel, &txn);
	morsel_close(morsel);
	return rc == -EEXIST ? taken(pool, to) : rc;
}

/* ---- publish ---- */

/* cell: record, dirent that means it now, former record or 0, its own former dirent or 0. */
void mrs_publish_finish(struct mrs_cells *cells, const mrs_cell cell[4])
{
	struct mrs_cell_record *record = mrs_cell_at(cells, cell[0], MRS_CELL_RECORD);
	struct mrs_cell_record *former = mrs_cell_at(cells, cell[2], MRS_CELL_RECORD);

	if (former) {
		mrs_store_release(&former->dirent, 0);
		mrs_record_move(former, 1 << MRS_RECORD_NEW | 1 << MRS_RECORD_LIVE,
				MRS_RECORD_UNLINKED);
	}
	MRS_PROBE("publish.former");
	if (record) {
		mrs_store_release(&record->dirent, cell[1]);
		mrs_record_move(record, 1 << MRS_RECORD_NEW | 1 << MRS_RECORD_UNLINKED,
				MRS_RECORD_LIVE);
	}
	MRS_PROBE("publish.meant");
	if (cell[3] && cell[3] != cell[1]) {
		mrs_dir_unlink(cells, cell[3]);
		MRS_PROBE("publish.unlinked");
		mrs_dirent_free(cells, cell[3]);
	}
	MRS_PROBE("publish.freed");
}

/* The name is free: a new dirent. -EAGAIN if somebody took it meanwhile. */
static int publish_new(struct morsel *morsel, const char *name)
{
	struct mrs_cells *cells = mrs_pool_cells(morsel->pool);
	struct mrs_txn txn;
	mrs_cell dirent, existing;
	int rc = mrs_record_lock(morsel, MRS_INTENT_PUBLISH, 0, &txn);

	if (rc)
		return rc;
	mrs_store_release(&txn.intent->cell[3], mrs_load_acquire(&morsel->record->dirent));
	rc = mrs_dirent_make(cells, &txn, name, morsel->cell, &txn.intent->cell[1], &dirent);
	if (rc)
		goto unlock;
	MRS_PROBE("publish.made");
	rc = mrs_dir_link(cells, &txn, dirent, &existing);
	if (rc) {
		mrs_dirent_free(cells, dirent);
		rc = rc == -EEXIST ? -EAGAIN : rc;
		goto unlock;
	}
	MRS_PROBE("publish.linked");
	mrs_publish_finish(cells, txn.intent->cell);
unlock:
	mrs_record_unlock(morsel, &txn);
	return rc;
}

/* The name means former: its dirent is made to mean morsel. -EAGAIN if that has changed. */
static int publish_over(struct morsel *morsel, struct morsel *former, mrs_cell dirent)
{
	struct mrs_cells *cells = mrs_pool_cells(morsel->pool);
	struct mrs_txn txn;
	int rc = mrs_record_lock(morsel, MRS_INTENT_PUBLISH, 0, &txn);

	if (rc)
		return rc;
	/* Two that publish over each other: one backs out, so that no order of locks is needed. */
	if (!mrs_record_try_lock(former, 2, &txn)) {
		uint64_t holder = mrs_load_acquire(&former->record->lock);

		mrs_record_unlock(morsel, &txn);
		if (holder)
			mrs_pool_wait_word(morsel->pool, &former->record->lock, holder);
		return -EAGAIN;
	}
	MRS_PROBE("publish.locked");
	rc = -EAGAIN;
	if (!means(cells, dirent, former))
		goto unlock;
	mrs_store_release(&txn.intent->cell[3], mrs_load_acquire(&morsel->record->dirent));
	mrs_store_release(&txn.intent->cell[1], dirent);
	MRS_PROBE("publish.noted");
	if (mrs_dirent_retarget(cells, dirent, former->cell, morsel->cell))
		goto unlock;
	MRS_PROBE("publish.retargeted");
	mrs_publish_finish(cells, txn.intent->cell);
	rc = 0;
unlock:
	mrs_record_release(&txn, former->record);
	MRS_PROBE("publish.released");
	mrs_record_unlock(morsel, &txn);
	return rc;
}

int morsel_publish(struct morsel *morsel, const char *name)
{
	struct morsel *former;
	mrs_cell dirent;
	int rc = mrs_check_writable(morsel->pool, "publishing a morsel");

	if (!rc)
		rc = mrs_dir_check_name(name);
	if (rc)
		return rc;
	do {
		rc = mrs_open_named(morsel->pool, name, &former, &dirent);
		if (rc == -ENOENT) {
			rc = publish_new(morsel, name);
			continue;
		}
		if (rc)
			return rc;
		rc = former->cell == morsel->cell ? 0 : publish_over(morsel, former, dirent);
		morsel_close(former);
	} while (rc == -EAGAIN);
	return rc;
}
