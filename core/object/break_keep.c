/*
 * Who gets the copy.
 *
 * The writer gets it, unless his frame must stay where it is: views of his in several places would
 * see the new frame one after the other, and in between he could write through one what another
 * does not show; an address in a pooled view is its frame; a device's grant and a view in no list
 * do not follow. Then the relatives give way, to whom the page is as good on any frame:
 *
 *  1 each that has views of the page gets a copy of its own, which its views follow, in this
 * process at once, in others by mail. They hold nothing back: what they show is private to them
 * from then on; 2 the others go on sharing one copy, link by link: nobody looks at them through a
 * mapping; 3 when nobody else links the frame it is the writer's, where it is, and his views never
 * noticed.
 *
 * A grant holds its page to the frame, for what the kernel does on it by reference (vmsplice, a
 * registered buffer) does not follow: the relatives of who has one give way, and none that has one
 * does. Two relatives that have grants of one shared page cannot both be served: the writer's page
 * goes to another frame then, and what the kernel still has of it may be written by the other one.
 *
 * Where a relative's views must keep the frame, the writer's follow after all, acknowledged before
 * his leaf is unlocked: for that instant what is written through one of them is not in the others
 * yet. A process that is stopped and has a view of a relative there is in the way until it is
 * continued or killed.
 *
 * Both must only while a relative has a grant through a view of the CPU: then the write waits for
 * its release. For a pooled view is made, and a device's grant given, over pages that are the
 * morsel's own; so of those who share a page only the one that had it first is held to its frame by
 * them. A device's view without a grant there forgets the page when it is asked.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "object/break.h"
#include "object/internal.h"
#include "pool/property.h"
#include "view/follow.h"
#include "view/mailbox.h"
#include "view/registry.h"

#define ASK_NS	 2000000000ll
#define AGAIN_NS 1000000l

/* ---- whose views are where ---- */

struct viewers {
	struct morsel *morsel;
	unsigned views;
	bool fixed;  /* one of them does not follow */
	bool mailed; /* one of them forgets the page when it is asked, unless it is granted */
	bool others; /* in another process */
	struct mrs_slot_set who, mail;
};

static int look_at_view(void *ctx, const struct mrs_seen_view *view)
{
	struct viewers *viewers = ctx;

	if (view->record != viewers->morsel->cell)
		return 0;
	viewers->views++;
	viewers->fixed |= view->flags & MRS_VIEW_POOLED;
	if (view->flags & MRS_VIEW_BY_MAIL) {
		viewers->mailed = true;
		mrs_slot_set_add(&viewers->mail, view->slot);
	}
	if (view->slot != mrs_pool_own_slot(viewers->morsel->pool)) {
		viewers->others = true;
		mrs_slot_set_add(&viewers->who, view->slot);
	}
	return 0;
}

static void find_viewers(struct morsel *morsel, uint64_t page, uint64_t pages,
			 struct viewers *viewers)
{
	const struct mrs_cell_coherence *coherence = mrs_morsel_coherence(morsel);

	*viewers = (struct viewers){
		.morsel = morsel,
		.fixed = mrs_load_acquire(&coherence->views) & MRS_COHERENCE_KEEPS,
	};
	mrs_registry_each(morsel->pool, mrs_load_acquire(&coherence->family), page, page + pages,
			  look_at_view, viewers);
}

/* Those of other processes are through views of theirs, which are others anyway. */
static bool has_own_grant(struct morsel *morsel, const struct mrs_leaf *leaf)
{
	struct morsel_pool *pool = morsel->pool;

	return mrs_load_acquire(&mrs_pool_slot(pool, mrs_pool_own_slot(pool))->pins) &&
	       mrs_registry_granted(pool, morsel->cell, leaf->page,
				    leaf->page + (1ull << MRS_HUGE_ORDER * leaf->level));
}

/*
 * After the intent's fence (mrs_share_begin): a view that is listed later waits for the intent, and
 * then finds that pages have moved. What was found holds while state.registry stands still.
 */
