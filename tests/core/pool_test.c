/*
 * Pools of one process: geometry, creating and opening, growing, budget, memory, statistics.
 */
#include "core/pool_support.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <time.h>

/* ---- create and open ---- */

static void test_defaults(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 0, 64 * GIB);
	struct morsel_pool_stat stat = pool_stat(pool);

	assert_int_equal(stat.kind, MORSEL_POOL_MEMFD);
	assert_int_equal(stat.bytes, GIB);
	assert_int_equal(stat.bytes_max, 64 * GIB);
	assert_int_equal(stat.bytes_free, GIB);
	assert_int_equal(stat.bytes_huge_free, GIB);
	assert_int_equal(stat.bytes_budget, 0);
	assert_int_equal(stat.extents, 1);
	assert_int_equal(stat.slots, MRS_SLOTS);
	assert_int_equal(stat.slots_used, 1);
	assert_in_range(stat.bytes_resident, 1, 8 * MIB);
	assert_true(fcntl(morsel_pool_fd(pool), F_GET_SEALS) & F_SEAL_SHRINK);
	assert_true(fcntl(morsel_pool_fd(pool), F_GETFD) & FD_CLOEXEC);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
	assert_int_equal(morsel_pool_close(NULL), 0);
	(void)state;
}

static void test_sizes(void **state)
{
	static const uint64_t sizes[] = {1,	   4096,     2 * MIB, 2 * MIB + 1, 63 * MIB,
					 64 * MIB, 65 * MIB, GIB + 1, 5 * GIB};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct morsel_pool *pool = pool_create(NULL, sizes[i], 8 * GIB);
		uint64_t data = pool->super.frame_data, bytes = pool_stat(pool).bytes;
		struct mrs_txn txn;
		uint64_t frame, count = 0;

		assert_int_equal(bytes, mrs_round_up(sizes[i], MRS_HUGE_BYTES));
		assert_int_equal(data % MORSEL_FRAMES_HUGE, 0);
		/* The allocator's metadata: 0.02 % of the number space and 2 MiB, at most. */
		assert_in_range(pool->super.alloc_bytes, 1, 8 * GIB / 5000 + 2 * MIB);
		/* All of it can be had, in huge frames. */
		assert_int_equal(mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn), 0);
		while (!mrs_txn_get(&txn, 9, MRS_FRAME_HUGE, 0, &frame)) {
			assert_in_range(frame, data, data + (bytes >> 12) - 512);
			mrs_txn_settle(&txn);
			count++;
		}
		assert_words("no free run of 2.00 MiB");
		mrs_txn_end(&txn);
		assert_int_equal(count, bytes / MRS_HUGE_BYTES);
		assert_int_equal(morsel_pool_close(pool), 0);
	}
	(void)state;
}

