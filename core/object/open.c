/*
 * Opening, creating and closing: how a handle gets hold of a record and lets go of it.
 *
 * Open: (1) find what the name means; (2) write an open entry; (3) full fence; (4) read the
 * record's state. A record with a name stays. Leave, under the record's lock: (1) if the record has
 * no name any more, state FREEING, (2) full fence, (3) look for other entries; (4) none: take it
 * apart; else back to UNLINKED, and whoever leaves later does it.
 *
 * Either the opener's step 4 sees FREEING (then he waits for the outcome), or the leaver's step 3
 * sees his entry (then the record stays until the opener leaves). Entries vanish only under the
 * lock, or after the record has: so of several leavers the last one sees nobody.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "object/evict.h"
#include "object/internal.h"
#include "object/share.h"
#include "view/registry.h"

/* What is evicted page by page has leaves of one page from the beginning. */
static bool has_small_leaves(const struct mrs_cell_record *record)
{
	uint64_t state = mrs_load_relaxed(&record->state);

	return mrs_flags_of(state) & MORSEL_EVICTABLE && mrs_pages_of(state) == MORSEL_PAGES_4K;
}

bool mrs_handle_init(struct morsel *morsel, struct morsel_pool *pool, mrs_cell cell)
{
	struct mrs_cell_record *record = mrs_cell_at(mrs_pool_cells(pool), cell, MRS_CELL_RECORD);

	*morsel = (struct morsel){.pool = pool, .cell = cell, .record = record};
	if (!record)
		return false;
	morsel->table = (struct mrs_table){.ops = &mrs_object_table_ops,
					   .ctx = pool,
					   .root = &record->root,
					   .run_pages = &record->run_pages,
					   .small_leaves = has_small_leaves(record)};
	return true;
}

static struct morsel *handle_alloc(struct morsel_pool *pool, bool aside)
{
	struct morsel *morsel = calloc(1, sizeof(*morsel));

	if (!morsel) {
		mrs_fail(-ENOMEM, "no memory for a handle");
		return NULL;
	}
	morsel->pool = pool;
	pthread_mutex_init(&morsel->lock, NULL);
	morsel->aside = aside;
	if (!aside)
		mrs_pool_hold(pool);
	return morsel;
}

static void handle_free(struct morsel *morsel)
{
	if (!morsel->aside)
		mrs_pool_drop(morsel->pool);
	pthread_mutex_destroy(&morsel->lock);
	free(morsel);
}

/* Keeps what handle_alloc() made and points it to the record. */
static bool handle_aim(struct morsel *morsel, mrs_cell cell)
{
	struct morsel aimed;

	if (!mrs_handle_init(&aimed, morsel->pool, cell))
		return false;
	morsel->cell = aimed.cell;
	morsel->record = aimed.record;
	morsel->table = aimed.table;
	return true;
}

/* Step 4 of open. True if the record stays; false if it is gone or has no name (then *unlinked). */
static bool entered(struct morsel *morsel, bool *unlinked)
{
	struct mrs_cell_record *record = morsel->record;

	for (unsigned rounds = 1;; rounds++) {
		uint64_t lock = mrs_load_acquire(&record->lock);
		enum mrs_record_state state = mrs_state_of(mrs_load_acquire(&record->state));

		*unlinked = false;
		if (!mrs_cell_is_current(mrs_pool_cells(morsel->pool), morsel->cell,
					 MRS_CELL_RECORD))
			return false;
		if (state == MRS_RECORD_LIVE || state == MRS_RECORD_NEW)
			return true;
		*unlinked = state == MRS_RECORD_UNLINKED;
		if (*unlinked && !lock)
			return false;
		/* Somebody is publishing, unlinking or freeing it: it will be clear in a moment. */
		if (lock)
			mrs_pool_wait_word(morsel->pool, &record->lock, lock);
		else
			sched_yield();
		if (!(rounds % 1024))
			morsel_pool_reap(morsel->pool);
	}
}

