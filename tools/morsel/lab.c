/*
 * The lab: emulated machines in which programs meet devices and an IOMMU. It is written in Python
 * (tools/lab); this finds it beside the command and becomes it. Options and --help are its own.
 */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"

#define LAB_PROGRAM "../libexec/morsel/lab/lab.py" /* seen from the folder of the command */

/* Writes where the lab's program is; false if it is not there. */
static bool lab_path(char *path, size_t size)
{
	char self[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (length < 0)
		return false;
	self[length] = '\0';
	return (size_t)snprintf(path, size, "%s/" LAB_PROGRAM, dirname(self)) < size &&
	       !access(path, R_OK);
}

int lab_run(const struct command *self, int argc, char **argv)
{
	static char python[] = "python3", no_cache[] = "-B";
	char path[PATH_MAX + sizeof(LAB_PROGRAM)];
	char word[32];
	char **words = calloc((size_t)argc + 5, sizeof(*words));

	if (!words || !lab_path(path, sizeof(path))) {
		complain(self,
			 "the lab's program is not here (%s from the folder of morsel): it is "
			 "installed with "
			 "morsel",
			 LAB_PROGRAM);
		free(words);
		return EXIT_FAILED;
	}
	snprintf(word, sizeof(word), "%s", self->name + strlen("lab "));
	words[0] = python;
	words[1] = no_cache;
	words[2] = path;
	words[3] = word;
	memcpy(words + 4, argv, (size_t)argc * sizeof(*words));
	fflush(NULL);
	execvp(python, words);
	complain(self, "python3 cannot be run: %s; the lab is written in it", strerror(errno));
	free(words);
	return EXIT_FAILED;
}
