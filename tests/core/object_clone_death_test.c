/*
 * Death beside relatives: a child is killed at the n-th probe of a clone, of the first writes after
 * one, of the end of a clone ...; afterwards every morsel of the family has its own bytes, also in
 * views that the survivor had all the time, what is written to one is seen in no other, and the
 * pool is whole. And what a repair may meet: a break of the living, parked in the middle.
 */
#include "core/object_support.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <morsel/clone.h>
#include <morsel/swap.h>

#include "object/retarget.h"
#include "object/share.h"
#include "support/counts.h"

#define SKIP	  77
#define PAGES	  1024u
#define BYTES	  (PAGES * 4096ull)
#define RELATIVES 3 /* m, its clone c, their snapshot s */
#define WORDS	  512u

static const char *const names[RELATIVES] = {"m", "c", "s"};

/* Pages that a child writes: of two leaf tables, neighbours and not. */
static const unsigned written[] = {0, 1, 2, 300, 511, 512, 700, 1023};

struct family {
	struct morsel_pool *pool;
	struct morsel *morsel[RELATIVES];
	struct morsel_view *view[RELATIVES];
	char swap[96];
};

struct act {
	const char *name;
	uint32_t flags, pages;
	bool peers;   /* the survivor has views of all, and keeps them */
	bool evicted; /* some pages are away */
	int (*child)(struct morsel_pool *pool);
	int writes; /* whose first words the child may have written; -1 nobody's */
	int goes;   /* whose second half, or which as a whole, may be gone; -1 nobody's */
};

/* ---- what children do ---- */

static int map_it(struct morsel_pool *pool, const char *name, struct morsel **morsel,
		  struct morsel_view **view)
{
	struct morsel_map_opts opts = {.size = sizeof(opts), .access = MORSEL_READ | MORSEL_WRITE};
	int rc = morsel_open(pool, name, NULL, morsel);

	return rc ? rc : morsel_map(*morsel, &opts, view);
}

static volatile uint64_t *word_at(struct morsel_view *view, unsigned page, unsigned word)
{
	return (volatile uint64_t *)morsel_addr(view) + page * WORDS + word;
}

static int write_to(struct morsel_pool *pool, const char *name)
{
	struct morsel *morsel;
	struct morsel_view *view;
	int rc = map_it(pool, name, &morsel, &view);

	for (size_t i = 0; !rc && i < mrs_array_length(written); i++)
		*word_at(view, written[i], 0) = 99;
	return rc;
}

static int child_write_source(struct morsel_pool *pool)
{
	return write_to(pool, "m");
}

static int child_write_clone(struct morsel_pool *pool)
{
	return write_to(pool, "c");
}

/* Two views: then the page stays where it is, and the relatives give way. */
static int child_keep(struct morsel_pool *pool)
{
	struct morsel_map_opts opts = {.size = sizeof(opts), .access = MORSEL_READ | MORSEL_WRITE};
	struct morsel *morsel;
	struct morsel_view *view, *other;
	int rc = map_it(pool, "m", &morsel, &view);

	if (!rc)
		rc = morsel_map(morsel, &opts, &other);
	for (size_t i = 0; !rc && i < mrs_array_length(written); i++)
		*word_at(view, written[i], 0) = 99;
	return rc;
}

static int child_clone(struct morsel_pool *pool)
{
	struct morsel *morsel;
	struct morsel_view *view;
	int rc = map_it(pool, "m", &morsel, &view);

	if (!rc)
		rc = morsel_clone(morsel, "new", NULL);
	if (!rc)
		*word_at(view, 5, 0) = *word_at(view, 5, 0);
	return rc ? rc : morsel_snapshot(morsel, "snap", NULL);
}

static int child_unlink(struct morsel_pool *pool)
{
	return morsel_unlink(pool, "c");
}

static int child_resize(struct morsel_pool *pool)
{
	struct morsel *morsel;
	int rc = morsel_open(pool, "c", NULL, &morsel);

	if (!rc)
		rc = morsel_resize(morsel, BYTES / 2 - 300 * 4096);
	return rc ? rc : morsel_resize(morsel, BYTES);
}

