/*
 * Every invariant of cells and directory, checked with the gate closed.
 *
 *   trie       each word means a cell of the kind it says, with its generation; each node is met
 * once and knows its depth; each name is well-formed, hashed right, and on its own way cells every
 * NODE, DIRENT and NAME cell is met from the trie exactly once; none is CLAIMED or CLEARING; FREE
 * cells, and all at cells_high and beyond, are free and zero
 */
#include <stdio.h>
#include <stdlib.h>

#include "pool/dir_internal.h"

struct check {
	struct mrs_cells *cells;
	void (*report)(void *ctx, const char *finding);
	void *ctx;
	int findings;
	uint64_t high;
	unsigned char *met; /* a bit for each cell below high */
};

static void finding(struct check *check, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void finding(struct check *check, const char *format, ...)
{
	char text[256];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	check->findings++;
	if (check->report)
		check->report(check->ctx, text);
}

/* Notes that the trie reaches this cell. False, and a finding, if it did before. */
static bool meet(struct check *check, mrs_cell cell, const char *as)
{
	uint32_t index = mrs_handle_index(cell);
	unsigned char bit = (unsigned char)(1u << (index & 7));

	if (index >= check->high) {
		finding(check, "directory: a %s lies in cell %u, beyond the %llu in use", as, index,
			(unsigned long long)check->high);
		return false;
	}
	if (check->met[index >> 3] & bit) {
		finding(check, "directory: cell %u, a %s, is reached twice", index, as);
		return false;
	}
	check->met[index >> 3] |= bit;
	return true;
}

static bool was_met(const struct check *check, uint64_t index)
{
	return check->met[index >> 3] >> (index & 7) & 1;
}

/* ---- trie ---- */

static void check_way(struct check *check, const struct mrs_dir_walk *walk,
		      const struct mrs_dir_key *key)
{
	bool right = mrs_dir_walk_digit(walk, 0) == key->hash >> (64 - MRS_DIR_ROOT_BITS);

	for (unsigned depth = 0; right && depth < walk->depth; depth++)
		right = mrs_dir_walk_digit(walk, depth + 1) == mrs_dir_digit(key, depth);
	if (!right)
		finding(check, "directory: \"%s\" is linked where its hash does not lead",
			key->name);
}

static void check_name_cells(struct check *check, mrs_cell dirent)
{
	struct mrs_cell_dirent *cell = mrs_cell_at(check->cells, dirent, MRS_CELL_DIRENT);
	mrs_cell more = cell ? mrs_load_acquire(&cell->more) : 0;

	while (more) {
		struct mrs_cell_name *part = mrs_cell_at(check->cells, more, MRS_CELL_NAME);

		if (!part) {
			finding(check, "directory: dirent %u has more than its name",
				mrs_handle_index(dirent));
			return;
		}
		if (!meet(check, more, "part of a name"))
			return;
		more = mrs_load_acquire(&part->more);
	}
}

static void check_dirent(struct check *check, const struct mrs_dir_walk *walk, mrs_cell dirent)
{
	struct mrs_dir_key key;

	if (!meet(check, dirent, "dirent"))
		return;
	if (!mrs_dirent_read(check->cells, dirent, &key)) {
		finding(check, "directory: cell %u is linked and holds no whole name",
			mrs_handle_index(dirent));
		return;
	}
	if (mrs_dir_check_name(key.name) ||
	    key.hash != mrs_dir_hash(check->cells, key.name, key.bytes))
		finding(check, "directory: the name in cell %u does not fit its hash or is none",
			mrs_handle_index(dirent));
	check_way(check, walk, &key);
	check_name_cells(check, dirent);
}

static void check_node(struct check *check, struct mrs_dir_walk *walk, mrs_cell cell)
{
	struct mrs_cell_node *node = mrs_cell_at(check->cells, cell, MRS_CELL_NODE);

	if (!meet(check, cell, "node")) {
		mrs_dir_walk_skip(walk);
		return;
	}
	/* The walk stands in the node already: it hangs one level higher. */
	if (node && mrs_load_acquire(&node->depth) != walk->depth - 1)
		finding(check, "directory: node %u says depth %llu and hangs at %u",
			mrs_handle_index(cell), (unsigned long long)mrs_load_acquire(&node->depth),
			walk->depth - 1);
}

static void check_trie(struct check *check)
{
	struct mrs_dir_walk walk;
	uint64_t word;

	mrs_dir_walk_begin(&walk, check->cells);
	while (mrs_dir_walk_next(&walk, &word)) {
		mrs_cell cell = mrs_word_handle(word);

		if (walk.damaged || mrs_word_kind(word) > MRS_WORD_NODE)
			finding(check, "directory: the word %#llx leads nowhere",
				(unsigned long long)word);
		else if (mrs_word_kind(word) == MRS_WORD_NODE)
			check_node(check, &walk, cell);
		else
			check_dirent(check, &walk, cell);
	}
}

/* ---- cells ---- */

static void check_free(struct check *check, const uint64_t *header, uint64_t index)
{
	bool clean = !mrs_header_owner_plus_1(mrs_load_acquire(header));

	for (unsigned i = 1; i < MRS_CELL_BYTES / 8; i++)
		clean = clean && !mrs_load_relaxed(&header[i]);
	if (!clean)
		finding(check, "cells: free cell %llu is not zero", (unsigned long long)index);
}

static void check_used(struct check *check, const uint64_t *header, uint64_t index)
{
	static const char *const kinds[] = {[MRS_CELL_NODE] = "node",
					    [MRS_CELL_DIRENT] = "dirent",
					    [MRS_CELL_NAME] = "name part"};
	uint64_t seen = mrs_load_acquire(header);
	enum mrs_cell_kind kind = mrs_header_kind(seen);

	switch (kind) {
	case MRS_CELL_FREE:
		check_free(check, header, index);
		break;
	case MRS_CELL_CLAIMED:
	case MRS_CELL_CLEARING:
		finding(check, "cells: cell %llu is in the middle of a change by slot %d",
			(unsigned long long)index, (int)mrs_header_owner_plus_1(seen) - 1);
		break;
	case MRS_CELL_NODE:
	case MRS_CELL_DIRENT:
	case MRS_CELL_NAME:
		if (!was_met(check, index))
			finding(check, "cells: cell %llu, a %s, is in no directory",
				(unsigned long long)index, kinds[kind]);
		break;
	case MRS_CELL_RECORD:
	case MRS_CELL_OPEN:
	case MRS_CELL_VIEW:
	case MRS_CELL_PIN:
	case MRS_CELL_COHERENCE:
	case MRS_CELL_QUARANTINE:
		break; /* their rooms' to check */
	default:
		finding(check, "cells: cell %llu is of unknown kind %d", (unsigned long long)index,
			(int)kind);
	}
}

static void check_segment(struct check *check, uint64_t first, uint64_t cells)
{
	const uint64_t *header = mrs_cell_header(check->cells, first);

	if (!header) {
		if (first < check->high)
			finding(check, "cells: the segment of cell %llu is missing",
				(unsigned long long)first);
		return;
	}
	for (uint64_t i = 0; i < cells; i++, header += MRS_CELL_BYTES / 8) {
		if (first + i < check->high)
			check_used(check, header, first + i);
		else if (mrs_header_kind(mrs_load_acquire(header)) != MRS_CELL_FREE)
			finding(check, "cells: cell %llu is in use beyond the end",
				(unsigned long long)(first + i));
	}
}

static void check_cells(struct check *check)
{
	unsigned shift = check->cells->segment_order + MRS_CELLS_PER_FRAME_SHIFT;

	for (unsigned i = 0; i < MRS_CELL_SEGMENTS_MAX; i++)
		if (mrs_load_acquire(&check->cells->segments[i]) ||
		    (uint64_t)i << shift < check->high)
			check_segment(check, (uint64_t)i << shift, 1ull << shift);
}

int mrs_dir_validate(struct mrs_cells *cells, void (*report)(void *ctx, const char *finding),
		     void *ctx)
{
	struct check check = {.cells = cells, .report = report, .ctx = ctx};

	check.high = mrs_cells_high(cells);
	if (mrs_load_relaxed(&cells->state->cells_high) != check.high)
		finding(&check, "cells: %llu are said to be in use, %llu is the most",
			(unsigned long long)mrs_load_relaxed(&cells->state->cells_high),
			(unsigned long long)check.high);
	check.met = calloc(check.high / 8 + 1, 1);
	if (!check.met) {
		finding(&check, "directory: no memory to check it with");
		return check.findings;
	}
	check_trie(&check);
	check_cells(&check);
	free(check.met);
	return check.findings;
}
