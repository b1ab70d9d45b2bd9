/*
 * Retarget: locking leafs, the orderings behind it, and why nothing is lost. See retarget.h.
 *
 * Who meets. A retargeter (evictor, fault, mover, break of a clone) holds leafs in one transition.
 * A toucher is a thread that reads or writes through a view; it has no part in any of this but the
 * faults that the kernel makes of its touches. A newcomer publishes a view or a pin. A cutter
 * shrinks or frees the morsel and takes tables away. A repairer finishes what a dead retargeter
 * left, with the gate closed.
 *
 *  1. Order. Intent (record, pages); fence A; look at the record; find the leaf; intent (table,
 *     index, range); lock each leaf by compare-and-swap; fence B; look at the registry (pins,
 *     views, frozen). Nothing is looked at before what it is to be compared with is announced.
 *
 *  2. Cutter. Says so in the record (bytes, or FREEING), full fence, then waits until no RETARGET
 *     intent that was there overlaps (mrs_registry_settle). Pairs with fence A: either we see the
 *     smaller record and leave, or he sees the intent and waits. So no table under a retargeter is
 *     taken away, and a leaf beyond the end is never locked.
 *
 *  3. Newcomer. Writes his cell or pin, full fence, waits for intents that were there. Pairs with
 *     fence B: either we see his view and treat it, or his pin and give the leafs up, or he waits
 *     for our end; or both. He returns before he touches anything.
 *
 *  4. Leafs. An entry changes only by compare-and-swap from unlocked to locked, and from then on by
 *     the owner's stores alone. So of two retargeters of a leaf one waits. No thread waits for a
 *     leaf while it holds another: a batch takes what it can get. No deadlock: owners wait for
 *     mail, disk and memory only, each bounded or parked.
 *
 *  5. Tables. A table that a join replaced is stale entry by entry, each released by its owner. Who
 *     comes late by an old pointer finds the owner's lock or STALE, never an entry that he could
 *     lock. In a subtree that relatives share the way to the leaf is looked at once more after it
 *     was locked: a break may have given this morsel another table. It may have become shared since
 *     it was found: but a break marks each leaf of a table SHARED before it replaces the table, and
 *     waits at one that is locked. So a leaf that is locked without the mark is in a table of ours.
 *
 *     A clone says frozen, waits for intents that were there, shares, and says that it is over. Who
 *     makes a page writable reads frozen under the lock first, and then whether the way is SHARED:
 *     if he was not waited for, he finds one of the two. What was found before the lock proves
 *     nothing.
 *
 *  6. Writers. A page may be written through a view only if its leaf is DIRTY, or was filled for a
 *     writer, or the view is younger than what was saved (epoch); else it is protected in every
 *     writable view. DIRTY is stored before the protection is lifted, both under the leaf's lock.
 *     If the protection went first, and this thread were preempted or killed in between, an evictor
 *     would find a clean page with new bytes and drop them.
 *
 *  7. Evict. The evictor protects under the lock, and saves after. Who would lift a protection
 *     waits for that lock (6), so between saving and punching nobody writes. The punch takes the
 *     page out of every process; a touch faults, comes here, and waits for the leaf. The entry
 *     becomes EVICTED after the punch: a filler that sees EVICTED finds no memory there, and one
 *     that does (EEXIST) knows that it is content, of a filler that died or of a relative.
 *
 *  8. Fill. Only under the lock, only with UFFDIO_COPY, which is atomic: the page is there in whole
 *     or not at all, and never replaces what is there. Another process maps it without any event
 *     from then on, also before the entry says MAPPED. That is why a fill by pwrite is wrong:
 *     repeated after a death it would go over newer bytes.
 *
 *  9. Stopped. Service threads lock no leaf and touch no evictable page; they always answer. A
 *     retargeter that is stopped holds its leafs: the faults of others wait for it, and everybody
 *     who has no business with these pages goes on.
 *
 * 10. Death. The gate is closed, the owner gone. LOCKING: memory is as it was. The leaf becomes
 *     what it was, and DIRTY: a protection may be lifted, or half of the views protected, which
 *     costs a fault. COPIED, and FILL at any step: the content is in memory or on the swap target;
 *     memory wins, for it can only be the newer one (7, 8). Nothing has to be undone in any
 *     process: protections that stayed are lifted by the next write, which finds MAPPED.
 *
 * 11. Wake. The owner swaps the entry (full barrier), then looks whether anybody sleeps. A sleeper
 *     counts himself (full barrier), then sleeps only if the entry is still what he saw. Either he
 *     sees the new entry or he is seen.
 */
