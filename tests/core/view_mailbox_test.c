/*
 * Mail between processes: who is asked does it before the asker goes on; who is dead, stopped, late
 * or swamped. Most of it in one process with many handles, each of which has a slot and a service
 * thread of its own; a service is held up by taking the lock of a view that it is to tell.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/view_support.h"
#include "support/counts.h"
#include "view/internal.h"
#include "view/mailbox.h"

#define PAGES	 64u
#define LONG_NS	 60000000000ll
#define SHORT_NS 100000000ll

/* One attached party: a handle with a view of "m". */
struct party {
	struct morsel_pool *pool;
	struct morsel *morsel;
	struct morsel_view *view;
	unsigned slot;
};

static void join_in(struct party *party, int fd)
{
	party->pool = support_pool_again(fd);
	assert_non_null(party->pool);
	assert_int_equal(morsel_open(party->pool, "m", NULL, &party->morsel), 0);
	assert_int_equal(morsel_map(party->morsel, NULL, &party->view), 0);
	party->slot = mrs_pool_own_slot(party->pool);
}

static void leave(struct party *party)
{
	morsel_view_destroy(party->view);
	assert_int_equal(morsel_close(party->morsel), 0);
	assert_int_equal(morsel_pool_close(party->pool), 0);
}

/* Small, for it is mapped many times: ThreadSanitizer leaves little room. */
static struct morsel_pool *pool_with_m(struct morsel **morsel)
{
	struct morsel_pool_opts opts = {.size = sizeof(opts),
					.flags = MORSEL_POOL_CREATE,
					.bytes = 64 * MIB,
					.bytes_max = 64 * MIB};
	struct morsel_pool *pool;

	if (morsel_pool_open(NULL, &opts, &pool))
		fail_msg("%s", morsel_errormsg());
	*morsel = support_morsel(pool, "m", PAGES * PAGE, MORSEL_SCATTERED, MORSEL_PAGES_4K);
	support_number(*morsel, pool, 5);
	return pool;
}

static void report(void *ctx, const char *finding)
{
	fprintf(stderr, "finding: %s\n", finding);
}

static void end_pool(struct morsel_pool *pool, struct morsel *morsel)
{
	assert_int_equal(morsel_pool_reap(pool) < 0, 0);
	assert_int_equal(morsel_pool_check(pool, report, NULL), 0);
	assert_int_equal(morsel_close(morsel), 0);
	assert_int_equal(morsel_pool_close(pool), 0);
}

static struct mrs_slot_set slots(const struct party *parties, unsigned count)
{
	struct mrs_slot_set set = {{0}};

	for (unsigned i = 0; i < count; i++)
		mrs_slot_set_add(&set, parties[i].slot);
	return set;
}

/* Asks in a transition of its own. */
struct question {
	struct morsel_pool *pool;
	struct mrs_slot_set who;
	enum mrs_request_op op;
	uint64_t record, first, count, arg;
	int64_t ns;
	struct mrs_slot_set silent;
	uint32_t answer;
	int rc;
	uint32_t done;
};

static void *ask(void *arg)
{
	struct question *q = arg;
	struct mrs_txn txn;

	q->rc = mrs_txn_begin(q->pool, MRS_INTENT_OTHER, &txn);
	if (!q->rc) {
		q->rc = mrs_mail_ask_for(&txn, &q->who, q->op, q->record, q->first, q->count,
					 q->arg, q->ns, &q->silent, &q->answer);
		mrs_txn_end(&txn);
	}
	mrs_store_release32(&q->done, 1);
	return NULL;
}

static struct question cut(const struct party *asker, const struct party *parties, unsigned count,
			   uint64_t first)
{
	return (struct question){
		.pool = asker->pool,
		.who = slots(parties, count),
		.op = MRS_REQUEST_CUT,
		.record = asker->morsel->cell,
		.first = first,
		.count = UINT64_MAX - first,
		.arg = 1,
		.ns = LONG_NS,
	};
}

