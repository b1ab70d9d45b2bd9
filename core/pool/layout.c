/*
 * Geometry and superblocks.
 *
 * Everything of the layout follows from frames_max, so that a superblock that names other places is
 * refused instead of believed. There are two copies; a change writes the older one, so that at any
 * instant one is whole. A process keeps a checked private copy and never trusts the shared one.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/probe.h"
#include "pool/internal.h"

static uint64_t data_frame(uint64_t frames_max)
{
	uint64_t bytes = (uint64_t)MRS_FRAME_ALLOC * MRS_PAGE_BYTES +
			 morsel_frames_metadata_bytes(frames_max, MRS_LOCALS);

	return mrs_round_up(bytes, MRS_HUGE_BYTES) >> MRS_PAGE_SHIFT;
}

/* Frames for bytes_max of data and the metadata for them: metadata that manages itself. */
static uint64_t capacity_for(uint64_t data_frames)
{
	uint64_t frames = data_frames;

	for (int i = 0; i < 4; i++)
		frames = data_frames + data_frame(frames);
	return mrs_round_up(frames, MORSEL_FRAMES_HUGE);
}

int mrs_layout_make(struct mrs_super *super, uint64_t bytes, uint64_t bytes_max)
{
	uint64_t limit = (MORSEL_FRAMES_CAPACITY_MAX >> 1) * MRS_PAGE_BYTES;
	uint64_t count;
	char text[2][16];

	if (bytes_max > limit || bytes > limit)
		return mrs_fail(-EINVAL, "a pool can be at most %s large, asked for %s",
				mrs_bytes_text(limit, text[0]),
				mrs_bytes_text(mrs_max(bytes, bytes_max), text[1]));
	bytes = mrs_round_up(bytes, MRS_HUGE_BYTES);
	bytes_max = mrs_round_up(bytes_max, MRS_HUGE_BYTES);
	if (bytes > bytes_max)
		return mrs_fail(-EINVAL,
				"the pool's size %s is beyond its largest size %s: raise "
				"bytes_max",
				mrs_bytes_text(bytes, text[0]), mrs_bytes_text(bytes_max, text[1]));
	super->frames_max = capacity_for(bytes_max >> MRS_PAGE_SHIFT);
	super->frame_alloc = MRS_FRAME_ALLOC;
	super->alloc_bytes = morsel_frames_metadata_bytes(super->frames_max, MRS_LOCALS);
	super->frame_data = data_frame(super->frames_max);
	count = super->frame_data + (bytes >> MRS_PAGE_SHIFT);
	super->extents = 1;
	super->extent[0] = (struct mrs_extent){.first = 0, .count = count};
	return 0;
}

uint64_t mrs_super_frames_end(const struct mrs_super *super)
{
	const struct mrs_extent *last = &super->extent[super->extents - 1];

	return last->first + last->count;
}

static uint32_t super_crc(const struct mrs_super *super)
{
	return mrs_crc32c(0, super, offsetof(struct mrs_super, crc));
}

static int check_features(const struct mrs_super *super, const char *path, bool read_only)
{
	uint64_t unknown = super->feature_incompat & ~MRS_FEATURE_INCOMPAT_KNOWN;
	uint64_t unknown_ro = super->feature_ro_compat & ~MRS_FEATURE_RO_COMPAT_KNOWN;

	if (unknown)
		return mrs_fail(-EPROTONOSUPPORT,
				"%s uses the incompatible features %#" PRIx64
				" that libmorsel %s does not know: update libmorsel",
				path, unknown, MORSEL_VERSION_STRING);
	if (unknown_ro && !read_only)
		return mrs_fail(-EPROTONOSUPPORT,
				"%s uses the features %#" PRIx64 " that libmorsel "
				"%s may only read: open it read-only or update libmorsel",
				path, unknown_ro, MORSEL_VERSION_STRING);
	return 0;
}

/* What can be said without believing the checksum: is it ours at all, and can we read it? */
static int check_identity(const struct mrs_super *super, const char *path)
{
	bool swapped = super->magic == __builtin_bswap64(MRS_FORMAT_MAGIC);

	if (super->magic != MRS_FORMAT_MAGIC && !swapped)
		return mrs_fail(-EINVAL,
				"%s is not a pool: its magic number is %#018" PRIx64
				" instead of %#018llx",
				path, super->magic, (unsigned long long)MRS_FORMAT_MAGIC);
	if (swapped || super->byte_order != MRS_FORMAT_BYTE_ORDER)
		return mrs_fail(
			-EPROTONOSUPPORT,
			"%s was written by a machine of another byte order "
			"(mark %#010x, here %#010x): export its morsels there and import them "
			"here",
			path, super->byte_order, MRS_FORMAT_BYTE_ORDER);
	return 0;
}

