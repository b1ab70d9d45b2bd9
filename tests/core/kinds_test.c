/*
 * The same life of a pool on every kind of backing store, through the public interface alone:
 * create, share, grow, shrink, be killed, reopen, check. And a store that is full says so: a memory
 * cgroup as much as a file system.
 *
 *   core_kinds memfd | tmpfs | disk | hugetlb | cgroup
 *
 * Exit 77 where this machine cannot offer the kind to this user.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <morsel/morsel.h>

#include "support/counts.h"

#define MIB  (1024 * 1024ull)
#define SKIP 77

static const char *kind;
static char folder[256]; /* of this run; removed at the end */
static char pool_path[300];
static uint32_t expected_kind;

static int left_out(const char *why)
{
	printf("skipped: %s: %s\n", kind, why);
	return SKIP;
}

/* ---- places ---- */

static bool write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : write(fd, text, strlen(text));

	if (fd >= 0)
		close(fd);
	return n == (ssize_t)strlen(text);
}

static long read_number(const char *path)
{
	FILE *f = fopen(path, "r");
	long value = -1;

	if (f && fscanf(f, "%ld", &value) != 1)
		value = -1;
	if (f)
		fclose(f);
	return value;
}

#define HUGE_PAGES_PATH "/proc/sys/vm/nr_hugepages"
#define HUGE_PAGES	96

static long huge_pages_before = -1;

static void huge_pages_restore(void)
{
	char text[24];

	if (huge_pages_before < 0)
		return;
	snprintf(text, sizeof(text), "%ld", huge_pages_before);
	write_text(HUGE_PAGES_PATH, text);
}

/* A hugetlbfs of our own in a mount namespace of our own, with pages that go back at the end. */
static int place_hugetlb(void)
{
	char text[24];

	if (geteuid())
		return left_out("reserving huge pages and mounting hugetlbfs needs root");
	huge_pages_before = read_number(HUGE_PAGES_PATH);
	snprintf(text, sizeof(text), "%ld", huge_pages_before + HUGE_PAGES);
	if (huge_pages_before < 0 || !write_text(HUGE_PAGES_PATH, text) ||
	    read_number(HUGE_PAGES_PATH) < huge_pages_before + HUGE_PAGES)
		return left_out("the kernel gave too few huge pages");
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("none", folder, "hugetlbfs", 0, NULL))
		return left_out("hugetlbfs cannot be mounted here");
	return 0;
}

static int place(void)
{
	const char *base = "/dev/shm";

	if (!strcmp(kind, "disk"))
		base = "/var/tmp";
	snprintf(folder, sizeof(folder), "%s/morsel-kinds-XXXXXX", base);
	if (!mkdtemp(folder))
		return left_out("no folder can be made there");
	snprintf(pool_path, sizeof(pool_path), "%s/pool", folder);
	if (!strcmp(kind, "hugetlb"))
		return place_hugetlb();
	return 0;
}

static void leave(void)
{
	unlink(pool_path);
	umount2(folder, MNT_DETACH);
	rmdir(folder);
	huge_pages_restore();
}

/* ---- the life of a pool ---- */

static struct morsel_pool *create_pool(uint64_t bytes)
{
	struct morsel_pool_opts opts = {.size = sizeof(opts),
					.flags = MORSEL_POOL_CREATE | MORSEL_POOL_EXCL,
					.bytes = bytes,
					.bytes_max = 512 * MIB};
	struct morsel_pool *pool;
	const char *path = expected_kind == MORSEL_POOL_MEMFD ? NULL : pool_path;

	if (morsel_pool_open(path, &opts, &pool))
		fail_msg("%s", morsel_errormsg());
	return pool;
}

static struct morsel_pool *attach(struct morsel_pool *pool)
{
	struct morsel_pool *other;
	int code = expected_kind == MORSEL_POOL_MEMFD
			   ? morsel_pool_open_fd(morsel_pool_fd(pool), NULL, &other)
			   : morsel_pool_open(pool_path, NULL, &other);

