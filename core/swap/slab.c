/*
 * Objects of several sizes in slabs of eight frames, for compressed memory.
 *
 *	map	one word per slab: first frame | class << 40 | free objects << 48 | state << 56; 0
 * none slab	head, one word per object (0 free), objects
 *
 *  1. Taking: the slab's word is counted down first; that is the right to one object, and the slab
 *     cannot go while it is used. Then a free object's word is claimed by compare-and-swap.
 *  2. Giving back: the object's word becomes 0, then the slab's word is counted up.
 *  3. A slab whose objects are all free becomes GOING by compare-and-swap of its word: by 1 nobody
 * has a right in it. It is unlinked between put_begin() and put_end().
 *  4. A new slab is pending until its word names it.
 *  5. Death: words of objects tell what is taken, and by whom; counts are made anew from them,
 * behind the gate. Nobody is between two steps then: nothing here waits between them. At most one
 * slab of a class is kept empty. The sizes stand so close that a tenth of an object is waste at
 * most, from 250 bytes up.
 */
#include <errno.h>
#include <string.h>

#include "base/probe.h"
#include "swap/internal.h"

#define SLAB_ORDER  3
#define SLAB_BYTES  (MRS_PAGE_BYTES << SLAB_ORDER)
#define SLAB_MAGIC  0x62616c73u
#define CLASS_SHIFT 40
#define FREE_SHIFT  48
#define STATE_SHIFT 56
#define FREE_ONE    (1ull << FREE_SHIFT)
#define OWN_SHIFT   8

enum slab_state { SLAB_NONE, SLAB_LIVE, SLAB_GOING };

/* The object's word: transition + 1 | codec << 12 | bytes << 14 | taken. */
#define META_OWNER	0xfffu
#define META_CODEC	12
#define META_BYTES	14
#define META_BYTES_MASK 0x1fffu
#define META_TAKEN	(1u << 31)

struct slab {
	uint32_t magic;
	uint32_t class;
	uint32_t index; /* in the map */
	uint32_t reserved;
	uint32_t object[];
};

static const uint8_t objects_of_class[] = {7,  10, 11, 12, 13, 14, 16, 18, 20,
					   23, 26, 30, 36, 44, 56, 72, 96, 128};
#define CLASSES mrs_array_length(objects_of_class)
_Static_assert(mrs_array_length(objects_of_class) <= MRS_SWAP_CLASSES, "in the record");

static unsigned objects_of(unsigned class)
{
	return objects_of_class[class];
}

static unsigned first_object(unsigned class)
{
	return (unsigned)mrs_round_up(sizeof(struct slab) + 4 * objects_of(class), 64);
}

static unsigned object_bytes(unsigned class)
{
	return (unsigned)mrs_round_down((SLAB_BYTES - first_object(class)) / objects_of(class), 16);
}

/* The class with the smallest objects that hold so many bytes. */
static unsigned class_of(unsigned bytes)
{
	unsigned class = CLASSES - 1;

	while (class && object_bytes(class) < bytes)
		class --;
	return class;
}

static unsigned word_class(uint64_t word)
{
	return word >> CLASS_SHIFT & 255;
}

static unsigned word_free(uint64_t word)
{
	return word >> FREE_SHIFT & 255;
}

static enum slab_state word_state(uint64_t word)
{
	return (enum slab_state)(word >> STATE_SHIFT);
}

static uint64_t word_make(uint64_t frame, unsigned class, unsigned free, enum slab_state state)
{
	return frame | (uint64_t) class << CLASS_SHIFT | (uint64_t)free << FREE_SHIFT |
	       (uint64_t)state << STATE_SHIFT;
}

static uint64_t word_frame(uint64_t word)
{
	return word & MRS_ENTRY_FRAME_MASK;
}

uint64_t mrs_slab_bytes(void)
{
	return SLAB_BYTES;
}

uint64_t mrs_slabs_of_bytes(uint64_t bytes)
{
	return bytes / SLAB_BYTES;
}

uint64_t mrs_slab_map_bytes(uint64_t slabs)
{
	return slabs * sizeof(uint64_t);
}

static uint64_t *word_at(const struct mrs_swap_target *target, uint64_t index)
{
	return (uint64_t *)target->map + index;
}

/* As many as the map really has room for: the record is not believed. */
static uint64_t slab_count(const struct mrs_swap_target *target)
{
	return mrs_min(target->record->slots, MRS_PAGE_BYTES << target->record->map_order >> 3);
}

static struct slab *slab_at(const struct mrs_swap_target *target, uint64_t frame)
{
	if (frame < mrs_pool_super(target->pool)->frame_data)
		return NULL;
	return mrs_pool_at(target->pool, frame, 1ull << SLAB_ORDER);
}

