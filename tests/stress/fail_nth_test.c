/*
 * Fail the n-th: for every exported function, every call that it makes to libc or the kernel is
 * failed in turn. Whatever fails, the function answers success or an error in words, nothing is
 * lost: the pool passes its check, what existed before is unchanged, and the same call works
 * afterwards.
 *
 * Each n runs in a process of its own on a pool of its own. The list of functions is read from the
 * library (nm), so that a function without a scenario here fails the test.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <morsel/morsel.h>
#include <morsel/view.h>

#include "stress/fail_nth_scenarios.h"
#include "support/counts.h"
#include "support/fail_nth.h"

#define MIB	      (1024 * 1024ull)
#define WITNESS_BYTES (3 * 4096ull)
#define N_MAX	      4000

int scenario_done(int code)
{
	fail_nth_disarm();
	return code;
}

void scenario_arm(void)
{
	fail_nth_arm(strtoull(getenv("FAIL_NTH"), NULL, 10));
}

static int act_pool_open(struct bench *b)
{
	struct morsel_pool_opts opts = {.size = sizeof(opts),
					.flags = MORSEL_POOL_CREATE,
					.bytes = 64 * MIB,
					.bytes_max = 128 * MIB};
	struct morsel_pool *pool;
	int code = scenario_done(morsel_pool_open(NULL, &opts, &pool));

	return code ? code : morsel_pool_close(pool);
}

static int act_pool_open_path(struct bench *b)
{
	struct morsel_pool *pool;
	int code = scenario_done(morsel_pool_open(b->pool_path, NULL, &pool));

	return code ? code : morsel_pool_close(pool);
}

static int act_pool_open_fd(struct bench *b)
{
	struct morsel_pool *pool;
	int code = scenario_done(morsel_pool_open_fd(morsel_pool_fd(b->pool), NULL, &pool));

	return code ? code : morsel_pool_close(pool);
}

static int act_pool_send(struct bench *b)
{
	return scenario_done(morsel_pool_send(b->pool, b->socket[0]));
}

static int act_pool_receive(struct bench *b)
{
	struct morsel_pool *pool;
	int code;

	fail_nth_disarm();
	if (morsel_pool_send(b->pool, b->socket[0]))
		abort();
	scenario_arm();
	code = scenario_done(morsel_pool_receive(b->socket[1], NULL, &pool));
	return code ? code : morsel_pool_close(pool);
}

static int act_pool_destroy(struct bench *b)
{
	int code = scenario_done(morsel_pool_destroy(b->pool_path, 0));

	if (!code && !access(b->pool_path, F_OK))
		abort();
	if (!code) { /* there again, for the second try */
		struct morsel_pool_opts opts = {.size = sizeof(opts),
						.flags = MORSEL_POOL_CREATE,
						.bytes = 64 * MIB,
						.bytes_max = 64 * MIB};
		struct morsel_pool *pool;

		if (morsel_pool_open(b->pool_path, &opts, &pool) || morsel_pool_close(pool))
			abort();
	}
	return code;
}

static int act_pool_grow(struct bench *b)
{
	return scenario_done(morsel_pool_grow(b->pool, 64 * MIB, 0));
}

static int act_pool_set_budget(struct bench *b)
{
	return scenario_done(morsel_pool_set_budget(b->pool, 100 * MIB));
}

static int act_pool_set_watermarks(struct bench *b)
{
	morsel_pool_set_budget(b->pool, 100 * MIB);
	return scenario_done(morsel_pool_set_watermarks(b->pool, 80 * MIB, 90 * MIB));
}

static int act_pool_stat(struct bench *b)
{
	struct morsel_pool_stat stat = {.size = sizeof(stat)};

	return scenario_done(morsel_pool_stat(b->pool, &stat));
}

static int act_pool_check(struct bench *b)
{
	int findings = scenario_done(morsel_pool_check(b->pool, NULL, NULL));

	/* What it could not look at is a finding too; nothing else is one. */
	if (findings > 0 && !fail_nth_victim())
		abort();
	return findings > 0 ? 0 : findings;
}

static int act_pool_reap(struct bench *b)
{
	int reaped = scenario_done(morsel_pool_reap(b->pool));

	return reaped < 0 ? reaped : 0;
}

static int act_pool_fd(struct bench *b)
{
	return scenario_done(morsel_pool_fd(b->pool) >= 0 ? 0 : -EBADF);
}

