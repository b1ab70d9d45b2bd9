/*
 * The frame allocator: who owns which 4 KiB frame of a number space.
 *
 * It hands out *numbers*; the memory behind them is never touched. It needs no libc and no lock,
 * its state lies in a block of memory that the caller provides, holds no pointers, and may be
 * shared by several processes, each of which may die at any instruction. Usable alone, also in a
 * kernel. The design follows LLFree (Wrenger, Rommel, Halbuer, Dietrich, Lohmann: USENIX ATC 2023).
 *
 *   tree   64 MiB   one entry: how many children are whole, partly used, reserved; kind
 *   child   2 MiB   one entry: how many frames are used; huge, reserved by which local, dirty
 *   row     2 MiB   512 bits: a set bit is an allocated frame
 *   local           a slot's own reservation: one child whose free frames only it counts
 *
 * Words: order n is 2^n frames; orders 0 to 8 lie within a row, 9 is one huge frame, 10 to 18 are
 * aligned runs of huge frames. A frame of order n begins at a multiple of 2^n.
 *
 * Errors are negative errno numbers (the values of the kernel's asm-generic/errno-base.h). Nothing
 * is logged. Outputs are written only on success.
 *
 * Concurrency: everything may be called by any number of threads and processes at once, except
 * where a function says otherwise, but one local serves one caller at a time: giving each thread
 * its own is the caller's duty (a build with MORSEL_CHECKS aborts when it is broken). After fork()
 * parent and child share the metadata only if its mapping is shared; the child must not use the
 * parent's locals.
 *
 * No false out-of-memory: a get answers -ENOMEM only if no aligned free range of that order was
 * free, whoever holds reservations. (Exception: a policy that says MORSEL_FRAMES_NEVER.) A put that
 * is wrong answers an error and changes nothing.
 */
#ifndef MORSEL_FRAME_H
#define MORSEL_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What libmorsel exports; without a shared library (a kernel, an archive) it does no harm. */
#ifndef MORSEL_API
#if defined(__GNUC__)
#define MORSEL_API __attribute__((visibility("default")))
#else
#define MORSEL_API
#endif
#endif

#define MORSEL_FRAMES_HUGE_ORDER    9
#define MORSEL_FRAMES_MAX_ORDER	    18
#define MORSEL_FRAMES_HUGE	    512u   /* frames in a huge frame (a child) */
#define MORSEL_FRAMES_TREE	    16384u /* frames in a tree */
#define MORSEL_FRAMES_TREE_CHILDREN 32u
#define MORSEL_FRAMES_LOCALS_MAX    4096u
#define MORSEL_FRAMES_CAPACITY_MAX  ((uint64_t)1 << 35) /* frames: 128 TiB */
#define MORSEL_FRAMES_NONE	    UINT64_MAX

/*
 * What a frame is used for. Classes are kept in different trees as long as there is room, so that
 * what cannot be moved does not spoil huge frames.
 */
enum morsel_frames_class {
	MORSEL_FRAMES_MOVABLE,	  /* content that the owner can move: pages of morsels */
	MORSEL_FRAMES_IMMOVABLE,  /* never moves: page tables, records */
	MORSEL_FRAMES_HUGE_CLASS, /* orders 9 and up */
	MORSEL_FRAMES_CLASSES
};

/*
 * Which class takes from which kind of tree. The kind of a tree is the class that first took from
 * it when it was unused. rank[class][kind] is 0 for the first choice, higher for later ones (up to
 * MORSEL_FRAMES_RANKS - 1), or MORSEL_FRAMES_NEVER; kind 0 is an unused tree, kind k + 1 is class
 * k. The policy belongs to the metadata: everyone who attaches follows it.
 */
#define MORSEL_FRAMES_RANKS 4
#define MORSEL_FRAMES_NEVER 255

struct morsel_frames_policy {
	uint8_t rank[MORSEL_FRAMES_CLASSES][MORSEL_FRAMES_CLASSES + 1];
};

