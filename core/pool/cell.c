/*
 * Cells: 128-byte records that processes claim and free without a lock.
 *
 *          get: note, CAS           commit                 put: CAS          zero, CAS
 *   FREE ------------------> CLAIMED ------> DIRENT, ... ------> CLEARING ----------> FREE
 *                              `------------------------------------^
 *
 * 1. Each claim draws a number of its own from state.generation and uses it for one cell at most,
 * so no two claims ever make the same handle. A handle that was noted before the claim therefore
 *    means the noter's cell or nothing, also to a reaper who reads the note much later.
 * 2. The note is written before the compare-and-swap that claims. Death before that CAS leaves a
 * note that means nothing; death after it leaves a CLAIMED cell with the dead slot in its header.
 * 3. A cell is cleared between leaving its kind and becoming FREE, in a state that only the one who
 *    won the CAS to CLEARING leaves. So a FREE cell is zero, a fresh claim never shows old content
 * to a reaper, and two puts of one handle cannot clear a cell that has been claimed since.
 * 4. Readers without a claim (the directory's) read header, fields, header. Whoever clears or fills
 *    changed the header first, and stores each field with release order: a reader that sees such a
 *    store (acquire) sees the changed header when it looks again.
 * 5. Generations wrap after 2^31 claims. A handle would have to be kept across exactly that many,
 * and the same cell be hit, to be taken for current.
 *
 * Finding a free cell is constant time on average: the cell freed last (cells_hint); else, when at
 * least one cell in eight below cells_high is free, the next free one after this handle's cursor;
 * else the cell at cells_high, which grows. So at most about an eighth of the cells lies idle.
 */
#include <errno.h>

#include "base/probe.h"
#include "pool/dir_internal.h"

#define FREE_SHARE 8 /* look for free cells when one in so many is free */

static unsigned segment_shift(const struct mrs_cells *cells)
{
	return cells->segment_order + MRS_CELLS_PER_FRAME_SHIFT;
}

uint64_t mrs_cells_max(const struct mrs_cells *cells)
{
	uint64_t max = (uint64_t)MRS_CELL_SEGMENTS_MAX << segment_shift(cells);

	return mrs_min(max, 1ull << 31);
}

uint64_t mrs_cells_high(const struct mrs_cells *cells)
{
	/* Pairs with the CAS in claim_fresh(): cells below have a segment. */
	uint64_t high = mrs_load_acquire(&cells->state->cells_high);

	return mrs_min(high, mrs_cells_max(cells));
}

uint64_t *mrs_cell_header(const struct mrs_cells *cells, uint64_t index)
{
	uint64_t segment = index >> segment_shift(cells), frame;
	char *memory;

	if (index >= mrs_cells_max(cells))
		return NULL;
	/* Pairs with the CAS in segment_add(): the segment is zeroed. */
	frame = mrs_load_acquire(&cells->segments[segment]);
	if (!frame)
		return NULL;
	memory = cells->ops->at(cells->ctx, frame, cells->segment_order);
	if (!memory)
		return NULL;
	index &= (1ull << segment_shift(cells)) - 1;
	return (uint64_t *)(memory + index * MRS_CELL_BYTES);
}

void *mrs_cell_at(struct mrs_cells *cells, mrs_cell cell, enum mrs_cell_kind kind)
{
	uint64_t *header =
		mrs_handle_generation(cell) ? mrs_cell_header(cells, mrs_handle_index(cell)) : NULL;
	uint64_t seen;

	if (!header)
		return NULL;
	/* Pairs with the CAS in mrs_cell_commit(): the fields are filled. */
	seen = mrs_load_acquire(header);
	if (mrs_header_kind(seen) != kind ||
	    mrs_header_generation(seen) != mrs_handle_generation(cell))
		return NULL;
	return header;
}

bool mrs_cell_is_current(struct mrs_cells *cells, mrs_cell cell, enum mrs_cell_kind kind)
{
	return mrs_cell_at(cells, cell, kind) != NULL;
}

/* ---- claiming ---- */

static uint64_t generation_next(struct mrs_cells *cells)
{
	uint64_t generation;

	do {
		generation = mrs_fetch_add(&cells->state->generation, 1) & MRS_GENERATION_MASK;
	} while (!generation);
	return generation;
}

/* A claim under way: what it may call itself, and where it is noted. */
struct claim {
	struct mrs_cells *cells;
	uint64_t generation;
	uint64_t *note;
	mrs_cell cell; /* the result */
};

/* Claims the cell with this index if it is free. -EBUSY if not, -EUCLEAN if it does not exist. */
static int claim_at(struct claim *claim, uint64_t index)
{
	uint64_t *header = mrs_cell_header(claim->cells, index), seen;

	if (!header)
		return -EUCLEAN;
	seen = mrs_load_acquire(header);
	if (mrs_header_kind(seen) != MRS_CELL_FREE)
		return -EBUSY;
	claim->cell = mrs_handle_make(index, claim->generation);
	mrs_store_release(claim->note, claim->cell); /* before the claim: for a reaper */
	MRS_PROBE("cell.get.noted");
	if (!mrs_cas(header, &seen,
		     mrs_header_make(MRS_CELL_CLAIMED, claim->cells->owner + 1, claim->generation)))
		return -EBUSY;
	MRS_PROBE("cell.get.claimed");
	return 0;
}

