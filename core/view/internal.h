/*
 * The view room, seen from inside.
 *
 * A view is the core's half (who it belongs to, what is not translated, who holds grants) and the
 * backend's half (struct morsel_target). The core's half is the same for every backend.
 */
#ifndef MRS_VIEW_INTERNAL_H
#define MRS_VIEW_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>

#include <morsel/view.h>

#include "base/atomic.h"
#include "base/base.h"
#include "object/object.h"
#include "object/retarget.h"
#include "view/ranges.h"
#include "view/registry.h"

struct morsel_backend {
	struct morsel_backend_ops ops;
	uint32_t views; /* atomic: how many exist */
};

/* One grant that is held; free slots form a chain. */
struct mrs_grant_slot {
	uint64_t serial; /* of the grant; 0: the slot is free */
	uint64_t first;	 /* pages [first, end) of the view */
	uint64_t end;	 /* or, if free: index of the next free slot plus 1 */
	struct mrs_pin *pin; /* NULL: nothing moves the pages */
};

struct mrs_export {
	struct mrs_export *next;
	struct morsel_grant grant;
	int fd;
};

struct morsel_view {
	struct morsel *morsel;
	struct morsel_backend *backend;
	struct morsel_target target;
	uint32_t caps;
	uint32_t forks;	    /* mrs_view_forks() when it was made */
	uint64_t bytes;	    /* as asked for; target.bytes are whole pages */
	uint64_t published; /* handle of the morsel's own list of views */
	struct mrs_registered *listed;
	bool watched; /* CPU: registered with userfaultfd, for its pages come and go */
	bool by_mail; /* another target's: its pages come and go, and it is told before */
	/* Of a by_mail view: where this process reaches the pages, to make them resident. */
	struct morsel_view *window;
	uint64_t region; /* address by which faults find it; 0: none */

	/*
	 * Protects what follows and serialises the backend's operations. Follows the registry's lock
	 * (the service thread's way here); the morsel's and the pool's locks may follow it. Who holds
	 * it waits for no mail, no leaf, no pager and no record's lock: the service thread may want it.
	 */
	pthread_mutex_t lock;
	struct mrs_ranges missing; /* pages of the view without translation */
	struct mrs_grant_slot *slots;
	size_t slots_room;
	uint64_t slots_free; /* index of the first free slot plus 1, 0 none */
	uint64_t grants;     /* held now */
	uint64_t serial;     /* of the last grant */
	struct mrs_export *exports;
	uint64_t ahead; /* bit i: has followed a move, i after the first that it has not */
	bool newborn;  /* nobody has its address yet */
	bool ending;   /* its target has been destroyed, or was never made */
	bool faulting; /* fault_start() without fault_stop() */
	bool dirty;    /* dirty_start() without dirty_stop() */
};

/* ---- view.c ---- */

/* How often this process descends from a fork since the first view: a view works only where it was
 * made. -ECHILD in words in a child. */
uint32_t mrs_view_forks(void);
int mrs_view_check_fork(const struct morsel_view *view);

/* Checks the options and completes them: access, bytes. */
int mrs_view_check_opts(struct morsel *morsel, struct morsel_map_opts *opts);

/* The view of checked options. */
int mrs_view_make(struct morsel *morsel, struct morsel_backend *backend, void *device,
		  const struct morsel_map_opts *opts, struct morsel_view **view);

/* Runs of pages [first, end) of a view, offsets counting from the view's beginning. */
struct mrs_run_list {
	struct morsel_run *run;
	size_t count;
	size_t room;
};
/* Collects the runs; holes go into *holes, or are an error (-EIO) if holes is NULL. */
int mrs_view_runs(struct morsel *morsel, const struct morsel_target *target, uint64_t first,
		  uint64_t end, struct mrs_run_list *list, struct mrs_ranges *holes);

/* ---- watch.c: views whose pages come and go ---- */

bool mrs_view_is_cpu(const struct morsel_view *view);
/* Which kind of it is a view of this backend? Makes the morsel's COHERENCE cell where it is missing. */
int mrs_view_watch_init(struct morsel_view *view);
/* A CPU view is mapped and nobody has its address: has the kernel tell of touches. */
int mrs_view_watch_start(struct morsel_view *view, const struct mrs_run_list *list);
/* It is listed, and settled: a write to pages that have other owners is told of. */
int mrs_view_watch_protect(struct morsel_view *view, const struct mrs_run_list *list);
/* After it was unmapped. */
void mrs_view_watch_stop(struct morsel_view *view);
/* Runs were mapped anew after an invalidation, without access: watches and opens them. Pinned. */
int mrs_view_watch_restored(struct morsel_view *view, const struct mrs_run_list *list);
/* Pins pages [first, end) of the view; *pin may be NULL: nothing moves them. */
int mrs_view_pin(struct morsel_view *view, uint64_t first, uint64_t end, struct mrs_pin **pin);
/* Makes pinned pages resident; with write, private and dirty. Not under the view's lock. */
int mrs_view_make_resident(struct morsel_view *view, uint64_t first, uint64_t end, bool write);
/* enum mrs_view_flags for the registry. */
uint64_t mrs_view_flags(const struct morsel_view *view);
/* -EOPNOTSUPP in words if the view is pooled and some of its pages have other owners (a clone). */
int mrs_view_check_shared(struct morsel *morsel, uint64_t page, uint64_t pages);
bool mrs_view_is_shared(struct morsel *morsel, uint64_t page, uint64_t pages);

/* ---- remap.c ---- */

/*
 * Maps what the table says now, where that has changed, for a letter of the service thread. -EAGAIN: a
 * stale page is under way, or not resident: its fault maps it. The view's lock is held.
 *
 * A new mapping of a view that may write has lost the write protection's marks (mmap over it and
 * registering it again drop them). Beside an evictor that has protected the page,
 * or takes it for clean, the next write would be lost. So such a page is mapped anew only under its
 * leaf's lock (tried, never waited for, in the service thread), protected or DIRTY before the lock goes;
 * a view that only reads may be mapped anew at any time.
 */
int mrs_view_remap(struct morsel_view *view, uint64_t first, uint64_t end);
/* The same for all that a view has missed, which has then followed; a watched CPU view. */
int mrs_view_catch_up(struct morsel_view *view);

/* ---- grant.c ---- */

/* Has the backend translate what has no translation in the range. The view's lock is held. */
int mrs_view_restore(struct morsel_view *view, struct mrs_range range);
/* True, and which, if a grant overlaps pages [first, end). The view's lock is held. */
bool mrs_view_is_granted(const struct morsel_view *view, uint64_t first, uint64_t end,
			 struct mrs_range *grant);

/* ---- the CPU's backends ---- */

extern struct morsel_backend mrs_backend_pooled;
extern struct morsel_backend mrs_backend_stitched;

#endif
