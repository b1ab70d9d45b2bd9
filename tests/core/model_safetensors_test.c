/*
 * safetensors, made by hand: what is read, and what is refused at which byte.
 */
#include "core/model_bytes.h"

#include <unistd.h>

/* A file with that JSON and so many bytes of data; length replaces the true one unless 0. */
static struct bytes file_of(const char *json, size_t data, uint64_t length)
{
	struct bytes b = {0};

	put_number(&b, length ? length : strlen(json), 8);
	put(&b, json, strlen(json));
	put_zeros(&b, data);
	return b;
}

static const char good[] =
	"{\"__metadata__\":{\"format\":\"pt\",\"a\\u00e9\":\"\"},"
	"\"b\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[8,20]},"
	" \"\\u00fc\\ud83d\\ude00/\\n\" : {\"data_offsets\":[0,8],\"shape\":[],\"dtype\":\"I64\","
	"\"new\":[1.5e-3,{\"x\":[true,false,null,-0,\"\\\"\"]},[]]},\n"
	"\"empty\":{\"dtype\":\"F32\",\"shape\":[0,9223372036854775807,9],\"data_offsets\":[8,8]},"
	"\"f4\":{\"dtype\":\"F4\",\"shape\":[3,2],\"data_offsets\":[20,23]}}  ";

static void good_file(void **state)
{
	struct bytes b = file_of(good, 23, 0);
	uint64_t data = 8 + strlen(good);
	struct mrs_model model = {0};

	assert_int_equal(parse_both(b.data, b.count, &model), 0);
	assert_int_equal(model.format, MORSEL_FORMAT_SAFETENSORS);
	assert_int_equal(model.count, 4);
	expect_tensor(&model, 0, "b", MORSEL_TYPE_F16, data + 8, 12, 0);
	expect_tensor(&model, 1, "\xc3\xbc\xf0\x9f\x98\x80/\n", MORSEL_TYPE_I64, data, 8, 0);
	expect_tensor(&model, 2, "empty", MORSEL_TYPE_F32, data + 8, 0, 0);
	expect_tensor(&model, 3, "f4", MORSEL_TYPE_F4_E2M1, data + 20, 3, 0);
	assert_int_equal(model.tensors[0].rank, 2);
	assert_int_equal(model.tensors[0].shape[0], 2);
	assert_int_equal(model.tensors[0].shape[1], 3);
	assert_int_equal(model.tensors[1].rank, 0);
	mrs_model_free(&model);
	expect_prefixes_refused(&b, b.count);
	expect_failing_reads_passed_up(&b);
	bytes_free(&b);
}

static void damaged_file(void **state)
{
	struct bytes b = file_of(good, 23, 0);

	expect_damage_survived(&b);
	bytes_free(&b);
}

