/*
 * A herd: processes that all map one object and touch it on command, at once.
 *
 * Each is a fork of the program that attaches anew (a pool handle does not survive a fork), maps
 * the object, and then obeys one order at a time. The parent waits until all have answered.
 * Whatever a member cannot do ends the program with words: no case could go on without it.
 */
#ifndef BENCH_HERD_H
#define BENCH_HERD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define HERD_MAX 64

enum herd_order {
	HERD_END,
	HERD_READ,   /* the first word of each page */
	HERD_WRITE,  /* one word of each page that no other member writes */
	HERD_RANDOM, /* reads and, one in four, writes at random pages for arg ns; verifies */
};

/* What is mapped: a descriptor, or the morsel called name in the pool behind the descriptor. */
struct herd_object {
	int fd;
	const char *name; /* NULL: plain mmap of fd */
	uint64_t bytes;
	bool writable;
	const char *group; /* memory cgroup to run in, or NULL */
};

struct herd {
	unsigned count;
	pid_t pid[HERD_MAX];
	int socket[HERD_MAX];
};

struct herd_sum {
	uint64_t done;	/* pages touched */
	uint64_t wrong; /* that held something else than they should */
};

void herd_start(struct herd *herd, unsigned count, const struct herd_object *object);
/* All members do it to pages [first, first + pages); returns when all have. */
struct herd_sum herd_order(struct herd *herd, enum herd_order order, uint64_t first, uint64_t pages,
			   uint64_t arg);
void herd_end(struct herd *herd);

#endif
