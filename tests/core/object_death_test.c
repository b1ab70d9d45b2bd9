/*
 * Death at every step: a child does one operation and is killed at the n-th probe that it meets,
 * for every n until it gets through. Afterwards the operation has happened or has not, the pool is
 * sound, what others have is intact, and no frame is lost. The same with a reaper that is killed
 * while it cleans up after the first.
 */
#include "core/object_support.h"

#include <errno.h>
#include <glob.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <morsel/dump.h>

#include "support/counts.h"

#define SKIP 77

struct scene {
	struct morsel_pool *pool;
	uint64_t free_bytes;
	struct morsel *kept; /* open in the parent throughout, content of seed 100 */
	struct morsel *a, *b;
	const char *file;
	uint64_t hold;
};

struct act {
	const char *name;
	void (*before)(struct scene *scene);
	int (*child)(struct morsel_pool *pool, const char *argument);
	void (*after)(struct scene *scene, bool finished);
};

static void write_new(struct scene *scene, const char *name, uint64_t seed, uint64_t bytes,
		      uint32_t flags, uint32_t pages, struct morsel **keep)
{
	struct morsel *morsel = object_create(scene->pool, name, bytes, flags, pages);

	if (!(flags & MORSEL_LAZY))
		object_write(morsel, seed, 0, bytes);
	if (keep)
		*keep = morsel;
	else
		morsel_close(morsel);
}

/* Opens name and compares; its size must be bytes. */
static void assert_content(struct scene *scene, const char *name, uint64_t seed, uint64_t bytes)
{
	struct morsel *morsel = object_open(scene->pool, name);

	assert_int_equal(mrs_morsel_bytes(morsel), bytes);
	assert_int_equal(object_differs(morsel, seed, 0, bytes), UINT64_MAX);
	morsel_close(morsel);
}

static bool has(struct scene *scene, const char *name)
{
	return object_exists(scene->pool, name);
}

/* ---- create ---- */

#define CREATE_BYTES (2 * MIB + 9000)

static int create_with(struct morsel_pool *pool, uint32_t flags, uint32_t pages)
{
	struct morsel_opts opts = {.size = sizeof(opts),
				   .flags = MORSEL_CREATE | flags,
				   .pages = pages,
				   .bytes = CREATE_BYTES};
	struct morsel *morsel;
	int rc = morsel_open(pool,
			     "a name of more than eighty-eight bytes, so that it needs a "
			     "further cell: 0123456789 0123456789",
			     &opts, &morsel);

	return rc ? rc : morsel_close(morsel);
}

static int child_create(struct morsel_pool *pool, const char *argument)
{
	return create_with(pool, 0, 0);
}

static int child_create_pieces(struct morsel_pool *pool, const char *argument)
{
	return create_with(pool, MORSEL_SCATTERED, MORSEL_PAGES_2M);
}

static void after_create(struct scene *scene, bool finished)
{
	const char *name = "a name of more than eighty-eight bytes, so that it needs a further "
			   "cell: 0123456789 0123456789";
	struct morsel *morsel;

	assert_true(has(scene, name) || !finished);
	if (!has(scene, name))
		return;
	morsel = object_open(scene->pool, name);
	assert_int_equal(mrs_morsel_bytes(morsel), CREATE_BYTES);
	assert_true(object_is_zero(morsel, 0, CREATE_BYTES));
	assert_true(object_info(morsel).bytes_allocated >= CREATE_BYTES);
	morsel_close(morsel);
}

/* ---- unlink ---- */

static void before_unlink(struct scene *scene)
{
	write_new(scene, "a", 1, 60 * KIB, MORSEL_SCATTERED, MORSEL_PAGES_4K, NULL);
}

static void before_unlink_open(struct scene *scene)
{
	write_new(scene, "a", 1, 60 * KIB, MORSEL_SCATTERED, MORSEL_PAGES_4K, &scene->a);
}

static int child_unlink(struct morsel_pool *pool, const char *argument)
{
	return morsel_unlink(pool, "a");
}

static void after_unlink(struct scene *scene, bool finished)
{
	if (has(scene, "a"))
		assert_content(scene, "a", 1, 60 * KIB);
	assert_false(finished && has(scene, "a"));
	if (scene->a)
		assert_int_equal(object_differs(scene->a, 1, 0, 60 * KIB), UINT64_MAX);
}

/* ---- rename ---- */

static void before_rename(struct scene *scene)
{
	write_new(scene, "a", 1, 20 * KIB, 0, 0, &scene->a);
	write_new(scene, "b", 2, 20 * KIB, 0, 0, NULL);
}

