/*
 * How many links a frame has: counted by one word per shared frame, checked and recounted from the
 * tables, which are the truth. See share.h.
 *
 * A link more is counted before it is made, a link less after it is gone: so whoever reads "no
 * others" may rely on it, and a death in between leaves the count too high, never too low, until
 * mrs_share_recount().
 */
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>

#include "object/break.h"
#include "object/internal.h"
#include "pool/property.h"
#include "view/registry.h"

bool mrs_share_is_shared(struct morsel *morsel, uint64_t page)
{
	struct mrs_leaf leaf;

	return !mrs_table_leaf(&morsel->table, page, &leaf) && leaf.shared;
}

bool mrs_share_is_any(struct morsel_pool *pool)
{
	/* Acquire: pairs with the count that a clone raises before it shares. */
	return mrs_load_acquire(&mrs_pool_state(pool)->count[MRS_COUNT_CLONES]);
}

bool mrs_share_has_others(struct morsel_pool *pool, uint64_t frame)
{
	struct mrs_prop shares;

	return mrs_prop_get(pool, frame, MRS_PROP_SHARES, &shares);
}

int mrs_share_add(struct mrs_txn *txn, uint64_t frame)
{
	uint64_t now;

	return mrs_prop_add(txn, frame, MRS_PROP_SHARES, 1, &now);
}

bool mrs_share_drop(struct mrs_txn *txn, uint64_t frame)
{
	uint64_t now;

	/* Asked first: what is not shared, which is most, needs no words about it. */
	if (!mrs_share_has_others(txn->pool, frame))
		return true;
	return mrs_prop_add(txn, frame, MRS_PROP_SHARES, -1, &now) == -ERANGE;
}

bool mrs_share_is_family(const struct morsel *morsel)
{
	return mrs_morsel_coherence(morsel);
}

/* ---- all links ---- */

#define ENTRIES	  512u
#define HAS_COUNT (1u << 31) /* the frame has a SHARES property */

/* One word per frame of the pool, of anonymous memory that costs only where it is touched. */
struct links {
	struct morsel_pool *pool;
	uint32_t *of;
	uint64_t frames;
	const struct mrs_intent *dead; /* whose transition is being repaired; NULL: none */
	struct morsel *morsel;	       /* being walked */
	void (*owned)(void *ctx, uint64_t frame, uint64_t count, const char *by);
	morsel_report_fn report;
	void *ctx;
	char by[48];
};

