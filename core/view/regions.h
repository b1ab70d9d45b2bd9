/*
 * Regions: which view of this process an address belongs to.
 *
 * For those who come from a fault and know an address only: the fault thread, and the handler of
 * SIGBUS. Of the whole process, all pools. Looking up takes no lock and is async-signal-safe.
 */
#ifndef MRS_VIEW_REGIONS_H
#define MRS_VIEW_REGIONS_H

#include <stdbool.h>
#include <stdint.h>

#include <morsel/morsel.h>

struct mrs_registered;

struct mrs_region {
	uint64_t address;
	uint64_t bytes;
	struct morsel *morsel;
	struct morsel_pool *pool;
	uint64_t first; /* page of the morsel at address */
	bool writable;
	/* Where the view notes its listing, for whether it is stale (object/retarget.h); NULL: never. */
	struct mrs_registered *const *listed;
};

/* Before the range is registered with userfaultfd. -ENOMEM, -ENOSPC in words. */
int mrs_region_add(const struct mrs_region *region);
/* After it was unmapped: waits for those who serve a fault of it, then nobody knows it any more. */
void mrs_region_remove(uint64_t address);

/*
 * The region around an address: true, a copy, and *hold for mrs_region_release(); until then morsel
 * and pool stay open and the region is not removed.
 */
bool mrs_region_find(uint64_t address, struct mrs_region *region, uint32_t **hold);
void mrs_region_release(uint32_t *hold);

/* In a child of fork: nothing of the pool is mapped here. */
void mrs_regions_in_child(struct morsel_pool *pool);

#endif
