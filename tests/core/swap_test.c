/*
 * Swap targets, one promise after the other.
 */
#include "core/swap_support.h"

#include <sys/resource.h>

#define FRAMES 20000 /* frame numbers that the tests name; nothing is behind them */

static unsigned char memory[MRS_SWAP_BATCH][PAGE] __attribute__((aligned(4096)));
static char file[128];

static int setup(void **state)
{
	(void)state;
	pool_double_reset();
	strcpy(file, pool_path("swap"));
	unlink(file);
	return 0;
}

static void fill(uint64_t first, unsigned count, enum content content)
{
	for (unsigned i = 0; i < count; i++)
		page_fill(memory[i], first + i, content);
}

static void assert_there(struct morsel_pool *pool, uint64_t first, unsigned count,
			 enum content content)
{
	unsigned char page[PAGE];

	for (unsigned i = 0; i < count; i++) {
		assert_int_equal(swap_in(pool, first + i, page), 0);
		assert_true(page_is(page, first + i, content));
	}
}

static void round_trip(struct morsel_pool *pool, enum content content)
{
	for (uint64_t first = 1000; first < 4000; first += 500) {
		fill(first, 500, content);
		assert_int_equal(swap_out(pool, first, memory, 500), 0);
	}
	assert_there(pool, 1000, 3000, content);
	assert_clean(pool);
}

static void drop_all(struct morsel_pool *pool)
{
	for (uint64_t frame = 0; frame < FRAMES; frame++)
		swap_drop(pool, frame);
}

static void test_no_target(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 64 * MIB, 0);

	(void)state;
	fill(1, 1, NOISE);
	assert_int_equal(swap_out(pool, 1, memory, 1), -ENODEV);
	assert_words("morsel swap add");
	fill(1, 1, FILLED);
	assert_int_equal(swap_out(pool, 1, memory, 1), 0);
	assert_there(pool, 1, 1, FILLED);
	assert_int_equal(morsel_pool_close(pool), 0);
}

static void test_memory(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 64 * MIB, 0);
	int id = swap_add(pool, NULL, 32 * MIB, 0, 0);

	(void)state;
	assert_true(id >= 0);
	for (enum content content = NOISE; content < CONTENTS; content++) {
		round_trip(pool, content);
		assert_int_equal(swap_info(pool, (unsigned)id).pages, content == FILLED ? 0 : 3000);
		if (content == TEXT)
			assert_true(swap_info(pool, (unsigned)id).memory_bytes <
				    3000 * PAGE * 3 / 4);
		drop_all(pool);
		assert_int_equal(swap_info(pool, (unsigned)id).pages, 0);
		assert_true(swap_info(pool, (unsigned)id).memory_bytes <= 18 * 32768);
		assert_clean(pool);
	}
	assert_int_equal(morsel_swap_remove(pool, (unsigned)id, 0), 0);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
}

static void file_round_trips(unsigned flags)
{
	struct morsel_pool *pool = pool_create(NULL, 64 * MIB, 0);
	int id = swap_add(pool, file, 16 * MIB, 0, flags);

	assert_true(id >= 0);
	for (enum content content = NOISE; content < CONTENTS; content++) {
		round_trip(pool, content);
		drop_all(pool);
	}
	assert_int_equal(swap_info(pool, (unsigned)id).pages, 0);
	assert_int_equal(morsel_swap_remove(pool, (unsigned)id, 0), 0);
	assert_int_equal(access(file, F_OK), -1);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
}

static void test_file(void **state)
{
	(void)state;
	file_round_trips(MORSEL_SWAP_PLAIN_IO);
}

/* Many requests in flight, or a refusal in words. */
static void test_file_in_flight(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 64 * MIB, 0);
	int id = swap_add(pool, file, 16 * MIB, 0, 0);

	(void)state;
	if (id == -EOPNOTSUPP) {
		assert_words("plain");
		assert_int_equal(access(file, F_OK), -1);
		assert_clean(pool);
	} else {
		assert_int_equal(morsel_swap_remove(pool, (unsigned)id, 0), 0);
		file_round_trips(0);
	}
	assert_int_equal(morsel_pool_close(pool), 0);
}

static void load_batch(struct morsel_pool *pool, uint64_t first, unsigned count)
{
	static unsigned char got[MRS_SWAP_BATCH][PAGE] __attribute__((aligned(4096)));
	struct mrs_swap_page page[MRS_SWAP_BATCH];
	void *to[MRS_SWAP_BATCH];
	uint32_t epoch;

	for (unsigned i = 0; i < count; i++) {
		to[i] = got[i];
		assert_true(mrs_swap_kept(pool, first + i, &page[i], &epoch));
	}
	assert_int_equal(mrs_swap_load(mrs_swap_of(pool), page, to, count), 0);
	for (unsigned i = 0; i < count; i++)
		assert_true(page_is(got[i], first + i, (first + i) % CONTENTS));
}

