/*
 * Orders 9 to 18: whole children, one or an aligned run of 2 to 512 of them.
 *
 * A run is claimed child by child in ascending order, after a look that all of them are free; the
 * first that cannot be had ends the attempt, and exactly those before it are given back. The
 * pending record names the whole run before the first claim.
 */
#include "frame/claim.h"

/* May this child be had whole? What is seen is checked again by the claim. */
static bool candidate(const struct morsel_frames *f, uint32_t child, bool steal)
{
	struct child v = child_load(f, child);

	if (child_whole(v))
		return true;
	return steal && !child_is(v, CHILD_HUGE | CHILD_ABSENT | CHILD_FILLED) &&
	       mrs_frames_row_all_zeros(row_of(f, child), 0, MORSEL_FRAMES_HUGE_ORDER);
}

static bool run_candidate(const struct morsel_frames *f, uint32_t first, uint32_t count, bool steal)
{
	for (uint32_t c = first; c < first + count; c++) {
		if ((c == first || c % TREE_CHILDREN == 0) &&
		    !tree_online(tree_load(f, c / TREE_CHILDREN)))
			return false;
		if (!candidate(f, c, steal))
			return false;
	}
	return true;
}

static bool run_claim(const struct morsel_frames *f, struct mrs_frames_local *l, uint32_t first,
		      uint32_t count, bool steal)
{
	uint32_t dirty = 0, got;

	claiming(l, 1);
	for (got = 0; got < count; got++) {
		if (!mrs_frames_child_get_huge(f, first + got, steal))
			break;
		MRS_PROBE("frame.run.claimed");
	}
	if (got == count) {
		claiming(l, 0);
		return true;
	}
	/* Gives back the got children from first on; each keeps what is known about its content. */
	for (uint32_t c = first; c < first + got; c++) {
		dirty = child_load(f, c).raw & CHILD_DIRTY;
		mrs_frames_child_put_huge(f, c, dirty);
		MRS_PROBE("frame.run.undone");
	}
	epoch_bump(&l->epoch);
	claiming(l, 0);
	return false;
}

bool mrs_frames_huge_get_at(const struct morsel_frames *f, struct mrs_frames_local *l,
			    uint64_t frame, unsigned order, bool steal)
{
	uint32_t first = (uint32_t)(frame / CHILD_FRAMES);
	uint32_t count = 1u << (order - MORSEL_FRAMES_HUGE_ORDER);

	if (!run_candidate(f, first, count, steal))
		return false;
	pending_store(&l->pending, pending_get(frame, order));
	return run_claim(f, l, first, count, steal);
}

static uint64_t run_try(struct get *g, uint32_t first, bool steal)
{
	uint32_t tree = first / TREE_CHILDREN;
	uint64_t frame = (uint64_t)first * CHILD_FRAMES, frames = (uint64_t)1 << g->order;
	uint64_t trees = frames / MORSEL_FRAMES_TREE;
	bool unused = !tree_kind(tree_load(g->f, tree));

	if (frame < g->first || frame + frames > g->end ||
	    !mrs_frames_huge_get_at(g->f, g->l, frame, g->order, steal))
		return MORSEL_FRAMES_NONE;
	g->l->huge = first + (uint32_t)(frames / CHILD_FRAMES);
	if (unused)
		mrs_frames_tree_claimed(g->f, tree, g->cls);
	for (uint64_t i = 1; i < trees; i++)
		mrs_frames_tree_claimed(g->f, tree + (uint32_t)i, g->cls);
	return frame;
}

/* Runs that lie within one tree. */
static uint64_t tree_runs(struct get *g, uint32_t tree, uint32_t count, bool steal)
{
	uint32_t end = tree_children_end(g->f, tree);

	for (uint32_t c = tree * TREE_CHILDREN; c + count <= end; c += count) {
		uint64_t frame = run_try(g, c, steal);

		if (frame != MORSEL_FRAMES_NONE)
			return frame;
	}
	return MORSEL_FRAMES_NONE;
}

/* Runs of one or more whole trees. */
static uint64_t forest_run(struct get *g, uint32_t tree, uint32_t count, bool steal)
{
	uint32_t trees = count / TREE_CHILDREN;

	if (tree % trees || (uint64_t)tree * TREE_CHILDREN + count > child_count(g->f) ||
	    tree + trees > trees_end(g->f))
		return MORSEL_FRAMES_NONE;
	return run_try(g, tree * TREE_CHILDREN, steal);
}

/*
 * All trees of one rank, or all that there are. *next becomes the best rank above this that was
 * seen.
 */
static uint64_t huge_pass(struct get *g, unsigned rank, bool all, unsigned *next)
{
	uint32_t end = trees_end(g->f), count = 1u << (g->order - MORSEL_FRAMES_HUGE_ORDER);
	int wanted = count < TREE_CHILDREN ? (int)count : (int)TREE_CHILDREN;
	uint32_t tree = g->tree;

	for (uint32_t i = 0; i < end; i++, tree = tree + 1 < end ? tree + 1 : 0) {
		struct tree t = tree_load(g->f, tree);
		unsigned here;
		uint64_t frame;

		if (!all && tree_whole(t) < wanted)
			continue;
		here = g->f->policy.rank[g->cls][tree_kind(t)];
		if (!tree_online(t) || here == MORSEL_FRAMES_NEVER)
			continue;
		if (!all && here > rank && here < *next)
			*next = here;
		if (!all && here != rank)
			continue;
		frame = count <= TREE_CHILDREN ? tree_runs(g, tree, count, all)
					       : forest_run(g, tree, count, all);
		if (frame != MORSEL_FRAMES_NONE)
			return frame;
	}
	return MORSEL_FRAMES_NONE;
}

/* After a walk that found nothing of its own kind, so many unused trees are taken without another.
 */
#define SURE_TREES 8

uint64_t mrs_frames_huge_search(struct get *g, bool all)
{
	unsigned rank = 0, next = MORSEL_FRAMES_RANKS;
	uint64_t frame;

	if (!g->fixed && g->l->huge / TREE_CHILDREN < trees_end(g->f))
		g->tree = g->l->huge / TREE_CHILDREN;
	if (all)
		return huge_pass(g, 0, true, &next);
	frame = huge_pass(g, 0, false, &next);
	if (frame == MORSEL_FRAMES_NONE)
		g->l->sure = SURE_TREES;
	while (frame == MORSEL_FRAMES_NONE && next < MORSEL_FRAMES_RANKS) {
		rank = next;
		next = MORSEL_FRAMES_RANKS;
		frame = huge_pass(g, rank, false, &next);
	}
	return frame;
}
