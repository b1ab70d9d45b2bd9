/*
 * Grants in the order of a device's stream: what the caller sees of acquire and release, and the
 * native handles.
 *
 * The core acquires and releases; what it cannot pass on (events to wait for, the event that was
 * made) stands in a request of the calling thread, which the operations find. A new grant waits for
 * the pending ones of its view that it must not overtake: those that write what it covers, and if
 * it is for writing all that overlap.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "room.h"

static __thread struct gpu_request *request_now;

struct gpu_request *mrs_cl_request(void)
{
	return request_now;
}

void mrs_cl_request_set(struct gpu_request *request)
{
	request_now = request;
}

/* ---- the operations ---- */

static void list(struct gpu_view *view, struct gpu_grant *grant)
{
	pthread_mutex_lock(&view->lock);
	grant->next = view->grants;
	grant->link = &view->grants;
	if (grant->next)
		grant->next->link = &grant->next;
	view->grants = grant;
	pthread_mutex_unlock(&view->lock);
}

static void unlist(struct gpu_view *view, struct gpu_grant *grant)
{
	pthread_mutex_lock(&view->lock);
	*grant->link = grant->next;
	if (grant->next)
		grant->next->link = grant->link;
	pthread_mutex_unlock(&view->lock);
}

int mrs_cl_grant_acquire(struct morsel_target *target, struct morsel_grant *core)
{
	struct gpu_view *view = target->state;
	struct gpu_request *request = mrs_cl_request();
	struct gpu_grant *grant = calloc(1, sizeof(*grant));
	int rc;

	if (!grant)
		return morsel_fail(-ENOMEM, "no memory for a grant");
	*grant = (struct gpu_grant){
		.view = view,
		.range = {core->offset, core->offset + core->bytes},
		.serial = core->private_[1],
		.access = core->access,
	};
	rc = gpu_is_copying(view) ? mrs_cl_copy_native(view, grant)
				  : mrs_cl_shared_native(view, grant);
	if (rc) {
		free(grant);
		return rc;
	}
	if (request && request->done) {
		clRetainEvent(request->done);
		grant->arrived = request->done;
	}
	if (grant->access & MORSEL_WRITE)
		mrs_cl_versions_begin(view, grant->range);
	list(view, grant);
	core->private_[2] = (uintptr_t)grant;
	gpu_count(view, grants, 1);
	return 0;
}

void mrs_cl_grant_release(struct morsel_target *target, struct morsel_grant *core)
{
	struct gpu_grant *grant = (struct gpu_grant *)(uintptr_t)core->private_[2];
	struct gpu_view *view = target->state;

	if (grant->access & MORSEL_WRITE)
		mrs_cl_versions_end(view, grant->range);
	unlist(view, grant);
	if (gpu_is_copying(view))
		mrs_cl_copy_release(view, grant);
	else
		mrs_cl_shared_release(view, grant);
	if (grant->after)
		clReleaseEvent(grant->after);
	if (grant->arrived)
		clReleaseEvent(grant->arrived);
	free(grant);
}

/* ---- acquire ---- */

static int check_context(struct gpu_view *view, cl_context context, cl_int code, const char *what)
{
	if (code)
		return mrs_cl_fail(code, what);
	if (context == view->context)
		return 0;
	return morsel_fail(-EINVAL, "%s is of another context than the view", what);
}

static int check_queue(struct gpu_view *view, cl_command_queue queue)
{
	cl_context context = NULL;
	cl_int code;

	if (!queue)
		return 0;
	code = clGetCommandQueueInfo(queue, CL_QUEUE_CONTEXT, sizeof(context), &context, NULL);
	return check_context(view, context, code, "the command queue");
}

static bool must_precede(const struct gpu_grant *grant, struct gpu_range range, uint32_t access)
{
	return grant->pending && (grant->access | access) & MORSEL_WRITE &&
	       grant->range.start < range.end && range.start < grant->range.end;
}

/* The caller's events, and those of pending grants; each with a reference. */
static int gather(struct gpu_view *view, struct gpu_range range, uint32_t access, cl_uint waits,
		  const cl_event *wait, cl_event **events, cl_uint *count)
{
	cl_uint n = waits;

	pthread_mutex_lock(&view->lock);
	for (struct gpu_grant *g = view->grants; g; g = g->next)
		n += must_precede(g, range, access);
	*events = calloc(n + 1u, sizeof(**events));
	if (*events) {
		n = waits;
		for (cl_uint i = 0; i < waits; i++)
			(*events)[i] = wait[i];
		for (struct gpu_grant *g = view->grants; g; g = g->next)
			if (must_precede(g, range, access))
				(*events)[n++] = g->after;
		for (cl_uint i = 0; i < n; i++)
			clRetainEvent((*events)[i]);
	}
	pthread_mutex_unlock(&view->lock);
	*count = n;
	return *events ? 0 : morsel_fail(-ENOMEM, "no memory for %u events", n);
}

