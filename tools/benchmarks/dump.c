/*
 * bench_dump: morsels to a file on disk and back, beside dd with O_DIRECT on the same file system.
 *
 * Samples are throughputs. Both sides end with the file forced to disk, or with all of its bytes in
 * memory; ours writes and compares a checksum for every 64 KiB besides, and has the name by rename.
 * dd writes the same bytes, out of memory, as ours does.
 */
#include "bench.h"
#include "pages.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <morsel/dump.h>

#define DD_BLOCK "4M"

struct scene {
	struct bench *bench;
	const struct bench_opts *opts;
	struct morsel_pool *pool;
	struct morsel *morsel;
	int memory; /* the same bytes, for dd */
	char ours[300], theirs[300];
	char write_words[400], read_words[400]; /* dd's commands */
};

static double mb_per_s(uint64_t bytes, uint64_t ns)
{
	return (double)bytes / 1e6 / ((double)ns / 1e9);
}

/* Pages that are all different, and no checksum or compression makes less of. */
static void fill(void *at, uint64_t bytes)
{
	uint64_t *word = at, random = 88172645463325252ull;

	for (uint64_t i = 0; i < bytes / 8; i++) {
		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		word[i] = i % 512 ? random : page_number(i / 512);
	}
}

static void make_morsel(struct scene *scene)
{
	struct morsel_pool_opts pool = {.size = sizeof(pool),
					.flags = MORSEL_POOL_CREATE,
					.bytes = 3 * scene->opts->bytes + BENCH_GIB};
	struct morsel_opts opts = {
		.size = sizeof(opts), .flags = MORSEL_CREATE, .bytes = scene->opts->bytes};
	struct morsel_view *view;
	void *copy;

	if (morsel_pool_open(NULL, &pool, &scene->pool) < 0 ||
	    morsel_open(scene->pool, "m", &opts, &scene->morsel) < 0 ||
	    morsel_map(scene->morsel, NULL, &view) < 0)
		bench_die("%s", morsel_errormsg());
	fill(morsel_addr(view), scene->opts->bytes);
	scene->memory = memfd_create("bench-dd", MFD_CLOEXEC);
	if (scene->memory < 0 || ftruncate(scene->memory, (off_t)scene->opts->bytes))
		bench_die("no memory file");
	copy = mmap(NULL, scene->opts->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, scene->memory, 0);
	if (copy == MAP_FAILED)
		bench_die("no mapping of a memory file");
	memcpy(copy, morsel_addr(view), scene->opts->bytes);
	munmap(copy, scene->opts->bytes);
	morsel_view_destroy(view);
}

static int run_dd(const char *command, uint64_t *ns)
{
	uint64_t start = bench_now();
	int status = system(command);

	*ns = bench_now() - start;
	return status ? -1 : 0;
}

/* ---- the two directions ---- */

static int dump_ours(struct scene *scene, double *sample)
{
	uint64_t start = bench_now();

	if (morsel_dump(scene->morsel, scene->ours, NULL, NULL) < 0) {
		bench_say("morsel_dump: %s", morsel_errormsg());
		return -1;
	}
	*sample = mb_per_s(scene->opts->bytes, bench_now() - start);
	return 0;
}

static int dump_theirs(struct scene *scene, double *sample)
{
	uint64_t ns;

	unlink(scene->theirs);
	if (run_dd(scene->write_words, &ns))
		return -1;
	*sample = mb_per_s(scene->opts->bytes, ns);
	return 0;
}

static int restore_ours(struct scene *scene, double *sample)
{
	uint64_t start = bench_now();
	struct morsel *morsel;

	if (morsel_restore(scene->pool, "restored", scene->ours, NULL, &morsel) < 0) {
		bench_say("morsel_restore: %s", morsel_errormsg());
		return -1;
	}
	*sample = mb_per_s(scene->opts->bytes, bench_now() - start);
	morsel_close(morsel);
	return morsel_unlink(scene->pool, "restored");
}

static int restore_theirs(struct scene *scene, double *sample)
{
	uint64_t ns;

	if (run_dd(scene->read_words, &ns))
		return -1;
	*sample = mb_per_s(scene->opts->bytes, ns);
	return 0;
}

typedef int (*side_fn)(struct scene *scene, double *sample);

static void measure(struct scene *scene, const char *name, const char *baseline, side_fn ours,
		    side_fn theirs)
{
	struct bench_case *c;
	double sample[2];

	if (!bench_wants(scene->bench, name))
		return;
	bench_say("%s", name);
	c = bench_case(scene->bench, name, "MB/s", "dd-direct", baseline);
	bench_note(c, "%.2f GiB on the file system of %s, past the page cache; more is better.",
		   (double)scene->opts->bytes / BENCH_GIB, scene->opts->dir);
	for (unsigned i = 0; i < scene->opts->pairs; i++) {
		side_fn first = i % 2 ? theirs : ours, second = i % 2 ? ours : theirs;

		if (first(scene, &sample[i % 2]) || second(scene, &sample[!(i % 2)])) {
			bench_failed(c, "one side failed");
			return;
		}
		bench_ours(c, sample[0]);
		bench_theirs(c, sample[1]);
	}
}

static void name_all(struct scene *scene)
{
	snprintf(scene->ours, sizeof(scene->ours), "%.200s/bench-dump-%d", scene->opts->dir,
		 (int)getpid());
	snprintf(scene->theirs, sizeof(scene->theirs), "%.200s/bench-dd-%d", scene->opts->dir,
		 (int)getpid());
	snprintf(scene->write_words, sizeof(scene->write_words),
		 "dd if=/proc/%d/fd/%d of=%s bs=" DD_BLOCK " oflag=direct conv=fsync status=none",
		 (int)getpid(), scene->memory, scene->theirs);
	snprintf(scene->read_words, sizeof(scene->read_words),
		 "dd if=%s of=/dev/null bs=" DD_BLOCK " iflag=direct status=none", scene->theirs);
}

int main(int argc, char **argv)
{
	struct bench_opts opts = {.bytes = BENCH_GIB, .pairs = BENCH_PAIRS_MIN};
	struct scene scene = {.bench = bench_start("dump", &opts, argc, argv), .opts = &opts};
	double unused;

	make_morsel(&scene);
	name_all(&scene);
	measure(&scene, "full", scene.write_words, dump_ours, dump_theirs);
	/* Both files are there, also where only this case is asked for. */
	if (bench_wants(scene.bench, "restore") &&
	    (dump_ours(&scene, &unused) || dump_theirs(&scene, &unused)))
		bench_die("no files to read");
	measure(&scene, "restore", scene.read_words, restore_ours, restore_theirs);
	if (morsel_seal(scene.morsel) < 0)
		bench_die("%s", morsel_errormsg());
	measure(&scene, "full-sealed", scene.write_words, dump_ours, dump_theirs);
	unlink(scene.ours);
	unlink(scene.theirs);
	morsel_close(scene.morsel);
	morsel_pool_close(scene.pool);
	close(scene.memory);
	return bench_finish(scene.bench);
}
