/*
 * An IOMMU as a target, over a kernel in software (tests/iommu/fake.c): the library is the one that
 * is shipped, its system calls are answered by the test. What the device does, fake_dma() does.
 */
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#include <morsel/iommu.h>

#include "contract/contract.h"
#include "iommu/fake.h"

static struct morsel_device *device;
static pid_t opened_by;

/* A child of fork has a kernel and a device of its own. */
static struct morsel_device *the_device(uint32_t kind)
{
	struct morsel_iommu_opts opts = {.size = sizeof(opts), .kind = kind};

	if (opened_by == getpid())
		return device;
	if (opened_by)
		fake_forget();
	else
		atexit(fake_stop);
	if (!opened_by)
		fake_start(NULL);
	if (morsel_iommu_open(FAKE_BDF, &opts, &device))
		abort();
	opened_by = getpid();
	return device;
}

static int open_kind(struct morsel *morsel, const struct morsel_map_opts *map, uint32_t kind,
		     struct morsel_view **view)
{
	struct morsel_iommu_view_opts opts = {
		.size = sizeof(opts),
		.access = map->access,
		.offset = map->offset,
		.bytes = map->bytes,
	};

	return morsel_iommu_view(morsel, the_device(kind), &opts, view);
}

static int open_type1(struct morsel *morsel, const struct morsel_map_opts *opts,
		      struct morsel_view **view)
{
	return open_kind(morsel, opts, MORSEL_IOMMU_TYPE1, view);
}

static int open_iommufd(struct morsel *morsel, const struct morsel_map_opts *opts,
			struct morsel_view **view)
{
	return open_kind(morsel, opts, MORSEL_IOMMU_IOMMUFD, view);
}

static int iommu_peek(struct morsel_view *view, uint64_t offset, void *buffer, uint64_t bytes)
{
	return fake_dma(morsel_iommu_iova(view) + offset, buffer, NULL, bytes);
}

static int iommu_poke(struct morsel_view *view, uint64_t offset, const void *buffer, uint64_t bytes)
{
	return fake_dma(morsel_iommu_iova(view) + offset, NULL, buffer, bytes);
}

const struct contract_target contract_iommu_type1 = {
	.name = "iommu-type1",
	.flags = MORSEL_SCATTERED,
	.pages = MORSEL_PAGES_4K,
	.open = open_type1,
	.peek = iommu_peek,
	.poke = iommu_poke,
};

const struct contract_target contract_iommu_iommufd = {
	.name = "iommu-iommufd",
	.flags = MORSEL_SCATTERED,
	.pages = MORSEL_PAGES_4K,
	.open = open_iommufd,
	.peek = iommu_peek,
	.poke = iommu_poke,
};
