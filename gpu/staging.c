/*
 * Between the pool's frames and the device: memory of the host that a transfer may take its time
 * over. Pages are read from and written to the pool's file at their frames, before and after; so a
 * transfer under way touches no memory that could be evicted.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "room.h"

#define SMALL_BYTES (64ull << 10)

/* ---- blocks ---- */

static struct gpu_block *block_find(struct gpu_view *view, uint64_t room)
{
	struct gpu_block **link = &view->blocks, *block;

	pthread_mutex_lock(&view->lock);
	while (*link && (*link)->room != room)
		link = &(*link)->next;
	block = *link;
	if (block)
		*link = block->next;
	pthread_mutex_unlock(&view->lock);
	return block;
}

struct gpu_block *mrs_cl_block_get(struct gpu_view *view, uint64_t bytes)
{
	uint64_t room = bytes <= SMALL_BYTES ? SMALL_BYTES : GPU_BLOCK_BYTES;
	struct gpu_block *block = block_find(view, room);

	if (!block) {
		block = calloc(1, sizeof(*block));
		if (block && posix_memalign((void **)&block->bytes, PAGE_BYTES, room)) {
			free(block);
			block = NULL;
		}
	}
	if (!block) {
		morsel_fail(-ENOMEM, "no memory for a transfer of %llu bytes",
			    (unsigned long long)bytes);
		return NULL;
	}
	block->next = NULL;
	block->room = room;
	block->used = 0;
	return block;
}

void mrs_cl_block_put(struct gpu_view *view, struct gpu_block *blocks)
{
	pthread_mutex_lock(&view->lock);
	while (blocks) {
		struct gpu_block *block = blocks;

		blocks = block->next;
		block->next = view->blocks;
		view->blocks = block;
	}
	pthread_mutex_unlock(&view->lock);
}

void mrs_cl_block_free_all(struct gpu_view *view)
{
	while (view->blocks) {
		struct gpu_block *block = view->blocks;

		view->blocks = block->next;
		free(block->bytes);
		free(block);
	}
}

/* ---- the pool's file ---- */

static int transfer(struct morsel_target *target, off_t at, void *to, const void *from,
		    size_t bytes)
{
	while (bytes) {
		ssize_t n =
			to ? pread(target->fd, to, bytes, at) : pwrite(target->fd, from, bytes, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return morsel_fail(n ? -errno : -EIO, "%s the pool's file at %lld: %s",
					   to ? "reading" : "writing", (long long)at,
					   n ? strerror(errno) : "it ends there");
		at += n;
		bytes -= (size_t)n;
		to = to ? (char *)to + n : NULL;
		from = from ? (const char *)from + n : NULL;
	}
	return 0;
}

/* How many bytes from offset on lie on frames side by side; *at where in the file. 0: no frame. */
static uint64_t piece(const struct gpu_view *view, uint64_t offset, uint64_t end, off_t *at)
{
	uint64_t page = offset / PAGE_BYTES, frame = view->pages[page].frame;
	uint64_t reach = (page + 1) * PAGE_BYTES;

	if (!frame)
		return 0;
	*at = (off_t)((frame - 1) * PAGE_BYTES + offset % PAGE_BYTES);
	while (reach < end && view->pages[reach / PAGE_BYTES].frame == ++frame)
		reach += PAGE_BYTES;
	return gpu_min(reach, end) - offset;
}

static int each_piece(struct morsel_target *target, uint64_t offset, char *to, const char *from,
		      uint64_t bytes)
{
	struct gpu_view *view = target->state;
	uint64_t end = offset + bytes;
	int rc = 0;

	while (offset < end && !rc) {
		off_t at = 0;
		uint64_t n = piece(view, offset, end, &at);

		if (!n)
			return morsel_fail(-EFAULT, "page %llu of the view has no translation",
					   (unsigned long long)(offset / PAGE_BYTES));
		if (to && (uint64_t)at + n <= view->window_bytes)
			memcpy(to, view->window + at, n);
		else
			rc = transfer(target, at, to, from, n);
		offset += n;
		to = to ? to + n : NULL;
		from = from ? from + n : NULL;
	}
	return rc;
}

int mrs_cl_pool_read(struct morsel_target *target, uint64_t offset, void *to, uint64_t bytes)
{
	return each_piece(target, offset, to, NULL, bytes);
}

int mrs_cl_pool_write(struct morsel_target *target, uint64_t offset, const void *from,
		      uint64_t bytes)
{
	return each_piece(target, offset, NULL, from, bytes);
}

/* ---- checksums ---- */

#define LANES 8u

/*
 * Eight lanes of multiply and rotate, one step for each word: for one word of a lane every step is
 * a bijection, so that a page that differs in one word differs in its checksum. Lanes keep the
 * multiplier busy.
 */
uint64_t mrs_cl_checksum(const void *page)
{
	const uint64_t odd = 0x9fb21c651e98df25u;
	uint64_t lane[LANES] = {1, 2, 3, 4, 5, 6, 7, 8}, sum = PAGE_BYTES, word[LANES];

	for (uint64_t at = 0; at < PAGE_BYTES; at += sizeof(word)) {
		memcpy(word, (const char *)page + at, sizeof(word));
		for (unsigned i = 0; i < LANES; i++) {
			lane[i] = (lane[i] ^ word[i]) * odd;
			lane[i] = lane[i] << 29 | lane[i] >> 35;
		}
	}
	for (unsigned i = 0; i < LANES; i++) {
		sum = (sum ^ lane[i]) * odd;
		sum ^= sum >> 32;
	}
	return sum ? sum : 1;
}
