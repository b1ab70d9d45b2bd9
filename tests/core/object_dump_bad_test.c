/*
 * Dumps that are not well: every byte of a small file flipped in turn, files cut short, of other
 * kinds and later versions, written for harm; dumps that cannot be written; and the order in which
 * one comes to be. fsync() and rename() of the library go through this file.
 */
#include "core/object_support.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <morsel/dump.h>

#include "object/dump_format.h"

/* ---- what the library asks of the file system ---- */

static char calls[256]; /* "fsync rename fsync " */
static int fail_fsync;	/* the n-th is to fail, 0 none */

static void note(const char *call)
{
	size_t used = strlen(calls);

	snprintf(calls + used, sizeof(calls) - used, "%s ", call);
}

int fsync(int fd)
{
	struct stat st;

	note(!fstat(fd, &st) && S_ISDIR(st.st_mode) ? "sync-directory" : "sync-file");
	if (fail_fsync && !--fail_fsync) {
		errno = EIO;
		return -1;
	}
	return 0;
}

int rename(const char *from, const char *to)
{
	int (*real)(const char *, const char *) =
		(int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");

	note("rename");
	return real(from, to);
}

/* ---- a small dump ---- */

static char path[160], base_path[170], other_path[170];

static void name_files(void)
{
	const char *directory = getenv("TMPDIR");

	snprintf(path, sizeof(path), "%.100s/morsel-bad-%d", directory ? directory : "/tmp",
		 (int)getpid());
	snprintf(base_path, sizeof(base_path), "%s.base", path);
	snprintf(other_path, sizeof(other_path), "%s.other", path);
}

static unsigned char *load(const char *file, size_t *bytes)
{
	struct stat st;
	unsigned char *data;
	int fd = open(file, O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	data = malloc((size_t)st.st_size + 1);
	assert_non_null(data);
	assert_int_equal(read(fd, data, (size_t)st.st_size), st.st_size);
	close(fd);
	*bytes = (size_t)st.st_size;
	return data;
}

static void store(const char *file, const void *data, size_t bytes)
{
	int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, bytes), bytes);
	close(fd);
}

static void write_words(struct morsel *morsel, uint64_t page, uint64_t seed)
{
	struct morsel_map_opts opts = {.size = sizeof(opts), .offset = page * 4096, .bytes = 4096};
	struct morsel_grant grant;
	struct morsel_view *view;

	assert_ok(morsel_map(morsel, &opts, &view));
	assert_ok(morsel_acquire(view, 0, 4096, MORSEL_READ | MORSEL_WRITE, &grant));
	for (unsigned i = 0; i < 512; i++)
		((uint64_t *)grant.addr)[i] = object_word(seed, i);
	morsel_release(&grant);
	morsel_view_destroy(view);
}

/* A model of some tensors, so that every table of the format is there. */
static struct morsel *small_model(struct morsel_pool *pool)
{
	static const char header[] =
		"{\"b\":{\"dtype\":\"F32\",\"shape\":[2,5],\"data_offsets\":[0,40]}}";
	unsigned char file[8 + sizeof(header) - 1 + 40] = {0};
	uint64_t bytes = sizeof(header) - 1;
	struct morsel *morsel;

	memcpy(file, &bytes, 8);
	memcpy(file + 8, header, bytes);
	memset(file + 8 + bytes, 0x5a, 40);
	store(other_path, file, sizeof(file));
	assert_ok(morsel_import(pool, "m", other_path, NULL, &morsel));
	unlink(other_path);
	return morsel;
}

/* ---- every byte ---- */

static bool same_content(struct morsel *a, struct morsel *b)
{
	uint64_t bytes = mrs_morsel_bytes(a);
	unsigned char *x = malloc(bytes + 1), *y = malloc(bytes + 1);
	bool same = mrs_morsel_bytes(b) == bytes;

	assert_non_null(x);
	assert_non_null(y);
	if (same) {
		assert_ok(mrs_content_read(a, 0, x, bytes));
		assert_ok(mrs_content_read(b, 0, y, bytes));
		same = !memcmp(x, y, bytes);
	}
	free(x);
	free(y);
	return same;
}

static bool same_meta(struct morsel *a, struct morsel *b)
{
	struct morsel_info x = object_info(a), y = object_info(b);

	return x.bytes == y.bytes && x.flags == y.flags && x.pages == y.pages &&
	       x.sealed == y.sealed && x.format == y.format && x.tensors == y.tensors &&
	       x.bytes_allocated == y.bytes_allocated;
}

