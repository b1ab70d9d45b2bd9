/*
 * What a dead retargeter left, put right with the gate closed: retarget.c, step 10.
 *
 * The intent names a place in a table; from there to the table's end every entry that the dead one
 * has locked is judged by itself, and so are the pieces of a split that it had linked. Whether the
 * memory of a page is there decides where its content is. Everything can be done twice: what is
 * unlocked is left alone.
 */
#include <errno.h>

#include "object/bring.h"
#include "object/internal.h"
#include "object/retarget_probe.h"
#include "object/share.h"

#define ENTRIES 512u

struct repair {
	struct mrs_txn *txn;
	enum mrs_retarget_kind kind;
	unsigned step; /* enum mrs_retarget_step */
};

static bool is_dead_ones(const struct repair *r, uint64_t entry)
{
	return mrs_entry_lock(entry) == r->txn->index + 1;
}

static bool is_resident(const struct repair *r, uint64_t entry)
{
	uint64_t pages = 1ull << 9 * mrs_entry_level(entry);

	for (uint64_t i = 0; i < pages; i++)
		if (!mrs_bring_is_resident(r->txn->pool, mrs_entry_frame(entry) + i))
			return false;
	return true;
}

/* Not kept anywhere: nothing was ever in it (evict.c, hollow), and it reads as zeros where it is.
 */
static bool is_kept(const struct repair *r, uint64_t entry)
{
	struct mrs_prop swap;

	return mrs_prop_get(r->txn->pool, mrs_entry_frame(entry), MRS_PROP_SWAP, &swap);
}

static uint64_t in_state(uint64_t entry, enum mrs_entry_state state)
{
	return (entry & ~(15ull << MRS_ENTRY_STATE_SHIFT)) | (uint64_t)state
								     << MRS_ENTRY_STATE_SHIFT;
}

/* What the unlocked entry is to be. */
static uint64_t judged(const struct repair *r, uint64_t entry)
{
	switch (mrs_entry_state(entry)) {
	case MRS_ENTRY_MAPPED:
		/* Saved, and perhaps punched; a punch of 512 pages may have got half way. */
		if (r->kind == MRS_RETARGET_EVICT && r->step == MRS_RETARGET_COPIED &&
		    !is_resident(r, entry) && is_kept(r, entry))
			return in_state(entry, MRS_ENTRY_EVICTED) & ~MRS_ENTRY_DIRTY;
		return entry | MRS_ENTRY_DIRTY;
	case MRS_ENTRY_EVICTED:
		/* Filled in whole; and what is only half there stays and is found by the next
		 * filler. */
		if (is_resident(r, entry))
			return in_state(entry, MRS_ENTRY_MAPPED) | MRS_ENTRY_DIRTY;
		return entry;
	default:
		return entry;
	}
}

/* Leaf i of a table. */
static void settle(const struct repair *r, uint64_t frame, uint64_t *entries, unsigned i)
{
	uint64_t entry = mrs_load_acquire(&entries[i]);

	if (!is_dead_ones(r, entry))
		return;
	entry = judged(r, mrs_entry_unlocked(entry));
	mrs_entry_put(r->txn->pool, &entries[i], entry);
	MRS_PROBE_REPAIR("retarget.repair.settled", r->txn, frame << 9 | i, entry);
}

static void settle_all(const struct repair *r, uint64_t frame, uint64_t *entries, unsigned first)
{
	for (unsigned i = first; i < ENTRIES; i++)
		settle(r, frame, entries, i);
}

static uint64_t *table_at(const struct repair *r, uint64_t frame)
{
	return mrs_object_table_ops.at(r->txn->pool, frame);
}

/* ---- split ---- */

