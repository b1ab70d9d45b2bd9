/*
 * Retarget's locks: batches against a model, exclusion between threads, waiting, what becomes of a
 * run, and death at every step of what is built on it.
 */
#include "object_window.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "object/bring.h"
#include "support/counts.h"

#define PAGES 1500u /* not a multiple of a leaf table's */
#define SKIP  77

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

/* All 512 leaves of the table of page become one; the table is kept for the way back. */
static void join(struct fixture *f, uint64_t page)
{
	struct mrs_retarget batch;
	struct mrs_leaf parent = {.level = 1, .page = page};
	struct mrs_prop prop;
	uint64_t next, deposit, entry;

	assert_int_equal(mrs_retarget_begin(f->morsel, MRS_RETARGET_PROMOTE, page, 512, any, NULL,
					    &batch, &next),
			 512);
	/* The morsel is small: its root is the level 1 table. */
	parent.place =
		(uint64_t *)mrs_pool_at(f->pool, mrs_entry_frame(f->morsel->record->root), 1) +
		page / 512;
	parent.entry = *parent.place;
	prop = (struct mrs_prop){.value = batch.table};
	assert_ok(mrs_prop_set(&batch.txn, mrs_entry_frame(batch.before[0]), MRS_PROP_DEPOSIT,
			       &prop));
	MRS_PROBE("test.join.noted");
	assert_ok(mrs_table_join(&f->morsel->table, &parent, &deposit));
	assert_int_equal(deposit, batch.table);
	entry = mrs_entry_unlocked(parent.entry);
	assert_int_equal(mrs_entry_level(entry), 1);
	mrs_entry_put(f->pool, parent.place, entry);
	MRS_PROBE("test.join.unlocked");
	for (unsigned i = 0; i < 8; i++)
		batch.locked[i] = 0; /* they are stale: nobody's */
	mrs_retarget_end(&batch);
}

