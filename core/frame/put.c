/*
 * Puts. Bits are cleared before anything is counted; who cleared the bit (or the first word, or the
 * huge flag) has put the frame, everybody else is refused and has changed nothing.
 *
 * A child that is FILLED has no allocated frame although its bits are ones, so a put looks at the
 * entry first. Between that look and the bit a child can become FILLED only if every frame in it
 * was free, that is, if this put is wrong; counting then refuses, and the bits are set again.
 */
#include "frame/claim.h"

static inline int put_check(const struct morsel_frames *f, unsigned local, uint64_t frame,
			    unsigned order)
{
	uint64_t frames = (uint64_t)1 << (order & 63);

	if (frames_unlikely(!local_in_range(f, local) || order > MORSEL_FRAMES_MAX_ORDER ||
			    frame >= f->capacity || frame & (frames - 1) ||
			    frames > f->capacity - frame))
		return -FRAMES_EINVAL;
	if (frames_unlikely(!tree_online(tree_load(f, (uint32_t)(frame / MORSEL_FRAMES_TREE)))))
		return -FRAMES_EINVAL;
	return 0;
}

/* The entry of a child in which single frames may be put: split if huge. 0 or a negative errno. */
static int put_open(const struct morsel_frames *f, uint32_t child, struct child *v)
{
	*v = child_load(f, child);
	if (frames_likely(!child_is(*v, CHILD_HUGE | CHILD_FILLED | CHILD_ABSENT)))
		return 0;
	if (child_is(*v, CHILD_ABSENT))
		return -FRAMES_EINVAL;
	if (child_is(*v, CHILD_FILLED))
		return -FRAMES_ENOENT;
	/* Either this step splits it, or somebody else has: then the bits decide. */
	child_apply(f, child, child_split, 0, NULL);
	MRS_PROBE("frame.put.split");
	*v = child_load(f, child);
	return 0;
}

/* freed frames of child, of which mask are in word, go to what this local counts itself. */
static inline bool own_give(struct own *own, uint32_t child, unsigned freed, unsigned word,
			    uint64_t mask)
{
	uint32_t free = mrs_load_relaxed32(&own->free);

	/* More than a child has: what was stolen is not settled yet. */
	if (!own_holds(own, child) || free + freed > CHILD_FRAMES)
		return false;
	mrs_store_relaxed32(&own->free, free + freed);
	if (own->word == word)
		own->cache |= mask;
	return true;
}

/* What was freed becomes the pocket; what was in it goes to its own child. */
static inline void put_pocket(const struct morsel_frames *f, unsigned local, uint64_t frame,
			      unsigned freed, uint64_t mask, struct tree t)
{
	struct mrs_frames_local *l = &f->locals[local];
	struct own *pocket = &l->own[OWN_POCKET];

	local_seen(f, local);
	if (frames_unlikely(pocket->free))
		mrs_frames_pocket_empty(f, l);
	pocket->child = (uint32_t)(frame / CHILD_FRAMES) + 1;
	pocket->word = (uint32_t)(frame / 64);
	pocket->cache = mask;
	pocket->kind = (uint32_t)((t.raw & TREE_KIND) >> TREE_KIND_AT);
	mrs_compiler_barrier();
	mrs_store_relaxed32(&pocket->free, freed);
}

/* Counts what was freed: in a reservation if the child is ours, else in the pocket. */
static void put_count(const struct morsel_frames *f, unsigned local, uint64_t frame, unsigned freed,
		      uint64_t mask)
{
	struct mrs_frames_local *l = &f->locals[local];
	uint32_t child = (uint32_t)(frame / CHILD_FRAMES);

	for (unsigned i = 0; i < OWNS; i++)
		if (own_give(&l->own[i], child, freed, (uint32_t)(frame / 64), mask))
			return;
	put_pocket(f, local, frame, freed, mask, tree_load(f, child / TREE_CHILDREN));
}

/* Sets bits again that were cleared in a child that turned out to be free. */
static void put_restore(uint64_t *row, unsigned at, unsigned order)
{
	if (order <= 6)
		mrs_fetch_or(&row[at / 64], word_mask(order) << at % 64);
	else
		for (unsigned i = 0; i < 1u << (order - 6); i++)
			mrs_fetch_or(&row[at / 64 + i], UINT64_MAX);
}

