/*
 * The promises of architecture.md, section 3, as far as they concern a view, for any target. A
 * target with a copy of its own is up to date under a grant only; so content is compared under
 * grants.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/atomic.h"
#include "base/base.h"
#include "contract/contract.h"
#include "support/counts.h"

#define BYTES (CONTRACT_PAGES * PAGE)

static int peek_one(struct morsel_view *view, uint64_t offset)
{
	char byte;

	return contract_target->peek(view, offset, &byte, 1);
}

static int poke_one(struct morsel_view *view, uint64_t offset)
{
	char byte = 1;

	return contract_target->poke(view, offset, &byte, 1);
}

/* A grant of one byte, released at once. */
static int grant_one(struct morsel_view *view, uint64_t offset)
{
	struct morsel_grant grant;
	int rc = morsel_acquire(view, offset, 1, MORSEL_READ, &grant);

	if (!rc)
		morsel_release(&grant);
	return rc;
}

static bool has(uint32_t cap)
{
	return contract_caps & cap;
}

/* ---- 1: one truth ---- */

/* Everything that is mapped reads the morsel's bytes: whole, in parts, over page boundaries. */
void contract_one_truth(void **state)
{
	struct contract *c = *state;
	struct morsel_map_opts part = {
		.size = sizeof(part), .offset = 100 * PAGE, .bytes = 50 * PAGE - 1000};
	struct morsel_view *view = contract_open(c->morsel, 0), *some;

	assert_int_equal(morsel_view_bytes(view), BYTES);
	contract_check(c, view, 0, 0, BYTES);
	for (int i = 0; i < 100; i++) {
		uint64_t offset = test_random(&c->random) % BYTES;
		uint64_t bytes = 1 + test_random(&c->random) % mrs_min(BYTES - offset, 3 * PAGE);

		contract_check(c, view, 0, offset, bytes);
	}
	assert_int_equal(contract_target->open(c->morsel, &part, &some), 0);
	assert_int_equal(morsel_view_bytes(some), part.bytes);
	contract_check(c, some, part.offset, 0, part.bytes);
	contract_write(some, 17, 3 * PAGE, 99);
	contract_check(c, some, part.offset, 0, part.bytes);
	contract_check(c, view, 0, 99 * PAGE, 60 * PAGE);
	morsel_view_destroy(some);
	morsel_view_destroy(view);
}

/* Without translation the target is refused: not older bytes, not others, not zeros. */
void contract_invalidate(void **state)
{
	struct contract *c = *state;
	struct morsel_view *view = contract_open(c->morsel, 0);
	struct morsel_view *other = contract_open(c->morsel, 0);
	uint64_t generation = morsel_view_target(view)->generation;

	contract_check(c, view, 0, 0, BYTES);
	contract_check(c, other, 0, 0, BYTES);
	assert_int_equal(morsel_view_invalidate(view, 10 * PAGE, 5 * PAGE), 0);
	assert_int_equal(morsel_view_target(view)->generation, generation + 1);
	for (uint64_t page = 8; page < 18; page++) {
		bool gone = page >= 10 && page < 15;

		assert_int_equal(peek_one(view, page * PAGE), gone ? -EFAULT : 0);
		assert_int_equal(peek_one(view, page * PAGE + PAGE - 1), gone ? -EFAULT : 0);
		/* What is written to a copy without a grant is nobody's promise. */
		if (gone || has(MORSEL_CAP_COHERENT))
			assert_int_equal(poke_one(view, page * PAGE + 7), gone ? -EFAULT : 0);
		assert_int_equal(peek_one(other, page * PAGE), 0);
	}
	/* Twice is as good as once. */
	assert_int_equal(morsel_view_invalidate(view, 9 * PAGE, 3 * PAGE), 0);
	assert_int_equal(peek_one(view, 9 * PAGE), -EFAULT);
	/* A grant restores what it covers, and nothing else. */
	contract_check(c, view, 0, 11 * PAGE + 5, PAGE);
	assert_int_equal(peek_one(view, 10 * PAGE), -EFAULT);
	assert_int_equal(peek_one(view, 13 * PAGE), -EFAULT);
	contract_check(c, view, 0, 0, BYTES);
	assert_int_equal(morsel_view_invalidate(view, 0, BYTES), 0);
	for (uint64_t page = 0; page < CONTRACT_PAGES; page++)
		assert_int_equal(peek_one(view, page * PAGE), -EFAULT);
	contract_check(c, other, 0, 0, BYTES);
	morsel_view_destroy(view);
	morsel_view_destroy(other);
}

