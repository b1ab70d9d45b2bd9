/*
 * What the tests of swapping share: pages of known content, and saving and loading them the way the
 * evictor does, with the property of a frame as the only name of a slot.
 */
#ifndef TESTS_CORE_SWAP_SUPPORT_H
#define TESTS_CORE_SWAP_SUPPORT_H

#include "core/pool_support.h"
#include "pool/property.h"
#include "support/counts.h"
#include "swap/swap.h"

#include <morsel/swap.h>

#define PAGE 4096u

enum content { NOISE, TEXT, FILLED, MOSTLY_FILLED, CONTENTS };

/* The content that page number n of this kind has; noise cannot be compressed. */
static inline void page_fill(unsigned char *page, uint64_t n, enum content content)
{
	uint64_t random = n * 31 + content, one;

	for (unsigned i = 0; i < PAGE; i += 8) {
		one = test_random(&random);
		if (content == TEXT)
			one = 0x2020202020202020u | (one & 0x0f000f00000f0000u) | n << 40;
		if (content == FILLED)
			one = (n & 255) * 0x0101010101010101u;
		if (content == MOSTLY_FILLED)
			one = i == PAGE - 8 ? (n << 8 | 1) : 0;
		memcpy(page + i, &one, 8);
	}
}

static inline bool page_is(const unsigned char *page, uint64_t n, enum content content)
{
	unsigned char wanted[PAGE];

	page_fill(wanted, n, content);
	return !memcmp(page, wanted, PAGE);
}

static inline int swap_add(struct morsel_pool *pool, const char *path, uint64_t bytes, int priority,
			   unsigned flags)
{
	struct morsel_swap_opts opts = {.size = sizeof(opts),
					.path = path,
					.bytes = bytes,
					.priority = priority,
					.flags = flags};
	unsigned id;
	int rc = morsel_swap_add(pool, &opts, &id);

	return rc ? rc : (int)id;
}

static inline int swap_find(void *ctx, const struct morsel_swap_info *info)
{
	struct morsel_swap_info *wanted = ctx;

	if (info->id != wanted->id)
		return 0;
	*wanted = *info;
	return 1;
}

static inline struct morsel_swap_info swap_info(struct morsel_pool *pool, unsigned id)
{
	struct morsel_swap_info info = {.id = id};

	assert_int_equal(morsel_swap_list(pool, swap_find, &info), 1);
	return info;
}

/* Saves memory[0 ... count) and names the slots by frames first ...; 0 or the error of the save. */
static inline int swap_out(struct morsel_pool *pool, uint64_t first, unsigned char (*memory)[PAGE],
			   unsigned count)
{
	const void *pages[MRS_SWAP_BATCH];
	struct mrs_swap_page page[MRS_SWAP_BATCH];
	struct mrs_txn txn;
	int rc = mrs_txn_begin(pool, MRS_INTENT_RETARGET, &txn);

	for (unsigned i = 0; i < count; i++)
		pages[i] = memory[i];
	if (!rc) {
		rc = mrs_swap_save(mrs_swap_of(pool), &txn, pages, page, count);
		for (unsigned i = 0; i < count && !rc; i++)
			rc = mrs_swap_keep(&txn, first + i, &page[i], 1);
		mrs_txn_end(&txn);
	}
	return rc;
}

static inline int swap_in(struct morsel_pool *pool, uint64_t frame, unsigned char *memory)
{
	struct mrs_swap_page page;
	uint32_t epoch;

	if (!mrs_swap_kept(pool, frame, &page, &epoch))
		return -ENOENT;
	return mrs_swap_load_one(mrs_swap_of(pool), &page, memory);
}

static inline void swap_drop(struct morsel_pool *pool, uint64_t frame)
{
	struct mrs_txn txn;

	assert_int_equal(mrs_txn_begin(pool, MRS_INTENT_FREE, &txn), 0);
	mrs_swap_forget(&txn, frame);
	mrs_txn_end(&txn);
}

#endif
