/*
 * VFIO type1: a container with groups in it. Every kernel with VFIO has it.
 *
 *	container --- group 3 --- device fd		one container is one domain; it has page
 *	    |    \--- group 7 --- device fd		tables from the moment when the first group
 *	 MAP_DMA, UNMAP_DMA				joins, and loses them with the last
 *
 * A mapping is made of an address of this process; the kernel pins the pages that are there then.
 * An unmap must not cut a mapping; one that covers several, and gaps, is fine.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"
#include "uapi.h"

/* Before the kernel said how many mappings are left (Linux 5.10). */
#define ENTRIES_DEFAULT 65535u

static void dev_path(char *path, size_t bytes, const char *name)
{
	snprintf(path, bytes, "%s/%s", mrs_iommu_sys->dev, name);
}

static int type1_open(struct morsel_domain *domain, struct morsel_iommu_opts *opts)
{
	char path[64];
	int rc;

	dev_path(path, sizeof(path), "vfio/vfio");
	domain->fd =
		opts->container_plus_1 ? mrs_sys_take(&opts->container_plus_1) : mrs_sys_open(path);
	if (domain->fd < 0)
		return mrs_words_of_open(
			path,
			"the kernel module vfio is missing (`modprobe vfio-pci` as "
			"root), or the kernel has no containers",
			domain->fd);
	rc = mrs_sys_ioctl(domain->fd, VFIO_GET_API_VERSION, NULL);
	if (rc != VFIO_API_VERSION) {
		rc = morsel_fail(-EOPNOTSUPP, "this container is not VFIO's of version 0 (%d)", rc);
		goto close;
	}
	if (mrs_sys_ioctl(domain->fd, VFIO_CHECK_EXTENSION, (void *)VFIO_TYPE1v2_IOMMU) <= 0) {
		rc = morsel_fail(-ENOENT, "the kernel module vfio_iommu_type1 is missing: "
					  "`modprobe vfio_iommu_type1` as root");
		goto close;
	}
	return 0;

close:
	close(domain->fd);
	domain->fd = -1;
	return rc;
}

/* ---- groups ---- */

static struct morsel_device *in_same_group(struct morsel_domain *domain,
					   const struct morsel_device *device)
{
	for (struct morsel_device *d = domain->devices; d; d = d->next)
		if (d != device && d->group_fd >= 0 && d->function.group == device->function.group)
			return d;
	return NULL;
}

static int not_viable(struct morsel_device *device)
{
	int rc = morsel_iommu_find(device->function.bdf, &device->function);

	if (!rc)
		rc = mrs_sysfs_check(&device->function);
	return rc ? rc
		  : morsel_fail(-EBUSY, "IOMMU group %d of %s is not viable, the kernel says",
				(int)device->function.group, device->function.bdf);
}

static int no_container(struct morsel_domain *domain, const struct morsel_device *device, int rc)
{
	if (rc == -EPERM)
		return morsel_fail(
			rc,
			"VFIO refuses %s because its interrupts are not confined: the IOMMU "
			"needs interrupt remapping, or accept that with "
			"vfio_iommu_type1.allow_unsafe_interrupts=1",
			device->function.bdf);
	if (rc == -EBUSY)
		return morsel_fail(rc, "IOMMU group %d of %s is in another container",
				   (int)device->function.group, device->function.bdf);
	return morsel_fail(rc,
			   "IOMMU group %d of %s cannot join the domain of %u other devices: %s",
			   (int)device->function.group, device->function.bdf, domain->device_count,
			   strerror(-rc));
}

/* The group joins the container; the first one gives it its kind. */
static int join(struct morsel_domain *domain, struct morsel_device *device)
{
	struct vfio_group_status status = {.argsz = sizeof(status)};
	int rc = mrs_sys_ioctl(device->group_fd, VFIO_GROUP_GET_STATUS, &status);

	if (rc)
		return morsel_fail(rc, "VFIO_GROUP_GET_STATUS: %s", strerror(-rc));
	if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		return not_viable(device);
	rc = mrs_sys_ioctl(device->group_fd, VFIO_GROUP_SET_CONTAINER, &domain->fd);
	if (!rc && !domain->device_count) {
		rc = mrs_sys_ioctl(domain->fd, VFIO_SET_IOMMU, (void *)VFIO_TYPE1v2_IOMMU);
		if (rc)
			mrs_sys_ioctl(device->group_fd, VFIO_GROUP_UNSET_CONTAINER, NULL);
	}
	return rc ? no_container(domain, device, rc) : 0;
}

static int open_group(struct morsel_device *device, struct morsel_iommu_opts *opts)
{
	char path[64], name[32];

	snprintf(name, sizeof(name), "vfio/%d", (int)device->function.group);
	dev_path(path, sizeof(path), name);
	device->group_fd =
		opts->group_plus_1 ? mrs_sys_take(&opts->group_plus_1) : mrs_sys_open(path);
	if (device->group_fd >= 0)
		return 0;
	return mrs_words_of_open(path, "the function is not bound to vfio-pci", device->group_fd);
}

static int type1_attach(struct morsel_domain *domain, struct morsel_device *device,
			struct morsel_iommu_opts *opts)
{
	struct morsel_device *peer = in_same_group(domain, device);
	int rc = 0;

