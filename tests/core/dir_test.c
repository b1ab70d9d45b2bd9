/*
 * Cells and the directory of names: one process, one thread, against brute force; limits, colliding
 * hashes, damaged memory, and the cost of a million names.
 */
#include <setjmp.h>
#include <stdarg.h>

#include "support/dir_memory.h"

#include <time.h>

#include <cmocka.h>

#include <morsel/morsel.h>

#include "pool/siphash.h"
#include "support/counts.h"

static const mrs_cell some_target = 0x0000004200000017ull;

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void assert_valid(struct mrs_cells *cells)
{
	assert_int_equal(mrs_dir_validate(cells, dir_memory_report, NULL), 0);
}

/* ---- hash ---- */

static void test_siphash_gives_the_published_values(void **state)
{
	/* From the appendix of the paper: key 00 ... 0f, input 00 ... 0e; and the empty input. */
	const uint64_t key[2] = {0x0706050403020100ull, 0x0f0e0d0c0b0a0908ull};
	unsigned char input[15];

	for (unsigned i = 0; i < sizeof(input); i++)
		input[i] = (unsigned char)i;
	assert_true(mrs_siphash(key, input, 15) == 0xa129ca6149be45e5ull);
	assert_true(mrs_siphash(key, input, 0) == 0x726fdb47dd0e0e31ull);
	assert_true(mrs_siphash(key, input, 8) == 0x93f5f5799a932462ull);
}

/* ---- cells ---- */

static void test_a_cell_goes_through_its_states(void **state)
{
	struct dir_memory *memory = dir_memory_make(64);
	struct mrs_cells cells = dir_memory_cells(memory, 1, 5);
	uint64_t note = 0, *words;
	mrs_cell cell, other;

	assert_int_equal(mrs_cell_get(&cells, NULL, &note, &cell), 0);
	assert_true(note == cell);
	assert_true(cell >> 32);
	words = mrs_cell_at(&cells, cell, MRS_CELL_CLAIMED);
	assert_non_null(words);
	assert_null(mrs_cell_at(&cells, cell, MRS_CELL_RECORD));
	for (unsigned i = 1; i < 16; i++) {
		assert_true(words[i] == 0);
		words[i] = ~0ull;
	}
	mrs_cell_commit(&cells, cell, MRS_CELL_RECORD);
	assert_true(mrs_cell_at(&cells, cell, MRS_CELL_RECORD) == words);
	assert_true(mrs_cell_is_current(&cells, cell, MRS_CELL_RECORD));
	mrs_cell_put(&cells, cell);
	mrs_cell_put(&cells, cell);
	assert_null(mrs_cell_at(&cells, cell, MRS_CELL_RECORD));
	assert_true(memory->state.cells_free == 1);
	/* The cell is used again, under another handle, and is zero again. */
	assert_int_equal(mrs_cell_get(&cells, NULL, &note, &other), 0);
	assert_true((uint32_t)other == (uint32_t)cell && other != cell);
	assert_true(mrs_cell_at(&cells, other, MRS_CELL_CLAIMED) == words);
	assert_true(words[1] == 0 && words[15] == 0);
	/* A stale handle frees nothing. */
	mrs_cell_put(&cells, cell);
	assert_non_null(mrs_cell_at(&cells, other, MRS_CELL_CLAIMED));
	assert_null(mrs_cell_at(&cells, 0, MRS_CELL_FREE));
	mrs_cell_put(&cells, 0);
	mrs_cell_put(&cells, ~0ull);
	mrs_cell_put(&cells, other);
	assert_valid(&cells);
	dir_memory_free(memory);
}

