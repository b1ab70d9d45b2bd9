/*
 * iommufd: /dev/iommu and the device's own node. Linux 6.6, where it is configured.
 *
 *	/dev/iommu --- IOAS --- (hardware page table with dirty tracking) --- device node
 *		       MAP, UNMAP
 *
 * A domain is one IOAS: what is mapped there is in the page tables of every device that is
 *attached, also of one that comes later. As with type1, a mapping is made of an address of this
 *process, and an unmap must not cut a mapping.
 *
 * Mapping by file (IOAS_MAP_FILE, Linux 6.13) is not used: of pages that were reserved and never
 *touched it pins what somebody else left in them, and the first touch of a CPU clears them under
 *the device.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"
#include "uapi.h"

static int iommufd_open(struct morsel_domain *domain, struct morsel_iommu_opts *opts)
{
	struct mrs_iommufd_ioas_alloc alloc = {.size = sizeof(alloc)};
	char path[64];
	int rc;

	snprintf(path, sizeof(path), "%s/iommu", mrs_iommu_sys->dev);
	domain->fd =
		opts->iommufd_plus_1 ? mrs_sys_take(&opts->iommufd_plus_1) : mrs_sys_open(path);
	if (domain->fd == -ENOENT)
		return morsel_fail(
			-EOPNOTSUPP,
			"this kernel has no iommufd (%s is not there; CONFIG_IOMMUFD, or "
			"`modprobe iommufd`): use MORSEL_IOMMU_TYPE1",
			path);
	if (domain->fd < 0)
		return mrs_words_of_open(path, "the kernel has no iommufd", domain->fd);
	rc = mrs_sys_ioctl(domain->fd, MRS_IOMMUFD_IOAS_ALLOC, &alloc);
	if (rc) {
		close(domain->fd);
		domain->fd = -1;
		return morsel_fail(rc, "IOMMU_IOAS_ALLOC: %s", strerror(-rc));
	}
	domain->ioas = alloc.out_ioas;
	return 0;
}

/* ---- devices ---- */

static int open_node(struct morsel_device *device, struct morsel_iommu_opts *opts)
{
	char path[96], name[32];

	if (opts->device_plus_1) {
		device->fd = mrs_sys_take(&opts->device_plus_1);
		return 0;
	}
	if (mrs_sysfs_cdev(device->function.bdf, name, sizeof(name)))
		return morsel_fail(-EOPNOTSUPP,
				   "this kernel gives %s no device node for iommufd "
				   "(CONFIG_VFIO_DEVICE_CDEV): use MORSEL_IOMMU_TYPE1",
				   device->function.bdf);
	snprintf(path, sizeof(path), "%s/vfio/devices/%s", mrs_iommu_sys->dev, name);
	device->fd = mrs_sys_open(path);
	if (device->fd >= 0)
		return 0;
	return mrs_words_of_open(path, "the kernel gave the device no node", device->fd);
}

/* Can the IOMMU tell which pages a device wrote? Then the device gets a page table that does. */
static void ask_for_dirty(struct morsel_domain *domain, struct morsel_device *device)
{
	struct mrs_iommufd_hw_info info = {.size = sizeof(info), .device = device->id};
	struct mrs_iommufd_hwpt_alloc alloc = {
		.size = sizeof(alloc),
		.flags = MRS_IOMMUFD_HWPT_DIRTY,
		.device = device->id,
		.pt = domain->ioas,
	};

	if (domain->hwpt || mrs_sys_ioctl(domain->fd, MRS_IOMMUFD_HW_INFO, &info) ||
	    !(info.out_capabilities & MRS_IOMMUFD_CAP_DIRTY) ||
	    mrs_sys_ioctl(domain->fd, MRS_IOMMUFD_HWPT_ALLOC, &alloc))
		return;
	domain->hwpt = alloc.out_hwpt;
	domain->dirty_tracking = true;
}

