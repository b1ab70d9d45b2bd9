/*
 * One ONNX TensorProto: which type and shape, and where its elements are.
 *
 * Elements stand in exactly one of seven fields. raw_data, and float_data and double_data in one
 * packed piece, are arrays in the file and are listed as such. Everything else (variable-length
 * integers, strings, values one by one) is counted against the shape and listed as encoded.
 */
#include "model/onnx.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/base.h"

typedef unsigned long long ull;

/* Fields of TensorProto. */
enum {
	FIELD_DIMS = 1,
	FIELD_TYPE = 2,
	FIELD_SEGMENT = 3,
	FIELD_FLOAT = 4,
	FIELD_INT32 = 5,
	FIELD_STRING = 6,
	FIELD_INT64 = 7,
	FIELD_NAME = 8,
	FIELD_RAW = 9,
	FIELD_DOUBLE = 10,
	FIELD_UINT64 = 11,
	FIELD_EXTERNAL = 13,
	FIELD_LOCATION = 14,
};

/* The typed fields, and what one value of each is. */
enum kind { KIND_FLOAT, KIND_DOUBLE, KIND_INT32, KIND_INT64, KIND_UINT64, KIND_STRING, KIND_COUNT };

static const struct {
	uint32_t number;
	enum mrs_wire wire; /* of a value that is not packed */
	uint32_t bytes;	    /* of a value in a packed piece; 0: a varint */
	const char *name;
} kinds[KIND_COUNT] = {
	[KIND_FLOAT] = {FIELD_FLOAT, MRS_WIRE_32, 4, "float_data"},
	[KIND_DOUBLE] = {FIELD_DOUBLE, MRS_WIRE_64, 8, "double_data"},
	[KIND_INT32] = {FIELD_INT32, MRS_WIRE_VARINT, 0, "int32_data"},
	[KIND_INT64] = {FIELD_INT64, MRS_WIRE_VARINT, 0, "int64_data"},
	[KIND_UINT64] = {FIELD_UINT64, MRS_WIRE_VARINT, 0, "uint64_data"},
	[KIND_STRING] = {FIELD_STRING, MRS_WIRE_BYTES, 0, "string_data"},
};

/* By the number that stands in the file: our type, and the typed field that it may use. */
static const struct {
	uint8_t type;
	uint8_t kind;
	uint8_t values; /* of the field for one element; 0: one value for a packed byte */
} types[] = {
	[1] = {MORSEL_TYPE_F32, KIND_FLOAT, 1},
	[2] = {MORSEL_TYPE_U8, KIND_INT32, 1},
	[3] = {MORSEL_TYPE_I8, KIND_INT32, 1},
	[4] = {MORSEL_TYPE_U16, KIND_INT32, 1},
	[5] = {MORSEL_TYPE_I16, KIND_INT32, 1},
	[6] = {MORSEL_TYPE_I32, KIND_INT32, 1},
	[7] = {MORSEL_TYPE_I64, KIND_INT64, 1},
	[8] = {MORSEL_TYPE_STRING, KIND_STRING, 1},
	[9] = {MORSEL_TYPE_BOOL, KIND_INT32, 1},
	[10] = {MORSEL_TYPE_F16, KIND_INT32, 1},
	[11] = {MORSEL_TYPE_F64, KIND_DOUBLE, 1},
	[12] = {MORSEL_TYPE_U32, KIND_UINT64, 1},
	[13] = {MORSEL_TYPE_U64, KIND_UINT64, 1},
	[14] = {MORSEL_TYPE_C64, KIND_FLOAT, 2},
	[15] = {MORSEL_TYPE_C128, KIND_DOUBLE, 2},
	[16] = {MORSEL_TYPE_BF16, KIND_INT32, 1},
	[17] = {MORSEL_TYPE_F8_E4M3, KIND_INT32, 1},
	[18] = {MORSEL_TYPE_F8_E4M3FNUZ, KIND_INT32, 1},
	[19] = {MORSEL_TYPE_F8_E5M2, KIND_INT32, 1},
	[20] = {MORSEL_TYPE_F8_E5M2FNUZ, KIND_INT32, 1},
	[21] = {MORSEL_TYPE_U4, KIND_INT32, 0},
	[22] = {MORSEL_TYPE_I4, KIND_INT32, 0},
	[23] = {MORSEL_TYPE_F4_E2M1, KIND_INT32, 0},
	[24] = {MORSEL_TYPE_F8_E8M0, KIND_INT32, 1},
	[25] = {MORSEL_TYPE_U2, KIND_INT32, 0},
	[26] = {MORSEL_TYPE_I2, KIND_INT32, 0},
};

