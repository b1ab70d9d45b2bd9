/*
 * Grants, and the opposite, invalidation: a range that is granted keeps its translation; a range
 * that is not may lose it, and gets it back at the next grant.
 *
 * A grant is a slot with a serial number; the caller's struct names both, so that releasing it
 * twice, or a copy of it, finds another serial and does nothing. While a slot is taken nothing that
 * it overlaps is invalidated. See morsel/morsel.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/probe.h"
#include "base/trace.h"
#include "object/share.h"
#include "view/internal.h"

/* ---- slots ---- */

static int slots_grow(struct morsel_view *view)
{
	size_t room = mrs_max(2 * view->slots_room, 16u);
	struct mrs_grant_slot *slots = realloc(view->slots, room * sizeof(*slots));

	if (!slots)
		return mrs_fail(-ENOMEM, "no memory for %zu grants", room);
	for (size_t i = room; i-- > view->slots_room;) {
		slots[i] = (struct mrs_grant_slot){.end = view->slots_free};
		view->slots_free = i + 1;
	}
	view->slots = slots;
	view->slots_room = room;
	return 0;
}

static int slot_take(struct morsel_view *view, uint64_t first, uint64_t end, uint64_t *index)
{
	struct mrs_grant_slot *slot;
	int rc = view->slots_free ? 0 : slots_grow(view);

	if (rc)
		return rc;
	*index = view->slots_free - 1;
	slot = &view->slots[*index];
	view->slots_free = slot->end;
	view->grants++;
	*slot = (struct mrs_grant_slot){++view->serial, first, end, NULL};
	return 0;
}

static void slot_give(struct morsel_view *view, uint64_t index)
{
	view->slots[index] = (struct mrs_grant_slot){.end = view->slots_free};
	view->slots_free = index + 1;
	view->grants--;
}

bool mrs_view_is_granted(const struct morsel_view *view, uint64_t first, uint64_t end,
			 struct mrs_range *grant)
{
	for (size_t i = 0; view->grants && i < view->slots_room; i++) {
		const struct mrs_grant_slot *slot = &view->slots[i];

		if (slot->serial && slot->first < end && first < slot->end) {
			*grant = (struct mrs_range){slot->first, slot->end};
			return true;
		}
	}
	return false;
}

/* ---- acquire ---- */

static int check_acquire(const struct morsel_view *view, uint64_t offset, uint64_t bytes,
			 int access)
{
	if (!bytes || offset > view->bytes || bytes > view->bytes - offset)
		return mrs_fail(-ERANGE,
				"a grant of %llu bytes from offset %llu is not inside the view's "
				"%llu bytes",
				(unsigned long long)bytes, (unsigned long long)offset,
				(unsigned long long)view->bytes);
	if (!access || access & ~(MORSEL_READ | MORSEL_WRITE))
		return mrs_fail(-EINVAL, "access is MORSEL_READ, MORSEL_WRITE or both, not 0x%x",
				access);
	if (access & MORSEL_WRITE && !(view->target.access & MORSEL_WRITE))
		return mrs_fail(-EACCES, "the view is for reading only: map with access "
					 "MORSEL_WRITE to get grants for writing");
	return mrs_view_check_fork(view);
}

/* Widens a range of pages to the blocks in which the pool can be mapped, inside the view. */
static struct mrs_range in_blocks(const struct morsel_view *view, uint64_t first, uint64_t end)
{
	uint64_t block = view->target.block_bytes / MRS_PAGE_BYTES;
	uint64_t base = view->target.offset / MRS_PAGE_BYTES;
	uint64_t start = mrs_round_down(base + first, block);

	return (struct mrs_range){
		.first = mrs_max(start, base) - base,
		.end = mrs_min(mrs_round_up(base + end, block) - base,
			       view->target.bytes / MRS_PAGE_BYTES),
	};
}

int mrs_view_restore(struct morsel_view *view, struct mrs_range range)
{
	struct mrs_range gap;
	int rc = 0;

	while (!rc && mrs_ranges_find(&view->missing, range.first, range.end, &gap)) {
		struct mrs_run_list list = {0};

		rc = mrs_ranges_reserve(&view->missing);
		if (!rc)
			rc = mrs_view_runs(view->morsel, &view->target, gap.first, gap.end, &list,
					   NULL);
		if (!rc)
			rc = view->backend->ops.map(&view->target, list.run, list.count);
		if (!rc)
			rc = mrs_view_watch_restored(view, &list);
		if (!rc)
			mrs_ranges_remove(&view->missing, gap.first, gap.end);
		free(list.run);
		range.first = gap.end;
	}
	/* For a letter, which can do without if this fails: told.c. */
	mrs_ranges_reserve(&view->missing);
	return rc;
}

