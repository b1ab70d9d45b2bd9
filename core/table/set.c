/*
 * Linking leafs: growth in height, tables on the way, and the leaf itself. See table.h.
 *
 * Every step is one compare-and-swap of one entry, from empty to a table or leaf, or of the root to
 * a table that holds the old root as its first entry. So a death between two steps leaves every
 * page as it was, and of two threads that make the same table one gives its frame back.
 */
#include <errno.h>

#include "base/probe.h"
#include "table/radix.h"
#include "table/internal.h"

int mrs_table_get_frame(struct mrs_table *table, void *txn, uint64_t *frame, uint64_t **entries)
{
	uint64_t *at;
	int rc = table->ops->get(table->ctx, txn, frame);

	if (rc)
		return rc;
	at = radix_entries(table, *frame);
	if (!at) {
		table->ops->settle(table->ctx, txn);
		return mrs_fail(-EINVAL,
				"the allocator gave frame %llu, which is not in the pool: "
				"its metadata is damaged; see `morsel pool check`",
				(unsigned long long)*frame);
	}
	*entries = at;
	MRS_PROBE("table.frame.got");
	return 0;
}

/* A frame that was got and not linked: back, as zeroed as it came. */
static void unget_frame(struct mrs_table *table, void *txn, uint64_t frame)
{
	table->ops->put_begin(table->ctx, txn, 0, frame);
	table->ops->put_end(table->ctx, txn);
	table->ops->settle(table->ctx, txn);
}

/*
 * Replaces *place, which was expected, by a new table of this level whose first entry is first.
 * 0 also if somebody else was quicker: the caller reads *place again.
 */
static int link_table(struct mrs_table *table, void *txn, uint64_t *place, uint64_t expected,
		      unsigned level, uint64_t first)
{
	uint64_t frame, *entries;
	int rc = mrs_table_get_frame(table, txn, &frame, &entries);

	if (rc)
		return rc;
	mrs_store_relaxed(&entries[0], first);
	/* Release: whoever loads the link with acquire sees the table zeroed, and its first entry.
	 */
	if (!mrs_cas(place, &expected, fmt_table(level, frame))) {
		mrs_store_relaxed(&entries[0], 0);
		unget_frame(table, txn, frame);
		MRS_PROBE("table.link.lost");
		return 0;
	}
	MRS_PROBE("table.link.linked");
	table->ops->settle(table->ctx, txn);
	return 0;
}

/* The lowest level whose table reaches last and can hold a leaf of leaf_level. */
static unsigned level_for(uint64_t last, unsigned leaf_level)
{
	unsigned level = leaf_level;

	while (last >= radix_span(level + 1))
		level++;
	return level;
}

/* Makes the root a table that can take a leaf of this level which ends at page last. */
static int root_reach(struct mrs_table *table, void *txn, uint64_t page, uint64_t last,
		      unsigned leaf_level, uint64_t **entries, unsigned *level)
{
	for (;;) {
		uint64_t root = radix_root(table);
		int rc;

		if (radix_root_is_run(root)) {
			if (page < mrs_load_relaxed(table->run_pages))
				return mrs_fail(-EEXIST, "page %llu is mapped already",
						(unsigned long long)page);
			rc = mrs_table_expand(table, txn);
		} else if (fmt_kind(root, 0) == FMT_EMPTY) {
			rc = link_table(table, txn, table->root, root, level_for(last, leaf_level),
					0);
		} else if (!radix_root_is_table(root, level)) {
			return radix_damaged(page, "the root entry is none");
		} else if (last >= radix_span(*level + 1) || *level < leaf_level) {
			rc = link_table(table, txn, table->root, root, *level + 1, root);
		} else {
			*entries = radix_entries(table, fmt_frame(root));
			return *entries ? 0
					: radix_damaged(page, "the root table is outside the "
							      "pool");
		}
		if (rc)
			return rc;
	}
}

/*
 * Finds the place for the leaf, making tables down to it. -ESTALE without words where a table was
 * replaced meanwhile: begin again.
 */
