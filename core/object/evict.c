/*
 * Eviction: pages lose their memory and keep their frame numbers; what was in them waits on a swap
 * target. Runs in the pager, in batches: up to 512 pages of one leaf table, or one leaf of 2 MiB,
 * which goes whole, for it is what the kernel can take away at once.
 *
 *  1 The leaves are locked (retarget.c); a full fence; then the pins, the morsel's epoch and the
 *    views are read, in this order. Who publishes a view or pin later waits for our intent
 *    (registry.h). Pinned leaves are given up. The epoch after the pins: a view that is mapped anew
 *    (remap.c) counts it up under a pin, and loses its protections before the pin is gone. The
 * epoch before the views: one that is not seen has not counted it up either.
 *
 *  2 A page is clean if its entry is not DIRTY and its SWAP property is of this epoch: no writable
 *    view came since it was saved; those there were had been write-protected for the saving; and
 *    who lifts a protection sets DIRTY before, under the leaf's lock. A clean page goes to 5.
 *
 *  3 The others are write-protected in every writable view of the family. From here on no byte of
 *    them changes, for lifting the protection needs the lock.
 *
 *  4 They are saved, and their SWAP properties name slot and epoch; the former slot is stale and
 *    goes. Step COPIED: a death from now on is judged by what is resident. Up to here all can be
 *    given up.
 *
 *  5 The memory is punched away, and with it every process's translation. A touch is now a fault,
 *    which waits for the lock.
 *
 *  6 The entries become EVICTED, unlocked, and who waits is woken.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/trace.h"
#include "object/evict.h"
#include "object/internal.h"
#include "object/retarget_probe.h"
#include "object/share.h"
#include "swap/swap.h"
#include "view/mailbox.h"
#include "view/pager.h"
#include "view/registry.h"

/* A device that does not answer in this time costs its pages their eviction, nothing else. */
#define MAIL_NS 1000000000ll

#define BATCH_WORDS 8

struct evict {
	struct morsel_pool *pool;
	struct mrs_evict_job *job;
	struct mrs_cell_coherence *coherence;
	struct mrs_retarget batch;
	uint64_t epoch;

	/* Choosing a batch. */
	uint64_t wanted; /* pages in it so far */
	uint64_t full;	 /* page + 1 of the first leaf that did not fit in it, 0 none */
	bool clean_only; /* asked for, or saving has failed: only what need not be saved goes */

	uint64_t dirty[BATCH_WORDS]; /* bit per leaf: some page of it must be saved */
	/* Of a thin morsel: nothing is in it. It loses what memory was reserved, and stays MAPPED.
	 */
	uint64_t hollow[BATCH_WORDS];

	/* What was found out of the file last: frames [asked, hole) have no content, up to content
	 * do. */
	uint64_t asked, hole, content;

	/* Pages to be saved: their leaf and frame beside what the swap room is told. */
	unsigned saves;
	uint16_t leaf[MRS_SWAP_BATCH];
	uint64_t frame[MRS_SWAP_BATCH];
	const void *memory[MRS_SWAP_BATCH];
	struct mrs_swap_page page[MRS_SWAP_BATCH];

	bool unpinned; /* nobody pins any page from the batch's first to its last */

	/* Why something stayed. */
	bool pinned;
	struct mrs_seen_view by;
	struct mrs_pin pin;
	int failed;
	char words[256];
};

/* ---- leaves of the batch ---- */

static uint64_t leaf_span(const struct evict *e)
{
	return 1ull << MRS_HUGE_ORDER * e->batch.level;
}

static uint64_t leaf_page(const struct evict *e, unsigned i)
{
	return e->batch.page + i * leaf_span(e);
}

static bool is_dirty(const struct evict *e, unsigned i)
{
	return e->dirty[i / 64] >> i % 64 & 1;
}

static void drop(struct evict *e, unsigned i)
{
	mrs_retarget_drop(&e->batch, i);
	e->dirty[i / 64] &= ~(1ull << i % 64);
}