static void test_a_full_array_says_so_and_recovers(void **state)
{
	struct dir_memory *memory = dir_memory_make(8);
	struct mrs_cells cells = dir_memory_cells(memory, 1, 0);
	mrs_cell cell[8 * 32], more;
	uint64_t note = 0;

	for (unsigned i = 0; i < 8 * 32; i++)
		assert_int_equal(mrs_cell_get(&cells, NULL, &note, &cell[i]), 0);
	assert_true(memory->taken == 4 && memory->settled == 4);
	more = 1;
	assert_int_equal(mrs_cell_get(&cells, NULL, &note, &more), -ENOSPC);
	assert_true(more == 1 && note == 0);
	/* One free cell somewhere is enough. */
	mrs_cell_put(&cells, cell[77]);
	memory->state.cells_hint = 3;
	assert_int_equal(mrs_cell_get(&cells, NULL, &note, &cell[77]), 0);
	assert_int_equal(mrs_cell_get(&cells, NULL, &note, &more), -ENOSPC);
	for (unsigned i = 0; i < 8 * 32; i++)
		mrs_cell_put(&cells, cell[i]);
	assert_true(dir_memory_count(&cells, MRS_CELL_FREE) == 8 * 32);
	assert_valid(&cells);
	dir_memory_free(memory);
}

static void test_the_most_cells_that_a_handle_can_name(void **state)
{
	struct dir_memory *memory = dir_memory_make(8);
	struct mrs_cells cells = dir_memory_cells(memory, 0, 0);
	uint64_t note;
	mrs_cell cell;

	memory->state.cells_high = (uint64_t)MRS_CELL_SEGMENTS_MAX * 32;
	assert_int_equal(mrs_cell_get(&cells, NULL, &note, &cell), -ENOSPC);
	assert_non_null(strstr(morsel_errormsg(), "131072 cells"));
	dir_memory_free(memory);
}

static void get_record(struct mrs_cells *cells, mrs_cell *cell)
{
	uint64_t note;

	assert_int_equal(mrs_cell_get(cells, NULL, &note, cell), 0);
	mrs_cell_commit(cells, *cell, MRS_CELL_RECORD);
}

/* Bursts of puts and gets, so that the cell freed last is not always the next one claimed. */
static void test_idle_cells_stay_few(void **state)
{
	enum { LIVE = 4000 };
	struct dir_memory *memory = dir_memory_make(8192);
	struct mrs_cells cells = dir_memory_cells(memory, 4, 0);
	mrs_cell *cell = calloc(LIVE, sizeof(*cell));
	uint64_t seed = test_seed();
	double start;

	for (unsigned i = 0; i < LIVE; i++)
		get_record(&cells, &cell[i]);
	start = now_us();
	for (unsigned step = 0; step < 100000; step++) {
		unsigned burst = 1 + (unsigned)(test_random(&seed) % 8);
		unsigned from = (unsigned)(test_random(&seed) % LIVE);

		for (unsigned i = 0; i < burst; i++)
			mrs_cell_put(&cells, cell[(from + i) % LIVE]);
		for (unsigned i = 0; i < burst; i++)
			get_record(&cells, &cell[(from + i) % LIVE]);
	}
	printf("%d live cells, %llu in the array after churn, %.2f us a put and get\n", LIVE,
	       (unsigned long long)memory->state.cells_high, (now_us() - start) / 450000);
	assert_true(memory->state.cells_high <= LIVE + LIVE / 4);
	assert_valid(&cells);
	free(cell);
	dir_memory_free(memory);
}

/* A process of its own for each create and remove: the array must not grow for ever. */
static void test_short_lived_processes_reuse_cells(void **state)
{
	struct dir_memory *memory = dir_memory_make(256);
	mrs_cell dirent;
	uint64_t note;

	for (unsigned i = 0; i < 5000; i++) {
		struct mrs_cells cells = dir_memory_cells(memory, 1, i % 500);
		char name[32];

		sprintf(name, "passing-%u", i);
		assert_int_equal(dir_memory_create(&cells, name, some_target, &note, &dirent), 0);
		assert_int_equal(mrs_dir_unlink(&cells, dirent), 0);
		mrs_dirent_free(&cells, dirent);
	}
	assert_true(memory->state.cells_high < 64);
	dir_memory_free(memory);
}

/* ---- names ---- */

