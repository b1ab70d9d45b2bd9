/*
 * Quarantine: numbers of frames that a page has left, and that somebody may still have mapped.
 *
 *  1 The cell is claimed and filled while the page is still on the frame; the intent notes it.
 *    Every process with a view of the page has a bit in it.
 *
 *  2 The page's entry names the new frame; the cell is committed; the old frame's memory is punched
 *    away. From here on a touch of an old mapping is a fault, which maps the new frame instead.
 *
 *  3 A bit goes when no view of that process lags behind any more (its cell in the registry counts
 *    the moves that it has followed), or when the process is dead. Without bits the number is free.
 *
 * Death: before 2 the cell is freed with the dead's claims; from the link on,
 * mrs_quarantine_repair() finishes 2, and counts the move if the dead has not. Who dies giving a
 * number back leaves it named by its put, and maybe the cell; while the cell is there the number is
 * in use, and is given back by the next sweep.
 */
#include <errno.h>
#include <time.h>

#include "object/internal.h"
#include "object/share.h"
#include "view/mailbox.h"
#include "view/registry.h"

#define ORDER_SHIFT 48

static uint64_t frame_of(const struct mrs_cell_quarantine *cell)
{
	return mrs_load_acquire(&cell->frame) & ((1ull << ORDER_SHIFT) - 1);
}

static unsigned order_of(const struct mrs_cell_quarantine *cell)
{
	return mrs_load_acquire(&cell->frame) >> ORDER_SHIFT & 31;
}

static void count(struct morsel_pool *pool, enum mrs_counter which, uint64_t n)
{
	mrs_fetch_add(&mrs_pool_state(pool)->count[which], n);
}

/* ---- in ---- */

static int add_slot(void *ctx, const struct mrs_seen_view *view)
{
	struct mrs_cell_quarantine *cell = ctx;

	if (view->record == cell->record && view->flags & MRS_VIEW_CPU)
		cell->slots[view->slot / 64] |= 1ull << view->slot % 64;
	return 0;
}

