/*
 * The wire format of Protocol Buffers. See protobuf.h.
 */
#include "model/protobuf.h"

#include <errno.h>

#include "base/base.h"

#define VARINT_BYTES_MAX 10
#define NUMBER_MAX	 ((1u << 29) - 1)

int mrs_varint_take(struct mrs_reader *reader, uint64_t *at, uint64_t end, uint64_t *value,
		    const char **why)
{
	uint64_t made = 0;

	for (unsigned i = 0; i < VARINT_BYTES_MAX; i++) {
		int c;

		if (*at + i >= end) {
			*why = "a number is cut off";
			return -EINVAL;
		}
		c = mrs_reader_byte(reader, *at + i);
		if (c < 0)
			return c;
		if (i == VARINT_BYTES_MAX - 1 && c > 1)
			break;
		made |= (uint64_t)(c & 0x7f) << (7 * i);
		if (!(c & 0x80)) {
			*value = made;
			*at += i + 1;
			return 0;
		}
	}
	*why = "a number is longer than 64 bits";
	return -EINVAL;
}

static int take_tag(struct mrs_reader *reader, uint64_t *next, uint64_t end,
		    struct mrs_field *field, const char **why)
{
	uint64_t tag;
	int error = mrs_varint_take(reader, next, end, &tag, why);

	if (error)
		return error;
	field->number = (uint32_t)(tag >> 3);
	field->wire = tag & 7;
	if (!field->number || tag >> 3 > NUMBER_MAX) {
		*why = "a field number that does not exist";
		return -EINVAL;
	}
	return 0;
}

static int take_value(struct mrs_reader *reader, uint64_t *next, uint64_t end,
		      struct mrs_field *field, const char **why)
{
	uint64_t start = *next;
	int error = 0;

	switch (field->wire) {
	case MRS_WIRE_VARINT:
		error = mrs_varint_take(reader, next, end, &field->value, why);
		field->data = start;
		field->bytes = *next - start;
		return error;
	case MRS_WIRE_64:
	case MRS_WIRE_32:
		field->bytes = field->wire == MRS_WIRE_64 ? 8 : 4;
		break;
	case MRS_WIRE_BYTES:
		error = mrs_varint_take(reader, next, end, &field->bytes, why);
		break;
	default:
		*why = "a wire type that these files do not use";
		return -EINVAL;
	}
	if (error)
		return error;
	field->data = *next;
	if (field->bytes > end - *next) {
		*why = "its length reaches past the end of what it is in";
		return -EINVAL;
	}
	*next += field->bytes;
	return 0;
}

int mrs_field_take(struct mrs_reader *reader, uint64_t *at, uint64_t end, struct mrs_field *field,
		   const char **why)
{
	uint64_t next = *at;
	int error;

	*field = (struct mrs_field){.at = *at};
	if (*at >= end)
		return 0;
	error = take_tag(reader, &next, end, field, why);
	if (!error)
		error = take_value(reader, &next, end, field, why);
	if (error)
		return error;
	*at = next;
	return 1;
}

int mrs_field_next(struct mrs_reader *reader, uint64_t *at, uint64_t end, struct mrs_field *field,
		   const char *what)
{
	const char *why = NULL;
	int result = mrs_field_take(reader, at, end, field, &why);

	if (result < 0 && why)
		return mrs_fail(-EINVAL, "onnx: field %u of %s at byte %llu: %s", field->number,
				what, (unsigned long long)field->at, why);
	return result;
}
