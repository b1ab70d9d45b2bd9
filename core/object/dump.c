/*
 * Dump: a morsel becomes a file of the format in dump_format.h.
 *
 * First the table is walked: runs, and the list of chunks, which is the work. Then several workers
 * take batches of chunks, decide for each whether it is zero, as in the base, or to be stored, and
 * write what is stored with one request per batch, at the file's end as it is then. Last come the
 * tables and the header. The file has its name only when all of it is on disk.
 *
 * A sealed morsel's memory goes to the device as it is. Memory that somebody may be writing is
 * copied first, and the copy is what is summed and written: a checksum of bytes that change
 * afterwards would make a good dump look damaged.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "object/dump_format.h"

#define BATCH_PAGES (MRS_DUMP_BATCH * MRS_DUMP_CHUNK_PAGES)
#define CHUNK_BYTES (MRS_DUMP_CHUNK_PAGES * MRS_PAGE_BYTES)

struct list {
	void *at;
	uint64_t count, room;
};

struct dump {
	struct morsel *morsel;
	const struct morsel_dump_opts *opts;
	struct mrs_stream stream;
	struct mrs_dump_header head;
	struct list runs, chunks;
	struct mrs_dump_chain base; /* count 0: none */
	struct list shape;	    /* the snapshot's chunks */
	bool is_sealed;
	uint64_t next; /* atomic: chunk that no worker has taken */
	uint64_t end;  /* atomic: page of the file that is not used yet */
	uint64_t done; /* atomic: pages */
	uint64_t total;
};

static int list_add(struct list *list, const void *item, size_t bytes)
{
	if (list->count == list->room) {
		uint64_t room = mrs_max(2 * list->room, 256u);
		void *at = realloc(list->at, room * bytes);

		if (!at)
			return mrs_fail(-ENOMEM, "no memory for %llu entries of a dump's tables",
					(unsigned long long)room);
		list->at = at;
		list->room = room;
	}
	memcpy((char *)list->at + list->count++ * bytes, item, bytes);
	return 0;
}

/* ---- what there is to do ---- */

/* The chunks of the mapped pages [page, end). */
static int list_chunks(struct list *chunks, uint64_t page, uint64_t end)
{
	int rc = 0;

	while (!rc && page < end) {
		uint64_t window = mrs_round_down(page, MRS_DUMP_CHUNK_PAGES) + MRS_DUMP_CHUNK_PAGES;
		struct mrs_dump_chunk chunk = {.page = page,
					       .pages = (uint32_t)(mrs_min(window, end) - page)};

		rc = list_add(chunks, &chunk, sizeof(chunk));
		page += chunk.pages;
	}
	return rc;
}

struct plan {
	struct morsel *morsel;
	struct list *runs;
	struct list *chunks;
	uint64_t first, end; /* of the chunks; runs are listed whole */
};

/* The leaf at page, and those of its order that follow it without a hole, up to limit. */
static int plan_run(struct plan *plan, uint64_t page, uint64_t limit, struct mrs_dump_run *found)
{
	struct mrs_run leaf;
	int rc = mrs_table_lookup(&plan->morsel->table, page, 1, &leaf);

	if (rc)
		return rc;
	*found = (struct mrs_dump_run){.order = leaf.order};
	found->page = mrs_round_down(page, 1ull << leaf.order);
	do {
		page = mrs_round_down(page, 1ull << leaf.order) + (1ull << leaf.order);
		if (page >= limit)
			break;
		rc = mrs_table_lookup(&plan->morsel->table, page, 1, &leaf);
	} while (!rc && leaf.mapped && leaf.order == found->order);
	found->pages = page - found->page;
	return rc;
}

/* A morsel without a table has one run, whose pages are what they are when it has one. */
static int plan_one_run(struct plan *plan)
{
	struct mrs_dump_run run = {.pages = mrs_morsel_pages(plan->morsel)};

	return list_add(plan->runs, &run, sizeof(run));
}

