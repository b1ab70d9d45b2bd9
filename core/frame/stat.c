/*
 * Looking without touching: statistics, questions about single frames, and validate, which runs the
 * equations of child.h and tree.h over everything.
 */
#include "frame/claim.h"

/* What the owner of a reserved child has of it; 0 if the reservation makes no sense. */
static uint32_t owner_free(const struct morsel_frames *f, uint32_t child, struct child v)
{
	unsigned owner = child_owner(v);

	if (!child_is(v, CHILD_RESERVED) || !local_in_range(f, owner))
		return 0;
	for (unsigned i = 0; i < OWNS; i++) {
		const struct own *own = &f->locals[owner].own[i];
		uint32_t free = mrs_load_relaxed32(&own->free);

		if (own_holds(own, child))
			return free < CHILD_FRAMES ? free : CHILD_FRAMES;
	}
	return 0;
}

/* Free frames by the counters. */
static unsigned child_free_counted(const struct morsel_frames *f, uint32_t child, struct child v)
{
	unsigned have = CHILD_FRAMES + owner_free(f, child, v), used = child_used(v);

	if (child_is(v, CHILD_FILLED))
		return CHILD_FRAMES;
	if (child_is(v, CHILD_HUGE) || used >= have)
		return 0;
	return have - used < CHILD_FRAMES ? have - used : CHILD_FRAMES;
}

/* Free frames by the row. */
static unsigned child_free_bits(const struct morsel_frames *f, uint32_t child, struct child v)
{
	if (child_is(v, CHILD_FILLED))
		return CHILD_FRAMES;
	return child_is(v, CHILD_HUGE) ? 0 : CHILD_FRAMES - mrs_frames_row_count(row_of(f, child));
}

static void child_stat(struct morsel_frames_stat *stat, struct child v, unsigned free,
		       uint32_t owned)
{
	stat->online += CHILD_FRAMES;
	stat->free += free;
	stat->huge_free += free == CHILD_FRAMES;
	stat->huge_used += child_is(v, CHILD_HUGE);
	stat->huge_zero += free == CHILD_FRAMES && !child_is(v, CHILD_DIRTY);
	stat->reserved += owned < free ? owned : free;
}

static void stat_all(const struct morsel_frames *f, struct morsel_frames_stat *stat,
		     unsigned (*count)(const struct morsel_frames *f, uint32_t child,
				       struct child v))
{
	struct morsel_frames_stat sum = {.capacity = f->capacity};
	uint32_t trees = trees_end(f);

	for (uint32_t t = 0; t < trees; t++) {
		uint32_t end = tree_children_end(f, t);

		if (!tree_online(tree_load(f, t)))
			continue;
		for (uint32_t c = t * TREE_CHILDREN; c < end; c++) {
			struct child v = child_load(f, c);

			if (!child_is(v, CHILD_ABSENT))
				child_stat(&sum, v, count(f, c, v), owner_free(f, c, v));
		}
	}
	*stat = sum;
}

void morsel_frames_stat_fast(const struct morsel_frames *f, struct morsel_frames_stat *stat)
{
	stat_all(f, stat, child_free_counted);
}

void morsel_frames_stat_exact(const struct morsel_frames *f, struct morsel_frames_stat *stat)
{
	stat_all(f, stat, child_free_bits);
}

static bool range_ok(const struct morsel_frames *f, uint64_t frame, unsigned order)
{
	return order <= MORSEL_FRAMES_MAX_ORDER && frame < f->capacity &&
	       !(frame & (((uint64_t)1 << order) - 1)) &&
	       ((uint64_t)1 << order) <= f->capacity - frame;
}

/* Are all frames of the range in child free (or allocated)? */
static bool child_all(const struct morsel_frames *f, uint64_t frame, unsigned order, bool free)
{
	struct child v = child_load(f, (uint32_t)(frame / CHILD_FRAMES));
	const uint64_t *row = row_of(f, (uint32_t)(frame / CHILD_FRAMES));
	unsigned at = frame % CHILD_FRAMES;

	if (child_is(v, CHILD_ABSENT))
		return false;
	if (child_is(v, CHILD_FILLED | CHILD_HUGE))
		return child_is(v, CHILD_FILLED) == free;
	return free ? mrs_frames_row_all_zeros(row, at, order)
		    : mrs_frames_row_all_ones(row, at, order);
}

