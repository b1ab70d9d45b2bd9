/*
 * Sharing after a clone: who owns what, and how a write makes a page one's own.
 *
 * An entry marked SHARED names a frame (a page's, or a table's) that has other owners too, as many as
 * its SHARES property says; without the property it is the only owner, and the mark is old. A subtree
 * under a SHARED entry belongs to all owners: evicting and filling a page of it happens in place, for
 * all of them at once; writing to it first copies the tables on the way and then the page.
 * Relatives share frames only at the same page number.
 *
 *	source root --SHARED--+			source root -> T' -+-> [own] ... write by the source
 *			      +-> T -> leafs	  clone root -> T -+-> [SHARED] leafs of both
 *	clone root ---SHARED--+
 *
 * Invariants, which morsel_pool_check() looks at:
 *	links to a frame, each table counted once  =  1 + SHARES of the frame
 *	more than one link to a frame  =>  each of the links is marked SHARED
 * What this asks of who retargets a leaf:
 *	marked SHARED itself, and the frame has others: it is not evicted, moved, promoted or split,
 *	for other entries name the same frame; it is filled as any other. SHARED only above it: in
 *	place, for all. Moving asks for neither. The mark stays when an entry is replaced.
 */
#ifndef MRS_OBJECT_SHARE_H
#define MRS_OBJECT_SHARE_H

#include "object/retarget.h"

/* How many clones of clones there may be between a morsel and the first of its family. */
#define MRS_CLONE_DEPTH_MAX 64

/* ---- counts (share.c) ---- */

/* Is page reached through any SHARED entry (from the root down, the leaf included)? */
bool mrs_share_is_shared(struct morsel *morsel, uint64_t page);
/* Has anything in the pool ever been cloned? While not, nothing is SHARED. */
bool mrs_share_is_any(struct morsel_pool *pool);
/* Is the frame linked anywhere else? Once no, it stays no, as long as the caller has the record. */
bool mrs_share_has_others(struct morsel_pool *pool, uint64_t frame);
/* One link more. -ENOSPC in words, unless mrs_prop_reserve() has seen to it. */
int mrs_share_add(struct mrs_txn *txn, uint64_t frame);
/*
 * One link is given up. True if it was the last: then the frames are the caller's to give back.
 */
bool mrs_share_drop(struct mrs_txn *txn, uint64_t frame);
/*
 * After a death in a clone, break, split or free, in its own lent transition; gate closed: counts all
 * links anew from the tables, and takes apart what the dead one has unlinked and nobody links. False:
 * somebody is in the middle of something there; not yet.
 */
bool mrs_share_recount(struct mrs_txn *txn);
/* Both invariants, in words, and every frame of every morsel that has relatives, once; gate closed. */
void mrs_share_check(struct morsel_pool *pool,
		     void (*owned)(void *ctx, uint64_t frame, uint64_t count, const char *by),
		     morsel_report_fn report, void *ctx);
/* Has the morsel, or had it, relatives? Then mrs_share_check() walks it. */
bool mrs_share_is_family(const struct morsel *morsel);

/*
 * Tables that others of the family may still look at go when no retarget of the family is under way
 * that was there before: waits for that, parked. False if somebody stands still in one.
 */
bool mrs_share_grace(struct mrs_txn *txn, struct morsel *morsel);

/* ---- links that go (owe.c) ---- */

/* What a transition has unlinked, or is about to, and not given up: a table's frame, or pages. */
struct mrs_owed {
	uint64_t frame;
	unsigned order;
	bool is_table;
};

/* From before the link goes until it is given up; the put names the frame too. */
void mrs_share_owe(struct mrs_txn *txn, unsigned order, uint64_t frame, bool is_table);
void mrs_share_owe_nothing(struct mrs_txn *txn);
bool mrs_share_owes(const struct mrs_txn *txn);
bool mrs_share_owed(const struct mrs_intent *intent, struct mrs_owed *owed);
/* Calls fn for what anybody owes, or is about to link; a non-zero answer ends it and is returned. */
int mrs_share_each_owed(struct morsel_pool *pool,
			int (*fn)(void *ctx, uint64_t frame, uint64_t count, const char *by),
			void *ctx);
