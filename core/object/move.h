/*
 * Moving: one page comes to another frame, with its content. For compaction and promotion. See
 * move.c.
 */
#ifndef MRS_OBJECT_MOVE_H
#define MRS_OBJECT_MOVE_H

#include "object/retarget.h"

/* Could pages of the morsel be moved at all: may they be evicted, and does no view fix them? */
bool mrs_move_is_possible(struct morsel *morsel);
/* Is it, by its entry, one page, resident, and the morsel's alone? *frame is where. */
bool mrs_move_is_movable(struct morsel *morsel, uint64_t page, uint64_t *frame);

/*
 * Moves the page from frame to frame to, which is free; by the pager, from any process. 0. Without
 * words, for who moves many and counts: -EEXIST frame to is taken; -EAGAIN the page is not there
 * any more, evicted, or busy; -EBUSY somebody holds it where it is. In words: -ENOSPC, -EOPNOTSUPP.
 */
int mrs_move(struct morsel *morsel, uint64_t page, uint64_t from, uint64_t to);
/* The same in a thread of the pager (MRS_REQUEST_MOVE). */
int mrs_move_here(struct morsel *morsel, uint64_t page, uint64_t from, uint64_t to);

#endif
