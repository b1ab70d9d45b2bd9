/*
 * Registration of backends, the optional groups, and the set of pages without translation (against
 * an array of flags).
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "core/view_support.h"
#include "support/counts.h"
#include "view/ranges.h"

/* ---- a backend that does nothing, and counts ---- */

struct device {
	uint32_t caps;
	int maps, destroys, acquires, releases, to, from, fail_map;
	struct morsel_grant *held; /* what the backend itself releases before the view goes */
};

static uint32_t caps(void *device)
{
	return ((struct device *)device)->caps;
}

static int map(struct morsel_target *target, const struct morsel_run *runs, size_t n)
{
	struct device *d = target->device;

	d->maps++;
	return d->fail_map;
}

static int invalidate(struct morsel_target *target, uint64_t offset, uint64_t bytes)
{
	return 0;
}

static void destroy(struct morsel_target *target)
{
	((struct device *)target->device)->destroys++;
}

static int acquire(struct morsel_target *target, struct morsel_grant *grant)
{
	((struct device *)target->device)->acquires++;
	grant->iova = 0x1000 + grant->offset;
	return 0;
}

static void release(struct morsel_target *target, struct morsel_grant *grant)
{
	((struct device *)target->device)->releases++;
}

static int to_target(struct morsel_target *target, uint64_t offset, uint64_t bytes)
{
	((struct device *)target->device)->to++;
	return 0;
}

static int from_target(struct morsel_target *target, uint64_t offset, uint64_t bytes)
{
	((struct device *)target->device)->from++;
	return 0;
}

static int fault_start(struct morsel_target *target, morsel_fault_fn fn, void *ctx)
{
	return 0;
}

static void stop(struct morsel_target *target)
{
}

static int start(struct morsel_target *target)
{
	return 0;
}

static int collect(struct morsel_target *target, uint64_t offset, uint64_t bytes,
		   morsel_dirty_fn fn, void *ctx)
{
	return fn(ctx, offset, bytes);
}

static int export_range(struct morsel_target *target, uint64_t offset, uint64_t bytes, int *fd)
{
	*fd = 1234;
	return 0;
}

static void export_revoke(struct morsel_target *target, int fd)
{
}

static void settle(struct morsel_target *target)
{
	morsel_release(((struct device *)target->device)->held);
}

static const struct morsel_backend_ops full = {
	.size = sizeof(full),
	.version = MORSEL_BACKEND_VERSION,
	.name = "counting",
	.caps = caps,
	.map = map,
	.invalidate = invalidate,
	.destroy = destroy,
	.acquire = acquire,
	.release = release,
	.to_target = to_target,
	.from_target = from_target,
	.fault_start = fault_start,
	.fault_stop = stop,
	.dirty_start = start,
	.dirty_collect = collect,
	.dirty_stop = stop,
	.export_range = export_range,
	.export_revoke = export_revoke,
	.settle = settle,
};

static void refuse(const struct morsel_backend_ops *ops, int code, const char *words)
{
	struct morsel_backend *backend = NULL;

	assert_int_equal(morsel_backend_register(ops, &backend), code);
	assert_null(backend);
	if (!strstr(morsel_errormsg(), words))
		fail_msg("\"%s\" does not say \"%s\"", morsel_errormsg(), words);
}

