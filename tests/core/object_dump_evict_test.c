/*
 * Dumps of what is not all in memory: evicted pages come back for a dump, and a morsel is restored
 * that is larger than the pool's budget. And what usage, counters and who say of it.
 */
#include "core/object_support.h"

#include <errno.h>
#include <unistd.h>

#include <morsel/dump.h>
#include <morsel/observe.h>
#include <morsel/swap.h>

#include "object/retarget.h"

#define BYTES (8 * MIB)

static char path[160];

static unsigned made; /* pools, each with a swap file */

static struct morsel_pool *swapping_pool(uint64_t budget)
{
	struct morsel_pool_opts opts = {.size = sizeof(opts),
					.flags = MORSEL_POOL_CREATE,
					.bytes = 64 * MIB,
					.bytes_max = GIB,
					.budget_bytes = budget};
	struct morsel_swap_opts swap = {.size = sizeof(swap), .bytes = 64 * MIB};
	char file[180];
	struct morsel_pool *pool;

	assert_ok(morsel_pool_open(NULL, &opts, &pool));
	snprintf(file, sizeof(file), "%s.swap-%u", path, made++);
	swap.path = file;
	assert_ok(morsel_swap_add(pool, &swap, NULL));
	return pool;
}

static void remove_swap_files(void)
{
	char file[180];

	while (made--) {
		snprintf(file, sizeof(file), "%s.swap-%u", path, made);
		unlink(file);
	}
	made = 0;
}

/* Words by offset, piece by piece, under grants; or that they are so. */
static void each_piece(struct morsel *morsel, bool write)
{
	for (uint64_t offset = 0; offset < BYTES; offset += MIB) {
		struct morsel_map_opts opts = {
			.size = sizeof(opts), .offset = offset, .bytes = MIB};
		struct morsel_grant grant;
		struct morsel_view *view;
		uint64_t *word;

		assert_ok(morsel_map(morsel, &opts, &view));
		assert_ok(morsel_acquire(view, 0, MIB,
					 write ? MORSEL_READ | MORSEL_WRITE : MORSEL_READ, &grant));
		word = grant.addr;
		for (uint64_t i = 0; i < MIB / 8; i++) {
			if (write)
				word[i] = object_word(9, offset + i * 8);
			else if (word[i] != object_word(9, offset + i * 8))
				fail_msg("byte %llu is another",
					 (unsigned long long)(offset + i * 8));
		}
		morsel_release(&grant);
		morsel_view_destroy(view);
	}
}

static void test_evicted_is_dumped(void **state)
{
	struct morsel_pool *pool = swapping_pool(0);
	struct morsel *morsel = object_create(pool, "m", BYTES, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	struct morsel_usage usage = {.size = sizeof(usage)};
	struct morsel_counters counters = {.size = sizeof(counters)};
	struct morsel_page page = {.size = sizeof(page)};
	struct morsel *copy;

	each_piece(morsel, true);
	assert_ok(morsel_who(morsel, 0, &page, NULL, NULL));
	assert_int_equal(page.state, MORSEL_PAGE_RESIDENT);
	assert_string_equal(page.why, "");
	assert_ok(morsel_advise(morsel, 0, BYTES, MORSEL_ADVICE_EVICT));
	assert_ok(morsel_usage(morsel, &usage));
	assert_int_equal(usage.bytes_evicted, BYTES);
	assert_int_equal(usage.bytes_resident, 0);
	assert_ok(morsel_pool_counters(pool, &counters));
	assert_int_equal(counters.pages_out, BYTES / 4096);
	assert_int_equal(counters.bytes_evicted, BYTES);
	assert_int_equal(counters.swap_targets, 1);
	assert_ok(morsel_who(morsel, 4096, &page, NULL, NULL));
	assert_int_equal(page.state, MORSEL_PAGE_EVICTED);
	assert_ok(morsel_dump(morsel, path, NULL, NULL));
	assert_ok(morsel_usage(morsel, &usage));
	assert_int_equal(usage.bytes_evicted + usage.bytes_resident, BYTES);
	assert_ok(morsel_pool_counters(pool, &counters));
	assert_int_equal(counters.pages_in, BYTES / 4096);
	each_piece(morsel, false);
	assert_ok(morsel_restore(pool, "copy", path, NULL, &copy));
	each_piece(copy, false);
	assert_ok(morsel_close(copy));
	assert_ok(morsel_close(morsel));
	unlink(path);
	object_pool_end(pool);
	remove_swap_files();
}

static void test_larger_than_the_budget(void **state)
{
	struct morsel_pool *large = swapping_pool(0), *small = swapping_pool(5 * MIB);
	struct morsel *morsel = object_create(large, "m", BYTES, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	struct morsel *copy;

	each_piece(morsel, true);
	assert_ok(morsel_seal(morsel));
	assert_ok(morsel_dump(morsel, path, NULL, NULL));
	assert_ok(morsel_restore(small, "copy", path, NULL, &copy));
	each_piece(copy, false);
	assert_ok(morsel_dump(copy, path, NULL, NULL));
	assert_ok(morsel_close(copy));
	assert_ok(morsel_close(morsel));
	unlink(path);
	object_pool_end(small);
	object_pool_end(large);
	remove_swap_files();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_evicted_is_dumped),
		cmocka_unit_test(test_larger_than_the_budget),
	};
	const char *directory = getenv("TMPDIR");

	snprintf(path, sizeof(path), "%.100s/morsel-evicted-%d", directory ? directory : "/tmp",
		 (int)getpid());
	return cmocka_run_group_tests(tests, NULL, NULL);
}
