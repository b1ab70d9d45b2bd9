/*
 * Parsing identify data; see identify.h.
 */
#include "nvme/identify.h"

#include <errno.h>
#include <string.h>

#include <morsel/view.h>

/* Blocks of less than a sector or more than this make no sense to anyone. */
#define BLOCK_SHIFT_MIN 9
#define BLOCK_SHIFT_MAX 16

static uint16_t get16(const unsigned char *at)
{
	uint16_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

static uint32_t get32(const unsigned char *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

static uint64_t get64(const unsigned char *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

/* Fields of text are padded with spaces; what cannot be printed would harm a terminal. */
static void get_text(char *to, const unsigned char *from, unsigned bytes)
{
	while (bytes && (from[bytes - 1] == ' ' || !from[bytes - 1]))
		bytes--;
	for (unsigned i = 0; i < bytes; i++)
		to[i] = from[i] >= ' ' && from[i] < 0x7f ? (char)from[i] : '?';
	to[bytes] = 0;
}

/* Smallest and largest size of an entry, as powers of two, in one byte. */
static bool allows(unsigned char sizes, unsigned log2)
{
	return (sizes & 15u) <= log2 && log2 <= sizes >> 4;
}

int mrs_nvme_identity_parse(const unsigned char *data, unsigned page_shift,
			    struct mrs_nvme_identity *identity)
{
	unsigned mdts = data[NVME_ID_MDTS];
	uint16_t oncs = get16(data + NVME_ID_ONCS);

	if (!allows(data[NVME_ID_SQES], 6) || !allows(data[NVME_ID_CQES], 4))
		return morsel_fail(-EOPNOTSUPP,
				   "the controller does not take queue entries of 64 and 16 bytes "
				   "(SQES 0x%x, CQES 0x%x)",
				   data[NVME_ID_SQES], data[NVME_ID_CQES]);
	memset(identity, 0, sizeof(*identity));
	get_text(identity->serial, data + NVME_ID_SN, 20);
	get_text(identity->model, data + NVME_ID_MN, 40);
	get_text(identity->firmware, data + NVME_ID_FR, 8);
	identity->version = get32(data + NVME_ID_VER);
	identity->namespaces = get32(data + NVME_ID_NN);
	identity->transfer_max =
		mdts && mdts + page_shift < 63 ? 1ull << (mdts + page_shift) : UINT64_MAX;
	identity->sgl = (get32(data + NVME_ID_SGLS) & 3) != 0;
	identity->write_zeroes = oncs & NVME_ONCS_WRITE_ZEROES;
	identity->deallocate = oncs & NVME_ONCS_DATASET;
	identity->write_cache = data[NVME_ID_VWC] & 1;
	return 0;
}

int mrs_nvme_geometry_parse(const unsigned char *data, uint32_t id,
			    struct mrs_nvme_geometry *geometry)
{
	unsigned format = (data[NVME_NS_FLBAS] & 15u) | (data[NVME_NS_FLBAS] >> 5 & 3u) << 4;
	uint64_t blocks = get64(data + NVME_NS_NSZE);
	uint32_t lbaf;
	unsigned shift;

	if (!blocks)
		return -ENOENT;
	if (format > data[NVME_NS_NLBAF])
		return morsel_fail(-EOPNOTSUPP, "namespace %u is in format %u, of which it has %u",
				   id, format, data[NVME_NS_NLBAF] + 1u);
	lbaf = get32(data + NVME_NS_LBAF + 4 * (size_t)format);
	shift = lbaf >> 16 & 0xff;
	if (lbaf & 0xffff)
		return morsel_fail(
			-EOPNOTSUPP,
			"namespace %u keeps %u bytes of metadata with each block: format it "
			"without",
			id, lbaf & 0xffff);
	if (shift < BLOCK_SHIFT_MIN || shift > BLOCK_SHIFT_MAX || blocks > UINT64_MAX >> shift)
		return morsel_fail(-EOPNOTSUPP, "namespace %u has %llu blocks of 2^%u bytes", id,
				   (unsigned long long)blocks, shift);
	*geometry = (struct mrs_nvme_geometry){
		.blocks = blocks, .used = get64(data + NVME_NS_NUSE), .block_bytes = 1u << shift};
	return 0;
}