struct stretch {
	uint64_t at;
	uint64_t bytes;
};

struct proto {
	struct mrs_tensor tensor;
	uint32_t number; /* of its type, in the file */
	struct stretch message, name, raw, location;
	bool raw_seen, type_seen, external;
	uint64_t values[KIND_COUNT];
	uint64_t pieces[KIND_COUNT];
	struct stretch packed[KIND_COUNT]; /* the last packed piece */
};

static int bad(const struct mrs_onnx *onnx, const struct proto *proto, const char *why)
{
	char text[MRS_NAME_TEXT_BYTES];
	size_t length = mrs_min(onnx->path.length, (size_t)MORSEL_TENSOR_NAME_MAX);

	return mrs_fail(-EINVAL, "onnx: tensor '%s' at byte %llu: %s",
			length ? mrs_name_text(onnx->path.text, length, text) : "(not named yet)",
			(ull)proto->message.at, why);
}

/* ---- reading the fields
 * ------------------------------------------------------------------------------ */

static int add_dimension(struct proto *proto, uint64_t at, uint64_t value)
{
	struct mrs_tensor *t = &proto->tensor;

	if (value > INT64_MAX)
		return mrs_fail(-EINVAL,
				"onnx: tensor at byte %llu: negative dimension at byte %llu",
				(ull)proto->message.at, (ull)at);
	if (t->rank == MORSEL_TENSOR_RANK_MAX)
		return mrs_fail(-E2BIG,
				"onnx: tensor at byte %llu: more than %d dimensions, which is "
				"the limit",
				(ull)proto->message.at, MORSEL_TENSOR_RANK_MAX);
	t->shape[t->rank++] = value;
	return 0;
}

static int read_dims(struct mrs_onnx *onnx, struct proto *proto, const struct mrs_field *field)
{
	uint64_t at = field->data, end = field->data + field->bytes;
	const char *why = NULL;

	if (field->wire == MRS_WIRE_VARINT)
		return add_dimension(proto, at, field->value);
	if (mrs_onnx_wire(field, MRS_WIRE_BYTES, "a shape"))
		return -EINVAL;
	while (at < end) {
		uint64_t from = at, value;
		int error = mrs_varint_take(onnx->reader, &at, end, &value, &why);

		if (error)
			return why ? bad(onnx, proto, why) : error;
		error = add_dimension(proto, from, value);
		if (error)
			return error;
	}
	return 0;
}

/* How many varints a packed piece holds; they are checked to be whole. */
static int count_varints(struct mrs_onnx *onnx, struct proto *proto, const struct mrs_field *field,
			 uint64_t *count)
{
	uint64_t at = field->data, end = field->data + field->bytes, value;
	const char *why = NULL;

	for (*count = 0; at < end; ++*count) {
		int error = mrs_varint_take(onnx->reader, &at, end, &value, &why);

		if (error)
			return why ? bad(onnx, proto, why) : error;
	}
	return 0;
}

static int read_packed(struct mrs_onnx *onnx, struct proto *proto, enum kind kind,
		       const struct mrs_field *field)
{
	uint64_t count = 0;
	int error = 0;

	if (!kinds[kind].bytes)
		error = count_varints(onnx, proto, field, &count);
	else if (field->bytes % kinds[kind].bytes)
		error = bad(onnx, proto, "a packed piece of its data does not hold whole values");
	else
		count = field->bytes / kinds[kind].bytes;
	if (error)
		return error;
	proto->packed[kind] = (struct stretch){field->data, field->bytes};
	proto->values[kind] += count;
	proto->pieces[kind]++;
	return 0;
}

static int read_values(struct mrs_onnx *onnx, struct proto *proto, enum kind kind,
		       const struct mrs_field *field)
{
	if (kind != KIND_STRING && field->wire == MRS_WIRE_BYTES)
		return read_packed(onnx, proto, kind, field);
	if (mrs_onnx_wire(field, kinds[kind].wire, kinds[kind].name))
		return -EINVAL;
	proto->values[kind]++;
	proto->pieces[kind]++;
	return 0;
}

/* One entry of external_data: only where the file is matters here. */
static int read_external(struct mrs_onnx *onnx, struct proto *proto, const struct mrs_field *entry)
{
	uint64_t at = entry->data, end = entry->data + entry->bytes;
	struct stretch value = {0};
	struct mrs_field field;
	bool location = false;
	int more;

	proto->external = true;
	while ((more = mrs_field_next(onnx->reader, &at, end, &field, "an external_data entry")) ==
	       1) {
		char key[8];
		int error = 0;

		if (field.number == 2)
			value = (struct stretch){field.data, field.bytes};
		if (field.number != 1 || field.bytes != sizeof(key))
			continue;
		error = mrs_reader_copy(onnx->reader, field.data, key, sizeof(key));
		if (error)
			return error;
		location = !memcmp(key, "location", sizeof(key));
	}
	if (location)
		proto->location = value;
	return more;
}

