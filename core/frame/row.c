/*
 * Bits of a row. See row.h.
 *
 * Orders: setting a bit acquires (pairs with the release of the put that cleared it: what the last
 * owner wrote to its bookkeeping of the frame is seen by the next), clearing releases. Both are the
 * acquire-release of the verbs.
 */
#include "frame/row.h"

#include "base/probe.h"
#include "frame/local.h"

/* Sets the bits of mask in one word if all are zero. */
static bool word_set(uint64_t *word, uint64_t mask)
{
	uint64_t seen = mrs_load_relaxed(word);

	do {
		if (seen & mask)
			return false;
	} while (!mrs_cas(word, &seen, seen | mask));
	return true;
}

/* Clears the bits of mask in one word if all are ones. */
static bool word_clear(uint64_t *word, uint64_t mask)
{
	uint64_t seen = mrs_load_relaxed(word);

	do {
		if ((seen & mask) != mask)
			return false;
	} while (!mrs_cas(word, &seen, seen & ~mask));
	return true;
}

static bool words_set(uint64_t *word, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		if (word_set(&word[i], UINT64_MAX)) {
			MRS_PROBE("frame.row.word_set");
			continue;
		}
		/* Ours are the words before i and nothing else. */
		while (i--)
			mrs_store_release(&word[i], 0);
		return false;
	}
	return true;
}

bool mrs_frames_row_get_at(uint64_t *row, unsigned at, unsigned order)
{
	uint64_t *word = &row[at / 64];

	if (order <= 6)
		return word_set(word, word_mask(order) << at % 64);
	return words_set(word, 1u << (order - 6));
}

/* One word, orders 0 to 6. Returns the bit or -1. */
static int word_get(uint64_t *word, const struct row_search *search, uint64_t allowed,
		    unsigned first)
{
	uint64_t seen = mrs_load_relaxed(word);

	for (;;) {
		uint64_t blocks = word_blocks(seen | ~allowed, search->order);
		unsigned bit;

		if (!blocks)
			return -1;
		bit = (unsigned)__builtin_ctzll(blocks);
		pending_store(search->pending,
			      pending_get(search->base + first + bit, search->order));
		MRS_PROBE("frame.row.get");
		if (mrs_cas(word, &seen, seen | word_mask(search->order) << bit))
			return (int)bit;
	}
}

static int row_get_words(uint64_t *row, const struct row_search *search)
{
	unsigned bits = 1u << search->order, blocks = ROW_BITS / bits;
	unsigned first = search->start / bits;

	for (unsigned i = 0; i < blocks; i++) {
		unsigned at = (first + i) % blocks * bits;

		if (at < search->from || at + bits > search->to ||
		    !mrs_frames_row_all_zeros(row, at, search->order))
			continue;
		pending_store(search->pending, pending_get(search->base + at, search->order));
		MRS_PROBE("frame.row.get_words");
		if (words_set(&row[at / 64], bits / 64))
			return (int)at;
		epoch_bump(search->epoch);
	}
	return -1;
}

int mrs_frames_row_get(uint64_t *row, const struct row_search *search)
{
	if (search->order > 6)
		return row_get_words(row, search);
	for (unsigned i = 0; i < ROW_WORDS; i++) {
		unsigned word = (search->start / 64 + i) % ROW_WORDS;
		uint64_t allowed = word_range(word, search->from, search->to);
		int bit = allowed ? word_get(&row[word], search, allowed, word * 64) : -1;

		if (bit >= 0)
			return (int)(word * 64) + bit;
	}
	return -1;
}

bool mrs_frames_row_has(const uint64_t *row, const struct row_search *search)
{
	unsigned bits = 1u << search->order;

	if (search->order > 6) {
		for (unsigned at = 0; at < ROW_BITS; at += bits)
			if (at >= search->from && at + bits <= search->to &&
			    mrs_frames_row_all_zeros(row, at, search->order))
				return true;
		return false;
	}
	for (unsigned i = 0; i < ROW_WORDS; i++) {
		uint64_t allowed = word_range(i, search->from, search->to);

		if (word_blocks(mrs_load_relaxed(&row[i]) | ~allowed, search->order))
			return true;
	}
	return false;
}

static bool row_all(const uint64_t *row, unsigned at, unsigned order, uint64_t value)
{
	const uint64_t *word = &row[at / 64];

	if (order <= 6) {
		uint64_t mask = word_mask(order) << at % 64;

		return (mrs_load_acquire(word) & mask) == (value & mask);
	}
	for (unsigned i = 0; i < 1u << (order - 6); i++)
		if (mrs_load_acquire(&word[i]) != value)
			return false;
	return true;
}

bool mrs_frames_row_all_ones(const uint64_t *row, unsigned at, unsigned order)
{
	return row_all(row, at, order, UINT64_MAX);
}

bool mrs_frames_row_all_zeros(const uint64_t *row, unsigned at, unsigned order)
{
	return row_all(row, at, order, 0);
}

unsigned mrs_frames_row_put(uint64_t *row, unsigned at, unsigned order)
{
	uint64_t *word = &row[at / 64];
	unsigned freed = 64;

	if (order <= 6)
		return word_clear(word, word_mask(order) << at % 64) ? 1u << order : 0;
	if (!mrs_frames_row_all_ones(row, at, order) || !word_clear(word, UINT64_MAX))
		return 0;
	for (unsigned i = 1; i < 1u << (order - 6); i++) {
		MRS_PROBE("frame.row.put_words");
		freed += word_count(mrs_swap(&word[i], 0));
	}
	return freed;
}

unsigned mrs_frames_row_count(const uint64_t *row)
{
	unsigned ones = 0;

	for (unsigned i = 0; i < ROW_WORDS; i++)
		ones += word_count(mrs_load_relaxed(&row[i]));
	return ones;
}
