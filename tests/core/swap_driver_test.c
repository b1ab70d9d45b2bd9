/*
 * Swap targets of drivers, over a place in memory: pages go there and come back, what fails is
 * told, and a process without the driver is refused.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <morsel/view.h>

#include "core/swap_support.h"

#define PLACE_BYTES (4u << 20)

static struct place {
	unsigned char memory[PLACE_BYTES];
	unsigned opens, closes, runs, fail_write, fail_read;
} place;

static int open_place(void *ctx, const char *name, void **handle, uint64_t *bytes)
{
	if (strcmp(name, "here"))
		return morsel_fail(-ENOENT, "no place %s", name);
	assert_ptr_equal(ctx, &place);
	place.opens++;
	*handle = &place;
	*bytes = sizeof(place.memory);
	return 0;
}

static void close_place(void *handle)
{
	place.closes++;
}

static void run(void *handle, int write, struct morsel_swap_io *io, unsigned count)
{
	place.runs++;
	for (unsigned i = 0; i < count; i++) {
		unsigned *fail = write ? &place.fail_write : &place.fail_read;

		assert_true(io[i].position + io[i].bytes <= sizeof(place.memory));
		io[i].rc = *fail && !--*fail ? -EIO : 0;
		if (io[i].rc)
			continue;
		if (write)
			memcpy(place.memory + io[i].position, io[i].memory, io[i].bytes);
		else
			memcpy(io[i].memory, place.memory + io[i].position, io[i].bytes);
	}
}

static const struct morsel_swap_driver_ops ops = {.size = sizeof(ops),
						  .version = MORSEL_SWAP_DRIVER_VERSION,
						  .scheme = "test",
						  .open = open_place,
						  .close = close_place,
						  .run = run};

struct world {
	struct morsel_pool *pool;
	struct morsel_swap_driver *driver;
	struct morsel *morsel;
	struct morsel_view *view;
	unsigned char *at;
};

#define BYTES (2u << 20)

static void open_world(struct world *w)
{
	struct morsel_pool_opts pool = {.size = sizeof(pool), .flags = MORSEL_POOL_CREATE};
	struct morsel_opts opts = {.size = sizeof(opts),
				   .flags = MORSEL_CREATE | MORSEL_EVICTABLE,
				   .pages = MORSEL_PAGES_4K,
				   .bytes = BYTES};

	memset(&place, 0, sizeof(place));
	assert_int_equal(morsel_pool_open(NULL, &pool, &w->pool), 0);
	assert_int_equal(morsel_swap_driver_register(&ops, &place, &w->driver), 0);
	assert_int_equal(swap_add(w->pool, "test:here", 0, 0, 0), 0);
	assert_int_equal(morsel_open(w->pool, "m", &opts, &w->morsel), 0);
	assert_int_equal(morsel_map(w->morsel, NULL, &w->view), 0);
	w->at = morsel_addr(w->view);
}

static void close_world(struct world *w)
{
	morsel_view_destroy(w->view);
	assert_int_equal(morsel_close(w->morsel), 0);
	assert_int_equal(morsel_swap_driver_unregister(w->driver), -EBUSY);
	assert_int_equal(morsel_pool_check(w->pool, NULL, NULL), 0);
	assert_int_equal(morsel_pool_close(w->pool), 0);
	assert_int_equal(place.opens, place.closes);
	assert_int_equal(morsel_swap_driver_unregister(w->driver), 0);
}

/* Where userfaultfd is forbidden nothing is evicted. */
static bool evict(struct world *w)
{
	int rc = morsel_advise(w->morsel, 0, BYTES, MORSEL_ADVICE_EVICT);

	for (unsigned i = 0; rc == -EAGAIN && i < 100; i++)
		rc = morsel_advise(w->morsel, 0, BYTES, MORSEL_ADVICE_EVICT);
	return !rc;
}

static void pages_go_there_and_back(void **state)
{
	struct world w;

	open_world(&w);
	for (unsigned round = 1; round < 4; round++) {
		for (unsigned i = 0; i < BYTES / PAGE; i++)
			page_fill(w.at + i * PAGE, i * round, NOISE);
		assert_true(evict(&w));
		assert_int_equal(swap_info(w.pool, 0).pages, BYTES / PAGE);
		assert_int_equal(swap_info(w.pool, 0).kind, MORSEL_SWAP_DRIVER);
		assert_int_equal(swap_info(w.pool, 0).state, MORSEL_SWAP_IN_USE);
		for (unsigned i = 0; i < BYTES / PAGE; i++)
			assert_true(page_is(w.at + i * PAGE, i * round, NOISE));
	}
	assert_true(place.runs > 0);
	close_world(&w);
}

static void a_write_that_fails_loses_nothing(void **state)
{
	struct world w;

	open_world(&w);
	for (unsigned i = 0; i < BYTES / PAGE; i++)
		page_fill(w.at + i * PAGE, i, NOISE);
	place.fail_write = 7;
	evict(&w);
	assert_int_equal(swap_info(w.pool, 0).errors_write, 1);
	assert_int_equal(swap_info(w.pool, 0).state, MORSEL_SWAP_FAILING);
	for (unsigned i = 0; i < BYTES / PAGE; i++)
		assert_true(page_is(w.at + i * PAGE, i, NOISE));
	close_world(&w);
}

static void what_is_there_is_not_overwritten(void **state)
{
	struct world w;

	open_world(&w);
	assert_int_equal(swap_add(w.pool, "test:here", 0, 0, 0), -EEXIST);
	assert_int_equal(swap_add(w.pool, "test:there", 0, 0, 0), -ENOENT);
	assert_int_equal(swap_add(w.pool, "test:here", 0, 0, MORSEL_SWAP_SPARSE), -EINVAL);
	assert_int_equal(morsel_swap_remove(w.pool, 0, 0), 0);
	place.memory[9] = 1;
	assert_int_equal(swap_add(w.pool, "test:here", 0, 0, 0), -EEXIST);
	assert_int_equal(swap_add(w.pool, "test:here", 0, 0, MORSEL_SWAP_OVERWRITE), 0);
	assert_int_equal(morsel_swap_remove(w.pool, 0, 0), 0);
	assert_int_equal(swap_add(w.pool, "test:here", PLACE_BYTES, 0, 0), -ENOSPC);
	assert_int_equal(swap_add(w.pool, "test:here", 0, 0, 0), 0);
	close_world(&w);
}

static void a_table_is_checked(void **state)
{
	struct morsel_swap_driver_ops bad = ops;
	struct morsel_swap_driver *driver, *other;

	assert_int_equal(morsel_swap_driver_register(NULL, NULL, &driver), -EINVAL);
	bad.version = 2;
	assert_int_equal(morsel_swap_driver_register(&bad, NULL, &driver), -EPROTONOSUPPORT);
	bad = ops;
	bad.scheme = "a/b";
	assert_int_equal(morsel_swap_driver_register(&bad, NULL, &driver), -EINVAL);
	bad = ops;
	bad.run = NULL;
	assert_int_equal(morsel_swap_driver_register(&bad, NULL, &driver), -EINVAL);
	assert_int_equal(morsel_swap_driver_register(&ops, NULL, &driver), 0);
	assert_int_equal(morsel_swap_driver_register(&ops, NULL, &other), -EEXIST);
	assert_int_equal(morsel_swap_driver_unregister(driver), 0);
	assert_int_equal(morsel_swap_driver_unregister(NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pages_go_there_and_back),
		cmocka_unit_test(a_write_that_fails_loses_nothing),
		cmocka_unit_test(what_is_there_is_not_overwritten),
		cmocka_unit_test(a_table_is_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
