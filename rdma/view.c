/*
 * The core's backend, and the functions of the header. What the core hands around as the device is
 * the view's own struct mrs_rdma, so that the first map() knows the options; it belongs to the
 * caller of morsel_view_create() until that has succeeded, and to the view from then on.
 *
 * A grant remembers the regions that it holds: private_[2] is the one region, or points to their
 * list with bit 0 set. They do not change while they are held, which is why a look-up needs no
 * lock.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define CAPS	    (MORSEL_CAP_COHERENT | MORSEL_CAP_SCATTER | MORSEL_CAP_HOLES)
#define NAME	    "rdma-pinned"
#define LIST	    1ull
#define REGIONS_MAX 1024u

static _Thread_local bool bare; /* mrs_rdma_acquire_bare() is under way */

static uint32_t view_caps(void *device)
{
	(void)device;
	return CAPS;
}

/* ---- pages ---- */

static int first_map(struct mrs_rdma *rdma, struct morsel_target *target,
		     const struct morsel_run *runs, size_t n)
{
	uint64_t blocks = (target->offset % MRS_BLOCK_BYTES + target->bytes) / MRS_BLOCK_BYTES + 1;
	int rc = -ENOMEM;

	rdma->block = calloc(blocks, sizeof(*rdma->block));
	if (!rdma->block)
		return morsel_fail(rc, "no memory for a view's table of regions");
	rc = mrs_rdma_window_open(rdma, target);
	if (!rc)
		rc = mrs_rdma_window_map(rdma, runs, n);
	if (rc) {
		mrs_rdma_window_close(rdma);
		free(rdma->block);
		rdma->block = NULL;
		return rc;
	}
	target->state = rdma;
	rdma->refs++;
	return 0;
}

static int view_map(struct morsel_target *target, const struct morsel_run *runs, size_t n)
{
	struct mrs_rdma *rdma = target->device;
	int rc;

	pthread_mutex_lock(&rdma->lock);
	rc = target->state ? mrs_rdma_window_map(rdma, runs, n) : first_map(rdma, target, runs, n);
	pthread_mutex_unlock(&rdma->lock);
	return rc;
}

static int view_invalidate(struct morsel_target *target, uint64_t offset, uint64_t bytes)
{
	struct mrs_rdma *rdma = target->state;
	int rc;

	pthread_mutex_lock(&rdma->lock);
	rc = mrs_rdma_region_forget(rdma, offset, bytes);
	if (!rc)
		rc = mrs_rdma_window_forget(rdma, offset, bytes);
	pthread_mutex_unlock(&rdma->lock);
	return rc;
}

static void put(struct mrs_rdma *rdma)
{
	if (--rdma->refs)
		return;
	pthread_mutex_destroy(&rdma->lock);
	free(rdma->block);
	free(rdma);
}

static void view_destroy(struct morsel_target *target)
{
	struct mrs_rdma *rdma = target->state;

	target->state = NULL;
	/* In a child the NIC's objects are the parent's, and the window is not there. */
	if (!target->forked) {
		mrs_rdma_region_forget_all(rdma);
		mrs_rdma_window_close(rdma);
	}
	put(rdma);
}

/* ---- grants ---- */

static int hold_one(struct mrs_rdma *rdma, struct morsel_grant *grant)
{
	struct mrs_rdma_region *region;
	int rc = mrs_rdma_region_hold(rdma, grant->offset, grant->bytes, &region);

	if (!rc)
		grant->private_[2] = (uintptr_t)region;
	return rc;
}

static int hold_many(struct mrs_rdma *rdma, struct morsel_grant *grant, unsigned count)
{
	struct mrs_rdma_region **list = malloc(count * sizeof(*list));
	int rc;

	if (!list)
		return morsel_fail(-ENOMEM, "no memory for a grant of %u regions", count);
	rc = mrs_rdma_region_hold(rdma, grant->offset, grant->bytes, list);
	if (rc)
		free(list);
	else
		grant->private_[2] = (uintptr_t)list | LIST;
	return rc;
}

static int view_acquire(struct morsel_target *target, struct morsel_grant *grant)
{
	struct mrs_rdma *rdma = target->state;
	unsigned count = mrs_rdma_region_count(rdma, grant->offset, grant->bytes);
	int rc;

	grant->private_[2] = 0;
	if (bare)
		return 0;
	pthread_mutex_lock(&rdma->lock);
	rc = count == 1 ? hold_one(rdma, grant) : hold_many(rdma, grant, count);
	pthread_mutex_unlock(&rdma->lock);
	return rc;
}

