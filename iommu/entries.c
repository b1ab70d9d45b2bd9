/* The sorted set of a view's entries. See entries.h. */
#include "entries.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

struct mrs_entry_chunk {
	size_t count;
	struct mrs_entry entry[MRS_ENTRIES_CHUNK];
};

static uint64_t end_of(const struct mrs_entry *entry)
{
	return entry->offset + entry->bytes;
}

static uint64_t chunk_end(const struct mrs_entry_chunk *chunk)
{
	return end_of(&chunk->entry[chunk->count - 1]);
}

/* Index of the first chunk that ends after the offset. */
static size_t find_chunk(const struct mrs_entries *set, uint64_t offset)
{
	size_t low = 0, high = set->chunks;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (chunk_end(set->chunk[middle]) <= offset)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Index of the first entry of a chunk that ends after the offset. */
static size_t find_entry(const struct mrs_entry_chunk *chunk, uint64_t offset)
{
	size_t low = 0, high = chunk->count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (end_of(&chunk->entry[middle]) <= offset)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct mrs_entry *mrs_entries_from(const struct mrs_entries *set, uint64_t offset)
{
	size_t at = find_chunk(set, offset);

	return at == set->chunks ? NULL
				 : &set->chunk[at]->entry[find_entry(set->chunk[at], offset)];
}

static int grow(struct mrs_entries *set)
{
	size_t room = 2 * set->room + 8;
	struct mrs_entry_chunk **chunk = realloc(set->chunk, room * sizeof(*chunk));

	if (!chunk)
		return morsel_fail(-ENOMEM, "no memory for %zu lists of entries", room);
	set->chunk = chunk;
	set->room = room;
	return 0;
}

/* A new, empty chunk at the place. */
static int insert_chunk(struct mrs_entries *set, size_t at)
{
	struct mrs_entry_chunk *chunk;
	int rc = set->chunks == set->room ? grow(set) : 0;

	if (rc)
		return rc;
	chunk = calloc(1, sizeof(*chunk));
	if (!chunk)
		return morsel_fail(-ENOMEM, "no memory for a list of entries");
	memmove(&set->chunk[at + 1], &set->chunk[at], (set->chunks - at) * sizeof(*set->chunk));
	set->chunk[at] = chunk;
	set->chunks++;
	return 0;
}

static void remove_chunk(struct mrs_entries *set, size_t at)
{
	free(set->chunk[at]);
	set->chunks--;
	memmove(&set->chunk[at], &set->chunk[at + 1], (set->chunks - at) * sizeof(*set->chunk));
}

/* The upper half of a full chunk goes to a new one behind it. */
static int split(struct mrs_entries *set, size_t at)
{
	struct mrs_entry_chunk *low, *high;
	int rc = insert_chunk(set, at + 1);

	if (rc)
		return rc;
	low = set->chunk[at];
	high = set->chunk[at + 1];
	high->count = low->count / 2;
	low->count -= high->count;
	memcpy(high->entry, &low->entry[low->count], high->count * sizeof(high->entry[0]));
	return 0;
}

/* The chunk where an entry with this offset belongs, with room for it. */
static int make_place(struct mrs_entries *set, uint64_t offset, size_t *at)
{
	int rc = 0;

	*at = find_chunk(set, offset);
	/* Behind the last of all, or before the first of a full chunk: the chunk before may have
	 * room. */
	if (*at && (*at == set->chunks || offset < set->chunk[*at]->entry[0].offset))
		--*at;
	if (!set->chunks)
		return insert_chunk(set, 0);
	if (set->chunk[*at]->count < MRS_ENTRIES_CHUNK)
		return 0;
	/* In ascending order, as they mostly come, chunks stay full. */
	if (*at + 1 == set->chunks && chunk_end(set->chunk[*at]) <= offset)
		return insert_chunk(set, ++*at);
	rc = split(set, *at);
	if (!rc && offset >= set->chunk[*at + 1]->entry[0].offset)
		++*at;
	return rc;
}

int mrs_entries_add(struct mrs_entries *set, const struct mrs_entry *entry)
{
	struct mrs_entry_chunk *chunk;
	size_t at, i;
	int rc = make_place(set, entry->offset, &at);

	if (rc)
		return rc;
	chunk = set->chunk[at];
	i = chunk->count ? find_entry(chunk, entry->offset) : 0;
	memmove(&chunk->entry[i + 1], &chunk->entry[i],
		(chunk->count - i) * sizeof(chunk->entry[0]));
	chunk->entry[i] = *entry;
	chunk->count++;
	set->count++;
	return 0;
}

void mrs_entries_remove(struct mrs_entries *set, uint64_t offset)
{
	size_t at = find_chunk(set, offset), i;
	struct mrs_entry_chunk *chunk;

	if (at == set->chunks)
		return;
	chunk = set->chunk[at];
	i = find_entry(chunk, offset);
	if (chunk->entry[i].offset != offset)
		return;
	chunk->count--;
	set->count--;
	memmove(&chunk->entry[i], &chunk->entry[i + 1],
		(chunk->count - i) * sizeof(chunk->entry[0]));
	if (!chunk->count)
		remove_chunk(set, at);
}

void mrs_entries_free(struct mrs_entries *set)
{
	for (size_t i = 0; i < set->chunks; i++)
		free(set->chunk[i]);
	free(set->chunk);
	*set = (struct mrs_entries){0};
}

bool mrs_entries_valid(const struct mrs_entries *set)
{
	uint64_t count = 0, end = 0;

	for (size_t i = 0; i < set->chunks; i++) {
		const struct mrs_entry_chunk *chunk = set->chunk[i];

		if (!chunk->count || chunk->count > MRS_ENTRIES_CHUNK)
			return false;
		for (size_t k = 0; k < chunk->count; k++) {
			if (!chunk->entry[k].bytes || chunk->entry[k].offset < end)
				return false;
			end = end_of(&chunk->entry[k]);
		}
		count += chunk->count;
	}
	return count == set->count;
}
