/*
 * Faults of this process: registered ranges, the thread that answers, and the handler of SIGBUS.
 * What fills a page is a double: mrs_fault() is wrapped, and does what the test has set.
 *
 * Everything runs as the user who started the test; as root, the parts that depend on privilege run
 * again in a process without any.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/atomic.h"
#include "base/base.h"
#include "core/view_support.h"
#include "pool/internal.h"
#include "support/counts.h"
#include "view/pager.h"
#include "view/uffd.h"

#define PAGES 64
#define BYTES (PAGES * PAGE)
#define FRAME                                                                              \
	((1ull << 30) / PAGE) /* where the test's pages lie: nobody else uses these frames \
			       */
#define NOBODY 65534

/* A touch that nobody serves, and a signal that is swallowed, would last for ever. */
#define PATIENCE_S 25

struct fixture {
	struct morsel_pool *pool;
	char *view;
};

/* ---- the double ---- */

static struct {
	uint32_t calls[PAGES];
	uint32_t kinds[PAGES];	/* bit per kind that was asked for */
	uint32_t tries;		/* calls with MRS_FAULT_TRY that were refused */
	uint32_t locked[PAGES]; /* -EAGAIN, or waits */
	uint32_t answer[PAGES]; /* negative errno; 0: fills */
	uint32_t failures;	/* so many calls answer -ENOMEM first */
	uint32_t protect;	/* fills write-protected */
	uint32_t delay_us;	/* before a page is filled */
	uint64_t window_first;
} fault;

/* What orders test and fault thread, a fault, is not seen by ThreadSanitizer. */
static uint32_t get(const uint32_t *word)
{
	return mrs_load_acquire32(word);
}

static void set(uint32_t *word, uint32_t value)
{
	mrs_store_release32(word, value);
}

static unsigned char byte_of(uint64_t page)
{
	return (unsigned char)(page * 7 + 3);
}

int __wrap_mrs_fault(struct morsel *morsel, const struct mrs_window *window, uint64_t page,
		     enum mrs_fault_kind kind);
int __wrap_mrs_fault(struct morsel *morsel, const struct mrs_window *window, uint64_t page,
		     enum mrs_fault_kind kind)
{
	uint64_t at = page - window->first, address = window->address + at * PAGE;
	static __thread unsigned char content[4096];

	(void)morsel;
	mrs_fetch_add32(&fault.calls[at], 1);
	mrs_fetch_or32(&fault.kinds[at], 1u << (kind & 3));
	errno = ENOTTY; /* a handler must give the interrupted code its own back */
	while (mrs_load_acquire32(&fault.locked[at])) {
		if (kind & MRS_FAULT_TRY) {
			mrs_fetch_add32(&fault.tries, 1);
			return -EAGAIN;
		}
		usleep(100);
	}
	if (mrs_load_relaxed32(&fault.failures)) {
		mrs_fetch_sub32(&fault.failures, 1);
		return -ENOMEM;
	}
	if (get(&fault.answer[at]))
		return (int)get(&fault.answer[at]);
	if ((kind & 3) == MRS_FAULT_PROTECTED)
		return mrs_uffd_protect(window->fd, address, PAGE, false);
	usleep(get(&fault.delay_us));
	memset(content, byte_of(at), sizeof(content));
	mrs_uffd_copy(window->fd, (void *)(uintptr_t)address, content, PAGE,
		      get(&fault.protect) && (kind & 3) == MRS_FAULT_MISSING);
	return 0;
}

/* ---- a pool and a registered view ---- */

static struct morsel_pool *open_pool(uint32_t faults)
{
	struct morsel_pool_opts opts = {.size = sizeof(opts),
					.flags = MORSEL_POOL_CREATE,
					.bytes = 2048 * MIB,
					.bytes_max = 65536 * MIB,
					.faults = faults};
	struct morsel_pool *pool;

	if (morsel_pool_open(NULL, &opts, &pool))
		fail_msg("%s", morsel_errormsg());
	return pool;
}

