/*
 * The morsel command. This file holds the table of commands and finds the one that was asked for;
 * each group of commands is a file of its own.
 *
 * Data goes to stdout, words to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"

static int version(const struct command *self, int argc, char **argv);
static int help(const struct command *self, int argc, char **argv);

#define POOL   COMMAND_POOL
#define PRINTS COMMAND_PRINTS
#define BYTES  COMMAND_BYTES

static const struct command commands[] = {
	{"pool create", "", "Make a pool: a file that processes share memory through.", POOL, 0, 0,
	 pool_create},
	{"pool info", "", "Show what a pool is and how full.", POOL | PRINTS | BYTES, 0, 0,
	 pool_info},
	{"pool check", "", "Check every invariant of a pool; exit 1 if one is broken.",
	 POOL | PRINTS, 0, 0, pool_check},
	{"pool destroy", "", "Remove a pool that nobody has attached.", POOL, 0, 0, pool_destroy},
	{"pool grow", "SIZE", "Add SIZE (a multiple of 64M) to a pool.", POOL, 1, 1, pool_grow},
	{"pool budget", "SIZE|none|same", "Limit how much memory a pool may hold.", POOL, 1, 1,
	 pool_budget},
	{"pool compact", "", "Gain huge frames by moving pages.", POOL | PRINTS, 0, 0, pool_compact},
	{"pool reap", "", "Clean up after processes that died.", POOL | PRINTS, 0, 0, pool_reap},
	{"create", "NAME SIZE", "Make a morsel, filled with zeros.", POOL, 2, 2, object_create},
	{"list", "", "List the morsels of a pool.", POOL | PRINTS | BYTES, 0, 0, show_list},
	{"info", "NAME", "Show what a morsel is, and the tensors of a model.",
	 POOL | PRINTS | BYTES, 1, 1, show_info},
	{"map", "NAME", "Show which frames of the pool a morsel lies on.", POOL | PRINTS | BYTES, 1,
	 1, show_map},
	{"import", "FILE [NAME]", "Read a file into a morsel, by default of the file's name.",
	 POOL | PRINTS | BYTES, 1, 2, model_import},
	{"export", "NAME FILE", "Write a morsel's content to a file.", POOL, 2, 2, model_export},
	{"dump", "NAME FILE", "Write a morsel to a file that keeps all that it is.",
	 POOL | PRINTS | BYTES, 2, 2, dump_write},
	{"restore", "FILE [NAME]", "Make a morsel from a dump, by default of its old name.",
	 POOL | PRINTS, 1, 2, dump_restore},
	{"rm", "NAME...", "Remove names; memory is free when the last user is gone.", POOL, 1, -1,
	 object_rm},
	{"rename", "NAME NEW", "Give a morsel another name that is not taken.", POOL, 2, 2,
	 object_rename},
	{"mv", "NAME NEW", "The same as rename.", POOL, 2, 2, object_rename},
	{"publish", "NAME AS", "Make the name AS mean this morsel, at one instant.", POOL, 2, 2,
	 object_publish},
	{"clone", "NAME NEW", "Make a second morsel that shares the content until it is written.", POOL, 2,
	 2, clone_morsel},
	{"snapshot", "NAME NEW", "The same, sealed: the content as it is now.", POOL, 2, 2,
	 clone_snapshot},
	{"resize", "NAME SIZE", "Grow or shrink a morsel.", POOL, 2, 2, object_resize},
	{"seal", "NAME", "Make a morsel read-only for everyone and for good.", POOL, 1, 1,
	 object_seal},
	{"evict", "NAME", "Take pages out of memory; they come back when touched.", POOL, 1, 1,
	 advise_evict},
	{"prefetch", "NAME", "Bring pages into memory before they are touched.", POOL, 1, 1,
	 advise_prefetch},
	{"advise", "NAME ADVICE", "Tell how pages will be used, or free them.", POOL, 2, 2,
	 advise_named},
	{"swap add", "FILE|memory", "Add a place for evicted pages: a file, or compressed memory.",
	 POOL, 1, 1, swap_add},
	{"swap remove", "TARGET", "Remove a place for evicted pages.", POOL, 1, 1, swap_remove},
	{"swap on", "TARGET", "Use a place for evicted pages again.", POOL, 1, 1, swap_on},
	{"swap list", "", "Show where evicted pages are kept.", POOL | PRINTS | BYTES, 0, 0,
	 swap_list},
	{"stat", "", "Show what the pool's memory is used for.", POOL | PRINTS | BYTES, 0, 0,
	 stat_show},
	{"top", "", "Show what a pool does, live.", POOL | BYTES, 0, 0, top_show},
	{"who", "NAME PAGE", "Show who holds a page, and why it cannot be evicted.", POOL | PRINTS,
	 2, 2, who_show},
	{"pager", "", "Keep a pool alive, and see to it that its pages are evicted.", POOL, 0, 0,
	 pager_run},
	{"iommu list", "", "List PCI functions, and whether user space can drive them.", PRINTS, 0,
	 0, iommu_list},
	{"iommu info", "DEVICE", "Show what a device and its IOMMU can do.", PRINTS | BYTES, 1, 1,
	 iommu_info},
	{"iommu map", "DEVICE NAME", "Show how a morsel would be mapped for a device.",
	 POOL | PRINTS | BYTES, 2, 2, iommu_map},
	{"iommu bind", "DEVICE", "Give a device to user space, away from its driver.", 0, 1, 1,
	 iommu_bind},
	{"iommu unbind", "DEVICE", "Give a device back to the kernel's driver.", 0, 1, 1,
	 iommu_unbind},
	{"nvme list", "", "List the NVMe controllers of this machine.", PRINTS, 0, 0, nvme_list},
	{"nvme info", "DEVICE", "Show what an NVMe controller is and can do.", PRINTS | BYTES, 1, 1,
	 nvme_info},
	{"nvme read", "DEVICE FILE", "Read bytes of an NVMe device into a file.", 0, 2, 2, nvme_read},
	{"nvme write", "DEVICE FILE", "Write a file's bytes to an NVMe device.", 0, 2, 2, nvme_write},
	{"nvme import", "DEVICE NAME", "Read a file that an NVMe device keeps into a morsel.",
	 POOL | PRINTS | BYTES, 2, 2, nvme_import},
	{"nvme export", "NAME DEVICE", "Keep a morsel's content on an NVMe device.",
	 POOL | PRINTS | BYTES, 2, 2, nvme_export},
	{"nvme bench", "DEVICE", "Measure how long commands of an NVMe device take.", PRINTS, 1, 1,
	 nvme_bench},
	{"gpu list", "", "List the OpenCL devices of this machine.", PRINTS, 0, 0, gpu_list},
	{"gpu info", "[DEVICE]", "Show what an OpenCL device is, and how it would see a morsel.",
	 PRINTS | BYTES, 0, 1, gpu_info},
	{"doctor", "", "Tell what this machine offers, what is missing, and the remedy.", PRINTS, 0,
	 0, doctor},
	{"lab run", "PROGRAM", "Boot an emulated machine and run a program in it.", 0, 1, -1,
	 lab_run},
	{"lab shell", "", "Boot an emulated machine and be in its shell.", 0, 0, 0, lab_run},
	{"lab fetch", "[PART...]", "Fetch kernels and QEMU into the cache.", 0, 0, -1, lab_run},
	{"lab kernel", "", "Build the lab's own kernel into the cache, once.", 0, 0, 0, lab_run},
	{"version", "", "Print the versions of the command and of the library.", PRINTS, 0, 0,
	 version},
	{"help", "[COMMAND]", "Explain the command, or one of its commands.", 0, 0, 2, help},
};

static int version(const struct command *self, int argc, char **argv)
{
	struct args args;
	struct json json;
	int code = args_read(self, NULL, 0, argc, argv, &args);

	if (code != ARGS_RUN)
		return code;
	if (!args.json) {
		printf("morsel %s, library %s\n", MORSEL_VERSION_STRING, morsel_version());
		return EXIT_OK;
	}
	json_begin(&json, stdout);
	json_text(&json, "command", MORSEL_VERSION_STRING);
	json_text(&json, "library", morsel_version());
	json_end(&json);
	return EXIT_OK;
}

static int overview(void)
{
	size_t i;

	printf("Usage: morsel COMMAND [OPTION...] [POOL] [OPERAND...]\n"
	       "Memory shared between processes and devices, as named objects in a pool.\n\n"
	       "Commands:\n");
	for (i = 0; i < array_length(commands); i++)
		printf("  %-13s %s\n", commands[i].name, commands[i].summary);
	printf("\nThe pool is the first operand, or what -p names, or what MORSEL_POOL names.\n"
	       "'morsel COMMAND --help' lists the options; morsel(1) is the manual.\n");
	return EXIT_OK;
}

/*
 * The command that argv begins with: one word, or two after a group's. *words tells how many it took.
 * NULL if there is none.
 */
