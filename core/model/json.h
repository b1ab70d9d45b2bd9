/*
 * A strict JSON reader (RFC 8259) over a stretch of a file: the caller says what it expects next,
 * and what stands there instead is refused with its byte. Nothing is kept but the last string.
 */
#ifndef MRS_MODEL_JSON_H
#define MRS_MODEL_JSON_H

#include "model/internal.h"

struct mrs_json {
	struct mrs_reader *reader;
	uint64_t at; /* next byte of the file */
	uint64_t end;
	const char *what; /* begins every message: the file's kind */
	/* The last string, decoded; valid until the next one. */
	char *text;
	size_t text_bytes, text_room;
	uint64_t text_at; /* where its quote was */
};

void mrs_json_init(struct mrs_json *json, struct mrs_reader *reader, uint64_t at, uint64_t end,
		   const char *what);
void mrs_json_free(struct mrs_json *json);

/* The next character that is not white space, not taken; -EINVAL at the end. */
int mrs_json_peek(struct mrs_json *json);
/* Takes that character, which must be c. */
int mrs_json_expect(struct mrs_json *json, char c);

/*
 * Walks the members of an object (close '}') or array (close ']') whose opening character has been
 * taken: 1 if another follows (its comma is taken), 0 if the closing character has been taken.
 * first is true before the first member.
 */
int mrs_json_next(struct mrs_json *json, char close, bool first);

/* A string of at most limit bytes, decoded into text: valid UTF-8 without zero bytes. */
int mrs_json_string(struct mrs_json *json, size_t limit);
/* A string and the colon after it. */
int mrs_json_key(struct mrs_json *json, size_t limit);
/* An integer from 0 to 2^63 - 1, written without sign, fraction and exponent. */
int mrs_json_count(struct mrs_json *json, uint64_t *value);
/* Any value, checked and dropped. */
int mrs_json_skip(struct mrs_json *json);
/* Only white space up to the end. */
int mrs_json_finish(struct mrs_json *json);

#endif
