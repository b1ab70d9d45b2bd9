/*
 * What the tests of the gpu room share: a device, a morsel with known words, kernels, and driver
 * failures on demand. The programs are linked with --wrap for the calls that can be made to fail.
 */
#ifndef TESTS_GPU_CL_SUPPORT_H
#define TESTS_GPU_CL_SUPPORT_H

#include <morsel/gpu.h>

#include "core/view_support.h"

/* PoCL computes in host memory, and takes any host pointer, but does not say so: the programs see a
 * CPU device that does. */
cl_int __wrap_clGetDeviceInfo(cl_device_id device, cl_device_info what, size_t bytes, void *value,
			      size_t *size);
cl_int __real_clGetDeviceInfo(cl_device_id device, cl_device_info what, size_t bytes, void *value,
			      size_t *size);

/* A kernel of the source; fails the test with the compiler's words. */
cl_kernel cl_support_kernel(const struct morsel_cl *cl, const char *source, const char *name);

#endif