static struct fixture *view_new(uint32_t faults)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct mrs_region region = {.bytes = BYTES, .first = 100, .writable = true};

	memset(&fault, 0, sizeof(fault));
	f->pool = open_pool(faults);
	f->view = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, morsel_pool_fd(f->pool),
		       FRAME * PAGE);
	assert_ptr_not_equal(f->view, MAP_FAILED);
	madvise(f->view, BYTES, MADV_DONTFORK);
	region.address = (uintptr_t)f->view;
	region.pool = f->pool;
	assert_int_equal(mrs_region_add(&region), 0);
	if (mrs_uffd_register(f->pool, f->view, BYTES))
		fail_msg("%s", morsel_errormsg());
	return f;
}

static void view_end(struct fixture *f)
{
	mrs_uffd_unregister(f->pool, f->view, BYTES);
	munmap(f->view, BYTES);
	mrs_region_remove((uintptr_t)f->view);
	assert_int_equal(morsel_pool_close(f->pool), 0);
	free(f);
}

static int setup_thread(void **state)
{
	*state = view_new(MORSEL_FAULTS_THREAD);
	return 0;
}

static int teardown(void **state)
{
	view_end(*state);
	return 0;
}

static void punch(struct fixture *f, uint64_t page)
{
	assert_int_equal(fallocate(morsel_pool_fd(f->pool),
				   FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				   (off_t)((FRAME + page) * PAGE), PAGE),
			 0);
}

static volatile unsigned char *at(struct fixture *f, uint64_t page)
{
	return (volatile unsigned char *)f->view + page * PAGE;
}

/* ---- both ways ---- */

static void missing_pages_come(void **state)
{
	struct fixture *f = *state;

	for (unsigned round = 0; round < 2; round++)
		for (uint64_t i = 0; i < PAGES; i++) {
			assert_int_equal(*at(f, i), byte_of(i));
			assert_int_equal(get(&fault.calls[i]), round + 1);
			punch(f, i);
		}
}

/* Who touches is woken when the page is there, and not before: a touch asks once. */
static void a_touch_asks_once(void **state)
{
	struct fixture *f = *state;

	set(&fault.delay_us, 5000);
	for (uint64_t i = 0; i < 4; i++) {
		assert_int_equal(*at(f, i), byte_of(i));
		usleep(10000);
		assert_int_equal(mrs_load_acquire32(&fault.calls[i]), 1);
	}
}

static void protection_is_lifted(void **state)
{
	struct fixture *f = *state;

	set(&fault.protect, 1);
	for (uint64_t i = 0; i < PAGES; i++) {
		assert_int_equal(*at(f, i), byte_of(i));
		*at(f, i) = 1;
		assert_int_equal(*at(f, i), 1);
		assert_int_equal(get(&fault.kinds[i]),
				 1 << MRS_FAULT_MISSING | 1 << MRS_FAULT_PROTECTED);
	}
	/* A write to what is not there says so. */
	punch(f, 5);
	set(&fault.kinds[5], 0);
	*at(f, 5) = 2;
	assert_int_equal(at(f, 5)[1], byte_of(5));
	assert_int_equal(get(&fault.kinds[5]), 1 << MRS_FAULT_WRITE);
}

struct toucher {
	pthread_t thread;
	struct fixture *f;
	uint64_t first, step;
	uint32_t bad;
};

static void *touch_all(void *ctx)
{
	struct toucher *t = ctx;

	for (uint64_t i = 0; i < PAGES; i++) {
		uint64_t page = (t->first + i * t->step) % PAGES;

		t->bad += *at(t->f, page) != byte_of(page);
	}
	return NULL;
}

static void many_threads(void **state)
{
	struct toucher t[8];

	for (unsigned i = 0; i < 8; i++) {
		t[i] = (struct toucher){.f = *state, .first = i * 5, .step = i % 2 ? 1 : 3};
		assert_int_equal(pthread_create(&t[i].thread, NULL, touch_all, &t[i]), 0);
	}
	for (unsigned i = 0; i < 8; i++) {
		pthread_join(t[i].thread, NULL);
		assert_int_equal(t[i].bad, 0);
	}
}

static void failures_are_retried(void **state)
{
	struct fixture *f = *state;

	set(&fault.failures, 3);
	assert_int_equal(*at(f, 9), byte_of(9));
	assert_int_equal(get(&fault.calls[9]), 4);
}