static void test_by_path(void **state)
{
	struct morsel_pool_opts excl =
		pool_opts(MORSEL_POOL_CREATE | MORSEL_POOL_EXCL, 8 * MIB, 8 * MIB);
	struct morsel_pool *a, *b;
	struct stat st;
	char path[128];

	strcpy(path, pool_path("by-path"));
	excl.mode = 0640;
	assert_int_equal(morsel_pool_open(path, NULL, &a), -ENOENT);
	assert_words(path);
	assert_int_equal(morsel_pool_open(path, &excl, &a), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(pool_stat(a).kind, MORSEL_POOL_TMPFS);
	assert_int_equal(morsel_pool_open(path, &excl, &b), -EEXIST);
	b = pool_create(path, 99 * MIB, 99 * MIB); /* it exists: its own size counts */
	assert_int_equal(pool_stat(b).bytes, 8 * MIB);
	assert_memory_equal(pool_stat(a).uuid, pool_stat(b).uuid, 16);
	assert_int_equal(pool_stat(b).slots_used, 2);
	assert_int_equal(morsel_pool_destroy(path, 0), -EBUSY);
	assert_words("attached");
	assert_int_equal(morsel_pool_close(b), 0);
	assert_int_equal(morsel_pool_close(a), 0);
	assert_int_equal(morsel_pool_destroy(path, 0), 0);
	assert_int_equal(morsel_pool_destroy(path, 0), -ENOENT);
	(void)state;
}

static void test_destroy_by_force(void **state)
{
	struct morsel_pool *pool;
	char path[128];

	strcpy(path, pool_path("force"));
	pool = pool_create(path, 8 * MIB, 8 * MIB);
	assert_int_equal(morsel_pool_destroy(path, 1), 0);
	assert_int_equal(access(path, F_OK), -1);
	assert_clean(pool); /* it lives on for who has it */
	assert_int_equal(morsel_pool_close(pool), 0);
	/* Force removes a damaged pool, but nothing that never was one. */
	close(open(path, O_CREAT | O_RDWR, 0600));
	assert_int_equal(morsel_pool_destroy(path, 1), -EINVAL);
	assert_int_equal(unlink(path), 0);
	(void)state;
}

static void test_options(void **state)
{
	struct morsel_pool_opts opts = pool_opts(MORSEL_POOL_CREATE, 0, 0);
	struct morsel_pool *pool = NULL;

	opts.kind = MORSEL_POOL_HUGETLB;
	assert_int_equal(morsel_pool_open(pool_path("kind"), &opts, &pool), -EINVAL);
	assert_words("of kind tmpfs, not hugetlbfs");
	assert_int_equal(access(pool_path("kind"), F_OK), -1);
	assert_int_equal(morsel_pool_open(NULL, &opts, &pool), -EINVAL);
	opts.kind = MORSEL_POOL_MEMFD;
	assert_int_equal(morsel_pool_open(pool_path("kind"), &opts, &pool), -EINVAL);
	opts.kind = 77;
	assert_int_equal(morsel_pool_open(NULL, &opts, &pool), -EINVAL);
	opts = pool_opts(1u << 30, 0, 0);
	assert_int_equal(morsel_pool_open(NULL, &opts, &pool), -EINVAL);
	opts = pool_opts(0, 0, 0);
	assert_int_equal(morsel_pool_open(NULL, &opts, &pool), -EINVAL);
	opts = pool_opts(MORSEL_POOL_CREATE | MORSEL_POOL_READ_ONLY, 0, 0);
	assert_int_equal(morsel_pool_open(NULL, &opts, &pool), -EINVAL);
	opts = pool_opts(MORSEL_POOL_CREATE, 2 * GIB, GIB);
	assert_int_equal(morsel_pool_open(NULL, &opts, &pool), -EINVAL);
	assert_words("bytes_max");
	opts = pool_opts(MORSEL_POOL_CREATE, 0, UINT64_MAX);
	assert_int_equal(morsel_pool_open(NULL, &opts, &pool), -EINVAL);
	assert_words("at most");
	opts = pool_opts(MORSEL_POOL_CREATE, UINT64_MAX, 0);
	assert_int_equal(morsel_pool_open(NULL, &opts, &pool), -EINVAL);
	opts = pool_opts(MORSEL_POOL_CREATE, 8 * MIB, 8 * MIB);
	opts.node_plus_1 = 999;
	assert_int_equal(morsel_pool_open(NULL, &opts, &pool), -EINVAL);
	assert_words("NUMA node 998 does not exist");
	opts.node_plus_1 = 100000;
	assert_int_equal(morsel_pool_open(NULL, &opts, &pool), -EINVAL);
	assert_null(pool);
	assert_int_equal(morsel_pool_open_fd(-1, NULL, &pool), -EBADF);
	(void)state;
}

static void test_read_only(void **state)
{
	struct morsel_pool *pool, *reader;
	struct mrs_txn txn;
	char path[128];

	strcpy(path, pool_path("reader"));
	pool = pool_create(path, 8 * MIB, 64 * MIB + 8 * MIB);
	reader = pool_open(path, MORSEL_POOL_READ_ONLY);
	assert_int_equal(pool_stat(reader).slots_used, 1);
	assert_true(mrs_pool_is_read_only(reader));
	assert_int_equal(mrs_txn_begin(reader, MRS_INTENT_OTHER, &txn), -EROFS);
	assert_int_equal(morsel_pool_grow(reader, 64 * MIB, 0), -EROFS);
	assert_int_equal(morsel_pool_set_budget(reader, MIB), -EROFS);
	assert_int_equal(morsel_pool_reap(reader), -EROFS);
	assert_true(mrs_pool_slot_is_alive(reader, mrs_pool_own_slot(pool)));
	assert_clean(reader);
	/* A reader sees what grows. */
	assert_int_equal(morsel_pool_grow(pool, 64 * MIB, 0), 0);
	assert_int_equal(pool_stat(reader).bytes, 72 * MIB);
	assert_int_equal(morsel_pool_close(pool), 0);
	assert_int_equal(morsel_pool_destroy(path, 0), 0); /* a reader does not hold it */
	assert_int_equal(morsel_pool_close(reader), 0);
	(void)state;
}

/* ThreadSanitizer leaves an address space of little more than 1 TiB: two handles must fit. */
#ifdef __SANITIZE_THREAD__
#define SPARSE (256 * GIB)
#else
#define SPARSE (1024 * GIB)
#endif

static void test_sparse_1tib(void **state)
{
	struct timespec t[3];
	struct morsel_pool *pool, *other;
	double create_ms, attach_ms;

	clock_gettime(CLOCK_MONOTONIC, &t[0]);
	pool = pool_create(NULL, SPARSE, SPARSE);
	clock_gettime(CLOCK_MONOTONIC, &t[1]);
	other = pool_open_fd(morsel_pool_fd(pool), 0);
	clock_gettime(CLOCK_MONOTONIC, &t[2]);
	create_ms = (t[1].tv_sec - t[0].tv_sec) * 1e3 + (t[1].tv_nsec - t[0].tv_nsec) / 1e6;
	attach_ms = (t[2].tv_sec - t[1].tv_sec) * 1e3 + (t[2].tv_nsec - t[1].tv_nsec) / 1e6;
	printf("1 TiB sparse: create %.2f ms, attach %.2f ms\n", create_ms, attach_ms);
	assert_in_range(pool_stat(pool).bytes_resident, 1, 16 * MIB);
	assert_int_equal(pool_stat(pool).bytes_free, SPARSE);
	assert_int_equal(morsel_pool_close(other), 0);
	assert_int_equal(morsel_pool_close(pool), 0);
	(void)state;
}

/* More than one step of allocator metadata: 64 GiB come online at a time. */
static void test_comes_online_in_steps(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 200 * GIB, 256 * GIB);
	uint64_t frame, count = 0, before = mrs_pool_state(pool)->online_end;
	struct mrs_txn txn;

	assert_int_equal(before, MRS_ONLINE_STEP);
	assert_int_equal(mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn), 0);
	while (!mrs_txn_get(&txn, 18, MRS_FRAME_HUGE, 0, &frame)) {
		assert_int_equal(frame % (1u << 18), 0);
		mrs_txn_settle(&txn);
		count++;
	}
	/* The first GiB holds the metadata, the last is cut off by it. */
	assert_int_equal(count, 199);
	assert_int_equal(mrs_txn_get_at(&txn, 9, mrs_pool_frames_end(pool) - 512), 0);
	mrs_txn_settle(&txn);
	mrs_txn_end(&txn);
	assert_int_equal(mrs_pool_state(pool)->online_end, mrs_pool_frames_end(pool));
	assert_int_equal(pool_stat(pool).bytes_free, GIB - MRS_HUGE_BYTES);
	assert_int_equal(morsel_pool_close(pool), 0);
	(void)state;
}