/* The regions of a grant, in the order of addresses; NULL: it has none. */
static struct mrs_rdma_region *const *regions_of(const struct morsel_grant *grant)
{
	uint64_t word = grant->private_[2];

	if (!word)
		return NULL;
	return word & LIST ? (struct mrs_rdma_region *const *)(uintptr_t)(word & ~LIST)
			   : (struct mrs_rdma_region *const *)&grant->private_[2];
}

static void view_release(struct morsel_target *target, struct morsel_grant *grant)
{
	struct mrs_rdma *rdma = target->state;
	unsigned count = mrs_rdma_region_count(rdma, grant->offset, grant->bytes);
	struct mrs_rdma_region **list = (struct mrs_rdma_region **)regions_of(grant);

	if (!list)
		return;
	pthread_mutex_lock(&rdma->lock);
	mrs_rdma_region_release(rdma, list, count);
	pthread_mutex_unlock(&rdma->lock);
	if (grant->private_[2] & LIST)
		free(list);
	grant->private_[2] = 0;
}

int mrs_rdma_acquire_bare(struct morsel_view *view, uint64_t offset, uint64_t bytes, int access,
			  struct morsel_grant *grant)
{
	int rc;

	bare = true;
	rc = morsel_acquire(view, offset, bytes, access, grant);
	bare = false;
	return rc;
}

/* ---- keys ---- */

static void key_in(const struct mrs_rdma_region *region, uint64_t offset,
		   struct morsel_rdma_key *key)
{
	*key = (struct morsel_rdma_key){
		.address = (uintptr_t)region->mr->addr + (offset - region->first),
		.bytes = region->end - offset,
		.lkey = region->mr->lkey,
		.rkey = region->mr->rkey,
	};
}

int morsel_rdma_key(const struct morsel_grant *grant, uint64_t offset, struct morsel_rdma_key *key)
{
	struct mrs_rdma_region *const *list = regions_of(grant);
	const struct mrs_rdma *rdma;

	if (!list || offset < grant->offset || offset - grant->offset >= grant->bytes)
		return -EFAULT;
	rdma = morsel_view_target(grant->view)->state;
	key_in(list[mrs_rdma_region_count(rdma, grant->offset, offset - grant->offset + 1) - 1],
	       offset, key);
	key->bytes = mrs_min(key->bytes, grant->offset + grant->bytes - offset);
	return 0;
}

int morsel_rdma_list(const struct morsel_grant *grant, uint64_t offset, uint64_t bytes,
		     struct ibv_sge *list, unsigned count)
{
	struct morsel_rdma_key key;
	unsigned n = 0;

	for (uint64_t at = offset, end = offset + bytes; at < end; at += key.bytes, n++) {
		int rc = morsel_rdma_key(grant, at, &key);

		if (rc)
			return morsel_fail(rc, "byte %llu of the view is not in the grant",
					   (unsigned long long)at);
		key.bytes = mrs_min(key.bytes, end - at);
		if (n < count)
			list[n] = (struct ibv_sge){.addr = key.address,
						   .length = (uint32_t)key.bytes,
						   .lkey = key.lkey};
	}
	if (n > count)
		return morsel_fail(-E2BIG, "the range lies in %u regions, and there is room for %u",
				   n, count);
	return (int)n;
}

/* ---- views ---- */

static const struct morsel_backend_ops ops = {
	.size = sizeof(ops),
	.version = MORSEL_BACKEND_VERSION,
	.name = NAME,
	.caps = view_caps,
	.map = view_map,
	.invalidate = view_invalidate,
	.destroy = view_destroy,
	.acquire = view_acquire,
	.release = view_release,
};

static struct morsel_backend *backend;
static int registered = -EAGAIN;

static void register_backend(void)
{
	registered = morsel_backend_register(&ops, &backend);
}

