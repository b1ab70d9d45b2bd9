/*
 * What this process's views do when their process is told by mail.
 *
 * Runs in the service thread, which waits for nobody but a view's own lock; whoever holds that lock
 * waits for no mail, no leaf and no pager. Nothing is allocated: the list of missing pages has room
 * for one more change kept ready, and where it has not, the whole view forgets instead of a part.
 *
 * A letter may be late: its asker has given up, and what it says does not hold any more.
 * Forgetting, dropping and mapping anew are right at any time; cutting is judged by the record's
 * size, before and after.
 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/probe.h"
#include "view/follow.h"
#include "view/internal.h"
#include "view/registry.h"
#include "view/service.h"

struct told {
	struct morsel_pool *pool;
	const struct mrs_pager_job *letter;
	int pagemap;
	uint32_t *answer;
	int rc; /* the first error */
};

/* The part of the view that the letter means, in pages of the view; empty if first >= end. */
static struct mrs_range meant(const struct morsel_view *view, const struct mrs_pager_job *letter)
{
	uint64_t base = view->target.offset / MRS_PAGE_BYTES;
	uint64_t end = letter->first + mrs_min(letter->count, UINT64_MAX - letter->first);
	uint64_t first = mrs_max(letter->first, base) - base;

	end = mrs_max(end, base) - base;
	return (struct mrs_range){
		.first = first,
		.end = mrs_min(end, view->target.bytes / MRS_PAGE_BYTES),
	};
}

/* ---- forgetting ---- */

/* Has the target forget pages that nobody has granted, or the whole view. The view's lock is held.
 */
static int forget_piece(struct morsel_view *view, struct mrs_range range)
{
	struct mrs_range held;
	int rc;

	if (!mrs_ranges_has_room(&view->missing)) {
		range = (struct mrs_range){0, view->target.bytes / MRS_PAGE_BYTES};
		if (mrs_view_is_granted(view, range.first, range.end, &held))
			return -ENOMEM;
	}
	rc = view->backend->ops.invalidate(&view->target, range.first * MRS_PAGE_BYTES,
					   (range.end - range.first) * MRS_PAGE_BYTES);
	if (rc)
		return rc;
	mrs_ranges_add(&view->missing, range.first, range.end);
	view->target.generation++;
	MRS_PROBE("view.told.forgotten");
	return 0;
}

static int forget(struct morsel_view *view, struct mrs_range range)
{
	uint64_t block = view->target.block_bytes / MRS_PAGE_BYTES;
	struct mrs_range held;

	range.first = mrs_round_down(range.first, block);
	if (mrs_view_is_granted(view, range.first, range.end, &held))
		return -EBUSY;
	return forget_piece(view, range);
}

/* The first grant in the range, in the order of pages; an empty one at its end if there is none. */
static struct mrs_range next_grant(const struct morsel_view *view, struct mrs_range range)
{
	struct mrs_range next = {range.end, range.end}, held;

	while (range.first < next.first &&
	       mrs_view_is_granted(view, range.first, next.first, &held))
		next = (struct mrs_range){mrs_max(held.first, range.first), held.end};
	return next;
}

/*
 * What is granted is pinned, and who pins and who retargets have seen each other (registry.h): it
 * is not among the pages that the asker has locked, though his letter's range may reach over it.
 */
static int forget_around_grants(struct morsel_view *view, struct mrs_range range)
{
	int rc = 0;

	while (!rc && range.first < range.end) {
		struct mrs_range grant = next_grant(view, range);

		if (range.first < grant.first)
			rc = forget_piece(view, (struct mrs_range){range.first, grant.first});
		range.first = grant.end;
	}
	return rc;
}

static int told_invalidate(struct told *told, struct morsel_view *view)
{
	struct mrs_range range = meant(view, told->letter), held;

	if (!view->by_mail)
		return 0;
	if (told->letter->arg && mrs_view_is_granted(view, range.first, range.end, &held))
		return -EBUSY;
	return forget_around_grants(view, range);
}

