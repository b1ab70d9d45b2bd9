/*
 * Reading the description of a dump: header and tables, from a file that anybody may have written.
 *
 * Nothing is used before its checksum has been compared, and a right checksum is not taken for a
 * right description: every number is checked against the file's size and against the others, so
 * that restoring needs no care. Memory that is asked for is bounded by the size of the file.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "object/dump_format.h"

#define KNOWN_FLAGS (MORSEL_LAZY | MORSEL_EVICTABLE | MORSEL_CONTIGUOUS | MORSEL_SCATTERED)

struct parse {
	const struct mrs_source *source;
	const char *file;
	struct mrs_dump *dump;
};

static int damaged(const struct parse *p, const char *what)
{
	return mrs_fail(-EINVAL, "%s: the dump's description is damaged: %s", p->file, what);
}

static int read_at(const struct parse *p, uint64_t offset, void *buffer, uint64_t bytes)
{
	if (p->source->memory) {
		memcpy(buffer, (const char *)p->source->memory + offset, bytes);
		return 0;
	}
	return p->source->read(p->source->ctx, offset, buffer, bytes);
}

/* ---- the header ---- */

static int check_kind_of_file(const struct parse *p)
{
	const struct mrs_dump_header *head = &p->dump->head;
	uint32_t crc = mrs_crc32c(0, head, offsetof(struct mrs_dump_header, crc));

	if (head->magic != MRS_DUMP_MAGIC)
		return mrs_fail(-EINVAL, "%s is not a dump of a morsel", p->file);
	if (head->crc != crc)
		return mrs_fail(-EBADMSG,
				"%s: the header is damaged (its checksum is %08x, not %08x): take "
				"another copy of the file",
				p->file, crc, head->crc);
	if (head->byte_order != MRS_DUMP_BYTE_ORDER)
		return mrs_fail(-EPROTONOSUPPORT, "%s was written in another byte order", p->file);
	if (head->version != MRS_DUMP_VERSION)
		return mrs_fail(-EPROTONOSUPPORT,
				"%s is a dump of version %u, this libmorsel (%s) reads version %u: "
				"update libmorsel",
				p->file, head->version, MORSEL_VERSION_STRING, MRS_DUMP_VERSION);
	if (head->file_bytes != p->source->bytes)
		return mrs_fail(
			-EINVAL, "%s has %llu bytes, but was written with %llu: it is %s", p->file,
			(unsigned long long)p->source->bytes, (unsigned long long)head->file_bytes,
			head->file_bytes > p->source->bytes ? "cut short" : "something longer");
	return 0;
}

static bool is_text(const char *text)
{
	return memchr(text, 0, MORSEL_NAME_MAX + 1) != NULL;
}

static const char *header_problem(const struct mrs_dump_header *head)
{
	uint64_t pages = mrs_pages_in(head->bytes);

	if (head->kind < MORSEL_DUMP_FULL || head->kind > MORSEL_DUMP_INCREMENTAL)
		return "an unknown kind";
	if (head->chunk_pages != MRS_DUMP_CHUNK_PAGES)
		return "an unknown size of chunks";
	if (head->bytes > INT64_MAX || head->flags & ~(uint32_t)KNOWN_FLAGS ||
	    head->pages > MORSEL_PAGES_1G || head->sealed > 1 || head->one_run > 1)
		return "a morsel that cannot be";
	if (head->first > pages || head->count > pages - head->first)
		return "the pages that it covers are not inside the morsel";
	if (head->kind != MORSEL_DUMP_RANGE && head->count != pages)
		return "it does not cover the morsel";
	if ((head->kind == MORSEL_DUMP_INCREMENTAL) != (head->base_kind != MRS_DUMP_BASE_NONE) ||
	    head->base_kind > MRS_DUMP_BASE_SNAPSHOT)
		return "an unknown base";
	if (!is_text(head->name) || !is_text(head->base_name) || strchr(head->base_name, '/'))
		return "a name that cannot be";
	if (head->data_end < MRS_PAGE_BYTES || head->data_end > head->file_bytes ||
	    head->data_end & (MRS_PAGE_BYTES - 1))
		return "the content is not inside the file";
	return NULL;
}

/* ---- tables ---- */

