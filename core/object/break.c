/*
 * Breaking: the first write after a clone makes tables and page the writer's own. See share.h.
 *
 *  1. One transition (RETARGET, kind BREAK) per page: intent, full fence, look whether a clone is
 *     under way (then step out and wait), then from the root down. Pairs with the fence of the
 *     clone, which announces itself and then waits for retargets that were there: no break is half
 *     done while a root is shared, and a break that follows finds it SHARED.
 *
 *  2. A shared table is copied under the lock of its entry 0, which all its owners see: of two
 *     owners that want their own one waits, and then may find that it is alone. Copying needs each
 *     entry unlocked for an instant: who holds one (an evict, a fill) waits for nobody's leaf, so
 *     we get it.
 *
 *  3. Each entry: count one link more, mark it SHARED in the old table, copy it with the mark. So
 *     when the copy is linked, everything that both tables name is counted and marked on both
 *     sides. What the old table's entry becomes afterwards (evicted pages filled for the others)
 *     need not reach the copy: a frame that has others is not evicted, and a fill keeps what is
 *     resident.
 *
 *  4. The old table is named (putting) before the link goes, and given up after. Whoever was last
 *     takes it apart, after everybody who may have come by another owner's way is gone (grace).
 *
 *  5. A shared page has the same bytes until it is shared no more: every writable view of every
 *     owner is protected there. So it may be copied before its leaf is locked.
 *
 *  6. The new frame is DIRTY and linked under the leaf's lock; the old one is given up last.
 *
 *  7. Death: no page's content has changed. Locks go in mrs_share_repair(), counts in
 *     mrs_share_recount(). Frames are named by the allocator's record until they are linked, and
 *     from before they are unlinked by what is owed (owe.c): so it is known that a link may be gone
 *     and still counted, and that another owner, who gave up his own meanwhile, left the frame to
 *     us.
 *
 *  8. Death between a page's new link and the answer of the last view that follows: some processes
 *     show the new frame, and may have written to it, others still the old one. So there is no way
 *     back, and the leaf stays locked, and the old frame counted, until they have followed. The
 *     repair asks them in the dead one's name, and comes again.
 *
 *  9. Counts are made anew after anybody's death, and a break of a living process may be parked
 *     then. While it waits for an entry (3) the entries of its copy are counted, and nothing links
 *     the copy; while it waits for views to follow, the old frame is unlinked and not given up.
 *     Both are noted in the intent from before until after (break.h), and whoever counts adds them.
 *     Where a note and a link say the same, nobody waits, so only the dead can be found there: the
 *     count is too high until their own repair, which leaves their notes out.
 */
#include <errno.h>
#include <string.h>

#include "object/break.h"
#include "object/internal.h"
#include "pool/property.h"
#include "swap/swap.h"
#include "view/follow.h"
#include "view/registry.h"

#define ENTRIES 512u

static uint64_t span_of(unsigned level)
{
	return 1ull << MRS_HUGE_ORDER * level;
}

static unsigned index_of(uint64_t page, unsigned level)
{
	return page >> MRS_HUGE_ORDER * level & (ENTRIES - 1);
}

static uint64_t *entries_of(struct morsel *morsel, uint64_t frame)
{
	return morsel->table.ops->at(morsel->table.ctx, frame);
}

static int damaged(uint64_t page)
{
	return mrs_fail(-EINVAL,
			"the page table is damaged at page %llu; `morsel pool check` lists all "
			"damage",
			(unsigned long long)page);
}

/* ---- locks of single entries, any kind of entry ---- */

/* Step 2. -EAGAIN: the entry was locked, and has been waited for. */
static int lock_place(struct mrs_txn *txn, uint64_t *place, uint64_t table, unsigned index)
{
	uint64_t entry = mrs_load_acquire(place);

	mrs_store_release(&txn->intent->leaf, table << 9 | index);
	mrs_compiler_barrier();
	MRS_PROBE("break.lock.noted");
	while (!mrs_entry_lock(entry)) {
		if (mrs_entry_state(entry) == MRS_ENTRY_STALE)
			return -EAGAIN;
		if (mrs_cas(place, &entry, mrs_entry_locked(entry, txn->index)))
			return 0;
	}
	mrs_entry_wait(txn->pool, place, entry);
	return -EAGAIN;
}

static void unlock_place(struct mrs_txn *txn, uint64_t *place)
{
	uint64_t entry = mrs_load_acquire(place);

	while (mrs_entry_lock(entry) == txn->index + 1 &&
	       !mrs_cas(place, &entry, mrs_entry_unlocked(entry)))
		;
	mrs_entry_wake(txn->pool, place);
}

