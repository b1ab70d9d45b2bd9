/*
 * The packed table and the aligned layout, against the obvious: a list, a copy and a comparison.
 */
#include "core/model_bytes.h"

#include "base/base.h"

#define FILE_BYTES_MAX 8192u

/* A random model without a format: a file of random bytes, cut into tensors and structure. */
struct sample {
	struct mrs_model model;
	unsigned char file[FILE_BYTES_MAX];
};

static void add_tensor(struct mrs_model *model, uint64_t at, uint64_t bytes, uint64_t *random)
{
	struct mrs_tensor *t = &model->tensors[model->count];
	char name[64];

	*t = (struct mrs_tensor){.offset = at, .source = at, .bytes = bytes, .at = at};
	t->type = MORSEL_TYPE_U8;
	t->rank = (uint16_t)(test_random(random) % (MORSEL_TENSOR_RANK_MAX + 1));
	for (uint32_t i = 0; i < t->rank; i++)
		t->shape[i] = test_random(random);
	if (bytes && test_random(random) % 5 == 0)
		t->flags = MORSEL_TENSOR_ENCODED;
	snprintf(name, sizeof(name), "%llx.%llu", (unsigned long long)test_random(random) % 4096,
		 (unsigned long long)model->count);
	t->name = (uint32_t)model->names_bytes;
	t->name_bytes = (uint16_t)strlen(name);
	memcpy(model->names + model->names_bytes, name, t->name_bytes + 1u);
	model->names_bytes += t->name_bytes + 1u;
	model->count++;
}

static struct sample *sample_make(uint64_t *random)
{
	struct sample *s = calloc(1, sizeof(*s));
	uint64_t at = 0, bytes = test_random(random) % FILE_BYTES_MAX;
	uint64_t wanted = test_random(random) % 40;

	assert_non_null(s);
	s->model.tensors = calloc(64, sizeof(*s->model.tensors));
	s->model.names = calloc(64, 64);
	assert_true(s->model.tensors && s->model.names);
	s->model.format = MORSEL_FORMAT_GGUF;
	s->model.bytes = s->model.source_bytes = bytes;
	for (uint64_t i = 0; i < bytes; i++)
		s->file[i] = (unsigned char)test_random(random);
	for (uint64_t i = 0; i < wanted; i++) {
		uint64_t gap = test_random(random) % 3 ? 0 : test_random(random) % 100;
		uint64_t size = test_random(random) % 4 ? test_random(random) % 500 : 0;

		if (at + gap + size > bytes)
			break;
		add_tensor(&s->model, at + gap, size, random);
		at += gap + size;
	}
	/* The file's order of descriptions is not that of the data. */
	for (uint64_t i = s->model.count; i > 1; i--) {
		uint64_t j = test_random(random) % i;
		struct mrs_tensor t = s->model.tensors[i - 1];

		s->model.tensors[i - 1] = s->model.tensors[j];
		s->model.tensors[j] = t;
	}
	return s;
}

static void sample_free(struct sample *s)
{
	mrs_model_free(&s->model);
	free(s);
}

/* The layout is made; the content that it describes must hold the file. */
static void check_layout(const struct sample *s, uint64_t alignment)
{
	const struct mrs_model *m = &s->model;
	unsigned char *content = calloc(1, m->bytes + 1), *written = calloc(1, m->bytes + 1);
	uint64_t end = 0;

	assert_true(content && written);
	for (uint64_t i = 0; i < m->piece_count; i++) {
		const struct mrs_piece *p = &m->pieces[i];

		assert_int_equal(p->source, end);
		assert_true(p->bytes && p->destination + p->bytes <= m->bytes);
		for (uint64_t k = 0; k < p->bytes; k++)
			assert_int_equal(written[p->destination + k]++, 0);
		memcpy(content + p->destination, s->file + p->source, p->bytes);
		end += p->bytes;
	}
	assert_int_equal(end, m->source_bytes);
	for (uint64_t i = 0; i < m->count; i++) {
		const struct mrs_tensor *t = &m->tensors[i];

		assert_true(t->offset + t->bytes <= m->bytes);
		assert_memory_equal(content + t->offset, s->file + t->source, t->bytes);
		if (!(t->flags & MORSEL_TENSOR_ENCODED))
			assert_int_equal(t->offset % alignment, 0);
	}
	free(content);
	free(written);
}

