/*
 * Cleaning up after dead processes.
 *
 *  1. Whoever gets a dead slot's lock is its reaper; the word says REAPING from then on.
 *  2. The gate is closed and these are repaired, in this order: the frames that its pending
 *     records name (back to the allocator, their memory to the kernel, unless something refers to
 *     them); the frames it was giving back; then, by the object room, what its intents say. Frames
 *     first, because repairing an intent uses the dead's own locals anew. Every dead slot needs it:
 *     one that died in no transition may have died while it gave its reservations back. An intent
 *     may have to wait for the living: it stays, and so does its slot, until the next try.
 *  3. With the gate open: its reservations go back, then its open morsels are dropped, then the
 * slot is free. Each step can be done again from its start, so a reaper may die anywhere: the word
 * stays REAPING and the lock is free for the next one.
 */
#include <errno.h>
#include <string.h>

#include "base/atomic.h"
#include "base/probe.h"
#include "base/trace.h"
#include "object/object.h"
#include "pool/internal.h"
#include "pool/property.h"
#include "pool/zero.h"
#include "swap/swap.h"

#define AGAIN_NS      5000000000ll
#define LEFT_NS	      2000000000ll /* how long is waited for a living process, */
#define LEFT_PAUSE_NS 1000000ll	   /* and how often is looked */

/* ---- what names a frame ---- */

static bool overlaps(uint64_t a, uint64_t a_count, uint64_t b, uint64_t b_count)
{
	return a < b + b_count && b < a + a_count;
}

static bool intent_names(struct morsel_pool *pool, unsigned slot, unsigned which, uint64_t frame,
			 uint64_t count)
{
	uint64_t putting = mrs_pool_slot(pool, slot)->intent[which].putting;
	struct morsel_frames_pending pending;

	if (putting && mrs_putting_order(putting) <= MORSEL_FRAMES_MAX_ORDER &&
	    overlaps(mrs_putting_frame(putting), 1ull << mrs_putting_order(putting), frame, count))
		return true;
	return morsel_frames_pending(&pool->frames, slot * MRS_INTENTS_PER_SLOT + which,
				     &pending) &&
	       overlaps(pending.frame, 1ull << pending.order, frame, count);
}

bool mrs_reap_is_named(struct morsel_pool *pool, uint64_t frame, uint64_t count, unsigned except)
{
	for (unsigned slot = 0; slot < MRS_SLOTS; slot++) {
		uint64_t state = mrs_load_acquire(mrs_slot_word(pool, slot)) & MRS_SLOT_STATE_MASK;

		if (slot == except || (state != MRS_SLOT_ATTACHED && state != MRS_SLOT_REAPING))
			continue;
		for (unsigned i = 0; i < MRS_INTENTS_PER_SLOT; i++)
			if (intent_names(pool, slot, i, frame, count))
				return true;
	}
	return false;
}

/* ---- step 2: frames ---- */

/* Of this room itself, and then of the rooms above. */
struct overlap {
	uint64_t frame, count;
	bool found;
};

static void own_overlaps(void *ctx, uint64_t frame, uint64_t count, const char *by)
{
	struct overlap *overlap = ctx;

	(void)by;
	overlap->found |= overlaps(frame, count, overlap->frame, overlap->count);
}

static bool referenced(struct morsel_pool *pool, uint64_t frame, uint64_t count)
{
	struct overlap overlap = {.frame = frame, .count = count};

	mrs_prop_owned(pool, own_overlaps, &overlap);
	mrs_swap_owned(pool, own_overlaps, &overlap);
	mrs_zero_owned(pool, own_overlaps, &overlap);
	return overlap.found || mrs_object_repair.referenced(pool, frame, count);
}

/*
 * The pending records of a dead slot, and what the object room said about their blocks: asking
 * costs a walk through its records.
 *
 * A block is the whole range of a record, or its huge frames one by one. Who got a range got all of
 * it and linked all of it at once, so one answer serves a block. If the answer is yes and the
 * frames are somebody else's, then the dead has taken none of them.
 */