static int plan_mapped(struct plan *plan, uint64_t page, uint64_t end)
{
	int rc = 0;

	while (!rc && page < end) {
		struct mrs_dump_run run;

		rc = plan_run(plan, page, end, &run);
		if (!rc)
			rc = list_add(plan->runs, &run, sizeof(run));
		if (!rc)
			rc = list_chunks(plan->chunks, mrs_max(page, plan->first),
					 mrs_min(run.page + run.pages, plan->end));
		page = run.page + run.pages;
	}
	return rc;
}

static int plan_pages(struct plan *plan)
{
	uint64_t page = plan->first;
	int rc = 0;

	if (mrs_entry_state(mrs_load_acquire(&plan->morsel->record->root)) == MRS_ENTRY_MAPPED) {
		rc = plan_one_run(plan);
		return rc ? rc : list_chunks(plan->chunks, page, plan->end);
	}
	while (!rc && page < plan->end) {
		struct mrs_run run;

		rc = mrs_table_lookup(&plan->morsel->table, page, plan->end - page, &run);
		if (!rc && run.mapped)
			rc = plan_mapped(plan, page, page + run.pages);
		page += run.pages;
	}
	return rc;
}

/* ---- bases ---- */

static int open_base(struct dump *dump)
{
	struct mrs_dump_header *head = &dump->head;
	const struct mrs_dump_header *base;
	const char *slash, *name = dump->opts->base;
	int rc = mrs_dump_chain_open(&dump->base, name, NULL);

	if (rc)
		return rc;
	base = &dump->base.link[0]->dump.head;
	if (dump->base.count > MORSEL_DUMP_CHAIN_MAX)
		return mrs_fail(-EINVAL, "%s stands on %d others already: make a full dump", name,
				MORSEL_DUMP_CHAIN_MAX);
	slash = strrchr(name, '/');
	if (slash)
		name = slash + 1;
	if (strlen(name) > MORSEL_NAME_MAX)
		return mrs_fail(-ENAMETOOLONG, "the name of the base is longer than %d bytes",
				MORSEL_NAME_MAX);
	head->base_kind = MRS_DUMP_BASE_DUMP;
	memcpy(head->base_uuid, base->uuid, sizeof(head->base_uuid));
	memcpy(head->base_name, name, strlen(name));
	return 0;
}

static int use_snapshot(struct dump *dump)
{
	struct morsel *snapshot = dump->opts->snapshot;
	struct plan plan = {.morsel = snapshot, .chunks = &dump->shape};
	struct list runs = {0};
	int rc;

	if (snapshot->pool != dump->morsel->pool || snapshot->record == dump->morsel->record)
		return mrs_fail(-EINVAL, "the base is no other morsel of the same pool handle");
	if (!mrs_morsel_is_sealed(snapshot))
		return mrs_fail(-EINVAL, "a morsel that is a base must be sealed: else it is "
					 "another one when it is dumped");
	plan.runs = &runs;
	plan.end = mrs_morsel_pages(snapshot);
	rc = plan_pages(&plan);
	free(runs.at);
	dump->head.base_kind = MRS_DUMP_BASE_SNAPSHOT;
	memcpy(dump->head.base_uuid, mrs_pool_super(snapshot->pool)->uuid,
	       sizeof(dump->head.base_uuid));
	dump->head.base_id = snapshot->record->id;
	return rc;
}

/* ---- one batch ---- */

struct batch {
	struct dump *dump;
	struct mrs_dump_held held, base_held;
	unsigned char *copy; /* BATCH_PAGES; also where a base's chunk is read to, behind it */
	uint64_t copied;     /* bytes */
	struct iovec iov[BATCH_PAGES];
	unsigned vectors;
	struct mrs_dump_piece piece[MRS_DUMP_CHUNK_PAGES];
	unsigned pieces;
};

static bool piece_is(const struct mrs_dump_piece *piece, const unsigned char *bytes)
{
	return piece->memory && !memcmp(piece->memory, bytes, piece->bytes);
}

static bool is_zero(const struct batch *batch)
{
	for (unsigned i = 0; i < batch->pieces; i++) {
		const unsigned char *at = batch->piece[i].memory;
		uint64_t bytes = batch->piece[i].bytes;

		/* Each byte as the one after it, and the first is zero. */
		if (at && (*at || memcmp(at, at + 1, bytes - 1)))
			return false;
	}
	return true;
}

