/*
 * What views promise of evictable morsels: pages under a grant stay; others go, and come back at
 * the next access or grant as they were; a target that cannot fault is told before, and refuses
 * until it is granted again; a process that stands still does not stop the others.
 *
 * A CPU view is touched directly here, not by way of the kernel's copies: without privilege only
 * the faults of user space are served.
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

#include "base/atomic.h"
#include "base/base.h"
#include "contract/contract.h"
#include "object/object.h"
#include "support/counts.h"

#define BYTES (CONTRACT_PAGES * PAGE)

static bool is_cpu(struct morsel_view *view)
{
	return morsel_addr(view) != NULL;
}

static uint64_t *word_at(struct morsel_view *view, uint64_t page)
{
	return (uint64_t *)((char *)morsel_addr(view) + page * PAGE);
}

/* The first word of a page: by a touch where the target can fault, else under a grant. */
static uint64_t word_of(struct morsel_view *view, uint64_t page)
{
	struct morsel_grant grant;
	uint64_t word = 0;

	if (is_cpu(view))
		return __atomic_load_n(word_at(view, page), __ATOMIC_RELAXED);
	if (morsel_acquire(view, page * PAGE, PAGE, MORSEL_READ, &grant))
		fail_msg("%s", morsel_errormsg());
	assert_int_equal(contract_target->peek(view, page * PAGE, &word, 8), 0);
	morsel_release(&grant);
	return word;
}

static void put_word(struct morsel_view *view, uint64_t page, uint64_t word)
{
	struct morsel_grant grant;

	if (is_cpu(view)) {
		__atomic_store_n(word_at(view, page), word, __ATOMIC_RELAXED);
		return;
	}
	if (morsel_acquire(view, page * PAGE, PAGE, MORSEL_WRITE, &grant))
		fail_msg("%s", morsel_errormsg());
	assert_int_equal(contract_target->poke(view, page * PAGE, &word, 8), 0);
	morsel_release(&grant);
}

static uint64_t evicted_pages(struct morsel *morsel)
{
	uint64_t count = 0;

	for (uint64_t page = 0; page < CONTRACT_PAGES; page++) {
		struct mrs_run run;

		assert_int_equal(mrs_table_lookup(&morsel->table, page, 1, &run), 0);
		count += run.evicted;
	}
	return count;
}

/* The kernel must have userfaultfd for this user: else there is nothing to evict. */
static bool can_evict(struct contract *c)
{
	struct morsel_view *view = contract_open(c->morsel, 0);
	int rc = morsel_advise(c->morsel, 0, PAGE, MORSEL_ADVICE_EVICT);

	morsel_view_destroy(view);
	if (rc != -EOPNOTSUPP)
		return true;
	print_message("skipped: %s\n", morsel_errormsg());
	return false;
}

/* Evicts, waiting for a pager that has not got everybody's descriptor yet. */
static int evict(struct morsel *morsel, uint64_t page, uint64_t pages)
{
	int rc;

	for (unsigned i = 0; i < 500; i++) {
		rc = morsel_advise(morsel, page * PAGE, pages * PAGE, MORSEL_ADVICE_EVICT);
		if (rc != -EAGAIN)
			return rc;
		usleep(10000);
	}
	return rc;
}

/* Until so many pages are left: what somebody is at just then stays. */
static void evict_all(struct contract *c, uint64_t left)
{
	int rc = 0;

	for (unsigned i = 0; i < 500 && evicted_pages(c->morsel) < CONTRACT_PAGES - left; i++)
		rc = evict(c->morsel, 0, CONTRACT_PAGES);
	if (evicted_pages(c->morsel) != CONTRACT_PAGES - left)
		fail_msg("%llu pages are evicted; %d: %s",
			 (unsigned long long)evicted_pages(c->morsel), rc, morsel_errormsg());
}

/* After an eviction every page is what it was, for reading and for writing. */
void contract_evicted_comes_back(void **state)
{
	struct contract *c = *state;
	struct morsel_view *view, *other;

	if (!can_evict(c))
		skip();
	view = contract_open(c->morsel, 0);
	other = contract_open(c->morsel, MORSEL_READ);
	for (uint64_t round = 0; round < 3; round++) {
		evict_all(c, 0);
		for (uint64_t page = 0; page < CONTRACT_PAGES; page++) {
			uint64_t want = support_word(page, 7) + round;

			assert_int_equal(word_of(page % 2 ? view : other, page), want);
			put_word(view, page, want + 1);
			assert_int_equal(word_of(other, page), want + 1);
		}
	}
	morsel_view_destroy(view);
	evict_all(c, 0);
	for (uint64_t page = 0; page < CONTRACT_PAGES; page++)
		assert_int_equal(word_of(other, page), support_word(page, 7) + 3);
	morsel_view_destroy(other);
}