#include "object/retarget.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "object/break.h"
#include "object/internal.h"
#include "object/retarget_probe.h"

#define ENTRIES	     512u
#define WAIT_SPINS   200u
#define WAIT_NS	     20000000l
#define ORPHAN_WAITS 50u /* a second without an owner: the lock was not written by us */

/* ---- waiting for a leaf, and waking ---- */

/* The half with the lock's bits, as the byte order that the superblock demands has it. */
static uint32_t *upper_half(uint64_t *place)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return (uint32_t *)place + 1;
#else
	return (uint32_t *)place;
#endif
}

/* A reaper may have set it to zero, for those who died sleeping. */
static void one_sleeper_less(struct mrs_state *state)
{
	uint64_t waiters = mrs_load_relaxed(&state->leaf_waiters);

	while (waiters && !mrs_cas(&state->leaf_waiters, &waiters, waiters - 1))
		;
}

static void sleep_on(struct mrs_state *state, uint64_t *place, uint64_t seen)
{
	struct timespec time = {.tv_nsec = WAIT_NS};

	mrs_fetch_add(&state->leaf_waiters, 1); /* step 11 */
	syscall(SYS_futex, upper_half(place), FUTEX_WAIT, (uint32_t)(seen >> 32), &time, NULL, 0);
	one_sleeper_less(state);
}

