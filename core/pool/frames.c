/*
 * Frames of transitions: the allocator's gets and puts, tracked until they are linked.
 *
 * A frame is named by somebody at every instant: by the allocator's pending record from before it
 * is taken until it is linked, by the table that links it, and, on its way back, by intent.putting
 * from before it is unlinked until the allocator has it.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/atomic.h"
#include "base/probe.h"
#include "pool/internal.h"
#include "pool/zero.h"

static int damaged(struct morsel_pool *pool, uint64_t frame)
{
	return mrs_fail(-EIO,
			"%s is damaged: its allocator handed out frame %" PRIu64 ", which is "
			"not a data frame; morsel pool check says more",
			pool->path, frame);
}

static int no_frames(struct morsel_pool *pool, unsigned order)
{
	struct morsel_frames_stat stat;
	char text[3][16];

	if (order)
		return mrs_fail(-ENOSPC,
				"%s has no free run of %s: smaller pages may fit, or grow "
				"the pool (morsel_pool_grow)",
				pool->path, mrs_bytes_text(MRS_PAGE_BYTES << order, text[0]));
	morsel_frames_stat_fast(&pool->frames, &stat);
	return mrs_fail(
		-ENOSPC,
		"%s is full: %s of its %s are free; remove morsels or grow the pool "
		"(morsel_pool_grow, up to %s)",
		pool->path, mrs_bytes_text(stat.free * MRS_PAGE_BYTES, text[0]),
		mrs_bytes_text((mrs_pool_frames_end(pool) - pool->super.frame_data) *
				       MRS_PAGE_BYTES,
			       text[1]),
		mrs_bytes_text((pool->super.frames_max - pool->super.frame_data) * MRS_PAGE_BYTES,
			       text[2]));
}

/* Is a dead process's transition or reservation in the way? Cheap if all live. */
static bool retry_helps(struct morsel_pool *pool, unsigned attempt, int *rc)
{
	if (mrs_txn_is_repairing())
		return false;
	*rc = mrs_pool_online_more(pool);
	if (*rc)
		return *rc > 0;
	if (attempt)
		return false;
	mrs_reap_repair(pool);
	return true;
}

int mrs_txn_get(struct mrs_txn *txn, unsigned order, enum mrs_frame_class class, uint64_t near,
		uint64_t *frame)
{
	struct morsel_pool *pool = txn->pool;
	struct morsel_frames_want want = {
		.order = order,
		.cls = (enum morsel_frames_class) class,
		.flags = MORSEL_FRAMES_TRACKED,
		/* What follows the last frame of all is near nothing. */
		.near_set = near && near < pool->super.frames_max,
		.near = near,
	};
	struct morsel_frames_got got;
	unsigned dead = 0;
	int rc, more = 0;

	if (order == MRS_HUGE_ORDER && class == MRS_FRAME_HUGE && mrs_zero_take(txn, near, frame))
		return 0;
	for (;;) {
		rc = morsel_frames_get_want(&pool->frames, txn->index, &want, &got);
		if (rc != -ENOMEM || !retry_helps(pool, dead, &more))
			break;
		dead += !more;
	}
	if (rc == -ENOMEM)
		return more < 0 ? more : no_frames(pool, order);
	if (rc)
		return mrs_fail_errno(rc, "%s: no frame of order %u can be had", pool->path, order);
	if (got.frame < pool->super.frame_data || !mrs_pool_at(pool, got.frame, 1ull << order)) {
		morsel_frames_settle(&pool->frames, txn->index);
		return damaged(pool, got.frame);
	}
	*frame = got.frame;
	MRS_PROBE("pool.frames.got");
	return 0;
}

int mrs_txn_get_at(struct mrs_txn *txn, unsigned order, uint64_t frame)
{
	struct morsel_pool *pool = txn->pool;
	int rc;

	if (order > MORSEL_FRAMES_MAX_ORDER || frame < pool->super.frame_data ||
	    !mrs_pool_at(pool, frame, 1ull << order))
		return mrs_fail(-EINVAL, "frame %" PRIu64 " of order %u is not a data frame of %s",
				frame, order, pool->path);
	while (frame + (1ull << order) > mrs_load_acquire(&mrs_pool_state(pool)->online_end)) {
		rc = mrs_pool_online_more(pool);
		if (rc <= 0)
			break;
	}
	rc = morsel_frames_get_at(&pool->frames, txn->index, frame, order, MORSEL_FRAMES_TRACKED);
	if (rc)
		return mrs_fail_errno(rc, "frame %" PRIu64 " of order %u of %s cannot be had",
				      frame, order, pool->path);
	MRS_PROBE("pool.frames.got");
	return 0;
}

void mrs_txn_settle(struct mrs_txn *txn)
{
	MRS_PROBE("pool.frames.settling");
	morsel_frames_settle(&txn->pool->frames, txn->index);
}

