/*
 * Inside the swap room: what is stored of a target, and the one table of operations that a target
 * is.
 *
 * state.swap_table is a frame of 512 words, of which the first MRS_SWAP_TARGETS name the frames of
 * the targets' records; 0 is none. A record names a map: contiguous frames with what the target
 * knows of its slots.
 *
 *	slot	(target + 1) << 56 | serial of the target << 48 | the target's own 48 bits
 *
 * The serial is drawn anew for every target that is added, so that a slot of a removed target is
 * known for one. Who took a slot is written beside it in the map (transition index + 1) for as long
 * as it is taken: that names it for mrs_swap_repair().
 *
 * A new kind of target (NVMe by VFIO, CXL memory, memory of another machine) is one struct
 * mrs_swap_ops, one number in enum morsel_swap_kind, and its line in mrs_swap_ops_of().
 */
#ifndef MRS_SWAP_INTERNAL_H
#define MRS_SWAP_INTERNAL_H

#include <morsel/swap.h>

#include "base/atomic.h"
#include "pool/internal.h"
#include "swap/swap.h"

#define MRS_SWAP_PATH_MAX 3072
#define MRS_SWAP_CLASSES  24
#define MRS_SWAP_OWN_BITS 48
#define MRS_SWAP_OWN_MASK ((1ull << MRS_SWAP_OWN_BITS) - 1)
#define MRS_SWAP_MADE                                                               \
	(1ull << 32) /* in record.flags: the file was made for it, and goes with it \
		      */

enum mrs_swap_state {
	MRS_SWAP_NEW, /* being added, or a stopped add: takes nothing */
	MRS_SWAP_ACTIVE,
	MRS_SWAP_FAILING, /* a write failed: tried last */
	MRS_SWAP_LEAVING, /* takes nothing more; goes when the last page has gone */
	MRS_SWAP_GONE,	  /* being taken apart */
};

/* One frame, all words atomic. */
struct mrs_swap_record {
	uint64_t magic;
	uint64_t state; /* enum mrs_swap_state | serial << 8 | transition that adds or removes it, +
			   1, << 16 */
	uint64_t kind;	/* enum morsel_swap_kind */
	int64_t priority;
	uint64_t flags; /* enum morsel_swap_flags of the add */
	uint64_t compression;
	uint64_t id[2]; /* stands in the file's header too */
	uint64_t slots; /* file: pages; memory: slabs */
	uint64_t map_frame;
	uint64_t map_order;
	uint64_t used;	 /* pages kept */
	uint64_t stored; /* bytes of them */
	uint64_t errors_read;
	uint64_t errors_write;
	uint64_t errors_content;		  /* checksum */
	uint64_t hint;				  /* where a free slot or slab was found lately */
	uint64_t frames;			  /* of slabs */
	uint64_t free_of_class[MRS_SWAP_CLASSES]; /* free objects; a hint */
	uint64_t hint_of_class[MRS_SWAP_CLASSES];
	uint64_t reserved[46];
	char path[MRS_SWAP_PATH_MAX];
};
_Static_assert(sizeof(struct mrs_swap_record) <= 4096, "one frame");
#define MRS_SWAP_RECORD_MAGIC 0x6b6e616241504d53ull

static inline enum mrs_swap_state mrs_swap_state_of(uint64_t state)
{
	return (enum mrs_swap_state)(state & 255);
}

static inline uint64_t mrs_swap_serial_of(uint64_t state)
{
	return state >> 8 & 255;
}

static inline uint64_t mrs_swap_owner_of(uint64_t state)
{
	return state >> 16 & 0xffff;
}

static inline uint64_t mrs_swap_state_make(enum mrs_swap_state state, uint64_t serial,
					   uint64_t owner)
{
	return state | serial << 8 | owner << 16;
}

static inline unsigned mrs_slot_target(uint64_t slot)
{
	return (unsigned)(slot >> 56) - 1;
}

static inline bool mrs_slot_is_filled(uint64_t slot)
{
	return slot >> 56 == 255;
}

static inline uint64_t mrs_slot_own(uint64_t slot)
{
	return slot & MRS_SWAP_OWN_MASK;
}

struct mrs_codecs;
struct mrs_uring;

