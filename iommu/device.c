/*
 * A device: opened and closed, its regions, its interrupts, its reset.
 *
 * Its lock is held while its descriptor is used, so that the descriptor does not go meanwhile; it
 * is not held while the device resets, which may take a second: others are told that it does.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "domain.h"
#include "internal.h"
#include "uapi.h"

/* Registers of the configuration space. */
#define CONFIG_COMMAND		0x04
#define COMMAND_MEMORY		0x2
#define COMMAND_BUS_MASTER	0x4
#define CONFIG_SUBSYSTEM_VENDOR 0x2c

/* ---- may it be used? ---- */

static int check_locked(const struct morsel_device *device)
{
	if (device->gone)
		return morsel_fail(-ENODEV,
				   "device %s is gone: the kernel has taken it back; close it, and "
				   "open it again when it has returned",
				   device->function.bdf);
	if (device->resetting)
		return morsel_fail(
			-EBUSY,
			"device %s is being reset by another thread: try again when that "
			"has returned",
			device->function.bdf);
	return 0;
}

static int check_fork(const struct morsel_device *device)
{
	if (device->forks == mrs_iommu_forks())
		return 0;
	return morsel_fail(
		-ECHILD,
		"device %s was opened before a fork and does not work in the child: open "
		"it there",
		device->function.bdf);
}

int mrs_device_enter(struct morsel_device *device)
{
	int rc = check_fork(device);

	if (rc)
		return rc;
	pthread_mutex_lock(&device->lock);
	rc = check_locked(device);
	if (rc)
		pthread_mutex_unlock(&device->lock);
	return rc;
}

void mrs_device_leave(struct morsel_device *device)
{
	pthread_mutex_unlock(&device->lock);
}

int mrs_device_check(struct morsel_device *device)
{
	int rc = mrs_device_enter(device);

	if (!rc)
		mrs_device_leave(device);
	return rc;
}

/* ---- regions ---- */

int mrs_device_region(struct morsel_device *device, uint32_t index, struct vfio_region_info *info)
{
	int rc;

	*info = (struct vfio_region_info){.argsz = sizeof(*info), .index = index};
	if (index >= device->regions)
		return morsel_fail(-ERANGE, "%s has regions 0 to %u, not %u", device->function.bdf,
				   device->regions - 1, index);
	rc = mrs_sys_ioctl(device->fd, VFIO_DEVICE_GET_REGION_INFO, info);
	/* VFIO refuses regions that a function has not. */
	if (rc == -EINVAL) {
		*info = (struct vfio_region_info){.index = index};
		rc = 0;
	}
	return rc ? morsel_fail(rc, "region %u of %s: %s", index, device->function.bdf,
				strerror(-rc))
		  : 0;
}

int morsel_iommu_region(struct morsel_device *device, uint32_t index,
			struct morsel_iommu_region *out)
{
	struct vfio_region_info info;
	struct morsel_iommu_region region = {0};
	int rc = mrs_device_enter(device);

	if (rc)
		return rc;
	rc = mrs_device_region(device, index, &info);
	mrs_device_leave(device);
	if (rc)
		return rc;
	region.bytes = info.size;
	region.readable = !!(info.flags & VFIO_REGION_INFO_FLAG_READ);
	region.writable = !!(info.flags & VFIO_REGION_INFO_FLAG_WRITE);
	region.mappable = !!(info.flags & VFIO_REGION_INFO_FLAG_MMAP);
	return mrs_info_out(out, &region, sizeof(region));
}

static int map_bar(struct morsel_device *device, uint32_t index)
{
	struct mrs_bar *bar = &device->bar[index];
	struct vfio_region_info info;
	void *address;
	int rc = mrs_device_region(device, index, &info);

	if (rc)
		return rc;
	if (!info.size)
		return morsel_fail(-ENOENT, "%s has no BAR %u", device->function.bdf, index);
	if (!(info.flags & VFIO_REGION_INFO_FLAG_MMAP))
		return morsel_fail(-EOPNOTSUPP,
				   "BAR %u of %s cannot be mapped: use morsel_iommu_read() and "
				   "morsel_iommu_write()",
				   index, device->function.bdf);
	address = mmap(NULL, info.size, PROT_READ | PROT_WRITE, MAP_SHARED, device->fd,
		       (off_t)info.offset);
	if (address == MAP_FAILED)
		return morsel_fail(-errno, "mapping BAR %u of %s: %s", index, device->function.bdf,
				   strerror(errno));
	if (madvise(address, info.size, MADV_DONTFORK)) {
		rc = morsel_fail(-errno, "madvise(MADV_DONTFORK): %s", strerror(errno));
		munmap(address, info.size);
		return rc;
	}
	*bar = (struct mrs_bar){address, info.size};
	return 0;
}

