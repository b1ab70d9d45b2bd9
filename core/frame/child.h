/*
 * The child entry: what is known about one huge frame in 32 bits, and its transitions as plain
 * functions on values. A step changes the value and answers true, or leaves it and answers false;
 * it knows nothing of threads. claim.h turns steps into compare-and-swap loops.
 *
 *   31      28 27        16  15    14    13    12   11   10      0
 *  +----------+------------+-----+------+-----+----+----+---------+
 *  |  zero    | owner      |resvd|absent|dirty|fill|huge|  used   |
 *  +----------+------------+-----+------+-----+----+----+---------+
 *
 * Z is the number of zero bits of the row, F what locals count as free of it by themselves (the
 * owner, and pockets: see local.h), C what callers have counted but not yet done (claims before
 * their bit):
 *
 *      Z = 512 - used + F + C          for every child that is not FILLED
 *
 * so that, when nobody runs, used is the number of allocated frames plus F. The owner
 * takes all that is free at the moment of reserving (used becomes 512) and counts it down alone;
 * what others give back lowers used, what others steal from the owner raises it above 512.
 *
 * FILLED: the child is wholly free although its row is all ones: a huge frame that was put needs no
 * write to its row. An all-zero entry is a whole free child of zeroed memory with an all-zero row.
 */
#ifndef MRS_FRAME_CHILD_H
#define MRS_FRAME_CHILD_H

#include <stdbool.h>
#include <stdint.h>

#define CHILD_FRAMES 512u

#define CHILD_USED   0x7ffu
#define CHILD_HUGE   0x800u  /* allocated as one huge frame (or several): the row is all ones */
#define CHILD_FILLED 0x1000u /* wholly free, row all ones */
#define CHILD_DIRTY  0x2000u /* free frames in it may hold something else than zeros */
#define CHILD_ABSENT                                                                 \
	0x4000u /* not online; used is 0 if it never was, 512 if the row is all ones \
		 */
#define CHILD_RESERVED 0x8000u	  /* by the local in the owner field */
#define CHILD_OWNER    0xfff0000u /* meaningless, and zero, unless reserved */
#define CHILD_OWNER_AT 16

/* More than this is never counted: all allocated, all stolen, and one more claim of all. */
#define CHILD_USED_MAX (3 * CHILD_FRAMES)

struct child {
	uint32_t raw;
};

static inline unsigned child_used(struct child v)
{
	return v.raw & CHILD_USED;
}

static inline bool child_is(struct child v, uint32_t flags)
{
	return v.raw & flags;
}

static inline unsigned child_owner(struct child v)
{
	return (v.raw & CHILD_OWNER) >> CHILD_OWNER_AT;
}

static inline bool child_owned_by(struct child v, unsigned local)
{
	return child_is(v, CHILD_RESERVED) && child_owner(v) == local;
}

/* Wholly free, and nobody's. */
static inline bool child_whole(struct child v)
{
	return !(v.raw & (CHILD_USED | CHILD_HUGE | CHILD_ABSENT | CHILD_RESERVED));
}

/* Some frames are free for anyone, some are not. */
static inline bool child_partial(struct child v)
{
	return !child_is(v, CHILD_HUGE | CHILD_ABSENT | CHILD_RESERVED | CHILD_FILLED) &&
	       child_used(v) > 0 && child_used(v) < CHILD_FRAMES;
}

/* What may stand in an entry when nobody runs. */
static inline bool child_valid(struct child v)
{
	if (v.raw & ~(CHILD_OWNER | CHILD_RESERVED | CHILD_ABSENT | CHILD_DIRTY | CHILD_FILLED |
		      CHILD_HUGE | CHILD_USED))
		return false;
	if (!child_is(v, CHILD_RESERVED) && child_owner(v))
		return false;
	if (child_used(v) > CHILD_USED_MAX)
		return false;
	if (child_is(v, CHILD_FILLED))
		return !(v.raw & (CHILD_USED | CHILD_HUGE | CHILD_ABSENT | CHILD_RESERVED));
	if (child_is(v, CHILD_HUGE))
		return !child_is(v, CHILD_ABSENT) && child_used(v) >= CHILD_FRAMES;
	return true;
}

static inline void child_set_used(struct child *v, unsigned used)
{
	v->raw = (v->raw & ~CHILD_USED) | used;
}

/* Counts n frames for a caller that will set their bits next: only what is free for anyone. */
static inline bool child_take(struct child *v, uint32_t n)
{
	unsigned used = child_used(*v);

	if (child_is(*v, CHILD_HUGE | CHILD_FILLED | CHILD_ABSENT) || used + n > CHILD_FRAMES)
		return false;
	child_set_used(v, used + n);
	return true;
}

/* The same, also from what the owner has reserved: whether bits are left shows in the row. */
static inline bool child_steal(struct child *v, uint32_t n)
{
	unsigned used = child_used(*v);

	if (child_is(*v, CHILD_HUGE | CHILD_FILLED | CHILD_ABSENT) || used + n > CHILD_USED_MAX)
		return false;
	child_set_used(v, used + n);
	return true;
}

