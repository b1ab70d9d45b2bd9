/*
 * GGUF, made by hand: what is read, and what is refused at which byte.
 */
#include "core/model_bytes.h"

static void put_text(struct bytes *b, const char *text)
{
	put_number(b, strlen(text), 8);
	put(b, text, strlen(text));
}

static struct bytes begin(uint32_t version, uint64_t tensors, uint64_t pairs)
{
	struct bytes b = {0};

	put(&b, "GGUF", 4);
	put_number(&b, version, 4);
	put_number(&b, tensors, 8);
	put_number(&b, pairs, 8);
	return b;
}

/* The shape in the order of the file, innermost first; it ends with a negative number. */
static void put_info(struct bytes *b, const char *name, const int64_t *shape, uint32_t type,
		     uint64_t offset)
{
	uint32_t rank = 0;

	while (shape[rank] >= 0)
		rank++;
	put_text(b, name);
	put_number(b, rank, 4);
	for (uint32_t i = 0; i < rank; i++)
		put_number(b, (uint64_t)shape[i], 8);
	put_number(b, type, 4);
	put_number(b, offset, 8);
}

static void pad(struct bytes *b, size_t alignment)
{
	while (b->count % alignment)
		put_zeros(b, 1);
}

#define SHAPE(...) ((const int64_t[]){__VA_ARGS__, -1})

/* Every kind of value, alignment 64, three tensors. */
static struct bytes good_bytes(uint32_t version, size_t *data)
{
	struct bytes b = begin(version, 3, 6);

	put_text(&b, "general.alignment");
	put_number(&b, 4, 4);
	put_number(&b, 64, 4);
	put_text(&b, "name");
	put_number(&b, 8, 4);
	put_text(&b, "");
	put_text(&b, "u8");
	put_number(&b, 0, 4);
	put_number(&b, 7, 1);
	put_text(&b, "f64");
	put_number(&b, 12, 4);
	put_number(&b, 7, 8);
	put_text(&b, "scores");
	put_number(&b, 9, 4);
	put_number(&b, 6, 4);
	put_number(&b, 3, 8);
	put_zeros(&b, 12);
	put_text(&b, "nested");
	put_number(&b, 9, 4);
	put_number(&b, 9, 4);
	put_number(&b, 1, 8);
	put_number(&b, 8, 4);
	put_number(&b, 2, 8);
	put_text(&b, "x");
	put_text(&b, "yy");
	put_info(&b, "q", SHAPE(64, 3), 2, 64);
	put_info(&b, "scalar", SHAPE(-1), 27, 0);
	put_info(&b, "last", SHAPE(5), 30, 192);
	pad(&b, 64);
	*data = b.count;
	put_zeros(&b, 192 + 10);
	return b;
}

static void good_files(void **state)
{
	for (uint32_t version = 2; version <= 3; version++) {
		size_t data;
		struct bytes b = good_bytes(version, &data);
		struct mrs_model model = {0};

		assert_int_equal(parse_both(b.data, b.count, &model), 0);
		assert_int_equal(model.format, MORSEL_FORMAT_GGUF);
		assert_int_equal(model.count, 3);
		expect_tensor(&model, 0, "q", MORSEL_TYPE_Q4_0, data + 64, 6 * 18, 0);
		expect_tensor(&model, 1, "scalar", MORSEL_TYPE_I64, data, 8, 0);
		expect_tensor(&model, 2, "last", MORSEL_TYPE_BF16, data + 192, 10, 0);
		/* Outermost first, the other way round than in the file. */
		assert_int_equal(model.tensors[0].shape[0], 3);
		assert_int_equal(model.tensors[0].shape[1], 64);
		assert_int_equal(model.tensors[1].rank, 0);
		mrs_model_free(&model);
		if (version == 3) {
			expect_prefixes_refused(&b, b.count);
			expect_failing_reads_passed_up(&b);
			expect_damage_survived(&b);
		}
		bytes_free(&b);
	}
}

