/*
 * What a pool says of itself.
 */
#include <errno.h>
#include <string.h>

#include "base/atomic.h"
#include "pool/internal.h"

static void count_slot(void *ctx, unsigned slot, struct mrs_slot *shared)
{
	(void)slot;
	(void)shared;
	++*(uint32_t *)ctx;
}

/* Bytes that the fixed parts take where they are used: an unused slot's page costs nothing. */
static uint64_t metadata_bytes(struct morsel_pool *pool, uint32_t slots)
{
	uint64_t online = mrs_load_acquire(&mrs_pool_state(pool)->online_end), bytes, segments = 0;
	uint64_t trees = (mrs_min(online, pool->super.frames_max) + MORSEL_FRAMES_TREE - 1) /
			 MORSEL_FRAMES_TREE;
	const uint64_t *segment = mrs_pool_at(pool, MRS_FRAME_SEGMENTS, 8);
	struct morsel_frames_bytes range[3];

	for (unsigned i = 0; i < MRS_CELL_SEGMENTS_MAX; i++)
		segments += mrs_load_relaxed(&segment[i]) != 0;
	bytes = (MRS_FRAME_SLOTS + slots + (MRS_FRAME_ALLOC - MRS_FRAME_DIR)) * MRS_PAGE_BYTES +
		segments * (MRS_PAGE_BYTES << pool->super.segment_order);
	if (!morsel_frames_metadata_ranges(pool->super.frames_max, MRS_LOCALS, 0, trees, range))
		for (int i = 0; i < 3; i++)
			bytes += range[i].bytes;
	return bytes;
}

int morsel_pool_stat(struct morsel_pool *pool, struct morsel_pool_stat *out)
{
	struct morsel_pool_stat stat = {0};
	struct morsel_frames_stat frames;
	const struct mrs_state *state;
	uint64_t end, online, data;
	int rc = mrs_pool_usable(pool, false);

	if (rc)
		return rc;
	if (!out || out->size < sizeof(out->size))
		return mrs_fail(-EINVAL, "struct morsel_pool_stat must begin with its own size");
	state = mrs_pool_state(pool);
	end = mrs_pool_frames_end(pool);
	data = pool->super.frame_data;
	online = mrs_min(mrs_load_acquire(&state->online_end), end);
	morsel_frames_stat_fast(&pool->frames, &frames);
	mrs_pool_each_slot(pool, count_slot, &stat.slots_used);
	stat.size = out->size;
	stat.kind = pool->kind;
	pthread_mutex_lock(&pool->super_lock);
	stat.extents = pool->super.extents;
	pthread_mutex_unlock(&pool->super_lock);
	stat.bytes = (end - data) * MRS_PAGE_BYTES;
	stat.bytes_max = (pool->super.frames_max - data) * MRS_PAGE_BYTES;
	stat.bytes_resident = mrs_pool_resident(pool) * MRS_PAGE_BYTES;
	stat.bytes_budget = mrs_load_relaxed(&state->budget_frames) * MRS_PAGE_BYTES;
	if (mrs_pool_watermarks(pool, &stat.bytes_low, &stat.bytes_high)) {
		stat.bytes_low *= MRS_PAGE_BYTES;
		stat.bytes_high *= MRS_PAGE_BYTES;
	} else {
		stat.bytes_low = stat.bytes_high = 0;
	}
	stat.bytes_compressed = mrs_load_relaxed(&state->compressed) * MRS_PAGE_BYTES;
	stat.bytes_free = (mrs_min(frames.free, end) + (end - online)) * MRS_PAGE_BYTES;
	stat.bytes_huge_free = frames.huge_free * MRS_HUGE_BYTES + (end - online) * MRS_PAGE_BYTES;
	stat.bytes_metadata = metadata_bytes(pool, stat.slots_used);
	stat.morsels = mrs_load_relaxed(&state->morsels);
	stat.slots = MRS_SLOTS;
	stat.reaped = mrs_load_relaxed(&state->reaped);
	memcpy(stat.uuid, pool->super.uuid, sizeof(stat.uuid));
	memcpy(out, &stat, mrs_min(stat.size, sizeof(stat)));
	return 0;
}