static bool range_all(const struct morsel_frames *f, uint64_t frame, unsigned order, bool free)
{
	unsigned step = order < MORSEL_FRAMES_HUGE_ORDER ? order : MORSEL_FRAMES_HUGE_ORDER;
	uint64_t end = frame + ((uint64_t)1 << order);

	if (!range_ok(f, frame, order))
		return false;
	for (; frame < end; frame += (uint64_t)1 << step)
		if (!morsel_frames_is_online(f, frame) || !child_all(f, frame, step, free))
			return false;
	return true;
}

bool morsel_frames_is_free(const struct morsel_frames *f, uint64_t frame, unsigned order)
{
	return range_all(f, frame, order, true);
}

bool morsel_frames_is_allocated(const struct morsel_frames *f, uint64_t frame, unsigned order)
{
	return range_all(f, frame, order, false);
}

/* ---- Validate -------------------------------------------------------------------------------- */

/* Which equation of child.h does not hold, or NULL. */
static const char *child_broken(const struct morsel_frames *f, uint32_t child, struct child v)
{
	unsigned zeros = CHILD_FRAMES - mrs_frames_row_count(row_of(f, child));
	unsigned free = owner_free(f, child, v), used = child_used(v);

	if (!child_valid(v))
		return "a child's entry has fields that contradict each other";
	if (child_is(v, CHILD_RESERVED) && !local_in_range(f, child_owner(v)))
		return "a child is reserved by a local that does not exist";
	if (child_is(v, CHILD_FILLED | CHILD_HUGE) && zeros)
		return "the row of a huge frame is not all ones";
	if (child_is(v, CHILD_FILLED))
		return NULL;
	if (child_is(v, CHILD_ABSENT))
		return used % CHILD_FRAMES + zeros % CHILD_FRAMES && !free
			       ? "an absent child is partly used"
			       : NULL;
	if (zeros + used != CHILD_FRAMES + free)
		return "a child's counters do not match its row";
	return NULL;
}

static const char *tree_broken(const struct morsel_frames *f, uint32_t tree, uint64_t *where)
{
	uint32_t first = tree * TREE_CHILDREN, end = tree_children_end(f, tree);
	uint64_t sum = TREE_NOT_WHOLE * (first + TREE_CHILDREN - end);
	struct tree t = tree_load(f, tree);

	for (uint32_t c = first; c < end; c++) {
		struct child v = child_load(f, c);
		const char *broken = child_broken(f, c, v);

		*where = (uint64_t)c * CHILD_FRAMES;
		if (broken)
			return broken;
		sum += tree_share(v);
	}
	*where = (uint64_t)first * CHILD_FRAMES;
	if (!tree_valid(t))
		return "a tree's entry has fields that contradict each other";
	return t.raw - tree_flags(t) == sum ? NULL : "a tree's counters do not match its children";
}

static const char *local_broken(const struct morsel_frames *f, unsigned local, uint64_t *where)
{
	const struct mrs_frames_local *l = &f->locals[local];

	for (unsigned i = 0; i < OWNS; i++) {
		uint32_t child = own_child(f, &l->own[i]);

		*where = (uint64_t)child * CHILD_FRAMES;
		if (!l->own[i].child)
			continue;
		if (child == UINT32_MAX || !child_owned_by(child_load(f, child), local))
			return "a local holds a child whose entry says otherwise";
		if (l->own[i].free > CHILD_FRAMES)
			return "a local counts more frames than a child has";
	}
	return NULL;
}

int morsel_frames_validate(const struct morsel_frames *f, const char **what, uint64_t *where)
{
	uint32_t trees = trees_end(f), locals = locals_end(f);
	const char *broken = NULL;
	uint64_t at = 0;

	for (uint32_t t = 0; t < trees && !broken; t++)
		if (tree_online(tree_load(f, t)))
			broken = tree_broken(f, t, &at);
	for (uint32_t i = 0; i < locals && !broken; i++)
		broken = local_broken(f, i, &at);
	if (!broken)
		return 0;
	if (what)
		*what = broken;
	if (where)
		*where = at;
	return -FRAMES_EINVAL;
}