/* A section into memory of its own, padding included; empty gives NULL. */
static int read_section(const struct parse *p, enum mrs_dump_section which, void **memory)
{
	const struct mrs_dump_place *place = &p->dump->head.section[which];
	uint64_t file_bytes = p->dump->head.file_bytes, bytes;
	void *made;
	int rc;

	if (!place->bytes)
		return place->crc ? damaged(p, "an empty table with a checksum") : 0;
	if (place->offset & (MRS_PAGE_BYTES - 1) || place->offset < p->dump->head.data_end ||
	    place->offset > file_bytes || place->bytes > file_bytes - place->offset ||
	    mrs_round_up(place->bytes, MRS_PAGE_BYTES) > file_bytes - place->offset)
		return damaged(p, "a table is not inside the file");
	bytes = mrs_round_up(place->bytes, MRS_PAGE_BYTES);
	made = malloc(bytes);
	if (!made)
		return mrs_fail(-ENOMEM, "no memory for %llu bytes of tables of %s",
				(unsigned long long)bytes, p->file);
	rc = read_at(p, place->offset, made, bytes);
	if (!rc && mrs_crc32c(0, made, bytes) != place->crc)
		rc = mrs_fail(-EBADMSG,
			      "%s: a table at byte %llu is damaged (its checksum is wrong): take "
			      "another copy of the file",
			      p->file, (unsigned long long)place->offset);
	if (rc)
		free(made);
	else
		*memory = made;
	return rc;
}

static const char *run_problem(const struct mrs_dump_run *run, uint64_t after, uint64_t limit)
{
	uint64_t span;

	if (run->order != 0 && run->order != MRS_HUGE_ORDER && run->order != MRS_GIANT_ORDER)
		return "pages of an unknown size";
	span = 1ull << run->order;
	if (!run->pages || (run->page | run->pages) & (span - 1))
		return "a run that is not aligned to its pages";
	if (run->page < after)
		return "runs that are not in order";
	if (run->page >= limit || run->pages > mrs_round_up(limit, span) - run->page)
		return "a run beyond the end of the morsel";
	return NULL;
}

static int check_runs(const struct parse *p)
{
	const struct mrs_dump *dump = p->dump;
	uint64_t after = 0;

	for (uint64_t i = 0; i < dump->run_count; i++) {
		const struct mrs_dump_run *run = &dump->runs[i];
		const char *why = run_problem(run, after, mrs_pages_in(dump->head.bytes));

		if (why)
			return damaged(p, why);
		after = run->page + run->pages;
	}
	return 0;
}

static const char *chunk_problem(const struct mrs_dump_header *head,
				 const struct mrs_dump_chunk *chunk)
{
	uint64_t offset = mrs_dump_offset(chunk), bytes = chunk->pages * MRS_PAGE_BYTES;

	if (!chunk->pages || chunk->pages > MRS_DUMP_CHUNK_PAGES ||
	    chunk->page % MRS_DUMP_CHUNK_PAGES + chunk->pages > MRS_DUMP_CHUNK_PAGES)
		return "a chunk outside its window";
	switch (mrs_dump_kind(chunk)) {
	case MRS_DUMP_STORED:
		return offset < MRS_PAGE_BYTES || offset > head->data_end ||
				       bytes > head->data_end - offset
			       ? "a chunk's content is not inside the file"
			       : NULL;
	case MRS_DUMP_ZERO:
		return offset ? "a chunk of zeros with a place" : NULL;
	case MRS_DUMP_SAME:
		return offset || head->base_kind == MRS_DUMP_BASE_NONE
			       ? "a chunk of a base that there is not"
			       : NULL;
	default:
		return "a chunk of an unknown kind";
	}
}

/* Walks the pages that runs and range have in common, and asks that the chunks cover just those. */
static int check_chunks(const struct parse *p)
{
	const struct mrs_dump *dump = p->dump;
	const struct mrs_dump_header *head = &dump->head;
	uint64_t end = head->first + head->count, i = 0;

	for (uint64_t r = 0; r < dump->run_count; r++) {
		const struct mrs_dump_run *run = &dump->runs[r];
		uint64_t page = mrs_max(run->page, head->first);
		uint64_t run_end = mrs_min(run->page + run->pages, end);

		while (page < run_end) {
			const struct mrs_dump_chunk *chunk = &dump->chunks[i];
			const char *why;

			if (i == dump->chunk_count || chunk->page != page)
				return damaged(p, "pages without content");
			why = chunk_problem(head, chunk);
			if (why)
				return damaged(p, why);
			page += chunk->pages;
			if (page > run_end)
				return damaged(p, "a chunk beyond its run");
			i++;
		}
	}
	return i == dump->chunk_count ? 0 : damaged(p, "chunks that belong to no run");
}

