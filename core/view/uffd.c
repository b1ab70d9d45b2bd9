/*
 * userfaultfd: opening it with all that this process may have, and its ioctls in one place.
 *
 * Three ways to a descriptor, best first: the system call, the device (whoever may open it), and
 * the system call for faults of user code only, which anybody may make. What an ioctl answers is
 * put into the few cases that matter here; nothing in it is an error of the caller's.
 */
#include "view/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/base.h"
#include "base/compat.h"
#include "object/bring.h"
#include "pool/internal.h"
#include "view/pager.h"

#define NEEDED                                                         \
	(UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_MISSING_SHMEM | \
	 UFFD_FEATURE_WP_HUGETLBFS_SHMEM)
#define MODES (UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP)

/* ---- opening ---- */

static int open_device(void)
{
	int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC), fd;

	if (device < 0)
		return -errno;
	fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	fd = fd < 0 ? -errno : fd;
	close(device);
	return fd;
}

static int open_call(int flags)
{
	long fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags);

	return fd < 0 ? -errno : (int)fd;
}

static int open_best(bool *user_only)
{
	int fd = open_call(0);

	*user_only = false;
	if (fd < 0)
		fd = open_device();
	if (fd >= 0)
		return fd;
	*user_only = true;
	return open_call(UFFD_USER_MODE_ONLY);
}

static int not_opened(int rc)
{
	if (rc == -EMFILE || rc == -ENFILE)
		return mrs_fail_errno(rc, "no descriptor left for userfaultfd (RLIMIT_NOFILE)");
	if (rc == -ENOSYS)
		return mrs_fail(
			-EOPNOTSUPP,
			"this kernel has no userfaultfd (CONFIG_USERFAULTFD), which views of "
			"evictable morsels need");
	return mrs_fail(
		-EOPNOTSUPP,
		"userfaultfd is forbidden here (%s), which views of evictable morsels need: "
		"allow it in the container's seccomp profile, or give access to "
		"/dev/userfaultfd",
		strerror(-rc));
}

/* Asking what there is uses a descriptor up: the answer is for the next one. */
static int features_of_kernel(uint64_t *features)
{
	struct uffdio_api api = {.api = UFFD_API};
	bool user_only;
	int fd = open_best(&user_only), rc = 0;

	if (fd < 0)
		return not_opened(fd);
	if (ioctl(fd, UFFDIO_API, &api))
		rc = mrs_fail(-EOPNOTSUPP,
			      "userfaultfd of this kernel speaks another interface: %s",
			      strerror(errno));
	close(fd);
	*features = api.features;
	if (!rc && (~api.features & NEEDED))
		rc = mrs_fail(
			-EOPNOTSUPP,
			"userfaultfd of this kernel lacks%s%s%s for shared memory, which views "
			"of evictable morsels need: Linux 5.19 has them",
			api.features & UFFD_FEATURE_MISSING_SHMEM ? "" : " missing faults",
			api.features & UFFD_FEATURE_PAGEFAULT_FLAG_WP ? "" : " write protection",
			api.features & UFFD_FEATURE_WP_HUGETLBFS_SHMEM
				? ""
				: " write protection (WP_HUGETLBFS_SHMEM)");
	return rc;
}

/* Under mrs_fork_hold(): the descriptor is noted before a fork can pass it on. */
static int open_with(struct mrs_faults *faults, uint64_t features)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features};
	int fd = open_best(&faults->user_only);

	if (fd < 0)
		return not_opened(fd);
	if (ioctl(fd, UFFDIO_API, &api)) {
		int rc = mrs_fail_errno(-errno, "userfaultfd refuses what it has just offered");

		close(fd);
		return rc;
	}
	faults->features = api.features & features;
	mrs_store_release32(&faults->fd_plus_1, (uint32_t)fd + 1);
	return 0;
}

static void forget_fd(struct mrs_faults *faults)
{
	mrs_fork_hold();
	close((int)faults->fd_plus_1 - 1);
	mrs_store_release32(&faults->fd_plus_1, 0);
	mrs_fork_release();
}

/* What a fault would have to allocate is there before the first: it may come in a signal handler.
 */
static int prepare_faults(struct morsel_pool *pool)
{
	int rc = mrs_bring_prepare(pool);

	return rc || mrs_swap_of(pool) ? rc : -ENOMEM;
}

static int open_faults(struct mrs_faults *faults)
{
	uint64_t features = 0;
	int rc = features_of_kernel(&features);

	if (!rc)
		rc = prepare_faults(faults->part.pool);
	if (rc)
		return rc;
	features &= NEEDED | UFFD_FEATURE_POISON | UFFD_FEATURE_MISSING_HUGETLBFS |
		    (faults->sigbus ? UFFD_FEATURE_SIGBUS : 0);
	mrs_fork_hold();
	rc = open_with(faults, features);
	mrs_fork_release();
	if (rc)
		return rc;
	rc = faults->sigbus ? mrs_sigbus_install() : mrs_fault_threads_start(faults);
	if (rc)
		forget_fd(faults);
	return rc;
}

