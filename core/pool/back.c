/*
 * Memory behind frames: promised only when it is there.
 *
 * A frame number costs nothing; touching it does. mrs_pool_back() asks everyone who may say no
 * (budget, file system, memory cgroup, machine) before it lets the kernel reserve, so that "no" is
 * an answer and not a signal. Truth about what is resident is what the kernel reports (st_blocks).
 *
 * The budget between processes: each adds what it is about to reserve to its slot, then a full
 * fence, then sums st_blocks and all slots. Of two that would exceed it together at least one sees
 * the other. What is being reserved counts twice for a moment (in st_blocks already, in the slot
 * still): hence a refusal is repeated while somebody else is reserving.
 *
 * A free frame has no memory, or memory that reads as zero.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/compat.h"
#include "base/probe.h"
#include "pool/internal.h"
#include "pool/zero.h"

#define HUGE_FRAMES ((uint64_t)1 << MRS_HUGE_ORDER)
#define PARK_FRAMES 512
#define CHUNK_BYTES ((uint64_t)64 << 20)
/* A claim is in both for as long as the kernel needs for CHUNK_BYTES. */
#define BUDGET_WAIT_NS 1000000000ll
/* How long who reserves waits until the pager has made room. */
#define ROOM_WAIT_NS 2000000000ll
#define ROOM_TRIES   16u

static bool is_shmem(const struct morsel_pool *pool)
{
	return pool->kind == MORSEL_POOL_MEMFD || pool->kind == MORSEL_POOL_TMPFS;
}

uint64_t mrs_pool_block_frames(struct morsel_pool *pool)
{
	return pool->kind == MORSEL_POOL_HUGETLB ? HUGE_FRAMES : 1;
}

/* ---- who may say no ---- */

static void sum_reserving(void *ctx, unsigned slot, struct mrs_slot *shared)
{
	(void)slot;
	*(uint64_t *)ctx += mrs_load_acquire(&shared->reserving);
}

/* Evicting needs memory itself, and a fault is never refused: such threads go over the budget. */
static __thread unsigned may_exceed;

/* Who has leaves locked does not wait for room. */
static __thread unsigned may_not_wait;

void mrs_pool_may_wait(bool on)
{
	may_not_wait += on ? -1u : 1;
}

void mrs_pool_may_exceed(bool on)
{
	may_exceed += on ? 1 : -1u;
}

bool mrs_pool_fits(struct morsel_pool *pool, uint64_t frames)
{
	uint64_t budget = mrs_load_acquire(&mrs_pool_state(pool)->budget_frames);

	if (!budget)
		return true;
	mrs_pool_each_slot(pool, sum_reserving, &frames);
	return mrs_pool_charged(pool) + frames <= budget;
}

static int budget_full(struct morsel_pool *pool, uint64_t budget, uint64_t resident,
		       uint64_t frames)
{
	char text[3][16];

	return mrs_fail(-ENOSPC,
			"the budget of %s is full: %s of %s are resident, %s more asked for; free "
			"morsels or raise it (morsel_pool_set_budget)",
			pool->path, mrs_bytes_text(resident * MRS_PAGE_BYTES, text[0]),
			mrs_bytes_text(budget * MRS_PAGE_BYTES, text[1]),
			mrs_bytes_text(frames * MRS_PAGE_BYTES, text[2]));
}

/* frames are claimed in our slot already. */
static int check_budget(struct morsel_pool *pool, uint64_t frames)
{
	uint64_t budget = mrs_load_acquire(&mrs_pool_state(pool)->budget_frames);
	int64_t end = 0;

	while (budget) {
		uint64_t claimed = 0, resident;

		mrs_full_fence(); /* after our own claim; pairs with itself in another process */
		mrs_pool_each_slot(pool, sum_reserving, &claimed);
		resident = mrs_pool_charged(pool);
		if (resident + claimed <= budget)
			break;
		end = end ? end : mrs_now_ns() + BUDGET_WAIT_NS;
		/* The others, who may be threads of ours, only matter while they are at it. */
		if (resident + frames > budget || claimed <= frames || mrs_now_ns() > end)
			return budget_full(pool, budget, resident, frames);
		mrs_sleep_ns(100000);
	}
	return 0;
}

