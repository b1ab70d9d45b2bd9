/*
 * Import and export over NVMe: the device moves the bytes between its blocks and the morsel's
 * frames.
 *
 * Where blocks and memory fall on each other nothing else touches the bytes. Of the last, partial
 * block the rest lies in the morsel's last page, beyond its end. Only where a file's tensors are
 * aligned anew can neither be had; those pieces go by way of a buffer, and are counted.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <morsel/carrier.h>

#include "nvme/internal.h"
#include "nvme/kept.h"

#define PAGE	     4096u
#define BUFFER_BYTES ((uint64_t)1 << 20)

struct carry {
	struct morsel_nvme *nvme;
	struct morsel_nvme_place *place;
	uint64_t at;   /* of the file's first byte, on the device */
	uint64_t room; /* bytes that it may have there */
	uint32_t block;
	struct mrs_nvme_memory buffer;
	char name[64];
	/* Kept. */
	unsigned half;
	uint64_t serial;
};

/* ---- memory and blocks that fall on each other ---- */

static int open_view(struct carry *carry, struct morsel *morsel, uint64_t offset, uint64_t bytes,
		     bool fill, struct morsel_view **view)
{
	struct morsel_iommu_view_opts opts = {.size = sizeof(opts),
					      .access = fill ? MORSEL_READ | MORSEL_WRITE
							     : MORSEL_READ,
					      .offset = offset,
					      .bytes = bytes};

	if (!carry->nvme->device)
		return morsel_fail(-ENODEV, "%s has no device behind it", carry->name);
	return morsel_iommu_view(morsel, carry->nvme->device, &opts, view);
}

/* Beyond the end nothing of the device's is to be found when the morsel grows. */
static int clear_beyond(struct morsel *morsel, uint64_t end)
{
	struct morsel_map_opts opts = {
		.size = sizeof(opts), .offset = end / PAGE * PAGE, .bytes = end % PAGE};
	struct morsel_view *view;
	struct morsel_grant grant;
	int rc = morsel_map(morsel, &opts, &view);

	if (rc)
		return rc;
	rc = morsel_acquire(view, 0, end % PAGE, MORSEL_WRITE, &grant);
	if (!rc) {
		memset((char *)grant.addr + end % PAGE, 0, PAGE - end % PAGE);
		morsel_release(&grant);
	}
	morsel_view_destroy(view);
	return rc;
}

/* offset is that of a page; the last block may be a part of one. */
static int move_straight(struct carry *carry, struct morsel *morsel, uint64_t offset,
			 uint64_t position, uint64_t bytes, bool fill)
{
	uint64_t whole = (bytes + carry->block - 1) / carry->block * carry->block;
	struct morsel_nvme_piece piece;
	struct morsel_view *view;
	struct morsel_grant grant;
	int rc = open_view(carry, morsel, offset, bytes, fill, &view);

	if (rc)
		return rc;
	rc = morsel_acquire(view, 0, bytes, fill ? MORSEL_WRITE : MORSEL_READ, &grant);
	if (!rc) {
		piece = (struct morsel_nvme_piece){grant.iova, whole};
		rc = mrs_nvme_transfer(carry->nvme, fill ? MORSEL_NVME_READ : MORSEL_NVME_WRITE,
				       carry->place->ns, carry->at + position, &piece, 1);
		morsel_release(&grant);
	}
	morsel_view_destroy(view);
	if (!rc && fill && whole != bytes)
		rc = clear_beyond(morsel, offset + bytes);
	if (!rc)
		carry->place->bytes_moved += bytes;
	return rc;
}

/* ---- by way of a buffer ---- */

static int use_buffer(struct carry *carry)
{
	if (carry->buffer.memory)
		return 0;
	return carry->nvme->port.get(carry->nvme->port.ctx, BUFFER_BYTES, &carry->buffer);
}

static int move_buffer(struct carry *carry, uint32_t op, uint64_t position, uint64_t bytes)
{
	struct morsel_nvme_piece piece = {carry->buffer.iova, bytes};

	return mrs_nvme_transfer(carry->nvme, op, carry->place->ns, position, &piece, 1);
}

/* Between the CPU's memory and bytes of the device, which are no whole blocks. */
static int move_part(struct carry *carry, unsigned char *memory, uint64_t position, uint64_t bytes,
		     bool fill)
{
	uint64_t at = carry->at + position, first = at / carry->block * carry->block;
	uint64_t end = (at + bytes + carry->block - 1) / carry->block * carry->block;
	unsigned char *buffer = carry->buffer.memory;
	int rc = move_buffer(carry, MORSEL_NVME_READ, first, end - first);

	if (rc)
		return rc;
	if (fill)
		memcpy(memory, buffer + (at - first), bytes);
	else
		memcpy(buffer + (at - first), memory, bytes);
	carry->place->bytes_copied += bytes;
	return fill ? 0 : move_buffer(carry, MORSEL_NVME_WRITE, first, end - first);
}

