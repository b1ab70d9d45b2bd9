/*
 * How much memory the kernel would still give us: memory cgroup (versions 1 and 2) and machine.
 *
 * Past either limit the answer would be the OOM killer, so we ask before. Reading the files costs
 * tens of microseconds; what was measured serves requests that are small beside it for a while,
 * less what they took. It is a forecast: others of the same cgroup take memory too.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pool/internal.h"

#define FRESH_NS 100000000ll
/* Left for everybody else: page tables, stacks, the request in flight beside ours. */
#define MACHINE_RESERVE ((uint64_t)32 << 20)
#define CGROUP_RESERVE	((uint64_t)1 << 20)

static ssize_t read_text(const char *path, char *text, size_t bytes)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got, all = 0;

	if (fd < 0)
		return -1;
	while (all < (ssize_t)bytes - 1 &&
	       (got = read(fd, text + all, bytes - 1 - (size_t)all)) > 0)
		all += got;
	close(fd);
	text[all] = 0;
	return all;
}

/* A number in a file of its own; "max" and what is not there are no limit. */
static uint64_t read_number(const char *folder, const char *file)
{
	char path[2112], text[64], *end;
	uint64_t value;

	snprintf(path, sizeof(path), "%s/%s", folder, file);
	if (read_text(path, text, sizeof(text)) <= 0)
		return UINT64_MAX;
	value = strtoull(text, &end, 10);
	return end == text ? UINT64_MAX : value;
}

/* The number behind "key " or "key:" at the start of a line; 0 if there is none. */
static uint64_t number_of(const char *text, const char *key)
{
	size_t length = strlen(key);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, key, length) && (line[length] == ' ' || line[length] == ':'))
			return strtoull(line + length + 1, NULL, 10);
	}
	return 0;
}

static void note(struct mrs_headroom *headroom, uint64_t left, const char *limit)
{
	if (left >= headroom->left)
		return;
	headroom->left = left;
	snprintf(headroom->limit, sizeof(headroom->limit), "%s", limit);
}

static void ask_machine(struct mrs_headroom *headroom)
{
	char text[4096];
	uint64_t free_bytes;

	if (read_text("/proc/meminfo", text, sizeof(text)) <= 0 || !number_of(text, "MemAvailable"))
		return;
	free_bytes = (number_of(text, "MemAvailable") + number_of(text, "SwapFree")) << 10;
	note(headroom, free_bytes > MACHINE_RESERVE ? free_bytes - MACHINE_RESERVE : 0,
	     "the machine's memory is (MemAvailable in /proc/meminfo); end something, or add "
	     "memory "
	     "or swap");
}

/* ---- memory cgroup ---- */

struct version {
	const char *limit, *usage, *stat, *reclaimable, *half;
};

static const struct version versions[] = {
	{"memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat", "total_inactive_file",
	 "total_active_file"},
	{"memory.max", "memory.current", "memory.stat", "inactive_file", "active_file"},
};

static void ask_cgroup(struct mrs_headroom *headroom, const struct version *version,
		       const char *folder)
{
	uint64_t limit = read_number(folder, version->limit), usage, left = 0;
	char path[2112], text[8192], words[192];

	if (limit >= (uint64_t)1 << 60)
		return;
	usage = read_number(folder, version->usage);
	if (usage == UINT64_MAX)
		return;
	if (limit > usage)
		left = limit - usage;
	/* Cached file pages go before anybody is killed; half of the active ones, to be careful. */
	snprintf(path, sizeof(path), "%s/%s", folder, version->stat);
	if (read_text(path, text, sizeof(text)) > 0)
		left += number_of(text, version->reclaimable) + number_of(text, version->half) / 2;
	snprintf(words, sizeof(words),
		 "the memory cgroup is (%" PRIu64 " of %" PRIu64 " bytes used); "
		 "raise %s of %.64s",
		 usage, limit, version->limit, folder);
	note(headroom, left > CGROUP_RESERVE ? left - CGROUP_RESERVE : 0, words);
}

/* This process's path in the hierarchy with the memory controller; true if there is one. */
static bool cgroup_path(char *path, size_t bytes, unsigned *version)
{
	char text[4096], *line, *save = NULL;
	bool found = false;

	if (read_text("/proc/self/cgroup", text, sizeof(text)) <= 0)
		return false;
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *names = strchr(line, ':'), *at = names ? strchr(names + 1, ':') : NULL;

		if (!at)
			continue;
		*at++ = 0;
		names++;
		if (!*names && !found) { /* "0::/path" is version 2 */
			*version = 1;
		} else if (strstr(names, "memory")) {
			*version = 0;
		} else {
			continue;
		}
		snprintf(path, bytes, "%s", at);
		found = true;
	}
	return found;
}

/* Where that hierarchy is mounted, and which of its paths the mount shows. */
static bool cgroup_mount(unsigned version, char *mount, char *root, size_t bytes)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[2048];
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f)) {
		char shown[1024], at[1024], *rest = strstr(line, " - ");

		if (!rest || sscanf(line, "%*s %*s %*s %1023s %1023s", shown, at) != 2)
			continue;
		found = version ? !strncmp(rest, " - cgroup2 ", 11)
				: !strncmp(rest, " - cgroup ", 10) && strstr(rest, "memory");
		if (found) {
			snprintf(mount, bytes, "%s", at);
			snprintf(root, bytes, "%s", shown);
		}
	}
	if (f)
		fclose(f);
	return found;
}

/* From this process's cgroup up to the root of what is mounted. */
static void ask_cgroups(struct mrs_headroom *headroom)
{
	char path[1024], mount[1024], root[1024], folder[2048];
	size_t base, skip;
	unsigned version = 0;

	if (!cgroup_path(path, sizeof(path), &version) ||
	    !cgroup_mount(version, mount, root, sizeof(mount)))
		return;
	skip = strcmp(root, "/") ? strlen(root) : 0;
	if (skip && strncmp(path, root, skip))
		skip = strlen(path); /* not in what is mounted: its root must do */
	base = strlen(mount);
	snprintf(folder, sizeof(folder), "%s%s", mount, path + skip);
	for (;;) {
		char *slash;

		ask_cgroup(headroom, &versions[version], folder);
		slash = strrchr(folder, '/');
		if (!slash || (size_t)(slash - folder) < base)
			break;
		*slash = 0;
	}
}

static void measure(struct mrs_headroom *headroom)
{
	headroom->left = UINT64_MAX;
	headroom->limit[0] = 0;
	ask_machine(headroom);
	ask_cgroups(headroom);
	headroom->bytes = headroom->left;
	headroom->measured_ns = mrs_now_ns();
}

int mrs_headroom_check(struct morsel_pool *pool, uint64_t bytes)
{
	struct mrs_headroom *headroom = &pool->headroom;
	char text[2][16];
	int rc = 0;

	/* What is asked here is read from files by stdio, which a handler of SIGBUS must not. */
	if (mrs_fail_is_quiet())
		return 0;
	pthread_mutex_lock(&headroom->lock);
	if (!headroom->measured_ns || mrs_now_ns() - headroom->measured_ns > FRESH_NS ||
	    bytes > headroom->bytes / 2)
		measure(headroom);
	if (bytes > headroom->bytes)
		rc = mrs_fail(-ENOSPC, "no memory for %s: %s needed, %s left: %s", pool->path,
			      mrs_bytes_text(bytes, text[0]),
			      mrs_bytes_text(headroom->left, text[1]), headroom->limit);
	else
		headroom->bytes -= bytes;
	pthread_mutex_unlock(&headroom->lock);
	return rc;
}
