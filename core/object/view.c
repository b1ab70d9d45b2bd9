/*
 * The registry of views, seen from the morsel: what this handle's views reach, published in its
 * open entry so that other processes' shrink and seal see it.
 *
 * Why no view survives a shrink or seal that it contradicts, and no memory is freed under a view:
 *  1 publish: (a) write the entry, (b) full fence, (c) read the record's bytes and seal.
 *  2 shrink and seal, under the record's lock: (a) write bytes or seal, (b) full fence, (c) read
 * all slots' entries; (d) if one contradicts, write the old value back and answer -EBUSY; else
 * commit. 3 By the fences, either 1c sees 2a or 2c sees 1a, or both. 4 If 2c sees the entry, the
 * shrink is undone: the view is right to stay. 5 If 1c sees the new value, publish waits until the
 * lock is free and reads again: either the value was written back (the view stays), or it is final,
 * and publish withdraws and fails. 6 A process maps only after publish, and withdraws only after it
 * has unmapped; a dead process's mappings are gone before anybody drops its entries.
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "object/internal.h"

struct mrs_hold {
	struct mrs_hold *next;
	uint64_t end_page;
	bool writable;
	bool told;
	uint64_t marks; /* MRS_OPEN_PINS, MRS_OPEN_FREES */
};

/* Writes the entry anew from the holds. The handle's lock is held. */
static void entry_update(struct morsel *morsel)
{
	uint64_t view = 0, marks = 0;

	for (const struct mrs_hold *hold = morsel->holds; hold; hold = hold->next) {
		uint64_t end = mrs_max(mrs_open_end(view), hold->end_page);

		marks |= hold->marks;
		view = end | (view & (MRS_OPEN_WRITABLE | MRS_OPEN_HELD)) |
		       (hold->writable ? MRS_OPEN_WRITABLE : 0) | (hold->told ? 0 : MRS_OPEN_HELD) |
		       marks;
	}
	/* Release: after a withdraw, pairs with the scan's acquire: the unmapping came before. */
	mrs_store_release(&morsel->open_entry->view, view);
}

enum fit { FIT, TOO_SHORT, SEALED };

static enum fit fits(const struct mrs_cell_record *record, uint64_t end_page, bool writable)
{
	if (mrs_pages_in(mrs_load_acquire(&record->bytes)) < end_page)
		return TOO_SHORT;
	if (writable && mrs_load_acquire(&record->state) & MRS_RECORD_SEALED)
		return SEALED;
	return FIT;
}

/* What fits() says when nobody is in the middle of changing it. */
static enum fit fits_finally(struct morsel *morsel, uint64_t end_page, bool writable)
{
	struct mrs_cell_record *record = morsel->record;

	for (;;) {
		uint64_t version = mrs_load_acquire(&record->format);
		enum fit fit = fits(record, end_page, writable);
		uint64_t lock = mrs_load_acquire(&record->lock);

		if (fit == FIT)
			return fit;
		if (lock)
			mrs_pool_wait_word(morsel->pool, &record->lock, lock);
		else if (mrs_load_acquire(&record->format) == version &&
			 fits(record, end_page, writable) == fit)
			return fit;
	}
}

static void hold_remove(struct morsel *morsel, struct mrs_hold *gone)
{
	struct mrs_hold **link = &morsel->holds;

	pthread_mutex_lock(&morsel->lock);
	while (*link != gone)
		link = &(*link)->next;
	*link = gone->next;
	entry_update(morsel);
	pthread_mutex_unlock(&morsel->lock);
	free(gone);
}

static int too_short(uint64_t end_page)
{
	return mrs_fail(-EBUSY,
			"the morsel ends before page %llu: it is smaller than the view, or shrank "
			"meanwhile",
			(unsigned long long)end_page);
}

