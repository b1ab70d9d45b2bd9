/*
 * What stands in for the object room in the pool room's tests: the frames that "tables" refer to
 * are numbers in a list that the test's processes share, and an intent has a counter instead of a
 * meaning.
 *
 * The list is the brute-force model: after a death, a frame is allocated exactly if it is listed.
 */
#ifndef TESTS_CORE_POOL_DOUBLE_H
#define TESTS_CORE_POOL_DOUBLE_H

#include <stdbool.h>
#include <stdint.h>

#include "object/object.h"
#include "pool/internal.h"

#define DOUBLE_LINKS 65536

struct pool_double {
	uint64_t link[DOUBLE_LINKS]; /* frame + 1 | order << 48; 0 nothing */
	uint32_t intents;	     /* calls of repair.intent() */
	uint32_t drops;		     /* calls of repair.drop_open() */
	uint32_t last_op;
	uint32_t flag;	    /* set by a test's process ... */
	uint32_t flag_seen; /* ... as the last repair saw it */
	uint64_t lock;	    /* a record's lock: intent index + 1; a repair opens it */
};

extern struct pool_double *pool_double; /* shared by all processes of the test */

/*
 * Maps it (a program that a test starts by pool_spawn() gets the same one), or empties it.
 */
void pool_double_reset(void);
void pool_double_attach(void);
/* Links a block: a store that a repair finds. */
void pool_double_link(unsigned at, uint64_t frame, unsigned order);
void pool_double_unlink(unsigned at);
uint64_t pool_double_frame(unsigned at);

#endif
