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
	MRS_REQUEST_INVALIDATE, /* BY_MAIL views forget what is not granted (hence pinned) of
				 * [first, first + count). arg 1: -EBUSY if some of it is granted */
	MRS_REQUEST_CUT,	/* the morsel ends before first. arg 0: could every view of it forget what
				 * lies beyond? -EBUSY if some of it is granted. arg 1: forget it. arg 2:
				 * that was undone, take what is inside again */
	MRS_REQUEST_REMAP,	/* CPU views of it map what the table says now. arg: the asker has locked
				 * the leaves of [first, first + count), private, resident and dirty pages,
				 * and that is the move of this number.
				 * -EAGAIN if he has given up meanwhile.
				 * arg 0: nobody has; views that lag behind map what they have missed.
				 * -EAGAIN if something that is stale is left to its fault (not resident,
				 * under way, or shared) */
	MRS_REQUEST_DROP,	/* CPU views drop translations (MADV_DONTNEED): resident pages come back at a touch */
	MRS_REQUEST_SCAN,	/* answer: bit i says whether CPU views have a translation for a page of group
				 * i of [first, first + count); mrs_mail_group() pages are a group */
	MRS_REQUEST_EVICT,	/* to the pager: evict; result is what morsel_advise() answers; answer: pages evicted */
	MRS_REQUEST_ROOM,	/* to the pager: make room for count frames */
	MRS_REQUEST_PROTECT,	/* to the pager: write-protect in every view (clone) */
	MRS_REQUEST_MOVE,	/* to the pager: move page first from frame count to frame arg */
	MRS_REQUEST_CONNECT,	/* there is a new pager: hand it the descriptor */
};

/* Pages that one bit of the answer to SCAN speaks for. */
static inline uint64_t mrs_mail_group(uint64_t count)
{
	return count / 32 + !!(count % 32);
}

/* Slots that are asked. */
struct mrs_slot_set {
	uint64_t bit[MRS_SLOTS / 64];
};

static inline void mrs_slot_set_add(struct mrs_slot_set *set, unsigned slot)
{
	set->bit[slot / 64] |= 1ull << slot % 64;
}

static inline bool mrs_slot_set_has(const struct mrs_slot_set *set, unsigned slot)
{
	return set->bit[slot / 64] >> slot % 64 & 1;
}

/*
 * Asks all of who, then waits until everyone has answered or ns have passed. Inside a transition (the
 * request is that of its intent); the transition is parked meanwhile. 0; the first error that somebody
 * answered, in words that name him; -ETIMEDOUT in words that name one process. *silent (may be NULL)
 * are those that have not answered: what they were to forget is not forgotten. Own views are asked like
 * those of others: the slot of this process may be in who. Not in a service thread.
 */
int mrs_mail_ask(struct mrs_txn *txn, const struct mrs_slot_set *who, enum mrs_request_op op,
		 uint64_t record, uint64_t first, uint64_t count, uint64_t arg, int64_t ns,
		 struct mrs_slot_set *silent);
/* The same for what has an answer: the bits, or numbers, of all who answered, or-ed into *answer. */
int mrs_mail_ask_for(struct mrs_txn *txn, const struct mrs_slot_set *who, enum mrs_request_op op,
		     uint64_t record, uint64_t first, uint64_t count, uint64_t arg, int64_t ns,
		     struct mrs_slot_set *silent, uint32_t *answer);

/*
 * For a repair, gate closed: asks in the name of a dead transition, and does not wait. Answered: by
 * all, or they are dead.
 */
void mrs_mail_post(struct mrs_txn *dead, const struct mrs_slot_set *who, enum mrs_request_op op,
		   uint64_t record, uint64_t first, uint64_t count, uint64_t arg);
bool mrs_mail_is_answered(struct mrs_txn *dead);

/* Slots, other than except (MRS_SLOTS for none), whose open entries of record have a view beyond end. */
void mrs_mail_viewers(struct morsel_pool *pool, uint64_t record, uint64_t end_page, unsigned except,
		      struct mrs_slot_set *who);

/*
 * The answer of this process to a request that was taken over (mrs_pager_post()); word as it stood in
 * the inbox; the lower half of answer is or-ed into the request's. Nothing happens if the asker has
 * given up meanwhile. From any thread; async-signal-safe.
 */
void mrs_mail_answer(struct morsel_pool *pool, uint64_t word, int result, uint64_t answer);

/*
 * Starts this handle's service thread if it does not run. -EAGAIN in words. It ends when the handle is
 * closed; in a child of fork it is not there.
 */
int mrs_service_start(struct morsel_pool *pool);

#endif
