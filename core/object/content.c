/*
 * A morsel's content, read and written by the core itself through the metadata mapping: import,
 * export, zeroing, parsing. Run by run; the caller keeps the range from being trimmed.
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
};

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
	while (each->offset < end) {
		uint64_t bytes = mrs_min(end - each->offset, each->limit);
		int rc = each->fn(each->ctx, each->offset,
				  memory ? memory + (each->offset - first) : NULL, bytes);

		if (rc)
			return rc;
		each->offset += bytes;
	}
	return 0;
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
	uint64_t page = offset >> MRS_PAGE_SHIFT;

	if (!bytes)
		return 0;
	return mrs_table_each_run(&morsel->table, page, mrs_pages_in(offset + bytes) - page,
				  each_run, &each);
}

static int zero_piece(void *ctx, uint64_t offset, void *memory, uint64_t bytes)
{
	if (memory)
		memset(memory, 0, bytes);
	return 0;
}

void mrs_content_zero(struct morsel *morsel, uint64_t offset, uint64_t bytes)
{
	mrs_content_each(morsel, offset, bytes, UINT64_MAX, zero_piece, NULL);
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

	return mrs_content_each(morsel, offset, bytes, UINT64_MAX, read_piece, &to);
}
