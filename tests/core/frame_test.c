/*
 * The frame allocator's promises one by one: transitions as values, misuse, exact undo,
 * reservations of idle locals, attach, recover, online and offline, zeroed state, metadata.
 */
#include "frame_model.h"

#include <frame/child.h>
#include <frame/row.h>
#include <frame/tree.h>

#define TREE MORSEL_FRAMES_TREE
#define HUGE MORSEL_FRAMES_HUGE

static uint64_t get(struct frames_box *box, unsigned local, unsigned order)
{
	uint64_t frame = MORSEL_FRAMES_NONE;

	assert_int_equal(morsel_frames_get(&box->f, local, order, MORSEL_FRAMES_MOVABLE, 0, &frame),
			 0);
	return frame;
}

static int put(struct frames_box *box, unsigned local, uint64_t frame, unsigned order)
{
	return morsel_frames_put(&box->f, local, frame, order, 0);
}

static uint64_t free_frames(const struct frames_box *box)
{
	struct morsel_frames_stat stat;

	morsel_frames_stat_exact(&box->f, &stat);
	return stat.free;
}

static int refused(struct frames_box *box, unsigned local, unsigned order)
{
	uint64_t frame;

	return morsel_frames_get(&box->f, local, order, MORSEL_FRAMES_MOVABLE, 0, &frame);
}

/* ---- Transitions ----------------------------------------------------------------------------- */

static const uint32_t some_flags[] = {
	0,	     CHILD_HUGE,   CHILD_FILLED,
	CHILD_DIRTY, CHILD_ABSENT, CHILD_RESERVED | 7u << CHILD_OWNER_AT};

/* Every step, on every count and every flag: it refuses and changes nothing, or keeps the sum. */
static void test_child_steps(void **state)
{
	for (size_t i = 0; i < 6; i++)
		for (unsigned used = 0; used <= CHILD_USED_MAX; used++)
			for (unsigned n = 1; n <= CHILD_FRAMES; n *= 2) {
				struct child v = {some_flags[i] | used}, to = v;

				if (child_take(&to, n)) {
					assert_int_equal(child_used(to), used + n);
					assert_true(used + n <= CHILD_FRAMES);
					assert_true(child_give(&to, n));
				}
				assert_int_equal(to.raw, v.raw);
				if (child_steal(&to, n))
					assert_true(child_give(&to, n));
				assert_int_equal(to.raw, v.raw);
				if (child_give(&to, n))
					assert_int_equal(child_used(to), used - n);
				else
					assert_true(used < n || child_is(v, CHILD_FILLED));
			}
}

static void test_child_reserve(void **state)
{
	for (unsigned used = 0; used <= CHILD_FRAMES; used++) {
		struct child v = {used | CHILD_DIRTY}, was = v;
		unsigned own = CHILD_FRAMES - used;

		assert_int_equal(child_reserve(&v, 4095), used < CHILD_FRAMES);
		if (used == CHILD_FRAMES)
			continue;
		assert_true(child_owned_by(v, 4095));
		assert_false(child_owned_by(v, 4094));
		assert_false(child_reserve(&v, 1));
		assert_false(child_whole(v));
		assert_false(child_partial(v));
		assert_false(child_release(&v, own << 16 | 4094));
		assert_true(child_release(&v, own << 16 | 4095));
		assert_int_equal(v.raw, was.raw);
	}
}

/* The owner and the others settle: own - used is the same before and after, own is never negative.
 */
static void test_child_sync(void **state)
{
	for (unsigned own = 0; own <= CHILD_FRAMES; own++)
		for (unsigned used = own; used <= 2 * CHILD_FRAMES; used++) {
			struct child v = {CHILD_RESERVED | used};
			unsigned settled = child_settled(own, used);

			if (!child_sync(&v, own)) {
				assert_int_equal(settled, own);
				continue;
			}
			assert_true(settled <= CHILD_FRAMES);
			assert_int_equal((int)settled - (int)child_used(v), (int)own - (int)used);
		}
}

