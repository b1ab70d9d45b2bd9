/*
 * The pool room's interface to the rooms above it.
 *
 * A pool handle is this process's attachment: the file, one read-write mapping of all of it (the
 * metadata mapping: tables, directory and allocator state are read through it, bounds-checked), one
 * slot, one allocator handle. Every change of metadata is a *transition*: it runs between
 * mrs_txn_begin() and mrs_txn_end(), with an intent record that says what to repair if it dies, and
 * an allocator local of its own.
 *
 * The gate. Repairing after a death wants nobody else to be taking or giving frames. A reaper closes
 * the gate, waits until no live slot is inside a transition, repairs, and opens it. Entering costs a
 * store, a fence and a load. A transition is short and never waits for another process, except at
 * the gate itself and for a record's lock.
 */
#ifndef MRS_POOL_POOL_H
#define MRS_POOL_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <morsel/frame.h>
#include <morsel/morsel.h>

#include "pool/format.h"

struct mrs_txn {
	struct morsel_pool *pool;
	struct mrs_intent *intent; /* in the slot, in shared memory */
	unsigned index;		   /* slot * MRS_INTENTS_PER_SLOT + which: also the allocator's local */
};

/* ---- transitions (txn.c, gate.c) ---- */

/*
 * Waits for a free intent of this process and for the gate, then enters with intent->op = op and the
 * rest zero; the caller fills cell[] and arg[] before the first step. May not nest in a thread.
 * -ECHILD after fork. -EROFS on a read-only handle. -ETIMEDOUT in words, unless op is FREE, if a
 * living process keeps the gate closed and stands still; nothing has begun then.
 */
int mrs_txn_begin(struct morsel_pool *pool, enum mrs_intent_op op, struct mrs_txn *txn);
/* For what cannot fail: waits at the gate until the one that stands still goes on or is killed. */
int mrs_txn_begin_patiently(struct morsel_pool *pool, enum mrs_intent_op op, struct mrs_txn *txn);
void mrs_txn_end(struct mrs_txn *txn);

/*
 * Lets a waiting reaper in: costs a load while there is none. To be called now and then in a long
 * transition, at a point where everything taken is linked or named by intent and pending record.
 * (Waiting for a word and reserving much memory do it by themselves.)
 */
void mrs_txn_pause(struct mrs_txn *txn);
/*
 * This thread's transition of the pool, if there is one, steps aside while it waits for another
 * process, and comes back: in between it touches nothing shared but what its intent names.
 */
bool mrs_txn_park(struct morsel_pool *pool);
/* Is this thread in a repair, with the gate closed? Then nobody can be waited for. */
bool mrs_txn_is_repairing(void);
void mrs_txn_unpark(struct morsel_pool *pool, bool parked);

/* ---- frames (frames.c): tracked gets and puts of the transition's allocator local ---- */

enum mrs_frame_class { MRS_FRAME_MOVABLE, MRS_FRAME_IMMOVABLE, MRS_FRAME_HUGE };

/*
 * Takes 2^order contiguous frames. The allocator's pending record names them until mrs_txn_settle(),
 * which the caller calls when they are linked where a repair finds them. near: a frame to be close
 * to, or 0. -ENOSPC in words. No memory is behind them until mrs_pool_back().
 */
int mrs_txn_get(struct mrs_txn *txn, unsigned order, enum mrs_frame_class class, uint64_t near,
		uint64_t *frame);
/* Takes these very frames: -EBUSY if one of them is taken. */
int mrs_txn_get_at(struct mrs_txn *txn, unsigned order, uint64_t frame);
void mrs_txn_settle(struct mrs_txn *txn);
/* Is nothing pending and nothing being put? Only then may frames be taken or given for something else. */
bool mrs_txn_is_free(struct mrs_txn *txn);

/*
 * Gives 2^order frames back. The memory behind must have been given back before (mrs_pool_unback).
 * The caller unlinks them from the table *after* mrs_txn_put_begin() and before mrs_txn_put_end(), so
 * that the pending record names them while nobody else does.
 */
void mrs_txn_put_begin(struct mrs_txn *txn, unsigned order, uint64_t frame);
void mrs_txn_put_end(struct mrs_txn *txn);
/* Instead of put_end: the frames have other owners, who keep them. */
void mrs_txn_put_cancel(struct mrs_txn *txn);

/* One immovable frame with memory behind it, zeroed, for a table or other metadata; like get. */
int mrs_txn_get_table(struct mrs_txn *txn, uint64_t *frame);
/* 2^order of them, contiguous. */
int mrs_txn_get_meta(struct mrs_txn *txn, unsigned order, uint64_t *frame);

/* ---- memory behind frames (back.c) ---- */

enum mrs_back_flags {
	MRS_BACK_HUGE = 1, /* with huge folios where the range has whole 2 MiB and the kernel can */
	/* Counts against the budget and is not refused for it: metadata that evicting itself needs. */
	MRS_BACK_OVER_BUDGET = 2,
};

/*
 * Reserves memory for count frames so that touching them cannot fail: checks budget, file system and
 * memory cgroup first. -ENOSPC names path, free bytes and remedy; then nothing has changed. huge
 * (may be NULL) gets how many of the frames are behind huge folios now.
 */
