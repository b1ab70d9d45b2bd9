/*
 * OpenCL devices as targets, one for each tier. The device reads and writes by commands on what the
 * view has for it: a buffer over the mapping, shared virtual memory, the device's buffers. What has
 * no translation is refused before: a device of software would take a signal there.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "contract/contract.h"
#include "room.h"

/* The device that all tests use; made at the first question. */
static struct morsel_cl cl;
static struct gpu_offer offer;

static int open_device(void)
{
	int rc = cl.context ? 0 : morsel_cl_open(NULL, &cl);

	return rc ? rc : mrs_cl_offer(cl.context, &offer);
}

static uint32_t tier_of(const struct contract_target *target)
{
	for (uint32_t tier = MORSEL_CL_SYSTEM; tier <= MORSEL_CL_COPY; tier++)
		if (!strncmp(target->name, "cl-", 3) &&
		    !strcmp(target->name + 3, morsel_cl_tier_name(tier)))
			return tier;
	return MORSEL_CL_AUTO;
}

const char *contract_cl_missing(const struct contract_target *target)
{
	uint32_t tier = tier_of(target);

	if (!tier)
		return NULL;
	if (open_device())
		return morsel_errormsg();
	return offer.tiers & 1u << tier ? NULL : offer.why_not[tier];
}

static int open_tier(struct morsel *morsel, const struct morsel_map_opts *given, uint32_t tier,
		     struct morsel_view **view)
{
	struct morsel_cl_opts opts = {
		.size = sizeof(opts),
		.tier = tier,
		.access = given->access,
		.offset = given->offset,
		.bytes = given->bytes,
	};
	int rc = open_device();

	return rc ? rc : morsel_cl_view(morsel, cl.context, &opts, view);
}

/* ---- access ---- */

/* A command of the device over the mapping, or over its own memory. Within one page. */
static int command(struct gpu_view *view, uint64_t offset, void *to, const void *from, size_t n)
{
	uint64_t inside = offset;
	cl_mem mem = NULL;
	cl_int code;

	if (view->tier == MORSEL_CL_HOST_POINTER)
		mem = clCreateBuffer(view->context, CL_MEM_USE_HOST_PTR, view->map_bytes,
				     view->base, &code);
	else if (view->tier == MORSEL_CL_COPY)
		mem = mrs_cl_segment(view, offset, &inside);
	if (mem)
		code = to ? clEnqueueReadBuffer(cl.queue, mem, CL_TRUE, inside, n, to, 0, NULL,
						NULL)
			  : clEnqueueWriteBuffer(cl.queue, mem, CL_TRUE, inside, n, from, 0, NULL,
						 NULL);
	else
		code = clEnqueueSVMMemcpy(cl.queue, CL_TRUE,
					  to ? to : (view->svm ? view->svm : view->base) + offset,
					  to ? (view->svm ? view->svm : view->base) + offset : from,
					  n, 0, NULL, NULL);
	if (view->tier == MORSEL_CL_HOST_POINTER && mem)
		clReleaseMemObject(mem);
	return code ? -EIO : 0;
}

/* Can the kernel read the byte for us? Then it is mapped. */
static bool is_mapped(const char *at)
{
	int ends[2];
	bool mapped;

	if (pipe(ends))
		abort();
	mapped = write(ends[1], at, 1) == 1;
	close(ends[0]);
	close(ends[1]);
	return mapped;
}

static int access_page(struct gpu_view *view, uint64_t offset, void *to, const void *from, size_t n)
{
	if (gpu_is_copying(view) ? !view->pages[offset / PAGE].frame
				 : !is_mapped(view->base + offset))
		return -EFAULT;
	return command(view, offset, to, from, n);
}

static int access_range(struct morsel_view *v, uint64_t offset, char *to, const char *from,
			uint64_t bytes)
{
	struct gpu_view *view = mrs_cl_view_of(v);
	int rc = from && !(morsel_view_target(v)->access & MORSEL_WRITE) ? -EACCES : 0;

	while (bytes && !rc) {
		uint64_t part = PAGE - offset % PAGE < bytes ? PAGE - offset % PAGE : bytes;

		rc = access_page(view, offset, to, from, part);
		offset += part;
		bytes -= part;
		to += to ? part : 0;
		from += from ? part : 0;
	}
	return rc;
}

static int cl_peek(struct morsel_view *view, uint64_t offset, void *buffer, uint64_t bytes)
{
	return access_range(view, offset, buffer, NULL, bytes);
}

static int cl_poke(struct morsel_view *view, uint64_t offset, const void *buffer, uint64_t bytes)
{
	return access_range(view, offset, NULL, buffer, bytes);
}

#define TIER(symbol, text, number)                                                          \
	static int open_##symbol(struct morsel *morsel, const struct morsel_map_opts *opts, \
				 struct morsel_view **view)                                 \
	{                                                                                   \
		return open_tier(morsel, opts, number, view);                               \
	}                                                                                   \
	const struct contract_target contract_cl_##symbol = {                               \
		.name = text,                                                               \
		.flags = MORSEL_SCATTERED,                                                  \
		.pages = MORSEL_PAGES_4K,                                                   \
		.open = open_##symbol,                                                      \
		.peek = cl_peek,                                                            \
		.poke = cl_poke,                                                            \
		.in_child = &contract_software,                                             \
	}

TIER(system, "cl-system", MORSEL_CL_SYSTEM);
TIER(host_pointer, "cl-host-pointer", MORSEL_CL_HOST_POINTER);
TIER(svm, "cl-svm", MORSEL_CL_SVM);
TIER(copy, "cl-copy", MORSEL_CL_COPY);
