/*
 * The directory: a trie of words that lock-free operations change by one compare-and-swap each.
 *
 *   root[hash >> 52]   EMPTY  --link-->  DIRENT  --expand-->  NODE (for good)
 *                        ^                  |                   | eight words of the same kind
 *                        `-----unlink-------'
 *
 * Why a name exists at most once, and why a reader finds it if it does:
 *
 * 1. The way of a name is the sequence of its digits: 12 bits of its hash, then 3 at a time, then
 * the bits of the name itself (padded with zeros; a name has no zero byte). Equal names have equal
 *    ways; different names' ways part at the latest with their last bits.
 * 2. A word that has become NODE stays NODE, with the same node, for ever: no step leads out of it,
 *    and nodes are never freed. So the words on a name's way only grow in number, the way to the
 *    place where it belongs is the same for all, and a pointer to a word stays good.
 * 3. The place of a name is the first word on its way that is not NODE. A name is in the directory
 * if and only if its place holds a DIRENT of that name. Being linked, unlinked or moved deeper is
 * one CAS of that word.
 * 4. Two that link the same name walk to the same place. Both must CAS it from EMPTY; or, if it
 * holds another name's dirent, make it a NODE first, and then stand before the same word one level
 *    deeper. One CAS from EMPTY succeeds; the other walks on from the word as it is now and finds
 * the name. A link never looks at a word that is not on the name's own way.
 * 5. Expansion makes a node in which the old dirent's word, whole, stands at the old name's next
 * digit, and CASes the place from exactly that old word. If the old dirent was unlinked (or
 * anything else happened) meanwhile, the word differs, the CAS fails, the node was never visible
 * and is put back. So the old name is in exactly one reachable word, before and after. An unlink
 * that stood before the place fails its CAS for the same reason and walks on into the node.
 * 6. Words carry index and generation, and no two claims of a cell share a generation (cell.c, 1),
 * so a CAS cannot succeed on a word that means another dirent in the same cell: no ABA.
 * 7. A reader checks that the dirent's header is still that of the word after it copied the name.
 * If it is not, the dirent was unlinked before it was freed, so the word has changed: it reads the
 *    word again. If the word has not changed, the pool is damaged, and it says so.
 * 8. Death: a node is CLAIMED until its CAS and a little longer; readers take a CLAIMED node with
 * the right generation for a node. mrs_cells_reap() looks whether the trie means it and makes it a
 *    NODE or frees it. All other cells are named in notes.
 *
 * A reader makes at most MRS_DIR_DEPTH_MAX steps down. It repeats a step only if somebody else
 * changed the word between its two looks.
 */
#include <errno.h>
#include <string.h>

#include "base/probe.h"
#include "pool/dir_internal.h"

/* Where a name belongs: the first word on its way that is not a node's, and what it held. */
struct place {
	uint64_t *word;
	uint64_t seen;
	unsigned depth;
};

static int damaged(const char *what)
{
	return mrs_fail(-EUCLEAN, "the pool's directory is damaged: %s; run \"morsel pool check\"",
			what);
}

/* ---- the way ---- */

/* Three bits of the name, padded with zeros, most significant first. */
static unsigned name_digit(const struct mrs_dir_key *key, unsigned number)
{
	unsigned digit = 0;

	for (unsigned bit = 3 * number; bit < 3 * number + 3; bit++) {
		unsigned char byte = bit / 8 < key->bytes ? (unsigned char)key->name[bit / 8] : 0;

		digit = digit << 1 | (byte >> (7 - bit % 8) & 1);
	}
	return digit;
}

unsigned mrs_dir_digit(const struct mrs_dir_key *key, unsigned depth)
{
	if (depth >= MRS_DIR_HASH_DEPTHS)
		return name_digit(key, depth - MRS_DIR_HASH_DEPTHS);
	return key->hash >> (64 - MRS_DIR_ROOT_BITS - MRS_DIR_NODE_BITS * (depth + 1)) & 7;
}

struct mrs_cell_node *mrs_dir_node(struct mrs_cells *cells, uint64_t word)
{
	mrs_cell cell = mrs_word_handle(word);
	struct mrs_cell_node *node = mrs_cell_at(cells, cell, MRS_CELL_NODE);

	/* Linked and not committed yet: see 8. In this order: it can only have become NODE. */
	if (!node)
		node = mrs_cell_at(cells, cell, MRS_CELL_CLAIMED);
	if (!node)
		node = mrs_cell_at(cells, cell, MRS_CELL_NODE);
	return node;
}

static void place_begin(struct mrs_cells *cells, const struct mrs_dir_key *key, struct place *place)
{
	place->word = &cells->root[key->hash >> (64 - MRS_DIR_ROOT_BITS)];
	place->depth = 0;
}

