/*
 * Cells and the directory of names.
 *
 * Cells are 128-byte records in segments of pool frames (pool/format.h); the directory is a trie of
 * cells, 8 ways a node below a root of 4096 words, keyed by SipHash-2-4 of the name and, where 63 bits
 * of that do not tell two names apart, by the bits of the names. Every change of the directory is one
 * compare-and-swap of one word, so that it is atomic for other processes and for death; what was
 * claimed beside it is named in the transition's intent before.
 *
 * The room below (frames, intents) is reached only through struct mrs_cells_ops, so that cells and
 * directory can be tested on plain memory.
 */
#ifndef MRS_POOL_DIR_H
#define MRS_POOL_DIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pool/format.h"

struct mrs_cells_ops {
	/* Memory of 2^order frames from frame; NULL if it is not inside the pool. */
	void *(*at)(void *ctx, uint64_t frame, unsigned order);
	/* A zeroed, backed segment of 2^order frames: negative errno or 0. Tracked until settle(). */
	int (*segment_get)(void *ctx, void *txn, unsigned order, uint64_t *frame);
	void (*segment_put)(void *ctx, void *txn, unsigned order, uint64_t frame);
	void (*settle)(void *ctx, void *txn);
};

/*
 * Process-local handle; the state it points to is shared. No lock: all transitions are CAS, and any
 * number of threads may use one handle. Set up by naming all fields down to owner; the rest zero.
 * Whatever is read from shared memory is bounds-checked: a damaged or hostile pool gives wrong answers
 * or -EUCLEAN in words, never a crash or a walk without end. Looking (find, name, each, at) only reads.
 */
struct mrs_cells {
	const struct mrs_cells_ops *ops;
	void *ctx;
	uint64_t *segments;	/* MRS_CELL_SEGMENTS_MAX frame numbers, 0 none yet */
	uint64_t *root;		/* MRS_DIR_ROOT_WORDS trie words */
	struct mrs_state *state; /* cells_high, generation, cells_free, cells_hint */
	uint64_t hash_key[2];
	unsigned segment_order;
	unsigned owner;		/* own slot, for CLAIMED headers */
	uint32_t cursor;	/* where to look for a free cell; a hint */
	uint32_t barren;	/* claims to make before the next look for free cells */
	/* Tests only, to make hashes collide; NULL is SipHash-2-4. */
	uint64_t (*hash)(const uint64_t key[2], const void *data, size_t bytes);
};

typedef uint64_t mrs_cell; /* handle: index | generation << 32; 0 none */

/*
 * Claims a cell, zero but for its header: names it in *note (in the transition's intent) before the
 * claim, so that a reaper can find it. No two claims ever use the same handle (until 2^31 claims later
 * generations come round), so a note means the cell that its writer claimed or nothing: the reaper asks
 * mrs_cell_at() and puts it. txn is passed to ops. -ENOSPC in words; then *note is 0.
 */
int mrs_cell_get(struct mrs_cells *cells, void *txn, uint64_t *note, mrs_cell *cell);
/* CLAIMED -> kind: the cell is what it is from now on. */
void mrs_cell_commit(struct mrs_cells *cells, mrs_cell cell, enum mrs_cell_kind kind);
/*
 * Any kind -> FREE; the handle is stale from now on. Does nothing if it is stale already. Death in the
 * middle leaves it CLEARING, for mrs_cells_reap() to finish.
 */
void mrs_cell_put(struct mrs_cells *cells, mrs_cell cell);
/* The cell's memory, or NULL if the handle is stale, out of range or of another kind. A CLAIMED cell
 * is found with kind CLAIMED. */
void *mrs_cell_at(struct mrs_cells *cells, mrs_cell cell, enum mrs_cell_kind kind);
/* Is the header of a cell whose memory was just read still that of the handle? For readers that
 * copied fields without a lock. */
bool mrs_cell_is_current(struct mrs_cells *cells, mrs_cell cell, enum mrs_cell_kind kind);
/* Calls fn for every cell of kind, in the order of their indices (a walk beside changes sees each cell at most once). A non-zero
 * answer ends it and is returned. */
int mrs_cell_each(struct mrs_cells *cells, enum mrs_cell_kind kind,
		  int (*fn)(void *ctx, mrs_cell cell, void *memory), void *ctx);

/* ---- directory ---- */

/* 0 or -EINVAL / -ENAMETOOLONG in words: empty, longer than 255, '/' or a control character inside. */
int mrs_dir_check_name(const char *name);

/* The dirent and what it means now; -ENOENT without words (a caller decides whether it is an error). */
int mrs_dir_find(struct mrs_cells *cells, const char *name, mrs_cell *dirent, mrs_cell *target);

/*
 * Makes a dirent cell for name with target, not linked yet: claims its cells, naming the dirent in
 * *note first. Further NAME cells hang on it and go with it.
 */
int mrs_dirent_make(struct mrs_cells *cells, void *txn, const char *name, mrs_cell target,
		    uint64_t *note, mrs_cell *dirent);
/*
 * Frees a dirent that is not linked (and its NAME cells). Also one that a dead slot left half made
 * (CLAIMED): to be called for the handle in its note before mrs_cells_reap().
 */
void mrs_dirent_free(struct mrs_cells *cells, mrs_cell dirent);
/* Links it: the instant at which the name exists. -EEXIST (no words) and *existing if it is taken. */
int mrs_dir_link(struct mrs_cells *cells, void *txn, mrs_cell dirent, mrs_cell *existing);
/*
 * Unlinks this very dirent (not another of the same name): the instant at which the name is gone.
 * -ENOENT if it is not linked. The cells stay: mrs_dirent_free() them after. Somebody who looked before
 * may still retarget it; who must know its last target takes it away: retarget(dirent, seen, 0). From
 * then on the dirent means nothing, and nobody can retarget it any more.
 */
int mrs_dir_unlink(struct mrs_cells *cells, mrs_cell dirent);
bool mrs_dir_is_linked(struct mrs_cells *cells, mrs_cell dirent);
/*
 * Changes what the name means, from one target to another: one CAS over header and target, so that it
 * cannot hit a later dirent in the same cell. -EAGAIN if it no longer means from; -ENOENT if the dirent
 * is stale or from is 0: what means nothing is on its way out.
 */
int mrs_dirent_retarget(struct mrs_cells *cells, mrs_cell dirent, mrs_cell from, mrs_cell target);
/* Copies the name (up to 256 bytes with its zero); -ENOENT if the dirent is stale. */
int mrs_dirent_name(struct mrs_cells *cells, mrs_cell dirent, char *name);
/* 0 if the dirent is stale or means nothing. */
mrs_cell mrs_dirent_target(struct mrs_cells *cells, mrs_cell dirent);

/* Calls fn for every name; sees each name that is there throughout exactly once. */
int mrs_dir_each(struct mrs_cells *cells,
		 int (*fn)(void *ctx, mrs_cell dirent, mrs_cell target), void *ctx);

/*
 * Every invariant of cells and trie, with the gate closed (or nobody else there): report gets findings
 * in words; returns how many. What targets mean is the object room's to check.
 */
int mrs_dir_validate(struct mrs_cells *cells, void (*report)(void *ctx, const char *finding),
		     void *ctx);

/*
 * Gate closed: puts right what a dead slot left in the middle, after the object room has gone through
 * the notes in its intents (a half-made dirent is freed by its note, with its NAME cells). Frees every
 * cell still CLAIMED by slot, finishes trie nodes that are linked and cells that were being cleared.
 * Returns how many cells it freed.
 */
unsigned mrs_cells_reap(struct mrs_cells *cells, unsigned slot);

#endif
