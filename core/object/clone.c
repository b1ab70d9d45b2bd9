/*
 * Cloning: the source's whole tree becomes the clone's too, by one more link to its root table.
 *
 *  1. The clone is a record of its own without content, name or views, before anything is shared.
 *
 *  2. Under the source's record lock: frozen says who clones, full fence, then wait for retargets
 *     of the family and fills of the source that were there. Pairs with the fence of who begins one
 *     (break.c, fault.c): either he sees frozen and waits outside, or we wait for him. From here on
 *     no protection of the source is lifted and no page of it is linked, but evicting and filling
 *     for readers go on: they change no content.
 *
 *  3. Every writable view of the source is protected: from the return of the last of these calls
 *     on, nobody writes. This is the cut. A view that is published later waits for our intent.
 *
 *  4. One more link to the root table is counted, the source's root is marked SHARED, the clone's
 *     record gets it; frozen ends. A write now faults, finds the way SHARED, and breaks.
 *
 *  5. Death before 4 is over: the clone is a record without a name that goes with its dead user,
 *     whatever it links by then; counts are made anew, frozen ends. Protections that stay cost a
 *     fault each.
 */
#include <morsel/clone.h>

#include <errno.h>
#include <string.h>
#include <time.h>

#include "object/internal.h"
#include "object/share.h"
#include "pool/property.h"
#include "view/follow.h"
#include "view/mailbox.h"
#include "view/pager.h"
#include "view/registry.h"

/* ---- who is in the way ---- */

struct seeker {
	struct morsel_pool *pool;
	mrs_cell cell;
	unsigned slot;
	bool writable, mapped;
	uint32_t pid;
	char program[32];
};

static void seek_entry(void *ctx, struct mrs_open *entry)
{
	struct seeker *seeker = ctx;
	struct mrs_slot *slot = mrs_pool_slot(seeker->pool, seeker->slot);
	uint64_t view;

	if (mrs_load_acquire(&entry->record) != seeker->cell)
		return;
	view = mrs_load_acquire(&entry->view);
	seeker->mapped |= view != 0;
	if (!(view & MRS_OPEN_WRITABLE))
		return;
	seeker->writable = true;
	seeker->pid = slot->pid;
	memcpy(seeker->program, slot->program, sizeof(seeker->program));
}

static void seek_slot(void *ctx, unsigned slot, struct mrs_slot *shared)
{
	struct seeker *seeker = ctx;

	seeker->slot = slot;
	mrs_open_each(seeker->pool, shared, seek_entry, seeker);
}

static void seek(struct morsel *source, struct seeker *seeker)
{
	*seeker = (struct seeker){.pool = source->pool, .cell = source->cell};
	mrs_pool_each_slot(source->pool, seek_slot, seeker);
}

static int is_written(const struct seeker *seeker)
{
	return mrs_fail(
		-EBUSY,
		"process %u (%.31s) has a writable view of the morsel that was made before it "
		"could be cloned, and whose writes cannot be stopped: destroy it, or create the "
		"morsel with MORSEL_EVICTABLE",
		seeker->pid, seeker->program);
}

/*
 * Views from before the COHERENCE cell are in no list. The writes of such a view cannot be stopped;
 * those that only read go on mapping the source's frames, so that it has to keep them.
 */
static int check_plain_views(struct morsel *source)
{
	struct mrs_cell_coherence *coherence = mrs_morsel_coherence(source);
	struct seeker seeker;

	if (mrs_morsel_is_evictable(source) ||
	    mrs_load_acquire(&coherence->views) & MRS_COHERENCE_LISTED)
		return 0;
	/* Pairs with the fence of who publishes a view: he sees the cell, or we see the view. */
	mrs_full_fence();
	seek(source, &seeker);
	if (seeker.writable)
		return is_written(&seeker);
	mrs_store_release(&coherence->views,
			  MRS_COHERENCE_LISTED | (seeker.mapped ? MRS_COHERENCE_KEEPS : 0));
	return 0;
}

/* The holder of a grant may write until he releases it, and so may a device: no cut there. */
static int check_pins(struct morsel *source)
{
	struct mrs_seen_view by;

	if (!mrs_registry_write_pinned(source->pool, source->cell, &by))
		return 0;
	return mrs_fail(
		-EBUSY,
		"process %u (%.31s) holds a grant through a writable view of the morsel, and its "
		"writes cannot be stopped: release it first",
		by.pid, mrs_pool_slot(source->pool, by.slot)->program);
}

