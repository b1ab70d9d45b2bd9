/*
 * Grants that end when an event comes. OpenCL calls back from a thread of its own, in which nothing
 * may wait; so the callback only hands the grant to the completer, one thread of the process, which
 * brings back what the device wrote and releases the grant as anybody would.
 *
 * Reserved at acquire: the grant's own struct is the entry of the queue. The thread is started
 * before the first release with an event is promised, and stays.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "room.h"

static struct {
	pthread_mutex_t lock; /* protects all of it; nothing follows it */
	pthread_cond_t wake;
	struct gpu_grant *first, **last;
	bool started;
} completer = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.wake = PTHREAD_COND_INITIALIZER,
	.last = &completer.first,
};

static struct gpu_grant *next_ready(void)
{
	struct gpu_grant *grant;

	pthread_mutex_lock(&completer.lock);
	while (!completer.first)
		pthread_cond_wait(&completer.wake, &completer.lock);
	grant = completer.first;
	completer.first = grant->ready;
	if (!completer.first)
		completer.last = &completer.first;
	pthread_mutex_unlock(&completer.lock);
	return grant;
}

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

/* The grant ends, and its struct with it; a waiter may destroy the view as soon as it is told. */
static void end(struct gpu_grant *grant)
{
	struct gpu_view *view = grant->view;
	struct gpu_request request = {.failed = grant->failed};
	struct morsel_grant core = grant->core;
	bool failed = grant->failed;

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

static void *complete(void *arg)
{
	for (;;)
		end(next_ready());
	return NULL;
}

/* In a child nobody completes anything: its views do not work. */
static void forget_in_child(void)
{
	pthread_mutex_init(&completer.lock, NULL);
	pthread_cond_init(&completer.wake, NULL);
	completer.first = NULL;
	completer.last = &completer.first;
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

/* ---- from OpenCL ---- */

static void hand_over(struct gpu_grant *grant, cl_int status)
{
	char words[160];

	if (status < 0) {
		snprintf(words, sizeof(words),
			 "the event that ends a grant of %llu bytes at offset %llu failed: %s (%d)",
			 (unsigned long long)(grant->range.end - grant->range.start),
			 (unsigned long long)grant->range.start, mrs_cl_error_name(status),
			 (int)status);
		note_error(grant->view, words);
		grant->failed = true;
	}
	grant->ready = NULL;
	pthread_mutex_lock(&completer.lock);
	*completer.last = grant;
	completer.last = &grant->ready;
	pthread_cond_signal(&completer.wake);
	pthread_mutex_unlock(&completer.lock);
}

static void GPU_CALLBACK event_came(cl_event event, cl_int status, void *ctx)
{
	hand_over(ctx, status);
}

void mrs_cl_complete_when(struct gpu_grant *grant)
{
	cl_event after = grant->after;
	cl_int code = clSetEventCallback(after, CL_COMPLETE, event_came, grant);

	/* A driver that cannot call back: it is waited for here. */
	if (code)
		hand_over(grant, clWaitForEvents(1, &after));
}

void mrs_cl_settle(struct gpu_view *view)
{
	pthread_mutex_lock(&view->lock);
	while (view->pending)
		pthread_cond_wait(&view->idle, &view->lock);
	pthread_mutex_unlock(&view->lock);
}
