/*
 * The object room's interface to the view room: an open morsel, seen from inside.
 *
 * struct morsel is a process-local handle on a directory record. The record is shared and changes
 * under the record's lock (size, state) or by compare-and-swap of one entry (table).
 */
#ifndef MRS_OBJECT_OBJECT_H
#define MRS_OBJECT_OBJECT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <morsel/morsel.h>

#include "pool/dir.h"
#include "pool/pool.h"
#include "table/table.h"

struct morsel {
	struct morsel_pool *pool;
	mrs_cell cell;			/* of the record */
	struct mrs_cell_record *record; /* in the metadata mapping */
	struct mrs_table table;
	struct mrs_open *open_entry; /* this handle's entry in the slot, or in an OPEN cell of it;
				      * NULL on a read-only pool handle */
	uint64_t alone_at;	     /* atomic: state.registry + 1 when it had one view at most, which
				      * follows its pages; a hint of break_keep.c */
	unsigned views;		     /* atomic: views of this handle; close answers -EBUSY */
	pthread_mutex_t lock;	     /* protects holds and open_entry->view; nothing follows it */
	struct mrs_hold *holds;	     /* what is published: see view.c */
	struct mrs_bringer *bringer; /* will_need.c; under lock until close */
	bool aside;		     /* the pool's own: closing the pool does not count it */
};

/* The pool's cells: one handle per pool handle. */
struct mrs_cells *mrs_pool_cells(struct morsel_pool *pool);

uint64_t mrs_morsel_bytes(const struct morsel *morsel);
uint64_t mrs_morsel_pages(const struct morsel *morsel); /* rounded up to 4 KiB */
bool mrs_morsel_is_sealed(const struct morsel *morsel);
bool mrs_morsel_is_lazy(const struct morsel *morsel);

/* Calls fn for each maximal run of [page, page + pages). */
int mrs_morsel_each_run(struct morsel *morsel, uint64_t page, uint64_t pages,
			int (*fn)(void *ctx, const struct mrs_run *run), void *ctx);

/* Allocates and backs what is missing of [page, page + pages) (lazy morsels); -ENOSPC in words. */
int mrs_morsel_fill(struct morsel *morsel, uint64_t page, uint64_t pages);

/*
 * The registry of views: who maps which part of which morsel. Listed in the shared slot, so that
 * shrink and seal see the views of other processes (struct mrs_open: furthest end, any writable).
 * *handle is process-private and ends with withdraw. In words: -EBUSY if the morsel shrank below
 * end_page meanwhile, -EROFS if it is sealed against a writable view or the pool is open read-only,
 * -ENOMEM.
 */
int mrs_morsel_view_publish(struct morsel *morsel, uint64_t end_page, bool writable,
			    uint64_t *handle);
/*
 * The same for a view that is listed (view/registry.h) as soon as it is mapped, and forgets what a
 * shrink takes away when its process is told: it is not in the way of one. Who lists it asks
 * mrs_morsel_view_fits() after.
 */
int mrs_morsel_view_publish_told(struct morsel *morsel, uint64_t end_page, bool writable,
				 uint64_t *handle);
/*
 * The view's target keeps the memory that it finds behind a page, whatever becomes of the file: from
 * now on nobody gives memory of the morsel back beside it. Before it is mapped; waits for who does so
 * just now, -EBUSY in words if that takes too long.
 */
int mrs_morsel_view_pins(struct morsel *morsel, uint64_t handle);
/* The holder is about to give memory back. True if it must not, for a view that pins: zeroes, then. */
bool mrs_morsel_view_frees(struct morsel *morsel, uint64_t handle);
/* Has the morsel so many pages? Waits for who is about to change its size. -EBUSY in words. */
int mrs_morsel_view_fits(struct morsel *morsel, uint64_t end_page);
void mrs_morsel_view_withdraw(struct morsel *morsel, uint64_t handle);

#endif
