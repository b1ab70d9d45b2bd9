/*
 * Tensors of imported models: what morsel_tensor() and morsel_tensor_at() (morsel.h) hand out.
 *
 * One description serves ONNX, safetensors and GGUF. A tensor is a range of bytes in its morsel:
 * offset and bytes, read through any view. Its elements lie row by row, the first dimension of the
 * shape outermost (GGUF files write the innermost first; here the order is the same for all).
 * Numbers of formats, types and flags are stored in pools: they never change their meaning.
 */
#ifndef MORSEL_TENSOR_H
#define MORSEL_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define MORSEL_API __attribute__((visibility("default")))
#else
#define MORSEL_API
#endif

/* Limits: a model file that needs more is refused, and the error says which and where. */
#define MORSEL_TENSOR_NAME_MAX 1023 /* bytes, UTF-8, without the final zero */
#define MORSEL_TENSOR_RANK_MAX 16
#define MORSEL_TENSORS_MAX     (1u << 20)

/* What a morsel was imported from. */
enum morsel_format {
	MORSEL_FORMAT_BYTES = 0, /* none of the others: no tensors */
	MORSEL_FORMAT_ONNX = 1,
	MORSEL_FORMAT_SAFETENSORS = 2,
	MORSEL_FORMAT_GGUF = 3,
};

enum morsel_type {
	MORSEL_TYPE_NONE = 0,
	MORSEL_TYPE_BOOL = 1, /* one byte, 0 or 1 */
	MORSEL_TYPE_I8 = 2,
	MORSEL_TYPE_U8 = 3,
	MORSEL_TYPE_I16 = 4,
	MORSEL_TYPE_U16 = 5,
	MORSEL_TYPE_I32 = 6,
	MORSEL_TYPE_U32 = 7,
	MORSEL_TYPE_I64 = 8,
	MORSEL_TYPE_U64 = 9,
	MORSEL_TYPE_F16 = 10,  /* IEEE 754 binary16 */
	MORSEL_TYPE_BF16 = 11, /* the upper half of a binary32 */
	MORSEL_TYPE_F32 = 12,
	MORSEL_TYPE_F64 = 13,
	MORSEL_TYPE_C64 = 14,	  /* two F32: real, imaginary */
	MORSEL_TYPE_C128 = 15,	  /* two F64 */
	MORSEL_TYPE_F8_E4M3 = 16, /* finite only; "FN" in ONNX */
	MORSEL_TYPE_F8_E4M3FNUZ = 17,
	MORSEL_TYPE_F8_E5M2 = 18,
	MORSEL_TYPE_F8_E5M2FNUZ = 19,
	MORSEL_TYPE_F8_E8M0 = 20,
	MORSEL_TYPE_F6_E2M3 = 21, /* below a byte: elements are packed, the first lowest */
	MORSEL_TYPE_F6_E3M2 = 22,
	MORSEL_TYPE_F4_E2M1 = 23,
	MORSEL_TYPE_I4 = 24,
	MORSEL_TYPE_U4 = 25,
	MORSEL_TYPE_I2 = 26,
	MORSEL_TYPE_U2 = 27,
	MORSEL_TYPE_STRING = 28, /* always MORSEL_TENSOR_ENCODED */
	/* GGUF's quantised kinds: blocks of elements that share a scale, see morsel_type_block().
	 */
	MORSEL_TYPE_Q4_0 = 64,
	MORSEL_TYPE_Q4_1 = 65,
	MORSEL_TYPE_Q5_0 = 66,
	MORSEL_TYPE_Q5_1 = 67,
	MORSEL_TYPE_Q8_0 = 68,
	MORSEL_TYPE_Q8_1 = 69,
	MORSEL_TYPE_Q2_K = 70,
	MORSEL_TYPE_Q3_K = 71,
	MORSEL_TYPE_Q4_K = 72,
	MORSEL_TYPE_Q5_K = 73,
	MORSEL_TYPE_Q6_K = 74,
	MORSEL_TYPE_Q8_K = 75,
	MORSEL_TYPE_IQ2_XXS = 76,
	MORSEL_TYPE_IQ2_XS = 77,
	MORSEL_TYPE_IQ3_XXS = 78,
	MORSEL_TYPE_IQ1_S = 79,
	MORSEL_TYPE_IQ4_NL = 80,
	MORSEL_TYPE_IQ3_S = 81,
	MORSEL_TYPE_IQ2_S = 82,
	MORSEL_TYPE_IQ4_XS = 83,
	MORSEL_TYPE_IQ1_M = 84,
	MORSEL_TYPE_TQ1_0 = 85,
	MORSEL_TYPE_TQ2_0 = 86,
	MORSEL_TYPE_MXFP4 = 87,
};

enum morsel_tensor_flags {
	/*
	 * The file does not hold the elements as an array (ONNX: variable-length integers, strings,
	 * values one by one). offset and bytes are the file's description of the tensor as a whole,
	 * an ONNX TensorProto message, for a program that can decode it.
	 */
	MORSEL_TENSOR_ENCODED = 1 << 0,
	/* ONNX: the elements are in another file, which the model names; offset and bytes are 0. */
	MORSEL_TENSOR_EXTERNAL = 1 << 1,
};

/* Filled for the caller, and the caller's: nothing in it points anywhere. */
struct morsel_tensor {
	uint64_t offset; /* in the morsel, bytes */
	uint64_t bytes;
	uint64_t shape[MORSEL_TENSOR_RANK_MAX]; /* outermost first; unused ones are 0 */
	uint32_t rank;				/* 0: a scalar */
	uint32_t type;				/* enum morsel_type */
	uint32_t flags;				/* enum morsel_tensor_flags */
	uint32_t reserved0;
	uint64_t reserved[2];
	char name[MORSEL_TENSOR_NAME_MAX + 1];
};

/* "f32", "q4_0", ...; "unknown" for a number that is not one of enum morsel_type. Never NULL. */
MORSEL_API const char *morsel_type_name(uint32_t type);

/*
 * Elements of a type come in blocks: 1 element of 4 bytes for F32, 32 elements of 18 bytes for
 * Q4_0, 2 elements of 1 byte for I4. 0, or -EINVAL for types without a fixed size. elements or
 * bytes may be NULL.
 */
MORSEL_API int morsel_type_block(uint32_t type, uint32_t *elements, uint32_t *bytes);

/* "bytes", "onnx", "safetensors", "gguf"; "unknown" for any other number. Never NULL. */
MORSEL_API const char *morsel_format_name(uint32_t format);

#ifdef __cplusplus
}
#endif

#endif