static int child_rename(struct morsel_pool *pool, const char *argument)
{
	if (morsel_rename(pool, "a", "b") != -EEXIST)
		return 5;
	return morsel_rename(pool, "a", "c");
}

static void after_rename(struct scene *scene, bool finished)
{
	assert_int_equal(has(scene, "a") + has(scene, "c"), 1);
	assert_false(finished && has(scene, "a"));
	assert_content(scene, has(scene, "a") ? "a" : "c", 1, 20 * KIB);
	assert_string_equal(object_info(scene->a).name, has(scene, "a") ? "a" : "c");
	assert_content(scene, "b", 2, 20 * KIB);
}

/* ---- publish ---- */

static void before_publish(struct scene *scene)
{
	write_new(scene, "current", 1, 20 * KIB, 0, 0, &scene->a);
	write_new(scene, "next", 2, 24 * KIB, 0, 0, NULL);
}

static int child_publish(struct morsel_pool *pool, const char *argument)
{
	struct morsel *morsel;
	int rc = morsel_open(pool, "next", NULL, &morsel);

	if (!rc)
		rc = morsel_publish(morsel, argument);
	return rc ? rc : morsel_close(morsel);
}

static int child_publish_over(struct morsel_pool *pool, const char *argument)
{
	return child_publish(pool, "current");
}

static int child_publish_new(struct morsel_pool *pool, const char *argument)
{
	return child_publish(pool, "third");
}

static void after_publish_over(struct scene *scene, bool finished)
{
	assert_false(finished && has(scene, "next"));
	if (has(scene, "next")) {
		assert_content(scene, "next", 2, 24 * KIB);
		assert_content(scene, "current", 1, 20 * KIB);
		assert_string_equal(object_info(scene->a).name, "current");
	} else {
		assert_content(scene, "current", 2, 24 * KIB);
		assert_string_equal(object_info(scene->a).name, "");
	}
	assert_int_equal(object_differs(scene->a, 1, 0, 20 * KIB), UINT64_MAX);
}

static void after_publish_new(struct scene *scene, bool finished)
{
	assert_int_equal(has(scene, "next") + has(scene, "third"), 1);
	assert_false(finished && has(scene, "next"));
	assert_content(scene, has(scene, "next") ? "next" : "third", 2, 24 * KIB);
	assert_content(scene, "current", 1, 20 * KIB);
}

/* ---- resize ---- */

static void before_grow(struct scene *scene)
{
	write_new(scene, "a", 1, 20 * KIB + 5, 0, 0, NULL);
	/* What stands behind it makes the run a table. */
	write_new(scene, "wall", 3, 40 * KIB, 0, 0, NULL);
}

static int child_resize(struct morsel_pool *pool, uint64_t bytes)
{
	struct morsel *morsel;
	int rc = morsel_open(pool, "a", NULL, &morsel);

	if (!rc)
		rc = morsel_resize(morsel, bytes);
	return rc ? rc : morsel_close(morsel);
}

static int child_grow(struct morsel_pool *pool, const char *argument)
{
	return child_resize(pool, 99 * KIB + 7);
}

static int child_shrink(struct morsel_pool *pool, const char *argument)
{
	return child_resize(pool, 20 * KIB + 5);
}

static void after_resize(struct scene *scene, bool finished, uint64_t had, uint64_t asked)
{
	struct morsel *morsel = object_open(scene->pool, "a");
	uint64_t bytes = mrs_morsel_bytes(morsel), kept = mrs_min(bytes, had);

	assert_true(bytes == asked || (bytes == had && !finished));
	assert_int_equal(object_differs(morsel, 1, 0, kept), UINT64_MAX);
	assert_true(object_is_zero(morsel, kept, bytes - kept));
	assert_int_equal(object_info(morsel).bytes_allocated, mrs_round_up(bytes, 4096));
	assert_ok(morsel_resize(morsel, 200 * KIB));
	assert_true(object_is_zero(morsel, kept, 200 * KIB - kept));
	assert_int_equal(object_differs(morsel, 1, 0, kept), UINT64_MAX);
	morsel_close(morsel);
}

static void after_grow(struct scene *scene, bool finished)
{
	after_resize(scene, finished, 20 * KIB + 5, 99 * KIB + 7);
	assert_content(scene, "wall", 3, 40 * KIB);
}

static void before_shrink(struct scene *scene)
{
	write_new(scene, "a", 1, 60 * KIB, MORSEL_SCATTERED, MORSEL_PAGES_4K, NULL);
}

static void after_shrink(struct scene *scene, bool finished)
{
	after_resize(scene, finished, 60 * KIB, 20 * KIB + 5);
}