int mrs_pool_back(struct mrs_txn *txn, uint64_t frame, uint64_t count, unsigned flags,
		  uint64_t *huge);
/* Gives the memory back: the frames read as zero when they are next backed. Cannot fail. */
void mrs_pool_unback(struct morsel_pool *pool, uint64_t frame, uint64_t count);
/* The same, or nothing has happened: -errno in words. Never zeroes in place by itself. */
int mrs_pool_punch(struct morsel_pool *pool, uint64_t frame, uint64_t count);
/* Would so many frames more fit below the budget, with what is being reserved? */
bool mrs_pool_fits(struct morsel_pool *pool, uint64_t frames);
/* Between the two what this thread reserves is not refused for the budget. May nest. */
void mrs_pool_may_exceed(bool on);
/* Between false and true this thread does not wait for room: it has locked what might have to go. */
void mrs_pool_may_wait(bool on);
/* Asks for huge folios behind frames that have memory. -ENOMEM in words where the kernel refused. */
int mrs_pool_make_huge(struct morsel_pool *pool, uint64_t frame, uint64_t count, uint64_t *huge);
/* Frames with memory behind, as the kernel counts it. */
uint64_t mrs_pool_resident(struct morsel_pool *pool);
/* Of them, what counts against the budget: compressed memory has a limit of its own. */
uint64_t mrs_pool_charged(struct morsel_pool *pool);
/*
 * The watermarks in force, in frames: above high the evictor begins, below low it stops. False, and
 * UINT64_MAX, if there is no budget.
 */
bool mrs_pool_watermarks(struct morsel_pool *pool, uint64_t *low, uint64_t *high);
/*
 * The next range of the pool's file with content at or after byte *at and before end, in whole
 * pages; false if there is none. Memory that was reserved and never written counts as hole.
 */
bool mrs_pool_next_content(struct morsel_pool *pool, uint64_t *at, uint64_t end,
			   uint64_t *content_end);
/* How many of these frames have none, by the same measure. */
uint64_t mrs_pool_lacks(struct morsel_pool *pool, uint64_t frame, uint64_t count);
/* Smallest unit in which memory comes and goes: 1 frame, or 512 on hugetlbfs. */
uint64_t mrs_pool_block_frames(struct morsel_pool *pool);

/*
 * Sets MRS_FEATURE_INCOMPAT_* bits in the superblock where they are missing: what they name is about to
 * be made for the first time. Outside any transition. -EBUSY in words, as growing.
 */
int mrs_pool_require(struct morsel_pool *pool, uint64_t incompat);

/* ---- reading ---- */

/* The metadata mapping at frame; NULL if [frame, frame + count) is not inside the pool. */
void *mrs_pool_at(struct morsel_pool *pool, uint64_t frame, uint64_t count);
const struct mrs_super *mrs_pool_super(struct morsel_pool *pool);
struct mrs_state *mrs_pool_state(struct morsel_pool *pool);
struct mrs_slot *mrs_pool_slot(struct morsel_pool *pool, unsigned slot);
unsigned mrs_pool_own_slot(struct morsel_pool *pool);
bool mrs_pool_is_read_only(struct morsel_pool *pool);
const char *mrs_pool_path(struct morsel_pool *pool); /* for messages: a path or "memfd pool" */
/* First frame past what is online, and the allocator's handle. */
uint64_t mrs_pool_frames_end(struct morsel_pool *pool);
struct morsel_frames *mrs_pool_frames(struct morsel_pool *pool);

/* ---- liveness (slot.c) ---- */

/* Repairs what dead processes were in the middle of; from inside or outside a transition. */
void mrs_reap_repair(struct morsel_pool *pool);
/* Who is attached: changes when the slot's process detaches, dies and is reaped, or another attaches. */
uint64_t mrs_pool_slot_generation(struct morsel_pool *pool, unsigned slot);
/* Is a process attached there, dead or alive, that nobody has begun to reap? One load. */
bool mrs_pool_slot_is_attached(struct morsel_pool *pool, unsigned slot);
bool mrs_pool_slot_is_alive(struct morsel_pool *pool, unsigned slot);
/*
 * After -ENOSPC, outside any transition: cleans up after dead processes. True if there was one, so
 * that trying once more may succeed. (A failing get repairs dead processes' transitions by itself;
 * what their open morsels held comes back only here, for that takes transitions of one's own.)
 */
bool mrs_pool_relieve(struct morsel_pool *pool);
/* Calls fn for every slot that is attached (alive or not yet reaped), own slot included. */
void mrs_pool_each_slot(struct morsel_pool *pool,
			void (*fn)(void *ctx, unsigned slot, struct mrs_slot *shared), void *ctx);

/*
 * Waits for a lock word that another intent holds (a record's lock): spins a little, then sleeps on
 * the futex for at most 20 ms a time, and reaps the owner if it is dead. Returns when *word no longer
 * is value.
 */
void mrs_pool_wait_word(struct morsel_pool *pool, uint64_t *word, uint64_t value);
void mrs_pool_wake_word(uint64_t *word);

