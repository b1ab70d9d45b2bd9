/*
 * Commands in, answers out, and what is late.
 *
 * Every command has a deadline. Who polls and finds that one has passed asks the controller to end
 * the command; if its next deadline passes too, the controller is reset. Both happen without the
 * queue's lock, under the controller's, so that only one thread does it.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "nvme/internal.h"

#define ABORTS_AT_ONCE 4 /* every controller takes at least one, most take four */

/* ---- commands ---- */

static uint64_t bytes_of(const struct morsel_nvme_io *io)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < io->count; i++)
		bytes += io->pieces[i].bytes;
	return bytes;
}

static bool moves_data(const struct morsel_nvme_io *io)
{
	return io->op == MORSEL_NVME_READ || io->op == MORSEL_NVME_WRITE;
}

static int check_data(struct morsel_nvme *nvme, const struct morsel_nvme_io *io,
		      const struct mrs_nvme_geometry *geometry)
{
	uint64_t bytes = bytes_of(io), wanted = (uint64_t)io->blocks * geometry->block_bytes;

	if (bytes != wanted)
		return morsel_fail(-EINVAL,
				   "%u blocks of %u bytes want %" PRIu64
				   " bytes of memory, not %" PRIu64,
				   io->blocks, geometry->block_bytes, wanted, bytes);
	if (bytes > nvme->transfer_max)
		return morsel_fail(-E2BIG,
				   "%" PRIu64
				   " bytes in one command: this controller takes %" PRIu64
				   "; submit several",
				   bytes, nvme->transfer_max);
	if (io->flags & MORSEL_NVME_SGL && !nvme->identity.sgl)
		return morsel_fail(-EOPNOTSUPP, "the NVMe controller %s takes no SGLs",
				   nvme->port.name);
	return 0;
}

static int check_io(struct morsel_nvme *nvme, const struct morsel_nvme_io *io,
		    const struct mrs_nvme_geometry *geometry)
{
	const uint32_t flags =
		MORSEL_NVME_DURABLE | MORSEL_NVME_PRP | MORSEL_NVME_SGL | MORSEL_NVME_MORE;

	if (io->op < MORSEL_NVME_READ || io->op > MORSEL_NVME_DEALLOCATE || io->flags & ~flags ||
	    io->reserved || (io->flags & MORSEL_NVME_PRP && io->flags & MORSEL_NVME_SGL))
		return morsel_fail(-EINVAL, "operation %u with flags 0x%x is none", io->op,
				   io->flags);
	if (io->op != MORSEL_NVME_FLUSH && (!io->blocks || io->blocks > 65536))
		return morsel_fail(-EINVAL, "a command is for 1 to 65536 blocks, not %u",
				   io->blocks);
	if (io->op == MORSEL_NVME_ZERO && !nvme->identity.write_zeroes)
		return morsel_fail(-EOPNOTSUPP,
				   "the NVMe controller %s does not know write zeroes: "
				   "write zeros",
				   nvme->port.name);
	if (io->op == MORSEL_NVME_DEALLOCATE && !nvme->identity.deallocate)
		return morsel_fail(-EOPNOTSUPP, "the NVMe controller %s cannot deallocate blocks",
				   nvme->port.name);
	return moves_data(io) ? check_data(nvme, io, geometry) : 0;
}

static int point(struct morsel_nvme *nvme, const struct morsel_nvme_io *io,
		 const struct mrs_nvme_list *list, struct mrs_nvme_sqe *sqe)
{
	bool sgl = io->flags & MORSEL_NVME_SGL;

	/* Up to two pages PRPs need no list; beyond, and where they do not fit, an SGL is shorter.
	 */
	if (!(io->flags & (MORSEL_NVME_PRP | MORSEL_NVME_SGL)) && nvme->identity.sgl)
		sgl = !mrs_nvme_prp_fits(io->pieces, io->count, nvme->page_bytes) ||
		      (io->count == 1 && io->pieces[0].bytes > nvme->page_bytes);
	if (sgl)
		return mrs_nvme_sgl(sqe, io->pieces, io->count, list);
	return mrs_nvme_prp(sqe, io->pieces, io->count, nvme->page_bytes, list);
}

