/* Strict UTF-8, see utf8.h. */
#include "utf8.h"

#include <string.h>

size_t utf8_decode(const char *text, size_t left, uint32_t *point)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	unsigned char first = left ? (unsigned char)*text : 0;
	size_t bytes = first < 0x80   ? 1
		       : first < 0xc2 ? 0
		       : first < 0xe0 ? 2
		       : first < 0xf0 ? 3
		       : first < 0xf5 ? 4
				      : 0;
	uint32_t value;
	size_t i;

	if (!left || !bytes || bytes > left)
		return 0;
	value = bytes == 1 ? first : first & (0x7fu >> bytes);
	for (i = 1; i < bytes; i++) {
		unsigned char next = (unsigned char)text[i];

		if ((next & 0xc0) != 0x80)
			return 0;
		value = value << 6 | (next & 0x3f);
	}
	if (value < least[bytes] || value > 0x10ffff || (value >= 0xd800 && value < 0xe000))
		return 0;
	*point = value;
	return bytes;
}

bool utf8_is_valid(const char *text)
{
	size_t left = strlen(text);

	while (left) {
		uint32_t point;
		size_t bytes = utf8_decode(text, left, &point);

		if (!bytes)
			return false;
		text += bytes;
		left -= bytes;
	}
	return true;
}

bool utf8_is_printable(uint32_t point)
{
	if (point < 0x20 || (point >= 0x7f && point < 0xa0))
		return false;
	if ((point >= 0x200b && point <= 0x200f) || (point >= 0x2028 && point <= 0x202e) ||
	    (point >= 0x2060 && point <= 0x206f) || point == 0xad || point == 0x61c ||
	    point == 0xfeff)
		return false;
	return point < 0xe0000 || point > 0xe007f;
}

size_t utf8_columns(const char *text)
{
	size_t columns = 0;

	for (; *text; text++)
		columns += ((unsigned char)*text & 0xc0) != 0x80;
	return columns;
}
