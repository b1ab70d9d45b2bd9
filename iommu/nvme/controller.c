/*
 * A controller's life: getting ready, administration, its queues, resets, and its end.
 *
 *	off --EN=1--> waiting for RDY --> admin queue --> identify --> I/O queues --> in use
 *	 ^                                                                             |
 *	 +---- EN=0, RDY=0: it reaches no memory any more; everything in flight ends <-+
 *
 * If it does not even get off, bus mastering is taken from it: after that, too, no memory of ours
 *is reached, and what was in flight can be told to have ended. It is dead then.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/internal.h"

static uint64_t page_up(uint64_t bytes, uint64_t page)
{
	return (bytes + page - 1) / page * page;
}

/* ---- doorbells and health ---- */

void mrs_nvme_ring_tail(const struct morsel_nvme *nvme, struct mrs_nvme_queue *queue)
{
	queue->told = queue->ring.tail;
	mrs_port_write32(&nvme->port, mrs_nvme_doorbell(&nvme->cap, queue->id, 0),
			 queue->ring.tail);
}

void mrs_nvme_ring_head(const struct morsel_nvme *nvme, struct mrs_nvme_queue *queue)
{
	if (queue->rung == queue->ring.head)
		return;
	queue->rung = queue->ring.head;
	mrs_port_write32(&nvme->port, mrs_nvme_doorbell(&nvme->cap, queue->id, 1), queue->rung);
}

static bool is_gone(const struct morsel_nvme *nvme)
{
	return nvme->port.is_gone(nvme->port.ctx) ||
	       mrs_port_read32(&nvme->port, NVME_CSTS) == NVME_GONE;
}

bool mrs_nvme_has_failed(const struct morsel_nvme *nvme)
{
	return is_gone(nvme) || mrs_port_read32(&nvme->port, NVME_CSTS) & NVME_CSTS_CFS;
}

int mrs_nvme_alive(struct morsel_nvme *nvme)
{
	int32_t dead = __atomic_load_n(&nvme->dead, __ATOMIC_RELAXED);

	if (!dead)
		return 0;
	return morsel_fail(
		dead,
		"the NVMe controller %s is gone, or could not be reset: close it, and open "
		"it again when it is back",
		nvme->port.name);
}

/* ---- queues ---- */

static void queue_free(struct morsel_nvme *nvme, struct mrs_nvme_queue *queue)
{
	if (queue->memory.memory)
		nvme->port.put(nvme->port.ctx, &queue->memory);
	free(queue->ring.slot);
	memset(queue, 0, sizeof(*queue));
}

/*
 *	| sq, whole pages | cq, whole pages | list of slot 0 | list of slot 1 | ...
 */
static int queue_alloc(struct morsel_nvme *nvme, struct mrs_nvme_queue *queue, unsigned id,
		       uint32_t depth, uint64_t list_bytes)
{
	struct mrs_nvme_ring *ring = &queue->ring;
	uint64_t sq, cq;
	int rc;

	memset(queue, 0, sizeof(*queue));
	ring->depth = depth;
	ring->entries = depth + 1;
	sq = page_up(ring->entries * sizeof(*ring->sq), nvme->page_bytes);
	cq = page_up(ring->entries * sizeof(*ring->cq), nvme->page_bytes);
	ring->slot = calloc(depth, sizeof(*ring->slot));
	if (!ring->slot)
		return morsel_fail(-ENOMEM, "no memory for a queue of %u commands", depth);
	rc = nvme->port.get(nvme->port.ctx, sq + cq + depth * list_bytes, &queue->memory);
	if (rc) {
		free(ring->slot);
		memset(queue, 0, sizeof(*queue));
		return rc;
	}
	ring->sq = queue->memory.memory;
	ring->cq = (void *)((unsigned char *)queue->memory.memory + sq);
	queue->list =
		(struct mrs_nvme_list){.memory = (unsigned char *)queue->memory.memory + sq + cq,
				       .iova = queue->memory.iova + sq + cq,
				       .bytes = list_bytes};
	queue->id = id;
	queue->vector = nvme->port.vectors ? id % nvme->port.vectors : 0;
	for (uint32_t i = 0; i < depth; i++)
		ring->slot[i].next = (uint16_t)(i + 1 < depth ? i + 2 : 0);
	ring->free = 1;
	mrs_ring_init(ring);
	pthread_mutex_init(&queue->lock, NULL);
	return 0;
}

