/*
 * Replays a corpus through a fuzz target without libFuzzer: every file of the folders named on the
 * command line is one input. Fails if there was no input at all, for then it has tested nothing.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static int replay_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	uint8_t *data;
	long bytes;

	if (!f)
		return 0;
	if (fseek(f, 0, SEEK_END) || (bytes = ftell(f)) < 0) {
		fclose(f);
		return 0;
	}
	rewind(f);
	/* An exact allocation, so that AddressSanitizer sees a read past the input's end. */
	data = malloc(bytes ? bytes : 1);
	if (data && fread(data, 1, bytes, f) == (size_t)bytes)
		LLVMFuzzerTestOneInput(data, bytes);
	free(data);
	fclose(f);
	return 1;
}

int main(int argc, char **argv)
{
	unsigned replayed = 0;

	for (int i = 1; i < argc; i++) {
		DIR *dir = opendir(argv[i]);
		struct dirent *entry;

		while (dir && (entry = readdir(dir))) {
			char path[4096];

			if (entry->d_name[0] == '.')
				continue;
			snprintf(path, sizeof(path), "%s/%s", argv[i], entry->d_name);
			replayed += replay_file(path);
		}
		if (dir)
			closedir(dir);
	}
	printf("replayed %u inputs\n", replayed);
	return replayed ? 0 : 1;
}
