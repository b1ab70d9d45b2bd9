/*
 * Looking without touching: statistics, questions about single frames, and validate, which runs the
 * equations of child.h and tree.h over everything.
 */
#include "frame/claim.h"

/* Free frames by the counters but for pockets; below zero if those were stolen from. */
static int64_t child_counted(struct child v, uint32_t own)
{
	return child_is(v, CHILD_FILLED) ? CHILD_FRAMES
					 : (int64_t)CHILD_FRAMES + own - child_used(v);
}

/* Free frames by the row. */
static int64_t child_bits(const struct morsel_frames *f, uint32_t child, struct child v)
{
	if (child_is(v, CHILD_FILLED))
		return CHILD_FRAMES;
	return child_is(v, CHILD_HUGE) ? 0 : CHILD_FRAMES - mrs_frames_row_count(row_of(f, child));
}

/* What all pockets hold. */
static int64_t pockets_sum(const struct morsel_frames *f)
{
	uint32_t end = locals_end(f);
	int64_t sum = 0;

	for (uint32_t i = 0; i < end; i++)
		sum += own_free(&f->locals[i].own[OWN_POCKET]);
	return sum;
}

/* pockets: what they may hold of this child, so that the row must say whether it is whole. */
static int64_t child_stat(const struct morsel_frames *f, uint32_t child, int64_t pockets,
			  bool exact, struct morsel_frames_stat *stat)
{
	struct child v = child_load(f, child);
	uint32_t own = mrs_frames_owner_free(f, child, v);
	int64_t counted = child_counted(v, own), free = exact ? child_bits(f, child, v) : counted;
	bool whole = free >= CHILD_FRAMES;

	if (child_is(v, CHILD_ABSENT))
		return 0;
	if (!whole && !child_is(v, CHILD_HUGE) && counted + pockets >= CHILD_FRAMES)
		whole = mrs_frames_row_all_zeros(row_of(f, child), 0, MORSEL_FRAMES_HUGE_ORDER);
	stat->online += CHILD_FRAMES;
	stat->huge_free += whole;
	stat->huge_used += child_is(v, CHILD_HUGE);
	stat->huge_zero += whole && !child_is(v, CHILD_DIRTY);
	if (own && counted > 0)
		stat->reserved += own < counted ? own : (uint64_t)counted;
	return free;
}

static void stat_all(const struct morsel_frames *f, bool exact, struct morsel_frames_stat *stat)
{
	struct morsel_frames_stat sum = {.capacity = f->capacity};
	int64_t pockets = pockets_sum(f), free = exact ? 0 : pockets;
	uint32_t trees = trees_end(f);

	for (uint32_t t = 0; t < trees; t++) {
		uint32_t end = tree_children_end(f, t);

		if (!tree_online(tree_load(f, t)))
			continue;
		for (uint32_t c = t * TREE_CHILDREN; c < end; c++)
			free += child_stat(f, c, pockets, exact, &sum);
	}
	sum.free = free > 0 ? (uint64_t)free : 0;
	*stat = sum;
}

void morsel_frames_stat_fast(const struct morsel_frames *f, struct morsel_frames_stat *stat)
{
	stat_all(f, false, stat);
}

void morsel_frames_stat_exact(const struct morsel_frames *f, struct morsel_frames_stat *stat)
{
	stat_all(f, true, stat);
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
	unsigned free = mrs_frames_owner_free(f, child, v), used = child_used(v);

	/* All locals are looked at only where a pocket is the one explanation left. */
	if (zeros + used != CHILD_FRAMES + free)
		free += mrs_frames_pockets_free(f, child);

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
		if (child == UINT32_MAX ||
		    (i != OWN_POCKET && !child_owned_by(child_load(f, child), local)))
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
