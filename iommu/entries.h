/*
 * The entries of one view: pieces of it that one mapping of the kernel translates, in the order of
 * their offsets, disjoint.
 *
 *	directory  [chunk 0][chunk 1][chunk 2] ...
 *		       |
 *		       +-- up to MRS_ENTRIES_CHUNK entries, sorted
 *
 * Invariant: no chunk is empty; the last entry of a chunk ends at or before the first of the next.
 * Adding and removing move at most one chunk and, rarely, the directory. The caller serialises.
 */
#ifndef MRS_IOMMU_ENTRIES_H
#define MRS_IOMMU_ENTRIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MRS_ENTRIES_CHUNK 256u

struct mrs_entry {
	uint64_t offset; /* in the view */
	uint64_t bytes;
	uint64_t frame;
	uint32_t held; /* grants that cover some of it */
	bool mapped;   /* the kernel has it */
	bool recent;   /* used since the hand of taking back passed */
};

struct mrs_entries {
	struct mrs_entry_chunk **chunk;
	size_t chunks, room;
	uint64_t count;
};

/* The first entry that ends after the offset; NULL if there is none. */
struct mrs_entry *mrs_entries_from(const struct mrs_entries *set, uint64_t offset);
/* Overlaps nothing that is in the set. -ENOMEM in words. The pointers that were got are invalid
 * then. */
int mrs_entries_add(struct mrs_entries *set, const struct mrs_entry *entry);
/* The entry that begins at the offset goes. */
void mrs_entries_remove(struct mrs_entries *set, uint64_t offset);
void mrs_entries_free(struct mrs_entries *set);
/* Does the invariant hold? */
bool mrs_entries_valid(const struct mrs_entries *set);

#endif