/* One flipped file: refused in words, or it makes the very same morsel. */
static void try_flipped(struct morsel_pool *pool, struct morsel *morsel, size_t at)
{
	struct morsel *copy;
	int rc = morsel_restore(pool, "copy", path, NULL, &copy);

	if (rc) {
		assert_true(rc == -EINVAL || rc == -EBADMSG || rc == -EPROTONOSUPPORT);
		assert_true(*morsel_errormsg());
		assert_false(object_exists(pool, "copy"));
		return;
	}
	if (!same_content(morsel, copy) || !same_meta(morsel, copy))
		fail_msg("byte %zu flipped: restored, and not the same", at);
	assert_ok(morsel_close(copy));
	assert_ok(morsel_unlink(pool, "copy"));
}

static void flip_all(struct morsel_pool *pool, struct morsel *morsel)
{
	uint64_t free_before;
	size_t bytes;
	unsigned char *data = load(path, &bytes);
	int fd = open(path, O_WRONLY);

	assert_true(fd >= 0);
	/* What the first one takes for good: a segment of cells. */
	try_flipped(pool, morsel, bytes);
	free_before = object_free_bytes(pool);
	for (size_t at = 0; at < bytes; at++) {
		unsigned char flipped = data[at] ^ (unsigned char)(1u << at % 8);

		assert_int_equal(pwrite(fd, &flipped, 1, (off_t)at), 1);
		try_flipped(pool, morsel, at);
		assert_int_equal(pwrite(fd, &data[at], 1, (off_t)at), 1);
	}
	close(fd);
	free(data);
	assert_int_equal(object_free_bytes(pool), free_before);
}

static void test_every_byte(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = small_model(pool);

	assert_ok(morsel_dump(morsel, path, NULL, NULL));
	flip_all(pool, morsel);
	assert_ok(morsel_close(morsel));
	unlink(path);
	object_pool_end(pool);
}

/* The same of an incremental dump; and of its base, whose content is under the other's checksum. */
static void test_every_byte_of_a_chain(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = object_create(pool, "m", 70 * KIB, MORSEL_LAZY, MORSEL_PAGES_4K);
	struct morsel_dump_opts opts = {.size = sizeof(opts), .base = base_path};

	write_words(morsel, 2, 1);
	write_words(morsel, 16, 2);
	assert_ok(morsel_dump(morsel, base_path, NULL, NULL));
	write_words(morsel, 16, 3);
	assert_ok(morsel_dump(morsel, path, &opts, NULL));
	flip_all(pool, morsel);
	assert_ok(morsel_close(morsel));
	unlink(path);
	unlink(base_path);
	object_pool_end(pool);
}

static void test_damaged_base(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = object_create(pool, "m", 64 * KIB, 0, MORSEL_PAGES_4K), *copy;
	struct morsel_dump_opts opts = {.size = sizeof(opts), .base = base_path};
	unsigned char *data;
	size_t bytes;

	write_words(morsel, 2, 1);
	assert_ok(morsel_dump(morsel, base_path, NULL, NULL));
	assert_ok(morsel_dump(morsel, path, &opts, NULL));
	data = load(base_path, &bytes);
	data[4096 + 2 * 4096 + 77] ^= 4;
	store(base_path, data, bytes);
	assert_fails(morsel_restore(pool, "c", path, NULL, &copy), -EBADMSG, base_path);
	/* A dump on it does not take over what is damaged. */
	assert_ok(morsel_dump(morsel, path, &opts, NULL));
	assert_ok(morsel_restore(pool, "c", path, NULL, &copy));
	assert_true(same_content(morsel, copy));
	free(data);
	assert_ok(morsel_close(copy));
	assert_ok(morsel_close(morsel));
	unlink(path);
	unlink(base_path);
	object_pool_end(pool);
}

/* ---- other files ---- */

static void right_checksum(unsigned char *data)
{
	struct mrs_dump_header *head = (struct mrs_dump_header *)data;

	head->crc = mrs_crc32c(0, head, offsetof(struct mrs_dump_header, crc));
}

static void refused(struct morsel_pool *pool, const void *data, size_t bytes, int rc,
		    const char *words)
{
	struct morsel_dump_info info = {.size = sizeof(info)};
	struct morsel *copy;

	store(path, data, bytes);
	assert_fails(morsel_restore(pool, "c", path, NULL, &copy), rc, words);
	assert_fails(morsel_dump_look(path, &info), rc, words);
}

