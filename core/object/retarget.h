/*
 * Retarget: the one way in which a page comes to another place, or to none.
 *
 * A batch is up to 512 neighbouring leaves of one leaf table, locked by one transition. The protocol,
 * its orderings and its argument stand at the top of retarget.c. Kinds of it:
 *
 *	evict	  MAPPED -> EVICTED: stop writers, save, punch
 *	fill	  EVICTED -> MAPPED: load, UFFDIO_COPY
 *	dirty	  MAPPED -> MAPPED | DIRTY, then the protection of one's own view is lifted
 *	move	  MAPPED f -> MAPPED g: stop writers, copy, punch f, quarantine f
 *	break	  shared -> private, at the first write after a clone (share.h)
 *	split	  one leaf of 512 pages -> a table of 512 leaves; promote: the reverse
 *
 * Rules that every kind keeps:
 *  - The intent is written before the first lock, and names table, first index, count, and record.
 *  - Filling a page and lifting a protection happen under its leaf's lock, re-checked after it is
 *    taken; DIRTY is set before the protection is lifted.
 *  - Before the first destructive step it can be given up: mrs_retarget_abort().
 *  - An unlock wakes whoever waits for the leaf.
 */
#ifndef MRS_OBJECT_RETARGET_H
#define MRS_OBJECT_RETARGET_H

#include "object/object.h"
#include "pool/property.h"
#include "table/table.h"

enum mrs_retarget_kind {
	MRS_RETARGET_EVICT = 1,
	MRS_RETARGET_FILL,
	MRS_RETARGET_DIRTY,
	MRS_RETARGET_MOVE,
	MRS_RETARGET_BREAK,
	MRS_RETARGET_SPLIT,
	MRS_RETARGET_PROMOTE,
};

/* mrs_intent.step of a RETARGET: how far it is. kind << 8 | one of these. */
enum mrs_retarget_step {
	MRS_RETARGET_LOCKING, /* some leaves are locked: undone */
	MRS_RETARGET_COPIED,  /* the bytes are safe elsewhere: each leaf is judged by what is resident */
	MRS_RETARGET_LINKED,  /* the new entries are in place: finished */
};

struct mrs_registered;

struct mrs_retarget {
	struct morsel *morsel;
	struct mrs_txn txn;
	uint64_t *entries; /* leaf 0 and those after it, in their table */
	uint64_t page;	   /* of leaf 0 of this batch */
	uint64_t table;	   /* frame of the leaf table */
	unsigned level;	   /* of the leaves: 0 or 1 */
	unsigned count;	   /* leaves in the batch: [0, count) */
	bool shared;	   /* the way there was SHARED when it was found, or a locked leaf is */
	uint64_t locked[8]; /* bit per leaf: ours */
	uint64_t before[512]; /* the entry of each locked leaf, unlocked */
};

/*
 * Begins: finds the leaves of [page, page + pages) that stand in the same leaf table as page, at most
 * 512, and locks those for which want(ctx, entry) says yes. Locks held by others are not waited for.
 * A morsel that is one run without a table gets its table first, and a leaf of 1 GiB becomes leaves of
 * 2 MiB. Returns how many are locked, 0 if none (then nothing has begun and *next is still set); -errno.
 * *next is the page after what was looked at. want() sees unlocked MAPPED, EVICTED and POISONED leaves;
 * page is the first of the leaf's. Ends with a full fence: what is read after it is newer than the locks.
 * Outside any transition. Async-signal-safe, but for the expansion.
 */
int mrs_retarget_begin(struct morsel *morsel, enum mrs_retarget_kind kind, uint64_t page,
		       uint64_t pages, bool (*want)(void *ctx, uint64_t page, uint64_t entry),
		       void *ctx, struct mrs_retarget *batch, uint64_t *next);
/*
 * The same for one page whose lock is waited for; the entry is in before[0]. -ENOENT without words: a
 * hole, or beyond the morsel's end, or the morsel is being freed.
 */
int mrs_retarget_one(struct morsel *morsel, enum mrs_retarget_kind kind, uint64_t page,
		     struct mrs_retarget *batch);
/*
 * The leaf i of 512 pages becomes 512 leaves of one, all locked: the batch is these from now on. All
 * other leaves have been set or dropped. -ENOSPC: then nothing has changed. The step begins anew.
 */
