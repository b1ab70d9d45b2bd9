/*
 * Huge frames whose memory is made and zeroed beforehand, off the path of who needs them.
 *
 * A free frame has no memory, or memory that reads as zero (back.c). So the stock is free frames
 * that have huge memory: who gets one finds it there when it asks for memory, and need not wait
 * until the kernel has made and zeroed 2 MiB. Nobody owns the stock, so a death leaves nothing to
 * repair; a list of hints says where it is.
 *
 *	state.swap_words[1]  frames that the stock is to have; 0: none is made
 *	state.swap_words[2]  the frame of hints: 512 words, first frame + 1 of a huge frame, or 0
 *	state.swap_words[3]  where the search for the next one begins
 *	state.zeroed	     frames that the hints name; a hint too
 *
 *  1. Filling: a free huge frame without memory is taken (get_at), gets memory, goes back free with
 * it, and is noted.
 *  2. Taking: a hint is swapped for 0, and its very frame taken (get_at); if that fails somebody
 * had it by chance, and the hint was old.
 *  3. Giving up: as 2, then the memory is taken away before the frame goes back.
 * The memory counts against the budget; above the upper watermark the stock is given up first.
 */
#include <errno.h>
#include <inttypes.h>

#include <morsel/pager.h>

#include "base/atomic.h"
#include "base/probe.h"
#include "pool/internal.h"
#include "pool/zero.h"

#define HUGE_FRAMES ((uint64_t)1 << MRS_HUGE_ORDER)
#define HINTS	    512
#define TICK_FILLS  16 /* huge frames that one tick makes at most: some milliseconds */

static uint64_t *wanted_word(struct morsel_pool *pool)
{
	return &mrs_pool_state(pool)->swap_words[1];
}

static uint64_t *hints_of(struct morsel_pool *pool)
{
	uint64_t frame = mrs_load_acquire(&mrs_pool_state(pool)->swap_words[2]);

	return frame >= pool->super.frame_data ? mrs_pool_at(pool, frame, 1) : NULL;
}

void mrs_zero_owned(struct morsel_pool *pool,
		    void (*owned)(void *ctx, uint64_t frame, uint64_t count, const char *by),
		    void *ctx)
{
	uint64_t frame = mrs_load_acquire(&mrs_pool_state(pool)->swap_words[2]);

	if (frame)
		owned(ctx, frame, 1, "the list of zeroed frames");
}

static bool note(struct morsel_pool *pool, uint64_t frame)
{
	uint64_t *hints = hints_of(pool);

	for (unsigned i = 0; hints && i < HINTS; i++) {
		uint64_t none = 0;

		if (mrs_load_relaxed(&hints[i]) || !mrs_cas(&hints[i], &none, frame + 1))
			continue;
		mrs_fetch_add(&mrs_pool_state(pool)->zeroed, HUGE_FRAMES);
		return true;
	}
	return false;
}

/* Takes a hint out: that of the frame wanted, or any if it is 0. False if there is none. */
static bool take_hint(struct morsel_pool *pool, uint64_t wanted, uint64_t *frame)
{
	uint64_t *hints = hints_of(pool);

	for (unsigned i = 0; hints && i < HINTS; i++) {
		uint64_t hint = mrs_load_relaxed(&hints[i]);

		if (!hint || (wanted && hint != wanted + 1) || !mrs_cas(&hints[i], &hint, 0))
			continue;
		mrs_fetch_sub(&mrs_pool_state(pool)->zeroed, HUGE_FRAMES);
		*frame = hint - 1;
		return true;
	}
	return false;
}

/* Exactly this free frame, tracked; without words where somebody has it. */
static bool get_at(struct mrs_txn *txn, uint64_t frame)
{
	struct morsel_pool *pool = txn->pool;

	return frame >= pool->super.frame_data && frame % HUGE_FRAMES == 0 &&
	       mrs_pool_at(pool, frame, HUGE_FRAMES) &&
	       !morsel_frames_get_at(&pool->frames, txn->index, frame, MRS_HUGE_ORDER,
				     MORSEL_FRAMES_TRACKED);
}

/* Of this thread: the frame that it took last, until it asks for its memory. */
static __thread uint64_t taken;

bool mrs_zero_was_taken(uint64_t frame)
{
	bool was = frame == taken;

	taken = 0;
	return was;
}

bool mrs_zero_take(struct mrs_txn *txn, uint64_t near, uint64_t *frame)
{
	uint64_t hint;

	if (!mrs_load_relaxed(&mrs_pool_state(txn->pool)->zeroed))
		return false;
	while (take_hint(txn->pool, near, &hint)) {
		MRS_PROBE("zero.take.hint");
		if (get_at(txn, hint)) {
			*frame = taken = hint;
			return true;
		}
	}
	return false;
}

/* ---- in the background ---- */

static void put_back(struct mrs_txn *txn, uint64_t frame)
{
	mrs_txn_put_begin(txn, MRS_HUGE_ORDER, frame);
	mrs_txn_settle(txn);
	mrs_txn_put_end(txn);
}

static uint64_t upper_watermark(struct morsel_pool *pool)
{
	uint64_t low, high;

	mrs_pool_watermarks(pool, &low, &high);
	return high;
}

