/*
 * NVMe places as swap targets of the core: a driver of <morsel/swap.h>.
 *
 * Pages are copied into, or out of, a buffer that the device reaches, and neighbours become one
 * command; as many commands are in flight as the buffer and the queue hold. The place's lock is a
 * spinning one: who takes it in a handler of SIGBUS was not in here before, for what is touched in
 * here is never evicted.
 */
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <morsel/swap.h>

#include "nvme/internal.h"

#define PAGE	    4096u
#define BUFFER	    ((uint64_t)2 << 20)
#define COMMAND_MAX ((uint64_t)64 << 10)

struct place {
	struct morsel_nvme *nvme;
	struct morsel_device *device; /* NULL: the controller is the caller's */
	struct mrs_nvme_memory buffer;
	uint32_t ns, block;
	uint64_t position, bytes;
	uint32_t locked; /* atomic: protects the buffer */
};

static void lock(struct place *place)
{
	/* Pairs with the release in unlock(): the buffer is as the one before has left it. */
	while (__atomic_exchange_n(&place->locked, 1, __ATOMIC_ACQUIRE))
		sched_yield();
}

static void unlock(struct place *place)
{
	__atomic_store_n(&place->locked, 0, __ATOMIC_RELEASE);
}

/* ---- running ---- */

/* A command: pieces [first, end) that are neighbours on the device, at `at` in the buffer. */
struct group {
	struct morsel_swap_io *io;
	unsigned count;
	uint64_t at, bytes;
	int rc;
	uint32_t *flying; /* under the queue's lock */
};

static void ended(void *user, int rc, uint32_t status)
{
	struct group *group = user;

	group->rc = rc;
	--*group->flying;
}

static struct mrs_nvme_queue *queue_of(const struct place *place)
{
	return &place->nvme->queue[place->nvme->queues_made - 1];
}

static void poll_queue(struct place *place)
{
	mrs_nvme_poll(place->nvme, queue_of(place), NULL, 0, UINT64_MAX);
}

static void start(struct place *place, struct group *group, bool write)
{
	struct morsel_nvme_piece piece = {place->buffer.iova + group->at, group->bytes};
	struct morsel_nvme_io io = {.op = write ? MORSEL_NVME_WRITE : MORSEL_NVME_READ,
				    .ns = place->ns,
				    .block = (place->position + group->io->position) / place->block,
				    .blocks = (uint32_t)(group->bytes / place->block),
				    .pieces = &piece,
				    .count = 1,
				    .user = group};
	struct mrs_nvme_queue *queue = queue_of(place);
	int rc;

	do {
		pthread_mutex_lock(&queue->lock);
		++*group->flying;
		pthread_mutex_unlock(&queue->lock);
		rc = mrs_nvme_submit(place->nvme, queue, &io, ended);
		if (!rc)
			return;
		pthread_mutex_lock(&queue->lock);
		--*group->flying;
		pthread_mutex_unlock(&queue->lock);
		if (rc == -EAGAIN)
			poll_queue(place);
	} while (rc == -EAGAIN);
	group->rc = rc;
}

static void await(struct place *place, const uint32_t *flying)
{
	struct mrs_nvme_queue *queue = queue_of(place);
	uint32_t now;

	for (;;) {
		pthread_mutex_lock(&queue->lock);
		now = *flying;
		pthread_mutex_unlock(&queue->lock);
		if (!now)
			return;
		poll_queue(place);
	}
}

/* Neighbours from io on, at most a command's. */
static unsigned group_length(const struct morsel_swap_io *io, unsigned count, uint64_t most)
{
	uint64_t bytes = io->bytes;
	unsigned n = 1;

	while (n < count && io[n].position == io[n - 1].position + io[n - 1].bytes &&
	       bytes + io[n].bytes <= most)
		bytes += io[n++].bytes;
	return n;
}

static void copy(struct place *place, const struct group *group, bool to_buffer)
{
	unsigned char *at = (unsigned char *)place->buffer.memory + group->at;

	for (unsigned i = 0; i < group->count; i++) {
		if (to_buffer)
			memcpy(at, group->io[i].memory, group->io[i].bytes);
		else if (!group->rc)
			memcpy(group->io[i].memory, at, group->io[i].bytes);
		at += group->io[i].bytes;
	}
}

#define GROUPS (BUFFER / PAGE)

static bool fits(const struct place *place, const struct morsel_swap_io *io)
{
	return io->bytes && io->bytes <= COMMAND_MAX && io->bytes % PAGE == 0 &&
	       io->position % PAGE == 0 && io->position <= place->bytes &&
	       io->bytes <= place->bytes - io->position;
}

/* One buffer full; returns how many pieces of io it was. */
static unsigned run_some(struct place *place, bool write, struct morsel_swap_io *io, unsigned count)
{
	struct group group[GROUPS];
	uint64_t most =
		place->nvme->transfer_max < COMMAND_MAX ? place->nvme->transfer_max : COMMAND_MAX;
	unsigned groups = 0, done = 0;
	uint32_t flying = 0;
	uint64_t at = 0;

	while (done < count && groups < GROUPS) {
		struct group *one = &group[groups];

		*one = (struct group){.io = io + done, .at = at, .rc = -EIO, .flying = &flying};
		one->count = group_length(io + done, count - done, most);
		for (unsigned i = 0; i < one->count; i++)
			one->bytes += one->io[i].bytes;
		if (at + one->bytes > BUFFER)
			break;
		if (write)
			copy(place, one, true);
		start(place, one, write);
		at += one->bytes;
		done += one->count;
		groups++;
	}
	await(place, &flying);
	for (unsigned i = 0; i < groups; i++) {
		if (!write)
			copy(place, &group[i], false);
		for (unsigned k = 0; k < group[i].count; k++)
			group[i].io[k].rc = group[i].rc;
	}
	return done;
}

