/*
 * Views, whatever their backend: made over the runs of a morsel's table, taken apart, made to
 * forget.
 *
 * Order of birth: publish, read the runs, map. A shrink that comes after the publication sees the
 * view and refuses; one that came before is seen in the runs. Order of death: the target forgets,
 * then the publication goes; so frames are never given away while a target can reach them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/probe.h"
#include "view/internal.h"

static uint32_t forks; /* changes only in a child that has one thread yet */

static void count_fork(void)
{
	mrs_store_relaxed32(&forks, mrs_load_relaxed32(&forks) + 1);
}

static void watch_forks(void)
{
	pthread_atfork(NULL, NULL, count_fork);
}

uint32_t mrs_view_forks(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, watch_forks);
	return mrs_load_relaxed32(&forks);
}

int mrs_view_check_fork(const struct morsel_view *view)
{
	if (view->forks == mrs_view_forks())
		return 0;
	return mrs_fail(-ECHILD, "a view does not work in a fork of the process that made it: open "
				 "the pool anew in the child");
}

/* ---- options ---- */

static int check_range(struct morsel *morsel, struct morsel_map_opts *opts)
{
	uint64_t bytes = mrs_morsel_bytes(morsel);

	if (opts->offset & (MRS_PAGE_BYTES - 1))
		return mrs_fail(-EINVAL,
				"a view begins at a whole page: offset %llu is not a multiple of "
				"4096",
				(unsigned long long)opts->offset);
	if (!bytes)
		return mrs_fail(-EINVAL, "the morsel has no bytes yet: nothing to map; see "
					 "morsel_resize()");
	if (opts->offset >= bytes || opts->bytes > bytes - opts->offset)
		return mrs_fail(-ERANGE,
				"a view of %llu bytes from offset %llu reaches beyond the morsel's "
				"%llu bytes",
				(unsigned long long)opts->bytes, (unsigned long long)opts->offset,
				(unsigned long long)bytes);
	if (!opts->bytes)
		opts->bytes = bytes - opts->offset;
	return 0;
}

int mrs_view_check_opts(struct morsel *morsel, struct morsel_map_opts *opts)
{
	const uint32_t known =
		MORSEL_MAP_POPULATE | MORSEL_MAP_FIXED | MORSEL_MAP_SAME | MORSEL_MAP_NO_DUMP;

	int rc = mrs_pool_usable(morsel->pool, true);

	if (rc)
		return rc;
	if (opts->flags & ~known || opts->access & ~(MORSEL_READ | MORSEL_WRITE))
		return mrs_fail(-EINVAL, "unknown flags 0x%x or access 0x%x", opts->flags & ~known,
				opts->access & ~(MORSEL_READ | MORSEL_WRITE));
	if (opts->flags & MORSEL_MAP_FIXED && opts->flags & MORSEL_MAP_SAME)
		return mrs_fail(-EINVAL, "MORSEL_MAP_FIXED and MORSEL_MAP_SAME both choose the "
					 "address: use one of them");
	if (opts->flags & MORSEL_MAP_FIXED &&
	    (!opts->address || (uintptr_t)opts->address & (MRS_PAGE_BYTES - 1)))
		return mrs_fail(-EINVAL,
				"MORSEL_MAP_FIXED needs an address at a whole page, not %p",
				opts->address);
	if (!opts->access)
		opts->access = MORSEL_READ | (mrs_morsel_is_sealed(morsel) ? 0 : MORSEL_WRITE);
	if (opts->access & MORSEL_WRITE && mrs_morsel_is_sealed(morsel))
		return mrs_fail(-EROFS, "the morsel is sealed: map it with access MORSEL_READ");
	return check_range(morsel, opts);
}

/* ---- runs ---- */

struct collect {
	const struct morsel_target *target;
	struct mrs_run_list *list;
	struct mrs_ranges *holes;
};

static int list_grow(struct mrs_run_list *list)
{
	size_t room = mrs_max(2 * list->room, 16u);
	struct morsel_run *run = realloc(list->run, room * sizeof(*run));

	if (!run)
		return mrs_fail(-ENOMEM, "no memory for a list of %zu runs", room);
	list->run = run;
	list->room = room;
	return 0;
}

