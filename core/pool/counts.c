/*
 * Counts of frames (MRS_PROP_SHARES): an array with holes.
 *
 * A hash of cache lines was built first and measured at 3 to 6 times an array's cost, for a count
 * in a line of its own spoils the cache that eight neighbours' counts share; so this is an array. A
 * page of it, for 1024 frames, gets memory when the first of them has a count: frames without counts
 * cost frame numbers, of which a pool has more than memory.
 *
 *	state.properties[3 + n]  the block for frames n * 2^27 ...: first frame | order << 40 |
 *				 serial << 48
 *
 *	block			 a bit for each page that has memory; pages of 1024 counts of 32 bits
 *
 *  1. A page's bit is set after the page has memory, and never cleared while the block lives.
 * Reading a page whose bit is clear would give it memory: so nobody does.
 *  2. A count is changed by fetch-and-add only. It does not go below 0, but for a moment where two
 * race to take the last one: then the one that took it below 0 is the one who failed, and undoes it.
 *     Readers take a count below 0 for 0; a death in between is mended by mrs_counts_repair().
 *  3. The block is replaced as the hash table is (property.c, 2 to 4) when the pool has grown.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/atomic.h"
#include "base/probe.h"
#include "pool/counts.h"
#include "pool/internal.h"

#define PAGE_SHIFT    10
#define PAGE_COUNTS   (1u << PAGE_SHIFT)
#define PART_SHIFT    27 /* frames of a block at most */
#define PARTS	      5
#define ORDER_SHIFT   40
#define SERIAL_SHIFT  48
#define BITS_PER_PAGE (MRS_PAGE_BYTES * 8)
#define COUNT_MAX     INT32_MAX
#define AHEAD	      16 /* counts: a line takes about as long to come as so many additions */

struct block {
	uint64_t frame;
	unsigned order;
	uint64_t head;	/* pages of bits */
	uint64_t pages; /* of counts */
	uint64_t *bits;
	uint32_t *counts;
};

static uint64_t *part_word(struct morsel_pool *pool, uint64_t part)
{
	struct mrs_state *state =
		(struct mrs_state *)(pool->map + MRS_FRAME_STATE * MRS_PAGE_BYTES);

	return &state->properties[3 + part];
}

static void block_shape(unsigned order, uint64_t *head, uint64_t *pages)
{
	*head = ((1ull << order) + BITS_PER_PAGE - 1) / BITS_PER_PAGE;
	*pages = (1ull << order) - *head;
}

/* False if there is none, or the word is damaged. A word that was right once stays so. */
static inline bool block_of(struct morsel_pool *pool, uint64_t part, uint64_t word,
			    struct block *block)
{
	unsigned char *at;

	block->frame = word & MRS_ENTRY_FRAME_MASK;
	block->order = word >> ORDER_SHIFT & 255;
	if (!word)
		return false;
	at = pool->map + block->frame * MRS_PAGE_BYTES;
	if (mrs_load_relaxed(&pool->counts_checked[part]) != word) {
		if (!block->order || block->order > MORSEL_FRAMES_MAX_ORDER ||
		    block->frame < pool->super.frame_data ||
		    !mrs_pool_at(pool, block->frame, 1ull << block->order))
			return false;
		mrs_store_relaxed(&pool->counts_checked[part], word);
	}
	block_shape(block->order, &block->head, &block->pages);
	block->bits = (uint64_t *)at;
	block->counts = (uint32_t *)(at + block->head * MRS_PAGE_BYTES);
	return true;
}

static inline bool has_page(const struct block *block, uint64_t page)
{
	/* Acquire: its memory is there. Pairs with give_page(). */
	return page < block->pages && mrs_load_acquire(&block->bits[page / 64]) >> page % 64 & 1;
}

/* The place of a frame's count, if it has memory. */
static inline uint32_t *count_at(struct morsel_pool *pool, uint64_t frame)
{
	uint64_t part = frame >> PART_SHIFT, at = frame & ((1ull << PART_SHIFT) - 1);
	struct block block;

	if (part >= PARTS ||
	    !block_of(pool, part, mrs_load_acquire(part_word(pool, part)), &block) ||
	    !has_page(&block, at >> PAGE_SHIFT))
		return NULL;
	return block.counts + at;
}

uint64_t mrs_counts_get(struct morsel_pool *pool, uint64_t frame)
{
	uint64_t *word = part_word(pool, mrs_min(frame >> PART_SHIFT, PARTS - 1)), seen;
	uint32_t *place, count;

	do {
		seen = mrs_load_acquire(word);
		place = count_at(pool, frame);
		count = place ? mrs_load_acquire32(place) : 0;
		__atomic_thread_fence(__ATOMIC_ACQUIRE); /* the count, before the word again: 3 */
	} while (mrs_load_acquire(word) != seen);
	return count > COUNT_MAX ? 0 : count;
}