int mrs_quarantine_claim(struct mrs_txn *txn, struct morsel *morsel, uint64_t page, uint64_t frame,
			 unsigned order)
{
	struct mrs_cells *cells = mrs_pool_cells(txn->pool);
	struct mrs_cell_quarantine *at;
	struct timespec now;
	mrs_cell cell;
	int rc = mrs_cell_get(cells, txn, &txn->intent->cell[1], &cell);

	if (rc)
		return rc;
	clock_gettime(CLOCK_MONOTONIC, &now);
	at = mrs_cell_at(cells, cell, MRS_CELL_CLAIMED);
	at->frame = frame | (uint64_t)order << ORDER_SHIFT;
	at->record = morsel->cell;
	at->page = page;
	at->since_ns = (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
	mrs_registry_each(txn->pool, mrs_load_acquire(&mrs_morsel_coherence(morsel)->family), page,
			  page + (1ull << order), add_slot, at);
	MRS_PROBE("quarantine.claimed");
	return 0;
}

void mrs_quarantine_unclaim(struct mrs_txn *txn)
{
	mrs_cell_put(mrs_pool_cells(txn->pool), txn->intent->cell[1]);
	mrs_store_release(&txn->intent->cell[1], 0);
}

void mrs_quarantine_enter(struct mrs_txn *txn)
{
	struct mrs_cells *cells = mrs_pool_cells(txn->pool);
	mrs_cell cell = txn->intent->cell[1];
	struct mrs_cell_quarantine *at = mrs_cell_at(cells, cell, MRS_CELL_CLAIMED);
	unsigned order = order_of(at);

	mrs_cell_commit(cells, cell, MRS_CELL_QUARANTINE);
	MRS_PROBE("quarantine.committed");
	mrs_pool_unback(txn->pool, frame_of(at), 1ull << order);
	MRS_PROBE("quarantine.punched");
	count(txn->pool, MRS_COUNT_QUARANTINED, 1ull << order);
}

static struct mrs_cell_quarantine *entered(struct mrs_txn *txn)
{
	return mrs_cell_at(mrs_pool_cells(txn->pool), mrs_load_acquire(&txn->intent->cell[1]),
			   MRS_CELL_QUARANTINE);
}

void mrs_quarantine_number(struct mrs_txn *txn, uint64_t move)
{
	struct mrs_cell_quarantine *at = entered(txn);

	if (at)
		mrs_store_release(&at->move, move);
}

/* Whoever still shows the old number has missed one more move than he may think. */
static void count_for_the_dead(struct mrs_txn *txn)
{
	struct mrs_cell_quarantine *at = entered(txn);
	struct mrs_cell_coherence *coherence;
	struct morsel morsel;

	if (!at || mrs_load_acquire(&at->move) || !mrs_handle_init(&morsel, txn->pool, at->record))
		return;
	coherence = mrs_morsel_coherence(&morsel);
	if (coherence)
		mrs_store_release(&at->move, mrs_fetch_add(&coherence->moves, 1) + 1);
}

void mrs_quarantine_repair(struct mrs_txn *txn, uint64_t linked)
{
	struct mrs_cells *cells = mrs_pool_cells(txn->pool);
	mrs_cell cell = mrs_load_acquire(&txn->intent->cell[1]);
	struct mrs_cell_quarantine *at;

	if (!cell)
		return;
	at = mrs_cell_at(cells, cell, MRS_CELL_CLAIMED);
	if (at && at->frame && frame_of(at) != linked) {
		mrs_quarantine_enter(txn);
		count_for_the_dead(txn);
		return;
	}
	at = mrs_cell_at(cells, cell, MRS_CELL_QUARANTINE);
	if (!at || frame_of(at) == linked)
		return;
	mrs_pool_unback(txn->pool, frame_of(at), 1ull << order_of(at));
	count_for_the_dead(txn);
}

/* ---- out ---- */

struct lag {
	struct morsel_pool *pool;
	uint64_t record;
	uint64_t moves; /* of the morsel */
	uint64_t slots[MRS_SLOTS / 64];
};

static int find_lagging(void *ctx, const struct mrs_seen_view *view)
{
	struct lag *lag = ctx;

	if (view->record == lag->record && view->flags & MRS_VIEW_CPU && view->moves != lag->moves)
		lag->slots[view->slot / 64] |= 1ull << view->slot % 64;
	return 0;
}

/* Takes the bits of those out who have followed; true if nobody is left. */
static bool is_over(struct morsel_pool *pool, struct mrs_cell_quarantine *cell)
{
	struct lag lag = {.pool = pool, .record = mrs_load_acquire(&cell->record)};
	uint64_t page = mrs_load_acquire(&cell->page), left = 0;
	struct mrs_cell_coherence *coherence = NULL;
	struct morsel morsel;

	if (mrs_handle_init(&morsel, pool, lag.record))
		coherence = mrs_morsel_coherence(&morsel);
	if (coherence) {
		lag.moves = mrs_load_acquire(&coherence->moves);
		mrs_registry_each(pool, mrs_load_acquire(&coherence->family), page,
				  page + (1ull << order_of(cell)), find_lagging, &lag);
	}
	for (size_t i = 0; i < mrs_array_length(lag.slots); i++)
		left |= mrs_fetch_and(&cell->slots[i], lag.slots[i]) & lag.slots[i];
	return !left;
}

/* Is whoever has claimed the cell inside the transition that he claimed it in? */
static bool is_claimed(struct morsel_pool *pool, uint64_t claim)
{
	const struct mrs_intent *intent;
	uint64_t index = (claim & 0xffff) - 1;

	if (!claim || index >= MRS_SLOTS * MRS_INTENTS_PER_SLOT)
		return false;
	intent = &mrs_pool_slot(pool, index / MRS_INTENTS_PER_SLOT)
			  ->intent[index % MRS_INTENTS_PER_SLOT];
	return mrs_load_acquire32(&intent->op) != MRS_INTENT_NONE &&
	       mrs_load_acquire(&intent->serial) << 16 == (claim & ~0xffffull);
}

/* One of those who sweep gives it back; if he dies at it, another one. */
static bool claim(struct mrs_txn *txn, struct mrs_cell_quarantine *cell)
{
	uint64_t seen = mrs_load_acquire(&cell->claim);

	return !is_claimed(txn->pool, seen) &&
	       mrs_cas(&cell->claim, &seen, txn->intent->serial << 16 | (txn->index + 1));
}

/* The number is free again: named by the put before the cell goes. */
static bool release(struct morsel_pool *pool, mrs_cell cell)
{
	struct mrs_cells *cells = mrs_pool_cells(pool);
	struct mrs_cell_quarantine *at;
	struct mrs_txn txn;
	uint64_t frame;
	unsigned order;

	if (mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn))
		return false;
	at = mrs_cell_at(cells, cell, MRS_CELL_QUARANTINE);
	if (!at || !claim(&txn, at) || !mrs_cell_is_current(cells, cell, MRS_CELL_QUARANTINE)) {
		mrs_txn_end(&txn);
		return false;
	}
	frame = frame_of(at);
	order = order_of(at);
	mrs_place_forget(&txn, frame, order);
	mrs_pool_unback(pool, frame, 1ull << order);
	mrs_txn_put_begin(&txn, order, frame);
	MRS_PROBE("quarantine.releasing");
	mrs_cell_put(cells, cell);
	MRS_PROBE("quarantine.released");
	mrs_txn_put_end(&txn);
	mrs_txn_end(&txn);
	count(pool, MRS_COUNT_QUARANTINE_FREED, 1ull << order);
	return true;
}

struct sweep {
	struct morsel_pool *pool;
	uint64_t left; /* frames */
};

static int sweep_cell(void *ctx, mrs_cell cell, void *memory)
{
	struct mrs_cell_quarantine *at = memory;
	struct sweep *sweep = ctx;
	uint64_t frames = 1ull << order_of(at);

	if (!is_over(sweep->pool, at) || !release(sweep->pool, cell))
		sweep->left += frames;
	return 0;
}