/* What of the view lies beyond the morsel's end, if the letter still holds. */
static struct mrs_range beyond(struct told *told, struct morsel_view *view)
{
	uint64_t block = view->target.block_bytes / MRS_PAGE_BYTES;
	uint64_t base = view->target.offset / MRS_PAGE_BYTES;
	uint64_t end = mrs_round_up(mrs_morsel_pages(view->morsel), block);
	struct mrs_range range = meant(view, told->letter);

	range.first = mrs_max(range.first, mrs_max(end, base) - base);
	return range;
}

static int restore_run(void *ctx, const struct mrs_run *run)
{
	struct morsel_view *view = ctx;
	struct morsel_run to = {
		.offset = run->page * MRS_PAGE_BYTES - view->target.offset,
		.bytes = run->pages * MRS_PAGE_BYTES,
		.frame = run->frame,
		.order = run->order,
		.resident = 1,
	};
	struct mrs_run_list list = {.run = &to, .count = 1};
	uint64_t first = to.offset / MRS_PAGE_BYTES;
	int rc;

	if (!run->mapped)
		return 0;
	rc = view->backend->ops.map(&view->target, &to, 1);
	if (!rc)
		rc = mrs_view_watch_restored(view, &list);
	if (!rc && mrs_ranges_has_room(&view->missing))
		mrs_ranges_remove(&view->missing, first, first + run->pages);
	return rc;
}

/* A cut that was undone: what may be used without a grant gets its translations back, run by run.
 */
static int restore(struct morsel_view *view, struct mrs_range range)
{
	uint64_t base = view->target.offset / MRS_PAGE_BYTES;
	struct mrs_pin *pin = NULL;
	struct mrs_range gap;
	int rc = 0;

	if (view->by_mail || !(view->caps & MORSEL_CAP_FREE_USE))
		return 0;
	if (view->watched)
		rc = mrs_registry_try_pin(view->morsel->pool, view->listed, base + range.first,
					  base + range.end, &pin);
	while (!rc && mrs_ranges_find(&view->missing, range.first, range.end, &gap)) {
		rc = mrs_morsel_each_run(view->morsel, base + gap.first, gap.end - gap.first,
					 restore_run, view);
		range.first = gap.end;
	}
	mrs_registry_unpin(view->morsel->pool, view->listed, pin);
	MRS_PROBE("view.told.restored");
	return rc;
}

/* What of the letter's range lies inside the morsel. */
static int uncut(struct told *told, struct morsel_view *view)
{
	struct mrs_range range = meant(view, told->letter);

	range.end = mrs_min(range.end, beyond(told, view).first);
	return range.first < range.end ? restore(view, range) : 0;
}

static int told_cut(struct told *told, struct morsel_view *view)
{
	struct mrs_range range = beyond(told, view), held;
	int rc;

	if (told->letter->arg == 2)
		return uncut(told, view);
	if (range.first >= range.end)
		return 0;
	if (!told->letter->arg)
		return mrs_view_is_granted(view, range.first, range.end, &held) ? -EBUSY : 0;
	rc = forget(view, range);
	mrs_full_fence(); /* pairs with the undoing of a cut: of the size and the letter, one is
			     seen */
	return rc ? rc : uncut(told, view);
}

/* ---- following ---- */

static int follow_run(void *ctx, const struct mrs_run *run)
{
	bool begun;

	return run->mapped ? mrs_view_follow(ctx, run->page, run->pages, run->frame, &begun) : 0;
}

static int told_remap(struct told *told, struct morsel_view *view, struct mrs_range range)
{
	uint64_t base = view->target.offset / MRS_PAGE_BYTES;
	struct mrs_pin *pin;
	int rc = -EAGAIN;

	if (!mrs_view_is_cpu(view) || !view->watched)
		return 0;
	if (!told->letter->arg)
		return mrs_view_catch_up(view);
	/*
	 * The asker holds the leaves while he waits. If he gives up between our look and our
	 * mapping, who locks one of them then sees the pin, and leaves it.
	 */
	pin = mrs_registry_pin_told(told->pool, view->listed, base + range.first, base + range.end);
	if (mrs_mail_is_awaited(told->pool, told->letter->word))
		rc = mrs_morsel_each_run(view->morsel, base + range.first, range.end - range.first,
					 follow_run, view);
	mrs_registry_unpin(told->pool, view->listed, pin);
	if (!rc)
		mrs_view_followed(view, told->letter->arg);
	return rc;
}

