/*
 * The CPU of this process as a target: mapping, forgetting, and morsel_map(). See cpu.h.
 *
 * Two backends, pooled and stitched, differ in how a view is first mapped; what comes after is the
 * same and stands here.
 */
#include "view/cpu.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/compat.h"
#include "base/probe.h"
#include "view/internal.h"

/* Without access and without memory: what stands where a view has no translation. */
#define NOTHING_FLAGS (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)

int mrs_cpu_prot(const struct morsel_target *target)
{
	return target->access & MORSEL_WRITE ? PROT_READ | PROT_WRITE : PROT_READ;
}

/* A range of addresses that the pool's file system can map: whole blocks. */
struct area {
	char *at;
	uint64_t length;
};

/*
 * The whole blocks of a range of the view. At the view's ends the mapping goes on to the block's:
 * what is there belongs to the same morsel, or to its pool.
 */
static int whole_blocks(const struct morsel_target *target, uint64_t offset, uint64_t bytes,
			struct area *area)
{
	uint64_t block = target->block_bytes;
	uint64_t start = (uintptr_t)target->addr + offset, end = start + bytes;

	if (!offset)
		start = mrs_round_down(start, block);
	if (offset + bytes == target->bytes)
		end = mrs_round_up(end, block);
	if ((start | end) & (block - 1))
		return mrs_fail(
			-EOPNOTSUPP,
			"bytes %llu to %llu of the view are not whole blocks of %llu bytes, "
			"which is all that this pool's file system can map",
			(unsigned long long)offset, (unsigned long long)(offset + bytes - 1),
			(unsigned long long)block);
	*area = (struct area){(char *)(uintptr_t)start, end - start};
	return 0;
}

static int map_run(const struct morsel_target *target, const struct morsel_run *run, int prot,
		   int fixed)
{
	uint64_t file_offset = run->frame * MRS_PAGE_BYTES;
	struct area area = {0};
	void *got;
	int rc = whole_blocks(target, run->offset, run->bytes, &area);

	if (rc)
		return rc;
	file_offset -= (uint64_t)((char *)target->addr + run->offset - area.at);
	if (file_offset & (target->block_bytes - 1))
		return mrs_fail(
			-EOPNOTSUPP,
			"frame %llu lies elsewhere in its block of %llu bytes than its page "
			"in the view: use a pooled view, or one that begins at a whole block",
			(unsigned long long)run->frame, (unsigned long long)target->block_bytes);
	got = mmap(area.at, area.length, prot, MAP_SHARED | MAP_NORESERVE | fixed, target->fd,
		   (off_t)file_offset);
	if (got == MAP_FAILED)
		return -errno;
	if (got == area.at)
		return 0;
	munmap(got, area.length); /* a kernel that takes NOREPLACE for a hint */
	return -EEXIST;
}

int mrs_cpu_map_runs(const struct morsel_target *target, const struct morsel_run *runs, size_t n,
		     int prot, int fixed)
{
	int rc = 0;
	size_t i;

	for (i = 0; i < n && !rc; i++)
		rc = map_run(target, &runs[i], prot, fixed);
	if (!rc)
		return 0;
	i--;
	if (rc == -ENOMEM)
		mrs_cpu_no_areas(n - i);
	else if (rc != -EOPNOTSUPP && rc != -EEXIST)
		mrs_fail_errno(rc, "mmap of frame %llu", (unsigned long long)runs[i].frame);
	if (fixed == MAP_FIXED_NOREPLACE && i)
		munmap((char *)target->addr + runs[0].offset, runs[i].offset - runs[0].offset);
	return rc;
}

/* The rules that hold from before the first touch on. */
static int advise(const struct morsel_target *target, void *at, uint64_t length)
{
	if (madvise(at, length, MADV_DONTFORK))
		return mrs_fail_errno(-errno, "madvise(MADV_DONTFORK)");
	if (target->flags & MORSEL_MAP_NO_DUMP && madvise(at, length, MADV_DONTDUMP))
		return mrs_fail_errno(-errno, "madvise(MADV_DONTDUMP)");
	return 0;
}

/* Reading maps a shared page writable too where that is allowed; and it makes nothing dirty. */
int mrs_cpu_populate(const struct morsel_target *target)
{
	if (!madvise(target->addr, target->bytes, MADV_POPULATE_READ))
		return 0;
	switch (errno) {
	case EINVAL:
		return mrs_fail(-EOPNOTSUPP, "MORSEL_MAP_POPULATE needs Linux 5.14 "
					     "(MADV_POPULATE_READ): map without it");
	case EFAULT:
		return mrs_fail(-ENOSPC,
				"MORSEL_MAP_POPULATE: the pool's file system has no memory "
				"left for pages of the view");
	default:
		return mrs_fail_errno(-errno, "madvise(MADV_POPULATE_READ)");
	}
}

