/*
 * What the pool room's tests share: a folder on tmpfs of their own, pools with options in one line,
 * other processes, and a check that prints what it found.
 */
#ifndef TESTS_CORE_POOL_SUPPORT_H
#define TESTS_CORE_POOL_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/atomic.h"
#include "core/pool_double.h"

#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)

static char pool_folder[64];
static char pool_path_text[128];

/* The path of a file called name in the test's folder; valid until the next call. */
static inline const char *pool_path(const char *name)
{
	snprintf(pool_path_text, sizeof(pool_path_text), "%s/%s", pool_folder, name);
	return pool_path_text;
}

static inline void pool_folder_make(const char *where)
{
	snprintf(pool_folder, sizeof(pool_folder), "%s/morsel-test-XXXXXX", where);
	if (!mkdtemp(pool_folder)) {
		perror(pool_folder);
		exit(77);
	}
	chmod(pool_folder, 0755);
}

static inline void pool_folder_remove(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf '%s'", pool_folder);
	if (system(command))
		fprintf(stderr, "cannot remove %s\n", pool_folder);
}

static inline struct morsel_pool_opts pool_opts(uint32_t flags, uint64_t bytes, uint64_t bytes_max)
{
	return (struct morsel_pool_opts){
		.size = sizeof(struct morsel_pool_opts),
		.flags = flags,
		.bytes = bytes,
		.bytes_max = bytes_max,
	};
}

/* A small anonymous pool, or one at path. */
static inline struct morsel_pool *pool_create(const char *path, uint64_t bytes, uint64_t bytes_max)
{
	struct morsel_pool_opts opts = pool_opts(MORSEL_POOL_CREATE, bytes, bytes_max);
	struct morsel_pool *pool = NULL;

	if (morsel_pool_open(path, &opts, &pool))
		fail_msg("create: %s", morsel_errormsg());
	return pool;
}

static inline struct morsel_pool *pool_open(const char *path, uint32_t flags)
{
	struct morsel_pool_opts opts = pool_opts(flags, 0, 0);
	struct morsel_pool *pool = NULL;

	if (morsel_pool_open(path, &opts, &pool))
		fail_msg("open: %s", morsel_errormsg());
	return pool;
}

static inline struct morsel_pool *pool_open_fd(int fd, uint32_t flags)
{
	struct morsel_pool_opts opts = pool_opts(flags, 0, 0);
	struct morsel_pool *pool = NULL;

	if (morsel_pool_open_fd(fd, &opts, &pool))
		fail_msg("open: %s", morsel_errormsg());
	return pool;
}

static inline void pool_print_finding(void *ctx, const char *finding)
{
	(void)ctx;
	fprintf(stderr, "finding: %s\n", finding);
}

static inline void assert_clean(struct morsel_pool *pool)
{
	assert_int_equal(morsel_pool_check(pool, pool_print_finding, NULL), 0);
}

static inline struct morsel_pool_stat pool_stat(struct morsel_pool *pool)
{
	struct morsel_pool_stat stat = {.size = sizeof(stat)};

	assert_int_equal(morsel_pool_stat(pool, &stat), 0);
	return stat;
}

static inline void assert_words(const char *part)
{
	if (!strstr(morsel_errormsg(), part))
		fail_msg("\"%s\" is not in \"%s\"", part, morsel_errormsg());
}

/* ---- other processes ---- */

/* Runs fn in a child of fork; its return value is the exit code. */
static inline pid_t pool_fork(int (*fn)(void *ctx), void *ctx)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid)
		_exit(fn(ctx));
	return pid;
}

static inline int pool_wait(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		assert_int_equal(errno, EINTR);
	return status;
}

static inline void assert_exit_0(pid_t pid)
{
	int status = pool_wait(pid);

	if (!WIFEXITED(status) || WEXITSTATUS(status))
		fail_msg("child ended with status %#x", status);
}

/*
 * Starts this program anew as `program --child name argument`, with the probe to be killed at
 * (NULL: none). Probes read their environment once, so a child of fork alone would not do.
 */
static inline pid_t pool_spawn(const char *name, const char *argument, const char *kill_at)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid) {
		if (kill_at)
			setenv("MORSEL_PROBE_KILL", kill_at, 1);
		execl("/proc/self/exe", "pool-test", "--child", name, argument, (char *)NULL);
		_exit(126);
	}
	return pid;
}

/* A pipe by which a child says that it has come to a point, and another to let it go on. */
struct pool_signal {
	int pipe[2];
};

static inline void signal_make(struct pool_signal *signal)
{
	assert_int_equal(pipe(signal->pipe), 0);
}

static inline void signal_send(struct pool_signal *signal)
{
	if (write(signal->pipe[1], "x", 1) != 1)
		abort();
}

static inline void signal_wait(struct pool_signal *signal)
{
	char byte;

	if (read(signal->pipe[0], &byte, 1) != 1)
		abort();
}

static inline void signal_close(struct pool_signal *signal)
{
	close(signal->pipe[0]);
	close(signal->pipe[1]);
}

#endif
