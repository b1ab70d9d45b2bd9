/* A kernel with an IOMMU, in software. See fake.h. */
#include "iommu/fake.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "iommu/internal.h"
#include "iommu/uapi.h"

struct mapping {
	struct mapping *next;
	uint64_t iova, bytes;
	char *address;
	bool readable, writable;
	uint64_t *dirty;
};

#define CONFIG_AT (7ull << 40)
#define DEVICES	  8
#define VECTORS	  16

struct device {
	uint64_t inode; /* of its descriptor; 0: none */
	bool attached;
	int wanted;
	int vector[VECTORS];
};

static struct {
	pthread_mutex_t lock;
	struct fake_rules rules;
	char root[64], sys[80], dev[80];
	struct mapping *mappings;
	struct device device[DEVICES];
	bool tracking;
	uint64_t ioctls, fail_at;
	int fail_error;
	uint64_t maps, unmaps;
} fake = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- files ---- */

static void make_path(const char *path)
{
	char part[256];

	for (const char *at = path + 1; (at = strchr(at, '/')); at++) {
		snprintf(part, sizeof(part), "%.*s", (int)(at - path), path);
		mkdir(part, 0700);
	}
}

static void put_file(const char *base, const char *name, const char *content)
{
	char path[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", base, name);
	make_path(path);
	file = fopen(path, "w");
	if (!file || fputs(content, file) < 0)
		abort();
	fclose(file);
}

static void put_link(const char *base, const char *name, const char *target)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", base, name);
	make_path(path);
	unlink(path);
	if (symlink(target, path))
		abort();
}

void fake_driver(const char *bdf, const char *driver)
{
	char name[160], target[256];

	snprintf(name, sizeof(name), "bus/pci/devices/%s/driver", bdf);
	snprintf(target, sizeof(target), "%s/%s", fake.sys, name);
	unlink(target);
	if (!driver[0])
		return;
	snprintf(target, sizeof(target), "%s/bus/pci/drivers/%s", fake.sys, driver);
	put_link(fake.sys, name, target);
	snprintf(target, sizeof(target), "bus/pci/drivers/%s/module", driver);
	put_file(fake.sys, target, "");
}

void fake_function(const char *bdf, int group, const char *driver)
{
	static const char *const files[][2] = {
		{"vendor", "0x1234\n"}, {"device", "0x11e8\n"}, {"class", "0x00ff00\n"}};
	char name[160], target[256];

	for (size_t i = 0; i < mrs_array_length(files); i++) {
		snprintf(name, sizeof(name), "bus/pci/devices/%s/%s", bdf, files[i][0]);
		put_file(fake.sys, name, files[i][1]);
	}
	fake_driver(bdf, driver);
	if (group < 0)
		return;
	snprintf(target, sizeof(target), "%s/kernel/iommu_groups/%d", fake.sys, group);
	snprintf(name, sizeof(name), "bus/pci/devices/%s/iommu_group", bdf);
	put_link(fake.sys, name, target);
	snprintf(name, sizeof(name), "kernel/iommu_groups/%d/devices/%s", group, bdf);
	put_file(fake.sys, name, "");
	if (fake.rules.no_iommufd || !strstr(driver, "vfio"))
		return;
	snprintf(name, sizeof(name), "bus/pci/devices/%s/vfio-dev/vfio%d/dev", bdf, group);
	put_file(fake.sys, name, "");
	snprintf(name, sizeof(name), "vfio/devices/vfio%d", group);
	put_file(fake.dev, name, "");
}

void fake_remove(const char *path)
{
	char full[256];

	snprintf(full, sizeof(full), "%s/%s", fake.root, path);
	if (remove(full))
		abort();
}

/* ---- descriptors: each is a file in memory, known by its inode ---- */

static uint64_t inode_of(int fd)
{
	struct stat stat;

	return fstat(fd, &stat) ? 0 : stat.st_ino;
}

static int fake_open(const char *path, int flags)
{
	int fd;

	if (strncmp(path, fake.dev, strlen(fake.dev)))
		return open(path, flags);
	if (access(path, F_OK))
		return -1;
	fd = memfd_create("fake", MFD_CLOEXEC);
	/* A node of iommufd is the device itself. */
	if (fd >= 0 && strstr(path, "/devices/") && ftruncate(fd, (off_t)(CONFIG_AT + 4096)))
		abort();
	return fd;
}

