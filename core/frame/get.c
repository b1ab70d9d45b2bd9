/*
 * Gets: the fast paths, and what surrounds the search.
 *
 * A get of order 0 from the reservation costs one atomic operation, on a row word that nobody else
 * writes as long as this local owns the child; everything else is a load or a store in the local's
 * own lines.
 */
#include "frame/claim.h"

static int get_check(const struct morsel_frames *f, unsigned local, unsigned order, unsigned cls)
{
	if (!local_in_range(f, local) || order > MORSEL_FRAMES_MAX_ORDER ||
	    cls >= MORSEL_FRAMES_CLASSES)
		return -FRAMES_EINVAL;
	return 0;
}

static void get_end(const struct morsel_frames *f, struct mrs_frames_local *l, unsigned flags,
		    bool got)
{
	MRS_PROBE("frame.get.end");
	if (!got || !(flags & MORSEL_FRAMES_TRACKED))
		pending_store(&l->pending, 0);
	local_leave(f, l);
}

/* Finds a word of the row with free bits for the cache. */
static bool cache_fill(const struct morsel_frames *f, struct own *own)
{
	uint32_t child = own_child(f, own);
	const uint64_t *row = row_of(f, child);

	if (child == UINT32_MAX || !mrs_load_relaxed32(&own->free))
		return false;
	for (unsigned i = 0; i < ROW_WORDS; i++) {
		unsigned word = (own->word + i) % ROW_WORDS;
		uint64_t free = ~mrs_load_relaxed(&row[word]);

		if (free) {
			own->word = child * ROW_WORDS + word;
			own->cache = free;
			return true;
		}
	}
	return false;
}

/* One frame out of what the local counts itself, or MORSEL_FRAMES_NONE. */
static inline uint64_t get_own(const struct morsel_frames *f, struct mrs_frames_local *l,
			       struct own *own)
{
	uint32_t free = mrs_load_relaxed32(&own->free);
	uint64_t word = own->word, cache = own->cache, mask, frame;

	if (frames_unlikely(!free || !cache || word >= f->capacity / 64))
		return MORSEL_FRAMES_NONE;
	frame = word * 64 + (unsigned)__builtin_ctzll(cache);
	mask = (uint64_t)1 << frame % 64;
	own->cache = cache & (cache - 1);
	pending_store(&l->pending, pending_get(frame, 0));
	mrs_store_relaxed32(&own->free, free - 1);
	MRS_PROBE("frame.get.fast");
	/* A thief may have been faster: then the search sorts it out. */
	if (frames_unlikely(mrs_fetch_or(&f->rows[word], mask) & mask)) {
		mrs_store_relaxed32(&own->free, free);
		return MORSEL_FRAMES_NONE;
	}
	MRS_PROBE("frame.get.done");
	return frame;
}

/* May the huge frames go on into this tree of another kind? If it is unused: a few times. */
static __attribute__((noinline)) bool huge_next_tree(const struct morsel_frames *f,
						     struct mrs_frames_local *l, unsigned cls,
						     struct tree t)
{
	if (tree_kind(t) || !l->sure || f->policy.rank[cls][0] >= MORSEL_FRAMES_RANKS)
		return false;
	l->sure--;
	mrs_frames_tree_claimed(f, l->huge / TREE_CHILDREN, cls);
	return true;
}

/* The next huge frame, if it lies in a tree of the first choice, or MORSEL_FRAMES_NONE. */
static inline uint64_t get_huge(const struct morsel_frames *f, struct mrs_frames_local *l,
				unsigned cls)
{
	uint32_t child = l->huge;
	struct child seen;
	struct tree t;

	if (frames_unlikely(child >= child_count(f) || child / TREE_CHILDREN >= trees_end(f)))
		return MORSEL_FRAMES_NONE;
	t = tree_load(f, child / TREE_CHILDREN);
	if (frames_unlikely(!tree_online_surely(t)))
		return MORSEL_FRAMES_NONE;
	if (frames_unlikely(f->policy.rank[cls][tree_kind(t)]) && !huge_next_tree(f, l, cls, t))
		return MORSEL_FRAMES_NONE;
	pending_store(&l->pending,
		      pending_get((uint64_t)child * CHILD_FRAMES, MORSEL_FRAMES_HUGE_ORDER));
	if (frames_unlikely(!child_apply(f, child, child_get_huge, 0, &seen)))
		return MORSEL_FRAMES_NONE;
	if (!child_is(seen, CHILD_FILLED)) {
		MRS_PROBE("frame.huge.fill");
		row_fill(row_of(f, child), UINT64_MAX);
	}
	/* The next one's row: an atomic operation waits until all stores before it are in the
	 * cache. */
	__builtin_prefetch(row_of(f, child) + 2 * ROW_WORDS, 1);
	l->huge = child + 1;
	return (uint64_t)child * CHILD_FRAMES;
}

