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
#include "view/ranges.h"

struct morsel_backend {
	struct morsel_backend_ops ops;
	uint32_t views; /* atomic: how many exist */
};

/* One grant that is held; free slots form a chain. */
struct mrs_grant_slot {
	uint64_t serial; /* of the grant; 0: the slot is free */
	uint64_t first;	 /* pages [first, end) of the view */
	uint64_t end;	 /* or, if free: index of the next free slot plus 1 */
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
	uint64_t published; /* handle of the morsel's registry */

	/*
	 * Protects what follows and serialises the backend's operations. Follows nothing; the
	 * morsel's and the pool's locks may follow it.
	 */
	pthread_mutex_t lock;
	struct mrs_ranges missing; /* pages of the view without translation */
	struct mrs_grant_slot *slots;
	size_t slots_room;
	uint64_t slots_free; /* index of the first free slot plus 1, 0 none */
	uint64_t grants;     /* held now */
	uint64_t serial;     /* of the last grant */
	struct mrs_export *exports;
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

/* ---- grant.c ---- */

/* True, and which, if a grant overlaps pages [first, end). The view's lock is held. */
bool mrs_view_is_granted(const struct morsel_view *view, uint64_t first, uint64_t end,
			 struct mrs_range *grant);

/* ---- the CPU's backends ---- */

extern struct morsel_backend mrs_backend_pooled;
extern struct morsel_backend mrs_backend_stitched;

#endif