static void layouts_hold_the_file(void **state)
{
	uint64_t random = test_seed();

	for (int i = 0; i < COUNT_MODEL_LAYOUTS; i++) {
		struct sample *s = sample_make(&random);
		uint64_t alignment = (uint64_t)1 << test_random(&random) % 13;

		assert_int_equal(mrs_model_layout_aligned(&s->model, alignment), 0);
		check_layout(s, alignment);
		/* Laid out anew, it is as if it had been so at first. */
		assert_int_equal(mrs_model_layout_aligned(&s->model, 64), 0);
		check_layout(s, 64);
		sample_free(s);
	}
}

static void layout_refuses(void **state)
{
	uint64_t random = test_seed();
	struct sample *s = sample_make(&random);
	static const uint64_t bad[] = {0, 3, 4097, MRS_MODEL_ALIGN_MAX * 2, (uint64_t)1 << 63};

	for (size_t i = 0; i < mrs_array_length(bad); i++)
		assert_int_equal(mrs_model_layout_aligned(&s->model, bad[i]), -EINVAL);
	assert_null(s->model.pieces);
	assert_int_equal(s->model.bytes, s->model.source_bytes);
	sample_free(s);
}

static void *pack(const struct mrs_model *model, uint64_t *bytes)
{
	void *packed;

	*bytes = mrs_model_packed_bytes(model);
	packed = malloc(*bytes);
	assert_non_null(packed);
	assert_int_equal(mrs_model_pack(model, packed, *bytes - 1), -ENOSPC);
	assert_int_equal(mrs_model_pack(model, packed, *bytes), 0);
	assert_int_equal(mrs_packed_check(packed, *bytes), 0);
	return packed;
}

static void expect_same(const struct mrs_model *model, uint64_t index,
			const struct morsel_tensor *found)
{
	struct morsel_tensor expected;

	mrs_model_tensor(model, index, &expected);
	assert_memory_equal(found, &expected, sizeof(expected));
	assert_string_equal(found->name, mrs_model_name(model, index));
}

/* Every tensor by name and by index, every piece, and nothing else. */
static void packed_equals_the_list(void **state)
{
	uint64_t random = test_seed();

	for (int i = 0; i < COUNT_MODEL_LAYOUTS; i++) {
		struct sample *s = sample_make(&random);
		const struct mrs_model *m = &s->model;
		struct morsel_tensor found;
		struct mrs_packed_head head;
		struct mrs_piece piece;
		uint64_t bytes;
		void *packed;

		if (test_random(&random) % 2)
			assert_int_equal(mrs_model_layout_aligned(&s->model, 256), 0);
		packed = pack(m, &bytes);
		assert_int_equal(mrs_packed_head(packed, bytes, &head), 0);
		assert_int_equal(head.count, m->count);
		assert_int_equal(head.format, MORSEL_FORMAT_GGUF);
		assert_int_equal(head.content_bytes, m->bytes);
		assert_int_equal(head.source_bytes, m->source_bytes);
		assert_int_equal(head.pieces, m->piece_count);
		for (uint64_t k = 0; k < m->count; k++) {
			assert_int_equal(mrs_packed_get(packed, bytes, k, &found), 0);
			expect_same(m, k, &found);
			assert_int_equal(
				mrs_packed_find(packed, bytes, mrs_model_name(m, k), &found), 0);
			expect_same(m, k, &found);
		}
		for (uint64_t k = 0; k < m->piece_count; k++) {
			assert_int_equal(mrs_packed_piece(packed, bytes, k, &piece), 0);
			assert_memory_equal(&piece, &m->pieces[k], sizeof(piece));
		}
		assert_int_equal(mrs_packed_get(packed, bytes, m->count, &found), -ERANGE);
		assert_int_equal(mrs_packed_piece(packed, bytes, m->piece_count, &piece), -ERANGE);
		assert_int_equal(mrs_packed_find(packed, bytes, "absent", &found), -ENOENT);
		assert_int_equal(mrs_packed_find(packed, bytes, "", &found), -ENOENT);
		assert_int_equal(mrs_packed_find(packed, bytes, "fff.", &found), -ENOENT);
		free(packed);
		sample_free(s);
	}
}