static void point_range(const struct morsel_nvme_io *io, const struct mrs_nvme_list *list,
			struct mrs_nvme_sqe *sqe)
{
	*(struct mrs_nvme_range *)list->memory =
		(struct mrs_nvme_range){.blocks = io->blocks, .block = io->block};
	sqe->dptr[0] = list->iova;
	sqe->cdw10 = 0;
	sqe->cdw11 = NVME_DSM_DEALLOCATE;
}

static int build(struct morsel_nvme *nvme, const struct morsel_nvme_io *io,
		 const struct mrs_nvme_list *list, struct mrs_nvme_sqe *sqe)
{
	static const uint8_t opcode[] = {
		[MORSEL_NVME_READ] = NVME_READ,		 [MORSEL_NVME_WRITE] = NVME_WRITE,
		[MORSEL_NVME_FLUSH] = NVME_FLUSH,	 [MORSEL_NVME_ZERO] = NVME_WRITE_ZEROES,
		[MORSEL_NVME_DEALLOCATE] = NVME_DATASET,
	};

	sqe->opcode = opcode[io->op];
	sqe->nsid = io->ns;
	if (io->op == MORSEL_NVME_FLUSH)
		return 0;
	if (io->op == MORSEL_NVME_DEALLOCATE) {
		point_range(io, list, sqe);
		return 0;
	}
	sqe->cdw10 = (uint32_t)io->block;
	sqe->cdw11 = (uint32_t)(io->block >> 32);
	sqe->cdw12 = io->blocks - 1;
	if (io->flags & MORSEL_NVME_DURABLE && io->op != MORSEL_NVME_READ)
		sqe->cdw12 |= NVME_FUA;
	return moves_data(io) ? point(nvme, io, list, sqe) : 0;
}

/* The list of one slot. */
static struct mrs_nvme_list list_of(const struct mrs_nvme_queue *queue, unsigned cid)
{
	uint64_t at = cid * queue->list.bytes;

	return (struct mrs_nvme_list){.memory = (unsigned char *)queue->list.memory + at,
				      .iova = queue->list.iova + at,
				      .bytes = queue->list.bytes};
}

static int submit_locked(struct morsel_nvme *nvme, struct mrs_nvme_queue *queue,
			 const struct morsel_nvme_io *io, mrs_nvme_done_fn fn)
{
	struct mrs_nvme_sqe sqe = {0};
	struct mrs_nvme_list list;
	struct mrs_nvme_slot *slot;
	int cid, rc = mrs_nvme_alive(nvme);

	if (rc)
		return rc;
	cid = mrs_ring_take(&queue->ring);
	if (cid < 0)
		return -EAGAIN;
	list = list_of(queue, (unsigned)cid);
	rc = build(nvme, io, &list, &sqe);
	if (rc) {
		mrs_ring_give(&queue->ring, (unsigned)cid);
		return rc;
	}
	slot = &queue->ring.slot[cid];
	slot->user = io->user;
	slot->fn = fn;
	slot->opcode = sqe.opcode;
	slot->bytes = moves_data(io) ? bytes_of(io) : 0;
	slot->deadline = mrs_nvme_now(nvme) + nvme->timeout_ns;
	/* Deadlines only grow: the first that flies is the first that can be late. */
	if (queue->ring.flying == 1)
		queue->look_at = slot->deadline;
	sqe.cid = (uint16_t)cid;
	mrs_ring_push(&queue->ring, &sqe);
	if (!(io->flags & MORSEL_NVME_MORE))
		mrs_nvme_ring_tail(nvme, queue);
	return 0;
}

