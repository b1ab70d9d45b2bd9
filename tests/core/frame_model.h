/*
 * What the frame tests share: an allocator in a block of private or shared memory, and the model
 * beside it, one boolean per frame, that anyone can check.
 */
#ifndef TESTS_CORE_FRAME_MODEL_H
#define TESTS_CORE_FRAME_MODEL_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include <morsel/frame.h>

#include "support/counts.h"

struct frames_box {
	struct morsel_frames f;
	void *block;
	size_t bytes;
};

/* A block of shared anonymous memory, so that forked children see the same allocator. */
static inline void box_reserve(struct frames_box *box, uint64_t capacity, unsigned locals)
{
	box->bytes = morsel_frames_metadata_bytes(capacity, locals);
	assert_int_not_equal(box->bytes, 0);
	box->block = mmap(NULL, box->bytes, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_ptr_not_equal(box->block, MAP_FAILED);
}

static inline void box_make(struct frames_box *box, uint64_t capacity, unsigned locals,
			    uint64_t online, unsigned flags)
{
	box_reserve(box, capacity, locals);
	assert_int_equal(morsel_frames_init(&box->f, box->block, box->bytes, capacity, locals,
					    online, flags, NULL),
			 0);
}

static inline void box_free(struct frames_box *box)
{
	munmap(box->block, box->bytes);
}

static inline void box_valid(const struct frames_box *box)
{
	const char *what = "";
	uint64_t where = 0;

	if (!morsel_frames_validate(&box->f, &what, &where))
		return;
	fprintf(stderr, "invalid at frame %llu: %s\n", (unsigned long long)where, what);
	fail();
}

/* used[frame] is true if somebody has it. */
struct model {
	bool *used;
	uint64_t frames;
	uint64_t count; /* how many are used */
};

static inline void model_make(struct model *m, uint64_t frames, bool used)
{
	m->used = malloc(frames);
	assert_non_null(m->used);
	memset(m->used, used, frames);
	m->frames = frames;
	m->count = used ? frames : 0;
}

static inline void model_free(struct model *m)
{
	free(m->used);
}

/* Is every frame of the block used (or free)? A block past the end is neither. */
static inline bool model_all(const struct model *m, uint64_t frame, unsigned order, bool used)
{
	uint64_t end = frame + ((uint64_t)1 << order);

	if (end > m->frames)
		return false;
	for (; frame < end; frame++)
		if (m->used[frame] != used)
			return false;
	return true;
}

static inline bool model_has_in(const struct model *m, unsigned order, uint64_t first, uint64_t end)
{
	uint64_t frames = (uint64_t)1 << order;

	for (uint64_t at = (first + frames - 1) & ~(frames - 1); at + frames <= end; at += frames)
		if (model_all(m, at, order, false))
			return true;
	return false;
}

static inline bool model_has(const struct model *m, unsigned order)
{
	return model_has_in(m, order, 0, m->frames);
}

static inline void model_take(struct model *m, uint64_t frame, unsigned order)
{
	assert_int_equal(frame & (((uint64_t)1 << order) - 1), 0);
	assert_true(model_all(m, frame, order, false));
	memset(m->used + frame, true, (size_t)1 << order);
	m->count += (uint64_t)1 << order;
}

static inline void model_give(struct model *m, uint64_t frame, unsigned order)
{
	assert_true(model_all(m, frame, order, true));
	memset(m->used + frame, false, (size_t)1 << order);
	m->count -= (uint64_t)1 << order;
}

/* The allocator says the same as the model, frame by frame and in sum, and is valid. */
static inline void model_check(const struct model *m, const struct morsel_frames *f)
{
	struct frames_box box = {.f = *f};
	struct morsel_frames_stat exact, fast;
	uint64_t whole = 0;

	box_valid(&box);
	for (uint64_t frame = 0; frame < m->frames; frame++)
		if (morsel_frames_is_allocated(f, frame, 0) != m->used[frame] ||
		    morsel_frames_is_free(f, frame, 0) == m->used[frame])
			fail_msg("frame %llu differs from the model", (unsigned long long)frame);
	for (uint64_t frame = 0; frame < m->frames; frame += MORSEL_FRAMES_HUGE)
		whole += model_all(m, frame, MORSEL_FRAMES_HUGE_ORDER, false);
	morsel_frames_stat_exact(f, &exact);
	morsel_frames_stat_fast(f, &fast);
	assert_int_equal(exact.online, m->frames);
	assert_int_equal(exact.free, m->frames - m->count);
	assert_int_equal(exact.huge_free, whole);
	assert_memory_equal(&exact, &fast, sizeof(exact));
}

#endif