/* ---- the part of the handle ---- */

static void stop_faults(struct mrs_part *part)
{
	struct mrs_faults *faults = (struct mrs_faults *)part;

	mrs_fault_threads_stop(faults);
	if (faults->fd_plus_1)
		forget_fd(faults);
	pthread_mutex_destroy(&faults->lock);
	pthread_mutex_destroy(&faults->threads.lock);
	pthread_cond_destroy(&faults->threads.put_aside);
	free(faults);
}

static void faults_in_child(struct mrs_part *part)
{
	struct mrs_faults *faults = (struct mrs_faults *)part;

	mrs_regions_in_child(part->pool);
	if (faults->fd_plus_1)
		close((int)faults->fd_plus_1 - 1);
	faults->fd_plus_1 = 0;
}

static int make_faults(struct morsel_pool *pool, struct mrs_part **part)
{
	struct mrs_faults *faults = calloc(1, sizeof(*faults));

	if (!faults)
		return mrs_fail(-ENOMEM, "no memory for userfaultfd's state");
	faults->part = (struct mrs_part){pool, stop_faults, faults_in_child};
	faults->sigbus = mrs_pool_faults(pool) == MORSEL_FAULTS_SIGBUS;
	pthread_mutex_init(&faults->lock, NULL);
	pthread_mutex_init(&faults->threads.lock, NULL);
	pthread_cond_init(&faults->threads.put_aside, NULL);
	*part = &faults->part;
	return 0;
}

int mrs_faults_of(struct morsel_pool *pool, struct mrs_faults **out)
{
	struct mrs_faults *faults;
	struct mrs_part *part;
	int rc = mrs_pool_part_make(pool, MRS_PART_FAULTS, make_faults, &part);

	if (rc)
		return rc;
	faults = (struct mrs_faults *)part;
	if (!mrs_load_acquire32(&faults->fd_plus_1)) {
		pthread_mutex_lock(&faults->lock);
		if (!faults->fd_plus_1)
			rc = open_faults(faults);
		pthread_mutex_unlock(&faults->lock);
	}
	if (!rc)
		*out = faults;
	return rc;
}

int mrs_uffd_fd(struct morsel_pool *pool)
{
	struct mrs_faults *faults = (struct mrs_faults *)mrs_pool_part(pool, MRS_PART_FAULTS);

	return faults ? (int)mrs_load_acquire32(&faults->fd_plus_1) - 1 : -1;
}

int morsel_pool_faults(struct morsel_pool *pool)
{
	struct mrs_faults *faults;
	int rc = mrs_pool_usable(pool, true);

	if (!rc)
		rc = mrs_uffd_kind_check(pool);
	if (!rc)
		rc = mrs_faults_of(pool, &faults);
	if (rc)
		return rc;
	if (faults->sigbus)
		return mrs_sigbus_stands() ? MORSEL_FAULT_SIGBUS : MORSEL_FAULT_REPLACED;
	return faults->user_only ? MORSEL_FAULT_USER : MORSEL_FAULT_TRANSPARENT;
}

/* ---- ranges ---- */

int mrs_uffd_kind_check(struct morsel_pool *pool)
{
	if (pool->kind != MORSEL_POOL_FILE)
		return 0;
	return mrs_fail(-EOPNOTSUPP,
			"%s is a file on disk: the kernel evicts its pages by itself, and has no "
			"userfaultfd for them; pools of memfd and tmpfs have",
			pool->path);
}

int mrs_uffd_register(struct morsel_pool *pool, void *address, uint64_t bytes)
{
	struct uffdio_register range = {
		.range = {(uintptr_t)address, bytes},
		.mode = MODES,
	};
	struct mrs_faults *faults;
	int rc = mrs_uffd_kind_check(pool);

	if (!rc)
		rc = mrs_faults_of(pool, &faults);
	if (rc)
		return rc;
	if (!ioctl(mrs_uffd_fd(pool), UFFDIO_REGISTER, &range))
		return 0;
	if (errno == ENOMEM)
		return mrs_fail(-ENOMEM, "no memory to watch a view of %llu bytes with userfaultfd",
				(unsigned long long)bytes);
	if (errno == EBUSY)
		return mrs_fail(-EBUSY, "another userfaultfd watches the addresses of this view");
	return mrs_fail(-EOPNOTSUPP, "userfaultfd cannot watch a view of %s: %s", pool->path,
			strerror(errno));
}

