/*
 * Following pages that came to other frames.
 *
 * The old frame was punched when the page moved, so a stale mapping shows nothing: a touch of it is
 * a fault, and the fault maps the page's frame. This is the other way, by which frames leave
 * quarantine although nobody touches them. It runs in the service thread and so neither waits nor
 * asks: what is under way or not resident is left to its fault.
 *
 *  1. The pages are pinned, and no retarget or clone is under way: nothing moves or goes away
 *     meanwhile.
 *
 *  2. All of a run is resident: between mmap() and registration no touch can find a hole.
 *
 *  3. Writes in between are not told of: so nothing of the morsel counts as clean any more, from
 *     before on; and what has other owners is left alone in a view that may write.
 */
#include <errno.h>

#include "base/probe.h"
#include "object/share.h"
#include "view/cpu.h"
#include "view/follow.h"
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

/* ---- a view that has missed letters ---- */

struct catch_up {
	struct morsel_view *view;
	uint64_t followed, moves;
	uint64_t found; /* moves that it has missed, and that were found */
	int rc;		/* the first error */
};

static bool has_missed(const struct catch_up *catch_up, uint64_t move)
{
	uint64_t ahead = move - catch_up->followed - 1;

	return move > catch_up->followed && move <= catch_up->moves &&
	       !(ahead < 64 && catch_up->view->ahead >> ahead & 1);
}

static uint64_t count_missed(const struct catch_up *catch_up)
{
	uint64_t missed = catch_up->moves - catch_up->followed, noted = catch_up->view->ahead;

	if (missed < 64)
		noted &= (1ull << missed) - 1;
	return missed - (uint64_t)__builtin_popcountll(noted);
}

/* The page that has left these frames, if that concerns the view. */
static int catch_up_with(void *ctx, const struct mrs_left *left)
{
	struct catch_up *catch_up = ctx;
	struct morsel_view *view = catch_up->view;
	uint64_t base = view->target.offset / MRS_PAGE_BYTES;
	uint64_t first = mrs_max(left->page, base);
	uint64_t end =
		mrs_min(left->page + left->pages, base + view->target.bytes / MRS_PAGE_BYTES);
	int rc;

	if (left->move && !has_missed(catch_up, left->move))
		return 0;
	rc = first < end ? mrs_view_remap(view, first - base, end - base) : 0;
	catch_up->found += left->move != 0;
	if (!catch_up->rc)
		catch_up->rc = rc;
	return 0;
}

/*
 * What the view may still show of old is in quarantine for its process, from before the move is
 * counted until no view of the process lags; each cell names its move. A break's frame is not
 * there: who makes one waits for every view, and is under way as long as he does. Where a number is
 * missing he has died, and all of the view is mapped anew. The count is read before the rest.
 */
int mrs_view_catch_up(struct morsel_view *view)
{
	struct morsel_pool *pool = view->morsel->pool;
	uint64_t base = view->target.offset / MRS_PAGE_BYTES;
	uint64_t pages = view->target.bytes / MRS_PAGE_BYTES;
	struct catch_up catch_up = {
		.view = view,
		.followed = mrs_registry_followed(view->listed),
		.moves = mrs_load_acquire(&mrs_morsel_coherence(view->morsel)->moves),
	};

	if (view->backend != &mrs_backend_stitched || catch_up.followed >= catch_up.moves)
		return 0;
	if (!mrs_registry_is_settled(pool, view->morsel->cell, base, base + pages))
		return -EAGAIN;
	mrs_quarantine_left(pool, view->morsel->cell, catch_up_with, &catch_up);
	if (!catch_up.rc && catch_up.found < count_missed(&catch_up))
		catch_up.rc = mrs_view_remap(view, 0, pages);
	MRS_PROBE("view.remap.caught_up");
	if (!catch_up.rc)
		mrs_view_followed_all(view, catch_up.moves);
	return catch_up.rc;
}
