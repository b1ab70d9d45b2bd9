/*
 * morsel: devices that user space drives, and morsels in their address space.
 *
 * A device is a PCI function that is bound to vfio-pci (morsel_iommu_bind(), `morsel iommu bind`).
 * A domain is what one or several devices translate with: one space of I/O virtual addresses
 * (IOVA), one set of translations. A view of a morsel over a domain is a range of IOVAs behind
 * which the morsel's pages are, in the order of the morsel, however its frames are scattered.
 *
 *        morsel_iommu_open(bdf)  --> device --+
 *        morsel_iommu_open(bdf2) --> device --+--> domain --> views of morsels, each at an IOVA
 *                       (opts.domain)                           morsel_acquire() --> grant.iova
 *
 * How a driver uses it: open the device, make a view, acquire a range, give grant.iova to the
 * device, wait until the device has finished, release. Outside a grant a device must not touch a
 * page: it may have no translation (the access faults in the IOMMU and changes nothing). What is
 * released stays translated until somebody needs the memory or the entry: acquiring it again costs
 * no system call.
 *
 * Two ways into the kernel. MORSEL_IOMMU_TYPE1 is VFIO's container and group: every kernel with
 * VFIO. MORSEL_IOMMU_IOMMUFD is VFIO's device node and /dev/iommu: Linux 6.6, where it is
 * configured. Without a choice the library takes iommufd if the device has a node and /dev/iommu
 * opens, else type1; the domain's info says which.
 *
 * Pinned memory. What is translated is pinned by the kernel and counts against RLIMIT_MEMLOCK; the
 * library counts too, and refuses with the number that would be needed before the kernel does.
 * Views of morsels that are not evictable are translated as a whole when they are made; those of
 * evictable ones only where they have been acquired.
 *
 * Conventions as in <morsel/morsel.h>: 0 or a negative errno, words in morsel_errormsg(), outputs
 * only on success, option structs begin with their size, zero means default. Any thread may call
 * any function at any time; a device must not be closed while another thread uses it. fork: a
 * device and its domain are unusable in the child (-ECHILD), BARs are not inherited. exec closes
 * everything.
 *
 * Trust: whoever drives a device that the IOMMU confines can reach what is in its domain and
 * nothing else. Descriptors of the kernel that were handed to somebody else keep translations alive
 * after this process has died: hand over, do not share.
 */
#ifndef MORSEL_IOMMU_H
#define MORSEL_IOMMU_H

#include <stddef.h>
#include <stdint.h>

#include <morsel/morsel.h>

