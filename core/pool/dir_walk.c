/*
 * Walking through the whole directory: for listing, and for checking every invariant.
 *
 * A walk beside changes sees each name that is there throughout exactly once: a word is read once,
 * and a dirent that expansion moves goes from that word into the node that the word then is; the
 * walk saw the one or follows the other.
 */
#include <errno.h>

#include "pool/dir_internal.h"

void mrs_dir_walk_begin(struct mrs_dir_walk *walk, struct mrs_cells *cells)
{
	walk->cells = cells;
	walk->nodes_left = mrs_cells_high(cells);
	walk->depth = 0;
	walk->damaged = false;
	walk->level[0].words = cells->root;
	walk->level[0].next = 0;
	walk->level[0].count = MRS_DIR_ROOT_WORDS;
}

static void descend(struct mrs_dir_walk *walk, uint64_t word)
{
	struct mrs_cell_node *node = mrs_dir_node(walk->cells, word);

	walk->damaged = !node || !walk->nodes_left || walk->depth == MRS_DIR_DEPTH_MAX;
	if (walk->damaged)
		return;
	walk->nodes_left--;
	walk->depth++;
	walk->level[walk->depth].words = node->word;
	walk->level[walk->depth].next = 0;
	walk->level[walk->depth].count = MRS_DIR_NODE_WORDS;
}

bool mrs_dir_walk_next(struct mrs_dir_walk *walk, uint64_t *word)
{
	for (;;) {
		unsigned next = walk->level[walk->depth].next;

		if (next == walk->level[walk->depth].count) {
			if (!walk->depth)
				return false;
			walk->depth--;
			continue;
		}
		walk->level[walk->depth].next++;
		/* Pairs with the CAS that linked or expanded. */
		*word = mrs_load_acquire(&walk->level[walk->depth].words[next]);
		walk->damaged = false;
		if (mrs_word_kind(*word) == MRS_WORD_EMPTY)
			continue;
		if (mrs_word_kind(*word) == MRS_WORD_NODE)
			descend(walk, *word);
		return true;
	}
}

void mrs_dir_walk_skip(struct mrs_dir_walk *walk)
{
	if (!walk->damaged)
		walk->depth--;
}

unsigned mrs_dir_walk_digit(const struct mrs_dir_walk *walk, unsigned depth)
{
	return walk->level[depth].next - 1;
}

uint64_t mrs_dir_walk_again(const struct mrs_dir_walk *walk)
{
	unsigned at = walk->level[walk->depth].next - 1;

	return mrs_load_acquire(&walk->level[walk->depth].words[at]);
}

static int damaged(void)
{
	return mrs_fail(-EUCLEAN, "the pool's directory is damaged: run \"morsel pool check\"");
}

int mrs_dir_each(struct mrs_cells *cells, int (*fn)(void *ctx, mrs_cell dirent, mrs_cell target),
		 void *ctx)
{
	struct mrs_dir_walk walk;
	uint64_t word;

	mrs_dir_walk_begin(&walk, cells);
	while (mrs_dir_walk_next(&walk, &word)) {
		struct mrs_dir_key key;
		int rc;

		if (walk.damaged || mrs_word_kind(word) > MRS_WORD_NODE)
			return damaged();
		if (mrs_word_kind(word) == MRS_WORD_NODE)
			continue;
		if (!mrs_dirent_read(cells, mrs_word_handle(word), &key)) {
			if (mrs_dir_walk_again(&walk) == word)
				return damaged();
			continue; /* unlinked since: it was not there throughout */
		}
		rc = fn(ctx, mrs_word_handle(word), key.target);
		if (rc)
			return rc;
	}
	return 0;
}
