/*
 * Adding and removing swap targets, safe against death at any instruction.
 *
 *	add	record linked as NEW with our transition's number; map; file; then ACTIVE, by one store
 *
 *	remove	LEAVING: takes no more; behind the closed gate, when it is empty: GONE, with our
 *		number; then taken apart
 *
 * A record with a transition's number is taken apart by who repairs that transition's death. Who
 * saves looks at the state inside its transition, and again after each time it may have been parked:
 * so behind the gate a LEAVING target that is empty stays empty.
 */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/probe.h"
#include "swap/internal.h"

/* ---- the record ---- */

static uint64_t draw_serial(struct morsel_pool *pool)
{
	return mrs_fetch_add(&mrs_pool_state(pool)->swap_words[0], 1) % 255 + 1;
}

/* The path that every process can use; of a file that is to be made, its folder's. */
static int absolute_path(const char *path, char *to)
{
	char copy[PATH_MAX], folder[PATH_MAX];
	char *name;

	if (strlen(path) >= PATH_MAX)
		return mrs_fail(-ENAMETOOLONG, "the path of the swap file is too long");
	if (realpath(path, folder)) {
		name = NULL;
	} else {
		strcpy(copy, path);
		if (errno != ENOENT || !realpath(dirname(copy), folder))
			return mrs_fail_errno(-errno, "cannot find %s", path);
		strcpy(copy, path);
		name = basename(copy);
	}
	if (strlen(folder) + (name ? strlen(name) : 0) + 2 > MRS_SWAP_PATH_MAX)
		return mrs_fail(-ENAMETOOLONG, "the path of the swap file is longer than %d bytes",
				MRS_SWAP_PATH_MAX - 1);
	strcpy(to, folder);
	if (name) {
		strcat(to, "/");
		strcat(to, name);
	}
	return 0;
}

static int fill_record(struct morsel_pool *pool, const struct morsel_swap_opts *opts,
		       struct mrs_swap_record *record, uint64_t *map_bytes)
{
	int rc = 0;

	memset(record, 0, sizeof(*record));
	record->magic = MRS_SWAP_RECORD_MAGIC;
	record->kind = !opts->path		       ? MORSEL_SWAP_MEMORY
		       : mrs_swap_driver_has(opts->path) ? MORSEL_SWAP_DRIVER
							 : MORSEL_SWAP_FILE;
	record->priority = opts->priority;
	record->flags = opts->flags;
	record->compression = opts->compression;
	record->slots = opts->bytes / MRS_PAGE_BYTES;
	if (getrandom(record->id, sizeof(record->id), 0) != sizeof(record->id))
		return mrs_fail_errno(-EIO, "no random numbers for the swap target's identity");
	if (record->kind == MORSEL_SWAP_FILE)
		rc = absolute_path(opts->path, record->path);
	else if (opts->path && snprintf(record->path, sizeof(record->path), "%s", opts->path) >=
				       (int)sizeof(record->path))
		rc = mrs_fail(-ENAMETOOLONG, "the name of the place is longer than %d bytes",
			      MRS_SWAP_PATH_MAX - 1);
	return rc ? rc : mrs_swap_ops_of(record->kind)->plan(pool, record, map_bytes);
}

static int check_opts(struct morsel_pool *pool, const struct morsel_swap_opts *opts)
{
	uint32_t file_flags = MORSEL_SWAP_PLAIN_IO | MORSEL_SWAP_OVERWRITE | MORSEL_SWAP_SPARSE;

	if (pool->kind != MORSEL_POOL_MEMFD && pool->kind != MORSEL_POOL_TMPFS)
		return mrs_fail(-EOPNOTSUPP,
				"%s is on %s: only memfd and tmpfs pools evict pages by themselves",
				pool->path, mrs_kind_text(pool->kind));
	if (opts->flags & ~file_flags || opts->reserved || opts->compression > MORSEL_SWAP_ZSTD)
		return mrs_fail(-EINVAL, "unknown flag or compression of a swap target");
	if (opts->path && opts->compression)
		return mrs_fail(-EINVAL,
				"only compressed memory has a compression; swap file %s "
				"does not",
				opts->path);
	if (!opts->path && opts->flags)
		return mrs_fail(-EINVAL,
				"these flags are for swap files; compressed memory has none");
	if (opts->bytes && opts->bytes < MRS_PAGE_BYTES)
		return mrs_fail(-EINVAL, "a swap target of %llu bytes is less than a page",
				(unsigned long long)opts->bytes);
	return 0;
}