/* Orders 0 to 8, and 9 where the child is not one huge frame. */
static int put_bits(const struct morsel_frames *f, unsigned local, uint64_t frame, unsigned order,
		    unsigned flags)
{
	uint32_t child = (uint32_t)(frame / CHILD_FRAMES);
	unsigned at = frame % CHILD_FRAMES, freed;
	uint64_t *row = row_of(f, child);
	struct child v;
	int error = put_open(f, child, &v);

	if (frames_unlikely(error))
		return error;
	if (frames_unlikely(!mrs_frames_row_all_ones(row, at, order)))
		return -FRAMES_ENOENT;
	/* Before the bit: who gets the frame must see it. Pairs with frames_zero(). */
	if (frames_unlikely(!(flags & MORSEL_FRAMES_PUT_ZERO) && !child_is(v, CHILD_DIRTY)))
		child_apply(f, child, child_mark_dirty, 0, NULL);
	else if (order == MORSEL_FRAMES_HUGE_ORDER && flags & MORSEL_FRAMES_PUT_ZERO)
		child_apply(f, child, child_mark_clean, 0, NULL);
	MRS_PROBE("frame.put.bits");
	freed = mrs_frames_row_put(row, at, order);
	if (frames_unlikely(!freed))
		return -FRAMES_ENOENT;
	MRS_PROBE("frame.put.count");
	if (frames_unlikely(child_is(child_load(f, child), CHILD_FILLED))) {
		put_restore(row, at, order);
		return -FRAMES_ENOENT;
	}
	put_count(f, local, frame, freed, order > 6 ? 0 : word_mask(order) << at % 64);
	return 0;
}

static int put_child(const struct morsel_frames *f, unsigned local, uint32_t child, unsigned flags)
{
	uint32_t dirty = flags & MORSEL_FRAMES_PUT_ZERO ? 0 : CHILD_DIRTY;

	if (child_apply(f, child, child_put_huge, dirty, NULL))
		return 0;
	return put_bits(f, local, (uint64_t)child * CHILD_FRAMES, MORSEL_FRAMES_HUGE_ORDER, flags);
}

/* Is every frame of the child allocated? */
static bool child_all_allocated(const struct morsel_frames *f, uint32_t child)
{
	struct child v = child_load(f, child);

	if (child_is(v, CHILD_ABSENT | CHILD_FILLED))
		return false;
	return child_is(v, CHILD_HUGE) ||
	       mrs_frames_row_all_ones(row_of(f, child), 0, MORSEL_FRAMES_HUGE_ORDER);
}

/* All children are looked at before the first is put; the first decides. */
static int put_run(const struct morsel_frames *f, unsigned local, uint64_t frame, unsigned order,
		   unsigned flags)
{
	uint32_t first = (uint32_t)(frame / CHILD_FRAMES);
	uint32_t count = 1u << (order - MORSEL_FRAMES_HUGE_ORDER);
	int error;

	for (uint32_t c = first; c < first + count; c++) {
		if (c % TREE_CHILDREN == 0 && !tree_online(tree_load(f, c / TREE_CHILDREN)))
			return -FRAMES_EINVAL;
		if (!child_all_allocated(f, c))
			return child_is(child_load(f, c), CHILD_ABSENT) ? -FRAMES_EINVAL
									: -FRAMES_ENOENT;
	}
	error = put_child(f, local, first, flags);
	for (uint32_t c = first + 1; c < first + count && !error; c++) {
		MRS_PROBE("frame.put.run");
		put_child(f, local, c, flags);
	}
	return error;
}

static inline void put_end(const struct morsel_frames *f, struct mrs_frames_local *l)
{
	epoch_bump(&l->epoch);
	pending_store(&l->pending, 0);
	local_leave(f, l);
}

static __attribute__((noinline)) int put_slow(const struct morsel_frames *f, unsigned local,
					      uint64_t frame, unsigned order, unsigned flags)
{
	struct mrs_frames_local *l;
	int error = put_check(f, local, frame, order);

	if (error)
		return error;
	l = &f->locals[local];
	local_enter(f, l);
	local_seen(f, local);
	pending_store(&l->pending, pending_put(frame, order));
	if (order < MORSEL_FRAMES_HUGE_ORDER)
		error = put_bits(f, local, frame, order, flags);
	else if (order == MORSEL_FRAMES_HUGE_ORDER)
		error = put_child(f, local, (uint32_t)(frame / CHILD_FRAMES), flags);
	else
		error = put_run(f, local, frame, order, flags);
	put_end(f, l);
	return error;
}

/* The end of a put whose frame is neither of the reservation nor of the child of the pocket. */
static __attribute__((noinline)) int put_elsewhere(const struct morsel_frames *f, unsigned local,
						   uint64_t frame)
{
	uint32_t tree = (uint32_t)(frame / MORSEL_FRAMES_TREE);

	put_pocket(f, local, frame, 1, (uint64_t)1 << frame % 64, tree_load(f, tree));
	put_end(f, &f->locals[local]);
	return 0;
}

/*
 * Is this a frame, perhaps allocated, of a child about which nothing is unusual? A child that a
 * local holds is never FILLED.
 */
static inline bool put_usual(const struct morsel_frames *f, unsigned local, uint64_t frame,
			     unsigned flags)
{
	uint32_t child = (uint32_t)(frame / CHILD_FRAMES), entry;

	if (frames_unlikely(!local_in_range(f, local) || frame >= f->capacity))
		return false;
	/* The word is the one line that a put at random does not have at hand. */
	__builtin_prefetch(&f->rows[frame / 64], 1);
	if (frames_unlikely(!tree_online_surely(tree_load(f, child / TREE_CHILDREN))))
		return false;
	entry = child_load(f, child).raw | (flags & MORSEL_FRAMES_PUT_ZERO ? CHILD_DIRTY : 0);
	return (entry & (CHILD_HUGE | CHILD_FILLED | CHILD_ABSENT | CHILD_DIRTY)) == CHILD_DIRTY;
}

