/*
 * Asking and answering. See mailbox.h; where the words lie: pool/format.h, struct mrs_mail.
 *
 *	asker: request ---- word ----> inbox of each, doorbell rings
 *	       waiting [1 1 1]  <----- each: does it, takes its bit out, the last one wakes him
 *
 * Why no acknowledgement is taken for one that was not given:
 *
 *  1. A bit of waiting is set by the asker before the word is posted, and cleared by the asked
 *     after it has done what was asked (release; the asker's look acquires). Or by the asker, when
 *     the process that was asked is dead: then its mappings are gone.
 *
 *  2. Every word that the asked change holds the request's serial, and they change it by compare-
 *     and-swap from a value with that serial. Serials are drawn from the pool and used once. So who
 *     was stopped before his answer cannot answer a later request, of this process or of the slot's
 *     next one.
 *
 *  3. At a time-out the bits stay as they are until the request is written anew, with another
 *     serial: nobody is counted as having answered. The word is taken out of the inbox, if it is
 *     still there.
 *
 *  4. A reader of a request compares its serial before and after the fields; a writer changes it to
 *     0 before, and to the new one after them.
 *
 *  5. Liveness is the slot's lock, asked at most once in PROBE_NS and process. A slot whose owner
 *     has changed, or has no service thread (no view then), is passed by.
 */
#include "view/mailbox.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/base.h"
#include "base/probe.h"
#include "object/internal.h"
#include "view/service.h"

#define PROBE_NS   20000000ll
#define FULL_NS	   1000000ll /* an inbox is full: look again after */
#define ERRNO_MASK 0xfffu
#define SLOT_SHIFT 16
#define BITS	   32u /* slots per word of waiting */
#define WAITING	   (MRS_SLOTS / BITS)

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ll + now.tv_nsec;
}

static void wake(uint32_t *word, int count)
{
	syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
}

static void sleep_on(uint32_t *word, uint32_t value, int64_t ns)
{
	struct timespec time = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};

	syscall(SYS_futex, word, FUTEX_WAIT, value, &time, NULL, 0);
}

/* ---- the request, seen from both sides ---- */

static uint32_t word_serial(uint64_t word)
{
	return (uint32_t)(word >> 32);
}

/* NULL if the word cannot be one. */
static struct mrs_request *request_of(struct morsel_pool *pool, uint64_t word, unsigned *slot)
{
	uint64_t index = (word & UINT32_MAX) - 1;

	if (index >= MRS_SLOTS * MRS_INTENTS_PER_SLOT || !word_serial(word))
		return NULL;
	*slot = (unsigned)(index / MRS_INTENTS_PER_SLOT);
	return &mrs_pool_slot(pool, *slot)->mail.request[index % MRS_INTENTS_PER_SLOT];
}

/* Changes a word of a request: from what it is to with(it), while its upper half is serial. */
static bool change(uint64_t *word, uint32_t serial, uint64_t set, uint64_t clear)
{
	uint64_t seen = mrs_load_acquire(word);

	do {
		if (word_serial(seen) != serial)
			return false;
	} while (!mrs_cas(word, &seen, (seen | set) & ~clear));
	return true;
}

static bool anybody_left(const struct mrs_request *request)
{
	for (unsigned i = 0; i < WAITING; i++)
		if ((uint32_t)mrs_load_acquire(&request->waiting[i]))
			return true;
	return false;
}

static bool is_left(const struct mrs_request *request, unsigned slot)
{
	return mrs_load_acquire(&request->waiting[slot / BITS]) >> slot % BITS & 1;
}

/* ---- answering ---- */

bool mrs_mail_read(struct morsel_pool *pool, uint64_t word, struct mrs_pager_job *letter)
{
	unsigned slot;
	struct mrs_request *request = request_of(pool, word, &slot);

	if (!request || mrs_load_acquire32(&request->serial) != word_serial(word))
		return false;
	*letter = (struct mrs_pager_job){
		.word = word,
		.op = mrs_load_acquire32(&request->op),
		.record = mrs_load_acquire(&request->record),
		.first = mrs_load_acquire(&request->first),
		.count = mrs_load_acquire(&request->count),
		.arg = mrs_load_acquire(&request->arg),
	};
	return mrs_load_acquire32(&request->serial) == word_serial(word);
}

