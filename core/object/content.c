/*
 * A morsel's content, read and written by the core itself: import, export, zeroing, parsing. Run by
 * run, through the metadata mapping; the caller keeps the range from being trimmed.
 *
 * Pages that come and go (of evictable morsels, and of clones) are not reached that way: touching
 * one that is evicted would make a page of zeros in its place. They are used as by everybody else,
 * through a view and a grant, piece by piece, so that no more than a piece is held resident at a
 * time.
 *
 * Frames of a thin morsel may lack memory. Touching such a page, to read it or to write zeros into
 * it, would take memory that nobody has reserved, and where there is none end in SIGBUS: reading
 * and zeroing take it for a hole.
 */
#include <errno.h>
#include <string.h>

#include "object/internal.h"
#include "object/retarget.h"

/* Held resident at a time: at most this, and this part of the budget. */
#define PIECE_BYTES ((uint64_t)8 << 20)
#define PIECE_PART  16u

struct each {
	struct morsel *morsel;
	uint64_t offset; /* where we are, bytes */
	uint64_t end;
	uint64_t limit;
	int (*fn)(void *ctx, uint64_t offset, void *memory, uint64_t bytes);
	void *ctx;
	bool skip_thin; /* pages without memory are holes */
	bool write;	/* fn may write */
};

/* [each->offset, end) in pieces; memory is that of each->offset, or NULL. */
static int each_piece(struct each *each, uint64_t end, unsigned char *memory)
{
	while (each->offset < end) {
		uint64_t bytes = mrs_min(end - each->offset, each->limit);
		int rc = each->fn(each->ctx, each->offset, memory, bytes);

		if (rc)
			return rc;
		each->offset += bytes;
		memory = memory ? memory + bytes : NULL;
	}
	return 0;
}

/* ---- pages that come and go ---- */

bool mrs_content_comes_and_goes(const struct morsel *morsel)
{
	return mrs_morsel_is_evictable(morsel) || mrs_morsel_coherence(morsel);
}

static uint64_t piece_bytes(const struct morsel *morsel)
{
	uint64_t budget = mrs_load_relaxed(&mrs_pool_state(morsel->pool)->budget_frames);

	if (!budget)
		return PIECE_BYTES;
	budget = mrs_round_down(budget * MRS_PAGE_BYTES / PIECE_PART, MRS_PAGE_BYTES);
	return mrs_min(mrs_max(budget, MRS_PAGE_BYTES), PIECE_BYTES);
}

/* Calls fn for [each->offset, end), which one grant of the view covers. */
static int each_granted(struct each *each, struct morsel_view *view, uint64_t base, uint64_t end)
{
	struct morsel_grant grant;
	int rc = morsel_acquire(view, 0, morsel_view_bytes(view),
				MORSEL_READ | (each->write ? MORSEL_WRITE : 0), &grant);

	if (rc)
		return rc;
	rc = each_piece(each, end, (unsigned char *)grant.addr + (each->offset - base));
	morsel_release(&grant);
	return rc;
}

static int each_viewed(struct each *each, uint64_t end)
{
	uint64_t base = mrs_round_down(each->offset, MRS_PAGE_BYTES);
	struct morsel_map_opts opts = {
		.size = sizeof(opts),
		.access = MORSEL_READ | (each->write ? MORSEL_WRITE : 0),
		.offset = base,
		.bytes = mrs_min(end, mrs_morsel_bytes(each->morsel)) - base,
	};
	struct morsel_view *view;
	int rc = morsel_map(each->morsel, &opts, &view);

	if (rc)
		return rc;
	rc = each_granted(each, view, base, end);
	morsel_view_destroy(view);
	return rc;
}

static int each_run_viewed(struct each *each, uint64_t end)
{
	uint64_t piece = piece_bytes(each->morsel);
	int rc = 0;

	while (!rc && each->offset < end)
		rc = each_viewed(each, mrs_min(mrs_round_down(each->offset, piece) + piece, end));
	return rc;
}

/* ---- pages that stay ---- */

