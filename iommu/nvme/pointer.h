/*
 * Data pointers: how a command tells where its memory is.
 *
 * Two forms from the same pieces. PRPs are one entry per memory page, so that only the ends may lie
 * inside of one; an SGL is one descriptor per piece, whatever its length. Neighbouring pieces are
 * one. Both are built into memory that the device reads (a list), of which the first entry or two
 * fit into the command itself:
 *
 *	PRP	1 page: PRP1        2 pages: PRP1, PRP2      more: PRP1, PRP2 -> list
 *		list: entries of 8 bytes; the last of a full page points to the next page of the
 *list SGL	1 piece: the descriptor itself               more: last segment -> list
 */
#ifndef MRS_NVME_POINTER_H
#define MRS_NVME_POINTER_H

#include <stdbool.h>
#include <stdint.h>

#include <morsel/nvme.h>

#include "nvme/spec.h"

struct mrs_nvme_list {
	void *memory;  /* page-aligned */
	uint64_t iova; /* of it, page-aligned */
	uint64_t bytes;
};

/* Bytes of list that any transfer of so many bytes needs as PRPs. */
uint64_t mrs_nvme_prp_list_bytes(uint64_t bytes, uint64_t page_bytes);

/* Set sqe->dptr (and PSDT). -EINVAL, -E2BIG in words. pieces are not empty. */
int mrs_nvme_prp(struct mrs_nvme_sqe *sqe, const struct morsel_nvme_piece *pieces, unsigned count,
		 uint64_t page_bytes, const struct mrs_nvme_list *list);
int mrs_nvme_sgl(struct mrs_nvme_sqe *sqe, const struct morsel_nvme_piece *pieces, unsigned count,
		 const struct mrs_nvme_list *list);

/* Could PRPs describe them? */
bool mrs_nvme_prp_fits(const struct morsel_nvme_piece *pieces, unsigned count, uint64_t page_bytes);

#endif
