/*
 * Seeing: counters, usage and who against states that are made here, with views, grants and deaths
 * of other processes.
 */
#include "core/object_support.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <morsel/observe.h>

#include "object/retarget.h"

/* ---- another process: it opens "m", maps it, holds a grant if asked, and stays ---- */

struct other {
	pid_t pid;
	int out; /* it says its address */
	uint64_t address;
};

static int pipe_ends[2] = {-1, -1};

static int child_main(char **argv)
{
	bool grants = !strcmp(argv[2], "grant");
	struct morsel_map_opts opts = {.size = sizeof(opts), .offset = 8192};
	struct morsel_grant grant;
	struct morsel_pool *pool;
	struct morsel *morsel;
	struct morsel_view *view;
	uint64_t address;

	if (morsel_pool_open_fd(atoi(argv[3]), NULL, &pool) ||
	    morsel_open(pool, "m", NULL, &morsel) || morsel_map(morsel, &opts, &view) ||
	    (grants && morsel_acquire(view, 4096, 4096, MORSEL_READ, &grant))) {
		fprintf(stderr, "child: %s\n", morsel_errormsg());
		return 1;
	}
	address = (uint64_t)(uintptr_t)morsel_addr(view);
	if (write(atoi(argv[4]), &address, 8) != 8)
		return 1;
	for (;;)
		pause();
}

static struct other start(struct morsel_pool *pool, bool grants)
{
	struct other other;
	char text[16];

	assert_int_equal(pipe(pipe_ends), 0);
	snprintf(text, sizeof(text), "%d", pipe_ends[1]);
	other.pid = object_child_start(pool, grants ? "grant" : "view", text, NULL);
	close(pipe_ends[1]);
	other.out = pipe_ends[0];
	if (read(other.out, &other.address, 8) != 8) {
		int status = 0;

		waitpid(other.pid, &status, 0);
		fail_msg("the other process ended with status 0x%x", (unsigned)status);
	}
	return other;
}

static void end(struct other *other)
{
	int status;

	kill(other->pid, SIGKILL);
	while (waitpid(other->pid, &status, 0) < 0)
		assert_int_equal(errno, EINTR);
	close(other->out);
}

/* ---- counters ---- */

