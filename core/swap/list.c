/*
 * What swap targets there are.
 */
#include <errno.h>
#include <string.h>

#include "swap/internal.h"

static enum morsel_swap_state public_state(struct mrs_swap_target *target)
{
	if (target->record->kind == MORSEL_SWAP_FILE && target->swap &&
	    mrs_swap_file_open(target) < 0)
		return MORSEL_SWAP_MISSING;
	if (target->record->kind == MORSEL_SWAP_DRIVER && !mrs_swap_driver_is_open(target))
		return MORSEL_SWAP_MISSING;
	switch (mrs_swap_state_of(mrs_load_acquire(&target->record->state))) {
	case MRS_SWAP_ACTIVE:
		return MORSEL_SWAP_IN_USE;
	case MRS_SWAP_FAILING:
		return MORSEL_SWAP_FAILING;
	default:
		return MORSEL_SWAP_EMPTYING;
	}
}

static void fill(struct mrs_swap_target *target, struct morsel_swap_info *info, char *path)
{
	const struct mrs_swap_record *record = target->record;
	bool is_file = record->kind != MORSEL_SWAP_MEMORY;

	*info = (struct morsel_swap_info){
		.size = sizeof(*info),
		.id = target->index,
		.kind = (uint32_t)record->kind,
		.state = public_state(target),
		.priority = (int32_t)record->priority,
		.compression = (uint32_t)record->compression,
		.flags = (uint32_t)record->flags,
		.bytes = record->slots * (is_file ? MRS_PAGE_BYTES : mrs_slab_bytes()),
		.pages = mrs_load_relaxed(&record->used),
		.stored_bytes = mrs_load_relaxed(&record->stored),
		.memory_bytes = mrs_load_relaxed(&record->frames) * MRS_PAGE_BYTES,
		.errors_read = mrs_load_relaxed(&record->errors_read),
		.errors_write = mrs_load_relaxed(&record->errors_write),
		.errors_content = mrs_load_relaxed(&record->errors_content),
	};
	/* A damaged record has no end. */
	memcpy(path, record->path, MRS_SWAP_PATH_MAX);
	path[MRS_SWAP_PATH_MAX - 1] = 0;
	info->path = is_file ? path : NULL;
}

int morsel_swap_list(struct morsel_pool *pool,
		     int (*fn)(void *ctx, const struct morsel_swap_info *info), void *ctx)
{
	int rc = mrs_pool_usable(pool, false);

	if (!rc && !mrs_pool_is_read_only(pool) && !mrs_swap_of(pool))
		rc = -ENOMEM;
	for (unsigned i = 0; i < MRS_SWAP_TARGETS && !rc; i++) {
		struct mrs_swap_target target;
		struct morsel_swap_info info;
		char path[MRS_SWAP_PATH_MAX];

		if (!mrs_swap_target(pool, i, &target))
			continue;
		fill(&target, &info, path);
		rc = fn(ctx, &info);
	}
	return rc;
}
