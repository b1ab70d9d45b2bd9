/*
 * Views whose pages come and go under them: of morsels that are evictable, or have relatives.
 *
 * A CPU view is *watched*: registered with userfaultfd, so that a touch of a page that is not
 * resident waits for its content, and the pager can stop its writers. Another target's view is told
 * *by mail*, before the pages go; it has translations only of what has been acquired, and those
 * were made while the pages were pinned. Pages are made resident through a CPU view, which a
 * by-mail view has beside it: its window.
 *
 * Between mmap() and the registration of a piece a touch would not be told of, and would put a page
 * of zeros where content belongs. So a piece that comes back after an invalidation is mapped
 * without access, registered, and then opened: a touch meanwhile is what it was before, SIGSEGV. A
 * piece that follows a move cannot be closed, for it is in use: it is pinned and resident
 * meanwhile, and counts as written.
 */
#include <errno.h>
#include <sys/mman.h>

#include "base/probe.h"
#include "object/evict.h"
#include "object/share.h"
#include "view/cpu.h"
#include "view/internal.h"
#include "view/pager.h"
#include "view/regions.h"
#include "view/uffd.h"

bool mrs_view_is_cpu(const struct morsel_view *view)
{
	return view->backend == &mrs_backend_pooled || view->backend == &mrs_backend_stitched;
}

int mrs_view_watch_init(struct morsel_view *view)
{
	struct morsel *morsel = view->morsel;
	int rc = 0;

	if (mrs_morsel_is_evictable(morsel))
		rc = mrs_morsel_make_coherent(morsel);
	if (rc || !mrs_morsel_coherence(morsel))
		return rc;
	rc = mrs_uffd_kind_check(morsel->pool);
	if (rc)
		return rc;
	view->watched = mrs_view_is_cpu(view);
	view->by_mail = !view->watched;
	view->target.revocable = true;
	return 0;
}

uint64_t mrs_view_flags(const struct morsel_view *view)
{
	uint64_t flags = view->watched ? MRS_VIEW_CPU : view->by_mail ? MRS_VIEW_BY_MAIL : 0;

	if (flags && view->target.access & MORSEL_WRITE)
		flags |= MRS_VIEW_WRITABLE;
	if (flags && view->backend == &mrs_backend_pooled)
		flags |= MRS_VIEW_POOLED;
	return flags;
}

/* ---- pages with other owners ---- */

bool mrs_view_is_shared(struct morsel *morsel, uint64_t page, uint64_t pages)
{
	uint64_t end = page + pages;
	struct mrs_leaf leaf;

	if (!mrs_share_is_any(morsel->pool) || !mrs_morsel_coherence(morsel))
		return false;
	while (page < end) {
		if (mrs_table_leaf(&morsel->table, page, &leaf))
			return false; /* damaged: who maps it is told */
		if (leaf.shared)
			return true;
		if (!leaf.place)
			return false; /* one run without a table */
		page = leaf.page + (1ull << leaf.level * MRS_HUGE_ORDER);
	}
	return false;
}

int mrs_view_check_shared(struct morsel *morsel, uint64_t page, uint64_t pages)
{
	if (!mrs_view_is_shared(morsel, page, pages))
		return 0;
	return mrs_fail(
		-EOPNOTSUPP,
		"a pooled view needs frames of its own, and some of the range are shared with "
		"a clone: use a stitched view");
}

/* ---- watching ---- */

/* Calls fn for each stretch of the view that the runs cover without a gap. */
static int each_stretch(struct morsel_view *view, const struct mrs_run_list *list,
			int (*fn)(struct morsel_view *view, char *at, uint64_t bytes))
{
	int rc = 0;

	for (size_t i = 0, next; i < list->count && !rc; i = next) {
		uint64_t first = list->run[i].offset, end = first + list->run[i].bytes;

		for (next = i + 1; next < list->count && list->run[next].offset == end; next++)
			end += list->run[next].bytes;
		rc = fn(view, (char *)view->target.addr + first, end - first);
	}
	return rc;
}

static int watch_stretch(struct morsel_view *view, char *at, uint64_t bytes)
{
	return mrs_uffd_register(view->morsel->pool, at, bytes);
}

static int protect_stretch(struct morsel_view *view, char *at, uint64_t bytes)
{
	int rc = mrs_uffd_protect(mrs_uffd_fd(view->morsel->pool), (uintptr_t)at, bytes, true);

	return rc ? mrs_fail_errno(rc, "cannot write-protect a view of shared pages") : 0;
}

int mrs_view_watch_protect(struct morsel_view *view, const struct mrs_run_list *list)
{
	uint64_t base = view->target.offset / MRS_PAGE_BYTES;
	int rc = 0;

	if (!view->watched || !(view->target.access & MORSEL_WRITE))
		return 0;
	if (mrs_view_is_shared(view->morsel, base, view->target.bytes / MRS_PAGE_BYTES))
		rc = each_stretch(view, list, protect_stretch);
	MRS_PROBE("view.watch.protected");
	return rc;
}

