/*
 * morsel: morsels that an RDMA NIC reads and writes (libibverbs).
 *
 * A view of a morsel over a protection domain is a range of addresses of this process behind which
 * the morsel's pages are, in the order of the morsel, however its frames are scattered. Of this
 * range the NIC gets *regions* (ibv_mr): a granted piece has one, and it stays registered after the
 * release until somebody needs the memory, or the number of regions. So acquiring a piece again
 * costs no system call, and a look-up costs neither a system call nor a lock.
 *
 *        morsel_rdma_view(morsel, pd) --> view --> morsel_acquire() --> grant
 *                                          |                             |  morsel_rdma_key():
 * address, |                             |  lkey and rkey of any byte
 *                                          +--> morsel_rdma_share() --> address and rkey for a
 * peer, until morsel_rdma_revoke()
 *
 * The registrations are a cache that the core's shootdown invalidates, and nothing else does: no
 * call of the program is hooked. What is evicted, moved or cut away loses its registration first; a
 * peer that uses the old rkey then gets a remote access error, and no memory is touched.
 *
 * Two keys, two promises. A grant's keys are for the holder of the grant, who posts work with them
 * and waits before it releases. A share's rkey is for somebody else: it is a region of its own, of
 * exactly the bytes that were shared, and it pins them until it is revoked.
 *
 * Conventions as in <morsel/morsel.h>. Any thread may call anything; the protection domain is the
 * caller's and must outlive the view. fork: a view is unusable in the child, and memory of the NIC
 * is not inherited. Registered memory counts against RLIMIT_MEMLOCK; the library counts too, and
 * refuses with the number that is needed.
 */
#ifndef MORSEL_RDMA_H
#define MORSEL_RDMA_H

#include <stddef.h>
#include <stdint.h>

#include <infiniband/verbs.h>
#include <morsel/morsel.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How the NIC reaches pages. Chosen by the caller or by what the device offers, told by info. */
enum morsel_rdma_way {
	MORSEL_RDMA_AUTO = 0,
	/* Regions pin their pages: of every device. What is not granted may be evicted. */
	MORSEL_RDMA_PINNED,
};

struct morsel_rdma_view_opts {
	size_t size;	 /* sizeof(struct morsel_rdma_view_opts) */
	uint32_t access; /* enum morsel_access, of the NIC; default READ, and WRITE unless sealed */
	uint32_t way;	 /* enum morsel_rdma_way */
	uint64_t offset; /* part of the morsel: page-aligned */
	uint64_t bytes;	 /* 0: to the end */
	/*
	 * Most regions that are kept registered without a grant; default 1024, at most what the
	 * device has (max_mr). When there are more, those that were not used for longest go.
	 */
	uint32_t regions_max;
	uint32_t reserved;
};

/*
 * A view for the NIC of pd. Errors beside those of morsel_map(): -EINVAL, -EOPNOTSUPP the pool's
 * memory cannot be registered (a file on disk, where the device says so).
 */
MORSEL_API int morsel_rdma_view(struct morsel *morsel, struct ibv_pd *pd,
				const struct morsel_rdma_view_opts *opts,
				struct morsel_view **view);

/* What work requests name. */
struct morsel_rdma_key {
	uint64_t address; /* of the byte that was asked for */
	uint64_t bytes;	  /* from there on that have these keys, inside the grant */
	uint32_t lkey, rkey;
};

/*
 * The key of a granted byte; offset counts from the view's beginning. No system call and no lock.
 * -EFAULT without words: the grant does not have the byte, or is released.
 */
MORSEL_API int morsel_rdma_key(const struct morsel_grant *grant, uint64_t offset,
			       struct morsel_rdma_key *key);

/*
 * The scatter/gather list of a part of a grant: at most count elements; answers how many they are.
 * -E2BIG: more are needed (the words say how many); -EFAULT: the grant does not have all of it.
 */
MORSEL_API int morsel_rdma_list(const struct morsel_grant *grant, uint64_t offset, uint64_t bytes,
				struct ibv_sge *list, unsigned count);

/* ---- sharing with a peer ----------------------------------------------------------------------
 */

struct morsel_rdma_share {
	struct morsel_view *view;
	uint64_t address; /* what the peer uses, with rkey */
	uint64_t bytes;
	uint32_t rkey;
	uint32_t access; /* enum morsel_access, of the peer */
	void *private_;
};

/*
 * Lets a peer read the range, or write it, too, until it is revoked; the range is granted
 * meanwhile, and neither evicted nor moved. Any offset and length: the region has no byte more.
 * Errors: those of morsel_acquire(); -EACCES write access to a view without it; -ENOMEM, -ENOSPC
 * limits of the device or of RLIMIT_MEMLOCK, in words.
 */
MORSEL_API int morsel_rdma_share(struct morsel_view *view, uint64_t offset, uint64_t bytes,
				 int access, struct morsel_rdma_share *share);
/* When it returns, the peer's next access fails. A zeroed share is fine. */
MORSEL_API void morsel_rdma_revoke(struct morsel_rdma_share *share);

/* ---- what there is ----------------------------------------------------------------------------
 */

struct morsel_rdma_view_info {
	size_t size;	  /* the caller's sizeof(struct morsel_rdma_view_info) */
	uint32_t way;	  /* enum morsel_rdma_way that is in use */
	uint32_t access;  /* enum morsel_access */
	uint64_t address; /* of the view's first byte */
	uint64_t bytes;
	uint64_t regions;      /* registered now, without shares */
	uint64_t regions_max;  /* most that are kept without a grant */
	uint64_t regions_held; /* of them: granted */
	uint64_t shares;
	uint64_t bytes_pinned;
	uint64_t registered, deregistered; /* calls of ibv_reg_mr() and ibv_dereg_mr() so far */
};
/* -EINVAL: not a view of this kind. */
MORSEL_API int morsel_rdma_view_info(struct morsel_view *view, struct morsel_rdma_view_info *info);

#ifdef __cplusplus
}
#endif

#endif