static __attribute__((noinline)) uint64_t get_search(const struct morsel_frames *f, unsigned local,
						     unsigned order, unsigned cls)
{
	struct get g = {.f = f,
			.l = &f->locals[local],
			.local = local,
			.order = order,
			.cls = cls,
			.end = f->capacity};
	uint64_t frame = MORSEL_FRAMES_NONE;

	if (order < MORSEL_FRAMES_HUGE_ORDER)
		frame = mrs_frames_own_get(&g, own_of(g.l, cls));
	return frame == MORSEL_FRAMES_NONE ? mrs_frames_search(&g) : frame;
}

/* The pocket first: what was put last is closest to the processor, and closes the hole it made. */
static inline struct own *own_first(const struct morsel_frames *f, struct mrs_frames_local *l,
				    unsigned cls)
{
	struct own *pocket = &l->own[OWN_POCKET];

	return pocket->free && !f->policy.rank[cls][pocket->kind & 3] ? pocket : own_of(l, cls);
}

/* What the fast paths could not serve. */
static __attribute__((noinline)) int get_slow(const struct morsel_frames *f, unsigned local,
					      unsigned order, unsigned cls, unsigned flags,
					      uint64_t *frame)
{
	struct mrs_frames_local *l;
	uint64_t got = MORSEL_FRAMES_NONE;
	struct own *own;
	int error = get_check(f, local, order, cls);

	if (error)
		return error;
	l = &f->locals[local];
	local_enter(f, l);
	own = own_first(f, l, cls);
	/* If the bits of the pocket are gone, the search empties it. */
	if (!order && !own->cache && cache_fill(f, own))
		got = get_own(f, l, own);
	if (got == MORSEL_FRAMES_NONE)
		got = get_search(f, local, order, cls);
	get_end(f, l, flags, got != MORSEL_FRAMES_NONE);
	if (got == MORSEL_FRAMES_NONE)
		return -FRAMES_ENOMEM;
	*frame = got;
	return 0;
}

/* The end of a fast path. */
static inline bool get_fast_end(const struct morsel_frames *f, struct mrs_frames_local *l,
				unsigned flags, uint64_t got)
{
	bool ok = got != MORSEL_FRAMES_NONE;

	if (frames_likely(ok && !(flags & MORSEL_FRAMES_TRACKED)))
		pending_store(&l->pending, 0);
	local_leave(f, l);
	return ok;
}

/* Orders above 0. */
static __attribute__((noinline)) int get_large(const struct morsel_frames *f, unsigned local,
					       unsigned order, unsigned cls, unsigned flags,
					       uint64_t *frame)
{
	if (order == MORSEL_FRAMES_HUGE_ORDER && local_in_range(f, local) &&
	    cls < MORSEL_FRAMES_CLASSES) {
		struct mrs_frames_local *l = &f->locals[local];
		uint64_t got;

		local_enter(f, l);
		got = get_huge(f, l, cls);
		if (frames_likely(get_fast_end(f, l, flags, got))) {
			*frame = got;
			return 0;
		}
	}
	return get_slow(f, local, order, cls, flags, frame);
}

int morsel_frames_get(struct morsel_frames *f, unsigned local, unsigned order,
		      enum morsel_frames_class cls, unsigned flags, uint64_t *frame)
{
	struct mrs_frames_local *l;
	uint64_t got;