/* Two targets on one file would overwrite each other. */
static int check_same_file(struct morsel_pool *pool, const struct mrs_swap_record *record)
{
	struct mrs_swap_target other;
	struct stat ours, theirs;

	for (unsigned i = 0; i < MRS_SWAP_TARGETS && record->kind == MORSEL_SWAP_DRIVER; i++)
		if (mrs_swap_target(pool, i, &other) && !strcmp(other.record->path, record->path))
			return mrs_fail(-EEXIST, "%s is swap target %u already", record->path, i);
	if (record->kind != MORSEL_SWAP_FILE || stat(record->path, &ours))
		return 0;
	for (unsigned i = 0; i < MRS_SWAP_TARGETS; i++)
		if (mrs_swap_target(pool, i, &other) && other.record->kind == MORSEL_SWAP_FILE &&
		    !stat(other.record->path, &theirs) &&
		    (S_ISBLK(ours.st_mode)
			     ? ours.st_rdev == theirs.st_rdev
			     : ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino))
			return mrs_fail(-EEXIST, "%s is swap target %u already", record->path, i);
	return 0;
}

/* ---- adding ---- */

/* Metadata frames with memory, which may go over the budget: they are what makes room. Pending. */
static int get_frames(struct mrs_txn *txn, unsigned order, uint64_t *frame)
{
	int rc = mrs_txn_get(txn, order, MRS_FRAME_IMMOVABLE, 0, frame);

	if (rc)
		return rc;
	rc = mrs_pool_back(txn, *frame, 1ull << order, MRS_BACK_OVER_BUDGET, NULL);
	if (rc) {
		mrs_txn_put_begin(txn, order, *frame);
		mrs_txn_settle(txn);
		mrs_txn_put_end(txn);
		return rc;
	}
	memset(mrs_pool_at(txn->pool, *frame, 1ull << order), 0, MRS_PAGE_BYTES << order);
	return 0;
}

static void put_frames(struct mrs_txn *txn, unsigned order, uint64_t frame)
{
	mrs_pool_unback(txn->pool, frame, 1ull << order);
	mrs_txn_put_end(txn);
}

static int make_table(struct mrs_txn *txn)
{
	uint64_t *word = &mrs_pool_state(txn->pool)->swap_table, none = 0, frame;
	int rc;

	if (mrs_load_acquire(word))
		return 0;
	rc = get_frames(txn, 0, &frame);
	if (rc)
		return rc;
	if (mrs_cas(word, &none, frame)) {
		MRS_PROBE("swap.add.table");
		mrs_txn_settle(txn);
		return 0;
	}
	mrs_txn_put_begin(txn, 0, frame);
	mrs_txn_settle(txn);
	put_frames(txn, 0, frame);
	return 0;
}

static int link_record(struct mrs_txn *txn, const struct mrs_swap_record *filled, unsigned *index)
{
	uint64_t *table = mrs_swap_table(txn->pool), frame;
	int rc = table ? get_frames(txn, 0, &frame) : -EIO;

	if (rc)
		return rc;
	memcpy(mrs_pool_at(txn->pool, frame, 1), filled, sizeof(*filled));
	for (unsigned i = 0; i < MRS_SWAP_TARGETS; i++) {
		uint64_t none = 0;

		if (mrs_cas(&table[i], &none, frame)) {
			MRS_PROBE("swap.add.linked");
			mrs_txn_settle(txn);
			*index = i;
			return 0;
		}
	}
	mrs_txn_put_begin(txn, 0, frame);
	mrs_txn_settle(txn);
	put_frames(txn, 0, frame);
	return mrs_fail(-ENOSPC, "%s has %d swap targets already: remove one first",
			txn->pool->path, MRS_SWAP_TARGETS);
}

