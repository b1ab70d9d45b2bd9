/*
 * Checks of what the core stands on: shared sparse files, locks that die with their holder, huge
 * pages, and the limits on memory that an administrator or a container sets.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "commands.h"
#include "doctor.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define HUGE_BYTES  ((size_t)2 << 20)
#define SHM_LITTLE  ((uint64_t)1 << 30)
#define LOCK_LITTLE ((uint64_t)1 << 40)
#define MAPS_MANY   262144

static void check_kernel(struct finding *finding)
{
	struct utsname name;
	unsigned major = 0, minor = 0;

	uname(&name);
	sscanf(name.release, "%u.%u", &major, &minor);
	if (major > 6 || (major == 6 && minor >= 1)) {
		found(finding, HEALTH_OK, "Linux %s on %s", name.release, name.machine);
		return;
	}
	found(finding, HEALTH_LIMITED, "Linux %s is older than 6.1, the oldest that is tested",
	      name.release);
	remedy(finding, "boot a kernel of 6.1 or later");
}

static void check_page_size(struct finding *finding)
{
	long bytes = sysconf(_SC_PAGESIZE);

	found(finding, bytes == 4096 ? HEALTH_OK : HEALTH_MISSING, "%ld bytes", bytes);
	if (bytes != 4096)
		remedy(finding, "pools need pages of 4096 bytes: boot a kernel built for them");
}

static int64_t blocks_of(int fd)
{
	struct stat stat;

	return fstat(fd, &stat) ? -1 : (int64_t)stat.st_blocks;
}

static void check_memfd(struct finding *finding)
{
	int fd = memfd_create("morsel-doctor", MFD_CLOEXEC);

	if (fd < 0) {
		found(finding, HEALTH_MISSING, "memfd_create: %s%s", strerror(errno),
		      seccomp_hint());
		remedy(finding, "allow memfd_create in the container's seccomp profile");
		return;
	}
	if (ftruncate(fd, (off_t)1 << 40) || fallocate(fd, 0, 1 << 20, 1 << 16) ||
	    blocks_of(fd) <= 0 ||
	    fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1 << 20, 1 << 16) ||
	    blocks_of(fd) != 0)
		found(finding, HEALTH_MISSING, "no sparse memfd of 1 TiB: %s", strerror(errno));
	else
		found(finding, HEALTH_OK, "sparse to 1 TiB, holes give memory back");
	close(fd);
}

static int lock_byte(int fd)
{
	struct flock lock = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)1 << 62, .l_len = 1};

	return fcntl(fd, F_OFD_SETLK, &lock) ? -errno : 0;
}

static void check_locks(struct finding *finding)
{
	int fd = memfd_create("morsel-doctor", MFD_CLOEXEC);
	int again, first, second;
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, O_RDWR | O_CLOEXEC);
	first = lock_byte(fd);
	second = lock_byte(again);
	if (fd >= 0 && again >= 0 && !first && (second == -EAGAIN || second == -EACCES)) {
		found(finding, HEALTH_OK, "a second holder is refused, death lets go");
	} else {
		found(finding, HEALTH_MISSING, "open-file-description locks do not work here: %s",
		      again < 0 ? "/proc is not mounted"
		      : first	? strerror(-first)
				: "two holders at once");
		remedy(finding, "mount /proc; use a kernel of 3.15 or later");
	}
	if (again >= 0)
		close(again);
	if (fd >= 0)
		close(fd);
}

/* The thing itself: an anonymous pool, a morsel in it, a view, and a byte through it. */
static int try_core(void)
{
	struct morsel_pool_opts pool_opts = {
		.size = sizeof(pool_opts), .flags = MORSEL_POOL_CREATE, .bytes = 64 << 20};
	struct morsel_opts opts = {.size = sizeof(opts), .flags = MORSEL_CREATE, .bytes = 1 << 16};
	struct morsel_pool *pool;
	struct morsel_view *view;
	struct morsel *morsel;
	int rc = morsel_pool_open(NULL, &pool_opts, &pool);

	if (rc < 0)
		return rc;
	rc = morsel_open(pool, "doctor", &opts, &morsel);
	if (rc >= 0) {
		rc = morsel_map(morsel, NULL, &view);
		if (rc >= 0) {
			memset(morsel_addr(view), 1, 1 << 16);
			morsel_view_destroy(view);
		}
		morsel_close(morsel);
	}
	morsel_pool_close(pool);
	return rc;
}

