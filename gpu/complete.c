/*
 * Grants that end when an event comes: the completer, one thread of the process, looks which events
 * have come, brings back what the device wrote and releases the grant as anybody would.
 *
 * OpenCL calls back when an event completes, from a thread of its own in which nothing may wait; so
 * the callback only wakes the completer. It says nothing about which grant, for there are drivers
 * that do not call back when a command fails, or tell a late caller that all is well: the completer
 * asks the events themselves, also after a while without a call.
 *
 * Reserved at acquire: the grant's own struct is the entry of the list. The thread is started
 * before the first release with an event is promised, and stays.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "room.h"

#define LOOK_AGAIN_NS 20000000

static struct {
	pthread_mutex_t lock; /* protects all of it; nothing follows it */
	pthread_cond_t wake;
	struct gpu_grant *pending;
	bool woken; /* since the last look */
	bool started;
} completer = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.wake = PTHREAD_COND_INITIALIZER,
};

/* ---- the end of a grant ---- */

/* The first error since morsel_cl_finish() is kept for it. */
static void note_error(struct gpu_view *view, const char *words)
{
	gpu_count(view, grants_failed, 1);
	pthread_mutex_lock(&view->lock);
	if (!view->error) {
		view->error = -EIO;
		snprintf(view->words, sizeof(view->words), "%s", words);
	}
	pthread_mutex_unlock(&view->lock);
}

static void note_failed_event(struct gpu_grant *grant, cl_int status)
{
	char words[200];

	snprintf(words, sizeof(words),
		 "the event that ends a grant of %llu bytes at offset %llu failed: %s (%d)",
		 (unsigned long long)(grant->range.end - grant->range.start),
		 (unsigned long long)grant->range.start, mrs_cl_error_name(status), (int)status);
	note_error(grant->view, words);
}

/* The grant ends, and its struct with it; a waiter may destroy the view as soon as it is told. */
static void end(struct gpu_grant *grant, cl_int status)
{
	struct gpu_view *view = grant->view;
	struct gpu_request request = {.failed = grant->failed || status < 0};
	struct morsel_grant core = grant->core;
	bool failed = request.failed;

	if (status < 0)
		note_failed_event(grant, status);
	mrs_cl_view_get(view);
	mrs_cl_request_set(&request);
	morsel_release(&core);
	mrs_cl_request_set(NULL);
	if (request.failed && !failed)
		note_error(view, morsel_errormsg());
	pthread_mutex_lock(&view->lock);
	view->pending--;
	pthread_cond_broadcast(&view->idle);
	pthread_mutex_unlock(&view->lock);
	mrs_cl_view_put(view);
}

/* ---- the thread ---- */

/* The first whose event has come, off the list. The lock is held. */
static struct gpu_grant *take_ended(cl_int *status)
{
	struct gpu_grant **link = &completer.pending, *grant;

	for (; (grant = *link); link = &grant->also_pending) {
		*status = mrs_cl_event_status(grant->after);
		if (*status <= CL_COMPLETE) {
			*link = grant->also_pending;
			return grant;
		}
	}
	return NULL;
}

static void sleep_until_woken(void)
{
	struct timespec until;

	if (!completer.pending) {
		pthread_cond_wait(&completer.wake, &completer.lock);
		return;
	}
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += LOOK_AGAIN_NS;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_cond_timedwait(&completer.wake, &completer.lock, &until);
}

static void *complete(void *arg)
{
	struct gpu_grant *grant;
	cl_int status;

	pthread_mutex_lock(&completer.lock);
	for (;;) {
		completer.woken = false;
		grant = take_ended(&status);
		if (grant) {
			pthread_mutex_unlock(&completer.lock);
			end(grant, status);
			pthread_mutex_lock(&completer.lock);
		} else if (!completer.woken) {
			sleep_until_woken();
		}
	}
	return arg;
}

/* In a child nobody completes anything: its views do not work. */
static void forget_in_child(void)
{
	pthread_mutex_init(&completer.lock, NULL);
	pthread_cond_init(&completer.wake, NULL);
	completer.pending = NULL;
	completer.started = false;
}

static int start(void)
{
	static bool watching;
	sigset_t all, before;
	pthread_t thread;
	int rc;

	if (!watching)
		pthread_atfork(NULL, NULL, forget_in_child);
	watching = true;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&thread, NULL, complete, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc)
		return morsel_fail(-rc, "a thread that ends grants: %s", strerror(rc));
	pthread_detach(thread);
	completer.started = true;
	return 0;
}

int mrs_cl_completer_start(void)
{
	int rc = 0;

	pthread_mutex_lock(&completer.lock);
	if (!completer.started)
		rc = start();
	pthread_mutex_unlock(&completer.lock);
	return rc;
}

/* ---- what wakes it ---- */

static void wake(void)
{
	pthread_mutex_lock(&completer.lock);
	completer.woken = true;
	pthread_cond_signal(&completer.wake);
	pthread_mutex_unlock(&completer.lock);
}

static void GPU_CALLBACK event_came(cl_event event, cl_int status, void *ctx)
{
	wake();
}

void mrs_cl_complete_when(struct gpu_grant *grant)
{
	cl_event after = grant->after;

	/* The callback's: when the grant is on the list it may be gone at once. */
	clRetainEvent(after);
	pthread_mutex_lock(&completer.lock);
	grant->also_pending = completer.pending;
	completer.pending = grant;
	pthread_mutex_unlock(&completer.lock);
	/* If the driver cannot, the completer looks from time to time. */
	clSetEventCallback(after, CL_COMPLETE, event_came, NULL);
	clReleaseEvent(after);
	wake();
}

void mrs_cl_settle(struct gpu_view *view)
{
	pthread_mutex_lock(&view->lock);
	while (view->pending)
		pthread_cond_wait(&view->idle, &view->lock);
	pthread_mutex_unlock(&view->lock);
}