/* ---- what is counted and not linked, and the reverse: break.h ---- */

static void note_copy(struct mrs_txn *txn, uint64_t table)
{
	mrs_store_release(&txn->intent->destination, table | MRS_BREAK_NOTE);
	mrs_compiler_barrier();
}

static void unnote_copy(struct mrs_txn *txn)
{
	mrs_compiler_barrier();
	mrs_store_release(&txn->intent->destination, 0);
}

/* ---- tables ---- */

struct copy {
	struct morsel *morsel;
	struct mrs_txn *txn;
	uint64_t *place; /* where the shared table is linked */
	uint64_t entry;	 /* what stands there */
	uint64_t *from, *to;
	uint64_t frame; /* of to */
	bool linked;
};

/* One entry: step 3. */
static int copy_entry(struct copy *copy, unsigned i)
{
	uint64_t entry = mrs_load_acquire(&copy->from[i]), frame;
	int rc;

	for (;;) {
		if (i && mrs_entry_lock(entry)) {
			mrs_entry_wait(copy->txn->pool, &copy->from[i], entry);
			entry = mrs_load_acquire(&copy->from[i]);
			continue;
		}
		if (mrs_entry_state(entry) == MRS_ENTRY_EMPTY)
			return 0;
		if (mrs_entry_state(entry) == MRS_ENTRY_STALE)
			return -EAGAIN;
		frame = mrs_entry_frame(entry);
		rc = mrs_share_add(copy->txn, frame);
		if (rc)
			return rc;
		if (mrs_cas(&copy->from[i], &entry, entry | MRS_ENTRY_SHARED))
			break;
		mrs_share_drop(copy->txn, frame);
	}
	mrs_store_relaxed(&copy->to[i], mrs_entry_unlocked(entry) | MRS_ENTRY_SHARED);
	return 0;
}

static int copy_entries(struct copy *copy)
{
	int rc = 0;

	for (unsigned i = 0; i < ENTRIES && !rc; i++)
		rc = copy_entry(copy, i);
	MRS_PROBE("break.table.copied");
	return rc;
}

/*
 * The old table turned out to be linked nowhere else. From here on this is no retarget any more, so
 * that it may wait for those that are: none of them waits for it.
 */
static void bury_table(struct copy *copy)
{
	struct mrs_intent *intent = copy->txn->intent;

	MRS_PROBE("break.table.burying");
	if (mrs_load_relaxed32(&intent->op) == MRS_INTENT_RETARGET) {
		mrs_store_release(&intent->cell[0], 0);
		mrs_store_release32(&intent->step, 0);
		mrs_store_release32(&intent->op, MRS_INTENT_OTHER);
	}
	while (!mrs_share_grace(copy->txn, copy->morsel))
		;
	mrs_share_bury(copy->txn);
}

static void table_replaced(struct morsel *morsel)
{
	struct mrs_cell_coherence *coherence = mrs_morsel_coherence(morsel);

	mrs_fetch_add(&coherence->shape, 1);
	mrs_fetch_add(&mrs_pool_state(morsel->pool)->count[MRS_COUNT_COW_TABLES], 1);
}

/* The copy takes the place of the shared table: step 4. The table's entry 0 is unlocked after. */
static int link_copy(struct copy *copy)
{
	struct mrs_txn *txn = copy->txn;
	uint64_t seen = copy->entry, old = mrs_entry_frame(copy->entry);
	bool last;

	mrs_txn_put_begin(txn, 0, old);
	mrs_share_owe(txn, 0, old, true);
	MRS_PROBE("break.table.named");
	/* Release: who finds the copy finds its entries. */
	copy->linked =
		mrs_cas(copy->place, &seen,
			mrs_entry_make(MRS_ENTRY_TABLE, mrs_entry_level(copy->entry), copy->frame));
	if (!copy->linked) {
		mrs_share_owe_nothing(txn);
		mrs_txn_put_cancel(txn);
		return -EAGAIN;
	}
	unnote_copy(txn);
	table_replaced(copy->morsel);
	MRS_PROBE("break.table.linked");
	mrs_txn_settle(txn);
	last = mrs_share_drop(txn, old);
	MRS_PROBE("break.table.dropped");
	unlock_place(txn, &copy->from[0]);
	if (last) {
		bury_table(copy);
		return -EAGAIN;
	}
	mrs_share_owe_nothing(txn);
	mrs_txn_put_cancel(txn);
	return 0;
}

