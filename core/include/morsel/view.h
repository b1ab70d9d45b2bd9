/*
 * morsel: how a target learns a morsel's translations.
 *
 * A target is whoever translates: this process's CPU, an IOMMU domain, a NIC's memory region, a
 * GPU. A backend is the code that tells one kind of target. It implements struct morsel_backend_ops
 * and registers it; the core then makes views over it, keeps them coherent with the morsel's page
 * table, and accounts for grants. The CPU's backends are the first two; programs that only want CPU
 * views need <morsel/morsel.h> and not this header.
 *
 *        morsel_view_create()        morsel_acquire()         retarget, shrink, close
 *               |                          |                           |
 *             core:  runs of the table, who holds which grant, what is not translated
 *               |  map(all runs)           |  map(what is missing)     |  invalidate(range)
 *            backend:  tells the target                                |  destroy()
 *
 * What a backend gets: the pool's file and runs of frames in it. Frame f is the 4096 bytes of the
 * file from f * 4096 on. What it must keep:
 *  - After invalidate() or destroy() has returned, the target cannot reach those frames by the old
 *    translation, not even by an access under way. The core gives frames to others after that.
 *  - A target that has no translation for a page refuses the access; it never reads something else.
 *  - What it cannot do it answers with -EOPNOTSUPP and words; it never does something else
 * silently.
 *
 * Threads: the core calls one operation of one view at a time, from any thread, and of different
 * views at the same time. An operation must not call back into the view that it was called for.
 * fork: views do not work in the child; no operation is called there but destroy(), with
 * target->forked set, which then releases this process's copies and touches nothing that is shared.
 *
 * Versions: an operations table begins with its size and MORSEL_BACKEND_VERSION. A later core takes
 * an earlier backend; an earlier core refuses a later version (-EPROTONOSUPPORT), and operations
 * beyond those it knows unless they are NULL (-E2BIG).
 */
#ifndef MORSEL_VIEW_H
#define MORSEL_VIEW_H

#include <stddef.h>
#include <stdint.h>

#include <morsel/morsel.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MORSEL_BACKEND_VERSION 1

/* What a target can do. Capabilities decide what the core does, not the kind of target. */
enum morsel_caps {
	MORSEL_CAP_ADDRESS = 1 << 0,   /* views have a CPU address: morsel_addr() */
	MORSEL_CAP_FREE_USE = 1 << 1,  /* may be used without a grant, where it is translated */
	MORSEL_CAP_COHERENT = 1 << 2,  /* sees the pool's memory itself; else it has a copy */
	MORSEL_CAP_SCATTER = 1 << 3,   /* takes any number of runs; else one run only */
	MORSEL_CAP_HOLES = 1 << 4,     /* takes views of which parts have no translation */
	MORSEL_CAP_FAULTABLE = 1 << 5, /* group faulting */
	MORSEL_CAP_DIRTY = 1 << 6,     /* group dirty tracking */
	MORSEL_CAP_EXPORT = 1 << 7,    /* group export */
	/* Keeps the memory that was behind a frame when it was mapped (a device that the kernel pinned
	 * it for): nobody takes that memory away without an invalidate() before. */
	MORSEL_CAP_PINS = 1 << 8,
};

/*
 * One view, as its backend sees it. The core fills it before the first map(); the backend may
 * change state and addr only.
 */
struct morsel_target {
	size_t size;
	void *device;	      /* as given to morsel_view_create() */
	void *state;	      /* the backend's own; NULL before the first map() */
	void *addr;	      /* first byte for the CPU, if the target has such; NULL if not */
	int fd;		      /* the pool's file, read and write; the core's */
	uint32_t access;      /* enum morsel_access */
	uint32_t flags;	      /* enum morsel_map_flags */
	uint32_t forked;      /* 1: this process is a fork of the one that made the view */
	void *hint;	      /* struct morsel_map_opts.address */
	uint64_t offset;      /* of the morsel: what the view begins at, page-aligned */
	uint64_t bytes;	      /* of the view, whole pages */
	uint64_t page_bytes;  /* 4096 */
	uint64_t block_bytes; /* unit in which the pool's memory can be mapped: 4096, or 2 MiB on
			       * hugetlbfs */
	uint64_t generation;  /* how many times something was invalidated: what was remembered with
			       * another generation may be stale */
	uint64_t morsel_id;
	uint8_t pool_uuid[16];
	uint32_t revocable;   /* 1: its pages come and go: any of them may be invalidated alone */
	uint32_t reserved;
};

/* Called by a backend for a touch without translation; 0 when it may be repeated. */
typedef int (*morsel_fault_fn)(void *ctx, uint64_t offset, uint64_t bytes, int access);
/* Called for every dirty range, in ascending order; a non-zero answer ends it and is returned. */
typedef int (*morsel_dirty_fn)(void *ctx, uint64_t offset, uint64_t bytes);

/* All offsets are in the view, in bytes; ranges are whole pages unless said otherwise. */
struct morsel_backend_ops {
	size_t size;	  /* sizeof(struct morsel_backend_ops) */
	uint32_t version; /* MORSEL_BACKEND_VERSION */
	uint32_t reserved;
	const char *name; /* for messages, for example "cpu-stitched" */

	/* ---- required ---- */