/* Walks on to the name's place, from wherever on its way place stands, and reads it. */
static int place_find(struct mrs_cells *cells, const struct mrs_dir_key *key, struct place *place)
{
	for (;;) {
		struct mrs_cell_node *node;

		/* Pairs with the CAS that linked or expanded: dirent or node are filled. */
		place->seen = mrs_load_acquire(place->word);
		if (mrs_word_kind(place->seen) != MRS_WORD_NODE)
			return mrs_word_kind(place->seen) > MRS_WORD_NODE
				       ? damaged("a word of the trie has no meaning")
				       : 0;
		node = mrs_dir_node(cells, place->seen);
		if (!node || place->depth == MRS_DIR_DEPTH_MAX)
			return damaged("a word of the trie leads to no node");
		place->word = &node->word[mrs_dir_digit(key, place->depth)];
		place->depth++;
	}
}

static bool place_has_changed(const struct place *place)
{
	return mrs_load_acquire(place->word) != place->seen;
}

static bool same_name(const struct mrs_dir_key *a, const struct mrs_dir_key *b)
{
	return a->hash == b->hash && a->bytes == b->bytes && !memcmp(a->name, b->name, a->bytes);
}

/*
 * The dirent at the place, which holds one. 1 and *there if it is of the same hash (so perhaps of
 * the same name), 0 if not, -EAGAIN if the place changed.
 */
static int place_read(struct mrs_cells *cells, const struct mrs_dir_key *key,
		      const struct place *place, struct mrs_dir_key *there)
{
	mrs_cell dirent = mrs_word_handle(place->seen);
	uint64_t hash;

	if (mrs_dirent_hash(cells, dirent, &hash)) {
		if (hash != key->hash)
			return 0;
		if (mrs_dirent_read(cells, dirent, there))
			return 1;
	}
	return place_has_changed(place) ? -EAGAIN : damaged("a word of the trie leads to no name");
}

static void key_of_name(const struct mrs_cells *cells, const char *name, struct mrs_dir_key *key)
{
	key->bytes = (unsigned)strlen(name);
	memcpy(key->name, name, key->bytes + 1);
	key->hash = mrs_dir_hash(cells, name, key->bytes);
	key->target = 0;
}

/* ---- operations ---- */

int mrs_dir_find(struct mrs_cells *cells, const char *name, mrs_cell *dirent, mrs_cell *target)
{
	struct mrs_dir_key key, there;
	struct place place;
	int rc = mrs_dir_check_name(name);

	if (rc)
		return rc;
	key_of_name(cells, name, &key);
	place_begin(cells, &key, &place);
	do {
		rc = place_find(cells, &key, &place);
		if (rc)
			return rc;
		if (mrs_word_kind(place.seen) == MRS_WORD_EMPTY)
			return -ENOENT;
		rc = place_read(cells, &key, &place, &there);
		/* Unlinked, and its target taken away, since the word was read? Then look again. */
		if (rc == 1 && !there.target && place_has_changed(&place))
			rc = -EAGAIN;
	} while (rc == -EAGAIN);
	if (rc < 0)
		return rc;
	if (!rc || !same_name(&key, &there))
		return -ENOENT;
	*dirent = mrs_word_handle(place.seen);
	*target = there.target;
	return 0;
}

/* The node that is to stand at the place, holding what the place holds. */
static void node_fill(struct mrs_cell_node *node, const struct place *place,
		      const struct mrs_dir_key *old)
{
	/* Released by the CAS in expand(). The other words are zero: EMPTY. */
	mrs_store_relaxed(&node->hash, old->hash);
	mrs_store_relaxed(&node->depth, place->depth);
	mrs_store_relaxed(&node->word[mrs_dir_digit(old, place->depth)], place->seen);
}

/* Makes the place, which holds another name's dirent, a node that holds it. 0 also if it changed.
 */
static int expand(struct mrs_cells *cells, void *txn, struct place *place)
{
	struct mrs_cell_node *node;
	struct mrs_dir_key old;
	uint64_t note; /* nobody else's: an unlinked node is found by its CLAIMED header */
	mrs_cell cell;
	int rc;

	if (!mrs_dirent_read(cells, mrs_word_handle(place->seen), &old))
		return place_has_changed(place) ? 0
						: damaged("a word of the trie leads to no name");
	if (place->depth == MRS_DIR_DEPTH_MAX)
		return damaged("two names are where only one can be");
	rc = mrs_cell_get(cells, txn, &note, &cell);
	if (rc)
		return rc;
	node = mrs_cell_at(cells, cell, MRS_CELL_CLAIMED);
	if (!node)
		return damaged("a cell changed while it was claimed");
	node_fill(node, place, &old);
	MRS_PROBE("dir.expand.filled");
	if (!mrs_cas(place->word, &place->seen, mrs_word_make(MRS_WORD_NODE, cell))) {
		mrs_cell_put(cells, cell);
		return 0;
	}
	MRS_PROBE("dir.expand.linked");
	mrs_cell_commit(cells, cell, MRS_CELL_NODE);
	return 0;
}

