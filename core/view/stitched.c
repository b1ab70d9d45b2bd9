/*
 * The stitched view: one mapping per run, side by side in the order of the morsel's pages, in a
 * range that was reserved without access; what has no frame stays that. A touch there is SIGSEGV
 * until the range is acquired, which gives it memory.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/compat.h"
#include "base/probe.h"
#include "view/cpu.h"
#include "view/internal.h"

static uint32_t stitched_caps(void *device)
{
	return MRS_CPU_CAPS | MORSEL_CAP_SCATTER | MORSEL_CAP_HOLES;
}

/* The largest run decides which alignment the view gets: the others follow if they can. */
static void choose_phase(const struct morsel_target *target, const struct morsel_run *runs,
			 size_t n, struct mrs_cpu_want *want)
{
	const struct morsel_run *largest = NULL;

	for (size_t i = 0; i < n; i++)
		if (!largest || runs[i].bytes > largest->bytes)
			largest = &runs[i];
	want->align = mrs_cpu_align(target, largest ? largest->bytes : 0);
	want->phase = 0;
	if (largest)
		want->phase =
			(largest->frame * MRS_PAGE_BYTES - largest->offset) & (want->align - 1);
}

/* Do the runs leave no page of the view out? */
static bool is_full(const struct morsel_target *target, const struct morsel_run *runs, size_t n)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < n; i++)
		bytes += runs[i].bytes;
	return bytes == target->bytes;
}

/*
 * Lets go of the reservation and maps the runs into the gap: a third cheaper than mapping each over
 * it, for nothing has to be split. If another thread maps something there meanwhile: -EEXIST, and
 * nothing foreign is replaced. On any failure nothing remains.
 */
static int map_into_gap(const struct morsel_target *target, const struct mrs_cpu_map *map,
			const struct morsel_run *runs, size_t n)
{
	if (munmap(map->base, map->length))
		return mrs_fail_errno(-errno, "munmap");
	return mrs_cpu_map_runs(target, runs, n, mrs_cpu_prot(target), MAP_FIXED_NOREPLACE);
}

/* All runs, at the place that the options demand or anywhere. On failure nothing remains. */
static int map_all(struct morsel_target *target, const struct mrs_cpu_want *want,
		   const struct morsel_run *runs, size_t n, struct mrs_cpu_map *map)
{
	int rc = mrs_cpu_place(target, want, &map->base);

	if (rc)
		return rc;
	map->length = want->length;
	target->addr = map->base;
	MRS_PROBE("view.stitched.reserved");
	if (is_full(target, runs, n)) {
		rc = map_into_gap(target, map, runs, n);
		if (rc != -EEXIST)
			return rc;
		rc = mrs_cpu_place(target, want, &map->base);
		if (rc)
			return rc;
		target->addr = map->base;
	}
	rc = mrs_cpu_map_runs(target, runs, n, mrs_cpu_prot(target), MAP_FIXED);
	if (rc)
		munmap(map->base, map->length);
	return rc;
}

static int first_map(struct morsel_target *target, const struct morsel_run *runs, size_t n)
{
	struct mrs_cpu_map *map = calloc(1, sizeof(*map));
	struct mrs_cpu_want want = {
		.length = mrs_round_up(target->bytes, target->block_bytes),
		.prot = PROT_NONE,
		.flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		.fd = -1,
	};
	int rc = map ? mrs_cpu_check_areas(n + 1) : mrs_fail(-ENOMEM, "no memory for a view");

	if (rc)
		goto free_map;
	choose_phase(target, runs, n, &want);
	if (want.phase & (target->block_bytes - 1)) {
		rc = mrs_fail(-EOPNOTSUPP,
			      "on this pool a stitched view begins at a multiple of %llu bytes; "
			      "offset %llu is none",
			      (unsigned long long)target->block_bytes,
			      (unsigned long long)target->offset);
		goto free_map;
	}
	rc = map_all(target, &want, runs, n, map);
	if (rc)
		goto free_map;
	rc = mrs_cpu_finish(target, map);
	if (rc)
		goto unmap;
	target->state = map;
	return 0;

unmap:
	munmap(map->base, map->length);
free_map:
	target->addr = NULL;
	free(map);
	return rc;
}

static int stitched_map(struct morsel_target *target, const struct morsel_run *runs, size_t n)
{
	return target->state ? mrs_cpu_restore(target, runs, n) : first_map(target, runs, n);
}

struct morsel_backend mrs_backend_stitched = {
	.ops =
		{
			.size = sizeof(struct morsel_backend_ops),
			.version = MORSEL_BACKEND_VERSION,
			.name = "cpu-stitched",
			.caps = stitched_caps,
			.map = stitched_map,
			.invalidate = mrs_cpu_invalidate,
			.destroy = mrs_cpu_destroy,
		},
};
