/*
 * The pool's format: everything that is stored in a pool's file and read by another process, another
 * boot or another version. Nothing here is a pointer; frames count from the start of the file.
 *
 *   frame 0        superblock, copy A      } the newest copy whose checksum is right wins;
 *   frame 1        superblock, copy B      } a change writes the older one
 *   frame 2        state: gate, counters, limits (changes all the time, no checksum)
 *   frame 3        slot words: 512 x 8 bytes
 *   frame 4        slots: 512 x one frame (touched only when used)
 *   frame 516      directory root: 4096 trie words
 *   frame 524      cell segments: 4096 frame numbers
 *   frame 532      allocator metadata for the largest size, in the layout of <morsel/frame.h>
 *   ...            data, from a 2 MiB boundary
 *
 * A change of anything here changes MRS_FORMAT_VERSION or sets a feature bit:
 *   compatible           an older library may ignore it
 *   read-only compatible an older library may look, not write
 *   incompatible         an older library must refuse
 */
#ifndef MRS_POOL_FORMAT_H
#define MRS_POOL_FORMAT_H

#include <stdint.h>

#define MRS_FORMAT_MAGIC     0x4c4553524f4d0a00ull /* the bytes 00 0a "MORSEL" */
#define MRS_FORMAT_VERSION   1
#define MRS_FORMAT_BYTE_ORDER 0x01020304u

/*
 * Set in a pool when it first holds what they name, and never cleared: a library that does not know
 * the bit must not touch such a pool.
 *   COHERENT  evicted pages, shared (copy-on-write) subtrees, properties of frames, quarantine
 */
#define MRS_FEATURE_INCOMPAT_COHERENT (1ull << 0)

#define MRS_FEATURE_COMPAT_KNOWN    0ull
#define MRS_FEATURE_RO_COMPAT_KNOWN 0ull
#define MRS_FEATURE_INCOMPAT_KNOWN  MRS_FEATURE_INCOMPAT_COHERENT

/* How processes that are attached at once talk to each other; all must agree. 2: mailboxes. */
#define MRS_PROTOCOL_VERSION 2

#define MRS_EXTENTS_MAX	      60
#define MRS_SLOTS	      512
#define MRS_INTENTS_PER_SLOT  4
#define MRS_OPEN_INLINE	      156 /* open handles that a slot holds without a further cell */
#define MRS_DIR_ROOT_WORDS    4096
#define MRS_CELL_SEGMENTS_MAX 4096

#define MRS_FRAME_SUPER_A  0
#define MRS_FRAME_SUPER_B  1
#define MRS_FRAME_STATE	   2
#define MRS_FRAME_SLOTWORD 3
#define MRS_FRAME_SLOTS	   4
#define MRS_FRAME_DIR	   (MRS_FRAME_SLOTS + MRS_SLOTS)
#define MRS_FRAME_SEGMENTS (MRS_FRAME_DIR + 8)
#define MRS_FRAME_ALLOC	   (MRS_FRAME_SEGMENTS + 8)

enum mrs_extent_kind { /* = enum morsel_pool_kind; 5 DAX and 6 module are reserved */
	MRS_EXTENT_NONE = 0,
};

/* A range of frame numbers with one kind of memory behind it. 64 bytes. */
struct mrs_extent {
	uint64_t first;	      /* frame number */
	uint64_t count;	      /* frames; 0: the record is unused */
	uint64_t file_offset; /* bytes; extent 0: equal to first * 4096 */
	uint32_t kind;
	uint32_t file;	      /* which file: 0 is the pool's own, the only one in version 1 */
	uint32_t node_plus_1; /* NUMA node plus 1, 0 no preference */
	uint32_t flags;
	uint64_t reserved[3];
};