/* Random invalidations, grants and writes on two views, beside an array of flags each. */
void contract_random(void **state)
{
	struct contract *c = *state;
	struct morsel_view *views[2] = {contract_open(c->morsel, 0), contract_open(c->morsel, 0)};
	bool gone[2][CONTRACT_PAGES] = {{false}};
	uint64_t steps = COUNT_CONTRACT_STEPS;

	contract_check(c, views[0], 0, 0, BYTES);
	contract_check(c, views[1], 0, 0, BYTES);
	for (uint64_t i = 0; i < steps; i++) {
		uint64_t r = test_random(&c->random);
		unsigned v = r & 1;
		uint64_t page = (r >> 8) % CONTRACT_PAGES;
		uint64_t pages = 1 + (r >> 24) % mrs_min(CONTRACT_PAGES - page, 40);
		uint64_t probe = (r >> 40) % CONTRACT_PAGES;

		switch (r >> 1 & 3) {
		case 0:
			assert_int_equal(
				morsel_view_invalidate(views[v], page * PAGE, pages * PAGE), 0);
			memset(&gone[v][page], true, pages);
			break;
		case 1:
			contract_write(views[v], page * PAGE + 5, pages * PAGE - 9, r);
			memset(&gone[v][page], false, pages);
			break;
		default:
			contract_check(c, views[v], 0, page * PAGE, pages * PAGE);
			memset(&gone[v][page], false, pages);
		}
		assert_int_equal(peek_one(views[v], probe * PAGE), gone[v][probe] ? -EFAULT : 0);
	}
	contract_check(c, views[0], 0, 0, BYTES);
	contract_check(c, views[1], 0, 0, BYTES);
	morsel_view_destroy(views[0]);
	morsel_view_destroy(views[1]);
}

/* What one view writes the other reads, and both are the morsel. */
void contract_coherent(void **state)
{
	struct contract *c = *state;
	struct morsel_view *a = contract_open(c->morsel, 0), *b = contract_open(c->morsel, 0);

	for (uint64_t i = 0; i < 60; i++) {
		uint64_t offset = test_random(&c->random) % (BYTES - 9000);

		contract_write(i % 2 ? a : b, offset, 9000, i);
		contract_check(c, a, 0, offset, 9000);
		contract_check(c, b, 0, offset, 9000);
	}
	/* A coherent target needs no further grant to see it. */
	if (has(MORSEL_CAP_COHERENT)) {
		char mark[] = "seen at once", seen[sizeof(mark)];

		/* But for the first one, where pages come and go. */
		assert_int_equal(grant_one(a, 5000), 0);
		assert_int_equal(grant_one(b, 5000), 0);
		assert_int_equal(contract_target->poke(a, 5000, mark, sizeof(mark)), 0);
		assert_int_equal(contract_target->peek(b, 5000, seen, sizeof(seen)), 0);
		assert_string_equal(seen, mark);
	}
	morsel_view_destroy(a);
	morsel_view_destroy(b);
}

/* ---- 2: no early reuse ---- */