static int act_open(struct bench *b)
{
	struct morsel_opts opts = {.size = sizeof(opts),
				   .flags = MORSEL_CREATE | MORSEL_EXCL,
				   .bytes = 5 * MIB + 4096};
	struct morsel *m;
	int code = scenario_done(morsel_open(b->pool, "new", &opts, &m));

	if (code)
		return code;
	return morsel_close(m) || morsel_unlink(b->pool, "new") ? -ENOTRECOVERABLE : 0;
}

static int act_import(struct bench *b)
{
	struct morsel *m;
	int code = scenario_done(morsel_import(b->pool, "imported", b->file, NULL, &m));

	if (code)
		return code;
	return morsel_close(m) || morsel_unlink(b->pool, "imported") ? -ENOTRECOVERABLE : 0;
}

static int act_export(struct bench *b)
{
	char target[80];
	int code;

	snprintf(target, sizeof(target), "%s.out", b->file);
	code = scenario_done(morsel_export(b->morsel, target, NULL));
	if (code && !access(target, F_OK))
		abort(); /* half an export under the final name */
	unlink(target);
	return code;
}

static int act_close(struct bench *b)
{
	struct morsel *m;
	int code;

	fail_nth_disarm();
	if (morsel_open(b->pool, "m", NULL, &m))
		abort();
	scenario_arm();
	code = scenario_done(morsel_close(m));
	return code;
}

static int act_resize(struct bench *b)
{
	int code = scenario_done(morsel_resize(b->morsel, 3 * MIB));

	return code ? code : morsel_resize(b->morsel, MIB);
}

static int act_seal(struct bench *b)
{
	struct morsel_opts opts = {.size = sizeof(opts), .flags = MORSEL_CREATE, .bytes = 4096};
	struct morsel *m;
	int code;

	fail_nth_disarm();
	if (morsel_open(b->pool, "sealed", &opts, &m))
		abort();
	scenario_arm();
	code = scenario_done(morsel_seal(m));
	morsel_close(m);
	morsel_unlink(b->pool, "sealed");
	return code;
}

static void make_named(struct bench *b, const char *name)
{
	struct morsel_opts opts = {.size = sizeof(opts), .flags = MORSEL_CREATE, .bytes = 2 * MIB};
	struct morsel *m;

	if (morsel_open(b->pool, name, &opts, &m) || morsel_close(m))
		abort();
}

static int act_unlink(struct bench *b)
{
	int code;

	fail_nth_disarm();
	make_named(b, "gone");
	scenario_arm();
	code = scenario_done(morsel_unlink(b->pool, "gone"));
	if (code)
		morsel_unlink(b->pool, "gone");
	return code;
}

static int act_rename(struct bench *b)
{
	struct morsel *m;
	int code;

	fail_nth_disarm();
	make_named(b, "from");
	scenario_arm();
	code = scenario_done(morsel_rename(b->pool, "from", "to"));
	if (morsel_open(b->pool, code ? "from" : "to", NULL, &m)) /* exactly one of the names */
		abort();
	morsel_close(m);
	if (!morsel_unlink(b->pool, code ? "to" : "from"))
		abort();
	morsel_unlink(b->pool, code ? "from" : "to");
	return code;
}

static int act_publish(struct bench *b)
{
	struct morsel_opts opts = {.size = sizeof(opts), .flags = MORSEL_CREATE, .bytes = 2 * MIB};
	struct morsel *m;
	int code;

	fail_nth_disarm();
	make_named(b, "current");
	if (morsel_open(b->pool, "next", &opts, &m))
		abort();
	scenario_arm();
	code = scenario_done(morsel_publish(m, "current"));
	morsel_close(m);
	if (morsel_unlink(b->pool, "current"))
		abort();
	morsel_unlink(b->pool, "next");
	return code;
}

static int act_info(struct bench *b)
{
	struct morsel_info info = {.size = sizeof(info)};

	return scenario_done(morsel_info(b->morsel, &info));
}

static int count_names(void *ctx, const struct morsel_info *info)
{
	++*(int *)ctx;
	return 0;
}

static int act_list(struct bench *b)
{
	int names = 0;
	int code = scenario_done(morsel_list(b->pool, count_names, &names));

	if (!code && names != 2)
		abort();
	return code;
}

static int count_runs(void *ctx, const struct morsel_run *run)
{
	*(uint64_t *)ctx += run->bytes;
	return 0;
}

static int act_runs(struct bench *b)
{
	uint64_t bytes = 0;
	int code = scenario_done(morsel_runs(b->morsel, 0, MIB, count_runs, &bytes));

	if (!code && bytes != MIB)
		abort();
	return code;
}

