/*
 * The local: what one slot has reserved, and what it is about to do, in shared memory but written
 * by its one user alone; others read it. Two lines of 64 bytes are written on every get and put,
 * the third only by get_many; locals lie 256 bytes apart, so that no two share a line or a line
 * pair.
 */
#ifndef MRS_FRAME_LOCAL_H
#define MRS_FRAME_LOCAL_H

#include "base/atomic.h"
#include "frame/row.h"

#include <morsel/frame.h>

/*
 * Frames of one child that are free and counted here only; see the equation in child.h. The first
 * two are reservations: the child's entry names this local. The last, the pocket, is what this
 * local put last, kept back from the entry so that putting a frame and getting one touches neither:
 * it reserves nothing, others may take the bits, and then the pocket goes back to the entry. Where
 * child is 0, cache or free is 0, also after a death.
 */
struct own {
	uint32_t child; /* index + 1; 0 is none */
	uint32_t free;	/* 0 to 512 */
	uint32_t word;	/* cache belongs to frames 64 * word to 64 * word + 63, of that child */
	uint32_t kind;	/* pocket: kind of its tree */
	uint64_t cache; /* bits that were free when last seen: a hint of the user's own */
};

#define OWN_MOVABLE   0u
#define OWN_IMMOVABLE 1u
#define OWN_POCKET    2u
#define OWNS	      3u

struct mrs_frames_local {
	struct own own[OWNS];
	uint64_t pending;  /* see pending_get() */
	uint64_t epoch;	   /* counts what may have made a frame free: puts, and undone gets */
	uint32_t claiming; /* 1 while frames may look taken that will be given back */
	uint32_t busy;	   /* a caller is inside; only in builds with checks */
	uint32_t tree;	   /* index + 1 of the tree that was good last time, 0: none yet */
	uint32_t huge;	   /* child at which the next huge frame is looked for */
	uint32_t sure;	   /* unused trees that huge frames may go on into without a search */
	uint32_t unused[5];
	uint64_t mask[ROW_WORDS]; /* of a pending record that is PENDING_MASKED */
	uint64_t reserve[8];
};

_Static_assert(sizeof(struct mrs_frames_local) == 256, "locals are laid out by hand");

/*
 * The pending word: frame << 8 | order << 3 | masked << 2 | op. One word, so that a death between
 * two stores leaves no half record. Masked: of the child that begins at frame, those frames whose
 * bits are set in the local's mask.
 */
#define PENDING_MASKED ((uint64_t)4)

static inline uint64_t pending_get(uint64_t frame, unsigned order)
{
	return frame << 8 | order << 3 | MORSEL_FRAMES_OP_GET;
}

/* About to claim in the child that begins at base; no frame is chosen yet. */
#define PENDING_ORDER_CLAIM 31u

static inline uint64_t pending_claim(uint64_t base)
{
	return pending_get(base, PENDING_ORDER_CLAIM);
}

static inline uint64_t pending_put(uint64_t frame, unsigned order)
{
	return frame << 8 | order << 3 | MORSEL_FRAMES_OP_PUT;
}

/*
 * In program order between what came before and what comes after: enough against the death of this
 * process, and others read it only when this one is dead or stopped.
 */
static inline void pending_store(uint64_t *pending, uint64_t value)
{
	mrs_compiler_barrier();
	*(volatile uint64_t *)pending = value;
	mrs_compiler_barrier();
}

static inline uint64_t pending_load(const uint64_t *pending)
{
	return *(const volatile uint64_t *)pending;
}

/*
 * After the bits are clear. Pairs with the acquire loads of epochs_sum(): a searcher that finds
 * taken what this caller takes next sees the count, and searches again.
 */
static inline void epoch_bump(uint64_t *epoch)
{
	mrs_store_release(epoch, mrs_load_relaxed(epoch) + 1);
}

#endif
