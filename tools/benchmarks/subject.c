/*
 * The measured operations themselves, in the probe: see subject.h. Failure is kept in the result,
 * in words; nothing is retried and nothing is hidden.
 */
#include "subject.h"

#include "bench.h"
#include "pages.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <morsel/morsel.h>

static int fail(struct probe_result *result, const char *what, int error, const char *words)
{
	if (!result->error) {
		result->error = error ? error : -EIO;
		snprintf(result->text, sizeof(result->text), "%s: %s", what, words);
	}
	return -1;
}

static int fail_system(struct probe_result *result, const char *what)
{
	return fail(result, what, -errno, strerror(errno));
}

static int fail_morsel(struct probe_result *result, const char *what, int error)
{
	return fail(result, what, error, morsel_errormsg());
}

/* ---- steps ---- */

static int attach(struct subject *s, int fd, struct probe_result *result)
{
	int error = morsel_pool_open_fd(fd, NULL, &s->pool);

	return error < 0 ? fail_morsel(result, "morsel_pool_open_fd", error) : 0;
}

static int map_view(struct subject *s, struct morsel *morsel, uint32_t kind, uint32_t flags,
		    struct morsel_view **view, struct probe_result *result)
{
	struct morsel_map_opts opts = {
		.size = sizeof(opts), .kind = kind, .access = MORSEL_READ, .flags = flags};
	int error = morsel_map(morsel, &opts, view);

	return error < 0 ? fail_morsel(result, "morsel_map", error) : 0;
}

static int map_morsel(struct subject *s, const struct probe_request *q, struct probe_result *result)
{
	int error = morsel_open(s->pool, PROBE_MORSEL, NULL, &s->morsel);

	if (error < 0)
		return fail_morsel(result, "morsel_open", error);
	if (map_view(s, s->morsel,
		     q->what == PROBE_STITCHED ? MORSEL_VIEW_STITCHED : MORSEL_VIEW_POOLED,
		     q->flags & PROBE_POPULATE ? MORSEL_MAP_POPULATE : 0, &s->view, result))
		return -1;
	s->at = morsel_addr(s->view);
	return 0;
}

/* Another morsel is mapped, read and closed: the library's code and data are in memory then. */
static int warm_up(struct subject *s, struct probe_result *result)
{
	struct morsel_view *view;
	struct morsel *morsel;
	int error = morsel_open(s->pool, PROBE_WARMUP, NULL, &morsel);

	if (error < 0)
		return fail_morsel(result, "morsel_open of another morsel", error);
	error = map_view(s, morsel, MORSEL_VIEW_POOLED, 0, &view, result);
	if (!error) {
		result->wrong += wrong_pages(morsel_addr(view), PAGE_BYTES);
		morsel_view_destroy(view);
	}
	morsel_close(morsel);
	return error;
}

static int map_plain(struct subject *s, const struct probe_request *q, int fd,
		     struct probe_result *result)
{
	s->at = mmap(MAP_HINT, s->bytes, PROT_READ,
		     MAP_SHARED | (q->flags & PROBE_POPULATE ? MAP_POPULATE : 0), fd, 0);
	if (s->at != MAP_FAILED)
		return 0;
	s->at = NULL;
	return fail_system(result, "mmap");
}

/* ---- mapping what is in memory ---- */

static void touch_each_gib(const struct subject *s)
{
	const volatile char *byte = s->at;
	uint64_t offset;

	for (offset = 0; offset < s->bytes; offset += BENCH_GIB)
		(void)byte[offset];
}

static void enter_mapping(struct subject *s, const struct probe_request *q, int fd,
			  struct probe_result *result)
{
	bool morsel = q->what != PROBE_MMAP, attached = q->flags & PROBE_ATTACHED;
	uint64_t start, mapped, touched;

	if (morsel && attached && attach(s, fd, result))
		return;
	if (morsel && q->flags & PROBE_WARM && warm_up(s, result))
		return;
	start = bench_now();
	if (morsel && !attached && attach(s, fd, result))
		return;
	if (morsel ? map_morsel(s, q, result) : map_plain(s, q, fd, result))
		return;
	mapped = bench_now();
	touch_each_gib(s);
	touched = bench_now();
	if (q->flags & PROBE_READ)
		result->wrong += wrong_pages(s->at, s->bytes);
	result->read_ns = bench_now() - touched;
	result->touch_ns = touched - mapped;
	result->map_ns = mapped - start;
}

