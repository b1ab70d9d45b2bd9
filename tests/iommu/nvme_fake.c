/*
 * A controller that consumes commands and writes answers; see nvme_fake.h. Numbers are written out
 * as the specification has them, so that a mistake in the driver's constants does not cancel
 * itself.
 */
#include "iommu/nvme_fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/counts.h"

#define STEP_NS 1000000u

static uint32_t get32(const void *at)
{
	uint32_t value;

	memcpy(&value, at, 4);
	return value;
}

static uint64_t get64(const void *at)
{
	uint64_t value;

	memcpy(&value, at, 8);
	return value;
}

static void put16(void *at, uint16_t value)
{
	memcpy(at, &value, 2);
}

static void put32(void *at, uint32_t value)
{
	memcpy(at, &value, 4);
}

static void put64(void *at, uint64_t value)
{
	memcpy(at, &value, 8);
}

static void mistake(struct fake *fake, const char *words)
{
	fprintf(stderr, "the driver's mistake: %s\n", words);
	fake->mistakes++;
}

/* ---- memory ---- */

struct fake_region *fake_map(struct fake *fake, uint64_t bytes, bool writable)
{
	static uint64_t next = FAKE_IOVA;

	for (unsigned i = 0; i < FAKE_REGIONS; i++) {
		struct fake_region *region = &fake->region[i];

		if (region->memory)
			continue;
		bytes = (bytes + 4095) / 4096 * 4096;
		region->memory = aligned_alloc(65536, (bytes + 65535) / 65536 * 65536);
		memset(region->memory, 0, bytes);
		region->bytes = bytes;
		region->iova = next;
		region->writable = writable;
		next += (bytes + 65535) / 65536 * 65536 + 65536; /* a gap beside each */
		return region;
	}
	return NULL;
}

void fake_unmap(struct fake *fake, struct fake_region *region)
{
	free(region->memory);
	memset(region, 0, sizeof(*region));
}

static unsigned char *reach(struct fake *fake, uint64_t iova, uint64_t bytes, bool write)
{
	for (unsigned i = 0; i < FAKE_REGIONS && fake->master; i++) {
		struct fake_region *region = &fake->region[i];

		if (region->memory && iova >= region->iova && bytes <= region->bytes &&
		    iova - region->iova <= region->bytes - bytes && (!write || region->writable))
			return region->memory + (iova - region->iova);
	}
	fake->faults++;
	return NULL;
}

/* ---- data pointers ---- */

struct piece {
	uint64_t iova, bytes;
};

/* Pieces of a PRP pair; how many, or -1. */
static int walk_prp(struct fake *fake, const unsigned char *sqe, uint64_t bytes,
		    struct piece piece[], unsigned room)
{
	uint64_t page = 1ull << fake->page_shift, prp1 = get64(sqe + 24), prp2 = get64(sqe + 32);
	uint64_t first = page - prp1 % page, left, list, at;
	unsigned count = 0;

	fake->prps++;
	if (first > bytes)
		first = bytes;
	piece[count++] = (struct piece){prp1, first};
	left = bytes - first;
	if (!left)
		return 1;
	if (left <= page) {
		if (prp2 % page)
			mistake(fake, "PRP2 is not the beginning of a page");
		piece[count++] = (struct piece){prp2, left};
		return (int)count;
	}
	list = prp2;
	fake->list_pages++;
	for (at = list; left; at += 8) {
		const unsigned char *entry = reach(fake, at, 8, false);
		uint64_t value = entry ? get64(entry) : 0;

		if (!entry)
			return -1;
		if ((at + 8) % page == 0 && left > page) {
			if (value % page)
				mistake(fake, "a PRP list goes on inside of a page");
			at = value - 8;
			fake->list_pages++;
			continue;
		}
		if (value % page)
			mistake(fake, "an entry of a PRP list is not the beginning of a page");
		if (count == room)
			return -1;
		piece[count++] = (struct piece){value, left < page ? left : page};
		left -= left < page ? left : page;
	}
	return (int)count;
}

static int walk_sgl(struct fake *fake, const unsigned char *sqe, uint64_t bytes,
		    struct piece piece[], unsigned room)
{
	const unsigned char *one = sqe + 24, *list;
	uint64_t sum = 0;
	unsigned count = 0, entries;