static int handle_enter(struct morsel *morsel, mrs_cell cell)
{
	const char *problem;
	struct mrs_cell_record copy;
	bool unlinked;
	int rc;

	if (!handle_aim(morsel, cell))
		return -EAGAIN;
	if (!mrs_record_copy(morsel->pool, cell, &copy))
		return -EAGAIN;
	problem = mrs_record_problem(morsel->pool, &copy);
	if (problem)
		return mrs_fail(-EINVAL,
				"the record of morsel %llu is damaged: %s; `morsel pool check` "
				"lists all damage",
				(unsigned long long)copy.id, problem);
	if (mrs_pool_is_read_only(morsel->pool))
		return 0;
	rc = mrs_open_claim(morsel->pool, cell, &morsel->open_entry);
	if (rc)
		return rc;
	MRS_PROBE("open.entered");
	/* Pairs with the fence in leave(): see the top. */
	mrs_full_fence();
	if (entered(morsel, &unlinked))
		return 0;
	if (unlinked)
		mrs_handle_leave(morsel);
	else
		mrs_open_release(morsel->open_entry);
	return -EAGAIN;
}

static int handle_open(struct morsel_pool *pool, mrs_cell cell, bool aside, struct morsel **morsel)
{
	struct morsel *made = handle_alloc(pool, aside);
	int rc;

	if (!made)
		return -ENOMEM;
	rc = handle_enter(made, cell);
	if (rc) {
		handle_free(made);
		return rc;
	}
	*morsel = made;
	return 0;
}

int mrs_handle_open(struct morsel_pool *pool, mrs_cell cell, struct morsel **morsel)
{
	return handle_open(pool, cell, false, morsel);
}

int mrs_handle_open_aside(struct morsel_pool *pool, mrs_cell cell, struct morsel **morsel)
{
	return handle_open(pool, cell, true, morsel);
}

/*
 * A name that leads to no usable record for ten seconds is damage, unless somebody is in the middle
 * of giving or taking it: then he is stopped, or dead and not to be repaired because another is
 * stopped.
 */
#define NAMED_TRIES 1000

struct in_the_middle {
	mrs_cell dirent, target;
	struct mrs_slot *by; /* NULL: nobody */
};

static void find_in_the_middle(void *ctx, unsigned slot, struct mrs_slot *shared)
{
	struct in_the_middle *middle = ctx;

	for (unsigned i = 0; i < MRS_INTENTS_PER_SLOT; i++) {
		const struct mrs_intent *intent = &shared->intent[i];

		if (mrs_load_acquire32(&intent->op) == MRS_INTENT_NONE)
			continue;
		for (size_t k = 0; k < mrs_array_length(intent->cell); k++) {
			mrs_cell cell = mrs_load_acquire(&intent->cell[k]);

			if (cell && (cell == middle->dirent || cell == middle->target))
				middle->by = shared;
		}
	}
}

static int leads_nowhere(struct morsel_pool *pool, const char *name)
{
	struct in_the_middle middle = {0};

	if (!mrs_dir_find(mrs_pool_cells(pool), name, &middle.dirent, &middle.target))
		mrs_pool_each_slot(pool, find_in_the_middle, &middle);
	if (middle.by)
		return mrs_fail(-ETIMEDOUT,
				"process %u (%.31s) is in the middle of giving or taking the name "
				"'%s' of %s: it is stopped, or dead and waits for one that is "
				"stopped; continue or kill it",
				middle.by->pid, middle.by->program, name, mrs_pool_path(pool));
	return mrs_fail(-EIO,
			"%s is damaged: the name '%s' leads to no morsel; `morsel pool check` "
			"lists all damage",
			mrs_pool_path(pool), name);
}

