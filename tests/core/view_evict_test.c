/*
 * Eviction across processes, from end to end and through the public interface: system calls on
 * evicted pages, a process that is stopped, a pager that is killed, many processes that write what
 * is evicted.
 *
 * Each page holds a word per process, which that process alone counts up, and which every eviction
 * and every fault must leave as it is.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <morsel/pager.h>
#include <morsel/swap.h>

#include "base/atomic.h"
#include "core/view_support.h"
#include "support/counts.h"

#define PAGES  64
#define MANY   52
#define NOBODY 65534

enum op {
	OP_MAP,	  /* opens morsel "m" and maps it; arg: enum morsel_faults */
	OP_COUNT, /* counts its word of every page up once; answers how far it is */
	OP_RUN,	  /* does that over and over, in a thread */
	OP_HALT,  /* until now; answers how far it is */
	OP_LOST,  /* words that were not as it had left them */
	OP_EVICT, /* everything */
	OP_PAGER, /* who is pager */
};

struct order {
	uint64_t op, arg;
};

struct answer {
	int64_t value;
	char words[256];
};

struct process {
	pid_t pid;
	int socket;
};

static char swap_path[128];

/* ---- what a process does ---- */

static struct {
	struct morsel_pool *pool;
	struct morsel *morsel;
	struct morsel_view *view;
	unsigned word;
	uint64_t count, lost;
	uint32_t stop;
	pthread_t thread;
} me;

static int map_all(int fd, uint32_t faults)
{
	struct morsel_pool_opts opts = {.size = sizeof(opts), .faults = faults};
	struct morsel_map_opts access = {.size = sizeof(access),
					 .access = MORSEL_READ | MORSEL_WRITE};
	int rc = morsel_pool_open_fd(fd, &opts, &me.pool);

	if (!rc)
		rc = morsel_open(me.pool, "m", NULL, &me.morsel);
	return rc ? rc : morsel_map(me.morsel, &access, &me.view);
}

static int64_t count_once(void)
{
	for (uint64_t page = 0; page < PAGES; page++) {
		volatile uint64_t *word =
			(volatile uint64_t *)((char *)morsel_addr(me.view) + page * PAGE) + me.word;

		me.lost += *word != me.count;
		*word = me.count + 1;
	}
	return (int64_t)++me.count;
}

static void *run(void *ctx)
{
	(void)ctx;
	while (!mrs_load_acquire32(&me.stop))
		count_once();
	return NULL;
}

static int64_t obey(const struct order *order, int fd)
{
	switch (order->op) {
	case OP_MAP:
		me.word = (unsigned)(order->arg >> 32);
		return map_all(fd, (uint32_t)order->arg);
	case OP_COUNT:
		return count_once();
	case OP_RUN:
		me.stop = 0;
		return -pthread_create(&me.thread, NULL, run, NULL);
	case OP_HALT:
		mrs_store_release32(&me.stop, 1);
		pthread_join(me.thread, NULL);
		return (int64_t)me.count;
	case OP_LOST:
		return (int64_t)me.lost;
	case OP_EVICT:
		return morsel_advise(me.morsel, 0, PAGES * PAGE, MORSEL_ADVICE_EVICT);
	case OP_PAGER:
		return morsel_pool_pager(me.pool);
	}
	return -EINVAL;
}

static void live(int fd, int socket)
{
	struct order order;

	for (int other = 3; other < 1024; other++)
		if (other != fd && other != socket)
			close(other);
	while (read(socket, &order, sizeof(order)) == sizeof(order)) {
		struct answer answer = {.value = obey(&order, fd)};

		snprintf(answer.words, sizeof(answer.words), "%s", morsel_errormsg());
		if (write(socket, &answer, sizeof(answer)) != sizeof(answer))
			break;
	}
	_exit(0);
}

static struct process spawn(int fd)
{
	struct process process;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	fflush(NULL);
	process.pid = fork();
	if (!process.pid) {
		close(pair[0]);
		live(fd, pair[1]);
	}
	close(pair[1]);
	process.socket = pair[0];
	return process;
}

static int64_t tell(struct process *process, enum op op, uint64_t arg)
{
	struct order order = {op, arg};
	struct answer answer;

	assert_int_equal(write(process->socket, &order, sizeof(order)), sizeof(order));
	assert_int_equal(read(process->socket, &answer, sizeof(answer)), sizeof(answer));
	if (answer.value < 0)
		print_message("process %d, order %u: %s\n", (int)process->pid, op, answer.words);
	return answer.value;
}

