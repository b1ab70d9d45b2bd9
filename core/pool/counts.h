/*
 * Counts of frames: how MRS_PROP_SHARES is stored. To be used through pool/property.h.
 */
#ifndef MRS_POOL_COUNTS_H
#define MRS_POOL_COUNTS_H

#include "pool/pool.h"

uint64_t mrs_counts_get(struct morsel_pool *pool, uint64_t frame);
int mrs_counts_add(struct mrs_txn *txn, uint64_t frame, int64_t delta, uint64_t *now);
int mrs_counts_add_many(struct mrs_txn *txn, const uint64_t frames[], unsigned count, int64_t delta,
			uint64_t now[], unsigned *done);
int mrs_counts_set(struct mrs_txn *txn, uint64_t frame, uint64_t value);
/* Room for counts of all frames that the pool has; their pages get memory without an allocation. */
int mrs_counts_reserve(struct mrs_txn *txn);
int mrs_counts_each(struct morsel_pool *pool, int (*fn)(void *ctx, uint64_t frame, uint64_t count),
		    void *ctx);
void mrs_counts_owned(struct morsel_pool *pool,
		      void (*owned)(void *ctx, uint64_t frame, uint64_t count, const char *by),
		      void *ctx);
void mrs_counts_repair(struct morsel_pool *pool);
void mrs_counts_validate(struct morsel_pool *pool,
			 void (*say)(void *ctx, uint64_t frame, const char *what), void *ctx);

/* ---- property.c ---- */

/*
 * Parks the transition, closes the gate, calls fn, opens it; in a repair it calls fn at once. The
 * transition must be free (mrs_txn_is_free()). -ETIMEDOUT in words.
 */
int mrs_prop_behind_gate(struct mrs_txn *txn, int (*fn)(struct mrs_txn *txn, void *ctx), void *ctx);

#endif