bool mrs_share_must_keep(struct morsel *morsel, const struct mrs_leaf *leaf)
{
	uint64_t now = mrs_load_acquire(&mrs_pool_state(morsel->pool)->registry) + 1;
	struct viewers viewers;

	if (has_own_grant(morsel, leaf))
		return true;
	if (mrs_load_relaxed(&morsel->alone_at) == now)
		return false;
	find_viewers(morsel, 0, UINT64_MAX, &viewers);
	if (viewers.views > 1 || viewers.fixed || viewers.mailed || viewers.others)
		return true;
	mrs_store_relaxed(&morsel->alone_at, now);
	return false;
}

/*
 * The other targets' views forget the page. -EBUSY in words: it is granted there, or a view does
 * not follow. Who acquires it from now on waits for our intent.
 */
static int make_mobile(struct mrs_txn *txn, const struct viewers *viewers, uint64_t page,
		       uint64_t pages)
{
	int rc = -ETIMEDOUT;

	if (viewers->fixed)
		return mrs_fail(
			-EBUSY,
			"page %llu is shared by morsels that both have views which cannot be "
			"moved (pooled, granted, or made before the first clone): destroy or "
			"release one",
			(unsigned long long)page);
	if (!viewers->mailed)
		return 0;
	while (rc == -ETIMEDOUT)
		rc = mrs_mail_ask(txn, &viewers->mail, MRS_REQUEST_INVALIDATE,
				  viewers->morsel->cell, page, pages, 1, ASK_NS, NULL);
	MRS_PROBE("break.keep.mobile");
	return rc;
}

int mrs_share_make_mobile(struct morsel *morsel, struct mrs_txn *txn, const struct mrs_leaf *leaf)
{
	uint64_t pages = 1ull << MRS_HUGE_ORDER * leaf->level;
	struct viewers viewers, here;

	/* A view that is fixed anywhere, and was not found to be alone, keeps all. */
	find_viewers(morsel, 0, UINT64_MAX, &viewers);
	find_viewers(morsel, leaf->page, pages, &here);
	here.fixed |= viewers.fixed;
	return make_mobile(txn, &here, leaf->page, pages);
}

/* ---- following ---- */

/* What has begun to follow is written by its threads: it cannot go back, and all others come after.
 */
static int follow_own(struct morsel *morsel, uint64_t page, uint64_t pages, uint64_t frame,
		      uint64_t *move)
{
	int rc = mrs_view_follow_own(morsel, page, pages, frame, move);
	bool parked;

	if (!rc || !*move)
		return rc;
	mrs_log(MRS_LOG_WARN, "page %llu of a morsel waits for a view of this process: %s",
		(unsigned long long)page, morsel_errormsg());
	parked = mrs_txn_park(morsel->pool);
	do
		nanosleep(&(struct timespec){.tv_nsec = AGAIN_NS}, NULL);
	while (mrs_view_follow_own(morsel, page, pages, frame, move));
	mrs_txn_unpark(morsel->pool, parked);
	return 0;
}

static void follow_others(struct morsel *morsel, struct mrs_txn *txn, uint64_t page, uint64_t pages,
			  uint64_t move)
{
	struct viewers viewers;
	int rc;

	find_viewers(morsel, page, pages, &viewers);
	if (!viewers.others)
		return;
	/*
	 * A service thread answers unless its process is stopped: then it runs no code of its own.
	 * Who has no room for one more mapping now is asked again, and the others with him: to
	 * follow once more does no harm.
	 */
	do {
		rc = mrs_mail_ask(txn, &viewers.who, MRS_REQUEST_REMAP, morsel->cell, page, pages,
				  move, ASK_NS, NULL);
		if (rc && rc != -ETIMEDOUT)
			nanosleep(&(struct timespec){.tv_nsec = AGAIN_NS}, NULL);
		MRS_PROBE("break.keep.asked");
	} while (rc);
}

int mrs_share_follow(struct morsel *morsel, struct mrs_txn *txn, uint64_t page, uint64_t pages,
		     uint64_t frame)
{
	uint64_t move = 0;
	int rc = follow_own(morsel, page, pages, frame, &move);

	if (!rc && mrs_load_relaxed(&morsel->alone_at) !=
			   mrs_load_acquire(&mrs_pool_state(morsel->pool)->registry) + 1)
		follow_others(morsel, txn, page, pages, move);
	return rc;
}

/* ---- following after a death ---- */