static const char *space_remedy(const struct morsel_pool *pool)
{
	switch (pool->kind) {
	case MORSEL_POOL_HUGETLB:
		return "raise vm.nr_hugepages";
	case MORSEL_POOL_FILE:
		return "remove files from the disk or enlarge it";
	default:
		return "enlarge the tmpfs (mount -o remount,size=...; a container's --shm-size) or "
		       "remove files from it";
	}
}

static int no_space(struct morsel_pool *pool, uint64_t bytes)
{
	char text[2][16];
	struct statvfs fs;
	uint64_t free_bytes = 0;

	if (!fstatvfs(pool->fd, &fs))
		free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	return mrs_fail(-ENOSPC, "the %s of %s is full: %s (%" PRIu64 " bytes) free, %s needed; %s",
			mrs_kind_text(pool->kind), pool->path, mrs_bytes_text(free_bytes, text[0]),
			free_bytes, mrs_bytes_text(bytes, text[1]), space_remedy(pool));
}

/* The file system: f_blocks is 0 where there is no limit (a memfd). */
static int check_space(struct morsel_pool *pool, uint64_t bytes)
{
	struct statvfs fs;

	if (pool->kind == MORSEL_POOL_HUGETLB || fstatvfs(pool->fd, &fs) || !fs.f_blocks)
		return 0;
	return bytes > (uint64_t)fs.f_bavail * fs.f_frsize ? no_space(pool, bytes) : 0;
}

static int check_all(struct morsel_pool *pool, uint64_t frames, unsigned flags)
{
	uint64_t bytes = frames * MRS_PAGE_BYTES;
	int rc = flags & MRS_BACK_OVER_BUDGET || may_exceed ? 0 : check_budget(pool, frames);

	if (!rc)
		rc = check_space(pool, bytes);
	if (!rc && is_shmem(pool))
		rc = mrs_headroom_check(pool, bytes);
	return rc;
}

/* ---- what is there already ---- */

bool mrs_pool_next_content(struct morsel_pool *pool, uint64_t *at, uint64_t end,
			   uint64_t *content_end)
{
	off_t data = lseek(pool->lock_fd, (off_t)*at, SEEK_DATA), hole;

	if (data < 0 || (uint64_t)data >= end)
		return false;
	hole = lseek(pool->lock_fd, data, SEEK_HOLE);
	*at = mrs_round_down((uint64_t)data, MRS_PAGE_BYTES);
	*content_end = hole < 0 || (uint64_t)hole > end
			       ? end
			       : mrs_round_up((uint64_t)hole, MRS_PAGE_BYTES);
	return true;
}

uint64_t mrs_pool_lacks(struct morsel_pool *pool, uint64_t frame, uint64_t count)
{
	uint64_t at = frame * MRS_PAGE_BYTES, end = (frame + count) * MRS_PAGE_BYTES, next;

	while (mrs_pool_next_content(pool, &at, end, &next)) {
		count -= (next - at) >> MRS_PAGE_SHIFT;
		at = next;
	}
	return count;
}

static void punch(struct morsel_pool *pool, uint64_t offset, uint64_t bytes)
{
	int rc;

	do
		rc = fallocate(pool->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
			       (off_t)bytes);
	while (rc && errno == EINTR);
}

/* Gives back what was reserved of a range and never written. */
static void punch_without_content(struct morsel_pool *pool, uint64_t frame, uint64_t count)
{
	uint64_t at = frame * MRS_PAGE_BYTES, end = (frame + count) * MRS_PAGE_BYTES;
	uint64_t content = at, next;

	while (mrs_pool_next_content(pool, &content, end, &next)) {
		if (content > at)
			punch(pool, at, content - at);
		at = content = next;
	}
	if (at < end)
		punch(pool, at, end - at);
}