struct mrs_swap {
	struct mrs_part part;
	uint64_t opened[MRS_SWAP_TARGETS]; /* fd + 1 | serial << 32 of who it was opened for; atomic
					    */
	uint64_t places; /* struct mrs_swap_place *, atomic: a chain that only grows */
	uint64_t retired[16]; /* fd + 1: of targets that were replaced; closed with the handle */
	struct mrs_codecs *codecs;
	uint64_t uring;		/* struct mrs_uring *, atomic; made when a target first wants it */
	uint32_t uring_missing; /* it was tried and said in the log */
};

/* A target, as one call sees it. */
struct mrs_swap_target {
	struct morsel_pool *pool;
	struct mrs_swap *swap; /* NULL in a repair: nothing may be read or written */
	unsigned index;
	struct mrs_swap_record *record;
	uint64_t record_frame;
	void *map;
	uint64_t serial;
};

static inline uint64_t mrs_slot_make(const struct mrs_swap_target *target, uint64_t own)
{
	return (uint64_t)(target->index + 1) << 56 | target->serial << MRS_SWAP_OWN_BITS | own;
}

enum mrs_swap_effort {
	MRS_SWAP_IF_SMALLER, /* only what is worth keeping there */
	MRS_SWAP_AT_ANY_SIZE,
};

/* What a kind of target is. None of them makes words in load_one, take over or free. */
struct mrs_swap_ops {
	/* Bytes of map for record->slots, which it may change. Checks the options; in words. */
	int (*plan)(struct morsel_pool *pool, struct mrs_swap_record *record, uint64_t *map_bytes);
	/* The map is there and zero: makes what else it needs (a file). In words. */
	int (*make)(struct mrs_swap_target *target);
	/* The reverse, also of a part of it; frames and map go afterwards. */
	void (*unmake)(struct mrs_swap_target *target);
	/* May be NULL: gives all frames beside record and map back. */
	void (*drop)(struct mrs_swap_target *target, struct mrs_txn *txn);
	/*
	 * Stores those of count pages whose slot is 0 and sets their slots; leaves those out that
	 * do not fit (all full, or not worth it). 0, or -errno in words: the target is failing;
	 * slots that are set then are good.
	 */
	int (*save)(struct mrs_swap_target *target, struct mrs_txn *txn, const void *const memory[],
		    struct mrs_swap_page page[], unsigned count, enum mrs_swap_effort effort);
	/* Reads those of count pages whose slot is of this target; sets their rc. */
	void (*load)(struct mrs_swap_target *target, struct mrs_swap_page page[],
		     void *const memory[], unsigned count);
	int (*load_one)(struct mrs_swap_target *target, uint64_t own, void *memory);
	/* Is it a slot that is taken, and by whom (transition + 1)? 0 if not. */
	unsigned (*owner)(struct mrs_swap_target *target, uint64_t own);
	/* It is the transition's from now on. */
	void (*take_over)(struct mrs_swap_target *target, uint64_t own, unsigned owner);
	void (*free)(struct mrs_swap_target *target, struct mrs_txn *txn, uint64_t own);
	/* Every slot that is taken. */
	void (*each)(struct mrs_swap_target *target,
		     void (*fn)(void *ctx, uint64_t own, unsigned owner), void *ctx);
	/* Frames beside record and map. */
	void (*owned)(struct mrs_swap_target *target,
		      void (*owned)(void *ctx, uint64_t frame, uint64_t count, const char *by),
		      void *ctx);
	/* Gate closed: hints counted anew, half-made parts finished or undone. */
	void (*repair)(struct mrs_swap_target *target, struct mrs_txn *txn);
};

extern const struct mrs_swap_ops mrs_swap_file_ops, mrs_swap_memory_ops, mrs_swap_driver_ops;
const struct mrs_swap_ops *mrs_swap_ops_of(uint64_t kind);

/* ---- swap.c ---- */

/* The target with this index, whatever its state; false if there is none or it is damaged. */
bool mrs_swap_target(struct morsel_pool *pool, unsigned index, struct mrs_swap_target *target);
/* The target of a slot; false if it is gone. */
bool mrs_swap_target_of(struct morsel_pool *pool, uint64_t slot, struct mrs_swap_target *target);
/* Is it still the same one, and does it take pages? Holds until the transition is next parked. */
bool mrs_swap_takes(const struct mrs_swap_target *target);
uint64_t *mrs_swap_table(struct morsel_pool *pool);
void mrs_swap_count(uint64_t *word, int64_t delta);

