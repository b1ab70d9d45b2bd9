/*
 * Views that have not followed a move: a touch maps the page's frame of now.
 *
 * Between mmap() and the registration with userfaultfd another thread may touch the page unseen. So
 * it has memory by then (an evicted one is brought back through a page of address space that nobody
 * knows), its leaf is locked, and it counts as written where the view may write. What has other
 * owners is not mapped for writing at all: the caller breaks it off first, and views follow that by
 * themselves.
 */
#include <errno.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "base/compat.h"
#include "object/bring.h"
#include "object/internal.h"
#include "view/pager.h"
#include "view/registry.h"

bool mrs_window_is_stale(const struct morsel *morsel, const struct mrs_window *window)
{
	struct mrs_cell_coherence *coherence = mrs_morsel_coherence(morsel);
	struct mrs_registered *listed;

	/* Acquire: pairs with the release of who lists the view. Not listed: nobody has its
	 * address. */
	listed = window->listed ? (struct mrs_registered *)(uintptr_t)mrs_load_acquire(
					  (const uint64_t *)window->listed)
				: NULL;
	return listed && coherence &&
	       mrs_registry_followed(listed) != mrs_load_acquire(&coherence->moves);
}

static int register_range(int fd, uint64_t address, uint64_t bytes)
{
	struct uffdio_register range = {
		.range = {address, bytes},
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP,
	};

	return ioctl(fd, UFFDIO_REGISTER, &range) ? -errno : 0;
}

/* No child of fork inherits it: nobody would answer for its touches there. */
static int map_frames(struct morsel_pool *pool, uint64_t address, uint64_t frame, uint64_t pages,
		      int prot)
{
	void *at = (void *)(uintptr_t)address;
	int rc = 0;

	mrs_fork_hold();
	if (mmap(at, pages * MRS_PAGE_BYTES, prot, MAP_SHARED | MAP_FIXED, morsel_pool_fd(pool),
		 (off_t)(frame * MRS_PAGE_BYTES)) != at)
		rc = -errno;
	else
		madvise(at, pages * MRS_PAGE_BYTES, MADV_DONTFORK);
	mrs_fork_release();
	return rc;
}

int mrs_window_map(struct mrs_retarget *batch, const struct mrs_window *window, unsigned i)
{
	uint64_t pages = 1ull << 9 * batch->level, first = batch->page + i * pages;
	uint64_t from = mrs_max(first, window->first);
	uint64_t end = mrs_min(first + pages, window->first + window->pages);
	uint64_t address = mrs_window_at(window, from), bytes = (end - from) * MRS_PAGE_BYTES;
	int rc;

	if (window->writable)
		mrs_retarget_dirty(batch, i);
	rc = map_frames(batch->morsel->pool, address,
			mrs_entry_frame(batch->before[i]) + (from - first), end - from,
			PROT_READ | (window->writable ? PROT_WRITE : 0));
	MRS_PROBE("stale.mapped");
	if (!rc)
		rc = register_range(window->fd, address, bytes);
	if (!rc && !mrs_bring_in_signal(batch->morsel->pool))
		mrs_uffd_wake(window->fd, address, bytes);
	return rc;
}

int mrs_window_beside(const struct mrs_retarget *batch, const struct mrs_window *window,
		      uint64_t page, uint64_t frame, struct mrs_window *beside)
{
	struct mrs_bring *area;
	int rc = mrs_bring_area(batch, &area);

	if (rc)
		return rc;
	*beside = (struct mrs_window){
		.fd = window->fd,
		.address = (uintptr_t)area->beside,
		.first = page,
		.pages = 1,
	};
	rc = map_frames(batch->morsel->pool, beside->address, frame, 1, PROT_READ);
	return rc ? rc : register_range(window->fd, beside->address, MRS_PAGE_BYTES);
}

void mrs_window_beside_end(const struct mrs_window *beside)
{
	mmap((void *)(uintptr_t)beside->address, MRS_PAGE_BYTES, PROT_NONE,
	     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}
