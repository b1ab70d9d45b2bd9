/*
 * Retarget's locks: batches against a model, exclusion between threads, waiting and waking, and
 * what becomes of a run.
 */
#include "object_window.h"

#include <errno.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include "object/bring.h"
#include "support/counts.h"

#define PAGES 1500u /* not a multiple of a leaf table's */

struct fixture {
	struct morsel_pool *pool;
	struct morsel *morsel;
};

static void setup(struct fixture *f, uint32_t flags, uint32_t pages)
{
	f->pool = object_pool(64 * MIB);
	f->morsel = object_create(f->pool, "m", PAGES * 4096ull, flags, pages);
}

static void teardown(struct fixture *f)
{
	assert_ok(morsel_close(f->morsel));
	object_pool_end(f->pool);
}

static bool any(void *ctx, uint64_t page, uint64_t entry)
{
	return true;
}

static bool none(void *ctx, uint64_t page, uint64_t entry)
{
	return false;
}

/* ---- batches ---- */

/* A model of marks, page by page: DIRTY is what a random batch sets or clears. */
static void model_step(struct fixture *f, bool *dirty, uint64_t *random)
{
	uint64_t page = test_random(random) % (PAGES + 40), pages = 1 + test_random(random) % 700;
	uint64_t next, end = mrs_min(page + pages, PAGES);
	struct mrs_retarget batch;
	int rc = mrs_retarget_begin(f->morsel, MRS_RETARGET_DIRTY, page, pages, any, NULL, &batch,
				    &next);

	assert_ok(rc);
	if (page >= PAGES) {
		assert_int_equal(rc, 0);
		return;
	}
	/* Up to the end of the leaf table, or of what was asked. */
	assert_int_equal(next, mrs_min(end, mrs_round_down(page, 512) + 512));
	assert_int_equal(rc, next - page);
	assert_int_equal(batch.page, page);
	for (unsigned i = 0; i < batch.count; i++) {
		assert_true(mrs_retarget_has(&batch, i));
		assert_int_equal(!!(batch.before[i] & MRS_ENTRY_DIRTY), dirty[page + i]);
	}
	for (unsigned i = 0; i < batch.count; i++) {
		uint64_t entry = batch.before[i];

		switch (test_random(random) % 4) {
		case 0:
			mrs_retarget_set(&batch, i, entry ^ MRS_ENTRY_DIRTY);
			dirty[page + i] ^= true;
			break;
		case 1:
			mrs_retarget_drop(&batch, i);
			break;
		case 2:
			mrs_retarget_dirty(&batch, i);
			dirty[page + i] = true;
			break;
		}
	}
	mrs_retarget_abort(&batch); /* those that are left go back, dirty ones as such */
}