static void test_child_huge(void **state)
{
	struct child v = {CHILD_DIRTY};

	assert_true(child_get_huge(&v, 0));
	assert_true(child_is(v, CHILD_HUGE) && child_is(v, CHILD_DIRTY));
	assert_false(child_get_huge(&v, 0));
	assert_false(child_take(&v, 1));
	assert_false(child_steal(&v, 1));
	assert_true(child_put_huge(&v, 0));
	assert_true(child_whole(v) && child_is(v, CHILD_FILLED) && !child_is(v, CHILD_DIRTY));
	assert_false(child_put_huge(&v, 0));
	assert_true(child_get_huge(&v, 0));
	assert_true(child_split(&v, 0));
	assert_false(child_split(&v, 0));
	assert_int_equal(v.raw, CHILD_FRAMES);
	assert_false(child_put_huge(&v, 0));
}

/* The tree's fields under any order of additions, below zero in between. */
static void test_tree_fields(void **state)
{
	for (int whole = -3; whole <= 32; whole++)
		for (int partial = -3; partial <= 32; partial++) {
			struct tree t = {TREE_ONLINE | TREE_KNOWN | (uint64_t)2 << TREE_KIND_AT};

			t.raw += (uint64_t)(int64_t)partial * TREE_PARTIAL;
			t.raw += (uint64_t)(int64_t)whole * TREE_NOT_WHOLE;
			assert_int_equal(tree_not_whole(t), whole);
			assert_int_equal(tree_partial(t), partial);
			assert_true(tree_online(t));
			assert_int_equal(tree_kind(t), whole > 0 ? 2 : 0);
			assert_true(tree_set_kind(&t, 3));
			assert_int_equal(tree_not_whole(t), whole);
			assert_int_equal(tree_partial(t), partial);
		}
}

static void test_word_blocks(void **state)
{
	uint64_t rng = test_seed();

	for (unsigned i = 0; i < 20000; i++) {
		uint64_t word = test_random(&rng) & test_random(&rng) & test_random(&rng);

		for (unsigned order = 0; order <= 6; order++) {
			uint64_t blocks = 0, mask = word_mask(order);

			for (unsigned at = 0; at < 64; at += 1u << order)
				if (!(word & mask << at))
					blocks |= (uint64_t)1 << at;
			assert_int_equal(word_blocks(word, order), blocks);
		}
		assert_int_equal(word_count(word), __builtin_popcountll(word));
	}
}

/* ---- Misuse ---------------------------------------------------------------------------------- */

static void test_wrong_puts(void **state)
{
	struct frames_box box;
	uint64_t frame, huge, before;

	box_make(&box, 2 * TREE, 4, TREE + 3 * HUGE, 0);
	frame = get(&box, 0, 0);
	huge = get(&box, 0, 9);
	before = free_frames(&box);
	assert_int_equal(put(&box, 0, frame + 1, 0), -ENOENT);
	assert_int_equal(put(&box, 0, frame, 1), -ENOENT);
	assert_int_equal(put(&box, 0, huge + 1, 1), -EINVAL);
	assert_int_equal(put(&box, 0, huge, 10), huge % 1024 ? -EINVAL : -ENOENT);
	assert_int_equal(put(&box, 0, huge, 19), -EINVAL);
	assert_int_equal(put(&box, 0, huge, 64), -EINVAL);
	assert_int_equal(put(&box, 4, frame, 0), -EINVAL);
	assert_int_equal(put(&box, 0, 2 * TREE, 0), -EINVAL);
	assert_int_equal(put(&box, 0, UINT64_MAX, 0), -EINVAL);
	assert_int_equal(put(&box, 0, TREE + 3 * HUGE, 0), -EINVAL);
	assert_int_equal(put(&box, 0, TREE + 3 * HUGE, 9), -EINVAL);
	assert_int_equal(free_frames(&box), before);
	box_valid(&box);
	assert_int_equal(put(&box, 0, huge, 9), 0);
	assert_int_equal(put(&box, 0, huge, 9), -ENOENT);
	assert_int_equal(put(&box, 0, huge, 0), -ENOENT);
	assert_int_equal(put(&box, 0, frame, 0), 0);
	assert_int_equal(put(&box, 1, frame, 0), -ENOENT);
	assert_int_equal(free_frames(&box), TREE + 3 * HUGE);
	box_valid(&box);
	box_free(&box);
}

