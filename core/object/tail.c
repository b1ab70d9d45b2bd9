/*
 * What lies beyond a morsel's end: the rest of its last page, and of its last huge leaf. It reads
 * as zero when the morsel grows over it. Where pages come and go that cannot be seen to when it
 * shrinks, with the record locked, for the page may be evicted; so it is done before it grows.
 */
#include <errno.h>
#include <string.h>

#include "object/internal.h"
#include "object/retarget.h"
#include "object/share.h"
#include "swap/swap.h"

/* Memory that was never written is not touched. */
static void zero_frames(struct morsel_pool *pool, uint64_t frame, uint64_t count)
{
	uint64_t at = frame * MRS_PAGE_BYTES, end = at + count * MRS_PAGE_BYTES, next;

	for (; mrs_pool_next_content(pool, &at, end, &next); at = next)
		memset(mrs_pool_at(pool, at / MRS_PAGE_BYTES, 1), 0, next - at);
}

/* The leaf is evicted: its pages from k on are pages of zeros. */
static int zero_slots(struct mrs_retarget *batch, uint64_t frame, uint64_t k)
{
	static const unsigned char zeros[MRS_PAGE_BYTES];
	struct mrs_swap_page page = {.slot = MRS_SWAP_ZERO,
				     .crc = mrs_crc32c(0, zeros, sizeof(zeros))};
	int rc = 0;

	for (; !rc && k < 1ull << MRS_HUGE_ORDER; k++)
		rc = mrs_swap_keep(&batch->txn, frame + k, &page, UINT32_MAX);
	return rc;
}

/* Pages of the last leaf that lie beyond page; nobody has a view of them. */
static int zero_leaf(struct morsel *morsel, uint64_t page)
{
	struct mrs_retarget batch;
	uint64_t frame, k;
	int rc = mrs_retarget_one(morsel, MRS_RETARGET_DIRTY, page, &batch);

	if (rc)
		return rc == -ENOENT ? 0 : rc;
	frame = mrs_entry_frame(batch.before[0]);
	k = page - batch.page + 1;
	if (batch.level == 1 && mrs_entry_state(batch.before[0]) == MRS_ENTRY_EVICTED) {
		rc = zero_slots(&batch, frame, k);
	} else if (batch.level == 1 && mrs_entry_state(batch.before[0]) == MRS_ENTRY_MAPPED) {
		mrs_retarget_dirty(&batch, 0);
		zero_frames(morsel->pool, frame + k, (1ull << MRS_HUGE_ORDER) - k);
	}
	mrs_retarget_drop(&batch, 0);
	mrs_retarget_end(&batch);
	return rc;
}

int mrs_tail_zero(struct morsel *morsel, uint64_t *bytes)
{
	uint64_t had = mrs_morsel_bytes(morsel), pages = mrs_pages_in(had);
	int rc = 0;

	*bytes = had;
	if (!had || !mrs_content_comes_and_goes(morsel))
		return 0;
	/* Memory that relatives share is theirs to keep. */
	if (mrs_share_is_family(morsel))
		rc = mrs_share_break(morsel, pages - 1, 1);
	if (!rc)
		rc = mrs_content_zero(morsel, had, pages * MRS_PAGE_BYTES - had);
	return rc ? rc : zero_leaf(morsel, pages - 1);
}