int mrs_open_named(struct morsel_pool *pool, const char *name, struct morsel **morsel,
		   mrs_cell *dirent)
{
	for (unsigned i = 0; i < NAMED_TRIES; i++) {
		mrs_cell target;
		int rc = mrs_dir_find(mrs_pool_cells(pool), name, dirent, &target);

		if (!rc)
			rc = mrs_handle_open(pool, target, morsel);
		if (rc != -EAGAIN)
			return rc;
		if (i < NAMED_TRIES / 2)
			continue;
		mrs_reap_repair(pool);
		usleep(20000);
	}
	return leads_nowhere(pool, name);
}

/* ---- leaving ---- */

static void free_meta(struct morsel *morsel, struct mrs_txn *txn)
{
	struct mrs_cell_record *record = morsel->record;
	uint64_t frames = mrs_pages_in(record->meta_bytes), frame;
	unsigned order = 0;

	if (!record->meta_frame || mrs_record_problem(morsel->pool, record))
		return;
	while (1ull << order < frames)
		order++;
	frame = record->meta_frame;
	mrs_txn_put_begin(txn, order, frame);
	MRS_PROBE("free.meta.named");
	mrs_store_release(&record->meta_frame, 0);
	MRS_PROBE("free.meta.unlinked");
	/* Clones have the same tensor table. */
	if (mrs_share_drop(txn, frame)) {
		mrs_pool_unback(morsel->pool, frame, 1ull << order);
		mrs_txn_put_end(txn);
	} else {
		mrs_txn_put_cancel(txn);
	}
}

/* Nobody else has it open, it has no name, its lock is held: its frames and its cell go. */
static void take_apart(struct morsel *morsel, struct mrs_txn *txn)
{
	struct mrs_cell_record *record = morsel->record;

	mrs_place_trim(morsel, txn, 0, true);
	MRS_PROBE("free.trimmed");
	free_meta(morsel, txn);
	mrs_coherence_drop(morsel);
	MRS_PROBE("free.empty");
	mrs_fetch_sub(&mrs_pool_state(morsel->pool)->morsels, 1);
	mrs_record_release(txn, record);
	MRS_PROBE("free.unlocked");
	mrs_cell_put(mrs_pool_cells(morsel->pool), morsel->cell);
	MRS_PROBE("free.put");
	/* Last: as long as the record is there, an entry names it. */
	mrs_open_release(morsel->open_entry);
	MRS_PROBE("free.left");
	mrs_txn_end(txn);
}

/* Who is retargeting pages of it without having it open goes on to his end: retarget.c, step 2. */
static void outwait_retargets(struct morsel *morsel)
{
	bool parked;

	if (!mrs_morsel_coherence(morsel))
		return;
	parked = mrs_txn_park(morsel->pool);
	while (mrs_registry_settle(morsel->pool, morsel->cell, 0, UINT64_MAX))
		;
	mrs_txn_unpark(morsel->pool, parked);
}

/* A record that was never named, or is not any more. The lock is held. */
static bool is_nameless(struct morsel *morsel)
{
	struct mrs_cells *cells = mrs_pool_cells(morsel->pool);
	struct mrs_cell_record *record = morsel->record;

	switch (mrs_state_of(mrs_load_acquire(&record->state))) {
	case MRS_RECORD_NEW:
		/* Linked, and its creator is about to say so: he is not the only user. */
		if (record->dirent && mrs_dir_is_linked(cells, record->dirent))
			return false;
		return true;
	case MRS_RECORD_UNLINKED:
		return true;
	default:
		return false;
	}
}

void mrs_handle_leave(struct morsel *morsel)
{
	struct mrs_users others;
	struct mrs_txn txn;

	/* Stale: the record was freed for a dead user, who died after that and before the entry. */
	if (!mrs_cell_is_current(mrs_pool_cells(morsel->pool), morsel->cell, MRS_CELL_RECORD)) {
		mrs_open_release(morsel->open_entry);
		return;
	}
	if (mrs_record_lock(morsel, MRS_INTENT_FREE, 0, &txn))
		return;
	if (is_nameless(morsel)) {
		mrs_record_move(morsel->record, 1 << MRS_RECORD_NEW | 1 << MRS_RECORD_UNLINKED,
				MRS_RECORD_FREEING);
		MRS_PROBE("free.freeing");
		/* Pairs with the fence in handle_enter(). */
		mrs_full_fence();
		mrs_users_scan(morsel->pool, morsel->cell, morsel->open_entry, &others);
		MRS_PROBE("free.scanned");
		if (!others.users) {
			outwait_retargets(morsel);
			take_apart(morsel, &txn);
			return;
		}
		mrs_record_move(morsel->record, 1 << MRS_RECORD_FREEING, MRS_RECORD_UNLINKED);
	}
	mrs_open_release(morsel->open_entry);
	MRS_PROBE("close.left");
	mrs_record_unlock(morsel, &txn);
}