/* A wrong put of each order beside each allocation, in a child that is otherwise full. */
static void test_wrong_put_orders(void **state)
{
	struct frames_box box;

	box_make(&box, HUGE, 2, HUGE, 0);
	for (unsigned hole = 0; hole < HUGE; hole += 37) {
		uint64_t huge = get(&box, 0, 9);

		assert_int_equal(put(&box, 0, huge + hole, 0), 0);
		for (unsigned order = 0; order <= 9; order++) {
			uint64_t at = hole & ~((1u << order) - 1);

			assert_int_equal(put(&box, 1, at, order), -ENOENT);
			assert_int_equal(free_frames(&box), 1);
			box_valid(&box);
		}
		assert_int_equal(morsel_frames_get_at(&box.f, 1, hole, 0, 0), 0);
		assert_int_equal(put(&box, 0, huge, 9), 0);
		box_valid(&box);
	}
	box_free(&box);
}

static void test_wrong_gets(void **state)
{
	struct morsel_frames_want want = {.near_set = true, .near = TREE};
	struct morsel_frames_got got;
	struct frames_box box;
	uint64_t frame, out[4];

	box_make(&box, TREE, 1, TREE, 0);
	assert_int_equal(morsel_frames_get(&box.f, 1, 0, 0, 0, &frame), -EINVAL);
	assert_int_equal(morsel_frames_get(&box.f, 0, 19, 0, 0, &frame), -EINVAL);
	assert_int_equal(morsel_frames_get(&box.f, 0, 0, MORSEL_FRAMES_CLASSES, 0, &frame),
			 -EINVAL);
	assert_int_equal(morsel_frames_get_at(&box.f, 0, 1, 1, 0), -EINVAL);
	assert_int_equal(morsel_frames_get_at(&box.f, 0, TREE, 0, 0), -EINVAL);
	assert_int_equal(morsel_frames_get_want(&box.f, 0, &want, &got), -EINVAL);
	assert_int_equal(morsel_frames_get_many(&box.f, 0, 0, 0, 0, out), -EINVAL);
	assert_int_equal(free_frames(&box), TREE);
	box_free(&box);
}

/* ---- No false out-of-memory ------------------------------------------------------------------ */

/*
 * Every local but one takes a frame and sits on its reservation and its pocket; then the last one
 * must be able to get every frame that is left, for every order.
 */
static void test_idle_locals(void **state)
{
	for (unsigned order = 0; order <= 9; order++) {
		struct frames_box box;
		struct model model;
		uint64_t frame;

		box_make(&box, TREE, 64, TREE, 0);
		model_make(&model, TREE, false);
		for (unsigned local = 0; local < 60; local++) {
			uint64_t kept, back;

			assert_int_equal(morsel_frames_get(&box.f, local, 0, local % 2, 0, &kept),
					 0);
			assert_int_equal(morsel_frames_get(&box.f, local, 0, local % 2, 0, &back),
					 0);
			model_take(&model, kept, 0);
			/* Into the pocket of the neighbour. */
			assert_int_equal(morsel_frames_put(&box.f, (local + 1) % 60, back, 0, 0),
					 0);
		}
		while (!morsel_frames_get(&box.f, 63, order, MORSEL_FRAMES_MOVABLE, 0, &frame))
			model_take(&model, frame, order);
		assert_false(model_has(&model, order));
		model_check(&model, &box.f);
		model_free(&model);
		box_free(&box);
	}
}