static void test_foreign(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = small_model(pool), *copy;
	struct mrs_dump_header *head;
	unsigned char *data, text[5000] = "#!/bin/sh\n";
	size_t bytes;

	assert_ok(morsel_dump(morsel, path, NULL, NULL));
	data = load(path, &bytes);
	head = (struct mrs_dump_header *)data;
	refused(pool, text, sizeof(text), -EINVAL, "not a dump");
	refused(pool, text, 0, -EINVAL, "not a dump");
	for (size_t cut = 1; cut < bytes; cut += 500)
		refused(pool, data, bytes - cut, -EINVAL,
			bytes - cut < 4096 ? "not a dump" : "cut short");
	data = realloc(data, bytes + 10);
	head = (struct mrs_dump_header *)data;
	memset(data + bytes, 0, 10);
	refused(pool, data, bytes + 10, -EINVAL, "something longer");
	head->version = 2;
	refused(pool, data, bytes, -EBADMSG, "header is damaged");
	right_checksum(data);
	refused(pool, data, bytes, -EPROTONOSUPPORT, "version 2");
	head->version = 1;
	head->byte_order = 0x04030201;
	right_checksum(data);
	refused(pool, data, bytes, -EPROTONOSUPPORT, "byte order");
	assert_fails(morsel_restore(pool, "c", "/", NULL, &copy), -EINVAL, "regular file");
	assert_fails(morsel_restore(pool, "c", "/none/x", NULL, &copy), -ENOENT, "/none/x");
	assert_fails(morsel_restore(pool, "a/b", path, NULL, &copy), -EINVAL, "name");
	free(data);
	assert_ok(morsel_close(morsel));
	unlink(path);
	object_pool_end(pool);
}

/* ---- descriptions that lie, with right checksums ---- */

static struct mrs_dump_chunk *chunks_of(unsigned char *data)
{
	struct mrs_dump_header *head = (struct mrs_dump_header *)data;

	return (struct mrs_dump_chunk *)(data + head->section[MRS_DUMP_CHUNKS].offset);
}

static struct mrs_dump_run *runs_of(unsigned char *data)
{
	struct mrs_dump_header *head = (struct mrs_dump_header *)data;

	return (struct mrs_dump_run *)(data + head->section[MRS_DUMP_RUNS].offset);
}

#define LIES 24

static bool lie(unsigned char *data, unsigned n)
{
	struct mrs_dump_header *head = (struct mrs_dump_header *)data;
	struct mrs_dump_chunk *chunk = chunks_of(data);
	struct mrs_dump_run *run = runs_of(data);

	switch (n) {
	case 0:
		chunk->place = 1ull << 40;
		break;
	case 1:
		chunk->place = 0;
		break;
	case 2:
		chunk->pages = 17;
		break;
	case 3:
		chunk->page = 1;
		break;
	case 4:
		chunk->place |= 3ull << 56;
		break;
	case 5:
		chunk->place = 2ull << 56;
		break;
	case 6:
		run->pages = 1ull << 50;
		break;
	case 7:
		run->order = 5;
		break;
	case 8:
		run->order = 63;
		break;
	case 9:
		run->page = 1ull << 60;
		break;
	case 10:
		run->pages = 0;
		break;
	case 11:
		head->section[MRS_DUMP_CHUNKS].bytes -= 24;
		break;
	case 12:
		head->section[MRS_DUMP_CHUNKS].bytes += 24;
		break;
	case 13:
		head->section[MRS_DUMP_CHUNKS].offset = 1ull << 50;
		break;
	case 14:
		head->section[MRS_DUMP_CHUNKS].bytes = ~0ull - 15;
		break;
	case 15:
		head->bytes = 1ull << 63;
		break;
	case 16:
		head->count++;
		break;
	case 17:
		head->kind = 7;
		break;
	case 18:
		head->base_kind = 1;
		break;
	case 19:
		head->pages = 9;
		break;
	case 20:
		head->data_end = 1ull << 60;
		break;
	case 21:
		memset(head->name, 'x', sizeof(head->name));
		break;
	case 22:
		head->tensors = 5;
		break;
	case 23:
		chunk->pages = 0;
		break;
	default:
		return false;
	}
	for (int i = 0; i < MRS_DUMP_SECTIONS; i++) {
		struct mrs_dump_place *at = &head->section[i];

		if (at->offset < head->file_bytes && at->bytes < head->file_bytes && at->bytes)
			at->crc = mrs_crc32c(0, data + at->offset, mrs_round_up(at->bytes, 4096));
	}
	right_checksum(data);
	return true;
}

static void test_lies(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel =
		object_create(pool, "m", 64 * KIB, MORSEL_SCATTERED, MORSEL_PAGES_4K);
	unsigned char *data;
	size_t bytes;

	write_words(morsel, 0, 1);
	assert_ok(morsel_dump(morsel, other_path, NULL, NULL));
	for (unsigned n = 0; n < LIES; n++) {
		struct morsel *copy;
		int rc;

		data = load(other_path, &bytes);
		assert_true(lie(data, n));
		store(path, data, bytes);
		rc = morsel_restore(pool, "c", path, NULL, &copy);
		if (rc != -EINVAL)
			fail_msg("lie %u: %d (%s)", n, rc, morsel_errormsg());
		free(data);
	}
	assert_ok(morsel_close(morsel));
	unlink(path);
	unlink(other_path);
	object_pool_end(pool);
}