int morsel_iommu_bar(struct morsel_device *device, uint32_t index, void **address, uint64_t *bytes)
{
	int rc = mrs_device_enter(device);

	if (rc)
		return rc;
	if (index >= MRS_IOMMU_BARS)
		rc = morsel_fail(-ERANGE, "BARs are 0 to 5, not %u", index);
	else if (!device->bar[index].address)
		rc = map_bar(device, index);
	if (!rc) {
		*address = device->bar[index].address;
		*bytes = device->bar[index].bytes;
	}
	mrs_device_leave(device);
	return rc;
}

/* Reads into in, or writes from out. The device's lock is held. */
static int transfer(struct morsel_device *device, uint32_t index, uint64_t offset, void *in,
		    const void *out, size_t bytes)
{
	struct vfio_region_info info;
	int rc = mrs_device_region(device, index, &info);
	ssize_t n;

	if (rc)
		return rc;
	if (offset > info.size || bytes > info.size - offset)
		return morsel_fail(-ERANGE,
				   "%zu bytes from offset %llu are not inside the %llu bytes of "
				   "region %u of %s",
				   bytes, (unsigned long long)offset, (unsigned long long)info.size,
				   index, device->function.bdf);
	offset += info.offset;
	n = in ? pread(device->fd, in, bytes, (off_t)offset)
	       : pwrite(device->fd, out, bytes, (off_t)offset);
	if (n == (ssize_t)bytes)
		return 0;
	rc = n < 0 ? -errno : -EIO;
	return morsel_fail(rc,
			   "region %u of %s does not take a transfer of %zu bytes at offset "
			   "%llu: %s",
			   index, device->function.bdf, bytes,
			   (unsigned long long)(offset - info.offset), strerror(-rc));
}

int morsel_iommu_read(struct morsel_device *device, uint32_t index, uint64_t offset, void *buffer,
		      size_t bytes)
{
	int rc = mrs_device_enter(device);

	if (rc)
		return rc;
	rc = transfer(device, index, offset, buffer, NULL, bytes);
	mrs_device_leave(device);
	return rc;
}

int morsel_iommu_write(struct morsel_device *device, uint32_t index, uint64_t offset,
		       const void *buffer, size_t bytes)
{
	int rc = mrs_device_enter(device);

	if (rc)
		return rc;
	rc = transfer(device, index, offset, NULL, buffer, bytes);
	mrs_device_leave(device);
	return rc;
}

/* PCI's registers are little-endian, as the machines are that have this room. */
int mrs_device_bus_master(struct morsel_device *device, bool on)
{
	uint16_t command;
	int rc = transfer(device, MORSEL_IOMMU_CONFIG, CONFIG_COMMAND, &command, NULL,
			  sizeof(command));

	if (rc)
		return rc;
	if (on)
		command |= COMMAND_MEMORY | COMMAND_BUS_MASTER;
	else
		command &= (uint16_t)~COMMAND_BUS_MASTER;
	return transfer(device, MORSEL_IOMMU_CONFIG, CONFIG_COMMAND, NULL, &command,
			sizeof(command));
}

int morsel_iommu_bus_master(struct morsel_device *device, int on)
{
	int rc = mrs_device_enter(device);

	if (rc)
		return rc;
	rc = mrs_device_bus_master(device, on);
	mrs_device_leave(device);
	return rc;
}

/* ---- interrupts ---- */

#define IRQ_VECTORS_MAX 2048u /* of MSI-X */

static int set_irqs(struct morsel_device *device, uint32_t index, uint32_t flags, uint32_t start,
		    uint32_t count, const int *eventfds)
{
	size_t data = eventfds ? count * sizeof(*eventfds) : 0;
	struct vfio_irq_set *set = calloc(1, sizeof(*set) + data);
	int rc;

	if (!set)
		return morsel_fail(-ENOMEM, "no memory for %u interrupt vectors", count);
	set->argsz = (uint32_t)(sizeof(*set) + data);
	set->index = index;
	set->flags = flags | (eventfds ? VFIO_IRQ_SET_DATA_EVENTFD : VFIO_IRQ_SET_DATA_NONE);
	set->start = start;
	set->count = count;
	if (eventfds)
		memcpy(set->data, eventfds, data);
	rc = mrs_sys_ioctl(device->fd, VFIO_DEVICE_SET_IRQS, set);
	free(set);
	return rc ? morsel_fail(rc, "setting %u interrupt vectors of %s: %s", count,
				device->function.bdf, strerror(-rc))
		  : 0;
}

