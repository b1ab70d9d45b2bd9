/*
 * Torture: processes that read, write, evict, prefetch, clone, resize, pin, attach and fork over
 * the same morsels, in a pool whose budget is a third of the data, while they are killed and
 * stopped at random, half of the kills at a probe. Every word that is read is checked (torture.h),
 * and in the end the pool is clean and every page of every morsel is right. Every kind of operation
 * must have happened.
 */
#include "stress/torture.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <morsel/swap.h>

#include "support/counts.h"

#define POOL_BYTES   (256 * MIB)
#define BUDGET_BYTES (20 * MIB)
#define SWAP_BYTES   (512 * MIB)
#define PROBES	     512 /* core/base/probe.c */

struct probe_record {
	uint32_t claimed, ready;
	uint64_t hits;
	char name[48];
};

struct process {
	pid_t pid;
	uint32_t life;
	int64_t go_on_ns; /* stopped until then; 0: runs */
	int64_t since_ns;
};

struct drive {
	struct morsel_pool *pool;
	struct torture *t;
	int ledger_fd, pool_fd; /* the pool's for the workers: open across exec */
	uint64_t random;
	uint32_t lives;
	struct process process[TORTURE_WORKERS];
	struct probe_record *probe;
	char log[128], swap[128];
	unsigned kills, at_probe, stops;
};

/* For looking into something: another duration, and nobody is killed or stopped. */
static unsigned seconds(void)
{
	const char *text = getenv("MORSEL_TORTURE_SECONDS");

	if (text)
		return (unsigned)atoi(text);
	return torture_actor() ? COUNT_TORTURE_ACTOR_SECONDS : COUNT_TORTURE_SECONDS;
}

static bool is_calm(void)
{
	return getenv("MORSEL_TORTURE_CALM");
}

static int64_t now_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ll + time.tv_nsec;
}

static unsigned below(struct drive *d, unsigned end)
{
	return (unsigned)(test_random(&d->random) % end);
}

static void sleep_ms(unsigned ms)
{
	struct timespec time = {.tv_nsec = ms * 1000000l};

	nanosleep(&time, NULL);
}

/* ---- workers ---- */

/* The name of a probe that somebody has met. */
static const char *some_probe(struct drive *d)
{
	for (unsigned tries = 0; tries < 4000; tries++) {
		const struct probe_record *probe = &d->probe[below(d, PROBES)];

		if (probe->hits && strncmp(probe->name, "pool.create", 11))
			return probe->name;
	}
	return NULL;
}

static void exec_worker(struct drive *d, const struct process *p, const char *kill_at)
{
	char pool[16], ledger[16], life[16], seed[32], faults[8];
	char *argv[] = {"torture", "--worker", pool, ledger, life, seed, faults, NULL};
	int ledger_fd = dup(d->ledger_fd);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	snprintf(pool, sizeof(pool), "%d", d->pool_fd);
	snprintf(ledger, sizeof(ledger), "%d", ledger_fd);
	snprintf(life, sizeof(life), "%u", p->life);
	snprintf(seed, sizeof(seed), "%llu", (unsigned long long)test_random(&d->random));
	snprintf(faults, sizeof(faults), "%d", p->life % 3 ? 0 : (int)MORSEL_FAULTS_SIGBUS);
	if (kill_at)
		setenv("MORSEL_PROBE_KILL", kill_at, 1);
	else
		unsetenv("MORSEL_PROBE_KILL");
	execv(p == d->process && torture_actor() ? torture_actor() : "/proc/self/exe", argv);
	_exit(125);
}

static void start(struct drive *d, struct process *p)
{
	const char *probe = is_calm() || below(d, 3) ? NULL : some_probe(d);
	char text[80];

	/* A number is used again after 4096 lives: then its bit must be clear. */
	*p = (struct process){.life = ++d->lives, .since_ns = now_ns()};
	mrs_fetch_and(&d->t->ended[p->life / 64 % 64], ~(1ull << p->life % 64));
	if (probe)
		snprintf(text, sizeof(text), "%s:%u", probe, 1 + below(d, 20));
	p->pid = fork();
	if (!p->pid)
		exec_worker(d, p, probe ? text : NULL);
	assert_true(p->pid > 0);
}

static void note_end(struct drive *d, struct process *p, int status, bool last)
{
	bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;

	mrs_fetch_or(&d->t->ended[p->life / 64 % 64], 1ull << p->life % 64);
	p->pid = 0;
	if (killed)
		d->kills++;
	else if (!last || !WIFEXITED(status) || WEXITSTATUS(status))
		fail_msg("worker %u ended with status 0x%x", p->life, status);
}

static void look_for_ends(struct drive *d, bool last)
{
	for (unsigned i = 0; i < TORTURE_WORKERS; i++) {
		struct process *p = &d->process[i];
		int status;

		if (p->pid && waitpid(p->pid, &status, WNOHANG) == p->pid) {
			d->at_probe += WIFSIGNALED(status);
			note_end(d, p, status, last);
			if (!last)
				start(d, p);
		}
	}
}

