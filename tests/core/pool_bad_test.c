/*
 * What bad input gets: a damaged, foreign, truncated or forbidden pool is refused with the reason
 * in words, and a full backing store answers -ENOSPC before anybody touches what is not there.
 */
#include "core/pool_support.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>

/* A small pool at path, closed again, and its descriptor. */
static int make_file(const char *name)
{
	int fd;

	assert_int_equal(morsel_pool_close(pool_create(pool_path(name), 2 * MIB, 66 * MIB)), 0);
	fd = open(pool_path(name), O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static void read_super(int fd, int which, struct mrs_super *super)
{
	assert_int_equal(pread(fd, super, 4096, which * 4096), 4096);
}

/* Writes it, with its checksum put right or left as it is. */
static void write_super(int fd, int which, struct mrs_super *super, bool right)
{
	if (right)
		super->crc = mrs_crc32c(0, super, offsetof(struct mrs_super, crc));
	assert_int_equal(pwrite(fd, super, 4096, which * 4096), 4096);
}

static void refused(const char *name, uint32_t flags, int code, const char *words)
{
	struct morsel_pool_opts opts = pool_opts(flags, 0, 0);
	struct morsel_pool *pool = NULL;
	int rc = morsel_pool_open(pool_path(name), &opts, &pool);

	if (rc != code)
		fail_msg("%s: %d instead of %d: %s", name, rc, code, morsel_errormsg());
	assert_null(pool);
	assert_words(words);
	assert_words(name);
}

static void accepted(const char *name, uint32_t flags)
{
	assert_int_equal(morsel_pool_close(pool_open(pool_path(name), flags)), 0);
}

/* ---- superblocks ---- */

#define DAMAGE(field, value, right, code, words)                \
	do {                                                    \
		for (int i_ = 0; i_ < 2; i_++) {                \
			read_super(fd, i_, &super);             \
			super.field = (value);                  \
			write_super(fd, i_, &super, right);     \
		}                                               \
		refused("super", 0, code, words);               \
		for (int i_ = 0; i_ < 2; i_++)                  \
			write_super(fd, i_, &whole[i_], false); \
	} while (0)

static void test_damaged_superblocks(void **state)
{
	int fd = make_file("super");
	struct mrs_super super, whole[2];

	read_super(fd, 0, &whole[0]);
	read_super(fd, 1, &whole[1]);
	DAMAGE(magic, 0, true, -EINVAL, "magic");
	DAMAGE(version, 2, true, -EPROTONOSUPPORT, "format version 2");
	DAMAGE(byte_order, 0x04030201, true, -EPROTONOSUPPORT, "byte order");
	DAMAGE(magic, __builtin_bswap64(MRS_FORMAT_MAGIC), true, -EPROTONOSUPPORT, "byte order");
	DAMAGE(feature_incompat, 1ull << 40, true, -EPROTONOSUPPORT, "0x10000000000");
	DAMAGE(feature_ro_compat, 1, true, -EPROTONOSUPPORT, "read-only");
	DAMAGE(frames_max, super.frames_max + 1, false, -EINVAL, "checksum");
	DAMAGE(frames_max, super.frames_max + 1, true, -EINVAL, "layout");
	DAMAGE(frames_max, 1ull << 50, true, -EINVAL, "layout");
	DAMAGE(frames_max, 0, true, -EINVAL, "layout");
	DAMAGE(frame_data, 3, true, -EINVAL, "layout");
	DAMAGE(frame_alloc, 0, true, -EINVAL, "layout");
	DAMAGE(alloc_bytes, 1, true, -EINVAL, "layout");
	DAMAGE(page_shift, 13, true, -EINVAL, "layout");
	DAMAGE(slots, 4096, true, -EINVAL, "layout");
	DAMAGE(segment_order, 60, true, -EINVAL, "layout");
	DAMAGE(extents, 0, true, -EINVAL, "0 extents");
	DAMAGE(extents, 1000000, true, -EINVAL, "1000000 extents");
	DAMAGE(extent[0].first, 512, true, -EINVAL, "extent 0");
	DAMAGE(extent[0].count, 1ull << 63, true, -EINVAL, "extent 0");
	DAMAGE(extent[0].count, 512, true, -EINVAL, "no room");
	DAMAGE(extent[0].count, super.extent[0].count + 512, true, -EINVAL, "truncated");
	DAMAGE(extent[0].file_offset, 4096, true, -EINVAL, "extent 0");
	DAMAGE(extent[0].file, 1, true, -EINVAL, "extent 0");
	accepted("super", 0);
	close(fd);
	(void)state;
}

static void test_features(void **state)
{
	int fd = make_file("features");
	struct mrs_super super;

	/* What is compatible may be ignored, what is read-only compatible may be read. */
	for (int i = 0; i < 2; i++) {
		read_super(fd, i, &super);
		super.feature_compat = ~0ull;
		write_super(fd, i, &super, true);
	}
	accepted("features", 0);
	for (int i = 0; i < 2; i++) {
		read_super(fd, i, &super);
		super.feature_ro_compat = 4;
		write_super(fd, i, &super, true);
	}
	refused("features", 0, -EPROTONOSUPPORT, "0x4");
	accepted("features", MORSEL_POOL_READ_ONLY);
	close(fd);
	(void)state;
}

static void test_one_superblock_is_enough(void **state)
{
	for (int i = 0; i < 2; i++) {
		char name[] = "one-0";
		struct mrs_super super;
		int fd;

		name[4] += i;
		fd = make_file(name);
		read_super(fd, i, &super);
		super.uuid[3] ^= 0xff;
		write_super(fd, i, &super, false);
		accepted(name, 0);
		memset(&super, 0, sizeof(super));
		write_super(fd, i, &super, false);
		accepted(name, 0);
		/* A right checksum over nonsense: the other copy does not make it a pool. */
		write_super(fd, i, &super, true);
		accepted(name, 0);
		close(fd);
	}
	(void)state;
}

/* Of two whole copies the newer counts, wherever it stands. */
static void test_newest_superblock_wins(void **state)
{
	for (int newer = 0; newer < 2; newer++) {
		char name[] = "newest-0";
		struct morsel_pool *pool;
		struct mrs_super super;
		int fd;

		name[7] += newer;
		fd = make_file(name);
		assert_int_equal(ftruncate(fd, 1 << 30), 0);
		read_super(fd, 0, &super);
		super.sequence = 100;
		write_super(fd, !newer, &super, true);
		super.sequence = 101;
		super.extent[0].count += 512;
		write_super(fd, newer, &super, true);
		pool = pool_open(pool_path(name), 0);
		assert_int_equal(pool_stat(pool).bytes, 4 * MIB);
		assert_int_equal(morsel_pool_close(pool), 0);
		close(fd);
	}
	(void)state;
}

/* ---- files ---- */

static void test_not_a_pool(void **state)
{
	char text[10000];
	int fd;

	memset(text, 'x', sizeof(text));
	fd = open(pool_path("text"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	refused("text", 0, -EINVAL, "not a pool: it has only 0 bytes");
	refused("text", MORSEL_POOL_CREATE, -EINVAL, "not a pool");
	assert_int_equal(write(fd, text, 4095), 4095);
	refused("text", 0, -EINVAL, "not a pool: it has only 4095 bytes");
	assert_int_equal(write(fd, text, sizeof(text)), sizeof(text));
	refused("text", 0, -EINVAL, "magic number is 0x7878787878787878");
	assert_int_equal(morsel_pool_destroy(pool_path("text"), 0), -EINVAL);
	assert_int_equal(morsel_pool_destroy(pool_path("text"), 1), -EINVAL);
	assert_int_equal(access(pool_path("text"), F_OK), 0);
	close(fd);
	assert_int_equal(mkdir(pool_path("folder"), 0700), 0);
	refused("folder", 0, -EISDIR, "folder");
	refused("folder", MORSEL_POOL_READ_ONLY, -EINVAL, "regular file");
	assert_int_equal(mkfifo(pool_path("fifo"), 0700), 0);
	refused("fifo", 0, -EINVAL, "regular file");
	refused("no/such", MORSEL_POOL_CREATE, -ENOENT, "no/such");
	(void)state;
}

static void test_truncated(void **state)
{
	int fd = make_file("short");
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(ftruncate(fd, st.st_size - 1), 0);
	refused("short", 0, -EINVAL, "truncated");
	refused("short", MORSEL_POOL_READ_ONLY, -EINVAL, "truncated");
	assert_int_equal(ftruncate(fd, 8192), 0);
	refused("short", 0, -EINVAL, "truncated: 8192 bytes");
	assert_int_equal(ftruncate(fd, 4096), 0);
	refused("short", 0, -EINVAL, "truncated: only 4096 bytes");
	/* Longer than it must be is no harm. */
	close(fd);
	fd = make_file("long");
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(ftruncate(fd, st.st_size + 12345), 0);
	accepted("long", 0);
	close(fd);
	(void)state;
}

static void test_damaged_allocator(void **state)
{
	int fd = make_file("alloc");
	uint64_t zero[8] = {0};

	assert_int_equal(pwrite(fd, zero, sizeof(zero), MRS_FRAME_ALLOC * 4096), sizeof(zero));
	refused("alloc", 0, -EINVAL, "allocator");
	refused("alloc", MORSEL_POOL_READ_ONLY, -EINVAL, "allocator");
	close(fd);
	(void)state;
}

/* ---- permission ---- */

static int open_as_nobody(void *ctx)
{
	struct morsel_pool_opts opts = pool_opts(0, 0, 0);
	struct morsel_pool *pool;

	(void)ctx;
	if (geteuid() == 0 && (setgid(65534) || setuid(65534)))
		return 10;
	if (morsel_pool_open(pool_path("locked"), &opts, &pool) != -EACCES)
		return 1;
	if (!strstr(morsel_errormsg(), "permission denied"))
		return 2;
	opts.flags = MORSEL_POOL_READ_ONLY;
	if (morsel_pool_open(pool_path("locked"), &opts, &pool) != -EACCES)
		return 3;
	/* What may be read may be read, and not be written. */
	if (morsel_pool_open(pool_path("readable"), &opts, &pool))
		return 4;
	if (morsel_pool_close(pool))
		return 5;
	opts.flags = 0;
	if (morsel_pool_open(pool_path("readable"), &opts, &pool) != -EACCES)
		return 6;
	if (!strstr(morsel_errormsg(), "MORSEL_POOL_READ_ONLY"))
		return 7;
	opts = pool_opts(MORSEL_POOL_CREATE, 2 * MIB, 2 * MIB);
	if (morsel_pool_open(pool_path("sub/new"), &opts, &pool) != -EACCES)
		return 8;
	return 0;
}

static void test_permission(void **state)
{
	int fd = make_file("locked");

	close(fd);
	assert_int_equal(chmod(pool_path("locked"), geteuid() ? 0 : 0600), 0);
	close(make_file("readable"));
	assert_int_equal(chmod(pool_path("readable"), geteuid() ? 0444 : 0644), 0);
	assert_int_equal(mkdir(pool_path("sub"), 0500), 0);
	assert_exit_0(pool_fork(open_as_nobody, NULL));
	chmod(pool_path("sub"), 0700);
	(void)state;
}

/* ---- a full backing store ---- */

static bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool written = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return written;
}

/* Runs fn with pool_folder on a tmpfs of its own of this size; 77 if that is not permitted. */
static int on_small_tmpfs(const char *size, int (*fn)(void))
{
	char options[64], uid_map[64], gid_map[64];
	bool root = geteuid() == 0;

	snprintf(uid_map, sizeof(uid_map), "0 %u 1", geteuid());
	snprintf(gid_map, sizeof(gid_map), "0 %u 1", getegid());
	if (unshare(root ? CLONE_NEWNS : CLONE_NEWUSER | CLONE_NEWNS))
		return 77;
	if (!root && !(write_file("/proc/self/setgroups", "deny") &&
		       write_file("/proc/self/uid_map", uid_map) &&
		       write_file("/proc/self/gid_map", gid_map)))
		return 77;
	snprintf(options, sizeof(options), "size=%s", size);
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("tmpfs", pool_folder, "tmpfs", 0, options))
		return 77;
	return fn();
}

static int full_at_create(void)
{
	struct morsel_pool_opts opts = pool_opts(MORSEL_POOL_CREATE, 8 * MIB, 8 * MIB);
	struct morsel_pool *pool;

	if (morsel_pool_open(pool_path("full"), &opts, &pool) != -ENOSPC) {
		fprintf(stderr, "%s\n", morsel_errormsg());
		return 1;
	}
	if (!strstr(morsel_errormsg(), "no space for") || !strstr(morsel_errormsg(), "full"))
		return 2;
	return access(pool_path("full"), F_OK) == 0 ? 3 : 0;
}

/* Fills a tmpfs of 8 MiB: with the pool's own pages up to the last, then from outside. */
static int full_later(void)
{
	struct morsel_pool_opts opts = pool_opts(MORSEL_POOL_CREATE, 64 * MIB, 64 * MIB);
	struct morsel_pool *pool, *other[64];
	unsigned attached = 0, backed = 0;
	struct mrs_txn txn;
	uint64_t frame;
	int rc, filler;

	if (morsel_pool_open(pool_path("full"), &opts, &pool)) {
		fprintf(stderr, "%s\n", morsel_errormsg());
		return 1;
	}
	if (mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn) ||
	    mrs_txn_get(&txn, 13, MRS_FRAME_HUGE, 0, &frame))
		return 2;
	pool_double_link(0, frame, 13);
	mrs_txn_settle(&txn);
	if (mrs_pool_back(&txn, frame, 8192, MRS_BACK_HUGE, NULL) != -ENOSPC)
		return 3;
	if (!strstr(morsel_errormsg(), "is full") || !strstr(morsel_errormsg(), "bytes) free") ||
	    !strstr(morsel_errormsg(), pool_path("full")) ||
	    !strstr(morsel_errormsg(), "--shm-size"))
		return 4;
	while (!(rc = mrs_pool_back(&txn, frame + backed, 64, 0, NULL)))
		backed += 64;
	if (rc != -ENOSPC || backed < 256)
		return 5;
	memset(mrs_pool_at(pool, frame, backed), 1, backed * 4096ull);
	filler = open(pool_path("filler"), O_RDWR | O_CREAT, 0600);
	for (off_t at = 0; !fallocate(filler, 0, at, 4096); at += 4096)
		;
	if (mrs_pool_back(&txn, frame + backed, 1, 0, NULL) != -ENOSPC)
		return 6;
	mrs_txn_end(&txn);
	/* An attachment needs a page for its slot: an answer, not a signal. */
	opts.flags = 0;
	while (attached < 64 &&
	       !(rc = morsel_pool_open(pool_path("full"), &opts, &other[attached])))
		attached++;
	if (rc != -ENOSPC || !strstr(morsel_errormsg(), "slot"))
		return 7;
	/* Looking, checking and giving back go on working. */
	if (morsel_pool_check(pool, pool_print_finding, NULL))
		return 8;
	mrs_pool_unback(pool, frame, backed);
	if (morsel_pool_open(pool_path("full"), &opts, &other[attached]))
		return 9;
	return 0;
}

static const char *small_size;

static int in_small_tmpfs(void *fn)
{
	return on_small_tmpfs(small_size, *(int (**)(void))fn);
}

static void run_small(const char *size, int (*fn)(void))
{
	int status;

	small_size = size;
	status = pool_wait(pool_fork(in_small_tmpfs, &fn));
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
		fprintf(stderr, "skipped: this user may not mount a tmpfs in a namespace\n");
		skip();
	}
	assert_int_equal(status, 0);
}