static void let_go(cl_event *events, cl_uint count)
{
	for (cl_uint i = 0; i < count; i++)
		clReleaseEvent(events[i]);
	free(events);
}

/* One event for all, or the wait for them. The array has room for one more than count. */
static int make_ready(struct gpu_view *view, cl_command_queue queue, cl_event *events,
		      cl_uint count, cl_event *ready)
{
	cl_int code = 0;

	if (!ready && count)
		code = clWaitForEvents(count, events);
	if (ready && !queue)
		queue = count ? mrs_cl_late(view) : view->queue;
	if (ready && !queue)
		return -ENOMEM;
	if (ready)
		code = clEnqueueMarkerWithWaitList(queue, count, count ? events : NULL, ready);
	if (ready && !code)
		clFlush(queue);
	return code ? mrs_cl_fail(code, "waiting until a range is up to date") : 0;
}

/* What was granted, but cannot be handed out: nothing of it goes to the pool. */
static void take_back(struct morsel_grant *grant)
{
	struct gpu_request request = {.failed = true};

	mrs_cl_request_set(&request);
	morsel_release(grant);
	mrs_cl_request_set(NULL);
}

static int acquire(struct morsel_view *view, struct gpu_range range, int access,
		   struct gpu_request *request, struct morsel_grant *grant)
{
	int rc;

	mrs_cl_request_set(request);
	rc = morsel_acquire(view, range.start, range.end - range.start, access, grant);
	mrs_cl_request_set(NULL);
	return rc;
}

int morsel_cl_acquire(struct morsel_view *view, uint64_t offset, uint64_t bytes, int access,
		      cl_command_queue queue, cl_uint waits, const cl_event *wait,
		      struct morsel_grant *out, cl_event *ready)
{
	struct gpu_view *v = mrs_cl_view_of(view);
	struct gpu_range range = {offset, offset + bytes};
	struct gpu_request request = {0};
	struct morsel_grant grant;
	cl_event *events = NULL;
	cl_uint count = 0;
	int rc = v ? check_queue(v, queue) : -EINVAL;

	if (!rc)
		rc = gather(v, range, (uint32_t)access, waits, wait, &events, &count);
	if (rc)
		return rc;
	request.waits = count;
	request.wait = events;
	rc = acquire(view, range, access, &request, &grant);
	if (rc)
		goto let_go;
	if (request.done)
		events[count++] = request.done;
	rc = make_ready(v, queue, events, count, ready);
	if (rc)
		take_back(&grant);
	else
		*out = grant;
let_go:
	let_go(events, count);
	return rc;
}

int morsel_cl_acquire_tensor(struct morsel_view *view, const char *name, int access,
			     cl_command_queue queue, cl_uint waits, const cl_event *wait,
			     struct morsel_grant *grant, cl_event *ready)
{
	struct gpu_view *v = mrs_cl_view_of(view);
	struct morsel_tensor tensor;
	int rc = v ? morsel_tensor(v->morsel, name, &tensor) : -EINVAL;

	if (rc)
		return rc;
	if (tensor.flags & (MORSEL_TENSOR_ENCODED | MORSEL_TENSOR_EXTERNAL))
		return morsel_fail(
			-EOPNOTSUPP,
			"the file does not hold the tensor '%s' as an array: no kernel can "
			"read it",
			name);
	if (tensor.offset < v->offset || tensor.offset - v->offset > v->bytes ||
	    tensor.bytes > v->bytes - (tensor.offset - v->offset))
		return morsel_fail(-ERANGE,
				   "the tensor '%s' is not in the view's part of the model", name);
	return morsel_cl_acquire(view, tensor.offset - v->offset, tensor.bytes, access, queue,
				 waits, wait, grant, ready);
}

/* ---- release ---- */

/* The library's part of a grant that is held, and not released yet; in words if it is not. */
static struct gpu_grant *held(const struct morsel_grant *core)
{
	struct gpu_view *view = core && core->view ? mrs_cl_view_of(core->view) : NULL;
	struct gpu_grant *found = NULL;

	if (view) {
		pthread_mutex_lock(&view->lock);
		for (struct gpu_grant *g = view->grants; g && !found; g = g->next)
			if ((uintptr_t)g == core->private_[2] && g->serial == core->private_[1] &&
			    !g->pending)
				found = g;
		pthread_mutex_unlock(&view->lock);
	}
	if (!found)
		morsel_fail(-EINVAL, "the grant is not held: it was released, or never acquired by "
				     "a view of this library");
	return found;
}

