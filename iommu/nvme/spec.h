/*
 * What the NVM Express base specification (1.4) fixes: registers, entries of queues, identify data.
 *
 * Names follow the specification's abbreviations, so that a line here can be found there. All
 * fields are little-endian; this driver is for little-endian machines, which the build checks.
 */
#ifndef MRS_NVME_SPEC_H
#define MRS_NVME_SPEC_H

#include <stddef.h>
#include <stdint.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "fields are little-endian");

/* ---- registers ------------------------------------------------------------------------------ */

enum mrs_nvme_register {
	NVME_CAP = 0x00, /* 64 bits */
	NVME_VS = 0x08,
	NVME_INTMS = 0x0c,
	NVME_INTMC = 0x10,
	NVME_CC = 0x14,
	NVME_CSTS = 0x1c,
	NVME_AQA = 0x24,
	NVME_ASQ = 0x28, /* 64 bits */
	NVME_ACQ = 0x30, /* 64 bits */
	NVME_DOORBELLS = 0x1000,
};

#define NVME_CC_EN	     (1u << 0)
#define NVME_CC_MPS(shift)   ((uint32_t)(shift) << 7)
#define NVME_CC_SHN_NORMAL   (1u << 14)
#define NVME_CC_SHN_MASK     (3u << 14)
#define NVME_CC_IOSQES(log2) ((uint32_t)(log2) << 16)
#define NVME_CC_IOCQES(log2) ((uint32_t)(log2) << 20)

#define NVME_CSTS_RDY	    (1u << 0)
#define NVME_CSTS_CFS	    (1u << 1)
#define NVME_CSTS_SHST_MASK (3u << 2)
#define NVME_CSTS_SHST_DONE (2u << 2)
#define NVME_GONE	    0xffffffffu /* what a register of an absent device reads as */

/* CAP, taken apart. */
struct mrs_nvme_cap {
	uint32_t entries_max;	 /* MQES + 1: of a queue */
	uint32_t ready_ms;	 /* TO: how long getting ready may take */
	uint32_t doorbell_bytes; /* DSTRD: from one doorbell to the next */
	uint32_t page_shift_min; /* MPSMIN: 12 is 4 KiB */
	uint32_t page_shift_max;
	uint32_t has_nvm; /* CSS: the NVM command set */
};

static inline struct mrs_nvme_cap mrs_nvme_cap_parse(uint64_t cap)
{
	return (struct mrs_nvme_cap){
		.entries_max = (uint32_t)(cap & 0xffff) + 1,
		/* Units of 500 ms; 0 is what simple controllers say who mean "at once". */
		.ready_ms = ((uint32_t)(cap >> 24 & 0xff) + 1) * 500,
		.doorbell_bytes = 4u << (cap >> 32 & 15),
		.page_shift_min = 12 + (uint32_t)(cap >> 48 & 15),
		.page_shift_max = 12 + (uint32_t)(cap >> 52 & 15),
		.has_nvm = cap >> 37 & 1,
	};
}

/* The doorbell of queue `id`: tail of submissions, or head of completions. */
static inline uint64_t mrs_nvme_doorbell(const struct mrs_nvme_cap *cap, unsigned id,
					 int completion)
{
	return NVME_DOORBELLS + (2ull * id + !!completion) * cap->doorbell_bytes;
}

/* ---- commands ------------------------------------------------------------------------------- */

enum mrs_nvme_admin {
	NVME_DELETE_SQ = 0x00,
	NVME_CREATE_SQ = 0x01,
	NVME_DELETE_CQ = 0x04,
	NVME_CREATE_CQ = 0x05,
	NVME_IDENTIFY = 0x06,
	NVME_ABORT = 0x08,
	NVME_SET_FEATURES = 0x09,
};

enum mrs_nvme_command_set {
	NVME_FLUSH = 0x00,
	NVME_WRITE = 0x01,
	NVME_READ = 0x02,
	NVME_WRITE_ZEROES = 0x08,
	NVME_DATASET = 0x09,
};

