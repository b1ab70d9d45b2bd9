/*
 * Changing the size, and sealing: under the record's lock, against views by the protocol in view.c.
 *
 * Grow: frames and memory beyond the end first, then bytes, which is the instant. Shrink: bytes
 * first (step SIZING: undone by a repair), then all views are dealt with, then step CUTTING
 * (finished by a repair), then the frames go. A reader without the lock compares the version before
 * and after: it changes after bytes and before any frame goes.
 *
 * Views beyond the new end, of any process, are asked twice by mail. First whether they could let
 * go: a grant is in the way. From the instant on nobody gets a grant there (view/grant.c), so the
 * second question, to let go, meets none; what it can meet is a process that stands still, or has
 * no room for one more area. Then all is undone: the others map again what they have cut. Frames go
 * when everybody has answered, or died.
 */
#include <errno.h>
#include <stdio.h>

#include "object/internal.h"
#include "object/share.h"
#include "view/mailbox.h"
#include "view/registry.h"

#define CUT_NS 2000000000ll /* a process that does not answer stands still */

static void version_next(struct mrs_cell_record *record)
{
	/* Releases bytes; pairs with the acquire of the version by readers (info.c). */
	mrs_fetch_add(&record->format, 1ull << MRS_RECORD_VERSION_SHIFT);
}

void mrs_resize_cut(struct morsel *morsel, struct mrs_txn *txn)
{
	struct mrs_cell_record *record = morsel->record;
	uint64_t bytes = mrs_load_acquire(&record->bytes);
	uint64_t granule = mrs_record_granule(morsel->pool, record->state);
	uint64_t end = mrs_round_up(mrs_pages_in(bytes), granule);
	struct mrs_run run;

	mrs_place_trim(morsel, txn, end, true);
	MRS_PROBE("resize.trimmed");
	if (mrs_content_comes_and_goes(morsel))
		return; /* zeroed when it grows: tail.c */
	/* What stays beyond the end (the rest of a page) reads as zero when it grows again. */
	while (!mrs_table_lookup(&morsel->table, end, 1ull << MRS_GIANT_ORDER, &run) && run.mapped)
		end += run.pages;
	mrs_content_zero(morsel, bytes, end * MRS_PAGE_BYTES - bytes);
}

static int check_resize(struct morsel *morsel, uint64_t bytes)
{
	struct morsel_pool *pool = morsel->pool;
	int rc = mrs_check_writable(pool, "resizing a morsel");
	char asked[16], have[16];
	uint64_t frames;

	if (rc)
		return rc;
	frames = mrs_pool_frames_end(pool) - mrs_pool_super(pool)->frame_data;
	if (mrs_morsel_is_sealed(morsel))
		return mrs_fail(-EROFS, "the morsel is sealed: its size does not change any more");
	if (mrs_pages_in(bytes) > frames)
		return mrs_fail(-ENOSPC,
				"%s is more than the pool %s has room for (%s of number space): "
				"grow the pool or ask for less",
				mrs_bytes_text(bytes, asked), mrs_pool_path(pool),
				mrs_bytes_text(frames * MRS_PAGE_BYTES, have));
	return 0;
}

static int grow(struct morsel *morsel, struct mrs_txn *txn, uint64_t bytes)
{
	struct mrs_cell_record *record = morsel->record;
	uint64_t had = mrs_load_relaxed(&record->bytes);
	uint64_t granule = mrs_record_granule(morsel->pool, record->state);
	uint64_t first = mrs_round_up(mrs_pages_in(had), granule);
	uint64_t end = mrs_round_up(mrs_pages_in(bytes), granule);
	int rc = 0;

	if (mrs_content_comes_and_goes(morsel))
		mrs_place_trim(morsel, txn, first, true);
	if (!mrs_morsel_is_lazy(morsel) && first < end) {
		rc = mrs_place(morsel, txn, first, end);
		MRS_PROBE("resize.placed");
		if (!rc)
			rc = mrs_fill_new(morsel, txn, first, end);
		MRS_PROBE("resize.backed");
	}
	if (rc) {
		mrs_place_trim(morsel, txn, first, true);
		return rc;
	}
	/* Whoever maps the last page may have written beyond the end. */
	if (!mrs_content_comes_and_goes(morsel))
		mrs_content_zero(morsel, had, mrs_pages_in(had) * MRS_PAGE_BYTES - had);
	mrs_store_release(&record->bytes, bytes);
	version_next(record);
	MRS_PROBE("resize.grown");
	return 0;
}