/* What is granted is not taken away, and what is taken away cannot be reached. */
static void check_cut(struct contract *c, struct morsel_view *view)
{
	struct morsel_grant grant;

	assert_int_equal(morsel_acquire(view, BYTES / 2 - 5, 10, MORSEL_READ, &grant), 0);
	assert_int_equal(morsel_resize(c->morsel, BYTES / 2), -EBUSY);
	assert_int_equal(peek_one(view, BYTES / 2), 0);
	contract_check(c, view, 0, 0, BYTES);
	morsel_release(&grant);
	assert_int_equal(morsel_resize(c->morsel, BYTES / 2), 0);
	assert_int_equal(peek_one(view, BYTES / 2 - 1), 0);
	for (uint64_t page = CONTRACT_PAGES / 2; page < CONTRACT_PAGES; page++) {
		assert_int_equal(peek_one(view, page * PAGE), -EFAULT);
		assert_int_equal(poke_one(view, page * PAGE), -EFAULT);
	}
	assert_int_equal(morsel_acquire(view, BYTES / 2, 1, MORSEL_READ, &grant), -ERANGE);
	contract_check(c, view, 0, 0, BYTES / 2);
}

/* As long as a view reaches a page its frame serves nobody else: shrink and unlink see to that. */
void contract_no_early_reuse(void **state)
{
	struct contract *c = *state;
	struct morsel_view *view = contract_open(c->morsel, 0);
	char before[100], after[100];
	struct morsel *other;

	contract_check(c, view, 0, 0, BYTES);
	check_cut(c, view);
	contract_truth(c, c->morsel, BYTES / 2 - 100, before, 100);
	assert_int_equal(morsel_unlink(c->pool, "morsel"), 0);
	other = support_morsel(c->pool, "other", BYTES, contract_flags(0), MORSEL_PAGES_4K);
	support_number(other, c->pool, 8);
	contract_check(c, view, 0, 0, BYTES / 2);
	contract_truth(c, c->morsel, BYTES / 2 - 100, after, 100);
	assert_memory_equal(before, after, 100);
	for (uint64_t page = CONTRACT_PAGES / 2; page < CONTRACT_PAGES; page++)
		assert_int_equal(peek_one(view, page * PAGE), -EFAULT);
	assert_int_equal(morsel_close(c->morsel), -EBUSY);
	assert_int_equal(morsel_resize(c->morsel, PAGE), 0);
	assert_int_equal(peek_one(view, PAGE), -EFAULT);
	morsel_view_destroy(view);
	assert_int_equal(morsel_close(other), 0);
}

/* What was cut comes back when the morsel grows again: by a grant, and empty. */
void contract_cut_and_grown(void **state)
{
	struct contract *c = *state;
	struct morsel_view *view = contract_open(c->morsel, 0);
	char byte = 1;
	int rc;

	contract_check(c, view, 0, 0, BYTES);
	assert_int_equal(morsel_resize(c->morsel, 10 * PAGE + 5), 0);
	assert_int_equal(morsel_resize(c->morsel, BYTES), 0);
	assert_int_equal(peek_one(view, 10 * PAGE), 0);
	assert_int_equal(peek_one(view, 11 * PAGE), -EFAULT);
	contract_check(c, view, 0, 0, 11 * PAGE);
	rc = grant_one(view, 300 * PAGE);
	if (!has(MORSEL_CAP_SCATTER) && rc == -EOPNOTSUPP) {
		printf("the morsel did not grow in place: more than one run\n");
	} else {
		assert_int_equal(rc, 0);
		contract_check(c, view, 0, 11 * PAGE, BYTES - 11 * PAGE);
		assert_int_equal(contract_target->peek(view, 300 * PAGE, &byte, 1), 0);
		assert_int_equal(byte, 0);
	}
	morsel_view_destroy(view);
}

/* ---- 3: nothing lost ---- */

void contract_nothing_lost(void **state)
{
	struct contract *c = *state;
	char wrote[3000], have[3000];

	for (int i = 0; i < 20; i++) {
		uint64_t offset = test_random(&c->random) % (BYTES - sizeof(wrote));
		struct morsel_view *view = contract_open(c->morsel, 0);
		struct morsel_grant grant;

		memset(wrote, 'a' + i, sizeof(wrote));
		assert_int_equal(morsel_acquire(view, offset, sizeof(wrote), MORSEL_WRITE, &grant),
				 0);
		assert_int_equal(contract_target->poke(view, offset, wrote, sizeof(wrote)), 0);
		morsel_release(&grant);
		if (i % 2)
			assert_int_equal(morsel_view_invalidate(view, 0, BYTES), 0);
		if (i % 3)
			contract_check(c, view, 0, offset, sizeof(wrote));
		morsel_view_destroy(view);
		contract_truth(c, c->morsel, offset, have, sizeof(have));
		assert_memory_equal(wrote, have, sizeof(have));
	}
}

