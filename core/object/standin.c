/*
 * Stands in for rooms that are being built beside this one: each answer is right where nothing is
 * shared, nothing was swapped out and no budget is set. A room's own function takes its place.
 */
#include <errno.h>

#include "base/base.h"
#include "object/share.h"
#include "swap/swap.h"

#define STANDIN __attribute__((weak))

STANDIN bool mrs_share_is_shared(struct morsel *morsel, uint64_t page)
{
	return false;
}

STANDIN int mrs_share_break(struct morsel *morsel, uint64_t page, uint64_t pages)
{
	return 0;
}

STANDIN int mrs_evict_make_room(struct morsel_pool *pool, uint64_t frames, int64_t ns)
{
	return 0;
}

STANDIN struct mrs_swap *mrs_swap_of(struct morsel_pool *pool)
{
	mrs_fail(-ENODEV, "no swap target");
	return NULL;
}

STANDIN int mrs_swap_load(struct mrs_swap *swap, struct mrs_swap_page page[], void *const memory[],
			  unsigned count)
{
	return -EIO;
}

STANDIN int mrs_swap_load_one(struct mrs_swap *swap, struct mrs_swap_page *page, void *memory)
{
	return -EIO;
}

STANDIN bool mrs_swap_kept(struct morsel_pool *pool, uint64_t frame, struct mrs_swap_page *page,
			   uint32_t *epoch)
{
	return false;
}

STANDIN void mrs_swap_forget(struct mrs_txn *txn, uint64_t frame)
{
}

STANDIN bool mrs_swap_is_leaving(struct morsel_pool *pool, uint64_t slot)
{
	return false;
}
