/*
 * The gpu room, seen from inside.
 *
 * A view is a struct gpu_view: what of it OpenCL has (a queue or two, buffers, shared virtual
 * memory) and who holds which range. Tiers come in two kinds: shared.c shows the pool's memory
 * itself, copy.c keeps memory of the device up to date. grant.c is the caller's side, complete.c
 * ends grants when their event comes, versions.c knows what changed.
 *
 * Locks: the core's lock of the view serialises map, invalidate, transfers, acquire and release.
 * gpu_view.lock protects the lists and counts that other threads look at; nothing follows it. The
 * completer's lock (complete.c) protects its queue; nothing follows it.
 */
#ifndef MRS_GPU_ROOM_H
#define MRS_GPU_ROOM_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <morsel/gpu.h>
#include <morsel/view.h>

#define PAGE_BYTES   4096ull
#define GPU_TIERS    5u
#define GPU_CALLBACK CL_CALLBACK

/* Verbs of atomics that carry their order; the partner stands where they are used. */
#define gpu_load_acquire(p)	__atomic_load_n(p, __ATOMIC_ACQUIRE)
#define gpu_load_relaxed(p)	__atomic_load_n(p, __ATOMIC_RELAXED)
#define gpu_store_release(p, v) __atomic_store_n(p, v, __ATOMIC_RELEASE)
#define gpu_add_relaxed(p, n)	__atomic_fetch_add(p, n, __ATOMIC_RELAXED)
#define gpu_add_acq_rel(p, n)	__atomic_fetch_add(p, n, __ATOMIC_ACQ_REL)
#define gpu_sub_acq_rel(p, n)	__atomic_fetch_sub(p, n, __ATOMIC_ACQ_REL)
#define gpu_swap_acq_rel(p, v)	__atomic_exchange_n(p, v, __ATOMIC_ACQ_REL)

#define gpu_min(a, b) ((a) < (b) ? (a) : (b))
#define gpu_max(a, b) ((a) > (b) ? (a) : (b))

/* Bytes [start, end) of a view. */
struct gpu_range {
	uint64_t start, end;
};

/* ---- device.c, trial.c ---- */

/* What all devices of a context offer. */
struct gpu_offer {
	cl_device_id device; /* the first of the context */
	uint32_t tiers;	     /* bit 1 << enum morsel_cl_tier */
	bool fine;	     /* shared virtual memory in buffers is fine-grain */
	uint64_t align;
	uint64_t alloc_max;
	uint64_t bytes;
	char why_not[GPU_TIERS][160];
};
int mrs_cl_offer(cl_context context, struct gpu_offer *offer);
/* The tier that AUTO takes. */
uint32_t mrs_cl_best(uint32_t tiers);

/* Does a device of the context reach host memory itself? Tried with a page of a memfd. */
bool mrs_cl_trial(cl_context context, cl_device_id device, char *why_not, size_t room);

/* -errno of an error of OpenCL, in words: "what: CL_OUT_OF_RESOURCES (-5)". */
int mrs_cl_fail(cl_int code, const char *what);
const char *mrs_cl_error_name(cl_int code);
/* CL_COMPLETE, a negative error, or what is under way. An event that cannot be asked has failed. */
cl_int mrs_cl_event_status(cl_event event);

/* ---- views ---- */

struct gpu_view;

/* A grant's part that is this library's; on the view's list while it is held. */
struct gpu_grant {
	struct gpu_grant *next, **link;
	struct gpu_view *view;
	struct gpu_range range;
	uint64_t serial; /* as in the core's grant */
	uint32_t access;
	bool pending;			/* released, and its event has not come */
	bool failed;			/* its event came with an error */
	cl_event after;			/* if pending */
	cl_event arrived;		/* of what was transferred for it; NULL: nothing was */
	struct morsel_grant core;	/* if pending: to be released */
	struct gpu_grant *also_pending; /* the completer's list */
	struct gpu_buffer *buffer;
	struct morsel_cl_native native;
};