/* The same, where some of the pages from byte in_file of the pool's file on lack memory. */
static int each_thin_piece(struct each *each, uint64_t end, unsigned char *memory, uint64_t in_file)
{
	uint64_t begin = each->offset, file_end = in_file + (end - begin), next;
	int rc = 0;

	for (uint64_t at = in_file; !rc && each->offset < end; at = next) {
		uint64_t content = at;

		if (!mrs_pool_next_content(each->morsel->pool, &content, file_end, &next))
			content = next = file_end;
		content = mrs_max(content, at);
		next = mrs_min(next, file_end);
		rc = each_piece(each, begin + (content - in_file), NULL);
		if (!rc)
			rc = each_piece(each, begin + (next - in_file),
					memory + (content - in_file));
	}
	return rc;
}

static int each_run(void *ctx, const struct mrs_run *run)
{
	struct each *each = ctx;
	uint64_t first = run->page * MRS_PAGE_BYTES;
	uint64_t end = mrs_min(first + run->pages * MRS_PAGE_BYTES, each->end);
	unsigned char *memory = NULL;

	if (run->mapped) {
		memory = mrs_pool_at(each->morsel->pool, run->frame, run->pages);
		if (!memory)
			return mrs_fail(-EINVAL, "the morsel's frames are outside the pool: "
						 "`morsel pool check` lists all damage");
	}
	if (!memory)
		return each_piece(each, end, NULL);
	if (mrs_content_comes_and_goes(each->morsel))
		return each_run_viewed(each, end);
	memory += each->offset - first;
	if (!each->skip_thin)
		return each_piece(each, end, memory);
	return each_thin_piece(each, end, memory,
			       run->frame * MRS_PAGE_BYTES + (each->offset - first));
}

static int each_range(struct each *each)
{
	uint64_t page = each->offset >> MRS_PAGE_SHIFT;

	if (each->offset == each->end)
		return 0;
	return mrs_table_each_run(&each->morsel->table, page, mrs_pages_in(each->end) - page,
				  each_run, each);
}

int mrs_content_each(struct morsel *morsel, uint64_t offset, uint64_t bytes, uint64_t limit,
		     int (*fn)(void *ctx, uint64_t offset, void *memory, uint64_t bytes), void *ctx)
{
	struct each each = {.morsel = morsel,
			    .offset = offset,
			    .end = offset + bytes,
			    .limit = limit,
			    .fn = fn,
			    .ctx = ctx,
			    .write = true};

	return each_range(&each);
}

int mrs_content_look(struct morsel *morsel, uint64_t offset, uint64_t bytes, uint64_t limit,
		     int (*fn)(void *ctx, uint64_t offset, void *memory, uint64_t bytes), void *ctx)
{
	struct each each = {.morsel = morsel,
			    .offset = offset,
			    .end = offset + bytes,
			    .limit = limit,
			    .fn = fn,
			    .ctx = ctx,
			    .skip_thin =
				    mrs_load_acquire(&morsel->record->state) & MRS_RECORD_THIN};

	return each_range(&each);
}

static int zero_piece(void *ctx, uint64_t offset, void *memory, uint64_t bytes)
{
	if (memory)
		memset(memory, 0, bytes);
	return 0;
}

int mrs_content_zero(struct morsel *morsel, uint64_t offset, uint64_t bytes)
{
	struct each each = {.morsel = morsel,
			    .offset = offset,
			    .end = offset + bytes,
			    .limit = UINT64_MAX,
			    .fn = zero_piece,
			    .skip_thin = mrs_load_acquire(&morsel->record->state) & MRS_RECORD_THIN,
			    .write = true};

	return each_range(&each);
}

static int bring_piece(void *ctx, uint64_t offset, void *memory, uint64_t bytes)
{
	const uint32_t *stop = ctx;

	return stop && mrs_load_acquire32(stop);
}

int mrs_content_bring(struct morsel *morsel, uint64_t offset, uint64_t bytes, const uint32_t *stop)
{
	/* The grant of each piece has brought it. */
	return mrs_content_look(morsel, offset, bytes, UINT64_MAX, bring_piece, (void *)stop);
}

static int read_piece(void *ctx, uint64_t offset, void *memory, uint64_t bytes)
{
	unsigned char **to = ctx;

	if (memory)
		memcpy(*to, memory, bytes);
	else
		memset(*to, 0, bytes);
	*to += bytes;
	return 0;
}

int mrs_content_read(struct morsel *morsel, uint64_t offset, void *buffer, uint64_t bytes)
{
	unsigned char *to = buffer;

	return mrs_content_look(morsel, offset, bytes, UINT64_MAX, read_piece, &to);
}
