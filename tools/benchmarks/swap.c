/*
 * bench_swap: random access to twice as much data as there is memory for, by 4 processes.
 *
 * Ours: an evictable morsel in a pool whose budget is half of it, with a swap target. Theirs: a
 * memfd of the same size in a memory cgroup whose limit is half of it, and the kernel's swap on the
 * same file system (a swap file beside ours) or on zram. Nothing else swaps meanwhile; zswap is
 * off. The swap devices and the cgroup are made for the measurement, and given back: this takes
 * root.
 */
#include "bench.h"
#include "herd.h"
#include "pages.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/wait.h>
#include <unistd.h>

#include <morsel/morsel.h>

#define PROCESSES 4u
#define SAMPLE_NS 1500000000ull
#define GROUPS	  "/sys/fs/cgroup"

/* What must be undone however the program ends. */
static struct undo {
	char swap[256]; /* being swapped on */
	char file[256]; /* to be removed */
	char group[256];
	bool zram;
	pid_t keeper; /* see keep_going() */
	int memory;   /* the baseline's, to be emptied first; 0 none */
} undo;

static bool write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return done;
}

static void undo_all(void)
{
	/* Without content there is nothing to be swapped in, for which the cgroup has no room. */
	if (undo.memory && ftruncate(undo.memory, 0))
		bench_say("cannot empty the baseline");
	if (undo.keeper > 0) {
		kill(undo.keeper, SIGKILL);
		waitpid(undo.keeper, NULL, 0);
	}
	if (undo.swap[0])
		swapoff(undo.swap);
	if (undo.zram)
		write_text("/sys/block/zram0/reset", "1");
	if (undo.file[0])
		unlink(undo.file);
	if (undo.group[0])
		rmdir(undo.group);
	memset(&undo, 0, sizeof(undo));
}

static void undo_at_signal(int number)
{
	undo_all();
	signal(number, SIG_DFL);
	raise(number);
}

/* ---- the kernel's side: a memory cgroup and a swap device ---- */

/*
 * Where all of its pages are always in use the kernel finds none to reclaim and kills. In a cgroup
 * of version 1 who allocates can be made to wait instead; the keeper then lends the cgroup a little
 * memory for an instant, which is to the kernel's advantage.
 */
static void keep_going(uint64_t bytes)
{
	char control[320], limit[320], text[256], more[32], less[32];

	snprintf(control, sizeof(control), "%s/memory.oom_control", undo.group);
	snprintf(limit, sizeof(limit), "%s/memory.limit_in_bytes", undo.group);
	snprintf(more, sizeof(more), "%llu", (unsigned long long)(bytes + bytes / 64));
	snprintf(less, sizeof(less), "%llu", (unsigned long long)bytes);
	while (!usleep(5000)) {
		int fd = open(control, O_RDONLY | O_CLOEXEC);
		ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

		close(fd);
		if (got <= 0)
			return;
		text[got] = 0;
		if (strstr(text, "under_oom 1")) {
			write_text(limit, more);
			usleep(1000);
		}
		write_text(limit, less);
	}
}

static void start_keeper(uint64_t bytes)
{
	char control[320];

	snprintf(control, sizeof(control), "%s/memory.oom_control", undo.group);
	if (!write_text(control, "1"))
		return;
	undo.keeper = fork();
	if (undo.keeper)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	keep_going(bytes);
	_exit(0);
}

/* Of version 2, or of version 1 where that one has the memory controller. */
static bool make_group(uint64_t bytes, char *why, size_t room)
{
	const char *limit = GROUPS "/memory/memory.limit_in_bytes", *file = "memory.limit_in_bytes";
	char path[320], text[32];
	bool first = !access(limit, F_OK);

	snprintf(undo.group, sizeof(undo.group), "%s/morsel-bench-%d",
		 first ? GROUPS "/memory" : GROUPS, (int)getpid());
	if (!first)
		file = "memory.max";
	if (mkdir(undo.group, 0755)) {
		snprintf(why, room, "no memory cgroup can be made: %s", strerror(errno));
		undo.group[0] = 0;
		return false;
	}
	snprintf(path, sizeof(path), "%s/%s", undo.group, file);
	snprintf(text, sizeof(text), "%llu", (unsigned long long)bytes);
	if (write_text(path, text)) {
		start_keeper(bytes);
		return true;
	}
	snprintf(why, room, "the memory cgroup takes no limit: %s", strerror(errno));
	return false;
}