static int find_place(struct mrs_table *table, void *txn, uint64_t page, unsigned leaf_level,
		      uint64_t **place)
{
	uint64_t *entries;
	unsigned level = 0;
	int rc = root_reach(table, txn, page, page + radix_span(leaf_level) - 1, leaf_level,
			    &entries, &level);

	if (rc)
		return rc;
	while (level > leaf_level) {
		uint64_t *here = &entries[radix_index(page, level)];
		uint64_t entry = mrs_load_acquire(here);

		switch (fmt_kind(entry, level)) {
		case FMT_EMPTY:
			rc = link_table(table, txn, here, entry, level - 1, 0);
			if (rc)
				return rc;
			break;
		case FMT_TABLE:
			entries = radix_entries(table, fmt_frame(entry));
			if (!entries)
				return radix_damaged(page, "a table is outside the pool");
			level--;
			break;
		case FMT_LEAF:
			return mrs_fail(-EEXIST, "page %llu is mapped already",
					(unsigned long long)page);
		case FMT_STALE:
			return -ESTALE;
		default:
			return radix_damaged(page, mrs_entry_problem(entry, level));
		}
	}
	*place = &entries[radix_index(page, leaf_level)];
	return 0;
}

static int put_leaf(struct mrs_table *table, uint64_t *place, unsigned level, uint64_t page,
		    uint64_t leaf);

/* Clears what put_below() linked: entries [0, end) of a table of this level. */
static void undo_below(struct mrs_table *table, uint64_t *entries, unsigned level, unsigned end)
{
	while (end--) {
		uint64_t entry = mrs_load_acquire(&entries[end]);

		uint64_t *below = NULL;

		if (fmt_kind(entry, level) == FMT_TABLE)
			below = radix_entries(table, fmt_frame(entry));
		if (below)
			undo_below(table, below, level - 1, RADIX_ENTRIES);
		else
			mrs_cas(&entries[end], &entry, 0);
	}
}

/* A leaf of the level above, as smaller ones into the table that stands where it should go. */
static int put_below(struct mrs_table *table, uint64_t *entries, unsigned level, uint64_t page,
		     uint64_t leaf)
{
	for (unsigned i = 0; i < RADIX_ENTRIES; i++) {
		int rc = put_leaf(table, &entries[i], level, page + i * radix_span(level),
				  fmt_piece(leaf, level + 1, i));

		if (rc) {
			undo_below(table, entries, level, i);
			return rc;
		}
	}
	return 0;
}

static int put_leaf(struct mrs_table *table, uint64_t *place, unsigned level, uint64_t page,
		    uint64_t leaf)
{
	uint64_t entry = mrs_load_acquire(place);

	for (;;) {
		uint64_t *entries;

		switch (fmt_kind(entry, level)) {
		case FMT_EMPTY:
			/* Release: the reader of the leaf sees the memory as its setter left it. */
			if (!mrs_cas(place, &entry, leaf))
				continue;
			return 0;
		case FMT_TABLE:
			entries = radix_entries(table, fmt_frame(entry));
			if (!entries)
				return radix_damaged(page, "a table is outside the pool");
			return put_below(table, entries, level - 1, page, leaf);
		case FMT_LEAF:
			return mrs_fail(-EEXIST, "page %llu is mapped already",
					(unsigned long long)page);
		case FMT_STALE:
			return -ESTALE;
		default:
			return radix_damaged(page, mrs_entry_problem(entry, level));
		}
	}
}

static int check_place(uint64_t page, unsigned level)
{
	if (level > FMT_LEAF_LEVEL)
		return mrs_fail(-EINVAL, "no leaf of level %u: the highest is %u (1 GiB)", level,
				FMT_LEAF_LEVEL);
	if (page & (radix_span(level) - 1) || page >= RADIX_PAGES_MAX)
		return mrs_fail(-EINVAL,
				"no leaf of %llu pages at page %llu: it must be aligned to its "
				"size and below page %llu",
				(unsigned long long)radix_span(level), (unsigned long long)page,
				RADIX_PAGES_MAX);
	return 0;
}

