/*
 * What the files of cells and directory share. The words here are values: a header, a handle and a
 * trie word are taken apart and put together by plain functions.
 *
 *   header     kind 0-3 | owner slot + 1, 4-15 | generation 32-62
 *   handle     index 0-31 | generation 32-62
 *   trie word  kind 0-1 | generation 2-32 | index 33-63
 */
#ifndef MRS_POOL_DIR_INTERNAL_H
#define MRS_POOL_DIR_INTERNAL_H

#include "base/atomic.h"
#include "base/base.h"
#include "pool/dir.h"

#define MRS_GENERATION_MASK	  0x7fffffffull
#define MRS_CELLS_PER_FRAME_SHIFT 5
#define MRS_NAME_BYTES_MAX	  255

#define MRS_DIR_ROOT_BITS 12
#define MRS_DIR_NODE_BITS 3
/* Depths whose digit is taken from the hash; below it is taken from the name. */
#define MRS_DIR_HASH_DEPTHS 17
/* A word at this depth would tell two names apart that are equal: no node hangs there. */
#define MRS_DIR_DEPTH_MAX (MRS_DIR_HASH_DEPTHS + (8 * (MRS_NAME_BYTES_MAX + 1) + 2) / 3)

enum mrs_word_kind { MRS_WORD_EMPTY = 0, MRS_WORD_DIRENT = 1, MRS_WORD_NODE = 2 };

static inline uint64_t mrs_handle_make(uint64_t index, uint64_t generation)
{
	return index | generation << 32;
}

static inline uint32_t mrs_handle_index(mrs_cell cell)
{
	return (uint32_t)cell;
}

static inline uint64_t mrs_handle_generation(mrs_cell cell)
{
	return cell >> 32;
}

static inline uint64_t mrs_header_make(enum mrs_cell_kind kind, unsigned owner_plus_1,
				       uint64_t generation)
{
	return (uint64_t)kind | (uint64_t)owner_plus_1 << 4 | generation << 32;
}

static inline enum mrs_cell_kind mrs_header_kind(uint64_t header)
{
	return (enum mrs_cell_kind)(header & 15);
}

static inline unsigned mrs_header_owner_plus_1(uint64_t header)
{
	return header >> 4 & 0xfff;
}

static inline uint64_t mrs_header_generation(uint64_t header)
{
	return header >> 32;
}

static inline enum mrs_word_kind mrs_word_kind(uint64_t word)
{
	return (enum mrs_word_kind)(word & 3);
}

static inline uint64_t mrs_word_make(enum mrs_word_kind kind, mrs_cell cell)
{
	return (uint64_t)kind | mrs_handle_generation(cell) << 2 |
	       (uint64_t)mrs_handle_index(cell) << 33;
}

static inline mrs_cell mrs_word_handle(uint64_t word)
{
	return mrs_handle_make(word >> 33, word >> 2 & MRS_GENERATION_MASK);
}

/* ---- cell.c ---- */

/* Most cells that there can be with this segment size; indices fit a trie word's 31 bits. */
uint64_t mrs_cells_max(const struct mrs_cells *cells);
/* Cells below are or were in use: cells_high, made plausible. */
uint64_t mrs_cells_high(const struct mrs_cells *cells);
/* The header of the cell with this index, and so its memory; NULL where no segment is. */
uint64_t *mrs_cell_header(const struct mrs_cells *cells, uint64_t index);

/* ---- dirent.c ---- */

/* What a dirent says, copied consistently. Digits of the way through the trie come from here. */
struct mrs_dir_key {
	uint64_t hash;
	mrs_cell target;
	unsigned bytes;
	char name[MRS_NAME_BYTES_MAX + 1];
};

uint64_t mrs_dir_hash(const struct mrs_cells *cells, const char *name, unsigned bytes);
/* False if the dirent is stale, or not one. */
bool mrs_dirent_read(struct mrs_cells *cells, mrs_cell dirent, struct mrs_dir_key *key);
/* Only the hash, for a look that ends at most other names. */
bool mrs_dirent_hash(struct mrs_cells *cells, mrs_cell dirent, uint64_t *hash);

/* ---- dir.c ---- */

/* The way from a node at depth: 0 ... 7. */
unsigned mrs_dir_digit(const struct mrs_dir_key *key, unsigned depth);
/* The node that a trie word means, or NULL if the word is damaged. */
struct mrs_cell_node *mrs_dir_node(struct mrs_cells *cells, uint64_t word);
/*
 * Gate closed: does the trie mean this cell (still CLAIMED) as a node? Where that cannot be told
 * from the hash, the whole trie is walked, at most *walks times (counted down): more than a slot
 * has threads in the middle of a change means a hostile pool, which must not cost a walk for each
 * cell.
 */
bool mrs_dir_node_is_linked(struct mrs_cells *cells, mrs_cell cell, unsigned *walks);

/* ---- dir_walk.c ---- */

/*
 * A walk through the trie, one non-empty word after the other, a node's word before the words in
 * it. Bounded however damaged the trie is: at most as many nodes as there are cells, at most
 * MRS_DIR_DEPTH_MAX deep.
 */
struct mrs_dir_walk {
	struct mrs_cells *cells;
	uint64_t nodes_left;
	unsigned depth; /* of the word last seen: 0 in the root */
	bool damaged;	/* the word last seen is a node's that cannot be followed */
	struct {
		uint64_t *words;
		unsigned next, count;
	} level[MRS_DIR_DEPTH_MAX + 1];
};

void mrs_dir_walk_begin(struct mrs_dir_walk *walk, struct mrs_cells *cells);
/* False at the end. */
bool mrs_dir_walk_next(struct mrs_dir_walk *walk, uint64_t *word);
/* After a node's word: leaves out what is in it. */
void mrs_dir_walk_skip(struct mrs_dir_walk *walk);
/* Which way the walk took from depth (0: index in the root). */
unsigned mrs_dir_walk_digit(const struct mrs_dir_walk *walk, unsigned depth);
/* The word last seen, as it is now. */
uint64_t mrs_dir_walk_again(const struct mrs_dir_walk *walk);

#endif