static bool run(const char *program, const char *argument)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		int null = open("/dev/null", O_WRONLY);

		dup2(null, 1);
		dup2(null, 2);
		execlp(program, program, argument, (char *)NULL);
		_exit(127);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid && !status;
}

static bool swap_on(const char *path, char *why, size_t room)
{
	if (!run("mkswap", path) || swapon(path, 0)) {
		snprintf(why, room, "mkswap or swapon of %s failed (root is needed)", path);
		return false;
	}
	snprintf(undo.swap, sizeof(undo.swap), "%s", path);
	return true;
}

static bool swap_on_file(const char *dir, uint64_t bytes, char *why, size_t room)
{
	int fd;

	snprintf(undo.file, sizeof(undo.file), "%s/morsel-bench-swap-%d", dir, (int)getpid());
	fd = open(undo.file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || posix_fallocate(fd, 0, (off_t)bytes)) {
		snprintf(why, room, "no file of %llu bytes in %s", (unsigned long long)bytes, dir);
		if (fd >= 0)
			close(fd);
		return false;
	}
	close(fd);
	return swap_on(undo.file, why, room);
}

static bool swap_on_zram(uint64_t bytes, char *why, size_t room)
{
	char text[32];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)bytes);
	if (access("/sys/block/zram0", F_OK) ||
	    !write_text("/sys/block/zram0/comp_algorithm", "lz4") ||
	    !write_text("/sys/block/zram0/disksize", text)) {
		snprintf(why, room, "no zram0 with lz4 that is free");
		return false;
	}
	undo.zram = true;
	return swap_on("/dev/zram0", why, room);
}

/* ---- data ---- */

static void make_page(void *at, uint64_t page, bool compressible)
{
	uint64_t state = page_number(page), *word = at;
	unsigned i;

	for (i = 0; i < PAGE_WORDS; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		word[i] = compressible && i % 4 ? i : state;
	}
	memset(word, 0, (1 + PROCESSES) * sizeof(*word));
	word[0] = page_number(page);
}

static void fill(void *at, uint64_t bytes, bool compressible)
{
	uint64_t page;

	for (page = 0; page < bytes / PAGE_BYTES; page++)
		make_page((char *)at + page * PAGE_BYTES, page, compressible);
}

/* ---- cases ---- */

struct swap_case {
	const char *name;
	const char *baseline_name;
	const char *baseline;
	bool compressible; /* data, and where it goes: compressed memory, or a file */
};

static double accesses(struct herd *herd, uint64_t pages, struct bench_case *c)
{
	uint64_t start = bench_now();
	struct herd_sum sum = herd_order(herd, HERD_RANDOM, 0, pages, SAMPLE_NS);

	if (sum.wrong)
		bench_failed(c, "%llu reads got a wrong page", (unsigned long long)sum.wrong);
	return (double)sum.done * 1e9 / (double)(bench_now() - start);
}

/* The filler runs in the cgroup too, for who touches a page first pays for it. */
static void fill_theirs(const struct herd_object *object, bool compressible)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		char path[320];
		void *at;

		snprintf(path, sizeof(path), "%s/cgroup.procs", object->group);
		at = mmap(NULL, object->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, object->fd, 0);
		if (!write_text(path, "0") || at == MAP_FAILED)
			_exit(1);
		fill(at, object->bytes, compressible);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		bench_die("filling the baseline failed");
}

static int make_ours(const struct bench_opts *opts, const struct swap_case *which,
		     struct morsel_pool **pool, struct morsel **morsel, struct morsel_view **view,
		     const char *file)
{
	struct morsel_pool_opts pool_opts = {
		.size = sizeof(pool_opts),
		.flags = MORSEL_POOL_CREATE,
		.bytes = 4 * opts->bytes,
		/* Compressed pages are beside it, as zram's are not in the cgroup. */
		.budget_bytes = opts->bytes / 2};
	struct morsel_swap_opts swap_opts = {.size = sizeof(swap_opts),
					     .path = which->compressible ? NULL : file,
					     .bytes = 2 * opts->bytes};
	struct morsel_opts morsel_opts = {.size = sizeof(morsel_opts),
					  .flags = MORSEL_CREATE | MORSEL_EVICTABLE | MORSEL_LAZY,
					  .pages = MORSEL_PAGES_4K,
					  .bytes = opts->bytes};
	uint64_t piece = opts->bytes / 64, at;

	if (morsel_pool_open(NULL, &pool_opts, pool) || morsel_swap_add(*pool, &swap_opts, NULL) ||
	    morsel_open(*pool, "object", &morsel_opts, morsel) || morsel_map(*morsel, NULL, view))
		return -1;
	for (at = 0; at < opts->bytes; at += piece) {
		struct morsel_grant grant;
		uint64_t page;

		if (morsel_acquire(*view, at, piece, MORSEL_WRITE, &grant))
			return -1;
		for (page = 0; page < piece / PAGE_BYTES; page++)
			make_page((char *)grant.addr + page * PAGE_BYTES, at / PAGE_BYTES + page,
				  which->compressible);
		morsel_release(&grant);
	}
	return morsel_advise(*morsel, 0, opts->bytes, MORSEL_ADVICE_RANDOM);
}

