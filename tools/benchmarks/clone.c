/*
 * bench_clone: what a clone costs, and the first write to a page after it.
 *
 * First writes are compared to the same done bare: a shared mapping that is write-protected with
 * userfaultfd, whose handler of SIGBUS copies the page to a new place of the memfd and maps that.
 * Both sides write one word to every page of the object, in the same random order; what is reported
 * is the time for one page. On our side that includes tables that are copied on the way.
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <morsel/clone.h>
#include <morsel/morsel.h>

#define PAGE	    4096ull
#define MODEL_BYTES (682 * BENCH_GIB / 100 / PAGE * PAGE)
#define WRITE_PAGES 4096u
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif

static void ok(int rc, const char *what)
{
	if (rc < 0)
		bench_die("%s: %s", what, morsel_errormsg());
}

static struct morsel_pool *open_pool(uint64_t bytes)
{
	struct morsel_pool_opts opts = {
		.size = sizeof(opts),
		.flags = MORSEL_POOL_CREATE,
		.bytes = bytes,
		.faults = MORSEL_FAULTS_SIGBUS,
	};
	struct morsel_pool *pool;

	ok(morsel_pool_open(NULL, &opts, &pool), "pool");
	return pool;
}

static struct morsel *create(struct morsel_pool *pool, uint64_t bytes, uint32_t flags)
{
	struct morsel_opts opts = {
		.size = sizeof(opts), .flags = MORSEL_CREATE | flags, .bytes = bytes};
	struct morsel *morsel;

	ok(morsel_open(pool, "source", &opts, &morsel), "source");
	return morsel;
}

static struct morsel_view *map(struct morsel *morsel)
{
	struct morsel_map_opts opts = {.size = sizeof(opts), .kind = MORSEL_VIEW_STITCHED};
	struct morsel_view *view;

	ok(morsel_map(morsel, &opts, &view), "view");
	return view;
}

/* ---- a clone ---- */

static void clone_once(struct bench_case *c, struct morsel *source, struct morsel_pool *pool)
{
	uint64_t start = bench_now();
	struct morsel *clone;

	ok(morsel_clone(source, "clone", &clone), "clone");
	bench_ours(c, bench_ms(bench_now() - start));
	morsel_close(clone);
	ok(morsel_unlink(pool, "clone"), "unlink");
}

static void clones(struct bench *bench, const struct bench_opts *opts)
{
	uint64_t wanted = opts->bytes ? opts->bytes : MODEL_BYTES;
	uint64_t have = bench_memory_available() / 4 * 3 / PAGE * PAGE;
	struct bench_case *c;
	struct morsel_pool *pool;
	struct morsel *source;

	if (!bench_wants(bench, "6.82g-no-writer"))
		return;
	c = bench_case(bench, "6.82g-no-writer", "ms", NULL, NULL);
	if (wanted > have)
		bench_note(c, "the machine has memory for %llu MiB only, which is what was cloned.",
			   (unsigned long long)(have / BENCH_MIB));
	wanted = wanted < have ? wanted : have;
	pool = open_pool(wanted + BENCH_GIB);
	source = create(pool, wanted, 0);
	clone_once(c, source, pool);
	bench_note(c, "The first sample includes making the source's page table.");
	for (unsigned i = 1; i < opts->pairs; i++)
		clone_once(c, source, pool);
	morsel_close(source);
	morsel_pool_close(pool);
}

/* ---- first writes ---- */

static uint32_t order[WRITE_PAGES];

static void shuffle(void)
{
	uint64_t state = 88172645463325252u;

	for (uint32_t i = 0; i < WRITE_PAGES; i++)
		order[i] = i;
	for (uint32_t i = WRITE_PAGES - 1; i; i--) {
		uint32_t j, swap = order[i];

		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		j = (uint32_t)(state % (i + 1));
		order[i] = order[j];
		order[j] = swap;
	}
}

/* Microseconds for one page. */
static double write_all(volatile char *memory)
{
	uint64_t start = bench_now();

	for (uint32_t i = 0; i < WRITE_PAGES; i++)
		*(volatile uint64_t *)(memory + order[i] * PAGE) = i + 1;
	return (double)(bench_now() - start) / 1e3 / WRITE_PAGES;
}

static void check_all(const volatile char *memory, bool written)
{
	for (uint32_t i = 0; i < WRITE_PAGES; i++) {
		uint64_t word = *(const volatile uint64_t *)(memory + order[i] * PAGE);

		if (word != (written ? i + 1 : ~0ull))
			bench_die("page %u is not what was written", order[i]);
	}
}