static void test_counters(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel_counters counters = {.size = sizeof(counters)};
	struct mrs_state *shared = mrs_pool_state(pool);
	struct {
		size_t size;
		uint64_t faults, beyond;
	} small = {.size = 16, .beyond = 77};

	for (unsigned i = 0; i < MRS_COUNTERS; i++)
		mrs_store_relaxed(&shared->count[i], 1000 + i);
	assert_ok(morsel_pool_counters(pool, &counters));
	assert_int_equal(counters.faults, 1000 + MRS_COUNT_FAULTS);
	assert_int_equal(counters.faults_write, 1000 + MRS_COUNT_FAULTS_WRITE);
	assert_int_equal(counters.faults_peer, 1000 + MRS_COUNT_FAULTS_PEER);
	assert_int_equal(counters.pages_in, 1000 + MRS_COUNT_PAGES_IN);
	assert_int_equal(counters.pages_out, 1000 + MRS_COUNT_PAGES_OUT);
	assert_int_equal(counters.pages_out_clean, 1000 + MRS_COUNT_PAGES_OUT_CLEAN);
	assert_int_equal(counters.pages_out_zero, 1000 + MRS_COUNT_PAGES_ZERO);
	assert_int_equal(counters.read_ahead, 1000 + MRS_COUNT_READ_AHEAD);
	assert_int_equal(counters.shootdowns, 1000 + MRS_COUNT_SHOOTDOWNS);
	assert_int_equal(counters.shootdown_ns, 1000 + MRS_COUNT_SHOOTDOWN_NS);
	assert_int_equal(counters.shootdown_timeouts, 1000 + MRS_COUNT_SHOOTDOWN_TIMEOUTS);
	assert_int_equal(counters.retarget_aborts, 1000 + MRS_COUNT_RETARGET_ABORTS);
	assert_int_equal(counters.pinned, 1000 + MRS_COUNT_PINNED);
	assert_int_equal(counters.quarantined, 1000 + MRS_COUNT_QUARANTINED);
	assert_int_equal(counters.quarantine_freed, 1000 + MRS_COUNT_QUARANTINE_FREED);
	assert_int_equal(counters.poisoned, 1000 + MRS_COUNT_POISONED);
	assert_int_equal(counters.clones, 1000 + MRS_COUNT_CLONES);
	assert_int_equal(counters.cow_pages, 1000 + MRS_COUNT_COW_BREAKS);
	assert_int_equal(counters.cow_tables, 1000 + MRS_COUNT_COW_TABLES);
	assert_int_equal(counters.promotions, 1000 + MRS_COUNT_PROMOTIONS);
	assert_int_equal(counters.promotions_moved, 1000 + MRS_COUNT_PROMOTIONS_MOVED);
	assert_int_equal(counters.splits, 1000 + MRS_COUNT_SPLITS);
	assert_int_equal(counters.pages_moved, 1000 + MRS_COUNT_PAGES_MOVED);
	assert_int_equal(counters.huge_gained, 1000 + MRS_COUNT_HUGE_GAINED);
	assert_int_equal(counters.second_chance, 1000 + MRS_COUNT_SECOND_CHANCE);
	assert_int_equal(counters.over_budget, 1000 + MRS_COUNT_OVER_BUDGET);
	assert_int_equal(counters.elections, 1000 + MRS_COUNT_ELECTIONS);
	assert_int_equal(counters.zeroed, 1000 + MRS_COUNT_ZEROED);
	assert_int_equal(counters.swap_errors, 1000 + MRS_COUNT_SWAP_ERRORS);
	assert_true(counters.bytes_resident > 0);
	/* An older caller, and none. */
	assert_ok(morsel_pool_counters(pool, (struct morsel_counters *)&small));
	assert_int_equal(small.faults, 1000);
	assert_int_equal(small.beyond, 77);
	counters.size = 0;
	assert_fails(morsel_pool_counters(pool, &counters), -EINVAL, "size");
	for (unsigned i = 0; i < MRS_COUNTERS; i++)
		mrs_store_relaxed(&shared->count[i], 0);
	object_pool_end(pool);
}

