/*
 * Views of a pool on hugetlbfs, where the kernel maps whole blocks of 2 MiB only. Needs a hugetlbfs
 * that is mounted and writable, and 40 free huge pages (sysctl vm.nr_hugepages=40).
 */
#include <errno.h>
#include <mntent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/view_support.h"

static char pool_path[4096];

/* A path on a hugetlbfs that this process may write to; false if there is none. */
static bool find_place(void)
{
	FILE *mounts = setmntent("/proc/mounts", "r");
	struct mntent *mount;
	bool found = false;

	while (mounts && !found && (mount = getmntent(mounts))) {
		snprintf(pool_path, sizeof(pool_path), "%s/morsel-view-test-%d", mount->mnt_dir,
			 (int)getpid());
		found = !strcmp(mount->mnt_type, "hugetlbfs") && !access(mount->mnt_dir, W_OK);
	}
	if (mounts)
		endmntent(mounts);
	return found;
}

static unsigned long free_huge_pages(void)
{
	FILE *file = fopen("/proc/meminfo", "r");
	unsigned long pages = 0;
	char line[128];

	while (file && fgets(line, sizeof(line), file))
		sscanf(line, "HugePages_Free: %lu", &pages);
	if (file)
		fclose(file);
	return pages;
}

static void use_view(struct morsel *morsel, uint32_t kind, uint64_t offset)
{
	struct morsel_map_opts opts = {
		.size = sizeof(opts), .kind = kind, .offset = offset, .flags = MORSEL_MAP_POPULATE};
	struct morsel_view *view;
	struct morsel_grant grant;
	char *at;

	if (morsel_map(morsel, &opts, &view))
		fail_msg("%s", morsel_errormsg());
	at = morsel_addr(view);
	for (uint64_t i = 0; i < morsel_view_bytes(view) / 8; i += 512)
		assert_int_equal(((uint64_t *)at)[i], support_word((offset + i * 8) / PAGE, 4));
	assert_true(support_has_flag(at, "dc") && support_has_flag(at, "ht"));
	/* A part of a block stays; the whole goes, and comes back with a grant for a part. */
	assert_int_equal(morsel_view_invalidate(view, 4 * MIB - offset, PAGE), -EOPNOTSUPP);
	assert_int_equal(morsel_view_invalidate(view, 4 * MIB - offset, 2 * MIB), 0);
	assert_int_equal(support_touch(at + 4 * MIB - offset, false), TOUCH_FORBIDDEN);
	assert_int_equal(morsel_acquire(view, 5 * MIB - offset, 10, MORSEL_READ, &grant), 0);
	assert_int_equal(*(uint64_t *)grant.addr, support_word(5 * MIB / PAGE, 4));
	morsel_release(&grant);
	assert_int_equal(*(uint64_t *)(at + 4 * MIB - offset), support_word(4 * MIB / PAGE, 4));
	morsel_view_destroy(view);
}

static void test_blocks(void **state)
{
	struct morsel_pool_opts opts = {.size = sizeof(opts),
					.flags = MORSEL_POOL_CREATE,
					.bytes = 128 * MIB,
					.bytes_max = 1024 * MIB};
	struct morsel_map_opts part = {
		.size = sizeof(part), .kind = MORSEL_VIEW_STITCHED, .offset = PAGE};
	struct morsel *one, *many;
	struct morsel_pool *pool;
	struct morsel_view *view;

	if (morsel_pool_open(pool_path, &opts, &pool))
		fail_msg("%s", morsel_errormsg());
	one = support_morsel(pool, "one", 8 * MIB, MORSEL_CONTIGUOUS, 0);
	many = support_morsel(pool, "many", 8 * MIB, MORSEL_SCATTERED, 0);
	for (uint64_t offset = 0; offset <= PAGE; offset += PAGE) {
		struct morsel_grant grant;
		struct morsel *morsels[] = {one, many};

		/* write() does not work on hugetlbfs: number the pages through a view. */
		for (int i = 0; i < 2 && !offset; i++) {
			assert_int_equal(morsel_map(morsels[i], NULL, &view), 0);
			assert_int_equal(morsel_acquire(view, 0, 8 * MIB, MORSEL_WRITE, &grant), 0);
			for (uint64_t page = 0; page < 8 * MIB / PAGE; page++)
				((uint64_t *)grant.addr)[page * 512] = support_word(page, 4);
			morsel_release(&grant);
			morsel_view_destroy(view);
		}
		use_view(one, MORSEL_VIEW_POOLED, offset);
	}
	use_view(one, MORSEL_VIEW_STITCHED, 0);
	use_view(many, MORSEL_VIEW_STITCHED, 0);
	assert_int_equal(morsel_map(many, &part, &view), -EOPNOTSUPP);
	assert_non_null(strstr(morsel_errormsg(), "2097152"));
	assert_int_equal(morsel_close(one), 0);
	assert_int_equal(morsel_close(many), 0);
	assert_int_equal(morsel_pool_close(pool), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_blocks),
	};
	int rc;

	if (!find_place() || free_huge_pages() < 40) {
		fprintf(stderr, "skipped: no writable hugetlbfs with 40 free huge pages (sysctl "
				"vm.nr_hugepages=40, mount -t hugetlbfs none DIR)\n");
		return 77;
	}
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(pool_path);
	return rc;
}
