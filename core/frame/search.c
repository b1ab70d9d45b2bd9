/*
 * Where a get looks when its reservation cannot serve it: partly used children before whole ones,
 * in the trees of its own kind before others, and at the end everywhere.
 *
 * Why a failure is true (no false out-of-memory):
 *
 *  1. The last look goes over the rows themselves, reserved children included, so that neither a
 *     reservation nor a stale counter hides a frame. It skips unreserved children that count 512
 * used.
 *  2. Such a child can hide a free frame only behind a claim that has been counted and will be
 * undone. Its claimer raised the claiming mark of its local before it counted, and before it lowers
 * the mark it bumps the local's epoch. Likewise a frame that moves from where the look has not been
 * to where it has been was put there, which bumps an epoch before the same caller's next get.
 *  3. So if after the look no mark is up and the sum of the epochs is what it was before, nothing
 * was free at the moment the look began but what others got meanwhile: -ENOMEM is right. Otherwise
 * it looks again, now into every row. An epoch that moves means that somebody's put or get is
 *     finished; a mark that stays up (its owner may be dead) is waited for only so long.
 */
#include "frame/claim.h"

#define GRAZE_FRAMES   2u   /* a child with no more than this is not worth a reservation */
#define ROWS_BUDGET    128u /* rows looked into for orders above 0 before a whole child is opened */
#define LOOKS_MAX      65536u
#define LOOKS_CLAIMING 64u

static uint64_t epochs_sum(const struct morsel_frames *f)
{
	uint32_t end = locals_end(f);
	uint64_t sum = mrs_load_acquire(&f->locals[f->local_count].epoch);

	for (uint32_t i = 0; i < end; i++)
		sum += mrs_load_acquire(&f->locals[i].epoch);
	return sum;
}

/* Does a local keep frames in its pocket, out of sight of the entries? */
static bool pockets_full(const struct morsel_frames *f)
{
	uint32_t end = locals_end(f);

	for (uint32_t i = 0; i < end; i++)
		if (mrs_load_acquire32(&f->locals[i].own[OWN_POCKET].free))
			return true;
	return false;
}

static bool claims_up(const struct get *g)
{
	const struct morsel_frames *f = g->f;
	uint32_t end = locals_end(f);

	for (uint32_t i = 0; i < end; i++)
		if (i != g->local && mrs_load_acquire32(&f->locals[i].claiming))
			return true;
	return g->local != f->local_count &&
	       mrs_load_acquire32(&f->locals[f->local_count].claiming);
}

static unsigned rank_of(const struct get *g, struct tree t)
{
	return g->f->policy.rank[g->cls][tree_kind(t)];
}

static bool tree_in_range(const struct get *g, uint32_t tree)
{
	uint64_t first = (uint64_t)tree * MORSEL_FRAMES_TREE;

	return g->first < first + MORSEL_FRAMES_TREE && g->end > first;
}

/* Moves the reservation to child and takes from it. */
static uint64_t own_move(const struct get *g, uint32_t child)
{
	struct own *own = own_of(g->l, g->cls);

	mrs_frames_own_release(g->f, g->local, own);
	if (!mrs_frames_own_reserve(g, own, child))
		return MORSEL_FRAMES_NONE;
	g->l->tree = child / TREE_CHILDREN + 1;
	return mrs_frames_own_get(g, own);
}

static uint64_t take_partial(const struct get *g, uint32_t child, struct child v)
{
	if (g->order || g->fixed || CHILD_FRAMES - child_used(v) <= GRAZE_FRAMES)
		return mrs_frames_child_get(g, child, false);
	return own_move(g, child);
}

/* kind is what the tree was before. */
static uint64_t take_whole(const struct get *g, uint32_t child, unsigned kind)
{
	uint64_t frame = g->fixed ? mrs_frames_child_get(g, child, false) : own_move(g, child);

	if (frame != MORSEL_FRAMES_NONE && !kind)
		mrs_frames_tree_claimed(g->f, child / TREE_CHILDREN, g->cls);
	return frame;
}

