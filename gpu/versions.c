/*
 * Page versions: one word for each page of a morsel, in a morsel of their own beside it, which
 *every process that writes with MORSEL_CL_WRITERS_TELL shares.
 *
 *	63                    16 15         0
 *	[ how often written     ][ writing now ]
 *
 * A writer adds 1 before he writes, and 65536 - 1 after. A reader loads the word, then reads the
 * page: what he read is at least as new as that word says, if nobody is writing; and if somebody
 * began meanwhile, his end will change the word. A writer that dies never ends: the page counts as
 * being written for ever, and is transferred whenever it is acquired.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "room.h"

#define ONE_WRITE (1ull << 16)

static void name_of(uint64_t id, char *name, size_t room)
{
	snprintf(name, room, ".versions.%llu", (unsigned long long)id);
}

/* ---- those whose morsel is gone ---- */

struct sweep {
	struct morsel_pool *pool;
	uint64_t *ids; /* of all morsels */
	size_t count, room;
	int rc;
};

static int collect_id(void *ctx, const struct morsel_info *info)
{
	struct sweep *sweep = ctx;

	if (sweep->count == sweep->room) {
		size_t room = sweep->room ? 2 * sweep->room : 64;
		uint64_t *ids = realloc(sweep->ids, room * sizeof(*ids));

		if (!ids)
			return morsel_fail(-ENOMEM, "no memory for a list of %zu morsels", room);
		sweep->ids = ids;
		sweep->room = room;
	}
	sweep->ids[sweep->count++] = info->id;
	return 0;
}

static bool is_there(const struct sweep *sweep, uint64_t id)
{
	for (size_t i = 0; i < sweep->count; i++)
		if (sweep->ids[i] == id)
			return true;
	return false;
}

/* One that nobody has open, and whose morsel has lost its name, has no user that could need it. */
static int remove_orphan(void *ctx, const struct morsel_info *info)
{
	struct sweep *sweep = ctx;
	unsigned long long id;
	char end;

	if (sscanf(info->name, ".versions.%llu%c", &id, &end) == 1 && !info->users &&
	    !is_there(sweep, id))
		morsel_unlink(sweep->pool, info->name);
	return 0;
}

static int sweep_orphans(struct morsel_pool *pool)
{
	struct sweep sweep = {.pool = pool};
	int rc = morsel_list(pool, collect_id, &sweep);

	if (!rc)
		rc = morsel_list(pool, remove_orphan, &sweep);
	free(sweep.ids);
	return rc;
}

/* ---- of a view ---- */

/* Opens or makes it, large enough for the pages up to the view's end. */
static int open_versions(struct gpu_view *view, struct morsel_pool *pool, uint64_t id,
			 uint64_t bytes)
{
	struct morsel_opts opts = {.size = sizeof(opts), .flags = MORSEL_CREATE, .bytes = bytes};
	struct morsel_info info = {.size = sizeof(info)};
	char name[MORSEL_NAME_MAX + 1];
	int rc;

	name_of(id, name, sizeof(name));
	rc = morsel_open(pool, name, &opts, &view->versions);
	if (!rc)
		rc = morsel_info(view->versions, &info);
	/* Two that make it larger at once: the larger size remains, or it is asked for again. */
	while (!rc && info.bytes < bytes) {
		rc = morsel_resize(view->versions, bytes);
		if (!rc)
			rc = morsel_info(view->versions, &info);
	}
	return rc;
}

int mrs_cl_versions_open(struct gpu_view *view)
{
	struct morsel_pool *pool = morsel_pool_of(view->morsel);
	struct morsel_map_opts map = {.size = sizeof(map), .access = MORSEL_READ | MORSEL_WRITE};
	struct morsel_info info = {.size = sizeof(info)};
	uint64_t first = view->offset / PAGE_BYTES;
	int rc = morsel_info(view->morsel, &info);

	if (!rc)
		rc = sweep_orphans(pool);
	if (!rc)
		rc = open_versions(view, pool, info.id, (first + gpu_pages(view)) * 8);
	if (!rc)
		rc = morsel_map(view->versions, &map, &view->versions_view);
	if (rc)
		mrs_cl_versions_close(view);
	else
		view->word = (uint64_t *)morsel_addr(view->versions_view) + first;
	return rc;
}

void mrs_cl_versions_close(struct gpu_view *view)
{
	morsel_view_destroy(view->versions_view);
	morsel_close(view->versions);
	view->versions_view = NULL;
	view->versions = NULL;
	view->word = NULL;
}

void mrs_cl_versions_begin(struct gpu_view *view, struct gpu_range range)
{
	for (uint64_t page = gpu_first(range); view->word && page < gpu_end(range); page++)
		/* Before any write: pairs with the acquiring load in copy.c. */
		gpu_add_acq_rel(&view->word[page], 1);
}

void mrs_cl_versions_end(struct gpu_view *view, struct gpu_range range)
{
	for (uint64_t page = gpu_first(range); view->word && page < gpu_end(range); page++) {
		/* After every write: who loads the new word reads what was written. */
		uint64_t was = gpu_add_acq_rel(&view->word[page], ONE_WRITE - 1) >> 16;

		/* What this view wrote it has, if it had what was there before. */
		if (view->pages && view->pages[page].mark == was + 1)
			view->pages[page].mark = was + 2;
	}
}