bool mrs_mail_is_awaited(struct morsel_pool *pool, uint64_t word)
{
	unsigned slot;
	struct mrs_request *request = request_of(pool, word, &slot);

	mrs_full_fence(); /* pairs with the one in withdraw() */
	return request && mrs_load_acquire32(&request->serial) == word_serial(word);
}

void mrs_mail_answer(struct morsel_pool *pool, uint64_t word, int result, uint64_t answer)
{
	unsigned own = mrs_pool_own_slot(pool), slot;
	struct mrs_request *request = request_of(pool, word, &slot);
	uint32_t serial = word_serial(word);
	uint64_t none = (uint64_t)serial << 32;

	if (!request)
		return;
	if (result)
		mrs_cas(&request->outcome, &none,
			none | (uint64_t)own << SLOT_SHIFT | ((uint32_t)-result & ERRNO_MASK));
	if (answer)
		change(&request->answer, serial, (uint32_t)answer, 0);
	MRS_PROBE("mail.answer.done");
	if (!change(&request->waiting[own / BITS], serial, 0, 1ull << own % BITS))
		return;
	MRS_PROBE("mail.answer.cleared");
	mrs_full_fence(); /* of two that are last at once, one sees the other's bit gone */
	if (anybody_left(request))
		return;
	mrs_fetch_add32(&mrs_pool_slot(pool, slot)->mail.answered, 1);
	wake(&mrs_pool_slot(pool, slot)->mail.answered, INT_MAX);
}

/* ---- asking ---- */

struct ask {
	struct morsel_pool *pool;
	struct mrs_request *request;
	enum mrs_request_op op;
	uint64_t word;			/* for the inboxes */
	struct mrs_slot_set unposted;	/* their inbox was full */
	bool full;			/* there are some */
	uint32_t generation[MRS_SLOTS]; /* of each that was asked */
};

static uint32_t generation_of(struct morsel_pool *pool, unsigned slot)
{
	return (uint32_t)mrs_pool_slot_generation(pool, slot);
}

static uint32_t *serving_of(struct morsel_pool *pool, unsigned slot)
{
	return &mrs_pool_slot(pool, slot)->mail.serving;
}

/* Is it for the pager, so that a process that is gone has not done it? */
static bool is_for_pager(enum mrs_request_op op)
{
	return op == MRS_REQUEST_EVICT || op == MRS_REQUEST_ROOM || op == MRS_REQUEST_PROTECT ||
	       op == MRS_REQUEST_MOVE;
}

/* Attached, with a service thread, which only a process without views lacks: step 5. */
static bool can_be_asked(struct morsel_pool *pool, unsigned slot)
{
	return mrs_pool_slot_is_attached(pool, slot) && mrs_load_acquire32(serving_of(pool, slot));
}

static void request_write(struct ask *ask, uint64_t record, uint64_t first, uint64_t count,
			  uint64_t arg)
{
	struct mrs_request *request = ask->request;
	uint32_t serial;

	do {
		serial = (uint32_t)mrs_fetch_add(&mrs_pool_state(ask->pool)->mail_serial, 1);
	} while (!serial);
	mrs_store_release32(&request->serial, 0); /* step 4 */
	mrs_store_release(&request->outcome, (uint64_t)serial << 32);
	mrs_store_release(&request->answer, (uint64_t)serial << 32);
	for (unsigned i = 0; i < WAITING; i++)
		mrs_store_release(&request->waiting[i], (uint64_t)serial << 32);
	mrs_store_release32(&request->op, ask->op);
	mrs_store_release(&request->record, record);
	mrs_store_release(&request->first, first);
	mrs_store_release(&request->count, count);
	mrs_store_release(&request->arg, arg);
	mrs_store_release32(&request->serial, serial);
	ask->word |= (uint64_t)serial << 32;
}

