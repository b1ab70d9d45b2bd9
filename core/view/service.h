/*
 * Inside the view room: what the service thread and its neighbours ask of each other.
 */
#ifndef MRS_VIEW_SERVICE_H
#define MRS_VIEW_SERVICE_H

#include "view/mailbox.h"
#include "view/pager.h"

/* mailbox.c: a request by its word; false if the asker has given up. */
bool mrs_mail_read(struct morsel_pool *pool, uint64_t word, struct mrs_pager_job *letter);
/*
 * Does the asker still wait for it, or is he dead? Begins with a full fence: what was written before is
 * seen by whoever fences after he has given up.
 */
bool mrs_mail_is_awaited(struct morsel_pool *pool, uint64_t word);

/* told.c: does what a letter to this process's views says. */
int mrs_view_told(struct morsel_pool *pool, const struct mrs_pager_job *letter, int pagemap,
		  uint32_t *answer);

#endif
