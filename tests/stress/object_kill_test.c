/*
 * Kills: workers do random operations on few names of one pool; one of them is killed, half of the
 * times at a probe chosen by name, half at a random time, while another goes on. After each kill
 * the pool is cleaned up (or the next worker is left to do it) and checked, and all content is
 * verified.
 *
 * Content tells what it should be: word 0 is a seed, every further word a function of seed and
 * offset, up to where the morsel was once cut; behind that are zeros. A morsel gets a public name
 * only when its content is complete.
 */
#include "core/object_support.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/counts.h"

#define NAMES	   6
#define MAX_BYTES  (600 * KIB)
#define KEPT	   3
#define WORKER_OPS 400
#define SKIP	   77

static const char *import_file;

static unsigned below(uint64_t *random, uint64_t end)
{
	return (unsigned)(test_random(random) % end);
}

/* ---- what content must be ---- */

struct judge {
	uint64_t seed;
	bool cut; /* only zeros from here on */
	bool wrong;
	uint64_t at;
};

static uint64_t expected(uint64_t seed, uint64_t offset)
{
	return offset ? object_word(seed, offset) : seed;
}

/* A word that the end of the content cut may be half there. */
static bool is_cut_word(uint64_t found, uint64_t full)
{
	for (unsigned bytes = 0; bytes < 8; bytes++) {
		uint64_t mask = bytes ? ~0ull >> (64 - 8 * bytes) : 0;

		if (found == (full & mask))
			return true;
	}
	return false;
}

static int judge_piece(void *ctx, uint64_t offset, void *memory, uint64_t bytes)
{
	struct judge *judge = ctx;

	for (uint64_t i = 0; i < bytes; i += 8) {
		uint64_t word = 0, want;

		if (memory)
			memcpy(&word, (char *)memory + i, mrs_min(8, bytes - i));
		if (!offset && !i)
			judge->seed = word;
		want = judge->cut ? 0 : expected(judge->seed, offset + i);
		if (bytes - i < 8)
			want &= ~0ull >> (64 - 8 * (bytes - i));
		if (word == want)
			continue;
		if (!judge->cut && is_cut_word(word, want)) {
			judge->cut = true;
			continue;
		}
		judge->wrong = true;
		judge->at = offset + i;
		return 1;
	}
	return 0;
}

/* True if the content is what it should be. A view keeps it from being cut meanwhile. */
static bool is_right(struct morsel *morsel, struct judge *judge)
{
	uint64_t bytes = mrs_morsel_bytes(morsel), hold;

	*judge = (struct judge){0};
	if (mrs_morsel_view_publish(morsel, mrs_pages_in(bytes), false, &hold))
		return true;
	if (bytes >= 8)
		mrs_content_each(morsel, 0, bytes, UINT64_MAX, judge_piece, judge);
	/* Seed 0: never written, all zero. */
	mrs_morsel_view_withdraw(morsel, hold);
	return !judge->wrong || !judge->seed;
}

static int fill_piece(void *ctx, uint64_t offset, void *memory, uint64_t bytes)
{
	for (uint64_t i = 0; i < bytes; i += 8) {
		uint64_t word = expected(*(uint64_t *)ctx, offset + i);

		memcpy((char *)memory + i, &word, mrs_min(8, bytes - i));
	}
	return 0;
}

static void write_content(struct morsel *morsel, uint64_t seed)
{
	mrs_content_each(morsel, 0, mrs_morsel_bytes(morsel), UINT64_MAX, fill_piece, &seed);
}

/* ---- the worker ---- */

struct worker {
	struct morsel_pool *pool;
	uint64_t random;
	char name[16], other[16];
};

static void pick_names(struct worker *w)
{
	snprintf(w->name, sizeof(w->name), "m%u", below(&w->random, NAMES));
	snprintf(w->other, sizeof(w->other), "m%u", below(&w->random, NAMES));
}

