/*
 * Any bytes through the gguf parser, whether or not they claim to be of that format, and what it
 * accepts through the layout and the packed table: see model_fuzz.h.
 */
#include "fuzz/model_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	return model_fuzz(data, bytes, mrs_gguf_parse);
}