/* A child that an idle local has reserved and that is wholly free is one huge frame for others. */
static void test_steal_huge(void **state)
{
	struct frames_box box;
	uint64_t frame, huge;

	box_make(&box, 2 * HUGE, 2, 2 * HUGE, 0);
	frame = get(&box, 0, 0);
	assert_int_equal(put(&box, 0, frame, 0), 0);
	huge = get(&box, 1, 10);
	assert_int_equal(huge, 0);
	assert_int_equal(refused(&box, 0, 0), -ENOMEM);
	box_valid(&box);
	assert_int_equal(put(&box, 0, 3, 0), 0);
	assert_int_equal(get(&box, 0, 0), 3);
	assert_int_equal(put(&box, 1, huge, 10), 0);
	assert_int_equal(free_frames(&box), 2 * HUGE);
	box_valid(&box);
	box_free(&box);
}

/* Whoever frees: 60 wholly free huge frames are 60 huge frames. */
static void test_freed_by_another(void **state)
{
	static uint64_t frames[64 * HUGE];
	struct frames_box box;
	uint64_t frame;
	unsigned served = 0;

	box_make(&box, 64 * HUGE, 3, 64 * HUGE, 0);
	for (unsigned i = 0; i < 64 * HUGE; i++)
		frames[i] = get(&box, 0, 0);
	for (unsigned i = 0; i < 64 * HUGE; i++)
		if (frames[i] >= 4 * HUGE)
			assert_int_equal(put(&box, 1, frames[i], 0), 0);
	while (!morsel_frames_get(&box.f, 2, 9, MORSEL_FRAMES_HUGE_CLASS, 0, &frame))
		served++;
	assert_int_equal(served, 60);
	box_valid(&box);
	box_free(&box);
}

/* ---- Runs of huge frames --------------------------------------------------------------------- */

/*
 * For every order and every child of the run that is not to be had: the claim fails and everything
 * is as it was; nothing that somebody has was freed.
 */
static void test_run_undo(void **state)
{
	for (unsigned order = 10; order <= 15; order++) {
		unsigned count = 1u << (order - 9);
		struct frames_box box;

		box_make(&box, (uint64_t)count * HUGE, 2, (uint64_t)count * HUGE, 0);
		for (unsigned taken = 0; taken < count; taken += 1 + count / 16) {
			uint64_t at = (uint64_t)taken * HUGE + 5;

			assert_int_equal(morsel_frames_get_at(&box.f, 0, at, 0, 0), 0);
			assert_int_equal(refused(&box, 1, order), -ENOMEM);
			assert_int_equal(morsel_frames_get_at(&box.f, 1, 0, order, 0), -EBUSY);
			assert_int_equal(free_frames(&box), (uint64_t)count * HUGE - 1);
			assert_true(morsel_frames_is_allocated(&box.f, at, 0));
			box_valid(&box);
			assert_int_equal(put(&box, 0, at, 0), 0);
		}
		assert_int_equal(get(&box, 1, order), 0);
		assert_int_equal(put(&box, 1, 7, 0), 0);
		assert_int_equal(put(&box, 1, 0, order), -ENOENT);
		box_valid(&box);
		box_free(&box);
	}
}

/* ---- Attach, recover, init allocated --------------------------------------------------------- */