/* ---- growing ---- */

static void test_grow(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 2 * MIB, 2 * MIB + 256 * MIB);
	struct morsel_pool *other = pool_open_fd(morsel_pool_fd(pool), 0);
	uint64_t end = mrs_pool_frames_end(pool), frame;
	struct mrs_txn txn;

	assert_int_equal(morsel_pool_grow(pool, 0, 0), -EINVAL);
	assert_int_equal(morsel_pool_grow(pool, 2 * MIB, 0), -EINVAL);
	assert_words("64 MiB");
	assert_null(mrs_pool_at(other, end, 1));
	assert_int_equal(morsel_pool_grow(pool, 128 * MIB, 0), 0);
	assert_non_null(mrs_pool_at(other, end, 128 * MIB >> 12));
	assert_null(mrs_pool_at(other, end, (128 * MIB >> 12) + 1));
	assert_int_equal(pool_stat(other).bytes, 130 * MIB);
	assert_int_equal(pool_stat(other).extents, 2);
	assert_int_equal(morsel_pool_grow(other, 128 * MIB, 0), 0);
	assert_int_equal(morsel_pool_grow(pool, 64 * MIB, 0), -ENOSPC);
	assert_words("bytes_max");
	assert_int_equal(pool_stat(pool).bytes, 258 * MIB);
	/* What came by growing can be had. */
	assert_int_equal(mrs_txn_begin(other, MRS_INTENT_OTHER, &txn), 0);
	for (unsigned i = 0; i < 129; i++) {
		assert_int_equal(mrs_txn_get(&txn, 9, MRS_FRAME_HUGE, 0, &frame), 0);
		pool_double_link(i, frame, 9);
		mrs_txn_settle(&txn);
	}
	assert_int_equal(mrs_txn_get(&txn, 0, MRS_FRAME_MOVABLE, 0, &frame), -ENOSPC);
	assert_words("is full");
	mrs_txn_end(&txn);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(other), 0);
	assert_int_equal(morsel_pool_close(pool), 0);
	pool_double_reset();
	(void)state;
}