/* Of no family of the others: after its death all links of the pool are counted anew. */
static int child_clone_other(struct morsel_pool *pool)
{
	struct morsel *morsel;
	int rc = morsel_open(pool, "other", NULL, &morsel);

	return rc ? rc : morsel_clone(morsel, "another", NULL);
}

/* Shows the clone, and stands still. */
static int child_stand(struct morsel_pool *pool)
{
	struct morsel *morsel;
	struct morsel_view *view;
	int rc = map_it(pool, "c", &morsel, &view);

	if (!rc && *word_at(view, 5, 3) == object_word(1, 5 * 4096 + 3 * 8))
		raise(SIGSTOP);
	return rc;
}

#define EVICTABLE MORSEL_EVICTABLE
#define SCATTERED MORSEL_SCATTERED
static const struct act acts[] = {
	{"write_source", EVICTABLE | SCATTERED, MORSEL_PAGES_4K, false, false, child_write_source,
	 0, -1},
	{"write_clone", EVICTABLE | SCATTERED, MORSEL_PAGES_4K, false, false, child_write_clone, 1,
	 -1},
	{"write_away", EVICTABLE | SCATTERED, MORSEL_PAGES_4K, false, true, child_write_clone, 1,
	 -1},
	{"write_large", EVICTABLE, MORSEL_PAGES_MIXED, false, false, child_write_source, 0, -1},
	{"write_peers", EVICTABLE | SCATTERED, MORSEL_PAGES_4K, true, false, child_write_source, 0,
	 -1},
	{"write_peers_away", EVICTABLE | SCATTERED, MORSEL_PAGES_4K, true, true, child_write_source,
	 0, -1},
	{"write_large_peers", EVICTABLE, MORSEL_PAGES_MIXED, true, false, child_write_clone, 1, -1},
	{"keep", EVICTABLE | SCATTERED, MORSEL_PAGES_4K, false, false, child_keep, 0, -1},
	{"keep_peers", EVICTABLE | SCATTERED, MORSEL_PAGES_4K, true, false, child_keep, 0, -1},
	{"clone", EVICTABLE | SCATTERED, MORSEL_PAGES_4K, false, false, child_clone, -1, -1},
	{"clone_peers", EVICTABLE | SCATTERED, MORSEL_PAGES_4K, true, false, child_clone, -1, -1},
	{"clone_large", EVICTABLE, MORSEL_PAGES_MIXED, true, false, child_clone, -1, -1},
	{"unlink", EVICTABLE | SCATTERED, MORSEL_PAGES_4K, false, true, child_unlink, -1, 1},
	{"resize", EVICTABLE | SCATTERED, MORSEL_PAGES_4K, false, false, child_resize, -1, 1},
	{"resize_large", EVICTABLE, MORSEL_PAGES_MIXED, false, false, child_resize, -1, 1},
};

/* Not deaths that are looked at: what others do meanwhile. */
static const struct act others[] = {
	{"other", 0, 0, false, false, child_clone_other, -1, -1},
	{"stand", 0, 0, false, false, child_stand, -1, -1},
};

/* ---- the family ---- */

static struct morsel_view *view_of(struct morsel *morsel)
{
	struct morsel_map_opts opts = {.size = sizeof(opts), .access = MORSEL_READ};
	struct morsel_info info = {.size = sizeof(info)};
	struct morsel_view *view;

	assert_ok(morsel_info(morsel, &info));
	if (!info.sealed)
		opts.access |= MORSEL_WRITE;
	assert_ok(morsel_map(morsel, &opts, &view));
	return view;
}

static void open_all(struct family *f)
{
	for (unsigned i = 0; i < RELATIVES; i++) {
		int rc = f->morsel[i] ? 0 : morsel_open(f->pool, names[i], NULL, &f->morsel[i]);

		if (rc == -ENOENT)
			continue;
		assert_ok(rc);
		if (!f->view[i])
			f->view[i] = view_of(f->morsel[i]);
	}
}