/* Every single damaged byte is found, and never leads outside. */
static void damage_is_found(void **state)
{
	uint64_t random = test_seed(), bytes, steps = 0;
	struct sample *s;
	unsigned char *packed;

	while ((s = sample_make(&random))->model.count < 10)
		sample_free(s);
	assert_int_equal(mrs_model_layout_aligned(&s->model, 512), 0);
	packed = pack(&s->model, &bytes);
	for (uint64_t at = 0; at < bytes; at++) {
		struct morsel_tensor found;
		unsigned char was = packed[at];

		for (int bit = 0; bit < 8; bit++) {
			packed[at] = was ^ (unsigned char)(1 << bit);
			assert_int_not_equal(mrs_packed_check(packed, bytes), 0);
			for (uint64_t k = 0; k < s->model.count; k++, steps++) {
				if (!mrs_packed_get(packed, bytes, k, &found))
					assert_true(found.offset + found.bytes <= INT64_MAX);
				mrs_packed_find(packed, bytes, mrs_model_name(&s->model, k),
						&found);
			}
		}
		packed[at] = was;
	}
	for (uint64_t less = 0; less < bytes; less++) {
		unsigned char *cut = malloc(less ? less : 1);

		assert_non_null(cut);
		memcpy(cut, packed, less);
		assert_int_equal(mrs_packed_check(cut, less), -EINVAL);
		free(cut);
	}
	assert_int_equal(mrs_packed_check(packed, bytes), 0);
	packed[8]++;
	assert_int_equal(mrs_packed_check(packed, bytes), -EPROTONOSUPPORT);
	printf("%llu damaged look-ups\n", (unsigned long long)steps);
	free(packed);
	sample_free(s);
}

/* Whoever can write the pool can also make the checksum right: nothing leads outside even so. */
static void hostile_tables(void **state)
{
	uint64_t random = test_seed(), bytes, accepted = 0;
	struct sample *s = sample_make(&random);
	unsigned char *good = pack(&s->model, &bytes), *packed = malloc(bytes);

	assert_non_null(packed);
	for (int i = 0; i < COUNT_MODEL_MUTATIONS; i++) {
		uint64_t words = bytes / 4, value = test_random(&random);
		struct mrs_packed_head head;
		struct morsel_tensor found;
		struct mrs_piece piece;
		uint32_t crc = 0;

		memcpy(packed, good, bytes);
		value >>= test_random(&random) % 64;
		memcpy(packed + 4 * (4 + test_random(&random) % (words - 4)), &value, 4);
		memcpy(packed + 12, &crc, 4);
		crc = mrs_crc32c(0, packed, bytes);
		memcpy(packed + 12, &crc, 4);
		accepted += !mrs_packed_check(packed, bytes);
		if (mrs_packed_head(packed, bytes, &head))
			continue;
		for (uint64_t k = 0; k < mrs_min(head.count, (uint64_t)50); k++) {
			if (!mrs_packed_get(packed, bytes, k, &found))
				assert_true(found.offset <= head.content_bytes &&
					    found.bytes <= head.content_bytes - found.offset);
			mrs_packed_piece(packed, bytes, k, &piece);
		}
		mrs_packed_find(packed, bytes, "800.3", &found);
	}
	printf("%llu accepted\n", (unsigned long long)accepted);
	free(packed);
	free(good);
	sample_free(s);
}