/* The next maximal row of leaves [*first, *end) from *end on that are locked, all of them dirty if
 * so asked. */
static bool next_row(const struct evict *e, bool dirty, unsigned *first, unsigned *end)
{
	unsigned i = *end;

	while (i < e->batch.count &&
	       !(mrs_retarget_has(&e->batch, i) && (!dirty || is_dirty(e, i))))
		i++;
	*first = i;
	while (i < e->batch.count && mrs_retarget_has(&e->batch, i) && (!dirty || is_dirty(e, i)))
		i++;
	*end = i;
	return *first < i;
}

static void drop_dirty(struct evict *e)
{
	for (unsigned i = 0; i < e->batch.count; i++)
		if (is_dirty(e, i))
			drop(e, i);
}

/* Remembers the first failure, with its words: later ones would overwrite them. */
static void note_failure(struct evict *e, int rc)
{
	if (e->failed)
		return;
	e->failed = rc;
	snprintf(e->words, sizeof(e->words), "%s", morsel_errormsg());
}

/* ---- 1: who is in the way ---- */

/* Has somebody touched a page of it since it became a candidate? */
static bool is_spared(const struct mrs_evict_job *job, uint64_t page, uint64_t span)
{
	uint64_t first = mrs_max(page, job->page),
		 end = mrs_min(page + span, job->page + job->pages);

	for (; job->spared && first < end; first++)
		if (job->spared[(first - job->page) / 64] >> (first - job->page) % 64 & 1)
			return true;
	return false;
}

static bool has_state(const struct mrs_evict_job *job, enum mrs_entry_state state)
{
	return state == MRS_ENTRY_MAPPED || (job->discard && state != MRS_ENTRY_EMPTY);
}

static bool is_wanted(void *ctx, uint64_t page, uint64_t entry)
{
	struct evict *e = ctx;
	uint64_t span = 1ull << MRS_HUGE_ORDER * mrs_entry_level(entry);

	if (e->full || span > MRS_SWAP_BATCH || !has_state(e->job, mrs_entry_state(entry)))
		return false;
	if (e->job->discard && (page < e->job->page || page + span > e->job->page + e->job->pages))
		return false;
	if (is_spared(e->job, page, span) || (e->clean_only && entry & MRS_ENTRY_DIRTY))
		return false;
	if (e->wanted + span > MRS_SWAP_BATCH) {
		e->full = page + 1;
		return false;
	}
	e->wanted += span;
	return true;
}

static bool drop_pinned_row(struct evict *e, unsigned first, unsigned end)
{
	uint64_t first_page = leaf_page(e, first), end_page = leaf_page(e, end);
	struct mrs_seen_view by;
	struct mrs_pin pin;
	bool dropped = false;

	if (!mrs_registry_pinned(e->pool, e->coherence->family, first_page, end_page, &by, &pin))
		return false;
	for (unsigned i = first; i < end; i++) {
		if (leaf_page(e, i) >= pin.end || leaf_page(e, i + 1) < pin.first_plus_1)
			continue;
		drop(e, i);
		mrs_fetch_add(&mrs_pool_state(e->pool)->count[MRS_COUNT_PINNED], leaf_span(e));
		dropped = true;
	}
	if (!e->pinned) {
		e->pinned = true;
		e->by = by;
		e->pin = pin;
	}
	return dropped;
}

/* Does another entry name the frame as well, one that we do not hold? */
static bool has_other_entries(struct evict *e, uint64_t entry)
{
	return entry & MRS_ENTRY_SHARED && mrs_share_has_others(e->pool, mrs_entry_frame(entry));
}

/* Until nobody pins any of what is still locked. */
static void drop_held(struct evict *e)
{
	unsigned first, end = 0;
	struct mrs_seen_view by;
	struct mrs_pin pin;

	for (unsigned i = 0; i < e->batch.count; i++)
		if (mrs_retarget_has(&e->batch, i) && has_other_entries(e, e->batch.before[i]))
			drop(e, i);
	e->unpinned = !mrs_registry_pinned(e->pool, e->coherence->family, leaf_page(e, 0),
					   leaf_page(e, e->batch.count), &by, &pin);
	while (!e->unpinned && next_row(e, false, &first, &end))
		if (drop_pinned_row(e, first, end))
			end = first;
}