static void let_go(struct family *f)
{
	for (unsigned i = 0; i < RELATIVES; i++) {
		if (f->view[i])
			morsel_view_destroy(f->view[i]);
		if (f->morsel[i])
			assert_ok(morsel_close(f->morsel[i]));
		f->view[i] = NULL;
		f->morsel[i] = NULL;
	}
}

static void make_family(struct family *f, const struct act *act)
{
	struct morsel_swap_opts swap = {.size = sizeof(swap),
					.path = f->swap,
					.bytes = 16 * MIB,
					.flags = MORSEL_SWAP_PLAIN_IO | MORSEL_SWAP_SPARSE};
	const char *folder = getenv("TMPDIR");
	struct morsel *morsel;

	memset(f, 0, sizeof(*f));
	snprintf(f->swap, sizeof(f->swap), "%.60s/morsel-relatives-%d", folder ? folder : "/tmp",
		 (int)getpid());
	unlink(f->swap);
	f->pool = object_pool(64 * MIB);
	morsel = object_create(f->pool, "m", BYTES, act->flags, act->pages);
	object_write(morsel, 1, 0, BYTES);
	if (act->evicted)
		assert_ok(morsel_swap_add(f->pool, &swap, NULL));
	assert_ok(morsel_snapshot(morsel, "s", NULL));
	/* A page of the source's own between the two: tables that share some and not others. */
	object_write(morsel, 1, 600 * 4096, 4096);
	assert_ok(morsel_clone(morsel, "c", NULL));
	if (act->evicted)
		assert_ok(morsel_advise(morsel, 0, BYTES, MORSEL_ADVICE_EVICT));
	assert_ok(morsel_close(morsel));
	if (act->peers)
		open_all(f);
}

static bool may_be_written(const struct act *act, unsigned which, unsigned page)
{
	for (size_t i = 0; i < mrs_array_length(written); i++)
		if ((int)which == act->writes && written[i] == page)
			return true;
	return false;
}

static void assert_words(const struct family *f, const struct act *act, unsigned which,
			 bool changed)
{
	unsigned pages = (unsigned)(morsel_view_bytes(f->view[which]) / 4096);

	for (unsigned p = 0; p < pages; p++)
		for (unsigned i = 0; i < WORDS; i++) {
			uint64_t is = *word_at(f->view[which], p, i);
			uint64_t was = object_word(1, p * 4096ull + i * 8);

			if (changed && which < 2 && i == 1 + which && is == 1000 + which)
				continue;
			if (is == was || (!i && is == 99 && may_be_written(act, which, p)) ||
			    (!is && (int)which == act->goes))
				continue;
			fail_msg("%s: %s: page %u, word %u is %016llx %s", object_context,
				 names[which], p, i, (unsigned long long)is,
				 changed ? "after writing" : "");
		}
}

/* Everybody's bytes are his own, and stay so when the others write. */
static void assert_family(struct family *f, const struct act *act, bool again)
{
	open_all(f);
	for (unsigned i = 0; i < RELATIVES; i++)
		if (f->view[i])
			assert_words(f, act, i, again);
	for (unsigned i = 0; i < 2; i++)
		for (unsigned p = i; f->view[i] && p < morsel_view_bytes(f->view[i]) / 4096;
		     p += 1 + p % 7)
			*word_at(f->view[i], p, 1 + i) = 1000 + i;
	for (unsigned i = 0; i < RELATIVES; i++)
		if (f->view[i])
			assert_words(f, act, i, true);
}

static void end_family(struct family *f)
{
	static const char *const all[] = {"m", "c", "s", "new", "snap"};

	let_go(f);
	for (size_t i = 0; i < mrs_array_length(all); i++) {
		morsel_unlink(f->pool, all[i]);
		object_check(f->pool);
	}
	object_pool_end(f->pool);
	unlink(f->swap);
}

/* ---- deaths ---- */