/* A smaller size in the record, so that the letter CUT holds; what it was. */
static uint64_t pretend_bytes(struct morsel *morsel, uint64_t bytes)
{
	return mrs_swap(&morsel->record->bytes, bytes);
}

static unsigned in_set(const struct mrs_slot_set *set)
{
	unsigned count = 0;

	for (unsigned i = 0; i < mrs_array_length(set->bit); i++)
		count += (unsigned)__builtin_popcountll(set->bit[i]);
	return count;
}

static bool is_cut(const struct party *party, uint64_t page)
{
	return support_touch((char *)morsel_addr(party->view) + page * PAGE, false) != 0;
}

/* ---- all answer ---- */

/* When the asker goes on, everyone has done it. */
static void test_everyone(void **state)
{
	unsigned count = COUNT_MAIL_PARTIES;
	struct party *parties = calloc(count, sizeof(*parties));
	struct morsel *morsel;
	struct morsel_pool *pool = pool_with_m(&morsel);
	uint64_t had, *counts = mrs_pool_state(pool)->count;
	uint64_t rounds = counts[MRS_COUNT_SHOOTDOWNS];
	struct question q;

	assert_non_null(parties);
	for (unsigned i = 0; i < count; i++)
		join_in(&parties[i], morsel_pool_fd(pool));
	had = pretend_bytes(morsel, 40 * PAGE);
	for (uint64_t page = 60; page >= 40; page -= 5) {
		q = cut(&parties[0], parties, count, page);
		ask(&q);
		assert_int_equal(q.rc, 0);
		assert_int_equal(in_set(&q.silent), 0);
		for (unsigned i = 0; i < count; i++) {
			assert_true(is_cut(&parties[i], page));
			assert_false(is_cut(&parties[i], page - 1));
		}
	}
	assert_int_equal(counts[MRS_COUNT_SHOOTDOWNS], rounds + 5);
	assert_true(counts[MRS_COUNT_SHOOTDOWN_NS] > 0);
	pretend_bytes(morsel, had);
	for (unsigned i = 0; i < count; i++)
		leave(&parties[i]);
	free(parties);
	end_pool(pool, morsel);
}

/* One that has not answered is waited for, whoever it is. */
static void test_each_is_awaited(void **state)
{
	struct party parties[9];
	struct morsel *morsel;
	struct morsel_pool *pool = pool_with_m(&morsel);
	const unsigned count = mrs_array_length(parties);

	for (unsigned i = 0; i < count; i++)
		join_in(&parties[i], morsel_pool_fd(pool));
	for (unsigned late = 0; late < count; late++) {
		struct question q = cut(&parties[0], parties, count, 0);

		q.op = MRS_REQUEST_DROP;
		q.count = PAGES;
		q.ns = SHORT_NS;
		pthread_mutex_lock(&parties[late].view->lock);
		ask(&q);
		pthread_mutex_unlock(&parties[late].view->lock);
		assert_int_equal(q.rc, -ETIMEDOUT);
		assert_int_equal(in_set(&q.silent), 1);
		assert_true(mrs_slot_set_has(&q.silent, parties[late].slot));
	}
	assert_int_equal(mrs_pool_state(pool)->count[MRS_COUNT_SHOOTDOWN_TIMEOUTS], count);
	for (unsigned i = 0; i < count; i++)
		leave(&parties[i]);
	end_pool(pool, morsel);
}

/* ---- late answers ---- */

static uint64_t word_of(const struct party *asker, unsigned which)
{
	const struct mrs_mail *mail = &mrs_pool_slot(asker->pool, asker->slot)->mail;

	return (asker->slot * MRS_INTENTS_PER_SLOT + which + 1) |
	       (uint64_t)mrs_load_acquire32(&mail->request[which].serial) << 32;
}