static int move_parts(struct carry *carry, unsigned char *memory, uint64_t position, uint64_t bytes,
		      bool fill)
{
	uint64_t most = BUFFER_BYTES - 2 * carry->block;
	int rc = use_buffer(carry);

	for (uint64_t done = 0; !rc && done < bytes; done += most)
		rc = move_part(carry, memory + done, position + done,
			       bytes - done < most ? bytes - done : most, fill);
	return rc;
}

static int move_copied(struct carry *carry, struct morsel *morsel, uint64_t offset,
		       uint64_t position, uint64_t bytes, bool fill)
{
	uint64_t first = offset / PAGE * PAGE;
	struct morsel_map_opts opts = {.size = sizeof(opts),
				       .access = fill ? MORSEL_READ | MORSEL_WRITE : MORSEL_READ,
				       .offset = first,
				       .bytes = offset + bytes - first};
	struct morsel_view *view;
	struct morsel_grant grant;
	int rc = morsel_map(morsel, &opts, &view);

	if (rc)
		return rc;
	rc = morsel_acquire(view, offset - first, bytes, fill ? MORSEL_WRITE : MORSEL_READ, &grant);
	if (!rc) {
		rc = move_parts(carry, grant.addr, position, bytes, fill);
		morsel_release(&grant);
	}
	morsel_view_destroy(view);
	return rc;
}

/* ---- the carrier ---- */

static int move(struct carry *carry, struct morsel *morsel, uint64_t offset, uint64_t position,
		uint64_t bytes, bool fill)
{
	struct morsel_info info = {.size = sizeof(info)};
	bool last;
	int rc;

	if (position > carry->room || bytes > carry->room - position)
		return morsel_fail(-ENOSPC,
				   "%s has room for a file of %" PRIu64 " bytes, not for %" PRIu64,
				   carry->name, carry->room, position + bytes);
	if (!bytes)
		return 0;
	rc = morsel_info(morsel, &info);
	if (rc)
		return rc;
	last = offset + bytes == info.bytes;
	if (offset % PAGE || (carry->at + position) % carry->block ||
	    (bytes % carry->block && !last))
		return move_copied(carry, morsel, offset, position, bytes, fill);
	return move_straight(carry, morsel, offset, position, bytes, fill);
}

static int fill(void *ctx, struct morsel *morsel, uint64_t offset, uint64_t position,
		uint64_t bytes)
{
	return move(ctx, morsel, offset, position, bytes, true);
}

static int drain(void *ctx, struct morsel *morsel, uint64_t offset, uint64_t position,
		 uint64_t bytes)
{
	return move(ctx, morsel, offset, position, bytes, false);
}

static int look(void *ctx, uint64_t position, void *buffer, size_t bytes)
{
	return move_parts(ctx, buffer, position, bytes, true);
}

/* The half is durable before the head says that it is the file. */
static int finish(void *ctx, uint64_t bytes)
{
	struct carry *carry = ctx;
	struct morsel_nvme_place *place = carry->place;
	int rc = morsel_nvme_flush(carry->nvme, place->ns);

	place->file_bytes = bytes;
	if (rc || !(place->flags & MORSEL_NVME_KEPT))
		return rc;
	rc = use_buffer(carry);
	if (rc)
		return rc;
	mrs_kept_make(carry->buffer.memory, carry->serial + 1, bytes, place->bytes);
	rc = move_buffer(carry, MORSEL_NVME_WRITE,
			 place->position + carry->half * (uint64_t)NVME_HEAD_BYTES,
			 NVME_HEAD_BYTES);
	return rc ? rc : morsel_nvme_flush(carry->nvme, place->ns);
}

static struct morsel_carrier_ops ops_of(const struct carry *carry)
{
	return (struct morsel_carrier_ops){.size = sizeof(struct morsel_carrier_ops),
					   .version = MORSEL_CARRIER_VERSION,
					   .name = carry->name,
					   .fill = fill,
					   .read = look,
					   .drain = drain,
					   .finish = finish};
}

/* ---- places ---- */

