/*
 * What the kernel's iommufd and VFIO device nodes understand, as far as it is used here. Debian
 * 12's headers do not have it yet; the names are our own, so that newer headers may be included
 * beside it.
 */
#ifndef MRS_IOMMU_UAPI_H
#define MRS_IOMMU_UAPI_H

#include <stdint.h>

#include <linux/vfio.h>
#include <sys/ioctl.h>

#define MRS_IOMMUFD(nr) _IO(';', 0x80 + (nr))

#define MRS_IOMMUFD_DESTROY	   MRS_IOMMUFD(0)
#define MRS_IOMMUFD_IOAS_ALLOC	   MRS_IOMMUFD(1)
#define MRS_IOMMUFD_IOVA_RANGES	   MRS_IOMMUFD(4)
#define MRS_IOMMUFD_MAP		   MRS_IOMMUFD(5)
#define MRS_IOMMUFD_UNMAP	   MRS_IOMMUFD(6)
#define MRS_IOMMUFD_HWPT_ALLOC	   MRS_IOMMUFD(9)
#define MRS_IOMMUFD_HW_INFO	   MRS_IOMMUFD(10)
#define MRS_IOMMUFD_DIRTY_TRACKING MRS_IOMMUFD(11)
#define MRS_IOMMUFD_DIRTY_BITMAP   MRS_IOMMUFD(12)

struct mrs_iommufd_destroy {
	uint32_t size, id;
};

struct mrs_iommufd_ioas_alloc {
	uint32_t size, flags, out_ioas;
};

struct mrs_iommufd_range {
	uint64_t first, last;
};

struct mrs_iommufd_iova_ranges {
	uint32_t size, ioas, count, reserved;
	uint64_t ranges; /* struct mrs_iommufd_range * */
	uint64_t out_alignment;
};

enum { MRS_IOMMUFD_FIXED = 1, MRS_IOMMUFD_WRITE = 2, MRS_IOMMUFD_READ = 4 };

struct mrs_iommufd_map {
	uint32_t size, flags, ioas, reserved;
	uint64_t address, length, iova;
};

struct mrs_iommufd_unmap {
	uint32_t size, ioas;
	uint64_t iova, length;
};

#define MRS_IOMMUFD_HWPT_DIRTY 2u

struct mrs_iommufd_hwpt_alloc {
	uint32_t size, flags, device, pt, out_hwpt, reserved, data_type, data_length;
	uint64_t data;
	uint32_t fault, reserved2;
};

#define MRS_IOMMUFD_CAP_DIRTY 1u
#define MRS_IOMMUFD_HW_INTEL  1u
struct mrs_iommufd_hw_info {
	uint32_t size, flags, device, data_length;
	uint64_t data;
	uint32_t out_type, reserved;
	uint64_t out_capabilities;
};
struct mrs_iommufd_hw_intel {
	uint32_t flags, reserved;
	uint64_t cap, ecap;
};

struct mrs_iommufd_dirty_tracking {
	uint32_t size, flags, hwpt, reserved;
};

struct mrs_iommufd_dirty_bitmap {
	uint32_t size, hwpt, flags, reserved;
	uint64_t iova, length, page_size, data;
};

/* ---- VFIO's device node ---- */

#define MRS_VFIO_BIND_IOMMUFD _IO(VFIO_TYPE, VFIO_BASE + 18)
#define MRS_VFIO_ATTACH	      _IO(VFIO_TYPE, VFIO_BASE + 19)
#define MRS_VFIO_DETACH	      _IO(VFIO_TYPE, VFIO_BASE + 20)

struct mrs_vfio_bind {
	uint32_t argsz, flags;
	int32_t iommufd;
	uint32_t out_device;
};

struct mrs_vfio_attach {
	uint32_t argsz, flags, pt;
};

struct mrs_vfio_detach {
	uint32_t argsz, flags;
};

#endif
