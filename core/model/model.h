/*
 * Model files: where in a file of ONNX, safetensors or GGUF the tensors are.
 *
 * The room turns a file's own description into one list of tensors (mrs_model_parse), can plan a
 * copy in which every tensor is aligned (mrs_model_layout_aligned), and packs the list into one
 * position-independent block that is kept beside the content (mrs_model_pack, mrs_packed_*). It
 * reads descriptions, never weights. Input is hostile: every length is checked before it is used,
 * and what is refused is refused with the byte of the file at which it went wrong.
 *
 * Limits, beside those of <morsel/tensor.h>: see MRS_MODEL_* below. Nothing here keeps state of its
 * own: any thread may parse anything.
 */
#ifndef MRS_MODEL_H
#define MRS_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <morsel/tensor.h>

/* Largest description: the JSON of a safetensors file. */
#define MRS_MODEL_JSON_BYTES_MAX 100000000u
/* Largest description: everything before the data of a GGUF file. */
#define MRS_MODEL_GGUF_HEADER_MAX ((uint64_t)1 << 30)
/* Metadata keys of a safetensors or GGUF file, and the bytes of one. */
#define MRS_MODEL_KEYS_MAX	65536u
#define MRS_MODEL_KEY_BYTES_MAX 65535u
/* Largest alignment that a GGUF file may ask for, and mrs_model_layout_aligned() gives. */
#define MRS_MODEL_ALIGN_MAX ((uint64_t)2 << 20)
/* Nested JSON values, GGUF arrays, ONNX messages (a subgraph takes 3). */
#define MRS_MODEL_NEST_MAX 64u
/* All names of a file together. */
#define MRS_MODEL_NAMES_BYTES_MAX ((size_t)256 << 20)

/*
 * Where the bytes come from. read fills bytes bytes from offset, which lie within the source, or
 * returns a negative errno and says why. memory, if not NULL, is the whole content: then read is
 * not called and nothing is copied.
 */
struct mrs_source {
	int (*read)(void *ctx, uint64_t offset, void *buffer, size_t bytes);
	void *ctx;
	uint64_t bytes;
	const void *memory;
};

/* Borrows memory, which must stay unchanged while it is parsed. */
void mrs_source_memory(struct mrs_source *source, const void *memory, uint64_t bytes);

/* Reads with pread; ctx is *fd, which stays the caller's. -errno where fstat fails. */
int mrs_source_fd(struct mrs_source *source, const int *fd);

struct mrs_tensor {
	uint64_t offset; /* as in struct morsel_tensor */
	uint64_t bytes;
	uint64_t source; /* offset in the file; the same as offset unless laid out anew */
	uint64_t at;	 /* byte of the file at which its description begins */
	uint64_t shape[MORSEL_TENSOR_RANK_MAX];
	uint32_t name; /* offset in the model's names */
	uint16_t name_bytes;
	uint16_t type;
	uint16_t rank;
	uint16_t flags;
};

/* These bytes of the file go there. */
struct mrs_piece {
	uint64_t source;
	uint64_t destination;
	uint64_t bytes;
};

struct mrs_model {
	enum morsel_format format;
	uint64_t bytes;		    /* of the content: the file's, or the layout's */
	uint64_t source_bytes;	    /* of the file */
	struct mrs_tensor *tensors; /* in the order of the file's description */
	uint64_t count;
	char *names; /* each with a final zero */
	size_t names_bytes;
	struct mrs_piece *pieces; /* NULL: the content is the file as it is */
	uint64_t piece_count;
	/* for adding */
	uint64_t tensors_room;
	size_t names_room;
};

/*
 * Detects the format by content and lists the tensors. A file that claims none of the formats is
 * MORSEL_FORMAT_BYTES without tensors. -EINVAL a file that claims a format and breaks it, -E2BIG
 * one that passes a limit, -EOPNOTSUPP a version that is not read; the words name the byte. On
 * failure model is untouched.
 */
int mrs_model_parse(const struct mrs_source *source, struct mrs_model *model);

/* Frees what parse made; a zeroed model is fine. */
void mrs_model_free(struct mrs_model *model);

static inline const char *mrs_model_name(const struct mrs_model *model, uint64_t index)
{
	return model->names + model->tensors[index].name;
}

/* The public form of one tensor. */
void mrs_model_tensor(const struct mrs_model *model, uint64_t index, struct morsel_tensor *tensor);

/*
 * Plans a content in which every tensor begins at a multiple of alignment (a power of two up to
 * MRS_MODEL_ALIGN_MAX):
 *
 *	file     | structure a | t0 | structure b | t1 | t2 |
 *	content  | a | b | pad | t0 | pad | t1 | pad | t2 |
 *
 * The file's own structure comes first, in one piece; encoded tensors are part of it. Afterwards
 * the tensors' offsets, model->bytes and model->pieces describe the content; the pieces cover the
 * file exactly once, in its order, so that they also lead back. Bytes of the content that no piece
 * covers are zero. -EINVAL alignment, -EFBIG content past 2^63, -ENOMEM; then nothing is changed.
 */
int mrs_model_layout_aligned(struct mrs_model *model, uint64_t alignment);

/* ---- the packed form: see packed.c for its layout -------------------------------------------- */

/* What mrs_model_pack() needs; at most 2 GiB. */
uint64_t mrs_model_packed_bytes(const struct mrs_model *model);

/* Writes the packed form into buffer (8-byte aligned, bytes of it). -ENOSPC if it is too small. */
int mrs_model_pack(const struct mrs_model *model, void *buffer, uint64_t bytes);

/*
 * packed (8-byte aligned) may hold anything. mrs_packed_check() reads all of it once: -EINVAL not a
 * packed form or damaged, -EPROTONOSUPPORT another version. The others check what they touch, so
 * that they are safe without it and while somebody else writes. A tensor's range lies within
 * content_bytes of the head.
 */
struct mrs_packed_head {
	enum morsel_format format;
	uint64_t count;
	uint64_t pieces;
	uint64_t content_bytes;
	uint64_t source_bytes;
};
int mrs_packed_head(const void *packed, uint64_t bytes, struct mrs_packed_head *head);
int mrs_packed_check(const void *packed, uint64_t bytes);

/* By name, in O(log n): -ENOENT. By index in the file's order: -ERANGE past the last. */
int mrs_packed_find(const void *packed, uint64_t bytes, const char *name,
		    struct morsel_tensor *tensor);
int mrs_packed_get(const void *packed, uint64_t bytes, uint64_t index,
		   struct morsel_tensor *tensor);

/* The pieces of an aligned layout, in the file's order: what export needs. -ERANGE past the last.
 */
int mrs_packed_piece(const void *packed, uint64_t bytes, uint64_t index, struct mrs_piece *piece);

#endif
