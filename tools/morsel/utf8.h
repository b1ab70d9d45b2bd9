/*
 * Just enough UTF-8 to know what may be shown: decode strictly (no overlong forms, no surrogates,
 * nothing past U+10FFFF), and tell what would act on a terminal or reorder a line.
 */
#ifndef TOOLS_MORSEL_UTF8_H
#define TOOLS_MORSEL_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the character at text (at most left), its code point in *point; 0 if it is none. */
size_t utf8_decode(const char *text, size_t left, uint32_t *point);

bool utf8_is_valid(const char *text);

/* False for controls, line separators, marks that reorder text, and what is no character. */
bool utf8_is_printable(uint32_t point);

/* Columns of a safe text on a terminal, taking one for each character. */
size_t utf8_columns(const char *text);

#endif
