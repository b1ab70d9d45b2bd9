/*
 * Properties of frames: what is known of a few frames and would be waste to store for all.
 *
 * A lock-free hash table in the pool, keyed by frame and kind (prop_lines.h); a frame without a
 * property costs nothing, but a frame beside one that has it shares its cache line. A value is two
 * words, of which the first is not 0. SHARES is one number up to 2^31 - 1, in an array with holes
 * (counts.c), because no hash came near an array. Readers go on while these grow; changes wait for
 * it, as they do for a repair.
 *
 * Who may change: SHARES by mrs_prop_add() from any transition; every other kind only by who has
 * the leaf of the frame locked (or the record, for what is not linked yet). Anybody may read at any
 * time. Death: an interrupted set, clear or add has happened or not.
 */
#ifndef MRS_POOL_PROPERTY_H
#define MRS_POOL_PROPERTY_H

#include "pool/pool.h"
#include "pool/prop_lines.h"

/* False if the frame does not have it. The two words belong together. */
bool mrs_prop_get(struct morsel_pool *pool, uint64_t frame, enum mrs_prop_kind kind,
		  struct mrs_prop *prop);
/* Makes or replaces it. -ENOSPC in words; a replacement cannot fail. */
int mrs_prop_set(struct mrs_txn *txn, uint64_t frame, enum mrs_prop_kind kind,
		 const struct mrs_prop *prop);
/* True if it was there; *prop (may be NULL) is what it was. Cannot fail. */
bool mrs_prop_clear(struct mrs_txn *txn, uint64_t frame, enum mrs_prop_kind kind,
		    struct mrs_prop *prop);
/*
 * Adds delta to value, atomically, and sets *now; makes the property where it was not there and
 * takes it away at 0. -ENOSPC in words where it had to be made; -ERANGE in words if it would go
 * below 0. Only for SHARES. Frames that are walked in order are counted about as fast as in an
 * array.
 */
int mrs_prop_add(struct mrs_txn *txn, uint64_t frame, enum mrs_prop_kind kind, int64_t delta,
		 uint64_t *now);

/*
 * Makes room for so many properties of neighbouring frames to come, and for any SHARES. For who
 * will set them while an allocation of its transition is pending, or frames are being put: the
 * table cannot grow then. -ENOSPC in words; it may park the transition, as set and add may where
 * the frame had no property.
 */
int mrs_prop_reserve(struct mrs_txn *txn, unsigned count);

/*
 * The same for count frames, which may be in any order; now[i] (now may be NULL) is frames[i]'s
 * value after. Memory is fetched ahead, so that this costs what an array costs, where one call for
 * each frame costs several times as much. *done is how many were changed: all, or those before an
 * error.
 */
int mrs_prop_add_many(struct mrs_txn *txn, const uint64_t frames[], unsigned count,
		      enum mrs_prop_kind kind, int64_t delta, uint64_t now[], unsigned *done);

/* Every property; a non-zero answer ends the walk and is returned. Gate closed, or only for
 * looking. */
int mrs_prop_each(struct morsel_pool *pool,
		  int (*fn)(void *ctx, uint64_t frame, enum mrs_prop_kind kind,
			    const struct mrs_prop *prop),
		  void *ctx);
/* Frames of the table itself, for morsel_pool_check() and the reaper. */
void mrs_prop_owned(struct morsel_pool *pool,
		    void (*owned)(void *ctx, uint64_t frame, uint64_t count, const char *by),
		    void *ctx);
/* Invariants, in words; returns how many findings. Gate closed. */
int mrs_prop_validate(struct morsel_pool *pool, morsel_report_fn report, void *ctx);
/* After a death, gate closed. */
void mrs_prop_repair(struct morsel_pool *pool);

#endif
