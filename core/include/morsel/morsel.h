/*
 * morsel: memory that several processes and devices share, as objects.
 *
 * A pool is memory that many processes attach: an anonymous memfd, or a file on tmpfs, hugetlbfs or
 * disk. A morsel is a named object in a pool, of any size up to the pool's, with a page table of its
 * own over the pool's frames. A view is how one target (here: this process's CPU) sees a morsel. A
 * grant is the right to use a range of a view until it is released.
 *
 * Conventions, for every function unless its comment says otherwise:
 *  - Returns 0 (or a non-negative value) on success and a negative errno on failure; then
 *    morsel_errormsg() says in words which limit was met and what to do. Outputs are written only on
 *    success.
 *  - Offsets and sizes are in bytes; _last is inclusive, _end exclusive.
 *  - Any thread may call any function at any time, except that an object must not be closed,
 *    destroyed or released while another thread uses it. No function is async-signal-safe.
 *  - Every option struct begins with its own size; zero in a field means the default; NULL for the
 *    struct means all defaults.
 *  - fork: the mappings are not inherited and a pool handle is unusable in the child (-ECHILD); the
 *    child opens the pool anew. exec closes everything.
 *  - Trust: rights are per pool. All processes that attach a pool for writing are one trust domain:
 *    each can overwrite anything in it. A hostile or damaged pool file is refused by the opener and
 *    never crashes it.
 *  - Death: a process may be killed at any instruction; the others go on, and what it held comes
 *    back when anybody next attaches, allocates, or calls morsel_pool_reap().
 */
#ifndef MORSEL_MORSEL_H
#define MORSEL_MORSEL_H

#include <stddef.h>
#include <stdint.h>

#include <morsel/tensor.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define MORSEL_API __attribute__((visibility("default")))
#else
#define MORSEL_API
#endif

#define MORSEL_VERSION_MAJOR  0
#define MORSEL_VERSION_MINOR  1
#define MORSEL_VERSION_PATCH  0
#define MORSEL_VERSION_STRING "0.1.0"

/*
 * A name is 1 to 255 bytes, compared byte by byte; no '/' and no control character (below 0x20, or
 * 0x7f) may be in it.
 */
#define MORSEL_NAME_MAX 255

struct morsel_pool;
struct morsel;
struct morsel_view;

/* ---- errors and messages ------------------------------------------------------------------- */

/*
 * The words for this thread's last failure; never NULL, empty before the first failure. The text
 * belongs to the thread and lasts until its next failing call.
 */
MORSEL_API const char *morsel_errormsg(void);

/* The version of the library that is loaded, for example "0.1.0". */
MORSEL_API const char *morsel_version(void);

/*
 * Messages: level 1 error, 2 warning, 3 information (every error text), 4 debug. Without a callback
 * those up to the level in the environment variable MORSEL_LOG (none, error, warn, info, debug;
 * default error) go to stderr. The callback gets all of them, from any thread, one at a time or
 * several at once; it must not call back into the library. fn NULL restores the default.
 */
typedef void (*morsel_log_fn)(void *ctx, int level, const char *text);
MORSEL_API void morsel_log_set(morsel_log_fn fn, void *ctx);

/* ---- pools --------------------------------------------------------------------------------- */

enum morsel_pool_flags {
	MORSEL_POOL_CREATE = 1 << 0,   /* create it if it does not exist */
	MORSEL_POOL_EXCL = 1 << 1,     /* with CREATE: -EEXIST if it does */
	MORSEL_POOL_READ_ONLY = 1 << 2, /* look only: list and info; no slot, no views, no grants */
	MORSEL_POOL_NO_HUGE = 1 << 3,  /* create: never ask the kernel for huge folios */
	MORSEL_POOL_NO_DUMP = 1 << 4,  /* leave this process's mappings out of its core dumps */
};

enum morsel_pool_kind {
	MORSEL_POOL_AUTO = 0, /* as the file system at the path demands */
	MORSEL_POOL_MEMFD,    /* anonymous; path NULL */
	MORSEL_POOL_TMPFS,
	MORSEL_POOL_HUGETLB,
	MORSEL_POOL_FILE,
};

/*
 * Who brings an evicted page back when this process touches it. <morsel/pager.h> says what each can do.
 */
enum morsel_faults {
	MORSEL_FAULTS_THREAD = 0, /* a thread of the library */
	MORSEL_FAULTS_SIGBUS = 1, /* the touching thread itself, in a handler of SIGBUS */
};

