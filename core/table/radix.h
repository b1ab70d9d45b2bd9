/*
 * The radix algorithm's own vocabulary, shared by the files of this room.
 *
 * A table of level l has 512 entries; each covers span(l) = 512^l pages. The root entry lives in
 * the morsel's record and is the same kind of word. "Place" is a pointer to an entry in shared
 * memory.
 *
 *      root --> level 2 table          entry: 1 GiB leaf, or a table of level 1
 *                 [i] --> level 1 table          entry: 2 MiB leaf, or a table of level 0
 *                           [j] --> level 0 table          entry: 4 KiB leaf
 *
 * Depth is bounded by level: an entry that names a table of any level but the next lower is
 * damaged.
 */
#ifndef MRS_TABLE_RADIX_H
#define MRS_TABLE_RADIX_H

#include "base/atomic.h"
#include "base/base.h"
#include "table/format_canonical.h"
#include "table/table.h"

#define RADIX_ENTRIES (1u << FMT_BITS)
#define RADIX_PAGES_MAX \
	(1ull << FMT_BITS * FMT_LEVELS) /* what a root of the highest level covers */

/* Pages that one entry of a table of this level covers; span(l + 1): pages of the whole table. */
static inline uint64_t radix_span(unsigned level)
{
	return 1ull << FMT_BITS * level;
}

static inline unsigned radix_index(uint64_t page, unsigned level)
{
	return page >> FMT_BITS * level & (RADIX_ENTRIES - 1);
}

/* The entries of the table in frame, or NULL if the pool has no such frame. */
static inline uint64_t *radix_entries(const struct mrs_table *table, uint64_t frame)
{
	return frame ? table->ops->at(table->ctx, frame) : NULL;
}

/* True if all of the frames are in the pool. Both numbers are below 2^41: no overflow. */
static inline bool radix_in_pool(const struct mrs_table *table, uint64_t frame, uint64_t count)
{
	return frame && count && table->ops->at(table->ctx, frame) &&
	       table->ops->at(table->ctx, frame + count - 1);
}

/*
 * Reads the root. Acquire: pairs with the release of the compare-and-swap that linked it, so that
 * the table's content, or the run's length, is seen as it was before the link.
 */
static inline uint64_t radix_root(const struct mrs_table *table)
{
	return mrs_load_acquire(table->root);
}

/* A root that is a run stands, whatever its length, as a leaf of level 0. */
static inline bool radix_root_is_run(uint64_t root)
{
	return fmt_kind(root, 0) == FMT_LEAF;
}

/* A root that is a table tells its own level; false if the root is damaged. */
static inline bool radix_root_is_table(uint64_t root, unsigned *level)
{
	unsigned own = mrs_entry_level(root);

	if (fmt_kind(root, own + 1) != FMT_TABLE)
		return false;
	*level = own;
	return true;
}

/* -EINVAL in words: what is wrong in a table that somebody damaged. */
int radix_damaged(uint64_t page, const char *problem);

/* Why a search that met only stale entries gives up: nobody leaves them linked for so long. */
#define RADIX_STALE    "a table that was replaced is still linked"
#define RADIX_RESTARTS 10000u

/* Counts a restart at the root after a stale entry: true if it is time to give up. */
static inline bool radix_is_hopeless(unsigned *tries)
{
	mrs_spin_hint();
	return ++*tries > RADIX_RESTARTS;
}

/* The level of the largest leaf that may stand at page of a run of pages from frame. */
static inline unsigned radix_leaf_level(uint64_t page, uint64_t pages, uint64_t frame)
{
	unsigned level = FMT_LEAF_LEVEL;

	while (level && ((page | (frame + page)) & (radix_span(level) - 1) ||
			 page + radix_span(level) > pages))
		level--;
	return level;
}

#endif
