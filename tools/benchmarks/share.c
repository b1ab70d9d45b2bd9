/*
 * One model, eight processes. The parent makes a pool in memory and imports the model; each process
 * is this program, executed anew with the pool's descriptor, and is told step by step over a socket
 * what to do:
 *
 *   it maps and answers "mapped"; 'h': hash every tensor and answer the lines;
 *   'w': change the first word of the model through a grant and answer; 'l': answer that word;
 *   end of file: unmap and exit.
 *
 * Every answer is one frame: its length (0 for a failure), then its bytes.
 */
#include "quickstart.h"

#include "bench.h"
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/evp.h>

#include <morsel/morsel.h>

#define ARGUMENT "--process"
#define MODEL	 QUICKSTART_MORSEL
#define SOCKET	 3
#define POOL	 4
#define HIGH_FD	 16 /* copies for the child begin here, clear of the two above */

extern char **environ;

/* ---- one process ---- */

static void answer(const void *at, uint64_t bytes)
{
	if (!probe_transfer(SOCKET, &bytes, sizeof(bytes), true) ||
	    !probe_transfer(SOCKET, (void *)at, bytes, true))
		_exit(1);
}

static void give_up(const char *what)
{
	bench_say("process %d: %s: %s", (int)getpid(), what, morsel_errormsg());
	_exit(1);
}

static void put_hash(FILE *out, const char *at, uint64_t offset, uint64_t bytes, const char *name)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned length, i;

	if (!EVP_Digest(at + offset, bytes, digest, &length, EVP_sha256(), NULL))
		give_up("SHA-256");
	for (i = 0; i < length; i++)
		fprintf(out, "%02x", digest[i]);
	fprintf(out, " %" PRIu64 " %" PRIu64 " ", offset, bytes);
	for (; *name; name++)
		fputc((unsigned char)*name < 0x20 ? '?' : *name, out);
	fputc('\n', out);
}

static void answer_hashes(struct morsel *morsel, struct morsel_view *view)
{
	struct morsel_tensor tensor;
	char *text = NULL;
	size_t length;
	uint64_t i;
	FILE *out = open_memstream(&text, &length);

	if (!out)
		give_up("memory");
	put_hash(out, morsel_addr(view), 0, morsel_view_bytes(view), "(file)");
	for (i = 0; morsel_tensor_at(morsel, i, &tensor) >= 0; i++)
		put_hash(out, morsel_addr(view), tensor.offset, tensor.bytes, tensor.name);
	fclose(out);
	answer(text, length);
	free(text);
}

static void change_word(struct morsel_view *view)
{
	struct morsel_grant grant;
	uint64_t word;

	if (morsel_acquire(view, 0, sizeof(word), MORSEL_READ | MORSEL_WRITE, &grant) < 0)
		give_up("morsel_acquire");
	memcpy(&word, grant.addr, sizeof(word));
	word = ~word;
	memcpy(grant.addr, &word, sizeof(word));
	morsel_release(&grant);
	answer(&word, sizeof(word));
}

static void answer_word(struct morsel_view *view)
{
	uint64_t word;

	memcpy(&word, morsel_addr(view), sizeof(word));
	answer(&word, sizeof(word));
}

static void serve(struct morsel *morsel, struct morsel_view *view)
{
	char step;

	answer("mapped", sizeof("mapped"));
	while (probe_transfer(SOCKET, &step, 1, false)) {
		if (step == 'h')
			answer_hashes(morsel, view);
		else if (step == 'w')
			change_word(view);
		else
			answer_word(view);
	}
}

void share_main(int argc, char **argv)
{
	struct morsel_pool *pool;
	struct morsel *morsel;
	struct morsel_view *view;

	if (argc != 2 || strcmp(argv[1], ARGUMENT))
		return;
	if (morsel_pool_open_fd(POOL, NULL, &pool) < 0)
		give_up("morsel_pool_open_fd");
	if (morsel_open(pool, MODEL, NULL, &morsel) < 0)
		give_up("morsel_open");
	if (morsel_map(morsel, NULL, &view) < 0)
		give_up("morsel_map");
	serve(morsel, view);
	morsel_view_destroy(view);
	morsel_close(morsel);
	morsel_pool_close(pool);
	_exit(0);
}