/* A write is not taken for none because its page was clean when its translation came back. */
void contract_restored_write(void **state)
{
	struct contract *c = *state;
	struct morsel_view *view;

	if (!can_evict(c))
		skip();
	view = contract_open(c->morsel, 0);
	for (uint64_t round = 1; round < 4; round++) {
		evict_all(c, 0);
		for (uint64_t page = 0; page < CONTRACT_PAGES; page += 7)
			word_of(view, page);
		for (uint64_t page = 0; page < CONTRACT_PAGES; page += 7) {
			struct morsel_grant grant;

			assert_int_equal(morsel_view_invalidate(view, page * PAGE, PAGE), 0);
			assert_int_equal(
				morsel_acquire(view, page * PAGE, PAGE, MORSEL_READ, &grant), 0);
			morsel_release(&grant);
			put_word(view, page, round);
		}
		evict_all(c, 0);
		for (uint64_t page = 0; page < CONTRACT_PAGES; page++)
			assert_int_equal(word_of(view, page),
					 page % 7 ? support_word(page, 7) : round);
	}
	morsel_view_destroy(view);
}

/* A huge page comes back also where the view does not show all of it. */
void contract_gap_in_huge(void **state)
{
	struct contract *c = *state;
	struct morsel *huge;
	struct morsel_view *view;

	if (!can_evict(c))
		skip();
	huge = support_morsel(c->pool, "huge", BYTES, contract_flags(contract_target->flags),
			      contract_target->pages);
	support_number(huge, c->pool, 7);
	view = contract_open(huge, 0);
	assert_int_equal(morsel_view_invalidate(view, 100 * PAGE, 5 * PAGE), 0);
	for (unsigned i = 0; i < 500 && evict(huge, 0, CONTRACT_PAGES); i++)
		;
	for (uint64_t page = 0; page < CONTRACT_PAGES; page++)
		if (page < 100 || page >= 105)
			assert_int_equal(word_of(view, page), support_word(page, 7));
	for (uint64_t page = 100; page < 105; page++) {
		struct morsel_grant grant;

		assert_int_equal(morsel_acquire(view, page * PAGE, 1, MORSEL_READ, &grant), 0);
		assert_int_equal(word_of(view, page), support_word(page, 7));
		morsel_release(&grant);
	}
	morsel_view_destroy(view);
	assert_int_equal(morsel_close(huge), 0);
}

/* A granted range is not evicted; who asks for just that is told who has it. */
void contract_pinned_stays(void **state)
{
	struct contract *c = *state;
	struct morsel_view *view, *other;
	struct morsel_grant grant, second;
	char pid[32];

	if (!can_evict(c))
		skip();
	view = contract_open(c->morsel, 0);
	other = contract_open(c->morsel, 0);
	assert_int_equal(morsel_acquire(view, 100 * PAGE, 9 * PAGE, MORSEL_WRITE, &grant), 0);
	assert_int_equal(morsel_acquire(other, 105 * PAGE + 9, 10, MORSEL_READ, &second), 0);
	assert_int_equal(evict(c->morsel, 100, 9), -EBUSY);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	assert_non_null(strstr(morsel_errormsg(), pid));
	evict_all(c, 9);
	for (uint64_t page = 100; page < 109; page++) {
		uint64_t word = page;

		assert_int_equal(contract_target->poke(view, page * PAGE, &word, 8), 0);
		word = 0;
		assert_int_equal(contract_target->peek(view, page * PAGE, &word, 8), 0);
		assert_int_equal(word, page);
	}
	morsel_release(&grant);
	assert_int_equal(evict(c->morsel, 105, 1), -EBUSY);
	morsel_release(&second);
	evict_all(c, 0);
	for (uint64_t page = 99; page < 110; page++)
		assert_int_equal(word_of(other, page),
				 page >= 100 && page < 109 ? page : support_word(page, 7));
	morsel_view_destroy(view);
	morsel_view_destroy(other);
}