/* How a call of morsel_acquire() or morsel_release() by this library talks to the operations. */
struct gpu_request {
	cl_uint waits; /* for these before anything is transferred */
	const cl_event *wait;
	cl_event done; /* out: when what was begun has ended; NULL: nothing was */
	bool failed;   /* release: what the device has is not to be trusted */
};
/* This thread's, NULL if the core was called without this library. */
struct gpu_request *mrs_cl_request(void);
void mrs_cl_request_set(struct gpu_request *request);

/* A page of a copying view. */
struct gpu_page {
	uint64_t frame : 48;   /* plus 1; 0: no translation */
	uint64_t writers : 16; /* grants for writing that touch it, held or pending */
	uint64_t mark;	       /* of what the device has: checksum, or version plus 1; 0: unknown */
};

/* scatter.c */
struct gpu_scatter {
	cl_kernel kernel;
	cl_mem pages, places;
	bool failed;
};

struct gpu_view {
	uint32_t refs; /* atomic: the maker, the core's view, the completer */
	uint32_t tier;
	uint32_t writers; /* enum morsel_cl_writers */
	uint32_t access;
	bool constant; /* sealed: it cannot change any more */
	bool fine;
	struct morsel *morsel;
	cl_context context;
	cl_device_id device;
	uint64_t align, alloc_max;
	uint64_t offset, bytes; /* of the view, in the morsel */

	/* Page versions; word[i] is of page i of the view. NULL: there are none. */
	struct morsel *versions;
	struct morsel_view *versions_view;
	uint64_t *word;

	pthread_mutex_t lock; /* protects what follows up to the blank line; nothing follows it */
	pthread_cond_t idle;  /* a pending grant has ended */
	struct gpu_grant *grants;
	uint64_t pending;
	int error; /* the first since morsel_cl_finish() */
	char words[512];
	struct gpu_block *blocks; /* free ones */

	struct morsel_cl_stat stat; /* atomic, relaxed */

	/* shared.c */
	char *base; /* of the view's first byte */
	void *map_base;
	uint64_t map_bytes;
	struct gpu_buffer *buffers;
	unsigned buffers_idle;

	cl_command_queue queue; /* for what waits for nobody else's events */
	cl_command_queue late;	/* for what does; NULL until the first: mrs_cl_late() */

	/* copy.c */
	struct gpu_page *pages;
	const char
		*window; /* the pool's file, for reading pages that are granted; NULL: by pread() */
	uint64_t window_bytes;
	struct gpu_flight *flights; /* transfers that had not ended when it was last looked */
	struct gpu_scatter scatter;
	cl_mem *segments;
	uint64_t segment_bytes;
	char *svm;
};

#define gpu_count(view, what, n) gpu_add_relaxed(&(view)->stat.what, n)

/* The library's part of a view; NULL if it is another backend's. */
struct gpu_view *mrs_cl_view_of(struct morsel_view *view);
void mrs_cl_view_get(struct gpu_view *view);
void mrs_cl_view_put(struct gpu_view *view);
/* The view's second queue; NULL in words. */
cl_command_queue mrs_cl_late(struct gpu_view *view);

static inline bool gpu_is_copying(const struct gpu_view *view)
{
	return view->tier == MORSEL_CL_SVM || view->tier == MORSEL_CL_COPY;
}

static inline uint64_t gpu_pages(const struct gpu_view *view)
{
	return (view->bytes + PAGE_BYTES - 1) / PAGE_BYTES;
}

/* Is what has changed found by reading it? */
static inline bool gpu_by_checksum(const struct gpu_view *view)
{
	return !view->constant && !view->word;
}

/* First and end page that a range touches. */
static inline uint64_t gpu_first(struct gpu_range range)
{
	return range.start / PAGE_BYTES;
}

static inline uint64_t gpu_end(struct gpu_range range)
{
	return (range.end + PAGE_BYTES - 1) / PAGE_BYTES;
}

/* ---- shared.c ---- */

