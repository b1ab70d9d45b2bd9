/*
 * Does a buffer with CL_MEM_USE_HOST_PTR show the host's memory itself? The standard lets a driver
 * copy. So it is tried, both ways, on a page of a memfd, which is what pools are made of: the
 * device writes and the host looks without mapping the buffer; the host writes and the device
 * copies.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#include "room.h"

#define TRIAL_BYTES (2 * PAGE_BYTES)

struct trial {
	cl_context context;
	cl_command_queue queue;
	unsigned char *host;
	cl_mem shared, other;
};

static bool device_writes(struct trial *t)
{
	const unsigned char mark = 0xa7;

	memset(t->host, 0, TRIAL_BYTES);
	if (clEnqueueFillBuffer(t->queue, t->shared, &mark, 1, 0, PAGE_BYTES, 0, NULL, NULL) ||
	    clFinish(t->queue))
		return false;
	return ((volatile unsigned char *)t->host)[100] == mark && !t->host[PAGE_BYTES];
}

static bool host_writes(struct trial *t)
{
	unsigned char seen = 0;

	memset(t->host, 0x5c, TRIAL_BYTES);
	if (clEnqueueCopyBuffer(t->queue, t->shared, t->other, PAGE_BYTES, 0, PAGE_BYTES, 0, NULL,
				NULL) ||
	    clEnqueueReadBuffer(t->queue, t->other, CL_TRUE, 7, 1, &seen, 0, NULL, NULL))
		return false;
	return seen == 0x5c;
}

static bool try_buffers(struct trial *t)
{
	bool same = false;
	cl_int code;

	t->shared = clCreateBuffer(t->context, CL_MEM_READ_WRITE | CL_MEM_USE_HOST_PTR, TRIAL_BYTES,
				   t->host, &code);
	if (!t->shared)
		return false;
	t->other = clCreateBuffer(t->context, CL_MEM_READ_WRITE, TRIAL_BYTES, NULL, &code);
	if (t->other) {
		same = device_writes(t) && host_writes(t);
		clReleaseMemObject(t->other);
	}
	clReleaseMemObject(t->shared);
	return same;
}

static bool is_unified(cl_device_id device)
{
	cl_bool unified = CL_FALSE;

	return !clGetDeviceInfo(device, CL_DEVICE_HOST_UNIFIED_MEMORY, sizeof(unified), &unified,
				NULL) &&
	       unified;
}

bool mrs_cl_trial(cl_context context, cl_device_id device, char *why_not, size_t room)
{
	struct trial t = {.context = context};
	bool same = false;
	int fd;

	if (!is_unified(device)) {
		snprintf(why_not, room, "the device has memory of its own");
		return false;
	}
	fd = memfd_create("morsel-cl-trial", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, TRIAL_BYTES))
		goto close_fd;
	t.host = mmap(NULL, TRIAL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (t.host == MAP_FAILED)
		goto close_fd;
	t.queue = clCreateCommandQueue(context, device, 0, NULL);
	if (t.queue) {
		same = try_buffers(&t);
		clReleaseCommandQueue(t.queue);
	}
	munmap(t.host, TRIAL_BYTES);
close_fd:
	if (fd >= 0)
		close(fd);
	if (!same)
		snprintf(why_not, room, "in a trial a buffer on host memory was a copy");
	return same;
}