static struct device *device_of(int fd)
{
	uint64_t inode = inode_of(fd);

	for (unsigned i = 0; i < DEVICES; i++)
		if (fake.device[i].inode == inode)
			return &fake.device[i];
	return NULL;
}

/* The oldest goes: it has been closed long ago. */
static int device_add(int fd)
{
	static const uint32_t id = 0x11e81234;
	static unsigned next;
	struct device *device = &fake.device[next++ % DEVICES];

	*device = (struct device){.inode = inode_of(fd), .attached = true, .wanted = -1};
	memset(device->vector, 0xff, sizeof(device->vector));
	if (pwrite(fd, &id, sizeof(id), (off_t)CONFIG_AT) != sizeof(id))
		abort();
	return 0;
}

static void free_mapping(struct mapping *mapping)
{
	free(mapping->dirty);
	free(mapping);
}

static void drop_mappings(void)
{
	while (fake.mappings) {
		struct mapping *mapping = fake.mappings;

		fake.mappings = mapping->next;
		free_mapping(mapping);
	}
}

/* ---- mappings ---- */

static struct mapping *overlapping(uint64_t iova, uint64_t bytes)
{
	for (struct mapping *m = fake.mappings; m; m = m->next)
		if (m->iova < iova + bytes && iova < m->iova + m->bytes)
			return m;
	return NULL;
}

static int add_mapping(const struct mapping *like)
{
	struct mapping *mapping;

	if (!like->bytes || (like->iova | like->bytes) & 4095 ||
	    (like->iova < 0xfef00000 && like->iova + like->bytes > 0xfee00000) ||
	    like->iova + like->bytes > 1ull << 47)
		return -EINVAL;
	if (overlapping(like->iova, like->bytes))
		return -EEXIST;
	mapping = malloc(sizeof(*mapping));
	*mapping = *like;
	mapping->dirty = calloc(like->bytes / 4096 / 64 + 1, 8);
	mapping->next = fake.mappings;
	fake.mappings = mapping;
	fake.maps++;
	return 0;
}

static int remove_mappings(uint64_t iova, uint64_t bytes, int cut_error)
{
	struct mapping **link = &fake.mappings;

	for (struct mapping *m = fake.mappings; m; m = m->next)
		if (m->iova < iova + bytes && iova < m->iova + m->bytes &&
		    (m->iova < iova || m->iova + m->bytes > iova + bytes))
			return cut_error;
	while (*link) {
		struct mapping *m = *link;

		if (m->iova >= iova && m->iova < iova + bytes) {
			*link = m->next;
			free_mapping(m);
		} else {
			link = &m->next;
		}
	}
	fake.unmaps++;
	return 0;
}

int fake_dma(uint64_t iova, void *in, const void *out, uint64_t bytes)
{
	char *to = in;
	const char *from = out;
	int rc = 0;

	pthread_mutex_lock(&fake.lock);
	while (bytes && !rc) {
		struct mapping *m = overlapping(iova, 1);
		uint64_t part = mrs_min(4096 - iova % 4096, bytes), at;

		if (!m || (in && !m->readable) || (out && !m->writable)) {
			rc = m ? -EACCES : -EFAULT;
			break;
		}
		at = iova - m->iova;
		if (out && fake.tracking)
			m->dirty[at / 4096 / 64] |= 1ull << at / 4096 % 64;
		memcpy(in ? to : m->address + at, in ? m->address + at : from, part);
		iova += part;
		bytes -= part;
		to += in ? part : 0;
		from += out ? part : 0;
	}
	pthread_mutex_unlock(&fake.lock);
	return rc;
}

uint64_t fake_mapping_at(uint64_t iova)
{
	uint64_t bytes = 0;

	pthread_mutex_lock(&fake.lock);
	for (struct mapping *m = fake.mappings; m; m = m->next)
		if (m->iova == iova)
			bytes = m->bytes;
	pthread_mutex_unlock(&fake.lock);
	return bytes;
}

struct fake_counts fake_counts(void)
{
	struct fake_counts counts = {0};

	pthread_mutex_lock(&fake.lock);
	counts.maps = fake.maps;
	counts.unmaps = fake.unmaps;
	for (struct mapping *m = fake.mappings; m; m = m->next) {
		counts.mappings++;
		counts.bytes += m->bytes;
		counts.largest = mrs_max(counts.largest, m->bytes);
	}
	for (unsigned i = 0; i < DEVICES; i++)
		counts.devices += fake.device[i].inode && fake.device[i].attached;
	pthread_mutex_unlock(&fake.lock);
	return counts;
}

