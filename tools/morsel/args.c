/*
 * The option parser and --help, both driven by one table per command. Long options are matched
 * whole, never by a prefix: a script that abbreviates breaks when an option is added.
 */
#include "args.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parse.h"
#include "print.h"

#define OPTIONS_MAX 24

/* The command's own options and those that it shares with others. */
struct option_list {
	const struct option_spec *option[OPTIONS_MAX];
	size_t count;
};

struct reader {
	const struct command *self;
	struct option_list list;
	int argc;
	char **argv;
	int next;     /* argument to read */
	int operands; /* so many are at the start of argv */
};

void complain(const struct command *self, const char *format, ...)
{
	char text[4096];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	fprintf(stderr, "morsel%s%s: ", self ? " " : "", self ? self->name : "");
	print_words(stderr, text);
	fputc('\n', stderr);
}

int complain_usage(const struct command *self, const char *format, ...)
{
	char text[4096];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	complain(self, "%s", text);
	fprintf(stderr, "Try 'morsel%s%s --help'.\n", self ? " " : "", self ? self->name : "");
	return EXIT_USAGE;
}

static void list_add(struct option_list *list, const struct option_spec *option)
{
	if (list->count < OPTIONS_MAX)
		list->option[list->count++] = option;
}

static const struct option_spec *find_long(const struct option_list *list, const char *name,
					   size_t length)
{
	size_t i;

	for (i = 0; i < list->count; i++)
		if (strlen(list->option[i]->name) == length &&
		    !memcmp(list->option[i]->name, name, length))
			return list->option[i];
	return NULL;
}

static const struct option_spec *find_letter(const struct option_list *list, char letter)
{
	size_t i;

	for (i = 0; i < list->count; i++)
		if (list->option[i]->letter == letter)
			return list->option[i];
	return NULL;
}

/* Index of text in the list "a|b|c"; -1 if it is none of them. */
static int choice_index(const char *list, const char *text)
{
	size_t length = strlen(text);
	int index;

	for (index = 0; *list; index++) {
		size_t word = strcspn(list, "|");

		if (word == length && !memcmp(list, text, length))
			return index;
		list += word + (list[word] == '|');
	}
	return -1;
}

static int option_number(const struct option_spec *option, const char *value, const char **why)
{
	int index;

	switch (option->kind) {
	case OPTION_SIZE:
		return parse_size(value, option->to, why);
	case OPTION_NUMBER:
		return parse_number(value, 0, UINT32_MAX - 1, option->to, why);
	case OPTION_MODE:
		return parse_mode(value, option->to, why);
	case OPTION_CHOICE:
		*why = option->value;
		index = choice_index(option->value, value);
		if (index < 0)
			return -EINVAL;
		*(uint32_t *)option->to = (uint32_t)index;
		return 0;
	default:
		return 0;
	}
}

static int option_store(const struct reader *r, const struct option_spec *option, const char *value)
{
	const char *why = "";

	if (option->kind == OPTION_FLAG) {
		*(bool *)option->to = true;
		return ARGS_RUN;
	}
	if (option->kind == OPTION_TEXT) {
		*(const char **)option->to = value;
		return ARGS_RUN;
	}
	if (option_number(option, value, &why))
		return complain_usage(r->self, "--%s '%s': %s", option->name, value, why);
	return ARGS_RUN;
}

/* Two sizes: where, and how much of it, which is not nothing. */
static int read_range(struct reader *r, const struct option_spec *option, const char *offset)
{
	uint64_t *range = option->to;
	const char *bytes = r->next < r->argc ? r->argv[r->next++] : NULL, *why = "";

	if (!bytes)
		return complain_usage(r->self, "--%s needs two values (%s)", option->name,
				      option->value);
	if (parse_size(offset, &range[0], &why))
		return complain_usage(r->self, "--%s '%s': %s", option->name, offset, why);
	if (parse_size(bytes, &range[1], &why))
		return complain_usage(r->self, "--%s '%s': %s", option->name, bytes, why);
	if (!range[1])
		return complain_usage(r->self, "--%s: a range of 0 bytes", option->name);
	return ARGS_RUN;
}

/* The value of an option that needs one: what follows it, or the next argument. */
static int option_value(struct reader *r, const struct option_spec *option, const char *attached)
{
	if (!attached && r->next < r->argc)
		attached = r->argv[r->next++];
	if (!attached)
		return complain_usage(r->self, "--%s needs a value (%s)", option->name,
				      option->value);
	if (option->kind == OPTION_RANGE)
		return read_range(r, option, attached);
	return option_store(r, option, attached);
}

static int read_long(struct reader *r, const char *text)
{
	size_t length = strcspn(text, "=");
	const char *attached = text[length] ? text + length + 1 : NULL;
	const struct option_spec *option = find_long(&r->list, text, length);

	if (!option)
		return complain_usage(r->self, "there is no option '--%.*s'", (int)length, text);
	if (option->kind != OPTION_FLAG)
		return option_value(r, option, attached);
	if (attached)
		return complain_usage(r->self, "--%s takes no value", option->name);
	return option_store(r, option, NULL);
}