/* The 60 records of extents do not limit how often a pool grows. */
static void test_grow_often(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 2 * MIB, 70 * 64 * MIB);

	for (int i = 0; i < 65; i++)
		assert_int_equal(morsel_pool_grow(pool, 64 * MIB, 0), 0);
	assert_int_equal(pool_stat(pool).bytes, 2 * MIB + 65 * 64 * MIB);
	assert_int_equal(pool_stat(pool).extents, MRS_EXTENTS_MAX);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
	(void)state;
}

/* ---- frames and memory ---- */

static uint64_t get_linked(struct mrs_txn *txn, unsigned order, unsigned at)
{
	uint64_t frame;

	assert_int_equal(mrs_txn_get(txn, order, MRS_FRAME_MOVABLE, 0, &frame), 0);
	pool_double_link(at, frame, order);
	mrs_txn_settle(txn);
	return frame;
}

static void test_frames_read_zero(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 8 * MIB, 8 * MIB);
	struct mrs_txn txn;
	uint64_t frame, before;

	assert_int_equal(mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn), 0);
	frame = get_linked(&txn, 3, 0);
	before = mrs_pool_resident(pool);
	assert_int_equal(mrs_pool_back(&txn, frame, 8, 0, NULL), 0);
	assert_int_equal(mrs_pool_resident(pool), before + 8);
	memset(mrs_pool_at(pool, frame, 8), 0x5a, 8 * 4096);
	/* Reserving what is there changes nothing. */
	assert_int_equal(mrs_pool_back(&txn, frame, 8, MRS_BACK_HUGE, NULL), 0);
	assert_int_equal(*(unsigned char *)mrs_pool_at(pool, frame + 7, 1), 0x5a);
	mrs_pool_unback(pool, frame, 8);
	assert_int_equal(mrs_pool_resident(pool), before);
	assert_int_equal(mrs_pool_back(&txn, frame, 8, 0, NULL), 0);
	for (unsigned i = 0; i < 8 * 4096; i++)
		assert_int_equal(((unsigned char *)mrs_pool_at(pool, frame, 8))[i], 0);
	mrs_pool_unback(pool, frame, 8);
	mrs_txn_put_begin(&txn, 3, frame);
	pool_double_unlink(0);
	mrs_txn_put_end(&txn);
	assert_int_equal(mrs_pool_back(&txn, 0, 1, 0, NULL), -EINVAL);
	assert_int_equal(mrs_pool_back(&txn, mrs_pool_frames_end(pool), 1, 0, NULL), -EINVAL);
	assert_int_equal(mrs_pool_back(&txn, UINT64_MAX, 2, 0, NULL), -EINVAL);
	mrs_txn_end(&txn);
	assert_clean(pool);
	assert_int_equal(pool_stat(pool).bytes_free, 8 * MIB);
	assert_int_equal(morsel_pool_close(pool), 0);
	(void)state;
}