/* The next free huge frame without memory, from where the last search ended; taken. */
static bool find_bare(struct mrs_txn *txn, uint64_t *frame)
{
	struct morsel_pool *pool = txn->pool;
	uint64_t *cursor = &mrs_pool_state(pool)->swap_words[3];
	uint64_t first = mrs_round_up(pool->super.frame_data, HUGE_FRAMES) / HUGE_FRAMES;
	uint64_t end = mrs_load_acquire(&mrs_pool_state(pool)->online_end) / HUGE_FRAMES;
	uint64_t start = mrs_load_relaxed(cursor), at, content_end;

	if (end <= first)
		return false;
	for (uint64_t i = 0; i < end - first; i++) {
		uint64_t candidate = first + (start + i) % (end - first);

		at = candidate * HUGE_FRAMES * MRS_PAGE_BYTES;
		if (!morsel_frames_is_free(&pool->frames, candidate * HUGE_FRAMES,
					   MRS_HUGE_ORDER) ||
		    mrs_pool_next_content(pool, &at, at + MRS_HUGE_BYTES, &content_end) ||
		    !get_at(txn, candidate * HUGE_FRAMES))
			continue;
		mrs_store_relaxed(cursor, (start + i + 1) % (end - first));
		*frame = candidate * HUGE_FRAMES;
		return true;
	}
	return false;
}

/* One more for the stock. False if there is no use in going on. */
static bool fill_one(struct morsel_pool *pool)
{
	struct mrs_txn txn;
	uint64_t frame, huge = 0;
	bool kept = false;

	if (mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn))
		return false;
	if (!find_bare(&txn, &frame))
		goto end;
	MRS_PROBE("zero.fill.taken");
	if (!mrs_pool_back(&txn, frame, HUGE_FRAMES, MRS_BACK_HUGE, &huge)) {
		kept = huge == HUGE_FRAMES && note(pool, frame);
		if (!kept)
			mrs_pool_unback(pool, frame, HUGE_FRAMES);
	}
	MRS_PROBE("zero.fill.backed");
	put_back(&txn, frame);
	if (kept)
		mrs_fetch_add(&mrs_pool_state(pool)->count[MRS_COUNT_ZEROED], HUGE_FRAMES);
end:
	mrs_txn_end(&txn);
	return kept;
}

/* Takes memory from the stock; returns frames given up. */
static uint64_t give_up_one(struct morsel_pool *pool)
{
	struct mrs_txn txn;
	uint64_t frame, given = 0;

	if (mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn))
		return 0;
	if (mrs_zero_take(&txn, 0, &frame)) {
		mrs_pool_unback(pool, frame, HUGE_FRAMES);
		MRS_PROBE("zero.give_up.bare");
		put_back(&txn, frame);
		given = HUGE_FRAMES;
	}
	mrs_txn_end(&txn);
	return given;
}

uint64_t mrs_zero_give_up(struct morsel_pool *pool, uint64_t frames)
{
	uint64_t given = 0, one = 1;

	while (given < frames && one) {
		one = give_up_one(pool);
		given += one;
	}
	return given;
}

bool mrs_zero_tick(struct morsel_pool *pool)
{
	uint64_t wanted = mrs_load_acquire(wanted_word(pool)), high = upper_watermark(pool);
	uint64_t have = mrs_load_acquire(&mrs_pool_state(pool)->zeroed);
	uint64_t resident = have || wanted ? mrs_pool_charged(pool) : 0;

	if (resident > high)
		mrs_zero_give_up(pool, resident - high);
	else if (have > wanted)
		mrs_zero_give_up(pool, have - wanted);
	for (unsigned i = 0; i < TICK_FILLS; i++) {
		have = mrs_load_acquire(&mrs_pool_state(pool)->zeroed);
		if (have + HUGE_FRAMES > wanted || mrs_pool_charged(pool) + HUGE_FRAMES > high)
			return false;
		if (!fill_one(pool))
			return false;
	}
	return true;
}

static int make_hints(struct morsel_pool *pool)
{
	uint64_t *word = &mrs_pool_state(pool)->swap_words[2], none = 0, frame;
	struct mrs_txn txn;
	int rc;

	if (mrs_load_acquire(word))
		return 0;
	rc = mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn);
	if (rc)
		return rc;
	rc = mrs_txn_get_table(&txn, &frame);
	if (!rc && mrs_cas(word, &none, frame)) {
		MRS_PROBE("zero.hints.linked");
		mrs_txn_settle(&txn);
	} else if (!rc) {
		mrs_txn_put_begin(&txn, 0, frame);
		mrs_txn_settle(&txn);
		mrs_pool_unback(pool, frame, 1);
		mrs_txn_put_end(&txn);
	}
	mrs_txn_end(&txn);
	return rc;
}

int morsel_pool_zero_ahead(struct morsel_pool *pool, uint64_t bytes)
{
	uint64_t frames = bytes / MRS_HUGE_BYTES * HUGE_FRAMES;
	int rc = mrs_pool_usable(pool, true);

	if (rc)
		return rc;
	if ((pool->kind != MORSEL_POOL_MEMFD && pool->kind != MORSEL_POOL_TMPFS) ||
	    pool->super.no_huge)
		return mrs_fail(
			-EOPNOTSUPP,
			"%s has no huge folios to be zeroed beforehand: only memfd and tmpfs "
			"pools without MORSEL_POOL_NO_HUGE do",
			pool->path);
	if (frames > HINTS * HUGE_FRAMES)
		return mrs_fail(-EINVAL,
				"at most 1 GiB can be zeroed beforehand, not %" PRIu64 " bytes",
				bytes);
	rc = mrs_pool_require(pool, MRS_FEATURE_INCOMPAT_COHERENT);
	if (!rc)
		rc = make_hints(pool);
	if (rc)
		return rc;
	mrs_store_release(wanted_word(pool), frames);
	if (!frames)
		mrs_zero_give_up(pool, UINT64_MAX);
	return 0;
}
