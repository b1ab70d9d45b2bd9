/*
 * Swap targets: where the content of evicted pages is kept.
 *
 * A pool has up to MRS_SWAP_TARGETS of them, listed in a frame of the pool (state.swap_table), so
 * that every attached process reaches them: a file or block device, or memory of the pool itself
 * that holds pages compressed. A target is one table of operations; the rest of the core sees slots:
 *
 *	slot	0 none; else (target + 1) << 56 | what the target makes of the other 56 bits;
 *		MRS_SWAP_ZERO is a page of zeros, which no target keeps. Pages filled with another
 *		byte are MRS_SWAP_FILLED | the byte
 *
 * Slots are allocated by lock-free means in shared memory, so that any process may save while
 * others load and free. A page's slot stays where its content stays the same: a clean page is
 * evicted anew without writing. Content is checked by CRC-32C at every load.
 *
 * Threads: save and load of different slots may run at the same time in any process. Nothing here
 * takes a leaf lock. mrs_swap_load_one() is async-signal-safe: no lock, no malloc.
 */
#ifndef MRS_SWAP_SWAP_H
#define MRS_SWAP_SWAP_H

#include "pool/pool.h"

#define MRS_SWAP_TARGETS 16
#define MRS_SWAP_FILLED	 (255ull << 56) /* | byte: a page of this byte */
#define MRS_SWAP_ZERO	 MRS_SWAP_FILLED
#define MRS_SWAP_BATCH	 512 /* pages that one call takes at most */

struct mrs_swap; /* of one pool handle: descriptors, rings, buffers; made at the first use */

/*
 * The pool handle's, made at the first call: outside signal handlers and before the first evictable
 * view of the process, for it loads libraries. NULL in words (-ENOMEM). Ended with the handle.
 */
struct mrs_swap *mrs_swap_of(struct morsel_pool *pool);
/* 0; -ENODEV in words if the pool has no target that takes pages. */
int mrs_swap_ready(struct morsel_pool *pool);

/* One page to be saved or loaded. */
struct mrs_swap_page {
	uint64_t slot; /* save: out; load: in */
	uint32_t crc;  /* CRC-32C of the 4096 bytes; save: out; load: in */
	int32_t rc;    /* load: 0, -EIO (cannot be read), -EBADMSG (checksum) */
};

/*
 * Writes count pages, at memory[i], to the first target by priority that has room; several requests
 * are in flight where the target allows. The bytes must not change meanwhile. Each slot carries the
 * number of the transition from when it is taken, and mrs_swap_repair() gives back what a dead one
 * took and no SWAP property names; so it takes allocations: nothing may be pending. All or none:
 * -ENOSPC in words (every target is full), -EIO in words (a target failed; it is marked so and the
 * next is tried first), -ETIMEDOUT in words. The transition may be parked meanwhile.
 */
int mrs_swap_save(struct mrs_swap *swap, struct mrs_txn *txn, const void *const memory[],
		  struct mrs_swap_page page[], unsigned count);
/* Reads count pages into memory[i], several in flight; sets each rc; returns 0 or the first of
 * them. */
int mrs_swap_load(struct mrs_swap *swap, struct mrs_swap_page page[], void *const memory[],
		  unsigned count);
/* One page, in the faulting thread, also in a signal handler. No words are made. */
int mrs_swap_load_one(struct mrs_swap *swap, struct mrs_swap_page *page, void *memory);
/* Gives a slot back that no property names (any more). Cannot fail. */
void mrs_swap_free(struct mrs_txn *txn, uint64_t slot);

/*
 * The SWAP property of a frame, of which the caller has the leaf locked. keep: the page's content
 * is in page->slot from now on, as of epoch; the slot that it had before is given back (that may be
 * the same one). forget: it is nowhere. A death in either leaves no slot that nobody names, and
 * frees none that is named.
 */
int mrs_swap_keep(struct mrs_txn *txn, uint64_t frame, const struct mrs_swap_page *page,
		  uint32_t epoch);
void mrs_swap_forget(struct mrs_txn *txn, uint64_t frame);
/* False if there is none. *page is what mrs_swap_load() wants. */
bool mrs_swap_kept(struct morsel_pool *pool, uint64_t frame, struct mrs_swap_page *page,
		   uint32_t *epoch);
/*
 * Is the slot on a target that is being emptied (morsel_swap_remove())? Who has filled the page
 * from it then forgets it, and marks the page dirty.
 */
bool mrs_swap_is_leaving(struct morsel_pool *pool, uint64_t slot);

/*
 * Compressed memory takes frames of the pool: those in use, for the budget's account, and the walk
 * for morsel_pool_check() and the reaper.
 */
void mrs_swap_owned(struct morsel_pool *pool,
		    void (*owned)(void *ctx, uint64_t frame, uint64_t count, const char *by),
		    void *ctx);
/*
 * Gate closed, after the intents and frames of a dead slot are repaired: gives back what its
 * transitions had taken and no SWAP property names, and what they had half added or removed. Called
 * by the reaper.
 */
void mrs_swap_repair(struct morsel_pool *pool, unsigned slot);
/* Invariants, in words; returns how many findings. Gate closed. */
int mrs_swap_validate(struct morsel_pool *pool, morsel_report_fn report, void *ctx);

#endif