static void test_join_and_split(void **state)
{
	uint64_t random = test_seed(), frees;
	struct mrs_retarget batch;
	struct fixture f;

	setup(&f, MORSEL_EVICTABLE | MORSEL_CONTIGUOUS, MORSEL_PAGES_4K);
	object_write(f.morsel, 5, 0, PAGES * 4096ull);
	/* The first property makes the table of properties. */
	join(&f, 0);
	assert_ok(mrs_retarget_one(f.morsel, MRS_RETARGET_EVICT, 0, &batch));
	assert_ok(mrs_retarget_split(&batch, 0));
	mrs_retarget_abort(&batch);
	frees = object_free_bytes(f.pool);
	for (unsigned i = 0; i < 20; i++) {
		uint64_t page = test_random(&random) % 2 * 512;

		join(&f, page);
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
	join(&f, 512);
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

/* ---- death ---- */

struct scene {
	struct morsel_pool *pool;
	struct morsel *morsel;
};

struct act {
	const char *name;
	uint32_t flags, pages;
	void (*before)(struct scene *scene);
	int (*child)(struct fixture *f);
	uint64_t first_word; /* what the child may have written at the start of pages [0, 64) */
};

#define DEATH_PAGES 1024u

static int child_evict(struct fixture *f)
{
	struct mrs_window window;
	const struct mrs_window *list[] = {&window};

	window_open(f->morsel, true, &window);
	return window_evict(f->morsel, 500, 24, list, 1) != 24;
}

static int child_evict_large(struct fixture *f)
{
	return window_evict(f->morsel, 0, 1024, NULL, 0) != 1024;
}

static void before_fill(struct scene *scene)
{
	window_evict(scene->morsel, 0, DEATH_PAGES, NULL, 0);
}

static int child_fill(struct fixture *f)
{
	struct mrs_window window;

	window_open(f->morsel, true, &window);
	return mrs_fill_range(f->morsel, &window, 500, 24, false) ||
	       mrs_fault(f->morsel, &window, 3, MRS_FAULT_MISSING);
}

static int child_write(struct fixture *f)
{
	struct mrs_window window;

	window_open(f->morsel, true, &window);
	if (mrs_fill_range(f->morsel, &window, 0, 64, true))
		return 1;
	for (unsigned p = 0; p < 64; p++)
		*(volatile uint64_t *)window_at(&window, p) = 99;
	return 0;
}

static int child_protected(struct fixture *f)
{
	struct mrs_window window;
	const struct mrs_window *list[] = {&window};

	window_open(f->morsel, true, &window);
	window_evict(f->morsel, 0, 8, list, 1);
	for (unsigned p = 0; p < 8; p++)
		if (mrs_fault(f->morsel, &window, p, MRS_FAULT_MISSING) ||
		    mrs_fault(f->morsel, &window, p, MRS_FAULT_PROTECTED))
			return 1;
	for (unsigned p = 0; p < 8; p++)
		*(volatile uint64_t *)window_at(&window, p) = 99;
	return 0;
}

static int child_split(struct fixture *f)
{
	struct mrs_window window;

	window_open(f->morsel, true, &window);
	return mrs_fault(f->morsel, &window, 700, MRS_FAULT_MISSING);
}

static int child_join(struct fixture *f)
{
	struct mrs_retarget batch;

	join(f, 512);
	if (mrs_retarget_one(f->morsel, MRS_RETARGET_EVICT, 600, &batch) ||
	    mrs_retarget_split(&batch, 0))
		return 1;
	mrs_retarget_abort(&batch);
	return 0;
}

static int child_shape(struct fixture *f)
{
	struct mrs_retarget batch;

	if (mrs_morsel_make_coherent(f->morsel) ||
	    mrs_retarget_one(f->morsel, MRS_RETARGET_BREAK, 3, &batch))
		return 1;
	mrs_retarget_abort(&batch);
	return 0;
}

static int child_free(struct fixture *f)
{
	return morsel_unlink(f->pool, "m");
}

#define EVICTABLE MORSEL_EVICTABLE
static const struct act acts[] = {
	{"evict", EVICTABLE, MORSEL_PAGES_4K, NULL, child_evict, 0},
	{"evict_large", EVICTABLE, MORSEL_PAGES_2M, NULL, child_evict_large, 0},
	{"fill", EVICTABLE, MORSEL_PAGES_4K, before_fill, child_fill, 0},
	{"fill_large", EVICTABLE, MORSEL_PAGES_2M, before_fill, child_fill, 0},
	{"write", EVICTABLE, MORSEL_PAGES_4K, before_fill, child_write, 99},
	{"protected", EVICTABLE, MORSEL_PAGES_4K, NULL, child_protected, 99},
	{"split", EVICTABLE, MORSEL_PAGES_MIXED, before_fill, child_split, 0},
	{"join", EVICTABLE | MORSEL_CONTIGUOUS, MORSEL_PAGES_4K, NULL, child_join, 0},
	{"shape", MORSEL_CONTIGUOUS, MORSEL_PAGES_MIXED, NULL, child_shape, 0},
	{"free", EVICTABLE, MORSEL_PAGES_4K, before_fill, child_free, 0},
};

static void assert_content(struct scene *scene, const struct act *act)
{
	struct mrs_window window;

	window_open(scene->morsel, false, &window);
	if (mrs_morsel_is_evictable(scene->morsel))
		assert_ok(mrs_fill_range(scene->morsel, &window, 0, DEATH_PAGES, false));
	for (uint64_t p = 0; p < DEATH_PAGES; p++) {
		const uint64_t *at = (const uint64_t *)window_at(&window, p);

		for (unsigned i = 0; i < 512; i++)
			if (at[i] != object_word(1, p * 4096 + i * 8) &&
			    !(act->first_word && p < 64 && !i && at[i] == act->first_word))
				fail_msg("%s: page %llu, word %u", object_context,
					 (unsigned long long)p, i);
	}
	window_close(&window);
}

/* No leaf is locked any more, by whatever is dead. */
static void assert_unlocked(struct scene *scene)
{
	for (uint64_t p = 0; p < DEATH_PAGES; p++)
		if (mrs_entry_lock(window_entry(scene->morsel, p)))
			fail_msg("%s: page %llu is locked", object_context, (unsigned long long)p);
}

static const char *kill_text(uint64_t n)
{
	static char text[32];

	snprintf(text, sizeof(text), "*:%llu", (unsigned long long)n);
	return text;
}

static bool was_killed(int status)
{
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

static bool die_once(const struct act *act, uint64_t n, uint64_t reaper_n)
{
	struct scene scene = {.pool = window_pool(64 * MIB, false)};
	int status;

	snprintf(object_context, sizeof(object_context), "(%s killed at %llu, reaper at %llu)",
		 act->name, (unsigned long long)n, (unsigned long long)reaper_n);
	scene.morsel =
		object_create(scene.pool, "m", DEATH_PAGES * 4096ull, act->flags, act->pages);
	object_write(scene.morsel, 1, 0, DEATH_PAGES * 4096ull);
	if (act->before)
		act->before(&scene);
	status = object_child(scene.pool, act->name, "", kill_text(n));
	if (!was_killed(status) && status)
		fail_msg("%s: status 0x%x", object_context, status);
	if (was_killed(status) && reaper_n)
		object_child(scene.pool, "reap", "", kill_text(reaper_n));
	assert_ok(morsel_pool_reap(scene.pool));
	object_check(scene.pool);
	assert_unlocked(&scene);
	assert_content(&scene, act);
	object_check(scene.pool);
	assert_ok(morsel_close(scene.morsel));
	window_pool_end(scene.pool);
	return !was_killed(status);
}

static const struct act *act_of(const char *name)
{
	for (size_t i = 0; i < mrs_array_length(acts); i++)
		if (!strcmp(acts[i].name, name))
			return &acts[i];
	return NULL;
}

static uint64_t count_probes(const struct act *act)
{
	uint64_t low = 0, high = 1;

	while (!die_once(act, high, 0)) {
		low = high;
		high *= 2;
	}
	while (high - low > 1) {
		uint64_t middle = low + (high - low) / 2;

		if (die_once(act, middle, 0))
			high = middle;
		else
			low = middle;
	}
	return low;
}

static void test_death(void **state)
{
	const struct act *act = *state;
	uint64_t random = test_seed(), probes = count_probes(act);
	uint64_t step = mrs_max(probes / COUNT_RETARGET_DEATHS, 1);

	for (uint64_t n = 1 + test_random(&random) % step; n <= probes; n += step)
		die_once(act, n, 0);
	for (unsigned i = 0; i < COUNT_RETARGET_REAPER_DEATHS; i++)
		die_once(act, 1 + test_random(&random) % probes, 1 + test_random(&random) % 60);
	printf("%s: %llu probes, every %llu\n", act->name, (unsigned long long)probes,
	       (unsigned long long)step);
}

/* ---- what is true at the moment of a death ---- */

static struct fixture killed_at(const char *act, const char *probe, void (*before)(struct scene *))
{
	struct scene scene = {.pool = window_pool(64 * MIB, false)};

	scene.morsel = object_create(scene.pool, "m", DEATH_PAGES * 4096ull, MORSEL_EVICTABLE,
				     MORSEL_PAGES_4K);
	object_write(scene.morsel, 1, 0, DEATH_PAGES * 4096ull);
	if (before)
		before(&scene);
	assert_true(was_killed(object_child(scene.pool, act, "", probe)));
	return (struct fixture){scene.pool, scene.morsel};
}

static void after_kill(struct fixture *f)
{
	assert_ok(morsel_pool_reap(f->pool));
	object_check(f->pool);
	assert_ok(morsel_close(f->morsel));
	window_pool_end(f->pool);
}

/* When a protection is about to be lifted the page is DIRTY, and its leaf locked. */
static void test_dirty_before_lifting(void **state)
{
	struct fixture f = killed_at("protected", "fault.lifting:1", NULL);

	assert_true(window_entry(f.morsel, 0) & MRS_ENTRY_DIRTY);
	assert_true(mrs_entry_lock(window_entry(f.morsel, 0)));
	after_kill(&f);
	f = killed_at("write", "fill.range.lifting:1", before_fill);
	for (unsigned p = 0; p < 64; p++) {
		assert_true(window_entry(f.morsel, p) & MRS_ENTRY_DIRTY);
		assert_true(mrs_entry_lock(window_entry(f.morsel, p)));
	}
	after_kill(&f);
}

/* When the first leaf is locked the intent says where: else nobody could unlock it. */
static void test_intent_before_lock(void **state)
{
	struct fixture f = killed_at("evict", "retarget.locking:1", NULL);
	uint64_t entry = window_entry(f.morsel, 500), lock = mrs_entry_lock(entry) - 1;
	const struct mrs_intent *intent;
	struct mrs_leaf leaf;

	assert_true(mrs_entry_lock(entry));
	intent = &mrs_pool_slot(f.pool, (unsigned)(lock / MRS_INTENTS_PER_SLOT))
			  ->intent[lock % MRS_INTENTS_PER_SLOT];
	assert_ok(mrs_table_leaf(&f.morsel->table, 500, &leaf));
	assert_int_equal(intent->op, MRS_INTENT_RETARGET);
	assert_int_equal(intent->leaf, leaf.table << 9 | leaf.index);
	assert_int_equal(intent->page, 500);
	assert_int_equal(intent->count, 12);
	assert_int_equal(intent->cell[0], f.morsel->cell);
	after_kill(&f);
}

/* ---- the program ---- */

static int child_main(char **argv)
{
	const struct act *act = act_of(argv[2]);
	struct fixture f = {0};
	int rc = morsel_pool_open_fd(atoi(argv[3]), NULL, &f.pool);

	if (!rc && !act) {
		morsel_pool_reap(f.pool);
		return morsel_pool_close(f.pool) ? 4 : 0;
	}
	if (!rc)
		rc = morsel_open(f.pool, "m", NULL, &f.morsel);
	if (!rc)
		rc = act->child(&f);
	if (rc)
		fprintf(stderr, "child %s: %d: %s\n", argv[2], rc, morsel_errormsg());
	/* Windows go with the process. */
	return rc ? 3 : morsel_close(f.morsel) || morsel_pool_close(f.pool) ? 4 : 0;
}

int main(int argc, char **argv)
{
	struct CMUnitTest tests[32] = {
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_nothing_wanted),
		cmocka_unit_test(test_holes),
		cmocka_unit_test(test_run_becomes_table),
		cmocka_unit_test(test_join_and_split),
		cmocka_unit_test(test_exclusion),
		cmocka_unit_test(test_woken),
		cmocka_unit_test(test_shrink_waits),
		cmocka_unit_test(test_dirty_before_lifting),
		cmocka_unit_test(test_intent_before_lock),
	};
	size_t count = 8;

	if (argc == 5 && !strcmp(argv[1], "--child"))
		return child_main(argv);
#ifdef MORSEL_PROBES
	count = 10;
	for (size_t i = 0; i < mrs_array_length(acts); i++)
		tests[count++] = (struct CMUnitTest){.name = acts[i].name,
						     .test_func = test_death,
						     .initial_state = (void *)&acts[i]};
#else
	printf("no probes in this build (MORSEL_PROBES): no deaths\n");
#endif
	return _cmocka_run_group_tests("object: retarget", tests, count, NULL, NULL);
}
