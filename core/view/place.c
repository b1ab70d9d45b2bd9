/*
 * Where a view goes: at the address that the caller demands, at the one that is the same in every
 * process, or anywhere with the right alignment.
 *
 * Nothing that is mapped is ever replaced (MAP_FIXED_NOREPLACE), but reservations of our own. To
 * get an aligned address in one system call a view is tried just below the one before; if that
 * place is taken, a range that is too large is reserved, mapped over at the aligned address, and
 * its ends are cut off.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/atomic.h"
#include "base/base.h"
#include "base/compat.h"
#include "view/cpu.h"

/*
 * MORSEL_MAP_SAME: morsels stand in a region that neither the kernel's own choice nor the
 * sanitizers use, each at a whole GiB that its identity gives: 16 TiB to 80 TiB.
 */
#define SAME_BASE  (1ull << 44)
#define SAME_SLOTS (1ull << 16)

static uint64_t floor_address; /* of the lowest view: the next goes below it; a hint only */

/* Maps it at base and nowhere else: -EEXIST without words if something is there. */
static int map_at(const struct mrs_cpu_want *want, uint64_t base)
{
	void *want_at = (void *)(uintptr_t)base;
	void *at = mmap(want_at, want->length, want->prot, want->flags | MAP_FIXED_NOREPLACE,
			want->fd, (off_t)want->file_offset);

	if (at == MAP_FAILED)
		return -errno;
	if (at == want_at)
		return 0;
	munmap(at, want->length);
	return -EEXIST;
}

static int map_failed(const struct mrs_cpu_want *want, int rc)
{
	char text[16];

	if (rc == -ENOMEM)
		return mrs_cpu_no_areas(1);
	return mrs_fail_errno(rc, "mmap of %s", mrs_bytes_text(want->length, text));
}

/* The steps of splitmix64: mixes one word into the hash. */
static uint64_t mix(uint64_t hash, uint64_t word)
{
	hash = (hash ^ word) + 0x9e3779b97f4a7c15u;
	hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9u;
	hash = (hash ^ (hash >> 27)) * 0x94d049bb133111ebu;
	return hash ^ (hash >> 31);
}

/* Depends on pool, morsel and offset only: not on size, runs or process. */
static uint64_t same_address(const struct morsel_target *target)
{
	uint64_t word[2];
	uint64_t hash;

	memcpy(word, target->pool_uuid, sizeof(word));
	hash = mix(mix(mix(0, word[0]), word[1]), target->morsel_id);
	return SAME_BASE + hash % SAME_SLOTS * MRS_GIANT_BYTES + target->offset;
}

/* At one address or not at all. what is the option that demands it. */
static int place_at(const struct morsel_target *target, const struct mrs_cpu_want *want,
		    uint64_t address, const char *what, unsigned char **base)
{
	uint64_t at = address - want->lead;
	int rc;

	if ((at - want->phase) & (target->block_bytes - 1))
		return mrs_fail(-EINVAL,
				"%s: address 0x%llx is not congruent to the frames modulo the "
				"pool's blocks of %llu bytes",
				what, (unsigned long long)address,
				(unsigned long long)target->block_bytes);
	rc = map_at(want, at);
	if (rc == -EEXIST)
		return mrs_fail(
			rc,
			"%s: something is mapped at 0x%llx already (another view of this "
			"morsel, or of one whose address collides): map without that option",
			what, (unsigned long long)address);
	if (rc)
		return map_failed(want, rc);
	*base = (unsigned char *)(uintptr_t)at;
	return 0;
}

/* The highest address of the right phase at which length bytes end at or below limit; 0 none. */
static uint64_t below(uint64_t limit, uint64_t length, uint64_t align, uint64_t phase)
{
	uint64_t at;

	if (limit < length + 2 * align)
		return 0;
	at = mrs_round_down(limit - length, align) + phase;
	return at + length > limit ? at - align : at;
}

/* Reserves too much, maps at the aligned address inside, gives the ends back. */
static int place_aligned(const struct mrs_cpu_want *want, unsigned char **base)
{
	uint64_t slack = want->align, length = want->length + slack;
	unsigned char *reserved =
		mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint64_t lead;
	int rc;

	if (reserved == MAP_FAILED)
		return map_failed(want, -errno);
	lead = (want->phase - (uintptr_t)reserved) & (want->align - 1);
	if (mmap(reserved + lead, want->length, want->prot, want->flags | MAP_FIXED, want->fd,
		 (off_t)want->file_offset) == MAP_FAILED) {
		rc = -errno;
		munmap(reserved, length);
		return map_failed(want, rc);
	}
	if (lead)
		munmap(reserved, lead);
	if (slack > lead)
		munmap(reserved + lead + want->length, slack - lead);
	*base = reserved + lead;
	return 0;
}

/* length is in whole blocks, so that what follows and precedes stays aligned to pages. */
static int place_anywhere(const struct mrs_cpu_want *want, unsigned char **base)
{
	uint64_t floor = mrs_load_relaxed(&floor_address);
	uint64_t at = floor ? below(floor, want->length, want->align, want->phase) : 0;
	int rc;

	if (at && !map_at(want, at)) {
		*base = (unsigned char *)(uintptr_t)at;
	} else {
		rc = place_aligned(want, base);
		if (rc)
			return rc;
	}
	mrs_store_relaxed(&floor_address, (uintptr_t)*base);
	return 0;
}

int mrs_cpu_place(const struct morsel_target *target, const struct mrs_cpu_want *want,
		  unsigned char **base)
{
	uint64_t hint = (uintptr_t)target->hint;

	if (target->flags & MORSEL_MAP_SAME)
		return place_at(target, want, same_address(target), "MORSEL_MAP_SAME", base);
	if (target->flags & MORSEL_MAP_FIXED)
		return place_at(target, want, hint, "MORSEL_MAP_FIXED", base);
	if (hint && !((hint - want->lead - want->phase) & (target->block_bytes - 1)) &&
	    !map_at(want, hint - want->lead)) {
		*base = (unsigned char *)(uintptr_t)(hint - want->lead);
		return 0;
	}
	return place_anywhere(want, base);
}

void mrs_cpu_unplace(const unsigned char *base, uint64_t length)
{
	uint64_t mine = (uintptr_t)base;

	/* Last in, first out: repeated mapping does not wander through the address space. */
	mrs_cas(&floor_address, &mine, (uintptr_t)base + length);
}

uint64_t mrs_cpu_align(const struct morsel_target *target, uint64_t bytes)
{
	uint64_t align = bytes >= MRS_GIANT_BYTES  ? MRS_GIANT_BYTES
			 : bytes >= MRS_HUGE_BYTES ? MRS_HUGE_BYTES
						   : MRS_PAGE_BYTES;

	return mrs_max(align, target->block_bytes);
}