int mrs_cl_shared_map(struct morsel_target *target, const struct morsel_run *runs, size_t n);
int mrs_cl_shared_invalidate(struct morsel_target *target, uint64_t offset, uint64_t bytes);
void mrs_cl_shared_destroy(struct gpu_view *view);
/* The native handles of a range. */
int mrs_cl_shared_native(struct gpu_view *view, struct gpu_grant *grant);
void mrs_cl_shared_release(struct gpu_view *view, struct gpu_grant *grant);

/* ---- copy.c ---- */

int mrs_cl_copy_map(struct morsel_target *target, const struct morsel_run *runs, size_t n);
int mrs_cl_copy_invalidate(struct morsel_target *target, uint64_t offset, uint64_t bytes);
void mrs_cl_copy_destroy(struct gpu_view *view);
int mrs_cl_from_target(struct morsel_target *target, uint64_t offset, uint64_t bytes);
int mrs_cl_copy_native(struct gpu_view *view, struct gpu_grant *grant);
void mrs_cl_copy_release(struct gpu_view *view, struct gpu_grant *grant);
/* Where the device has a byte, and how many bytes follow it there in one piece. */
cl_mem mrs_cl_segment(const struct gpu_view *view, uint64_t offset, uint64_t *inside);

/* ---- bring.c ---- */

int mrs_cl_to_target(struct morsel_target *target, uint64_t offset, uint64_t bytes);
/* When the queues are idle. */
void mrs_cl_forget_flights(struct gpu_view *view);

/* ---- staging.c ---- */

#define GPU_BLOCK_BYTES (4ull << 20)

/* Memory of the host between pool and device; lives until the transfers from it have ended. */
struct gpu_block {
	struct gpu_block *next;
	uint64_t room, used;
	unsigned char *bytes;
};
struct gpu_block *mrs_cl_block_get(struct gpu_view *view, uint64_t bytes);
/* A chain of them. */
void mrs_cl_block_put(struct gpu_view *view, struct gpu_block *blocks);
void mrs_cl_block_free_all(struct gpu_view *view);
/* Between memory and the frames of pages: of an offset in the view that need not be a whole page's.
 */
int mrs_cl_pool_read(struct morsel_target *target, uint64_t offset, void *to, uint64_t bytes);
int mrs_cl_pool_write(struct morsel_target *target, uint64_t offset, const void *from,
		      uint64_t bytes);
/* Never 0. */
uint64_t mrs_cl_checksum(const void *page);

/* ---- scatter.c ---- */

/* Whether this driver can; made at the first question. */
bool mrs_cl_scatter_can(struct gpu_view *view);
/*
 * Pages one behind the other go to places[i] (pages of the segment; NULL: of the view, in shared
 * virtual memory), on the view's queue. Both arrays are read until the queue has come so far.
 */
int mrs_cl_scatter(struct gpu_view *view, cl_mem segment, const void *pages, const cl_uint *places,
		   unsigned count);
void mrs_cl_scatter_free(struct gpu_scatter *scatter);

/* ---- versions.c ---- */

int mrs_cl_versions_open(struct gpu_view *view);
void mrs_cl_versions_close(struct gpu_view *view);
/*
 * A version is one word: how often a page was written << 16 | how many are writing it now. begin
 * and end enclose a grant for writing. Who finds writers other than his own does not have the page
 * for sure, whatever he reads; so a writer that died costs transfers, and nothing is missed.
 */
void mrs_cl_versions_begin(struct gpu_view *view, struct gpu_range range);
void mrs_cl_versions_end(struct gpu_view *view, struct gpu_range range);

/* ---- complete.c ---- */

/* The thread that ends grants runs when this has answered 0. */
int mrs_cl_completer_start(void);
/* after is set, and its reference is the completer's. */
void mrs_cl_complete_when(struct gpu_grant *grant);
/* Waits until the view has no pending grant. */
void mrs_cl_settle(struct gpu_view *view);

/* ---- grant.c ---- */

int mrs_cl_grant_acquire(struct morsel_target *target, struct morsel_grant *grant);
void mrs_cl_grant_release(struct morsel_target *target, struct morsel_grant *grant);

#endif