/* ---- growing ---- */

/* A block with memory for its bits; pending. */
static int new_block(struct mrs_txn *txn, unsigned order, uint64_t former, uint64_t *word)
{
	uint64_t frame, head, pages;
	int rc = mrs_txn_get(txn, order, MRS_FRAME_IMMOVABLE, 0, &frame);

	if (rc)
		return rc;
	block_shape(order, &head, &pages);
	rc = mrs_pool_back(txn, frame, head, MRS_BACK_OVER_BUDGET, NULL);
	if (rc) {
		mrs_txn_put_begin(txn, order, frame);
		mrs_txn_settle(txn);
		mrs_txn_put_end(txn);
		return rc;
	}
	memset(mrs_pool_at(txn->pool, frame, head), 0, head * MRS_PAGE_BYTES);
	*word = frame | (uint64_t)order << ORDER_SHIFT |
		(uint64_t)(uint16_t)((former >> SERIAL_SHIFT) + 1) << SERIAL_SHIFT;
	return 0;
}

static void put_block(struct mrs_txn *txn, uint64_t word)
{
	unsigned order = word >> ORDER_SHIFT & 255;

	mrs_pool_unback(txn->pool, word & MRS_ENTRY_FRAME_MASK, 1ull << order);
	mrs_txn_put_end(txn);
}

static int give_page(struct mrs_txn *txn, const struct block *block, uint64_t page)
{
	int rc = mrs_pool_back(txn, block->frame + block->head + page, 1, MRS_BACK_OVER_BUDGET,
			       NULL);

	if (rc)
		return rc;
	MRS_PROBE("counts.page.backed");
	mrs_fetch_or(&block->bits[page / 64], 1ull << page % 64);
	return 0;
}

static int copy_block(struct mrs_txn *txn, const struct block *from, const struct block *to)
{
	for (uint64_t page = 0; page < from->pages; page++) {
		int rc;

		if (!has_page(from, page))
			continue;
		mrs_gate_beat(txn->pool);
		rc = give_page(txn, to, page);
		if (rc)
			return rc;
		memcpy(to->counts + page * PAGE_COUNTS, from->counts + page * PAGE_COUNTS,
		       MRS_PAGE_BYTES);
	}
	return 0;
}

/* The block that covers so many frames of a part, and half as many again where the part has them.
 */
static unsigned order_for(uint64_t frames)
{
	uint64_t wanted = mrs_min(frames + frames / 2, 1ull << PART_SHIFT), head, pages;
	unsigned order = 1;

	for (;; order++) {
		block_shape(order, &head, &pages);
		if (pages << PAGE_SHIFT >= wanted)
			return order;
	}
}

/* Gate closed, or there is no block yet. */
static int replace(struct mrs_txn *txn, uint64_t part, unsigned order)
{
	struct morsel_pool *pool = txn->pool;
	uint64_t *place = part_word(pool, part), old = mrs_load_acquire(place), word;
	struct block from, to;
	int rc = new_block(txn, order, old, &word);

	if (rc)
		return rc;
	if (block_of(pool, part, old, &from) && block_of(pool, part, word, &to))
		rc = copy_block(txn, &from, &to);
	mrs_txn_put_begin(txn, rc ? order : (unsigned)(old >> ORDER_SHIFT & 255),
			  (rc ? word : old) & MRS_ENTRY_FRAME_MASK);
	if (!rc)
		mrs_store_release(place, word);
	MRS_PROBE("counts.block.replaced");
	mrs_txn_settle(txn);
	put_block(txn, rc ? word : old);
	return rc;
}

static int make_first(struct mrs_txn *txn, uint64_t part, unsigned order)
{
	uint64_t word, none = 0;
	int rc = new_block(txn, order, 0, &word);

	if (rc)
		return rc;
	if (mrs_cas(part_word(txn->pool, part), &none, word)) {
		MRS_PROBE("counts.block.linked");
		mrs_txn_settle(txn);
		return 0;
	}
	mrs_txn_put_begin(txn, order, word & MRS_ENTRY_FRAME_MASK);
	mrs_txn_settle(txn);
	put_block(txn, word);
	return 0;
}

struct growth {
	uint64_t part;
	unsigned order;
};

static int replace_closed(struct mrs_txn *txn, void *ctx)
{
	struct growth *growth = ctx;
	uint64_t word = mrs_load_acquire(part_word(txn->pool, growth->part));

	if ((word >> ORDER_SHIFT & 255) >= growth->order)
		return 0; /* somebody else was quicker */
	return replace(txn, growth->part, growth->order);
}

