/*
 * What the driver needs of the world: registers, memory that the device reaches, time and waiting.
 *
 * The real one stands on a struct morsel_device (device.c). Tests have one whose registers are
 * plain memory and whose clock moves only when the driver waits, so that every time-out is
 * repeatable.
 */
#ifndef MRS_NVME_PORT_H
#define MRS_NVME_PORT_H

#include <stdbool.h>
#include <stdint.h>

struct mrs_nvme_memory {
	void *memory; /* page-aligned, zero at first */
	uint64_t iova;
	uint64_t bytes;
	void *owner; /* the port's */
};

struct mrs_nvme_port {
	volatile unsigned char *registers;
	uint64_t register_bytes;
	void *ctx;
	unsigned vectors; /* interrupts that there are; 0: polled. Vector 0 is the admin queue's */
	const char *name; /* of the device, for messages */
	uint64_t (*now)(void *ctx); /* ns, monotonic */
	/* Returns at the vector's interrupt, after at most ns, or earlier. */
	void (*wait)(void *ctx, unsigned vector, uint64_t ns);
	int (*get)(void *ctx, uint64_t bytes, struct mrs_nvme_memory *memory);
	void (*put)(void *ctx, struct mrs_nvme_memory *memory);
	bool (*is_gone)(void *ctx);
	/* Of a vector; may be NULL. */
	int (*fd)(void *ctx, unsigned vector);
	/* Lets the device reach memory, or not (bus mastering). */
	int (*master)(void *ctx, bool on);
	void (*close)(void *ctx);
};

/*
 * Registers are read and written once, as wide as they are. The fence before a write pairs with the
 * device's reads: what was written to memory before (an entry of a queue) is there when the device
 * sees the doorbell. Without it the device may read the entry that was there a round ago.
 */
static inline uint32_t mrs_port_read32(const struct mrs_nvme_port *port, uint64_t at)
{
	return *(const volatile uint32_t *)(port->registers + at);
}

static inline void mrs_port_write32(const struct mrs_nvme_port *port, uint64_t at, uint32_t value)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	*(volatile uint32_t *)(port->registers + at) = value;
}

/* By halves: not every bridge passes 64 bits at once. */
static inline uint64_t mrs_port_read64(const struct mrs_nvme_port *port, uint64_t at)
{
	return mrs_port_read32(port, at) | (uint64_t)mrs_port_read32(port, at + 4) << 32;
}

static inline void mrs_port_write64(const struct mrs_nvme_port *port, uint64_t at, uint64_t value)
{
	mrs_port_write32(port, at, (uint32_t)value);
	mrs_port_write32(port, at + 4, (uint32_t)(value >> 32));
}

#endif
