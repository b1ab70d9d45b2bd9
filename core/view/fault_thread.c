/*
 * Fault threads: they read the userfaultfd of one pool handle and have each touched page brought
 * back.
 *
 * One thread at a time reads (the others, if any, sleep until it lets them), many events at once;
 * several touches of one page are one fault. A reader that has more than one page to serve lets
 * another read meanwhile; one whose last page took long does so if others were waiting by then,
 * for a while: where one thread alone touches, handing over would only cost. A page whose leaf
 * somebody has locked is put aside, where one thread tries it again and again, so that other pages'
 * faults do not wait for it. Who touched stays asleep until the page is filled, for only the fill
 * wakes him.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/base.h"
#include "base/compat.h"
#include "pool/internal.h"
#include "view/pager.h"
#include "view/uffd.h"

#define EVENTS_AT_ONCE 64
#define LONG_NS	       100000  /* a fault that took longer may do so again */
#define CROWD	       64      /* slow faults until it is found out anew whether others wait */
#define RETRY_MIN_NS   50000   /* how long what was put aside rests at first, */
#define RETRY_MAX_NS   5000000 /* and at last */

/* ---- what is put aside ---- */

/* What a page is touched for twice is done for the stronger touch: MISSING < WRITE < PROTECTED. */
static bool note(struct mrs_fault_touch *list, unsigned *count, const struct mrs_fault_touch *touch)
{
	for (unsigned i = 0; i < *count; i++)
		if (list[i].address == touch->address) {
			list[i].kind = mrs_max(list[i].kind, touch->kind);
			return true;
		}
	if (*count == MRS_FAULTS_ASIDE)
		return false;
	list[(*count)++] = *touch;
	return true;
}

static int start_thread(struct mrs_faults *faults, void *(*run)(void *));
static void *retry_thread(void *ctx);

/* False if there is no room, or nobody to try it again. */
static bool put_aside(struct mrs_faults *faults, const struct mrs_fault_touch *touch)
{
	struct mrs_fault_threads *threads = &faults->threads;
	bool noted;

	pthread_mutex_lock(&threads->lock);
	if (!threads->retries && !threads->stopping)
		threads->retries = !start_thread(faults, retry_thread);
	noted = threads->retries && note(threads->aside, &threads->asides, touch);
	pthread_cond_signal(&threads->put_aside);
	pthread_mutex_unlock(&threads->lock);
	return noted;
}

/* ---- serving ---- */

static void tell(const struct mrs_region *region, struct mrs_fault_touch *touch, int rc)
{
	if (!touch->told)
		mrs_log(MRS_LOG_WARN, "a fault at page %llu of a view cannot be served now: %s",
			(unsigned long long)((touch->address - region->address) / MRS_PAGE_BYTES),
			rc == -EBUSY ? morsel_errormsg() : strerror(-rc));
	touch->told = true;
}

/* True when nothing is left to do for it. */
static bool serve(struct mrs_faults *faults, struct mrs_fault_touch *touch, unsigned try)
{
	int fd = (int)faults->fd_plus_1 - 1, rc;
	struct mrs_region region;
	uint32_t *hold;

	if (!mrs_region_find(touch->address, &region, &hold)) {
		/* Unmapped meanwhile: who still waits is to see that. */
		mrs_uffd_wake(fd, touch->address, MRS_PAGE_BYTES);
		return true;
	}
	rc = mrs_region_fault(&region, fd, touch->address, touch->kind | try);
	mrs_region_release(hold);
	if (rc == -EIO || rc == -ERANGE) {
		mrs_uffd_refuse(fd, touch->address);
		return true;
	}
	if (rc && rc != -EAGAIN)
		tell(&region, touch, rc);
	return !rc;
}

static void serve_or_put_aside(struct mrs_faults *faults, struct mrs_fault_touch *touch)
{
	if (serve(faults, touch, MRS_FAULT_TRY))
		return;
	while (!put_aside(faults, touch) && !mrs_load_acquire32(&faults->threads.stopping) &&
	       !serve(faults, touch, 0))
		mrs_sleep_ns(RETRY_MIN_NS);
}

