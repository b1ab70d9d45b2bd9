/*
 * Swap targets: where the content of evicted pages of a pool is kept.
 *
 * A pool has up to 16 targets. A target is a file or block device, or memory of the pool itself
 * that holds pages compressed. Pages go to the target with the highest priority that has room; if
 * one fails, the next is tried. Content is checked by a checksum whenever it is read: a page that
 * cannot be read is lost, and whoever touches it is told (SIGBUS); all others are unharmed.
 *
 * All processes that attach the pool reach its targets: a file by its path, which must name the
 * same file for all of them. A file that is gone or was replaced is an error, never wrong data.
 *
 * Only morsels created with MORSEL_EVICTABLE have pages there. Pages filled with one byte are kept
 * nowhere: they need no target's room.
 */
#ifndef MORSEL_SWAP_H
#define MORSEL_SWAP_H

#include <stddef.h>
#include <stdint.h>

#include <morsel/morsel.h>

#ifdef __cplusplus
extern "C" {
#endif

enum morsel_swap_kind {
	MORSEL_SWAP_FILE = 1, /* a file or block device */
	/*
	 * Compressed, in frames of the pool. They are resident, but beside the budget: bytes of the
	 * options bound them. So a pool takes no more memory than its budget and those bytes.
	 */
	MORSEL_SWAP_MEMORY,
	/* By a driver of this process: see the end of this header. */
	MORSEL_SWAP_DRIVER,
};

enum morsel_swap_compression {
	MORSEL_SWAP_AUTO, /* lz4, or what is installed */
	MORSEL_SWAP_LZ4,
	MORSEL_SWAP_ZSTD, /* smaller and slower: for pages that are rarely needed */
};

enum morsel_swap_flags {
	/*
	 * File: read and write one after the other by system calls, without liburing. Without this
	 * flag a machine that has no liburing or no io_uring is refused (-EOPNOTSUPP).
	 */
	MORSEL_SWAP_PLAIN_IO = 1,
	/* File: use it though it holds something else, which is lost. */
	MORSEL_SWAP_OVERWRITE = 2,
	/* File: do not reserve its bytes on the disk now; writing may fail later. */
	MORSEL_SWAP_SPARSE = 4,
};

struct morsel_swap_opts {
	size_t size;	  /* sizeof(struct morsel_swap_opts) */
	/* Of the file or block device; or SCHEME:PLACE of a driver; NULL: compressed memory. */
	const char *path;
	/*
	 * At most so much; 0: all of a device or existing file; of compressed memory a quarter of the
	 * budget, or of the pool where it has none.
	 */
	uint64_t bytes;
	int32_t priority;     /* higher is filled first; 0 to 32767, -1 ... for last resort */
	uint32_t compression; /* enum morsel_swap_compression; memory only */
	uint32_t flags;	      /* enum morsel_swap_flags */
	uint32_t reserved;
};

/*
 * Adds a target; *id (may be NULL) names it. A file that does not exist is made, and removed with
 * the target. -EINVAL; -ENOSPC: 16 targets, no room on the disk, or no frames for its map (about
 * 0.05 %); -EEXIST: the file is not empty (MORSEL_SWAP_OVERWRITE), or is a target already;
 * -EOPNOTSUPP: liburing or the compressor is missing, or the pool's kind does not evict.
 */
MORSEL_API int morsel_swap_add(struct morsel_pool *pool, const struct morsel_swap_opts *opts,
			       unsigned *id);

enum morsel_swap_remove_flags {
	/* Also if pages are there that are nowhere else: they are lost, who touches them gets
	   SIGBUS. */
	MORSEL_SWAP_LOSE = 1,
	/* Take a target that was being emptied into use again. */
	MORSEL_SWAP_KEEP = 2,
};

/*
 * Removes a target. From the call on it takes no more pages; while pages are there it answers
 * -EBUSY, with their number in words, and each one leaves it when it is next brought in or its
 * morsel is freed (morsel_advise(), MORSEL_ADVICE_WILL_NEED over the evictable morsels brings them
 * in): then call again. -ENOENT: no such target.
 */
MORSEL_API int morsel_swap_remove(struct morsel_pool *pool, unsigned id, unsigned flags);

enum morsel_swap_state {
	MORSEL_SWAP_IN_USE = 1,
	MORSEL_SWAP_FAILING,  /* a write failed: is used when all others are full */
	MORSEL_SWAP_EMPTYING, /* takes no more pages: morsel_swap_remove() */
	MORSEL_SWAP_MISSING,  /* this process cannot reach its file */
};

struct morsel_swap_info {
	size_t size; /* sizeof(struct morsel_swap_info) of the library */
	unsigned id;
	uint32_t kind;	/* enum morsel_swap_kind */
	uint32_t state; /* enum morsel_swap_state */
	int32_t priority;
	uint32_t compression; /* enum morsel_swap_compression, as chosen; memory only */
	uint32_t flags;	      /* enum morsel_swap_flags */
	uint64_t bytes;	      /* capacity: of the file's slots; most memory */
	uint64_t pages;	      /* kept there now */
	uint64_t
		stored_bytes; /* what they need there: of memory, after compression, without gaps */
	uint64_t memory_bytes; /* memory: frames that it occupies now */
	uint64_t errors_read;
	uint64_t errors_write;
	uint64_t errors_content; /* read, but not what was written */
	const char *path;	 /* NULL: memory; valid during the call */
};

/* Calls fn for each target; a non-zero answer ends it and is returned. */
MORSEL_API int morsel_swap_list(struct morsel_pool *pool,
				int (*fn)(void *ctx, const struct morsel_swap_info *info),
				void *ctx);

/* ---- drivers ------------------------------------------------------------------------------------ */

/*
 * A driver keeps pages where the kernel cannot: on a device that this process drives by itself. A
 * path that begins with a registered driver's scheme and ':' names a place of it ("nvme:...").
 *
 * Only a process that has registered the driver, and can open the place, reaches the pages there: in
 * others the target is MISSING, and a touch of such a page is refused (SIGBUS). Use it where one
 * process evicts and touches the evictable morsels, or where all can open the place.
 *
 * Versions as in <morsel/view.h>: the table begins with its size and its version.
 */
#define MORSEL_SWAP_DRIVER_VERSION 1

/* One piece: whole pages, at a position of whole pages. */
struct morsel_swap_io {
	uint64_t position;
	void *memory; /* aligned to 8 bytes at least */
	uint64_t bytes;
	int32_t rc; /* set: 0 or a negative errno */
	uint32_t reserved;
};

struct morsel_swap_driver_ops {
	size_t size;	    /* sizeof(struct morsel_swap_driver_ops) */
	uint32_t version;   /* MORSEL_SWAP_DRIVER_VERSION */
	uint32_t reserved;
	const char *scheme; /* 1 to 15 letters and digits */

	/* Opens a place: *bytes is how many it has. 0 or a negative errno with words. */
	int (*open)(void *ctx, const char *place, void **handle, uint64_t *bytes);
	/* Nothing is under way. Cannot fail. */
	void (*close)(void *handle);
	/*
	 * Reads or writes all pieces, several in flight where that helps, and sets each rc. When it
	 * returns nothing is under way. Any thread calls it, several at once, also inside of a
	 * handler of SIGBUS whose thread was not in a call of the driver: no malloc, no words.
	 */
	void (*run)(void *handle, int write, struct morsel_swap_io *io, unsigned count);
};

struct morsel_swap_driver;

/*
 * Takes a copy of the table; ctx is handed to open(). To be called before the pool's evictable
 * morsels are mapped. -EINVAL; -EEXIST: the scheme is taken; -EPROTONOSUPPORT: of a later version.
 */
MORSEL_API int morsel_swap_driver_register(const struct morsel_swap_driver_ops *ops, void *ctx,
					   struct morsel_swap_driver **driver);
/* -EBUSY while a pool of this process has a place open. NULL is fine. */
MORSEL_API int morsel_swap_driver_unregister(struct morsel_swap_driver *driver);

#ifdef __cplusplus
}
#endif

#endif
