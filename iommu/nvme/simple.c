/*
 * The simple calls: a range, cut into commands of which several are in flight, until all are done.
 *
 * They use a queue of their own, one call at a time; where the controller has no queue to spare
 * they share the first one, and whoever polls it ends their commands too (struct mrs_nvme_slot.fn).
 * What a reset has ended is submitted once more: reading and writing the same again does no harm
 * while nobody else writes there.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/internal.h"

#define GRANT_BYTES ((uint64_t)32 << 20) /* of a view, at a time */
#define TRIES	    2

/* A range of the device and the memory for it, as a list of commands. */
struct transfer {
	struct morsel_nvme *nvme;
	struct mrs_nvme_queue *queue;
	struct morsel_nvme_io io; /* of every command: op, ns, flags */
	uint32_t block_bytes;
	uint64_t left;	/* blocks not submitted */
	uint64_t block; /* the next */
	const struct morsel_nvme_piece *pieces;
	unsigned count;
	uint64_t skip; /* bytes of pieces[0] that are done */

	/* Changed by ended(), under the queue's lock. */
	uint32_t flying;
	int rc;
	uint32_t status;
};

static void ended(void *user, int rc, uint32_t status)
{
	struct transfer *transfer = user;

	if (rc && !transfer->rc) {
		transfer->rc = rc;
		transfer->status = status;
	}
	transfer->flying--;
}

#define PIECES_MAX 256

/*
 * The next command's memory: up to bytes of the pieces, joined where they neighbour. Ends at a page
 * where only PRPs are to be had and what follows is elsewhere. Returns its bytes.
 */
static uint64_t cut(struct transfer *transfer, uint64_t bytes, struct morsel_nvme_piece cut[],
		    unsigned *count)
{
	uint64_t done = 0;

	*count = 0;
	while (done < bytes && transfer->count && *count < PIECES_MAX) {
		const struct morsel_nvme_piece *piece = transfer->pieces;
		uint64_t iova = piece->iova + transfer->skip, part = piece->bytes - transfer->skip;
		struct morsel_nvme_piece *last = *count ? &cut[*count - 1] : NULL;

		if (part > bytes - done)
			part = bytes - done;
		if (last && last->iova + last->bytes == iova) {
			last->bytes += part;
		} else {
			cut[*count] = (struct morsel_nvme_piece){iova, part};
			if (!transfer->nvme->identity.sgl &&
			    !mrs_nvme_prp_fits(cut, *count + 1, transfer->nvme->page_bytes) &&
			    *count)
				break;
			++*count;
		}
		done += part;
		transfer->skip += part;
		if (transfer->skip == piece->bytes) {
			transfer->pieces++;
			transfer->count--;
			transfer->skip = 0;
		}
	}
	return done;
}

/* What the next command is for, from the state of the transfer; 0 or an error in words. */
static int next_io(struct transfer *transfer, struct morsel_nvme_io *io,
		   struct morsel_nvme_piece pieces[])
{
	uint64_t blocks = transfer->left, bytes;

	*io = transfer->io;
	io->block = transfer->block;
	io->user = transfer;
	if (io->op != MORSEL_NVME_READ && io->op != MORSEL_NVME_WRITE) {
		io->blocks = blocks < 65536 ? (uint32_t)blocks : 65536;
		return 0;
	}
	if (blocks > transfer->nvme->transfer_max / transfer->block_bytes)
		blocks = transfer->nvme->transfer_max / transfer->block_bytes;
	if (blocks > 65536)
		blocks = 65536;
	bytes = cut(transfer, blocks * transfer->block_bytes, pieces, &io->count);
	if (bytes % transfer->block_bytes || !bytes)
		return morsel_fail(-EINVAL,
				   "pieces of memory that are no whole blocks of %u bytes need a "
				   "controller that takes SGLs",
				   transfer->block_bytes);
	io->blocks = (uint32_t)(bytes / transfer->block_bytes);
	io->pieces = pieces;
	return 0;
}

static bool is_over(struct transfer *transfer)
{
	bool over;

	pthread_mutex_lock(&transfer->queue->lock);
	over = !transfer->flying;
	pthread_mutex_unlock(&transfer->queue->lock);
	return over;
}

static void count_flying(struct transfer *transfer, int by)
{
	pthread_mutex_lock(&transfer->queue->lock);
	transfer->flying = (uint32_t)((int)transfer->flying + by);
	pthread_mutex_unlock(&transfer->queue->lock);
}

static int run(struct transfer *transfer)
{
	struct morsel_nvme_piece pieces[PIECES_MAX];
	struct morsel_nvme_io io;
	int rc = 0;

	while (transfer->left && !rc && !transfer->rc) {
		rc = next_io(transfer, &io, pieces);
		while (!rc) {
			count_flying(transfer, 1);
			rc = mrs_nvme_submit(transfer->nvme, transfer->queue, &io, ended);
			if (!rc)
				break;
			count_flying(transfer, -1);
			if (rc == -EAGAIN) {
				mrs_nvme_poll(transfer->nvme, transfer->queue, NULL, 0, UINT64_MAX);
				rc = 0;
			}
		}
		if (rc)
			break;
		transfer->left -= io.op == MORSEL_NVME_FLUSH ? transfer->left : io.blocks;
		transfer->block += io.blocks;
	}
	while (!is_over(transfer))
		mrs_nvme_poll(transfer->nvme, transfer->queue, NULL, 0, UINT64_MAX);
	return rc ? rc : transfer->rc;
}