static void test_get_at_and_tables(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 8 * MIB, 8 * MIB);
	uint64_t data = pool->super.frame_data, table;
	struct mrs_txn txn;

	assert_int_equal(mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn), 0);
	assert_int_equal(mrs_txn_get_at(&txn, 9, data + 512), 0);
	pool_double_link(0, data + 512, 9);
	mrs_txn_settle(&txn);
	assert_int_equal(mrs_txn_get_at(&txn, 0, data + 600), -EBUSY);
	assert_int_equal(mrs_txn_get_at(&txn, 0, 3), -EINVAL);
	assert_int_equal(mrs_txn_get_at(&txn, 0, mrs_pool_frames_end(pool)), -EINVAL);
	assert_int_equal(mrs_txn_get_table(&txn, &table), 0);
	pool_double_link(1, table, 0);
	mrs_txn_settle(&txn);
	assert_int_equal(*(uint64_t *)mrs_pool_at(pool, table, 1), 0);
	mrs_txn_end(&txn);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
	pool_double_reset();
	(void)state;
}

/* The check finds what it is for: the three ways in which ownership can be wrong. */
static void test_check_finds(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 8 * MIB, 8 * MIB);
	struct mrs_txn txn;
	uint64_t frame;

	assert_int_equal(mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn), 0);
	frame = get_linked(&txn, 0, 0);
	mrs_txn_end(&txn);
	assert_clean(pool);
	pool_double_link(1, frame, 0);
	assert_int_equal(morsel_pool_check(pool, NULL, NULL), 1); /* twice */
	pool_double_unlink(1);
	pool_double_unlink(0);
	assert_int_equal(morsel_pool_check(pool, NULL, NULL), 1); /* by nobody */
	pool_double_link(0, frame, 0);
	pool_double_link(1, frame + 100, 0);
	assert_int_equal(morsel_pool_check(pool, NULL, NULL), 1); /* free */
	pool_double_link(1, mrs_pool_frames_end(pool), 0);
	assert_int_equal(morsel_pool_check(pool, NULL, NULL), 1); /* beyond */
	pool_double_reset();
	pool->map[100] ^= 1; /* in the first superblock, under its checksum */
	assert_int_equal(morsel_pool_check(pool, NULL, NULL), 2);
	assert_int_equal(morsel_pool_close(pool), 0);
	(void)state;
}

static void test_huge(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 32 * MIB, 32 * MIB);
	struct morsel_pool_opts opts =
		pool_opts(MORSEL_POOL_CREATE | MORSEL_POOL_NO_HUGE, 8 * MIB, 8 * MIB);
	uint64_t frame, huge = 0, before;
	struct mrs_txn txn;

	assert_int_equal(mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn), 0);
	frame = get_linked(&txn, 10, 0);
	before = mrs_pool_resident(pool);
	assert_int_equal(mrs_pool_back(&txn, frame, 1024, MRS_BACK_HUGE, &huge), 0);
	assert_int_equal(mrs_pool_resident(pool), before + 1024);
	assert_true(huge % 512 == 0);
	printf("huge frames: %llu of 1024\n", (unsigned long long)huge);
	for (unsigned i = 0; i < 1024 * 512; i++)
		if (((uint64_t *)mrs_pool_at(pool, frame, 1024))[i])
			fail_msg("word %u is not zero", i);
	mrs_pool_unback(pool, frame, 1024);
	assert_int_equal(mrs_pool_resident(pool), before);
	/* Content survives being made huge. */
	assert_int_equal(mrs_pool_back(&txn, frame, 1024, 0, NULL), 0);
	for (unsigned i = 0; i < 1024; i++)
		*(uint64_t *)mrs_pool_at(pool, frame + i, 1) = i;
	if (huge)
		assert_int_equal(mrs_pool_make_huge(pool, frame, 1024, &huge), 0);
	for (unsigned i = 0; i < 1024; i++)
		assert_int_equal(*(uint64_t *)mrs_pool_at(pool, frame + i, 1), i);
	mrs_txn_end(&txn);
	assert_int_equal(morsel_pool_close(pool), 0);
	pool_double_reset();
	assert_int_equal(morsel_pool_open(NULL, &opts, &pool), 0);
	assert_int_equal(mrs_pool_make_huge(pool, pool->super.frame_data, 512, &huge), -EOPNOTSUPP);
	assert_words("MORSEL_POOL_NO_HUGE");
	assert_int_equal(mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn), 0);
	frame = get_linked(&txn, 9, 0);
	assert_int_equal(mrs_pool_back(&txn, frame, 512, MRS_BACK_HUGE, &huge), 0);
	assert_int_equal(huge, 0);
	mrs_txn_end(&txn);
	assert_int_equal(morsel_pool_close(pool), 0);
	pool_double_reset();
	(void)state;
}

