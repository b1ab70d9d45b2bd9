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
	*slot = (struct mrs_grant_slot){++view->serial, first, end};
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

/* Has the backend translate what has no translation in the range. */
static int restore(struct morsel_view *view, struct mrs_range range)
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
			mrs_ranges_remove(&view->missing, gap.first, gap.end);
		free(list.run);
		range.first = gap.end;
	}
	return rc;
}

/* The range is translated; now it is brought up to date, and the backend adds what is its own. */
static int complete(struct morsel_view *view, struct morsel_grant *grant)
{
	const struct morsel_backend_ops *ops = &view->backend->ops;
	int rc = 0;

	if (!(view->caps & MORSEL_CAP_COHERENT))
		rc = ops->to_target(&view->target, grant->offset, grant->bytes);
	if (!rc && ops->acquire)
		rc = ops->acquire(&view->target, grant);
	return rc;
}

int morsel_acquire(struct morsel_view *view, uint64_t offset, uint64_t bytes, int access,
		   struct morsel_grant *out)
{
	struct morsel_grant grant = {
		.view = view, .offset = offset, .bytes = bytes, .access = (uint32_t)access};
	uint64_t first, end, index;
	int rc = check_acquire(view, offset, bytes, access);

	if (rc)
		return rc;
	first = offset / MRS_PAGE_BYTES;
	end = (offset + bytes - 1) / MRS_PAGE_BYTES + 1;
	rc = mrs_morsel_fill(view->morsel, view->target.offset / MRS_PAGE_BYTES + first,
			     end - first);
	if (rc)
		return rc;
	pthread_mutex_lock(&view->lock);
	rc = slot_take(view, first, end, &index);
	if (rc)
		goto unlock;
	MRS_PROBE("view.acquire.slot");
	if (view->target.addr)
		grant.addr = (char *)view->target.addr + offset;
	grant.private_[0] = index;
	grant.private_[1] = view->slots[index].serial;
	rc = restore(view, in_blocks(view, first, end));
	if (!rc)
		rc = complete(view, &grant);
	if (rc)
		slot_give(view, index);
	else
		*out = grant;
unlock:
	pthread_mutex_unlock(&view->lock);
	return rc;
}

/* ---- release ---- */

static void release_slot(struct morsel_view *view, struct morsel_grant *grant)
{
	const struct morsel_backend_ops *ops = &view->backend->ops;
	uint64_t index = grant->private_[0];
	int rc = 0;

	if (index >= view->slots_room || !grant->private_[1] ||
	    view->slots[index].serial != grant->private_[1])
		return;
	if (!(view->caps & MORSEL_CAP_COHERENT) && grant->access & MORSEL_WRITE)
		rc = ops->from_target(&view->target, grant->offset, grant->bytes);
	if (rc)
		mrs_log(MRS_LOG_ERROR, "what a %s view wrote at offset %llu did not come back: %s",
			ops->name, (unsigned long long)grant->offset, strerror(-rc));
	if (ops->release)
		ops->release(&view->target, grant);
	slot_give(view, index);
}

void morsel_release(struct morsel_grant *grant)
{
	struct morsel_view *view = grant ? grant->view : NULL;

	if (!view)
		return;
	if (view->forks == mrs_view_forks()) {
		pthread_mutex_lock(&view->lock);
		release_slot(view, grant);
		pthread_mutex_unlock(&view->lock);
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
	}
	MRS_PROBE("view.invalidate.end");
	pthread_mutex_unlock(&view->lock);
	return rc;
}
