/*
 * Views, whatever their backend: made over the runs of a morsel's table, taken apart, made to
 * forget.
 *
 * Order of birth: publish, read the runs, map, list, look at the size again. A shrink that came
 * before the publication is seen in the size; one that came after it asks this process: either its
 * service thread finds the view in the list, or the listing came after the question, and the second
 * look sees the smaller size. Nobody has the address before. What views of evictable morsels need
 * beside this stands in watch.c: of them the registry's protocol (registry.h) begins with the
 * listing. Order of death: the target forgets, then list and publication go; so frames are never
 * given away while a target can reach them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/probe.h"
#include "base/trace.h"
#include "view/cpu.h"
#include "view/internal.h"
#include "view/mailbox.h"
#include "view/pager.h"

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

static uint64_t pages_of(const struct morsel_view *view)
{
	return view->target.bytes / MRS_PAGE_BYTES;
}

static uint64_t moves_of(const struct morsel_view *view)
{
	const struct mrs_cell_coherence *coherence = mrs_morsel_coherence(view->morsel);

	return coherence ? mrs_load_acquire(&coherence->moves) : 0;
}

/* What the first map() gets: everything; of a by-mail view nothing, if it can be without. */
static int first_runs(struct morsel_view *view, struct mrs_run_list *list)
{
	int rc;

	if (!view->by_mail || !(view->caps & MORSEL_CAP_HOLES))
		return mrs_view_runs(view->morsel, &view->target, 0, pages_of(view), list,
				     &view->missing);
	rc = mrs_ranges_reserve(&view->missing);
	if (!rc)
		mrs_ranges_add(&view->missing, 0, pages_of(view));
	return rc;
}

/* From then on a letter finds nothing to do. In a fork nobody else is there, and no lock is sure.
 */
static void destroy_target(struct morsel_view *view)
{
	if (view->target.forked) {
		view->backend->ops.destroy(&view->target);
		return;
	}
	pthread_mutex_lock(&view->lock);
	view->backend->ops.destroy(&view->target);
	view->ending = true;
	pthread_mutex_unlock(&view->lock);
}

/* Reads the runs and has the backend translate them. The view is published. */
static int first_map(struct morsel_view *view, struct mrs_run_list *list)
{
	int rc = 0;

	if (view->backend == &mrs_backend_pooled)
		rc = mrs_view_check_shared(view->morsel, view->target.offset / MRS_PAGE_BYTES,
					   pages_of(view));
	if (!rc)
		rc = first_runs(view, list);
	if (!rc)
		rc = check_caps(view, list->count);
	/* One more for a letter, which cannot get memory: told.c. */
	if (!rc)
		rc = mrs_ranges_reserve(&view->missing);
	MRS_PROBE("view.create.runs");
	if (!rc)
		rc = view->backend->ops.map(&view->target, list->run, list->count);
	MRS_PROBE("view.create.mapped");
	return rc;
}

static int list_view(struct morsel_view *view, uint64_t moves)
{
	struct mrs_register entry = {
		.record = view->morsel->cell,
		.first = view->target.offset / MRS_PAGE_BYTES,
		.pages = pages_of(view),
		.address = (uintptr_t)view->target.addr,
		.flags = mrs_view_flags(view),
		.moves = moves,
		.owner = view,
	};
	int rc = mrs_registry_add(view->morsel->pool, &entry, &view->listed);

	if (!rc)
		rc = mrs_morsel_view_fits(view->morsel, entry.first + entry.pages);
	MRS_PROBE("view.create.listed");
	return rc;
}

/* A pooled view cannot follow: are its pages still where they were when the runs were read? */
static int check_pooled(struct morsel_view *view, const struct mrs_run_list *list)
{
	uint64_t page = view->target.offset / MRS_PAGE_BYTES;
	struct mrs_run run;
	int rc = mrs_table_lookup(&view->morsel->table, page, pages_of(view), &run);

	if (rc || (list->count && run.mapped && run.frame == list->run[0].frame &&
		   run.pages == pages_of(view)))
		return rc;
	return mrs_fail(-EAGAIN, "pages of the view came to other frames while it was made: try "
				 "again, or use a stitched view");
}