int morsel_close(struct morsel *morsel)
{
	unsigned views;

	if (!morsel)
		return 0;
	if (!mrs_pool_usable(morsel->pool, false))
		mrs_will_need_stop(morsel);
	views = mrs_load_acquire32(&morsel->views);
	if (views)
		return mrs_fail(-EBUSY,
				"the morsel still has %u view%s: destroy them before closing it",
				views, views == 1 ? "" : "s");
	/* In a fork the entry is the parent's, and the pool is not mapped. */
	if (morsel->open_entry && !mrs_pool_usable(morsel->pool, false))
		mrs_handle_leave(morsel);
	handle_free(morsel);
	return 0;
}

/* ---- creating ---- */

/* What a record remembers of the flags that it was created with. */
#define KEPT_FLAGS (MORSEL_LAZY | MORSEL_EVICTABLE | MORSEL_CONTIGUOUS | MORSEL_SCATTERED)

int mrs_check_writable(struct morsel_pool *pool, const char *what)
{
	int rc = mrs_pool_usable(pool, false);

	if (rc)
		return rc;
	if (mrs_pool_is_read_only(pool))
		return mrs_fail(-EROFS,
				"%s: the pool %s is open read-only; open it without "
				"MORSEL_POOL_READ_ONLY",
				what, mrs_pool_path(pool));
	return 0;
}

static int check_capacity(struct morsel_pool *pool, uint64_t bytes, uint64_t granule,
			  uint32_t flags)
{
	bool swaps = mrs_load_acquire(&mrs_pool_state(pool)->swap_table);
	uint64_t frames = mrs_pool_frames_end(pool) - mrs_pool_super(pool)->frame_data;
	uint64_t budget = mrs_load_relaxed(&mrs_pool_state(pool)->budget_frames);
	char asked[16], have[16];

	if (mrs_pages_in(bytes) > frames || mrs_round_up(mrs_pages_in(bytes), granule) > frames)
		return mrs_fail(-ENOSPC,
				"%s is more than the pool %s has room for (%s of number space): "
				"grow the pool or ask for less",
				mrs_bytes_text(bytes, asked), mrs_pool_path(pool),
				mrs_bytes_text(frames * MRS_PAGE_BYTES, have));
	if (!(flags & MORSEL_LAZY) && !(flags & MORSEL_EVICTABLE && swaps) && budget &&
	    mrs_pages_in(bytes) > budget)
		return mrs_fail(-ENOSPC,
				"%s is more than the budget of the pool %s (%s resident): raise "
				"the budget, create the morsel with MORSEL_LAZY, or with "
				"MORSEL_EVICTABLE in a pool with a swap target",
				mrs_bytes_text(bytes, asked), mrs_pool_path(pool),
				mrs_bytes_text(budget * MRS_PAGE_BYTES, have));
	return 0;
}

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec * 1000000000ll + now.tv_nsec;
}