bool mrs_txn_is_free(struct mrs_txn *txn)
{
	struct morsel_frames_pending pending;

	return !txn->intent->putting &&
	       !morsel_frames_pending(&txn->pool->frames, txn->index, &pending);
}

void mrs_txn_put_begin(struct mrs_txn *txn, unsigned order, uint64_t frame)
{
	MRS_CHECK(!txn->intent->putting);
	mrs_store_release(&txn->intent->putting, mrs_putting(frame, order));
	MRS_PROBE("pool.frames.put_begun");
}

void mrs_txn_put_end(struct mrs_txn *txn)
{
	struct morsel_pool *pool = txn->pool;
	uint64_t putting = txn->intent->putting;
	int rc;

	MRS_PROBE("pool.frames.putting");
	rc = morsel_frames_put(&pool->frames, txn->index, mrs_putting_frame(putting),
			       mrs_putting_order(putting), MORSEL_FRAMES_PUT_ZERO);
	if (rc)
		mrs_log(MRS_LOG_ERROR,
			"%s is damaged: frame %" PRIu64 " of order %u was not "
			"allocated (%s)",
			pool->path, mrs_putting_frame(putting), mrs_putting_order(putting),
			strerror(-rc));
	MRS_PROBE("pool.frames.put");
	mrs_store_release(&txn->intent->putting, 0);
}

void mrs_txn_put_cancel(struct mrs_txn *txn)
{
	mrs_store_release(&txn->intent->putting, 0);
}

int mrs_txn_get_meta(struct mrs_txn *txn, unsigned order, uint64_t *frame)
{
	struct morsel_pool *pool = txn->pool;
	/* Where pages can be evicted the evictor makes good for a table: it needs some itself. */
	unsigned flags =
		mrs_load_relaxed(&mrs_pool_state(pool)->swap_table) ? MRS_BACK_OVER_BUDGET : 0;
	uint64_t got;
	int rc = mrs_txn_get(txn, order, MRS_FRAME_IMMOVABLE, 0, &got);

	if (rc)
		return rc;
	rc = mrs_pool_back(txn, got, 1ull << order, flags, NULL);
	if (rc) {
		morsel_frames_put(&pool->frames, txn->index, got, order, MORSEL_FRAMES_PUT_ZERO);
		return rc;
	}
	MRS_PROBE("pool.frames.meta_backed");
	/* A free frame reads as zero; a table that does not would be followed. */
	memset(mrs_pool_at(pool, got, 1ull << order), 0, MRS_PAGE_BYTES << order);
	*frame = got;
	return 0;
}

int mrs_txn_get_table(struct mrs_txn *txn, uint64_t *frame)
{
	return mrs_txn_get_meta(txn, 0, frame);
}

/* ---- reading ---- */

void *mrs_pool_at(struct morsel_pool *pool, uint64_t frame, uint64_t count)
{
	uint64_t end = mrs_load_acquire(&pool->frames_end);

	if (frame >= end || count > end - frame) {
		mrs_super_refresh(pool);
		end = mrs_load_acquire(&pool->frames_end);
		if (frame >= end || count > end - frame)
			return NULL;
	}
	return pool->map + frame * MRS_PAGE_BYTES;
}

const struct mrs_super *mrs_pool_super(struct morsel_pool *pool)
{
	return &pool->super;
}

struct mrs_state *mrs_pool_state(struct morsel_pool *pool)
{
	return (struct mrs_state *)(pool->map + MRS_FRAME_STATE * MRS_PAGE_BYTES);
}

struct mrs_slot *mrs_pool_slot(struct morsel_pool *pool, unsigned slot)
{
	return (struct mrs_slot *)(pool->map + (MRS_FRAME_SLOTS + slot) * MRS_PAGE_BYTES);
}

unsigned mrs_pool_own_slot(struct morsel_pool *pool)
{
	return pool->slot;
}

bool mrs_pool_is_read_only(struct morsel_pool *pool)
{
	return pool->read_only;
}

bool mrs_pool_is_no_dump(struct morsel_pool *pool)
{
	return pool->no_dump;
}

const char *mrs_pool_path(struct morsel_pool *pool)
{
	return pool->path;
}

uint64_t mrs_pool_frames_end(struct morsel_pool *pool)
{
	mrs_super_refresh(pool);
	return mrs_load_acquire(&pool->frames_end);
}

struct morsel_frames *mrs_pool_frames(struct morsel_pool *pool)
{
	return &pool->frames;
}

unsigned mrs_pool_faults(struct morsel_pool *pool)
{
	return pool->faults;
}

void *mrs_pool_room(struct morsel_pool *pool)
{
	return pool->room;
}

void mrs_pool_hold(struct morsel_pool *pool)
{
	mrs_fetch_add(&pool->holds, 1);
}

void mrs_pool_drop(struct morsel_pool *pool)
{
	mrs_fetch_sub(&pool->holds, 1);
}
