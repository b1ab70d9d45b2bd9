/*
 * safetensors: eight bytes of length, a JSON object of that length, then the data.
 *
 *	0        8                    8 + n                         end
 *	| n (LE) | { "name": {...} }  | data, offsets count from here |
 *
 * The format demands that the tensors cover the data exactly: no hole, no overlap, nothing after.
 */
#include "model/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "model/json.h"

typedef unsigned long long ull;

#define FORMAT	     "safetensors"
#define LENGTH_BYTES 8

/*
 * There is no magic number. A file claims to be safetensors if its JSON begins as that of every
 * writer does and its length is not text: a length has zero bytes (below 2^56) or 0xff bytes.
 */
int mrs_safetensors_claims(struct mrs_reader *reader)
{
	const unsigned char *p;
	int error = 0;

	if (reader->source->bytes < LENGTH_BYTES + 2)
		return 0;
	p = mrs_reader_at(reader, 0, LENGTH_BYTES + 2, &error);
	if (!p)
		return error;
	return p[8] == '{' && p[9] && strchr("\"} \t\r\n", p[9]) && (!p[7] || p[7] == 0xff);
}

struct header {
	struct mrs_json json;
	struct mrs_model *model;
	struct mrs_keys metadata;
	uint64_t data; /* byte of the file at which the data begin */
	bool metadata_seen;
	/* The name of the tensor that is being read; json.text is overwritten by its dtype. */
	char name[MORSEL_TENSOR_NAME_MAX + 1];
	size_t name_bytes;
	uint64_t at;
};

/* One tensor's entry, with a bit for each of its three keys. */
enum { SEEN_DTYPE = 1, SEEN_SHAPE = 2, SEEN_OFFSETS = 4, SEEN_ALL = 7 };

struct entry {
	struct mrs_tensor tensor;
	uint64_t begin, end;
	unsigned seen;
};

static const struct dtype {
	const char *text;
	enum morsel_type type;
} dtypes[] = {
	{"BOOL", MORSEL_TYPE_BOOL},	  {"I8", MORSEL_TYPE_I8},
	{"U8", MORSEL_TYPE_U8},		  {"I16", MORSEL_TYPE_I16},
	{"U16", MORSEL_TYPE_U16},	  {"I32", MORSEL_TYPE_I32},
	{"U32", MORSEL_TYPE_U32},	  {"I64", MORSEL_TYPE_I64},
	{"U64", MORSEL_TYPE_U64},	  {"F16", MORSEL_TYPE_F16},
	{"BF16", MORSEL_TYPE_BF16},	  {"F32", MORSEL_TYPE_F32},
	{"F64", MORSEL_TYPE_F64},	  {"C64", MORSEL_TYPE_C64},
	{"F8_E4M3", MORSEL_TYPE_F8_E4M3}, {"F8_E4M3FNUZ", MORSEL_TYPE_F8_E4M3FNUZ},
	{"F8_E5M2", MORSEL_TYPE_F8_E5M2}, {"F8_E5M2FNUZ", MORSEL_TYPE_F8_E5M2FNUZ},
	{"F8_E8M0", MORSEL_TYPE_F8_E8M0}, {"F6_E2M3", MORSEL_TYPE_F6_E2M3},
	{"F6_E3M2", MORSEL_TYPE_F6_E3M2}, {"F4", MORSEL_TYPE_F4_E2M1},
};

/* The words for the tensor that is being read; returns -EINVAL. */
static int bad(const struct header *header, const char *why)
{
	char text[MRS_NAME_TEXT_BYTES];

	return mrs_fail(-EINVAL, FORMAT ": tensor '%s' at byte %llu: %s",
			mrs_name_text(header->name, header->name_bytes, text), (ull)header->at,
			why);
}

static int read_dtype(struct header *header, struct entry *entry)
{
	char text[MRS_NAME_TEXT_BYTES], name[MRS_NAME_TEXT_BYTES];
	int error = mrs_json_string(&header->json, MRS_MODEL_KEY_BYTES_MAX);

	if (error)
		return error;
	for (size_t i = 0; i < mrs_array_length(dtypes); i++) {
		if (!strcmp(header->json.text, dtypes[i].text)) {
			entry->tensor.type = dtypes[i].type;
			return 0;
		}
	}
	return mrs_fail(-EINVAL,
			FORMAT ": tensor '%s' at byte %llu: dtype '%s' at byte %llu is not "
			       "one of this format",
			mrs_name_text(header->name, header->name_bytes, name), (ull)header->at,
			mrs_name_text(header->json.text, header->json.text_bytes, text),
			(ull)header->json.text_at);
}