/* ---- huge folios ---- */

static bool collapse(struct morsel_pool *pool, uint64_t frame)
{
	unsigned char *at = pool->map + frame * MRS_PAGE_BYTES;

	/* EAGAIN: a page was locked or isolated for a moment. */
	for (int i = 0; i < 4; i++) {
		if (!madvise(at, MRS_HUGE_BYTES, MADV_COLLAPSE))
			return true;
		if (errno != EAGAIN && errno != EBUSY)
			break;
	}
	return false;
}

/*
 * Which blocks became huge by this call and held nothing before: what an undo may take away. One
 * bit a block; without allocating for a few, which a fault may want in a handler of a signal.
 */
struct fresh {
	uint64_t first; /* frame of the first whole block */
	uint64_t blocks;
	uint64_t *bit;
	uint64_t few;
};

static void whole_blocks(uint64_t frame, uint64_t count, struct fresh *fresh)
{
	uint64_t end = mrs_round_down(frame + count, HUGE_FRAMES);

	fresh->first = mrs_round_up(frame, HUGE_FRAMES);
	fresh->blocks = end > fresh->first ? (end - fresh->first) / HUGE_FRAMES : 0;
	fresh->bit = NULL;
	fresh->few = 0;
}

/*
 * A huge folio straight away: one page of the block, and the collapse makes the other 511 as zeros.
 * The kernel refuses a block that is wholly empty (EINVAL), and collapsing a filled one copies it.
 */
static uint64_t back_huge(struct morsel_pool *pool, struct fresh *fresh)
{
	uint64_t huge = 0;

	if (!is_shmem(pool) || pool->super.no_huge || !fresh->blocks)
		return 0;
	fresh->bit = fresh->blocks <= 64 ? &fresh->few : calloc((fresh->blocks + 63) / 64, 8);
	for (uint64_t i = 0; i < fresh->blocks && fresh->bit; i++) {
		uint64_t frame = fresh->first + i * HUGE_FRAMES;
		bool empty = mrs_pool_lacks(pool, frame, HUGE_FRAMES) == HUGE_FRAMES;

		if (fallocate(pool->fd, 0, (off_t)(frame * MRS_PAGE_BYTES), MRS_PAGE_BYTES))
			break;
		if (!collapse(pool, frame)) {
			/* What one block is refused for (memory, support) the next will be too. */
			if (errno == ENOMEM || errno == EINVAL)
				break;
			continue;
		}
		MRS_PROBE("pool.back.collapsed");
		huge += HUGE_FRAMES;
		if (empty)
			fresh->bit[i / 64] |= 1ull << i % 64;
	}
	return huge;
}

static void undo_huge(struct morsel_pool *pool, const struct fresh *fresh)
{
	for (uint64_t i = 0; i < fresh->blocks && fresh->bit; i++)
		if (fresh->bit[i / 64] >> i % 64 & 1)
			punch(pool, (fresh->first + i * HUGE_FRAMES) * MRS_PAGE_BYTES,
			      MRS_HUGE_BYTES);
}

/* ---- reserving ---- */

/* In pieces: an interrupted fallocate begins anew, and must come to an end between two signals. */
static int reserve(struct morsel_pool *pool, uint64_t offset, uint64_t bytes)
{
	while (bytes) {
		uint64_t piece = mrs_min(bytes, CHUNK_BYTES);

		if (fallocate(pool->fd, 0, (off_t)offset, (off_t)piece)) {
			if (errno != EINTR)
				return -errno;
			continue;
		}
		offset += piece;
		bytes -= piece;
	}
	return 0;
}

static int reserve_failed(struct morsel_pool *pool, int rc, uint64_t bytes)
{
	if (rc == -ENOSPC || rc == -ENOMEM || rc == -EDQUOT)
		return no_space(pool, bytes);
	return mrs_fail_errno(rc, "cannot reserve memory for %s", pool->path);
}

