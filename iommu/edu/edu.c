/*
 * A driver for QEMU's edu device, to read: registers in BAR 0, one interrupt, one DMA engine.
 *
 *	0x00 identification  0x04 inverts what is written   0x08 factorial, 0x20 its status
 *	0x24 interrupt status  0x60 raise  0x64 acknowledge
 *	0x80 DMA source  0x88 destination  0x90 bytes  0x98 command: 1 go, 2 to memory, 4 interrupt
 *
 * Below 0x80 accesses are of 4 bytes. The device sees its own buffer at 0x40000. Interrupts are
 * level-like: the status must be acknowledged, or the next one does not come.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <morsel/edu.h>
#include <morsel/view.h>

#define VENDOR 0x1234
#define DEVICE 0x11e8
#define BUFFER 0x40000u

enum registers {
	EDU_ID = 0x00,
	EDU_INVERT = 0x04,
	EDU_FACTORIAL = 0x08,
	EDU_STATUS = 0x20,
	EDU_IRQ_STATUS = 0x24,
	EDU_IRQ_ACK = 0x64,
	EDU_DMA_SOURCE = 0x80,
	EDU_DMA_DESTINATION = 0x88,
	EDU_DMA_BYTES = 0x90,
	EDU_DMA_COMMAND = 0x98,
};
#define STATUS_COMPUTING 0x01u
#define STATUS_INTERRUPT 0x80u
#define DMA_GO		 1u
#define DMA_TO_MEMORY	 2u
#define DMA_INTERRUPT	 4u

struct morsel_edu {
	struct morsel_device *device;
	struct morsel_edu_opts opts;
	volatile unsigned char *registers;
	int event;	      /* of the interrupt; -1: polled */
	pthread_mutex_t lock; /* one transfer or computation at a time */
};

static uint32_t read32(struct morsel_edu *edu, unsigned at)
{
	return *(volatile uint32_t *)(edu->registers + at);
}

static void write32(struct morsel_edu *edu, unsigned at, uint32_t value)
{
	*(volatile uint32_t *)(edu->registers + at) = value;
}

static uint64_t read64(struct morsel_edu *edu, unsigned at)
{
	return *(volatile uint64_t *)(edu->registers + at);
}

/* The fence pairs with the device's reads of memory, which the last of these starts. */
static void write64(struct morsel_edu *edu, unsigned at, uint64_t value)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	*(volatile uint64_t *)(edu->registers + at) = value;
}

static uint64_t now_ms(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
}

/* ---- waiting ---- */

static bool is_gone(struct morsel_edu *edu)
{
	struct morsel_iommu_device_info info = {.size = sizeof(info)};

	return read32(edu, EDU_ID) == UINT32_MAX || morsel_iommu_device_info(edu->device, &info) ||
	       info.gone;
}

/* A while, or until the interrupt, which is acknowledged. */
static void wait_once(struct morsel_edu *edu)
{
	struct pollfd event = {.fd = edu->event, .events = POLLIN};
	uint64_t count;
	uint32_t status;

	poll(&event, edu->event >= 0, edu->event >= 0 ? 20 : 1);
	if (edu->event >= 0 && read(edu->event, &count, sizeof(count)) < 0)
		return; /* nothing came yet */
	status = read32(edu, EDU_IRQ_STATUS);
	if (status && status != UINT32_MAX)
		write32(edu, EDU_IRQ_ACK, status);
}

/* Until the register's bit is clear. */
static int wait_for(struct morsel_edu *edu, unsigned at, uint32_t bit, const char *what)
{
	uint64_t end = now_ms() + edu->opts.timeout_ms;

	for (;;) {
		uint32_t value = at >= EDU_DMA_SOURCE ? (uint32_t)read64(edu, at) : read32(edu, at);

		if (is_gone(edu))
			return morsel_fail(-ENODEV, "the edu device is gone");
		if (!(value & bit))
			return 0;
		if (now_ms() >= end)
			return morsel_fail(-ETIMEDOUT, "the edu device has not ended %s in %u ms",
					   what, edu->opts.timeout_ms);
		wait_once(edu);
	}
}