static int read_shape(struct header *header, struct entry *entry)
{
	struct mrs_json *json = &header->json;
	int more, error = mrs_json_expect(json, '[');

	if (error)
		return error;
	while ((more = mrs_json_next(json, ']', !entry->tensor.rank)) == 1) {
		if (entry->tensor.rank == MORSEL_TENSOR_RANK_MAX)
			return mrs_fail(-E2BIG,
					FORMAT ": the tensor at byte %llu has more than %d "
					       "dimensions, which is the limit",
					(ull)header->at, MORSEL_TENSOR_RANK_MAX);
		error = mrs_json_count(json, &entry->tensor.shape[entry->tensor.rank]);
		if (error)
			return error;
		entry->tensor.rank++;
	}
	return more;
}

static int read_offsets(struct header *header, struct entry *entry)
{
	struct mrs_json *json = &header->json;
	int error = mrs_json_expect(json, '[');

	if (!error)
		error = mrs_json_count(json, &entry->begin);
	if (!error)
		error = mrs_json_expect(json, ',');
	if (!error)
		error = mrs_json_count(json, &entry->end);
	return error ? error : mrs_json_expect(json, ']');
}

static int read_member(struct header *header, struct entry *entry)
{
	static const struct {
		const char *key;
		unsigned bit;
		int (*read)(struct header *header, struct entry *entry);
	} members[] = {
		{"dtype", SEEN_DTYPE, read_dtype},
		{"shape", SEEN_SHAPE, read_shape},
		{"data_offsets", SEEN_OFFSETS, read_offsets},
	};
	int error = mrs_json_key(&header->json, MRS_MODEL_KEY_BYTES_MAX);

	if (error)
		return error;
	for (size_t i = 0; i < mrs_array_length(members); i++) {
		if (strcmp(header->json.text, members[i].key))
			continue;
		if (entry->seen & members[i].bit)
			return mrs_fail(-EINVAL,
					FORMAT ": key '%s' at byte %llu stands there for the "
					       "second time",
					members[i].key, (ull)header->json.text_at);
		entry->seen |= members[i].bit;
		return members[i].read(header, entry);
	}
	return mrs_json_skip(&header->json);
}

/* The entry is complete: do shape, type and offsets agree? */
static int check_entry(struct header *header, struct entry *entry)
{
	uint64_t elements, bytes, room = header->model->source_bytes - header->data;
	char text[MRS_NAME_TEXT_BYTES];
	bool partial;

	if (entry->seen != SEEN_ALL)
		return bad(header, "dtype, shape and data_offsets are needed, one is missing");
	if (mrs_tensor_size(&entry->tensor, &elements, &bytes, &partial))
		return bad(header, "the product of its shape and type passes 2^63");
	if (partial)
		return bad(header, "its elements do not fill whole bytes");
	if (entry->begin > entry->end || entry->end - entry->begin != bytes)
		return mrs_fail(-EINVAL,
				FORMAT ": tensor '%s' at byte %llu: its shape and type take "
				       "%llu bytes, its data_offsets are %llu and %llu",
				mrs_name_text(header->name, header->name_bytes, text),
				(ull)header->at, (ull)bytes, (ull)entry->begin, (ull)entry->end);
	if (entry->end > room)
		return mrs_fail(-EINVAL,
				FORMAT ": tensor '%s' at byte %llu: its data end at byte "
				       "%llu of the file, which has %llu: it is truncated",
				mrs_name_text(header->name, header->name_bytes, text),
				(ull)header->at, (ull)(header->data + entry->end),
				(ull)header->model->source_bytes);
	entry->tensor.offset = header->data + entry->begin;
	entry->tensor.bytes = bytes;
	return 0;
}

