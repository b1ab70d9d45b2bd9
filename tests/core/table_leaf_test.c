/*
 * One leaf where it stands: finding, splitting and joining against the runs that lookup tells,
 * which do not change by either; and readers who come through a table while it is replaced.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/atomic.h"
#include "base/base.h"
#include "core/table_memory.h"
#include "support/counts.h"

#define GIANT (1ull << 18)
#define US    41u /* index of a transition */

struct fixture {
	struct memory m;
	struct memory_txn txn;
};

static void setup(struct fixture *f)
{
	memset(f, 0, sizeof(*f));
	memory_open(&f->m);
}

static uint64_t set(struct fixture *f, uint64_t page, unsigned level)
{
	uint64_t frame = DATA_FIRST + GIANT + page;

	assert_int_equal(memory_set(&f->m, &f->txn, page, level, frame), 0);
	return frame;
}

static struct mrs_leaf leaf_at(struct fixture *f, uint64_t page)
{
	struct mrs_leaf leaf;

	assert_int_equal(mrs_table_leaf(&f->m.table, page, &leaf), 0);
	return leaf;
}

/* The lock by compare-and-swap, as retarget.c does it. */
static struct mrs_leaf lock(struct fixture *f, uint64_t page)
{
	struct mrs_leaf leaf = leaf_at(f, page);
	uint64_t entry = leaf.entry;

	assert_non_null(leaf.place);
	leaf.entry = mrs_entry_locked(entry, US);
	assert_true(mrs_cas(leaf.place, &entry, leaf.entry));
	return leaf;
}

static void unlock_table(uint64_t *entries)
{
	for (unsigned i = 0; i < 512; i++) {
		assert_int_equal(mrs_entry_lock(entries[i]), US + 1);
		mrs_store_release(&entries[i], mrs_entry_unlocked(entries[i]));
	}
}

/* ---- finding ---- */

static void check_leaf(struct fixture *f, uint64_t page)
{
	struct mrs_leaf leaf = leaf_at(f, page);
	struct mrs_run run;

	assert_int_equal(mrs_table_lookup(&f->m.table, page, 1, &run), 0);
	assert_int_equal(run.mapped, !!leaf.entry);
	assert_true(page >= leaf.page && page - leaf.page < 1ull << 9 * leaf.level);
	if (run.mapped) {
		assert_int_equal(mrs_entry_frame(leaf.entry) + (page - leaf.page), run.frame);
		assert_int_equal(run.order, 9 * leaf.level);
	}
	if (!leaf.place)
		return;
	assert_ptr_equal(leaf.place, f->m.tables[leaf.table] + leaf.index);
	assert_int_equal(*leaf.place, leaf.entry);
}

static void test_find(void **state)
{
	uint64_t random = test_seed();
	struct fixture f;

	setup(&f);
	assert_null(leaf_at(&f, 5).place);
	for (unsigned i = 0; i < 300; i++) {
		uint64_t r = test_random(&random);
		unsigned level = r % 8 ? r % 3 == 0 : 2;
		uint64_t page = mrs_round_down((r >> 16) % (3 * GIANT), 1ull << 9 * level);
		struct mrs_run run;

		if (!mrs_table_lookup(&f.m.table, page, 1ull << 9 * level, &run) && !run.mapped &&
		    run.pages == 1ull << 9 * level)
			set(&f, page, level);
		for (unsigned k = 0; k < 20; k++)
			check_leaf(&f, test_random(&random) % (4 * GIANT));
	}
	memory_audit(&f.m);
	memory_close(&f.m);
}

/* A run has no places; marks are part of what is found. */
static void test_find_in_run(void **state)
{
	struct mrs_leaf leaf;
	struct fixture f;

	setup(&f);
	assert_true(memory_take_at(&f.m, DATA_FIRST, 4));
	assert_int_equal(mrs_table_set_run(&f.m.table, &f.txn, DATA_FIRST, 16), 0);
	leaf = leaf_at(&f, 7);
	assert_null(leaf.place);
	assert_int_equal(leaf.entry, mrs_entry_make(MRS_ENTRY_MAPPED, 0, DATA_FIRST + 7));
	assert_int_equal(leaf_at(&f, 16).entry, 0);
	f.m.table.small_leaves = true;
	assert_int_equal(mrs_table_expand(&f.m.table, &f.txn), 0);
	assert_int_equal(leaf_at(&f, 7).level, 0);
	assert_non_null(leaf_at(&f, 7).place);
	memory_close(&f.m);
}

/* ---- split and join ---- */