static const struct command *find(int argc, char **argv, int *words)
{
	char name[32];
	size_t i;

	for (*words = 2; *words > 0; (*words)--) {
		if (argc < *words)
			continue;
		snprintf(name, sizeof(name), "%s%s%s", argv[0], *words == 2 ? " " : "",
			 *words == 2 ? argv[1] : "");
		for (i = 0; i < array_length(commands); i++)
			if (!strcmp(commands[i].name, name))
				return &commands[i];
	}
	return NULL;
}

/* Words that begin several commands. */
static bool is_group(const char *word)
{
	return !strcmp(word, "gpu") || !strcmp(word, "iommu") || !strcmp(word, "lab") ||
	       !strcmp(word, "nvme") || !strcmp(word, "pool") || !strcmp(word, "swap");
}

static int group_overview(const char *group, FILE *out)
{
	size_t length = strlen(group), i;

	fprintf(out, "Usage: morsel %s COMMAND [OPTION...] [POOL] [OPERAND...]\n\nCommands:\n",
		group);
	for (i = 0; i < array_length(commands); i++)
		if (!strncmp(commands[i].name, group, length) && commands[i].name[length] == ' ')
			fprintf(out, "  %-13s %s\n", commands[i].name, commands[i].summary);
	return out == stdout ? EXIT_OK : EXIT_USAGE;
}

