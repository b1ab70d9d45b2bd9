/*
 * What the files of eviction ask of each other: one job is a range of one morsel, evicted at once,
 * in the pager (evict.c); who wants what evicted, and when, is evictor.c.
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
	const uint64_t
		*spared;  /* bit per page from page on: was touched lately, stays; NULL none */
	uint64_t evicted; /* out: pages */
};

/*
 * In a thread that mrs_pool_may_exceed(), in the pager. Errors as of mrs_evict_range();
 * job->evicted is set with them, too.
 */
int mrs_evict_job(struct mrs_evict_job *job);
/* 0 if pages of the morsel can be evicted, and it has its COHERENCE cell; -EOPNOTSUPP in words. */
int mrs_evict_check(struct morsel *morsel);
/* -EBUSY in words that name whose pin it is. */
int mrs_evict_pinned(struct morsel_pool *pool, const struct mrs_seen_view *by,
		     const struct mrs_pin *pin);

/* ---- evict_ask.c ---- */

/* mrs_evict_make_room() for who is in no signal handler: sees to it that there is a pager. */
int mrs_evict_room_for(struct morsel_pool *pool, uint64_t frames, int64_t ns);
/* Moves a futex word on and wakes who sleeps on it. */
void mrs_evict_ring(uint32_t *bell);
int64_t mrs_evict_now_ns(void);

#endif
