/*
 * The wire format of Protocol Buffers: fields one after the other, each a tag and a value.
 *
 * Messages are stretches [at, end) of the file; a nested message is the value of a field. Nothing
 * is copied or kept.
 */
#ifndef MRS_MODEL_PROTOBUF_H
#define MRS_MODEL_PROTOBUF_H

#include "model/internal.h"

enum mrs_wire {
	MRS_WIRE_VARINT = 0,
	MRS_WIRE_64 = 1,
	MRS_WIRE_BYTES = 2,
	MRS_WIRE_32 = 5,
};

struct mrs_field {
	uint32_t number;
	uint32_t wire;	/* enum mrs_wire */
	uint64_t at;	/* of the tag */
	uint64_t data;	/* of the value: after the length for MRS_WIRE_BYTES */
	uint64_t bytes; /* of the value */
	uint64_t value; /* of a varint */
};

/*
 * Takes the field at *at: 1, 0 at the end, or a negative errno of reading. -EINVAL comes without
 * words: *why says what is wrong with the field at *at, which is not moved. A value that reaches
 * past end is such a fault, with field filled in.
 */
int mrs_field_take(struct mrs_reader *reader, uint64_t *at, uint64_t end, struct mrs_field *field,
		   const char **why);

/* The same with words for everything. what names the message. */
int mrs_field_next(struct mrs_reader *reader, uint64_t *at, uint64_t end, struct mrs_field *field,
		   const char *what);

/* A varint at *at, as in a packed field; errors as mrs_field_take(). */
int mrs_varint_take(struct mrs_reader *reader, uint64_t *at, uint64_t end, uint64_t *value,
		    const char **why);

#endif
