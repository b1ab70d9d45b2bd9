/*
 * Reading the table: which frame stands behind a page, and how far the run goes on. See table.h.
 *
 * A spot is where a page's entry was found: a leaf, or a hole as large as the entry (or all that
 * lies beyond the root's reach). A run is grown spot by spot. Readers take no lock: each entry is
 * loaded once and judged before it is used. Who meets a stale entry has come through a table that
 * was replaced by one leaf meanwhile, and begins again at the root.
 */
#include <errno.h>

#include "table/radix.h"

struct spot {
	uint64_t page;	/* first page that the entry covers */
	uint64_t pages; /* how many */
	uint64_t frame; /* first frame, 0 for a hole */
	unsigned level; /* of the leaf */
	bool away;	/* evicted or poisoned: no memory is behind it */
	bool poisoned;
	uint64_t *entries; /* the table it stands in, NULL beyond the root's reach */
};

int radix_damaged(uint64_t page, const char *problem)
{
	return mrs_fail(-EINVAL,
			"the page table is damaged at page %llu: %s; `morsel pool check` lists all "
			"damage",
			(unsigned long long)page, problem);
}

const char *mrs_entry_problem(uint64_t entry, unsigned level)
{
	unsigned own = mrs_entry_level(entry);

	if (entry & MRS_ENTRY_RESERVED)
		return "reserved bits are set";
	switch (mrs_entry_state(entry)) {
	case MRS_ENTRY_EMPTY:
		return entry & ~MRS_ENTRY_LOCK_MASK ? "an empty entry is not zero" : NULL;
	case MRS_ENTRY_TABLE:
		if (own + 1 != level)
			return "a table of the wrong level";
		return mrs_entry_frame(entry) ? NULL : "a table in frame 0";
	case MRS_ENTRY_MAPPED:
	case MRS_ENTRY_EVICTED:
	case MRS_ENTRY_POISONED:
		if (own != level || level > FMT_LEAF_LEVEL)
			return "a leaf of the wrong level";
		if (mrs_entry_frame(entry) & (radix_span(level) - 1))
			return "a leaf's frame is not aligned to its size";
		return mrs_entry_frame(entry) ? NULL : "a leaf in frame 0";
	case MRS_ENTRY_STALE:
		return entry & ~MRS_ENTRY_LOCK_MASK & ~fmt_stale() ? "a stale entry is not bare"
								   : NULL;
	default:
		return "an unknown state";
	}
}

/* Fills *spot from the entry of a table of this level, whose covered pages are already in it. */
static int spot_take(const struct mrs_table *table, uint64_t entry, unsigned level,
		     struct spot *spot)
{
	spot->level = level;
	spot->frame = 0;
	spot->away = spot->poisoned = false;
	switch (fmt_kind(entry, level)) {
	case FMT_EMPTY:
		return 0;
	case FMT_STALE:
		return -ESTALE;
	case FMT_LEAF:
		if (!radix_in_pool(table, fmt_frame(entry), radix_span(level)))
			return radix_damaged(spot->page, "a leaf's frames are outside the pool");
		spot->frame = fmt_frame(entry);
		spot->away = !fmt_is_resident(entry);
		spot->poisoned = fmt_is_poisoned(entry);
		return 0;
	default:
		return radix_damaged(spot->page, mrs_entry_problem(entry, level));
	}
}

/* From an entry of a table of this level, which covers page, down to the leaf or hole. */
static int spot_descend(const struct mrs_table *table, uint64_t *entries, unsigned level,
			uint64_t page, struct spot *spot)
{
	uint64_t entry;

	for (;;) {
		/* Acquire: pairs with the link of the table below it (link_table() in set.c). */
		entry = mrs_load_acquire(&entries[radix_index(page, level)]);
		if (fmt_kind(entry, level) != FMT_TABLE)
			break;
		entries = radix_entries(table, fmt_frame(entry));
		if (!entries)
			return radix_damaged(page, "a table is outside the pool");
		level--;
	}
	spot->page = mrs_round_down(page, radix_span(level));
	spot->pages = radix_span(level);
	spot->entries = entries;
	return spot_take(table, entry, level, spot);
}

static int spot_in_run(const struct mrs_table *table, uint64_t root, uint64_t page,
		       struct spot *spot)
{
	uint64_t pages = mrs_load_relaxed(table->run_pages);

	spot->entries = NULL;
	spot->level = 0;
	spot->away = spot->poisoned = false;
	if (pages > RADIX_PAGES_MAX || (pages && !radix_in_pool(table, fmt_frame(root), pages)))
		return radix_damaged(page, "the run is not inside the pool");
	if (page < pages) {
		spot->page = 0;
		spot->pages = pages;
		spot->frame = fmt_frame(root);
	} else {
		spot->page = pages;
		spot->pages = RADIX_PAGES_MAX - pages;
		spot->frame = 0;
	}
	return 0;
}

