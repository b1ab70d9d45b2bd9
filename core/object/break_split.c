/*
 * A large leaf that several tables link becomes one table of smaller leafs that they all link.
 *
 *	table of A: [leaf f, SHARED]		[table t, SHARED] --+--> t: [leaf f + k * span]
 *	table of B: [leaf f, SHARED]	-->	[table t, SHARED] --+	    512 of them
 *
 * So each of the small frames has one owner, the new table, and the write that caused it copies
 * that table and one page, as anywhere.
 *
 *  1. The new table is complete before anything names it. It is named by the intent, and by the
 *     allocator's record until it is linked first.
 *
 *  2. All links of the leaf are found by walking the relatives to the same page, and locked: tried,
 *     never waited for while one is held. Found are as many as are counted, or all are let go.
 *
 *  3. A relative that is being freed or cut there is left alone, for it waits for retargets that
 *     were there before and expects no new ones: then the count does not fit, and we come again
 *     later.
 *
 *  4. Each link is replaced by one store. In between the same frames are linked both ways, which is
 *     no harm: nobody writes what is shared, and every link is locked or new.
 *
 *  5. Death: the step says COPIED from before the first of these stores, and then a repair does the
 *     rest. It cannot tell by the links: who had the first one may have copied the new table since,
 *     and none is left. Before that step all links are let go.
 */
#include <errno.h>
#include <time.h>

#include "object/break.h"
#include "object/internal.h"
#include "pool/property.h"

#define ENTRIES	  512u
#define LINKS_MAX 128u
#define AGAIN_NS  1000000l

struct link {
	uint64_t *place;
	uint64_t entry; /* before it was locked */
};

struct split {
	struct morsel *morsel;
	struct mrs_txn *txn;
	uint64_t page;
	unsigned level;
	uint64_t frame; /* of the leaf */
	uint64_t table; /* the new one's frame */
	struct link link[LINKS_MAX];
	unsigned links;
	bool linking;	/* in a repair: the links are to be replaced */
	uint64_t *busy; /* a link that somebody else has locked */
	uint64_t busy_entry;
	bool too_many;
};

/* ---- finding the links ---- */

uint64_t *mrs_share_find_place(struct morsel *morsel, uint64_t page, unsigned level)
{
	uint64_t *place = morsel->table.root, entry = mrs_load_acquire(place);
	unsigned at = mrs_entry_level(entry) + 1;

	if (mrs_entry_state(entry) != MRS_ENTRY_TABLE || page >= 1ull << MRS_HUGE_ORDER * at)
		return NULL;
	while (at > level) {
		uint64_t *entries;

		entry = mrs_load_acquire(place);
		if (mrs_entry_state(entry) != MRS_ENTRY_TABLE || mrs_entry_level(entry) + 1 != at)
			return NULL;
		entries = morsel->table.ops->at(morsel->table.ctx, mrs_entry_frame(entry));
		if (!entries)
			return NULL;
		at--;
		place = &entries[page >> MRS_HUGE_ORDER * at & (ENTRIES - 1)];
	}
	return place;
}

struct relatives {
	struct morsel *morsel;
	uint64_t family, page;
	bool closed; /* the gate: nobody is in the middle of anything */
	int (*fn)(void *ctx, struct morsel *relative);
	void *ctx;
};

/* Is nobody taking the page away from it? Step 3. */
static bool is_whole(const struct morsel *relative, uint64_t page)
{
	return mrs_state_of(mrs_load_acquire(&relative->record->state)) != MRS_RECORD_FREEING &&
	       mrs_morsel_pages(relative) > page;
}

static int each_relative(void *ctx, mrs_cell cell, void *memory)
{
	struct relatives *relatives = ctx;
	const struct mrs_cell_coherence *coherence = memory;
	struct morsel relative;

	if (mrs_load_acquire(&coherence->family) != relatives->family ||
	    !mrs_handle_init(&relative, relatives->morsel->pool,
			     mrs_load_acquire(&coherence->record)))
		return 0;
	if (!relatives->closed && !is_whole(&relative, relatives->page))
		return 0;
	return relatives->fn(relatives->ctx, &relative);
}

int mrs_share_each_relative(struct morsel *morsel, uint64_t page, bool closed,
			    int (*fn)(void *ctx, struct morsel *relative), void *ctx)
{
	struct relatives relatives = {
		.morsel = morsel, .page = page, .closed = closed, .fn = fn, .ctx = ctx};
	const struct mrs_cell_coherence *coherence = mrs_morsel_coherence(morsel);

	if (!coherence)
		return 0;
	relatives.family = mrs_load_acquire(&coherence->family);
	return mrs_cell_each(mrs_pool_cells(morsel->pool), MRS_CELL_COHERENCE, each_relative,
			     &relatives);
}

