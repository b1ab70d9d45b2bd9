/*
 * Open entries: who has which morsel open, and how far his views of it reach.
 *
 * A slot holds MRS_OPEN_INLINE entries; further ones stand in OPEN cells, chained from the slot.
 * Only the slot's own process claims entries (by compare-and-swap, because of its threads); anybody
 * reads them; the reaper drops them. A chain only grows while its process lives.
 *
 *	slot: [open][open]...[open]   open_more -> OPEN cell -> OPEN cell -> 0
 *	                                           [7 entries]  [7 entries]
 *
 * Who looks for users and who becomes one meet like this: the one writes his entry, full fence,
 * looks at the record; the other changes the record, full fence, looks at the entries. At least one
 * of them sees the other.
 */
#include <errno.h>

#include "object/internal.h"

/* Cells that are looked into for a free entry before a further cell is chained. */
#define CHAIN_SEARCH 32u

/* The entries of an OPEN cell; *next its successor. NULL at the end or where the chain is damaged.
 */
static struct mrs_open *chain_at(struct morsel_pool *pool, mrs_cell cell, mrs_cell *next)
{
	struct mrs_cell_open *open =
		cell ? mrs_cell_at(mrs_pool_cells(pool), cell, MRS_CELL_OPEN) : NULL;

	if (!open)
		return NULL;
	*next = mrs_load_acquire(&open->more);
	return open->open;
}

static struct mrs_open *claim_among(struct mrs_open *open, unsigned count, uint64_t record)
{
	for (unsigned i = 0; i < count; i++) {
		uint64_t seen = 0;

		if (!mrs_load_relaxed(&open[i].record) && mrs_cas(&open[i].record, &seen, record))
			return &open[i];
	}
	return NULL;
}

static struct mrs_open *claim_existing(struct morsel_pool *pool, struct mrs_slot *slot,
				       uint64_t record)
{
	struct mrs_open *entry = claim_among(slot->open, MRS_OPEN_INLINE, record);
	mrs_cell cell = mrs_load_acquire(&slot->open_more);

	for (unsigned i = 0; !entry && i < CHAIN_SEARCH; i++) {
		struct mrs_open *open = chain_at(pool, cell, &cell);

		if (!open)
			break;
		entry = claim_among(open, mrs_array_length(((struct mrs_cell_open *)0)->open),
				    record);
	}
	return entry;
}

/* Chains one more cell, whose first entry is claimed already. */
static int claim_further(struct morsel_pool *pool, struct mrs_slot *slot, uint64_t record,
			 struct mrs_open **entry)
{
	struct mrs_cells *cells = mrs_pool_cells(pool);
	struct mrs_cell_open *open;
	struct mrs_txn txn;
	mrs_cell cell;
	int rc = mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn);

	if (rc)
		return rc;
	mrs_store_release(&txn.intent->arg[0], mrs_pool_own_slot(pool) + 1);
	rc = mrs_cell_get(cells, &txn, &txn.intent->cell[0], &cell);
	if (rc)
		goto end;
	MRS_PROBE("open.chain.claimed");
	open = mrs_cell_at(cells, cell, MRS_CELL_CLAIMED);
	for (size_t i = 0; i < mrs_array_length(open->open); i++)
		open->open[i] = (struct mrs_open){0};
	open->open[0].record = record;
	open->more = mrs_load_acquire(&slot->open_more);
	mrs_cell_commit(cells, cell, MRS_CELL_OPEN);
	MRS_PROBE("open.chain.made");
	while (!mrs_cas(&slot->open_more, &open->more, cell))
		;
	MRS_PROBE("open.chain.linked");
	*entry = &open->open[0];
end:
	mrs_txn_end(&txn);
	return rc;
}

int mrs_open_claim(struct morsel_pool *pool, uint64_t record, struct mrs_open **entry)
{
	struct mrs_slot *slot = mrs_pool_slot(pool, mrs_pool_own_slot(pool));
	struct mrs_open *found = claim_existing(pool, slot, record);

	if (!found)
		return claim_further(pool, slot, record, entry);
	*entry = found;
	return 0;
}

