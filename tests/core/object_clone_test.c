/*
 * Clones without views: sharing, breaking, freeing in any order, against arrays of versions; and
 * deaths in every step.
 */
#include "core/object_support.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "object/share.h"
#include "support/counts.h"

/* One page as whoever writes through a grant makes it: its own first. */
static void write_page(struct morsel *morsel, uint64_t page, uint64_t seed)
{
	assert_ok(mrs_share_break(morsel, page, 1));
	object_write(morsel, seed, page * 4096, 4096);
}

static bool page_is(struct morsel *morsel, uint64_t page, uint64_t seed)
{
	return object_differs(morsel, seed, page * 4096, 4096) == UINT64_MAX;
}

static uint64_t resident(struct morsel_pool *pool)
{
	struct morsel_pool_stat stat = {.size = sizeof(stat)};

	assert_ok(morsel_pool_stat(pool, &stat));
	return stat.bytes_resident;
}

/* ---- one clone ---- */

static void clone_and_write(uint64_t bytes, uint32_t flags, uint32_t pages)
{
	struct morsel_pool *pool = object_pool(256 * MIB);
	struct morsel *source = object_create(pool, "source", bytes, flags, pages), *clone;
	uint64_t last = (bytes - 1) / 4096, before;

	object_write(source, 1, 0, bytes);
	before = resident(pool);
	assert_ok(morsel_clone(source, "clone", &clone));
	before = resident(pool) - before;
	if (before > 256 * KIB)
		fail_msg("a clone of %llu bytes took %llu", (unsigned long long)bytes,
			 (unsigned long long)before);
	object_check(pool);
	assert_int_equal(object_info(clone).bytes, bytes);
	assert_int_equal(object_info(clone).bytes_allocated, object_info(source).bytes_allocated);
	assert_int_equal(object_differs(clone, 1, 0, bytes), UINT64_MAX);
	write_page(source, 0, 2);
	object_check(pool);
	write_page(clone, last, 3);
	object_check(pool);
	assert_true(page_is(source, 0, 2));
	assert_true(last == 0 || page_is(clone, 0, 1));
	assert_int_equal(object_differs(clone, 3, last * 4096, bytes - last * 4096), UINT64_MAX);
	if (last > 1) {
		assert_int_equal(object_differs(source, 1, 4096, bytes - 4096), UINT64_MAX);
		assert_int_equal(object_differs(clone, 1, 0, last * 4096), UINT64_MAX);
	}
	morsel_close(source);
	assert_ok(morsel_unlink(pool, "source"));
	object_check(pool);
	if (last > 1)
		assert_int_equal(object_differs(clone, 1, 0, last * 4096), UINT64_MAX);
	morsel_close(clone);
	assert_ok(morsel_unlink(pool, "clone"));
	object_pool_end(pool);
}

static void test_sizes(void **state)
{
	static const uint64_t sizes[] = {1, 4096, 8192, 2 * MIB, 2 * MIB + 5, 9 * MIB, 40 * MIB};

	for (size_t i = 0; i < mrs_array_length(sizes); i++) {
		clone_and_write(sizes[i], 0, 0);
		clone_and_write(sizes[i], 0, MORSEL_PAGES_4K);
		clone_and_write(sizes[i], 0, MORSEL_PAGES_2M);
		clone_and_write(sizes[i], MORSEL_EVICTABLE, 0);
		clone_and_write(sizes[i], MORSEL_SCATTERED, 0);
	}
}

