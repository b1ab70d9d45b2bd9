/*
 * Clones and views: writes through views of source and clone, of one and of several processes,
 * while clones are made.
 */
#include "core/object_support.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "object/share.h"
#include "support/counts.h"

#define PAGE 4096u

static struct morsel_view *map(struct morsel *morsel, int access)
{
	struct morsel_map_opts opts = {.size = sizeof(opts), .access = (uint32_t)access};
	struct morsel_view *view;

	assert_ok(morsel_map(morsel, &opts, &view));
	return view;
}

static volatile uint64_t *word_of(struct morsel_view *view, uint64_t page)
{
	return (volatile uint64_t *)((char *)morsel_addr(view) + page * PAGE + page % 500 * 8);
}

static void put_all(struct morsel_view *view, uint64_t pages, uint64_t value)
{
	for (uint64_t page = 0; page < pages; page++)
		*word_of(view, page) = value + page;
}

static void expect(struct morsel_view *view, uint64_t pages, uint64_t value)
{
	for (uint64_t page = 0; page < pages; page++)
		assert_int_equal(*word_of(view, page), value + page);
}

static struct morsel_pool *open_pool(uint64_t bytes, uint32_t faults)
{
	struct morsel_pool_opts opts = {
		.size = sizeof(opts),
		.flags = MORSEL_POOL_CREATE,
		.bytes = bytes,
		.bytes_max = 4 * GIB,
		.faults = faults,
	};
	struct morsel_pool *pool;

	assert_ok(morsel_pool_open(NULL, &opts, &pool));
	return pool;
}

/* ---- one process ---- */

static void write_both(uint32_t faults, uint32_t flags, uint32_t pages_policy)
{
	struct morsel_pool *pool = open_pool(128 * MIB, faults);
	uint64_t pages = 9 * MIB / PAGE;
	struct morsel *source = object_create(pool, "m", 9 * MIB, flags, pages_policy), *clone;
	struct morsel_view *first = NULL, *view, *other;

	if (flags & MORSEL_EVICTABLE) {
		first = map(source, MORSEL_READ | MORSEL_WRITE);
		put_all(first, pages, 1000);
	} else {
		view = map(source, MORSEL_READ | MORSEL_WRITE);
		put_all(view, pages, 1000);
		morsel_view_destroy(view);
	}
	assert_ok(morsel_clone(source, "c", &clone));
	view = first ? first : map(source, MORSEL_READ | MORSEL_WRITE);
	other = map(clone, MORSEL_READ | MORSEL_WRITE);
	expect(view, pages, 1000);
	expect(other, pages, 1000);
	for (uint64_t page = 0; page < pages; page += 3)
		*word_of(view, page) = 7;
	for (uint64_t page = 0; page < pages; page += 5)
		*word_of(other, page) = 8;
	for (uint64_t page = 0; page < pages; page++) {
		assert_int_equal(*word_of(view, page), page % 3 ? 1000 + page : 7);
		assert_int_equal(*word_of(other, page), page % 5 ? 1000 + page : 8);
	}
	object_check(pool);
	morsel_view_destroy(view);
	morsel_view_destroy(other);
	morsel_close(source);
	assert_ok(morsel_unlink(pool, "m"));
	object_check(pool);
	view = map(clone, MORSEL_READ | MORSEL_WRITE);
	for (uint64_t page = 0; page < pages; page++)
		assert_int_equal(*word_of(view, page), page % 5 ? 1000 + page : 8);
	put_all(view, pages, 5000);
	expect(view, pages, 5000);
	morsel_view_destroy(view);
	morsel_close(clone);
	object_pool_end(pool);
}