static bool is_leaf_of(const struct split *split, uint64_t entry)
{
	switch (mrs_entry_state(entry)) {
	case MRS_ENTRY_MAPPED:
	case MRS_ENTRY_EVICTED:
	case MRS_ENTRY_POISONED:
		return mrs_entry_frame(entry) == split->frame &&
		       mrs_entry_level(entry) == split->level;
	default:
		return false;
	}
}

static bool is_known(const struct split *split, const uint64_t *place)
{
	for (unsigned i = 0; i < split->links; i++)
		if (split->link[i].place == place)
			return true;
	return false;
}

/* ---- locking them ---- */

static int lock_link(void *ctx, struct morsel *relative)
{
	struct split *split = ctx;
	uint64_t *place = mrs_share_find_place(relative, split->page, split->level);
	uint64_t entry = place ? mrs_load_acquire(place) : 0;

	if (!place || !is_leaf_of(split, entry) || is_known(split, place))
		return 0;
	if (split->links == LINKS_MAX) {
		split->too_many = true;
		return 1;
	}
	while (!mrs_entry_lock(entry) && is_leaf_of(split, entry)) {
		if (!mrs_cas(place, &entry, mrs_entry_locked(entry, split->txn->index)))
			continue;
		split->link[split->links++] = (struct link){place, entry};
		MRS_PROBE("break.split.locking");
		return 0;
	}
	split->busy = place;
	split->busy_entry = entry;
	return 1;
}

static void unlock_links(struct split *split)
{
	while (split->links) {
		struct link *link = &split->link[--split->links];

		mrs_store_release(link->place, link->entry);
		mrs_entry_wake(split->txn->pool, link->place);
	}
}

static uint64_t counted(const struct split *split)
{
	struct mrs_prop shares = {0};

	mrs_prop_get(split->txn->pool, split->frame, MRS_PROP_SHARES, &shares);
	return shares.value + 1;
}

/* Steps 2 and 3. -EAGAIN: later, nothing is locked. */
static int lock_links(struct split *split)
{
	struct timespec pause = {.tv_nsec = AGAIN_NS};

	mrs_share_each_relative(split->morsel, split->page, false, lock_link, split);
	if (!split->busy && !split->too_many && split->links == counted(split))
		return 0;
	unlock_links(split);
	if (split->too_many)
		return mrs_fail(
			-EMLINK,
			"more than %u clones have a huge page of their own of what page %llu is "
			"in: unlink some of them",
			LINKS_MAX, (unsigned long long)split->page);
	if (split->busy && mrs_entry_lock(split->busy_entry)) {
		mrs_entry_wait(split->txn->pool, split->busy, split->busy_entry);
	} else {
		/* Who has counted a link and not made it may be dead. */
		nanosleep(&pause, NULL);
		mrs_reap_repair(split->txn->pool);
	}
	return -EAGAIN;
}

/* ---- replacing them ---- */

static uint64_t table_entry(const struct split *split)
{
	return mrs_entry_make(MRS_ENTRY_TABLE, split->level - 1, split->table) | MRS_ENTRY_SHARED;
}

/* What one link calls evicted may be resident by another, and is dirty if one of them says so. */
static void fill_table(struct split *split, uint64_t *entries)
{
	uint64_t span = 1ull << MRS_HUGE_ORDER * (split->level - 1);
	uint64_t dirty = 0, state = mrs_entry_state(split->link[0].entry);

	for (unsigned i = 0; i < split->links; i++) {
		dirty |= split->link[i].entry & MRS_ENTRY_DIRTY;
		if (mrs_entry_state(split->link[i].entry) == MRS_ENTRY_MAPPED)
			state = MRS_ENTRY_MAPPED;
	}
	for (unsigned i = 0; i < ENTRIES; i++)
		mrs_store_relaxed(&entries[i],
				  mrs_entry_make((enum mrs_entry_state)state, split->level - 1,
						 split->frame + i * span) |
					  dirty);
	MRS_PROBE("break.split.filled");
}