static void check_core(struct finding *finding)
{
	int rc = try_core();

	if (rc >= 0)
		found(finding, HEALTH_OK,
		      "a pool, a morsel and a view were made, used and dropped");
	else
		found(finding, HEALTH_MISSING, "%s", morsel_errormsg());
}

/* The word in brackets of a setting like "always [madvise] never". */
static const char *chosen(const char *path, char *buffer, size_t room)
{
	char *open;

	if (!read_line(path, buffer, room))
		return "absent";
	open = strchr(buffer, '[');
	if (!open)
		return buffer;
	open[strcspn(open, "]")] = 0;
	return open + 1;
}

static void check_thp(struct finding *finding)
{
	char enabled[128], shmem[128];
	const char *anon =
		chosen("/sys/kernel/mm/transparent_hugepage/enabled", enabled, sizeof(enabled));
	const char *shared =
		chosen("/sys/kernel/mm/transparent_hugepage/shmem_enabled", shmem, sizeof(shmem));

	if (!strcmp(anon, "absent")) {
		found(finding, HEALTH_MISSING, "the kernel has no transparent huge pages");
		remedy(finding, "boot a kernel with CONFIG_TRANSPARENT_HUGEPAGE");
		return;
	}
	found(finding, HEALTH_OK, "enabled=%s, shmem_enabled=%s%s", anon, shared,
	      !strcmp(shared, "never") ? " (pools ask by MADV_COLLAPSE, which works all the same)"
				       : "");
}

/* A memfd of 4 MiB, mapped so that one aligned 2 MiB is in it; collapses that. 0 or -errno. */
static int try_collapse(void)
{
	int fd = memfd_create("morsel-doctor", MFD_CLOEXEC);
	char *map = MAP_FAILED, *aligned;
	int rc = 0;

	if (fd < 0 || ftruncate(fd, 2 * HUGE_BYTES))
		rc = -errno;
	else
		map = mmap(NULL, 3 * HUGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!rc && map == MAP_FAILED)
		rc = -errno;
	if (!rc) {
		aligned = map + (-(uintptr_t)map & (HUGE_BYTES - 1));
		if (mmap(aligned, HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
			 0) == MAP_FAILED)
			rc = -errno;
		else
			memset(aligned, 1, HUGE_BYTES);
		if (!rc && madvise(aligned, HUGE_BYTES, MADV_COLLAPSE))
			rc = -errno;
	}
	if (map != MAP_FAILED)
		munmap(map, 3 * HUGE_BYTES);
	if (fd >= 0)
		close(fd);
	return rc;
}

static void check_collapse(struct finding *finding)
{
	int rc = try_collapse();

	if (!rc) {
		found(finding, HEALTH_OK, "2 MiB of a memfd were collapsed into a huge page");
		return;
	}
	found(finding, rc == -ENOMEM || rc == -EAGAIN ? HEALTH_LIMITED : HEALTH_MISSING,
	      "MADV_COLLAPSE: %s%s", strerror(-rc), rc == -EPERM ? seccomp_hint() : "");
	remedy(finding, rc == -EINVAL ? "use a kernel of 6.1 or later with transparent huge pages; "
					"pools fall back to 4 KiB pages"
				      : "free memory, or write 1 to /proc/sys/vm/compact_memory; "
					"pools fall back to 4 KiB pages");
}

/* Path of the first mount of a type with pages of the default size; false if there is none. */
static bool find_mount(const char *type, const char *option, char *path, size_t room)
{
	FILE *file = fopen("/proc/self/mounts", "re");
	char line[1024], where[512], what[64], options[256];
	bool hit = false;

	while (file && !hit && fgets(line, sizeof(line), file))
		if (sscanf(line, "%*s %511s %63s %255s", where, what, options) == 3)
			hit = !strcmp(what, type) && (!option || strstr(options, option));
	if (file)
		fclose(file);
	if (hit)
		snprintf(path, room, "%s", where);
	return hit;
}

