/*
 * Opening, creating, closing, looking; allocation policies; what bad input gets.
 */
#include "core/object_support.h"

#include <errno.h>
#include <unistd.h>

static void test_create_open_close(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	uint64_t free_before = object_free_bytes(pool);
	struct morsel *made = object_create(pool, "one", 3 * MIB + 5, 0, 0), *again;
	struct morsel_info info = object_info(made);

	assert_string_equal(info.name, "one");
	assert_int_equal(info.bytes, 3 * MIB + 5);
	assert_int_equal(info.bytes_allocated, 3 * MIB + 4 * KIB);
	assert_int_equal(info.runs, 1);
	assert_int_equal(info.users, 1);
	assert_int_equal(info.flags, 0);
	assert_int_equal(info.sealed, 0);
	assert_true(info.created_ns > 0);
	assert_true(info.id > 0);
	assert_true(object_is_zero(made, 0, info.bytes));
	object_write(made, 1, 0, info.bytes);
	again = object_open(pool, "one");
	assert_int_equal(object_info(again).users, 2);
	assert_int_equal(object_info(again).id, info.id);
	assert_int_equal(object_differs(again, 1, 0, info.bytes), UINT64_MAX);
	assert_ok(morsel_close(made));
	assert_ok(morsel_close(again));
	assert_ok(morsel_close(NULL));
	assert_true(object_exists(pool, "one"));
	assert_ok(morsel_unlink(pool, "one"));
	assert_false(object_exists(pool, "one"));
	assert_true(object_free_bytes(pool) + 256 * KIB >= free_before);
	/* The same frames, most likely: nothing of the old content is left. */
	made = object_create(pool, "two", 3 * MIB + 5, 0, 0);
	assert_true(object_is_zero(made, 0, 3 * MIB + 5));
	assert_ok(morsel_close(made));
	object_pool_end(pool);
}

static void test_refusals(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel_opts opts = {.size = sizeof(opts), .flags = MORSEL_CREATE, .bytes = MIB};
	struct morsel *morsel = NULL;
	char name[300];

	memset(name, 'x', sizeof(name));
	name[256] = 0;
	assert_fails(morsel_open(pool, "none", NULL, &morsel), -ENOENT, "none");
	assert_fails(morsel_open(pool, name, &opts, &morsel), -ENAMETOOLONG, "255");
	assert_fails(morsel_open(pool, "", &opts, &morsel), -EINVAL, "empty");
	assert_fails(morsel_open(pool, "a/b", &opts, &morsel), -EINVAL, "/");
	name[255] = 0;
	assert_ok(morsel_open(pool, name, &opts, &morsel));
	assert_string_equal(object_info(morsel).name, name);
	assert_ok(morsel_close(morsel));
	morsel = NULL;
	opts.flags = MORSEL_CREATE | MORSEL_EXCL;
	assert_fails(morsel_open(pool, name, &opts, &morsel), -EEXIST, "exists");
	opts.flags = MORSEL_CREATE | 1u << 31;
	assert_fails(morsel_open(pool, "b", &opts, &morsel), -EINVAL, "flags");
	opts.flags = MORSEL_CREATE | MORSEL_CONTIGUOUS | MORSEL_SCATTERED;
	assert_fails(morsel_open(pool, "b", &opts, &morsel), -EINVAL, "exclude");
	opts.flags = MORSEL_CREATE | MORSEL_LAZY | MORSEL_CONTIGUOUS;
	assert_fails(morsel_open(pool, "b", &opts, &morsel), -EINVAL, "lazy");
	opts.flags = MORSEL_CREATE;
	opts.pages = 9;
	assert_fails(morsel_open(pool, "b", &opts, &morsel), -EINVAL, "policy");
	opts.pages = 0;
	opts.bytes = 65 * MIB;
	assert_fails(morsel_open(pool, "b", &opts, &morsel), -ENOSPC, "number space");
	opts.bytes = UINT64_MAX;
	assert_fails(morsel_open(pool, "b", &opts, &morsel), -ENOSPC, "number space");
	opts.flags |= MORSEL_LAZY;
	assert_fails(morsel_open(pool, "b", &opts, &morsel), -ENOSPC, "number space");
	opts.flags = MORSEL_CREATE;
	opts.bytes = MIB;
	opts.pages = MORSEL_PAGES_1G;
	assert_fails(morsel_open(pool, "b", &opts, &morsel), -ENOSPC, "number space");
	opts.size = 3;
	assert_fails(morsel_open(pool, "b", &opts, &morsel), -EINVAL, "size");
	assert_null(morsel);
	assert_false(object_exists(pool, "b"));
	object_pool_end(pool);
}