/* ---- 4: what is granted stays, what is missing is said ---- */

void contract_grants_hold(void **state)
{
	struct contract *c = *state;
	struct morsel_view *view = contract_open(c->morsel, 0);
	struct morsel_grant first, second, zero = {0};

	assert_int_equal(morsel_acquire(view, 20 * PAGE + 1, PAGE, MORSEL_READ, &first), 0);
	assert_int_equal(morsel_acquire(view, 21 * PAGE, 10, MORSEL_READ, &second), 0);
	assert_int_equal(morsel_view_invalidate(view, 20 * PAGE, PAGE), -EBUSY);
	assert_int_equal(morsel_view_invalidate(view, 0, BYTES), -EBUSY);
	assert_int_equal(peek_one(view, 20 * PAGE + 1), 0);
	assert_int_equal(morsel_view_invalidate(view, 22 * PAGE, PAGE), 0);
	assert_int_equal(morsel_view_invalidate(view, 19 * PAGE, PAGE), 0);
	morsel_release(&first);
	assert_int_equal(morsel_view_invalidate(view, 20 * PAGE, PAGE), 0);
	assert_int_equal(morsel_view_invalidate(view, 21 * PAGE, PAGE), -EBUSY);
	morsel_release(&first);
	morsel_release(&zero);
	assert_int_equal(morsel_view_invalidate(view, 21 * PAGE, PAGE), -EBUSY);
	morsel_release(&second);
	assert_int_equal(morsel_view_invalidate(view, 21 * PAGE, PAGE), 0);
	assert_int_equal(peek_one(view, 21 * PAGE), -EFAULT);
	assert_int_equal(morsel_acquire(view, BYTES, 1, MORSEL_READ, &first), -ERANGE);
	assert_int_equal(morsel_acquire(view, BYTES - 1, 2, MORSEL_READ, &first), -ERANGE);
	assert_int_equal(morsel_acquire(view, UINT64_MAX, UINT64_MAX, MORSEL_READ, &first),
			 -ERANGE);
	assert_int_equal(morsel_acquire(view, 0, 0, MORSEL_READ, &first), -ERANGE);
	morsel_view_destroy(view);
}

/* A lazy morsel: refused where there is nothing yet; a grant gives memory, zeroed, that all see. */
void contract_lazy(void **state)
{
	struct contract *c = *state;
	struct morsel *lazy = support_morsel(c->pool, "lazy", BYTES, contract_flags(MORSEL_LAZY),
					     MORSEL_PAGES_4K);
	struct morsel_map_opts opts = {.size = sizeof(opts)};
	struct morsel_view *view, *other;
	char byte = 1;

	if (!has(MORSEL_CAP_HOLES)) {
		assert_int_equal(contract_target->open(lazy, &opts, &view), -EOPNOTSUPP);
		assert_int_equal(morsel_close(lazy), 0);
		return;
	}
	view = contract_open(lazy, 0);
	other = contract_open(lazy, 0);
	assert_int_equal(peek_one(view, 0), -EFAULT);
	assert_int_equal(poke_one(view, 7 * PAGE), -EFAULT);
	contract_write(view, 7 * PAGE + 3, 10, 5);
	assert_int_equal(contract_target->peek(view, 7 * PAGE, &byte, 1), 0);
	assert_int_equal(byte, 0);
	assert_int_equal(peek_one(view, 5 * PAGE), -EFAULT);
	for (int i = 0; i < 2; i++) {
		struct morsel_grant grant;
		char want[10], have[10];

		assert_int_equal(
			morsel_acquire(i ? view : other, 7 * PAGE + 3, 10, MORSEL_READ, &grant), 0);
		assert_int_equal(contract_target->peek(i ? view : other, 7 * PAGE + 3, have, 10),
				 0);
		contract_truth(c, lazy, 7 * PAGE + 3, want, 10);
		assert_memory_equal(want, have, 10);
		morsel_release(&grant);
	}
	morsel_view_destroy(other);
	morsel_view_destroy(view);
	assert_int_equal(morsel_close(lazy), 0);
}