static uint64_t cq_iova(const struct mrs_nvme_queue *queue)
{
	return queue->memory.iova +
	       (uint64_t)((uintptr_t)queue->ring.cq - (uintptr_t)queue->ring.sq);
}

static int queue_create(struct morsel_nvme *nvme, struct mrs_nvme_queue *queue)
{
	uint32_t size = (queue->ring.entries - 1) << 16 | queue->id;
	struct mrs_nvme_sqe sqe = {.opcode = NVME_CREATE_CQ,
				   .dptr = {cq_iova(queue)},
				   .cdw10 = size,
				   .cdw11 = NVME_QUEUE_CONTIGUOUS};
	int rc;

	if (nvme->port.vectors)
		sqe.cdw11 |= NVME_QUEUE_INTERRUPT | queue->vector << 16;
	rc = mrs_nvme_admin(nvme, &sqe, NULL);
	if (rc)
		return rc;
	sqe = (struct mrs_nvme_sqe){.opcode = NVME_CREATE_SQ,
				    .dptr = {queue->memory.iova},
				    .cdw10 = size,
				    .cdw11 = NVME_QUEUE_CONTIGUOUS | queue->id << 16};
	return mrs_nvme_admin(nvme, &sqe, NULL);
}

/* ---- on and off ---- */

/* Until CSTS & mask == wanted. */
static int await_status(struct morsel_nvme *nvme, uint32_t mask, uint32_t wanted, const char *what)
{
	uint64_t start = mrs_nvme_now(nvme), end = start + nvme->cap.ready_ms * 1000000ull;

	for (;;) {
		uint32_t status = mrs_port_read32(&nvme->port, NVME_CSTS);

		if (status == NVME_GONE || nvme->port.is_gone(nvme->port.ctx))
			return morsel_fail(-ENODEV, "the NVMe controller %s is gone",
					   nvme->port.name);
		if ((status & mask) == wanted)
			return 0;
		if (mrs_nvme_now(nvme) >= end)
			return morsel_fail(
				-ETIMEDOUT,
				"the NVMe controller %s did not %s within the %u ms that "
				"it names itself (CSTS 0x%x)",
				nvme->port.name, what, nvme->cap.ready_ms, status);
		nvme->port.wait(nvme->port.ctx, 0, 1000000);
	}
}

static int turn_off(struct morsel_nvme *nvme)
{
	uint32_t cc = mrs_port_read32(&nvme->port, NVME_CC);

	/* One that is still getting ready must be let: RDY follows EN. */
	if (cc != NVME_GONE && cc & NVME_CC_EN) {
		if (!(mrs_port_read32(&nvme->port, NVME_CSTS) & (NVME_CSTS_RDY | NVME_CSTS_CFS)))
			await_status(nvme, NVME_CSTS_RDY, NVME_CSTS_RDY, "get ready");
		mrs_port_write32(&nvme->port, NVME_CC, cc & ~(NVME_CC_EN | NVME_CC_SHN_MASK));
	}
	return await_status(nvme, NVME_CSTS_RDY, 0, "turn off");
}

static int turn_on(struct morsel_nvme *nvme)
{
	uint32_t last = nvme->admin.ring.entries - 1;
	const struct mrs_nvme_port *port = &nvme->port;

	mrs_ring_init(&nvme->admin.ring);
	nvme->admin.rung = 0;
	mrs_port_write32(port, NVME_AQA, last << 16 | last);
	mrs_port_write64(port, NVME_ASQ, nvme->admin.memory.iova);
	mrs_port_write64(port, NVME_ACQ, cq_iova(&nvme->admin));
	mrs_port_write32(port, NVME_CC,
			 NVME_CC_EN | NVME_CC_MPS(nvme->page_shift - 12) | NVME_CC_IOSQES(6) |
				 NVME_CC_IOCQES(4));
	return await_status(nvme, NVME_CSTS_RDY, NVME_CSTS_RDY, "get ready");
}

