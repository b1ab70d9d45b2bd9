/*
 * QEMU's edu device in a few lines, for the tests of views: it moves bytes between its own buffer
 * and an IOVA. Each transfer takes 100 ms by the guest's clock, whatever its size (up to 4096).
 */
#ifndef TESTS_IOMMU_EDU_H
#define TESTS_IOMMU_EDU_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <morsel/iommu.h>

#define EDU_BUFFER 0x40000u
#define EDU_BYTES  4096u

struct edu {
	struct morsel_device *device;
	volatile unsigned char *registers;
};

struct edu_search {
	char *bdf;
	unsigned seen;
	int last; /* of several the last one, not the first */
};

static inline int edu_look(void *ctx, const struct morsel_iommu_function *function)
{
	struct edu_search *search = (struct edu_search *)ctx;

	if (function->vendor != 0x1234 || function->device != 0x11e8)
		return 0;
	if (!search->seen++ || search->last)
		memcpy(search->bdf, function->bdf, sizeof(function->bdf));
	return 0;
}

/* How many there are, and the address of the first or the last. */
static inline unsigned edu_find(char bdf[MORSEL_IOMMU_BDF_BYTES], int last)
{
	struct edu_search search = {bdf, 0, last};

	return morsel_iommu_list(edu_look, &search) ? 0 : search.seen;
}

static inline int edu_start(struct edu *edu, struct morsel_device *device)
{
	uint64_t bytes;
	void *address;
	int rc = morsel_iommu_bar(device, 0, &address, &bytes);

	edu->device = device;
	edu->registers = rc ? NULL : address;
	return rc;
}

/* One transfer of at most EDU_BYTES; 0 when it has ended, -1 after 10 s. */
static inline int edu_move(struct edu *edu, uint64_t from, uint64_t to, uint64_t bytes, int out)
{
	struct timespec pause = {.tv_nsec = 2000000};

	*(volatile uint64_t *)(edu->registers + 0x80) = from;
	*(volatile uint64_t *)(edu->registers + 0x88) = to;
	*(volatile uint64_t *)(edu->registers + 0x90) = bytes;
	*(volatile uint64_t *)(edu->registers + 0x98) = out ? 3 : 1;
	for (unsigned i = 0; i < 5000; i++) {
		if (!(*(volatile uint64_t *)(edu->registers + 0x98) & 1))
			return 0;
		nanosleep(&pause, NULL);
	}
	return -1;
}

/* From memory into the device's buffer, and back. */
static inline int edu_load(struct edu *edu, uint64_t iova, uint64_t bytes)
{
	return edu_move(edu, iova, EDU_BUFFER, bytes, 0);
}

static inline int edu_store(struct edu *edu, uint64_t iova, uint64_t bytes)
{
	return edu_move(edu, EDU_BUFFER, iova, bytes, 1);
}

#endif