/* Each kind of page goes where it is worth most, and all come back in one call. */
static void test_priorities(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 64 * MIB, 0);
	int disk = swap_add(pool, file, 4 * MIB, 1, MORSEL_SWAP_PLAIN_IO);
	int packed = swap_add(pool, NULL, 16 * MIB, 2, 0);

	(void)state;
	assert_true(disk >= 0 && packed >= 0);
	for (unsigned i = 0; i < 400; i++)
		page_fill(memory[i], 100 + i, (100 + i) % CONTENTS);
	assert_int_equal(swap_out(pool, 100, memory, 400), 0);
	assert_int_equal(swap_info(pool, (unsigned)disk).pages, 100);	/* noise */
	assert_int_equal(swap_info(pool, (unsigned)packed).pages, 200); /* text, mostly filled */
	load_batch(pool, 100, 400);
	/* The file is full: noise is kept as it is, in memory. */
	for (unsigned k = 0; k < 3; k++) {
		fill(1000 + 400 * k, 400, NOISE);
		assert_int_equal(swap_out(pool, 1000 + 400 * k, memory, 400), 0);
	}
	assert_int_equal(swap_info(pool, (unsigned)disk).pages, 1024);
	assert_int_equal(swap_info(pool, (unsigned)packed).pages, 476);
	assert_there(pool, 1000, 1200, NOISE);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
}

static void test_no_room(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 64 * MIB, 0);
	int id = swap_add(pool, file, MIB, 0, MORSEL_SWAP_PLAIN_IO);

	(void)state;
	fill(1, 200, NOISE);
	assert_int_equal(swap_out(pool, 1, memory, 200), 0);
	fill(1000, 200, NOISE);
	assert_int_equal(swap_out(pool, 1000, memory, 200), -ENOSPC);
	assert_words("full");
	assert_int_equal(swap_info(pool, (unsigned)id).pages, 200);
	assert_there(pool, 1, 200, NOISE);
	/* What goes makes room. */
	for (unsigned i = 1; i < 151; i++)
		swap_drop(pool, i);
	assert_int_equal(swap_out(pool, 1000, memory, 200), 0);
	assert_there(pool, 1000, 200, NOISE);
	assert_there(pool, 151, 50, NOISE);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
}

/* A page that is saved anew is kept in its new slot, and its old one is free. */
static void test_saved_anew(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 64 * MIB, 0);
	int packed = swap_add(pool, NULL, 4 * MIB, 0, 0);

	(void)state;
	for (unsigned round = 0; round < 50; round++) {
		for (unsigned i = 0; i < 300; i++)
			page_fill(memory[i], 1000 * round + i, TEXT);
		assert_int_equal(swap_out(pool, 7, memory, 300), 0);
		assert_int_equal(swap_info(pool, (unsigned)packed).pages, 300);
		for (unsigned i = 0; i < 300; i++) {
			unsigned char page[PAGE];

			assert_int_equal(swap_in(pool, 7 + i, page), 0);
			assert_true(page_is(page, 1000 * round + i, TEXT));
		}
	}
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
}

/* ---- what goes wrong ---- */

static void flip(const char *path, off_t at)
{
	int fd = open(path, O_RDWR);
	unsigned char byte;

	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= 0x10;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	close(fd);
}

/* One byte that changed behind our back spoils its page and no other. */
static void test_flipped(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 64 * MIB, 0);
	int id = swap_add(pool, file, MIB, 0, MORSEL_SWAP_PLAIN_IO);
	unsigned char page[PAGE];
	unsigned bad = 0;

	(void)state;
	fill(1, 100, NOISE);
	assert_int_equal(swap_out(pool, 1, memory, 100), 0);
	flip(file, PAGE * 50 + 123);
	for (unsigned i = 0; i < 100; i++) {
		int rc = swap_in(pool, 1 + i, page);

		bad += rc == -EBADMSG;
		assert_true(rc == -EBADMSG || (!rc && page_is(page, 1 + i, NOISE)));
	}
	assert_int_equal(bad, 1);
	assert_int_equal(swap_info(pool, (unsigned)id).errors_content, 1);
	assert_int_equal(morsel_pool_close(pool), 0);
}

