/*
 * Growing: more extents, and more of the allocator's trees.
 *
 * A pool's number space may be a thousand times what is used of it, so the allocator's metadata
 * gets its memory in steps of 64 GiB of number space, when a get finds nothing left (2 MiB each).
 * Both kinds of growth are serialised by the file's SETUP lock, which a death drops; each announces
 * itself by one store at the end.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/probe.h"
#include "pool/internal.h"

#define SETUP_TIMEOUT_NS 10000000000ll

static int lock_byte(int fd, uint64_t byte, int command)
{
	struct flock lock = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1};
	int rc;

	do
		rc = fcntl(fd, command, &lock) ? -errno : 0;
	while (rc == -EINTR);
	return rc;
}

int mrs_pool_lock_byte(struct morsel_pool *pool, uint64_t byte)
{
	int rc = mrs_pool_usable(pool, true), fd;

	if (rc)
		return rc;
	fd = mrs_lock_fd_open(pool);
	if (fd < 0)
		return fd;
	rc = lock_byte(fd, byte, F_OFD_SETLKW);
	if (rc) {
		mrs_pool_unlock_byte(fd);
		return mrs_fail_errno(rc, "cannot lock a byte of %s", pool->path);
	}
	return fd;
}

int mrs_pool_try_lock_byte(struct morsel_pool *pool, uint64_t byte)
{
	int rc = mrs_pool_usable(pool, true), fd;

	if (rc)
		return rc;
	fd = mrs_lock_fd_open(pool);
	if (fd < 0)
		return fd;
	rc = lock_byte(fd, byte, F_OFD_SETLK);
	if (!rc)
		return fd;
	mrs_pool_unlock_byte(fd);
	return rc == -EAGAIN || rc == -EACCES
		       ? -EAGAIN
		       : mrs_fail_errno(rc, "cannot lock a byte of %s", pool->path);
}

int mrs_setup_lock(struct morsel_pool *pool)
{
	int64_t end = mrs_now_ns() + SETUP_TIMEOUT_NS;
	int fd = mrs_lock_fd_open(pool), rc;

	if (fd < 0)
		return fd;
	while ((rc = lock_byte(fd, MRS_LOCK_SETUP, F_OFD_SETLK)) == -EAGAIN || rc == -EACCES) {
		if (mrs_now_ns() > end)
			break;
		mrs_sleep_ns(1000000);
	}
	if (!rc)
		return fd;
	mrs_pool_unlock_byte(fd);
	if (rc == -EAGAIN || rc == -EACCES)
		return mrs_fail(-EBUSY,
				"another process has been growing %s for %lld s: is it "
				"stopped?",
				pool->path, SETUP_TIMEOUT_NS / 1000000000);
	return mrs_fail_errno(rc, "cannot lock %s for growing", pool->path);
}

/* Where the next step begins: a death may have brought some trees online and not said so. */
static uint64_t first_offline(struct morsel_pool *pool, uint64_t end)
{
	uint64_t at = mrs_round_down(mrs_load_acquire(&mrs_pool_state(pool)->online_end),
				     MORSEL_FRAMES_HUGE);

	while (at < end && morsel_frames_is_online(&pool->frames, at))
		at += MORSEL_FRAMES_HUGE;
	return at;
}

/* Under the SETUP lock. */
static int online_step(struct morsel_pool *pool, uint64_t first, uint64_t last_end)
{
	uint64_t end = mrs_min(last_end, mrs_round_down(first, MRS_ONLINE_STEP) + MRS_ONLINE_STEP);
	uint64_t tree = first / MORSEL_FRAMES_TREE;
	uint64_t trees = (end + MORSEL_FRAMES_TREE - 1) / MORSEL_FRAMES_TREE - tree;
	uint64_t base = pool->super.frame_alloc * MRS_PAGE_BYTES;
	struct morsel_frames_bytes range[3];
	int rc = morsel_frames_metadata_ranges(pool->super.frames_max, MRS_LOCALS, tree, trees,
					       range);

	for (int i = 0; i < 3 && !rc; i++)
		if (range[i].bytes)
			rc = mrs_file_reserve(pool, base + range[i].offset, range[i].bytes,
					      "the allocator's metadata");
	MRS_PROBE("pool.online.reserved");
	if (!rc)
		rc = morsel_frames_online(&pool->frames, first, end - first, 0);
	if (rc)
		return rc == -EINVAL ? mrs_fail(-EIO,
						"%s is damaged: frames from %" PRIu64 " do not "
						"come online",
						pool->path, first)
				     : rc;
	MRS_PROBE("pool.online.done");
	/* Release: who sees it sees the trees. Pairs with the acquire in first_offline(). */
	mrs_store_release(&mrs_pool_state(pool)->online_end, end);
	return 1;
}