static int read_letters(struct reader *r, const char *letter)
{
	for (; *letter; letter++) {
		const struct option_spec *option = find_letter(&r->list, *letter);
		int code;

		if (!option)
			return complain_usage(r->self, "there is no option '-%c'", *letter);
		if (option->kind != OPTION_FLAG)
			return option_value(r, option, letter[1] ? letter + 1 : NULL);
		code = option_store(r, option, NULL);
		if (code != ARGS_RUN)
			return code;
	}
	return ARGS_RUN;
}

static int read_all(struct reader *r)
{
	bool only_operands = false;
	int code = ARGS_RUN;

	while (r->next < r->argc && code == ARGS_RUN) {
		char *text = r->argv[r->next++];

		if (only_operands || text[0] != '-' || !text[1])
			r->argv[r->operands++] = text;
		else if (!strcmp(text, "--"))
			only_operands = true;
		else if (text[1] == '-')
			code = read_long(r, text + 2);
		else
			code = read_letters(r, text + 1);
	}
	return code;
}

static void help_option(const struct option_spec *option)
{
	char left[64];

	snprintf(left, sizeof(left), "%c%c%c --%s%s%s", option->letter ? '-' : ' ',
		 option->letter ? option->letter : ' ', option->letter ? ',' : ' ', option->name,
		 option->value ? " " : "", option->value ? option->value : "");
	if (strlen(left) <= 24)
		printf("  %-24s  %s\n", left, option->help);
	else
		printf("  %s\n  %-24s  %s\n", left, "", option->help);
}

static void help(const struct command *self, const struct option_list *list)
{
	size_t i;

	printf("Usage: morsel %s [OPTION...]%s%s%s\n", self->name,
	       self->flags & COMMAND_POOL ? " [POOL]" : "", *self->operands ? " " : "",
	       self->operands);
	printf("%s\n\nOptions:\n", self->summary);
	for (i = 0; i < list->count; i++)
		help_option(list->option[i]);
	if (self->flags & COMMAND_POOL)
		printf("\nPOOL is a path; without it and -p, MORSEL_POOL names the pool.\n");
	if (strstr(self->operands, "SIZE"))
		printf("\nA SIZE is a number with a unit: 4k 2M 1.5GiB (1024), 10MB (1000).\n");
}

static int find_pool(const struct command *self, struct args *args)
{
	const char *from_environment = getenv("MORSEL_POOL");

	if (!(self->flags & COMMAND_POOL) || args->pool)
		return ARGS_RUN;
	if (args->operands > self->operands_min) {
		args->pool = args->operand[0];
		args->operand++;
		args->operands--;
		return ARGS_RUN;
	}
	if (!from_environment || !*from_environment)
		return complain_usage(self, "which pool? Name it first, or with -p, or in the "
					    "environment variable MORSEL_POOL");
	args->pool = from_environment;
	return ARGS_RUN;
}

/* What is left when the pool is known, and is known to be enough, must not be too much. */
static int find_operands(const struct command *self, struct args *args)
{
	int code;

	if (args->operands < self->operands_min)
		return complain_usage(self, "too few operands: %s%s",
				      self->flags & COMMAND_POOL ? "[POOL] " : "", self->operands);
	code = find_pool(self, args);
	if (code == ARGS_RUN && self->operands_max >= 0 && args->operands > self->operands_max)
		return complain_usage(self, "one operand too many: '%s'",
				      args->operand[self->operands_max]);
	return code;
}

int args_read(const struct command *self, const struct option_spec *options, size_t count, int argc,
	      char **argv, struct args *args)
{
	bool wants_help = false;
	const struct option_spec shared[] = {
		{'p', "pool", "POOL", OPTION_TEXT, &args->pool, "path of the pool"},
		{'j', "json", NULL, OPTION_FLAG, &args->json, "print JSON; sizes are in bytes"},
		{'b', "bytes", NULL, OPTION_FLAG, &args->exact, "print sizes in bytes"},
		{'h', "help", NULL, OPTION_FLAG, &wants_help, "print this help"},
	};
	struct reader r = {.self = self, .argc = argc, .argv = argv};
	size_t i;
	int code;

	memset(args, 0, sizeof(*args));
	for (i = 0; i < count; i++)
		list_add(&r.list, &options[i]);
	for (i = 0; i < 4; i++)
		if (i == 3 || (self->flags & (1u << i)))
			list_add(&r.list, &shared[i]);
	code = read_all(&r);
	if (code == ARGS_RUN && wants_help) {
		help(self, &r.list);
		return EXIT_OK;
	}
	args->operand = argv;
	args->operands = r.operands;
	return code == ARGS_RUN ? find_operands(self, args) : code;
}
