/*
 * Checks of what later services use to watch and move pages: userfaultfd in both of its modes,
 * PAGEMAP_SCAN, io_uring. The numbers stand here because older headers lack them.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "commands.h"
#include "doctor.h"

#define UFFD_USER_MODE	1 /* faults of user code only: needs no privilege */
#define UFFD_API	0xaa
#define UFFD_DEVICE_NEW _IO(0xaa, 0x00)

struct uffd_api {
	uint64_t api, features, ioctls;
};
#define UFFD_IOCTL_API _IOWR(0xaa, 0x3f, struct uffd_api)

static const struct {
	unsigned bit;
	const char *name;
} wanted[] = {
	{0, "PAGEFAULT_FLAG_WP"},   {5, "MISSING_SHMEM"}, {7, "SIGBUS"},    {10, "MINOR_SHMEM"},
	{12, "WP_HUGETLBFS_SHMEM"}, {14, "POISON"},	  {15, "WP_ASYNC"},
};

static int uffd_call(int flags)
{
	long fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags);

	return fd < 0 ? -errno : (int)fd;
}

static int uffd_device(void)
{
	int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	int fd, code;

	if (device < 0)
		return -errno;
	fd = ioctl(device, UFFD_DEVICE_NEW, O_CLOEXEC | O_NONBLOCK);
	code = errno;
	close(device);
	return fd < 0 ? -code : fd;
}

static void check_uffd(struct finding *finding)
{
	int fd = uffd_call(0);
	bool by_device = false;

	if (fd < 0) {
		fd = uffd_device();
		by_device = fd >= 0;
	}
	if (fd >= 0) {
		found(finding, HEALTH_OK, "user and kernel faults%s",
		      by_device ? ", by /dev/userfaultfd" : "");
		close(fd);
		return;
	}
	fd = uffd_call(UFFD_USER_MODE);
	if (fd >= 0) {
		found(finding, HEALTH_LIMITED,
		      "user faults only: system calls on evicted pages would fail");
		remedy(finding, "give access to /dev/userfaultfd (a udev rule), or sysctl "
				"vm.unprivileged_userfaultfd=1 (as root)");
		close(fd);
		return;
	}
	found(finding, HEALTH_MISSING, "userfaultfd: %s%s", strerror(-fd), seccomp_hint());
	remedy(finding, fd == -ENOSYS && !seccomp_filters()
				? "boot a kernel with CONFIG_USERFAULTFD"
				: "allow userfaultfd in the container's seccomp profile, or pass "
				  "/dev/userfaultfd into it");
}

static void check_uffd_features(struct finding *finding)
{
	struct uffd_api api = {.api = UFFD_API};
	char lacking[256] = "";
	int fd = uffd_call(UFFD_USER_MODE);
	size_t i, used = 0;

	if (fd < 0)
		fd = uffd_device();
	if (fd < 0 || ioctl(fd, UFFD_IOCTL_API, &api)) {
		found(finding, HEALTH_MISSING, "not to be asked: %s",
		      strerror(fd < 0 ? -fd : errno));
		remedy(finding, "see userfaultfd above");
	} else {
		for (i = 0; i < array_length(wanted); i++)
			if (!(api.features >> wanted[i].bit & 1))
				used += (size_t)snprintf(lacking + used, sizeof(lacking) - used,
							 " %s", wanted[i].name);
		found(finding, used ? HEALTH_LIMITED : HEALTH_OK, "%s%s (mask %#" PRIx64 ")",
		      used ? "lacking:" : "all that are used", lacking, api.features);
		if (used)
			remedy(finding, "use a later kernel (6.7 has them all)");
	}
	if (fd >= 0)
		close(fd);
}

/* ---- PAGEMAP_SCAN ---- */

struct pagemap_region {
	uint64_t start, end, categories;
};

struct pagemap_scan {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t inverted, mask, any_of, answer;
};
#define PAGEMAP_IOCTL_SCAN _IOWR('f', 16, struct pagemap_scan)
#define PAGEMAP_PRESENT	   (1u << 3)

static void check_pagemap(struct finding *finding)
{
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	struct pagemap_region region = {0};
	struct pagemap_scan scan = {.size = sizeof(scan), .vec_len = 1};
	int rc = -1;

	if (page != MAP_FAILED && fd >= 0) {
		*page = 1;
		scan.start = (uintptr_t)page;
		scan.end = (uintptr_t)page + 4096;
		scan.vec = (uintptr_t)&region;
		scan.mask = scan.answer = PAGEMAP_PRESENT;
		rc = ioctl(fd, PAGEMAP_IOCTL_SCAN, &scan);
	}
	if (rc == 1) {
		found(finding, HEALTH_OK, "tells which pages were touched");
	} else {
		found(finding, HEALTH_MISSING, "PAGEMAP_SCAN: %s",
		      rc < 0 ? strerror(errno) : "a touched page was not found");
		remedy(finding, "use a kernel of 6.7 or later; without it references are guessed");
	}
	if (fd >= 0)
		close(fd);
	if (page != MAP_FAILED)
		munmap(page, 4096);
}

/* ---- io_uring ---- */

static void check_io_uring(struct finding *finding)
{
	uint32_t params[30] = {0}; /* struct io_uring_params is 120 bytes */
	long fd = syscall(SYS_io_uring_setup, 1, params);
	uint64_t off;

	if (fd >= 0) {
		close((int)fd);
		found(finding, HEALTH_OK, "available");
		return;
	}
	off = read_number("/proc/sys/kernel/io_uring_disabled", 0);
	found(finding, HEALTH_MISSING, "io_uring_setup: %s%s%s", strerror(errno),
	      off ? " (sysctl kernel.io_uring_disabled)" : "", off ? "" : seccomp_hint());
	remedy(finding, off ? "sysctl kernel.io_uring_disabled=0 (as root)"
			    : "allow io_uring in the container's seccomp profile");
}

const struct check fault_checks[] = {
	{"userfaultfd", "userfaultfd", false, check_uffd},
	{"userfaultfd_features", "uffd features", false, check_uffd_features},
	{"pagemap_scan", "PAGEMAP_SCAN", false, check_pagemap},
	{"io_uring", "io_uring", false, check_io_uring},
};
const size_t fault_checks_count = array_length(fault_checks);
