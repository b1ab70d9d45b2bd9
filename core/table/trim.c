/*
 * Taking leafs away: everything at and beyond a page, from the end backwards. See table.h.
 *
 * For each leaf: its memory goes back, put_begin names it in the allocator's record, the entry
 * becomes 0, put_end. A death before put_begin leaves the leaf to the next trim, a death after it
 * leaves a record that repair finishes; so trim may be called again from the beginning at any time.
 * Tables go in the same way after their last entry. What is damaged is cleared, not followed.
 *
 * What other owners have too (SHARED) is only unlinked. The entry goes before the count: else
 * another owner, who then seems to be alone, could free what a death here leaves linked. Where it
 * turns out at the count that the others have gone meanwhile, the entry comes back, for nobody else
 * sees it: the record is locked, and nothing retargets the range.
 */
#include <errno.h>

#include "base/probe.h"
#include "table/internal.h"
#include "table/radix.h"

struct trim {
	struct mrs_table *table;
	void *txn;
	uint64_t page; /* first that goes */
	void (*release)(void *ctx, uint64_t frame, unsigned order);
	void *ctx;
};

/* To zero, whatever marks a service sets meanwhile. */
static void clear_place(uint64_t *place)
{
	uint64_t entry = mrs_load_acquire(place);

	while (entry && !mrs_cas(place, &entry, 0))
		;
}

void mrs_table_drop(struct mrs_table *table, void *txn, uint64_t *place, uint64_t frame)
{
	if (table->ops->unback)
		table->ops->unback(table->ctx, frame);
	table->ops->put_begin(table->ctx, txn, 0, frame);
	MRS_PROBE("table.drop.named");
	clear_place(place);
	MRS_PROBE("table.drop.unlinked");
	table->ops->put_end(table->ctx, txn);
}

static void drop_leaf(const struct trim *t, uint64_t *place, unsigned level, uint64_t frame)
{
	struct mrs_table *table = t->table;
	unsigned order = FMT_BITS * level;

	t->release(t->ctx, frame, order);
	MRS_PROBE("table.trim.released");
	table->ops->put_begin(table->ctx, t->txn, order, frame);
	MRS_PROBE("table.trim.named");
	clear_place(place);
	MRS_PROBE("table.trim.cleared");
	table->ops->put_end(table->ctx, t->txn);
}

/* A link to what others have too: true if it is gone, false if there are no others any more. */
static bool unlink_shared(const struct trim *t, uint64_t *place, uint64_t entry, unsigned order,
			  bool is_table)
{
	const struct mrs_table_ops *ops = t->table->ops;
	uint64_t frame = fmt_frame(entry);
	bool last;

	if (!fmt_is_shared(entry) || !ops->has_others || !ops->has_others(t->table->ctx, frame))
		return false;
	ops->owe(t->table->ctx, t->txn, order, frame, is_table);
	MRS_PROBE("table.trim.sharing");
	clear_place(place);
	MRS_PROBE("table.trim.unshared");
	last = ops->give_up(t->table->ctx, t->txn, frame);
	if (last)
		mrs_store_release(place, entry);
	ops->put_cancel(t->table->ctx, t->txn);
	return !last;
}

/* The same for a table; where there are no others any more, nobody is in it when this answers. */
static bool unlink_table(const struct trim *t, uint64_t *place, uint64_t entry)
{
	if (unlink_shared(t, place, entry, 0, true))
		return true;
	return fmt_is_shared(entry) && t->table->ops->alone &&
	       !t->table->ops->alone(t->table->ctx, t->txn);
}

static void drop_damaged(uint64_t *place, uint64_t page, const char *problem)
{
	mrs_log(MRS_LOG_WARN,
		"the page table is damaged at page %llu: %s; the entry is cleared, what it named "
		"is not given back",
		(unsigned long long)page, problem ? problem : "it points outside the pool");
	clear_place(place);
}

/*
 * All entries of a table of this level, which begins at page first, that lie at or beyond t->page.
 * False if something of it stays for a later trim.
 */
static bool trim_level(const struct trim *t, uint64_t *entries, unsigned level, uint64_t first)
{
	bool whole = true;

	for (unsigned i = RADIX_ENTRIES; i--;) {
		uint64_t page = first + i * radix_span(level);
		uint64_t entry = mrs_load_acquire(&entries[i]);
		enum fmt_kind kind = fmt_kind(entry, level);
		uint64_t *below;

		if (page + radix_span(level) <= t->page)
			break;
		if (kind == FMT_EMPTY)
			continue;
		if (kind == FMT_LEAF &&
		    radix_in_pool(t->table, fmt_frame(entry), radix_span(level))) {
			if (page >= t->page &&
			    !unlink_shared(t, &entries[i], entry, FMT_BITS * level, false))
				drop_leaf(t, &entries[i], level, fmt_frame(entry));
			continue;
		}
		if (kind == FMT_TABLE && page >= t->page && unlink_table(t, &entries[i], entry)) {
			whole &= !mrs_load_acquire(&entries[i]);
			continue;
		}
		below = kind == FMT_TABLE ? radix_entries(t->table, fmt_frame(entry)) : NULL;
		if (!below) {
			drop_damaged(&entries[i], page, mrs_entry_problem(entry, level));
			continue;
		}
		if (!trim_level(t, below, level - 1, page))
			whole = false;
		else if (page >= t->page)
			mrs_table_drop(t->table, t->txn, &entries[i], fmt_frame(entry));
	}
	return whole;
}

