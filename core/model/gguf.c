/*
 * GGUF, versions 2 and 3, little-endian.
 *
 *	| "GGUF" | version | tensors | keys | key-value pairs ... | tensor infos ... | pad | data |
 *
 * Tensor offsets count from the data, which begin at a multiple of the alignment (key
 * "general.alignment", 32 without it). Everything before the data is read once, front to back.
 */
#include "model/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

typedef unsigned long long ull;

#define FORMAT	      "gguf"
#define ALIGN_DEFAULT 32u
#define GGUF_RANK_MAX 4u
/* Least bytes of a tensor's info and of a pair: they bound the counts of a truncated file. */
#define INFO_BYTES_MIN (8 + 4 + 4 + 8)
#define PAIR_BYTES_MIN (8 + 4 + 1)

enum value {
	VALUE_U8,
	VALUE_I8,
	VALUE_U16,
	VALUE_I16,
	VALUE_U32,
	VALUE_I32,
	VALUE_F32,
	VALUE_BOOL,
	VALUE_STRING,
	VALUE_ARRAY,
	VALUE_U64,
	VALUE_I64,
	VALUE_F64,
	VALUE_COUNT,
};

/* Bytes of a value of fixed size; 0 for strings and arrays. */
static const uint8_t value_bytes[VALUE_COUNT] = {
	[VALUE_U8] = 1,	 [VALUE_I8] = 1,  [VALUE_U16] = 2, [VALUE_I16] = 2,
	[VALUE_U32] = 4, [VALUE_I32] = 4, [VALUE_F32] = 4, [VALUE_BOOL] = 1,
	[VALUE_U64] = 8, [VALUE_I64] = 8, [VALUE_F64] = 8,
};

/* By the number that stands in the file; those that are missing were withdrawn or never given. */
static const uint8_t types[] = {
	[0] = MORSEL_TYPE_F32,	   [1] = MORSEL_TYPE_F16,      [2] = MORSEL_TYPE_Q4_0,
	[3] = MORSEL_TYPE_Q4_1,	   [6] = MORSEL_TYPE_Q5_0,     [7] = MORSEL_TYPE_Q5_1,
	[8] = MORSEL_TYPE_Q8_0,	   [9] = MORSEL_TYPE_Q8_1,     [10] = MORSEL_TYPE_Q2_K,
	[11] = MORSEL_TYPE_Q3_K,   [12] = MORSEL_TYPE_Q4_K,    [13] = MORSEL_TYPE_Q5_K,
	[14] = MORSEL_TYPE_Q6_K,   [15] = MORSEL_TYPE_Q8_K,    [16] = MORSEL_TYPE_IQ2_XXS,
	[17] = MORSEL_TYPE_IQ2_XS, [18] = MORSEL_TYPE_IQ3_XXS, [19] = MORSEL_TYPE_IQ1_S,
	[20] = MORSEL_TYPE_IQ4_NL, [21] = MORSEL_TYPE_IQ3_S,   [22] = MORSEL_TYPE_IQ2_S,
	[23] = MORSEL_TYPE_IQ4_XS, [24] = MORSEL_TYPE_I8,      [25] = MORSEL_TYPE_I16,
	[26] = MORSEL_TYPE_I32,	   [27] = MORSEL_TYPE_I64,     [28] = MORSEL_TYPE_F64,
	[29] = MORSEL_TYPE_IQ1_M,  [30] = MORSEL_TYPE_BF16,    [34] = MORSEL_TYPE_TQ1_0,
	[35] = MORSEL_TYPE_TQ2_0,  [39] = MORSEL_TYPE_MXFP4,
};

struct gguf {
	struct mrs_reader *reader;
	struct mrs_model *model;
	struct mrs_keys keys;
	uint64_t at;
	uint64_t tensors;
	uint64_t pairs;
	uint32_t alignment;
	/* The last string. */
	char *text;
	uint64_t text_bytes;
};

int mrs_gguf_claims(struct mrs_reader *reader)
{
	const unsigned char *p;
	int error = 0;

	if (reader->source->bytes < 4)
		return 0;
	p = mrs_reader_at(reader, 0, 4, &error);
	return p ? !memcmp(p, "GGUF", 4) : error;
}

