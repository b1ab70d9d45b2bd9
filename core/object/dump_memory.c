/*
 * How a dump or restore reaches a morsel's memory.
 *
 * Of a morsel whose pages stay where they are it is the pool's own mapping. Pages that may be
 * evicted or moved are reached through a view of just the pages asked for, under a grant, which
 * brings them in and keeps them: the pool's mapping would show zeros where a page is evicted, and
 * put a page of zeros in its place.
 */
#include <errno.h>

#include "object/dump_format.h"

#define IN_FLIGHT 4u /* requests, where nobody says how many */

bool mrs_dump_needs_grants(const struct morsel *morsel)
{
	return mrs_flags_of(mrs_load_acquire(&morsel->record->state)) & MORSEL_EVICTABLE ||
	       mrs_load_acquire(&morsel->record->more);
}

unsigned mrs_dump_workers(const struct morsel *morsel, uint64_t chunks, unsigned in_flight)
{
	uint64_t batches = (chunks + MRS_DUMP_BATCH - 1) / MRS_DUMP_BATCH;
	uint64_t budget = mrs_load_relaxed(&mrs_pool_state(morsel->pool)->budget_frames);
	uint64_t workers = mrs_min(batches, (uint64_t)(in_flight ? in_flight : IN_FLIGHT));

	/* Each pins a batch: together no more than a quarter of what may be resident. */
	if (budget && mrs_dump_needs_grants(morsel))
		workers = mrs_min(workers, budget / (4 * MRS_DUMP_BATCH * MRS_DUMP_CHUNK_PAGES));
	return (unsigned)mrs_max(workers, 1u);
}

void mrs_dump_hold_begin(struct mrs_dump_held *held, struct morsel *morsel, bool write)
{
	held->morsel = morsel;
	held->by_grant = mrs_dump_needs_grants(morsel);
	held->write = write;
	held->views = 0;
}

struct gather {
	struct mrs_dump_piece *piece;
	unsigned *count;
};

static int gather_piece(void *ctx, uint64_t offset, void *memory, uint64_t bytes)
{
	struct gather *gather = ctx;

	gather->piece[(*gather->count)++] =
		(struct mrs_dump_piece){.memory = memory, .bytes = bytes};
	return 0;
}

/* The end of the pages from page on that have frames, as far as a batch goes. */
static uint64_t mapped_end(struct morsel *morsel, uint64_t page, uint64_t pages)
{
	uint64_t limit =
		mrs_min(page + MRS_DUMP_BATCH * MRS_DUMP_CHUNK_PAGES, mrs_morsel_pages(morsel));
	uint64_t end = page + pages;
	struct mrs_run run;

	while (end < limit && !mrs_table_lookup(&morsel->table, end, limit - end, &run) &&
	       run.mapped)
		end += run.pages;
	return end;
}

/* A view from page on, of what follows it without a hole, and a grant of all of it. */
static int add_view(struct mrs_dump_held *held, uint64_t page, uint64_t pages)
{
	/* Views of hugetlb memory are made of whole blocks. */
	uint64_t first = mrs_round_down(page, mrs_pool_block_frames(held->morsel->pool));
	uint64_t skip = (page - first) * MRS_PAGE_BYTES;
	uint64_t end = mapped_end(held->morsel, page, pages) * MRS_PAGE_BYTES;
	int access = held->write ? MORSEL_READ | MORSEL_WRITE : MORSEL_READ;
	struct morsel_map_opts opts = {
		.size = sizeof(opts), .access = (uint32_t)access, .offset = first * MRS_PAGE_BYTES};
	struct morsel_view *view;
	int rc;

	MRS_CHECK(held->views < MRS_DUMP_BATCH);
	/* The last page counts as far as the morsel goes. */
	opts.bytes = mrs_min(end, mrs_morsel_bytes(held->morsel)) - opts.offset;
	rc = morsel_map(held->morsel, &opts, &view);
	if (rc)
		return rc;
	rc = morsel_acquire(view, skip, opts.bytes - skip, access, &held->grant[held->views]);
	if (rc) {
		morsel_view_destroy(view);
		return rc;
	}
	held->first = page;
	held->end = end / MRS_PAGE_BYTES;
	held->view[held->views++] = view;
	return 0;
}

static int hold_by_grant(struct mrs_dump_held *held, uint64_t page, uint64_t pages,
			 struct mrs_dump_piece *piece, unsigned *count)
{
	unsigned char *memory;

	if (!held->views || page < held->first || page + pages > held->end) {
		int rc = add_view(held, page, pages);

		if (rc)
			return rc;
	}
	memory = held->grant[held->views - 1].addr;
	piece[(*count)++] =
		(struct mrs_dump_piece){.memory = memory + (page - held->first) * MRS_PAGE_BYTES,
					.bytes = pages * MRS_PAGE_BYTES};
	return 0;
}

int mrs_dump_hold(struct mrs_dump_held *held, uint64_t page, uint64_t pages,
		  struct mrs_dump_piece *piece, unsigned *count)
{
	struct gather gather = {.piece = piece, .count = count};

	if (held->by_grant)
		return hold_by_grant(held, page, pages, piece, count);
	if (held->write)
		return mrs_content_each(held->morsel, page * MRS_PAGE_BYTES, pages * MRS_PAGE_BYTES,
					UINT64_MAX, gather_piece, &gather);
	return mrs_content_look(held->morsel, page * MRS_PAGE_BYTES, pages * MRS_PAGE_BYTES,
				UINT64_MAX, gather_piece, &gather);
}

void mrs_dump_hold_end(struct mrs_dump_held *held)
{
	while (held->views) {
		morsel_release(&held->grant[--held->views]);
		morsel_view_destroy(held->view[held->views]);
	}
}
