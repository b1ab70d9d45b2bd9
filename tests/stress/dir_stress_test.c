/*
 * Cells and directory under real concurrency: threads of one handle, processes that share memory,
 * and processes that are killed while others go on.
 *
 * All contend for few names, so that they meet at the same words and cells all the time. Each name
 * has a balance (links minus unlinks that succeeded), which must be 0 or 1 and what find says at
 * the end. Under ThreadSanitizer the threads also show that every access has its partner.
 */
#include <setjmp.h>
#include <stdarg.h>

#include "support/dir_memory.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/counts.h"

#define NAMES	24
#define WORKERS 4

enum in_flight { NOTHING, CREATING, REMOVING };

/* What a worker shows to who repairs after it. */
struct worker_shared {
	uint64_t in_flight; /* enum in_flight | name << 8 */
	uint64_t note;
	uint64_t ops, created, removed, published, found;
	uint64_t wrong;
};

struct shared {
	uint64_t balance[NAMES];
	uint64_t stop;
	struct worker_shared worker[WORKERS];
};

struct worker {
	struct mrs_cells *cells;
	struct shared *shared;
	struct worker_shared *own;
	uint64_t seed;
	uint64_t ops;
};

static void name_of(unsigned which, char *name)
{
	static const unsigned lengths[] = {5, 20, 100, 255};

	memset(name, 'p', 256);
	name[0] = (char)('a' + which % 3);
	name[1] = (char)('0' + which / 8);
	name[2] = (char)('0' + which % 8);
	name[lengths[which % 4]] = 0;
}

/* Three words of the root, and few digits below. */
static uint64_t hash_narrow(const uint64_t key[2], const void *data, size_t bytes)
{
	const unsigned char *name = data;

	return (uint64_t)(name[0] & 3) << 52 | (uint64_t)(name[1] & 1) << 49 |
	       (uint64_t)(name[2] & 3) << 46;
}

static void set_in_flight(struct worker *w, enum in_flight what, unsigned which)
{
	mrs_store_release(&w->own->in_flight, (uint64_t)what | (uint64_t)which << 8);
}

static void create(struct worker *w, unsigned which, const char *name)
{
	mrs_cell dirent;
	int rc;

	set_in_flight(w, CREATING, which);
	rc = dir_memory_create(w->cells, name, 1 + (test_random(&w->seed) % 1000) * NAMES + which,
			       &w->own->note, &dirent);
	if (!rc) {
		mrs_fetch_add(&w->shared->balance[which], 1);
		w->own->created++;
	} else if (rc != -EEXIST) {
		w->own->wrong++;
	}
	set_in_flight(w, NOTHING, 0);
}

static void take_away(struct worker *w, unsigned which, const char *name)
{
	mrs_cell dirent, target;
	int rc = mrs_dir_find(w->cells, name, &dirent, &target);

	if (rc)
		return;
	mrs_store_release(&w->own->note, dirent);
	set_in_flight(w, REMOVING, which);
	rc = mrs_dir_unlink(w->cells, dirent);
	if (!rc) {
		do {
			target = mrs_dirent_target(w->cells, dirent);
		} while (mrs_dirent_retarget(w->cells, dirent, target, 0));
		w->own->wrong += (target - 1) % NAMES != which;
		mrs_dirent_free(w->cells, dirent);
		mrs_fetch_sub(&w->shared->balance[which], 1);
		w->own->removed++;
	} else if (rc != -ENOENT) {
		w->own->wrong++;
	}
	set_in_flight(w, NOTHING, 0);
}

/* Targets say which name they belong to: nobody may ever see another's. */
static void look_and_publish(struct worker *w, unsigned which, const char *name)
{
	mrs_cell dirent, target;
	char back[256];
	int rc = mrs_dir_find(w->cells, name, &dirent, &target);

	if (rc) {
		w->own->wrong += rc != -ENOENT;
		return;
	}
	w->own->found++;
	w->own->wrong += (target - 1) % NAMES != which;
	if (!mrs_dirent_name(w->cells, dirent, back))
		w->own->wrong += strcmp(back, name) != 0;
	rc = mrs_dirent_retarget(w->cells, dirent, target,
				 1 + (test_random(&w->seed) % 1000) * NAMES + which);
	w->own->published += rc == 0;
	w->own->wrong += rc && rc != -EAGAIN && rc != -ENOENT;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	char name[257];

	for (uint64_t i = 0; i < w->ops && !mrs_load_acquire(&w->shared->stop); i++) {
		unsigned which = (unsigned)(test_random(&w->seed) % NAMES);

		name_of(which, name);
		switch (test_random(&w->seed) % 3) {
		case 0:
			create(w, which, name);
			break;
		case 1:
			take_away(w, which, name);
			break;
		default:
			look_and_publish(w, which, name);
		}
		w->own->ops++;
	}
	return NULL;
}

static struct shared *shared_make(void)
{
	struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_true(shared != MAP_FAILED);
	return shared;
}

/* unsure: a name whose balance the dead may have left one off; corrected. NAMES: none. */
static void judge(struct mrs_cells *cells, struct shared *shared, unsigned unsure)
{
	assert_int_equal(mrs_dir_validate(cells, dir_memory_report, NULL), 0);
	for (unsigned i = 0; i < NAMES; i++) {
		mrs_cell dirent, target;
		char name[257];
		int rc;

		name_of(i, name);
		rc = mrs_dir_find(cells, name, &dirent, &target);
		if (i == unsure)
			shared->balance[i] = !rc;
		assert_int_equal(rc, shared->balance[i] ? 0 : -ENOENT);
		assert_true(shared->balance[i] <= 1);
	}
	for (unsigned i = 0; i < WORKERS; i++)
		assert_int_equal(shared->worker[i].wrong, 0);
}