static bool is_same(const struct batch *batch, const unsigned char *bytes)
{
	for (unsigned i = 0; i < batch->pieces; bytes += batch->piece[i++].bytes)
		if (!piece_is(&batch->piece[i], bytes))
			return false;
	return true;
}

static uint32_t sum(const struct batch *batch)
{
	uint32_t crc = 0;

	for (unsigned i = 0; i < batch->pieces; i++)
		crc = mrs_crc32c(crc, batch->piece[i].memory, batch->piece[i].bytes);
	return crc;
}

/* The chunk's pieces become one, which nobody else writes; zeros beyond the morsel's end. */
static void copy_chunk(struct batch *batch, const struct mrs_dump_chunk *chunk)
{
	unsigned char *to = batch->copy + batch->copied;
	uint64_t bytes = chunk->pages * MRS_PAGE_BYTES, at = 0;
	uint64_t end = batch->dump->head.bytes - chunk->page * MRS_PAGE_BYTES;

	for (unsigned i = 0; i < batch->pieces; at += batch->piece[i++].bytes) {
		if (batch->piece[i].memory)
			memcpy(to + at, batch->piece[i].memory, batch->piece[i].bytes);
		else
			memset(to + at, 0, batch->piece[i].bytes);
	}
	if (end < bytes)
		memset(to + end, 0, bytes - end);
	batch->piece[0] = (struct mrs_dump_piece){.memory = to, .bytes = bytes};
	batch->pieces = 1;
}

/* Must it be copied: may somebody write it, is a part of it not there, is it the last? */
static bool must_copy(const struct batch *batch, const struct mrs_dump_chunk *chunk)
{
	const struct dump *dump = batch->dump;

	if (!dump->is_sealed || (chunk->page + chunk->pages) * MRS_PAGE_BYTES > dump->head.bytes)
		return true;
	for (unsigned i = 0; i < batch->pieces; i++)
		if (!batch->piece[i].memory)
			return true;
	return false;
}

/* Equal checksums say that looking is worth while, and nothing else. */
static int same_as_dump(struct batch *batch, const struct mrs_dump_chunk *chunk, uint32_t crc,
			bool *same)
{
	const struct mrs_dump_chain *chain = &batch->dump->base;
	const struct mrs_dump *base = &chain->link[0]->dump;
	uint64_t i = mrs_dump_find(base->chunks, base->chunk_count, chunk->page);
	unsigned char *bytes = batch->copy + BATCH_PAGES * MRS_PAGE_BYTES;
	struct iovec iov = {.iov_base = bytes, .iov_len = chunk->pages * MRS_PAGE_BYTES};
	struct mrs_dump_link *link;
	uint64_t offset;
	int rc;

	if (i == base->chunk_count || base->chunks[i].page != chunk->page ||
	    base->chunks[i].pages != chunk->pages || base->chunks[i].crc != crc)
		return 0;
	rc = mrs_dump_chain_find(chain, 0, &base->chunks[i], &link, &offset);
	if (rc || !link)
		return rc;
	rc = mrs_stream_read(&link->stream, &iov, 1, offset);
	if (!rc)
		*same = is_same(batch, bytes);
	return rc;
}

/* Do both morsels have the same frames here? Then they are shared, and nobody writes to them. */
static bool has_same_frames(struct dump *dump, const struct mrs_dump_chunk *chunk)
{
	struct morsel *both[2] = {dump->morsel, dump->opts->snapshot};
	struct mrs_run run[2];

	for (int i = 0; i < 2; i++)
		if (mrs_table_lookup(&both[i]->table, chunk->page, chunk->pages, &run[i]) ||
		    !run[i].mapped || run[i].pages != chunk->pages)
			return false;
	return run[0].frame == run[1].frame;
}

static bool snapshot_has(const struct dump *dump, const struct mrs_dump_chunk *chunk)
{
	const struct mrs_dump_chunk *shape = dump->shape.at;
	uint64_t i = mrs_dump_find(shape, dump->shape.count, chunk->page);

	return i < dump->shape.count && shape[i].page == chunk->page &&
	       shape[i].pages == chunk->pages;
}

