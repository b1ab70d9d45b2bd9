/*
 * What the files of breaking ask of each other: see share.h.
 */
#ifndef MRS_OBJECT_BREAK_H
#define MRS_OBJECT_BREAK_H

#include "object/share.h"

/*
 * What a break says in its intent while counts and tables differ, for who counts links meanwhile (a
 * repair after somebody else's death: mrs_share_recount()). The break may be parked then.
 *
 *	destination	frame of a table that nothing links yet, each entry of which is counted
 *	expected	what it owes: owe.c
 *
 * Without this mark they are a split's: the table that is to be, and the frame of the leaf.
 */
#define MRS_BREAK_NOTE (1ull << 63)

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
/* The table that a dead split has begun to link, whoever links it now; 0: none. */
uint64_t mrs_share_split_table(const struct mrs_intent *intent);

/* Down to the leaf at page; every table on the way is the morsel's own after. -EAGAIN: from the start. */
int mrs_share_own_way(struct morsel *morsel, struct mrs_txn *txn, uint64_t page,
		      struct mrs_leaf *leaf);
/* The leaf, whose tables are the morsel's own, gets frames of its own, which the views follow. */
int mrs_share_replace(struct morsel *morsel, struct mrs_txn *txn, const struct mrs_leaf *leaf);
/* Frames with memory and the leaf's content, which only the allocator's record names. */
int mrs_share_copy(struct morsel *morsel, struct mrs_txn *txn, const struct mrs_leaf *leaf,
		   uint64_t *frame);

/* ---- break_keep.c ---- */

/* Do views of the morsel hold it to the leaf's frame? */
bool mrs_share_must_keep(struct morsel *morsel, const struct mrs_leaf *leaf);
/*
 * 0 if all views of the morsel can follow the leaf to another frame; those of other targets have
 * forgotten it then. -EBUSY in words. After the intent's fence.
 */
int mrs_share_make_mobile(struct morsel *morsel, struct mrs_txn *txn, const struct mrs_leaf *leaf);
/*
 * In a repair: the dead one had linked a page's own frame, and its leaf is still locked. Other
 * processes' views may show the former one. False: they have been asked to follow and have not yet.
 */
bool mrs_share_follow_repair(struct mrs_txn *txn, uint64_t page, uint64_t pages);
/* The others that link the leaf's frame give way. -EAGAIN: look again; -EBUSY, -ENOSPC in words. */
int mrs_share_keep(struct morsel *morsel, struct mrs_txn *txn, const struct mrs_leaf *leaf);
/*
 * Pages that are the morsel's own now, locked and DIRTY: the views of it map these frames, in every
 * process. Counts the move. -ENOMEM in words: none does, and the page may go back.
 */
int mrs_share_follow(struct morsel *morsel, struct mrs_txn *txn, uint64_t page, uint64_t pages,
		     uint64_t frame);

#endif
