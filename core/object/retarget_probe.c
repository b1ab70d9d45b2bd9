/*
 * What a retarget's probes note: see retarget_probe.h. Everything that is read here is the noting
 * thread's own, or locked by it.
 */
#include "object/retarget_probe.h"

#ifdef MORSEL_PROBES

#include "base/probe.h"
#include "object/internal.h"

#define HEAD_WORDS 4u
#define MASKS	   4u

struct note {
	const struct mrs_retarget *batch;
	uint64_t first; /* leaf */
	unsigned words; /* of a mask */
	uint64_t mask[MASKS][8];
	bool held;
};

static uint64_t bit_of(unsigned i)
{
	return 1ull << i % 64;
}

static void add(struct note *note, unsigned i, uint64_t entry)
{
	unsigned state = mrs_entry_state(entry);

	note->mask[0][i / 64] |= bit_of(i);
	if (state == MRS_ENTRY_MAPPED)
		note->mask[1][i / 64] |= bit_of(i);
	else if (state != MRS_ENTRY_EVICTED)
		note->mask[3][i / 64] |= bit_of(i);
	if (entry & MRS_ENTRY_DIRTY)
		note->mask[2][i / 64] |= bit_of(i);
}

/* Marks of sharing may come and go under a lock. */
static bool is_held(const struct mrs_retarget *batch, unsigned i)
{
	uint64_t now = mrs_load_acquire(&batch->entries[i]);

	return mrs_entry_lock(now) == batch->txn.index + 1 &&
	       !((mrs_entry_unlocked(now) ^ batch->before[i]) & ~MRS_ENTRY_SHARED);
}

static bool is_named(const struct note *note)
{
	const struct mrs_retarget *batch = note->batch;
	const struct mrs_intent *intent = batch->txn.intent;

	return mrs_load_relaxed32(&intent->op) == MRS_INTENT_RETARGET &&
	       mrs_load_relaxed(&intent->cell[0]) == batch->morsel->cell &&
	       mrs_load_relaxed(&intent->leaf) <= note->first &&
	       mrs_load_relaxed(&intent->leaf) / 512 == note->first / 512 &&
	       mrs_load_relaxed(&intent->page) == batch->page &&
	       mrs_load_relaxed(&intent->count) >= (uint64_t)batch->count << 9 * batch->level;
}

static uint64_t head(const struct mrs_txn *txn, unsigned level, unsigned flags, unsigned words)
{
	uint32_t step = mrs_load_relaxed32(&txn->intent->step);

	return (uint64_t)txn->index | (uint64_t)(step >> 8 & 0xff) << 16 |
	       (uint64_t)(step & 0xff) << 24 | (uint64_t)level << 32 | (uint64_t)flags << 40 |
	       (uint64_t)words << 48;
}

static void write_out(const char *name, const struct note *note)
{
	const struct mrs_txn *txn = &note->batch->txn;
	struct mrs_probe_event *event = mrs_probe_note(name, HEAD_WORDS + MASKS * note->words);
	unsigned at = HEAD_WORDS, flags = 0;

	if (!event)
		return;
	if (note->held)
		flags |= MRS_NOTE_HELD;
	if (note->first && is_named(note))
		flags |= MRS_NOTE_NAMED;
	event->word[0] = head(txn, note->batch->level, flags, note->words);
	event->word[1] = mrs_load_relaxed(&txn->intent->serial);
	event->word[2] = note->batch->morsel->cell;
	event->word[3] = note->first;
	for (unsigned m = 0; m < MASKS; m++)
		for (unsigned i = 0; i < note->words; i++)
			event->word[at++] = note->mask[m][i];
	mrs_probe_noted(event, at);
}

static uint64_t leaf_number(const struct mrs_retarget *batch, unsigned i)
{
	uint64_t span = 1ull << 9 * batch->level;

	return batch->table << 9 | ((batch->page / span + i) & 511);
}

void mrs_retarget_note(const char *name, const struct mrs_retarget *batch, const uint64_t leaves[8])
{
	struct note note = {.batch = batch, .held = true};

	if (!batch->count) { /* nothing is aimed at yet, or it was nothing */
		write_out(name, &note);
		return;
	}
	note.first = leaf_number(batch, 0);
	note.words = (batch->count + 63) / 64;
	for (unsigned i = 0; i < batch->count; i++) {
		if (!mrs_retarget_has(batch, i) || (leaves && !(leaves[i / 64] & bit_of(i))))
			continue;
		add(&note, i, batch->before[i]);
		note.held &= is_held(batch, i);
	}
	write_out(name, &note);
}

void mrs_retarget_note_leaves(const char *name, const struct mrs_retarget *batch,
			      const uint16_t *leaf, unsigned count)
{
	uint64_t leaves[8] = {0};

	for (unsigned k = 0; k < count; k++)
		leaves[leaf[k] / 64] |= bit_of(leaf[k]);
	mrs_retarget_note(name, batch, leaves);
}

void mrs_retarget_note_leaf(const char *name, const struct mrs_retarget *batch, unsigned i,
			    uint64_t entry)
{
	struct note note = {.batch = batch, .first = leaf_number(batch, i), .words = 1};

	add(&note, 0, entry);
	note.held = mrs_retarget_has(batch, i) && is_held(batch, i);
	write_out(name, &note);
}

void mrs_retarget_note_repair(const char *name, const struct mrs_txn *dead, uint64_t leaf,
			      uint64_t entry)
{
	struct mrs_probe_event *event = mrs_probe_note(name, HEAD_WORDS + MASKS);
	struct note note = {0};

	if (!event)
		return;
	add(&note, 0, entry);
	event->word[0] = head(dead, 0, 0, 1);
	event->word[1] = mrs_load_relaxed(&dead->intent->serial);
	event->word[2] = mrs_load_relaxed(&dead->intent->cell[0]);
	event->word[3] = leaf;
	for (unsigned m = 0; m < MASKS; m++)
		event->word[HEAD_WORDS + m] = note.mask[m][0];
	mrs_probe_noted(event, HEAD_WORDS + MASKS);
}

#else
typedef int mrs_retarget_probe_unused; /* an empty translation unit is not C */
#endif
