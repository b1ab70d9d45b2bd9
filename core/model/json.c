/*
 * A strict JSON reader. See json.h.
 *
 * It never recurses: a value that is dropped is walked with one bit per open bracket.
 */
#include "model/json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

typedef unsigned long long ull;

void mrs_json_init(struct mrs_json *json, struct mrs_reader *reader, uint64_t at, uint64_t end,
		   const char *what)
{
	*json = (struct mrs_json){.reader = reader, .at = at, .end = end, .what = what};
}

void mrs_json_free(struct mrs_json *json)
{
	free(json->text);
	json->text = NULL;
}

/* The byte at json->at, or -EINVAL at the end. */
static int here(struct mrs_json *json)
{
	if (json->at >= json->end)
		return mrs_fail(-EINVAL, "%s: the JSON ends too early, at byte %llu", json->what,
				(ull)json->end);
	return mrs_reader_byte(json->reader, json->at);
}

static int take(struct mrs_json *json)
{
	int c = here(json);

	if (c >= 0)
		json->at++;
	return c;
}

static int wrong(struct mrs_json *json, uint64_t at, const char *expected)
{
	return mrs_fail(-EINVAL, "%s: JSON at byte %llu: %s expected", json->what, (ull)at,
			expected);
}

static bool is_space(int c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

int mrs_json_peek(struct mrs_json *json)
{
	int c;

	while ((c = here(json)) >= 0 && is_space(c))
		json->at++;
	return c;
}

int mrs_json_expect(struct mrs_json *json, char c)
{
	const char expected[] = {'\'', c, '\'', 0};
	int found = mrs_json_peek(json);

	if (found < 0)
		return found;
	if (found != c)
		return wrong(json, json->at, expected);
	json->at++;
	return 0;
}

int mrs_json_next(struct mrs_json *json, char close, bool first)
{
	int c = mrs_json_peek(json);

	if (c < 0)
		return c;
	if (c == close) {
		json->at++;
		return 0;
	}
	if (first)
		return 1;
	if (c != ',')
		return wrong(json, json->at, close == '}' ? "',' or '}'" : "',' or ']'");
	json->at++;
	c = mrs_json_peek(json);
	if (c == close)
		return wrong(json, json->at, "another member after ','");
	return c < 0 ? c : 1;
}

/* ---- strings
 * --------------------------------------------------------------------------------------- */

static int text_put(struct mrs_json *json, size_t limit, const char *bytes, size_t count)
{
	if (json->text_bytes + count > limit)
		return mrs_fail(-E2BIG,
				"%s: the string at byte %llu is longer than %zu bytes, which "
				"is the limit",
				json->what, (ull)json->text_at, limit);
	if (json->text_bytes + count + 1 > json->text_room) {
		size_t want = mrs_max(2 * (json->text_bytes + count + 1), (size_t)256);
		char *grown = realloc(json->text, want);

		if (!grown)
			return mrs_fail(-ENOMEM, "no memory for a string of %zu bytes", want);
		json->text = grown;
		json->text_room = want;
	}
	memcpy(json->text + json->text_bytes, bytes, count);
	json->text_bytes += count;
	json->text[json->text_bytes] = 0;
	return 0;
}

static int hex4(struct mrs_json *json, uint32_t *value)
{
	*value = 0;
	for (int i = 0; i < 4; i++) {
		int c = take(json);

		if (c < 0)
			return c;
		if (c >= '0' && c <= '9')
			c -= '0';
		else if ((c | 32) >= 'a' && (c | 32) <= 'f')
			c = (c | 32) - 'a' + 10;
		else
			return wrong(json, json->at - 1, "four hexadecimal digits after '\\u'");
		*value = *value << 4 | (uint32_t)c;
	}
	return 0;
}

static size_t utf8_put(uint32_t value, char out[4])
{
	if (value < 0x80) {
		out[0] = (char)value;
		return 1;
	}
	if (value < 0x800) {
		out[0] = (char)(0xc0 | value >> 6);
		out[1] = (char)(0x80 | (value & 0x3f));
		return 2;
	}
	if (value < 0x10000) {
		out[0] = (char)(0xe0 | value >> 12);
		out[1] = (char)(0x80 | (value >> 6 & 0x3f));
		out[2] = (char)(0x80 | (value & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | value >> 18);
	out[1] = (char)(0x80 | (value >> 12 & 0x3f));
	out[2] = (char)(0x80 | (value >> 6 & 0x3f));
	out[3] = (char)(0x80 | (value & 0x3f));
	return 4;
}

/* After "\u": one or, for a surrogate pair, two groups of digits. */
static int escape_unicode(struct mrs_json *json, size_t limit)
{
	uint64_t at = json->at - 2;
	uint32_t value, low;
	char out[4];
	int error = hex4(json, &value);

	if (error)
		return error;
	if (value >= 0xdc00 && value < 0xe000)
		return wrong(json, at, "the first half of a surrogate pair");
	if (value >= 0xd800 && value < 0xdc00) {
		int backslash = take(json), u = backslash == '\\' ? take(json) : backslash;

		if (u < 0)
			return u;
		if (u != 'u')
			return wrong(json, at, "both halves of a surrogate pair");
		error = hex4(json, &low);
		if (error)
			return error;
		if (low < 0xdc00 || low >= 0xe000)
			return wrong(json, at, "both halves of a surrogate pair");
		value = 0x10000 + ((value - 0xd800) << 10) + (low - 0xdc00);
	}
	return text_put(json, limit, out, utf8_put(value, out));
}

static int escape(struct mrs_json *json, size_t limit)
{
	static const char letters[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
	int c = take(json);
	const char *found;

	if (c < 0)
		return c;
	if (c == 'u')
		return escape_unicode(json, limit);
	found = c ? strchr(letters, c) : NULL;
	if (!found)
		return wrong(json, json->at - 1, "one of \"\\/bfnrtu after '\\'");
	return text_put(json, limit, &values[found - letters], 1);
}

int mrs_json_string(struct mrs_json *json, size_t limit)
{
	int c = mrs_json_peek(json), error = 0;

	if (c < 0)
		return c;
	if (c != '"')
		return wrong(json, json->at, "a string");
	json->text_at = json->at++;
	json->text_bytes = 0;
	error = text_put(json, limit, "", 0);
	while (!error) {
		char byte;

		c = take(json);
		if (c < 0)
			return c;
		if (c == '"')
			break;
		if (c < 0x20)
			return wrong(json, json->at - 1,
				     "an escape in place of a control character");
		byte = (char)c;
		error = c == '\\' ? escape(json, limit) : text_put(json, limit, &byte, 1);
	}
	if (!error && !mrs_utf8_valid(json->text, json->text_bytes))
		return wrong(json, json->text_at, "UTF-8 without zero bytes in the string");
	return error;
}

int mrs_json_key(struct mrs_json *json, size_t limit)
{
	int error = mrs_json_string(json, limit);

	return error ? error : mrs_json_expect(json, ':');
}

/* ---- numbers
 * --------------------------------------------------------------------------------------- */

/* Takes decimal digits; returns how many. *value saturates. */
static int digits(struct mrs_json *json, uint64_t *value)
{
	int count = 0;

	*value = 0;
	while (json->at < json->end) {
		int c = mrs_reader_byte(json->reader, json->at);

		if (c < 0)
			return c;
		if (c < '0' || c > '9')
			break;
		if (__builtin_mul_overflow(*value, (uint64_t)10, value) ||
		    __builtin_add_overflow(*value, (uint64_t)(c - '0'), value))
			*value = UINT64_MAX;
		json->at++;
		count++;
		if (*value == UINT64_MAX)
			break;
	}
	return count;
}

int mrs_json_count(struct mrs_json *json, uint64_t *value)
{
	static const char expected[] = "an integer from 0 to 2^63 - 1 without sign, fraction, "
				       "exponent and leading zeros";
	int c = mrs_json_peek(json), count;
	uint64_t at = json->at, made;

	if (c < 0)
		return c;
	count = digits(json, &made);
	if (count < 0)
		return count;
	if (!count || made > INT64_MAX || (count > 1 && c == '0'))
		return wrong(json, at, expected);
	if (json->at < json->end) {
		c = mrs_reader_byte(json->reader, json->at);
		if (c < 0)
			return c;
		if (c == '.' || c == 'e' || c == 'E')
			return wrong(json, at, expected);
	}
	*value = made;
	return 0;
}

static int skip_digits(struct mrs_json *json)
{
	uint64_t at = json->at;

	while (json->at < json->end) {
		int c = mrs_reader_byte(json->reader, json->at);

		if (c < 0)
			return c;
		if (c < '0' || c > '9')
			break;
		json->at++;
	}
	return json->at > at ? 0 : wrong(json, at, "a digit");
}

/* Takes the next byte if it is one of set; 1, 0 or an error. */
static int take_if(struct mrs_json *json, const char *set)
{
	int c = json->at < json->end ? mrs_reader_byte(json->reader, json->at) : 0;

	if (c <= 0 || !strchr(set, c))
		return c < 0 ? c : 0;
	json->at++;
	return 1;
}

static int skip_number(struct mrs_json *json)
{
	int found = take_if(json, "-");
	int error;

	if (found < 0)
		return found;
	found = take_if(json, "0");
	error = found < 0 ? found : found ? 0 : skip_digits(json);
	if (error)
		return error;
	found = take_if(json, ".");
	error = found < 0 ? found : found ? skip_digits(json) : 0;
	if (error)
		return error;
	found = take_if(json, "eE");
	if (found <= 0)
		return found;
	found = take_if(json, "+-");
	return found < 0 ? found : skip_digits(json);
}

static int skip_word(struct mrs_json *json, const char *word)
{
	uint64_t at = json->at;

	for (const char *p = word; *p; p++) {
		int c = take(json);

		if (c < 0)
			return c;
		if (c != *p)
			return wrong(json, at, "a value");
	}
	return 0;
}

static int skip_scalar(struct mrs_json *json, int c)
{
	switch (c) {
	case '"':
		return mrs_json_string(json, MRS_MODEL_JSON_BYTES_MAX);
	case 't':
		return skip_word(json, "true");
	case 'f':
		return skip_word(json, "false");
	case 'n':
		return skip_word(json, "null");
	default:
		if (c == '-' || (c >= '0' && c <= '9'))
			return skip_number(json);
		return wrong(json, json->at, "a value");
	}
}

int mrs_json_skip(struct mrs_json *json)
{
	uint64_t objects = 0; /* bit i: the bracket i levels up is a brace */
	unsigned depth = 0;
	bool first = true;

	_Static_assert(MRS_MODEL_NEST_MAX <= 64, "one bit per level");
	for (;;) {
		int c, more = 1, error;

		if (depth) {
			more = mrs_json_next(json, objects & 1 ? '}' : ']', first);
			if (more < 0)
				return more;
		}
		if (!more) {
			objects >>= 1;
			first = false;
			if (!--depth)
				return 0;
			continue;
		}
		if (depth && objects & 1 && (error = mrs_json_key(json, MRS_MODEL_JSON_BYTES_MAX)))
			return error;
		c = mrs_json_peek(json);
		if (c < 0)
			return c;
		if (c == '{' || c == '[') {
			if (depth == MRS_MODEL_NEST_MAX)
				return mrs_fail(-E2BIG,
						"%s: JSON at byte %llu: nested more than %u "
						"deep, which is the limit",
						json->what, (ull)json->at, MRS_MODEL_NEST_MAX);
			json->at++;
			objects = objects << 1 | (c == '{');
			depth++;
			first = true;
			continue;
		}
		error = skip_scalar(json, c);
		if (error || !depth)
			return error;
		first = false;
	}
}

int mrs_json_finish(struct mrs_json *json)
{
	while (json->at < json->end) {
		int c = mrs_reader_byte(json->reader, json->at);

		if (c < 0)
			return c;
		if (!is_space(c))
			return wrong(json, json->at, "nothing more after the closing '}'");
		json->at++;
	}
	return 0;
}
