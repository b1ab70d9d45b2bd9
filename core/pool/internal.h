/*
 * The pool room, seen from inside: the handle, and what its files offer each other.
 *
 * A handle has two descriptors of the file. fd is for mapping, reserving and giving away; lock_fd
 * is a description of its own, never mapped and never given away, because the slot's lock lives as
 * long as the description does: whoever held a copy would keep a dead process alive.
 */
#ifndef MRS_POOL_INTERNAL_H
#define MRS_POOL_INTERNAL_H

#include <pthread.h>
#include <sys/stat.h>

#include "base/base.h"
#include "pool/pool.h"

#define MRS_LOCALS	      (MRS_SLOTS * MRS_INTENTS_PER_SLOT)
#define MRS_SLOT_NONE	      UINT32_MAX
#define MRS_GROW_BYTES	      ((uint64_t)64 << 20)
#define MRS_DEFAULT_BYTES     ((uint64_t)1 << 30)
#define MRS_DEFAULT_BYTES_MAX ((uint64_t)1 << 40)
/* Allocator metadata gets memory for so many frames at a time: 64 GiB of number space, 2 MiB. */
#define MRS_ONLINE_STEP ((uint64_t)1 << 24)

/* What may still be reserved, as measured a moment ago: see limits.c. */
struct mrs_headroom {
	pthread_mutex_t lock; /* protects the rest; nothing follows it */
	int64_t measured_ns;
	uint64_t bytes;	 /* left at that time, less what was asked for since */
	uint64_t left;	 /* as measured */
	char limit[192]; /* in words: which limit it is */
};

struct morsel_pool {
	int fd;
	int lock_fd; /* -1 on a read-only handle */
	bool read_only;
	bool no_dump;
	uint32_t dead; /* 1 in a child of fork: the handle is only good for closing */
	uint32_t kind;
	char *path;
	unsigned char *map;
	size_t map_bytes;
	struct mrs_super super;	    /* checked copy; changes under super_lock */
	pthread_mutex_t super_lock; /* protects super; follows nothing but the file's SETUP lock */
	uint64_t frames_end;	    /* end of the last extent, atomic */
	uint64_t super_sequence;    /* of super, atomic */
	struct morsel_frames frames;
	unsigned slot;		  /* MRS_SLOT_NONE without one */
	uint64_t slot_word;	  /* as attached */
	uint32_t txn_busy;	  /* bit per intent; a futex for who waits until one is free */
	uint32_t txn_sleepers;
	pthread_mutex_t reap_lock; /* one reaper of a process at a time; the gate follows it */
	uint32_t gate_mine;	   /* atomic; changes under reap_lock */
	uint64_t reaping[MRS_SLOTS / 64]; /* slots a thread of ours is at; under reap_lock */
	/* Words of state.properties that are known to name frames of the pool; atomic. */
	uint64_t properties_checked;
	uint64_t counts_checked[5];
	uint64_t holds;
	struct mrs_headroom headroom;
	struct morsel_pool *next; /* list of all handles, for fork */
	uint64_t room[MRS_POOL_ROOM_BYTES / 8];
	uint32_t faults;	   /* enum morsel_faults */
	pthread_mutex_t part_lock; /* recursive: who makes a part; fork.c's and the rooms' own follow */
	uint64_t part[MRS_PARTS];  /* struct mrs_part *, atomic */
};

/* ---- layout.c: geometry and superblocks ---- */

/* Fills the geometry for so many frames of data; -EINVAL in words if it cannot be. */
int mrs_layout_make(struct mrs_super *super, uint64_t bytes, uint64_t bytes_max);
/* 0, or why this copy of a superblock cannot be used, in words. */
int mrs_super_check(const struct mrs_super *super, const char *path, bool read_only);
/* Reads both copies, picks the newest that is right, compares with the file's size. */
int mrs_super_read(int fd, const char *path, bool read_only, struct mrs_super *super);
/* Does either copy begin like a superblock, damaged or not? */
bool mrs_super_has_magic(int fd);
/* Writes super with the next sequence number over the older copy. Under the SETUP lock. */
void mrs_super_write(struct morsel_pool *pool, struct mrs_super *super);
/* Writes a copy anew that a death (or damage) has left half written; the other one is the truth. */
void mrs_super_mend(struct morsel_pool *pool);
/* Takes over what another process has added since; cheap if nothing. */
void mrs_super_refresh(struct morsel_pool *pool);
uint64_t mrs_super_frames_end(const struct mrs_super *super);

/* ---- file.c: descriptors, kinds, the mapping ---- */

/* A new description of fd's file; path (may be NULL) is for when /proc is missing, and for words.
 */
int mrs_file_reopen(int fd, const char *path, int flags);
/* enum morsel_pool_kind of the file system behind fd, MORSEL_POOL_MEMFD never; or -errno. */
int mrs_file_kind(int fd);
/* Maps capacity bytes of fd, aligned to 1 GiB (to 2 MiB if it is smaller). */
int mrs_file_map(struct morsel_pool *pool, size_t bytes);
void mrs_file_unmap(struct morsel_pool *pool);
int mrs_file_prefer_node(struct morsel_pool *pool, uint64_t frame, uint64_t count,
			 uint32_t node_plus_1);
