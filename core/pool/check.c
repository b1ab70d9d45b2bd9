/*
 * The full check: is every frame owned by exactly one, or free?
 *
 * The gate is closed, so nothing moves. Every owner names its frames into a bitmap; what is named
 * twice, named and free, or allocated and not named is a finding. Frames that a transition outside
 * the gate holds (parked, or of a dead process) are named by their pending records and pass.
 * Nothing that is read is believed: a hostile file gives findings, not accesses outside.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/atomic.h"
#include "object/object.h"
#include "pool/internal.h"
#include "pool/property.h"
#include "pool/zero.h"
#include "swap/swap.h"

#define REAPERS_NS 5000000000ll

struct check {
	struct morsel_pool *pool;
	morsel_report_fn report;
	void *ctx;
	int findings;
	uint64_t end;
	uint64_t *owned; /* bit per frame */
	size_t owned_bytes;
};

static void finding(void *ctx, const char *text)
{
	struct check *check = ctx;

	check->findings++;
	if (check->report)
		check->report(check->ctx, text);
}

static void say(struct check *check, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(struct check *check, const char *format, ...)
{
	char text[256];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	finding(check, text);
}

/* ---- superblocks and slots ---- */

static void check_supers(struct check *check)
{
	const struct mrs_super *copy = (const struct mrs_super *)check->pool->map;

	for (int i = 0; i < 2; i++)
		if (mrs_super_check(&copy[i], check->pool->path, check->pool->read_only))
			say(check, "superblock %c: %.200s", 'A' + i, morsel_errormsg());
}

static void check_slots(struct check *check)
{
	for (unsigned i = 0; i < MRS_SLOTS; i++) {
		uint64_t state =
			mrs_load_acquire(mrs_slot_word(check->pool, i)) & MRS_SLOT_STATE_MASK;

		if (state != MRS_SLOT_FREE && !mrs_pool_slot_is_alive(check->pool, i))
			say(check, "slot %u: its process is dead and not cleaned up", i);
	}
}

/* ---- frames ---- */

/* A long check is no standstill: those who wait for it go on waiting. */
static void beat(struct morsel_pool *pool)
{
	if (!pool->read_only)
		mrs_gate_beat(pool);
}

static bool mark(struct check *check, uint64_t frame)
{
	uint64_t *word = &check->owned[frame / 64], bit = 1ull << frame % 64;
	bool before = *word & bit;

	*word |= bit;
	return before;
}

static void owned(void *ctx, uint64_t frame, uint64_t count, const char *by)
{
	struct check *check = ctx;
	uint64_t twice = 0, free_frames = 0, where_twice = 0, where_free = 0;

	beat(check->pool);
	if (frame >= check->end || count > check->end - frame) {
		say(check, "%s: frames %" PRIu64 " + %" PRIu64 " are beyond the pool", by, frame,
		    count);
		return;
	}
	for (uint64_t i = frame; i < frame + count; i++) {
		if (mark(check, i) && !twice++)
			where_twice = i;
		if (!morsel_frames_is_allocated(&check->pool->frames, i, 0) && !free_frames++)
			where_free = i;
	}
	if (twice)
		say(check, "%s: %" PRIu64 " frames from %" PRIu64 " have another owner as well", by,
		    twice, where_twice);
	if (free_frames)
		say(check, "%s: %" PRIu64 " frames from %" PRIu64 " are free in the allocator", by,
		    free_frames, where_free);
}

static void check_unowned_block(struct check *check, uint64_t first)
{
	uint64_t lost = 0, where = 0;

	for (uint64_t i = first; i < first + MORSEL_FRAMES_HUGE; i++)
		if (!(check->owned[i / 64] >> i % 64 & 1) &&
		    morsel_frames_is_allocated(&check->pool->frames, i, 0) &&
		    !mrs_reap_is_named(check->pool, i, 1, MRS_SLOT_NONE) && !lost++)
			where = i;
	if (lost)
		say(check, "%" PRIu64 " frames from %" PRIu64 " are allocated and owned by nobody",
		    lost, where);
}

static void check_unowned(struct check *check, uint64_t online)
{
	for (uint64_t at = 0; at < online; at += MORSEL_FRAMES_HUGE)
		if (!morsel_frames_is_free(&check->pool->frames, at, MORSEL_FRAMES_HUGE_ORDER)) {
			beat(check->pool);
			check_unowned_block(check, at);
		}
}

static void check_allocator(struct check *check)
{
	const char *what;
	uint64_t where;

	if (morsel_frames_validate(&check->pool->frames, &what, &where))
		say(check, "allocator at frame %" PRIu64 ": %s", where, what);
}

/* The first frame that is offline, as the allocator says and not as the file claims. */
static uint64_t online_end(struct check *check)
{
	uint64_t claimed = mrs_load_acquire(&mrs_pool_state(check->pool)->online_end);
	uint64_t at = mrs_round_down(mrs_min(claimed, check->end), MORSEL_FRAMES_HUGE);

	if (claimed > check->end)
		say(check,
		    "the state says that frames below %" PRIu64 " are online; the pool ends "
		    "at %" PRIu64,
		    claimed, check->end);
	while (at && !morsel_frames_is_online(&check->pool->frames, at - 1))
		at -= MORSEL_FRAMES_HUGE;
	return at;
}

static void check_content(struct check *check)
{
	struct morsel_pool *pool = check->pool;

	check_allocator(check);
	mrs_dir_validate(mrs_pool_cells(pool), finding, check);
	owned(check, 0, pool->super.frame_data, "the pool's metadata");
	mrs_prop_owned(pool, owned, check);
	mrs_swap_owned(pool, owned, check);
	mrs_zero_owned(pool, owned, check);
	check->findings += mrs_prop_validate(pool, check->report, check->ctx);
	check->findings += mrs_swap_validate(pool, check->report, check->ctx);
	mrs_object_repair.walk(pool, owned, finding, check);
	check_unowned(check, online_end(check));
}

static void open_gate(struct morsel_pool *pool)
{
	if (pool->read_only)
		return;
	mrs_gate_open(pool);
	pthread_mutex_unlock(&pool->reap_lock);
}

static bool is_reaped(struct morsel_pool *pool, unsigned slot)
{
	uint64_t state = mrs_load_acquire(mrs_slot_word(pool, slot)) & MRS_SLOT_STATE_MASK;

	/* By another thread of this process, which has let go of the reap_lock, or by another one.
	 */
	return (pool->reaping[slot / 64] >> slot % 64 & 1) ||
	       (state == MRS_SLOT_REAPING && slot != pool->slot &&
		mrs_pool_slot_is_alive(pool, slot));
}

/* A slot whose living reaper has not come to its end; or MRS_SLOT_NONE. */
static unsigned who_is_reaped(struct morsel_pool *pool)
{
	for (unsigned i = 0; i < MRS_SLOTS; i++)
		if (is_reaped(pool, i))
			return i;
	return MRS_SLOT_NONE;
}

/*
 * Reapers prepare and finish outside the gate, and may be waiting for it: what they have yet to
 * repair is no damage. So the check waits for them.
 */
static int close_gate(struct morsel_pool *pool)
{
	int64_t end = mrs_now_ns() + REAPERS_NS;
	unsigned slot;
	int rc;

	if (pool->read_only)
		return 0;
	for (;;) {
		mrs_reap_all(pool);
		pthread_mutex_lock(&pool->reap_lock);
		rc = mrs_gate_close(pool);
		if (rc) {
			pthread_mutex_unlock(&pool->reap_lock);
			return rc;
		}
		slot = who_is_reaped(pool);
		if (slot == MRS_SLOT_NONE)
			return 0;
		open_gate(pool);
		if (mrs_now_ns() > end)
			return mrs_fail(-ETIMEDOUT,
					"somebody has been cleaning up slot %u of %s for "
					"seconds: is that process stopped? Nothing can be checked "
					"meanwhile",
					slot, pool->path);
		mrs_sleep_ns(1000000);
	}
}

int morsel_pool_check(struct morsel_pool *pool, morsel_report_fn report, void *ctx)
{
	struct check check = {.pool = pool, .report = report, .ctx = ctx};
	int rc = mrs_pool_usable(pool, false);

	if (rc)
		return rc;
	check.end = mrs_pool_frames_end(pool);
	check.owned_bytes = mrs_round_up(check.end / 8 + 8, MRS_PAGE_BYTES);
	check.owned = mmap(NULL, check.owned_bytes, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (check.owned == MAP_FAILED)
		return mrs_fail_errno(-ENOMEM, "no memory to check %s", pool->path);
	rc = close_gate(pool);
	if (!rc) {
		check_supers(&check);
		check_slots(&check);
		check_content(&check);
		open_gate(pool);
	}
	munmap(check.owned, check.owned_bytes);
	return rc ? rc : check.findings;
}
