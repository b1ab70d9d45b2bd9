/*
 * What the three model fuzzers do with an input: parse it as their format, from memory and through
 * the window of a read function, which must agree; check what was accepted against the promises of
 * model.h; lay it out and pack it; and look into the input itself as if it were a packed table.
 */
#ifndef TESTS_FUZZ_MODEL_FUZZ_H
#define TESTS_FUZZ_MODEL_FUZZ_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define FUZZ_REQUIRE(condition)                                                         \
	do {                                                                            \
		if (!(condition)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
			abort();                                                        \
		}                                                                       \
	} while (0)

struct fuzz_input {
	const uint8_t *data;
	size_t bytes;
};

static inline int fuzz_read(void *ctx, uint64_t offset, void *buffer, size_t bytes)
{
	const struct fuzz_input *input = ctx;

	FUZZ_REQUIRE(offset <= input->bytes && bytes <= input->bytes - offset);
	memcpy(buffer, input->data + offset, bytes);
	return 0;
}

typedef int (*fuzz_parse_fn)(struct mrs_reader *reader, struct mrs_model *model);

static inline int fuzz_parse(const struct mrs_source *source, fuzz_parse_fn parse,
			     struct mrs_model *model)
{
	struct mrs_reader reader;
	int error = mrs_reader_init(&reader, source);

	*model = (struct mrs_model){.bytes = source->bytes, .source_bytes = source->bytes};
	if (!error)
		error = parse(&reader, model);
	if (!error)
		error = mrs_model_validate(model);
	mrs_reader_fini(&reader);
	if (error)
		mrs_model_free(model);
	return error;
}

/* The names are distinct, every tensor is found, lies within the content and is aligned. */
static inline void fuzz_accepted(struct mrs_model *model)
{
	struct morsel_tensor found, same;
	uint64_t bytes;
	void *packed;

	FUZZ_REQUIRE(!mrs_model_layout_aligned(model, 64));
	bytes = mrs_model_packed_bytes(model);
	packed = malloc(bytes);
	FUZZ_REQUIRE(packed && !mrs_model_pack(model, packed, bytes));
	FUZZ_REQUIRE(!mrs_packed_check(packed, bytes));
	for (uint64_t i = 0; i < model->count; i++) {
		FUZZ_REQUIRE(!mrs_packed_get(packed, bytes, i, &found));
		FUZZ_REQUIRE(!mrs_packed_find(packed, bytes, mrs_model_name(model, i), &same));
		FUZZ_REQUIRE(!memcmp(&found, &same, sizeof(found)));
		FUZZ_REQUIRE(found.offset <= model->bytes &&
			     found.bytes <= model->bytes - found.offset);
		FUZZ_REQUIRE(found.flags || found.offset % 64 == 0);
	}
	free(packed);
}

static inline void fuzz_packed(const uint8_t *data, size_t bytes)
{
	struct mrs_packed_head head;
	struct morsel_tensor tensor;
	struct mrs_piece piece;
	uint64_t *aligned = malloc(bytes + 1);

	FUZZ_REQUIRE(aligned);
	memcpy(aligned, data, bytes);
	mrs_packed_check(aligned, bytes);
	mrs_packed_find(aligned, bytes, "a", &tensor);
	if (!mrs_packed_head(aligned, bytes, &head)) {
		for (uint64_t i = 0; i < head.count && i < 100; i++)
			mrs_packed_get(aligned, bytes, i, &tensor);
		for (uint64_t i = 0; i < head.pieces && i < 100; i++)
			mrs_packed_piece(aligned, bytes, i, &piece);
	}
	free(aligned);
}

static inline int model_fuzz(const uint8_t *data, size_t bytes, fuzz_parse_fn parse)
{
	struct fuzz_input input = {data, bytes};
	struct mrs_source memory, reading = {.read = fuzz_read, .ctx = &input, .bytes = bytes};
	struct mrs_model a, b;
	int error;

	if (bytes < 10)
		return 0;
	mrs_source_memory(&memory, data, bytes);
	error = fuzz_parse(&memory, parse, &a);
	FUZZ_REQUIRE(fuzz_parse(&reading, parse, &b) == error);
	if (error) {
		fuzz_packed(data, bytes);
	} else {
		FUZZ_REQUIRE(a.count == b.count);
		fuzz_accepted(&a);
		mrs_model_free(&b);
	}
	if (!error)
		mrs_model_free(&a);
	if (!mrs_model_parse(&memory, &a))
		mrs_model_free(&a);
	return 0;
}

#endif