/* ---- step 2: nobody is in the middle of changing the source's pages ---- */

#define SETTLE_NS  10000000000ll
#define PAUSE_NS   20000l
#define SPINS	   200u
#define REAP_EVERY 500u

struct settle {
	struct morsel *source;
	const struct mrs_txn *txn;
	uint64_t family;
	int rc;
};

static bool is_in_the_way(const struct settle *settle, unsigned index,
			  const struct mrs_intent *intent)
{
	struct morsel_pool *pool = settle->source->pool;
	uint64_t record = mrs_load_acquire(&intent->cell[0]);

	if (index == settle->txn->index)
		return false;
	switch (mrs_load_acquire32(&intent->op)) {
	case MRS_INTENT_RETARGET:
		return record && mrs_registry_family(pool, record) == settle->family;
	case MRS_INTENT_RESIZE:
		return record == settle->source->cell;
	default:
		return false;
	}
}

static int stands_still(const struct mrs_slot *slot)
{
	return mrs_fail(
		-ETIMEDOUT,
		"process %u (%.31s) is in the middle of changing pages of the morsel and stands "
		"still: is it stopped? Continue it, or kill it",
		slot->pid, slot->program);
}

static int outwait(const struct settle *settle, unsigned index, const struct mrs_intent *intent,
		   const struct mrs_slot *slot)
{
	uint64_t serial = mrs_load_acquire(&intent->serial);
	struct timespec pause = {.tv_nsec = PAUSE_NS};
	int64_t slept = 0;

	for (unsigned i = 0;
	     is_in_the_way(settle, index, intent) && mrs_load_acquire(&intent->serial) == serial;
	     i++) {
		if (i < SPINS) {
			mrs_spin_hint();
			continue;
		}
		nanosleep(&pause, NULL);
		slept += PAUSE_NS;
		if (!(i % REAP_EVERY))
			mrs_reap_repair(settle->source->pool);
		if (slept > SETTLE_NS)
			return stands_still(slot);
	}
	return 0;
}

static void settle_slot(void *ctx, unsigned slot, struct mrs_slot *shared)
{
	struct settle *settle = ctx;

	for (unsigned i = 0; i < MRS_INTENTS_PER_SLOT && !settle->rc; i++)
		settle->rc = outwait(settle, slot * MRS_INTENTS_PER_SLOT + i, &shared->intent[i],
				     shared);
}

/* Parked: those who are waited for may need the gate. */
static int settle(struct morsel *source, struct mrs_txn *txn)
{
	struct settle settle = {
		.source = source,
		.txn = txn,
		.family = mrs_registry_family(source->pool, source->cell),
	};
	bool parked;

	mrs_full_fence();
	parked = mrs_txn_park(source->pool);
	mrs_pool_each_slot(source->pool, settle_slot, &settle);
	mrs_txn_unpark(source->pool, parked);
	MRS_PROBE("clone.settled");
	return settle.rc;
}

/* ---- step 3 ---- */

struct writers {
	struct morsel_pool *pool;
	mrs_cell record;
	uint64_t count; /* in this process */
	bool others;	/* in another */
	int rc;
};

static int seek_writer(void *ctx, const struct mrs_seen_view *view)
{
	struct writers *writers = ctx;

	if (view->record != writers->record || !(view->flags & MRS_VIEW_WRITABLE))
		return 0;
	if (view->slot == mrs_pool_own_slot(writers->pool))
		writers->count++;
	else
		writers->others = true;
	return 0;
}

static int protect_own(void *ctx, const struct mrs_register *view)
{
	struct writers *writers = ctx;

	if (!(view->flags & MRS_VIEW_CPU) || !(view->flags & MRS_VIEW_WRITABLE))
		return 0;
	return mrs_view_protect_all(writers->pool, view);
}

static int by_the_pager(struct morsel *source, struct mrs_txn *txn)
{
	struct morsel_pool *pool = source->pool;
	uint64_t family = mrs_registry_family(pool, source->cell);
	struct mrs_slot_set who = {0};
	unsigned pager = mrs_pager_slot(pool);

	if (mrs_pager_is_self(pool))
		return mrs_pager_protect(pool, family, 0, UINT64_MAX >> 1);
	if (pager == MRS_SLOTS)
		return mrs_fail(-EAGAIN, "no process of the pool %s is its pager: try again",
				mrs_pool_path(pool));
	mrs_slot_set_add(&who, pager);
	return mrs_mail_ask(txn, &who, MRS_REQUEST_PROTECT, source->cell, 0, UINT64_MAX >> 1, 0,
			    SETTLE_NS, NULL);
}