static void print_counts(const struct shared *shared, const struct dir_memory *memory)
{
	for (unsigned i = 0; i < WORKERS; i++)
		if (shared->worker[i].ops)
			printf("worker %u: %llu operations: %llu created, %llu removed, %llu "
			       "published, %llu found\n",
			       i, (unsigned long long)shared->worker[i].ops,
			       (unsigned long long)shared->worker[i].created,
			       (unsigned long long)shared->worker[i].removed,
			       (unsigned long long)shared->worker[i].published,
			       (unsigned long long)shared->worker[i].found);
	printf("%llu cells in the array\n", (unsigned long long)memory->state.cells_high);
}

static void test_threads_of_one_handle(void **state)
{
	struct dir_memory *memory = dir_memory_make(256);
	struct mrs_cells cells = dir_memory_cells(memory, 0, 1);
	struct shared *shared = shared_make();
	struct worker worker[2];
	pthread_t thread[2];
	uint64_t seed = test_seed();

	cells.hash = hash_narrow;
	for (unsigned i = 0; i < 2; i++) {
		worker[i] = (struct worker){.cells = &cells,
					    .shared = shared,
					    .own = &shared->worker[i],
					    .seed = seed * 100 + i,
					    .ops = COUNT_DIR_STRESS_OPS};
		assert_int_equal(pthread_create(&thread[i], NULL, work, &worker[i]), 0);
	}
	for (unsigned i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	print_counts(shared, memory);
	judge(&cells, shared, NAMES);
	munmap(shared, sizeof(*shared));
	dir_memory_free(memory);
}

static pid_t start_process(struct dir_memory *memory, struct shared *shared, unsigned slot,
			   uint64_t seed, uint64_t ops)
{
	pid_t pid;

	fflush(stdout); /* or the child prints it again */
	pid = fork();

	if (!pid) {
		struct mrs_cells cells = dir_memory_cells(memory, 0, slot);
		struct worker worker = {.cells = &cells,
					.shared = shared,
					.own = &shared->worker[slot],
					.seed = seed,
					.ops = ops};

		cells.hash = hash_narrow;
		work(&worker);
		_exit(0);
	}
	assert_true(pid > 0);
	return pid;
}

static void wait_process(pid_t pid)
{
	int status;

	assert_true(waitpid(pid, &status, 0) == pid);
	assert_true(WIFEXITED(status) ? WEXITSTATUS(status) == 0 : WTERMSIG(status) == SIGKILL);
}

static void test_processes(void **state)
{
	struct dir_memory *memory = dir_memory_make(256);
	struct mrs_cells cells = dir_memory_cells(memory, 0, 9);
	struct shared *shared = shared_make();
	uint64_t seed = test_seed();
	pid_t first, second;

	cells.hash = hash_narrow;
	first = start_process(memory, shared, 0, seed * 100, COUNT_DIR_STRESS_OPS);
	second = start_process(memory, shared, 1, seed * 100 + 1, COUNT_DIR_STRESS_OPS);
	wait_process(first);
	wait_process(second);
	print_counts(shared, memory);
	judge(&cells, shared, NAMES);
	munmap(shared, sizeof(*shared));
	dir_memory_free(memory);
}

/* What a reaper does with the gate closed. Returns the name that was in flight, NAMES for none. */
static unsigned repair(struct mrs_cells *cells, struct worker_shared *dead, unsigned slot)
{
	unsigned which = (unsigned)(dead->in_flight >> 8);
	enum in_flight what = (enum in_flight)(dead->in_flight & 255);

	if (what == REMOVING)
		mrs_dir_unlink(cells, dead->note);
	if (what != NOTHING && !mrs_dir_is_linked(cells, dead->note))
		mrs_dirent_free(cells, dead->note);
	mrs_cells_reap(cells, slot);
	dead->in_flight = 0;
	return what == NOTHING ? NAMES : which;
}

/* One is killed at a random moment while the other goes on; then the other pauses: the gate. */
static void test_kills_beside_a_survivor(void **state)
{
	struct dir_memory *memory = dir_memory_make(256);
	struct mrs_cells cells = dir_memory_cells(memory, 0, 9);
	struct shared *shared = shared_make();
	uint64_t seed = test_seed();
	unsigned kills = (unsigned)COUNT_KILLS, in_the_middle = 0;

	cells.hash = hash_narrow;
	for (unsigned i = 0; i < kills; i++) {
		pid_t survivor = start_process(memory, shared, 0, seed * 1000 + 2 * i, ~0ull);
		pid_t victim = start_process(memory, shared, 1, seed * 1000 + 2 * i + 1, ~0ull);
		struct timespec delay = {0, (long)(test_random(&seed) % 3000000)};
		unsigned unsure;

		nanosleep(&delay, NULL);
		kill(victim, SIGKILL);
		wait_process(victim);
		mrs_store_release(&shared->stop, 1);
		wait_process(survivor);
		unsure = repair(&cells, &shared->worker[1], 1);
		in_the_middle += unsure != NAMES;
		judge(&cells, shared, unsure);
		mrs_store_release(&shared->stop, 0);
	}
	print_counts(shared, memory);
	printf("%u kills, %u in the middle of a change\n", kills, in_the_middle);
	assert_true(in_the_middle > kills / 20);
	munmap(shared, sizeof(*shared));
	dir_memory_free(memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_threads_of_one_handle),
		cmocka_unit_test(test_processes),
		cmocka_unit_test(test_kills_beside_a_survivor),
	};

	return cmocka_run_group_tests_name("dir stress", tests, NULL, NULL);
}