int mrs_pool_online_more(struct morsel_pool *pool)
{
	uint64_t seen = mrs_load_acquire(&mrs_pool_state(pool)->online_end);
	uint64_t end = mrs_pool_frames_end(pool), first;
	int lock, rc = 0;

	if (seen >= end)
		return 0;
	lock = mrs_setup_lock(pool);
	if (lock < 0)
		return lock;
	first = first_offline(pool, end);
	if (first < end)
		rc = online_step(pool, first, end);
	else
		mrs_store_release(&mrs_pool_state(pool)->online_end, end);
	/* Somebody else was faster: that serves us as well. */
	if (!rc && mrs_load_acquire(&mrs_pool_state(pool)->online_end) > seen)
		rc = 1;
	mrs_pool_unlock_byte(lock);
	return rc;
}

/* ---- extents ---- */

static int add_extent(struct morsel_pool *pool, struct mrs_super *super, uint64_t count,
		      uint32_t node_plus_1)
{
	struct mrs_extent *last = &super->extent[super->extents - 1];

	if (super->extents < MRS_EXTENTS_MAX) {
		super->extent[super->extents++] = (struct mrs_extent){
			.first = last->first + last->count,
			.count = count,
			.file_offset = (last->first + last->count) * MRS_PAGE_BYTES,
			.kind = pool->kind,
			.node_plus_1 = node_plus_1,
		};
		return 0;
	}
	if (last->node_plus_1 != node_plus_1)
		return mrs_fail(-ENOSPC,
				"%s has %u extents, the most there can be: grow it on the "
				"NUMA node of the last one",
				pool->path, MRS_EXTENTS_MAX);
	last->count += count;
	return 0;
}

static int grow_file(struct morsel_pool *pool, uint64_t end)
{
	struct stat st;

	if (fstat(pool->fd, &st))
		return mrs_fail_errno(-errno, "cannot ask for the size of %s", pool->path);
	if ((uint64_t)st.st_size >= end * MRS_PAGE_BYTES)
		return 0;
	return mrs_file_set_size(pool, end * MRS_PAGE_BYTES);
}

static int grow_locked(struct morsel_pool *pool, uint64_t count, uint32_t node_plus_1)
{
	struct mrs_super super;
	uint64_t first, room;
	char text[2][16];
	int rc;

	mrs_super_refresh(pool);
	pthread_mutex_lock(&pool->super_lock);
	super = pool->super;
	pthread_mutex_unlock(&pool->super_lock);
	first = mrs_super_frames_end(&super);
	room = super.frames_max - first;
	if (count > room)
		return mrs_fail(-ENOSPC,
				"%s can grow by %s more, not by %s: its largest size was set "
				"when it was created (bytes_max)",
				pool->path, mrs_bytes_text(room * MRS_PAGE_BYTES, text[0]),
				mrs_bytes_text(count * MRS_PAGE_BYTES, text[1]));
	rc = add_extent(pool, &super, count, node_plus_1);
	if (!rc)
		rc = grow_file(pool, first + count);
	if (!rc)
		rc = mrs_file_prefer_node(pool, first, count, node_plus_1);
	if (rc)
		return rc;
	MRS_PROBE("pool.grow.sized");
	mrs_super_write(pool, &super);
	mrs_super_refresh(pool);
	return 0;
}

int morsel_pool_grow(struct morsel_pool *pool, uint64_t bytes, uint32_t node_plus_1)
{
	int rc = mrs_pool_usable(pool, true), lock;

	if (rc)
		return rc;
	if (!bytes || bytes % MRS_GROW_BYTES)
		return mrs_fail(-EINVAL,
				"a pool grows by multiples of 64 MiB, not by %" PRIu64 " bytes",
				bytes);
	lock = mrs_setup_lock(pool);
	if (lock < 0)
		return lock;
	rc = grow_locked(pool, bytes >> MRS_PAGE_SHIFT, node_plus_1);
	mrs_pool_unlock_byte(lock);
	return rc;
}

static void super_copy(struct morsel_pool *pool, struct mrs_super *super)
{
	mrs_super_refresh(pool);
	pthread_mutex_lock(&pool->super_lock);
	*super = pool->super;
	pthread_mutex_unlock(&pool->super_lock);
}

int mrs_pool_require(struct morsel_pool *pool, uint64_t incompat)
{
	struct mrs_super super;
	int lock;

	super_copy(pool, &super);
	if (!(incompat & ~super.feature_incompat))
		return 0;
	lock = mrs_setup_lock(pool);
	if (lock < 0)
		return lock;
	super_copy(pool, &super);
	if (incompat & ~super.feature_incompat) {
		super.feature_incompat |= incompat;
		mrs_super_write(pool, &super);
		mrs_super_refresh(pool);
		MRS_PROBE("pool.require.written");
	}
	mrs_pool_unlock_byte(lock);
	return 0;
}