int mrs_retarget_split(struct mrs_retarget *batch, unsigned i);
/* How far it is, for who repairs after our death. */
void mrs_retarget_mark(struct mrs_retarget *batch, enum mrs_retarget_step step);
/* Leaf i is DIRTY at once, and stays locked: before a protection of it is lifted. */
void mrs_retarget_dirty(struct mrs_retarget *batch, unsigned i);
/* Leaf i goes back as it was (and DIRTY, if mrs_retarget_dirty() said so), unlocked. */
void mrs_retarget_drop(struct mrs_retarget *batch, unsigned i);
/* Leaf i becomes entry (without lock bits), unlocked, waiters woken. */
void mrs_retarget_set(struct mrs_retarget *batch, unsigned i, uint64_t entry);
/* All that are still locked go back as they were; ends the transition. */
void mrs_retarget_abort(struct mrs_retarget *batch);
/* All have been set or dropped; ends the transition. */
void mrs_retarget_end(struct mrs_retarget *batch);
static inline bool mrs_retarget_has(const struct mrs_retarget *batch, unsigned i)
{
	return batch->locked[i / 64] >> i % 64 & 1;
}

/* Waits until the entry's lock bits have changed from those in seen; reaps a dead owner. */
void mrs_entry_wait(struct morsel_pool *pool, uint64_t *place, uint64_t seen);
/* After the owner has changed the entry: whoever waits for it looks again. */
void mrs_entry_wake(struct morsel_pool *pool, uint64_t *place);

/* ---- what is built on it ---- */

/* Is the morsel one whose pages may be evicted (its flag, and its pool's kind)? */
bool mrs_morsel_is_evictable(const struct morsel *morsel);
/* The COHERENCE cell, or NULL. */
struct mrs_cell_coherence *mrs_morsel_coherence(const struct morsel *morsel);
/* Makes it where it is missing, and sets the pool's feature bit. Takes the record's lock. */
int mrs_morsel_make_coherent(struct morsel *morsel);

/*
 * In the pager: evicts what can be evicted of [page, page + pages); *evicted pages. -EBUSY names a pin
 * that was in the way if nothing else was evicted, or where strict; -ENOSPC, -EIO of the swap targets.
 */
int mrs_evict_range(struct morsel *morsel, uint64_t page, uint64_t pages, bool strict,
		    uint64_t *evicted);
/* From any process: asks the pager, or is it. Outside any transition. */
int mrs_evict(struct morsel *morsel, uint64_t page, uint64_t pages, uint64_t *evicted);
/*
 * In a thread of the pager: what mail asks it for (MRS_REQUEST_EVICT, _ROOM, _MOVE). The answer is
 * the request's result; *arg is its arg. No words: the asker makes its own.
 */
int mrs_evict_serve(struct morsel_pool *pool, uint32_t op, uint64_t record, uint64_t first,
		    uint64_t count, uint64_t *arg);
/*
 * Has the pager evict until frames more fit below the budget; waits at most ns, parked if the thread
 * is inside a transition. Async-signal-safe; no leaf is locked by the caller. 0 if they fit now;
 * -ENOSPC, without words, if not.
 */
int mrs_evict_make_room(struct morsel_pool *pool, uint64_t frames, int64_t ns);
/*
 * In a thread of the pager, outside any transition: one step of the automatic evictor. Answers after
 * how many ns it wants to be called again; earlier when the futex word at the bell has moved on.
 */
int64_t mrs_evictor_tick(struct morsel_pool *pool);
uint32_t *mrs_evictor_bell(struct morsel_pool *pool);

/* Where a process reaches pages by address: its own view of them. */
struct mrs_window {
	int fd;		  /* userfaultfd of this process */
	uint64_t address; /* of page first */
	uint64_t first;	  /* page of the morsel */
	uint64_t pages;
	bool writable;
	/* Where its view says how it is listed (registry.h), for whether it has followed all moves; NULL:
	 * it never has to. */
	struct mrs_registered *const *listed;
};

enum mrs_fault_kind {
	MRS_FAULT_MISSING,
	MRS_FAULT_WRITE,
	MRS_FAULT_PROTECTED,
	MRS_FAULT_TRY = 4, /* with one of them: -EAGAIN where the leaf is locked, instead of waiting */
};
/*
 * Serves one fault at page of a view; async-signal-safe. 0 when the touch may be repeated (the waiters
 * at the page are woken); -EIO if the page is poisoned; -ERANGE beyond the morsel's end; -EAGAIN, also
 * without MRS_FAULT_TRY, while a change of that end is undecided: to be repeated without a hold.
 */
int mrs_fault(struct morsel *morsel, const struct mrs_window *window, uint64_t page,
	      enum mrs_fault_kind kind);
/*
 * Makes pages resident through the window, in batches with several reads in flight; with write they
 * become dirty and private (after a clone). The caller has pinned them, or does not mind.
 */
int mrs_fill_range(struct morsel *morsel, const struct mrs_window *window, uint64_t page,
		   uint64_t pages, bool write);

#endif