struct mrs_frames_head;
struct mrs_frames_local;

/*
 * A process's handle on the metadata: where it is mapped here, and its geometry, checked once so
 * that later damage to the header harms nobody. A plain value: copy it, forget it; nothing is to be
 * freed. Members are private.
 */
struct morsel_frames {
	struct mrs_frames_head *head;
	struct mrs_frames_local *locals;
	uint64_t *trees;
	uint64_t *partial_map;
	uint32_t *children;
	uint64_t *rows;
	uint64_t capacity; /* frames, a multiple of MORSEL_FRAMES_HUGE */
	uint32_t tree_count;
	uint32_t local_count;
	struct morsel_frames_policy policy;
};

/* ---- Metadata -------------------------------------------------------------------------------- */

/* A range of bytes of the metadata block. */
struct morsel_frames_bytes {
	uint64_t offset;
	uint64_t bytes;
};

/*
 * Bytes of metadata for a capacity in frames (rounded down to whole huge frames) and a number of
 * locals (1 to MORSEL_FRAMES_LOCALS_MAX): at most 0.02 % of what is managed plus 2 MiB. 0 if a
 * parameter is out of its bounds. The block must be aligned to 64 bytes.
 */
MORSEL_API size_t morsel_frames_metadata_bytes(uint64_t capacity, unsigned locals);

/*
 * The bytes that must have memory behind them while trees first to first + count - 1 are online, in
 * ranges[0..2]: ranges[0] is the head, the locals and the tree entries up to the last of these
 * trees (with count 0: what init and attach need); ranges[1] children, ranges[2] rows. Everything
 * else is never read or written. -EINVAL if the trees are not within the capacity.
 */
MORSEL_API int morsel_frames_metadata_ranges(uint64_t capacity, unsigned locals,
					     uint64_t first_tree, uint64_t count,
					     struct morsel_frames_bytes ranges[3]);

/* ---- Setting up ------------------------------------------------------------------------------ */

/* Flags of init and online. */
#define MORSEL_FRAMES_ALLOCATED \
	0x1u			    /* the frames start allocated (any put is then a partial put) */
#define MORSEL_FRAMES_UNZEROED 0x2u /* their content is unknown; without it they are known zero */

/*
 * Makes an allocator in a block of all-zero bytes (a fresh sparse file needs no clearing) and
 * brings the first online frames online. policy NULL is the default. Without flags the cost is one
 * store per tree that comes online, whatever the capacity. Nobody else uses the block yet; it
 * becomes attachable with the last store. -EINVAL: a parameter out of bounds, block too small or
 * misaligned; -EEXIST: the block already holds an allocator.
 */
MORSEL_API int morsel_frames_init(struct morsel_frames *frames, void *metadata, size_t bytes,
				  uint64_t capacity, unsigned locals, uint64_t online,
				  unsigned flags, const struct morsel_frames_policy *policy);

/*
 * Uses what somebody else made; disturbs nobody. The header is validated and copied, and whatever
 * is read from the block later is bounds-checked, so that a damaged or hostile block yields wrong
 * numbers (below the capacity) or errors, but no access outside the block and no endless loop.
 * -EINVAL: not an allocator, or it does not fit in bytes; -EPROTONOSUPPORT: of another version.
 */
MORSEL_API int morsel_frames_attach(struct morsel_frames *frames, void *metadata, size_t bytes);

/*
 * Makes everything that is derived consistent again with what is allocated: drops all reservations
 * and pendings and recounts children and trees from the rows. For an allocator whose users are all
 * gone (the next boot). Nobody else may run. A huge frame of which a death interrupted the get or
 * put counts as allocated. Cost: the rows are read once.
 */
MORSEL_API void morsel_frames_recover(struct morsel_frames *frames);

