/*
 * Threads that create, fill, publish, verify and remove morsels of one pool, all at once: no frame
 * ever serves two, and whoever has a morsel open reads what was written to it, also after it has
 * lost its name.
 */
#include "core/object_support.h"

#include <errno.h>
#include <pthread.h>

#include "support/counts.h"

#define THREADS 4
#define NAMES	3
#define BYTES	(24 * KIB)

struct worker {
	struct morsel_pool *pool;
	uint64_t random;
	unsigned number;
	int failed;
};

static unsigned below(uint64_t *random, uint64_t end)
{
	return (unsigned)(test_random(random) % end);
}

static int seed_piece(void *ctx, uint64_t offset, void *memory, uint64_t bytes)
{
	memcpy(ctx, memory, 8);
	return 0;
}

/* Everything but word 0, which is the seed, follows from it. */
static bool is_right(struct morsel *morsel)
{
	uint64_t seed = 0;

	mrs_content_each(morsel, 0, 8, 8, seed_piece, &seed);
	return object_differs(morsel, seed, 8, mrs_morsel_bytes(morsel) - 8) == UINT64_MAX;
}

static int store_piece(void *ctx, uint64_t offset, void *memory, uint64_t bytes)
{
	memcpy(memory, ctx, 8);
	return 0;
}

static int make(struct worker *w, const char *public_name)
{
	struct morsel_opts opts = {
		.size = sizeof(opts),
		.flags =
			MORSEL_CREATE | MORSEL_EXCL | (below(&w->random, 2) ? MORSEL_SCATTERED : 0),
		.pages = MORSEL_PAGES_4K,
		.bytes = BYTES,
	};
	uint64_t seed = test_random(&w->random);
	struct morsel *morsel;
	char name[32];
	int rc;

	snprintf(name, sizeof(name), "t%u", w->number);
	rc = morsel_open(w->pool, name, &opts, &morsel);
	if (rc)
		return rc;
	if (!object_is_zero(morsel, 0, BYTES))
		rc = -EPROTO;
	object_write(morsel, seed, 8, BYTES - 8);
	mrs_content_each(morsel, 0, 8, 8, store_piece, &seed);
	if (!rc && !is_right(morsel))
		rc = -EBADMSG;
	if (!rc)
		rc = below(&w->random, 3) ? morsel_publish(morsel, public_name)
					  : morsel_unlink(w->pool, name);
	if (!rc && !is_right(morsel))
		rc = -EBADMSG;
	morsel_close(morsel);
	return rc;
}

static int step(struct worker *w)
{
	struct morsel *morsel;
	char name[16];
	int rc;

	snprintf(name, sizeof(name), "p%u", below(&w->random, NAMES));
	switch (below(&w->random, 4)) {
	case 0:
		rc = morsel_unlink(w->pool, name);
		return rc == -ENOENT ? 0 : rc;
	case 1:
		rc = morsel_open(w->pool, name, NULL, &morsel);
		if (rc)
			return rc == -ENOENT ? 0 : rc;
		for (int i = 0; i < 3 && !rc; i++)
			rc = is_right(morsel) ? 0 : -EBADMSG;
		morsel_close(morsel);
		return rc;
	default:
		return make(w, name);
	}
}

static void *work(void *ctx)
{
	struct worker *w = ctx;

	for (int i = 0; i < COUNT_OBJECT_THREAD_STEPS && !w->failed; i++)
		w->failed = step(w);
	if (w->failed)
		fprintf(stderr, "thread %u: %d: %s\n", w->number, w->failed, morsel_errormsg());
	return NULL;
}

static void test_threads(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel_pool_stat stat = {.size = sizeof(stat)};
	uint64_t seed = test_seed();
	struct worker worker[THREADS];
	pthread_t thread[THREADS];

	for (unsigned i = 0; i < THREADS; i++) {
		worker[i] = (struct worker){.pool = pool, .random = seed * 1000 + i, .number = i};
		assert_int_equal(pthread_create(&thread[i], NULL, work, &worker[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_join(thread[i], NULL), 0);
		assert_int_equal(worker[i].failed, 0);
	}
	object_check(pool);
	for (unsigned i = 0; i < NAMES; i++) {
		char name[16];

		snprintf(name, sizeof(name), "p%u", i);
		morsel_unlink(pool, name);
	}
	assert_ok(morsel_pool_stat(pool, &stat));
	assert_int_equal(stat.morsels, 0);
	object_pool_end(pool);
}

/* ---- opening what is being removed ---- */

#define CHAIN_CELLS  31
#define FULL_HANDLES (MRS_OPEN_INLINE + 7 * CHAIN_CELLS)

/* Makes and removes "x" as fast as it can. */
static void *make_and_remove(void *ctx)
{
	struct worker *w = ctx;
	struct morsel_opts opts = {.size = sizeof(opts), .flags = MORSEL_CREATE};
	struct morsel *morsel;

	while (!mrs_load_acquire(&w->random) && !w->failed) {
		w->failed = morsel_open(w->pool, "x", &opts, &morsel);
		if (!w->failed)
			w->failed = morsel_unlink(w->pool, "x") | morsel_close(morsel);
	}
	return NULL;
}

/*
 * Whoever has opened a morsel has it: its record is there as long as the handle. The free entries
 * of the slot are made hard to find, so that there is time for a removal between any two steps of
 * open.
 */
static void test_open_beside_removal(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct worker remover = {.pool = pool};
	struct morsel *handle[FULL_HANDLES];
	unsigned opened = 0;
	pthread_t thread;

	handle[0] = object_create(pool, "full", 0, 0, 0);
	for (int i = 1; i < FULL_HANDLES; i++)
		handle[i] = object_open(pool, "full");
	for (int i = MRS_OPEN_INLINE; i < MRS_OPEN_INLINE + 7; i++)
		assert_ok(morsel_close(handle[i]));
	assert_int_equal(pthread_create(&thread, NULL, make_and_remove, &remover), 0);
	for (int i = 0; i < COUNT_OBJECT_OPENS; i++) {
		struct morsel *morsel;

		if (morsel_open(pool, "x", NULL, &morsel))
			continue;
		opened++;
		assert_true(
			mrs_cell_is_current(mrs_pool_cells(pool), morsel->cell, MRS_CELL_RECORD));
		assert_ok(morsel_close(morsel));
	}
	mrs_store_release(&remover.random, 1);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(remover.failed, 0);
	printf("%u of %u times there was something to open\n", opened, COUNT_OBJECT_OPENS);
	for (int i = 0; i < FULL_HANDLES; i++)
		if (i < MRS_OPEN_INLINE || i >= MRS_OPEN_INLINE + 7)
			assert_ok(morsel_close(handle[i]));
	object_pool_end(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_open_beside_removal),
	};

	return cmocka_run_group_tests_name("object: threads", tests, NULL, NULL);
}