static int stop_writers(struct morsel *source, struct mrs_txn *txn)
{
	struct morsel_pool *pool = source->pool;
	struct writers writers = {.pool = pool, .record = source->cell};
	int rc = 0;

	mrs_registry_each(pool, mrs_registry_family(pool, source->cell), 0, UINT64_MAX >> 1,
			  seek_writer, &writers);
	if (writers.others)
		rc = by_the_pager(source, txn);
	else if (writers.count)
		rc = mrs_registry_each_own(pool, source->cell, protect_own, &writers);
	MRS_PROBE("clone.protected");
	return rc;
}

/* ---- step 4 ---- */

/* The packed tensor table, which nobody changes, is one more frame that both link. */
static int share_meta(struct morsel *source, struct morsel *clone, struct mrs_txn *txn)
{
	struct mrs_cell_record *from = source->record, *to = clone->record;
	int rc = from->meta_frame ? mrs_share_add(txn, from->meta_frame) : 0;

	if (rc)
		return rc;
	mrs_store_release(&to->meta_bytes, from->meta_bytes);
	mrs_store_release(&to->tensors, from->tensors);
	mrs_store_release(&to->meta_frame, from->meta_frame);
	mrs_store_release(&to->format, (uint32_t)from->format);
	MRS_PROBE("clone.meta");
	return 0;
}

static int share_root(struct morsel *source, struct morsel *clone, struct mrs_txn *txn)
{
	uint64_t root = mrs_load_acquire(source->table.root);
	int rc;

	if (mrs_entry_state(root) != MRS_ENTRY_TABLE)
		return 0;
	rc = mrs_share_add(txn, mrs_entry_frame(root));
	if (rc)
		return rc;
	MRS_PROBE("clone.counted");
	mrs_fetch_or(source->table.root, MRS_ENTRY_SHARED);
	MRS_PROBE("clone.marked");
	mrs_store_release(&clone->record->allocated, mrs_load_acquire(&source->record->allocated));
	mrs_store_release(clone->table.root, mrs_entry_unlocked(root) | MRS_ENTRY_SHARED);
	MRS_PROBE("clone.shared");
	return 0;
}

static void inherit(struct morsel *source, struct morsel *clone, bool sealed)
{
	const struct mrs_cell_coherence *from = mrs_morsel_coherence(source);
	struct mrs_cell_coherence *to = mrs_morsel_coherence(clone);
	uint64_t thin = mrs_load_acquire(&source->record->state) & MRS_RECORD_THIN;

	mrs_store_release(&to->family, mrs_load_acquire(&from->family));
	mrs_store_release(&to->depth, mrs_load_acquire(&from->depth) + 1);
	mrs_store_release(&to->epoch, mrs_load_acquire(&from->epoch));
	mrs_record_set(clone->record, thin | (sealed ? MRS_RECORD_SEALED : 0));
	mrs_store_release(&clone->record->bytes, mrs_morsel_bytes(source));
}

/* Everything is settled and protected. */
static int share(struct morsel *source, struct morsel *clone, struct mrs_txn *txn, bool sealed)
{
	int rc;

	/* Before anything is shared: while it is 0 nobody looks for what is. */
	mrs_fetch_add(&mrs_pool_state(source->pool)->count[MRS_COUNT_CLONES], 1);
	inherit(source, clone, sealed);
	rc = share_meta(source, clone, txn);
	return rc ? rc : share_root(source, clone, txn);
}

/* ---- the whole ---- */

static void thaw(struct mrs_cell_coherence *coherence)
{
	mrs_store_release(&coherence->frozen, 0);
	mrs_pool_wake_word(&coherence->frozen);
}

static int cut(struct morsel *source, struct morsel *clone, struct mrs_txn *txn, bool sealed)
{
	struct mrs_cell_coherence *coherence = mrs_morsel_coherence(source);
	int rc;

	mrs_store_release(&coherence->frozen, txn->index + 1);
	MRS_PROBE("clone.frozen");
	rc = settle(source, txn);
	if (!rc)
		rc = check_pins(source);
	if (!rc)
		rc = stop_writers(source, txn);
	if (!rc)
		rc = share(source, clone, txn, sealed);
	thaw(coherence);
	MRS_PROBE("clone.thawed");
	return rc;
}