/* A morsel that grows: old views are what they were, a new one shows the new bytes, as zeros. */
void contract_grow(void **state)
{
	struct contract *c = *state;
	struct morsel_view *old = contract_open(c->morsel, 0), *larger;
	struct morsel_map_opts opts = {.size = sizeof(opts)};
	char byte = 1;
	int rc;

	contract_check(c, old, 0, 0, BYTES);
	assert_int_equal(morsel_resize(c->morsel, BYTES + 10 * PAGE), 0);
	assert_int_equal(morsel_view_bytes(old), BYTES);
	contract_check(c, old, 0, 0, BYTES);
	rc = contract_target->open(c->morsel, &opts, &larger);
	if (!has(MORSEL_CAP_SCATTER) && rc == -EOPNOTSUPP) {
		printf("the morsel did not grow in place: more than one run\n");
	} else {
		assert_int_equal(rc, 0);
		assert_int_equal(morsel_view_bytes(larger), BYTES + 10 * PAGE);
		contract_check(c, larger, 0, 0, BYTES + 10 * PAGE);
		contract_write(larger, BYTES - 50, 100, 3);
		contract_check(c, old, 0, BYTES - 50, 50);
		contract_check(c, larger, 0, BYTES, 10 * PAGE);
		assert_int_equal(contract_target->peek(larger, BYTES + 9 * PAGE, &byte, 1), 0);
		assert_int_equal(byte, 0);
		morsel_view_destroy(larger);
	}
	assert_int_equal(morsel_resize(c->morsel, BYTES), 0);
	contract_check(c, old, 0, 0, BYTES);
	morsel_view_destroy(old);
}

/* ---- rights ---- */

void contract_rights(void **state)
{
	struct contract *c = *state;
	struct morsel_map_opts write = {.size = sizeof(write), .access = MORSEL_WRITE};
	struct morsel_view *reader = contract_open(c->morsel, MORSEL_READ), *writer;
	struct morsel_grant grant;
	int rc;

	contract_check(c, reader, 0, 0, BYTES);
	assert_int_equal(morsel_acquire(reader, 0, 1, MORSEL_WRITE, &grant), -EACCES);
	rc = poke_one(reader, 5);
	assert_true(rc == -EFAULT || rc == -EACCES);
	writer = contract_open(c->morsel, 0);
	assert_int_equal(morsel_seal(c->morsel), -EBUSY);
	morsel_view_destroy(writer);
	assert_int_equal(morsel_seal(c->morsel), 0);
	assert_int_equal(contract_target->open(c->morsel, &write, &writer), -EROFS);
	contract_check(c, reader, 0, 0, BYTES);
	morsel_view_destroy(reader);
	reader = contract_open(c->morsel, 0);
	contract_check(c, reader, 0, 0, BYTES);
	morsel_view_destroy(reader);
}

/* ---- 6: position independence ---- */

static int look_from_child(void *ctx)
{
	struct contract *c = ctx;
	struct morsel_pool *pool = support_pool_again(c->fd);
	struct morsel_map_opts opts = {.size = sizeof(opts)};
	struct morsel_grant grant;
	struct morsel_view *view;
	struct morsel *morsel;

	contract_child();
	if (!pool || morsel_open(pool, "morsel", NULL, &morsel) ||
	    contract_target->open(morsel, &opts, &view) ||
	    morsel_acquire(view, 0, BYTES, MORSEL_READ | MORSEL_WRITE, &grant))
		return 1;
	for (uint64_t page = 0; page < CONTRACT_PAGES; page++) {
		uint64_t word, mark = support_word(page, 9);

		if (contract_target->peek(view, page * PAGE, &word, 8) ||
		    word != support_word(page, 7) ||
		    contract_target->poke(view, page * PAGE, &mark, 8))
			return 2;
	}
	morsel_release(&grant);
	morsel_view_destroy(view);
	return morsel_close(morsel) || morsel_pool_close(pool) ? 3 : 0;
}

