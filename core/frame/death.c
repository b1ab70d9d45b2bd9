/*
 * After a death: pending records, repair, recover, and returning reservations.
 *
 * Everything here is derived from three truths: the bits, the huge and absent flags, and which
 * local an entry names as its owner. A child is brought back to the equation of child.h by
 * computing used from them; a tree by summing its children. Repairing twice does no harm, so
 * neither does dying in the middle.
 */
#include "frame/claim.h"

/* Frames of one child, as bits. */
struct bits {
	uint64_t word[ROW_WORDS];
};

struct record {
	unsigned op;
	unsigned order;
	bool masked;
	uint64_t frame;
};

struct repair {
	const struct morsel_frames *f;
	unsigned first; /* locals [first, end) are repaired */
	unsigned end;
	bool (*referenced)(void *ctx, uint64_t frame);
	void *ctx;
	uint64_t freed;
};

/* What a pending word says; false if nothing, or nothing that makes sense. */
static bool record_read(const struct morsel_frames *f, const struct mrs_frames_local *l,
			struct record *r)
{
	uint64_t word = pending_load(&l->pending);

	r->op = word & 3;
	r->masked = word & PENDING_MASKED;
	r->order = word >> 3 & 31;
	r->frame = word >> 8;
	if (r->op != MORSEL_FRAMES_OP_GET && r->op != MORSEL_FRAMES_OP_PUT)
		return false;
	if (r->order > MORSEL_FRAMES_MAX_ORDER && r->order != PENDING_ORDER_CLAIM)
		return false;
	if (r->order == PENDING_ORDER_CLAIM || r->masked)
		r->frame &= ~(uint64_t)(CHILD_FRAMES - 1);
	return r->frame < f->capacity;
}

static uint64_t record_end(const struct morsel_frames *f, const struct record *r)
{
	unsigned order =
		r->order == PENDING_ORDER_CLAIM || r->masked ? MORSEL_FRAMES_HUGE_ORDER : r->order;
	uint64_t end = r->frame + ((uint64_t)1 << order);

	return end < f->capacity ? end : f->capacity;
}

/* Those frames of child that the record names as affected. A claim names none yet. */
static struct bits record_bits(const struct morsel_frames *f, const struct mrs_frames_local *l,
			       const struct record *r, uint32_t child)
{
	uint64_t base = (uint64_t)child * CHILD_FRAMES, end = record_end(f, r);
	struct bits bits = {{0}};

	if (r->order == PENDING_ORDER_CLAIM || end <= base || r->frame >= base + CHILD_FRAMES)
		return bits;
	for (unsigned i = 0; i < ROW_WORDS; i++) {
		unsigned from = r->frame > base ? (unsigned)(r->frame - base) : 0;
		unsigned to = end < base + CHILD_FRAMES ? (unsigned)(end - base) : CHILD_FRAMES;

		bits.word[i] = word_range(i, from, to);
		if (r->masked)
			bits.word[i] &= l->mask[i];
	}
	return bits;
}

bool morsel_frames_pending(const struct morsel_frames *f, unsigned local,
			   struct morsel_frames_pending *pending)
{
	struct record r;

	if (!local_in_range(f, local) || !record_read(f, &f->locals[local], &r))
		return false;
	pending->op = (enum morsel_frames_op)r.op;
	pending->order = r.order == PENDING_ORDER_CLAIM ? MORSEL_FRAMES_HUGE_ORDER : r.order;
	pending->frame = r.frame;
	return true;
}

void morsel_frames_settle(struct morsel_frames *f, unsigned local)
{
	if (local_in_range(f, local))
		pending_store(&f->locals[local].pending, 0);
}

/* ---- Recounting; nobody else runs ------------------------------------------------------------ */

/* Does the entry's owner name the child, too? Otherwise the reservation is void. */
static bool owner_agrees(const struct morsel_frames *f, uint32_t child, struct child v)
{
	unsigned owner = child_owner(v);

	return child_is(v, CHILD_RESERVED) && local_in_range(f, owner) &&
	       (own_holds(&f->locals[owner].own[OWN_MOVABLE], child) ||
		own_holds(&f->locals[owner].own[OWN_IMMOVABLE], child));
}

