/*
 * What the rest of the core sees of swapping: pages in, slots out, and back.
 *
 * A page of one repeated byte is its own slot. All others go to the targets by priority: first
 * where they are worth keeping (compressed memory refuses what does not compress), then, where
 * nobody else has room, anywhere. A target that fails is marked, named in the log, and tried last
 * from then on.
 *
 * Giving a slot back, and death: a slot's owner is written beside it. Before a property that names
 * a slot is changed, the slot becomes the own transition's; after, it is freed. A death in between
 * leaves a slot of the dead one's that no property names: repair.c frees it. A living transition's
 * slots are never touched by a repair.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/probe.h"
#include "pool/property.h"
#include "swap/internal.h"
#include "swap/uring.h"

/* ---- the handle ---- */

static void close_files(struct mrs_swap *swap)
{
	for (unsigned i = 0; i < MRS_SWAP_TARGETS; i++) {
		uint64_t opened = mrs_swap(&swap->opened[i], 0);

		if ((uint32_t)opened)
			close((int)(uint32_t)opened - 1);
	}
	for (unsigned i = 0; i < mrs_array_length(swap->retired); i++) {
		uint64_t retired = mrs_swap(&swap->retired[i], 0);

		if (retired)
			close((int)retired - 1);
	}
}

static void stop(struct mrs_part *part)
{
	struct mrs_swap *swap = (struct mrs_swap *)part;

	close_files(swap);
	mrs_swap_driver_close(swap, false);
	if (swap->uring)
		mrs_uring_close((struct mrs_uring *)(uintptr_t)swap->uring);
	mrs_codecs_close(swap->codecs);
	free(swap);
}

static void in_child(struct mrs_part *part)
{
	struct mrs_swap *swap = (struct mrs_swap *)part;

	close_files(swap);
	mrs_swap_driver_close(swap, true);
	if (swap->uring)
		mrs_uring_in_child((struct mrs_uring *)(uintptr_t)swap->uring);
}

static int make(struct morsel_pool *pool, struct mrs_part **part)
{
	struct mrs_swap *swap = calloc(1, sizeof(*swap));

	if (swap)
		swap->codecs = mrs_codecs_open();
	if (!swap || !swap->codecs) {
		free(swap);
		return mrs_fail(-ENOMEM, "%s: no memory for swapping", mrs_pool_path(pool));
	}
	swap->part = (struct mrs_part){.pool = pool, .stop = stop, .in_child = in_child};
	mrs_swap_driver_look(swap);
	*part = &swap->part;
	return 0;
}

struct mrs_swap *mrs_swap_of(struct morsel_pool *pool)
{
	struct mrs_part *part = mrs_pool_part(pool, MRS_PART_SWAP);

	if (!part && mrs_pool_part_make(pool, MRS_PART_SWAP, make, &part))
		return NULL;
	return (struct mrs_swap *)part;
}

int mrs_swap_uring(struct mrs_swap *swap, struct mrs_uring **uring)
{
	uint64_t seen = mrs_load_acquire(&swap->uring);
	int rc;

	if (!seen) {
		rc = mrs_uring_open(uring);
		if (rc)
			return rc;
		if (mrs_cas(&swap->uring, &seen, (uintptr_t)*uring))
			return 0;
		mrs_uring_close(*uring); /* another thread was quicker */
	}
	*uring = (struct mrs_uring *)(uintptr_t)seen;
	return 0;
}

/* ---- targets ---- */

const struct mrs_swap_ops *mrs_swap_ops_of(uint64_t kind)
{
	switch (kind) {
	case MORSEL_SWAP_FILE:
		return &mrs_swap_file_ops;
	case MORSEL_SWAP_MEMORY:
		return &mrs_swap_memory_ops;
	case MORSEL_SWAP_DRIVER:
		return &mrs_swap_driver_ops;
	default:
		return NULL;
	}
}

uint64_t *mrs_swap_table(struct morsel_pool *pool)
{
	uint64_t frame = mrs_load_acquire(&mrs_pool_state(pool)->swap_table);

	if (!frame || frame < mrs_pool_super(pool)->frame_data)
		return NULL;
	return mrs_pool_at(pool, frame, 1);
}