/* Entry 0 of the old table is locked. */
static int replace_table(struct copy *copy)
{
	int rc = -EAGAIN;

	MRS_PROBE("break.table.locked");
	if (mrs_load_acquire(copy->place) == copy->entry &&
	    mrs_share_has_others(copy->txn->pool, mrs_entry_frame(copy->entry))) {
		note_copy(copy->txn, copy->frame);
		rc = copy_entries(copy);
	}
	if (!rc)
		rc = link_copy(copy);
	if (!copy->linked)
		unlock_place(copy->txn, &copy->from[0]);
	return rc;
}

/*
 * The shared table that *place links becomes the morsel's own: 0, *place is to be read again;
 * -EAGAIN: somebody was in the way, or the transition is no retarget any more: once more from the
 * start.
 */
static int own_table(struct morsel *morsel, struct mrs_txn *txn, uint64_t *place, uint64_t entry)
{
	struct copy copy = {.morsel = morsel, .txn = txn, .place = place, .entry = entry};
	uint64_t old = mrs_entry_frame(entry);
	int rc;

	if (!mrs_share_has_others(txn->pool, old)) {
		mrs_cas(place, &entry, entry & ~MRS_ENTRY_SHARED);
		return 0;
	}
	rc = mrs_prop_reserve(txn, ENTRIES);
	if (!rc)
		rc = mrs_txn_get_table(txn, &copy.frame);
	if (rc)
		return rc;
	MRS_PROBE("break.table.got");
	copy.from = entries_of(morsel, old);
	copy.to = entries_of(morsel, copy.frame);
	rc = copy.from && copy.to ? lock_place(txn, &copy.from[0], old, 0) : damaged(0);
	if (!rc)
		rc = replace_table(&copy);
	if (copy.linked)
		return rc;
	/* As a table that was linked last: other owners of what it names may have gone meanwhile. */
	mrs_share_owe(txn, 0, copy.frame, true);
	unnote_copy(txn);
	mrs_share_bury(txn);
	mrs_txn_settle(txn);
	return rc;
}

/* Down to the leaf at page; every table on the way is the morsel's own after. Errors of
 * own_table(). */
int mrs_share_own_way(struct morsel *morsel, struct mrs_txn *txn, uint64_t page,
		      struct mrs_leaf *leaf)
{
	uint64_t *place = morsel->table.root, entry = mrs_load_acquire(place);
	unsigned level = mrs_entry_level(entry) + 1;

	*leaf = (struct mrs_leaf){.page = page};
	if (mrs_entry_state(entry) != MRS_ENTRY_TABLE || page >= span_of(level))
		return 0;
	for (;;) {
		uint64_t *entries;
		int rc = 0;

		entry = mrs_load_acquire(place);
		if (mrs_entry_state(entry) == MRS_ENTRY_STALE)
			return -EAGAIN;
		if (mrs_entry_problem(entry, level))
			return damaged(page);
		if (mrs_entry_state(entry) != MRS_ENTRY_TABLE)
			break;
		if (entry & MRS_ENTRY_SHARED) {
			rc = own_table(morsel, txn, place, entry);
			if (rc)
				return rc;
			continue;
		}
		leaf->table = mrs_entry_frame(entry);
		entries = entries_of(morsel, leaf->table);
		if (!entries)
			return damaged(page);
		leaf->index = index_of(page, --level);
		place = &entries[leaf->index];
	}
	leaf->place = place;
	leaf->entry = entry;
	leaf->level = level;
	leaf->page = mrs_round_down(page, span_of(level));
	leaf->shared = entry & MRS_ENTRY_SHARED;
	return 0;
}

int mrs_share_own_tables(struct morsel *morsel, struct mrs_txn *txn, uint64_t page)
{
	struct mrs_leaf leaf;
	int rc;

	if (!mrs_share_is_family(morsel))
		return 0;
	do
		rc = mrs_share_own_way(morsel, txn, page, &leaf);
	while (rc == -EAGAIN);
	return rc;
}

/* ---- beginning beside clones ---- */

/* Step 1. */
static bool is_frozen(struct morsel *morsel, const struct mrs_txn *txn, uint64_t *by)
{
	const struct mrs_cell_coherence *coherence = mrs_morsel_coherence(morsel);

	mrs_full_fence();
	*by = coherence ? mrs_load_acquire(&coherence->frozen) : 0;
	return *by && *by != txn->index + 1;
}