#define CATCH_TRIES 1000u

/* Nobody has its address yet; what is in the way now is over soon. */
static int remap_newborn(struct morsel_view *view)
{
	struct timespec pause = {.tv_nsec = 1000000};
	uint64_t moves;
	int rc = -EAGAIN;

	view->newborn = true;
	for (unsigned i = 0; rc == -EAGAIN && i < CATCH_TRIES; i++) {
		if (i)
			nanosleep(&pause, NULL);
		pthread_mutex_lock(&view->lock);
		/* What counts before the tables are read is in them. */
		moves = moves_of(view);
		rc = mrs_view_remap(view, 0, pages_of(view));
		if (!rc && view->listed) {
			view->ahead = 0;
			mrs_registry_follow(view->listed, moves);
		}
		pthread_mutex_unlock(&view->lock);
	}
	view->newborn = false;
	return rc == -EAGAIN ? mrs_fail(rc, "pages of the view keep moving while it is made: try "
					    "again")
			     : rc;
}

/* It changes at every resize: object/resize.c. */
static uint64_t version_of(const struct morsel_view *view)
{
	return mrs_load_acquire(&view->morsel->record->format);
}

/*
 * What the morsel's pages did between the reading of the runs and the listing: they have moved, or gone
 * with a shrink, which tells listed views only, and come back on other frames when it grew again.
 */
static int catch_up(struct morsel_view *view, uint64_t moves, uint64_t version,
		    const struct mrs_run_list *list)
{
	int rc = 0;

	if (version_of(view) != version && !view->watched)
		return mrs_fail(-EAGAIN, "the morsel was resized while the view was made: try again");
	if (moves_of(view) != moves || version_of(view) != version)
		rc = view->backend == &mrs_backend_pooled ? check_pooled(view, list)
							  : remap_newborn(view);
	if (!rc && view->backend == &mrs_backend_pooled)
		rc = mrs_view_check_shared(view->morsel, view->target.offset / MRS_PAGE_BYTES,
					   pages_of(view));
	return rc;
}

static int birth_of_cpu_view(struct morsel_view *view, struct mrs_run_list *list)
{
	uint64_t moves = moves_of(view), version = version_of(view);
	int rc = first_map(view, list);

	if (rc)
		return rc;
	rc = mrs_view_watch_start(view, list);
	if (!rc)
		rc = list_view(view, moves);
	if (!rc)
		rc = catch_up(view, moves, version, list);
	if (!rc)
		rc = mrs_view_watch_protect(view, list);
	if (rc)
		goto destroy;
	/* Without it the view works; what it may write is not evicted until the pager has it. */
	if (view->watched && view->target.access & MORSEL_WRITE &&
	    mrs_pager_ensure(view->morsel->pool))
		mrs_log(MRS_LOG_INFO, "a view has no pager yet: %s", morsel_errormsg());
	return 0;

destroy:
	destroy_target(view);
	mrs_view_watch_stop(view);
	return rc;
}

static int window_open(struct morsel_view *view)
{
	struct morsel_map_opts opts = {
		.size = sizeof(opts),
		.access = MORSEL_READ,
		.offset = view->target.offset,
		.bytes = view->bytes,
	};

	return mrs_view_make(view->morsel, &mrs_backend_stitched, NULL, &opts, &view->window);
}

/* The target gets translations only while the pages are pinned. */
static int birth_by_mail(struct morsel_view *view, struct mrs_run_list *list)
{
	bool whole = !(view->caps & MORSEL_CAP_HOLES);
	struct mrs_pin *pin = NULL;
	int rc;

	view->ending = true; /* until there is something that could be told */
	rc = list_view(view, moves_of(view));
	if (!rc)
		rc = window_open(view);
	if (!rc && whole)
		rc = mrs_view_pin(view, 0, pages_of(view), &pin);
	if (!rc && whole)
		rc = mrs_view_make_resident(view, 0, pages_of(view),
					    view->target.access & MORSEL_WRITE);
	if (!rc)
		rc = first_map(view, list);
	if (pin)
		mrs_registry_unpin(view->morsel->pool, view->listed, pin);
	if (rc)
		return rc;
	pthread_mutex_lock(&view->lock);
	view->ending = false;
	pthread_mutex_unlock(&view->lock);
	rc = mrs_morsel_view_fits(view->morsel,
				  view->target.offset / MRS_PAGE_BYTES + pages_of(view));
	if (rc)
		destroy_target(view);
	return rc;
}

