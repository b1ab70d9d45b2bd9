/*
 * Properties of frames against an obvious model; growth while others read and write; death at every
 * step of a growth.
 */
#include "core/pool_support.h"

#include <pthread.h>

#include "pool/counts.h"
#include "pool/property.h"
#include "support/counts.h"

#define FRAMES	200000u
#define THREADS 3

static char path[128];

static int setup(void **state)
{
	(void)state;
	pool_double_reset();
	strcpy(path, pool_path("pool"));
	return 0;
}

static void begin(struct morsel_pool *pool, struct mrs_txn *txn)
{
	if (mrs_txn_begin(pool, MRS_INTENT_OTHER, txn))
		abort();
}

/* ---- against a model ---- */

struct model {
	uint32_t shares[FRAMES];
	struct mrs_prop swap[FRAMES], deposit[FRAMES];
};
static struct model model;

static struct mrs_prop *pair_of(enum mrs_prop_kind kind, uint64_t frame)
{
	return kind == MRS_PROP_SWAP ? &model.swap[frame] : &model.deposit[frame];
}

static void step_count(struct mrs_txn *txn, uint64_t frame, uint64_t random)
{
	int64_t delta = (int64_t)(random % 7) - 3, wanted = model.shares[frame] + delta;
	uint64_t now;
	int rc = mrs_prop_add(txn, frame, MRS_PROP_SHARES, delta, &now);

	if (wanted < 0) {
		assert_int_equal(rc, -ERANGE);
		return;
	}
	assert_int_equal(rc, 0);
	assert_int_equal(now, wanted);
	model.shares[frame] = (uint32_t)wanted;
}

static void step_pair(struct mrs_txn *txn, uint64_t frame, enum mrs_prop_kind kind, uint64_t random)
{
	struct mrs_prop value = {.value = random | 1, .aux = ~random}, former = {0};
	struct mrs_prop *wanted = pair_of(kind, frame);

	if (random % 3) {
		assert_int_equal(mrs_prop_set(txn, frame, kind, &value), 0);
		*wanted = value;
		return;
	}
	assert_int_equal(mrs_prop_clear(txn, frame, kind, &former), wanted->value != 0);
	assert_int_equal(former.value, wanted->value);
	assert_int_equal(former.aux, wanted->aux);
	*wanted = (struct mrs_prop){0};
}

static void assert_frame(struct morsel_pool *pool, uint64_t frame)
{
	struct mrs_prop got;

	for (enum mrs_prop_kind kind = MRS_PROP_SHARES; kind <= MRS_PROP_DEPOSIT; kind++) {
		struct mrs_prop wanted = kind == MRS_PROP_SHARES
						 ? (struct mrs_prop){.value = model.shares[frame]}
						 : *pair_of(kind, frame);

		assert_int_equal(mrs_prop_get(pool, frame, kind, &got), wanted.value != 0);
		if (!wanted.value)
			continue;
		assert_int_equal(got.value, wanted.value);
		assert_int_equal(got.aux, wanted.aux);
	}
}

static int count_one(void *ctx, uint64_t frame, enum mrs_prop_kind kind,
		     const struct mrs_prop *prop)
{
	assert_true(frame < FRAMES && prop->value);
	++*(uint64_t *)ctx;
	return 0;
}

static void assert_model(struct morsel_pool *pool)
{
	uint64_t wanted = 0, found = 0;

	for (uint64_t frame = 0; frame < FRAMES; frame++) {
		assert_frame(pool, frame);
		wanted += (model.shares[frame] != 0) + (model.swap[frame].value != 0) +
			  (model.deposit[frame].value != 0);
	}
	assert_int_equal(mrs_prop_each(pool, count_one, &found), 0);
	assert_int_equal(found, wanted);
	assert_clean(pool);
}

static void test_model(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, GIB, 0);
	uint64_t random = test_seed(), one;
	struct mrs_txn txn;

	(void)state;
	memset(&model, 0, sizeof(model));
	begin(pool, &txn);
	for (unsigned i = 0; i < COUNT_PROPERTY_STEPS; i++) {
		uint64_t frame;

		one = test_random(&random);
		/* Neighbours, strides of 2 MiB, and anywhere. */
		frame = one % 3 == 0   ? (one >> 8) % 3000
			: one % 3 == 1 ? (one >> 8) % (FRAMES / 512) * 512
				       : (one >> 8) % FRAMES;
		if (one >> 60 < 5)
			step_count(&txn, frame, one >> 30);
		else
			step_pair(&txn, frame, one >> 60 < 12 ? MRS_PROP_SWAP : MRS_PROP_DEPOSIT,
				  one >> 30);
		assert_frame(pool, frame);
	}
	mrs_txn_end(&txn);
	assert_model(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
}