/* Each operation taken out of a full table in turn: a group is whole or refused by name. */
static void test_groups(void **state)
{
	static const struct {
		size_t at;
		const char *words;
	} cases[] = {
#define CASE(op, words) {offsetof(struct morsel_backend_ops, op), words}
		CASE(name, "name"),
		CASE(caps, "lacks the required operation caps"),
		CASE(map, "lacks the required operation map"),
		CASE(invalidate, "lacks the required operation invalidate"),
		CASE(destroy, "lacks the required operation destroy"),
		CASE(acquire, "half of the group grants: release without acquire"),
		CASE(release, "acquire without release"),
		CASE(to_target, "half of the group transfer"),
		CASE(from_target, "to_target without from_target"),
		CASE(fault_start, "half of the group faulting"),
		CASE(fault_stop, "fault_start without fault_stop"),
		CASE(dirty_start, "half of the group dirty tracking"),
		CASE(dirty_collect, "without dirty_collect"),
		CASE(dirty_stop, "without dirty_stop"),
		CASE(export_range, "half of the group export"),
		CASE(export_revoke, "export_range without export_revoke"),
	};
	struct morsel_backend *backend;

	for (size_t i = 0; i < mrs_array_length(cases); i++) {
		struct morsel_backend_ops ops = full;

		memset((char *)&ops + cases[i].at, 0, sizeof(void *));
		refuse(&ops, -EINVAL, cases[i].words);
	}
	assert_int_equal(morsel_backend_register(&full, &backend), 0);
	assert_int_equal(morsel_backend_unregister(backend), 0);
	assert_int_equal(morsel_backend_unregister(NULL), 0);
	refuse(NULL, -EINVAL, "operations table");
}

static void test_versions(void **state)
{
	struct {
		struct morsel_backend_ops ops;
		void *newer;
	} larger = {.ops = full};
	struct morsel_backend_ops ops = full;
	struct morsel_backend *backend;

	ops.version = MORSEL_BACKEND_VERSION + 1;
	refuse(&ops, -EPROTONOSUPPORT, "version");
	ops.version = 0;
	refuse(&ops, -EPROTONOSUPPORT, "version");
	larger.ops.size = sizeof(larger);
	assert_int_equal(morsel_backend_register(&larger.ops, &backend), 0);
	morsel_backend_unregister(backend);
	larger.newer = &larger;
	refuse(&larger.ops, -E2BIG, "update libmorsel");
	/* A table from before the export group existed. */
	ops = full;
	ops.size = offsetof(struct morsel_backend_ops, export_range);
	assert_int_equal(morsel_backend_register(&ops, &backend), 0);
	morsel_backend_unregister(backend);
	ops.size = 3;
	refuse(&ops, -EINVAL, "size");
}

/* What capabilities say must be there, and only what they say is offered. */
static void test_capabilities(void **state)
{
	struct morsel_pool *pool = support_pool();
	struct morsel *many = support_morsel(pool, "m", MIB, MORSEL_SCATTERED, MORSEL_PAGES_4K);
	struct morsel *lazy = support_morsel(pool, "l", MIB, MORSEL_LAZY, 0);
	struct morsel_backend_ops least = {.size = sizeof(least),
					   .version = MORSEL_BACKEND_VERSION,
					   .name = "least",
					   .caps = caps,
					   .map = map,
					   .invalidate = invalidate,
					   .destroy = destroy};
	static const uint32_t claims[] = {0, MORSEL_CAP_COHERENT | MORSEL_CAP_DIRTY,
					  MORSEL_CAP_COHERENT | MORSEL_CAP_FAULTABLE,
					  MORSEL_CAP_COHERENT | MORSEL_CAP_EXPORT};
	struct morsel_backend *backend;
	struct device d = {0};
	struct morsel_view *view;
	int fd;

	assert_int_equal(morsel_backend_register(&least, &backend), 0);
	for (size_t i = 0; i < mrs_array_length(claims); i++) {
		d.caps = claims[i] | MORSEL_CAP_SCATTER;
		assert_int_equal(morsel_view_create(many, backend, &d, NULL, &view), -EINVAL);
	}
	d.caps = MORSEL_CAP_COHERENT;
	assert_int_equal(morsel_view_create(many, backend, &d, NULL, &view), -EOPNOTSUPP);
	d.caps = MORSEL_CAP_COHERENT | MORSEL_CAP_SCATTER;
	assert_int_equal(morsel_view_create(lazy, backend, &d, NULL, &view), -EOPNOTSUPP);
	assert_non_null(strstr(morsel_errormsg(), "least"));
	assert_int_equal(d.maps, 0);
	assert_int_equal(morsel_view_create(many, backend, &d, NULL, &view), 0);
	assert_int_equal(morsel_backend_unregister(backend), -EBUSY);
	assert_int_equal(morsel_view_dirty_start(view), -EOPNOTSUPP);
	assert_non_null(strstr(morsel_errormsg(), "least has no dirty tracking"));
	assert_int_equal(morsel_view_dirty_stop(view), -EOPNOTSUPP);
	assert_int_equal(morsel_view_dirty_collect(view, 0, PAGE, NULL, NULL), -EOPNOTSUPP);
	assert_int_equal(morsel_view_fault_start(view, NULL, NULL), -EOPNOTSUPP);
	assert_non_null(strstr(morsel_errormsg(), "least has no faulting"));
	assert_int_equal(morsel_view_fault_stop(view), -EOPNOTSUPP);
	assert_int_equal(morsel_view_export(view, 0, PAGE, &fd), -EOPNOTSUPP);
	assert_int_equal(morsel_view_export_revoke(view, 5), -EOPNOTSUPP);
	morsel_view_destroy(view);
	assert_int_equal(d.destroys, 1);
	/* A map() that fails: nothing of the view remains, and destroy() is not called. */
	d.fail_map = -EIO;
	assert_int_equal(morsel_view_create(many, backend, &d, NULL, &view), -EIO);
	assert_int_equal(d.destroys, 1);
	assert_int_equal(morsel_backend_unregister(backend), 0);
	assert_int_equal(morsel_resize(many, PAGE), 0);
	assert_int_equal(morsel_close(many), 0);
	assert_int_equal(morsel_close(lazy), 0);
	assert_int_equal(morsel_pool_close(pool), 0);
}

