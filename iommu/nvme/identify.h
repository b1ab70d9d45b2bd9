/*
 * What identify data say, as numbers. Plain functions on 4096 bytes that a device has written:
 * nothing in them is trusted.
 */
#ifndef MRS_NVME_IDENTIFY_H
#define MRS_NVME_IDENTIFY_H

#include <stdbool.h>
#include <stdint.h>

#include "nvme/spec.h"

struct mrs_nvme_identity {
	char serial[21];
	char model[41];
	char firmware[9];
	uint32_t version;
	uint32_t namespaces;
	uint64_t transfer_max; /* bytes; UINT64_MAX: no limit */
	bool sgl;
	bool write_zeroes;
	bool deallocate;
	bool write_cache;
};

/* -EOPNOTSUPP in words: its entries are not those of this driver. page_shift: CAP.MPSMIN's. */
int mrs_nvme_identity_parse(const unsigned char *data, unsigned page_shift,
			    struct mrs_nvme_identity *identity);

struct mrs_nvme_geometry {
	uint64_t blocks;
	uint64_t used;
	uint32_t block_bytes;
};

/* -ENOENT without words: all zero, there is none; -EOPNOTSUPP in words: metadata, odd blocks. */
int mrs_nvme_geometry_parse(const unsigned char *data, uint32_t id,
			    struct mrs_nvme_geometry *geometry);

#endif
