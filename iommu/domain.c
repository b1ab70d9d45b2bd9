/*
 * Domains: what devices translate with. Made with the first device, gone with the last.
 *
 * Permitted ranges, page sizes and limits are asked for when a device has joined, before anything
 * is mapped; a further device can make the ranges smaller, and is refused if a view would lie
 * outside.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "domain.h"
#include "internal.h"

/* ---- birth ---- */

/* The way that the options demand, or that is there. */
static const struct mrs_way *choose_way(const struct morsel_iommu_function *function,
					const struct morsel_iommu_opts *opts)
{
	switch (opts->kind) {
	case MORSEL_IOMMU_TYPE1:
		return &mrs_way_type1;
	case MORSEL_IOMMU_IOMMUFD:
		return &mrs_way_iommufd;
	default:
		if (opts->iommufd_plus_1 || opts->device_plus_1)
			return &mrs_way_iommufd;
		if (opts->container_plus_1 || opts->group_plus_1)
			return &mrs_way_type1;
		return function->has_cdev && mrs_sysfs_can_iommufd(function->bdf) ? &mrs_way_iommufd
										  : &mrs_way_type1;
	}
}

int mrs_domain_make(const struct morsel_iommu_function *function, struct morsel_iommu_opts *opts,
		    struct morsel_domain **out)
{
	struct morsel_domain *domain = calloc(1, sizeof(*domain));
	int rc;

	if (!domain)
		return morsel_fail(-ENOMEM, "no memory for a domain");
	pthread_mutex_init(&domain->lock, NULL);
	domain->way = choose_way(function, opts);
	domain->may_lock = domain->way->lock_cap_counts && mrs_memory_may_lock();
	rc = domain->way->open(domain, opts);
	if (rc) {
		pthread_mutex_destroy(&domain->lock);
		free(domain);
		return rc;
	}
	*out = domain;
	return 0;
}

void mrs_domain_free(struct morsel_domain *domain)
{
	domain->way->close(domain);
	/* With its descriptor everything is unpinned, also what did not go when it was told to. */
	mrs_memory_pinned(domain, -(int64_t)domain->pinned);
	mrs_iova_free(&domain->iova);
	mrs_memory_free(domain);
	pthread_mutex_destroy(&domain->lock);
	free(domain);
}

/* ---- joining and leaving ---- */

/* How many of the domain's devices still translate. The domain's lock is held, no device's. */
static uint32_t living(const struct morsel_domain *domain)
{
	uint32_t count = 0;

	for (struct morsel_device *d = domain->devices; d; d = d->next) {
		pthread_mutex_lock(&d->lock);
		count += !d->gone;
		pthread_mutex_unlock(&d->lock);
	}
	return count;
}

/* What the kernel says now, with what is taken carried over. */
static int look_again(struct morsel_domain *domain, uint64_t entries_max)
{
	struct mrs_iova before = domain->iova;
	uint64_t page_sizes = domain->page_sizes, limit = domain->entries_max;
	int rc;

	domain->iova = (struct mrs_iova){0};
	rc = domain->way->look(domain);
	for (size_t i = 0; i < before.taken_count && !rc; i++)
		rc = mrs_iova_take(&domain->iova, before.taken[i].first,
				   before.taken[i].last - before.taken[i].first + 1);
	if (!rc && !(domain->page_sizes & MRS_PAGE_BYTES))
		rc = morsel_fail(-EOPNOTSUPP,
				 "this IOMMU has no pages of 4096 bytes (its sizes are 0x%llx): "
				 "morsels cannot be mapped page by page",
				 (unsigned long long)domain->page_sizes);
	if (rc) {
		mrs_iova_free(&domain->iova);
		domain->iova = before;
		domain->page_sizes = page_sizes;
		domain->entries_max = limit;
		return rc;
	}
	mrs_iova_free(&before);
	if (entries_max)
		domain->entries_max = mrs_min(domain->entries_max, entries_max);
	else if (limit)
		domain->entries_max = mrs_min(domain->entries_max, limit);
	return 0;
}

static void unlink_device(struct morsel_domain *domain, struct morsel_device *device)
{
	struct morsel_device **link = &domain->devices;

	while (*link != device)
		link = &(*link)->next;
	*link = device->next;
	domain->device_count--;
}

int mrs_domain_join(struct morsel_domain *domain, struct morsel_device *device,
		    struct morsel_iommu_opts *opts)
{
	int rc;

	pthread_mutex_lock(&domain->lock);
	if (domain->device_count && !living(domain))
		rc = morsel_fail(-ENODEV,
				 "all devices of the domain are gone, and its translations "
				 "with them: open %s in a domain of its own",
				 device->function.bdf);
	else
		rc = domain->way->attach(domain, device, opts);
	if (rc)
		goto unlock;
	device->domain = domain;
	device->next = domain->devices;
	domain->devices = device;
	domain->device_count++;
	rc = look_again(domain, opts->entries_max);
	if (rc) {
		unlink_device(domain, device);
		domain->way->detach(domain, device);
	}
unlock:
	pthread_mutex_unlock(&domain->lock);
	return rc;
}

void mrs_domain_leave(struct morsel_domain *domain, struct morsel_device *device)
{
	pthread_mutex_lock(&domain->lock);
	if (device->fd >= 0)
		domain->way->detach(domain, device);
	unlink_device(domain, device);
	pthread_mutex_unlock(&domain->lock);
}

/* ---- a device is gone ---- */

/* With its last device a domain translates nothing: all views go. */
void mrs_domain_lost(struct morsel_domain *domain, struct morsel_device *device)
{
	bool all;

	pthread_mutex_lock(&domain->lock);
	all = !living(domain);
	for (struct mrs_view *view = domain->views; view; view = view->next) {
		if (view->device != device && !all)
			continue;
		view->gone = true;
		mrs_map_suspend(view);
	}
	pthread_mutex_unlock(&domain->lock);
}

/* ---- looking ---- */

struct morsel_domain *morsel_iommu_domain(struct morsel_device *device)
{
	return device->domain;
}

int morsel_iommu_domain_info(struct morsel_domain *domain, struct morsel_iommu_domain_info *out)
{
	struct morsel_iommu_domain_info info = {0};

	pthread_mutex_lock(&domain->lock);
	info.kind = domain->way->kind;
	info.devices = domain->device_count;
	info.ranges = (uint32_t)domain->iova.permitted_count;
	info.dirty_tracking = domain->dirty_tracking;
	info.page_sizes = domain->page_sizes;
	info.views = domain->view_count;
	info.entries = domain->entries;
	info.entries_max = domain->entries_max;
	info.bytes_pinned = domain->pinned;
	info.bytes_pinned_process = mrs_memory_pinned_process();
	info.bytes_memlock = mrs_memory_limit(domain);
	info.maps = domain->maps;
	info.unmaps = domain->unmaps;
	pthread_mutex_unlock(&domain->lock);
	return mrs_info_out(out, &info, sizeof(info));
}

int morsel_iommu_range(struct morsel_domain *domain, uint32_t index, uint64_t *first,
		       uint64_t *last)
{
	int rc = 0;

	pthread_mutex_lock(&domain->lock);
	if (index < domain->iova.permitted_count) {
		*first = domain->iova.permitted[index].first;
		*last = domain->iova.permitted[index].last;
	} else {
		rc = morsel_fail(-ERANGE, "the domain has %zu ranges of IOVAs, not %u",
				 domain->iova.permitted_count, index + 1);
	}
	pthread_mutex_unlock(&domain->lock);
	return rc;
}
