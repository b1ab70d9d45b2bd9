/*
 * Looking at everything: which frames a table uses, and whether it is what it should be. See
 * table.h.
 *
 * A hostile table may name one frame many times, and 512^4 steps are a hang. So a walk keeps one
 * bit per frame of the pool for the tables it has entered, and enters each once; its cost is
 * bounded by the frames that exist. validate() keeps a second set, of all frames, to find two users
 * of one.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "table/radix.h"

struct frame_set {
	uint64_t *bits;
	uint64_t frames;
};

/* The first frame number past the pool; if nobody says, by bisection: at() says yes up to there. */
static uint64_t pool_end(const struct mrs_table *table)
{
	uint64_t inside = 0, outside = MRS_ENTRY_FRAME_MASK + 1;

	if (table->ops->frames_end)
		return table->ops->frames_end(table->ctx);
	while (outside - inside > 1) {
		uint64_t middle = inside + (outside - inside) / 2;

		if (table->ops->at(table->ctx, middle))
			inside = middle;
		else
			outside = middle;
	}
	return outside;
}

static int set_make(const struct mrs_table *table, struct frame_set *set)
{
	set->frames = pool_end(table);
	set->bits = calloc(set->frames / 64 + 1, sizeof(uint64_t));
	if (!set->bits)
		return mrs_fail(-ENOMEM, "no memory for one bit per frame (%llu bytes)",
				(unsigned long long)(set->frames / 8));
	return 0;
}

/* Puts frame in; false if it was in already, or is not in the pool. */
static bool set_add(struct frame_set *set, uint64_t frame)
{
	uint64_t bit = 1ull << frame % 64;

	if (frame >= set->frames || set->bits[frame / 64] & bit)
		return false;
	set->bits[frame / 64] |= bit;
	return true;
}

/* What a walk tells: a leaf (or the run), a table, or something wrong. */
struct visitor {
	int (*leaf)(void *ctx, uint64_t page, uint64_t frame, uint64_t count);
	int (*table)(void *ctx, uint64_t frame);
	int (*damage)(void *ctx, uint64_t page, const char *problem);
	void *ctx;
	const struct mrs_table *tree;
	struct frame_set entered;
};

static int visit_table(struct visitor *v, uint64_t frame, unsigned level, uint64_t first)
{
	uint64_t *entries = radix_entries(v->tree, frame);
	int rc;

	if (!entries)
		return v->damage(v->ctx, first, "a table is outside the pool");
	if (!set_add(&v->entered, frame))
		return v->damage(v->ctx, first, "a table is used twice");
	rc = v->table(v->ctx, frame);
	for (unsigned i = 0; i < RADIX_ENTRIES && !rc; i++) {
		uint64_t entry = mrs_load_acquire(&entries[i]);
		uint64_t page = first + i * radix_span(level);

		switch (fmt_kind(entry, level)) {
		case FMT_EMPTY:
			break;
		case FMT_TABLE:
			rc = visit_table(v, fmt_frame(entry), level - 1, page);
			break;
		case FMT_LEAF:
			if (radix_in_pool(v->tree, fmt_frame(entry), radix_span(level)))
				rc = v->leaf(v->ctx, page, fmt_frame(entry), radix_span(level));
			else
				rc = v->damage(v->ctx, page,
					       "a leaf's frames are outside the pool");
			break;
		case FMT_STALE:
			rc = v->damage(v->ctx, page, RADIX_STALE);
			break;
		default:
			rc = v->damage(v->ctx, page, mrs_entry_problem(entry, level));
		}
	}
	return rc;
}

static int visit_run(struct visitor *v, uint64_t root)
{
	uint64_t pages = mrs_load_relaxed(v->tree->run_pages);

	if (!pages)
		return 0;
	if (pages > RADIX_PAGES_MAX || !radix_in_pool(v->tree, fmt_frame(root), pages))
		return v->damage(v->ctx, 0, "the run is not inside the pool");
	return v->leaf(v->ctx, 0, fmt_frame(root), pages);
}

static int visit(struct visitor *v)
{
	uint64_t root = radix_root(v->tree);
	unsigned level;
	int rc;

	if (fmt_kind(root, 0) == FMT_EMPTY)
		return 0;
	if (radix_root_is_run(root))
		return visit_run(v, root);
	if (!radix_root_is_table(root, &level))
		return v->damage(v->ctx, 0, "the root entry is none");
	rc = set_make(v->tree, &v->entered);
	if (rc)
		return rc;
	rc = visit_table(v, fmt_frame(root), level, 0);
	free(v->entered.bits);
	return rc;
}

/* ---- every entry ---- */

struct each_entry {
	struct mrs_table *tree;
	int (*fn)(void *ctx, const struct mrs_leaf *entry, bool is_table);
	void *ctx;
	struct frame_set entered;
	bool damaged;
};

static int each_damaged(struct each_entry *each, uint64_t page, const char *problem)
{
	each->damaged = true;
	radix_damaged(page, problem);
	return 0;
}

static int each_in_table(struct each_entry *each, const struct mrs_leaf *table);

/* What entry says, which stands in a table of its level. */
static int each_one(struct each_entry *each, struct mrs_leaf *entry)
{
	uint64_t span = radix_span(entry->level);
	int rc;

	entry->entry = mrs_load_acquire(entry->place);
	entry->shared |= fmt_is_shared(entry->entry);
	switch (fmt_kind(entry->entry, entry->level)) {
	case FMT_EMPTY:
		return 0;
	case FMT_LEAF:
		if (!radix_in_pool(each->tree, fmt_frame(entry->entry), span))
			return each_damaged(each, entry->page,
					    "a leaf's frames are outside the pool");
		return each->fn(each->ctx, entry, false);
	case FMT_TABLE:
		rc = each->fn(each->ctx, entry, true);
		return rc ? rc : each_in_table(each, entry);
	case FMT_STALE:
		return each_damaged(each, entry->page, RADIX_STALE);
	default:
		return each_damaged(each, entry->page,
				    mrs_entry_problem(entry->entry, entry->level));
	}
}