static int claim_old(struct claim *claim, uint64_t index)
{
	int rc = claim_at(claim, index);

	if (!rc)
		mrs_fetch_sub(&claim->cells->state->cells_free, 1);
	return rc;
}

static int claim_hinted(struct claim *claim)
{
	struct mrs_state *state = claim->cells->state;
	uint64_t hint = mrs_load_relaxed(&state->cells_hint); /* only a hint: no order needed */

	return hint < mrs_cells_high(claim->cells) ? claim_old(claim, hint) : -EBUSY;
}

/* One round over all cells, from the cursor on. */
static int claim_found(struct claim *claim)
{
	struct mrs_cells *cells = claim->cells;
	uint64_t high = mrs_cells_high(cells);
	uint64_t from = mrs_load_relaxed32(&cells->cursor); /* a hint: no order needed */

	for (uint64_t i = 0; i < high; i++) {
		uint64_t index = (from + i) % high;

		if (claim_old(claim, index))
			continue;
		mrs_store_relaxed32(&cells->cursor, (uint32_t)(index + 1));
		return 0;
	}
	return -EBUSY;
}

/* Is one cell in FREE_SHARE free, so that the round costs FREE_SHARE steps for each that it finds?
 */
static bool look_is_worth_it(struct mrs_cells *cells)
{
	uint64_t high = mrs_cells_high(cells);
	int64_t free_cells = (int64_t)mrs_load_relaxed(&cells->state->cells_free);
	uint32_t barren = mrs_load_relaxed32(&cells->barren);

	if (barren) {
		mrs_store_relaxed32(&cells->barren, barren - 1);
		return false;
	}
	return free_cells > 0 && (uint64_t)free_cells * FREE_SHARE >= high;
}

/* A round that found nothing is not repeated before as many claims as make it cheap. */
static int claim_if_worth_it(struct claim *claim)
{
	struct mrs_cells *cells = claim->cells;

	if (!look_is_worth_it(cells))
		return -EBUSY;
	if (!claim_found(claim))
		return 0;
	mrs_store_relaxed32(&cells->barren, (uint32_t)(mrs_cells_high(cells) / FREE_SHARE));
	return -EBUSY;
}

/* Sees to it that segment exists. The loser of the race to add it gives its own back. */
static int segment_add(struct mrs_cells *cells, void *txn, uint64_t segment)
{
	uint64_t frame, none = 0;
	int rc;

	if (mrs_load_acquire(&cells->segments[segment]))
		return 0;
	rc = cells->ops->segment_get(cells->ctx, txn, cells->segment_order, &frame);
	if (rc)
		return rc;
	MRS_PROBE("cell.segment.taken");
	/* Pairs with the load in mrs_cell_header(). */
	if (!mrs_cas(&cells->segments[segment], &none, frame)) {
		cells->ops->segment_put(cells->ctx, txn, cells->segment_order, frame);
		return 0;
	}
	MRS_PROBE("cell.segment.listed");
	cells->ops->settle(cells->ctx, txn);
	return 0;
}

/* The cell at cells_high. It counts as used from the growth on, so that every walk sees it. */
static int claim_fresh(struct claim *claim, void *txn)
{
	struct mrs_cells *cells = claim->cells;
	uint64_t high = mrs_load_acquire(&cells->state->cells_high);

	for (;;) {
		int rc;

		if (high >= mrs_cells_max(cells))
			return mrs_fail(
				-ENOSPC,
				"the pool's directory is full: it holds at most %llu cells of "
				"%u bytes, two or more for each morsel; unlink morsels, or "
				"spread them over several pools",
				(unsigned long long)mrs_cells_max(cells), MRS_CELL_BYTES);
		rc = segment_add(cells, txn, high >> segment_shift(cells));
		if (rc)
			return rc;
		if (!mrs_cas(&cells->state->cells_high, &high, high + 1))
			continue;
		MRS_PROBE("cell.get.grown");
		rc = claim_at(claim, high);
		if (rc == -EUCLEAN)
			return mrs_fail(
				-EUCLEAN,
				"the pool is damaged: cell segment %llu lies outside it; run "
				"\"morsel pool check\"",
				(unsigned long long)(high >> segment_shift(cells)));
		if (!rc)
			return 0;
		/* Someone looking for free cells was quicker, and counted it as taken from these.
		 */
		mrs_fetch_add(&cells->state->cells_free, 1);
		high++;
	}
}

int mrs_cell_get(struct mrs_cells *cells, void *txn, uint64_t *note, mrs_cell *cell)
{
	struct claim claim = {.cells = cells, .note = note};
	int rc;

	claim.generation = generation_next(cells);
	rc = claim_hinted(&claim);
	if (rc)
		rc = claim_if_worth_it(&claim);
	if (rc)
		rc = claim_fresh(&claim, txn);
	if (rc && !claim_found(&claim)) /* what is there is better than an error */
		rc = 0;
	if (rc)
		mrs_store_release(note, 0);
	else
		*cell = claim.cell;
	return rc;
}