static void test_many(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, GIB, 0);
	uint64_t random = test_seed(), frames[512], now[512];
	struct mrs_txn txn;
	unsigned done;

	(void)state;
	memset(&model, 0, sizeof(model));
	begin(pool, &txn);
	for (unsigned round = 0; round < 200; round++) {
		for (unsigned i = 0; i < 512; i++)
			frames[i] = round % 2 ? round * 512 + i : test_random(&random) % FRAMES;
		assert_int_equal(
			mrs_prop_add_many(&txn, frames, 512, MRS_PROP_SHARES, 1, now, &done), 0);
		assert_int_equal(done, 512);
		for (unsigned i = 0; i < 512; i++)
			assert_int_equal(now[i], ++model.shares[frames[i]]);
	}
	/* Stops before the one that has no count. */
	frames[7] = FRAMES - 1;
	while (model.shares[FRAMES - 1])
		step_count(&txn, FRAMES - 1, 2);
	for (unsigned i = 0; i < 7; i++)
		frames[i] = 512 * 3 + i;
	assert_int_equal(mrs_prop_add_many(&txn, frames, 512, MRS_PROP_SHARES, -1, NULL, &done),
			 -ERANGE);
	assert_int_equal(done, 7);
	for (unsigned i = 0; i < 7; i++)
		model.shares[frames[i]]--;
	mrs_txn_end(&txn);
	assert_model(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
}

/* ---- several at once ---- */

static struct {
	struct morsel_pool *pool;
	uint32_t stop, wrong;
} race;

/* A value and its complement belong together, and never go back. */
static void *reader(void *ctx)
{
	uint64_t random = (uintptr_t)ctx, last[64] = {0};

	while (!mrs_load_acquire32(&race.stop)) {
		uint64_t at = test_random(&random) % 64;
		struct mrs_prop got;

		if (!mrs_prop_get(race.pool, at * 977, MRS_PROP_SWAP, &got))
			continue;
		if (got.aux != ~got.value || got.value < last[at])
			mrs_store_release32(&race.wrong, 1);
		last[at] = got.value;
	}
	return NULL;
}

static void *writer(void *ctx)
{
	uint64_t self = (uintptr_t)ctx;
	struct mrs_txn txn;
	uint64_t now;

	for (uint64_t i = 1; i <= COUNT_PROPERTY_ROUNDS; i++) {
		struct mrs_prop value = {.value = i, .aux = ~i};

		begin(race.pool, &txn);
		for (uint64_t at = self; at < 64; at += THREADS)
			if (mrs_prop_set(&txn, at * 977, MRS_PROP_SWAP, &value))
				abort();
		/* Ever new frames: the table grows meanwhile. */
		value.value = self + 1;
		if (mrs_prop_set(&txn, 70000 + (i * THREADS + self) * 3, MRS_PROP_DEPOSIT,
				 &value) ||
		    mrs_prop_add(&txn, i % 5000, MRS_PROP_SHARES, 1, &now))
			abort();
		mrs_txn_end(&txn);
	}
	return NULL;
}

static void test_readers_while_growing(void **state)
{
	pthread_t readers[2], writers[THREADS];
	uint64_t found = 0;
	struct mrs_prop got;

	(void)state;
	memset(&race, 0, sizeof(race));
	race.pool = pool_create(NULL, GIB, 0);
	for (uintptr_t i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, reader, (void *)(i + 1)), 0);
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&writers[i], NULL, writer, (void *)i), 0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(writers[i], NULL);
	mrs_store_release32(&race.stop, 1);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(readers[i], NULL);
	assert_int_equal(race.wrong, 0);
	for (uint64_t i = 0; i < 64; i++) {
		assert_true(mrs_prop_get(race.pool, i * 977, MRS_PROP_SWAP, &got));
		assert_int_equal(got.value, COUNT_PROPERTY_ROUNDS);
	}
	for (uint64_t i = 0; i < 5000; i++)
		if (mrs_prop_get(race.pool, i, MRS_PROP_SHARES, &got))
			found += got.value;
	assert_int_equal(found, THREADS * COUNT_PROPERTY_ROUNDS);
	assert_clean(race.pool);
	assert_int_equal(morsel_pool_close(race.pool), 0);
}

/* ---- death ---- */

/* Sets properties in order, until it is killed or all are there. */
static int child_fill(const char *pool_file)
{
	struct morsel_pool *pool = pool_open(pool_file, 0);
	struct mrs_txn txn;
	uint64_t now;

	begin(pool, &txn);
	for (uint64_t i = 0; i < 9000; i++) {
		struct mrs_prop value = {.value = i + 1, .aux = ~(i + 1)};

		if (mrs_prop_set(&txn, i, MRS_PROP_SWAP, &value) ||
		    mrs_prop_add(&txn, i * 20, MRS_PROP_SHARES, 1, &now))
			return 1;
	}
	mrs_txn_end(&txn);
	return morsel_pool_close(pool) ? 2 : 0;
}