void mrs_entry_wake(struct morsel_pool *pool, uint64_t *place)
{
	/* After the swap of *place, a full barrier: step 11. */
	if (mrs_load_relaxed(&mrs_pool_state(pool)->leaf_waiters))
		syscall(SYS_futex, upper_half(place), FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void mrs_entry_put(struct morsel_pool *pool, uint64_t *place, uint64_t entry)
{
	/* Full barrier, step 11; and releases what was done to the page: pairs with try_lock(). */
	mrs_swap(place, entry);
	MRS_PROBE("retarget.put");
	mrs_entry_wake(pool, place);
}

/* A lock of nobody's: of a damaged file. What the page was is as good as it gets. */
static void break_lock(struct morsel_pool *pool, uint64_t *place, uint64_t seen)
{
	mrs_log(MRS_LOG_WARN, "%s: a page's lock without an owner is broken", mrs_pool_path(pool));
	if (mrs_cas(place, &seen, mrs_entry_unlocked(seen)))
		mrs_entry_wake(pool, place);
}

static bool has_owner(struct morsel_pool *pool, uint64_t entry)
{
	uint64_t index = mrs_entry_lock(entry) - 1;
	unsigned slot = (unsigned)(index / MRS_INTENTS_PER_SLOT);
	const struct mrs_intent *intent;

	if (slot >= MRS_SLOTS)
		return false;
	intent = &mrs_pool_slot(pool, slot)->intent[index % MRS_INTENTS_PER_SLOT];
	return mrs_load_acquire32(&intent->op) != MRS_INTENT_NONE;
}

static bool is_still(uint64_t *place, uint64_t seen)
{
	return mrs_entry_lock(mrs_load_acquire(place)) == mrs_entry_lock(seen);
}

void mrs_entry_wait(struct morsel_pool *pool, uint64_t *place, uint64_t seen)
{
	unsigned orphaned = 0;
	bool parked;

	MRS_CHECK(mrs_entry_lock(seen));
	for (unsigned i = 0; i < WAIT_SPINS; i++) {
		if (!is_still(place, seen))
			return;
		mrs_spin_hint();
	}
	MRS_PROBE("retarget.wait");
	parked = mrs_txn_park(pool);
	while (is_still(place, seen)) {
		uint64_t now = mrs_load_acquire(place);

		sleep_on(mrs_pool_state(pool), place, now);
		if (!is_still(place, seen))
			break;
		mrs_reap_repair(pool);
		orphaned = has_owner(pool, seen) ? 0 : orphaned + 1;
		if (orphaned == ORPHAN_WAITS)
			break_lock(pool, place, now);
	}
	mrs_txn_unpark(pool, parked);
}

/* ---- beginning ---- */

/* Steps 1 and 2. -ENOENT without words: pages from page on are not, or not any more, the morsel's.
 */
static int announce(struct morsel *morsel, enum mrs_retarget_kind kind, uint64_t page,
		    uint64_t *pages, struct mrs_retarget *batch)
{
	struct mrs_cell_record *record = morsel->record;
	struct mrs_intent *intent;
	uint64_t end;
	int rc = mrs_txn_begin(morsel->pool, MRS_INTENT_RETARGET, &batch->txn);

	if (rc)
		return rc;
	intent = batch->txn.intent;
	batch->morsel = morsel;
	batch->count = 0;
	for (unsigned i = 0; i < mrs_array_length(batch->locked); i++)
		batch->locked[i] = 0;
	/* A huge leaf is locked as a whole, whichever page of it is meant. */
	mrs_store_release(&intent->page, mrs_round_down(page, ENTRIES));
	mrs_store_release(&intent->count, mrs_round_up(page % ENTRIES + *pages, ENTRIES));
	mrs_store_release32(&intent->step, (uint32_t)kind << 8 | MRS_RETARGET_LOCKING);
	mrs_store_release(&intent->cell[0], morsel->cell);
	mrs_full_fence(); /* A */
	MRS_PROBE_BATCH("retarget.announced", batch, NULL);
	end = mrs_pages_in(mrs_load_acquire(&record->bytes));
	/* Who has it open knows that it is there; the evictor has not. */
	if (page < end && mrs_state_of(mrs_load_acquire(&record->state)) != MRS_RECORD_FREEING &&
	    mrs_cell_is_current(mrs_pool_cells(morsel->pool), morsel->cell, MRS_CELL_RECORD)) {
		*pages = mrs_min(*pages, end - page);
		return 0;
	}
	mrs_txn_end(&batch->txn);
	return -ENOENT;
}

/* A run without a table gets one, under the record's lock. */
static int make_table(struct morsel *morsel)
{
	struct mrs_txn txn;
	int rc = mrs_record_lock(morsel, MRS_INTENT_RESIZE, 0, &txn);

	if (rc)
		return rc;
	mrs_store_release(&txn.intent->arg[0], mrs_morsel_bytes(morsel));
	mrs_store_release(&txn.intent->arg[1], mrs_morsel_bytes(morsel));
	mrs_store_release32(&txn.intent->step, MRS_RESIZE_SHAPING);
	MRS_PROBE("retarget.shaping");
	rc = mrs_place_shape(morsel, &txn);
	mrs_record_unlock(morsel, &txn);
	return rc;
}

static bool is_leaf(uint64_t entry)
{
	switch (mrs_entry_state(entry)) {
	case MRS_ENTRY_MAPPED:
	case MRS_ENTRY_EVICTED:
	case MRS_ENTRY_POISONED:
		return true;
	default:
		return false;
	}
}

/* The batch is leafs [0, count) from leaf on. The intent says so before the first is locked. */
static void aim(struct mrs_retarget *batch, const struct mrs_leaf *leaf, unsigned count)
{
	struct mrs_intent *intent = batch->txn.intent;

	batch->entries = leaf->place;
	batch->page = leaf->page;
	batch->level = leaf->level;
	batch->table = leaf->table;
	batch->shared = leaf->shared;
	batch->count = count;
	mrs_store_release(&intent->leaf, leaf->table << 9 | leaf->index);
	mrs_store_release(&intent->page, leaf->page);
	mrs_store_release(&intent->count, (uint64_t)count << 9 * leaf->level);
	mrs_compiler_barrier(); /* a repairer reads in program order what the dead wrote */
	MRS_PROBE("retarget.aimed");
}

static void own(struct mrs_retarget *batch, unsigned i, uint64_t entry)
{
	batch->locked[i / 64] |= 1ull << i % 64;
	batch->before[i] = entry;
	batch->shared |= !!(entry & MRS_ENTRY_SHARED);
}

static void disown(struct mrs_retarget *batch, unsigned i)
{
	batch->locked[i / 64] &= ~(1ull << i % 64);
}

/* True if the leaf is ours now; else *seen is what it is. */
static bool try_lock(struct mrs_retarget *batch, unsigned i, uint64_t *seen)
{
	uint64_t entry = mrs_load_acquire(&batch->entries[i]);

	/* Marks may have changed: once more. Acquire: pairs with the last owner's swap. */
	while (!mrs_entry_lock(entry) && is_leaf(entry)) {
		if (mrs_cas(&batch->entries[i], &entry,
			    mrs_entry_locked(entry, batch->txn.index))) {
			own(batch, i, entry);
			MRS_PROBE_LEAF("retarget.locking", batch, i, entry);
			return true;
		}
	}
	*seen = entry;
	return false;
}

/* Step 5: does the way from this morsel's root still lead to the batch? */
static bool is_ours_still(struct mrs_retarget *batch)
{
	struct mrs_leaf now;

	return !mrs_table_leaf(&batch->morsel->table, batch->page, &now) &&
	       now.place == batch->entries;
}

/* A leaf of 1 GiB becomes 512 of 2 MiB: no batch has larger ones. Any state of it but ours ends
 * here. */
static int split_giant(struct mrs_retarget *batch, const struct mrs_leaf *leaf)
{
	uint64_t *entries, seen;
	struct mrs_leaf giant = *leaf;
	int rc;

	aim(batch, leaf, 1);
	if (!try_lock(batch, 0, &seen)) {
		mrs_txn_end(&batch->txn);
		if (mrs_entry_lock(seen))
			mrs_entry_wait(batch->morsel->pool, leaf->place, seen);
		return -EAGAIN;
	}
	giant.entry = mrs_entry_locked(batch->before[0], batch->txn.index);
	mrs_store_release32(&batch->txn.intent->step,
			    MRS_RETARGET_SPLIT << 8 | MRS_RETARGET_LOCKING);
	rc = mrs_table_split(&batch->morsel->table, &batch->txn, &giant, 0, &entries);
	if (rc) {
		mrs_retarget_abort(batch);
		return rc;
	}
	disown(batch, 0);
	for (unsigned i = 0; i < ENTRIES; i++) {
		mrs_store_release(&entries[i], mrs_entry_unlocked(entries[i]));
		MRS_PROBE("retarget.giant");
	}
	mrs_txn_end(&batch->txn);
	mrs_fetch_add(&mrs_pool_state(batch->morsel->pool)->count[MRS_COUNT_SPLITS], 1);
	return -EAGAIN;
}

/* A leaf that would have to be split, and that relatives link too: all of them get the pieces. */
static bool must_split_for_all(const struct mrs_retarget *batch, const struct mrs_leaf *leaf)
{
	return leaf->level && leaf->place && leaf->entry & MRS_ENTRY_SHARED &&
	       (leaf->level == 2 || mrs_entry_state(leaf->entry) == MRS_ENTRY_EVICTED) &&
	       mrs_share_has_others(batch->morsel->pool, mrs_entry_frame(leaf->entry));
}

/* -EAGAIN when it is done, or somebody was in the way. */
static int split_for_all(struct mrs_retarget *batch, const struct mrs_leaf *leaf)
{
	int rc;

	mrs_store_release32(&batch->txn.intent->step,
			    MRS_RETARGET_BREAK << 8 | MRS_RETARGET_LOCKING);
	rc = mrs_share_split(batch->morsel, &batch->txn, leaf);
	mrs_txn_end(&batch->txn);
	return rc ? rc : -EAGAIN;
}

/*
 * Announces, and finds the leaf at page: 0, the transition is open, and *next is the morsel's end,
 * or that of what was asked for; -ENOENT: nothing there to lock up to *next, and no transition.
 */
static int find(struct morsel *morsel, enum mrs_retarget_kind kind, uint64_t page, uint64_t pages,
		struct mrs_retarget *batch, struct mrs_leaf *leaf, uint64_t *next)
{
	for (;;) {
		uint64_t inside = pages;
		int rc = announce(morsel, kind, page, &inside, batch);

		*next = page + pages;
		if (rc)
			return rc;
		*next = page + inside;
		rc = mrs_table_leaf(&morsel->table, page, leaf);
		if (!rc && must_split_for_all(batch, leaf)) {
			rc = split_for_all(batch, leaf);
			if (rc == -EAGAIN)
				continue;
			return rc;
		}
		if (!rc && leaf->level == 2 && leaf->place && is_leaf(leaf->entry)) {
			rc = split_giant(batch, leaf);
			if (rc == -EAGAIN)
				continue;
			return rc;
		}
		if (!rc && leaf->place && leaf->level < 2)
			return 0;
		mrs_txn_end(&batch->txn);
		if (rc)
			return rc;
		if (leaf->entry && !leaf->place) {
			rc = make_table(morsel);
			if (rc)
				return rc;
			continue;
		}
		if (leaf->place)
			*next = mrs_min(*next, leaf->page + (1ull << 9 * leaf->level));
		return -ENOENT;
	}
}

/* How many leafs of the table, from the one found on, cover pages up to end. */
static unsigned leafs_until(const struct mrs_leaf *leaf, uint64_t end)
{
	uint64_t span = 1ull << 9 * leaf->level;
	uint64_t wanted = (end - leaf->page + span - 1) / span;

	return (unsigned)mrs_min(wanted, (uint64_t)(ENTRIES - leaf->index));
}

/* Locks what is wanted; cuts the batch short before a table, and where the table became stale. */
static unsigned lock_wanted(struct mrs_retarget *batch,
			    bool (*want)(void *ctx, uint64_t page, uint64_t entry), void *ctx)
{
	uint64_t span = 1ull << 9 * batch->level;
	unsigned locked = 0;

	for (unsigned i = 0; i < batch->count; i++) {
		uint64_t seen = mrs_load_acquire(&batch->entries[i]);

		if (mrs_entry_state(seen) == MRS_ENTRY_TABLE ||
		    mrs_entry_state(seen) == MRS_ENTRY_STALE) {
			batch->count = i;
			break;
		}
		if (mrs_entry_lock(seen) || !is_leaf(seen) ||
		    !want(ctx, batch->page + i * span, seen) || !try_lock(batch, i, &seen))
			continue;
		locked++;
	}
	return locked;
}

int mrs_retarget_begin(struct morsel *morsel, enum mrs_retarget_kind kind, uint64_t page,
		       uint64_t pages, bool (*want)(void *ctx, uint64_t page, uint64_t entry),
		       void *ctx, struct mrs_retarget *batch, uint64_t *next)
{
	struct mrs_leaf leaf;
	unsigned locked;
	int rc;

	if (!pages) {
		*next = page;
		return 0;
	}
	do {
		rc = find(morsel, kind, page, pages, batch, &leaf, next);
		if (rc)
			return rc == -ENOENT ? 0 : rc;
		aim(batch, &leaf, leafs_until(&leaf, *next));
		locked = lock_wanted(batch, want, ctx);
		mrs_full_fence(); /* B */
		MRS_PROBE_BATCH("retarget.locked", batch, NULL);
		if (batch->count && (!batch->shared || is_ours_still(batch)))
			break;
		mrs_retarget_abort(batch);
	} while (true);
	*next = mrs_min(*next, batch->page + ((uint64_t)batch->count << 9 * batch->level));
	if (!locked)
		mrs_txn_end(&batch->txn);
	return (int)locked;
}

int mrs_retarget_one(struct morsel *morsel, enum mrs_retarget_kind kind, uint64_t page,
		     struct mrs_retarget *batch)
{
	for (;;) {
		struct mrs_leaf leaf;
		uint64_t next, seen;
		int rc = find(morsel, kind, page, 1, batch, &leaf, &next);

		if (rc)
			return rc;
		aim(batch, &leaf, 1);
		if (try_lock(batch, 0, &seen)) {
			mrs_full_fence(); /* B */
			MRS_PROBE_BATCH("retarget.locked", batch, NULL);
			if (!batch->shared || is_ours_still(batch))
				return 0;
			mrs_retarget_abort(batch);
			continue;
		}
		/* Without an intent of ours: the owner's process may need one. */
		mrs_txn_end(&batch->txn);
		if (mrs_entry_lock(seen))
			mrs_entry_wait(morsel->pool, leaf.place, seen);
		else if (mrs_entry_state(seen) == MRS_ENTRY_EMPTY)
			return -ENOENT;
	}
}

void mrs_retarget_mark(struct mrs_retarget *batch, enum mrs_retarget_step step)
{
	uint32_t *word = &batch->txn.intent->step;

	/* Program order is enough: it is read after our death only. */
	mrs_store_release32(word, (*word & ~0xffu) | step);
	MRS_PROBE("retarget.step");
}

/* ---- ending ---- */

void mrs_retarget_set(struct mrs_retarget *batch, unsigned i, uint64_t entry)
{
	MRS_CHECK(mrs_retarget_has(batch, i) && !mrs_entry_lock(entry));
	MRS_CHECK(mrs_load_relaxed(&batch->entries[i]) >> MRS_ENTRY_LOCK_SHIFT ==
		  batch->txn.index + 1);
	disown(batch, i);
	mrs_entry_put(batch->morsel->pool, &batch->entries[i], entry);
	MRS_PROBE_LEAF("retarget.set", batch, i, entry);
}

void mrs_retarget_drop(struct mrs_retarget *batch, unsigned i)
{
	mrs_retarget_set(batch, i, batch->before[i]);
}

void mrs_retarget_dirty(struct mrs_retarget *batch, unsigned i)
{
	MRS_CHECK(mrs_retarget_has(batch, i));
	batch->before[i] |= MRS_ENTRY_DIRTY;
	mrs_store_release(&batch->entries[i], mrs_entry_locked(batch->before[i], batch->txn.index));
	MRS_PROBE_LEAF("retarget.dirty", batch, i, batch->before[i]);
}

static bool holds_any(const struct mrs_retarget *batch)
{
	uint64_t any = 0;

	for (unsigned i = 0; i < mrs_array_length(batch->locked); i++)
		any |= batch->locked[i];
	return any;
}

void mrs_retarget_abort(struct mrs_retarget *batch)
{
	if (holds_any(batch))
		mrs_fetch_add(
			&mrs_pool_state(batch->morsel->pool)->count[MRS_COUNT_RETARGET_ABORTS], 1);
	for (unsigned i = 0; i < batch->count; i++)
		if (mrs_retarget_has(batch, i))
			mrs_retarget_drop(batch, i);
	MRS_PROBE_BATCH("retarget.aborted", batch, NULL);
	mrs_txn_end(&batch->txn);
}

void mrs_retarget_end(struct mrs_retarget *batch)
{
	MRS_CHECK(!holds_any(batch));
	MRS_PROBE_BATCH("retarget.ending", batch, NULL);
	mrs_txn_end(&batch->txn);
}

/* ---- from one leaf to 512 ---- */

/* The table that was kept for this split, 0 if none was. */
static uint64_t deposit_of(struct mrs_retarget *batch, uint64_t entry)
{
	struct mrs_prop kept;

	if (!mrs_prop_get(batch->morsel->pool, mrs_entry_frame(entry), MRS_PROP_DEPOSIT, &kept))
		return 0;
	return kept.value;
}

int mrs_retarget_split(struct mrs_retarget *batch, unsigned i)
{
	struct mrs_intent *intent = batch->txn.intent;
	uint64_t before = batch->before[i];
	uint64_t deposit = deposit_of(batch, before);
	uint32_t step = mrs_load_relaxed32(&intent->step);
	struct mrs_leaf leaf = {
		.place = &batch->entries[i],
		.entry = mrs_entry_locked(before, batch->txn.index),
		.page = batch->page + ((uint64_t)i << 9),
		.level = 1,
	};
	int rc;

	MRS_CHECK(batch->level == 1 && mrs_retarget_has(batch, i));
	mrs_store_release32(&intent->step, MRS_RETARGET_SPLIT << 8 | MRS_RETARGET_LOCKING);
	rc = mrs_table_split(&batch->morsel->table, &batch->txn, &leaf, deposit, &batch->entries);
	if (rc)
		goto restore_step;
	MRS_PROBE("retarget.split.linked");
	if (deposit)
		mrs_prop_clear(&batch->txn, mrs_entry_frame(before), MRS_PROP_DEPOSIT, NULL);
	aim(batch, &leaf, ENTRIES);
	for (unsigned k = 0; k < ENTRIES; k++)
		own(batch, k, mrs_entry_unlocked(mrs_load_relaxed(&batch->entries[k])));
	mrs_fetch_add(&mrs_pool_state(batch->morsel->pool)->count[MRS_COUNT_SPLITS], 1);
	MRS_PROBE_BATCH("retarget.split.done", batch, NULL);
restore_step:
	mrs_store_release32(&intent->step, (step & ~0xffu) | MRS_RETARGET_LOCKING);
	return rc;
}
