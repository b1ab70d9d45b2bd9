/*
 * Where a morsel's frames lie: the allocation policy.
 *
 * Best is one run: it needs no table, any view of it is one mapping, and the kernel can share its
 * page tables. So an empty morsel first looks for one gap that takes all of it; what cannot have
 * one gets the largest pages that fit, each beside the one before if that place is free, so that
 * runs coalesce. Every block is linked before the next is got: the allocator's record names only
 * one.
 *
 *	granule	 4K, MIXED: 1 frame	2M: 512	  1G: 2^18	hugetlb pool: at least 512
 *	pieces	 MIXED: 1G, 2M, 4K as they fit	 else: the granule only
 */
#include <errno.h>
#include <stdlib.h>

#include "object/internal.h"
#include "object/retarget.h"
#include "object/share.h"
#include "swap/swap.h"
#include "view/registry.h"

/* Blocks that are linked before a waiting reaper is let in. */
#define BREATH_BLOCKS 512u
/* Memory that is reserved at once, in frames: a reaper waits for as long as that takes. */
#define BACK_FRAMES (1ull << 14)
/* Gaps that are tried, when others are quicker, before the morsel is scattered. */
#define GAP_TRIES 8u

struct place {
	struct morsel *morsel;
	struct mrs_txn *txn;
	uint64_t page; /* next to place */
	uint64_t end;
	uint64_t hint;	    /* the frame after the last one placed, 0 none */
	unsigned granule;   /* order of it */
	unsigned max_order; /* of a piece: falls when no such block is left */
	unsigned since;	    /* blocks since the last breath */
	uint64_t largest;   /* gap seen, in frames: for the words */
};

static void breathe(struct mrs_txn *txn, unsigned *since)
{
	if (++*since < BREATH_BLOCKS)
		return;
	*since = 0;
	mrs_txn_pause(txn);
}

/* ---- the table's way to frames ---- */

static uint64_t *table_at(void *ctx, uint64_t frame)
{
	/* Never the pool's own metadata: a hostile table must not lead there. */
	if (frame < mrs_pool_super(ctx)->frame_data)
		return NULL;
	return mrs_pool_at(ctx, frame, 1);
}

static int table_get(void *ctx, void *txn, uint64_t *frame)
{
	return mrs_txn_get_table(txn, frame);
}

static void table_settle(void *ctx, void *txn)
{
	mrs_txn_settle(txn);
}

static void table_put_begin(void *ctx, void *txn, unsigned order, uint64_t frame)
{
	mrs_txn_put_begin(txn, order, frame);
}

static void table_put_end(void *ctx, void *txn)
{
	mrs_txn_put_end(txn);
}

static void table_unback(void *ctx, uint64_t frame)
{
	mrs_pool_unback(ctx, frame, 1);
}

static uint64_t *table_building(void *ctx, void *txn)
{
	return &((struct mrs_txn *)txn)->intent->arg[2];
}

static uint64_t table_frames_end(void *ctx)
{
	return mrs_pool_frames_end(ctx);
}

static bool table_has_others(void *ctx, uint64_t frame)
{
	return mrs_share_has_others(ctx, frame);
}

static void table_owe(void *ctx, void *txn, unsigned order, uint64_t frame, bool is_table)
{
	mrs_txn_put_begin(txn, order, frame);
	mrs_share_owe(txn, order, frame, is_table);
}

static bool table_give_up(void *ctx, void *txn, uint64_t frame)
{
	return mrs_share_drop(txn, frame);
}

static void table_put_cancel(void *ctx, void *txn)
{
	mrs_share_owe_nothing(txn);
	mrs_txn_put_cancel(txn);
}

/* A table that others had too: some of them may still be on their way through it. */
static bool table_alone(void *ctx, void *txn)
{
	struct morsel morsel;

	if (!mrs_handle_init(&morsel, ctx, ((struct mrs_txn *)txn)->intent->cell[0]))
		return true;
	if (mrs_txn_is_repairing())
		return mrs_registry_is_settled(ctx, morsel.cell, 0, UINT64_MAX);
	while (!mrs_share_grace(txn, &morsel))
		;
	return true;
}

static void table_wait(void *ctx, uint64_t *place, uint64_t entry)
{
	mrs_entry_wait(ctx, place, entry);
}