static int read_text(struct proto *proto, const struct mrs_field *field, struct stretch *to,
		     bool *seen, const char *what)
{
	if (mrs_onnx_wire(field, MRS_WIRE_BYTES, what))
		return -EINVAL;
	if (*seen)
		return mrs_fail(-EINVAL,
				"onnx: tensor at byte %llu: %s at byte %llu stands there for "
				"the second time",
				(ull)proto->message.at, what, (ull)field->at);
	*seen = true;
	*to = (struct stretch){field->data, field->bytes};
	return 0;
}

static int read_number(struct proto *proto, const struct mrs_field *field)
{
	if (mrs_onnx_wire(field, MRS_WIRE_VARINT,
			  field->number == FIELD_TYPE ? "a data_type" : "a data_location"))
		return -EINVAL;
	if (field->number == FIELD_LOCATION) {
		proto->external |= field->value == 1;
		return 0;
	}
	if (proto->type_seen)
		return mrs_fail(-EINVAL,
				"onnx: tensor at byte %llu: data_type at byte %llu stands there "
				"for the second time",
				(ull)proto->message.at, (ull)field->at);
	if (field->value >= mrs_array_length(types) || !types[field->value].type)
		return mrs_fail(-EINVAL,
				"onnx: tensor at byte %llu: data_type %llu at byte %llu is not "
				"known",
				(ull)proto->message.at, (ull)field->value, (ull)field->at);
	proto->type_seen = true;
	proto->number = (uint32_t)field->value;
	proto->tensor.type = types[field->value].type;
	return 0;
}

static int read_field(struct mrs_onnx *onnx, struct proto *proto, const struct mrs_field *field,
		      bool *name_seen)
{
	switch (field->number) {
	case FIELD_DIMS:
		return read_dims(onnx, proto, field);
	case FIELD_TYPE:
	case FIELD_LOCATION:
		return read_number(proto, field);
	case FIELD_SEGMENT:
		return mrs_fail(-EOPNOTSUPP,
				"onnx: tensor at byte %llu: it is one segment of a tensor, "
				"which is not read",
				(ull)proto->message.at);
	case FIELD_NAME:
		return read_text(proto, field, &proto->name, name_seen, "a name");
	case FIELD_RAW:
		return read_text(proto, field, &proto->raw, &proto->raw_seen, "raw_data");
	case FIELD_EXTERNAL:
		if (mrs_onnx_wire(field, MRS_WIRE_BYTES, "external_data"))
			return -EINVAL;
		return read_external(onnx, proto, field);
	}
	for (int kind = 0; kind < KIND_COUNT; kind++)
		if (field->number == kinds[kind].number)
			return read_values(onnx, proto, kind, field);
	return 0;
}

static int read_fields(struct mrs_onnx *onnx, struct proto *proto)
{
	uint64_t at = proto->message.at, end = at + proto->message.bytes;
	struct mrs_field field;
	bool name_seen = false;
	int more;

	while ((more = mrs_field_next(onnx->reader, &at, end, &field, "a tensor")) == 1) {
		int error = read_field(onnx, proto, &field, &name_seen);

		if (error)
			return error;
	}
	return more;
}

/* ---- judging them
 * ------------------------------------------------------------------------------------ */

/* Elements of the shape and the bytes of an array of them; strings have none. */
static int sizes(const struct mrs_onnx *onnx, const struct proto *proto, uint64_t *elements,
		 uint64_t *bytes)
{
	struct mrs_tensor t = proto->tensor;
	bool partial;

	if (t.type == MORSEL_TYPE_STRING)
		t.type = MORSEL_TYPE_U8;
	if (mrs_tensor_size(&t, elements, bytes, &partial))
		return bad(onnx, proto, "the product of its shape and type passes 2^63");
	return 0;
}

/* How many values of its typed field the elements take. */
static uint64_t values_wanted(const struct proto *proto, uint64_t elements, uint64_t bytes)
{
	uint64_t values = types[proto->number].values;

	return values ? elements * values : bytes;
}

static int check_raw(struct mrs_onnx *onnx, struct proto *proto, uint64_t bytes)
{
	char why[128];

	if (proto->tensor.type == MORSEL_TYPE_STRING)
		return bad(onnx, proto, "strings cannot stand in raw_data");
	if (proto->raw.bytes != bytes) {
		snprintf(why, sizeof(why),
			 "its shape and type take %llu bytes, its raw_data has %llu", (ull)bytes,
			 (ull)proto->raw.bytes);
		return bad(onnx, proto, why);
	}
	proto->tensor.offset = proto->raw.at;
	proto->tensor.bytes = bytes;
	return 0;
}

