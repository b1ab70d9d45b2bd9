/*
 * The tree entry: how many of its 32 children are in which state, in 64 bits, as plain functions on
 * values. It guides searches and decides nothing: a getter that finds the entry wrong looks
 * further.
 *
 *   63  52 51    50   49     48   47      32 31       16 15        0
 *  +------+--------+------+------+----------+-----------+-----------+
 *  | zero |  kind  | known|online|   zero   |  partial  | not whole |
 *  +------+--------+------+------+----------+-----------+-----------+
 *
 * not whole: children that are not wholly free and nobody's; partial: children of which anyone may
 * take some frames. When nobody runs, both are sums over the children. Whoever changes a child adds
 * the difference here afterwards, so that for an instant a field may be too small, even below zero:
 * fields are signed, and a borrow from the next field is undone when reading.
 */
#ifndef MRS_FRAME_TREE_H
#define MRS_FRAME_TREE_H

#include "frame/child.h"

#define TREE_CHILDREN  32u
#define TREE_NOT_WHOLE ((uint64_t)1)
#define TREE_PARTIAL   ((uint64_t)1 << 16)
#define TREE_ONLINE    ((uint64_t)1 << 48)
#define TREE_KNOWN     ((uint64_t)1 << 49) /* its children were initialised once */
#define TREE_KIND_AT   50
#define TREE_KIND      ((uint64_t)3 << TREE_KIND_AT)

struct tree {
	uint64_t raw;
};

static inline int tree_not_whole(struct tree t)
{
	return (int16_t)(uint16_t)t.raw;
}

static inline int tree_partial(struct tree t)
{
	return (int16_t)(uint16_t)((t.raw - (uint64_t)(int64_t)tree_not_whole(t)) >> 16);
}

/* The flags without what the counters borrowed. */
static inline uint64_t tree_flags(struct tree t)
{
	uint64_t counters = (uint64_t)(int64_t)tree_not_whole(t) +
			    (uint64_t)(int64_t)tree_partial(t) * TREE_PARTIAL;

	return t.raw - counters;
}

/* Nothing is borrowed if bit 47 is clear: most of the time one look is enough. */
static inline bool tree_online_surely(struct tree t)
{
	return (t.raw & (TREE_ONLINE | (uint64_t)1 << 47)) == TREE_ONLINE;
}

static inline bool tree_online(struct tree t)
{
	return tree_online_surely(t) || tree_flags(t) & TREE_ONLINE;
}

static inline int tree_whole(struct tree t)
{
	return (int)TREE_CHILDREN - tree_not_whole(t);
}

/* Kind 0: unused, or said by nobody. A tree that is wholly free again has no kind. */
static inline unsigned tree_kind(struct tree t)
{
	return tree_not_whole(t) > 0 ? (tree_flags(t) & TREE_KIND) >> TREE_KIND_AT : 0;
}

/* What a child in this state adds to its tree. */
static inline uint64_t tree_share(struct child v)
{
	return (child_whole(v) ? 0 : TREE_NOT_WHOLE) + (child_partial(v) ? TREE_PARTIAL : 0);
}

/* What to add to the tree when a child changes. */
static inline uint64_t tree_delta(struct child from, struct child to)
{
	return tree_share(to) - tree_share(from);
}

static inline bool tree_set_kind(struct tree *t, unsigned kind)
{
	uint64_t flags = tree_flags(*t);
	uint64_t wanted = (flags & ~TREE_KIND) | (uint64_t)kind << TREE_KIND_AT;

	if (flags == wanted)
		return false;
	t->raw += wanted - flags;
	return true;
}

static inline bool tree_valid(struct tree t)
{
	return tree_not_whole(t) >= 0 && tree_not_whole(t) <= (int)TREE_CHILDREN &&
	       tree_partial(t) >= 0 && tree_partial(t) <= tree_not_whole(t) &&
	       !(tree_flags(t) & ~(TREE_ONLINE | TREE_KNOWN | TREE_KIND)) &&
	       (tree_flags(t) & TREE_KIND) >> TREE_KIND_AT <= 3;
}

#endif
