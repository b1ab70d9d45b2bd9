/*
 * Lines of properties: the hash table of pool/property.h as an array of cache lines in plain
 * memory.
 *
 *	word	0: key	1: 0	2 ... 7: two words for each of three neighbouring frames
 *
 *  1. A line belongs to the key that was first put into it (compare-and-swap from 0), for as long
 * as the table lives. So whoever has found a line may change a value in it without looking again.
 *  2. A key stands in the first line of its sequence that had been free; a line before it stays
 * taken (1). Hence a key is found before the first free line, or is not there, and never stands
 * twice.
 *  3. A value is there if it is not 0; making, replacing and clearing are one atomic instruction
 * each. So death leaves nothing half done, and a claimed line without values is harmless.
 *  4. Lines without values are left out when the table is copied into another: pool/property.c.
 *
 * Lines of 64 neighbouring groups begin their sequences in one page of 64 lines, in a permutation
 * of its own for each page's worth: frames that are walked in order are met as in an array, and
 * frames with large steps between them do not fall on one another. The sequence goes from page to
 * page.
 */
#ifndef MRS_POOL_PROP_LINES_H
#define MRS_POOL_PROP_LINES_H

#include <stddef.h>

#include "base/atomic.h"

enum mrs_prop_kind {
	MRS_PROP_SHARES =
		1, /* value: references beyond the first, of a data or table frame; no aux */
	MRS_PROP_SWAP = 2, /* value: slot (swap/swap.h); aux: epoch << 32 | CRC-32C of the page */
	MRS_PROP_DEPOSIT = 3, /* value: the table frame kept for the split of the huge leaf here */
};

struct mrs_prop {
	uint64_t value;
	uint64_t aux;
};

#define MRS_PROP_LINE_WORDS 8
#define MRS_PROP_LINE_BYTES 64
#define MRS_PROP_FIRST_WORD 2
#define MRS_PROP_PAIRS	    3 /* frames of a line of pairs */
#define MRS_PROP_KIND_BITS  4
#define MRS_PROP_KIND_MASK  ((1u << MRS_PROP_KIND_BITS) - 1)

struct mrs_prop_lines {
	uint64_t *words;
	unsigned order; /* 2^order lines, at least two pages of them */
};

static inline uint64_t mrs_prop_key(uint64_t frame, enum mrs_prop_kind kind)
{
	return frame / MRS_PROP_PAIRS << MRS_PROP_KIND_BITS | kind;
}

#define MRS_PROP_PAGE_BITS 6 /* lines of a page */

/* The sequence of lines in which a key is looked for. */
struct mrs_prop_way {
	uint64_t page, line;
};

static inline struct mrs_prop_way mrs_prop_way_of(uint64_t key, unsigned order)
{
	uint64_t group = key >> MRS_PROP_KIND_BITS;
	uint64_t mixed = (key >> (MRS_PROP_KIND_BITS + MRS_PROP_PAGE_BITS) << MRS_PROP_KIND_BITS |
			  (key & MRS_PROP_KIND_MASK)) *
			 0x9e3779b97f4a7c15u;

	mixed = (mixed ^ mixed >> 32) * 0xd6e8feb86659fd93u;
	return (struct mrs_prop_way){.page = mixed >> (64 - (order - MRS_PROP_PAGE_BITS)),
				     .line = (group + mixed) & ((1u << MRS_PROP_PAGE_BITS) - 1)};
}

/* The line at step i of the way: all pages at one place, then all at the next. */
static inline uint64_t mrs_prop_way_at(struct mrs_prop_way way, unsigned order, uint64_t i)
{
	uint64_t pages = 1ull << (order - MRS_PROP_PAGE_BITS);
	uint64_t line =
		(way.line + (i >> (order - MRS_PROP_PAGE_BITS))) & ((1u << MRS_PROP_PAGE_BITS) - 1);

	return ((way.page + i) & (pages - 1)) << MRS_PROP_PAGE_BITS | line;
}

static inline uint64_t *mrs_prop_line(const struct mrs_prop_lines *lines, uint64_t index)
{
	return lines->words + index * MRS_PROP_LINE_WORDS;
}

/* The line of the key; else NULL, and *end is the free line where it would be, or NULL if all are
 * taken. */
static inline uint64_t *mrs_prop_lines_find(const struct mrs_prop_lines *lines, uint64_t key,
					    uint64_t **end)
{
	struct mrs_prop_way way = mrs_prop_way_of(key, lines->order);

	for (uint64_t i = 0; i >> lines->order == 0; i++) {
		uint64_t *line = mrs_prop_line(lines, mrs_prop_way_at(way, lines->order, i));
		/* Nothing else was written before the key: no partner. */
		uint64_t seen = mrs_load_relaxed(line);

		if (seen == key)
			return line;
		if (!seen) {
			*end = line;
			return NULL;
		}
	}
	*end = NULL;
	return NULL;
}

/* The line of the key, claimed if need be (*claimed); NULL if all are taken. */
static inline uint64_t *mrs_prop_lines_claim(const struct mrs_prop_lines *lines, uint64_t key,
					     bool *claimed)
{
	*claimed = false;
	for (;;) {
		uint64_t *end = NULL, *line = mrs_prop_lines_find(lines, key, &end), none = 0;

		if (line || !end)
			return line;
		if (mrs_cas(end, &none, key)) {
			*claimed = true;
			return end;
		}
		/* Taken in between, perhaps for the same key: 2. */
	}
}

static inline uint64_t *mrs_prop_pair_at(uint64_t *line, uint64_t frame)
{
	return line + MRS_PROP_FIRST_WORD + frame % MRS_PROP_PAIRS * 2;
}

/* What a line says of a frame of its group; false if nothing. */
static inline bool mrs_prop_line_get(uint64_t *line, uint64_t frame, struct mrs_prop *prop)
{
	uint64_t pair[2];

	mrs_load_pair(mrs_prop_pair_at(line, frame), pair);
	if (!pair[0])
		return false;
	prop->value = pair[0];
	prop->aux = pair[1];
	return true;
}

/* Makes, replaces or (value 0) clears a value; true if there was one, and *former (may be NULL) is
 * it. */
static inline bool mrs_prop_line_set(uint64_t *line, uint64_t frame, const struct mrs_prop *prop,
				     struct mrs_prop *former)
{
	uint64_t seen[2], wanted[2] = {prop->value, prop->value ? prop->aux : 0};

	do
		mrs_load_pair(mrs_prop_pair_at(line, frame), seen);
	while (!mrs_cas_pair(mrs_prop_pair_at(line, frame), seen, wanted));
	if (former && seen[0])
		*former = (struct mrs_prop){.value = seen[0], .aux = seen[1]};
	return seen[0] != 0;
}

static inline bool mrs_prop_line_is_empty(const uint64_t *line)
{
	uint64_t any = 0;

	for (unsigned i = MRS_PROP_FIRST_WORD; i < MRS_PROP_LINE_WORDS; i++)
		any |= line[i];
	return !any;
}

#endif
