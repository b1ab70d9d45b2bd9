/*
 * The format of dumps, version 1, and what its readers and writers share. docs/dump-format.md says
 * the same in prose.
 *
 *	page 0	 header, with a checksum over all of it
 *	page 1	 content: stored chunks, in any order, whole pages, no gaps
 *	...	 run table, chunk table, packed tensor table; each padded with zeros to whole
 *		 pages, and under a checksum in the header, padding included
 *
 * So every byte of the file is under exactly one checksum. All numbers are little-endian; "page" is
 * 4 KiB; page numbers count from the morsel's start.
 *
 * A run is a row of leaves of one order of the page table. A chunk is what one checksum covers: the
 * mapped pages of one aligned window of chunk_pages, as far as they lie together in one run. Every
 * page of the runs that is inside [first, first + count) and before the morsel's end is in exactly
 * one chunk; what no run covers is a hole.
 */
#ifndef MRS_OBJECT_DUMP_FORMAT_H
#define MRS_OBJECT_DUMP_FORMAT_H

#include <sys/uio.h>

#include <morsel/dump.h>

#include "model/model.h"
#include "object/internal.h"

#define MRS_DUMP_MAGIC	     0x0a504d55444f4d00ull /* the bytes 00 "MODUMP" 0a */
#define MRS_DUMP_BYTE_ORDER  0x01020304u
#define MRS_DUMP_VERSION     1
#define MRS_DUMP_CHUNK_PAGES 16u

enum mrs_dump_section { MRS_DUMP_RUNS, MRS_DUMP_CHUNKS, MRS_DUMP_META, MRS_DUMP_SECTIONS };

struct mrs_dump_place {
	uint64_t offset; /* bytes; whole pages */
	uint64_t bytes;	 /* without the padding */
	uint32_t crc;	 /* of it with the padding */
	uint32_t reserved;
};

enum mrs_dump_base {
	MRS_DUMP_BASE_NONE,
	MRS_DUMP_BASE_DUMP,	/* the dump base_uuid */
	MRS_DUMP_BASE_SNAPSHOT, /* a full dump of the sealed morsel base_id of the pool base_uuid */
};

struct mrs_dump_header {
	uint64_t magic;
	uint32_t byte_order;
	uint32_t version;
	uint32_t kind;	      /* enum morsel_dump_kind */
	uint32_t chunk_pages; /* MRS_DUMP_CHUNK_PAGES */
	uint64_t file_bytes;
	uint64_t data_end;     /* content is in bytes [4096, data_end) */
	uint8_t uuid[16];      /* of this dump */
	uint8_t pool_uuid[16]; /* where it came from */
	uint64_t source_id;
	int64_t created_ns;
	uint64_t bytes; /* the morsel: as in its record */
	uint32_t flags;
	uint32_t pages;
	uint32_t sealed;
	uint32_t format;
	uint64_t tensors;
	uint32_t one_run;   /* it had no table */
	uint32_t base_kind; /* enum mrs_dump_base */
	uint8_t base_uuid[16];
	uint64_t base_id;
	uint64_t first; /* pages that the dump covers */
	uint64_t count;
	struct mrs_dump_place section[MRS_DUMP_SECTIONS];
	char name[MORSEL_NAME_MAX + 1];
	char base_name[MORSEL_NAME_MAX + 1]; /* of the base's file, without directories */
	uint8_t reserved[4096 - 176 - 24 * MRS_DUMP_SECTIONS - 2 * (MORSEL_NAME_MAX + 1)];
	uint32_t reserved_end;
	uint32_t crc; /* of the bytes before it; stays here in every version */
};
_Static_assert(sizeof(struct mrs_dump_header) == 4096, "one page");

struct mrs_dump_run {
	uint64_t page;
	uint64_t pages; /* a multiple of 2^order, as page is */
	uint32_t order; /* 0, 9 or 18 */
	uint32_t reserved;
};

enum mrs_dump_chunk_kind {
	MRS_DUMP_STORED, /* at page place of the file */
	MRS_DUMP_ZERO,	 /* all zero */
	MRS_DUMP_SAME,	 /* as in the base, which has a chunk of the same pages */
};
#define MRS_DUMP_KIND_SHIFT 56

struct mrs_dump_chunk {
	uint64_t page;
	uint64_t place; /* page of the file | enum mrs_dump_chunk_kind << 56 */
	uint32_t pages;
	uint32_t crc; /* CRC-32C of the content, wherever it is */
};

static inline enum mrs_dump_chunk_kind mrs_dump_kind(const struct mrs_dump_chunk *chunk)
{
	return (enum mrs_dump_chunk_kind)(chunk->place >> MRS_DUMP_KIND_SHIFT);
}

static inline uint64_t mrs_dump_offset(const struct mrs_dump_chunk *chunk)
{
	return (chunk->place & ((1ull << MRS_DUMP_KIND_SHIFT) - 1)) << MRS_PAGE_SHIFT;
}