/* ---- the parent ---- */

struct process {
	pid_t pid;
	int socket;
};

static int start(struct process *process, int pool_fd)
{
	static char program[] = "/proc/self/exe", argument[] = ARGUMENT;
	char *const argv[] = {program, argument, NULL};
	posix_spawn_file_actions_t actions;
	int pair[2], high_socket, high_pool, error;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return -1;
	high_socket = fcntl(pair[1], F_DUPFD_CLOEXEC, HIGH_FD);
	high_pool = fcntl(pool_fd, F_DUPFD_CLOEXEC, HIGH_FD);
	close(pair[1]);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, high_socket, SOCKET);
	posix_spawn_file_actions_adddup2(&actions, high_pool, POOL);
	error = posix_spawn(&process->pid, program, &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(high_socket);
	close(high_pool);
	process->socket = pair[0];
	if (!error)
		return 0;
	close(pair[0]);
	bench_say("cannot start a process: %s", strerror(error));
	return -1;
}

/* Ends them; -1 if one had failed. */
static int end_all(struct process *process, unsigned started)
{
	unsigned i;
	int error = 0, status;

	for (i = 0; i < started; i++)
		close(process[i].socket);
	for (i = 0; i < started; i++) {
		if (waitpid(process[i].pid, &status, 0) != process[i].pid || status)
			error = -1;
	}
	return error;
}

static int tell(const struct process *process, char step)
{
	return probe_transfer(process->socket, &step, 1, true) ? 0 : -1;
}

/* The answer, with a zero byte added; NULL if the process is gone. The caller frees it. */
static char *hear(const struct process *process, uint64_t *bytes)
{
	char *at;

	if (!probe_transfer(process->socket, bytes, sizeof(*bytes), false))
		return NULL;
	at = malloc(*bytes + 1);
	if (!at || !probe_transfer(process->socket, at, *bytes, false)) {
		free(at);
		return NULL;
	}
	at[*bytes] = 0;
	return at;
}

static int hear_word(const struct process *process, uint64_t *word)
{
	uint64_t bytes;
	char *at = hear(process, &bytes);

	if (!at)
		return -1;
	memcpy(word, at, sizeof(*word));
	free(at);
	return 0;
}

static int wait_mapped(const struct process *process, unsigned count)
{
	uint64_t bytes;
	unsigned i;

	for (i = 0; i < count; i++) {
		char *at = hear(&process[i], &bytes);

		if (!at)
			return -1;
		free(at);
	}
	return 0;
}

static int keep(const char *path, const char *text, uint64_t bytes)
{
	FILE *f = fopen(path, "we");
	bool ok = f && fwrite(text, 1, bytes, f) == bytes;

	if (f && fclose(f))
		ok = false;
	if (ok)
		return 0;
	bench_say("cannot write %s: %s", path, strerror(errno));
	return -1;
}

/* All hash at once; their lines must be the same, and go to the file. */
static int hash_everywhere(const struct process *process, unsigned count, const char *path)
{
	uint64_t bytes, first_bytes = 0;
	char *first = NULL, *at;
	unsigned i;
	int error = 0;

	for (i = 0; !error && i < count; i++)
		error = tell(&process[i], 'h');
	for (i = 0; !error && i < count; i++) {
		at = hear(&process[i], &bytes);
		if (!at) {
			error = -1;
		} else if (!first) {
			first = at;
			first_bytes = bytes;
		} else {
			if (bytes != first_bytes || memcmp(at, first, bytes)) {
				bench_say("process %u computed other hashes than process 0", i);
				error = -1;
			}
			free(at);
		}
	}
	if (!error)
		error = keep(path, first, first_bytes);
	free(first);
	return error;
}

