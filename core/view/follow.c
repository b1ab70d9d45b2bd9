/*
 * Following a page that became the morsel's own: the writer's own views, or those of a process that
 * is asked by mail, map its new frame while the writer holds its leaf.
 *
 * The frame is private, resident and DIRTY, and its leaf is locked: so a new mapping of it may be
 * written at once, without a mark, and nobody protects or moves it meanwhile. What the view has no
 * translation for stays so: that comes with its grant.
 */
#include "view/follow.h"

#include <errno.h>

#include "base/probe.h"
#include "view/cpu.h"
#include "view/internal.h"
#include "view/pager.h"

struct follow {
	struct morsel *morsel;
	uint64_t page, pages, frame;
	uint64_t move; /* the morsel's count, with this one; 0: not counted yet */
	bool begun;    /* somebody shows the new frames */
};

/* A mapping that fails leaves what was there before. */
static int map_part(struct morsel_view *view, uint64_t first, uint64_t end, uint64_t frame,
		    bool *begun)
{
	struct morsel_run run = {
		.offset = first * MRS_PAGE_BYTES,
		.bytes = (end - first) * MRS_PAGE_BYTES,
		.frame = frame,
		.resident = 1,
	};
	int rc = mrs_cpu_remap(&view->target, &run, 1);

	MRS_PROBE("view.follow.mapped");
	if (rc)
		return rc;
	*begun = true;
	return mrs_uffd_register(view->morsel->pool, (char *)view->target.addr + run.offset,
				 run.bytes);
}

/* Pages [first, end) of the view, but for what it has no translation for. */
static int map_present(struct morsel_view *view, uint64_t first, uint64_t end, uint64_t frame,
		       bool *begun)
{
	int rc = 0;

	while (!rc && first < end) {
		struct mrs_range gap = {end, end};

		mrs_ranges_find(&view->missing, first, end, &gap);
		if (first < gap.first)
			rc = map_part(view, first, gap.first, frame, begun);
		frame += gap.end - first;
		first = gap.end;
	}
	return rc;
}

int mrs_view_follow(struct morsel_view *view, uint64_t page, uint64_t pages, uint64_t frame,
		    bool *begun)
{
	uint64_t base = view->target.offset / MRS_PAGE_BYTES;
	uint64_t first = mrs_max(page, base);
	uint64_t end = mrs_min(page + pages, base + view->target.bytes / MRS_PAGE_BYTES);

	if (first >= end || !view->watched)
		return 0;
	return map_present(view, first - base, end - base, frame + (first - page), begun);
}

/* What is not mapped (a hole, or an invalidated range) nobody writes through this view. */
static int protect_range(int fd, uint64_t address, uint64_t bytes)
{
	uint64_t half = mrs_round_down(bytes / 2, MRS_PAGE_BYTES);
	int rc = mrs_uffd_protect(fd, address, bytes, true);

	if (rc != -ENOENT || !half)
		return rc == -ENOENT ? 0 : rc;
	rc = protect_range(fd, address, half);
	return rc ? rc : protect_range(fd, address + half, bytes - half);
}

int mrs_view_protect_all(struct morsel_pool *pool, const struct mrs_register *view)
{
	struct morsel_view *owner = view->owner;
	int rc;

	pthread_mutex_lock(&owner->lock);
	rc = protect_range(mrs_uffd_fd(pool), view->address, view->pages * MRS_PAGE_BYTES);
	pthread_mutex_unlock(&owner->lock);
	return rc ? mrs_fail_errno(rc, "cannot write-protect a view") : 0;
}

/*
 * Moves of several pages are under way at once, and a view is told of them in any order: it has
 * followed all up to the count in the registry, and of those after it what the bits say. A move
 * that is more than 64 ahead is not noted: the view lags, which costs faults and no more.
 */
void mrs_view_followed(struct morsel_view *view, uint64_t move)
{
	uint64_t all, ahead;

	if (!view->listed)
		return;
	all = mrs_registry_followed(view->listed);
	if (move <= all || move - all > 64)
		return;
	ahead = view->ahead | 1ull << (move - all - 1);
	for (; ahead & 1; ahead >>= 1)
		all++;
	view->ahead = ahead;
	mrs_registry_follow(view->listed, all);
}

void mrs_view_followed_all(struct morsel_view *view, uint64_t moves)
{
	uint64_t step = moves - mrs_registry_followed(view->listed);

	if ((int64_t)step <= 0)
		return;
	view->ahead = step < 64 ? view->ahead >> step : 0;
	for (; view->ahead & 1; view->ahead >>= 1)
		moves++;
	mrs_registry_follow(view->listed, moves);
}

static void count_move(struct follow *follow)
{
	if (!follow->move)
		follow->move = mrs_fetch_add(&mrs_morsel_coherence(follow->morsel)->moves, 1) + 1;
}

/* Under the registry's lock: whoever else moves a page of the morsel in this process comes after.
 */
static int follow_one(void *ctx, const struct mrs_register *listed)
{
	struct follow *follow = ctx;
	struct morsel_view *view = listed->owner;
	int rc = 0;

	pthread_mutex_lock(&view->lock);
	if (!view->ending)
		rc = mrs_view_follow(view, follow->page, follow->pages, follow->frame,
				     &follow->begun);
	if (!rc || follow->begun)
		count_move(follow);
	if (!rc && !view->ending)
		mrs_view_followed(view, follow->move);
	pthread_mutex_unlock(&view->lock);
	return rc;
}

int mrs_view_follow_own(struct morsel *morsel, uint64_t page, uint64_t pages, uint64_t frame,
			uint64_t *move)
{
	struct follow follow = {
		.morsel = morsel, .page = page, .pages = pages, .frame = frame, .move = *move};
	int rc = mrs_registry_each_own(morsel->pool, morsel->cell, follow_one, &follow);

	if (!rc)
		count_move(&follow);
	*move = follow.move;
	return rc;
}