/* ---- what it does ---- */

uint32_t morsel_edu_identify(struct morsel_edu *edu)
{
	return read32(edu, EDU_ID);
}

int morsel_edu_factorial(struct morsel_edu *edu, uint32_t n, uint32_t *result)
{
	int rc;

	pthread_mutex_lock(&edu->lock);
	rc = wait_for(edu, EDU_STATUS, STATUS_COMPUTING, "a computation");
	if (!rc) {
		write32(edu, EDU_STATUS, edu->event >= 0 ? STATUS_INTERRUPT : 0);
		write32(edu, EDU_FACTORIAL, n);
		rc = wait_for(edu, EDU_STATUS, STATUS_COMPUTING, "a computation");
	}
	if (!rc)
		*result = read32(edu, EDU_FACTORIAL);
	pthread_mutex_unlock(&edu->lock);
	return rc;
}

static int transfer_piece(struct morsel_edu *edu, bool to_device, uint64_t iova, uint32_t at,
			  uint32_t bytes)
{
	uint64_t command =
		DMA_GO | (to_device ? 0 : DMA_TO_MEMORY) | (edu->event >= 0 ? DMA_INTERRUPT : 0);

	write64(edu, EDU_DMA_SOURCE, to_device ? iova : BUFFER + at);
	write64(edu, EDU_DMA_DESTINATION, to_device ? BUFFER + at : iova);
	write64(edu, EDU_DMA_BYTES, bytes);
	write64(edu, EDU_DMA_COMMAND, command);
	return wait_for(edu, EDU_DMA_COMMAND, DMA_GO, "a transfer");
}

static int check_reach(struct morsel_edu *edu, uint64_t iova, uint32_t at, uint32_t bytes)
{
	if (at > MORSEL_EDU_BUFFER_BYTES || bytes > MORSEL_EDU_BUFFER_BYTES - at)
		return morsel_fail(-ERANGE, "%u bytes at byte %u: the edu device has %u", bytes, at,
				   MORSEL_EDU_BUFFER_BYTES);
	if (bytes && (iova + bytes - 1 < iova || iova + bytes - 1 > edu->opts.dma_mask))
		return morsel_fail(
			-ERANGE,
			"IOVA 0x%llx is beyond 0x%llx, what the edu device reaches: make "
			"the view below (iova_last), or give QEMU a larger dma_mask",
			(unsigned long long)(iova + bytes - 1),
			(unsigned long long)edu->opts.dma_mask);
	return 0;
}

int morsel_edu_transfer(struct morsel_edu *edu, int to_device, uint64_t iova, uint32_t at,
			uint32_t bytes)
{
	int rc = check_reach(edu, iova, at, bytes);

	pthread_mutex_lock(&edu->lock);
	if (!rc)
		rc = wait_for(edu, EDU_DMA_COMMAND, DMA_GO, "a transfer");
	for (uint32_t done = 0; !rc && done < bytes;) {
		uint32_t part =
			bytes - done < edu->opts.piece_bytes ? bytes - done : edu->opts.piece_bytes;

		rc = transfer_piece(edu, to_device, iova + done, at + done, part);
		done += part;
	}
	pthread_mutex_unlock(&edu->lock);
	return rc;
}

static int transfer_view(struct morsel_edu *edu, bool to_device, struct morsel_view *view,
			 uint64_t offset, uint32_t at, uint32_t bytes)
{
	struct morsel_grant grant;
	int rc =
		morsel_acquire(view, offset, bytes, to_device ? MORSEL_READ : MORSEL_WRITE, &grant);

	if (rc)
		return rc;
	rc = morsel_edu_transfer(edu, to_device, grant.iova, at, bytes);
	morsel_release(&grant);
	return rc;
}

int morsel_edu_to_device(struct morsel_edu *edu, struct morsel_view *view, uint64_t offset,
			 uint32_t at, uint32_t bytes)
{
	return transfer_view(edu, true, view, offset, at, bytes);
}