static void test_split(void **state)
{
	for (unsigned level = 1; level <= 2; level++) {
		struct mrs_leaf leaf;
		uint64_t *entries, frame;
		struct mrs_run run;
		struct fixture f;

		setup(&f);
		frame = set(&f, GIANT, level);
		*leaf_at(&f, GIANT).place |= MRS_ENTRY_DIRTY | MRS_ENTRY_SHARED;
		leaf = lock(&f, GIANT);
		/* Without a frame nothing changes. */
		f.m.fail_at = 0;
		assert_int_equal(mrs_table_split(&f.m.table, &f.txn, &leaf, 0, &entries), -ENOSPC);
		f.m.fail_at = -1;
		assert_int_equal(*leaf.place, leaf.entry);
		assert_int_equal(mrs_table_split(&f.m.table, &f.txn, &leaf, 0, &entries), 0);
		assert_ptr_equal(entries, f.m.tables[leaf.table]);
		assert_int_equal(leaf.level, level - 1);
		for (uint64_t i = 0; i < 512; i++) {
			uint64_t piece = mrs_entry_make(MRS_ENTRY_MAPPED, level - 1,
							frame + (i << 9 * (level - 1))) |
					 MRS_ENTRY_DIRTY | MRS_ENTRY_SHARED;

			assert_int_equal(entries[i], mrs_entry_locked(piece, US));
		}
		unlock_table(entries);
		assert_int_equal(mrs_table_lookup(&f.m.table, GIANT, 2 * GIANT, &run), 0);
		assert_int_equal(run.pages, 1ull << 9 * level);
		assert_int_equal(run.frame, frame);
		memory_audit(&f.m);
		memory_close(&f.m);
	}
}

static struct mrs_leaf parent_of(struct fixture *f, uint64_t page)
{
	struct mrs_leaf leaf = leaf_at(f, page), parent = {.level = leaf.level + 1, .page = page};

	/* The root here is a table of level 1. */
	parent.place = &f->m.tables[mrs_entry_frame(f->m.root)][page / 512];
	parent.entry = *parent.place;
	return parent;
}

static void lock_table(struct fixture *f, uint64_t page)
{
	for (uint64_t i = 0; i < 512; i++)
		lock(f, page + i);
}

static void test_join(void **state)
{
	struct mrs_leaf parent, leaf;
	uint64_t *entries, deposit, frame = 0, use;
	struct fixture f;

	setup(&f);
	for (uint64_t i = 0; i < 512; i++)
		frame = set(&f, 512 + i, 0) - i;
	set(&f, 0, 0);
	use = f.m.in_use;
	leaf = leaf_at(&f, 600);
	*leaf.place |= MRS_ENTRY_DIRTY;
	lock_table(&f, 512);
	parent = parent_of(&f, 512);
	assert_int_equal(mrs_table_join(&f.m.table, &parent, &deposit), 0);
	assert_int_equal(deposit, leaf.table);
	assert_int_equal(*parent.place, parent.entry);
	assert_int_equal(
		parent.entry,
		mrs_entry_locked(mrs_entry_make(MRS_ENTRY_MAPPED, 1, frame) | MRS_ENTRY_DIRTY, US));
	/* Who holds a pointer into the old table learns of it. */
	for (unsigned i = 0; i < 512; i++)
		assert_int_equal(mrs_entry_state(f.m.tables[deposit][i]), MRS_ENTRY_STALE);
	check_leaf(&f, 600);
	/* And back, into the same table, without a frame. */
	parent.table = mrs_entry_frame(f.m.root);
	f.m.fail_at = 0;
	assert_int_equal(mrs_table_split(&f.m.table, &f.txn, &parent, deposit, &entries), 0);
	f.m.fail_at = -1;
	unlock_table(entries);
	assert_int_equal(f.m.in_use, use);
	memory_audit(&f.m);
	memory_close(&f.m);
}

/* What is not alike stays apart, and as it was. */
static void test_join_refused(void **state)
{
	struct mrs_leaf parent;
	uint64_t before[512], deposit, *entries;
	struct fixture f;

	setup(&f);
	for (uint64_t i = 0; i < 512; i++)
		set(&f, 512 + i, 0);
	lock_table(&f, 512);
	parent = parent_of(&f, 512);
	entries = f.m.tables[mrs_entry_frame(parent.entry)];
	memcpy(before, entries, sizeof(before));
	for (unsigned kind = 0; kind < 6; kind++) {
		static const uint64_t flip[] = {
			1,
			MRS_ENTRY_SHARED,
			1ull << MRS_ENTRY_LOCK_SHIFT,
			(uint64_t)(MRS_ENTRY_MAPPED ^ MRS_ENTRY_EVICTED) << MRS_ENTRY_STATE_SHIFT,
		};

		/* One entry differs, the first or the last; or all are locked by nobody. */
		if (kind < 4)
			entries[kind % 2 ? 511 : 0] ^= flip[kind];
		for (unsigned i = 0; kind >= 4 && i < 512; i++)
			entries[i] = kind == 4 ? mrs_entry_unlocked(before[i]) : before[i] + 1;
		assert_int_equal(mrs_table_join(&f.m.table, &parent, &deposit), -EINVAL);
		memcpy(entries, before, sizeof(before));
	}
	/* The parent changed meanwhile. */
	parent.entry |= MRS_ENTRY_SHARED;
	assert_int_equal(mrs_table_join(&f.m.table, &parent, &deposit), -EAGAIN);
	unlock_table(entries);
	memory_audit(&f.m);
	memory_close(&f.m);
}

