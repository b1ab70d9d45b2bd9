/*
 * One leaf where it stands: for who locks it, splits it, or joins 512 of them. See table.h.
 *
 * Splitting and joining keep the leafs locked by the same owner from before to after, so that
 * nobody else changes an entry on either side of the link. The link is one compare-and-swap of the
 * parent's entry. A table that was joined away keeps its frame and becomes stale, entry by entry:
 * who still holds a pointer into it finds the owner's lock, then STALE, and begins again at the
 * root.
 *
 *	parent:	 [leaf f, lock i]  <-- split / join -->	 [table t]
 *	t:	 STALE x 512				 [leaf f + k * span, lock i] x 512
 */
#include <errno.h>

#include "base/probe.h"
#include "table/internal.h"
#include "table/radix.h"

static int leaf_in_run(const struct mrs_table *table, uint64_t root, uint64_t page,
		       struct mrs_leaf *leaf)
{
	uint64_t pages = mrs_load_relaxed(table->run_pages);

	if (pages > RADIX_PAGES_MAX || (pages && !radix_in_pool(table, fmt_frame(root), pages)))
		return radix_damaged(page, "the run is not inside the pool");
	leaf->page = page;
	leaf->shared = fmt_is_shared(root);
	if (page < pages)
		leaf->entry = (root & ~MRS_ENTRY_FRAME_MASK) | (fmt_frame(root) + page);
	return 0;
}

/* Down from the entries of a table of this level; -ESTALE without words. */
static int leaf_descend(const struct mrs_table *table, uint64_t *entries, unsigned level,
			uint64_t page, struct mrs_leaf *leaf)
{
	for (;;) {
		uint64_t entry;

		leaf->index = radix_index(page, level);
		leaf->place = &entries[leaf->index];
		/* Acquire: pairs with the link of the table or leaf. */
		entry = mrs_load_acquire(leaf->place);
		leaf->shared |= fmt_is_shared(entry);
		switch (fmt_kind(entry, level)) {
		case FMT_TABLE:
			leaf->table = fmt_frame(entry);
			entries = radix_entries(table, leaf->table);
			if (!entries)
				return radix_damaged(page, "a table is outside the pool");
			level--;
			continue;
		case FMT_LEAF:
			if (!radix_in_pool(table, fmt_frame(entry), radix_span(level)))
				return radix_damaged(page, "a leaf's frames are outside the pool");
			break;
		case FMT_EMPTY:
			break;
		case FMT_STALE:
			return -ESTALE;
		default:
			return radix_damaged(page, mrs_entry_problem(entry, level));
		}
		leaf->entry = entry;
		leaf->level = level;
		leaf->page = mrs_round_down(page, radix_span(level));
		return 0;
	}
}

static int leaf_from_root(struct mrs_table *table, uint64_t page, struct mrs_leaf *leaf)
{
	uint64_t root = radix_root(table);
	uint64_t *entries;
	unsigned level;

	*leaf = (struct mrs_leaf){.page = page};
	if (fmt_kind(root, 0) == FMT_EMPTY)
		return 0;
	if (radix_root_is_run(root))
		return leaf_in_run(table, root, page, leaf);
	if (!radix_root_is_table(root, &level))
		return radix_damaged(page, "the root entry is none");
	if (page >= radix_span(level + 1))
		return 0;
	leaf->table = fmt_frame(root);
	leaf->shared = fmt_is_shared(root);
	entries = radix_entries(table, leaf->table);
	if (!entries)
		return radix_damaged(page, "the root table is outside the pool");
	return leaf_descend(table, entries, level, page, leaf);
}

int mrs_table_leaf(struct mrs_table *table, uint64_t page, struct mrs_leaf *leaf)
{
	struct mrs_leaf found;
	unsigned tries = 0;
	int rc;

	if (page >= RADIX_PAGES_MAX)
		return mrs_fail(-EINVAL, "no page %llu: a page table covers pages 0 to %llu",
				(unsigned long long)page, RADIX_PAGES_MAX - 1);
	while ((rc = leaf_from_root(table, page, &found)) == -ESTALE)
		if (radix_is_hopeless(&tries))
			return radix_damaged(page, RADIX_STALE);
	if (!rc)
		*leaf = found;
	return rc;
}

int mrs_table_parent(struct mrs_table *table, uint64_t page, struct mrs_leaf *parent)
{
	uint64_t root = radix_root(table), *entries;
	struct mrs_leaf at = {.page = mrs_round_down(page, radix_span(1))};
	unsigned level;

	if (!radix_root_is_table(root, &level) || page >= radix_span(level + 1))
		return -ENOENT;
	at.shared = fmt_is_shared(root);
	at.table = fmt_frame(root);
	for (; level; level--) {
		entries = radix_entries(table, at.table);
		if (!entries)
			return radix_damaged(page, "a table is outside the pool");
		at.index = radix_index(page, level);
		at.place = &entries[at.index];
		/* Acquire: pairs with the link of the table. */
		at.entry = mrs_load_acquire(at.place);
		at.level = level;
		at.shared |= fmt_is_shared(at.entry);
		if (fmt_kind(at.entry, level) != FMT_TABLE)
			return -ENOENT;
		if (level > 1)
			at.table = fmt_frame(at.entry);
	}
	if (!at.place)
		return -ENOENT;
	*parent = at;
	return 0;
}

