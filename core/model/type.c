/*
 * The types of tensors: their names, and how many bytes a block of elements takes.
 */
#include <errno.h>

#include <morsel/tensor.h>

#include "base/base.h"

struct type {
	const char *name;
	uint16_t elements; /* of a block; 0: no fixed size */
	uint16_t bytes;
};

static const struct type types[] = {
	[MORSEL_TYPE_NONE] = {"none", 0, 0},
	[MORSEL_TYPE_BOOL] = {"bool", 1, 1},
	[MORSEL_TYPE_I8] = {"i8", 1, 1},
	[MORSEL_TYPE_U8] = {"u8", 1, 1},
	[MORSEL_TYPE_I16] = {"i16", 1, 2},
	[MORSEL_TYPE_U16] = {"u16", 1, 2},
	[MORSEL_TYPE_I32] = {"i32", 1, 4},
	[MORSEL_TYPE_U32] = {"u32", 1, 4},
	[MORSEL_TYPE_I64] = {"i64", 1, 8},
	[MORSEL_TYPE_U64] = {"u64", 1, 8},
	[MORSEL_TYPE_F16] = {"f16", 1, 2},
	[MORSEL_TYPE_BF16] = {"bf16", 1, 2},
	[MORSEL_TYPE_F32] = {"f32", 1, 4},
	[MORSEL_TYPE_F64] = {"f64", 1, 8},
	[MORSEL_TYPE_C64] = {"c64", 1, 8},
	[MORSEL_TYPE_C128] = {"c128", 1, 16},
	[MORSEL_TYPE_F8_E4M3] = {"f8_e4m3", 1, 1},
	[MORSEL_TYPE_F8_E4M3FNUZ] = {"f8_e4m3fnuz", 1, 1},
	[MORSEL_TYPE_F8_E5M2] = {"f8_e5m2", 1, 1},
	[MORSEL_TYPE_F8_E5M2FNUZ] = {"f8_e5m2fnuz", 1, 1},
	[MORSEL_TYPE_F8_E8M0] = {"f8_e8m0", 1, 1},
	[MORSEL_TYPE_F6_E2M3] = {"f6_e2m3", 4, 3},
	[MORSEL_TYPE_F6_E3M2] = {"f6_e3m2", 4, 3},
	[MORSEL_TYPE_F4_E2M1] = {"f4_e2m1", 2, 1},
	[MORSEL_TYPE_I4] = {"i4", 2, 1},
	[MORSEL_TYPE_U4] = {"u4", 2, 1},
	[MORSEL_TYPE_I2] = {"i2", 4, 1},
	[MORSEL_TYPE_U2] = {"u2", 4, 1},
	[MORSEL_TYPE_STRING] = {"string", 0, 0},
	[MORSEL_TYPE_Q4_0] = {"q4_0", 32, 18},
	[MORSEL_TYPE_Q4_1] = {"q4_1", 32, 20},
	[MORSEL_TYPE_Q5_0] = {"q5_0", 32, 22},
	[MORSEL_TYPE_Q5_1] = {"q5_1", 32, 24},
	[MORSEL_TYPE_Q8_0] = {"q8_0", 32, 34},
	[MORSEL_TYPE_Q8_1] = {"q8_1", 32, 36},
	[MORSEL_TYPE_Q2_K] = {"q2_k", 256, 84},
	[MORSEL_TYPE_Q3_K] = {"q3_k", 256, 110},
	[MORSEL_TYPE_Q4_K] = {"q4_k", 256, 144},
	[MORSEL_TYPE_Q5_K] = {"q5_k", 256, 176},
	[MORSEL_TYPE_Q6_K] = {"q6_k", 256, 210},
	[MORSEL_TYPE_Q8_K] = {"q8_k", 256, 292},
	[MORSEL_TYPE_IQ2_XXS] = {"iq2_xxs", 256, 66},
	[MORSEL_TYPE_IQ2_XS] = {"iq2_xs", 256, 74},
	[MORSEL_TYPE_IQ3_XXS] = {"iq3_xxs", 256, 98},
	[MORSEL_TYPE_IQ1_S] = {"iq1_s", 256, 50},
	[MORSEL_TYPE_IQ4_NL] = {"iq4_nl", 32, 18},
	[MORSEL_TYPE_IQ3_S] = {"iq3_s", 256, 110},
	[MORSEL_TYPE_IQ2_S] = {"iq2_s", 256, 82},
	[MORSEL_TYPE_IQ4_XS] = {"iq4_xs", 256, 136},
	[MORSEL_TYPE_IQ1_M] = {"iq1_m", 256, 56},
	[MORSEL_TYPE_TQ1_0] = {"tq1_0", 256, 54},
	[MORSEL_TYPE_TQ2_0] = {"tq2_0", 256, 66},
	[MORSEL_TYPE_MXFP4] = {"mxfp4", 32, 17},
};

const char *morsel_type_name(uint32_t type)
{
	if (type >= mrs_array_length(types) || !types[type].name)
		return "unknown";
	return types[type].name;
}

int morsel_type_block(uint32_t type, uint32_t *elements, uint32_t *bytes)
{
	if (type >= mrs_array_length(types) || !types[type].elements)
		return mrs_fail(-EINVAL, "elements of tensor type %u (%s) have no fixed size", type,
				morsel_type_name(type));
	if (elements)
		*elements = types[type].elements;
	if (bytes)
		*bytes = types[type].bytes;
	return 0;
}

const char *morsel_format_name(uint32_t format)
{
	static const char *const names[] = {
		[MORSEL_FORMAT_BYTES] = "bytes",
		[MORSEL_FORMAT_ONNX] = "onnx",
		[MORSEL_FORMAT_SAFETENSORS] = "safetensors",
		[MORSEL_FORMAT_GGUF] = "gguf",
	};

	return format < mrs_array_length(names) ? names[format] : "unknown";
}
