/*
 * bench_evict: what it costs to take memory away that 16 processes map.
 *
 * Ours is MORSEL_ADVICE_EVICT of one page (or one huge page) at a time, in the pager's process;
 * theirs is FALLOC_FL_PUNCH_HOLE of the same piece of a plain memfd, which forgets the content.
 * Before each sample every process touches every page. The last case shows what the kernel does not
 * do at all: evict, on demand, pages that two processes map.
 */
#include "bench.h"
#include "herd.h"
#include "pages.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <morsel/morsel.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

#define PROCESSES      16u
#define PIECES	       256u /* of 4 KiB, in one sample */
#define HUGE_PIECES    16u
#define DIRECTED_PAGES 16384u

static const char our_name[] = "object";

struct ours {
	struct morsel_pool *pool;
	struct morsel *morsel;
	struct morsel_view *view; /* of this process: it was the first, and is the pager */
	uint64_t bytes;
};

struct theirs {
	int fd;
	void *at;
	uint64_t bytes;
};

static void make_ours(struct ours *ours, uint64_t bytes, uint32_t pages)
{
	struct morsel_pool_opts pool_opts = {.size = sizeof(pool_opts),
					     .flags = MORSEL_POOL_CREATE,
					     .bytes = 4 * bytes + BENCH_GIB};
	struct morsel_swap_opts swap_opts = {.size = sizeof(swap_opts)};
	struct morsel_opts opts = {.size = sizeof(opts),
				   .flags = MORSEL_CREATE | MORSEL_EXCL | MORSEL_EVICTABLE,
				   .pages = pages,
				   .bytes = bytes};
	uint64_t page;

	ours->bytes = bytes;
	if (morsel_pool_open(NULL, &pool_opts, &ours->pool) ||
	    morsel_swap_add(ours->pool, &swap_opts, NULL) ||
	    morsel_open(ours->pool, our_name, &opts, &ours->morsel) ||
	    morsel_map(ours->morsel, NULL, &ours->view))
		bench_die("%s", morsel_errormsg());
	for (page = 0; page < bytes / PAGE_BYTES; page++)
		((uint64_t *)morsel_addr(ours->view))[page * PAGE_WORDS] = page_number(page);
}

static void drop_ours(struct ours *ours)
{
	morsel_view_destroy(ours->view);
	morsel_close(ours->morsel);
	morsel_pool_close(ours->pool);
}

static void make_theirs(struct theirs *theirs, uint64_t bytes)
{
	theirs->bytes = bytes;
	theirs->fd = memfd_create("baseline", MFD_CLOEXEC);
	if (theirs->fd < 0 || ftruncate(theirs->fd, (off_t)bytes))
		bench_die("memfd_create failed");
	theirs->at = mmap(MAP_HINT, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, theirs->fd, 0);
	if (theirs->at == MAP_FAILED)
		bench_die("mmap failed");
	memset(theirs->at, 1, bytes);
}

static void drop_theirs(struct theirs *theirs)
{
	munmap(theirs->at, theirs->bytes);
	close(theirs->fd);
}

/* us for each piece. */
static double evict_ours(struct ours *ours, uint64_t piece)
{
	uint64_t start = bench_now(), at;

	for (at = 0; at < ours->bytes; at += piece)
		if (morsel_advise(ours->morsel, at, piece, MORSEL_ADVICE_EVICT))
			bench_die("evict: %s", morsel_errormsg());
	return (double)(bench_now() - start) / 1e3 / (double)(ours->bytes / piece);
}

static double punch_theirs(struct theirs *theirs, uint64_t piece)
{
	uint64_t start = bench_now(), at;

	for (at = 0; at < theirs->bytes; at += piece)
		if (fallocate(theirs->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at,
			      (off_t)piece))
			bench_die("punching a hole failed");
	return (double)(bench_now() - start) / 1e3 / (double)(theirs->bytes / piece);
}

struct rig {
	struct ours ours;
	struct theirs theirs;
	struct herd our_herd, their_herd;
	uint64_t piece;
	bool writable;
	bool huge;
};

static void rig_start(struct rig *rig, uint64_t pieces, uint64_t piece, bool writable)
{
	struct herd_object object = {.name = our_name, .writable = writable};

	rig->piece = piece;
	rig->writable = writable;
	rig->huge = piece == HUGE_BYTES;
	make_ours(&rig->ours, pieces * piece, rig->huge ? MORSEL_PAGES_2M : MORSEL_PAGES_4K);
	make_theirs(&rig->theirs, pieces * piece);
	object.bytes = pieces * piece;
	object.fd = morsel_pool_fd(rig->ours.pool);
	herd_start(&rig->our_herd, PROCESSES, &object);
	object.name = NULL;
	object.fd = rig->theirs.fd;
	herd_start(&rig->their_herd, PROCESSES, &object);
}

static void rig_end(struct rig *rig)
{
	herd_end(&rig->our_herd);
	herd_end(&rig->their_herd);
	drop_ours(&rig->ours);
	drop_theirs(&rig->theirs);
}

