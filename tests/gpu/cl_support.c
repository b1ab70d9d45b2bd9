/*
 * See cl_support.h.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "gpu/cl_support.h"

cl_int __wrap_clGetDeviceInfo(cl_device_id device, cl_device_info what, size_t bytes, void *value,
			      size_t *size)
{
	cl_int code = __real_clGetDeviceInfo(device, what, bytes, value, size);
	cl_device_type type = 0;

	if (what == CL_DEVICE_SVM_CAPABILITIES && !code && value &&
	    !__real_clGetDeviceInfo(device, CL_DEVICE_TYPE, sizeof(type), &type, NULL) &&
	    type & CL_DEVICE_TYPE_CPU)
		*(cl_device_svm_capabilities *)value |= CL_DEVICE_SVM_FINE_GRAIN_SYSTEM;
	return code;
}

cl_kernel cl_support_kernel(const struct morsel_cl *cl, const char *source, const char *name)
{
	cl_program program = clCreateProgramWithSource(cl->context, 1, &source, NULL, NULL);
	char log[4096] = "";
	cl_kernel kernel;
	cl_int code;

	assert_non_null(program);
	code = clBuildProgram(program, 1, &cl->device, "-cl-kernel-arg-info", NULL, NULL);
	if (code)
		clGetProgramBuildInfo(program, cl->device, CL_PROGRAM_BUILD_LOG, sizeof(log), log,
				      NULL);
	if (code)
		fail_msg("%d: %s", (int)code, log);
	kernel = clCreateKernel(program, name, &code);
	assert_int_equal(code, 0);
	clReleaseProgram(program);
	return kernel;
}