static void test_names_that_are_none(void **state)
{
	struct dir_memory *memory = dir_memory_make(64);
	struct mrs_cells cells = dir_memory_cells(memory, 1, 0);
	char longest[257];
	mrs_cell dirent = 9, target = 9;
	uint64_t note = 7;

	memset(longest, 'x', sizeof(longest));
	longest[255] = 0;
	assert_int_equal(mrs_dir_check_name(longest), 0);
	longest[255] = 'x';
	longest[256] = 0;
	assert_int_equal(mrs_dir_check_name(longest), -ENAMETOOLONG);
	assert_int_equal(mrs_dir_check_name(""), -EINVAL);
	assert_int_equal(mrs_dir_check_name(NULL), -EINVAL);
	assert_int_equal(mrs_dir_check_name("a/b"), -EINVAL);
	assert_int_equal(mrs_dir_check_name("a\nb"), -EINVAL);
	assert_int_equal(mrs_dir_check_name("\x7f"), -EINVAL);
	assert_int_equal(mrs_dir_check_name("\xc3\xa4 name with spaces ~"), 0);
	assert_int_equal(mrs_dirent_make(&cells, NULL, longest, some_target, &note, &dirent),
			 -ENAMETOOLONG);
	assert_int_equal(mrs_dir_find(&cells, "", &dirent, &target), -EINVAL);
	assert_int_equal(mrs_dir_find(&cells, "absent", &dirent, &target), -ENOENT);
	assert_true(dirent == 9 && target == 9 && note == 7);
	dir_memory_free(memory);
}

static void test_every_length_of_name(void **state)
{
	struct dir_memory *memory = dir_memory_make(256);
	struct mrs_cells cells = dir_memory_cells(memory, 1, 0);
	char name[256], back[256];
	mrs_cell dirent[256], found, target;
	uint64_t note;

	for (unsigned bytes = 1; bytes <= 255; bytes++) {
		for (unsigned i = 0; i < bytes; i++)
			name[i] = (char)('a' + (i * 7 + bytes) % 26);
		name[bytes] = 0;
		assert_int_equal(
			dir_memory_create(&cells, name, some_target + bytes, &note, &dirent[bytes]),
			0);
		assert_true(note == dirent[bytes]);
		assert_int_equal(mrs_dirent_name(&cells, dirent[bytes], back), 0);
		assert_string_equal(back, name);
		assert_int_equal(mrs_dir_find(&cells, name, &found, &target), 0);
		assert_true(found == dirent[bytes] && target == some_target + bytes);
		/* Longest common beginning, one byte less. */
		name[bytes - 1] = '#';
		assert_int_equal(mrs_dir_find(&cells, name, &found, &target), -ENOENT);
	}
	assert_valid(&cells);
	/* 89 ... 200 bytes need one further cell, 201 ... 255 two. */
	assert_true(dir_memory_count(&cells, MRS_CELL_NAME) == 112 + 2 * 55);
	for (unsigned bytes = 1; bytes <= 255; bytes++) {
		assert_int_equal(mrs_dir_unlink(&cells, dirent[bytes]), 0);
		assert_int_equal(mrs_dir_unlink(&cells, dirent[bytes]), -ENOENT);
		mrs_dirent_free(&cells, dirent[bytes]);
		assert_int_equal(mrs_dirent_name(&cells, dirent[bytes], back), -ENOENT);
		assert_int_equal(mrs_dir_unlink(&cells, dirent[bytes]), -ENOENT);
	}
	assert_true(dir_memory_count(&cells, MRS_CELL_NAME) == 0);
	assert_true(dir_memory_count(&cells, MRS_CELL_DIRENT) == 0);
	assert_valid(&cells);
	dir_memory_free(memory);
}

