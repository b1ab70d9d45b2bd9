/* A planted fault: steps of a child's entry are a look and a store, so that a count gets lost. */
#include "base/atomic.h"

static bool planted_cas32(uint32_t *p, uint32_t *expected, uint32_t desired)
{
	uint32_t seen = mrs_load_acquire32(p);

	if (seen != *expected) {
		*expected = seen;
		return false;
	}
	mrs_store_release32(p, desired);
	return true;
}

#define mrs_cas32 planted_cas32
#include "../../core/frame/claim.c"
