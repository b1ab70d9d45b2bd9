/*
 * import and export: files to morsels and back. Both are cancelled by SIGINT or SIGTERM: the
 * library stops at its next progress call and leaves nothing behind (not before memory for all of
 * the file has been reserved, and not while another process imports the same name). A second signal
 * kills, which is safe as well: whoever attaches next cleans up.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "commands.h"

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number)
{
	interrupted = signal_number;
}

void watch_interrupts(void)
{
	struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

int on_progress(void *ctx, uint64_t done, uint64_t total)
{
	progress_step(ctx, done, total);
	return interrupted != 0;
}

/* ---- import ---- */

struct import {
	const struct command *self;
	struct args args;
	struct morsel_opts opts;
	struct progress progress;
	bool replace, contiguous, evictable;
	bool existed;
	const char *file, *name;
};

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static bool exists(struct morsel_pool *pool, const char *name)
{
	struct morsel *morsel;

	if (morsel_open(pool, name, NULL, &morsel) < 0)
		return false;
	morsel_close(morsel);
	return true;
}

/*
 * Imports under a name that only this process uses and publishes that: whoever opens the name gets
 * the old content or the new, never a mix.
 */
static int import_replacing(struct import *import, struct morsel_pool *pool, struct morsel **morsel)
{
	char name[MORSEL_NAME_MAX + 1];
	int rc;

	snprintf(name, sizeof(name), ".import-%ld-%" PRId64, (long)getpid(),
		 import->progress.start_ns);
	rc = morsel_import(pool, name, import->file, &import->opts, morsel);
	if (rc < 0)
		return rc;
	rc = morsel_publish(*morsel, import->name);
	if (rc >= 0)
		return 0;
	morsel_close(*morsel);
	morsel_unlink(pool, name);
	return rc;
}

/* Shows the bar before the library's first call, which comes when all memory is reserved. */
static void import_announce(struct import *import)
{
	struct stat file;

	progress_begin(&import->progress, "import");
	if (!stat(import->file, &file) && S_ISREG(file.st_mode) && file.st_size)
		progress_step(&import->progress, 0, (uint64_t)file.st_size);
}

static int import_run(struct import *import, struct morsel_pool *pool, struct morsel **morsel)
{
	int rc;

	import->opts.progress = on_progress;
	import->opts.progress_ctx = &import->progress;
	import->existed = exists(pool, import->name);
	watch_interrupts();
	import_announce(import);
	if (import->replace)
		rc = import_replacing(import, pool, morsel);
	else
		rc = morsel_import(pool, import->name, import->file, &import->opts, morsel);
	progress_end(&import->progress);
	return rc;
}

static void import_print(const struct import *import, const struct morsel_info *info)
{
	char size[SIZE_TEXT_BYTES];
	char *name;
	struct json json;

	if (import->args.json) {
		json_begin(&json, stdout);
		json_morsel(&json, info);
		json_bool(&json, "existed", import->existed);
		json_end(&json);
		return;
	}
	name = name_text(info->name);
	printf("%s: %s, %s", name, size_text(info->bytes, import->args.exact, size),
	       morsel_format_name(info->format));
	if (info->tensors)
		printf(", %" PRIu64 " tensors", info->tensors);
	putchar('\n');
	free(name);
}

static int import_do(struct morsel_pool *pool, void *ctx)
{
	struct morsel_info info = {.size = sizeof(info)};
	struct import *import = ctx;
	struct morsel *morsel;
	int rc = import_run(import, pool, &morsel);

	if (rc < 0)
		return rc;
	if (import->existed && !import->replace)
		complain(import->self,
			 "'%s' was there already; the file was not read "
			 "(--replace reads it anew)",
			 import->name);
	rc = morsel_info(morsel, &info);
	if (!rc)
		import_print(import, &info);
	morsel_close(morsel);
	return rc;
}

int model_import(const struct command *self, int argc, char **argv)
{
	struct import import = {.self = self, .opts.size = sizeof(import.opts)};
	const struct option_spec options[] = {
		{'n', "name", "NAME", OPTION_TEXT, &import.name,
		 "name of the morsel, as NAME after FILE is"},
		{'a', "align", "SIZE", OPTION_SIZE, &import.opts.tensor_align,
		 "align every tensor to SIZE (a power of two up to 2M), such as 4k"},
		{'r', "replace", NULL, OPTION_FLAG, &import.replace,
		 "if the name exists, put the new content in its place"},
		{'c', "contiguous", NULL, OPTION_FLAG, &import.contiguous, "one run or nothing"},
		{'e', "evictable", NULL, OPTION_FLAG, &import.evictable,
		 "allow its pages to be evicted and moved"},
		{0, "pages", PAGES_CHOICES, OPTION_CHOICE, &import.opts.pages,
		 "size of the pages, default mixed: the largest that fits"},
	};
	int code = args_read(self, options, array_length(options), argc, argv, &import.args);

	if (code != ARGS_RUN)
		return code;
	import.file = import.args.operand[0];
	if (import.name && import.args.operands > 1)
		return complain_usage(self, "two names: '%s' and '%s'", import.name,
				      import.args.operand[1]);
	if (!import.name)
		import.name =
			import.args.operands > 1 ? import.args.operand[1] : base_name(import.file);
	import.opts.flags = (import.contiguous ? MORSEL_CONTIGUOUS : 0) |
			    (import.evictable ? MORSEL_EVICTABLE : 0);
	return on_pool(self, &import.args, 0, import_do, &import);
}

/* ---- export ---- */

static int export_one(struct morsel *morsel, void *ctx)
{
	struct progress progress;
	struct morsel_opts opts = {
		.size = sizeof(opts), .progress = on_progress, .progress_ctx = &progress};
	int rc;

	watch_interrupts();
	progress_begin(&progress, "export");
	rc = morsel_export(morsel, ctx, &opts);
	progress_end(&progress);
	return rc;
}

int model_export(const struct command *self, int argc, char **argv)
{
	struct args args;
	int code = args_read(self, NULL, 0, argc, argv, &args);

	return code == ARGS_RUN ? on_morsel(self, &args, export_one, args.operand[1]) : code;
}