/* Errors that concurrency and a small pool explain. */
static int odd(int rc)
{
	switch (rc) {
	case -ENOENT:
	case -EEXIST:
	case -EBUSY:
	case -EROFS:
	case -ENOSPC:
	case -ETIMEDOUT: /* somebody got no processor for seconds */
		return 0;
	default:
		return rc;
	}
}

static int make_and_publish(struct worker *w)
{
	static const uint32_t flags[] = {0, 0, MORSEL_SCATTERED, MORSEL_CONTIGUOUS};
	struct morsel_opts opts = {
		.size = sizeof(opts),
		.flags = MORSEL_CREATE | MORSEL_EXCL | flags[below(&w->random, 4)],
		.pages = below(&w->random, 2) ? MORSEL_PAGES_4K : MORSEL_PAGES_MIXED,
		.bytes = 16 + below(&w->random, MAX_BYTES),
	};
	struct morsel *morsel;
	char name[48];
	int rc;

	snprintf(name, sizeof(name), "t.%d.%u", (int)getpid(), below(&w->random, 1000000));
	rc = morsel_open(w->pool, name, &opts, &morsel);
	if (rc)
		return odd(rc);
	write_content(morsel, test_random(&w->random) | 1);
	if (below(&w->random, 4))
		rc = morsel_publish(morsel, w->name);
	else
		rc = morsel_rename(w->pool, name, w->name);
	if (rc == -EEXIST)
		rc = morsel_unlink(w->pool, name);
	morsel_close(morsel);
	return rc;
}

static int resize_or_seal(struct worker *w)
{
	struct morsel *morsel;
	int rc = morsel_open(w->pool, w->name, NULL, &morsel);

	if (rc)
		return odd(rc);
	if (below(&w->random, 12))
		rc = morsel_resize(morsel, below(&w->random, MAX_BYTES));
	else
		rc = morsel_seal(morsel);
	morsel_close(morsel);
	return odd(rc);
}

static int lazy_fill(struct worker *w)
{
	struct morsel_opts opts = {.size = sizeof(opts),
				   .flags = MORSEL_CREATE | MORSEL_LAZY,
				   .pages = MORSEL_PAGES_4K,
				   .bytes = 64 * KIB};
	struct morsel *morsel;
	int rc;

	w->name[0] = 'z';
	rc = morsel_open(w->pool, w->name, &opts, &morsel);
	if (rc)
		return odd(rc);
	rc = mrs_morsel_fill(morsel, below(&w->random, 8), 1 + below(&w->random, 8));
	if (!rc && !below(&w->random, 4))
		rc = morsel_advise(morsel, 0, 20 * KIB, MORSEL_ADVICE_FREE);
	morsel_close(morsel);
	if (!rc && !below(&w->random, 4))
		rc = morsel_unlink(w->pool, w->name);
	return odd(rc);
}

static int import_one(struct worker *w)
{
	struct morsel *morsel;
	int rc;

	w->name[0] = 'i';
	rc = morsel_import(w->pool, w->name, import_file, NULL, &morsel);
	if (rc)
		return odd(rc);
	morsel_close(morsel);
	return below(&w->random, 2) ? odd(morsel_unlink(w->pool, w->name)) : 0;
}

static int many_handles(struct worker *w)
{
	struct morsel *handle[MRS_OPEN_INLINE + 20];
	int count = 0, rc = 0;

	while (count < (int)mrs_array_length(handle) && !rc) {
		rc = morsel_open(w->pool, w->name, NULL, &handle[count]);
		count += !rc;
	}
	while (count)
		morsel_close(handle[--count]);
	return odd(rc);
}

static int reap(struct worker *w)
{
	int rc = morsel_pool_reap(w->pool);

	return rc < 0 ? odd(rc) : 0;
}

static int verify_one(struct worker *w)
{
	struct morsel *morsel;
	struct judge judge;
	int rc = morsel_open(w->pool, w->name, NULL, &morsel);

	if (rc)
		return odd(rc);
	if (!is_right(morsel, &judge)) {
		fprintf(stderr, "%s: wrong content at byte %llu of %llu\n", w->name,
			(unsigned long long)judge.at, (unsigned long long)mrs_morsel_bytes(morsel));
		rc = -EPROTO;
	}
	morsel_close(morsel);
	return rc;
}