bool mrs_swap_target(struct morsel_pool *pool, unsigned index, struct mrs_swap_target *target)
{
	uint64_t *table = mrs_swap_table(pool), frame, order;
	struct mrs_swap_record *record;

	if (!table || index >= MRS_SWAP_TARGETS)
		return false;
	frame = mrs_load_acquire(&table[index]);
	if (!frame || frame < mrs_pool_super(pool)->frame_data)
		return false;
	record = mrs_pool_at(pool, frame, 1);
	if (!record || mrs_load_acquire(&record->magic) != MRS_SWAP_RECORD_MAGIC ||
	    !mrs_swap_ops_of(record->kind))
		return false;
	*target = (struct mrs_swap_target){
		.pool = pool, .index = index, .record = record, .record_frame = frame};
	target->serial = mrs_swap_serial_of(mrs_load_acquire(&record->state));
	target->swap = (struct mrs_swap *)mrs_pool_part(pool, MRS_PART_SWAP);
	frame = mrs_load_acquire(&record->map_frame);
	order = mrs_load_acquire(&record->map_order);
	if (frame >= mrs_pool_super(pool)->frame_data && order <= MORSEL_FRAMES_MAX_ORDER)
		target->map = mrs_pool_at(pool, frame, 1ull << order);
	return true;
}

bool mrs_swap_target_of(struct morsel_pool *pool, uint64_t slot, struct mrs_swap_target *target)
{
	uint64_t state;

	if (!slot || mrs_slot_is_filled(slot) ||
	    !mrs_swap_target(pool, mrs_slot_target(slot), target) || !target->map)
		return false;
	state = mrs_load_acquire(&target->record->state);
	return mrs_swap_serial_of(state) == (slot >> MRS_SWAP_OWN_BITS & 255) &&
	       mrs_swap_state_of(state) != MRS_SWAP_NEW &&
	       mrs_swap_state_of(state) != MRS_SWAP_GONE;
}

static const struct mrs_swap_ops *ops_of(const struct mrs_swap_target *target)
{
	return mrs_swap_ops_of(target->record->kind);
}

bool mrs_swap_takes(const struct mrs_swap_target *target)
{
	uint64_t *table = mrs_swap_table(target->pool), word;
	enum mrs_swap_state state;

	if (!target->map || mrs_load_acquire(&table[target->index]) != target->record_frame)
		return false;
	word = mrs_load_acquire(&target->record->state);
	state = mrs_swap_state_of(word);
	return mrs_swap_serial_of(word) == target->serial &&
	       (state == MRS_SWAP_ACTIVE || state == MRS_SWAP_FAILING);
}

void mrs_swap_count(uint64_t *word, int64_t delta)
{
	mrs_fetch_add(word, (uint64_t)delta);
}

int mrs_swap_ready(struct morsel_pool *pool)
{
	struct mrs_swap_target target;

	for (unsigned i = 0; i < MRS_SWAP_TARGETS; i++)
		if (mrs_swap_target(pool, i, &target) && mrs_swap_takes(&target))
			return 0;
	return mrs_fail(-ENODEV,
			"%s has nowhere to put evicted pages: add a swap target (morsel swap add, "
			"morsel_swap_add)",
			mrs_pool_path(pool));
}

bool mrs_swap_is_leaving(struct morsel_pool *pool, uint64_t slot)
{
	struct mrs_swap_target target;

	return mrs_swap_target_of(pool, slot, &target) &&
	       mrs_swap_state_of(mrs_load_acquire(&target.record->state)) == MRS_SWAP_LEAVING;
}

/* ---- same-filled pages ---- */

static bool is_filled(const void *page)
{
	const uint64_t *word = page;
	uint64_t first = word[0];

	if (first != (first & 255) * 0x0101010101010101u)
		return false;
	for (unsigned i = 1; i < MRS_PAGE_BYTES / sizeof(*word); i += 8) {
		uint64_t other = 0;

		for (unsigned k = i; k < i + 8 && k < MRS_PAGE_BYTES / sizeof(*word); k++)
			other |= word[k] ^ first;
		if (other)
			return false;
	}
	return true;
}

/* ---- save ---- */

/* The targets that take pages, the one to be tried first at the front. */
static unsigned by_priority(struct morsel_pool *pool, struct mrs_swap_target targets[])
{
	unsigned count = 0;

	for (unsigned i = 0; i < MRS_SWAP_TARGETS; i++) {
		struct mrs_swap_target one;
		unsigned at = count;

		if (!mrs_swap_target(pool, i, &one) || !mrs_swap_takes(&one))
			continue;
		for (; at; at--) {
			const struct mrs_swap_record *before = targets[at - 1].record;
			bool fails = mrs_swap_state_of(before->state) == MRS_SWAP_FAILING;
			bool we_fail = mrs_swap_state_of(one.record->state) == MRS_SWAP_FAILING;

			if (fails == we_fail ? before->priority >= one.record->priority : we_fail)
				break;
			targets[at] = targets[at - 1];
		}
		targets[at] = one;
		count++;
	}
	return count;
}

