/*
 * After a death, and for morsel_pool_check(): what of the targets belongs to whom.
 *
 *  1. A record whose add or removal was cut off carries the dead transition's number: it is
 * finished by taking the target apart.
 *  2. A slot that carries the number of a dead transition is given back unless a SWAP property
 * names it.
 *  3. Hints and counts are made anew.
 * All of it can be done twice.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/probe.h"
#include "pool/property.h"
#include "swap/internal.h"

void mrs_swap_owned(struct morsel_pool *pool,
		    void (*owned)(void *ctx, uint64_t frame, uint64_t count, const char *by),
		    void *ctx)
{
	uint64_t *table = mrs_swap_table(pool);
	struct mrs_swap_target target;

	if (!table)
		return;
	owned(ctx, mrs_load_acquire(&mrs_pool_state(pool)->swap_table), 1,
	      "the table of swap targets");
	for (unsigned i = 0; i < MRS_SWAP_TARGETS; i++) {
		uint64_t frame = mrs_load_acquire(&table[i]);

		if (frame)
			owned(ctx, frame, 1, "a swap target");
		if (!mrs_swap_target(pool, i, &target) || !target.map)
			continue;
		owned(ctx, target.record->map_frame, 1ull << target.record->map_order,
		      "a swap target's map");
		mrs_swap_ops_of(target.record->kind)->owned(&target, owned, ctx);
	}
}

/* ---- slots of the dead ---- */

struct slots {
	struct mrs_swap_target *target;
	unsigned first, end; /* numbers of the dead's transitions, + 1 */
	uint64_t *own;
	size_t count, room;
	bool no_memory;
};

static void collect(void *ctx, uint64_t own, unsigned owner)
{
	struct slots *slots = ctx;

	if (owner < slots->first || owner >= slots->end)
		return;
	if (slots->count == slots->room) {
		size_t room = slots->room ? 2 * slots->room : 1024;
		uint64_t *more = realloc(slots->own, room * sizeof(*more));

		slots->no_memory |= !more;
		if (!more)
			return;
		slots->own = more;
		slots->room = room;
	}
	slots->own[slots->count++] = own;
}

static int compare(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return (left > right) - (left < right);
}

/* Bit 63 marks what a property names: slots of a target have 48 bits. */
#define NAMED (1ull << 63)

static int compare_slot(const void *key, const void *element)
{
	uint64_t wanted = *(const uint64_t *)key, found = *(const uint64_t *)element & ~NAMED;

	return (wanted > found) - (wanted < found);
}

static int mark_named(void *ctx, uint64_t frame, enum mrs_prop_kind kind,
		      const struct mrs_prop *prop)
{
	struct slots *slots = ctx;
	uint64_t own = mrs_slot_own(prop->value), *found;

	if (kind != MRS_PROP_SWAP || mrs_slot_is_filled(prop->value) ||
	    mrs_slot_target(prop->value) != slots->target->index ||
	    (prop->value >> MRS_SWAP_OWN_BITS & 255) != slots->target->serial)
		return 0;
	found = bsearch(&own, slots->own, slots->count, sizeof(own), compare_slot);
	if (found)
		*found |= NAMED;
	return 0;
}

static void repair_slots(struct mrs_swap_target *target, struct mrs_txn *txn, unsigned slot)
{
	const struct mrs_swap_ops *ops = mrs_swap_ops_of(target->record->kind);
	struct slots slots = {
		.target = target,
		.first = slot * MRS_INTENTS_PER_SLOT + 1,
		.end = (slot + 1) * MRS_INTENTS_PER_SLOT + 1,
	};

	mrs_gate_beat(target->pool);
	ops->repair(target, txn);
	ops->each(target, collect, &slots);
	if (slots.count) {
		qsort(slots.own, slots.count, sizeof(*slots.own), compare);
		mrs_prop_each(target->pool, mark_named, &slots);
	}
	for (size_t i = 0; i < slots.count; i++)
		if (!(slots.own[i] & NAMED))
			ops->free(target, txn, slots.own[i]);
	if (slots.no_memory)
		mrs_log(MRS_LOG_WARN,
			"%s: out of memory while cleaning up after a death; some slots of swap "
			"target %u stay taken",
			mrs_pool_path(target->pool), target->index);
	MRS_PROBE("swap.repair.slots");
	free(slots.own);
}

static uint64_t compressed_frames(struct morsel_pool *pool)
{
	struct mrs_swap_target target;
	uint64_t frames = 0;

	for (unsigned i = 0; i < MRS_SWAP_TARGETS; i++)
		if (mrs_swap_target(pool, i, &target))
			frames += mrs_load_relaxed(&target.record->frames);
	return frames;
}

