/*
 * Swap targets, one promise after the other.
 */
#include "core/swap_support.h"

#define FRAMES 20000 /* frame numbers that the tests name; nothing is behind them */

static unsigned char memory[MRS_SWAP_BATCH][PAGE] __attribute__((aligned(4096)));
static char file[128];

static int setup(void **state)
{
	(void)state;
	pool_double_reset();
	strcpy(file, pool_path("swap"));
	unlink(file);
	return 0;
}

static void fill(uint64_t first, unsigned count, enum content content)
{
	for (unsigned i = 0; i < count; i++)
		page_fill(memory[i], first + i, content);
}

static void assert_there(struct morsel_pool *pool, uint64_t first, unsigned count,
			 enum content content)
{
	unsigned char page[PAGE];

	for (unsigned i = 0; i < count; i++) {
		assert_int_equal(swap_in(pool, first + i, page), 0);
		assert_true(page_is(page, first + i, content));
	}
}

static void round_trip(struct morsel_pool *pool, enum content content)
{
	for (uint64_t first = 1000; first < 4000; first += 500) {
		fill(first, 500, content);
		assert_int_equal(swap_out(pool, first, memory, 500), 0);
	}
	assert_there(pool, 1000, 3000, content);
	assert_clean(pool);
}

static void drop_all(struct morsel_pool *pool)
{
	for (uint64_t frame = 0; frame < FRAMES; frame++)
		swap_drop(pool, frame);
}

static void test_no_target(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 64 * MIB, 0);

	(void)state;
	fill(1, 1, NOISE);
	assert_int_equal(swap_out(pool, 1, memory, 1), -ENODEV);
	assert_words("morsel swap add");
	fill(1, 1, FILLED);
	assert_int_equal(swap_out(pool, 1, memory, 1), 0);
	assert_there(pool, 1, 1, FILLED);
	assert_int_equal(morsel_pool_close(pool), 0);
}

static void test_memory(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 64 * MIB, 0);
	int id = swap_add(pool, NULL, 32 * MIB, 0, 0);

	(void)state;
	assert_true(id >= 0);
	for (enum content content = NOISE; content < CONTENTS; content++) {
		round_trip(pool, content);
		assert_int_equal(swap_info(pool, (unsigned)id).pages, content == FILLED ? 0 : 3000);
		if (content == TEXT)
			assert_true(swap_info(pool, (unsigned)id).memory_bytes <
				    3000 * PAGE * 3 / 4);
		drop_all(pool);
		assert_int_equal(swap_info(pool, (unsigned)id).pages, 0);
		assert_true(swap_info(pool, (unsigned)id).memory_bytes <= 18 * 32768);
		assert_clean(pool);
	}
	assert_int_equal(morsel_swap_remove(pool, (unsigned)id, 0), 0);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
}

static void test_file(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 64 * MIB, 0);
	int id = swap_add(pool, file, 16 * MIB, 0, MORSEL_SWAP_PLAIN_IO);

	(void)state;
	assert_true(id >= 0);
	for (enum content content = NOISE; content < CONTENTS; content++) {
		round_trip(pool, content);
		drop_all(pool);
	}
	assert_int_equal(swap_info(pool, (unsigned)id).pages, 0);
	assert_int_equal(morsel_swap_remove(pool, (unsigned)id, 0), 0);
	assert_int_equal(access(file, F_OK), -1);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_no_target, setup),
		cmocka_unit_test_setup(test_memory, setup),
		cmocka_unit_test_setup(test_file, setup),
	};
	int failed;

	pool_folder_make("/dev/shm");
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	pool_folder_remove();
	return failed;
}
