/*
 * The IOMMU room, seen from inside.
 *
 *	device.c    a device: descriptors, regions, interrupts		gone.c	it is taken away
 *	domain.c    a domain: devices, permitted ranges, views, numbers
 *	view.c	    the core's backend: a view is a reserved range of IOVAs and a set of entries
 *	map.c	    entries: made, cut, taken back, restored
 *	iova.c	    which IOVAs are taken		entries.c  the set
 *	memory.c    the pool in this process, and what may be pinned
 *	type1.c, iommufd.c   the two ways into the kernel
 *	sysfs.c     what the kernel says of functions, groups and drivers;  words.c  what is said of
 *errors
 *
 * Locks, in this order: a view's lock (the core's), a domain's, a device's. The core calls under a
 * view's lock; nothing here calls the core under a domain's or a device's.
 */
#ifndef MRS_IOMMU_INTERNAL_H
#define MRS_IOMMU_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <morsel/iommu.h>
#include <morsel/view.h>

#include "entries.h"
#include "iova.h"

#define MRS_PAGE_BYTES	((uint64_t)4096)
#define MRS_HUGE_BYTES	((uint64_t)2 << 20)
#define MRS_GIANT_BYTES ((uint64_t)1 << 30)

#define mrs_min(a, b)	    ((a) < (b) ? (a) : (b))
#define mrs_max(a, b)	    ((a) > (b) ? (a) : (b))
#define mrs_array_length(a) (sizeof(a) / sizeof((a)[0]))

static inline uint64_t mrs_round_up(uint64_t value, uint64_t to)
{
	return (value + to - 1) & ~(to - 1);
}

static inline uint64_t mrs_round_down(uint64_t value, uint64_t to)
{
	return value & ~(to - 1);
}

/* ---- the kernel, as a test may replace it ---- */

struct mrs_iommu_sys {
	int (*open)(const char *path, int flags); /* -1 and errno */
	int (*ioctl)(int fd, unsigned long request, void *arg);
	const char *sysfs; /* "/sys" */
	const char *dev;   /* "/dev" */
};
extern const struct mrs_iommu_sys *mrs_iommu_sys;

/* 0 or more, or -errno without words. */
int mrs_sys_ioctl(int fd, unsigned long request, void *arg);
int mrs_sys_open(const char *path);
/* A descriptor that was given, plus one: it is the taker's now, and 0 stands there. */
int mrs_sys_take(int *plus_1);

/* ---- option and info structs (opts.c) ---- */

/* What both sides know of an option struct, the rest zero. -E2BIG, -EINVAL in words. */
int mrs_opts_in(void *to, size_t known, const void *from);
/* Fills the caller's struct, which begins with its size. -EINVAL in words. */
int mrs_info_out(void *to, void *info, size_t known);

/* ---- a function, as sysfs knows it (sysfs.c) ---- */

int mrs_sysfs_parse(const char *given, char bdf[MORSEL_IOMMU_BDF_BYTES]);
/* "vfio3", the name of its device node. */
int mrs_sysfs_cdev(const char *bdf, char *name, size_t bytes);
/* Can this function be opened, and if not why? In words. */
int mrs_sysfs_check(const struct morsel_iommu_function *function);
/* May this process open what iommufd needs for it? */
bool mrs_sysfs_can_iommufd(const char *bdf);
/* Does any IOMMU translate on this machine? */
bool mrs_sysfs_has_iommu(void);

/* ---- devices ---- */

#define MRS_IOMMU_BARS	  6u
#define MRS_IOMMU_REGIONS 9u /* of VFIO's PCI functions */

struct mrs_bar {
	void *address;
	uint64_t bytes;
};

struct morsel_device {
	struct morsel_device *next; /* in the domain */
	struct morsel_domain *domain;
	struct morsel_iommu_function function;
	uint32_t flags; /* enum morsel_iommu_open_flags */
	uint32_t forks; /* mrs_iommu_forks() when it was opened */
	uint32_t can_reset, regions, irqs[3];
	uint64_t views; /* of this device; the domain's lock */

	/* Protects what follows; held while the descriptor is used. Follows the domain's. */
	pthread_mutex_t lock;
	pthread_cond_t calm; /* resetting has ended */
	int fd;
	int group_fd; /* type1; the last device of a group in the domain closes it */
	uint32_t id;  /* iommufd: the kernel's number of the bound device */
	bool gone;
	bool resetting;
	int irq_on; /* enum morsel_iommu_irq plus 1 */
	uint32_t irq_count;
	struct mrs_bar bar[MRS_IOMMU_BARS];

	/* The kernel's wish to have it back. */
	int wanted_fd; /* readable: it is wanted; -1: the kernel cannot say */
	int gone_fd;   /* readable: it is gone */
	int stop_fd;   /* readable: the thread ends */
	bool has_thread;
	pthread_t thread;
};

/* 0, or -ENODEV, -EBUSY (reset), -ECHILD in words. */
int mrs_device_check(struct morsel_device *device);
/* The same, with the device's lock held on success. */
int mrs_device_enter(struct morsel_device *device);
void mrs_device_leave(struct morsel_device *device);
/* Region i as VFIO describes it. The lock is held. */
struct vfio_region_info;
int mrs_device_region(struct morsel_device *device, uint32_t index, struct vfio_region_info *info);
int mrs_device_irqs_off(struct morsel_device *device);
int mrs_device_bus_master(struct morsel_device *device, bool on);

/* gone.c */
int mrs_gone_watch(struct morsel_device *device);
void mrs_gone_unwatch(struct morsel_device *device);

/* How often this process descends from a fork since the library was first used. */
uint32_t mrs_iommu_forks(void);

/* ---- domains ---- */

