/*
 * Resize, seal, advise, and the registry of views that they respect, also of another process.
 */
#include "core/object_support.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void grow_and_shrink(uint32_t flags, uint32_t pages, uint64_t granule)
{
	static const uint64_t sizes[] = {5 * MIB + 3, 9 * MIB, 9 * MIB + 1, 3 * MIB + 77,
					 100,	      0,       12 * MIB,    4095,
					 4097,	      2 * MIB, 2 * MIB + 1, 7 * MIB};
	struct morsel_pool *pool = object_pool(128 * MIB);
	struct morsel *morsel = object_create(pool, "m", 1000, flags, pages);
	uint64_t bytes = 1000;

	for (size_t i = 0; i < mrs_array_length(sizes); i++) {
		uint64_t kept = mrs_min(bytes, sizes[i]);

		assert_ok(mrs_morsel_fill(morsel, 0, mrs_morsel_pages(morsel)));
		/* Also beyond the end, as somebody who maps the last page may. */
		object_write(morsel, i, 0, mrs_round_up(bytes, 4096));
		assert_ok(morsel_resize(morsel, sizes[i]));
		bytes = sizes[i];
		assert_int_equal(object_info(morsel).bytes, bytes);
		assert_int_equal(object_differs(morsel, i, 0, kept), UINT64_MAX);
		assert_true(object_is_zero(morsel, kept, bytes - kept));
		if (!(flags & MORSEL_LAZY))
			assert_int_equal(object_info(morsel).bytes_allocated,
					 mrs_round_up(bytes, granule));
		object_check(pool);
	}
	assert_ok(morsel_resize(morsel, 0));
	assert_int_equal(object_info(morsel).bytes_allocated, 0);
	morsel_close(morsel);
	object_pool_end(pool);
}

static void test_resize(void **state)
{
	grow_and_shrink(0, 0, 4096);
	grow_and_shrink(0, MORSEL_PAGES_4K, 4096);
	grow_and_shrink(0, MORSEL_PAGES_2M, 2 * MIB);
	grow_and_shrink(MORSEL_SCATTERED, 0, 4096);
	grow_and_shrink(MORSEL_SCATTERED, MORSEL_PAGES_4K, 4096);
	grow_and_shrink(MORSEL_LAZY, 0, 4096);
	grow_and_shrink(MORSEL_LAZY, MORSEL_PAGES_4K, 4096);
	grow_and_shrink(MORSEL_CONTIGUOUS, 0, 4096);
}

/* What stands behind it is taken: the run becomes a table. */
static void test_grow_past_neighbour(void **state)
{
	struct morsel_pool *pool = object_pool(128 * MIB);
	struct morsel *morsel = object_create(pool, "m", 4 * MIB, 0, 0);
	struct morsel *fixed = object_create(pool, "f", 4 * MIB, MORSEL_CONTIGUOUS, 0);
	struct morsel *other = object_create(pool, "o", 40 * MIB, 0, 0);

	object_write(morsel, 1, 0, 4 * MIB);
	assert_ok(morsel_resize(morsel, 21 * MIB + 3));
	assert_true(object_info(morsel).runs > 1);
	assert_int_equal(object_differs(morsel, 1, 0, 4 * MIB), UINT64_MAX);
	assert_fails(morsel_resize(fixed, 60 * MIB), -ENOSPC, "contiguous");
	assert_int_equal(object_info(fixed).bytes, 4 * MIB);
	assert_int_equal(object_info(fixed).bytes_allocated, 4 * MIB);
	assert_int_equal(morsel_resize(other, 127 * MIB), -ENOSPC);
	assert_int_equal(object_info(other).bytes_allocated, 40 * MIB);
	assert_fails(morsel_resize(other, 129 * MIB), -ENOSPC, "number space");
	object_check(pool);
	morsel_close(morsel);
	morsel_close(fixed);
	morsel_close(other);
	object_pool_end(pool);
}