/* ---- the thread that tries again ---- */

/* Takes all that there is; waits for some. */
static unsigned take_aside(struct mrs_fault_threads *threads, struct mrs_fault_touch *list)
{
	unsigned count;

	pthread_mutex_lock(&threads->lock);
	while (!threads->asides && !mrs_load_acquire32(&threads->stopping))
		pthread_cond_wait(&threads->put_aside, &threads->lock);
	count = threads->asides;
	memcpy(list, threads->aside, count * sizeof(*list));
	threads->asides = 0;
	pthread_mutex_unlock(&threads->lock);
	return count;
}

static void *retry_thread(void *ctx)
{
	struct mrs_faults *faults = ctx;
	struct mrs_fault_threads *threads = &faults->threads;
	struct mrs_fault_touch list[MRS_FAULTS_ASIDE];
	int64_t rest = RETRY_MIN_NS;
	unsigned count, served;

	prctl(PR_SET_NAME, "morsel-faults+");
	while (!mrs_load_acquire32(&threads->stopping)) {
		count = take_aside(threads, list);
		mrs_sleep_ns(rest);
		served = 0;
		for (unsigned i = 0; i < count; i++)
			if (serve(faults, &list[i], MRS_FAULT_TRY))
				served++;
			else if (!put_aside(faults, &list[i]))
				serve(faults, &list[i], 0);
		rest = served ? RETRY_MIN_NS : mrs_min(rest * 2, RETRY_MAX_NS);
		/* Whoever has the leaves locked may be dead. */
		if (rest == RETRY_MAX_NS)
			mrs_reap_repair(faults->part.pool);
	}
	return NULL;
}

/* ---- the threads that read ---- */

static void *read_thread(void *ctx);

