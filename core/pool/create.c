/*
 * Writing a new pool into an empty file.
 *
 * Nobody sees the file before it is whole: it has no name yet, or its first superblock is written
 * last. Every byte of metadata that will be touched has memory behind it first.
 */
#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/probe.h"
#include "pool/internal.h"

static void fill_identity(struct morsel_pool *pool, const struct mrs_create *create)
{
	struct mrs_super *super = &pool->super;
	struct timespec now;

	super->magic = MRS_FORMAT_MAGIC;
	super->byte_order = MRS_FORMAT_BYTE_ORDER;
	super->version = MRS_FORMAT_VERSION;
	super->page_shift = MRS_PAGE_SHIFT;
	super->slots = MRS_SLOTS;
	super->intents_per_slot = MRS_INTENTS_PER_SLOT;
	/* 256 KiB, 2,048 cells: 8 million cells, a million morsels with names of any length. */
	super->segment_order = 6;
	super->kind = pool->kind;
	super->no_huge = create->no_huge;
	clock_gettime(CLOCK_REALTIME, &now);
	super->created_ns = now.tv_sec * 1000000000ll + now.tv_nsec;
	/* Without the system's randomness the clock and an address must do: names then could be
	 * chosen to collide, nothing worse. */
	if (getrandom(super->hash_key, sizeof(super->hash_key), GRND_NONBLOCK) < 0)
		super->hash_key[0] = (uint64_t)super->created_ns ^ (uintptr_t)pool;
	if (getrandom(super->uuid, sizeof(super->uuid), GRND_NONBLOCK) < 0)
		memcpy(super->uuid, &super->created_ns, sizeof(super->created_ns));
	super->uuid[6] = (super->uuid[6] & 0x0f) | 0x40;
	super->uuid[8] = (super->uuid[8] & 0x3f) | 0x80;
	super->extent[0].kind = pool->kind;
	super->extent[0].node_plus_1 = create->node_plus_1;
}

static int reserve_metadata(struct morsel_pool *pool, uint64_t online)
{
	uint64_t trees = (online + MORSEL_FRAMES_TREE - 1) / MORSEL_FRAMES_TREE;
	uint64_t base = pool->super.frame_alloc * MRS_PAGE_BYTES;
	struct morsel_frames_bytes range[3];
	int rc;

	rc = mrs_file_reserve(pool, 0, MRS_FRAME_SLOTS * MRS_PAGE_BYTES, "the superblocks");
	if (!rc)
		rc = mrs_file_reserve(pool, MRS_FRAME_DIR * MRS_PAGE_BYTES, 16 * MRS_PAGE_BYTES,
				      "the directory");
	if (!rc)
		rc = morsel_frames_metadata_ranges(pool->super.frames_max, MRS_LOCALS, 0, trees,
						   range);
	for (int i = 0; i < 3 && !rc; i++)
		if (range[i].bytes)
			rc = mrs_file_reserve(pool, base + range[i].offset, range[i].bytes,
					      "the allocator's metadata");
	return rc;
}

/* The frames of the metadata belong to nobody else, ever. */
static int keep_metadata_frames(struct morsel_pool *pool)
{
	unsigned local = 0;
	int rc = 0;

	for (uint64_t frame = 0; frame < pool->super.frame_data && !rc; frame += MORSEL_FRAMES_HUGE)
		rc = morsel_frames_get_at(&pool->frames, local, frame, MORSEL_FRAMES_HUGE_ORDER, 0);
	if (!rc)
		rc = morsel_frames_return_local(&pool->frames, local);
	return rc ? mrs_fail_errno(rc, "cannot set up the allocator of %s", pool->path) : 0;
}

static int init_allocator(struct morsel_pool *pool, uint64_t online)
{
	const struct mrs_super *super = &pool->super;
	int rc = morsel_frames_init(&pool->frames, pool->map + super->frame_alloc * MRS_PAGE_BYTES,
				    super->alloc_bytes, super->frames_max, MRS_LOCALS, online, 0,
				    NULL);

	if (rc)
		return mrs_fail_errno(rc, "cannot set up the allocator of %s", pool->path);
	return keep_metadata_frames(pool);
}

static void init_state(struct morsel_pool *pool, const struct mrs_create *create, uint64_t online)
{
	struct mrs_state *state = mrs_pool_state(pool);

	state->protocol = MRS_PROTOCOL_VERSION;
	state->budget_frames = create->budget_bytes >> MRS_PAGE_SHIFT;
	state->budget_low = create->low_bytes >> MRS_PAGE_SHIFT;
	state->budget_high = create->high_bytes >> MRS_PAGE_SHIFT;
	state->next_id = 1;
	state->generation = 1;
	state->online_end = online;
}

static int check_block(struct morsel_pool *pool)
{
	char text[16];
	struct statfs fs;

	if (pool->kind != MORSEL_POOL_HUGETLB || fstatfs(pool->fd, &fs) ||
	    (uint64_t)fs.f_bsize == MRS_HUGE_BYTES)
		return 0;
	return mrs_fail(-EOPNOTSUPP,
			"%s is on a hugetlbfs with pages of %s: mount one with "
			"pagesize=2M",
			pool->path, mrs_bytes_text((uint64_t)fs.f_bsize, text));
}

int mrs_pool_format(struct morsel_pool *pool, const struct mrs_create *create)
{
	uint64_t online;
	int rc;

	rc = check_block(pool);
	if (!rc)
		rc = mrs_layout_make(&pool->super, create->bytes, create->bytes_max);
	if (rc)
		return rc;
	fill_identity(pool, create);
	pool->frames_end = mrs_super_frames_end(&pool->super);
	online = mrs_min(pool->frames_end, MRS_ONLINE_STEP);
	online = mrs_max(online, mrs_round_up(pool->super.frame_data, MORSEL_FRAMES_TREE));
	online = mrs_min(online, pool->frames_end);
	rc = mrs_file_set_size(pool, pool->frames_end * MRS_PAGE_BYTES);
	if (!rc)
		rc = mrs_file_map(pool, pool->super.frames_max * MRS_PAGE_BYTES);
	if (!rc)
		rc = mrs_file_prefer_node(pool, 0, pool->frames_end, create->node_plus_1);
	if (!rc)
		rc = reserve_metadata(pool, online);
	if (!rc)
		rc = init_allocator(pool, online);
	if (rc)
		return rc;
	MRS_PROBE("pool.create.formatted");
	init_state(pool, create, online);
	mrs_super_write(pool, &pool->super);
	MRS_PROBE("pool.create.one_super");
	mrs_super_write(pool, &pool->super);
	pool->super_sequence = pool->super.sequence;
	return 0;
}
