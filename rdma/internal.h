/*
 * What the files of this room share.
 *
 *	window.c   the view's range of addresses: what is mapped in it, for the NIC to pin
 *	region.c   regions: registered, held by grants, kept, forgotten
 *	memory.c   how much may be pinned
 *	view.c     the core's backend, and the functions of the header
 *	share.c    regions for a peer
 */
#ifndef MRS_RDMA_INTERNAL_H
#define MRS_RDMA_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>

#include <morsel/rdma.h>
#include <morsel/view.h>

#define MRS_PAGE_BYTES	4096ull
#define MRS_BLOCK_BYTES (2ull << 20) /* no region crosses a multiple of it in the morsel */

#define mrs_min(a, b)	      ((a) < (b) ? (a) : (b))
#define mrs_max(a, b)	      ((a) > (b) ? (a) : (b))
#define mrs_round_down(n, to) ((n) / (to) * (to))
#define mrs_round_up(n, to)   mrs_round_down((n) + (to)-1, to)

/* Pages [first, end) of a view, in bytes, known to the NIC. Constant while it is held. */
struct mrs_rdma_region {
	struct mrs_rdma_region *next; /* in its block */
	struct mrs_rdma_region *older,
		*newer; /* of those that nobody holds, by when they were left */
	uint64_t first, end;
	struct ibv_mr *mr;
	unsigned held; /* by grants */
};

/* What a view of ours hangs on; what the core hands around as its device, too. */
struct mrs_rdma {
	struct ibv_pd *pd;
	struct morsel_rdma_view_opts opts;
	pthread_mutex_t lock; /* protects all that follows; taken after the core's locks */
	unsigned refs;	      /* who makes the view, and the view itself */

	/* From the first map() on. */
	unsigned char *window;
	uint64_t window_bytes, bytes;
	uint64_t phase; /* of the view's first byte in its block */
	int fd;

	struct mrs_rdma_region **block; /* a list each */
	struct mrs_rdma_region *oldest, *newest;
	uint64_t regions, held, kept, shares, pinned;
	uint64_t registered, deregistered;
};

/* ---- window.c ---- */

int mrs_rdma_window_open(struct mrs_rdma *rdma, const struct morsel_target *target);
int mrs_rdma_window_map(struct mrs_rdma *rdma, const struct morsel_run *runs, size_t n);
/* The range has no pages any more. */
int mrs_rdma_window_forget(struct mrs_rdma *rdma, uint64_t offset, uint64_t bytes);
void mrs_rdma_window_close(struct mrs_rdma *rdma);
/* Of the view's first byte. */
uint64_t mrs_rdma_window_address(const struct mrs_rdma *rdma);

/* ---- region.c ---- */

/*
 * Holds regions for all of [offset, offset + bytes), one per block, in list[]; how many there must
 * be is mrs_rdma_region_count(). All or none.
 */
unsigned mrs_rdma_region_count(const struct mrs_rdma *rdma, uint64_t offset, uint64_t bytes);
int mrs_rdma_region_hold(struct mrs_rdma *rdma, uint64_t offset, uint64_t bytes,
			 struct mrs_rdma_region *list[]);
void mrs_rdma_region_release(struct mrs_rdma *rdma, struct mrs_rdma_region *list[], unsigned count);
/* Deregisters all that touch the range. -EBUSY in words: one of them is held. */
int mrs_rdma_region_forget(struct mrs_rdma *rdma, uint64_t offset, uint64_t bytes);
/* The view ends: held or not. */
void mrs_rdma_region_forget_all(struct mrs_rdma *rdma);

/* ibv_reg_mr() and ibv_dereg_mr() with accounting and words. */
int mrs_rdma_register(struct mrs_rdma *rdma, uint64_t offset, uint64_t bytes, uint32_t access,
		      struct ibv_mr **mr);
int mrs_rdma_deregister(struct mrs_rdma *rdma, struct ibv_mr *mr);

/* ---- memory.c ---- */

/* Counts bytes that are about to be pinned by this process. -ENOMEM names limit and need. */
int mrs_rdma_pin_account(uint64_t bytes);
void mrs_rdma_pin_unaccount(uint64_t bytes);
/* RLIMIT_MEMLOCK as it counts here; UINT64_MAX: no limit. */
uint64_t mrs_rdma_pin_limit(void);

/* ---- view.c ---- */

/* NULL in words (-EINVAL): not a view of this kind. */
struct mrs_rdma *mrs_rdma_of(struct morsel_view *view);
/* As morsel_acquire(), for a share, which has a region of its own: none is held for the grant. */
int mrs_rdma_acquire_bare(struct morsel_view *view, uint64_t offset, uint64_t bytes, int access,
			  struct morsel_grant *grant);

#endif
