/*
 * The registry of views and pins. The protocol stands in registry.h; why it is right:
 *
 *  1. Newcomer N: stores (cell or pin), full fence, then loads the intents of all slots.
 *
 *  2. Retarget R: stores (its intent, whole; then the locks), full fence, then loads the registry.
 *
 *  3. The two fences have an order. If R's is first, all that R stored before it is what N loads: N
 *     waits until R is over. If N's is first, R sees the cell or pin. An intent that N sees in part
 *     is one whose fence is yet to come, so whatever N makes of it is right.
 *
 *  4. N waits only for intents that it saw: one that begins later has its fence after N's. It waits
 *     for the serial or the op to change; who dies in between is repaired, which clears the op.
 *
 *  5. R skips a slot whose count of pins is 0: the count is raised before the pin is written, and
 *     both before N's fence.
 *
 *  6. A cell is used again: R may read the old view's address with the new one's pages. The old one
 *     is unmapped, and the new one is a newcomer that has not passed its fence when R passed its
 *     own: it waits for R. The version keeps what R makes of the cell from being a mixture.
 *
 *	slot: views -> VIEW cell -> VIEW cell -> 0	chained inside a transition, which names it;
 *	               | pin_more			taken and left outside one
 *	               +-> PIN cell -> 0
 *
 * The lock of a handle's registry protects its list of own views and who takes a VIEW cell; the
 * lock of a listed view who takes a pin. No transition begins under either; a view's own lock may
 * follow the first one (in mrs_registry_each_own()).
 */
#include "view/registry.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "base/atomic.h"
#include "base/base.h"
#include "base/probe.h"
#include "object/object.h"

#define SETTLE_SPINS	 200u
#define SETTLE_NS	 10000000000ll /* somebody stands still */
#define SETTLE_REAP_NS	 20000000ll
#define SETTLE_PAUSE_MAX 1000000ll

struct mrs_registered {
	struct mrs_registered *next;
	struct mrs_register view;
	struct mrs_cell_view *cell; /* NULL: not listed in the pool */
	uint64_t handle;	    /* of the cell */
	pthread_mutex_t lock;
};

struct registry {
	struct mrs_part part;
	pthread_mutex_t lock;
	struct mrs_registered *first;
};

/* ---- this process's part ---- */

static void registry_stop(struct mrs_part *part)
{
	struct registry *registry = (struct registry *)part;

	pthread_mutex_destroy(&registry->lock);
	free(registry);
}

static int registry_make(struct morsel_pool *pool, struct mrs_part **part)
{
	struct registry *registry = calloc(1, sizeof(*registry));

	if (!registry)
		return mrs_fail(-ENOMEM, "no memory for the registry of views");
	registry->part = (struct mrs_part){.pool = pool, .stop = registry_stop};
	pthread_mutex_init(&registry->lock, NULL);
	*part = &registry->part;
	return 0;
}

static struct registry *registry_of(struct morsel_pool *pool)
{
	return (struct registry *)mrs_pool_part(pool, MRS_PART_REGISTRY);
}

static struct mrs_slot *own_slot(struct morsel_pool *pool)
{
	return mrs_pool_slot(pool, mrs_pool_own_slot(pool));
}

/* Who keeps what he has read looks again. */
static void changed(struct morsel_pool *pool)
{
	mrs_fetch_add(&mrs_pool_state(pool)->registry, 1);
}

/* ---- families ---- */

static struct mrs_cell_coherence *coherence_at(struct morsel_pool *pool, uint64_t record)
{
	struct mrs_cells *cells = mrs_pool_cells(pool);
	struct mrs_cell_record *found = mrs_cell_at(cells, record, MRS_CELL_RECORD);
	mrs_cell more = found ? mrs_load_acquire(&found->more) : 0;

	return more ? mrs_cell_at(cells, more, MRS_CELL_COHERENCE) : NULL;
}

uint64_t mrs_registry_family(struct morsel_pool *pool, uint64_t record)
{
	struct mrs_cell_coherence *coherence = coherence_at(pool, record);

	return coherence ? mrs_load_acquire(&coherence->family) : 0;
}