/* n frames are free again: their bits are clear, or a claim has found no bits. */
static inline bool child_give(struct child *v, uint32_t n)
{
	unsigned used = child_used(*v);

	if (used < n || child_is(*v, CHILD_FILLED))
		return false;
	child_set_used(v, used - n);
	return true;
}

/* Takes the whole child as a huge frame; the row is the caller's alone to fill. */
static inline bool child_get_huge(struct child *v, uint32_t unused)
{
	if (!child_whole(*v))
		return false;
	v->raw = (v->raw & CHILD_DIRTY) | CHILD_HUGE | CHILD_FRAMES;
	return true;
}

/* Gives a huge frame back without touching its row; flags is CHILD_DIRTY or 0. */
static inline bool child_put_huge(struct child *v, uint32_t flags)
{
	if (!child_is(*v, CHILD_HUGE) || child_is(*v, CHILD_RESERVED | CHILD_ABSENT) ||
	    child_used(*v) != CHILD_FRAMES)
		return false;
	v->raw = CHILD_FILLED | flags;
	return true;
}

/* A huge frame becomes 512 frames, all of them allocated: one step, since the row is all ones. */
static inline bool child_split(struct child *v, uint32_t unused)
{
	if (!child_is(*v, CHILD_HUGE))
		return false;
	v->raw &= ~CHILD_HUGE;
	return true;
}

/* The caller has claimed all 512 bits of a reserved child: it is a huge frame now. */
static inline bool child_merge(struct child *v, uint32_t unused)
{
	if (child_is(*v, CHILD_HUGE | CHILD_FILLED | CHILD_ABSENT))
		return false;
	v->raw |= CHILD_HUGE;
	return true;
}

/* A local reserves what is free; what that was is told by the value before. */
static inline bool child_reserve(struct child *v, uint32_t local)
{
	if (child_is(*v, CHILD_HUGE | CHILD_ABSENT | CHILD_RESERVED) ||
	    child_used(*v) >= CHILD_FRAMES)
		return false;
	v->raw = (v->raw & (CHILD_DIRTY | CHILD_FILLED)) | CHILD_RESERVED |
		 local << CHILD_OWNER_AT | CHILD_FRAMES;
	return true;
}

/*
 * What the owner has when it settles with the others: F' frames of its own and used' in the entry,
 * with F' - used' = F - used. Never negative: what others have claimed beyond F stays in used'.
 */
static inline unsigned child_settled(unsigned own, unsigned used)
{
	return own + CHILD_FRAMES > used ? own + CHILD_FRAMES - used : 0;
}

/* The owner takes over what others gave back, and writes off what they stole. own is its count. */
static inline bool child_sync(struct child *v, uint32_t own)
{
	unsigned settled = child_settled(own, child_used(*v));

	if (settled > CHILD_FRAMES || settled == own)
		return false;
	child_set_used(v, child_used(*v) + settled - own);
	return true;
}

/* The owner's reservation ends; own is what it has left. arg is own << 16 | local. */
static inline bool child_release(struct child *v, uint32_t arg)
{
	unsigned own = arg >> 16;

	if (!child_owned_by(*v, arg & 0xffff))
		return false;
	v->raw &= ~(CHILD_OWNER | CHILD_RESERVED);
	child_set_used(v, child_used(*v) > own ? child_used(*v) - own : 0);
	return true;
}

/* Somebody needs the row of a FILLED child: it holds all 512 while clearing the row. */
static inline bool child_unfill_begin(struct child *v, uint32_t unused)
{
	if (!child_is(*v, CHILD_FILLED) || !child_whole(*v))
		return false;
	child_set_used(v, CHILD_FRAMES);
	return true;
}

static inline bool child_unfill_end(struct child *v, uint32_t unused)
{
	if (!child_is(*v, CHILD_FILLED))
		return false;
	v->raw &= ~CHILD_FILLED;
	return true;
}

static inline bool child_mark_dirty(struct child *v, uint32_t unused)
{
	if (child_is(*v, CHILD_DIRTY))
		return false;
	v->raw |= CHILD_DIRTY;
	return true;
}

/* For who has all 512 frames of it, and knows them zero. */
static inline bool child_mark_clean(struct child *v, uint32_t unused)
{
	if (!child_is(*v, CHILD_DIRTY))
		return false;
	v->raw &= ~CHILD_DIRTY;
	return true;
}

/* Offline is a huge frame that nobody owns. */
static inline bool child_leave(struct child *v, uint32_t unused)
{
	if (!child_is(*v, CHILD_HUGE))
		return false;
	v->raw = (v->raw & ~CHILD_HUGE) | CHILD_ABSENT;
	return true;
}

/* Back online, still allocated as a huge frame. */
static inline bool child_return(struct child *v, uint32_t unused)
{
	if (!child_is(*v, CHILD_ABSENT) || child_used(*v) < CHILD_FRAMES)
		return false;
	v->raw = (v->raw & ~CHILD_ABSENT) | CHILD_HUGE;
	return true;
}

/* Online for the first time: free, with a row of zeros. flags: CHILD_DIRTY or 0. */
static inline bool child_join(struct child *v, uint32_t flags)
{
	if (!child_is(*v, CHILD_ABSENT) || child_used(*v))
		return false;
	v->raw = flags;
	return true;
}

#endif