/* False if the inbox is full. */
static bool post(struct ask *ask, unsigned slot)
{
	struct mrs_mail *mail = &mrs_pool_slot(ask->pool, slot)->mail;

	for (unsigned i = 0; i < MRS_INBOX; i++) {
		uint64_t *place = &mail->inbox[(ask->word + i) % MRS_INBOX], none = 0;

		if (mrs_load_relaxed(place) || !mrs_cas(place, &none, ask->word))
			continue;
		MRS_PROBE("mail.ask.posted");
		mrs_fetch_add32(&mail->doorbell, 1);
		wake(&mail->doorbell, 1);
		return true;
	}
	return false;
}

static void post_all(struct ask *ask, const struct mrs_slot_set *who)
{
	uint32_t serial = word_serial(ask->word);

	for (unsigned slot = 0; slot < MRS_SLOTS; slot++) {
		if (!mrs_slot_set_has(who, slot))
			continue;
		ask->generation[slot] = generation_of(ask->pool, slot);
		if (can_be_asked(ask->pool, slot))
			change(&ask->request->waiting[slot / BITS], serial, 1ull << slot % BITS, 0);
		else if (is_for_pager(ask->op))
			change(&ask->request->outcome, serial,
			       (uint64_t)slot << SLOT_SHIFT | EAGAIN, 0);
	}
	MRS_PROBE("mail.ask.written");
	for (unsigned slot = 0; slot < MRS_SLOTS; slot++)
		if (is_left(ask->request, slot) && !post(ask, slot)) {
			mrs_slot_set_add(&ask->unposted, slot);
			ask->full = true;
		}
	MRS_PROBE("mail.ask.all_posted");
}

static void post_again(struct ask *ask)
{
	ask->full = false;
	for (unsigned slot = 0; slot < MRS_SLOTS; slot++) {
		if (!mrs_slot_set_has(&ask->unposted, slot))
			continue;
		if (!is_left(ask->request, slot) || post(ask, slot))
			ask->unposted.bit[slot / 64] &= ~(1ull << slot % 64);
		else
			ask->full = true;
	}
}

/* The process that was asked is not there any more, and with it what it mapped: steps 1 and 5. */
static bool is_gone(struct ask *ask, unsigned slot)
{
	return generation_of(ask->pool, slot) != ask->generation[slot] ||
	       !can_be_asked(ask->pool, slot) || !mrs_pool_slot_is_alive(ask->pool, slot);
}

static void pass_by_the_dead(struct ask *ask)
{
	uint32_t serial = word_serial(ask->word);

	for (unsigned slot = 0; slot < MRS_SLOTS; slot++) {
		uint64_t none = (uint64_t)serial << 32;

		if (!is_left(ask->request, slot) || !is_gone(ask, slot))
			continue;
		if (is_for_pager(ask->op))
			mrs_cas(&ask->request->outcome, &none,
				none | (uint64_t)slot << SLOT_SHIFT | EAGAIN);
		change(&ask->request->waiting[slot / BITS], serial, 0, 1ull << slot % BITS);
		MRS_PROBE("mail.ask.passed");
	}
}

/* Until all have answered (true), or the deadline. */
static bool await(struct ask *ask, int64_t deadline)
{
	uint32_t *answered = &mrs_pool_slot(ask->pool, mrs_pool_own_slot(ask->pool))->mail.answered;
	int64_t now = now_ns(), probe = now + PROBE_NS;

	for (;;) {
		uint32_t seen = mrs_load_acquire32(answered);

		if (!anybody_left(ask->request))
			return true;
		if (now >= probe) {
			pass_by_the_dead(ask);
			probe = now + PROBE_NS;
			continue;
		}
		if (now >= deadline)
			return false;
		if (ask->full)
			post_again(ask);
		sleep_on(answered, seen,
			 mrs_min(ask->full ? FULL_NS : probe - now, deadline - now));
		now = now_ns();
	}
}

