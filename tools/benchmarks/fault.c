/*
 * bench_fault: what a touch of an evicted page costs, beside the least that it could cost.
 *
 * Ours: a page that is evicted to compressed memory is touched by a process with its faults in a
 * thread, or in the faulting thread (SIGBUS). Theirs: a bare program that keeps the same pages
 * compressed by the same library in an array, and serves its own fault in the same way: decompress
 * into a buffer, UFFDIO_COPY, no table, no lock, one process, one mapping.
 */
#include "bench.h"
#include "pages.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <morsel/morsel.h>

#define PAGES 2048u
#define SLOT  PAGE_BYTES

static int (*decompress)(const char *from, char *to, int bytes, int room);
static int (*compress)(const char *from, char *to, int bytes, int room);

static void load_lz4(void)
{
	void *library = dlopen("liblz4.so.1", RTLD_NOW);

	if (!library)
		bench_die("liblz4.so.1 is missing: apt-get install liblz4-1");
	*(void **)&decompress = dlsym(library, "LZ4_decompress_safe");
	*(void **)&compress = dlsym(library, "LZ4_compress_default");
	if (!decompress || !compress)
		bench_die("liblz4 has not the expected functions");
}

/* About half of a page is noise, as in a page of a program's data. */
static void make_page(void *at, uint64_t page)
{
	uint64_t state = page_number(page), *word = at;
	unsigned i;

	for (i = 0; i < PAGE_WORDS; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		word[i] = i % 2 ? state : i;
	}
	word[0] = page_number(page);
}

/* us for each page, touched in an order that no read-ahead guesses. */
static double touch_all(const void *at, struct bench_case *c)
{
	uint64_t start = bench_now(), i, wrong = 0;

	for (i = 0; i < PAGES; i++) {
		uint64_t page = i * 1021 % PAGES;
		const volatile uint64_t *word = (const uint64_t *)at + page * PAGE_WORDS;

		wrong += word[0] != page_number(page);
	}
	if (wrong)
		bench_failed(c, "%llu pages held something else", (unsigned long long)wrong);
	return (double)(bench_now() - start) / 1e3 / PAGES;
}

/* ---- theirs ---- */

static struct bare {
	int fd; /* userfaultfd */
	int memory;
	char *at;
	char *store;
	int length[PAGES];
	char buffer[PAGE_BYTES];
	pthread_t thread;
	int stop[2];
} bare;

static void bare_serve(uint64_t address)
{
	uint64_t page = (address - (uintptr_t)bare.at) / PAGE_BYTES;
	struct uffdio_copy copy = {.dst = address & ~(uint64_t)(PAGE_BYTES - 1),
				   .src = (uintptr_t)bare.buffer,
				   .len = PAGE_BYTES};

	decompress(bare.store + page * SLOT, bare.buffer, bare.length[page], PAGE_BYTES);
	if (ioctl(bare.fd, UFFDIO_COPY, &copy))
		_exit(9);
}

static void bare_signal(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	bare_serve((uintptr_t)info->si_addr);
}

static void *bare_thread(void *unused)
{
	struct pollfd polls[2] = {{.fd = bare.fd, .events = POLLIN},
				  {.fd = bare.stop[0], .events = POLLIN}};
	struct uffd_msg message;

	for (;;) {
		if (read(bare.fd, &message, sizeof(message)) == sizeof(message)) {
			bare_serve(message.arg.pagefault.address);
			continue;
		}
		poll(polls, 2, -1);
		if (polls[1].revents)
			return NULL;
	}
}

static void bare_start(bool signals)
{
	struct uffdio_api api = {.api = UFFD_API,
				 .features = UFFD_FEATURE_MISSING_SHMEM |
					     (signals ? UFFD_FEATURE_SIGBUS : 0)};
	struct uffdio_register range = {.mode = UFFDIO_REGISTER_MODE_MISSING};
	char page[PAGE_BYTES];
	uint64_t i;

	bare.memory = memfd_create("baseline", MFD_CLOEXEC);
	if (bare.memory < 0 || ftruncate(bare.memory, PAGES * PAGE_BYTES))
		bench_die("memfd_create failed");
	bare.at =
		mmap(NULL, PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, bare.memory, 0);
	bare.store = malloc(PAGES * SLOT);
	bare.fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	range.range.start = (uintptr_t)bare.at;
	range.range.len = PAGES * PAGE_BYTES;
	if (bare.at == MAP_FAILED || !bare.store || bare.fd < 0 ||
	    ioctl(bare.fd, UFFDIO_API, &api) || ioctl(bare.fd, UFFDIO_REGISTER, &range))
		bench_die("the baseline's userfaultfd could not be set up");
	for (i = 0; i < PAGES; i++) {
		make_page(page, i);
		bare.length[i] = compress(page, bare.store + i * SLOT, PAGE_BYTES, SLOT);
	}
	if (!signals && (pipe(bare.stop) || pthread_create(&bare.thread, NULL, bare_thread, NULL)))
		bench_die("the baseline's thread could not be started");
}

