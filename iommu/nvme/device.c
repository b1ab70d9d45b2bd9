/*
 * The driver's world on a real device: BAR 0, queues in a morsel of their own, interrupts by
 * eventfd.
 *
 * The pool of the queues is anonymous and this process's alone. What the device is given of it
 * stays granted until the controller is off.
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "nvme/internal.h"

#define CLASS_NVME 0x010802u
#define POOL_BYTES ((uint64_t)4 << 30) /* of numbers: memory comes with the queues */

struct world {
	struct morsel_device *device;
	struct morsel_pool *pool;
	char bdf[MORSEL_IOMMU_BDF_BYTES];
	unsigned vectors;
	int *event;
	unsigned serial;
};

/* ---- memory ---- */

struct piece {
	struct morsel *morsel;
	struct morsel_view *cpu, *view;
	struct morsel_grant grant;
};

static void piece_free(struct piece *piece)
{
	morsel_release(&piece->grant);
	morsel_view_destroy(piece->view);
	morsel_view_destroy(piece->cpu);
	morsel_close(piece->morsel);
	free(piece);
}

static int get(void *ctx, uint64_t bytes, struct mrs_nvme_memory *memory)
{
	struct world *world = ctx;
	struct morsel_opts opts = {.size = sizeof(opts), .flags = MORSEL_CREATE, .bytes = bytes};
	struct piece *piece = calloc(1, sizeof(*piece));
	char name[32];
	int rc;

	if (!piece)
		return morsel_fail(-ENOMEM, "no memory for queues of %s", world->bdf);
	snprintf(name, sizeof(name), "queue-%u", world->serial++);
	rc = morsel_open(world->pool, name, &opts, &piece->morsel);
	if (!rc)
		rc = morsel_unlink(world->pool, name);
	if (!rc)
		rc = morsel_map(piece->morsel, NULL, &piece->cpu);
	if (!rc)
		rc = morsel_iommu_view(piece->morsel, world->device, NULL, &piece->view);
	if (!rc)
		rc = morsel_acquire(piece->view, 0, bytes, MORSEL_READ | MORSEL_WRITE,
				    &piece->grant);
	if (rc) {
		piece_free(piece);
		return rc;
	}
	*memory = (struct mrs_nvme_memory){.memory = morsel_addr(piece->cpu),
					   .iova = piece->grant.iova,
					   .bytes = bytes,
					   .owner = piece};
	memset(memory->memory, 0, bytes);
	return 0;
}

static void put(void *ctx, struct mrs_nvme_memory *memory)
{
	piece_free(memory->owner);
}

/* ---- time and interrupts ---- */

/* Deadlines are long: a tick is exact enough, and costs no look at the clock's hardware. */
static uint64_t now(void *ctx)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
	return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static void wait_for(void *ctx, unsigned vector, uint64_t ns)
{
	struct world *world = ctx;
	struct timespec time = {.tv_sec = (time_t)(ns / 1000000000),
				.tv_nsec = (long)(ns % 1000000000)};
	struct pollfd event = {.events = POLLIN};
	uint64_t count;

	if (!world->vectors) {
		sched_yield();
		return;
	}
	event.fd = world->event[vector];
	/* Another thread may have read it first; who waits asks the queue anyhow. */
	if (ppoll(&event, 1, &time, NULL) > 0 && read(event.fd, &count, sizeof(count)) < 0)
		return;
}

static int event_of(void *ctx, unsigned vector)
{
	return ((struct world *)ctx)->event[vector];
}

static int make_interrupts(struct world *world, unsigned wanted)
{
	struct morsel_iommu_device_info info = {.size = sizeof(info)};
	uint32_t kind = MORSEL_IOMMU_MSIX;
	int rc = morsel_iommu_device_info(world->device, &info);

	if (rc)
		return rc;
	if (!info.irqs[kind])
		kind = MORSEL_IOMMU_MSI;
	if (wanted > info.irqs[kind])
		wanted = info.irqs[kind];
	if (!wanted)
		return 0; /* info.interrupts says so */
	world->event = calloc(wanted, sizeof(*world->event));
	if (!world->event)
		return morsel_fail(-ENOMEM, "no memory for %u interrupts", wanted);
	for (world->vectors = 0; world->vectors < wanted; world->vectors++) {
		int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

		if (fd < 0)
			return morsel_fail(-errno, "no eventfd for an interrupt of %s: %s",
					   world->bdf, strerror(errno));
		world->event[world->vectors] = fd;
	}
	return morsel_iommu_irq_on(world->device, kind, wanted, world->event);
}

/* ---- the device ---- */

static bool is_gone(void *ctx)
{
	struct morsel_iommu_device_info info = {.size = sizeof(info)};

	return morsel_iommu_device_info(((struct world *)ctx)->device, &info) || info.gone;
}

static int master(void *ctx, bool on)
{
	return morsel_iommu_bus_master(((struct world *)ctx)->device, on);
}

static void close_world(void *ctx)
{
	struct world *world = ctx;

	if (world->vectors)
		morsel_iommu_irq_off(world->device);
	for (unsigned i = 0; i < world->vectors; i++)
		close(world->event[i]);
	free(world->event);
	morsel_pool_close(world->pool);
	free(world);
}

static int check_device(struct morsel_device *device, struct world *world)
{
	struct morsel_iommu_device_info info = {.size = sizeof(info)};
	int rc = morsel_iommu_device_info(device, &info);

	if (rc)
		return rc;
	memcpy(world->bdf, info.bdf, sizeof(world->bdf));
	if (info.class_code != CLASS_NVME)
		return morsel_fail(-ENODEV, "%s is no NVMe controller: its class is %06x, not %06x",
				   info.bdf, info.class_code, CLASS_NVME);
	return 0;
}

static int make_world(struct morsel_device *device, const struct morsel_nvme_opts *opts,
		      struct world **out)
{
	struct morsel_pool_opts pool_opts = {
		.size = sizeof(pool_opts), .flags = MORSEL_POOL_CREATE, .bytes = POOL_BYTES};
	struct world *world = calloc(1, sizeof(*world));
	unsigned queues = opts && opts->queues ? opts->queues : 1;
	int rc;

	if (!world)
		return morsel_fail(-ENOMEM, "no memory for an NVMe controller");
	world->device = device;
	rc = check_device(device, world);
	if (!rc)
		rc = morsel_pool_open(NULL, &pool_opts, &world->pool);
	/* One for administration, one for the simple calls. */
	if (!rc && !(opts && opts->flags & MORSEL_NVME_POLLED))
		rc = make_interrupts(world, queues + 2);
	if (rc)
		close_world(world);
	else
		*out = world;
	return rc;
}

int morsel_nvme_open(struct morsel_device *device, const struct morsel_nvme_opts *opts,
		     struct morsel_nvme **nvme)
{
	struct mrs_nvme_port port = {.now = now,
				     .wait = wait_for,
				     .get = get,
				     .put = put,
				     .is_gone = is_gone,
				     .fd = event_of,
				     .master = master,
				     .close = close_world};
	struct world *world = NULL;
	void *registers;
	int rc = make_world(device, opts, &world);

	if (rc)
		return rc;
	rc = morsel_iommu_bar(device, 0, &registers, &port.register_bytes);
	if (rc) {
		close_world(world);
		return rc;
	}
	port.registers = registers;
	port.ctx = world;
	port.vectors = world->vectors;
	port.name = world->bdf;
	rc = mrs_nvme_open_port(&port, opts, nvme);
	if (!rc)
		(*nvme)->device = device;
	return rc;
}
