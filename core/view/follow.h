/*
 * How views come to a page's new frame while whoever moved it there holds its leaf: see follow.c.
 */
#ifndef MRS_VIEW_FOLLOW_H
#define MRS_VIEW_FOLLOW_H

#include "object/object.h"
#include "view/registry.h"

struct morsel_view;

/*
 * Pages [page, page + pages) of the morsel are its own now, on frames from frame on: resident, DIRTY,
 * and locked by the caller, who is inside a transition. This process's views of the morsel map them,
 * and count as having followed the move, which is counted here: *move, 0 before, is the morsel's count
 * with it. -ENOMEM in words: with *move 0 nobody shows the new frames; else some do, and it is called
 * again, with *move, until all do.
 */
int mrs_view_follow_own(struct morsel *morsel, uint64_t page, uint64_t pages, uint64_t frame,
			uint64_t *move);
/*
 * Write-protects all of an own view that is watched, as the registry tells it: writes made before this
 * answers are over. -errno in words.
 */
int mrs_view_protect_all(struct morsel_pool *pool, const struct mrs_register *view);
/* The same for one view, for a letter (MRS_REQUEST_REMAP with arg). The view's lock is held. */
int mrs_view_follow(struct morsel_view *view, uint64_t page, uint64_t pages, uint64_t frame,
		    bool *begun);
/* The view has followed this move, whichever it has not yet; the view's lock is held. */
void mrs_view_followed(struct morsel_view *view, uint64_t move);
/* All moves up to this count; the view's lock is held. */
void mrs_view_followed_all(struct morsel_view *view, uint64_t moves);

#endif
