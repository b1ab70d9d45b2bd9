/*
 * What the parsers of this room share: positioned reading through a window, growing the list of
 * tensors, and the rules that hold for tensors of every format.
 */
#ifndef MRS_MODEL_INTERNAL_H
#define MRS_MODEL_INTERNAL_H

#include "model/model.h"

#define MRS_READER_WINDOW 16384u

/* ---- reading --------------------------------------------------------------------------------- */

/*
 * A reader keeps the last window of its source; a source in memory is its own window. Positions are
 * bytes of the file everywhere.
 */
struct mrs_reader {
	const struct mrs_source *source;
	const unsigned char *window;
	uint64_t start;	       /* of the window */
	uint64_t bytes;	       /* in the window */
	unsigned char *buffer; /* MRS_READER_WINDOW bytes, or NULL for a source in memory */
};

int mrs_reader_init(struct mrs_reader *reader, const struct mrs_source *source);
void mrs_reader_fini(struct mrs_reader *reader);

/*
 * A pointer to bytes (at most MRS_READER_WINDOW) at offset, good until the next call; they must lie
 * within the source. NULL: the read failed, *error says how.
 */
const unsigned char *mrs_reader_at(struct mrs_reader *reader, uint64_t offset, uint64_t bytes,
				   int *error);

/* The byte at offset, or a negative errno. */
int mrs_reader_byte_slow(struct mrs_reader *reader, uint64_t offset);

static inline int mrs_reader_byte(struct mrs_reader *reader, uint64_t offset)
{
	if (offset >= reader->start && offset - reader->start < reader->bytes)
		return reader->window[offset - reader->start];
	return mrs_reader_byte_slow(reader, offset);
}

/* Copies any number of bytes, which must lie within the source. */
int mrs_reader_copy(struct mrs_reader *reader, uint64_t offset, void *to, uint64_t bytes);

static inline uint32_t mrs_le32(const unsigned char *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t mrs_le64(const unsigned char *p)
{
	return mrs_le32(p) | (uint64_t)mrs_le32(p + 4) << 32;
}

/* ---- words ----------------------------------------------------------------------------------- */

#define MRS_NAME_TEXT_BYTES 96

/* A name from a file, cut and without control characters, for a message; returns buffer. */
const char *mrs_name_text(const char *name, size_t bytes, char buffer[MRS_NAME_TEXT_BYTES]);

/* True if bytes are UTF-8 (shortest forms, no surrogates) without a zero byte. */
bool mrs_utf8_valid(const char *text, size_t bytes);

/* ---- a list of names, looked over for duplicates at the end
 * -------------------------------------- */

struct mrs_key {
	uint32_t name; /* offset in text */
	uint32_t bytes;
	uint64_t at;
};

struct mrs_keys {
	char *text;
	size_t text_bytes, text_room;
	struct mrs_key *keys;
	size_t count, room;
};

int mrs_keys_add(struct mrs_keys *keys, const char *name, size_t bytes, uint64_t at);
/* -EINVAL and the later of two equal names; format names the file's kind. Sorts the keys. */
int mrs_keys_check(struct mrs_keys *keys, const char *format);
void mrs_keys_free(struct mrs_keys *keys);

/* ---- tensors -----------------------------------------------------------------------------------
 */

/*
 * Appends tensor with that name (checked: 1 to MORSEL_TENSOR_NAME_MAX bytes of UTF-8). Its name
 * fields are filled in.
 */
int mrs_model_add(struct mrs_model *model, const struct mrs_tensor *tensor, const char *name,
		  size_t name_bytes);

/*
 * Elements of the shape, and the bytes that they take (rounded up to whole blocks; *partial says
 * that they were). -EOVERFLOW without words if either passes 2^63.
 */
int mrs_tensor_size(const struct mrs_tensor *tensor, uint64_t *elements, uint64_t *bytes,
		    bool *partial);

/* The rules for all tensors together: within the file, no overlap, no name twice. */
int mrs_model_validate(struct mrs_model *model);

/* Indices of all tensors in that order, for free(); NULL with words if memory is short. */
enum mrs_model_order { MRS_ORDER_NAME, MRS_ORDER_PLACE };
uint32_t *mrs_model_sorted(const struct mrs_model *model, enum mrs_model_order by);

/* *memory grown to hold at least count + 1 elements of size bytes. */
int mrs_grow(void *memory, uint64_t *room, uint64_t count, size_t size);

/* ---- the formats -------------------------------------------------------------------------------
 */

/* claims: 1 if the file says that it is of the format, 0 if not, or a negative errno of reading. */
int mrs_gguf_claims(struct mrs_reader *reader);
int mrs_gguf_parse(struct mrs_reader *reader, struct mrs_model *model);
int mrs_safetensors_claims(struct mrs_reader *reader);
int mrs_safetensors_parse(struct mrs_reader *reader, struct mrs_model *model);
int mrs_onnx_claims(struct mrs_reader *reader);
int mrs_onnx_parse(struct mrs_reader *reader, struct mrs_model *model);

#endif