static void test_pool_full(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *half = object_create(pool, "half", 40 * MIB, 0, 0);
	uint64_t free_bytes = object_free_bytes(pool);
	struct morsel_opts opts = {.size = sizeof(opts), .flags = MORSEL_CREATE, .bytes = 30 * MIB};
	struct morsel *morsel;

	assert_int_equal(morsel_open(pool, "more", &opts, &morsel), -ENOSPC);
	assert_true(strlen(morsel_errormsg()) > 20);
	/* One segment of cells may have come since; everything else is back. */
	assert_int_equal(object_free_bytes(pool), free_bytes);
	assert_false(object_exists(pool, "more"));
	assert_ok(morsel_close(half));
	object_pool_end(pool);
}

static void test_budget_full(void **state)
{
	struct morsel_pool_opts pool_opts = {
		.size = sizeof(pool_opts),
		.flags = MORSEL_POOL_CREATE,
		.bytes = 256 * MIB,
		.budget_bytes = 32 * MIB,
	};
	struct morsel_opts opts = {.size = sizeof(opts), .flags = MORSEL_CREATE, .bytes = 40 * MIB};
	struct morsel *morsel, *lazy;
	struct morsel_pool *pool;
	uint64_t free_bytes;

	assert_ok(morsel_pool_open(NULL, &pool_opts, &pool));
	assert_fails(morsel_open(pool, "a", &opts, &morsel), -ENOSPC, "budget");
	opts.bytes = 20 * MIB;
	assert_ok(morsel_open(pool, "a", &opts, &morsel));
	free_bytes = object_free_bytes(pool);
	assert_fails(morsel_open(pool, "b", &opts, &lazy), -ENOSPC, "budget");
	assert_int_equal(object_free_bytes(pool), free_bytes);
	opts.flags |= MORSEL_LAZY;
	assert_ok(morsel_open(pool, "b", &opts, &lazy));
	assert_fails(mrs_morsel_fill(lazy, 0, 20 * MIB / 4096), -ENOSPC, "budget");
	assert_ok(mrs_morsel_fill(lazy, 0, 512));
	assert_ok(morsel_close(morsel));
	assert_ok(morsel_close(lazy));
	object_pool_end(pool);
}

struct runs {
	unsigned count;
	uint64_t offset, next_frame;
	unsigned order_max, order_min;
	bool resident;
	uint64_t stop_after;
};

static int count_run(void *ctx, const struct morsel_run *run)
{
	struct runs *runs = ctx;

	assert_int_equal(run->offset, runs->offset);
	assert_true(run->bytes > 0);
	assert_true(!runs->count || !run->resident || run->frame != runs->next_frame);
	runs->count++;
	runs->offset += run->bytes;
	runs->next_frame = run->frame + run->bytes / 4096;
	runs->order_max = mrs_max(runs->order_max, run->order);
	runs->order_min = mrs_min(runs->order_min, run->order);
	runs->resident |= run->resident;
	return runs->stop_after && runs->count == runs->stop_after ? 77 : 0;
}

static struct runs runs_of(struct morsel *morsel)
{
	struct runs runs = {.order_min = 99};
	uint64_t bytes = mrs_morsel_bytes(morsel);

	assert_ok(morsel_runs(morsel, 0, bytes, count_run, &runs));
	assert_int_equal(runs.offset, bytes);
	return runs;
}