	if (order)
		return get_large(f, local, order, cls, flags, frame);
	if (frames_unlikely(!local_in_range(f, local) || cls >= MORSEL_FRAMES_CLASSES))
		return -FRAMES_EINVAL;
	l = &f->locals[local];
	local_enter(f, l);
	got = get_own(f, l, own_first(f, l, cls));
	if (frames_unlikely(!get_fast_end(f, l, flags, got)))
		return get_slow(f, local, order, cls, flags, frame);
	*frame = got;
	return 0;
}

/* Known zero: no child in it is dirty. A put marks its child before it clears a bit. */
static bool frames_zero(const struct morsel_frames *f, uint64_t frame, unsigned order)
{
	uint64_t end = frame + ((uint64_t)1 << order);

	for (uint64_t at = frame; at < end; at += CHILD_FRAMES)
		if (child_is(child_load(f, (uint32_t)(at / CHILD_FRAMES)), CHILD_DIRTY))
			return false;
	return true;
}

/* The children of the tree of near, beginning with near's own. */
static uint64_t get_near(struct get *g, uint64_t near)
{
	uint32_t child = (uint32_t)(near / CHILD_FRAMES), tree = child / TREE_CHILDREN;
	uint32_t begin = tree * TREE_CHILDREN, count = tree_children_end(g->f, tree) - begin;
	uint64_t frame = MORSEL_FRAMES_NONE;

	g->tree = tree;
	if (tree >= trees_end(g->f) || !tree_online(tree_load(g->f, tree)) ||
	    g->order >= MORSEL_FRAMES_HUGE_ORDER)
		return MORSEL_FRAMES_NONE;
	for (uint32_t i = 0; i < count && frame == MORSEL_FRAMES_NONE; i++) {
		uint32_t c = begin + (child - begin + i) % count;

		g->start = i ? 0 : (unsigned)(near % CHILD_FRAMES);
		frame = mrs_frames_child_get(g, c, own_holds(own_of(g->l, g->cls), c));
	}
	g->start = 0;
	return frame;
}

int morsel_frames_get_want(struct morsel_frames *f, unsigned local,
			   const struct morsel_frames_want *want, struct morsel_frames_got *got)
{
	struct get g = {.f = f, .local = local, .order = want->order, .cls = want->cls};
	uint64_t frame = MORSEL_FRAMES_NONE;
	int error = get_check(f, local, want->order, want->cls);

	if (error)
		return error;
	g.l = &f->locals[local];
	g.first = want->first;
	g.end = want->end && want->end < f->capacity ? want->end : f->capacity;
	g.fixed = want->near_set || want->first || want->end;
	if (want->first >= g.end || (want->near_set && want->near >= f->capacity))
		return -FRAMES_EINVAL;
	local_seen(f, local);
	local_enter(f, g.l);
	g.tree = (uint32_t)(want->first / MORSEL_FRAMES_TREE);
	if (want->near_set)
		frame = get_near(&g, want->near);
	else if (g.order < MORSEL_FRAMES_HUGE_ORDER)
		frame = mrs_frames_own_get(&g, own_of(g.l, g.cls));
	if (frame == MORSEL_FRAMES_NONE)
		frame = mrs_frames_search(&g);
	get_end(f, g.l, want->flags, frame != MORSEL_FRAMES_NONE);
	if (frame == MORSEL_FRAMES_NONE)
		return -FRAMES_ENOMEM;
	got->frame = frame;
	got->zero = frames_zero(f, frame, g.order);
	return 0;
}

int morsel_frames_get_at(struct morsel_frames *f, unsigned local, uint64_t frame, unsigned order,
			 unsigned flags)
{
	struct get g = {.f = f, .local = local, .order = order};
	int error = get_check(f, local, order, 0);
	bool ok;

	if (error)
		return error;
	if (frame >= f->capacity || frame & (((uint64_t)1 << order) - 1) ||
	    ((uint64_t)1 << order) > f->capacity - frame || !morsel_frames_is_online(f, frame) ||
	    !morsel_frames_is_online(f, frame + ((uint64_t)1 << order) - 1))
		return -FRAMES_EINVAL;
	g.l = &f->locals[local];
	local_seen(f, local);
	local_enter(f, g.l);
	if (order >= MORSEL_FRAMES_HUGE_ORDER) {
		ok = mrs_frames_huge_get_at(f, g.l, frame, order, true);
	} else {
		g.first = frame;
		g.end = frame + ((uint64_t)1 << order);
		ok = mrs_frames_child_get(&g, (uint32_t)(frame / CHILD_FRAMES), true) == frame;
	}
	get_end(f, g.l, flags, ok);
	return ok ? 0 : -FRAMES_EBUSY;
}

