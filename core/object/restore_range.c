/*
 * Loading more of a morsel that was restored in part.
 *
 * Others use the morsel meanwhile, and may fill or load the same holes. So the content is read into
 * a buffer and compared with its checksum before there is a frame; the frame gets it before it is
 * linked; and whoever links second gives his frame back. No transition is open while the file is
 * read.
 *
 * A block is what is linked at once: one page, or 2 MiB where the dump has such pages and all of it
 * is a hole. (1 GiB pages come in blocks of 2 MiB here: a buffer of 1 GiB for each worker is too
 * much.)
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "object/restore.h"

#define BUFFER_PAGES (1u << MRS_HUGE_ORDER)

struct demand {
	struct restore *restore;
	unsigned char *buffer; /* BUFFER_PAGES */
	uint64_t hint;
};

/* Reads one chunk to where it belongs in the buffer, which begins with page base. */
static int read_chunk(struct demand *demand, const struct mrs_dump_chunk *chunk, uint64_t base)
{
	unsigned char *to = demand->buffer + (chunk->page - base) * MRS_PAGE_BYTES;
	struct iovec iov = {.iov_base = to, .iov_len = chunk->pages * MRS_PAGE_BYTES};
	size_t bytes = iov.iov_len;
	struct mrs_dump_link *link;
	uint64_t offset;
	int rc = mrs_dump_chain_find(&demand->restore->chain, 0, chunk, &link, &offset);

	if (rc)
		return rc;
	if (link)
		rc = mrs_stream_read(&link->stream, &iov, 1, offset);
	else
		memset(to, 0, bytes);
	return rc ? rc : mrs_restore_check(link, chunk, offset, mrs_crc32c(0, to, bytes));
}

/* Got, backed, written, linked. -EEXIST where somebody else was quicker. */
static int link_block(struct demand *demand, struct mrs_txn *txn, uint64_t page, unsigned order,
		      const unsigned char *content)
{
	struct morsel *morsel = demand->restore->morsel;
	bool small = demand->restore->head->pages == MORSEL_PAGES_4K;
	uint64_t frame, hint = demand->hint;
	int rc = mrs_table_prepare(&morsel->table, txn, page, order / MRS_HUGE_ORDER);

	if (rc)
		return rc;
	if (hint && !(hint & ((1ull << order) - 1)) &&
	    mrs_place_is_free(morsel->pool, hint, order) && !mrs_txn_get_at(txn, order, hint))
		frame = hint;
	else
		rc = mrs_txn_get(txn, order, order ? MRS_FRAME_HUGE : MRS_FRAME_MOVABLE, hint,
				 &frame);
	if (rc)
		return rc;
	rc = mrs_pool_back(txn, frame, 1ull << order, small ? 0 : MRS_BACK_HUGE, NULL);
	if (rc) {
		mrs_place_unget(txn, order, frame, false);
		return rc;
	}
	memcpy(mrs_pool_at(morsel->pool, frame, 1ull << order), content, MRS_PAGE_BYTES << order);
	MRS_PROBE("restore.range.written");
	rc = mrs_table_set_whole(&morsel->table, txn, page, order / MRS_HUGE_ORDER, frame);
	if (rc) {
		mrs_place_unget(txn, order, frame, true);
		return rc;
	}
	mrs_fetch_add(&morsel->record->allocated, 1ull << order);
	demand->hint = frame + (1ull << order);
	MRS_PROBE("restore.range.linked");
	return 0;
}

static int link_in_txn(struct demand *demand, uint64_t page, uint64_t pages, unsigned order,
		       const unsigned char *content)
{
	struct restore *restore = demand->restore;
	struct mrs_txn txn;
	int rc = mrs_txn_begin(restore->pool, MRS_INTENT_RESIZE, &txn);

	if (rc)
		return rc;
	txn.intent->cell[0] = restore->morsel->cell;
	for (uint64_t at = 0; !rc && at < pages; at += 1ull << order) {
		rc = link_block(demand, &txn, page + at, order, content + at * MRS_PAGE_BYTES);
		/* What somebody else has put there counts. */
		if (rc == -EEXIST)
			rc = 0;
	}
	mrs_txn_end(&txn);
	return rc;
}

static bool is_hole(struct restore *restore, uint64_t page, uint64_t pages)
{
	struct mrs_run run;

	return !mrs_table_lookup(&restore->morsel->table, page, pages, &run) && !run.mapped &&
	       run.pages == pages;
}

static bool is_any_hole(struct restore *restore, uint64_t page, uint64_t pages)
{
	struct mrs_run run;

	return mrs_table_lookup(&restore->morsel->table, page, pages, &run) || !run.mapped ||
	       run.pages < pages;
}

/* The order of the run that page is in. */
static unsigned order_of(const struct mrs_dump *dump, uint64_t page)
{
	uint64_t low = 0, high = dump->run_count;

	if (dump->head.one_run)
		return MRS_GIANT_ORDER;
	while (low + 1 < high) {
		uint64_t middle = low + (high - low) / 2;

		if (dump->runs[middle].page <= page)
			low = middle;
		else
			high = middle;
	}
	return dump->run_count ? dump->runs[low].order : 0;
}

/*
 * How many chunks from i on make a 2 MiB block that is to be linked as one: 0 if page does not
 * begin one. A block that is larger than the dump's pages is never made, but where frames come in
 * no smaller pieces.
 */
