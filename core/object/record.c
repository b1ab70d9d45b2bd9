/*
 * The words of a directory record: state, lock, and what is believed of a record that comes from a
 * file.
 *
 * The state word changes by compare-and-swap only, for seal and thin bits change beside the state.
 * The lock is a word in the record; who holds it is inside a transition whose intent names the
 * record, so that the reaper of a dead holder finds and frees it. Waiting for it happens outside a
 * transition: a reaper that waits for all transitions to pause must not wait for us.
 */
#include <errno.h>

#include "object/internal.h"

bool mrs_record_move(struct mrs_cell_record *record, unsigned from, enum mrs_record_state to)
{
	uint64_t word = mrs_load_acquire(&record->state);

	do {
		if (!(from >> mrs_state_of(word) & 1))
			return false;
	} while (!mrs_cas(&record->state, &word, (word & ~MRS_RECORD_STATE_MASK) | to));
	return true;
}

void mrs_record_set(struct mrs_cell_record *record, uint64_t bits)
{
	mrs_fetch_or(&record->state, bits);
}

void mrs_record_clear(struct mrs_cell_record *record, uint64_t bits)
{
	mrs_fetch_and(&record->state, ~bits);
}

bool mrs_record_copy(struct morsel_pool *pool, mrs_cell cell, struct mrs_cell_record *copy)
{
	struct mrs_cells *cells = mrs_pool_cells(pool);
	const uint64_t *from = mrs_cell_at(cells, cell, MRS_CELL_RECORD);
	uint64_t *to = (uint64_t *)copy;

	if (!from)
		return false;
	/* Acquire: no word is read after the check that the cell is still the same. */
	for (size_t i = 0; i < sizeof(*copy) / sizeof(*to); i++)
		to[i] = mrs_load_acquire(&from[i]);
	return mrs_cell_is_current(cells, cell, MRS_CELL_RECORD);
}

static const char *root_problem(struct morsel_pool *pool, const struct mrs_cell_record *record)
{
	uint64_t first = mrs_pool_super(pool)->frame_data;
	uint64_t frame = mrs_entry_frame(record->root);

	switch (mrs_entry_state(record->root)) {
	case MRS_ENTRY_EMPTY:
		return record->root ? "an empty root that is not zero" : NULL;
	case MRS_ENTRY_TABLE:
		return frame < first || !mrs_pool_at(pool, frame, 1)
			       ? "its page table is outside the pool"
			       : NULL;
	case MRS_ENTRY_MAPPED:
		return frame < first || record->run_pages > mrs_pool_frames_end(pool) ||
				       !mrs_pool_at(pool, frame, mrs_max(record->run_pages, 1))
			       ? "its run of frames is outside the pool"
			       : NULL;
	default:
		return "its root entry is of an unknown kind";
	}
}

const char *mrs_record_problem(struct morsel_pool *pool, const struct mrs_cell_record *record)
{
	uint64_t frames = mrs_pool_super(pool)->frames_max;
	uint64_t meta_frames = mrs_pages_in(record->meta_bytes);

	if (mrs_state_of(record->state) > MRS_RECORD_FREEING)
		return "its state is unknown";
	if (mrs_pages_of(record->state) > MORSEL_PAGES_1G)
		return "its page-size policy is unknown";
	if (mrs_pages_in(record->bytes) > frames)
		return "it is larger than the pool can ever be";
	if (record->meta_frame &&
	    (record->meta_frame < mrs_pool_super(pool)->frame_data || !meta_frames ||
	     meta_frames > frames || !mrs_pool_at(pool, record->meta_frame, meta_frames)))
		return "its tensor table is outside the pool";
	return root_problem(pool, record);
}

uint64_t mrs_record_granule(struct morsel_pool *pool, uint64_t state_word)
{
	uint64_t block = mrs_pool_block_frames(pool);

	switch (mrs_pages_of(state_word)) {
	case MORSEL_PAGES_2M:
		return 1ull << MRS_HUGE_ORDER;
	case MORSEL_PAGES_1G:
		return 1ull << MRS_GIANT_ORDER;
	default:
		return block;
	}
}

int mrs_record_lock(struct morsel *morsel, enum mrs_intent_op op, unsigned which,
		    struct mrs_txn *txn)
{
	for (;;) {
		uint64_t seen = 0;
		int rc = mrs_txn_begin(morsel->pool, op, txn);

		if (rc)
			return rc;
		mrs_store_release(&txn->intent->cell[which], morsel->cell);
		MRS_PROBE("record.lock.noted");
		if (mrs_cas(&morsel->record->lock, &seen, txn->index + 1)) {
			MRS_PROBE("record.lock.taken");
			return 0;
		}
		mrs_txn_end(txn);
		mrs_pool_wait_word(morsel->pool, &morsel->record->lock, seen);
	}
}

bool mrs_record_try_lock(struct morsel *morsel, unsigned which, struct mrs_txn *txn)
{
	uint64_t seen = 0;

	mrs_store_release(&txn->intent->cell[which], morsel->cell);
	if (mrs_cas(&morsel->record->lock, &seen, txn->index + 1))
		return true;
	mrs_store_release(&txn->intent->cell[which], 0);
	return false;
}

void mrs_record_release(struct mrs_txn *txn, struct mrs_cell_record *record)
{
	MRS_CHECK(mrs_record_locked_by(txn, record));
	/* Release: pairs with the acquire of the next holder's compare-and-swap. */
	mrs_store_release(&record->lock, 0);
	mrs_pool_wake_word(&record->lock);
}

void mrs_record_unlock(struct morsel *morsel, struct mrs_txn *txn)
{
	mrs_record_release(txn, morsel->record);
	MRS_PROBE("record.lock.released");
	mrs_txn_end(txn);
}
