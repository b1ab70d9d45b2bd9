/*
 * From one run to a table: builds the whole tree in private and links it with one compare-and-swap
 * of the root, so that a reader sees the run or the table, and the same frames in both. See
 * table.h.
 *
 * A tree under construction is not reachable from the root. Its top is named by the intent's
 * building() word, and every further table hangs on it before its own frame is settled; so at any
 * instant each frame is named by the allocator's record or by that tree, and mrs_table_discard()
 * can give them back after a death.
 */
#include <errno.h>

#include "base/probe.h"
#include "table/internal.h"
#include "table/radix.h"

struct build {
	struct mrs_table *table;
	void *txn;
	uint64_t frame; /* first of the run */
	uint64_t pages; /* of the run */
};

static unsigned leaf_level(const struct build *b, uint64_t page)
{
	return b->table->small_leaves ? 0 : radix_leaf_level(page, b->pages, b->frame);
}

/* Fills the table of this level that begins at page, with leafs and tables. */
static int build_level(const struct build *b, uint64_t *entries, unsigned level, uint64_t page)
{
	for (unsigned i = 0; i < RADIX_ENTRIES && page < b->pages; i++, page += radix_span(level)) {
		uint64_t frame, *below;
		int rc;

		if (leaf_level(b, page) >= level) {
			mrs_store_relaxed(&entries[i], fmt_leaf(level, b->frame + page));
			continue;
		}
		rc = mrs_table_get_frame(b->table, b->txn, &frame, &below);
		if (rc)
			return rc;
		mrs_store_release(&entries[i], fmt_table(level - 1, frame));
		MRS_PROBE("table.expand.hung");
		b->table->ops->settle(b->table->ctx, b->txn);
		rc = build_level(b, below, level - 1, page);
		if (rc)
			return rc;
	}
	return 0;
}

/* Gives all tables below and the leafs' entries back; the table itself stays, zeroed. */
static void unbuild_level(struct mrs_table *table, void *txn, uint64_t *entries, unsigned level)
{
	for (unsigned i = 0; i < RADIX_ENTRIES; i++) {
		uint64_t entry = mrs_load_acquire(&entries[i]);
		uint64_t *below = NULL;

		if (fmt_kind(entry, level) == FMT_TABLE)
			below = radix_entries(table, fmt_frame(entry));
		if (below) {
			unbuild_level(table, txn, below, level - 1);
			mrs_table_drop(table, txn, &entries[i], fmt_frame(entry));
		} else {
			mrs_store_relaxed(&entries[i], 0);
		}
	}
}

/* Gives the tree back that *top names; *top is 0 after. */
static void unbuild(struct mrs_table *table, void *txn, uint64_t *top)
{
	uint64_t root = mrs_load_acquire(top);
	unsigned level;
	uint64_t *entries;

	if (!radix_root_is_table(root, &level) ||
	    !(entries = radix_entries(table, fmt_frame(root)))) {
		mrs_store_release(top, 0);
		return;
	}
	unbuild_level(table, txn, entries, level);
	mrs_table_drop(table, txn, top, fmt_frame(root));
}

/* If a leaf fits anywhere in the run, one of its size fits at the beginning. */
static unsigned level_of_run(const struct build *b)
{
	unsigned level = leaf_level(b, 0);

	while (b->pages > radix_span(level + 1))
		level++;
	return level;
}

int mrs_table_expand(struct mrs_table *table, void *txn)
{
	uint64_t root = radix_root(table);
	struct build b = {.table = table, .txn = txn, .frame = fmt_frame(root)};
	uint64_t unnamed = 0;
	uint64_t *top = table->ops->building ? table->ops->building(table->ctx, txn) : &unnamed;
	uint64_t frame, tree, *entries;
	unsigned level;
	int rc;

	if (!radix_root_is_run(root))
		return 0;
	b.pages = mrs_load_relaxed(table->run_pages);
	if (!b.pages) { /* what a death in trim left */
		mrs_cas(table->root, &root, 0);
		return 0;
	}
	if (b.pages > RADIX_PAGES_MAX || !radix_in_pool(table, b.frame, b.pages))
		return radix_damaged(0, "the run is not inside the pool");
	rc = mrs_table_get_frame(table, txn, &frame, &entries);
	if (rc)
		return rc;
	level = level_of_run(&b);
	tree = fmt_table(level, frame);
	mrs_store_release(top, tree);
	MRS_PROBE("table.expand.named");
	table->ops->settle(table->ctx, txn);
	rc = build_level(&b, entries, level, 0);
	if (rc) {
		unbuild(table, txn, top);
		return rc;
	}
	MRS_PROBE("table.expand.built");
	/* Release: whoever loads the root with acquire sees the whole tree. */
	if (!mrs_cas(table->root, &root, tree)) {
		unbuild(table, txn, top);
		return 0;
	}
	MRS_PROBE("table.expand.linked");
	mrs_store_release(top, 0);
	return 0;
}

/* Growth puts the old root into the new one's first entry: so a linked tree is on that path. */
static bool is_linked(const struct mrs_table *table, uint64_t tree)
{
	uint64_t entry = radix_root(table);
	unsigned level;

	if (!radix_root_is_table(entry, &level))
		return false;
	for (; entry != tree; level--) {
		uint64_t *entries = radix_entries(table, fmt_frame(entry));

		if (!entries || !level)
			return false;
		entry = mrs_load_acquire(&entries[0]);
		if (fmt_kind(entry, level) != FMT_TABLE)
			return false;
	}
	return true;
}

void mrs_table_discard(struct mrs_table *table, void *txn, uint64_t *building)
{
	uint64_t tree = mrs_load_acquire(building);

	if (!tree)
		return;
	if (is_linked(table, tree))
		mrs_store_release(building, 0);
	else
		unbuild(table, txn, building);
}