static int child_seal(struct morsel_pool *pool, const char *argument)
{
	struct morsel *morsel;
	int rc = morsel_open(pool, "a", NULL, &morsel);

	if (rc)
		return rc;
	rc = morsel_seal(morsel);
	morsel_close(morsel);
	return rc;
}

static void after_seal(struct scene *scene, bool finished)
{
	assert_content(scene, "a", 1, 60 * KIB);
}

/* The parent has a writable view: whatever happens, the morsel is not sealed afterwards. */
static void before_seal_refused(struct scene *scene)
{
	before_shrink(scene);
	scene->a = object_open(scene->pool, "a");
	assert_ok(mrs_morsel_view_publish(scene->a, 1, true, &scene->hold));
}

static int child_seal_refused(struct morsel_pool *pool, const char *argument)
{
	return child_seal(pool, argument) == -EBUSY ? 0 : 9;
}

static void after_seal_refused(struct scene *scene, bool finished)
{
	assert_int_equal(object_info(scene->a).sealed, 0);
	mrs_morsel_view_withdraw(scene->a, scene->hold);
	assert_ok(morsel_seal(scene->a));
}

/* ---- fill, import, handles ---- */

static void before_fill(struct scene *scene)
{
	write_new(scene, "a", 1, 50 * KIB, MORSEL_LAZY, MORSEL_PAGES_4K, NULL);
}

static int child_fill(struct morsel_pool *pool, const char *argument)
{
	struct morsel *morsel;
	int rc = morsel_open(pool, "a", NULL, &morsel);

	if (!rc)
		rc = mrs_morsel_fill(morsel, 3, 9);
	return rc ? rc : morsel_close(morsel);
}

static void after_fill(struct scene *scene, bool finished)
{
	struct morsel *morsel = object_open(scene->pool, "a");
	uint64_t allocated = object_info(morsel).bytes_allocated;

	assert_true(finished ? allocated == 9 * 4 * KIB : allocated <= 9 * 4 * KIB);
	assert_true(object_is_zero(morsel, 0, 50 * KIB));
	assert_ok(mrs_morsel_fill(morsel, 0, mrs_morsel_pages(morsel)));
	object_write(morsel, 5, 0, 50 * KIB);
	assert_int_equal(object_differs(morsel, 5, 0, 50 * KIB), UINT64_MAX);
	morsel_close(morsel);
}

static void before_import(struct scene *scene)
{
	static const char header[] =
		"{\"t\":{\"dtype\":\"U8\",\"shape\":[4096],\"data_offsets\":[0,4096]}}";
	uint64_t bytes = sizeof(header) - 1;
	FILE *file;

	scene->file = object_file("death", 1, 0);
	file = fopen(scene->file, "w");
	assert_non_null(file);
	fwrite(&bytes, 8, 1, file);
	fwrite(header, bytes, 1, file);
	for (int i = 0; i < 4096; i++)
		fputc(i & 255, file);
	assert_int_equal(fclose(file), 0);
}

static int child_import(struct morsel_pool *pool, const char *file)
{
	struct morsel *morsel;
	int rc = morsel_import(pool, "model", file, NULL, &morsel);

	return rc ? rc : morsel_close(morsel);
}

static void after_import(struct scene *scene, bool finished)
{
	struct morsel_tensor tensor;
	struct morsel *morsel;
	uint8_t content[4096];

	assert_false(finished && !has(scene, "model"));
	assert_ok(morsel_import(scene->pool, "model", scene->file, NULL, &morsel));
	assert_ok(morsel_tensor(morsel, "t", &tensor));
	assert_ok(mrs_content_read(morsel, tensor.offset, content, 4096));
	for (int i = 0; i < 4096; i++)
		assert_int_equal(content[i], i & 255);
	morsel_close(morsel);
	unlink(scene->file);
}

/* More than a slot holds: a chain of cells, and an end by exit without closing. */
static int child_handles(struct morsel_pool *pool, const char *argument)
{
	struct morsel *morsel;

	for (int i = 0; i < MRS_OPEN_INLINE + 9; i++)
		if (morsel_open(pool, "a", NULL, &morsel))
			return 6;
	if (morsel_unlink(pool, "a"))
		return 7;
	kill(getpid(), SIGKILL);
	return 8;
}

static void after_handles(struct scene *scene, bool finished)
{
	if (has(scene, "a"))
		assert_content(scene, "a", 1, 60 * KIB);
}

/* ---- dump and restore ---- */

static void before_dump(struct scene *scene)
{
	write_new(scene, "a", 1, 90 * KIB, 0, MORSEL_PAGES_4K, &scene->a);
	scene->file = object_file("dump", 1, 0);
	assert_ok(morsel_dump(scene->a, scene->file, NULL, NULL));
}

