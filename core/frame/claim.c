/*
 * Children under concurrency. See claim.h, and child.h for the equation that every step keeps.
 *
 *  1. A frame belongs to who turned its bit from 0 to 1 (or took its child as huge). Counters only
 *     say where to look; so whatever order they change in, no frame has two owners.
 *  2. Getters count first and set bits second; putters clear bits first and count second. So a
 * child whose entry says 0 used and not reserved has an all-zero row in which nobody is working:
 * who takes it as huge may fill its row with plain stores.
 *  3. The owner of a reservation counts in its local. It sets bits of a reserved child without
 *     looking at the entry: rule 2 holds for it too, since the entry says reserved.
 *  4. A thief counts in the entry (used goes above 512) and then looks for bits; if it finds none,
 * it takes its count back. The owner notices by not finding bits, and settles (child_sync).
 *  5. A huge frame has a row of ones from the moment its getter returns. Splitting it is therefore
 * a single step of the entry, which one of two threads makes and which nobody has to finish.
 *  6. FILLED children keep their ones. Whoever wants single frames of one first holds all of it.
 */
#include "frame/claim.h"

bool mrs_frames_child_unfill(const struct morsel_frames *f, struct mrs_frames_local *l,
			     uint32_t child)
{
	struct child seen;
	unsigned freed;

	claiming(l, 1);
	if (!child_apply(f, child, child_unfill_begin, 0, &seen)) {
		claiming(l, 0);
		return !child_is(seen, CHILD_FILLED);
	}
	MRS_PROBE("frame.unfill.row");
	/* 512, but for what a wrong put has cleared in the same instant and counts itself. */
	freed = row_empty(row_of(f, child));
	MRS_PROBE("frame.unfill.end");
	child_apply(f, child, child_unfill_end, 0, NULL);
	child_apply(f, child, child_give, freed, NULL);
	epoch_bump(&l->epoch);
	claiming(l, 0);
	return true;
}

bool mrs_frames_own_reserve(const struct get *g, struct own *own, uint32_t child)
{
	struct child seen;
	uint32_t free;

	/* Named before it is taken, so that repair finds it. */
	mrs_store_relaxed32(&own->free, 0);
	own->child = child + 1;
	mrs_compiler_barrier();
	MRS_PROBE("frame.reserve.named");
	if (!child_apply(g->f, child, child_reserve, g->local, &seen)) {
		own->child = 0;
		return false;
	}
	MRS_PROBE("frame.reserve.taken");
	free = CHILD_FRAMES - child_used(seen);
	if (child_is(seen, CHILD_FILLED)) {
		free = row_empty(row_of(g->f, child));
		child_apply(g->f, child, child_unfill_end, 0, NULL);
	}
	own->word = 0;
	own->cache = 0;
	mrs_store_relaxed32(&own->free, free);
	return true;
}

void mrs_frames_own_release(const struct morsel_frames *f, unsigned local, struct own *own)
{
	uint32_t child = own_child(f, own);

	/* First, so that who dies here leaves no cache without a child. */
	own->cache = 0;
	mrs_compiler_barrier();
	if (child != UINT32_MAX) {
		uint32_t free = mrs_load_relaxed32(&own->free);

		child_apply(f, child, child_release, (free & 0xffff) << 16 | local, NULL);
		MRS_PROBE("frame.release.entry");
	}
	own->child = 0;
	mrs_store_relaxed32(&own->free, 0);
}

void mrs_frames_pocket_empty(const struct morsel_frames *f, struct mrs_frames_local *l)
{
	struct own *pocket = &l->own[OWN_POCKET];
	uint32_t child = own_child(f, pocket), free = mrs_load_relaxed32(&pocket->free);

	/* Forgotten first: who dies here leaves too much counted as used, never too little. */
	mrs_store_relaxed32(&pocket->free, 0);
	pocket->cache = 0;
	MRS_PROBE("frame.pocket.empty");
	if (free && child != UINT32_MAX)
		child_apply(f, child, child_give, free, NULL);
	pocket->child = 0;
}

bool mrs_frames_own_sync(const struct morsel_frames *f, unsigned local, struct own *own)
{
	uint32_t child = own_child(f, own), free = mrs_load_relaxed32(&own->free);
	struct child seen;

	if (child == UINT32_MAX || !child_owned_by(child_load(f, child), local) ||
	    !child_apply(f, child, child_sync, free, &seen))
		return false;
	MRS_PROBE("frame.sync.entry");
	mrs_store_relaxed32(&own->free, child_settled(free, child_used(seen)));
	return true;
}

/* The part of the get's range that lies in child, as bits. False if none. */
static bool row_bounds(const struct get *g, uint32_t child, struct row_search *search)
{
	uint64_t base = (uint64_t)child * CHILD_FRAMES;

	if (g->end <= base || g->first >= base + CHILD_FRAMES)
		return false;
	search->base = base;
	search->from = g->first > base ? (unsigned)(g->first - base) : 0;
	search->to = g->end < base + CHILD_FRAMES ? (unsigned)(g->end - base) : CHILD_FRAMES;
	return true;
}

