/*
 * Following pages that came to other frames.
 *
 * The old frame was punched when the page moved, so a stale mapping shows nothing: a touch of it is
 * a fault, and the fault maps the page's frame. This is the other way, by which frames leave
 * quarantine although nobody touches them. It runs in the service thread and so neither waits nor
 * asks: what is under way or not resident is left to its fault.
 *
 *  1 The pages are pinned, and no retarget or clone is under way: nothing moves or goes away
 * meanwhile. 2 All of a run is resident: between mmap() and registration no touch can find a hole.
 *  3 Writes in between are not told of: so nothing of the morsel counts as clean any more, from
 * before on; and what has other owners is left alone in a view that may write.
 */
#include <errno.h>

#include "base/probe.h"
#include "view/cpu.h"
#include "view/internal.h"
#include "view/pager.h"

struct remap {
	struct morsel_view *view;
	bool writable;
	bool left; /* something stale may be left */
};

static int remap_run(void *ctx, const struct mrs_run *run)
{
	struct remap *remap = ctx;
	struct morsel_view *view = remap->view;
	struct morsel_target *target = &view->target;
	struct morsel_run to = {
		.offset = run->page * MRS_PAGE_BYTES - target->offset,
		.bytes = run->pages * MRS_PAGE_BYTES,
		.frame = run->frame,
		.order = run->order,
		.resident = 1,
	};
	int rc;

	if (!run->mapped)
		return 0;
	/* Nobody touches a view that is being born, and it is protected before anybody does. */
	if (!view->newborn &&
	    (run->evicted ||
	     (remap->writable && mrs_view_is_shared(view->morsel, run->page, run->pages)))) {
		remap->left = true;
		return 0;
	}
	rc = mrs_cpu_remap(target, &to, 1);
	MRS_PROBE("view.remap.mapped");
	return rc ? rc
		  : mrs_uffd_register(view->morsel->pool, (char *)target->addr + to.offset,
				      to.bytes);
}

/* Pages [first, end) of the view, but for what has no translation: that comes with its grant. */
static int remap_mapped(struct remap *remap, uint64_t first, uint64_t end)
{
	uint64_t base = remap->view->target.offset / MRS_PAGE_BYTES;
	int rc = 0;

	while (!rc && first < end) {
		struct mrs_range gap = {end, end};

		mrs_ranges_find(&remap->view->missing, first, end, &gap);
		if (first < gap.first)
			rc = mrs_morsel_each_run(remap->view->morsel, base + first,
						 gap.first - first, remap_run, remap);
		first = gap.end;
	}
	return rc;
}

int mrs_view_remap(struct morsel_view *view, uint64_t first, uint64_t end)
{
	struct morsel_pool *pool = view->morsel->pool;
	uint64_t base = view->target.offset / MRS_PAGE_BYTES;
	struct remap remap = {.view = view, .writable = view->target.access & MORSEL_WRITE};
	struct mrs_pin *pin;
	int rc;

	if (!view->watched || view->backend != &mrs_backend_stitched)
		return 0;
	rc = mrs_registry_try_pin(pool, view->listed, base + first, base + end, &pin);
	if (rc)
		return rc;
	if (remap.writable)
		mrs_registry_written(pool, view->morsel->cell);
	rc = remap_mapped(&remap, first, end);
	mrs_registry_unpin(pool, view->listed, pin);
	MRS_PROBE("view.remap.done");
	return rc ? rc : remap.left ? -EAGAIN : 0;
}
