/*
 * Places of drivers as swap targets: pages on devices that this process drives by itself.
 *
 * A place has the map and the head of a file target (file.c), and its bytes are moved by the
 * driver's run(). Who has opened a place keeps it until the pool handle is closed: in a handler of
 * SIGBUS nothing can be opened, so that is done before, and a place that is not there then is an
 * error.
 *
 *	swap->places -> newest -> ... -> oldest		a chain that only grows; the serial of the
 *							target tells whose it is
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/probe.h"
#include "swap/internal.h"

#define SCHEME_MAX 15u

struct morsel_swap_driver {
	struct morsel_swap_driver *next;
	struct morsel_swap_driver_ops ops;
	char scheme[SCHEME_MAX + 1];
	void *ctx;
	unsigned open; /* places */
};

struct mrs_swap_place {
	struct mrs_swap_place *next;
	struct morsel_swap_driver *driver;
	void *handle;
	uint64_t bytes;
	uint64_t id[2]; /* of the target */
};

/* Protects the list of drivers and their counts; nothing follows it but a driver's own locks. */
static pthread_mutex_t drivers_lock = PTHREAD_MUTEX_INITIALIZER;
static struct morsel_swap_driver *drivers;

/* ---- drivers ---- */

static bool is_scheme(const char *scheme)
{
	size_t length = scheme ? strlen(scheme) : 0;

	for (size_t i = 0; i < length; i++)
		if (!isalnum((unsigned char)scheme[i]))
			return false;
	return length && length <= SCHEME_MAX;
}

/* The lock is held. */
static struct morsel_swap_driver *find(const char *path)
{
	for (struct morsel_swap_driver *driver = drivers; driver; driver = driver->next) {
		size_t length = strlen(driver->scheme);

		if (!strncmp(path, driver->scheme, length) && path[length] == ':')
			return driver;
	}
	return NULL;
}

bool mrs_swap_driver_has(const char *path)
{
	bool has;

	pthread_mutex_lock(&drivers_lock);
	has = find(path);
	pthread_mutex_unlock(&drivers_lock);
	return has;
}

static int check_ops(const struct morsel_swap_driver_ops *ops)
{
	if (!is_scheme(ops->scheme) || ops->reserved || !ops->open || !ops->close || !ops->run)
		return mrs_fail(-EINVAL,
				"a swap driver needs a scheme of 1 to %u letters and digits, "
				"and the operations open, close and run",
				SCHEME_MAX);
	if (ops->version != MORSEL_SWAP_DRIVER_VERSION)
		return mrs_fail(-EPROTONOSUPPORT,
				"swap driver %s is written for version %u of the interface; this "
				"libmorsel (%s) knows version %d",
				ops->scheme, ops->version, MORSEL_VERSION_STRING,
				MORSEL_SWAP_DRIVER_VERSION);
	return 0;
}

int morsel_swap_driver_register(const struct morsel_swap_driver_ops *given, void *ctx,
				struct morsel_swap_driver **out)
{
	struct morsel_swap_driver_ops ops;
	struct morsel_swap_driver *driver;
	char path[SCHEME_MAX + 2];
	int rc = mrs_opts_read(&ops, sizeof(ops), given);

	if (!rc)
		rc = check_ops(&ops);
	if (rc)
		return rc;
	driver = calloc(1, sizeof(*driver));
	if (!driver)
		return mrs_fail(-ENOMEM, "no memory for swap driver %s", ops.scheme);
	strcpy(driver->scheme, ops.scheme);
	driver->ops = ops;
	driver->ctx = ctx;
	strcpy(path, ops.scheme);
	strcat(path, ":");
	pthread_mutex_lock(&drivers_lock);
	if (find(path)) {
		rc = mrs_fail(-EEXIST, "there is a swap driver %s already", ops.scheme);
	} else {
		driver->next = drivers;
		drivers = driver;
	}
	pthread_mutex_unlock(&drivers_lock);
	if (rc)
		free(driver);
	else
		*out = driver;
	return rc;
}