/* The slab of a map's word, if it is a whole one. */
static struct slab *slab_of(const struct mrs_swap_target *target, uint64_t word, uint64_t index)
{
	struct slab *slab = word ? slab_at(target, word_frame(word)) : NULL;

	return slab && slab->magic == SLAB_MAGIC && slab->index == index &&
			       slab->class == word_class(word) && slab->class < CLASSES
		       ? slab
		       : NULL;
}

/* The slab and object of a slot; NULL if there is no such object. */
static struct slab *find(const struct mrs_swap_target *target, uint64_t own, unsigned *at)
{
	uint64_t frame = own >> OWN_SHIFT, word;
	struct slab *slab = slab_at(target, frame);

	*at = own & ((1u << OWN_SHIFT) - 1);
	if (!slab || slab->magic != SLAB_MAGIC || slab->index >= slab_count(target))
		return NULL;
	word = mrs_load_acquire(word_at(target, slab->index));
	if (word_frame(word) != frame || !slab_of(target, word, slab->index) ||
	    *at >= objects_of(slab->class))
		return NULL;
	return slab;
}

/* ---- taking ---- */

static void note_class(struct mrs_swap_target *target, unsigned class, int64_t free)
{
	mrs_swap_count(&target->record->free_of_class[class], free);
}

/* The right to one object of the slab: 1. */
static bool count_down(struct mrs_swap_target *target, uint64_t index, unsigned class)
{
	uint64_t *place = word_at(target, index), word = mrs_load_acquire(place);

	while (word && word_class(word) == class && word_state(word) == SLAB_LIVE &&
	       word_free(word))
		if (mrs_cas(place, &word, word - FREE_ONE)) {
			note_class(target, class, -1);
			return true;
		}
	return false;
}

/* Searches from where the last one was found. True and *index. */
static bool find_partial(struct mrs_swap_target *target, unsigned class, uint64_t *index)
{
	uint64_t slabs = slab_count(target), *hint = &target->record->hint_of_class[class];
	uint64_t start = mrs_load_relaxed(hint);

	if ((int64_t)mrs_load_relaxed(&target->record->free_of_class[class]) <= 0)
		return false;
	for (uint64_t i = 0; i < slabs; i++) {
		uint64_t at = (start + i) % slabs;

		if (!count_down(target, at, class))
			continue;
		if (at != start)
			mrs_store_relaxed(hint, at);
		*index = at;
		return true;
	}
	return false;
}

/* Of the target, and beside the budget of the pool. */
static void count_frames(struct mrs_swap_target *target, int64_t frames)
{
	mrs_swap_count(&target->record->frames, frames);
	mrs_swap_count(&mrs_pool_state(target->pool)->compressed, frames);
}

static void give_back_pending(struct mrs_swap_target *target, struct mrs_txn *txn, uint64_t frame)
{
	mrs_txn_put_begin(txn, SLAB_ORDER, frame);
	mrs_txn_settle(txn);
	mrs_pool_unback(target->pool, frame, 1ull << SLAB_ORDER);
	mrs_txn_put_end(txn);
}

/* Links a slab, of which one object is ours already. */
static bool link_slab(struct mrs_swap_target *target, struct mrs_txn *txn, uint64_t frame,
		      unsigned class, uint64_t *index)
{
	struct slab *slab = slab_at(target, frame);
	uint64_t slabs = slab_count(target), start = mrs_load_relaxed(&target->record->hint);

	slab->magic = SLAB_MAGIC;
	slab->class = class;
	for (uint64_t i = 0; i < slabs; i++) {
		uint64_t at = (start + i) % slabs, none = 0;

		if (mrs_load_relaxed(word_at(target, at)))
			continue;
		slab->index = (uint32_t)at;
		/* Release: who finds the word finds the head. */
		if (!mrs_cas(word_at(target, at), &none,
			     word_make(frame, class, objects_of(class) - 1, SLAB_LIVE)))
			continue;
		MRS_PROBE("swap.slab.linked");
		mrs_txn_settle(txn);
		note_class(target, class, objects_of(class) - 1);
		count_frames(target, 1 << SLAB_ORDER);
		mrs_store_relaxed(&target->record->hint, at + 1);
		mrs_store_relaxed(&target->record->hint_of_class[class], at);
		*index = at;
		return true;
	}
	return false;
}

/* Is there a word for one more? Else there is no use in taking frames. */
static bool is_full(struct mrs_swap_target *target)
{
	return mrs_load_relaxed(&target->record->frames) >> SLAB_ORDER >= slab_count(target);
}