/* ---- from a file on disk until all of it has been read ---- */

static int read_whole(const char *path, char *to, uint64_t bytes, struct probe_result *result)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = 1;

	if (fd < 0)
		return fail_system(result, path);
	while (bytes && n > 0) {
		n = read(fd, to, bytes < 8 * BENCH_MIB ? bytes : 8 * BENCH_MIB);
		if (n > 0) {
			to += n;
			bytes -= (uint64_t)n;
		}
	}
	close(fd);
	return bytes ? fail_system(result, "read") : 0;
}

static int enter_file(struct subject *s, const struct probe_request *q, int fd,
		      struct probe_result *result)
{
	int file, error;

	switch (q->what) {
	case PROBE_READ_FILE:
		s->at = mmap(NULL, s->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			     -1, 0);
		if (s->at == MAP_FAILED)
			return fail_system(result, "memory for the file");
		return read_whole(q->file, s->at, s->bytes, result);
	case PROBE_MMAP_FILE:
		file = open(q->file, O_RDONLY | O_CLOEXEC);
		if (file < 0)
			return fail_system(result, q->file);
		error = map_plain(s, q, file, result);
		close(file);
		return error;
	default:
		if (attach(s, fd, result))
			return -1;
		error = morsel_import(s->pool, PROBE_MORSEL, q->file, NULL, &s->morsel);
		if (error < 0)
			return fail_morsel(result, "morsel_import", error);
		if (map_view(s, s->morsel, MORSEL_VIEW_AUTO, 0, &s->view, result))
			return -1;
		s->at = morsel_addr(s->view);
		return 0;
	}
}

static void enter_reader(struct subject *s, const struct probe_request *q, int fd,
			 struct probe_result *result)
{
	uint64_t start = bench_now();

	if (enter_file(s, q, fd, result))
		return;
	result->map_ns = bench_now() - start;
	result->wrong += sum_words(s->at, s->bytes) != q->sum;
	result->read_ns = bench_now() - start - result->map_ns;
}

/* ---- opening ---- */

static void enter_attach(struct subject *s, int fd, struct probe_result *result)
{
	uint64_t start = bench_now();

	if (!attach(s, fd, result))
		result->map_ns = bench_now() - start;
}

int open_names(struct morsel_pool *pool, const struct probe_request *q, struct probe_result *result)
{
	uint64_t seed = q->seed, i, start;
	struct morsel *morsel;
	char name[32];
	int error;

	for (i = 0; i < q->bytes; i++) {
		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		snprintf(name, sizeof(name), "morsel-%llu",
			 (unsigned long long)((seed >> 33) % q->count));
		start = bench_now();
		error = morsel_open(pool, name, NULL, &morsel);
		result->map_ns += bench_now() - start;
		if (error < 0)
			return fail_morsel(result, name, error);
		start = bench_now();
		morsel_close(morsel);
		result->unmap_ns += bench_now() - start;
	}
	return 0;
}

void subject_enter(struct subject *s, const struct probe_request *q, int fd,
		   struct probe_result *result)
{
	s->what = q->what;
	s->bytes = q->bytes;
	switch (q->what) {
	case PROBE_MMAP:
	case PROBE_POOLED:
	case PROBE_STITCHED:
		enter_mapping(s, q, fd, result);
		break;
	case PROBE_ATTACH:
		enter_attach(s, fd, result);
		break;
	case PROBE_OPEN_NAMES:
		if (!attach(s, fd, result))
			open_names(s->pool, q, result);
		break;
	default:
		enter_reader(s, q, fd, result);
	}
}

void subject_leave(struct subject *s, struct probe_result *result)
{
	uint64_t start = bench_now();

	if (s->view)
		morsel_view_destroy(s->view);
	else if (s->at)
		munmap(s->at, s->bytes);
	result->unmap_ns += bench_now() - start;
	if (s->morsel)
		morsel_close(s->morsel);
	if (s->pool)
		morsel_pool_close(s->pool);
}