static int link_map(struct mrs_txn *txn, struct mrs_swap_record *record, uint64_t bytes)
{
	unsigned order = 0;
	uint64_t frame;
	int rc;

	while (order <= MORSEL_FRAMES_MAX_ORDER && MRS_PAGE_BYTES << order < bytes)
		order++;
	if (order > MORSEL_FRAMES_MAX_ORDER)
		return mrs_fail(-EINVAL, "a swap target of this size is too large for one map: add "
					 "several");
	rc = get_frames(txn, order, &frame);
	if (rc)
		return rc;
	mrs_store_release(&record->map_order, order);
	mrs_store_release(&record->map_frame, frame);
	MRS_PROBE("swap.add.map");
	mrs_txn_settle(txn);
	return 0;
}

static int add(struct mrs_txn *txn, struct mrs_swap_record *filled, uint64_t map_bytes,
	       unsigned *index)
{
	uint64_t serial = draw_serial(txn->pool);
	struct mrs_swap_target target;
	bool parked;
	int rc = make_table(txn);

	filled->state = mrs_swap_state_make(MRS_SWAP_NEW, serial, txn->index + 1);
	if (!rc)
		rc = link_record(txn, filled, index);
	if (rc)
		return rc;
	if (!mrs_swap_target(txn->pool, *index, &target))
		return mrs_fail(-EIO, "%s is damaged: its table of swap targets", txn->pool->path);
	rc = link_map(txn, target.record, map_bytes);
	if (!rc)
		mrs_swap_target(txn->pool, *index, &target);
	parked = mrs_txn_park(txn->pool);
	if (!rc)
		rc = mrs_swap_ops_of(filled->kind)->make(&target);
	mrs_txn_unpark(txn->pool, parked);
	MRS_PROBE("swap.add.made");
	if (rc)
		mrs_swap_dismantle(txn, &target);
	else
		mrs_store_release(&target.record->state,
				  mrs_swap_state_make(MRS_SWAP_ACTIVE, serial, 0));
	return rc;
}

int morsel_swap_add(struct morsel_pool *pool, const struct morsel_swap_opts *given, unsigned *id)
{
	struct morsel_swap_opts opts;
	struct mrs_swap_record record;
	uint64_t map_bytes;
	struct mrs_txn txn;
	unsigned index = 0;
	int rc = mrs_pool_usable(pool, true), lock;

	if (!rc)
		rc = mrs_opts_read(&opts, sizeof(opts), given);
	if (!rc)
		rc = check_opts(pool, &opts);
	if (!rc && !mrs_swap_of(pool))
		rc = -ENOMEM;
	if (!rc)
		rc = fill_record(pool, &opts, &record, &map_bytes);
	if (rc)
		return rc;
	rc = mrs_pool_require(pool, MRS_FEATURE_INCOMPAT_COHERENT);
	if (rc)
		return rc;
	lock = mrs_setup_lock(pool);
	if (lock < 0)
		return lock;
	rc = check_same_file(pool, &record);
	if (!rc)
		rc = mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn);
	if (!rc) {
		rc = add(&txn, &record, map_bytes, &index);
		mrs_txn_end(&txn);
	}
	mrs_pool_unlock_byte(lock);
	if (!rc && id)
		*id = index;
	return rc;
}

/* ---- removing ---- */

void mrs_swap_dismantle(struct mrs_txn *txn, struct mrs_swap_target *target)
{
	const struct mrs_swap_ops *ops = mrs_swap_ops_of(target->record->kind);
	struct mrs_swap_record *record = target->record;
	uint64_t *table = mrs_swap_table(target->pool);

	ops->unmake(target);
	MRS_PROBE("swap.remove.unmade");
	if (target->map) {
		if (ops->drop)
			ops->drop(target, txn);
		mrs_txn_put_begin(txn, (unsigned)record->map_order, record->map_frame);
		mrs_store_release(&record->map_frame, 0);
		MRS_PROBE("swap.remove.map");
		put_frames(txn, (unsigned)record->map_order,
			   mrs_putting_frame(txn->intent->putting));
	}
	mrs_txn_put_begin(txn, 0, mrs_load_acquire(&table[target->index]));
	mrs_store_release(&table[target->index], 0);
	MRS_PROBE("swap.remove.unlinked");
	put_frames(txn, 0, mrs_putting_frame(txn->intent->putting));
}