/* ---- split ---- */

/* The table for the pieces: the deposited one, or a new one, which is not settled yet. */
static int split_table(struct mrs_table *table, void *txn, uint64_t deposit, uint64_t *frame,
		       uint64_t **entries)
{
	if (!deposit)
		return mrs_table_get_frame(table, txn, frame, entries);
	*frame = deposit;
	*entries = radix_entries(table, deposit);
	return *entries ? 0
			: mrs_fail(-EINVAL,
				   "the table kept for a split, frame %llu, is not in the pool",
				   (unsigned long long)deposit);
}

int mrs_table_split(struct mrs_table *table, void *txn, struct mrs_leaf *leaf, uint64_t deposit,
		    uint64_t **entries)
{
	uint64_t frame, *pieces, was = leaf->entry;
	int rc;

	MRS_CHECK(leaf->level && leaf->place && mrs_entry_lock(leaf->entry));
	rc = split_table(table, txn, deposit, &frame, &pieces);
	if (rc)
		return rc;
	for (unsigned i = 0; i < RADIX_ENTRIES; i++)
		mrs_store_release(&pieces[i], fmt_piece(was, leaf->level, i));
	MRS_PROBE("table.split.pieces");
	/* Release: who descends sees all pieces. It cannot fail: the leaf is the caller's. */
	if (!mrs_cas(leaf->place, &was, fmt_table(leaf->level - 1, frame)))
		MRS_CHECK(!"a locked leaf was changed by somebody else");
	MRS_PROBE("table.split.done");
	if (!deposit)
		table->ops->settle(table->ctx, txn);
	leaf->table = frame;
	leaf->index = 0;
	leaf->level--;
	leaf->place = pieces;
	leaf->entry = mrs_load_relaxed(pieces);
	*entries = pieces;
	return 0;
}

/* ---- join ---- */

/* The one leaf that 512 would become, or 0: they differ, or are not the pieces of one. */
static uint64_t joined(const uint64_t *entries, unsigned level)
{
	uint64_t first = mrs_load_acquire(&entries[0]);
	uint64_t dirty = 0;

	if (fmt_kind(first, level) != FMT_LEAF || !mrs_entry_lock(first) ||
	    level >= FMT_LEAF_LEVEL || fmt_frame(first) & (radix_span(level + 1) - 1))
		return 0;
	for (unsigned i = 0; i < RADIX_ENTRIES; i++) {
		uint64_t entry = mrs_load_acquire(&entries[i]);

		if ((entry & ~MRS_ENTRY_DIRTY) !=
		    (first & ~MRS_ENTRY_DIRTY) + i * radix_span(level))
			return 0;
		dirty |= entry & MRS_ENTRY_DIRTY;
	}
	return mrs_entry_make(mrs_entry_state(first), level + 1, fmt_frame(first)) |
	       (first & FMT_MARKS) | dirty;
}

int mrs_table_join(struct mrs_table *table, struct mrs_leaf *parent, uint64_t *deposit)
{
	uint64_t was = parent->entry, frame = fmt_frame(was), leaf;
	uint64_t *entries = radix_entries(table, frame);

	MRS_CHECK(parent->place && mrs_entry_state(was) == MRS_ENTRY_TABLE);
	if (!entries)
		return radix_damaged(parent->page, "a table is outside the pool");
	leaf = joined(entries, parent->level - 1);
	if (!leaf)
		return mrs_fail(-EINVAL,
				"pages %llu to %llu cannot become one leaf: they must be locked by "
				"one owner, alike, and on consecutive frames from an aligned one",
				(unsigned long long)parent->page,
				(unsigned long long)(parent->page + radix_span(parent->level) - 1));
	if (!mrs_cas(parent->place, &was, leaf))
		return mrs_fail(-EAGAIN, "the table of pages %llu on has changed meanwhile",
				(unsigned long long)parent->page);
	MRS_PROBE("table.join.linked");
	/* Release: who comes by an old pointer finds our lock, or STALE and with it the new leaf.
	 */
	for (unsigned i = 0; i < RADIX_ENTRIES; i++)
		mrs_store_release(&entries[i], fmt_stale());
	MRS_PROBE("table.join.stale");
	parent->entry = leaf;
	*deposit = frame;
	return 0;
}
