/*
 * Looking: info, list, runs.
 *
 * A look takes no lock and keeps nobody waiting, so that what it reads may change under its eyes.
 * It gathers first, then asks whether record and version are still the same (the version changes
 * before any frame of a shrunk range goes), and begins again if not; only then the caller sees
 * anything.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "object/internal.h"

/* Runs that are gathered before their handing out. */
#define RUN_BATCH 128u
/* Changes under one look, before it is given up as it is. */
#define LOOK_TRIES 64u

static uint64_t version_of(const struct morsel *morsel)
{
	/* Acquire: pairs with version_next() in resize.c. */
	return mrs_load_acquire(&morsel->record->format);
}

/* Was everything that was read meanwhile this record's, at one size? */
static bool is_same(struct morsel *morsel, uint64_t version)
{
	mrs_full_fence();
	return version_of(morsel) == version &&
	       mrs_cell_is_current(mrs_pool_cells(morsel->pool), morsel->cell, MRS_CELL_RECORD);
}

static int gone(void)
{
	return mrs_fail(-ENOENT, "the morsel was removed meanwhile");
}

static bool is_current(struct morsel *morsel)
{
	return mrs_cell_is_current(mrs_pool_cells(morsel->pool), morsel->cell, MRS_CELL_RECORD);
}

static int check_run(struct morsel *morsel, const struct mrs_run *run)
{
	if (!run->mapped || (run->frame >= mrs_pool_super(morsel->pool)->frame_data &&
			     mrs_pool_at(morsel->pool, run->frame, run->pages)))
		return 0;
	return mrs_fail(-EINVAL, "the morsel's frames are outside the pool: `morsel pool check` "
				 "lists all damage");
}

struct checked {
	struct morsel *morsel;
	int (*fn)(void *ctx, const struct mrs_run *run);
	void *ctx;
};

static int checked_run(void *ctx, const struct mrs_run *run)
{
	struct checked *checked = ctx;
	int rc = check_run(checked->morsel, run);

	return rc ? rc : checked->fn(checked->ctx, run);
}

int mrs_morsel_each_run(struct morsel *morsel, uint64_t page, uint64_t pages,
			int (*fn)(void *ctx, const struct mrs_run *run), void *ctx)
{
	struct checked checked = {.morsel = morsel, .fn = fn, .ctx = ctx};

	return mrs_table_each_run(&morsel->table, page, pages, checked_run, &checked);
}

/* ---- info ---- */

static int count_run(void *ctx, const struct mrs_run *run)
{
	*(uint64_t *)ctx += run->mapped;
	return 0;
}

static uint64_t count_runs(struct morsel *morsel, uint64_t bytes)
{
	uint64_t runs = 0;

	mrs_table_each_run(&morsel->table, 0, mrs_pages_in(bytes), count_run, &runs);
	return runs;
}

static int look(struct morsel *morsel, struct morsel_info *info)
{
	struct mrs_cells *cells = mrs_pool_cells(morsel->pool);
	struct mrs_cell_record copy;
	struct mrs_users users;
	const char *problem;

	if (!mrs_record_copy(morsel->pool, morsel->cell, &copy))
		return gone();
	problem = mrs_record_problem(morsel->pool, &copy);
	if (problem)
		return mrs_fail(-EINVAL, "the record of morsel %llu is damaged: %s",
				(unsigned long long)copy.id, problem);
	mrs_users_scan(morsel->pool, morsel->cell, NULL, &users);
	*info = (struct morsel_info){
		.size = sizeof(*info),
		.id = copy.id,
		.bytes = copy.bytes,
		.bytes_allocated = copy.allocated * MRS_PAGE_BYTES,
		.runs = count_runs(morsel, copy.bytes),
		.flags = mrs_flags_of(copy.state),
		.pages = mrs_pages_of(copy.state),
		.sealed = !!(copy.state & MRS_RECORD_SEALED),
		.format = (uint32_t)copy.format,
		.tensors = copy.tensors,
		.users = users.users,
		.created_ns = copy.created_ns,
	};
	if (mrs_dirent_name(cells, copy.dirent, info->name))
		info->name[0] = 0;
	return 0;
}

static int look_until_same(struct morsel *morsel, struct morsel_info *info)
{
	int rc = 0;

	for (unsigned i = 0; i < LOOK_TRIES; i++) {
		uint64_t version = version_of(morsel);

		rc = look(morsel, info);
		if (rc || is_same(morsel, version))
			break;
	}
	return rc ? rc : is_current(morsel) ? 0 : gone();
}

int morsel_info(struct morsel *morsel, struct morsel_info *info)
{
	struct morsel_info found;
	size_t size = info->size;
	int rc = mrs_pool_usable(morsel->pool, false);

	if (rc)
		return rc;
	if (size < sizeof(size))
		return mrs_fail(-EINVAL,
				"set info.size = sizeof(struct morsel_info) before the "
				"call, found %zu",
				size);
	rc = look_until_same(morsel, &found);
	if (rc)
		return rc;
	found.size = size;
	memcpy(info, &found, mrs_min(size, sizeof(found)));
	if (size > sizeof(found))
		memset((char *)info + sizeof(found), 0, size - sizeof(found));
	return 0;
}

/* ---- list ---- */

struct gather {
	mrs_cell *cells;
	size_t count, room;
};

static int gather_name(void *ctx, mrs_cell dirent, mrs_cell target)
{
	struct gather *gather = ctx;

	if (gather->count == gather->room) {
		size_t room = gather->room ? 2 * gather->room : 64;
		mrs_cell *cells = realloc(gather->cells, room * sizeof(*cells));

		if (!cells)
			return mrs_fail(-ENOMEM, "no memory to list %zu morsels", room);
		gather->cells = cells;
		gather->room = room;
	}
	gather->cells[gather->count++] = target;
	return 0;
}

