/*
 * The core's backend: a view is a range of IOVAs that is reserved for its whole life, and a set of
 * entries in it. See morsel/view.h for what a backend keeps, map.c for how.
 *
 * One backend per way into the kernel, so that messages name it. What the core hands around as the
 * device is the struct mrs_view of the view itself: so the first map() knows the options.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define CAPS (MORSEL_CAP_COHERENT | MORSEL_CAP_SCATTER | MORSEL_CAP_HOLES | MORSEL_CAP_PINS)

static uint32_t view_caps(void *device)
{
	const struct mrs_view *view = device;

	return CAPS | (view->domain->dirty_tracking ? MORSEL_CAP_DIRTY : 0);
}

static struct mrs_view *enter(const struct morsel_target *target)
{
	struct mrs_view *view = target->device;

	pthread_mutex_lock(&view->domain->lock);
	return view;
}

static int leave(struct mrs_view *view, int rc)
{
	pthread_mutex_unlock(&view->domain->lock);
	return rc;
}

static void put(struct mrs_view *view)
{
	if (--view->refs)
		return;
	mrs_entries_free(&view->entries);
	free(view);
}

/* -ENODEV, -EBUSY in words. The domain's lock is held. */
static int check_usable(struct mrs_view *view)
{
	if (view->device)
		return mrs_device_check(view->device);
	if (view->gone)
		return morsel_fail(-ENODEV,
				   "all devices of the view's domain are gone: destroy it");
	return 0;
}

/* ---- where it lies ---- */

/* The largest page that the IOMMU can use for a run of so many bytes. */
static uint64_t largest_page(const struct morsel_domain *domain, uint64_t bytes)
{
	if (bytes >= MRS_GIANT_BYTES && domain->page_sizes & MRS_GIANT_BYTES)
		return MRS_GIANT_BYTES;
	return bytes >= MRS_HUGE_BYTES ? MRS_HUGE_BYTES : MRS_PAGE_BYTES;
}

/*
 * IOVA and frames agree modulo the largest page of the largest run: otherwise the IOMMU could not
 * use such pages. Where there is no run yet, pages of 2 MiB will lie as they lie in the morsel.
 */
static void choose_phase(const struct mrs_view *view, const struct morsel_run *runs, size_t n,
			 struct mrs_iova_want *want)
{
	const struct morsel_run *largest = NULL;

	for (size_t i = 0; i < n; i++)
		if (!largest || runs[i].bytes > largest->bytes)
			largest = &runs[i];
	want->align = largest_page(view->domain, largest ? largest->bytes : view->bytes);
	want->phase =
		largest ? largest->frame * MRS_PAGE_BYTES - largest->offset : view->morsel_offset;
	want->phase &= want->align - 1;
}

static int reserve_iova(struct mrs_view *view, const struct morsel_run *runs, size_t n)
{
	struct mrs_iova_want want = {
		.bytes = view->bytes,
		.last = view->opts.iova_last ? view->opts.iova_last : UINT64_MAX,
	};
	int rc;

	if (view->opts.flags & (MORSEL_IOMMU_FIXED | MORSEL_IOMMU_SAME)) {
		rc = mrs_iova_take(&view->domain->iova, view->opts.iova, view->bytes);
		if (!rc)
			view->iova = view->opts.iova;
		return rc;
	}
	choose_phase(view, runs, n, &want);
	return mrs_iova_choose(&view->domain->iova, &want, &view->iova);
}

/* ---- birth and death ---- */

static void link_view(struct mrs_view *view)
{
	view->next = view->domain->views;
	view->domain->views = view;
	view->domain->view_count++;
	if (view->device)
		view->device->views++;
}

static void unlink_view(struct mrs_view *view)
{
	struct morsel_domain *domain = view->domain;
	struct mrs_view **link = &domain->views;

	while (*link != view)
		link = &(*link)->next;
	*link = view->next;
	domain->view_count--;
	if (view->device)
		view->device->views--;
	if (domain->hand == view) {
		domain->hand = view->next;
		domain->hand_offset = 0;
	}
}

/* A granule that the options do not say: pages that come and go do so alone. */
static uint64_t choose_granule(const struct mrs_view *view, const struct morsel_target *target)
{
	if (view->opts.granule_bytes)
		return view->opts.granule_bytes;
	return target->revocable ? target->page_bytes : 0;
}