static void ours(struct bench_case *c)
{
	struct morsel_pool *pool = open_pool(256 * BENCH_MIB);
	struct morsel *source = create(pool, WRITE_PAGES * PAGE, MORSEL_EVICTABLE), *clone;
	struct morsel_view *view = map(source);

	for (uint32_t i = 0; i < WRITE_PAGES; i++)
		*(volatile uint64_t *)((char *)morsel_addr(view) + i * PAGE) = ~0ull;
	ok(morsel_clone(source, "clone", &clone), "clone");
	bench_ours(c, write_all(morsel_addr(view)));
	check_all(morsel_addr(view), true);
	morsel_view_destroy(view);
	view = map(clone);
	check_all(morsel_addr(view), false);
	morsel_view_destroy(view);
	morsel_close(source);
	morsel_close(clone);
	morsel_pool_close(pool);
}

/* The bare side: pages [0, n) of the memfd are the shared ones, copies go behind them. */
static struct {
	int fd, uffd;
	char *view, *all;
	uint64_t next;
	struct sigaction former;
} bare;

static void on_sigbus(int signal, siginfo_t *info, void *context)
{
	char *page = (char *)((uintptr_t)info->si_addr & ~(PAGE - 1));
	uint64_t to = bare.next++;

	(void)context;
	if (page < bare.view || page >= bare.view + WRITE_PAGES * PAGE) {
		bare.former.sa_sigaction(signal, info, context);
		return;
	}
	memcpy(bare.all + to * PAGE, page, PAGE);
	mmap(page, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, bare.fd,
	     (off_t)(to * PAGE));
}

static bool protect_bare(void)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_SIGBUS | UFFD_FEATURE_PAGEFAULT_FLAG_WP |
			    UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
	};
	struct uffdio_register range = {
		.range = {(uintptr_t)bare.view, WRITE_PAGES * PAGE},
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP,
	};
	struct uffdio_writeprotect protect = {
		.range = range.range,
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};

	bare.uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	return bare.uffd >= 0 && !ioctl(bare.uffd, UFFDIO_API, &api) &&
	       !ioctl(bare.uffd, UFFDIO_REGISTER, &range) &&
	       !ioctl(bare.uffd, UFFDIO_WRITEPROTECT, &protect);
}

static void theirs(struct bench_case *c)
{
	struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER};
	uint64_t bytes = WRITE_PAGES * PAGE;

	bare.fd = memfd_create("bare", MFD_CLOEXEC);
	if (bare.fd < 0 || ftruncate(bare.fd, (off_t)(2 * bytes)))
		bench_die("memfd: %s", strerror(errno));
	bare.all = mmap(NULL, 2 * bytes, PROT_READ | PROT_WRITE, MAP_SHARED, bare.fd, 0);
	memset(bare.all, 0xff, bytes);
	bare.view = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, bare.fd, 0);
	bare.next = WRITE_PAGES;
	if (!protect_bare())
		bench_die("userfaultfd: %s", strerror(errno));
	sigaction(SIGBUS, &action, &bare.former);
	bench_theirs(c, write_all(bare.view));
	sigaction(SIGBUS, &bare.former, NULL);
	check_all(bare.view, true);
	check_all(bare.all, false);
	munmap(bare.view, bytes);
	munmap(bare.all, 2 * bytes);
	close(bare.uffd);
	close(bare.fd);
}

static void first_writes(struct bench *bench, const struct bench_opts *opts)
{
	struct bench_case *c;

	if (!bench_wants(bench, "first-write-4k-1p"))
		return;
	c = bench_case(
		bench, "first-write-4k-1p", "us", "bare-sigbus-copy",
		"userfaultfd write protection with SIGBUS; the handler copies the page to the end "
		"of the memfd and maps it there (memcpy, mmap)");
	shuffle();
	for (unsigned i = 0; i < opts->pairs; i++) {
		ours(c);
		theirs(c);
	}
	bench_note(
		c,
		"One word to each of %u pages in random order; tables copied on the way included.",
		WRITE_PAGES);
}

int main(int argc, char **argv)
{
	struct bench_opts opts = {.pairs = 11};
	struct bench *bench = bench_start("clone", &opts, argc, argv);

	clones(bench, &opts);
	first_writes(bench, &opts);
	return bench_finish(bench);
}