static int act_tensor(struct bench *b)
{
	struct morsel_tensor tensor;
	int code = scenario_done(morsel_tensor(b->morsel, "weight", &tensor));

	return code == -EOPNOTSUPP ? 0 : code;
}

static int act_tensor_at(struct bench *b)
{
	struct morsel_tensor tensor;
	int code = scenario_done(morsel_tensor_at(b->morsel, 0, &tensor));

	return code == -EOPNOTSUPP || code == -ERANGE ? 0 : code;
}

static int act_advise(struct bench *b)
{
	return scenario_done(morsel_advise(b->morsel, 0, MIB, MORSEL_ADVICE_PREFETCH));
}

static int act_map(struct bench *b)
{
	struct morsel_view *view;
	int code = scenario_done(morsel_map(b->morsel, NULL, &view));

	if (!code)
		morsel_view_destroy(view);
	return code;
}

static int act_view_destroy(struct bench *b)
{
	struct morsel_view *view;

	fail_nth_disarm();
	if (morsel_map(b->morsel, NULL, &view))
		abort();
	scenario_arm();
	morsel_view_destroy(view);
	return scenario_done(0);
}

static int act_acquire(struct bench *b)
{
	struct morsel_grant grant;
	int code = scenario_done(morsel_acquire(b->view, 4096, 8192, MORSEL_READ, &grant));

	if (!code && *(unsigned char *)grant.addr != 0x55)
		abort();
	if (!code)
		morsel_release(&grant);
	return code;
}

static int act_release(struct bench *b)
{
	struct morsel_grant grant;

	fail_nth_disarm();
	if (morsel_acquire(b->view, 0, 4096, MORSEL_READ, &grant))
		abort();
	scenario_arm();
	morsel_release(&grant);
	return scenario_done(0);
}

static int act_addr(struct bench *b)
{
	return scenario_done(morsel_addr(b->view) ? 0 : -EFAULT);
}

static int act_pool_of(struct bench *b)
{
	return scenario_done(morsel_pool_of(b->morsel) == b->pool ? 0 : -EINVAL);
}

static int act_view_bytes(struct bench *b)
{
	return scenario_done(morsel_view_bytes(b->view) == MIB ? 0 : -EINVAL);
}

static int act_pool_close(struct bench *b)
{
	struct morsel_pool *pool;
	int code;

	fail_nth_disarm();
	if (morsel_pool_open_fd(morsel_pool_fd(b->pool), NULL, &pool))
		abort();
	scenario_arm();
	code = scenario_done(morsel_pool_close(pool));
	return code;
}

static int act_words(struct bench *b)
{
	morsel_log_set(NULL, NULL);
	return scenario_done(morsel_version() && morsel_fail(-EIO, "%d", 7) == -EIO &&
					     !strcmp(morsel_errormsg(), "7")
				     ? 0
				     : -EINVAL);
}

static const struct scenario scenarios[] = {
	{"morsel_pool_open", act_pool_open},
	{"morsel_pool_open", act_pool_open_path},
	{"morsel_pool_open_fd", act_pool_open_fd},
	{"morsel_pool_fd", act_pool_fd},
	{"morsel_pool_of", act_pool_of},
	{"morsel_pool_send", act_pool_send},
	{"morsel_pool_receive", act_pool_receive},
	{"morsel_pool_close", act_pool_close},
	{"morsel_pool_destroy", act_pool_destroy},
	{"morsel_pool_grow", act_pool_grow},
	{"morsel_pool_set_budget", act_pool_set_budget},
	{"morsel_pool_set_watermarks", act_pool_set_watermarks},
	{"morsel_pool_stat", act_pool_stat},
	{"morsel_pool_check", act_pool_check},
	{"morsel_pool_reap", act_pool_reap},
	{"morsel_open", act_open},
	{"morsel_import", act_import},
	{"morsel_export", act_export},
	{"morsel_close", act_close},
	{"morsel_resize", act_resize},
	{"morsel_seal", act_seal},
	{"morsel_unlink", act_unlink},
	{"morsel_rename", act_rename},
	{"morsel_publish", act_publish},
	{"morsel_info", act_info},
	{"morsel_list", act_list},
	{"morsel_runs", act_runs},
	{"morsel_tensor", act_tensor},
	{"morsel_tensor_at", act_tensor_at},
	{"morsel_advise", act_advise},
	{"morsel_map", act_map},
	{"morsel_addr", act_addr},
	{"morsel_view_bytes", act_view_bytes},
	{"morsel_view_destroy", act_view_destroy},
	{"morsel_acquire", act_acquire},
	{"morsel_release", act_release},
	{"morsel_errormsg", act_words},
	{"morsel_version", act_words},
	{"morsel_fail", act_words},
	{"morsel_log_set", act_words},
};