const struct mrs_table_ops mrs_object_table_ops = {
	.at = table_at,
	.get = table_get,
	.settle = table_settle,
	.put_begin = table_put_begin,
	.put_end = table_put_end,
	.unback = table_unback,
	.has_others = table_has_others,
	.owe = table_owe,
	.give_up = table_give_up,
	.put_cancel = table_put_cancel,
	.alone = table_alone,
	.wait = table_wait,
	.building = table_building,
	.frames_end = table_frames_end,
};

/* ---- giving back ---- */

void mrs_place_unget(struct mrs_txn *txn, unsigned order, uint64_t frame, bool backed)
{
	if (backed)
		mrs_pool_unback(txn->pool, frame, 1ull << order);
	mrs_txn_put_begin(txn, order, frame);
	mrs_txn_put_end(txn);
}

struct trim {
	struct morsel *morsel;
	struct mrs_txn *txn;
	unsigned since;
	bool backed;
	bool coherent; /* its pages may have properties */
	uint64_t released;
};

/* The table that was kept for the split of a huge leaf that goes. */
void mrs_place_drop_deposit(struct mrs_txn *txn, uint64_t frame)
{
	struct mrs_prop deposit;

	if (!mrs_prop_get(txn->pool, frame, MRS_PROP_DEPOSIT, &deposit))
		return;
	mrs_pool_unback(txn->pool, deposit.value, 1);
	mrs_txn_put_begin(txn, 0, deposit.value);
	MRS_PROBE("place.deposit.named");
	mrs_prop_clear(txn, frame, MRS_PROP_DEPOSIT, NULL);
	mrs_txn_put_end(txn);
}

/* What is known of the frames goes before they do: their slots on swap targets, and kept tables. */
void mrs_place_forget(struct mrs_txn *txn, uint64_t frame, unsigned order)
{
	uint64_t huge = 1ull << MRS_HUGE_ORDER;

	for (uint64_t i = 0; i < 1ull << order; i++)
		mrs_swap_forget(txn, frame + i);
	for (uint64_t i = 0; order >= MRS_HUGE_ORDER && i < 1ull << order; i += huge)
		mrs_place_drop_deposit(txn, frame + i);
	MRS_PROBE("place.forgotten");
}

/* A block is about to go: still linked, nothing pending. */
static void trim_release(void *ctx, uint64_t frame, unsigned order)
{
	struct trim *trim = ctx;

	breathe(trim->txn, &trim->since);
	if (trim->coherent)
		mrs_place_forget(trim->txn, frame, order);
	if (trim->backed)
		mrs_pool_unback(trim->morsel->pool, frame, 1ull << order);
	mrs_fetch_sub(&trim->morsel->record->allocated, 1ull << order);
	trim->released += 1ull << order;
}

struct beyond {
	uint64_t page, pages; /* pages allocated at and beyond page */
};

static int count_beyond(void *ctx, const struct mrs_leaf *entry, bool is_table)
{
	struct beyond *beyond = ctx;
	uint64_t end = entry->page + (1ull << MRS_HUGE_ORDER * entry->level);

	if (end <= beyond->page)
		return is_table ? MRS_TABLE_SKIP : 0;
	if (!is_table)
		beyond->pages += end - mrs_max(entry->page, beyond->page);
	return 0;
}

/*
 * What others have too goes in one piece, of which nobody is told how many pages it has. The tables on
 * the way to its edge are the morsel's own: resize.c.
 */
static int trim_shared(struct trim *trim, uint64_t page)
{
	struct mrs_table *table = &trim->morsel->table;
	struct beyond beyond = {.page = page};
	int rc;

	mrs_table_each_entry(table, count_beyond, &beyond);
	rc = mrs_table_trim(table, trim->txn, page, trim_release, trim);
	if (!rc)
		mrs_fetch_sub(&trim->morsel->record->allocated, beyond.pages - trim->released);
	return rc;
}

static int trim_from(struct trim *trim, uint64_t page)
{
	const struct mrs_state *state = mrs_pool_state(trim->morsel->pool);

	if (trim->coherent && mrs_load_acquire(&state->count[MRS_COUNT_CLONES]) &&
	    mrs_entry_state(mrs_load_acquire(trim->morsel->table.root)) == MRS_ENTRY_TABLE)
		return trim_shared(trim, page);
	return mrs_table_trim(&trim->morsel->table, trim->txn, page, trim_release, trim);
}

