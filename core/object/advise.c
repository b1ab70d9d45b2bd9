/*
 * Advice about the memory behind a range, and about how it is going to be used.
 *
 * Where pages come and go (MORSEL_EVICTABLE, and clones) FREE is a discard (discard.c), EVICT goes
 * to the pager (evict_ask.c), and PREFETCH acquires the range through a view of its own, piece by
 * piece.
 *
 * Elsewhere FREE gives memory back and keeps the frames: views need not be told, for the
 * translation stays the same, and what they read next is zero. Touched again without an acquire or
 * a prefetch such a page takes memory that nobody has reserved; so the record is marked thin, and
 * whoever fills a range of a thin morsel reserves it anew. Parts of a page, or of a block that the
 * kernel cannot take away in part, are zeroed in place; so is everything while a target pins memory
 * of the morsel, for it would go on with the memory that was taken away.
 */
#include <errno.h>
#include <string.h>

#include "object/evict.h"
#include "object/internal.h"
#include "object/retarget.h"

struct advise {
	struct morsel *morsel;
	uint64_t offset, end;
	uint64_t hold; /* of the range, while memory behind it is taken or given */
	bool in_place; /* somebody keeps the memory: it is zeroed, and stays */
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
	if (advise->in_place)
		return mrs_content_zero(advise->morsel, offset, bytes);
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
	if (mrs_morsel_coherence(morsel))
		return mrs_evict_discard(morsel, advise->offset, advise->end);
	advise->in_place = mrs_morsel_view_frees(morsel, advise->hold);
	/* Before any memory goes: whoever fills from now on reserves. */
	mrs_record_set(morsel->record, MRS_RECORD_THIN);
	MRS_PROBE("advise.thin");
	return mrs_content_each(morsel, advise->offset, advise->end - advise->offset, UINT64_MAX,
				free_piece, advise);
}

/* ---- where pages come and go ---- */

/* Holes of a lazy morsel first: what is only looked at would leave them out. */
static int prefetch(struct advise *advise, uint64_t page, uint64_t pages)
{
	struct morsel *morsel = advise->morsel;
	int rc = mrs_morsel_fill(morsel, page, pages);

	if (rc || !mrs_morsel_coherence(morsel))
		return rc;
	return mrs_content_bring(morsel, advise->offset, advise->end - advise->offset, NULL);
}

static int advise_use(struct morsel *morsel, int advice)
{
	struct mrs_cell_coherence *coherence;
	int rc = mrs_evict_check(morsel);

	if (rc)
		return rc;
	coherence = mrs_morsel_coherence(morsel);
	mrs_store_release(&coherence->advice,
			  advice == MORSEL_ADVICE_NORMAL ? 0 : (uint64_t)advice);
	return 0;
}

/* The evictor's clock goes there next; all of a morsel stays in the way of being evicted. */
static int advise_do_not_need(struct advise *advise)
{
	struct morsel *morsel = advise->morsel;
	struct mrs_cell_coherence *coherence;
	int rc = mrs_evict_check(morsel);

	if (rc)
		return rc;
	coherence = mrs_morsel_coherence(morsel);
	if (!advise->offset && advise->end == mrs_morsel_bytes(morsel))
		mrs_store_release(&coherence->advice, MORSEL_ADVICE_DO_NOT_NEED);
	mrs_store_release(&coherence->hand, advise->offset / MRS_PAGE_BYTES);
	mrs_store_release(&mrs_pool_state(morsel->pool)->evict_hand, morsel->cell);
	return 0;
}

static int advise_range(struct advise *advise, int advice)
{
	struct morsel *morsel = advise->morsel;
	uint64_t page = advise->offset / MRS_PAGE_BYTES, evicted;
	uint64_t pages = mrs_pages_in(advise->end) - page;

	switch ((enum morsel_advice)advice) {
	case MORSEL_ADVICE_PREFETCH:
		return prefetch(advise, page, pages);
	case MORSEL_ADVICE_HUGE:
		return mrs_morsel_each_run(morsel, page, pages, huge_run, advise);
	case MORSEL_ADVICE_FREE:
		return advise_free(advise);
	case MORSEL_ADVICE_EVICT:
		return mrs_evict(morsel, page, pages, &evicted);
	case MORSEL_ADVICE_NORMAL:
	case MORSEL_ADVICE_SEQUENTIAL:
	case MORSEL_ADVICE_RANDOM:
		return advise_use(morsel, advice);
	case MORSEL_ADVICE_WILL_NEED:
		return mrs_will_need(morsel, advise->offset, advise->end - advise->offset);
	case MORSEL_ADVICE_DO_NOT_NEED:
		return advise_do_not_need(advise);
	}
	return mrs_fail(-EINVAL, "unknown advice %d: see enum morsel_advice", advice);
}

/* The range must stay while memory behind it is taken or given; the others look for themselves. */
static int advise_held(struct advise *advise, int advice)
{
	int rc = mrs_morsel_view_publish(advise->morsel, mrs_pages_in(advise->end),
					 advice == MORSEL_ADVICE_FREE, &advise->hold);

	if (rc)
		return rc;
	rc = advise_range(advise, advice);
	mrs_morsel_view_withdraw(advise->morsel, advise->hold);
	return rc;
}

int morsel_advise(struct morsel *morsel, uint64_t offset, uint64_t bytes, int advice)
{
	struct advise advise = {.morsel = morsel, .offset = offset, .end = offset + bytes};
	uint64_t size;
	int rc;

	if (advice < MORSEL_ADVICE_PREFETCH || advice > MORSEL_ADVICE_DO_NOT_NEED)
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
	return advice <= MORSEL_ADVICE_FREE ? advise_held(&advise, advice)
					    : advise_range(&advise, advice);
}
