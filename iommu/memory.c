/*
 * The pool in this process, and how much of it may be pinned.
 *
 * The kernel pins by address, so the pool's file is mapped here from frame 0 on, apart from the
 * core's mappings: it is not registered with userfaultfd, so that pinning a resident page never
 * waits for a fault. It must not be touched where nothing is resident: that would put a page of
 * zeros there. The core's contract sees to that: it has runs mapped only while they are resident,
 * and takes them away before they go.
 *
 * What is pinned is counted per domain and per process; the process's sum is compared with
 * RLIMIT_MEMLOCK, which the kernel checks too, but without saying how much was asked for.
 */
#include <errno.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "internal.h"

/* ---- the pool's mapping ---- */

/* So that file offset and address agree modulo the largest page that can be behind them. */
static char *map_aligned(int fd, uint64_t bytes)
{
	uint64_t align = bytes >= MRS_GIANT_BYTES ? MRS_GIANT_BYTES : MRS_HUGE_BYTES;
	uint64_t room = mrs_round_up(bytes, MRS_HUGE_BYTES) + align;
	char *all = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *base, *end;

	if (all == MAP_FAILED)
		return NULL;
	base = (char *)(uintptr_t)mrs_round_up((uintptr_t)all, align);
	end = base + mrs_round_up(bytes, MRS_HUGE_BYTES);
	if (mmap(base, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd,
		 0) == MAP_FAILED) {
		munmap(all, room);
		return NULL;
	}
	if (base > all)
		munmap(all, (size_t)(base - all));
	if (end < all + room)
		munmap(end, (size_t)(all + room - end));
	return base;
}

static int map_pool(struct morsel_domain *domain, int fd, const struct stat *stat)
{
	struct mrs_pool_map *map = calloc(1, sizeof(*map));

	if (!map)
		return morsel_fail(-ENOMEM, "no memory for a mapping of the pool");
	map->device = stat->st_dev;
	map->inode = stat->st_ino;
	map->bytes = (uint64_t)stat->st_size;
	map->base = map_aligned(fd, map->bytes);
	if (!map->base) {
		free(map);
		return morsel_fail(-errno, "cannot map the pool's %llu bytes into this process: %s",
				   (unsigned long long)stat->st_size, strerror(errno));
	}
	madvise(map->base, map->bytes, MADV_DONTDUMP);
	if (madvise(map->base, map->bytes, MADV_DONTFORK)) {
		munmap(map->base, map->bytes);
		free(map);
		return morsel_fail(-errno, "madvise(MADV_DONTFORK): %s", strerror(errno));
	}
	map->next = domain->pools;
	domain->pools = map;
	return 0;
}

/* A pool that has grown is mapped once more: the kernel may hold addresses of the old mapping. */
int mrs_memory_at(struct morsel_domain *domain, int fd, uint64_t at, uint64_t bytes, void **address)
{
	struct mrs_pool_map *map;
	struct stat stat;
	int rc;

	if (fstat(fd, &stat))
		return morsel_fail(-errno, "fstat of the pool: %s", strerror(errno));
	if (at + bytes > (uint64_t)stat.st_size)
		return morsel_fail(-EIO, "frame %llu is beyond the end of the pool's file",
				   (unsigned long long)(at / MRS_PAGE_BYTES));
	for (map = domain->pools; map; map = map->next)
		if (map->device == stat.st_dev && map->inode == stat.st_ino &&
		    at + bytes <= map->bytes)
			break;
	if (!map) {
		rc = map_pool(domain, fd, &stat);
		if (rc)
			return rc;
		map = domain->pools;
	}
	*address = map->base + at;
	return 0;
}

void mrs_memory_free(struct morsel_domain *domain)
{
	while (domain->pools) {
		struct mrs_pool_map *map = domain->pools;

		domain->pools = map->next;
		munmap(map->base, map->bytes);
		free(map);
	}
}

/* ---- what may be pinned ---- */

static pthread_mutex_t sum_lock = PTHREAD_MUTEX_INITIALIZER; /* protects sum; nothing follows */
static uint64_t sum;

uint64_t mrs_memory_pinned_process(void)
{
	uint64_t now;

	pthread_mutex_lock(&sum_lock);
	now = sum;
	pthread_mutex_unlock(&sum_lock);
	return now;
}

void mrs_memory_pinned(struct morsel_domain *domain, int64_t bytes)
{
	pthread_mutex_lock(&sum_lock);
	sum += (uint64_t)bytes;
	pthread_mutex_unlock(&sum_lock);
	domain->pinned += (uint64_t)bytes;
}

bool mrs_memory_may_lock(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data))
		return false;
	return data[CAP_TO_INDEX(CAP_IPC_LOCK)].effective & CAP_TO_MASK(CAP_IPC_LOCK);
}

uint64_t mrs_memory_limit(struct morsel_domain *domain)
{
	struct rlimit limit;

	if (domain->may_lock || getrlimit(RLIMIT_MEMLOCK, &limit) ||
	    limit.rlim_cur == RLIM_INFINITY)
		return UINT64_MAX;
	return limit.rlim_cur;
}

uint64_t mrs_memory_lacks(struct morsel_domain *domain, uint64_t bytes)
{
	uint64_t limit = mrs_memory_limit(domain), pinned;

	if (limit == UINT64_MAX)
		return 0;
	pinned = mrs_memory_pinned_process();
	return pinned + bytes <= limit ? 0 : pinned + bytes - limit;
}

/* Locked memory of the process, however it came to be, as the kernel counts it. */
static uint64_t locked_bytes(void)
{
	FILE *file = fopen("/proc/self/status", "re");
	unsigned long long kib = 0;
	char line[128];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "VmLck: %llu", &kib) == 1)
			break;
	if (file)
		fclose(file);
	return kib * 1024;
}

int mrs_memory_refuse(struct morsel_domain *domain, uint64_t bytes)
{
	uint64_t limit = mrs_memory_limit(domain), pinned = mrs_memory_pinned_process();
	uint64_t used = mrs_max(locked_bytes(), pinned);

	return morsel_fail(
		-ENOMEM,
		"RLIMIT_MEMLOCK is %llu bytes: this process has locked %llu (%llu of them "
		"for devices), and %llu more are to be pinned; raise it to at least %llu "
		"(ulimit -l %llu, or LimitMEMLOCK= of the service)",
		(unsigned long long)limit, (unsigned long long)used, (unsigned long long)pinned,
		(unsigned long long)bytes, (unsigned long long)(used + bytes),
		(unsigned long long)((used + bytes + 1023) / 1024));
}