struct named_range {
	uint64_t frame;
	unsigned order;
	unsigned step; /* order of a block */
	uint8_t answer[1 << (MORSEL_FRAMES_MAX_ORDER -
			     MRS_HUGE_ORDER)]; /* 0 not asked, 1 no, 2 yes */
};

struct asker {
	struct morsel_pool *pool;
	unsigned count;
	struct named_range range[MRS_INTENTS_PER_SLOT];
};

static void asker_init(struct asker *asker, struct morsel_pool *pool, unsigned slot)
{
	struct morsel_frames_pending pending;

	memset(asker, 0, sizeof(*asker));
	asker->pool = pool;
	for (unsigned i = 0; i < MRS_INTENTS_PER_SLOT; i++) {
		struct named_range *range = &asker->range[asker->count];

		if (!morsel_frames_pending(&pool->frames, slot * MRS_INTENTS_PER_SLOT + i,
					   &pending) ||
		    pending.order > MORSEL_FRAMES_MAX_ORDER ||
		    !mrs_pool_at(pool, pending.frame, 1ull << pending.order))
			continue;
		range->frame = pending.frame;
		range->order = pending.order;
		range->step = mrs_min(pending.order, MRS_HUGE_ORDER);
		asker->count++;
	}
}

/* The smallest range that the frame is in. */
static struct named_range *range_of(struct asker *asker, uint64_t frame)
{
	struct named_range *best = NULL;

	for (unsigned i = 0; i < asker->count; i++) {
		struct named_range *range = &asker->range[i];

		if (frame >= range->frame && frame - range->frame < 1ull << range->order &&
		    (!best || range->order < best->order))
			best = range;
	}
	return best;
}

static bool is_referenced(void *ctx, uint64_t frame)
{
	struct asker *asker = ctx;
	struct named_range *range = range_of(asker, frame);
	uint64_t block;

	mrs_gate_beat(asker->pool);
	if (!range)
		return referenced(asker->pool, frame, 1);
	block = (frame - range->frame) >> range->step;
	if (!range->answer[block]) {
		uint64_t first = range->frame + (block << range->step);

		range->answer[block] =
			1 + referenced(asker->pool, first, 1ull << range->step);
	}
	return range->answer[block] == 2;
}

/* The memory of frames that are about to be freed goes first: a free frame reads as zero. */
static void drop_memory(struct asker *asker, unsigned slot, const struct named_range *range)
{
	struct morsel_pool *pool = asker->pool;
	uint64_t block = 1ull << range->step, end = range->frame + (1ull << range->order);

	for (uint64_t at = range->frame; at < end; at += block) {
		mrs_gate_beat(pool);
		if (is_referenced(asker, at))
			continue;
		if (morsel_frames_is_allocated(&pool->frames, at, range->step) &&
		    !mrs_reap_is_named(pool, at, block, slot)) {
			mrs_pool_unback(pool, at, block);
			continue;
		}
		for (uint64_t one = at; one < at + block; one++)
			if (morsel_frames_is_allocated(&pool->frames, one, 0) &&
			    !mrs_reap_is_named(pool, one, 1, slot))
				mrs_pool_unback(pool, one, 1);
	}
}

/* Also where nothing is pending: who dies giving a reservation back leaves counters behind. */
static void repair_pending(struct morsel_pool *pool, unsigned slot)
{
	struct asker asker;

	asker_init(&asker, pool, slot);
	for (unsigned i = 0; i < asker.count; i++)
		drop_memory(&asker, slot, &asker.range[i]);
	MRS_PROBE("pool.reap.memory_dropped");
	morsel_frames_repair(&pool->frames, slot * MRS_INTENTS_PER_SLOT, MRS_INTENTS_PER_SLOT,
			     is_referenced, &asker);
	MRS_PROBE("pool.reap.frames_repaired");
}