/* Everything is resident, huge if it shall be, and mapped by everybody. */
static void ready(struct rig *rig)
{
	enum herd_order order = rig->writable ? HERD_WRITE : HERD_READ;
	uint64_t pages = rig->ours.bytes / PAGE_BYTES;

	if (rig->huge) {
		if (morsel_advise(rig->ours.morsel, 0, rig->ours.bytes, MORSEL_ADVICE_PREFETCH) ||
		    morsel_advise(rig->ours.morsel, 0, rig->ours.bytes, MORSEL_ADVICE_HUGE))
			bench_die("making it huge again: %s", morsel_errormsg());
		memset(rig->theirs.at, 1, rig->theirs.bytes);
		if (madvise(rig->theirs.at, rig->theirs.bytes, MADV_COLLAPSE))
			bench_die("MADV_COLLAPSE of the baseline failed");
	}
	herd_order(&rig->our_herd, order, 0, pages, 0);
	herd_order(&rig->their_herd, order, 0, pages, 0);
}

static void measure(struct rig *rig, struct bench_case *c, unsigned pairs)
{
	unsigned i;

	ready(rig);
	evict_ours(&rig->ours, rig->piece); /* saves for the first time */
	punch_theirs(&rig->theirs, rig->piece);
	for (i = 0; i < pairs; i++) {
		ready(rig);
		if (i % 2) {
			bench_theirs(c, punch_theirs(&rig->theirs, rig->piece));
			bench_ours(c, evict_ours(&rig->ours, rig->piece));
		} else {
			bench_ours(c, evict_ours(&rig->ours, rig->piece));
			bench_theirs(c, punch_theirs(&rig->theirs, rig->piece));
		}
	}
}

static void run_case(struct bench *bench, const struct bench_opts *opts, const char *name,
		     uint64_t piece, bool writable, const char *baseline, const char *note)
{
	struct rig rig = {0};
	struct bench_case *c;

	if (!bench_wants(bench, name))
		return;
	c = bench_case(bench, name, "us", baseline,
		       "fallocate(FALLOC_FL_PUNCH_HOLE) of the same piece of a memfd that 16 "
		       "processes map and have touched");
	bench_note(c, "%s", note);
	rig_start(&rig, piece == HUGE_BYTES ? HUGE_PIECES : PIECES, piece, writable);
	measure(&rig, c, opts->pairs);
	rig_end(&rig);
}

/* ---- what the kernel does not do ---- */

static uint64_t resident_pages(int fd)
{
	struct stat st;

	return fstat(fd, &st) ? 0 : (uint64_t)st.st_blocks * 512 / PAGE_BYTES;
}

static void run_directed(struct bench *bench, const struct bench_opts *opts)
{
	struct herd_object object = {.bytes = DIRECTED_PAGES * (uint64_t)PAGE_BYTES};
	struct herd our_herd, their_herd;
	struct bench_case *c;
	struct theirs theirs;
	struct ours ours;
	unsigned i;

	if (!bench_wants(bench, "directed-2p"))
		return;
	c = bench_case(bench, "directed-2p", "pages", "madv-pageout-2p",
		       "madvise(MADV_PAGEOUT) of 16384 pages of a memfd that two processes map, in "
		       "one of them");
	bench_note(c, "pages that were gone afterwards, of %u; more is better.", DIRECTED_PAGES);
	make_ours(&ours, object.bytes, MORSEL_PAGES_4K);
	make_theirs(&theirs, object.bytes);
	object.fd = theirs.fd;
	herd_start(&their_herd, 1, &object);
	object.fd = morsel_pool_fd(ours.pool);
	object.name = our_name;
	herd_start(&our_herd, 1, &object);
	for (i = 0; i < opts->pairs; i++) {
		uint64_t before;

		herd_order(&our_herd, HERD_READ, 0, DIRECTED_PAGES, 0);
		herd_order(&their_herd, HERD_READ, 0, DIRECTED_PAGES, 0);
		before = resident_pages(object.fd);
		if (morsel_advise(ours.morsel, 0, object.bytes, MORSEL_ADVICE_EVICT))
			bench_die("evict: %s", morsel_errormsg());
		bench_ours(c, (double)before - (double)resident_pages(object.fd));
		before = resident_pages(theirs.fd);
		madvise(theirs.at, theirs.bytes, MADV_PAGEOUT);
		bench_theirs(c, (double)before - (double)resident_pages(theirs.fd));
	}
	herd_end(&our_herd);
	herd_end(&their_herd);
	drop_ours(&ours);
	drop_theirs(&theirs);
}

int main(int argc, char **argv)
{
	struct bench_opts opts = {.pairs = 9};
	struct bench *bench = bench_start("evict", &opts, argc, argv);

	run_case(bench, &opts, "4k-readonly-16p", PAGE_BYTES, false, "punch-hole-16p",
		 "one page a call; 16 read-only views; the pages have been evicted before and are "
		 "unchanged.");
	run_case(bench, &opts, "4k-writable-16p", PAGE_BYTES, true, "punch-hole-16p",
		 "one page a call; 16 writable views, each of which has just written to it: 16 "
		 "protections, one save (compressed memory), one punch.");
	run_case(
		bench, &opts, "2m-clean-16p", HUGE_BYTES, false, "punch-hole-2m-16p",
		"one huge page a call; 16 read-only views; unchanged since it was evicted before.");
	run_directed(bench, &opts);
	return bench_finish(bench);
}