void mrs_uffd_unregister(struct morsel_pool *pool, void *address, uint64_t bytes)
{
	struct uffdio_range range = {(uintptr_t)address, bytes};
	int fd = mrs_uffd_fd(pool);

	if (fd >= 0)
		ioctl(fd, UFFDIO_UNREGISTER, &range);
}

/* ---- pages: async-signal-safe ---- */

/* *done: bytes that were copied. EAGAIN: only some were, and the next call says why. */
static int copy_once(int fd, uint64_t to, const char *from, uint64_t bytes, uint64_t mode,
		     uint64_t *done)
{
	struct uffdio_copy copy = {
		.dst = to, .src = (uintptr_t)from, .len = bytes, .mode = mode, .copy = 0};

	*done = 0;
	if (!ioctl(fd, UFFDIO_COPY, &copy)) {
		*done = bytes;
		return 0;
	}
	if (errno != EAGAIN)
		return -errno;
	if (copy.copy > 0)
		*done = (uint64_t)copy.copy;
	else
		sched_yield();
	return 0;
}

int mrs_uffd_copy(int fd, void *to, const void *from, uint64_t bytes, bool protect)
{
	uint64_t at = 0, done, there = 0, most = bytes;
	int rc;

	while (at < bytes) {
		rc = copy_once(fd, (uintptr_t)to + at, (const char *)from + at,
			       mrs_min(most, bytes - at), protect ? UFFDIO_COPY_MODE_WP : 0, &done);
		if (rc == -EEXIST) {
			done = MRS_PAGE_BYTES;
			there += done;
			mrs_uffd_wake(fd, (uintptr_t)to + at, done);
		} else if (rc == -ENOENT && mrs_min(most, bytes - at) > MRS_PAGE_BYTES) {
			/* One call does not go beyond one mapping: of a stitched view, a run. */
			most = MRS_PAGE_BYTES;
			continue;
		} else if (rc) {
			return rc;
		}
		at += done;
	}
	return (int)(there / MRS_PAGE_BYTES);
}

static int protect_once(int fd, uint64_t address, uint64_t bytes, bool on)
{
	struct uffdio_writeprotect protect = {
		.range = {address, bytes},
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	while (ioctl(fd, UFFDIO_WRITEPROTECT, &protect)) {
		if (errno != EAGAIN)
			return -errno;
		sched_yield();
	}
	return 0;
}

/* The kernel stops at a gap (an invalidated range): what it refuses as a whole is halved. */
int mrs_uffd_protect(int fd, uint64_t address, uint64_t bytes, bool on)
{
	uint64_t half = mrs_round_down(bytes / 2, MRS_PAGE_BYTES);
	int rc = protect_once(fd, address, bytes, on), more;

	if (rc != -ENOENT || !half)
		return rc;
	rc = mrs_uffd_protect(fd, address, half, on);
	if (rc && rc != -ENOENT)
		return rc;
	more = mrs_uffd_protect(fd, address + half, bytes - half, on);
	return more == -ENOENT ? rc : more;
}

int mrs_uffd_wake(int fd, uint64_t address, uint64_t bytes)
{
	struct uffdio_range range = {address, bytes};

	return ioctl(fd, UFFDIO_WAKE, &range) ? -errno : 0;
}

int mrs_uffd_poison(int fd, uint64_t address, uint64_t bytes)
{
	struct uffdio_poison poison = {.range = {address, bytes}};

	while (ioctl(fd, UFFDIO_POISON, &poison)) {
		if (errno == EAGAIN) {
			sched_yield();
			continue;
		}
		return errno == EINVAL || errno == ENOTTY ? -EOPNOTSUPP : -errno;
	}
	return 0;
}

int mrs_uffd_refuse(int fd, uint64_t address)
{
	int rc = mrs_uffd_poison(fd, address, MRS_PAGE_BYTES);

	/* A page that nobody may touch stands where there can be no poison. */
	if (rc == -EOPNOTSUPP)
		mmap((void *)(uintptr_t)address, MRS_PAGE_BYTES, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	if (rc)
		mrs_uffd_wake(fd, address, MRS_PAGE_BYTES);
	return rc == -EEXIST ? rc : 0;
}

int mrs_region_fault(const struct mrs_region *region, int fd, uint64_t address, unsigned kind)
{
	struct mrs_window window = {
		.fd = fd,
		.address = region->address,
		.first = region->first,
		.pages = region->bytes / MRS_PAGE_BYTES,
		.writable = region->writable,
		.listed = region->listed,
	};
	uint64_t page = region->first + (address - region->address) / MRS_PAGE_BYTES;

	return mrs_fault(region->morsel, &window, page, (enum mrs_fault_kind)kind);
}
