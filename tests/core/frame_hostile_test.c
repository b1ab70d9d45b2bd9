/*
 * A hostile metadata block: whatever stands in it, no call reads or writes outside it, aborts, or
 * runs for ever. The block lies between two pages without access; an alarm ends what does not end.
 */
#include "frame_model.h"

#include <unistd.h>

#define CAPACITY (5 * MORSEL_FRAMES_TREE + 3 * MORSEL_FRAMES_HUGE)
#define LOCALS	 6
#define HEAD	 128 /* bytes that attach checks */
#define SECONDS	 240

static unsigned char *block;
static size_t bytes;
static uint64_t rng;

static void block_make(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	unsigned char *map;

	bytes = morsel_frames_metadata_bytes(CAPACITY, LOCALS);
	map = mmap(NULL, bytes + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	block = map + page;
	assert_int_equal(bytes % page, 0);
	assert_int_equal(mprotect(block, bytes, PROT_READ | PROT_WRITE), 0);
}

static bool none_referenced(void *ctx, uint64_t frame)
{
	return frame % 3 == 0;
}

static void some_calls(struct morsel_frames *f)
{
	struct morsel_frames_want want = {.order = test_random(&rng) % 19,
					  .cls = test_random(&rng) % 3,
					  .near_set = true,
					  .near = test_random(&rng) % CAPACITY};
	struct morsel_frames_pending pending;
	struct morsel_frames_stat stat;
	struct morsel_frames_got got;
	uint64_t frame = 0, list[MORSEL_FRAMES_HUGE], where;
	unsigned local = test_random(&rng) % LOCALS, order = test_random(&rng) % 19;
	const char *what;
	int n;

	/* A build with checks aborts if a local is in use twice: here that word is noise. */
	for (unsigned i = 0; i <= LOCALS; i++)
		memset((unsigned char *)f->locals + i * 256 + 92, 0, 4);
	if (!morsel_frames_get(f, local, order, test_random(&rng) % 3, 0, &frame))
		assert_true(frame < CAPACITY);
	if (!morsel_frames_get(f, local, 0, 0, 0, &frame))
		assert_true(frame < CAPACITY);
	morsel_frames_put(f, local, frame, order, 0);
	morsel_frames_put(f, local, test_random(&rng) % CAPACITY, 0, 0);
	if (!morsel_frames_get_want(f, local, &want, &got))
		assert_true(got.frame < CAPACITY);
	morsel_frames_get_at(f, local, test_random(&rng) % CAPACITY & ~((1ull << order) - 1), order,
			     0);
	n = morsel_frames_get_many(f, local, 0, 0, MORSEL_FRAMES_HUGE, list);
	assert_true(n <= (int)MORSEL_FRAMES_HUGE);
	for (int i = 0; i < n; i++)
		assert_true(list[i] < CAPACITY);
	if (n > 0)
		morsel_frames_put_many(f, local, list, (size_t)n, 0, NULL);
	morsel_frames_pending(f, local, &pending);
	morsel_frames_validate(f, &what, &where);
	morsel_frames_stat_fast(f, &stat);
	morsel_frames_stat_exact(f, &stat);
	morsel_frames_offline(f, test_random(&rng) % 6 * MORSEL_FRAMES_TREE, MORSEL_FRAMES_TREE);
	morsel_frames_online(f, test_random(&rng) % 6 * MORSEL_FRAMES_TREE, MORSEL_FRAMES_TREE, 0);
	morsel_frames_return_local(f, local);
	if (test_random(&rng) % 4 == 0)
		morsel_frames_repair(f, 0, LOCALS, none_referenced, NULL);
	morsel_frames_settle(f, local);
}

/* All of it noise: attach refuses. Noise behind a good head: attach takes it. */
static void test_noise(void **state)
{
	struct morsel_frames f;

	rng = test_seed();
	for (unsigned i = 0; i < COUNT_FRAME_HOSTILE; i++) {
		memset(block, 0, bytes);
		assert_int_equal(
			morsel_frames_init(&f, block, bytes, CAPACITY, LOCALS, CAPACITY, 0, NULL),
			0);
		for (size_t at = HEAD; at + 8 <= bytes; at += 8) {
			uint64_t noise = test_random(&rng);

			memcpy(block + at, &noise, 8);
		}
		assert_int_equal(morsel_frames_attach(&f, block, bytes), 0);
		some_calls(&f);
		some_calls(&f);
	}
}

/* An allocator in use, in which single words are changed. */
static void test_bit_flips(void **state)
{
	struct morsel_frames f;

	rng = test_seed();
	for (unsigned i = 0; i < COUNT_FRAME_HOSTILE; i++) {
		memset(block, 0, bytes);
		assert_int_equal(
			morsel_frames_init(&f, block, bytes, CAPACITY, LOCALS, CAPACITY, 0, NULL),
			0);
		for (unsigned call = 0; call < 4; call++) {
			some_calls(&f);
			for (unsigned flip = 0; flip < 8; flip++) {
				size_t at =
					HEAD - 64 +
					test_random(&rng) % (flip % 2 ? bytes - HEAD + 64 : 8192);

				block[at] ^= (unsigned char)(1u << test_random(&rng) % 8);
			}
		}
		some_calls(&f);
	}
}

/* Any head: attach answers, and what it accepts lies within the block. */
static void test_heads(void **state)
{
	rng = test_seed();
	for (unsigned i = 0; i < 100 * COUNT_FRAME_HOSTILE; i++) {
		struct morsel_frames f;

		memset(block, 0, bytes);
		assert_int_equal(morsel_frames_init(&f, block, bytes, CAPACITY, LOCALS, 0, 0, NULL),
				 0);
		for (unsigned n = test_random(&rng) % 6; n--;)
			block[test_random(&rng) % HEAD] = (unsigned char)test_random(&rng);
		if (morsel_frames_attach(&f, block, bytes))
			continue;
		assert_true((unsigned char *)f.rows + f.capacity / 8 <= block + bytes);
		assert_true((unsigned char *)f.trees + f.tree_count * 8 <= block + bytes);
		assert_true((unsigned char *)f.locals + (f.local_count + 1) * 256 <= block + bytes);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_noise),
		cmocka_unit_test(test_bit_flips),
		cmocka_unit_test(test_heads),
	};

	alarm(SECONDS);
	block_make();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