/* Which request of the asker was written last. */
static unsigned newest(const struct party *asker)
{
	const struct mrs_mail *mail = &mrs_pool_slot(asker->pool, asker->slot)->mail;
	unsigned which = 0;

	for (unsigned i = 1; i < MRS_INTENTS_PER_SLOT; i++)
		if (mrs_load_acquire32(&mail->request[i].serial) >
		    mrs_load_acquire32(&mail->request[which].serial))
			which = i;
	return which;
}

/* Who was stopped before his answer does not answer the next question by it. */
static void test_late_answer(void **state)
{
	struct party parties[2], *asker = &parties[0], *asked = &parties[1];
	struct morsel *morsel;
	struct morsel_pool *pool = pool_with_m(&morsel);
	struct question first, second;
	uint64_t had, word;
	pthread_t thread;

	join_in(asker, morsel_pool_fd(pool));
	join_in(asked, morsel_pool_fd(pool));
	had = pretend_bytes(morsel, 10 * PAGE);
	first = cut(asker, asked, 1, 50);
	first.ns = SHORT_NS;
	pthread_mutex_lock(&asked->view->lock);
	ask(&first);
	assert_int_equal(first.rc, -ETIMEDOUT);
	word = word_of(asker, newest(asker));
	second = cut(asker, asked, 1, 10);
	assert_int_equal(pthread_create(&thread, NULL, ask, &second), 0);
	while (word_of(asker, newest(asker)) == word)
		usleep(1000);
	/* A thread keeps to its intent; whichever it was, the answer is for the first question. */
	for (unsigned i = 0; i < MRS_INTENTS_PER_SLOT; i++)
		mrs_mail_answer(asked->pool,
				(word & ~(uint64_t)UINT32_MAX) |
					(asker->slot * MRS_INTENTS_PER_SLOT + i + 1),
				-EIO, 77);
	usleep(50000);
	assert_int_equal(mrs_load_acquire32(&second.done), 0);
	pthread_mutex_unlock(&asked->view->lock);
	pthread_join(thread, NULL);
	assert_int_equal(second.rc, 0);
	assert_int_equal(second.answer, 0);
	assert_true(is_cut(asked, 10));
	assert_false(is_cut(asked, 9));
	pretend_bytes(morsel, had);
	leave(asker);
	leave(asked);
	end_pool(pool, morsel);
}

/* A letter whose asker has given up is taken back: who goes on finds nothing to do. */
static void test_withdrawn(void **state)
{
	struct party parties[2], *asker = &parties[0], *asked = &parties[1];
	struct morsel *morsel;
	struct morsel_pool *pool = pool_with_m(&morsel);
	struct mrs_mail *mail;
	struct question q;

	join_in(asker, morsel_pool_fd(pool));
	join_in(asked, morsel_pool_fd(pool));
	mail = &mrs_pool_slot(pool, asked->slot)->mail;
	pthread_mutex_lock(&asked->view->lock);
	for (int i = 0; i < 3; i++) {
		q = cut(asker, asked, 1, 10);
		q.ns = SHORT_NS / 4;
		ask(&q);
		assert_int_equal(q.rc, -ETIMEDOUT);
		assert_non_null(strstr(morsel_errormsg(), "has not answered"));
		for (unsigned k = 0; k < MRS_INBOX; k++)
			assert_int_equal(mrs_load_acquire(&mail->inbox[k]), 0);
	}
	pthread_mutex_unlock(&asked->view->lock);
	/* The one letter that was taken out before is late: the size says that it does not hold. */
	q = cut(asker, asked, 1, PAGES);
	ask(&q);
	assert_int_equal(q.rc, 0);
	for (uint64_t page = 0; page < PAGES; page++)
		assert_false(is_cut(asked, page));
	leave(asker);
	leave(asked);
	end_pool(pool, morsel);
}

