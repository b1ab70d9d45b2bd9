/*
 * Eviction in one process: what goes, what stays, what comes back; clean and dirty pages, huge
 * leaves, pins, swap targets that are full or missing, advice.
 */
#include "core/object_support.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <morsel/swap.h>

#include "object/evict.h"
#include "object/retarget.h"
#include "support/counts.h"
#include "swap/swap.h"

static char swap_path[128];

/* A pool with a swap file of so many bytes; 0: without one. */
static struct morsel_pool *evict_pool(uint64_t bytes, uint64_t swap_bytes)
{
	struct morsel_pool *pool = object_pool(bytes);
	const char *directory = getenv("TMPDIR");
	struct morsel_swap_opts opts = {.size = sizeof(opts),
					.path = swap_path,
					.bytes = swap_bytes,
					.flags = MORSEL_SWAP_PLAIN_IO | MORSEL_SWAP_SPARSE};

	snprintf(swap_path, sizeof(swap_path), "%.60s/morsel-test-%d-swap",
		 directory ? directory : "/tmp", (int)getpid());
	unlink(swap_path);
	if (swap_bytes)
		assert_ok(morsel_swap_add(pool, &opts, NULL));
	return pool;
}

static void evict_pool_end(struct morsel_pool *pool)
{
	object_pool_end(pool);
	unlink(swap_path);
}

static struct morsel_view *map(struct morsel *morsel, uint32_t access)
{
	struct morsel_map_opts opts = {.size = sizeof(opts), .access = access};
	struct morsel_view *view;

	assert_ok(morsel_map(morsel, &opts, &view));
	return view;
}

static void fill(struct morsel_view *view, uint64_t seed, uint64_t offset, uint64_t bytes)
{
	unsigned char *at = morsel_addr(view);

	for (uint64_t i = offset; i < offset + bytes; i += 8) {
		uint64_t word = object_word(seed, i);

		memcpy(at + i, &word, 8);
	}
}

/* The first offset that differs, or UINT64_MAX. */
static uint64_t differs(struct morsel_view *view, uint64_t seed, uint64_t offset, uint64_t bytes)
{
	const unsigned char *at = morsel_addr(view);

	for (uint64_t i = offset; i < offset + bytes; i += 8) {
		uint64_t word = object_word(seed, i);

		if (memcmp(at + i, &word, 8))
			return i;
	}
	return UINT64_MAX;
}

static uint64_t counted(struct morsel_pool *pool, enum mrs_counter which)
{
	return mrs_load_acquire(&mrs_pool_state(pool)->count[which]);
}

/* Pages of [page, page + pages) in this state. */
static uint64_t in_state(struct morsel *morsel, uint64_t page, uint64_t pages,
			 enum mrs_entry_state state)
{
	uint64_t count = 0;
	struct mrs_leaf leaf;

	for (uint64_t i = page; i < page + pages; i++) {
		assert_ok(mrs_table_leaf(&morsel->table, i, &leaf));
		count += mrs_entry_state(leaf.entry) == state;
	}
	return count;
}

static int evict(struct morsel *morsel, uint64_t page, uint64_t pages)
{
	uint64_t bytes = mrs_morsel_bytes(morsel) - page * 4096;

	return morsel_advise(morsel, page * 4096, mrs_min(bytes, pages * 4096),
			     MORSEL_ADVICE_EVICT);
}

/* ---- going and coming back ---- */

