/*
 * Fault threads: they read the userfaultfd of one pool handle and have each touched page brought
 * back.
 *
 * A thread reads many events at once; several touches of one page are one fault. A page whose leaf
 * somebody has locked is put aside and tried again, so that other pages' faults do not wait for it.
 * The threads that touched stay asleep until the page is filled, for only the fill wakes them.
 * There is one such thread until events wait for it while it is busy; then there are more, up to a
 * few.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/base.h"
#include "base/compat.h"
#include "view/pager.h"
#include "view/uffd.h"

#define EVENTS_AT_ONCE 64
#define WAITING_MAX    4096    /* pages put aside; one more is waited for */
#define RETRY_MIN_NS   50000   /* how long what was put aside rests at first, */
#define RETRY_MAX_NS   5000000 /* and at last */

enum { EVENT_FAULT = 1, EVENT_STOP };

struct waiting {
	uint64_t address;
	unsigned kind; /* enum mrs_fault_kind */
	bool told;     /* the log has been told why it is not served */
};

struct server {
	struct mrs_faults *faults;
	struct mrs_fault_threads *threads;
	int fd;
	struct waiting waiting[WAITING_MAX];
	unsigned count;
	int64_t rest_ns;
};

/* ---- events ---- */

/* What a page is touched for twice is done for the stronger touch: MISSING < WRITE < PROTECTED. */
static void note(struct server *server, uint64_t address, unsigned kind)
{
	for (unsigned i = 0; i < server->count; i++)
		if (server->waiting[i].address == address) {
			server->waiting[i].kind = mrs_max(server->waiting[i].kind, kind);
			return;
		}
	server->waiting[server->count++] = (struct waiting){.address = address, .kind = kind};
}

static unsigned kind_of(const struct uffd_msg *event)
{
	if (event->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP)
		return MRS_FAULT_PROTECTED;
	return event->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE ? MRS_FAULT_WRITE
								      : MRS_FAULT_MISSING;
}

/* How many events there were. */
static unsigned read_events(struct server *server)
{
	struct uffd_msg event[EVENTS_AT_ONCE];
	unsigned room = mrs_min(EVENTS_AT_ONCE, WAITING_MAX - server->count), count = 0;
	ssize_t got = room ? read(server->fd, event, room * sizeof(*event)) : 0;

	if (got > 0)
		count = (unsigned)((size_t)got / sizeof(*event));
	for (unsigned i = 0; i < count; i++)
		if (event[i].event == UFFD_EVENT_PAGEFAULT)
			note(server, mrs_round_down(event[i].arg.pagefault.address, MRS_PAGE_BYTES),
			     kind_of(&event[i]));
	return count;
}

/* ---- serving ---- */

/* True when nothing is left to do for it. */
static bool serve(struct server *server, struct waiting *fault)
{
	struct mrs_region region;
	uint32_t *hold;
	int rc;

	if (!mrs_region_find(fault->address, &region, &hold)) {
		/* Unmapped meanwhile: who still waits is to see that. */
		mrs_uffd_wake(server->fd, fault->address, MRS_PAGE_BYTES);
		return true;
	}
	rc = mrs_region_fault(&region, server->fd, fault->address,
			      fault->kind | (server->count < WAITING_MAX ? MRS_FAULT_TRY : 0));
	mrs_region_release(hold);
	if (rc == -EIO || rc == -ERANGE) {
		mrs_uffd_refuse(server->fd, fault->address);
		return true;
	}
	if (rc && rc != -EAGAIN && !fault->told) {
		mrs_log(MRS_LOG_WARN, "a fault at page %llu of a view cannot be served now: %s",
			(unsigned long long)((fault->address - region.address) / MRS_PAGE_BYTES),
			strerror(-rc));
		fault->told = true;
	}
	return !rc;
}

static void serve_all(struct server *server)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < server->count; i++)
		if (!serve(server, &server->waiting[i]))
			server->waiting[kept++] = server->waiting[i];
	server->count = kept;
}

/* ---- one thread ---- */

/* True if there may be events, false when the time is over or the thread is to end. */
static bool wait_for_events(struct server *server)
{
	struct timespec rest = {.tv_nsec = server->rest_ns};
	struct epoll_event event = {0};
	int count = epoll_pwait2(server->threads->epoll_fd, &event, 1, server->count ? &rest : NULL,
				 NULL);

	/* Linux before 5.11: to the millisecond. */
	if (count < 0 && errno == ENOSYS)
		count = epoll_wait(server->threads->epoll_fd, &event, 1, server->count ? 1 : -1);
	return count > 0 && event.data.u32 == EVENT_FAULT;
}