static void count_slot(void *ctx, uint64_t own, unsigned owner)
{
	++*(uint64_t *)ctx;
}

static int still_there(struct mrs_swap_target *target, uint64_t pages)
{
	return mrs_fail(
		-EBUSY,
		"%llu pages are still on swap target %u of %s: it takes no more; bring them in "
		"(morsel advise will-need) or free their morsels, and remove it again",
		(unsigned long long)pages, target->index, target->pool->path);
}

/* LEAVING -> GONE if nothing is there, or its loss is meant; see the head of this file. */
static int condemn(struct mrs_txn *txn, struct mrs_swap_target *target, unsigned flags)
{
	struct morsel_pool *pool = txn->pool;
	uint64_t pages = 0;
	bool parked;
	int rc;

	parked = mrs_txn_park(pool);
	pthread_mutex_lock(&pool->reap_lock);
	if (mrs_gate_is_stuck(pool)) {
		pthread_mutex_unlock(&pool->reap_lock);
		mrs_reap_repair(pool);
		pthread_mutex_lock(&pool->reap_lock);
	}
	rc = mrs_gate_close(pool);
	if (!rc) {
		mrs_swap_ops_of(target->record->kind)->each(target, count_slot, &pages);
		if (pages && !(flags & MORSEL_SWAP_LOSE))
			rc = still_there(target, pages);
		else
			mrs_store_release(
				&target->record->state,
				mrs_swap_state_make(MRS_SWAP_GONE, target->serial, txn->index + 1));
		mrs_gate_open(pool);
	}
	pthread_mutex_unlock(&pool->reap_lock);
	MRS_PROBE("swap.remove.condemned");
	mrs_txn_unpark(pool, parked);
	return rc;
}

static int set_state(struct mrs_swap_target *target, enum mrs_swap_state state)
{
	uint64_t seen = mrs_load_acquire(&target->record->state);

	do {
		if (mrs_swap_owner_of(seen) || mrs_swap_state_of(seen) == MRS_SWAP_NEW ||
		    mrs_swap_state_of(seen) == MRS_SWAP_GONE)
			return mrs_fail(-EBUSY, "swap target %u of %s is being added or removed",
					target->index, target->pool->path);
	} while (!mrs_cas(&target->record->state, &seen, (seen & ~255ull) | state));
	return 0;
}

int morsel_swap_remove(struct morsel_pool *pool, unsigned id, unsigned flags)
{
	struct mrs_swap_target target;
	struct mrs_txn txn;
	int rc = mrs_pool_usable(pool, true), lock;

	if (rc)
		return rc;
	if (flags & ~(MORSEL_SWAP_LOSE | MORSEL_SWAP_KEEP) ||
	    flags == (MORSEL_SWAP_LOSE | MORSEL_SWAP_KEEP))
		return mrs_fail(-EINVAL, "unknown flags 0x%x for removing a swap target", flags);
	lock = mrs_setup_lock(pool);
	if (lock < 0)
		return lock;
	if (!mrs_swap_target(pool, id, &target))
		rc = mrs_fail(-ENOENT, "%s has no swap target %u", pool->path, id);
	else
		rc = set_state(&target,
			       flags & MORSEL_SWAP_KEEP ? MRS_SWAP_ACTIVE : MRS_SWAP_LEAVING);
	if (!rc && !(flags & MORSEL_SWAP_KEEP)) {
		rc = mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn);
		if (!rc) {
			rc = condemn(&txn, &target, flags);
			if (!rc)
				mrs_swap_dismantle(&txn, &target);
			mrs_txn_end(&txn);
		}
	}
	mrs_pool_unlock_byte(lock);
	return rc;
}
