/*
 * Walking everything that this room owns: for the reaper, who asks whether a frame is referenced,
 * and for morsel_pool_check(). Both run with the gate closed.
 *
 * The invariants of records and names:
 *	LIVE	  <=> a linked dirent means it, and it names that dirent
 *	any other  => an open entry names it (internal.h), and no linked dirent but a NEW one's
 *	allocated  =  pages that its table maps; every frame of it is in the pool
 *	lock	  != 0 => of an intent that names it
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "model/model.h"
#include "object/internal.h"
#include "object/share.h"
#include "pool/property.h"
#include "view/registry.h"

/* ---- every frame ---- */

struct each_frame {
	struct morsel_pool *pool;
	int (*fn)(void *ctx, uint64_t frame, uint64_t count, const char *by);
	void *ctx;
	bool skip_families; /* mrs_share_check() tells of them, each frame once */
	char by[48];
};

static int each_table_frame(void *ctx, uint64_t frame, uint64_t count, bool is_table)
{
	struct each_frame *each = ctx;

	return each->fn(each->ctx, frame, count, each->by);
}

/* The frames of a packed tensor table: as many as were got for it. */
static uint64_t meta_frames(const struct mrs_cell_record *record)
{
	uint64_t frames = 1;

	while (frames < mrs_pages_in(record->meta_bytes))
		frames <<= 1;
	return frames;
}

static int each_record_frame(void *ctx, mrs_cell cell, void *memory)
{
	struct mrs_cell_record *record = memory;
	struct each_frame *each = ctx;
	struct morsel morsel;
	int rc;

	if (!mrs_handle_init(&morsel, each->pool, cell))
		return 0;
	snprintf(each->by, sizeof(each->by), "morsel %llu", (unsigned long long)record->id);
	if (each->skip_families && mrs_share_is_family(&morsel))
		return 0;
	/* A damaged table is reported elsewhere; here its readable part counts. */
	rc = mrs_table_walk(&morsel.table, each_table_frame, each);
	if (rc > 0)
		return rc;
	if (!record->meta_frame || mrs_record_problem(each->pool, record))
		return 0;
	return each->fn(each->ctx, record->meta_frame, meta_frames(record), each->by);
}

static int each_segment(struct each_frame *each)
{
	struct mrs_cells *cells = mrs_pool_cells(each->pool);

	snprintf(each->by, sizeof(each->by), "the directory");
	for (unsigned i = 0; i < MRS_CELL_SEGMENTS_MAX; i++) {
		uint64_t frame = mrs_load_acquire(&cells->segments[i]);
		int rc = frame ? each->fn(each->ctx, frame, 1ull << cells->segment_order, each->by)
			       : 0;

		if (rc)
			return rc;
	}
	return 0;
}

/* Tables that are kept for the splits of huge leaves. */
static int each_deposit(void *ctx, uint64_t frame, enum mrs_prop_kind kind,
			const struct mrs_prop *prop)
{
	struct each_frame *each = ctx;

	if (kind != MRS_PROP_DEPOSIT)
		return 0;
	snprintf(each->by, sizeof(each->by), "the split of frame %llu", (unsigned long long)frame);
	return each->fn(each->ctx, prop->value, 1, each->by);
}

static int each_frame(struct each_frame *each)
{
	int rc = each_segment(each);

	if (!rc)
		rc = mrs_cell_each(mrs_pool_cells(each->pool), MRS_CELL_RECORD, each_record_frame,
				   each);
	if (!rc)
		rc = mrs_prop_each(each->pool, each_deposit, each);
	if (!rc && !each->skip_families)
		rc = mrs_share_each_owed(each->pool, each->fn, each->ctx);
	return rc ? rc : mrs_quarantine_each(each->pool, each->fn, each->ctx);
}

struct range {
	uint64_t frame, end;
};

static int overlaps(void *ctx, uint64_t frame, uint64_t count, const char *by)
{
	struct range *range = ctx;

	return frame < range->end && range->frame < frame + count;
}

/* Tables that a dead expand() has not linked are named by its intent: table_building(). */
struct building {
	struct morsel_pool *pool;
	struct each_frame each;
	int found;
};

