/*
 * The tiers that show the pool's memory itself: a mapping of the morsel's runs, side by side, whose
 * addresses the device gets as they are (system) or as buffers (host-pointer).
 *
 * A buffer is made over the whole pages of a grant, which are mapped and stay so while it is held:
 * a driver may pin them. It is kept for the next grant of the same pages until one of them is
 * invalidated; a buffer in use covers exactly pages that are granted, and the core invalidates none
 * of those. So no driver holds what it was told to forget.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "room.h"

#define HUGE_BYTES   (2ull << 20)
#define BUFFERS_IDLE 64u

struct gpu_buffer {
	struct gpu_buffer *next;
	uint64_t first, end; /* pages */
	bool writable;
	uint32_t users;
	cl_mem mem;
};

/* ---- the mapping ---- */

static int map_run(struct morsel_target *target, struct gpu_view *view,
		   const struct morsel_run *run)
{
	int prot = target->access & MORSEL_WRITE ? PROT_READ | PROT_WRITE : PROT_READ;
	char *at = view->base + run->offset;

	if (mmap(at, run->bytes, prot, MAP_SHARED | MAP_FIXED, target->fd,
		 (off_t)(run->frame * PAGE_BYTES)) == MAP_FAILED)
		return morsel_fail(
			-errno,
			"mapping a run for the device: %s (vm.max_map_count limits how many "
			"there can be; a morsel of one run needs one)",
			strerror(errno));
	if (madvise(at, run->bytes, MADV_DONTFORK) && errno != EINVAL)
		return morsel_fail(-errno, "madvise(DONTFORK): %s", strerror(errno));
	return 0;
}

/*
 * Where the addresses of the view begin: the large runs then lie as the kernel's huge pages need
 * it, and pools of hugetlbfs can be mapped at all.
 */
static uint64_t phase_of(const struct morsel_run *runs, size_t n)
{
	const struct morsel_run *largest = n ? &runs[0] : NULL;

	for (size_t i = 1; i < n; i++)
		if (runs[i].bytes > largest->bytes)
			largest = &runs[i];
	return largest ? (largest->frame * PAGE_BYTES - largest->offset) & (HUGE_BYTES - 1) : 0;
}