/* ---- administration ---- */

struct answered {
	bool is;
	int rc;
	uint32_t status;
};

static void answered(void *user, int rc, uint32_t status)
{
	*(struct answered *)user = (struct answered){true, rc, status};
}

static int admin_failed(struct morsel_nvme *nvme, const struct mrs_nvme_sqe *sqe, int rc,
			uint32_t status)
{
	return morsel_fail(rc,
			   "the NVMe controller %s answered administrative command 0x%x with "
			   "status 0x%x, %s",
			   nvme->port.name, sqe->opcode, status, morsel_nvme_status_words(status));
}

int mrs_nvme_admin(struct morsel_nvme *nvme, struct mrs_nvme_sqe *sqe, uint32_t *result)
{
	struct mrs_nvme_queue *queue = &nvme->admin;
	uint64_t end = mrs_nvme_now(nvme) + nvme->timeout_ns;
	struct answered answer = {0};
	struct mrs_nvme_answer got = {0};
	int cid = mrs_ring_take(&queue->ring);

	if (cid < 0)
		return morsel_fail(-EIO, "the admin queue of %s is full", nvme->port.name);
	queue->ring.slot[cid].fn = answered;
	queue->ring.slot[cid].user = &answer;
	sqe->cid = (uint16_t)cid;
	mrs_ring_push(&queue->ring, sqe);
	mrs_nvme_ring_tail(nvme, queue);
	while (!answer.is) {
		while (!answer.is && mrs_ring_pop(&queue->ring, &got))
			mrs_ring_end(&queue->ring, got.cid, mrs_nvme_status_errno(got.status),
				     got.status);
		mrs_nvme_ring_head(nvme, queue);
		if (answer.is)
			break;
		if (mrs_nvme_now(nvme) >= end || mrs_nvme_has_failed(nvme)) {
			mrs_ring_give(&queue->ring, (unsigned)cid);
			return morsel_fail(is_gone(nvme) ? -ENODEV : -ETIMEDOUT,
					   "the NVMe controller %s did not answer administrative "
					   "command 0x%x",
					   nvme->port.name, sqe->opcode);
		}
		nvme->port.wait(nvme->port.ctx, 0, NVME_WAIT_SLICE_NS);
	}
	mrs_nvme_count(&nvme->commands, 1);
	if (answer.rc)
		return admin_failed(nvme, sqe, answer.rc, answer.status);
	if (result)
		*result = got.result;
	return 0;
}

static int identify(struct morsel_nvme *nvme, uint32_t cns, uint32_t ns)
{
	struct mrs_nvme_sqe sqe = {
		.opcode = NVME_IDENTIFY, .nsid = ns, .dptr = {nvme->scratch.iova}, .cdw10 = cns};

	memset(nvme->scratch.memory, 0, NVME_IDENTIFY_BYTES);
	return mrs_nvme_admin(nvme, &sqe, NULL);
}

/* Asks for so many pairs; returns how many it gives, or -errno. */
static int ask_queues(struct morsel_nvme *nvme, unsigned wanted)
{
	struct mrs_nvme_sqe sqe = {.opcode = NVME_SET_FEATURES,
				   .cdw10 = NVME_FEATURE_QUEUES,
				   .cdw11 = (wanted - 1) << 16 | (wanted - 1)};
	uint32_t result, sq, cq;
	int rc = mrs_nvme_admin(nvme, &sqe, &result);

	if (rc)
		return rc;
	sq = (result & 0xffff) + 1;
	cq = (result >> 16) + 1;
	if (sq > wanted)
		sq = wanted;
	return (int)(cq < sq ? cq : sq);
}