int morsel_swap_driver_unregister(struct morsel_swap_driver *driver)
{
	struct morsel_swap_driver **at = &drivers;
	int rc = 0;

	if (!driver)
		return 0;
	pthread_mutex_lock(&drivers_lock);
	if (driver->open) {
		rc = mrs_fail(-EBUSY,
			      "%u places of swap driver %s are open: close their pools first",
			      driver->open, driver->scheme);
	} else {
		while (*at && *at != driver)
			at = &(*at)->next;
		if (*at)
			*at = driver->next;
	}
	pthread_mutex_unlock(&drivers_lock);
	if (!rc)
		free(driver);
	return rc;
}

/* ---- places ---- */

static struct mrs_swap_place *place_of(const struct mrs_swap_target *target)
{
	struct mrs_swap_place *place;

	if (!target->swap)
		return NULL;
	/* Pairs with the release in keep(): who sees the place sees what it is. */
	place = (struct mrs_swap_place *)(uintptr_t)mrs_load_acquire(&target->swap->places);
	while (place && memcmp(place->id, target->record->id, sizeof(place->id)))
		place = place->next;
	return place;
}

bool mrs_swap_driver_is_open(const struct mrs_swap_target *target)
{
	return place_of(target);
}

/* Opens, without telling anybody. The drivers' lock is held. */
static int open_place(const char *path, const uint64_t id[2], struct mrs_swap_place **out)
{
	struct morsel_swap_driver *driver = find(path);
	struct mrs_swap_place *place;
	int rc;

	if (!driver)
		return mrs_fail(-ENODEV, "no swap driver of this process knows %s", path);
	place = calloc(1, sizeof(*place));
	if (!place)
		return mrs_fail(-ENOMEM, "no memory for %s", path);
	rc = driver->ops.open(driver->ctx, path + strlen(driver->scheme) + 1, &place->handle,
			      &place->bytes);
	if (rc) {
		free(place);
		return rc;
	}
	driver->open++;
	place->driver = driver;
	memcpy(place->id, id, sizeof(place->id));
	*out = place;
	return 0;
}

static void close_place(struct mrs_swap_place *place)
{
	place->driver->ops.close(place->handle);
	place->driver->open--;
	free(place);
}

static void keep(struct mrs_swap *swap, struct mrs_swap_place *place)
{
	place->next = (struct mrs_swap_place *)(uintptr_t)mrs_load_relaxed(&swap->places);
	mrs_store_release(&swap->places, (uintptr_t)place);
}

static int run_one(struct mrs_swap_place *place, bool write, uint64_t position, void *memory)
{
	struct morsel_swap_io io = {
		.position = position, .memory = memory, .bytes = MRS_PAGE_BYTES, .rc = -EIO};

	place->driver->ops.run(place->handle, write, &io, 1);
	return io.rc;
}

/* 0, -EIO, or -ESTALE: somebody else's pages are there now. */
static int check_head(const struct mrs_swap_target *target, struct mrs_swap_place *place)
{
	unsigned char wanted[MRS_PAGE_BYTES] __attribute__((aligned(8)));
	unsigned char found[MRS_PAGE_BYTES] __attribute__((aligned(8)));
	int rc = run_one(place, false, 0, found);

	mrs_swap_file_head(target, wanted);
	return rc ? rc : memcmp(wanted, found, sizeof(found)) ? -ESTALE : 0;
}

/* The place of a target that exists; NULL in words. Not in a signal handler. */
static struct mrs_swap_place *reach(struct mrs_swap_target *target)
{
	struct mrs_swap_place *place;

	pthread_mutex_lock(&drivers_lock);
	place = place_of(target);
	if (!place && target->swap &&
	    !open_place(target->record->path, target->record->id, &place)) {
		if (check_head(target, place)) {
			mrs_fail(-EIO, "%s does not hold the pages of %s any more",
				 target->record->path, mrs_pool_path(target->pool));
			close_place(place);
			place = NULL;
		} else {
			keep(target->swap, place);
		}
	}
	pthread_mutex_unlock(&drivers_lock);
	return place;
}

void mrs_swap_driver_look(struct mrs_swap *swap)
{
	struct mrs_swap_target target;

	for (unsigned i = 0; i < MRS_SWAP_TARGETS; i++) {
		if (!mrs_swap_target(swap->part.pool, i, &target) ||
		    target.record->kind != MORSEL_SWAP_DRIVER)
			continue;
		target.swap = swap;
		if (!reach(&target))
			mrs_log(MRS_LOG_WARN, "swap target %u of %s cannot be reached: %s", i,
				mrs_pool_path(swap->part.pool), morsel_errormsg());
	}
}

