/*
 * Advice about the memory behind a range.
 *
 * FREE gives memory back and keeps the frames: views need not be told, for the translation stays
 * the same, and what they read next is zero. Touched again without an acquire or a prefetch such a
 * page takes memory that nobody has reserved; so the record is marked thin, and whoever fills a
 * range of a thin morsel reserves it anew. Parts of a page, or of a block that the kernel cannot
 * take away in part, are zeroed in place.
 */
#include <errno.h>
#include <string.h>

#include "object/internal.h"

struct advise {
	struct morsel *morsel;
	uint64_t offset, end;
};

static int huge_run(void *ctx, const struct mrs_run *run)
{
	struct advise *advise = ctx;

	uint64_t huge;

	if (!run->mapped)
		return 0;
	return mrs_pool_make_huge(advise->morsel->pool, run->frame, run->pages, &huge);
}

/* Bytes [offset, offset + bytes) of a run, which lie behind memory. */
static int free_piece(void *ctx, uint64_t offset, void *memory, uint64_t bytes)
{
	struct advise *advise = ctx;
	struct morsel_pool *pool = advise->morsel->pool;
	uint64_t block = mrs_pool_block_frames(pool) * MRS_PAGE_BYTES;
	unsigned char *first = memory, *end = first + bytes, *base = mrs_pool_at(pool, 0, 1);
	unsigned char *inner, *inner_end;

	if (!memory)
		return 0;
	inner = base + mrs_round_up((uint64_t)(first - base), block);
	inner_end = base + mrs_round_down((uint64_t)(end - base), block);
	if (inner >= inner_end) {
		mrs_content_zero(advise->morsel, offset, bytes);
		return 0;
	}
	mrs_content_zero(advise->morsel, offset, (uint64_t)(inner - first));
	mrs_pool_unback(pool, (uint64_t)(inner - base) / MRS_PAGE_BYTES,
			(uint64_t)(inner_end - inner) / MRS_PAGE_BYTES);
	mrs_content_zero(advise->morsel, offset + (uint64_t)(inner_end - first),
			 (uint64_t)(end - inner_end));
	return 0;
}

static int advise_free(struct advise *advise)
{
	struct morsel *morsel = advise->morsel;

	if (mrs_morsel_is_sealed(morsel))
		return mrs_fail(-EROFS,
				"the morsel is sealed: its content does not change any more");
	/* Before any memory goes: whoever fills from now on reserves. */
	mrs_record_set(morsel->record, MRS_RECORD_THIN);
	MRS_PROBE("advise.thin");
	return mrs_content_each(morsel, advise->offset, advise->end - advise->offset, UINT64_MAX,
				free_piece, advise);
}

static int advise_range(struct advise *advise, int advice)
{
	struct morsel *morsel = advise->morsel;
	uint64_t page = advise->offset / MRS_PAGE_BYTES;
	uint64_t pages = mrs_pages_in(advise->end) - page;

	switch (advice) {
	case MORSEL_ADVICE_PREFETCH:
		return mrs_morsel_fill(morsel, page, pages);
	case MORSEL_ADVICE_HUGE:
		return mrs_morsel_each_run(morsel, page, pages, huge_run, advise);
	default:
		return advise_free(advise);
	}
}

int morsel_advise(struct morsel *morsel, uint64_t offset, uint64_t bytes, int advice)
{
	struct advise advise = {.morsel = morsel, .offset = offset, .end = offset + bytes};
	uint64_t size, hold;
	int rc;

	if (advice == MORSEL_ADVICE_EVICT)
		return mrs_fail(-EOPNOTSUPP, "this version of libmorsel (%s) does not evict",
				MORSEL_VERSION_STRING);
	if (advice < MORSEL_ADVICE_PREFETCH || advice > MORSEL_ADVICE_EVICT)
		return mrs_fail(-EINVAL, "unknown advice %d: see enum morsel_advice", advice);
	rc = mrs_check_writable(morsel->pool, "advising");
	if (rc)
		return rc;
	size = mrs_morsel_bytes(morsel);
	if (offset > size || bytes > size - offset)
		return mrs_fail(-EINVAL,
				"bytes %llu to %llu are not inside the morsel, which has %llu",
				(unsigned long long)offset, (unsigned long long)(offset + bytes),
				(unsigned long long)size);
	if (!bytes)
		return 0;
	rc = mrs_morsel_view_publish(morsel, mrs_pages_in(offset + bytes),
				     advice == MORSEL_ADVICE_FREE, &hold);
	if (rc)
		return rc;
	rc = advise_range(&advise, advice);
	mrs_morsel_view_withdraw(morsel, hold);
	return rc;
}