/*
 * A property keeps 32 bits of an epoch: one that would come round is never clean again, and all
 * ones stays. A clone begins in its source's epoch, for what it has was clean there. From then on
 * it has epochs of its own, which nobody else has: what a relative saved may become the clone's
 * alone.
 */
#define CLONE_EPOCHS (1ull << 31)

static uint64_t next_epoch(struct morsel_pool *pool, const struct mrs_cell_coherence *coherence,
			   uint64_t seen)
{
	uint64_t next = seen + 1, end = CLONE_EPOCHS;

	if (mrs_load_acquire(&coherence->depth)) {
		next = CLONE_EPOCHS + mrs_fetch_add(&mrs_pool_state(pool)->clone_epochs, 1);
		end = UINT32_MAX;
	}
	return next < end ? next : UINT64_MAX;
}

/* A writable view is published: what was saved before may be written now. */
void mrs_registry_written(struct morsel_pool *pool, uint64_t record)
{
	struct mrs_cell_coherence *coherence = coherence_at(pool, record);
	uint64_t seen = coherence ? mrs_load_acquire(&coherence->epoch) : UINT64_MAX, next;

	while (seen != UINT64_MAX) {
		next = next_epoch(pool, coherence, seen);
		if (mrs_cas(&coherence->epoch, &seen, next))
			return;
	}
}

/* ---- waiting for intents: steps 3 and 4 ---- */

struct range {
	struct morsel_pool *pool;
	uint64_t record, family;
	uint64_t first, end;
	int64_t deadline;
	int rc;
};

static bool is_same_family(const struct range *range, uint64_t record)
{
	if (record == range->record)
		return true;
	return record && range->family && mrs_registry_family(range->pool, record) == range->family;
}

/* A leaf of 512 pages is locked as a whole, whichever page of it is named. */
static bool intent_overlaps(const struct range *range, const struct mrs_intent *intent)
{
	uint64_t page, count;

	switch (mrs_load_acquire32(&intent->op)) {
	case MRS_INTENT_CLONE:
		return is_same_family(range, mrs_load_acquire(&intent->cell[0]));
	case MRS_INTENT_RETARGET:
		page = mrs_load_acquire(&intent->page);
		count = mrs_max(mrs_load_acquire(&intent->count), 1ull << MRS_HUGE_ORDER);
		return page < range->end && range->first < page + count &&
		       is_same_family(range, mrs_load_acquire(&intent->cell[0]));
	default:
		return false;
	}
}

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ll + now.tv_nsec;
}

static void pause_ns(int64_t ns)
{
	struct timespec time = {.tv_nsec = ns};

	nanosleep(&time, NULL);
}

static int stands_still(const struct range *range, unsigned slot)
{
	struct mrs_slot *shared = mrs_pool_slot(range->pool, slot);

	return mrs_fail(-ETIMEDOUT,
			"process %u (%.31s) is in the middle of moving pages of this morsel and "
			"stands still: is it stopped? Continue it, or kill it",
			shared->pid, shared->program);
}

/* Until this very transition is over. */
static int wait_for(const struct range *range, unsigned slot, const struct mrs_intent *intent)
{
	uint64_t serial = mrs_load_acquire(&intent->serial);
	int64_t pause = 20000, slept = 0;

	for (unsigned i = 0;; i++) {
		if (!intent_overlaps(range, intent) || mrs_load_acquire(&intent->serial) != serial)
			return 0;
		if (i < SETTLE_SPINS) {
			mrs_spin_hint();
			continue;
		}
		pause_ns(pause);
		slept += pause;
		pause = mrs_min(2 * pause, SETTLE_PAUSE_MAX);
		if (slept < SETTLE_REAP_NS)
			continue;
		slept = 0;
		mrs_reap_repair(range->pool);
		if (now_ns() > range->deadline && intent_overlaps(range, intent) &&
		    mrs_load_acquire(&intent->serial) == serial)
			return stands_still(range, slot);
	}
}

static void settle_slot(void *ctx, unsigned slot, struct mrs_slot *shared)
{
	struct range *range = ctx;

	for (unsigned i = 0; i < MRS_INTENTS_PER_SLOT && !range->rc; i++)
		if (intent_overlaps(range, &shared->intent[i]))
			range->rc = wait_for(range, slot, &shared->intent[i]);
}