struct by_mail {
	uint64_t after;	 /* records up to this one have been asked */
	uint64_t record; /* the next: smallest beyond; 0 none */
	struct mrs_slot_set who;
};

static int find_by_mail(void *ctx, const struct mrs_seen_view *view)
{
	struct by_mail *mail = ctx;

	if (!(view->flags & MRS_VIEW_BY_MAIL) || view->record <= mail->after)
		return 0;
	if (mail->record && view->record > mail->record)
		return 0;
	if (view->record != mail->record)
		memset(&mail->who, 0, sizeof(mail->who));
	mail->record = view->record;
	mail->who.bit[view->slot / 64] |= 1ull << view->slot % 64;
	return 0;
}

/* Views that forget when they are asked to: all of them have when this returns 0. */
static int stop_devices(struct evict *e)
{
	uint64_t first = e->batch.page, end = leaf_page(e, e->batch.count);
	struct by_mail mail = {0};
	int rc;

	for (;;) {
		mail.record = 0;
		rc = mrs_registry_each(e->pool, e->coherence->family, first, end, find_by_mail,
				       &mail);
		if (rc || !mail.record)
			return rc;
		rc = mrs_mail_ask(&e->batch.txn, &mail.who, MRS_REQUEST_INVALIDATE, mail.record,
				  first, end - first, 0, MAIL_NS, NULL);
		if (rc)
			return rc;
		mail.after = mail.record;
	}
}

/* ---- 2: clean or not ---- */

static bool is_saved(struct evict *e, uint64_t frame)
{
	struct mrs_swap_page page;
	uint32_t epoch;

	return mrs_swap_kept(e->pool, frame, &page, &epoch) && e->epoch != UINT64_MAX &&
	       epoch == (uint32_t)e->epoch;
}

static bool must_save(struct evict *e, unsigned i)
{
	uint64_t entry = e->batch.before[i], frame = mrs_entry_frame(entry);

	if (entry & MRS_ENTRY_DIRTY || e->job->discard)
		return true;
	for (uint64_t k = 0; k < leaf_span(e); k++)
		if (!is_saved(e, frame + k))
			return true;
	return false;
}

static void judge(struct evict *e)
{
	for (unsigned i = 0; i < e->batch.count; i++) {
		if (!mrs_retarget_has(&e->batch, i) || !must_save(e, i))
			continue;
		e->dirty[i / 64] |= 1ull << i % 64;
		if (e->clean_only)
			drop(e, i);
	}
}

/* ---- 3: writers ---- */

/*
 * Does it do no harm to protect the leaf, too? One call for many pages is far cheaper than many.
 * What is protected without need costs the next write a fault, so not what is in use; and never
 * what is pinned: through a grant the kernel itself may write, which nobody may stop. (A pin that
 * comes later waits for the intent, which covers all of the batch.)
 */
static bool may_protect(const struct evict *e, unsigned i)
{
	return mrs_retarget_has(&e->batch, i) ||
	       (e->unpinned &&
		mrs_entry_state(mrs_load_relaxed(&e->batch.entries[i])) == MRS_ENTRY_EVICTED);
}

/* The row of dirty leaves [first, *end) goes on to the last one that can be had with it. */
static void widen_row(const struct evict *e, unsigned *end)
{
	for (unsigned i = *end; i < e->batch.count && may_protect(e, i); i++)
		if (is_dirty(e, i))
			*end = i + 1;
}