static void test_budget(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 64 * MIB, 64 * MIB);
	uint64_t frame, resident = mrs_pool_resident(pool) * 4096;
	struct mrs_txn txn;

	assert_int_equal(morsel_pool_set_budget(pool, resident - 4096), -EBUSY);
	assert_int_equal(pool_stat(pool).bytes_budget, 0);
	assert_int_equal(morsel_pool_set_budget(pool, 1), -EINVAL);
	assert_int_equal(morsel_pool_set_budget(pool, resident + 4 * MIB), 0);
	assert_int_equal(pool_stat(pool).bytes_budget, resident + 4 * MIB);
	assert_int_equal(mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn), 0);
	frame = get_linked(&txn, 12, 0);
	assert_int_equal(mrs_pool_back(&txn, frame, 1025, 0, NULL), -ENOSPC);
	assert_words("budget");
	assert_int_equal(mrs_pool_resident(pool) * 4096, resident);
	assert_int_equal(mrs_pool_back(&txn, frame, 1024, 0, NULL), 0);
	memset(mrs_pool_at(pool, frame, 1024), 1, 1024 * 4096);
	assert_int_equal(mrs_pool_back(&txn, frame + 1024, 1, 0, NULL), -ENOSPC);
	/* What is resident already needs no budget. */
	assert_int_equal(mrs_pool_back(&txn, frame, 1024, 0, NULL), 0);
	assert_int_equal(mrs_pool_back(&txn, frame, 1025, 0, NULL), -ENOSPC);
	assert_int_equal(morsel_pool_set_budget(pool, 0), 0);
	assert_int_equal(mrs_pool_back(&txn, frame, 1025, 0, NULL), 0);
	mrs_txn_end(&txn);
	assert_int_equal(mrs_pool_slot(pool, mrs_pool_own_slot(pool))->reserving, 0);
	assert_int_equal(morsel_pool_close(pool), 0);
	pool_double_reset();
	(void)state;
}

/* What another process is reserving counts, though nothing of it is resident yet. */
static void test_budget_counts_what_others_reserve(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 64 * MIB, 64 * MIB);
	struct morsel_pool *other = pool_open_fd(morsel_pool_fd(pool), 0);
	uint64_t *reserving = &mrs_pool_slot(pool, mrs_pool_own_slot(other))->reserving, frame;
	uint64_t resident = mrs_pool_resident(pool);
	struct mrs_txn txn;

	assert_int_equal(morsel_pool_set_budget(pool, (resident + 1000) * 4096), 0);
	assert_int_equal(mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn), 0);
	frame = get_linked(&txn, 10, 0);
	mrs_store_release(reserving, 900);
	assert_int_equal(mrs_pool_back(&txn, frame, 101, 0, NULL), -ENOSPC);
	assert_int_equal(mrs_pool_resident(pool), resident);
	assert_int_equal(mrs_pool_back(&txn, frame, 100, 0, NULL), 0);
	mrs_store_release(reserving, 0);
	assert_int_equal(mrs_pool_back(&txn, frame + 100, 900, 0, NULL), 0);
	mrs_txn_end(&txn);
	assert_int_equal(morsel_pool_close(other), 0);
	assert_int_equal(morsel_pool_close(pool), 0);
	pool_double_reset();
	(void)state;
}

