/*
 * A morsel's content, read and written by the core itself through the metadata mapping: import,
 * export, zeroing, parsing. Run by run; the caller keeps the range from being trimmed.
 *
 * Frames of a thin morsel may lack memory. Touching such a page, to read it or to write zeros into
 * it, would take memory that nobody has reserved, and where there is none end in SIGBUS: reading
 * and zeroing take it for a hole.
 */
#include <errno.h>
#include <string.h>

#include "object/internal.h"

struct each {
	struct morsel *morsel;
	uint64_t offset; /* where we are, bytes */
	uint64_t end;
	uint64_t limit;
	int (*fn)(void *ctx, uint64_t offset, void *memory, uint64_t bytes);
	void *ctx;
	bool skip_thin; /* pages without memory are holes */
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
			    .ctx = ctx};

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

void mrs_content_zero(struct morsel *morsel, uint64_t offset, uint64_t bytes)
{
	mrs_content_look(morsel, offset, bytes, UINT64_MAX, zero_piece, NULL);
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