#define T(name, dtype, shape, offsets) \
	"\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static const struct {
	const char *json;
	size_t data;
	int code;
	const char *where; /* the byte of the file */
	const char *what;
} refused[] = {
	/* structure: the JSON begins at byte 8 */
	{"{\"a\":1}", 0, -EINVAL, "byte 13", "'{' expected"},
	{"{\"a\"}", 0, -EINVAL, "byte 12", "':' expected"},
	{"{\"a\":{} \"b\":{}}", 0, -EINVAL, "tensor 'a' at byte 9", "one is missing"},
	{"{" T("a", "U8", "[]", "[0,1]") " " T("b", "U8", "[]", "[1,2]") "}", 2, -EINVAL, "byte 60",
	 "',' or '}' expected"},
	{"{" T("a", "U8", "[]", "[0,1]") ",}", 1, -EINVAL, "byte 60", "another member"},
	{"{}{}", 0, -EINVAL, "byte 10", "nothing more"},
	{"{ ,}", 0, -EINVAL, "byte 10", "a string expected"},
	{"{\"a\\x\":{}}", 0, -EINVAL, "byte 12", "after '\\'"},
	{"{\"a\\u12g4\":{}}", 0, -EINVAL, "byte 15", "hexadecimal"},
	{"{\"\\udc00\":{}}", 0, -EINVAL, "byte 10", "first half"},
	{"{\"\\ud800x\":{}}", 0, -EINVAL, "byte 10", "both halves"},
	{"{\"\\ud800\\u0041\":{}}", 0, -EINVAL, "byte 10", "both halves"},
	{"{\"\\u0000\":{}}", 0, -EINVAL, "byte 9", "UTF-8"},
	{"{\"\xff\":{}}", 0, -EINVAL, "byte 9", "UTF-8"},
	{"{\"\xc0\xaf\":{}}", 0, -EINVAL, "byte 9", "UTF-8"},
	{"{\"\xed\xa0\x80\":{}}", 0, -EINVAL, "byte 9", "UTF-8"},
	{"{\"\xf4\x90\x80\x80\":{}}", 0, -EINVAL, "byte 9", "UTF-8"},
	{"{\"a\n\":{}}", 0, -EINVAL, "byte 11", "control character"},
	{"{\"a\":{\"x\":tru}}", 0, -EINVAL, "byte 18", "a value expected"},
	{"{\"a\":{\"x\":01}}", 0, -EINVAL, "byte 19", "',' or '}'"},
	{"{\"a\":{\"x\":1.}}", 0, -EINVAL, "byte 20", "a digit"},
	{"{\"a\":{\"x\":1e}}", 0, -EINVAL, "byte 20", "a digit"},
	{"{\"a\":{\"x\":-}}", 0, -EINVAL, "byte 19", "a digit"},
	{"{\"a\":{\"x\":@}}", 0, -EINVAL, "byte 18", "a value"},
	{"{\"a\":{\"x\":[1", 0, -EINVAL, "byte 20", "ends too early"},
	/* keys */
	{"{" T("a", "U8", "[]", "[0,1]") "," T("a", "U8", "[]", "[1,2]") "}", 2, -EINVAL,
	 "tensor 'a' at byte 60", "same name as the one at byte 9"},
	{"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\"}}", 0, -EINVAL, "byte 27", "second time"},
	{"{\"__metadata__\":{},\"__metadata__\":{}}", 0, -EINVAL, "byte 27", "second time"},
	{"{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0, -EINVAL, "'k' at byte 33",
	 "already at byte 25"},
	{"{\"__metadata__\":{\"k\":1}}", 0, -EINVAL, "byte 29", "a string"},
	{"{" T("", "U8", "[]", "[0,1]") "}", 1, -EINVAL, "byte 9", "no name"},
	/* numbers */
	{"{" T("a", "U8", "[-1]", "[0,1]") "}", 1, -EINVAL, "byte 36", "an integer"},
	{"{" T("a", "U8", "[1.0]", "[0,1]") "}", 1, -EINVAL, "byte 36", "an integer"},
	{"{" T("a", "U8", "[1e0]", "[0,1]") "}", 1, -EINVAL, "byte 36", "an integer"},
	{"{" T("a", "U8", "[01]", "[0,1]") "}", 1, -EINVAL, "byte 36", "an integer"},
	{"{" T("a", "U8", "[9223372036854775808]", "[0,1]") "}", 1, -EINVAL, "byte 36", "2^63"},
	{"{" T("a", "U8", "[99999999999999999999999]", "[0,1]") "}", 1, -EINVAL, "byte 36", "2^63"},
	{"{" T("a", "U8", "[1]", "[0]") "}", 1, -EINVAL, "byte 56", "',' expected"},
	{"{" T("a", "U8", "[1]", "[0,1,2]") "}", 1, -EINVAL, "byte 58", "']' expected"},
	/* tensors */
	{"{" T("a", "F13", "[1]", "[0,1]") "}", 1, -EINVAL, "byte 22", "dtype 'F13'"},
	{"{" T("a", "F32", "[4294967296,4294967296]", "[0,0]") "}", 0, -EINVAL,
	 "tensor 'a' at byte 9", "passes 2^63"},
	{"{" T("a", "F32", "[4611686018427387904]", "[0,0]") "}", 0, -EINVAL,
	 "tensor 'a' at byte 9", "passes 2^63"},
	{"{" T("a", "F4", "[3]", "[0,2]") "}", 2, -EINVAL, "tensor 'a' at byte 9", "whole bytes"},
	{"{" T("a", "F32", "[2]", "[0,4]") "}", 4, -EINVAL, "tensor 'a' at byte 9", "take 8 bytes"},
	{"{" T("a", "U8", "[2]", "[2,0]") "}", 2, -EINVAL, "tensor 'a' at byte 9", "2 and 0"},
	{"{" T("a", "U8", "[4]", "[0,4]") "}", 3, -EINVAL, "tensor 'a' at byte 9",
	 "end at byte 65 of the file, which has 64"},
	{"{" T("a", "U8", "[4]", "[0,4]") "," T("b", "U8", "[4]", "[3,7]") "}", 7, -EINVAL,
	 "tensor 'b' at byte 61", "overlaps that of tensor 'a'"},
	{"{" T("a", "U8", "[4]", "[0,4]") "," T("b", "U8", "[1]", "[5,6]") "}", 6, -EINVAL,
	 "tensor 'b' at byte 61", "hole"},
	{"{" T("a", "U8", "[4]", "[0,4]") "}", 5, -EINVAL, "data end at byte 65", "has 66"},
	{"{" T("a", "U8", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[0,1]") "}", 1, -E2BIG, "byte 9",
	 "more than 16 dimensions"},
};

