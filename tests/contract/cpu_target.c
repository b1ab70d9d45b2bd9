/*
 * This process's CPU as a target. It reads and writes by way of the kernel's copies to and from
 * user memory, which obey the same translations and answer EFAULT where the CPU would take a
 * signal.
 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "contract/contract.h"

static int open_kind(struct morsel *morsel, const struct morsel_map_opts *given, uint32_t kind,
		     struct morsel_view **view)
{
	struct morsel_map_opts opts = *given;

	opts.kind = kind;
	return morsel_map(morsel, &opts, view);
}

static int open_pooled(struct morsel *morsel, const struct morsel_map_opts *opts,
		       struct morsel_view **view)
{
	return open_kind(morsel, opts, MORSEL_VIEW_POOLED, view);
}

static int open_stitched(struct morsel *morsel, const struct morsel_map_opts *opts,
			 struct morsel_view **view)
{
	return open_kind(morsel, opts, MORSEL_VIEW_STITCHED, view);
}

/* bytes from user memory at from to user memory at to, by way of a file in memory. */
static int kernel_copy(void *to, const void *from, uint64_t bytes)
{
	int fd = memfd_create("contract", MFD_CLOEXEC), rc = 0;

	if (fd < 0)
		return -errno;
	for (uint64_t done = 0; done < bytes && !rc;) {
		ssize_t n = pwrite(fd, (const char *)from + done, bytes - done, 0);

		if (n > 0)
			n = pread(fd, (char *)to + done, (size_t)n, 0);
		if (n <= 0)
			rc = n ? -errno : -EFAULT;
		else
			done += (uint64_t)n;
	}
	close(fd);
	return rc;
}

static int cpu_peek(struct morsel_view *view, uint64_t offset, void *buffer, uint64_t bytes)
{
	return kernel_copy(buffer, (char *)morsel_addr(view) + offset, bytes);
}

static int cpu_poke(struct morsel_view *view, uint64_t offset, const void *buffer, uint64_t bytes)
{
	return kernel_copy((char *)morsel_addr(view) + offset, buffer, bytes);
}

const struct contract_target contract_cpu_pooled = {
	.name = "cpu-pooled",
	.flags = MORSEL_CONTIGUOUS,
	.pages = MORSEL_PAGES_MIXED,
	.open = open_pooled,
	.peek = cpu_peek,
	.poke = cpu_poke,
};

const struct contract_target contract_cpu_stitched = {
	.name = "cpu-stitched",
	.flags = MORSEL_SCATTERED,
	.pages = MORSEL_PAGES_4K,
	.open = open_stitched,
	.peek = cpu_peek,
	.poke = cpu_poke,
};
