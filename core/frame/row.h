/*
 * The row: 512 bits, one per frame of a child; a set bit is an allocated frame. Bits are the truth:
 * who turned a bit from 0 to 1 has the frame. Orders 0 to 6 lie within one of the eight words and
 * change with one atomic operation; 7 and 8 are 2 and 4 words, taken in ascending order, so that
 * the first word decides between two that want the same frame.
 */
#ifndef MRS_FRAME_ROW_H
#define MRS_FRAME_ROW_H

#include "base/atomic.h"

#define ROW_WORDS 8u
#define ROW_BITS  512u

/* How many bits are set; without the processor's instruction, which not every x86-64 has. */
static inline unsigned word_count(uint64_t word)
{
	word -= word >> 1 & 0x5555555555555555u;
	word = (word & 0x3333333333333333u) + (word >> 2 & 0x3333333333333333u);
	word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0fu;
	return (unsigned)(word * 0x0101010101010101u >> 56);
}

/* The low 2^order bits, order at most 6. */
static inline uint64_t word_mask(unsigned order)
{
	return order >= 6 ? UINT64_MAX : ((uint64_t)1 << (1u << order)) - 1;
}

/* The bits of [from, to) of the row that lie in word index. */
static inline uint64_t word_range(unsigned index, unsigned from, unsigned to)
{
	unsigned first = index * 64, end = first + 64;
	uint64_t mask = UINT64_MAX;

	if (from >= end || to <= first)
		return 0;
	if (from > first)
		mask &= UINT64_MAX << (from - first);
	if (to < end)
		mask &= UINT64_MAX >> (end - to);
	return mask;
}

/* The positions at which 2^order aligned zero bits of word begin; order at most 6. */
static inline uint64_t word_blocks(uint64_t word, unsigned order)
{
	static const uint64_t aligned[7] = {
		UINT64_MAX,	     0x5555555555555555u, 0x1111111111111111u, 0x0101010101010101u,
		0x0001000100010001u, 0x0000000100000001u, 0x0000000000000001u,
	};
	uint64_t blocks = ~word;

	for (unsigned o = 0; o < order; o++)
		blocks &= blocks >> (1u << o);
	return blocks & aligned[order];
}

/* How a caller of a row search says which frame it is about to try, before it tries (see local.h).
 */
struct row_search {
	unsigned order; /* 0 to 8 */
	unsigned start; /* where to begin, 0 to 511; the search goes round */
	unsigned from;	/* only frames within [from, to) */
	unsigned to;
	uint64_t base;	   /* number of the row's first frame */
	uint64_t *pending; /* gets the pending word of each try */
	uint64_t *epoch;   /* counts undone tries; see local.h */
};

/*
 * Sets the bits of a free block. Returns its position or -1: none was seen on one way round. An
 * attempt that fails halfway has been undone exactly.
 */
int mrs_frames_row_get(uint64_t *row, const struct row_search *search);

/* True if a free block is seen. */
bool mrs_frames_row_has(const uint64_t *row, const struct row_search *search);

/* Exactly these bits; false, and nothing changed, if one of them is set. order is 0 to 9. */
bool mrs_frames_row_get_at(uint64_t *row, unsigned at, unsigned order);

/* True if all 2^order bits at at are ones (or zeros). order is 0 to 9. */
bool mrs_frames_row_all_ones(const uint64_t *row, unsigned at, unsigned order);
bool mrs_frames_row_all_zeros(const uint64_t *row, unsigned at, unsigned order);

/*
 * Clears the bits. Returns how many were set before: 0 means refused, nothing changed. The first
 * word decides; if it was all ones, the put goes on, and what others put meanwhile is not counted.
 */
unsigned mrs_frames_row_put(uint64_t *row, unsigned at, unsigned order);

/* How many bits are set. */
unsigned mrs_frames_row_count(const uint64_t *row);

/* Clears all bits; returns how many were set. */
static inline unsigned row_empty(uint64_t *row)
{
	unsigned ones = 0;

	for (unsigned i = 0; i < ROW_WORDS; i++)
		ones += word_count(mrs_swap(&row[i], 0));
	return ones;
}

/* Plain stores, for who has the row to itself. */
static inline void row_fill(uint64_t *row, uint64_t word)
{
	for (unsigned i = 0; i < ROW_WORDS; i++)
		mrs_store_relaxed(&row[i], word);
}

#endif