/* A kept table that was not linked in the end is bare again. */
static void make_stale(const struct repair *r, uint64_t leaf)
{
	uint64_t stale = mrs_entry_make(MRS_ENTRY_STALE, 0, 0), *kept;
	struct mrs_prop deposit;

	if (!mrs_prop_get(r->txn->pool, mrs_entry_frame(leaf), MRS_PROP_DEPOSIT, &deposit))
		return;
	kept = table_at(r, deposit.value);
	for (unsigned i = 0; kept && i < ENTRIES; i++)
		mrs_store_release(&kept[i], stale);
}

/* A table that is linked is not kept for anything any more. */
static void is_linked(const struct repair *r, uint64_t frame, uint64_t *pieces)
{
	uint64_t first = mrs_entry_frame(mrs_load_acquire(&pieces[0]));
	struct mrs_prop deposit;

	if (mrs_prop_get(r->txn->pool, first, MRS_PROP_DEPOSIT, &deposit) && deposit.value == frame)
		mrs_prop_clear(r->txn, first, MRS_PROP_DEPOSIT, NULL);
}

static void repair_split(const struct repair *r, uint64_t frame, uint64_t *entries, unsigned first)
{
	for (unsigned i = first; i < ENTRIES; i++) {
		uint64_t entry = mrs_load_acquire(&entries[i]);
		uint64_t *pieces;

		if (mrs_entry_state(entry) != MRS_ENTRY_TABLE) {
			if (is_dead_ones(r, entry))
				make_stale(r, entry);
			settle(r, frame, entries, i);
			continue;
		}
		pieces = table_at(r, mrs_entry_frame(entry));
		if (!pieces || !is_dead_ones(r, mrs_load_acquire(&pieces[0])))
			continue;
		is_linked(r, mrs_entry_frame(entry), pieces);
		/* The first piece last: as long as it is locked, this is to be done. */
		settle_all(r, mrs_entry_frame(entry), pieces, 1);
		settle(r, mrs_entry_frame(entry), pieces, 0);
	}
}

/* ---- promote ---- */

/*
 * The batch was the 512 leaves of table frame. If the one leaf has been linked, the table is stale;
 * else nothing is kept.
 */
static void repair_join(const struct repair *r, uint64_t frame, uint64_t *entries)
{
	uint64_t stale = mrs_entry_make(MRS_ENTRY_STALE, 0, 0);
	struct morsel morsel;
	struct mrs_leaf leaf;

	if (mrs_handle_init(&morsel, r->txn->pool, r->txn->intent->cell[0]) &&
	    !mrs_table_leaf(&morsel.table, r->txn->intent->page, &leaf) && leaf.level == 1 &&
	    is_dead_ones(r, leaf.entry)) {
		for (unsigned i = 0; i < ENTRIES; i++)
			mrs_entry_put(r->txn->pool, &entries[i], stale);
		settle(r, leaf.table, leaf.place - leaf.index, leaf.index);
		return;
	}
	is_linked(r, frame, entries);
	settle_all(r, frame, entries, 0);
}

void mrs_retarget_repair(struct mrs_txn *txn)
{
	uint32_t step = mrs_load_acquire32(&txn->intent->step);
	uint64_t leaf = mrs_load_acquire(&txn->intent->leaf);
	const struct repair r = {
		.txn = txn, .kind = (enum mrs_retarget_kind)(step >> 8), .step = step & 0xff};
	uint64_t *entries = table_at(&r, leaf / ENTRIES);

	/* Nothing was locked yet. */
	if (!leaf || !entries)
		return;
	MRS_PROBE("retarget.repair");
	if (r.kind == MRS_RETARGET_MOVE)
		mrs_quarantine_repair(txn,
				      mrs_entry_frame(mrs_load_acquire(&entries[leaf % ENTRIES])));
	if (r.kind == MRS_RETARGET_SPLIT)
		repair_split(&r, leaf / ENTRIES, entries, leaf % ENTRIES);
	else if (r.kind == MRS_RETARGET_PROMOTE)
		repair_join(&r, leaf / ENTRIES, entries);
	else
		settle_all(&r, leaf / ENTRIES, entries, leaf % ENTRIES);
}