static void test_views_in_the_way(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = object_create(pool, "m", 2 * MIB, 0, 0);
	struct morsel *other = object_open(pool, "m");
	uint64_t near, far, writer;

	assert_ok(mrs_morsel_view_publish(other, 10, false, &near));
	assert_ok(mrs_morsel_view_publish(other, 512, false, &far));
	assert_fails(mrs_morsel_view_publish(other, 513, false, &writer), -EBUSY, "ends before");
	assert_fails(morsel_resize(morsel, MIB), -EBUSY, "view");
	assert_fails(morsel_resize(other, MIB), -EBUSY, "view");
	assert_int_equal(object_info(morsel).bytes, 2 * MIB);
	mrs_morsel_view_withdraw(other, far);
	assert_ok(morsel_resize(morsel, MIB));
	assert_fails(morsel_resize(morsel, 9 * 4096), -EBUSY, "view");
	assert_ok(morsel_resize(morsel, 9 * 4096 + 1));
	assert_ok(mrs_morsel_view_publish(morsel, 1, true, &writer));
	assert_fails(morsel_seal(other), -EBUSY, "writable");
	assert_int_equal(object_info(morsel).sealed, 0);
	mrs_morsel_view_withdraw(morsel, writer);
	assert_ok(morsel_seal(other));
	assert_ok(morsel_seal(other));
	assert_int_equal(object_info(morsel).sealed, 1);
	assert_fails(mrs_morsel_view_publish(morsel, 1, true, &writer), -EROFS, "sealed");
	assert_fails(morsel_resize(morsel, MIB), -EROFS, "sealed");
	assert_fails(morsel_advise(morsel, 0, 1, MORSEL_ADVICE_FREE), -EROFS, "sealed");
	mrs_morsel_view_withdraw(other, near);
	mrs_morsel_view_withdraw(other, 0);
	morsel_close(morsel);
	morsel_close(other);
	object_pool_end(pool);
}

static void test_advise(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = object_create(pool, "m", 8 * MIB + 1, 0, 0);
	struct morsel *lazy = object_create(pool, "l", 8 * MIB, MORSEL_LAZY, MORSEL_PAGES_4K);
	struct morsel_pool_stat before = {.size = sizeof(before)}, after = {.size = sizeof(after)};

	object_write(morsel, 1, 0, 8 * MIB + 1);
	assert_ok(morsel_pool_stat(pool, &before));
	assert_ok(morsel_advise(morsel, 4097, 6 * MIB, MORSEL_ADVICE_FREE));
	assert_ok(morsel_pool_stat(pool, &after));
	assert_true(after.bytes_resident + 4 * MIB <= before.bytes_resident);
	assert_int_equal(object_differs(morsel, 1, 0, 4097), UINT64_MAX);
	assert_true(object_is_zero(morsel, 4097, 6 * MIB));
	assert_int_equal(object_differs(morsel, 1, 6 * MIB + 4097, 2 * MIB - 4096), UINT64_MAX);
	assert_ok(morsel_advise(morsel, 0, 8 * MIB + 1, MORSEL_ADVICE_PREFETCH));
	assert_ok(morsel_pool_stat(pool, &after));
	assert_true(after.bytes_resident >= before.bytes_resident);
	assert_ok(morsel_advise(lazy, 5 * MIB, 1, MORSEL_ADVICE_PREFETCH));
	assert_int_equal(object_info(lazy).bytes_allocated, 4096);
	assert_ok(morsel_advise(lazy, 0, 0, MORSEL_ADVICE_FREE));
	assert_fails(morsel_advise(morsel, 0, 1, MORSEL_ADVICE_EVICT), -EOPNOTSUPP, "evict");
	assert_fails(morsel_advise(morsel, 0, 1, 77), -EINVAL, "77");
	assert_fails(morsel_advise(morsel, 8 * MIB, 2, MORSEL_ADVICE_FREE), -EINVAL, "inside");
	if (morsel_advise(morsel, 0, 8 * MIB, MORSEL_ADVICE_HUGE))
		assert_true(strlen(morsel_errormsg()) > 10);
	morsel_close(morsel);
	morsel_close(lazy);
	object_pool_end(pool);
}

/* Eight threads fill one lazy morsel: every page once. */
static void *fill_all(void *ctx)
{
	struct morsel *morsel = ctx;

	for (uint64_t page = 0; page < mrs_morsel_pages(morsel); page += 3)
		if (mrs_morsel_fill(morsel, page, 3))
			return (void *)1;
	return NULL;
}

static void test_fill_threads(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = object_create(pool, "m", 6 * MIB, MORSEL_LAZY, MORSEL_PAGES_4K);
	pthread_t thread[8];
	void *failed;

	for (int i = 0; i < 8; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, fill_all, morsel), 0);
	for (int i = 0; i < 8; i++) {
		assert_int_equal(pthread_join(thread[i], &failed), 0);
		assert_null(failed);
	}
	assert_int_equal(object_info(morsel).bytes_allocated, 6 * MIB);
	object_write(morsel, 1, 0, 6 * MIB);
	assert_int_equal(object_differs(morsel, 1, 0, 6 * MIB), UINT64_MAX);
	morsel_close(morsel);
	object_pool_end(pool);
}

/* ---- another process ---- */