static void test_policies(void **state)
{
	struct morsel_pool *pool = object_pool(512 * MIB);
	uint64_t odd = 9 * MIB + 5 * KIB;
	struct morsel *mixed = object_create(pool, "mixed", odd, 0, 0);
	struct morsel *small = object_create(pool, "small", odd, 0, MORSEL_PAGES_4K);
	struct morsel *huge = object_create(pool, "huge", odd, 0, MORSEL_PAGES_2M);
	struct morsel *scattered = object_create(pool, "scattered", odd, MORSEL_SCATTERED, 0);
	struct morsel *scattered4k =
		object_create(pool, "scattered4k", MIB, MORSEL_SCATTERED, MORSEL_PAGES_4K);
	struct morsel *one = object_create(pool, "one", 33 * MIB, MORSEL_CONTIGUOUS, 0);
	struct morsel *tiny = object_create(pool, "tiny", 5 * 4 * KIB, MORSEL_CONTIGUOUS, 0);
	struct morsel *empty = object_create(pool, "empty", 0, 0, 0);

	assert_int_equal(runs_of(mixed).count, 1);
	assert_int_equal(runs_of(mixed).order_max, 9);
	assert_int_equal(object_info(mixed).bytes_allocated, 9 * MIB + 8 * KIB);
	assert_int_equal(runs_of(small).count, 1);
	assert_int_equal(object_info(huge).bytes_allocated, 10 * MIB);
	assert_int_equal(object_info(huge).pages, MORSEL_PAGES_2M);
	assert_true(runs_of(scattered).count >= 3);
	assert_true(runs_of(scattered4k).count > 200);
	assert_int_equal(runs_of(scattered4k).order_max, 0);
	assert_int_equal(runs_of(one).count, 1);
	assert_int_equal(runs_of(tiny).count, 1);
	assert_int_equal(object_info(empty).bytes_allocated, 0);
	assert_int_equal(runs_of(empty).count, 0);
	object_write(scattered, 5, 0, odd);
	object_write(scattered4k, 6, 0, MIB);
	object_write(mixed, 7, 0, odd);
	assert_int_equal(object_differs(scattered, 5, 0, odd), UINT64_MAX);
	assert_int_equal(object_differs(scattered4k, 6, 0, MIB), UINT64_MAX);
	assert_int_equal(object_differs(mixed, 7, 0, odd), UINT64_MAX);
	object_check(pool);
	morsel_close(mixed);
	morsel_close(small);
	morsel_close(huge);
	morsel_close(scattered);
	morsel_close(scattered4k);
	morsel_close(one);
	morsel_close(tiny);
	morsel_close(empty);
	object_pool_end(pool);
}

/* Every second 2 MiB of the pool is taken: only pieces fit. */
static void test_fragmented(void **state)
{
	struct morsel_pool *pool = object_pool(128 * MIB);
	struct morsel_opts opts = {
		.size = sizeof(opts), .flags = MORSEL_CREATE | MORSEL_CONTIGUOUS, .bytes = 5 * MIB};
	struct morsel *pieces, *no;
	char name[16];
	int count = 0;

	for (;; count++) {
		struct morsel_opts two = {
			.size = sizeof(two), .flags = MORSEL_CREATE, .bytes = 2 * MIB};

		snprintf(name, sizeof(name), "p%d", count);
		if (morsel_open(pool, name, &two, &no))
			break;
		morsel_close(no);
	}
	for (int i = 0; i < count; i += 2) {
		snprintf(name, sizeof(name), "p%d", i);
		assert_ok(morsel_unlink(pool, name));
	}
	assert_fails(morsel_open(pool, "one", &opts, &no), -ENOSPC, "largest gap");
	opts.flags = MORSEL_CREATE;
	assert_ok(morsel_open(pool, "pieces", &opts, &pieces));
	assert_true(runs_of(pieces).count >= 2);
	object_write(pieces, 3, 0, opts.bytes);
	assert_int_equal(object_differs(pieces, 3, 0, opts.bytes), UINT64_MAX);
	opts.pages = MORSEL_PAGES_2M;
	assert_ok(morsel_open(pool, "huge pieces", &opts, &no));
	assert_int_equal(runs_of(no).order_min, 9);
	object_check(pool);
	morsel_close(no);
	morsel_close(pieces);
	object_pool_end(pool);
}