/* ---- type1 ---- */

static int type1_map(const struct vfio_iommu_type1_dma_map *map)
{
	struct mapping like = {
		.iova = map->iova,
		.bytes = map->size,
		.address = (char *)(uintptr_t)map->vaddr,
		.readable = map->flags & VFIO_DMA_MAP_FLAG_READ,
		.writable = map->flags & VFIO_DMA_MAP_FLAG_WRITE,
	};
	uint64_t count = 0;

	for (struct mapping *m = fake.mappings; m; m = m->next)
		count++;
	return count >= fake.rules.entries_max ? -ENOSPC : add_mapping(&like);
}

struct type1_info {
	struct vfio_iommu_type1_info info;
	struct vfio_iommu_type1_info_cap_iova_range ranges;
	struct vfio_iova_range range[2];
	struct vfio_iommu_type1_info_dma_avail avail;
};

static int type1_info(struct vfio_iommu_type1_info *info)
{
	struct type1_info all = {
		.info = {.argsz = sizeof(all),
			 .flags = VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS,
			 .iova_pgsizes = 0x40201000,
			 .cap_offset = offsetof(struct type1_info, ranges)},
		.ranges = {.header = {VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, 1,
				      offsetof(struct type1_info, avail)},
			   .nr_iovas = 2},
		.range = {{0, 0xfedfffff}, {0xfef00000, (1ull << 47) - 1}},
		.avail = {.header = {VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, 1, 0}},
	};
	uint64_t count = 0;

	for (struct mapping *m = fake.mappings; m; m = m->next)
		count++;
	all.avail.avail = (uint32_t)(fake.rules.entries_max - count);
	if (info->argsz >= sizeof(all))
		memcpy(info, &all, sizeof(all));
	else
		info->argsz = sizeof(all);
	return 0;
}

static int open_device(void)
{
	int fd = memfd_create("fake-device", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)(CONFIG_AT + 4096)))
		return -ENOMEM;
	device_add(fd);
	return fd;
}

static int on_type1(unsigned long request, void *arg)
{
	switch (request) {
	case VFIO_GET_API_VERSION:
		return VFIO_API_VERSION;
	case VFIO_CHECK_EXTENSION:
		return !fake.rules.no_type1;
	case VFIO_GROUP_GET_STATUS:
		((struct vfio_group_status *)arg)->flags = VFIO_GROUP_FLAGS_VIABLE;
		return 0;
	case VFIO_GROUP_SET_CONTAINER:
		return 0;
	case VFIO_GROUP_UNSET_CONTAINER: /* of the last group, here */
		for (unsigned i = 0; i < DEVICES; i++)
			fake.device[i].attached = false;
		drop_mappings();
		return 0;
	case VFIO_SET_IOMMU:
		return fake.rules.unsafe_interrupts ? -EPERM : 0;
	case VFIO_GROUP_GET_DEVICE_FD:
		return open_device();
	case VFIO_IOMMU_GET_INFO:
		return type1_info(arg);
	case VFIO_IOMMU_MAP_DMA:
		return type1_map(arg);
	case VFIO_IOMMU_UNMAP_DMA:
		return remove_mappings(((struct vfio_iommu_type1_dma_unmap *)arg)->iova,
				       ((struct vfio_iommu_type1_dma_unmap *)arg)->size, -EINVAL);
	default:
		return -ENOTTY;
	}
}

/* ---- iommufd ---- */

static int iommufd_map(const struct mrs_iommufd_map *map)
{
	struct mapping like = {
		.iova = map->iova,
		.bytes = map->length,
		.address = (char *)(uintptr_t)map->address,
		.readable = map->flags & MRS_IOMMUFD_READ,
		.writable = map->flags & MRS_IOMMUFD_WRITE,
	};

	return add_mapping(&like);
}

static int iommufd_ranges(struct mrs_iommufd_iova_ranges *ranges)
{
	struct mrs_iommufd_range *range = (void *)(uintptr_t)ranges->ranges;

	range[0] = (struct mrs_iommufd_range){0, 0xfedfffff};
	range[1] = (struct mrs_iommufd_range){0xfef00000, (1ull << 47) - 1};
	ranges->count = 2;
	ranges->out_alignment = 4096;
	return 0;
}