/* Events, counted with relaxed atomics in mrs_state.count. New ones at the end. */
enum mrs_counter {
	MRS_COUNT_FAULTS,	   /* missing pages brought in at a touch */
	MRS_COUNT_FAULTS_WRITE,	   /* protections lifted at a write */
	MRS_COUNT_FAULTS_PEER,	   /* found resident: somebody else had been quicker */
	MRS_COUNT_PAGES_IN,
	MRS_COUNT_PAGES_OUT,	   /* evicted */
	MRS_COUNT_PAGES_OUT_CLEAN, /* of them, without writing anything */
	MRS_COUNT_PAGES_ZERO,	   /* of them, same-filled */
	MRS_COUNT_READ_AHEAD,	   /* pages brought in before they were asked for */
	MRS_COUNT_SHOOTDOWNS,	   /* rounds of invalidation across processes */
	MRS_COUNT_SHOOTDOWN_NS,	   /* time in them */
	MRS_COUNT_SHOOTDOWN_TIMEOUTS,
	MRS_COUNT_RETARGET_ABORTS, /* given up before the first destructive step */
	MRS_COUNT_PINNED,	   /* of them, because of a grant or pin */
	MRS_COUNT_QUARANTINED,	   /* frames put in quarantine */
	MRS_COUNT_QUARANTINE_FREED,
	MRS_COUNT_POISONED,
	MRS_COUNT_CLONES,
	MRS_COUNT_COW_BREAKS,
	MRS_COUNT_COW_TABLES,
	MRS_COUNT_PROMOTIONS,
	MRS_COUNT_PROMOTIONS_MOVED,
	MRS_COUNT_SPLITS,
	MRS_COUNT_PAGES_MOVED,
	MRS_COUNT_HUGE_GAINED,
	MRS_COUNT_SECOND_CHANCE, /* candidates spared because they were touched */
	MRS_COUNT_OVER_BUDGET,	 /* faults that went over the budget because nothing could be evicted */
	MRS_COUNT_ELECTIONS,
	MRS_COUNT_ZEROED,
	MRS_COUNT_SWAP_ERRORS,
	MRS_COUNTERS = 64,
};

/* One frame. What never changes or changes rarely, under a checksum. */
struct mrs_super {
	uint64_t magic;
	uint32_t byte_order;
	uint32_t version;
	uint64_t sequence; /* of this copy; the higher valid one counts */
	uint64_t feature_compat;
	uint64_t feature_ro_compat;
	uint64_t feature_incompat;
	uint8_t uuid[16];
	uint64_t frames_max;	  /* capacity of the number space, metadata included */
	uint64_t frame_alloc;	  /* where the allocator's metadata begins */
	uint64_t alloc_bytes;	  /* its size for frames_max */
	uint64_t frame_data;	  /* first frame that the allocator hands out */
	uint32_t page_shift;	  /* 12 */
	uint32_t slots;		  /* MRS_SLOTS */
	uint32_t intents_per_slot; /* MRS_INTENTS_PER_SLOT */
	uint32_t segment_order;	  /* log2 frames of a cell segment */
	uint32_t extents;	  /* how many records are used */
	uint32_t kind;		  /* enum morsel_pool_kind of the pool */
	uint32_t no_huge;	  /* 1: never ask for huge folios */
	uint32_t hash_key_pad;
	uint64_t hash_key[2];	  /* key of the directory's hash (SipHash), random per pool */
	int64_t created_ns;
	uint64_t reserved[2];
	struct mrs_extent extent[MRS_EXTENTS_MAX];
	uint32_t reserved_end[21];
	uint32_t crc;		  /* CRC-32C of the bytes before it */
};
_Static_assert(sizeof(struct mrs_extent) == 64, "frozen");

