/*
 * Restore: a morsel like the one that was dumped, in new frames.
 *
 * As with an import the record has no name until it is complete, so that nobody sees half of it and
 * a death leaves a nameless record, which the reaper frees. Frames first, of the orders that the
 * dump tells; then several workers read batches of chunks straight into them and compare each with
 * its checksum; then the tensor table; then the name.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "object/restore.h"

/* Leaves that are placed before a waiting reaper is let in. */
#define BREATH 512u

/* ---- frames ---- */

static int begin_placing(struct restore *restore, struct mrs_txn *txn)
{
	int rc = mrs_txn_begin(restore->pool, MRS_INTENT_RESIZE, txn);

	if (!rc)
		txn->intent->cell[0] = restore->morsel->cell;
	return rc;
}

/* The largest order up to max whose page at page is not larger than [page, end). */
static unsigned order_at(uint64_t page, uint64_t end, unsigned max)
{
	while (max && (page & ((1ull << max) - 1) || page + (1ull << max) > end))
		max -= MRS_HUGE_ORDER;
	return max;
}

static int place_here(struct restore *restore, struct mrs_txn *txn, uint64_t page, unsigned *order,
		      uint64_t *hint)
{
	unsigned granule = restore->granule;
	int rc = mrs_place_leaf(restore->morsel, txn, page, *order, hint);

	/* Where no such frame is left, smaller ones do: of what was mixed before. */
	while (rc == -ENOSPC && *order > granule && restore->head->pages == MORSEL_PAGES_MIXED) {
		*order -= MRS_HUGE_ORDER;
		rc = mrs_place_leaf(restore->morsel, txn, page, *order, hint);
	}
	return rc;
}

static int place_run(struct restore *restore, struct mrs_txn *txn, const struct mrs_dump_run *run)
{
	struct mrs_table *table = &restore->morsel->table;
	uint64_t grain = 1ull << restore->granule, hint = 0;
	uint64_t page = mrs_round_down(mrs_max(run->page, restore->first), grain);
	uint64_t end = mrs_round_up(mrs_min(run->page + run->pages, restore->end), grain);
	unsigned max = restore->head->one_run ? MRS_GIANT_ORDER : run->order, since = 0;

	while (page < end) {
		unsigned order = mrs_max(order_at(page, end, max), restore->granule);
		struct mrs_run there;
		/* With a coarser granule than the dump's two runs may lie in one page. */
		int rc = mrs_table_lookup(table, page, 1, &there);

		if (!rc && !there.mapped)
			rc = place_here(restore, txn, page, &order, &hint);
		if (rc)
			return rc;
		page += 1ull << order;
		if (++since % BREATH == 0)
			mrs_txn_pause(txn);
	}
	return 0;
}

static int place_runs(struct restore *restore, struct mrs_txn *txn)
{
	const struct mrs_dump *dump = restore->dump;
	int rc = 0;

	if (dump->head.one_run && !restore->is_part)
		return mrs_place(restore->morsel, txn, 0,
				 mrs_round_up(restore->end, 1ull << restore->granule));
	for (uint64_t i = 0; !rc && i < dump->run_count; i++)
		if (dump->runs[i].page < restore->end &&
		    dump->runs[i].page + dump->runs[i].pages > restore->first)
			rc = place_run(restore, txn, &dump->runs[i]);
	return rc;
}

/* Frames and memory for all that is to be loaded. */
static int place(struct restore *restore)
{
	uint64_t grain = 1ull << restore->granule;
	struct mrs_txn txn;
	int rc;

	if (restore->first >= restore->end)
		return 0;
	rc = begin_placing(restore, &txn);
	if (rc)
		return rc;
	rc = place_runs(restore, &txn);
	MRS_PROBE("restore.placed");
	/* What can be evicted takes its memory page by page: it may be more than the budget. */
	if (!rc && mrs_dump_needs_grants(restore->morsel))
		mrs_record_set(restore->morsel->record, MRS_RECORD_THIN);
	else if (!rc)
		rc = mrs_place_back(restore->morsel, &txn, mrs_round_down(restore->first, grain),
				    mrs_round_up(restore->end, grain));
	MRS_PROBE("restore.backed");
	mrs_txn_end(&txn);
	return rc;
}

/* ---- content ---- */

