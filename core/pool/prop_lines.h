/*
 * Lines of properties: the hash table of pool/property.h as an array of cache lines in plain
 *memory.
 *
 *	word	0: key	1: 0	2 ... 7: what is known of a group of neighbouring frames
 *	SHARES	8 frames: 32-bit counts	  other kinds: 3 frames of two words
 *
 *  1. A line belongs to the key that was first put into it (compare-and-swap from 0), for as long
 *as the table lives. So whoever has found a line may add to a count in it without looking again.
 *  2. A key stands in the first line, from the one that its hash says, that had been free; a line
 *     before it stays taken (1). Hence a key is found before the first free line, or is not there,
 *     and never stands twice.
 *  3. A value is there if it is not 0; making, replacing and clearing are one atomic instruction
 *each. So death leaves nothing half done, and a claimed line without values is harmless.
 *  4. Lines without values are left out when the table is copied into another: pool/property.c.
 */
#ifndef MRS_POOL_PROP_LINES_H
#define MRS_POOL_PROP_LINES_H

#include <errno.h>

#include "base/atomic.h"
#include "pool/property.h"

#define MRS_PROP_LINE_WORDS 8
#define MRS_PROP_LINE_BYTES 64
#define MRS_PROP_FIRST_WORD 2
#define MRS_PROP_COUNTS	    8 /* frames of a line of counts */
#define MRS_PROP_PAIRS	    3 /* frames of a line of pairs */
#define MRS_PROP_KIND_BITS  4
#define MRS_PROP_KIND_MASK  ((1u << MRS_PROP_KIND_BITS) - 1)
#define MRS_PROP_COUNT_MAX  INT32_MAX /* a count above is one below 0: see mrs_prop_lines_add() */

struct mrs_prop_lines {
	uint64_t *words;
	unsigned order; /* 2^order lines */
};

static inline bool mrs_prop_is_count(enum mrs_prop_kind kind)
{
	return kind == MRS_PROP_SHARES;
}

static inline uint64_t mrs_prop_frames_of(enum mrs_prop_kind kind)
{
	return mrs_prop_is_count(kind) ? MRS_PROP_COUNTS : MRS_PROP_PAIRS;
}

static inline uint64_t mrs_prop_key(uint64_t frame, enum mrs_prop_kind kind)
{
	return frame / mrs_prop_frames_of(kind) << MRS_PROP_KIND_BITS | kind;
}

/* Where a key's search begins. */
static inline uint64_t mrs_prop_home(uint64_t key, unsigned order)
{
	uint64_t mixed = key * 0x9e3779b97f4a7c15u;

	mixed = (mixed ^ mixed >> 32) * 0xd6e8feb86659fd93u;
	return mixed >> (64 - order);
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
	uint64_t mask = (1ull << lines->order) - 1, at = mrs_prop_home(key, lines->order);

	for (uint64_t i = 0; i <= mask; i++) {
		uint64_t *line = mrs_prop_line(lines, (at + i) & mask);
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
		uint64_t *end, *line = mrs_prop_lines_find(lines, key, &end), none = 0;

		if (line || !end)
			return line;
		if (mrs_cas(end, &none, key)) {
			*claimed = true;
			return end;
		}
		/* Taken in between, perhaps for the same key: 2. */
	}
}

static inline uint32_t *mrs_prop_count_at(uint64_t *line, uint64_t frame)
{
	return (uint32_t *)(line + MRS_PROP_FIRST_WORD) + frame % MRS_PROP_COUNTS;
}

static inline uint64_t *mrs_prop_pair_at(uint64_t *line, uint64_t frame)
{
	return line + MRS_PROP_FIRST_WORD + frame % MRS_PROP_PAIRS * 2;
}

/* What a line says of a frame of its group; false if nothing. */
static inline bool mrs_prop_line_get(uint64_t *line, uint64_t frame, enum mrs_prop_kind kind,
				     struct mrs_prop *prop)
{
	uint64_t pair[2] = {0, 0};

	if (mrs_prop_is_count(kind)) {
		pair[0] = mrs_load_acquire32(mrs_prop_count_at(line, frame));
		if (pair[0] > MRS_PROP_COUNT_MAX)
			return false;
	} else {
		mrs_load_pair(mrs_prop_pair_at(line, frame), pair);
	}
	if (!pair[0])
		return false;
	prop->value = pair[0];
	prop->aux = pair[1];
	return true;
}

/* Makes, replaces or (value 0) clears a value; true if there was one, and *former (may be NULL) is
 * it. */
static inline bool mrs_prop_line_set(uint64_t *line, uint64_t frame, enum mrs_prop_kind kind,
				     const struct mrs_prop *prop, struct mrs_prop *former)
{
	uint64_t seen[2] = {0, 0}, wanted[2] = {prop->value, prop->aux};

	if (mrs_prop_is_count(kind)) {
		uint32_t before = mrs_swap32(mrs_prop_count_at(line, frame), (uint32_t)wanted[0]);

		seen[0] = before > MRS_PROP_COUNT_MAX ? 0 : before;
	} else {
		do
			mrs_load_pair(mrs_prop_pair_at(line, frame), seen);
		while (!mrs_cas_pair(mrs_prop_pair_at(line, frame), seen, wanted));
	}
	if (former && seen[0])
		*former = (struct mrs_prop){.value = seen[0], .aux = seen[1]};
	return seen[0] != 0;
}

/*
 * Adds to a count. -ERANGE: it would go below 0 or too high; nothing has changed then, though where
 * two race to take the last, the count is below 0 for a moment, which readers take for 0.
 */
static inline int mrs_prop_line_add(uint64_t *line, uint64_t frame, int32_t delta, uint64_t *now)
{
	uint32_t *count = mrs_prop_count_at(line, frame), after;

	if (delta < 0 && (int64_t)(int32_t)mrs_load_relaxed32(count) + delta < 0)
		return -ERANGE;
	after = mrs_fetch_add32(count, (uint32_t)delta) + (uint32_t)delta;
	if (after > MRS_PROP_COUNT_MAX) {
		mrs_fetch_sub32(count, (uint32_t)delta);
		return -ERANGE;
	}
	*now = after;
	return 0;
}

static inline bool mrs_prop_line_is_empty(const uint64_t *line)
{
	uint64_t any = 0;

	for (unsigned i = MRS_PROP_FIRST_WORD; i < MRS_PROP_LINE_WORDS; i++)
		any |= line[i];
	return !any;
}

#endif
