/*
 * Slots: who is attached, and whether it lives.
 *
 * A slot's word says what it is used for, its lock whether somebody is behind it. The kernel drops
 * the lock when the last copy of the description that took it is closed, which death does; hence
 * the description is never passed on, never mapped, closed by exec, and closed by the child of a
 * fork. The lock comes first: whoever has it may change the word, unless the word says that it is
 * free and stays so.
 *
 *   FREE --lock--> CLAIMED --page ready--> ATTACHED, protocol agreed --close--> FREE
 *                     |  death                                 |  death
 *                     +--------> FREE (by whoever gets the lock)  +--> REAPING --repaired--> FREE
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/probe.h"
#include "pool/internal.h"

static uint64_t word_of(enum mrs_slot_state state, uint64_t generation)
{
	return generation << 8 | state;
}

uint64_t *mrs_slot_word(struct morsel_pool *pool, unsigned slot)
{
	return (uint64_t *)(pool->map + MRS_FRAME_SLOTWORD * MRS_PAGE_BYTES) + slot;
}

static bool set_lock(int fd, unsigned slot, short type)
{
	struct flock lock = {
		.l_type = type,
		.l_whence = SEEK_SET,
		.l_start = (off_t)(MRS_LOCK_SLOT + slot),
		.l_len = 1,
	};

	return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

bool mrs_slot_lock(struct morsel_pool *pool, unsigned slot)
{
	return set_lock(pool->lock_fd, slot, F_WRLCK);
}

void mrs_slot_unlock(struct morsel_pool *pool, unsigned slot)
{
	set_lock(pool->lock_fd, slot, F_UNLCK);
}

uint64_t mrs_pool_slot_generation(struct morsel_pool *pool, unsigned slot)
{
	return mrs_load_acquire(mrs_slot_word(pool, slot)) >> 8;
}

bool mrs_pool_slot_is_attached(struct morsel_pool *pool, unsigned slot)
{
	return (mrs_load_acquire(mrs_slot_word(pool, slot)) & MRS_SLOT_STATE_MASK) ==
	       MRS_SLOT_ATTACHED;
}

bool mrs_pool_slot_is_alive(struct morsel_pool *pool, unsigned slot)
{
	int fd = pool->lock_fd >= 0 ? pool->lock_fd : pool->fd;
	struct flock lock = {
		.l_type = F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = (off_t)(MRS_LOCK_SLOT + slot),
		.l_len = 1,
	};

	if (slot == pool->slot)
		return true;
	/* When in doubt it lives: that costs frames, the opposite would cost somebody's data. */
	return fcntl(fd, F_OFD_GETLK, &lock) || lock.l_type != F_UNLCK;
}

void mrs_pool_each_slot(struct morsel_pool *pool,
			void (*fn)(void *ctx, unsigned slot, struct mrs_slot *shared), void *ctx)
{
	for (unsigned i = 0; i < MRS_SLOTS; i++) {
		/* Pairs with the release in finish_attach(): its page is ready. */
		uint64_t state = mrs_load_acquire(mrs_slot_word(pool, i)) & MRS_SLOT_STATE_MASK;

		if (state == MRS_SLOT_ATTACHED || state == MRS_SLOT_REAPING)
			fn(ctx, i, mrs_pool_slot(pool, i));
	}
}

/* ---- protocol ---- */

struct other {
	struct morsel_pool *pool;
	uint32_t library;
	bool found;
};

static void find_other(void *ctx, unsigned slot, struct mrs_slot *shared)
{
	struct other *other = ctx;

	if (other->found || slot == other->pool->slot || !mrs_pool_slot_is_alive(other->pool, slot))
		return;
	other->found = true;
	other->library = mrs_load_relaxed32(&shared->library);
}

static int protocol_refused(struct morsel_pool *pool, uint32_t protocol, uint32_t library)
{
	return mrs_fail(-EBUSY,
			"%s is in use by processes with libmorsel %u.%u.%u (protocol %u); "
			"this is libmorsel %s (protocol %u): end them first, or use their version",
			pool->path, library >> 16, library >> 8 & 255, library & 255, protocol,
			MORSEL_VERSION_STRING, MRS_PROTOCOL_VERSION);
}

/*
 * All that are attached speak one protocol. 1: an attaching process has listed its slot before it
 * looks at the protocol. 2: who changes the protocol looks at the slots after. So of two libraries
 * that attach at once at least one sees the other; it gives way.
 */
static int agree_on_protocol(struct morsel_pool *pool)
{
	struct mrs_state *state = mrs_pool_state(pool);
	struct other other = {.pool = pool};
	uint32_t protocol;

	mrs_full_fence(); /* between list and look, as step 1 says; pairs with the one below */
	protocol = mrs_load_acquire32(&state->protocol);
	if (protocol == MRS_PROTOCOL_VERSION)
		return 0;
	mrs_pool_each_slot(pool, find_other, &other);
	if (other.found)
		return protocol_refused(pool, protocol, other.library);
	if (!mrs_cas32(&state->protocol, &protocol, MRS_PROTOCOL_VERSION))
		return protocol_refused(pool, protocol, 0);
	mrs_full_fence(); /* between change and look, as step 2 says */
	mrs_pool_each_slot(pool, find_other, &other);
	if (other.found) {
		uint32_t ours = MRS_PROTOCOL_VERSION;

		mrs_cas32(&state->protocol, &ours, protocol);
		return protocol_refused(pool, protocol, other.library);
	}
	return 0;
}