/* The largest aligned block that ends at end and does not begin before start. */
static unsigned last_block_order(uint64_t start, uint64_t end)
{
	unsigned order = 0;

	while (order < MRS_GIANT_ORDER && !(end & ((2ull << order) - 1)) &&
	       end - start >= 2ull << order)
		order++;
	return order;
}

/* A run without a table becomes shorter, block by block; the last one takes the root with it. */
static int trim_run(const struct trim *t, uint64_t root)
{
	struct mrs_table *table = t->table;
	uint64_t frame = fmt_frame(root);
	uint64_t pages = mrs_load_acquire(table->run_pages);

	if (pages > RADIX_PAGES_MAX || (pages && !radix_in_pool(table, frame, pages)))
		return radix_damaged(0, "the run is not inside the pool");
	while (pages > t->page) {
		unsigned order = last_block_order(frame + t->page, frame + pages);

		pages -= 1ull << order;
		t->release(t->ctx, frame + pages, order);
		MRS_PROBE("table.trim.released");
		table->ops->put_begin(table->ctx, t->txn, order, frame + pages);
		MRS_PROBE("table.trim.named");
		if (!pages)
			clear_place(table->root);
		mrs_store_release(table->run_pages, pages);
		MRS_PROBE("table.trim.cleared");
		table->ops->put_end(table->ctx, t->txn);
	}
	if (!pages)
		clear_place(table->root); /* a run of no pages: of a death, or of a damaged file */
	return 0;
}

/* One leaf becomes a table of 512 smaller ones that mean the same. */
static int split_leaf(struct mrs_table *table, void *txn, uint64_t *place, uint64_t leaf,
		      unsigned level)
{
	uint64_t frame, *entries;
	int rc = mrs_table_get_frame(table, txn, &frame, &entries);

	if (rc)
		return rc;
	for (unsigned i = 0; i < RADIX_ENTRIES; i++)
		mrs_store_relaxed(&entries[i], fmt_piece(leaf, level, i));
	MRS_PROBE("table.split.filled");
	/* Release: pairs with the acquire of whoever descends. */
	if (!mrs_cas(place, &leaf, fmt_table(level - 1, frame))) {
		for (unsigned i = 0; i < RADIX_ENTRIES; i++)
			mrs_store_relaxed(&entries[i], 0);
		table->ops->put_begin(table->ctx, txn, 0, frame);
		table->ops->put_end(table->ctx, txn);
	}
	MRS_PROBE("table.split.linked");
	table->ops->settle(table->ctx, txn);
	return 0;
}

/* Afterwards no leaf covers pages on both sides of page. */
static int split_at(struct mrs_table *table, void *txn, uint64_t *entries, unsigned level,
		    uint64_t page)
{
	while (level && page & (radix_span(level) - 1)) {
		uint64_t *place = &entries[radix_index(page, level)];
		uint64_t entry = mrs_load_acquire(place);
		int rc;

		if (mrs_entry_lock(entry) && table->ops->wait) {
			table->ops->wait(table->ctx, place, entry);
			continue;
		}
		switch (fmt_kind(entry, level)) {
		case FMT_LEAF:
			rc = split_leaf(table, txn, place, entry, level);
			if (rc)
				return rc;
			break;
		case FMT_TABLE:
			entries = radix_entries(table, fmt_frame(entry));
			if (!entries)
				return 0; /* trim_level() deals with it */
			level--;
			break;
		default:
			return 0;
		}
	}
	return 0;
}

int mrs_table_trim(struct mrs_table *table, void *txn, uint64_t page,
		   void (*release)(void *ctx, uint64_t frame, unsigned order), void *ctx)
{
	struct trim t = {.table = table, .txn = txn, .page = page, .release = release, .ctx = ctx};
	uint64_t root = radix_root(table);
	uint64_t *entries;
	unsigned level;
	int rc;

	if (fmt_kind(root, 0) == FMT_EMPTY)
		return 0;
	if (radix_root_is_run(root))
		return trim_run(&t, root);
	if (!page && unlink_table(&t, table->root, root))
		return 0;
	entries = radix_root_is_table(root, &level) ? radix_entries(table, fmt_frame(root)) : NULL;
	if (!entries) {
		if (!page)
			drop_damaged(table->root, 0, "the root entry is none");
		return page ? radix_damaged(page, "the root entry is none") : 0;
	}
	if (page >= radix_span(level + 1))
		return 0;
	rc = split_at(table, txn, entries, level, page);
	if (rc)
		return rc;
	if (trim_level(&t, entries, level, 0) && !page)
		mrs_table_drop(table, txn, table->root, fmt_frame(root));
	return 0;
}