static void assert_filled_in_order(struct morsel_pool *pool)
{
	bool gap = false;
	struct mrs_prop got;

	for (uint64_t i = 0; i < 9000; i++) {
		bool there = mrs_prop_get(pool, i, MRS_PROP_SWAP, &got);

		assert_false(there && gap);
		gap |= !there;
		if (!there)
			continue;
		assert_int_equal(got.value, i + 1);
		assert_int_equal(got.aux, ~(i + 1));
	}
}

static void test_death(void **state)
{
	static const char *const places[] = {
		"property.table.backed:1",   "property.table.linked:1",
		"property.table.backed:2",   "property.table.copied:1",
		"property.table.replaced:1", "property.table.replaced:2",
		"property.line.claimed:100", "property.set:700",
		"counts.page.backed:1",	     "counts.page.backed:20",
		"counts.block.linked:1",     "pool.frames.put_begun:1",
		"pool.frames.putting:1",     "pool.gate.closed:1",
		"pool.gate.opened:1"};

	(void)state;
	for (unsigned i = 0; i < mrs_array_length(places); i++) {
		struct morsel_pool *pool;
		int status;

		pool = pool_create(path, GIB, 0);
		status = pool_wait(pool_spawn("fill", path, places[i]));
		if (!WIFSIGNALED(status))
			fail_msg("%s: ended with status %#x", places[i], status);
		assert_true(morsel_pool_reap(pool) >= 0);
		assert_filled_in_order(pool);
		assert_clean(pool);
		assert_exit_0(pool_spawn("fill", path, NULL));
		assert_filled_in_order(pool);
		assert_clean(pool);
		assert_int_equal(morsel_pool_close(pool), 0);
		assert_int_equal(morsel_pool_destroy(path, 1), 0);
	}
}

/* A count that was taken below 0 by one who died before taking that back. */
static void test_repair_counts(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 64 * MIB, 0);
	uint64_t now, block;
	struct mrs_txn txn;
	struct mrs_prop got;
	uint32_t *counts;

	(void)state;
	begin(pool, &txn);
	assert_int_equal(mrs_prop_add(&txn, 1000, MRS_PROP_SHARES, 1, &now), 0);
	mrs_txn_end(&txn);
	block = mrs_pool_state(pool)->properties[3] & MRS_ENTRY_FRAME_MASK;
	counts = mrs_pool_at(pool, block + 1, 1);
	assert_int_equal(counts[1000], 1);
	counts[1000] = (uint32_t)-1;
	assert_false(mrs_prop_get(pool, 1000, MRS_PROP_SHARES, &got));
	assert_int_equal(morsel_pool_check(pool, NULL, NULL), 1);
	mrs_prop_repair(pool);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
}

static void test_damaged(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 64 * MIB, 0);
	uint64_t *words = mrs_pool_state(pool)->properties, random = test_seed();
	struct mrs_prop got, value = {.value = 1};
	struct mrs_txn txn;
	uint64_t now;

	(void)state;
	for (unsigned i = 0; i < 2000; i++) {
		words[0] = test_random(&random) >> test_random(&random) % 60;
		words[3] = test_random(&random) >> test_random(&random) % 60;
		begin(pool, &txn);
		mrs_prop_get(pool, i, MRS_PROP_SWAP, &got);
		mrs_prop_get(pool, i, MRS_PROP_SHARES, &got);
		if (words[0] && words[0] >> 40 == 0) /* no table has such a size */
			assert_int_equal(mrs_prop_set(&txn, i, MRS_PROP_SWAP, &value), -EIO);
		mrs_prop_clear(&txn, i, MRS_PROP_SWAP, NULL);
		mrs_prop_add(&txn, i, MRS_PROP_SHARES, -1, &now);
		mrs_txn_end(&txn);
		mrs_prop_validate(pool, NULL, NULL);
		words[0] = words[3] = 0;
	}
	assert_int_equal(morsel_pool_close(pool), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_model, setup),
		cmocka_unit_test_setup(test_many, setup),
		cmocka_unit_test_setup(test_readers_while_growing, setup),
		cmocka_unit_test_setup(test_death, setup),
		cmocka_unit_test_setup(test_repair_counts, setup),
		cmocka_unit_test_setup(test_damaged, setup),
	};
	int failed;

	if (argc == 4 && !strcmp(argv[1], "--child")) {
		pool_double_attach();
		return child_fill(argv[3]);
	}
	pool_folder_make("/dev/shm");
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	pool_folder_remove();
	return failed;
}