/* ---- namespaces ---- */

static const struct mrs_nvme_ns *find_ns(struct morsel_nvme *nvme, uint32_t id)
{
	for (unsigned i = 0; i < NVME_NAMESPACES; i++)
		if (__atomic_load_n(&nvme->ns[i].id, __ATOMIC_ACQUIRE) == id)
			return &nvme->ns[i];
	return NULL;
}

static void remember(struct morsel_nvme *nvme, uint32_t id,
		     const struct mrs_nvme_geometry *geometry)
{
	for (unsigned i = 0; i < NVME_NAMESPACES; i++)
		if (!nvme->ns[i].id) {
			nvme->ns[i].geometry = *geometry;
			/* Pairs with find_ns(): who sees the number sees the geometry. */
			__atomic_store_n(&nvme->ns[i].id, id, __ATOMIC_RELEASE);
			return;
		}
}

static int ask_ns(struct morsel_nvme *nvme, uint32_t id, struct mrs_nvme_geometry *geometry)
{
	int rc = identify(nvme, NVME_CNS_NAMESPACE, id);

	if (!rc)
		rc = mrs_nvme_geometry_parse(nvme->scratch.memory, id, geometry);
	return rc;
}

static int no_such_ns(struct morsel_nvme *nvme, uint32_t id)
{
	return morsel_fail(-ENOENT,
			   "the NVMe controller %s has no namespace %u (numbers go up to %u)",
			   nvme->port.name, id, nvme->identity.namespaces);
}

int mrs_nvme_geometry(struct morsel_nvme *nvme, uint32_t id, struct mrs_nvme_geometry *geometry)
{
	const struct mrs_nvme_ns *known;
	int rc;

	if (!id || id > nvme->identity.namespaces)
		return no_such_ns(nvme, id);
	known = find_ns(nvme, id);
	if (known) {
		*geometry = known->geometry;
		return 0;
	}
	pthread_mutex_lock(&nvme->lock);
	rc = mrs_nvme_alive(nvme);
	if (!rc)
		rc = ask_ns(nvme, id, geometry);
	if (!rc && !find_ns(nvme, id))
		remember(nvme, id, geometry);
	if (rc == -ETIMEDOUT)
		mrs_nvme_reset_locked(nvme, "an administrative command was late");
	pthread_mutex_unlock(&nvme->lock);
	return rc == -ENOENT ? no_such_ns(nvme, id) : rc;
}

int morsel_nvme_namespace(struct morsel_nvme *nvme, uint32_t id, struct morsel_nvme_namespace *ns)
{
	struct mrs_nvme_geometry geometry;
	struct morsel_nvme_namespace filled;
	int rc = mrs_nvme_alive(nvme);

	if (!rc)
		rc = mrs_nvme_geometry(nvme, id, &geometry);
	if (rc)
		return rc;
	filled = (struct morsel_nvme_namespace){.size = ns->size,
						.id = id,
						.block_bytes = geometry.block_bytes,
						.blocks = geometry.blocks,
						.blocks_used = geometry.used};
	memcpy(ns, &filled, ns->size < sizeof(filled) ? ns->size : sizeof(filled));
	return 0;
}

/* ---- resets ---- */

static void lock_queues(struct morsel_nvme *nvme)
{
	for (unsigned i = 0; i < nvme->queues_made; i++)
		pthread_mutex_lock(&nvme->queue[i].lock);
}

static void unlock_queues(struct morsel_nvme *nvme)
{
	for (unsigned i = nvme->queues_made; i > 0; i--)
		pthread_mutex_unlock(&nvme->queue[i - 1].lock);
}

/* What was answered before is as it was answered; all else is lost. */
static void lose_all(struct morsel_nvme *nvme, int rc, int late_rc)
{
	mrs_ring_lose(&nvme->admin.ring, rc, late_rc);
	for (unsigned i = 0; i < nvme->queues_made; i++) {
		mrs_nvme_harvest(nvme, &nvme->queue[i]);
		mrs_ring_lose(&nvme->queue[i].ring, rc, late_rc);
	}
}

