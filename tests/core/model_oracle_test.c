/*
 * The parsers against tools/lib/model_reader.py, which shares nothing with them: over generated
 * models of the three formats, conversions of each into the others, and whatever real models
 * tools/fetch-model has in its cache (it is not asked to fetch any).
 */
#include "core/model_bytes.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/base.h"

#define TOOLS MORSEL_SOURCE_DIR "/tools"

static char folder[] = "/tmp/morsel-model-XXXXXX";
static const char *const formats[] = {"safetensors", "gguf", "onnx"};

static int run(const char *format, ...)
{
	char command[4096];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	return system(command);
}

/* What a command prints, or NULL if it fails. For free(). */
static char *output_of(const char *format, ...)
{
	char command[4096];
	struct bytes b = {0};
	va_list args;
	FILE *pipe;
	int c;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	pipe = popen(command, "r");
	assert_non_null(pipe);
	while ((c = getc(pipe)) != EOF)
		put_number(&b, (uint64_t)c, 1);
	put(&b, "", 1);
	if (pclose(pipe) == 0)
		return (char *)b.data;
	bytes_free(&b);
	return NULL;
}

/* The C parser's list in the words of model_reader.py --table. */
static void print_model(struct bytes *out, const struct mrs_model *model, const char *path)
{
	char line[4096];

	snprintf(line, sizeof(line), "file %s %llu %s\n", morsel_format_name(model->format),
		 (unsigned long long)model->source_bytes, path);
	put(out, line, strlen(line));
	for (uint64_t i = 0; i < model->count; i++) {
		const struct mrs_tensor *t = &model->tensors[i];
		char shape[512] = "";
		size_t length = 0;

		for (uint32_t k = 0; k < t->rank; k++)
			length += (size_t)snprintf(shape + length, sizeof(shape) - length, "%s%llu",
						   k ? "," : "", (unsigned long long)t->shape[k]);
		snprintf(line, sizeof(line), "%llu %llu %s [%s] [%s] %s\n",
			 (unsigned long long)t->offset, (unsigned long long)t->bytes,
			 morsel_type_name(t->type), shape,
			 t->flags & MORSEL_TENSOR_ENCODED    ? "encoded"
			 : t->flags & MORSEL_TENSOR_EXTERNAL ? "external"
							     : "",
			 mrs_model_name(model, i));
		put(out, line, strlen(line));
	}
}

static void parse_file(const char *path, struct mrs_model *model)
{
	struct mrs_source source;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(mrs_source_fd(&source, &fd), 0);
	if (mrs_model_parse(&source, model))
		fail_msg("%s: %s", path, morsel_errormsg());
	close(fd);
}

/* Every file of the list (one per line) gives the same table on both sides. */
static void compare_files(const char *list)
{
	char *table, name[64];
	struct bytes ours = {0};
	uint64_t files = 0, tensors = 0;
	FILE *file;

	snprintf(name, sizeof(name), "%s/list", folder);
	file = fopen(name, "w");
	assert_non_null(file);
	fputs(list, file);
	fclose(file);
	table = output_of("xargs -d '\\n' " TOOLS "/lib/model_reader.py --table < %s", name);
	assert_non_null(table);
	for (const char *p = list; *p; p = strchr(p, '\n') + 1) {
		struct mrs_model model = {0};
		char path[2048];

		snprintf(path, sizeof(path), "%.*s", (int)(strchr(p, '\n') - p), p);
		parse_file(path, &model);
		print_model(&ours, &model, path);
		tensors += model.count;
		files++;
		mrs_model_free(&model);
	}
	put(&ours, "", 1);
	if (strcmp((const char *)ours.data, table)) {
		size_t at = 0;

		while (ours.data[at] == (unsigned char)table[at])
			at++;
		while (at && table[at - 1] != '\n')
			at--;
		fail_msg("ours: %.200s\ntheirs: %.200s", (char *)ours.data + at, table + at);
	}
	printf("%llu files, %llu tensors\n", (unsigned long long)files,
	       (unsigned long long)tensors);
	free(table);
	bytes_free(&ours);
}

static void generated_models(void **state)
{
	unsigned long long seed = test_seed();
	char list[4096] = "";
	size_t length = 0;

	for (size_t i = 0; i < mrs_array_length(formats); i++) {
		assert_int_equal(run(TOOLS "/make-model --format %s --bytes 300000 --seed %llu "
					   "%s/made.%s",
				     formats[i], seed, folder, formats[i]),
				 0);
		length += (size_t)snprintf(list + length, sizeof(list) - length, "%s/made.%s\n",
					   folder, formats[i]);
	}
	for (size_t i = 0; i < mrs_array_length(formats); i++) {
		for (size_t k = 0; k < mrs_array_length(formats); k++) {
			assert_int_equal(run(TOOLS "/make-model --format %s --from %s/made.%s "
						   "%s/%zu.%s 2>/dev/null",
					     formats[k], folder, formats[i], folder, i, formats[k]),
					 0);
			length += (size_t)snprintf(list + length, sizeof(list) - length,
						   "%s/%zu.%s\n", folder, i, formats[k]);
		}
	}
	compare_files(list);
}

static void generated_models_repeat(void **state)
{
	for (size_t i = 0; i < mrs_array_length(formats); i++) {
		for (int k = 0; k < 3; k++)
			assert_int_equal(run(TOOLS "/make-model --format %s --bytes 20K --seed %d "
						   "%s/again.%d",
					     formats[i], k / 2, folder, k),
					 0);
		assert_int_equal(run("cmp -s %s/again.0 %s/again.1", folder, folder), 0);
		assert_int_not_equal(run("cmp -s %s/again.1 %s/again.2", folder, folder), 0);
	}
}

static void real_models(void **state)
{
	static const char *const packages[] = {"", "--npm @ricky0123/vad-web", "--debian"};
	int found = 0;

	for (size_t i = 0; i < mrs_array_length(packages); i++) {
		char *list = output_of(TOOLS "/fetch-model --cached %s 2>/dev/null", packages[i]);

		if (!list)
			continue;
		compare_files(list);
		free(list);
		found++;
	}
	printf("%d packages in the cache\n", found);
}

static int make_folder(void **state)
{
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	return run("rm -rf %s", folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(generated_models),
		cmocka_unit_test(generated_models_repeat),
		cmocka_unit_test(real_models),
	};

	if (run("python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null")) {
		fprintf(stderr, "skipped: python3 (3.9 or later) is missing\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
