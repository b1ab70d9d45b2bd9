/*
 * Sizes, numbers and modes from the command line. Sizes are computed exactly, in 128 bits: a size
 * that would have to be rounded is refused, because the caller would get another one than it wrote.
 */
#include "parse.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

typedef unsigned __int128 wide;

#define FRACTION_DIGITS_MAX 18

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static int refuse(int code, const char *words, const char **why)
{
	*why = words;
	return code;
}

/* Reads digits up to the first other character; -ERANGE past 64 bits. */
static int digits(const char **at, uint64_t *value)
{
	wide sum = 0;

	for (; is_digit(**at); (*at)++) {
		sum = sum * 10 + (unsigned)(**at - '0');
		if (sum > UINT64_MAX)
			return -ERANGE;
	}
	*value = (uint64_t)sum;
	return 0;
}

/* What one of the unit is in bytes; 0 if it is no unit. */
static uint64_t unit_bytes(const char *unit)
{
	static const char letters[] = "KMGTPE";
	const char *letter;
	uint64_t bytes = 1;
	uint64_t base;

	if (!*unit || !strcmp(unit, "B"))
		return 1;
	letter = strchr(letters, *unit >= 'a' ? *unit - ('a' - 'A') : *unit);
	if (!letter || !*letter)
		return 0;
	if (!unit[1] || !strcmp(unit + 1, "iB"))
		base = 1024;
	else if (!strcmp(unit + 1, "B"))
		base = 1000;
	else
		return 0;
	for (; letter >= letters; letter--)
		bytes *= base;
	return bytes;
}

/* The digits after the point: value / 10^count. */
static int fraction(const char **at, uint64_t *value, uint64_t *scale)
{
	const char *first = *at;
	int rc = digits(at, value);
	ptrdiff_t count = *at - first;

	if (count == 0)
		return -EINVAL;
	if (rc || count > FRACTION_DIGITS_MAX)
		return -ERANGE;
	for (*scale = 1; count; count--)
		*scale *= 10;
	return 0;
}

int parse_size(const char *text, uint64_t *bytes, const char **why)
{
	uint64_t whole, part = 0, scale = 1, unit;
	const char *at = text;
	wide sum;
	int rc;

	if (!is_digit(*at))
		return refuse(-EINVAL, "a size begins with a digit", why);
	if (digits(&at, &whole))
		return refuse(-ERANGE, "more than 2^64 - 1 bytes", why);
	if (*at == '.') {
		at++;
		rc = fraction(&at, &part, &scale);
		if (rc)
			return refuse(rc, "1 to 18 digits must follow the point", why);
	}
	unit = unit_bytes(at);
	if (!unit)
		return refuse(-EINVAL,
			      "the unit must be one of k M G T P E, KiB ... EiB (1024), "
			      "KB ... EB (1000) or B",
			      why);
	if ((wide)part * unit % scale)
		return refuse(-EINVAL, "not a whole number of bytes", why);
	sum = (wide)whole * unit + (wide)part * unit / scale;
	if (sum > UINT64_MAX)
		return refuse(-ERANGE, "more than 2^64 - 1 bytes", why);
	*bytes = (uint64_t)sum;
	return 0;
}

int parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *number, const char **why)
{
	const char *at = text;
	uint64_t value;

	if (!is_digit(*at))
		return refuse(-EINVAL, "not a whole number", why);
	if (digits(&at, &value))
		return refuse(-ERANGE, "more than 2^64 - 1", why);
	if (*at)
		return refuse(-EINVAL, "not a whole number", why);
	if (value < min)
		return refuse(-ERANGE, "too small", why);
	if (value > max)
		return refuse(-ERANGE, "too large", why);
	*number = value;
	return 0;
}

int parse_mode(const char *text, uint32_t *mode, const char **why)
{
	size_t length = strlen(text);
	uint32_t value = 0;
	const char *at;

	if (length < 3 || length > 4)
		return refuse(-EINVAL, "a mode is three or four octal digits, such as 0660", why);
	for (at = text; *at; at++) {
		if (*at < '0' || *at > '7')
			return refuse(-EINVAL, "a mode is three or four octal digits, such as 0660",
				      why);
		value = value * 8 + (uint32_t)(*at - '0');
	}
	if (value & ~0666u)
		return refuse(-EINVAL, "a pool's mode has read and write bits only", why);
	if ((value & 0600) != 0600)
		return refuse(-EINVAL, "the owner must keep reading and writing (0600)", why);
	*mode = value;
	return 0;
}