static struct range range_of(struct morsel_pool *pool, uint64_t record, uint64_t first,
			     uint64_t end)
{
	return (struct range){
		.pool = pool,
		.record = record,
		.family = mrs_registry_family(pool, record),
		.first = first,
		.end = end,
		.deadline = now_ns() + SETTLE_NS,
	};
}

int mrs_registry_settle(struct morsel_pool *pool, uint64_t record, uint64_t first, uint64_t end)
{
	struct range range = range_of(pool, record, first, end);

	mrs_pool_each_slot(pool, settle_slot, &range);
	MRS_PROBE("registry.settled");
	return range.rc;
}

static void look_at_slot(void *ctx, unsigned slot, struct mrs_slot *shared)
{
	struct range *range = ctx;

	for (unsigned i = 0; i < MRS_INTENTS_PER_SLOT && !range->rc; i++)
		range->rc = intent_overlaps(range, &shared->intent[i]);
}

bool mrs_registry_is_settled(struct morsel_pool *pool, uint64_t record, uint64_t first,
			     uint64_t end)
{
	struct range range = range_of(pool, record, first, end);

	mrs_pool_each_slot(pool, look_at_slot, &range);
	return !range.rc;
}

/* ---- cells ---- */

static struct mrs_cell_view *view_at(struct morsel_pool *pool, mrs_cell cell)
{
	return cell ? mrs_cell_at(mrs_pool_cells(pool), cell, MRS_CELL_VIEW) : NULL;
}

static struct mrs_cell_pin *pins_at(struct morsel_pool *pool, mrs_cell cell)
{
	return cell ? mrs_cell_at(mrs_pool_cells(pool), cell, MRS_CELL_PIN) : NULL;
}

/* A new cell of this kind at the front of the chain that begins at *head. */
static int chain_further(struct morsel_pool *pool, enum mrs_chain chain, mrs_cell owner,
			 uint64_t *head)
{
	struct mrs_cells *cells = mrs_pool_cells(pool);
	uint64_t *words;
	struct mrs_txn txn;
	mrs_cell cell;
	int rc = mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn);

	if (rc)
		return rc;
	mrs_store_release(&txn.intent->arg[0], mrs_pool_own_slot(pool) + 1);
	mrs_store_release(&txn.intent->arg[1], owner);
	mrs_store_release32(&txn.intent->step, chain);
	rc = mrs_cell_get(cells, &txn, &txn.intent->cell[0], &cell);
	if (rc)
		goto end;
	MRS_PROBE("registry.chain.claimed");
	/* header, more: of both kinds; the rest of a claimed cell is zero: unused. */
	words = mrs_cell_at(cells, cell, MRS_CELL_CLAIMED);
	mrs_store_release(&words[1], mrs_load_acquire(head));
	mrs_cell_commit(cells, cell, chain == MRS_CHAIN_VIEW ? MRS_CELL_VIEW : MRS_CELL_PIN);
	MRS_PROBE("registry.chain.made");
	while (!mrs_cas(head, &words[1], cell))
		;
	MRS_PROBE("registry.chain.linked");
end:
	mrs_txn_end(&txn);
	return rc;
}
_Static_assert(offsetof(struct mrs_cell_view, more) == 8 &&
		       offsetof(struct mrs_cell_pin, more) == 8,
	       "chains are walked alike");

/* ---- listing ---- */

/* The registry's lock is held. */
static void cell_write(struct mrs_cell_view *cell, const struct mrs_register *view)
{
	mrs_fetch_add(&cell->version, 1);
	mrs_store_release(&cell->first, view->first);
	mrs_store_release(&cell->pages, view->pages);
	mrs_store_release(&cell->address, view->address);
	mrs_store_release(&cell->flags, view->flags);
	mrs_store_release(&cell->moves, view->moves);
	MRS_PROBE("registry.add.fields");
	/* Last: who sees it sees the rest. */
	mrs_store_release(&cell->record, view->record);
	mrs_fetch_add(&cell->version, 1);
}

