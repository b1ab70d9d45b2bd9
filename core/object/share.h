/*
 * Sharing after a clone: who owns what, and how a write makes a page one's own.
 *
 * An entry marked SHARED names a frame (a page's, or a table's) that has other owners too, as many as
 * its SHARES property says; without the property it is the only owner, and the mark is old. A subtree
 * under a SHARED entry belongs to all owners: evicting and filling a page of it happens in place, for
 * all of them at once; writing to it first copies the tables on the way and then the page.
 * Relatives share frames only at the same page number.
 */
#ifndef MRS_OBJECT_SHARE_H
#define MRS_OBJECT_SHARE_H

#include "object/retarget.h"

/* How many clones of clones there may be between a morsel and the first of its family. */
#define MRS_CLONE_DEPTH_MAX 64

/* Is page reached through any SHARED entry (from the root down, the leaf included)? */
bool mrs_share_is_shared(struct morsel *morsel, uint64_t page);

/*
 * Makes pages [page, page + pages) private to the morsel: tables on the way are copied, then each page
 * that has other owners. Waits for leaf locks, takes frames: outside any transition. Views of the
 * morsel that mapped the old frame are made to follow (or the others are, where this one's are pooled
 * and keep the frame). -ENOSPC in words. Async-signal-safe for one page.
 */
int mrs_share_break(struct morsel *morsel, uint64_t page, uint64_t pages);

/*
 * For trim: one reference to the frames is given up. True if it was the last: then they are the
 * caller's to give back.
 */
bool mrs_share_drop(struct mrs_txn *txn, uint64_t frame);
/* Counts all references anew from the tables; gate closed, after a death in a clone, break or free. */
void mrs_share_recount(struct morsel_pool *pool);

/* After a move or break: old frames wait until nobody in slots maps them; REMAP mail is sent. */
int mrs_quarantine_put(struct mrs_txn *txn, struct morsel *morsel, uint64_t page, uint64_t frame,
		       unsigned order);
/* Asks again those who are waited for, gives back what nobody reaches; returns frames still there. */
uint64_t mrs_quarantine_sweep(struct morsel_pool *pool);
/* A slot is dead or has remapped: its bit goes. */
void mrs_quarantine_forget(struct morsel_pool *pool, unsigned slot, uint64_t record);

#endif
