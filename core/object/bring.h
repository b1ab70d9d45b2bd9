/*
 * Bringing evicted pages back: what a fault and a prefetch have in common. Both hold the leaves.
 *
 * Each intent of a process has a work area of its own, so that whoever is in a transition finds one
 * without a lock and without allocating: faults are served in handlers of signals.
 */
#ifndef MRS_OBJECT_BRING_H
#define MRS_OBJECT_BRING_H

#include "object/retarget.h"
#include "swap/swap.h"

#define MRS_BRING_PAGES 512u

struct mrs_bring {
	/* Aligned, and so is each of several areas: data is read into directly, beside is mapped over. */
	unsigned char data[MRS_BRING_PAGES][4096] __attribute__((aligned(4096)));
	unsigned char beside[4096]; /* address space for one page: stale.c */
	struct mrs_swap_page page[MRS_BRING_PAGES];
	void *memory[MRS_BRING_PAGES];
	uint64_t number[MRS_BRING_PAGES]; /* page of the morsel */
	uint64_t frame[MRS_BRING_PAGES];
	uint16_t leaf[MRS_BRING_PAGES]; /* its leaf in the batch */
	unsigned count;
} __attribute__((aligned(4096)));

/* That of the batch's intent, emptied. -ENOMEM in words; without, it cannot fail a second time. */
int mrs_bring_area(const struct mrs_retarget *batch, struct mrs_bring **area);

/*
 * Fills the locked EVICTED leaves of the batch with pages in [from, end) from the swap target through
 * the window, several reads in flight where that may be, and unlocks them as MAPPED. A leaf of 512 pages
 * becomes 512 leaves, and only what is in [from, end) is filled, unless whole says otherwise, the window
 * holds all of it and each page can be read: then the batch is these, and the other leaves of before are
 * unlocked. Pages that cannot be read become POISONED. dirty is the page that is filled for writing
 * (UINT64_MAX none): DIRTY, and not protected.
 * Returns how many pages came in; without words -EIO, if no swap target can be used here, -ENOMEM,
 * -ESTALE if the window is not there any more. Other leaves stay locked.
 */
int mrs_bring_evicted(struct mrs_retarget *batch, const struct mrs_window *window, uint64_t from,
		      uint64_t end, bool whole, uint64_t dirty);

/* Is there memory behind the frame? */
bool mrs_bring_is_resident(struct morsel_pool *pool, uint64_t frame);
/*
 * Zeros for a page whose leaf is locked and MAPPED, if no memory is behind it (MORSEL_ADVICE_FREE).
 * 1 if there was memory: those who wait at it are woken.
 */
int mrs_bring_zero(struct morsel_pool *pool, const struct mrs_window *window, uint64_t page,
		   uint64_t frame, bool protect);
/* Makes the work areas of a handle beforehand: -ENOMEM in words. */
int mrs_bring_prepare(struct morsel_pool *pool);

/* ---- stale.c ---- */

/* Has a page of the morsel moved since the window's mapping was made, or made to follow? */
bool mrs_window_is_stale(const struct morsel *morsel, const struct mrs_window *window);
/*
 * Maps the part of leaf i that the window shows on the frames of its entry, and wakes who waits there. The
 * leaf is locked, MAPPED, and has no other owners if the window may be written; it becomes DIRTY then.
 */
int mrs_window_map(struct mrs_retarget *batch, const struct mrs_window *window, unsigned i);
/* A window of this one page elsewhere, to bring it back through; until mrs_window_beside_end(). */
int mrs_window_beside(const struct mrs_retarget *batch, const struct mrs_window *window,
		      uint64_t page, uint64_t frame, struct mrs_window *beside);
void mrs_window_beside_end(const struct mrs_window *beside);

/* A thread that must not sleep in a lock of another library serves the faults here. */
bool mrs_bring_in_signal(struct morsel_pool *pool);

static inline bool mrs_window_holds(const struct mrs_window *window, uint64_t page, uint64_t pages)
{
	return page >= window->first && page + pages <= window->first + window->pages;
}

static inline uint64_t mrs_window_at(const struct mrs_window *window, uint64_t page)
{
	return window->address + (page - window->first) * 4096;
}

#endif