static int each_in_table(struct each_entry *each, const struct mrs_leaf *table)
{
	uint64_t frame = fmt_frame(table->entry);
	uint64_t *entries = radix_entries(each->tree, frame);
	int rc = 0;

	if (!entries)
		return each_damaged(each, table->page, "a table is outside the pool");
	if (!set_add(&each->entered, frame))
		return each_damaged(each, table->page, "a table is used twice");
	for (unsigned i = 0; i < RADIX_ENTRIES && !rc; i++) {
		struct mrs_leaf entry = {
			.place = &entries[i],
			.page = table->page + i * radix_span(table->level - 1),
			.level = table->level - 1,
			.table = frame,
			.index = i,
			.shared = table->shared,
		};

		rc = each_one(each, &entry);
		if (rc == MRS_TABLE_SKIP)
			rc = 0;
	}
	return rc;
}

int mrs_table_each_entry(struct mrs_table *table,
			 int (*fn)(void *ctx, const struct mrs_leaf *entry, bool is_table),
			 void *ctx)
{
	struct each_entry each = {.tree = table, .fn = fn, .ctx = ctx};
	struct mrs_leaf root = {.place = table->root, .entry = radix_root(table)};
	int rc;

	if (fmt_kind(root.entry, 0) == FMT_EMPTY)
		return 0;
	root.shared = fmt_is_shared(root.entry);
	if (radix_root_is_run(root.entry))
		return fn(ctx, &root, false);
	if (!radix_root_is_table(root.entry, &root.level))
		return radix_damaged(0, "the root entry is none");
	root.level++;
	rc = set_make(table, &each.entered);
	if (rc)
		return rc;
	rc = fn(ctx, &root, true);
	rc = rc ? rc : each_in_table(&each, &root);
	free(each.entered.bits);
	return rc == MRS_TABLE_SKIP ? 0 : rc ? rc : each.damaged ? -EINVAL : 0;
}

/* ---- every frame ---- */

struct walk {
	int (*fn)(void *ctx, uint64_t frame, uint64_t count, bool is_table);
	void *ctx;
	bool damaged;
};

static int walk_leaf(void *ctx, uint64_t page, uint64_t frame, uint64_t count)
{
	struct walk *walk = ctx;

	return walk->fn(walk->ctx, frame, count, false);
}

static int walk_table(void *ctx, uint64_t frame)
{
	struct walk *walk = ctx;

	return walk->fn(walk->ctx, frame, 1, true);
}

static int walk_damage(void *ctx, uint64_t page, const char *problem)
{
	struct walk *walk = ctx;

	walk->damaged = true;
	radix_damaged(page, problem);
	return 0;
}

int mrs_table_walk(struct mrs_table *table,
		   int (*fn)(void *ctx, uint64_t frame, uint64_t count, bool is_table), void *ctx)
{
	struct walk walk = {.fn = fn, .ctx = ctx};
	struct visitor v = {.leaf = walk_leaf,
			    .table = walk_table,
			    .damage = walk_damage,
			    .ctx = &walk,
			    .tree = table};
	int rc = visit(&v);

	return rc ? rc : walk.damaged ? -EINVAL : 0;
}

struct audit {
	void (*report)(void *ctx, const char *finding);
	void *ctx;
	struct frame_set used;
	uint64_t pages; /* of the morsel */
	int findings;
};

static int audit_damage(void *ctx, uint64_t page, const char *problem)
{
	struct audit *audit = ctx;
	char text[160];

	snprintf(text, sizeof(text), "page %llu: %s", (unsigned long long)page, problem);
	audit->findings++;
	if (audit->report)
		audit->report(audit->ctx, text);
	return 0;
}

static int audit_leaf(void *ctx, uint64_t page, uint64_t frame, uint64_t count)
{
	struct audit *audit = ctx;
	bool alone = true;

	if (page >= audit->pages)
		audit_damage(audit, page, "mapped beyond the morsel's end");
	/* A morsel that is one run has no set. The first double ends it: the cost stays bounded. */
	for (uint64_t i = 0; i < count && alone && audit->used.bits; i++)
		alone = set_add(&audit->used, frame + i);
	return alone ? 0 : audit_damage(audit, page, "a frame is used twice");
}

static int audit_table(void *ctx, uint64_t frame)
{
	struct audit *audit = ctx;

	return set_add(&audit->used, frame) ? 0
					    : audit_damage(audit, 0,
							   "a table's frame is used "
							   "twice");
}

int mrs_table_validate(struct mrs_table *table, uint64_t pages,
		       void (*report)(void *ctx, const char *finding), void *ctx)
{
	struct audit audit = {.report = report, .ctx = ctx, .pages = pages};
	struct visitor v = {.leaf = audit_leaf,
			    .table = audit_table,
			    .damage = audit_damage,
			    .ctx = &audit,
			    .tree = table};
	int rc;

	rc = radix_root_is_run(radix_root(table)) ? 0 : set_make(table, &audit.used);
	if (!rc)
		rc = visit(&v);
	free(audit.used.bits);
	return rc ? rc : audit.findings;
}