static int new_slab(struct mrs_swap_target *target, struct mrs_txn *txn, unsigned class,
		    uint64_t *index)
{
	uint64_t frame;
	int rc;

	if (is_full(target) || !mrs_txn_is_free(txn))
		return -ENOSPC;
	rc = mrs_txn_get(txn, SLAB_ORDER, MRS_FRAME_IMMOVABLE, 0, &frame);
	if (rc)
		return rc;
	rc = mrs_pool_back(txn, frame, 1ull << SLAB_ORDER, MRS_BACK_OVER_BUDGET, NULL);
	if (rc) {
		give_back_pending(target, txn, frame);
		return rc;
	}
	memset(mrs_pool_at(target->pool, frame, 1ull << SLAB_ORDER), 0, SLAB_BYTES);
	MRS_PROBE("swap.slab.backed");
	/* Getting frames may have parked us: add.c. */
	if (mrs_swap_takes(target) && link_slab(target, txn, frame, class, index))
		return 0;
	give_back_pending(target, txn, frame);
	return -ENOSPC;
}

/* Claims one of the slab's objects; by 1 there is a free one. */
static int claim(struct mrs_swap_target *target, struct mrs_txn *txn, uint64_t index, uint32_t meta,
		 uint64_t *own, void **memory)
{
	uint64_t word = mrs_load_acquire(word_at(target, index));
	struct slab *slab = slab_of(target, word, index);

	for (unsigned i = 0; slab && i < objects_of(slab->class); i++) {
		uint32_t none = 0;

		if (mrs_load_relaxed32(&slab->object[i]) ||
		    !mrs_cas32(&slab->object[i], &none, meta))
			continue;
		MRS_PROBE("swap.slab.claimed");
		*own = word_frame(word) << OWN_SHIFT | i;
		*memory = (unsigned char *)slab + first_object(slab->class) +
			  i * object_bytes(slab->class);
		return 0;
	}
	return mrs_fail(-EIO, "%s: slab %llu of swap target %u is damaged",
			mrs_pool_path(target->pool), (unsigned long long)index, target->index);
}

int mrs_slab_get(struct mrs_swap_target *target, struct mrs_txn *txn, unsigned bytes,
		 enum mrs_codec codec, uint64_t *own, void **memory)
{
	uint32_t meta =
		META_TAKEN | (txn->index + 1) | (uint32_t)codec << META_CODEC | bytes << META_BYTES;
	unsigned class = class_of(bytes);
	uint64_t index;
	int rc = 0;

	if (!find_partial(target, class, &index)) {
		rc = new_slab(target, txn, class, &index);
		/* Nothing new to be had: an object that is larger than need be. */
		while (rc == -ENOSPC && class -- > 0)
			if (find_partial(target, class, &index))
				rc = 0;
	}
	if (!rc)
		rc = claim(target, txn, index, meta, own, memory);
	if (rc)
		return rc;
	mrs_swap_count(&target->record->used, 1);
	mrs_swap_count(&target->record->stored, bytes);
	return 0;
}

/* ---- looking ---- */

bool mrs_slab_look(struct mrs_swap_target *target, uint64_t own, struct mrs_slab_object *object)
{
	unsigned at;
	struct slab *slab = find(target, own, &at);
	uint32_t meta = slab ? mrs_load_acquire32(&slab->object[at]) : 0;

	if (!(meta & META_TAKEN))
		return false;
	object->bytes = meta >> META_BYTES & META_BYTES_MASK;
	object->codec = (enum mrs_codec)(meta >> META_CODEC & 3);
	object->memory =
		(unsigned char *)slab + first_object(slab->class) + at * object_bytes(slab->class);
	return object->bytes <= object_bytes(slab->class);
}

unsigned mrs_slab_owner(struct mrs_swap_target *target, uint64_t own)
{
	unsigned at;
	struct slab *slab = find(target, own, &at);

	return slab ? mrs_load_acquire32(&slab->object[at]) & META_OWNER : 0;
}

void mrs_slab_take_over(struct mrs_swap_target *target, uint64_t own, unsigned owner)
{
	unsigned at;
	struct slab *slab = find(target, own, &at);
	uint32_t meta = slab ? mrs_load_acquire32(&slab->object[at]) : 0;

	if (meta & META_TAKEN)
		mrs_store_release32(&slab->object[at], (meta & ~META_OWNER) | owner);
}

/* ---- giving back ---- */

/* The slab's word is GOING: 3. */
static void give_back(struct mrs_swap_target *target, struct mrs_txn *txn, uint64_t index)
{
	uint64_t *place = word_at(target, index), word = mrs_load_acquire(place);
	uint64_t frame = word_frame(word);

	MRS_PROBE("swap.slab.going");
	mrs_txn_put_begin(txn, SLAB_ORDER, frame);
	mrs_store_release(place, 0);
	MRS_PROBE("swap.slab.unlinked");
	count_frames(target, -(1 << SLAB_ORDER));
	mrs_pool_unback(target->pool, frame, 1ull << SLAB_ORDER);
	mrs_txn_put_end(txn);
}

