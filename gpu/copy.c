/*
 * The tiers that keep a copy: in buffers of the device, or in shared virtual memory of its own.
 *
 * For each page of the view a mark says what the device has of it: the checksum of what was
 * transferred, or the version that the page had before it was read. A page whose mark does not hold
 * is transferred when it is acquired, as a whole (bring.c). When a grant for writing ends, exactly
 * its range comes back.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "room.h"

/* ---- memory of the device ---- */

static int make_svm(struct gpu_view *view, uint64_t bytes)
{
	cl_svm_mem_flags flags =
		CL_MEM_READ_WRITE | (view->fine ? CL_MEM_SVM_FINE_GRAIN_BUFFER : 0);

	if (bytes > view->alloc_max)
		return morsel_fail(
			-E2BIG,
			"tier svm: the view's %llu bytes are more than the device's largest "
			"allocation, %llu: make views of parts, or use the tier copy",
			(unsigned long long)bytes, (unsigned long long)view->alloc_max);
	view->svm = clSVMAlloc(view->context, flags, bytes, 0);
	if (!view->svm)
		return morsel_fail(
			-ENOMEM, "tier svm: the device has no %llu bytes of shared virtual memory",
			(unsigned long long)bytes);
	return 0;
}

static int make_segments(struct gpu_view *view, uint64_t bytes)
{
	uint64_t largest = view->alloc_max & ~((2ull << 20) - 1);
	uint64_t count;
	cl_int code;

	view->segment_bytes = gpu_min(bytes, largest ? largest : view->alloc_max);
	count = (bytes + view->segment_bytes - 1) / view->segment_bytes;
	view->segments = calloc(count + 1, sizeof(*view->segments));
	if (!view->segments)
		return morsel_fail(-ENOMEM, "no memory for %llu buffers",
				   (unsigned long long)count);
	for (uint64_t i = 0; i < count; i++) {
		uint64_t size = gpu_min(view->segment_bytes, bytes - i * view->segment_bytes);

		view->segments[i] =
			clCreateBuffer(view->context, CL_MEM_READ_WRITE, size, NULL, &code);
		if (!view->segments[i])
			return mrs_cl_fail(code, "tier copy: memory of the device for the view");
	}
	return 0;
}

cl_mem mrs_cl_segment(const struct gpu_view *view, uint64_t offset, uint64_t *inside)
{
	*inside = offset % view->segment_bytes;
	return view->segments[offset / view->segment_bytes];
}

void mrs_cl_copy_destroy(struct gpu_view *view)
{
	/* Nothing is under way afterwards; a wait is for what its grants have waited for, or less.
	 */
	if (view->late)
		clFinish(view->late);
	if (view->queue)
		clFinish(view->queue);
	for (cl_mem *segment = view->segments; segment && *segment; segment++)
		clReleaseMemObject(*segment);
	if (view->svm)
		clSVMFree(view->context, view->svm);
	mrs_cl_forget_flights(view);
	mrs_cl_scatter_free(&view->scatter);
	if (view->window)
		munmap((void *)(uintptr_t)view->window, view->window_bytes);
	view->window = NULL;
	free(view->segments);
	free(view->pages);
	view->segments = NULL;
	view->pages = NULL;
	view->svm = NULL;
}

/*
 * A page is read by a copy instead of a system call. Only what is granted is: it is there, and
 * stays. Without the window everything works.
 */
