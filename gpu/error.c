/*
 * OpenCL's errors, as names and as errno.
 */
#include <errno.h>

#include "room.h"

#define NAME(code) \
	case code: \
		return #code

const char *mrs_cl_error_name(cl_int code)
{
	switch (code) {
		NAME(CL_DEVICE_NOT_FOUND);
		NAME(CL_DEVICE_NOT_AVAILABLE);
		NAME(CL_MEM_OBJECT_ALLOCATION_FAILURE);
		NAME(CL_OUT_OF_RESOURCES);
		NAME(CL_OUT_OF_HOST_MEMORY);
		NAME(CL_MEM_COPY_OVERLAP);
		NAME(CL_MISALIGNED_SUB_BUFFER_OFFSET);
		NAME(CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST);
		NAME(CL_INVALID_VALUE);
		NAME(CL_INVALID_DEVICE);
		NAME(CL_INVALID_CONTEXT);
		NAME(CL_INVALID_COMMAND_QUEUE);
		NAME(CL_INVALID_HOST_PTR);
		NAME(CL_INVALID_MEM_OBJECT);
		NAME(CL_INVALID_KERNEL);
		NAME(CL_INVALID_ARG_INDEX);
		NAME(CL_INVALID_ARG_VALUE);
		NAME(CL_INVALID_ARG_SIZE);
		NAME(CL_INVALID_EVENT_WAIT_LIST);
		NAME(CL_INVALID_EVENT);
		NAME(CL_INVALID_OPERATION);
		NAME(CL_INVALID_BUFFER_SIZE);
	case -1001:
		return "CL_PLATFORM_NOT_FOUND_KHR";
	default:
		return "an error of the driver";
	}
}

static int errno_of(cl_int code)
{
	switch (code) {
	case CL_MEM_OBJECT_ALLOCATION_FAILURE:
	case CL_OUT_OF_RESOURCES:
	case CL_OUT_OF_HOST_MEMORY:
		return -ENOMEM;
	case CL_DEVICE_NOT_FOUND:
	case CL_DEVICE_NOT_AVAILABLE:
	case -1001:
		return -ENODEV;
	default:
		return code <= CL_INVALID_VALUE ? -EINVAL : -EIO;
	}
}

int mrs_cl_fail(cl_int code, const char *what)
{
	return morsel_fail(errno_of(code), "%s: %s (%d)", what, mrs_cl_error_name(code), (int)code);
}

cl_int mrs_cl_event_status(cl_event event)
{
	cl_int status = CL_COMPLETE;
	cl_int code = clGetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof(status),
				     &status, NULL);

	return code ? code : status;
}