struct morsel_pool_opts {
	size_t size;		 /* sizeof(struct morsel_pool_opts) */
	uint32_t flags;		 /* enum morsel_pool_flags */
	uint32_t kind;		 /* enum morsel_pool_kind; to be sure, not to choose */
	uint64_t bytes;		 /* create: size of the number space; default 1 GiB. Sparse: costs nothing */
	uint64_t bytes_max;	 /* create: up to what morsel_pool_grow() can grow it; default 1 TiB */
	uint64_t budget_bytes;	 /* create: as of morsel_pool_set_budget(); default no budget */
	uint32_t mode;		 /* create: file mode, default 0600 */
	uint32_t gid_plus_1;	 /* create: group of the file plus 1; 0 leaves it */
	uint32_t node_plus_1;	 /* create: NUMA node of the first extent plus 1; 0 no preference */
	uint32_t faults;	 /* enum morsel_faults: who serves this handle's faults */
	uint64_t budget_low_bytes; /* create: as of morsel_pool_set_watermarks() */
	uint64_t budget_high_bytes;
};

/*
 * Opens (or, with MORSEL_POOL_CREATE, creates) the pool at path; path NULL with CREATE makes an
 * anonymous memfd pool, which lives as long as a descriptor of it. The handle takes one of the
 * pool's slots until it is closed. Errors: -ENOENT, -EEXIST, -EACCES; -EINVAL not a pool, or damaged;
 * -EPROTONOSUPPORT version, byte order or feature of another library; -EBUSY an incompatible library
 * is attached now; -EUSERS all slots are taken; -ENOSPC the file system is full.
 */
MORSEL_API int morsel_pool_open(const char *path, const struct morsel_pool_opts *opts,
				struct morsel_pool **pool);

/* The same for a descriptor of the pool's file, which stays the caller's and may be closed after. */
MORSEL_API int morsel_pool_open_fd(int fd, const struct morsel_pool_opts *opts,
				   struct morsel_pool **pool);

/* A descriptor of the pool's file; it belongs to the pool and lives as long as the handle. */
MORSEL_API int morsel_pool_fd(struct morsel_pool *pool);

/* Sends the pool over a Unix socket, and opens what the other end sent (SCM_RIGHTS). */
MORSEL_API int morsel_pool_send(struct morsel_pool *pool, int socket);
MORSEL_API int morsel_pool_receive(int socket, const struct morsel_pool_opts *opts,
				   struct morsel_pool **pool);

/*
 * Gives the slot back and unmaps. Morsels and views of this handle must be closed before; -EBUSY
 * names one that is not, and nothing happens. Closing NULL is fine.
 */
MORSEL_API int morsel_pool_close(struct morsel_pool *pool);

/* Removes the pool's file. -EBUSY while a process is attached, unless force. */
MORSEL_API int morsel_pool_destroy(const char *path, int force);

/* Adds an extent of bytes (a multiple of 64 MiB) at the end; node_plus_1 as at creation. */
MORSEL_API int morsel_pool_grow(struct morsel_pool *pool, uint64_t bytes, uint32_t node_plus_1);

/*
 * Most bytes that may be resident, beside compressed memory, which has a limit of its own
 * (<morsel/swap.h>); 0 lifts the budget. Watermarks go back to their defaults. -EBUSY if more are
 * resident now and cannot be evicted: the words say why.
 */
MORSEL_API int morsel_pool_set_budget(struct morsel_pool *pool, uint64_t bytes);

/*
 * Where more than high bytes are resident, evictable pages go ahead of need, until less than low are.
 * 0 is the default: 15/16 of the budget, and 7/8. A wide gap makes fewer and larger batches; a high
 * near the budget keeps more resident, and makes who needs memory wait more often. -EINVAL unless
 * low < high <= budget.
 */
MORSEL_API int morsel_pool_set_watermarks(struct morsel_pool *pool, uint64_t low, uint64_t high);

struct morsel_pool_stat {
	size_t size;		 /* the caller's sizeof(struct morsel_pool_stat) */
	uint32_t kind;		 /* enum morsel_pool_kind */
	uint32_t extents;
	uint64_t bytes;		 /* number space that is online */
	uint64_t bytes_max;	 /* up to what it can grow */
	uint64_t bytes_resident; /* memory behind it, as the kernel counts it (st_blocks) */
	uint64_t bytes_budget;	 /* 0: none */
	uint64_t bytes_free;	 /* number space not owned by anyone */
	uint64_t bytes_huge_free; /* of it, in wholly free 2 MiB frames */
	uint64_t bytes_metadata; /* superblock, slots, allocator state, directory */
	uint64_t morsels;
	uint32_t slots;		 /* how many processes can attach */
	uint32_t slots_used;
	uint64_t reaped;	 /* dead processes cleaned up since creation */
	uint8_t uuid[16];
	uint64_t bytes_low;	 /* watermarks in force; 0: no budget */
	uint64_t bytes_high;
	uint64_t bytes_compressed; /* of what is resident: compressed memory, beside the budget */
};
MORSEL_API int morsel_pool_stat(struct morsel_pool *pool, struct morsel_pool_stat *stat);

