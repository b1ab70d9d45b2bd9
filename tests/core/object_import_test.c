/*
 * Import, export and tensors, with files made here; the formats themselves are the model room's
 * tests.
 */
#include "core/object_support.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t file_bytes(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return (uint64_t)st.st_size;
}

static void assert_same_files(const char *a, const char *b)
{
	uint64_t bytes = file_bytes(a);
	char *x = malloc(bytes + 1), *y = malloc(bytes + 1);
	FILE *fa = fopen(a, "r"), *fb = fopen(b, "r");

	assert_int_equal(file_bytes(b), bytes);
	assert_non_null(fa);
	assert_non_null(fb);
	assert_int_equal(fread(x, 1, bytes, fa), bytes);
	assert_int_equal(fread(y, 1, bytes, fb), bytes);
	assert_memory_equal(x, y, bytes);
	fclose(fa);
	fclose(fb);
	free(x);
	free(y);
}

static void import_bytes(uint64_t bytes, uint32_t flags, uint32_t pages)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel_opts opts = {.size = sizeof(opts), .flags = flags, .pages = pages};
	const char *file = object_file("bytes", bytes, bytes);
	struct morsel_tensor tensor;
	struct morsel *morsel;
	char out[160];

	snprintf(out, sizeof(out), "%s.out", file);
	assert_ok(morsel_import(pool, "f", file, &opts, &morsel));
	assert_int_equal(object_info(morsel).bytes, bytes);
	assert_int_equal(object_info(morsel).format, MORSEL_FORMAT_BYTES);
	assert_int_equal(object_differs(morsel, bytes, 0, bytes), UINT64_MAX);
	assert_fails(morsel_tensor_at(morsel, 0, &tensor), -EOPNOTSUPP, "tensor table");
	assert_fails(morsel_tensor(morsel, "x", &tensor), -EOPNOTSUPP, "tensor table");
	assert_ok(morsel_export(morsel, out, NULL));
	assert_same_files(file, out);
	assert_ok(morsel_export(morsel, out, NULL));
	assert_same_files(file, out);
	unlink(out);
	unlink(file);
	morsel_close(morsel);
	object_pool_end(pool);
}

static void test_bytes(void **state)
{
	import_bytes(0, 0, 0);
	import_bytes(1, 0, 0);
	import_bytes(4096, 0, 0);
	import_bytes(9 * MIB + 13, 0, 0);
	import_bytes(9 * MIB + 13, MORSEL_SCATTERED, 0);
	import_bytes(MIB + 13, MORSEL_SCATTERED, MORSEL_PAGES_4K);
	import_bytes(5 * MIB + 13, 0, MORSEL_PAGES_2M);
}

static void test_existing_is_opened(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *first = object_create(pool, "f", 100, 0, 0), *morsel;
	struct morsel_opts opts = {.size = sizeof(opts)};

	assert_ok(morsel_import(pool, "f", "/nonexistent", NULL, &morsel));
	assert_int_equal(object_info(morsel).id, object_info(first).id);
	opts.flags = MORSEL_EXCL;
	assert_fails(morsel_import(pool, "f", "/nonexistent", &opts, &morsel), -EEXIST, "taken");
	morsel_close(first);
	morsel_close(morsel);
	object_pool_end(pool);
}

static int cancel(void *ctx, uint64_t done, uint64_t total)
{
	assert_true(done <= total);
	return ++*(int *)ctx == 2;
}

static int change_file(void *ctx, uint64_t done, uint64_t total)
{
	int fd = open(ctx, O_WRONLY | O_APPEND);

	assert_int_equal(write(fd, "x", 1), 1);
	close(fd);
	return 0;
}

static int cut_file(void *ctx, uint64_t done, uint64_t total)
{
	assert_int_equal(truncate(ctx, 100), 0);
	return 0;
}

