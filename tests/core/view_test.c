/*
 * CPU views: what they show, where they stand, who may write, what fork and core dumps see, and
 * what grants hold. What holds for every backend alike is in tests/contract/.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/base.h"
#include "core/view_support.h"
#include "support/counts.h"

struct fixture {
	struct morsel_pool *pool;
	int fd;		     /* of the pool: for children */
	struct morsel *one;  /* 8 MiB in one run */
	struct morsel *many; /* 1 MiB in many runs of 4 KiB */
	struct morsel *lazy; /* 8 MiB, nothing allocated */
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->pool = support_pool();
	f->fd = dup(morsel_pool_fd(f->pool)); /* a fork closes the pool's own */
	f->one = support_morsel(f->pool, "one", 8 * MIB, MORSEL_CONTIGUOUS, MORSEL_PAGES_2M);
	f->many = support_morsel(f->pool, "many", MIB, MORSEL_SCATTERED, MORSEL_PAGES_4K);
	f->lazy = support_morsel(f->pool, "lazy", 8 * MIB, MORSEL_LAZY, MORSEL_PAGES_MIXED);
	support_number(f->one, f->pool, 1);
	support_number(f->many, f->pool, 2);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(morsel_close(f->one), 0);
	assert_int_equal(morsel_close(f->many), 0);
	assert_int_equal(morsel_close(f->lazy), 0);
	assert_int_equal(morsel_pool_close(f->pool), 0);
	close(f->fd);
	free(f);
	return 0;
}

static struct morsel_view *map(struct morsel *morsel, struct morsel_map_opts opts)
{
	struct morsel_view *view;

	opts.size = sizeof(opts);
	if (morsel_map(morsel, &opts, &view))
		fail_msg("%s", morsel_errormsg());
	return view;
}

/* The error of a morsel_map() that must fail, with words that contain all of these. */
static int map_error(struct morsel *morsel, struct morsel_map_opts opts, const char *words)
{
	struct morsel_view *view = NULL;
	int rc;

	opts.size = sizeof(opts);
	rc = morsel_map(morsel, &opts, &view);
	assert_true(rc < 0);
	assert_null(view);
	if (!strstr(morsel_errormsg(), words))
		fail_msg("\"%s\" does not say \"%s\"", morsel_errormsg(), words);
	return rc;
}

static void check_words(struct morsel_view *view, uint64_t first_page, uint64_t mark)
{
	uint64_t pages = morsel_view_bytes(view) / PAGE;

	for (uint64_t page = 0; page < pages; page++) {
		uint64_t *at = (uint64_t *)((char *)morsel_addr(view) + page * PAGE);

		assert_int_equal(*at, support_word(first_page + page, mark));
	}
}

/* ---- content ---- */

static void test_content(void **state)
{
	struct fixture *f = *state;
	struct morsel_view *pooled = map(f->one, (struct morsel_map_opts){0});
	struct morsel_view *stitched =
		map(f->one, (struct morsel_map_opts){.kind = MORSEL_VIEW_STITCHED});
	struct morsel_view *many = map(f->many, (struct morsel_map_opts){0});
	struct morsel_view *part =
		map(f->many, (struct morsel_map_opts){.offset = 7 * PAGE, .bytes = 9 * PAGE + 100});

	assert_string_equal(morsel_view_backend_name(pooled), "cpu-pooled");
	assert_string_equal(morsel_view_backend_name(stitched), "cpu-stitched");
	assert_string_equal(morsel_view_backend_name(many), "cpu-stitched");
	check_words(pooled, 0, 1);
	check_words(stitched, 0, 1);
	check_words(many, 0, 2);
	check_words(part, 7, 2);
	assert_int_equal(morsel_view_bytes(part), 9 * PAGE + 100);
	((uint64_t *)morsel_addr(pooled))[5] = 77;
	assert_int_equal(((uint64_t *)morsel_addr(stitched))[5], 77);
	morsel_view_destroy(part);
	morsel_view_destroy(many);
	morsel_view_destroy(stitched);
	morsel_view_destroy(pooled);
	morsel_view_destroy(NULL);
}