/*
 * Brings frames [first, first + count) online. count is a multiple of MORSEL_FRAMES_HUGE; first is
 * the beginning of an offline tree or the end of a tree that is online in part. The caller has put
 * memory behind the metadata ranges of these trees. One caller at a time; gets and puts may run.
 * -EINVAL: not such a range.
 */
MORSEL_API int morsel_frames_online(struct morsel_frames *frames, uint64_t first, uint64_t count,
				    unsigned flags);

/*
 * Takes whole trees offline; first and count are multiples of MORSEL_FRAMES_TREE (count may end at
 * the capacity). -EBUSY if a frame in them is allocated: then nothing has changed. One caller at a
 * time; gets and puts may run. The metadata must keep its memory and content for as long as calls
 * that began before may still run.
 */
MORSEL_API int morsel_frames_offline(struct morsel_frames *frames, uint64_t first, uint64_t count);

/* True if the frame's number is online at this moment. */
MORSEL_API bool morsel_frames_is_online(const struct morsel_frames *frames, uint64_t frame);

/* ---- Get and put ----------------------------------------------------------------------------- */

/* Flags of gets and puts. */
#define MORSEL_FRAMES_TRACKED  0x10u /* leave the pending record set: see "Death" below */
#define MORSEL_FRAMES_PUT_ZERO 0x20u /* put: the frames' content is all zero */

/*
 * Any frame of the order. *frame is its first number. -ENOMEM: none is free; -EINVAL: order, class
 * or local out of bounds.
 */
MORSEL_API int morsel_frames_get(struct morsel_frames *frames, unsigned local, unsigned order,
				 enum morsel_frames_class cls, unsigned flags, uint64_t *frame);

/* A get with wishes. Zero-initialise, then set what matters. */
struct morsel_frames_want {
	unsigned order;
	enum morsel_frames_class cls;
	unsigned flags;
	bool near_set; /* near counts: take what is close to it if there is, else any */
	uint64_t near;
	uint64_t first; /* only frames in [first, end); end 0 means no limit (a NUMA node's extent)
			 */
	uint64_t end;
};

struct morsel_frames_got {
	uint64_t frame;
	bool zero; /* the content is known to be all zero (if the callers of put told the truth) */
};

MORSEL_API int morsel_frames_get_want(struct morsel_frames *frames, unsigned local,
				      const struct morsel_frames_want *want,
				      struct morsel_frames_got *got);

/* Exactly this frame. -EBUSY: part of it is allocated; -EINVAL: misaligned, offline or out of
 * range. */
MORSEL_API int morsel_frames_get_at(struct morsel_frames *frames, unsigned local, uint64_t frame,
				    unsigned order, unsigned flags);

/*
 * Up to n single frames at once, all of one row, with few atomic operations. Returns how many (at
 * least 1, at most MORSEL_FRAMES_HUGE), in ascending order in out[], or -ENOMEM or -EINVAL.
 */
MORSEL_API int morsel_frames_get_many(struct morsel_frames *frames, unsigned local,
				      enum morsel_frames_class cls, unsigned flags, unsigned n,
				      uint64_t *out);

/*
 * Gives a frame back: of the order it was got with, or an aligned part of it (the rest stays
 * allocated), or an aligned whole of which every part is allocated. An error changes nothing:
 * -EINVAL: misaligned, order or local out of bounds, out of range, offline; -ENOENT: (part of) it
 * is not allocated. If two threads put overlapping frames at the same instant, each frame is freed
 * once.
 */
MORSEL_API int morsel_frames_put(struct morsel_frames *frames, unsigned local, uint64_t frame,
				 unsigned order, unsigned flags);

/*
 * Puts n single frames; cheapest when neighbours stand beside each other in the array. Stops at the
 * first that is refused and returns its error; *done (may be NULL) is how many were put, in any
 * case.
 */
MORSEL_API int morsel_frames_put_many(struct morsel_frames *frames, unsigned local,
				      const uint64_t *list, size_t n, unsigned flags, size_t *done);

