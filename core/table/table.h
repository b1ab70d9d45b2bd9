/*
 * The canonical page table: a 512-ary radix tree of 64-bit entries (pool/format.h) in frames.
 *
 * A morsel's record holds the root entry. A morsel that is one run has no table: its root is a
 * MAPPED entry with the first frame, and the record holds the run's length. Otherwise the root is a
 * TABLE entry, whose level says how much it covers: level 0 table = 512 pages (2 MiB), 1 = 1 GiB, 2
 * = 512 GiB, 3 = 256 TiB. Leafs stand at table level 0 (4 KiB), 1 (2 MiB) and 2 (1 GiB). A page
 * number counts 4 KiB pages from the morsel's start.
 *
 * Concurrency: any number of readers and writers of different leafs in several processes; every
 * change of an entry is a compare-and-swap. A table, once linked, stays until the morsel is trimmed
 * below it by the holder of the record's lock; readers inside a trimmed range re-check the record.
 * Whoever turns a one-run root into something else (set_run, expand, a set that must expand) and
 * whoever trims holds the record's lock.
 *
 * Death: a set or trim that was cut off leaves a table in which every page is as before or as
 * after; tables without leafs may remain and go with the next trim. What expand had half built is
 * named by the word building() and goes with mrs_table_discard().
 *
 * Damage: everything that is read is checked (level, state, alignment, frame inside the pool), so
 * that a hostile table gives -EINVAL in words, and no access outside the pool or endless walk.
 *
 * The room reaches frames only through struct mrs_table_ops, so that it can be tested on plain
 * memory.
 */
#ifndef MRS_TABLE_TABLE_H
#define MRS_TABLE_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "pool/format.h"

#define MRS_TABLE_LEVELS 4 /* 2^36 pages, 256 TiB: no morsel is larger */

struct mrs_table_ops {
	/* The 512 entries in frame; NULL if frame is not in the pool. */
	uint64_t *(*at)(void *ctx, uint64_t frame);
	/* A zeroed table frame, tracked until settle(): negative errno in words or 0. */
	int (*get)(void *ctx, void *txn, uint64_t *frame);
	void (*settle)(void *ctx, void *txn);
	/*
	 * put_begin; the caller unlinks; put_end: the frame is free. order is 0 ... 18; the block
	 * is aligned to it, but may have been got as several blocks or as part of a larger one.
	 * After a get without settle() a put may give the same frame back.
	 */
	void (*put_begin)(void *ctx, void *txn, unsigned order, uint64_t frame);
	void (*put_end)(void *ctx, void *txn);
	/* May be NULL: gives the memory behind a table back, before put_begin. The table is all
	 * zero by then, so that without this the frame goes back zeroed, with its memory. */
	void (*unback)(void *ctx, uint64_t frame);
	/*
	 * May be NULL, where no entry is ever SHARED. has_others: is the frame (a table's, or a
	 * leaf's first) linked anywhere else? Once no, it stays no, as long as the caller has the
	 * record. owe: a link of it is about to go. give_up: it is gone; true if it was the last
	 * after all. put_cancel: nothing is owed, and the frame of put_begin is not ours to put.
	 */
	bool (*has_others)(void *ctx, uint64_t frame);
	void (*owe)(void *ctx, void *txn, unsigned order, uint64_t frame, bool is_table);
	bool (*give_up)(void *ctx, void *txn, uint64_t frame);
	void (*put_cancel)(void *ctx, void *txn);
	/* May be NULL: the caller, who has named nothing, is about to take a table apart that was
	 * SHARED and is his alone now: waits for who came into it by another owner's way. False in
	 * a repair, which does not wait, if there may be somebody: it stays for a later trim. */
	bool (*alone)(void *ctx, void *txn);
	/* May be NULL, where no leaf is ever locked: waits until place is not entry any more. */
	void (*wait)(void *ctx, uint64_t *place, uint64_t entry);
	/* May be NULL: a word of the transition's intent that is 0 but while expand builds tables
	 * that are not linked yet; without it a death in expand leaks them. See
	 * mrs_table_discard(). */
	uint64_t *(*building)(void *ctx, void *txn);
	/* May be NULL: the first frame past the pool, for walks; without it at() is asked, which
	 * then must say yes to every frame below. */
	uint64_t (*frames_end)(void *ctx);
};