static void run_pairs(const struct bench_opts *opts, const struct swap_case *which,
		      struct bench_case *c, const char *file)
{
	struct herd_object ours = {.name = "object", .bytes = opts->bytes, .writable = true};
	struct herd_object theirs = {.bytes = opts->bytes, .writable = true, .group = undo.group};
	struct herd our_herd, their_herd;
	struct morsel_pool *pool = NULL;
	struct morsel *morsel = NULL;
	struct morsel_view *view = NULL;
	unsigned i;

	theirs.fd = memfd_create("baseline", MFD_CLOEXEC);
	if (theirs.fd < 0 || ftruncate(theirs.fd, (off_t)opts->bytes))
		bench_die("memfd_create failed");
	undo.memory = theirs.fd;
	fill_theirs(&theirs, which->compressible);
	herd_start(&their_herd, PROCESSES, &theirs);
	if (make_ours(opts, which, &pool, &morsel, &view, file)) {
		bench_failed(c, "%s", morsel_errormsg());
	} else {
		ours.fd = morsel_pool_fd(pool);
		herd_start(&our_herd, PROCESSES, &ours);
		accesses(&our_herd, opts->bytes / PAGE_BYTES, c);
		accesses(&their_herd, opts->bytes / PAGE_BYTES, c);
		for (i = 0; i < opts->pairs; i++) {
			bench_ours(c, accesses(&our_herd, opts->bytes / PAGE_BYTES, c));
			bench_theirs(c, accesses(&their_herd, opts->bytes / PAGE_BYTES, c));
		}
		herd_end(&our_herd);
	}
	herd_end(&their_herd);
	morsel_view_destroy(view);
	morsel_close(morsel);
	if (pool)
		morsel_pool_close(pool);
	undo_all();
	close(theirs.fd);
}

static void run_case(struct bench *bench, const struct bench_opts *opts,
		     const struct swap_case *which)
{
	uint64_t room = 2 * opts->bytes;
	char why[200], file[300];
	struct bench_case *c;

	if (!bench_wants(bench, which->name))
		return;
	c = bench_case(bench, which->name, "accesses/s", which->baseline_name, which->baseline);
	bench_note(c,
		   "%.0f MiB of data, half of it in memory; uniform accesses to whole pages' first "
		   "words, one in four writes; every read verified; more is better.",
		   (double)opts->bytes / BENCH_MIB);
	snprintf(file, sizeof(file), "%s/morsel-bench-target-%d", opts->dir, (int)getpid());
	if (!make_group(opts->bytes / 2, why, sizeof(why)) ||
	    !(which->compressible ? swap_on_zram(room, why, sizeof(why))
				  : swap_on_file(opts->dir, room, why, sizeof(why))))
		bench_failed(c, "%s", why);
	else
		run_pairs(opts, which, c, file);
	unlink(file);
	undo_all();
}

int main(int argc, char **argv)
{
	static const struct swap_case cases[] = {
		{"uniform-2x-4p", "kernel-swap-same-device",
		 "4 processes over one memfd in a memory cgroup of half its size, swap file on the "
		 "same file system; incompressible data, no zswap",
		 false},
		{"compressed-2x-4p", "kernel-zram",
		 "4 processes over one memfd in a memory cgroup of half its size, swap on zram "
		 "with "
		 "lz4; three quarters of each page compress well",
		 true},
	};
	struct bench_opts opts = {.pairs = 7, .bytes = 256 * BENCH_MIB};
	struct bench *bench = bench_start("swap", &opts, argc, argv);
	static const int signals[] = {SIGHUP, SIGINT, SIGTERM};
	unsigned i;

	for (i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		signal(signals[i], undo_at_signal);
	atexit(undo_all);
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		run_case(bench, &opts, &cases[i]);
	return bench_finish(bench);
}
