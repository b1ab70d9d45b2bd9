/*
 * Opening, creating, closing and destroying pools: the public functions.
 *
 * A new pool is made in a file without a name and gets its name when it is whole, so that a death
 * leaves nothing and nobody opens half of one. Whoever finds that another was faster opens that.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/compat.h"
#include "base/probe.h"
#include "pool/internal.h"

static int read_opts(const struct morsel_pool_opts *from, struct morsel_pool_opts *opts)
{
	uint32_t known = MORSEL_POOL_CREATE | MORSEL_POOL_EXCL | MORSEL_POOL_READ_ONLY |
			 MORSEL_POOL_NO_HUGE | MORSEL_POOL_NO_DUMP;
	int rc = mrs_opts_read(opts, sizeof(*opts), from);

	if (rc)
		return rc;
	if (opts->flags & ~known)
		return mrs_fail(-EINVAL, "unknown pool flags %#x", opts->flags & ~known);
	if (opts->kind > MORSEL_POOL_FILE)
		return mrs_fail(-EINVAL, "unknown pool kind %u", opts->kind);
	if ((opts->flags & MORSEL_POOL_CREATE) && (opts->flags & MORSEL_POOL_READ_ONLY))
		return mrs_fail(-EINVAL, "a pool cannot be created read-only");
	if (opts->budget_bytes && opts->budget_bytes < MRS_PAGE_BYTES)
		return mrs_fail(-EINVAL, "a budget of %llu bytes is less than a page",
				(unsigned long long)opts->budget_bytes);
	rc = mrs_pool_check_watermarks(opts->budget_bytes, opts->budget_low_bytes,
				       opts->budget_high_bytes);
	if (rc)
		return rc;
	if (opts->faults > MORSEL_FAULTS_SIGBUS)
		return mrs_fail(-EINVAL, "unknown way of faults %u", opts->faults);
	if (!opts->bytes)
		opts->bytes = opts->bytes_max ? mrs_min(MRS_DEFAULT_BYTES, opts->bytes_max)
					      : MRS_DEFAULT_BYTES;
	if (!opts->bytes_max)
		opts->bytes_max = mrs_max(MRS_DEFAULT_BYTES_MAX, opts->bytes);
	if (!opts->mode)
		opts->mode = 0600;
	return 0;
}

static struct morsel_pool *handle_new(const char *path, const struct morsel_pool_opts *opts)
{
	struct morsel_pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return NULL;
	pool->path = strdup(path ? path : "memfd pool");
	if (!pool->path) {
		free(pool);
		return NULL;
	}
	pool->fd = -1;
	pool->lock_fd = -1;
	pool->slot = MRS_SLOT_NONE;
	pool->read_only = opts->flags & MORSEL_POOL_READ_ONLY;
	pool->no_dump = opts->flags & MORSEL_POOL_NO_DUMP;
	pthread_mutex_init(&pool->super_lock, NULL);
	pthread_mutex_init(&pool->reap_lock, NULL);
	pthread_mutex_init(&pool->headroom.lock, NULL);
	mrs_parts_init(pool);
	pool->faults = opts->faults;
	return pool;
}

/* Everything but the slot: also right for a handle that was never finished. */
static void handle_free(struct morsel_pool *pool)
{
	if (!pool)
		return;
	mrs_handles_remove(pool);
	if (!mrs_load_relaxed32(&pool->dead)) {
		mrs_file_unmap(pool);
		if (pool->lock_fd >= 0)
			close(pool->lock_fd);
		if (pool->fd >= 0)
			close(pool->fd);
	}
	free(pool->path);
	free(pool);
}

/* ---- opening what exists ---- */

static int check_kind(struct morsel_pool *pool, const struct morsel_pool_opts *opts)
{
	if (opts->kind == MORSEL_POOL_AUTO || opts->kind == pool->kind)
		return 0;
	return mrs_fail(-EINVAL, "%s is of kind %s, not %s", pool->path, mrs_kind_text(pool->kind),
			mrs_kind_text(opts->kind));
}

static int attach_allocator(struct morsel_pool *pool)
{
	int rc = morsel_frames_attach(&pool->frames,
				      pool->map + pool->super.frame_alloc * MRS_PAGE_BYTES,
				      pool->super.alloc_bytes);

	if (rc == -EPROTONOSUPPORT)
		return mrs_fail(rc, "the allocator of %s is of another version than libmorsel %s",
				pool->path, MORSEL_VERSION_STRING);
	if (!rc && (pool->frames.capacity != pool->super.frames_max ||
		    pool->frames.local_count != MRS_LOCALS))
		rc = -EINVAL;
	return rc ? mrs_fail(-EINVAL, "%s is damaged: its allocator's header is wrong", pool->path)
		  : 0;
}