/* Reads and clears: the range lies in one mapping. */
static int iommufd_bitmap(const struct mrs_iommufd_dirty_bitmap *read)
{
	struct mapping *m = overlapping(read->iova, read->length);
	uint64_t *out = (void *)(uintptr_t)read->data;

	if (!m || read->iova < m->iova || read->iova + read->length > m->iova + m->bytes)
		return -EINVAL;
	for (uint64_t i = 0; i < read->length / 4096; i++) {
		uint64_t page = (read->iova - m->iova) / 4096 + i;

		if (m->dirty[page / 64] >> page % 64 & 1)
			out[i / 64] |= 1ull << i % 64;
		m->dirty[page / 64] &= ~(1ull << page % 64);
	}
	return 0;
}

static int on_iommufd(unsigned long request, void *arg)
{
	switch (request) {
	case MRS_IOMMUFD_IOAS_ALLOC:
		((struct mrs_iommufd_ioas_alloc *)arg)->out_ioas = 5;
		return 0;
	case MRS_IOMMUFD_HWPT_ALLOC:
		((struct mrs_iommufd_hwpt_alloc *)arg)->out_hwpt = 6;
		return fake.rules.dirty ? 0 : -EOPNOTSUPP;
	case MRS_IOMMUFD_HW_INFO:
		((struct mrs_iommufd_hw_info *)arg)->out_capabilities = fake.rules.dirty;
		return 0;
	case MRS_IOMMUFD_IOVA_RANGES:
		return iommufd_ranges(arg);
	case MRS_IOMMUFD_MAP:
		return iommufd_map(arg);
	case MRS_IOMMUFD_UNMAP:
		return remove_mappings(((struct mrs_iommufd_unmap *)arg)->iova,
				       ((struct mrs_iommufd_unmap *)arg)->length, -ENOENT);
	case MRS_IOMMUFD_DIRTY_TRACKING:
		fake.tracking = ((struct mrs_iommufd_dirty_tracking *)arg)->flags;
		return 0;
	case MRS_IOMMUFD_DIRTY_BITMAP:
		return iommufd_bitmap(arg);
	default:
		return -ENOTTY;
	}
}

/* ---- devices ---- */

static int region_info(struct vfio_region_info *info)
{
	info->flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
	info->size = info->index == VFIO_PCI_CONFIG_REGION_INDEX ? 4096
		     : info->index == VFIO_PCI_BAR0_REGION_INDEX ? FAKE_BAR_BYTES
								 : 0;
	if (info->index == VFIO_PCI_BAR0_REGION_INDEX)
		info->flags |= VFIO_REGION_INFO_FLAG_MMAP;
	info->offset = (uint64_t)info->index << 40;
	return 0;
}

static int set_irqs(struct device *device, const struct vfio_irq_set *set)
{
	const int *fds = (const int *)set->data;
	uint64_t one = 1;

	if (set->index == VFIO_PCI_REQ_IRQ_INDEX) {
		device->wanted = fds[0];
		return 0;
	}
	if (set->flags & VFIO_IRQ_SET_DATA_EVENTFD)
		memcpy(&device->vector[set->start], fds, set->count * sizeof(int));
	else if (!set->count)
		memset(device->vector, 0xff, sizeof(device->vector));
	else if (set->flags & VFIO_IRQ_SET_ACTION_TRIGGER && device->vector[set->start] >= 0 &&
		 write(device->vector[set->start], &one, 8) < 0)
		return -errno;
	return 0;
}

static int on_device(int fd, struct device *device, unsigned long request, void *arg)
{
	switch (request) {
	case VFIO_DEVICE_GET_INFO:
		((struct vfio_device_info *)arg)->flags =
			VFIO_DEVICE_FLAGS_PCI | (fake.rules.no_reset ? 0 : VFIO_DEVICE_FLAGS_RESET);
		((struct vfio_device_info *)arg)->num_regions = 9;
		((struct vfio_device_info *)arg)->num_irqs = 5;
		return 0;
	case VFIO_DEVICE_GET_REGION_INFO:
		return region_info(arg);
	case VFIO_DEVICE_GET_IRQ_INFO: {
		static const uint32_t counts[] = {1, 1, VECTORS, 0, 1};
		struct vfio_irq_info *info = arg;

		info->count = counts[info->index];
		return 0;
	}
	case VFIO_DEVICE_SET_IRQS:
		return set_irqs(device, arg);
	case VFIO_DEVICE_RESET:
		return 0;
	case MRS_VFIO_ATTACH:
		device->attached = true;
		return 0;
	case MRS_VFIO_DETACH:
		device->attached = false;
		return 0;
	default:
		return -ENOTTY;
	}
}