	fake->sgls++;
	if (one[15] == 0x00) {
		piece[0] = (struct piece){get64(one), get32(one + 8)};
		return piece[0].bytes == bytes ? 1 : -1;
	}
	if (one[15] != 0x30)
		return -1;
	entries = get32(one + 8) / 16;
	list = reach(fake, get64(one), get32(one + 8), false);
	for (; list && count < entries && count < room; count++, list += 16) {
		if (list[15] != 0x00)
			return -1;
		piece[count] = (struct piece){get64(list), get32(list + 8)};
		sum += piece[count].bytes;
	}
	return sum == bytes ? (int)count : -1;
}

/* ---- answers ---- */

static void answer(struct fake *fake, unsigned q, uint16_t cid, uint32_t result, uint32_t status)
{
	struct fake_queue *sq = &fake->queue[q], *cq = &fake->queue[sq->cq_id];
	unsigned char *entry;
	uint32_t used = (cq->cq_tail + cq->cq_entries - cq->cq_head) % cq->cq_entries;

	if (used + 1 >= cq->cq_entries) {
		mistake(fake, "the completion queue is full: its head was not rung");
		return;
	}
	entry = reach(fake, cq->cq + cq->cq_tail * 16ull, 16, true);
	if (!entry)
		return;
	put32(entry, result);
	put16(entry + 8, (uint16_t)sq->head);
	put16(entry + 10, (uint16_t)q);
	put16(entry + 12, cid);
	put16(entry + 14, (uint16_t)(status << 1 | cq->phase));
	cq->cq_tail = (cq->cq_tail + 1) % cq->cq_entries;
	if (!cq->cq_tail)
		cq->phase ^= 1;
}

/* ---- administration ---- */

static uint32_t identify(struct fake *fake, const unsigned char *sqe)
{
	uint32_t ns = get32(sqe + 4), cns = get32(sqe + 40) & 0xff;
	unsigned char *to = reach(fake, get64(sqe + 24), 4096, true);

	if (!to)
		return 0x004;
	memset(to, 0, 4096);
	if (cns == 1) {
		memset(to + 4, ' ', 68);
		memcpy(to + 4, "SERIAL7", 7);
		memcpy(to + 24, "plain memory", 12);
		memcpy(to + 64, "1.0", 3);
		to[77] = (unsigned char)fake->mdts;
		put32(to + 80, 0x10400);
		to[512] = 0x66;
		to[513] = 0x44;
		put32(to + 516, FAKE_NAMESPACES + 1);
		put16(to + 520, (uint16_t)(fake->write_zeroes << 3 | fake->deallocate << 2));
		to[525] = fake->write_cache;
		put32(to + 536, fake->sgl);
		return 0;
	}
	if (cns != 0 || !ns || ns > FAKE_NAMESPACES + 1)
		return 0x00b;
	if (ns > FAKE_NAMESPACES)
		return 0; /* a number without a namespace is all zero */
	put64(to, fake->ns[ns - 1].blocks);
	put64(to + 16, 77);
	to[25] = 1;
	to[26] = 1;
	put32(to + 128 + 4, fake->ns[ns - 1].shift << 16);
	return 0;
}

static uint32_t create(struct fake *fake, const unsigned char *sqe, bool completion)
{
	uint32_t id = get32(sqe + 40) & 0xffff, entries = (get32(sqe + 40) >> 16) + 1;
	struct fake_queue *queue = &fake->queue[id];

	if (!id || id > fake->queues_max || (completion ? queue->has_cq : queue->has_sq))
		return 0x101;
	if (entries < 2 || entries > fake->entries_max)
		return 0x102;
	if (!(get32(sqe + 44) & 1) || get64(sqe + 24) % (1ull << fake->page_shift))
		return 0x002;
	if (completion) {
		queue->has_cq = true;
		queue->interrupts = get32(sqe + 44) & 2;
		queue->cq = get64(sqe + 24);
		queue->cq_entries = entries;
		queue->cq_tail = queue->cq_head = 0;
		queue->phase = 1;
		return 0;
	}
	queue->cq_id = get32(sqe + 44) >> 16;
	if (queue->cq_id >= FAKE_QUEUES || !fake->queue[queue->cq_id].has_cq)
		return 0x100;
	queue->has_sq = true;
	queue->sq = get64(sqe + 24);
	queue->sq_entries = entries;
	queue->head = queue->tail = 0;
	return 0;
}

