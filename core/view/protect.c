/*
 * Stopping the writers: the pager write-protects pages in every process, through their descriptors.
 *
 *  1. The caller has locked the leaves, and then reads the registry after a full fence
 *     (registry.h): a view that it does not see waits for the lock before its process may use it.
 *
 *  2. Each writable view that overlaps is protected before this returns, or this fails. The kernel
 *     has flushed every processor's translation when the ioctl returns, also of a process that is
 *     stopped.
 *
 *  3. A view whose process is dead, or whose memory is gone (ESRCH), writes no more. Where a view
 *     has no mapping (ENOENT), nobody writes through it: what is mapped there later is registered
 *     before it is used, and its process waits for locked leaves, as in 1.
 *
 *  4. A view that has not followed a move yet may be mapping new frames this very moment, so its
 *     protection would prove nothing: this fails, and is tried again later.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/atomic.h"
#include "base/base.h"
#include "base/probe.h"
#include "object/object.h"
#include "pool/internal.h"
#include "view/office.h"

/* ---- the views ---- */

static int note_view(void *ctx, const struct mrs_seen_view *view)
{
	struct mrs_view_cache *cache = ctx;

	if (!(view->flags & MRS_VIEW_WRITABLE) || !(view->flags & MRS_VIEW_CPU))
		return 0;
	if (cache->count == cache->room) {
		size_t room = cache->room ? cache->room * 2 : 64;
		struct mrs_seen_view *more = realloc(cache->view, room * sizeof(*more));

		if (!more)
			return mrs_fail(-ENOMEM, "no memory for a list of %zu views", room);
		cache->view = more;
		cache->room = room;
	}
	cache->view[cache->count++] = *view;
	return 0;
}

/* Under the desk's lock, after the caller's fence. */
static int read_views(struct morsel_pool *pool, struct mrs_view_cache *cache, uint64_t family)
{
	/* Read before the views are: a change in between is met the next time. */
	uint64_t now = mrs_load_acquire(&mrs_pool_state(pool)->registry);
	int rc;

	if (cache->family == family && cache->seen == now)
		return 0;
	cache->family = 0;
	cache->count = 0;
	rc = mrs_registry_each(pool, family, 0, UINT64_MAX >> 1, note_view, cache);
	if (rc)
		return rc;
	cache->family = family;
	cache->seen = now;
	return 0;
}

/* ---- one view ---- */

static int missing(struct morsel_pool *pool, const struct mrs_seen_view *view)
{
	struct mrs_slot *slot = mrs_pool_slot(pool, view->slot);

	return mrs_fail(
		-EAGAIN,
		"process %u (%.31s) has a writable view of this morsel and has not handed the "
		"pager its userfaultfd descriptor (yet): try again, or end it",
		slot->pid, slot->program);
}

static int lagging(struct morsel_pool *pool, const struct mrs_seen_view *view)
{
	struct mrs_slot *slot = mrs_pool_slot(pool, view->slot);

	return mrs_fail(-EAGAIN,
			"process %u (%.31s) has not mapped yet what was moved in its view of this "
			"morsel: try again, or continue or end it",
			slot->pid, slot->program);
}

/* How often pages of the record have moved; what is gone has moved never. */
static uint64_t moves_of(struct morsel_pool *pool, uint64_t handle)
{
	struct mrs_cells *cells = mrs_pool_cells(pool);
	const struct mrs_cell_record *record = mrs_cell_at(cells, handle, MRS_CELL_RECORD);
	uint64_t more = record ? mrs_load_acquire(&record->more) : 0;
	const struct mrs_cell_coherence *coherence =
		more ? mrs_cell_at(cells, more, MRS_CELL_COHERENCE) : NULL;

	return coherence ? mrs_load_acquire(&coherence->moves) : 0;
}

static bool is_gone(struct morsel_pool *pool, const struct mrs_seen_view *view)
{
	return mrs_pool_slot_generation(pool, view->slot) != view->generation ||
	       !mrs_pool_slot_is_alive(pool, view->slot);
}

/* The descriptor of the view's process, -1 if it is not here. Under the desk's lock. */
static int descriptor_of(struct mrs_pager *pager, const struct mrs_seen_view *view)
{
	const struct mrs_caller *caller;
	unsigned index;

	if (view->slot == pager->part.pool->slot)
		return mrs_uffd_fd(pager->part.pool);
	index = pager->desk.of_slot[view->slot];
	caller = index ? &pager->desk.caller[index - 1] : NULL;
	return caller && caller->session.generation == view->generation ? caller->uffd : -1;
}

/*
 * Before Linux 6.3 one call does not go beyond one mapping: what it refuses as a whole is halved.
 * What remains without a mapping is step 3.
 */
static int protect_range(int fd, uint64_t address, uint64_t bytes)
{
	uint64_t half = mrs_round_down(bytes / 2, MRS_PAGE_BYTES);
	int rc = mrs_uffd_protect(fd, address, bytes, true);

	if (rc != -ENOENT || !half)
		return rc == -ENOENT ? 0 : rc;
	rc = protect_range(fd, address, half);
	return rc ? rc : protect_range(fd, address + half, bytes - half);
}

static int protect_view(struct mrs_pager *pager, const struct mrs_seen_view *view, uint64_t first,
			uint64_t end)
{
	uint64_t from = mrs_max(first, view->first);
	uint64_t to = mrs_min(end, view->first + view->pages);
	struct morsel_pool *pool = pager->part.pool;
	int fd, rc;

	if (from >= to)
		return 0;
	if (!(view->flags & MRS_VIEW_POOLED) && view->moves != moves_of(pool, view->record))
		return is_gone(pool, view) ? 0 : lagging(pool, view);
	fd = descriptor_of(pager, view);
	if (fd < 0)
		return is_gone(pool, view) ? 0 : missing(pool, view);
	rc = protect_range(fd, view->address + (from - view->first) * MRS_PAGE_BYTES,
			   (to - from) * MRS_PAGE_BYTES);
	MRS_PROBE("view.protect.one");
	if (rc == -ESRCH)
		return 0;
	return rc ? mrs_fail_errno(rc, "cannot write-protect %llu pages of process %u",
				   (unsigned long long)(to - from), view->pid)
		  : 0;
}

/* Under the desk's lock. */
static int protect_views(struct mrs_pager *pager, uint64_t family, uint64_t first, uint64_t end)
{
	struct mrs_view_cache *cache = &pager->desk.cache;
	int rc = read_views(pager->part.pool, cache, family);

	for (size_t i = 0; i < cache->count && !rc; i++)
		rc = protect_view(pager, &cache->view[i], first, end);
	return rc;
}

int mrs_pager_protect(struct morsel_pool *pool, uint64_t family, uint64_t first, uint64_t end)
{
	struct mrs_pager *pager = mrs_pager_of(pool);
	int rc;

	if (!pager || !mrs_load_acquire32(&pager->in_office))
		return mrs_fail(-EAGAIN,
				"this process is not the pager of %s (any more): try again",
				pool->path);
	pthread_mutex_lock(&pager->desk.lock);
	rc = protect_views(pager, family, first, end);
	if (rc == -EAGAIN) {
		/* What the registry says of moves may be later than the list. */
		pager->desk.cache.family = 0;
		rc = protect_views(pager, family, first, end);
	}
	pthread_mutex_unlock(&pager->desk.lock);
	return rc;
}