/* One value that leads just outside, the checksum right: named as damage, whatever is asked. */
static void one_step_outside(void **state)
{
	struct bytes file = {0};
	struct mrs_model model = {0};
	/* Offsets as packed.c draws them: a head of 96 bytes, then the records of 32. */
	static const struct {
		size_t at, width;
		uint64_t value;
	} faults[] = {
		{96, 8, 64}, /* offset: 8 bytes from there in 71 */
		{96, 8, UINT64_MAX}, {96 + 8, 8, 9},	       {96 + 8, 8, UINT64_MAX},
		{96 + 16, 4, 2},     {96 + 16, 4, 5},	       {96 + 16, 4, UINT32_MAX},
		{96 + 20, 4, 1},     {96 + 20, 4, UINT32_MAX}, {96 + 24, 2, 5},
		{96 + 24, 2, 1024},  {96 + 28, 1, 2},	       {96 + 28, 1, 17},
	};
	static const char json[] = "{\"abc\":{\"dtype\":\"U8\",\"shape\":[8],"
				   "\"data_offsets\":[0,8]}}";
	struct morsel_tensor found;
	unsigned char *packed;
	uint64_t bytes;

	put_number(&file, strlen(json), 8);
	put(&file, json, strlen(json));
	put_zeros(&file, 8);
	assert_int_equal(parse_both(file.data, file.count, &model), 0);
	packed = pack(&model, &bytes);
	for (size_t i = 0; i < mrs_array_length(faults); i++) {
		unsigned char *bad = malloc(bytes);
		uint32_t crc = 0;

		assert_non_null(bad);
		memcpy(bad, packed, bytes);
		memcpy(bad + faults[i].at, &faults[i].value, faults[i].width);
		memcpy(bad + 12, &crc, 4);
		crc = mrs_crc32c(0, bad, bytes);
		memcpy(bad + 12, &crc, 4);
		if (mrs_packed_get(bad, bytes, 0, &found) != -EINVAL ||
		    mrs_packed_find(bad, bytes, "abc", &found) != -EINVAL ||
		    mrs_packed_check(bad, bytes) != -EINVAL)
			fail_msg("fault %zu is not seen", i);
		free(bad);
	}
	free(packed);
	mrs_model_free(&model);
	bytes_free(&file);
}

static void types_and_formats(void **state)
{
	uint32_t elements, bytes, known = 0;

	for (uint32_t type = 0; type < 300; type++) {
		if (morsel_type_block(type, &elements, &bytes))
			continue;
		assert_true(elements && bytes);
		assert_string_not_equal(morsel_type_name(type), "unknown");
		known++;
	}
	assert_int_equal(known, 27 + 24);
	assert_string_equal(morsel_type_name(MORSEL_TYPE_F32), "f32");
	assert_string_equal(morsel_type_name(MORSEL_TYPE_MXFP4), "mxfp4");
	assert_string_equal(morsel_type_name(30), "unknown");
	assert_string_equal(morsel_type_name(UINT32_MAX), "unknown");
	assert_int_equal(morsel_type_block(MORSEL_TYPE_STRING, NULL, NULL), -EINVAL);
	assert_string_equal(morsel_format_name(MORSEL_FORMAT_GGUF), "gguf");
	assert_string_equal(morsel_format_name(9), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(layouts_hold_the_file),  cmocka_unit_test(layout_refuses),
		cmocka_unit_test(packed_equals_the_list), cmocka_unit_test(damage_is_found),
		cmocka_unit_test(hostile_tables),	  cmocka_unit_test(one_step_outside),
		cmocka_unit_test(types_and_formats),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
