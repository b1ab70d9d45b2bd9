/*
 * morsel: dumps, files that hold morsels while no pool does.
 *
 * A dump keeps what a morsel is (size, flags, page sizes, tensor table, holes) and its content,
 * with a CRC-32C for every 64 KiB. morsel_restore() makes a morsel like it in new frames of any
 * pool. What was damaged on the way is refused, never restored. The format is the project's own,
 * versioned, and described in docs/dump-format.md.
 *
 *   full         everything
 *   range        part of it: the rest becomes a hole when it is restored
 *   incremental  what differs from a base: an earlier dump, or a sealed morsel (a snapshot) of the
 * same pool. To restore it takes the base as well, which is looked for beside it.
 *
 * What a dump of a morsel that others write at the same time holds is, page by page, what the page
 * held at some moment while it was dumped. For one moment of all pages dump a snapshot, or seal it
 * before.
 *
 * Crash safety: a dump is written under a temporary name, forced to disk and then renamed; a
 * restore gives the morsel its name when it is complete.
 */
#ifndef MORSEL_DUMP_H
#define MORSEL_DUMP_H

#include <stddef.h>
#include <stdint.h>

#include <morsel/morsel.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Requests that are in flight at once; more than this is refused. */
#define MORSEL_DUMP_IN_FLIGHT_MAX 64
/* Incremental dumps between one and the full dump that it stands on. */
#define MORSEL_DUMP_CHAIN_MAX 64

enum morsel_dump_kind {
	MORSEL_DUMP_FULL = 1,
	MORSEL_DUMP_RANGE = 2,
	MORSEL_DUMP_INCREMENTAL = 3,
};

struct morsel_dump_opts {
	size_t size;		     /* sizeof(struct morsel_dump_opts) */
	uint32_t flags;		     /* 0 */
	uint32_t in_flight;	     /* requests at once; default 4 */
	uint64_t offset;	     /* range: where it begins, rounded to whole pages outwards */
	uint64_t bytes;		     /* range: how much; 0 means all from offset on */
	const char *base;	     /* incremental: the dump that this one stands on */
	struct morsel *snapshot;     /* incremental: or a sealed morsel of the same pool */
	morsel_progress_fn progress; /* called now and then; non-zero cancels (-ECANCELED) */
	void *progress_ctx;
};

/* What a dump was, or what is in one. Sizes in bytes. */
struct morsel_dump_info {
	size_t size;	  /* the caller's sizeof(struct morsel_dump_info) */
	uint32_t kind;	  /* enum morsel_dump_kind */
	uint32_t version; /* of the format */
	char name[MORSEL_NAME_MAX + 1];
	char base[MORSEL_NAME_MAX + 1]; /* file name of the base, if it is a dump; else empty */
	uint64_t bytes;			/* of the morsel */
	uint64_t bytes_file;		/* of the dump */
	uint64_t bytes_stored;		/* content that is in the dump itself */
	uint64_t bytes_zero;		/* content that is zero and takes no room */
	uint64_t bytes_same;		/* content that is as in the base */
	uint64_t range_offset;		/* what of the morsel it covers */
	uint64_t range_bytes;
	uint32_t flags; /* enum morsel_flags */
	uint32_t pages; /* enum morsel_pages */
	uint32_t sealed;
	uint32_t format; /* enum morsel_format */
	uint64_t tensors;
	int64_t created_ns; /* of the dump, CLOCK_REALTIME */
	uint8_t uuid[16];   /* of the dump */
};

/*
 * Writes the morsel to file, which appears, or is replaced, when it is complete and on disk. info
 * (may be NULL) tells what was written. -EINVAL a range outside the morsel, a snapshot that is not
 * sealed or of another pool, or a base that is none; -EIO where content is lost (poisoned) or the
 * file cannot be written; -EBADMSG a damaged base.
 */
MORSEL_API int morsel_dump(struct morsel *morsel, const char *file,
			   const struct morsel_dump_opts *opts, struct morsel_dump_info *info);

/* What is in the file: reads and checks its description, not the content. Errors as for restore. */
MORSEL_API int morsel_dump_look(const char *file, struct morsel_dump_info *info);

struct morsel_restore_opts {
	size_t size;	    /* sizeof(struct morsel_restore_opts) */
	uint32_t flags;	    /* MORSEL_LAZY: load nothing now */
	uint32_t in_flight; /* requests at once; default 4 */
	uint64_t offset; /* load only this range now, rounded outwards to 64 KiB, or to larger pages
			  */
	uint64_t bytes;	 /* 0 means all from offset on */
	const char *base; /* of an incremental dump, where it is not beside it under its old name */
	morsel_progress_fn progress;
	void *progress_ctx;
};

/*
 * Makes a morsel called name (NULL: as it was called) from a dump, in new frames, with the page
 * sizes that it had as far as the pool has such frames left. Where not everything is loaded now, or
 * the dump holds only a range, the rest is a hole and the morsel is MORSEL_LAZY;
 * morsel_restore_range() loads more of it. -EEXIST the name is taken; -EINVAL no dump, or cut
 * short; -EBADMSG damaged: the words say where; -EPROTONOSUPPORT of a later version; -ENOENT the
 * base is missing; -ENOSPC as morsel_open().
 */
MORSEL_API int morsel_restore(struct morsel_pool *pool, const char *name, const char *file,
			      const struct morsel_restore_opts *opts, struct morsel **morsel);

/*
 * Loads more of a morsel that was restored in part: what is a hole of the range and in the dump. A
 * page that is there already keeps its content. Nobody ever sees a page before its content has been
 * loaded and checked. Several processes may load at the same time. -EINVAL the dump is of another
 * morsel, as far as that can be told: size, page sizes and format are compared.
 */
MORSEL_API int morsel_restore_range(struct morsel *morsel, const char *file,
				    const struct morsel_restore_opts *opts);

#ifdef __cplusplus
}
#endif

#endif