int mrs_restore_check(const struct mrs_dump_link *link, const struct mrs_dump_chunk *chunk,
		      uint64_t offset, uint32_t crc)
{
	if (chunk->crc == crc)
		return 0;
	return mrs_fail(-EBADMSG,
			"%s: pages %llu to %llu of the morsel are damaged (at byte %llu of the "
			"file, checksum %08x, not %08x): take another copy of the file",
			link ? link->stream.name : "the dump", (unsigned long long)chunk->page,
			(unsigned long long)(chunk->page + chunk->pages - 1),
			(unsigned long long)offset, crc, chunk->crc);
}

struct load {
	struct restore *restore;
	struct mrs_dump_held held;
	struct mrs_dump_piece piece[MRS_DUMP_BATCH * MRS_DUMP_CHUNK_PAGES];
	struct iovec iov[MRS_DUMP_BATCH * MRS_DUMP_CHUNK_PAGES];
	struct mrs_dump_link *link[MRS_DUMP_BATCH];
	uint64_t offset[MRS_DUMP_BATCH];
	unsigned begin[MRS_DUMP_BATCH + 1]; /* of each chunk, in piece */
};

/* Where each chunk comes from and goes to. Zeros go nowhere: new frames are zero. */
static int find_both(struct load *load, const struct mrs_dump_chunk *chunk, unsigned count)
{
	unsigned pieces = 0;

	for (unsigned i = 0; i < count; i++) {
		int rc = mrs_dump_chain_find(&load->restore->chain, 0, &chunk[i], &load->link[i],
					     &load->offset[i]);

		load->begin[i] = pieces;
		if (!rc && load->link[i])
			rc = mrs_dump_hold(&load->held, chunk[i].page, chunk[i].pages, load->piece,
					   &pieces);
		if (rc)
			return rc;
	}
	load->begin[count] = pieces;
	return 0;
}

/* One request for chunks that lie together in the file: from i on; returns how many. */
static int read_together(struct load *load, const struct mrs_dump_chunk *chunk, unsigned i,
			 unsigned count, unsigned *taken)
{
	uint64_t next = load->offset[i];
	unsigned n = i, vectors = 0;

	for (; n < count && load->link[n] == load->link[i] && load->offset[n] == next; n++)
		next += chunk[n].pages * MRS_PAGE_BYTES;
	*taken = n - i;
	if (!load->link[i]) {
		*taken = 1;
		return 0;
	}
	for (unsigned p = load->begin[i]; p < load->begin[n]; p++)
		load->iov[vectors++] = (struct iovec){.iov_base = load->piece[p].memory,
						      .iov_len = load->piece[p].bytes};
	return mrs_stream_read(&load->link[i]->stream, load->iov, vectors, load->offset[i]);
}

/* Zeros are under the checksum of zeros, wherever they come from. */
static uint32_t zero_sum(uint32_t pages)
{
	static const unsigned char zero[MRS_PAGE_BYTES];
	uint32_t crc = 0;

	while (pages--)
		crc = mrs_crc32c(crc, zero, sizeof(zero));
	return crc;
}

static int check_chunk(const struct load *load, const struct mrs_dump_chunk *chunk, unsigned i)
{
	uint32_t crc = load->link[i] ? 0 : zero_sum(chunk->pages);

	for (unsigned p = load->begin[i]; p < load->begin[i + 1]; p++)
		crc = mrs_crc32c(crc, load->piece[p].memory, load->piece[p].bytes);
	return mrs_restore_check(load->link[i], chunk, load->offset[i], crc);
}

static int load_batch(struct load *load, const struct mrs_dump_chunk *chunk, unsigned count)
{
	unsigned taken;
	int rc;

	mrs_dump_hold_begin(&load->held, load->restore->morsel, true);
	rc = find_both(load, chunk, count);
	for (unsigned i = 0; !rc && i < count; i += taken)
		rc = read_together(load, chunk, i, count, &taken);
	for (unsigned i = 0; !rc && i < count; i++)
		rc = check_chunk(load, &chunk[i], i);
	MRS_PROBE("restore.batch");
	mrs_dump_hold_end(&load->held);
	return rc;
}

static int tell_progress(struct restore *restore)
{
	const struct morsel_restore_opts *opts = restore->opts;
	uint64_t done = mrs_load_relaxed(&restore->done) * MRS_PAGE_BYTES;

	if (!opts->progress || !opts->progress(opts->progress_ctx, done, restore->total))
		return 0;
	return mrs_fail(-ECANCELED, "restoring was cancelled after %llu bytes",
			(unsigned long long)done);
}

