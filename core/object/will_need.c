/*
 * MORSEL_ADVICE_WILL_NEED: pages are brought by a thread of the morsel's handle, so that who asked
 * goes on. There is one for a handle while there is something to bring; ranges beyond what it can
 * remember are forgotten, for they are advice.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "object/evict.h"
#include "object/internal.h"

#define RANGES 16u

struct mrs_bringer {
	struct morsel *morsel;
	pthread_t thread;
	pthread_mutex_t lock; /* protects what follows; nothing follows it */
	uint64_t offset[RANGES], bytes[RANGES];
	unsigned first, count;
	bool running; /* the thread has not decided to end */
	uint32_t stop;
};

/* Under the lock. False: the thread ends. */
static bool next_range(struct mrs_bringer *bringer, uint64_t *offset, uint64_t *bytes)
{
	bringer->running = bringer->count && !mrs_load_acquire32(&bringer->stop);
	if (!bringer->running)
		return false;
	*offset = bringer->offset[bringer->first];
	*bytes = bringer->bytes[bringer->first];
	bringer->first = (bringer->first + 1) % RANGES;
	bringer->count--;
	return true;
}

static void *bring(void *ctx)
{
	struct mrs_bringer *bringer = ctx;
	uint64_t offset, bytes;
	bool more;

	for (;;) {
		pthread_mutex_lock(&bringer->lock);
		more = next_range(bringer, &offset, &bytes);
		pthread_mutex_unlock(&bringer->lock);
		if (!more)
			return NULL;
		if (mrs_content_bring(bringer->morsel, offset, bytes, &bringer->stop) < 0)
			mrs_log(MRS_LOG_DEBUG, "MORSEL_ADVICE_WILL_NEED came to nothing: %s",
				morsel_errormsg());
	}
}

/* The signals of the process are for its own threads. */
static int start(struct mrs_bringer *bringer)
{
	sigset_t all, before;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&bringer->thread, NULL, bring, bringer);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc ? mrs_fail_errno(-EAGAIN, "no thread to bring pages with") : 0;
}

static struct mrs_bringer *bringer_of(struct morsel *morsel)
{
	struct mrs_bringer *bringer;

	pthread_mutex_lock(&morsel->lock);
	bringer = morsel->bringer;
	if (!bringer)
		bringer = calloc(1, sizeof(*bringer));
	if (bringer && !morsel->bringer) {
		bringer->morsel = morsel;
		pthread_mutex_init(&bringer->lock, NULL);
		morsel->bringer = bringer;
	}
	pthread_mutex_unlock(&morsel->lock);
	return bringer;
}

int mrs_will_need(struct morsel *morsel, uint64_t offset, uint64_t bytes)
{
	struct mrs_bringer *bringer;
	int rc = mrs_evict_check(morsel);

	if (rc)
		return rc;
	bringer = bringer_of(morsel);
	if (!bringer)
		return mrs_fail(-ENOMEM, "no memory to remember a range");
	pthread_mutex_lock(&bringer->lock);
	if (bringer->count < RANGES) {
		unsigned at = (bringer->first + bringer->count++) % RANGES;

		bringer->offset[at] = offset;
		bringer->bytes[at] = bytes;
	}
	if (!bringer->running) {
		if (bringer->thread)
			pthread_join(bringer->thread, NULL);
		bringer->thread = 0;
		rc = start(bringer);
		bringer->running = !rc;
	}
	pthread_mutex_unlock(&bringer->lock);
	return rc;
}

void mrs_will_need_stop(struct morsel *morsel)
{
	struct mrs_bringer *bringer = morsel->bringer;

	if (!bringer)
		return;
	mrs_store_release32(&bringer->stop, 1);
	if (bringer->thread)
		pthread_join(bringer->thread, NULL);
	pthread_mutex_destroy(&bringer->lock);
	free(bringer);
	morsel->bringer = NULL;
}