/* Everything comes back, whoever goes first. */
static void test_frees_all(void **state)
{
	struct morsel_pool *pool = object_pool(256 * MIB);
	struct morsel *held = object_create(pool, "first", 8 * MIB, 0, 0);
	struct morsel *made[3], *clone;
	uint64_t before;

	/* The table of properties and the cells stay. */
	assert_ok(morsel_clone(held, "second", &clone));
	write_page(clone, 5, 9);
	morsel_close(clone);
	assert_ok(morsel_unlink(pool, "second"));
	before = object_free_bytes(pool);
	for (unsigned order = 0; order < 6; order++) {
		static const uint8_t orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
						     {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
		static const char *const names[] = {"a", "b", "c"};

		made[0] = object_create(pool, "a", 8 * MIB, 0, 0);
		object_write(made[0], 1, 0, 8 * MIB);
		assert_ok(morsel_clone(made[0], "b", &made[1]));
		write_page(made[1], 700, 2);
		assert_ok(morsel_snapshot(made[1], "c", &made[2]));
		write_page(made[1], 701, 3);
		write_page(made[0], 1200, 4);
		for (unsigned i = 0; i < 3; i++) {
			morsel_close(made[orders[order][i]]);
			assert_ok(morsel_unlink(pool, names[orders[order][i]]));
			object_check(pool);
		}
		assert_int_equal(object_free_bytes(pool), before);
	}
	morsel_close(held);
	object_pool_end(pool);
}

static void test_depth(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *at = object_create(pool, "m0", 1 * MIB, 0, 0), *next;
	char name[16];

	object_write(at, 1, 0, 1 * MIB);
	for (unsigned i = 1; i <= MRS_CLONE_DEPTH_MAX; i++) {
		snprintf(name, sizeof(name), "m%u", i);
		assert_ok(morsel_clone(at, name, &next));
		write_page(next, i, 100 + i);
		morsel_close(at);
		at = next;
	}
	assert_fails(morsel_clone(at, "more", &next), -EMLINK, "64");
	assert_false(object_exists(pool, "more"));
	for (unsigned i = 1; i <= MRS_CLONE_DEPTH_MAX; i++)
		assert_true(page_is(at, i, 100 + i));
	assert_true(page_is(at, 0, 1));
	morsel_close(at);
	object_pool_end(pool);
}

static void test_snapshot(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *source = object_create(pool, "m", 4 * MIB, 0, 0), *snapshot, *clone;
	struct morsel_view *view;
	struct morsel_map_opts write = {.size = sizeof(write),
					.kind = MORSEL_VIEW_STITCHED,
					.access = MORSEL_READ | MORSEL_WRITE};

	object_write(source, 1, 0, 4 * MIB);
	assert_ok(morsel_snapshot(source, "s", &snapshot));
	assert_true(object_info(snapshot).sealed);
	assert_fails(morsel_map(snapshot, &write, &view), -EROFS, "sealed");
	assert_fails(morsel_resize(snapshot, 1), -EROFS, "sealed");
	assert_ok(morsel_clone(snapshot, "again", &clone));
	assert_false(object_info(clone).sealed);
	write_page(clone, 3, 2);
	write_page(source, 3, 3);
	assert_true(page_is(snapshot, 3, 1) && page_is(clone, 3, 2) && page_is(source, 3, 3));
	morsel_close(source);
	morsel_close(snapshot);
	morsel_close(clone);
	object_pool_end(pool);
}

static void test_names(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *source = object_create(pool, "m", 1 * MIB, 0, 0), *clone;
	uint64_t id = object_info(source).id;

	object_write(source, 1, 0, 1 * MIB);
	assert_fails(morsel_clone(source, "m", &clone), -EEXIST, "exists");
	assert_fails(morsel_clone(source, "a/b", &clone), -EINVAL, "");
	assert_fails(morsel_clone(source, NULL, NULL), -EINVAL, "name");
	object_check(pool);
	assert_ok(morsel_clone(source, "kept", NULL));
	assert_true(object_exists(pool, "kept"));
	/* A clone takes its source's place; who has the source open keeps it. */
	assert_ok(morsel_clone(source, NULL, &clone));
	write_page(clone, 0, 2);
	assert_ok(morsel_publish(clone, "m"));
	assert_true(page_is(source, 0, 1));
	object_check(pool);
	morsel_close(source);
	object_check(pool);
	source = object_open(pool, "m");
	assert_true(object_info(source).id != id);
	assert_true(page_is(source, 0, 2) && page_is(source, 1, 1));
	morsel_close(source);
	morsel_close(clone);
	/* Without a name it goes with its handle. */
	source = object_open(pool, "kept");
	assert_ok(morsel_clone(source, NULL, &clone));
	morsel_close(clone);
	morsel_close(source);
	object_pool_end(pool);
}

static void test_resize(void **state)
{
	static const uint64_t sizes[] = {9 * MIB, 6 * MIB + 100, 2 * MIB, 2 * MIB - 1, 4096 * 3 + 7,
					 0,	  11 * MIB + 1,	 5 * MIB};

	for (unsigned who = 0; who < 2; who++) {
		struct morsel_pool *pool = object_pool(256 * MIB);
		struct morsel *morsel[2];
		uint64_t kept = 9 * MIB;

		morsel[0] = object_create(pool, "a", 9 * MIB, 0, 0);
		object_write(morsel[0], 1, 0, 9 * MIB);
		assert_ok(morsel_clone(morsel[0], "b", &morsel[1]));
		for (size_t i = 0; i < mrs_array_length(sizes); i++) {
			kept = mrs_min(kept, sizes[i]);
			assert_ok(morsel_resize(morsel[who], sizes[i]));
			assert_int_equal(object_differs(morsel[who], 1, 0, kept), UINT64_MAX);
			assert_true(object_is_zero(morsel[who], kept, sizes[i] - kept));
			assert_int_equal(object_differs(morsel[!who], 1, 0, 9 * MIB), UINT64_MAX);
			object_check(pool);
		}
		morsel_close(morsel[0]);
		morsel_close(morsel[1]);
		object_pool_end(pool);
	}
}

static void test_lazy(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *source = object_create(pool, "m", 6 * MIB, MORSEL_LAZY, 0), *clone;

	assert_ok(mrs_morsel_fill(source, 0, 3));
	assert_ok(mrs_morsel_fill(source, 1000, 1));
	write_page(source, 1, 1);
	write_page(source, 1000, 1);
	assert_ok(morsel_clone(source, "c", &clone));
	/* Holes are filled on each side for itself. */
	assert_ok(mrs_morsel_fill(clone, 1400, 1));
	write_page(clone, 1400, 2);
	assert_ok(mrs_morsel_fill(source, 0, 1536));
	write_page(source, 1400, 3);
	assert_true(page_is(clone, 1400, 2) && page_is(source, 1400, 3));
	assert_true(page_is(clone, 1, 1) && page_is(clone, 1000, 1));
	assert_true(object_is_zero(clone, 1401 * 4096, 4096));
	object_check(pool);
	morsel_close(source);
	morsel_close(clone);
	object_pool_end(pool);
}

static void test_refused(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = object_create(pool, "m", 1 * MIB, 0, 0), *clone;
	struct morsel_view *view;

	assert_ok(morsel_map(morsel, NULL, &view));
	assert_fails(morsel_clone(morsel, "c", &clone), -EBUSY, "MORSEL_EVICTABLE");
	morsel_view_destroy(view);
	assert_ok(morsel_clone(morsel, "c", &clone));
	morsel_close(clone);
	morsel_close(morsel);
	object_pool_end(pool);
}

/* ---- a model: each morsel an array of versions ---- */

#define MORSELS	  6
#define PAGES_MAX 1600u

struct modelled {
	struct morsel *morsel;
	uint64_t bytes;
	bool sealed;
	uint32_t version[PAGES_MAX]; /* 0: zeros */
};

static struct modelled model[MORSELS];

static void verify_page(const struct modelled *m, uint64_t page)
{
	uint64_t bytes = mrs_min(m->bytes - page * 4096, 4096u);

	if (!m->version[page])
		assert_true(object_is_zero(m->morsel, page * 4096, bytes));
	else
		assert_int_equal(object_differs(m->morsel, m->version[page], page * 4096, bytes),
				 UINT64_MAX);
}

static void verify(const struct modelled *m)
{
	for (uint64_t page = 0; m->morsel && page * 4096 < m->bytes; page++)
		verify_page(m, page);
}

static void name_of(unsigned i, char name[16])
{
	snprintf(name, 16, "m%u", i);
}

static void model_new(struct morsel_pool *pool, unsigned i, uint64_t *random)
{
	static const uint32_t flags[] = {0, 0, MORSEL_EVICTABLE, MORSEL_SCATTERED, MORSEL_LAZY};
	static const uint32_t pages[] = {0, 0, MORSEL_PAGES_4K};
	struct modelled *m = &model[i];
	char name[16];

	name_of(i, name);
	*m = (struct modelled){.bytes = test_random(random) % (PAGES_MAX * 4096 - 1) + 1};
	m->morsel = object_create(pool, name, m->bytes, flags[test_random(random) % 5],
				  pages[test_random(random) % 3]);
}

static void model_clone(unsigned from, unsigned to, bool sealed)
{
	char name[16];
	struct morsel *clone;
	int rc;

	name_of(to, name);
	rc = sealed ? morsel_snapshot(model[from].morsel, name, &clone)
		    : morsel_clone(model[from].morsel, name, &clone);
	if (rc == -EMLINK)
		return;
	assert_ok(rc);
	model[to] = model[from];
	model[to].morsel = clone;
	model[to].sealed = sealed;
}

static void model_drop(struct morsel_pool *pool, unsigned i)
{
	char name[16];

	name_of(i, name);
	assert_ok(morsel_unlink(pool, name));
	assert_ok(morsel_close(model[i].morsel));
	model[i].morsel = NULL;
}

static void model_write(struct modelled *m, uint64_t page, uint32_t version)
{
	assert_ok(mrs_morsel_fill(m->morsel, page, 1));
	assert_ok(mrs_share_break(m->morsel, page, 1));
	object_write(m->morsel, version, page * 4096, mrs_min(m->bytes - page * 4096, 4096u));
	m->version[page] = version;
}

static void model_resize(struct modelled *m, uint64_t bytes)
{
	uint64_t kept = mrs_min(bytes, m->bytes);

	assert_ok(morsel_resize(m->morsel, bytes));
	/* The rest of the last page is zero: its version is only good below. */
	if (kept % 4096 && kept < m->bytes) {
		m->bytes = kept;
		model_write(m, kept / 4096, 0x7fffffff);
	}
	m->bytes = bytes;
	if (kept % 4096 && bytes > kept) {
		uint64_t page = kept / 4096;

		model_write(m, page, 0x7ffffffe);
	}
	for (uint64_t page = (kept + 4095) / 4096; page < PAGES_MAX; page++)
		m->version[page] = 0;
}

static void model_step(struct morsel_pool *pool, uint64_t *random, uint32_t version)
{
	unsigned i = test_random(random) % MORSELS, j = test_random(random) % MORSELS;
	struct modelled *m = &model[i];
	uint64_t kind = test_random(random) % 100, page;

	if (!m->morsel) {
		if (model[j].morsel)
			model_clone(j, i, kind < 15);
		else
			model_new(pool, i, random);
		return;
	}
	page = m->bytes ? test_random(random) % ((m->bytes + 4095) / 4096) : 0;
	if (kind < 8)
		model_drop(pool, i);
	else if (kind < 14 && !m->sealed)
		model_resize(m, test_random(random) % (PAGES_MAX * 4096));
	else if (kind < 85 && !m->sealed && m->bytes)
		model_write(m, kind < 50 ? page : page & 63, version);
	else if (m->bytes)
		verify_page(m, page);
}

static void test_model(void **state)
{
	struct morsel_pool *pool = object_pool(256 * MIB);
	uint64_t random = test_seed(), steps = COUNT_CLONE_MODEL_STEPS;

	printf("%llu steps\n", (unsigned long long)steps);
	for (uint64_t i = 1; i <= steps; i++) {
		model_step(pool, &random, (uint32_t)i);
		snprintf(object_context, sizeof(object_context), "(step %llu)",
			 (unsigned long long)i);
		if (!(i % 100))
			object_check(pool);
		if (!(i % 500))
			for (unsigned k = 0; k < MORSELS; k++)
				verify(&model[k]);
	}
	for (unsigned k = 0; k < MORSELS; k++) {
		verify(&model[k]);
		if (model[k].morsel)
			model_drop(pool, k);
		object_check(pool);
	}
	object_context[0] = 0;
	object_pool_end(pool);
}

/* ---- deaths ---- */

static int child(const char *op, int fd, const char *argument)
{
	struct morsel_pool *pool;
	struct morsel *morsel, *clone;

	assert_ok(morsel_pool_open_fd(fd, NULL, &pool));
	morsel = object_open(pool, "m");
	if (!strcmp(op, "clone")) {
		assert_ok(morsel_clone(morsel, "c", &clone));
		write_page(morsel, 700, 5);
		write_page(clone, 701, 6);
		write_page(clone, 3, 6);
		write_page(morsel, 701, 5);
		morsel_close(clone);
		assert_ok(morsel_unlink(pool, "c"));
	}
	morsel_close(morsel);
	morsel_pool_close(pool);
	return 0;
}

static const char *const doomed[] = {
	"coherence.claimed",   "coherence.linked",    "coherence.made",	     "clone.noted",
	"clone.frozen",	       "clone.settled",	      "clone.protected",     "clone.counted",
	"clone.marked",	       "clone.shared",	      "clone.thawed",	     "clone.made",
	"break.table.got",     "break.lock.noted",    "break.table.locked",  "break.table.copied",
	"break.table.named",   "break.table.linked",  "break.table.dropped", "break.page.got",
	"break.page.backed",   "break.page.copied",   "break.page.locked",   "break.page.named",
	"break.page.linked",   "break.page.dropped",  "table.trim.sharing",  "table.trim.unshared",
	"table.expand.linked", "break.split.noted",   "break.split.locking", "break.split.locked",
	"break.split.filled",  "break.split.linking", "break.split.linked",
};

static bool is_seen_once(struct morsel *morsel, uint64_t page)
{
	return page_is(morsel, page, 1) || page_is(morsel, page, 5);
}

static void die_at(const char *probe, unsigned hit)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = object_create(pool, "m", 5 * MIB, 0, 0), *clone;
	char kill[64];
	int status;

	object_write(morsel, 1, 0, 5 * MIB);
	snprintf(kill, sizeof(kill), "%s:%u", probe, hit);
	snprintf(object_context, sizeof(object_context), "(killed at %s)", kill);
	status = object_child(pool, "clone", "", kill);
	assert_true(WIFEXITED(status) ? !WEXITSTATUS(status) : WTERMSIG(status) == SIGKILL);
	if (WIFEXITED(status) && hit == 1)
		fail_msg("nobody came by %s", probe);
	assert_true(morsel_pool_reap(pool) >= 0);
	object_check(pool);
	assert_int_equal(object_differs(morsel, 1, 0, 700 * 4096), UINT64_MAX);
	assert_true(is_seen_once(morsel, 700) && is_seen_once(morsel, 701));
	if (object_exists(pool, "c")) {
		clone = object_open(pool, "c");
		assert_true(page_is(clone, 700, 1));
		write_page(clone, 702, 9);
		morsel_close(clone);
		assert_ok(morsel_unlink(pool, "c"));
	}
	/* And everything goes on. */
	assert_ok(morsel_clone(morsel, "d", &clone));
	write_page(morsel, 702, 7);
	assert_true(page_is(clone, 702, 1));
	morsel_close(clone);
	assert_ok(morsel_unlink(pool, "d"));
	object_check(pool);
	morsel_close(morsel);
	assert_ok(morsel_unlink(pool, "m"));
	object_pool_end(pool);
	object_context[0] = 0;
}

static void test_deaths(void **state)
{
	for (size_t i = 0; i < mrs_array_length(doomed); i++) {
		die_at(doomed[i], 1);
		die_at(doomed[i], 2);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes), cmocka_unit_test(test_frees_all),
		cmocka_unit_test(test_depth), cmocka_unit_test(test_snapshot),
		cmocka_unit_test(test_names), cmocka_unit_test(test_resize),
		cmocka_unit_test(test_lazy),  cmocka_unit_test(test_refused),
		cmocka_unit_test(test_model), cmocka_unit_test(test_deaths),
	};

	if (argc > 3 && !strcmp(argv[1], "--child"))
		return child(argv[2], atoi(argv[3]), argc > 4 ? argv[4] : "");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