static int check_version(const struct mrs_super *super, const char *path)
{
	if (super->version == MRS_FORMAT_VERSION)
		return 0;
	return mrs_fail(-EPROTONOSUPPORT,
			"%s has format version %u; libmorsel %s reads version %u: "
			"use the library that made it, or export and import its morsels",
			path, super->version, MORSEL_VERSION_STRING, MRS_FORMAT_VERSION);
}

static int check_geometry(const struct mrs_super *super, const char *path)
{
	bool right = super->page_shift == MRS_PAGE_SHIFT && super->slots == MRS_SLOTS &&
		     super->intents_per_slot == MRS_INTENTS_PER_SLOT &&
		     super->frames_max <= MORSEL_FRAMES_CAPACITY_MAX &&
		     super->frames_max % MORSEL_FRAMES_HUGE == 0 &&
		     super->frame_alloc == MRS_FRAME_ALLOC &&
		     super->segment_order <= MRS_HUGE_ORDER;

	if (right)
		right = super->alloc_bytes ==
				morsel_frames_metadata_bytes(super->frames_max, MRS_LOCALS) &&
			super->frame_data == data_frame(super->frames_max) &&
			super->frame_data < super->frames_max;
	if (!right)
		return mrs_fail(-EINVAL,
				"%s is damaged: its superblock describes a layout that "
				"cannot be (%" PRIu64 " frames, data from %" PRIu64 ")",
				path, super->frames_max, super->frame_data);
	return 0;
}

static int check_extents(const struct mrs_super *super, const char *path)
{
	uint64_t end = 0;

	if (!super->extents || super->extents > MRS_EXTENTS_MAX)
		return mrs_fail(-EINVAL, "%s is damaged: it lists %u extents, 1 to %u can be", path,
				super->extents, MRS_EXTENTS_MAX);
	for (uint32_t i = 0; i < super->extents; i++) {
		const struct mrs_extent *e = &super->extent[i];

		if (e->first != end || !e->count || e->count > super->frames_max - end ||
		    e->count % MORSEL_FRAMES_HUGE || e->file_offset != e->first * MRS_PAGE_BYTES ||
		    e->file)
			return mrs_fail(-EINVAL,
					"%s is damaged: extent %u (%" PRIu64 " + %" PRIu64
					" frames) does not follow the one before or is beyond the "
					"largest size",
					path, i, e->first, e->count);
		end += e->count;
	}
	if (end <= super->frame_data)
		return mrs_fail(-EINVAL, "%s is damaged: no room for data behind its metadata",
				path);
	return 0;
}

int mrs_super_check(const struct mrs_super *super, const char *path, bool read_only)
{
	int rc = check_identity(super, path);

	if (!rc && super->crc != super_crc(super))
		rc = mrs_fail(-EINVAL,
			      "%s is damaged: the checksum of its superblock is %#010x "
			      "instead of %#010x",
			      path, super->crc, super_crc(super));
	if (!rc)
		rc = check_version(super, path);
	if (!rc)
		rc = check_features(super, path, read_only);
	if (!rc)
		rc = check_geometry(super, path);
	if (!rc)
		rc = check_extents(super, path);
	return rc;
}

static bool is_whole(const struct mrs_super *super)
{
	return super->magic == MRS_FORMAT_MAGIC && super->crc == super_crc(super);
}

/* The copy to use: the newest with a right checksum; if there is none, the one that explains why.
 */
static const struct mrs_super *newest(const struct mrs_super copy[2])
{
	if (is_whole(&copy[0]) && is_whole(&copy[1]))
		return &copy[copy[1].sequence > copy[0].sequence];
	if (is_whole(&copy[1]))
		return &copy[1];
	if (is_whole(&copy[0]) || copy[0].magic == MRS_FORMAT_MAGIC)
		return &copy[0];
	return &copy[copy[1].magic == MRS_FORMAT_MAGIC];
}

static int check_file_size(int fd, const char *path, const struct mrs_super *super)
{
	uint64_t needed = mrs_super_frames_end(super) * MRS_PAGE_BYTES;
	char text[2][16];
	struct stat st;

	if (fstat(fd, &st))
		return mrs_fail_errno(-errno, "cannot ask for the size of %s", path);
	if ((uint64_t)st.st_size >= needed)
		return 0;
	return mrs_fail(-EINVAL,
			"%s is truncated: %" PRIu64 " bytes (%s) of %" PRIu64 " (%s) are "
			"there; restore it from a copy",
			path, (uint64_t)st.st_size, mrs_bytes_text((uint64_t)st.st_size, text[0]),
			needed, mrs_bytes_text(needed, text[1]));
}

