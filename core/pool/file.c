/*
 * The pool's file: descriptors of its own, what kind of memory it is, and the metadata mapping.
 *
 * A lock belongs to a file description, and a description travels with every dup, fork and
 * SCM_RIGHTS. Hence each handle opens the file anew through /proc/self/fd, whatever it was given.
 * The mapping covers the pool's largest size, so that growing never moves it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/compat.h"
#include "pool/internal.h"

int64_t mrs_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ll + now.tv_nsec;
}

void mrs_sleep_ns(int64_t ns)
{
	struct timespec time = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};

	nanosleep(&time, NULL);
}

const char *mrs_kind_text(uint32_t kind)
{
	static const char *const names[] = {"auto", "memfd", "tmpfs", "hugetlbfs", "file"};

	return kind < mrs_array_length(names) ? names[kind] : "unknown";
}

/* Without /proc the path may be opened once more, if it still leads to the same file. */
static int reopen_by_path(int fd, const char *path, int flags)
{
	struct stat is, was;
	int other = open(path, flags | O_CLOEXEC | O_NOFOLLOW);

	if (other < 0)
		return -ENOENT;
	if (fstat(other, &is) || fstat(fd, &was) || is.st_ino != was.st_ino ||
	    is.st_dev != was.st_dev) {
		close(other);
		return -ENOENT;
	}
	return other;
}

int mrs_file_reopen(int fd, const char *path, int flags)
{
	char link[40];
	int other;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	other = open(link, flags | O_CLOEXEC);
	if (other >= 0)
		return other;
	other = -errno;
	if (other == -ENOENT && path)
		other = reopen_by_path(fd, path, flags);
	if (other == -ENOENT)
		return mrs_fail(-ENOENT, "cannot open the pool's file anew: /proc is not mounted; "
					 "morsel needs /proc/self/fd");
	if (other < 0)
		return mrs_fail_errno(other,
				      "cannot open the pool's file anew through %s for %s: "
				      "its mode and owner decide",
				      link,
				      (flags & O_ACCMODE) == O_RDONLY ? "reading" : "writing");
	return other;
}

int mrs_file_kind(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs))
		return -errno;
	if ((uint32_t)fs.f_type == TMPFS_MAGIC)
		return MORSEL_POOL_TMPFS;
	if ((uint32_t)fs.f_type == HUGETLBFS_MAGIC)
		return MORSEL_POOL_HUGETLB;
	return MORSEL_POOL_FILE;
}

static int map_failed(struct morsel_pool *pool, size_t bytes)
{
	char text[16];

	return mrs_fail_errno(-errno,
			      "cannot map %s of %s: its largest size (bytes_max) must fit "
			      "into the address space (ulimit -v)",
			      mrs_bytes_text(bytes, text), pool->path);
}

int mrs_file_map(struct morsel_pool *pool, size_t bytes)
{
	size_t align = bytes >= MRS_GIANT_BYTES ? MRS_GIANT_BYTES : MRS_HUGE_BYTES;
	int protection = pool->read_only ? PROT_READ : PROT_READ | PROT_WRITE;
	unsigned char *base, *at;

	base = mmap(NULL, bytes + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		    0);
	if (base == MAP_FAILED)
		return map_failed(pool, bytes);
	at = (unsigned char *)mrs_round_up((uintptr_t)base, align);
	if (mmap(at, bytes, protection, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, pool->fd, 0) ==
	    MAP_FAILED) {
		int rc = map_failed(pool, bytes);

		munmap(base, bytes + align);
		return rc;
	}
	if (at > base)
		munmap(base, at - base);
	munmap(at + bytes, base + align - at);
	/* Before the first touch: a child of fork must not reach the pool through our mapping. */
	madvise(at, bytes, MADV_DONTFORK);
	madvise(at, bytes, MADV_DONTDUMP);
	pool->map = at;
	pool->map_bytes = bytes;
	return 0;
}