/* bytes more of the header must be there. */
static int need(const struct gguf *g, uint64_t bytes, const char *what)
{
	if (g->at > g->model->source_bytes || bytes > g->model->source_bytes - g->at)
		return mrs_fail(-EINVAL,
				FORMAT ": %s at byte %llu: the file ends at byte %llu, it is "
				       "truncated",
				what, (ull)g->at, (ull)g->model->source_bytes);
	if (g->at > MRS_MODEL_GGUF_HEADER_MAX || bytes > MRS_MODEL_GGUF_HEADER_MAX - g->at)
		return mrs_fail(-E2BIG,
				FORMAT ": %s at byte %llu: the header passes %llu bytes, which "
				       "is the limit",
				what, (ull)g->at, (ull)MRS_MODEL_GGUF_HEADER_MAX);
	return 0;
}

static int get(struct gguf *g, unsigned bytes, const char *what, uint64_t *value)
{
	const unsigned char *p;
	int error = need(g, bytes, what);

	if (error)
		return error;
	p = mrs_reader_at(g->reader, g->at, bytes, &error);
	if (!p)
		return error;
	*value = bytes == 8 ? mrs_le64(p) : bytes == 4 ? mrs_le32(p) : *p;
	g->at += bytes;
	return 0;
}

/* A string of 1 to limit bytes, into g->text. */
static int get_text(struct gguf *g, uint64_t limit, const char *what)
{
	uint64_t bytes = 0, at = g->at;
	int error = get(g, 8, what, &bytes);

	if (error)
		return error;
	if (bytes > limit)
		return mrs_fail(-E2BIG, FORMAT ": %s at byte %llu: %llu bytes, the limit is %llu",
				what, (ull)at, (ull)bytes, (ull)limit);
	error = need(g, bytes, what);
	if (!error)
		error = mrs_reader_copy(g->reader, g->at, g->text, bytes);
	if (error)
		return error;
	g->text_bytes = bytes;
	g->at += bytes;
	if (!bytes || !mrs_utf8_valid(g->text, bytes))
		return mrs_fail(-EINVAL,
				FORMAT ": %s at byte %llu is not UTF-8 text of at least one "
				       "byte without zero bytes",
				what, (ull)at);
	return 0;
}

static int skip_string(struct gguf *g)
{
	uint64_t bytes;
	int error = get(g, 8, "a string", &bytes);

	if (!error)
		error = need(g, bytes, "a string");
	if (!error)
		g->at += bytes;
	return error;
}

static int skip_value(struct gguf *g, uint64_t type, unsigned depth);

static int skip_array(struct gguf *g, unsigned depth)
{
	uint64_t at = g->at, type, count;
	int error = get(g, 4, "an array", &type);

	if (!error)
		error = get(g, 8, "an array", &count);
	if (error)
		return error;
	if (type >= VALUE_COUNT)
		return mrs_fail(-EINVAL,
				FORMAT ": array at byte %llu: element type %llu, the last one "
				       "known is %d",
				(ull)at, (ull)type, VALUE_COUNT - 1);
	if (depth == MRS_MODEL_NEST_MAX)
		return mrs_fail(-E2BIG,
				FORMAT ": array at byte %llu: nested more than %u deep, which "
				       "is the limit",
				(ull)at, MRS_MODEL_NEST_MAX);
	if (value_bytes[type]) {
		if (count > MRS_MODEL_GGUF_HEADER_MAX)
			return mrs_fail(-E2BIG,
					FORMAT ": array at byte %llu: %llu elements, the limit "
					       "is %llu",
					(ull)at, (ull)count, (ull)MRS_MODEL_GGUF_HEADER_MAX);
		error = need(g, count * value_bytes[type], "an array");
		if (!error)
			g->at += count * value_bytes[type];
		return error;
	}
	/* Each element takes bytes of the file, so a false count ends with it. */
	for (uint64_t i = 0; i < count && !error; i++)
		error = skip_value(g, type, depth + 1);
	return error;
}

static int skip_value(struct gguf *g, uint64_t type, unsigned depth)
{
	int error;

	if (type == VALUE_STRING)
		return skip_string(g);
	if (type == VALUE_ARRAY)
		return skip_array(g, depth);
	error = need(g, value_bytes[type], "a value");
	if (!error)
		g->at += value_bytes[type];
	return error;
}