int mrs_device_irqs_off(struct morsel_device *device)
{
	int rc = 0;

	if (device->irq_on)
		rc = set_irqs(device, (uint32_t)device->irq_on - 1, VFIO_IRQ_SET_ACTION_TRIGGER, 0,
			      0, NULL);
	device->irq_on = 0;
	device->irq_count = 0;
	return rc;
}

static int irqs_on(struct morsel_device *device, uint32_t kind, uint32_t count, const int *eventfds)
{
	static const char *const names[] = {"INTx", "MSI", "MSI-X"};
	int rc;

	if (kind >= mrs_array_length(device->irqs) || !count || !eventfds)
		return morsel_fail(-EINVAL,
				   "interrupts are of enum morsel_iommu_irq, at least one, "
				   "each with an eventfd");
	if (count > mrs_min(device->irqs[kind], IRQ_VECTORS_MAX))
		return morsel_fail(-ERANGE, "%s has %u vectors of %s, not %u", device->function.bdf,
				   device->irqs[kind], names[kind], count);
	rc = mrs_device_irqs_off(device);
	if (!rc)
		rc = set_irqs(device, kind, VFIO_IRQ_SET_ACTION_TRIGGER, 0, count, eventfds);
	if (rc)
		return rc;
	device->irq_on = (int)kind + 1;
	device->irq_count = count;
	return 0;
}

int morsel_iommu_irq_on(struct morsel_device *device, uint32_t kind, uint32_t count,
			const int *eventfds)
{
	int rc = mrs_device_enter(device);

	if (rc)
		return rc;
	rc = irqs_on(device, kind, count, eventfds);
	mrs_device_leave(device);
	return rc;
}

int morsel_iommu_irq_off(struct morsel_device *device)
{
	int rc = mrs_device_enter(device);

	if (rc)
		return rc;
	rc = mrs_device_irqs_off(device);
	mrs_device_leave(device);
	return rc;
}

int morsel_iommu_irq_unmask(struct morsel_device *device)
{
	int rc = mrs_device_enter(device);

	if (rc)
		return rc;
	if (device->irq_on == MORSEL_IOMMU_INTX + 1)
		rc = set_irqs(device, MORSEL_IOMMU_INTX, VFIO_IRQ_SET_ACTION_UNMASK, 0, 1, NULL);
	mrs_device_leave(device);
	return rc;
}

int morsel_iommu_irq_trigger(struct morsel_device *device, uint32_t vector)
{
	int rc = mrs_device_enter(device);

	if (rc)
		return rc;
	if (!device->irq_on || vector >= device->irq_count)
		rc = morsel_fail(-ERANGE,
				 "%u interrupt vectors of %s are on: there is no vector %u",
				 device->irq_count, device->function.bdf, vector);
	else
		rc = set_irqs(device, (uint32_t)device->irq_on - 1, VFIO_IRQ_SET_ACTION_TRIGGER,
			      vector, 1, NULL);
	mrs_device_leave(device);
	return rc;
}

/* ---- reset ---- */

static int no_reset(const struct morsel_device *device, int rc)
{
	if (rc == -EOPNOTSUPP)
		return morsel_fail(rc,
				   "%s cannot be reset by itself: it has no way to, or shares it "
				   "with others",
				   device->function.bdf);
	return morsel_fail(rc, "resetting %s: %s", device->function.bdf, strerror(-rc));
}

int morsel_iommu_reset(struct morsel_device *device)
{
	int rc = mrs_device_enter(device);

	if (rc)
		return rc;
	if (!device->can_reset) {
		mrs_device_leave(device);
		return no_reset(device, -EOPNOTSUPP);
	}
	device->resetting = true;
	mrs_device_leave(device);
	rc = mrs_sys_ioctl(device->fd, VFIO_DEVICE_RESET, NULL);
	pthread_mutex_lock(&device->lock);
	if (!rc && !(device->flags & MORSEL_IOMMU_NO_BUS_MASTER))
		mrs_device_bus_master(device, true);
	device->resetting = false;
	pthread_cond_broadcast(&device->calm);
	mrs_device_leave(device);
	return rc ? no_reset(device, rc) : 0;
}