static void test_full_at_create(void **state)
{
	/* From nothing to nearly enough: each size is full at another place. */
	run_small("4k", full_at_create);
	run_small("16k", full_at_create);
	run_small("64k", full_at_create);
	run_small("128k", full_at_create);
	(void)state;
}

static void test_full_later(void **state)
{
	run_small("8m", full_later);
	(void)state;
}

/* ---- names and limits ---- */

/* Its name is taken, and there is no file behind it to open. */
static void test_dangling_link(void **state)
{
	assert_int_equal(symlink("nothing-here", pool_path("dangling")), 0);
	refused("dangling", MORSEL_POOL_CREATE, -ENOENT, "symbolic link");
	refused("dangling", 0, -ENOENT, "no pool");
	assert_int_equal(unlink(pool_path("dangling")), 0);
	(void)state;
}

/* In a child: beyond the limit the kernel would kill with SIGXFSZ. */
static int grow_past_limit(void *arg)
{
	struct rlimit limit = {32 * MIB, 32 * MIB};
	struct morsel_pool *pool = pool_open(pool_path("limit"), 0);

	if (setrlimit(RLIMIT_FSIZE, &limit))
		return 1;
	if (morsel_pool_grow(pool, 64 * MIB, 0) != -EFBIG || !strstr(morsel_errormsg(), "ulimit"))
		return 2;
	return morsel_pool_close(pool) ? 3 : 0;
}