/* What a grant is made for: pages [first, end) of the view. */
struct want {
	struct morsel_view *view;
	uint64_t first, end;
	bool write;
	struct mrs_pin *pin;
	uint64_t index; /* of its slot */
};

/*
 * Takes a slot and has the range translated. -ERANGE without words if the morsel ends before: it is
 * being cut, or has been. The view's lock serialises this with the service thread's look at the
 * grants, so that of the two one sees the other: told.c.
 */
static int translate(struct want *want)
{
	struct morsel_view *view = want->view;
	uint64_t base = view->target.offset / MRS_PAGE_BYTES;
	int rc;

	pthread_mutex_lock(&view->lock);
	rc = base + want->end > mrs_morsel_pages(view->morsel)
		     ? -ERANGE
		     : slot_take(view, want->first, want->end, &want->index);
	if (rc)
		goto unlock;
	MRS_PROBE("view.acquire.slot");
	view->slots[want->index].pin = want->pin;
	rc = mrs_view_restore(view, in_blocks(view, want->first, want->end));
	if (rc)
		slot_give(view, want->index);
unlock:
	pthread_mutex_unlock(&view->lock);
	return rc;
}

/* The range is translated and resident; it is brought up to date, and the backend adds its own. */
static int complete(struct want *want, struct morsel_grant *grant)
{
	struct morsel_view *view = want->view;
	const struct morsel_backend_ops *ops = &view->backend->ops;
	int rc = 0;

	pthread_mutex_lock(&view->lock);
	if (view->target.addr)
		grant->addr = (char *)view->target.addr + grant->offset;
	grant->private_[0] = want->index;
	grant->private_[1] = view->slots[want->index].serial;
	if (!(view->caps & MORSEL_CAP_COHERENT))
		rc = ops->to_target(&view->target, grant->offset, grant->bytes);
	if (!rc && ops->acquire)
		rc = ops->acquire(&view->target, grant);
	if (rc)
		slot_give(view, want->index);
	pthread_mutex_unlock(&view->lock);
	return rc;
}

static void give_back(struct want *want)
{
	pthread_mutex_lock(&want->view->lock);
	slot_give(want->view, want->index);
	pthread_mutex_unlock(&want->view->lock);
}

/*
 * A target that is told by mail gets its translation when the pages are resident; a CPU view,
 * through which they are made so, before.
 */
static int grant_pinned(struct want *want, struct morsel_grant *grant)
{
	struct morsel_view *view = want->view;
	int rc = 0;

	if (view->by_mail)
		rc = mrs_view_make_resident(view, want->first, want->end, want->write);
	if (!rc)
		rc = translate(want);
	if (rc)
		return rc;
	if (view->watched)
		rc = mrs_view_make_resident(view, want->first, want->end, want->write);
	if (rc)
		give_back(want);
	return rc ? rc : complete(want, grant);
}

static int grant_once(struct want *want, struct morsel_grant *grant)
{
	struct morsel_view *view = want->view;
	uint64_t base = view->target.offset / MRS_PAGE_BYTES;
	int rc = -ERANGE;

	if (base + want->end <= mrs_morsel_pages(view->morsel))
		rc = mrs_morsel_fill(view->morsel, base + want->first, want->end - want->first);
	/* Before it is pinned: a page that is pinned stays where it is, and the relatives move. */
	if (!rc && want->write && view->watched)
		rc = mrs_share_break(view->morsel, base + want->first, want->end - want->first);
	if (!rc)
		rc = mrs_view_pin(view, want->first, want->end, &want->pin);
	if (rc)
		return rc;
	rc = grant_pinned(want, grant);
	if (rc)
		mrs_registry_unpin(view->morsel->pool, view->listed, want->pin);
	return rc;
}

int morsel_acquire(struct morsel_view *view, uint64_t offset, uint64_t bytes, int access,
		   struct morsel_grant *out)
{
	struct morsel_grant grant = {
		.view = view, .offset = offset, .bytes = bytes, .access = (uint32_t)access};
	struct want want = {.view = view, .write = access & MORSEL_WRITE};
	int rc = check_acquire(view, offset, bytes, access);

