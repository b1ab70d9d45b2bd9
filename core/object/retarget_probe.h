/*
 * Probes of a retarget that say which leaves they are about, for a trace that is compared with the
 * model (tests/models/replay.py). In a build without MORSEL_PROBES they are nothing.
 *
 * An entry of the trace has these words:
 *
 *	0	intent's index | kind << 16 | step << 24 | level << 32 | flags << 40 | words << 48
 *
 *	1	serial of the transition
 *
 *	2	the morsel's record
 *
 *	3	first leaf of the batch, frame of its table << 9 | index; 0 before it is known
 *
 *	4 ...	masks of so many words over the leaves from there on: those it is about; then which
 *		of them are MAPPED, DIRTY, and neither MAPPED nor EVICTED
 *
 * Flags: HELD, each of these leaves is locked by this intent, and is what the transition takes it
 * for; NAMED, the intent names them.
 */
#ifndef MRS_OBJECT_RETARGET_PROBE_H
#define MRS_OBJECT_RETARGET_PROBE_H

#include "object/retarget.h"

#define MRS_NOTE_HELD  1u
#define MRS_NOTE_NAMED 2u

#ifdef MORSEL_PROBES
/* The leaves are a mask, NULL: all that are locked. */
void mrs_retarget_note(const char *name, const struct mrs_retarget *batch,
		       const uint64_t leaves[8]);
/* Leaves that may be named several times. */
void mrs_retarget_note_leaves(const char *name, const struct mrs_retarget *batch,
			      const uint16_t *leaf, unsigned count);
/* One leaf, which is, or has just become, entry. */
void mrs_retarget_note_leaf(const char *name, const struct mrs_retarget *batch, unsigned i,
			    uint64_t entry);
/* A repair has given a leaf of the dead transition back, as entry. */
void mrs_retarget_note_repair(const char *name, const struct mrs_txn *dead, uint64_t leaf,
			      uint64_t entry);
#define MRS_PROBE_BATCH(name, batch, leaves)            \
	do {                                            \
		mrs_retarget_note(name, batch, leaves); \
		mrs_probe_hit(name);                    \
	} while (0)
#define MRS_PROBE_LEAF(name, batch, i, entry)                  \
	do {                                                   \
		mrs_retarget_note_leaf(name, batch, i, entry); \
		mrs_probe_hit(name);                           \
	} while (0)
#define MRS_PROBE_LEAVES(name, batch, leaf, count)                  \
	do {                                                        \
		mrs_retarget_note_leaves(name, batch, leaf, count); \
		mrs_probe_hit(name);                                \
	} while (0)
#define MRS_PROBE_REPAIR(name, dead, leaf, entry)                  \
	do {                                                       \
		mrs_retarget_note_repair(name, dead, leaf, entry); \
		mrs_probe_hit(name);                               \
	} while (0)
#else
#define MRS_PROBE_BATCH(name, batch, leaves)	   ((void)0)
#define MRS_PROBE_LEAF(name, batch, i, entry)	   ((void)0)
#define MRS_PROBE_LEAVES(name, batch, leaf, count) ((void)0)
#define MRS_PROBE_REPAIR(name, dead, leaf, entry)  ((void)0)
#endif

#endif
