/*
 * A window for tests of retargeting: a mapping of a whole morsel with a userfaultfd of its own, so
 * that no thread of the library answers; and an eviction in plain steps, which a test can stop
 * anywhere.
 */
#ifndef TESTS_CORE_OBJECT_WINDOW_H
#define TESTS_CORE_OBJECT_WINDOW_H

#include "object_support.h"

#include "object/retarget.h"
#include "swap/swap.h"

/* A pool with a swap target of compressed memory, or of a file of its own. */
struct morsel_pool *window_pool(uint64_t bytes, bool file);
void window_pool_end(struct morsel_pool *pool);

/* Maps all of the morsel, and registers it. */
void window_open(struct morsel *morsel, bool writable, struct mrs_window *window);
void window_close(struct mrs_window *window);
static inline unsigned char *window_at(const struct mrs_window *window, uint64_t page)
{
	return (unsigned char *)(uintptr_t)(window->address + (page - window->first) * 4096);
}

/* Answers faults of the window in a thread of its own until it is stopped; counts them. */
struct window_server {
	const struct mrs_window *window;
	struct morsel *morsel;
	pthread_t thread;
	uint32_t stop;		 /* atomic */
	uint64_t served, failed; /* atomic */
};
void window_serve(struct window_server *server, struct morsel *morsel,
		  const struct mrs_window *window);
void window_serve_stop(struct window_server *server);

/* Is memory behind the page? */
bool window_is_resident(struct morsel *morsel, uint64_t page);
uint64_t window_entry(struct morsel *morsel, uint64_t page);

/*
 * Evicts what is resident of [page, page + pages) as the evictor does, windows[] being all that may
 * write; returns how many pages. Clean ones are not saved anew.
 */
uint64_t window_evict(struct morsel *morsel, uint64_t page, uint64_t pages,
		      const struct mrs_window *const windows[], unsigned count);

/*
 * All 512 leaves of the table of page become one, in a morsel whose root is a table of level 1; the
 * table is kept for the way back.
 */
void window_join(struct morsel *morsel, uint64_t page);

#endif