static void kill_one(struct drive *d)
{
	struct process *p = &d->process[below(d, TORTURE_WORKERS)];
	int status;

	if (now_ns() - p->since_ns < 50000000)
		return;
	kill(p->pid, SIGKILL);
	assert_int_equal(waitpid(p->pid, &status, 0), p->pid);
	note_end(d, p, status, true);
	start(d, p);
}

static void stop_one(struct drive *d)
{
	struct process *p = &d->process[below(d, TORTURE_WORKERS)];

	if (p->go_on_ns)
		return;
	kill(p->pid, SIGSTOP);
	p->go_on_ns = now_ns() + (int64_t)(1 + below(d, below(d, 8) ? 60 : 900)) * 1000000;
	d->stops++;
}

static void go_on(struct drive *d, bool all)
{
	for (unsigned i = 0; i < TORTURE_WORKERS; i++) {
		struct process *p = &d->process[i];

		if (p->go_on_ns && (all || now_ns() > p->go_on_ns)) {
			kill(p->pid, SIGCONT);
			p->go_on_ns = 0;
		}
	}
}

/* ---- the end ---- */

static void end_workers(struct drive *d)
{
	int64_t deadline = now_ns() + 60000000000ll;
	unsigned left = TORTURE_WORKERS;

	mrs_store_release32(&d->t->stop, 1);
	go_on(d, true);
	while (left) {
		look_for_ends(d, true);
		left = 0;
		for (unsigned i = 0; i < TORTURE_WORKERS; i++)
			left += d->process[i].pid != 0;
		if (now_ns() > deadline)
			break;
		sleep_ms(10);
	}
	for (unsigned i = 0; i < TORTURE_WORKERS && left; i++) {
		char command[96];

		if (!d->process[i].pid)
			continue;
		fprintf(stderr, "worker %u (%d) does not end\n", d->process[i].life,
			(int)d->process[i].pid);
		snprintf(command, sizeof(command), "cat /proc/%d/task/*/wchan /proc/%d/syscall >&2",
			 (int)d->process[i].pid, (int)d->process[i].pid);
		if (getenv("MORSEL_TORTURE_KEEP") || system(command))
			pause();
		kill(d->process[i].pid, SIGKILL);
	}
	if (left)
		fail_msg("%u workers do not end", left);
}

static void verify_seat(struct drive *d, unsigned family, const struct torture_seat *seat)
{
	struct morsel_map_opts opts = {.size = sizeof(opts), .access = MORSEL_READ};
	struct torture_page *ledger = torture_pages(d->t, seat->life);
	struct morsel_view *view;
	struct morsel *morsel;
	char name[32];
	int rc;

	torture_name(name, family, seat->life);
	rc = seat->life ? morsel_open(d->pool, name, NULL, &morsel) : -ENOENT;
	if (rc == -ENOENT)
		return;
	assert_ok(rc);
	assert_ok(morsel_map(morsel, &opts, &view));
	for (unsigned page = 0; page < morsel_view_bytes(view) / 4096; page++) {
		const uint64_t *words = morsel_addr(view);
		struct torture_seen seen;
		unsigned at;

		torture_look_before(&ledger[page], &seen);
		if (torture_judge(&ledger[page], &seen, family, page, words + page * 512, &at))
			fail_msg("%s: page %u word %u is %016llx", name, page, at,
				 (unsigned long long)words[page * 512 + at]);
	}
	morsel_view_destroy(view);
	assert_ok(morsel_close(morsel));
}

static const char *const kinds[TORTURE_KINDS] = {"read",   "write",  "evict", "prefetch", "advise",
						 "huge",   "grant",  "clone", "snapshot", "unlink",
						 "create", "resize", "map",   "attach",	  "fork",
						 "splice", "uring",  "reap",  "compact",  "device"};

static void print_result(const struct drive *d)
{
	const struct mrs_state *state = mrs_pool_state(d->pool);

	printf("%u workers, %u killed (%u at a probe), %u stopped; %llu reads raced with two "
	       "writes\n",
	       d->lives, d->kills, d->at_probe, d->stops, (unsigned long long)d->t->raced);
	for (unsigned i = 0; i < TORTURE_KINDS; i++)
		printf("  %-10s %10llu done %10llu refused\n", kinds[i],
		       (unsigned long long)d->t->done[i], (unsigned long long)d->t->refused[i]);
	printf("  pages out %llu (clean %llu), in %llu; faults %llu, for writing %llu; broken off "
	       "%llu, "
	       "splits %llu, elections %llu, reaped %llu\n",
	       (unsigned long long)state->count[MRS_COUNT_PAGES_OUT],
	       (unsigned long long)state->count[MRS_COUNT_PAGES_OUT_CLEAN],
	       (unsigned long long)state->count[MRS_COUNT_PAGES_IN],
	       (unsigned long long)state->count[MRS_COUNT_FAULTS],
	       (unsigned long long)state->count[MRS_COUNT_FAULTS_WRITE],
	       (unsigned long long)state->count[MRS_COUNT_COW_BREAKS],
	       (unsigned long long)state->count[MRS_COUNT_SPLITS],
	       (unsigned long long)state->count[MRS_COUNT_ELECTIONS],
	       (unsigned long long)state->reaped);
}

