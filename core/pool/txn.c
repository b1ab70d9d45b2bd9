/*
 * Transitions: every change of metadata runs in one.
 *
 * A process has a few intents, each with an allocator local of its own; a thread keeps to the one
 * it used last, so that its local's reservation serves it again. Waiting for an intent is the only
 * queue, and it is private to the process: a word of busy bits and a futex, no mutex, so that a
 * thread may begin a transition in a handler of SIGBUS. (That signal comes from touching a view,
 * which this library never does inside a transition or with a lock: the interrupted thread is in
 * neither.)
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/probe.h"
#include "pool/internal.h"

#define WORD_WAIT_NS 20000000ll
#define WORD_SPINS   200
#define ORPHAN_WAITS 50 /* a second without an owner: the word was not written by us */

/* What this thread is in; a repair lends it a dead process's intent instead. */
static __thread struct {
	struct morsel_pool *pool;
	unsigned preferred;
	bool repairing;
} thread __attribute__((tls_model("initial-exec"))); /* no allocation at a signal's first use */

bool mrs_txn_inside(struct morsel_pool *pool)
{
	return thread.pool == pool;
}

void mrs_txn_repairing(bool on)
{
	thread.repairing = on;
}

bool mrs_txn_is_repairing(void)
{
	return thread.repairing;
}

#define ALL_BUSY ((1u << MRS_INTENTS_PER_SLOT) - 1)

/* Until one of all is free, or was for a moment. */
static void await_intent(struct morsel_pool *pool)
{
	/* Full barrier; the futex then compares. Pairs with give_intent(): one of the two sees. */
	mrs_fetch_add32(&pool->txn_sleepers, 1);
	syscall(SYS_futex, &pool->txn_busy, FUTEX_WAIT_PRIVATE, ALL_BUSY, NULL, NULL, 0);
	mrs_fetch_sub32(&pool->txn_sleepers, 1);
}

static unsigned take_intent(struct morsel_pool *pool)
{
	static uint32_t next_thread;
	uint32_t busy = mrs_load_relaxed32(&pool->txn_busy);
	unsigned which;

	if (!thread.preferred)
		thread.preferred = 1 + mrs_fetch_add32(&next_thread, 1) % MRS_INTENTS_PER_SLOT;
	do {
		while (busy == ALL_BUSY) {
			await_intent(pool);
			busy = mrs_load_relaxed32(&pool->txn_busy);
		}
		which = thread.preferred - 1;
		if (busy & 1u << which)
			which = (unsigned)__builtin_ctz(~busy);
		/* Acquire: pairs with give_intent(), by whose owner the intent was used before. */
	} while (!mrs_cas32(&pool->txn_busy, &busy, busy | 1u << which));
	return which;
}