#define NVME_CNS_NAMESPACE    0u
#define NVME_CNS_CONTROLLER   1u
#define NVME_FEATURE_QUEUES   7u
#define NVME_QUEUE_CONTIGUOUS 1u
#define NVME_QUEUE_INTERRUPT  2u
#define NVME_FUA	      (1u << 30)
#define NVME_DSM_DEALLOCATE   (1u << 2)

/* One submission queue entry. */
struct mrs_nvme_sqe {
	uint8_t opcode;
	uint8_t flags; /* FUSE 1:0, PSDT 7:6 */
	uint16_t cid;
	uint32_t nsid;
	uint32_t cdw2, cdw3;
	uint64_t mptr;
	uint64_t dptr[2]; /* PRP1 and PRP2, or one SGL descriptor */
	uint32_t cdw10, cdw11, cdw12, cdw13, cdw14, cdw15;
};
_Static_assert(sizeof(struct mrs_nvme_sqe) == 64, "SQE");

#define NVME_PSDT_SGL 0x40

/* One completion queue entry. */
struct mrs_nvme_cqe {
	uint32_t result;
	uint32_t reserved;
	uint16_t sq_head;
	uint16_t sq_id;
	uint16_t cid;
	uint16_t status; /* phase bit 0; SC 8:1; SCT 11:9; M 14; DNR 15 */
};
_Static_assert(sizeof(struct mrs_nvme_cqe) == 16, "CQE");

/* type << 8 | code */
static inline uint32_t mrs_nvme_status_of(uint16_t word)
{
	return word >> 1 & 0x7ff;
}

enum mrs_nvme_status {
	NVME_SUCCESS = 0x000,
	NVME_INVALID_OPCODE = 0x001,
	NVME_INVALID_FIELD = 0x002,
	NVME_CID_CONFLICT = 0x003,
	NVME_TRANSFER_ERROR = 0x004,
	NVME_INTERNAL_ERROR = 0x006,
	NVME_ABORT_REQUESTED = 0x007,
	NVME_SQ_DELETED = 0x008,
	NVME_INVALID_NAMESPACE = 0x00b,
	NVME_INVALID_SGL_COUNT = 0x00e,
	NVME_INVALID_SGL_LENGTH = 0x00f,
	NVME_INVALID_PRP = 0x013,
	NVME_LBA_RANGE = 0x080,
	NVME_CAPACITY = 0x081,
	NVME_NOT_READY = 0x082,
	NVME_INVALID_QUEUE = 0x101,
	NVME_INVALID_QUEUE_SIZE = 0x102,
	NVME_READ_ONLY = 0x182,
	NVME_WRITE_FAULT = 0x280,
	NVME_UNREADABLE = 0x281,
};

/* One SGL descriptor. */
struct mrs_nvme_sgl {
	uint64_t address;
	uint32_t bytes;
	uint8_t reserved[3];
	uint8_t type; /* kind << 4 | subtype */
};
_Static_assert(sizeof(struct mrs_nvme_sgl) == 16, "SGL descriptor");
#define NVME_SGL_DATA	      0x00
#define NVME_SGL_LAST_SEGMENT 0x30

/* One range of a dataset management command. */
struct mrs_nvme_range {
	uint32_t attributes;
	uint32_t blocks;
	uint64_t block;
};

/* ---- identify data -------------------------------------------------------------------------- */

#define NVME_IDENTIFY_BYTES 4096
enum mrs_nvme_identify_controller {
	NVME_ID_SN = 4,
	NVME_ID_MN = 24,
	NVME_ID_FR = 64,
	NVME_ID_MDTS = 77,
	NVME_ID_VER = 80,
	NVME_ID_SQES = 512,
	NVME_ID_CQES = 513,
	NVME_ID_NN = 516,
	NVME_ID_ONCS = 520,
	NVME_ID_VWC = 525,
	NVME_ID_SGLS = 536,
};
enum mrs_nvme_identify_namespace {
	NVME_NS_NSZE = 0,
	NVME_NS_NUSE = 16,
	NVME_NS_NLBAF = 25,
	NVME_NS_FLBAS = 26,
	NVME_NS_LBAF = 128,
};
#define NVME_ONCS_DATASET      (1u << 2)
#define NVME_ONCS_WRITE_ZEROES (1u << 3)

#endif
