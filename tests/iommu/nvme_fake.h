/*
 * An NVMe controller of plain memory, written from the specification and apart from the driver.
 *
 * It runs only while the driver waits: wait() steps it and moves the clock, so that everything,
 * time- outs included, happens the same at every run of a seed. It reaches memory only by its own
 * map of IOVAs; what it may not reach is counted, never touched. Knobs make it late, deaf,
 * reordering or gone.
 */
#ifndef TESTS_IOMMU_NVME_FAKE_H
#define TESTS_IOMMU_NVME_FAKE_H

#include <stdbool.h>
#include <stdint.h>

#include "nvme/port.h"

#define FAKE_REGISTERS	0x4000u
#define FAKE_QUEUES	18
#define FAKE_REGIONS	256
#define FAKE_HELD	4200
#define FAKE_NAMESPACES 2
#define FAKE_IOVA	0x7000000000ull /* so that an address is not taken for an IOVA */

struct fake_region {
	unsigned char *memory;
	uint64_t iova, bytes;
	bool writable;
};

struct fake_queue {
	bool has_sq, has_cq, interrupts;
	uint64_t sq, cq;
	uint32_t sq_entries, cq_entries;
	uint32_t head, tail; /* of sq */
	uint32_t cq_tail, cq_head;
	uint32_t phase, cq_id;
};

/* A command that was fetched and is not answered yet. */
struct fake_held {
	unsigned char sqe[64];
	uint32_t queue;
	bool deaf; /* never answered, unless aborted */
};

struct fake {
	/* Knobs. */
	uint32_t doorbell_shift; /* DSTRD */
	uint32_t page_shift;	 /* MPSMIN */
	uint32_t entries_max;
	uint32_t mdts;
	uint32_t queues_max; /* of I/O */
	bool sgl, write_zeroes, deallocate, write_cache;
	bool reorder;		  /* answers in any order */
	uint32_t batch;		  /* commands that one step does; 0: all */
	uint32_t deaf;		  /* so many I/O commands to come are never answered */
	bool aborts;		  /* an abort ends a deaf command */
	bool deaf_admin;	  /* administration is not answered */
	bool stuck_on, stuck_off; /* RDY does not come, does not go */
	uint32_t fail_next;	  /* status of the next I/O command */
	uint32_t stale;		  /* so many answers nobody asked for are to come */
	uint64_t random;

	/* What was seen. */
	uint64_t faults;   /* accesses to memory that it may not reach */
	uint64_t mistakes; /* of the driver, in words on stderr */
	uint64_t enables, commands, flushes, prps, sgls, list_pages, fua, deallocated, aborted;
	bool master;
	bool closed;

	/* Inside. */
	uint64_t now;
	unsigned char registers[FAKE_REGISTERS] __attribute__((aligned(4096)));
	uint32_t cc;
	bool ready, gone;
	struct fake_queue queue[FAKE_QUEUES];
	struct fake_held held[FAKE_HELD];
	unsigned held_count;
	struct fake_region region[FAKE_REGIONS];
	struct {
		unsigned char *bytes;
		uint64_t blocks;
		uint32_t shift;
	} ns[FAKE_NAMESPACES];
};

/* Default knobs; 4 MiB of 512-byte blocks in namespace 1, 4 MiB of 4096-byte ones in 2. */
struct fake *fake_make(uint64_t seed);
void fake_free(struct fake *fake);
/* The driver's view of it. */
struct mrs_nvme_port fake_port(struct fake *fake, unsigned vectors);
/* Memory that it reaches, as an IOMMU would have it; iova is chosen. NULL: out of room. */
struct fake_region *fake_map(struct fake *fake, uint64_t bytes, bool writable);
void fake_unmap(struct fake *fake, struct fake_region *region);
/* As if it was pulled out. */
void fake_pull(struct fake *fake);
void fake_step(struct fake *fake);

#endif