static bool has_arrived(const struct gpu_grant *grant)
{
	return !grant->arrived || mrs_cl_event_status(grant->arrived) >= 0;
}

static int release_now(struct gpu_grant *grant, struct morsel_grant *core)
{
	bool arrived = has_arrived(grant);
	struct gpu_request request = {.failed = !arrived};

	mrs_cl_request_set(&request);
	morsel_release(core);
	mrs_cl_request_set(NULL);
	/* What never arrived was not written either. */
	return request.failed && arrived ? -EIO : 0;
}

/* Without it the event may stand in a queue that nobody has begun. */
static void flush_queue_of(cl_event event)
{
	cl_command_queue queue = NULL;

	if (!clGetEventInfo(event, CL_EVENT_COMMAND_QUEUE, sizeof(queue), &queue, NULL) && queue)
		clFlush(queue);
}

int morsel_cl_release(struct morsel_grant *core, cl_event after)
{
	struct gpu_grant *grant = held(core);
	cl_context context = NULL;
	cl_int code;
	int rc;

	if (!grant)
		return -EINVAL;
	if (!after)
		return release_now(grant, core);
	code = clGetEventInfo(after, CL_EVENT_CONTEXT, sizeof(context), &context, NULL);
	rc = check_context(grant->view, context, code, "the event");
	if (!rc)
		rc = mrs_cl_completer_start();
	if (rc)
		return rc;
	flush_queue_of(after);
	clRetainEvent(after);
	pthread_mutex_lock(&grant->view->lock);
	grant->after = after;
	grant->core = *core;
	grant->failed = !has_arrived(grant);
	grant->pending = true;
	grant->view->pending++;
	pthread_mutex_unlock(&grant->view->lock);
	memset(core, 0, sizeof(*core));
	mrs_cl_complete_when(grant);
	return 0;
}

int morsel_cl_finish(struct morsel_view *view)
{
	struct gpu_view *v = mrs_cl_view_of(view);
	char words[sizeof(v->words)];
	int code;

	if (!v)
		return -EINVAL;
	mrs_cl_settle(v);
	pthread_mutex_lock(&v->lock);
	code = v->error;
	memcpy(words, v->words, sizeof(words));
	v->error = 0;
	pthread_mutex_unlock(&v->lock);
	return code ? morsel_fail(code, "%s", words) : 0;
}

/* ---- kernels ---- */

/* Is the kernel known to take a pointer that it may write through? Most drivers say so if asked to.
 */
static bool writes(cl_kernel kernel, cl_uint index)
{
	cl_kernel_arg_address_qualifier space = 0;
	cl_kernel_arg_type_qualifier type = 0;

	if (clGetKernelArgInfo(kernel, index, CL_KERNEL_ARG_ADDRESS_QUALIFIER, sizeof(space),
			       &space, NULL) ||
	    clGetKernelArgInfo(kernel, index, CL_KERNEL_ARG_TYPE_QUALIFIER, sizeof(type), &type,
			       NULL))
		return false;
	return space == CL_KERNEL_ARG_ADDRESS_GLOBAL && !(type & CL_KERNEL_ARG_TYPE_CONST);
}

static int refuse_shift(const struct gpu_grant *grant)
{
	return morsel_fail(
		-EINVAL,
		"tier %s: the grant begins %llu bytes into a buffer, and parts of buffers "
		"begin at multiples of %llu on this device: import the model with "
		"tensor_align %llu, or give the kernel the shift (morsel_cl_native())",
		morsel_cl_tier_name(grant->view->tier), (unsigned long long)grant->native.shift,
		(unsigned long long)grant->view->align, (unsigned long long)grant->view->align);
}

int morsel_cl_arg(cl_kernel kernel, cl_uint index, const struct morsel_grant *core)
{
	struct gpu_grant *grant = held(core);
	cl_int code;

	if (!grant)
		return -EINVAL;
	if (!(grant->access & MORSEL_WRITE) && writes(kernel, index))
		return morsel_fail(
			-EACCES,
			"the grant is for reading, and the kernel's argument %u is not a "
			"pointer to const: declare it so, or acquire for writing",
			index);
	if (grant->native.shift)
		return refuse_shift(grant);
	code = grant->native.pointer
		       ? clSetKernelArgSVMPointer(kernel, index, grant->native.pointer)
		       : clSetKernelArg(kernel, index, sizeof(cl_mem), &grant->native.mem);
	return code ? mrs_cl_fail(code, "setting a kernel's argument") : 0;
}

int morsel_cl_native(const struct morsel_grant *core, struct morsel_cl_native *native)
{
	struct gpu_grant *grant = held(core);

	if (!grant)
		return -EINVAL;
	*native = grant->native;
	return 0;
}
