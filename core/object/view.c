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

#include "object/internal.h"

struct mrs_hold {
	struct mrs_hold *next;
	uint64_t end_page;
	bool writable;
	bool told;
};

/* Writes the entry anew from the holds. The handle's lock is held. */
static void entry_update(struct morsel *morsel)
{
	uint64_t view = 0;

	for (const struct mrs_hold *hold = morsel->holds; hold; hold = hold->next) {
		uint64_t end = mrs_max(mrs_open_end(view), hold->end_page);

		view = end | (view & (MRS_OPEN_WRITABLE | MRS_OPEN_HELD)) |
		       (hold->writable ? MRS_OPEN_WRITABLE : 0) | (hold->told ? 0 : MRS_OPEN_HELD);
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

void mrs_morsel_view_withdraw(struct morsel *morsel, uint64_t handle)
{
	if (handle)
		hold_remove(morsel, (struct mrs_hold *)(uintptr_t)handle);
}