void mrs_place_trim(struct morsel *morsel, struct mrs_txn *txn, uint64_t page, bool backed)
{
	static const unsigned coarser[] = {0, MRS_HUGE_ORDER, MRS_GIANT_ORDER};
	struct trim trim = {
		.morsel = morsel,
		.txn = txn,
		.backed = backed,
		.coherent = backed && mrs_morsel_coherence(morsel),
	};

	/* Without a frame for splitting a large page, the large page stays. */
	for (size_t i = 0; i < mrs_array_length(coarser); i++)
		if (trim_from(&trim, mrs_round_up(page, 1ull << coarser[i])) != -ENOSPC)
			return;
}

static int count_leaf(void *ctx, uint64_t frame, uint64_t count, bool is_table)
{
	if (!is_table)
		*(uint64_t *)ctx += count;
	return 0;
}

void mrs_place_recount(struct morsel *morsel)
{
	uint64_t allocated = 0;

	mrs_table_walk(&morsel->table, count_leaf, &allocated);
	mrs_store_release(&morsel->record->allocated, allocated);
}

/* ---- one run ---- */

bool mrs_place_is_free(struct morsel_pool *pool, uint64_t frame, unsigned order)
{
	uint64_t end = frame + (1ull << order);

	if (end > mrs_pool_frames_end(pool))
		return false;
	/* What is not online yet comes online with the first get. */
	if (end > mrs_load_acquire(&mrs_pool_state(pool)->online_end))
		return true;
	return morsel_frames_is_free(mrs_pool_frames(pool), frame, order);
}

static bool is_free(const struct place *p, uint64_t frame, unsigned order)
{
	return mrs_place_is_free(p->morsel->pool, frame, order);
}

/* The largest block that begins at frame, an aligned one, of at most count frames. */
static unsigned block_order(uint64_t frame, uint64_t count)
{
	unsigned order = 63 - __builtin_clzll(count);

	if (frame)
		order = mrs_min(order, (unsigned)__builtin_ctzll(frame));
	return mrs_min(order, MRS_GIANT_ORDER);
}

static void linked(struct place *p, unsigned order)
{
	mrs_fetch_add(&p->morsel->record->allocated, 1ull << order);
	breathe(p->txn, &p->since);
}

/* Extends the run of have pages from base to want, or makes it. -EBUSY where a frame is taken. */
static int run_grow(struct place *p, uint64_t base, uint64_t have, uint64_t want)
{
	while (have < want) {
		unsigned order = block_order(base + have, want - have);
		int rc;

		if (!is_free(p, base + have, order))
			return -EBUSY;
		/* Whatever the reason, this place is not to be had; the next one tells. */
		if (mrs_txn_get_at(p->txn, order, base + have))
			return -EBUSY;
		MRS_PROBE("place.run.got");
		rc = mrs_table_set_run(&p->morsel->table, p->txn, base, have + (1ull << order));
		if (rc) {
			mrs_place_unget(p->txn, order, base + have, false);
			return rc;
		}
		have += 1ull << order;
		linked(p, order);
		MRS_PROBE("place.run.linked");
	}
	return 0;
}

/*
 * The first gap of count frames at or after from, looked at in blocks of 2^step frames, that begins
 * at a multiple of 2^align; 0 if there is none. p->largest grows with what is seen.
 */
static uint64_t find_gap(struct place *p, uint64_t from, uint64_t count, unsigned step,
			 unsigned align)
{
	struct morsel_pool *pool = p->morsel->pool;
	uint64_t first = mrs_max(from, mrs_pool_super(pool)->frame_data);
	uint64_t end = mrs_pool_frames_end(pool);
	uint64_t start = 0;

	for (uint64_t frame = mrs_round_up(first, 1ull << step); frame + (1ull << step) <= end;
	     frame += 1ull << step) {
		uint64_t past = frame + (1ull << step);

		if (!is_free(p, frame, step)) {
			start = 0;
			continue;
		}
		if (!start)
			start = mrs_round_up(frame, 1ull << align);
		if (past > start)
			p->largest = mrs_max(p->largest, past - start);
		if (past >= start + count)
			return start;
	}
	return 0;
}

/* One run in a gap. -ENOSPC without words if there is none. */
static int run_in_gap(struct place *p, unsigned step, unsigned align)
{
	uint64_t from = 0;

	for (unsigned i = 0; i < GAP_TRIES; i++) {
		uint64_t base = find_gap(p, from, p->end, step, align);
		int rc;

		if (!base)
			break;
		rc = run_grow(p, base, 0, p->end);
		if (rc != -EBUSY)
			return rc;
		/* Somebody was quicker: give back and look further on. */
		mrs_place_trim(p->morsel, p->txn, 0, false);
		from = base + 1;
	}
	return -ENOSPC;
}

