/* A planted fault: compare-and-swap of a row word is a look and a store, so that updates get lost.
 */
#include "base/atomic.h"

static bool planted_cas(uint64_t *p, uint64_t *expected, uint64_t desired)
{
	uint64_t seen = mrs_load_acquire(p);

	if (seen != *expected) {
		*expected = seen;
		return false;
	}
	mrs_store_release(p, desired);
	return true;
}

#define mrs_cas planted_cas
#include "../../core/frame/row.c"