static int load_worker(void *ctx, bool is_caller)
{
	struct restore *restore = ctx;
	struct load *load = calloc(1, sizeof(*load));
	int rc = load ? 0 : mrs_fail(-ENOMEM, "no memory for the lists of a restore");

	if (rc)
		mrs_store_relaxed(&restore->next, restore->last_chunk);
	while (!rc) {
		uint64_t first = mrs_fetch_add(&restore->next, MRS_DUMP_BATCH), pages = 0;
		const struct mrs_dump_chunk *chunk = restore->dump->chunks + first;
		uint64_t count;

		if (first >= restore->last_chunk)
			break;
		count = mrs_min(restore->last_chunk - first, (uint64_t)MRS_DUMP_BATCH);
		load->restore = restore;
		rc = load_batch(load, chunk, (unsigned)count);
		for (uint64_t i = 0; i < count; i++)
			pages += chunk[i].pages;
		mrs_fetch_add(&restore->done, pages);
		if (!rc && is_caller)
			rc = tell_progress(restore);
		/* The others find an end. */
		if (rc)
			mrs_store_relaxed(&restore->next, restore->last_chunk);
	}
	free(load);
	return rc;
}

static int load_content(struct restore *restore)
{
	const struct mrs_dump *dump = restore->dump;
	uint64_t first = mrs_dump_find(dump->chunks, dump->chunk_count, restore->first);
	unsigned workers;

	restore->next = first;
	restore->last_chunk = first;
	while (restore->last_chunk < dump->chunk_count &&
	       dump->chunks[restore->last_chunk].page < restore->end)
		restore->total += dump->chunks[restore->last_chunk++].pages * MRS_PAGE_BYTES;
	if (first == restore->last_chunk)
		return 0;
	workers = mrs_dump_workers(restore->morsel, restore->last_chunk - first,
				   restore->opts->in_flight);
	return mrs_crew_run(workers, load_worker, restore);
}

/* ---- the record ---- */

static int keep_tensors(struct restore *restore)
{
	struct mrs_cell_record *record = restore->morsel->record;
	uint64_t bytes = restore->head->section[MRS_DUMP_META].bytes, frame;
	unsigned order = 0;
	struct mrs_txn txn;
	int rc;

	if (!restore->dump->meta)
		return 0;
	while (MRS_PAGE_BYTES << order < bytes)
		order++;
	if (order > MRS_GIANT_ORDER)
		return mrs_fail(-E2BIG, "a tensor table of %llu bytes: at most 1 GiB is kept",
				(unsigned long long)bytes);
	rc = begin_placing(restore, &txn);
	if (rc)
		return rc;
	rc = mrs_txn_get_meta(&txn, order, &frame);
	if (!rc) {
		mrs_store_release(&record->meta_bytes, bytes);
		mrs_store_release(&record->meta_frame, frame);
		MRS_PROBE("restore.meta.linked");
		mrs_txn_settle(&txn);
	}
	mrs_txn_end(&txn);
	if (rc)
		return rc;
	memcpy(mrs_pool_at(restore->pool, frame, 1ull << order), restore->dump->meta, bytes);
	mrs_store_release(&record->tensors, restore->head->tensors);
	mrs_store_release(&record->format, restore->head->format);
	return 0;
}

/* A record without a name and without frames. It is lazy if it stays in part a hole. */
static int make_record(struct restore *restore)
{
	const struct mrs_dump_header *head = restore->head;
	struct morsel_opts opts = {.size = sizeof(opts),
				   .flags = head->flags | MORSEL_LAZY,
				   .pages = head->pages,
				   .bytes = head->bytes};
	int rc;

	/* What has holes can be neither. */
	if (restore->is_part)
		opts.flags &= ~(uint32_t)(MORSEL_CONTIGUOUS | MORSEL_SCATTERED);
	rc = mrs_handle_create(restore->pool, &opts, head->bytes, &restore->morsel);
	if (!rc && !restore->is_part && !(head->flags & MORSEL_LAZY))
		mrs_record_clear(restore->morsel->record,
				 (uint64_t)MORSEL_LAZY << MRS_RECORD_FLAGS_SHIFT);
	return rc;
}

static int fill_record(struct restore *restore)
{
	int rc = place(restore);

	if (!rc)
		rc = load_content(restore);
	MRS_PROBE("restore.loaded");
	if (!rc)
		rc = keep_tensors(restore);
	/* Of a part the rest is still to come. */
	if (!rc && restore->head->sealed && !restore->is_part)
		mrs_record_set(restore->morsel->record, MRS_RECORD_SEALED);
	return rc;
}

static int link_record(struct restore *restore, const char *name)
{
	int rc = mrs_handle_link(restore->morsel, name);

	if (rc == -EEXIST)
		return mrs_fail(rc, "the name '%s' is taken: remove it, or restore as another",
				name);
	return rc;
}

