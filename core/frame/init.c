/*
 * The metadata block: its geometry, init, attach, and bringing trees online and offline.
 *
 * All-zero bytes mean "everything is free", so that a sparse file needs no initialising beyond one
 * entry per tree, and metadata of trees that were never online is never touched.
 */
#include "frame/claim.h"

#define LAYOUT_PAGE 4096u

struct layout {
	uint64_t capacity;
	uint64_t trees; /* numbers of things */
	uint64_t children;
	uint64_t locals_at; /* offsets in bytes */
	uint64_t map_at;
	uint64_t trees_at;
	uint64_t children_at;
	uint64_t rows_at;
	uint64_t bytes;
};

static uint64_t page_up(uint64_t bytes)
{
	return (bytes + LAYOUT_PAGE - 1) & ~(uint64_t)(LAYOUT_PAGE - 1);
}

static bool layout_make(struct layout *o, uint64_t capacity, uint64_t locals)
{
	if (capacity < CHILD_FRAMES || capacity > MORSEL_FRAMES_CAPACITY_MAX || !locals ||
	    locals > MORSEL_FRAMES_LOCALS_MAX)
		return false;
	o->children = capacity / CHILD_FRAMES;
	o->capacity = o->children * CHILD_FRAMES;
	o->trees = (o->children + TREE_CHILDREN - 1) / TREE_CHILDREN;
	o->locals_at = sizeof(struct mrs_frames_head);
	o->map_at = o->locals_at + (locals + 1) * sizeof(struct mrs_frames_local);
	o->trees_at = o->map_at + (o->trees + 511) / 512 * 64;
	o->children_at = page_up(o->trees_at + o->trees * sizeof(uint64_t));
	o->rows_at = page_up(o->children_at + o->children * sizeof(uint32_t));
	o->bytes = page_up(o->rows_at + o->children * ROW_WORDS * sizeof(uint64_t));
	return true;
}

size_t morsel_frames_metadata_bytes(uint64_t capacity, unsigned locals)
{
	struct layout o;

	return layout_make(&o, capacity, locals) ? (size_t)o.bytes : 0;
}

int morsel_frames_metadata_ranges(uint64_t capacity, unsigned locals, uint64_t first_tree,
				  uint64_t count, struct morsel_frames_bytes ranges[3])
{
	struct layout o;
	uint64_t first, end;

	if (!layout_make(&o, capacity, locals) || first_tree > o.trees ||
	    count > o.trees - first_tree)
		return -FRAMES_EINVAL;
	first = first_tree * TREE_CHILDREN;
	end = (first_tree + count) * TREE_CHILDREN;
	first = first < o.children ? first : o.children;
	end = end < o.children ? end : o.children;
	ranges[0].offset = 0;
	ranges[0].bytes = o.trees_at + (count ? (first_tree + count) * sizeof(uint64_t) : 0);
	ranges[1].offset = o.children_at + first * sizeof(uint32_t);
	ranges[1].bytes = (end - first) * sizeof(uint32_t);
	ranges[2].offset = o.rows_at + first * ROW_WORDS * sizeof(uint64_t);
	ranges[2].bytes = (end - first) * ROW_WORDS * sizeof(uint64_t);
	return 0;
}

/* The default policy: own kind, then unused, then what spoils least. */
static const struct morsel_frames_policy default_policy = {{
	/* unused, movable, immovable, huge */
	{1, 0, 3, 2}, /* movable */
	{1, 2, 0, 3}, /* immovable */
	{1, 2, 3, 0}, /* huge */
}};

static void handle_make(struct morsel_frames *f, void *metadata, const struct layout *o,
			unsigned locals, const struct morsel_frames_policy *policy)
{
	char *base = metadata;

	f->head = metadata;
	f->locals = (struct mrs_frames_local *)(base + o->locals_at);
	f->trees = (uint64_t *)(base + o->trees_at);
	f->partial_map = (uint64_t *)(base + o->map_at);
	f->children = (uint32_t *)(base + o->children_at);
	f->rows = (uint64_t *)(base + o->rows_at);
	f->capacity = o->capacity;
	f->tree_count = (uint32_t)o->trees;
	f->local_count = locals;
	f->policy = *policy;
}

int morsel_frames_init(struct morsel_frames *frames, void *metadata, size_t bytes,
		       uint64_t capacity, unsigned locals, uint64_t online, unsigned flags,
		       const struct morsel_frames_policy *policy)
{
	struct mrs_frames_head *head = metadata;
	struct morsel_frames f;
	struct layout o;
	int error = 0;

	if (!layout_make(&o, capacity, locals) || bytes < o.bytes || (uintptr_t)metadata % 64 ||
	    online > capacity)
		return -FRAMES_EINVAL;
	if (mrs_load_acquire(&head->magic) == FRAMES_MAGIC)
		return -FRAMES_EEXIST;
	online -= online % CHILD_FRAMES;
	handle_make(&f, metadata, &o, locals, policy ? policy : &default_policy);
	head->version = FRAMES_VERSION;
	head->locals = locals;
	head->capacity = o.capacity;
	head->policy = f.policy;
	if (online)
		error = morsel_frames_online(&f, 0, online, flags);
	if (error)
		return error;
	/* Release: pairs with the acquire in attach; who sees the magic sees the rest. */
	mrs_store_release(&head->magic, FRAMES_MAGIC);
	*frames = f;
	return 0;
}