/* A cut that was undone is taken back by who had done it already. */
static void test_uncut(void **state)
{
	struct party parties[2];
	struct morsel *morsel;
	struct morsel_pool *pool = pool_with_m(&morsel);
	struct question q;
	uint64_t had;

	join_in(&parties[0], morsel_pool_fd(pool));
	join_in(&parties[1], morsel_pool_fd(pool));
	had = pretend_bytes(morsel, 20 * PAGE);
	q = cut(&parties[0], parties, 2, 20);
	ask(&q);
	assert_int_equal(q.rc, 0);
	assert_true(is_cut(&parties[0], 20) && is_cut(&parties[1], PAGES - 1));
	pretend_bytes(morsel, had);
	q.arg = 2;
	ask(&q);
	assert_int_equal(q.rc, 0);
	for (uint64_t page = 0; page < PAGES; page++)
		for (unsigned i = 0; i < 2; i++)
			assert_false(is_cut(&parties[i], page));
	leave(&parties[0]);
	leave(&parties[1]);
	end_pool(pool, morsel);
}

/* More letters than an inbox holds: they wait for a place, and all are answered. */
static void test_full_inbox(void **state)
{
	enum { ASKERS = 6, EACH = MRS_INTENTS_PER_SLOT };
	struct party askers[ASKERS], asked;
	struct question q[ASKERS * EACH];
	pthread_t thread[ASKERS * EACH];
	struct morsel *morsel;
	struct morsel_pool *pool = pool_with_m(&morsel);
	struct mrs_mail *mail;

	for (unsigned i = 0; i < ASKERS; i++)
		join_in(&askers[i], morsel_pool_fd(pool));
	join_in(&asked, morsel_pool_fd(pool));
	mail = &mrs_pool_slot(pool, asked.slot)->mail;
	pthread_mutex_lock(&asked.view->lock);
	for (unsigned i = 0; i < ASKERS * EACH; i++) {
		q[i] = cut(&askers[i % ASKERS], &asked, 1, 0);
		q[i].op = MRS_REQUEST_SCAN;
		q[i].count = PAGES;
		assert_int_equal(pthread_create(&thread[i], NULL, ask, &q[i]), 0);
	}
	for (unsigned i = 0; i < MRS_INBOX;)
		i = mrs_load_acquire(&mail->inbox[i]) ? i + 1 : 0;
	pthread_mutex_unlock(&asked.view->lock);
	for (unsigned i = 0; i < ASKERS * EACH; i++) {
		pthread_join(thread[i], NULL);
		assert_int_equal(q[i].rc, 0);
	}
	for (unsigned i = 0; i < ASKERS; i++)
		leave(&askers[i]);
	leave(&asked);
	end_pool(pool, morsel);
}

/* ---- answers ---- */

/* Dropped translations come back at a touch, and only those; a refusal is the outcome. */
static void test_scan_and_refusal(void **state)
{
	struct party parties[2];
	struct morsel *morsel;
	struct morsel_pool *pool = pool_with_m(&morsel);
	uint64_t had = mrs_morsel_bytes(morsel);
	struct morsel_grant grant;
	struct question q;

	join_in(&parties[0], morsel_pool_fd(pool));
	join_in(&parties[1], morsel_pool_fd(pool));
	q = cut(&parties[0], parties, 2, 0);
	q.op = MRS_REQUEST_DROP;
	q.count = PAGES;
	ask(&q);
	assert_int_equal(q.rc, 0);
	assert_false(is_cut(&parties[0], 3));
	assert_false(is_cut(&parties[1], 40));
	q.op = MRS_REQUEST_SCAN;
	ask(&q);
	assert_int_equal(q.rc, 0);
	/* Faults around a touch bring neighbours of the same run: these pages are runs of one. */
	assert_int_equal(q.answer, 1u << 3 / 2 | 1u << 40 / 2);
	assert_int_equal(*(uint64_t *)((char *)morsel_addr(parties[1].view) + 7 * PAGE),
			 support_word(7, 5));

	assert_int_equal(morsel_acquire(parties[1].view, 30 * PAGE, 1, MORSEL_READ, &grant), 0);
	pretend_bytes(morsel, 20 * PAGE);
	q = cut(&parties[0], parties, 2, 20);
	q.arg = 0;
	ask(&q);
	assert_int_equal(q.rc, -EBUSY);
	assert_false(is_cut(&parties[0], 30));
	morsel_release(&grant);
	ask(&q);
	assert_int_equal(q.rc, 0);
	pretend_bytes(morsel, had);
	leave(&parties[0]);
	leave(&parties[1]);
	end_pool(pool, morsel);
}

