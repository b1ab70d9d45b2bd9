/*
 * Regions. Each lies in one block of 2 MiB of the morsel, so that a piece that goes takes little
 * with it, and blocks stand in an array, so that finding one is an index and a short list.
 *
 *	held	by a grant: its keys are in use
 *	kept	by nobody: registered still, in a list by age; the next grant finds it for nothing
 *
 * A kept region goes when there are too many of them, when its pages are to go, or when registering
 * another one failed for want of memory. A region is the pages that were granted and none beside
 * them: those may go while it is held. So the same pages find their region again, and others get one
 * of their own.
 */
#include <errno.h>
#include <stdlib.h>

#include "internal.h"

static uint64_t block_of(const struct mrs_rdma *rdma, uint64_t offset)
{
	return (rdma->phase + offset) / MRS_BLOCK_BYTES;
}

/* Where block i ends in the view. */
static uint64_t block_end(const struct mrs_rdma *rdma, uint64_t i)
{
	return mrs_min((i + 1) * MRS_BLOCK_BYTES - rdma->phase, rdma->bytes);
}

unsigned mrs_rdma_region_count(const struct mrs_rdma *rdma, uint64_t offset, uint64_t bytes)
{
	return (unsigned)(block_of(rdma, offset + bytes - 1) - block_of(rdma, offset) + 1);
}

/* ---- kept ---- */

static void keep(struct mrs_rdma *rdma, struct mrs_rdma_region *region)
{
	region->older = rdma->newest;
	region->newer = NULL;
	*(rdma->newest ? &rdma->newest->newer : &rdma->oldest) = region;
	rdma->newest = region;
	rdma->kept++;
}

static void unkeep(struct mrs_rdma *rdma, struct mrs_rdma_region *region)
{
	*(region->older ? &region->older->newer : &rdma->oldest) = region->newer;
	*(region->newer ? &region->newer->older : &rdma->newest) = region->older;
	rdma->kept--;
}

/* ---- coming and going ---- */

static int drop(struct mrs_rdma *rdma, struct mrs_rdma_region *region)
{
	struct mrs_rdma_region **link = &rdma->block[block_of(rdma, region->first)];
	int rc = mrs_rdma_deregister(rdma, region->mr);

	if (rc)
		return rc;
	while (*link != region)
		link = &(*link)->next;
	*link = region->next;
	if (!region->held)
		unkeep(rdma, region);
	rdma->regions--;
	free(region);
	return 0;
}

/* False: there is nothing kept. */
static bool drop_oldest(struct mrs_rdma *rdma)
{
	return rdma->oldest && !drop(rdma, rdma->oldest);
}

static struct mrs_rdma_region *find(const struct mrs_rdma *rdma, uint64_t first, uint64_t end)
{
	struct mrs_rdma_region *region = rdma->block[block_of(rdma, first)];

	while (region && (region->first != first || region->end != end))
		region = region->next;
	return region;
}

/* A region for pages [first, end), of one block, held once. */
static int make(struct mrs_rdma *rdma, uint64_t first, uint64_t end, struct mrs_rdma_region **made)
{
	struct mrs_rdma_region **head = &rdma->block[block_of(rdma, first)];
	struct mrs_rdma_region *region = malloc(sizeof(*region));
	int rc = -ENOMEM;

	if (!region)
		return morsel_fail(-ENOMEM, "no memory for a region's record");
	*region = (struct mrs_rdma_region){.first = first, .end = end, .held = 1};
	do {
		rc = mrs_rdma_register(rdma, first, end - first, rdma->opts.access, &region->mr);
	} while (rc == -ENOMEM && drop_oldest(rdma));
	if (rc) {
		free(region);
		return rc;
	}
	region->next = *head;
	*head = region;
	rdma->regions++;
	rdma->held++;
	*made = region;
	return 0;
}

/* ---- grants ---- */

static int hold(struct mrs_rdma *rdma, uint64_t first, uint64_t end, struct mrs_rdma_region **held)
{
	struct mrs_rdma_region *region = find(rdma, first, end);

	if (!region)
		return make(rdma, first, end, held);
	if (!region->held++) {
		unkeep(rdma, region);
		rdma->held++;
	}
	*held = region;
	return 0;
}

int mrs_rdma_region_hold(struct mrs_rdma *rdma, uint64_t offset, uint64_t bytes,
			 struct mrs_rdma_region *list[])
{
	uint64_t first = mrs_round_down(offset, MRS_PAGE_BYTES);
	uint64_t end = mrs_round_up(offset + bytes, MRS_PAGE_BYTES);
	unsigned count = 0;
	int rc = 0;

	while (first < end && !rc) {
		uint64_t last = mrs_min(end, block_end(rdma, block_of(rdma, first)));

		rc = hold(rdma, first, last, &list[count]);
		count += !rc;
		first = last;
	}
	if (rc)
		mrs_rdma_region_release(rdma, list, count);
	return rc;
}

void mrs_rdma_region_release(struct mrs_rdma *rdma, struct mrs_rdma_region *list[], unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		if (--list[i]->held)
			continue;
		rdma->held--;
		keep(rdma, list[i]);
	}
	while (rdma->kept > rdma->opts.regions_max && drop_oldest(rdma))
		;
}

/* ---- pages that go ---- */

static int check_free(const struct mrs_rdma *rdma, uint64_t first, uint64_t end)
{
	for (uint64_t i = block_of(rdma, first); i <= block_of(rdma, end - 1); i++)
		for (struct mrs_rdma_region *region = rdma->block[i]; region; region = region->next)
			if (region->held && region->first < end && region->end > first)
				return morsel_fail(-EBUSY, "a grant beside these pages has the "
							   "region of their 2 MiB: release "
							   "it first");
	return 0;
}

static int forget_in(struct mrs_rdma *rdma, struct mrs_rdma_region *region, uint64_t first,
		     uint64_t end)
{
	int rc = 0;

	while (region && !rc) {
		struct mrs_rdma_region *next = region->next;

		if (region->first < end && region->end > first)
			rc = drop(rdma, region);
		region = next;
	}
	return rc;
}

int mrs_rdma_region_forget(struct mrs_rdma *rdma, uint64_t offset, uint64_t bytes)
{
	uint64_t end = offset + bytes;
	int rc = check_free(rdma, offset, end);

	for (uint64_t i = block_of(rdma, offset); i <= block_of(rdma, end - 1) && !rc; i++)
		rc = forget_in(rdma, rdma->block[i], offset, end);
	return rc;
}

void mrs_rdma_region_forget_all(struct mrs_rdma *rdma)
{
	for (uint64_t i = 0; i <= block_of(rdma, rdma->bytes - 1); i++)
		forget_in(rdma, rdma->block[i], 0, rdma->bytes);
}
