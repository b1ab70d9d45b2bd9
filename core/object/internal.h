/*
 * What the files of the object room ask of each other and of nobody else.
 *
 * Ownership of a record, the one rule behind everything here: a record that no linked dirent means
 * is named by an open entry of some slot. It is taken apart by whoever, holding the record's lock,
 * finds that no entry but his own names it. So a death never leaves a record that nobody would
 * free: the dead slot's entries are dropped by the reaper, one by one, in the same way as a living
 * process closes.
 *
 *	NEW -----------> LIVE <---------> UNLINKED --------> FREEING -> (cell is free)
 *	  \   dirent linked   unlinked,      ^    nobody else   |
 *	   \                  published      |    has it open   |
 *	    +------------------------------->+<-----------------+
 *	      given up                          somebody has
 *
 * A record is named by its handle (index and generation) everywhere; a pointer to it is good as
 * long as an open entry of one's own names it.
 */
#ifndef MRS_OBJECT_INTERNAL_H
#define MRS_OBJECT_INTERNAL_H

#include "base/atomic.h"
#include "base/base.h"
#include "base/probe.h"
#include "object/object.h"

/* ---- the record's words (record.c) ---- */

#define MRS_RECORD_STATE_MASK	 0xffull
#define MRS_RECORD_FLAGS_SHIFT	 8
#define MRS_RECORD_PAGES_SHIFT	 40
#define MRS_RECORD_SEALED	 (1ull << 44)
#define MRS_RECORD_THIN		 (1ull << 45) /* pages with frames may lack memory: advise FREE */
#define MRS_RECORD_VERSION_SHIFT 32	      /* in format */

static inline enum mrs_record_state mrs_state_of(uint64_t word)
{
	return (enum mrs_record_state)(word & MRS_RECORD_STATE_MASK);
}

static inline uint32_t mrs_flags_of(uint64_t word)
{
	return (uint32_t)(word >> MRS_RECORD_FLAGS_SHIFT);
}

static inline enum morsel_pages mrs_pages_of(uint64_t word)
{
	return (enum morsel_pages)(word >> MRS_RECORD_PAGES_SHIFT & 15);
}

static inline uint64_t mrs_state_word(enum mrs_record_state state, uint32_t flags, uint32_t pages)
{
	return (uint64_t)state | (uint64_t)flags << MRS_RECORD_FLAGS_SHIFT |
	       (uint64_t)pages << MRS_RECORD_PAGES_SHIFT;
}

static inline uint64_t mrs_pages_in(uint64_t bytes)
{
	return (bytes >> MRS_PAGE_SHIFT) + !!(bytes & (MRS_PAGE_BYTES - 1));
}

/* Changes the state from one of the states in from (1 << state) to to; false if it is another. */
bool mrs_record_move(struct mrs_cell_record *record, unsigned from, enum mrs_record_state to);
/* Sets or clears bits of the state word. */
void mrs_record_set(struct mrs_cell_record *record, uint64_t bits);
void mrs_record_clear(struct mrs_cell_record *record, uint64_t bits);
/* Copies the record; false if the handle is stale. */
bool mrs_record_copy(struct morsel_pool *pool, mrs_cell cell, struct mrs_cell_record *copy);
/* What is wrong with a record that somebody may have damaged, or NULL. */
const char *mrs_record_problem(struct morsel_pool *pool, const struct mrs_cell_record *record);
/* Granularity of the allocation in 4 KiB pages: that of the policy, or the pool's block. */
uint64_t mrs_record_granule(struct morsel_pool *pool, uint64_t state_word);

/*
 * Begins a transition and takes the record's lock in it; intent->cell[which] names the record
 * before. The lock protects bytes, seal, dirent and state; it follows nothing and nothing follows
 * it but a second record's lock by mrs_record_try_lock(). The caller's open entry keeps the record
 * there. mrs_record_unlock() ends both.
 */
int mrs_record_lock(struct morsel *morsel, enum mrs_intent_op op, unsigned which,
		    struct mrs_txn *txn);
/* A second lock in the same transition: false if somebody else has it; the caller then backs out.
 */
bool mrs_record_try_lock(struct morsel *morsel, unsigned which, struct mrs_txn *txn);
void mrs_record_release(struct mrs_txn *txn, struct mrs_cell_record *record);
void mrs_record_unlock(struct morsel *morsel, struct mrs_txn *txn);
static inline bool mrs_record_locked_by(const struct mrs_txn *txn, struct mrs_cell_record *record)
{
	return mrs_load_acquire(&record->lock) == txn->index + 1;
}

/* ---- open entries (user.c) ---- */

#define MRS_OPEN_RESERVED \
	UINT64_MAX /* an entry that will name a record soon; no handle has this value */