/* A put that had been announced: the frames are linked still, or freed already, or freed here. */
static void repair_putting(struct morsel_pool *pool, unsigned slot, unsigned which)
{
	struct mrs_intent *intent = &mrs_pool_slot(pool, slot)->intent[which];
	unsigned order = mrs_putting_order(intent->putting);
	uint64_t frame = mrs_putting_frame(intent->putting);

	if (!intent->putting)
		return;
	if (order <= MORSEL_FRAMES_MAX_ORDER && mrs_pool_at(pool, frame, 1ull << order) &&
	    morsel_frames_is_allocated(&pool->frames, frame, order) &&
	    !referenced(pool, frame, 1ull << order) &&
	    !mrs_reap_is_named(pool, frame, 1ull << order, slot)) {
		mrs_pool_unback(pool, frame, 1ull << order);
		morsel_frames_put(&pool->frames, slot * MRS_INTENTS_PER_SLOT + which, frame, order,
				  MORSEL_FRAMES_PUT_ZERO);
	}
	MRS_PROBE("pool.reap.put_finished");
	mrs_store_release(&intent->putting, 0);
}

static void forget_intents(struct mrs_intent *intents, unsigned left)
{
	for (unsigned i = 0; i < MRS_INTENTS_PER_SLOT; i++)
		if (!(left >> i & 1))
			mrs_store_release32(&intents[i].op, MRS_INTENT_NONE);
}

/*
 * The cells come after the intents that may name them, and before the intents are forgotten. False
 * if one of these is to be repaired later, and the cells with it.
 */
static bool repair_intents(struct morsel_pool *pool, unsigned slot)
{
	struct mrs_intent *intents = mrs_pool_slot(pool, slot)->intent;
	unsigned left = 0;
	bool any = false;

	for (unsigned i = 0; i < MRS_INTENTS_PER_SLOT; i++) {
		struct mrs_txn txn = {
			.pool = pool,
			.intent = &intents[i],
			.index = slot * MRS_INTENTS_PER_SLOT + i,
		};

		if (mrs_load_relaxed32(&intents[i].op) == MRS_INTENT_NONE)
			continue;
		mrs_gate_beat(pool);
		left |= (unsigned)!mrs_object_repair.intent(&txn) << i;
		any = true;
		MRS_PROBE("pool.reap.intent_repaired");
	}
	if (any && !left)
		mrs_cells_reap(mrs_pool_cells(pool), slot);
	MRS_PROBE("pool.reap.cells_repaired");
	forget_intents(intents, left);
	return !left;
}

/* Waiters look again and again: a slot that is repaired need not close the gate each time. */
static bool is_repaired(struct morsel_pool *pool, unsigned slot)
{
	return mrs_load_acquire(mrs_slot_word(pool, slot)) & MRS_SLOT_REPAIRED;
}

/* Step 2 for one slot. The gate is closed. */
static void repair_slot(struct morsel_pool *pool, unsigned slot)
{
	bool nested = mrs_txn_is_repairing(), whole;

	mrs_txn_repairing(true);
	repair_pending(pool, slot);
	for (unsigned i = 0; i < MRS_INTENTS_PER_SLOT; i++)
		repair_putting(pool, slot, i);
	whole = repair_intents(pool, slot);
	repair_pending(pool, slot);
	mrs_swap_repair(pool, slot);
	mrs_txn_repairing(nested);
	MRS_PROBE("pool.reap.repaired");
	if (whole)
		mrs_fetch_or(mrs_slot_word(pool, slot), MRS_SLOT_REPAIRED);
}

/* ---- step 1: which slots ---- */

struct pass {
	unsigned count;
	unsigned freed; /* processes that died before they were attached */
	bool needs_gate;
	uint16_t slot[MRS_SLOTS];
};

static bool is_ours(struct morsel_pool *pool, unsigned slot)
{
	return slot == pool->slot || (pool->reaping[slot / 64] >> slot % 64 & 1);
}

/* The lock is ours. True if the word says REAPING now. */
static bool begin_reaping(struct morsel_pool *pool, unsigned slot, struct pass *pass)
{
	uint64_t *word = mrs_slot_word(pool, slot), seen = mrs_load_acquire(word);

	switch (seen & MRS_SLOT_STATE_MASK) {
	case MRS_SLOT_CLAIMED:
		if (mrs_cas(word, &seen, (seen & ~MRS_SLOT_STATE_MASK) | MRS_SLOT_FREE))
			pass->freed++;
		return false;
	case MRS_SLOT_ATTACHED:
		if (mrs_slot_prepare(pool, slot) ||
		    !mrs_cas(word, &seen, (seen & ~MRS_SLOT_STATE_MASK) | MRS_SLOT_REAPING))
			return false;
		MRS_PROBE("pool.reap.begun");
		break;
	case MRS_SLOT_REAPING:
		break;
	default:
		return false;
	}
	/* Nobody is inside on its behalf: gate.c, step 4. */
	mrs_store_release(&mrs_pool_slot(pool, slot)->active, 0);
	mrs_store_release(&mrs_pool_slot(pool, slot)->reserving, 0);
	return true;
}