#ifdef __cplusplus
extern "C" {
#endif

struct morsel_device;
struct morsel_domain;

/* ---- what there is ------------------------------------------------------------------------- */

/* "0000:00:04.0" and its end. */
#define MORSEL_IOMMU_BDF_BYTES 16

struct morsel_iommu_function {
	size_t size; /* the library's sizeof(struct morsel_iommu_function) */
	char bdf[MORSEL_IOMMU_BDF_BYTES];
	uint16_t vendor, device;
	uint32_t class_code;		      /* 24 bits, for example 0x010802 for NVMe */
	int32_t group;			      /* IOMMU group; -1: no IOMMU translates for it */
	uint32_t peers;			      /* other functions in the group */
	uint32_t viable;		      /* 1: nobody else in its group is in the way */
	uint32_t has_cdev;		      /* 1: has a device node for iommufd */
	char driver[32];		      /* "" if none is bound */
	char blocker[MORSEL_IOMMU_BDF_BYTES]; /* not viable: a function that is in the way */
	char blocker_driver[32];	      /* and the driver that has it */
};

/* Calls fn for every PCI function, in the order of addresses; a non-zero answer ends it. */
typedef int (*morsel_iommu_function_fn)(void *ctx, const struct morsel_iommu_function *function);
MORSEL_API int morsel_iommu_list(morsel_iommu_function_fn fn, void *ctx);

/* One of them. -ENODEV: there is no function at this address. -EINVAL: not a PCI address. */
MORSEL_API int morsel_iommu_find(const char *bdf, struct morsel_iommu_function *function);

/*
 * Has the kernel give the function to vfio-pci; the driver that has it now lets go. Needs the
 * rights of root on sysfs. -ENOENT: the module vfio-pci is missing; -EACCES. Already bound is fine.
 */
MORSEL_API int morsel_iommu_bind(const char *bdf);
/* Gives it back to the driver that the kernel would choose. */
MORSEL_API int morsel_iommu_unbind(const char *bdf);

/* ---- devices ------------------------------------------------------------------------------- */

enum morsel_iommu_kind {
	MORSEL_IOMMU_AUTO = 0, /* iommufd where the device has a node, else type1 */
	MORSEL_IOMMU_TYPE1,
	MORSEL_IOMMU_IOMMUFD,
};

enum morsel_iommu_open_flags {
	/*
	 * Nobody listens for the kernel's wish to have the device back: the program polls
	 * morsel_iommu_event_fd() and calls morsel_iommu_poll().
	 */
	MORSEL_IOMMU_NO_THREAD = 1 << 0,
	/* Do not switch bus mastering on when the device is opened. */
	MORSEL_IOMMU_NO_BUS_MASTER = 1 << 1,
};

struct morsel_iommu_opts {
	size_t size;	/* sizeof(struct morsel_iommu_opts) */
	uint32_t kind;	/* enum morsel_iommu_kind; of a device that joins a domain: the domain's */
	uint32_t flags; /* enum morsel_iommu_open_flags */
	/* Translate with this domain, beside the devices that are in it; NULL: one of its own. */
	struct morsel_domain *domain;
	/*
	 * Descriptors that a privileged parent opened, each plus one; 0: open it here. They belong
	 * to the library if the call succeeds. type1: container and group (/dev/vfio/vfio,
	 * /dev/vfio/GROUP), not yet joined; iommufd: /dev/iommu and the device's node, not yet
	 * bound. Of a domain that exists only the second of the pair is taken.
	 */
	int container_plus_1, group_plus_1;
	int iommufd_plus_1, device_plus_1;
	/* Most translations (type1: mappings) that the library makes; default what the kernel
	 * allows. */
	uint64_t entries_max;
};

/*
 * Opens the device for this process. Errors, each with its remedy: -ENODEV no such function, or no
 * IOMMU translates for it; -ENXIO not bound to vfio-pci; -EBUSY its group is not viable (the words
 * name the function that blocks it and its driver), or somebody else has it open; -EACCES, -EPERM;
 * -ENOENT a module or device file is missing; -EOPNOTSUPP iommufd was demanded and the kernel has
 * none.
 */
MORSEL_API int morsel_iommu_open(const char *bdf, const struct morsel_iommu_opts *opts,
				 struct morsel_device **device);

/*
 * Ends the use: interrupts and bus mastering off, BARs unmapped. The last device of a domain ends
 * the domain. -EBUSY names how many views still exist, of this device, or of its domain if it is
 * the last; nothing has happened then. NULL is fine.
 */
MORSEL_API int morsel_iommu_close(struct morsel_device *device);

struct morsel_iommu_device_info {
	size_t size; /* the caller's sizeof(struct morsel_iommu_device_info) */
	char bdf[MORSEL_IOMMU_BDF_BYTES];
	uint16_t vendor, device, subsystem_vendor, subsystem_device;
	uint32_t class_code;
	int32_t group;
	uint32_t kind;	    /* enum morsel_iommu_kind that it was opened by */
	uint32_t can_reset; /* morsel_iommu_reset() will work */
	uint32_t gone;	    /* 1: it has been taken away */
	uint32_t regions;   /* how many indices morsel_iommu_region() knows */
	uint32_t irqs[3];   /* by enum morsel_iommu_irq: how many there are; 0: none */
	uint64_t views;	    /* of this device, without those of its domain */
};
MORSEL_API int morsel_iommu_device_info(struct morsel_device *device,
					struct morsel_iommu_device_info *info);

/* The devices' own way to reset; registers are as after power-on, translations stay. */
/* -EOPNOTSUPP: the device has none. -EBUSY: another thread is resetting it. */
MORSEL_API int morsel_iommu_reset(struct morsel_device *device);

/* ---- registers ----------------------------------------------------------------------------- */

struct morsel_iommu_region {
	size_t size;	/* the caller's sizeof(struct morsel_iommu_region) */
	uint64_t bytes; /* 0: there is none at this index */
	uint32_t readable, writable, mappable;
};
/* Index 0 to 5 are BARs, 6 the ROM, 7 the configuration space. -ERANGE past the last. */
MORSEL_API int morsel_iommu_region(struct morsel_device *device, uint32_t index,
				   struct morsel_iommu_region *region);

/*
 * Maps a BAR; the same address at every call, until the device is closed. Use volatile accesses of
 * the width that the device wants. When the device is gone, reads give ones and writes go nowhere.
 * -ENOENT: no such BAR; -EOPNOTSUPP: the kernel does not let it be mapped (I/O ports).
 */
MORSEL_API int morsel_iommu_bar(struct morsel_device *device, uint32_t index, void **address,
				uint64_t *bytes);

/* Bytes of a region by system calls: configuration space, and BARs that cannot be mapped. */
MORSEL_API int morsel_iommu_read(struct morsel_device *device, uint32_t index, uint64_t offset,
				 void *buffer, size_t bytes);
MORSEL_API int morsel_iommu_write(struct morsel_device *device, uint32_t index, uint64_t offset,
				  const void *buffer, size_t bytes);
#define MORSEL_IOMMU_CONFIG 7u

/* Lets the device start transfers, and answer at its BARs; or not. */
MORSEL_API int morsel_iommu_bus_master(struct morsel_device *device, int on);

/* ---- interrupts ---------------------------------------------------------------------------- */

enum morsel_iommu_irq {
	MORSEL_IOMMU_INTX = 0,
	MORSEL_IOMMU_MSI,
	MORSEL_IOMMU_MSIX,
};

/*
 * From now on vectors [0, count) of this kind write to these eventfds, which stay the caller's and
 * must live until the interrupts are off or the device is closed; -1 leaves a vector out. Replaces
 * what was set before. One kind at a time is on. -ERANGE: the device has fewer vectors. INTx comes
 * masked after every event: morsel_iommu_irq_unmask().
 */
MORSEL_API int morsel_iommu_irq_on(struct morsel_device *device, uint32_t kind, uint32_t count,
				   const int *eventfds);
MORSEL_API int morsel_iommu_irq_off(struct morsel_device *device);
/* INTx: the device has been served and may interrupt again. */
MORSEL_API int morsel_iommu_irq_unmask(struct morsel_device *device);
/* Has the kernel act as if the vector had fired: for tests of a driver. */
MORSEL_API int morsel_iommu_irq_trigger(struct morsel_device *device, uint32_t vector);

/* ---- a device that goes -------------------------------------------------------------------- */

/*
 * When the kernel wants the device back (hot unplug, unbinding) it says so and waits. The library
 * then lets go by itself, in a thread of its own (unless MORSEL_IOMMU_NO_THREAD): the device's
 * views lose their translations and the memory is unpinned, its BARs read as ones, interrupts are
 * off, and the kernel has the device. Views of other devices, also of the same domain, are
 * untouched. From then on acquiring on a view of this device, and every function but close, answers
 * -ENODEV; grants that are held are to be released as usual.
 *
 * The descriptor belongs to the device and is readable from the moment at which the device is gone
 * (or, without a thread, is to go): for poll(). morsel_iommu_poll() does what is to be done and
 * returns 1 if the device is gone, 0 if not.
 */
MORSEL_API int morsel_iommu_event_fd(struct morsel_device *device);
MORSEL_API int morsel_iommu_poll(struct morsel_device *device);

/* ---- domains ------------------------------------------------------------------------------- */

/* The device's domain; it lives as long as a device in it. */
MORSEL_API struct morsel_domain *morsel_iommu_domain(struct morsel_device *device);

struct morsel_iommu_domain_info {
	size_t size;   /* the caller's sizeof(struct morsel_iommu_domain_info) */
	uint32_t kind; /* enum morsel_iommu_kind */
	uint32_t devices;
	uint32_t ranges;	 /* how many morsel_iommu_range() knows */
	uint32_t dirty_tracking; /* 1: views can tell what devices wrote */
	uint32_t reserved;
	uint64_t page_sizes;	 /* bit n: the IOMMU has pages of 1 << n bytes */
	uint64_t views;
	uint64_t entries;	       /* mappings that exist now */
	uint64_t entries_max;	       /* most that can; UINT64_MAX: no limit */
	uint64_t bytes_pinned;	       /* by this domain */
	uint64_t bytes_pinned_process; /* by all domains of this process */
	uint64_t bytes_memlock;	       /* RLIMIT_MEMLOCK as it counts here; UINT64_MAX: no limit */
	uint64_t maps, unmaps;	       /* calls to the kernel so far */
};
MORSEL_API int morsel_iommu_domain_info(struct morsel_domain *domain,
					struct morsel_iommu_domain_info *info);

/* IOVAs that the domain can use, in ascending order. -ERANGE past the last. */
MORSEL_API int morsel_iommu_range(struct morsel_domain *domain, uint32_t index, uint64_t *first,
				  uint64_t *last);

/* ---- views --------------------------------------------------------------------------------- */

enum morsel_iommu_view_flags {
	MORSEL_IOMMU_FIXED = 1 << 0, /* at opts.iova or -EEXIST */
	MORSEL_IOMMU_SAME = 1 << 1,  /* IOVA equals the CPU address of opts.cpu */
};

struct morsel_iommu_view_opts {
	size_t size;	 /* sizeof(struct morsel_iommu_view_opts) */
	uint32_t access; /* enum morsel_access, of the device; default READ, and WRITE unless sealed
			  */
	uint32_t flags;	 /* enum morsel_iommu_view_flags */
	uint64_t offset; /* part of the morsel: page-aligned */
	uint64_t bytes;	 /* 0: to the end */
	uint64_t iova;	 /* with FIXED: of the first byte; a whole page of the IOMMU */
	/* Without FIXED or SAME: no byte of the view beyond this IOVA, for a device that reaches
	 * fewer address bits than its IOMMU; 0: no limit. */
	uint64_t iova_last;
	struct morsel_view *cpu; /* with SAME: a CPU view of the same range */
	/*
	 * How large a piece is translated by one entry, a power of two from 4096: what is taken
	 * away is taken away in such pieces, and a piece of which anything is granted stays. Larger
	 * needs fewer entries; default: as large as the runs are, and for evictable morsels their
	 * own pages.
	 */
	uint64_t granule_bytes;
};

/*
 * A view of the morsel for a device. Further errors: -EEXIST the IOVA is taken (by what); -ERANGE
 * it is not in a permitted range (the words list them), or the address width is too small for SAME;
 * -EINVAL unaligned; -ENOMEM RLIMIT_MEMLOCK (the words say how much is needed); -ENOSPC the
 * kernel's limit of entries; -EADDRNOTAVAIL no room for so many bytes; -ENODEV the device is gone;
 * -EBUSY it is being reset; -EOPNOTSUPP the pool's memory cannot be pinned (a file on disk).
 */
MORSEL_API int morsel_iommu_view(struct morsel *morsel, struct morsel_device *device,
				 const struct morsel_iommu_view_opts *opts,
				 struct morsel_view **view);
/* The same for all devices of a domain, whoever of them goes. */
MORSEL_API int morsel_iommu_domain_view(struct morsel *morsel, struct morsel_domain *domain,
					const struct morsel_iommu_view_opts *opts,
					struct morsel_view **view);

struct morsel_iommu_view_info {
	size_t size;   /* the caller's sizeof(struct morsel_iommu_view_info) */
	uint32_t gone; /* 1: its device is gone */
	uint32_t access;
	uint64_t iova;		/* of the view's first byte */
	uint64_t bytes;		/* whole pages */
	uint64_t granule_bytes; /* 0: as large as the runs are */
	uint64_t entries;	/* mappings that exist now */
	uint64_t bytes_pinned;
};
/* -EINVAL: not a view of an IOMMU. */
MORSEL_API int morsel_iommu_view_info(struct morsel_view *view,
				      struct morsel_iommu_view_info *info);
/* IOVA of the view's first byte; 0 for a view of another kind. */
MORSEL_API uint64_t morsel_iommu_iova(struct morsel_view *view);

struct morsel_iommu_entry {
	uint64_t offset; /* in the view */
	uint64_t iova;
	uint64_t bytes;
	uint64_t frame;	 /* first frame of the pool */
	uint32_t held;	 /* by how many grants */
	uint32_t mapped; /* 0: taken back for want of entries or memory, and restored at acquire */
};
/* Calls fn for every mapping, in ascending order; a non-zero answer ends it. fn calls nothing here.
 */
typedef int (*morsel_iommu_entry_fn)(void *ctx, const struct morsel_iommu_entry *entry);
MORSEL_API int morsel_iommu_entries(struct morsel_view *view, morsel_iommu_entry_fn fn, void *ctx);

#ifdef __cplusplus
}
#endif

#endif
