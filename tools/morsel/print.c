/*
 * Text, tables and the progress bar. See print.h for what is made of hostile names.
 */
#include "print.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "utf8.h"

static void *must(void *memory)
{
	if (!memory) {
		fputs("morsel: no memory\n", stderr);
		exit(1);
	}
	return memory;
}

/* Bytes of the printable character at text, 0 if there is none to be shown as it is. */
static size_t printable(const char *text, size_t left)
{
	uint32_t point;
	size_t bytes = utf8_decode(text, left, &point);

	return bytes && utf8_is_printable(point) ? bytes : 0;
}

/* Appends text to to, which has room for four times its length and a zero. */
static void make_safe(char *to, const char *text, bool backslash)
{
	static const char hex[] = "0123456789abcdef";
	size_t left = strlen(text);

	while (left) {
		size_t bytes = printable(text, left);

		if (bytes && !(backslash && *text == '\\')) {
			memcpy(to, text, bytes);
			to += bytes;
		} else {
			unsigned char c = (unsigned char)*text;

			bytes = 1;
			*to++ = '\\';
			if (c == '\\') {
				*to++ = '\\';
			} else {
				*to++ = 'x';
				*to++ = hex[c >> 4];
				*to++ = hex[c & 15];
			}
		}
		text += bytes;
		left -= bytes;
	}
	*to = 0;
}

void print_words(FILE *out, const char *text)
{
	char *safe = must(malloc(4 * strlen(text) + 1));

	make_safe(safe, text, false);
	fputs(safe, out);
	free(safe);
}

char *name_text(const char *name)
{
	char *safe = must(malloc(4 * strlen(name) + 1));

	make_safe(safe, name, true);
	return safe;
}

const char *size_text(uint64_t bytes, bool exact, char buffer[SIZE_TEXT_BYTES])
{
	static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	int unit = -1;

	if (exact || bytes < 1024) {
		snprintf(buffer, SIZE_TEXT_BYTES, exact ? "%llu" : "%llu B",
			 (unsigned long long)bytes);
		return buffer;
	}
	while (unit < 5 && value >= 1023.995) {
		value /= 1024;
		unit++;
	}
	snprintf(buffer, SIZE_TEXT_BYTES, "%.*f %s",
		 value >= 99.95	  ? 0
		 : value >= 9.995 ? 1
				  : 2,
		 value, units[unit < 0 ? 0 : unit]);
	return buffer;
}

/* ---- tables ---- */

static void table_take(struct table *table, char *text)
{
	if (table->cells == table->room) {
		table->room = table->room ? 2 * table->room : 64;
		table->cell = must(realloc(table->cell, table->room * sizeof(*table->cell)));
	}
	table->cell[table->cells++] = text;
}

void table_begin(struct table *table, size_t columns, const char *align, const char *const *heads)
{
	size_t i;

	memset(table, 0, sizeof(*table));
	table->columns = columns;
	table->align = align;
	for (i = 0; heads && i < columns; i++)
		table_take(table, must(strdup(heads[i])));
	table->heads = table->cells;
}

void table_add(struct table *table, const char *format, ...)
{
	char *text;
	va_list ap;
	int rc;

	va_start(ap, format);
	rc = vasprintf(&text, format, ap);
	va_end(ap);
	table_take(table, must(rc < 0 ? NULL : text));
}

void table_add_name(struct table *table, const char *name)
{
	table_take(table, name_text(name));
}

void table_add_size(struct table *table, uint64_t bytes, bool exact)
{
	char text[SIZE_TEXT_BYTES];

	table_take(table, must(strdup(size_text(bytes, exact, text))));
}

static int compare_rows(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

void table_sort(struct table *table)
{
	if (table->cells > table->heads)
		qsort(table->cell + table->heads, (table->cells - table->heads) / table->columns,
		      table->columns * sizeof(*table->cell), compare_rows);
}

static void pad(size_t count)
{
	printf("%*s", (int)count, "");
}

static void table_row(const struct table *table, char **cell, const size_t *width)
{
	size_t i;

	for (i = 0; i < table->columns; i++) {
		size_t blank = width[i] - utf8_columns(cell[i]);
		bool right = table->align[i] == 'r';

		if (i + 1 == table->columns && !*cell[i])
			break;
		if (i)
			fputs("  ", stdout);
		if (right)
			pad(blank);
		fputs(cell[i], stdout);
		if (!right && i + 1 < table->columns)
			pad(blank);
	}
	putchar('\n');
}

void table_drop(struct table *table)
{
	size_t i;

	for (i = 0; i < table->cells; i++)
		free(table->cell[i]);
	free(table->cell);
	memset(table, 0, sizeof(*table));
}

void table_end(struct table *table)
{
	size_t width[TABLE_COLUMNS_MAX] = {0};
	size_t i;

	for (i = 0; i < table->cells; i++) {
		size_t columns = utf8_columns(table->cell[i]);

		if (columns > width[i % table->columns])
			width[i % table->columns] = columns;
	}
	for (i = 0; i + table->columns <= table->cells; i += table->columns)
		table_row(table, &table->cell[i], width);
	table_drop(table);
}

/* ---- progress ---- */

#define BAR_CELLS	   24
#define REDRAW_NANOSECONDS 100000000

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void progress_begin(struct progress *progress, const char *what)
{
	memset(progress, 0, sizeof(*progress));
	progress->what = what;
	progress->draw = isatty(STDERR_FILENO);
	progress->start_ns = now_ns();
}

static void progress_draw(struct progress *progress, uint64_t done, uint64_t total)
{
	double part = total ? (double)done / (double)total : 1;
	double seconds = (double)(progress->last_ns - progress->start_ns) / 1e9;
	char bar[BAR_CELLS + 1], have[SIZE_TEXT_BYTES], all[SIZE_TEXT_BYTES], rate[SIZE_TEXT_BYTES];
	int full = (int)(part * BAR_CELLS);

	if (full > BAR_CELLS)
		full = BAR_CELLS;
	memset(bar, '.', BAR_CELLS);
	memset(bar, '#', (size_t)full);
	bar[BAR_CELLS] = 0;
	fprintf(stderr, "\r%s [%s] %3d %%  %s of %s  %s/s\033[K", progress->what, bar,
		(int)(part * 100), size_text(done, false, have), size_text(total, false, all),
		size_text(seconds > 0 ? (uint64_t)((double)done / seconds) : 0, false, rate));
	progress->drawn = true;
}

void progress_step(struct progress *progress, uint64_t done, uint64_t total)
{
	int64_t now;

	if (!progress->draw)
		return;
	now = now_ns();
	if (progress->drawn && done < total && now - progress->last_ns < REDRAW_NANOSECONDS)
		return;
	progress->last_ns = now;
	progress_draw(progress, done, total);
}

void progress_end(struct progress *progress)
{
	if (progress->drawn)
		fputs("\r\033[K", stderr);
	progress->drawn = false;
}