static void futex(uint32_t *word, int op, uint32_t value)
{
	syscall(SYS_futex, word, op | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

/* threads->reader: 0 nobody, 1 somebody reads, 2 and others sleep. */
static void begin_reading(struct mrs_fault_threads *threads)
{
	uint32_t seen = 0;

	if (mrs_cas32(&threads->reader, &seen, 1))
		return;
	while (mrs_swap32(&threads->reader, 2))
		futex(&threads->reader, FUTEX_WAIT, 2);
}

/* Somebody else reads now: who sleeps, or one more thread. */
static void let_read(struct mrs_faults *faults, bool more)
{
	struct mrs_fault_threads *threads = &faults->threads;

	if (mrs_swap32(&threads->reader, 0) == 2) {
		futex(&threads->reader, FUTEX_WAKE, 1);
	} else if (more && mrs_load_relaxed32(&threads->readers) < MRS_FAULT_READERS) {
		pthread_mutex_lock(&threads->lock);
		if (threads->readers < MRS_FAULT_READERS && !threads->stopping &&
		    !start_thread(faults, read_thread))
			mrs_store_relaxed32(&threads->readers, threads->readers + 1);
		pthread_mutex_unlock(&threads->lock);
	}
}

static unsigned kind_of(const struct uffd_msg *event)
{
	if (event->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP)
		return MRS_FAULT_PROTECTED;
	return event->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE ? MRS_FAULT_WRITE
								      : MRS_FAULT_MISSING;
}

/* Waits for events; the pages that were touched, each once. */
static unsigned read_touches(int fd, struct mrs_fault_touch *touch)
{
	struct uffd_msg event[EVENTS_AT_ONCE];
	ssize_t got = read(fd, event, sizeof(event));
	unsigned count = 0;

	for (ssize_t i = 0; i < got / (ssize_t)sizeof(*event); i++) {
		struct mrs_fault_touch one = {
			.address = mrs_round_down(event[i].arg.pagefault.address, MRS_PAGE_BYTES),
			.kind = kind_of(&event[i]),
		};

		if (event[i].event == UFFD_EVENT_PAGEFAULT)
			note(touch, &count, &one);
	}
	return count;
}

/* The end's own touch is answered by whoever ends. */
static void answer_end(struct mrs_faults *faults)
{
	struct uffdio_zeropage zero = {
		.range = {(uintptr_t)faults->threads.end_page, MRS_PAGE_BYTES}};

	ioctl((int)faults->fd_plus_1 - 1, UFFDIO_ZEROPAGE, &zero);
}

static bool is_waited_for(int fd)
{
	struct pollfd ready = {.fd = fd, .events = POLLIN};

	return poll(&ready, 1, 0) > 0;
}

static void *read_thread(void *ctx)
{
	struct mrs_faults *faults = ctx;
	struct mrs_fault_threads *threads = &faults->threads;
	struct mrs_fault_touch touch[EVENTS_AT_ONCE];
	unsigned crowd = 0;
	bool slow = false;

	prctl(PR_SET_NAME, "morsel-faults");
	begin_reading(threads);
	while (!mrs_load_acquire32(&threads->stopping)) {
		unsigned count = read_touches((int)faults->fd_plus_1 - 1, touch);
		bool shared = (slow && crowd) || count > 1;
		int64_t start;

		if (mrs_load_acquire32(&threads->stopping))
			break;
		if (shared)
			let_read(faults, true);
		start = mrs_now_ns();
		for (unsigned i = 0; i < count; i++)
			serve_or_put_aside(faults, &touch[i]);
		slow = count && mrs_now_ns() - start > (int64_t)count * LONG_NS;
		crowd -= slow && crowd;
		if (shared)
			begin_reading(threads);
		else if (slow && is_waited_for((int)faults->fd_plus_1 - 1))
			crowd = CROWD;
	}
	answer_end(faults);
	let_read(faults, false);
	return NULL;
}

/* ---- start and end ---- */

/* Under the lock. */
static int start_thread(struct mrs_faults *faults, void *(*run)(void *))
{
	struct mrs_fault_threads *threads = &faults->threads;
	sigset_t all, before;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = -pthread_create(&threads->thread[threads->count], NULL, run, faults);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	threads->count += !rc;
	return rc;
}

/*
 * A reader waits in read(), where only a touch wakes it: so there is a page that is touched for
 * nothing else.
 */
static int make_end_page(struct mrs_faults *faults)
{
	struct uffdio_register range = {.mode = UFFDIO_REGISTER_MODE_MISSING};
	int fd = (int)faults->fd_plus_1 - 1;
	void *page = mmap(NULL, MRS_PAGE_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return -errno;
	range.range = (struct uffdio_range){(uintptr_t)page, MRS_PAGE_BYTES};
	if (madvise(page, MRS_PAGE_BYTES, MADV_DONTFORK) || ioctl(fd, UFFDIO_REGISTER, &range) ||
	    fcntl(fd, F_SETFL, 0)) {
		int rc = -errno;

		munmap(page, MRS_PAGE_BYTES);
		return rc;
	}
	faults->threads.end_page = page;
	return 0;
}

static void drop_end_page(struct mrs_faults *faults)
{
	if (faults->threads.end_page)
		munmap(faults->threads.end_page, MRS_PAGE_BYTES);
	faults->threads.end_page = NULL;
}

int mrs_fault_threads_start(struct mrs_faults *faults)
{
	struct mrs_fault_threads *threads = &faults->threads;
	int rc = make_end_page(faults);

	if (!rc) {
		pthread_mutex_lock(&threads->lock);
		rc = start_thread(faults, read_thread);
		mrs_store_relaxed32(&threads->readers, !rc);
		pthread_mutex_unlock(&threads->lock);
	}
	if (!rc)
		return 0;
	drop_end_page(faults);
	return mrs_fail_errno(rc, "cannot start the thread that serves faults");
}

void mrs_fault_threads_stop(struct mrs_faults *faults)
{
	struct mrs_fault_threads *threads = &faults->threads;

	if (!threads->end_page)
		return;
	pthread_mutex_lock(&threads->lock);
	mrs_store_release32(&threads->stopping, 1);
	pthread_cond_broadcast(&threads->put_aside);
	pthread_mutex_unlock(&threads->lock);
	(void)*(volatile char *)threads->end_page;
	/* Nobody starts one any more. */
	for (unsigned i = 0; i < threads->count; i++)
		pthread_join(threads->thread[i], NULL);
	threads->count = 0;
	drop_end_page(faults);
}