int mrs_view_watch_start(struct morsel_view *view, const struct mrs_run_list *list)
{
	struct mrs_region region = {
		.address = (uintptr_t)view->target.addr,
		.bytes = view->target.bytes,
		.morsel = view->morsel,
		.pool = view->morsel->pool,
		.first = view->target.offset / MRS_PAGE_BYTES,
		.writable = view->target.access & MORSEL_WRITE,
		.listed = mrs_view_flags(view) & MRS_VIEW_POOLED ? NULL : &view->listed,
	};
	struct mrs_faults *faults;
	int rc;

	if (!view->watched)
		return 0;
	rc = mrs_faults_of(view->morsel->pool, &faults);
	if (!rc)
		rc = mrs_region_add(&region);
	if (rc)
		return rc;
	view->region = region.address;
	((struct mrs_cpu_map *)view->target.state)->closed = true;
	rc = each_stretch(view, list, watch_stretch);
	MRS_PROBE("view.watch.registered");
	return rc;
}

void mrs_view_watch_stop(struct morsel_view *view)
{
	if (view->region)
		mrs_region_remove(view->region);
	view->region = 0;
}

static int open_stretch(struct morsel_view *view, char *at, uint64_t bytes)
{
	if (mprotect(at, bytes, mrs_cpu_prot(&view->target)))
		return errno == ENOMEM ? mrs_cpu_no_areas(2)
				       : mrs_fail_errno(-errno, "mprotect of a view");
	return 0;
}

int mrs_view_watch_restored(struct morsel_view *view, const struct mrs_run_list *list)
{
	int rc;

	if (!view->watched)
		return 0;
	/* What was protected in the mapping before this one is not in this one. */
	if (view->target.access & MORSEL_WRITE)
		mrs_registry_written(view->morsel->pool, view->morsel->cell);
	rc = each_stretch(view, list, watch_stretch);
	if (!rc)
		rc = mrs_view_watch_protect(view, list);
	return rc ? rc : each_stretch(view, list, open_stretch);
}

/* ---- pinning ---- */

static struct mrs_window window_of(const struct morsel_view *view)
{
	return (struct mrs_window){
		.fd = mrs_uffd_fd(view->morsel->pool),
		.address = (uintptr_t)view->target.addr,
		.first = view->target.offset / MRS_PAGE_BYTES,
		.pages = view->target.bytes / MRS_PAGE_BYTES,
		.writable = view->target.access & MORSEL_WRITE,
		.listed = mrs_view_flags(view) & MRS_VIEW_POOLED ? NULL : &view->listed,
	};
}

int mrs_view_pin(struct morsel_view *view, uint64_t first, uint64_t end, struct mrs_pin **pin)
{
	uint64_t base = view->target.offset / MRS_PAGE_BYTES;
	struct morsel_pool *pool = view->morsel->pool;
	int rc;

	*pin = NULL;
	if (!view->watched && !view->by_mail)
		return 0;
	rc = mrs_registry_pin(pool, view->listed, base + first, base + end, pin);
	if (rc)
		return rc;
	rc = mrs_evict_may_pin(view->morsel, base + first, end - first);
	if (rc) {
		mrs_registry_unpin(pool, view->listed, *pin);
		*pin = NULL;
	}
	return rc;
}

/* The window shows what has come since it was opened: lazy pages, a morsel that has grown. */
static int open_window(struct morsel_view *window, uint64_t first, uint64_t end)
{
	int rc;

	pthread_mutex_lock(&window->lock);
	rc = mrs_view_restore(window, (struct mrs_range){first, end});
	pthread_mutex_unlock(&window->lock);
	return rc;
}

/*
 * What another target is granted it has on frames that are the morsel's own, also to read: so of
 * all who share a page at most one has it granted to a target that does not follow, or in a pooled
 * view, for what is shared later is the relatives' that came later. Who writes has only one way
 * then.
 */
static int make_own(struct morsel_view *view, uint64_t first, uint64_t end)
{
	uint64_t page = view->target.offset / MRS_PAGE_BYTES + first;

	return mrs_view_is_shared(view->morsel, page, end - first)
		       ? mrs_share_break(view->morsel, page, end - first)
		       : 0;
}

int mrs_view_make_resident(struct morsel_view *view, uint64_t first, uint64_t end, bool write)
{
	struct mrs_window window = window_of(view->window ? view->window : view);
	int rc = view->by_mail ? make_own(view, first, end) : 0;

	if (!rc && view->window)
		rc = open_window(view->window, first, end);
	MRS_PROBE("view.pin.pinned");
	return rc ? rc
		  : mrs_fill_range(view->morsel, &window,
				   view->target.offset / MRS_PAGE_BYTES + first, end - first,
				   write);
}