static void child_recount(const struct morsel_frames *f, uint32_t child)
{
	uint64_t *row = row_of(f, child);
	struct child v = child_load(f, child);
	uint32_t used, flags = v.raw & CHILD_DIRTY;

	if (child_is(v, CHILD_ABSENT))
		return;
	if (owner_agrees(f, child, v))
		flags |= v.raw & (CHILD_RESERVED | CHILD_OWNER);
	if (child_is(v, CHILD_FILLED)) {
		if (child_whole(v))
			return;
		/* Died while emptying the row of a free child. */
		row_fill(row, 0);
	}
	if (child_is(v, CHILD_HUGE)) {
		/* Died, perhaps, before the row was full. */
		row_fill(row, UINT64_MAX);
		flags |= CHILD_HUGE;
	}
	v.raw = flags;
	used = mrs_frames_row_count(row) + mrs_frames_owner_free(f, child, v) +
	       mrs_frames_pockets_free(f, child);
	child_set_used(&v, used < CHILD_USED_MAX ? used : CHILD_USED_MAX);
	mrs_store_release32(&f->children[child], v.raw);
}

static void tree_recount(const struct morsel_frames *f, uint32_t tree)
{
	struct tree t = tree_load(f, tree);
	uint32_t first = tree * TREE_CHILDREN, end = tree_children_end(f, tree);
	uint64_t sum = TREE_NOT_WHOLE * (first + TREE_CHILDREN - end);

	for (uint32_t c = first; c < end; c++)
		sum += tree_share(child_load(f, c));
	mrs_store_release(&f->trees[tree],
			  (tree_flags(t) & (TREE_ONLINE | TREE_KNOWN | TREE_KIND)) + sum);
}

static bool tree_is_online(const struct morsel_frames *f, uint32_t child)
{
	return child < child_count(f) && child / TREE_CHILDREN < trees_end(f) &&
	       tree_online(tree_load(f, child / TREE_CHILDREN));
}

/* ---- Repair ---------------------------------------------------------------------------------- */

/* Does the record of a local that is not being repaired name the frame as its own? */
static bool named_elsewhere(const struct repair *p, uint64_t frame)
{
	uint32_t end = locals_end(p->f);

	for (uint32_t i = 0; i < end; i++) {
		const struct mrs_frames_local *l = &p->f->locals[i];
		uint32_t child = (uint32_t)(frame / CHILD_FRAMES);
		struct record r;

		if ((i >= p->first && i < p->end) || !pending_load(&l->pending) ||
		    !record_read(p->f, l, &r) || r.op != MORSEL_FRAMES_OP_GET)
			continue;
		if (record_bits(p->f, l, &r, child).word[frame % CHILD_FRAMES / 64] >> frame % 64 &
		    1)
			return true;
	}
	return false;
}

/* Frees those of the frames in bits that are allocated and that nobody references. */
static void child_free_lost(struct repair *p, uint32_t child, struct bits bits)
{
	uint64_t *row = row_of(p->f, child);
	struct child v = child_load(p->f, child);
	bool any = false;

	if (child_is(v, CHILD_ABSENT | CHILD_FILLED))
		return;
	for (unsigned i = 0; i < ROW_WORDS; i++) {
		uint64_t base = (uint64_t)child * CHILD_FRAMES + i * 64, left;

		for (left = bits.word[i] &= mrs_load_relaxed(&row[i]); left; left &= left - 1) {
			uint64_t frame = base + (unsigned)__builtin_ctzll(left);

			if (p->referenced(p->ctx, frame) || named_elsewhere(p, frame))
				bits.word[i] &= ~(left & -left);
		}
		any |= bits.word[i] != 0;
	}
	if (!any)
		return;
	/* Huge no longer, and not known zero, before a bit says free. */
	mrs_store_release32(&p->f->children[child], (v.raw & ~CHILD_HUGE) | CHILD_DIRTY);
	MRS_PROBE("frame.repair.free");
	for (unsigned i = 0; i < ROW_WORDS; i++) {
		p->freed += word_count(bits.word[i]);
		mrs_fetch_and(&row[i], ~bits.word[i]);
	}
	child_recount(p->f, child);
}