static int check_meta(const struct parse *p)
{
	const struct mrs_dump_header *head = &p->dump->head;
	struct mrs_packed_head packed;
	int rc;

	if (!p->dump->meta)
		return head->tensors || head->format ? damaged(p, "tensors without a table") : 0;
	rc = mrs_packed_check(p->dump->meta, head->section[MRS_DUMP_META].bytes);
	if (!rc)
		rc = mrs_packed_head(p->dump->meta, head->section[MRS_DUMP_META].bytes, &packed);
	if (rc)
		return rc;
	/* The table may be of a time before the morsel was resized: see tensor.c. */
	if (packed.count != head->tensors || (uint32_t)packed.format != head->format)
		return damaged(p, "another tensor table");
	return 0;
}

static int read_tables(const struct parse *p)
{
	struct mrs_dump *dump = p->dump;
	const struct mrs_dump_place *section = dump->head.section;
	void *runs = NULL, *chunks = NULL;
	int rc = 0;

	if (section[MRS_DUMP_RUNS].bytes % sizeof(*dump->runs) ||
	    section[MRS_DUMP_CHUNKS].bytes % sizeof(*dump->chunks))
		return damaged(p, "a table of a broken size");
	rc = read_section(p, MRS_DUMP_RUNS, &runs);
	dump->runs = runs;
	if (!rc)
		rc = read_section(p, MRS_DUMP_CHUNKS, &chunks);
	dump->chunks = chunks;
	if (!rc)
		rc = read_section(p, MRS_DUMP_META, &dump->meta);
	dump->run_count = section[MRS_DUMP_RUNS].bytes / sizeof(*dump->runs);
	dump->chunk_count = section[MRS_DUMP_CHUNKS].bytes / sizeof(*dump->chunks);
	return rc;
}

int mrs_dump_parse(const struct mrs_source *source, const char *file, struct mrs_dump *dump)
{
	struct parse p = {.source = source, .file = file, .dump = dump};
	const char *why;
	int rc;

	memset(dump, 0, sizeof(*dump));
	if (source->bytes < sizeof(dump->head))
		return mrs_fail(-EINVAL, "%s is not a dump of a morsel: it has %llu bytes", file,
				(unsigned long long)source->bytes);
	rc = read_at(&p, 0, &dump->head, sizeof(dump->head));
	if (!rc)
		rc = check_kind_of_file(&p);
	if (rc)
		return rc;
	why = header_problem(&dump->head);
	if (why)
		return damaged(&p, why);
	rc = read_tables(&p);
	if (!rc)
		rc = check_runs(&p);
	if (!rc)
		rc = check_chunks(&p);
	if (!rc)
		rc = check_meta(&p);
	if (rc)
		mrs_dump_free(dump);
	return rc;
}

void mrs_dump_free(struct mrs_dump *dump)
{
	free(dump->runs);
	free(dump->chunks);
	free(dump->meta);
	dump->runs = NULL;
	dump->chunks = NULL;
	dump->meta = NULL;
}

uint64_t mrs_dump_find(const struct mrs_dump_chunk *chunks, uint64_t count, uint64_t page)
{
	uint64_t low = 0, high = count;

	while (low < high) {
		uint64_t middle = low + (high - low) / 2;

		if (chunks[middle].page + chunks[middle].pages <= page)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

void mrs_dump_tell(const struct mrs_dump *dump, struct morsel_dump_info *info)
{
	const struct mrs_dump_header *head = &dump->head;
	uint64_t offset = head->first * MRS_PAGE_BYTES;
	uint64_t bytes[3] = {0};

	for (uint64_t i = 0; i < dump->chunk_count; i++)
		bytes[mrs_dump_kind(&dump->chunks[i])] += dump->chunks[i].pages * MRS_PAGE_BYTES;
	*info = (struct morsel_dump_info){
		.size = sizeof(*info),
		.kind = head->kind,
		.version = head->version,
		.bytes = head->bytes,
		.bytes_file = head->file_bytes,
		.bytes_stored = bytes[MRS_DUMP_STORED],
		.bytes_zero = bytes[MRS_DUMP_ZERO],
		.bytes_same = bytes[MRS_DUMP_SAME],
		.range_offset = offset,
		.range_bytes = mrs_min(head->count * MRS_PAGE_BYTES, head->bytes - offset),
		.flags = head->flags,
		.pages = head->pages,
		.sealed = head->sealed,
		.format = head->format,
		.tensors = head->tensors,
		.created_ns = head->created_ns,
	};
	memcpy(info->name, head->name, sizeof(info->name));
	memcpy(info->base, head->base_name, sizeof(info->base));
	memcpy(info->uuid, head->uuid, sizeof(info->uuid));
}
