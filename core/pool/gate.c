/*
 * The gate: how a reaper gets the allocator to itself for the length of a repair.
 *
 * state.gate is 0 or slot + 1 of who has closed it; slot.active counts the transitions of a process
 * that may touch shared metadata now.
 *
 *  1. Enter:  active += 1; full fence; if the gate is closed: active -= 1, wait, again.
 *  2. Close:  gate = own slot + 1 by compare-and-swap from 0; full fence; wait until active of
 * every slot that has a living process is 0.
 *  3. Of an entering and a closing process at least one sees the other: each stores before, and
 * loads after, its fence. Hence, when 2 ends, no transition is inside and none gets in.
 *  4. A dead process is not inside: what it was doing is what the repair is for. Its active stays
 * and is not waited for, because its slot's lock is free, or a reaper has it and the word is
 * REAPING.
 *  5. A transition that waits for another process, or reserves much memory, steps outside meanwhile
 *     (mrs_txn_park()): everything it holds is named by its intent and pending record, so a repair
 *     passes by it. Hence who waits inside never waits for who waits for the gate.
 *  6. Whoever closed the gate and died: its slot is dead, and whoever finds the gate closed by a
 * slot without a living process takes the gate over (compare-and-swap from the dead's value),
 * repairs all dead slots, and opens. Repairs can be begun again at any point.
 *  7. A living process that stays inside (stopped, or starved) makes 2 give up after a time: the
 * gate opens, the dead slot stays as it is, and the others go on.
 *  8. A living process that has closed the gate and stands still cannot be replaced: it may be
 * between two stores of its repair, and does the second one when it is continued. So entering gives
 * up instead (-ETIMEDOUT: nothing has begun, nothing to undo) when the gate's beat, which a closer
 * at work moves on, has stood for ENTER_TIMEOUT_NS. What cannot fail goes on waiting: a transition
 * that parked (5), and those of closing and freeing. While they wait they hold no more than the
 * record locks that their intents name, and they are not inside, so no repair waits for them. Their
 * wait ends when the closer is continued, or killed: then by 6.
 *
 * reap_lock makes one closer of all threads of a process; it is taken outside transitions only.
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

#define CLOSE_TIMEOUT_NS 2000000000ll
#define ENTER_TIMEOUT_NS 5000000000ll
#define WAIT_NS		 20000000ll

static void futex_wait(uint32_t *word, uint32_t value, int64_t ns)
{
	struct timespec time = {.tv_nsec = ns};

	syscall(SYS_futex, word, FUTEX_WAIT, value, &time, NULL, 0);
}

static void futex_wake(uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* Is there a living process behind this value of the gate? Step 6. */
static bool closer_is_alive(struct morsel_pool *pool, uint32_t gate)
{
	uint64_t state;

	if (gate - 1 >= MRS_SLOTS)
		return false;
	if (gate - 1 == pool->slot)
		return mrs_load_relaxed32(&pool->gate_mine); /* if too early, reap_lock makes us wait */
	state = mrs_load_acquire(mrs_slot_word(pool, gate - 1)) & MRS_SLOT_STATE_MASK;
	return (state == MRS_SLOT_ATTACHED || state == MRS_SLOT_REAPING) &&
	       mrs_pool_slot_is_alive(pool, gate - 1);
}

bool mrs_gate_is_stuck(struct morsel_pool *pool)
{
	uint32_t gate = mrs_load_acquire32(&mrs_pool_state(pool)->gate);

	return gate && !closer_is_alive(pool, gate);
}

/* Waits a little for the gate to open, and sees to it that it does. */
static void wait_at_gate(struct morsel_pool *pool, uint32_t gate)
{
	uint32_t *word = &mrs_pool_state(pool)->gate;

	futex_wait(word, gate, WAIT_NS);
	if (mrs_load_acquire32(word) == gate && mrs_gate_is_stuck(pool))
		mrs_reap_repair(pool);
}

/* Since when the same closer has shown no progress. */
struct standstill {
	int64_t since_ns; /* 0: not seen yet */
	uint32_t gate;
	uint64_t epoch;
	uint64_t beat;
};

static int closed_too_long(struct morsel_pool *pool, uint32_t gate)
{
	struct mrs_slot *shared = mrs_pool_slot(pool, gate - 1);

	return mrs_fail(-ETIMEDOUT,
			"process %u (%.31s) has closed %s for a repair and stands still: is it "
			"stopped? Continue it, or kill it, and the others take the repair over",
			shared->pid, shared->program, pool->path);
}

/* Step 8: -ETIMEDOUT in words if whoever has closed the gate lives and does nothing. */
static int look_at_closer(struct morsel_pool *pool, uint32_t gate, struct standstill *seen)
{
	struct mrs_state *state = mrs_pool_state(pool);
	uint64_t epoch = mrs_load_relaxed(&state->gate_epoch);
	uint64_t beat = mrs_load_relaxed(&state->gate_beat);
	int64_t now = mrs_now_ns();

	if (!seen->since_ns || seen->gate != gate || seen->epoch != epoch || seen->beat != beat) {
		*seen = (struct standstill){now, gate, epoch, beat};
		return 0;
	}
	if (now - seen->since_ns < ENTER_TIMEOUT_NS || !closer_is_alive(pool, gate))
		return 0;
	return closed_too_long(pool, gate);
}