static void drop_dump(struct scene *scene)
{
	char pattern[160];
	glob_t left;

	/* What a death has left under a temporary name. */
	snprintf(pattern, sizeof(pattern), "%s*", scene->file);
	if (!glob(pattern, 0, NULL, &left)) {
		for (size_t i = 0; i < left.gl_pathc; i++)
			unlink(left.gl_pathv[i]);
		globfree(&left);
	}
}

static int child_dump(struct morsel_pool *pool, const char *file)
{
	struct morsel *morsel;
	int rc = morsel_open(pool, "a", NULL, &morsel);

	if (!rc)
		rc = morsel_dump(morsel, file, NULL, NULL);
	return rc ? rc : morsel_close(morsel);
}

/* The old dump or the new one, which say the same. */
static void after_dump(struct scene *scene, bool finished)
{
	struct morsel *morsel;

	assert_ok(morsel_restore(scene->pool, "b", scene->file, NULL, &morsel));
	assert_ok(morsel_close(morsel));
	assert_content(scene, "b", 1, 90 * KIB);
	drop_dump(scene);
}

static int child_restore(struct morsel_pool *pool, const char *file)
{
	struct morsel *morsel;
	int rc = morsel_restore(pool, "b", file, NULL, &morsel);

	return rc ? rc : morsel_close(morsel);
}

static void after_restore(struct scene *scene, bool finished)
{
	struct morsel *morsel;

	assert_false(finished && !has(scene, "b"));
	if (!has(scene, "b")) {
		assert_ok(morsel_restore(scene->pool, "b", scene->file, NULL, &morsel));
		assert_ok(morsel_close(morsel));
	}
	assert_content(scene, "b", 1, 90 * KIB);
	drop_dump(scene);
}

static void before_restore_range(struct scene *scene)
{
	struct morsel_restore_opts opts = {.size = sizeof(opts), .flags = MORSEL_LAZY};
	struct morsel *morsel;

	before_dump(scene);
	assert_ok(morsel_restore(scene->pool, "b", scene->file, &opts, &morsel));
	assert_ok(morsel_close(morsel));
}

static int child_restore_range(struct morsel_pool *pool, const char *file)
{
	struct morsel_restore_opts opts = {.size = sizeof(opts), .offset = 64 * KIB, .bytes = 1};
	struct morsel *morsel;
	int rc = morsel_open(pool, "b", NULL, &morsel);

	if (!rc)
		rc = morsel_restore_range(morsel, file, &opts);
	return rc ? rc : morsel_close(morsel);
}

static void after_restore_range(struct scene *scene, bool finished)
{
	struct morsel *morsel = object_open(scene->pool, "b");

	assert_ok(morsel_restore_range(morsel, scene->file, NULL));
	assert_ok(morsel_close(morsel));
	assert_content(scene, "b", 1, 90 * KIB);
	drop_dump(scene);
}

static const struct act acts[] = {
	{"dump", before_dump, child_dump, after_dump},
	{"restore", before_dump, child_restore, after_restore},
	{"restore_range", before_restore_range, child_restore_range, after_restore_range},
	{"create", NULL, child_create, after_create},
	{"create_pieces", NULL, child_create_pieces, after_create},
	{"unlink", before_unlink, child_unlink, after_unlink},
	{"unlink_open", before_unlink_open, child_unlink, after_unlink},
	{"rename", before_rename, child_rename, after_rename},
	{"publish_over", before_publish, child_publish_over, after_publish_over},
	{"publish_new", before_publish, child_publish_new, after_publish_new},
	{"grow", before_grow, child_grow, after_grow},
	{"shrink", before_shrink, child_shrink, after_shrink},
	{"seal", before_shrink, child_seal, after_seal},
	{"seal_refused", before_seal_refused, child_seal_refused, after_seal_refused},
	{"fill", before_fill, child_fill, after_fill},
	{"import", before_import, child_import, after_import},
	{"handles", before_unlink, child_handles, after_handles},
};

static void scene_begin(struct scene *scene, const struct act *act)
{
	*scene = (struct scene){.pool = object_pool(64 * MIB)};
	write_new(scene, "kept", 100, 16 * KIB, 0, 0, &scene->kept);
	scene->free_bytes = object_free_bytes(scene->pool);
	if (act->before)
		act->before(scene);
}

static int unlink_each(void *ctx, const struct morsel_info *info)
{
	struct scene *scene = ctx;

	return strcmp(info->name, "kept") ? morsel_unlink(scene->pool, info->name) : 0;
}

