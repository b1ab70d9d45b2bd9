/*
 * A little pool in plain memory for the tests of cells and directory: root, state, segment list and
 * segments in one mapping that forked processes share. Segments come from a counter; giving one
 * back keeps it for the next who asks. One handle (struct mrs_cells) per simulated process.
 */
#ifndef TESTS_SUPPORT_DIR_MEMORY_H
#define TESTS_SUPPORT_DIR_MEMORY_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "pool/dir.h"
#include "pool/dir_internal.h"

#define DIR_MEMORY_PUT_MAX 64

/* At the front of the mapping; segments follow from frame MRS_FRAME_ALLOC on. */
struct dir_memory {
	uint64_t root[MRS_DIR_ROOT_WORDS];
	uint64_t segments[MRS_CELL_SEGMENTS_MAX];
	struct mrs_state state;
	uint64_t frames;     /* of the segment area */
	uint64_t next_frame; /* of it, not yet given out */
	uint64_t returned;   /* a segment given back, 0 none */
	uint64_t settled, taken;
	uint64_t bytes; /* of the mapping */
	char *area;
};

#define DIR_MEMORY_FIRST_FRAME 16 /* number of the area's first frame: 0 is none */

static inline void *dir_memory_at(void *ctx, uint64_t frame, unsigned order)
{
	struct dir_memory *memory = ctx;
	uint64_t count = 1ull << order;

	if (frame < DIR_MEMORY_FIRST_FRAME || frame - DIR_MEMORY_FIRST_FRAME > memory->frames ||
	    count > memory->frames - (frame - DIR_MEMORY_FIRST_FRAME))
		return NULL;
	return memory->area + (frame - DIR_MEMORY_FIRST_FRAME) * 4096;
}

static inline int dir_memory_segment_get(void *ctx, void *txn, unsigned order, uint64_t *frame)
{
	struct dir_memory *memory = ctx;
	uint64_t again = mrs_swap(&memory->returned, 0);
	uint64_t from;

	mrs_fetch_add(&memory->taken, 1);
	if (again) {
		*frame = again;
		return 0;
	}
	from = mrs_fetch_add(&memory->next_frame, 1ull << order);
	if (from + (1ull << order) > memory->frames) {
		mrs_fetch_sub(&memory->next_frame, 1ull << order);
		mrs_fetch_sub(&memory->taken, 1);
		return mrs_fail(-ENOSPC, "the test's memory is used up");
	}
	*frame = DIR_MEMORY_FIRST_FRAME + from;
	return 0;
}

static inline void dir_memory_segment_put(void *ctx, void *txn, unsigned order, uint64_t frame)
{
	struct dir_memory *memory = ctx;

	mrs_store_release(&memory->returned, frame);
	mrs_fetch_add(&memory->settled, 1);
}

static inline void dir_memory_settle(void *ctx, void *txn)
{
	struct dir_memory *memory = ctx;

	mrs_fetch_add(&memory->settled, 1);
}

static const struct mrs_cells_ops dir_memory_ops = {
	.at = dir_memory_at,
	.segment_get = dir_memory_segment_get,
	.segment_put = dir_memory_segment_put,
	.settle = dir_memory_settle,
};

/* frames: size of the segment area. Ends the program when memory is short. */
static inline struct dir_memory *dir_memory_make(uint64_t frames)
{
	uint64_t head = mrs_round_up(sizeof(struct dir_memory), 4096);
	uint64_t bytes = head + frames * 4096;
	struct dir_memory *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
					 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED) {
		perror("mmap");
		abort();
	}
	memory->bytes = bytes;
	memory->frames = frames;
	memory->area = (char *)memory + head;
	return memory;
}

static inline void dir_memory_free(struct dir_memory *memory)
{
	munmap(memory, memory->bytes);
}

/* Back to an empty directory, for explorations: touches only what was used. */
static inline void dir_memory_reset(struct dir_memory *memory)
{
	memset(memory->root, 0, sizeof(memory->root));
	memset(memory->segments, 0, 64 * sizeof(memory->segments[0]));
	memset(&memory->state, 0, 128);
	memset(memory->area, 0, memory->next_frame * 4096);
	memory->next_frame = memory->returned = memory->settled = memory->taken = 0;
}

static inline struct mrs_cells dir_memory_cells(struct dir_memory *memory, unsigned segment_order,
						unsigned slot)
{
	return (struct mrs_cells){
		.ops = &dir_memory_ops,
		.ctx = memory,
		.segments = memory->segments,
		.root = memory->root,
		.state = &memory->state,
		.hash_key = {0x0706050403020100ull, 0x0f0e0d0c0b0a0908ull},
		.segment_order = segment_order,
		.owner = slot,
	};
}

static inline void dir_memory_report(void *ctx, const char *finding)
{
	printf("  finding: %s\n", finding);
}

/* How many cells of a kind there are. */
static inline int dir_memory_count_one(void *ctx, mrs_cell cell, void *memory)
{
	++*(uint64_t *)ctx;
	return 0;
}

static inline uint64_t dir_memory_count(struct mrs_cells *cells, enum mrs_cell_kind kind)
{
	uint64_t count = 0;

	mrs_cell_each(cells, kind, dir_memory_count_one, &count);
	return count;
}

/* dirent_make and link in one; on failure nothing is left. */
static inline int dir_memory_create(struct mrs_cells *cells, const char *name, mrs_cell target,
				    uint64_t *note, mrs_cell *dirent)
{
	mrs_cell existing;
	int rc = mrs_dirent_make(cells, NULL, name, target, note, dirent);

	if (rc)
		return rc;
	rc = mrs_dir_link(cells, NULL, *dirent, &existing);
	if (rc)
		mrs_dirent_free(cells, *dirent);
	return rc;
}

#endif