static int count_dirty(void *ctx, uint64_t offset, uint64_t bytes)
{
	*(uint64_t *)ctx += bytes;
	return 0;
}

static void check_groups(struct morsel_view *view)
{
	uint64_t dirty = 0;
	int fd = -1;

	assert_int_equal(morsel_view_dirty_collect(view, 0, PAGE, count_dirty, &dirty), -EINVAL);
	assert_int_equal(morsel_view_dirty_start(view), 0);
	assert_int_equal(morsel_view_dirty_start(view), -EBUSY);
	assert_int_equal(morsel_view_dirty_collect(view, 0, 3, count_dirty, &dirty), -ERANGE);
	assert_int_equal(morsel_view_dirty_collect(view, 0, 2 * MIB, count_dirty, &dirty), -ERANGE);
	assert_int_equal(morsel_view_dirty_collect(view, 0, PAGE, count_dirty, &dirty), 0);
	assert_int_equal(dirty, PAGE);
	assert_int_equal(morsel_view_dirty_stop(view), 0);
	assert_int_equal(morsel_view_fault_start(view, NULL, NULL), 0);
	assert_int_equal(morsel_view_fault_start(view, NULL, NULL), -EBUSY);
	assert_int_equal(morsel_view_fault_stop(view), 0);
	/* What is exported is granted until it is revoked. */
	assert_int_equal(morsel_view_export(view, PAGE, PAGE, &fd), 0);
	assert_int_equal(fd, 1234);
	assert_int_equal(morsel_view_invalidate(view, PAGE, PAGE), -EBUSY);
	assert_int_equal(morsel_view_export_revoke(view, 99), -EBADF);
	assert_int_equal(morsel_view_export_revoke(view, fd), 0);
	assert_int_equal(morsel_view_invalidate(view, PAGE, PAGE), 0);
	assert_int_equal(morsel_view_export(view, PAGE, PAGE, &fd), 0); /* ends with the view */
}

