/*
 * How each store is made: see store.h. Filling is the same loop for all of them, through a shared
 * writable mapping, except for the file, which is written.
 */
#include "store.h"

#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <morsel/morsel.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21u << 26)
#endif

static int missing(struct store *store, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static int missing(struct store *store, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(store->missing, sizeof(store->missing), format, args);
	va_end(args);
	return -1;
}

/* ---- the pool of hugetlb pages: reserved for a store, and given back ---- */

#define NR_HUGEPAGES   "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
#define FREE_HUGEPAGES "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"

static char hugetlb_before[24]; /* nr_hugepages to restore; empty if it was not changed */

static long read_number(const char *file)
{
	FILE *f = fopen(file, "re");
	long value = -1;

	if (f) {
		if (fscanf(f, "%ld", &value) != 1)
			value = -1;
		fclose(f);
	}
	return value;
}

/* Async-signal-safe. */
static bool write_nr_hugepages(const char *text)
{
	int fd = open(NR_HUGEPAGES, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) > 0;

	if (fd >= 0)
		close(fd);
	return ok;
}

static void hugetlb_restore(void)
{
	if (!hugetlb_before[0])
		return;
	write_nr_hugepages(hugetlb_before);
	hugetlb_before[0] = 0;
}

static void restore_and_die(int signal_number)
{
	hugetlb_restore();
	signal(signal_number, SIG_DFL);
	raise(signal_number);
}

/* Makes sure that pages of them are free; false where that cannot be. */
static bool hugetlb_reserve(long pages)
{
	long have_free = read_number(FREE_HUGEPAGES), have = read_number(NR_HUGEPAGES);
	char text[24];

	if (have_free >= pages)
		return true;
	if (have < 0 || geteuid())
		return false;
	snprintf(hugetlb_before, sizeof(hugetlb_before), "%ld", have);
	signal(SIGINT, restore_and_die);
	signal(SIGTERM, restore_and_die);
	signal(SIGHUP, restore_and_die);
	atexit(hugetlb_restore);
	snprintf(text, sizeof(text), "%ld", have + pages - have_free);
	if (write_nr_hugepages(text) && read_number(FREE_HUGEPAGES) >= pages)
		return true;
	hugetlb_restore();
	return false;
}

/* ---- memory files ---- */

static int map_shared(struct store *store, int protection)
{
	store->at = mmap(MAP_HINT, store->bytes, protection, MAP_SHARED, store->fd, 0);
	if (store->at != MAP_FAILED)
		return 0;
	store->at = NULL;
	return missing(store, "mmap of %llu bytes: %s", (unsigned long long)store->bytes,
		       strerror(errno));
}

static int fill_small(struct store *store, const struct pattern *pattern)
{
	madvise(store->at, store->bytes, MADV_NOHUGEPAGE);
	fill_pages(store->at, 0, store->bytes / PAGE_BYTES, pattern);
	return 0;
}

/* One page of every 2 MiB is written, then the kernel makes a huge folio of each. */
static int fill_huge(struct store *store, const struct pattern *pattern)
{
	char *at = store->at;
	uint64_t offset;

	for (offset = 0; offset < store->bytes; offset += HUGE_BYTES)
		at[offset] = 1;
	if (madvise(at, store->bytes, MADV_COLLAPSE))
		return missing(store, "MADV_COLLAPSE: %s", strerror(errno));
	fill_pages(at, 0, store->bytes / PAGE_BYTES, pattern);
	return 0;
}

static int fill_hugetlb(struct store *store, const struct pattern *pattern)
{
	fill_pages(store->at, 0, store->bytes / PAGE_BYTES, pattern);
	return 0;
}

static int make_memfd(struct store *store, unsigned flags,
		      int (*fill)(struct store *, const struct pattern *),
		      const struct pattern *pattern)
{
	int error;

	store->fd = memfd_create("morsel-bench", MFD_CLOEXEC | flags);
	if (store->fd < 0)
		return missing(store, "memfd_create: %s", strerror(errno));
	if (ftruncate(store->fd, (off_t)store->bytes))
		error = missing(store, "ftruncate: %s", strerror(errno));
	else
		error = map_shared(store, PROT_READ | PROT_WRITE);
	if (!error)
		error = fill(store, pattern);
	if (error)
		store_drop(store);
	return error;
}

static int make_hugetlb(struct store *store, const struct pattern *pattern)
{
	long pages = (long)(store->bytes / HUGE_BYTES);

	if (store->bytes % HUGE_BYTES)
		return missing(store, "hugetlb: the size is not a multiple of 2 MiB");
	if (!hugetlb_reserve(pages))
		return missing(store, "hugetlb: %ld free 2 MiB pages are needed, %ld are there%s",
			       pages, read_number(FREE_HUGEPAGES),
			       geteuid() ? ", and only root can reserve more" : "");
	return make_memfd(store, MFD_HUGETLB | MFD_HUGE_2MB, fill_hugetlb, pattern);
}

/* ---- the file on disk ---- */

static int write_whole(int fd, const char *at, uint64_t bytes)
{
	while (bytes) {
		ssize_t n = write(fd, at, bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		at += n;
		bytes -= (uint64_t)n;
	}
	return 0;
}

static int write_pages(int fd, uint64_t bytes, const struct pattern *pattern, uint64_t *sum)
{
	const uint64_t piece = 4 * BENCH_MIB;
	char *buffer = malloc(piece);
	uint64_t done, part;
	int error = buffer ? 0 : -1;

	for (done = 0; !error && done < bytes; done += part) {
		part = bytes - done < piece ? bytes - done : piece;
		fill_pages(buffer, done / PAGE_BYTES, part / PAGE_BYTES, pattern);
		*sum += sum_words(buffer, part);
		error = write_whole(fd, buffer, part);
	}
	free(buffer);
	return error ? error : fsync(fd);
}

static uint64_t disk_free(const char *dir)
{
	struct statvfs fs;

	return statvfs(dir, &fs) ? 0 : (uint64_t)fs.f_bavail * fs.f_frsize;
}

int store_make_file(const char *dir, uint64_t bytes, const struct pattern *pattern, uint64_t *sum,
		    char *words, size_t words_bytes)
{
	char path[4096];
	int fd;

	*sum = 0;
	if (disk_free(dir) < bytes + BENCH_GIB) {
		snprintf(words, words_bytes, "file in %s: %llu MiB are free, %llu are needed", dir,
			 (unsigned long long)(disk_free(dir) / BENCH_MIB),
			 (unsigned long long)((bytes + BENCH_GIB) / BENCH_MIB));
		return -1;
	}
	snprintf(path, sizeof(path), "%s/morsel-bench-XXXXXX", dir);
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0) {
		snprintf(words, words_bytes, "file in %s: %s", dir, strerror(errno));
		return -1;
	}
	unlink(path);
	if (!write_pages(fd, bytes, pattern, sum))
		return fd;
	snprintf(words, words_bytes, "writing %llu bytes in %s: %s", (unsigned long long)bytes, dir,
		 strerror(errno));
	close(fd);
	return -1;
}

static int make_file(struct store *store, const char *dir, const struct pattern *pattern)
{
	uint64_t sum;

	store->fd = store_make_file(dir, store->bytes, pattern, &sum, store->missing,
				    sizeof(store->missing));
	if (store->fd < 0)
		return -1;
	if (!map_shared(store, PROT_READ)) {
		if (!wrong_pages(store->at, store->bytes))
			return 0;
		missing(store, "the file in %s reads back wrong", dir);
	}
	store_drop(store);
	return -1;
}

/* ---- morsels ---- */

static int missing_morsel(struct store *store, const char *call)
{
	return missing(store, "%s: %s", call, morsel_errormsg());
}

/* Creates a morsel and fills it. It stays mapped where the pool's handle maps the whole pool. */
static int make_one_morsel(struct store *store, const char *name, const struct morsel_opts *opts,
			   const struct pattern *pattern)
{
	struct morsel_map_opts map = {.size = sizeof(map), .access = MORSEL_READ | MORSEL_WRITE};

	if (morsel_open(store->pool, name, opts, &store->morsel) < 0)
		return missing_morsel(store, "morsel_open");
	if (morsel_map(store->morsel, &map, &store->view) < 0)
		return missing_morsel(store, "morsel_map");
	fill_pages(morsel_addr(store->view), 0, opts->bytes / PAGE_BYTES, pattern);
	morsel_view_destroy(store->view);
	store->view = NULL;
	return 0;
}

static void close_morsel(struct store *store)
{
	if (store->view)
		morsel_view_destroy(store->view);
	morsel_close(store->morsel);
	store->view = NULL;
	store->morsel = NULL;
}

static int make_morsels(struct store *store, const struct pattern *pattern)
{
	bool scattered = store->kind == STORE_SCATTERED;
	struct morsel_opts warm_up = {
		.size = sizeof(warm_up), .flags = MORSEL_CREATE | MORSEL_EXCL, .bytes = PAGE_BYTES};
	struct morsel_opts object = {.size = sizeof(object),
				     .flags = MORSEL_CREATE | MORSEL_EXCL |
					      (scattered ? MORSEL_SCATTERED : MORSEL_CONTIGUOUS),
				     .pages = scattered ? MORSEL_PAGES_2M : MORSEL_PAGES_MIXED,
				     .bytes = store->bytes};
	struct morsel_info info = {.size = sizeof(info)};

	if (make_one_morsel(store, PROBE_WARMUP, &warm_up, pattern))
		return -1;
	close_morsel(store);
	if (make_one_morsel(store, PROBE_MORSEL, &object, pattern))
		return -1;
	if (morsel_info(store->morsel, &info) < 0)
		return missing_morsel(store, "morsel_info");
	store->runs = info.runs;
	return 0;
}

static int make_morsel(struct store *store, const struct pattern *pattern)
{
	struct morsel_pool_opts opts = {.size = sizeof(opts),
					.flags = MORSEL_POOL_CREATE,
					.bytes = (2 * store->bytes + 2 * BENCH_GIB) / BENCH_GIB *
						 BENCH_GIB};
	int error;

	if (morsel_pool_open(NULL, &opts, &store->pool) < 0)
		return missing_morsel(store, "morsel_pool_open");
	store->fd = morsel_pool_fd(store->pool);
	error = make_morsels(store, pattern);
	if (error)
		store_drop(store);
	return error;
}

/* ---- all of them ---- */

int store_make(struct store *store, enum store_kind kind, uint64_t bytes, const char *dir,
	       const struct pattern *pattern)
{
	memset(store, 0, sizeof(*store));
	store->kind = kind;
	store->bytes = bytes;
	store->fd = -1;
	bench_say("making: %s", store_words(kind));
	switch (kind) {
	case STORE_MEMFD:
		return make_memfd(store, 0, fill_small, pattern);
	case STORE_MEMFD_HUGE:
		return make_memfd(store, 0, fill_huge, pattern);
	case STORE_HUGETLB:
		return make_hugetlb(store, pattern);
	case STORE_FILE:
		return make_file(store, dir, pattern);
	default:
		return make_morsel(store, pattern);
	}
}

void store_drop(struct store *store)
{
	if (store->at)
		munmap(store->at, store->bytes);
	if (store->pool) {
		close_morsel(store);
		morsel_pool_close(store->pool);
	} else if (store->fd >= 0) {
		close(store->fd);
	}
	if (store->kind == STORE_HUGETLB)
		hugetlb_restore();
	store->at = NULL;
	store->pool = NULL;
	store->fd = -1;
}

enum probe_what store_probe(enum store_kind kind)
{
	switch (kind) {
	case STORE_MORSEL:
		return PROBE_POOLED;
	case STORE_SCATTERED:
		return PROBE_STITCHED;
	default:
		return PROBE_MMAP;
	}
}

const char *store_words(enum store_kind kind)
{
	static const char *const words[] = {
		[STORE_MEMFD] = "memfd of 4 KiB pages",
		[STORE_MEMFD_HUGE] = "memfd of huge pages (MADV_COLLAPSE)",
		[STORE_HUGETLB] = "memfd of 2 MiB hugetlb pages",
		[STORE_FILE] = "file on disk, hot in the page cache",
		[STORE_MORSEL] = "morsel of one run in a memfd pool",
		[STORE_SCATTERED] = "morsel of scattered 2 MiB runs in a memfd pool",
	};

	return words[kind];
}