/* Work under way that cannot be told: it reaches as far as the views of its process, at most. */
static int check_held(struct morsel *morsel, uint64_t bytes)
{
	struct mrs_users users;

	mrs_users_scan(morsel->pool, morsel->cell, NULL, &users);
	if (users.held_page <= mrs_pages_in(bytes))
		return 0;
	return mrs_fail(
		-EBUSY,
		"cannot shrink to %llu bytes: somebody views it up to byte %llu for work that "
		"is under way (reading, filling, advising); try again when that is done",
		(unsigned long long)bytes, (unsigned long long)(users.held_page * MRS_PAGE_BYTES));
}

static int ask_viewers(struct morsel *morsel, struct mrs_txn *txn, const struct mrs_slot_set *who,
		       uint64_t page, uint64_t arg)
{
	return mrs_mail_ask(txn, who, MRS_REQUEST_CUT, morsel->cell, page, UINT64_MAX - page, arg,
			    CUT_NS, NULL);
}

/* Every view lets go of what lies at and beyond page, or none does. */
static int ask_twice(struct morsel *morsel, struct mrs_txn *txn, uint64_t page)
{
	struct mrs_slot_set who;
	int rc;

	mrs_mail_viewers(morsel->pool, morsel->cell, page, MRS_SLOTS, &who);
	rc = ask_viewers(morsel, txn, &who, page, 0);
	MRS_PROBE("resize.asked");
	if (!rc)
		rc = ask_viewers(morsel, txn, &who, page, 1);
	MRS_PROBE("resize.views_cut");
	return rc;
}

/* Who is retargeting pages there, and had seen the larger size, goes on to his end: retarget.c, 2.
 */
static int outwait_retargets(struct morsel *morsel, uint64_t page)
{
	bool parked = mrs_txn_park(morsel->pool);
	int rc = mrs_registry_settle(morsel->pool, morsel->cell, page, UINT64_MAX);

	mrs_txn_unpark(morsel->pool, parked);
	return rc;
}

static void undo_cut(struct morsel *morsel, struct mrs_txn *txn, uint64_t had, uint64_t page)
{
	struct mrs_slot_set who;

	mrs_store_release(&morsel->record->bytes, had);
	version_next(morsel->record);
	MRS_PROBE("resize.undone");
	mrs_full_fence(); /* pairs with that of a letter that is late: view/told.c */
	mrs_mail_viewers(morsel->pool, morsel->cell, page, MRS_SLOTS, &who);
	ask_viewers(morsel, txn, &who, page, 2);
}

/* The record's handle, for who cleans up after us: views may have been cut, and nothing came of it.
 */
#define UNDONE(intent) (&(intent)->arg[3])

void mrs_resize_undo(struct morsel *morsel, struct mrs_txn *txn)
{
	uint64_t had = txn->intent->arg[0], asked = txn->intent->arg[1];

	if (asked >= had || mrs_load_acquire(&morsel->record->bytes) != asked)
		return;
	mrs_store_release(&morsel->record->bytes, had);
	version_next(morsel->record);
	mrs_store_release(UNDONE(txn->intent), morsel->cell);
}

