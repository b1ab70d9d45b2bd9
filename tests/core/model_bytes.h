/*
 * Files made by hand, byte by byte, and the way in which every model test parses them: once from
 * memory (an exact allocation, so that AddressSanitizer sees a read past the end) and once through
 * a read function. Both must agree in result and words.
 */
#ifndef TESTS_CORE_MODEL_BYTES_H
#define TESTS_CORE_MODEL_BYTES_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <morsel/morsel.h>

#include "model/model.h"
#include "support/counts.h"

struct bytes {
	unsigned char *data;
	size_t count, room;
};

static inline void put(struct bytes *b, const void *data, size_t count)
{
	if (b->count + count > b->room) {
		b->room = 2 * (b->count + count);
		b->data = realloc(b->data, b->room);
		assert_non_null(b->data);
	}
	if (count)
		memcpy(b->data + b->count, data, count);
	b->count += count;
}

/* value as count little-endian bytes */
static inline void put_number(struct bytes *b, uint64_t value, size_t count)
{
	for (size_t i = 0; i < count; i++, value >>= 8) {
		unsigned char byte = (unsigned char)value;

		put(b, &byte, 1);
	}
}

static inline void put_zeros(struct bytes *b, size_t count)
{
	while (count--)
		put(b, "", 1);
}

static inline void bytes_free(struct bytes *b)
{
	free(b->data);
	*b = (struct bytes){0};
}

struct read_ctx {
	const unsigned char *data;
	uint64_t bytes;
	int reads_left; /* then -EIO; below zero: never */
};

static inline int read_bytes(void *ctx, uint64_t offset, void *buffer, size_t bytes)
{
	struct read_ctx *r = ctx;

	assert_true(offset <= r->bytes && bytes <= r->bytes - offset);
	if (!r->reads_left)
		return -EIO;
	r->reads_left--;
	memcpy(buffer, r->data + offset, bytes);
	return 0;
}

static inline int parse_reading(const void *data, uint64_t bytes, int reads,
				struct mrs_model *model)
{
	struct read_ctx ctx = {data, bytes, reads};
	struct mrs_source source = {.read = read_bytes, .ctx = &ctx, .bytes = bytes};

	return mrs_model_parse(&source, model);
}

static inline int parse_memory(const void *data, uint64_t bytes, struct mrs_model *model)
{
	unsigned char *exact = malloc(bytes ? bytes : 1);
	struct mrs_source source;
	int error;

	assert_non_null(exact);
	if (bytes)
		memcpy(exact, data, bytes);
	mrs_source_memory(&source, exact, bytes);
	error = mrs_model_parse(&source, model);
	free(exact);
	return error;
}

/* Parses both ways; the model is the memory's. */
static inline int parse_both(const void *data, uint64_t bytes, struct mrs_model *model)
{
	struct mrs_model other = {0};
	char words[1024] = "";
	int error = parse_memory(data, bytes, model);

	snprintf(words, sizeof(words), "%s", error ? morsel_errormsg() : "");
	assert_int_equal(parse_reading(data, bytes, -1, &other), error);
	if (error) {
		assert_string_equal(morsel_errormsg(), words);
		return error;
	}
	assert_int_equal(other.format, model->format);
	assert_int_equal(other.count, model->count);
	if (model->count)
		assert_memory_equal(other.tensors, model->tensors,
				    model->count * sizeof(*model->tensors));
	mrs_model_free(&other);
	return 0;
}

/* The file is refused with that code, and the words contain both texts. */
static inline void expect_refused(const struct bytes *b, int code, const char *text,
				  const char *other)
{
	struct mrs_model model = {.count = 77};
	int error = parse_both(b->data, b->count, &model);

	if (error != code || !strstr(morsel_errormsg(), text) || !strstr(morsel_errormsg(), other))
		fail_msg("expected %d with '%s' and '%s', got %d: %s", code, text, other, error,
			 error ? morsel_errormsg() : "(success)");
	assert_int_equal(model.count, 77);
}

static inline void expect_tensor(const struct mrs_model *model, uint64_t index, const char *name,
				 uint32_t type, uint64_t offset, uint64_t bytes, uint32_t flags)
{
	const struct mrs_tensor *t = &model->tensors[index];

	assert_true(index < model->count);
	assert_string_equal(mrs_model_name(model, index), name);
	assert_int_equal(t->type, type);
	assert_int_equal(t->offset, offset);
	assert_int_equal(t->bytes, bytes);
	assert_int_equal(t->flags, flags);
}

/*
 * What holds for every file made of a good one: a prefix is never a model of the same format unless
 * it is one to our knowledge (whole is the least prefix that is); random damage and failing reads
 * never crash, and what is accepted lies within the file.
 */
static inline void expect_sane(const struct mrs_model *model, uint64_t bytes)
{
	for (uint64_t i = 0; i < model->count; i++) {
		assert_true(model->tensors[i].offset <= bytes);
		assert_true(model->tensors[i].bytes <= bytes - model->tensors[i].offset);
		assert_true(model->tensors[i].rank <= MORSEL_TENSOR_RANK_MAX);
	}
}

static inline void expect_prefixes_refused(const struct bytes *b, size_t whole)
{
	for (size_t bytes = 0; bytes < b->count; bytes++) {
		struct mrs_model model = {0};

		if (parse_both(b->data, bytes, &model))
			continue;
		if (bytes < whole && model.format != MORSEL_FORMAT_BYTES)
			fail_msg("the first %zu of %zu bytes are taken for a model", bytes,
				 b->count);
		expect_sane(&model, bytes);
		mrs_model_free(&model);
	}
}

static inline void expect_damage_survived(const struct bytes *b)
{
	uint64_t random = test_seed();
	unsigned char *copy = malloc(b->count);

	assert_non_null(copy);
	for (int i = 0; i < COUNT_MODEL_MUTATIONS; i++) {
		struct mrs_model model = {0};

		memcpy(copy, b->data, b->count);
		for (uint64_t n = 1 + test_random(&random) % 4; n; n--)
			copy[test_random(&random) % b->count] = (unsigned char)test_random(&random);
		if (parse_memory(copy, b->count, &model))
			continue;
		expect_sane(&model, b->count);
		mrs_model_free(&model);
	}
	free(copy);
}

static inline void expect_failing_reads_passed_up(const struct bytes *b)
{
	struct mrs_model model = {0};
	int reads = 0;

	while (parse_reading(b->data, b->count, reads, &model)) {
		assert_int_equal(parse_reading(b->data, b->count, reads, &model), -EIO);
		assert_null(model.tensors);
		reads++;
	}
	assert_true(reads > 0);
	mrs_model_free(&model);
}

#endif