uint64_t mrs_quarantine_sweep(struct morsel_pool *pool)
{
	struct sweep sweep = {.pool = pool};

	mrs_cell_each(mrs_pool_cells(pool), MRS_CELL_QUARANTINE, sweep_cell, &sweep);
	return sweep.left;
}

struct forget {
	unsigned slot;
};

static int forget_cell(void *ctx, mrs_cell cell, void *memory)
{
	const struct forget *forget = ctx;
	struct mrs_cell_quarantine *at = memory;

	mrs_fetch_and(&at->slots[forget->slot / 64], ~(1ull << forget->slot % 64));
	return 0;
}

void mrs_quarantine_forget(struct morsel_pool *pool, unsigned slot)
{
	struct forget forget = {slot};

	mrs_cell_each(mrs_pool_cells(pool), MRS_CELL_QUARANTINE, forget_cell, &forget);
}

/* ---- who lags behind ---- */

#define HURRY_NS      20000000ll
#define HURRY_RECORDS 16u /* asked about at once: the others the next time */

struct hurry {
	struct morsel_pool *pool;
	unsigned count;
	uint64_t record[HURRY_RECORDS];
	struct mrs_slot_set who[HURRY_RECORDS];
};

static int add_lagging(void *ctx, const struct mrs_seen_view *view)
{
	struct hurry *hurry = ctx;
	const struct mrs_cell_coherence *coherence;
	struct morsel morsel;
	unsigned i = 0;

	if (!(view->flags & MRS_VIEW_CPU) || view->flags & MRS_VIEW_POOLED ||
	    !mrs_handle_init(&morsel, hurry->pool, view->record))
		return 0;
	coherence = mrs_morsel_coherence(&morsel);
	if (!coherence || mrs_load_acquire(&coherence->moves) == view->moves)
		return 0;
	while (i < hurry->count && hurry->record[i] != view->record)
		i++;
	if (i == HURRY_RECORDS)
		return 0;
	hurry->record[i] = view->record;
	hurry->count = mrs_max(hurry->count, i + 1);
	mrs_slot_set_add(&hurry->who[i], view->slot);
	return 0;
}

/* Who was silent is not asked about the next morsel. */
static void leave_out(struct hurry *hurry, unsigned from, const struct mrs_slot_set *silent)
{
	for (unsigned i = from; i < hurry->count; i++)
		for (size_t k = 0; k < mrs_array_length(silent->bit); k++)
			hurry->who[i].bit[k] &= ~silent->bit[k];
}

void mrs_quarantine_hurry(struct morsel_pool *pool)
{
	struct hurry hurry = {.pool = pool};
	struct mrs_slot_set silent;
	struct mrs_txn txn;
	bool quiet;

	mrs_registry_all(pool, add_lagging, &hurry);
	if (!hurry.count || mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn))
		return;
	quiet = mrs_fail_quietly(true);
	for (unsigned i = 0; i < hurry.count; i++) {
		mrs_mail_ask(&txn, &hurry.who[i], MRS_REQUEST_REMAP, hurry.record[i], 0,
			     UINT64_MAX >> 1, 0, HURRY_NS, &silent);
		leave_out(&hurry, i + 1, &silent);
	}
	mrs_fail_quietly(quiet);
	mrs_txn_end(&txn);
}

struct left {
	uint64_t record;
	unsigned slot;
	int (*fn)(void *ctx, const struct mrs_left *left);
	void *ctx;
};

static int left_in_cell(void *ctx, mrs_cell cell, void *memory)
{
	const struct mrs_cell_quarantine *at = memory;
	const struct left *left = ctx;
	struct mrs_left found = {.page = mrs_load_acquire(&at->page),
				 .pages = 1ull << order_of(at),
				 .move = mrs_load_acquire(&at->move)};

	if (mrs_load_acquire(&at->record) != left->record ||
	    !(mrs_load_acquire(&at->slots[left->slot / 64]) >> left->slot % 64 & 1))
		return 0;
	return left->fn(left->ctx, &found);
}

int mrs_quarantine_left(struct morsel_pool *pool, uint64_t record,
			int (*fn)(void *ctx, const struct mrs_left *left), void *ctx)
{
	struct left left = {
		.record = record, .slot = mrs_pool_own_slot(pool), .fn = fn, .ctx = ctx};

	return mrs_cell_each(mrs_pool_cells(pool), MRS_CELL_QUARANTINE, left_in_cell, &left);
}

/* ---- looking ---- */

struct each {
	int (*fn)(void *ctx, uint64_t frame, uint64_t count, const char *by);
	void *ctx;
};

static int each_cell(void *ctx, mrs_cell cell, void *memory)
{
	const struct mrs_cell_quarantine *at = memory;
	struct each *each = ctx;

	return each->fn(each->ctx, frame_of(at), 1ull << order_of(at), "the quarantine");
}

int mrs_quarantine_each(struct morsel_pool *pool,
			int (*fn)(void *ctx, uint64_t frame, uint64_t count, const char *by),
			void *ctx)
{
	struct each each = {fn, ctx};

	return mrs_cell_each(mrs_pool_cells(pool), MRS_CELL_QUARANTINE, each_cell, &each);
}