static double bare_sample(struct bench_case *c, bool signals)
{
	struct sigaction action = {.sa_sigaction = bare_signal, .sa_flags = SA_SIGINFO}, former;
	double us;

	if (fallocate(bare.memory, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
		      PAGES * PAGE_BYTES))
		bench_die("punching a hole failed");
	if (signals)
		sigaction(SIGBUS, &action, &former);
	us = touch_all(bare.at, c);
	if (signals)
		sigaction(SIGBUS, &former, NULL);
	return us;
}

static void bare_end(bool signals)
{
	if (!signals) {
		if (write(bare.stop[1], "", 1) == 1)
			pthread_join(bare.thread, NULL);
		close(bare.stop[0]);
		close(bare.stop[1]);
	}
	munmap(bare.at, PAGES * PAGE_BYTES);
	close(bare.fd);
	close(bare.memory);
	free(bare.store);
}

/* ---- ours ---- */

static void run_case(struct bench *bench, const struct bench_opts *opts, const char *name,
		     bool signals, const char *baseline_name, const char *baseline)
{
	struct morsel_pool_opts pool_opts = {.size = sizeof(pool_opts),
					     .flags = MORSEL_POOL_CREATE,
					     .faults = signals ? MORSEL_FAULTS_SIGBUS
							       : MORSEL_FAULTS_THREAD};
	struct morsel_swap_opts swap_opts = {.size = sizeof(swap_opts)};
	struct morsel_opts morsel_opts = {.size = sizeof(morsel_opts),
					  .flags = MORSEL_CREATE | MORSEL_EVICTABLE,
					  .pages = MORSEL_PAGES_4K,
					  .bytes = PAGES * PAGE_BYTES};
	struct morsel_pool *pool;
	struct morsel *morsel;
	struct morsel_view *view;
	struct bench_case *c;
	uint64_t i;

	if (!bench_wants(bench, name))
		return;
	c = bench_case(bench, name, "us", baseline_name, baseline);
	if (morsel_pool_open(NULL, &pool_opts, &pool) || morsel_swap_add(pool, &swap_opts, NULL) ||
	    morsel_open(pool, "object", &morsel_opts, &morsel) || morsel_map(morsel, NULL, &view) ||
	    morsel_advise(morsel, 0, PAGES * PAGE_BYTES, MORSEL_ADVICE_RANDOM))
		bench_die("%s", morsel_errormsg());
	for (i = 0; i < PAGES; i++)
		make_page((char *)morsel_addr(view) + i * PAGE_BYTES, i);
	bare_start(signals);
	for (i = 0; i <= opts->pairs; i++) {
		double ours, theirs;

		if (morsel_advise(morsel, 0, PAGES * PAGE_BYTES, MORSEL_ADVICE_EVICT))
			bench_die("evict: %s", morsel_errormsg());
		ours = touch_all(morsel_addr(view), c);
		theirs = bare_sample(c, signals);
		if (!i)
			continue; /* warms up */
		bench_ours(c, ours);
		bench_theirs(c, theirs);
	}
	bench_note(c, "a random page of %u a touch; advice RANDOM; half of each page is noise.",
		   PAGES);
	bare_end(signals);
	morsel_view_destroy(view);
	morsel_close(morsel);
	morsel_pool_close(pool);
}

int main(int argc, char **argv)
{
	struct bench_opts opts = {.pairs = 9};
	struct bench *bench = bench_start("fault", &opts, argc, argv);

	load_lz4();
	run_case(bench, &opts, "compressed-4k-sigbus", true, "decompress+copy+bare-uffd-copy",
		 "UFFD_FEATURE_SIGBUS: LZ4_decompress_safe into a buffer and UFFDIO_COPY in the "
		 "handler");
	run_case(bench, &opts, "compressed-4k-thread", false,
		 "decompress+copy+bare-uffd-thread-copy",
		 "a thread that polls the userfaultfd: LZ4_decompress_safe into a buffer and "
		 "UFFDIO_COPY");
	return bench_finish(bench);
}