static void record_repair(struct repair *p, const struct mrs_frames_local *l)
{
	struct record r;
	uint32_t first, last;

	if (!record_read(p->f, l, &r))
		return;
	first = (uint32_t)(r.frame / CHILD_FRAMES);
	last = (uint32_t)((record_end(p->f, &r) - 1) / CHILD_FRAMES);
	for (uint32_t c = first; c <= last; c++) {
		if (!tree_is_online(p->f, c))
			continue;
		child_recount(p->f, c);
		child_free_lost(p, c, record_bits(p->f, l, &r, c));
		if (c == last || c % TREE_CHILDREN == TREE_CHILDREN - 1)
			tree_recount(p->f, c / TREE_CHILDREN);
	}
}

static void own_repair(struct repair *p, unsigned local, struct own *own)
{
	uint32_t child = own_child(p->f, own);

	if (child == UINT32_MAX || !tree_is_online(p->f, child))
		return;
	if (own == &p->f->locals[local].own[OWN_POCKET]) {
		/* Counted in the entry from here on, by the recount. */
		mrs_store_relaxed32(&own->free, 0);
		own->child = 0;
		child_recount(p->f, child);
	} else {
		child_recount(p->f, child);
		mrs_frames_own_release(p->f, local, own);
	}
	tree_recount(p->f, child / TREE_CHILDREN);
}

/* Children that a dead offline took: back, as free frames. */
static void offline_repair(const struct morsel_frames *f)
{
	struct mrs_frames_local *l = &f->locals[f->local_count];
	struct record r;
	uint64_t end;

	if (!record_read(f, l, &r))
		return;
	end = l->mask[0] < child_count(f) ? l->mask[0] : child_count(f);
	for (uint32_t c = (uint32_t)(r.frame / CHILD_FRAMES); c < end; c++) {
		uint32_t dirty = child_load(f, c).raw & CHILD_DIRTY;

		if (!tree_is_online(f, c))
			continue;
		child_recount(f, c);
		if (child_apply(f, c, child_return, 0, NULL))
			mrs_frames_child_put_huge(f, c, dirty);
		tree_recount(f, c / TREE_CHILDREN);
	}
	mrs_store_release32(&l->claiming, 0);
	pending_store(&l->pending, 0);
}

uint64_t morsel_frames_repair(struct morsel_frames *f, unsigned first, unsigned count,
			      bool (*referenced)(void *ctx, uint64_t frame), void *ctx)
{
	struct repair p = {
		.f = f, .first = first, .end = first, .referenced = referenced, .ctx = ctx};

	if (!local_in_range(f, first))
		return 0;
	p.end += count < f->local_count - first ? count : f->local_count - first;
	offline_repair(f);
	for (unsigned i = first; i < p.end; i++)
		record_repair(&p, &f->locals[i]);
	for (unsigned i = first; i < p.end; i++) {
		struct mrs_frames_local *l = &f->locals[i];

		for (unsigned o = 0; o < OWNS; o++)
			own_repair(&p, i, &l->own[o]);
		MRS_PROBE("frame.repair.local");
		mrs_store_release32(&l->claiming, 0);
		mrs_store_release32(&l->busy, 0);
		pending_store(&l->pending, 0);
	}
	return p.freed;
}

int morsel_frames_return_local(struct morsel_frames *f, unsigned local)
{
	struct mrs_frames_local *l;

	if (!local_in_range(f, local))
		return -FRAMES_EINVAL;
	l = &f->locals[local];
	if (pending_load(&l->pending))
		return -FRAMES_EBUSY;
	mrs_frames_pocket_empty(f, l);
	for (unsigned i = 0; i < OWN_POCKET; i++)
		mrs_frames_own_release(f, local, &l->own[i]);
	return 0;
}

/* ---- Recover --------------------------------------------------------------------------------- */

static void local_clear(struct mrs_frames_local *l)
{
	for (unsigned i = 0; i < OWNS; i++)
		l->own[i] = (struct own){0};
	l->pending = 0;
	l->claiming = 0;
	l->busy = 0;
	l->tree = 0;
	l->huge = 0;
	l->sure = 0;
}

void morsel_frames_recover(struct morsel_frames *f)
{
	uint32_t trees = trees_end(f), end = locals_end(f);

	offline_repair(f);
	for (uint32_t i = 0; i < end; i++)
		local_clear(&f->locals[i]);
	for (uint32_t t = 0; t < trees; t++) {
		if (!tree_online(tree_load(f, t)))
			continue;
		for (uint32_t c = t * TREE_CHILDREN; c < tree_children_end(f, t); c++)
			child_recount(f, c);
		tree_recount(f, t);
	}
}
