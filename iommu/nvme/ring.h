/*
 * A pair of queues: a ring of commands, a ring of answers, and who is in flight.
 *
 *	sq  [ . . c c c . . ]   tail: where the next command goes; rung to the device
 *	cq  [ a a . . . . . ]   head: the next answer; it is new if its phase bit is ours, which
 *turns over whenever the head passes the end slot[cid]               one per command in flight;
 *free ones form a chain
 *
 * free + flying + ended = depth, and the ring of commands has one entry more, so that it is never
 *full while there is a free slot: the head that the device reports is not needed. Here are only
 *plain functions on values; locking and doorbells are the callers'.
 */
#ifndef MRS_NVME_RING_H
#define MRS_NVME_RING_H

#include <stdbool.h>
#include <stdint.h>

#include "nvme/pointer.h"
#include "nvme/spec.h"

enum mrs_nvme_slot_state {
	NVME_SLOT_FREE,
	NVME_SLOT_FLYING,
	NVME_SLOT_ABORTING, /* late, and the controller has been asked to end it */
	NVME_SLOT_ENDED,    /* what became of it is still to be told */
};

/* Called under the queue's lock, instead of telling who polls: by the simple calls. */
typedef void (*mrs_nvme_done_fn)(void *user, int rc, uint32_t status);

struct mrs_nvme_slot {
	void *user;
	mrs_nvme_done_fn fn; /* may be NULL */
	uint64_t deadline;   /* ns of the port */
	uint64_t bytes;
	uint16_t next; /* free, ended: the next one's number plus 1 */
	uint8_t state; /* enum mrs_nvme_slot_state */
	uint8_t opcode;
	int32_t rc; /* ended: with what */
	uint32_t status;
};

struct mrs_nvme_ring {
	struct mrs_nvme_sqe *sq;
	volatile struct mrs_nvme_cqe *cq;
	struct mrs_nvme_slot *slot;
	uint32_t depth;	  /* slots */
	uint32_t entries; /* of both rings: depth + 1 */
	uint32_t tail;
	uint32_t head;
	uint32_t phase;
	uint32_t free;			  /* first free slot plus 1 */
	uint32_t taken;			  /* slots that are not free */
	uint32_t flying;		  /* of them: the device has not answered */
	uint32_t ended_first, ended_last; /* plus 1: in the order in which they ended */
};

/* One answer. */
struct mrs_nvme_answer {
	uint32_t result;
	uint32_t status; /* type << 8 | code */
	uint16_t cid;
};

/* Empties the ring; its memory must be zero, or is made so. */
void mrs_ring_init(struct mrs_nvme_ring *ring);
bool mrs_ring_valid(const struct mrs_nvme_ring *ring);

/* A free slot, flying from now on, or -1. */
int mrs_ring_take(struct mrs_nvme_ring *ring);
void mrs_ring_give(struct mrs_nvme_ring *ring, unsigned cid);
/* Copies the command in and moves the tail, which the caller then rings. */
void mrs_ring_push(struct mrs_nvme_ring *ring, const struct mrs_nvme_sqe *sqe);
/* The next answer, if there is one; the head moves, which the caller then rings. */
bool mrs_ring_pop(struct mrs_nvme_ring *ring, struct mrs_nvme_answer *answer);
/*
 * It has ended: calls its fn, and it is free; or keeps it for who polls.
 */
void mrs_ring_end(struct mrs_nvme_ring *ring, unsigned cid, int rc, uint32_t status);
/* The slot that ended first and is to be told, or -1. The caller gives it back. */
int mrs_ring_ended(struct mrs_nvme_ring *ring);
/* Ends all that is flying with rc, or late_rc where they are ABORTING. */
void mrs_ring_lose(struct mrs_nvme_ring *ring, int rc, int late_rc);
/* The deadline that comes first; UINT64_MAX if nothing is flying. */
uint64_t mrs_ring_deadline(const struct mrs_nvme_ring *ring);

static inline bool mrs_slot_is_flying(const struct mrs_nvme_slot *slot)
{
	return slot->state == NVME_SLOT_FLYING || slot->state == NVME_SLOT_ABORTING;
}

#endif