/* ---- every entry ---- */

struct seen {
	uint64_t frames, tables, pages;
	uint64_t skip;
};

static int see(void *ctx, const struct mrs_leaf *entry, bool is_table)
{
	struct seen *seen = ctx;

	assert_int_equal(entry->entry, *entry->place);
	seen->frames += is_table ? 1 : 1ull << 9 * entry->level;
	seen->tables += is_table;
	seen->pages += is_table ? 0 : 1ull << 9 * entry->level;
	return is_table && mrs_entry_frame(entry->entry) == seen->skip ? MRS_TABLE_SKIP : 0;
}

static int stop(void *ctx, const struct mrs_leaf *entry, bool is_table)
{
	return is_table ? 0 : 77;
}

static void test_each_entry(void **state)
{
	struct seen seen = {0};
	struct fixture f;

	setup(&f);
	assert_int_equal(mrs_table_each_entry(&f.m.table, see, &seen), 0);
	assert_int_equal(seen.frames, 0);
	set(&f, 0, 2);
	set(&f, GIANT, 1);
	set(&f, GIANT + 513, 0);
	set(&f, GIANT + 515, 0);
	assert_int_equal(mrs_table_each_entry(&f.m.table, see, &seen), 0);
	assert_int_equal(seen.frames, f.m.in_use);
	assert_int_equal(seen.pages, GIANT + 512 + 2);
	assert_int_equal(mrs_table_each_entry(&f.m.table, stop, NULL), 77);
	seen = (struct seen){.skip = leaf_at(&f, GIANT + 513).table};
	assert_int_equal(mrs_table_each_entry(&f.m.table, see, &seen), 0);
	assert_int_equal(seen.pages, GIANT + 512);
	memory_close(&f.m);
}

/* ---- readers beside ---- */

struct reader {
	struct fixture *f;
	uint64_t frame;
	uint32_t stop;
	uint64_t wrong;
	pthread_t thread;
};

static void *read_main(void *argument)
{
	struct reader *r = argument;
	uint64_t random = 1;

	while (!mrs_load_acquire32(&r->stop)) {
		uint64_t page = 512 + test_random(&random) % 512;
		struct mrs_leaf leaf;
		struct mrs_run run;

		if (mrs_table_lookup(&r->f->m.table, page, 1, &run) ||
		    run.frame != r->frame + (page - 512) ||
		    mrs_table_leaf(&r->f->m.table, page, &leaf) ||
		    mrs_entry_frame(leaf.entry) + (page - leaf.page) != run.frame)
			r->wrong++;
	}
	return NULL;
}

static void test_readers_beside(void **state)
{
	struct reader r = {0};
	struct fixture f;

	setup(&f);
	for (uint64_t i = 0; i < 512; i++)
		r.frame = set(&f, 512 + i, 0) - i;
	r.f = &f;
	assert_int_equal(pthread_create(&r.thread, NULL, read_main, &r), 0);
	for (unsigned i = 0; i < COUNT_TABLE_JOINS; i++) {
		struct mrs_leaf parent;
		uint64_t *entries, deposit;

		lock_table(&f, 512);
		parent = parent_of(&f, 512);
		assert_int_equal(mrs_table_join(&f.m.table, &parent, &deposit), 0);
		parent.table = mrs_entry_frame(f.m.root);
		assert_int_equal(mrs_table_split(&f.m.table, &f.txn, &parent, deposit, &entries),
				 0);
		unlock_table(entries);
	}
	mrs_store_release32(&r.stop, 1);
	pthread_join(r.thread, NULL);
	assert_int_equal(r.wrong, 0);
	memory_audit(&f.m);
	memory_close(&f.m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_find),	       cmocka_unit_test(test_find_in_run),
		cmocka_unit_test(test_split),	       cmocka_unit_test(test_join),
		cmocka_unit_test(test_join_refused),   cmocka_unit_test(test_each_entry),
		cmocka_unit_test(test_readers_beside),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
