/*
 * What the morsel command makes of hostile names, and its JSON. The judge of UTF-8 is a table of
 * known byte strings and the C library's own decoder over random bytes.
 */
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include <cmocka.h>

#include "print.h"
#include "support/counts.h"
#include "utf8.h"

static void names_for_people(void **state)
{
	static const struct {
		const char *name, *text;
	} cases[] = {
		{"weights", "weights"},
		{"with blank", "with blank"},
		{"back\\slash", "back\\\\slash"},
		{"a\nb\tc", "a\\x0ab\\x09c"},
		{"\033[31mred", "\\x1b[31mred"},
		{"del\x7f", "del\\x7f"},
		{"\xc3\xa9t\xc3\xa9", "\xc3\xa9t\xc3\xa9"},   /* e acute */
		{"\xff", "\\xff"},			      /* never in UTF-8 */
		{"\xc3", "\\xc3"},			      /* cut short */
		{"\xc0\xaf", "\\xc0\\xaf"},		      /* overlong slash */
		{"\xe0\x80\xaf", "\\xe0\\x80\\xaf"},	      /* overlong slash */
		{"\xed\xa0\x80", "\\xed\\xa0\\x80"},	      /* surrogate */
		{"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"}, /* past U+10FFFF */
		{"\xc2\x9b", "\\xc2\\x9b"},		      /* C1: CSI */
		{"\xe2\x80\xae", "\\xe2\\x80\\xae"},	      /* right-to-left override */
		{"\xe2\x80\xa8", "\\xe2\\x80\\xa8"},	      /* line separator */
		{"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"},     /* an emoji */
	};
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *text = name_text(cases[i].name);

		assert_string_equal(text, cases[i].text);
		free(text);
	}
}

/* Decodes every string of random bytes as the C library does. */
static void utf8_as_the_c_library(void **state)
{
	uint64_t seed = test_seed();
	int i;

	if (!setlocale(LC_CTYPE, "C.UTF-8")) {
		fputs("skipped: no locale C.UTF-8\n", stderr);
		return;
	}
	for (i = 0; i < COUNT_PARSE_SIZES; i++) {
		uint64_t random = test_random(&seed);
		char text[5] = {0};
		mbstate_t shift = {0};
		uint32_t point = 0;
		wchar_t wide = 0;
		size_t bytes, theirs;

		memcpy(text, &random, 4);
		text[0] |= (char)0x80 * (char)(random >> 40 & 1);
		text[1] = (char)(random >> 41 & 1 ? (text[1] & 0x3f) | 0x80 : text[1]);
		text[2] = (char)(random >> 42 & 1 ? (text[2] & 0x3f) | 0x80 : text[2]);
		if (!text[0])
			continue;
		bytes = utf8_decode(text, 4, &point);
		theirs = mbrtowc(&wide, text, 4, &shift);
		/* glibc's decoder also takes what Unicode does not have */
		if (theirs > 4 || wide > 0x10ffff || (wide >= 0xd800 && wide < 0xe000))
			theirs = 0;
		assert_int_equal(bytes, theirs);
		if (bytes)
			assert_int_equal(point, (uint32_t)wide);
	}
}

static void sizes_for_people(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{0, "0 B"},
		{1023, "1023 B"},
		{1024, "1.00 KiB"},
		{1536, "1.50 KiB"},
		{10 * 1024, "10.0 KiB"},
		{1048575, "1.00 MiB"},
		{1048576, "1.00 MiB"},
		{7322946888ull, "6.82 GiB"},
		{1ull << 40, "1.00 TiB"},
		{UINT64_MAX, "16.0 EiB"},
	};
	char buffer[SIZE_TEXT_BYTES];
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_string_equal(size_text(cases[i].bytes, false, buffer), cases[i].text);
	assert_string_equal(size_text(UINT64_MAX, true, buffer), "18446744073709551615");
}

static char *json_of(void (*write)(struct json *json))
{
	struct json json;
	size_t bytes;
	char *text = NULL;
	FILE *out = open_memstream(&text, &bytes);

	json_begin(&json, out);
	write(&json);
	json_end(&json);
	fclose(out);
	return text;
}

static void write_everything(struct json *json)
{
	json_text(json, "quote", "a\"b\\c/d");
	json_text(json, "none", NULL);
	json_u64(json, "most", UINT64_MAX);
	json_i64(json, "least", INT64_MIN);
	json_bool(json, "yes", true);
	json_list(json, "empty");
	json_close(json);
	json_flat_list(json, "shape");
	json_u64(json, NULL, 1);
	json_u64(json, NULL, 2);
	json_close(json);
	json_list(json, "list");
	json_object(json, NULL);
	json_name(json, "x\xff\n");
	json_close(json);
	json_object(json, NULL);
	json_close(json);
	json_close(json);
}

static void json_documents(void **state)
{
	char *text = json_of(write_everything);

	assert_string_equal(text, "{\n"
				  "  \"quote\": \"a\\\"b\\\\c/d\",\n"
				  "  \"none\": null,\n"
				  "  \"most\": 18446744073709551615,\n"
				  "  \"least\": -9223372036854775808,\n"
				  "  \"yes\": true,\n"
				  "  \"empty\": [],\n"
				  "  \"shape\": [1, 2],\n"
				  "  \"list\": [\n"
				  "    {\n"
				  "      \"name\": \"x\xef\xbf\xbd\\u000a\",\n"
				  "      \"name_hex\": \"78ff0a\"\n"
				  "    },\n"
				  "    {}\n"
				  "  ]\n"
				  "}\n");
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_for_people),
		cmocka_unit_test(utf8_as_the_c_library),
		cmocka_unit_test(sizes_for_people),
		cmocka_unit_test(json_documents),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
