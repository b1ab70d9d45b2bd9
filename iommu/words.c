/*
 * What is said when the kernel refuses: which limit was met, with its value, and what to do. Only
 * here, so that both ways into the kernel say the same.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

int mrs_words_of_open(const char *path, const char *what, int rc)
{
	switch (rc) {
	case -ENOENT:
	case -ENODEV:
	case -ENXIO:
		return morsel_fail(-ENOENT, "%s is not there: %s", path, what);
	case -EACCES:
	case -EPERM:
		return morsel_fail(
			-EACCES,
			"no right to open %s: give it to this user (chown, or a udev rule), "
			"or have a privileged parent open it and hand the descriptor in",
			path);
	case -EBUSY:
		return morsel_fail(
			-EBUSY,
			"%s is open elsewhere: a group or device is used by one process at "
			"a time; in this process, open the second device of a group in the "
			"first one's domain",
			path);
	default:
		return morsel_fail(rc, "cannot open %s: %s", path, strerror(-rc));
	}
}

static int no_entries(struct morsel_domain *domain)
{
	return morsel_fail(-ENOSPC,
			   "the IOMMU's limit of mappings is reached: %llu of at most %llu exist; "
			   "make the morsel of larger pages or contiguous, use a larger granule, "
			   "destroy views, or raise vfio_iommu_type1.dma_entry_limit",
			   (unsigned long long)domain->entries,
			   (unsigned long long)domain->entries_max);
}

int mrs_words_of_map(struct morsel_domain *domain, const struct mrs_mapping *mapping, int rc)
{
	unsigned long long iova = mapping->iova, bytes = mapping->bytes;

	switch (rc) {
	case -ENOSPC:
		return no_entries(domain);
	case -ENOMEM:
		if (mrs_memory_limit(domain) != UINT64_MAX)
			return mrs_memory_refuse(domain, mapping->bytes);
		return morsel_fail(rc, "the kernel has no memory to map %llu bytes for the device",
				   bytes);
	case -EFAULT:
	case -EOPNOTSUPP:
		return morsel_fail(
			-EOPNOTSUPP,
			"the kernel cannot pin the pool's memory for a device (%llu bytes "
			"at byte %llu of its file): files on disk cannot be pinned for "
			"writing; use a pool on tmpfs, hugetlbfs or a memfd",
			bytes, (unsigned long long)mapping->file_at);
	case -EEXIST:
		return morsel_fail(
			rc,
			"IOVA 0x%llx to 0x%llx is taken by a mapping that this library did "
			"not make: who else uses this container?",
			iova, iova + bytes - 1);
	case -EINVAL:
		return morsel_fail(
			rc,
			"the IOMMU refuses IOVA 0x%llx to 0x%llx: not aligned to its pages "
			"(0x%llx), or reserved",
			iova, iova + bytes - 1, (unsigned long long)domain->page_sizes);
	case -ENODEV:
		return morsel_fail(rc, "no device translates with this domain any more");
	default:
		return morsel_fail(rc, "mapping IOVA 0x%llx to 0x%llx: %s", iova, iova + bytes - 1,
				   strerror(-rc));
	}
}