static void test_runs_ends(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = object_create(pool, "m", MIB, MORSEL_SCATTERED, MORSEL_PAGES_4K);
	struct runs runs = {.stop_after = 3};

	assert_int_equal(morsel_runs(morsel, 0, MIB, count_run, &runs), 77);
	assert_int_equal(runs.count, 3);
	runs = (struct runs){.offset = 5000};
	assert_ok(morsel_runs(morsel, 5000, 10, count_run, &runs));
	assert_int_equal(runs.count, 1);
	assert_int_equal(runs.offset, 5010);
	assert_fails(morsel_runs(morsel, MIB, 1, count_run, &runs), -EINVAL, "inside");
	assert_fails(morsel_runs(morsel, 0, UINT64_MAX, count_run, &runs), -EINVAL, "inside");
	morsel_close(morsel);
	object_pool_end(pool);
}

static void test_lazy(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	uint64_t free_bytes = object_free_bytes(pool);
	struct morsel *lazy = object_create(pool, "lazy", 9 * MIB + 1, MORSEL_LAZY, 0);
	struct morsel *small = object_create(pool, "small", MIB, MORSEL_LAZY, MORSEL_PAGES_4K);

	assert_int_equal(object_info(lazy).bytes_allocated, 0);
	assert_true(object_free_bytes(pool) + 256 * KIB >= free_bytes);
	assert_true(object_is_zero(lazy, 0, 9 * MIB));
	assert_ok(mrs_morsel_fill(lazy, 600, 1));
	assert_int_equal(object_info(lazy).bytes_allocated, 2 * MIB);
	assert_int_equal(runs_of(lazy).count, 3);
	object_write(lazy, 4, 2 * MIB, 2 * MIB);
	assert_ok(mrs_morsel_fill(lazy, 0, mrs_morsel_pages(lazy)));
	assert_int_equal(object_info(lazy).bytes_allocated, 9 * MIB + 4 * KIB);
	assert_int_equal(object_differs(lazy, 4, 2 * MIB, 2 * MIB), UINT64_MAX);
	assert_true(object_is_zero(lazy, 0, 2 * MIB));
	assert_true(object_is_zero(lazy, 4 * MIB, 5 * MIB + 1));
	assert_fails(mrs_morsel_fill(lazy, 9 * MIB / 4096, 2), -EBUSY, "ends before");
	assert_ok(mrs_morsel_fill(small, 7, 1));
	assert_int_equal(object_info(small).bytes_allocated, 4 * KIB);
	morsel_close(lazy);
	morsel_close(small);
	object_pool_end(pool);
}

static int unlink_each(void *ctx, const struct morsel_info *info)
{
	struct morsel_pool *pool = *(struct morsel_pool **)ctx;

	return morsel_unlink(pool, info->name);
}

static int count_each(void *ctx, const struct morsel_info *info)
{
	unsigned *seen = ctx;
	unsigned number = (unsigned)strtoul(info->name + 1, NULL, 10);

	assert_true(number < 300);
	assert_int_equal(info->bytes, number * 100);
	seen[number]++;
	return 0;
}

static int stop_at_once(void *ctx, const struct morsel_info *info)
{
	return 5;
}

static void test_list(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	unsigned seen[300] = {0};
	char name[16];

	for (unsigned i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		morsel_close(object_create(pool, name, i * 100, 0, 0));
	}
	assert_ok(morsel_list(pool, count_each, seen));
	for (unsigned i = 0; i < 300; i++)
		assert_int_equal(seen[i], 1);
	assert_int_equal(morsel_list(pool, stop_at_once, NULL), 5);
	object_check(pool);
	assert_ok(morsel_list(pool, unlink_each, &pool));
	assert_ok(morsel_list(pool, stop_at_once, NULL));
	object_pool_end(pool);
}

/* More handles than a slot's own entries: OPEN cells. */
static void test_many_handles(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *handle[1000], *first = object_create(pool, "m", MIB, 0, 0);
	uint64_t free_bytes;

	for (int i = 0; i < 1000; i++)
		handle[i] = object_open(pool, "m");
	assert_int_equal(object_info(first).users, 1001);
	object_check(pool);
	assert_ok(morsel_unlink(pool, "m"));
	object_write(handle[999], 1, 0, MIB);
	for (int i = 0; i < 1000; i++) {
		assert_int_equal(object_info(first).users, 1001 - i);
		assert_ok(morsel_close(handle[(i * 7) % 1000]));
	}
	free_bytes = object_free_bytes(pool);
	assert_int_equal(object_differs(first, 1, 0, MIB), UINT64_MAX);
	assert_ok(morsel_close(first));
	assert_int_equal(object_free_bytes(pool), free_bytes + MIB);
	object_pool_end(pool);
}