	if (code)
		fail_msg("%s", morsel_errormsg());
	return other;
}

static void report(void *ctx, const char *finding)
{
	printf("pool check: %s\n", finding);
}

static struct morsel *make(struct morsel_pool *pool, const char *name, uint64_t bytes,
			   uint32_t flags)
{
	struct morsel_opts opts = {
		.size = sizeof(opts), .flags = MORSEL_CREATE | flags, .bytes = bytes};
	struct morsel *morsel;

	if (morsel_open(pool, name, &opts, &morsel))
		fail_msg("%s: %s", name, morsel_errormsg());
	return morsel;
}

static uint64_t word_of(uint64_t seed, uint64_t page)
{
	return (seed + 1) * 0x9e3779b97f4a7c15u ^ page;
}

/* Every page gets its own word, at a place of its own. */
static void write_pages(struct morsel *morsel, uint64_t pages, uint64_t seed)
{
	struct morsel_view *view;
	struct morsel_grant grant;

	assert_int_equal(morsel_map(morsel, NULL, &view), 0);
	assert_int_equal(morsel_acquire(view, 0, pages * 4096, MORSEL_WRITE, &grant), 0);
	for (uint64_t i = 0; i < pages; i++)
		((uint64_t *)grant.addr)[i * 512 + i % 512] = word_of(seed, i);
	morsel_release(&grant);
	morsel_view_destroy(view);
}

static void verify_pages(struct morsel *morsel, uint64_t pages, uint64_t seed)
{
	struct morsel_view *view;
	struct morsel_grant grant;

	assert_int_equal(morsel_map(morsel, NULL, &view), 0);
	assert_int_equal(morsel_acquire(view, 0, pages * 4096, MORSEL_READ, &grant), 0);
	for (uint64_t i = 0; i < pages; i++)
		assert_int_equal(((uint64_t *)grant.addr)[i * 512 + i % 512], word_of(seed, i));
	morsel_release(&grant);
	morsel_view_destroy(view);
}

static void test_kind_is_recognised(void **state)
{
	struct morsel_pool *pool = create_pool(64 * MIB);
	struct morsel_pool_stat stat = {.size = sizeof(stat)};

	assert_int_equal(morsel_pool_stat(pool, &stat), 0);
	assert_int_equal(stat.kind, expected_kind);
	assert_int_equal(morsel_pool_close(pool), 0);
	unlink(pool_path);
}

static void test_life(void **state)
{
	struct morsel_pool *pool = create_pool(64 * MIB), *other = attach(pool);
	struct morsel *a = make(pool, "a", 5 * MIB + 4096, 0);
	struct morsel *b = make(other, "b", 3 * MIB, MORSEL_LAZY), *seen;

	write_pages(a, 1281, 1);
	write_pages(b, 768, 2);
	assert_int_equal(morsel_open(other, "a", NULL, &seen), 0);
	verify_pages(seen, 1281, 1);
	assert_int_equal(morsel_resize(seen, 9 * MIB), 0);
	verify_pages(a, 1281, 1);
	assert_int_equal(morsel_resize(a, 2 * MIB), 0);
	assert_int_equal(morsel_resize(a, 4 * MIB), 0);
	verify_pages(a, 512, 1);
	assert_int_equal(morsel_close(seen), 0);
	assert_int_equal(morsel_close(a), 0);
	assert_int_equal(morsel_close(b), 0);
	assert_int_equal(morsel_pool_check(pool, report, NULL), 0);
	assert_int_equal(morsel_pool_close(pool), 0);

	/* Opened again, grown, emptied: all memory of the morsels goes back. */
	pool = attach(other);
	assert_int_equal(morsel_pool_close(other), 0);
	assert_int_equal(morsel_open(pool, "b", NULL, &b), 0);
	verify_pages(b, 768, 2);
	assert_int_equal(morsel_close(b), 0);
	assert_int_equal(morsel_pool_grow(pool, 64 * MIB, 0), 0);
	assert_int_equal(morsel_unlink(pool, "a"), 0);
	assert_int_equal(morsel_unlink(pool, "b"), 0);
	assert_int_equal(morsel_pool_check(pool, report, NULL), 0);
	assert_int_equal(morsel_pool_close(pool), 0);
	unlink(pool_path);
}

