/*
 * The pooled view: one mapping of the pool's file, as it lies there. Needs one run; costs two
 * system calls at any size. It pins placement: address and frame are one.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "view/cpu.h"
#include "view/internal.h"

static uint32_t pooled_caps(void *device)
{
	return MRS_CPU_CAPS;
}

/*
 * On hugetlbfs whole blocks are mapped, whatever part of them the run is:
 *
 *      file      |  block  |  block  |  block  |
 *      run             [-------------]
 *      mapping   [---------------------------]   base, lead before the run
 */
static int first_map(struct morsel_target *target, const struct morsel_run *run)
{
	uint64_t start = run->frame * MRS_PAGE_BYTES;
	struct mrs_cpu_map *map = calloc(1, sizeof(*map));
	struct mrs_cpu_want want = {
		.align = mrs_cpu_align(target, run->bytes),
		.prot = mrs_cpu_prot(target),
		.flags = MAP_SHARED | MAP_NORESERVE,
		.fd = target->fd,
	};
	int rc;

	if (!map)
		return mrs_fail(-ENOMEM, "no memory for a view");
	want.file_offset = mrs_round_down(start, target->block_bytes);
	want.lead = start - want.file_offset;
	want.length = mrs_round_up(want.lead + run->bytes, target->block_bytes);
	want.phase = want.file_offset & (want.align - 1);
	rc = mrs_cpu_place(target, &want, &map->base);
	if (rc)
		goto free_map;
	map->length = want.length;
	map->lead = want.lead;
	target->addr = map->base + map->lead;
	rc = mrs_cpu_finish(target, map);
	if (rc)
		goto unmap;
	target->state = map;
	return 0;

unmap:
	munmap(map->base, map->length);
	target->addr = NULL;
free_map:
	free(map);
	return rc;
}

static int pooled_map(struct morsel_target *target, const struct morsel_run *runs, size_t n)
{
	if (target->state)
		return mrs_cpu_restore(target, runs, n);
	if (n != 1 || runs[0].bytes != target->bytes)
		return mrs_fail(-EOPNOTSUPP, "a pooled view needs one run, the range has %zu", n);
	return first_map(target, &runs[0]);
}

struct morsel_backend mrs_backend_pooled = {
	.ops =
		{
			.size = sizeof(struct morsel_backend_ops),
			.version = MORSEL_BACKEND_VERSION,
			.name = "cpu-pooled",
			.caps = pooled_caps,
			.map = pooled_map,
			.invalidate = mrs_cpu_invalidate,
			.destroy = mrs_cpu_destroy,
		},
};