static void test_refusals(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	uint64_t free_bytes = object_free_bytes(pool);
	const char *file = object_file("refused", 1, 20 * MIB);
	struct morsel_opts opts = {.size = sizeof(opts)};
	struct morsel *morsel = NULL;
	int calls = 0;

	assert_fails(morsel_import(pool, "f", "/nonexistent", NULL, &morsel), -ENOENT, "/nonex");
	assert_fails(morsel_import(pool, "f", "/tmp", NULL, &morsel), -EINVAL, "regular");
	assert_fails(morsel_import(pool, "f", "/dev/zero", NULL, &morsel), -EINVAL, "regular");
	assert_fails(morsel_import(pool, "f/g", file, NULL, &morsel), -EINVAL, "/");
	assert_fails(morsel_import(pool, NULL, file, NULL, &morsel), -EINVAL, "empty");
	/* A size of 0, and content: the kernel makes it up. */
	assert_fails(morsel_import(pool, "f", "/proc/self/status", NULL, &morsel), -EIO, "size");
	opts.tensor_align = 3;
	assert_fails(morsel_import(pool, "f", file, &opts, &morsel), -EINVAL, "power of two");
	opts.tensor_align = 4 * MIB;
	assert_fails(morsel_import(pool, "f", file, &opts, &morsel), -EINVAL, "power of two");
	opts.tensor_align = 0;
	opts.flags = MORSEL_LAZY;
	assert_fails(morsel_import(pool, "f", file, &opts, &morsel), -EINVAL, "LAZY");
	opts.flags = 0;
	opts.progress = cancel;
	opts.progress_ctx = &calls;
	assert_fails(morsel_import(pool, "f", file, &opts, &morsel), -ECANCELED, "cancelled");
	opts.progress = change_file;
	opts.progress_ctx = (void *)file;
	assert_fails(morsel_import(pool, "f", file, &opts, &morsel), -EIO, "changed");
	opts.progress = cut_file;
	assert_fails(morsel_import(pool, "f", file, &opts, &morsel), -EIO, "ended at byte");
	assert_int_equal(truncate(file, (off_t)(70 * MIB)), 0);
	assert_fails(morsel_import(pool, "f", file, NULL, &morsel), -ENOSPC, "number space");
	assert_null(morsel);
	assert_false(object_exists(pool, "f"));
	assert_true(object_free_bytes(pool) + 256 * KIB >= free_bytes);
	unlink(file);
	object_pool_end(pool);
}

static void test_export_refusals(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = object_create(pool, "m", 20 * MIB, MORSEL_LAZY, 0);
	struct morsel_opts opts = {.size = sizeof(opts)};
	const char *file = object_file("export", 1, 10);
	int calls = 0;

	assert_int_equal(morsel_export(morsel, "/nonexistent/x", NULL), -ENOENT);
	opts.progress = cancel;
	opts.progress_ctx = &calls;
	assert_fails(morsel_export(morsel, file, &opts), -ECANCELED, "cancelled");
	/* The old file is as it was. */
	assert_int_equal(file_bytes(file), 10);
	assert_ok(morsel_export(morsel, file, NULL));
	assert_int_equal(file_bytes(file), 20 * MIB);
	unlink(file);
	morsel_close(morsel);
	object_pool_end(pool);
}

/* ---- tensors: a safetensors file of three ---- */

static const char *tensor_file(void)
{
	static const char header[] =
		"{\"__metadata__\":{\"made\":\"here\"},"
		"\"b\":{\"dtype\":\"F32\",\"shape\":[2,5],\"data_offsets\":[0,"
		"40]},"
		"\"a\":{\"dtype\":\"U8\",\"shape\":[7],\"data_offsets\":[40,47]},"
		"\"long.name\":{\"dtype\":\"F16\",\"shape\":[3000],"
		"\"data_offsets\":[47,6047]}}";
	const char *path = object_file("model", 3, 0);
	uint64_t bytes = sizeof(header) - 1;
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(&bytes, 8, 1, file), 1);
	assert_int_equal(fwrite(header, bytes, 1, file), 1);
	for (int i = 0; i < 6047; i++)
		fputc(i * 7 & 255, file);
	assert_int_equal(fclose(file), 0);
	return path;
}

static void check_tensor(struct morsel *morsel, const char *name, uint64_t first, uint64_t bytes,
			 uint64_t align)
{
	struct morsel_tensor tensor;
	uint8_t *content = malloc(bytes);

	assert_ok(morsel_tensor(morsel, name, &tensor));
	assert_string_equal(tensor.name, name);
	assert_int_equal(tensor.bytes, bytes);
	assert_int_equal(align ? tensor.offset % align : 0, 0);
	assert_ok(mrs_content_read(morsel, tensor.offset, content, bytes));
	for (uint64_t i = 0; i < bytes; i++)
		assert_int_equal(content[i], (first + i) * 7 & 255);
	free(content);
}