static void collect(struct morsel_pool *pool, struct pass *pass)
{
	for (unsigned slot = 0; slot < MRS_SLOTS; slot++) {
		uint64_t state = mrs_load_acquire(mrs_slot_word(pool, slot)) & MRS_SLOT_STATE_MASK;

		if (state == MRS_SLOT_FREE || is_ours(pool, slot) ||
		    mrs_pool_slot_is_alive(pool, slot) || !mrs_slot_lock(pool, slot))
			continue;
		if (!begin_reaping(pool, slot, pass)) {
			mrs_slot_unlock(pool, slot);
			continue;
		}
		pool->reaping[slot / 64] |= 1ull << slot % 64;
		pass->needs_gate |= !is_repaired(pool, slot);
		pass->slot[pass->count++] = (uint16_t)slot;
	}
	pass->needs_gate |= mrs_gate_is_stuck(pool);
}

/*
 * After a gate that could not be closed the next try waits a while, whoever makes it: else a stream
 * of short commands would keep the gate shut. A time further away than we ever write is not ours:
 * from before a reboot, from another time namespace, or damage.
 */
static bool is_too_early(struct morsel_pool *pool)
{
	uint64_t again = mrs_load_relaxed(&mrs_pool_state(pool)->reap_again_ns);
	uint64_t now = (uint64_t)mrs_now_ns();

	return again > now && again - now <= AGAIN_NS && !mrs_gate_is_stuck(pool);
}

/* Steps 1 and 2. The slots stay locked. insist: also if the last try has just timed out. */
static int collect_and_repair(struct morsel_pool *pool, struct pass *pass, bool insist)
{
	int rc = 0;

	if (!insist && is_too_early(pool))
		return -ETIMEDOUT;
	collect(pool, pass);
	if (!pass->needs_gate)
		return 0;
	rc = mrs_gate_close(pool);
	mrs_store_release(&mrs_pool_state(pool)->reap_again_ns,
			  rc ? (uint64_t)mrs_now_ns() + AGAIN_NS : 0);
	if (rc)
		return rc;
	/* Who died sleeping is counted no more; who lives looks again by himself. */
	mrs_store_release(&mrs_pool_state(pool)->leaf_waiters, 0);
	mrs_prop_repair(pool);
	for (unsigned i = 0; i < pass->count; i++)
		if (!is_repaired(pool, pass->slot[i]))
			repair_slot(pool, pass->slot[i]);
	mrs_gate_open(pool);
	return 0;
}

static void let_go(struct morsel_pool *pool, unsigned slot)
{
	pthread_mutex_lock(&pool->reap_lock);
	pool->reaping[slot / 64] &= ~(1ull << slot % 64);
	pthread_mutex_unlock(&pool->reap_lock);
	mrs_slot_unlock(pool, slot);
}

/* Step 3. */
static void finish_slot(struct morsel_pool *pool, unsigned slot)
{
	uint64_t *word = mrs_slot_word(pool, slot), seen;

	/* From here on a death leaves something to repair again. */
	seen = mrs_fetch_and(word, ~MRS_SLOT_REPAIRED);
	for (unsigned i = 0; i < MRS_INTENTS_PER_SLOT; i++)
		morsel_frames_return_local(&pool->frames, slot * MRS_INTENTS_PER_SLOT + i);
	MRS_PROBE("pool.reap.returned");
	mrs_object_repair.drop_open(pool, slot);
	MRS_PROBE("pool.reap.dropped");
	MRS_TRACE(reap, slot, mrs_load_relaxed32(&mrs_pool_slot(pool, slot)->pid));
	mrs_fetch_add(&mrs_pool_state(pool)->reaped, 1);
	/* Pairs with the acquire in try_free_slot(): the next owner sees a repaired slot. */
	mrs_store_release(word,
			  (seen & ~(MRS_SLOT_STATE_MASK | MRS_SLOT_REPAIRED)) | MRS_SLOT_FREE);
	MRS_PROBE("pool.reap.freed");
}