static void test_a_taken_name_and_this_very_dirent(void **state)
{
	struct dir_memory *memory = dir_memory_make(64);
	struct mrs_cells cells = dir_memory_cells(memory, 1, 0);
	mrs_cell first, second, existing = 0, found, target;
	uint64_t note;

	assert_int_equal(dir_memory_create(&cells, "name", 1, &note, &first), 0);
	assert_int_equal(mrs_dirent_make(&cells, NULL, "name", 2, &note, &second), 0);
	assert_int_equal(mrs_dir_link(&cells, NULL, second, &existing), -EEXIST);
	assert_true(existing == first);
	assert_false(mrs_dir_is_linked(&cells, second));
	assert_int_equal(mrs_dir_unlink(&cells, second), -ENOENT);
	assert_true(mrs_dir_is_linked(&cells, first));
	/* Moving the name to another dirent, as a rename over it does. */
	assert_int_equal(mrs_dir_unlink(&cells, first), 0);
	assert_int_equal(mrs_dir_link(&cells, NULL, second, &existing), 0);
	assert_int_equal(mrs_dir_find(&cells, "name", &found, &target), 0);
	assert_true(found == second && target == 2);
	assert_int_equal(mrs_dir_link(&cells, NULL, second, &existing), -EEXIST);
	assert_true(existing == second);
	mrs_dirent_free(&cells, first);
	assert_valid(&cells);
	dir_memory_free(memory);
}

static void test_retarget(void **state)
{
	struct dir_memory *memory = dir_memory_make(64);
	struct mrs_cells cells = dir_memory_cells(memory, 1, 0);
	mrs_cell dirent, later, found, target;
	uint64_t note;

	assert_int_equal(dir_memory_create(&cells, "name", 1, &note, &dirent), 0);
	assert_int_equal(mrs_dirent_retarget(&cells, dirent, 2, 3), -EAGAIN);
	assert_int_equal(mrs_dirent_retarget(&cells, dirent, 1, 3), 0);
	assert_true(mrs_dirent_target(&cells, dirent) == 3);
	assert_int_equal(mrs_dir_find(&cells, "name", &found, &target), 0);
	assert_true(target == 3);
	/* Another dirent in the same cell that means the same. */
	assert_int_equal(mrs_dir_unlink(&cells, dirent), 0);
	mrs_dirent_free(&cells, dirent);
	assert_int_equal(dir_memory_create(&cells, "other", 3, &note, &later), 0);
	assert_true((uint32_t)later == (uint32_t)dirent);
	assert_int_equal(mrs_dirent_retarget(&cells, dirent, 3, 4), -ENOENT);
	assert_true(mrs_dirent_target(&cells, later) == 3);
	assert_true(mrs_dirent_target(&cells, dirent) == 0);
	dir_memory_free(memory);
}

/* Each cell that making a long name needs is refused in turn; nothing is left behind. */
static void test_every_refused_cell_is_unwound(void **state)
{
	char name[256];

	memset(name, 'n', 255);
	name[255] = 0;
	for (unsigned room = 0; room <= 3; room++) {
		struct dir_memory *memory = dir_memory_make(1);
		struct mrs_cells cells = dir_memory_cells(memory, 0, 0);
		mrs_cell dirent = 0, filler;
		uint64_t note = 0, used;

		for (unsigned i = 0; i < 32 - room; i++)
			assert_int_equal(mrs_cell_get(&cells, NULL, &note, &filler), 0);
		used = dir_memory_count(&cells, MRS_CELL_CLAIMED);
		assert_int_equal(mrs_dirent_make(&cells, NULL, name, 1, &note, &dirent),
				 room < 3 ? -ENOSPC : 0);
		if (room < 3) {
			assert_true(dirent == 0 && note == 0);
			assert_true(dir_memory_count(&cells, MRS_CELL_CLAIMED) == used);
			assert_true(dir_memory_count(&cells, MRS_CELL_NAME) == 0);
		}
		dir_memory_free(memory);
	}
}

/* A link that needs a node and gets none changes nothing. */
static uint64_t hash_of_first_byte(const uint64_t key[2], const void *data, size_t bytes)
{
	return (uint64_t) * (const unsigned char *)data << 56;
}