/* Another process, with the pool at another address, sees the same and is seen. */
void contract_position(void **state)
{
	struct contract *c = *state;
	struct morsel_view *view;

#ifdef __SANITIZE_THREAD__
	skip(); /* its runtime does not survive threads in a child of fork */
#endif
	view = contract_open(c->morsel, 0);
	assert_int_equal(support_in_child(look_from_child, c), 0);
	contract_check(c, view, 0, 0, BYTES);
	for (uint64_t page = 0; page < CONTRACT_PAGES; page++) {
		uint64_t word;

		assert_int_equal(contract_target->peek(view, page * PAGE, &word, 8), 0);
		assert_int_equal(word, support_word(page, 9));
	}
	morsel_view_destroy(view);
}

/* ---- several threads ---- */

struct users {
	struct morsel_view *view;
	uint64_t stop;
	uint64_t refused; /* invalidations that met a grant */
};

/* Under a grant the content is there, whatever the other thread does. */
static void *use_grants(void *arg)
{
	struct users *users = arg;
	uint64_t random = 3, steps = COUNT_CONTRACT_GRANTS;

	for (uint64_t i = 0; i < steps; i++) {
		uint64_t page = test_random(&random) % CONTRACT_PAGES, word = 0;
		struct morsel_grant grant;
		int rc = morsel_acquire(users->view, page * PAGE, 8, MORSEL_READ, &grant);

		assert_int_equal(rc, 0);
		assert_int_equal(contract_target->peek(users->view, page * PAGE, &word, 8), 0);
		assert_int_equal(word, support_word(page, 7));
		morsel_release(&grant);
	}
	mrs_fetch_add(&users->stop, 1);
	return NULL;
}

static void *take_away(void *arg)
{
	struct users *users = arg;
	uint64_t random = 4;

	while (mrs_load_acquire(&users->stop) < 2) {
		uint64_t page = test_random(&random) % (CONTRACT_PAGES - 16);
		int rc = morsel_view_invalidate(users->view, page * PAGE, 16 * PAGE);

		assert_true(!rc || rc == -EBUSY);
		mrs_fetch_add(&users->refused, rc != 0);
	}
	return NULL;
}

void contract_threads(void **state)
{
	struct contract *c = *state;
	struct users users = {.view = contract_open(c->morsel, 0)};
	pthread_t threads[3];

	for (int i = 0; i < 3; i++)
		assert_int_equal(
			pthread_create(&threads[i], NULL, i < 2 ? use_grants : take_away, &users),
			0);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	printf("%llu invalidations met a grant\n", (unsigned long long)users.refused);
	contract_check(c, users.view, 0, 0, BYTES);
	morsel_view_destroy(users.view);
}

/* Destroying cannot fail: with everything translated, with nothing, with grants held, side by side.
 */
void contract_destroy_any_time(void **state)
{
	struct contract *c = *state;
	struct morsel_view *stays = contract_open(c->morsel, 0);

	for (int i = 0; i < 8; i++) {
		struct morsel_view *view = contract_open(c->morsel, i & 1 ? MORSEL_READ : 0);
		struct morsel_grant grant;

		if (i & 2)
			assert_int_equal(morsel_view_invalidate(view, 0, i & 1 ? BYTES : PAGE), 0);
		if (i & 4)
			assert_int_equal(morsel_acquire(view, 0, 5 * PAGE, MORSEL_READ, &grant), 0);
		morsel_view_destroy(view);
		contract_check(c, stays, 0, 0, BYTES);
	}
	/* Nobody is registered any more but the one that stays. */
	assert_int_equal(morsel_seal(c->morsel), -EBUSY);
	morsel_view_destroy(stays);
	assert_int_equal(morsel_seal(c->morsel), 0);
}