/* Makes the file so long; -EFBIG where the kernel would answer with SIGXFSZ. */
int mrs_file_set_size(struct morsel_pool *pool, uint64_t bytes);
/* Memory for metadata bytes [offset, offset + bytes); -ENOSPC in words. */
int mrs_file_reserve(struct morsel_pool *pool, uint64_t offset, uint64_t bytes, const char *what);
const char *mrs_kind_text(uint32_t kind);

/* ---- create.c ---- */

struct mrs_create {
	uint64_t bytes;
	uint64_t bytes_max;
	uint64_t budget_bytes;
	uint64_t low_bytes; /* watermarks */
	uint64_t high_bytes;
	uint32_t node_plus_1;
	bool no_huge;
};

/* Writes a new pool into the empty file of pool->fd. */
int mrs_pool_format(struct morsel_pool *pool, const struct mrs_create *create);

/* ---- budget.c ---- */

/* Bytes; 0 is the default. -EINVAL in words. */
int mrs_pool_check_watermarks(uint64_t budget, uint64_t low, uint64_t high);

/* ---- slot.c ---- */

int mrs_slot_attach(struct morsel_pool *pool);
void mrs_slot_detach(struct morsel_pool *pool);
uint64_t *mrs_slot_word(struct morsel_pool *pool, unsigned slot);
bool mrs_slot_lock(struct morsel_pool *pool, unsigned slot);
void mrs_slot_unlock(struct morsel_pool *pool, unsigned slot);
int mrs_slot_prepare(struct morsel_pool *pool, unsigned slot);

/* ---- part.c ---- */

void mrs_parts_init(struct morsel_pool *pool);
/* The parts of the rooms above, the last first. */
void mrs_parts_stop(struct morsel_pool *pool);
/* In a child of fork. */
void mrs_parts_in_child(struct morsel_pool *pool);

/* ---- fork.c: what a child must let go of ---- */

/* Lists the handle and gives it its description for locks, unless it is read-only. */
int mrs_handles_add(struct morsel_pool *pool);
/* Does nothing if it is not listed. */
void mrs_handles_remove(struct morsel_pool *pool);
/* A description of its own for one lock, which a child closes; ended by mrs_pool_unlock_byte(). */
int mrs_lock_fd_open(struct morsel_pool *pool);

/* ---- gate.c ---- */

/* -ETIMEDOUT in words if a living process keeps it closed and stands still; patient waits on. */
int mrs_gate_enter(struct morsel_pool *pool, bool patient);
void mrs_gate_leave(struct morsel_pool *pool);
/* -ETIMEDOUT in words if a live process stays inside a transition. Under reap_lock. */
int mrs_gate_close(struct morsel_pool *pool);
void mrs_gate_open(struct morsel_pool *pool);
/* Waits until it is open, with the same time-out; who comes first may close it again. */
int mrs_gate_await(struct morsel_pool *pool);
/* The closer says, at least once in a few seconds, that it is at work. */
void mrs_gate_beat(struct morsel_pool *pool);
bool mrs_gate_is_stuck(struct morsel_pool *pool);

/* ---- txn.c ---- */

/* True between the two on a thread that repairs: its gets do not reap, its reservations not park.
 */
void mrs_txn_repairing(bool on);
bool mrs_txn_inside(struct morsel_pool *pool);

/* ---- reap.c ---- */

/*
 * Cleans up after all dead processes; not from inside a transition. Returns how many there were.
 * -ETIMEDOUT if a living process is in the way; without words if that was found out a moment ago.
 */
int mrs_reap_all(struct morsel_pool *pool);
/* The slot whose lock this process has and which it is going to use itself. */
int mrs_reap_own(struct morsel_pool *pool, unsigned slot);
/* Does a pending record or half-made put of any slot but except name one of these frames? */
bool mrs_reap_is_named(struct morsel_pool *pool, uint64_t frame, uint64_t count, unsigned except);

/* ---- grow.c ---- */

/* Brings more of the number space online. 1 if it did, 0 if there is no more, or -errno. */
int mrs_pool_online_more(struct morsel_pool *pool);
/* The SETUP lock, waiting up to some seconds; as mrs_pool_lock_byte(). */
int mrs_setup_lock(struct morsel_pool *pool);

/* ---- limits.c ---- */

/* -ENOSPC in words if memory cgroup or machine could not give so many bytes of memory now. */
int mrs_headroom_check(struct morsel_pool *pool, uint64_t bytes);

#define MRS_PUTTING_ORDER_SHIFT 48
static inline uint64_t mrs_putting(uint64_t frame, unsigned order)
{
	return (frame + 1) | (uint64_t)order << MRS_PUTTING_ORDER_SHIFT;
}
static inline uint64_t mrs_putting_frame(uint64_t putting)
{
	return (putting & (((uint64_t)1 << MRS_PUTTING_ORDER_SHIFT) - 1)) - 1;
}
static inline unsigned mrs_putting_order(uint64_t putting)
{
	return (unsigned)(putting >> MRS_PUTTING_ORDER_SHIFT);
}

int64_t mrs_now_ns(void);
void mrs_sleep_ns(int64_t ns);

#endif