int mrs_nvme_submit(struct morsel_nvme *nvme, struct mrs_nvme_queue *queue,
		    const struct morsel_nvme_io *io, mrs_nvme_done_fn fn)
{
	struct mrs_nvme_geometry geometry;
	int rc = mrs_nvme_alive(nvme);

	if (!rc)
		rc = mrs_nvme_geometry(nvme, io->ns, &geometry);
	if (!rc)
		rc = check_io(nvme, io, &geometry);
	if (rc)
		return rc;
	pthread_mutex_lock(&queue->lock);
	rc = submit_locked(nvme, queue, io, fn);
	pthread_mutex_unlock(&queue->lock);
	return rc;
}

/* ---- answers ---- */

static void count_answer(struct morsel_nvme *nvme, const struct mrs_nvme_slot *slot,
			 uint32_t status)
{
	mrs_nvme_count(&nvme->commands, 1);
	if (status == NVME_ABORT_REQUESTED)
		mrs_nvme_count(&nvme->aborts, 1);
	if (status)
		return;
	if (slot->opcode == NVME_READ)
		mrs_nvme_count(&nvme->bytes_read, slot->bytes);
	else if (slot->opcode == NVME_WRITE)
		mrs_nvme_count(&nvme->bytes_written, slot->bytes);
}

void mrs_nvme_harvest(struct morsel_nvme *nvme, struct mrs_nvme_queue *queue)
{
	struct mrs_nvme_answer answer;

	while (mrs_ring_pop(&queue->ring, &answer)) {
		count_answer(nvme, &queue->ring.slot[answer.cid], answer.status);
		mrs_ring_end(&queue->ring, answer.cid, mrs_nvme_status_errno(answer.status),
			     answer.status);
	}
}

/* What the device has answered; how many of the caller's are in done[]. The lock is held. */
static unsigned collect(struct morsel_nvme *nvme, struct mrs_nvme_queue *queue,
			struct morsel_nvme_done *done, unsigned count)
{
	unsigned got = 0;
	int cid;

	if (queue->told != queue->ring.tail)
		mrs_nvme_ring_tail(nvme, queue);
	mrs_nvme_harvest(nvme, queue);
	mrs_nvme_ring_head(nvme, queue);
	while (got < count && (cid = mrs_ring_ended(&queue->ring)) >= 0) {
		const struct mrs_nvme_slot *slot = &queue->ring.slot[cid];

		done[got++] = (struct morsel_nvme_done){
			.user = slot->user, .rc = slot->rc, .status = slot->status};
		mrs_ring_give(&queue->ring, (unsigned)cid);
	}
	return got;
}

/* ---- what is late ---- */

/* Marks what is late and collects some of it; true if an abort was late, too. The lock is held. */
static bool find_late(struct morsel_nvme *nvme, struct mrs_nvme_queue *queue, uint16_t late[],
		      unsigned *count)
{
	uint64_t now = mrs_nvme_now(nvme);
	bool twice = false;

	*count = 0;
	for (uint32_t i = 0; i < queue->ring.depth; i++) {
		struct mrs_nvme_slot *slot = &queue->ring.slot[i];

		if (!mrs_slot_is_flying(slot) || now < slot->deadline)
			continue;
		if (slot->state == NVME_SLOT_ABORTING) {
			twice = true;
		} else if (*count < ABORTS_AT_ONCE) {
			late[(*count)++] = (uint16_t)i;
			slot->state = NVME_SLOT_ABORTING;
			slot->deadline = now + nvme->timeout_ns;
			mrs_nvme_count(&nvme->timeouts, 1);
		}
	}
	queue->look_at = mrs_ring_deadline(&queue->ring);
	return twice;
}

static int ask_abort(struct morsel_nvme *nvme, const struct mrs_nvme_queue *queue, uint16_t cid)
{
	struct mrs_nvme_sqe sqe = {.opcode = NVME_ABORT, .cdw10 = (uint32_t)cid << 16 | queue->id};
	int rc = mrs_nvme_admin(nvme, &sqe, NULL);

	/* A refusal is no harm: the command has its second deadline. */
	return rc == -ETIMEDOUT || rc == -ENODEV ? rc : 0;
}

