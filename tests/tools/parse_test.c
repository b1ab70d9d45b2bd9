/*
 * Sizes, numbers, modes and options of the morsel command, against tables that anyone can check and
 * against a slow reading of random sizes.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "args.h"
#include "parse.h"
#include "support/counts.h"

#define KIB ((uint64_t)1024)

static void sizes_that_are_fine(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} cases[] = {
		{"0", 0},
		{"1", 1},
		{"007", 7},
		{"4096", 4096},
		{"4096B", 4096},
		{"4k", 4 * KIB},
		{"4K", 4 * KIB},
		{"4KiB", 4 * KIB},
		{"4kiB", 4 * KIB},
		{"4kB", 4000},
		{"4KB", 4000},
		{"2M", 2 * KIB * KIB},
		{"2m", 2 * KIB * KIB},
		{"2MB", 2000000},
		{"1.5GiB", 3 * KIB * KIB * KIB / 2},
		{"1.50G", 3 * KIB * KIB * KIB / 2},
		{"0.5k", 512},
		{"0.0", 0},
		{"1.000000000000000000", 1},
		{"1.001kB", 1001},
		{"1T", KIB * KIB * KIB * KIB},
		{"3P", 3 * KIB * KIB * KIB * KIB * KIB},
		{"15E", 15 * KIB * KIB * KIB * KIB * KIB * KIB},
		{"18EB", 18000000000000000000ull},
		{"18446744073709551615", UINT64_MAX},
		{"18014398509481983k", UINT64_MAX - 1023},
	};
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *why = "";
		uint64_t bytes = 99;

		if (parse_size(cases[i].text, &bytes, &why))
			fail_msg("%s: %s", cases[i].text, why);
		if (bytes != cases[i].bytes)
			fail_msg("%s: %llu", cases[i].text, (unsigned long long)bytes);
	}
}

static void sizes_that_are_refused(void **state)
{
	static const struct {
		const char *text;
		int code;
	} cases[] = {
		{"", -EINVAL},
		{" 1", -EINVAL},
		{"1 ", -EINVAL},
		{"1 k", -EINVAL},
		{"-1", -EINVAL},
		{"+1", -EINVAL},
		{"k", -EINVAL},
		{".5k", -EINVAL},
		{"5.", -EINVAL},
		{"5.k", -EINVAL},
		{"1.5", -EINVAL},
		{"1.5B", -EINVAL},
		{"0.1G", -EINVAL},
		{"1.0005kB", -EINVAL},
		{"0x10", -EINVAL},
		{"1e3", -EINVAL},
		{"1_000", -EINVAL},
		{"1,5G", -EINVAL},
		{"1.5.5G", -EINVAL},
		{"4ki", -EINVAL},
		{"4kib", -EINVAL},
		{"4kk", -EINVAL},
		{"4KIB", -EINVAL},
		{"4b", -EINVAL},
		{"4Z", -EINVAL},
		{"4Bk", -EINVAL},
		{"nan", -EINVAL},
		{"4\xc2\xb5", -EINVAL},
		{"16E", -ERANGE},
		{"18446744073709551616", -ERANGE},
		{"18014398509481984k", -ERANGE},
		{"99999999999999999999999999", -ERANGE},
		{"1.0000000000000000000", -ERANGE},
	};
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *why = NULL;
		uint64_t bytes = 99;
		int rc = parse_size(cases[i].text, &bytes, &why);

		if (rc != cases[i].code)
			fail_msg("'%s': %d", cases[i].text, rc);
		assert_int_equal(bytes, 99);
		assert_non_null(why);
	}
}

/* whole.fraction with a unit of 1024^power, computed one digit at a time from the other end. */
static void sizes_at_random(void **state)
{
	static const char letters[] = "kMGT";
	uint64_t seed = test_seed();
	int i;

	for (i = 0; i < COUNT_PARSE_SIZES; i++) {
		unsigned power = (unsigned)(test_random(&seed) % 4);
		uint64_t unit = KIB << (10 * power);
		uint64_t whole = test_random(&seed) % 4096;
		uint64_t eighths = test_random(&seed) % 8;
		uint64_t bytes = 0, expected = 0, n;
		const char *why;
		char text[64];

		snprintf(text, sizeof(text), "%llu.%03llu%c%s", (unsigned long long)whole,
			 (unsigned long long)eighths * 125, letters[power],
			 test_random(&seed) & 1 ? "iB" : "");
		for (n = 0; n < whole; n++)
			expected += unit;
		expected += eighths * (unit / 8);
		if (parse_size(text, &bytes, &why))
			fail_msg("%s: %s", text, why);
		assert_int_equal(bytes, expected);
	}
}

static void numbers_and_modes(void **state)
{
	const char *why;
	uint64_t number = 99;
	uint32_t mode = 99;

	assert_int_equal(parse_number("7", 0, 7, &number, &why), 0);
	assert_int_equal(number, 7);
	assert_int_equal(parse_number("8", 0, 7, &number, &why), -ERANGE);
	assert_int_equal(parse_number("0", 1, 7, &number, &why), -ERANGE);
	assert_int_equal(parse_number("7x", 0, 7, &number, &why), -EINVAL);
	assert_int_equal(parse_number("", 0, 7, &number, &why), -EINVAL);
	assert_int_equal(parse_number("-1", 0, 7, &number, &why), -EINVAL);
	assert_int_equal(number, 7);
	assert_int_equal(parse_mode("0660", &mode, &why), 0);
	assert_int_equal(mode, 0660);
	assert_int_equal(parse_mode("600", &mode, &why), 0);
	assert_int_equal(mode, 0600);
	assert_int_equal(parse_mode("0777", &mode, &why), -EINVAL);
	assert_int_equal(parse_mode("0440", &mode, &why), -EINVAL);
	assert_int_equal(parse_mode("0680", &mode, &why), -EINVAL);
	assert_int_equal(parse_mode("06600", &mode, &why), -EINVAL);
	assert_int_equal(parse_mode("66", &mode, &why), -EINVAL);
	assert_int_equal(mode, 0600);
}

