/*
 * Names: unlink, rename, publish, and who keeps what alive.
 */
#include "core/object_support.h"

#include "pool/dir_internal.h"

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#include "support/counts.h"

static void test_unlink(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *one = object_create(pool, "m", MIB, 0, 0), *two = object_open(pool, "m");
	struct morsel *new;
	uint64_t free_bytes = object_free_bytes(pool);

	object_write(one, 1, 0, MIB);
	assert_ok(morsel_unlink(pool, "m"));
	assert_fails(morsel_unlink(pool, "m"), -ENOENT, "no morsel 'm'");
	assert_fails(morsel_unlink(pool, ""), -EINVAL, "empty");
	assert_false(object_exists(pool, "m"));
	assert_string_equal(object_info(one).name, "");
	new = object_create(pool, "m", 2 * MIB, 0, 0);
	assert_true(object_info(new).id != object_info(one).id);
	object_check(pool);
	assert_ok(morsel_close(one));
	assert_int_equal(object_differs(two, 1, 0, MIB), UINT64_MAX);
	assert_int_equal(object_free_bytes(pool), free_bytes - 2 * MIB);
	assert_ok(morsel_close(two));
	assert_int_equal(object_free_bytes(pool), free_bytes - MIB);
	assert_ok(morsel_unlink(pool, "m"));
	assert_ok(morsel_close(new));
	assert_int_equal(object_free_bytes(pool), free_bytes + MIB);
	object_pool_end(pool);
}

static void test_rename(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *one = object_create(pool, "a", MIB, 0, 0);
	struct morsel *two = object_create(pool, "b", MIB, 0, 0);
	char long_name[256];

	memset(long_name, 'n', 255);
	long_name[255] = 0;
	assert_fails(morsel_rename(pool, "a", "b"), -EEXIST, "'b'");
	assert_fails(morsel_rename(pool, "a", "a"), -EEXIST, "'a'");
	assert_fails(morsel_rename(pool, "c", "d"), -ENOENT, "'c'");
	assert_fails(morsel_rename(pool, "a", "d/e"), -EINVAL, "/");
	assert_ok(morsel_rename(pool, "a", long_name));
	assert_false(object_exists(pool, "a"));
	assert_string_equal(object_info(one).name, long_name);
	assert_ok(morsel_rename(pool, long_name, "a"));
	assert_string_equal(object_info(one).name, "a");
	assert_ok(morsel_close(one));
	assert_ok(morsel_close(two));
	object_pool_end(pool);
}

static void test_publish(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *old = object_create(pool, "current", MIB, 0, 0), *now;
	struct morsel *new = object_create(pool, "next", MIB, 0, 0);

	object_write(old, 1, 0, MIB);
	object_write(new, 2, 0, MIB);
	assert_ok(morsel_publish(new, "current"));
	assert_false(object_exists(pool, "next"));
	now = object_open(pool, "current");
	assert_int_equal(object_info(now).id, object_info(new).id);
	assert_string_equal(object_info(new).name, "current");
	assert_string_equal(object_info(old).name, "");
	assert_int_equal(object_differs(old, 1, 0, MIB), UINT64_MAX);
	assert_int_equal(object_differs(now, 2, 0, MIB), UINT64_MAX);
	assert_ok(morsel_publish(new, "current"));
	object_check(pool);
	/* The former one gets a name again. */
	assert_ok(morsel_publish(old, "former"));
	assert_true(object_exists(pool, "former"));
	assert_ok(morsel_publish(old, "renamed"));
	assert_false(object_exists(pool, "former"));
	assert_ok(morsel_publish(old, "current"));
	assert_false(object_exists(pool, "renamed"));
	assert_fails(morsel_publish(new, ""), -EINVAL, "empty");
	assert_ok(morsel_close(now));
	assert_ok(morsel_close(new));
	assert_int_equal(object_differs(old, 1, 0, MIB), UINT64_MAX);
	assert_ok(morsel_close(old));
	object_pool_end(pool);
}

/* ---- threads that do everything to few names ---- */

struct worker {
	struct morsel_pool *pool;
	uint64_t random;
	int failed;
};

static const char *const worker_names[] = {"a", "b", "c"};

static unsigned below(uint64_t *random, unsigned end)
{
	return (unsigned)(test_random(random) % end);
}

/* 0, or an error that nobody may get. */
static int odd(int rc)
{
	return rc == -ENOENT || rc == -EEXIST ? 0 : rc;
}

static int worker_step(struct worker *w)
{
	struct morsel_opts opts = {.size = sizeof(opts), .flags = MORSEL_CREATE, .bytes = 20 * KIB};
	const char *one = worker_names[below(&w->random, 3)];
	const char *two = worker_names[below(&w->random, 3)];
	struct morsel *morsel;
	int rc;

	switch (below(&w->random, 5)) {
	case 0:
		return odd(morsel_unlink(w->pool, one));
	case 1:
		return odd(morsel_rename(w->pool, one, two));
	case 2:
		opts.flags |= MORSEL_EXCL;
		break;
	default:
		break;
	}
	rc = morsel_open(w->pool, one, &opts, &morsel);
	if (rc)
		return odd(rc);
	if (mrs_morsel_bytes(morsel) != 20 * KIB)
		rc = -EPROTO;
	if (!rc && below(&w->random, 2))
		rc = morsel_publish(morsel, two);
	morsel_close(morsel);
	return rc;
}

static void *work(void *ctx)
{
	struct worker *w = ctx;

	for (int i = 0; i < COUNT_OBJECT_NAME_STEPS && !w->failed; i++)
		w->failed = worker_step(w);
	if (w->failed)
		fprintf(stderr, "%d: %s\n", w->failed, morsel_errormsg());
	return NULL;
}

static void test_threads(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	uint64_t seed = test_seed();
	struct worker worker[4];
	pthread_t thread[4];
	struct morsel_pool_stat stat = {.size = sizeof(stat)};

	for (int i = 0; i < 4; i++) {
		worker[i] = (struct worker){.pool = pool, .random = seed * 100 + (uint64_t)i};
		assert_int_equal(pthread_create(&thread[i], NULL, work, &worker[i]), 0);
	}
	for (int i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(thread[i], NULL), 0);
		assert_int_equal(worker[i].failed, 0);
	}
	object_check(pool);
	for (int i = 0; i < 3; i++)
		morsel_unlink(pool, worker_names[i]);
	assert_ok(morsel_pool_stat(pool, &stat));
	assert_int_equal(stat.morsels, 0);
	object_pool_end(pool);
}

/*
 * A name of 255 bytes takes a record, a dirent and two cells for the rest of the name; and the
 * nodes of a trie with eight ways are fewer than half as many as its names.
 */
static void test_room_for_a_million(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);

	(void)state;
	assert_true(mrs_cells_max(mrs_pool_cells(pool)) >= 4500000);
	object_pool_end(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_room_for_a_million),
		cmocka_unit_test(test_unlink),
		cmocka_unit_test(test_rename),
		cmocka_unit_test(test_publish),
		cmocka_unit_test(test_threads),
	};

	/* Who waits for a lock that nobody has waits for ever: that is a failure, too. */
	alarm(test_full() ? 600 : 20);
	return cmocka_run_group_tests_name("object: names", tests, NULL, NULL);
}