static void check_hugetlb(struct finding *finding)
{
	const char *huge = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
	uint64_t all = read_number(huge, UINT64_MAX);
	uint64_t giant =
		read_number("/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", 0);
	uint64_t left = read_number("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", 0);
	char path[512] = "";
	bool mounted = find_mount("hugetlbfs", NULL, path, sizeof(path));

	if (all == UINT64_MAX) {
		found(finding, HEALTH_MISSING, "the kernel has no hugetlb pages of 2 MiB");
		remedy(finding, "boot a kernel with CONFIG_HUGETLBFS; other pools do not need it");
		return;
	}
	found(finding,
	      all && mounted   ? HEALTH_OK
	      : all || mounted ? HEALTH_LIMITED
			       : HEALTH_MISSING,
	      "%" PRIu64 " pages of 2 MiB, %" PRIu64 " free; %" PRIu64 " of 1 GiB; hugetlbfs %s%s",
	      all, left, giant, mounted ? "at " : "not mounted", path);
	if (finding->health != HEALTH_OK)
		remedy(finding, "%s%s%s (as root; only pools on hugetlbfs need it)",
		       all ? "" : "sysctl vm.nr_hugepages=512", all || mounted ? "" : " && ",
		       mounted ? "" : "mount -t hugetlbfs none /mnt/huge");
}

static bool may_lock_all(void)
{
	FILE *file = fopen("/proc/self/status", "re");
	unsigned long long effective = 0;
	char line[256];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "CapEff: %llx", &effective) == 1)
			break;
	if (file)
		fclose(file);
	return effective >> 14 & 1; /* CAP_IPC_LOCK */
}

static void check_memlock(struct finding *finding)
{
	struct rlimit limit = {0};
	char text[SIZE_TEXT_BYTES];

	getrlimit(RLIMIT_MEMLOCK, &limit);
	if (limit.rlim_cur == RLIM_INFINITY || may_lock_all()) {
		found(finding, HEALTH_OK, "no limit%s",
		      limit.rlim_cur == RLIM_INFINITY ? "" : " (CAP_IPC_LOCK)");
		return;
	}
	found(finding, limit.rlim_cur < LOCK_LITTLE ? HEALTH_LIMITED : HEALTH_OK,
	      "%s of locked memory: bounds what RDMA and VFIO can pin",
	      size_text(limit.rlim_cur, false, text));
	if (finding->health != HEALTH_OK)
		remedy(finding, "ulimit -l unlimited, or memlock in /etc/security/limits.conf");
}

static void check_map_count(struct finding *finding)
{
	uint64_t count = read_number("/proc/sys/vm/max_map_count", 65530);

	found(finding, count < MAPS_MANY ? HEALTH_LIMITED : HEALTH_OK,
	      "%" PRIu64 " mappings: bounds the runs of a stitched view", count);
	if (count < MAPS_MANY)
		remedy(finding,
		       "sysctl vm.max_map_count=1048576 (as root), if morsels are scattered");
}

static void check_shm(struct finding *finding)
{
	char all[SIZE_TEXT_BYTES], left[SIZE_TEXT_BYTES];
	uint64_t bytes, bytes_free;
	struct statfs store;

	if (statfs("/dev/shm", &store) || store.f_type != TMPFS_MAGIC) {
		found(finding, HEALTH_MISSING, "/dev/shm is not a tmpfs");
		remedy(finding, "mount -t tmpfs tmpfs /dev/shm, or put pools on another tmpfs");
		return;
	}
	bytes = (uint64_t)store.f_blocks * (uint64_t)store.f_bsize;
	bytes_free = (uint64_t)store.f_bavail * (uint64_t)store.f_bsize;
	found(finding, bytes_free < SHM_LITTLE ? HEALTH_LIMITED : HEALTH_OK, "%s of %s free%s",
	      size_text(bytes_free, false, left), size_text(bytes, false, all),
	      access("/dev/shm", W_OK) ? ", but not writable" : "");
	if (access("/dev/shm", W_OK))
		finding->health = HEALTH_LIMITED;
	if (finding->health != HEALTH_OK)
		remedy(finding, "mount -o remount,size=SIZE /dev/shm (as root); for a container "
				"--shm-size=SIZE");
}

/* ---- the memory cgroup ---- */