/* An unused cell of our chain, in use from now on; false if there is none. */
static bool cell_take(struct morsel_pool *pool, struct mrs_registered *listed)
{
	struct registry *registry = registry_of(pool);
	mrs_cell cell = mrs_load_acquire(&own_slot(pool)->views);
	struct mrs_cell_view *view;

	pthread_mutex_lock(&registry->lock);
	for (; (view = view_at(pool, cell)); cell = mrs_load_acquire(&view->more))
		if (!mrs_load_acquire(&view->record))
			break;
	if (view) {
		listed->cell = view;
		listed->handle = cell;
		cell_write(view, &listed->view);
	}
	pthread_mutex_unlock(&registry->lock);
	return view != NULL;
}

static int list_in_pool(struct morsel_pool *pool, struct mrs_registered *listed)
{
	int rc = 0;

	while (!rc && !cell_take(pool, listed))
		rc = chain_further(pool, MRS_CHAIN_VIEW, 0, &own_slot(pool)->views);
	/*
	 * After the cell, for an evictor reads the epoch before the views: who saves a page under
	 * this epoch has seen the view. Before the fence and the waiting, so before the first
	 * write.
	 */
	if (!rc && listed->view.flags & MRS_VIEW_WRITABLE)
		mrs_registry_written(pool, listed->view.record);
	if (!rc)
		changed(pool);
	MRS_PROBE("registry.add.listed");
	return rc;
}

static void list_own(struct registry *registry, struct mrs_registered *listed)
{
	pthread_mutex_lock(&registry->lock);
	listed->next = registry->first;
	registry->first = listed;
	pthread_mutex_unlock(&registry->lock);
}

int mrs_registry_add(struct morsel_pool *pool, const struct mrs_register *view,
		     struct mrs_registered **out)
{
	struct mrs_registered *listed;
	struct mrs_part *part;
	int rc = mrs_pool_part_make(pool, MRS_PART_REGISTRY, registry_make, &part);

	if (rc)
		return rc;
	listed = calloc(1, sizeof(*listed));
	if (!listed)
		return mrs_fail(-ENOMEM, "no memory for a view's entry");
	listed->view = *view;
	pthread_mutex_init(&listed->lock, NULL);
	rc = view->flags ? list_in_pool(pool, listed) : 0;
	if (rc) {
		pthread_mutex_destroy(&listed->lock);
		free(listed);
		return rc;
	}
	/* Before a letter finds the view in the list; release: for who reads it from a fault. */
	mrs_store_release((uint64_t *)out, (uintptr_t)listed);
	list_own((struct registry *)part, listed);
	if (view->flags) {
		mrs_full_fence(); /* pairs with the retarget's: step 3 */
		rc = mrs_registry_settle(pool, view->record, view->first,
					 view->first + view->pages);
	}
	if (rc) {
		mrs_registry_remove(pool, listed);
		mrs_store_release((uint64_t *)out, 0);
	}
	return rc;
}

static void unpin_among(struct morsel_pool *pool, struct mrs_pin *pin, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (mrs_load_acquire(&pin[i].first_plus_1)) {
			mrs_store_release(&pin[i].first_plus_1, 0);
			mrs_fetch_sub(&own_slot(pool)->pins, 1);
		}
}

/* A view that goes with grants held leaves no pin to the cell's next user. */
static void unpin_all(struct morsel_pool *pool, struct mrs_cell_view *cell)
{
	struct mrs_cell_pin *more = pins_at(pool, mrs_load_acquire(&cell->pin_more));

	unpin_among(pool, cell->pin, mrs_array_length(cell->pin));
	for (; more; more = pins_at(pool, mrs_load_acquire(&more->more)))
		unpin_among(pool, more->pin, mrs_array_length(more->pin));
}

void mrs_registry_remove(struct morsel_pool *pool, struct mrs_registered *listed)
{
	struct registry *registry = registry_of(pool);
	struct mrs_registered **link = &registry->first;

	pthread_mutex_lock(&registry->lock);
	while (*link != listed)
		link = &(*link)->next;
	*link = listed->next;
	if (listed->cell) {
		unpin_all(pool, listed->cell);
		mrs_fetch_add(&listed->cell->version, 1);
		mrs_store_release(&listed->cell->record, 0);
		mrs_fetch_add(&listed->cell->version, 1);
	}
	pthread_mutex_unlock(&registry->lock);
	if (listed->cell)
		changed(pool);
	MRS_PROBE("registry.removed");
	pthread_mutex_destroy(&listed->lock);
	free(listed);
}