static uint64_t tree_partials(const struct get *g, uint32_t tree, unsigned *budget)
{
	uint32_t end = tree_children_end(g->f, tree);

	for (uint32_t c = tree * TREE_CHILDREN; c < end && *budget; c++) {
		struct child v = child_load(g->f, c);
		uint64_t frame;

		if (!child_partial(v) || child_used(v) + (1u << g->order) > CHILD_FRAMES)
			continue;
		*budget -= g->order > 0;
		frame = take_partial(g, c, v);
		if (frame != MORSEL_FRAMES_NONE)
			return frame;
	}
	return MORSEL_FRAMES_NONE;
}

static uint64_t tree_wholes(const struct get *g, uint32_t tree, unsigned kind)
{
	uint32_t begin = tree * TREE_CHILDREN, end = tree_children_end(g->f, tree);

	for (uint32_t i = 0; i < TREE_CHILDREN; i++) {
		/* Every other local takes the second line of entries first. */
		uint32_t c = begin + (i ^ (g->local % 2 * TREE_CHILDREN / 2));
		uint64_t frame;

		if (c >= end || !child_whole(child_load(g->f, c)))
			continue;
		frame = take_whole(g, c, kind);
		if (frame != MORSEL_FRAMES_NONE)
			return frame;
	}
	return MORSEL_FRAMES_NONE;
}

/* What one walk over the trees does: rank is wanted now, next is the best that it saw beyond. */
struct walk {
	unsigned rank;
	unsigned next;
	unsigned budget;
};

/* Is this tree to be tried now? */
static bool walk_wants(const struct get *g, struct walk *w, uint32_t tree, struct tree t)
{
	unsigned rank = rank_of(g, t);

	if (!tree_online(t) || !tree_in_range(g, tree))
		return false;
	if (rank > w->rank && rank < w->next)
		w->next = rank;
	return rank == w->rank;
}

static uint64_t walk_wholes(const struct get *g, struct walk *w)
{
	uint32_t count = trees_end(g->f), tree = g->tree;

	for (uint32_t i = 0; i < count; i++, tree = tree + 1 < count ? tree + 1 : 0) {
		struct tree t = tree_load(g->f, tree);
		uint64_t frame;

		if (tree_whole(t) <= 0 || !walk_wants(g, w, tree, t))
			continue;
		frame = tree_wholes(g, tree, tree_kind(t));
		if (frame != MORSEL_FRAMES_NONE)
			return frame;
	}
	return MORSEL_FRAMES_NONE;
}

/* Nothing partly used is left in this tree: says so in the map, unless that has changed meanwhile.
 */
static void partial_gone(const struct get *g, uint32_t tree)
{
	mrs_fetch_and(&g->f->partial_map[tree / 64], ~((uint64_t)1 << tree % 64));
	if (tree_partial(tree_load(g->f, tree)) > 0)
		partial_seen(g->f, tree);
}

static uint64_t word_partials(const struct get *g, struct walk *w, uint32_t word, uint64_t bits)
{
	uint32_t count = trees_end(g->f);

	for (; bits && w->budget; bits &= bits - 1) {
		uint32_t tree = word * 64 + (unsigned)__builtin_ctzll(bits);
		uint64_t frame;
		struct tree t;

		if (tree >= count)
			break;
		t = tree_load(g->f, tree);
		if (tree_partial(t) <= 0) {
			partial_gone(g, tree);
			continue;
		}
		if (!walk_wants(g, w, tree, t))
			continue;
		frame = tree_partials(g, tree, &w->budget);
		if (frame != MORSEL_FRAMES_NONE)
			return frame;
	}
	return MORSEL_FRAMES_NONE;
}

/* By the map, from g->tree on and round. */
static uint64_t walk_partials(const struct get *g, struct walk *w)
{
	uint32_t words = (trees_end(g->f) + 63) / 64, first = g->tree / 64;
	uint64_t low = ((uint64_t)1 << g->tree % 64) - 1;

	for (uint32_t i = 0; i <= words && words; i++) {
		uint32_t word = (first + i) % words;
		uint64_t bits = mrs_load_relaxed(&g->f->partial_map[word]), frame;

		/* The first word is met twice: its upper part first, its lower part last. */
		if (i == 0)
			bits &= ~low;
		else if (i == words)
			bits &= low;
		frame = bits ? word_partials(g, w, word, bits) : MORSEL_FRAMES_NONE;
		if (frame != MORSEL_FRAMES_NONE)
			return frame;
	}
	return MORSEL_FRAMES_NONE;
}