/* The controller is off, its memory is not reached. */
static int start_again(struct morsel_nvme *nvme)
{
	int rc = turn_on(nvme), given;

	if (rc)
		return rc;
	given = ask_queues(nvme, nvme->queues_made);
	if (given < 0)
		return given;
	if ((unsigned)given < nvme->queues_made)
		return morsel_fail(-EIO, "the NVMe controller %s has fewer queues after a reset",
				   nvme->port.name);
	for (unsigned i = 0; !rc && i < nvme->queues_made; i++) {
		mrs_ring_init(&nvme->queue[i].ring);
		nvme->queue[i].rung = nvme->queue[i].told = 0;
		rc = queue_create(nvme, &nvme->queue[i]);
	}
	return rc;
}

int mrs_nvme_reset_locked(struct morsel_nvme *nvme, const char *why)
{
	int rc;

	mrs_nvme_count(&nvme->resets, 1);
	lock_queues(nvme);
	rc = turn_off(nvme);
	/* From here on it reaches nothing: it is off, gone, or no master of the bus. */
	if (rc)
		nvme->port.master(nvme->port.ctx, false);
	lose_all(nvme, rc ? -ENODEV : -ECANCELED, rc ? -ENODEV : -ETIMEDOUT);
	if (!rc)
		rc = start_again(nvme);
	if (rc) {
		nvme->port.master(nvme->port.ctx, false);
		lose_all(nvme, -ENODEV, -ENODEV);
		__atomic_store_n(&nvme->dead, -ENODEV, __ATOMIC_RELAXED);
	}
	unlock_queues(nvme);
	if (!rc)
		return 0;
	return morsel_fail(-ENODEV,
			   "the NVMe controller %s was reset (%s) and does not come back: "
			   "close it, and open it again when it is back",
			   nvme->port.name, why);
}

int morsel_nvme_reset(struct morsel_nvme *nvme)
{
	int rc;

	pthread_mutex_lock(&nvme->lock);
	rc = mrs_nvme_alive(nvme);
	if (!rc)
		rc = mrs_nvme_reset_locked(nvme, "by request");
	pthread_mutex_unlock(&nvme->lock);
	return rc;
}

/* ---- open and close ---- */

static int check_opts(struct morsel_nvme_opts *opts, const struct morsel_nvme_opts *given)
{
	memset(opts, 0, sizeof(*opts));
	if (given && given->size > sizeof(*opts))
		return morsel_fail(-E2BIG,
				   "struct morsel_nvme_opts has %zu bytes, this library knows "
				   "%zu of them",
				   given->size, sizeof(*opts));
	if (given)
		memcpy(opts, given, given->size);
	if (!opts->queues)
		opts->queues = 1;
	if (!opts->depth)
		opts->depth = 64;
	if (!opts->timeout_ms)
		opts->timeout_ms = 5000;
	if (opts->flags & ~(uint32_t)MORSEL_NVME_POLLED || opts->reserved)
		return morsel_fail(-EINVAL, "unknown flags 0x%x for an NVMe controller",
				   opts->flags);
	if (opts->queues > NVME_QUEUES_MAX || opts->depth < 2 || opts->depth > NVME_DEPTH_MAX)
		return morsel_fail(
			-EINVAL, "%u queues of %u commands: at most %u queues, of 2 to %u commands",
			opts->queues, opts->depth, NVME_QUEUES_MAX, NVME_DEPTH_MAX);
	return 0;
}