/* One frame. Every word is read and written atomically. */
struct mrs_state {
	uint32_t protocol;	/* MRS_PROTOCOL_VERSION of those attached; set by the first */
	uint32_t gate;		/* 0 open; else slot + 1 of who repairs: see pool/gate.c */
	uint64_t gate_epoch;	/* how often the gate was closed; odd while it is */
	uint64_t budget_frames; /* most frames resident, 0 none */
	uint64_t next_id;	/* next morsel id; 0 is never used */
	uint64_t morsels;	/* named or still open */
	uint64_t reaped;
	uint64_t cells_high;	/* cells below this index have been used */
	uint64_t generation;	/* source of generations for cells: one per claim, low 31 bits */
	uint64_t online_end;	/* frames below have been brought online in the allocator */
	uint64_t super_sequence; /* of the newest superblock: who knows an older one reads again */
	uint64_t cells_free;	/* free cells below cells_high; a hint, counted anew when reaping */
	uint64_t cells_hint;	/* index of a cell that was freed lately */
	uint64_t reap_again_ns;	/* no reaper closes the gate before this CLOCK_MONOTONIC time; a hint */
	uint64_t gate_beat;	/* moved on by whoever has closed the gate and is at work */
	uint64_t registry;	/* moved on after every change of a VIEW cell */
	uint64_t pager;		/* 0 none; else slot + 1 of the elected pager, serial << 16 */
	uint64_t pager_secret[2]; /* what a process shows the pager that it calls on */
	uint64_t leaf_waiters;	/* threads that sleep for a leaf's lock: a hint whether to wake */
	uint64_t budget_low;	/* frames: the evictor stops below, and begins above high; 0 default */
	uint64_t budget_high;
	uint64_t properties[8]; /* roots of the table of frame properties: pool/property.h */
	uint64_t swap_table;	/* frame of the table of swap targets, 0 none: swap/swap.h */
	uint64_t swap_words[7];
	uint64_t evict_hand;	/* where the evictor's clock stands; a hint */
	uint64_t zeroed;	/* frames zeroed beforehand and not used yet */
	uint64_t count[MRS_COUNTERS]; /* events since creation, enum mrs_counter */
	uint64_t room_wanted;	/* frames that somebody waits for below the budget; a hint */
	uint32_t room_bell;	/* futex: moved on after room_wanted; the evictor sleeps on it */
	uint32_t room_done;	/* futex: moved on when the evictor has done what it could */
	uint64_t mail_serial;	/* source of serials for requests */
	uint64_t compressed;	/* frames of compressed memory: resident, beside the budget */
	uint64_t clone_epochs;	/* source of epochs for clones: view/registry.c */
	uint64_t reserved[498 - 30 - MRS_COUNTERS];
};

/*
 * A slot word: who is attached. 0 is free. Liveness is not here: it is the open-file-description
 * lock on byte MRS_LOCK_SLOT + index of the file, which the kernel drops at death.
 *   bits 0-1 state: 0 free, 1 claimed (attaching), 2 attached, 3 being reaped
 *   bit  2   being reaped: its transitions are repaired, the rest is still to do
 *   bits 8-63 generation
 */
#define MRS_SLOT_STATE_MASK 3ull
#define MRS_SLOT_REPAIRED   4ull
enum mrs_slot_state { MRS_SLOT_FREE, MRS_SLOT_CLAIMED, MRS_SLOT_ATTACHED, MRS_SLOT_REAPING };

/*
 * What one thread is in the middle of, so that its death can be repaired. Written before the first
 * step, cleared after the last. op 0 means none. Cells and frames are named before they are taken.
 */
enum mrs_intent_op {
	MRS_INTENT_NONE,
	MRS_INTENT_CREATE,  /* cell[0] record, cell[1] dirent; undone unless the dirent is linked */
	MRS_INTENT_RESIZE,  /* cell[0] record; arg[0] old, arg[1] new bytes: what lies beyond goes */
	MRS_INTENT_UNLINK,  /* cell[0] record, cell[1] dirent; finished */
	MRS_INTENT_RENAME,  /* cell[0] old dirent, cell[1] new dirent; finished if the new is linked */
	MRS_INTENT_PUBLISH, /* cell[0] record, cell[1] dirent, cell[2] former record; finished */
	MRS_INTENT_FREE,    /* cell[0] record that nobody uses: its frames go; finished */
	MRS_INTENT_BACK,    /* arg[0] frame, arg[1] count: memory being reserved */
	MRS_INTENT_SEGMENT, /* arg[0] segment being added to the cell array */
	MRS_INTENT_GROW,    /* arg[0] extent being added */
	MRS_INTENT_RETARGET, /* leaves of one leaf table: see object/retarget.h */
	MRS_INTENT_OTHER,   /* frames only: the allocator's pending record says it all */
	MRS_INTENT_CLONE,   /* cell[0] source record, cell[1] dirent, cell[2] clone; undone unless linked */
};