static void test_a_refused_node_changes_nothing(void **state)
{
	struct dir_memory *memory = dir_memory_make(1);
	struct mrs_cells cells = dir_memory_cells(memory, 0, 0);
	mrs_cell first, second, filler, existing;
	uint64_t note;

	cells.hash = hash_of_first_byte;
	assert_int_equal(dir_memory_create(&cells, "a1", 1, &note, &first), 0);
	assert_int_equal(mrs_dirent_make(&cells, NULL, "a2", 2, &note, &second), 0);
	while (!mrs_cell_get(&cells, NULL, &note, &filler))
		;
	assert_int_equal(mrs_dir_link(&cells, NULL, second, &existing), -ENOSPC);
	assert_false(mrs_dir_is_linked(&cells, second));
	assert_true(mrs_dir_is_linked(&cells, first));
	dir_memory_free(memory);
}

/* ---- against brute force ---- */

struct model_entry {
	char name[256];
	mrs_cell dirent;
	mrs_cell target;
	bool there;
};

struct seen_names {
	struct mrs_cells *cells;
	struct model_entry *model;
	unsigned names, seen;
};

static int see_name(void *ctx, mrs_cell dirent, mrs_cell target)
{
	struct seen_names *seen = ctx;

	for (unsigned i = 0; i < seen->names; i++) {
		if (!seen->model[i].there || seen->model[i].dirent != dirent)
			continue;
		assert_true(seen->model[i].target == target);
		seen->seen++;
		return 0;
	}
	fail_msg("a name is listed that is not there");
	return 0;
}

static void compare_all(struct mrs_cells *cells, struct model_entry *model, unsigned names)
{
	struct seen_names seen = {.cells = cells, .model = model, .names = names};
	unsigned there = 0;

	for (unsigned i = 0; i < names; i++) {
		mrs_cell dirent, target;
		int rc = mrs_dir_find(cells, model[i].name, &dirent, &target);

		assert_int_equal(rc, model[i].there ? 0 : -ENOENT);
		if (!rc)
			assert_true(dirent == model[i].dirent && target == model[i].target);
		there += model[i].there;
	}
	assert_int_equal(mrs_dir_each(cells, see_name, &seen), 0);
	assert_int_equal(seen.seen, there);
	assert_valid(cells);
}

/* One random step, on directory and model alike. */
static void model_step(struct mrs_cells *cells, struct model_entry *model, unsigned names,
		       uint64_t *seed)
{
	struct model_entry *e = &model[test_random(seed) % names];
	struct model_entry *to = &model[test_random(seed) % names];
	mrs_cell dirent, target = 1 + test_random(seed) % 1000;
	uint64_t note;

	switch (test_random(seed) % 4) {
	case 0: /* create */
		assert_int_equal(dir_memory_create(cells, e->name, target, &note, &dirent),
				 e->there ? -EEXIST : 0);
		if (e->there)
			break;
		*e = *e;
		e->there = true;
		e->dirent = dirent;
		e->target = target;
		break;
	case 1: /* remove */
		assert_int_equal(mrs_dir_unlink(cells, e->dirent), e->there ? 0 : -ENOENT);
		mrs_dirent_free(cells, e->there ? e->dirent : 0);
		e->there = false;
		break;
	case 2: /* rename: link the new, unlink the old */
		if (!e->there || e == to)
			break;
		assert_int_equal(dir_memory_create(cells, to->name, e->target, &note, &dirent),
				 to->there ? -EEXIST : 0);
		if (to->there)
			break;
		assert_int_equal(mrs_dir_unlink(cells, e->dirent), 0);
		mrs_dirent_free(cells, e->dirent);
		to->there = true;
		to->dirent = dirent;
		to->target = e->target;
		e->there = false;
		break;
	default: /* publish */
		assert_int_equal(mrs_dirent_retarget(cells, e->dirent, e->target, target),
				 e->there ? 0 : -ENOENT);
		if (e->there)
			e->target = target;
	}
}