static enum mrs_frame_class class_of(unsigned order)
{
	return order >= MRS_HUGE_ORDER ? MRS_FRAME_HUGE : MRS_FRAME_MOVABLE;
}

/* One run from one block, for what is smaller than a huge page: first a tight one, then a loose. */
static int run_in_block(struct place *p)
{
	unsigned tight = 63 - __builtin_clzll(p->end);
	unsigned loose = tight + (p->end > 1ull << tight);
	uint64_t frame;
	int rc = -EBUSY;

	if (!mrs_txn_get(p->txn, tight, class_of(tight), 0, &frame)) {
		rc = mrs_table_set_run(&p->morsel->table, p->txn, frame, 1ull << tight);
		if (rc) {
			mrs_place_unget(p->txn, tight, frame, false);
			return rc;
		}
		linked(p, tight);
		rc = run_grow(p, frame, 1ull << tight, p->end);
	}
	if (rc != -EBUSY || loose == tight)
		return rc == -EBUSY ? -ENOSPC : rc;
	mrs_place_trim(p->morsel, p->txn, 0, false);
	if (mrs_txn_get(p->txn, loose, class_of(loose), 0, &frame))
		return -ENOSPC;
	rc = mrs_table_set_run(&p->morsel->table, p->txn, frame, 1ull << loose);
	if (rc) {
		mrs_place_unget(p->txn, loose, frame, false);
		return rc;
	}
	linked(p, loose);
	mrs_place_trim(p->morsel, p->txn, p->end, false);
	return 0;
}

/* The whole of an empty morsel as one run; -ENOSPC without words if no gap is large enough. */
static int place_run(struct place *p)
{
	int rc = -ENOSPC;

	if (p->end < 1u << MRS_HUGE_ORDER)
		return run_in_block(p);
	if (p->granule == MRS_GIANT_ORDER)
		return run_in_gap(p, MRS_HUGE_ORDER, MRS_GIANT_ORDER);
	/* From a multiple of 1 GiB, if it is so large: for giant pages and shared page tables. */
	if (p->end >= 1ull << MRS_GIANT_ORDER)
		rc = run_in_gap(p, MRS_HUGE_ORDER, MRS_GIANT_ORDER);
	return rc == -ENOSPC ? run_in_gap(p, MRS_HUGE_ORDER, MRS_HUGE_ORDER) : rc;
}

static int no_run(struct place *p)
{
	char asked[16], have[16];

	return mrs_fail(-ENOSPC,
			"no %s of contiguous frames are free in the pool %s (the largest gap is "
			"%s): drop MORSEL_CONTIGUOUS, remove morsels or grow the pool",
			mrs_bytes_text((p->end - p->page) * MRS_PAGE_BYTES, asked),
			mrs_pool_path(p->morsel->pool),
			mrs_bytes_text(p->largest * MRS_PAGE_BYTES, have));
}

/* The largest leaf that fits at p->page and this frame. */
static unsigned leaf_order(const struct place *p, uint64_t frame)
{
	uint64_t huge = 1ull << MRS_HUGE_ORDER;

	if (p->morsel->table.small_leaves || (p->page | frame) & (huge - 1) ||
	    p->page + huge > p->end)
		return 0;
	return MRS_HUGE_ORDER;
}

/* The same as run_grow() for a run that has its table already. -EBUSY where a frame is taken. */
static int table_grow(struct place *p, uint64_t base)
{
	struct mrs_table *table = &p->morsel->table;
	int rc = 0;

	while (!rc && p->page < p->end) {
		uint64_t frame = base + p->page;
		unsigned order = leaf_order(p, frame), level = order / MRS_HUGE_ORDER;

		rc = mrs_table_prepare(table, p->txn, p->page, level);
		if (rc)
			return rc;
		if (!is_free(p, frame, order) || mrs_txn_get_at(p->txn, order, frame))
			return -EBUSY;
		rc = mrs_table_set(table, p->txn, p->page, level, frame);
		if (rc) {
			mrs_place_unget(p->txn, order, frame, false);
			return rc;
		}
		linked(p, order);
		p->page += 1ull << order;
	}
	return rc;
}