	device->group_fd = -1;
	if (peer) {
		device->group_fd = peer->group_fd;
	} else {
		rc = open_group(device, opts);
		if (rc)
			return rc;
		rc = join(domain, device);
		if (rc)
			goto close_group;
	}
	device->fd =
		mrs_sys_ioctl(device->group_fd, VFIO_GROUP_GET_DEVICE_FD, device->function.bdf);
	if (device->fd >= 0)
		return 0;
	rc = morsel_fail(device->fd, "VFIO does not open %s: %s", device->function.bdf,
			 strerror(-device->fd));
	if (peer) {
		device->group_fd = -1;
		return rc;
	}
	mrs_sys_ioctl(device->group_fd, VFIO_GROUP_UNSET_CONTAINER, NULL);
close_group:
	close(device->group_fd);
	device->group_fd = -1;
	return rc;
}

static void type1_detach(struct morsel_domain *domain, struct morsel_device *device)
{
	close(device->fd);
	device->fd = -1;
	if (device->group_fd >= 0 && !in_same_group(domain, device)) {
		mrs_sys_ioctl(device->group_fd, VFIO_GROUP_UNSET_CONTAINER, NULL);
		close(device->group_fd);
	}
	device->group_fd = -1;
}

/* ---- what it can do ---- */

static int permit(struct morsel_domain *domain, const struct vfio_info_cap_header *header)
{
	const struct vfio_iommu_type1_info_cap_iova_range *cap = (const void *)header;
	int rc = 0;

	for (uint32_t i = 0; i < cap->nr_iovas && !rc; i++)
		rc = mrs_iova_permit(&domain->iova, cap->iova_ranges[i].start,
				     cap->iova_ranges[i].end);
	return rc;
}

static int read_caps(struct morsel_domain *domain, const char *info, uint32_t bytes)
{
	uint32_t at = ((const struct vfio_iommu_type1_info *)info)->cap_offset;
	int rc = 0;

	while (at && at + sizeof(struct vfio_info_cap_header) <= bytes && !rc) {
		const struct vfio_info_cap_header *header = (const void *)(info + at);

		if (header->id == VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE)
			rc = permit(domain, header);
		if (header->id == VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL)
			domain->entries_max =
				domain->entries +
				((const struct vfio_iommu_type1_info_dma_avail *)header)->avail;
		at = header->next;
	}
	return rc;
}

/* A kernel before 5.4 does not tell its ranges: everything but the window of interrupts. */
static int permit_usual(struct morsel_domain *domain)
{
	int rc = mrs_iova_permit(&domain->iova, 0, 0xfedfffff);

	return rc ? rc : mrs_iova_permit(&domain->iova, 0xfef00000, (1ull << 39) - 1);
}

static int type1_look(struct morsel_domain *domain)
{
	struct vfio_iommu_type1_info head = {.argsz = sizeof(head)};
	struct vfio_iommu_type1_info *info;
	int rc = mrs_sys_ioctl(domain->fd, VFIO_IOMMU_GET_INFO, &head);

	if (rc)
		return morsel_fail(rc, "VFIO_IOMMU_GET_INFO: %s", strerror(-rc));
	info = calloc(1, mrs_max(head.argsz, sizeof(head)));
	if (!info)
		return morsel_fail(-ENOMEM, "no memory for what the IOMMU says of itself");
	info->argsz = head.argsz;
	rc = mrs_sys_ioctl(domain->fd, VFIO_IOMMU_GET_INFO, info);
	if (rc) {
		rc = morsel_fail(rc, "VFIO_IOMMU_GET_INFO: %s", strerror(-rc));
		goto free_info;
	}
	domain->page_sizes =
		info->flags & VFIO_IOMMU_INFO_PGSIZES ? info->iova_pgsizes : MRS_PAGE_BYTES;
	domain->entries_max = ENTRIES_DEFAULT;
	if (info->flags & VFIO_IOMMU_INFO_CAPS)
		rc = read_caps(domain, (const char *)info, head.argsz);
	if (!rc && !domain->iova.permitted_count)
		rc = permit_usual(domain);
free_info:
	free(info);
	return rc;
}

/* ---- translations ---- */

static int type1_map(struct morsel_domain *domain, const struct mrs_mapping *mapping)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.vaddr = (uintptr_t)mapping->address,
		.iova = mapping->iova,
		.size = mapping->bytes,
	};

	if (mapping->access & MORSEL_READ)
		map.flags |= VFIO_DMA_MAP_FLAG_READ;
	if (mapping->access & MORSEL_WRITE)
		map.flags |= VFIO_DMA_MAP_FLAG_WRITE;
	return mrs_sys_ioctl(domain->fd, VFIO_IOMMU_MAP_DMA, &map);
}

static int type1_unmap(struct morsel_domain *domain, uint64_t iova, uint64_t bytes)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.iova = iova,
		.size = bytes,
	};

	return mrs_sys_ioctl(domain->fd, VFIO_IOMMU_UNMAP_DMA, &unmap);
}

static int no_dirty(struct morsel_domain *domain, bool on)
{
	return morsel_fail(-EOPNOTSUPP,
			   "iommu-type1 has no dirty tracking: VFIO reports every page "
			   "that is mapped as written");
}

static int no_dirty_read(struct morsel_domain *domain, uint64_t iova, uint64_t bytes,
			 uint64_t *bitmap)
{
	return no_dirty(domain, false);
}

static void type1_close(struct morsel_domain *domain)
{
	close(domain->fd);
	domain->fd = -1;
}

const struct mrs_way mrs_way_type1 = {
	.name = "iommu-type1",
	.kind = MORSEL_IOMMU_TYPE1,
	.lock_cap_counts = true,
	.open = type1_open,
	.attach = type1_attach,
	.detach = type1_detach,
	.look = type1_look,
	.map = type1_map,
	.unmap = type1_unmap,
	.dirty = no_dirty,
	.dirty_read = no_dirty_read,
	.close = type1_close,
};