static int same_as_snapshot(struct batch *batch, const struct mrs_dump_chunk *chunk, bool *same)
{
	struct mrs_dump_piece piece[MRS_DUMP_CHUNK_PAGES];
	unsigned char *bytes = batch->copy + BATCH_PAGES * MRS_PAGE_BYTES, *to = bytes;
	unsigned count = 0;
	int rc;

	if (!snapshot_has(batch->dump, chunk))
		return 0;
	if (has_same_frames(batch->dump, chunk)) {
		*same = true;
		return 0;
	}
	mrs_dump_hold_begin(&batch->base_held, batch->dump->opts->snapshot, false);
	rc = mrs_dump_hold(&batch->base_held, chunk->page, chunk->pages, piece, &count);
	for (unsigned i = 0; !rc && i < count; to += piece[i++].bytes) {
		if (piece[i].memory)
			memcpy(to, piece[i].memory, piece[i].bytes);
		else
			memset(to, 0, piece[i].bytes);
	}
	mrs_dump_hold_end(&batch->base_held);
	if (!rc)
		*same = is_same(batch, bytes);
	return rc;
}

static int same_as_base(struct batch *batch, const struct mrs_dump_chunk *chunk, uint32_t crc,
			bool *same)
{
	*same = false;
	switch (batch->dump->head.base_kind) {
	case MRS_DUMP_BASE_DUMP:
		return same_as_dump(batch, chunk, crc, same);
	case MRS_DUMP_BASE_SNAPSHOT:
		return same_as_snapshot(batch, chunk, same);
	default:
		return 0;
	}
}

/* Adds the chunk to what this batch writes, at page so_far of it. */
static void store_chunk(struct batch *batch, uint64_t *so_far, struct mrs_dump_chunk *chunk)
{
	chunk->place = *so_far;
	*so_far += chunk->pages;
	for (unsigned i = 0; i < batch->pieces; i++) {
		struct iovec *last = batch->vectors ? &batch->iov[batch->vectors - 1] : NULL;

		if (last &&
		    (unsigned char *)last->iov_base + last->iov_len == batch->piece[i].memory)
			last->iov_len += batch->piece[i].bytes;
		else
			batch->iov[batch->vectors++] =
				(struct iovec){.iov_base = batch->piece[i].memory,
					       .iov_len = batch->piece[i].bytes};
	}
	if (batch->pieces == 1 && batch->piece[0].memory == batch->copy + batch->copied)
		batch->copied += batch->piece[0].bytes;
}

static int decide_chunk(struct batch *batch, uint64_t *so_far, struct mrs_dump_chunk *chunk)
{
	bool same;
	int rc;

	batch->pieces = 0;
	rc = mrs_dump_hold(&batch->held, chunk->page, chunk->pages, batch->piece, &batch->pieces);
	if (rc)
		return rc;
	if (must_copy(batch, chunk))
		copy_chunk(batch, chunk);
	chunk->crc = sum(batch);
	if (is_zero(batch)) {
		chunk->place = (uint64_t)MRS_DUMP_ZERO << MRS_DUMP_KIND_SHIFT;
		return 0;
	}
	rc = same_as_base(batch, chunk, chunk->crc, &same);
	if (rc)
		return rc;
	if (same)
		chunk->place = (uint64_t)MRS_DUMP_SAME << MRS_DUMP_KIND_SHIFT;
	else
		store_chunk(batch, so_far, chunk);
	return 0;
}

static int write_batch(struct batch *batch, struct mrs_dump_chunk *chunk, uint64_t count)
{
	struct dump *dump = batch->dump;
	uint64_t so_far = 0, first;
	int rc = 0;

	batch->copied = 0;
	batch->vectors = 0;
	mrs_dump_hold_begin(&batch->held, dump->morsel, false);
	for (uint64_t i = 0; !rc && i < count; i++)
		rc = decide_chunk(batch, &so_far, &chunk[i]);
	if (!rc && so_far) {
		first = mrs_fetch_add(&dump->end, so_far);
		for (uint64_t i = 0; i < count; i++)
			if (mrs_dump_kind(&chunk[i]) == MRS_DUMP_STORED)
				chunk[i].place += first;
		rc = mrs_stream_write(&dump->stream, batch->iov, batch->vectors,
				      first * MRS_PAGE_BYTES);
	}
	mrs_dump_hold_end(&batch->held);
	return rc;
}