/* Nothing is left behind, whatever was mapped. */
static void test_unmap(void **state)
{
	struct fixture *f = *state;
	uint64_t before = support_areas();

	for (int i = 0; i < 50; i++) {
		struct morsel_view *a = map(f->one, (struct morsel_map_opts){0});
		struct morsel_view *b = map(f->many, (struct morsel_map_opts){0});
		char *at = morsel_addr(a);

		assert_int_equal(morsel_close(f->one), -EBUSY);
		morsel_view_destroy(i % 2 ? a : b);
		morsel_view_destroy(i % 2 ? b : a);
		assert_int_equal(support_touch(at, false), TOUCH_NOTHING);
	}
	/* The heap may have grown by some areas; 50 views left behind would be more. */
	assert_true(support_areas() <= before + 20);
}

/* A pool that is used up to its very last frame. */
static void test_last_frame(void **state)
{
	struct morsel_pool_opts opts = {.size = sizeof(opts),
					.flags = MORSEL_POOL_CREATE,
					.bytes = 64 * MIB,
					.bytes_max = 64 * MIB};
	struct morsel *morsels[64];
	struct morsel_pool *pool;
	unsigned n = 0;

	assert_int_equal(morsel_pool_open(NULL, &opts, &pool), 0);
	for (; n < 64; n++) {
		struct morsel_opts how = {.size = sizeof(how),
					  .flags = MORSEL_CREATE,
					  .pages = MORSEL_PAGES_2M,
					  .bytes = 8 * MIB};
		char name[16];
		int rc;

		how.flags |= n == 1 ? MORSEL_CONTIGUOUS : n > 1 ? MORSEL_SCATTERED : 0;
		snprintf(name, sizeof(name), "%u", n);
		rc = morsel_open(pool, name, &how, &morsels[n]);
		if (rc) {
			assert_int_equal(rc, -ENOSPC);
			break;
		}
		support_number(morsels[n], pool, n);
	}
	assert_true(n >= 6);
	for (unsigned i = 0; i < n; i++) {
		struct morsel_view *view = map(morsels[i], (struct morsel_map_opts){0});

		check_words(view, 0, i);
		morsel_view_destroy(view);
		assert_int_equal(morsel_close(morsels[i]), 0);
	}
	assert_int_equal(morsel_pool_close(pool), 0);
}

/* ---- options ---- */

static void test_options(void **state)
{
	struct fixture *f = *state;
	struct morsel *sealed = support_morsel(f->pool, "sealed", MIB, 0, 0);
	struct morsel *empty = support_morsel(f->pool, "empty", 0, 0, 0);
	struct morsel_info info = {.size = sizeof(info)};
	struct morsel_view *view;
	char needed[64];

	assert_int_equal(morsel_info(f->many, &info), 0);
	snprintf(needed, sizeof(needed), "needs one run, the range has %llu",
		 (unsigned long long)info.runs);

	assert_int_equal(map_error(f->one, (struct morsel_map_opts){.offset = 100}, "4096"),
			 -EINVAL);
	assert_int_equal(map_error(f->one, (struct morsel_map_opts){.offset = 8 * MIB}, "beyond"),
			 -ERANGE);
	assert_int_equal(map_error(f->one,
				   (struct morsel_map_opts){.offset = PAGE, .bytes = 8 * MIB},
				   "beyond"),
			 -ERANGE);
	assert_int_equal(
		map_error(f->one,
			  (struct morsel_map_opts){.offset = PAGE, .bytes = UINT64_MAX - 100},
			  "beyond"),
		-ERANGE);
	assert_int_equal(map_error(f->one, (struct morsel_map_opts){.flags = 1 << 20}, "flags"),
			 -EINVAL);
	assert_int_equal(map_error(f->one, (struct morsel_map_opts){.access = 4}, "access"),
			 -EINVAL);
	assert_int_equal(map_error(f->one, (struct morsel_map_opts){.kind = 9}, "kind"), -EINVAL);
	assert_int_equal(map_error(empty, (struct morsel_map_opts){0}, "no bytes"), -EINVAL);
	assert_int_equal(
		map_error(f->many, (struct morsel_map_opts){.kind = MORSEL_VIEW_POOLED}, needed),
		-EOPNOTSUPP);
	assert_int_equal(
		map_error(f->lazy, (struct morsel_map_opts){.kind = MORSEL_VIEW_POOLED}, "lazy"),
		-EOPNOTSUPP);
	assert_int_equal(morsel_seal(sealed), 0);
	assert_int_equal(
		map_error(sealed, (struct morsel_map_opts){.access = MORSEL_WRITE}, "sealed"),
		-EROFS);
	view = map(sealed, (struct morsel_map_opts){0});
	assert_int_equal(support_touch(morsel_addr(view), false), 0);
	assert_int_equal(support_touch(morsel_addr(view), true), TOUCH_FORBIDDEN);
	morsel_view_destroy(view);
	morsel_close(sealed);
	morsel_close(empty);
}