void mrs_registry_follow(struct mrs_registered *listed, uint64_t moves)
{
	if (listed->cell)
		mrs_store_release(&listed->cell->moves, moves);
}

uint64_t mrs_registry_followed(struct mrs_registered *listed)
{
	return listed->cell ? mrs_load_acquire(&listed->cell->moves) : 0;
}

int mrs_registry_each_own(struct morsel_pool *pool, uint64_t record,
			  int (*fn)(void *ctx, const struct mrs_register *view), void *ctx)
{
	struct registry *registry = registry_of(pool);
	int rc = 0;

	if (!registry)
		return 0;
	pthread_mutex_lock(&registry->lock);
	for (struct mrs_registered *at = registry->first; at && !rc; at = at->next)
		if (!record || at->view.record == record)
			rc = fn(ctx, &at->view);
	pthread_mutex_unlock(&registry->lock);
	return rc;
}

/* ---- pins ---- */

static struct mrs_pin *free_among(struct mrs_pin *pin, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (!mrs_load_acquire(&pin[i].first_plus_1))
			return &pin[i];
	return NULL;
}

/* The first one is for mrs_registry_try_pin(), which so always finds one. */
static struct mrs_pin *free_pin(struct morsel_pool *pool, struct mrs_cell_view *view)
{
	struct mrs_pin *pin = free_among(view->pin + 1, mrs_array_length(view->pin) - 1);
	struct mrs_cell_pin *more = pins_at(pool, mrs_load_acquire(&view->pin_more));

	for (; !pin && more; more = pins_at(pool, mrs_load_acquire(&more->more)))
		pin = free_among(more->pin, mrs_array_length(more->pin));
	return pin;
}

static void pin_write(struct morsel_pool *pool, struct mrs_pin *pin, uint64_t first, uint64_t end)
{
	mrs_fetch_add(&own_slot(pool)->pins, 1); /* before the pin: step 5 */
	mrs_store_release(&pin->end, end);
	mrs_store_release(&pin->first_plus_1, first + 1);
}

/* False if the view's pins are all in use. */
static bool pin_take(struct morsel_pool *pool, struct mrs_registered *listed, uint64_t first,
		     uint64_t end, struct mrs_pin **out)
{
	struct mrs_pin *pin;

	pthread_mutex_lock(&listed->lock);
	pin = free_pin(pool, listed->cell);
	if (pin) {
		pin_write(pool, pin, first, end);
		*out = pin;
	}
	pthread_mutex_unlock(&listed->lock);
	return pin != NULL;
}

int mrs_registry_pin(struct morsel_pool *pool, struct mrs_registered *listed, uint64_t first,
		     uint64_t end, struct mrs_pin **out)
{
	struct mrs_pin *pin = NULL;
	int rc = 0;

	if (!listed->cell) {
		*out = NULL;
		return 0;
	}
	while (!rc && !pin_take(pool, listed, first, end, &pin))
		rc = chain_further(pool, MRS_CHAIN_PIN, listed->handle, &listed->cell->pin_more);
	if (rc)
		return rc;
	MRS_PROBE("registry.pin.written");
	mrs_full_fence(); /* pairs with the retarget's: step 3 */
	rc = mrs_registry_settle(pool, listed->view.record, first, end);
	if (rc)
		mrs_registry_unpin(pool, listed, pin);
	else
		*out = pin;
	return rc;
}

struct mrs_pin *mrs_registry_pin_told(struct morsel_pool *pool, struct mrs_registered *listed,
				      uint64_t first, uint64_t end)
{
	struct mrs_pin *pin;

	MRS_CHECK(listed->cell);
	pin = &listed->cell->pin[0];
	MRS_CHECK(!mrs_load_relaxed(&pin->first_plus_1));
	pin_write(pool, pin, first, end);
	return pin;
}

int mrs_registry_try_pin(struct morsel_pool *pool, struct mrs_registered *listed, uint64_t first,
			 uint64_t end, struct mrs_pin **out)
{
	struct mrs_pin *pin = mrs_registry_pin_told(pool, listed, first, end);

	mrs_full_fence(); /* pairs with the retarget's: step 3 */
	if (!mrs_registry_is_settled(pool, listed->view.record, first, end)) {
		mrs_registry_unpin(pool, listed, pin);
		return -EAGAIN;
	}
	*out = pin;
	return 0;
}

