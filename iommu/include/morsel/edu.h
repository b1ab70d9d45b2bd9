/*
 * morsel: QEMU's teaching device "edu" (1234:11e8), driven from user space on morsels.
 *
 * It multiplies, interrupts, and copies between memory and a buffer of 4096 bytes of its own:
 * enough to show what a user-space driver is made of, on a machine without hardware. The whole
 * driver is one file to read; `docs/` has a tutorial that goes through it.
 *
 * A transfer takes the device about 100 ms. Its addresses end at 28 bits unless QEMU is told more
 * (-device edu,dma_mask=0xffffffffffff): opts.dma_mask says what it was told, and views are then to
 * be made below it (struct morsel_iommu_view_opts.iova_last). QEMU before 10 ends itself at a
 * transfer of all 4096 bytes, so that transfers are cut into pieces of 2048.
 *
 * Threads: any; one transfer at a time.
 */
#ifndef MORSEL_EDU_H
#define MORSEL_EDU_H

#include <stddef.h>
#include <stdint.h>

#include <morsel/iommu.h>

#ifdef __cplusplus
extern "C" {
#endif

struct morsel_edu;

#define MORSEL_EDU_BUFFER_BYTES 4096u

enum morsel_edu_flags {
	MORSEL_EDU_POLLED = 1, /* without interrupts */
};

struct morsel_edu_opts {
	size_t size;	      /* sizeof(struct morsel_edu_opts) */
	uint32_t flags;	      /* enum morsel_edu_flags */
	uint32_t piece_bytes; /* of one transfer, at most 4096; default 2048 */
	uint64_t dma_mask;    /* what QEMU was told; default 0xfffffff, 28 bits */
	uint32_t timeout_ms;  /* for one piece; default 5000 */
	uint32_t reserved;
};

/* -ENODEV: the device is no edu, or does not answer as one. The device stays the caller's. */
MORSEL_API int morsel_edu_open(struct morsel_device *device, const struct morsel_edu_opts *opts,
			       struct morsel_edu **edu);
/* Waits for a transfer that is under way. NULL is fine. */
MORSEL_API void morsel_edu_close(struct morsel_edu *edu);

/* Its identification: 0xMMmm00ed, of major and minor version. */
MORSEL_API uint32_t morsel_edu_identify(struct morsel_edu *edu);

/* n factorial, modulo 2^32, computed by the device; waits for its interrupt. -ETIMEDOUT, -ENODEV.
 */
MORSEL_API int morsel_edu_factorial(struct morsel_edu *edu, uint32_t n, uint32_t *result);

/*
 * Copies between the device's buffer, from byte `at` on, and a range of a view of this device,
 * which is granted meanwhile. -ERANGE: beyond the buffer, or an IOVA that the device cannot reach;
 * -ETIMEDOUT; -ENODEV; the errors of morsel_acquire(). What the IOMMU does not translate is not
 * moved, and the device does not tell: compare.
 */
MORSEL_API int morsel_edu_to_device(struct morsel_edu *edu, struct morsel_view *view,
				    uint64_t offset, uint32_t at, uint32_t bytes);
MORSEL_API int morsel_edu_from_device(struct morsel_edu *edu, struct morsel_view *view,
				      uint64_t offset, uint32_t at, uint32_t bytes);

/*
 * The same by address, for what is granted already, and for tests of what is not: to_device 1 reads
 * memory. Nothing is checked but the device's reach.
 */
MORSEL_API int morsel_edu_transfer(struct morsel_edu *edu, int to_device, uint64_t iova,
				   uint32_t at, uint32_t bytes);

#ifdef __cplusplus
}
#endif

#endif
