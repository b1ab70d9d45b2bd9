/*
 * Old pools and new: what an older library has left opens, and what it could not understand is
 * marked so that it refuses by name.
 */
#include "core/object_support.h"

#include <fcntl.h>
#include <unistd.h>

#include "pool/pool.h"

static char path[96];

static struct morsel_pool *make_pool(void)
{
	struct morsel_pool_opts opts = {
		.size = sizeof(opts), .flags = MORSEL_POOL_CREATE, .bytes = 16 * MIB};
	struct morsel_pool *pool;

	snprintf(path, sizeof(path), "/dev/shm/morsel-test-format-%d", (int)getpid());
	unlink(path);
	assert_ok(morsel_pool_open(path, &opts, &pool));
	return pool;
}

static struct morsel_pool *open_again(void)
{
	struct morsel_pool *pool;

	assert_ok(morsel_pool_open(path, NULL, &pool));
	return pool;
}

/* Nothing that an older library does not know is in it: it may open it. */
static void a_plain_pool_has_no_feature_bit(void **state)
{
	struct morsel_pool *pool = make_pool();
	struct morsel *morsel = object_create(pool, "plain", MIB, 0, 0);

	assert_ok(morsel_close(morsel));
	assert_int_equal(mrs_pool_super(pool)->feature_incompat, 0);
	assert_ok(morsel_pool_close(pool));
	pool = open_again();
	assert_int_equal(mrs_pool_super(pool)->feature_incompat, 0);
	assert_ok(morsel_pool_close(pool));
	unlink(path);
}

static void an_evictable_morsel_sets_it_for_good(void **state)
{
	struct morsel_pool *pool = make_pool();
	struct morsel *morsel = object_create(pool, "m", MIB, MORSEL_EVICTABLE, 0);

	assert_ok(morsel_close(morsel));
	assert_ok(morsel_unlink(pool, "m"));
	assert_ok(morsel_pool_close(pool));
	pool = open_again();
	assert_int_equal(mrs_pool_super(pool)->feature_incompat, MRS_FEATURE_INCOMPAT_COHERENT);
	object_check(pool);
	assert_ok(morsel_pool_close(pool));
	unlink(path);
}

/* As a process of version 0.1.0's first days, which spoke protocol 1, left it. */
static void a_pool_of_the_former_protocol_opens(void **state)
{
	struct morsel_pool *pool = make_pool();
	struct morsel *morsel = object_create(pool, "old", MIB, 0, 0);
	uint32_t former = 1;
	off_t at = MRS_FRAME_STATE * (off_t)MRS_PAGE_BYTES +
		   (off_t)offsetof(struct mrs_state, protocol);
	int fd;

	object_write(morsel, 3, 0, MIB);
	assert_ok(morsel_close(morsel));
	assert_ok(morsel_pool_close(pool));
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_int_equal(pwrite(fd, &former, sizeof(former), at), sizeof(former));
	close(fd);
	pool = open_again();
	assert_int_equal(mrs_pool_state(pool)->protocol, MRS_PROTOCOL_VERSION);
	morsel = object_open(pool, "old");
	assert_true(object_differs(morsel, 3, 0, MIB) == UINT64_MAX);
	assert_ok(morsel_close(morsel));
	morsel = object_create(pool, "new", MIB, MORSEL_EVICTABLE, 0);
	assert_ok(morsel_close(morsel));
	object_check(pool);
	assert_ok(morsel_pool_close(pool));
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_plain_pool_has_no_feature_bit),
		cmocka_unit_test(an_evictable_morsel_sets_it_for_good),
		cmocka_unit_test(a_pool_of_the_former_protocol_opens),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