static bool is_building(uint32_t op)
{
	return op == MRS_INTENT_RESIZE || op == MRS_INTENT_CLONE;
}

static void each_building(void *ctx, unsigned slot, struct mrs_slot *shared)
{
	struct building *building = ctx;

	for (unsigned i = 0; i < MRS_INTENTS_PER_SLOT && !building->found; i++) {
		uint64_t root = mrs_load_acquire(&shared->intent[i].arg[2]), pages = 0;
		struct mrs_table table = {.ops = &mrs_object_table_ops,
					  .ctx = building->pool,
					  .root = &root,
					  .run_pages = &pages};

		if (is_building(mrs_load_acquire32(&shared->intent[i].op)) && root)
			building->found =
				mrs_table_walk(&table, each_table_frame, &building->each) > 0;
	}
}

bool mrs_check_referenced(struct morsel_pool *pool, uint64_t frame, uint64_t count)
{
	struct range range = {.frame = frame, .end = frame + count};
	struct building building = {
		.pool = pool,
		.each = {.pool = pool, .fn = overlaps, .ctx = &range},
	};

	if (each_frame(&building.each) > 0)
		return true;
	mrs_pool_each_slot(pool, each_building, &building);
	return building.found;
}

/* ---- the whole check ---- */

struct check {
	struct morsel_pool *pool;
	void (*owned)(void *ctx, uint64_t frame, uint64_t count, const char *by);
	morsel_report_fn report;
	void *ctx;
	uint64_t id; /* of the record that is being looked at */
};