/* What a break moves is one page; what else it replaces are tables, which no view sees. */
static void announce(struct morsel *morsel, struct mrs_txn *txn, uint64_t page)
{
	struct mrs_intent *intent = txn->intent;

	if (mrs_load_relaxed32(&intent->op) == MRS_INTENT_RETARGET) {
		mrs_store_release(&intent->page, mrs_round_down(page, ENTRIES));
		mrs_store_release(&intent->count, 1);
		mrs_store_release32(&intent->step, MRS_RETARGET_BREAK << 8 | MRS_RETARGET_LOCKING);
	}
	mrs_store_release(&intent->cell[0], morsel->cell);
}

int mrs_share_begin(struct morsel *morsel, enum mrs_intent_op op, uint64_t page,
		    struct mrs_txn *txn)
{
	for (;;) {
		uint64_t by;
		int rc = mrs_txn_begin(morsel->pool, op, txn);

		if (rc)
			return rc;
		announce(morsel, txn, page);
		if (!is_frozen(morsel, txn, &by))
			return 0;
		mrs_txn_end(txn);
		MRS_PROBE("break.frozen");
		mrs_pool_wait_word(morsel->pool, &mrs_morsel_coherence(morsel)->frozen, by);
	}
}

/* ---- pages ---- */

/* One page (or huge page) on its way from a frame that has others to one of its own. */
struct page {
	struct morsel *morsel;
	struct mrs_txn *txn;
	struct mrs_leaf leaf;
	unsigned order;
	uint64_t old, frame;
};

static struct page page_of(struct morsel *morsel, struct mrs_txn *txn, const struct mrs_leaf *leaf)
{
	return (struct page){
		.morsel = morsel,
		.txn = txn,
		.leaf = *leaf,
		.order = leaf->level * MRS_HUGE_ORDER,
		.old = mrs_entry_frame(leaf->entry),
	};
}

static uint64_t pages_of(const struct page *page)
{
	return 1ull << page->order;
}

/* Beside the page before it, if that is private and the place is free: then views need fewer areas.
 */
static int get_frames(struct page *page)
{
	enum mrs_frame_class class = page->order ? MRS_FRAME_HUGE : MRS_FRAME_MOVABLE;
	uint64_t hint = 0;

	if (!page->order && page->leaf.index) {
		uint64_t before = mrs_load_acquire(page->leaf.place - 1);

		if (mrs_entry_state(before) == MRS_ENTRY_MAPPED && !(before & MRS_ENTRY_SHARED))
			hint = mrs_entry_frame(before) + 1;
	}
	if (hint && mrs_place_is_free(page->morsel->pool, hint, 0) &&
	    !mrs_txn_get_at(page->txn, 0, hint)) {
		page->frame = hint;
		return 0;
	}
	return mrs_txn_get(page->txn, page->order, class, hint, &page->frame);
}

/* Of a page that is evicted: what the swap target has, which is what memory would have. */
static int load_content(struct page *page, unsigned char *to)
{
	struct morsel_pool *pool = page->morsel->pool;
	struct mrs_swap *swap = mrs_swap_of(pool);
	int rc = swap ? 0 : -EIO;

	for (uint64_t i = 0; !rc && i < pages_of(page); i++) {
		struct mrs_swap_page load;
		struct mrs_prop prop;

		if (!mrs_prop_get(pool, page->old + i, MRS_PROP_SWAP, &prop)) {
			memcpy(to + i * MRS_PAGE_BYTES, mrs_pool_at(pool, page->old + i, 1),
			       MRS_PAGE_BYTES);
			continue;
		}
		load = (struct mrs_swap_page){.slot = prop.value, .crc = (uint32_t)prop.aux};
		rc = mrs_swap_load_one(swap, &load, to + i * MRS_PAGE_BYTES);
	}
	return rc ? mrs_fail(-EIO, "page %llu cannot be read from its swap target",
			     (unsigned long long)page->leaf.page)
		  : 0;
}

