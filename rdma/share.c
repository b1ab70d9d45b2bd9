/*
 * Shares: a region for a peer, of exactly the bytes that it is to have. It is not one of the view's
 * cached regions, whose keys other grants use and which reach further; so revoking it is
 * deregistering it, and takes nothing from anybody else. Memory windows would be cheaper to revoke,
 * and soft-RoCE does not enforce their bounds.
 */
#include <errno.h>
#include <stdlib.h>

#include "internal.h"

struct share {
	struct morsel_grant grant;
	struct ibv_mr *mr;
};

static int check_size(struct mrs_rdma *rdma, uint64_t bytes)
{
	struct ibv_device_attr attr;

	if (ibv_query_device(rdma->pd->context, &attr) || bytes <= attr.max_mr_size)
		return 0;
	return morsel_fail(
		-E2BIG,
		"a share of %llu bytes: this NIC's regions have at most %llu; share it in pieces",
		(unsigned long long)bytes, (unsigned long long)attr.max_mr_size);
}

static int register_share(struct mrs_rdma *rdma, struct share *share, int access)
{
	int rc;

	pthread_mutex_lock(&rdma->lock);
	rc = mrs_rdma_register(rdma, share->grant.offset, share->grant.bytes, (uint32_t)access,
			       &share->mr);
	rdma->shares += !rc;
	pthread_mutex_unlock(&rdma->lock);
	return rc;
}

int morsel_rdma_share(struct morsel_view *view, uint64_t offset, uint64_t bytes, int access,
		      struct morsel_rdma_share *out)
{
	struct mrs_rdma *rdma = mrs_rdma_of(view);
	struct share *share;
	int rc;

	if (!rdma)
		return -EINVAL;
	if (access & MORSEL_WRITE && !(rdma->opts.access & MORSEL_WRITE))
		return morsel_fail(-EACCES,
				   "the view is read-only: a peer cannot write through it");
	rc = check_size(rdma, bytes);
	if (rc)
		return rc;
	share = calloc(1, sizeof(*share));
	if (!share)
		return morsel_fail(-ENOMEM, "no memory for a share");
	rc = mrs_rdma_acquire_bare(view, offset, bytes, access, &share->grant);
	if (rc)
		goto free_share;
	rc = register_share(rdma, share, access);
	if (rc)
		goto release;
	*out = (struct morsel_rdma_share){
		.view = view,
		.address = (uintptr_t)share->mr->addr,
		.bytes = bytes,
		.rkey = share->mr->rkey,
		.access = (uint32_t)access,
		.private_ = share,
	};
	return 0;
release:
	morsel_release(&share->grant);
free_share:
	free(share);
	return rc;
}

void morsel_rdma_revoke(struct morsel_rdma_share *out)
{
	struct share *share = out->private_;
	struct mrs_rdma *rdma;
	int rc;

	if (!share)
		return;
	rdma = morsel_view_target(out->view)->state;
	pthread_mutex_lock(&rdma->lock);
	rc = mrs_rdma_deregister(rdma, share->mr);
	rdma->shares--;
	pthread_mutex_unlock(&rdma->lock);
	/* What the NIC does not give back stays pinned, and granted: its frames serve nobody else. */
	if (!rc)
		morsel_release(&share->grant);
	free(share);
	*out = (struct morsel_rdma_share){0};
}
