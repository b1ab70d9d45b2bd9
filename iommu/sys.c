/* The kernel, as a test may replace it. See internal.h. */
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>

#include "internal.h"

static int real_open(const char *path, int flags)
{
	return open(path, flags);
}

static int real_ioctl(int fd, unsigned long request, void *arg)
{
	return ioctl(fd, request, arg);
}

static const struct mrs_iommu_sys real = {
	.open = real_open,
	.ioctl = real_ioctl,
	.sysfs = "/sys",
	.dev = "/dev",
};

const struct mrs_iommu_sys *mrs_iommu_sys = &real;

int mrs_sys_ioctl(int fd, unsigned long request, void *arg)
{
	int rc;

	do
		rc = mrs_iommu_sys->ioctl(fd, request, arg);
	while (rc < 0 && errno == EINTR);
	return rc < 0 ? -errno : rc;
}

int mrs_sys_open(const char *path)
{
	int fd = mrs_iommu_sys->open(path, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int mrs_sys_take(int *plus_1)
{
	int fd = *plus_1 - 1;

	*plus_1 = 0;
	return fd;
}

/* ---- forks ---- */

static uint32_t forks; /* changes only in a child that has one thread yet */

static void count_fork(void)
{
	forks++;
}

static void watch_forks(void)
{
	pthread_atfork(NULL, NULL, count_fork);
}

uint32_t mrs_iommu_forks(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, watch_forks);
	return forks;
}