/* ---- Death ----------------------------------------------------------------------------------- */

/*
 * Before its first step every get and put writes down in its local what it is about to do; the
 * record is cleared at the end, or, with MORSEL_FRAMES_TRACKED, by morsel_frames_settle(), so that
 * it covers the time until the caller has linked the new frame to something that others can find.
 * SIGKILL is not a power cut: program order is enough. A local has one record: settle before its
 * next call.
 */
enum morsel_frames_op { MORSEL_FRAMES_OP_NONE, MORSEL_FRAMES_OP_GET, MORSEL_FRAMES_OP_PUT };

struct morsel_frames_pending {
	enum morsel_frames_op op;
	unsigned order;
	uint64_t frame; /* frames [frame, frame + 2^order) may be affected */
};

/* What was got with MORSEL_FRAMES_TRACKED is linked (or put back); the record is cleared. */
MORSEL_API void morsel_frames_settle(struct morsel_frames *frames, unsigned local);

/* True, and *pending, if the local has a record. For locals whose user is dead or is the caller. */
MORSEL_API bool morsel_frames_pending(const struct morsel_frames *frames, unsigned local,
				      struct morsel_frames_pending *pending);

/*
 * Finishes or undoes what the dead users of locals [first, first + count) were doing: counters that
 * their records touch are recounted from the rows, and those frames of a record that are allocated
 * and of which referenced(ctx, frame) is false are freed, unless the record of a local outside the
 * range names them too. Then the records are cleared and the reservations returned. Nobody else may
 * be inside a call of this allocator meanwhile (the pool's gate); idle locals keep their
 * reservations. Dying in it is harmless: call it again. Returns the number of frames freed.
 */
MORSEL_API uint64_t morsel_frames_repair(struct morsel_frames *frames, unsigned first,
					 unsigned count,
					 bool (*referenced)(void *ctx, uint64_t frame), void *ctx);

/*
 * Returns the reservation of a local whose user is dead, or the caller's own. Others may run, but
 * one caller at a time returns the same local. -EBUSY if it has a pending record: repair first.
 */
MORSEL_API int morsel_frames_return_local(struct morsel_frames *frames, unsigned local);

/* ---- Looking --------------------------------------------------------------------------------- */

struct morsel_frames_stat {
	uint64_t capacity;  /* frames that the metadata has room for */
	uint64_t online;    /* frames online */
	uint64_t free;	    /* frames free, reserved ones included */
	uint64_t huge_free; /* huge frames wholly free */
	uint64_t huge_used; /* huge frames allocated as such */
	uint64_t huge_zero; /* wholly free and known zero */
	uint64_t reserved;  /* of free: frames that a local has reserved */
};

/* From the counters: one load per 2 MiB, few more where it is reserved. Exact when nobody runs. */
MORSEL_API void morsel_frames_stat_fast(const struct morsel_frames *frames,
					struct morsel_frames_stat *stat);

/* From the rows: eight loads more per 2 MiB. Exact when nobody runs, even if counters are not. */
MORSEL_API void morsel_frames_stat_exact(const struct morsel_frames *frames,
					 struct morsel_frames_stat *stat);

/* True if every frame in [frame, frame + 2^order) is free (or allocated) at this moment. */
MORSEL_API bool morsel_frames_is_free(const struct morsel_frames *frames, uint64_t frame,
				      unsigned order);
MORSEL_API bool morsel_frames_is_allocated(const struct morsel_frames *frames, uint64_t frame,
					   unsigned order);

/*
 * Checks every invariant; nobody else may run. 0, or -EINVAL and, if where is not NULL, a static
 * string that names the broken invariant, and the frame number of the place.
 */
MORSEL_API int morsel_frames_validate(const struct morsel_frames *frames, const char **what,
				      uint64_t *where);

#ifdef __cplusplus
}
#endif

#endif