/* Step 5. */
static int copy_content(struct page *page)
{
	struct morsel_pool *pool = page->morsel->pool;
	uint64_t bytes = pages_of(page) * MRS_PAGE_BYTES;
	uint64_t at = page->old * MRS_PAGE_BYTES, end = at + bytes, next;
	unsigned char *from = mrs_pool_at(pool, page->old, pages_of(page));
	unsigned char *to = mrs_pool_at(pool, page->frame, pages_of(page));

	if (!from || !to)
		return damaged(page->leaf.page);
	if (mrs_entry_state(page->leaf.entry) == MRS_ENTRY_EVICTED)
		return load_content(page, to);
	/* Memory that was given back is not taken anew by looking at it. */
	if (!(mrs_load_relaxed(&page->morsel->record->state) & MRS_RECORD_THIN)) {
		memcpy(to, from, bytes);
		return 0;
	}
	for (; mrs_pool_next_content(pool, &at, end, &next); at = next)
		memcpy(to + (at - page->old * MRS_PAGE_BYTES),
		       from + (at - page->old * MRS_PAGE_BYTES), next - at);
	return 0;
}

/* The frames are got, with memory and content, and nobody else knows of them. */
static int make_copy(struct page *page)
{
	unsigned flags = page->order ? MRS_BACK_HUGE : 0;
	int rc = get_frames(page);

	if (rc)
		return rc;
	MRS_PROBE("break.page.got");
	rc = mrs_pool_back(page->txn, page->frame, pages_of(page), flags, NULL);
	if (rc) {
		mrs_place_unget(page->txn, page->order, page->frame, false);
		return rc;
	}
	MRS_PROBE("break.page.backed");
	rc = copy_content(page);
	if (rc)
		mrs_place_unget(page->txn, page->order, page->frame, true);
	MRS_PROBE("break.page.copied");
	return rc;
}

/* The frame that was shared: given back if we were the last after all. It is named as putting. */
static void give_up_old(struct page *page)
{
	struct mrs_txn *txn = page->txn;
	bool last = mrs_share_drop(txn, page->old);

	if (!last) {
		mrs_share_owe_nothing(txn);
		mrs_txn_put_cancel(txn);
		return;
	}
	MRS_PROBE("break.page.last");
	mrs_share_bury(txn);
}

/* Step 6. The leaf is locked. */
static void link_page(struct page *page)
{
	struct mrs_txn *txn = page->txn;
	uint64_t entry =
		mrs_entry_make(MRS_ENTRY_MAPPED, page->leaf.level, page->frame) | MRS_ENTRY_DIRTY;

	/* Of a huge page: a table that was kept for splitting it, which nobody will. */
	mrs_place_drop_deposit(txn, page->old);
	/* Whose views follow. */
	mrs_store_release(&txn->intent->cell[1], page->morsel->cell);
	mrs_txn_put_begin(txn, page->order, page->old);
	mrs_share_owe(txn, page->order, page->old, false);
	MRS_PROBE("break.page.named");
	/* Release: who finds the frame finds its content. */
	mrs_store_release(page->leaf.place, mrs_entry_locked(entry, txn->index));
	MRS_PROBE("break.page.linked");
	mrs_txn_settle(txn);
}

/* No view has followed, for the first could not: everything as it was. The leaf is locked. */
static void unlink_page(struct page *page)
{
	struct mrs_txn *txn = page->txn;

	mrs_txn_put_cancel(txn);
	mrs_txn_put_begin(txn, page->order, page->frame);
	mrs_store_release(page->leaf.place, mrs_entry_locked(page->leaf.entry, txn->index));
	mrs_share_owe_nothing(txn);
	MRS_PROBE("break.page.unlinked");
	mrs_pool_unback(txn->pool, page->frame, pages_of(page));
	mrs_txn_put_end(txn);
}

static int replace_page(struct page *page)
{
	uint64_t now;
	int rc = make_copy(page);

	if (rc)
		return rc;
	rc = lock_place(page->txn, page->leaf.place, page->leaf.table, page->leaf.index);
	if (rc)
		goto unget;
	MRS_PROBE("break.page.locked");
	now = mrs_entry_unlocked(mrs_load_acquire(page->leaf.place));
	if (now != page->leaf.entry) {
		rc = -EAGAIN;
		goto unlock;
	}
	link_page(page);
	rc = mrs_share_follow(page->morsel, page->txn, page->leaf.page, pages_of(page),
			      page->frame);
	if (rc) {
		unlink_page(page);
	} else {
		give_up_old(page);
		mrs_fetch_add(&mrs_pool_state(page->txn->pool)->count[MRS_COUNT_COW_BREAKS], 1);
	}
	MRS_PROBE("break.page.dropped");
	unlock_place(page->txn, page->leaf.place);
	return rc;
unlock:
	unlock_place(page->txn, page->leaf.place);
unget:
	mrs_place_unget(page->txn, page->order, page->frame, true);
	mrs_txn_settle(page->txn);
	return rc;
}