static int check_opts(struct ibv_pd *pd, const struct morsel_rdma_view_opts *opts)
{
	if (!pd)
		return morsel_fail(-EINVAL,
				   "a view of a NIC needs a protection domain (ibv_alloc_pd)");
	if (!opts)
		return 0;
	if (opts->size != sizeof(*opts))
		return morsel_fail(-EINVAL, "morsel_rdma_view_opts.size is %zu, not %zu",
				   opts->size, sizeof(*opts));
	if (opts->way > MORSEL_RDMA_PINNED || opts->reserved)
		return morsel_fail(-EINVAL,
				   "morsel_rdma_view_opts.way %u or a reserved field is not known",
				   opts->way);
	return 0;
}

/* Not more than the device has. */
static int limit_regions(struct mrs_rdma *rdma)
{
	struct ibv_device_attr attr;
	int code = ibv_query_device(rdma->pd->context, &attr);

	if (code)
		return morsel_fail(-code, "the NIC does not say what it can (ibv_query_device: %s)",
				   strerror(code));
	if (!rdma->opts.regions_max)
		rdma->opts.regions_max = REGIONS_MAX;
	if (attr.max_mr > 0)
		rdma->opts.regions_max = mrs_min(rdma->opts.regions_max, (uint32_t)attr.max_mr);
	return 0;
}

static int make_rdma(struct ibv_pd *pd, const struct morsel_rdma_view_opts *opts,
		     struct mrs_rdma **made)
{
	struct mrs_rdma *rdma = calloc(1, sizeof(*rdma));
	int rc;

	if (!rdma)
		return morsel_fail(-ENOMEM, "no memory for a view");
	if (opts)
		rdma->opts = *opts;
	rdma->pd = pd;
	rdma->refs = 1;
	pthread_mutex_init(&rdma->lock, NULL);
	rc = limit_regions(rdma);
	if (rc)
		put(rdma);
	else
		*made = rdma;
	return rc;
}

/* What the view's access is, where the options do not say: as for a CPU view. */
static int default_access(struct morsel *morsel, struct morsel_rdma_view_opts *opts)
{
	struct morsel_info info = {.size = sizeof(info)};
	int rc = opts->access ? 0 : morsel_info(morsel, &info);

	if (!rc && !opts->access)
		opts->access = info.sealed ? MORSEL_READ : MORSEL_READ | MORSEL_WRITE;
	return rc;
}

int morsel_rdma_view(struct morsel *morsel, struct ibv_pd *pd,
		     const struct morsel_rdma_view_opts *opts, struct morsel_view **view)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct morsel_map_opts map = {.size = sizeof(map)};
	struct mrs_rdma *rdma = NULL;
	int rc = check_opts(pd, opts);

	pthread_once(&once, register_backend);
	if (rc || registered)
		return rc ? rc : registered;
	rc = make_rdma(pd, opts, &rdma);
	if (rc)
		return rc;
	rc = default_access(morsel, &rdma->opts);
	map.access = rdma->opts.access;
	map.offset = rdma->opts.offset;
	map.bytes = rdma->opts.bytes;
	if (!rc)
		rc = morsel_view_create(morsel, backend, rdma, &map, view);
	put(rdma);
	return rc;
}

struct mrs_rdma *mrs_rdma_of(struct morsel_view *view)
{
	if (view && !strcmp(morsel_view_backend_name(view), NAME))
		return morsel_view_target(view)->state;
	morsel_fail(-EINVAL, "not a view of a NIC");
	return NULL;
}

int morsel_rdma_view_info(struct morsel_view *view, struct morsel_rdma_view_info *info)
{
	struct mrs_rdma *rdma = mrs_rdma_of(view);

	if (!rdma)
		return -EINVAL;
	if (info->size != sizeof(*info))
		return morsel_fail(-EINVAL, "morsel_rdma_view_info.size is %zu, not %zu",
				   info->size, sizeof(*info));
	pthread_mutex_lock(&rdma->lock);
	*info = (struct morsel_rdma_view_info){
		.size = sizeof(*info),
		.way = MORSEL_RDMA_PINNED,
		.access = rdma->opts.access,
		.address = mrs_rdma_window_address(rdma),
		.bytes = rdma->bytes,
		.regions = rdma->regions,
		.regions_max = rdma->opts.regions_max,
		.regions_held = rdma->held,
		.shares = rdma->shares,
		.bytes_pinned = rdma->pinned,
		.registered = rdma->registered,
		.deregistered = rdma->deregistered,
	};
	pthread_mutex_unlock(&rdma->lock);
	return 0;
}