/* ---- add.c ---- */

/* Takes a target apart whose state is NEW or GONE; inside a transition. */
void mrs_swap_dismantle(struct mrs_txn *txn, struct mrs_swap_target *target);

/* The handle's rings, made if need be, outside signal handlers only; -EOPNOTSUPP in words. */
int mrs_swap_uring(struct mrs_swap *swap, struct mrs_uring **uring);

/* ---- file.c ---- */

/* The descriptor of a file target in this process; -errno without words. Async-signal-safe. */
int mrs_swap_file_open(struct mrs_swap_target *target);
/* The map and head of a file, which a driver's place has, too. */
uint64_t mrs_swap_file_map_bytes(uint64_t slots);
unsigned mrs_swap_file_take(struct mrs_swap_target *target, unsigned who, uint64_t own[],
			    unsigned count);
void mrs_swap_file_head(const struct mrs_swap_target *target, void *page);

/* ---- driver.c: places of drivers ---- */

struct mrs_swap_place;

/* Is the path one of a registered driver? */
bool mrs_swap_driver_has(const char *path);
/* Opens the places of a handle's pool that can be opened: outside of signal handlers. */
void mrs_swap_driver_look(struct mrs_swap *swap);
/* Has this process the target's place? */
bool mrs_swap_driver_is_open(const struct mrs_swap_target *target);
/* Closes what a handle has; in a child of fork only forgets. */
void mrs_swap_driver_close(struct mrs_swap *swap, bool forked);

/* ---- codec.c: lz4 and zstd, by dlopen ---- */

enum mrs_codec { MRS_CODEC_PLAIN, MRS_CODEC_LZ4, MRS_CODEC_ZSTD };

/* Loads what is installed. NULL: no memory. */
struct mrs_codecs *mrs_codecs_open(void);
void mrs_codecs_close(struct mrs_codecs *codecs);
/* 0; -EOPNOTSUPP in words if its library is missing. */
int mrs_codec_usable(struct mrs_codecs *codecs, enum mrs_codec codec);
/* Compresses a page into at most room bytes; 0 if it does not fit, else how many. */
unsigned mrs_codec_pack(struct mrs_codecs *codecs, enum mrs_codec codec, const void *page, void *to,
			unsigned room);
/* 0, -EBADMSG, or -EOPNOTSUPP where the library is missing. Async-signal-safe. */
int mrs_codec_unpack(struct mrs_codecs *codecs, enum mrs_codec codec, const void *from,
		     unsigned bytes, void *page);

/* ---- slab.c: objects of several sizes in frames of the pool ---- */

struct mrs_slab_object {
	void *memory;
	unsigned bytes;
	enum mrs_codec codec;
};

uint64_t mrs_slab_bytes(void);
uint64_t mrs_slabs_of_bytes(uint64_t bytes);
uint64_t mrs_slab_map_bytes(uint64_t slabs);
/* Most bytes of a compressed object: three quarters of a page. */
#define MRS_SLAB_PACKED_MAX 3072
/* An object for bytes of memory; 0 and *own, -ENOSPC without words if full, or -errno in words. */
int mrs_slab_get(struct mrs_swap_target *target, struct mrs_txn *txn, unsigned bytes,
		 enum mrs_codec codec, uint64_t *own, void **memory);
bool mrs_slab_look(struct mrs_swap_target *target, uint64_t own, struct mrs_slab_object *object);
unsigned mrs_slab_owner(struct mrs_swap_target *target, uint64_t own);
void mrs_slab_take_over(struct mrs_swap_target *target, uint64_t own, unsigned owner);
void mrs_slab_put(struct mrs_swap_target *target, struct mrs_txn *txn, uint64_t own);
void mrs_slab_each(struct mrs_swap_target *target,
		   void (*fn)(void *ctx, uint64_t own, unsigned owner), void *ctx);
void mrs_slab_owned(struct mrs_swap_target *target,
		    void (*owned)(void *ctx, uint64_t frame, uint64_t count, const char *by),
		    void *ctx);
void mrs_slab_repair(struct mrs_swap_target *target, struct mrs_txn *txn);
void mrs_slab_drop_all(struct mrs_swap_target *target, struct mrs_txn *txn);

#endif