static int worker_step(struct worker *w)
{
	pick_names(w);
	switch (below(&w->random, 16)) {
	case 0:
	case 1:
	case 2:
	case 3:
		return make_and_publish(w);
	case 4:
	case 5:
		return odd(morsel_unlink(w->pool, w->name));
	case 6:
	case 7:
		return odd(morsel_rename(w->pool, w->name, w->other));
	case 8:
	case 9:
	case 10:
		return resize_or_seal(w);
	case 11:
		return lazy_fill(w);
	case 12:
		return import_one(w);
	case 13:
		return below(&w->random, 4) ? 0 : many_handles(w);
	case 14:
		return reap(w);
	default:
		return verify_one(w);
	}
}

static int worker_main(char **argv)
{
	struct worker w = {0};
	int rc = morsel_pool_open_fd(atoi(argv[3]), NULL, &w.pool);

	import_file = argv[4];
	w.random = strtoull(argv[2], NULL, 10);
	for (int i = 0; i < WORKER_OPS && !rc; i++)
		rc = worker_step(&w);
	if (rc) {
		fprintf(stderr, "worker: %d: %s\n", rc, morsel_errormsg());
		return 3;
	}
	return morsel_pool_close(w.pool) ? 4 : 0;
}

/* ---- probes: the log's format is that of core/base/probe.c ---- */

#define PROBES 512

struct probe_record {
	uint32_t claimed, ready;
	uint64_t hits;
	char name[48];
};

struct probes {
	struct probe_record *record;
	unsigned kills[PROBES];
	char path[128];
};

static void probes_open(struct probes *probes)
{
	const char *path = object_file("probes", 0, sizeof(struct probe_record) * PROBES);
	int fd;

	snprintf(probes->path, sizeof(probes->path), "%s", path);
	fd = open(path, O_RDWR | O_TRUNC);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, sizeof(struct probe_record) * PROBES), 0);
	probes->record =
		mmap(NULL, sizeof(struct probe_record) * PROBES, PROT_READ, MAP_SHARED, fd, 0);
	assert_true(probes->record != MAP_FAILED);
	close(fd);
}

/* A probe that some worker has met, whose name begins so: the one killed at least often of three.
 */
static int pick_probe(struct probes *probes, uint64_t *random, const char *prefix)
{
	int best = -1;

	for (int tries = 0, found = 0; tries < 10000 && found < 3; tries++) {
		int i = (int)below(random, PROBES);

		if (!probes->record[i].hits ||
		    strncmp(probes->record[i].name, prefix, strlen(prefix)))
			continue;
		found++;
		if (best < 0 || probes->kills[i] < probes->kills[best])
			best = i;
	}
	return best;
}

/* ---- the driver ---- */

struct drive {
	struct morsel_pool *pool;
	struct morsel *kept[KEPT];
	struct probes probes;
	uint64_t random;
	unsigned at_probe, at_time, finished;
	unsigned intents[MRS_INTENT_OTHER + 1][4];
};

static void sleep_us(unsigned us)
{
	struct timespec time = {.tv_nsec = (long)us * 1000};

	nanosleep(&time, NULL);
}

static pid_t start_worker(struct drive *d, const char *kill_at)
{
	char seed_text[32];

	snprintf(seed_text, sizeof(seed_text), "%llu",
		 (unsigned long long)(test_random(&d->random) >> 1));
	return object_child_start(d->pool, seed_text, import_file, kill_at);
}

/* Waits at most so long, then kills. */
static int wait_worker(pid_t pid, unsigned ms, bool *late)
{
	int status;

	*late = false;
	for (unsigned i = 0; i < ms * 5; i++) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			return status;
		sleep_us(200);
	}
	*late = true;
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return status;
}

static void expect_killed_or_done(int status)
{
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		return;
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		fail_msg("a worker ended with status 0x%x", status);
}

