/* A restore under way: what restore.c and restore_range.c share. */
#ifndef MRS_OBJECT_RESTORE_H
#define MRS_OBJECT_RESTORE_H

#include "object/dump_format.h"

struct restore {
	struct morsel_pool *pool;
	struct morsel_restore_opts *opts;
	struct mrs_dump_chain chain;
	const struct mrs_dump *dump; /* the chain's first */
	const struct mrs_dump_header *head;
	struct morsel *morsel;
	unsigned granule;    /* order: pages of the morsel come in no smaller pieces here */
	uint64_t first, end; /* pages to be loaded now */
	bool is_part;	     /* some of the morsel stays a hole until it is asked for */
	uint64_t next;	     /* atomic: chunk that no worker has taken */
	uint64_t last_chunk; /* past the last one */
	uint64_t done;	     /* atomic: pages */
	uint64_t total;	     /* bytes */
};

/* Reads options and dump, finds the range. The caller closes the chain. */
int mrs_restore_open(struct restore *restore, struct morsel_pool *pool, const char *file,
		     const struct morsel_restore_opts *given);
/* Is crc, of bytes from offset of link (NULL: zeros), the chunk's? -EBADMSG in words. */
int mrs_restore_check(const struct mrs_dump_link *link, const struct mrs_dump_chunk *chunk,
		      uint64_t offset, uint32_t crc);

#endif