/* pool->fd is set; reads, checks and maps. */
static int open_content(struct morsel_pool *pool, const struct morsel_pool_opts *opts)
{
	struct stat st;
	int rc;

	if (fstat(pool->fd, &st))
		return mrs_fail_errno(-errno, "cannot look at %s", pool->path);
	if (!S_ISREG(st.st_mode))
		return mrs_fail(-EINVAL, "%s is not a regular file: a pool is one", pool->path);
	rc = mrs_super_read(pool->fd, pool->path, pool->read_only, &pool->super);
	if (rc)
		return rc;
	pool->kind = pool->super.kind;
	pool->frames_end = mrs_super_frames_end(&pool->super);
	pool->super_sequence = pool->super.sequence;
	rc = check_kind(pool, opts);
	if (!rc)
		rc = mrs_file_map(pool, pool->super.frames_max * MRS_PAGE_BYTES);
	if (!rc)
		rc = attach_allocator(pool);
	return rc;
}

/* The kind that the file system says must be the kind that the superblock says, but for memfd. */
static int compare_kind(struct morsel_pool *pool)
{
	int kind = mrs_file_kind(pool->fd);
	bool same = kind == (int)pool->kind ||
		    (kind == MORSEL_POOL_TMPFS && pool->kind == MORSEL_POOL_MEMFD);

	/* A copied pool changes its kind; what it says of itself is only believed for memfd. */
	if (!same && kind > 0)
		pool->kind = (uint32_t)kind;
	return kind < 0 ? mrs_fail_errno(kind, "cannot ask for the file system of %s", pool->path)
			: 0;
}

static int finish_open(struct morsel_pool *pool, const struct morsel_pool_opts *opts)
{
	int rc = open_content(pool, opts);

	if (!rc)
		rc = compare_kind(pool);
	if (!rc)
		rc = mrs_handles_add(pool);
	if (rc || pool->read_only)
		return rc;
	rc = mrs_slot_attach(pool);
	if (!rc) {
		mrs_super_mend(pool);
		mrs_reap_all(pool);
	}
	return rc;
}

static int open_path(const char *path, bool read_only)
{
	int fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	return fd < 0 ? -errno : fd;
}

static int open_failed(int rc, const char *path, bool read_only)
{
	if (rc == -ENOENT)
		return mrs_fail(rc, "there is no pool at %s", path);
	if (rc == -EACCES || rc == -EROFS)
		return mrs_fail(rc,
				"permission denied for %s: this user may not %s it; its mode and "
				"owner decide%s",
				path, read_only ? "read" : "write",
				read_only ? "" : " (or open it with MORSEL_POOL_READ_ONLY)");
	return mrs_fail_errno(rc, "cannot open %s", path);
}

/* ---- creating ---- */

static void create_from_opts(struct mrs_create *create, const struct morsel_pool_opts *opts)
{
	*create = (struct mrs_create){
		.bytes = opts->bytes,
		.bytes_max = opts->bytes_max,
		.budget_bytes = opts->budget_bytes,
		.low_bytes = opts->budget_low_bytes,
		.high_bytes = opts->budget_high_bytes,
		.node_plus_1 = opts->node_plus_1,
		.no_huge = opts->flags & MORSEL_POOL_NO_HUGE,
	};
}

static int set_owner(struct morsel_pool *pool, const struct morsel_pool_opts *opts)
{
	if (opts->gid_plus_1 && fchown(pool->fd, (uid_t)-1, opts->gid_plus_1 - 1))
		return mrs_fail_errno(-errno, "cannot give %s to group %u", pool->path,
				      opts->gid_plus_1 - 1);
	if (fchmod(pool->fd, opts->mode & 07777 & ~0111u))
		return mrs_fail_errno(-errno, "cannot set the mode of %s to %#o", pool->path,
				      opts->mode);
	return 0;
}

static int memfd_new(void)
{
	unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	int fd = memfd_create("morsel", flags | MFD_NOEXEC_SEAL);

	/* Kernels before 6.3 do not know the flag. */
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("morsel", flags);
	return fd < 0 ? mrs_fail_errno(-errno, "cannot make a memfd") : fd;
}

