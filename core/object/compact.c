/*
 * Compaction: huge frames that are used in part become free, by moving what is in them.
 *
 * Looks at all tables once to learn which page is in which frame and may be moved, counts by huge
 * frame, plans (compact_plan.h), and has the pages moved one by one. Others go on meanwhile: a page
 * that has become pinned, was evicted or freed since is passed by, and its huge frame stays.
 */
#include <morsel/compact.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "object/compact_plan.h"
#include "object/internal.h"
#include "object/move.h"
#include "object/share.h"

#define HUGE_FRAMES 512u

/* One page that may be moved. */
struct place {
	uint64_t frame;
	uint64_t page;
	mrs_cell record;
};

struct compact {
	struct morsel_pool *pool;
	struct place *place;
	size_t places, room;
	struct mrs_huge_use *use;
	size_t uses;
	struct mrs_compact_plan plan;
	size_t target; /* where the search for a free frame stands: use[target] */
	uint64_t target_frame;
	int rc;
};

/* ---- what is where ---- */

static int add_place(struct compact *c, uint64_t frame, uint64_t page, mrs_cell record)
{
	if (c->places == c->room) {
		size_t room = c->room ? 2 * c->room : 4096;
		struct place *more = realloc(c->place, room * sizeof(*more));

		if (!more)
			return mrs_fail(-ENOMEM, "no memory for a list of %zu pages", room);
		c->place = more;
		c->room = room;
	}
	c->place[c->places++] = (struct place){frame, page, record};
	return 0;
}

static int add_pages(struct compact *c, struct morsel *morsel)
{
	uint64_t end = mrs_morsel_pages(morsel), page = 0;
	int rc = 0;

	while (!rc && page < end) {
		struct mrs_leaf leaf;

		rc = mrs_table_leaf(&morsel->table, page, &leaf);
		if (rc)
			return rc;
		if (!leaf.level && leaf.place && !leaf.shared &&
		    mrs_entry_state(leaf.entry) == MRS_ENTRY_MAPPED)
			rc = add_place(c, mrs_entry_frame(leaf.entry), page, morsel->cell);
		page = leaf.page + (1ull << MRS_HUGE_ORDER * leaf.level);
	}
	return rc;
}

static int add_record(void *ctx, mrs_cell cell, void *memory)
{
	struct mrs_cell_record *record = memory;
	struct compact *c = ctx;
	struct morsel *morsel;

	uint64_t state = mrs_load_acquire(&record->state);

	/* One without a name yet is its maker's: who opened and closed it would take it for
	 * unlinked. */
	if (!(mrs_flags_of(state) & MORSEL_EVICTABLE) || mrs_state_of(state) != MRS_RECORD_LIVE ||
	    mrs_handle_open_aside(c->pool, cell, &morsel))
		return 0;
	c->rc = mrs_move_is_possible(morsel) ? add_pages(c, morsel) : 0;
	morsel_close(morsel);
	return c->rc;
}

static int by_frame(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	return x->frame < y->frame ? -1 : x->frame > y->frame;
}

static uint64_t used_in(struct morsel_pool *pool, uint64_t huge)
{
	const struct morsel_frames *frames = mrs_pool_frames(pool);
	uint64_t used = 0;

	for (uint64_t frame = huge * HUGE_FRAMES; frame < (huge + 1) * HUGE_FRAMES; frame++)
		used += morsel_frames_is_allocated(frames, frame, 0);
	return used;
}

/* Huge frames from the first of data to the last that is online, but for free and full ones. */
static int count_uses(struct compact *c)
{
	uint64_t first =
		mrs_round_up(mrs_pool_super(c->pool)->frame_data, HUGE_FRAMES) / HUGE_FRAMES;
	uint64_t end = mrs_load_acquire(&mrs_pool_state(c->pool)->online_end);
	size_t at = 0;

	end = mrs_min(end, mrs_pool_frames_end(c->pool)) / HUGE_FRAMES;
	c->use = calloc(end > first ? end - first : 1, sizeof(*c->use));
	if (!c->use)
		return mrs_fail(-ENOMEM, "no memory for counts of %llu huge frames",
				(unsigned long long)(end - first));
	for (uint64_t huge = first; huge < end; huge++) {
		uint64_t used, movable = 0;

		for (; at < c->places && c->place[at].frame < (huge + 1) * HUGE_FRAMES; at++)
			movable += c->place[at].frame >= huge * HUGE_FRAMES;
		if (morsel_frames_is_free(mrs_pool_frames(c->pool), huge * HUGE_FRAMES,
					  MRS_HUGE_ORDER))
			continue;
		used = used_in(c->pool, huge);
		if (used && used < HUGE_FRAMES)
			c->use[c->uses++] = (struct mrs_huge_use){
				.huge = huge,
				.used = (uint16_t)used,
				.movable = (uint16_t)mrs_min(movable, used),
			};
	}
	return 0;
}