static void stop_writers(struct evict *e)
{
	unsigned first, end = 0;
	int rc = 0;

	while (!rc && next_row(e, true, &first, &end)) {
		widen_row(e, &end);
		rc = mrs_pager_protect(e->pool, e->coherence->family, leaf_page(e, first),
				       leaf_page(e, end));
	}
	MRS_PROBE_BATCH("evict.protected", &e->batch, NULL);
	if (!rc)
		return;
	note_failure(e, rc);
	drop_dirty(e);
}

/* ---- 4: saving ---- */

/*
 * Frame's memory, or NULL if it has none or was never written: then it reads as zero. What was
 * found is remembered for the frames that follow; a hole that was touched since is still zeros, for
 * writers are stopped.
 */
static const void *content_of(struct evict *e, uint64_t frame)
{
	if (frame < e->asked || frame >= e->content) {
		uint64_t at = frame * MRS_PAGE_BYTES, end = at + MRS_HUGE_BYTES, next = end;

		end = mrs_min(end, mrs_pool_frames_end(e->pool) * MRS_PAGE_BYTES);
		/* Not through the mapping: touching a hole would make a page of it. */
		if (!mrs_pool_next_content(e->pool, &at, end, &next))
			at = next = end;
		e->asked = frame;
		e->hole = at / MRS_PAGE_BYTES;
		e->content = next / MRS_PAGE_BYTES;
	}
	return frame < e->hole ? NULL : mrs_pool_at(e->pool, frame, 1);
}

/* Where frames may lack memory a page without content needs no slot to be known as zeros. */
static bool is_hollow(struct evict *e, uint64_t frame, uint64_t span)
{
	uint64_t state = mrs_load_acquire(&e->job->morsel->record->state);

	if (!(state & MRS_RECORD_THIN) || e->job->discard)
		return false;
	for (uint64_t k = 0; k < span; k++)
		if (content_of(e, frame + k))
			return false;
	return true;
}

static void gather_leaf(struct evict *e, unsigned i)
{
	uint64_t entry = e->batch.before[i], frame = mrs_entry_frame(entry);

	if (is_hollow(e, frame, leaf_span(e))) {
		e->hollow[i / 64] |= 1ull << i % 64;
		return;
	}
	for (uint64_t k = 0; k < leaf_span(e); k++) {
		unsigned n = e->saves;

		if (!e->job->discard && !(entry & MRS_ENTRY_DIRTY) && is_saved(e, frame + k))
			continue;
		e->leaf[n] = (uint16_t)i;
		e->frame[n] = frame + k;
		e->memory[n] = e->job->discard ? NULL : content_of(e, frame + k);
		e->saves++;
	}
}

static const unsigned char zero_page[MRS_PAGE_BYTES];

/* What has no content needs no target: it is a page of zeros. Moves those to the end; how many
 * others. */
static unsigned set_holes_aside(struct evict *e)
{
	uint32_t crc = mrs_crc32c(0, zero_page, sizeof(zero_page));
	unsigned kept = 0;

	for (unsigned n = 0; n < e->saves; n++) {
		uint64_t frame = e->frame[n];
		uint16_t leaf = e->leaf[n];

		if (!e->memory[n])
			continue;
		e->frame[n] = e->frame[kept];
		e->leaf[n] = e->leaf[kept];
		e->memory[n] = e->memory[kept];
		e->frame[kept] = frame;
		e->leaf[kept] = leaf;
		e->memory[kept++] = mrs_pool_at(e->pool, frame, 1);
	}
	for (unsigned n = kept; n < e->saves; n++)
		e->page[n] = (struct mrs_swap_page){.slot = MRS_SWAP_ZERO, .crc = crc};
	return kept;
}

/* Gives half of the dirty leaves up; false if there is only one. */
static bool drop_half(struct evict *e)
{
	unsigned count = 0, kept = 0;

	for (unsigned i = 0; i < BATCH_WORDS; i++)
		count += (unsigned)__builtin_popcountll(e->dirty[i]);
	for (unsigned i = 0; count > 1 && i < e->batch.count; i++)
		if (is_dirty(e, i) && ++kept > count / 2)
			drop(e, i);
	return count > 1;
}

