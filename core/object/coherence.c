/*
 * The COHERENCE cell: what a morsel has beside its record whose pages come and go, or are shared.
 *
 * It hangs on record.more, is made under the record's lock and goes with the record. Linked first
 * and committed after: a death in between leaves a handle of a cell that the reaper frees, and such
 * a handle is as good as none. The pool's superblock says from the first one on that it has such
 * morsels, so that a library that knows nothing of them refuses it.
 */
#include <errno.h>

#include "object/internal.h"
#include "object/retarget.h"

static bool is_evicting_kind(struct morsel_pool *pool)
{
	uint32_t kind = mrs_pool_super(pool)->kind;

	return kind == MORSEL_POOL_MEMFD || kind == MORSEL_POOL_TMPFS;
}

bool mrs_morsel_is_evictable(const struct morsel *morsel)
{
	return mrs_flags_of(mrs_load_relaxed(&morsel->record->state)) & MORSEL_EVICTABLE &&
	       is_evicting_kind(morsel->pool);
}

struct mrs_cell_coherence *mrs_morsel_coherence(const struct morsel *morsel)
{
	uint64_t cell = mrs_load_acquire(&morsel->record->more);

	return cell ? mrs_cell_at(mrs_pool_cells(morsel->pool), cell, MRS_CELL_COHERENCE) : NULL;
}

/* The record's lock is held. */
static int make_cell(struct morsel *morsel, struct mrs_txn *txn)
{
	struct mrs_cells *cells = mrs_pool_cells(morsel->pool);
	struct mrs_cell_record *record = morsel->record;
	struct mrs_cell_coherence *coherence;
	mrs_cell cell;
	int rc = mrs_cell_get(cells, txn, &txn->intent->cell[1], &cell);

	if (rc)
		return rc;
	MRS_PROBE("coherence.claimed");
	coherence = mrs_cell_at(cells, cell, MRS_CELL_CLAIMED);
	mrs_store_release(&coherence->record, morsel->cell);
	mrs_store_release(&coherence->family, record->id);
	mrs_store_release(&record->more, cell);
	MRS_PROBE("coherence.linked");
	mrs_cell_commit(cells, cell, MRS_CELL_COHERENCE);
	MRS_PROBE("coherence.made");
	return 0;
}

int mrs_morsel_make_coherent(struct morsel *morsel)
{
	struct mrs_txn txn;
	int rc;

	if (mrs_morsel_coherence(morsel))
		return 0;
	/* First, and outside a transition: it waits for a lock of the file. */
	rc = mrs_pool_require(morsel->pool, MRS_FEATURE_INCOMPAT_COHERENT);
	if (rc)
		return rc;
	rc = mrs_record_lock(morsel, MRS_INTENT_RESIZE, 0, &txn);
	if (rc)
		return rc;
	mrs_store_release32(&txn.intent->step, MRS_RESIZE_SHAPING);
	if (!mrs_morsel_coherence(morsel))
		rc = make_cell(morsel, &txn);
	mrs_record_unlock(morsel, &txn);
	return rc;
}

void mrs_coherence_drop(struct morsel *morsel)
{
	struct mrs_cells *cells = mrs_pool_cells(morsel->pool);
	uint64_t cell = mrs_load_acquire(&morsel->record->more);

	if (!cell)
		return;
	if (mrs_cell_at(cells, cell, MRS_CELL_COHERENCE))
		mrs_cell_put(cells, cell);
	MRS_PROBE("coherence.put");
	mrs_store_release(&morsel->record->more, 0);
}