/* An entry of this process's slot with record as its word. Outside any transition. */
int mrs_open_claim(struct morsel_pool *pool, uint64_t record, struct mrs_open **entry);
void mrs_open_release(struct mrs_open *entry);
/* Calls fn for every entry in use of a slot. */
void mrs_open_each(struct morsel_pool *pool, struct mrs_slot *slot,
		   void (*fn)(void *ctx, struct mrs_open *entry), void *ctx);
/* Frees a slot's OPEN cells: all entries are free, and the slot's process is this one or dead. */
void mrs_open_chain_free(struct morsel_pool *pool, unsigned slot);
/* After a death between claiming an OPEN cell and chaining it, or the reverse. Gate closed. */
void mrs_open_chain_repair(struct mrs_txn *txn);

struct mrs_users {
	uint64_t users;	   /* open handles, the excepted one not counted */
	uint64_t end_page; /* of the furthest view of any of them */
	uint64_t held_page; /* the same, of those among whose views one is no view: see publish */
	bool writable;	   /* one of their views is */
};
/* Looks at every slot; except may be NULL. A full fence before it is the caller's. */
void mrs_users_scan(struct morsel_pool *pool, mrs_cell cell, const struct mrs_open *except,
		    struct mrs_users *users);

/* ---- handles (open.c) ---- */

/* Fills a handle without an entry, for looking or repairing. False if the record is gone. */
bool mrs_handle_init(struct morsel *morsel, struct morsel_pool *pool, mrs_cell cell);
/* A handle with an entry. -EAGAIN without words if the record has lost its name: look again. */
int mrs_handle_open(struct morsel_pool *pool, mrs_cell cell, struct morsel **morsel);
/* The same for the pool's own work, which ends before the pool closes: its owner may close meanwhile. */
int mrs_handle_open_aside(struct morsel_pool *pool, mrs_cell cell, struct morsel **morsel);
/* Ends the use of *morsel, whose entry may be a dead slot's; frees the record if it was the last.
 */
void mrs_handle_leave(struct morsel *morsel);
/* A new record without a name, of bytes, and a handle on it; allocated and backed unless lazy. */
int mrs_handle_create(struct morsel_pool *pool, const struct morsel_opts *opts, uint64_t bytes,
		      struct morsel **morsel);
/* Gives it the name: -EEXIST without words if the name is taken. */
int mrs_handle_link(struct morsel *morsel, const char *name);
/* Opens what name means: -ENOENT without words. */
int mrs_open_named(struct morsel_pool *pool, const char *name, struct morsel **morsel,
		   mrs_cell *dirent);
int mrs_check_writable(struct morsel_pool *pool, const char *what);
/* Reads and checks the options of open and import. */
int mrs_morsel_opts(const struct morsel_opts *given, struct morsel_opts *opts);

/* ---- frames of a record (place.c, fill.c) ---- */

/*
 * Allocates and links pages [first, end) of a record: of one that nobody else sees yet, or beyond
 * its end under its lock. On failure what was linked stays: the caller trims.
 */
int mrs_place(struct morsel *morsel, struct mrs_txn *txn, uint64_t first, uint64_t end);
/*
 * The same for one leaf of this order, at *hint if that frame is free; *hint becomes the frame after it.
 */
int mrs_place_leaf(struct morsel *morsel, struct mrs_txn *txn, uint64_t page, unsigned order,
		   uint64_t *hint);
/* A run becomes a table, as retargeting it needs; of a record as in mrs_place(). */
int mrs_place_shape(struct morsel *morsel, struct mrs_txn *txn);
/*
 * Puts memory behind the frames of [first, end), which are new; those of a morsel that can be evicted
 * may do without where the budget has no room.
 */
int mrs_fill_new(struct morsel *morsel, struct mrs_txn *txn, uint64_t first, uint64_t end);
/* Puts memory behind the frames of [first, end). */
int mrs_place_back(struct morsel *morsel, struct mrs_txn *txn, uint64_t first, uint64_t end);
/* Gives everything at and beyond page back; backed tells whether memory may be behind it. */
void mrs_place_trim(struct morsel *morsel, struct mrs_txn *txn, uint64_t page, bool backed);
/* Forgets what is kept of frames that are about to go: slots on swap targets, tables for splits. */
void mrs_place_forget(struct mrs_txn *txn, uint64_t frame, unsigned order);
/* The table that was kept for the split of a huge leaf; nothing is being put. */
void mrs_place_drop_deposit(struct mrs_txn *txn, uint64_t frame);
/* Can these frames be had, at this moment? */
bool mrs_place_is_free(struct morsel_pool *pool, uint64_t frame, unsigned order);
/* Gives one block back that was got and not linked. */
void mrs_place_unget(struct mrs_txn *txn, unsigned order, uint64_t frame, bool backed);
/* Counts what is linked anew, after a death. */
void mrs_place_recount(struct morsel *morsel);
extern const struct mrs_table_ops mrs_object_table_ops; /* ctx: the pool */

