/*
 * Which I/O virtual addresses of a domain are taken.
 *
 *	permitted  |----------------------|    |------------------------...
 *	taken	      |view|   |view|view|	  |view|
 *
 * Both are sorted arrays of disjoint inclusive ranges: a domain has few views, and few gaps. A
 *choice goes to the lowest place that fits, above 4 GiB first, so that the low addresses stay for
 *devices that reach no others. IOVA 0 is never given by choice: drivers take it for none.
 */
#ifndef MRS_IOMMU_IOVA_H
#define MRS_IOMMU_IOVA_H

#include <stddef.h>
#include <stdint.h>

struct mrs_iova_range {
	uint64_t first, last;
};

struct mrs_iova {
	struct mrs_iova_range *permitted, *taken;
	size_t permitted_count, taken_count, taken_room;
};

/* Adds a permitted range; they come in any order and are merged. -ENOMEM. */
int mrs_iova_permit(struct mrs_iova *iova, uint64_t first, uint64_t last);

struct mrs_iova_want {
	uint64_t bytes; /* not 0 */
	uint64_t align; /* power of two */
	uint64_t phase; /* the address modulo align */
	uint64_t last;	/* no byte beyond; UINT64_MAX: no limit */
};
/* Chooses and takes. -EADDRNOTAVAIL in words. */
int mrs_iova_choose(struct mrs_iova *iova, const struct mrs_iova_want *want, uint64_t *at);
/* Takes these very ones. -EEXIST, -ERANGE in words. */
int mrs_iova_take(struct mrs_iova *iova, uint64_t at, uint64_t bytes);
/* Gives back what one of the two took. */
void mrs_iova_give(struct mrs_iova *iova, uint64_t at);
void mrs_iova_free(struct mrs_iova *iova);
/* "0x0-0xfedfffff, 0xfef00000-..." for messages; returns buffer. */
const char *mrs_iova_text(const struct mrs_iova *iova, char *buffer, size_t bytes);

#endif