void mrs_swap_driver_close(struct mrs_swap *swap, bool forked)
{
	struct mrs_swap_place *place =
		(struct mrs_swap_place *)(uintptr_t)mrs_swap(&swap->places, 0);

	/* In a child the devices stay the parent's, and another thread may have had the lock. */
	if (forked)
		return;
	pthread_mutex_lock(&drivers_lock);
	while (place) {
		struct mrs_swap_place *next = place->next;

		close_place(place);
		place = next;
	}
	pthread_mutex_unlock(&drivers_lock);
}

/* ---- reading and writing ---- */

static uint64_t position_of(uint64_t own)
{
	return (own + 1) * MRS_PAGE_BYTES;
}

static int write_failed(const struct mrs_swap_target *target, int rc)
{
	return mrs_fail(rc == -ETIMEDOUT || rc == -ENOSPC ? rc : -EIO,
			"swap place %s of %s cannot be written: %s", target->record->path,
			mrs_pool_path(target->pool), strerror(-rc));
}

static int save(struct mrs_swap_target *target, struct mrs_txn *txn, const void *const memory[],
		struct mrs_swap_page page[], unsigned count, enum mrs_swap_effort effort)
{
	struct mrs_swap_place *place = reach(target);
	struct morsel_swap_io io[MRS_SWAP_BATCH];
	uint64_t own[MRS_SWAP_BATCH];
	unsigned at[MRS_SWAP_BATCH], many = 0;
	int rc = 0;
	bool parked;

	if (!place)
		return -EIO;
	for (unsigned i = 0; i < count && many < MRS_SWAP_BATCH; i++)
		if (!page[i].slot)
			at[many++] = i;
	many = mrs_swap_file_take(target, txn->index + 1, own, many);
	if (!many)
		return 0;
	for (unsigned i = 0; i < many; i++)
		io[i] = (struct morsel_swap_io){.position = position_of(own[i]),
						.memory = (void *)memory[at[i]],
						.bytes = MRS_PAGE_BYTES,
						.rc = -EIO};
	parked = mrs_txn_park(target->pool);
	place->driver->ops.run(place->handle, 1, io, many);
	MRS_PROBE("swap.driver.written");
	mrs_txn_unpark(target->pool, parked);
	for (unsigned i = 0; i < many; i++) {
		if (!io[i].rc) {
			page[at[i]].slot = mrs_slot_make(target, own[i]);
			continue;
		}
		/* The driver says that nothing is under way: the slot can be used again. */
		mrs_swap_file_ops.free(target, txn, own[i]);
		rc = io[i].rc;
	}
	return rc ? write_failed(target, rc) : 0;
}

static int load_one(struct mrs_swap_target *target, uint64_t own, void *memory)
{
	struct mrs_swap_place *place = place_of(target);

	if (!place || own >= target->record->slots)
		return -EIO;
	return run_one(place, false, position_of(own), memory) ? -EIO : 0;
}

static void load(struct mrs_swap_target *target, struct mrs_swap_page page[], void *const memory[],
		 unsigned count)
{
	struct mrs_swap_place *place = reach(target);
	struct morsel_swap_io io[MRS_SWAP_BATCH];
	unsigned at[MRS_SWAP_BATCH], many = 0;

	for (unsigned i = 0; i < count && many < MRS_SWAP_BATCH; i++) {
		if (page[i].rc != -EINPROGRESS || mrs_slot_target(page[i].slot) != target->index)
			continue;
		page[i].rc = -EIO;
		if (!place || mrs_slot_own(page[i].slot) >= target->record->slots)
			continue;
		at[many] = i;
		io[many++] =
			(struct morsel_swap_io){.position = position_of(mrs_slot_own(page[i].slot)),
						.memory = memory[i],
						.bytes = MRS_PAGE_BYTES,
						.rc = -EIO};
	}
	if (many)
		place->driver->ops.run(place->handle, 0, io, many);
	for (unsigned i = 0; i < many; i++)
		page[at[i]].rc = io[i].rc ? -EIO : 0;
}

/* ---- adding and removing ---- */