static int tell_progress(struct dump *dump)
{
	const struct morsel_dump_opts *opts = dump->opts;
	uint64_t done = mrs_load_relaxed(&dump->done) * MRS_PAGE_BYTES;

	if (!opts->progress || !opts->progress(opts->progress_ctx, done, dump->total))
		return 0;
	return mrs_fail(-ECANCELED, "the dump was cancelled after %llu bytes",
			(unsigned long long)done);
}

static int write_batches(struct batch *batch, bool is_caller)
{
	struct dump *dump = batch->dump;
	int rc = 0;

	for (;;) {
		uint64_t first = mrs_fetch_add(&dump->next, MRS_DUMP_BATCH);
		struct mrs_dump_chunk *chunk = (struct mrs_dump_chunk *)dump->chunks.at + first;
		uint64_t count, pages = 0;

		if (first >= dump->chunks.count)
			return rc;
		count = mrs_min(dump->chunks.count - first, (uint64_t)MRS_DUMP_BATCH);
		rc = write_batch(batch, chunk, count);
		for (uint64_t i = 0; i < count; i++)
			pages += chunk[i].pages;
		mrs_fetch_add(&dump->done, pages);
		if (!rc && is_caller)
			rc = tell_progress(dump);
		/* The others find an end. */
		if (rc)
			mrs_store_relaxed(&dump->next, dump->chunks.count);
	}
}

static int dump_worker(void *ctx, bool is_caller)
{
	struct dump *dump = ctx;
	struct batch *batch = calloc(1, sizeof(*batch));
	void *copy = NULL;
	int rc;

	if (batch)
		copy = aligned_alloc(MRS_PAGE_BYTES, BATCH_PAGES * MRS_PAGE_BYTES + CHUNK_BYTES);
	if (copy) {
		batch->dump = dump;
		batch->copy = copy;
		rc = write_batches(batch, is_caller);
	} else {
		mrs_store_relaxed(&dump->next, dump->chunks.count);
		rc = mrs_fail(-ENOMEM, "no memory for the buffers of a dump");
	}
	free(copy);
	free(batch);
	return rc;
}

/* ---- the whole file ---- */

static int write_section(struct dump *dump, enum mrs_dump_section which, const void *memory,
			 uint64_t bytes)
{
	uint64_t padded = mrs_round_up(bytes, MRS_PAGE_BYTES);
	struct mrs_dump_place *place = &dump->head.section[which];
	unsigned char *copy;
	struct iovec iov;
	int rc;

	if (!bytes)
		return 0;
	copy = aligned_alloc(MRS_PAGE_BYTES, padded);
	if (!copy)
		return mrs_fail(-ENOMEM, "no memory for a table of %llu bytes",
				(unsigned long long)bytes);
	memcpy(copy, memory, bytes);
	memset(copy + bytes, 0, padded - bytes);
	place->offset = dump->end * MRS_PAGE_BYTES;
	place->bytes = bytes;
	place->crc = mrs_crc32c(0, copy, padded);
	dump->end += padded / MRS_PAGE_BYTES;
	iov = (struct iovec){.iov_base = copy, .iov_len = padded};
	rc = mrs_stream_write(&dump->stream, &iov, 1, place->offset);
	free(copy);
	return rc;
}

static int write_meta(struct dump *dump)
{
	uint64_t bytes;
	const void *packed = mrs_morsel_packed(dump->morsel, &bytes);

	return packed ? write_section(dump, MRS_DUMP_META, packed, bytes) : 0;
}

