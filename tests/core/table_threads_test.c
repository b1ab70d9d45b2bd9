/*
 * Several threads set leafs of one table at once, from an empty root on, while another looks: every
 * page is set by exactly one of those that tried, no table is made twice, and a reader never sees a
 * page go away or change.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/atomic.h"
#include "base/base.h"
#include "core/table_memory.h"
#include "support/counts.h"

#define SETTERS 2
#define SPREAD	2048u /* pages per round, over tables of several levels */

struct race {
	struct memory m;
	uint64_t random;
	uint64_t stop;
	pthread_barrier_t start;
	uint64_t pages[SPREAD];
};

struct setter {
	struct race *race;
	unsigned number;
	uint64_t won;
};

static void *run_setter(void *arg)
{
	struct setter *self = arg;
	struct race *race = self->race;
	struct memory_txn txn = {0};

	pthread_barrier_wait(&race->start);
	for (unsigned i = 0; i < SPREAD; i++) {
		uint64_t frame = DATA_FIRST + self->number * (1u << 18) + i;
		int rc = memory_set(&race->m, &txn, race->pages[i], 0, frame);

		assert_true(!rc || rc == -EEXIST);
		self->won += !rc;
	}
	return NULL;
}

static void *run_reader(void *arg)
{
	struct race *race = arg;
	uint64_t seen[64] = {0};

	pthread_barrier_wait(&race->start);
	while (!mrs_load_acquire(&race->stop)) {
		for (unsigned i = 0; i < mrs_array_length(seen); i++) {
			struct mrs_run run;

			assert_int_equal(mrs_table_lookup(&race->m.table, race->pages[i], 1, &run),
					 0);
			if (seen[i])
				assert_int_equal(run.frame, seen[i]);
			seen[i] = run.frame;
		}
	}
	return NULL;
}

/* Different pages in shuffled order, spread so that both threads keep meeting at new tables. */
static void choose_pages(struct race *race)
{
	unsigned spacing = 1 + test_random(&race->random) % 3000;

	for (unsigned i = 0; i < SPREAD; i++)
		race->pages[i] = (uint64_t)i * spacing;
	for (unsigned i = SPREAD - 1; i; i--) {
		unsigned j = test_random(&race->random) % (i + 1);
		uint64_t page = race->pages[i];

		race->pages[i] = race->pages[j];
		race->pages[j] = page;
	}
}

static void one_round(struct race *race)
{
	struct setter setters[SETTERS];
	pthread_t threads[SETTERS + 1];
	uint64_t won = 0;

	memory_open(&race->m);
	race->stop = 0;
	choose_pages(race);
	pthread_barrier_init(&race->start, NULL, SETTERS + 1);
	pthread_create(&threads[SETTERS], NULL, run_reader, race);
	for (unsigned i = 0; i < SETTERS; i++) {
		setters[i] = (struct setter){.race = race, .number = i};
		pthread_create(&threads[i], NULL, run_setter, &setters[i]);
	}
	for (unsigned i = 0; i < SETTERS; i++) {
		pthread_join(threads[i], NULL);
		won += setters[i].won;
	}
	mrs_store_release(&race->stop, 1);
	pthread_join(threads[SETTERS], NULL);
	pthread_barrier_destroy(&race->start);
	assert_int_equal(won, SPREAD);
	memory_audit(&race->m);
	memory_close(&race->m);
}

static void test_race(void **state)
{
	static struct race race;
	uint64_t rounds = COUNT_TABLE_RACES;

	race.random = test_seed();
	for (uint64_t i = 0; i < rounds; i++)
		one_round(&race);
	printf("%llu rounds\n", (unsigned long long)rounds);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_race)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