int mrs_cpu_finish(const struct morsel_target *target, const struct mrs_cpu_map *map)
{
	int rc = advise(target, map->base, map->length);

	MRS_PROBE("view.cpu.advised");
	return rc;
}

static int map_over(struct morsel_target *target, const struct morsel_run *runs, size_t n, int prot)
{
	int rc = mrs_cpu_map_runs(target, runs, n, prot, MAP_FIXED);
	struct area area = {0};

	for (size_t i = 0; i < n && !rc; i++) {
		rc = whole_blocks(target, runs[i].offset, runs[i].bytes, &area);
		if (!rc)
			rc = advise(target, area.at, area.length);
	}
	return rc;
}

int mrs_cpu_restore(struct morsel_target *target, const struct morsel_run *runs, size_t n)
{
	const struct mrs_cpu_map *map = target->state;

	return map_over(target, runs, n, map->closed ? PROT_NONE : mrs_cpu_prot(target));
}

int mrs_cpu_remap(struct morsel_target *target, const struct morsel_run *runs, size_t n)
{
	int rc;

	mrs_fork_hold();
	rc = map_over(target, runs, n, mrs_cpu_prot(target));
	mrs_fork_release();
	return rc;
}

int mrs_cpu_invalidate(struct morsel_target *target, uint64_t offset, uint64_t bytes)
{
	struct area area = {0};
	int rc = whole_blocks(target, offset, bytes, &area);

	if (rc)
		return rc;
	/* The kernel flushes the old translation on every processor before mmap() returns. */
	if (mmap(area.at, area.length, PROT_NONE, NOTHING_FLAGS | MAP_FIXED, -1, 0) == MAP_FAILED)
		return errno == ENOMEM ? mrs_cpu_no_areas(2)
				       : mrs_fail_errno(-errno, "mmap(PROT_NONE)");
	MRS_PROBE("view.cpu.invalidated");
	return 0;
}

void mrs_cpu_destroy(struct morsel_target *target)
{
	struct mrs_cpu_map *map = target->state;

	/* In a fork there is nothing of it, and something else may be there by now. */
	if (!target->forked) {
		munmap(map->base, map->length);
		mrs_cpu_unplace(map->base, map->length);
	}
	free(map);
	target->state = NULL;
	target->addr = NULL;
}

/* ---- morsel_map() ---- */

static int first_run(void *ctx, const struct mrs_run *run)
{
	*(struct mrs_run *)ctx = *run;
	return 1;
}

/* Pooled if the range is one run of frames of its own, else stitched. */
static int choose(struct morsel *morsel, const struct morsel_map_opts *opts,
		  struct morsel_backend **backend)
{
	uint64_t pages = mrs_round_up(opts->bytes, MRS_PAGE_BYTES) / MRS_PAGE_BYTES;
	struct mrs_run run;
	int rc = mrs_morsel_each_run(morsel, opts->offset / MRS_PAGE_BYTES, pages, first_run, &run);

	if (rc < 0)
		return rc;
	if (mrs_view_is_shared(morsel, opts->offset / MRS_PAGE_BYTES, pages))
		run.mapped = false;
	*backend = rc && run.mapped && run.pages == pages ? &mrs_backend_pooled
							  : &mrs_backend_stitched;
	return 0;
}

int morsel_map(struct morsel *morsel, const struct morsel_map_opts *given,
	       struct morsel_view **view)
{
	struct morsel_backend *backend = NULL;
	struct morsel_map_opts opts;
	int rc = mrs_opts_read(&opts, sizeof(opts), given);

	if (!rc)
		rc = mrs_view_check_opts(morsel, &opts);
	if (rc)
		return rc;
	switch (opts.kind) {
	case MORSEL_VIEW_AUTO:
		rc = choose(morsel, &opts, &backend);
		break;
	case MORSEL_VIEW_POOLED:
		backend = &mrs_backend_pooled;
		break;
	case MORSEL_VIEW_STITCHED:
		backend = &mrs_backend_stitched;
		break;
	default:
		rc = mrs_fail(-EINVAL, "unknown kind of view %u", opts.kind);
	}
	if (!rc)
		rc = mrs_view_make(morsel, backend, NULL, &opts, view);
	/* A clone has come after the choice. */
	if (rc == -EOPNOTSUPP && opts.kind == MORSEL_VIEW_AUTO && backend == &mrs_backend_pooled)
		rc = mrs_view_make(morsel, &mrs_backend_stitched, NULL, &opts, view);
	return rc;
}
