/*
 * Several requests in flight, through whatever liburing is installed.
 *
 * A handle has a few rings; who finds none free does its requests one after the other. A ring in
 * which a request did not end in time is left alone until the handle ends: the kernel may still use
 * what it was given.
 */
#include <dlfcn.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/probe.h"
#include "swap/uring.h"

#define RINGS  4
#define DEPTH  64
#define LAP_MS 1000

/* struct io_uring of liburing.so.2, of which this much is fixed by its soname. */
struct ring {
	unsigned char sq[104];
	unsigned *cq_head;
	unsigned char cq[80];
	unsigned flags;
	int fd;
	unsigned char rest[1024];
};

struct mrs_uring {
	void *library;
	int (*init)(unsigned entries, struct ring *ring, unsigned flags);
	void (*exit)(struct ring *ring);
	struct io_uring_sqe *(*get_sqe)(struct ring *ring);
	int (*submit)(struct ring *ring);
	unsigned (*peek)(struct ring *ring, struct io_uring_cqe **cqes, unsigned count);
	struct ring ring[RINGS];
	uint32_t state[RINGS]; /* enum ring_state */
};

enum ring_state { RING_IDLE, RING_BUSY, RING_STUCK, RING_NONE };

static int find_library(struct mrs_uring *uring)
{
	uring->library = dlopen("liburing.so.2", RTLD_NOW | RTLD_LOCAL);
	if (!uring->library)
		return mrs_fail(
			-EOPNOTSUPP,
			"several requests in flight need liburing.so.2 (package liburing2); "
			"or ask for plain I/O (MORSEL_SWAP_PLAIN_IO, morsel swap add --plain)");
	*(void **)&uring->init = dlsym(uring->library, "io_uring_queue_init");
	*(void **)&uring->exit = dlsym(uring->library, "io_uring_queue_exit");
	*(void **)&uring->get_sqe = dlsym(uring->library, "io_uring_get_sqe");
	*(void **)&uring->submit = dlsym(uring->library, "io_uring_submit");
	*(void **)&uring->peek = dlsym(uring->library, "io_uring_peek_batch_cqe");
	if (uring->init && uring->exit && uring->get_sqe && uring->submit && uring->peek)
		return 0;
	return mrs_fail(-EOPNOTSUPP,
			"liburing.so.2 is not one that this library knows; ask for plain "
			"I/O (MORSEL_SWAP_PLAIN_IO)");
}

static int make_rings(struct mrs_uring *uring)
{
	unsigned made = 0;
	int rc = 0;

	for (unsigned i = 0; i < RINGS; i++) {
		uring->state[i] = RING_NONE;
		uring->ring[i].fd = -1;
		if (!rc)
			rc = uring->init(DEPTH, &uring->ring[i], 0);
		if (rc)
			continue;
		uring->state[i] = RING_IDLE;
		made++;
	}
	if (made)
		return 0;
	return mrs_fail(-EOPNOTSUPP,
			"io_uring cannot be used here (%s): sysctl kernel.io_uring_disabled, a "
			"container's seccomp profile or RLIMIT_MEMLOCK; or ask for plain I/O "
			"(MORSEL_SWAP_PLAIN_IO, morsel swap add --plain)",
			strerror(-rc));
}

int mrs_uring_open(struct mrs_uring **made)
{
	struct mrs_uring *uring = calloc(1, sizeof(*uring));
	int rc;

	if (!uring)
		return mrs_fail(-ENOMEM, "no memory for io_uring");
	rc = find_library(uring);
	if (!rc)
		rc = make_rings(uring);
	if (rc) {
		if (uring->library)
			dlclose(uring->library);
		free(uring);
		return rc;
	}
	*made = uring;
	return 0;
}

void mrs_uring_close(struct mrs_uring *uring)
{
	for (unsigned i = 0; i < RINGS; i++)
		if (uring->state[i] != RING_NONE)
			uring->exit(&uring->ring[i]);
	dlclose(uring->library);
	free(uring);
}