struct mrs_intent {
	uint32_t op;
	uint32_t step;	   /* how far it is; its meaning is the op's */
	uint64_t cell[4];  /* cell handles (index and generation), 0 none */
	uint64_t arg[4];
	uint64_t leaf;	   /* RETARGET: frame of the leaf table << 9 | index */
	uint64_t expected;    /* of breaks and splits: object/break.h */
	uint64_t destination; /* the same */
	uint64_t putting;  /* frames being given back: first + 1 | order << 48, 0 none */
	uint64_t serial;   /* of this transition in its slot; never 0 inside one */
	uint64_t page;	   /* RETARGET: page of the first leaf */
	uint64_t count;	   /* RETARGET: leaves */
};
_Static_assert(sizeof(struct mrs_intent) == 128, "frozen");

/*
 * One open handle of a process: the record's handle, 0 free, and how far the views of this handle
 * reach: bits 0-39 end page of the furthest (0 no view), bit 63 one of them is writable, bit 62 one of
 * them is no view but work under way, which cannot be told that the morsel ends before, bit 61 one of
 * them keeps the memory that was there when it was mapped, bit 60 one of them gives memory back.
 */
struct mrs_open {
	uint64_t record;
	uint64_t view;
};
#define MRS_OPEN_WRITABLE (1ull << 63)
#define MRS_OPEN_HELD	  (1ull << 62)
#define MRS_OPEN_PINS	  (1ull << 61)
#define MRS_OPEN_FREES	  (1ull << 60)
#define MRS_OPEN_END_MASK ((1ull << 40) - 1)
static inline uint64_t mrs_open_end(uint64_t view)
{
	return view & MRS_OPEN_END_MASK;
}

/*
 * Mail: how a process asks others to act, and knows that they have. One request per intent stands in
 * the asker's slot; its number goes into the inbox of everyone asked; each does as asked, then takes
 * its own bit out of waiting. Every word that the asked write names the request's serial, so that who
 * is late (he was stopped, or the asker's slot has another owner) changes nothing in a later request.
 * See view/mailbox.h.
 */
#define MRS_INBOX 16
struct mrs_request {
	uint32_t op;	  /* enum mrs_request_op */
	uint32_t serial;  /* drawn anew for each request, never 0 in one; 0 while it is written */
	uint64_t outcome; /* serial << 32 | slot << 16 | errno of the first that refused; 0 none did */
	uint64_t answer;  /* serial << 32 | what the asked found: bits, or a number */
	uint64_t record;  /* handle */
	uint64_t first;	  /* pages [first, first + count) of the morsel */
	uint64_t count;
	uint64_t arg;
	uint64_t waiting[MRS_SLOTS / 32]; /* serial << 32 | bit per slot that has not answered */
};
struct mrs_mail {
	uint64_t inbox[MRS_INBOX]; /* 0, or index of the asker's intent + 1 | serial << 32 */
	uint32_t doorbell;	   /* futex: moved on after a word was put into inbox */
	uint32_t answered;	   /* futex: moved on after the last bit of one of our requests went */
	uint32_t serving;	   /* 1 while the service thread runs */
	uint32_t flags;	   /* 1 while the pager has this process's descriptor, or it is the pager */
	uint64_t nonce[2];	   /* what the pager must know to be believed */
	struct mrs_request request[MRS_INTENTS_PER_SLOT];
};