static int write_header(struct dump *dump)
{
	struct mrs_dump_header *head = aligned_alloc(MRS_PAGE_BYTES, sizeof(*head));
	struct iovec iov = {.iov_base = head, .iov_len = sizeof(*head)};
	int rc;

	if (!head)
		return mrs_fail(-ENOMEM, "no memory for a header");
	dump->head.file_bytes = dump->end * MRS_PAGE_BYTES;
	dump->head.crc = mrs_crc32c(0, &dump->head, offsetof(struct mrs_dump_header, crc));
	*head = dump->head;
	rc = mrs_stream_write(&dump->stream, &iov, 1, 0);
	free(head);
	if (!rc && ftruncate(dump->stream.fd, (off_t)dump->head.file_bytes))
		rc = mrs_fail_errno(-errno, "cannot make %s %llu bytes long", dump->stream.name,
				    (unsigned long long)dump->head.file_bytes);
	return rc;
}

static int write_content(struct dump *dump)
{
	unsigned workers;
	int rc;

	/* Room in one piece, where the file system gives it; else the file grows as it is written.
	 */
	if (dump->head.base_kind == MRS_DUMP_BASE_NONE && dump->total &&
	    fallocate(dump->stream.fd, 0, 0, (off_t)(dump->total + MRS_PAGE_BYTES)))
		mrs_log(MRS_LOG_DEBUG, "no room set aside for %s", dump->stream.name);
	dump->end = 1;
	workers = mrs_dump_workers(dump->morsel, dump->chunks.count, dump->opts->in_flight);
	rc = mrs_crew_run(workers, dump_worker, dump);
	dump->head.data_end = dump->end * MRS_PAGE_BYTES;
	MRS_PROBE("dump.content");
	if (!rc)
		rc = write_section(dump, MRS_DUMP_RUNS, dump->runs.at,
				   dump->runs.count * sizeof(struct mrs_dump_run));
	if (!rc)
		rc = write_section(dump, MRS_DUMP_CHUNKS, dump->chunks.at,
				   dump->chunks.count * sizeof(struct mrs_dump_chunk));
	if (!rc)
		rc = write_meta(dump);
	return rc ? rc : write_header(dump);
}

static int write_file(struct dump *dump, const char *file)
{
	int rc = mrs_stream_create(&dump->stream, file);

	if (rc)
		return rc;
	rc = write_content(dump);
	if (!rc)
		rc = mrs_stream_publish(&dump->stream, file);
	if (rc)
		unlink(dump->stream.name);
	mrs_stream_close(&dump->stream);
	return rc;
}

static int describe(struct dump *dump)
{
	struct morsel_info info = {.size = sizeof(info)};
	struct mrs_dump_header *head = &dump->head;
	struct timespec now;
	int rc = morsel_info(dump->morsel, &info);

	if (rc)
		return rc;
	clock_gettime(CLOCK_REALTIME, &now);
	head->magic = MRS_DUMP_MAGIC;
	head->byte_order = MRS_DUMP_BYTE_ORDER;
	head->version = MRS_DUMP_VERSION;
	head->chunk_pages = MRS_DUMP_CHUNK_PAGES;
	memcpy(head->pool_uuid, mrs_pool_super(dump->morsel->pool)->uuid, sizeof(head->pool_uuid));
	head->source_id = info.id;
	head->created_ns = now.tv_sec * 1000000000ll + now.tv_nsec;
	head->bytes = info.bytes;
	head->flags = info.flags;
	head->pages = info.pages;
	head->sealed = info.sealed;
	head->format = info.format;
	head->tensors = info.tensors;
	head->one_run =
		mrs_entry_state(mrs_load_acquire(&dump->morsel->record->root)) == MRS_ENTRY_MAPPED;
	memcpy(head->name, info.name, sizeof(head->name));
	if (getrandom(head->uuid, sizeof(head->uuid), 0) != sizeof(head->uuid))
		return mrs_fail_errno(-errno, "no random number for the dump's identity");
	return 0;
}