static void refused_files(void **state)
{
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		struct bytes b = file_of(refused[i].json, refused[i].data, 0);

		expect_refused(&b, refused[i].code, refused[i].where, refused[i].what);
		bytes_free(&b);
	}
}

/* Lengths of the header: beyond the file, beyond the limit, too small. */
static void header_lengths(void **state)
{
	struct bytes b = file_of("{\"a\":{}}", 0, 9);

	expect_refused(&b, -EINVAL, "byte 0", "a header of 9 bytes in a file of 16");
	bytes_free(&b);
	b = file_of("{\"a\":{}}", 0, 1);
	expect_refused(&b, -EINVAL, "byte 0", "a header of 1 bytes");
	bytes_free(&b);
	b = file_of("{\"a\":{}}", 0, 100000001);
	expect_refused(&b, -E2BIG, "byte 0", "the limit is 100000000");
	bytes_free(&b);
	b = file_of("{\"a\":{}}", 0, UINT64_MAX);
	expect_refused(&b, -E2BIG, "byte 0", "18446744073709551615");
	bytes_free(&b);
}

static void repeat(struct bytes *b, const char *text, size_t count)
{
	while (count--)
		put(b, text, strlen(text));
}

/* Limits that take long files to reach. */
static void limits(void **state)
{
	struct bytes b = {0};
	uint64_t count;

	put_number(&b, 11 + 2000, 8);
	repeat(&b, "{\"a\":{\"x\":[", 1);
	repeat(&b, "[", 2000);
	/* 63 more than the first bracket, which is byte 18: the 65th is refused. */
	expect_refused(&b, -E2BIG, "byte 82", "more than 64 deep");
	b.count = 0;
	put_number(&b, 3 + 1024, 8);
	repeat(&b, "{\"", 1);
	repeat(&b, "n", 1024);
	repeat(&b, "\"", 1);
	expect_refused(&b, -E2BIG, "byte 9", "longer than 1023 bytes");
	b.count = 0;
	put_zeros(&b, 8);
	repeat(&b, "{\"__metadata__\":{\"k\":\"\"", 1);
	for (count = 0; count < MRS_MODEL_KEYS_MAX; count++) {
		char text[32];

		snprintf(text, sizeof(text), ",\"%llu\":\"\"", (unsigned long long)count);
		repeat(&b, text, 1);
	}
	count = b.count - 8;
	memcpy(b.data, &count, 8);
	expect_refused(&b, -E2BIG, "byte ", "more than 65536 keys");
	bytes_free(&b);
}

/* Files that merely look a little like one are bytes. */
static void bytes_stay_bytes(void **state)
{
	static const char *const texts[] = {
		"", "{", "12345678{\"a\":1}", "\1\0\0\0\0\0\0\0", "function{}\n", "GGU", "PK\3\4"};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct mrs_model model = {0};

		assert_int_equal(parse_both(texts[i], strlen(texts[i]), &model), 0);
		assert_int_equal(model.format, MORSEL_FORMAT_BYTES);
		assert_int_equal(model.count, 0);
		mrs_model_free(&model);
	}
}

/* Files by descriptor: read as memory is, and an error where they shrink or cannot be read. */
static void descriptors(void **state)
{
	struct bytes b = file_of(good, 23, 0);
	char path[] = "/tmp/morsel-model-XXXXXX";
	struct mrs_model model = {.count = 77};
	struct mrs_source source;
	int fd = mkstemp(path), none = -1;

	assert_true(fd >= 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(write(fd, b.data, b.count), b.count);
	assert_int_equal(mrs_source_fd(&source, &fd), 0);
	assert_int_equal(source.bytes, b.count);
	assert_int_equal(ftruncate(fd, 30), 0);
	assert_int_equal(mrs_model_parse(&source, &model), -EIO);
	assert_non_null(strstr(morsel_errormsg(), "ended at byte 30"));
	assert_int_equal(model.count, 77);
	assert_int_equal(pwrite(fd, b.data, b.count, 0), b.count);
	assert_int_equal(mrs_model_parse(&source, &model), 0);
	assert_int_equal(model.count, 4);
	mrs_model_free(&model);
	source.ctx = &none;
	assert_int_equal(mrs_model_parse(&source, &model), -EBADF);
	assert_int_equal(mrs_source_fd(&source, &none), -EBADF);
	source.bytes = (uint64_t)INT64_MAX + 1;
	assert_int_equal(mrs_model_parse(&source, &model), -EFBIG);
	close(fd);
	bytes_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_file),	 cmocka_unit_test(damaged_file),
		cmocka_unit_test(refused_files), cmocka_unit_test(header_lengths),
		cmocka_unit_test(limits),	 cmocka_unit_test(bytes_stay_bytes),
		cmocka_unit_test(descriptors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