/* ---- writing ---- */

static bool is_there(const char *file)
{
	return !access(file, F_OK);
}

static void test_order(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = object_create(pool, "m", 64 * KIB, 0, MORSEL_PAGES_4K);

	calls[0] = 0;
	assert_ok(morsel_dump(morsel, path, NULL, NULL));
	assert_string_equal(calls, "sync-file rename sync-directory ");
	/* What was there stays if the new one cannot be forced to disk. */
	unlink(path);
	store(path, "old", 3);
	calls[0] = 0;
	fail_fsync = 1;
	assert_fails(morsel_dump(morsel, path, NULL, NULL), -EIO, "force");
	assert_string_equal(calls, "sync-file ");
	assert_true(is_there(path));
	fail_fsync = 2;
	assert_fails(morsel_dump(morsel, path, NULL, NULL), -EIO, "directory");
	fail_fsync = 0;
	assert_ok(morsel_close(morsel));
	unlink(path);
	object_pool_end(pool);
}

static int cancel(void *ctx, uint64_t done, uint64_t total)
{
	assert_true(done <= total);
	return ++*(int *)ctx > 1;
}

static void test_cancelled(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = object_create(pool, "m", 9 * MIB, 0, MORSEL_PAGES_4K), *copy;
	int asked = 0;
	struct morsel_dump_opts opts = {
		.size = sizeof(opts), .in_flight = 1, .progress = cancel, .progress_ctx = &asked};
	struct morsel_restore_opts back = {
		.size = sizeof(back), .in_flight = 1, .progress = cancel, .progress_ctx = &asked};

	assert_fails(morsel_dump(morsel, path, &opts, NULL), -ECANCELED, "cancelled");
	assert_false(is_there(path));
	assert_ok(morsel_dump(morsel, path, NULL, NULL));
	asked = 0;
	assert_fails(morsel_restore(pool, "c", path, &back, &copy), -ECANCELED, "cancelled");
	assert_false(object_exists(pool, "c"));
	assert_ok(morsel_close(morsel));
	unlink(path);
	object_pool_end(pool);
}

static void test_options(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = object_create(pool, "m", 64 * KIB, 0, MORSEL_PAGES_4K), *copy;
	struct morsel_dump_opts opts = {.size = sizeof(opts), .flags = 1};
	struct morsel_restore_opts back = {.size = sizeof(back), .flags = MORSEL_CREATE};
	struct morsel_dump_info info = {0};

	assert_fails(morsel_dump(morsel, path, &opts, NULL), -EINVAL, "flags");
	opts = (struct morsel_dump_opts){.size = sizeof(opts), .in_flight = 65};
	assert_fails(morsel_dump(morsel, path, &opts, NULL), -EINVAL, "in flight");
	opts = (struct morsel_dump_opts){.size = sizeof(opts), .base = path, .bytes = 4};
	assert_fails(morsel_dump(morsel, path, &opts, NULL), -EINVAL, "not both");
	opts = (struct morsel_dump_opts){.size = sizeof(opts), .base = path, .snapshot = morsel};
	assert_fails(morsel_dump(morsel, path, &opts, NULL), -EINVAL, "not on both");
	opts = (struct morsel_dump_opts){.size = sizeof(opts), .snapshot = morsel};
	assert_fails(morsel_dump(morsel, path, &opts, NULL), -EINVAL, "no other morsel");
	assert_fails(morsel_dump(morsel, path, NULL, &info), -EINVAL, "size");
	assert_fails(morsel_dump(morsel, "/none/x", NULL, NULL), -ENOENT, "/none/x");
	assert_ok(morsel_dump(morsel, path, NULL, NULL));
	assert_fails(morsel_dump_look(path, &info), -EINVAL, "size");
	assert_fails(morsel_restore(pool, "c", path, &back, &copy), -EINVAL, "flags");
	back = (struct morsel_restore_opts){.size = sizeof(back), .offset = 64 * KIB, .bytes = 1};
	assert_fails(morsel_restore(pool, "c", path, &back, &copy), -EINVAL, "not inside");
	assert_fails(morsel_restore_range(morsel, path, NULL), -EINVAL, "not lazy");
	assert_ok(morsel_resize(morsel, 5));
	assert_fails(morsel_restore_range(morsel, path, NULL), -EINVAL, "another morsel");
	assert_ok(morsel_close(morsel));
	unlink(path);
	object_pool_end(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_byte),   cmocka_unit_test(test_every_byte_of_a_chain),
		cmocka_unit_test(test_damaged_base), cmocka_unit_test(test_foreign),
		cmocka_unit_test(test_lies),	     cmocka_unit_test(test_order),
		cmocka_unit_test(test_cancelled),    cmocka_unit_test(test_options),
	};

	name_files();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