/* Who has not answered then is asked anew: he may be another one. */
#define REPAIR_NS 1000000000ull

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static int look_for_view(void *ctx, const struct mrs_seen_view *view)
{
	struct viewers *viewers = ctx;

	if (view->record == viewers->morsel->cell)
		mrs_slot_set_add(&viewers->who, view->slot);
	return 0;
}

/* arg[0] is the number of the move, arg[1] when it was asked for last. */
bool mrs_share_follow_repair(struct mrs_txn *txn, uint64_t page, uint64_t pages)
{
	struct mrs_intent *intent = txn->intent;
	uint32_t asked = MRS_RETARGET_BREAK << 8 | MRS_RETARGET_LINKED;
	struct viewers viewers = {0};
	struct morsel morsel;

	if (!mrs_handle_init(&morsel, txn->pool, intent->cell[1]) || !mrs_share_is_family(&morsel))
		return true;
	if (mrs_load_acquire32(&intent->step) != asked)
		mrs_store_release(&intent->arg[0],
				  mrs_fetch_add(&mrs_morsel_coherence(&morsel)->moves, 1) + 1);
	else if (mrs_mail_is_answered(txn))
		return true;
	else if (now_ns() - mrs_load_acquire(&intent->arg[1]) < REPAIR_NS)
		return false;
	viewers.morsel = &morsel;
	mrs_registry_each(txn->pool, mrs_load_acquire(&mrs_morsel_coherence(&morsel)->family), page,
			  page + pages, look_for_view, &viewers);
	mrs_store_release(&intent->arg[1], now_ns());
	mrs_store_release32(&intent->step, asked);
	mrs_mail_post(txn, &viewers.who, MRS_REQUEST_REMAP, morsel.cell, page, pages,
		      mrs_load_acquire(&intent->arg[0]));
	MRS_PROBE("repair.break.asked");
	return mrs_mail_is_answered(txn);
}

/* ---- the relatives give way ---- */

struct keep {
	struct morsel *morsel;
	struct mrs_txn *txn;
	struct mrs_leaf leaf;
	uint64_t frame;	 /* the writer's */
	uint64_t common; /* of those without views; 0: none yet */
	bool linked;	 /* common is */
	bool viewed;	 /* pass 1 */
	unsigned moved;
};

static uint64_t pages_of(const struct keep *keep)
{
	return 1ull << MRS_HUGE_ORDER * keep->leaf.level;
}

static bool names_frame(const struct keep *keep, uint64_t entry)
{
	switch (mrs_entry_state(entry)) {
	case MRS_ENTRY_MAPPED:
	case MRS_ENTRY_EVICTED:
		return mrs_entry_frame(entry) == keep->frame &&
		       mrs_entry_level(entry) == keep->leaf.level;
	default:
		return false;
	}
}

/* 1: the relative gets a copy of its own. */
static int move_viewed(struct keep *keep, struct morsel *relative, const struct viewers *viewers)
{
	struct mrs_leaf leaf;
	int rc;

	rc = make_mobile(keep->txn, viewers, keep->leaf.page, pages_of(keep));
	if (rc)
		return rc;
	mrs_store_release(&keep->txn->intent->cell[1], relative->cell);
	rc = mrs_share_own_way(relative, keep->txn, keep->leaf.page, &leaf);
	if (rc || !leaf.place || !names_frame(keep, leaf.entry))
		return rc;
	if (mrs_entry_lock(leaf.entry)) {
		mrs_entry_wait(keep->txn->pool, leaf.place, leaf.entry);
		return -EAGAIN;
	}
	rc = mrs_share_replace(relative, keep->txn, &leaf);
	keep->moved += !rc;
	return rc;
}