/* Evicted, a target without faults refuses; a grant brings exactly its range back. */
void contract_told_before(void **state)
{
	struct contract *c = *state;
	struct morsel_view *view;
	struct morsel_grant grant;
	uint64_t generation;
	char byte;

	if (!can_evict(c))
		skip();
	view = contract_open(c->morsel, 0);
	if (is_cpu(view)) {
		morsel_view_destroy(view);
		return;
	}
	assert_int_equal(morsel_acquire(view, 0, BYTES, MORSEL_READ, &grant), 0);
	morsel_release(&grant);
	generation = morsel_view_target(view)->generation;
	assert_int_equal(evict(c->morsel, 50, 20), 0);
	assert_true(morsel_view_target(view)->generation > generation);
	for (uint64_t page = 50; page < 70; page++)
		assert_int_equal(contract_target->peek(view, page * PAGE, &byte, 1), -EFAULT);
	assert_int_equal(contract_target->peek(view, 49 * PAGE, &byte, 1), 0);
	assert_int_equal(contract_target->peek(view, 70 * PAGE, &byte, 1), 0);
	assert_int_equal(word_of(view, 55), support_word(55, 7));
	assert_int_equal(contract_target->peek(view, 55 * PAGE, &byte, 1), 0);
	assert_int_equal(contract_target->peek(view, 56 * PAGE, &byte, 1), -EFAULT);
	morsel_view_destroy(view);
}

/* Random evictions, writes, grants and invalidations beside an array of what each page holds. */
void contract_evict_random(void **state)
{
	struct contract *c = *state;
	uint64_t want[CONTRACT_PAGES], steps = COUNT_CONTRACT_STEPS;
	struct morsel_view *view[2];

	if (!can_evict(c))
		skip();
	for (unsigned i = 0; i < 2; i++)
		view[i] = contract_open(c->morsel, 0);
	for (uint64_t page = 0; page < CONTRACT_PAGES; page++)
		want[page] = support_word(page, 7);
	for (uint64_t i = 0; i < steps; i++) {
		uint64_t r = test_random(&c->random);
		uint64_t page = (r >> 8) % CONTRACT_PAGES;
		uint64_t pages = 1 + (r >> 24) % mrs_min(CONTRACT_PAGES - page, 40);
		struct morsel_view *v = view[r & 1];
		struct morsel_grant grant;

		switch (r >> 1 & 7) {
		case 0:
			assert_int_equal(evict(c->morsel, page, pages), 0);
			break;
		case 1:
			if (morsel_acquire(v, page * PAGE, pages * PAGE, MORSEL_READ, &grant))
				fail_msg("%s", morsel_errormsg());
			for (uint64_t k = 0; k < pages; k++) {
				uint64_t word;

				assert_int_equal(
					contract_target->peek(v, (page + k) * PAGE, &word, 8), 0);
				assert_int_equal(word, want[page + k]);
			}
			morsel_release(&grant);
			break;
		case 2:
			assert_int_equal(morsel_view_invalidate(v, page * PAGE, pages * PAGE), 0);
			assert_int_equal(
				morsel_acquire(v, page * PAGE, pages * PAGE, MORSEL_WRITE, &grant),
				0);
			morsel_release(&grant);
			break;
		case 3:
		case 4:
			want[page] = r;
			put_word(v, page, r);
			break;
		default:
			assert_int_equal(word_of(v, page), want[page]);
		}
	}
	for (uint64_t page = 0; page < CONTRACT_PAGES; page++)
		assert_int_equal(word_of(view[0], page), want[page]);
	morsel_view_destroy(view[0]);
	morsel_view_destroy(view[1]);
}

struct users {
	struct contract *c;
	struct morsel_view *view;
	uint64_t stop;
	unsigned which;
};

/* Each thread counts in its own word of every page: a lost write is a step back. */
static void *count(void *arg)
{
	struct users *users = arg;
	uint64_t random = users->which, steps = COUNT_CONTRACT_GRANTS;
	static uint64_t want[2][CONTRACT_PAGES];

	memset(want[users->which], 0, sizeof(want[0]));
	for (uint64_t i = 0; i < steps; i++) {
		uint64_t page = test_random(&random) % CONTRACT_PAGES, word;
		uint64_t offset = page * PAGE + 64 + 8 * users->which;
		struct morsel_grant grant;

		if (morsel_acquire(users->view, offset, 8, MORSEL_READ | MORSEL_WRITE, &grant))
			fail_msg("%s", morsel_errormsg());
		assert_int_equal(contract_target->peek(users->view, offset, &word, 8), 0);
		assert_int_equal(word, want[users->which][page]);
		word = ++want[users->which][page];
		assert_int_equal(contract_target->poke(users->view, offset, &word, 8), 0);
		morsel_release(&grant);
	}
	mrs_fetch_add(&users->stop, 1);
	return NULL;
}

