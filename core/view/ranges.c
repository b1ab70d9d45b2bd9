/* See ranges.h. A sorted array: sets are small, and lookups far more frequent than changes. */
#include "view/ranges.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

/* What is reserved at once: a letter that forgets around grants cannot get memory. */
#define AHEAD 32u

int mrs_ranges_reserve(struct mrs_ranges *set)
{
	size_t room = mrs_max(2 * set->room, 64u);
	struct mrs_range *range;

	if (set->count + AHEAD <= set->room)
		return 0;
	range = realloc(set->range, room * sizeof(*range));
	if (!range)
		return mrs_fail(-ENOMEM, "no memory for a list of %zu page ranges", room);
	set->range = range;
	set->room = room;
	return 0;
}

/* Index of the first range that ends after page (or at it, if touching counts). */
static size_t find_index(const struct mrs_ranges *set, uint64_t page, bool touching)
{
	size_t low = 0, high = set->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		uint64_t end = set->range[middle].end;

		if (touching ? end < page : end <= page)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Replaces ranges [at, at + gone) by the count given ones. */
static void splice(struct mrs_ranges *set, size_t at, size_t gone, const struct mrs_range *by,
		   size_t count)
{
	MRS_CHECK(set->count - gone + count <= set->room);
	memmove(&set->range[at + count], &set->range[at + gone],
		(set->count - at - gone) * sizeof(*by));
	memcpy(&set->range[at], by, count * sizeof(*by));
	set->count = set->count - gone + count;
}

void mrs_ranges_add(struct mrs_ranges *set, uint64_t first, uint64_t end)
{
	struct mrs_range whole = {first, end};
	size_t at = find_index(set, first, true), after = at;

	for (; after < set->count && set->range[after].first <= end; after++) {
		whole.first = mrs_min(whole.first, set->range[after].first);
		whole.end = mrs_max(whole.end, set->range[after].end);
	}
	splice(set, at, after - at, &whole, 1);
}

void mrs_ranges_remove(struct mrs_ranges *set, uint64_t first, uint64_t end)
{
	size_t at = find_index(set, first, false), after = at;
	struct mrs_range rest[2];
	size_t count = 0;

	for (; after < set->count && set->range[after].first < end; after++) {
		struct mrs_range old = set->range[after];

		if (old.first < first)
			rest[count++] = (struct mrs_range){old.first, first};
		if (old.end > end)
			rest[count++] = (struct mrs_range){end, old.end};
	}
	if (after > at)
		splice(set, at, after - at, rest, count);
}

bool mrs_ranges_find(const struct mrs_ranges *set, uint64_t first, uint64_t end,
		     struct mrs_range *found)
{
	size_t at = find_index(set, first, false);

	if (at == set->count || set->range[at].first >= end)
		return false;
	found->first = mrs_max(set->range[at].first, first);
	found->end = mrs_min(set->range[at].end, end);
	return true;
}

void mrs_ranges_free(struct mrs_ranges *set)
{
	free(set->range);
	*set = (struct mrs_ranges){0};
}