void mrs_swap_repair(struct morsel_pool *pool, unsigned slot)
{
	struct mrs_txn txn = {
		.pool = pool,
		.intent = &mrs_pool_slot(pool, slot)->intent[0],
		.index = slot * MRS_INTENTS_PER_SLOT,
	};
	struct mrs_swap_target target;

	for (unsigned i = 0; i < MRS_SWAP_TARGETS; i++) {
		uint64_t owner;

		if (!mrs_swap_target(pool, i, &target))
			continue;
		owner = mrs_swap_owner_of(mrs_load_acquire(&target.record->state));
		if (owner && (owner - 1) / MRS_INTENTS_PER_SLOT == slot)
			mrs_swap_dismantle(&txn, &target);
		else if (target.map)
			repair_slots(&target, &txn, slot);
	}
	mrs_store_release(&mrs_pool_state(pool)->compressed, compressed_frames(pool));
}

/* ---- the check ---- */

struct validation {
	struct morsel_pool *pool;
	morsel_report_fn report;
	void *ctx;
	int findings;
	uint64_t named; /* by properties */
	uint64_t taken;
};

static void finding(struct validation *v, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void finding(struct validation *v, const char *format, ...)
{
	char text[200];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	v->findings++;
	if (v->report)
		v->report(v->ctx, text);
}

static int check_named(void *ctx, uint64_t frame, enum mrs_prop_kind kind,
		       const struct mrs_prop *prop)
{
	struct validation *v = ctx;
	struct mrs_swap_target target;

	if (kind != MRS_PROP_SWAP || mrs_slot_is_filled(prop->value))
		return 0;
	/* A target that was removed with what was in it: the page is lost, the pool is not damaged.
	 */
	if (!mrs_swap_target_of(v->pool, prop->value, &target))
		return 0;
	v->named++;
	if (!mrs_swap_ops_of(target.record->kind)->owner(&target, mrs_slot_own(prop->value)))
		finding(v, "frame %llu is kept in slot %llu of swap target %u, which is free",
			(unsigned long long)frame, (unsigned long long)mrs_slot_own(prop->value),
			target.index);
	return 0;
}

/* Slots of a transition that is under way may not be named yet. */
static void count_taken(void *ctx, uint64_t own, unsigned owner)
{
	struct validation *v = ctx;
	unsigned index = owner - 1;
	struct mrs_slot *shared;

	if (index < MRS_LOCALS) {
		shared = mrs_pool_slot(v->pool, index / MRS_INTENTS_PER_SLOT);
		if ((mrs_load_acquire(mrs_slot_word(v->pool, index / MRS_INTENTS_PER_SLOT)) &
		     MRS_SLOT_STATE_MASK) != MRS_SLOT_FREE &&
		    mrs_load_acquire32(&shared->intent[index % MRS_INTENTS_PER_SLOT].op) !=
			    MRS_INTENT_NONE)
			return;
	}
	v->taken++;
}

int mrs_swap_validate(struct morsel_pool *pool, morsel_report_fn report, void *ctx)
{
	struct validation v = {.pool = pool, .report = report, .ctx = ctx};
	uint64_t *table = mrs_swap_table(pool);
	struct mrs_swap_target target;

	if (!table && mrs_load_acquire(&mrs_pool_state(pool)->swap_table))
		finding(&v, "the table of swap targets is not in the pool");
	for (unsigned i = 0; table && i < MRS_SWAP_TARGETS; i++) {
		if (!mrs_load_acquire(&table[i]))
			continue;
		if (!mrs_swap_target(pool, i, &target))
			finding(&v, "the record of swap target %u is damaged", i);
		else if (target.map)
			mrs_swap_ops_of(target.record->kind)->each(&target, count_taken, &v);
	}
	if (mrs_load_acquire(&mrs_pool_state(pool)->compressed) != compressed_frames(pool))
		finding(&v, "%llu frames are counted as compressed memory, the targets have %llu",
			(unsigned long long)mrs_load_acquire(&mrs_pool_state(pool)->compressed),
			(unsigned long long)compressed_frames(pool));
	mrs_prop_each(pool, check_named, &v);
	if (v.taken > v.named)
		finding(&v,
			"%llu slots of swap targets are taken, %llu of them are named by a page",
			(unsigned long long)v.taken, (unsigned long long)v.named);
	return v.findings;
}
