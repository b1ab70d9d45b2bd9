/*
 * Dirents: what a name is made of before, while and after the directory means it.
 *
 *   DIRENT cell: target, hash, length, first 88 bytes -> NAME cell: next 112 -> NAME cell: last 55
 *
 * A dirent is filled while CLAIMED, so nobody reads it; its name never changes afterwards. Readers
 * hold nothing: they copy between two looks at the header (cell.c, 4), and each NAME cell likewise.
 * A NAME cell is noted, before its claim, in the cell that it hangs on; the dirent in the intent.
 * So whoever has the dirent's handle finds all, at every step of making and freeing: freeing goes
 * from the last cell to the first.
 */
#include <errno.h>
#include <string.h>

#include "base/probe.h"
#include "pool/dir_internal.h"
#include "pool/siphash.h"

#define NAME_CELLS_MAX 2 /* 88 + 2 * 112 >= 255 */
#define NAME_INLINE    sizeof(((struct mrs_cell_dirent *)0)->name)
#define NAME_PER_CELL  sizeof(((struct mrs_cell_name *)0)->name)

int mrs_dir_check_name(const char *name)
{
	size_t bytes = name ? strnlen(name, MRS_NAME_BYTES_MAX + 1) : 0;

	if (!bytes)
		return mrs_fail(-EINVAL, "a morsel's name must not be empty");
	if (bytes > MRS_NAME_BYTES_MAX)
		return mrs_fail(
			-ENAMETOOLONG,
			"a morsel's name has at most %u bytes, \"%.40s...\" has more: shorten it",
			MRS_NAME_BYTES_MAX, name);
	for (size_t i = 0; i < bytes; i++) {
		unsigned char c = (unsigned char)name[i];

		if (c == '/')
			return mrs_fail(-EINVAL, "a morsel's name must not contain '/': \"%s\"",
					name);
		if (c < 0x20 || c == 0x7f)
			return mrs_fail(
				-EINVAL,
				"a morsel's name must not contain control characters: byte %zu "
				"is 0x%02x",
				i, c);
	}
	return 0;
}

uint64_t mrs_dir_hash(const struct mrs_cells *cells, const char *name, unsigned bytes)
{
	return cells->hash ? cells->hash(cells->hash_key, name, bytes)
			   : mrs_siphash(cells->hash_key, name, bytes);
}

/* ---- reading ---- */

/* Copies bytes of a name out of a cell. Acquire pairs with the stores of name_store(): cell.c, 4.
 */
static void name_load(char *to, const char *from, unsigned bytes)
{
	for (unsigned done = 0; done < bytes; done += 8) {
		uint64_t word = mrs_load_acquire((const uint64_t *)(from + done));

		memcpy(to + done, &word, mrs_min(8, bytes - done));
	}
}

/* The part of the name that does not fit the dirent. False if a cell is not what it should be. */
static bool name_rest_read(struct mrs_cells *cells, mrs_cell more, char *to, unsigned bytes)
{
	while (bytes) {
		unsigned part = mrs_min(bytes, NAME_PER_CELL);
		struct mrs_cell_name *cell = mrs_cell_at(cells, more, MRS_CELL_NAME);
		mrs_cell next;

		if (!cell)
			return false;
		name_load(to, cell->name, part);
		next = mrs_load_acquire(&cell->more); /* cell.c, 4 */
		if (!mrs_cell_is_current(cells, more, MRS_CELL_NAME))
			return false;
		to += part;
		bytes -= part;
		more = next;
	}
	return true;
}

bool mrs_dirent_read(struct mrs_cells *cells, mrs_cell dirent, struct mrs_dir_key *key)
{
	struct mrs_cell_dirent *cell = mrs_cell_at(cells, dirent, MRS_CELL_DIRENT);
	unsigned inline_bytes;

	if (!cell)
		return false;
	/* All acquire: cell.c, 4. */
	key->target = mrs_load_acquire(&cell->target);
	key->hash = mrs_load_acquire(&cell->hash);
	key->bytes = mrs_load_acquire16(&cell->name_bytes);
	if (!key->bytes || key->bytes > MRS_NAME_BYTES_MAX)
		return false;
	inline_bytes = mrs_min(key->bytes, NAME_INLINE);
	name_load(key->name, cell->name, inline_bytes);
	if (!name_rest_read(cells, mrs_load_acquire(&cell->more), key->name + inline_bytes,
			    key->bytes - inline_bytes))
		return false;
	key->name[key->bytes] = 0;
	return mrs_cell_is_current(cells, dirent, MRS_CELL_DIRENT);
}

bool mrs_dirent_hash(struct mrs_cells *cells, mrs_cell dirent, uint64_t *hash)
{
	struct mrs_cell_dirent *cell = mrs_cell_at(cells, dirent, MRS_CELL_DIRENT);

	if (!cell)
		return false;
	*hash = mrs_load_acquire(&cell->hash); /* cell.c, 4 */
	return mrs_cell_is_current(cells, dirent, MRS_CELL_DIRENT);
}

int mrs_dirent_name(struct mrs_cells *cells, mrs_cell dirent, char *name)
{
	struct mrs_dir_key key;

	if (!mrs_dirent_read(cells, dirent, &key))
		return -ENOENT;
	memcpy(name, key.name, key.bytes + 1);
	return 0;
}