/* 2: one link to the common copy. */
static int move_link(struct keep *keep, uint64_t *place, uint64_t entry)
{
	struct mrs_txn *txn = keep->txn;
	uint64_t to;
	int rc;

	if (!keep->common) {
		rc = mrs_share_copy(keep->morsel, txn, &keep->leaf, &keep->common);
		if (rc)
			return rc;
	}
	to = mrs_entry_make(MRS_ENTRY_MAPPED, keep->leaf.level, keep->common) | MRS_ENTRY_DIRTY |
	     MRS_ENTRY_SHARED;
	rc = keep->linked ? mrs_share_add(txn, keep->common) : 0;
	if (rc)
		return rc;
	mrs_share_owe(txn, MRS_HUGE_ORDER * keep->leaf.level, keep->frame, false);
	if (mrs_entry_lock(entry) || !mrs_cas(place, &entry, to)) {
		mrs_share_owe_nothing(txn);
		if (keep->linked)
			mrs_share_drop(txn, keep->common);
		return -EAGAIN;
	}
	MRS_PROBE("break.keep.moved");
	if (!keep->linked)
		mrs_txn_settle(txn);
	keep->linked = true;
	keep->moved++;
	/* The writer has it, unless another of his writes has moved the page meanwhile. */
	if (mrs_share_drop(txn, keep->frame))
		mrs_share_bury(txn);
	else
		mrs_share_owe_nothing(txn);
	return 0;
}

/*
 * A clone of the relative is being cut: what its views were given now could be written without a
 * mark, and would be the clone's too. After the intent's fence: he waits for us, or we see him.
 */
static bool is_being_cloned(struct morsel *relative, const struct mrs_txn *txn)
{
	const struct mrs_cell_coherence *coherence = mrs_morsel_coherence(relative);
	uint64_t by = coherence ? mrs_load_acquire(&coherence->frozen) : 0;

	return by && by != txn->index + 1;
}

static int give_way(void *ctx, struct morsel *relative)
{
	struct keep *keep = ctx;
	uint64_t *place = mrs_share_find_place(relative, keep->leaf.page, keep->leaf.level);
	uint64_t entry = place ? mrs_load_acquire(place) : 0;
	struct viewers viewers;
	int rc;

	if (relative->cell == keep->morsel->cell || !place || place == keep->leaf.place)
		return 0;
	if (is_being_cloned(relative, keep->txn))
		return -EAGAIN;
	if (keep->viewed) {
		if (!names_frame(keep, entry))
			return 0;
		find_viewers(relative, keep->leaf.page, pages_of(keep), &viewers);
		viewers.fixed |=
			mrs_registry_granted(relative->pool, relative->cell, keep->leaf.page,
					     keep->leaf.page + pages_of(keep));
		return viewers.views || viewers.fixed ? move_viewed(keep, relative, &viewers) : 0;
	}
	rc = names_frame(keep, entry) ? move_link(keep, place, entry) : 0;
	/*
	 * After the link: a view that is being made, and is not listed yet, has read how often
	 * pages moved before it read the link. Each relative that shares the link counts.
	 */
	if (!rc && keep->linked && mrs_entry_frame(mrs_load_acquire(place)) == keep->common)
		mrs_fetch_add(&mrs_morsel_coherence(relative)->moves, 1);
	return rc;
}

static int both_passes(struct keep *keep)
{
	int rc = 0;

	for (unsigned pass = 0; pass < 2 && !rc; pass++) {
		keep->viewed = !pass;
		rc = mrs_share_each_relative(keep->morsel, keep->leaf.page, false, give_way, keep);
		MRS_PROBE("break.keep.passed");
	}
	if (keep->common && !keep->linked) {
		mrs_place_unget(keep->txn, MRS_HUGE_ORDER * keep->leaf.level, keep->common, true);
		mrs_txn_settle(keep->txn);
	}
	return rc;
}

int mrs_share_keep(struct morsel *morsel, struct mrs_txn *txn, const struct mrs_leaf *leaf)
{
	struct timespec pause = {.tv_nsec = AGAIN_NS};
	struct keep keep = {
		.morsel = morsel,
		.txn = txn,
		.leaf = *leaf,
		.frame = mrs_entry_frame(leaf->entry),
	};
	/* So that counting one more owner of the copy needs no room while it is not linked yet. */
	int rc = mrs_prop_reserve(txn, 1);

	if (!rc)
		rc = both_passes(&keep);
	/*
	 * A relative on its way out is waited for: it does not wait for us, when we are out of
	 * this. So is one who has counted a link and not made it; he may be dead.
	 */
	if ((!rc || rc == -EAGAIN) && !keep.moved) {
		nanosleep(&pause, NULL);
		mrs_reap_repair(txn->pool);
	}
	return rc ? rc : -EAGAIN;
}