/* An actor's machine is emulated and slow: there the rare kinds may be missing. */
static bool must_happen(unsigned kind)
{
	if (torture_actor())
		return kind == TORTURE_DEVICE || kind <= TORTURE_EVICT;
	return kind != TORTURE_DEVICE && !torture_without(kinds[kind]) &&
	       !(kind == TORTURE_SNAPSHOT && torture_without("clone"));
}

static void assert_all_happened(const struct drive *d)
{
	for (unsigned i = 0; i < TORTURE_KINDS; i++)
		if (!d->t->done[i] && must_happen(i))
			fail_msg("%s never happened", kinds[i]);
	assert_true(mrs_pool_state(d->pool)->count[MRS_COUNT_PAGES_OUT] > 0);
	if (must_happen(TORTURE_CLONE))
		assert_true(mrs_pool_state(d->pool)->count[MRS_COUNT_COW_BREAKS] > 0);
}

/* ---- the drive ---- */

static void open_pool(struct drive *d)
{
	const char *folder = getenv("TMPDIR");
	struct morsel_pool_opts opts = {.size = sizeof(opts),
					.flags = MORSEL_POOL_CREATE,
					.bytes = POOL_BYTES,
					.bytes_max = POOL_BYTES,
					.budget_bytes = BUDGET_BYTES};
	struct morsel_swap_opts file = {.size = sizeof(file),
					.path = d->swap,
					.bytes = SWAP_BYTES,
					.flags = MORSEL_SWAP_PLAIN_IO | MORSEL_SWAP_SPARSE};

	assert_ok(morsel_pool_open(NULL, &opts, &d->pool));
	d->pool_fd = dup(morsel_pool_fd(d->pool));
	assert_true(d->pool_fd >= 0);
	snprintf(d->swap, sizeof(d->swap), "%.60s/morsel-torture-%d-swap", folder ? folder : "/tmp",
		 (int)getpid());
	unlink(d->swap);
	assert_ok(morsel_swap_add(d->pool, &file, NULL));
}

static void open_shared(struct drive *d)
{
	int fd;

	d->ledger_fd = memfd_create("torture", MFD_CLOEXEC);
	assert_true(d->ledger_fd >= 0);
	assert_int_equal(ftruncate(d->ledger_fd, sizeof(struct torture)), 0);
	d->t = torture_map(d->ledger_fd);
	assert_non_null(d->t);
	snprintf(d->log, sizeof(d->log), "%s", object_file("probes", 0, 4096));
	fd = open(d->log, O_RDWR | O_TRUNC | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, sizeof(struct probe_record) * PROBES), 0);
	d->probe = mmap(NULL, sizeof(struct probe_record) * PROBES, PROT_READ, MAP_SHARED, fd, 0);
	assert_true(d->probe != MAP_FAILED);
	close(fd);
	setenv("MORSEL_PROBE_LOG", d->log, 1);
}

static void test_torture(void **state)
{
	static struct drive d;
	int64_t end;

	d.random = test_seed();
	open_pool(&d);
	open_shared(&d);
	printf("%u seconds\n", seconds());
	end = now_ns() + seconds() * 1000000000ll;
	for (unsigned i = 0; i < TORTURE_WORKERS; i++)
		start(&d, &d.process[i]);
	while (now_ns() < end) {
		sleep_ms(5);
		look_for_ends(&d, false);
		go_on(&d, false);
		if (!is_calm() && !below(&d, 60))
			kill_one(&d);
		if (!is_calm() && !below(&d, 12))
			stop_one(&d);
	}
	end_workers(&d);
	print_result(&d);
	assert_ok(morsel_pool_reap(d.pool));
	object_check(d.pool);
	for (unsigned family = 0; family < TORTURE_FAMILIES; family++)
		for (unsigned seat = 0; seat < TORTURE_SEATS; seat++)
			verify_seat(&d, family, &d.t->seat[family][seat]);
	assert_int_equal(d.t->mismatches, 0);
	if (seconds() >= COUNT_TORTURE_SECONDS)
		assert_all_happened(&d);
	unlink(d.log);
	close(d.pool_fd);
	object_pool_end(d.pool);
	unlink(d.swap);
}

/* Does the actor find what it drives? */
static bool has_device(void)
{
	int status = -1;
	pid_t pid = fork();

	if (!pid) {
		execl(torture_actor(), torture_actor(), "--probe", NULL);
		_exit(125);
	}
	return waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 77;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_torture)};

	if (argc == 7 && !strcmp(argv[1], "--worker"))
		return torture_worker(argv);
	if (torture_actor() && !has_device())
		return 77;
	return cmocka_run_group_tests_name("torture", tests, NULL, NULL);
}
