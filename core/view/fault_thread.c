/*
 * The fault thread: reads the userfaultfd of one pool handle and has each touched page brought
 * back.
 *
 * It reads many events at once; several touches of one page are one fault. A page whose leaf
 * somebody has locked is put aside and tried again, so that the faults of other pages do not wait
 * for it. The threads that touched stay asleep until the page is filled, for only the fill wakes
 * them.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
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

struct waiting {
	uint64_t address;
	unsigned kind; /* enum mrs_fault_kind */
	bool told;     /* the log has been told why it is not served */
};

struct server {
	struct mrs_faults *faults;
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

/* False when the thread is to end. */
static bool wait_for_events(struct server *server)
{
	struct pollfd from[2] = {
		{.fd = server->fd, .events = POLLIN},
		{.fd = server->faults->thread.stop_fd, .events = POLLIN},
	};
	struct timespec rest = {.tv_nsec = server->rest_ns};

	ppoll(from, 2, server->count ? &rest : NULL, NULL);
	return !from[1].revents;
}

static void *fault_thread(void *ctx)
{
	struct server *server = ctx;

	server->rest_ns = RETRY_MIN_NS;
	do {
		if (read_events(server))
			server->rest_ns = RETRY_MIN_NS;
		else
			server->rest_ns = mrs_min(server->rest_ns * 2, RETRY_MAX_NS);
		serve_all(server);
	} while (wait_for_events(server));
	free(server);
	return NULL;
}

/* ---- start and end ---- */

static int start_failed(int rc, struct server *server, int stop_fd)
{
	if (stop_fd >= 0)
		close(stop_fd);
	free(server);
	return mrs_fail_errno(rc, "cannot start the thread that serves faults");
}

int mrs_fault_thread_start(struct mrs_faults *faults)
{
	struct server *server = calloc(1, sizeof(*server));
	int stop_fd, rc;
	sigset_t all, before;

	if (!server)
		return start_failed(-ENOMEM, NULL, -1);
	server->faults = faults;
	server->fd = (int)faults->fd_plus_1 - 1;
	mrs_fork_hold();
	stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = -errno;
	faults->thread.stop_fd = stop_fd;
	faults->thread.runs = stop_fd >= 0;
	mrs_fork_release();
	if (stop_fd < 0)
		return start_failed(rc, server, -1);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = -pthread_create(&faults->thread.thread, NULL, fault_thread, server);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!rc)
		return 0;
	mrs_fork_hold();
	faults->thread.runs = false;
	mrs_fork_release();
	return start_failed(rc, server, stop_fd);
}

void mrs_fault_thread_stop(struct mrs_faults *faults)
{
	uint64_t one = 1;

	if (!faults->thread.runs)
		return;
	while (write(faults->thread.stop_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	pthread_join(faults->thread.thread, NULL);
	mrs_fork_hold();
	faults->thread.runs = false;
	close(faults->thread.stop_fd);
	mrs_fork_release();
}