static int create_memfd(struct morsel_pool *pool, const struct morsel_pool_opts *opts)
{
	struct mrs_create create;
	int rc;

	create_from_opts(&create, opts);
	pool->kind = MORSEL_POOL_MEMFD;
	pool->fd = memfd_new();
	if (pool->fd < 0)
		return pool->fd;
	rc = set_owner(pool, opts);
	if (!rc)
		rc = mrs_pool_format(pool, &create);
	if (!rc && fcntl(pool->fd, F_ADD_SEALS, F_SEAL_SHRINK))
		rc = mrs_fail_errno(-errno, "cannot seal the memfd against shrinking");
	return rc;
}

/* A file without a name in the folder of path; temporary gets a name where that cannot be. */
static int nameless_file(const char *path, char **temporary)
{
	char *folder = strdup(path), *slash = folder ? strrchr(folder, '/') : NULL;
	int fd = -ENOMEM;

	*temporary = NULL;
	if (!folder)
		return fd;
	if (slash)
		slash[slash == folder] = 0;
	fd = open(slash ? folder : ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	free(folder);
	if (fd >= 0)
		return fd;
	if (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT)
		return -errno;
	if (asprintf(temporary, "%s.new.%ld.%llx", path, (long)getpid(),
		     (unsigned long long)mrs_now_ns()) < 0) {
		*temporary = NULL;
		return -ENOMEM;
	}
	fd = open(*temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

static int give_name(struct morsel_pool *pool, const char *temporary)
{
	char link[40];

	MRS_PROBE("pool.create.name");
	if (temporary)
		return linkat(AT_FDCWD, temporary, AT_FDCWD, pool->path, 0) ? -errno : 0;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", pool->fd);
	return linkat(AT_FDCWD, link, AT_FDCWD, pool->path, AT_SYMLINK_FOLLOW) ? -errno : 0;
}

/* -EEXIST without words if somebody else was faster. */
static int create_file(struct morsel_pool *pool, const struct morsel_pool_opts *opts)
{
	struct mrs_create create;
	char *temporary;
	int rc, kind;

	create_from_opts(&create, opts);
	pool->fd = nameless_file(pool->path, &temporary);
	if (pool->fd < 0) {
		rc = mrs_fail_errno(pool->fd, "cannot create the pool %s", pool->path);
		goto out;
	}
	kind = mrs_file_kind(pool->fd);
	pool->kind = kind > 0 ? (uint32_t)kind : MORSEL_POOL_FILE;
	rc = check_kind(pool, opts);
	if (!rc)
		rc = set_owner(pool, opts);
	if (!rc)
		rc = mrs_pool_format(pool, &create);
	if (!rc) {
		rc = give_name(pool, temporary);
		if (rc && rc != -EEXIST)
			mrs_fail_errno(rc, "cannot give the new pool its name %s", pool->path);
	}
out:
	if (temporary)
		unlink(temporary);
	free(temporary);
	return rc;
}

/* ---- public ---- */

static int finish_create(struct morsel_pool *pool)
{
	int rc = mrs_handles_add(pool);

	return rc ? rc : mrs_slot_attach(pool);
}

static int handle_or_error(struct morsel_pool *pool, int rc, struct morsel_pool **out)
{
	if (rc) {
		handle_free(pool);
		return rc;
	}
	*out = pool;
	return 0;
}

/* A name that is taken and cannot be opened: whoever waits for its file would wait for ever. */
static bool leads_nowhere(const char *path)
{
	struct stat st;

	return !lstat(path, &st) && S_ISLNK(st.st_mode) && stat(path, &st);
}

static int open_or_create(const char *path, const struct morsel_pool_opts *opts,
			  struct morsel_pool *pool)
{
	bool create = opts->flags & MORSEL_POOL_CREATE, excl = opts->flags & MORSEL_POOL_EXCL;
	int rc;

	if (!(create && excl)) {
		pool->fd = open_path(path, pool->read_only);
		if (pool->fd >= 0)
			return finish_open(pool, opts);
		if (pool->fd != -ENOENT || !create)
			return open_failed(pool->fd, path, pool->read_only);
	} else if (!access(path, F_OK)) {
		return mrs_fail(-EEXIST, "%s exists already", path);
	}
	rc = create_file(pool, opts);
	if (rc == -EEXIST && excl)
		return mrs_fail(-EEXIST, "%s exists already", path);
	if (rc == -EEXIST && leads_nowhere(path))
		return mrs_fail(-ENOENT, "%s is a symbolic link to nothing: remove it", path);
	return rc ? rc : finish_create(pool);
}

int morsel_pool_open(const char *path, const struct morsel_pool_opts *from,
		     struct morsel_pool **out)
{
	struct morsel_pool_opts opts;
	struct morsel_pool *pool;
	int rc = read_opts(from, &opts);

	if (rc)
		return rc;
	if (!path && !(opts.flags & MORSEL_POOL_CREATE))
		return mrs_fail(-EINVAL, "a pool without a path can only be created "
					 "(MORSEL_POOL_CREATE) or opened by its descriptor");
	if (!path && opts.kind != MORSEL_POOL_AUTO && opts.kind != MORSEL_POOL_MEMFD)
		return mrs_fail(-EINVAL, "a pool of kind %s needs a path",
				mrs_kind_text(opts.kind));
	if (path && opts.kind == MORSEL_POOL_MEMFD && (opts.flags & MORSEL_POOL_CREATE))
		return mrs_fail(-EINVAL, "a memfd pool has no path: pass NULL");
	do {
		pool = handle_new(path, &opts);
		if (!pool)
			return mrs_fail(-ENOMEM, "no memory for a pool handle");
		if (path)
			rc = open_or_create(path, &opts, pool);
		else if (!(rc = create_memfd(pool, &opts)))
			rc = finish_create(pool);
		rc = handle_or_error(pool, rc, out);
		/* Somebody else created it meanwhile: open that. */
	} while (rc == -EEXIST && !(opts.flags & MORSEL_POOL_EXCL));
	return rc;
}

int morsel_pool_open_fd(int fd, const struct morsel_pool_opts *from, struct morsel_pool **out)
{
	struct morsel_pool_opts opts;
	struct morsel_pool *pool;
	char link[40], name[256];
	ssize_t length;
	int rc = read_opts(from, &opts);

	if (rc)
		return rc;
	if (opts.flags & MORSEL_POOL_CREATE)
		return mrs_fail(-EINVAL,
				"a pool is created by path, or without one as a memfd, not "
				"by descriptor");
	if (fcntl(fd, F_GETFD) < 0)
		return mrs_fail(-EBADF, "descriptor %d is not open", fd);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = readlink(link, name, sizeof(name) - 1);
	name[length > 0 ? length : 0] = 0;
	pool = handle_new(length > 0 && strncmp(name, "/memfd:", 7) ? name : NULL, &opts);
	if (!pool)
		return mrs_fail(-ENOMEM, "no memory for a pool handle");
	pool->fd = mrs_file_reopen(fd, NULL, pool->read_only ? O_RDONLY : O_RDWR);
	rc = pool->fd < 0 ? pool->fd : finish_open(pool, &opts);
	return handle_or_error(pool, rc, out);
}

int morsel_pool_fd(struct morsel_pool *pool)
{
	int rc = mrs_pool_usable(pool, false);

	return rc ? rc : pool->fd;
}

int morsel_pool_close(struct morsel_pool *pool)
{
	uint64_t holds;

	if (!pool)
		return 0;
	if (!mrs_load_relaxed32(&pool->dead)) {
		holds = mrs_load_acquire(&pool->holds);
		if (holds)
			return mrs_fail(-EBUSY,
					"%s still has %llu open morsels or views of this "
					"handle: close them first",
					pool->path, (unsigned long long)holds);
		mrs_parts_stop(pool);
		if (!pool->read_only) {
			mrs_reap_all(pool);
			/* Nothing is open any more; what remains are the cells for many. */
			mrs_object_repair.drop_open(pool, pool->slot);
			mrs_slot_detach(pool);
		}
	}
	handle_free(pool);
	return 0;
}

/* Is anybody attached to the pool of fd? Its slots' locks say so. */
static bool is_attached(int fd)
{
	struct flock lock = {
		.l_type = F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = (off_t)MRS_LOCK_SLOT,
		.l_len = MRS_SLOTS,
	};

	return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

int morsel_pool_destroy(const char *path, int force)
{
	struct mrs_super super;
	int fd = open_path(path, true), rc;

	if (fd < 0)
		return open_failed(fd, path, true);
	rc = mrs_super_read(fd, path, true, &super);
	/* What is not a pool is not ours to remove; a damaged pool is, by force. */
	if (rc && !(force && mrs_super_has_magic(fd)))
		goto out;
	rc = 0;
	if (!force && is_attached(fd))
		rc = mrs_fail(-EBUSY,
			      "a process is attached to %s: let it close the pool, or "
			      "destroy it by force (it keeps its memory until it ends)",
			      path);
	if (!rc && unlink(path))
		rc = mrs_fail_errno(-errno, "cannot remove %s", path);
out:
	close(fd);
	return rc;
}