static int read_alignment(struct gguf *g, uint64_t type)
{
	uint64_t at = g->at, value = 0;
	int error;

	if (type != VALUE_U32)
		return mrs_fail(-EINVAL,
				FORMAT ": general.alignment at byte %llu has value type %llu, "
				       "not uint32 (%d)",
				(ull)at, (ull)type, VALUE_U32);
	error = get(g, 4, "general.alignment", &value);
	if (error)
		return error;
	if (!value || value & (value - 1) || value > MRS_MODEL_ALIGN_MAX)
		return mrs_fail(-EINVAL,
				FORMAT ": general.alignment at byte %llu is %llu, not a power "
				       "of two from 1 to %llu",
				(ull)at, (ull)value, (ull)MRS_MODEL_ALIGN_MAX);
	g->alignment = (uint32_t)value;
	return 0;
}

static int read_pair(struct gguf *g)
{
	uint64_t at = g->at, type;
	int error = get_text(g, MRS_MODEL_KEY_BYTES_MAX, "a key");

	if (!error)
		error = mrs_keys_add(&g->keys, g->text, g->text_bytes, at);
	if (!error)
		error = get(g, 4, "a value type", &type);
	if (error)
		return error;
	if (type >= VALUE_COUNT)
		return mrs_fail(-EINVAL,
				FORMAT ": value type %llu at byte %llu, the last one known is "
				       "%d",
				(ull)type, (ull)g->at - 4, VALUE_COUNT - 1);
	if (g->text_bytes == 17 && !memcmp(g->text, "general.alignment", 17))
		return read_alignment(g, type);
	return skip_value(g, type, 1);
}

/* ---- tensor infos
 * ------------------------------------------------------------------------------------ */

static int read_shape(struct gguf *g, struct mrs_tensor *tensor)
{
	uint64_t rank;
	int error = get(g, 4, "a number of dimensions", &rank);

	if (error)
		return error;
	if (rank > GGUF_RANK_MAX)
		return mrs_fail(-E2BIG,
				FORMAT ": the tensor at byte %llu has %llu dimensions, the "
				       "limit is %u",
				(ull)tensor->at, (ull)rank, GGUF_RANK_MAX);
	tensor->rank = (uint16_t)rank;
	/* The file has the innermost dimension first. */
	for (uint32_t i = 0; i < tensor->rank && !error; i++)
		error = get(g, 8, "a dimension", &tensor->shape[tensor->rank - 1 - i]);
	return error;
}

/* Shape and type agree, and how many bytes that makes. */
static int check_size(struct gguf *g, struct mrs_tensor *tensor, const char *text)
{
	uint64_t elements, row = tensor->rank ? tensor->shape[tensor->rank - 1] : 1;
	uint32_t block;
	bool partial;

	if (mrs_tensor_size(tensor, &elements, &tensor->bytes, &partial))
		return mrs_fail(-EINVAL,
				FORMAT ": tensor '%s' at byte %llu: the product of its shape "
				       "and type passes 2^63",
				text, (ull)tensor->at);
	morsel_type_block(tensor->type, &block, NULL);
	if (row % block)
		return mrs_fail(-EINVAL,
				FORMAT ": tensor '%s' at byte %llu: rows of %llu elements are "
				       "not whole blocks of %u (type %s)",
				text, (ull)tensor->at, (ull)row, block,
				morsel_type_name(tensor->type));
	return 0;
}

static int read_info(struct gguf *g)
{
	struct mrs_tensor tensor = {.at = g->at};
	char text[MRS_NAME_TEXT_BYTES];
	uint64_t type, type_at;
	int error = get_text(g, MORSEL_TENSOR_NAME_MAX, "a tensor's name");

	if (error)
		return error;
	mrs_name_text(g->text, g->text_bytes, text);
	error = read_shape(g, &tensor);
	type_at = g->at;
	if (!error)
		error = get(g, 4, "a tensor's type", &type);
	if (!error)
		error = get(g, 8, "a tensor's offset", &tensor.offset);
	if (error)
		return error;
	if (type >= mrs_array_length(types) || !types[type])
		return mrs_fail(-EINVAL,
				FORMAT ": tensor '%s' at byte %llu: type %llu at byte %llu is "
				       "not known",
				text, (ull)tensor.at, (ull)type, (ull)type_at);
	tensor.type = types[type];
	error = check_size(g, &tensor, text);
	if (error)
		return error;
	if (tensor.offset % g->alignment)
		return mrs_fail(-EINVAL,
				FORMAT ": tensor '%s' at byte %llu: its offset %llu is not a "
				       "multiple of the alignment %u",
				text, (ull)tensor.at, (ull)tensor.offset, g->alignment);
	return mrs_model_add(g->model, &tensor, g->text, g->text_bytes);
}

