/*
 * The budget: how much of a pool may be resident, and the watermarks between which the evictor
 * works.
 *
 *	0 ... low ... high ... budget
 *	      stops   begins   refused, or waited for: back.c
 *
 * What is charged is what the kernel says is resident, less compressed memory: that has a limit of
 * its own, so that whatever is evicted into it leaves the budget by its whole size.
 */
#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>

#include "base/atomic.h"
#include "pool/internal.h"

/* As long as the pager gets on, if the budget falls. */
#define SHRINK_WAIT_NS 600000000000ll

uint64_t mrs_pool_resident(struct morsel_pool *pool)
{
	struct stat st;

	return fstat(pool->fd, &st) ? 0 : (uint64_t)st.st_blocks * 512 / MRS_PAGE_BYTES;
}

/* A slab that comes or goes at this moment may be charged, or not: eight frames. */
uint64_t mrs_pool_charged(struct morsel_pool *pool)
{
	uint64_t compressed = mrs_load_relaxed(&mrs_pool_state(pool)->compressed);
	uint64_t resident = mrs_pool_resident(pool);

	return resident - mrs_min(compressed, resident);
}

bool mrs_pool_watermarks(struct morsel_pool *pool, uint64_t *low, uint64_t *high)
{
	struct mrs_state *state = mrs_pool_state(pool);
	uint64_t budget = mrs_load_acquire(&state->budget_frames);
	uint64_t lower = mrs_load_relaxed(&state->budget_low);
	uint64_t upper = mrs_load_relaxed(&state->budget_high);

	if (!budget) {
		*low = *high = UINT64_MAX;
		return false;
	}
	/* The budget may be on its way down. */
	*high = upper && upper <= budget ? upper : budget - budget / 16;
	*low = lower && lower < *high ? lower : mrs_min(budget - budget / 8, *high);
	return true;
}

/* What is resident does not go below the budget that was wanted: who has the rest, in words. */
static int budget_stays(struct morsel_pool *pool, uint64_t resident, uint64_t wanted)
{
	struct mrs_pool_stays stays = {0};
	char text[4][16];

	if (mrs_object_repair.stays)
		mrs_object_repair.stays(pool, &stays);
	return mrs_fail(
		-EBUSY,
		"%s of %s are resident, more than a budget of %s: %s of it are pinned by grants, "
		"%s can be evicted (with a swap target: `morsel swap list`), the rest cannot; "
		"release grants, or free morsels",
		mrs_bytes_text(resident * MRS_PAGE_BYTES, text[0]), pool->path,
		mrs_bytes_text(wanted * MRS_PAGE_BYTES, text[1]),
		mrs_bytes_text(stays.pinned * MRS_PAGE_BYTES, text[2]),
		mrs_bytes_text(stays.evictable * MRS_PAGE_BYTES, text[3]));
}

/* What was set for the former budget is not meant for this one. */
static void forget_watermarks(struct mrs_state *state)
{
	mrs_store_relaxed(&state->budget_low, 0);
	mrs_store_relaxed(&state->budget_high, 0);
}

int morsel_pool_set_budget(struct morsel_pool *pool, uint64_t bytes)
{
	uint64_t *budget, former, wanted = bytes >> MRS_PAGE_SHIFT, charged;
	int rc = mrs_pool_usable(pool, true);

	if (rc)
		return rc;
	if (bytes && !wanted)
		return mrs_fail(-EINVAL, "a budget of %" PRIu64 " bytes is less than a page",
				bytes);
	budget = &mrs_pool_state(pool)->budget_frames;
	former = mrs_swap(budget, wanted);
	mrs_full_fence(); /* who reserves from now on sees it; who did before is resident */
	charged = mrs_pool_charged(pool);
	if (wanted && charged > wanted && mrs_object_repair.make_room) {
		mrs_object_repair.make_room(pool, 0, SHRINK_WAIT_NS);
		charged = mrs_pool_charged(pool);
	}
	if (!wanted || charged <= wanted) {
		forget_watermarks(mrs_pool_state(pool));
		return 0;
	}
	mrs_cas(budget, &wanted, former);
	return budget_stays(pool, charged, wanted);
}

int mrs_pool_check_watermarks(uint64_t budget, uint64_t low, uint64_t high)
{
	char text[2][16];

	if (!low && !high)
		return 0;
	if (!budget)
		return mrs_fail(-EINVAL, "watermarks are those of a budget, and there is none: set "
					 "one first (morsel pool budget)");
	if ((high && high < MRS_PAGE_BYTES) || (low && low < MRS_PAGE_BYTES))
		return mrs_fail(-EINVAL, "a watermark of less than a page (4096 bytes)");
	if (high > budget)
		return mrs_fail(-EINVAL, "an upper watermark of %s is more than the budget of %s",
				mrs_bytes_text(high, text[0]), mrs_bytes_text(budget, text[1]));
	high = high ? high : budget - budget / 16;
	if (low >= high)
		return mrs_fail(-EINVAL, "a lower watermark of %s is not below the upper one of %s",
				mrs_bytes_text(low, text[0]), mrs_bytes_text(high, text[1]));
	return 0;
}

int morsel_pool_set_watermarks(struct morsel_pool *pool, uint64_t low, uint64_t high)
{
	int rc = mrs_pool_usable(pool, true);
	struct mrs_state *state;

	if (rc)
		return rc;
	state = mrs_pool_state(pool);
	rc = mrs_pool_check_watermarks(mrs_load_acquire(&state->budget_frames) * MRS_PAGE_BYTES,
				       low, high);
	if (rc)
		return rc;
	mrs_store_relaxed(&state->budget_low, low >> MRS_PAGE_SHIFT);
	mrs_store_relaxed(&state->budget_high, high >> MRS_PAGE_SHIFT);
	return 0;
}
