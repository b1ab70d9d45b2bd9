/*
 * Regions, in an array that only grows: blocks of entries, each entry with a sequence number.
 *
 *  1 writer (under mrs_fork_hold(), one at a time): sequence odd; words; sequence even.
 *  2 reader: sequence, even; words; holds the entry (users + 1); full fence; sequence as before.
 *  3 remover: sequence odd; full fence; waits until users is 0; takes the words away; even.
 *  4 By the fences of 2 and 3 either the reader sees the odd sequence and lets go, or the remover
 * sees its hold and waits. Fork takes the writers' lock, so that a child finds no entry half
 * written.
 */
#include "view/regions.h"

#include <errno.h>
#include <stdlib.h>

#include "base/atomic.h"
#include "base/base.h"
#include "pool/internal.h"

#define BLOCK_ENTRIES  256
#define BLOCKS	       1024
#define REMOVE_WAIT_NS 50000

struct entry {
	uint64_t address; /* 0: unused */
	uint64_t bytes;
	uint64_t first;
	uint64_t morsel; /* struct morsel * */
	uint64_t pool;
	uint64_t writable;
	uint64_t listed; /* struct mrs_registered *const * */
	uint32_t sequence;
	uint32_t users;
};

static struct {
	uint64_t block[BLOCKS]; /* struct entry *, atomic */
	uint32_t high;		/* entries below have been used */
} regions;

static struct entry *entry_at(uint32_t index)
{
	/* Pairs with the release in entry_unused(). */
	struct entry *block =
		(struct entry *)(uintptr_t)mrs_load_acquire(&regions.block[index / BLOCK_ENTRIES]);

	return &block[index % BLOCK_ENTRIES];
}

/* Under the writers' lock: an unused entry, of a new block if need be. */
static struct entry *entry_unused(void)
{
	uint32_t high = regions.high;
	struct entry *block;

	for (uint32_t i = 0; i < high; i++)
		if (!mrs_load_relaxed(&entry_at(i)->address) &&
		    !(mrs_load_relaxed32(&entry_at(i)->sequence) & 1))
			return entry_at(i);
	if (high == BLOCKS * BLOCK_ENTRIES)
		return NULL;
	if (high % BLOCK_ENTRIES == 0) {
		block = calloc(BLOCK_ENTRIES, sizeof(*block));
		if (!block)
			return NULL;
		/* Pairs with the acquire in entry_at(). */
		mrs_store_release(&regions.block[high / BLOCK_ENTRIES], (uintptr_t)block);
	}
	/* Pairs with the acquire in mrs_region_find(). */
	mrs_store_release32(&regions.high, high + 1);
	return entry_at(high);
}

static void entry_write(struct entry *entry, const struct mrs_region *region)
{
	mrs_store_relaxed(&entry->address, region->address);
	mrs_store_relaxed(&entry->bytes, region->bytes);
	mrs_store_relaxed(&entry->first, region->first);
	mrs_store_relaxed(&entry->morsel, (uintptr_t)region->morsel);
	mrs_store_relaxed(&entry->pool, (uintptr_t)region->pool);
	mrs_store_relaxed(&entry->writable, region->writable);
	mrs_store_relaxed(&entry->listed, (uintptr_t)region->listed);
}

int mrs_region_add(const struct mrs_region *region)
{
	struct entry *entry;

	mrs_fork_hold();
	entry = entry_unused();
	if (entry) {
		mrs_fetch_add32(&entry->sequence, 1);
		entry_write(entry, region);
		mrs_fetch_add32(&entry->sequence, 1); /* step 1; readers acquire it */
	}
	mrs_fork_release();
	return entry ? 0
		     : mrs_fail(-ENOMEM,
				"no memory to note one more view of evictable memory (at most %u)",
				BLOCKS * BLOCK_ENTRIES);
}

void mrs_region_remove(uint64_t address)
{
	static const struct mrs_region nothing;
	struct entry *entry = NULL;

	mrs_fork_hold();
	for (uint32_t i = 0; i < regions.high && !entry; i++)
		if (mrs_load_relaxed(&entry_at(i)->address) == address &&
		    !(mrs_load_relaxed32(&entry_at(i)->sequence) & 1))
			entry = entry_at(i);
	if (entry)
		mrs_fetch_add32(&entry->sequence, 1);
	mrs_fork_release();
	if (!entry)
		return;
	mrs_full_fence(); /* step 3; pairs with the one in hold_if_inside() */
	while (mrs_load_acquire32(&entry->users))
		mrs_sleep_ns(REMOVE_WAIT_NS);
	mrs_fork_hold();
	entry_write(entry, &nothing);
	mrs_fetch_add32(&entry->sequence, 1);
	mrs_fork_release();
}

/* Step 2. */
static bool hold_if_inside(struct entry *entry, uint64_t address, struct mrs_region *region)
{
	uint32_t sequence = mrs_load_acquire32(&entry->sequence);
	uint64_t start = mrs_load_relaxed(&entry->address);

	if (sequence & 1 || !start || address - start >= mrs_load_relaxed(&entry->bytes))
		return false;
	*region = (struct mrs_region){
		.address = start,
		.bytes = mrs_load_relaxed(&entry->bytes),
		.first = mrs_load_relaxed(&entry->first),
		.morsel = (struct morsel *)(uintptr_t)mrs_load_relaxed(&entry->morsel),
		.pool = (struct morsel_pool *)(uintptr_t)mrs_load_relaxed(&entry->pool),
		.writable = mrs_load_relaxed(&entry->writable),
		.listed =
			(struct mrs_registered *const *)(uintptr_t)mrs_load_relaxed(&entry->listed),
	};
	mrs_fetch_add32(&entry->users, 1);
	mrs_full_fence(); /* pairs with the one in mrs_region_remove() */
	if (mrs_load_acquire32(&entry->sequence) == sequence)
		return true;
	mrs_fetch_sub32(&entry->users, 1);
	return false;
}

bool mrs_region_find(uint64_t address, struct mrs_region *region, uint32_t **hold)
{
	uint32_t high = mrs_load_acquire32(&regions.high);

	for (uint32_t i = 0; i < high; i++) {
		struct entry *entry = entry_at(i);

		if (hold_if_inside(entry, address, region)) {
			*hold = &entry->users;
			return true;
		}
	}
	return false;
}

void mrs_region_release(uint32_t *hold)
{
	mrs_fetch_sub32(hold, 1);
}

void mrs_regions_in_child(struct morsel_pool *pool)
{
	static const struct mrs_region nothing;

	for (uint32_t i = 0; i < regions.high; i++)
		if (entry_at(i)->pool == (uintptr_t)pool) {
			entry_write(entry_at(i), &nothing);
			mrs_store_relaxed32(&entry_at(i)->users, 0);
			mrs_store_relaxed32(&entry_at(i)->sequence, 0);
		}
}