	/* What this device can do: enum morsel_caps. Does not change while views exist. */
	uint32_t (*caps)(void *device);
	/*
	 * Translates the runs. runs[i].offset counts from the view's beginning; runs are in
	 * ascending order, disjoint, inside the view and resident. The first call makes the view:
	 * it gets all runs that there are (n may be 0), and if it fails nothing remains and
	 * destroy() is not called. Later calls restore or add translations; they get runs that have
	 * none now, and if they fail, the view is as before or has some of them more.
	 */
	int (*map)(struct morsel_target *target, const struct morsel_run *runs, size_t n);
	/*
	 * Takes the translations of the range away; returns when the target can no longer use them.
	 * Pages without translation are fine. If it fails the core must take it that the target can
	 * use all of them still, and keeps their frames out of use.
	 */
	int (*invalidate)(struct morsel_target *target, uint64_t offset, uint64_t bytes);
	/* Takes all translations away and releases state. Cannot fail. */
	void (*destroy)(struct morsel_target *target);

	/* ---- optional, in groups: all operations of a group or none ---- */

	/*
	 * Grants: what a grant of this target holds beside the range (iova, keys). acquire() is
	 * called when the range is translated and up to date; the range is in bytes.
	 */
	int (*acquire)(struct morsel_target *target, struct morsel_grant *grant);
	void (*release)(struct morsel_target *target, struct morsel_grant *grant);

	/*
	 * Coherence transfer, of targets that have a copy (not MORSEL_CAP_COHERENT; required for
	 * those): brings the target's copy up to date, or the pool's memory. The range is in bytes.
	 */
	int (*to_target)(struct morsel_target *target, uint64_t offset, uint64_t bytes);
	int (*from_target)(struct morsel_target *target, uint64_t offset, uint64_t bytes);

	/* Faulting: from start to stop, fn is called for a touch of a page without translation. */
	int (*fault_start)(struct morsel_target *target, morsel_fault_fn fn, void *ctx);
	void (*fault_stop)(struct morsel_target *target);

	/* Dirty tracking: which pages the target wrote since start, or since the last collection.
	 */
	int (*dirty_start)(struct morsel_target *target);
	int (*dirty_collect)(struct morsel_target *target, uint64_t offset, uint64_t bytes,
			     morsel_dirty_fn fn, void *ctx);
	void (*dirty_stop)(struct morsel_target *target);

	/* Export: a descriptor (dma-buf) by which somebody else reaches the range, until revoked.
	 */
	int (*export_range)(struct morsel_target *target, uint64_t offset, uint64_t bytes, int *fd);
	void (*export_revoke)(struct morsel_target *target, int fd);

	/*
	 * Alone: the view is about to be destroyed. A backend whose own threads release grants of it
	 * waits here until they have. Called without the view's lock, so that they can; never in a
	 * fork.
	 */
	void (*settle)(struct morsel_target *target);
};

/*
 * How a backend says why: keeps the words for this thread's morsel_errormsg(), logs them, returns code
 * (a negative errno). To be called where the cause is known, naming limit, value and remedy.
 */
MORSEL_API int morsel_fail(int code, const char *format, ...)
#if defined(__GNUC__)
	__attribute__((format(printf, 2, 3)))
#endif
	;

struct morsel_backend;

/*
 * Checks the table and takes a copy of it. -EINVAL names what is missing or half there;
 * -EPROTONOSUPPORT, -E2BIG: of a later version. device is not touched.
 */
MORSEL_API int morsel_backend_register(const struct morsel_backend_ops *ops,
				       struct morsel_backend **backend);
/* -EBUSY while a view of it exists. NULL is fine. */
MORSEL_API int morsel_backend_unregister(struct morsel_backend *backend);

/*
 * A view of the morsel, or of a part of it, by this backend on this device. opts->kind must be 0;
 * the rest means what it means to morsel_map(). A backend's own ..._view() function calls this.
 * -EOPNOTSUPP: the backend lacks what this morsel needs (the words say what).
 */
MORSEL_API int morsel_view_create(struct morsel *morsel, struct morsel_backend *backend,
				  void *device, const struct morsel_map_opts *opts,
				  struct morsel_view **view);

/* The backend's part of the view, for the backend's own functions. */
MORSEL_API struct morsel_target *morsel_view_target(struct morsel_view *view);
MORSEL_API const char *morsel_view_backend_name(struct morsel_view *view);
MORSEL_API uint32_t morsel_view_caps(struct morsel_view *view);

/*
 * Makes the target forget the translations of the range (whole pages): an access is refused until
 * the range is acquired again. -EBUSY names the grant that overlaps it; then nothing has happened.
 */
MORSEL_API int morsel_view_invalidate(struct morsel_view *view, uint64_t offset, uint64_t bytes);

/* The optional groups. -EOPNOTSUPP names backend and group if the backend does not have it. */
MORSEL_API int morsel_view_fault_start(struct morsel_view *view, morsel_fault_fn fn, void *ctx);
MORSEL_API int morsel_view_fault_stop(struct morsel_view *view);
MORSEL_API int morsel_view_dirty_start(struct morsel_view *view);
MORSEL_API int morsel_view_dirty_collect(struct morsel_view *view, uint64_t offset, uint64_t bytes,
					 morsel_dirty_fn fn, void *ctx);
MORSEL_API int morsel_view_dirty_stop(struct morsel_view *view);
/* An exported range is granted until the descriptor is given to revoke. */
MORSEL_API int morsel_view_export(struct morsel_view *view, uint64_t offset, uint64_t bytes,
				  int *fd);
MORSEL_API int morsel_view_export_revoke(struct morsel_view *view, int fd);

#ifdef __cplusplus
}
#endif

#endif