/* What cannot be read back is told, to everyone who touches it; the page beside it is as before. */
static void lost_page_is_told(void **state)
{
	struct fixture *f = *state;
	int told;

	set(&fault.answer[3], (uint32_t)-EIO);
	told = support_touch(at(f, 3), false);
	assert_true((told & 255) == SIGBUS || (told & 255) == SIGSEGV);
	assert_int_equal(support_touch(at(f, 3), true), told);
	set(&fault.answer[4], (uint32_t)-ERANGE);
	assert_int_equal(support_touch(at(f, 4), true), told);
	assert_int_equal(*at(f, 2), byte_of(2));
	assert_int_equal(*at(f, 5), byte_of(5));
}

/* ---- by the thread ---- */

/* One page's locked leaf delays nobody else, and nobody gets it before it is filled. */
static void locked_page_waits_alone(void **state)
{
	struct fixture *f = *state;
	struct toucher t = {.f = f, .first = 7, .step = 0};

	alarm(PATIENCE_S);
	set(&fault.locked[7], 1);
	assert_int_equal(pthread_create(&t.thread, NULL, touch_all, &t), 0);
	while (!mrs_load_acquire32(&fault.tries))
		usleep(1000);
	for (uint64_t i = 8; i < PAGES; i++)
		assert_int_equal(*at(f, i), byte_of(i));
	assert_int_equal(mrs_load_acquire32(&fault.locked[7]), 1);
	mrs_store_release32(&fault.locked[7], 0);
	pthread_join(t.thread, NULL);
	alarm(0);
	assert_int_equal(t.bad, 0);
}

/* read(2) into an evicted page: served where the mode says so, EFAULT where not; never zeros. */
static int system_call(struct fixture *f)
{
	int mode = morsel_pool_faults(f->pool), pipes[2];
	ssize_t got;

	if (pipe(pipes) || write(pipes[1], "hello", 5) != 5)
		return 10;
	got = read(pipes[0], (void *)at(f, 12), 5);
	if (mode == MORSEL_FAULT_TRANSPARENT) {
		if (got != 5 || memcmp((void *)at(f, 12), "hello", 5) ||
		    at(f, 12)[5] != byte_of(12))
			return 11;
	} else if (got >= 0 || errno != EFAULT) {
		return 12;
	}
	/* Once it is there, everybody may. */
	if (*at(f, 13) != byte_of(13) || write(pipes[1], "world", 5) != 5 ||
	    read(pipes[0], (void *)at(f, 13), 5) != 5)
		return 13;
	close(pipes[0]);
	close(pipes[1]);
	return 0;
}

static void system_calls(void **state)
{
	assert_int_equal(system_call(*state), 0);
}

/* A process without privilege, and with all that this one has if that is none. */
static int unprivileged(void *ctx)
{
	uint32_t faults = *(uint32_t *)ctx;
	struct fixture *f;
	int mode, rc;

	if (!getuid() && (setgid(NOBODY) || setuid(NOBODY)))
		return 20;
	prctl(PR_SET_DUMPABLE, 1); /* else /proc/self is root's */
	f = view_new(faults);
	mode = morsel_pool_faults(f->pool);
	rc = system_call(f);
	if (rc)
		return rc;
	if (*at(f, 1) != byte_of(1))
		return 21;
	*at(f, 1) = 9;
	view_end(f);
	/* The device may be open to everybody here. */
	if (faults == MORSEL_FAULTS_SIGBUS)
		return mode != MORSEL_FAULT_SIGBUS;
	return access("/dev/userfaultfd", R_OK | W_OK) && mode != MORSEL_FAULT_USER ? 22 : 0;
}

static void without_privilege(void **state)
{
	uint32_t faults;

	(void)state;
	faults = MORSEL_FAULTS_THREAD;
	assert_int_equal(support_in_child(unprivileged, &faults), 0);
	faults = MORSEL_FAULTS_SIGBUS;
	assert_int_equal(support_in_child(unprivileged, &faults), 0);
}

