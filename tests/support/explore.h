/*
 * The interleaving explorer: runs two or three simulated threads in every order that matters.
 *
 * Code under test is compiled into the test program with -DMORSEL_EXPLORE. Then every atomic verb
 * of core/base/atomic.h first calls mrs_explore_point(), and the explorer, which runs the threads
 * as coroutines of one operating-system thread, decides there who goes on. It walks depth-first
 * through all schedules with at most so many preemptions (a switch away from a thread that could
 * have gone on). A switch at the end of an operation, at a thread's death or in a spin loop
 * (mrs_spin_hint()) costs nothing. Each schedule starts from setup() and is judged by check().
 *
 *   static void setup(void *ctx);   brings *all* state that the operations see back to the start
 *   static void op_a(void *ctx);    what one thread does; puts its results into ctx
 *   static int check(void *ctx);    0, or the promise that is broken, as any other number
 *
 *   struct mrs_explore scenario = {
 *           .name = "a-b", .threads = 2, .setup = setup, .op = { op_a, op_b }, .check = check,
 *           .ctx = &state,
 *   };
 *   struct mrs_explore_result result;
 *   assert_int_equal(mrs_explore_run(&scenario, &result), 0);
 *
 * Death. With .deaths = 1, at each of its points a thread may also stop for ever, in addition to
 * all preemptions: that is SIGKILL before that verb, with everything before it done in program
 * order. check() asks mrs_explore_is_dead() who is gone, repairs, and judges.
 *
 * A violation ends the walk. The schedule that led to it is printed and can be run again:
 *
 *   MORSEL_EXPLORE_REPLAY='a-b=0@7 1@end 0@end' the-test
 *
 * means thread 0 runs until it stands before its 7th verb, thread 1 to its end, thread 0 to its
 * end; "0@7!" is death there. A replay prints every point on the way.
 *
 * What it cannot see: orders that only a weakly ordered processor shows (it is sequentially
 * consistent; ThreadSanitizer and the comments' partners are for that), and plain accesses between
 * two verbs, which it takes as one step. Operations must be deterministic and must not call
 * cmocka's assertions, which jump off the coroutine's stack; setup() and check() may. One walk at a
 * time. Build: morsel_explore_test() of support/explore.cmake compiles the sources under test with
 * MORSEL_EXPLORE into the test program.
 */
#ifndef TESTS_SUPPORT_EXPLORE_H
#define TESTS_SUPPORT_EXPLORE_H

#include <stdbool.h>
#include <stdint.h>

#define MRS_EXPLORE_THREADS_MAX	 3
#define MRS_EXPLORE_SCHEDULE_MAX 1024 /* bytes of a schedule in text */

struct mrs_explore {
	const char *name;
	unsigned threads;
	void (*setup)(void *ctx);
	void (*op[MRS_EXPLORE_THREADS_MAX])(void *ctx);
	int (*check)(void *ctx);
	void *ctx;
	/* Limits; 0 means the default. */
	unsigned preemptions;	/* 3 */
	unsigned deaths;	/* 0: how many threads may die in one schedule */
	unsigned mortals;	/* bit mask of the threads that may die; default all */
	uint64_t schedules_max; /* 2,000,000; reaching it is printed and sets truncated */
	unsigned steps_max;	/* 20,000 verbs in one schedule: more is a livelock */
	/* Verbs on this memory are no points: for words that never change during the walk. */
	const void *constant;
	uint64_t constant_bytes;
	bool quiet; /* print no line when all is well (truncation is always printed) */
};

enum mrs_explore_verdict {
	MRS_EXPLORE_HOLDS,
	MRS_EXPLORE_VIOLATED, /* check() said no */
	MRS_EXPLORE_LIVELOCK, /* steps_max reached */
};

struct mrs_explore_result {
	enum mrs_explore_verdict verdict;
	bool truncated;	    /* schedules_max reached: not everything was seen */
	uint64_t schedules; /* schedules run */
	uint64_t states;    /* distinct points: nodes of the tree of schedules */
	uint64_t deaths;    /* schedules in which somebody died */
	unsigned points[MRS_EXPLORE_THREADS_MAX]; /* most verbs that a thread executed */
	int broken;				  /* what check() returned */
	char schedule[MRS_EXPLORE_SCHEDULE_MAX];  /* that led to it */
};

/* Walks. 0 if every check held; 1 if one did not, or on livelock, and the schedule is printed. */
int mrs_explore_run(const struct mrs_explore *scenario, struct mrs_explore_result *result);

/* Runs this one schedule ("0@7 1@end 0@end"); answers like mrs_explore_run(). -1: it does not fit.
 */
int mrs_explore_replay(const struct mrs_explore *scenario, const char *schedule,
		       struct mrs_explore_result *result);

/* For check(): did this thread die in the schedule that just ended? */
bool mrs_explore_is_dead(unsigned thread);
/* Inside an operation: which thread is this? */
unsigned mrs_explore_self(void);

/* The hooks of core/base/atomic.h. Outside a walk, and in setup() and check(), they do nothing. */
extern bool mrs_explore_inside;
void mrs_explore_point(const volatile void *address);
void mrs_explore_yield(void);

#endif
