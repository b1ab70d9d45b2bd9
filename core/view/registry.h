/*
 * The registry: views of evictable and cloned morsels, of all processes, and what they pin.
 *
 * Each slot has a chain of VIEW cells (pool/format.h). Only the slot's own process writes them, under
 * a lock of its own; everybody reads them. A chain only grows while its process lives: an unused cell
 * is used again.
 *
 * How a new view and a retarget meet, and a new pin and a retarget (both the same way):
 *  1 newcomer:  write the cell or pin; full fence; wait until no RETARGET or CLONE intent that was
 *               there overlaps its pages (its serial has changed, or its op has).
 *  2 retarget:  write the intent; lock the leaves; full fence; read the registry.
 *  3 By the fences, either 1 sees the intent and waits for its end, or 2 sees the newcomer, or both.
 *  4 A retarget that sees a pin gives the leaves up that it covers; one that sees a view treats it.
 * state.registry moves on after every change of a VIEW cell: who has read it before may keep what he
 * read while it stands still.
 */
#ifndef MRS_VIEW_REGISTRY_H
#define MRS_VIEW_REGISTRY_H

#include "pool/dir.h"
#include "pool/pool.h"

struct mrs_registered; /* process-private: one listed view and its pins */

struct mrs_register {
	uint64_t record;
	uint64_t first; /* pages */
	uint64_t pages;
	uint64_t address;
	uint64_t flags; /* enum mrs_view_flags; 0: not listed in the pool */
	uint64_t moves; /* the COHERENCE cell's, read before the mapping was made */
	void *owner;	/* struct morsel_view: found again by mrs_registry_each_own() */
};

/*
 * Lists a view, as all of step 1 says; counts the morsel's epoch up if it is writable. With flags 0 it
 * is a view of a morsel that nothing moves: listed for this process's own service thread only. Outside
 * any transition. *listed is set before the view can be found. -ENOSPC, -ENOMEM, -ETIMEDOUT (a process
 * stands still in a retarget) in words.
 */
int mrs_registry_add(struct morsel_pool *pool, const struct mrs_register *view,
		     struct mrs_registered **listed);
/* The view's mapping is gone. Waits for who is in mrs_registry_each_own(). */
void mrs_registry_remove(struct morsel_pool *pool, struct mrs_registered *listed);
/* The view's whole mapping has followed so many moves of its morsel. */
void mrs_registry_follow(struct mrs_registered *listed, uint64_t moves);
uint64_t mrs_registry_followed(struct mrs_registered *listed);

/*
 * Pins pages [first, end) of the morsel: step 1. *pin is for unpin; NULL for a view that is not listed
 * in the pool, whose pages nobody evicts or moves. Errors as of add. Not in a service thread.
 */
int mrs_registry_pin(struct morsel_pool *pool, struct mrs_registered *listed, uint64_t first,
		     uint64_t end, struct mrs_pin **pin);
/*
 * The same under the view's lock, for a service thread: -EAGAIN, without words, instead of waiting. One
 * pin of each view is kept for it.
 */
int mrs_registry_try_pin(struct morsel_pool *pool, struct mrs_registered *listed, uint64_t first,
			 uint64_t end, struct mrs_pin **pin);
/* That pin, without looking at who is under way: the caller fences, and looks. The view's lock is held. */
struct mrs_pin *mrs_registry_pin_told(struct morsel_pool *pool, struct mrs_registered *listed,
				      uint64_t first, uint64_t end);
void mrs_registry_unpin(struct morsel_pool *pool, struct mrs_registered *listed, struct mrs_pin *pin);

/*
 * Waits until no intent that was there overlaps pages [first, end) of the morsel: step 1's second half,
 * after a full fence of the caller. -ETIMEDOUT in words that name the process that stands still.
 */
int mrs_registry_settle(struct morsel_pool *pool, uint64_t record, uint64_t first, uint64_t end);
/* Without waiting: is no such intent under way? */
bool mrs_registry_is_settled(struct morsel_pool *pool, uint64_t record, uint64_t first, uint64_t end);

/* Writes to the morsel may have happened that nobody was told of: nothing of it is clean. */
void mrs_registry_written(struct morsel_pool *pool, uint64_t record);

/* id of the family of a morsel that has a COHERENCE cell; 0 if it has none. */
uint64_t mrs_registry_family(struct morsel_pool *pool, uint64_t record);

/* One view as others see it. */
struct mrs_seen_view {
	unsigned slot;
	uint64_t generation; /* of the slot */
	uint32_t pid;
	uint64_t record, first, pages, address, flags, moves;
};

/*
 * Calls fn for every view, of any process, whose morsel is of the family and which overlaps pages
 * [first, end); a non-zero answer ends it and is returned.
 */
int mrs_registry_each(struct morsel_pool *pool, uint64_t family, uint64_t first, uint64_t end,
		      int (*fn)(void *ctx, const struct mrs_seen_view *view), void *ctx);
/* The same for all views that are listed. */
int mrs_registry_all(struct morsel_pool *pool,
		     int (*fn)(void *ctx, const struct mrs_seen_view *view), void *ctx);
/* The first pin in [first, end) of any morsel of the family: true, and whose. */
bool mrs_registry_pinned(struct morsel_pool *pool, uint64_t family, uint64_t first, uint64_t end,
			 struct mrs_seen_view *by, struct mrs_pin *pin);
/* The first pin of any page by a view of the record that may write: true, and whose. */
bool mrs_registry_write_pinned(struct morsel_pool *pool, uint64_t record, struct mrs_seen_view *by);
/* Is a page of [first, end) granted through a view of the record? Pins of service threads are none. */
bool mrs_registry_granted(struct morsel_pool *pool, uint64_t record, uint64_t first, uint64_t end);
/* This process's own views of a record (0: all), under the registry's lock; for the service thread. */
int mrs_registry_each_own(struct morsel_pool *pool, uint64_t record,
			  int (*fn)(void *ctx, const struct mrs_register *view), void *ctx);

/* After a death, or at close; gate open: the slot's cells and pins are free again. */
void mrs_registry_drop_slot(struct morsel_pool *pool, unsigned slot);

/*
 * mrs_intent.step of a transition of op OTHER: which chain its cell[0] is put into or taken out of.
 * arg[0] is the slot + 1; arg[1] the VIEW cell that a PIN cell belongs to.
 */
enum mrs_chain { MRS_CHAIN_OPEN, MRS_CHAIN_VIEW, MRS_CHAIN_PIN };
/* After a death in such a transition, but for OPEN; gate closed. */
void mrs_registry_repair(struct mrs_txn *txn);
/* Every VIEW and PIN cell hangs in one chain, and means a morsel; gate closed. */
void mrs_registry_validate(struct morsel_pool *pool, morsel_report_fn report, void *ctx);

#endif