static void check_tensors(struct morsel *morsel, uint64_t align)
{
	struct morsel_tensor tensor;

	assert_int_equal(object_info(morsel).tensors, 3);
	assert_int_equal(object_info(morsel).format, MORSEL_FORMAT_SAFETENSORS);
	check_tensor(morsel, "b", 0, 40, align);
	check_tensor(morsel, "a", 40, 7, align);
	check_tensor(morsel, "long.name", 47, 6000, align);
	assert_fails(morsel_tensor(morsel, "c", &tensor), -ENOENT, "'c'");
	assert_ok(morsel_tensor_at(morsel, 2, &tensor));
	assert_fails(morsel_tensor_at(morsel, 3, &tensor), -ERANGE, "3");
}

static void import_tensors(uint64_t align, uint32_t flags)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel_opts opts = {.size = sizeof(opts),
				   .flags = flags,
				   .pages = flags ? MORSEL_PAGES_4K : 0,
				   .tensor_align = align};
	uint64_t free_bytes = object_free_bytes(pool);
	const char *file = tensor_file();
	struct morsel *morsel;
	char out[160];

	snprintf(out, sizeof(out), "%s.out", file);
	assert_ok(morsel_import(pool, "model", file, &opts, &morsel));
	check_tensors(morsel, align);
	assert_ok(morsel_export(morsel, out, NULL));
	assert_same_files(file, out);
	object_check(pool);
	if (align) {
		assert_ok(morsel_resize(morsel, mrs_morsel_bytes(morsel) - 1));
		assert_fails(morsel_export(morsel, out, NULL), -EINVAL, "resized");
	} else {
		struct morsel_tensor tensor;

		assert_ok(morsel_resize(morsel, mrs_morsel_bytes(morsel) - 1));
		assert_fails(morsel_tensor(morsel, "long.name", &tensor), -ENOENT, "beyond");
		assert_ok(morsel_tensor(morsel, "a", &tensor));
	}
	unlink(out);
	unlink(file);
	assert_ok(morsel_unlink(pool, "model"));
	morsel_close(morsel);
	assert_true(object_free_bytes(pool) + 256 * KIB >= free_bytes);
	object_pool_end(pool);
}

static void test_tensors(void **state)
{
	import_tensors(0, 0);
	import_tensors(0, MORSEL_SCATTERED);
	import_tensors(64, 0);
	import_tensors(4096, 0);
	import_tensors(4096, MORSEL_SCATTERED);
	import_tensors(65536, 0);
}

static void test_malformed(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel_opts opts = {.size = sizeof(opts), .tensor_align = 4096};
	const char *file = tensor_file();
	struct morsel *morsel;

	assert_int_equal(truncate(file, (off_t)file_bytes(file) - 1), 0);
	assert_int_equal(morsel_import(pool, "m", file, NULL, &morsel), -EINVAL);
	assert_int_equal(morsel_import(pool, "m", file, &opts, &morsel), -EINVAL);
	assert_false(object_exists(pool, "m"));
	unlink(file);
	object_pool_end(pool);
}

/* ---- several at once: one reads ---- */

static int child_import(struct morsel_pool *pool, const char *file)
{
	struct morsel *morsel;

	if (morsel_import(pool, "shared", file, NULL, &morsel))
		return 3;
	if (object_differs(morsel, 9, 0, 12 * MIB) != UINT64_MAX)
		return 4;
	return morsel_close(morsel) || morsel_pool_close(pool) ? 5 : 0;
}

static void test_several_importers(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	const char *file = object_file("shared", 9, 12 * MIB);
	struct morsel_pool_stat stat = {.size = sizeof(stat)};
	pid_t pid[4];
	int status;

	for (int i = 0; i < 4; i++)
		pid[i] = object_child_start(pool, "import", file, NULL);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(waitpid(pid[i], &status, 0), pid[i]);
		assert_int_equal(status, 0);
	}
	morsel_pool_reap(pool);
	assert_ok(morsel_pool_stat(pool, &stat));
	assert_int_equal(stat.morsels, 1);
	/* One import: ids are given to each new record. */
	assert_int_equal(mrs_pool_state(pool)->next_id, 2);
	unlink(file);
	object_pool_end(pool);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_existing_is_opened),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_export_refusals),
		cmocka_unit_test(test_tensors),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_several_importers),
	};
	struct morsel_pool *pool;

	if (argc == 5 && !strcmp(argv[1], "--child"))
		return morsel_pool_open_fd(atoi(argv[3]), NULL, &pool)
			       ? 2
			       : child_import(pool, argv[4]);
	return cmocka_run_group_tests_name("object: import", tests, NULL, NULL);
}