static int refuse_bind(const struct morsel_device *device, int rc)
{
	const char *bdf = device->function.bdf;

	if (rc == -EPERM)
		return morsel_fail(
			rc,
			"iommufd refuses %s because its interrupts are not confined: the "
			"IOMMU needs interrupt remapping, or accept that with "
			"iommufd.allow_unsafe_interrupts=1",
			bdf);
	if (rc == -EBUSY)
		return morsel_fail(rc, "%s or another function of its group %d is in use already",
				   bdf, (int)device->function.group);
	return morsel_fail(rc, "iommufd does not take %s: %s", bdf, strerror(-rc));
}

/* The first device decides whether the domain can track; one that cannot take part is refused. */
static int attach_node(struct morsel_domain *domain, struct morsel_device *device)
{
	struct mrs_vfio_attach attach = {.argsz = sizeof(attach)};
	int rc;

	if (!domain->device_count)
		ask_for_dirty(domain, device);
	attach.pt = domain->hwpt ? domain->hwpt : domain->ioas;
	rc = mrs_sys_ioctl(device->fd, MRS_VFIO_ATTACH, &attach);
	return rc ? morsel_fail(rc, "%s cannot translate with this domain: %s",
				device->function.bdf, strerror(-rc))
		  : 0;
}

static int iommufd_attach(struct morsel_domain *domain, struct morsel_device *device,
			  struct morsel_iommu_opts *opts)
{
	struct mrs_vfio_bind bind = {.argsz = sizeof(bind), .iommufd = domain->fd};
	int rc = open_node(device, opts);

	device->group_fd = -1;
	if (rc)
		return rc;
	rc = mrs_sys_ioctl(device->fd, MRS_VFIO_BIND_IOMMUFD, &bind);
	if (rc) {
		rc = refuse_bind(device, rc);
		goto close;
	}
	device->id = bind.out_device;
	rc = attach_node(domain, device);
	if (!rc)
		return 0;
close:
	close(device->fd);
	device->fd = -1;
	return rc;
}

static void iommufd_detach(struct morsel_domain *domain, struct morsel_device *device)
{
	struct mrs_vfio_detach detach = {.argsz = sizeof(detach)};

	mrs_sys_ioctl(device->fd, MRS_VFIO_DETACH, &detach);
	close(device->fd);
	device->fd = -1;
}

/* ---- what it can do ---- */

#define RANGES_MAX 64u

static int read_ranges(struct morsel_domain *domain)
{
	struct mrs_iommufd_range range[RANGES_MAX];
	struct mrs_iommufd_iova_ranges ranges = {
		.size = sizeof(ranges),
		.ioas = domain->ioas,
		.count = RANGES_MAX,
		.ranges = (uintptr_t)range,
	};
	int rc = mrs_sys_ioctl(domain->fd, MRS_IOMMUFD_IOVA_RANGES, &ranges);

	/* EMSGSIZE: there are more; those that fit are there. */
	if (rc && rc != -EMSGSIZE)
		return morsel_fail(rc, "IOMMU_IOAS_IOVA_RANGES: %s", strerror(-rc));
	rc = 0;
	for (uint32_t i = 0; i < mrs_min(ranges.count, RANGES_MAX) && !rc; i++)
		rc = mrs_iova_permit(&domain->iova, range[i].first, range[i].last);
	domain->page_sizes |= ranges.out_alignment;
	return rc;
}

/* Page sizes beyond the smallest: the kernel tells them for Intel's hardware only. */
static void read_page_sizes(struct morsel_domain *domain)
{
	struct mrs_iommufd_hw_intel intel = {0};
	struct mrs_iommufd_hw_info info = {
		.size = sizeof(info),
		.device = domain->devices ? domain->devices->id : 0,
		.data_length = sizeof(intel),
		.data = (uintptr_t)&intel,
	};

	if (mrs_sys_ioctl(domain->fd, MRS_IOMMUFD_HW_INFO, &info) ||
	    info.out_type != MRS_IOMMUFD_HW_INTEL)
		return;
	/* Of the second stage; the first has the same where both are there. */
	domain->page_sizes |= intel.cap >> 34 & 1 ? MRS_HUGE_BYTES : 0;
	domain->page_sizes |= intel.cap >> 35 & 1 ? MRS_GIANT_BYTES : 0;
}