static int collect_run(void *ctx, const struct mrs_run *run)
{
	struct collect *collect = ctx;
	struct mrs_run_list *list = collect->list;
	uint64_t page = run->page - collect->target->offset / MRS_PAGE_BYTES;
	int rc;

	if (!run->mapped) {
		if (!collect->holes)
			return mrs_fail(-EIO, "page %llu has no frame although it was filled",
					(unsigned long long)run->page);
		rc = mrs_ranges_reserve(collect->holes);
		if (!rc)
			mrs_ranges_add(collect->holes, page, page + run->pages);
		return rc;
	}
	rc = list->count == list->room ? list_grow(list) : 0;
	if (rc)
		return rc;
	list->run[list->count++] = (struct morsel_run){
		.offset = page * MRS_PAGE_BYTES,
		.bytes = run->pages * MRS_PAGE_BYTES,
		.frame = run->frame,
		.order = run->order,
		.resident = 1,
	};
	return 0;
}

int mrs_view_runs(struct morsel *morsel, const struct morsel_target *target, uint64_t first,
		  uint64_t end, struct mrs_run_list *list, struct mrs_ranges *holes)
{
	struct collect collect = {.target = target, .list = list, .holes = holes};

	return mrs_morsel_each_run(morsel, target->offset / MRS_PAGE_BYTES + first, end - first,
				   collect_run, &collect);
}

/* ---- birth ---- */

/* Does the backend on this device have what its capabilities say, and what this morsel needs? */
static int check_caps(const struct morsel_view *view, size_t runs)
{
	const struct morsel_backend_ops *ops = &view->backend->ops;
	uint32_t caps = view->caps;

	if ((caps & MORSEL_CAP_FAULTABLE && !ops->fault_start) ||
	    (caps & MORSEL_CAP_DIRTY && !ops->dirty_start) ||
	    (caps & MORSEL_CAP_EXPORT && !ops->export_range) ||
	    (!(caps & MORSEL_CAP_COHERENT) && !ops->to_target))
		return mrs_fail(-EINVAL,
				"backend %s claims capabilities 0x%x without having the operations "
				"for them",
				ops->name, caps);
	if (!(caps & MORSEL_CAP_HOLES) && view->missing.count)
		return mrs_fail(-EOPNOTSUPP,
				"a %s view cannot have pages without memory: the morsel is lazy; "
				"fill it first (MORSEL_ADVICE_PREFETCH), or use another kind of "
				"view",
				ops->name);
	if (!(caps & MORSEL_CAP_SCATTER) && runs > 1)
		return mrs_fail(-EOPNOTSUPP,
				"a %s view needs one run, the range has %zu: use a stitched view, "
				"or create the morsel with MORSEL_CONTIGUOUS",
				ops->name, runs);
	return 0;
}

static void fill_target(struct morsel_view *view, void *device, const struct morsel_map_opts *opts)
{
	struct morsel_pool *pool = view->morsel->pool;

	view->target = (struct morsel_target){
		.size = sizeof(view->target),
		.device = device,
		.fd = morsel_pool_fd(pool),
		.access = opts->access,
		.flags = opts->flags | (mrs_pool_is_no_dump(pool) ? MORSEL_MAP_NO_DUMP : 0),
		.hint = opts->address,
		.offset = opts->offset,
		.bytes = mrs_round_up(opts->bytes, MRS_PAGE_BYTES),
		.page_bytes = MRS_PAGE_BYTES,
		.block_bytes = mrs_pool_block_frames(pool) * MRS_PAGE_BYTES,
		.morsel_id = view->morsel->record->id,
	};
	memcpy(view->target.pool_uuid, mrs_pool_super(pool)->uuid, sizeof(view->target.pool_uuid));
}