static int plan(struct morsel_pool *pool, struct mrs_swap_record *record, uint64_t *map_bytes)
{
	struct mrs_swap_place *place;
	uint64_t slots;
	int rc;

	if (record->flags & (MORSEL_SWAP_PLAIN_IO | MORSEL_SWAP_SPARSE))
		return mrs_fail(-EINVAL,
				"plain and sparse are for swap files; %s is a driver's place",
				record->path);
	pthread_mutex_lock(&drivers_lock);
	rc = open_place(record->path, record->id, &place);
	if (!rc) {
		slots = place->bytes / MRS_PAGE_BYTES;
		close_place(place);
	}
	pthread_mutex_unlock(&drivers_lock);
	if (rc)
		return rc;
	if (slots < 2 || record->slots >= slots)
		return mrs_fail(-ENOSPC, "%s has room for %llu pages, and one is the head",
				record->path, (unsigned long long)slots);
	if (!record->slots)
		record->slots = slots - 1;
	*map_bytes = mrs_swap_file_map_bytes(record->slots);
	return 0;
}

static int is_usable(const struct mrs_swap_target *target, struct mrs_swap_place *place)
{
	unsigned char page[MRS_PAGE_BYTES] __attribute__((aligned(8)));
	int rc = run_one(place, false, 0, page);

	if (rc)
		return mrs_fail(rc, "%s cannot be read: %s", target->record->path, strerror(-rc));
	if (target->record->flags & MORSEL_SWAP_OVERWRITE)
		return 0;
	for (unsigned i = 0; i < sizeof(page); i++)
		if (page[i])
			return mrs_fail(
				-EEXIST,
				"%s is not empty: what is there would be lost; say so "
				"(MORSEL_SWAP_OVERWRITE, morsel swap add --overwrite) or name "
				"another",
				target->record->path);
	return 0;
}

static int make(struct mrs_swap_target *target)
{
	unsigned char head[MRS_PAGE_BYTES] __attribute__((aligned(8)));
	struct mrs_swap_place *place;
	int rc;

	mrs_swap_file_head(target, head);
	pthread_mutex_lock(&drivers_lock);
	rc = open_place(target->record->path, target->record->id, &place);
	if (!rc) {
		rc = is_usable(target, place);
		if (!rc && run_one(place, true, 0, head))
			rc = mrs_fail(-EIO, "%s cannot be written", target->record->path);
		if (rc)
			close_place(place);
		else
			keep(target->swap, place);
	}
	pthread_mutex_unlock(&drivers_lock);
	return rc;
}

/* The place stays open until the handle is closed; what it is of is taken off. */
static void unmake(struct mrs_swap_target *target)
{
	unsigned char head[MRS_PAGE_BYTES] __attribute__((aligned(8)));
	struct mrs_swap_place *place = place_of(target);

	if (!place || check_head(target, place))
		return;
	memset(head, 0, sizeof(head));
	if (run_one(place, true, 0, head))
		mrs_log(MRS_LOG_WARN, "%s still says that it holds swapped pages",
			target->record->path);
}

/* ---- slots: as of a file ---- */

static unsigned owner(struct mrs_swap_target *target, uint64_t own)
{
	return mrs_swap_file_ops.owner(target, own);
}

static void take_over(struct mrs_swap_target *target, uint64_t own, unsigned who)
{
	mrs_swap_file_ops.take_over(target, own, who);
}

static void free_slot(struct mrs_swap_target *target, struct mrs_txn *txn, uint64_t own)
{
	mrs_swap_file_ops.free(target, txn, own);
}

static void each(struct mrs_swap_target *target, void (*fn)(void *ctx, uint64_t own, unsigned who),
		 void *ctx)
{
	mrs_swap_file_ops.each(target, fn, ctx);
}

static void owned(struct mrs_swap_target *target,
		  void (*fn)(void *ctx, uint64_t frame, uint64_t count, const char *by), void *ctx)
{
}

static void repair(struct mrs_swap_target *target, struct mrs_txn *txn)
{
	mrs_swap_file_ops.repair(target, txn);
}

const struct mrs_swap_ops mrs_swap_driver_ops = {
	.plan = plan,
	.make = make,
	.unmake = unmake,
	.save = save,
	.load = load,
	.load_one = load_one,
	.owner = owner,
	.take_over = take_over,
	.free = free_slot,
	.each = each,
	.owned = owned,
	.repair = repair,
};