static int birth(struct morsel_view *view)
{
	struct mrs_run_list list = {0};
	int rc = mrs_view_watch_init(view);

	if (!rc)
		rc = mrs_service_start(view->morsel->pool);
	if (!rc && view->target.flags & MORSEL_MAP_POPULATE)
		rc = mrs_morsel_fill(view->morsel, view->target.offset / MRS_PAGE_BYTES,
				     pages_of(view));
	if (!rc)
		rc = view->by_mail ? birth_by_mail(view, &list) : birth_of_cpu_view(view, &list);
	free(list.run);
	return rc;
}

/* MORSEL_MAP_POPULATE: this process's page table. */
static int populate(struct morsel_view *view)
{
	int rc;

	if (!(view->target.flags & MORSEL_MAP_POPULATE) || !mrs_view_is_cpu(view))
		return 0;
	if (!view->watched)
		return mrs_cpu_populate(&view->target);
	rc = mrs_view_make_resident(view, 0, pages_of(view), false);
	/* Pages that were evicted again meanwhile come at their touch. */
	if (!rc)
		mrs_cpu_populate(&view->target);
	return rc;
}

static void unlist(struct morsel_view *view)
{
	if (view->listed)
		mrs_registry_remove(view->morsel->pool, view->listed);
	view->listed = NULL;
	morsel_view_destroy(view->window);
}

static struct morsel_view *view_alloc(struct morsel *morsel, struct morsel_backend *backend,
				      void *device, const struct morsel_map_opts *opts)
{
	struct morsel_view *view = calloc(1, sizeof(*view));

	if (!view) {
		mrs_fail(-ENOMEM, "no memory for a view");
		return NULL;
	}
	view->morsel = morsel;
	view->backend = backend;
	view->bytes = opts->bytes;
	view->forks = mrs_view_forks();
	view->caps = backend->ops.caps(device);
	pthread_mutex_init(&view->lock, NULL);
	fill_target(view, device, opts);
	return view;
}

int mrs_view_make(struct morsel *morsel, struct morsel_backend *backend, void *device,
		  const struct morsel_map_opts *opts, struct morsel_view **out)
{
	struct morsel_view *view = view_alloc(morsel, backend, device, opts);
	int rc;

	if (!view)
		return -ENOMEM;
	rc = mrs_morsel_view_publish_told(morsel,
					  view->target.offset / MRS_PAGE_BYTES + pages_of(view),
					  opts->access & MORSEL_WRITE, &view->published);
	if (rc)
		goto free_view;
	MRS_PROBE("view.create.published");
	if (view->caps & MORSEL_CAP_PINS)
		rc = mrs_morsel_view_pins(morsel, view->published);
	if (!rc)
		rc = birth(view);
	if (rc)
		goto withdraw;
	mrs_fetch_add32(&morsel->views, 1);
	mrs_fetch_add32(&backend->views, 1);
	MRS_TRACE(map, view->target.morsel_id, (uintptr_t)view->target.addr, view->target.offset,
		  view->target.bytes);
	rc = populate(view);
	if (rc)
		morsel_view_destroy(view);
	else
		*out = view;
	return rc;

withdraw:
	unlist(view);
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
	if (!view->target.forked && view->backend->ops.settle)
		view->backend->ops.settle(&view->target);
	if (view->grants && !view->target.forked)
		mrs_log(MRS_LOG_WARN,
			"a %s view is destroyed while %llu grants of it are held: release them "
			"before",
			view->backend->ops.name, (unsigned long long)view->grants);
	destroy_target(view);
	MRS_PROBE("view.destroy.unmapped");
	if (!view->target.forked) {
		mrs_view_watch_stop(view);
		unlist(view);
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