int mrs_dir_link(struct mrs_cells *cells, void *txn, mrs_cell dirent, mrs_cell *existing)
{
	struct mrs_dir_key key, there;
	struct place place;
	int rc;

	if (!mrs_dirent_read(cells, dirent, &key))
		return mrs_fail(-EINVAL, "only a finished dirent can be linked");
	place_begin(cells, &key, &place);
	for (;;) {
		rc = place_find(cells, &key, &place);
		if (rc)
			return rc;
		if (mrs_word_kind(place.seen) == MRS_WORD_EMPTY) {
			MRS_PROBE("dir.link.ready");
			/* Releases the dirent to place_find(). */
			if (mrs_cas(place.word, &place.seen,
				    mrs_word_make(MRS_WORD_DIRENT, dirent)))
				break;
			continue;
		}
		rc = place_read(cells, &key, &place, &there);
		if (rc == 1 && same_name(&key, &there)) {
			*existing = mrs_word_handle(place.seen);
			return -EEXIST;
		}
		if (rc >= 0)
			rc = expand(cells, txn, &place);
		if (rc && rc != -EAGAIN)
			return rc;
	}
	MRS_PROBE("dir.link.linked");
	return 0;
}

int mrs_dir_unlink(struct mrs_cells *cells, mrs_cell dirent)
{
	uint64_t word = mrs_word_make(MRS_WORD_DIRENT, dirent);
	struct mrs_dir_key key;
	struct place place;
	int rc;

	if (!mrs_dirent_read(cells, dirent, &key))
		return -ENOENT;
	place_begin(cells, &key, &place);
	do {
		rc = place_find(cells, &key, &place);
		if (rc)
			return rc;
		if (place.seen != word)
			return -ENOENT;
		MRS_PROBE("dir.unlink.ready");
		/* Acquires what the linker released; releases nothing but order. */
	} while (!mrs_cas(place.word, &place.seen, 0));
	MRS_PROBE("dir.unlink.unlinked");
	return 0;
}

bool mrs_dir_is_linked(struct mrs_cells *cells, mrs_cell dirent)
{
	struct mrs_dir_key key;
	struct place place;

	if (!mrs_dirent_read(cells, dirent, &key))
		return false;
	place_begin(cells, &key, &place);
	return !place_find(cells, &key, &place) &&
	       place.seen == mrs_word_make(MRS_WORD_DIRENT, dirent);
}

/* ---- repair ---- */

/* By the hash bits that lead to it. */
static bool node_is_on_its_way(struct mrs_cells *cells, uint64_t word, uint64_t hash,
			       uint64_t depth)
{
	const struct mrs_dir_key key = {.hash = hash};
	struct mrs_cell_node *node;
	uint64_t seen = mrs_load_acquire(&cells->root[hash >> (64 - MRS_DIR_ROOT_BITS)]);

	for (unsigned at = 0; at < depth && seen != word; at++) {
		node = mrs_word_kind(seen) == MRS_WORD_NODE ? mrs_dir_node(cells, seen) : NULL;
		if (!node)
			return false;
		seen = mrs_load_acquire(&node->word[mrs_dir_digit(&key, at)]);
	}
	return seen == word;
}

/* Deeper than the hash reaches (names that collide in 63 bits): by looking everywhere. */
static bool node_is_anywhere(struct mrs_cells *cells, uint64_t word)
{
	struct mrs_dir_walk walk;
	uint64_t seen;

	mrs_dir_walk_begin(&walk, cells);
	while (mrs_dir_walk_next(&walk, &seen))
		if (seen == word)
			return true;
	return false;
}

bool mrs_dir_node_is_linked(struct mrs_cells *cells, mrs_cell cell, unsigned *walks)
{
	struct mrs_cell_node *node = mrs_cell_at(cells, cell, MRS_CELL_CLAIMED);
	uint64_t word = mrs_word_make(MRS_WORD_NODE, cell), depth;

	if (!node)
		return false;
	/* The cell may be anything else that was being made: then hash and depth lead nowhere. */
	depth = mrs_load_acquire(&node->depth);
	if (depth <= MRS_DIR_HASH_DEPTHS)
		return node_is_on_its_way(cells, word, mrs_load_acquire(&node->hash), depth);
	if (depth > MRS_DIR_DEPTH_MAX || !*walks)
		return false;
	--*walks;
	return node_is_anywhere(cells, word);
}