static void test_protection(void **state)
{
	struct fixture *f = *state;
	struct morsel *morsels[] = {f->one, f->many};

	for (int i = 0; i < 2; i++) {
		struct morsel_view *reader =
			map(morsels[i], (struct morsel_map_opts){.access = MORSEL_READ});
		struct morsel_view *writer = map(morsels[i], (struct morsel_map_opts){0});
		struct morsel_grant grant;
		char *at = morsel_addr(reader);

		check_words(reader, 0, i + 1);
		assert_int_equal(support_touch(at, true), TOUCH_FORBIDDEN);
		assert_int_equal(support_touch(at + MIB - 1, true), TOUCH_FORBIDDEN);
		assert_int_equal(support_touch(morsel_addr(writer), true), 0);
		assert_int_equal(morsel_acquire(reader, 0, 1, MORSEL_WRITE, &grant), -EACCES);
		/* A writable view keeps the seal away; readers do not. */
		assert_int_equal(morsel_seal(morsels[i]), -EBUSY);
		morsel_view_destroy(writer);
		morsel_view_destroy(reader);
	}
}

static int look_only(void *ctx)
{
	struct morsel_pool_opts opts = {.size = sizeof(opts), .flags = MORSEL_POOL_READ_ONLY};
	struct fixture *f = ctx;
	struct morsel_pool *pool;
	struct morsel *morsel;
	struct morsel_view *view;

	if (morsel_pool_open_fd(f->fd, &opts, &pool) || morsel_open(pool, "one", NULL, &morsel))
		return 1;
	return morsel_map(morsel, NULL, &view) == -EROFS ? 0 : 2;
}

/* A pool that is open read-only has no views: a mapping of a hole would fill it for everybody. */
static void test_readers(void **state)
{
	assert_int_equal(support_in_child(look_only, *state), 0);
}

/* ---- places ---- */