/* New bytes are zero, also where the frames were somebody else's before. */
static void test_used_frames_come_back_as_zero(void **state)
{
	struct morsel_pool *pool = create_pool(64 * MIB);

	for (int round = 0; round < 3; round++) {
		struct morsel *a = make(pool, "a", 7 * MIB + 4096, 0), *small;
		struct morsel_view *view;
		const uint64_t *word;

		assert_int_equal(morsel_map(a, NULL, &view), 0);
		word = morsel_addr(view);
		for (uint64_t i = 0; i < (7 * MIB + 4096) / 8; i++)
			assert_int_equal(word[i], 0);
		memset(morsel_addr(view), 0xff, 7 * MIB + 4096);
		morsel_view_destroy(view);
		/* Between two rounds something small moves the frames by a page. */
		small = make(pool, round ? "y" : "x", 4096, 0);
		assert_int_equal(morsel_close(small), 0);
		assert_int_equal(morsel_close(a), 0);
		assert_int_equal(morsel_unlink(pool, "a"), 0);
	}
	assert_int_equal(morsel_pool_check(pool, report, NULL), 0);
	assert_int_equal(morsel_pool_close(pool), 0);
	unlink(pool_path);
}

/* Makes and removes morsels until it is killed. */
static void churn(void)
{
	struct morsel_pool *pool;

	if (morsel_pool_open(pool_path, NULL, &pool))
		_exit(1);
	for (unsigned i = 0;; i++) {
		struct morsel_opts opts = {.size = sizeof(opts),
					   .flags = MORSEL_CREATE,
					   .bytes = 4096 * (1 + i % 700)};
		struct morsel *morsel;
		char name[16];

		snprintf(name, sizeof(name), "c%u", i % 5);
		if (!morsel_open(pool, name, &opts, &morsel)) {
			morsel_resize(morsel, 4096 * (1 + i * 7 % 900));
			morsel_close(morsel);
		}
		morsel_unlink(pool, name);
	}
}

static void test_killed_users_leave_nothing(void **state)
{
	uint64_t random = test_seed();
	struct morsel_pool *pool;
	struct morsel *witness;

	if (expected_kind == MORSEL_POOL_MEMFD)
		return; /* a child finds a memfd pool only through its parent: other tests do that
			 */
	pool = create_pool(64 * MIB);
	witness = make(pool, "witness", 3 * MIB, 0);
	write_pages(witness, 768, 9);
	for (unsigned i = 0; i < MRS_COUNT(10, 100); i++) {
		pid_t child = fork();

		if (!child)
			churn();
		usleep(5000 + test_random(&random) % 20000);
		assert_int_equal(kill(child, SIGKILL), 0);
		assert_int_equal(waitpid(child, NULL, 0), child);
		assert_true(morsel_pool_reap(pool) >= 0);
		assert_int_equal(morsel_pool_check(pool, report, NULL), 0);
	}
	verify_pages(witness, 768, 9);
	assert_int_equal(morsel_close(witness), 0);
	assert_int_equal(morsel_pool_close(pool), 0);
	unlink(pool_path);
}

/* ---- memory cgroup ---- */

static char cgroup[512];