/* A target with a copy: brought up to date at acquire, brought back at release of a writer. */
static void test_copying(void **state)
{
	struct morsel_pool *pool = support_pool();
	struct morsel *morsel = support_morsel(pool, "m", MIB, 0, 0);
	struct device d = {.caps = MORSEL_CAP_SCATTER | MORSEL_CAP_DIRTY | MORSEL_CAP_FAULTABLE |
				   MORSEL_CAP_EXPORT};
	struct morsel_backend *backend;
	struct morsel_grant grant, copy;
	struct morsel_view *view;

	assert_int_equal(morsel_backend_register(&full, &backend), 0);
	assert_int_equal(morsel_view_create(morsel, backend, &d, NULL, &view), 0);
	assert_null(morsel_addr(view));
	assert_int_equal(morsel_acquire(view, 100, 10, MORSEL_READ, &grant), 0);
	assert_int_equal(grant.iova, 0x1064);
	assert_null(grant.addr);
	copy = grant;
	morsel_release(&grant);
	morsel_release(&copy);
	assert_true(d.to == 1 && d.from == 0 && d.acquires == 1 && d.releases == 1);
	assert_int_equal(morsel_acquire(view, 100, 10, MORSEL_WRITE, &grant), 0);
	morsel_release(&grant);
	assert_true(d.to == 2 && d.from == 1 && d.acquires == 2 && d.releases == 2);
	assert_int_equal(d.maps, 1);
	check_groups(view);
	/* Before it goes, its backend may release: what was written comes back. */
	assert_int_equal(morsel_acquire(view, 100, 10, MORSEL_WRITE, &grant), 0);
	d.held = &grant;
	d.from = d.releases = 0;
	morsel_view_destroy(view);
	assert_true(d.from == 1 && d.releases == 1);
	assert_int_equal(morsel_backend_unregister(backend), 0);
	assert_int_equal(morsel_close(morsel), 0);
	assert_int_equal(morsel_pool_close(pool), 0);
}

/* ---- the set of pages ---- */

#define FLAGS 300u

static void check_set(const struct mrs_ranges *set, const bool *flags)
{
	uint64_t page = 0;

	for (size_t i = 0; i < set->count; i++) {
		assert_true(set->range[i].first < set->range[i].end);
		assert_true(!i || set->range[i - 1].end < set->range[i].first);
		for (; page < set->range[i].first; page++)
			assert_false(flags[page]);
		for (; page < set->range[i].end; page++)
			assert_true(flags[page]);
	}
	for (; page < FLAGS; page++)
		assert_false(flags[page]);
}

static void check_find(const struct mrs_ranges *set, const bool *flags, uint64_t first,
		       uint64_t end)
{
	struct mrs_range found;
	uint64_t want = first, want_end;

	while (want < end && !flags[want])
		want++;
	if (!mrs_ranges_find(set, first, end, &found)) {
		assert_int_equal(want, end);
		return;
	}
	for (want_end = want; want_end < end && flags[want_end]; want_end++)
		;
	assert_int_equal(found.first, want);
	assert_int_equal(found.end, want_end);
}

static void test_ranges(void **state)
{
	struct mrs_ranges set = {0};
	bool flags[FLAGS] = {false};
	uint64_t random = test_seed();

	for (int i = 0; i < 20000; i++) {
		uint64_t r = test_random(&random);
		uint64_t first = r % FLAGS, length = 1 + (r >> 16) % (r & 1 << 20 ? 5 : 60);
		uint64_t end = mrs_min(first + length, FLAGS);

		assert_int_equal(mrs_ranges_reserve(&set), 0);
		if (r >> 32 & 1)
			mrs_ranges_add(&set, first, end);
		else
			mrs_ranges_remove(&set, first, end);
		for (uint64_t page = first; page < end; page++)
			flags[page] = r >> 32 & 1;
		check_set(&set, flags);
		check_find(&set, flags, (r >> 40) % FLAGS, FLAGS);
	}
	mrs_ranges_free(&set);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_groups),	     cmocka_unit_test(test_versions),
		cmocka_unit_test(test_capabilities), cmocka_unit_test(test_copying),
		cmocka_unit_test(test_ranges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