/* Sees to a block that covers the first frames of a part. */
static int cover(struct mrs_txn *txn, uint64_t part, uint64_t frames)
{
	uint64_t word = mrs_load_acquire(part_word(txn->pool, part));
	struct growth growth = {.part = part};
	struct block block;

	if (block_of(txn->pool, part, word, &block) && block.pages << PAGE_SHIFT >= frames)
		return 0;
	if (!mrs_txn_is_free(txn))
		return mrs_fail(-EAGAIN,
				"%s: the counts of frames cannot be given room in the middle of "
				"another allocation",
				txn->pool->path);
	growth.order = order_for(frames);
	return word ? mrs_prop_behind_gate(txn, replace_closed, &growth)
		    : make_first(txn, part, growth.order);
}

int mrs_counts_reserve(struct mrs_txn *txn)
{
	uint64_t end = mrs_pool_frames_end(txn->pool), last = (end - 1) >> PART_SHIFT;
	int rc = 0;

	if (last >= PARTS)
		return mrs_fail(-ENOSPC,
				"%s is larger than 2.5 TiB: frames beyond cannot be shared",
				txn->pool->path);
	for (uint64_t part = 0; part < last && !rc; part++)
		rc = cover(txn, part, 1ull << PART_SHIFT);
	return rc ? rc : cover(txn, last, end - (last << PART_SHIFT));
}

/* The place of a frame's count, with memory. */
static int make_count(struct mrs_txn *txn, uint64_t frame, uint32_t **place)
{
	uint64_t part = frame >> PART_SHIFT, at = frame & ((1ull << PART_SHIFT) - 1);
	struct block block;
	int rc;

	if (frame >= mrs_pool_frames_end(txn->pool))
		return mrs_fail(-EINVAL, "%s has no frame %" PRIu64, txn->pool->path, frame);
	rc = mrs_counts_reserve(txn);
	if (rc)
		return rc;
	if (!block_of(txn->pool, part, mrs_load_acquire(part_word(txn->pool, part)), &block))
		return mrs_fail(-EIO, "%s is damaged: its counts of frames are not in the pool",
				txn->pool->path);
	rc = has_page(&block, at >> PAGE_SHIFT) ? 0 : give_page(txn, &block, at >> PAGE_SHIFT);
	if (!rc)
		*place = block.counts + at;
	return rc;
}

/* ---- changing ---- */

static int out_of_range(struct mrs_txn *txn, uint64_t frame, int64_t delta)
{
	return mrs_fail(-ERANGE,
			"%s: %+" PRId64 " would bring the count of frame %" PRIu64
			" out of 0 ... %d",
			txn->pool->path, delta, frame, COUNT_MAX);
}

/* False if the count would leave its bounds; it has not changed then. */
static inline bool add_at(uint32_t *place, int32_t delta, uint32_t *after)
{
	if (delta < 0 && (int64_t)(int32_t)mrs_load_relaxed32(place) + delta < 0)
		return false;
	*after = mrs_fetch_add32(place, (uint32_t)delta) + (uint32_t)delta;
	if (*after <= COUNT_MAX)
		return true;
	mrs_fetch_sub32(place, (uint32_t)delta); /* 2 */
	return false;
}

int mrs_counts_add(struct mrs_txn *txn, uint64_t frame, int64_t delta, uint64_t *now)
{
	uint32_t *place = count_at(txn->pool, frame), after;
	int rc = 0;

	if (delta > COUNT_MAX || delta < -COUNT_MAX || (!place && delta < 0))
		return out_of_range(txn, frame, delta);
	if (!place)
		rc = make_count(txn, frame, &place);
	if (rc)
		return rc;
	if (!add_at(place, (int32_t)delta, &after))
		return out_of_range(txn, frame, delta);
	*now = after;
	return 0;
}

/*
 * The first of frames[] whose counts have memory, in the first part: as short a way for each as can
 * be, for the processor has so many of them under way at once as it can look ahead. Returns how
 * many.
 */
static unsigned add_quickly(struct mrs_txn *txn, const uint64_t frames[], unsigned count,
			    int32_t delta, uint64_t now[])
{
	uint64_t page, known = UINT64_MAX;
	struct block block;
	unsigned i;

	if (!block_of(txn->pool, 0, mrs_load_acquire(part_word(txn->pool, 0)), &block))
		return 0;
	for (i = 0; i < count; i++) {
		uint32_t after;

		/* Also what has no memory may be fetched: that is no access. */
		__builtin_prefetch(&block.counts[frames[i + AHEAD < count ? i + AHEAD : i]], 1);
		page = frames[i] >> PAGE_SHIFT;
		if (page != known && !has_page(&block, page))
			break;
		known = page;
		if (!add_at(&block.counts[frames[i]], delta, &after))
			break;
		if (now)
			now[i] = after;
	}
	return i;
}