/* One frame per slot. Written by its process; read by reapers and by morsel_info(). */
struct mrs_slot {
	uint32_t pid;	    /* for people only: another PID namespace sees another number */
	uint32_t library;   /* version, major << 16 | minor << 8 | patch */
	char program[32];   /* for people only */
	int64_t attached_ns;
	uint64_t active;    /* transitions under way: what the gate waits for */
	uint64_t reserving; /* frames of memory being reserved now, counted against the budget */
	uint64_t open_more; /* cell with further open entries, 0 none */
	uint64_t views;	    /* first VIEW cell, 0 none */
	uint64_t pins;	    /* pins in use in all of them: a hint whether to look */
	uint64_t reserved[5];
	struct mrs_intent intent[MRS_INTENTS_PER_SLOT];
	struct mrs_open open[MRS_OPEN_INLINE];
	struct mrs_mail mail;
	uint8_t tail[4096 - 128 - 128 * MRS_INTENTS_PER_SLOT - 16 * MRS_OPEN_INLINE -
		     sizeof(struct mrs_mail)];
};
_Static_assert(sizeof(struct mrs_super) == 4096, "one frame");
_Static_assert(sizeof(struct mrs_state) <= 4096, "one frame");
_Static_assert(sizeof(struct mrs_slot) == 4096, "one frame");

/* Bytes of the pool's file that carry open-file-description locks; far beyond any content. */
#define MRS_LOCK_SLOT  (1ull << 62)	     /* + slot index: held while attached */
#define MRS_LOCK_SETUP ((1ull << 62) + 4096) /* held while a pool is created, grown or resized */
#define MRS_LOCK_IMPORT ((1ull << 62) + 8192) /* + name hash % 4096: held while a name is imported */
#define MRS_LOCK_PAGER	((1ull << 62) + 16384) /* held by the pager */

/*
 * The 64-bit entry of the canonical page table.
 *   bits  0-39 frame     data frame or frame of the next table; its meaning is the state's
 *   bits 40-41 level     of a leaf: 0 4 KiB, 1 2 MiB, 2 1 GiB; of a table entry: level it stands on
 *   bits 42-45 state     enum mrs_entry_state
 *   bit  46    dirty     written since it was last saved
 *   bit  47    shared    the frame has further owners (copy-on-write)
 *   bits 48-59 lock      0 unlocked, else index of the intent that holds it, plus 1
 *   bits 60-63 reserved  0
 */
#define MRS_ENTRY_FRAME_MASK ((1ull << 40) - 1)
#define MRS_ENTRY_LEVEL_SHIFT 40
#define MRS_ENTRY_STATE_SHIFT 42
#define MRS_ENTRY_DIRTY	      (1ull << 46)
#define MRS_ENTRY_SHARED      (1ull << 47)
#define MRS_ENTRY_LOCK_SHIFT  48
#define MRS_ENTRY_LOCK_MASK   (0xfffull << MRS_ENTRY_LOCK_SHIFT)
#define MRS_ENTRY_RESERVED    (0xfull << 60)

enum mrs_entry_state {
	MRS_ENTRY_EMPTY = 0,	/* nothing allocated: reads as zero */
	MRS_ENTRY_TABLE = 1,	/* frame is the next table */
	MRS_ENTRY_MAPPED = 2,	/* frame is the page's */
	MRS_ENTRY_EVICTED = 3,	/* frame is the page's number, its content is on the swap target */
	MRS_ENTRY_POISONED = 4, /* content is lost: whoever touches it is told */
	MRS_ENTRY_STALE = 5,	/* in a table that was replaced by a huge leaf and is kept for its split:
				 * whoever finds this begins again at the root */
};

/*
 * Cells: 128-byte records in segments of frames. A handle is index | generation << 32 (generation
 * 1 ... 2^31 - 1), so that a stale handle is known for one.
 */