static int first_map(struct mrs_view *view, struct morsel_target *target,
		     const struct morsel_run *runs, size_t n)
{
	int rc;

	view->bytes = target->bytes;
	view->morsel_offset = target->offset;
	view->access = target->access;
	view->fd = target->fd;
	view->granule = choose_granule(view, target);
	rc = reserve_iova(view, runs, n);
	if (rc)
		return rc;
	link_view(view);
	rc = mrs_map_runs(view, runs, n, true);
	if (rc) {
		unlink_view(view);
		mrs_iova_give(&view->domain->iova, view->iova);
		return rc;
	}
	view->refs++;
	target->state = view;
	return 0;
}

static int view_map(struct morsel_target *target, const struct morsel_run *runs, size_t n)
{
	struct mrs_view *view = enter(target);
	int rc = check_usable(view);

	if (!rc)
		rc = target->state ? mrs_map_runs(view, runs, n, false)
				   : first_map(view, target, runs, n);
	return leave(view, rc);
}

static int view_invalidate(struct morsel_target *target, uint64_t offset, uint64_t bytes)
{
	struct mrs_view *view = enter(target);

	return leave(view, mrs_map_forget(view, offset, bytes));
}

#define SUSPEND_TRIES 3

/* The kernel does not refuse this but for want of memory of its own: it is asked again. */
static int suspend_surely(struct mrs_view *view)
{
	int rc = -EAGAIN;

	for (unsigned i = 0; rc && i < SUSPEND_TRIES; i++)
		rc = mrs_map_suspend(view);
	return rc;
}

static void view_destroy(struct morsel_target *target)
{
	struct mrs_view *view = target->state;

	target->state = NULL;
	if (target->forked) {
		put(view);
		return;
	}
	pthread_mutex_lock(&view->domain->lock);
	if (view->tracking && !--view->domain->dirty_users)
		view->domain->way->dirty(view->domain, false);
	/* The IOVAs stay taken where the kernel has not let go: nobody else gets what it maps. */
	if (!suspend_surely(view))
		mrs_iova_give(&view->domain->iova, view->iova);
	unlink_view(view);
	pthread_mutex_unlock(&view->domain->lock);
	put(view);
}

/* ---- grants ---- */

/* The whole pages of a grant. */
static void pages_of(const struct morsel_grant *grant, uint64_t *offset, uint64_t *bytes)
{
	uint64_t end = mrs_round_up(grant->offset + grant->bytes, MRS_PAGE_BYTES);

	*offset = mrs_round_down(grant->offset, MRS_PAGE_BYTES);
	*bytes = end - *offset;
}

static int view_acquire(struct morsel_target *target, struct morsel_grant *grant)
{
	struct mrs_view *view = enter(target);
	uint64_t offset, bytes;
	int rc = check_usable(view);

	pages_of(grant, &offset, &bytes);
	if (!rc)
		rc = mrs_map_hold(view, offset, bytes);
	if (!rc)
		grant->iova = view->iova + grant->offset;
	return leave(view, rc);
}

static void view_release(struct morsel_target *target, struct morsel_grant *grant)
{
	struct mrs_view *view = enter(target);
	uint64_t offset, bytes;

	pages_of(grant, &offset, &bytes);
	mrs_map_release(view, offset, bytes);
	leave(view, 0);
}

/* ---- dirty tracking ---- */

#define BITMAP_WORDS 64u
#define BITMAP_BYTES (BITMAP_WORDS * 64 * MRS_PAGE_BYTES)

/* Reports the runs of ones of a bitmap; fn may be NULL: they are forgotten. */
static int report_bits(const uint64_t *bitmap, uint64_t offset, uint64_t pages, morsel_dirty_fn fn,
		       void *ctx)
{
	int rc = 0;

	for (uint64_t at = 0, end; fn && at < pages && !rc; at = end) {
		bool dirty = bitmap[at / 64] >> at % 64 & 1;

		for (end = at + 1; end < pages; end++)
			if ((bitmap[end / 64] >> end % 64 & 1) != dirty)
				break;
		if (dirty)
			rc = fn(ctx, offset + at * MRS_PAGE_BYTES, (end - at) * MRS_PAGE_BYTES);
	}
	return rc;
}

/* [offset, end) lies in one mapping. */
static int collect_mapping(struct mrs_view *view, uint64_t offset, uint64_t end, morsel_dirty_fn fn,
			   void *ctx)
{
	int rc = 0;

	while (offset < end && !rc) {
		uint64_t bitmap[BITMAP_WORDS] = {0};
		uint64_t bytes = mrs_min(end - offset, BITMAP_BYTES);

		rc = view->domain->way->dirty_read(view->domain, view->iova + offset, bytes,
						   bitmap);
		if (!rc)
			rc = report_bits(bitmap, offset, bytes / MRS_PAGE_BYTES, fn, ctx);
		offset += bytes;
	}
	return rc;
}

