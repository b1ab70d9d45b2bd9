/*
 * Properties of frames: what is known of a few frames and would be waste to store for all.
 *
 * A lock-free hash table in the pool, keyed by frame and kind; a frame without a property costs
 * nothing, but a frame beside one that has it shares its cache line (prop_lines.h). A value is two
 * words of which the first is not 0; a SHARES count is one, at most 2^31 - 1. Readers go on while the
 * table grows; changes wait for it, as they do for a repair.
 *
 * Who may change: SHARES by mrs_prop_add() from any transition; every other kind only by who has the
 * leaf of the frame locked (or the record, for what is not linked yet). Anybody may read at any time.
 * Death: an interrupted set, clear or add has happened or not.
 */
#ifndef MRS_POOL_PROPERTY_H
#define MRS_POOL_PROPERTY_H

#include "pool/pool.h"

enum mrs_prop_kind {
	MRS_PROP_SHARES = 1, /* value: references beyond the first, of a data or table frame; no aux */
	MRS_PROP_SWAP = 2,   /* value: slot (swap/swap.h); aux: epoch << 32 | CRC-32C of the page */
	MRS_PROP_DEPOSIT = 3, /* value: the table frame kept for the split of the huge leaf here */
};

struct mrs_prop {
	uint64_t value;
	uint64_t aux;
};

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
 * Adds delta to value, atomically, and sets *now; makes the property where it was not there and takes
 * it away at 0. -ENOSPC in words where it had to be made; -ERANGE in words if it would go below 0.
 */
int mrs_prop_add(struct mrs_txn *txn, uint64_t frame, enum mrs_prop_kind kind, int64_t delta,
		 uint64_t *now);

/*
 * Makes room for so many properties of neighbouring frames to come. For who will set them while an
 * allocation of its transition is pending, or frames are being put: the table cannot grow then. -ENOSPC
 * in words; it may park the transition, as set and add may where the frame had no property.
 */
int mrs_prop_reserve(struct mrs_txn *txn, unsigned count);

/* Every property; a non-zero answer ends the walk and is returned. Gate closed, or only for looking. */
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