static int check_controller(struct morsel_nvme *nvme, struct morsel_nvme_opts *opts)
{
	const struct mrs_nvme_cap *cap = &nvme->cap;

	if (mrs_port_read32(&nvme->port, NVME_VS) == NVME_GONE)
		return morsel_fail(-ENODEV, "the NVMe controller %s is gone", nvme->port.name);
	if (!cap->has_nvm)
		return morsel_fail(-EOPNOTSUPP, "%s does not have the NVM command set",
				   nvme->port.name);
	if (cap->page_shift_min > 21)
		return morsel_fail(-EOPNOTSUPP, "%s wants memory pages of 2^%u bytes",
				   nvme->port.name, cap->page_shift_min);
	if (nvme->port.register_bytes < mrs_nvme_doorbell(cap, opts->queues + 2, 0))
		return morsel_fail(-EOPNOTSUPP, "%s has registers for fewer than %u queues",
				   nvme->port.name, opts->queues);
	if (opts->depth + 1 > cap->entries_max)
		opts->depth = cap->entries_max - 1;
	nvme->page_shift = cap->page_shift_min;
	nvme->page_bytes = 1ull << nvme->page_shift;
	return 0;
}

static int prepare_admin(struct morsel_nvme *nvme)
{
	uint64_t bytes = page_up(NVME_IDENTIFY_BYTES, nvme->page_bytes);
	uint32_t depth = NVME_ADMIN_DEPTH < nvme->cap.entries_max ? NVME_ADMIN_DEPTH
								  : nvme->cap.entries_max - 1;
	int rc = nvme->port.get(nvme->port.ctx, bytes, &nvme->scratch);

	return rc ? rc : queue_alloc(nvme, &nvme->admin, 0, depth, 0);
}

static int prepare_identity(struct morsel_nvme *nvme)
{
	int rc = identify(nvme, NVME_CNS_CONTROLLER, 0);

	if (!rc)
		rc = mrs_nvme_identity_parse(nvme->scratch.memory, nvme->page_shift,
					     &nvme->identity);
	if (rc)
		return rc;
	nvme->transfer_max = NVME_TRANSFER_MAX < nvme->identity.transfer_max
				     ? NVME_TRANSFER_MAX
				     : nvme->identity.transfer_max;
	return 0;
}

/* One pair more than asked for, if it has it: the simple calls' own. */
static int prepare_queues(struct morsel_nvme *nvme, const struct morsel_nvme_opts *opts)
{
	uint64_t list = mrs_nvme_prp_list_bytes(nvme->transfer_max, nvme->page_bytes);
	int given = ask_queues(nvme, opts->queues + 1), rc = 0;

	if (given < 0)
		return given;
	nvme->queues = (unsigned)given < opts->queues ? (unsigned)given : opts->queues;
	nvme->queue = calloc((unsigned)given, sizeof(*nvme->queue));
	if (!nvme->queue)
		return morsel_fail(-ENOMEM, "no memory for %d queues", given);
	for (unsigned i = 0; !rc && i < (unsigned)given; i++) {
		rc = queue_alloc(nvme, &nvme->queue[i], i + 1, opts->depth, list);
		nvme->queues_made += !rc;
		if (!rc)
			rc = queue_create(nvme, &nvme->queue[i]);
	}
	return rc;
}

static void let_go(struct morsel_nvme *nvme)
{
	for (unsigned i = 0; i < nvme->queues_made; i++)
		queue_free(nvme, &nvme->queue[i]);
	free(nvme->queue);
	if (nvme->admin.memory.memory)
		queue_free(nvme, &nvme->admin);
	if (nvme->scratch.memory)
		nvme->port.put(nvme->port.ctx, &nvme->scratch);
	nvme->port.close(nvme->port.ctx);
	pthread_mutex_destroy(&nvme->lock);
	pthread_mutex_destroy(&nvme->simple);
	free(nvme);
}

/* Off, or without the bus: its memory can be given to others. */
static void stop(struct morsel_nvme *nvme)
{
	if (turn_off(nvme))
		nvme->port.master(nvme->port.ctx, false);
}

int mrs_nvme_open_port(const struct mrs_nvme_port *port, const struct morsel_nvme_opts *given,
		       struct morsel_nvme **out)
{
	struct morsel_nvme *nvme = calloc(1, sizeof(*nvme));
	struct morsel_nvme_opts opts;
	int rc = check_opts(&opts, given);

