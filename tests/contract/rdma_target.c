/*
 * A NIC as a target: peeks and pokes are RDMA reads and writes of a peer (tests/rdma/wire.h),
 * through the keys of the region that covers a page now, and where none does, through those that
 * did last: the device must refuse them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "contract/contract.h"
#include "internal.h"
#include "rdma/wire.h"

static struct wire wire; /* one at a time */
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static pid_t opened_by;

/* A child of fork has a device of its own. */
static struct wire *the_wire(void)
{
	if (opened_by != getpid() && wire_open(&wire))
		abort();
	opened_by = getpid();
	return &wire;
}

static int rdma_open(struct morsel *morsel, const struct morsel_map_opts *map,
		     struct morsel_view **view)
{
	struct morsel_rdma_view_opts opts = {
		.size = sizeof(opts),
		.access = map->access,
		.offset = map->offset,
		.bytes = map->bytes,
	};

	return morsel_rdma_view(morsel, the_wire()->pd, &opts, view);
}

/* rkeys of pages, by their addresses: the last that were seen. */
#define SEEN 4096u
static struct {
	uint64_t page;
	uint32_t rkey;
} seen[SEEN];

static struct mrs_rdma_region *covering(struct mrs_rdma *rdma, uint64_t offset)
{
	struct mrs_rdma_region *region = rdma->block[(rdma->phase + offset) / MRS_BLOCK_BYTES];

	while (region && !(region->first <= offset && offset < region->end))
		region = region->next;
	return region;
}

static uint32_t key_of(struct mrs_rdma *rdma, uint64_t offset)
{
	uint64_t page = (mrs_rdma_window_address(rdma) + offset) / PAGE;
	struct mrs_rdma_region *region, *made;

	pthread_mutex_lock(&rdma->lock);
	region = covering(rdma, offset);
	/* What the core has mapped a grant would find: here without one. */
	if (!region && !mrs_rdma_region_hold(rdma, offset / PAGE * PAGE, PAGE, &made)) {
		mrs_rdma_region_release(rdma, &made, 1);
		region = made;
	}
	if (region) {
		seen[page % SEEN].page = page;
		seen[page % SEEN].rkey = region->mr->rkey;
	}
	pthread_mutex_unlock(&rdma->lock);
	return seen[page % SEEN].page == page ? seen[page % SEEN].rkey : 0;
}

static int access_pages(struct morsel_view *view, uint64_t offset, void *in, const void *out,
			uint64_t bytes)
{
	struct mrs_rdma *rdma = mrs_rdma_of(view);
	int rc = 0;

	pthread_mutex_lock(&turn);
	while (bytes && !rc) {
		uint64_t n = mrs_min(bytes, PAGE - offset % PAGE);
		uint64_t address = mrs_rdma_window_address(rdma) + offset;
		uint32_t rkey = key_of(rdma, offset);

		if (out)
			memcpy(wire.buffer, out, n);
		rc = out ? wire_write(&wire, address, rkey, n) : wire_read(&wire, address, rkey, n);
		if (!rc && in)
			memcpy(in, wire.buffer, n);
		in = in ? (char *)in + n : NULL;
		out = out ? (const char *)out + n : NULL;
		offset += n;
		bytes -= n;
	}
	pthread_mutex_unlock(&turn);
	return rc == -EFAULT && out && !(rdma->opts.access & MORSEL_WRITE) ? -EACCES : rc;
}

static int rdma_peek(struct morsel_view *view, uint64_t offset, void *buffer, uint64_t bytes)
{
	return access_pages(view, offset, buffer, NULL, bytes);
}

static int rdma_poke(struct morsel_view *view, uint64_t offset, const void *buffer, uint64_t bytes)
{
	return access_pages(view, offset, NULL, buffer, bytes);
}

const char *contract_rdma_missing(void)
{
	if (wire_open(&wire))
		return "no RDMA device here";
	opened_by = getpid();
	return NULL;
}

const struct contract_target contract_rdma_pinned = {
	.name = "rdma-pinned",
	.flags = MORSEL_SCATTERED,
	.pages = MORSEL_PAGES_4K,
	.open = rdma_open,
	.peek = rdma_peek,
	.poke = rdma_poke,
};