static int publish(struct morsel *morsel, uint64_t end_page, bool writable, bool told,
		   uint64_t *handle)
{
	struct mrs_hold *hold;
	enum fit fit;

	if (!morsel->open_entry)
		return mrs_fail(-EROFS, "a pool that is open read-only has no views: open it "
					"without MORSEL_POOL_READ_ONLY");
	hold = malloc(sizeof(*hold));
	if (!hold)
		return mrs_fail(-ENOMEM, "no memory for a view's entry");
	*hold = (struct mrs_hold){.end_page = end_page, .writable = writable, .told = told};
	pthread_mutex_lock(&morsel->lock);
	hold->next = morsel->holds;
	morsel->holds = hold;
	entry_update(morsel);
	pthread_mutex_unlock(&morsel->lock);
	MRS_PROBE("view.publish.written");
	/* Pairs with the fence of shrink and seal: step 3 above. */
	mrs_full_fence();
	fit = fits_finally(morsel, end_page, writable);
	if (fit == FIT) {
		*handle = (uint64_t)(uintptr_t)hold;
		return 0;
	}
	hold_remove(morsel, hold);
	if (fit == SEALED)
		return mrs_fail(-EROFS, "the morsel is sealed: only read-only views of it are "
					"possible");
	return too_short(end_page);
}

int mrs_morsel_view_publish(struct morsel *morsel, uint64_t end_page, bool writable,
			    uint64_t *handle)
{
	return publish(morsel, end_page, writable, false, handle);
}

int mrs_morsel_view_publish_told(struct morsel *morsel, uint64_t end_page, bool writable,
				 uint64_t *handle)
{
	return publish(morsel, end_page, writable, true, handle);
}

int mrs_morsel_view_fits(struct morsel *morsel, uint64_t end_page)
{
	return fits_finally(morsel, end_page, false) == FIT ? 0 : too_short(end_page);
}

/* ---- who keeps memory, and who gives it back ---- */

/*
 * A view that pins marks itself, fences, and waits until nobody gives memory back; who gives memory
 * back marks itself, fences, and looks for views that pin. Of two at once at least one sees the other.
 */
struct marks {
	struct morsel_pool *pool;
	mrs_cell cell;
	uint64_t seen;
};

static void see_entry(void *ctx, struct mrs_open *entry)
{
	struct marks *marks = ctx;

	if (mrs_load_acquire(&entry->record) == marks->cell)
		marks->seen |= mrs_load_acquire(&entry->view);
}

static void see_slot(void *ctx, unsigned slot, struct mrs_slot *shared)
{
	struct marks *marks = ctx;

	mrs_open_each(marks->pool, shared, see_entry, marks);
}

static uint64_t marks_of(struct morsel *morsel)
{
	struct marks marks = {.pool = morsel->pool, .cell = morsel->cell};

	mrs_pool_each_slot(morsel->pool, see_slot, &marks);
	return marks.seen;
}

static void mark(struct morsel *morsel, uint64_t handle, uint64_t bit)
{
	pthread_mutex_lock(&morsel->lock);
	((struct mrs_hold *)(uintptr_t)handle)->marks |= bit;
	entry_update(morsel);
	pthread_mutex_unlock(&morsel->lock);
	mrs_full_fence(); /* pairs with the other's */
}

#define FREES_TRIES 10000u /* of a millisecond */

int mrs_morsel_view_pins(struct morsel *morsel, uint64_t handle)
{
	struct timespec pause = {.tv_nsec = 1000000};

	mark(morsel, handle, MRS_OPEN_PINS);
	MRS_PROBE("view.pins.marked");
	for (unsigned i = 0; i < FREES_TRIES; i++) {
		if (!(marks_of(morsel) & MRS_OPEN_FREES))
			return 0;
		nanosleep(&pause, NULL);
		/* It may have died in the middle of it. */
		if (i % 64 == 63)
			mrs_pool_relieve(morsel->pool);
	}
	return mrs_fail(-EBUSY, "memory of the morsel is being given back, for more than 10 s: try "
				"again");
}

bool mrs_morsel_view_frees(struct morsel *morsel, uint64_t handle)
{
	mark(morsel, handle, MRS_OPEN_FREES);
	MRS_PROBE("view.frees.marked");
	return marks_of(morsel) & MRS_OPEN_PINS;
}

void mrs_morsel_view_withdraw(struct morsel *morsel, uint64_t handle)
{
	if (handle)
		hold_remove(morsel, (struct mrs_hold *)(uintptr_t)handle);
}