int morsel_frames_attach(struct morsel_frames *frames, void *metadata, size_t bytes)
{
	const struct mrs_frames_head *head = metadata;
	struct morsel_frames_policy policy;
	struct layout o;
	uint64_t capacity;
	uint32_t locals;

	if (bytes < sizeof(*head) || (uintptr_t)metadata % 64 ||
	    mrs_load_acquire(&head->magic) != FRAMES_MAGIC)
		return -FRAMES_EINVAL;
	if (mrs_load_relaxed32(&head->version) != FRAMES_VERSION)
		return -FRAMES_EPROTONOSUPPORT;
	/* Read once: what was checked is what is used. */
	locals = mrs_load_relaxed32(&head->locals);
	capacity = mrs_load_relaxed(&head->capacity);
	policy = head->policy;
	if (!layout_make(&o, capacity, locals) || o.capacity != capacity || bytes < o.bytes)
		return -FRAMES_EINVAL;
	handle_make(frames, metadata, &o, locals, &policy);
	return 0;
}

bool morsel_frames_is_online(const struct morsel_frames *f, uint64_t frame)
{
	return frame < f->capacity && frame / MORSEL_FRAMES_TREE < trees_end(f) &&
	       tree_online(tree_load(f, (uint32_t)(frame / MORSEL_FRAMES_TREE))) &&
	       !child_is(child_load(f, (uint32_t)(frame / CHILD_FRAMES)), CHILD_ABSENT);
}

/* ---- Online ---------------------------------------------------------------------------------- */

static uint32_t dirty_of(unsigned flags)
{
	return flags & MORSEL_FRAMES_UNZEROED ? CHILD_DIRTY : 0;
}

/* May children [first, end) of this tree come online? */
static bool tree_can_grow(const struct morsel_frames *f, uint32_t tree, uint32_t first,
			  uint32_t end)
{
	bool begins = first == tree * TREE_CHILDREN;

	if (tree >= trees_end(f) || !tree_online(tree_load(f, tree)))
		return begins;
	if (begins || child_is(child_load(f, first - 1), CHILD_ABSENT))
		return false;
	for (uint32_t c = first; c < end; c++)
		if (!child_is(child_load(f, c), CHILD_ABSENT))
			return false;
	return true;
}

static void child_allocate(const struct morsel_frames *f, uint32_t child, uint32_t dirty)
{
	row_fill(row_of(f, child), UINT64_MAX);
	mrs_store_release32(&f->children[child], CHILD_HUGE | CHILD_FRAMES | dirty);
}

/* A tree that was never online: its children are zeros. Writes only what is not free and zero. */
static void tree_begin(const struct morsel_frames *f, uint32_t tree, uint32_t end, unsigned flags)
{
	uint32_t first = tree * TREE_CHILDREN, stop = tree_children_end(f, tree);
	uint64_t entry = TREE_ONLINE | TREE_KNOWN;

	for (uint32_t c = first; c < end; c++) {
		if (flags & MORSEL_FRAMES_ALLOCATED)
			child_allocate(f, c, dirty_of(flags));
		else if (flags & MORSEL_FRAMES_UNZEROED)
			mrs_store_relaxed32(&f->children[c], CHILD_DIRTY);
	}
	for (uint32_t c = end; c < stop; c++)
		mrs_store_relaxed32(&f->children[c], CHILD_ABSENT);
	if (flags & MORSEL_FRAMES_ALLOCATED)
		end = first;
	entry += TREE_NOT_WHOLE * (first + TREE_CHILDREN - end);
	MRS_PROBE("frame.online.tree");
	/* Release: pairs with the acquire in tree_load(); who sees it online sees its children. */
	mrs_store_release(&f->trees[tree], entry);
}

/* Children that were absent. */
static void children_join(const struct morsel_frames *f, uint32_t first, uint32_t end,
			  unsigned flags)
{
	for (uint32_t c = first; c < end; c++) {
		if (child_apply(f, c, child_return, 0, NULL)) {
			if (!(flags & MORSEL_FRAMES_ALLOCATED))
				mrs_frames_child_put_huge(f, c, dirty_of(flags));
		} else if (child_apply(f, c, child_join, dirty_of(flags), NULL) &&
			   flags & MORSEL_FRAMES_ALLOCATED) {
			mrs_frames_child_get_huge(f, c, false);
		}
	}
}