/*
 * Checks every invariant: superblocks, extents, directory, tables, and that every frame is owned by
 * exactly one or free. report (may be NULL) gets each finding in words. Returns the number of
 * findings. Other processes' transitions pause for the duration.
 */
typedef void (*morsel_report_fn)(void *ctx, const char *finding);
MORSEL_API int morsel_pool_check(struct morsel_pool *pool, morsel_report_fn report, void *ctx);

/*
 * Cleans up after dead processes now; returns how many there were. -ETIMEDOUT if a living process
 * that stands still (stopped?) is in the way; the words name it.
 */
MORSEL_API int morsel_pool_reap(struct morsel_pool *pool);

/* ---- morsels ------------------------------------------------------------------------------- */

enum morsel_flags {
	MORSEL_CREATE = 1 << 0,
	MORSEL_EXCL = 1 << 1,	    /* with CREATE: -EEXIST if the name is taken */
	MORSEL_LAZY = 1 << 2,	    /* create: memory comes at acquire, prefetch or MORSEL_MAP_POPULATE;
				     * before that a touch through a CPU view is SIGSEGV */
	MORSEL_EVICTABLE = 1 << 3,  /* create: the core may evict and move its pages by itself */
	MORSEL_CONTIGUOUS = 1 << 4, /* create: one run or -ENOSPC */
	MORSEL_SCATTERED = 1 << 5,  /* create: every page wherever it falls (tests, benchmarks) */
};

/* How large the pages of a new morsel are. */
enum morsel_pages {
	MORSEL_PAGES_MIXED = 0, /* the largest that fits (default) */
	MORSEL_PAGES_4K,
	MORSEL_PAGES_2M,
	MORSEL_PAGES_1G,
};

typedef int (*morsel_progress_fn)(void *ctx, uint64_t done_bytes, uint64_t total_bytes);

struct morsel_opts {
	size_t size;	 /* sizeof(struct morsel_opts) */
	uint32_t flags;	 /* enum morsel_flags */
	uint32_t pages;	 /* create: enum morsel_pages */
	uint64_t bytes;	 /* create: size; rounded up to whole pages inside, reported as given */
	uint64_t tensor_align; /* import: align every tensor to this many bytes (a power of two, at
				* most 2 MiB); 0 keeps the file's own layout */
	morsel_progress_fn progress; /* import, export: called now and then; non-zero cancels (-ECANCELED) */
	void *progress_ctx;
};

/*
 * Opens the morsel called name, or creates it with MORSEL_CREATE (zero-filled; backed by memory when
 * the call returns unless MORSEL_LAZY). Errors: -ENOENT, -EEXIST, -ENAMETOOLONG, -EINVAL; -ENOSPC
 * pool, budget or backing store full: the words say which, how much is free and the remedy.
 */
MORSEL_API int morsel_open(struct morsel_pool *pool, const char *name,
			   const struct morsel_opts *opts, struct morsel **morsel);

/*
 * Opens the morsel called name if it exists (with MORSEL_EXCL: -EEXIST); otherwise reads file once,
 * straight into frames, and gives it that name when it is complete: nobody ever sees half of it. Of
 * several processes that import the same name at once one reads, the others wait and open. ONNX,
 * safetensors and GGUF files get a tensor table; a malformed one is refused (-EINVAL and the offset),
 * any other file is bytes.
 */
MORSEL_API int morsel_import(struct morsel_pool *pool, const char *name, const char *file,
			     const struct morsel_opts *opts, struct morsel **morsel);

/* Writes the content to file (by way of a temporary file and rename), as it was imported. */
MORSEL_API int morsel_export(struct morsel *morsel, const char *file, const struct morsel_opts *opts);

/* Ends the use. Its views must be destroyed before (-EBUSY otherwise). NULL is fine. */
MORSEL_API int morsel_close(struct morsel *morsel);

/* The pool handle that it was opened from. */
MORSEL_API struct morsel_pool *morsel_pool_of(struct morsel *morsel);