static void model_run(uint64_t (*hash)(const uint64_t *, const void *, size_t), unsigned names,
		      unsigned steps)
{
	struct dir_memory *memory = dir_memory_make(4096);
	struct mrs_cells cells = dir_memory_cells(memory, 1, 3);
	struct model_entry *model = calloc(names, sizeof(*model));
	uint64_t seed = test_seed();

	cells.hash = hash;
	for (unsigned i = 0; i < names; i++) {
		int bytes = sprintf(model[i].name, "%u-name", i * 7919);

		/* Some long ones, with a long common beginning. */
		if (i % 5 == 0) {
			memset(model[i].name, 'L', 200);
			sprintf(model[i].name + 200 - bytes, "%u-name%*s", i * 7919, (int)(i % 40),
				"");
		}
	}
	for (unsigned step = 0; step < steps; step++) {
		model_step(&cells, model, names, &seed);
		if (step % (steps / 10) == 0)
			compare_all(&cells, model, names);
	}
	compare_all(&cells, model, names);
	free(model);
	dir_memory_free(memory);
}

static void test_random_changes_equal_brute_force(void **state)
{
	model_run(NULL, 300, (unsigned)COUNT_DIR_MODEL_STEPS);
}

static uint64_t hash_constant(const uint64_t key[2], const void *data, size_t bytes)
{
	return 0x123456789abcdef0ull;
}

static uint64_t hash_four_values(const uint64_t key[2], const void *data, size_t bytes)
{
	return mrs_siphash(key, data, bytes) & 3; /* differ in bits 62 and 63 only */
}

static void test_colliding_hashes_equal_brute_force(void **state)
{
	model_run(hash_constant, 60, (unsigned)COUNT_DIR_MODEL_STEPS / 10);
	model_run(hash_four_values, 60, (unsigned)COUNT_DIR_MODEL_STEPS / 10);
	model_run(hash_of_first_byte, 60, (unsigned)COUNT_DIR_MODEL_STEPS / 10);
}

/* Names that are alike to their last bit lie as deep as the trie goes. */
static void test_the_deepest_place(void **state)
{
	struct dir_memory *memory = dir_memory_make(256);
	struct mrs_cells cells = dir_memory_cells(memory, 1, 0);
	mrs_cell first, second, found, target;
	char name[256];
	uint64_t note;

	cells.hash = hash_constant;
	memset(name, 'z', 255);
	name[255] = 0;
	name[254] = 'b';
	assert_int_equal(dir_memory_create(&cells, name, 1, &note, &first), 0);
	name[254] = 'c';
	assert_int_equal(dir_memory_create(&cells, name, 2, &note, &second), 0);
	assert_int_equal(mrs_dir_find(&cells, name, &found, &target), 0);
	assert_true(found == second);
	name[254] = 'b';
	assert_int_equal(mrs_dir_find(&cells, name, &found, &target), 0);
	assert_true(found == first);
	name[254] = 0;
	assert_int_equal(mrs_dir_find(&cells, name, &found, &target), -ENOENT);
	assert_true(dir_memory_count(&cells, MRS_CELL_NODE) > 600);
	assert_valid(&cells);
	dir_memory_free(memory);
}

/* ---- many ---- */

static void test_many_names(void **state)
{
	unsigned names = (unsigned)COUNT_DIR_NAMES;
	struct dir_memory *memory = dir_memory_make(names / 8);
	struct mrs_cells cells = dir_memory_cells(memory, 6, 0);
	double start, made, found_us;
	uint64_t note, seed = 99;
	mrs_cell dirent, target;
	char name[64];

	start = now_us();
	for (unsigned i = 0; i < names; i++) {
		sprintf(name, "%u", i);
		assert_int_equal(dir_memory_create(&cells, name, i + 1, &note, &dirent), 0);
	}
	made = (now_us() - start) / names;
	start = now_us();
	for (unsigned i = 0; i < 100000; i++) {
		unsigned which = (unsigned)(test_random(&seed) % names);

		sprintf(name, "%u", which);
		assert_int_equal(mrs_dir_find(&cells, name, &dirent, &target), 0);
		assert_true(target == which + 1);
	}
	found_us = (now_us() - start) / 100000;
	printf("%u names: %.2f us to make, %.2f us to find, %llu bytes each\n", names, made,
	       found_us, (unsigned long long)(memory->state.cells_high * MRS_CELL_BYTES / names));
	assert_true(memory->state.cells_high * MRS_CELL_BYTES / names < 400 - 128);
	assert_valid(&cells);
	dir_memory_free(memory);
}