static void give_intent(struct morsel_pool *pool, unsigned which)
{
	/* Release, and a full barrier before the look at the sleepers. */
	mrs_fetch_and32(&pool->txn_busy, ~(1u << which));
	if (mrs_load_relaxed32(&pool->txn_sleepers))
		syscall(SYS_futex, &pool->txn_busy, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static int begin(struct morsel_pool *pool, enum mrs_intent_op op, bool patient, struct mrs_txn *txn)
{
	static uint64_t serial = 1; /* of all transitions of this process */
	int rc = mrs_pool_usable(pool, true);
	unsigned which;

	if (rc)
		return rc;
	MRS_CHECK(!thread.pool && !thread.repairing);
	which = take_intent(pool);
	rc = mrs_gate_enter(pool, patient);
	if (rc) {
		give_intent(pool, which);
		return rc;
	}
	*txn = (struct mrs_txn){
		.pool = pool,
		.intent = &mrs_pool_slot(pool, pool->slot)->intent[which],
		.index = pool->slot * MRS_INTENTS_PER_SLOT + which,
	};
	thread.pool = pool;
	/* Program order is enough for a reaper: it reads what a dead process has written. */
	/* Word by word: who settles with a newcomer may be reading the one before. */
	mrs_zero_release((uint64_t *)txn->intent, sizeof(*txn->intent) / 8);
	mrs_store_release(&txn->intent->serial, mrs_fetch_add(&serial, 1));
	mrs_compiler_barrier();
	mrs_store_release32(&txn->intent->op, op);
	MRS_PROBE("pool.txn.begun");
	return 0;
}

int mrs_txn_begin(struct morsel_pool *pool, enum mrs_intent_op op, struct mrs_txn *txn)
{
	return begin(pool, op, op == MRS_INTENT_FREE, txn);
}

int mrs_txn_begin_patiently(struct morsel_pool *pool, enum mrs_intent_op op, struct mrs_txn *txn)
{
	return begin(pool, op, true, txn);
}

void mrs_txn_end(struct mrs_txn *txn)
{
	struct morsel_pool *pool = txn->pool;

	MRS_PROBE("pool.txn.ending");
	mrs_store_release32(&txn->intent->op, MRS_INTENT_NONE);
	thread.pool = NULL;
	mrs_gate_leave(pool);
	give_intent(pool, txn->index % MRS_INTENTS_PER_SLOT);
}

bool mrs_txn_park(struct morsel_pool *pool)
{
	if (!mrs_txn_inside(pool) || thread.repairing)
		return false;
	thread.pool = NULL;
	mrs_gate_leave(pool);
	return true;
}

void mrs_txn_unpark(struct morsel_pool *pool, bool parked)
{
	if (!parked)
		return;
	mrs_gate_enter(pool, true);
	thread.pool = pool;
}

void mrs_txn_pause(struct mrs_txn *txn)
{
	if (mrs_load_relaxed32(&mrs_pool_state(txn->pool)->gate))
		mrs_txn_unpark(txn->pool, mrs_txn_park(txn->pool));
}

/* ---- waiting for a word ---- */

/* Can anybody at all be the owner that a lock word (intent index + 1) names? */
static bool has_owner(struct morsel_pool *pool, uint64_t value)
{
	uint64_t index = value - 1, state;
	unsigned slot = (unsigned)(index / MRS_INTENTS_PER_SLOT);

	if (index >= MRS_LOCALS)
		return false;
	state = mrs_load_acquire(mrs_slot_word(pool, slot)) & MRS_SLOT_STATE_MASK;
	if (state != MRS_SLOT_ATTACHED && state != MRS_SLOT_REAPING)
		return false;
	return mrs_load_acquire32(
		       &mrs_pool_slot(pool, slot)->intent[index % MRS_INTENTS_PER_SLOT].op) !=
	       MRS_INTENT_NONE;
}

static void futex_sleep(uint64_t *word, uint64_t value)
{
	struct timespec time = {.tv_nsec = WORD_WAIT_NS};

	/* The low half, on the byte order that the superblock demands to be ours. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	syscall(SYS_futex, word, FUTEX_WAIT, (uint32_t)value, &time, NULL, 0);
#else
	syscall(SYS_futex, (uint32_t *)word + 1, FUTEX_WAIT, (uint32_t)value, &time, NULL, 0);
#endif
}

void mrs_pool_wait_word(struct morsel_pool *pool, uint64_t *word, uint64_t value)
{
	unsigned orphaned = 0;
	bool parked;

	for (unsigned i = 0; i < WORD_SPINS; i++) {
		if (mrs_load_acquire(word) != value)
			return;
		mrs_spin_hint();
	}
	parked = mrs_txn_park(pool);
	while (mrs_load_acquire(word) == value) {
		futex_sleep(word, value);
		if (mrs_load_acquire(word) != value)
			break;
		mrs_reap_repair(pool);
		orphaned = has_owner(pool, value) ? 0 : orphaned + 1;
		if (orphaned == ORPHAN_WAITS) {
			uint64_t seen = value;

			mrs_log(MRS_LOG_WARN, "%s: a lock without an owner is broken", pool->path);
			mrs_cas(word, &seen, 0);
		}
	}
	mrs_txn_unpark(pool, parked);
}

void mrs_pool_wake_word(uint64_t *word)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
#else
	syscall(SYS_futex, (uint32_t *)word + 1, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
#endif
}