static void mode_is_told(void **state)
{
	struct fixture *f = *state;
	int mode = morsel_pool_faults(f->pool);

	if (!getuid())
		assert_int_equal(mode, MORSEL_FAULT_TRANSPARENT);
	else
		assert_true(mode == MORSEL_FAULT_TRANSPARENT || mode == MORSEL_FAULT_USER);
}

/* A range that is unmapped, or taken out of the list, leaves nobody hanging. */
static void unknown_region_is_woken(void **state)
{
	struct fixture *f = *state;
	struct toucher t = {.f = f, .first = 20, .step = 0};
	struct mrs_region region = {.address = (uintptr_t)f->view,
				    .bytes = BYTES,
				    .first = 100,
				    .pool = f->pool,
				    .writable = true};

	mrs_region_remove((uintptr_t)f->view);
	assert_int_equal(pthread_create(&t.thread, NULL, touch_all, &t), 0);
	usleep(10000);
	assert_int_equal(get(&fault.calls[20]), 0);
	assert_int_equal(mrs_region_add(&region), 0);
	pthread_join(t.thread, NULL);
	assert_int_equal(t.bad, 0);
}

struct child {
	struct fixture *f;
	int fd, uffd;
};

static int child_has_nothing(void *ctx)
{
	struct child *child = ctx;
	struct mrs_region region;
	uint32_t *hold;

	if (fcntl(child->uffd, F_GETFD) >= 0)
		return 1;
	if (mrs_region_find((uintptr_t)child->f->view, &region, &hold))
		return 2;
	if (morsel_pool_faults(child->f->pool) != -ECHILD)
		return 3;
#ifdef __SANITIZE_THREAD__
	return 0; /* threads cannot be started there */
#endif
	/* The child attaches anew, and has faults of its own. */
	child->f = view_new(MORSEL_FAULTS_THREAD);
	if (*at(child->f, 3) != byte_of(3))
		return 4;
	view_end(child->f);
	return 0;
}

static void fork_begins_anew(void **state)
{
	struct fixture *f = *state;
	struct child child = {.f = f, .uffd = mrs_uffd_fd(f->pool)};

	assert_int_equal(*at(f, 3), byte_of(3));
	assert_true(child.uffd >= 0);
	assert_int_equal(support_in_child(child_has_nothing, &child), 0);
	punch(f, 3);
	assert_int_equal(*at(f, 3), byte_of(3));
}

/* ---- regions ---- */

static void regions_are_found(void **state)
{
	uint64_t seed = test_seed(), start[600];
	struct mrs_region region, found;
	uint32_t *hold;

	(void)state;
	for (uint64_t i = 0; i < 600; i++) {
		start[i] = (1ull << 46) + i * (16 * PAGE);
		region = (struct mrs_region){.address = start[i], .bytes = 8 * PAGE, .first = i};
		assert_int_equal(mrs_region_add(&region), 0);
	}
	for (uint64_t i = 0; i < 600; i += 2)
		mrs_region_remove(start[i]);
	for (unsigned n = 0; n < 5000; n++) {
		uint64_t i = test_random(&seed) % 600, byte = test_random(&seed) % (16 * PAGE);
		bool inside = i % 2 && byte < 8 * PAGE;

		assert_int_equal(mrs_region_find(start[i] + byte, &found, &hold), inside);
		if (inside) {
			assert_int_equal(found.first, i);
			mrs_region_release(hold);
		}
	}
	for (uint64_t i = 1; i < 600; i += 2)
		mrs_region_remove(start[i]);
	assert_false(mrs_region_find(start[1], &found, &hold));
}

struct remover {
	pthread_t thread;
	uint64_t address;
	uint32_t done;
};

static void *remove_region(void *ctx)
{
	struct remover *r = ctx;

	mrs_region_remove(r->address);
	mrs_store_release32(&r->done, 1);
	return NULL;
}

static void held_region_stays(void **state)
{
	struct mrs_region region = {.address = 1ull << 46, .bytes = PAGE}, found;
	struct remover r = {.address = 1ull << 46};
	uint32_t *hold;

	(void)state;
	assert_int_equal(mrs_region_add(&region), 0);
	assert_true(mrs_region_find(1ull << 46, &found, &hold));
	assert_int_equal(pthread_create(&r.thread, NULL, remove_region, &r), 0);
	usleep(20000);
	assert_int_equal(mrs_load_acquire32(&r.done), 0);
	mrs_region_release(hold);
	pthread_join(r.thread, NULL);
	assert_false(mrs_region_find(1ull << 46, &found, &hold));
}