/*
 * One record of the list. It is opened for the look, so that its tables stay while they are walked:
 * a table that is freed meanwhile would get memory again by being read. A read-only handle cannot.
 */
static int look_at(struct morsel_pool *pool, mrs_cell cell, struct morsel_info *info)
{
	struct morsel looked, *morsel;
	int rc;

	if (mrs_pool_is_read_only(pool))
		return mrs_handle_init(&looked, pool, cell) ? look_until_same(&looked, info)
							    : -ENOENT;
	rc = mrs_handle_open(pool, cell, &morsel);
	if (rc)
		return rc == -EAGAIN ? -ENOENT : rc;
	rc = look_until_same(morsel, info);
	if (!rc && info->users)
		info->users--; /* ourselves */
	morsel_close(morsel);
	return rc;
}

int morsel_list(struct morsel_pool *pool, morsel_list_fn fn, void *ctx)
{
	struct gather gather = {0};
	int rc = mrs_pool_usable(pool, false);

	if (!rc)
		rc = mrs_dir_each(mrs_pool_cells(pool), gather_name, &gather);
	for (size_t i = 0; !rc && i < gather.count; i++) {
		struct morsel_info info;

		rc = look_at(pool, gather.cells[i], &info);
		if (rc == -ENOENT)
			rc = 0; /* removed since the names were gathered */
		else if (!rc && info.name[0])
			rc = fn(ctx, &info);
	}
	free(gather.cells);
	return rc;
}

/* ---- runs ---- */

struct batch {
	struct morsel *morsel;
	uint64_t offset, end; /* bytes still wanted */
	unsigned count;
	struct morsel_run run[RUN_BATCH];
};

/* Where the pages from page on are away no more, or no more there; all of [page, end) is one run.
 */
static int piece_end(struct morsel *morsel, uint64_t page, uint64_t end, uint64_t *past,
		     bool *there)
{
	struct mrs_leaf leaf;
	int rc = mrs_table_leaf(&morsel->table, page, &leaf);

	*there = mrs_entry_state(leaf.entry) == MRS_ENTRY_MAPPED;
	while (!rc && page < end && *there == (mrs_entry_state(leaf.entry) == MRS_ENTRY_MAPPED)) {
		page = leaf.place ? leaf.page + (1ull << 9 * leaf.level) : end;
		rc = page < end ? mrs_table_leaf(&morsel->table, page, &leaf) : 0;
	}
	*past = mrs_min(page, end);
	return rc;
}

/* Pages [page, end) of a run. 1: the batch is full. */
static int batch_add(struct batch *batch, const struct mrs_run *run, uint64_t page, uint64_t end,
		     bool resident)
{
	uint64_t first = mrs_max(page * MRS_PAGE_BYTES, batch->offset);

	batch->run[batch->count++] = (struct morsel_run){
		.offset = first,
		.bytes = mrs_min(end * MRS_PAGE_BYTES, batch->end) - first,
		.frame = run->mapped ? run->frame + (page - run->page) : 0,
		.order = run->order,
		.resident = resident,
	};
	return batch->count == RUN_BATCH;
}

static int batch_run(void *ctx, const struct mrs_run *run)
{
	struct batch *batch = ctx;
	uint64_t page = run->page, end = run->page + run->pages;
	int rc = check_run(batch->morsel, run);

	if (rc)
		return rc;
	if (!run->away || run->away == run->pages)
		return batch_add(batch, run, page, end, run->mapped && !run->away);
	for (uint64_t past; page < end; page = past) {
		bool there;

		rc = piece_end(batch->morsel, page, end, &past, &there);
		if (!rc)
			rc = batch_add(batch, run, page, past, there);
		if (rc)
			return rc;
	}
	return 0;
}

/* The next runs, all of one version. */
static int batch_fill(struct batch *batch)
{
	struct morsel *morsel = batch->morsel;

	for (;;) {
		uint64_t version = version_of(morsel);
		uint64_t end = mrs_min(batch->end, mrs_morsel_bytes(morsel));
		uint64_t page = batch->offset / MRS_PAGE_BYTES;
		int rc = 0;

		batch->count = 0;
		if (batch->offset < end)
			rc = mrs_table_each_run(&morsel->table, page, mrs_pages_in(end) - page,
						batch_run, batch);
		if (!is_current(morsel))
			return gone();
		if (is_same(morsel, version))
			return rc < 0 ? rc : 0;
	}
}

int morsel_runs(struct morsel *morsel, uint64_t offset, uint64_t bytes, morsel_run_fn fn, void *ctx)
{
	struct batch batch = {.morsel = morsel, .offset = offset, .end = offset + bytes};
	int usable = mrs_pool_usable(morsel->pool, false);
	uint64_t size;

	if (usable)
		return usable;
	size = mrs_morsel_bytes(morsel);
	if (!is_current(morsel))
		return gone();
	if (offset > size || bytes > size - offset)
		return mrs_fail(-EINVAL,
				"bytes %llu to %llu are not inside the morsel, which has %llu",
				(unsigned long long)offset, (unsigned long long)(offset + bytes),
				(unsigned long long)size);
	while (batch.offset < batch.end) {
		int rc = batch_fill(&batch);

		for (unsigned i = 0; !rc && i < batch.count; i++)
			rc = fn(ctx, &batch.run[i]);
		if (rc || !batch.count)
			return rc;
		batch.offset = batch.run[batch.count - 1].offset + batch.run[batch.count - 1].bytes;
	}
	return 0;
}

struct morsel_pool *morsel_pool_of(struct morsel *morsel)
{
	return morsel->pool;
}
