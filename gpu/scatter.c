/*
 * Many pages that lie apart, in two transfers: the pages as they were staged, one behind the other,
 * and the list of where they belong; a kernel puts them there. A command for each page would cost
 * more than the page.
 *
 * Only on the queue that waits for nobody: it is in order, so that one buffer serves every round.
 * Where the driver cannot compile, or has no memory for it, pages go one by one.
 */
#include <stdlib.h>
#include <string.h>

#include "room.h"

#define UNITS_OF_PAGE 64u /* ulong8 */

static const char source[] =
	"kernel void put(global const ulong8 *from, global const uint *page, global ulong8 *to) {\n"
	"	size_t i = get_global_id(0);\n"
	"	to[(size_t)page[i / 64] * 64 + i % 64] = from[i];\n"
	"}\n";

static cl_kernel build(struct gpu_view *view)
{
	const char *text = source;
	cl_program program = clCreateProgramWithSource(view->context, 1, &text, NULL, NULL);
	cl_kernel kernel = NULL;

	if (program && !clBuildProgram(program, 1, &view->device, "", NULL, NULL))
		kernel = clCreateKernel(program, "put", NULL);
	if (program)
		clReleaseProgram(program);
	return kernel;
}

void mrs_cl_scatter_free(struct gpu_scatter *scatter)
{
	if (scatter->kernel)
		clReleaseKernel(scatter->kernel);
	if (scatter->pages)
		clReleaseMemObject(scatter->pages);
	if (scatter->places)
		clReleaseMemObject(scatter->places);
	memset(scatter, 0, sizeof(*scatter));
}

static bool make(struct gpu_view *view)
{
	struct gpu_scatter *scatter = &view->scatter;
	cl_int code;

	if (scatter->kernel || scatter->failed)
		return !scatter->failed;
	scatter->kernel = build(view);
	scatter->pages =
		clCreateBuffer(view->context, CL_MEM_READ_ONLY, GPU_BLOCK_BYTES, NULL, &code);
	scatter->places =
		clCreateBuffer(view->context, CL_MEM_READ_ONLY,
			       GPU_BLOCK_BYTES / PAGE_BYTES * sizeof(cl_uint), NULL, &code);
	if (scatter->kernel && scatter->pages && scatter->places) {
		gpu_count(view, bytes_device, GPU_BLOCK_BYTES);
		return true;
	}
	mrs_cl_scatter_free(scatter);
	scatter->failed = true;
	return false;
}

/* The kernel's arguments for pages of the segment, or of shared virtual memory. */
static cl_int set_arguments(struct gpu_view *view, cl_mem segment)
{
	struct gpu_scatter *scatter = &view->scatter;
	cl_int code = clSetKernelArg(scatter->kernel, 0, sizeof(cl_mem), &scatter->pages);

	if (!code)
		code = clSetKernelArg(scatter->kernel, 1, sizeof(cl_mem), &scatter->places);
	if (!code)
		code = segment ? clSetKernelArg(scatter->kernel, 2, sizeof(segment), &segment)
			       : clSetKernelArgSVMPointer(scatter->kernel, 2, view->svm);
	return code;
}

bool mrs_cl_scatter_can(struct gpu_view *view)
{
	return make(view);
}

int mrs_cl_scatter(struct gpu_view *view, cl_mem segment, const void *pages, const cl_uint *places,
		   unsigned count)
{
	struct gpu_scatter *scatter = &view->scatter;
	size_t units = (size_t)count * UNITS_OF_PAGE, group = UNITS_OF_PAGE;
	cl_int code = clEnqueueWriteBuffer(view->queue, scatter->pages, CL_FALSE, 0,
					   count * PAGE_BYTES, pages, 0, NULL, NULL);

	if (!code)
		code = clEnqueueWriteBuffer(view->queue, scatter->places, CL_FALSE, 0,
					    count * sizeof(*places), places, 0, NULL, NULL);
	if (!code)
		code = set_arguments(view, segment);
	if (!code)
		code = clEnqueueNDRangeKernel(view->queue, scatter->kernel, 1, NULL, &units, &group,
					      0, NULL, NULL);
	if (code)
		return mrs_cl_fail(code, "a transfer of pages that lie apart");
	gpu_count(view, transfers, 2);
	gpu_count(view, bytes_to_device, count * (PAGE_BYTES + sizeof(*places)));
	return 0;
}
