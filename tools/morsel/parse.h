/*
 * Text to numbers, strictly: what is not wholly understood is refused, and *why says in words what
 * is wrong with it (a string literal; it never goes away).
 */
#ifndef TOOLS_MORSEL_PARSE_H
#define TOOLS_MORSEL_PARSE_H

#include <stdint.h>

/*
 * A size in bytes: decimal digits, perhaps a fraction, perhaps a unit.
 *   k K M G T P E, KiB MiB ...	powers of 1024
 *   kB KB MB GB TB PB EB	powers of 1000
 *   B or nothing		bytes
 * "1.5GiB" is fine; a fraction that is not a whole number of bytes is not. 0 or -EINVAL; -ERANGE
 * past 2^64 - 1.
 */
int parse_size(const char *text, uint64_t *bytes, const char **why);

/* A whole decimal number from min to max. 0, -EINVAL or -ERANGE. */
int parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *number, const char **why);

/* A file mode of three or four octal digits, at most 0666: a pool is never executed. */
int parse_mode(const char *text, uint32_t *mode, const char **why);

#endif