/* After a time-out: step 3. The serial goes first: who finds it is in time. */
static unsigned withdraw(struct ask *ask, struct mrs_slot_set *silent)
{
	unsigned one = MRS_SLOTS;

	mrs_store_release32(&ask->request->serial, 0);
	mrs_full_fence(); /* pairs with the one in mrs_mail_is_awaited() */
	for (unsigned slot = 0; slot < MRS_SLOTS; slot++) {
		struct mrs_mail *mail;

		if (!is_left(ask->request, slot))
			continue;
		one = slot;
		if (silent)
			mrs_slot_set_add(silent, slot);
		mail = &mrs_pool_slot(ask->pool, slot)->mail;
		for (unsigned i = 0; i < MRS_INBOX; i++) {
			uint64_t word = ask->word;

			mrs_cas(&mail->inbox[i], &word, 0);
		}
	}
	return one;
}

static const char *op_text(enum mrs_request_op op)
{
	static const char *const text[] = {
		[MRS_REQUEST_INVALIDATE] = "forget translations",
		[MRS_REQUEST_CUT] = "let go of the end of a morsel",
		[MRS_REQUEST_REMAP] = "map moved pages",
		[MRS_REQUEST_DROP] = "drop translations",
		[MRS_REQUEST_SCAN] = "say what it has touched",
		[MRS_REQUEST_EVICT] = "evict",
		[MRS_REQUEST_ROOM] = "make room",
		[MRS_REQUEST_PROTECT] = "protect pages",
		[MRS_REQUEST_MOVE] = "move a page",
		[MRS_REQUEST_CONNECT] = "connect to the pager",
	};

	return op < mrs_array_length(text) && text[op] ? text[op] : "do something";
}

static int silence(struct ask *ask, unsigned slot, int64_t ns)
{
	struct mrs_slot *shared = mrs_pool_slot(ask->pool, slot);

	mrs_fetch_add(&mrs_pool_state(ask->pool)->count[MRS_COUNT_SHOOTDOWN_TIMEOUTS], 1);
	return mrs_fail(
		-ETIMEDOUT,
		"process %u (%.31s) was asked to %s and has not answered within %lld ms: is "
		"it stopped? Continue it, or kill it",
		shared->pid, shared->program, op_text(ask->op), (long long)(ns / 1000000));
}

/* The first refusal, in words. */
static int outcome(struct ask *ask)
{
	uint64_t word = mrs_load_acquire(&ask->request->outcome);
	unsigned slot = word >> SLOT_SHIFT & (MRS_SLOTS - 1);
	struct mrs_slot *shared = mrs_pool_slot(ask->pool, slot);
	int code = (int)(word & ERRNO_MASK);

	if (!code)
		return 0;
	if (code == EBUSY)
		return mrs_fail(-EBUSY,
				"process %u (%.31s) was asked to %s and has a grant there: let it "
				"release first",
				shared->pid, shared->program, op_text(ask->op));
	return mrs_fail_errno(-code, "process %u (%.31s) was asked to %s and cannot", shared->pid,
			      shared->program, op_text(ask->op));
}

static void count_round(struct ask *ask, int64_t ns)
{
	struct mrs_state *state = mrs_pool_state(ask->pool);

	switch (ask->op) {
	case MRS_REQUEST_INVALIDATE:
	case MRS_REQUEST_CUT:
	case MRS_REQUEST_REMAP:
	case MRS_REQUEST_DROP:
		mrs_fetch_add(&state->count[MRS_COUNT_SHOOTDOWNS], 1);
		mrs_fetch_add(&state->count[MRS_COUNT_SHOOTDOWN_NS], (uint64_t)ns);
		break;
	default:
		break;
	}
}