static void empty_file(void **state)
{
	struct bytes b = begin(3, 0, 0);
	struct mrs_model model = {0};

	assert_int_equal(parse_both(b.data, b.count, &model), 0);
	assert_int_equal(model.format, MORSEL_FORMAT_GGUF);
	assert_int_equal(model.count, 0);
	mrs_model_free(&model);
	bytes_free(&b);
}

static void refuse(struct bytes b, int code, const char *where, const char *what)
{
	expect_refused(&b, code, where, what);
	bytes_free(&b);
}

static void refused_heads(void **state)
{
	refuse(begin(1, 0, 0), -EOPNOTSUPP, "byte 4", "version 1 is not read");
	refuse(begin(4, 0, 0), -EOPNOTSUPP, "byte 4", "version 4 is not read");
	refuse(begin(0, 0, 0), -EOPNOTSUPP, "byte 4", "version 0");
	refuse(begin(0x03000000, 0, 0), -EOPNOTSUPP, "byte 4", "big-endian");
	refuse(begin(3, (1u << 20) + 1, 0), -E2BIG, "byte 8", "the limit is 1048576");
	refuse(begin(3, UINT64_MAX, 0), -E2BIG, "byte 8", "18446744073709551615 tensors");
	refuse(begin(3, 0, 65537), -E2BIG, "byte 16", "the limit is 65536");
	refuse(begin(3, 1000, 1000), -EINVAL, "byte 8", "do not fit in the 0 bytes");
}

/* One pair whose value is given in bytes. */
static struct bytes with_pair(const char *key, uint32_t type, const void *value, size_t bytes)
{
	struct bytes b = begin(3, 0, 1);

	put_text(&b, key);
	put_number(&b, type, 4);
	put(&b, value, bytes);
	return b;
}

static struct bytes with_alignment(uint32_t type, uint32_t value)
{
	return with_pair("general.alignment", type, &value, 4);
}

static void refused_pairs(void **state)
{
	static const unsigned char huge[8] = {0, 0, 0, 0, 0, 0, 0, 0x80};
	static const unsigned char bad_array[12] = {13};
	static const unsigned char long_array[12] = {11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20};
	static const unsigned char cut_array[12] = {0, 0, 0, 0, 9};
	struct bytes b;

	/* The key begins at byte 24: 8 bytes of length, the key, 4 bytes of type. */
	refuse(with_pair("k", 13, "", 1), -EINVAL, "byte 33", "value type 13");
	refuse(with_pair("k", 8, huge, 8), -EINVAL, "a string at byte 45", "truncated");
	refuse(with_pair("k", 9, bad_array, 12), -EINVAL, "array at byte 37", "element type 13");
	refuse(with_pair("k", 9, long_array, 12), -E2BIG, "array at byte 37", "elements");
	refuse(with_pair("k", 9, cut_array, 12), -EINVAL, "byte 49", "truncated");
	refuse(with_pair("\xff", 0, "", 1), -EINVAL, "a key at byte 24", "UTF-8");
	refuse(with_pair("", 0, "12345678", 8), -EINVAL, "a key at byte 24", "UTF-8");
	refuse(with_alignment(4, 0), -EINVAL, "byte 53", "is 0, not a power of two");
	refuse(with_alignment(4, 48), -EINVAL, "byte 53", "is 48, not a power of two");
	refuse(with_alignment(4, 1u << 22), -EINVAL, "byte 53", "not a power of two");
	refuse(with_alignment(5, 64), -EINVAL, "byte 53", "not uint32");
	b = begin(3, 0, 2);
	for (int i = 0; i < 2; i++) {
		put_text(&b, "key");
		put_number(&b, 0, 4);
		put_number(&b, 0, 1);
	}
	refuse(b, -EINVAL, "key 'key' at byte 40", "already at byte 24");
	b = begin(3, 0, 1);
	put_number(&b, 65536, 8);
	put_zeros(&b, 70000);
	refuse(b, -E2BIG, "a key at byte 24", "the limit is 65535");
	b = begin(3, 0, 1);
	put_text(&b, "deep");
	put_number(&b, 9, 4);
	for (int i = 0; i < 100; i++) {
		put_number(&b, 9, 4);
		put_number(&b, 1, 8);
	}
	/* The first array stands at byte 40, each takes 12; the 64th is refused. */
	refuse(b, -E2BIG, "array at byte 796", "more than 64 deep");
}