/* ---- attach ---- */

/* The slot's page has memory behind it before anybody reads it. */
int mrs_slot_prepare(struct morsel_pool *pool, unsigned slot)
{
	return mrs_file_reserve(pool, (MRS_FRAME_SLOTS + slot) * MRS_PAGE_BYTES, MRS_PAGE_BYTES,
				"a slot");
}

static void describe_self(struct mrs_slot *shared)
{
	struct timespec now;
	ssize_t length;
	int fd = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);

	memset(shared, 0, sizeof(*shared));
	shared->pid = (uint32_t)getpid();
	shared->library =
		MORSEL_VERSION_MAJOR << 16 | MORSEL_VERSION_MINOR << 8 | MORSEL_VERSION_PATCH;
	clock_gettime(CLOCK_REALTIME, &now);
	shared->attached_ns = now.tv_sec * 1000000000ll + now.tv_nsec;
	if (fd < 0)
		return;
	length = read(fd, shared->program, sizeof(shared->program) - 1);
	if (length > 0 && shared->program[length - 1] == '\n')
		shared->program[length - 1] = 0;
	close(fd);
}

/* The word is CLAIMED and the lock ours. */
static int finish_attach(struct morsel_pool *pool, unsigned slot, uint64_t generation)
{
	uint64_t *word = mrs_slot_word(pool, slot);
	int rc = mrs_slot_prepare(pool, slot);

	if (rc)
		goto free_word;
	MRS_PROBE("pool.attach.claimed");
	describe_self(mrs_pool_slot(pool, slot));
	pool->slot = slot;
	pool->slot_word = word_of(MRS_SLOT_ATTACHED, generation);
	/* Pairs with the acquire in mrs_pool_each_slot(). */
	mrs_store_release(word, pool->slot_word);
	MRS_PROBE("pool.attach.attached");
	rc = agree_on_protocol(pool);
	if (rc)
		goto free_word;
	return 0;
free_word:
	pool->slot = MRS_SLOT_NONE;
	mrs_store_release(word, word_of(MRS_SLOT_FREE, generation));
	return rc;
}

/* 1 attached, 0 not this one, or an error that another slot would meet as well. */
static int try_free_slot(struct morsel_pool *pool, unsigned slot)
{
	uint64_t *word = mrs_slot_word(pool, slot);
	uint64_t seen = mrs_load_acquire(word);
	int rc = 0;

	if ((seen & MRS_SLOT_STATE_MASK) != MRS_SLOT_FREE || !mrs_slot_lock(pool, slot))
		return 0;
	seen = mrs_load_acquire(word);
	if ((seen & MRS_SLOT_STATE_MASK) == MRS_SLOT_FREE &&
	    mrs_cas(word, &seen, word_of(MRS_SLOT_CLAIMED, (seen >> 8) + 1))) {
		rc = finish_attach(pool, slot, (seen >> 8) + 1);
		rc = rc ? rc : 1;
	}
	if (rc <= 0)
		mrs_slot_unlock(pool, slot);
	return rc;
}

/* No slot is free: one whose process is dead is repaired first, in its own place. */
static int try_dead_slot(struct morsel_pool *pool, unsigned slot)
{
	uint64_t *word = mrs_slot_word(pool, slot);
	uint64_t seen;
	int rc;

	if (!mrs_slot_lock(pool, slot))
		return 0;
	rc = mrs_reap_own(pool, slot);
	if (!rc) {
		seen = mrs_load_acquire(word);
		if ((seen & MRS_SLOT_STATE_MASK) == MRS_SLOT_FREE &&
		    mrs_cas(word, &seen, word_of(MRS_SLOT_CLAIMED, (seen >> 8) + 1))) {
			rc = finish_attach(pool, slot, (seen >> 8) + 1);
			rc = rc ? rc : 1;
		}
	}
	if (rc <= 0)
		mrs_slot_unlock(pool, slot);
	return rc == -ETIMEDOUT ? 0 : rc;
}

int mrs_slot_attach(struct morsel_pool *pool)
{
	int rc = 0;

	for (unsigned i = 0; i < MRS_SLOTS && !rc; i++)
		rc = try_free_slot(pool, i);
	for (unsigned i = 0; i < MRS_SLOTS && !rc; i++)
		rc = try_dead_slot(pool, i);
	if (rc > 0)
		return 0;
	return rc ? rc
		  : mrs_fail(-EUSERS,
			     "all %u slots of %s are taken: at most %u processes can "
			     "be attached at once; close a handle or end a process",
			     MRS_SLOTS, pool->path, MRS_SLOTS);
}

void mrs_slot_detach(struct morsel_pool *pool)
{
	unsigned slot = pool->slot;

	if (slot == MRS_SLOT_NONE)
		return;
	for (unsigned i = 0; i < MRS_INTENTS_PER_SLOT; i++)
		morsel_frames_return_local(&pool->frames, slot * MRS_INTENTS_PER_SLOT + i);
	MRS_PROBE("pool.detach.returned");
	pool->slot = MRS_SLOT_NONE;
	/* Pairs with the acquire in try_free_slot(): the next owner sees our last stores. */
	mrs_store_release(mrs_slot_word(pool, slot), word_of(MRS_SLOT_FREE, pool->slot_word >> 8));
	MRS_PROBE("pool.detach.freed");
	mrs_slot_unlock(pool, slot);
}