static void recover(struct morsel_nvme *nvme, struct mrs_nvme_queue *queue)
{
	uint16_t late[ABORTS_AT_ONCE];
	unsigned count;
	bool reset;

	pthread_mutex_lock(&nvme->lock);
	if (nvme->dead)
		goto unlock;
	pthread_mutex_lock(&queue->lock);
	reset = find_late(nvme, queue, late, &count);
	pthread_mutex_unlock(&queue->lock);
	reset = reset || mrs_nvme_has_failed(nvme);
	for (unsigned i = 0; !reset && i < count; i++)
		reset = ask_abort(nvme, queue, late[i]) != 0;
	if (reset)
		mrs_nvme_reset_locked(nvme, "a command was not answered");
unlock:
	pthread_mutex_unlock(&nvme->lock);
}

/* ---- polling ---- */

int mrs_nvme_poll(struct morsel_nvme *nvme, struct mrs_nvme_queue *queue,
		  struct morsel_nvme_done *done, unsigned count, uint64_t ns)
{
	uint64_t start = mrs_nvme_now(nvme),
		 end = ns > UINT64_MAX - start ? UINT64_MAX : start + ns;
	uint64_t now = start, healthy_at = start, slice;
	unsigned got;

	for (;;) {
		uint64_t look_at;
		uint32_t flying, before;

		pthread_mutex_lock(&queue->lock);
		before = queue->ring.taken;
		got = collect(nvme, queue, done, count);
		flying = queue->ring.flying;
		look_at = queue->look_at;
		before -= queue->ring.taken;
		pthread_mutex_unlock(&queue->lock);
		/* Something of the simple calls' has ended: its caller looks after it. */
		if (got || before || !flying)
			return (int)got;
		if (now >= look_at ||
		    (now >= healthy_at + NVME_HEALTH_NS && mrs_nvme_has_failed(nvme))) {
			recover(nvme, queue);
			healthy_at = now = mrs_nvme_now(nvme);
			continue;
		}
		if (now >= healthy_at + NVME_HEALTH_NS)
			healthy_at = now;
		if (now >= end)
			return 0;
		slice = end - now < NVME_WAIT_SLICE_NS ? end - now : NVME_WAIT_SLICE_NS;
		nvme->port.wait(nvme->port.ctx, queue->vector, slice);
		now = mrs_nvme_now(nvme);
	}
}

/* ---- the public ones ---- */

static int find_queue(struct morsel_nvme *nvme, unsigned index, struct mrs_nvme_queue **queue)
{
	if (index >= nvme->queues)
		return morsel_fail(-EINVAL, "queue %u: there are %u, from 0", index, nvme->queues);
	*queue = &nvme->queue[index];
	return 0;
}

int morsel_nvme_submit(struct morsel_nvme *nvme, unsigned index, const struct morsel_nvme_io *io)
{
	struct mrs_nvme_queue *queue = NULL;
	int rc = find_queue(nvme, index, &queue);

	return rc ? rc : mrs_nvme_submit(nvme, queue, io, NULL);
}

int morsel_nvme_poll(struct morsel_nvme *nvme, unsigned index, struct morsel_nvme_done *done,
		     unsigned count, int timeout_ms)
{
	struct mrs_nvme_queue *queue = NULL;
	int rc = find_queue(nvme, index, &queue);

	if (rc)
		return rc;
	return mrs_nvme_poll(nvme, queue, done, count,
			     timeout_ms < 0 ? UINT64_MAX : (uint64_t)timeout_ms * 1000000);
}

int morsel_nvme_fd(struct morsel_nvme *nvme, unsigned index)
{
	struct mrs_nvme_queue *queue = NULL;
	int rc = find_queue(nvme, index, &queue);

	if (rc)
		return rc;
	if (!nvme->port.vectors || !nvme->port.fd)
		return morsel_fail(-EOPNOTSUPP,
				   "the NVMe controller %s is polled: it has no interrupts",
				   nvme->port.name);
	return nvme->port.fd(nvme->port.ctx, queue->vector);
}