static int reserve(struct gpu_view *view, uint64_t bytes, uint64_t phase)
{
	uintptr_t start;

	view->map_bytes = bytes + 2 * HUGE_BYTES;
	view->map_base = mmap(NULL, view->map_bytes, PROT_NONE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (view->map_base == MAP_FAILED) {
		view->map_base = NULL;
		return morsel_fail(-ENOMEM, "no address space for a view of %llu bytes",
				   (unsigned long long)bytes);
	}
	start = ((uintptr_t)view->map_base + HUGE_BYTES - 1) & ~(uintptr_t)(HUGE_BYTES - 1);
	view->base = (char *)(start + phase);
	return 0;
}

int mrs_cl_shared_map(struct morsel_target *target, const struct morsel_run *runs, size_t n)
{
	struct gpu_view *view = target->device;
	bool first = !target->state;
	int rc = 0;

	if (first)
		rc = reserve(view, target->bytes, phase_of(runs, n));
	for (size_t i = 0; !rc && i < n; i++)
		rc = map_run(target, view, &runs[i]);
	if (!first)
		return rc;
	if (rc) {
		mrs_cl_shared_destroy(view);
		return rc;
	}
	mrs_cl_view_get(view);
	target->state = view;
	return 0;
}

/* ---- buffers ---- */

static void buffer_free(struct gpu_view *view, struct gpu_buffer **link)
{
	struct gpu_buffer *buffer = *link;

	*link = buffer->next;
	clReleaseMemObject(buffer->mem);
	free(buffer);
	view->buffers_idle--;
}

/* Lets go of idle buffers over any of the pages; the oldest stand last. */
static void forget_buffers(struct gpu_view *view, uint64_t first, uint64_t end)
{
	struct gpu_buffer **link = &view->buffers;

	while (*link) {
		struct gpu_buffer *buffer = *link;

		if (!buffer->users && buffer->first < end && first < buffer->end)
			buffer_free(view, link);
		else
			link = &buffer->next;
	}
}

static void trim_buffers(struct gpu_view *view)
{
	struct gpu_buffer **link = &view->buffers, **oldest = NULL;

	if (view->buffers_idle <= BUFFERS_IDLE)
		return;
	for (; *link; link = &(*link)->next)
		if (!(*link)->users)
			oldest = link;
	if (oldest)
		buffer_free(view, oldest);
}

int mrs_cl_shared_invalidate(struct morsel_target *target, uint64_t offset, uint64_t bytes)
{
	struct gpu_view *view = target->state;

	forget_buffers(view, offset / PAGE_BYTES, (offset + bytes) / PAGE_BYTES);
	if (mmap(view->base + offset, bytes, PROT_NONE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
		return morsel_fail(-errno, "taking a device's mapping away: %s", strerror(errno));
	return 0;
}

void mrs_cl_shared_destroy(struct gpu_view *view)
{
	for (struct gpu_buffer *buffer = view->buffers; buffer; buffer = buffer->next)
		if (buffer->users) {
			buffer->users = 0;
			view->buffers_idle++;
		}
	forget_buffers(view, 0, UINT64_MAX);
	if (view->map_base)
		munmap(view->map_base, view->map_bytes);
	view->map_base = NULL;
}

static int buffer_make(struct gpu_view *view, uint64_t first, uint64_t end, bool writable,
		       struct gpu_buffer **out)
{
	cl_mem_flags flags =
		CL_MEM_USE_HOST_PTR | (writable ? CL_MEM_READ_WRITE : CL_MEM_READ_ONLY);
	struct gpu_buffer *buffer = calloc(1, sizeof(*buffer));
	cl_int code;

	if (!buffer)
		return morsel_fail(-ENOMEM, "no memory for a buffer");
	*buffer = (struct gpu_buffer){
		.first = first, .end = end, .writable = writable, .next = view->buffers};
	buffer->mem = clCreateBuffer(view->context, flags, (end - first) * PAGE_BYTES,
				     view->base + first * PAGE_BYTES, &code);
	if (!buffer->mem) {
		free(buffer);
		return mrs_cl_fail(code, "tier host-pointer: a buffer on the pool's memory");
	}
	view->buffers = buffer;
	view->buffers_idle++;
	*out = buffer;
	return 0;
}

/* One of exactly these pages, if there is. It comes to the front: what is last is the oldest. */
static struct gpu_buffer *buffer_find(struct gpu_view *view, uint64_t first, uint64_t end,
				      bool writable)
{
	struct gpu_buffer **link = &view->buffers, *buffer;

	while (*link &&
	       ((*link)->first != first || (*link)->end != end || (*link)->writable != writable))
		link = &(*link)->next;
	buffer = *link;
	if (buffer) {
		*link = buffer->next;
		buffer->next = view->buffers;
		view->buffers = buffer;
	}
	return buffer;
}

/* The part of the buffer that is the grant, or the whole and how far in it begins. */
static int cut_buffer(struct gpu_view *view, struct gpu_grant *grant)
{
	struct gpu_buffer *buffer = grant->buffer;
	uint64_t shift = grant->range.start - buffer->first * PAGE_BYTES;
	cl_buffer_region region = {.origin = shift, .size = grant->range.end - grant->range.start};
	cl_int code;

	grant->native.mem = buffer->mem;
	grant->native.shift = shift;
	if (!shift || shift % view->align) {
		clRetainMemObject(buffer->mem);
		return 0;
	}
	grant->native.mem =
		clCreateSubBuffer(buffer->mem, 0, CL_BUFFER_CREATE_TYPE_REGION, &region, &code);
	if (!grant->native.mem)
		return mrs_cl_fail(code, "tier host-pointer: a part of a buffer");
	grant->native.shift = 0;
	return 0;
}

static int native_buffer(struct gpu_view *view, struct gpu_grant *grant)
{
	uint64_t first = gpu_first(grant->range), end = gpu_end(grant->range);
	bool writable = grant->access & MORSEL_WRITE;
	int rc = 0;

	if ((end - first) * PAGE_BYTES > view->alloc_max)
		return morsel_fail(
			-E2BIG,
			"tier host-pointer: a grant of %llu bytes is larger than the device's "
			"largest buffer, %llu: acquire it in parts",
			(unsigned long long)(grant->range.end - grant->range.start),
			(unsigned long long)view->alloc_max);
	grant->buffer = buffer_find(view, first, end, writable);
	if (!grant->buffer)
		rc = buffer_make(view, first, end, writable, &grant->buffer);
	if (rc)
		return rc;
	if (!grant->buffer->users++)
		view->buffers_idle--;
	rc = cut_buffer(view, grant);
	if (rc) {
		grant->native.mem = NULL;
		mrs_cl_shared_release(view, grant);
	}
	return rc;
}

int mrs_cl_shared_native(struct gpu_view *view, struct gpu_grant *grant)
{
	if (view->tier == MORSEL_CL_HOST_POINTER)
		return native_buffer(view, grant);
	grant->native.pointer = view->base + grant->range.start;
	return 0;
}

void mrs_cl_shared_release(struct gpu_view *view, struct gpu_grant *grant)
{
	if (grant->native.mem)
		clReleaseMemObject(grant->native.mem);
	if (!grant->buffer || --grant->buffer->users)
		return;
	view->buffers_idle++;
	trim_buffers(view);
}