static void drop_held(struct fake *fake, unsigned i)
{
	fake->held[i] = fake->held[--fake->held_count];
}

static uint32_t do_abort(struct fake *fake, const unsigned char *sqe, uint32_t *result)
{
	uint32_t q = get32(sqe + 40) & 0xffff, cid = get32(sqe + 40) >> 16;

	*result = 1;
	for (unsigned i = 0; i < fake->held_count && fake->aborts; i++)
		if (fake->held[i].queue == q && (get32(fake->held[i].sqe) >> 16) == cid) {
			drop_held(fake, i);
			answer(fake, q, (uint16_t)cid, 0, 0x007);
			fake->aborted++;
			*result = 0;
			break;
		}
	return 0;
}

static uint32_t do_admin(struct fake *fake, const unsigned char *sqe, uint32_t *result)
{
	uint32_t queues = fake->queues_max - 1, wanted;

	switch (sqe[0]) {
	case 0x01:
		return create(fake, sqe, false);
	case 0x05:
		return create(fake, sqe, true);
	case 0x06:
		return identify(fake, sqe);
	case 0x08:
		return do_abort(fake, sqe, result);
	case 0x09:
		if ((get32(sqe + 40) & 0xff) != 7)
			return 0x002;
		wanted = get32(sqe + 44) & 0xffff;
		*result = wanted < queues ? wanted | wanted << 16 : queues | queues << 16;
		return 0;
	default:
		return 0x001;
	}
}

/* ---- reading and writing ---- */

static uint32_t move_data(struct fake *fake, const unsigned char *sqe, unsigned char *media,
			  uint64_t bytes, bool to_memory)
{
	static struct piece piece[4096];
	int count = sqe[1] & 0xc0 ? walk_sgl(fake, sqe, bytes, piece, 4096)
				  : walk_prp(fake, sqe, bytes, piece, 4096);

	if (sqe[1] & 0xc0 && !fake->sgl)
		return 0x002;
	if (count < 0)
		return sqe[1] & 0xc0 ? 0x00f : 0x004;
	for (int i = 0; i < count; i++) {
		unsigned char *memory = reach(fake, piece[i].iova, piece[i].bytes, to_memory);

		if (!memory)
			return 0x004;
		if (to_memory)
			memcpy(memory, media, piece[i].bytes);
		else
			memcpy(media, memory, piece[i].bytes);
		media += piece[i].bytes;
	}
	return 0;
}

static uint32_t deallocate(struct fake *fake, const unsigned char *sqe, uint32_t ns)
{
	uint32_t ranges = (get32(sqe + 40) & 0xff) + 1, shift = fake->ns[ns].shift;
	const unsigned char *range = reach(fake, get64(sqe + 24), ranges * 16ull, false);

	if (!range || !(get32(sqe + 44) & 4))
		return 0x002;
	for (; ranges; ranges--, range += 16) {
		uint64_t block = get64(range + 8), blocks = get32(range + 4);

		if (block > fake->ns[ns].blocks || blocks > fake->ns[ns].blocks - block)
			return 0x080;
		memset(fake->ns[ns].bytes + (block << shift), 0, blocks << shift);
		fake->deallocated += blocks;
	}
	return 0;
}