static void test_attach(void **state)
{
	struct morsel_frames other;
	struct frames_box box;
	uint64_t mine, theirs;
	void *again;

	box_make(&box, TREE, 2, TREE, 0);
	mine = get(&box, 0, 0);
	/* Another address of the same memory. */
	again = mremap(box.block, 0, box.bytes, MREMAP_MAYMOVE);
	assert_ptr_not_equal(again, MAP_FAILED);
	assert_int_equal(morsel_frames_attach(&other, again, box.bytes), 0);
	assert_int_equal(morsel_frames_get(&other, 1, 0, 0, 0, &theirs), 0);
	assert_int_not_equal(mine, theirs);
	assert_int_equal(get(&box, 0, 0), mine + 1);
	assert_int_equal(morsel_frames_put(&other, 1, mine, 0, 0), 0);
	assert_int_equal(put(&box, 0, theirs, 0), 0);
	box_valid(&box);
	assert_int_equal(morsel_frames_init(&other, again, box.bytes, TREE, 2, 0, 0, NULL),
			 -EEXIST);
	munmap(again, box.bytes);
	box_free(&box);
}

static void test_attach_refuses(void **state)
{
	struct morsel_frames other;
	struct frames_box box;
	uint64_t *magic;
	uint32_t *words;

	box_reserve(&box, TREE, 2);
	magic = box.block;
	words = box.block;
	assert_int_equal(morsel_frames_attach(&other, box.block, box.bytes), -EINVAL);
	assert_int_equal(morsel_frames_init(&box.f, box.block, box.bytes, TREE, 2, TREE, 0, NULL),
			 0);
	assert_int_equal(morsel_frames_attach(&other, box.block, box.bytes - 1), -EINVAL);
	assert_int_equal(morsel_frames_attach(&other, (char *)box.block + 8, box.bytes), -EINVAL);
	words[2]++;
	assert_int_equal(morsel_frames_attach(&other, box.block, box.bytes), -EPROTONOSUPPORT);
	words[2]--;
	words[3] = 5000;
	assert_int_equal(morsel_frames_attach(&other, box.block, box.bytes), -EINVAL);
	words[3] = 2;
	magic[2] = UINT64_MAX;
	assert_int_equal(morsel_frames_attach(&other, box.block, box.bytes), -EINVAL);
	box_free(&box);
}

static void test_recover(void **state)
{
	uint64_t rng = test_seed();
	struct frames_box box;
	struct model model;

	box_make(&box, 2 * TREE, 8, 2 * TREE, 0);
	model_make(&model, 2 * TREE, false);
	for (unsigned i = 0; i < 3000; i++) {
		uint64_t frame;
		unsigned order = test_random(&rng) % 10;

		if (!morsel_frames_get(&box.f, i % 8, order, i % 3, 0, &frame))
			model_take(&model, frame, order);
		frame = test_random(&rng) % (2 * TREE);
		if (!morsel_frames_put(&box.f, i % 8, frame, 0, 0))
			model_give(&model, frame, 0);
	}
	/* Whatever the counters say. */
	for (unsigned i = 0; i < 64; i++)
		box.f.children[i] ^= test_random(&rng) % 2 * (test_random(&rng) % 512);
	for (unsigned i = 0; i < 2; i++)
		box.f.trees[i] += test_random(&rng) % 100;
	for (unsigned i = 0; i < 64; i++)
		if (box.f.children[i] & (CHILD_HUGE | CHILD_FILLED))
			box.f.children[i] &= ~CHILD_USED;
	morsel_frames_recover(&box.f);
	model_check(&model, &box.f);
	model_free(&model);
	box_free(&box);
}

static void test_init_allocated(void **state)
{
	struct frames_box box;

	box_make(&box, 2 * TREE, 2, TREE + HUGE, MORSEL_FRAMES_ALLOCATED);
	assert_int_equal(free_frames(&box), 0);
	assert_int_equal(refused(&box, 0, 0), -ENOMEM);
	assert_int_equal(put(&box, 0, 17, 0), 0);
	assert_int_equal(get(&box, 1, 0), 17);
	assert_int_equal(put(&box, 0, HUGE, 9), 0);
	assert_int_equal(put(&box, 0, TREE, 9), 0);
	assert_int_equal(free_frames(&box), 2 * HUGE);
	box_valid(&box);
	box_free(&box);
}

