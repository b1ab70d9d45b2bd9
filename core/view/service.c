/*
 * The service thread of a pool handle: takes letters out of the inbox and does what they say.
 *
 * It sleeps on the doorbell. What concerns this process's views it does itself (told.c); what is
 * the pager's it gives to the pager's room, which answers later: so it never waits for another
 * process and always answers. It has every signal masked. A child of fork does not have it and
 * needs none: its handle is dead.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/base.h"
#include "base/probe.h"
#include "view/service.h"

struct service {
	struct mrs_part part;
	pthread_t thread;
	uint32_t stop;
	int pagemap; /* for SCAN; -1 where /proc is missing */
};

static struct mrs_mail *own_mail(struct service *service)
{
	struct morsel_pool *pool = service->part.pool;

	return &mrs_pool_slot(pool, mrs_pool_own_slot(pool))->mail;
}

/* ---- letters ---- */

static void serve(struct service *service, uint64_t word)
{
	struct morsel_pool *pool = service->part.pool;
	struct mrs_pager_job letter;
	uint32_t answer = 0;
	int rc = 0;

	if (!mrs_mail_read(pool, word, &letter))
		return;
	MRS_PROBE("mail.serve.read");
	switch (letter.op) {
	case MRS_REQUEST_EVICT:
	case MRS_REQUEST_ROOM:
	case MRS_REQUEST_PROTECT:
	case MRS_REQUEST_MOVE:
		rc = mrs_pager_post(pool, &letter);
		if (!rc)
			return; /* it answers */
		break;
	case MRS_REQUEST_CONNECT:
		mrs_pager_connect(pool);
		break;
	default:
		rc = mrs_view_told(pool, &letter, service->pagemap, &answer);
	}
	mrs_mail_answer(pool, word, rc, answer);
}

static void serve_all(struct service *service)
{
	struct mrs_mail *mail = own_mail(service);

	for (unsigned i = 0; i < MRS_INBOX; i++) {
		uint64_t word = mrs_load_acquire(&mail->inbox[i]);

		/* Who asked may take it out again at the same time. */
		if (word && mrs_cas(&mail->inbox[i], &word, 0))
			serve(service, word);
	}
}

static void *run(void *arg)
{
	struct service *service = arg;
	struct mrs_mail *mail = own_mail(service);

	prctl(PR_SET_NAME, "morsel-service");
	while (!mrs_load_acquire32(&service->stop)) {
		uint32_t bell = mrs_load_acquire32(&mail->doorbell);

		serve_all(service);
		if (!mrs_load_acquire32(&service->stop))
			syscall(SYS_futex, &mail->doorbell, FUTEX_WAIT, bell, NULL, NULL, 0);
	}
	return NULL;
}

/* ---- start and stop ---- */

static void service_stop(struct mrs_part *part)
{
	struct service *service = (struct service *)part;
	struct mrs_mail *mail = own_mail(service);

	mrs_store_release32(&service->stop, 1);
	mrs_fetch_add32(&mail->doorbell, 1);
	syscall(SYS_futex, &mail->doorbell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
	pthread_join(service->thread, NULL);
	/* There are no views any more: whoever sees this passes us by; who asked before is
	 * answered. */
	mrs_store_release32(&mail->serving, 0);
	mrs_full_fence();
	serve_all(service);
	if (service->pagemap >= 0)
		close(service->pagemap);
	free(service);
}

/* The parent's page tables are none of the child's business. */
static void service_in_child(struct mrs_part *part)
{
	struct service *service = (struct service *)part;

	if (service->pagemap >= 0)
		close(service->pagemap);
}

static int start_thread(struct service *service)
{
	sigset_t all, before;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&service->thread, NULL, run, service);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc ? mrs_fail_errno(-EAGAIN,
				   "cannot start the service thread of %s (limit on threads, "
				   "ulimit -u?)",
				   mrs_pool_path(service->part.pool))
		  : 0;
}

static int service_make(struct morsel_pool *pool, struct mrs_part **part)
{
	struct service *service = calloc(1, sizeof(*service));
	int rc;

	if (!service)
		return mrs_fail(-EAGAIN, "no memory for the service thread of %s",
				mrs_pool_path(pool));
	service->part =
		(struct mrs_part){.pool = pool, .stop = service_stop, .in_child = service_in_child};
	mrs_fork_hold();
	service->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	mrs_fork_release();
	rc = start_thread(service);
	if (rc) {
		if (service->pagemap >= 0)
			close(service->pagemap);
		free(service);
		return rc;
	}
	/* Release; before any view is listed: who sees one sees this. */
	mrs_store_release32(&own_mail(service)->serving, 1);
	*part = &service->part;
	return 0;
}

int mrs_service_start(struct morsel_pool *pool)
{
	struct mrs_part *part;

	return mrs_pool_part_make(pool, MRS_PART_SERVICE, service_make, &part);
}
