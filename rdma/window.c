/*
 * The view's range of addresses. libibverbs registers addresses of the process; so each view has a
 * range of its own, in which the morsel's pages are mapped side by side where the core has said
 * that they are resident, and nothing where it has not. No program touches it: its pages are there
 * for the kernel to pin, and leave before they are punched away. It is writable also for a view
 * that is not: the NIC's rights are those of its regions, and kernels before 6.3 pin for writing.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "internal.h"

#define NOTHING (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)

static int failed(const char *what)
{
	int code = errno;

	if (code == ENOMEM)
		return morsel_fail(
			-ENOMEM,
			"%s: no memory, or more mappings than vm.max_map_count allows: raise "
			"that, or use a morsel with fewer runs (contiguous, or pages of 2 MiB)",
			what);
	return morsel_fail(-code, "%s: %s", what, strerror(code));
}

int mrs_rdma_window_open(struct mrs_rdma *rdma, const struct morsel_target *target)
{
	unsigned char *at;

	rdma->bytes = target->bytes;
	rdma->phase = target->offset % MRS_BLOCK_BYTES;
	rdma->fd = target->fd;
	/* Room to put 2 MiB of the morsel where huge pages can lie. */
	rdma->window_bytes = target->bytes + MRS_BLOCK_BYTES + rdma->phase;
	at = mmap(NULL, rdma->window_bytes, PROT_NONE, NOTHING, -1, 0);
	if (at == MAP_FAILED)
		return failed("an address range for a view");
	rdma->window = at;
	return 0;
}

static unsigned char *address(const struct mrs_rdma *rdma, uint64_t offset)
{
	uintptr_t start = mrs_round_up((uintptr_t)rdma->window, MRS_BLOCK_BYTES);

	return (unsigned char *)start + rdma->phase + offset;
}

static int map_run(struct mrs_rdma *rdma, const struct morsel_run *run)
{
	unsigned char *at = address(rdma, run->offset);

	if (mmap(at, run->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE,
		 rdma->fd, (off_t)(run->frame * MRS_PAGE_BYTES)) == MAP_FAILED)
		return failed("mapping pages for the NIC");
	/* A child that wrote would write into frames that may be another's by then. */
	if (madvise(at, run->bytes, MADV_DONTFORK))
		return failed("madvise(MADV_DONTFORK)");
	return 0;
}

int mrs_rdma_window_map(struct mrs_rdma *rdma, const struct morsel_run *runs, size_t n)
{
	int rc = 0;

	for (size_t i = 0; i < n && !rc; i++)
		rc = map_run(rdma, &runs[i]);
	return rc;
}

int mrs_rdma_window_forget(struct mrs_rdma *rdma, uint64_t offset, uint64_t bytes)
{
	if (mmap(address(rdma, offset), bytes, PROT_NONE, NOTHING | MAP_FIXED, -1, 0) == MAP_FAILED)
		return failed("taking pages away from the NIC");
	return 0;
}

void mrs_rdma_window_close(struct mrs_rdma *rdma)
{
	if (rdma->window)
		munmap(rdma->window, rdma->window_bytes);
	rdma->window = NULL;
}

uint64_t mrs_rdma_window_address(const struct mrs_rdma *rdma)
{
	return (uintptr_t)address(rdma, 0);
}

/* ---- registering ---- */

/* What the NIC may do; the process's own work requests write where the peer may. */
static int flags_of(uint32_t access)
{
	int flags = IBV_ACCESS_REMOTE_READ;

	if (access & MORSEL_WRITE)
		flags |=
			IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC;
	return flags;
}

static uint64_t pages_of(const void *at, uint64_t bytes)
{
	uintptr_t first = mrs_round_down((uintptr_t)at, MRS_PAGE_BYTES);

	return mrs_round_up((uintptr_t)at + bytes, MRS_PAGE_BYTES) - first;
}

static int register_failed(uint64_t bytes, int code)
{
	if (code == ENOMEM)
		return morsel_fail(
			-ENOMEM,
			"the kernel or the NIC refuses to register %llu bytes: RLIMIT_MEMLOCK is "
			"%llu, and the device has a most of regions (ibv_devinfo -v: max_mr)",
			(unsigned long long)bytes, (unsigned long long)mrs_rdma_pin_limit());
	if (code == EOPNOTSUPP || code == EFAULT)
		return morsel_fail(
			-EOPNOTSUPP,
			"the pool's memory cannot be registered with this NIC (%s): use a pool "
			"in memory",
			strerror(code));
	return morsel_fail(code ? -code : -EIO, "ibv_reg_mr of %llu bytes: %s",
			   (unsigned long long)bytes, strerror(code));
}

int mrs_rdma_register(struct mrs_rdma *rdma, uint64_t offset, uint64_t bytes, uint32_t access,
		      struct ibv_mr **mr)
{
	unsigned char *at = address(rdma, offset);
	int rc = mrs_rdma_pin_account(pages_of(at, bytes));

	if (rc)
		return rc;
	errno = 0;
	*mr = ibv_reg_mr(rdma->pd, at, bytes, flags_of(access));
	if (!*mr) {
		rc = errno;
		mrs_rdma_pin_unaccount(pages_of(at, bytes));
		return register_failed(bytes, rc);
	}
	rdma->pinned += pages_of(at, bytes);
	rdma->registered++;
	return 0;
}

/* The kernel waits for the NIC: after it no access by these keys is under way. */
int mrs_rdma_deregister(struct mrs_rdma *rdma, struct ibv_mr *mr)
{
	uint64_t bytes = pages_of(mr->addr, mr->length);
	int code = ibv_dereg_mr(mr);

	if (code)
		return morsel_fail(-code, "the NIC does not give %llu bytes back: %s",
				   (unsigned long long)bytes, strerror(code));
	mrs_rdma_pin_unaccount(bytes);
	rdma->pinned -= bytes;
	rdma->deregistered++;
	return 0;
}