/* ---- Online and offline ---------------------------------------------------------------------- */

static void test_online(void **state)
{
	struct frames_box box;
	uint64_t frame;

	box_make(&box, 4 * TREE, 2, 0, 0);
	assert_int_equal(refused(&box, 0, 0), -ENOMEM);
	assert_int_equal(morsel_frames_online(&box.f, HUGE, HUGE, 0), -EINVAL);
	assert_int_equal(morsel_frames_online(&box.f, 0, 0, 0), -EINVAL);
	assert_int_equal(morsel_frames_online(&box.f, 0, 4 * TREE + HUGE, 0), -EINVAL);
	assert_int_equal(morsel_frames_online(&box.f, 0, 3 * HUGE, 0), 0);
	assert_int_equal(morsel_frames_online(&box.f, 0, HUGE, 0), -EINVAL);
	assert_int_equal(free_frames(&box), 3 * HUGE);
	assert_true(morsel_frames_is_online(&box.f, 3 * HUGE - 1));
	assert_false(morsel_frames_is_online(&box.f, 3 * HUGE));
	for (unsigned i = 0; i < 3; i++)
		get(&box, 0, 9);
	assert_int_equal(refused(&box, 0, 0), -ENOMEM);
	assert_int_equal(morsel_frames_online(&box.f, 4 * HUGE, HUGE, 0), -EINVAL);
	assert_int_equal(morsel_frames_online(&box.f, 3 * HUGE, 2 * TREE - 3 * HUGE, 0), 0);
	assert_int_equal(free_frames(&box), 2 * TREE - 3 * HUGE);
	frame = get(&box, 1, 14);
	assert_int_equal(frame, TREE);
	assert_int_equal(put(&box, 0, TREE, 14), 0);
	assert_int_equal(morsel_frames_online(&box.f, 3 * TREE, TREE, 0), 0);
	assert_false(morsel_frames_is_online(&box.f, 2 * TREE));
	assert_int_equal(put(&box, 0, 2 * TREE, 0), -EINVAL);
	assert_int_equal(morsel_frames_get_at(&box.f, 0, 2 * TREE, 0, 0), -EINVAL);
	box_valid(&box);
	box_free(&box);
}

static void test_offline(void **state)
{
	struct frames_box box;
	uint64_t frame;

	box_make(&box, 2 * TREE + 4 * HUGE, 2, 2 * TREE + 4 * HUGE, 0);
	assert_int_equal(morsel_frames_offline(&box.f, HUGE, TREE), -EINVAL);
	assert_int_equal(morsel_frames_offline(&box.f, 0, HUGE), -EINVAL);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(morsel_frames_get_at(&box.f, 0, TREE + 77, 0, 0), 0);
		assert_int_equal(morsel_frames_offline(&box.f, 0, 2 * TREE), -EBUSY);
		assert_int_equal(free_frames(&box), 2 * TREE + 4 * HUGE - 1);
		box_valid(&box);
		assert_int_equal(put(&box, 0, TREE + 77, 0), 0);
	}
	/* A reservation and a pocket do not keep a tree. */
	frame = get(&box, 1, 0);
	assert_int_equal(put(&box, 0, frame, 0), 0);
	assert_int_equal(morsel_frames_offline(&box.f, 0, TREE), 0);
	assert_int_equal(free_frames(&box), TREE + 4 * HUGE);
	assert_int_equal(put(&box, 0, 5, 0), -EINVAL);
	assert_int_equal(morsel_frames_offline(&box.f, 0, TREE), -EINVAL);
	while (!morsel_frames_get(&box.f, 1, 0, 0, 0, &frame))
		assert_true(frame >= TREE);
	box_valid(&box);
	assert_int_equal(morsel_frames_online(&box.f, 0, TREE, 0), 0);
	assert_int_equal(free_frames(&box), TREE);
	box_valid(&box);
	for (unsigned i = 0; i < TREE; i++)
		assert_true(get(&box, 0, 0) < TREE);
	assert_int_equal(refused(&box, 0, 0), -ENOMEM);
	box_valid(&box);
	box_free(&box);
}