static int check_values(struct mrs_onnx *onnx, struct proto *proto, uint64_t wanted)
{
	enum kind kind = types[proto->number].kind;
	char why[160];

	for (int other = 0; other < KIND_COUNT; other++) {
		if (other == (int)kind || !proto->values[other])
			continue;
		snprintf(why, sizeof(why), "it has values in %s, which its type %s does not use",
			 kinds[other].name, morsel_type_name(proto->tensor.type));
		return bad(onnx, proto, why);
	}
	if (proto->values[kind] != wanted) {
		snprintf(why, sizeof(why), "its shape and type take %llu values, its %s has %llu",
			 (ull)wanted, kinds[kind].name, (ull)proto->values[kind]);
		return bad(onnx, proto, why);
	}
	if (kinds[kind].bytes && proto->pieces[kind] == 1 && proto->packed[kind].bytes) {
		proto->tensor.offset = proto->packed[kind].at;
		proto->tensor.bytes = proto->packed[kind].bytes;
	} else {
		proto->tensor.offset = proto->message.at;
		proto->tensor.bytes = proto->message.bytes;
		proto->tensor.flags = MORSEL_TENSOR_ENCODED;
	}
	return 0;
}

/* The data are in another file, which is not read: said once for a model. */
static int tell_external(struct mrs_onnx *onnx, struct proto *proto)
{
	char text[MRS_NAME_TEXT_BYTES], where[MRS_NAME_TEXT_BYTES], file[MRS_NAME_TEXT_BYTES] = "";
	size_t length = mrs_min(onnx->path.length, (size_t)MORSEL_TENSOR_NAME_MAX);
	size_t bytes = mrs_min(proto->location.bytes, sizeof(file));
	int error;

	proto->tensor.flags = MORSEL_TENSOR_EXTERNAL;
	if (onnx->external_told)
		return 0;
	error = mrs_reader_copy(onnx->reader, proto->location.at, file, bytes);
	if (error)
		return error;
	onnx->external_told = true;
	mrs_log(MRS_LOG_WARN,
		"onnx: tensor '%s' at byte %llu: its data are in another file, '%s', "
		"which is not read",
		mrs_name_text(onnx->path.text, length, text), (ull)proto->message.at,
		mrs_name_text(file, bytes, where));
	return 0;
}

static int judge(struct mrs_onnx *onnx, struct proto *proto)
{
	uint64_t elements, bytes, values = 0;
	int error;

	if (!proto->type_seen)
		return bad(onnx, proto, "it has no data_type");
	error = sizes(onnx, proto, &elements, &bytes);
	if (error)
		return error;
	for (int kind = 0; kind < KIND_COUNT; kind++)
		values += proto->values[kind];
	if ((proto->raw.bytes != 0) + (values != 0) + proto->external > 1)
		return bad(onnx, proto, "its data stand in more than one place");
	if (proto->external)
		return tell_external(onnx, proto);
	if (proto->raw.bytes || (!values && proto->raw_seen && !elements))
		return check_raw(onnx, proto, bytes);
	if (elements && !values)
		return bad(onnx, proto, "it has a shape but no data");
	if (values)
		return check_values(onnx, proto, values_wanted(proto, elements, bytes));
	proto->tensor.offset = proto->message.at;
	return 0;
}

int mrs_onnx_tensor(struct mrs_onnx *onnx, const struct mrs_field *field, bool own_name)
{
	struct proto proto = {.message = {field->data, field->bytes}, .tensor.at = field->data};
	int error = mrs_onnx_enter(onnx, field, "a tensor");

	if (error)
		return error;
	error = read_fields(onnx, &proto);
	if (!error && own_name && !proto.name.bytes)
		error = bad(onnx, &proto, "it has no name");
	if (!error && own_name)
		error = mrs_onnx_path_add_file(onnx, proto.name.at, proto.name.bytes);
	if (!error)
		error = judge(onnx, &proto);
	if (!error && onnx->path.length > MORSEL_TENSOR_NAME_MAX)
		error = mrs_fail(-E2BIG,
				 "onnx: tensor at byte %llu: its name with those of the nodes "
				 "around it has %zu bytes, the limit is %d",
				 (ull)proto.message.at, onnx->path.length, MORSEL_TENSOR_NAME_MAX);
	if (!error)
		error = mrs_model_add(onnx->model, &proto.tensor, onnx->path.text,
				      onnx->path.length);
	mrs_onnx_leave(onnx);
	return error;
}