#define MRS_CELL_BYTES 128
enum mrs_cell_kind {
	MRS_CELL_FREE = 0,
	MRS_CELL_CLAIMED = 1, /* being filled by the slot named in the header */
	MRS_CELL_NODE = 2,    /* of the directory's trie */
	MRS_CELL_DIRENT = 3,
	MRS_CELL_NAME = 4,    /* rest of a long name */
	MRS_CELL_RECORD = 5,  /* a morsel */
	MRS_CELL_OPEN = 6,    /* further open entries of a slot */
	MRS_CELL_CLEARING = 7, /* on its way to FREE: being zeroed by the slot named in the header */
	MRS_CELL_VIEW = 8,     /* a view, in the chain of its slot */
	MRS_CELL_PIN = 9,      /* further pins of a view */
	MRS_CELL_COHERENCE = 10, /* what an evictable or cloned morsel has beside its record */
	MRS_CELL_QUARANTINE = 11, /* frames that somebody may still reach */
};
/*
 * Cell header word: bits 0-3 kind, bits 4-15 owner slot + 1 while CLAIMED or CLEARING, bits 32-62
 * generation. A FREE cell is zero but for the generation of its last use in the header.
 */

struct mrs_cell_dirent {
	uint64_t header;
	uint64_t target; /* handle of a RECORD; changed together with a comparison of the header, as one
			  * word of 16 bytes: publication */
	uint64_t hash;
	uint16_t name_bytes;
	uint16_t reserved[3];
	uint64_t more;	 /* handle of the first NAME cell, 0 none */
	char name[88];	 /* the first bytes of it */
};

/* Further open handles of a slot, chained from mrs_slot.open_more. */
struct mrs_cell_open {
	uint64_t header;
	uint64_t more;
	struct mrs_open open[7];
};

struct mrs_cell_name {
	uint64_t header;
	uint64_t more;
	char name[112];
};

/*
 * Pages [first, end) that may not be evicted or moved. first_plus_1 is written last and cleared
 * first; 0: unused.
 */
struct mrs_pin {
	uint64_t first_plus_1;
	uint64_t end;
};

enum mrs_view_flags {
	MRS_VIEW_WRITABLE = 1,	 /* may write */
	MRS_VIEW_POOLED = 2,	 /* address and frame are one: pages of it do not move */
	MRS_VIEW_CPU = 4,	 /* a CPU mapping at address, registered with userfaultfd */
	MRS_VIEW_BY_MAIL = 8,	 /* forgets when its process is asked: a device's translations */
};

/* One view, listed in its slot. Only its process writes; record is written last and cleared first. */
struct mrs_cell_view {
	uint64_t header;
	uint64_t more;	  /* next VIEW cell of the slot */
	uint64_t record;  /* handle, 0: the cell is unused, and stays in the chain */
	uint64_t first;	  /* pages [first, first + pages) of the morsel */
	uint64_t pages;
	uint64_t address; /* of the first page in its process, if CPU */
	uint64_t flags;	  /* enum mrs_view_flags */
	uint64_t moves;	  /* the COHERENCE cell's moves that its mapping has followed */
	uint64_t pin_more; /* first PIN cell */
	struct mrs_pin pin[3];
	uint64_t version; /* moved on before and after each change: a reader compares */
};

struct mrs_cell_pin {
	uint64_t header;
	uint64_t more;
	struct mrs_pin pin[7];
};

/* What is known of the views that a morsel had before it got its COHERENCE cell. */
enum mrs_coherence_views {
	MRS_COHERENCE_LISTED = 1, /* every view that may write is in the registry */
	MRS_COHERENCE_KEEPS = 2,  /* some that only read are not: the morsel keeps its frames */
};

/* Hangs on mrs_cell_record.more. */
struct mrs_cell_coherence {
	uint64_t header;
	uint64_t record;  /* whose it is */
	uint64_t family;  /* id of the morsel that it and its relatives were cloned from, or its own:
			   * relatives share frames only at the same page number */
	uint64_t epoch;	  /* another one after each writable view; all ones: never clean again */
	uint64_t moves;	  /* how often a page came to another frame */
	uint64_t frozen;  /* 0, or intent index + 1 of who clones: no protection is lifted meanwhile */
	uint64_t depth;	  /* clones between this one and the first */
	uint64_t advice;  /* enum morsel_advice of the whole, 0 normal */
	uint64_t evicted; /* pages of it that are evicted; a hint */
	uint64_t hand;	  /* the evictor's clock in it */
	uint64_t shape;	  /* how often a table of it was replaced by another: who looks without a
			   * lock looks again when it has moved on */
	uint64_t views;	  /* enum mrs_coherence_views */
	uint64_t promote_hand; /* block that is looked at next for promotion; a hint */
	uint64_t reserved[3];
};