static int save_once(struct evict *e)
{
	struct mrs_swap *swap;
	unsigned contents;
	int rc;

	e->saves = 0;
	e->asked = e->content = 0;
	for (unsigned i = 0; i < e->batch.count; i++)
		if (is_dirty(e, i))
			gather_leaf(e, i);
	contents = set_holes_aside(e);
	if (!contents)
		return 0;
	rc = mrs_swap_ready(e->pool);
	if (rc)
		return rc;
	swap = mrs_swap_of(e->pool);
	return swap ? mrs_swap_save(swap, &e->batch.txn, e->memory, e->page, contents) : -ENOMEM;
}

/* A page that was saved keeps its slot; what it had before is stale. */
static void keep_slot(struct evict *e, unsigned n)
{
	int rc = -ECANCELED; /* its leaf was given up meanwhile */

	if (mrs_retarget_has(&e->batch, e->leaf[n])) {
		rc = mrs_swap_keep(&e->batch.txn, e->frame[n], &e->page[n], (uint32_t)e->epoch);
		if (rc) {
			note_failure(e, rc);
			drop(e, e->leaf[n]);
		}
	}
	if (rc)
		mrs_swap_free(&e->batch.txn, e->page[n].slot);
	else if (e->page[n].slot >= MRS_SWAP_FILLED)
		mrs_fetch_add(&mrs_pool_state(e->pool)->count[MRS_COUNT_PAGES_ZERO], 1);
}

static void save(struct evict *e)
{
	int rc = save_once(e);

	while (rc == -ENOSPC && drop_half(e)) {
		note_failure(e, rc);
		rc = save_once(e);
	}
	MRS_PROBE_BATCH("evict.saved", &e->batch, NULL);
	if (rc) {
		note_failure(e, rc);
		e->clean_only = true;
		drop_dirty(e);
		return;
	}
	for (unsigned n = 0; n < e->saves; n++)
		keep_slot(e, n);
	MRS_PROBE_BATCH("evict.kept", &e->batch, e->dirty);
}

/* ---- 5 and 6: the memory goes ---- */

/*
 * The kernel has not taken the memory away but zeroed it in place, or somebody who is not
 * registered has touched the hole: the content comes back into the memory that is there. False if
 * it is lost.
 *
 * Zeroed in place is only part of a folio that is larger than what goes and that a foreigner has
 * pinned (docs/limits.md): no call tells of either before the punch. Readers see zeros until here;
 * writers wait, for the marks of protection stay.
 */
static bool put_back(struct evict *e, uint64_t frame, uint64_t count)
{
	struct mrs_swap *swap = mrs_swap_of(e->pool);
	bool whole = true;

	for (uint64_t k = 0; k < count; k++) {
		unsigned char *memory = mrs_pool_at(e->pool, frame + k, 1);
		struct mrs_swap_page page;
		uint32_t epoch;

		if (!swap || !mrs_swap_kept(e->pool, frame + k, &page, &epoch) ||
		    mrs_swap_load_one(swap, &page, memory))
			whole = false;
	}
	return whole;
}

static bool is_hole(struct evict *e, uint64_t frame, uint64_t count)
{
	uint64_t at = frame * MRS_PAGE_BYTES, next;

	return !mrs_pool_next_content(e->pool, &at, at + count * MRS_PAGE_BYTES, &next);
}

static void count_leaf(struct evict *e, unsigned i)
{
	uint64_t *count = mrs_pool_state(e->pool)->count;

	e->job->evicted += leaf_span(e);
	if (mrs_entry_state(e->batch.before[i]) == MRS_ENTRY_EVICTED)
		return;
	mrs_fetch_add(&e->coherence->evicted, leaf_span(e));
	if (e->job->discard)
		return;
	mrs_fetch_add(&count[MRS_COUNT_PAGES_OUT], leaf_span(e));
	if (!is_dirty(e, i))
		mrs_fetch_add(&count[MRS_COUNT_PAGES_OUT_CLEAN], leaf_span(e));
}