/* ---- soft removal ---- */

static int told_drop(struct told *told, struct morsel_view *view)
{
	struct mrs_range range = meant(view, told->letter);
	char *at = view->target.addr;

	/*
	 * Of a file's page the kernel keeps the write protection's mark where the translation was
	 * (since 5.19, which had the protection of shared memory first): the next write faults as
	 * before. Only a new mapping is without marks.
	 */
	if (!mrs_view_is_cpu(view))
		return 0;
	if (madvise(at + range.first * MRS_PAGE_BYTES, (range.end - range.first) * MRS_PAGE_BYTES,
		    MADV_DONTNEED))
		return -errno;
	return 0;
}

#define PAGEMAP_PRESENT (1ull << 63)
#define PAGEMAP_PIECE	512u

/* The bits of SCAN for one piece of the view. */
static int scan_piece(struct told *told, struct morsel_view *view, uint64_t first, uint64_t pages)
{
	uint64_t base = view->target.offset / MRS_PAGE_BYTES, word[PAGEMAP_PIECE];
	uint64_t group = mrs_mail_group(told->letter->count);
	uint64_t at = (uintptr_t)view->target.addr / MRS_PAGE_BYTES + first;
	ssize_t got =
		pread(told->pagemap, word, pages * sizeof(word[0]), (off_t)(at * sizeof(word[0])));

	if (got < 0)
		return -errno;
	for (uint64_t i = 0; i < (uint64_t)got / sizeof(word[0]); i++)
		if (word[i] & PAGEMAP_PRESENT)
			*told->answer |= 1u << (base + first + i - told->letter->first) / group;
	return 0;
}

static int told_scan(struct told *told, struct morsel_view *view)
{
	struct mrs_range range = meant(view, told->letter);
	int rc = 0;

	if (!mrs_view_is_cpu(view) || told->pagemap < 0)
		return 0;
	while (!rc && range.first < range.end) {
		uint64_t pages = mrs_min(range.end - range.first, PAGEMAP_PIECE);

		rc = scan_piece(told, view, range.first, pages);
		range.first += pages;
	}
	return rc;
}

/* ---- dispatch ---- */

static int tell(struct told *told, struct morsel_view *view)
{
	struct mrs_range range = meant(view, told->letter);

	if (range.first >= range.end)
		return 0;
	switch (told->letter->op) {
	case MRS_REQUEST_INVALIDATE:
		return told_invalidate(told, view);
	case MRS_REQUEST_CUT:
		return told_cut(told, view);
	case MRS_REQUEST_REMAP:
		return told_remap(told, view, range);
	case MRS_REQUEST_DROP:
		return told_drop(told, view);
	case MRS_REQUEST_SCAN:
		return told_scan(told, view);
	default:
		return -EINVAL;
	}
}

static int tell_one(void *ctx, const struct mrs_register *listed)
{
	struct told *told = ctx;
	struct morsel_view *view = listed->owner;
	int rc = 0;

	pthread_mutex_lock(&view->lock);
	if (!view->ending)
		rc = tell(told, view);
	pthread_mutex_unlock(&view->lock);
	if (!told->rc)
		told->rc = rc;
	return 0;
}

int mrs_view_told(struct morsel_pool *pool, const struct mrs_pager_job *letter, int pagemap,
		  uint32_t *answer)
{
	struct told told = {.pool = pool, .letter = letter, .pagemap = pagemap, .answer = answer};

	if (!letter->record)
		return -EINVAL;
	mrs_registry_each_own(pool, letter->record, tell_one, &told);
	MRS_PROBE("view.told.done");
	return told.rc;
}