/* What is the pager's is refused where there is none. */
static void test_pager_requests(void **state)
{
	struct party parties[2];
	struct morsel *morsel;
	struct morsel_pool *pool = pool_with_m(&morsel);
	struct question q;

	join_in(&parties[0], morsel_pool_fd(pool));
	join_in(&parties[1], morsel_pool_fd(pool));
	q = cut(&parties[0], &parties[1], 1, 0);
	q.op = MRS_REQUEST_PROTECT;
	ask(&q);
	assert_int_equal(q.rc, -EAGAIN);
	/* A slot without a process has not done what the pager was to do; it maps nothing. */
	q.who = (struct mrs_slot_set){{0}};
	mrs_slot_set_add(&q.who, MRS_SLOTS - 1);
	ask(&q);
	assert_int_equal(q.rc, -EAGAIN);
	q.op = MRS_REQUEST_DROP;
	ask(&q);
	assert_int_equal(q.rc, 0);
	leave(&parties[0]);
	leave(&parties[1]);
	end_pool(pool, morsel);
}

/* ---- processes ---- */

/* A child with a view of "m", which does as it is told: a byte in, a byte out. */
struct child {
	pid_t pid;
	int in, out;
};

static int child_run(int fd, int in, int out)
{
	struct party self;
	struct morsel_grant grant = {0};
	unsigned char command[2];

	join_in(&self, fd);
	command[0] = 'R';
	while (write(out, command, 1) == 1 && read(in, command, 2) == 2) {
		char *at = (char *)morsel_addr(self.view) + command[1] * PAGE;
		int touched;

		switch (command[0]) {
		case 't': /* touch: is the page there, with its content? */
			touched = support_touch(at, true);
			command[0] = touched					      ? 'S'
				     : *(uint64_t *)at == support_word(command[1], 5) ? 'K'
										      : 'X';
			break;
		case 'g':
			command[0] = morsel_acquire(self.view, command[1] * PAGE, PAGE, MORSEL_READ,
						    &grant)
					     ? 'E'
					     : 'G';
			break;
		case 'r':
			morsel_release(&grant);
			command[0] = 'L';
			break;
		default:
			leave(&self);
			return 0;
		}
	}
	return 1;
}

static struct child child_start(struct morsel_pool *pool)
{
	int fd = morsel_pool_fd(pool), to[2], from[2];
	struct child child;
	char ready;

	assert_int_equal(pipe(to), 0);
	assert_int_equal(pipe(from), 0);
	fd = dup(fd);
	fflush(NULL);
	child.pid = fork();
	if (!child.pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(to[1]);
		close(from[0]);
		_exit(child_run(fd, to[0], from[1]));
	}
	close(fd);
	close(to[0]);
	close(from[1]);
	child.in = to[1];
	child.out = from[0];
	assert_int_equal(read(child.out, &ready, 1), 1);
	return child;
}

static char child_do(struct child *child, char what, uint64_t page)
{
	unsigned char command[2] = {(unsigned char)what, (unsigned char)page};
	char answer = 0;

	assert_int_equal(write(child->in, command, 2), 2);
	assert_int_equal(read(child->out, &answer, 1), 1);
	return answer;
}

