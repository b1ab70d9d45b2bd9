/*
 * The parent's side of a probe, and the frame of the child's: see probe.h. One byte per step goes
 * from the parent to the child, and one back; the result follows the last.
 */
#include "probe.h"

#include "bench.h"
#include "subject.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROBE_ARGUMENT "--probe"
#define PROBE_SOCKET   3
#define PROBE_OBJECT   4
#define HIGH_FD	       16 /* copies for the child begin here, clear of the two above */

extern char **environ;

bool probe_transfer(int fd, void *at, size_t bytes, bool send_it)
{
	while (bytes) {
		ssize_t n = send_it ? send(fd, at, bytes, MSG_NOSIGNAL) : recv(fd, at, bytes, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		at = (char *)at + n;
		bytes -= (size_t)n;
	}
	return true;
}

/* ---- the child ---- */

/* Sum of the values, in kB, of the lines of a /proc file that begin with one of the keys. */
static uint64_t proc_kb(const char *file, const char *const *keys)
{
	FILE *f = fopen(file, "re");
	uint64_t kb = 0;
	char line[256];
	size_t i;

	while (f && fgets(line, sizeof(line), f)) {
		for (i = 0; keys[i]; i++) {
			if (!strncmp(line, keys[i], strlen(keys[i])))
				kb += strtoull(line + strlen(keys[i]), NULL, 10);
		}
	}
	if (f)
		fclose(f);
	return kb;
}

static void count_memory(bool smaps, struct probe_result *result)
{
	static const char *const table[] = {"VmPTE:", NULL};
	static const char *const pss[] = {"Pss:", NULL};
	static const char *const huge[] = {"ShmemPmdMapped:", "FilePmdMapped:", NULL};
	static const char *const hugetlb[] = {"Shared_Hugetlb:", "Private_Hugetlb:", NULL};

	result->table_kb = proc_kb("/proc/self/status", table);
	if (!smaps)
		return;
	result->pss_kb = proc_kb("/proc/self/smaps_rollup", pss);
	result->hugetlb_kb = proc_kb("/proc/self/smaps_rollup", hugetlb);
	result->huge_kb = proc_kb("/proc/self/smaps_rollup", huge) + result->hugetlb_kb;
}

static bool say_and_wait(char *step)
{
	return probe_transfer(PROBE_SOCKET, step, 1, true) &&
	       probe_transfer(PROBE_SOCKET, step, 1, false);
}

void probe_main(int argc, char **argv)
{
	struct probe_request request;
	struct probe_result result = {0};
	struct subject subject = {0};
	char step = 'r';

	if (argc != 2 || strcmp(argv[1], PROBE_ARGUMENT))
		return;
	if (!probe_transfer(PROBE_SOCKET, &request, sizeof(request), false))
		_exit(1);
	subject_enter(&subject, &request, PROBE_OBJECT, &result);
	if (!say_and_wait(&step))
		_exit(1);
	if (step == 'c') {
		count_memory(request.flags & PROBE_SMAPS, &result);
		if (!say_and_wait(&step))
			_exit(1);
	}
	subject_leave(&subject, &result);
	if (!probe_transfer(PROBE_SOCKET, &result, sizeof(result), true))
		_exit(1);
	_exit(0);
}

/* ---- the parent ---- */

static int spawn(struct probe *probe, int theirs, int fd)
{
	static char program[] = "/proc/self/exe", argument[] = PROBE_ARGUMENT;
	char *const argv[] = {program, argument, NULL};
	int high_socket = fcntl(theirs, F_DUPFD_CLOEXEC, HIGH_FD);
	int high_fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, HIGH_FD);
	posix_spawn_file_actions_t actions;
	int error;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, high_socket, PROBE_SOCKET);
	if (high_fd >= 0)
		posix_spawn_file_actions_adddup2(&actions, high_fd, PROBE_OBJECT);
	error = posix_spawn(&probe->pid, program, &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(high_socket);
	if (high_fd >= 0)
		close(high_fd);
	return error;
}

int probe_start(struct probe *probe, const struct probe_request *request, int fd)
{
	struct probe_request copy = *request;
	int pair[2], error;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
		bench_say("no socket for a probe: %s", strerror(errno));
		return -1;
	}
	error = spawn(probe, pair[1], fd);
	close(pair[1]);
	if (error) {
		bench_say("cannot start a probe: %s", strerror(error));
		close(pair[0]);
		return -1;
	}
	probe->socket = pair[0];
	if (probe_transfer(probe->socket, &copy, sizeof(copy), true))
		return 0;
	bench_say("a probe died at once");
	close(probe->socket);
	waitpid(probe->pid, NULL, 0);
	return -1;
}

int probe_ready(struct probe *probe)
{
	char step;

	if (probe_transfer(probe->socket, &step, 1, false))
		return 0;
	bench_say("a probe died while measuring");
	return -1;
}

int probe_count(struct probe *probe)
{
	char step = 'c';

	if (probe_transfer(probe->socket, &step, 1, true) &&
	    probe_transfer(probe->socket, &step, 1, false))
		return 0;
	bench_say("a probe died while counting its memory");
	return -1;
}

int probe_end(struct probe *probe, struct probe_result *result)
{
	char step = 'e';
	bool ok = probe_transfer(probe->socket, &step, 1, true) &&
		  probe_transfer(probe->socket, result, sizeof(*result), false);
	int status;

	close(probe->socket);
	if (waitpid(probe->pid, &status, 0) != probe->pid || status)
		ok = false;
	if (!ok) {
		bench_say("a probe ended without a result");
		return -1;
	}
	if (result->error) {
		result->text[sizeof(result->text) - 1] = 0;
		bench_say("a probe failed: %s", result->text);
		return -1;
	}
	if (result->wrong) {
		bench_say("a probe read %llu wrong pages or sums",
			  (unsigned long long)result->wrong);
		return -1;
	}
	return 0;
}

int probe_run(const struct probe_request *request, int fd, struct probe_result *result)
{
	struct probe probe;
	int error;

	if (probe_start(&probe, request, fd))
		return -1;
	error = probe_ready(&probe);
	if (!error)
		error = probe_count(&probe);
	if (probe_end(&probe, result))
		error = -1;
	return error;
}