static int back_range(struct morsel_pool *pool, uint64_t frame, uint64_t count, unsigned flags,
		      uint64_t *huge)
{
	struct fresh fresh;
	int rc;

	whole_blocks(frame, count, &fresh);
	*huge = flags & MRS_BACK_HUGE ? back_huge(pool, &fresh) : 0;
	rc = reserve(pool, frame * MRS_PAGE_BYTES, count * MRS_PAGE_BYTES);
	MRS_PROBE("pool.back.reserved");
	if (rc) {
		rc = reserve_failed(pool, rc, count * MRS_PAGE_BYTES);
		undo_huge(pool, &fresh);
		if (pool->kind != MORSEL_POOL_HUGETLB)
			punch_without_content(pool, frame, count);
	}
	if (pool->kind == MORSEL_POOL_HUGETLB)
		*huge = count;
	if (fresh.bit != &fresh.few)
		free(fresh.bit);
	return rc;
}

/* Claims against the budget in our slot, so that others count it. */
static int claim(struct morsel_pool *pool, uint64_t frame, uint64_t *count, unsigned flags)
{
	uint64_t *reserving = &mrs_pool_slot(pool, pool->slot)->reserving, missing;
	int rc;

	mrs_fetch_add(reserving, *count);
	rc = check_all(pool, *count, flags);
	if (!rc)
		return 0;
	/* Much of it may be there already: ask precisely before refusing. */
	missing = mrs_pool_lacks(pool, frame, *count);
	mrs_fetch_sub(reserving, *count - missing);
	if (missing < *count)
		rc = missing ? check_all(pool, missing, flags) : 0;
	*count = missing;
	if (rc)
		mrs_fetch_sub(reserving, missing);
	return rc;
}

/*
 * After a refusal, nothing claimed: has the pager evict something, if it is the budget that is
 * full. It may have done so a moment ago, of itself.
 */
static bool room_was_made(struct morsel_pool *pool, uint64_t frames)
{
	if (!mrs_object_repair.make_room || mrs_txn_is_repairing() || may_exceed || may_not_wait ||
	    !mrs_load_acquire(&mrs_pool_state(pool)->budget_frames))
		return false;
	return mrs_pool_fits(pool, frames) ||
	       !mrs_object_repair.make_room(pool, frames, ROOM_WAIT_NS);
}

/* What was made may have been taken by another before it was claimed. */
static int claim_patiently(struct morsel_pool *pool, uint64_t frame, uint64_t *count,
			   unsigned flags)
{
	uint64_t whole = *count;
	int rc = claim(pool, frame, count, flags);

	for (unsigned i = 0; rc == -ENOSPC && i < ROOM_TRIES && room_was_made(pool, *count); i++) {
		*count = whole;
		rc = claim(pool, frame, count, flags);
	}
	return rc;
}

int mrs_pool_back(struct mrs_txn *txn, uint64_t frame, uint64_t count, unsigned flags,
		  uint64_t *huge)
{
	struct morsel_pool *pool = txn->pool;
	uint64_t block = mrs_pool_block_frames(pool), claimed, got = 0;
	bool parked = false;
	int rc;

	if (!count || !mrs_pool_at(pool, frame, count) || frame < pool->super.frame_data)
		return mrs_fail(-EINVAL,
				"frames %" PRIu64 " + %" PRIu64 " are not data frames of %s", frame,
				count, pool->path);
	count = mrs_round_up(frame + count, block) - mrs_round_down(frame, block);
	frame = mrs_round_down(frame, block);
	if (flags & MRS_BACK_HUGE && count == HUGE_FRAMES && mrs_zero_was_taken(frame) &&
	    !mrs_pool_lacks(pool, frame, count)) {
		if (huge)
			*huge = count;
		return 0;
	}
	claimed = count;
	rc = claim_patiently(pool, frame, &claimed, flags);
	if (rc)
		return rc;
	MRS_PROBE("pool.back.claimed");
	if (count > PARK_FRAMES)
		parked = mrs_txn_park(pool);
	rc = back_range(pool, frame, count, flags, &got);
	mrs_fetch_sub(&mrs_pool_slot(pool, pool->slot)->reserving, claimed);
	mrs_txn_unpark(pool, parked);
	if (!rc && huge)
		*huge = got;
	return rc;
}