/* ---- words ---- */

static void what_is_missing_is_said(void **state)
{
	struct rlimit limit, none = {0, 0};
	struct morsel_pool *pool = open_pool(0);

	(void)state;
	getrlimit(RLIMIT_NOFILE, &limit);
	none.rlim_max = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &none);
	assert_int_equal(morsel_pool_faults(pool), -EMFILE);
	assert_non_null(strstr(morsel_errormsg(), "RLIMIT_NOFILE"));
	setrlimit(RLIMIT_NOFILE, &limit);
	assert_true(morsel_pool_faults(pool) > 0);
	assert_int_equal(morsel_pool_close(pool), 0);
	assert_int_equal(morsel_pool_faults(NULL), -EINVAL);
}

/* ---- SIGBUS ---- */

static void errno_survives(void **state)
{
	struct fixture *f = *state;

	for (uint64_t i = 0; i < PAGES; i++) {
		errno = EDOM;
		assert_int_equal(*at(f, i), byte_of(i));
		assert_int_equal(errno, EDOM);
	}
}

static volatile int passed_on, passed_signal;

static void count_simple(int signal)
{
	passed_on++;
	passed_signal = signal;
}

static sigjmp_buf foreign_return;
static void *volatile foreign_address;

static void count_foreign(int signal, siginfo_t *info, void *context)
{
	sigset_t now;

	(void)context;
	passed_on++;
	foreign_address = info->si_addr;
	pthread_sigmask(SIG_SETMASK, NULL, &now);
	passed_signal = sigismember(&now, SIGUSR2) ? signal : -1;
	siglongjmp(foreign_return, 1);
}

/* A page of a file that was cut: SIGBUS that is nobody's but the application's. */
static char *cut_file(void)
{
	FILE *file = tmpfile();
	char *map;

	assert_non_null(file);
	assert_int_equal(ftruncate(fileno(file), PAGE), 0);
	map = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fileno(file), 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	assert_int_equal(ftruncate(fileno(file), 0), 0);
	fclose(file);
	return map;
}

/* In a child: the handler of a process is installed once. */
static int passes_to_former(void *ctx)
{
	struct sigaction action = {.sa_sigaction = count_foreign, .sa_flags = SA_SIGINFO};
	volatile char *cut = cut_file();
	struct fixture *f;

	(void)ctx;
	alarm(PATIENCE_S);
	sigemptyset(&action.sa_mask);
	sigaddset(&action.sa_mask, SIGUSR2);
	sigaction(SIGBUS, &action, NULL);
	f = view_new(MORSEL_FAULTS_SIGBUS);
	if (morsel_pool_faults(f->pool) != MORSEL_FAULT_SIGBUS)
		return 1;
	if (*at(f, 1) != byte_of(1) || passed_on)
		return 2;
	if (!sigsetjmp(foreign_return, 1))
		(void)*cut;
	if (passed_on != 1 || foreign_address != cut || passed_signal != SIGBUS)
		return 3;
	if (!sigsetjmp(foreign_return, 1))
		raise(SIGBUS);
	if (passed_on != 2)
		return 4;
	/* A lost page is the application's to hear of. */
	set(&fault.answer[6], (uint32_t)-EIO);
	if (!sigsetjmp(foreign_return, 1))
		(void)*at(f, 6);
	if (passed_on != 3 || foreign_address != (void *)at(f, 6))
		return 5;
	if (*at(f, 7) != byte_of(7))
		return 6;
	/* Somebody puts himself in front. */
	action = (struct sigaction){.sa_handler = count_simple};
	sigaction(SIGBUS, &action, NULL);
	if (morsel_pool_faults(f->pool) != MORSEL_FAULT_REPLACED)
		return 7;
	return 0;
}