static int unknown(int argc, char **argv)
{
	if (!is_group(argv[0]))
		return complain_usage(NULL, "there is no command '%s'", argv[0]);
	if (argc == 1)
		return group_overview(argv[0], stderr);
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return group_overview(argv[0], stdout);
	return complain_usage(NULL, "there is no command '%s %s'", argv[0], argv[1]);
}

static int help(const struct command *self, int argc, char **argv)
{
	char ask[] = "--help";
	char *question[] = {ask, NULL};
	const struct command *about;
	struct args args;
	int words;
	int code = args_read(self, NULL, 0, argc, argv, &args);

	if (code != ARGS_RUN)
		return code;
	if (!args.operands)
		return overview();
	about = find(args.operands, args.operand, &words);
	if (about && words == args.operands)
		return about->run(about, 1, question);
	if (args.operands == 1 && is_group(args.operand[0]))
		return group_overview(args.operand[0], stdout);
	return unknown(args.operands, args.operand);
}

static int dispatch(int argc, char **argv)
{
	static char version_word[] = "version";
	const struct command *self;
	int words;

	if (argc == 0)
		return complain_usage(NULL, "which command?");
	if (!strcmp(argv[0], "--help") || !strcmp(argv[0], "-h"))
		return overview();
	if (!strcmp(argv[0], "--version") || !strcmp(argv[0], "-V"))
		argv[0] = version_word;
	self = find(argc, argv, &words);
	if (!self)
		return unknown(argc, argv);
	return self->run(self, argc - words, argv + words);
}

/* What was printed must have arrived: a full disk is a failure like any other. */
static int flush(int code)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return code;
	fprintf(stderr, "morsel: writing to stdout: %s\n", strerror(errno));
	return EXIT_FAILED;
}

int main(int argc, char **argv)
{
	return flush(dispatch(argc - 1, argv + 1));
}