/* The lowest count set bits of mask. */
static uint64_t mask_lowest(uint64_t mask, unsigned count)
{
	uint64_t rest = mask;

	if (word_count(mask) <= count)
		return mask;
	while (count--)
		rest &= rest - 1;
	return mask & ~rest;
}

/* Up to n frames of one word into out. */
static unsigned get_word(struct mrs_frames_local *l, uint64_t *row, unsigned index, uint64_t base,
			 unsigned n, uint64_t *out)
{
	uint64_t seen = mrs_load_relaxed(&row[index]), mask, before = l->mask[index];
	unsigned got = 0;

	do {
		mask = mask_lowest(~seen, n);
		if (!mask) {
			l->mask[index] = before;
			return 0;
		}
		l->mask[index] = before | mask;
		mrs_compiler_barrier();
		MRS_PROBE("frame.get_many.word");
	} while (!mrs_cas(&row[index], &seen, seen | mask));
	base += index * 64;
	if (mask == UINT64_MAX)
		for (; got < 64; got++)
			out[got] = base + got;
	else
		for (; mask; mask &= mask - 1)
			out[got++] = base + (unsigned)__builtin_ctzll(mask);
	return got;
}

/*
 * Adds to the have frames in out, all of the reserved child, what else the reservation has of it,
 * up to n. The pending record covers all of them from the first claim on.
 */
static unsigned get_row(const struct morsel_frames *f, struct mrs_frames_local *l, struct own *own,
			unsigned have, unsigned n, uint64_t *out)
{
	uint32_t child = own_child(f, own), free = mrs_load_relaxed32(&own->free);
	unsigned wanted = n - have < free ? n - have : free, left = wanted;
	uint64_t base = (uint64_t)child * CHILD_FRAMES;

	if (child == UINT32_MAX || !wanted || (have && out[0] / CHILD_FRAMES != child))
		return have;
	for (unsigned i = 0; i < ROW_WORDS; i++)
		l->mask[i] = 0;
	if (have)
		l->mask[out[0] % CHILD_FRAMES / 64] = (uint64_t)1 << out[0] % 64;
	pending_store(&l->pending, pending_get(base, MORSEL_FRAMES_HUGE_ORDER) | PENDING_MASKED);
	mrs_store_relaxed32(&own->free, free - wanted);
	for (unsigned i = 0; i < ROW_WORDS && left; i++) {
		unsigned got = get_word(l, row_of(f, child), i, base, left, out + have);

		have += got;
		left -= got;
	}
	own->cache = 0;
	/* What a thief has had: settled when the reservation seems to have frames and has no bits.
	 */
	if (left)
		mrs_store_relaxed32(&own->free, free - wanted + left);
	return have;
}

int morsel_frames_get_many(struct morsel_frames *f, unsigned local, enum morsel_frames_class cls,
			   unsigned flags, unsigned n, uint64_t *out)
{
	struct mrs_frames_local *l;
	struct own *own;
	unsigned have;
	int error = get_check(f, local, 0, cls);

	if (error || !n)
		return -FRAMES_EINVAL;
	l = &f->locals[local];
	own = own_of(l, cls);
	n = n < CHILD_FRAMES ? n : CHILD_FRAMES;
	local_enter(f, l);
	have = get_row(f, l, own, 0, n, out);
	if (!have) {
		uint64_t frame = get_search(f, local, 0, cls);

		if (frame != MORSEL_FRAMES_NONE) {
			out[0] = frame;
			have = get_row(f, l, own, 1, n, out);
		}
	}
	get_end(f, l, flags, have > 0);
	return have ? (int)have : -FRAMES_ENOMEM;
}
