/*
 * Faults and fills through a window, beside an eviction in plain steps: what comes back is what was
 * there, and what was written is never lost.
 */
#include "object_window.h"

#include <errno.h>
#include <unistd.h>

#include "object/bring.h"

#define PAGES 1024u
#define BYTES (PAGES * 4096ull)

struct fixture {
	struct morsel_pool *pool;
	struct morsel *morsel;
	struct mrs_window window;
	const struct mrs_window *list[2];
};

static void setup(struct fixture *f, uint32_t pages, bool writable, bool file)
{
	f->pool = window_pool(64 * MIB, file);
	f->morsel = object_create(f->pool, "m", BYTES, MORSEL_EVICTABLE, pages);
	object_write(f->morsel, 1, 0, BYTES);
	window_open(f->morsel, writable, &f->window);
	f->list[0] = &f->window;
}

static void teardown(struct fixture *f)
{
	window_close(&f->window);
	assert_ok(morsel_close(f->morsel));
	window_pool_end(f->pool);
}

static void assert_page(const struct fixture *f, uint64_t page, uint64_t seed)
{
	const uint64_t *at = (const uint64_t *)window_at(&f->window, page);

	for (unsigned i = 0; i < 512; i++)
		if (at[i] != object_word(seed, page * 4096 + i * 8))
			fail_msg("page %llu, word %u", (unsigned long long)page, i);
}

/* Evicted and touched, page by page, in every policy and from each kind of target. */
static void test_there_and_back(void **state)
{
	static const uint32_t policy[] = {MORSEL_PAGES_4K, MORSEL_PAGES_MIXED, MORSEL_PAGES_2M};

	for (unsigned i = 0; i < 6; i++) {
		struct window_server server;
		struct fixture f;

		setup(&f, policy[i / 2], true, i % 2);
		assert_int_equal(window_evict(f.morsel, 0, PAGES, f.list, 1), PAGES);
		for (unsigned p = 0; p < PAGES; p++)
			assert_false(window_is_resident(f.morsel, p));
		window_serve(&server, f.morsel, &f.window);
		for (unsigned p = 0; p < PAGES; p += 1 + p % 7)
			assert_page(&f, p * 389 % PAGES, 1);
		for (unsigned p = 0; p < PAGES; p++)
			assert_page(&f, p, 1);
		window_serve_stop(&server);
		assert_int_equal(server.failed, 0);
		object_check(f.pool);
		teardown(&f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_there_and_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