/* ---- damaged memory ---- */

static int ignore_name(void *ctx, mrs_cell dirent, mrs_cell target)
{
	return 0;
}

/* Whatever is in the memory: no crash, no walk without end, no errors from the sanitizers. */
static void use_everything(struct mrs_cells *cells, uint64_t *seed)
{
	mrs_cell dirent = 0, target = 0, existing;
	char name[256], back[256];
	uint64_t note = 0;

	for (unsigned i = 0; i < 8; i++) {
		sprintf(name, "n%u", (unsigned)(test_random(seed) % 40));
		if (!mrs_dir_find(cells, name, &dirent, &target)) {
			mrs_dirent_name(cells, dirent, back);
			mrs_dirent_retarget(cells, dirent, target, target + 1);
			mrs_dir_unlink(cells, dirent);
			mrs_dirent_free(cells, dirent);
		}
		if (!mrs_dirent_make(cells, NULL, name, 1, &note, &dirent) &&
		    mrs_dir_link(cells, NULL, dirent, &existing))
			mrs_dirent_free(cells, dirent);
		mrs_dirent_free(cells, test_random(seed) % 64 | (test_random(seed) % 64) << 32);
	}
	mrs_dir_each(cells, ignore_name, NULL);
	mrs_dir_validate(cells, NULL, NULL);
	mrs_cells_reap(cells, (unsigned)(test_random(seed) % 8));
}

/* A random word: wild, or a plausible one with the wrong meaning. */
static uint64_t hostile_word(uint64_t *seed)
{
	uint64_t cell = test_random(seed) % 64 | (test_random(seed) % 128) << 32;

	switch (test_random(seed) % 5) {
	case 0:
		return test_random(seed);
	case 1:
		return mrs_word_make(MRS_WORD_NODE, cell);
	case 2:
		return mrs_word_make(MRS_WORD_DIRENT, cell);
	case 3:
		return mrs_header_make((enum mrs_cell_kind)(test_random(seed) % 9),
				       (unsigned)(test_random(seed) % 9), test_random(seed) % 128);
	default:
		return cell;
	}
}

static void test_hostile_memory(void **state)
{
	struct dir_memory *memory = dir_memory_make(64);
	uint64_t seed = test_seed();
	mrs_cell dirent;
	uint64_t note;

	for (unsigned round = 0; round < (unsigned)COUNT_DIR_HOSTILE; round++) {
		struct mrs_cells cells = dir_memory_cells(memory, 0, 1);
		unsigned damage = 1 + (unsigned)(test_random(&seed) % 40);
		char name[256];

		dir_memory_reset(memory);
		cells.hash = round & 1 ? hash_of_first_byte : NULL;
		for (unsigned i = 0; i < 40; i++) {
			sprintf(name, "n%u%0*u", i, i % 4 == 0 ? 120 : 1, 0);
			dir_memory_create(&cells, name, i + 1, &note, &dirent);
		}
		while (damage--) {
			uint64_t at = test_random(&seed), word = hostile_word(&seed);

			if (at % 8 == 0)
				memory->root[(at >> 8) % MRS_DIR_ROOT_WORDS] = word;
			else if (at % 64 == 1)
				memory->segments[(at >> 8) % 4] = word;
			else if (at % 64 == 2)
				memory->state.cells_high = word;
			else if (at % 64 == 3)
				memory->state.cells_hint = word;
			else if (at % 64 == 4)
				memory->state.cells_free = word;
			else
				((uint64_t *)memory->area)[(at >> 8) % (8 * 512)] = word;
		}
		use_everything(&cells, &seed);
		memory->next_frame = memory->frames; /* reset all of it */
	}
	dir_memory_free(memory);
}

