/*
 * A pair of queues as a value; see ring.h.
 */
#include "nvme/ring.h"

#include <string.h>

void mrs_ring_init(struct mrs_nvme_ring *ring)
{
	memset(ring->sq, 0, ring->entries * sizeof(*ring->sq));
	memset((void *)ring->cq, 0, ring->entries * sizeof(*ring->cq));
	ring->tail = 0;
	ring->head = 0;
	ring->phase = 1;
}

bool mrs_ring_valid(const struct mrs_nvme_ring *ring)
{
	uint32_t free = 0, ended = 0, flying = 0;

	for (uint32_t i = ring->free; i; i = ring->slot[i - 1].next)
		if (++free > ring->depth || ring->slot[i - 1].state != NVME_SLOT_FREE)
			return false;
	for (uint32_t i = ring->ended_first; i; i = ring->slot[i - 1].next)
		if (++ended > ring->depth || ring->slot[i - 1].state != NVME_SLOT_ENDED)
			return false;
	for (uint32_t i = 0; i < ring->depth; i++)
		flying += mrs_slot_is_flying(&ring->slot[i]);
	return free + ring->taken == ring->depth && flying == ring->flying &&
	       flying + ended <= ring->taken && ring->tail < ring->entries &&
	       ring->head < ring->entries && ring->phase < 2;
}

int mrs_ring_take(struct mrs_nvme_ring *ring)
{
	uint32_t cid = ring->free - 1;

	if (!ring->free)
		return -1;
	ring->free = ring->slot[cid].next;
	ring->slot[cid].state = NVME_SLOT_FLYING;
	ring->taken++;
	ring->flying++;
	return (int)cid;
}

void mrs_ring_give(struct mrs_nvme_ring *ring, unsigned cid)
{
	struct mrs_nvme_slot *slot = &ring->slot[cid];

	ring->flying -= mrs_slot_is_flying(slot);
	ring->taken--;
	*slot = (struct mrs_nvme_slot){.next = (uint16_t)ring->free};
	ring->free = cid + 1;
}

void mrs_ring_push(struct mrs_nvme_ring *ring, const struct mrs_nvme_sqe *sqe)
{
	ring->sq[ring->tail] = *sqe;
	ring->tail = ring->tail + 1 == ring->entries ? 0 : ring->tail + 1;
}

/*
 * The phase bit is read first: it pairs with the device writing it last. An answer whose slot is
 * not in flight is a controller's mistake, and dropped.
 */
bool mrs_ring_pop(struct mrs_nvme_ring *ring, struct mrs_nvme_answer *answer)
{
	for (;;) {
		volatile struct mrs_nvme_cqe *entry = &ring->cq[ring->head];
		uint16_t status = entry->status, cid;

		if ((status & 1u) != ring->phase)
			return false;
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		cid = entry->cid;
		*answer = (struct mrs_nvme_answer){
			.result = entry->result, .status = mrs_nvme_status_of(status), .cid = cid};
		if (++ring->head == ring->entries) {
			ring->head = 0;
			ring->phase ^= 1;
		}
		if (cid < ring->depth && mrs_slot_is_flying(&ring->slot[cid]))
			return true;
	}
}

void mrs_ring_end(struct mrs_nvme_ring *ring, unsigned cid, int rc, uint32_t status)
{
	struct mrs_nvme_slot *slot = &ring->slot[cid];

	if (slot->fn) {
		slot->fn(slot->user, rc, status);
		mrs_ring_give(ring, cid);
		return;
	}
	slot->rc = rc;
	slot->status = status;
	slot->state = NVME_SLOT_ENDED;
	slot->next = 0;
	ring->flying--;
	if (ring->ended_last)
		ring->slot[ring->ended_last - 1].next = (uint16_t)(cid + 1);
	else
		ring->ended_first = cid + 1;
	ring->ended_last = cid + 1;
}

int mrs_ring_ended(struct mrs_nvme_ring *ring)
{
	int cid = (int)ring->ended_first - 1;

	if (cid < 0)
		return -1;
	ring->ended_first = ring->slot[cid].next;
	if (!ring->ended_first)
		ring->ended_last = 0;
	return cid;
}

void mrs_ring_lose(struct mrs_nvme_ring *ring, int rc, int late_rc)
{
	for (uint32_t i = 0; i < ring->depth; i++) {
		const struct mrs_nvme_slot *slot = &ring->slot[i];

		if (mrs_slot_is_flying(slot))
			mrs_ring_end(ring, i, slot->state == NVME_SLOT_ABORTING ? late_rc : rc, 0);
	}
}

uint64_t mrs_ring_deadline(const struct mrs_nvme_ring *ring)
{
	uint64_t first = UINT64_MAX;

	for (uint32_t i = 0; i < ring->depth; i++)
		if (mrs_slot_is_flying(&ring->slot[i]) && ring->slot[i].deadline < first)
			first = ring->slot[i].deadline;
	return first;
}