static int links_make(struct links *links, struct morsel_pool *pool)
{
	links->pool = pool;
	links->frames = mrs_pool_frames_end(pool);
	links->of = mmap(NULL, links->frames * sizeof(*links->of), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (links->of == MAP_FAILED)
		return mrs_fail_errno(-errno, "no address space for one word per frame");
	return 0;
}

static void links_free(struct links *links)
{
	munmap(links->of, links->frames * sizeof(*links->of));
}

/* True if this is the first link to the frame. */
static bool count_link(struct links *links, uint64_t frame, uint64_t count)
{
	bool first = !(links->of[frame] & ~HAS_COUNT);

	links->of[frame]++;
	if (first && links->owned)
		links->owned(links->ctx, frame, count, links->by);
	return first;
}

static int count_entry(void *ctx, const struct mrs_leaf *entry, bool is_table)
{
	struct links *links = ctx;
	uint64_t count = is_table ? 1 : 1ull << MRS_HUGE_ORDER * entry->level;

	/* What is below a table that somebody else has too was counted with him. */
	if (!count_link(links, mrs_entry_frame(entry->entry), count) && is_table)
		return MRS_TABLE_SKIP;
	return 0;
}

static uint64_t meta_frames(const struct mrs_cell_record *record)
{
	uint64_t frames = 1;

	while (frames < mrs_pages_in(record->meta_bytes))
		frames <<= 1;
	return frames;
}

static int count_record(void *ctx, mrs_cell cell, void *memory)
{
	struct links *links = ctx;
	struct mrs_cell_record *record = memory;
	struct morsel morsel;
	uint64_t root;

	if (!mrs_handle_init(&morsel, links->pool, cell) || !mrs_share_is_family(&morsel))
		return 0;
	snprintf(links->by, sizeof(links->by), "morsel %llu", (unsigned long long)record->id);
	root = mrs_load_acquire(&record->root);
	/* A run has no relatives, and a page of it is nobody's table. */
	if (mrs_entry_state(root) == MRS_ENTRY_TABLE)
		mrs_table_each_entry(&morsel.table, count_entry, links);
	else if (links->owned && root && !mrs_record_problem(links->pool, record))
		links->owned(links->ctx, mrs_entry_frame(root), record->run_pages, links->by);
	if (record->meta_frame && !mrs_record_problem(links->pool, record))
		count_link(links, record->meta_frame, meta_frames(record));
	return 0;
}

static int note_count(void *ctx, uint64_t frame, enum mrs_prop_kind kind,
		      const struct mrs_prop *prop)
{
	struct links *links = ctx;

	if (kind == MRS_PROP_SHARES && frame < links->frames)
		links->of[frame] |= HAS_COUNT;
	return 0;
}

static void count_below(struct links *links, uint64_t table);

/* A link that no record's table has; what is below it is reached by it alone, or was before. */
static void count_extra(struct links *links, uint64_t frame, uint64_t count, bool is_table)
{
	if (frame < links->frames && count_link(links, frame, count) && is_table)
		count_below(links, frame);
}

static void count_below(struct links *links, uint64_t table)
{
	uint64_t *entries = mrs_object_table_ops.at(links->pool, table);

	for (unsigned i = 0; entries && i < ENTRIES; i++) {
		uint64_t entry = mrs_load_acquire(&entries[i]);
		enum mrs_entry_state state = mrs_entry_state(entry);

		if (state != MRS_ENTRY_EMPTY && state != MRS_ENTRY_STALE)
			count_extra(links, mrs_entry_frame(entry),
				    1ull << MRS_HUGE_ORDER * mrs_entry_level(entry),
				    state == MRS_ENTRY_TABLE);
	}
}

/* A transition that is parked: what it has counted and not linked yet, and what it owes. */
static void count_break(struct links *links, const struct mrs_intent *intent)
{
	uint64_t copy = mrs_load_acquire(&intent->destination);
	struct mrs_owed owed;

	snprintf(links->by, sizeof(links->by), "a break");
	if (mrs_share_owed(intent, &owed))
		count_extra(links, owed.frame, 1ull << owed.order, owed.is_table);
	if (copy & MRS_BREAK_NOTE)
		count_below(links, copy & ~MRS_BREAK_NOTE);
}

static void count_slot(void *ctx, unsigned slot, struct mrs_slot *shared)
{
	struct links *links = ctx;

	for (unsigned i = 0; i < MRS_INTENTS_PER_SLOT; i++) {
		const struct mrs_intent *intent = &shared->intent[i];

		if (intent != links->dead && mrs_load_acquire32(&intent->op) != MRS_INTENT_NONE)
			count_break(links, intent);
	}
}

/* The breaks after the tables: what is below their links has been walked by then. */
static void count_all(struct links *links)
{
	mrs_cell_each(mrs_pool_cells(links->pool), MRS_CELL_RECORD, count_record, links);
	mrs_pool_each_slot(links->pool, count_slot, links);
	mrs_prop_each(links->pool, note_count, links);
}

/* ---- after a death ---- */

static bool has_no_link(void *ctx, uint64_t frame)
{
	const struct links *links = ctx;

	return frame < links->frames && !(links->of[frame] & ~HAS_COUNT);
}

struct seek {
	struct links *links;
	unsigned slot; /* the dead one */
	bool found;
};

static void seek_slot(void *ctx, unsigned slot, struct mrs_slot *shared)
{
	struct seek *seek = ctx;

	for (unsigned i = 0; i < MRS_INTENTS_PER_SLOT && slot != seek->slot; i++) {
		const struct mrs_intent *intent = &shared->intent[i];
		uint64_t leaf = mrs_load_acquire(&intent->leaf);

		seek->found |= mrs_load_acquire32(&intent->op) == MRS_INTENT_RETARGET && leaf &&
			       has_no_link(seek->links, leaf / ENTRIES);
	}
}

/* Is somebody in the middle of a retarget in a table that nobody links any more? */
static bool is_anybody_below(struct links *links, const struct mrs_txn *txn)
{
	struct seek seek = {.links = links, .slot = txn->index / MRS_INTENTS_PER_SLOT};

	mrs_pool_each_slot(links->pool, seek_slot, &seek);
	return seek.found;
}

/* What the dead one owes is somebody's, or goes. */
static bool settle_owed(struct links *links, struct mrs_txn *txn)
{
	struct mrs_owed owed;

	if (!mrs_share_owed(txn->intent, &owed))
		return true;
	if (!has_no_link(links, owed.frame)) {
		mrs_share_owe_nothing(txn);
		return true;
	}
	if (owed.is_table && is_anybody_below(links, txn))
		return false;
	mrs_share_bury_owed(txn, has_no_link, links);
	return true;
}

/* Of dead transitions whose own repair is still to come: half a split cannot be counted. */
static void finish_splits(void *ctx, unsigned slot, struct mrs_slot *shared)
{
	for (unsigned i = 0; i < MRS_INTENTS_PER_SLOT; i++) {
		struct mrs_txn txn = {
			.pool = ctx,
			.intent = &shared->intent[i],
			.index = slot * MRS_INTENTS_PER_SLOT + i,
		};

		if (mrs_share_split_table(txn.intent))
			mrs_share_split_repair(&txn);
	}
}

bool mrs_share_recount(struct mrs_txn *txn)
{
	struct links links = {.dead = txn->intent};
	bool whole;

	mrs_pool_each_slot(txn->pool, finish_splits, txn->pool);
	if (links_make(&links, txn->pool)) {
		mrs_log(MRS_LOG_ERROR, "%s: shared frames could not be counted anew: %s",
			mrs_pool_path(txn->pool), morsel_errormsg());
		return true;
	}
	count_all(&links);
	whole = settle_owed(&links, txn);
	for (uint64_t frame = 0; frame < links.frames && whole; frame++) {
		uint32_t count = links.of[frame] & ~HAS_COUNT;
		struct mrs_prop shares = {.value = count - 1};

		if (count > 1)
			mrs_prop_set(txn, frame, MRS_PROP_SHARES, &shares);
		else if (links.of[frame] & HAS_COUNT)
			mrs_prop_clear(txn, frame, MRS_PROP_SHARES, NULL);
	}
	MRS_PROBE("share.recounted");
	links_free(&links);
	return whole;
}

/* ---- check ---- */

static int check_mark(void *ctx, const struct mrs_leaf *entry, bool is_table)
{
	struct links *links = ctx;
	uint64_t frame = mrs_entry_frame(entry->entry);
	char text[160];

	if ((links->of[frame] & ~HAS_COUNT) < 2 || entry->entry & MRS_ENTRY_SHARED)
		return 0;
	snprintf(text, sizeof(text),
		 "morsel %llu: page %llu: %s %llu has several owners and is not marked as shared",
		 (unsigned long long)links->morsel->record->id, (unsigned long long)entry->page,
		 is_table ? "the table in frame" : "frame", (unsigned long long)frame);
	links->report(links->ctx, text);
	return 0;
}

static int check_marks(void *ctx, mrs_cell cell, void *memory)
{
	struct links *links = ctx;
	struct morsel morsel;

	if (!mrs_handle_init(&morsel, links->pool, cell) || !mrs_share_is_family(&morsel) ||
	    mrs_entry_state(mrs_load_acquire(&morsel.record->root)) != MRS_ENTRY_TABLE)
		return 0;
	links->morsel = &morsel;
	mrs_table_each_entry(&morsel.table, check_mark, links);
	return 0;
}

static void check_count(struct links *links, uint64_t frame)
{
	uint32_t count = links->of[frame] & ~HAS_COUNT;
	struct mrs_prop shares = {0};
	char text[160];

	mrs_prop_get(links->pool, frame, MRS_PROP_SHARES, &shares);
	if (count == 1 + shares.value)
		return;
	snprintf(text, sizeof(text), "frame %llu is linked %u times, its count says %llu",
		 (unsigned long long)frame, count, (unsigned long long)shares.value + 1);
	links->report(links->ctx, text);
}

void mrs_share_check(struct morsel_pool *pool,
		     void (*owned)(void *ctx, uint64_t frame, uint64_t count, const char *by),
		     morsel_report_fn report, void *ctx)
{
	struct links links = {.owned = owned, .report = report, .ctx = ctx};

	if (links_make(&links, pool)) {
		report(ctx, morsel_errormsg());
		return;
	}
	count_all(&links);
	for (uint64_t frame = 0; frame < links.frames; frame++)
		if (links.of[frame])
			check_count(&links, frame);
	mrs_cell_each(mrs_pool_cells(pool), MRS_CELL_RECORD, check_marks, &links);
	links_free(&links);
}

/* ---- grace ---- */

bool mrs_share_grace(struct mrs_txn *txn, struct morsel *morsel)
{
	bool parked;
	int rc;

	if (!mrs_share_is_family(morsel))
		return true;
	parked = mrs_txn_park(txn->pool);
	if (!parked)
		return true; /* a repair: the gate is closed */
	/* Pairs with the fence after a retarget's intent: it finds no way here, or we see it. */
	mrs_full_fence();
	rc = mrs_registry_settle(txn->pool, morsel->cell, 0, UINT64_MAX);
	mrs_txn_unpark(txn->pool, parked);
	return !rc;
}