/* What a reset has ended is run once more. */
static void run(void *handle, int write, struct morsel_swap_io *io, unsigned count)
{
	struct place *place = handle;
	unsigned done = 0;

	for (unsigned i = 0; i < count; i++)
		if (!fits(place, &io[i])) {
			for (unsigned k = 0; k < count; k++)
				io[k].rc = -EINVAL;
			return;
		}
	lock(place);
	while (done < count)
		done += run_some(place, write, io + done, count - done);
	for (unsigned i = 0; i < count; i++)
		if (io[i].rc == -ECANCELED)
			run_some(place, write, &io[i], 1);
	unlock(place);
}

/* ---- places ---- */

static bool read_number(const char **text, char mark, uint64_t *number)
{
	char *end;

	if (**text != mark)
		return true;
	if ((*text)[1] < '0' || (*text)[1] > '9')
		return false;
	errno = 0;
	*number = strtoull(*text + 1, &end, 10);
	*text = end;
	return !errno;
}

/* ADDRESS[/NAMESPACE][@POSITION][+BYTES] */
static int parse(const char *text, char address[MORSEL_IOMMU_BDF_BYTES], struct place *place)
{
	size_t length = strcspn(text, "/@+");
	const char *rest = text + length;
	uint64_t ns = 1;

	if (length && length < MORSEL_IOMMU_BDF_BYTES) {
		memcpy(address, text, length);
		address[length] = 0;
		if (read_number(&rest, '/', &ns) && read_number(&rest, '@', &place->position) &&
		    read_number(&rest, '+', &place->bytes) && !*rest && ns && ns < UINT32_MAX) {
			place->ns = (uint32_t)ns;
			return 0;
		}
	}
	return morsel_fail(-EINVAL,
			   "'nvme:%s' is no place: nvme:ADDRESS[/NAMESPACE][@POSITION][+BYTES]",
			   text);
}

static int check_place(struct place *place)
{
	struct mrs_nvme_geometry geometry;
	uint64_t all;
	int rc = mrs_nvme_geometry(place->nvme, place->ns, &geometry);

	if (rc)
		return rc;
	all = geometry.blocks * geometry.block_bytes;
	place->block = geometry.block_bytes;
	if (geometry.block_bytes > PAGE)
		return morsel_fail(-EOPNOTSUPP,
				   "namespace %u has blocks of %u bytes: pages have 4096",
				   place->ns, geometry.block_bytes);
	if (place->position % PAGE || place->position > all || place->bytes > all - place->position)
		return morsel_fail(-EINVAL,
				   "%" PRIu64 " bytes from byte %" PRIu64
				   " on: namespace %u has %" PRIu64
				   ", and a place begins at a multiple of 4096",
				   place->bytes, place->position, place->ns, all);
	if (!place->bytes)
		place->bytes = all - place->position;
	return 0;
}

static void close_handle(void *handle)
{
	struct place *place = handle;

	if (place->buffer.memory)
		place->nvme->port.put(place->nvme->port.ctx, &place->buffer);
	if (place->device) {
		morsel_nvme_close(place->nvme);
		morsel_iommu_close(place->device);
	}
	free(place);
}

static int open_controller(struct place *place, struct morsel_nvme *given, const char *address)
{
	int rc;

	if (given) {
		place->nvme = given;
		if (!strcmp(address, given->port.name))
			return 0;
		return morsel_fail(-ENODEV, "the swap driver has controller %s open, not %s",
				   given->port.name, address);
	}
	rc = morsel_iommu_open(address, NULL, &place->device);
	return rc ? rc : morsel_nvme_open(place->device, NULL, &place->nvme);
}

static int open_handle(void *ctx, const char *text, void **handle, uint64_t *bytes)
{
	char address[MORSEL_IOMMU_BDF_BYTES];
	struct place *place = calloc(1, sizeof(*place));
	int rc;

	if (!place)
		return morsel_fail(-ENOMEM, "no memory for a place of an NVMe controller");
	rc = parse(text, address, place);
	if (!rc)
		rc = open_controller(place, ctx, address);
	if (!rc)
		rc = check_place(place);
	if (!rc)
		rc = place->nvme->port.get(place->nvme->port.ctx, BUFFER, &place->buffer);
	if (rc) {
		close_handle(place);
		return rc;
	}
	*handle = place;
	*bytes = place->bytes;
	return 0;
}

int morsel_nvme_swap_driver(struct morsel_nvme *nvme, struct morsel_swap_driver **driver)
{
	static const struct morsel_swap_driver_ops ops = {.size = sizeof(ops),
							  .version = MORSEL_SWAP_DRIVER_VERSION,
							  .scheme = "nvme",
							  .open = open_handle,
							  .close = close_handle,
							  .run = run};

	return morsel_swap_driver_register(&ops, nvme, driver);
}