/* Children of an offline tree that stay absent: as if they never had been online. */
static void children_forget(const struct morsel_frames *f, uint32_t first, uint32_t end)
{
	for (uint32_t c = first; c < end; c++) {
		if (child_is(child_load(f, c), CHILD_RESERVED))
			continue;
		row_fill(row_of(f, c), 0);
		mrs_store_release32(&f->children[c], CHILD_ABSENT);
	}
}

static void tree_grow(const struct morsel_frames *f, uint32_t tree, uint32_t first, uint32_t end,
		      unsigned flags)
{
	struct tree t = tree_load(f, tree);

	if (!(tree_flags(t) & TREE_KNOWN)) {
		tree_begin(f, tree, end, flags);
		return;
	}
	children_join(f, first, end, flags);
	if (!tree_online(t))
		children_forget(f, end, tree_children_end(f, tree));
	if (!tree_online(t))
		mrs_fetch_add(&f->trees[tree], TREE_ONLINE);
}

static void trees_seen(const struct morsel_frames *f, uint32_t end)
{
	uint32_t seen = mrs_load_relaxed32(&f->head->trees_end);

	while (seen < end && !mrs_cas32(&f->head->trees_end, &seen, end))
		;
}

int morsel_frames_online(struct morsel_frames *f, uint64_t first, uint64_t count, unsigned flags)
{
	uint32_t begin, end, stop;

	if (first % CHILD_FRAMES || count % CHILD_FRAMES || !count || first >= f->capacity ||
	    count > f->capacity - first)
		return -FRAMES_EINVAL;
	begin = (uint32_t)(first / CHILD_FRAMES);
	end = (uint32_t)((first + count) / CHILD_FRAMES);
	for (uint32_t c = begin; c < end; c = stop) {
		stop = tree_children_end(f, c / TREE_CHILDREN);
		stop = stop < end ? stop : end;
		if (!tree_can_grow(f, c / TREE_CHILDREN, c, stop))
			return -FRAMES_EINVAL;
	}
	for (uint32_t c = begin; c < end; c = stop) {
		stop = tree_children_end(f, c / TREE_CHILDREN);
		stop = stop < end ? stop : end;
		tree_grow(f, c / TREE_CHILDREN, c, stop, flags);
	}
	trees_seen(f, (end + TREE_CHILDREN - 1) / TREE_CHILDREN);
	return 0;
}

/* ---- Offline --------------------------------------------------------------------------------- */

/* Takes the child for good. True also if it was absent already. */
static bool child_go(const struct morsel_frames *f, uint32_t child)
{
	if (child_is(child_load(f, child), CHILD_ABSENT))
		return true;
	if (!mrs_frames_child_get_huge(f, child, true))
		return false;
	MRS_PROBE("frame.offline.child");
	child_apply(f, child, child_leave, 0, NULL);
	return true;
}

/* Gives back those of [first, end) that child_go() took; content is kept as it was known. */
static void children_come_back(const struct morsel_frames *f, uint32_t first, uint32_t end)
{
	for (uint32_t c = first; c < end; c++) {
		uint32_t dirty = child_load(f, c).raw & CHILD_DIRTY;

		if (child_apply(f, c, child_return, 0, NULL))
			mrs_frames_child_put_huge(f, c, dirty);
	}
}

int morsel_frames_offline(struct morsel_frames *f, uint64_t first, uint64_t count)
{
	struct mrs_frames_local *l = &f->locals[f->local_count];
	uint32_t begin, end, c;

	if (first % MORSEL_FRAMES_TREE || !count || first >= f->capacity ||
	    count > f->capacity - first ||
	    (count % MORSEL_FRAMES_TREE && first + count != f->capacity))
		return -FRAMES_EINVAL;
	begin = (uint32_t)(first / CHILD_FRAMES);
	end = (uint32_t)((first + count) / CHILD_FRAMES);
	for (c = begin; c < end; c += TREE_CHILDREN)
		if (!morsel_frames_is_online(f, (uint64_t)c * CHILD_FRAMES))
			return -FRAMES_EINVAL;
	/* The record says which children a death leaves half gone: see death.c. */
	l->mask[0] = end;
	pending_store(&l->pending, pending_claim(first));
	claiming(l, 1);
	for (c = begin; c < end && child_go(f, c); c++)
		;
	if (c < end)
		children_come_back(f, begin, c);
	for (uint32_t t = begin; c == end && t < end; t += TREE_CHILDREN)
		mrs_fetch_sub(&f->trees[t / TREE_CHILDREN], TREE_ONLINE);
	epoch_bump(&l->epoch);
	claiming(l, 0);
	pending_store(&l->pending, 0);
	return c < end ? -FRAMES_EBUSY : 0;
}