void mrs_uring_in_child(struct mrs_uring *uring)
{
	for (unsigned i = 0; i < RINGS; i++)
		if (uring->state[i] != RING_NONE)
			close(uring->ring[i].fd);
}

static struct ring *take_ring(struct mrs_uring *uring)
{
	for (unsigned i = 0; i < RINGS; i++) {
		uint32_t idle = RING_IDLE;

		if (mrs_cas32(&uring->state[i], &idle, RING_BUSY))
			return &uring->ring[i];
	}
	return NULL;
}

static void put_ring(struct mrs_uring *uring, struct ring *ring, enum ring_state state)
{
	mrs_store_release32(&uring->state[ring - uring->ring], state);
}

/* Queues requests from *next on, as many as the ring takes; returns how many. */
static unsigned queue(struct mrs_uring *uring, struct ring *ring, int fd, bool write,
		      struct mrs_transfer request[], unsigned count, unsigned *next,
		      unsigned flying)
{
	unsigned queued = 0;

	for (; *next < count && flying + queued < DEPTH; ++*next, queued++) {
		struct io_uring_sqe *sqe = uring->get_sqe(ring);
		struct mrs_transfer *one = &request[*next];

		if (!sqe)
			break;
		memset(sqe, 0, sizeof(*sqe));
		sqe->opcode = write ? IORING_OP_WRITEV : IORING_OP_READV;
		sqe->fd = fd;
		sqe->addr = (uintptr_t)one->iov;
		sqe->len = one->count;
		sqe->off = (uint64_t)one->offset;
		sqe->user_data = *next;
	}
	return queued;
}

/* Takes what has ended; returns how many. */
static unsigned reap(struct mrs_uring *uring, struct ring *ring, struct mrs_transfer request[])
{
	struct io_uring_cqe *cqe[DEPTH];
	unsigned got = uring->peek(ring, cqe, DEPTH);

	for (unsigned i = 0; i < got; i++) {
		struct mrs_transfer *one = &request[cqe[i]->user_data];

		one->rc = cqe[i]->res == (int)(one->count * MRS_PAGE_BYTES) ? 0
			  : cqe[i]->res < 0				    ? cqe[i]->res
									    : -EIO;
	}
	/* Release: the kernel may use the entries again after they were read. */
	__atomic_store_n(ring->cq_head, *ring->cq_head + got, __ATOMIC_RELEASE);
	return got;
}

/* Runs all of them; false if some did not end within the time (-EINPROGRESS is their rc). */
static bool fly(struct mrs_uring *uring, struct ring *ring, int fd, bool write,
		struct mrs_transfer request[], unsigned count, unsigned seconds)
{
	unsigned next = 0, flying = 0, idle_laps = 0;
	struct pollfd ready = {.fd = ring->fd, .events = POLLIN};

	while (next < count || flying) {
		unsigned queued = queue(uring, ring, fd, write, request, count, &next, flying), got;

		if (queued && uring->submit(ring) < 0) {
			/* Not begun, or not known: what did not end has failed. */
			return false;
		}
		flying += queued;
		MRS_PROBE("swap.uring.submitted");
		got = reap(uring, ring, request);
		flying -= got;
		if (got || !flying) {
			idle_laps = 0;
			continue;
		}
		if (poll(&ready, 1, LAP_MS) == 0 && ++idle_laps >= seconds && seconds)
			return false;
	}
	return true;
}

bool mrs_uring_run(struct mrs_uring *uring, int fd, bool write, struct mrs_transfer request[],
		   unsigned count, unsigned seconds)
{
	struct ring *ring = take_ring(uring);
	bool ended;

	if (!ring)
		return false;
	for (unsigned i = 0; i < count; i++)
		request[i].rc = -EINPROGRESS;
	ended = fly(uring, ring, fd, write, request, count, seconds);
	put_ring(uring, ring, ended ? RING_IDLE : RING_STUCK);
	return true;
}