/* Step 4. */
static int replace_links(struct split *split)
{
	struct mrs_txn *txn = split->txn;
	uint64_t now;
	int rc = mrs_prop_add(txn, split->table, MRS_PROP_SHARES, (int64_t)split->links - 1, &now);

	if (rc)
		return rc;
	mrs_store_release32(&txn->intent->step, MRS_RETARGET_BREAK << 8 | MRS_RETARGET_COPIED);
	mrs_compiler_barrier();
	MRS_PROBE("break.split.linking");
	for (unsigned i = 0; i < split->links; i++) {
		/* Release: who finds the table finds its entries. */
		mrs_store_release(split->link[i].place, table_entry(split));
		MRS_PROBE("break.split.linked");
		if (!i)
			mrs_txn_settle(txn);
		mrs_entry_wake(txn->pool, split->link[i].place);
	}
	mrs_prop_add(txn, split->frame, MRS_PROP_SHARES, 1 - (int64_t)split->links, &now);
	mrs_place_drop_deposit(txn, split->frame);
	mrs_fetch_add(&mrs_pool_state(txn->pool)->count[MRS_COUNT_SPLITS], 1);
	mrs_fetch_add(&mrs_morsel_coherence(split->morsel)->shape, 1);
	split->links = 0;
	return 0;
}

/* Named for the repair before the first is locked. */
static void note(const struct split *split)
{
	struct mrs_intent *intent = split->txn->intent;

	mrs_store_release(&intent->arg[0], split->page);
	mrs_store_release(&intent->arg[1], split->level);
	mrs_store_release(&intent->expected, split->frame);
	mrs_store_release(&intent->destination, split->table);
	mrs_compiler_barrier();
	MRS_PROBE("break.split.noted");
}

static void unnote(const struct split *split)
{
	mrs_store_release(&split->txn->intent->destination, 0);
	mrs_compiler_barrier();
	mrs_store_release32(&split->txn->intent->step,
			    MRS_RETARGET_BREAK << 8 | MRS_RETARGET_LOCKING);
}

int mrs_share_split(struct morsel *morsel, struct mrs_txn *txn, const struct mrs_leaf *leaf)
{
	struct split split = {
		.morsel = morsel,
		.txn = txn,
		.page = leaf->page,
		.level = leaf->level,
		.frame = mrs_entry_frame(leaf->entry),
	};
	int rc = mrs_prop_reserve(txn, 1);

	if (!rc)
		rc = mrs_txn_get_table(txn, &split.table);
	if (rc)
		return rc;
	note(&split);
	rc = lock_links(&split);
	MRS_PROBE("break.split.locked");
	if (!rc) {
		fill_table(&split, morsel->table.ops->at(morsel->table.ctx, split.table));
		rc = replace_links(&split);
	}
	if (rc) {
		unlock_links(&split);
		mrs_place_unget(txn, 0, split.table, true);
		mrs_txn_settle(txn);
	}
	unnote(&split);
	return rc;
}

/* ---- repair: step 5 ---- */

static int finish_link(void *ctx, struct morsel *relative)
{
	struct split *split = ctx;
	uint64_t *place = mrs_share_find_place(relative, split->page, split->level);
	uint64_t entry = place ? mrs_load_acquire(place) : 0;

	if (!place || !is_leaf_of(split, entry) || mrs_entry_lock(entry) != split->txn->index + 1)
		return 0;
	mrs_store_release(place,
			  split->linking ? table_entry(split) : mrs_entry_unlocked(entry));
	mrs_entry_wake(split->txn->pool, place);
	MRS_PROBE("repair.split");
	return 0;
}

uint64_t mrs_share_split_table(const struct mrs_intent *intent)
{
	uint32_t step = mrs_load_acquire32(&intent->step);
	uint64_t table = mrs_load_acquire(&intent->destination);

	if (mrs_load_acquire32(&intent->op) != MRS_INTENT_RETARGET || table & MRS_BREAK_NOTE ||
	    step != (MRS_RETARGET_BREAK << 8 | MRS_RETARGET_COPIED))
		return 0;
	return table;
}

void mrs_share_split_repair(struct mrs_txn *txn)
{
	const struct mrs_intent *intent = txn->intent;
	struct morsel morsel;
	struct split split = {
		.morsel = &morsel,
		.txn = txn,
		.page = intent->arg[0],
		.level = (unsigned)intent->arg[1],
		.frame = intent->expected,
		.table = intent->destination,
		.linking = mrs_share_split_table(intent),
	};

	if (!intent->destination || intent->destination & MRS_BREAK_NOTE || split.level < 1 ||
	    split.level >= MRS_TABLE_LEVELS ||
	    !mrs_handle_init(&morsel, txn->pool, intent->cell[0]))
		return;
	mrs_share_each_relative(&morsel, split.page, true, finish_link, &split);
}