/* ---- Zeroed ---------------------------------------------------------------------------------- */

static bool got_zero(struct frames_box *box, unsigned order, uint64_t *frame)
{
	struct morsel_frames_want want = {.order = order};
	struct morsel_frames_got got;

	assert_int_equal(morsel_frames_get_want(&box->f, 0, &want, &got), 0);
	*frame = got.frame;
	return got.zero;
}

static void test_zero(void **state)
{
	struct frames_box box;
	uint64_t frame, other;

	box_make(&box, HUGE, 1, HUGE, 0);
	assert_true(got_zero(&box, 0, &frame));
	assert_int_equal(morsel_frames_put(&box.f, 0, frame, 0, MORSEL_FRAMES_PUT_ZERO), 0);
	assert_true(got_zero(&box, 0, &frame));
	assert_int_equal(put(&box, 0, frame, 0), 0);
	assert_false(got_zero(&box, 0, &other));
	assert_int_equal(morsel_frames_put(&box.f, 0, other, 0, MORSEL_FRAMES_PUT_ZERO), 0);
	assert_false(got_zero(&box, 9, &frame));
	assert_int_equal(morsel_frames_put(&box.f, 0, frame, 9, MORSEL_FRAMES_PUT_ZERO), 0);
	assert_true(got_zero(&box, 9, &frame));
	assert_int_equal(put(&box, 0, frame, 9), 0);
	assert_false(got_zero(&box, 9, &frame));
	box_free(&box);
	box_make(&box, HUGE, 1, HUGE, MORSEL_FRAMES_UNZEROED);
	assert_false(got_zero(&box, 9, &frame));
	box_free(&box);
}

/* ---- Policy ---------------------------------------------------------------------------------- */

/* Immovable frames keep to themselves while there is room. */
static void test_classes_apart(void **state)
{
	struct frames_box box;
	uint64_t frame, movable_tree, immovable_tree;

	box_make(&box, 4 * TREE, 2, 4 * TREE, 0);
	movable_tree = get(&box, 0, 0) / TREE;
	assert_int_equal(morsel_frames_get(&box.f, 0, 0, MORSEL_FRAMES_IMMOVABLE, 0, &frame), 0);
	immovable_tree = frame / TREE;
	assert_int_not_equal(movable_tree, immovable_tree);
	for (unsigned i = 0; i < TREE - 1; i++) {
		assert_int_equal(get(&box, 0, 0) / TREE, movable_tree);
		assert_int_equal(
			morsel_frames_get(&box.f, 0, 0, MORSEL_FRAMES_IMMOVABLE, 0, &frame), 0);
		assert_int_equal(frame / TREE, immovable_tree);
	}
	assert_int_equal(morsel_frames_get(&box.f, 0, 9, MORSEL_FRAMES_HUGE_CLASS, 0, &frame), 0);
	assert_int_not_equal(frame / TREE, movable_tree);
	assert_int_not_equal(frame / TREE, immovable_tree);
	box_free(&box);
}

static void test_policy_never(void **state)
{
	struct morsel_frames_policy policy = {
		{{0, 0, 255, 255}, {0, 255, 0, 255}, {0, 255, 255, 0}}};
	struct frames_box box;
	uint64_t frame;

	box_reserve(&box, TREE, 1);
	assert_int_equal(
		morsel_frames_init(&box.f, box.block, box.bytes, TREE, 1, TREE, 0, &policy), 0);
	get(&box, 0, 0);
	assert_int_equal(morsel_frames_get(&box.f, 0, 0, MORSEL_FRAMES_IMMOVABLE, 0, &frame),
			 -ENOMEM);
	box_free(&box);
}

/* ---- Metadata -------------------------------------------------------------------------------- */