struct mrs_table {
	const struct mrs_table_ops *ops;
	void *ctx;
	uint64_t *root;	     /* the record's root entry, in shared memory */
	uint64_t *run_pages; /* the record's run length */
	bool small_leaves;   /* expand makes leaves of one page only */
};

struct mrs_run {
	uint64_t page;	/* first page number */
	uint64_t pages; /* 4 KiB pages */
	uint64_t frame; /* first frame, or 0 for a hole */
	unsigned order; /* of the largest leaf in it: 0, 9, 18 */
	bool mapped;	/* false: a hole (nothing allocated); evicted and poisoned pages have frames
			   too */
	bool evicted;	/* some page of it was not resident when it was looked at */
	bool poisoned;	/* some page of it has lost its content */
	uint64_t away;	/* how many pages of it were evicted or poisoned */
};

/* One leaf, or hole, where it stands. */
struct mrs_leaf {
	uint64_t *place; /* the entry; NULL for the pages of a one-run root */
	uint64_t entry;	 /* as it was read */
	uint64_t page;	 /* first page that it covers */
	unsigned level;	 /* 0: one page, 1: 512, 2: 2^18 */
	uint64_t table;	 /* frame of the table it stands in; 0: the root */
	unsigned index;
	bool shared; /* an entry on the way, or this one, is SHARED */
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
 * Makes the tables that a leaf of this level at page needs, so that mrs_table_set() takes no frame.
 * To be called before the leaf's own frame is got: an allocator local tracks one frame at a time.
 * Tables that it made before an error stay, empty, until the next trim.
 */
int mrs_table_prepare(struct mrs_table *table, void *txn, uint64_t page, unsigned level);

/*
 * Links one leaf of 512^level pages at page (aligned to it), creating tables on the way if
 * mrs_table_prepare() has not; settles the leaf's frame (got by the caller) after the link. Where
 * a table stands already the leaf goes into it as smaller leafs. -EEXIST if a page of it is mapped;
 * -ENOSPC. Then the translation of every page is as it was.
 */
int mrs_table_set(struct mrs_table *table, void *txn, uint64_t page, unsigned level,
		  uint64_t frame);

/*
 * The same for who is not alone with the range: never as smaller leafs, which somebody could see
 * and use before one of them is refused and the others are taken back. -EEXIST where a table
 * stands.
 */
int mrs_table_set_whole(struct mrs_table *table, void *txn, uint64_t page, unsigned level,
			uint64_t frame);

/*
 * Makes the morsel one run of pages from frame without a table (root must be EMPTY, or MAPPED with
 * a run that this one extends in place: same frame, more pages); -EEXIST otherwise. Settles.
 */
int mrs_table_set_run(struct mrs_table *table, void *txn, uint64_t frame, uint64_t pages);

/* Turns a one-run root into a table (largest leaves that alignment of page and frame permits). */
int mrs_table_expand(struct mrs_table *table, void *txn);

/*
 * After a death in expand, for the dead one's building() word: gives the tables back that were not
 * linked, and clears the word. Idempotent; does nothing to a tree that was linked.
 */
void mrs_table_discard(struct mrs_table *table, void *txn, uint64_t *building);

/*
 * The leaf or hole that covers page; -EINVAL damaged. In a one-run root, and beyond the root's
 * reach, it is this one page, without a place. What is found may change at once: whoever acts on it
 * locks it by compare-and-swap from leaf->entry, and begins again where that fails or the entry is
 * STALE.
 */
int mrs_table_leaf(struct mrs_table *table, uint64_t page, struct mrs_leaf *leaf);
/*
 * The entry of level 1 that links the table of page's leafs of one page. -ENOENT without words: the
 * leaf is larger, nothing is there, or the root links that table itself; -EINVAL damaged.
 */
int mrs_table_parent(struct mrs_table *table, uint64_t page, struct mrs_leaf *parent);

/* Lock bits of an entry: 0, or index of the transition + 1. */
static inline uint64_t mrs_entry_lock(uint64_t entry)
{
	return (entry & MRS_ENTRY_LOCK_MASK) >> MRS_ENTRY_LOCK_SHIFT;
}

static inline uint64_t mrs_entry_locked(uint64_t entry, unsigned txn_index)
{
	return (entry & ~MRS_ENTRY_LOCK_MASK) | (uint64_t)(txn_index + 1) << MRS_ENTRY_LOCK_SHIFT;
}

static inline uint64_t mrs_entry_unlocked(uint64_t entry)
{
	return entry & ~MRS_ENTRY_LOCK_MASK;
}

/*
 * The leaf, which the caller has locked (level 1 or 2), becomes a table of 512 leaves one level
 * below with the same state, frames and marks, each locked as the leaf was. A deposited table
 * (MRS_PROP_DEPOSIT) is used where deposit is not 0; else a frame is got: -ENOSPC, then nothing has
 * changed. *entries is the new table, and *leaf becomes its first entry.
 */
int mrs_table_split(struct mrs_table *table, void *txn, struct mrs_leaf *leaf, uint64_t deposit,
		    uint64_t **entries);
/*
 * The reverse: 512 leaves below parent (its place, level, page and entry, which names the table),
 * all locked by the caller and on consecutive frames from an aligned one, become one leaf. It is
 * DIRTY if one of them is; in all else they must be alike: -EINVAL. -EAGAIN if the parent's entry
 * has changed. The table's entries become STALE and its frame is *deposit; the caller has named it
 * (intent, DEPOSIT property) before. The new leaf is locked as they were.
 */
int mrs_table_join(struct mrs_table *table, struct mrs_leaf *parent, uint64_t *deposit);

/*
 * The longest run that begins at page, seen up to limit pages: a hole or consecutive frames. Pages
 * that are evicted or poisoned have their frames too: who wants memory looks at run->away.
 * -EINVAL damaged.
 */
int mrs_table_lookup(struct mrs_table *table, uint64_t page, uint64_t limit, struct mrs_run *run);

/* Calls fn for each maximal run of [page, page + pages), holes included; non-zero ends it. */
int mrs_table_each_run(struct mrs_table *table, uint64_t page, uint64_t pages,
		       int (*fn)(void *ctx, const struct mrs_run *run), void *ctx);

/*
 * Takes everything at and beyond page away: for each leaf calls release(ctx, frame, order), which
 * gives the memory behind it back, then put_begin, clears the entry, put_end; then frees the tables
 * that lie wholly at and beyond page. Idempotent: after a death it is called again. A leaf that
 * straddles page is split first (new table, smaller leaves) - -ENOSPC if no frame for that is left:
 * then no translation has changed. A damaged entry is cleared, and what it names is not given back.
 */
int mrs_table_trim(struct mrs_table *table, void *txn, uint64_t page,
		   void (*release)(void *ctx, uint64_t frame, unsigned order), void *ctx);

/*
 * Every frame in use: leaf ranges and tables, for walks; a non-zero answer of fn ends it. Bounded
 * and safe on a hostile table: each table is visited once, and what is damaged is left out (-EINVAL
 * at the end). -ENOMEM.
 */
int mrs_table_walk(struct mrs_table *table,
		   int (*fn)(void *ctx, uint64_t frame, uint64_t count, bool is_table), void *ctx);

/*
 * Every entry in use, each table before what is below it; for a one-run root, the root alone (place
 * is the root, level 0). fn answers 0 to go on, MRS_TABLE_SKIP not to enter this table, else the
 * walk ends with its answer. Bounded and safe as mrs_table_walk().
 */
#define MRS_TABLE_SKIP INT32_MIN
int mrs_table_each_entry(struct mrs_table *table,
			 int (*fn)(void *ctx, const struct mrs_leaf *entry, bool is_table),
			 void *ctx);

/* Every invariant; findings in words; returns how many. */
int mrs_table_validate(struct mrs_table *table, uint64_t pages,
		       void (*report)(void *ctx, const char *finding), void *ctx);

#endif
