/*
 * A kernel with an IOMMU, in a few hundred lines: what iommu/ asks of VFIO and iommufd, with their
 * rules: nothing overlaps, a mapping goes as a whole or not at all, there is a limit of entries. It
 * replaces the system calls of the library (internal.h) and needs neither device nor privilege.
 *
 * A device's accesses are made by fake_dma(), by way of the mappings that exist, as an IOMMU would.
 */
#ifndef TESTS_IOMMU_FAKE_H
#define TESTS_IOMMU_FAKE_H

#include <stdbool.h>
#include <stdint.h>

#define FAKE_BDF       "0000:01:00.0"
#define FAKE_BAR_BYTES 65536u

struct fake_rules {
	uint64_t entries_max;	/* type1's limit */
	bool dirty;		/* iommufd: the IOMMU tracks what is written */
	bool no_iommufd;	/* neither /dev/iommu nor device nodes */
	bool no_type1;		/* the module is missing */
	bool unsafe_interrupts; /* refuses with EPERM */
	bool no_reset;
};

/* Begins anew: one function, FAKE_BDF, alone in group 7 and bound to vfio-pci. NULL: all rules off.
 */
void fake_start(const struct fake_rules *rules);
/* The real kernel again; files are removed. */
void fake_stop(void);

/* One more function in sysfs; driver "" is none. */
void fake_function(const char *bdf, int group, const char *driver);
/* Takes the driver away, or gives it another. */
void fake_driver(const char *bdf, const char *driver);
/* Removes a file below sys/ or dev/, so that it is missing. */
void fake_remove(const char *path);

/* The n-th ioctl from now on fails with this errno, once; 0: none does. */
void fake_fail(uint64_t n, int error);
/* Calls so far. */
uint64_t fake_ioctls(void);

struct fake_counts {
	uint64_t mappings, bytes;
	uint64_t devices;      /* that translate */
	uint64_t maps, unmaps; /* calls that succeeded */
	uint64_t largest;      /* bytes of the largest mapping that exists */
};
struct fake_counts fake_counts(void);

/* By the device: 0, -EFAULT where nothing is mapped, -EACCES where the right is missing. */
int fake_dma(uint64_t iova, void *in, const void *out, uint64_t bytes);
/* What a read gets at the mapping that begins exactly there: its length, or 0. */
uint64_t fake_mapping_at(uint64_t iova);

/* The kernel wants the device back. */
void fake_want_back(void);
/* An interrupt of the device. */
void fake_interrupt(uint32_t vector);
/* Everything up to here belongs to another process: in a child of fork. */
void fake_forget(void);

#endif