/*
 * Grows or shrinks. New bytes are zero. Shrinking takes what lies beyond the new end, in whole pages
 * (whole blocks on hugetlbfs), away from every view of every process: a touch of it is refused (SIGSEGV
 * on a CPU view), a grant answers -ERANGE, until the morsel has grown again and the range is granted
 * anew. -EBUSY names a process that has a grant there; -ETIMEDOUT one that does not answer (is it
 * stopped?); then nothing has changed. -EROFS after a seal.
 */
MORSEL_API int morsel_resize(struct morsel *morsel, uint64_t bytes);

/* Makes it read-only for everyone and for good; -EBUSY while somebody has a writable view. */
MORSEL_API int morsel_seal(struct morsel *morsel);

/* Removes the name; the frames are free when the last user has closed or died. */
MORSEL_API int morsel_unlink(struct morsel_pool *pool, const char *name);

/* -EEXIST if to is taken. Atomic for a crash: afterwards exactly one of the names exists. */
MORSEL_API int morsel_rename(struct morsel_pool *pool, const char *from, const char *to);

/*
 * Makes name mean this morsel, at one instant; what name meant before loses it and lives on for
 * those who have it open. The morsel's own former name goes away.
 */
MORSEL_API int morsel_publish(struct morsel *morsel, const char *name);

struct morsel_info {
	size_t size;		 /* the caller's sizeof(struct morsel_info) */
	char name[MORSEL_NAME_MAX + 1];
	uint64_t id;		 /* unique in the pool, never used again */
	uint64_t bytes;
	uint64_t bytes_allocated; /* frames, in bytes */
	uint64_t runs;		 /* contiguous pieces */
	uint32_t flags;		 /* enum morsel_flags it was created with */
	uint32_t pages;		 /* enum morsel_pages */
	uint32_t sealed;	 /* 1 after morsel_seal() */
	uint32_t format;	 /* enum morsel_format */
	uint64_t tensors;
	uint64_t users;		 /* open handles in all processes */
	int64_t created_ns;	 /* CLOCK_REALTIME */
};
MORSEL_API int morsel_info(struct morsel *morsel, struct morsel_info *info);

/* Calls fn for every name; a non-zero answer ends the walk and is returned. fn may unlink. */
typedef int (*morsel_list_fn)(void *ctx, const struct morsel_info *info);
MORSEL_API int morsel_list(struct morsel_pool *pool, morsel_list_fn fn, void *ctx);

struct morsel_run {
	uint64_t offset; /* in the morsel, bytes */
	uint64_t bytes;
	uint64_t frame;	 /* first frame number in the pool; frame * 4096 is the pool's file offset */
	uint32_t order;	 /* of the largest page in it: 0, 9 or 18 */
	uint32_t resident; /* 1 if its memory is there; 0 if nothing has been allocated (lazy; frame 0),
			    * or if it is evicted */
};
/*
 * Calls fn for every run of [offset, offset + bytes); a non-zero answer ends it and is returned. What is
 * evicted and what is there are runs of their own, also where their frames follow each other.
 */
typedef int (*morsel_run_fn)(void *ctx, const struct morsel_run *run);
MORSEL_API int morsel_runs(struct morsel *morsel, uint64_t offset, uint64_t bytes, morsel_run_fn fn,
			   void *ctx);

/* The tensor called name of an imported model; -ENOENT, or -EOPNOTSUPP if it has no tensor table. */
MORSEL_API int morsel_tensor(struct morsel *morsel, const char *name, struct morsel_tensor *tensor);
/* The tensor at index (0 ...) in file order; -ERANGE past the last. */
MORSEL_API int morsel_tensor_at(struct morsel *morsel, uint64_t index, struct morsel_tensor *tensor);

/*
 * What is going to be done with a range, or is to be done. What says "evictable" needs a morsel of
 * MORSEL_EVICTABLE in a memfd or tmpfs pool, -EOPNOTSUPP otherwise; of a file on disk the kernel's page
 * cache decides. Advice about use (NORMAL to DO_NOT_NEED) changes no content and may be forgotten.
 */