static void end(struct process *process, bool kill_it)
{
	if (!process->pid)
		return;
	if (kill_it)
		kill(process->pid, SIGKILL);
	close(process->socket);
	assert_int_equal(waitpid(process->pid, NULL, 0), process->pid);
	process->pid = 0;
}

/* ---- a pool with a swap file and one evictable morsel ---- */

struct fixture {
	int fd;
	struct process process[MANY];
	unsigned count;
};

static struct morsel_pool *pool_with_swap(void)
{
	const char *folder = getenv("TMPDIR");
	struct morsel_pool *pool = support_pool();
	struct morsel_swap_opts opts = {.size = sizeof(opts),
					.path = swap_path,
					.bytes = 16 * MIB,
					.flags = MORSEL_SWAP_PLAIN_IO | MORSEL_SWAP_SPARSE};

	snprintf(swap_path, sizeof(swap_path), "%.60s/morsel-test-%d-evict",
		 folder ? folder : "/tmp", (int)getpid());
	unlink(swap_path);
	if (morsel_swap_add(pool, &opts, NULL))
		fail_msg("%s", morsel_errormsg());
	assert_int_equal(morsel_close(support_morsel(pool, "m", PAGES * PAGE, MORSEL_EVICTABLE,
						     MORSEL_PAGES_4K)),
			 0);
	return pool;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct morsel_pool *pool = pool_with_swap();

	f->fd = dup(morsel_pool_fd(pool));
	assert_int_equal(morsel_pool_close(pool), 0);
	*state = f;
	return 0;
}

static void print_finding(void *ctx, const char *finding)
{
	(void)ctx;
	print_message("%s\n", finding);
}

/* However it went, the pool is sound. */
static int teardown(void **state)
{
	struct fixture *f = *state;
	struct morsel_pool *pool;

	for (unsigned i = 0; i < f->count; i++)
		end(&f->process[i], true);
	pool = support_pool_again(f->fd);
	assert_non_null(pool);
	assert_true(morsel_pool_reap(pool) >= 0);
	assert_int_equal(morsel_pool_check(pool, print_finding, NULL), 0);
	assert_int_equal(morsel_pool_close(pool), 0);
	close(f->fd);
	unlink(swap_path);
	free(f);
	return 0;
}

static void begin(struct fixture *f, unsigned count, uint32_t faults)
{
	for (unsigned i = 0; i < count; i++)
		f->process[f->count++] = spawn(f->fd);
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(tell(&f->process[i], OP_MAP, (uint64_t)i << 32 | faults), 0);
}

/* ---- tests ---- */

static void everybody_writes(struct fixture *f, unsigned count, unsigned rounds, uint32_t faults)
{
	begin(f, count, faults);
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(tell(&f->process[i], OP_RUN, 0), 0);
	for (unsigned i = 0; i < rounds; i++)
		assert_true(tell(&f->process[i % count], OP_EVICT, 0) >= 0);
	for (unsigned i = 0; i < count; i++)
		assert_true(tell(&f->process[i], OP_HALT, 0) > 0);
	assert_int_equal(tell(&f->process[0], OP_EVICT, 0), 0);
	for (unsigned i = 0; i < count; i++) {
		tell(&f->process[i], OP_COUNT, 0);
		assert_int_equal(tell(&f->process[i], OP_LOST, 0), 0);
	}
}

static void writers_lose_nothing(void **state)
{
	everybody_writes(*state, 4, COUNT_EVICT_PEERS, MORSEL_FAULTS_THREAD);
}

static void writers_lose_nothing_by_sigbus(void **state)
{
	everybody_writes(*state, 4, COUNT_EVICT_PEERS, MORSEL_FAULTS_SIGBUS);
}

static void many_processes(void **state)
{
	everybody_writes(*state, MANY, 20, MORSEL_FAULTS_THREAD);
}

/* A process that stands still is evicted from like any other, and finds everything as it left it.
 */
static void stopped_process(void **state)
{
	struct fixture *f = *state;

	begin(f, 3, MORSEL_FAULTS_THREAD);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(tell(&f->process[i], OP_RUN, 0), 0);
	kill(f->process[1].pid, SIGSTOP);
	for (unsigned i = 0; i < 10; i++)
		assert_true(tell(&f->process[i % 2 * 2], OP_EVICT, 0) >= 0);
	kill(f->process[1].pid, SIGCONT);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(tell(&f->process[i], OP_HALT, 0) > 0);
		assert_int_equal(tell(&f->process[i], OP_LOST, 0), 0);
	}
}

