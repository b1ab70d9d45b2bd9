/*
 * An IOMMU as a target, in the lab: what translates is the machine's, and what reads and writes by
 * its translations is an NVMe controller that nobody here wrote. A byte comes from a view's IOVA to
 * a buffer by way of two commands (write to a block, read that block elsewhere).
 *
 * An access without translation is made all the same; the IOMMU stops it, and the emulated
 * controller does not say so. So -EFAULT is answered from the list of the view's entries, and that
 * the device got nowhere shows in the content, which the suite compares.
 *
 * A child of fork cannot have the device that its parent has: it uses a target of software.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <morsel/iommu.h>
#include <morsel/nvme.h>

#include "contract/contract.h"

#define BLOCK  512u
#define BUFFER (64 * PAGE)

static struct {
	pthread_mutex_t lock; /* one access at a time */
	struct morsel_pool *pool;
	struct morsel *morsel;
	struct morsel_view *cpu, *view;
	struct morsel_grant grant;
	struct morsel_device *device;
	struct morsel_nvme *nvme;
} lab = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int find(void *ctx, const struct morsel_iommu_function *function)
{
	if (function->class_code != 0x010802 || !strstr(function->driver, "vfio"))
		return 0;
	memcpy(ctx, function->bdf, sizeof(function->bdf));
	return 1;
}

static const char *missing;

static void start(uint32_t kind)
{
	const struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
	struct morsel_iommu_opts opts = {.size = sizeof(opts), .kind = kind};
	struct morsel_nvme_opts nvme = {.size = sizeof(nvme), .flags = MORSEL_NVME_POLLED};
	char bdf[MORSEL_IOMMU_BDF_BYTES];

	setrlimit(RLIMIT_MEMLOCK, &limit);
	if (morsel_iommu_list(find, bdf) != 1) {
		missing = "there is no NVMe controller for user space: run it in the lab";
		return;
	}
	lab.pool = support_pool();
	lab.morsel = support_morsel(lab.pool, "buffer", BUFFER, 0, 0);
	if (morsel_iommu_open(bdf, &opts, &lab.device) ||
	    morsel_nvme_open(lab.device, &nvme, &lab.nvme) ||
	    morsel_iommu_view(lab.morsel, lab.device, NULL, &lab.view) ||
	    morsel_map(lab.morsel, NULL, &lab.cpu) ||
	    morsel_acquire(lab.view, 0, BUFFER, MORSEL_READ | MORSEL_WRITE, &lab.grant))
		missing = morsel_errormsg();
}

const char *contract_iommu_missing(const struct contract_target *target)
{
	if (!lab.device)
		start(target == &contract_iommu_type1 ? MORSEL_IOMMU_TYPE1 : MORSEL_IOMMU_IOMMUFD);
	return missing;
}

/* ---- moving ---- */

/* One command over these pieces, from or to the first blocks of the namespace. */
static int command(uint32_t op, const struct morsel_nvme_piece *pieces, uint32_t count)
{
	struct morsel_nvme_io io = {
		.op = op, .ns = 1, .pieces = pieces, .count = count, .flags = MORSEL_NVME_SGL};
	struct morsel_nvme_done done;
	uint64_t bytes = 0;
	int rc;

	for (uint32_t i = 0; i < count; i++)
		bytes += pieces[i].bytes;
	io.blocks = (uint32_t)(bytes / BLOCK);
	rc = morsel_nvme_submit(lab.nvme, 0, &io);
	if (rc)
		return rc;
	return morsel_nvme_poll(lab.nvme, 0, &done, 1, -1) == 1 ? done.rc : -EIO;
}

/*
 * Words [first, last) of memory at iova to or from the buffer's beginning. What fills the last
 * block is the buffer's own.
 */
static int move(uint64_t iova, uint64_t bytes, bool in)
{
	uint64_t pad = (BLOCK - bytes % BLOCK) % BLOCK;
	const struct morsel_nvme_piece theirs[] = {{iova, bytes},
						   {lab.grant.iova + BUFFER - BLOCK, pad}};
	const struct morsel_nvme_piece ours[] = {{lab.grant.iova, bytes},
						 {lab.grant.iova + BUFFER - BLOCK, pad}};
	int rc = command(MORSEL_NVME_WRITE, in ? theirs : ours, pad ? 2 : 1);

	return rc ? rc : command(MORSEL_NVME_READ, in ? ours : theirs, pad ? 2 : 1);
}

/* ---- is it translated? ---- */

struct covered {
	uint64_t at, end;
};