/* Less than a page would be none at all, which means no limit. */
static void test_budget_below_a_page(void **state)
{
	struct morsel_pool_opts opts = pool_opts(MORSEL_POOL_CREATE, 2 * MIB, 2 * MIB);
	struct morsel_pool *pool;

	opts.budget_bytes = 4095;
	assert_int_equal(morsel_pool_open(NULL, &opts, &pool), -EINVAL);
	assert_words("budget");
	(void)state;
}

static void *reserved_soon(void *reserving)
{
	usleep(100000);
	mrs_fetch_sub(reserving, 900);
	return NULL;
}

/* What another thread is reserving is in the file and in the slot for a moment: that passes. */
static void test_budget_waits_for_own_threads(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 64 * MIB, 64 * MIB);
	uint64_t *reserving = &mrs_pool_slot(pool, mrs_pool_own_slot(pool))->reserving, frame;
	struct mrs_txn txn;
	pthread_t thread;

	assert_int_equal(morsel_pool_set_budget(pool, (mrs_pool_resident(pool) + 1000) * 4096), 0);
	assert_int_equal(mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn), 0);
	frame = get_linked(&txn, 8, 0);
	mrs_fetch_add(reserving, 900);
	assert_int_equal(pthread_create(&thread, NULL, reserved_soon, reserving), 0);
	assert_int_equal(mrs_pool_back(&txn, frame, 101, 0, NULL), 0);
	pthread_join(thread, NULL);
	assert_int_equal(mrs_load_relaxed(reserving), 0);
	mrs_txn_end(&txn);
	assert_int_equal(morsel_pool_close(pool), 0);
	pool_double_reset();
	(void)state;
}

static void test_close_refuses(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 8 * MIB, 8 * MIB);

	mrs_pool_hold(pool);
	assert_int_equal(morsel_pool_close(pool), -EBUSY);
	assert_words("1 open morsels or views");
	mrs_pool_drop(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
	(void)state;
}

/* A change writes the older copy, so each growth flips between them, and either one will do. */
static void test_superblocks_alternate(void **state)
{
	struct morsel_pool *pool = pool_create(NULL, 2 * MIB, 2 * MIB + 256 * MIB), *other;
	struct mrs_super *copy = (struct mrs_super *)pool->map, saved[2];
	uint64_t newest;

	assert_int_equal(copy[0].sequence + copy[1].sequence, 1 + 2);
	for (unsigned i = 0; i < 4; i++) {
		memcpy(saved, copy, sizeof(saved));
		newest = saved[1].sequence > saved[0].sequence;
		assert_int_equal(morsel_pool_grow(pool, 64 * MIB, 0), 0);
		assert_memory_equal(&saved[newest], &copy[newest], sizeof(saved[0]));
		assert_int_equal(copy[!newest].sequence, saved[newest].sequence + 1);
	}
	other = pool_open_fd(morsel_pool_fd(pool), 0);
	assert_int_equal(pool_stat(other).bytes, 258 * MIB);
	assert_int_equal(morsel_pool_close(other), 0);
	/* The newest is damaged: the one before is used, and the check says so. */
	newest = copy[1].sequence > copy[0].sequence;
	copy[newest].kind ^= 1;
	other = pool_open_fd(morsel_pool_fd(pool), MORSEL_POOL_READ_ONLY);
	assert_int_equal(pool_stat(other).bytes, 258 * MIB - 64 * MIB);
	assert_true(morsel_pool_check(other, NULL, NULL) >= 1);
	assert_int_equal(morsel_pool_close(other), 0);
	/* Who may write mends it. */
	other = pool_open_fd(morsel_pool_fd(pool), 0);
	assert_int_equal(copy[newest].crc,
			 mrs_crc32c(0, &copy[newest], offsetof(struct mrs_super, crc)));
	assert_int_equal(pool_stat(other).bytes, 258 * MIB - 64 * MIB);
	assert_int_equal(morsel_pool_close(other), 0);
	assert_int_equal(morsel_pool_close(pool), 0);
	(void)state;
}