int morsel_frames_put(struct morsel_frames *f, unsigned local, uint64_t frame, unsigned order,
		      unsigned flags)
{
	uint64_t mask = (uint64_t)1 << frame % 64;
	uint32_t child = (uint32_t)(frame / CHILD_FRAMES);
	struct mrs_frames_local *l;
	struct own *own;

	if (frames_unlikely(order || !put_usual(f, local, frame, flags)))
		return put_slow(f, local, frame, order, flags);
	l = &f->locals[local];
	own = &l->own[OWN_MOVABLE];
	if (!own_holds(own, child))
		own = &l->own[OWN_POCKET];
	local_enter(f, l);
	pending_store(&l->pending, pending_put(frame, 0));
	MRS_PROBE("frame.put.fast");
	/* Nothing has changed if it was not allocated. */
	if (frames_unlikely(!(mrs_fetch_and(&f->rows[frame / 64], ~mask) & mask))) {
		local_leave(f, l);
		return put_slow(f, local, frame, order, flags);
	}
	if (!own_give(own, child, 1, (uint32_t)(frame / 64), mask))
		return put_elsewhere(f, local, frame);
	put_end(f, l);
	return 0;
}

/* The longest beginning of list that lies in one word, in any order, without doubles. */
static size_t word_group(const uint64_t *list, size_t n, uint64_t *mask)
{
	size_t i = 0;

	*mask = 0;
	for (; i < n && list[i] / 64 == list[0] / 64; i++) {
		uint64_t bit = (uint64_t)1 << list[i] % 64;

		if (*mask & bit)
			break;
		*mask |= bit;
	}
	return i;
}

static int put_word(const struct morsel_frames *f, unsigned local, uint64_t frame, uint64_t mask,
		    unsigned flags)
{
	uint32_t child = (uint32_t)(frame / CHILD_FRAMES);
	uint64_t *word = &row_of(f, child)[frame % CHILD_FRAMES / 64], seen;
	struct child v;
	int error = put_open(f, child, &v);

	if (error)
		return error;
	seen = mrs_load_relaxed(word);
	if ((seen & mask) != mask)
		return -FRAMES_ENOENT;
	if (!(flags & MORSEL_FRAMES_PUT_ZERO) && !child_is(v, CHILD_DIRTY))
		child_apply(f, child, child_mark_dirty, 0, NULL);
	do {
		if ((seen & mask) != mask)
			return -FRAMES_ENOENT;
	} while (!mrs_cas(word, &seen, seen & ~mask));
	MRS_PROBE("frame.put_many.count");
	if (child_is(child_load(f, child), CHILD_FILLED)) {
		mrs_fetch_or(word, mask);
		return -FRAMES_ENOENT;
	}
	put_count(f, local, frame, word_count(mask), mask);
	return 0;
}

/* One word's worth of the list, or its first frame alone if the word as a whole is refused. */
static int put_group(const struct morsel_frames *f, unsigned local, const uint64_t *list, size_t *n,
		     unsigned flags)
{
	struct mrs_frames_local *l = &f->locals[local];
	uint64_t mask, base = list[0] & ~(uint64_t)63;
	int error = put_check(f, local, list[0], 0);

	if (error)
		return error;
	*n = word_group(list, *n, &mask);
	pending_store(&l->pending, 0);
	for (unsigned i = 0; i < ROW_WORDS; i++)
		l->mask[i] = i == base % CHILD_FRAMES / 64 ? mask : 0;
	pending_store(&l->pending,
		      pending_put(base & ~(uint64_t)(CHILD_FRAMES - 1), MORSEL_FRAMES_HUGE_ORDER) |
			      PENDING_MASKED);
	error = put_word(f, local, base, mask, flags);
	if (error != -FRAMES_ENOENT || *n == 1)
		return error;
	*n = 1;
	pending_store(&l->pending, pending_put(list[0], 0));
	return put_bits(f, local, list[0], 0, flags);
}

int morsel_frames_put_many(struct morsel_frames *f, unsigned local, const uint64_t *list, size_t n,
			   unsigned flags, size_t *done)
{
	size_t put = 0;
	int error = local_in_range(f, local) ? 0 : -FRAMES_EINVAL;

	if (!error) {
		struct mrs_frames_local *l = &f->locals[local];

		local_enter(f, l);
		local_seen(f, local);
		while (put < n && !error) {
			size_t some = n - put;

			error = put_group(f, local, list + put, &some, flags);
			put += error ? 0 : some;
		}
		put_end(f, l);
	}
	if (done)
		*done = put;
	return error;
}