/* ---- leaves (retarget.c, retarget_repair.c) ---- */

/* Stores an entry of whose lock the caller disposes, and wakes who waits for it. */
void mrs_entry_put(struct morsel_pool *pool, uint64_t *place, uint64_t entry);
/* Gate closed: what a dead RETARGET left. */
void mrs_retarget_repair(struct mrs_txn *txn);

/* ---- coherence (coherence.c) ---- */

/* Gives the COHERENCE cell back, with the record, whose lock is held. */
void mrs_coherence_drop(struct morsel *morsel);

/* ---- content (content.c) ---- */

/*
 * Calls fn for the memory of [offset, offset + bytes), in order, in pieces of at most limit bytes;
 * memory NULL is a hole, which reads as zero; fn may write. The caller keeps the range there, and is
 * outside any transition: pages that come and go are viewed, pinned and filled for it.
 */
int mrs_content_each(struct morsel *morsel, uint64_t offset, uint64_t bytes, uint64_t limit,
		     int (*fn)(void *ctx, uint64_t offset, void *memory, uint64_t bytes),
		     void *ctx);
/* The same, but pages whose memory was given back (MORSEL_ADVICE_FREE) are holes as well. */
int mrs_content_look(struct morsel *morsel, uint64_t offset, uint64_t bytes, uint64_t limit,
		     int (*fn)(void *ctx, uint64_t offset, void *memory, uint64_t bytes),
		     void *ctx);
/* Is the morsel evictable, or of a family? Then its pages are reached through views only. */
bool mrs_content_comes_and_goes(const struct morsel *morsel);
/* Zeroes what exists of it. Fails only where pages come and go (content.c). */
int mrs_content_zero(struct morsel *morsel, uint64_t offset, uint64_t bytes);
/* Makes what exists of it resident, where pages come and go; 1 as soon as *stop (may be NULL) is set. */
int mrs_content_bring(struct morsel *morsel, uint64_t offset, uint64_t bytes, const uint32_t *stop);
/* Copies from it, holes as zeros. */
int mrs_content_read(struct morsel *morsel, uint64_t offset, void *buffer, uint64_t bytes);

/* The packed tensor table, or NULL: *bytes of it, whose content is not trusted. */
const void *mrs_morsel_packed(struct morsel *morsel, uint64_t *bytes);

/* ---- steps of intents (mrs_intent.step), for repair.c ---- */

enum mrs_resize_step {
	MRS_RESIZE_SIZING =
		0, /* growing; or shrinking and the views have not been looked at: undone */
	MRS_RESIZE_CUTTING = 1, /* no view reaches beyond the new end: finished */
	MRS_RESIZE_SEALING = 2, /* sealed, and the views have not been looked at: undone */
	MRS_RESIZE_SHAPING = 3, /* the same pages in another shape: nothing to do but unlock */
};

/* For its repair, gate closed: the size that it was; what its views have let go of, they have. */
void mrs_resize_undo(struct morsel *morsel, struct mrs_txn *txn);
/* For the reaper, gate open: views of what a dead slot's repair undid take back what they let go of. */
void mrs_resize_restore_views(struct morsel_pool *pool, unsigned slot);
/*
 * Before a growth, outside any transition: what lies beyond the end in memory that is there becomes zero,
 * where pages come and go. Good as long as the size is *bytes.
 */
int mrs_tail_zero(struct morsel *morsel, uint64_t *bytes);
/* Shared by resize and its repair: trims beyond bytes and zeroes what stays beyond it. */
void mrs_resize_cut(struct morsel *morsel, struct mrs_txn *txn);
/* Shared by publish and its repair: everything after the instant. */
void mrs_publish_finish(struct mrs_cells *cells, const mrs_cell cell[4]);
/* ---- check.c: the walks behind mrs_object_repair ---- */
/* check_coherence.c: the part about pages that come and go. */
void mrs_check_coherence(struct morsel_pool *pool, morsel_report_fn report, void *ctx);
bool mrs_check_referenced(struct morsel_pool *pool, uint64_t frame, uint64_t count);
void mrs_check_walk(struct morsel_pool *pool,
		    void (*owned)(void *ctx, uint64_t frame, uint64_t count, const char *by),
		    morsel_report_fn report, void *ctx);

/* Shared by rename and its repair. */
void mrs_rename_finish(struct mrs_cells *cells, const mrs_cell cell[4]);

#endif