static int read_tensor(struct header *header)
{
	struct entry entry = {.tensor.at = header->json.text_at};
	int more, error;

	header->at = header->json.text_at;
	header->name_bytes = header->json.text_bytes;
	memcpy(header->name, header->json.text, header->json.text_bytes + 1);
	error = mrs_json_expect(&header->json, '{');
	if (error)
		return error;
	for (bool first = true; (more = mrs_json_next(&header->json, '}', first)) == 1;
	     first = false) {
		error = read_member(header, &entry);
		if (error)
			return error;
	}
	if (more)
		return more;
	error = check_entry(header, &entry);
	if (error)
		return error;
	return mrs_model_add(header->model, &entry.tensor, header->name, header->name_bytes);
}

/* "__metadata__": an object of strings. */
static int read_metadata(struct header *header)
{
	struct mrs_json *json = &header->json;
	int more, error;

	if (header->metadata_seen)
		return mrs_fail(-EINVAL,
				FORMAT ": key '__metadata__' at byte %llu stands there for "
				       "the second time",
				(ull)json->text_at);
	header->metadata_seen = true;
	error = mrs_json_expect(json, '{');
	if (error)
		return error;
	for (bool first = true; (more = mrs_json_next(json, '}', first)) == 1; first = false) {
		error = mrs_json_key(json, MRS_MODEL_KEY_BYTES_MAX);
		if (!error)
			error = mrs_keys_add(&header->metadata, json->text, json->text_bytes,
					     json->text_at);
		if (!error)
			error = mrs_json_string(json, MRS_MODEL_JSON_BYTES_MAX);
		if (error)
			return error;
	}
	return more ? more : mrs_keys_check(&header->metadata, FORMAT);
}

static int read_header(struct header *header)
{
	int more, error = mrs_json_expect(&header->json, '{');

	if (error)
		return error;
	for (bool first = true; (more = mrs_json_next(&header->json, '}', first)) == 1;
	     first = false) {
		error = mrs_json_key(&header->json, MORSEL_TENSOR_NAME_MAX);
		if (!error)
			error = strcmp(header->json.text, "__metadata__") ? read_tensor(header)
									  : read_metadata(header);
		if (error)
			return error;
	}
	return more ? more : mrs_json_finish(&header->json);
}

/* Every byte of the data belongs to a tensor. Overlaps are found by mrs_model_validate(). */
static int check_cover(const struct header *header)
{
	const struct mrs_model *model = header->model;
	uint32_t *order = mrs_model_sorted(model, MRS_ORDER_PLACE);
	uint64_t end = header->data;
	char text[MRS_NAME_TEXT_BYTES];
	int error = 0;

	if (!order)
		return -ENOMEM;
	for (uint64_t i = 0; i < model->count && !error; i++) {
		const struct mrs_tensor *t = &model->tensors[order[i]];

		if (t->source > end)
			error = mrs_fail(-EINVAL,
					 FORMAT ": tensor '%s' at byte %llu: its data begin "
						"at byte %llu and leave a hole from byte %llu on",
					 mrs_name_text(model->names + t->name, t->name_bytes, text),
					 (ull)t->at, (ull)t->source, (ull)end);
		end = mrs_max(end, t->source + t->bytes);
	}
	free(order);
	if (!error && end != model->source_bytes)
		error = mrs_fail(-EINVAL,
				 FORMAT ": the data end at byte %llu, but the file has %llu "
					"bytes",
				 (ull)end, (ull)model->source_bytes);
	return error;
}

int mrs_safetensors_parse(struct mrs_reader *reader, struct mrs_model *model)
{
	struct header header = {.model = model};
	const unsigned char *p;
	uint64_t length;
	int error = 0;

	p = mrs_reader_at(reader, 0, LENGTH_BYTES, &error);
	if (!p)
		return error;
	length = mrs_le64(p);
	if (length > MRS_MODEL_JSON_BYTES_MAX)
		return mrs_fail(-E2BIG, FORMAT ": byte 0: a header of %llu bytes, the limit is %u",
				(ull)length, MRS_MODEL_JSON_BYTES_MAX);
	if (length < 2 || length > model->source_bytes - LENGTH_BYTES)
		return mrs_fail(-EINVAL,
				FORMAT ": byte 0: a header of %llu bytes in a file of %llu",
				(ull)length, (ull)model->source_bytes);
	header.data = LENGTH_BYTES + length;
	mrs_json_init(&header.json, reader, LENGTH_BYTES, header.data, FORMAT);
	error = read_header(&header);
	if (!error)
		error = check_cover(&header);
	mrs_json_free(&header.json);
	mrs_keys_free(&header.metadata);
	return error;
}