static void scene_end(struct scene *scene)
{
	morsel_close(scene->a);
	morsel_close(scene->b);
	assert_ok(morsel_list(scene->pool, unlink_each, scene));
	assert_int_equal(object_info(scene->kept).users, 1);
	assert_int_equal(object_differs(scene->kept, 100, 0, 16 * KIB), UINT64_MAX);
	assert_int_equal(object_free_bytes(scene->pool), scene->free_bytes);
	morsel_close(scene->kept);
	object_pool_end(scene->pool);
}

static const char *kill_text(uint64_t n)
{
	static char text[32];

	snprintf(text, sizeof(text), "*:%llu", (unsigned long long)n);
	return text;
}

static bool was_killed(int status)
{
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

/* One death; true if the child came through alive (or died by itself at its end). */
static bool die_once(const struct act *act, uint64_t n, uint64_t reaper_n)
{
	struct scene scene;
	int status, reaper = 0;
	bool killed;

	snprintf(object_context, sizeof(object_context),
		 "(%s killed at probe %llu, reaper at %llu)", act->name, (unsigned long long)n,
		 (unsigned long long)reaper_n);
	scene_begin(&scene, act);
	status = object_child(scene.pool, act->name, scene.file ? scene.file : "", kill_text(n));
	killed = was_killed(status);
	if (!killed && status)
		fail_msg("%s, probe %llu: status 0x%x", act->name, (unsigned long long)n, status);
	if (killed && reaper_n)
		reaper = object_child(scene.pool, "reap", "", kill_text(reaper_n));
	if (reaper && !was_killed(reaper))
		fail_msg("%s, probe %llu: reaper's status 0x%x", act->name, (unsigned long long)n,
			 reaper);
	assert_ok(morsel_pool_reap(scene.pool));
	object_check(scene.pool);
	act->after(&scene, !killed);
	object_check(scene.pool);
	scene_end(&scene);
	return !killed;
}

static const struct act *act_of(const char *name)
{
	for (size_t i = 0; i < mrs_array_length(acts); i++)
		if (!strcmp(acts[i].name, name))
			return &acts[i];
	return NULL;
}

/* How many probes the act meets when nobody kills it; for "handles", until it kills itself. */
static uint64_t count_probes(const struct act *act)
{
	uint64_t low = 0, high = 1;

	if (!strcmp(act->name, "handles"))
		return 400;
	while (!die_once(act, high, 0)) {
		low = high;
		high *= 2;
	}
	while (high - low > 1) {
		uint64_t middle = low + (high - low) / 2;

		if (die_once(act, middle, 0))
			high = middle;
		else
			low = middle;
	}
	return low;
}

static uint64_t seed;

static void test_act(void **state)
{
	const struct act *act = *state;
	uint64_t probes = count_probes(act), random = seed, n;
	uint64_t step = mrs_max(probes / COUNT_OBJECT_DEATHS, 1);

	for (n = 1 + test_random(&random) % step; n <= probes; n += step)
		die_once(act, n, 0);
	for (unsigned i = 0; i < COUNT_OBJECT_REAPER_DEATHS; i++)
		die_once(act, 1 + test_random(&random) % probes, 1 + test_random(&random) % 150);
	printf("%s: %llu probes, every %llu; %d deaths of reapers\n", act->name,
	       (unsigned long long)probes, (unsigned long long)step, COUNT_OBJECT_REAPER_DEATHS);
}

static int child_main(char **argv)
{
	const struct act *act = act_of(argv[2]);
	struct morsel_pool *pool;
	int rc = morsel_pool_open_fd(atoi(argv[3]), NULL, &pool);

	if (!rc && act)
		rc = act->child(pool, argv[4]);
	else if (!rc)
		morsel_pool_reap(pool);
	if (rc)
		fprintf(stderr, "child %s: %d: %s\n", argv[2], rc, morsel_errormsg());
	return rc ? 3 : morsel_pool_close(pool) ? 4 : 0;
}

int main(int argc, char **argv)
{
	struct CMUnitTest tests[mrs_array_length(acts)];

	if (argc == 5 && !strcmp(argv[1], "--child"))
		return child_main(argv);
#ifndef MORSEL_PROBES
	fprintf(stderr, "skipped: this build has no probes (MORSEL_PROBES)\n");
	return SKIP;
#endif
	seed = test_seed();
	for (size_t i = 0; i < mrs_array_length(acts); i++)
		tests[i] = (struct CMUnitTest){.name = acts[i].name,
					       .test_func = test_act,
					       .initial_state = (void *)&acts[i]};
	return cmocka_run_group_tests_name("object: death", tests, NULL, NULL);
}