int mrs_mail_ask_for(struct mrs_txn *txn, const struct mrs_slot_set *who, enum mrs_request_op op,
		     uint64_t record, uint64_t first, uint64_t count, uint64_t arg, int64_t ns,
		     struct mrs_slot_set *silent, uint32_t *answer)
{
	struct morsel_pool *pool = txn->pool;
	struct mrs_slot *own = mrs_pool_slot(pool, mrs_pool_own_slot(pool));
	struct ask ask = {
		.pool = pool,
		.request = &own->mail.request[txn->index % MRS_INTENTS_PER_SLOT],
		.op = op,
		.word = txn->index + 1,
	};
	int64_t begun = now_ns();
	bool parked, all;
	int rc = 0;

	request_write(&ask, record, first, count, arg);
	if (silent)
		memset(silent, 0, sizeof(*silent));
	post_all(&ask, who);
	parked = mrs_txn_park(pool);
	all = await(&ask, begun + ns);
	mrs_txn_unpark(pool, parked);
	MRS_PROBE("mail.ask.awaited");
	if (!all)
		rc = silence(&ask, withdraw(&ask, silent), ns);
	if (!rc)
		rc = outcome(&ask);
	if (answer)
		*answer = (uint32_t)mrs_load_acquire(&ask.request->answer);
	count_round(&ask, now_ns() - begun);
	return rc;
}

int mrs_mail_ask(struct mrs_txn *txn, const struct mrs_slot_set *who, enum mrs_request_op op,
		 uint64_t record, uint64_t first, uint64_t count, uint64_t arg, int64_t ns,
		 struct mrs_slot_set *silent)
{
	return mrs_mail_ask_for(txn, who, op, record, first, count, arg, ns, silent, NULL);
}

/* ---- for the dead ---- */

static struct mrs_request *request_of_dead(const struct mrs_txn *dead)
{
	struct mrs_slot *slot = mrs_pool_slot(dead->pool, dead->index / MRS_INTENTS_PER_SLOT);

	return &slot->mail.request[dead->index % MRS_INTENTS_PER_SLOT];
}

void mrs_mail_post(struct mrs_txn *dead, const struct mrs_slot_set *who, enum mrs_request_op op,
		   uint64_t record, uint64_t first, uint64_t count, uint64_t arg)
{
	struct ask ask = {
		.pool = dead->pool,
		.request = request_of_dead(dead),
		.op = op,
		.word = dead->index + 1,
	};

	request_write(&ask, record, first, count, arg);
	post_all(&ask, who);
}

bool mrs_mail_is_answered(struct mrs_txn *dead)
{
	const struct mrs_request *request = request_of_dead(dead);

	for (unsigned slot = 0; slot < MRS_SLOTS; slot++)
		if (is_left(request, slot) && can_be_asked(dead->pool, slot) &&
		    (slot == mrs_pool_own_slot(dead->pool) ||
		     mrs_pool_slot_is_alive(dead->pool, slot)))
			return false;
	return true;
}

/* ---- whom to ask ---- */

struct viewers {
	struct morsel_pool *pool;
	uint64_t record, end_page;
	unsigned except, slot;
	struct mrs_slot_set *who;
};

static void viewer_entry(void *ctx, struct mrs_open *entry)
{
	struct viewers *viewers = ctx;

	if (mrs_load_acquire(&entry->record) == viewers->record &&
	    mrs_open_end(mrs_load_acquire(&entry->view)) > viewers->end_page)
		mrs_slot_set_add(viewers->who, viewers->slot);
}

static void viewer_slot(void *ctx, unsigned slot, struct mrs_slot *shared)
{
	struct viewers *viewers = ctx;

	viewers->slot = slot;
	if (slot != viewers->except)
		mrs_open_each(viewers->pool, shared, viewer_entry, viewers);
}

void mrs_mail_viewers(struct morsel_pool *pool, uint64_t record, uint64_t end_page, unsigned except,
		      struct mrs_slot_set *who)
{
	struct viewers viewers = {
		.pool = pool, .record = record, .end_page = end_page, .except = except, .who = who};

	memset(who, 0, sizeof(*who));
	mrs_pool_each_slot(pool, viewer_slot, &viewers);
}