/*
 * It was the last link, and nobody is in it any more: what is owed goes, and what it alone links. With a
 * count of one's own of what has no other link: in a repair.
 */
void mrs_share_bury(struct mrs_txn *txn);
void mrs_share_bury_owed(struct mrs_txn *txn, bool (*is_last)(void *ctx, uint64_t frame),
			 void *ctx);

/* ---- break (break.c) ---- */

/*
 * Makes pages [page, page + pages) private to the morsel: tables on the way are copied, then each page
 * that has other owners. Waits for leaf locks, takes frames: outside any transition. Views of the
 * morsel that mapped the old frame are made to follow (or the others are, where this one's are pooled
 * and keep the frame). -ENOSPC in words. Async-signal-safe for one page.
 */
int mrs_share_break(struct morsel *morsel, uint64_t page, uint64_t pages);

/*
 * Inside a transition that names the morsel in cell[0]: makes the tables on the way to page private,
 * so that a leaf can be linked or unlinked there. For fill, growth and shrinking.
 */
int mrs_share_own_tables(struct morsel *morsel, struct mrs_txn *txn, uint64_t page);
/*
 * Begins a transition of this op that names the morsel in cell[0]: no clone of the morsel is under way
 * in it, and none begins to share before it ends. For who links pages beside others.
 */
int mrs_share_begin(struct morsel *morsel, enum mrs_intent_op op, uint64_t page,
		    struct mrs_txn *txn);

/* In a repair: what a death left locked or half split here. Before mrs_share_recount(). False: views
 * of the living have to follow first; not yet. */
bool mrs_share_repair(struct mrs_txn *txn);

/* ---- quarantine (quarantine.c) ---- */

/*
 * For who moves a page, with its leaf locked: claims the cell for frames [frame, frame + 2^order), which
 * the page is still on, and notes it in intent->cell[1]. -ENOSPC in words.
 */
int mrs_quarantine_claim(struct mrs_txn *txn, struct morsel *morsel, uint64_t page, uint64_t frame,
			 unsigned order);
/* The page stays where it is. */
void mrs_quarantine_unclaim(struct mrs_txn *txn);
/* The page's entry, still locked, names another frame: the old number is in quarantine, its memory gone. */
void mrs_quarantine_enter(struct mrs_txn *txn);
/* Then: which of the morsel's moves it was. */
void mrs_quarantine_number(struct mrs_txn *txn, uint64_t move);
/* In a repair, of a dead mover: the leaf names the frame linked. */
void mrs_quarantine_repair(struct mrs_txn *txn, uint64_t linked);

/* Gives back what nobody can reach any more; returns frames still there. Outside any transition. */
uint64_t mrs_quarantine_sweep(struct morsel_pool *pool);
/*
 * In the pager, now and then, outside any transition: asks the processes that have views which lag
 * behind, for they were stopped, or a letter came too late, to catch up. A stopped one delays it by 20 ms.
 */
void mrs_quarantine_hurry(struct morsel_pool *pool);
/* Pages of the morsel that have left frames which views of this process may still show. */
struct mrs_left {
	uint64_t page, pages;
	uint64_t move; /* its number; 0: of a mover who died before he noted it */
};
int mrs_quarantine_left(struct morsel_pool *pool, uint64_t record,
			int (*fn)(void *ctx, const struct mrs_left *left), void *ctx);
/* A slot is dead: its bits go. */
void mrs_quarantine_forget(struct morsel_pool *pool, unsigned slot);
/* Frames in quarantine, for checks; a non-zero answer ends it. */
int mrs_quarantine_each(struct morsel_pool *pool,
			int (*fn)(void *ctx, uint64_t frame, uint64_t count, const char *by),
			void *ctx);

#endif