static int choose_range(struct dump *dump)
{
	const struct morsel_dump_opts *opts = dump->opts;
	struct mrs_dump_header *head = &dump->head;

	head->kind = opts->base || opts->snapshot ? MORSEL_DUMP_INCREMENTAL : MORSEL_DUMP_FULL;
	head->count = mrs_pages_in(head->bytes);
	if (!opts->offset && !opts->bytes)
		return 0;
	if (head->kind == MORSEL_DUMP_INCREMENTAL)
		return mrs_fail(-EINVAL, "a dump is of a range or incremental, not both");
	if (opts->offset > head->bytes || opts->bytes > head->bytes - opts->offset)
		return mrs_fail(-EINVAL,
				"bytes %llu to %llu are not inside the morsel, which has %llu",
				(unsigned long long)opts->offset,
				(unsigned long long)(opts->offset + opts->bytes),
				(unsigned long long)head->bytes);
	head->kind = MORSEL_DUMP_RANGE;
	head->first = opts->offset / MRS_PAGE_BYTES;
	if (opts->bytes)
		head->count = mrs_pages_in(opts->offset + opts->bytes);
	head->count -= head->first;
	return 0;
}

static int dump_held(struct dump *dump, const char *file)
{
	struct plan plan = {.morsel = dump->morsel, .runs = &dump->runs, .chunks = &dump->chunks};
	int rc = describe(dump);

	if (!rc)
		rc = choose_range(dump);
	if (!rc && dump->opts->base)
		rc = open_base(dump);
	if (!rc && dump->opts->snapshot)
		rc = use_snapshot(dump);
	plan.first = dump->head.first;
	plan.end = plan.first + dump->head.count;
	if (!rc)
		rc = plan_pages(&plan);
	for (uint64_t i = 0; i < dump->chunks.count; i++)
		dump->total += ((struct mrs_dump_chunk *)dump->chunks.at)[i].pages * MRS_PAGE_BYTES;
	return rc ? rc : write_file(dump, file);
}

static int check_opts(const struct morsel_dump_opts *opts)
{
	if (opts->flags)
		return mrs_fail(-EINVAL, "unknown flags 0x%x for a dump", opts->flags);
	if (opts->in_flight > MORSEL_DUMP_IN_FLIGHT_MAX)
		return mrs_fail(-EINVAL, "%u requests in flight: at most %d", opts->in_flight,
				MORSEL_DUMP_IN_FLIGHT_MAX);
	if (opts->base && opts->snapshot)
		return mrs_fail(-EINVAL, "a dump stands on a dump or on a snapshot, not on both");
	return 0;
}

/* What the caller is told, as far as his struct goes. */
static int tell(const struct dump *dump, struct morsel_dump_info *info)
{
	struct mrs_dump written = {
		.head = dump->head, .chunks = dump->chunks.at, .chunk_count = dump->chunks.count};
	struct morsel_dump_info all;
	size_t size = info->size;

	if (size < sizeof(size))
		return mrs_fail(-EINVAL, "info->size is not set to sizeof(struct "
					 "morsel_dump_info)");
	mrs_dump_tell(&written, &all);
	memcpy(info, &all, mrs_min(size, sizeof(all)));
	info->size = size;
	return 0;
}

int morsel_dump(struct morsel *morsel, const char *file, const struct morsel_dump_opts *given,
		struct morsel_dump_info *info)
{
	struct morsel_dump_opts opts;
	struct dump dump = {.morsel = morsel, .opts = &opts};
	uint64_t hold;
	int rc = mrs_pool_usable(morsel->pool, false);

	if (!rc)
		rc = mrs_opts_read(&opts, sizeof(opts), given);
	if (!rc)
		rc = check_opts(&opts);
	if (!rc && info && info->size < sizeof(info->size))
		rc = mrs_fail(-EINVAL, "the size of struct morsel_dump_info is not set");
	/* A view of its own keeps the content from being trimmed. */
	if (!rc)
		rc = mrs_morsel_view_publish(morsel, mrs_morsel_pages(morsel), false, &hold);
	if (rc)
		return rc;
	dump.is_sealed = mrs_morsel_is_sealed(morsel);
	rc = dump_held(&dump, file);
	mrs_morsel_view_withdraw(morsel, hold);
	if (!rc && info)
		rc = tell(&dump, info);
	mrs_dump_chain_close(&dump.base);
	free(dump.runs.at);
	free(dump.chunks.at);
	free(dump.shape.at);
	return rc;
}
