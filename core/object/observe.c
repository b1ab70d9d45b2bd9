/*
 * Counters of a pool, and what a morsel has in memory: <morsel/observe.h>.
 *
 * The counters stand in the pool's state, one word each, and are moved on by whoever does what they
 * count. They are read one by one: of two that belong together one may be a moment older.
 */
#include <errno.h>
#include <string.h>

#include "morsel/observe.h"
#include "object/internal.h"
#include "object/retarget.h"
#include "view/registry.h"

static const struct {
	size_t offset;
	enum mrs_counter counter;
} fields[] = {
#define FIELD(name, counter)                                                \
	{                                                                   \
		offsetof(struct morsel_counters, name), MRS_COUNT_##counter \
	}
	FIELD(faults, FAULTS),
	FIELD(faults_write, FAULTS_WRITE),
	FIELD(faults_peer, FAULTS_PEER),
	FIELD(pages_in, PAGES_IN),
	FIELD(read_ahead, READ_AHEAD),
	FIELD(over_budget, OVER_BUDGET),
	FIELD(pages_out, PAGES_OUT),
	FIELD(pages_out_clean, PAGES_OUT_CLEAN),
	FIELD(pages_out_zero, PAGES_ZERO),
	FIELD(second_chance, SECOND_CHANCE),
	FIELD(pinned, PINNED),
	FIELD(retarget_aborts, RETARGET_ABORTS),
	FIELD(poisoned, POISONED),
	FIELD(swap_errors, SWAP_ERRORS),
	FIELD(elections, ELECTIONS),
	FIELD(shootdowns, SHOOTDOWNS),
	FIELD(shootdown_ns, SHOOTDOWN_NS),
	FIELD(shootdown_timeouts, SHOOTDOWN_TIMEOUTS),
	FIELD(quarantined, QUARANTINED),
	FIELD(quarantine_freed, QUARANTINE_FREED),
	FIELD(pages_moved, PAGES_MOVED),
	FIELD(clones, CLONES),
	FIELD(cow_pages, COW_BREAKS),
	FIELD(cow_tables, COW_TABLES),
	FIELD(promotions, PROMOTIONS),
	FIELD(promotions_moved, PROMOTIONS_MOVED),
	FIELD(splits, SPLITS),
	FIELD(huge_gained, HUGE_GAINED),
	FIELD(zeroed, ZEROED),
#undef FIELD
};

static int add_evicted(void *ctx, mrs_cell cell, void *memory)
{
	const struct mrs_cell_coherence *coherence = memory;

	*(uint64_t *)ctx += mrs_load_relaxed(&coherence->evicted);
	return 0;
}

static int add_quarantine(void *ctx, mrs_cell cell, void *memory)
{
	const struct mrs_cell_quarantine *quarantine = memory;

	*(uint64_t *)ctx += 1ull << (mrs_load_relaxed(&quarantine->frame) >> 48 & 31);
	return 0;
}

static uint32_t pager_pid(struct morsel_pool *pool)
{
	uint64_t word = mrs_load_acquire(&mrs_pool_state(pool)->pager);
	unsigned slot = (unsigned)(word & 0xffff);

	if (!slot || slot > MRS_SLOTS || !mrs_pool_slot_is_alive(pool, slot - 1))
		return 0;
	return mrs_load_relaxed32(&mrs_pool_slot(pool, slot - 1)->pid);
}

/* What the caller's struct has room for; its size stays what he said. */
static int hand_out(void *to, const void *from, size_t known)
{
	size_t size;

	memcpy(&size, to, sizeof(size));
	if (size < sizeof(size))
		return mrs_fail(-EINVAL, "the struct does not begin with its own size");
	memcpy((char *)to + sizeof(size), (const char *)from + sizeof(size),
	       mrs_min(size, known) - sizeof(size));
	return 0;
}

