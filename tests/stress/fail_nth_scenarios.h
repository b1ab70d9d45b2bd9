/* What the parts of the fail-the-n-th test share. */
#ifndef TESTS_STRESS_FAIL_NTH_SCENARIOS_H
#define TESTS_STRESS_FAIL_NTH_SCENARIOS_H

#include <stddef.h>

#include <morsel/morsel.h>

/* What a scenario works on: a pool with a witness, whose content nothing may change. */
struct bench {
	struct morsel_pool *pool;
	struct morsel *witness;
	struct morsel *morsel;	  /* "m", 1 MiB of 0x55, open */
	struct morsel_view *view; /* of it */
	int socket[2];
	char file[64];	    /* a file to import */
	char pool_path[64]; /* a pool on tmpfs that is not open */
};

struct scenario {
	const char *name; /* of the exported function */
	int (*act)(struct bench *b); /* the call; undoes its own success with failures disarmed */
};

extern const struct scenario backend_scenarios[]; /* of <morsel/view.h> */
extern const size_t backend_scenarios_count;
extern const struct scenario carrier_scenarios[]; /* of <morsel/carrier.h> */
extern const size_t carrier_scenarios_count;
extern const struct scenario clone_scenarios[]; /* of <morsel/clone.h> */
extern const size_t clone_scenarios_count;
extern const struct scenario compact_scenarios[]; /* of <morsel/compact.h> */
extern const size_t compact_scenarios_count;
extern const struct scenario dump_scenarios[]; /* of <morsel/dump.h> */
extern const size_t dump_scenarios_count;
extern const struct scenario observe_scenarios[]; /* of <morsel/observe.h> */
extern const size_t observe_scenarios_count;
extern const struct scenario swap_scenarios[]; /* of <morsel/swap.h> */
extern const size_t swap_scenarios_count;
extern const struct scenario pager_scenarios[]; /* of <morsel/pager.h> */
extern const size_t pager_scenarios_count;

/* Ends arming before the undoing, so that only the call itself is failed. */
int scenario_done(int code);
/* Arms (again) for the call that this attempt is to fail: after preparations. */
void scenario_arm(void);

#endif