/* Zeroes what is left of a range where holes cannot be punched that small; touches no hole. */
static void zero_rest(struct morsel_pool *pool, uint64_t frame, uint64_t count)
{
	static const unsigned char zero[MRS_PAGE_BYTES];
	unsigned char page[MRS_PAGE_BYTES];

	for (uint64_t i = frame; i < frame + count; i++) {
		ssize_t got = pread(pool->fd, page, sizeof(page), (off_t)(i * MRS_PAGE_BYTES));

		if (got > 0 && memcmp(page, zero, (size_t)got))
			memset(pool->map + i * MRS_PAGE_BYTES, 0, MRS_PAGE_BYTES);
	}
}

void mrs_pool_unback(struct morsel_pool *pool, uint64_t frame, uint64_t count)
{
	uint64_t block = mrs_pool_block_frames(pool), end = frame + count, first, last;
	int rc;

	if (!count || !mrs_pool_at(pool, frame, count) || frame < pool->super.frame_data)
		return;
	if (mrs_txn_is_repairing())
		mrs_gate_beat(pool);
	do
		rc = fallocate(pool->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       (off_t)(frame * MRS_PAGE_BYTES), (off_t)(count * MRS_PAGE_BYTES));
	while (rc && errno == EINTR);
	if (rc) {
		zero_rest(pool, frame, count);
		return;
	}
	/* Of hugetlb blocks the kernel takes away whole ones; older ones leave the rest as it is.
	 */
	first = mrs_min(mrs_round_up(frame, block), end);
	last = mrs_max(mrs_round_down(end, block), first);
	zero_rest(pool, frame, first - frame);
	zero_rest(pool, last, end - last);
}

int mrs_pool_punch(struct morsel_pool *pool, uint64_t frame, uint64_t count)
{
	int rc;

	if (!count || !mrs_pool_at(pool, frame, count) || frame < pool->super.frame_data)
		return mrs_fail(-EINVAL,
				"frames %" PRIu64 " + %" PRIu64 " are not data frames of %s", frame,
				count, pool->path);
	do
		rc = fallocate(pool->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       (off_t)(frame * MRS_PAGE_BYTES), (off_t)(count * MRS_PAGE_BYTES));
	while (rc && errno == EINTR);
	return rc ? mrs_fail_errno(-errno, "cannot punch a hole into %s", pool->path) : 0;
}

int mrs_pool_make_huge(struct morsel_pool *pool, uint64_t frame, uint64_t count, uint64_t *huge)
{
	struct fresh whole;
	uint64_t got = 0;

	if (!count || !mrs_pool_at(pool, frame, count))
		return mrs_fail(-EINVAL, "frames %" PRIu64 " + %" PRIu64 " are not of %s", frame,
				count, pool->path);
	if (pool->kind == MORSEL_POOL_HUGETLB) {
		*huge = count;
		return 0;
	}
	if (!is_shmem(pool) || pool->super.no_huge)
		return mrs_fail(-EOPNOTSUPP, "%s has no huge folios: %s", pool->path,
				is_shmem(pool) ? "it was created with MORSEL_POOL_NO_HUGE"
					       : "only memfd, tmpfs and hugetlbfs pools do");
	whole_blocks(frame, count, &whole);
	for (uint64_t i = 0; i < whole.blocks; i++)
		got += collapse(pool, whole.first + i * HUGE_FRAMES) ? HUGE_FRAMES : 0;
	if (got < whole.blocks * HUGE_FRAMES)
		return mrs_fail(-ENOMEM,
				"the kernel made %" PRIu64 " of %" PRIu64 " huge folios for "
				"%s: memory is short or fragmented, or this kernel has no "
				"MADV_COLLAPSE (6.1)",
				got / HUGE_FRAMES, whole.blocks, pool->path);
	*huge = got;
	return 0;
}