static void test_metadata_size(void **state)
{
	uint64_t capacity;

	for (capacity = HUGE; capacity <= (uint64_t)1 << 32; capacity *= 3)
		assert_true(morsel_frames_metadata_bytes(capacity, MORSEL_FRAMES_LOCALS_MAX) <=
			    capacity * 4096 / 5000 + (2 << 20));
	assert_int_equal(morsel_frames_metadata_bytes(HUGE - 1, 1), 0);
	assert_int_equal(morsel_frames_metadata_bytes(HUGE, 0), 0);
	assert_int_equal(morsel_frames_metadata_bytes(HUGE, 4097), 0);
	assert_int_equal(morsel_frames_metadata_bytes(MORSEL_FRAMES_CAPACITY_MAX + 1, 1), 0);
}

/* Only what the ranges name is touched: everything else has no access. */
static void test_metadata_ranges(void **state)
{
	const uint64_t capacity = 1024 * TREE, first = 512, count = 64;
	struct morsel_frames_bytes ranges[3];
	struct frames_box box;
	uint64_t frame;

	box_reserve(&box, capacity, 4);
	assert_int_equal(mprotect(box.block, box.bytes, PROT_NONE), 0);
	assert_int_equal(morsel_frames_metadata_ranges(capacity, 4, first, count, ranges), 0);
	for (unsigned i = 0; i < 3; i++) {
		char *from = (char *)box.block + (ranges[i].offset & ~4095ull);
		char *to = (char *)box.block + ranges[i].offset + ranges[i].bytes;

		assert_true(ranges[i].offset + ranges[i].bytes <= box.bytes);
		assert_int_equal(mprotect(from, (size_t)(to - from), PROT_READ | PROT_WRITE), 0);
	}
	assert_int_equal(morsel_frames_init(&box.f, box.block, box.bytes, capacity, 4, 0, 0, NULL),
			 0);
	assert_int_equal(morsel_frames_online(&box.f, first * TREE, count * TREE, 0), 0);
	for (unsigned order = 0; order <= 18; order++)
		if (!morsel_frames_get(&box.f, order % 4, order, order % 3, 0, &frame))
			assert_int_equal(put(&box, 0, frame, order), 0);
	assert_int_equal(put(&box, 0, 0, 0), -EINVAL);
	assert_false(morsel_frames_is_free(&box.f, 0, 0));
	assert_int_equal(free_frames(&box), count * TREE);
	while (!morsel_frames_get(&box.f, 3, 9, 0, 0, &frame))
		;
	assert_int_equal(refused(&box, 0, 0), -ENOMEM);
	box_valid(&box);
	assert_int_equal(morsel_frames_metadata_ranges(capacity, 4, 1024, 1, ranges), -EINVAL);
	box_free(&box);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_child_steps),    cmocka_unit_test(test_child_reserve),
		cmocka_unit_test(test_child_sync),     cmocka_unit_test(test_child_huge),
		cmocka_unit_test(test_tree_fields),    cmocka_unit_test(test_word_blocks),
		cmocka_unit_test(test_wrong_puts),     cmocka_unit_test(test_wrong_put_orders),
		cmocka_unit_test(test_wrong_gets),     cmocka_unit_test(test_idle_locals),
		cmocka_unit_test(test_steal_huge),     cmocka_unit_test(test_freed_by_another),
		cmocka_unit_test(test_run_undo),       cmocka_unit_test(test_attach),
		cmocka_unit_test(test_attach_refuses), cmocka_unit_test(test_recover),
		cmocka_unit_test(test_init_allocated), cmocka_unit_test(test_online),
		cmocka_unit_test(test_offline),	       cmocka_unit_test(test_zero),
		cmocka_unit_test(test_classes_apart),  cmocka_unit_test(test_policy_never),
		cmocka_unit_test(test_metadata_size),  cmocka_unit_test(test_metadata_ranges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
