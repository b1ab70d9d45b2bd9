/*
 * morsel: huge frames out of scattered pages. Included by <morsel/morsel.h>.
 *
 * Compaction empties huge frames (2 MiB of the number space) that are used in part, by moving their
 * pages to free places in others; promotion makes one huge page of 512 small ones. Both move only
 * pages that may be moved: of morsels created with MORSEL_EVICTABLE, not granted, not seen by a
 * pooled view (there address and frame are one), not shared with a clone.
 */
#ifndef MORSEL_COMPACT_H
#define MORSEL_COMPACT_H

#include <stddef.h>
#include <stdint.h>

#include <morsel/morsel.h>

#ifdef __cplusplus
extern "C" {
#endif

struct morsel_compact_opts {
	size_t size;	   /* sizeof(struct morsel_compact_opts) */
	uint64_t huge_max; /* stop when so many huge frames are gained; 0: all that can be */
	uint64_t move_max; /* move at most so many pages; 0: no limit */
};

struct morsel_compact_result {
	size_t size;	      /* the caller's sizeof(struct morsel_compact_result) */
	uint64_t huge_gained; /* huge frames that are free now and were not */
	uint64_t pages_moved; /* 4 KiB pages */
	uint64_t moves_least; /* what the same gain costs at least, all free frames and their owners known */
	uint64_t refused;     /* pages that were in use in a way that forbids moving them */
};

/*
 * Compacts the pool; other processes go on. The pages are moved by the pool's pager. result may be
 * NULL. -EOPNOTSUPP in words on a pool whose pages cannot be moved (a file on disk, hugetlbfs); -ENOSPC
 * if the budget has no room for one page.
 */
MORSEL_API int morsel_pool_compact(struct morsel_pool *pool, const struct morsel_compact_opts *opts,
				   struct morsel_compact_result *result);

#ifdef __cplusplus
}
#endif

#endif
