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

#define MRS_FEATURE_COMPAT_KNOWN    0ull
#define MRS_FEATURE_RO_COMPAT_KNOWN 0ull
#define MRS_FEATURE_INCOMPAT_KNOWN  0ull

/* How processes that are attached at once talk to each other; all must agree. */
#define MRS_PROTOCOL_VERSION 1

#define MRS_EXTENTS_MAX	      60
#define MRS_SLOTS	      512
#define MRS_INTENTS_PER_SLOT  4
#define MRS_OPEN_INLINE	      160 /* open handles that a slot holds without a further cell */
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
	uint64_t reserved[498];
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
	MRS_INTENT_RETARGET, /* reserved: leaf, expected entry, destination (architecture, section 5) */
	MRS_INTENT_OTHER,   /* frames only: the allocator's pending record says it all */
};

struct mrs_intent {
	uint32_t op;
	uint32_t step;	   /* how far it is; its meaning is the op's */
	uint64_t cell[4];  /* cell handles (index and generation), 0 none */
	uint64_t arg[4];
	uint64_t leaf;	   /* RETARGET: frame of the leaf table << 9 | index */
	uint64_t expected; /* RETARGET: the entry before */
	uint64_t destination;
	uint64_t putting;  /* frames being given back: first + 1 | order << 48, 0 none */
	uint64_t reserved[3];
};
_Static_assert(sizeof(struct mrs_intent) == 128, "frozen");

/*
 * One open handle of a process: the record's handle, 0 free, and how far the views of this handle
 * reach: bits 0-39 end page of the furthest (0 no view), bit 63 one of them is writable.
 */
struct mrs_open {
	uint64_t record;
	uint64_t view;
};
#define MRS_OPEN_WRITABLE (1ull << 63)

/* One frame per slot. Written by its process; read by reapers and by morsel_info(). */
struct mrs_slot {
	uint32_t pid;	    /* for people only: another PID namespace sees another number */
	uint32_t library;   /* version, major << 16 | minor << 8 | patch */
	char program[32];   /* for people only */
	int64_t attached_ns;
	uint64_t active;    /* transitions under way: what the gate waits for */
	uint64_t reserving; /* frames of memory being reserved now, counted against the budget */
	uint64_t open_more; /* cell with further open entries, 0 none */
	uint64_t reserved[7];
	struct mrs_intent intent[MRS_INTENTS_PER_SLOT];
	struct mrs_open open[MRS_OPEN_INLINE];
	uint8_t tail[4096 - 128 - 128 * MRS_INTENTS_PER_SLOT - 16 * MRS_OPEN_INLINE];
};
_Static_assert(sizeof(struct mrs_super) == 4096, "one frame");
_Static_assert(sizeof(struct mrs_state) <= 4096, "one frame");
_Static_assert(sizeof(struct mrs_slot) == 4096, "one frame");

/* Bytes of the pool's file that carry open-file-description locks; far beyond any content. */
#define MRS_LOCK_SLOT  (1ull << 62)	     /* + slot index: held while attached */
#define MRS_LOCK_SETUP ((1ull << 62) + 4096) /* held while a pool is created, grown or resized */
#define MRS_LOCK_IMPORT ((1ull << 62) + 8192) /* + name hash % 4096: held while a name is imported */

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
	uint64_t more;	   /* reserved: handle of an extension */
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