/* A cgroup of ours below our own, limited; version 1 or 2. NULL says why not. */
static const char *limit_cgroup(uint64_t bytes)
{
	char line[512], path[600], text[24];
	FILE *f = fopen("/proc/self/cgroup", "r");
	const char *limit = NULL;

	while (f && fgets(line, sizeof(line), f)) {
		char *own = strstr(line, ":memory:");

		line[strcspn(line, "\n")] = 0;
		if (own) {
			snprintf(cgroup, sizeof(cgroup), "/sys/fs/cgroup/memory%.200s/morsel-%d",
				 strcmp(own + 8, "/") ? own + 8 : "", getpid());
			limit = "memory.limit_in_bytes";
			break;
		}
		if (!strncmp(line, "0::", 3)) {
			snprintf(cgroup, sizeof(cgroup), "/sys/fs/cgroup%.200s/morsel-%d",
				 strcmp(line + 3, "/") ? line + 3 : "", getpid());
			limit = "memory.max";
		}
	}
	if (f)
		fclose(f);
	if (!limit || mkdir(cgroup, 0755))
		return "no memory cgroup can be made below our own";
	snprintf(path, sizeof(path), "%s/%s", cgroup, limit);
	snprintf(text, sizeof(text), "%llu", (unsigned long long)bytes);
	if (!write_text(path, text))
		return "the memory cgroup takes no limit";
	return NULL;
}

static int in_cgroup(void)
{
	char path[600], text[24];
	struct morsel_opts opts = {
		.size = sizeof(opts), .flags = MORSEL_CREATE, .bytes = 200 * MIB};
	struct morsel_pool *pool;
	struct morsel *morsel;
	int code;

	snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
	snprintf(text, sizeof(text), "%d", getpid());
	if (!write_text(path, text))
		return SKIP;
	pool = create_pool(256 * MIB);
	code = morsel_open(pool, "big", &opts, &morsel);
	if (code != -ENOSPC || !strstr(morsel_errormsg(), "cgroup")) {
		printf("code %d: %s\n", code, code ? morsel_errormsg() : "no error");
		return 1;
	}
	printf("refused in words: %s\n", morsel_errormsg());
	opts.bytes = 8 * MIB;
	if (morsel_open(pool, "small", &opts, &morsel) || morsel_close(morsel) ||
	    morsel_pool_check(pool, report, NULL))
		return 1;
	return morsel_pool_close(pool) ? 1 : 0;
}

static int run_in_cgroup(void)
{
	const char *why = limit_cgroup(64 * MIB);
	int wait_status = 0, code;
	pid_t child;

	if (why) {
		rmdir(cgroup);
		return left_out(why);
	}
	fflush(stdout);
	child = fork();
	if (!child) {
		code = in_cgroup();
		fflush(stdout);
		_exit(code);
	}
	if (waitpid(child, &wait_status, 0) != child)
		return 1;
	for (int i = 0; rmdir(cgroup) && i < 100; i++)
		usleep(10000);
	if (WIFSIGNALED(wait_status)) {
		printf("killed by signal %d instead of an answer\n", WTERMSIG(wait_status));
		return 1;
	}
	code = WEXITSTATUS(wait_status);
	return code == SKIP ? left_out("a process cannot be moved into its cgroup") : code;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		uint32_t kind;
	} kinds[] = {{"memfd", MORSEL_POOL_MEMFD},
		     {"cgroup", MORSEL_POOL_MEMFD},
		     {"tmpfs", MORSEL_POOL_TMPFS},
		     {"disk", MORSEL_POOL_FILE},
		     {"hugetlb", MORSEL_POOL_HUGETLB}};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kind_is_recognised),
		cmocka_unit_test(test_life),
		cmocka_unit_test(test_used_frames_come_back_as_zero),
		cmocka_unit_test(test_killed_users_leave_nothing),
	};
	int code;

	kind = argc > 1 ? argv[1] : "";
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (!strcmp(kind, kinds[i].name))
			expected_kind = kinds[i].kind;
	if (!expected_kind) {
		fprintf(stderr, "usage: core_kinds memfd|tmpfs|disk|hugetlb|cgroup\n");
		return 2;
	}
	if (!strcmp(kind, "cgroup"))
		return run_in_cgroup();
	code = place();
	if (!code)
		code = cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
	leave();
	return code;
}