/* In a mount namespace of its own; 77 where there is no hugetlbfs or no page for it. */
static int on_hugetlb(void *ctx)
{
	struct morsel_pool_opts opts = pool_opts(MORSEL_POOL_CREATE, 8 * MIB, 72 * MIB);
	struct morsel_pool *pool, *other;
	struct mrs_txn txn;
	uint64_t small, large, huge = 0;

	(void)ctx;
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("hugetlbfs", pool_folder, "hugetlbfs", 0, "pagesize=2M"))
		return 77;
	opts.kind = MORSEL_POOL_HUGETLB;
	if (morsel_pool_open(pool_path("pool"), &opts, &pool))
		return strstr(morsel_errormsg(), "no space") ? 77 : 1;
	if (mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn))
		return 2;
	small = get_linked(&txn, 0, 0);
	large = get_linked(&txn, 9, 1);
	if (mrs_pool_back(&txn, small, 1, 0, NULL) ||
	    mrs_pool_back(&txn, large, 512, MRS_BACK_HUGE, &huge) || huge != 512)
		return strstr(morsel_errormsg(), "vm.nr_hugepages") ? 77 : 3;
	memset(mrs_pool_at(pool, small, 1), 1, 4096);
	memset(mrs_pool_at(pool, large, 512), 2, 2 * MIB);
	/* Part of a block cannot be given back, but reads as zero; a whole one is gone. */
	huge = mrs_pool_resident(pool);
	mrs_pool_unback(pool, small, 1);
	if (*(unsigned char *)mrs_pool_at(pool, small, 1) || mrs_pool_resident(pool) != huge)
		return 4;
	mrs_pool_unback(pool, large, 512);
	if (mrs_pool_resident(pool) != huge - 512)
		return 5;
	mrs_txn_end(&txn);
	if (morsel_pool_open(pool_path("pool"), NULL, &other) ||
	    morsel_pool_check(other, pool_print_finding, NULL))
		return 6;
	return morsel_pool_close(other) || morsel_pool_close(pool) ||
	       morsel_pool_destroy(pool_path("pool"), 0);
}

static void test_hugetlb(void **state)
{
	int status = pool_wait(pool_fork(on_hugetlb, NULL));

	pool_double_reset();
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
		fprintf(stderr, "skipped: no hugetlbfs can be mounted, or vm.nr_hugepages is 0\n");
		skip();
	}
	assert_int_equal(status, 0);
	(void)state;
}

static int setup(void **state)
{
	(void)state;
	pool_double_reset();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_by_path),
		cmocka_unit_test(test_destroy_by_force),
		cmocka_unit_test(test_options),
		cmocka_unit_test(test_read_only),
		cmocka_unit_test(test_sparse_1tib),
		cmocka_unit_test(test_comes_online_in_steps),
		cmocka_unit_test(test_grow),
		cmocka_unit_test(test_grow_often),
		cmocka_unit_test(test_frames_read_zero),
		cmocka_unit_test(test_get_at_and_tables),
		cmocka_unit_test(test_check_finds),
		cmocka_unit_test(test_huge),
		cmocka_unit_test(test_budget),
		cmocka_unit_test(test_budget_counts_what_others_reserve),
		cmocka_unit_test(test_budget_waits_for_own_threads),
		cmocka_unit_test(test_budget_below_a_page),
		cmocka_unit_test(test_close_refuses),
		cmocka_unit_test(test_superblocks_alternate),
		cmocka_unit_test(test_hugetlb),
	};
	int failed;

	pool_folder_make("/dev/shm");
	failed = cmocka_run_group_tests(tests, setup, NULL);
	pool_folder_remove();
	return failed;
}