/* Process-private: open morsels and views of this handle, so that close can refuse. */
void mrs_pool_hold(struct morsel_pool *pool);
void mrs_pool_drop(struct morsel_pool *pool);

/* Memory of this handle for the object room, zeroed at open: MRS_POOL_ROOM_BYTES, 8-byte aligned. */
#define MRS_POOL_ROOM_BYTES 512
void *mrs_pool_room(struct morsel_pool *pool);

/* ---- parts: what the rooms above keep for one handle (part.c) ---- */

/*
 * Each is made when it is first needed, at most once, and ended when the handle is closed, when no
 * morsel or view of it is open any more: the last of this list first.
 */
enum mrs_pool_part_index {
	MRS_PART_REGISTRY, /* view/registry.c */
	MRS_PART_SWAP,	   /* swap/ */
	MRS_PART_BRING,	   /* object/bring.c */
	MRS_PART_FAULTS,   /* view/uffd.c */
	MRS_PART_PAGER,	   /* view/pager.c */
	MRS_PART_SERVICE,  /* view/mailbox.c */
	MRS_PARTS,
};
/* The head of a room's own struct. */
struct mrs_part {
	struct morsel_pool *pool;
	/* Ends threads, closes, frees; cannot fail. The handle no longer names the part. */
	void (*stop)(struct mrs_part *part);
	/* May be NULL: in a child of fork, which has no threads of it: closes its descriptors. Only
	 * async-signal-safe functions; nothing is freed. */
	void (*in_child)(struct mrs_part *part);
};
/* NULL if it was not made yet. One load. */
struct mrs_part *mrs_pool_part(struct morsel_pool *pool, enum mrs_pool_part_index which);
/*
 * The part, made by make() where it is missing; one thread of a handle at a
 * time is in a make(), which sets *part on success and may make other parts. Errors are make()'s, or -ECHILD.
 */
int mrs_pool_part_make(struct morsel_pool *pool, enum mrs_pool_part_index which,
		       int (*make)(struct morsel_pool *pool, struct mrs_part **part),
		       struct mrs_part **part);
/*
 * No fork between the two: for opening a descriptor and noting it where in_child() finds it. Short, and
 * nothing in between waits.
 */
void mrs_fork_hold(void);
void mrs_fork_release(void);

/*
 * One OFD lock of the file (MRS_LOCK_SETUP, MRS_LOCK_IMPORT + n), taken on a description of its own,
 * waiting; returns a descriptor for mrs_pool_unlock_byte(), or -errno. A death releases it, also one
 * that leaves a child of fork behind: a plain close() would not keep that promise.
 */
int mrs_pool_lock_byte(struct morsel_pool *pool, uint64_t byte);
/* Without waiting: -EAGAIN, without words, if somebody has it. */
int mrs_pool_try_lock_byte(struct morsel_pool *pool, uint64_t byte);
void mrs_pool_unlock_byte(int fd);

/* 0; -ECHILD in words after fork; with write -EROFS in words on a read-only handle. */
int mrs_pool_usable(struct morsel_pool *pool, bool write);
/* Was the handle opened with MORSEL_POOL_NO_DUMP? */
bool mrs_pool_is_no_dump(struct morsel_pool *pool);
/* enum morsel_faults, as the handle was opened with. */
unsigned mrs_pool_faults(struct morsel_pool *pool);

/* ---- repair: what the rooms above know and the reaper needs ---- */

/* Pages that are resident. */
struct mrs_pool_stays {
	uint64_t pinned;    /* of morsels that could be evicted, held by grants */
	uint64_t evictable; /* of the same, not held */
};

struct mrs_repair_ops {
	/*
	 * Called with the gate closed, for each intent of a dead slot whose op is not NONE: finishes
	 * or undoes it, using txn (the dead slot's own intent and local, lent to the reaper). False:
	 * not yet, a living process has something to do first; asked again with the gate closed.
	 */
	bool (*intent)(struct mrs_txn *txn);
	/* Is any of these frames reachable from directory, records or tables? Gate closed. */
	bool (*referenced)(struct morsel_pool *pool, uint64_t frame, uint64_t count);
	/* A dead slot's open morsels: forget them, free what nobody uses any more. Gate open. */
	void (*drop_open)(struct morsel_pool *pool, unsigned slot);
	/* May be NULL: has frames evicted until so many more fit below the budget; waits at most ns,
	 * parked if inside a transition. 0, or -ENOSPC without words. */
	int (*make_room)(struct morsel_pool *pool, uint64_t frames, int64_t ns);
	/* May be NULL: what is resident, and why it stays, for words. */
	void (*stays)(struct morsel_pool *pool, struct mrs_pool_stays *stays);
	/* Full walk for morsel_pool_check(): calls owned() for every frame range in use above the pool
	 * room, and report() for each finding. Gate closed. */
	void (*walk)(struct morsel_pool *pool,
		     void (*owned)(void *ctx, uint64_t frame, uint64_t count, const char *by),
		     morsel_report_fn report, void *ctx);
};
extern const struct mrs_repair_ops mrs_object_repair; /* defined by the object room */

#endif