void mrs_open_release(struct mrs_open *entry)
{
	mrs_store_relaxed(&entry->view, 0);
	/* Release: whoever claims the entry next finds no view in it. */
	mrs_store_release(&entry->record, 0);
}

void mrs_open_each(struct morsel_pool *pool, struct mrs_slot *slot,
		   void (*fn)(void *ctx, struct mrs_open *entry), void *ctx)
{
	mrs_cell cell = mrs_load_acquire(&slot->open_more);
	uint64_t bound = mrs_load_relaxed(&mrs_pool_state(pool)->cells_high);
	struct mrs_open *open = slot->open;
	unsigned count = MRS_OPEN_INLINE;

	/* The bound ends a chain that somebody damaged into a ring. */
	while (open) {
		for (unsigned i = 0; i < count; i++)
			if (mrs_load_acquire(&open[i].record))
				fn(ctx, &open[i]);
		open = bound-- ? chain_at(pool, cell, &cell) : NULL;
		count = mrs_array_length(((struct mrs_cell_open *)0)->open);
	}
}

void mrs_open_chain_free(struct morsel_pool *pool, unsigned slot)
{
	struct mrs_slot *shared = mrs_pool_slot(pool, slot);
	struct mrs_cells *cells = mrs_pool_cells(pool);
	struct mrs_txn txn;
	mrs_cell cell, next;

	while ((cell = mrs_load_acquire(&shared->open_more))) {
		if (mrs_txn_begin_patiently(pool, MRS_INTENT_OTHER, &txn))
			return;
		mrs_store_release(&txn.intent->arg[0], slot + 1);
		mrs_store_release(&txn.intent->cell[0], cell);
		if (!chain_at(pool, cell, &next))
			next = 0;
		mrs_store_release(&shared->open_more, next);
		MRS_PROBE("open.chain.unlinked");
		if (mrs_cell_at(cells, cell, MRS_CELL_OPEN))
			mrs_cell_put(cells, cell);
		MRS_PROBE("open.chain.freed");
		mrs_txn_end(&txn);
	}
}

void mrs_open_chain_repair(struct mrs_txn *txn)
{
	struct mrs_cells *cells = mrs_pool_cells(txn->pool);
	mrs_cell named = txn->intent->cell[0];
	uint64_t slot = txn->intent->arg[0] - 1;
	uint64_t bound = mrs_load_relaxed(&mrs_pool_state(txn->pool)->cells_high);
	mrs_cell cell, next;

	if (!named || slot >= MRS_SLOTS)
		return;
	if (mrs_cell_at(cells, named, MRS_CELL_CLAIMED)) {
		mrs_cell_put(cells, named);
		return;
	}
	cell = mrs_load_acquire(&mrs_pool_slot(txn->pool, slot)->open_more);
	for (; cell && bound--; cell = next) {
		if (cell == named)
			return;
		if (!chain_at(txn->pool, cell, &next))
			break;
	}
	if (mrs_cell_at(cells, named, MRS_CELL_OPEN))
		mrs_cell_put(cells, named);
}

struct scan {
	struct morsel_pool *pool;
	mrs_cell cell;
	const struct mrs_open *except;
	struct mrs_users *users;
};

static void scan_entry(void *ctx, struct mrs_open *entry)
{
	struct scan *scan = ctx;
	uint64_t view;

	if (entry == scan->except || mrs_load_acquire(&entry->record) != scan->cell)
		return;
	view = mrs_load_acquire(&entry->view);
	scan->users->users++;
	scan->users->end_page = mrs_max(scan->users->end_page, mrs_open_end(view));
	if (view & MRS_OPEN_HELD)
		scan->users->held_page = mrs_max(scan->users->held_page, mrs_open_end(view));
	scan->users->writable |= view >> 63;
}

static void scan_slot(void *ctx, unsigned slot, struct mrs_slot *shared)
{
	struct scan *scan = ctx;

	mrs_open_each(scan->pool, shared, scan_entry, scan);
}

void mrs_users_scan(struct morsel_pool *pool, mrs_cell cell, const struct mrs_open *except,
		    struct mrs_users *users)
{
	struct scan scan = {.pool = pool, .cell = cell, .except = except, .users = users};

	*users = (struct mrs_users){0};
	mrs_pool_each_slot(pool, scan_slot, &scan);
}
