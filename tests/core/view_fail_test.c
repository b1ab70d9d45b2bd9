/*
 * Every system call and allocation that mapping makes fails once, in turn: then nothing is mapped,
 * nobody is registered, and the same call succeeds afterwards. The calls are wrapped at link time.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "base/base.h"
#include "core/view_support.h"

static int fail_at = -1; /* counts down; -1 never */
static int wrapped;	 /* calls seen while it was armed */

static bool fails_now(void)
{
	wrapped += fail_at >= 0;
	return fail_at >= 0 && fail_at-- == 0;
}

void *__real_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset)
{
	if (!fails_now())
		return __real_mmap(at, bytes, prot, flags, fd, offset);
	errno = ENOMEM;
	return MAP_FAILED;
}

int __real_madvise(void *at, size_t bytes, int advice);
int __wrap_madvise(void *at, size_t bytes, int advice);
int __wrap_madvise(void *at, size_t bytes, int advice)
{
	if (!fails_now())
		return __real_madvise(at, bytes, advice);
	errno = EAGAIN;
	return -1;
}

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes)
{
	return fails_now() ? NULL : __real_malloc(bytes);
}

void *__real_calloc(size_t n, size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes)
{
	return fails_now() ? NULL : __real_calloc(n, bytes);
}

void *__real_realloc(void *old, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes)
{
	return fails_now() ? NULL : __real_realloc(old, bytes);
}

struct attempt {
	const char *name;
	uint32_t morsel_flags;
	uint32_t pages;
	struct morsel_map_opts opts;
};

static const struct attempt attempts[] = {
	{"pooled", MORSEL_CONTIGUOUS, MORSEL_PAGES_2M, {.flags = MORSEL_MAP_POPULATE}},
	{"stitched", MORSEL_SCATTERED, MORSEL_PAGES_4K, {.flags = MORSEL_MAP_NO_DUMP}},
	{"stitched, one run", MORSEL_CONTIGUOUS, 0, {.kind = MORSEL_VIEW_STITCHED}},
	{"lazy", MORSEL_LAZY, 0, {.flags = MORSEL_MAP_POPULATE}},
	{"lazy with holes", MORSEL_LAZY, 0, {.flags = 0}},
};

/* -errno of one mapping whose n-th call fails. *view if none did, or if one could do without. */
static int map_failing(struct morsel *morsel, struct morsel_map_opts opts, int n,
		       struct morsel_view **view)
{
	int rc;

	opts.size = sizeof(opts);
	fail_at = n;
	rc = morsel_map(morsel, &opts, view);
	n = fail_at;
	fail_at = -1;
	return rc ? rc : n < 0 ? 1 : 0;
}

/* The service thread, and the areas of its stack, are there from the first view on. */
static void start_service(struct morsel_pool *pool)
{
	struct morsel *morsel = support_morsel(pool, "first", PAGE, 0, 0);
	struct morsel_view *view;

	assert_int_equal(morsel_map(morsel, NULL, &view), 0);
	morsel_view_destroy(view);
	assert_int_equal(morsel_unlink(pool, "first"), 0);
	assert_int_equal(morsel_close(morsel), 0);
}

static void test_map(void **state)
{
	for (unsigned a = 0; a < mrs_array_length(attempts); a++) {
		struct morsel_pool *pool = support_pool();
		int failed = 0, n = 0, rc;

		start_service(pool);

		do {
			struct morsel *morsel = support_morsel(
				pool, "m", 2 * MIB, attempts[a].morsel_flags, attempts[a].pages);
			uint64_t before = support_areas();
			struct morsel_view *view = NULL;

			rc = map_failing(morsel, attempts[a].opts, n++, &view);
			failed += rc != 0;
			if (rc < 0) {
				assert_null(view);
				assert_true(support_areas() <= before + 1);
				/* Nobody reaches into it: it can be cut and sealed. */
				assert_int_equal(morsel_resize(morsel, MIB), 0);
				assert_int_equal(morsel_seal(morsel), 0);
			} else {
				assert_int_equal(morsel_seal(morsel), -EBUSY);
				morsel_view_destroy(view);
			}
			assert_int_equal(morsel_unlink(pool, "m"), 0);
			assert_int_equal(morsel_close(morsel), 0);
		} while (rc);
		printf("%s: %d calls failed, each once\n", attempts[a].name, failed);
		assert_true(failed > 2);
		assert_int_equal(morsel_pool_close(pool), 0);
	}
}

/* The same for a grant that must restore a translation, and for taking it away. */
static void test_grant(void **state)
{
	struct morsel_pool *pool = support_pool();
	struct morsel *morsel = support_morsel(pool, "m", MIB, MORSEL_SCATTERED, MORSEL_PAGES_4K);
	struct morsel_view *view;
	int failed = 0;

	assert_int_equal(morsel_map(morsel, NULL, &view), 0);
	support_number(morsel, pool, 3);
	for (int n = 0, rc = 1; rc; n++) {
		char *at = (char *)morsel_addr(view) + 5 * PAGE;
		struct morsel_grant grant = {0};

		fail_at = n;
		rc = morsel_view_invalidate(view, 5 * PAGE, 3 * PAGE);
		fail_at = -1;
		if (rc) {
			failed++;
			assert_int_equal(*(uint64_t *)at, support_word(5, 3));
			continue;
		}
		for (int m = 0, again = 1; again; m++) {
			fail_at = m;
			again = morsel_acquire(view, 5 * PAGE, 3 * PAGE, MORSEL_READ, &grant);
			fail_at = -1;
			failed += again != 0;
			assert_true(!again || !grant.view);
		}
		for (int page = 0; page < 3; page++)
			assert_int_equal(*(uint64_t *)(at + page * PAGE),
					 support_word(5 + page, 3));
		morsel_release(&grant);
	}
	printf("grants: %d calls failed, each once\n", failed);
	assert_true(failed > 3);
	morsel_view_destroy(view);
	assert_int_equal(morsel_close(morsel), 0);
	assert_int_equal(morsel_pool_close(pool), 0);
}

int main(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	fprintf(stderr, "skipped: a sanitizer wraps mmap and malloc itself\n");
	return 77;
#endif
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_map),
					   cmocka_unit_test(test_grant)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