void mrs_registry_unpin(struct morsel_pool *pool, struct mrs_registered *listed,
			struct mrs_pin *pin)
{
	if (!pin)
		return;
	MRS_CHECK(listed->cell);
	/* Release: what was done under the pin comes before. */
	mrs_store_release(&pin->first_plus_1, 0);
	mrs_fetch_sub(&own_slot(pool)->pins, 1);
}

/* ---- looking ---- */

/* What the cell says, whole; false if it is unused: steps 3 and 6. */
static bool cell_read(const struct mrs_cell_view *cell, struct mrs_seen_view *seen)
{
	for (unsigned tries = 0; tries < 100; tries++) {
		uint64_t version = mrs_load_acquire(&cell->version);

		seen->record = mrs_load_acquire(&cell->record);
		if (!seen->record)
			return false;
		seen->first = mrs_load_acquire(&cell->first);
		seen->pages = mrs_load_acquire(&cell->pages);
		seen->address = mrs_load_acquire(&cell->address);
		seen->flags = mrs_load_acquire(&cell->flags);
		seen->moves = mrs_load_acquire(&cell->moves);
		if (!(version & 1) && mrs_load_acquire(&cell->version) == version)
			return true;
	}
	/* Its writer was stopped beside the record, after the fields or before their change. */
	return true;
}

struct each {
	struct morsel_pool *pool;
	uint64_t family, first, end;
	bool all; /* of whatever family */
	int (*fn)(void *ctx, const struct mrs_seen_view *view);
	void *ctx;
	int rc;
	/* Of the last view that was looked at: */
	uint64_t record, record_family;
};

static bool is_meant(struct each *each, const struct mrs_seen_view *seen)
{
	if (seen->first >= each->end || each->first >= seen->first + seen->pages)
		return false;
	if (seen->record != each->record) {
		each->record = seen->record;
		each->record_family = mrs_registry_family(each->pool, seen->record);
	}
	return each->all || each->record_family == each->family;
}

static void each_in_slot(void *ctx, unsigned slot, struct mrs_slot *shared)
{
	struct each *each = ctx;
	uint64_t bound = mrs_load_relaxed(&mrs_pool_state(each->pool)->cells_high);
	struct mrs_cell_view *cell = view_at(each->pool, mrs_load_acquire(&shared->views));

	for (; cell && !each->rc && bound--;
	     cell = view_at(each->pool, mrs_load_acquire(&cell->more))) {
		struct mrs_seen_view seen = {
			.slot = slot,
			.generation = mrs_pool_slot_generation(each->pool, slot),
			.pid = mrs_load_relaxed32(&shared->pid),
		};

		if (cell_read(cell, &seen) && is_meant(each, &seen))
			each->rc = each->fn(each->ctx, &seen);
	}
}

int mrs_registry_each(struct morsel_pool *pool, uint64_t family, uint64_t first, uint64_t end,
		      int (*fn)(void *ctx, const struct mrs_seen_view *view), void *ctx)
{
	struct each each = {
		.pool = pool, .family = family, .first = first, .end = end, .fn = fn, .ctx = ctx};

	mrs_pool_each_slot(pool, each_in_slot, &each);
	return each.rc;
}

int mrs_registry_all(struct morsel_pool *pool,
		     int (*fn)(void *ctx, const struct mrs_seen_view *view), void *ctx)
{
	struct each each = {.pool = pool, .end = UINT64_MAX, .all = true, .fn = fn, .ctx = ctx};

	mrs_pool_each_slot(pool, each_in_slot, &each);
	return each.rc;
}

/* The first of these pins that overlaps. */
static bool pin_among(const struct mrs_pin *pin, unsigned count, uint64_t first, uint64_t end,
		      struct mrs_pin *found)
{
	for (unsigned i = 0; i < count; i++) {
		uint64_t plus = mrs_load_acquire(&pin[i].first_plus_1);
		uint64_t pin_end = mrs_load_acquire(&pin[i].end);

		if (plus && plus - 1 < end && first < pin_end) {
			*found = (struct mrs_pin){plus, pin_end};
			return true;
		}
	}
	return false;
}

