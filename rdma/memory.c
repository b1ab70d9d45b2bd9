/*
 * How much may be pinned. The kernel counts pinned pages per process against RLIMIT_MEMLOCK, unless
 * it has CAP_IPC_LOCK, and answers ENOMEM without a number; so what this library registers is
 * counted here, and refused before, with the number. What others register is not known: then the
 * kernel says no, and the words name what is known.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "internal.h"

#define CAP_IPC_LOCK 14

static _Atomic uint64_t pinned;

static bool may_lock_all(void)
{
	unsigned long long effective = 0;
	FILE *status = fopen("/proc/self/status", "re");
	char line[256];

	while (status && fgets(line, sizeof(line), status))
		if (sscanf(line, "CapEff: %llx", &effective) == 1)
			break;
	if (status)
		fclose(status);
	return effective >> CAP_IPC_LOCK & 1;
}

uint64_t mrs_rdma_pin_limit(void)
{
	struct rlimit limit;

	if (may_lock_all() || getrlimit(RLIMIT_MEMLOCK, &limit) || limit.rlim_cur == RLIM_INFINITY)
		return UINT64_MAX;
	return limit.rlim_cur;
}

int mrs_rdma_pin_account(uint64_t bytes)
{
	uint64_t limit = mrs_rdma_pin_limit();
	uint64_t had = atomic_fetch_add(&pinned, bytes);

	if (had + bytes <= limit)
		return 0;
	atomic_fetch_sub(&pinned, bytes);
	return morsel_fail(
		-ENOMEM,
		"registering %llu bytes needs RLIMIT_MEMLOCK of at least %llu bytes; it is %llu: "
		"raise it (ulimit -l %llu), or keep fewer regions",
		(unsigned long long)bytes, (unsigned long long)(had + bytes),
		(unsigned long long)limit, (unsigned long long)((had + bytes + 1023) / 1024));
}

void mrs_rdma_pin_unaccount(uint64_t bytes)
{
	atomic_fetch_sub(&pinned, bytes);
}