/* Functions that make no call at all: other tests see to that (core_frame_freestanding, model). */
static const char *const pure_prefixes[] = {"morsel_frames_", "morsel_type_", "morsel_format_"};

static void fill(struct morsel *m, uint64_t bytes, int value)
{
	struct morsel_view *view;

	if (morsel_map(m, NULL, &view))
		abort();
	memset(morsel_addr(view), value, bytes);
	morsel_view_destroy(view);
}

static bool holds(struct morsel *m, uint64_t bytes, int value)
{
	struct morsel_view *view;
	bool same = true;

	if (morsel_map(m, NULL, &view))
		return false;
	for (uint64_t i = 0; i < bytes; i++)
		same &= ((unsigned char *)morsel_addr(view))[i] == value;
	morsel_view_destroy(view);
	return same;
}

static void set_up(struct bench *b)
{
	struct morsel_pool_opts pool_opts = {.size = sizeof(pool_opts),
					     .flags = MORSEL_POOL_CREATE,
					     .bytes = 64 * MIB,
					     .bytes_max = 256 * MIB};
	struct morsel_opts opts = {.size = sizeof(opts), .flags = MORSEL_CREATE};
	struct morsel_pool *pool;
	int fd;

	snprintf(b->file, sizeof(b->file), "/tmp/morsel-fail-%d", getpid());
	snprintf(b->pool_path, sizeof(b->pool_path), "/dev/shm/morsel-fail-%d", getpid());
	fd = open(b->file, O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (fd < 0 || ftruncate(fd, 300000) || close(fd) ||
	    socketpair(AF_UNIX, SOCK_STREAM, 0, b->socket) ||
	    morsel_pool_open(b->pool_path, &pool_opts, &pool) || morsel_pool_close(pool) ||
	    morsel_pool_open(NULL, &pool_opts, &b->pool))
		abort();
	opts.bytes = WITNESS_BYTES;
	if (morsel_open(b->pool, "witness", &opts, &b->witness))
		abort();
	opts.bytes = MIB;
	if (morsel_open(b->pool, "m", &opts, &b->morsel))
		abort();
	fill(b->witness, WITNESS_BYTES, 0xaa);
	fill(b->morsel, MIB, 0x55);
	if (morsel_map(b->morsel, NULL, &b->view))
		abort();
}

static void report(void *ctx, const char *finding)
{
	fprintf(stderr, "pool check: %s\n", finding);
}

/* What must hold whatever failed; returns a text that says what does not. */
static const char *verify(struct bench *b)
{
	if (!holds(b->witness, WITNESS_BYTES, 0xaa))
		return "the witness changed";
	if (!holds(b->morsel, MIB, 0x55))
		return "the morsel changed";
	if (morsel_pool_check(b->pool, report, NULL))
		return "the pool check has findings";
	morsel_view_destroy(b->view);
	if (morsel_close(b->witness) || morsel_close(b->morsel) || morsel_pool_close(b->pool))
		return "closing failed";
	return NULL;
}

enum outcome { REACHED = 0, NOT_REACHED = 10, BROKEN = 11 };

/* Runs one scenario with its n-th call failed; in a process of its own. */
static int attempt(const struct scenario *s, uint64_t n)
{
	struct bench b = {0};
	const char *victim, *wrong = NULL;
	char text[24];
	int code;

	alarm(50);
	set_up(&b);
	snprintf(text, sizeof(text), "%llu", (unsigned long long)n);
	setenv("FAIL_NTH", text, 1);
	fail_nth_arm(n);
	code = s->act(&b);
	victim = fail_nth_victim();
	if (code > 0)
		wrong = "neither 0 nor a negative errno";
	else if (code < 0 && !*morsel_errormsg())
		wrong = "an error without words";
	else if (code < 0 && !victim)
		wrong = morsel_errormsg();
	if (!wrong && code < 0) {
		setenv("FAIL_NTH", "0", 1);
		if (s->act(&b))
			wrong = "the same call fails afterwards";
	}
	if (!wrong)
		wrong = verify(&b);
	unlink(b.file);
	unlink(b.pool_path);
	if (wrong)
		fprintf(stderr, "%s: call %llu (%s) failed, code %d: %s\n", s->name,
			(unsigned long long)n, victim ? victim : "none", code, wrong);
	return wrong ? BROKEN : victim ? REACHED : NOT_REACHED;
}

/* Fails each call of a scenario in turn until there is none; false at the first that breaks. */
static bool survives(const struct scenario *s, unsigned *points)
{
	for (uint64_t n = 1; n < N_MAX; n++) {
		int wait_status;
		pid_t child = fork();

		if (!child)
			_exit(attempt(s, n));
		assert_int_equal(waitpid(child, &wait_status, 0), child);
		if (!WIFEXITED(wait_status)) {
			fprintf(stderr, "%s: call %llu: signal %d\n", s->name,
				(unsigned long long)n, WTERMSIG(wait_status));
			return false;
		}
		if (WEXITSTATUS(wait_status) != REACHED)
			return WEXITSTATUS(wait_status) == NOT_REACHED;
		++*points;
	}
	return false;
}

static const char *only; /* of one function; NULL of all */

static unsigned broken_of(const struct scenario *list, size_t n, unsigned *points)
{
	unsigned broken = 0;

	for (size_t i = 0; i < n; i++)
		if (!only || !strcmp(only, list[i].name))
			broken += !survives(&list[i], points);
	return broken;
}

static void every_call_of_every_function_may_fail(void **state)
{
	unsigned broken = 0, points = 0;

	broken += broken_of(scenarios, sizeof(scenarios) / sizeof(scenarios[0]), &points);
	broken += broken_of(backend_scenarios, backend_scenarios_count, &points);
	broken += broken_of(dump_scenarios, dump_scenarios_count, &points);
	broken += broken_of(carrier_scenarios, carrier_scenarios_count, &points);
	broken += broken_of(clone_scenarios, clone_scenarios_count, &points);
	broken += broken_of(compact_scenarios, compact_scenarios_count, &points);
	broken += broken_of(observe_scenarios, observe_scenarios_count, &points);
	broken += broken_of(swap_scenarios, swap_scenarios_count, &points);
	broken += broken_of(pager_scenarios, pager_scenarios_count, &points);
	printf("failed %u calls\n", points);
	assert_int_equal(broken, 0);
	assert_true(points > (only ? 0 : 100));
}

static bool is_listed(const struct scenario *list, size_t n, const char *symbol)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(symbol, list[i].name))
			return true;
	return false;
}

