/*
 * The pager's desk: who is connected, whose descriptor is here, and what is done with the
 * descriptors.
 *
 * A descriptor belongs to a slot and its generation, so that a slot's next process is never taken
 * for the one before. It is used under the desk's lock, and dropped when its connection hangs up,
 * which the kernel does at the latest when the process dies.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/base.h"
#include "base/probe.h"
#include "pool/internal.h"
#include "view/office.h"

#define HANDSHAKE_NS 5000000000ll
#define GLANCE_MS    500 /* how often to look for handshakes that take too long */
#define FULL_MS	     100 /* how long the listener rests without descriptors */

void mrs_desk_init(struct mrs_desk *desk)
{
	memset(desk->of_slot, 0, sizeof(desk->of_slot));
	for (unsigned i = 0; i < MRS_CALLERS; i++)
		desk->caller[i] = (struct mrs_caller){.fd = -1, .uffd = -1};
	desk->full = false;
}

static void close_both(struct mrs_caller *caller)
{
	mrs_fork_hold();
	if (caller->uffd >= 0)
		close(caller->uffd);
	if (caller->fd >= 0)
		close(caller->fd);
	*caller = (struct mrs_caller){.fd = -1, .uffd = -1};
	mrs_fork_release();
}

/* Under the lock. */
static void drop_caller(struct mrs_desk *desk, struct mrs_caller *caller)
{
	unsigned index = (unsigned)(caller - desk->caller);

	if (caller->admitted && desk->of_slot[caller->session.slot] == index + 1)
		desk->of_slot[caller->session.slot] = 0;
	close_both(caller);
}

void mrs_desk_clear(struct mrs_desk *desk)
{
	pthread_mutex_lock(&desk->lock);
	for (unsigned i = 0; i < MRS_CALLERS; i++)
		if (desk->caller[i].fd >= 0)
			drop_caller(desk, &desk->caller[i]);
	free(desk->cache.view);
	desk->cache = (struct mrs_view_cache){0};
	pthread_mutex_unlock(&desk->lock);
}

void mrs_desk_in_child(struct mrs_desk *desk)
{
	for (unsigned i = 0; i < MRS_CALLERS; i++) {
		if (desk->caller[i].uffd >= 0)
			close(desk->caller[i].uffd);
		if (desk->caller[i].fd >= 0)
			close(desk->caller[i].fd);
	}
}

/* ---- callers ---- */

/* Who came first and has shown nothing makes room. Under the lock. */
static struct mrs_caller *free_caller(struct mrs_desk *desk)
{
	struct mrs_caller *oldest = NULL;

	for (unsigned i = 0; i < MRS_CALLERS; i++) {
		struct mrs_caller *caller = &desk->caller[i];

		if (caller->fd < 0)
			return caller;
		if (!caller->admitted && (!oldest || caller->since_ns < oldest->since_ns))
			oldest = caller;
	}
	if (oldest)
		drop_caller(desk, oldest);
	return oldest;
}

static void take_callers(struct mrs_pager *pager)
{
	struct mrs_desk *desk = &pager->desk;
	struct mrs_caller *caller;
	int fd = 0;

	while (fd >= 0) {
		pthread_mutex_lock(&desk->lock);
		caller = free_caller(desk);
		mrs_fork_hold();
		fd = caller ? accept4(pager->office.listener, NULL, NULL,
				      SOCK_CLOEXEC | SOCK_NONBLOCK)
			    : -1;
		if (fd >= 0)
			*caller =
				(struct mrs_caller){.fd = fd, .uffd = -1, .since_ns = mrs_now_ns()};
		desk->full = fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM);
		mrs_fork_release();
		pthread_mutex_unlock(&desk->lock);
	}
	if (desk->full)
		mrs_log(MRS_LOG_WARN,
			"the pager of %s has no descriptor left for one more process "
			"(RLIMIT_NOFILE): its pages are not evicted",
			pager->part.pool->path);
}

/* Its descriptor counts from here on; an earlier one of the slot goes. Under the lock. */
static void admit(struct mrs_desk *desk, struct mrs_caller *caller)
{
	unsigned slot = caller->session.slot;

	if (desk->of_slot[slot])
		drop_caller(desk, &desk->caller[desk->of_slot[slot] - 1]);
	desk->of_slot[slot] = (uint16_t)(caller - desk->caller + 1);
	caller->admitted = true;
}

/* One packet of a caller, or its end. */
static void hear(struct mrs_pager *pager, struct mrs_caller *caller)
{
	struct morsel_pool *pool = pager->part.pool;
	struct mrs_desk *desk = &pager->desk;
	uint64_t word = pager->office.word;
	bool admitted = caller->admitted;
	int rc;

	pthread_mutex_lock(&desk->lock);
	if (admitted) {
		rc = -EPIPE; /* who has been admitted says nothing more until it hangs up */
	} else if (caller->session.kind == MRS_PACKET_ANSWER) {
		rc = mrs_handover_accept(pool, word, caller->fd, &caller->session, &caller->uffd);
		if (!rc) {
			admit(desk, caller);
			rc = mrs_handover_admit(caller->fd);
		}
	} else {
		rc = mrs_handover_answer(pool, word, caller->fd, &caller->session);
	}
	if (rc && rc != -EAGAIN)
		drop_caller(desk, caller);
	pthread_mutex_unlock(&desk->lock);
	if (admitted && rc == -EPIPE)
		mrs_work_reap(&pager->work);
	else if (rc == -EPERM)
		mrs_log(MRS_LOG_WARN, "a stranger has called on the pager of %s", pool->path);
}

/* How long to wait for events: handshakes end some day. */
static int patience(struct mrs_desk *desk)
{
	int64_t now = mrs_now_ns();
	int ms = desk->full ? FULL_MS : -1;

	pthread_mutex_lock(&desk->lock);
	for (unsigned i = 0; i < MRS_CALLERS; i++) {
		struct mrs_caller *caller = &desk->caller[i];

		if (caller->fd < 0 || caller->admitted)
			continue;
		if (now - caller->since_ns > HANDSHAKE_NS)
			drop_caller(desk, caller);
		else if (ms < 0)
			ms = GLANCE_MS;
	}
	pthread_mutex_unlock(&desk->lock);
	return ms;
}

/* Only this thread takes and drops callers: what is polled is still there after. */
void mrs_desk_serve(struct mrs_pager *pager)
{
	struct mrs_desk *desk = &pager->desk;
	struct pollfd from[MRS_CALLERS + 2];
	uint16_t who[MRS_CALLERS + 2];
	uint64_t rung;
	int ms;

	while (!mrs_load_acquire32(&pager->stopping)) {
		nfds_t count = 2;

		ms = patience(desk);
		from[0] = (struct pollfd){.fd = pager->bell, .events = POLLIN};
		from[1] = (struct pollfd){.fd = desk->full ? -1 : pager->office.listener,
					  .events = POLLIN};
		for (uint16_t i = 0; i < MRS_CALLERS; i++)
			if (desk->caller[i].fd >= 0) {
				who[count] = i;
				from[count++] =
					(struct pollfd){.fd = desk->caller[i].fd, .events = POLLIN};
			}
		desk->full = false;
		if (poll(from, count, ms) <= 0)
			continue;
		if (from[0].revents && read(pager->bell, &rung, sizeof(rung)) < 0)
			rung = 0;
		for (nfds_t i = 2; i < count; i++)
			if (from[i].revents && desk->caller[who[i]].fd == from[i].fd)
				hear(pager, &desk->caller[who[i]]);
		if (from[1].revents)
			take_callers(pager);
	}
}