static int clone_locked(struct morsel *source, struct morsel *clone, bool sealed)
{
	struct mrs_txn txn;
	int rc = mrs_record_lock(source, MRS_INTENT_CLONE, 0, &txn);

	if (rc)
		return rc;
	mrs_store_release(&txn.intent->cell[2], clone->cell);
	MRS_PROBE("clone.noted");
	rc = check_plain_views(source);
	if (!rc)
		rc = mrs_place_shape(source, &txn);
	if (!rc)
		rc = mrs_prop_reserve(&txn, 2);
	if (!rc)
		rc = cut(source, clone, &txn, sealed);
	mrs_record_unlock(source, &txn);
	return rc;
}

static int check_depth(struct morsel *source)
{
	uint64_t depth = mrs_load_acquire(&mrs_morsel_coherence(source)->depth);

	if (depth < MRS_CLONE_DEPTH_MAX)
		return 0;
	return mrs_fail(
		-EMLINK,
		"the morsel is a clone of a clone, %llu in a row: %u is the most; export and "
		"import it to begin anew",
		(unsigned long long)depth, MRS_CLONE_DEPTH_MAX);
}

/* A record of the source's kind, still without content and name: step 1. */
static int make_empty(struct morsel *source, struct morsel **clone)
{
	uint64_t state = mrs_load_acquire(&source->record->state);
	struct morsel_opts opts = {
		.size = sizeof(opts),
		.flags = mrs_flags_of(state) & ~(uint32_t)(MORSEL_CONTIGUOUS | MORSEL_SCATTERED),
		.pages = mrs_pages_of(state),
	};
	int rc = mrs_handle_create(source->pool, &opts, 0, clone);

	if (rc)
		return rc;
	rc = mrs_morsel_make_coherent(*clone);
	if (rc)
		morsel_close(*clone);
	return rc;
}

static int check_source(struct morsel *source, const char *name, struct morsel **clone)
{
	int rc = mrs_check_writable(source->pool, "cloning a morsel");

	if (!rc && !name && !clone)
		rc = mrs_fail(-EINVAL, "a clone needs a name, or somebody who takes its handle");
	if (!rc && name)
		rc = mrs_dir_check_name(name);
	return rc ? rc : mrs_uffd_kind_check(source->pool);
}

/* Not where the clone would be refused anyway: the cell would say for good that views are watched.
 */
static int make_source_coherent(struct morsel *source)
{
	struct seeker seeker;

	if (mrs_morsel_coherence(source))
		return 0;
	seek(source, &seeker);
	return seeker.writable ? is_written(&seeker) : mrs_morsel_make_coherent(source);
}

static int make_clone(struct morsel *source, const char *name, bool sealed, struct morsel **out)
{
	struct morsel *clone;
	int rc = make_source_coherent(source);

	if (!rc)
		rc = check_depth(source);
	if (!rc)
		rc = make_empty(source, &clone);
	if (rc)
		return rc;
	rc = clone_locked(source, clone, sealed);
	MRS_PROBE("clone.made");
	if (!rc && name)
		rc = mrs_handle_link(clone, name);
	if (rc == -EEXIST)
		mrs_fail(rc, "a morsel '%s' exists already in the pool %s", name,
			 mrs_pool_path(source->pool));
	if (rc || !out)
		morsel_close(clone);
	else
		*out = clone;
	return rc;
}

static int clone_or_retry(struct morsel *source, const char *name, bool sealed,
			  struct morsel **clone)
{
	int rc = check_source(source, name, clone);

	if (rc)
		return rc;
	rc = make_clone(source, name, sealed, clone);
	/* Dead processes' views and frames are in nobody's way once they are cleaned up. */
	if ((rc == -EBUSY || rc == -ENOSPC) && mrs_pool_relieve(source->pool))
		rc = make_clone(source, name, sealed, clone);
	return rc;
}

int morsel_clone(struct morsel *source, const char *name, struct morsel **clone)
{
	return clone_or_retry(source, name, false, clone);
}

int morsel_snapshot(struct morsel *source, const char *name, struct morsel **snapshot)
{
	return clone_or_retry(source, name, true, snapshot);
}