/* One resize that was undone, in a transition of one's own. */
static void restore_views(struct morsel_pool *pool, mrs_cell cell)
{
	struct mrs_slot_set who;
	struct morsel morsel;
	struct mrs_txn txn;

	if (!mrs_handle_init(&morsel, pool, cell) ||
	    mrs_txn_begin_patiently(pool, MRS_INTENT_OTHER, &txn))
		return;
	/* Whatever page it was: what lies inside the morsel is its views' again. */
	mrs_mail_viewers(pool, cell, 0, MRS_SLOTS, &who);
	ask_viewers(&morsel, &txn, &who, 0, 2);
	mrs_txn_end(&txn);
}

void mrs_resize_restore_views(struct morsel_pool *pool, unsigned slot)
{
	struct mrs_intent *intent = mrs_pool_slot(pool, slot)->intent;
	mrs_cell undone[MRS_INTENTS_PER_SLOT];

	/* All before the first transition, which may be one of this slot's. */
	for (unsigned i = 0; i < MRS_INTENTS_PER_SLOT; i++)
		undone[i] = mrs_load_acquire(UNDONE(&intent[i]));
	for (unsigned i = 0; i < MRS_INTENTS_PER_SLOT; i++)
		if (undone[i])
			restore_views(pool, undone[i]);
	for (unsigned i = 0; i < MRS_INTENTS_PER_SLOT; i++)
		mrs_store_release(UNDONE(&intent[i]), 0);
}

static int cut_views(struct morsel *morsel, struct mrs_txn *txn, uint64_t had)
{
	uint64_t bytes = mrs_load_acquire(&morsel->record->bytes);
	uint64_t page = mrs_pages_in(bytes);
	int rc = check_held(morsel, bytes);
	char why[256];

	if (!rc) {
		rc = ask_twice(morsel, txn, page);
		if (!rc)
			rc = outwait_retargets(morsel, page);
		snprintf(why, sizeof(why), "%s", rc ? morsel_errormsg() : "");
		if (rc)
			undo_cut(morsel, txn, had, page);
		return rc ? mrs_fail(rc, "cannot shrink to %llu bytes: %s",
				     (unsigned long long)bytes, why)
			  : 0;
	}
	mrs_store_release(&morsel->record->bytes, had);
	version_next(morsel->record);
	return rc;
}

static int shrink(struct morsel *morsel, struct mrs_txn *txn, uint64_t bytes)
{
	struct mrs_cell_record *record = morsel->record;
	uint64_t had = mrs_load_relaxed(&record->bytes);
	/* A first look, so that nobody sees the smaller size where that is in vain. */
	int rc = check_held(morsel, bytes);

	if (rc)
		return rc;
	mrs_store_release(&record->bytes, bytes);
	version_next(record);
	MRS_PROBE("resize.shrunk");
	/* Pairs with the fence of publishing a view: view.c, step 3. */
	mrs_full_fence();
	rc = cut_views(morsel, txn, had);
	if (rc)
		return rc;
	mrs_store_release32(&txn->intent->step, MRS_RESIZE_CUTTING);
	MRS_PROBE("resize.cutting");
	mrs_resize_cut(morsel, txn);
	MRS_PROBE("resize.cut_done");
	return 0;
}

/*
 * Pages at the edge between the smaller size and the larger: some of them are zeroed in place, and
 * the tables on the way to them lose or gain entries. So a morsel that shares them with a clone
 * gets its own before; and no clone comes between from when the record is locked.
 */
static void find_edge(struct morsel *morsel, uint64_t bytes, uint64_t *page, uint64_t *pages)
{
	uint64_t granule = mrs_record_granule(morsel->pool, morsel->record->state);
	uint64_t end = mrs_pages_in(mrs_min(bytes, mrs_morsel_bytes(morsel)));

	*page = end - !!end;
	*pages = mrs_round_up(end, granule) - *page;
}

