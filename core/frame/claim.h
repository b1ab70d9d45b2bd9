/*
 * Children under concurrency: the only file that turns the steps of child.h into compare-and-swap
 * loops, keeps the trees' counters in step, and knows where things lie in the metadata.
 *
 *   head | locals (+ one for online/offline) | map of partial trees | trees | ... page ... children
 * | ... page ... rows
 *
 * Nothing read from the metadata is used as an index before it is checked against the handle.
 */
#ifndef MRS_FRAME_CLAIM_H
#define MRS_FRAME_CLAIM_H

#include "base/atomic.h"
#include "base/probe.h"
#include "frame/child.h"
#include "frame/local.h"
#include "frame/row.h"
#include "frame/tree.h"

#include <morsel/frame.h>

#if MORSEL_CHECKS >= 1
#include "base/base.h"
#else
#define MRS_CHECK(condition) ((void)0)
#endif

/* The values of the kernel's errno-base.h, so that no libc header is needed. */
#define FRAMES_ENOENT	       2
#define FRAMES_ENOMEM	       12
#define FRAMES_EBUSY	       16
#define FRAMES_EEXIST	       17
#define FRAMES_EINVAL	       22
#define FRAMES_EPROTONOSUPPORT 93

#define FRAMES_MAGIC   0x656d617266736d6cu /* "lmsframe" in memory */
#define FRAMES_VERSION 1u

#define frames_likely(x)   __builtin_expect(!!(x), 1)
#define frames_unlikely(x) __builtin_expect(!!(x), 0)

struct mrs_frames_head {
	uint64_t magic; /* stored last */
	uint32_t version;
	uint32_t locals;
	uint64_t capacity;
	struct morsel_frames_policy policy;
	uint8_t unused[4];
	uint64_t reserve[3];
	/* Written now and then; a line of their own. */
	uint32_t trees_end;  /* no tree at or after this was ever online */
	uint32_t locals_end; /* no local at or after this was ever used */
	uint64_t reserve2[7];
};

_Static_assert(sizeof(struct mrs_frames_head) == 128, "the head is laid out by hand");

/* What a get carries through the search. */
struct get {
	const struct morsel_frames *f;
	struct mrs_frames_local *l;
	unsigned local;
	unsigned order;
	unsigned cls;
	uint32_t tree;	/* where searches begin */
	uint64_t first; /* frames in [first, end) only */
	uint64_t end;
	unsigned start; /* bit of the row at which to begin */
	bool fixed;	/* has wishes about the place: leaves the reservation alone */
};

static inline uint64_t *row_of(const struct morsel_frames *f, uint32_t child)
{
	return &f->rows[(uint64_t)child * ROW_WORDS];
}

static inline struct child child_load(const struct morsel_frames *f, uint32_t child)
{
	/* Acquire: pairs with the release of whoever changed it, whose row is then seen as well. */
	return (struct child){mrs_load_acquire32(&f->children[child])};
}

static inline struct tree tree_load(const struct morsel_frames *f, uint32_t tree)
{
	return (struct tree){mrs_load_acquire(&f->trees[tree])};
}

static inline uint32_t child_count(const struct morsel_frames *f)
{
	return (uint32_t)(f->capacity / CHILD_FRAMES);
}

/* Trees worth looking at: below what was ever online, whatever the shared word says. */
static inline uint32_t trees_end(const struct morsel_frames *f)
{
	uint32_t end = mrs_load_acquire32(&f->head->trees_end);

	return end < f->tree_count ? end : f->tree_count;
}

static inline uint32_t locals_end(const struct morsel_frames *f)
{
	uint32_t end = mrs_load_acquire32(&f->head->locals_end);

	return end < f->local_count ? end : f->local_count;
}

/* One past the last child of tree that exists. */
static inline uint32_t tree_children_end(const struct morsel_frames *f, uint32_t tree)
{
	uint32_t end = (tree + 1) * TREE_CHILDREN;

	return end < child_count(f) ? end : child_count(f);
}

/*
 * The map of trees that may have partly used children, so that a search need not load every tree. A
 * bit is set after the tree's counter rose, and cleared by a searcher that sees none, who looks
 * again afterwards. Only guides.
 */
static inline void partial_seen(const struct morsel_frames *f, uint32_t tree)
{
	uint64_t *word = &f->partial_map[tree / 64], bit = (uint64_t)1 << tree % 64;

	if (!(mrs_load_relaxed(word) & bit))
		mrs_fetch_or(word, bit);
}

/*
 * Applies a step. False: the step said no to what it last saw, which is then in *seen. The tree
 * follows one instruction later; who dies between the two leaves it to repair.
 */
static inline __attribute__((always_inline)) bool
child_apply(const struct morsel_frames *f, uint32_t child,
	    bool (*step)(struct child *value, uint32_t arg), uint32_t arg, struct child *seen)
{
	uint32_t found = child_load(f, child).raw;
	struct child from, to;
	uint64_t delta;

	do {
		from.raw = to.raw = found;
		if (seen)
			*seen = from;
		if (!step(&to, arg))
			return false;
	} while (!mrs_cas32(&f->children[child], &found, to.raw));
	delta = tree_delta(from, to);
	if (delta) {
		MRS_PROBE("frame.child.tree");
		mrs_fetch_add(&f->trees[child / TREE_CHILDREN], delta);
		if (child_partial(to))
			partial_seen(f, child / TREE_CHILDREN);
	}
	return true;
}