static void test_model(void **state)
{
	uint64_t random = test_seed();
	bool dirty[PAGES] = {false};
	struct fixture f;

	setup(&f, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	for (unsigned i = 0; i < COUNT_RETARGET_STEPS; i++)
		model_step(&f, dirty, &random);
	for (unsigned p = 0; p < PAGES; p++)
		assert_int_equal(!!(window_entry(f.morsel, p) & MRS_ENTRY_DIRTY), dirty[p]);
	teardown(&f);
}

static void test_nothing_wanted(void **state)
{
	struct mrs_retarget batch;
	struct fixture f;
	uint64_t next;

	setup(&f, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	assert_int_equal(mrs_retarget_begin(f.morsel, MRS_RETARGET_EVICT, 3, PAGES, none, NULL,
					    &batch, &next),
			 0);
	assert_int_equal(next, 512);
	assert_int_equal(mrs_retarget_one(f.morsel, MRS_RETARGET_EVICT, PAGES, &batch), -ENOENT);
	/* No transition was left open: the next one begins. */
	assert_ok(mrs_retarget_one(f.morsel, MRS_RETARGET_EVICT, 0, &batch));
	mrs_retarget_abort(&batch);
	teardown(&f);
}

/* Holes: of the table, and beyond the root's reach. */
static void test_holes(void **state)
{
	struct mrs_retarget batch;
	struct morsel *lazy;
	struct fixture f;
	uint64_t next;

	setup(&f, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	lazy = object_create(f.pool, "lazy", (48 * MIB), MORSEL_LAZY | MORSEL_EVICTABLE,
			     MORSEL_PAGES_4K);
	assert_int_equal(mrs_retarget_one(lazy, MRS_RETARGET_FILL, 7, &batch), -ENOENT);
	assert_ok(mrs_morsel_fill(lazy, 10000, 3));
	for (uint64_t page = 0, found = 0; page < (48 * MIB) / 4096; page = next) {
		int rc = mrs_retarget_begin(lazy, MRS_RETARGET_FILL, page, (48 * MIB) / 4096 - page,
					    any, NULL, &batch, &next);

		assert_ok(rc);
		assert_true(next > page);
		found += (uint64_t)rc;
		if (rc)
			mrs_retarget_abort(&batch);
		if (next == (48 * MIB) / 4096)
			assert_int_equal(found, 3);
	}
	assert_ok(morsel_close(lazy));
	teardown(&f);
}

/* A plain morsel is a run; its first retarget gives it a table, with large leaves. */
static void test_run_becomes_table(void **state)
{
	struct mrs_retarget batch;
	struct fixture f;

	setup(&f, MORSEL_CONTIGUOUS, MORSEL_PAGES_MIXED);
	object_write(f.morsel, 5, 0, PAGES * 4096ull);
	assert_int_equal(mrs_entry_state(f.morsel->record->root), MRS_ENTRY_MAPPED);
	assert_ok(mrs_retarget_one(f.morsel, MRS_RETARGET_BREAK, 600, &batch));
	assert_int_equal(mrs_entry_state(f.morsel->record->root), MRS_ENTRY_TABLE);
	assert_int_equal(batch.level, 1);
	assert_int_equal(batch.page, 512);
	mrs_retarget_abort(&batch);
	assert_int_equal(object_differs(f.morsel, 5, 0, PAGES * 4096ull), UINT64_MAX);
	assert_int_equal(object_info(f.morsel).runs, 1);
	teardown(&f);
}

/* ---- split and join ---- */

static void test_join_and_split(void **state)
{
	uint64_t random = test_seed(), frees;
	struct mrs_retarget batch;
	struct fixture f;

	setup(&f, MORSEL_EVICTABLE | MORSEL_CONTIGUOUS, MORSEL_PAGES_4K);
	object_write(f.morsel, 5, 0, PAGES * 4096ull);
	/* The first property makes the table of properties. */
	window_join(f.morsel, 0);
	assert_ok(mrs_retarget_one(f.morsel, MRS_RETARGET_EVICT, 0, &batch));
	assert_ok(mrs_retarget_split(&batch, 0));
	mrs_retarget_abort(&batch);
	frees = object_free_bytes(f.pool);
	for (unsigned i = 0; i < 20; i++) {
		uint64_t page = test_random(&random) % 2 * 512;

		window_join(f.morsel, page);
		assert_int_equal(mrs_entry_level(window_entry(f.morsel, page + 7)), 1);
		object_check(f.pool);
		assert_ok(mrs_retarget_one(f.morsel, MRS_RETARGET_EVICT, page + 9, &batch));
		assert_int_equal(batch.level, 1);
		assert_ok(mrs_retarget_split(&batch, 0));
		assert_int_equal(batch.count, 512);
		assert_int_equal(batch.page, page);
		for (unsigned k = 0; k < 512; k++)
			assert_true(mrs_retarget_has(&batch, k));
		mrs_retarget_drop(&batch, 3);
		mrs_retarget_abort(&batch);
		assert_int_equal(mrs_entry_level(window_entry(f.morsel, page + 7)), 0);
		object_check(f.pool);
		/* The kept table came back into use: no frame was taken. */
		assert_int_equal(object_free_bytes(f.pool), frees);
	}
	/* A kept table goes with its morsel. */
	window_join(f.morsel, 512);
	teardown(&f);
}

/* ---- threads ---- */

struct counted {
	struct fixture *f;
	uint64_t seed;
	uint64_t *value; /* per page, not atomic: only under its leaf's lock */
	pthread_t thread;
	uint64_t done[2];
};

static void *count_main(void *argument)
{
	struct counted *c = argument;
	uint64_t random = c->seed;

	for (unsigned n = 0; n < COUNT_RETARGET_RACES; n++) {
		uint64_t page = test_random(&random) % 40, next;
		struct mrs_retarget batch;
		int rc;

		if (n % 2)
			rc = mrs_retarget_begin(c->f->morsel, MRS_RETARGET_DIRTY, page, 8, any,
						NULL, &batch, &next);
		else
			rc = mrs_retarget_one(c->f->morsel, MRS_RETARGET_DIRTY, page, &batch) ? -1
											      : 1;
		if (rc < 0)
			return (void *)1;
		for (unsigned i = 0; rc && i < batch.count; i++)
			if (mrs_retarget_has(&batch, i)) {
				volatile uint64_t *value = &c->value[batch.page + i];

				*value = *value + 1;
				c->done[n % 2]++;
				mrs_retarget_drop(&batch, i);
			}
		if (rc)
			mrs_retarget_end(&batch);
	}
	return NULL;
}

static void test_exclusion(void **state)
{
	enum { THREADS = 6 };
	uint64_t value[64] = {0}, sum = 0, done = 0, seed = test_seed();
	struct counted c[THREADS];
	struct fixture f;

	setup(&f, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	for (unsigned i = 0; i < THREADS; i++) {
		c[i] = (struct counted){.f = &f, .seed = seed * 100 + i, .value = value};
		assert_int_equal(pthread_create(&c[i].thread, NULL, count_main, &c[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		void *failed;

		pthread_join(c[i].thread, &failed);
		assert_null(failed);
		/* Who waits for one leaf gets it each time. */
		assert_int_equal(c[i].done[0], (COUNT_RETARGET_RACES + 1) / 2);
		done += c[i].done[0] + c[i].done[1];
	}
	for (unsigned p = 0; p < 64; p++)
		sum += value[p];
	assert_int_equal(sum, done);
	assert_int_equal(mrs_pool_state(f.pool)->leaf_waiters, 0);
	teardown(&f);
}

/* ---- waking ---- */

#define HANDOVERS 100u

struct handover {
	struct fixture *f;
	uint32_t turn; /* atomic: who has locked last */
	pthread_t thread;
};

/* Locks the page when the other has it, so that the other's unlock has somebody to wake. */
static void take_turns(struct handover *h, uint32_t own)
{
	for (unsigned i = 0; i < HANDOVERS; i++) {
		struct mrs_retarget batch;

		while (mrs_load_acquire32(&h->turn) == own)
			sched_yield();
		if (mrs_retarget_one(h->f->morsel, MRS_RETARGET_DIRTY, 0, &batch))
			abort();
		mrs_store_release32(&h->turn, own);
		/* The other is asleep by now, or soon. */
		usleep(300);
		mrs_retarget_drop(&batch, 0);
		mrs_retarget_end(&batch);
	}
}

static void *take_turns_main(void *argument)
{
	take_turns(argument, 1);
	return NULL;
}

static int64_t now_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ll + time.tv_nsec;
}

/*
 * Who is not woken sleeps 20 ms each time: two seconds or more in all. One quick round of a few
 * shows that they are woken, however loaded the machine is.
 */
static void test_woken(void **state)
{
	int64_t least = INT64_MAX;
	struct handover h = {0};
	struct fixture f;

	setup(&f, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	h.f = &f;
	for (unsigned i = 0; i < 8 && least > 1000000000; i++) {
		int64_t start = now_ns();

		h.turn = 1;
		assert_int_equal(pthread_create(&h.thread, NULL, take_turns_main, &h), 0);
		take_turns(&h, 0);
		pthread_join(h.thread, NULL);
		least = mrs_min(least, now_ns() - start);
	}
	printf("%u handovers in %lld ms\n", 2 * HANDOVERS, (long long)(least / 1000000));
	assert_true(least <= 1000000000);
	teardown(&f);
}

/* ---- the cutter ---- */

static void *resize_main(void *argument)
{
	struct fixture *f = argument;

	return (void *)(intptr_t)morsel_resize(f->morsel, 16 * 4096);
}

/* Who holds a leaf beyond the new end is waited for before its table goes. */
static void test_shrink_waits(void **state)
{
	struct mrs_retarget batch;
	pthread_t thread;
	struct fixture f;
	void *rc;

	setup(&f, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	assert_ok(mrs_retarget_one(f.morsel, MRS_RETARGET_FILL, 1400, &batch));
	/* Parked, as when it waits for a disk: a shrink may run beside it. */
	mrs_txn_park(f.pool);
	assert_int_equal(pthread_create(&thread, NULL, resize_main, &f), 0);
	while (mrs_morsel_bytes(f.morsel) != 16 * 4096)
		usleep(1000);
	usleep(50000);
	assert_int_equal(mrs_entry_lock(window_entry(f.morsel, 1400)), batch.txn.index + 1);
	mrs_txn_unpark(f.pool, true);
	mrs_retarget_abort(&batch);
	pthread_join(thread, &rc);
	assert_int_equal((intptr_t)rc, 0);
	/* Nothing begins beyond the end. */
	assert_int_equal(mrs_retarget_one(f.morsel, MRS_RETARGET_FILL, 1400, &batch), -ENOENT);
	teardown(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model),	       cmocka_unit_test(test_nothing_wanted),
		cmocka_unit_test(test_holes),	       cmocka_unit_test(test_run_becomes_table),
		cmocka_unit_test(test_join_and_split), cmocka_unit_test(test_exclusion),
		cmocka_unit_test(test_woken),	       cmocka_unit_test(test_shrink_waits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
