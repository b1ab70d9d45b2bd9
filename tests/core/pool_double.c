/*
 * The object room's stand-in. See pool_double.h.
 */
#include "pool_double.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/atomic.h"

struct pool_double *pool_double;

static void map_double(int fd)
{
	void *map = mmap(NULL, sizeof(*pool_double), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		abort();
	pool_double = map;
}

void pool_double_reset(void)
{
	char text[16];
	int fd;

	if (!pool_double) {
		fd = memfd_create("pool-double", 0);
		if (fd < 0 || ftruncate(fd, sizeof(*pool_double)))
			abort();
		map_double(fd);
		snprintf(text, sizeof(text), "%d", fd);
		setenv("POOL_DOUBLE_FD", text, 1);
	}
	memset(pool_double, 0, sizeof(*pool_double));
}

void pool_double_attach(void)
{
	const char *fd = getenv("POOL_DOUBLE_FD");

	if (!fd)
		abort();
	map_double(atoi(fd));
}

void pool_double_link(unsigned at, uint64_t frame, unsigned order)
{
	mrs_store_release(&pool_double->link[at], mrs_putting(frame, order));
}

void pool_double_unlink(unsigned at)
{
	mrs_store_release(&pool_double->link[at], 0);
}

uint64_t pool_double_frame(unsigned at)
{
	uint64_t link = mrs_load_acquire(&pool_double->link[at]);

	return link ? mrs_putting_frame(link) : 0;
}

/* ---- struct mrs_repair_ops ---- */

static bool double_intent(struct mrs_txn *txn)
{
	uint64_t locked = txn->index + 1;

	mrs_fetch_add32(&pool_double->intents, 1);
	mrs_store_relaxed32(&pool_double->last_op, txn->intent->op);
	mrs_store_relaxed32(&pool_double->flag_seen, mrs_load_acquire32(&pool_double->flag));
	mrs_cas(&pool_double->lock, &locked, 0);
	return true;
}

static bool double_referenced(struct morsel_pool *pool, uint64_t frame, uint64_t count)
{
	(void)pool;
	for (unsigned i = 0; i < DOUBLE_LINKS; i++) {
		uint64_t link = mrs_load_acquire(&pool_double->link[i]), first, end;

		if (!link)
			continue;
		first = mrs_putting_frame(link);
		end = first + (1ull << mrs_putting_order(link));
		if (frame < end && first < frame + count)
			return true;
	}
	return false;
}

static void double_drop_open(struct morsel_pool *pool, unsigned slot)
{
	(void)pool;
	(void)slot;
	mrs_fetch_add32(&pool_double->drops, 1);
}

static void double_walk(struct morsel_pool *pool,
			void (*owned)(void *ctx, uint64_t frame, uint64_t count, const char *by),
			morsel_report_fn report, void *ctx)
{
	const uint64_t *segment = mrs_pool_at(pool, MRS_FRAME_SEGMENTS, 8);

	(void)report;
	for (unsigned i = 0; i < MRS_CELL_SEGMENTS_MAX; i++)
		if (segment[i])
			owned(ctx, segment[i], 1ull << pool->super.segment_order, "a segment");
	for (unsigned i = 0; pool_double && i < DOUBLE_LINKS; i++) {
		uint64_t link = mrs_load_acquire(&pool_double->link[i]);

		if (link)
			owned(ctx, mrs_putting_frame(link), 1ull << mrs_putting_order(link),
			      "a link");
	}
}

const struct mrs_repair_ops mrs_object_repair = {
	.intent = double_intent,
	.referenced = double_referenced,
	.drop_open = double_drop_open,
	.walk = double_walk,
};

/* ---- cells, for mrs_dir_validate() ---- */

static void *cells_at(void *ctx, uint64_t frame, unsigned order)
{
	return mrs_pool_at(ctx, frame, 1ull << order);
}

static const struct mrs_cells_ops double_ops = {.at = cells_at};

struct mrs_cells *mrs_pool_cells(struct morsel_pool *pool)
{
	struct mrs_cells *cells = mrs_pool_room(pool);

	_Static_assert(sizeof(struct mrs_cells) <= MRS_POOL_ROOM_BYTES, "the room is too small");
	*cells = (struct mrs_cells){
		.ops = &double_ops,
		.ctx = pool,
		.segments = mrs_pool_at(pool, MRS_FRAME_SEGMENTS, 8),
		.root = mrs_pool_at(pool, MRS_FRAME_DIR, 8),
		.state = mrs_pool_state(pool),
		.segment_order = pool->super.segment_order,
		.owner = mrs_pool_own_slot(pool),
	};
	return cells;
}