static struct bytes with_info(const char *name, const int64_t *shape, uint32_t type,
			      uint64_t offset)
{
	struct bytes b = begin(3, 1, 0);

	put_info(&b, name, shape, type, offset);
	pad(&b, 32);
	put_zeros(&b, 128);
	return b;
}

static void refused_infos(void **state)
{
	char name[1100];
	struct bytes b;

	refuse(with_info("t", SHAPE(1, 1, 1, 1, 1), 0, 0), -E2BIG, "byte 24", "5 dimensions");
	/* byte 24: length, name at 32, rank at 33, shape at 37, type at 45 */
	refuse(with_info("t", SHAPE(1), 4, 0), -EINVAL, "tensor 't' at byte 24",
	       "type 4 at byte 45");
	refuse(with_info("t", SHAPE(1), 99, 0), -EINVAL, "tensor 't' at byte 24", "type 99");
	refuse(with_info("t", SHAPE(1), UINT32_MAX, 0), -EINVAL, "tensor 't' at byte 24",
	       "type 4294967295");
	refuse(with_info("t", SHAPE(33), 2, 0), -EINVAL, "tensor 't' at byte 24",
	       "rows of 33 elements");
	refuse(with_info("t", SHAPE(16, 2), 8, 0), -EINVAL, "tensor 't' at byte 24",
	       "not whole blocks of 32");
	refuse(with_info("t", SHAPE(4), 0, 31), -EINVAL, "tensor 't' at byte 24",
	       "offset 31 is not a multiple");
	refuse(with_info("t", SHAPE(4), 0, 128), -EINVAL, "tensor 't' at byte 24", "do not lie");
	refuse(with_info("t", SHAPE(4), 0, UINT64_MAX - 31), -EINVAL, "tensor 't' at byte 24",
	       "do not lie");
	refuse(with_info("t", SHAPE(33), 0, 0), -EINVAL, "tensor 't' at byte 24",
	       "132 bytes do not lie");
	refuse(with_info("t", SHAPE(INT64_MAX, 2), 0, 0), -EINVAL, "tensor 't' at byte 24",
	       "passes 2^63");
	refuse(with_info("t", SHAPE(INT64_MAX), 1, 0), -EINVAL, "tensor 't' at byte 24",
	       "passes 2^63");
	refuse(with_info("", SHAPE(1), 0, 0), -EINVAL, "byte 24", "UTF-8");
	refuse(with_info("\x80", SHAPE(1), 0, 0), -EINVAL, "byte 24", "UTF-8");
	memset(name, 'n', sizeof(name));
	name[1024] = 0;
	refuse(with_info(name, SHAPE(1), 0, 0), -E2BIG, "byte 24", "the limit is 1023");
	b = begin(3, 2, 0);
	put_info(&b, "a", SHAPE(9), 0, 0);
	put_info(&b, "b", SHAPE(1), 0, 32);
	pad(&b, 32);
	put_zeros(&b, 64);
	refuse(b, -EINVAL, "tensor 'b' at byte 57", "overlaps that of tensor 'a'");
	b = begin(3, 2, 0);
	put_info(&b, "same", SHAPE(1), 0, 0);
	put_info(&b, "same", SHAPE(1), 0, 32);
	pad(&b, 32);
	put_zeros(&b, 64);
	refuse(b, -EINVAL, "tensor 'same' at byte 60", "same name as the one at byte 24");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_files),	 cmocka_unit_test(empty_file),
		cmocka_unit_test(refused_heads), cmocka_unit_test(refused_pairs),
		cmocka_unit_test(refused_infos),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