	if (!nvme || rc) {
		port->close(port->ctx);
		free(nvme);
		return rc ? rc : morsel_fail(-ENOMEM, "no memory for an NVMe controller");
	}
	nvme->port = *port;
	nvme->timeout_ns = opts.timeout_ms * 1000000ull;
	pthread_mutex_init(&nvme->lock, NULL);
	pthread_mutex_init(&nvme->simple, NULL);
	nvme->cap = mrs_nvme_cap_parse(mrs_port_read64(port, NVME_CAP));
	rc = check_controller(nvme, &opts);
	if (rc)
		goto let_go;
	rc = turn_off(nvme);
	if (!rc)
		rc = prepare_admin(nvme);
	if (!rc)
		rc = nvme->port.master(nvme->port.ctx, true);
	if (rc)
		goto let_go;
	rc = turn_on(nvme);
	if (!rc)
		rc = prepare_identity(nvme);
	if (!rc)
		rc = prepare_queues(nvme, &opts);
	if (rc)
		goto stop;
	*out = nvme;
	return 0;
stop:
	stop(nvme);
let_go:
	let_go(nvme);
	return rc;
}

/* Lets what is in flight land, as is proper before a shutdown; what is late is reset. */
static void land(struct morsel_nvme *nvme)
{
	struct morsel_nvme_done done[16];

	for (unsigned i = 0; i < nvme->queues_made; i++)
		while (nvme->queue[i].ring.flying)
			mrs_nvme_poll(nvme, &nvme->queue[i], done, 16, nvme->timeout_ns);
}

void morsel_nvme_close(struct morsel_nvme *nvme)
{
	if (!nvme)
		return;
	land(nvme);
	pthread_mutex_lock(&nvme->lock);
	if (!nvme->dead) {
		uint32_t cc = mrs_port_read32(&nvme->port, NVME_CC);

		mrs_port_write32(&nvme->port, NVME_CC,
				 (cc & ~NVME_CC_SHN_MASK) | NVME_CC_SHN_NORMAL);
		await_status(nvme, NVME_CSTS_SHST_MASK, NVME_CSTS_SHST_DONE, "shut down");
		stop(nvme);
	}
	pthread_mutex_unlock(&nvme->lock);
	let_go(nvme);
}

int morsel_nvme_info(struct morsel_nvme *nvme, struct morsel_nvme_info *info)
{
	const struct mrs_nvme_identity *identity = &nvme->identity;
	struct morsel_nvme_info filled = {
		.size = info->size,
		.version = identity->version,
		.namespaces = identity->namespaces,
		.queues = nvme->queues,
		.depth = nvme->queue[0].ring.depth,
		.page_bytes = (uint32_t)nvme->page_bytes,
		.interrupts = nvme->port.vectors,
		.transfer_max = nvme->transfer_max,
		.sgl = identity->sgl,
		.write_zeroes = identity->write_zeroes,
		.deallocate = identity->deallocate,
		.write_cache = identity->write_cache,
		.commands = __atomic_load_n(&nvme->commands, __ATOMIC_RELAXED),
		.timeouts = __atomic_load_n(&nvme->timeouts, __ATOMIC_RELAXED),
		.aborts = __atomic_load_n(&nvme->aborts, __ATOMIC_RELAXED),
		.resets = __atomic_load_n(&nvme->resets, __ATOMIC_RELAXED),
		.bytes_read = __atomic_load_n(&nvme->bytes_read, __ATOMIC_RELAXED),
		.bytes_written = __atomic_load_n(&nvme->bytes_written, __ATOMIC_RELAXED),
	};

	memcpy(filled.serial, identity->serial, sizeof(filled.serial));
	memcpy(filled.model, identity->model, sizeof(filled.model));
	memcpy(filled.firmware, identity->firmware, sizeof(filled.firmware));
	memcpy(info, &filled, info->size < sizeof(filled) ? info->size : sizeof(filled));
	return 0;
}
