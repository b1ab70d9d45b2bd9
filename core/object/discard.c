/*
 * Discarding: content that nobody needs goes, with its memory and its place on a swap target. It is
 * an eviction that saves nothing, so that the page is a page of zeros that is evicted.
 *
 * Parts of a page, and of a leaf of 2 MiB, become zeros as anybody else would write them. What is
 * shared with a clone is made private first.
 */
#include <errno.h>
#include <time.h>

#include "object/evict.h"
#include "object/internal.h"
#include "object/share.h"

#define TRIES	100u	 /* a clone may come in between, again and again */
#define BUSY_NS 1000000l /* a leaf that is locked is so for about as long */

struct piece {
	struct morsel *morsel;
	uint64_t page, end;
};

/* The end of the huge leaf that page is in the middle of; page if it is in none. */
static int past_huge_leaf(struct morsel *morsel, uint64_t page, uint64_t *past)
{
	struct mrs_leaf leaf;
	int rc = mrs_table_leaf(&morsel->table, page, &leaf);

	*past = page;
	if (!rc && leaf.entry && leaf.level && leaf.page != page)
		*past = leaf.page + (1ull << MRS_HUGE_ORDER * leaf.level);
	return rc;
}

/* Zeroes what lies in huge leaves that reach beyond the piece; the rest is whole leaves. */
static int trim_ends(struct piece *piece)
{
	uint64_t past, first, last;
	int rc = past_huge_leaf(piece->morsel, piece->page, &past);

	first = mrs_min(past, piece->end);
	if (!rc && first > piece->page)
		rc = mrs_content_zero(piece->morsel, piece->page * MRS_PAGE_BYTES,
				      (first - piece->page) * MRS_PAGE_BYTES);
	piece->page = first;
	if (rc || first == piece->end)
		return rc;
	rc = past_huge_leaf(piece->morsel, piece->end, &past);
	if (rc || past == piece->end)
		return rc;
	last = mrs_max(mrs_round_down(piece->end, 1ull << MRS_HUGE_ORDER), first);
	rc = mrs_content_zero(piece->morsel, last * MRS_PAGE_BYTES,
			      (piece->end - last) * MRS_PAGE_BYTES);
	piece->end = last;
	return rc;
}

static void await_clone(struct morsel *morsel)
{
	struct mrs_cell_coherence *coherence = mrs_morsel_coherence(morsel);
	uint64_t by = coherence ? mrs_load_acquire(&coherence->frozen) : 0;

	if (by)
		mrs_pool_wait_word(morsel->pool, &coherence->frozen, by);
}

/* How many pages of the piece have a frame, with or without memory. */
static uint64_t pages_there(const struct piece *piece)
{
	uint64_t page = piece->page, count = 0;
	struct mrs_leaf leaf;

	while (page < piece->end && !mrs_table_leaf(&piece->morsel->table, page, &leaf)) {
		uint64_t next = leaf.page + (1ull << MRS_HUGE_ORDER * leaf.level);

		next = mrs_min(mrs_max(next, page + 1), piece->end);
		count += mrs_entry_state(leaf.entry) != MRS_ENTRY_EMPTY ? next - page : 0;
		page = next;
	}
	return count;
}

/* A page whose leaf somebody had locked was passed by: it is being read ahead, for instance. */
static int passed_by(const struct piece *piece, uint64_t discarded)
{
	if (discarded >= pages_there(piece))
		return 0;
	nanosleep(&(struct timespec){.tv_nsec = BUSY_NS}, NULL);
	return mrs_fail(-EAGAIN, "pages are being brought in, moved or evicted: try again");
}

static int discard_leaves(const struct piece *piece)
{
	struct mrs_evict_job job = {.morsel = piece->morsel,
				    .page = piece->page,
				    .pages = piece->end - piece->page,
				    .discard = true,
				    .strict = true};
	int rc = -EAGAIN;

	for (unsigned i = 0; rc == -EAGAIN && i < TRIES; i++) {
		await_clone(piece->morsel);
		rc = mrs_share_is_family(piece->morsel)
			     ? mrs_share_break(piece->morsel, piece->page, job.pages)
			     : 0;
		mrs_pool_may_exceed(true);
		job.evicted = 0;
		if (!rc)
			rc = mrs_evict_job(&job);
		mrs_pool_may_exceed(false);
		if (!rc)
			rc = passed_by(piece, job.evicted);
	}
	return rc;
}

int mrs_evict_discard(struct morsel *morsel, uint64_t offset, uint64_t end)
{
	struct piece piece = {
		.morsel = morsel, .page = mrs_pages_in(offset), .end = end / MRS_PAGE_BYTES};
	int rc;

	/* The last page is whole if the morsel ends in it. */
	if (end == mrs_morsel_bytes(morsel))
		piece.end = mrs_pages_in(end);
	if (piece.page >= piece.end)
		return mrs_content_zero(morsel, offset, end - offset);
	rc = mrs_content_zero(morsel, offset, piece.page * MRS_PAGE_BYTES - offset);
	if (!rc && end > piece.end * MRS_PAGE_BYTES)
		rc = mrs_content_zero(morsel, piece.end * MRS_PAGE_BYTES,
				      end - piece.end * MRS_PAGE_BYTES);
	if (!rc)
		rc = trim_ends(&piece);
	return !rc && piece.page < piece.end ? discard_leaves(&piece) : rc;
}