/* ---- open ---- */

static int read_irqs(struct morsel_device *device, uint32_t known)
{
	for (uint32_t i = 0; i < mrs_array_length(device->irqs) && i < known; i++) {
		struct vfio_irq_info info = {.argsz = sizeof(info), .index = i};

		if (!mrs_sys_ioctl(device->fd, VFIO_DEVICE_GET_IRQ_INFO, &info))
			device->irqs[i] = info.count;
	}
	return 0;
}

static int look(struct morsel_device *device)
{
	struct vfio_device_info info = {.argsz = sizeof(info)};
	int rc = mrs_sys_ioctl(device->fd, VFIO_DEVICE_GET_INFO, &info);

	if (rc)
		return morsel_fail(rc, "VFIO_DEVICE_GET_INFO of %s: %s", device->function.bdf,
				   strerror(-rc));
	if (!(info.flags & VFIO_DEVICE_FLAGS_PCI))
		return morsel_fail(-EOPNOTSUPP, "%s is no PCI function to VFIO",
				   device->function.bdf);
	device->can_reset = !!(info.flags & VFIO_DEVICE_FLAGS_RESET);
	device->regions = mrs_min(info.num_regions, MRS_IOMMU_REGIONS);
	return read_irqs(device, info.num_irqs);
}

static struct morsel_device *device_alloc(const struct morsel_iommu_function *function,
					  uint32_t flags)
{
	struct morsel_device *device = calloc(1, sizeof(*device));

	if (!device)
		return NULL;
	device->function = *function;
	device->flags = flags;
	device->forks = mrs_iommu_forks();
	device->fd = device->group_fd = -1;
	device->wanted_fd = device->gone_fd = device->stop_fd = -1;
	pthread_mutex_init(&device->lock, NULL);
	pthread_cond_init(&device->calm, NULL);
	return device;
}

static void device_free(struct morsel_device *device)
{
	pthread_cond_destroy(&device->calm);
	pthread_mutex_destroy(&device->lock);
	free(device);
}

static void close_given(struct morsel_iommu_opts *opts)
{
	int *given[] = {&opts->container_plus_1, &opts->group_plus_1, &opts->iommufd_plus_1,
			&opts->device_plus_1};

	for (size_t i = 0; i < mrs_array_length(given); i++)
		if (*given[i])
			close(mrs_sys_take(given[i]));
}

/* The library works on copies of the descriptors that it is given, until it has succeeded. */
static int copy_given(struct morsel_iommu_opts *opts)
{
	int *given[] = {&opts->container_plus_1, &opts->group_plus_1, &opts->iommufd_plus_1,
			&opts->device_plus_1};
	int rc = 0;

	for (size_t i = 0; i < mrs_array_length(given); i++) {
		int fd = *given[i] && !rc ? dup(*given[i] - 1) : -1;

		if (*given[i] && !rc && fd < 0)
			rc = morsel_fail(-errno, "descriptor %d that was handed in: %s",
					 *given[i] - 1, strerror(errno));
		*given[i] = fd + 1;
	}
	if (rc)
		close_given(opts);
	return rc;
}

static int check_opts(const struct morsel_iommu_opts *opts)
{
	const uint32_t known = MORSEL_IOMMU_NO_THREAD | MORSEL_IOMMU_NO_BUS_MASTER;

	if (opts->flags & ~known || opts->kind > MORSEL_IOMMU_IOMMUFD)
		return morsel_fail(-EINVAL, "unknown flags 0x%x or kind %u", opts->flags & ~known,
				   opts->kind);
	if (opts->domain && opts->kind && opts->kind != opts->domain->way->kind)
		return morsel_fail(-EINVAL,
				   "the domain is %s; a device that joins it is opened the "
				   "same way",
				   opts->domain->way->name);
	return 0;
}

/* The device is in its domain; what else it needs. */
static int settle(struct morsel_device *device)
{
	int rc = look(device);

	if (!rc && !(device->flags & MORSEL_IOMMU_NO_BUS_MASTER))
		rc = mrs_device_bus_master(device, true);
	return rc ? rc : mrs_gone_watch(device);
}

static int open_checked(const struct morsel_iommu_function *function,
			struct morsel_iommu_opts *opts, struct morsel_device **out)
{
	struct morsel_device *device = device_alloc(function, opts->flags);
	struct morsel_domain *domain = opts->domain;
	int rc = device ? 0 : morsel_fail(-ENOMEM, "no memory for a device");