/* What the dead were in the middle of. */
static void note_intents(void *ctx, unsigned slot, struct mrs_slot *shared)
{
	struct drive *d = ctx;

	if (mrs_pool_slot_is_alive(d->pool, slot))
		return;
	for (int i = 0; i < MRS_INTENTS_PER_SLOT; i++)
		if (shared->intent[i].op && shared->intent[i].op <= MRS_INTENT_OTHER)
			d->intents[shared->intent[i].op][shared->intent[i].step & 3]++;
}

static int verify_each(void *ctx, const struct morsel_info *info)
{
	struct drive *d = ctx;
	struct morsel *morsel;
	struct judge judge;

	if (info->name[0] == 't')
		return 0;
	if (morsel_open(d->pool, info->name, NULL, &morsel))
		return 0;
	if (!is_right(morsel, &judge))
		fail_msg("%s: wrong content at byte %llu of %llu", info->name,
			 (unsigned long long)judge.at,
			 (unsigned long long)mrs_morsel_bytes(morsel));
	return morsel_close(morsel);
}

static int sweep_each(void *ctx, const struct morsel_info *info)
{
	struct drive *d = ctx;
	int pid = 0;

	/* Half-made morsels of the dead; the living go on with theirs. */
	if (sscanf(info->name, "t.%d.", &pid) == 1 && kill(pid, 0) && errno == ESRCH)
		morsel_unlink(d->pool, info->name);
	return 0;
}

static void verify(struct drive *d)
{
	struct judge judge;

	assert_ok(morsel_pool_reap(d->pool));
	object_check(d->pool);
	for (int i = 0; i < KEPT; i++) {
		assert_true(is_right(d->kept[i], &judge));
		assert_int_equal(judge.seed, 1000 + i);
		assert_false(judge.cut);
	}
	assert_ok(morsel_list(d->pool, verify_each, d));
	assert_ok(morsel_list(d->pool, sweep_each, d));
}

/* States of an intent record, and the probes that lie in them. */
static const struct {
	unsigned op, step;
	const char *prefix;
} states[] = {
	{MRS_INTENT_CREATE, 0, "create."},
	{MRS_INTENT_RESIZE, MRS_RESIZE_SIZING, "resize."},
	{MRS_INTENT_RESIZE, MRS_RESIZE_CUTTING, "resize.cutting"},
	{MRS_INTENT_RESIZE, MRS_RESIZE_SEALING, "seal.set"},
	{MRS_INTENT_UNLINK, 0, "unlink."},
	{MRS_INTENT_RENAME, 0, "rename."},
	{MRS_INTENT_PUBLISH, 0, "publish."},
	{MRS_INTENT_FREE, 0, "free."},
	{MRS_INTENT_OTHER, 0, "open.chain."},
};

/* Any probe, or one in the state that the fewest have died in. */
static int choose_probe(struct drive *d)
{
	size_t best = 0;

	if (below(&d->random, 2))
		return pick_probe(&d->probes, &d->random, "");
	for (size_t i = 1; i < mrs_array_length(states); i++)
		if (d->intents[states[i].op][states[i].step] <
		    d->intents[states[best].op][states[best].step])
			best = i;
	return pick_probe(&d->probes, &d->random, states[best].prefix);
}

static void kill_once(struct drive *d)
{
	int probe = d->at_probe <= d->at_time ? choose_probe(d) : -1;
	pid_t other = below(&d->random, 2) ? start_worker(d, NULL) : 0, pid;
	char text[64] = "";
	bool late;
	int status;

	if (probe >= 0)
		snprintf(text, sizeof(text), "%s:%u", d->probes.record[probe].name,
			 1 + below(&d->random, 3));
	snprintf(object_context, sizeof(object_context), "(kill %u at %s)",
		 d->at_probe + d->at_time, probe >= 0 ? text : "a random time");
	pid = start_worker(d, probe >= 0 ? text : NULL);
	status = wait_worker(pid, probe >= 0 ? 250 : 2 + below(&d->random, 30), &late);
	expect_killed_or_done(status);
	if (WIFEXITED(status))
		d->finished++;
	else if (late)
		d->at_time++;
	else
		d->at_probe++, d->probes.kills[probe]++;
	mrs_pool_each_slot(d->pool, note_intents, d);
	/* Now and then the cleaning up is left to the next worker, who may be killed at it. */
	if (below(&d->random, 4))
		verify(d);
	if (other)
		expect_killed_or_done(wait_worker(other, 1 + below(&d->random, 20), &late));
}

