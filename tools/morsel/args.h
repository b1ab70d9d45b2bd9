/*
 * Commands and their arguments: the table row that describes a command, its options, and the one
 * function that turns argv into them. --help is written from the same description, so that it
 * cannot list what is not understood.
 *
 * Operands: the pool comes first, unless -p names it. Without -p the first operand is the pool if
 * there are more operands than the command needs at least; otherwise MORSEL_POOL names it.
 */
#ifndef TOOLS_MORSEL_ARGS_H
#define TOOLS_MORSEL_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum exit_code { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

enum command_flags {
	COMMAND_POOL = 1 << 0,	 /* works on a pool: -p */
	COMMAND_PRINTS = 1 << 1, /* prints data: --json */
	COMMAND_BYTES = 1 << 2,	 /* prints sizes: --bytes */
};

struct command {
	const char *name;     /* "pool create" */
	const char *operands; /* after the pool, for people: "NAME SIZE" */
	const char *summary;  /* one line */
	unsigned flags;
	int operands_min, operands_max; /* without the pool; max -1: any number */
	int (*run)(const struct command *self, int argc, char **argv); /* argv[0] is the first
									* after the name */
};

enum option_kind {
	OPTION_FLAG,   /* bool *to = true */
	OPTION_SIZE,   /* uint64_t * */
	OPTION_NUMBER, /* uint64_t *, 0 ... 2^32 - 2 */
	OPTION_MODE,   /* uint32_t * */
	OPTION_TEXT,   /* const char ** */
	OPTION_RANGE,  /* uint64_t [2]: two values that follow each other, sizes */
	OPTION_CHOICE, /* uint32_t * = index in the list "a|b|c" that value names */
};

struct option_spec {
	char letter;	   /* 0: only long */
	const char *name;  /* without the dashes */
	const char *value; /* for people, or the list of a CHOICE; NULL for a FLAG */
	enum option_kind kind;
	void *to;
	const char *help;
};

struct args {
	const char *pool; /* NULL for a command without one */
	char **operand;
	int operands;
	bool json;
	bool exact; /* --bytes */
};

#define ARGS_RUN (-1)

/*
 * Reads argv (and reorders it: operands go to the end). Answers ARGS_RUN if the command is to go
 * on, otherwise the exit code: --help was served, or the words of what is wrong are on stderr.
 */
int args_read(const struct command *self, const struct option_spec *options, size_t count, int argc,
	      char **argv, struct args *args);

/* "morsel create: TEXT" on stderr, with control characters made visible. */
void complain(const struct command *self, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* The same, and where the help is; returns EXIT_USAGE. */
int complain_usage(const struct command *self, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

#endif