/* A file that became shorter, was replaced, or is gone: an error, and never other content. */
static void test_replaced(void **state)
{
	struct morsel_pool *pool, *other;
	unsigned char page[PAGE];
	char copy[160];
	int id;

	(void)state;
	pool = pool_create(pool_path("pool"), 64 * MIB, 0);
	id = swap_add(pool, file, MIB, 0, MORSEL_SWAP_PLAIN_IO);
	fill(1, 100, NOISE);
	assert_int_equal(swap_out(pool, 1, memory, 100), 0);
	assert_int_equal(truncate(file, 40 * PAGE), 0);
	for (unsigned i = 0; i < 100; i++) {
		int rc = swap_in(pool, 1 + i, page);

		assert_true(rc == -EIO || (!rc && page_is(page, 1 + i, NOISE)));
	}
	assert_true(swap_info(pool, (unsigned)id).errors_read >= 60);
	/* Who comes later opens it by its path. */
	snprintf(copy, sizeof(copy), "%s.old", file);
	assert_int_equal(rename(file, copy), 0);
	other = pool_open(pool_path("pool"), 0);
	assert_int_equal(swap_in(other, 1, page), -EIO);
	assert_int_equal(swap_info(other, (unsigned)id).state, MORSEL_SWAP_MISSING);
	fclose(fopen(file, "w"));
	assert_int_equal(truncate(file, MIB), 0);
	assert_int_equal(swap_in(other, 1, page), -EIO);
	fill(500, 1, NOISE);
	assert_int_equal(swap_out(other, 500, memory, 1), -EIO);
	assert_words("replaced");
	assert_int_equal(morsel_pool_close(other), 0);
	unlink(copy);
	assert_int_equal(morsel_pool_close(pool), 0);
	assert_int_equal(morsel_pool_destroy(pool_path("pool"), 1), 0);
}

/* A write that fails marks the target; the next one is used, and what is there stays readable. */
static void test_failing(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 64 * MIB, 0);
	int first = swap_add(pool, file, 2 * MIB, 5, MORSEL_SWAP_PLAIN_IO | MORSEL_SWAP_SPARSE);
	struct rlimit former, limit;
	char second[160];
	int next;

	(void)state;
	snprintf(second, sizeof(second), "%s.second", file);
	next = swap_add(pool, second, 2 * MIB, 1, MORSEL_SWAP_PLAIN_IO);
	assert_true(first >= 0 && next >= 0);
	fill(1, 10, NOISE);
	assert_int_equal(swap_out(pool, 1, memory, 10), 0);
	/* The kernel refuses writes beyond the limit. */
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &former), 0);
	limit = former;
	limit.rlim_cur = 20 * PAGE;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	fill(100, 5, NOISE);
	assert_int_equal(swap_out(pool, 100, memory, 5), 0);
	fill(200, 100, NOISE);
	assert_int_equal(swap_out(pool, 200, memory, 100), -EIO);
	assert_words("cannot be written");
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &former), 0);
	assert_int_equal(swap_info(pool, (unsigned)first).state, MORSEL_SWAP_FAILING);
	assert_int_equal(swap_info(pool, (unsigned)next).state, MORSEL_SWAP_FAILING);
	assert_int_equal(swap_out(pool, 200, memory, 100), 0);
	assert_there(pool, 1, 10, NOISE);
	assert_there(pool, 100, 5, NOISE);
	assert_there(pool, 200, 100, NOISE);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
	unlink(second);
}

static void test_remove(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 64 * MIB, 0);
	int id = swap_add(pool, NULL, 4 * MIB, 0, 0);
	unsigned char page[PAGE];

	(void)state;
	assert_int_equal(morsel_swap_remove(pool, 7, 0), -ENOENT);
	fill(1, 100, TEXT);
	assert_int_equal(swap_out(pool, 1, memory, 100), 0);
	assert_int_equal(morsel_swap_remove(pool, (unsigned)id, 0), -EBUSY);
	assert_words("100 pages");
	assert_int_equal(swap_info(pool, (unsigned)id).state, MORSEL_SWAP_EMPTYING);
	assert_int_equal(swap_out(pool, 500, memory, 1), -ENODEV);
	assert_there(pool, 1, 100, TEXT);
	assert_int_equal(morsel_swap_remove(pool, (unsigned)id, MORSEL_SWAP_KEEP), 0);
	assert_int_equal(swap_out(pool, 500, memory, 1), 0);
	/* What is lost is known to be lost, also when another target stands in its place. */
	assert_int_equal(morsel_swap_remove(pool, (unsigned)id, MORSEL_SWAP_LOSE), 0);
	assert_int_equal(swap_in(pool, 1, page), -EIO);
	assert_int_equal(swap_add(pool, NULL, 4 * MIB, 0, 0), id);
	assert_int_equal(swap_in(pool, 1, page), -EIO);
	swap_drop(pool, 1);
	fill(600, 100, TEXT);
	assert_int_equal(swap_out(pool, 600, memory, 100), 0);
	assert_there(pool, 600, 100, TEXT);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
}

