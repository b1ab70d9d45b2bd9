/*
 * A device that is taken away.
 *
 * The kernel writes to an eventfd when it wants the device back, and waits (again and again) until
 * nothing of this process refers to it: not its descriptor, not a mapping of a BAR. So the order
 *is:
 *
 *	1 mark it gone: nobody begins to use the descriptor any more; a reset is waited for
 *	2 its views lose their translations (domain.c); grants that are held hold nothing from now
 *on 3 its BARs become memory full of ones, each by one replacing mmap(): a driver's thread that is
 *in the middle of an access reads ones, as from a function that was pulled out 4 interrupts and
 *descriptors are closed: the kernel has it 5 the program is told
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "domain.h"
#include "internal.h"
#include "uapi.h"

/* ---- letting go ---- */

#define ONES_BYTES ((uint64_t)4 << 20)

/* A file of ones that can be mapped over a BAR, as often as it takes. -1 if there is no memory. */
static int file_of_ones(uint64_t bytes)
{
	int fd = memfd_create("morsel-iommu-gone", MFD_CLOEXEC);
	char ones[4096];
	bool ok = fd >= 0;

	memset(ones, 0xff, sizeof(ones));
	for (uint64_t at = 0; ok && at < bytes; at += sizeof(ones))
		ok = pwrite(fd, ones, sizeof(ones), (off_t)at) == (ssize_t)sizeof(ones);
	if (ok)
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

/*
 * Private: what is written is nobody's. Without memory for ones the BAR becomes zeros; what must
 * not be is that it stays.
 */
static void replace_bar(const struct mrs_bar *bar)
{
	uint64_t bytes = mrs_min(bar->bytes, ONES_BYTES);
	int fd = file_of_ones(bytes);
	int flags = MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE | (fd < 0 ? MAP_ANONYMOUS : 0);

	for (uint64_t at = 0; at < bar->bytes; at += bytes)
		mmap((char *)bar->address + at, mrs_min(bytes, bar->bytes - at),
		     PROT_READ | PROT_WRITE, flags, fd, 0);
	if (fd >= 0)
		close(fd);
}

/* False if somebody else has done it, or does. */
static bool mark_gone(struct morsel_device *device)
{
	bool first;

	pthread_mutex_lock(&device->lock);
	while (device->resetting)
		pthread_cond_wait(&device->calm, &device->lock);
	first = !device->gone;
	device->gone = true;
	pthread_mutex_unlock(&device->lock);
	return first;
}

static void let_go(struct morsel_device *device)
{
	uint64_t one = 1;

	if (!mark_gone(device))
		return;
	mrs_domain_lost(device->domain, device);
	pthread_mutex_lock(&device->lock);
	for (unsigned i = 0; i < MRS_IOMMU_BARS; i++)
		if (device->bar[i].address)
			replace_bar(&device->bar[i]);
	/* It may be there still, wanted by another driver: it must not go on by itself. */
	mrs_device_irqs_off(device);
	mrs_device_bus_master(device, false);
	pthread_mutex_unlock(&device->lock);
	pthread_mutex_lock(&device->domain->lock);
	device->domain->way->detach(device->domain, device);
	pthread_mutex_unlock(&device->domain->lock);
	if (device->gone_fd >= 0 && write(device->gone_fd, &one, sizeof(one)) < 0)
		return; /* it is readable already */
}

/* ---- being told ---- */

static bool is_readable(int fd)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

	return fd >= 0 && poll(&poll_fd, 1, 0) == 1;
}

static void *wait_for_wish(void *arg)
{
	struct morsel_device *device = arg;
	struct pollfd fds[] = {{.fd = device->wanted_fd, .events = POLLIN},
			       {.fd = device->stop_fd, .events = POLLIN}};

	while (poll(fds, 2, -1) < 0 && errno == EINTR)
		;
	if (fds[0].revents && !fds[1].revents)
		let_go(device);
	return NULL;
}

/* The kernel is to write to wanted_fd. A kernel that cannot is fine: then nobody is told. */
static int ask_kernel(struct morsel_device *device)
{
	char buffer[sizeof(struct vfio_irq_set) + sizeof(int)] __attribute__((aligned(8))) = {0};
	struct vfio_irq_set *set = (struct vfio_irq_set *)buffer;
	struct vfio_irq_info info = {.argsz = sizeof(info), .index = VFIO_PCI_REQ_IRQ_INDEX};

	if (mrs_sys_ioctl(device->fd, VFIO_DEVICE_GET_IRQ_INFO, &info) || !info.count)
		return 0;
	set->argsz = sizeof(buffer);
	set->flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
	set->index = VFIO_PCI_REQ_IRQ_INDEX;
	set->count = 1;
	memcpy(set->data, &device->wanted_fd, sizeof(int));
	return mrs_sys_ioctl(device->fd, VFIO_DEVICE_SET_IRQS, set);
}

static int make_eventfds(struct morsel_device *device)
{
	int *fds[] = {&device->wanted_fd, &device->gone_fd, &device->stop_fd};

	for (size_t i = 0; i < mrs_array_length(fds); i++) {
		*fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (*fds[i] < 0)
			return morsel_fail(-errno, "eventfd: %s", strerror(errno));
	}
	return 0;
}

static void close_eventfds(struct morsel_device *device)
{
	int *fds[] = {&device->wanted_fd, &device->gone_fd, &device->stop_fd};

	for (size_t i = 0; i < mrs_array_length(fds); i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
}

int mrs_gone_watch(struct morsel_device *device)
{
	int rc = make_eventfds(device);

	if (!rc) {
		rc = ask_kernel(device);
		if (rc)
			morsel_fail(rc, "the kernel does not say when it wants %s back: %s",
				    device->function.bdf, strerror(-rc));
	}
	if (!rc && !(device->flags & MORSEL_IOMMU_NO_THREAD)) {
		rc = -pthread_create(&device->thread, NULL, wait_for_wish, device);
		if (rc)
			morsel_fail(rc, "no thread for %s: %s", device->function.bdf,
				    strerror(-rc));
		device->has_thread = !rc;
	}
	if (rc)
		close_eventfds(device);
	return rc;
}

void mrs_gone_unwatch(struct morsel_device *device)
{
	uint64_t one = 1;

	if (device->has_thread && write(device->stop_fd, &one, sizeof(one)) == sizeof(one))
		pthread_join(device->thread, NULL);
	device->has_thread = false;
	close_eventfds(device);
}

/* ---- public ---- */

int morsel_iommu_event_fd(struct morsel_device *device)
{
	return device->flags & MORSEL_IOMMU_NO_THREAD ? device->wanted_fd : device->gone_fd;
}

int morsel_iommu_poll(struct morsel_device *device)
{
	bool gone;

	if (device->forks != mrs_iommu_forks())
		return morsel_fail(-ECHILD, "device %s was opened before a fork",
				   device->function.bdf);
	if (is_readable(device->wanted_fd))
		let_go(device);
	pthread_mutex_lock(&device->lock);
	gone = device->gone;
	pthread_mutex_unlock(&device->lock);
	return gone;
}