/* The record's cell: named by the intent, then by the open entry, then it is a record. */
static int make_record(struct morsel *morsel, const struct morsel_opts *opts, uint64_t bytes)
{
	struct mrs_cells *cells = mrs_pool_cells(morsel->pool);
	struct mrs_state *state = mrs_pool_state(morsel->pool);
	struct mrs_cell_record *record;
	struct mrs_txn txn;
	mrs_cell cell;
	int rc = mrs_txn_begin(morsel->pool, MRS_INTENT_CREATE, &txn);

	if (rc)
		return rc;
	rc = mrs_cell_get(cells, &txn, &txn.intent->cell[0], &cell);
	if (rc)
		goto end;
	MRS_PROBE("create.claimed");
	record = mrs_cell_at(cells, cell, MRS_CELL_CLAIMED);
	/* A claimed cell is zero; release for readers of a stale handle: see pool/cell.c. */
	mrs_store_release(&record->id, mrs_fetch_add(&state->next_id, 1));
	mrs_store_release(&record->state,
			  mrs_state_word(MRS_RECORD_NEW, opts->flags & KEPT_FLAGS, opts->pages));
	mrs_store_release(&record->bytes, bytes);
	mrs_store_release((uint64_t *)&record->created_ns, (uint64_t)now_ns());
	mrs_store_release(&morsel->open_entry->record, cell);
	MRS_PROBE("create.entered");
	mrs_cell_commit(cells, cell, MRS_CELL_RECORD);
	mrs_fetch_add(&state->morsels, 1);
	MRS_PROBE("create.made");
	handle_aim(morsel, cell);
end:
	mrs_txn_end(&txn);
	return rc;
}

/* Frames and memory for all of a new record. */
static int fill_record(struct morsel *morsel)
{
	uint64_t state = mrs_load_relaxed(&morsel->record->state);
	uint64_t end =
		mrs_round_up(mrs_morsel_pages(morsel), mrs_record_granule(morsel->pool, state));
	struct mrs_txn txn;
	int rc;

	if (!end || mrs_flags_of(state) & MORSEL_LAZY)
		return 0;
	rc = mrs_txn_begin(morsel->pool, MRS_INTENT_RESIZE, &txn);
	if (rc)
		return rc;
	txn.intent->cell[0] = morsel->cell;
	rc = mrs_place(morsel, &txn, 0, end);
	MRS_PROBE("create.placed");
	if (!rc)
		rc = mrs_fill_new(morsel, &txn, 0, end);
	MRS_PROBE("create.backed");
	mrs_txn_end(&txn);
	return rc;
}

static int create_once(struct morsel_pool *pool, const struct morsel_opts *opts, uint64_t bytes,
		       struct morsel **morsel)
{
	struct morsel *made = handle_alloc(pool, false);
	int rc;

	if (!made)
		return -ENOMEM;
	rc = mrs_open_claim(pool, MRS_OPEN_RESERVED, &made->open_entry);
	if (rc)
		goto free_handle;
	rc = make_record(made, opts, bytes);
	if (rc)
		goto release_entry;
	if (mrs_morsel_is_evictable(made))
		rc = mrs_morsel_make_coherent(made);
	if (!rc)
		rc = fill_record(made);
	if (rc) {
		morsel_close(made);
		return rc;
	}
	*morsel = made;
	return 0;
release_entry:
	mrs_open_release(made->open_entry);
free_handle:
	handle_free(made);
	return rc;
}

int mrs_handle_create(struct morsel_pool *pool, const struct morsel_opts *opts, uint64_t bytes,
		      struct morsel **morsel)
{
	uint64_t granule = mrs_record_granule(pool, mrs_state_word(MRS_RECORD_NEW, 0, opts->pages));
	int rc = check_capacity(pool, bytes, granule, opts->flags);

	if (!rc)
		rc = create_once(pool, opts, bytes, morsel);
	/* What dead processes held open comes back outside a transition only. */
	if (rc == -ENOSPC && mrs_pool_relieve(pool))
		rc = create_once(pool, opts, bytes, morsel);
	return rc;
}

