/*
 * Promotion: 512 small pages become one huge page. See promote.c.
 */
#ifndef MRS_OBJECT_PROMOTE_H
#define MRS_OBJECT_PROMOTE_H

#include "object/retarget.h"

/*
 * Makes the 512 pages from page on (aligned) one huge page, if they are resident, the morsel's
 * alone, and lie on the frames of one huge frame in order. 0. Without words: -EAGAIN one is not, or
 * is busy, or the morsel has no table above; -ENOMEM the kernel has no huge folio for it now;
 * -ENOSPC.
 */
int mrs_promote_in_place(struct morsel *morsel, uint64_t page);
/*
 * The same wherever they lie: moves them to a huge frame that is free, first. -EBUSY if something
 * is in the way of moving; then some may have been moved. Outside any transition; asks the pager.
 */
int mrs_promote(struct morsel *morsel, uint64_t page);
/*
 * In a thread of the pager, now and then: looks at some blocks of morsels with mixed pages and
 * promotes those that need no moving.
 */
void mrs_promote_tick(struct morsel_pool *pool);

#endif
