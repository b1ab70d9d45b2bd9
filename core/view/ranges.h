/*
 * A set of page numbers, as disjoint ascending ranges: which pages of a view have no translation.
 *
 * Empty for most views, one range for a lazy one. Adding may need memory; mrs_ranges_reserve() gets
 * it before something is done that cannot be undone. Not thread-safe.
 */
#ifndef MRS_VIEW_RANGES_H
#define MRS_VIEW_RANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mrs_range {
	uint64_t first;
	uint64_t end;
};

struct mrs_ranges {
	struct mrs_range *range;
	size_t count;
	size_t room;
};

/* Room for two more ranges, which any one add or remove can need. -ENOMEM in words. */
int mrs_ranges_reserve(struct mrs_ranges *set);
/* The same without getting it. */
static inline bool mrs_ranges_has_room(const struct mrs_ranges *set)
{
	return set->count + 2 <= set->room;
}
/* Puts [first, end) in, or takes it out. Cannot fail after a reserve. */
void mrs_ranges_add(struct mrs_ranges *set, uint64_t first, uint64_t end);
void mrs_ranges_remove(struct mrs_ranges *set, uint64_t first, uint64_t end);
/* The first part of the set in [first, end); false if there is none. */
bool mrs_ranges_find(const struct mrs_ranges *set, uint64_t first, uint64_t end,
		     struct mrs_range *found);
void mrs_ranges_free(struct mrs_ranges *set);

#endif