/* This process's path in the hierarchy of controller ("" for version 2). */
static bool cgroup_path(const char *controller, char *path, size_t room)
{
	FILE *file = fopen("/proc/self/cgroup", "re");
	char line[1024];
	bool hit = false;

	while (file && !hit && fgets(line, sizeof(line), file)) {
		char *names = strchr(line, ':');
		char *where = names ? strchr(names + 1, ':') : NULL;

		if (!where)
			continue;
		*where = 0;
		if (strcmp(names + 1, controller))
			continue;
		where[1 + strcspn(where + 1, "\n")] = 0;
		snprintf(path, room, "%s", where + 1);
		hit = true;
	}
	if (file)
		fclose(file);
	return hit;
}

/* The least limit from path up to the root of the mount; UINT64_MAX if there is none. */
static uint64_t least_limit(const char *mount, char *path, const char *name)
{
	uint64_t least = UINT64_MAX, limit;
	char file[2048];

	for (;;) {
		char *slash = strrchr(path, '/');

		snprintf(file, sizeof(file), "%s%s/%s", mount, path, name);
		limit = read_number(file, UINT64_MAX);
		if (limit < least)
			least = limit;
		if (!slash)
			return least;
		*slash = 0;
	}
}

static uint64_t cgroup_limit(void)
{
	uint64_t least = UINT64_MAX, limit;
	char mount[512], path[1024];

	if (cgroup_path("", path, sizeof(path)) &&
	    find_mount("cgroup2", NULL, mount, sizeof(mount)))
		least = least_limit(mount, path, "memory.max");
	if (cgroup_path("memory", path, sizeof(path)) &&
	    find_mount("cgroup", "memory", mount, sizeof(mount))) {
		limit = least_limit(mount, path, "memory.limit_in_bytes");
		least = limit < least ? limit : least;
	}
	return least;
}

static void check_cgroup(struct finding *finding)
{
	uint64_t limit = cgroup_limit();
	uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	char text[SIZE_TEXT_BYTES], all[SIZE_TEXT_BYTES];

	if (limit >= memory) {
		found(finding, HEALTH_OK, "no limit below the machine's %s",
		      size_text(memory, false, all));
		return;
	}
	found(finding, HEALTH_LIMITED, "%s of the machine's %s; pools on tmpfs and memfd count",
	      size_text(limit, false, text), size_text(memory, false, all));
	remedy(finding,
	       "give the container or unit more memory (memory.max), or the pool a --budget");
}

static void check_numa(struct finding *finding)
{
	int nodes = count_entries("/sys/devices/system/node", "node");
	unsigned long mask = 1;
	void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long rc = page == MAP_FAILED ? 0 : syscall(SYS_mbind, page, 4096, 1, &mask, 8, 0);

	if (page != MAP_FAILED)
		munmap(page, 4096);
	if (nodes <= 0)
		nodes = 1;
	if (nodes > 1 && rc) {
		found(finding, HEALTH_LIMITED, "%d nodes, but mbind: %s%s", nodes, strerror(errno),
		      seccomp_hint());
		remedy(finding, "allow mbind in the container's seccomp profile (CAP_SYS_NICE)");
		return;
	}
	found(finding, HEALTH_OK, "%d node%s%s", nodes, nodes == 1 ? "" : "s",
	      nodes == 1 ? ": --node has nothing to choose from" : "");
}

const struct check memory_checks[] = {
	{"kernel", "kernel", false, check_kernel},
	{"page_size", "page size", true, check_page_size},
	{"memfd", "memfd", true, check_memfd},
	{"ofd_locks", "OFD locks", true, check_locks},
	{"core", "core", true, check_core},
	{"thp", "huge pages", false, check_thp},
	{"collapse", "MADV_COLLAPSE", false, check_collapse},
	{"hugetlb", "hugetlb", false, check_hugetlb},
	{"memlock", "RLIMIT_MEMLOCK", false, check_memlock},
	{"max_map_count", "max_map_count", false, check_map_count},
	{"shm", "/dev/shm", false, check_shm},
	{"cgroup", "memory cgroup", false, check_cgroup},
	{"numa", "NUMA", false, check_numa},
};
const size_t memory_checks_count = array_length(memory_checks);
