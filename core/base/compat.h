/*
 * What newer kernels offer and Debian 12's headers do not name yet. Values are the kernel's; each is
 * used only where its absence at run time is answered.
 */
#ifndef MRS_BASE_COMPAT_H
#define MRS_BASE_COMPAT_H

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008u
#endif
#ifndef MPOL_DEFAULT
#define MPOL_DEFAULT   0
#define MPOL_PREFERRED 1
#endif

/* ---- userfaultfd: the device of Linux 6.1, poison of 6.6 ---- */
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xaa, 0x00)
#endif
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif
#ifndef UFFD_FEATURE_POISON
#define UFFD_FEATURE_POISON (1 << 14)
#endif
#ifndef UFFDIO_POISON
struct uffdio_poison {
	struct uffdio_range range;
	__u64 mode;
	__s64 updated;
};
#define _UFFDIO_POISON 0x08
#define UFFDIO_POISON  _IOWR(UFFDIO, _UFFDIO_POISON, struct uffdio_poison)
#endif

/* ---- PAGEMAP_SCAN of Linux 6.7; with names of our own, for <linux/fs.h> has them in new headers ---- */
struct mrs_page_region {
	__u64 start;
	__u64 end;
	__u64 categories;
};
struct mrs_pagemap_scan {
	__u64 size;
	__u64 flags;
	__u64 start;
	__u64 end;
	__u64 walk_end;
	__u64 vec; /* struct mrs_page_region *, vec_len of them */
	__u64 vec_len;
	__u64 max_pages;
	__u64 category_inverted;
	__u64 category_mask;
	__u64 category_anyof_mask;
	__u64 return_mask;
};
#define MRS_PAGEMAP_SCAN       _IOWR('f', 16, struct mrs_pagemap_scan)
#define MRS_PAGEMAP_IS_WRITTEN (1u << 1)
#define MRS_PAGEMAP_IS_PRESENT (1u << 3)
#define MRS_PAGEMAP_IS_HUGE    (1u << 6)

#endif