/* Frames [frame, frame + 2^order) go back when nobody in slots is left. */
struct mrs_cell_quarantine {
	uint64_t header;
	uint64_t frame;	  /* | order << 48 */
	uint64_t record;  /* handle of whose page they were */
	uint64_t page;
	uint64_t since_ns; /* CLOCK_MONOTONIC; for people */
	uint64_t slots[MRS_SLOTS / 64]; /* bit per slot that may still reach them */
	uint64_t claim;	  /* 0, or who gives them back: transition index + 1 | its serial << 16 */
	uint64_t move;	  /* which one of the morsel's moves it was; 0: not counted yet */
	uint64_t reserved[1];
};
_Static_assert(sizeof(struct mrs_cell_view) == MRS_CELL_BYTES, "frozen");
_Static_assert(sizeof(struct mrs_cell_pin) == MRS_CELL_BYTES, "frozen");
_Static_assert(sizeof(struct mrs_cell_coherence) == MRS_CELL_BYTES, "frozen");
_Static_assert(sizeof(struct mrs_cell_quarantine) == MRS_CELL_BYTES, "frozen");

enum mrs_record_state {
	MRS_RECORD_NEW = 0,	 /* being made: no name yet */
	MRS_RECORD_LIVE = 1,	 /* has a name */
	MRS_RECORD_UNLINKED = 2, /* no name; goes when the last user has gone */
	MRS_RECORD_FREEING = 3,	 /* being taken apart */
};

/* A morsel's directory record. */
struct mrs_cell_record {
	uint64_t header;
	uint64_t id;
	uint64_t state;	   /* enum mrs_record_state | flags << 8 (enum morsel_flags) | pages << 40 |
			    * sealed << 44 */
	uint64_t bytes;	   /* as the user gave it: authoritative for what exists */
	uint64_t root;	   /* entry: EMPTY, a MAPPED first frame of the one run, or a TABLE */
	uint64_t run_pages; /* root MAPPED: length of the run in 4 KiB pages */
	uint64_t lock;	   /* 0, or intent index + 1 of who changes size or state */
	uint64_t meta_frame; /* first frame of the packed tensor table, 0 none */
	uint64_t meta_bytes;
	uint64_t dirent;   /* handle of the name that means it, 0 none */
	uint64_t allocated; /* 4 KiB pages allocated */
	int64_t created_ns;
	uint64_t format;   /* enum morsel_format | version << 32: grows at each resize */
	uint64_t tensors;
	uint64_t more;	   /* handle of its COHERENCE cell, 0 none */
	uint64_t reserved;
};
_Static_assert(sizeof(struct mrs_cell_dirent) == MRS_CELL_BYTES, "frozen");
_Static_assert(sizeof(struct mrs_cell_open) == MRS_CELL_BYTES, "frozen");
_Static_assert(sizeof(struct mrs_cell_name) == MRS_CELL_BYTES, "frozen");
_Static_assert(sizeof(struct mrs_cell_record) == MRS_CELL_BYTES, "frozen");

/*
 * A node of the directory's trie: eight ways. A node at depth d hangs on a word that the first
 * 12 + 3 d bits of the hash lead to (after the hash's 63rd bit: the bits of the name).
 */
#define MRS_DIR_NODE_WORDS 8
struct mrs_cell_node {
	uint64_t header;
	uint64_t word[MRS_DIR_NODE_WORDS];
	uint64_t hash;	/* of a name below: its bits down to this node are the way here */
	uint64_t depth;
	uint64_t reserved[5];
};
_Static_assert(sizeof(struct mrs_cell_node) == MRS_CELL_BYTES, "frozen");

/*
 * A trie word of the directory: bits 0-1 kind (0 empty, 1 dirent, 2 node), bits 2-32 low 31 bits of
 * the generation, bits 33-63 cell index (31 bits).
 */

#endif