/* Publishes a writable view to the end of "m", says so, and waits until it is killed. */
static int child_view(struct morsel_pool *pool, const char *argument)
{
	struct morsel *morsel;
	uint64_t hold;

	if (morsel_open(pool, "m", NULL, &morsel) ||
	    mrs_morsel_view_publish(morsel, mrs_morsel_pages(morsel), true, &hold))
		return 1;
	printf("published\n");
	fflush(stdout);
	for (;;)
		pause();
}

static void test_view_of_another_process(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = object_create(pool, "m", 2 * MIB, 0, 0);
	int pipe_fd[2], saved = dup(STDOUT_FILENO), status;
	char byte;
	pid_t pid;

	assert_int_equal(pipe(pipe_fd), 0);
	fflush(stdout);
	dup2(pipe_fd[1], STDOUT_FILENO);
	pid = object_child_start(pool, "view", "", NULL);
	dup2(saved, STDOUT_FILENO);
	close(saved);
	assert_int_equal(read(pipe_fd[0], &byte, 1), 1);
	assert_fails(morsel_resize(morsel, MIB), -EBUSY, "view");
	assert_fails(morsel_seal(morsel), -EBUSY, "writable");
	assert_int_equal(object_info(morsel).users, 2);
	assert_ok(morsel_unlink(pool, "m"));
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	/* Its view is in nobody's way any more, without anybody asking for a clean-up. */
	assert_ok(morsel_resize(morsel, MIB));
	assert_int_equal(object_info(morsel).users, 1);
	assert_ok(morsel_seal(morsel));
	close(pipe_fd[0]);
	close(pipe_fd[1]);
	morsel_close(morsel);
	object_pool_end(pool);
}

/* Seed 1 but for bytes 100 to 107 and from 4 KiB + 8 on, which are zero. */
static void check_thin_export(const char *path)
{
	uint64_t word[8 * KIB / 8];
	FILE *f = fopen(path, "re");

	assert_non_null(f);
	assert_int_equal(fread(word, 1, sizeof(word), f), sizeof(word));
	fclose(f);
	for (uint64_t i = 0; i < mrs_array_length(word); i++)
		if (i != 12 && i != 13)
			assert_int_equal(word[i], i * 8 < 4 * KIB + 8 ? object_word(1, i * 8) : 0);
	for (uint64_t i = 100; i < 108; i++)
		assert_int_equal(((const char *)word)[i], 0);
}

/*
 * Nothing that the core does by itself takes memory for pages that gave theirs back: where there is
 * none left that would end in SIGBUS.
 */
static void test_thin_stays_thin(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = object_create(pool, "thin", MIB, 0, MORSEL_PAGES_4K);
	char path[] = "/tmp/morsel-thin-XXXXXX";
	int fd = mkstemp(path);
	uint64_t resident;

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	object_write(morsel, 1, 0, 8 * KIB);
	assert_ok(morsel_advise(morsel, 8 * KIB, MIB - 8 * KIB, MORSEL_ADVICE_FREE));
	resident = mrs_pool_resident(pool);
	assert_ok(morsel_advise(morsel, 12 * KIB + 100, 200, MORSEL_ADVICE_FREE));
	assert_int_equal(mrs_pool_resident(pool), resident);
	assert_ok(morsel_export(morsel, path, NULL));
	assert_int_equal(mrs_pool_resident(pool), resident);
	assert_ok(morsel_resize(morsel, MIB / 2 + 100));
	assert_int_equal(mrs_pool_resident(pool), resident);
	/* What has memory is read and zeroed as ever. */
	assert_ok(morsel_advise(morsel, 100, 8, MORSEL_ADVICE_FREE));
	assert_ok(morsel_resize(morsel, 4 * KIB + 8));
	assert_ok(morsel_resize(morsel, 8 * KIB));
	assert_ok(morsel_export(morsel, path, NULL));
	check_thin_export(path);
	unlink(path);
	assert_ok(morsel_close(morsel));
	object_pool_end(pool);
}

static int child_main(char **argv)
{
	struct morsel_pool *pool;

	if (morsel_pool_open_fd(atoi(argv[3]), NULL, &pool))
		return 2;
	return child_view(pool, argv[4]);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_resize),
		cmocka_unit_test(test_grow_past_neighbour),
		cmocka_unit_test(test_views_in_the_way),
		cmocka_unit_test(test_advise),
		cmocka_unit_test(test_thin_stays_thin),
		cmocka_unit_test(test_fill_threads),
		cmocka_unit_test(test_view_of_another_process),
	};

	if (argc == 5 && !strcmp(argv[1], "--child"))
		return child_main(argv);
	return cmocka_run_group_tests_name("object: size", tests, NULL, NULL);
}