/* Growth: the run becomes longer where it is, or not at all. */
static int grow_in_place(struct place *p)
{
	uint64_t root = mrs_load_acquire(&p->morsel->record->root);
	struct mrs_run run;
	int rc;

	if (mrs_entry_state(root) == MRS_ENTRY_MAPPED)
		return run_grow(p, mrs_entry_frame(root),
				mrs_load_relaxed(&p->morsel->record->run_pages), p->end);
	rc = mrs_table_lookup(&p->morsel->table, 0, p->page, &run);
	if (rc)
		return rc;
	return run.mapped && run.pages == p->page ? table_grow(p, run.frame) : -EBUSY;
}

static int place_contiguous(struct place *p)
{
	int rc;

	if (p->page) {
		rc = grow_in_place(p);
		return rc == -EBUSY ? no_run(p) : rc;
	}
	rc = place_run(p);
	if (rc == -ENOSPC && p->granule == 0)
		rc = run_in_gap(p, 0, 0);
	return rc == -ENOSPC ? no_run(p) : rc;
}

/* ---- pieces ---- */

/* A block of the order: beside the last one, if that place is free. */
static int get_block(struct place *p, unsigned order, uint64_t *frame)
{
	uint64_t hint = p->hint;

	if (hint && !(hint & ((1ull << order) - 1)) && is_free(p, hint, order) &&
	    !mrs_txn_get_at(p->txn, order, hint)) {
		*frame = hint;
		return 0;
	}
	return mrs_txn_get(p->txn, order, class_of(order), hint, frame);
}

/* One leaf of the order at page. */
static int place_leaf(struct place *p, uint64_t page, unsigned order)
{
	unsigned level = order / MRS_HUGE_ORDER;
	uint64_t frame;
	int rc = mrs_table_prepare(&p->morsel->table, p->txn, page, level);

	if (rc)
		return rc;
	rc = get_block(p, order, &frame);
	if (rc)
		return rc;
	MRS_PROBE("place.leaf.got");
	rc = mrs_table_set(&p->morsel->table, p->txn, page, level, frame);
	if (rc) {
		mrs_place_unget(p->txn, order, frame, false);
		return rc;
	}
	p->hint = frame + (1ull << order);
	linked(p, order);
	MRS_PROBE("place.leaf.linked");
	return 0;
}

int mrs_place_leaf(struct morsel *morsel, struct mrs_txn *txn, uint64_t page, unsigned order,
		   uint64_t *hint)
{
	struct place p = {.morsel = morsel, .txn = txn, .hint = *hint};
	int rc = place_leaf(&p, page, order);

	*hint = p.hint;
	return rc;
}

/* The largest order that may stand at p->page, in a hole of this many pages. */
static unsigned piece_order(const struct place *p, uint64_t hole)
{
	unsigned order = p->max_order;

	while (order > p->granule && (p->page & ((1ull << order) - 1) || hole < 1ull << order))
		order -= MRS_HUGE_ORDER;
	return order;
}

static int place_piece(struct place *p, uint64_t hole)
{
	unsigned order = piece_order(p, hole);
	int rc;

	while ((rc = place_leaf(p, p->page, order)) == -ENOSPC && order > p->granule) {
		order -= MRS_HUGE_ORDER;
		p->max_order = order;
	}
	if (!rc)
		p->page += 1ull << order;
	return rc;
}

static int place_pieces(struct place *p)
{
	while (p->page < p->end) {
		struct mrs_run run;
		int rc = mrs_table_lookup(&p->morsel->table, p->page, p->end - p->page, &run);

		if (rc)
			return rc;
		if (run.mapped) {
			p->page += run.pages;
			p->hint = run.frame + run.pages;
			continue;
		}
		rc = place_piece(p, run.pages);
		if (rc)
			return rc;
	}
	return 0;
}

/* ---- scattered ---- */