/* ---- reading a description (dump_parse.c) ---- */

/* A description that has been checked: whoever uses it need not be careful. */
struct mrs_dump {
	struct mrs_dump_header head;
	struct mrs_dump_run *runs;
	uint64_t run_count;
	struct mrs_dump_chunk *chunks;
	uint64_t chunk_count;
	void *meta; /* the packed tensor table, or NULL */
};

/* file is for the words. -EINVAL, -EBADMSG, -EPROTONOSUPPORT, -ENOMEM; then nothing is to be freed.
 */
int mrs_dump_parse(const struct mrs_source *source, const char *file, struct mrs_dump *dump);
void mrs_dump_free(struct mrs_dump *dump);
/* Index of the first chunk that ends beyond page; chunk_count if there is none. */
uint64_t mrs_dump_find(const struct mrs_dump_chunk *chunks, uint64_t count, uint64_t page);
void mrs_dump_tell(const struct mrs_dump *dump, struct morsel_dump_info *info);

/* ---- streams: files past the page cache (dump_io.c) ---- */

struct mrs_stream {
	int fd;
	uint32_t direct; /* atomic: O_DIRECT is on */
	char *name;	 /* for the words, and for whoever must unlink it */
};

/* A new file beside file, under a name of its own. */
int mrs_stream_create(struct mrs_stream *stream, const char *file);
/* An existing regular file; size may be NULL. */
int mrs_stream_open(struct mrs_stream *stream, const char *file, uint64_t *size);
void mrs_stream_close(struct mrs_stream *stream);
/* All of it; memory, sizes and position are whole pages. Reading past the end is -EINVAL in words.
 */
int mrs_stream_write(struct mrs_stream *stream, struct iovec *iov, unsigned count, uint64_t at);
int mrs_stream_read(struct mrs_stream *stream, struct iovec *iov, unsigned count, uint64_t at);
/* Forced to disk, renamed to file, and the directory forced to disk: in this order. */
int mrs_stream_publish(struct mrs_stream *stream, const char *file);

/* One worker: its share is whatever it takes from ctx; 0 at the end, or the error in words. */
typedef int (*mrs_crew_fn)(void *ctx, bool is_caller);
/*
 * Runs fn in this thread and in up to workers - 1 others; returns the first error, with its words.
 * A worker that fails must see to it that the others find an end.
 */
int mrs_crew_run(unsigned workers, mrs_crew_fn fn, void *ctx);

/* ---- a dump and the dumps that it stands on (dump_chain.c) ---- */

struct mrs_dump_link {
	struct mrs_stream stream;
	struct mrs_dump dump;
};

struct mrs_dump_chain {
	struct mrs_dump_link *link[MORSEL_DUMP_CHAIN_MAX + 1];
	unsigned count;
};

/*
 * Opens file, and what it stands on: base (may be NULL) for the first, then by the names in the
 * dumps, beside each.
 */
int mrs_dump_chain_open(struct mrs_dump_chain *chain, const char *file, const char *base);
void mrs_dump_chain_close(struct mrs_dump_chain *chain);
/*
 * Where the content of a chunk of link number which is: *link NULL and 0 for zeros. -EINVAL in
 * words if the base does not have it.
 */
int mrs_dump_chain_find(const struct mrs_dump_chain *chain, unsigned which,
			const struct mrs_dump_chunk *chunk, struct mrs_dump_link **link,
			uint64_t *offset);

/* ---- memory of a morsel (dump_memory.c) ---- */

#define MRS_DUMP_BATCH 32u /* chunks */

struct mrs_dump_piece {
	unsigned char *memory; /* NULL: reads as zero */
	uint64_t bytes;
};

/* Memory that stays where it is until it is let go of. */
struct mrs_dump_held {
	struct morsel *morsel;
	bool by_grant;
	bool write;
	struct morsel_view *view[MRS_DUMP_BATCH];
	struct morsel_grant grant[MRS_DUMP_BATCH];
	unsigned views;
	uint64_t first, end; /* pages that the last of them grants */
};

/* Must it be reached under grants, because somebody may move or evict it? */
bool mrs_dump_needs_grants(const struct morsel *morsel);
/* How many workers are worth while, and may be; in_flight 0: as is usual. */
unsigned mrs_dump_workers(const struct morsel *morsel, uint64_t chunks, unsigned in_flight);
void mrs_dump_hold_begin(struct mrs_dump_held *held, struct morsel *morsel, bool write);
/* Pieces of pages that are mapped, at most one per page; *count of them are added to piece. */
int mrs_dump_hold(struct mrs_dump_held *held, uint64_t page, uint64_t pages,
		  struct mrs_dump_piece *piece, unsigned *count);
void mrs_dump_hold_end(struct mrs_dump_held *held);

#endif