static const char *op_words(uint32_t op)
{
	static const char *const words[] = {"?",	"reading", "writing",
					    "flushing", "zeroing", "deallocating"};

	return words[op];
}

static int failed(const struct transfer *transfer, uint64_t position, uint64_t bytes)
{
	const char *why = transfer->status	       ? morsel_nvme_status_words(transfer->status)
			  : transfer->rc == -ETIMEDOUT ? "it did not answer in time"
			  : transfer->rc == -ECANCELED ? "it was reset meanwhile"
						       : "it is gone";

	return morsel_fail(transfer->rc,
			   "%s %" PRIu64 " bytes at byte %" PRIu64 " of namespace %u of the NVMe "
			   "controller %s: %s",
			   op_words(transfer->io.op), bytes, position, transfer->io.ns,
			   transfer->nvme->port.name, why);
}

static int go(struct morsel_nvme *nvme, uint32_t op, uint32_t ns, uint64_t position, uint64_t bytes,
	      const struct morsel_nvme_piece *pieces, unsigned count)
{
	struct mrs_nvme_geometry geometry;
	struct transfer transfer;
	int rc = mrs_nvme_alive(nvme);

	if (!rc)
		rc = mrs_nvme_geometry(nvme, ns, &geometry);
	if (rc)
		return rc;
	if (position % geometry.block_bytes || bytes % geometry.block_bytes)
		return morsel_fail(-EINVAL,
				   "%" PRIu64 " bytes at byte %" PRIu64
				   ": whole blocks of %u bytes are "
				   "wanted",
				   bytes, position, geometry.block_bytes);
	pthread_mutex_lock(&nvme->simple);
	for (unsigned i = 0; i < TRIES; i++) {
		transfer = (struct transfer){
			.nvme = nvme,
			.queue = &nvme->queue[nvme->queues_made - 1],
			.io = {.op = op, .ns = ns},
			.block_bytes = geometry.block_bytes,
			.left = op == MORSEL_NVME_FLUSH ? 1 : bytes / geometry.block_bytes,
			.block = position / geometry.block_bytes,
			.pieces = pieces,
			.count = count};
		rc = run(&transfer);
		if (transfer.rc != -ECANCELED && transfer.rc != -ETIMEDOUT)
			break;
	}
	pthread_mutex_unlock(&nvme->simple);
	return transfer.rc ? failed(&transfer, position, bytes) : rc;
}

int mrs_nvme_transfer(struct morsel_nvme *nvme, uint32_t op, uint32_t ns, uint64_t position,
		      const struct morsel_nvme_piece *pieces, unsigned count)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < count; i++)
		bytes += pieces[i].bytes;
	return go(nvme, op, ns, position, bytes, pieces, count);
}

/* Grants of a view, one after the other: a view may be larger than what can be held at once. */
static int move_view(struct morsel_nvme *nvme, uint32_t op, uint32_t ns, uint64_t position,
		     struct morsel_view *view, uint64_t offset, uint64_t bytes)
{
	int access = op == MORSEL_NVME_READ ? MORSEL_WRITE : MORSEL_READ, rc = 0;

	for (uint64_t done = 0; done < bytes && !rc;) {
		uint64_t part = bytes - done < GRANT_BYTES ? bytes - done : GRANT_BYTES;
		struct morsel_nvme_piece piece;
		struct morsel_grant grant;

		rc = morsel_acquire(view, offset + done, part, access, &grant);
		if (rc)
			break;
		piece = (struct morsel_nvme_piece){grant.iova, part};
		rc = mrs_nvme_transfer(nvme, op, ns, position + done, &piece, 1);
		morsel_release(&grant);
		done += part;
	}
	return rc;
}

int morsel_nvme_read(struct morsel_nvme *nvme, uint32_t ns, uint64_t position,
		     struct morsel_view *view, uint64_t view_offset, uint64_t bytes)
{
	return move_view(nvme, MORSEL_NVME_READ, ns, position, view, view_offset, bytes);
}

int morsel_nvme_write(struct morsel_nvme *nvme, uint32_t ns, uint64_t position,
		      struct morsel_view *view, uint64_t view_offset, uint64_t bytes)
{
	return move_view(nvme, MORSEL_NVME_WRITE, ns, position, view, view_offset, bytes);
}

int morsel_nvme_flush(struct morsel_nvme *nvme, uint32_t ns)
{
	return go(nvme, MORSEL_NVME_FLUSH, ns, 0, 0, NULL, 0);
}

int morsel_nvme_zero(struct morsel_nvme *nvme, uint32_t ns, uint64_t position, uint64_t bytes)
{
	return go(nvme, MORSEL_NVME_ZERO, ns, position, bytes, NULL, 0);
}

int morsel_nvme_deallocate(struct morsel_nvme *nvme, uint32_t ns, uint64_t position, uint64_t bytes)
{
	return go(nvme, MORSEL_NVME_DEALLOCATE, ns, position, bytes, NULL, 0);
}