static int start_one(struct mrs_faults *faults);

/*
 * Edge-triggered: an event that comes while one thread is at work wakes another. Who finds events
 * without having slept, or more than one page, has too much to do.
 */
static void *fault_thread(void *ctx)
{
	struct server *server = ctx;
	bool slept = true;

	prctl(PR_SET_NAME, "morsel-faults");
	while (!mrs_load_acquire32(&server->threads->stopping)) {
		unsigned count = read_events(server);

		if (count)
			server->rest_ns = RETRY_MIN_NS;
		else
			server->rest_ns = mrs_min(server->rest_ns * 2, RETRY_MAX_NS);
		if (count && (!slept || server->count > 1))
			start_one(server->faults);
		serve_all(server);
		slept = !count;
		if (slept)
			wait_for_events(server);
	}
	free(server);
	return NULL;
}

/* ---- start and end ---- */

/* One more, if there may be. 0 or -errno. */
static int start_one(struct mrs_faults *faults)
{
	struct mrs_fault_threads *threads = &faults->threads;
	struct server *server;
	sigset_t all, before;
	int rc = 0;

	if (mrs_load_relaxed32(&threads->count) == MRS_FAULT_THREADS)
		return 0;
	server = calloc(1, sizeof(*server));
	if (!server)
		return -ENOMEM;
	server->faults = faults;
	server->threads = threads;
	server->fd = (int)faults->fd_plus_1 - 1;
	server->rest_ns = RETRY_MIN_NS;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_mutex_lock(&threads->lock);
	if (threads->count == MRS_FAULT_THREADS || threads->stopping)
		rc = -EBUSY;
	else
		rc = -pthread_create(&threads->thread[threads->count], NULL, fault_thread, server);
	if (!rc)
		mrs_store_relaxed32(&threads->count, threads->count + 1);
	else
		free(server);
	pthread_mutex_unlock(&threads->lock);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc;
}

/* Noted before a fork can pass them on. */
static int open_descriptors(struct mrs_faults *faults)
{
	struct mrs_fault_threads *threads = &faults->threads;
	struct epoll_event fault = {.events = EPOLLIN | EPOLLET, .data.u32 = EVENT_FAULT};
	struct epoll_event stop = {.events = EPOLLIN, .data.u32 = EVENT_STOP};
	int rc = 0;

	mrs_fork_hold();
	threads->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	threads->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (threads->stop_fd < 0 || threads->epoll_fd < 0 ||
	    epoll_ctl(threads->epoll_fd, EPOLL_CTL_ADD, (int)faults->fd_plus_1 - 1, &fault) ||
	    epoll_ctl(threads->epoll_fd, EPOLL_CTL_ADD, threads->stop_fd, &stop))
		rc = -errno;
	mrs_fork_release();
	return rc;
}

void mrs_fault_threads_in_child(struct mrs_faults *faults)
{
	if (faults->threads.stop_fd >= 0)
		close(faults->threads.stop_fd);
	if (faults->threads.epoll_fd >= 0)
		close(faults->threads.epoll_fd);
	faults->threads.stop_fd = faults->threads.epoll_fd = -1;
}

static void close_descriptors(struct mrs_faults *faults)
{
	mrs_fork_hold();
	mrs_fault_threads_in_child(faults);
	mrs_fork_release();
}

int mrs_fault_threads_start(struct mrs_faults *faults)
{
	int rc = open_descriptors(faults);

	if (!rc)
		rc = start_one(faults);
	if (!rc)
		return 0;
	close_descriptors(faults);
	return mrs_fail_errno(rc, "cannot start the thread that serves faults");
}

void mrs_fault_threads_stop(struct mrs_faults *faults)
{
	struct mrs_fault_threads *threads = &faults->threads;
	uint64_t one = 1;

	pthread_mutex_lock(&threads->lock);
	mrs_store_release32(&threads->stopping, 1);
	pthread_mutex_unlock(&threads->lock);
	/* It is never read: every thread sees it. */
	while (threads->stop_fd >= 0 && write(threads->stop_fd, &one, sizeof(one)) < 0 &&
	       errno == EINTR)
		;
	for (unsigned i = 0; i < threads->count; i++)
		pthread_join(threads->thread[i], NULL);
	threads->count = 0;
	threads->stopping = 0;
	close_descriptors(faults);
}