static bool is_covered(const char *symbol)
{
	if (is_listed(scenarios, sizeof(scenarios) / sizeof(scenarios[0]), symbol) ||
	    is_listed(backend_scenarios, backend_scenarios_count, symbol) ||
	    is_listed(dump_scenarios, dump_scenarios_count, symbol) ||
	    is_listed(carrier_scenarios, carrier_scenarios_count, symbol) ||
	    is_listed(clone_scenarios, clone_scenarios_count, symbol) ||
	    is_listed(compact_scenarios, compact_scenarios_count, symbol) ||
	    is_listed(observe_scenarios, observe_scenarios_count, symbol) ||
	    is_listed(swap_scenarios, swap_scenarios_count, symbol) ||
	    is_listed(pager_scenarios, pager_scenarios_count, symbol))
		return true;
	for (size_t i = 0; i < sizeof(pure_prefixes) / sizeof(pure_prefixes[0]); i++)
		if (!strncmp(symbol, pure_prefixes[i], strlen(pure_prefixes[i])))
			return true;
	return false;
}

static const char *library;

static void every_exported_function_has_a_scenario(void **state)
{
	char command[4200], symbol[256];
	unsigned seen = 0, missing = 0;
	FILE *list;

	snprintf(command, sizeof(command),
		 "nm -D --defined-only '%s' | sed -n 's/.* T \\(morsel_[a-z0-9_]*\\).*/\\1/p'",
		 library);
	list = popen(command, "r");
	assert_non_null(list);
	while (fgets(symbol, sizeof(symbol), list)) {
		symbol[strcspn(symbol, "\n")] = 0;
		seen++;
		if (!is_covered(symbol)) {
			fprintf(stderr, "no scenario for %s\n", symbol);
			missing++;
		}
	}
	pclose(list);
	assert_true(seen > 30);
	assert_int_equal(missing, 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_exported_function_has_a_scenario),
		cmocka_unit_test(every_call_of_every_function_may_fail),
	};

	library = argc > 1 ? argv[1] : "libmorsel.so";
	only = argc > 2 ? argv[2] : NULL;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