static void test_range(void **state)
{
	struct morsel_pool *pool = evict_pool(64 * MIB, 16 * MIB);
	struct morsel *morsel =
		object_create(pool, "m", 4 * MIB, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	struct morsel_view *view = map(morsel, 0);
	uint64_t resident;

	fill(view, 1, 0, 4 * MIB);
	resident = mrs_pool_resident(pool);
	assert_ok(evict(morsel, 5, 1));
	assert_int_equal(in_state(morsel, 5, 1, MRS_ENTRY_EVICTED), 1);
	assert_int_equal(in_state(morsel, 0, 1024, MRS_ENTRY_MAPPED), 1023);
	assert_ok(evict(morsel, 500, 100));
	assert_int_equal(in_state(morsel, 500, 100, MRS_ENTRY_EVICTED), 100);
	assert_int_equal(counted(pool, MRS_COUNT_PAGES_OUT), 101);
	assert_ok(evict(morsel, 0, 1024));
	assert_int_equal(in_state(morsel, 0, 1024, MRS_ENTRY_EVICTED), 1024);
	assert_true(mrs_pool_resident(pool) + 1024 <= resident + 64);
	assert_int_equal(differs(view, 1, 0, 4 * MIB), UINT64_MAX);
	/* Nothing to do is fine. */
	assert_ok(evict(morsel, 0, 1024));
	assert_ok(evict(morsel, 0, 1024));
	assert_int_equal(differs(view, 1, 4 * MIB - 4096, 4096), UINT64_MAX);
	morsel_view_destroy(view);
	assert_ok(morsel_close(morsel));
	evict_pool_end(pool);
}

/* Pages that nobody has written since they were saved go without being written. */
static void test_clean(void **state)
{
	struct morsel_pool *pool = evict_pool(64 * MIB, 16 * MIB);
	struct morsel *morsel =
		object_create(pool, "m", 2 * MIB, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	struct morsel_view *view = map(morsel, 0);

	fill(view, 1, 0, 2 * MIB);
	assert_ok(evict(morsel, 0, 512));
	assert_int_equal(counted(pool, MRS_COUNT_PAGES_OUT_CLEAN), 0);
	assert_int_equal(differs(view, 1, 0, 2 * MIB), UINT64_MAX);
	/* What is being read ahead at that moment goes a moment later. */
	for (unsigned i = 0; i < 500 && in_state(morsel, 0, 512, MRS_ENTRY_EVICTED) < 512; i++) {
		assert_ok(evict(morsel, 0, 512));
		usleep(1000);
	}
	assert_int_equal(counted(pool, MRS_COUNT_PAGES_OUT_CLEAN), 512);
	assert_int_equal(differs(view, 1, 0, 2 * MIB), UINT64_MAX);
	for (uint64_t page = 3; page < 512; page += 50)
		fill(view, 2, page * 4096, 8);
	assert_ok(evict(morsel, 0, 512));
	assert_int_equal(counted(pool, MRS_COUNT_PAGES_OUT_CLEAN), 512 + 502 - 1);
	for (uint64_t page = 0; page < 512; page++) {
		uint64_t seed = page % 50 == 3 ? 2 : 1;

		assert_int_equal(differs(view, seed, page * 4096, 8), UINT64_MAX);
		assert_int_equal(differs(view, 1, page * 4096 + 8, 4088), UINT64_MAX);
	}
	morsel_view_destroy(view);
	assert_ok(morsel_close(morsel));
	evict_pool_end(pool);
}

/* A view that is younger than what was saved may have written without anybody being told. */
static void test_younger_view(void **state)
{
	struct morsel_pool *pool = evict_pool(64 * MIB, 16 * MIB);
	struct morsel *morsel =
		object_create(pool, "m", 2 * MIB, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	struct morsel_view *view = map(morsel, MORSEL_READ | MORSEL_WRITE), *younger;

	fill(view, 1, 0, 2 * MIB);
	assert_ok(evict(morsel, 0, 512));
	assert_int_equal(differs(view, 1, 0, 2 * MIB), UINT64_MAX);
	younger = map(morsel, MORSEL_READ | MORSEL_WRITE);
	fill(younger, 2, 0, 2 * MIB);
	assert_ok(evict(morsel, 0, 512));
	assert_int_equal(differs(view, 2, 0, 2 * MIB), UINT64_MAX);
	/* Older views have been protected; writing through either is noticed. */
	fill(view, 3, 0, MIB);
	fill(younger, 3, MIB, MIB);
	assert_ok(evict(morsel, 0, 512));
	assert_int_equal(differs(younger, 3, 0, 2 * MIB), UINT64_MAX);
	morsel_view_destroy(younger);
	morsel_view_destroy(view);
	assert_ok(morsel_close(morsel));
	evict_pool_end(pool);
}

/* ---- what stays ---- */

static void test_pins(void **state)
{
	struct morsel_pool *pool = evict_pool(64 * MIB, 16 * MIB);
	struct morsel *morsel =
		object_create(pool, "m", 2 * MIB, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	struct morsel_view *view = map(morsel, 0);
	struct morsel_grant grant[2];
	char pid[16];

	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	fill(view, 1, 0, 2 * MIB);
	assert_ok(morsel_acquire(view, 10 * 4096 + 5, 4096, MORSEL_READ, &grant[0]));
	assert_ok(morsel_acquire(view, 100 * 4096, 4096, MORSEL_READ | MORSEL_WRITE, &grant[1]));
	assert_fails(evict(morsel, 10, 2), -EBUSY, "morsel_release");
	assert_fails(evict(morsel, 10, 2), -EBUSY, pid);
	assert_fails(evict(morsel, 100, 1), -EBUSY, pid);
	assert_ok(evict(morsel, 0, 512));
	assert_int_equal(in_state(morsel, 0, 512, MRS_ENTRY_MAPPED), 3);
	assert_int_equal(in_state(morsel, 10, 2, MRS_ENTRY_MAPPED), 2);
	assert_true(counted(pool, MRS_COUNT_PINNED) >= 3);
	morsel_release(&grant[0]);
	assert_ok(evict(morsel, 10, 2));
	morsel_release(&grant[1]);
	assert_ok(evict(morsel, 0, 512));
	assert_int_equal(in_state(morsel, 0, 512, MRS_ENTRY_EVICTED), 512);
	/* A grant brings what is evicted. */
	assert_ok(morsel_acquire(view, 0, 2 * MIB, MORSEL_READ, &grant[0]));
	assert_int_equal(in_state(morsel, 0, 512, MRS_ENTRY_MAPPED), 512);
	assert_int_equal(differs(view, 1, 0, 2 * MIB), UINT64_MAX);
	assert_fails(evict(morsel, 0, 512), -EBUSY, pid);
	morsel_release(&grant[0]);
	morsel_view_destroy(view);
	assert_ok(morsel_close(morsel));
	evict_pool_end(pool);
}

/* Pages that were never written need no target; others are refused without one, in words. */
static void test_no_target(void **state)
{
	struct morsel_pool *pool = evict_pool(64 * MIB, 0);
	struct morsel *morsel =
		object_create(pool, "m", 2 * MIB, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	struct morsel_view *view = map(morsel, 0);

	fill(view, 1, 0, MIB);
	assert_fails(evict(morsel, 0, 256), -ENODEV, "swap");
	assert_int_equal(in_state(morsel, 0, 256, MRS_ENTRY_MAPPED), 256);
	assert_ok(evict(morsel, 256, 256));
	assert_int_equal(in_state(morsel, 256, 256, MRS_ENTRY_EVICTED), 256);
	assert_int_equal(counted(pool, MRS_COUNT_PAGES_ZERO), 256);
	for (uint64_t i = MIB; i < 2 * MIB; i += 512)
		assert_int_equal(((const char *)morsel_addr(view))[i], 0);
	assert_int_equal(differs(view, 1, 0, MIB), UINT64_MAX);
	fill(view, 1, MIB, MIB);
	assert_int_equal(differs(view, 1, 0, 2 * MIB), UINT64_MAX);
	morsel_view_destroy(view);
	assert_ok(morsel_close(morsel));
	evict_pool_end(pool);
}

static void test_full_target(void **state)
{
	struct morsel_pool *pool = evict_pool(64 * MIB, MIB);
	struct morsel *morsel =
		object_create(pool, "m", 4 * MIB, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	struct morsel_view *view = map(morsel, 0);
	uint64_t gone;

	fill(view, 1, 0, 4 * MIB);
	/* What fits goes. */
	assert_ok(evict(morsel, 0, 1024));
	gone = in_state(morsel, 0, 1024, MRS_ENTRY_EVICTED);
	assert_true(gone > 100 && gone <= 256);
	assert_fails(evict(morsel, 0, 1024), -ENOSPC, "swap add");
	assert_int_equal(in_state(morsel, 0, 1024, MRS_ENTRY_EVICTED), gone);
	assert_int_equal(differs(view, 1, 0, 4 * MIB), UINT64_MAX);
	/* What is clean goes all the same; what is being read ahead at that moment a moment later. */
	for (unsigned i = 0; i < 500 && in_state(morsel, 0, 1024, MRS_ENTRY_EVICTED) != gone; i++) {
		assert_ok(evict(morsel, 0, 1024));
		usleep(1000);
	}
	assert_int_equal(in_state(morsel, 0, 1024, MRS_ENTRY_EVICTED), gone);
	assert_int_equal(differs(view, 1, 0, 4 * MIB), UINT64_MAX);
	morsel_view_destroy(view);
	assert_ok(morsel_close(morsel));
	evict_pool_end(pool);
}

static void test_refused(void **state)
{
	struct morsel_pool *pool = evict_pool(64 * MIB, MIB);
	struct morsel *plain = object_create(pool, "p", MIB, 0, 0);
	int advice[] = {MORSEL_ADVICE_EVICT,  MORSEL_ADVICE_NORMAL,    MORSEL_ADVICE_SEQUENTIAL,
			MORSEL_ADVICE_RANDOM, MORSEL_ADVICE_WILL_NEED, MORSEL_ADVICE_DO_NOT_NEED};

	for (size_t i = 0; i < mrs_array_length(advice); i++)
		assert_fails(morsel_advise(plain, 0, MIB, advice[i]), -EOPNOTSUPP,
			     "MORSEL_EVICTABLE");
	assert_ok(morsel_close(plain));
	evict_pool_end(pool);
}

/* ---- huge leaves go whole ---- */

static void test_huge(void **state)
{
	struct morsel_pool *pool = evict_pool(64 * MIB, 16 * MIB);
	struct morsel *morsel =
		object_create(pool, "m", 6 * MIB, MORSEL_EVICTABLE, MORSEL_PAGES_2M);
	struct morsel_view *view = map(morsel, 0);
	struct morsel_grant grant;

	fill(view, 1, 0, 6 * MIB);
	assert_ok(morsel_acquire(view, 3 * MIB, 1, MORSEL_READ, &grant));
	assert_ok(evict(morsel, 0, 1536));
	assert_int_equal(in_state(morsel, 0, 1536, MRS_ENTRY_EVICTED), 1024);
	assert_int_equal(in_state(morsel, 512, 512, MRS_ENTRY_MAPPED), 512);
	assert_fails(evict(morsel, 1000, 1), -EBUSY, "grant");
	morsel_release(&grant);
	assert_int_equal(differs(view, 1, 0, 6 * MIB), UINT64_MAX);
	assert_ok(evict(morsel, 600, 1));
	assert_true(in_state(morsel, 512, 512, MRS_ENTRY_EVICTED) >= 1);
	assert_int_equal(differs(view, 1, 0, 6 * MIB), UINT64_MAX);
	fill(view, 2, 0, 6 * MIB);
	assert_ok(evict(morsel, 0, 1536));
	assert_int_equal(in_state(morsel, 0, 1536, MRS_ENTRY_EVICTED), 1536);
	assert_int_equal(differs(view, 2, 0, 6 * MIB), UINT64_MAX);
	morsel_view_destroy(view);
	assert_ok(morsel_close(morsel));
	evict_pool_end(pool);
}

/* Somebody has pinned a page without a grant: he keeps the old bytes, everybody else the content.
 */
static void foreign_pin(uint32_t pages)
{
	struct morsel_pool *pool = evict_pool(64 * MIB, 16 * MIB);
	struct morsel *morsel = object_create(pool, "m", 2 * MIB, MORSEL_EVICTABLE, pages);
	struct morsel_view *view = map(morsel, 0);
	uint64_t word[512];
	struct iovec part = {.iov_base = (char *)morsel_addr(view) + 8 * 4096, .iov_len = 4096};
	int fd[2];

	assert_int_equal(pipe(fd), 0);
	fill(view, 1, 0, 2 * MIB);
	assert_int_equal(vmsplice(fd[1], &part, 1, 0), 4096);
	assert_ok(evict(morsel, 8, 1));
	assert_int_equal(differs(view, 1, 0, 2 * MIB), UINT64_MAX);
	assert_ok(evict(morsel, 0, 512));
	fill(view, 2, 0, 2 * MIB);
	assert_int_equal(differs(view, 2, 0, 2 * MIB), UINT64_MAX);
	assert_int_equal(read(fd[0], word, sizeof(word)), sizeof(word));
	assert_int_equal(word[7], object_word(1, 8 * 4096 + 56));
	close(fd[0]);
	close(fd[1]);
	morsel_view_destroy(view);
	assert_ok(morsel_close(morsel));
	evict_pool_end(pool);
}

static void test_foreign_pin(void **state)
{
	foreign_pin(MORSEL_PAGES_4K);
	foreign_pin(MORSEL_PAGES_2M);
	foreign_pin(MORSEL_PAGES_MIXED);
}

/* ---- the other advice ---- */

static void test_discard(void **state)
{
	struct morsel_pool *pool = evict_pool(64 * MIB, 16 * MIB);
	struct morsel *morsel =
		object_create(pool, "m", 8 * MIB, MORSEL_EVICTABLE, MORSEL_PAGES_MIXED);
	struct morsel_view *view = map(morsel, 0);
	struct morsel_grant grant;

	fill(view, 1, 0, 8 * MIB);
	assert_ok(evict(morsel, 0, 1024));
	/* Half of it evicted, half resident; whole pages, parts of pages, parts of huge leaves. */
	assert_ok(morsel_advise(morsel, MIB + 100, 6 * MIB, MORSEL_ADVICE_FREE));
	assert_int_equal(differs(view, 1, 0, MIB + 96), UINT64_MAX);
	assert_int_equal(differs(view, 1, 7 * MIB + 104, MIB - 104), UINT64_MAX);
	for (uint64_t i = MIB + 100; i < 7 * MIB + 100; i++)
		if (((const char *)morsel_addr(view))[i])
			fail_msg("byte %llu is not zero", (unsigned long long)i);
	fill(view, 3, MIB, 6 * MIB);
	assert_ok(evict(morsel, 0, 2048));
	assert_int_equal(differs(view, 3, MIB, 6 * MIB), UINT64_MAX);
	assert_ok(morsel_acquire(view, 2 * MIB, 1, MORSEL_READ, &grant));
	assert_fails(morsel_advise(morsel, 0, 8 * MIB, MORSEL_ADVICE_FREE), -EBUSY, "grant");
	morsel_release(&grant);
	assert_ok(morsel_advise(morsel, 0, 8 * MIB, MORSEL_ADVICE_FREE));
	for (uint64_t i = 0; i < 8 * MIB; i += 256)
		assert_int_equal(((const char *)morsel_addr(view))[i], 0);
	morsel_view_destroy(view);
	assert_ok(morsel_close(morsel));
	evict_pool_end(pool);
}

static void test_prefetch(void **state)
{
	struct morsel_pool *pool = evict_pool(64 * MIB, 16 * MIB);
	struct morsel *morsel =
		object_create(pool, "m", 8 * MIB, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	struct morsel_view *view = map(morsel, 0);
	uint64_t in;

	fill(view, 1, 0, 8 * MIB);
	morsel_view_destroy(view);
	assert_ok(evict(morsel, 0, 2048));
	/* Without a view of one's own. */
	assert_ok(morsel_advise(morsel, 0, 4 * MIB, MORSEL_ADVICE_PREFETCH));
	assert_int_equal(in_state(morsel, 0, 1024, MRS_ENTRY_MAPPED), 1024);
	assert_int_equal(in_state(morsel, 1024, 1024, MRS_ENTRY_EVICTED), 1024);
	assert_ok(morsel_advise(morsel, 4 * MIB, 4 * MIB, MORSEL_ADVICE_WILL_NEED));
	for (int i = 0; i < 2000 && in_state(morsel, 1024, 1024, MRS_ENTRY_EVICTED); i++)
		usleep(10000);
	assert_int_equal(in_state(morsel, 0, 2048, MRS_ENTRY_MAPPED), 2048);
	in = counted(pool, MRS_COUNT_PAGES_IN);
	view = map(morsel, MORSEL_READ);
	assert_int_equal(differs(view, 1, 0, 8 * MIB), UINT64_MAX);
	assert_int_equal(counted(pool, MRS_COUNT_PAGES_IN), in);
	assert_ok(morsel_advise(morsel, 0, 8 * MIB, MORSEL_ADVICE_SEQUENTIAL));
	assert_ok(morsel_advise(morsel, 0, 8 * MIB, MORSEL_ADVICE_RANDOM));
	assert_ok(morsel_advise(morsel, 0, 8 * MIB, MORSEL_ADVICE_NORMAL));
	assert_ok(morsel_advise(morsel, MIB, MIB, MORSEL_ADVICE_DO_NOT_NEED));
	morsel_view_destroy(view);
	/* Closing does not wait for what is being brought. */
	assert_ok(evict(morsel, 0, 2048));
	for (int i = 0; i < 40; i++)
		assert_ok(morsel_advise(morsel, 0, 8 * MIB, MORSEL_ADVICE_WILL_NEED));
	assert_ok(morsel_close(morsel));
	evict_pool_end(pool);
}

/* ---- the core's own reading and writing ---- */

static void test_content(void **state)
{
	struct morsel_pool *pool = evict_pool(64 * MIB, 32 * MIB);
	const char *file = object_file("evict", 7, 5 * MIB + 72);
	struct morsel_opts opts = {.size = sizeof(opts), .flags = MORSEL_EVICTABLE};
	char copy[160], command[400];
	struct morsel *morsel;

	snprintf(copy, sizeof(copy), "%s.copy", file);
	snprintf(command, sizeof(command), "cmp '%s' '%s'", file, copy);
	assert_ok(morsel_import(pool, "m", file, &opts, &morsel));
	assert_ok(evict(morsel, 0, 1281));
	assert_true(in_state(morsel, 0, 1281, MRS_ENTRY_EVICTED) >= 1280);
	assert_ok(morsel_export(morsel, copy, NULL));
	assert_int_equal(system(command), 0);
	/* The end moves to and fro over evicted pages. */
	assert_ok(evict(morsel, 0, 1281));
	assert_ok(morsel_resize(morsel, 3 * MIB + 1000));
	assert_ok(evict(morsel, 0, 769));
	assert_ok(morsel_resize(morsel, 5 * MIB));
	assert_int_equal(object_differs(morsel, 7, 0, 3 * MIB + 1000), UINT64_MAX);
	assert_true(object_is_zero(morsel, 3 * MIB + 1000, 2 * MIB - 1000));
	assert_ok(morsel_resize(morsel, 3 * MIB + 1000));
	assert_ok(morsel_seal(morsel));
	assert_ok(evict(morsel, 0, 768));
	assert_ok(morsel_export(morsel, copy, NULL));
	snprintf(command, sizeof(command), "cmp -n %llu '%s' '%s'",
		 (unsigned long long)(3 * MIB + 1000), file, copy);
	assert_int_equal(system(command), 0);
	unlink(file);
	unlink(copy);
	assert_ok(morsel_close(morsel));
	evict_pool_end(pool);
}

/* ---- writers that never stop ---- */

struct writer {
	volatile uint64_t *word;
	uint64_t wrote;
	uint64_t lost; /* what was read instead, plus 1 */
	uint32_t *stop;
};

static void *write_on(void *ctx)
{
	struct writer *writer = ctx;

	while (!mrs_load_acquire32(writer->stop)) {
		uint64_t read = *writer->word;

		if (read != writer->wrote) {
			writer->lost = read + 1;
			break;
		}
		*writer->word = ++writer->wrote;
	}
	return NULL;
}

static void test_writers(void **state)
{
	struct morsel_pool *pool = evict_pool(64 * MIB, 16 * MIB);
	struct morsel *morsel =
		object_create(pool, "m", 64 * KIB, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	struct morsel_view *view[2] = {map(morsel, 0), map(morsel, 0)};
	struct writer writer[4];
	pthread_t thread[4];
	uint32_t stop = 0;

	for (int i = 0; i < 4; i++) {
		writer[i] = (struct writer){.word = (uint64_t *)morsel_addr(view[i % 2]) + i * 16,
					    .stop = &stop};
		assert_int_equal(pthread_create(&thread[i], NULL, write_on, &writer[i]), 0);
	}
	for (unsigned i = 0; i < COUNT_EVICT_ROUNDS; i++) {
		int rc = evict(morsel, 0, 16);

		if (rc && rc != -EBUSY)
			assert_ok(rc);
		usleep(50);
	}
	mrs_store_release32(&stop, 1);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(thread[i], NULL), 0);
		if (writer[i].lost)
			fail_msg("writer %d wrote %llu and read %llu", i,
				 (unsigned long long)writer[i].wrote,
				 (unsigned long long)writer[i].lost - 1);
		assert_int_equal(*writer[i].word, writer[i].wrote);
	}
	morsel_view_destroy(view[1]);
	morsel_view_destroy(view[0]);
	assert_ok(morsel_close(morsel));
	evict_pool_end(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_range),	     cmocka_unit_test(test_clean),
		cmocka_unit_test(test_younger_view), cmocka_unit_test(test_pins),
		cmocka_unit_test(test_no_target),    cmocka_unit_test(test_full_target),
		cmocka_unit_test(test_refused),	     cmocka_unit_test(test_huge),
		cmocka_unit_test(test_foreign_pin),  cmocka_unit_test(test_discard),
		cmocka_unit_test(test_prefetch),     cmocka_unit_test(test_content),
		cmocka_unit_test(test_writers),
	};

	return cmocka_run_group_tests_name("object: evict", tests, NULL, NULL);
}