static int check_place(struct carry *carry, uint64_t device_bytes)
{
	struct morsel_nvme_place *place = carry->place;

	if (place->size != sizeof(*place) || place->flags & ~(uint32_t)MORSEL_NVME_KEPT)
		return morsel_fail(-EINVAL, "a place with flags 0x%x, of another version?",
				   place->flags);
	if (place->position % carry->block || place->position > device_bytes ||
	    place->bytes > device_bytes - place->position)
		return morsel_fail(-EINVAL,
				   "%" PRIu64 " bytes from byte %" PRIu64
				   " on: namespace %u has %" PRIu64 " bytes, in blocks of %u",
				   place->bytes, place->position, place->ns, device_bytes,
				   carry->block);
	if (!place->bytes)
		place->bytes = device_bytes - place->position;
	return 0;
}

/* Which half is the file, or -1; reads the heads. */
static int read_heads(struct carry *carry, struct mrs_kept_head *head, int *half)
{
	int rc = use_buffer(carry);

	if (rc)
		return rc;
	if (mrs_kept_half_bytes(carry->place->bytes) == 0)
		return morsel_fail(-ENOSPC, "%s: a place of %" PRIu64 " bytes keeps no file",
				   carry->name, carry->place->bytes);
	rc = move_buffer(carry, MORSEL_NVME_READ, carry->place->position, 2 * NVME_HEAD_BYTES);
	if (!rc)
		*half = mrs_kept_newest(carry->buffer.memory, carry->place->bytes, head);
	return rc;
}

static int open_kept(struct carry *carry, bool fill)
{
	struct morsel_nvme_place *place = carry->place;
	struct mrs_kept_head head = {0};
	int half = -1, rc = read_heads(carry, &head, &half);

	if (rc)
		return rc;
	if (fill && half < 0)
		return morsel_fail(-ENODATA,
				   "%s keeps no file: export one there, or say how many raw "
				   "bytes it has",
				   carry->name);
	carry->serial = head.serial;
	carry->half = half < 0 ? 0 : fill ? (unsigned)half : !half;
	carry->at = place->position + mrs_kept_half_at(place->bytes, carry->half);
	carry->room = fill ? head.bytes : mrs_kept_half_bytes(place->bytes);
	place->file_bytes = fill ? head.bytes : 0;
	return 0;
}

static int begin(struct carry *carry, bool fill)
{
	struct morsel_nvme_place *place = carry->place;
	struct mrs_nvme_geometry geometry;
	int rc;

	if (!place->ns)
		place->ns = 1;
	place->bytes_moved = place->bytes_copied = place->file_bytes = 0;
	rc = mrs_nvme_geometry(carry->nvme, place->ns, &geometry);
	if (rc)
		return rc;
	carry->block = geometry.block_bytes;
	snprintf(carry->name, sizeof(carry->name), "namespace %u of NVMe controller %s", place->ns,
		 carry->nvme->port.name);
	if (carry->block > PAGE)
		return morsel_fail(-EOPNOTSUPP,
				   "%s has blocks of %u bytes; 4096 are the most that "
				   "files are carried in",
				   carry->name, carry->block);
	rc = check_place(carry, geometry.blocks * geometry.block_bytes);
	if (rc)
		return rc;
	carry->at = place->position;
	carry->room = place->bytes;
	if (place->flags & MORSEL_NVME_KEPT)
		return open_kept(carry, fill);
	place->file_bytes = fill ? place->bytes : 0;
	return 0;
}

static void end(struct carry *carry)
{
	if (carry->buffer.memory)
		carry->nvme->port.put(carry->nvme->port.ctx, &carry->buffer);
}

int morsel_nvme_import(struct morsel_pool *pool, const char *name, struct morsel_nvme *nvme,
		       struct morsel_nvme_place *place, const struct morsel_opts *opts,
		       struct morsel **morsel)
{
	struct carry carry = {.nvme = nvme, .place = place};
	struct morsel_carrier_ops ops;
	int rc = begin(&carry, true);

	if (!rc) {
		ops = ops_of(&carry);
		rc = morsel_import_by(pool, name, &ops, &carry, place->file_bytes, opts, morsel);
	}
	end(&carry);
	return rc;
}

int morsel_nvme_export(struct morsel *morsel, struct morsel_nvme *nvme,
		       struct morsel_nvme_place *place, const struct morsel_opts *opts)
{
	struct carry carry = {.nvme = nvme, .place = place};
	struct morsel_carrier_ops ops;
	int rc = begin(&carry, false);

	if (!rc) {
		ops = ops_of(&carry);
		rc = morsel_export_by(morsel, &ops, &carry, opts, NULL);
	}
	end(&carry);
	return rc;
}

int morsel_nvme_look(struct morsel_nvme *nvme, struct morsel_nvme_place *place)
{
	struct carry carry = {.nvme = nvme, .place = place};
	int rc;

	place->flags |= MORSEL_NVME_KEPT;
	rc = begin(&carry, true);
	end(&carry);
	return rc;
}