static int spot_from_root(const struct mrs_table *table, uint64_t root, uint64_t page,
			  struct spot *spot)
{
	unsigned level;
	uint64_t *entries;

	if (radix_root_is_run(root))
		return spot_in_run(table, root, page, spot);
	if (fmt_kind(root, 0) == FMT_EMPTY) {
		*spot = (struct spot){.pages = RADIX_PAGES_MAX};
		return 0;
	}
	if (!radix_root_is_table(root, &level))
		return radix_damaged(page, "the root entry is none");
	if (page >= radix_span(level + 1)) {
		*spot = (struct spot){.page = radix_span(level + 1),
				      .pages = RADIX_PAGES_MAX - radix_span(level + 1)};
		return 0;
	}
	entries = radix_entries(table, fmt_frame(root));
	if (!entries)
		return radix_damaged(page, "the root table is outside the pool");
	return spot_descend(table, entries, level, page, spot);
}

static int spot_find(const struct mrs_table *table, uint64_t root, uint64_t page, struct spot *spot)
{
	unsigned tries = 0;
	int rc;

	while ((rc = spot_from_root(table, root, page, spot)) == -ESTALE)
		if (radix_is_hopeless(&tries))
			return radix_damaged(page, RADIX_STALE);
	return rc;
}

/* The spot after this one: mostly the next entry of the same table. */
static int spot_next(const struct mrs_table *table, uint64_t root, struct spot *spot)
{
	uint64_t page = spot->page + spot->pages;

	if (spot->entries && radix_index(page, spot->level)) {
		int rc = spot_descend(table, spot->entries, spot->level, page, spot);

		if (rc != -ESTALE)
			return rc;
	}
	return spot_find(table, root, page, spot);
}

/* The order of the largest leaf in [page, end) of a spot that may be a run without a table. */
static unsigned spot_order(const struct spot *spot, uint64_t page, uint64_t end)
{
	unsigned level = FMT_LEAF_LEVEL;

	if (!spot->frame)
		return 0;
	if (spot->entries)
		return FMT_BITS * spot->level;
	for (; level; level--) {
		uint64_t first = mrs_round_up(page, radix_span(level));

		if (!(spot->frame & (radix_span(level) - 1)) && first + radix_span(level) <= end)
			break;
	}
	return FMT_BITS * level;
}

int mrs_table_lookup(struct mrs_table *table, uint64_t page, uint64_t limit, struct mrs_run *run)
{
	uint64_t root = radix_root(table);
	struct mrs_run found = {.page = page};
	struct spot spot;
	uint64_t end;
	int rc;

	if (!limit || page >= RADIX_PAGES_MAX)
		return mrs_fail(-EINVAL, "no page %llu: a page table covers pages 0 to %llu",
				(unsigned long long)page, RADIX_PAGES_MAX - 1);
	end = page + mrs_min(limit, RADIX_PAGES_MAX - page);
	rc = spot_find(table, root, page, &spot);
	if (rc)
		return rc;
	found.mapped = spot.frame;
	found.frame = spot.frame ? spot.frame + (page - spot.page) : 0;
	for (;;) {
		uint64_t spot_end = mrs_min(spot.page + spot.pages, end);

		found.order =
			mrs_max(found.order, spot_order(&spot, mrs_max(page, spot.page), spot_end));
		if (spot.away)
			found.away += spot_end - mrs_max(page, spot.page);
		found.poisoned |= spot.poisoned;
		found.pages = spot_end - page;
		if (spot_end == end)
			break;
		/* A damaged entry ends the run before it; whoever asks for that page is told. */
		if (spot_next(table, root, &spot))
			break;
		if (!found.mapped != !spot.frame ||
		    (found.mapped && spot.frame != found.frame + found.pages))
			break;
	}
	found.evicted = found.away;
	*run = found;
	return 0;
}

int mrs_table_each_run(struct mrs_table *table, uint64_t page, uint64_t pages,
		       int (*fn)(void *ctx, const struct mrs_run *run), void *ctx)
{
	if (page > RADIX_PAGES_MAX || pages > RADIX_PAGES_MAX - page)
		return mrs_fail(-EINVAL, "pages %llu to %llu: a page table covers only %llu pages",
				(unsigned long long)page, (unsigned long long)(page + pages - 1),
				RADIX_PAGES_MAX);
	while (pages) {
		struct mrs_run run;
		int rc = mrs_table_lookup(table, page, pages, &run);

		if (!rc)
			rc = fn(ctx, &run);
		if (rc)
			return rc;
		page += run.pages;
		pages -= run.pages;
	}
	return 0;
}