static int simple_handler(void *ctx)
{
	struct fixture *f;

	(void)ctx;
	signal(SIGBUS, count_simple);
	f = view_new(MORSEL_FAULTS_SIGBUS);
	raise(SIGBUS);
	return passed_on == 1 && passed_signal == SIGBUS && *at(f, 1) == byte_of(1) ? 0 : 1;
}

static int ignored(void *ctx)
{
	struct fixture *f;

	alarm(PATIENCE_S);
	signal(SIGBUS, SIG_IGN);
	f = view_new(MORSEL_FAULTS_SIGBUS);
	raise(SIGBUS); /* is ignored */
	if (*at(f, 1) != byte_of(1))
		return 1;
	if (ctx)
		(void)*(volatile char *)cut_file(); /* cannot be */
	return 0;
}

static int dies_of(void *ctx)
{
	struct fixture *f;

	alarm(PATIENCE_S);
	signal(SIGBUS, SIG_DFL);
	f = view_new(MORSEL_FAULTS_SIGBUS);
	if (*at(f, 1) != byte_of(1))
		return 1;
	if (ctx)
		raise(SIGBUS);
	else
		(void)*(volatile char *)cut_file();
	return 0;
}

static void foreign_signals_are_passed_on(void **state)
{
	(void)state;
	assert_int_equal(support_in_child(passes_to_former, NULL), 0);
	assert_int_equal(support_in_child(simple_handler, NULL), 0);
	assert_int_equal(support_in_child(ignored, NULL), 0);
	assert_int_equal(support_in_child(ignored, &fault), 1000 + SIGBUS);
	assert_int_equal(support_in_child(dies_of, NULL), 1000 + SIGBUS);
	assert_int_equal(support_in_child(dies_of, &fault), 1000 + SIGBUS);
}

/* One handle by the thread, one by the signal, in one process. */
static void both_at_once(void **state)
{
	struct fixture *f = *state, *other = view_new(MORSEL_FAULTS_THREAD);

	for (uint64_t i = 0; i < PAGES; i++) {
		assert_int_equal(*at(f, i), byte_of(i));
		assert_int_equal(*at(other, i), byte_of(i));
	}
	view_end(other);
}

/* cmocka catches SIGBUS during each test; ours was installed before and is put in front again. */
static void by_sigbus(void **state)
{
	static struct sigaction ours;
	struct fixture *f = view_new(MORSEL_FAULTS_SIGBUS);
	void *fixture = f;

	if (!ours.sa_sigaction)
		sigaction(SIGBUS, NULL, &ours);
	sigaction(SIGBUS, &ours, NULL);
	assert_int_equal(morsel_pool_faults(f->pool), MORSEL_FAULT_SIGBUS);
	(*(CMUnitTestFunction *)*state)(&fixture);
	view_end(f);
}

#define BY_THREAD(test) cmocka_unit_test_setup_teardown(test, setup_thread, teardown)
#define BY_SIGBUS(test)                                                          \
	{                                                                        \
#test "_by_sigbus", by_sigbus, NULL, NULL, &(CMUnitTestFunction) \
		{                                                                \
			test                                                     \
		}                                                                \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		/* Before this process installs a handler of its own. */
		cmocka_unit_test(foreign_signals_are_passed_on),
		cmocka_unit_test(without_privilege),
		cmocka_unit_test(what_is_missing_is_said),
		cmocka_unit_test(regions_are_found),
		cmocka_unit_test(held_region_stays),
		BY_THREAD(missing_pages_come),
		BY_THREAD(a_touch_asks_once),
		BY_THREAD(protection_is_lifted),
		BY_THREAD(many_threads),
		BY_THREAD(failures_are_retried),
		BY_THREAD(lost_page_is_told),
		BY_THREAD(locked_page_waits_alone),
		BY_THREAD(system_calls),
		BY_THREAD(mode_is_told),
		BY_THREAD(unknown_region_is_woken),
		BY_THREAD(fork_begins_anew),
		BY_SIGBUS(missing_pages_come),
		BY_SIGBUS(protection_is_lifted),
		BY_SIGBUS(many_threads),
		BY_SIGBUS(failures_are_retried),
		BY_SIGBUS(lost_page_is_told),
		BY_SIGBUS(system_calls),
		BY_SIGBUS(errno_survives),
		BY_SIGBUS(both_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