void mrs_file_unmap(struct morsel_pool *pool)
{
	if (pool->map)
		munmap(pool->map, pool->map_bytes);
	pool->map = NULL;
}

int mrs_file_prefer_node(struct morsel_pool *pool, uint64_t frame, uint64_t count,
			 uint32_t node_plus_1)
{
	unsigned long mask[16] = {0};
	unsigned bits = 8 * sizeof(mask[0]), node = node_plus_1 - 1;

	if (!node_plus_1)
		return 0;
	if (pool->kind == MORSEL_POOL_FILE)
		return mrs_fail(-EOPNOTSUPP,
				"%s is a file on disk: its page cache has no NUMA "
				"node; leave node_plus_1 at 0 or use memfd, tmpfs or hugetlbfs",
				pool->path);
	if (node >= sizeof(mask) * 8)
		return mrs_fail(-EINVAL,
				"NUMA node %u does not exist: the highest that can be is "
				"%zu",
				node, sizeof(mask) * 8 - 1);
	mask[node / bits] = 1ul << node % bits;
	if (syscall(SYS_mbind, pool->map + frame * MRS_PAGE_BYTES, count * MRS_PAGE_BYTES,
		    MPOL_PREFERRED, mask, sizeof(mask) * 8, 0) == 0)
		return 0;
	if (errno == EINVAL)
		return mrs_fail(-EINVAL,
				"NUMA node %u does not exist on this machine: see "
				"/sys/devices/system/node/online",
				node);
	return mrs_fail_errno(-errno, "the kernel does not bind %s to NUMA node %u", pool->path,
			      node);
}

int mrs_file_set_size(struct morsel_pool *pool, uint64_t bytes)
{
	struct rlimit limit;
	char text[2][16];

	/* Beyond the limit the kernel would kill us with SIGXFSZ. */
	if (!getrlimit(RLIMIT_FSIZE, &limit) && bytes > limit.rlim_cur)
		return mrs_fail(-EFBIG,
				"%s would be %s large, the limit of this process is %s: "
				"ulimit -f",
				pool->path, mrs_bytes_text(bytes, text[0]),
				mrs_bytes_text(limit.rlim_cur, text[1]));
	if (ftruncate(pool->fd, (off_t)bytes))
		return mrs_fail_errno(-errno, "cannot make %s %s large", pool->path,
				      mrs_bytes_text(bytes, text[0]));
	return 0;
}

int mrs_file_reserve(struct morsel_pool *pool, uint64_t offset, uint64_t bytes, const char *what)
{
	uint64_t block = mrs_pool_block_frames(pool) * MRS_PAGE_BYTES;
	uint64_t first = mrs_round_down(offset, block);
	uint64_t end = mrs_round_up(offset + bytes, block);
	char text[2][16];
	struct statvfs fs;
	int rc;

	do
		rc = fallocate(pool->fd, FALLOC_FL_KEEP_SIZE, (off_t)first, (off_t)(end - first))
			     ? -errno
			     : 0;
	while (rc == -EINTR);
	if (!rc)
		return 0;
	if (rc == -EOPNOTSUPP)
		return mrs_fail(rc,
				"the file system of %s cannot reserve space (fallocate): put "
				"the pool on tmpfs, hugetlbfs, ext4, xfs or btrfs",
				pool->path);
	if (rc != -ENOSPC && rc != -ENOMEM && rc != -EDQUOT)
		return mrs_fail_errno(rc, "cannot reserve space for %s of %s", what, pool->path);
	if (fstatvfs(pool->fd, &fs))
		memset(&fs, 0, sizeof(fs));
	return mrs_fail(-ENOSPC,
			"no space for %s of %s: %s needed, %s free on its %s; enlarge it "
			"or remove something",
			what, pool->path, mrs_bytes_text(end - first, text[0]),
			mrs_bytes_text((uint64_t)fs.f_bavail * fs.f_frsize, text[1]),
			mrs_kind_text(pool->kind));
}