static int cover(void *ctx, const struct morsel_iommu_entry *entry)
{
	struct covered *covered = ctx;

	if (entry->mapped && entry->offset <= covered->at &&
	    covered->at < entry->offset + entry->bytes)
		covered->at = entry->offset + entry->bytes;
	return covered->at >= covered->end;
}

static int check(struct morsel_view *view, uint64_t offset, uint64_t bytes, bool write)
{
	struct morsel_iommu_view_info info = {.size = sizeof(info)};
	struct covered covered = {offset, offset + bytes};
	int rc = morsel_iommu_view_info(view, &info);

	if (rc || morsel_iommu_entries(view, cover, &covered) < 0)
		abort();
	if (covered.at < covered.end)
		return -EFAULT;
	return write && !(info.access & MORSEL_WRITE) ? -EACCES : 0;
}

/* ---- the contract's ways ---- */

static char *buffer_bytes(void)
{
	return morsel_addr(lab.cpu);
}

/* Whole words around [offset, offset + bytes), at most a buffer. */
static int peek_part(struct morsel_view *view, uint64_t offset, char *to, uint64_t bytes)
{
	uint64_t first = offset & ~3ull, last = (offset + bytes + 3) & ~3ull;
	int rc = move(morsel_iommu_iova(view) + first, last - first, true);

	if (!rc)
		memcpy(to, buffer_bytes() + (offset - first), bytes);
	return rc;
}

/* The words at the ends keep their other bytes. */
static int poke_part(struct morsel_view *view, uint64_t offset, const char *from, uint64_t bytes)
{
	uint64_t first = offset & ~3ull, last = (offset + bytes + 3) & ~3ull;
	uint64_t iova = morsel_iommu_iova(view);
	char ends[2][4];
	int rc = 0;

	if (first != offset || last != offset + bytes) {
		rc = move(iova + first, 4, true);
		memcpy(ends[0], buffer_bytes(), 4);
		rc = rc ? rc : move(iova + last - 4, 4, true);
		memcpy(ends[1], buffer_bytes(), 4);
		memcpy(buffer_bytes() + (last - first - 4), ends[1], 4);
		memcpy(buffer_bytes(), ends[0], 4);
		if (last - first == 4)
			memcpy(buffer_bytes(), ends[1], 4);
	}
	if (rc)
		return rc;
	memcpy(buffer_bytes() + (offset - first), from, bytes);
	return move(iova + first, last - first, false);
}

/* In parts that leave room for the words at the ends and for what fills the last block. */
#define PART (BUFFER - 2 * PAGE)

static int lab_peek(struct morsel_view *view, uint64_t offset, void *to, uint64_t bytes)
{
	int rc = check(view, offset, bytes, false);
	int moved = 0;

	pthread_mutex_lock(&lab.lock);
	for (uint64_t at = 0; at < bytes && !moved; at += PART)
		moved = peek_part(view, offset + at, (char *)to + at,
				  bytes - at < PART ? bytes - at : PART);
	pthread_mutex_unlock(&lab.lock);
	return rc ? rc : moved;
}

static int lab_poke(struct morsel_view *view, uint64_t offset, const void *from, uint64_t bytes)
{
	int rc = check(view, offset, bytes, true);
	int moved = 0;

	pthread_mutex_lock(&lab.lock);
	for (uint64_t at = 0; at < bytes && !moved; at += PART)
		moved = poke_part(view, offset + at, (const char *)from + at,
				  bytes - at < PART ? bytes - at : PART);
	pthread_mutex_unlock(&lab.lock);
	return rc ? rc : moved;
}

static int open_view(struct morsel *morsel, const struct morsel_map_opts *map,
		     struct morsel_view **view)
{
	struct morsel_iommu_view_opts opts = {
		.size = sizeof(opts),
		.access = map->access,
		.offset = map->offset,
		.bytes = map->bytes,
	};

	return morsel_iommu_view(morsel, lab.device, &opts, view);
}

const struct contract_target contract_iommu_type1 = {
	.name = "iommu-type1",
	.flags = MORSEL_SCATTERED,
	.pages = MORSEL_PAGES_4K,
	.open = open_view,
	.peek = lab_peek,
	.poke = lab_poke,
	.in_child = &contract_software,
};

const struct contract_target contract_iommu_iommufd = {
	.name = "iommu-iommufd",
	.flags = MORSEL_SCATTERED,
	.pages = MORSEL_PAGES_4K,
	.open = open_view,
	.peek = lab_peek,
	.poke = lab_poke,
	.in_child = &contract_software,
};
