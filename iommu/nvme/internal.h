/*
 * Inside the NVMe driver: a controller, its queues, and how its files share them.
 *
 *	port.h		what the driver needs of the world; device.c is the real one
 *	ring.c		a pair of queues as a value; pointer.c, identify.c: plain functions
 *	controller.c	getting ready, administration, queues, resets
 *	submit.c	commands in, answers out, what is late
 *	simple.c	ranges of a view, cut into commands
 *
 * Locks: nvme->lock (the admin queue, namespaces, resets), followed by the queues' locks in the
 *order of their numbers. A command is submitted and answered under its queue's lock alone.
 */
#ifndef MRS_NVME_INTERNAL_H
#define MRS_NVME_INTERNAL_H

#include <pthread.h>

#include <morsel/nvme.h>
#include <morsel/view.h>

#include "nvme/identify.h"
#include "nvme/port.h"
#include "nvme/ring.h"

#define NVME_QUEUES_MAX	   64
#define NVME_DEPTH_MAX	   4095
#define NVME_NAMESPACES	   16
#define NVME_ADMIN_DEPTH   31
#define NVME_TRANSFER_MAX  ((uint64_t)1 << 20) /* of one command, whatever the controller takes */
#define NVME_WAIT_SLICE_NS 20000000ull	       /* another thread may have taken our interrupt */
#define NVME_HEALTH_NS	   10000000ull /* how often a waiting thread asks how the controller is */

struct mrs_nvme_queue {
	pthread_mutex_t lock; /* protects all of it; follows nvme->lock */
	struct mrs_nvme_ring ring;
	struct mrs_nvme_memory memory; /* sq, cq, a list for each slot */
	struct mrs_nvme_list list;     /* of slot 0; the others follow */
	unsigned id;		       /* 0: admin */
	unsigned vector;
	uint32_t rung;	  /* head that the device knows */
	uint32_t told;	  /* tail that the device knows */
	uint64_t look_at; /* no command is late before this time */
};

struct mrs_nvme_ns {
	uint32_t id; /* atomic; 0: none yet */
	struct mrs_nvme_geometry geometry;
};

struct morsel_nvme {
	struct mrs_nvme_port port;
	struct morsel_device *device; /* NULL: the port is a test's */
	struct mrs_nvme_cap cap;
	struct mrs_nvme_identity identity;
	unsigned page_shift;
	uint64_t page_bytes;
	uint64_t transfer_max;
	uint64_t timeout_ns;
	int32_t dead; /* atomic; 0, or what every call answers */

	pthread_mutex_t lock; /* the admin queue, namespaces, resets */
	struct mrs_nvme_queue admin;
	struct mrs_nvme_memory scratch; /* a page, for identify data */
	struct mrs_nvme_ns ns[NVME_NAMESPACES];

	struct mrs_nvme_queue *queue; /* for I/O */
	unsigned queues;	      /* of the caller's */
	unsigned queues_made;	      /* one more if the simple calls have their own */
	pthread_mutex_t simple;	      /* one simple call at a time; precedes all others */

	uint64_t commands, timeouts, aborts, resets, bytes_read, bytes_written; /* atomic */
};

static inline void mrs_nvme_count(uint64_t *word, uint64_t n)
{
	__atomic_fetch_add(word, n, __ATOMIC_RELAXED);
}

static inline uint64_t mrs_nvme_now(const struct morsel_nvme *nvme)
{
	return nvme->port.now(nvme->port.ctx);
}

/* ---- controller.c ---- */

/* Takes the port over, also where it fails. */
int mrs_nvme_open_port(const struct mrs_nvme_port *port, const struct morsel_nvme_opts *opts,
		       struct morsel_nvme **nvme);
/* An administrative command and its answer; nvme->lock is held. In words; -ETIMEDOUT: reset it. */
int mrs_nvme_admin(struct morsel_nvme *nvme, struct mrs_nvme_sqe *sqe, uint32_t *result);
/* Everything in flight ends, queues are made anew; nvme->lock is held. If that fails it is dead. */
int mrs_nvme_reset_locked(struct morsel_nvme *nvme, const char *why);
/* Of namespace id; asks the controller at first. -ENOENT in words. */
int mrs_nvme_geometry(struct morsel_nvme *nvme, uint32_t id, struct mrs_nvme_geometry *geometry);
/* 0, or -ENODEV in words. */
int mrs_nvme_alive(struct morsel_nvme *nvme);
/* Does it say that it has failed, or is it gone? */
bool mrs_nvme_has_failed(const struct morsel_nvme *nvme);
void mrs_nvme_ring_tail(const struct morsel_nvme *nvme, struct mrs_nvme_queue *queue);
void mrs_nvme_ring_head(const struct morsel_nvme *nvme, struct mrs_nvme_queue *queue);

/* ---- submit.c ---- */

int mrs_nvme_submit(struct morsel_nvme *nvme, struct mrs_nvme_queue *queue,
		    const struct morsel_nvme_io *io, mrs_nvme_done_fn fn);
/* What was answered is told, or kept to be told. The queue's lock is held. */
void mrs_nvme_harvest(struct morsel_nvme *nvme, struct mrs_nvme_queue *queue);
/* Answers and lateness; waits for at most ns if there is nothing to be told. Returns how many. */
int mrs_nvme_poll(struct morsel_nvme *nvme, struct mrs_nvme_queue *queue,
		  struct morsel_nvme_done *done, unsigned count, uint64_t ns);

/* ---- status.c ---- */

/* A negative errno for a status of the device; 0 for success. */
int mrs_nvme_status_errno(uint32_t status);

/* ---- simple.c ---- */

/* Pieces of memory of one transfer, in order, from byte position on; whole blocks. */
int mrs_nvme_transfer(struct morsel_nvme *nvme, uint32_t op, uint32_t ns, uint64_t position,
		      const struct morsel_nvme_piece *pieces, unsigned count);

#endif
