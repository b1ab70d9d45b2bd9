/*
 * Probes of the test build. See probe.h.
 *
 * The counters live in a mapped file, so that a hit is counted although the process dies at it. A
 * probe finds its counter by name: open addressing over fixed records, claimed by compare-and-swap,
 * because several processes share the file.
 */
#include "base/probe.h"

#ifdef MORSEL_PROBES

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PROBES	       512
#define PROBE_NAME_MAX 48

struct probe_record {
	uint32_t claimed;
	uint32_t ready;
	uint64_t hits;
	char name[PROBE_NAME_MAX];
};

static struct probe_record private_records[PROBES];
static struct probe_record *records = private_records;
static char kill_name[PROBE_NAME_MAX];
static uint64_t kill_at;
static bool tell; /* at which probe it is */
static char *trace;
static uint64_t trace_bytes;
static uint64_t hits_that_count; /* by this process, for kill_at */

static void open_trace(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	struct stat file;
	void *map = MAP_FAILED;

	if (fd >= 0 && !fstat(fd, &file) && file.st_size > 0)
		map = mmap(NULL, (size_t)file.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd >= 0)
		close(fd);
	if (map == MAP_FAILED)
		return;
	trace = map;
	trace_bytes = (uint64_t)file.st_size;
}

static void probe_setup(void)
{
	const char *log = getenv("MORSEL_PROBE_LOG");
	const char *kill_text = getenv("MORSEL_PROBE_KILL");
	const char *colon = kill_text ? strrchr(kill_text, ':') : NULL;

	if (log) {
		int fd = open(log, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		void *map = MAP_FAILED;

		if (fd >= 0 && !ftruncate(fd, sizeof(private_records)))
			map = mmap(NULL, sizeof(private_records), PROT_READ | PROT_WRITE,
				   MAP_SHARED, fd, 0);
		if (fd >= 0)
			close(fd);
		if (map != MAP_FAILED)
			records = map;
	}
	tell = getenv("MORSEL_PROBE_TELL");
	if (getenv("MORSEL_PROBE_TRACE"))
		open_trace(getenv("MORSEL_PROBE_TRACE"));
	if (colon && colon - kill_text < PROBE_NAME_MAX) {
		memcpy(kill_name, kill_text, colon - kill_text);
		kill_at = strtoull(colon + 1, NULL, 10);
	}
}

static struct probe_record *record_of(const char *name)
{
	uint32_t hash = 2166136261u;

	for (const char *c = name; *c; c++)
		hash = (hash ^ (unsigned char)*c) * 16777619u;
	for (uint32_t i = 0; i < PROBES; i++) {
		struct probe_record *r = &records[(hash + i) % PROBES];
		uint32_t free_mark = 0;

		if (__atomic_compare_exchange_n(&r->claimed, &free_mark, 1, 0, __ATOMIC_ACQ_REL,
						__ATOMIC_ACQUIRE)) {
			strncpy(r->name, name, PROBE_NAME_MAX - 1);
			__atomic_store_n(&r->ready, 1, __ATOMIC_RELEASE);
			return r;
		}
		while (!__atomic_load_n(&r->ready, __ATOMIC_ACQUIRE))
			;
		if (!strncmp(r->name, name, PROBE_NAME_MAX - 1))
			return r;
	}
	return NULL;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;

void mrs_probe_hit(const char *name)
{
	struct probe_record *record;

	pthread_once(&once, probe_setup);
	record = record_of(name);
	if (!record)
		return;
	__atomic_add_fetch(&record->hits, 1, __ATOMIC_RELAXED);
	if (!kill_at || (strcmp(kill_name, "*") && strcmp(kill_name, name)))
		return;
	if (__atomic_add_fetch(&hits_that_count, 1, __ATOMIC_RELAXED) != kill_at)
		return;
	if (tell && write(STDERR_FILENO, name, strlen(name)) > 0 &&
	    write(STDERR_FILENO, "\n", 1) > 0)
		tell = false;
	kill(getpid(), SIGKILL);
}

/* ---- the trace ---- */

struct mrs_probe_event *mrs_probe_note(const char *name, size_t words)
{
	struct mrs_probe_event *event;
	size_t bytes = sizeof(*event) + words * sizeof(uint64_t);
	uint64_t at;

	pthread_once(&once, probe_setup);
	if (!trace)
		return NULL;
	/* One order for all, in which a step comes after those that it has seen the effects of. */
	at = __atomic_fetch_add((uint64_t *)trace, bytes, __ATOMIC_SEQ_CST);
	if (at + sizeof(uint64_t) + bytes > trace_bytes)
		return NULL;
	event = (struct mrs_probe_event *)(trace + sizeof(uint64_t) + at);
	event->bytes = (uint32_t)bytes;
	event->pid = (uint32_t)getpid();
	strncpy(event->name, name, sizeof(event->name) - 1);
	return event;
}

void mrs_probe_noted(struct mrs_probe_event *event, size_t words)
{
	__atomic_store_n(&event->length, (uint32_t)words, __ATOMIC_RELEASE);
}

#else
typedef int mrs_probe_unused; /* an empty translation unit is not C */
#endif
