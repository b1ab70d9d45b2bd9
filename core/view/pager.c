/*
 * The keeper: the thread of a handle that sees to it that the pool has a pager, and that it has our
 * descriptor; and, once elected, the thread that receives the others. See office.h for its states.
 *
 * It takes no lock of the pool and begins no transition, so that it answers whatever the rest of
 * its process is waiting for.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <morsel/pager.h>

#include "base/atomic.h"
#include "base/base.h"
#include "base/probe.h"
#include "pool/internal.h"
#include "view/office.h"

#define ANSWER_NS   2000000000ll /* how long a pager may take to answer */
#define ENSURE_NS   3000000000ll /* how long who makes a view waits for a pager */
#define REST_MIN_NS 1000000ll
#define REST_MAX_NS 200000000ll

struct mrs_pager *mrs_pager_of(struct morsel_pool *pool)
{
	return (struct mrs_pager *)mrs_pool_part(pool, MRS_PART_PAGER);
}

static void ring(struct mrs_pager *pager)
{
	uint64_t one = 1;

	while (write(pager->bell, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static bool is_stopping(struct mrs_pager *pager)
{
	return mrs_load_acquire32(&pager->stopping);
}

/* Waits until fd (-1: nothing) has something, the bell rings (1), or the time is over (-ETIMEDOUT).
 */
static int wait_for(struct mrs_pager *pager, int fd, int64_t ns)
{
	struct pollfd from[2] = {
		{.fd = pager->bell, .events = POLLIN},
		{.fd = fd, .events = POLLIN},
	};
	struct timespec time = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
	uint64_t rung;
	int rc = ppoll(from, 2, ns < 0 ? NULL : &time, NULL);

	if (rc > 0 && from[0].revents && read(pager->bell, &rung, sizeof(rung)) > 0 &&
	    !from[1].revents)
		return 1;
	return rc ? 0 : -ETIMEDOUT;
}

/* ---- states ---- */

static void set_state(struct mrs_pager *pager, enum mrs_keeper_state state, int handed_over)
{
	pthread_mutex_lock(&pager->lock);
	pager->state = state;
	pager->handed_over = handed_over;
	if (state != MRS_KEEPER_AWAY)
		pager->failures = 0;
	mrs_store_release32(&pager->in_office, state == MRS_KEEPER_IN_OFFICE);
	/* For people: object/who.c. */
	mrs_store_relaxed32(
		&mrs_pool_slot(pager->part.pool, mrs_pool_own_slot(pager->part.pool))->mail.flags,
		state != MRS_KEEPER_AWAY && handed_over >= 0);
	pthread_cond_broadcast(&pager->changed);
	pthread_mutex_unlock(&pager->lock);
}

static void note_failure(struct mrs_pager *pager, const char *why)
{
	pthread_mutex_lock(&pager->lock);
	snprintf(pager->why, sizeof(pager->why), "%s", why);
	pager->failures++;
	pthread_cond_broadcast(&pager->changed);
	pthread_mutex_unlock(&pager->lock);
}

static void hang_up(struct mrs_pager *pager)
{
	mrs_fork_hold();
	if (pager->call >= 0)
		close(pager->call);
	pager->call = -1;
	mrs_fork_release();
}

/* ---- calling on the pager ---- */

static int wait_for_answer(struct mrs_pager *pager, int64_t end)
{
	int rc = 1;

	while (rc == 1 && !is_stopping(pager))
		rc = wait_for(pager, pager->call, mrs_max(end - mrs_now_ns(), 0));
	return is_stopping(pager) ? -ECANCELED : rc;
}

/* -EAGAIN: nobody is there now, but somebody is about to be. */
static int hand_over(struct mrs_pager *pager, uint64_t word, int uffd)
{
	struct morsel_pool *pool = pager->part.pool;
	int64_t end = mrs_now_ns() + ANSWER_NS;
	struct mrs_packet hello;
	int rc = mrs_office_call(pool, word, &pager->call);

	if (rc)
		return rc == -ECONNREFUSED ? -EAGAIN : rc;
	rc = mrs_handover_hello(pool, pager->call, &hello);
	if (!rc)
		rc = wait_for_answer(pager, end);
	if (!rc)
		rc = mrs_handover_proof(pool, word, pager->call, &hello, uffd);
	if (!rc)
		rc = wait_for_answer(pager, end);
	if (!rc)
		rc = mrs_handover_done(pager->call);
	return rc;
}

static void explain(struct mrs_pager *pager, uint64_t word, int rc)
{
	struct morsel_pool *pool = pager->part.pool;
	unsigned slot = (unsigned)(word & 0xffff) - 1;
	struct mrs_slot *shared = slot < MRS_SLOTS ? mrs_pool_slot(pool, slot) : NULL;
	char why[256];

	snprintf(why, sizeof(why), "the pager of %s, process %u (%.31s), %s", pool->path,
		 shared ? shared->pid : 0, shared ? shared->program : "?",
		 rc == -ETIMEDOUT ? "does not answer: is it stopped? Continue it or end it"
		 : rc == -EPERM	  ? "cannot show that it has the pool"
				  : strerror(-rc));
	note_failure(pager, why);
}

/* 0: connected, and then hung up. */
static int call_on_pager(struct mrs_pager *pager)
{
	struct morsel_pool *pool = pager->part.pool;
	/* Pairs with the release in announce(): its secret is there. */
	uint64_t word = mrs_load_acquire(&mrs_pool_state(pool)->pager);
	int uffd = mrs_uffd_fd(pool), rc = -EAGAIN;

	if (word & 0xffff)
		rc = hand_over(pager, word, uffd);
	if (!rc) {
		MRS_PROBE("view.pager.connected");
		set_state(pager, MRS_KEEPER_CONNECTED, uffd);
		while (wait_for(pager, pager->call, -1) == 1 && !is_stopping(pager) &&
		       mrs_uffd_fd(pool) == uffd)
			;
		set_state(pager, MRS_KEEPER_AWAY, -1);
	} else if (rc != -EAGAIN && rc != -ECANCELED && rc != -EPIPE && rc != -ECONNRESET) {
		explain(pager, word, rc);
	}
	hang_up(pager);
	return rc;
}

/* ---- in office ---- */

static int hold_office(struct mrs_pager *pager)
{
	struct morsel_pool *pool = pager->part.pool;
	int rc = mrs_work_start(pool, &pager->work);

	if (!rc) {
		mrs_log(MRS_LOG_DEBUG, "this process is the pager of %s", pool->path);
		set_state(pager, MRS_KEEPER_IN_OFFICE, mrs_uffd_fd(pool));
		mrs_desk_serve(pager);
		set_state(pager, MRS_KEEPER_AWAY, -1);
		mrs_work_stop(&pager->work);
	}
	mrs_desk_clear(&pager->desk);
	mrs_office_leave(pool, &pager->office);
	return rc;
}

static int seek_office(struct mrs_pager *pager)
{
	int rc;

	mrs_desk_init(&pager->desk);
	rc = mrs_office_take(pager->part.pool, &pager->office);
	if (!rc)
		rc = hold_office(pager);
	if (rc && rc != -EAGAIN)
		note_failure(pager, morsel_errormsg());
	return rc;
}

static void *keeper(void *ctx)
{
	struct mrs_pager *pager = ctx;
	int64_t rest = REST_MIN_NS;

	while (!is_stopping(pager)) {
		int rc = seek_office(pager);

		if (rc == -EAGAIN)
			rc = call_on_pager(pager);
		if (is_stopping(pager))
			break;
		rest = rc ? mrs_min(rest * 2, REST_MAX_NS) : REST_MIN_NS;
		if (rc)
			wait_for(pager, -1, rest);
	}
	return NULL;
}

/* ---- the part of the handle ---- */

static void free_pager(struct mrs_pager *pager)
{
	mrs_fork_hold();
	if (pager->bell >= 0)
		close(pager->bell);
	pager->bell = -1;
	mrs_fork_release();
	pthread_mutex_destroy(&pager->lock);
	pthread_cond_destroy(&pager->changed);
	pthread_mutex_destroy(&pager->desk.lock);
	pthread_mutex_destroy(&pager->work.lock);
	pthread_cond_destroy(&pager->work.posted);
	free(pager);
}

static void stop_pager(struct mrs_part *part)
{
	struct mrs_pager *pager = (struct mrs_pager *)part;

	if (pager->runs) {
		mrs_store_release32(&pager->stopping, 1);
		ring(pager);
		pthread_join(pager->keeper, NULL);
	}
	free_pager(pager);
}

/* The lock's descriptor is closed with all such: fork.c. */
static void pager_in_child(struct mrs_part *part)
{
	struct mrs_pager *pager = (struct mrs_pager *)part;

	if (pager->bell >= 0)
		close(pager->bell);
	if (pager->call >= 0)
		close(pager->call);
	if (pager->office.listener >= 0)
		close(pager->office.listener);
	mrs_desk_in_child(&pager->desk);
}

static int make_pager(struct morsel_pool *pool, struct mrs_part **part)
{
	struct mrs_pager *pager = calloc(1, sizeof(*pager));

	if (!pager)
		return mrs_fail(-ENOMEM, "no memory for the pager's state");
	pager->part = (struct mrs_part){pool, stop_pager, pager_in_child};
	pager->bell = pager->call = -1;
	pager->handed_over = -1;
	pager->office = (struct mrs_office){.lock_fd = -1, .listener = -1};
	pthread_mutex_init(&pager->lock, NULL);
	pthread_cond_init(&pager->changed, NULL);
	pthread_mutex_init(&pager->desk.lock, NULL);
	pthread_mutex_init(&pager->work.lock, NULL);
	pthread_cond_init(&pager->work.posted, NULL);
	mrs_desk_init(&pager->desk);
	*part = &pager->part;
	return 0;
}

/* Under the lock. */
static int start_keeper(struct mrs_pager *pager)
{
	sigset_t all, before;
	int rc = mrs_handover_prepare(pager->part.pool);

	if (rc)
		return rc;
	mrs_fork_hold();
	if (pager->bell < 0)
		pager->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = pager->bell < 0 ? -errno : 0;
	mrs_fork_release();
	if (rc)
		return mrs_fail_errno(rc, "no descriptor for the pager's bell");
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = -pthread_create(&pager->keeper, NULL, keeper, pager);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pager->runs = !rc;
	return rc ? mrs_fail_errno(rc, "cannot start the thread that keeps a pager") : 0;
}

/* ---- interface ---- */

static bool all_is_well(const struct mrs_pager *pager)
{
	return pager->state == MRS_KEEPER_IN_OFFICE ||
	       (pager->state == MRS_KEEPER_CONNECTED &&
		pager->handed_over == mrs_uffd_fd(pager->part.pool));
}

/* Under the lock: for the keeper to find its place, or to have met a failure. */
static int await_keeper(struct mrs_pager *pager)
{
	struct timespec end;
	int rc = 0;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += ENSURE_NS / 1000000000;
	while (!all_is_well(pager) && !pager->failures && !rc)
		rc = pthread_cond_timedwait(&pager->changed, &pager->lock, &end);
	if (all_is_well(pager))
		return 0;
	return mrs_fail(-ETIMEDOUT, "%s",
			pager->failures ? pager->why : "no pager could be found in time");
}

int mrs_pager_ensure(struct morsel_pool *pool)
{
	struct mrs_pager *pager;
	struct mrs_part *part;
	int rc = mrs_pool_usable(pool, true);

	if (!rc)
		rc = mrs_pool_part_make(pool, MRS_PART_PAGER, make_pager, &part);
	if (rc)
		return rc;
	pager = (struct mrs_pager *)part;
	pthread_mutex_lock(&pager->lock);
	if (!pager->runs)
		rc = start_keeper(pager);
	if (!rc && !all_is_well(pager)) {
		ring(pager);
		rc = await_keeper(pager);
	}
	pthread_mutex_unlock(&pager->lock);
	return rc;
}

bool mrs_pager_is_self(struct morsel_pool *pool)
{
	struct mrs_pager *pager = mrs_pager_of(pool);

	return pager && mrs_load_acquire32(&pager->in_office);
}

unsigned mrs_pager_slot(struct morsel_pool *pool)
{
	uint64_t word = mrs_load_acquire(&mrs_pool_state(pool)->pager);
	unsigned slot = (unsigned)(word & 0xffff) - 1;

	return slot < MRS_SLOTS && mrs_pool_slot_is_alive(pool, slot) ? slot : MRS_SLOTS;
}

int mrs_pager_post(struct morsel_pool *pool, const struct mrs_pager_job *job)
{
	struct mrs_pager *pager = mrs_pager_of(pool);

	return pager ? mrs_work_post(&pager->work, job) : -EAGAIN;
}

void mrs_pager_connect(struct morsel_pool *pool)
{
	struct mrs_pager *pager = mrs_pager_of(pool);

	if (pager && pager->bell >= 0)
		ring(pager);
}

int64_t morsel_pool_pager(struct morsel_pool *pool)
{
	int rc = mrs_pager_ensure(pool);
	unsigned slot;

	if (rc)
		return rc;
	slot = mrs_pager_slot(pool);
	return slot < MRS_SLOTS ? (int64_t)mrs_load_relaxed32(&mrs_pool_slot(pool, slot)->pid) : 0;
}
