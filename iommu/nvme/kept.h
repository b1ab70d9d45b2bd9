/*
 * A kept file: the two heads and two halves of a place, and which of them is the file.
 *
 *	| head 0 | head 1 | half 0 ................ | half 1 ................ |
 *	 4 KiB    4 KiB    (bytes - 8 KiB) / 2, whole blocks
 *
 * A head says that its half is the file since `serial`; the valid one with the higher serial wins.
 *An export writes the half that is not the file, flushes, and then writes its head: that one block
 *is the only thing that a power cut can find half done, and its checksum tells.
 */
#ifndef MRS_NVME_KEPT_H
#define MRS_NVME_KEPT_H

#include <stdbool.h>
#include <stdint.h>

#define NVME_HEAD_BYTES 4096u

struct mrs_kept_head {
	uint64_t magic;
	uint64_t version; /* 1 */
	uint64_t serial;
	uint64_t bytes;	      /* of the file */
	uint64_t place_bytes; /* where the halves are follows from it */
	uint64_t check;	      /* of the words before */
};

uint64_t mrs_kept_half_bytes(uint64_t place_bytes);
uint64_t mrs_kept_half_at(uint64_t place_bytes, unsigned half);
/* Makes the head of a file of so many bytes in a place; the page beyond it is zero. */
void mrs_kept_make(void *page, uint64_t serial, uint64_t bytes, uint64_t place_bytes);
/* Which half is the file, of two heads as read; -1 none. *head is its head. */
int mrs_kept_newest(const void *heads, uint64_t place_bytes, struct mrs_kept_head *head);

#endif