struct mrs_way;

struct morsel_domain {
	const struct mrs_way *way;
	int fd; /* container, or /dev/iommu */
	uint32_t ioas;
	uint32_t hwpt;	      /* iommufd: with dirty tracking; 0: none */
	bool dirty_tracking;  /* the IOMMU can */
	uint32_t dirty_users; /* views that track */
	bool may_lock;	      /* RLIMIT_MEMLOCK does not count for this process */

	/* Protects what follows, and everything of its views but the core's half. */
	pthread_mutex_t lock;
	struct morsel_device *devices;
	uint32_t device_count;
	struct mrs_view *views;
	uint64_t view_count;
	uint64_t page_sizes;
	struct mrs_iova iova;
	struct mrs_pool_map *pools;
	uint64_t entries, entries_max;
	uint64_t pinned;
	uint64_t maps, unmaps;
	struct mrs_view *hand; /* where taking back goes on */
	uint64_t hand_offset;
};

/* One mapping that the kernel is to make. */
struct mrs_mapping {
	uint64_t iova, bytes;
	void *address; /* in this process */
	uint64_t file_at;
	uint32_t access; /* enum morsel_access */
};

/* A way into the kernel. All answer 0 or -errno; those marked W say why in words. */
struct mrs_way {
	const char *name; /* of the backend, for example "iommu-type1" */
	uint32_t kind;
	bool lock_cap_counts; /* CAP_IPC_LOCK lifts RLIMIT_MEMLOCK */
	/* W: the domain's descriptor: a given one, which is taken, or opened here. */
	int (*open)(struct morsel_domain *domain, struct morsel_iommu_opts *opts);
	/* W: sets device->fd and lets it translate with the domain. */
	int (*attach)(struct morsel_domain *domain, struct morsel_device *device,
		      struct morsel_iommu_opts *opts);
	/* Closes the device's descriptors. Cannot fail. */
	void (*detach)(struct morsel_domain *domain, struct morsel_device *device);
	/* W: page sizes, ranges, limits, once a device is in it. */
	int (*look)(struct morsel_domain *domain);
	int (*map)(struct morsel_domain *domain, const struct mrs_mapping *mapping);
	/* Whole mappings, and gaps; returns when no device can use them any more. */
	int (*unmap)(struct morsel_domain *domain, uint64_t iova, uint64_t bytes);
	/* W: dirty tracking on or off; collect clears what it reports, a bit per 4 KiB. */
	int (*dirty)(struct morsel_domain *domain, bool on);
	int (*dirty_read)(struct morsel_domain *domain, uint64_t iova, uint64_t bytes,
			  uint64_t *bitmap);
	void (*close)(struct morsel_domain *domain);
};
extern const struct mrs_way mrs_way_type1, mrs_way_iommufd;

/* W: the kernel's limit of mappings is met; words for a failed map. */
int mrs_words_of_map(struct morsel_domain *domain, const struct mrs_mapping *mapping, int rc);
/* Words for a device file that does not open. */
int mrs_words_of_open(const char *path, const char *what, int rc);

/* ---- memory.c ---- */

/* The pool's file in this process, from frame 0 on; never inherited, never dumped. */
struct mrs_pool_map {
	struct mrs_pool_map *next;
	uint64_t device, inode;
	char *base;
	uint64_t bytes;
};
/* Where byte at of the file is; maps it where it is not yet. The domain's lock is held. */
int mrs_memory_at(struct morsel_domain *domain, int fd, uint64_t at, uint64_t bytes,
		  void **address);
void mrs_memory_free(struct morsel_domain *domain);
bool mrs_memory_may_lock(void);
/* How many bytes of these the process may not pin now; 0: all may. */
uint64_t mrs_memory_lacks(struct morsel_domain *domain, uint64_t bytes);
uint64_t mrs_memory_limit(struct morsel_domain *domain);
/* What is pinned now changes. */
void mrs_memory_pinned(struct morsel_domain *domain, int64_t bytes);
uint64_t mrs_memory_pinned_process(void);
/* -ENOMEM in words. */
int mrs_memory_refuse(struct morsel_domain *domain, uint64_t bytes);

/* ---- views ---- */

struct mrs_view {
	struct mrs_view *next; /* in the domain */
	struct morsel_domain *domain;
	struct morsel_device *device; /* NULL: of the whole domain */
	struct morsel_iommu_view_opts opts;
	uint64_t iova, bytes;
	uint64_t morsel_offset; /* of the view's first byte */
	uint64_t granule;	/* 0: as large as the runs are */
	uint32_t access;
	int fd;	       /* of the pool; the core's */
	unsigned refs; /* its maker, and the core's view from the first map() to destroy() */
	bool gone;
	bool tracking;
	uint64_t pinned;
	uint64_t mapped; /* entries that the kernel has */
	struct mrs_entries entries;
};

/* ---- map.c; the domain's lock is held ---- */

/*
 * Makes entries of the runs, as few as the view's granule permits. On failure there are none of
 * them. whole: the view is being made, and all of it must have room at once.
 */
int mrs_map_runs(struct mrs_view *view, const struct morsel_run *runs, size_t n, bool whole);
/* Takes the range away; neighbours that shared an entry with it are restored. -EBUSY in words. */
int mrs_map_forget(struct mrs_view *view, uint64_t offset, uint64_t bytes);
/* Takes all translations away; the entries stay, to be counted by their grants. */
int mrs_map_suspend(struct mrs_view *view);
/* A grant holds what it covers: restores what was taken back. */
int mrs_map_hold(struct mrs_view *view, uint64_t offset, uint64_t bytes);
void mrs_map_release(struct mrs_view *view, uint64_t offset, uint64_t bytes);

#endif