/* A row of leaves on consecutive frames has been punched; what its leaves become. */
static void settle_row(struct evict *e, unsigned first, unsigned end, int rc)
{
	bool gone = !rc && is_hole(e, mrs_entry_frame(e->batch.before[first]),
				   (end - first) * leaf_span(e));

	for (unsigned i = first; i < end; i++) {
		uint64_t entry = e->batch.before[i], frame = mrs_entry_frame(entry);
		uint64_t clean = entry & ~MRS_ENTRY_DIRTY;
		bool lost = false;

		if (e->hollow[i / 64] >> i % 64 & 1) {
			mrs_retarget_set(&e->batch, i, entry);
			continue;
		}
		if (gone || (!rc && is_hole(e, frame, leaf_span(e)))) {
			uint64_t state = (uint64_t)MRS_ENTRY_EVICTED << MRS_ENTRY_STATE_SHIFT;

			clean &= ~(15ull << MRS_ENTRY_STATE_SHIFT);
			mrs_retarget_set(&e->batch, i, clean | state);
			count_leaf(e, i);
			continue;
		}
		MRS_CHECK_SLOW(rc);
		if (!rc) {
			mrs_log(MRS_LOG_WARN,
				"%s: frame %llu could not be taken away: somebody has pinned a "
				"part "
				"of its huge folio, or touched it without being registered",
				mrs_pool_path(e->pool), (unsigned long long)frame);
			lost = !put_back(e, frame, leaf_span(e));
		}
		if (lost) {
			clean &= ~(15ull << MRS_ENTRY_STATE_SHIFT);
			clean |= (uint64_t)MRS_ENTRY_POISONED << MRS_ENTRY_STATE_SHIFT;
			mrs_fetch_add(&mrs_pool_state(e->pool)->count[MRS_COUNT_POISONED], 1);
		}
		mrs_retarget_set(&e->batch, i, rc ? entry : clean);
	}
}

/* The row from first on, as far as leaves and frames are consecutive. */
static unsigned row_of_frames(const struct evict *e, unsigned first, unsigned end)
{
	uint64_t frame = mrs_entry_frame(e->batch.before[first]);
	unsigned i = first;

	while (i < end && mrs_entry_frame(e->batch.before[i]) == frame + (i - first) * leaf_span(e))
		i++;
	return i;
}

static void take_memory(struct evict *e)
{
	unsigned first, end = 0;

	while (next_row(e, false, &first, &end)) {
		uint64_t frame = mrs_entry_frame(e->batch.before[first]);
		int rc;

		end = row_of_frames(e, first, end);
		rc = mrs_pool_punch(e->pool, frame, (end - first) * leaf_span(e));
		if (rc)
			note_failure(e, rc);
		for (unsigned i = first; i < end; i++)
			MRS_PROBE_LEAF("evict.punched", &e->batch, i, e->batch.before[i]);
		settle_row(e, first, end, rc);
	}
}

/*
 * Who else is concerned: pins, devices, other owners. False if the batch is to be given up. It
 * begins after the full fence with which locking ends: registry.h, step 2.
 */
static bool look_around(struct evict *e)
{
	int rc;

	drop_held(e);
	/* After the pins and before the views: step 1. Acquire: pairs with an unpin's release. */
	e->epoch = mrs_load_acquire(&e->coherence->epoch);
	MRS_PROBE_BATCH("evict.looked", &e->batch, NULL);
	rc = stop_devices(e);
	/* Zeros are for this morsel alone; a clone has come in between, or is being made. */
	if (!rc && e->job->discard &&
	    (mrs_load_acquire(&e->coherence->frozen) ||
	     mrs_share_is_shared(e->job->morsel, e->batch.page)))
		rc = mrs_fail(-EAGAIN, "the morsel is being cloned: try again");
	if (rc)
		note_failure(e, rc);
	return !rc;
}