static int unlink_each(void *ctx, const struct morsel_info *info)
{
	struct drive *d = ctx;

	return morsel_unlink(d->pool, info->name);
}

static void print_result(struct drive *d)
{
	static const char *const ops[] = {"none",    "create",	"resize",   "unlink",
					  "rename",  "publish", "free",	    "back",
					  "segment", "grow",	"retarget", "other"};

	printf("%u kills at probes, %u at random times, %u workers came through\n", d->at_probe,
	       d->at_time, d->finished);
	for (int i = 0; i < PROBES; i++)
		if (d->probes.record[i].hits)
			printf("  %-36s %8llu hits %5u kills\n", d->probes.record[i].name,
			       (unsigned long long)d->probes.record[i].hits, d->probes.kills[i]);
	for (unsigned op = 1; op <= MRS_INTENT_OTHER; op++)
		for (unsigned step = 0; step < 4; step++)
			if (d->intents[op][step])
				printf("  intent %-10s step %u  %5u deaths\n", ops[op], step,
				       d->intents[op][step]);
}

static void test_kills(void **state)
{
	struct drive d = {.pool = object_pool(64 * MIB), .random = test_seed()};
	struct morsel_pool_stat stat = {.size = sizeof(stat)};
	uint64_t free_bytes;
	bool late;

	probes_open(&d.probes);
	setenv("MORSEL_PROBE_LOG", d.probes.path, 1);
	for (uint64_t i = 0; i < KEPT; i++) {
		char name[16];

		snprintf(name, sizeof(name), "kept%llu", (unsigned long long)i);
		d.kept[i] = object_create(d.pool, name, 100 * KIB + i, i ? MORSEL_SCATTERED : 0,
					  MORSEL_PAGES_4K);
		write_content(d.kept[i], 1000 + i);
		assert_ok(morsel_unlink(d.pool, name));
	}
	free_bytes = object_free_bytes(d.pool);
	expect_killed_or_done(wait_worker(start_worker(&d, NULL), 5000, &late));
	while (d.at_probe + d.at_time < COUNT_KILLS)
		kill_once(&d);
	verify(&d);
	print_result(&d);
	assert_ok(morsel_list(d.pool, unlink_each, &d));
	assert_ok(morsel_pool_stat(d.pool, &stat));
	assert_int_equal(stat.morsels, KEPT);
	/* Cells have come in segments of 128 KiB. */
	assert_true(stat.bytes_free + 4 * MIB >= free_bytes);
	for (int i = 0; i < KEPT; i++)
		assert_ok(morsel_close(d.kept[i]));
	assert_ok(morsel_pool_stat(d.pool, &stat));
	assert_int_equal(stat.morsels, 0);
	unlink(d.probes.path);
	object_pool_end(d.pool);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_kills)};
	static char path[128];
	int rc;

	if (argc == 5 && !strcmp(argv[1], "--child"))
		return worker_main(argv);
#ifndef MORSEL_PROBES
	fprintf(stderr, "skipped: this build has no probes (MORSEL_PROBES)\n");
	return SKIP;
#endif
	snprintf(path, sizeof(path), "%s", object_file("import", 7, 0));
	import_file = path;
	{
		FILE *file = fopen(path, "w");

		for (uint64_t offset = 0; file && offset < 50 * KIB; offset += 8) {
			uint64_t word = expected(77, offset);

			fwrite(&word, 8, 1, file);
		}
		if (!file || fclose(file))
			return 1;
	}
	rc = cmocka_run_group_tests_name("object: kills", tests, NULL, NULL);
	unlink(path);
	return rc;
}