static bool count_up(struct mrs_swap_target *target, uint64_t index, unsigned class, bool may_go)
{
	uint64_t *place = word_at(target, index), word = mrs_load_acquire(place), next;
	unsigned objects = objects_of(class);
	int64_t others;

	do {
		others = (int64_t)mrs_load_relaxed(&target->record->free_of_class[class]) -
			 (objects - 1);
		next = word + FREE_ONE;
		if (word_free(next) == objects && others > 0 && may_go)
			next = word_make(word_frame(word), class, objects, SLAB_GOING);
	} while (!mrs_cas(place, &word, next));
	if (word_state(next) != SLAB_GOING) {
		note_class(target, class, 1);
		return false;
	}
	note_class(target, class, -(int64_t)(objects - 1));
	return true;
}

void mrs_slab_put(struct mrs_swap_target *target, struct mrs_txn *txn, uint64_t own)
{
	unsigned at;
	struct slab *slab = find(target, own, &at);
	uint32_t meta = slab ? mrs_swap32(&slab->object[at], 0) : 0, index;

	if (!(meta & META_TAKEN))
		return;
	index = slab->index;
	MRS_PROBE("swap.slab.freed");
	mrs_swap_count(&target->record->used, -1);
	mrs_swap_count(&target->record->stored, -(int64_t)(meta >> META_BYTES & META_BYTES_MASK));
	if (count_up(target, index, slab->class, mrs_txn_is_free(txn)))
		give_back(target, txn, index);
}

/* ---- all of it ---- */

void mrs_slab_each(struct mrs_swap_target *target,
		   void (*fn)(void *ctx, uint64_t own, unsigned owner), void *ctx)
{
	uint64_t slabs = slab_count(target);

	for (uint64_t i = 0; i < slabs; i++) {
		uint64_t word = mrs_load_acquire(word_at(target, i));
		struct slab *slab = slab_of(target, word, i);

		for (unsigned k = 0; slab && k < objects_of(slab->class); k++) {
			uint32_t meta = mrs_load_acquire32(&slab->object[k]);

			if (meta & META_TAKEN)
				fn(ctx, word_frame(word) << OWN_SHIFT | k, meta & META_OWNER);
		}
	}
}

void mrs_slab_owned(struct mrs_swap_target *target,
		    void (*owned)(void *ctx, uint64_t frame, uint64_t count, const char *by),
		    void *ctx)
{
	uint64_t slabs = slab_count(target);

	for (uint64_t i = 0; i < slabs; i++) {
		uint64_t word = mrs_load_acquire(word_at(target, i));

		if (word)
			owned(ctx, word_frame(word), 1ull << SLAB_ORDER, "compressed swap");
	}
}

/* Counts the slab's objects; returns how many are free. */
static unsigned count_free(const struct slab *slab, uint64_t *used, uint64_t *stored)
{
	unsigned free = 0;

	for (unsigned i = 0; i < objects_of(slab->class); i++) {
		uint32_t meta = slab->object[i];

		free += !(meta & META_TAKEN);
		*used += (meta & META_TAKEN) != 0;
		*stored += meta & META_TAKEN ? meta >> META_BYTES & META_BYTES_MASK : 0;
	}
	return free;
}

void mrs_slab_repair(struct mrs_swap_target *target, struct mrs_txn *txn)
{
	struct mrs_swap_record *record = target->record;
	uint64_t slabs = slab_count(target), free_of_class[CLASSES] = {0}, frames = 0;
	uint64_t used = 0, stored = 0;

	for (uint64_t i = 0; i < slabs; i++) {
		uint64_t word = mrs_load_acquire(word_at(target, i));
		struct slab *slab = slab_of(target, word, i);
		unsigned free;

		if (!slab)
			continue;
		free = count_free(slab, &used, &stored);
		mrs_store_release(word_at(target, i),
				  word_make(word_frame(word), slab->class, free, SLAB_LIVE));
		free_of_class[slab->class] += free;
		frames += 1 << SLAB_ORDER;
	}
	for (unsigned i = 0; i < CLASSES; i++)
		mrs_store_release(&record->free_of_class[i], free_of_class[i]);
	mrs_store_release(&record->frames, frames);
	mrs_store_release(&record->used, used);
	mrs_store_release(&record->stored, stored);
}

void mrs_slab_drop_all(struct mrs_swap_target *target, struct mrs_txn *txn)
{
	uint64_t slabs = slab_count(target);

	for (uint64_t i = 0; i < slabs; i++)
		if (mrs_load_acquire(word_at(target, i)))
			give_back(target, txn, i);
}