static unsigned any_alive(struct fixture *f)
{
	unsigned i = f->count;

	while (!f->process[--i].pid)
		assert_true(i > 0);
	return i;
}

/* Kills whoever is pager now. */
static void kill_pager(struct fixture *f)
{
	for (unsigned tries = 0; tries < 2000; tries++) {
		int64_t pager = tell(&f->process[any_alive(f)], OP_PAGER, 0);

		for (unsigned i = 0; i < f->count && pager > 0; i++)
			if (f->process[i].pid == pager) {
				end(&f->process[i], true);
				return;
			}
		usleep(10000);
	}
	fail_msg("nobody became pager");
}

/* Another is elected, gets everybody's descriptor, and goes on. */
static void killed_pager(void **state)
{
	struct fixture *f = *state;

	begin(f, 6, MORSEL_FAULTS_THREAD);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(tell(&f->process[i], OP_RUN, 0), 0);
	for (unsigned killed = 0; killed < 4; killed++) {
		int64_t rc = -1;

		kill_pager(f);
		for (unsigned tries = 0; tries < 2000 && rc < 0; tries++) {
			rc = tell(&f->process[any_alive(f)], OP_EVICT, 0);
			usleep(rc < 0 ? 10000 : 0);
		}
		assert_true(rc >= 0);
	}
	for (unsigned i = 0; i < 6; i++)
		if (f->process[i].pid) {
			assert_true(tell(&f->process[i], OP_HALT, 0) > 0);
			assert_int_equal(tell(&f->process[i], OP_LOST, 0), 0);
		}
}

/* ---- system calls ---- */

/* 0, or where it went wrong. */
static int system_calls(uint32_t faults, bool privileged)
{
	struct morsel_grant grant;
	ssize_t got;
	int mode, pipes[2];
	char *at;

	if (!privileged && !getuid() && (setgid(NOBODY) || setuid(NOBODY)))
		return 1;
	prctl(PR_SET_DUMPABLE, 1); /* else /proc/self is root's */
	me.pool = pool_with_swap();
	if (map_all(morsel_pool_fd(me.pool), faults) || pipe(pipes))
		return 2;
	at = morsel_addr(me.view);
	mode = morsel_pool_faults(me.pool);
	memset(at, 'x', PAGES * PAGE);
	if (obey(&(struct order){OP_EVICT, 0}, -1) || write(pipes[1], "hello", 5) != 5)
		return 3;
	got = read(pipes[0], at + 5 * PAGE + 100, 5);
	if (mode == MORSEL_FAULT_TRANSPARENT ? got != 5 || memcmp(at + 5 * PAGE + 99, "xhellox", 7)
					     : got != -1 || errno != EFAULT)
		return 4;
	if (got < 0 && read(pipes[0], (char[5]){0}, 5) != 5)
		return 8;
	/* Under a grant they work in every mode. */
	if (obey(&(struct order){OP_EVICT, 0}, -1) || write(pipes[1], "world", 5) != 5 ||
	    morsel_acquire(me.view, 9 * PAGE, PAGE, MORSEL_READ | MORSEL_WRITE, &grant))
		return 5;
	got = read(pipes[0], at + 9 * PAGE, 5);
	if (got != 5 || memcmp(at + 9 * PAGE, "worldx", 6))
		return 6;
	morsel_release(&grant);
	/* And nothing was lost by what was refused. */
	if (obey(&(struct order){OP_EVICT, 0}, -1) || at[5 * PAGE] != 'x' ||
	    memcmp(at + 9 * PAGE, "worldx", 6))
		return 7;
	unlink(swap_path);
	return faults == MORSEL_FAULTS_SIGBUS ? mode != MORSEL_FAULT_SIGBUS : 0;
}

static int system_calls_in_child(void *ctx)
{
	unsigned how = *(unsigned *)ctx;

	return system_calls(how & 1 ? MORSEL_FAULTS_SIGBUS : MORSEL_FAULTS_THREAD, how & 2);
}

static void system_calls_on_evicted_pages(void **state)
{
	(void)state;
	for (unsigned how = 0; how < 4; how++)
		assert_int_equal(support_in_child(system_calls_in_child, &how), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(system_calls_on_evicted_pages),
		cmocka_unit_test_setup_teardown(writers_lose_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(writers_lose_nothing_by_sigbus, setup, teardown),
		cmocka_unit_test_setup_teardown(stopped_process, setup, teardown),
		cmocka_unit_test_setup_teardown(killed_pager, setup, teardown),
		cmocka_unit_test_setup_teardown(many_processes, setup, teardown),
	};

	test_seed();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
