/*
 * What the files of eviction ask of each other: one job is a range of one morsel, evicted at once,
 * in the pager (evict.c); who wants what evicted, and when, is evict_ask.c and evictor.c.
 */
#ifndef MRS_OBJECT_EVICT_H
#define MRS_OBJECT_EVICT_H

#include "object/retarget.h"
#include "view/registry.h"

struct mrs_evict_job {
	struct morsel *morsel;
	uint64_t page; /* [page, page + pages) */
	uint64_t pages;
	bool strict;	 /* an error if anything stays */
	bool clean_only; /* only what need not be saved */
	bool quiet;	 /* no words: nobody has asked for these very pages */
	/*
	 * Content is not wanted: instead of being saved it becomes zeros, also where it is evicted.
	 * Leaves that are not wholly in the range stay.
	 */
	bool discard;
	/* A bit per page from page on: was touched lately, stays. NULL: none was. */
	const uint64_t *spared;
	uint64_t evicted; /* out: pages */
};

/*
 * The morsel may be a handle without an open entry (mrs_handle_init()): it can be freed meanwhile, and
 * then is not there any more. In a thread that mrs_pool_may_exceed(), in the pager; a discard in any process. Errors as of
 * mrs_evict_range(); job->evicted is set with them, too.
 */
int mrs_evict_job(struct mrs_evict_job *job);
/* 0 if pages of the morsel can be evicted, and it has its COHERENCE cell; -EOPNOTSUPP in words. */
int mrs_evict_check(struct morsel *morsel);
/* -EBUSY in words that name whose pin it is. */
int mrs_evict_pinned(struct morsel_pool *pool, const struct mrs_seen_view *by,
		     const struct mrs_pin *pin);

/* ---- evict_ask.c ---- */

/*
 * Pages of the morsel have just been pinned: is what cannot go any more still within the budget?
 * -ENOSPC in words that name pins, budget and remedy. Of two that exceed it together at least one is
 * refused.
 */
int mrs_evict_may_pin(struct morsel *morsel, uint64_t page, uint64_t pages);
/* mrs_evict_make_room() for who is in no signal handler: sees to it that there is a pager. */
int mrs_evict_room_for(struct morsel_pool *pool, uint64_t frames, int64_t ns);
/* What of the resident pages can be evicted, and what is pinned: a look, in passing. */
void mrs_evict_stays(struct morsel_pool *pool, struct mrs_pool_stays *sum);
/* Moves a futex word on and wakes who sleeps on it. */
void mrs_evict_ring(uint32_t *bell);
int64_t mrs_evict_now_ns(void);

/* ---- discard.c ---- */

/*
 * MORSEL_ADVICE_FREE where pages come and go: [offset, end) reads as zero, memory and slots come
 * back. -EBUSY names a pin; -ENOSPC where pages are shared with a clone and no frame is left for
 * own ones.
 */
int mrs_evict_discard(struct morsel *morsel, uint64_t offset, uint64_t end);

/* ---- will_need.c ---- */

/* MORSEL_ADVICE_WILL_NEED: a thread of this handle begins to bring the range. -EAGAIN in words. */
int mrs_will_need(struct morsel *morsel, uint64_t offset, uint64_t bytes);
/* At close, before anything of the handle is let go: ends it. In a child of fork there is none. */
void mrs_will_need_stop(struct morsel *morsel);

#endif
