/*
 * The canonical page table: a 512-ary radix tree of 64-bit entries (pool/format.h) in frames.
 *
 * A morsel's record holds the root entry. A morsel that is one run has no table: its root is a MAPPED
 * entry with the first frame, and the record holds the run's length. Otherwise the root is a TABLE
 * entry, whose level says how much it covers: level 0 table = 512 pages (2 MiB), 1 = 1 GiB, 2 = 512
 * GiB, 3 = 256 TiB. Leafs stand at table level 0 (4 KiB), 1 (2 MiB) and 2 (1 GiB). A page number
 * counts 4 KiB pages from the morsel's start.
 *
 * Concurrency: any number of readers and writers of different leafs in several processes; every
 * change of an entry is a compare-and-swap. A table, once linked, stays until the morsel is trimmed
 * below it by the holder of the record's lock; readers inside a trimmed range re-check the record.
 *
 * The room reaches frames only through struct mrs_table_ops, so that it can be tested on plain memory.
 */
#ifndef MRS_TABLE_TABLE_H
#define MRS_TABLE_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "pool/format.h"

#define MRS_TABLE_LEVELS 4 /* 2^39 pages at most: beyond the 40-bit frame number no morsel can be */

struct mrs_table_ops {
	/* The 512 entries in frame; NULL if frame is not in the pool. */
	uint64_t *(*at)(void *ctx, uint64_t frame);
	/* A zeroed table frame, tracked until settle(): negative errno in words or 0. */
	int (*get)(void *ctx, void *txn, uint64_t *frame);
	void (*settle)(void *ctx, void *txn);
	/* put_begin; the caller unlinks; put_end: the frame is free. */
	void (*put_begin)(void *ctx, void *txn, unsigned order, uint64_t frame);
	void (*put_end)(void *ctx, void *txn);
};

struct mrs_table {
	const struct mrs_table_ops *ops;
	void *ctx;
	uint64_t *root;	      /* the record's root entry, in shared memory */
	uint64_t *run_pages;  /* the record's run length */
};

struct mrs_run {
	uint64_t page;	/* first page number */
	uint64_t pages; /* 4 KiB pages */
	uint64_t frame; /* first frame, or 0 for a hole */
	unsigned order; /* of the largest leaf in it: 0, 9, 18 */
	bool mapped;	/* false: a hole (nothing allocated) */
};

/* Entry values: plain functions, tested without threads. */
static inline uint64_t mrs_entry_frame(uint64_t entry)
{
	return entry & MRS_ENTRY_FRAME_MASK;
}

static inline unsigned mrs_entry_level(uint64_t entry)
{
	return entry >> MRS_ENTRY_LEVEL_SHIFT & 3;
}

static inline enum mrs_entry_state mrs_entry_state(uint64_t entry)
{
	return (enum mrs_entry_state)(entry >> MRS_ENTRY_STATE_SHIFT & 15);
}

static inline uint64_t mrs_entry_make(enum mrs_entry_state state, unsigned level, uint64_t frame)
{
	return (uint64_t)state << MRS_ENTRY_STATE_SHIFT | (uint64_t)level << MRS_ENTRY_LEVEL_SHIFT |
	       (frame & MRS_ENTRY_FRAME_MASK);
}

/* What is wrong with an entry read at a table of this level, or NULL: for entries from a file. */
const char *mrs_entry_problem(uint64_t entry, unsigned level);

/*
 * Links one leaf of 2^(9 * level) pages at page (aligned to it), creating tables on the way; settles
 * the leaf's frame (got by the caller) after the link. -EEXIST if the page is mapped; -ENOSPC.
 * If the table is empty and page is 0 .. the caller may use mrs_table_set_run() instead.
 */
int mrs_table_set(struct mrs_table *table, void *txn, uint64_t page, unsigned level, uint64_t frame);

/*
 * Makes the morsel one run of pages from frame without a table (root must be EMPTY, or MAPPED with a
 * run that this one extends in place); -EEXIST otherwise.
 */
int mrs_table_set_run(struct mrs_table *table, void *txn, uint64_t frame, uint64_t pages);

/* Turns a one-run root into a table (largest leaves that alignment of page and frame permits). */
int mrs_table_expand(struct mrs_table *table, void *txn);

/* The longest run that begins at page, seen up to limit pages: a hole or consecutive frames. */
int mrs_table_lookup(struct mrs_table *table, uint64_t page, uint64_t limit, struct mrs_run *run);

/* Calls fn for each maximal run of [page, page + pages), holes included; non-zero ends it. */
int mrs_table_each_run(struct mrs_table *table, uint64_t page, uint64_t pages,
		       int (*fn)(void *ctx, const struct mrs_run *run), void *ctx);

/*
 * Takes everything at and beyond page away: for each leaf calls release(ctx, frame, order), which
 * gives the memory behind it back, then put_begin, clears the entry, put_end; then frees tables that
 * have become empty. Idempotent: after a death it is called again. A leaf that straddles page is
 * split first (new table, smaller leaves) - -ENOSPC if no frame for that is left, with nothing changed.
 */
int mrs_table_trim(struct mrs_table *table, void *txn, uint64_t page,
		   void (*release)(void *ctx, uint64_t frame, unsigned order), void *ctx);

/* Every frame in use: leaf ranges and tables, for walks. Bounded and safe on a hostile table. */
int mrs_table_walk(struct mrs_table *table,
		   int (*fn)(void *ctx, uint64_t frame, uint64_t count, bool is_table), void *ctx);

/* Every invariant; findings in words; returns how many. */
int mrs_table_validate(struct mrs_table *table, uint64_t pages,
		       void (*report)(void *ctx, const char *finding), void *ctx);

#endif