static void finding(struct check *check, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void finding(struct check *check, const char *format, ...)
{
	char text[256];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	check->report(check->ctx, text);
}

static int own_frame(void *ctx, uint64_t frame, uint64_t count, const char *by)
{
	struct check *check = ctx;

	check->owned(check->ctx, frame, count, by);
	return 0;
}

static void dir_finding(void *ctx, const char *text)
{
	finding(ctx, "%s", text);
}

static void table_finding(void *ctx, const char *text)
{
	struct check *check = ctx;

	finding(check, "morsel %llu: page table: %s", (unsigned long long)check->id, text);
}

static int count_pages(void *ctx, uint64_t frame, uint64_t count, bool is_table)
{
	if (!is_table)
		*(uint64_t *)ctx += count;
	return 0;
}

static void check_table(struct check *check, struct morsel *morsel)
{
	struct mrs_cell_record *record = morsel->record;
	uint64_t granule = mrs_record_granule(check->pool, record->state);
	uint64_t end = mrs_round_up(mrs_pages_in(record->bytes), granule), pages = 0;

	/* Who holds the lock may be about to grow it. */
	if (record->lock)
		end = UINT64_MAX;
	mrs_table_validate(&morsel->table, end, table_finding, check);
	mrs_table_walk(&morsel->table, count_pages, &pages);
	if (pages != record->allocated)
		finding(check, "morsel %llu: %llu pages are allocated, its record says %llu",
			(unsigned long long)record->id, (unsigned long long)pages,
			(unsigned long long)record->allocated);
}

static void check_name(struct check *check, struct morsel *morsel)
{
	struct mrs_cells *cells = mrs_pool_cells(check->pool);
	struct mrs_cell_record *record = morsel->record;
	enum mrs_record_state state = mrs_state_of(record->state);
	bool named = record->dirent && mrs_dir_is_linked(cells, record->dirent) &&
		     mrs_dirent_target(cells, record->dirent) == morsel->cell;
	struct mrs_users users;

	if (named ? state != MRS_RECORD_LIVE && state != MRS_RECORD_NEW : state == MRS_RECORD_LIVE)
		finding(check, "morsel %llu: it %s a name, its record is in state %u",
			(unsigned long long)record->id, named ? "has" : "does not have", state);
	mrs_users_scan(check->pool, morsel->cell, NULL, &users);
	if (!named && !users.users)
		finding(check, "morsel %llu: it has no name, and nobody has it open",
			(unsigned long long)record->id);
}

static void check_lock(struct check *check, struct morsel *morsel)
{
	uint64_t index = morsel->record->lock - 1;
	const struct mrs_intent *intent;
	bool named = false;

	if (!morsel->record->lock)
		return;
	if (index < MRS_SLOTS * MRS_INTENTS_PER_SLOT) {
		intent = &mrs_pool_slot(check->pool, index / MRS_INTENTS_PER_SLOT)
				  ->intent[index % MRS_INTENTS_PER_SLOT];
		for (unsigned i = 0; i < mrs_array_length(intent->cell); i++)
			named |= intent->op != MRS_INTENT_NONE && intent->cell[i] == morsel->cell;
	}
	if (!named)
		finding(check, "morsel %llu: it is locked by nobody (lock word %llu)",
			(unsigned long long)morsel->record->id,
			(unsigned long long)morsel->record->lock);
}

static void check_tensors(struct check *check, struct mrs_cell_record *record)
{
	const void *packed;

	/* Until a new record has a name its tensor table may be half written. */
	if (!record->meta_frame || mrs_state_of(record->state) == MRS_RECORD_NEW)
		return;
	packed = mrs_pool_at(check->pool, record->meta_frame, mrs_pages_in(record->meta_bytes));
	if (mrs_packed_check(packed, record->meta_bytes))
		finding(check, "morsel %llu: its tensor table is damaged: %s",
			(unsigned long long)record->id, morsel_errormsg());
}

static int check_record(void *ctx, mrs_cell cell, void *memory)
{
	struct mrs_cell_record *record = memory;
	struct check *check = ctx;
	const char *problem = mrs_record_problem(check->pool, record);
	struct morsel morsel;

	if (!mrs_handle_init(&morsel, check->pool, cell))
		return 0;
	check->id = record->id;
	if (problem) {
		finding(check, "morsel %llu: %s", (unsigned long long)record->id, problem);
		return 0;
	}
	check_table(check, &morsel);
	check_name(check, &morsel);
	check_lock(check, &morsel);
	check_tensors(check, record);
	return 0;
}

static int check_dirent(void *ctx, mrs_cell dirent, mrs_cell target)
{
	struct check *check = ctx;
	struct mrs_cells *cells = mrs_pool_cells(check->pool);
	struct mrs_cell_record *record = mrs_cell_at(cells, target, MRS_CELL_RECORD);
	char name[MORSEL_NAME_MAX + 1];

	if (mrs_dirent_name(cells, dirent, name))
		name[0] = 0;
	if (!record)
		finding(check, "the name '%s' means no morsel", name);
	else if (record->dirent != dirent)
		finding(check, "the name '%s' means morsel %llu, which has another name", name,
			(unsigned long long)record->id);
	return 0;
}

static int count_one(void *ctx, mrs_cell cell, void *memory)
{
	++*(uint64_t *)ctx;
	return 0;
}

static void check_counts(struct check *check)
{
	uint64_t records = 0, said = mrs_load_acquire(&mrs_pool_state(check->pool)->morsels);

	mrs_cell_each(mrs_pool_cells(check->pool), MRS_CELL_RECORD, count_one, &records);
	if (records != said)
		finding(check, "there are %llu morsels, the pool's state says %llu",
			(unsigned long long)records, (unsigned long long)said);
}

void mrs_check_walk(struct morsel_pool *pool,
		    void (*owned)(void *ctx, uint64_t frame, uint64_t count, const char *by),
		    morsel_report_fn report, void *ctx)
{
	struct check check = {.pool = pool, .owned = owned, .report = report, .ctx = ctx};
	struct each_frame each = {
		.pool = pool, .fn = own_frame, .ctx = &check, .skip_families = true};
	struct mrs_cells *cells = mrs_pool_cells(pool);

	mrs_dir_validate(cells, dir_finding, &check);
	mrs_dir_each(cells, check_dirent, &check);
	mrs_cell_each(cells, MRS_CELL_RECORD, check_record, &check);
	check_counts(&check);
	mrs_check_coherence(pool, report, ctx);
	mrs_registry_validate(pool, report, ctx);
	mrs_share_check(pool, owned, report, ctx);
	each_frame(&each);
}
