/*
 * Death in a retarget: a child is killed at the n-th probe of an eviction, a fill, a write, a split
 * ...; afterwards no leaf is locked, nothing is lost, and all is owned or free. And what must be
 * true at the moment of some of these deaths, before anybody repairs.
 */
#include "object_window.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/counts.h"

#define SKIP 77

struct fixture {
	struct morsel_pool *pool;
	struct morsel *morsel;
};

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

	window_join(f->morsel, 512);
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

/* An evictor with a page that nothing was ever in (evict.c: hollow), after its memory went. */
static int child_hollow(struct fixture *f)
{
	struct mrs_retarget batch;

	if (mrs_retarget_one(f->morsel, MRS_RETARGET_EVICT, 7, &batch))
		return 1;
	mrs_retarget_mark(&batch, MRS_RETARGET_COPIED);
	mrs_pool_unback(f->pool, mrs_entry_frame(batch.before[0]), 1);
	return kill(getpid(), SIGKILL);
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
static const struct act hollow = {"hollow", EVICTABLE, MORSEL_PAGES_4K, NULL, child_hollow, 0};

static void assert_content(struct scene *scene, const struct act *act)
{
	struct window_server server;
	struct mrs_window window;

	window_open(scene->morsel, false, &window);
	window_serve(&server, scene->morsel, &window);
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
	window_serve_stop(&server);
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
	return strcmp(name, hollow.name) ? NULL : &hollow;
}

/* At least as many probes as the act meets when nobody kills it, and less than twice as many. */
static uint64_t count_probes(const struct act *act)
{
	uint64_t probes = 1;

	while (!die_once(act, probes, 0))
		probes *= 2;
	return probes;
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

/* A page without a slot is not EVICTED to nowhere when its evictor has died: it is zeros where it
 * is. */
static void test_hollow_stays(void **state)
{
	struct fixture f = killed_at("hollow", "none", NULL);

	assert_false(window_is_resident(f.morsel, 7));
	assert_ok(morsel_pool_reap(f.pool));
	assert_int_equal(mrs_entry_state(window_entry(f.morsel, 7)), MRS_ENTRY_MAPPED);
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
	const struct CMUnitTest moments[] = {
		cmocka_unit_test(test_dirty_before_lifting),
		cmocka_unit_test(test_intent_before_lock),
		cmocka_unit_test(test_hollow_stays),
	};
	struct CMUnitTest deaths[mrs_array_length(acts)];
	int failed;

	if (argc == 5 && !strcmp(argv[1], "--child"))
		return child_main(argv);
#ifndef MORSEL_PROBES
	fprintf(stderr, "skipped: this build has no probes (MORSEL_PROBES)\n");
	return SKIP;
#endif
	for (size_t i = 0; i < mrs_array_length(acts); i++)
		deaths[i] = (struct CMUnitTest){.name = acts[i].name,
						.test_func = test_death,
						.initial_state = (void *)&acts[i]};
	failed = cmocka_run_group_tests_name("object: the moment of a death", moments, NULL, NULL);
	return failed ? failed
		      : cmocka_run_group_tests_name("object: death in a retarget", deaths, NULL,
						    NULL);
}