void mrs_reap_repair(struct morsel_pool *pool)
{
	struct pass pass = {0};
	bool parked;

	if (mrs_txn_is_repairing() || pool->slot == MRS_SLOT_NONE)
		return;
	parked = mrs_txn_park(pool);
	/* Somebody of this process is at it: no need to queue. */
	if (!pthread_mutex_trylock(&pool->reap_lock)) {
		collect_and_repair(pool, &pass, false);
		pthread_mutex_unlock(&pool->reap_lock);
		for (unsigned i = 0; i < pass.count; i++)
			let_go(pool, pass.slot[i]);
	}
	mrs_txn_unpark(pool, parked);
}

/* Some repair waits for a living process. */
static bool is_left(struct morsel_pool *pool, const struct pass *pass)
{
	for (unsigned i = 0; i < pass->count; i++)
		if (!is_repaired(pool, pass->slot[i]))
			return true;
	return false;
}

static int reap_once(struct morsel_pool *pool, bool insist, bool *left)
{
	struct pass pass = {0};
	unsigned finished = 0;
	int rc;

	MRS_CHECK(!mrs_txn_inside(pool));
	pthread_mutex_lock(&pool->reap_lock);
	rc = collect_and_repair(pool, &pass, insist);
	pthread_mutex_unlock(&pool->reap_lock);
	/* Step 3 has transitions that cannot fail: none of them begins before a closed gate. */
	if (!rc && pass.count)
		rc = mrs_gate_await(pool);
	*left = !rc && is_left(pool, &pass);
	for (unsigned i = 0; i < pass.count; i++) {
		if (!rc && is_repaired(pool, pass.slot[i])) {
			finish_slot(pool, pass.slot[i]);
			finished++;
		}
		let_go(pool, pass.slot[i]);
	}
	if (pass.count)
		mrs_super_mend(pool); /* it may have died while it was growing the pool */
	return rc ? rc : (int)(finished + pass.freed);
}

static int reap_all(struct morsel_pool *pool, bool insist)
{
	int64_t end = mrs_now_ns() + LEFT_NS;
	bool left;
	int rc = reap_once(pool, insist, &left), more;

	while (rc >= 0 && left && mrs_now_ns() < end) {
		mrs_sleep_ns(LEFT_PAUSE_NS);
		more = reap_once(pool, insist, &left);
		rc = more < 0 ? more : rc + more;
	}
	return rc;
}

int mrs_reap_all(struct morsel_pool *pool)
{
	return reap_all(pool, false);
}

int mrs_reap_own(struct morsel_pool *pool, unsigned slot)
{
	struct pass pass = {0};
	int rc = 0;

	if (!begin_reaping(pool, slot, &pass))
		return 0;
	pool->slot = slot; /* the repairs run in this slot's own name */
	pthread_mutex_lock(&pool->reap_lock);
	rc = mrs_gate_close(pool);
	if (!rc) {
		mrs_prop_repair(pool);
		repair_slot(pool, slot);
		mrs_gate_open(pool);
	}
	pthread_mutex_unlock(&pool->reap_lock);
	if (!rc)
		rc = is_repaired(pool, slot) ? mrs_gate_await(pool) : -ETIMEDOUT;
	if (!rc)
		finish_slot(pool, slot);
	pool->slot = MRS_SLOT_NONE;
	return rc;
}

bool mrs_pool_relieve(struct morsel_pool *pool)
{
	return mrs_reap_all(pool) > 0;
}

int morsel_pool_reap(struct morsel_pool *pool)
{
	int rc = mrs_pool_usable(pool, true);

	/* Who asks wants it tried again, also if somebody stayed inside a moment ago. */
	return rc ? rc : reap_all(pool, true);
}