static int iommufd_look(struct morsel_domain *domain)
{
	int rc;

	domain->page_sizes = 0;
	rc = read_ranges(domain);
	if (rc)
		return rc;
	read_page_sizes(domain);
	domain->entries_max = UINT64_MAX;
	return 0;
}

/* ---- translations ---- */

static uint32_t flags_of(const struct mrs_mapping *mapping)
{
	return MRS_IOMMUFD_FIXED | (mapping->access & MORSEL_READ ? MRS_IOMMUFD_READ : 0) |
	       (mapping->access & MORSEL_WRITE ? MRS_IOMMUFD_WRITE : 0);
}

static int iommufd_map(struct morsel_domain *domain, const struct mrs_mapping *mapping)
{
	struct mrs_iommufd_map map = {
		.size = sizeof(map),
		.flags = flags_of(mapping),
		.ioas = domain->ioas,
		.address = (uintptr_t)mapping->address,
		.length = mapping->bytes,
		.iova = mapping->iova,
	};

	return mrs_sys_ioctl(domain->fd, MRS_IOMMUFD_MAP, &map);
}

static int iommufd_unmap(struct morsel_domain *domain, uint64_t iova, uint64_t bytes)
{
	struct mrs_iommufd_unmap unmap = {
		.size = sizeof(unmap),
		.ioas = domain->ioas,
		.iova = iova,
		.length = bytes,
	};
	int rc = mrs_sys_ioctl(domain->fd, MRS_IOMMUFD_UNMAP, &unmap);

	return rc == -ENOENT ? 0 : rc; /* nothing is mapped there */
}

/* ---- dirty tracking ---- */

static int iommufd_dirty(struct morsel_domain *domain, bool on)
{
	struct mrs_iommufd_dirty_tracking track = {
		.size = sizeof(track),
		.flags = on,
		.hwpt = domain->hwpt,
	};
	int rc;

	if (!domain->hwpt)
		return morsel_fail(-EOPNOTSUPP, "iommu-iommufd has no dirty tracking here: this "
						"IOMMU cannot tell what devices write");
	rc = mrs_sys_ioctl(domain->fd, MRS_IOMMUFD_DIRTY_TRACKING, &track);
	return rc ? morsel_fail(rc, "IOMMU_HWPT_SET_DIRTY_TRACKING: %s", strerror(-rc)) : 0;
}

static int iommufd_dirty_read(struct morsel_domain *domain, uint64_t iova, uint64_t bytes,
			      uint64_t *bitmap)
{
	struct mrs_iommufd_dirty_bitmap read = {
		.size = sizeof(read),
		.hwpt = domain->hwpt,
		.iova = iova,
		.length = bytes,
		.page_size = MRS_PAGE_BYTES,
		.data = (uintptr_t)bitmap,
	};
	int rc = mrs_sys_ioctl(domain->fd, MRS_IOMMUFD_DIRTY_BITMAP, &read);

	return rc ? morsel_fail(rc, "IOMMU_HWPT_GET_DIRTY_BITMAP: %s", strerror(-rc)) : 0;
}

static void iommufd_close(struct morsel_domain *domain)
{
	close(domain->fd);
	domain->fd = -1;
}

const struct mrs_way mrs_way_iommufd = {
	.name = "iommu-iommufd",
	.kind = MORSEL_IOMMU_IOMMUFD,
	.open = iommufd_open,
	.attach = iommufd_attach,
	.detach = iommufd_detach,
	.look = iommufd_look,
	.map = iommufd_map,
	.unmap = iommufd_unmap,
	.dirty = iommufd_dirty,
	.dirty_read = iommufd_dirty_read,
	.close = iommufd_close,
};