void mrs_gate_beat(struct morsel_pool *pool)
{
	mrs_fetch_add(&mrs_pool_state(pool)->gate_beat, 1);
}

int mrs_gate_await(struct morsel_pool *pool)
{
	struct standstill seen = {0};
	uint32_t gate;
	int rc = 0;

	while (!rc && (gate = mrs_load_acquire32(&mrs_pool_state(pool)->gate))) {
		rc = look_at_closer(pool, gate, &seen);
		if (!rc)
			wait_at_gate(pool, gate);
	}
	return rc;
}

int mrs_gate_enter(struct morsel_pool *pool, bool patient)
{
	struct standstill seen = {0};
	struct mrs_slot *slot = mrs_pool_slot(pool, pool->slot);
	struct mrs_state *state = mrs_pool_state(pool);

	for (;;) {
		uint32_t gate;
		int rc;

		mrs_fetch_add(&slot->active, 1);
		mrs_full_fence(); /* pairs with the one in mrs_gate_close(): step 3 */
		gate = mrs_load_acquire32(&state->gate);
		if (!gate)
			return 0;
		mrs_fetch_sub(&slot->active, 1);
		rc = patient ? 0 : look_at_closer(pool, gate, &seen);
		if (rc)
			return rc;
		wait_at_gate(pool, gate);
	}
}

void mrs_gate_leave(struct morsel_pool *pool)
{
	/* Release: a closer that sees 0 sees everything that the transition did. */
	mrs_fetch_sub(&mrs_pool_slot(pool, pool->slot)->active, 1);
}

/* Is a living process inside? Step 4. */
static bool is_inside(struct morsel_pool *pool, unsigned slot)
{
	uint64_t state = mrs_load_acquire(mrs_slot_word(pool, slot)) & MRS_SLOT_STATE_MASK;

	if (state != MRS_SLOT_ATTACHED && state != MRS_SLOT_REAPING)
		return false;
	return mrs_load_acquire(&mrs_pool_slot(pool, slot)->active) != 0 &&
	       mrs_pool_slot_is_alive(pool, slot);
}

/* The first slot whose process is inside, or MRS_SLOT_NONE. */
static unsigned who_is_inside(struct morsel_pool *pool)
{
	for (unsigned i = 0; i < MRS_SLOTS; i++)
		if (is_inside(pool, i))
			return i;
	return MRS_SLOT_NONE;
}

static int wait_until_empty(struct morsel_pool *pool)
{
	int64_t end = mrs_now_ns() + CLOSE_TIMEOUT_NS, pause = 1000;
	unsigned slot;

	while ((slot = who_is_inside(pool)) != MRS_SLOT_NONE) {
		if (mrs_now_ns() > end) {
			struct mrs_slot *shared = mrs_pool_slot(pool, slot);

			return mrs_fail(
				-ETIMEDOUT,
				"process %u (%.31s) stays inside a change of %s: "
				"is it stopped? Dead processes cannot be cleaned up meanwhile",
				shared->pid, shared->program, pool->path);
		}
		mrs_sleep_ns(pause);
		pause = mrs_min(2 * pause, 1000000);
	}
	return 0;
}

/* Gets the gate's word; waits for other closers. */
static int take_gate(struct morsel_pool *pool)
{
	uint32_t *word = &mrs_pool_state(pool)->gate, own = pool->slot + 1;
	int64_t end = mrs_now_ns() + 2 * CLOSE_TIMEOUT_NS;

	for (;;) {
		uint32_t gate = mrs_load_acquire32(word);

		if (gate && closer_is_alive(pool, gate)) {
			if (mrs_now_ns() > end)
				return closed_too_long(pool, gate);
			futex_wait(word, gate, WAIT_NS);
		} else if (mrs_cas32(word, &gate, own)) {
			return 0;
		}
	}
}

int mrs_gate_close(struct morsel_pool *pool)
{
	struct mrs_state *state = mrs_pool_state(pool);
	int rc = take_gate(pool);

	if (rc)
		return rc;
	mrs_store_relaxed32(&pool->gate_mine, 1);
	MRS_PROBE("pool.gate.taken");
	mrs_fetch_or(&state->gate_epoch, 1);
	mrs_full_fence(); /* pairs with the one in mrs_gate_enter(): step 3 */
	rc = wait_until_empty(pool);
	MRS_PROBE("pool.gate.closed");
	if (rc)
		mrs_gate_open(pool);
	return rc;
}

void mrs_gate_open(struct morsel_pool *pool)
{
	struct mrs_state *state = mrs_pool_state(pool);

	mrs_fetch_add(&state->gate_epoch, 1);
	mrs_store_relaxed32(&pool->gate_mine, 0);
	/* Release: who enters sees the repaired metadata. Pairs with the load in mrs_gate_enter().
	 */
	mrs_store_release32(&state->gate, 0);
	futex_wake(&state->gate);
	MRS_PROBE("pool.gate.opened");
}