static uint32_t do_io(struct fake *fake, const unsigned char *sqe)
{
	uint32_t ns = get32(sqe + 4), blocks = (get32(sqe + 48) & 0xffff) + 1, status;
	uint64_t block = get64(sqe + 40), bytes, at;

	if (fake->fail_next) {
		status = fake->fail_next;
		fake->fail_next = 0;
		return status;
	}
	if (!ns-- || ns >= FAKE_NAMESPACES)
		return 0x00b;
	if (sqe[0] == 0x00) {
		fake->flushes++;
		return 0;
	}
	if (sqe[0] == 0x09)
		return fake->deallocate ? deallocate(fake, sqe, ns) : 0x001;
	if (block > fake->ns[ns].blocks || blocks > fake->ns[ns].blocks - block)
		return 0x080;
	bytes = (uint64_t)blocks << fake->ns[ns].shift;
	at = block << fake->ns[ns].shift;
	fake->fua += get32(sqe + 48) >> 30 & 1;
	switch (sqe[0]) {
	case 0x01:
	case 0x02:
		if (fake->mdts && bytes > 1ull << (fake->mdts + fake->page_shift))
			return 0x002;
		return move_data(fake, sqe, fake->ns[ns].bytes + at, bytes, sqe[0] == 0x02);
	case 0x08:
		memset(fake->ns[ns].bytes + at, 0, bytes);
		return fake->write_zeroes ? 0 : 0x001;
	default:
		return 0x001;
	}
}

/* ---- stepping ---- */

static uint32_t doorbell(struct fake *fake, unsigned q, bool completion)
{
	return get32(fake->registers + 0x1000 +
		     ((2 * q + completion) << (2 + fake->doorbell_shift)));
}

static void fetch(struct fake *fake, unsigned q)
{
	struct fake_queue *queue = &fake->queue[q];

	queue->tail = doorbell(fake, q, false);
	if (queue->tail >= queue->sq_entries) {
		mistake(fake, "a tail beyond its queue");
		queue->tail = queue->head;
	}
	while (queue->head != queue->tail && fake->held_count < FAKE_HELD) {
		const unsigned char *sqe = reach(fake, queue->sq + queue->head * 64ull, 64, false);
		struct fake_held *held = &fake->held[fake->held_count];

		if (!sqe)
			return;
		memcpy(held->sqe, sqe, 64);
		held->queue = q;
		held->deaf = q ? fake->deaf > 0 : fake->deaf_admin;
		if (q && fake->deaf)
			fake->deaf--;
		fake->held_count++;
		queue->head = (queue->head + 1) % queue->sq_entries;
	}
}

static void perform(struct fake *fake, unsigned i)
{
	struct fake_held held = fake->held[i];
	uint32_t result = 0, status;

	memmove(&fake->held[i], &fake->held[i + 1],
		(--fake->held_count - i) * sizeof(fake->held[0]));
	status = held.queue ? do_io(fake, held.sqe) : do_admin(fake, held.sqe, &result);
	fake->commands++;
	answer(fake, held.queue, (uint16_t)(get32(held.sqe) >> 16), result, status);
	if (fake->stale && held.queue) {
		fake->stale--;
		answer(fake, held.queue, 0xfff0, 0, 0);
	}
}

static bool perform_one(struct fake *fake)
{
	unsigned able[FAKE_HELD], count = 0;

	for (unsigned i = 0; i < fake->held_count; i++)
		if (!fake->held[i].deaf)
			able[count++] = i;
	if (!count)
		return false;
	perform(fake, able[fake->reorder ? test_random(&fake->random) % count : 0]);
	return true;
}

static void start(struct fake *fake)
{
	uint32_t aqa = get32(fake->registers + 0x24);

	memset(fake->queue, 0, sizeof(fake->queue));
	memset(fake->registers + 0x1000, 0, FAKE_REGISTERS - 0x1000);
	fake->held_count = 0;
	fake->queue[0] = (struct fake_queue){.has_sq = true,
					     .has_cq = true,
					     .sq = get64(fake->registers + 0x28),
					     .cq = get64(fake->registers + 0x30),
					     .sq_entries = (aqa & 0xfff) + 1,
					     .cq_entries = (aqa >> 16 & 0xfff) + 1,
					     .phase = 1};
	fake->enables++;
	if ((fake->cc >> 16 & 15) != 6 || (fake->cc >> 20 & 15) != 4 ||
	    (fake->cc >> 7 & 15) + 12 != fake->page_shift)
		mistake(fake, "CC names other sizes of entries or pages");
}

