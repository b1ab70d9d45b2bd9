/*
 * What the files of breaking ask of each other: see share.h.
 */
#ifndef MRS_OBJECT_BREAK_H
#define MRS_OBJECT_BREAK_H

#include "object/share.h"

/* Where the entry of this level stands that covers page; NULL if the way does not go so deep. */
uint64_t *mrs_share_find_place(struct morsel *morsel, uint64_t page, unsigned level);
/*
 * Calls fn for every morsel of the family, this one included, that has the page and is not losing it at
 * this moment; with closed (the gate) for all. Inside a retarget that names morsel in cell[0], so that
 * none that fn was called for goes before it ends. A non-zero answer ends it and is returned.
 */
int mrs_share_each_relative(struct morsel *morsel, uint64_t page, bool closed,
			    int (*fn)(void *ctx, struct morsel *relative), void *ctx);
/*
 * The leaf, which has other links, becomes a table of 512 smaller ones wherever it is linked. -EAGAIN:
 * somebody was in the way, and has been waited for; -EMLINK, -ENOSPC in words.
 */
int mrs_share_split(struct morsel *morsel, struct mrs_txn *txn, const struct mrs_leaf *leaf);
/* After a death in it; gate closed. */
void mrs_share_split_repair(struct mrs_txn *txn);

#endif