/* One process writes; every process, itself included, must read what it wrote. */
static int change_and_look(const struct process *process, unsigned writer)
{
	uint64_t written, seen;
	unsigned i;

	if (tell(&process[writer], 'w') || hear_word(&process[writer], &written))
		return -1;
	for (i = 0; i < QUICKSTART_PROCESSES; i++) {
		if (tell(&process[i], 'l') || hear_word(&process[i], &seen))
			return -1;
		if (seen != written) {
			bench_say("process %u does not see what process %u wrote", i, writer);
			return -1;
		}
	}
	return 0;
}

static int hash_and_say(const struct process *process, unsigned count, const char *hashes)
{
	uint64_t start;

	if (wait_mapped(process, count))
		return -1;
	printf("  %u processes have mapped it\n", count);
	start = bench_now();
	if (hash_everywhere(process, count, hashes))
		return -1;
	printf("  each has computed the SHA-256 of every tensor: all the same (%.2f s)\n",
	       (double)(bench_now() - start) / 1e9);
	return 0;
}

static int change_and_say(const struct process *process)
{
	/* Twice: the second change is the inverse of the first. */
	if (change_and_look(process, 3) || change_and_look(process, 5))
		return -1;
	printf("  process 3 changed a word: all %d see it; process 5 changed it back: all see "
	       "that\n",
	       QUICKSTART_PROCESSES);
	return 0;
}

int hash_in_processes(int pool_fd, unsigned count, bool change, const char *hashes)
{
	struct process process[QUICKSTART_PROCESSES];
	unsigned started;
	int error = 0;

	for (started = 0; !error && started < count; started += !error)
		error = start(&process[started], pool_fd);
	if (!error)
		error = hash_and_say(process, count, hashes);
	if (!error && change)
		error = change_and_say(process);
	if (end_all(process, started))
		error = -1;
	return error;
}

static int say_import(struct morsel *morsel, uint64_t ns)
{
	struct morsel_info info = {.size = sizeof(info)};

	if (morsel_info(morsel, &info) < 0)
		return -1;
	printf("  imported: %s, %" PRIu64 " tensors, %.2f MiB in %" PRIu64 " run%s, %.1f ms\n",
	       morsel_format_name(info.format), info.tensors, (double)info.bytes / BENCH_MIB,
	       info.runs, info.runs == 1 ? "" : "s", bench_ms(ns));
	return 0;
}

static int import_and_share(struct morsel_pool *pool, const char *model, const char *hashes)
{
	struct morsel *morsel;
	uint64_t start = bench_now();
	int error;

	if (morsel_import(pool, MODEL, model, NULL, &morsel) < 0) {
		bench_say("morsel_import: %s", morsel_errormsg());
		return -1;
	}
	error = say_import(morsel, bench_now() - start);
	fflush(stdout);
	if (!error)
		error = hash_in_processes(morsel_pool_fd(pool), QUICKSTART_PROCESSES, true, hashes);
	morsel_close(morsel);
	return error;
}

uint64_t file_bytes(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	off_t end = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);

	if (fd >= 0)
		close(fd);
	return end < 0 ? 0 : (uint64_t)end;
}

int share_model(const char *model, const char *hashes)
{
	struct morsel_pool_opts opts = {.size = sizeof(opts),
					.flags = MORSEL_POOL_CREATE,
					.bytes = (2 * file_bytes(model) / BENCH_GIB + 2) *
						 BENCH_GIB};
	struct morsel_pool *pool;
	int error;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (morsel_pool_open(NULL, &opts, &pool) < 0) {
		bench_say("morsel_pool_open: %s", morsel_errormsg());
		return 1;
	}
	error = import_and_share(pool, model, hashes);
	morsel_pool_close(pool);
	return error ? 1 : 0;
}