mrs_cell mrs_dirent_target(struct mrs_cells *cells, mrs_cell dirent)
{
	struct mrs_cell_dirent *cell = mrs_cell_at(cells, dirent, MRS_CELL_DIRENT);
	/* Acquire: with the retarget that stored it, so that the record is seen as it was then. */
	mrs_cell target = cell ? mrs_load_acquire(&cell->target) : 0;

	return mrs_cell_is_current(cells, dirent, MRS_CELL_DIRENT) ? target : 0;
}

/* ---- making and freeing ---- */

static void name_store(char *to, const char *from, unsigned bytes)
{
	for (unsigned done = 0; done < bytes; done += 8) {
		uint64_t word = 0;

		memcpy(&word, from + done, mrs_min(8, bytes - done));
		mrs_store_release((uint64_t *)(to + done), word); /* cell.c, 4 */
	}
}

/* Hangs the NAME cells on *more, one on the other, each noted there before it is claimed. */
static int name_rest_make(struct mrs_cells *cells, void *txn, uint64_t *more, const char *name,
			  unsigned bytes)
{
	while (bytes) {
		unsigned part = mrs_min(bytes, NAME_PER_CELL);
		struct mrs_cell_name *cell;
		mrs_cell handle;
		int rc = mrs_cell_get(cells, txn, more, &handle);

		if (rc)
			return rc;
		cell = mrs_cell_at(cells, handle, MRS_CELL_CLAIMED);
		if (!cell)
			return mrs_fail(-EUCLEAN,
					"the pool is damaged: a cell changed while it was "
					"claimed; run \"morsel pool check\"");
		name_store(cell->name, name, part);
		MRS_PROBE("dirent.make.part");
		mrs_cell_commit(cells, handle, MRS_CELL_NAME);
		more = &cell->more;
		name += part;
		bytes -= part;
	}
	return 0;
}

int mrs_dirent_make(struct mrs_cells *cells, void *txn, const char *name, mrs_cell target,
		    uint64_t *note, mrs_cell *dirent)
{
	int rc = mrs_dir_check_name(name);
	struct mrs_cell_dirent *cell;
	unsigned bytes, inline_bytes;
	mrs_cell handle;

	if (rc)
		return rc;
	bytes = (unsigned)strlen(name);
	inline_bytes = mrs_min(bytes, NAME_INLINE);
	rc = mrs_cell_get(cells, txn, note, &handle);
	if (rc)
		return rc;
	cell = mrs_cell_at(cells, handle, MRS_CELL_CLAIMED);
	if (!cell)
		return mrs_fail(-EUCLEAN,
				"the pool is damaged: a cell changed while it was claimed; "
				"run \"morsel pool check\"");
	/* All release: cell.c, 4. */
	mrs_store_release(&cell->target, target);
	mrs_store_release(&cell->hash, mrs_dir_hash(cells, name, bytes));
	mrs_store_release16(&cell->name_bytes, (uint16_t)bytes);
	name_store(cell->name, name, inline_bytes);
	rc = name_rest_make(cells, txn, &cell->more, name + inline_bytes, bytes - inline_bytes);
	if (rc)
		goto free_dirent;
	MRS_PROBE("dirent.make.filled");
	mrs_cell_commit(cells, handle, MRS_CELL_DIRENT);
	*dirent = handle;
	return 0;

free_dirent:
	mrs_dirent_free(cells, handle);
	mrs_store_release(note, 0);
	return rc;
}

/* A NAME cell, finished or not; NULL if the handle means something else. */
static struct mrs_cell_name *name_cell_at(struct mrs_cells *cells, mrs_cell cell)
{
	struct mrs_cell_name *found = mrs_cell_at(cells, cell, MRS_CELL_NAME);

	return found ? found : mrs_cell_at(cells, cell, MRS_CELL_CLAIMED);
}

void mrs_dirent_free(struct mrs_cells *cells, mrs_cell dirent)
{
	struct mrs_cell_dirent *cell = mrs_cell_at(cells, dirent, MRS_CELL_DIRENT);
	mrs_cell chain[NAME_CELLS_MAX], more;
	unsigned length = 0;

	if (!cell)
		cell = mrs_cell_at(cells, dirent, MRS_CELL_CLAIMED);
	if (!cell)
		return;
	more = mrs_load_acquire(&cell->more);
	while (more && length < NAME_CELLS_MAX) {
		struct mrs_cell_name *part = name_cell_at(cells, more);

		if (!part)
			break;
		chain[length++] = more;
		more = mrs_load_acquire(&part->more);
	}
	while (length) {
		mrs_cell_put(cells, chain[--length]);
		MRS_PROBE("dirent.free.part");
	}
	mrs_cell_put(cells, dirent);
}

int mrs_dirent_retarget(struct mrs_cells *cells, mrs_cell dirent, mrs_cell from, mrs_cell target)
{
	struct mrs_cell_dirent *cell = mrs_cell_at(cells, dirent, MRS_CELL_DIRENT);

	if (!cell || !from)
		return -ENOENT;
	MRS_PROBE("dirent.retarget.ready");
	/* Header and target at once: between the look above and here the cell may have become
	 * another dirent that means the same. Releases the record to who loads the target. */
	if (mrs_cas_second(&cell->header,
			   mrs_header_make(MRS_CELL_DIRENT, 0, mrs_handle_generation(dirent)), from,
			   target))
		return 0;
	return mrs_cell_is_current(cells, dirent, MRS_CELL_DIRENT) ? -EAGAIN : -ENOENT;
}