void mrs_cell_commit(struct mrs_cells *cells, mrs_cell cell, enum mrs_cell_kind kind)
{
	uint64_t *header = mrs_cell_at(cells, cell, MRS_CELL_CLAIMED), seen;

	if (!header)
		return;
	/* Whoever claimed it: a repair commits for the dead. */
	seen = mrs_load_acquire(header);
	if (mrs_header_kind(seen) != MRS_CELL_CLAIMED ||
	    mrs_header_generation(seen) != mrs_handle_generation(cell))
		return;
	/* Release: who sees the kind sees the fields. Pairs with the load in mrs_cell_at(). */
	mrs_cas(header, &seen, mrs_header_make(kind, 0, mrs_handle_generation(cell)));
}

/* ---- freeing ---- */

static void clear_and_free(struct mrs_cells *cells, uint64_t *header, uint64_t clearing,
			   uint64_t index)
{
	mrs_zero_release(header + 1, MRS_CELL_BYTES / 8 - 1); /* see 4 */
	MRS_PROBE("cell.put.cleared");
	/* Release: who claims it finds it zero. */
	if (!mrs_cas(header, &clearing,
		     mrs_header_make(MRS_CELL_FREE, 0, mrs_header_generation(clearing))))
		return;
	MRS_PROBE("cell.put.freed");
	mrs_fetch_add(&cells->state->cells_free, 1);
	mrs_store_relaxed(&cells->state->cells_hint, index); /* only a hint: no order needed */
}

void mrs_cell_put(struct mrs_cells *cells, mrs_cell cell)
{
	uint64_t generation = mrs_handle_generation(cell);
	uint64_t *header = generation ? mrs_cell_header(cells, mrs_handle_index(cell)) : NULL;
	uint64_t clearing = mrs_header_make(MRS_CELL_CLEARING, cells->owner + 1, generation);
	uint64_t seen = header ? mrs_load_acquire(header) : 0;

	if (!header)
		return;
	do {
		if (mrs_header_generation(seen) != generation ||
		    mrs_header_kind(seen) == MRS_CELL_FREE ||
		    mrs_header_kind(seen) == MRS_CELL_CLEARING)
			return;
	} while (!mrs_cas(header, &seen, clearing));
	MRS_PROBE("cell.put.clearing");
	clear_and_free(cells, header, clearing, mrs_handle_index(cell));
}

/* ---- walking and repairing ---- */

int mrs_cell_each(struct mrs_cells *cells, enum mrs_cell_kind kind,
		  int (*fn)(void *ctx, mrs_cell cell, void *memory), void *ctx)
{
	uint64_t high = mrs_cells_high(cells);

	for (uint64_t index = 0; index < high; index++) {
		uint64_t *header = mrs_cell_header(cells, index);
		uint64_t seen = header ? mrs_load_acquire(header) : 0;
		int rc;

		if (!header || mrs_header_kind(seen) != kind)
			continue;
		rc = fn(ctx, mrs_handle_make(index, mrs_header_generation(seen)), header);
		if (rc)
			return rc;
	}
	return 0;
}

/* What a dead slot left of one cell: true if it has been freed now. */
static bool reap_cell(struct mrs_cells *cells, uint64_t *header, uint64_t seen, uint64_t index,
		      unsigned *walks)
{
	mrs_cell cell = mrs_handle_make(index, mrs_header_generation(seen));

	if (mrs_header_kind(seen) == MRS_CELL_CLEARING) {
		clear_and_free(cells, header, seen, index);
		return true;
	}
	if (mrs_dir_node_is_linked(cells, cell, walks)) {
		mrs_cas(header, &seen,
			mrs_header_make(MRS_CELL_NODE, 0, mrs_header_generation(seen)));
		return false;
	}
	mrs_cell_put(cells, cell);
	return true;
}

unsigned mrs_cells_reap(struct mrs_cells *cells, unsigned slot)
{
	uint64_t high = mrs_cells_high(cells), free_cells = 0;
	unsigned freed = 0, walks = 4 * MRS_INTENTS_PER_SLOT;

	for (uint64_t index = 0; index < high; index++) {
		uint64_t *header = mrs_cell_header(cells, index);
		uint64_t seen = header ? mrs_load_acquire(header) : 0;
		enum mrs_cell_kind kind = mrs_header_kind(seen);

		if (!header) {
			/* No segment there (a damaged count): on to the next one. */
			index |= ((MRS_PAGE_BYTES << cells->segment_order) / MRS_CELL_BYTES) - 1;
			continue;
		}
		if ((kind == MRS_CELL_CLAIMED || kind == MRS_CELL_CLEARING) &&
		    mrs_header_owner_plus_1(seen) == slot + 1)
			freed += reap_cell(cells, header, seen, index, &walks);
		free_cells += mrs_header_kind(mrs_load_acquire(header)) == MRS_CELL_FREE;
	}
	/* Nobody else claims or frees now: what the dead one did not count is counted here. */
	mrs_store_relaxed(&cells->state->cells_free, free_cells);
	return freed;
}