static uint64_t huge_block(struct restore *restore, uint64_t i)
{
	const struct mrs_dump *dump = restore->dump;
	uint64_t page = mrs_round_down(dump->chunks[i].page, BUFFER_PAGES), n = i;

	if (!restore->granule &&
	    (order_of(dump, page) < MRS_HUGE_ORDER || dump->chunks[i].page != page ||
	     page + BUFFER_PAGES > mrs_pages_in(dump->head.bytes)))
		return 0;
	if (!is_hole(restore, page, BUFFER_PAGES))
		return 0;
	while (n < restore->last_chunk && dump->chunks[n].page < page + BUFFER_PAGES)
		n++;
	if (!restore->granule && n - i != BUFFER_PAGES / MRS_DUMP_CHUNK_PAGES)
		return 0;
	return n - i;
}

static int load_huge(struct demand *demand, uint64_t i, uint64_t count)
{
	const struct mrs_dump_chunk *chunk = &demand->restore->dump->chunks[i];
	uint64_t page = mrs_round_down(chunk->page, BUFFER_PAGES);
	int rc = 0;

	memset(demand->buffer, 0, BUFFER_PAGES * MRS_PAGE_BYTES);
	for (uint64_t n = 0; !rc && n < count; n++)
		rc = read_chunk(demand, &chunk[n], page);
	return rc ? rc : link_in_txn(demand, page, BUFFER_PAGES, MRS_HUGE_ORDER, demand->buffer);
}

static int load_small(struct demand *demand, uint64_t i)
{
	const struct mrs_dump_chunk *chunk = &demand->restore->dump->chunks[i];
	int rc;

	if (!is_any_hole(demand->restore, chunk->page, chunk->pages))
		return 0;
	rc = read_chunk(demand, chunk, chunk->page);
	return rc ? rc : link_in_txn(demand, chunk->page, chunk->pages, 0, demand->buffer);
}

static int load_demand(struct demand *demand)
{
	struct restore *restore = demand->restore;
	const struct morsel_restore_opts *opts = restore->opts;
	const struct mrs_dump *dump = restore->dump;
	uint64_t i = mrs_dump_find(dump->chunks, dump->chunk_count, restore->first), done = 0;
	int rc = 0;

	restore->last_chunk = mrs_dump_find(dump->chunks, dump->chunk_count, restore->end);
	for (uint64_t n = i; n < restore->last_chunk; n++)
		restore->total += dump->chunks[n].pages * MRS_PAGE_BYTES;
	while (!rc && i < restore->last_chunk) {
		uint64_t huge = huge_block(restore, i), count = huge ? huge : 1;

		rc = huge ? load_huge(demand, i, huge) : -ENOSPC;
		/* No such frame is left: smaller ones do, where there are smaller ones. */
		if (rc == -ENOSPC && !restore->granule) {
			count = 1;
			rc = load_small(demand, i);
		} else if (!huge && restore->granule) {
			rc = 0; /* a block that somebody has filled */
		}
		for (uint64_t n = i; n < i + count; n++)
			done += dump->chunks[n].pages * MRS_PAGE_BYTES;
		i += count;
		if (!rc && opts->progress &&
		    opts->progress(opts->progress_ctx, done, restore->total))
			rc = mrs_fail(-ECANCELED, "loading was cancelled after %llu bytes",
				      (unsigned long long)done);
	}
	return rc;
}

static int check_same(struct morsel *morsel, const struct mrs_dump_header *head, const char *file)
{
	struct morsel_info info = {.size = sizeof(info)};
	int rc = morsel_info(morsel, &info);

	if (rc)
		return rc;
	if (info.bytes != head->bytes || info.pages != head->pages || info.format != head->format ||
	    info.tensors != head->tensors)
		return mrs_fail(-EINVAL,
				"%s is a dump of another morsel (%llu bytes, %llu tensors; this "
				"one has %llu and %llu)",
				file, (unsigned long long)head->bytes,
				(unsigned long long)head->tensors, (unsigned long long)info.bytes,
				(unsigned long long)info.tensors);
	if (!(info.flags & MORSEL_LAZY))
		return mrs_fail(-EINVAL, "the morsel has no holes to load: it is not lazy");
	return 0;
}

static int load_held(struct restore *restore)
{
	struct demand demand = {.restore = restore};
	int rc;

	demand.buffer = aligned_alloc(MRS_PAGE_BYTES, BUFFER_PAGES * MRS_PAGE_BYTES);
	if (!demand.buffer)
		return mrs_fail(-ENOMEM, "no memory for a buffer of 2 MiB");
	rc = load_demand(&demand);
	free(demand.buffer);
	return rc;
}

int morsel_restore_range(struct morsel *morsel, const char *file,
			 const struct morsel_restore_opts *given)
{
	struct morsel_restore_opts opts;
	struct restore restore = {.opts = &opts, .morsel = morsel};
	uint64_t hold;
	int rc = mrs_restore_open(&restore, morsel->pool, file, given);

	if (rc)
		return rc;
	/* A view of its own: nobody trims the tables meanwhile. */
	rc = mrs_morsel_view_publish(morsel, mrs_morsel_pages(morsel), false, &hold);
	if (!rc) {
		rc = check_same(morsel, restore.head, file);
		if (!rc)
			rc = load_held(&restore);
		mrs_morsel_view_withdraw(morsel, hold);
	}
	mrs_dump_chain_close(&restore.chain);
	return rc;
}