/* Says that frames may look taken for a while; pairs with claims_up(). See search.c. */
static inline void claiming(struct mrs_frames_local *l, uint32_t on)
{
	mrs_store_release32(&l->claiming, on);
}

static inline bool local_in_range(const struct morsel_frames *f, unsigned local)
{
	return local < f->local_count;
}

/* Makes the local known to those who look at all of them. */
static inline void local_seen(const struct morsel_frames *f, unsigned local)
{
	uint32_t end = mrs_load_relaxed32(&f->head->locals_end);

	if (frames_likely(end > local))
		return;
	while (end <= local && !mrs_cas32(&f->head->locals_end, &end, local + 1))
		;
}

static inline void local_enter(const struct morsel_frames *f, struct mrs_frames_local *l)
{
#if MORSEL_CHECKS >= 1
	MRS_CHECK(mrs_swap32(&l->busy, 1) == 0);
#endif
}

static inline void local_leave(const struct morsel_frames *f, struct mrs_frames_local *l)
{
#if MORSEL_CHECKS >= 1
	mrs_store_release32(&l->busy, 0);
#endif
}

/* The reservation that serves a class. Orders 9 and up reserve nothing. */
static inline struct own *own_of(struct mrs_frames_local *l, unsigned cls)
{
	return &l->own[cls == MORSEL_FRAMES_IMMOVABLE ? OWN_IMMOVABLE : OWN_MOVABLE];
}

static inline bool own_holds(const struct own *own, uint32_t child)
{
	return own->child == child + 1;
}

static inline uint32_t own_child(const struct morsel_frames *f, const struct own *own)
{
	uint32_t child = own->child - 1; /* none becomes UINT32_MAX */

	return child < child_count(f) ? child : UINT32_MAX;
}

static inline uint32_t own_free(const struct own *own)
{
	uint32_t free = mrs_load_relaxed32(&own->free);

	return free < CHILD_FRAMES ? free : CHILD_FRAMES;
}

/* claim.c: what more than one of get, put and search needs. */

/* Makes the row of a free FILLED child zero. True if the child is no longer FILLED. */
bool mrs_frames_child_unfill(const struct morsel_frames *f, struct mrs_frames_local *l,
			     uint32_t child);

/* Reserves what is free in child for own, which holds nothing. */
bool mrs_frames_own_reserve(const struct get *g, struct own *own, uint32_t child);

/* Gives the reservation back; own holds nothing afterwards. */
void mrs_frames_own_release(const struct morsel_frames *f, unsigned local, struct own *own);

/* What the owner counts of a child; 0 if the entry names no owner that names the child. */
uint32_t mrs_frames_owner_free(const struct morsel_frames *f, uint32_t child, struct child v);

/* What is in pockets of this child. Looks at every local. */
uint32_t mrs_frames_pockets_free(const struct morsel_frames *f, uint32_t child);

/* Gives what is in the pocket back to the entry of its child. */
void mrs_frames_pocket_empty(const struct morsel_frames *f, struct mrs_frames_local *l);

/* Settles with the others; true if the count changed. */
bool mrs_frames_own_sync(const struct morsel_frames *f, unsigned local, struct own *own);

/* Gets a block of order 0 to 8 out of the reservation, or MORSEL_FRAMES_NONE. */
uint64_t mrs_frames_own_get(const struct get *g, struct own *own);

/*
 * Gets a block of order 0 to 8 out of child without reserving it. force: also where the counters
 * say that nothing is left for us, because the row decides. Returns the frame or
 * MORSEL_FRAMES_NONE.
 */
uint64_t mrs_frames_child_get(const struct get *g, uint32_t child, bool force);

/* The whole child as a huge frame; steal: also one that is reserved and wholly free. */
bool mrs_frames_child_get_huge(const struct morsel_frames *f, uint32_t child, bool steal);

/* Undoes mrs_frames_child_get_huge(), exactly. dirty: CHILD_DIRTY or 0. */
void mrs_frames_child_put_huge(const struct morsel_frames *f, uint32_t child, uint32_t dirty);

/* An unused tree is of this class now. Only guides: may come late or never. */
void mrs_frames_tree_claimed(const struct morsel_frames *f, uint32_t tree, unsigned cls);

/* search.c: a frame for a get that the fast paths could not serve, or MORSEL_FRAMES_NONE. */
uint64_t mrs_frames_search(struct get *g);

/* huge.c: orders 9 to 18. all: look everywhere, and steal. */
uint64_t mrs_frames_huge_search(struct get *g, bool all);
bool mrs_frames_huge_get_at(const struct morsel_frames *f, struct mrs_frames_local *l,
			    uint64_t frame, unsigned order, bool steal);

#endif