static void test_read_only(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB), *looker;
	struct morsel_pool_opts opts = {.size = sizeof(opts), .flags = MORSEL_POOL_READ_ONLY};
	struct morsel_opts create = {.size = sizeof(create), .flags = MORSEL_CREATE};
	struct morsel *morsel = object_create(pool, "n1", 100, 0, 0), *look, *none;
	struct morsel_info info = {.size = sizeof(info)};
	unsigned seen[300] = {0};
	struct runs runs = {0};
	uint64_t hold;

	assert_ok(morsel_pool_open_fd(morsel_pool_fd(pool), &opts, &looker));
	assert_ok(morsel_open(looker, "n1", NULL, &look));
	assert_int_equal(object_info(look).bytes, 100);
	assert_int_equal(object_info(look).users, 1);
	assert_ok(morsel_runs(look, 0, 100, count_run, &runs));
	assert_ok(morsel_list(looker, count_each, seen));
	assert_int_equal(seen[1], 1);
	assert_fails(morsel_open(looker, "b", &create, &none), -EROFS, "read-only");
	assert_fails(morsel_unlink(looker, "n1"), -EROFS, "read-only");
	assert_fails(morsel_rename(looker, "n1", "b"), -EROFS, "read-only");
	assert_fails(morsel_resize(look, 5), -EROFS, "read-only");
	assert_fails(morsel_seal(look), -EROFS, "read-only");
	assert_fails(morsel_publish(look, "b"), -EROFS, "read-only");
	assert_fails(morsel_advise(look, 0, 1, MORSEL_ADVICE_FREE), -EROFS, "read-only");
	assert_fails(morsel_export(look, "/dev/null", NULL), -EROFS, "read-only");
	assert_fails(morsel_import(looker, "b", "/dev/null", NULL, &none), -EROFS, "read-only");
	assert_fails(mrs_morsel_view_publish(look, 1, false, &hold), -EROFS, "read-only");
	assert_ok(morsel_unlink(pool, "n1"));
	assert_ok(morsel_close(morsel));
	assert_fails(morsel_info(look, &info), -ENOENT, "removed");
	assert_fails(morsel_runs(look, 0, 100, count_run, &runs), -ENOENT, "removed");
	assert_ok(morsel_close(look));
	assert_ok(morsel_pool_close(looker));
	object_pool_end(pool);
}

static void test_info_sizes(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = object_create(pool, "m", 100, 0, 0);
	struct {
		struct morsel_info info;
		char more[64];
	} newer;
	struct morsel_info older;

	memset(&newer, 0xff, sizeof(newer));
	newer.info.size = sizeof(newer);
	assert_ok(morsel_info(morsel, &newer.info));
	assert_int_equal(newer.info.bytes, 100);
	assert_int_equal(newer.more[0], 0);
	assert_int_equal(newer.more[63], 0);
	memset(&older, 0xff, sizeof(older));
	older.size = offsetof(struct morsel_info, bytes_allocated);
	assert_ok(morsel_info(morsel, &older));
	assert_int_equal(older.bytes, 100);
	assert_int_equal(older.bytes_allocated, UINT64_MAX);
	older.size = 1;
	assert_fails(morsel_info(morsel, &older), -EINVAL, "size");
	morsel_close(morsel);
	object_pool_end(pool);
}

static void test_pool_close_refused(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = object_create(pool, "m", 100, 0, 0);

	assert_int_equal(morsel_pool_close(pool), -EBUSY);
	assert_ok(morsel_close(morsel));
	object_pool_end(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_create_open_close),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_pool_full),
		cmocka_unit_test(test_budget_full),
		cmocka_unit_test(test_policies),
		cmocka_unit_test(test_fragmented),
		cmocka_unit_test(test_runs_ends),
		cmocka_unit_test(test_lazy),
		cmocka_unit_test(test_list),
		cmocka_unit_test(test_many_handles),
		cmocka_unit_test(test_read_only),
		cmocka_unit_test(test_info_sizes),
		cmocka_unit_test(test_pool_close_refused),
	};

	return cmocka_run_group_tests_name("object: open", tests, NULL, NULL);
}