static void look_at_cc(struct fake *fake)
{
	uint32_t cc = get32(fake->registers + 0x14), status = get32(fake->registers + 0x1c);

	if ((cc & 1) && !(fake->cc & 1)) {
		fake->cc = cc;
		start(fake);
		fake->ready = true;
	} else if (!(cc & 1) && (fake->cc & 1)) {
		fake->ready = false;
		fake->held_count = 0;
		memset(fake->queue, 0, sizeof(fake->queue));
	}
	fake->cc = cc;
	status &= ~(1u | 3u << 2);
	if (fake->stuck_off ? fake->ready || (get32(fake->registers + 0x1c) & 1)
			    : fake->ready && !fake->stuck_on)
		status |= 1;
	if (cc >> 14 & 3)
		status |= 2u << 2;
	put32(fake->registers + 0x1c, status);
}

void fake_step(struct fake *fake)
{
	fake->now += STEP_NS;
	if (fake->gone)
		return;
	look_at_cc(fake);
	if (!fake->ready)
		return;
	for (unsigned q = 0; q < FAKE_QUEUES; q++) {
		if (fake->queue[q].has_cq)
			fake->queue[q].cq_head = doorbell(fake, q, true);
		if (fake->queue[q].has_sq)
			fetch(fake, q);
	}
	for (uint32_t i = 0; (!fake->batch || i < fake->batch) && perform_one(fake); i++)
		;
}

/* ---- the port ---- */

static uint64_t port_now(void *ctx)
{
	return ((struct fake *)ctx)->now;
}

static void port_wait(void *ctx, unsigned vector, uint64_t ns)
{
	fake_step(ctx);
}

static int port_get(void *ctx, uint64_t bytes, struct mrs_nvme_memory *memory)
{
	struct fake_region *region = fake_map(ctx, bytes, true);

	if (!region)
		return -12;
	*memory = (struct mrs_nvme_memory){region->memory, region->iova, bytes, region};
	return 0;
}

static void port_put(void *ctx, struct mrs_nvme_memory *memory)
{
	fake_unmap(ctx, memory->owner);
}

static bool port_is_gone(void *ctx)
{
	return ((struct fake *)ctx)->gone;
}

static int port_master(void *ctx, bool on)
{
	((struct fake *)ctx)->master = on;
	return 0;
}

static void port_close(void *ctx)
{
	((struct fake *)ctx)->closed = true;
}

struct mrs_nvme_port fake_port(struct fake *fake, unsigned vectors)
{
	uint64_t cap = (fake->entries_max - 1) | 1ull << 16 | 2ull << 24 |
		       (uint64_t)fake->doorbell_shift << 32 | 1ull << 37 |
		       (uint64_t)(fake->page_shift - 12) << 48 |
		       (uint64_t)(fake->page_shift - 12) << 52;

	put64(fake->registers, cap);
	put32(fake->registers + 0x08, 0x10400);
	fake->closed = false;
	return (struct mrs_nvme_port){.registers = fake->registers,
				      .register_bytes = FAKE_REGISTERS,
				      .ctx = fake,
				      .vectors = vectors,
				      .name = "fake",
				      .now = port_now,
				      .wait = port_wait,
				      .get = port_get,
				      .put = port_put,
				      .is_gone = port_is_gone,
				      .master = port_master,
				      .close = port_close};
}

void fake_pull(struct fake *fake)
{
	fake->gone = true;
	memset(fake->registers, 0xff, FAKE_REGISTERS);
}

struct fake *fake_make(uint64_t seed)
{
	struct fake *fake = aligned_alloc(4096, (sizeof(*fake) + 4095) / 4096 * 4096);

	memset(fake, 0, sizeof(*fake));
	fake->page_shift = 12;
	fake->entries_max = 2048;
	fake->mdts = 5;
	fake->queues_max = 8;
	fake->sgl = fake->write_zeroes = fake->deallocate = fake->write_cache = fake->aborts = true;
	fake->random = seed;
	fake->now = 1000;
	for (unsigned i = 0; i < FAKE_NAMESPACES; i++) {
		fake->ns[i].shift = i ? 12 : 9;
		fake->ns[i].blocks = (4u << 20) >> fake->ns[i].shift;
		fake->ns[i].bytes = calloc(1, 4 << 20);
	}
	return fake;
}

void fake_free(struct fake *fake)
{
	for (unsigned i = 0; i < FAKE_REGIONS; i++)
		free(fake->region[i].memory);
	for (unsigned i = 0; i < FAKE_NAMESPACES; i++)
		free(fake->ns[i].bytes);
	free(fake);
}