static uint64_t granule_of(const struct morsel *morsel)
{
	return mrs_record_granule(morsel->pool, mrs_load_relaxed(&morsel->record->state));
}

int mrs_share_copy(struct morsel *morsel, struct mrs_txn *txn, const struct mrs_leaf *leaf,
		   uint64_t *frame)
{
	struct page page = page_of(morsel, txn, leaf);
	int rc = make_copy(&page);

	if (!rc)
		*frame = page.frame;
	return rc;
}

int mrs_share_replace(struct morsel *morsel, struct mrs_txn *txn, const struct mrs_leaf *leaf)
{
	struct page page = page_of(morsel, txn, leaf);

	return replace_page(&page);
}

/* The tables on the way are private. 0: the page is, or there is none; *pages were looked at. */
static int break_leaf(struct morsel *morsel, struct mrs_txn *txn, const struct mrs_leaf *leaf)
{
	struct page page = page_of(morsel, txn, leaf);
	uint64_t seen = leaf->entry;
	int rc;

	if (!leaf->place || !(seen & MRS_ENTRY_SHARED))
		return 0;
	if (mrs_entry_lock(seen)) {
		mrs_entry_wait(txn->pool, leaf->place, seen);
		return -EAGAIN;
	}
	if (!mrs_share_has_others(txn->pool, page.old))
		return mrs_cas(leaf->place, &seen, seen & ~MRS_ENTRY_SHARED) ? 0 : -EAGAIN;
	switch (mrs_entry_state(seen)) {
	case MRS_ENTRY_POISONED:
		return mrs_fail(-EIO, "page %llu has lost its content",
				(unsigned long long)leaf->page);
	default:
		break;
	}
	if (pages_of(&page) <= granule_of(morsel)) {
		if (!mrs_share_must_keep(morsel, leaf))
			return replace_page(&page);
		rc = mrs_share_keep(morsel, txn, leaf);
		/* A relative has to keep the frame: then our views follow, if they can. */
		if (rc == -EBUSY)
			rc = mrs_share_make_mobile(morsel, txn, leaf);
		else
			return rc;
		return rc ? rc : replace_page(&page);
	}
	rc = mrs_share_split(morsel, txn, leaf);
	return rc ? rc : -EAGAIN;
}

/* One page, or the huge page around it; *next is the page after what was made private. */
static int break_page(struct morsel *morsel, uint64_t page, uint64_t *next)
{
	struct mrs_leaf leaf;
	struct mrs_txn txn;
	int rc;

	do {
		rc = mrs_share_begin(morsel, MRS_INTENT_RETARGET, page, &txn);
		if (rc)
			return rc;
		rc = mrs_share_own_way(morsel, &txn, page, &leaf);
		if (!rc)
			rc = break_leaf(morsel, &txn, &leaf);
		mrs_txn_end(&txn);
	} while (rc == -EAGAIN);
	*next = leaf.page + span_of(leaf.level);
	return rc;
}

int mrs_share_break(struct morsel *morsel, uint64_t page, uint64_t pages)
{
	uint64_t end = page + pages;
	int rc = 0;

	if (!mrs_share_is_family(morsel))
		return 0;
	while (!rc && page < end)
		rc = break_page(morsel, page, &page);
	return rc;
}

/* ---- repair ---- */

/* Pages of the leaf at place that the dead one has locked, on frames of its own by now: how many.
 */
static uint64_t linked_pages(struct mrs_txn *txn, const uint64_t *place)
{
	uint64_t entry = mrs_load_acquire(place);
	struct mrs_owed owed;

	if (!mrs_share_owed(txn->intent, &owed) || owed.is_table ||
	    mrs_entry_lock(entry) != txn->index + 1 || mrs_entry_frame(entry) == owed.frame)
		return 0;
	return 1ull << owed.order;
}

bool mrs_share_repair(struct mrs_txn *txn)
{
	const struct mrs_intent *intent = txn->intent;
	uint64_t *entries, *place, pages;

	mrs_share_split_repair(txn);
	entries = intent->leaf ? mrs_object_table_ops.at(txn->pool, intent->leaf / ENTRIES) : NULL;
	if (!entries)
		return true;
	place = &entries[intent->leaf % ENTRIES];
	pages = linked_pages(txn, place);
	if (pages && !mrs_share_follow_repair(
			     txn, intent->page + (pages == 1 ? intent->leaf % ENTRIES : 0), pages))
		return false;
	unlock_place(txn, place);
	MRS_PROBE("repair.break");
	return true;
}