/* Rank by rank: partly used before whole. A rank that no walk has seen is not walked. */
static uint64_t ranked(const struct get *g)
{
	struct walk w = {.rank = 0, .budget = ROWS_BUDGET};

	while (w.rank < MORSEL_FRAMES_RANKS) {
		uint64_t frame;

		w.next = MORSEL_FRAMES_RANKS;
		frame = walk_partials(g, &w);
		if (frame == MORSEL_FRAMES_NONE)
			frame = walk_wholes(g, &w);
		if (frame != MORSEL_FRAMES_NONE)
			return frame;
		w.rank = w.next;
	}
	return MORSEL_FRAMES_NONE;
}

/* One look over everything that the get may have. every: also where counters say nothing is left.
 */
static uint64_t look(const struct get *g, bool every)
{
	uint32_t count = trees_end(g->f);

	for (uint32_t i = 0; i < count; i++) {
		uint32_t tree = (g->tree + i) % count, end = tree_children_end(g->f, tree);
		struct tree t = tree_load(g->f, tree);

		if (!tree_online(t) || rank_of(g, t) == MORSEL_FRAMES_NEVER ||
		    !tree_in_range(g, tree))
			continue;
		for (uint32_t c = tree * TREE_CHILDREN; c < end; c++) {
			struct child v = child_load(g->f, c);
			uint64_t frame;

			if (child_is(v, CHILD_HUGE | CHILD_ABSENT) ||
			    (!every && !child_is(v, CHILD_RESERVED) &&
			     child_used(v) >= CHILD_FRAMES))
				continue;
			if (!child_is(v, CHILD_FILLED) &&
			    mrs_frames_row_all_ones(row_of(g->f, c), 0, MORSEL_FRAMES_HUGE_ORDER))
				continue;
			frame = mrs_frames_child_get(g, c, true);
			if (frame != MORSEL_FRAMES_NONE)
				return frame;
		}
	}
	return MORSEL_FRAMES_NONE;
}

static uint64_t everywhere(struct get *g)
{
	unsigned waited = 0;

	for (unsigned i = 0; i < LOOKS_MAX && waited < LOOKS_CLAIMING; i++) {
		uint64_t epochs = epochs_sum(g->f), frame;

		frame = g->order < MORSEL_FRAMES_HUGE_ORDER ? look(g, i > 0)
							    : mrs_frames_huge_search(g, true);
		if (frame != MORSEL_FRAMES_NONE)
			return frame;
		if (claims_up(g))
			waited += epochs_sum(g->f) == epochs;
		else if (epochs_sum(g->f) == epochs && (i > 0 || !pockets_full(g->f)))
			break;
		MRS_PROBE("frame.search.again");
		mrs_spin_hint();
	}
	return MORSEL_FRAMES_NONE;
}

/* Where a local that has not found anything yet begins: 16 places, far from each other. */
static uint32_t first_tree(const struct morsel_frames *f, unsigned local)
{
	static const uint8_t place[16] = {0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15};

	return (uint32_t)((uint64_t)trees_end(f) * place[local % 16] / 16);
}

uint64_t mrs_frames_search(struct get *g)
{
	struct own *own = own_of(g->l, g->cls);
	uint64_t frame = MORSEL_FRAMES_NONE;

	local_seen(g->f, g->local);
	if (g->l->own[OWN_POCKET].free)
		mrs_frames_pocket_empty(g->f, g->l);
	if (!g->fixed)
		g->tree = g->l->tree ? g->l->tree - 1 : first_tree(g->f, g->local);
	if (g->tree >= trees_end(g->f))
		g->tree = 0;
	if (g->order >= MORSEL_FRAMES_HUGE_ORDER) {
		frame = mrs_frames_huge_search(g, false);
		return frame != MORSEL_FRAMES_NONE ? frame : everywhere(g);
	}
	if (mrs_frames_own_sync(g->f, g->local, own) && !g->fixed)
		frame = mrs_frames_own_get(g, own);
	if (frame == MORSEL_FRAMES_NONE)
		frame = ranked(g);
	return frame != MORSEL_FRAMES_NONE ? frame : everywhere(g);
}
