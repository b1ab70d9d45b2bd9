/*
 * The frame allocator against an array of booleans.
 *
 * Every step is done on both: random gets of all orders, exact frames, batches, partial puts, wrong
 * puts. A get may answer -ENOMEM only if the array has no aligned free run of that order. Several
 * locals take turns, so that each get meets the reservations of idle others.
 */
#include "frame_model.h"

#define LOCALS 5

static struct model model;
static uint64_t rng;

/* An allocated or random frame at which to aim, aligned to the order. */
static uint64_t aim(unsigned order)
{
	uint64_t frame = test_random(&rng) % model.frames;

	return frame & ~(((uint64_t)1 << order) - 1);
}

/* What a block that reaches past the end is refused with, and any other. */
static int refusal(uint64_t frame, unsigned order, int within)
{
	return frame + ((uint64_t)1 << order) > model.frames ? -EINVAL : within;
}

static unsigned some_order(unsigned max)
{
	unsigned die = test_random(&rng) % 16;

	if (die < 8)
		return 0;
	return test_random(&rng) % (max + 1);
}

static void step_get(struct morsel_frames *f, unsigned local, unsigned max)
{
	unsigned order = some_order(max);
	uint64_t frame = 12345;
	int error = morsel_frames_get(f, local, order, test_random(&rng) % 3, 0, &frame);

	if (error) {
		assert_int_equal(error, -ENOMEM);
		assert_int_equal(frame, 12345);
		assert_false(model_has(&model, order));
		return;
	}
	model_take(&model, frame, order);
}

static void step_get_at(struct morsel_frames *f, unsigned local, unsigned max)
{
	unsigned order = some_order(max);
	uint64_t frame = aim(order);
	bool free = model_all(&model, frame, order, false);
	int error = morsel_frames_get_at(f, local, frame, order, 0);

	assert_int_equal(error, free ? 0 : refusal(frame, order, -EBUSY));
	if (free)
		model_take(&model, frame, order);
}

static void step_get_want(struct morsel_frames *f, unsigned local, unsigned max)
{
	struct morsel_frames_want want = {.order = some_order(max), .cls = test_random(&rng) % 3};
	struct morsel_frames_got got;
	uint64_t end;
	int error;

	if (test_random(&rng) % 2) {
		want.near_set = true;
		want.near = test_random(&rng) % model.frames;
	}
	if (test_random(&rng) % 2) {
		want.first = test_random(&rng) % model.frames;
		want.end = want.first + 1 + test_random(&rng) % model.frames;
	}
	end = want.end && want.end < model.frames ? want.end : model.frames;
	error = morsel_frames_get_want(f, local, &want, &got);
	if (error) {
		assert_int_equal(error, -ENOMEM);
		assert_false(model_has_in(&model, want.order, want.first, end));
		return;
	}
	assert_true(got.frame >= want.first && got.frame + (1u << want.order) <= end);
	model_take(&model, got.frame, want.order);
}

static void step_put(struct morsel_frames *f, unsigned local, unsigned max)
{
	unsigned order = some_order(max);
	uint64_t frame = aim(order);
	bool used = model_all(&model, frame, order, true);
	int error = morsel_frames_put(f, local, frame, order, 0);

	assert_int_equal(error, used ? 0 : refusal(frame, order, -ENOENT));
	if (used)
		model_give(&model, frame, order);
}

/* Puts what is there, so that the fill goes up and down. */
static void step_put_found(struct morsel_frames *f, unsigned local, unsigned max)
{
	for (unsigned order = max + 1; order--;) {
		uint64_t frame = aim(order);

		if (!model_all(&model, frame, order, true))
			continue;
		assert_int_equal(morsel_frames_put(f, local, frame, order, 0), 0);
		model_give(&model, frame, order);
		return;
	}
}

static void step_many(struct morsel_frames *f, unsigned local)
{
	uint64_t out[MORSEL_FRAMES_HUGE];
	unsigned n = 1 + test_random(&rng) % MORSEL_FRAMES_HUGE;
	int got = morsel_frames_get_many(f, local, test_random(&rng) % 3, 0, n, out);

	if (got < 0) {
		assert_int_equal(got, -ENOMEM);
		assert_false(model_has(&model, 0));
		return;
	}
	assert_in_range(got, 1, n);
	for (int i = 0; i < got; i++)
		model_take(&model, out[i], 0);
	if (test_random(&rng) % 2) {
		size_t done;

		assert_int_equal(morsel_frames_put_many(f, local, out, got, 0, &done), 0);
		assert_int_equal(done, got);
		for (int i = 0; i < got; i++)
			model_give(&model, out[i], 0);
	}
}

static void step(struct morsel_frames *f, unsigned max, unsigned eagerness)
{
	unsigned local = test_random(&rng) % LOCALS, die = test_random(&rng) % 100;

	if (die < eagerness)
		step_get(f, local, max);
	else if (die < eagerness + 5)
		step_get_at(f, local, max);
	else if (die < eagerness + 10)
		step_get_want(f, local, max);
	else if (die < eagerness + 13)
		step_many(f, local);
	else if (die < eagerness + 20)
		step_put(f, local, max);
	else if (die < 99)
		step_put_found(f, local, max);
	else
		assert_int_equal(morsel_frames_return_local(f, local), 0);
}

static void run_model(uint64_t capacity, unsigned max, uint64_t steps, unsigned flags)
{
	struct frames_box box;

	box_make(&box, capacity, LOCALS, capacity, flags);
	model_make(&model, box.f.capacity, flags & MORSEL_FRAMES_ALLOCATED);
	for (uint64_t i = 0; i < steps; i++) {
		step(&box.f, max, i / 2000 % 2 ? 20 : 60);
		if (i % (steps / 20 + 1) == 0)
			model_check(&model, &box.f);
	}
	model_check(&model, &box.f);
	model_free(&model);
	box_free(&box);
}

static void test_one_tree(void **state)
{
	rng = test_seed();
	run_model(MORSEL_FRAMES_TREE, 14, COUNT_FRAME_MODEL_STEPS / 4, 0);
}

static void test_uneven_capacity(void **state)
{
	rng = test_seed();
	run_model(3 * MORSEL_FRAMES_TREE + 7 * MORSEL_FRAMES_HUGE + 100, 13,
		  COUNT_FRAME_MODEL_STEPS / 4, 0);
}

static void test_two_children(void **state)
{
	rng = test_seed();
	run_model(2 * MORSEL_FRAMES_HUGE, 10, COUNT_FRAME_MODEL_STEPS / 4, 0);
}

static void test_starts_allocated(void **state)
{
	rng = test_seed();
	run_model(2 * MORSEL_FRAMES_TREE, 15, COUNT_FRAME_MODEL_STEPS / 16,
		  MORSEL_FRAMES_ALLOCATED);
}

static void test_giants(void **state)
{
	rng = test_seed();
	run_model(34 * MORSEL_FRAMES_TREE, 18, COUNT_FRAME_MODEL_STEPS / 100, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_tree),     cmocka_unit_test(test_uneven_capacity),
		cmocka_unit_test(test_two_children), cmocka_unit_test(test_starts_allocated),
		cmocka_unit_test(test_giants),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