static void test_usage(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = object_create(pool, "l", MIB, MORSEL_LAZY, MORSEL_PAGES_4K);
	struct morsel_usage usage = {.size = sizeof(usage)};
	struct other other;

	assert_ok(morsel_usage(morsel, &usage));
	assert_int_equal(usage.bytes_resident, 0);
	assert_ok(morsel_advise(morsel, 64 * KIB, 64 * KIB, MORSEL_ADVICE_PREFETCH));
	assert_ok(morsel_usage(morsel, &usage));
	assert_int_equal(usage.bytes_resident, 64 * KIB);
	assert_int_equal(usage.bytes_evicted, 0);
	assert_int_equal(usage.family, 0);
	object_write(morsel, 3, 64 * KIB, 64 * KIB);
	assert_ok(morsel_advise(morsel, 64 * KIB, 16 * KIB, MORSEL_ADVICE_FREE));
	assert_ok(morsel_usage(morsel, &usage));
	assert_int_equal(usage.bytes_resident, 48 * KIB);
	assert_ok(morsel_close(morsel));
	morsel = object_create(pool, "m", MIB, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	other = start(pool, true);
	assert_ok(morsel_usage(morsel, &usage));
	assert_int_equal(usage.bytes_resident, MIB);
	assert_int_equal(usage.views, 1);
	assert_int_equal(usage.pins, 1);
	assert_int_equal(usage.family, object_info(morsel).id);
	end(&other);
	assert_int_equal(morsel_pool_reap(pool), 1);
	assert_ok(morsel_usage(morsel, &usage));
	assert_int_equal(usage.views, 0);
	assert_ok(morsel_close(morsel));
	object_pool_end(pool);
}

/* ---- who ---- */

struct seen {
	unsigned count[5];
	struct morsel_holder last[5];
};

static int note_holder(void *ctx, const struct morsel_holder *holder)
{
	struct seen *seen = ctx;

	assert_in_range(holder->what, 1, 4);
	seen->count[holder->what]++;
	seen->last[holder->what] = *holder;
	return 0;
}

static struct morsel_page who(struct morsel *morsel, uint64_t page, struct seen *seen)
{
	struct morsel_page found = {.size = sizeof(found)};

	memset(seen, 0, sizeof(*seen));
	assert_ok(morsel_who(morsel, page * 4096, &found, note_holder, seen));
	return found;
}

/* A plain morsel: handles, as far as their views reach. */
static void test_who_plain(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = object_create(pool, "m", MIB, 0, MORSEL_PAGES_4K);
	struct morsel_page page;
	struct seen seen;
	struct other other;

	page = who(morsel, 3, &seen);
	assert_int_equal(page.state, MORSEL_PAGE_RESIDENT);
	assert_non_null(strstr(page.why, "not evictable"));
	assert_int_equal(seen.count[MORSEL_HOLDER_HANDLE], 0);
	other = start(pool, false);
	who(morsel, 3, &seen);
	assert_int_equal(seen.count[MORSEL_HOLDER_HANDLE], 1);
	assert_int_equal(seen.last[MORSEL_HOLDER_HANDLE].pid, other.pid);
	assert_true(seen.last[MORSEL_HOLDER_HANDLE].flags & MORSEL_HOLDER_WRITABLE);
	assert_string_equal(seen.last[MORSEL_HOLDER_HANDLE].program, "exe");
	assert_false(seen.last[MORSEL_HOLDER_HANDLE].flags & MORSEL_HOLDER_DEAD);
	/* Killed, and not cleaned up yet. */
	end(&other);
	who(morsel, 3, &seen);
	assert_int_equal(seen.count[MORSEL_HOLDER_HANDLE], 1);
	assert_true(seen.last[MORSEL_HOLDER_HANDLE].flags & MORSEL_HOLDER_DEAD);
	assert_int_equal(morsel_pool_reap(pool), 1);
	who(morsel, 3, &seen);
	assert_int_equal(seen.count[MORSEL_HOLDER_HANDLE], 0);
	assert_fails(morsel_who(morsel, MIB, NULL, NULL, NULL), -EINVAL, "not inside");
	assert_ok(morsel_close(morsel));
	object_pool_end(pool);
}

static void test_who_evictable(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = object_create(pool, "m", MIB, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	struct other one, two;
	struct morsel_page page;
	struct seen seen;
	char words[64];

	page = who(morsel, 3, &seen);
	assert_int_equal(page.state, MORSEL_PAGE_RESIDENT);
	assert_non_null(strstr(page.why, "no swap target"));
	one = start(pool, false);
	two = start(pool, true);
	/* Both views begin at page 2; the grant is of page 3. */
	who(morsel, 1, &seen);
	assert_int_equal(seen.count[MORSEL_HOLDER_VIEW], 0);
	who(morsel, 2, &seen);
	assert_int_equal(seen.count[MORSEL_HOLDER_VIEW], 2);
	assert_int_equal(seen.count[MORSEL_HOLDER_PIN], 0);
	mrs_store_relaxed(&mrs_pool_state(pool)->swap_table, 1);
	/* Until both have handed over their descriptors. */
	for (unsigned i = 0; page = who(morsel, 2, &seen), page.why[0] && i < 3000; i++) {
		assert_non_null(strstr(page.why, "descriptor of process"));
		usleep(10000);
	}
	assert_string_equal(page.why, "");
	page = who(morsel, 3, &seen);
	mrs_store_relaxed(&mrs_pool_state(pool)->swap_table, 0);
	assert_int_equal(seen.count[MORSEL_HOLDER_VIEW], 2);
	assert_int_equal(seen.count[MORSEL_HOLDER_PIN], 1);
	assert_int_equal(seen.last[MORSEL_HOLDER_PIN].pid, two.pid);
	assert_int_equal(seen.last[MORSEL_HOLDER_PIN].offset, 3 * 4096);
	assert_int_equal(seen.last[MORSEL_HOLDER_PIN].bytes, 4096);
	snprintf(words, sizeof(words), "pinned by a grant of process %d", (int)two.pid);
	assert_non_null(strstr(page.why, words));
	if (seen.last[MORSEL_HOLDER_VIEW].pid == (uint32_t)one.pid)
		assert_int_equal(seen.last[MORSEL_HOLDER_VIEW].address, one.address + 4096);
	else
		assert_int_equal(seen.last[MORSEL_HOLDER_VIEW].address, two.address + 4096);
	end(&one);
	end(&two);
	/* By us, or by the pager, who hears of a death himself. */
	assert_true(morsel_pool_reap(pool) >= 0);
	assert_int_equal(mrs_pool_state(pool)->reaped, 2);
	assert_ok(morsel_close(morsel));
	object_pool_end(pool);
}

/* Entries and intents as a retarget leaves them for a moment. */
static void test_who_states(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel =
		object_create(pool, "m", MIB, MORSEL_EVICTABLE | MORSEL_LAZY, MORSEL_PAGES_4K);
	struct morsel_page page;
	struct mrs_leaf leaf;
	struct mrs_txn txn;
	struct seen seen;

	assert_ok(morsel_advise(morsel, 0, 64 * KIB, MORSEL_ADVICE_PREFETCH));
	assert_int_equal(who(morsel, 40, &seen).state, MORSEL_PAGE_HOLE);
	assert_ok(mrs_table_leaf(&morsel->table, 5, &leaf));
	mrs_store_release(leaf.place,
			  mrs_entry_make(MRS_ENTRY_EVICTED, 0, mrs_entry_frame(leaf.entry)));
	page = who(morsel, 5, &seen);
	assert_int_equal(page.state, MORSEL_PAGE_EVICTED);
	assert_string_equal(page.why, "");
	mrs_store_release(leaf.place, leaf.entry | MRS_ENTRY_DIRTY);
	assert_int_equal(who(morsel, 5, &seen).dirty, 1);
	mrs_store_release(leaf.place, leaf.entry);
	mrs_store_relaxed(&mrs_pool_state(pool)->swap_table, 1);
	assert_ok(mrs_txn_begin(pool, MRS_INTENT_RETARGET, &txn));
	mrs_store_release(&txn.intent->cell[0], morsel->cell);
	mrs_store_release(&txn.intent->page, 4);
	mrs_store_release(&txn.intent->count, 2);
	mrs_store_release32(&txn.intent->step, MRS_RETARGET_MOVE << 8);
	page = who(morsel, 5, &seen);
	assert_non_null(strstr(page.why, "being moved by process"));
	assert_int_equal(seen.count[MORSEL_HOLDER_LOCK], 1);
	assert_int_equal(seen.last[MORSEL_HOLDER_LOCK].pid, getpid());
	page = who(morsel, 6, &seen);
	assert_int_equal(seen.count[MORSEL_HOLDER_LOCK], 0);
	mrs_txn_end(&txn);
	mrs_store_relaxed(&mrs_pool_state(pool)->swap_table, 0);
	assert_ok(morsel_close(morsel));
	object_pool_end(pool);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_counters),   cmocka_unit_test(test_usage),
		cmocka_unit_test(test_who_plain),  cmocka_unit_test(test_who_evictable),
		cmocka_unit_test(test_who_states),
	};

	if (argc > 4 && !strcmp(argv[1], "--child"))
		return child_main(argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