int morsel_pool_counters(struct morsel_pool *pool, struct morsel_counters *counters)
{
	struct morsel_counters now = {.size = sizeof(now)};
	const struct mrs_state *state;
	uint64_t frames = 0, low, high;
	int rc = mrs_pool_usable(pool, false);

	if (rc)
		return rc;
	state = mrs_pool_state(pool);
	for (size_t i = 0; i < mrs_array_length(fields); i++)
		*(uint64_t *)((char *)&now + fields[i].offset) =
			mrs_load_relaxed(&state->count[fields[i].counter]);
	now.bytes_resident = mrs_pool_resident(pool) * MRS_PAGE_BYTES;
	mrs_cell_each(mrs_pool_cells(pool), MRS_CELL_COHERENCE, add_evicted, &now.bytes_evicted);
	now.bytes_evicted *= MRS_PAGE_BYTES;
	mrs_cell_each(mrs_pool_cells(pool), MRS_CELL_QUARANTINE, add_quarantine, &frames);
	now.bytes_quarantine = frames * MRS_PAGE_BYTES;
	now.bytes_zeroed = mrs_load_relaxed(&state->zeroed) * MRS_PAGE_BYTES;
	if (mrs_pool_watermarks(pool, &low, &high)) {
		now.budget_low = low * MRS_PAGE_BYTES;
		now.budget_high = high * MRS_PAGE_BYTES;
	}
	now.pager_pid = pager_pid(pool);
	now.swap_targets = mrs_load_relaxed(&state->swap_table) != 0;
	return hand_out(counters, &now, sizeof(now));
}

/* ---- one morsel ---- */

struct usage {
	struct morsel *morsel;
	uint64_t record;
	struct morsel_usage now;
	bool thin;
};

static int add_run(void *ctx, const struct mrs_run *run)
{
	struct usage *usage = ctx;
	uint64_t at = run->frame * MRS_PAGE_BYTES, end = at + run->pages * MRS_PAGE_BYTES, next;

	if (!run->mapped)
		return 0;
	if (!usage->thin) {
		usage->now.bytes_resident += end - at;
		return 0;
	}
	/* Some of it may have been given back: the kernel knows. */
	for (; mrs_pool_next_content(usage->morsel->pool, &at, end, &next); at = next)
		usage->now.bytes_resident += mrs_min(next, end) - at;
	return 0;
}

static int add_view(void *ctx, const struct mrs_seen_view *view)
{
	struct usage *usage = ctx;

	usage->now.views += view->record == usage->record;
	return 0;
}

static void add_pins(void *ctx, unsigned slot, struct mrs_slot *shared)
{
	*(uint32_t *)ctx += (uint32_t)mrs_load_relaxed(&shared->pins);
}

static void look_at_relatives(struct usage *usage, uint64_t pages)
{
	struct mrs_cell_coherence *coherence = mrs_morsel_coherence(usage->morsel);
	struct morsel_pool *pool = usage->morsel->pool;
	uint64_t evicted;

	if (!coherence)
		return;
	usage->now.family = mrs_load_relaxed(&coherence->family);
	evicted = mrs_load_relaxed(&coherence->evicted) * MRS_PAGE_BYTES;
	usage->now.bytes_evicted = mrs_min(evicted, pages * MRS_PAGE_BYTES);
	if (!usage->thin)
		usage->now.bytes_resident -=
			mrs_min(usage->now.bytes_evicted, usage->now.bytes_resident);
	mrs_registry_each(pool, usage->now.family, 0, UINT64_MAX, add_view, usage);
	if (usage->now.views)
		mrs_pool_each_slot(pool, add_pins, &usage->now.pins);
}

int morsel_usage(struct morsel *morsel, struct morsel_usage *out)
{
	struct usage usage = {.morsel = morsel, .record = morsel->cell};
	struct mrs_cell_record copy;
	uint64_t pages;
	int rc = mrs_pool_usable(morsel->pool, false);

	if (rc)
		return rc;
	if (!mrs_record_copy(morsel->pool, morsel->cell, &copy) ||
	    mrs_record_problem(morsel->pool, &copy))
		return mrs_fail(-ENOENT, "the morsel was removed meanwhile");
	usage.thin = copy.state & MRS_RECORD_THIN;
	pages = mrs_pages_in(copy.bytes);
	rc = mrs_morsel_each_run(morsel, 0, pages, add_run, &usage);
	if (rc)
		return rc;
	look_at_relatives(&usage, pages);
	return hand_out(out, &usage.now, sizeof(usage.now));
}