/* Reads the runs and has the backend translate them. The view is published. */
static int first_map(struct morsel_view *view)
{
	uint64_t pages = view->target.bytes / MRS_PAGE_BYTES;
	struct mrs_run_list list = {0};
	int rc = 0;

	if (view->target.flags & MORSEL_MAP_POPULATE)
		rc = mrs_morsel_fill(view->morsel, view->target.offset / MRS_PAGE_BYTES, pages);
	if (!rc)
		rc = mrs_view_runs(view->morsel, &view->target, 0, pages, &list, &view->missing);
	if (!rc)
		rc = check_caps(view, list.count);
	MRS_PROBE("view.create.runs");
	if (!rc)
		rc = view->backend->ops.map(&view->target, list.run, list.count);
	MRS_PROBE("view.create.mapped");
	free(list.run);
	return rc;
}

int mrs_view_make(struct morsel *morsel, struct morsel_backend *backend, void *device,
		  const struct morsel_map_opts *opts, struct morsel_view **out)
{
	uint64_t end = opts->offset + opts->bytes;
	struct morsel_view *view = calloc(1, sizeof(*view));
	int rc;

	if (!view)
		return mrs_fail(-ENOMEM, "no memory for a view");
	view->morsel = morsel;
	view->backend = backend;
	view->bytes = opts->bytes;
	view->forks = mrs_view_forks();
	view->caps = backend->ops.caps(device);
	pthread_mutex_init(&view->lock, NULL);
	fill_target(view, device, opts);
	rc = mrs_morsel_view_publish(morsel, mrs_round_up(end, MRS_PAGE_BYTES) / MRS_PAGE_BYTES,
				     opts->access & MORSEL_WRITE, &view->published);
	if (rc)
		goto free_view;
	MRS_PROBE("view.create.published");
	rc = first_map(view);
	if (rc)
		goto withdraw;
	mrs_fetch_add32(&morsel->views, 1);
	mrs_fetch_add32(&backend->views, 1);
	*out = view;
	return 0;

withdraw:
	mrs_morsel_view_withdraw(morsel, view->published);
free_view:
	mrs_ranges_free(&view->missing);
	pthread_mutex_destroy(&view->lock);
	free(view);
	return rc;
}

int morsel_view_create(struct morsel *morsel, struct morsel_backend *backend, void *device,
		       const struct morsel_map_opts *given, struct morsel_view **view)
{
	struct morsel_map_opts opts;
	int rc = mrs_opts_read(&opts, sizeof(opts), given);

	if (!rc && opts.kind)
		rc = mrs_fail(-EINVAL, "the backend is given: leave kind 0, not %u", opts.kind);
	if (!rc)
		rc = mrs_view_check_opts(morsel, &opts);
	return rc ? rc : mrs_view_make(morsel, backend, device, &opts, view);
}

/* ---- death ---- */

static void free_exports(struct morsel_view *view)
{
	while (view->exports) {
		struct mrs_export *export = view->exports;

		view->exports = export->next;
		free(export);
	}
}

void morsel_view_destroy(struct morsel_view *view)
{
	if (!view)
		return;
	view->target.forked = view->forks != mrs_view_forks();
	if (view->grants && !view->target.forked)
		mrs_log(MRS_LOG_WARN,
			"a %s view is destroyed while %llu grants of it are held: release them "
			"before",
			view->backend->ops.name, (unsigned long long)view->grants);
	view->backend->ops.destroy(&view->target);
	MRS_PROBE("view.destroy.unmapped");
	if (!view->target.forked) {
		mrs_morsel_view_withdraw(view->morsel, view->published);
		pthread_mutex_destroy(&view->lock);
	}
	mrs_fetch_sub32(&view->morsel->views, 1);
	mrs_fetch_sub32(&view->backend->views, 1);
	free_exports(view);
	mrs_ranges_free(&view->missing);
	free(view->slots);
	free(view);
}

/* ---- looking ---- */

void *morsel_addr(struct morsel_view *view)
{
	return view->target.addr;
}

uint64_t morsel_view_bytes(struct morsel_view *view)
{
	return view->bytes;
}

struct morsel_target *morsel_view_target(struct morsel_view *view)
{
	return &view->target;
}

const char *morsel_view_backend_name(struct morsel_view *view)
{
	return view->backend->ops.name;
}

uint32_t morsel_view_caps(struct morsel_view *view)
{
	return view->caps;
}