/* Offsets count from the data, whose place is known only now. */
static int place_tensors(struct gguf *g)
{
	uint64_t data = mrs_round_up(g->at, g->alignment);
	char text[MRS_NAME_TEXT_BYTES];

	for (uint64_t i = 0; i < g->model->count; i++) {
		struct mrs_tensor *t = &g->model->tensors[i];
		uint64_t end;

		if (__builtin_add_overflow(data, t->offset, &t->offset) ||
		    __builtin_add_overflow(t->offset, t->bytes, &end) ||
		    end > g->model->source_bytes)
			return mrs_fail(
				-EINVAL,
				FORMAT ": tensor '%s' at byte %llu: its %llu bytes do "
				       "not lie in the file, which has %llu: it is truncated",
				mrs_name_text(g->model->names + t->name, t->name_bytes, text),
				(ull)t->at, (ull)t->bytes, (ull)g->model->source_bytes);
		t->source = t->offset;
	}
	return 0;
}

/* ---- the whole
 * --------------------------------------------------------------------------------------- */

static int read_version(struct gguf *g)
{
	uint64_t version = 0;
	int error = get(g, 4, "the version", &version);

	if (error)
		return error;
	if (version == 1)
		return mrs_fail(-EOPNOTSUPP,
				FORMAT ": byte 4: version 1 is not read, convert the file "
				       "to version 3");
	if (version && !(version & 0xffff))
		return mrs_fail(-EOPNOTSUPP,
				FORMAT ": byte 4: a big-endian file is not read, convert "
				       "it to little-endian");
	if (version != 2 && version != 3)
		return mrs_fail(-EOPNOTSUPP,
				FORMAT ": byte 4: version %llu is not read, only 2 and 3",
				(ull)version);
	return 0;
}

/* The counts, held against the size of the file before anything is made for them. */
static int read_counts(struct gguf *g)
{
	uint64_t rest;
	int error = get(g, 8, "the number of tensors", &g->tensors);

	if (!error)
		error = get(g, 8, "the number of keys", &g->pairs);
	if (error)
		return error;
	rest = g->model->source_bytes - g->at;
	if (g->tensors > MORSEL_TENSORS_MAX)
		return mrs_fail(-E2BIG, FORMAT ": byte 8: %llu tensors, the limit is %u",
				(ull)g->tensors, MORSEL_TENSORS_MAX);
	if (g->pairs > MRS_MODEL_KEYS_MAX)
		return mrs_fail(-E2BIG, FORMAT ": byte 16: %llu keys, the limit is %u",
				(ull)g->pairs, MRS_MODEL_KEYS_MAX);
	if (g->tensors * INFO_BYTES_MIN + g->pairs * PAIR_BYTES_MIN > rest)
		return mrs_fail(-EINVAL,
				FORMAT ": byte 8: %llu tensors and %llu keys do not fit in the "
				       "%llu bytes that follow: the file is truncated",
				(ull)g->tensors, (ull)g->pairs, (ull)rest);
	return 0;
}

static int read_all(struct gguf *g)
{
	int error = read_version(g);

	if (!error)
		error = read_counts(g);
	for (uint64_t i = 0; i < g->pairs && !error; i++)
		error = read_pair(g);
	if (!error)
		error = mrs_keys_check(&g->keys, FORMAT);
	for (uint64_t i = 0; i < g->tensors && !error; i++)
		error = read_info(g);
	return error ? error : place_tensors(g);
}

int mrs_gguf_parse(struct mrs_reader *reader, struct mrs_model *model)
{
	struct gguf g = {.reader = reader, .model = model, .at = 4, .alignment = ALIGN_DEFAULT};
	int error;

	g.text = malloc(MRS_MODEL_KEY_BYTES_MAX);
	if (!g.text)
		return mrs_fail(-ENOMEM, "no memory for a key of %u bytes",
				MRS_MODEL_KEY_BYTES_MAX);
	error = read_all(&g);
	mrs_keys_free(&g.keys);
	free(g.text);
	return error;
}