static void mark_failing(struct mrs_swap_target *target, int rc)
{
	uint64_t seen = mrs_load_acquire(&target->record->state);

	mrs_swap_count(&target->record->errors_write, 1);
	mrs_swap_count(&mrs_pool_state(target->pool)->count[MRS_COUNT_SWAP_ERRORS], 1);
	while (mrs_swap_state_of(seen) == MRS_SWAP_ACTIVE)
		if (mrs_cas(&target->record->state, &seen, (seen & ~255ull) | MRS_SWAP_FAILING)) {
			mrs_log(MRS_LOG_WARN, "swap target %u of %s fails: %s (%s)", target->index,
				mrs_pool_path(target->pool), morsel_errormsg(), strerror(-rc));
			break;
		}
}

static unsigned without_slot(const struct mrs_swap_page page[], unsigned count)
{
	unsigned left = 0;

	for (unsigned i = 0; i < count; i++)
		left += !page[i].slot;
	return left;
}

/* A target may have been removed, with what was in it, while it was written to. */
static void forget_gone(struct morsel_pool *pool, struct mrs_swap_page page[], unsigned count)
{
	struct mrs_swap_target target;

	for (unsigned i = 0; i < count; i++)
		if (page[i].slot && !mrs_slot_is_filled(page[i].slot) &&
		    !mrs_swap_target_of(pool, page[i].slot, &target))
			page[i].slot = 0;
}

static int offer(struct mrs_swap_target targets[], unsigned many, struct mrs_txn *txn,
		 const void *const memory[], struct mrs_swap_page page[], unsigned count,
		 enum mrs_swap_effort effort)
{
	int error = 0;

	for (unsigned i = 0; i < many && without_slot(page, count); i++) {
		int rc;

		if (!mrs_swap_takes(&targets[i]))
			continue;
		rc = ops_of(&targets[i])->save(&targets[i], txn, memory, page, count, effort);
		forget_gone(txn->pool, page, count);
		if (!rc)
			continue;
		error = rc;
		if (rc == -EIO || rc == -ETIMEDOUT || rc == -ENOSPC)
			mark_failing(&targets[i], rc);
	}
	return error;
}

static int all_full(struct morsel_pool *pool, unsigned targets)
{
	if (!targets)
		return mrs_swap_ready(pool);
	return mrs_fail(-ENOSPC,
			"all %u swap targets of %s are full: add one (morsel swap add), or free "
			"evictable morsels",
			targets, mrs_pool_path(pool));
}

int mrs_swap_save(struct mrs_swap *swap, struct mrs_txn *txn, const void *const memory[],
		  struct mrs_swap_page page[], unsigned count)
{
	struct mrs_swap_target targets[MRS_SWAP_TARGETS];
	unsigned many;
	int rc;

	for (unsigned i = 0; i < count; i++) {
		page[i].crc = mrs_crc32c(0, memory[i], MRS_PAGE_BYTES);
		page[i].rc = 0;
		page[i].slot = is_filled(memory[i])
				       ? MRS_SWAP_FILLED | *(const unsigned char *)memory[i]
				       : 0;
	}
	if (!without_slot(page, count))
		return 0;
	many = by_priority(swap->part.pool, targets);
	rc = offer(targets, many, txn, memory, page, count, MRS_SWAP_IF_SMALLER);
	if (without_slot(page, count))
		rc = offer(targets, many, txn, memory, page, count, MRS_SWAP_AT_ANY_SIZE);
	if (!without_slot(page, count))
		return 0;
	for (unsigned i = 0; i < count; i++) {
		mrs_swap_free(txn, page[i].slot);
		page[i].slot = 0;
	}
	return rc ? rc : all_full(swap->part.pool, many);
}

/* ---- load ---- */

static int check_content(struct morsel_pool *pool, struct mrs_swap_page *page, const void *memory)
{
	struct mrs_swap_target target;

	if (!page->rc && mrs_crc32c(0, memory, MRS_PAGE_BYTES) != page->crc)
		page->rc = -EBADMSG;
	if (!page->rc)
		return 0;
	mrs_swap_count(&mrs_pool_state(pool)->count[MRS_COUNT_SWAP_ERRORS], 1);
	if (mrs_swap_target_of(pool, page->slot, &target))
		mrs_swap_count(page->rc == -EBADMSG ? &target.record->errors_content
						    : &target.record->errors_read,
			       1);
	return page->rc;
}

