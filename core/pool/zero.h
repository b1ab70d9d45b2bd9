/*
 * Huge frames zeroed beforehand: pool/zero.c.
 */
#ifndef MRS_POOL_ZERO_H
#define MRS_POOL_ZERO_H

#include "pool/pool.h"

/*
 * A huge frame from the stock, tracked as by mrs_txn_get(), with zeroed huge memory behind it; the
 * one at near if that is not 0. False if there is none. mrs_txn_get() calls it by itself.
 */
bool mrs_zero_take(struct mrs_txn *txn, uint64_t near, uint64_t *frame);
/*
 * Did this thread's last take give this frame? Asked once, by mrs_pool_back(): memory that is all
 * there then is huge already, and need not be asked for again, which costs as much as zeroing it.
 */
bool mrs_zero_was_taken(uint64_t frame);
/* Fills or gives up a part of the stock, some milliseconds long; true if there is more to do.
 * Outside transitions; called by the pager's threads. */
bool mrs_zero_tick(struct morsel_pool *pool);
/* Gives memory of the stock back, at least frames of it if there are; returns how much. Outside
 * transitions. */
uint64_t mrs_zero_give_up(struct morsel_pool *pool, uint64_t frames);
void mrs_zero_owned(struct morsel_pool *pool,
		    void (*owned)(void *ctx, uint64_t frame, uint64_t count, const char *by),
		    void *ctx);

#endif