static bool was_killed(int status)
{
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

/* Reaped at once, or only when a touch of the survivor needs it. */
static bool die_at(const struct act *act, const char *kill, const char *reaper_kill, bool reap)
{
	struct family f;
	int status;

	snprintf(object_context, sizeof(object_context), "(%s killed at %s, reaper at %s)",
		 act->name, kill, reaper_kill ? reaper_kill : "none");
	make_family(&f, act);
	status = object_child(f.pool, act->name, "", kill);
	if (!was_killed(status) && status)
		fail_msg("%s: status 0x%x", object_context, status);
	if (was_killed(status) && reaper_kill)
		object_child(f.pool, "reap", "", reaper_kill);
	if (reap)
		assert_ok(morsel_pool_reap(f.pool));
	assert_family(&f, act, false);
	assert_ok(morsel_pool_reap(f.pool));
	object_check(f.pool);
	assert_family(&f, act, true);
	end_family(&f);
	return !was_killed(status);
}

static bool die_once(const struct act *act, uint64_t n, uint64_t reaper_n)
{
	char kill[32], reaper_kill[32];

	snprintf(kill, sizeof(kill), "*:%llu", (unsigned long long)n);
	snprintf(reaper_kill, sizeof(reaper_kill), "*:%llu", (unsigned long long)reaper_n);
	return die_at(act, kill, reaper_n ? reaper_kill : NULL, n % 2);
}

static const struct act *act_of(const char *name)
{
	for (size_t i = 0; i < mrs_array_length(acts); i++)
		if (!strcmp(acts[i].name, name))
			return &acts[i];
	for (size_t i = 0; i < mrs_array_length(others); i++)
		if (!strcmp(others[i].name, name))
			return &others[i];
	return NULL;
}

static void test_death(void **state)
{
	const struct act *act = *state;
	uint64_t random = test_seed(), probes = 1, step;

	while (!die_once(act, probes, 0))
		probes *= 2;
	step = mrs_max(probes / COUNT_CLONE_DEATHS, 1);
	for (uint64_t n = 1 + test_random(&random) % step; n <= probes; n += step)
		die_once(act, n, 0);
	for (unsigned i = 0; i < COUNT_CLONE_REAPER_DEATHS; i++)
		die_once(act, 1 + test_random(&random) % probes, 1 + test_random(&random) % 60);
	printf("%s: %llu probes, every %llu\n", act->name, (unsigned long long)probes,
	       (unsigned long long)step);
}

/* What was wrong once: a link is gone and not given up, views are half way to another frame. */
static void test_moments(void **state)
{
	static const char *const moments[] = {
		"break.page.linked:1",	 "mail.ask.posted:1",	  "break.keep.asked:1",
		"break.table.linked:1",	 "break.table.dropped:1", "break.keep.moved:2",
		"table.trim.unshared:1", "table.trim.unshared:2", "break.split.linked:1",
	};

	uint64_t random = test_seed();

	const struct act *act = *state;

	for (size_t i = 0; i < mrs_array_length(moments); i++) {
		bool reap = test_random(&random) % 2;

		die_at(act, moments[i], NULL, reap);
		if (act->goes >= 0)
			die_at(act, moments[i], NULL, !reap);
	}
}

/* ---- a repair beside a break of the living, which is parked ---- */

struct writer {
	struct morsel *morsel;
	unsigned page;
	int rc;
};

static void *break_page(void *ctx)
{
	struct writer *writer = ctx;

	writer->rc = mrs_share_break(writer->morsel, writer->page, 1);
	return NULL;
}

/* Until a transition of ours says in its intent what it has not linked yet, or owes. */
static void await_note(struct morsel_pool *pool)
{
	const struct mrs_intent *intent = mrs_pool_slot(pool, mrs_pool_own_slot(pool))->intent;
	struct timespec pause = {.tv_nsec = 5000000};
	uint64_t notes = 0;

	while (!notes) {
		nanosleep(&pause, NULL);
		for (unsigned i = 0; i < MRS_INTENTS_PER_SLOT; i++)
			notes |= (mrs_load_acquire(&intent[i].expected) |
				  mrs_load_acquire(&intent[i].destination)) >>
				 63;
	}
	nanosleep(&pause, NULL); /* it waits by then, and no harm if not */
}

static void die_beside(struct morsel_pool *pool)
{
	assert_true(was_killed(object_child(pool, "other", "", "clone.counted:1")));
	assert_ok(morsel_pool_reap(pool));
}

static void make_two(struct family *f)
{
	static const struct act act = {.flags = EVICTABLE | SCATTERED, .pages = MORSEL_PAGES_4K};

	snprintf(object_context, sizeof(object_context), "(beside a parked break)");
	make_family(f, &act);
	assert_ok(morsel_close(object_create(f->pool, "other", MIB, EVICTABLE, 0)));
	open_all(f);
}

static void end_two(struct family *f)
{
	static const struct act act = {.writes = -1, .goes = -1};

	object_check(f->pool);
	assert_family(f, &act, false);
	end_family(f);
}

/* It waits for a leaf that we have locked; half of the table is copied. */
static void test_parked_copy(void **state)
{
	struct mrs_retarget batch;
	struct writer writer = {.page = 2};
	struct family f;
	pthread_t thread;
	bool parked;

	make_two(&f);
	writer.morsel = f.morsel[1];
	assert_ok(mrs_retarget_one(f.morsel[0], MRS_RETARGET_EVICT, 300, &batch));
	parked = mrs_txn_park(f.pool);
	assert_int_equal(pthread_create(&thread, NULL, break_page, &writer), 0);
	await_note(f.pool);
	die_beside(f.pool);
	mrs_txn_unpark(f.pool, parked);
	mrs_retarget_abort(&batch);
	pthread_join(thread, NULL);
	assert_ok(writer.rc);
	end_two(&f);
}

/* It waits for a process that shows the page that is to go to another frame. */
static void test_parked_follow(void **state)
{
	struct writer writer = {.page = 5};
	struct morsel_view *second;
	struct family f;
	pthread_t thread;
	int status;
	pid_t pid;

	make_two(&f);
	second = view_of(f.morsel[0]);
	writer.morsel = f.morsel[0];
	pid = object_child_start(f.pool, "stand", "", NULL);
	assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
	assert_true(WIFSTOPPED(status));
	assert_int_equal(pthread_create(&thread, NULL, break_page, &writer), 0);
	await_note(f.pool);
	die_beside(f.pool);
	kill(pid, SIGCONT);
	pthread_join(thread, NULL);
	assert_ok(writer.rc);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	morsel_view_destroy(second);
	end_two(&f);
}

/* ---- the program ---- */

static int child_main(char **argv)
{
	const struct act *act = act_of(argv[2]);
	struct morsel_pool *pool;
	int rc = morsel_pool_open_fd(atoi(argv[3]), NULL, &pool);

	if (!rc && !act)
		morsel_pool_reap(pool);
	else if (!rc)
		rc = act->child(pool);
	if (rc)
		fprintf(stderr, "child %s: %d: %s\n", argv[2], rc, morsel_errormsg());
	/* Handles and views go with the process. */
	_exit(rc ? 3 : 0);
}

int main(int argc, char **argv)
{
	struct CMUnitTest moments[2 + mrs_array_length(acts)] = {
		cmocka_unit_test(test_parked_copy),
		cmocka_unit_test(test_parked_follow),
	};
	struct CMUnitTest deaths[mrs_array_length(acts)];
	const char *only = getenv("MORSEL_CLONE_DEATH");
	size_t count = 0;

	if (argc == 5 && !strcmp(argv[1], "--child"))
		return child_main(argv);
#ifndef MORSEL_PROBES
	fprintf(stderr, "skipped: this build has no probes (MORSEL_PROBES)\n");
	return SKIP;
#endif
	for (size_t i = 0; i < mrs_array_length(acts); i++) {
		const struct CMUnitTest test = {.name = acts[i].name,
						.initial_state = (void *)&acts[i]};

		if (only && strcmp(only, acts[i].name))
			continue;
		moments[2 + count] = deaths[count] = test;
		moments[2 + count].test_func = test_moments;
		deaths[count++].test_func = test_death;
	}
	if (_cmocka_run_group_tests("object: the moment of a death beside relatives", moments,
				    2 + count, NULL, NULL))
		return 1;
	return _cmocka_run_group_tests("object: death beside relatives", deaths, count, NULL, NULL);
}
