/*
 * The canonical format, as the radix algorithm needs it: what an entry says and how one is made.
 *
 * All that is special to this format stands here; radix.h and the files beside it know only kinds,
 * levels and frames. Another format (x86-64, VT-d) is another small file of these functions.
 * An entry comes from shared memory that anybody may have damaged: fmt_kind() judges it first.
 */
#ifndef MRS_TABLE_FORMAT_CANONICAL_H
#define MRS_TABLE_FORMAT_CANONICAL_H

#include "table/table.h"

#define FMT_LEVELS     MRS_TABLE_LEVELS
#define FMT_LEAF_LEVEL 2 /* highest level at which a leaf may stand: 1 GiB */
#define FMT_BITS       9 /* of the page number that one level takes */

enum fmt_kind {
	FMT_EMPTY, /* nothing there */
	FMT_TABLE, /* fmt_frame() is a table of the level below */
	FMT_LEAF,  /* fmt_frame() is the first of the leaf's frames, resident or not */
	FMT_STALE, /* of a table that was replaced: begin again at the root */
	FMT_BAD,   /* no entry that we make: mrs_entry_problem() says why */
};

/* Bits that a service sets beside the translation: they change under a reader's eyes. */
#define FMT_MARKS (MRS_ENTRY_DIRTY | MRS_ENTRY_SHARED | MRS_ENTRY_LOCK_MASK)

/* level is that of the table in which the entry stands. */
static inline enum fmt_kind fmt_kind(uint64_t entry, unsigned level)
{
	if (!entry)
		return FMT_EMPTY;
	if (mrs_entry_problem(entry, level))
		return FMT_BAD;
	switch (mrs_entry_state(entry)) {
	case MRS_ENTRY_EMPTY:
		return FMT_EMPTY;
	case MRS_ENTRY_TABLE:
		return FMT_TABLE;
	case MRS_ENTRY_STALE:
		return FMT_STALE;
	default:
		return FMT_LEAF;
	}
}

static inline uint64_t fmt_frame(uint64_t entry)
{
	return mrs_entry_frame(entry);
}

static inline uint64_t fmt_table(unsigned level, uint64_t frame)
{
	return mrs_entry_make(MRS_ENTRY_TABLE, level, frame);
}

static inline uint64_t fmt_leaf(unsigned level, uint64_t frame)
{
	return mrs_entry_make(MRS_ENTRY_MAPPED, level, frame);
}

/* Piece number index of a leaf of this level, as a leaf one level below with its marks and lock. */
static inline uint64_t fmt_piece(uint64_t leaf, unsigned level, unsigned index)
{
	uint64_t frame = fmt_frame(leaf) + ((uint64_t)index << FMT_BITS * (level - 1));
	uint64_t marks = leaf & FMT_MARKS;

	return mrs_entry_make(mrs_entry_state(leaf), level - 1, frame) | marks;
}

static inline uint64_t fmt_stale(void)
{
	return mrs_entry_make(MRS_ENTRY_STALE, 0, 0);
}

/* Is there memory behind the leaf, as far as the table knows? */
static inline bool fmt_is_resident(uint64_t leaf)
{
	return mrs_entry_state(leaf) == MRS_ENTRY_MAPPED;
}

static inline bool fmt_is_poisoned(uint64_t leaf)
{
	return mrs_entry_state(leaf) == MRS_ENTRY_POISONED;
}

static inline bool fmt_is_shared(uint64_t entry)
{
	return entry & MRS_ENTRY_SHARED;
}

#endif
