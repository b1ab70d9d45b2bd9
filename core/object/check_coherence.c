/*
 * What morsel_pool_check() looks at where pages come and go. Gate closed; transitions that are
 * parked may hold leaves.
 *
 *	evictable, and the pool evicts	=>  the record has a COHERENCE cell, which names the record
 *	EVICTED				=>  every page of the leaf has a SWAP property
 *	locked, or frozen		=>  by a transition that is under way
 *	a SWAP or DEPOSIT property	=>  of a leaf's frame, DEPOSIT of a leaf of 512 pages
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "object/internal.h"
#include "object/retarget.h"

struct look {
	struct morsel_pool *pool;
	struct morsel *morsel; /* being looked at */
	morsel_report_fn report;
	void *ctx;
	uint8_t *kind; /* per frame: 0, or level + 1 of the leaf that begins or covers it */
	uint64_t frames;
	unsigned said; /* findings of this morsel: a few are enough */
};

#define SAY_MOST 8u

static void finding(struct look *look, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void finding(struct look *look, const char *format, ...)
{
	char text[256];
	va_list args;

	if (look->said++ >= SAY_MOST)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	look->report(look->ctx, text);
}

/* A transition that may hold leaves: of a process that is attached, dead ones being repaired by
 * now. */
static bool is_under_way(struct look *look, uint64_t index)
{
	const struct mrs_intent *intent;

	if (index >= MRS_SLOTS * MRS_INTENTS_PER_SLOT)
		return false;
	intent = &mrs_pool_slot(look->pool, (unsigned)(index / MRS_INTENTS_PER_SLOT))
			  ->intent[index % MRS_INTENTS_PER_SLOT];
	return mrs_load_acquire32(&intent->op) != MRS_INTENT_NONE;
}

static void check_lock(struct look *look, const struct mrs_leaf *entry)
{
	uint64_t lock = mrs_entry_lock(entry->entry);

	if (lock && !is_under_way(look, lock - 1))
		finding(look, "morsel %" PRIu64 ": page %" PRIu64 " is locked by nobody",
			look->morsel->record->id, entry->page);
}

static void check_evicted(struct look *look, const struct mrs_leaf *entry)
{
	uint64_t frame = mrs_entry_frame(entry->entry), pages = 1ull << 9 * entry->level;
	struct mrs_prop swap;

	for (uint64_t i = 0; i < pages; i++)
		if (!mrs_prop_get(look->pool, frame + i, MRS_PROP_SWAP, &swap))
			finding(look,
				"morsel %" PRIu64 ": page %" PRIu64
				" is evicted, and its content is nowhere",
				look->morsel->record->id, entry->page + i);
}

static int check_entry(void *ctx, const struct mrs_leaf *entry, bool is_table)
{
	struct look *look = ctx;
	uint64_t frame = mrs_entry_frame(entry->entry), pages = 1ull << 9 * entry->level;

	/* A root that is a run has no leaves. */
	if (entry->place == look->morsel->table.root && !is_table)
		return 0;
	check_lock(look, entry);
	if (is_table)
		return 0;
	for (uint64_t i = 0; i < pages && frame + i < look->frames; i++)
		look->kind[frame + i] = (uint8_t)(entry->level + 1);
	if (mrs_entry_state(entry->entry) == MRS_ENTRY_EVICTED)
		check_evicted(look, entry);
	return 0;
}

/* One that is being made or taken apart is not what it should be, and nobody looks at its pages. */
static bool is_settled(const struct morsel *morsel)
{
	enum mrs_record_state state = mrs_state_of(mrs_load_acquire(&morsel->record->state));

	return state == MRS_RECORD_LIVE && !mrs_load_acquire(&morsel->record->lock);
}

static void check_cell(struct look *look)
{
	struct mrs_cell_coherence *coherence = mrs_morsel_coherence(look->morsel);
	uint64_t id = look->morsel->record->id, frozen;

	if (!coherence) {
		if (mrs_morsel_is_evictable(look->morsel))
			finding(look,
				"morsel %" PRIu64 ": it is evictable and has no COHERENCE cell",
				id);
		return;
	}
	if (coherence->record != look->morsel->cell)
		finding(look, "morsel %" PRIu64 ": its COHERENCE cell is another morsel's", id);
	frozen = mrs_load_acquire(&coherence->frozen);
	if (frozen && !is_under_way(look, frozen - 1))
		finding(look, "morsel %" PRIu64 ": it is frozen by nobody", id);
}

static int check_record(void *ctx, mrs_cell cell, void *memory)
{
	struct look *look = ctx;
	struct morsel morsel;

	if (!mrs_handle_init(&morsel, look->pool, cell) ||
	    mrs_record_problem(look->pool, morsel.record))
		return 0;
	look->morsel = &morsel;
	look->said = is_settled(&morsel) ? 0 : SAY_MOST;
	check_cell(look);
	if (mrs_morsel_coherence(&morsel))
		mrs_table_each_entry(&morsel.table, check_entry, look);
	return 0;
}

static int check_coherence(void *ctx, mrs_cell cell, void *memory)
{
	const struct mrs_cell_coherence *coherence = memory;
	struct look *look = ctx;
	struct morsel morsel;

	if (!mrs_handle_init(&morsel, look->pool, coherence->record) || morsel.record->more != cell)
		finding(look, "a COHERENCE cell belongs to no morsel (record %" PRIu64 ")",
			coherence->record & UINT32_MAX);
	return 0;
}

static int check_property(void *ctx, uint64_t frame, enum mrs_prop_kind kind,
			  const struct mrs_prop *prop)
{
	struct look *look = ctx;
	unsigned leaf = frame < look->frames ? look->kind[frame] : 0;

	if (kind == MRS_PROP_SWAP && !leaf)
		finding(look,
			"frame %" PRIu64 " is of no evictable morsel and has a place on a swap "
			"target",
			frame);
	if (kind == MRS_PROP_DEPOSIT && leaf < 2)
		finding(look, "frame %" PRIu64 " is of no large page, and a table is kept for it",
			frame);
	return 0;
}

void mrs_check_coherence(struct morsel_pool *pool, morsel_report_fn report, void *ctx)
{
	struct look look = {.pool = pool, .report = report, .ctx = ctx};
	struct mrs_cells *cells = mrs_pool_cells(pool);

	/* What a pool without such morsels has none of need not be looked for. */
	if (!(mrs_pool_super(pool)->feature_incompat & MRS_FEATURE_INCOMPAT_COHERENT))
		return;
	look.frames = mrs_pool_frames_end(pool);
	look.kind = calloc(look.frames, 1);
	if (!look.kind) {
		report(ctx, "no memory for one byte per frame: evicted pages are not checked");
		return;
	}
	mrs_cell_each(cells, MRS_CELL_RECORD, check_record, &look);
	look.said = 0;
	mrs_cell_each(cells, MRS_CELL_COHERENCE, check_coherence, &look);
	mrs_prop_each(pool, check_property, &look);
	free(look.kind);
}