int mrs_handle_link(struct morsel *morsel, const char *name)
{
	struct mrs_cells *cells = mrs_pool_cells(morsel->pool);
	struct mrs_txn txn;
	mrs_cell dirent, existing;
	int rc = mrs_txn_begin(morsel->pool, MRS_INTENT_CREATE, &txn);

	if (rc)
		return rc;
	txn.intent->cell[0] = morsel->cell;
	rc = mrs_dirent_make(cells, &txn, name, morsel->cell, &txn.intent->cell[1], &dirent);
	if (rc)
		goto end;
	MRS_PROBE("create.named");
	mrs_store_release(&morsel->record->dirent, dirent);
	rc = mrs_dir_link(cells, &txn, dirent, &existing);
	if (rc) {
		mrs_store_release(&morsel->record->dirent, 0);
		mrs_dirent_free(cells, dirent);
		goto end;
	}
	MRS_PROBE("create.linked");
	/* Somebody may have unlinked it already: then it stays UNLINKED. */
	mrs_record_move(morsel->record, 1 << MRS_RECORD_NEW, MRS_RECORD_LIVE);
	MRS_PROBE("create.live");
end:
	mrs_txn_end(&txn);
	return rc;
}

static int create_named(struct morsel_pool *pool, const char *name, const struct morsel_opts *opts,
			struct morsel **morsel)
{
	struct morsel *made;
	int rc = mrs_check_writable(pool, "creating a morsel");

	if (rc)
		return rc;
	rc = mrs_handle_create(pool, opts, opts->bytes, &made);
	if (rc)
		return rc;
	rc = mrs_handle_link(made, name);
	if (rc) {
		morsel_close(made);
		return rc;
	}
	*morsel = made;
	return 0;
}

int mrs_morsel_opts(const struct morsel_opts *given, struct morsel_opts *opts)
{
	const uint32_t known = MORSEL_CREATE | MORSEL_EXCL | KEPT_FLAGS;
	int rc = mrs_opts_read(opts, sizeof(*opts), given);

	if (rc)
		return rc;
	if (opts->flags & ~known)
		return mrs_fail(-EINVAL, "unknown morsel flags 0x%x", opts->flags & ~known);
	if (opts->pages > MORSEL_PAGES_1G)
		return mrs_fail(-EINVAL, "unknown page-size policy %u: see enum morsel_pages",
				opts->pages);
	if (opts->flags & MORSEL_CONTIGUOUS && opts->flags & MORSEL_SCATTERED)
		return mrs_fail(-EINVAL, "MORSEL_CONTIGUOUS and MORSEL_SCATTERED exclude each "
					 "other");
	return 0;
}

int morsel_open(struct morsel_pool *pool, const char *name, const struct morsel_opts *given,
		struct morsel **morsel)
{
	struct morsel_opts opts;
	struct morsel *found = NULL;
	mrs_cell dirent;
	int rc = mrs_pool_usable(pool, false);

	if (!rc)
		rc = mrs_morsel_opts(given, &opts);
	if (!rc)
		rc = mrs_dir_check_name(name);
	if (rc)
		return rc;
	if (opts.flags & MORSEL_LAZY && opts.flags & (MORSEL_CONTIGUOUS | MORSEL_SCATTERED))
		return mrs_fail(-EINVAL, "a lazy morsel gets its frames one by one: neither "
					 "MORSEL_CONTIGUOUS nor MORSEL_SCATTERED");
	do {
		rc = mrs_open_named(pool, name, &found, &dirent);
		if (!rc && opts.flags & MORSEL_CREATE && opts.flags & MORSEL_EXCL) {
			morsel_close(found);
			rc = -EEXIST;
			break;
		}
		if (rc != -ENOENT || !(opts.flags & MORSEL_CREATE))
			break;
		rc = create_named(pool, name, &opts, &found);
	} while (rc == -EEXIST && !(opts.flags & MORSEL_EXCL));
	if (!rc)
		*morsel = found;
	if (rc == -ENOENT)
		return mrs_fail(rc, "no morsel '%s' in the pool %s", name, mrs_pool_path(pool));
	if (rc == -EEXIST)
		return mrs_fail(rc, "a morsel '%s' exists already in the pool %s", name,
				mrs_pool_path(pool));
	return rc;
}