static int collect(struct mrs_view *view, uint64_t offset, uint64_t bytes, morsel_dirty_fn fn,
		   void *ctx)
{
	struct mrs_entry *entry = mrs_entries_from(&view->entries, offset);
	uint64_t end = offset + bytes;
	int rc = 0;

	while (entry && entry->offset < end && !rc) {
		uint64_t entry_end = entry->offset + entry->bytes;

		if (entry->mapped)
			rc = collect_mapping(view, mrs_max(entry->offset, offset),
					     mrs_min(entry_end, end), fn, ctx);
		entry = mrs_entries_from(&view->entries, entry_end);
	}
	return rc;
}

/* Tracking is the domain's; what was written before a view began to track is not its concern. */
static int view_dirty_start(struct morsel_target *target)
{
	struct mrs_view *view = enter(target);
	int rc = view->domain->dirty_users ? 0 : view->domain->way->dirty(view->domain, true);

	if (rc)
		return leave(view, rc);
	rc = collect(view, 0, view->bytes, NULL, NULL);
	if (!rc) {
		view->tracking = true;
		view->domain->dirty_users++;
	} else if (!view->domain->dirty_users) {
		view->domain->way->dirty(view->domain, false);
	}
	return leave(view, rc);
}

static int view_dirty_collect(struct morsel_target *target, uint64_t offset, uint64_t bytes,
			      morsel_dirty_fn fn, void *ctx)
{
	struct mrs_view *view = enter(target);

	return leave(view, collect(view, offset, bytes, fn, ctx));
}

static void view_dirty_stop(struct morsel_target *target)
{
	struct mrs_view *view = enter(target);

	view->tracking = false;
	if (!--view->domain->dirty_users)
		view->domain->way->dirty(view->domain, false);
	leave(view, 0);
}

/* ---- registration ---- */

static struct morsel_backend *backends[2]; /* by enum morsel_iommu_kind, less 1 */
static int backends_rc;

static void register_backends(void)
{
	const struct mrs_way *const ways[] = {&mrs_way_type1, &mrs_way_iommufd};
	struct morsel_backend_ops ops = {
		.size = sizeof(ops),
		.version = MORSEL_BACKEND_VERSION,
		.caps = view_caps,
		.map = view_map,
		.invalidate = view_invalidate,
		.destroy = view_destroy,
		.acquire = view_acquire,
		.release = view_release,
		.dirty_start = view_dirty_start,
		.dirty_collect = view_dirty_collect,
		.dirty_stop = view_dirty_stop,
	};

	for (size_t i = 0; i < mrs_array_length(ways) && !backends_rc; i++) {
		ops.name = ways[i]->name;
		backends_rc = morsel_backend_register(&ops, &backends[ways[i]->kind - 1]);
	}
}

static int backend_of(const struct morsel_domain *domain, struct morsel_backend **backend)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, register_backends);
	if (backends_rc)
		return morsel_fail(backends_rc,
				   "libmorsel does not take the backend of IOMMUs: is it "
				   "of another version?");
	*backend = backends[domain->way->kind - 1];
	return 0;
}

/* ---- public ---- */

/* IOVA equal to the address of a CPU view of the same range. */
static int same_iova(struct morsel_iommu_view_opts *opts)
{
	const struct morsel_target *cpu = opts->cpu ? morsel_view_target(opts->cpu) : NULL;

	if (!cpu || !cpu->addr || cpu->offset != opts->offset ||
	    (opts->bytes && opts->bytes > morsel_view_bytes(opts->cpu)))
		return morsel_fail(-EINVAL,
				   "MORSEL_IOMMU_SAME needs a CPU view of the same range of "
				   "the morsel in opts.cpu");
	if (!opts->bytes)
		opts->bytes = morsel_view_bytes(opts->cpu);
	opts->iova = (uintptr_t)cpu->addr;
	return 0;
}