static void open_window(struct gpu_view *view, int fd)
{
	struct stat stat;
	void *at;

	if (fstat(fd, &stat) || stat.st_size <= 0)
		return;
	at = mmap(NULL, (size_t)stat.st_size, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (at == MAP_FAILED)
		return;
	view->window = at;
	view->window_bytes = (uint64_t)stat.st_size;
	madvise(at, view->window_bytes, MADV_DONTFORK);
	madvise(at, view->window_bytes, MADV_DONTDUMP);
}

static int make_copy(struct gpu_view *view, int fd, uint64_t bytes)
{
	open_window(view, fd);
	view->pages = calloc(bytes / PAGE_BYTES, sizeof(*view->pages));
	if (!view->pages)
		return morsel_fail(-ENOMEM, "no memory for the pages of a view");
	gpu_count(view, bytes_device, bytes);
	return view->tier == MORSEL_CL_SVM ? make_svm(view, bytes) : make_segments(view, bytes);
}

/* ---- translations ---- */

int mrs_cl_copy_map(struct morsel_target *target, const struct morsel_run *runs, size_t n)
{
	struct gpu_view *view = target->device;

	if (!target->state) {
		int rc = make_copy(view, target->fd, target->bytes);

		if (rc) {
			mrs_cl_copy_destroy(view);
			return rc;
		}
		mrs_cl_view_get(view);
		target->state = view;
	}
	for (size_t i = 0; i < n; i++)
		for (uint64_t page = 0; page < runs[i].bytes / PAGE_BYTES; page++)
			view->pages[runs[i].offset / PAGE_BYTES + page].frame =
				runs[i].frame + page + 1;
	return 0;
}

/* The device's copy may be of another frame's content when the page comes back. */
int mrs_cl_copy_invalidate(struct morsel_target *target, uint64_t offset, uint64_t bytes)
{
	struct gpu_view *view = target->state;

	for (uint64_t page = offset / PAGE_BYTES; page < (offset + bytes) / PAGE_BYTES; page++) {
		view->pages[page].frame = 0;
		view->pages[page].mark = 0;
	}
	return 0;
}

/* ---- from the device ---- */

static int fetch(struct gpu_view *view, uint64_t offset, void *to, uint64_t bytes)
{
	uint64_t inside;
	cl_mem mem;
	cl_int code;

	if (view->tier == MORSEL_CL_SVM) {
		code = clEnqueueSVMMemcpy(view->queue, CL_TRUE, to, view->svm + offset, bytes, 0,
					  NULL, NULL);
	} else {
		mem = mrs_cl_segment(view, offset, &inside);
		code = clEnqueueReadBuffer(view->queue, mem, CL_TRUE, inside, bytes, to, 0, NULL,
					   NULL);
	}
	if (code)
		return mrs_cl_fail(code, "a transfer from the device");
	gpu_count(view, transfers, 1);
	gpu_count(view, bytes_from_device, bytes);
	return 0;
}

/* What came back of a page that nobody else writes is what the device has; of others it is unsure.
 */
static void mark_written(struct gpu_view *view, uint64_t offset, const unsigned char *from,
			 uint64_t bytes)
{
	uint64_t end = offset + bytes;

	for (uint64_t page = offset / PAGE_BYTES; page * PAGE_BYTES < end; page++) {
		uint64_t at = page * PAGE_BYTES;
		bool whole = at >= offset && at + PAGE_BYTES <= end;

		view->pages[page].mark = whole && view->pages[page].writers == 1
						 ? mrs_cl_checksum(from + (at - offset))
						 : 0;
	}
}

static int bring_back(struct morsel_target *target, uint64_t offset, uint64_t bytes,
		      struct gpu_block *block)
{
	struct gpu_view *view = target->state;
	uint64_t end = offset + bytes;
	int rc = 0;

	while (offset < end && !rc) {
		uint64_t n = gpu_min(end - offset, block->room);

		/* Pieces end at whole pages: so a page is written back as one. */
		if (n < end - offset)
			n -= (offset + n) % PAGE_BYTES;
		rc = fetch(view, offset, block->bytes, n);
		if (!rc)
			rc = mrs_cl_pool_write(target, offset, block->bytes, n);
		if (!rc && gpu_by_checksum(view))
			mark_written(view, offset, block->bytes, n);
		offset += n;
	}
	return rc;
}

int mrs_cl_from_target(struct morsel_target *target, uint64_t offset, uint64_t bytes)
{
	struct gpu_view *view = target->state;
	struct gpu_request *request = mrs_cl_request();
	struct gpu_range range = {offset, offset + bytes};
	struct gpu_block *block;
	int rc = -EIO;

	block = request && request->failed ? NULL : mrs_cl_block_get(view, bytes);
	if (block)
		rc = bring_back(target, offset, bytes, block);
	if (block)
		mrs_cl_block_put(view, block);
	for (uint64_t page = gpu_first(range); rc && page < gpu_end(range); page++)
		view->pages[page].mark = 0;
	if (rc && request)
		request->failed = true;
	return rc;
}

/* ---- native handles ---- */

static int native_part(struct gpu_view *view, struct gpu_grant *grant)
{
	uint64_t bytes = grant->range.end - grant->range.start, inside;
	cl_mem segment = mrs_cl_segment(view, grant->range.start, &inside);
	cl_buffer_region region = {.origin = inside, .size = bytes};
	cl_int code;

	if (inside + bytes > view->segment_bytes)
		return morsel_fail(
			-E2BIG,
			"tier copy: the grant's %llu bytes lie in two buffers, for the device's "
			"largest has %llu: acquire them in parts, or make a view that begins "
			"at them",
			(unsigned long long)bytes, (unsigned long long)view->segment_bytes);
	grant->native.shift = inside;
	grant->native.mem = segment;
	if (!inside || inside % view->align) {
		clRetainMemObject(segment);
		return 0;
	}
	grant->native.shift = 0;
	grant->native.mem =
		clCreateSubBuffer(segment, 0, CL_BUFFER_CREATE_TYPE_REGION, &region, &code);
	return grant->native.mem ? 0 : mrs_cl_fail(code, "tier copy: a part of a buffer");
}

static int count_writer(struct gpu_view *view, struct gpu_range range)
{
	for (uint64_t page = gpu_first(range); page < gpu_end(range); page++)
		if (view->pages[page].writers == UINT16_MAX)
			return morsel_fail(-EBUSY, "65535 grants write page %llu of the view",
					   (unsigned long long)page);
	for (uint64_t page = gpu_first(range); page < gpu_end(range); page++)
		view->pages[page].writers++;
	return 0;
}

int mrs_cl_copy_native(struct gpu_view *view, struct gpu_grant *grant)
{
	int rc = 0;

	if (view->tier == MORSEL_CL_SVM)
		grant->native.pointer = view->svm + grant->range.start;
	else
		rc = native_part(view, grant);
	if (!rc && grant->access & MORSEL_WRITE)
		rc = count_writer(view, grant->range);
	if (rc && grant->native.mem)
		clReleaseMemObject(grant->native.mem);
	return rc;
}

void mrs_cl_copy_release(struct gpu_view *view, struct gpu_grant *grant)
{
	if (grant->native.mem)
		clReleaseMemObject(grant->native.mem);
	if (!(grant->access & MORSEL_WRITE))
		return;
	for (uint64_t page = gpu_first(grant->range); page < gpu_end(grant->range); page++)
		view->pages[page].writers--;
}