static void child_end(struct child *child, bool kill_it)
{
	unsigned char command[2] = {'q', 0};
	int status;

	if (kill_it)
		kill(child->pid, SIGKILL);
	else
		assert_int_equal(write(child->in, command, 2), 2);
	assert_int_equal(waitpid(child->pid, &status, 0), child->pid);
	if (!kill_it)
		assert_true(WIFEXITED(status) && !WEXITSTATUS(status));
	close(child->in);
	close(child->out);
}

/* A shrink reaches the views of other processes; a grant of one of them is in the way. */
static void test_shrink_foreign(void **state)
{
	struct morsel *morsel;
	struct morsel_pool *pool = pool_with_m(&morsel);
	struct child a = child_start(pool), b = child_start(pool);

	assert_int_equal(child_do(&a, 't', 50), 'K');
	assert_int_equal(child_do(&b, 'g', 50), 'G');
	assert_int_equal(morsel_resize(morsel, 30 * PAGE), -EBUSY);
	assert_non_null(strstr(morsel_errormsg(), "grant"));
	assert_int_equal(child_do(&a, 't', 50), 'K');
	assert_int_equal(child_do(&b, 'r', 0), 'L');
	assert_int_equal(morsel_resize(morsel, 30 * PAGE), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(child_do(i ? &a : &b, 't', 30), 'S');
		assert_int_equal(child_do(i ? &a : &b, 't', 29), 'K');
		assert_int_equal(child_do(i ? &a : &b, 'g', 30), 'E');
	}
	assert_int_equal(morsel_unlink(pool, "m"), 0);
	child_end(&a, false);
	child_end(&b, true);
	end_pool(pool, morsel);
}

/*
 * A stopped process: what it may still reach is not taken, the others keep what they have and go
 * on; when it is continued, or killed, it is in nobody's way.
 */
static void test_stopped(void **state)
{
	struct morsel *morsel, *other;
	struct morsel_pool *pool = pool_with_m(&morsel);
	struct child stopped = child_start(pool), a = child_start(pool);
	struct morsel_view *view;
	uint64_t used;

	assert_int_equal(morsel_map(morsel, NULL, &view), 0);
	kill(stopped.pid, SIGSTOP);
	assert_int_equal(morsel_resize(morsel, 30 * PAGE), -ETIMEDOUT);
	assert_non_null(strstr(morsel_errormsg(), "cannot shrink"));
	assert_int_equal(mrs_morsel_bytes(morsel), PAGES * PAGE);
	for (uint64_t page = 28; page < PAGES; page++) {
		assert_int_equal(child_do(&a, 't', page), 'K');
		used = *(uint64_t *)((char *)morsel_addr(view) + page * PAGE);
		assert_int_equal(used, support_word(page, 5));
	}
	/* The others make, shrink and free what is theirs. */
	other = support_morsel(pool, "other", 20 * PAGE, 0, MORSEL_PAGES_4K);
	assert_int_equal(morsel_resize(other, PAGE), 0);
	assert_int_equal(morsel_unlink(pool, "other"), 0);
	assert_int_equal(morsel_close(other), 0);
	kill(stopped.pid, SIGCONT);
	for (uint64_t page = 0; page < PAGES; page++)
		assert_int_equal(child_do(&stopped, 't', page), 'K');
	assert_int_equal(morsel_resize(morsel, 30 * PAGE), 0);
	assert_int_equal(child_do(&stopped, 't', 30), 'S');
	kill(stopped.pid, SIGSTOP);
	child_end(&stopped, true);
	assert_int_equal(morsel_resize(morsel, 10 * PAGE), 0);
	assert_int_equal(child_do(&a, 't', 10), 'S');
	assert_int_equal(child_do(&a, 't', 9), 'K');
	morsel_view_destroy(view);
	child_end(&a, false);
	end_pool(pool, morsel);
}

static void *shrink(void *arg)
{
	struct morsel *morsel = arg;

	return (void *)(intptr_t)morsel_resize(morsel, 30 * PAGE);
}