static int find_fresh_place(struct mrs_table *table, void *txn, uint64_t page, unsigned level,
			    uint64_t **place)
{
	unsigned tries = 0;
	int rc;

	while ((rc = find_place(table, txn, page, level, place)) == -ESTALE)
		if (radix_is_hopeless(&tries))
			return radix_damaged(page, RADIX_STALE);
	return rc;
}

int mrs_table_prepare(struct mrs_table *table, void *txn, uint64_t page, unsigned level)
{
	uint64_t *place;
	int rc = check_place(page, level);

	return rc ? rc : find_fresh_place(table, txn, page, level, &place);
}

/* The leaf as one entry or not at all: where a table stands it is refused. */
static int put_whole(uint64_t *place, unsigned level, uint64_t page, uint64_t leaf)
{
	uint64_t entry = 0;

	/* Release: as in put_leaf(). */
	if (mrs_cas(place, &entry, leaf))
		return 0;
	switch (fmt_kind(entry, level)) {
	case FMT_TABLE:
	case FMT_LEAF:
		return mrs_fail(-EEXIST, "page %llu is mapped already, or a table stands there",
				(unsigned long long)page);
	case FMT_STALE:
		return -ESTALE;
	default:
		return radix_damaged(page, mrs_entry_problem(entry, level));
	}
}

static int set_leaf(struct mrs_table *table, void *txn, uint64_t page, unsigned level,
		    uint64_t frame, bool whole)
{
	unsigned tries = 0;
	uint64_t *place;
	int rc = check_place(page, level);

	if (rc)
		return rc;
	if (frame & (radix_span(level) - 1) || !radix_in_pool(table, frame, radix_span(level)))
		return mrs_fail(-EINVAL,
				"frame %llu cannot be a leaf of %llu pages: it must be in the pool "
				"and aligned to that size",
				(unsigned long long)frame, (unsigned long long)radix_span(level));
	do {
		rc = find_fresh_place(table, txn, page, level, &place);
		if (rc)
			return rc;
		MRS_PROBE("table.set.place");
		rc = whole ? put_whole(place, level, page, fmt_leaf(level, frame))
			   : put_leaf(table, place, level, page, fmt_leaf(level, frame));
	} while (rc == -ESTALE && !radix_is_hopeless(&tries));
	if (rc == -ESTALE)
		return radix_damaged(page, RADIX_STALE);
	if (rc)
		return rc;
	MRS_PROBE("table.set.linked");
	table->ops->settle(table->ctx, txn);
	return 0;
}

int mrs_table_set(struct mrs_table *table, void *txn, uint64_t page, unsigned level, uint64_t frame)
{
	return set_leaf(table, txn, page, level, frame, false);
}

int mrs_table_set_whole(struct mrs_table *table, void *txn, uint64_t page, unsigned level,
			uint64_t frame)
{
	return set_leaf(table, txn, page, level, frame, true);
}

int mrs_table_set_run(struct mrs_table *table, void *txn, uint64_t frame, uint64_t pages)
{
	uint64_t root = radix_root(table);
	uint64_t had = 0;

	if (!pages || pages > RADIX_PAGES_MAX || !radix_in_pool(table, frame, pages))
		return mrs_fail(-EINVAL, "frames %llu to %llu cannot be a run: not in the pool",
				(unsigned long long)frame, (unsigned long long)(frame + pages - 1));
	if (radix_root_is_run(root))
		had = mrs_load_relaxed(table->run_pages);
	else if (fmt_kind(root, 0) != FMT_EMPTY)
		return mrs_fail(-EEXIST, "the morsel has a page table already");
	if (had && (fmt_frame(root) != frame || pages < had))
		return mrs_fail(-EEXIST, "the morsel is a run of %llu pages already",
				(unsigned long long)had);
	/* The length first: a reader that sees the root (acquire) must see it. */
	mrs_store_release(table->run_pages, pages);
	MRS_PROBE("table.run.length");
	if (!had && !mrs_cas(table->root, &root, fmt_leaf(0, frame)))
		return mrs_fail(-EEXIST, "the morsel got a page table meanwhile");
	MRS_PROBE("table.run.linked");
	table->ops->settle(table->ctx, txn);
	return 0;
}