int mrs_swap_load_one(struct mrs_swap *swap, struct mrs_swap_page *page, void *memory)
{
	struct mrs_swap_target target;

	if (mrs_slot_is_filled(page->slot)) {
		memset(memory, (int)(page->slot & 255), MRS_PAGE_BYTES);
		page->rc = 0;
	} else if (mrs_swap_target_of(swap->part.pool, page->slot, &target)) {
		uint64_t own = mrs_slot_own(page->slot);

		page->rc = ops_of(&target)->owner(&target, own)
				   ? ops_of(&target)->load_one(&target, own, memory)
				   : -EBADMSG;
	} else {
		page->rc = -EIO;
	}
	return check_content(swap->part.pool, page, memory);
}

/* One after the other what needs no target's batch. */
static bool is_batched(struct morsel_pool *pool, uint64_t slot)
{
	struct mrs_swap_target target;

	return mrs_swap_target_of(pool, slot, &target) && ops_of(&target)->load &&
	       ops_of(&target)->owner(&target, mrs_slot_own(slot));
}

int mrs_swap_load(struct mrs_swap *swap, struct mrs_swap_page page[], void *const memory[],
		  unsigned count)
{
	struct morsel_pool *pool = swap->part.pool;
	struct mrs_swap_target target;
	int first = 0;

	for (unsigned i = 0; i < count; i++)
		page[i].rc = is_batched(pool, page[i].slot)
				     ? -EINPROGRESS
				     : mrs_swap_load_one(swap, &page[i], memory[i]);
	for (unsigned i = 0; i < MRS_SWAP_TARGETS; i++)
		if (mrs_swap_target(pool, i, &target) && target.map && ops_of(&target)->load)
			ops_of(&target)->load(&target, page, memory, count);
	for (unsigned i = 0; i < count; i++) {
		if (page[i].rc == -EINPROGRESS)
			page[i].rc = -EIO; /* its target went meanwhile */
		if (is_batched(pool, page[i].slot))
			check_content(pool, &page[i], memory[i]);
		if (!first)
			first = page[i].rc;
	}
	return first;
}

/* ---- slots and properties ---- */

void mrs_swap_free(struct mrs_txn *txn, uint64_t slot)
{
	struct mrs_swap_target target;

	if (mrs_swap_target_of(txn->pool, slot, &target) &&
	    ops_of(&target)->owner(&target, mrs_slot_own(slot)))
		ops_of(&target)->free(&target, txn, mrs_slot_own(slot));
}

static void take_over(struct mrs_txn *txn, uint64_t slot)
{
	struct mrs_swap_target target;

	if (mrs_swap_target_of(txn->pool, slot, &target) &&
	    ops_of(&target)->owner(&target, mrs_slot_own(slot)))
		ops_of(&target)->take_over(&target, mrs_slot_own(slot), txn->index + 1);
}

bool mrs_swap_kept(struct morsel_pool *pool, uint64_t frame, struct mrs_swap_page *page,
		   uint32_t *epoch)
{
	struct mrs_prop prop;

	if (!mrs_prop_get(pool, frame, MRS_PROP_SWAP, &prop))
		return false;
	*page = (struct mrs_swap_page){.slot = prop.value, .crc = (uint32_t)prop.aux};
	*epoch = prop.aux >> 32;
	return true;
}

int mrs_swap_keep(struct mrs_txn *txn, uint64_t frame, const struct mrs_swap_page *page,
		  uint32_t epoch)
{
	struct mrs_prop now = {.value = page->slot, .aux = (uint64_t)epoch << 32 | page->crc};
	struct mrs_prop former = {0};
	int rc;

	if (mrs_prop_get(txn->pool, frame, MRS_PROP_SWAP, &former) && former.value != now.value)
		take_over(txn, former.value);
	MRS_PROBE("swap.keep.taken_over");
	rc = mrs_prop_set(txn, frame, MRS_PROP_SWAP, &now);
	if (rc)
		return rc;
	MRS_PROBE("swap.keep.set");
	if (former.value && former.value != now.value)
		mrs_swap_free(txn, former.value);
	return 0;
}

void mrs_swap_forget(struct mrs_txn *txn, uint64_t frame)
{
	struct mrs_prop former;

	if (!mrs_prop_get(txn->pool, frame, MRS_PROP_SWAP, &former))
		return;
	take_over(txn, former.value);
	MRS_PROBE("swap.forget.taken_over");
	mrs_prop_clear(txn, frame, MRS_PROP_SWAP, NULL);
	MRS_PROBE("swap.forget.cleared");
	mrs_swap_free(txn, former.value);
}