/* The kernel frees what nobody refers to; here, what a descriptor is closed for is found out late.
 */
static int dispatch(int fd, unsigned long request, void *arg)
{
	struct device *device = device_of(fd);

	if (request == MRS_VFIO_BIND_IOMMUFD) {
		((struct mrs_vfio_bind *)arg)->out_device = 3;
		return fake.rules.unsafe_interrupts ? -EPERM : device_add(fd);
	}
	if (device)
		return on_device(fd, device, request, arg);
	if (_IOC_NR(request) >= 0x80)
		return on_iommufd(request, arg);
	return on_type1(request, arg);
}

static int fake_ioctl(int fd, unsigned long request, void *arg)
{
	int rc;

	pthread_mutex_lock(&fake.lock);
	fake.ioctls++;
	if (fake.fail_at && !--fake.fail_at)
		rc = -fake.fail_error;
	else
		rc = dispatch(fd, request, arg);
	pthread_mutex_unlock(&fake.lock);
	if (rc >= 0)
		return rc;
	errno = -rc;
	return -1;
}

void fake_fail(uint64_t n, int error)
{
	pthread_mutex_lock(&fake.lock);
	fake.fail_at = n;
	fake.fail_error = error;
	pthread_mutex_unlock(&fake.lock);
}

uint64_t fake_ioctls(void)
{
	uint64_t n;

	pthread_mutex_lock(&fake.lock);
	n = fake.ioctls;
	pthread_mutex_unlock(&fake.lock);
	return n;
}

void fake_want_back(void)
{
	uint64_t one = 1;

	for (unsigned i = 0; i < DEVICES; i++)
		if (fake.device[i].inode && fake.device[i].wanted >= 0 &&
		    write(fake.device[i].wanted, &one, 8) != 8)
			abort();
}

void fake_interrupt(uint32_t vector)
{
	uint64_t one = 1;

	for (unsigned i = 0; i < DEVICES; i++)
		if (fake.device[i].inode && fake.device[i].vector[vector] >= 0 &&
		    write(fake.device[i].vector[vector], &one, 8) != 8)
			abort();
}

void fake_forget(void)
{
	drop_mappings();
	memset(fake.device, 0, sizeof(fake.device));
}

/* ---- start and stop ---- */

static int remove_one(const char *path, const struct stat *stat, int type, struct FTW *ftw)
{
	return remove(path);
}

static const struct mrs_iommu_sys *real;

void fake_start(const struct fake_rules *rules)
{
	static struct mrs_iommu_sys sys = {.open = fake_open, .ioctl = fake_ioctl};
	const char *directory = getenv("TMPDIR");

	fake.rules = rules ? *rules : (struct fake_rules){0};
	if (!fake.rules.entries_max)
		fake.rules.entries_max = 65535;
	fake_forget();
	fake.fail_at = fake.ioctls = fake.maps = fake.unmaps = 0;
	fake.tracking = false;
	snprintf(fake.root, sizeof(fake.root), "%.30s/morsel-fake-XXXXXX",
		 directory ? directory : "/tmp");
	if (!mkdtemp(fake.root))
		abort();
	snprintf(fake.sys, sizeof(fake.sys), "%s/sys", fake.root);
	snprintf(fake.dev, sizeof(fake.dev), "%s/dev", fake.root);
	put_file(fake.sys, "class/iommu/fake0", "");
	put_file(fake.sys, "bus/pci/drivers/vfio-pci/module", "");
	put_file(fake.dev, "vfio/vfio", "");
	put_file(fake.dev, "vfio/7", "");
	if (!fake.rules.no_iommufd)
		put_file(fake.dev, "iommu", "");
	fake_function(FAKE_BDF, 7, "vfio-pci");
	if (!real)
		real = mrs_iommu_sys;
	sys.sysfs = fake.sys;
	sys.dev = fake.dev;
	mrs_iommu_sys = &sys;
}

void fake_stop(void)
{
	mrs_iommu_sys = real;
	drop_mappings();
	nftw(fake.root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