int morsel_edu_from_device(struct morsel_edu *edu, struct morsel_view *view, uint64_t offset,
			   uint32_t at, uint32_t bytes)
{
	return transfer_view(edu, false, view, offset, at, bytes);
}

/* ---- open and close ---- */

static int read_opts(struct morsel_edu_opts *opts, const struct morsel_edu_opts *given)
{
	memset(opts, 0, sizeof(*opts));
	if (given && given->size > sizeof(*opts))
		return morsel_fail(-E2BIG, "struct morsel_edu_opts is of a later version");
	if (given)
		memcpy(opts, given, given->size);
	if (opts->flags & ~(uint32_t)MORSEL_EDU_POLLED || opts->reserved ||
	    opts->piece_bytes > MORSEL_EDU_BUFFER_BYTES)
		return morsel_fail(-EINVAL, "unknown flags 0x%x, or pieces of %u bytes",
				   opts->flags, opts->piece_bytes);
	if (!opts->piece_bytes)
		opts->piece_bytes = 2048;
	if (!opts->dma_mask)
		opts->dma_mask = 0xfffffff;
	if (!opts->timeout_ms)
		opts->timeout_ms = 5000;
	return 0;
}

static int check_device(struct morsel_device *device)
{
	struct morsel_iommu_device_info info = {.size = sizeof(info)};
	int rc = morsel_iommu_device_info(device, &info);

	if (rc)
		return rc;
	if (info.vendor != VENDOR || info.device != DEVICE)
		return morsel_fail(-ENODEV, "%s is %04x:%04x, not an edu device (%04x:%04x)",
				   info.bdf, info.vendor, info.device, VENDOR, DEVICE);
	return 0;
}

static int check_alive(struct morsel_edu *edu)
{
	write32(edu, EDU_INVERT, 0x12345678);
	if ((morsel_edu_identify(edu) & 0xffff) != 0x00ed ||
	    read32(edu, EDU_INVERT) != ~0x12345678u)
		return morsel_fail(-ENODEV, "the device does not answer as an edu device does");
	return 0;
}

static int make_interrupt(struct morsel_edu *edu)
{
	int rc;

	if (edu->opts.flags & MORSEL_EDU_POLLED)
		return 0;
	edu->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (edu->event < 0)
		return morsel_fail(-errno, "no eventfd for the interrupt: %s", strerror(errno));
	rc = morsel_iommu_irq_on(edu->device, MORSEL_IOMMU_MSI, 1, &edu->event);
	if (!rc)
		return 0;
	close(edu->event);
	edu->event = -1;
	return rc;
}

int morsel_edu_open(struct morsel_device *device, const struct morsel_edu_opts *given,
		    struct morsel_edu **out)
{
	struct morsel_edu *edu = calloc(1, sizeof(*edu));
	void *registers;
	uint64_t bytes;
	int rc;

	if (!edu)
		return morsel_fail(-ENOMEM, "no memory for an edu device");
	edu->device = device;
	edu->event = -1;
	rc = read_opts(&edu->opts, given);
	if (!rc)
		rc = check_device(device);
	if (!rc)
		rc = morsel_iommu_bar(device, 0, &registers, &bytes);
	if (rc)
		goto free_edu;
	edu->registers = registers;
	rc = check_alive(edu);
	if (!rc)
		rc = morsel_iommu_bus_master(device, 1);
	if (!rc)
		rc = make_interrupt(edu);
	if (rc)
		goto free_edu;
	pthread_mutex_init(&edu->lock, NULL);
	*out = edu;
	return 0;
free_edu:
	free(edu);
	return rc;
}

void morsel_edu_close(struct morsel_edu *edu)
{
	if (!edu)
		return;
	/* Its grants are over: but what was begun by address may still be under way. */
	pthread_mutex_lock(&edu->lock);
	if (!is_gone(edu))
		wait_for(edu, EDU_DMA_COMMAND, DMA_GO, "a transfer");
	pthread_mutex_unlock(&edu->lock);
	if (edu->event >= 0) {
		morsel_iommu_irq_off(edu->device);
		close(edu->event);
	}
	pthread_mutex_destroy(&edu->lock);
	free(edu);
}
