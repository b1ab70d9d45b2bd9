/*
 * Mail between attached processes: inter-processor interrupts for processes.
 *
 * A request stands in the asker's slot, one per intent; its number is put into the inbox of each
 * process asked. The process's service thread sleeps on its doorbell, does what is asked, takes its
 * bit out of the request's waiting word and moves the asker's answered word on. All are asked first,
 * then awaited; who is dead counts as having answered (its mappings are gone); who does not answer in
 * time is named.
 *
 * The service thread takes no leaf lock, touches no evictable page, allocates nothing, and never asks
 * anybody by mail itself: so it always answers, unless its process is stopped.
 */
#ifndef MRS_VIEW_MAILBOX_H
#define MRS_VIEW_MAILBOX_H

#include "pool/pool.h"

enum mrs_request_op {
	MRS_REQUEST_NONE,
	MRS_REQUEST_INVALIDATE, /* BY_MAIL views of [first, first + count) forget it; -EBUSY if granted */
	MRS_REQUEST_CUT,	/* every view forgets it for good: the morsel ends before; -EBUSY if granted */
	MRS_REQUEST_REMAP,	/* CPU views of it map what the table says now */
	MRS_REQUEST_DROP,	/* CPU views drop translations (MADV_DONTNEED): resident pages come back at a touch */
	MRS_REQUEST_SCAN,	/* or into the bitmap in frame arg: which of count pages are present */
	MRS_REQUEST_EVICT,	/* to the pager: evict; result is what morsel_advise() answers; arg: out, pages evicted */
	MRS_REQUEST_ROOM,	/* to the pager: make room for count frames */
	MRS_REQUEST_PROTECT,	/* to the pager: write-protect in every view (clone) */
	MRS_REQUEST_CONNECT,	/* there is a new pager: hand it the descriptor */
};

/* Slots that are asked. */
struct mrs_slot_set {
	uint64_t bit[MRS_SLOTS / 64];
};

/*
 * Asks all of who, then waits until everyone has answered or ns have passed. Inside a transition (the
 * request is that of its intent); the transition is parked meanwhile. 0; the first error that somebody
 * answered; -ETIMEDOUT in words that name one process. *silent (may be NULL) are those that have not
 * answered: what they were to forget is not forgotten.
 */
int mrs_mail_ask(struct mrs_txn *txn, const struct mrs_slot_set *who, enum mrs_request_op op,
		 uint64_t record, uint64_t first, uint64_t count, uint64_t arg, int64_t ns,
		 struct mrs_slot_set *silent);

/*
 * The answer of this process to a request that was taken over (mrs_pager_post()); word as it stood in
 * the inbox. Nothing happens if the asker has given up meanwhile. From any thread.
 */
void mrs_mail_answer(struct morsel_pool *pool, uint64_t word, int result, uint64_t arg);

/* Starts this handle's service thread if it does not run. -EAGAIN in words. Stopped at pool close. */
int mrs_service_start(struct morsel_pool *pool);
void mrs_service_stop(struct morsel_pool *pool);

/* Slots, other than except (MRS_SLOTS for none), whose open entries of record have a view beyond end. */
void mrs_mail_viewers(struct morsel_pool *pool, uint64_t record, uint64_t end_page, unsigned except,
		      struct mrs_slot_set *who);

#endif