void contract_evict_threads(void **state)
{
	struct contract *c = *state;
	struct users users[2];
	uint64_t zero[2] = {0}, busy = 0, done = 0, random = 9;
	pthread_t threads[2];

	if (!can_evict(c))
		skip();
	for (unsigned i = 0; i < 2; i++)
		users[i] = (struct users){.c = c, .view = contract_open(c->morsel, 0), .which = i};
	for (uint64_t page = 0; page < CONTRACT_PAGES; page++) {
		struct morsel_grant grant;

		assert_int_equal(
			morsel_acquire(users[0].view, page * PAGE + 64, 16, MORSEL_WRITE, &grant),
			0);
		assert_int_equal(contract_target->poke(users[0].view, page * PAGE + 64, zero, 16),
				 0);
		morsel_release(&grant);
	}
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, count, &users[i]), 0);
	while (!mrs_load_acquire(&users[0].stop) || !mrs_load_acquire(&users[1].stop)) {
		uint64_t page = test_random(&random) % (CONTRACT_PAGES - 16);
		int rc = morsel_advise(c->morsel, page * PAGE, 16 * PAGE, MORSEL_ADVICE_EVICT);

		if (rc && rc != -EBUSY && rc != -EAGAIN)
			fail_msg("%d: %s", rc, morsel_errormsg());
		busy += rc != 0;
		done += !rc;
	}
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	printf("%llu evictions, %llu were refused\n", (unsigned long long)done,
	       (unsigned long long)busy);
	morsel_view_destroy(users[0].view);
	morsel_view_destroy(users[1].view);
}

/* A child with a view that it has used, stopped. */
static pid_t stopped_child(struct contract *c)
{
	int ready[2], status;
	char byte;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	fflush(NULL);
	pid = fork();
	if (!pid) {
		struct morsel_pool *pool = support_pool_again(c->fd);
		struct morsel_map_opts opts = {.size = sizeof(opts)};
		struct morsel_view *view;
		struct morsel_grant grant;
		struct morsel *morsel;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		contract_child();
		if (!pool || morsel_open(pool, "morsel", NULL, &morsel) ||
		    contract_target->open(morsel, &opts, &view) ||
		    morsel_acquire(view, 0, BYTES, MORSEL_WRITE, &grant))
			_exit(1);
		morsel_release(&grant);
		if (write(ready[1], "r", 1) != 1)
			_exit(2);
		raise(SIGSTOP);
		for (uint64_t page = 0; page < CONTRACT_PAGES; page++)
			if (word_of(view, page) != support_word(page, 8))
				_exit(3);
		morsel_view_destroy(view);
		_exit(morsel_close(morsel) || morsel_pool_close(pool) ? 4 : 0);
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
	assert_true(WIFSTOPPED(status));
	return pid;
}

/*
 * Others go on beside a process that stands still: what it cannot be made to forget stays, a page
 * that the kernel takes away from it may go; and when it is continued it sees what was written
 * meanwhile.
 */
void contract_stopped_process(void **state)
{
	struct contract *c = *state;
	struct morsel_view *view;
	int rc, status;
	pid_t pid;

#ifdef __SANITIZE_THREAD__
	skip(); /* its runtime does not survive threads in a child of fork */
#endif
	if (!can_evict(c))
		skip();
	view = contract_open(c->morsel, 0);
	pid = stopped_child(c);
	rc = evict(c->morsel, 0, CONTRACT_PAGES);
	if (is_cpu(view))
		assert_int_equal(rc, 0);
	else
		assert_true(rc == -ETIMEDOUT || rc == -EAGAIN || rc == -EBUSY);
	for (uint64_t page = 0; page < CONTRACT_PAGES; page++) {
		assert_int_equal(word_of(view, page), support_word(page, 7));
		put_word(view, page, support_word(page, 8));
	}
	kill(pid, SIGCONT);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	evict_all(c, 0);
	for (uint64_t page = 0; page < CONTRACT_PAGES; page++)
		assert_int_equal(word_of(view, page), support_word(page, 8));
	morsel_view_destroy(view);
}