enum morsel_advice {
	/* Memory behind the range now: what is missing is taken, what is evicted is read. */
	MORSEL_ADVICE_PREFETCH = 1,
	/* Huge folios where the kernel can; -ENOMEM if it could not. */
	MORSEL_ADVICE_HUGE,
	/* Content is not needed: memory and swap space come back, it reads as zero. -EBUSY names a
	 * grant that holds evictable pages. */
	MORSEL_ADVICE_FREE,
	/*
	 * Evictable: the memory goes, the content is kept on a swap target and comes back at a touch.
	 * 0 if anything went. -EBUSY names the owner of a grant that holds it; -ENODEV no swap target;
	 * -ENOSPC they are full; -EIO, -ETIMEDOUT one failed; -EAGAIN a process has not handed over what
	 * its views need yet. Huge pages go whole.
	 */
	MORSEL_ADVICE_EVICT,
	/* Evictable: for the whole morsel, whatever the range. SEQUENTIAL reads far ahead, and what was
	 * passed goes first; RANDOM reads nothing ahead, and takes all pages for equally likely to be
	 * used: none is spared because it was used lately; NORMAL is neither. */
	MORSEL_ADVICE_NORMAL,
	MORSEL_ADVICE_SEQUENTIAL,
	MORSEL_ADVICE_RANDOM,
	/* Evictable: as PREFETCH, but only begun; nothing is said of how it ends. */
	MORSEL_ADVICE_WILL_NEED,
	/* Evictable: the next to be evicted when memory is short. */
	MORSEL_ADVICE_DO_NOT_NEED,
};
/* -EINVAL where the range is not inside the morsel. -EROFS: a sealed morsel cannot be FREEd. */
MORSEL_API int morsel_advise(struct morsel *morsel, uint64_t offset, uint64_t bytes, int advice);

/* ---- views --------------------------------------------------------------------------------- */

enum morsel_access {
	MORSEL_READ = 1,
	MORSEL_WRITE = 2,
};

enum morsel_view_kind {
	MORSEL_VIEW_AUTO = 0, /* pooled if it is one run, else stitched */
	MORSEL_VIEW_POOLED,   /* one mapping of the pool's file; needs one run */
	MORSEL_VIEW_STITCHED, /* one mapping per run, side by side; at most vm.max_map_count of them */
};

enum morsel_map_flags {
	MORSEL_MAP_POPULATE = 1 << 0,  /* fill this process's page table now */
	MORSEL_MAP_FIXED = 1 << 1,     /* at address or -EEXIST; never replaces a mapping */
	MORSEL_MAP_SAME = 1 << 2,      /* at the same address in every process that asks for it */
	MORSEL_MAP_NO_DUMP = 1 << 3,   /* leave it out of core dumps */
};

struct morsel_map_opts {
	size_t size;	 /* sizeof(struct morsel_map_opts) */
	uint32_t kind;	 /* enum morsel_view_kind */
	uint32_t access; /* enum morsel_access; default READ, and WRITE too unless sealed */
	uint32_t flags;	 /* enum morsel_map_flags */
	uint32_t reserved;
	void *address;	 /* a hint; with MORSEL_MAP_FIXED a demand */
	uint64_t offset; /* part of the morsel: page-aligned */
	uint64_t bytes;	 /* 0: to the end */
};

/*
 * Maps the morsel (or a part) for this process's CPU. The mapping is not inherited by fork. -ENOMEM
 * names vm.max_map_count where that is the limit; -EROFS for a writable view of a sealed morsel.
 */
MORSEL_API int morsel_map(struct morsel *morsel, const struct morsel_map_opts *opts,
			  struct morsel_view **view);

/* First byte of a CPU view; NULL for a view that has no CPU address. */
MORSEL_API void *morsel_addr(struct morsel_view *view);
MORSEL_API uint64_t morsel_view_bytes(struct morsel_view *view);
MORSEL_API void morsel_view_destroy(struct morsel_view *view);

/*
 * What a grant holds depends on the view's backend; addr is set by CPU views. The range is resident,
 * placed and up to date until release. The struct is the caller's; its content is the library's.
 */
struct morsel_grant {
	struct morsel_view *view;
	uint64_t offset;
	uint64_t bytes;
	uint32_t access;
	uint32_t flags;
	void *addr;
	uint64_t iova;
	uint64_t private_[4];
};

/*
 * access is enum morsel_access bits. -ENOSPC where a lazy or evicted range could not be backed, or what
 * grants hold would be more than the budget; -ERANGE where the morsel has shrunk since. Nothing of the range is evicted, moved or cut until release.
 */
MORSEL_API int morsel_acquire(struct morsel_view *view, uint64_t offset, uint64_t bytes, int access,
			      struct morsel_grant *grant);
/* Releasing twice, or a zeroed grant, does nothing. */
MORSEL_API void morsel_release(struct morsel_grant *grant);

#ifdef __cplusplus
}
#endif

#include <morsel/carrier.h>
#include <morsel/clone.h>
#include <morsel/compact.h>
#include <morsel/dump.h>
#include <morsel/observe.h>
#include <morsel/pager.h>
#include <morsel/swap.h>

#endif