/* Each kind of damage that a checker must see is planted alone and found. */
static void test_validate_finds(void **state)
{
	struct dir_memory *memory = dir_memory_make(64);
	struct mrs_cells cells = dir_memory_cells(memory, 1, 1);
	struct mrs_cell_dirent *cell;
	mrs_cell dirent, other;
	uint64_t note, saved, word;
	char name[256];

	cells.hash = hash_of_first_byte;
	memset(name, 'a', 255);
	name[255] = 0;
	assert_int_equal(dir_memory_create(&cells, name, 1, &note, &dirent), 0);
	assert_int_equal(dir_memory_create(&cells, "ab", 2, &note, &other), 0);
	assert_valid(&cells);
	cell = mrs_cell_at(&cells, dirent, MRS_CELL_DIRENT);
#define FINDS(place, value)                                            \
	do {                                                           \
		saved = (place);                                       \
		(place) = (value);                                     \
		assert_true(mrs_dir_validate(&cells, NULL, NULL) > 0); \
		(place) = saved;                                       \
		assert_valid(&cells);                                  \
	} while (0)
	FINDS(cell->hash, cell->hash ^ 1ull << 60);
	FINDS(cell->name_bytes, 0);
	FINDS(cell->name[3], '/');
	FINDS(cell->more, 0);
	FINDS(cell->header, cell->header + (1ull << 32));
	FINDS(cell->header, mrs_header_make(MRS_CELL_FREE, 0, dirent >> 32));
	FINDS(memory->root[5], memory->root['a' << 4]);
	FINDS(memory->root['a' << 4], 0);
	word = memory->root['a' << 4];
	FINDS(memory->root['a' << 4], word + (1ull << 33));
	FINDS(memory->root['a' << 4], word | 3);
	FINDS(memory->state.cells_high, 2);
	FINDS(memory->state.cells_high, 1ull << 40);
	FINDS(memory->segments[0], 0);
	dir_memory_free(memory);
}

/* A node that leads to itself: the walks end, and a name that would lie there gets an error. */
static void test_a_ring_of_nodes_ends(void **state)
{
	struct dir_memory *memory = dir_memory_make(64);
	struct mrs_cells cells = dir_memory_cells(memory, 1, 1);
	struct mrs_cell_node *node;
	mrs_cell dirent, target;
	uint64_t note;

	cells.hash = hash_constant;
	assert_int_equal(dir_memory_create(&cells, "x1", 1, &note, &dirent), 0);
	assert_int_equal(dir_memory_create(&cells, "x2", 2, &note, &dirent), 0);
	node = mrs_dir_node(&cells, memory->root[0x123]);
	assert_non_null(node);
	for (unsigned i = 0; i < MRS_DIR_NODE_WORDS; i++)
		node->word[i] = memory->root[0x123];
	assert_int_equal(mrs_dir_find(&cells, "x1", &dirent, &target), -EUCLEAN);
	assert_int_equal(mrs_dir_each(&cells, ignore_name, NULL), -EUCLEAN);
	assert_true(mrs_dir_validate(&cells, NULL, NULL) > 0);
	dir_memory_free(memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_siphash_gives_the_published_values),
		cmocka_unit_test(test_a_cell_goes_through_its_states),
		cmocka_unit_test(test_a_full_array_says_so_and_recovers),
		cmocka_unit_test(test_the_most_cells_that_a_handle_can_name),
		cmocka_unit_test(test_idle_cells_stay_few),
		cmocka_unit_test(test_short_lived_processes_reuse_cells),
		cmocka_unit_test(test_names_that_are_none),
		cmocka_unit_test(test_every_length_of_name),
		cmocka_unit_test(test_a_taken_name_and_this_very_dirent),
		cmocka_unit_test(test_retarget),
		cmocka_unit_test(test_every_refused_cell_is_unwound),
		cmocka_unit_test(test_a_refused_node_changes_nothing),
		cmocka_unit_test(test_random_changes_equal_brute_force),
		cmocka_unit_test(test_colliding_hashes_equal_brute_force),
		cmocka_unit_test(test_the_deepest_place),
		cmocka_unit_test(test_many_names),
		cmocka_unit_test(test_hostile_memory),
		cmocka_unit_test(test_validate_finds),
		cmocka_unit_test(test_a_ring_of_nodes_ends),
	};

	return cmocka_run_group_tests_name("dir", tests, NULL, NULL);
}