static void test_fixed(void **state)
{
	struct fixture *f = *state;
	struct morsel *morsels[] = {f->one, f->many};
	char *room = mmap(NULL, 32 * MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *taken;

	assert_true(room != MAP_FAILED);
	munmap(room, 32 * MIB);
	for (int i = 0; i < 2; i++) {
		struct morsel_map_opts opts = {.flags = MORSEL_MAP_FIXED, .address = room + PAGE};
		struct morsel_view *view = map(morsels[i], opts);

		assert_ptr_equal(morsel_addr(view), room + PAGE);
		check_words(view, 0, i + 1);
		morsel_view_destroy(view);
		/* One page of it is taken, at its end: nothing happens to that page. */
		taken = mmap(room + MIB, PAGE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		*taken = 5;
		assert_int_equal(map_error(morsels[i], opts, "already"), -EEXIST);
		assert_int_equal(*taken, 5);
		assert_int_equal(support_touch(room + PAGE, false), TOUCH_NOTHING);
		/* As a hint it is no demand. */
		opts.flags = 0;
		view = map(morsels[i], opts);
		assert_true((char *)morsel_addr(view) != room + PAGE);
		assert_int_equal(*taken, 5);
		morsel_view_destroy(view);
		munmap(taken, PAGE);
		view = map(morsels[i], opts);
		assert_ptr_equal(morsel_addr(view), room + PAGE);
		morsel_view_destroy(view);
	}
	assert_int_equal(
		map_error(f->one, (struct morsel_map_opts){.flags = MORSEL_MAP_FIXED}, "address"),
		-EINVAL);
	assert_int_equal(
		map_error(f->one,
			  (struct morsel_map_opts){.flags = MORSEL_MAP_FIXED, .address = room + 5},
			  "address"),
		-EINVAL);
	assert_int_equal(
		map_error(f->one,
			  (struct morsel_map_opts){.flags = MORSEL_MAP_FIXED | MORSEL_MAP_SAME,
						   .address = room},
			  "one of them"),
		-EINVAL);
}

struct same {
	struct fixture *f;
	const char *name;
	int pipe;
};

static int map_same(void *ctx)
{
	struct morsel_map_opts opts = {.size = sizeof(opts), .flags = MORSEL_MAP_SAME};
	struct same *same = ctx;
	struct morsel_pool *pool = support_pool_again(same->f->fd);
	struct morsel *morsel;
	struct morsel_view *view;
	uint64_t found[2];

	if (!pool || morsel_open(pool, same->name, NULL, &morsel) ||
	    morsel_map(morsel, &opts, &view))
		return 1;
	found[0] = (uintptr_t)morsel_addr(view);
	found[1] = *(uint64_t *)morsel_addr(view);
	return write(same->pipe, found, sizeof(found)) != sizeof(found);
}

static void test_same(void **state)
{
#ifdef __SANITIZE_THREAD__
	skip(); /* ThreadSanitizer keeps the region that MORSEL_MAP_SAME uses for itself */
#endif
	struct fixture *f = *state;
	struct morsel *morsels[] = {f->one, f->many};
	static const char *const names[] = {"one", "many"};
	uint64_t first[2];

	for (int i = 0; i < 2; i++) {
		struct morsel_map_opts opts = {.flags = MORSEL_MAP_SAME};
		struct morsel_view *view = map(morsels[i], opts), *part;
		uint64_t found[2];
		int ends[2];

		assert_int_equal(pipe(ends), 0);
		for (int child = 0; child < 3; child++) {
			struct same same = {f, names[i], ends[1]};

			assert_int_equal(support_in_child(map_same, &same), 0);
			assert_int_equal(read(ends[0], found, sizeof(found)), sizeof(found));
			assert_int_equal(found[0], (uintptr_t)morsel_addr(view));
			assert_int_equal(found[1], support_word(0, i + 1));
		}
		assert_int_equal(map_error(morsels[i], opts, "already"), -EEXIST);
		first[i] = (uintptr_t)morsel_addr(view);
		morsel_view_destroy(view);
		opts.offset = 3 * PAGE;
		part = map(morsels[i], opts);
		assert_int_equal((uintptr_t)morsel_addr(part), first[i] + 3 * PAGE);
		morsel_view_destroy(part);
		close(ends[0]);
		close(ends[1]);
	}
	assert_true(first[0] != first[1]);
}

/* So that the kernel can use huge mappings: address and file offset agree modulo 2 MiB. */
static int first_frame(void *ctx, const struct morsel_run *run)
{
	*(uint64_t *)ctx = run->frame;
	return 1;
}

static void test_alignment(void **state)
{
	struct fixture *f = *state;
	uint64_t frame;

	assert_int_equal(morsel_runs(f->one, 0, PAGE, first_frame, &frame), 1);
	for (int kind = MORSEL_VIEW_POOLED; kind <= MORSEL_VIEW_STITCHED; kind++) {
		struct morsel_view *views[4];

		for (int i = 0; i < 4; i++) {
			views[i] = map(f->one, (struct morsel_map_opts){.kind = kind});
			assert_int_equal(
				((uintptr_t)morsel_addr(views[i]) - frame * PAGE) % (2 * MIB), 0);
		}
		for (int i = 0; i < 4; i++)
			morsel_view_destroy(views[i]);
	}
}

/* ---- fork, dumps, areas ---- */

static int touch_in_child(void *ctx)
{
	*(volatile char *)ctx;
	return 0;
}

static int use_in_child(void *ctx)
{
	struct morsel_view *view = ctx;
	struct morsel_grant grant;
	struct morsel_view *other;

	if (morsel_acquire(view, 0, 1, MORSEL_READ, &grant) != -ECHILD)
		return 1;
	if (morsel_view_invalidate(view, 0, PAGE) != -ECHILD)
		return 2;
	if (morsel_view_create(NULL, NULL, NULL, (void *)&(size_t){0}, &other) != -EINVAL)
		return 3;
	morsel_view_destroy(view);
	return 0;
}

struct in_child {
	struct morsel *morsel;
	struct morsel_view *view;
};

static int map_in_child(void *ctx)
{
	struct in_child *c = ctx;
	struct morsel_view *view;

	if (morsel_map(c->morsel, NULL, &view) != -ECHILD)
		return 1;
	return use_in_child(c->view);
}

static void test_fork(void **state)
{
	struct fixture *f = *state;
	struct morsel *morsels[] = {f->one, f->many};

	for (int i = 0; i < 2; i++) {
		struct morsel_view *view = map(morsels[i], (struct morsel_map_opts){0});
		struct in_child c = {morsels[i], view};
		struct morsel_grant grant;
		char *at = morsel_addr(view);

		assert_true(support_has_flag(at, "dc"));
		assert_int_equal(support_in_child(touch_in_child, at), 1000 + SIGSEGV);
		assert_int_equal(support_in_child(touch_in_child, at + MIB - PAGE), 1000 + SIGSEGV);
		/* What was invalidated and restored obeys the rule too. */
		assert_int_equal(morsel_view_invalidate(view, 8 * PAGE, 2 * PAGE), 0);
		assert_int_equal(morsel_acquire(view, 8 * PAGE, PAGE, MORSEL_READ, &grant), 0);
		assert_int_equal(support_in_child(touch_in_child, at + 8 * PAGE), 1000 + SIGSEGV);
		morsel_release(&grant);
		assert_int_equal(support_in_child(map_in_child, &c), 0);
		assert_int_equal(support_touch(at, true), 0);
		morsel_view_destroy(view);
	}
}

static void test_dump(void **state)
{
	struct fixture *f = *state;
	struct morsel *morsels[] = {f->one, f->many};

	for (int i = 0; i < 2; i++) {
		struct morsel_view *plain = map(morsels[i], (struct morsel_map_opts){0});
		struct morsel_view *left_out =
			map(morsels[i], (struct morsel_map_opts){.flags = MORSEL_MAP_NO_DUMP});

		assert_false(support_has_flag(morsel_addr(plain), "dd"));
		assert_true(support_has_flag(morsel_addr(left_out), "dd"));
		assert_true(support_has_flag((char *)morsel_addr(left_out) + MIB - 1, "dd"));
		morsel_view_destroy(left_out);
		morsel_view_destroy(plain);
	}
}

static uint64_t areas_limit(void)
{
	FILE *file = fopen("/proc/sys/vm/max_map_count", "r");
	unsigned long limit = 0;

	if (!file || fscanf(file, "%lu", &limit) != 1)
		limit = 0;
	if (file)
		fclose(file);
	return limit;
}

/* More runs than the kernel allows areas: told before anything is mapped. */
static void test_too_many_runs(void **state)
{
	struct fixture *f = *state;
	uint64_t limit = areas_limit(), before;
	struct morsel *huge;
	char needed[64];

	if (!limit || limit > 100000)
		skip();
	huge = support_morsel(f->pool, "huge", (limit + 5000) * PAGE, MORSEL_SCATTERED,
			      MORSEL_PAGES_4K);
	before = support_areas();
	snprintf(needed, sizeof(needed), "vm.max_map_count allows %llu", (unsigned long long)limit);
	assert_int_equal(map_error(huge, (struct morsel_map_opts){0}, needed), -ENOMEM);
	assert_int_equal(map_error(huge, (struct morsel_map_opts){0}, "pooled view"), -ENOMEM);
	assert_true(support_areas() <= before + 50); /* a sanitizer's heap takes some */
	morsel_close(huge);
}

/* The limit is met half way, because other things have used it up: the half goes again. */
static void test_few_areas_left(void **state)
{
	struct fixture *f = *state;
	uint64_t limit = areas_limit(), left, before;
	char *others, *at;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	limit = 0; /* the sanitizer's own heap would die of it */
#endif
	if (!limit || limit > 100000)
		skip();
	others = mmap(NULL, 2 * limit * PAGE, PROT_NONE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_true(others != MAP_FAILED);
	left = limit - support_areas();
	at = others;
	for (uint64_t i = 0; i + 100 < left; i += 2, at += 2 * PAGE)
		assert_int_equal(mprotect(at, PAGE, PROT_READ), 0);
	before = support_areas();
	assert_int_equal(map_error(f->many, (struct morsel_map_opts){0}, "vm.max_map_count"),
			 -ENOMEM);
	assert_true(support_areas() <= before);
	munmap(others, 2 * limit * PAGE);
	morsel_view_destroy(map(f->many, (struct morsel_map_opts){0}));
}

/* ---- lazy morsels ---- */

static void test_lazy(void **state)
{
	struct fixture *f = *state;
	struct morsel_view *view = map(f->lazy, (struct morsel_map_opts){0});
	struct morsel_view *other = map(f->lazy, (struct morsel_map_opts){0}), *full;
	struct morsel_info info = {.size = sizeof(info)};
	struct morsel_grant grant;
	char *at = morsel_addr(view);

	assert_int_equal(support_touch(at, false), TOUCH_FORBIDDEN);
	assert_int_equal(morsel_info(f->lazy, &info), 0);
	assert_int_equal(info.bytes_allocated, 0);
	assert_int_equal(morsel_acquire(view, 5 * MIB + 5, 10, MORSEL_WRITE, &grant), 0);
	strcpy(grant.addr, "nine bytes");
	assert_int_equal(support_touch(at, false), TOUCH_FORBIDDEN);
	morsel_release(&grant);
	/* Another view learns of it when it asks. */
	assert_int_equal(support_touch((char *)morsel_addr(other) + 5 * MIB, false),
			 TOUCH_FORBIDDEN);
	assert_int_equal(morsel_acquire(other, 5 * MIB + 5, 10, MORSEL_READ, &grant), 0);
	assert_string_equal(grant.addr, "nine bytes");
	morsel_release(&grant);
	full = map(f->lazy, (struct morsel_map_opts){.flags = MORSEL_MAP_POPULATE});
	for (uint64_t i = 0; i < 8 * MIB; i += PAGE)
		assert_int_equal(support_touch((char *)morsel_addr(full) + i, true), 0);
	assert_string_equal((char *)morsel_addr(full) + 5 * MIB + 5, "nine bytes");
	morsel_view_destroy(full);
	morsel_view_destroy(other);
	morsel_view_destroy(view);
}

/* ---- grants ---- */

static void test_grants(void **state)
{
	struct fixture *f = *state;
	struct morsel_view *view = map(f->many, (struct morsel_map_opts){0});
	struct morsel_view *part = map(f->many, (struct morsel_map_opts){.bytes = 2 * PAGE});
	struct morsel_grant grant = {0}, copy, more[40];
	char *at = morsel_addr(view);

	/* The morsel goes on where the view ends. */
	assert_int_equal(morsel_acquire(part, PAGE, 2 * PAGE, MORSEL_READ, &grant), -ERANGE);
	morsel_view_destroy(part);

	assert_int_equal(morsel_acquire(view, 0, 0, MORSEL_READ, &grant), -ERANGE);
	assert_int_equal(morsel_acquire(view, MIB, 1, MORSEL_READ, &grant), -ERANGE);
	assert_int_equal(morsel_acquire(view, 0, MIB + 1, MORSEL_READ, &grant), -ERANGE);
	assert_int_equal(morsel_acquire(view, 1, UINT64_MAX, MORSEL_READ, &grant), -ERANGE);
	assert_int_equal(morsel_acquire(view, UINT64_MAX, 2, MORSEL_READ, &grant), -ERANGE);
	assert_int_equal(morsel_acquire(view, 0, 1, 0, &grant), -EINVAL);
	assert_int_equal(morsel_acquire(view, 0, 1, 8, &grant), -EINVAL);
	assert_null(grant.view); /* written only on success */
	morsel_release(&grant);
	morsel_release(NULL);

	assert_int_equal(morsel_acquire(view, 5000, 100, MORSEL_READ, &grant), 0);
	assert_ptr_equal(grant.addr, at + 5000);
	assert_int_equal(morsel_view_invalidate(view, PAGE, PAGE), -EBUSY);
	assert_int_equal(morsel_view_invalidate(view, 0, MIB), -EBUSY);
	assert_int_equal(support_touch(at + 5000, true), 0);
	assert_int_equal(morsel_view_invalidate(view, 0, PAGE), 0);
	assert_int_equal(morsel_view_invalidate(view, 2 * PAGE, PAGE), 0);
	assert_int_equal(morsel_view_invalidate(view, 5, PAGE), -ERANGE);
	assert_int_equal(morsel_view_invalidate(view, MIB, PAGE), -ERANGE);
	copy = grant;
	morsel_release(&grant);
	morsel_release(&grant);
	/* The slot is somebody else's by now: the copy must not take that away. */
	for (int i = 0; i < 40; i++)
		assert_int_equal(morsel_acquire(view, i * PAGE, PAGE, MORSEL_READ, &more[i]), 0);
	morsel_release(&copy);
	for (int i = 0; i < 40; i++) {
		assert_int_equal(morsel_view_invalidate(view, i * PAGE, PAGE), -EBUSY);
		morsel_release(&more[i]);
		assert_int_equal(morsel_view_invalidate(view, i * PAGE, PAGE), 0);
		assert_int_equal(support_touch(at + i * PAGE, false), TOUCH_FORBIDDEN);
	}
	morsel_view_destroy(view);
}

/* ---- system calls under grants ---- */

static int open_scratch(int flags)
{
	char path[] = "view_test_XXXXXX";
	int fd = mkostemp(path, flags);

	if (fd >= 0)
		unlink(path);
	return fd;
}

static void round_trip(struct morsel_view *view, int fd)
{
	const uint64_t bytes = 64 * PAGE;
	struct morsel_grant from, to;

	assert_int_equal(morsel_acquire(view, 0, bytes, MORSEL_READ, &from), 0);
	assert_int_equal(morsel_acquire(view, MIB / 2, bytes, MORSEL_WRITE, &to), 0);
	assert_int_equal(pwrite(fd, from.addr, bytes, 0), bytes);
	assert_int_equal(pread(fd, to.addr, bytes, 0), bytes);
	assert_memory_equal(from.addr, to.addr, bytes);
	memset(to.addr, 0, bytes);
	morsel_release(&to);
	morsel_release(&from);
}

static void test_system_calls(void **state)
{
	struct fixture *f = *state;
	struct morsel_view *views[] = {map(f->one, (struct morsel_map_opts){0}),
				       map(f->many, (struct morsel_map_opts){0})};
	int plain = open_scratch(0), direct = open_scratch(O_DIRECT);

	assert_true(plain >= 0);
	for (int i = 0; i < 2; i++) {
		uint64_t word = 0;

		round_trip(views[i], plain);
		if (direct >= 0)
			round_trip(views[i], direct);
		/* A range without translation is EFAULT for the kernel too, not old bytes. */
		assert_int_equal(morsel_view_invalidate(views[i], 0, PAGE), 0);
		assert_int_equal(pwrite(plain, morsel_addr(views[i]), 8, 0), -1);
		assert_int_equal(errno, EFAULT);
		assert_int_equal(pread(plain, &word, 8, 0), 8);
		morsel_view_destroy(views[i]);
	}
	if (direct < 0)
		printf("no O_DIRECT on this file system: left out\n");
	else
		close(direct);
	close(plain);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
		TEST(test_content),    TEST(test_unmap),	 TEST(test_options),
		TEST(test_protection), TEST(test_readers),	 TEST(test_fixed),
		TEST(test_same),       TEST(test_alignment),	 TEST(test_fork),
		TEST(test_dump),       TEST(test_too_many_runs), TEST(test_few_areas_left),
		TEST(test_lazy),       TEST(test_grants),	 TEST(test_system_calls),
		TEST(test_last_frame),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
