/*
 * Compressed memory as a swap target: pages packed by lz4 or zstd into objects of slab.c.
 *
 * A page that is not at least a quarter smaller is left to the next target; it is kept as it is
 * only if nobody else takes it.
 */
#include <errno.h>
#include <string.h>

#include "base/probe.h"
#include "swap/internal.h"

static int choose_codec(struct morsel_pool *pool, struct mrs_swap_record *record)
{
	struct mrs_swap *swap = mrs_swap_of(pool);

	if (!swap)
		return -ENOMEM;
	if (record->compression == MORSEL_SWAP_AUTO)
		record->compression = mrs_codec_usable(swap->codecs, MRS_CODEC_LZ4)
					      ? MORSEL_SWAP_ZSTD
					      : MORSEL_SWAP_LZ4;
	return mrs_codec_usable(swap->codecs, record->compression == MORSEL_SWAP_ZSTD
						      ? MRS_CODEC_ZSTD
						      : MRS_CODEC_LZ4);
}

/* A quarter of the budget, or of the pool that has none. */
static uint64_t default_bytes(struct morsel_pool *pool)
{
	uint64_t frames = mrs_load_acquire(&mrs_pool_state(pool)->budget_frames);

	if (!frames)
		frames = mrs_pool_frames_end(pool) - mrs_pool_super(pool)->frame_data;
	return mrs_max(frames * MRS_PAGE_BYTES / 4, mrs_slab_bytes());
}

static int plan(struct morsel_pool *pool, struct mrs_swap_record *record, uint64_t *map_bytes)
{
	uint64_t bytes = record->slots * MRS_PAGE_BYTES;

	if (!bytes)
		bytes = default_bytes(pool);
	record->slots = mrs_slabs_of_bytes(bytes);
	if (!record->slots)
		return mrs_fail(-EINVAL, "compressed memory of %llu bytes is less than one slab",
				(unsigned long long)bytes);
	*map_bytes = mrs_slab_map_bytes(record->slots);
	return choose_codec(pool, record);
}

static int make(struct mrs_swap_target *target)
{
	return 0;
}

static enum mrs_codec codec_of(const struct mrs_swap_target *target)
{
	return target->record->compression == MORSEL_SWAP_ZSTD ? MRS_CODEC_ZSTD : MRS_CODEC_LZ4;
}

/* 0 also if it was left out. */
static int save_one(struct mrs_swap_target *target, struct mrs_txn *txn, const void *memory,
		    struct mrs_swap_page *page, enum mrs_swap_effort effort)
{
	unsigned char packed[MRS_SLAB_PACKED_MAX];
	enum mrs_codec codec = codec_of(target);
	unsigned bytes =
		mrs_codec_pack(target->swap->codecs, codec, memory, packed, sizeof(packed));
	void *object;
	uint64_t own;
	int rc;

	if (!bytes && effort == MRS_SWAP_IF_SMALLER)
		return 0;
	if (bytes)
		rc = mrs_slab_get(target, txn, bytes, codec, &own, &object);
	else
		rc = mrs_slab_get(target, txn, MRS_PAGE_BYTES, MRS_CODEC_PLAIN, &own, &object);
	if (rc)
		return rc;
	memcpy(object, bytes ? packed : memory, bytes ? bytes : MRS_PAGE_BYTES);
	MRS_PROBE("swap.memory.stored");
	page->slot = mrs_slot_make(target, own);
	return 0;
}

static int save(struct mrs_swap_target *target, struct mrs_txn *txn, const void *const memory[],
		struct mrs_swap_page page[], unsigned count, enum mrs_swap_effort effort)
{
	for (unsigned i = 0; i < count; i++) {
		int rc = page[i].slot ? 0 : save_one(target, txn, memory[i], &page[i], effort);

		/* Full, or the pool has no frames: the next target's turn. */
		if (rc == -ENOSPC)
			return 0;
		if (rc)
			return rc;
	}
	return 0;
}

static int load_one(struct mrs_swap_target *target, uint64_t own, void *memory)
{
	struct mrs_slab_object object;

	if (!target->swap || !mrs_slab_look(target, own, &object))
		return -EBADMSG;
	return mrs_codec_unpack(target->swap->codecs, object.codec, object.memory, object.bytes,
				memory);
}

static void repair(struct mrs_swap_target *target, struct mrs_txn *txn)
{
	mrs_slab_repair(target, txn);
}

static void unmake(struct mrs_swap_target *target)
{
}

const struct mrs_swap_ops mrs_swap_memory_ops = {
	.plan = plan,
	.make = make,
	.unmake = unmake,
	.save = save,
	.load_one = load_one,
	.owner = mrs_slab_owner,
	.take_over = mrs_slab_take_over,
	.free = mrs_slab_put,
	.each = mrs_slab_each,
	.owned = mrs_slab_owned,
	.repair = repair,
	.drop = mrs_slab_drop_all,
};