static void test_bad_options(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 64 * MIB, 0);
	struct morsel_swap_opts opts = {.size = sizeof(opts), .path = file, .flags = 64};
	int fd;

	(void)state;
	assert_int_equal(morsel_swap_add(pool, &opts, NULL), -EINVAL);
	assert_int_equal(swap_add(pool, file, 0, 0, MORSEL_SWAP_PLAIN_IO), -EINVAL);
	assert_words("how large");
	assert_int_equal(swap_add(pool, "/no/such/folder/swap", MIB, 0, MORSEL_SWAP_PLAIN_IO),
			 -ENOENT);
	assert_int_equal(swap_add(pool, NULL, 100, 0, 0), -EINVAL);
	fd = open(file, O_CREAT | O_RDWR, 0600);
	assert_int_equal(write(fd, "precious", 8), 8);
	close(fd);
	assert_int_equal(swap_add(pool, file, MIB, 0, MORSEL_SWAP_PLAIN_IO), -EEXIST);
	assert_words("not empty");
	assert_int_equal(swap_add(pool, file, MIB, 0, MORSEL_SWAP_PLAIN_IO | MORSEL_SWAP_OVERWRITE),
			 0);
	assert_int_equal(swap_add(pool, file, MIB, 0, MORSEL_SWAP_PLAIN_IO | MORSEL_SWAP_OVERWRITE),
			 -EEXIST);
	assert_words("already");
	assert_int_equal(morsel_swap_remove(pool, 0, 0), 0);
	assert_int_equal(access(file, F_OK), 0); /* it was there before */
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(swap_add(pool, NULL, MIB, 0, 0), i);
	assert_int_equal(swap_add(pool, NULL, MIB, 0, 0), -ENOSPC);
	assert_words("16 swap targets");
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
}

/* ---- same-filled ---- */

/* A page that differs in one byte, wherever it is, is not same-filled. */
static void test_nearly_filled(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 64 * MIB, 0);
	int id = swap_add(pool, NULL, 4 * MIB, 0, 0);
	unsigned char page[PAGE];

	(void)state;
	for (unsigned i = 0; i < PAGE; i += i < 64 || i > PAGE - 64 ? 1 : 37) {
		memset(memory[0], 0x77, PAGE);
		memory[0][i] ^= 1;
		assert_int_equal(swap_out(pool, 9, memory, 1), 0);
		assert_int_equal(swap_info(pool, (unsigned)id).pages, 1);
		assert_int_equal(swap_in(pool, 9, page), 0);
		assert_memory_equal(page, memory[0], PAGE);
	}
	assert_int_equal(morsel_pool_close(pool), 0);
}

/* ---- death ---- */

static int child_saves(const char *pool_file)
{
	struct morsel_pool *pool = pool_open(pool_file, 0);

	for (unsigned round = 0; round < 4; round++) {
		for (unsigned i = 0; i < 300; i++)
			page_fill(memory[i], 100 + i, (enum content)((i + round) % 2));
		if (swap_out(pool, 100, memory, 300))
			return 1;
		for (unsigned i = 0; i < 300; i += 3)
			swap_drop(pool, 100 + i);
	}
	return morsel_pool_close(pool) ? 2 : 0;
}

/* Adds a target of each kind, and removes them. */
static int child_adds(const char *pool_file)
{
	struct morsel_pool *pool = pool_open(pool_file, 0);
	char path[160];
	int disk, packed;

	snprintf(path, sizeof(path), "%s.swap", pool_file);
	disk = swap_add(pool, path, MIB, 0, MORSEL_SWAP_PLAIN_IO);
	packed = swap_add(pool, NULL, MIB, 0, 0);
	if (disk < 0 || packed < 0)
		return 1;
	fill(10000, 100, TEXT);
	if (swap_out(pool, 10000, memory, 100))
		return 2;
	if (morsel_swap_remove(pool, (unsigned)disk, MORSEL_SWAP_LOSE) ||
	    morsel_swap_remove(pool, (unsigned)packed, MORSEL_SWAP_LOSE))
		return 3;
	for (unsigned i = 0; i < 100; i++)
		swap_drop(pool, 10000 + i);
	return morsel_pool_close(pool) ? 4 : 0;
}