static int choose_range(struct restore *restore)
{
	const struct morsel_restore_opts *opts = restore->opts;
	const struct mrs_dump_header *head = restore->head;
	uint64_t grain = mrs_max(1ull << restore->granule, (uint64_t)MRS_DUMP_CHUNK_PAGES);
	uint64_t covered_end = head->first + head->count;

	if (opts->offset > head->bytes || opts->bytes > head->bytes - opts->offset)
		return mrs_fail(-EINVAL,
				"bytes %llu to %llu are not inside the morsel, which has %llu",
				(unsigned long long)opts->offset,
				(unsigned long long)(opts->offset + opts->bytes),
				(unsigned long long)head->bytes);
	restore->first = mrs_round_down(opts->offset / MRS_PAGE_BYTES, grain);
	restore->end = opts->bytes ? mrs_round_up(mrs_pages_in(opts->offset + opts->bytes), grain)
				   : covered_end;
	restore->first = mrs_max(restore->first, head->first);
	restore->end = mrs_min(restore->end, covered_end);
	if (opts->flags & MORSEL_LAZY || restore->end < restore->first)
		restore->end = restore->first;
	restore->is_part = restore->first || restore->end < mrs_pages_in(head->bytes);
	return 0;
}

static void find_granule(struct restore *restore)
{
	uint64_t state = mrs_state_word(MRS_RECORD_NEW, 0, restore->head->pages);

	restore->granule = (unsigned)__builtin_ctzll(mrs_record_granule(restore->pool, state));
}

int mrs_restore_open(struct restore *restore, struct morsel_pool *pool, const char *file,
		     const struct morsel_restore_opts *given)
{
	struct morsel_restore_opts *opts = restore->opts;
	int rc = mrs_check_writable(pool, "restoring");

	if (!rc)
		rc = mrs_opts_read(opts, sizeof(*opts), given);
	if (!rc && opts->flags & ~(uint32_t)MORSEL_LAZY)
		rc = mrs_fail(-EINVAL, "unknown flags 0x%x for a restore", opts->flags);
	if (!rc && opts->in_flight > MORSEL_DUMP_IN_FLIGHT_MAX)
		rc = mrs_fail(-EINVAL, "%u requests in flight: at most %d", opts->in_flight,
			      MORSEL_DUMP_IN_FLIGHT_MAX);
	if (!rc)
		rc = mrs_dump_chain_open(&restore->chain, file, opts->base);
	if (rc)
		return rc;
	restore->pool = pool;
	restore->dump = &restore->chain.link[0]->dump;
	restore->head = &restore->dump->head;
	find_granule(restore);
	rc = choose_range(restore);
	if (rc)
		mrs_dump_chain_close(&restore->chain);
	return rc;
}

int morsel_restore(struct morsel_pool *pool, const char *name, const char *file,
		   const struct morsel_restore_opts *given, struct morsel **morsel)
{
	struct morsel_restore_opts opts;
	struct restore restore = {.opts = &opts};
	int rc = name ? mrs_dir_check_name(name) : 0;

	if (!rc)
		rc = mrs_restore_open(&restore, pool, file, given);
	if (rc)
		return rc;
	if (!name)
		name = restore.head->name;
	rc = mrs_dir_check_name(name);
	if (!rc)
		rc = make_record(&restore);
	if (!rc)
		rc = fill_record(&restore);
	if (!rc)
		rc = link_record(&restore, name);
	if (rc)
		morsel_close(restore.morsel);
	else
		*morsel = restore.morsel;
	mrs_dump_chain_close(&restore.chain);
	return rc;
}

/* ---- looking ---- */

int morsel_dump_look(const char *file, struct morsel_dump_info *info)
{
	struct morsel_dump_info all;
	struct mrs_source source;
	struct mrs_dump dump;
	size_t size = info->size;
	int fd, rc;

	if (size < sizeof(size))
		return mrs_fail(-EINVAL, "the size of struct morsel_dump_info is not set");
	fd = open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return mrs_fail_errno(-errno, "cannot open %s", file);
	rc = mrs_source_fd(&source, &fd);
	if (!rc)
		rc = mrs_dump_parse(&source, file, &dump);
	close(fd);
	if (rc)
		return rc;
	mrs_dump_tell(&dump, &all);
	mrs_dump_free(&dump);
	memcpy(info, &all, mrs_min(size, sizeof(all)));
	info->size = size;
	return 0;
}