/* ---- options ---- */

struct taken {
	bool flag, other;
	uint64_t bytes;
	uint32_t choice;
	const char *text;
	struct args args;
};

static const struct command pair = {"pair", "A [B]", "", COMMAND_POOL | COMMAND_PRINTS, 1, 2, NULL};
static const struct command alone = {"alone", "", "", COMMAND_PRINTS, 0, 0, NULL};
static const struct command many = {"many", "A...", "", COMMAND_POOL, 1, -1, NULL};

/* Splits words at blanks, as a shell would, and reads them. */
static int take(const struct command *command, const char *words, struct taken *taken)
{
	static char line[512];
	static char *argv[32];
	int argc = 0;
	char *word;
	const struct option_spec options[] = {
		{'f', "flag", NULL, OPTION_FLAG, &taken->flag, ""},
		{'o', "other", NULL, OPTION_FLAG, &taken->other, ""},
		{'s', "size", "SIZE", OPTION_SIZE, &taken->bytes, ""},
		{0, "choice", "red|green|blue", OPTION_CHOICE, &taken->choice, ""},
		{'t', "text", "TEXT", OPTION_TEXT, &taken->text, ""},
	};

	memset(taken, 0, sizeof(*taken));
	snprintf(line, sizeof(line), "%s", words);
	for (word = strtok(line, " "); word; word = strtok(NULL, " "))
		argv[argc++] = word;
	argv[argc] = NULL;
	return args_read(command, options, 5, argc, argv, &taken->args);
}

static void options_that_are_fine(void **state)
{
	struct taken t;

	unsetenv("MORSEL_POOL");
	assert_int_equal(take(&pair, "-fs4k --choice=green pool x -t-y", &t), ARGS_RUN);
	assert_true(t.flag);
	assert_false(t.other);
	assert_int_equal(t.bytes, 4096);
	assert_int_equal(t.choice, 1);
	assert_string_equal(t.text, "-y");
	assert_string_equal(t.args.pool, "pool");
	assert_int_equal(t.args.operands, 1);
	assert_string_equal(t.args.operand[0], "x");

	assert_int_equal(take(&pair, "x --size 1k --pool p --json y", &t), ARGS_RUN);
	assert_string_equal(t.args.pool, "p");
	assert_int_equal(t.args.operands, 2);
	assert_string_equal(t.args.operand[1], "y");
	assert_true(t.args.json);

	assert_int_equal(take(&pair, "-pp -- -f --flag", &t), ARGS_RUN);
	assert_false(t.flag);
	assert_string_equal(t.args.operand[0], "-f");
	assert_string_equal(t.args.operand[1], "--flag");
	assert_int_equal(take(&pair, "-p p -", &t), ARGS_RUN);
	assert_string_equal(t.args.operand[0], "-");
	assert_int_equal(take(&alone, "-fo", &t), ARGS_RUN);
	assert_true(t.flag && t.other);
	assert_null(t.args.pool);
}

static void pools_by_name(void **state)
{
	struct taken t;

	setenv("MORSEL_POOL", "env", 1);
	assert_int_equal(take(&pair, "x", &t), ARGS_RUN);
	assert_string_equal(t.args.pool, "env");
	assert_int_equal(take(&pair, "first x", &t), ARGS_RUN);
	assert_string_equal(t.args.pool, "first");
	assert_int_equal(take(&pair, "-p option x y", &t), ARGS_RUN);
	assert_string_equal(t.args.pool, "option");
	assert_int_equal(take(&many, "p a b c d", &t), ARGS_RUN);
	assert_string_equal(t.args.pool, "p");
	assert_int_equal(t.args.operands, 4);
	setenv("MORSEL_POOL", "", 1);
	assert_int_equal(take(&pair, "x", &t), EXIT_USAGE);
	unsetenv("MORSEL_POOL");
	assert_int_equal(take(&pair, "x", &t), EXIT_USAGE);
}

static void options_that_are_refused(void **state)
{
	static const char *const cases[] = {
		"-x p a",
		"--fla p a",
		"--flags p a",
		"--flag=1 p a",
		"--size p a",
		"-s",
		"--size",
		"--size= p a",
		"--choice=gree p a",
		"--choice=r p a",
		"--choice= p a",
		"-fx p a",
		"--=1 p a",
		"p a b c",
		"-p p a b c",
		"",
		"--bytes p a",
		"---flag p a",
	};
	struct taken t;
	size_t i;

	unsetenv("MORSEL_POOL");
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (take(&pair, cases[i], &t) != EXIT_USAGE)
			fail_msg("'%s' was taken", cases[i]);
	assert_int_equal(take(&alone, "-p p", &t), EXIT_USAGE);
	assert_int_equal(take(&alone, "operand", &t), EXIT_USAGE);
	assert_int_equal(take(&pair, "--help nonsense", &t), EXIT_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_that_are_fine),
		cmocka_unit_test(sizes_that_are_refused),
		cmocka_unit_test(sizes_at_random),
		cmocka_unit_test(numbers_and_modes),
		cmocka_unit_test(options_that_are_fine),
		cmocka_unit_test(pools_by_name),
		cmocka_unit_test(options_that_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
