/*
 * The JSON writer: streaming, with a small stack for commas and indentation. Numbers are integers,
 * written in full; a reader needs 64 bits for them.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "print.h"
#include "utf8.h"

static void indent(const struct json *json)
{
	fprintf(json->out, "\n%*s", (int)(2 * json->depth), "");
}

static void write_string(FILE *out, const char *text)
{
	size_t left = strlen(text);

	fputc('"', out);
	while (left) {
		uint32_t point;
		size_t bytes = utf8_decode(text, left, &point);

		if (!bytes) {
			fputs("\xef\xbf\xbd", out);
			bytes = 1;
		} else if (point == '"' || point == '\\') {
			fprintf(out, "\\%c", (char)point);
		} else if (point < 0x20 || (point >= 0x7f && point < 0xa0)) {
			fprintf(out, "\\u%04x", (unsigned)point);
		} else {
			fwrite(text, 1, bytes, out);
		}
		text += bytes;
		left -= bytes;
	}
	fputc('"', out);
}

/* Comma, line and key: all that comes before a value. */
static void element(struct json *json, const char *key)
{
	bool flat;

	if (!json->depth)
		return;
	flat = json->level[json->depth - 1].flat;
	if (json->level[json->depth - 1].started)
		fputs(flat ? ", " : ",", json->out);
	json->level[json->depth - 1].started = true;
	if (!flat)
		indent(json);
	if (key) {
		write_string(json->out, key);
		fputs(": ", json->out);
	}
}

static void open_level(struct json *json, const char *key, char open, char close, bool flat)
{
	element(json, key);
	fputc(open, json->out);
	if (json->depth == JSON_DEPTH_MAX)
		abort();
	json->level[json->depth].close = close;
	json->level[json->depth].flat = flat;
	json->level[json->depth].started = false;
	json->depth++;
}

void json_begin(struct json *json, FILE *out)
{
	memset(json, 0, sizeof(*json));
	json->out = out;
	open_level(json, NULL, '{', '}', false);
}

void json_end(struct json *json)
{
	while (json->depth)
		json_close(json);
	fputc('\n', json->out);
}

void json_object(struct json *json, const char *key)
{
	open_level(json, key, '{', '}', false);
}

void json_list(struct json *json, const char *key)
{
	open_level(json, key, '[', ']', false);
}

void json_flat_list(struct json *json, const char *key)
{
	open_level(json, key, '[', ']', true);
}

void json_close(struct json *json)
{
	json->depth--;
	if (json->level[json->depth].started && !json->level[json->depth].flat)
		indent(json);
	fputc(json->level[json->depth].close, json->out);
}

void json_u64(struct json *json, const char *key, uint64_t value)
{
	element(json, key);
	fprintf(json->out, "%" PRIu64, value);
}

void json_i64(struct json *json, const char *key, int64_t value)
{
	element(json, key);
	fprintf(json->out, "%" PRId64, value);
}

void json_bool(struct json *json, const char *key, bool value)
{
	element(json, key);
	fputs(value ? "true" : "false", json->out);
}

void json_text(struct json *json, const char *key, const char *text)
{
	element(json, key);
	if (text)
		write_string(json->out, text);
	else
		fputs("null", json->out);
}

void json_name(struct json *json, const char *name)
{
	json_text(json, "name", name);
	if (utf8_is_valid(name))
		return;
	element(json, "name_hex");
	fputc('"', json->out);
	for (; *name; name++)
		fprintf(json->out, "%02x", (unsigned)(unsigned char)*name);
	fputc('"', json->out);
}
