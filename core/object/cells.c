/*
 * What this room keeps in a pool handle: the process's handle on the cells and the directory, made
 * at first use; and the small questions that other rooms ask of an open morsel.
 */
#include <sched.h>

#include "object/internal.h"

enum { UNMADE, BEING_MADE, MADE };

struct room {
	uint32_t made; /* atomic */
	struct mrs_cells cells;
};
_Static_assert(sizeof(struct room) <= MRS_POOL_ROOM_BYTES, "fits into the pool handle");

static void *cells_at(void *ctx, uint64_t frame, unsigned order)
{
	if (frame < mrs_pool_super(ctx)->frame_data)
		return NULL;
	return mrs_pool_at(ctx, frame, 1ull << order);
}

static int cells_segment_get(void *ctx, void *txn, unsigned order, uint64_t *frame)
{
	return mrs_txn_get_meta(txn, order, frame);
}

static void cells_segment_put(void *ctx, void *txn, unsigned order, uint64_t frame)
{
	mrs_place_unget(txn, order, frame, true);
}

static void cells_settle(void *ctx, void *txn)
{
	mrs_txn_settle(txn);
}

static const struct mrs_cells_ops cells_ops = {
	.at = cells_at,
	.segment_get = cells_segment_get,
	.segment_put = cells_segment_put,
	.settle = cells_settle,
};

static void cells_make(struct mrs_cells *cells, struct morsel_pool *pool)
{
	const struct mrs_super *super = mrs_pool_super(pool);

	cells->ops = &cells_ops;
	cells->ctx = pool;
	cells->segments = mrs_pool_at(pool, MRS_FRAME_SEGMENTS, 8);
	cells->root = mrs_pool_at(pool, MRS_FRAME_DIR, 8);
	cells->state = mrs_pool_state(pool);
	cells->hash_key[0] = super->hash_key[0];
	cells->hash_key[1] = super->hash_key[1];
	cells->segment_order = super->segment_order;
	cells->owner = mrs_pool_is_read_only(pool) ? 0 : mrs_pool_own_slot(pool);
}

struct mrs_cells *mrs_pool_cells(struct morsel_pool *pool)
{
	struct room *room = mrs_pool_room(pool);
	uint32_t seen = UNMADE;

	/* Acquire: pairs with the release below; who sees MADE sees what was made. */
	if (mrs_load_acquire32(&room->made) == MADE)
		return &room->cells;
	if (mrs_cas32(&room->made, &seen, BEING_MADE)) {
		cells_make(&room->cells, pool);
		mrs_store_release32(&room->made, MADE);
	}
	while (mrs_load_acquire32(&room->made) != MADE)
		sched_yield();
	return &room->cells;
}

uint64_t mrs_morsel_bytes(const struct morsel *morsel)
{
	return mrs_load_acquire(&morsel->record->bytes);
}

uint64_t mrs_morsel_pages(const struct morsel *morsel)
{
	return mrs_pages_in(mrs_morsel_bytes(morsel));
}

bool mrs_morsel_is_sealed(const struct morsel *morsel)
{
	return mrs_load_acquire(&morsel->record->state) & MRS_RECORD_SEALED;
}

bool mrs_morsel_is_lazy(const struct morsel *morsel)
{
	return mrs_flags_of(mrs_load_acquire(&morsel->record->state)) & MORSEL_LAZY;
}