static void test_file_size_limit(void **state)
{
	close(make_file("limit"));
	assert_int_equal(pool_wait(pool_fork(grow_past_limit, NULL)), 0);
	accepted("limit", 0);
	(void)state;
}

/* ---- protocol ---- */

static void test_second_library(void **state)
{
	struct morsel_pool *pool = pool_create(pool_path("library"), 2 * MIB, 2 * MIB);
	struct mrs_state *shared = mrs_pool_state(pool);

	/* As if the one that is attached were another library. */
	mrs_store_release32(&shared->protocol, 7);
	mrs_store_release32(&mrs_pool_slot(pool, mrs_pool_own_slot(pool))->library,
			    9 << 16 | 8 << 8);
	refused("library", 0, -EBUSY, "libmorsel 9.8.0 (protocol 7)");
	assert_words("this is libmorsel " MORSEL_VERSION_STRING " (protocol 2)");
	assert_int_equal(shared->protocol, 7);
	assert_int_equal(pool_stat(pool).slots_used, 1);
	accepted("library", MORSEL_POOL_READ_ONLY);
	/* When it has gone, the next one's protocol counts. */
	assert_int_equal(morsel_pool_close(pool), 0);
	pool = pool_open(pool_path("library"), 0);
	assert_int_equal(mrs_pool_state(pool)->protocol, MRS_PROTOCOL_VERSION);
	assert_int_equal(morsel_pool_close(pool), 0);
	(void)state;
}