	if (rc)
		return rc;
	if (!domain)
		rc = mrs_domain_make(function, opts, &domain);
	if (rc)
		goto free_device;
	rc = mrs_domain_join(domain, device, opts);
	if (rc)
		goto free_domain;
	rc = settle(device);
	if (rc)
		goto leave;
	*out = device;
	return 0;

leave:
	mrs_domain_leave(domain, device);
free_domain:
	if (!opts->domain)
		mrs_domain_free(domain);
free_device:
	device_free(device);
	return rc;
}

int morsel_iommu_open(const char *bdf, const struct morsel_iommu_opts *given,
		      struct morsel_device **device)
{
	struct morsel_iommu_function function;
	struct morsel_iommu_opts opts, original;
	int rc = mrs_opts_in(&opts, sizeof(opts), given);

	if (!rc)
		rc = check_opts(&opts);
	if (!rc)
		rc = morsel_iommu_find(bdf, &function);
	if (!rc)
		rc = mrs_sysfs_check(&function);
	if (rc)
		return rc;
	original = opts;
	rc = copy_given(&opts);
	if (rc)
		return rc;
	rc = open_checked(&function, &opts, device);
	close_given(&opts);
	if (!rc)
		close_given(&original);
	return rc;
}

/* ---- close ---- */

static int check_close(struct morsel_device *device)
{
	struct morsel_domain *domain = device->domain;
	bool last;
	uint64_t views;

	pthread_mutex_lock(&domain->lock);
	last = domain->device_count == 1;
	views = last ? domain->view_count : device->views;
	pthread_mutex_unlock(&domain->lock);
	if (!views)
		return 0;
	return morsel_fail(-EBUSY, "%llu views %s still exist: destroy them before %s is closed",
			   (unsigned long long)views,
			   last ? "of the domain of this last device" : "of this device",
			   device->function.bdf);
}

static void unmap_bars(struct morsel_device *device)
{
	for (unsigned i = 0; i < MRS_IOMMU_BARS; i++)
		if (device->bar[i].address)
			munmap(device->bar[i].address, device->bar[i].bytes);
}

/* In a fork there are only copies: of descriptors, which the parent goes on using, and of memory.
 */
static void close_in_child(struct morsel_device *device)
{
	const int fds[] = {device->fd, device->group_fd, device->wanted_fd, device->gone_fd,
			   device->stop_fd};

	for (size_t i = 0; i < mrs_array_length(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

int morsel_iommu_close(struct morsel_device *device)
{
	struct morsel_domain *domain;
	bool last;
	int rc;

	if (!device)
		return 0;
	if (device->forks != mrs_iommu_forks()) {
		close_in_child(device);
		return 0;
	}
	rc = check_close(device);
	if (rc)
		return rc;
	domain = device->domain;
	mrs_gone_unwatch(device);
	if (!device->gone) {
		mrs_device_irqs_off(device);
		mrs_device_bus_master(device, false);
	}
	unmap_bars(device);
	mrs_domain_leave(domain, device);
	last = !domain->device_count;
	if (last)
		mrs_domain_free(domain);
	device_free(device);
	return 0;
}

/* ---- looking ---- */

static void read_subsystem(struct morsel_device *device, struct morsel_iommu_device_info *info)
{
	uint16_t id[2];

	if (device->gone ||
	    transfer(device, MORSEL_IOMMU_CONFIG, CONFIG_SUBSYSTEM_VENDOR, id, NULL, sizeof(id)))
		return;
	info->subsystem_vendor = id[0];
	info->subsystem_device = id[1];
}

int morsel_iommu_device_info(struct morsel_device *device, struct morsel_iommu_device_info *out)
{
	struct morsel_iommu_device_info info = {0};

	memcpy(info.bdf, device->function.bdf, sizeof(info.bdf));
	info.vendor = device->function.vendor;
	info.device = device->function.device;
	info.class_code = device->function.class_code;
	info.group = device->function.group;
	info.kind = device->domain->way->kind;
	info.can_reset = device->can_reset;
	info.regions = device->regions;
	memcpy(info.irqs, device->irqs, sizeof(info.irqs));
	pthread_mutex_lock(&device->domain->lock);
	info.views = device->views;
	pthread_mutex_unlock(&device->domain->lock);
	pthread_mutex_lock(&device->lock);
	info.gone = device->gone;
	read_subsystem(device, &info);
	pthread_mutex_unlock(&device->lock);
	return mrs_info_out(out, &info, sizeof(info));
}