struct pinned {
	struct each each;
	struct mrs_seen_view *by;
	struct mrs_pin *pin;
	uint64_t writer_of; /* only pins by views of this record that may write; 0: all */
	uint64_t granted;   /* only grants through views of this record; 0: all pins */
	bool found;
};

static bool is_wanted(const struct pinned *pinned, const struct mrs_seen_view *seen)
{
	if (pinned->granted)
		return seen->record == pinned->granted;
	return !pinned->writer_of ||
	       (seen->record == pinned->writer_of && seen->flags & MRS_VIEW_WRITABLE);
}

static bool view_pins(struct pinned *pinned, const struct mrs_cell_view *view)
{
	struct morsel_pool *pool = pinned->each.pool;
	uint64_t first = pinned->each.first, end = pinned->each.end;
	struct mrs_cell_pin *more = pins_at(pool, mrs_load_acquire(&view->pin_more));
	uint64_t bound = mrs_load_relaxed(&mrs_pool_state(pool)->cells_high);

	unsigned told = !!pinned->granted; /* the first is for service threads */

	if (pin_among(view->pin + told, mrs_array_length(view->pin) - told, first, end,
		      pinned->pin))
		return true;
	for (; more && bound--; more = pins_at(pool, mrs_load_acquire(&more->more)))
		if (pin_among(more->pin, mrs_array_length(more->pin), first, end, pinned->pin))
			return true;
	return false;
}

static void pinned_in_slot(void *ctx, unsigned slot, struct mrs_slot *shared)
{
	struct pinned *pinned = ctx;
	struct morsel_pool *pool = pinned->each.pool;
	uint64_t bound = mrs_load_relaxed(&mrs_pool_state(pool)->cells_high);
	struct mrs_cell_view *cell = view_at(pool, mrs_load_acquire(&shared->views));

	if (pinned->found || !mrs_load_acquire(&shared->pins))
		return;
	for (; cell && bound--; cell = view_at(pool, mrs_load_acquire(&cell->more))) {
		struct mrs_seen_view seen = {
			.slot = slot,
			.generation = mrs_pool_slot_generation(pool, slot),
			.pid = mrs_load_relaxed32(&shared->pid),
		};

		if (!cell_read(cell, &seen) || !is_meant(&pinned->each, &seen) ||
		    !is_wanted(pinned, &seen) || !view_pins(pinned, cell))
			continue;
		/* A dead process's mappings are gone; asked only where it would be in the way. */
		if (!mrs_pool_slot_is_alive(pool, slot))
			return;
		*pinned->by = seen;
		pinned->found = true;
		return;
	}
}

bool mrs_registry_pinned(struct morsel_pool *pool, uint64_t family, uint64_t first, uint64_t end,
			 struct mrs_seen_view *by, struct mrs_pin *pin)
{
	struct pinned pinned = {
		.each = {.pool = pool, .family = family, .first = first, .end = end},
		.by = by,
		.pin = pin,
	};

	mrs_pool_each_slot(pool, pinned_in_slot, &pinned);
	return pinned.found;
}

bool mrs_registry_granted(struct morsel_pool *pool, uint64_t record, uint64_t first, uint64_t end)
{
	struct mrs_seen_view by;
	struct mrs_pin pin;
	struct pinned pinned = {
		.each = {.pool = pool,
			 .family = mrs_registry_family(pool, record),
			 .first = first,
			 .end = end},
		.by = &by,
		.pin = &pin,
		.granted = record,
	};

	mrs_pool_each_slot(pool, pinned_in_slot, &pinned);
	return pinned.found;
}

bool mrs_registry_write_pinned(struct morsel_pool *pool, uint64_t record, struct mrs_seen_view *by)
{
	struct mrs_pin pin;
	struct pinned pinned = {
		.each = {.pool = pool,
			 .family = mrs_registry_family(pool, record),
			 .end = UINT64_MAX},
		.by = by,
		.pin = &pin,
		.writer_of = record,
	};

	mrs_pool_each_slot(pool, pinned_in_slot, &pinned);
	return pinned.found;
}
