/*
 * What a controller answers, in words and as errno.
 */
#include <errno.h>
#include <stddef.h>

#include "nvme/internal.h"

static const struct answer {
	uint32_t status;
	int rc;
	const char *words;
} answers[] = {
	{NVME_SUCCESS, 0, "success"},
	{NVME_INVALID_OPCODE, -EOPNOTSUPP, "invalid command opcode"},
	{NVME_INVALID_FIELD, -EINVAL, "invalid field in command"},
	{NVME_CID_CONFLICT, -EIO, "command identifier conflict"},
	{NVME_TRANSFER_ERROR, -EFAULT, "data transfer error"},
	{NVME_INTERNAL_ERROR, -EIO, "internal error"},
	{NVME_ABORT_REQUESTED, -ETIMEDOUT, "command abort requested"},
	{NVME_SQ_DELETED, -ECANCELED, "command aborted due to submission queue deletion"},
	{NVME_INVALID_NAMESPACE, -ENOENT, "invalid namespace or format"},
	{NVME_INVALID_SGL_COUNT, -EINVAL, "invalid number of SGL descriptors"},
	{NVME_INVALID_SGL_LENGTH, -EINVAL, "data SGL length invalid"},
	{NVME_INVALID_PRP, -EINVAL, "PRP offset invalid"},
	{NVME_LBA_RANGE, -ERANGE, "LBA out of range"},
	{NVME_CAPACITY, -ENOSPC, "capacity exceeded"},
	{NVME_NOT_READY, -EBUSY, "namespace not ready"},
	{NVME_INVALID_QUEUE, -EINVAL, "invalid queue identifier"},
	{NVME_INVALID_QUEUE_SIZE, -EINVAL, "invalid queue size"},
	{NVME_READ_ONLY, -EROFS, "attempted write to read-only range"},
	{NVME_WRITE_FAULT, -EIO, "write fault"},
	{NVME_UNREADABLE, -EIO, "unrecovered read error"},
};

static const struct answer *find(uint32_t status)
{
	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++)
		if (answers[i].status == status)
			return &answers[i];
	return NULL;
}

int mrs_nvme_status_errno(uint32_t status)
{
	const struct answer *answer = find(status);

	return answer ? answer->rc : -EIO;
}

const char *morsel_nvme_status_words(uint32_t status)
{
	static const char *const types[] = {"generic error", "command-specific error",
					    "media or data error", "path error"};
	const struct answer *answer = find(status);

	if (answer)
		return answer->words;
	return status >> 8 < 4 ? types[status >> 8] : "vendor-specific error";
}
