/*
 * What the command prints: tables for people and JSON for programs.
 *
 * Names come from other processes. For people, every byte that is not a printable character of
 * valid UTF-8 becomes \xNN (and a backslash \\), so that a name can neither move the cursor nor
 * forge a line. JSON strings are valid UTF-8 whatever the name is: see json_name().
 */
#ifndef TOOLS_MORSEL_PRINT_H
#define TOOLS_MORSEL_PRINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Writes a message: unprintable bytes become \xNN; a backslash stays as it is. */
void print_words(FILE *out, const char *text);

/* A name as people may see it; from malloc. Ends the program if there is no memory. */
char *name_text(const char *name);

/* Enough for every text that size_text() writes. */
#define SIZE_TEXT_BYTES 24

/* "6.82 GiB", or the plain number of bytes if exact; returns buffer. */
const char *size_text(uint64_t bytes, bool exact, char buffer[SIZE_TEXT_BYTES]);

/* ---- tables ---- */

#define TABLE_COLUMNS_MAX 12

struct table {
	size_t columns;
	const char *align; /* per column 'l' or 'r' */
	char **cell;	   /* row by row; the first row are the heads */
	size_t cells, room;
	size_t heads; /* cells that are heads: 0 or columns */
};

/* heads may be NULL: a table without a first line. heads and align must outlive the table. */
void table_begin(struct table *table, size_t columns, const char *align, const char *const *heads);
void table_add(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
void table_add_name(struct table *table, const char *name);
void table_add_size(struct table *table, uint64_t bytes, bool exact);
/* Puts the rows into the order of their first cells' bytes; the heads stay first. */
void table_sort(struct table *table);
/* Writes it to stdout, columns as wide as they need to be, and forgets it. */
void table_end(struct table *table);
/* Forgets it unwritten. */
void table_drop(struct table *table);

/* ---- JSON ---- */

#define JSON_DEPTH_MAX 8

struct json {
	FILE *out;
	unsigned depth;
	struct {
		char close;   /* '}' or ']' */
		bool flat;    /* on one line */
		bool started; /* has a first element */
	} level[JSON_DEPTH_MAX];
};

/*
 * A document is one object: json_begin() ... json_end(). Inside an object every element has a key;
 * in a list key is NULL.
 */
void json_begin(struct json *json, FILE *out);
void json_end(struct json *json);
void json_object(struct json *json, const char *key);
void json_list(struct json *json, const char *key);
void json_flat_list(struct json *json, const char *key);
void json_close(struct json *json); /* the innermost object or list */
void json_u64(struct json *json, const char *key, uint64_t value);
void json_i64(struct json *json, const char *key, int64_t value);
void json_bool(struct json *json, const char *key, bool value);
/* Bytes that are not UTF-8 become U+FFFD. text NULL writes null. */
void json_text(struct json *json, const char *key, const char *text);
/*
 * A morsel's or tensor's name: "name", and if it is not valid UTF-8 also "name_hex", its bytes.
 */
void json_name(struct json *json, const char *name);

/* ---- progress ---- */

struct progress {
	const char *what; /* "import" */
	bool draw;	  /* stderr is a terminal */
	bool drawn;
	int64_t start_ns, last_ns;
};

void progress_begin(struct progress *progress, const char *what);
void progress_step(struct progress *progress, uint64_t done, uint64_t total);
/* Wipes the line, so that what follows stands alone. */
void progress_end(struct progress *progress);

#endif
