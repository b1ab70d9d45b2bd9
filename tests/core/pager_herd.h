/*
 * A herd of processes that have one pool attached, each doing what it is told over a socket, and
 * the doubles of the rooms around the pager: a registry of views, and pages that are locked, saved,
 * punched and filled, all in memory that the processes share.
 */
#ifndef TESTS_CORE_PAGER_HERD_H
#define TESTS_CORE_PAGER_HERD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "view/office.h"
#include "view/uffd.h"

#define HERD_MAX    64
#define HERD_PAGES  16
#define HERD_FRAME  ((1ull << 30) / 4096) /* the pages' frames: nobody else uses these */
#define HERD_FAMILY 7

enum herd_op {
	HERD_ENSURE,  /* mrs_pager_ensure() */
	HERD_MAP,     /* a view of all pages; arg 1: listed in the registry, 2: and handed over */
	HERD_COUNT,   /* begins to count in its word of page arg, as fast as it can */
	HERD_STOP,    /* ends that; answers how far it came */
	HERD_IS_SELF, /* mrs_pager_is_self() */
	HERD_PAGER_SLOT, /* mrs_pager_slot() */
	HERD_SLOT,	 /* its own */
	HERD_EVICT,	 /* evicts page arg as a pager does */
	HERD_PROTECT,	 /* mrs_pager_protect() of all pages */
	HERD_PASS_CALL,	 /* sends its connection to the pager: somebody else holds it open */
	HERD_FORK_FDS,	 /* how many sockets and userfaultfds a child of fork has from it */
	HERD_CLOSE,	 /* closes the pool */
};

/* What the processes share. */
struct herd_shared {
	uint32_t lock[HERD_PAGES]; /* 0, or pid of who has the leaf */
	uint8_t saved[HERD_PAGES][4096];
	uint64_t lost;	/* writes */
	uint64_t views; /* registered so far */
	struct mrs_seen_view view[HERD_MAX * 2];
	uint32_t bell;
	uint32_t ticks;
	uint32_t served;    /* jobs run */
	uint32_t hold_jobs; /* a job waits while it is 1 */
	uint32_t answered;
	uint64_t answer_word;
	int32_t answer;
	uint64_t faults;
};
extern struct herd_shared *herd;

struct herd_process {
	pid_t pid;
	int socket;
};

/* Maps the shared memory, or empties it. */
void herd_reset(struct morsel_pool *pool);
/* A process that has attached the pool of fd; uid 0: as we are. */
struct herd_process herd_spawn(int fd);
/* Tells it, and waits for the answer; *words (256 bytes, may be NULL) are its errormsg. */
int64_t herd_tell(struct herd_process *process, enum herd_op op, uint64_t arg, char *words);
/* Closes its socket, at which it ends, or kills it; waits for its end. */
void herd_end(struct herd_process *process);
void herd_kill(struct herd_process *process);
/* Stops it (SIGSTOP) where it has no page's lock, and waits until it stands. */
void herd_stop(struct herd_process *process);
/* Has it pass its connection to the pager (HERD_PASS_CALL). */
int herd_receive(struct herd_process *process);

/* What a process does, here, for our own handle. */
int64_t herd_do(struct morsel_pool *pool, enum herd_op op, uint64_t arg, int socket);
/* Waits up to 20 s until the answer is value; false if it never was. */
bool herd_until(struct herd_process *process, enum herd_op op, uint64_t arg, int64_t value);

#endif