/* Every page that is named has one of the contents that it ever had. */
static void assert_some_content(struct morsel_pool *pool)
{
	unsigned char page[PAGE];

	for (unsigned i = 0; i < 300; i++) {
		int rc = swap_in(pool, 100 + i, page);

		if (rc == -ENOENT)
			continue;
		assert_int_equal(rc, 0);
		assert_true(page_is(page, 100 + i, NOISE) || page_is(page, 100 + i, TEXT));
	}
}

static void die_at(const char *what, const char *place)
{
	char pool_file[128], path[160];
	struct morsel_pool *pool;
	int status, packed, disk;

	strcpy(pool_file, pool_path("pool"));
	pool = pool_create(pool_file, 64 * MIB, 0);
	packed = swap_add(pool, NULL, 8 * MIB, 2, 0);
	snprintf(path, sizeof(path), "%s.disk", pool_file);
	disk = swap_add(pool, path, 8 * MIB, 1, MORSEL_SWAP_PLAIN_IO);
	assert_true(packed >= 0 && disk >= 0);
	status = pool_wait(pool_spawn(what, pool_file, place));
	if (!WIFSIGNALED(status))
		fail_msg("%s: ended with status %#x", place, status);
	assert_true(morsel_pool_reap(pool) >= 0);
	assert_some_content(pool);
	assert_clean(pool);
	drop_all(pool);
	if (swap_info(pool, (unsigned)packed).pages || swap_info(pool, (unsigned)disk).pages)
		fail_msg("%s: slots are taken that no page names", place);
	assert_clean(pool);
	snprintf(path, sizeof(path), "%s.swap", pool_file);
	unlink(path);
	assert_exit_0(pool_spawn(what, pool_file, NULL));
	assert_clean(pool);
	assert_int_equal(morsel_swap_remove(pool, (unsigned)disk, MORSEL_SWAP_LOSE), 0);
	assert_int_equal(morsel_pool_close(pool), 0);
	assert_int_equal(morsel_pool_destroy(pool_file, 1), 0);
}

static void test_death(void **state)
{
	static const char *const saving[] = {
		"swap.slab.backed:1",	     "swap.slab.linked:2",	 "swap.slab.claimed:40",
		"swap.memory.stored:300",    "swap.slab.freed:70",	 "swap.slab.going:1",
		"swap.slab.unlinked:1",	     "swap.file.taken:77",	 "swap.file.written:1",
		"swap.file.freed:20",	     "swap.keep.taken_over:400", "swap.keep.set:450",
		"swap.forget.taken_over:50", "swap.forget.cleared:50",	 "pool.frames.putting:1",
		"swap.file.written:3"};
	static const char *const adding[] = {
		"swap.add.linked:1",	"swap.add.map:1",	   "swap.add.made:1",
		"swap.add.made:2",	"swap.remove.condemned:1", "swap.remove.unmade:1",
		"swap.remove.map:1",	"swap.remove.unlinked:1",  "swap.remove.condemned:2",
		"swap.slab.unlinked:1", "swap.remove.map:2",	   "swap.remove.unlinked:2"};

	(void)state;
	for (unsigned i = 0; i < mrs_array_length(saving); i++)
		die_at("saves", saving[i]);
	for (unsigned i = 0; i < mrs_array_length(adding); i++)
		die_at("adds", adding[i]);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_no_target, setup),
		cmocka_unit_test_setup(test_memory, setup),
		cmocka_unit_test_setup(test_file, setup),
		cmocka_unit_test_setup(test_file_in_flight, setup),
		cmocka_unit_test_setup(test_priorities, setup),
		cmocka_unit_test_setup(test_no_room, setup),
		cmocka_unit_test_setup(test_saved_anew, setup),
		cmocka_unit_test_setup(test_flipped, setup),
		cmocka_unit_test_setup(test_replaced, setup),
		cmocka_unit_test_setup(test_failing, setup),
		cmocka_unit_test_setup(test_remove, setup),
		cmocka_unit_test_setup(test_bad_options, setup),
		cmocka_unit_test_setup(test_nearly_filled, setup),
		cmocka_unit_test_setup(test_death, setup),
	};
	int failed;

	if (argc == 4 && !strcmp(argv[1], "--child")) {
		pool_double_attach();
		return !strcmp(argv[2], "saves") ? child_saves(argv[3]) : child_adds(argv[3]);
	}
	pool_folder_make("/dev/shm");
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	pool_folder_remove();
	return failed;
}