/* The batch is locked; when this returns it has ended. */
static void evict_batch(struct evict *e)
{
	memset(e->dirty, 0, sizeof(e->dirty));
	memset(e->hollow, 0, sizeof(e->hollow));
	e->saves = 0;
	if (!look_around(e)) {
		mrs_retarget_abort(&e->batch);
		return;
	}
	judge(e);
	if (!e->job->discard)
		stop_writers(e);
	save(e);
	mrs_retarget_mark(&e->batch, MRS_RETARGET_COPIED);
	MRS_PROBE_BATCH("evict.copied", &e->batch, NULL);
	take_memory(e);
	mrs_retarget_end(&e->batch);
}

/* ---- the range ---- */

int mrs_evict_check(struct morsel *morsel)
{
	uint32_t kind = mrs_pool_super(morsel->pool)->kind;

	if (kind != MORSEL_POOL_MEMFD && kind != MORSEL_POOL_TMPFS)
		return mrs_fail(
			-EOPNOTSUPP,
			"%s cannot evict: only memfd and tmpfs pools can (a file on disk is "
			"evicted by the kernel's page cache)",
			mrs_pool_path(morsel->pool));
	if (!mrs_morsel_is_evictable(morsel))
		return mrs_fail(-EOPNOTSUPP, "the morsel cannot be evicted: it was created "
					     "without MORSEL_EVICTABLE");
	return mrs_morsel_make_coherent(morsel);
}

int mrs_evict_pinned(struct morsel_pool *pool, const struct mrs_seen_view *by,
		     const struct mrs_pin *pin)
{
	const struct mrs_slot *slot = mrs_pool_slot(pool, by->slot);

	return mrs_fail(-EBUSY,
			"pages %llu to %llu of the morsel are held by a grant of process %u "
			"(%.32s): it must release it (morsel_release) first",
			(unsigned long long)(pin->first_plus_1 - 1),
			(unsigned long long)(pin->end - 1), by->pid, slot->program);
}

/* What is told of a range of which something stayed. */
static int outcome(const struct evict *e)
{
	if (e->job->evicted && !e->job->strict)
		return 0;
	if (e->job->quiet)
		return e->failed ? e->failed : e->pinned ? -EBUSY : 0;
	if (e->failed)
		return mrs_fail(e->failed, "%s", e->words);
	return e->pinned ? mrs_evict_pinned(e->pool, &e->by, &e->pin) : 0;
}

int mrs_evict_job(struct mrs_evict_job *job)
{
	struct morsel *morsel = job->morsel;
	struct evict e = {.pool = morsel->pool,
			  .job = job,
			  .coherence = mrs_morsel_coherence(morsel),
			  .clean_only = job->clean_only};
	uint64_t end = mrs_min(job->page + job->pages, mrs_morsel_pages(morsel)), next;
	int rc = 0;

	if (!e.coherence)
		return 0;
	for (uint64_t page = job->page; !rc && page < end; page = e.full ? e.full - 1 : next) {
		e.wanted = e.full = 0;
		next = end;
		rc = mrs_retarget_begin(morsel, MRS_RETARGET_EVICT, page, end - page, is_wanted, &e,
					&e.batch, &next);
		if (rc > 0) {
			evict_batch(&e);
			rc = 0;
		}
	}
	if (rc)
		note_failure(&e, rc);
	MRS_TRACE(evict, morsel->record->id, job->page, job->pages, job->evicted);
	return outcome(&e);
}

int mrs_evict_range(struct morsel *morsel, uint64_t page, uint64_t pages, bool strict,
		    uint64_t *evicted)
{
	struct mrs_evict_job job = {
		.morsel = morsel, .page = page, .pages = pages, .strict = strict};
	int rc = mrs_evict_check(morsel);

	if (rc)
		return rc;
	mrs_pool_may_exceed(true);
	rc = mrs_evict_job(&job);
	mrs_pool_may_exceed(false);
	if (!rc || job.evicted)
		*evicted = job.evicted;
	return rc;
}