/* Who dies while it is asked has answered: its mappings are gone. */
static void test_death_of_asked(void **state)
{
	struct morsel *morsel;
	struct morsel_pool *pool = pool_with_m(&morsel);

	for (unsigned round = 0; round < 3; round++) {
		struct child child = child_start(pool);
		pthread_t thread;
		void *rc;

		kill(child.pid, SIGSTOP);
		assert_int_equal(pthread_create(&thread, NULL, shrink, morsel), 0);
		while (mrs_morsel_bytes(morsel) != 30 * PAGE)
			usleep(1000);
		child_end(&child, true);
		pthread_join(thread, &rc);
		assert_int_equal((intptr_t)rc, 0);
		assert_int_equal(morsel_resize(morsel, PAGES * PAGE), 0);
	}
	end_pool(pool, morsel);
}

/* The asker dies while the asked is stopped: it answers to nobody, and its view is whole again. */
static void test_death_of_asker(void **state)
{
	struct morsel *morsel;
	struct morsel_pool *pool = pool_with_m(&morsel);
	struct child stopped = child_start(pool), a = child_start(pool);
	int fd = dup(morsel_pool_fd(pool)), status;
	pid_t asker;

	kill(stopped.pid, SIGSTOP);
	fflush(NULL);
	asker = fork();
	if (!asker) {
		struct party self;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		join_in(&self, fd);
		_exit(morsel_resize(self.morsel, 30 * PAGE) != 0);
	}
	close(fd);
	while (mrs_morsel_bytes(morsel) != 30 * PAGE)
		usleep(1000);
	kill(asker, SIGKILL);
	assert_int_equal(waitpid(asker, &status, 0), asker);
	kill(stopped.pid, SIGCONT);
	assert_true(morsel_pool_reap(pool) >= 0);
	assert_int_equal(mrs_morsel_bytes(morsel), PAGES * PAGE);
	for (uint64_t page = 0; page < PAGES; page++) {
		assert_int_equal(child_do(&stopped, 't', page), 'K');
		assert_int_equal(child_do(&a, 't', page), 'K');
	}
	assert_int_equal(morsel_resize(morsel, 30 * PAGE), 0);
	assert_int_equal(child_do(&stopped, 't', 30), 'S');
	child_end(&stopped, false);
	child_end(&a, false);
	end_pool(pool, morsel);
}

/* A fork has no service thread and needs none; its parent's goes on. */
static int fork_child(void *ctx)
{
	struct party *parent = ctx;

	morsel_view_destroy(parent->view);
	return morsel_close(parent->morsel) || morsel_pool_close(parent->pool);
}

static void test_fork(void **state)
{
	struct party parties[2];
	struct morsel *morsel;
	struct morsel_pool *pool = pool_with_m(&morsel);
	struct question q;

	join_in(&parties[0], morsel_pool_fd(pool));
	join_in(&parties[1], morsel_pool_fd(pool));
	assert_int_equal(support_in_child(fork_child, &parties[1]), 0);
	q = cut(&parties[0], parties, 2, 0);
	q.op = MRS_REQUEST_SCAN;
	q.count = PAGES;
	ask(&q);
	assert_int_equal(q.rc, 0);
	leave(&parties[0]);
	leave(&parties[1]);
	end_pool(pool, morsel);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_everyone),
		cmocka_unit_test(test_each_is_awaited),
		cmocka_unit_test(test_late_answer),
		cmocka_unit_test(test_withdrawn),
		cmocka_unit_test(test_uncut),
		cmocka_unit_test(test_full_inbox),
		cmocka_unit_test(test_scan_and_refusal),
		cmocka_unit_test(test_pager_requests),
		cmocka_unit_test(test_shrink_foreign),
		cmocka_unit_test(test_stopped),
		cmocka_unit_test(test_death_of_asked),
		cmocka_unit_test(test_death_of_asker),
		cmocka_unit_test(test_fork),
	};

	return cmocka_run_group_tests_name("view: mailbox", tests, NULL, NULL);
}