/* ---- hostile words that no opener refuses ---- */

static void test_hostile_state(void **state)
{
	int fd = make_file("hostile");
	uint64_t word[512];
	struct morsel_pool *pool;

	memset(word, 0xff, sizeof(word));
	assert_int_equal(pwrite(fd, word, 4096, MRS_FRAME_SLOTWORD * 4096), 4096);
	pool = pool_open(pool_path("hostile"), 0);
	morsel_pool_check(pool, NULL, NULL);
	assert_int_equal(morsel_pool_close(pool), 0);
	for (unsigned i = 0; i < 512; i++)
		word[i] = MRS_SLOT_ATTACHED;
	assert_int_equal(pwrite(fd, word, 4096, MRS_FRAME_SLOTWORD * 4096), 4096);
	memset(word, 0xff, sizeof(word));
	for (unsigned i = 0; i < MRS_SLOTS; i++)
		assert_int_equal(pwrite(fd, word, 4096, (MRS_FRAME_SLOTS + i) * 4096), 4096);
	assert_int_equal(pwrite(fd, word, 60, MRS_FRAME_STATE * 4096 + 4), 60);
	pool = pool_open(pool_path("hostile"), MORSEL_POOL_READ_ONLY);
	assert_true(morsel_pool_check(pool, NULL, NULL) > 0);
	assert_int_equal(morsel_pool_close(pool), 0);
	pool = pool_open(pool_path("hostile"), 0); /* the gate is closed by nobody */
	assert_int_equal(mrs_pool_state(pool)->gate, 0);
	morsel_pool_check(pool, NULL, NULL);
	assert_int_equal(morsel_pool_close(pool), 0);
	close(fd);
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
		cmocka_unit_test(test_damaged_superblocks),
		cmocka_unit_test(test_features),
		cmocka_unit_test(test_one_superblock_is_enough),
		cmocka_unit_test(test_newest_superblock_wins),
		cmocka_unit_test(test_not_a_pool),
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_damaged_allocator),
		cmocka_unit_test(test_permission),
		cmocka_unit_test(test_full_at_create),
		cmocka_unit_test(test_full_later),
		cmocka_unit_test(test_dangling_link),
		cmocka_unit_test(test_file_size_limit),
		cmocka_unit_test(test_second_library),
		cmocka_unit_test(test_hostile_state),
	};
	int failed;

	pool_folder_make("/dev/shm");
	failed = cmocka_run_group_tests(tests, setup, NULL);
	pool_folder_remove();
	return failed;
}