int mrs_counts_add_many(struct mrs_txn *txn, const uint64_t frames[], unsigned count, int64_t delta,
			uint64_t now[], unsigned *done)
{
	int rc = 0;

	*done = 0;
	while (*done < count && !rc) {
		uint64_t one;

		if (delta == (int32_t)delta)
			*done += add_quickly(txn, frames + *done, count - *done, (int32_t)delta,
					     now ? now + *done : NULL);
		if (*done == count)
			break;
		rc = mrs_counts_add(txn, frames[*done], delta, now ? &now[*done] : &one);
		*done += !rc;
	}
	return rc;
}

int mrs_counts_set(struct mrs_txn *txn, uint64_t frame, uint64_t value)
{
	uint32_t *place = count_at(txn->pool, frame);
	int rc = 0;

	if (value > COUNT_MAX)
		return out_of_range(txn, frame, (int64_t)value);
	if (!place && value)
		rc = make_count(txn, frame, &place);
	if (!rc && place)
		mrs_store_release32(place, (uint32_t)value);
	return rc;
}

/* ---- looking at all of it ---- */

/* Calls fn for each count that is not 0, as it is stored. */
static int each_count(struct morsel_pool *pool,
		      int (*fn)(void *ctx, uint64_t frame, uint32_t *place), void *ctx)
{
	int rc = 0;

	for (uint64_t part = 0; part < PARTS; part++) {
		struct block block;

		if (!block_of(pool, part, mrs_load_acquire(part_word(pool, part)), &block))
			continue;
		for (uint64_t page = 0; page < block.pages && !rc; page++) {
			uint32_t *place = block.counts + page * PAGE_COUNTS;
			uint64_t first = (part << PART_SHIFT) + page * PAGE_COUNTS;

			for (unsigned i = 0; has_page(&block, page) && i < PAGE_COUNTS && !rc; i++)
				if (mrs_load_acquire32(&place[i]))
					rc = fn(ctx, first + i, &place[i]);
		}
	}
	return rc;
}

struct each {
	int (*fn)(void *ctx, uint64_t frame, uint64_t count);
	void *ctx;
};

static int each_positive(void *ctx, uint64_t frame, uint32_t *place)
{
	uint32_t count = mrs_load_acquire32(place);
	struct each *each = ctx;

	return count && count <= COUNT_MAX ? each->fn(each->ctx, frame, count) : 0;
}

int mrs_counts_each(struct morsel_pool *pool, int (*fn)(void *ctx, uint64_t frame, uint64_t count),
		    void *ctx)
{
	struct each each = {.fn = fn, .ctx = ctx};

	return each_count(pool, each_positive, &each);
}

void mrs_counts_owned(struct morsel_pool *pool,
		      void (*owned)(void *ctx, uint64_t frame, uint64_t count, const char *by),
		      void *ctx)
{
	for (uint64_t part = 0; part < PARTS; part++) {
		struct block block;

		if (block_of(pool, part, mrs_load_acquire(part_word(pool, part)), &block))
			owned(ctx, block.frame, 1ull << block.order, "the counts of frames");
	}
}

static int mend(void *ctx, uint64_t frame, uint32_t *place)
{
	if (mrs_load_acquire32(place) > COUNT_MAX)
		mrs_store_release32(place, 0);
	return 0;
}

void mrs_counts_repair(struct morsel_pool *pool)
{
	each_count(pool, mend, NULL);
}

struct finding {
	struct morsel_pool *pool;
	void (*say)(void *ctx, uint64_t frame, const char *what);
	void *ctx;
};

static int look(void *ctx, uint64_t frame, uint32_t *place)
{
	struct finding *finding = ctx;

	if (mrs_load_acquire32(place) > COUNT_MAX)
		finding->say(finding->ctx, frame, "has a count below 0");
	if (frame >= mrs_pool_frames_end(finding->pool))
		finding->say(finding->ctx, frame, "is beyond the pool and has a count");
	return 0;
}

void mrs_counts_validate(struct morsel_pool *pool,
			 void (*say)(void *ctx, uint64_t frame, const char *what), void *ctx)
{
	struct finding finding = {.pool = pool, .say = say, .ctx = ctx};

	for (uint64_t part = 0; part < PARTS; part++) {
		uint64_t word = mrs_load_acquire(part_word(pool, part));
		struct block block;

		if (word && !block_of(pool, part, word, &block))
			say(ctx, part << PART_SHIFT,
			    "has no counts: the word of their block is damaged");
	}
	each_count(pool, look, &finding);
}