static int check_opts(struct morsel_iommu_view_opts *opts)
{
	const uint32_t known = MORSEL_IOMMU_FIXED | MORSEL_IOMMU_SAME;
	uint64_t granule = opts->granule_bytes;

	if (opts->flags & ~known)
		return morsel_fail(-EINVAL, "unknown flags 0x%x", opts->flags & ~known);
	if (opts->flags == known)
		return morsel_fail(-EINVAL,
				   "MORSEL_IOMMU_FIXED and MORSEL_IOMMU_SAME both choose the "
				   "IOVA: use one of them");
	if (granule && (granule < MRS_PAGE_BYTES || granule & (granule - 1)))
		return morsel_fail(-EINVAL, "a granule is a power of two from 4096 bytes, not %llu",
				   (unsigned long long)granule);
	if (opts->iova & (MRS_PAGE_BYTES - 1))
		return morsel_fail(-EINVAL,
				   "IOVA 0x%llx is unaligned: the IOMMU's pages have 4096 bytes",
				   (unsigned long long)opts->iova);
	return opts->flags & MORSEL_IOMMU_SAME ? same_iova(opts) : 0;
}

static int make_view(struct morsel *morsel, struct morsel_domain *domain,
		     struct morsel_device *device, const struct morsel_iommu_view_opts *given,
		     struct morsel_view **out)
{
	struct morsel_map_opts map = {.size = sizeof(map)};
	struct morsel_iommu_view_opts opts;
	struct morsel_backend *backend = NULL;
	struct mrs_view *view;
	int rc = mrs_opts_in(&opts, sizeof(opts), given);

	if (!rc)
		rc = check_opts(&opts);
	if (!rc)
		rc = backend_of(domain, &backend);
	if (rc)
		return rc;
	view = calloc(1, sizeof(*view));
	if (!view)
		return morsel_fail(-ENOMEM, "no memory for a view");
	view->domain = domain;
	view->device = device;
	view->opts = opts;
	view->refs = 1;
	map.access = opts.access;
	map.offset = opts.offset;
	map.bytes = opts.bytes;
	rc = morsel_view_create(morsel, backend, view, &map, out);
	put(view);
	return rc;
}

int morsel_iommu_view(struct morsel *morsel, struct morsel_device *device,
		      const struct morsel_iommu_view_opts *opts, struct morsel_view **view)
{
	int rc = mrs_device_check(device);

	return rc ? rc : make_view(morsel, device->domain, device, opts, view);
}

int morsel_iommu_domain_view(struct morsel *morsel, struct morsel_domain *domain,
			     const struct morsel_iommu_view_opts *opts, struct morsel_view **view)
{
	return make_view(morsel, domain, NULL, opts, view);
}

/* NULL for a view of another kind. */
static struct mrs_view *own(struct morsel_view *view)
{
	const char *name = morsel_view_backend_name(view);

	if (name != mrs_way_type1.name && name != mrs_way_iommufd.name)
		return NULL;
	return morsel_view_target(view)->state;
}

uint64_t morsel_iommu_iova(struct morsel_view *view)
{
	const struct mrs_view *mine = own(view);

	return mine ? mine->iova : 0;
}

static int not_own(struct morsel_view *view)
{
	return morsel_fail(-EINVAL, "a %s view is not an IOMMU's", morsel_view_backend_name(view));
}

int morsel_iommu_view_info(struct morsel_view *view, struct morsel_iommu_view_info *out)
{
	struct morsel_iommu_view_info info = {0};
	struct mrs_view *mine = own(view);

	if (!mine)
		return not_own(view);
	pthread_mutex_lock(&mine->domain->lock);
	info.gone = mine->gone;
	info.access = mine->access;
	info.iova = mine->iova;
	info.bytes = mine->bytes;
	info.granule_bytes = mine->granule;
	info.entries = mine->mapped;
	info.bytes_pinned = mine->pinned;
	pthread_mutex_unlock(&mine->domain->lock);
	return mrs_info_out(out, &info, sizeof(info));
}

int morsel_iommu_entries(struct morsel_view *view, morsel_iommu_entry_fn fn, void *ctx)
{
	struct mrs_view *mine = own(view);
	const struct mrs_entry *entry;
	int rc = 0;

	if (!mine)
		return not_own(view);
	pthread_mutex_lock(&mine->domain->lock);
	for (entry = mrs_entries_from(&mine->entries, 0); entry && !rc;
	     entry = mrs_entries_from(&mine->entries, entry->offset + entry->bytes)) {
		struct morsel_iommu_entry out = {
			.offset = entry->offset,
			.iova = mine->iova + entry->offset,
			.bytes = entry->bytes,
			.frame = entry->frame,
			.held = entry->held,
			.mapped = entry->mapped,
		};

		rc = fn(ctx, &out);
	}
	pthread_mutex_unlock(&mine->domain->lock);
	return rc;
}
