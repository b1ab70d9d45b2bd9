/*
 * Building PRPs and SGLs; see pointer.h.
 */
#include "nvme/pointer.h"

#include <errno.h>
#include <string.h>

#include <morsel/view.h>

static uint64_t pages_of(uint64_t iova, uint64_t bytes, uint64_t page_bytes)
{
	return ((iova & (page_bytes - 1)) + bytes + page_bytes - 1) / page_bytes;
}

uint64_t mrs_nvme_prp_list_bytes(uint64_t bytes, uint64_t page_bytes)
{
	uint64_t entries = bytes / page_bytes + 1; /* beside PRP1, however it is aligned */
	uint64_t per_page = page_bytes / 8 - 1;	   /* beside the pointer to the next */

	return (entries + per_page - 1) / per_page * page_bytes;
}

bool mrs_nvme_prp_fits(const struct morsel_nvme_piece *pieces, unsigned count, uint64_t page_bytes)
{
	for (unsigned i = 0; i < count; i++)
		if ((i && pieces[i].iova % page_bytes) ||
		    (i + 1 < count && (pieces[i].iova + pieces[i].bytes) % page_bytes))
			return false;
	return true;
}

static int check(const struct morsel_nvme_piece *pieces, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (pieces[i].iova % 4 || pieces[i].bytes % 4 || !pieces[i].bytes ||
		    pieces[i].iova + pieces[i].bytes < pieces[i].iova)
			return morsel_fail(-EINVAL,
					   "piece %u of the command's memory, 0x%llx bytes at IOVA "
					   "0x%llx: whole words of 4 bytes are wanted",
					   i, (unsigned long long)pieces[i].bytes,
					   (unsigned long long)pieces[i].iova);
	return 0;
}

static int too_long(const struct mrs_nvme_list *list, const char *what, uint64_t wanted)
{
	return morsel_fail(-E2BIG,
			   "the command's memory needs %llu bytes of %s, of which there are %llu: "
			   "submit it in smaller commands",
			   (unsigned long long)wanted, what, (unsigned long long)list->bytes);
}

/* Where the next entry of a PRP list goes. */
struct prp_writer {
	const struct mrs_nvme_list *list;
	uint64_t page_bytes;
	uint64_t at;   /* bytes into the list */
	uint64_t left; /* entries that are to come */
};

static void prp_add(struct prp_writer *writer, uint64_t entry)
{
	uint64_t *memory = writer->list->memory;

	/* The last entry of a page is data only if nothing follows. */
	if ((writer->at + 8) % writer->page_bytes == 0 && writer->left > 1) {
		memory[writer->at / 8] = writer->list->iova + writer->at + 8;
		writer->at += 8;
	}
	memory[writer->at / 8] = entry;
	writer->at += 8;
	writer->left--;
}

int mrs_nvme_prp(struct mrs_nvme_sqe *sqe, const struct morsel_nvme_piece *pieces, unsigned count,
		 uint64_t page_bytes, const struct mrs_nvme_list *list)
{
	struct prp_writer writer = {.list = list, .page_bytes = page_bytes};
	uint64_t pages = 0, per_page = page_bytes / 8 - 1, wanted;
	bool first = true;
	int rc = check(pieces, count);

	if (rc)
		return rc;
	if (!mrs_nvme_prp_fits(pieces, count, page_bytes))
		return morsel_fail(
			-EINVAL,
			"PRPs want every piece but the first to begin, and every one but "
			"the last to end, at a page of %llu bytes: ask for an SGL",
			(unsigned long long)page_bytes);
	for (unsigned i = 0; i < count; i++)
		pages += pages_of(pieces[i].iova, pieces[i].bytes, page_bytes);
	writer.left = pages - 1;
	/* The last page of the list needs no pointer to a next one. */
	wanted = pages > 2 ? (pages - 1 + (pages - 3) / per_page) * 8 : 0;
	if (wanted > list->bytes)
		return too_long(list, "PRP list", wanted);
	sqe->dptr[1] = 0;
	for (unsigned i = 0; i < count; i++) {
		uint64_t end = pieces[i].iova + pieces[i].bytes;

		for (uint64_t at = pieces[i].iova; at < end;
		     at = (at & ~(page_bytes - 1)) + page_bytes) {
			if (first)
				sqe->dptr[0] = at;
			else if (pages == 2)
				sqe->dptr[1] = at;
			else
				prp_add(&writer, at);
			first = false;
		}
	}
	if (pages > 2)
		sqe->dptr[1] = list->iova;
	return 0;
}

/* A piece longer than a descriptor can say becomes several. */
#define SGL_BYTES_MAX ((uint64_t)1 << 31)

/* Fills list entries, neighbours joined; returns how many there are, also if they do not fit. */
static uint64_t sgl_fill(const struct morsel_nvme_piece *pieces, unsigned count,
			 struct mrs_nvme_sgl *entry, uint64_t room)
{
	uint64_t used = 0, end = 0, bytes = 0;

	for (unsigned i = 0; i < count; i++) {
		for (uint64_t done = 0; done < pieces[i].bytes;) {
			uint64_t part = pieces[i].bytes - done, iova = pieces[i].iova + done;

			if (part > SGL_BYTES_MAX)
				part = SGL_BYTES_MAX;
			if (used && iova == end && bytes + part <= SGL_BYTES_MAX) {
				bytes += part;
			} else {
				used++;
				bytes = part;
				if (used <= room)
					entry[used - 1] = (struct mrs_nvme_sgl){
						.address = iova, .type = NVME_SGL_DATA};
			}
			if (used <= room)
				entry[used - 1].bytes = (uint32_t)bytes;
			end = iova + part;
			done += part;
		}
	}
	return used;
}

int mrs_nvme_sgl(struct mrs_nvme_sqe *sqe, const struct morsel_nvme_piece *pieces, unsigned count,
		 const struct mrs_nvme_list *list)
{
	struct mrs_nvme_sgl one;
	uint64_t room = list->bytes / sizeof(one), used;
	int rc = check(pieces, count);

	if (rc)
		return rc;
	used = sgl_fill(pieces, count, list->memory, room);
	if (used > room)
		return too_long(list, "SGL", used * sizeof(one));
	if (used == 1)
		memcpy(&one, list->memory, sizeof(one));
	else
		one = (struct mrs_nvme_sgl){.address = list->iova,
					    .bytes = (uint32_t)(used * sizeof(one)),
					    .type = NVME_SGL_LAST_SEGMENT};
	memcpy(sqe->dptr, &one, sizeof(one));
	sqe->flags |= NVME_PSDT_SGL;
	return 0;
}