static int look(struct compact *c)
{
	mrs_cell_each(mrs_pool_cells(c->pool), MRS_CELL_RECORD, add_record, c);
	if (c->rc)
		return c->rc;
	if (c->places)
		qsort(c->place, c->places, sizeof(*c->place), by_frame);
	return count_uses(c);
}

/* ---- moving ---- */

/* The next free frame in a target; 0 if there is none left. */
static uint64_t next_target(struct compact *c)
{
	for (; c->target < c->uses; c->target++, c->target_frame = 0) {
		uint64_t first = c->use[c->target].huge * HUGE_FRAMES;

		for (; c->target_frame < HUGE_FRAMES; c->target_frame++)
			if (mrs_place_is_free(c->pool, first + c->target_frame, 0))
				return first + c->target_frame++;
	}
	return 0;
}

static struct place *first_place(struct compact *c, uint64_t frame)
{
	size_t low = 0, high = c->places;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (c->place[middle].frame < frame)
			low = middle + 1;
		else
			high = middle;
	}
	return c->place + low;
}

/* One page to some target. -EBUSY: it stays. */
static int move_one(struct compact *c, const struct place *place)
{
	struct morsel *morsel;
	uint64_t to;
	int rc = mrs_handle_open_aside(c->pool, place->record, &morsel);

	if (rc)
		return -EBUSY;
	do {
		to = next_target(c);
		rc = to ? mrs_move(morsel, place->page, place->frame, to) : -ENOSPC;
	} while (rc == -EEXIST); /* somebody took that frame meanwhile */
	morsel_close(morsel);
	return rc;
}

/* Empties one victim; false if no further one can be. */
static bool empty_one(struct compact *c, uint64_t huge, struct morsel_compact_result *result)
{
	uint64_t end = (huge + 1) * HUGE_FRAMES;
	struct place *place = first_place(c, huge * HUGE_FRAMES);

	for (; place < c->place + c->places && place->frame < end; place++) {
		int rc = move_one(c, place);

		if (rc == -ENOSPC || rc == -EOPNOTSUPP)
			return false;
		if (rc)
			result->refused++;
		else
			result->pages_moved++;
	}
	return true;
}

static void count_gain(struct compact *c, struct morsel_compact_result *result)
{
	struct morsel_frames *frames = mrs_pool_frames(c->pool);

	/* Old numbers come back when nobody maps them any more. */
	mrs_quarantine_sweep(c->pool);
	for (size_t i = 0; i < c->plan.victims; i++)
		result->huge_gained +=
			morsel_frames_is_free(frames, c->use[i].huge * HUGE_FRAMES, MRS_HUGE_ORDER);
	result->moves_least = mrs_compact_least(c->use, c->uses, result->huge_gained);
	mrs_fetch_add(&mrs_pool_state(c->pool)->count[MRS_COUNT_HUGE_GAINED], result->huge_gained);
}

static int check_pool(struct morsel_pool *pool)
{
	uint32_t kind = mrs_pool_super(pool)->kind;
	int rc = mrs_check_writable(pool, "compacting");

	if (rc || kind == MORSEL_POOL_MEMFD || kind == MORSEL_POOL_TMPFS)
		return rc;
	return mrs_fail(
		-EOPNOTSUPP,
		"%s cannot be compacted: pages of files on disk and of hugetlbfs are not moved",
		mrs_pool_path(pool));
}

int morsel_pool_compact(struct morsel_pool *pool, const struct morsel_compact_opts *given,
			struct morsel_compact_result *result)
{
	struct compact c = {.pool = pool};
	struct morsel_compact_result own = {0};
	struct morsel_compact_opts opts;
	int rc = mrs_opts_read(&opts, sizeof(opts), given);

	if (!rc)
		rc = check_pool(pool);
	if (!rc)
		rc = look(&c);
	if (!rc) {
		mrs_compact_plan(c.use, c.uses, opts.huge_max, opts.move_max, &c.plan);
		c.target = c.plan.first_target;
		for (size_t i = 0; i < c.plan.victims; i++)
			if (!empty_one(&c, c.use[i].huge, &own))
				break;
		MRS_PROBE("compact.moved");
		count_gain(&c, &own);
	}
	free(c.place);
	free(c.use);
	if (!rc && result) {
		size_t size = mrs_min(result->size, sizeof(own));

		own.size = result->size;
		memcpy(result, &own, size);
	}
	return rc;
}