static uint64_t next_random(uint64_t *state)
{
	/* xorshift64 (Marsaglia, 2003) */
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* The numbers below count in random order, the same for the same seed. */
static uint64_t *shuffled(uint64_t count, uint64_t seed)
{
	uint64_t *order = malloc(count * sizeof(*order));
	uint64_t state = seed * 0x9e3779b97f4a7c15ull | 1;

	if (!order)
		return NULL;
	for (uint64_t i = 0; i < count; i++) {
		uint64_t j = next_random(&state) % (i + 1);

		order[i] = order[j];
		order[j] = i;
	}
	return order;
}

/* Frames as they come, to pages in random order. */
static int place_scattered(struct place *p)
{
	unsigned order = p->granule;
	uint64_t first = p->page, units, *pages;
	int rc = 0;

	if (mrs_pages_of(p->morsel->record->state) == MORSEL_PAGES_MIXED &&
	    p->end - first >= 1u << MRS_HUGE_ORDER && !(first & ((1u << MRS_HUGE_ORDER) - 1)))
		order = MRS_HUGE_ORDER;
	units = (p->end - first) >> order;
	pages = shuffled(units, p->morsel->record->id);
	if (!pages)
		return mrs_fail(-ENOMEM, "no memory to shuffle %llu pages",
				(unsigned long long)units);
	for (uint64_t i = 0; !rc && i < units; i++)
		rc = place_leaf(p, first + (pages[i] << order), order);
	free(pages);
	p->hint = 0;
	return rc ? rc : place_pieces(p);
}

static int place_anywhere(struct place *p)
{
	uint64_t root = mrs_load_acquire(&p->morsel->record->root);
	int rc = -EBUSY;

	if (!root && !p->page) {
		rc = place_run(p);
		if (rc != -ENOSPC)
			return rc;
		mrs_place_trim(p->morsel, p->txn, 0, false);
	} else if (mrs_entry_state(root) == MRS_ENTRY_MAPPED) {
		uint64_t had = mrs_load_relaxed(&p->morsel->record->run_pages);

		/* In place, as far as it goes; a granule that is not whole goes back. */
		rc = had < p->end ? run_grow(p, mrs_entry_frame(root), had, p->end) : 0;
		if (rc != -EBUSY)
			return rc;
		had = mrs_load_relaxed(&p->morsel->record->run_pages);
		mrs_place_trim(p->morsel, p->txn, mrs_round_down(had, 1ull << p->granule), false);
	}
	return place_pieces(p);
}

int mrs_place(struct morsel *morsel, struct mrs_txn *txn, uint64_t first, uint64_t end)
{
	uint64_t state = mrs_load_relaxed(&morsel->record->state);
	uint64_t granule = mrs_record_granule(morsel->pool, state);
	struct place p = {
		.morsel = morsel,
		.txn = txn,
		.page = first,
		.end = end,
		.granule = __builtin_ctzll(granule),
		.max_order = __builtin_ctzll(granule),
	};

	bool evictable = mrs_morsel_is_evictable(morsel);
	int rc;

	if (first >= end)
		return 0;
	if (mrs_pages_of(state) == MORSEL_PAGES_MIXED)
		p.max_order = evictable ? MRS_HUGE_ORDER : MRS_GIANT_ORDER;
	if (mrs_flags_of(state) & MORSEL_CONTIGUOUS)
		rc = place_contiguous(&p);
	else if (mrs_flags_of(state) & MORSEL_SCATTERED)
		rc = place_scattered(&p);
	else
		rc = place_anywhere(&p);
	/* Sooner than at the first retarget, which would have to take the record's lock for it. */
	return !rc && evictable ? mrs_place_shape(morsel, txn) : rc;
}

int mrs_place_shape(struct morsel *morsel, struct mrs_txn *txn)
{
	return mrs_table_expand(&morsel->table, txn);
}

/* ---- memory ---- */

static unsigned back_flags(const struct morsel *morsel)
{
	return mrs_pages_of(morsel->record->state) == MORSEL_PAGES_4K ? 0 : MRS_BACK_HUGE;
}

struct back {
	struct morsel *morsel;
	struct mrs_txn *txn;
};

static int back_run(void *ctx, const struct mrs_run *run)
{
	struct back *back = ctx;

	for (uint64_t at = 0; run->mapped && at < run->pages;) {
		/* Up to a boundary, so that every huge block is reserved as a whole. */
		uint64_t frame = run->frame + at;
		uint64_t past = mrs_round_down(frame + BACK_FRAMES, BACK_FRAMES);
		uint64_t count = mrs_min(past - frame, run->pages - at);
		int rc = mrs_pool_back(back->txn, frame, count, back_flags(back->morsel), NULL);

		if (rc)
			return rc;
		MRS_PROBE("place.back.chunk");
		mrs_txn_pause(back->txn);
		at += count;
	}
	return 0;
}

int mrs_place_back(struct morsel *morsel, struct mrs_txn *txn, uint64_t first, uint64_t end)
{
	struct back back = {.morsel = morsel, .txn = txn};

	return mrs_table_each_run(&morsel->table, first, end - first, back_run, &back);
}