int mrs_super_read(int fd, const char *path, bool read_only, struct mrs_super *super)
{
	struct mrs_super copy[2];
	ssize_t got = pread(fd, copy, sizeof(copy), MRS_FRAME_SUPER_A * MRS_PAGE_BYTES);
	int rc;

	if (got < 0)
		return mrs_fail_errno(-errno, "cannot read %s", path);
	if (got < (ssize_t)sizeof(copy)) {
		uint64_t magic = 0;

		memcpy(&magic, copy, got < 8 ? 0 : 8);
		return mrs_fail(-EINVAL,
				magic == MRS_FORMAT_MAGIC
					? "%s is truncated: only %zd bytes are there"
					: "%s is not a pool: it has only %zd bytes",
				path, got);
	}
	*super = *newest(copy);
	rc = mrs_super_check(super, path, read_only);
	return rc ? rc : check_file_size(fd, path, super);
}

bool mrs_super_has_magic(int fd)
{
	uint64_t magic[2] = {0};

	return (pread(fd, &magic[0], 8, MRS_FRAME_SUPER_A * MRS_PAGE_BYTES) == 8 &&
		magic[0] == MRS_FORMAT_MAGIC) ||
	       (pread(fd, &magic[1], 8, MRS_FRAME_SUPER_B * MRS_PAGE_BYTES) == 8 &&
		magic[1] == MRS_FORMAT_MAGIC);
}

void mrs_super_write(struct morsel_pool *pool, struct mrs_super *super)
{
	struct mrs_super *copy = (struct mrs_super *)pool->map;
	bool a_is_newest = newest(copy) == &copy[0];
	struct mrs_super *older = &copy[a_is_newest];

	super->sequence++;
	super->crc = super_crc(super);
	MRS_PROBE("pool.super.write");
	memcpy(older, super, offsetof(struct mrs_super, crc));
	MRS_PROBE("pool.super.crc");
	/* Pairs with the acquire load in mrs_super_refresh(). Without it the new sequence could be
	 * seen before the superblock that it announces; the checksum would then refuse it. */
	mrs_store_release32(&older->crc, super->crc);
	MRS_PROBE("pool.super.announce");
	mrs_store_release(&mrs_pool_state(pool)->super_sequence, super->sequence);
}

void mrs_super_mend(struct morsel_pool *pool)
{
	const struct mrs_super *copy = (const struct mrs_super *)pool->map;
	struct mrs_super super;
	int lock;

	if (is_whole(&copy[0]) && is_whole(&copy[1]))
		return;
	/* Somebody may be writing it at this moment: he has the lock. */
	lock = mrs_setup_lock(pool);
	if (lock < 0)
		return;
	if (!(is_whole(&copy[0]) && is_whole(&copy[1])) &&
	    !mrs_super_read(pool->fd, pool->path, false, &super)) {
		mrs_log(MRS_LOG_WARN, "%s: one of its superblocks was damaged; the other counts",
			pool->path);
		mrs_super_write(pool, &super);
	}
	mrs_pool_unlock_byte(lock);
}

void mrs_super_refresh(struct morsel_pool *pool)
{
	uint64_t seen = mrs_load_acquire(&mrs_pool_state(pool)->super_sequence);
	struct mrs_super super;

	if (seen == mrs_load_relaxed(&pool->super_sequence))
		return;
	pthread_mutex_lock(&pool->super_lock);
	if (!mrs_super_read(pool->fd, pool->path, pool->read_only, &super) &&
	    super.frames_max == pool->super.frames_max &&
	    mrs_super_frames_end(&super) >= mrs_super_frames_end(&pool->super)) {
		/* Only what a growth, or a new feature, changes: the rest is read without the lock. */
		pool->super.feature_incompat = super.feature_incompat;
		memcpy(pool->super.extent, super.extent, sizeof(super.extent));
		pool->super.extents = super.extents;
		pool->super.sequence = super.sequence;
		mrs_store_release(&pool->frames_end, mrs_super_frames_end(&super));
	}
	/* A damaged one is not read again and again. */
	mrs_store_relaxed(&pool->super_sequence, seen);
	pthread_mutex_unlock(&pool->super_lock);
}