/* ---- 7: a backend may say no, by name, and only where it is listed ---- */

static int fill_in(void *ctx, uint64_t offset, uint64_t bytes, int access)
{
	struct morsel_grant grant;
	int rc = morsel_acquire(ctx, offset, bytes, access, &grant);

	if (!rc)
		morsel_release(&grant);
	return rc;
}

static void check_faulting(struct contract *c, struct morsel_view *view)
{
	assert_int_equal(morsel_view_fault_start(view, fill_in, view), 0);
	assert_int_equal(morsel_view_invalidate(view, 0, 5 * PAGE), 0);
	assert_int_equal(peek_one(view, 2 * PAGE), 0);
	assert_int_equal(morsel_view_fault_stop(view), 0);
	assert_int_equal(peek_one(view, 3 * PAGE), -EFAULT);
	contract_check(c, view, 0, 0, BYTES);
}

static int dirty_page(void *ctx, uint64_t offset, uint64_t bytes)
{
	for (uint64_t page = offset / PAGE; page < (offset + bytes) / PAGE; page++)
		((bool *)ctx)[page] = true;
	return 0;
}

static void check_dirty(struct contract *c, struct morsel_view *view)
{
	bool written[CONTRACT_PAGES] = {false}, dirty[CONTRACT_PAGES] = {false};

	assert_int_equal(morsel_view_dirty_start(view), 0);
	for (int i = 0; i < 30; i++) {
		uint64_t page = test_random(&c->random) % CONTRACT_PAGES;

		written[page] = true;
		contract_write(view, page * PAGE + 9, 30, page);
		contract_check(c, view, 0, page * PAGE, PAGE);
	}
	assert_int_equal(morsel_view_dirty_collect(view, 0, BYTES, dirty_page, dirty), 0);
	assert_memory_equal(written, dirty, sizeof(dirty));
	memset(dirty, 0, sizeof(dirty));
	assert_int_equal(morsel_view_dirty_collect(view, 0, BYTES, dirty_page, dirty), 0);
	for (unsigned i = 0; i < CONTRACT_PAGES; i++)
		assert_false(dirty[i]);
	assert_int_equal(morsel_view_dirty_stop(view), 0);
}

static void check_export(struct contract *c, struct morsel_view *view)
{
	int fd = -1;

	assert_int_equal(morsel_view_export(view, 0, PAGE, &fd), 0);
	assert_true(fd >= 0);
	assert_int_equal(morsel_view_invalidate(view, 0, PAGE), -EBUSY);
	assert_int_equal(morsel_view_export_revoke(view, fd), 0);
	assert_int_equal(morsel_view_invalidate(view, 0, PAGE), 0);
}

static void refused_by_name(struct morsel_view *view, int rc)
{
	assert_int_equal(rc, -EOPNOTSUPP);
	assert_non_null(strstr(morsel_errormsg(), morsel_view_backend_name(view)));
}

void contract_says_no(void **state)
{
	struct contract *c = *state;
	struct morsel_view *view = contract_open(c->morsel, 0);
	int fd;

	if (morsel_view_caps(view) != contract_caps)
		fail_msg("%s can do 0x%x, and capabilities.tsv lists 0x%x", contract_target->name,
			 morsel_view_caps(view), contract_caps);
	assert_int_equal(morsel_addr(view) != NULL, has(MORSEL_CAP_ADDRESS));
	if (has(MORSEL_CAP_FAULTABLE))
		check_faulting(c, view);
	else
		refused_by_name(view, morsel_view_fault_start(view, fill_in, view));
	if (has(MORSEL_CAP_DIRTY))
		check_dirty(c, view);
	else
		refused_by_name(view, morsel_view_dirty_start(view));
	if (has(MORSEL_CAP_EXPORT))
		check_export(c, view);
	else
		refused_by_name(view, morsel_view_export(view, 0, PAGE, &fd));
	morsel_view_destroy(view);
}
