/*
 * The pager's threads at work: one does what mail asks for, one is the automatic evictor.
 *
 * Requests wait in a short queue; a request that finds it full is answered "again later" by the
 * service thread. Both threads are only there while the process is in office.
 */
#include <errno.h>
#include <linux/futex.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/base.h"
#include "object/evict.h"
#include "object/promote.h"
#include "object/share.h"
#include "pool/internal.h"
#include "pool/zero.h"
#include "view/office.h"

#define TICK_MIN_NS 100000
#define HOUSE_NS    1000000000ll
#define TICK_MAX_NS 10000000000ll

/* ---- jobs ---- */

static int protect(struct morsel_pool *pool, const struct mrs_pager_job *job)
{
	uint64_t family = mrs_registry_family(pool, job->record);

	return family ? mrs_pager_protect(pool, family, job->first, job->first + job->count) : 0;
}

static void run_job(struct morsel_pool *pool, const struct mrs_pager_job *job)
{
	uint64_t answer = 0;
	int rc = job->op == MRS_REQUEST_PROTECT ? protect(pool, job)
						: mrs_evict_serve(pool, job->op, job->record,
								  job->first, job->count, &answer);

	mrs_mail_answer(pool, job->word, rc, answer);
}

/* Under the lock: waits for something to do. False at the end. */
static bool next_job(struct mrs_work *work, struct mrs_pager_job *job, bool *reap)
{
	while (!work->count && !work->reap && !mrs_load_acquire32(&work->stopping))
		pthread_cond_wait(&work->posted, &work->lock);
	if (mrs_load_acquire32(&work->stopping))
		return false;
	*reap = work->reap && !work->count;
	if (*reap) {
		work->reap = false;
		return true;
	}
	*job = work->job[work->first];
	work->first = (work->first + 1) % MRS_JOBS;
	work->count--;
	return true;
}

static void *worker(void *ctx)
{
	struct mrs_work *work = ctx;
	struct mrs_pager_job job;
	bool reap;

	pthread_mutex_lock(&work->lock);
	while (next_job(work, &job, &reap)) {
		pthread_mutex_unlock(&work->lock);
		if (reap)
			morsel_pool_reap(work->pool);
		else
			run_job(work->pool, &job);
		pthread_mutex_lock(&work->lock);
	}
	pthread_mutex_unlock(&work->lock);
	return NULL;
}

int mrs_work_post(struct mrs_work *work, const struct mrs_pager_job *job)
{
	int rc = -EAGAIN;

	pthread_mutex_lock(&work->lock);
	if (work->open && work->count < MRS_JOBS) {
		work->job[(work->first + work->count++) % MRS_JOBS] = *job;
		pthread_cond_signal(&work->posted);
		rc = 0;
	}
	pthread_mutex_unlock(&work->lock);
	return rc;
}

void mrs_work_reap(struct mrs_work *work)
{
	pthread_mutex_lock(&work->lock);
	work->reap = true;
	pthread_cond_signal(&work->posted);
	pthread_mutex_unlock(&work->lock);
}

/* ---- the automatic evictor ---- */

/* What is done now and then; returns when it is due again. */
static int64_t keep_house(struct mrs_work *work, int64_t due_ns)
{
	int64_t now = mrs_evict_now_ns();

	if (now < due_ns)
		return due_ns;
	mrs_quarantine_hurry(work->pool);
	mrs_quarantine_sweep(work->pool);
	mrs_promote_tick(work->pool);
	return now + HOUSE_NS;
}

static void *ticker(void *ctx)
{
	struct mrs_work *work = ctx;
	uint32_t *bell = mrs_evictor_bell(work->pool);
	int64_t house_ns = mrs_evict_now_ns() + HOUSE_NS;

	while (!mrs_load_acquire32(&work->stopping)) {
		/* Read before the step: what is asked for during it is not slept through. */
		uint32_t seen = mrs_load_acquire32(bell);
		bool more = mrs_zero_tick(work->pool);
		int64_t ns = mrs_evictor_tick(work->pool);
		struct timespec time;

		house_ns = keep_house(work, house_ns);
		if (more)
			ns = 0;

		ns = mrs_min(mrs_max(ns, TICK_MIN_NS), TICK_MAX_NS);
		time = (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
		if (!mrs_load_acquire32(&work->stopping))
			syscall(SYS_futex, bell, FUTEX_WAIT, seen, &time, NULL, 0);
	}
	return NULL;
}

static void wake_ticker(struct mrs_work *work)
{
	uint32_t *bell = mrs_evictor_bell(work->pool);

	/* Moved on after stopping was set: it is seen, or not slept on. */
	mrs_fetch_add32(bell, 1);
	syscall(SYS_futex, bell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* ---- start and end ---- */

static int start_thread(pthread_t *thread, void *(*run)(void *), struct mrs_work *work)
{
	sigset_t all, before;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = -pthread_create(thread, NULL, run, work);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc ? mrs_fail_errno(rc, "cannot start a thread of the pager") : 0;
}

static void stop_worker(struct mrs_work *work)
{
	pthread_mutex_lock(&work->lock);
	work->open = false;
	mrs_store_release32(&work->stopping, 1);
	pthread_cond_broadcast(&work->posted);
	pthread_mutex_unlock(&work->lock);
	pthread_join(work->worker, NULL);
	for (; work->count; work->count--) {
		struct mrs_pager_job *job = &work->job[work->first];

		mrs_mail_answer(work->pool, job->word, -EAGAIN, 0);
		work->first = (work->first + 1) % MRS_JOBS;
	}
}

int mrs_work_start(struct morsel_pool *pool, struct mrs_work *work)
{
	int rc;

	work->pool = pool;
	work->first = work->count = 0;
	work->reap = true; /* who was pager before may be dead */
	mrs_store_release32(&work->stopping, 0);
	rc = start_thread(&work->worker, worker, work);
	if (rc)
		return rc;
	rc = start_thread(&work->ticker, ticker, work);
	if (rc) {
		stop_worker(work);
		return rc;
	}
	pthread_mutex_lock(&work->lock);
	work->open = true;
	pthread_mutex_unlock(&work->lock);
	work->runs = true;
	return 0;
}

void mrs_work_stop(struct mrs_work *work)
{
	if (!work->runs)
		return;
	work->runs = false;
	stop_worker(work);
	wake_ticker(work);
	pthread_join(work->ticker, NULL);
}