uint64_t mrs_frames_child_get(const struct get *g, uint32_t child, bool force)
{
	struct row_search search = {.order = g->order,
				    .start = g->start,
				    .pending = &g->l->pending,
				    .epoch = &g->l->epoch};
	struct child seen;
	int at;

	if (!row_bounds(g, child, &search))
		return MORSEL_FRAMES_NONE;
	pending_store(&g->l->pending, pending_claim(search.base));
	if (child_is(child_load(g->f, child), CHILD_FILLED) &&
	    !mrs_frames_child_unfill(g->f, g->l, child))
		return MORSEL_FRAMES_NONE;
	if (g->order && !mrs_frames_row_has(row_of(g->f, child), &search))
		return MORSEL_FRAMES_NONE;
	claiming(g->l, 1);
	if (!child_apply(g->f, child, force ? child_steal : child_take, 1u << g->order, &seen)) {
		claiming(g->l, 0);
		return MORSEL_FRAMES_NONE;
	}
	MRS_PROBE("frame.take.counted");
	at = mrs_frames_row_get(row_of(g->f, child), &search);
	if (at < 0) {
		MRS_PROBE("frame.take.undo");
		child_apply(g->f, child, child_give, 1u << g->order, NULL);
		epoch_bump(&g->l->epoch);
	}
	claiming(g->l, 0);
	return at < 0 ? MORSEL_FRAMES_NONE : search.base + (unsigned)at;
}

uint64_t mrs_frames_own_get(const struct get *g, struct own *own)
{
	uint32_t child = own_child(g->f, own), free = mrs_load_relaxed32(&own->free);
	uint32_t frames = 1u << g->order;
	struct row_search search = {.order = g->order,
				    .start = own->word % ROW_WORDS * 64,
				    .pending = &g->l->pending,
				    .epoch = &g->l->epoch};
	int at;

	if (child == UINT32_MAX || free < frames || !row_bounds(g, child, &search))
		return MORSEL_FRAMES_NONE;
	if (g->order > 6)
		claiming(g->l, 1);
	pending_store(&g->l->pending, pending_claim(search.base));
	mrs_store_relaxed32(&own->free, free - frames);
	at = mrs_frames_row_get(row_of(g->f, child), &search);
	if (at < 0)
		mrs_store_relaxed32(&own->free, free);
	own->cache = 0;
	if (g->order > 6)
		claiming(g->l, 0);
	return at < 0 ? MORSEL_FRAMES_NONE : search.base + (unsigned)at;
}

/* Takes all bits of a free child that locals count as theirs, and makes it huge under their counts.
 */
static bool steal_huge(const struct morsel_frames *f, uint32_t child)
{
	uint64_t *row = row_of(f, child);

	if (!mrs_frames_row_all_zeros(row, 0, 9) ||
	    !child_apply(f, child, child_steal, CHILD_FRAMES, NULL))
		return false;
	MRS_PROBE("frame.steal.counted");
	if (!mrs_frames_row_get_at(row, 0, 9)) {
		child_apply(f, child, child_give, CHILD_FRAMES, NULL);
		return false;
	}
	MRS_PROBE("frame.steal.bits");
	child_apply(f, child, child_merge, 0, NULL);
	return true;
}

bool mrs_frames_child_get_huge(const struct morsel_frames *f, uint32_t child, bool steal)
{
	struct child seen;

	if (child_apply(f, child, child_get_huge, 0, &seen)) {
		if (!child_is(seen, CHILD_FILLED)) {
			MRS_PROBE("frame.huge.fill");
			row_fill(row_of(f, child), UINT64_MAX);
		}
		return true;
	}
	return steal && steal_huge(f, child);
}

void mrs_frames_child_put_huge(const struct morsel_frames *f, uint32_t child, uint32_t dirty)
{
	unsigned freed;

	if (child_apply(f, child, child_put_huge, dirty, NULL))
		return;
	/* Others count frames of it, from whom it was stolen: back the way it came. */
	if (dirty)
		child_apply(f, child, child_mark_dirty, 0, NULL);
	child_apply(f, child, child_split, 0, NULL);
	MRS_PROBE("frame.huge.split");
	freed = mrs_frames_row_put(row_of(f, child), 0, 9);
	if (freed)
		child_apply(f, child, child_give, freed, NULL);
}

void mrs_frames_tree_claimed(const struct morsel_frames *f, uint32_t tree, unsigned cls)
{
	uint64_t seen = mrs_load_relaxed(&f->trees[tree]);
	struct tree t;

	do {
		t.raw = seen;
		if (!tree_set_kind(&t, cls + 1))
			return;
	} while (!mrs_cas(&f->trees[tree], &seen, t.raw));
}

uint32_t mrs_frames_owner_free(const struct morsel_frames *f, uint32_t child, struct child v)
{
	unsigned owner = child_owner(v);

	if (!child_is(v, CHILD_RESERVED) || !local_in_range(f, owner))
		return 0;
	for (unsigned i = 0; i < OWN_POCKET; i++)
		if (own_holds(&f->locals[owner].own[i], child))
			return own_free(&f->locals[owner].own[i]);
	return 0;
}

uint32_t mrs_frames_pockets_free(const struct morsel_frames *f, uint32_t child)
{
	uint32_t end = locals_end(f), sum = 0;

	for (uint32_t i = 0; i < end; i++)
		if (own_holds(&f->locals[i].own[OWN_POCKET], child))
			sum += own_free(&f->locals[i].own[OWN_POCKET]);
	return sum;
}