static void write_all(uint32_t faults)
{
	write_both(faults, 0, 0);
	write_both(faults, MORSEL_EVICTABLE, 0);
	write_both(faults, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	write_both(faults, MORSEL_SCATTERED, MORSEL_PAGES_4K);
	write_both(faults, MORSEL_EVICTABLE, MORSEL_PAGES_2M);
}

static void test_write_both(void **state)
{
	write_all(MORSEL_FAULTS_THREAD);
}

/* ---- the cut: words that a thread writes in turn are a prefix in each snapshot ---- */

struct writer {
	struct morsel_view *view;
	uint64_t pages;
	uint64_t round; /* atomic */
	uint32_t stop;	/* atomic */
};

static void *write_in_turn(void *arg)
{
	struct writer *writer = arg;

	for (uint64_t round = 1; !mrs_load_acquire32(&writer->stop); round++) {
		for (uint64_t page = 0; page < writer->pages; page++)
			__atomic_store_n(word_of(writer->view, page), round, __ATOMIC_RELEASE);
		mrs_store_release(&writer->round, round);
	}
	return NULL;
}

/* Page 0 first: each page is as new as the one after it, and at most one round newer. */
static void expect_prefix(struct morsel *snapshot, uint64_t pages, uint64_t at_least)
{
	struct morsel_view *view = map(snapshot, MORSEL_READ);
	uint64_t newest = *word_of(view, 0), oldest = *word_of(view, pages - 1), last = newest;

	assert_true(newest >= at_least);
	assert_true(newest - oldest <= 1);
	for (uint64_t page = 1; page < pages; page++) {
		uint64_t now = *word_of(view, page);

		assert_true(now == last || now + 1 == last);
		assert_true(now >= oldest);
		last = now;
	}
	morsel_view_destroy(view);
}

static void cut_beside_writer(uint32_t faults)
{
	struct morsel_pool *pool = open_pool(256 * MIB, faults);
	struct morsel *source =
		object_create(pool, "m", 3 * MIB, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	struct writer writer = {.view = map(source, MORSEL_READ | MORSEL_WRITE),
				.pages = 3 * MIB / PAGE};
	pthread_t thread;

	put_all(writer.view, writer.pages, 0);
	for (uint64_t page = 0; page < writer.pages; page++)
		*word_of(writer.view, page) = 0;
	assert_int_equal(pthread_create(&thread, NULL, write_in_turn, &writer), 0);
	for (unsigned i = 0; i < COUNT_CLONE_CUTS; i++) {
		uint64_t before = mrs_load_acquire(&writer.round);
		struct morsel *snapshot;

		assert_ok(morsel_snapshot(source, NULL, &snapshot));
		expect_prefix(snapshot, writer.pages, before);
		morsel_close(snapshot);
	}
	mrs_store_release32(&writer.stop, 1);
	pthread_join(thread, NULL);
	morsel_view_destroy(writer.view);
	morsel_close(source);
	object_pool_end(pool);
}

static void test_cut(void **state)
{
	cut_beside_writer(MORSEL_FAULTS_THREAD);
}

/* All in one: cmocka puts its own handler of SIGBUS into place before each test. */
static void test_sigbus(void **state)
{
	write_all(MORSEL_FAULTS_SIGBUS);
	cut_beside_writer(MORSEL_FAULTS_SIGBUS);
}

/* ---- several processes ---- */

#define SHARED_PAGES 64u

/* What the child sees: source (as it is written) and clone (as it was), on every look. */
static int child_watch(int fd)
{
	struct morsel_pool *pool;
	struct morsel *source, *clone;
	struct morsel_view *view, *other;
	uint64_t seen;

	assert_ok(morsel_pool_open_fd(fd, NULL, &pool));
	source = object_open(pool, "m");
	clone = object_open(pool, "c");
	view = map(source, MORSEL_READ);
	other = map(clone, MORSEL_READ | MORSEL_WRITE);
	expect(other, SHARED_PAGES, 1000);
	/* The last page says that all others have been written; the parent waits for page 0 of ours. */
	*word_of(other, 0) = 1;
	do
		seen = __atomic_load_n(word_of(view, SHARED_PAGES - 1), __ATOMIC_ACQUIRE);
	while (seen != 2000 + SHARED_PAGES - 1);
	expect(view, SHARED_PAGES, 2000);
	for (uint64_t page = 1; page < SHARED_PAGES; page++)
		assert_int_equal(*word_of(other, page), 1000 + page);
	morsel_view_destroy(view);
	morsel_view_destroy(other);
	morsel_close(source);
	morsel_close(clone);
	return morsel_pool_close(pool);
}

static void test_processes(void **state)
{
	for (unsigned i = 0; i < 3; i++) {
		struct morsel_pool *pool = open_pool(64 * MIB, MORSEL_FAULTS_THREAD);
		struct morsel *source = object_create(pool, "m", SHARED_PAGES * PAGE,
						      MORSEL_EVICTABLE, MORSEL_PAGES_4K);
		struct morsel *clone;
		struct morsel_view *view = map(source, MORSEL_READ | MORSEL_WRITE), *look;
		int status;
		pid_t pid;

		put_all(view, SHARED_PAGES, 1000);
		assert_ok(morsel_clone(source, "c", &clone));
		pid = object_child_start(pool, "watch", "", NULL);
		look = map(clone, MORSEL_READ);
		while (__atomic_load_n(word_of(look, 0), __ATOMIC_ACQUIRE) != 1)
			usleep(1000);
		put_all(view, SHARED_PAGES, 2000);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFEXITED(status) && !WEXITSTATUS(status));
		morsel_view_destroy(view);
		morsel_view_destroy(look);
		morsel_close(source);
		morsel_close(clone);
		object_pool_end(pool);
	}
}

/* ---- what the kernel holds by reference under a grant ---- */

static void into_pipe(struct morsel_view *view, uint64_t page, struct morsel_grant *grant,
		      int end[2])
{
	struct iovec piece = {.iov_base = (char *)morsel_addr(view) + page * PAGE, .iov_len = PAGE};

	assert_ok(morsel_acquire(view, page * PAGE, PAGE, MORSEL_READ, grant));
	assert_int_equal(pipe(end), 0);
	assert_int_equal(vmsplice(end[1], &piece, 1, 0), PAGE);
}

static uint64_t out_of_pipe(uint64_t page, int end[2])
{
	uint64_t words[PAGE / 8];

	assert_int_equal(read(end[0], words, PAGE), PAGE);
	close(end[0]);
	close(end[1]);
	return words[page % 500];
}

/* Of the clone's page 3 while the source, which has two views, writes it; of page 4 also the clone. */
static void test_granted(void **state)
{
	struct morsel_pool *pool = open_pool(64 * MIB, MORSEL_FAULTS_THREAD);
	struct morsel *source = object_create(pool, "m", 8 * PAGE, MORSEL_EVICTABLE,
					      MORSEL_PAGES_4K);
	struct morsel_map_opts opts = {.size = sizeof(opts),
				       .kind = MORSEL_VIEW_STITCHED,
				       .access = MORSEL_READ | MORSEL_WRITE};
	struct morsel_view *view, *second, *own;
	struct morsel_grant grant[2];
	struct morsel *clone;
	int end[2][2];

	/* One that can follow, as the second does. */
	assert_ok(morsel_map(source, &opts, &view));
	put_all(view, 8, 1000);
	assert_ok(morsel_clone(source, "c", &clone));
	second = map(source, MORSEL_READ | MORSEL_WRITE);
	own = map(clone, MORSEL_READ | MORSEL_WRITE);
	into_pipe(own, 3, &grant[0], end[0]);
	into_pipe(own, 4, &grant[1], end[1]);
	*word_of(own, 4) = 8;
	*word_of(view, 3) = 7;
	*word_of(view, 4) = 7;
	assert_int_equal(*word_of(second, 3), 7);
	assert_int_equal(*word_of(own, 3), 1003);
	assert_int_equal(*word_of(own, 4), 8);
	assert_int_equal(out_of_pipe(3, end[0]), 1003);
	assert_int_equal(out_of_pipe(4, end[1]), 8);
	morsel_release(&grant[0]);
	morsel_release(&grant[1]);
	object_check(pool);
	morsel_view_destroy(view);
	morsel_view_destroy(second);
	morsel_view_destroy(own);
	morsel_close(source);
	morsel_close(clone);
	object_pool_end(pool);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_write_both),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_sigbus),
		cmocka_unit_test(test_processes),
		cmocka_unit_test(test_granted),
	};

	if (argc > 3 && !strcmp(argv[1], "--child"))
		return child_watch(atoi(argv[3]));

	return cmocka_run_group_tests(tests, NULL, NULL);
}