static int lock_with_own_edge(struct morsel *morsel, uint64_t bytes, struct mrs_txn *txn)
{
	for (;;) {
		uint64_t page, pages, shared = 0;
		int rc;

		find_edge(morsel, bytes, &page, &pages);
		rc = mrs_share_break(morsel, page, pages);
		if (!rc)
			rc = mrs_record_lock(morsel, MRS_INTENT_RESIZE, 0, txn);
		if (rc)
			return rc;
		find_edge(morsel, bytes, &page, &pages);
		for (uint64_t i = 0; i < pages; i++)
			shared += mrs_share_is_shared(morsel, page + i);
		if (!shared)
			return 0;
		mrs_record_unlock(morsel, txn);
	}
}

/* -ESTALE without words: grows, and the tail is that of another size. */
static int resize_from(struct morsel *morsel, uint64_t zeroed, uint64_t bytes)
{
	struct mrs_txn txn;
	uint64_t had;
	int rc = lock_with_own_edge(morsel, bytes, &txn);

	if (rc)
		return rc;
	had = mrs_load_acquire(&morsel->record->bytes);
	if (bytes > had && had != zeroed) {
		mrs_record_unlock(morsel, &txn);
		return -ESTALE;
	}
	/* Both before anything is changed; the step is SIZING. */
	mrs_store_release(&txn.intent->arg[1], bytes);
	mrs_store_release(&txn.intent->arg[0], had);
	MRS_PROBE("resize.noted");
	rc = check_resize(morsel, bytes);
	if (!rc && bytes > had)
		rc = grow(morsel, &txn, bytes);
	else if (!rc && bytes < had)
		rc = shrink(morsel, &txn, bytes);
	mrs_record_unlock(morsel, &txn);
	return rc;
}

static int resize_once(struct morsel *morsel, uint64_t bytes)
{
	uint64_t had;
	int rc;

	do {
		had = mrs_morsel_bytes(morsel);
		rc = bytes > had ? mrs_tail_zero(morsel, &had) : 0;
		if (!rc)
			rc = resize_from(morsel, had, bytes);
	} while (rc == -ESTALE);
	return rc;
}

int morsel_resize(struct morsel *morsel, uint64_t bytes)
{
	int rc = check_resize(morsel, bytes);

	if (rc)
		return rc;
	rc = resize_once(morsel, bytes);
	/* A dead process's views and frames are in nobody's way once it is cleaned up. */
	if ((rc == -EBUSY || rc == -ENOSPC) && mrs_pool_relieve(morsel->pool))
		rc = resize_once(morsel, bytes);
	return rc;
}

static int seal_once(struct morsel *morsel)
{
	struct mrs_cell_record *record = morsel->record;
	struct mrs_users users;
	struct mrs_txn txn;
	int rc = mrs_record_lock(morsel, MRS_INTENT_RESIZE, 0, &txn);

	if (rc)
		return rc;
	if (mrs_morsel_is_sealed(morsel))
		goto unlock;
	mrs_store_release32(&txn.intent->step, MRS_RESIZE_SEALING);
	mrs_record_set(record, MRS_RECORD_SEALED);
	MRS_PROBE("seal.set");
	/* Pairs with the fence of mrs_morsel_view_publish(): view.c, step 3. */
	mrs_full_fence();
	mrs_users_scan(morsel->pool, morsel->cell, NULL, &users);
	if (users.writable) {
		mrs_record_clear(record, MRS_RECORD_SEALED);
		rc = mrs_fail(-EBUSY, "cannot seal: somebody has a writable view; destroy it, or "
				      "let its process do so, first");
	}
	mrs_store_release32(&txn.intent->step, MRS_RESIZE_SIZING);
	MRS_PROBE("seal.decided");
unlock:
	mrs_record_unlock(morsel, &txn);
	return rc;
}

int morsel_seal(struct morsel *morsel)
{
	int rc = mrs_check_writable(morsel->pool, "sealing a morsel");

	if (rc)
		return rc;
	rc = seal_once(morsel);
	if (rc == -EBUSY && mrs_pool_relieve(morsel->pool))
		rc = seal_once(morsel);
	return rc;
}
