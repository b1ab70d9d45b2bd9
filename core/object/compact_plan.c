#include "object/compact_plan.h"

#include <stdlib.h>
#include <string.h>

#define HUGE_FRAMES 512u

static bool can_go(const struct mrs_huge_use *use)
{
	return use->used && use->used < HUGE_FRAMES && use->used == use->movable;
}

/* Candidates first, least used before more used; what must stay comes after, fullest first. */
static int by_rank(const void *a, const void *b)
{
	const struct mrs_huge_use *x = a, *y = b;
	bool x_goes = can_go(x), y_goes = can_go(y);

	if (x_goes != y_goes)
		return x_goes ? -1 : 1;
	if (x->used != y->used)
		return (x->used < y->used) == x_goes ? -1 : 1;
	return x->huge < y->huge ? -1 : x->huge > y->huge;
}

static uint64_t room_in(const struct mrs_huge_use *use)
{
	return use->used ? HUGE_FRAMES - use->used : 0;
}

/* The targets in the order in which they are filled: fullest first. */
static int fullest_first(const void *a, const void *b)
{
	const struct mrs_huge_use *x = a, *y = b;

	if (x->used != y->used)
		return x->used > y->used ? -1 : 1;
	return x->huge < y->huge ? -1 : x->huge > y->huge;
}

void mrs_compact_plan(struct mrs_huge_use use[], size_t count, uint64_t huge_max, uint64_t move_max,
		      struct mrs_compact_plan *plan)
{
	uint64_t room = 0;
	size_t i;

	*plan = (struct mrs_compact_plan){0};
	qsort(use, count, sizeof(*use), by_rank);
	for (i = 0; i < count; i++)
		room += room_in(&use[i]);
	for (i = 0; i < count && can_go(&use[i]); i++) {
		/* A victim's own free places are lost as targets. */
		room -= room_in(&use[i]);
		if (plan->moves + use[i].used > room || (huge_max && plan->victims == huge_max) ||
		    (move_max && plan->moves + use[i].used > move_max))
			break;
		plan->moves += use[i].used;
		plan->victims++;
	}
	plan->first_target = plan->victims;
	qsort(use + plan->first_target, count - plan->first_target, sizeof(*use), fullest_first);
}

static int by_number(const void *a, const void *b)
{
	uint16_t x = *(const uint16_t *)a, y = *(const uint16_t *)b;

	return x < y ? -1 : x > y;
}

uint64_t mrs_compact_least(const struct mrs_huge_use use[], size_t count, size_t huge)
{
	uint16_t *used = malloc((count + 1) * sizeof(*used));
	size_t candidates = 0, i;
	uint64_t sum = 0;

	for (i = 0; used && i < count; i++)
		if (can_go(&use[i]))
			used[candidates++] = use[i].used;
	if (!used || huge > candidates) {
		free(used);
		return huge ? UINT64_MAX : 0;
	}
	qsort(used, candidates, sizeof(*used), by_number);
	for (i = 0; i < huge; i++)
		sum += used[i];
	free(used);
	return sum;
}