	if (rc)
		return rc;
	want.first = offset / MRS_PAGE_BYTES;
	want.end = (offset + bytes - 1) / MRS_PAGE_BYTES + 1;
	do {
		rc = grant_once(&want, &grant);
		/* Being cut: the cut is undone, or it is final. */
	} while (rc == -ERANGE &&
		 !mrs_morsel_view_fits(view->morsel,
				       view->target.offset / MRS_PAGE_BYTES + want.end));
	if (rc == -ERANGE)
		return mrs_fail(
			rc,
			"the morsel has been shrunk to %llu bytes since the view was made: a "
			"grant of %llu bytes from offset %llu of the view is beyond its end",
			(unsigned long long)mrs_morsel_bytes(view->morsel),
			(unsigned long long)bytes, (unsigned long long)offset);
	if (!rc)
		*out = grant;
	return rc;
}

/* ---- release ---- */

/* The pin, which goes when the view's lock has been left. */
static struct mrs_pin *release_slot(struct morsel_view *view, struct morsel_grant *grant)
{
	const struct morsel_backend_ops *ops = &view->backend->ops;
	uint64_t index = grant->private_[0];
	struct mrs_pin *pin;
	int rc = 0;

	if (index >= view->slots_room || !grant->private_[1] ||
	    view->slots[index].serial != grant->private_[1])
		return NULL;
	if (!(view->caps & MORSEL_CAP_COHERENT) && grant->access & MORSEL_WRITE)
		rc = ops->from_target(&view->target, grant->offset, grant->bytes);
	if (rc)
		mrs_log(MRS_LOG_ERROR, "what a %s view wrote at offset %llu did not come back: %s",
			ops->name, (unsigned long long)grant->offset, strerror(-rc));
	if (ops->release)
		ops->release(&view->target, grant);
	pin = view->slots[index].pin;
	slot_give(view, index);
	return pin;
}

void morsel_release(struct morsel_grant *grant)
{
	struct morsel_view *view = grant ? grant->view : NULL;
	struct mrs_pin *pin;

	if (!view)
		return;
	if (view->forks == mrs_view_forks()) {
		pthread_mutex_lock(&view->lock);
		pin = release_slot(view, grant);
		pthread_mutex_unlock(&view->lock);
		mrs_registry_unpin(view->morsel->pool, view->listed, pin);
	}
	memset(grant, 0, sizeof(*grant));
}

/* ---- invalidate ---- */

static int check_pages(const struct morsel_view *view, uint64_t offset, uint64_t bytes)
{
	if (!bytes || (offset | bytes) & (MRS_PAGE_BYTES - 1) || offset > view->target.bytes ||
	    bytes > view->target.bytes - offset)
		return mrs_fail(-ERANGE,
				"%llu bytes from offset %llu are not whole pages inside the view's "
				"%llu bytes",
				(unsigned long long)bytes, (unsigned long long)offset,
				(unsigned long long)view->target.bytes);
	return mrs_view_check_fork(view);
}

int morsel_view_invalidate(struct morsel_view *view, uint64_t offset, uint64_t bytes)
{
	uint64_t first = offset / MRS_PAGE_BYTES, end = first + bytes / MRS_PAGE_BYTES;
	struct mrs_range held;
	int rc = check_pages(view, offset, bytes);

	if (rc)
		return rc;
	pthread_mutex_lock(&view->lock);
	if (mrs_view_is_granted(view, first, end, &held))
		rc = mrs_fail(-EBUSY, "bytes %llu to %llu of the view are granted: release first",
			      (unsigned long long)(held.first * MRS_PAGE_BYTES),
			      (unsigned long long)(held.end * MRS_PAGE_BYTES - 1));
	if (!rc)
		rc = mrs_ranges_reserve(&view->missing);
	MRS_PROBE("view.invalidate.begin");
	if (!rc)
		rc = view->backend->ops.invalidate(&view->target, offset, bytes);
	if (!rc) {
		mrs_ranges_add(&view->missing, first, end);
		view->target.generation++;
		/* For a letter, which can do without if this fails: told.c. */
		mrs_ranges_reserve(&view->missing);
	}
	MRS_PROBE("view.invalidate.end");
	MRS_TRACE(invalidate, view->target.morsel_id, offset, bytes);
	pthread_mutex_unlock(&view->lock);
	return rc;
}
