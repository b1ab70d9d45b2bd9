/*
 * Which huge frames compaction empties, and into which: arithmetic on counts, without a pool.
 *
 *	used	frames of it that are allocated
 *	movable	of them, pages that may be moved; a victim has used == movable
 *
 * Victims are taken in the order of their use, least first; what they hold goes into the free
 * places of the others, fullest first, so that those that are nearly empty stay to become victims
 * later.
 */
#ifndef MRS_OBJECT_COMPACT_PLAN_H
#define MRS_OBJECT_COMPACT_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mrs_huge_use {
	uint64_t huge; /* frame number / 512 */
	uint16_t used;
	uint16_t movable;
};

struct mrs_compact_plan {
	size_t victims;	     /* use[0 ... victims - 1] after planning */
	size_t first_target; /* use[first_target ... count - 1] take them, in this order */
	uint64_t moves;	     /* pages in the victims */
};

/*
 * Sorts use[] into victims, the rest, and targets, and says how many; huge_max and move_max 0 are
 * no limit. Huge frames that are wholly free or wholly used should be left out of use[], and are
 * passed by. Every page of a victim finds a place in a target, as the counts stand.
 */
void mrs_compact_plan(struct mrs_huge_use use[], size_t count, uint64_t huge_max, uint64_t move_max,
		      struct mrs_compact_plan *plan);

/* Fewest moves that gain huge huge frames from use[], who may be moved known; UINT64_MAX: not to be
 * had. */
uint64_t mrs_compact_least(const struct mrs_huge_use use[], size_t count, size_t huge);

#endif
