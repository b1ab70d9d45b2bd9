/*
 * Views of OpenCL devices beyond the contract: what is transferred and what is not, the order of a
 * stream, what a failing driver leaves behind. Every test runs in every tier that it is about.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "gpu/cl_support.h"
#include "support/counts.h"

#define PAGES 1024u
#define BYTES (PAGES * PAGE)
#define WORDS (BYTES / 4)

static const char source[] = "kernel void copy(global const uint *from, global uint *to) {\n"
			     "	to[get_global_id(0)] = from[get_global_id(0)];\n"
			     "}\n"
			     "kernel void add(global uint *words, uint by) {\n"
			     "	words[get_global_id(0)] += by;\n"
			     "}\n";

/* ---- failures on demand ---- */

static struct {
	const char *call; /* which one fails */
	int after;	  /* calls of it that work */
	cl_int code;
} fault;

#define WRAP(call) __typeof__(call) __real_##call, __wrap_##call
WRAP(clCreateBuffer);
WRAP(clEnqueueWriteBuffer);
WRAP(clEnqueueReadBuffer);
WRAP(clSetEventCallback);

static cl_int fails(const char *call)
{
	if (!fault.call || strcmp(fault.call, call) || fault.after-- > 0)
		return 0;
	fault.call = NULL;
	return fault.code;
}

static void fail_next(const char *call, int after, cl_int code)
{
	fault.call = call;
	fault.after = after;
	fault.code = code;
}

cl_mem __wrap_clCreateBuffer(cl_context context, cl_mem_flags flags, size_t bytes, void *host,
			     cl_int *code)
{
	*code = fails("clCreateBuffer");
	return *code ? NULL : __real_clCreateBuffer(context, flags, bytes, host, code);
}

cl_int __wrap_clEnqueueWriteBuffer(cl_command_queue queue, cl_mem mem, cl_bool wait, size_t at,
				   size_t bytes, const void *from, cl_uint n,
				   const cl_event *events, cl_event *event)
{
	cl_int code = fails("clEnqueueWriteBuffer");

	return code ? code
		    : __real_clEnqueueWriteBuffer(queue, mem, wait, at, bytes, from, n, events,
						  event);
}

cl_int __wrap_clEnqueueReadBuffer(cl_command_queue queue, cl_mem mem, cl_bool wait, size_t at,
				  size_t bytes, void *to, cl_uint n, const cl_event *events,
				  cl_event *event)
{
	cl_int code = fails("clEnqueueReadBuffer");

	return code ? code
		    : __real_clEnqueueReadBuffer(queue, mem, wait, at, bytes, to, n, events, event);
}

cl_int __wrap_clSetEventCallback(cl_event event, cl_int status,
				 void(CL_CALLBACK *fn)(cl_event, cl_int, void *), void *ctx)
{
	cl_int code = fails("clSetEventCallback");

	return code ? code : __real_clSetEventCallback(event, status, fn, ctx);
}

/* ---- what every test has ---- */

struct bench {
	struct morsel_cl cl;
	struct morsel_pool *pool;
	struct morsel *morsel;	 /* word i is i */
	struct morsel_view *cpu; /* of it */
	uint32_t *words;	 /* there */
	struct morsel *results;	 /* of the same size, zeros */
	struct morsel_view *cpu_results;
	cl_kernel copy, add;
};

static struct morsel_view *cpu_view(struct morsel *morsel)
{
	struct morsel_view *view;

	if (morsel_map(morsel, NULL, &view))
		fail_msg("%s", morsel_errormsg());
	return view;
}

static void reset(struct bench *b)
{
	for (uint32_t i = 0; i < WORDS; i++)
		b->words[i] = i;
}

static int set_up(void **state)
{
	struct bench *b = calloc(1, sizeof(*b));

	assert_non_null(b);
	if (morsel_cl_open(NULL, &b->cl))
		fail_msg("%s", morsel_errormsg());
	b->pool = support_pool();
	b->morsel = support_morsel(b->pool, "m", BYTES, 0, 0);
	b->results = support_morsel(b->pool, "results", BYTES, MORSEL_EVICTABLE, 0);
	b->cpu = cpu_view(b->morsel);
	b->cpu_results = cpu_view(b->results);
	b->words = morsel_addr(b->cpu);
	reset(b);
	b->copy = cl_support_kernel(&b->cl, source, "copy");
	b->add = cl_support_kernel(&b->cl, source, "add");
	*state = b;
	return 0;
}

static int tear_down(void **state)
{
	struct bench *b = *state;

	fault.call = NULL;
	clReleaseKernel(b->copy);
	clReleaseKernel(b->add);
	morsel_view_destroy(b->cpu);
	morsel_view_destroy(b->cpu_results);
	assert_int_equal(morsel_close(b->morsel), 0);
	assert_int_equal(morsel_close(b->results), 0);
	assert_int_equal(morsel_pool_close(b->pool), 0);
	morsel_cl_close(&b->cl);
	free(b);
	return 0;
}

static struct morsel_view *open_view(struct bench *b, struct morsel *morsel, uint32_t tier,
				     uint32_t writers)
{
	struct morsel_cl_opts opts = {.size = sizeof(opts), .tier = tier, .writers = writers};
	struct morsel_view *view;

	if (morsel_cl_view(morsel, b->cl.context, &opts, &view))
		fail_msg("tier %s: %s", morsel_cl_tier_name(tier), morsel_errormsg());
	return view;
}

static struct morsel_cl_stat stat_of(struct morsel_view *view)
{
	struct morsel_cl_stat stat = {.size = sizeof(stat)};

	assert_int_equal(morsel_cl_view_stat(view, &stat), 0);
	return stat;
}

static struct morsel_grant acquire(struct morsel_view *view, uint64_t offset, uint64_t bytes,
				   int access)
{
	struct morsel_grant grant;

	if (morsel_cl_acquire(view, offset, bytes, access, NULL, 0, NULL, &grant, NULL))
		fail_msg("%s", morsel_errormsg());
	return grant;
}

static void touch(struct morsel_view *view, uint64_t offset, uint64_t bytes)
{
	struct morsel_grant grant = acquire(view, offset, bytes, MORSEL_READ);

	assert_int_equal(morsel_cl_release(&grant, NULL), 0);
}

/* The kernel on words of the grants; *done may be NULL. */
static void run(struct bench *b, cl_kernel kernel, size_t words, cl_event wait, cl_event *done)
{
	assert_int_equal(clEnqueueNDRangeKernel(b->cl.queue, kernel, 1, NULL, &words, NULL,
						wait ? 1 : 0, wait ? &wait : NULL, done),
			 0);
}

/* The device adds by to words of the view, in the order of the queue. */
static void add_on_device(struct bench *b, struct morsel_view *view, uint64_t offset, size_t words,
			  cl_uint by, cl_event *done)
{
	struct morsel_grant grant;
	cl_event ready;

	if (morsel_cl_acquire(view, offset, words * 4, MORSEL_READ | MORSEL_WRITE, b->cl.queue, 0,
			      NULL, &grant, &ready))
		fail_msg("%s", morsel_errormsg());
	if (morsel_cl_arg(b->add, 0, &grant))
		fail_msg("%s", morsel_errormsg());
	assert_int_equal(clSetKernelArg(b->add, 1, sizeof(by), &by), 0);
	run(b, b->add, words, ready, done);
	assert_int_equal(morsel_cl_release(&grant, *done), 0);
	assert_null(grant.view);
	clReleaseEvent(ready);
}

static const uint32_t all_tiers[] = {MORSEL_CL_SYSTEM, MORSEL_CL_HOST_POINTER, MORSEL_CL_SVM,
				     MORSEL_CL_COPY};
/* From an index in it on: 0 all, 2 those that copy. */
#define for_each_tier(tier, from)                                          \
	for (unsigned tier##_ = from, tier = all_tiers[from]; tier##_ < 4; \
	     tier = all_tiers[++tier##_ & 3])

/* ---- kernels ---- */

/* A kernel reads one morsel and writes the other, whatever the tier; nothing is copied in two. */
static void test_kernels(void **state)
{
	struct bench *b = *state;

	for_each_tier(tier, 0)
	{
		struct morsel_view *from = open_view(b, b->morsel, tier, 0);
		struct morsel_view *to = open_view(b, b->results, tier, 0);
		struct morsel_grant in = acquire(from, 0, BYTES, MORSEL_READ);
		struct morsel_grant out = acquire(to, 0, BYTES, MORSEL_WRITE);
		bool copies = tier == MORSEL_CL_SVM || tier == MORSEL_CL_COPY;
		cl_event done;

		assert_int_equal(morsel_cl_arg(b->copy, 0, &in), 0);
		assert_int_equal(morsel_cl_arg(b->copy, 1, &out), 0);
		run(b, b->copy, WORDS, NULL, &done);
		assert_int_equal(morsel_cl_release(&in, done), 0);
		assert_int_equal(morsel_cl_release(&out, done), 0);
		if (morsel_cl_finish(to) || morsel_cl_finish(from))
			fail_msg("%s", morsel_errormsg());
		assert_memory_equal(b->words, morsel_addr(b->cpu_results), BYTES);
		assert_int_equal(stat_of(from).bytes_to_device, copies ? BYTES : 0);
		assert_int_equal(stat_of(to).bytes_from_device, copies ? BYTES : 0);
		assert_int_equal(stat_of(from).bytes_device, copies ? BYTES : 0);
		clReleaseEvent(done);
		morsel_view_destroy(from);
		morsel_view_destroy(to);
		memset(morsel_addr(b->cpu_results), 0, BYTES);
	}
}

/* Of the zero-copy tiers: the same memory, by its address and by what a kernel sees of a store. */
static void test_same_memory(void **state)
{
	struct bench *b = *state;

	for (uint32_t tier = MORSEL_CL_SYSTEM; tier <= MORSEL_CL_HOST_POINTER; tier++) {
		struct morsel_view *view = open_view(b, b->morsel, tier, 0);
		struct morsel_grant grant = acquire(view, 5 * PAGE, 3 * PAGE, MORSEL_WRITE);
		struct morsel_cl_native native;
		cl_uint by = 1000;
		volatile uint32_t *at;
		void *pointer;

		assert_int_equal(morsel_cl_native(&grant, &native), 0);
		pointer = native.pointer;
		if (native.mem)
			assert_int_equal(clGetMemObjectInfo(native.mem, CL_MEM_HOST_PTR,
							    sizeof(pointer), &pointer, NULL),
					 0);
		at = pointer;
		assert_int_equal(at[7], 5 * 1024 + 7);
		b->words[5 * 1024 + 7] = 77; /* by another mapping: at once */
		assert_int_equal(at[7], 77);
		assert_int_equal(morsel_cl_arg(b->add, 0, &grant), 0);
		assert_int_equal(clSetKernelArg(b->add, 1, sizeof(by), &by), 0);
		run(b, b->add, 3 * 1024, NULL, NULL);
		clFinish(b->cl.queue);
		assert_int_equal(b->words[5 * 1024 + 7], 1077); /* before any release */
		reset(b);
		assert_int_equal(morsel_cl_release(&grant, NULL), 0);
		assert_int_equal(stat_of(view).bytes_to_device + stat_of(view).bytes_from_device,
				 0);
		morsel_view_destroy(view);
	}
}

/* ---- what is transferred ---- */

/* Found by checksum: pages that differ go, side by side ones together, others do not. */
static void test_only_changes(void **state)
{
	struct bench *b = *state;

	for_each_tier(tier, 2)
	{
		struct morsel_view *view = open_view(b, b->morsel, tier, 0);
		struct morsel_cl_stat before, after;

		touch(view, 0, BYTES);
		before = stat_of(view);
		assert_int_equal(before.bytes_to_device, BYTES);
		assert_int_equal(before.transfers, 1);
		touch(view, 0, BYTES);
		assert_int_equal(stat_of(view).bytes_to_device, BYTES);
		for (uint32_t page = 100; page < 110; page++)
			b->words[page * 1024 + 9]++;
		b->words[500 * 1024]++;
		touch(view, 0, BYTES);
		after = stat_of(view);
		assert_int_equal(after.bytes_to_device - before.bytes_to_device, 11 * PAGE);
		assert_int_equal(after.transfers - before.transfers, 2);
		/* A part of a page is a page, and what is not acquired is not looked at. */
		b->words[300 * 1024]++;
		touch(view, 200 * PAGE + 5, 10);
		assert_int_equal(stat_of(view).bytes_to_device, after.bytes_to_device);
		touch(view, 300 * PAGE + 5, 10);
		assert_int_equal(stat_of(view).bytes_to_device, after.bytes_to_device + PAGE);
		morsel_view_destroy(view);
	}
}

/* By versions: as many pages as were told of, and none is read to find out. */
static void test_versions(void **state)
{
	struct bench *b = *state;

	for_each_tier(tier, 2)
	{
		struct morsel_view *view = open_view(b, b->morsel, tier, MORSEL_CL_WRITERS_TELL);
		struct morsel_view *other =
			open_view(b, b->morsel, MORSEL_CL_HOST_POINTER, MORSEL_CL_WRITERS_TELL);
		uint64_t base;
		cl_event done;

		touch(view, 0, BYTES);
		base = stat_of(view).bytes_to_device;
		assert_int_equal(base, BYTES);
		b->words[7 * 1024]++;
		touch(view, 0, BYTES);
		assert_int_equal(stat_of(view).bytes_to_device, base); /* nobody told */
		assert_int_equal(morsel_cl_wrote(view, 7 * PAGE, 4), 0);
		touch(view, 0, BYTES);
		assert_int_equal(stat_of(view).bytes_to_device, base + PAGE);
		/* Another view's grant for writing tells. */
		add_on_device(b, other, 20 * PAGE, 2048, 5, &done);
		assert_int_equal(morsel_cl_finish(other), 0);
		clReleaseEvent(done);
		touch(view, 0, BYTES);
		assert_int_equal(stat_of(view).bytes_to_device, base + 3 * PAGE);
		/* What it writes itself it has. */
		add_on_device(b, view, 30 * PAGE, 2048, 5, &done);
		assert_int_equal(morsel_cl_finish(view), 0);
		clReleaseEvent(done);
		assert_int_equal(b->words[30 * 1024 + 1], 30 * 1024 + 6);
		touch(view, 0, BYTES);
		assert_int_equal(stat_of(view).bytes_to_device, base + 3 * PAGE);
		assert_int_equal(stat_of(view).pages_compared, 0);
		morsel_view_destroy(other);
		morsel_view_destroy(view);
		reset(b);
	}
}

/* What the device has of the whole view is what the morsel has. */
static void check_all(struct bench *b, struct morsel_view *view)
{
	struct morsel_grant grant = acquire(view, 0, BYTES, MORSEL_READ);
	struct morsel_cl_native native;
	uint32_t *seen = malloc(BYTES);

	assert_int_equal(morsel_cl_native(&grant, &native), 0);
	if (native.mem)
		clEnqueueReadBuffer(b->cl.queue, native.mem, CL_TRUE, 0, BYTES, seen, 0, NULL,
				    NULL);
	else
		clEnqueueSVMMemcpy(b->cl.queue, CL_TRUE, seen, native.pointer, BYTES, 0, NULL,
				   NULL);
	assert_memory_equal(seen, b->words, BYTES);
	assert_int_equal(morsel_cl_release(&grant, NULL), 0);
	free(seen);
}

/* Many pages that lie apart go in two transfers, however they were found. */
static void test_scattered(void **state)
{
	struct bench *b = *state;

	for_each_tier(tier, 2)
	{
		for (uint32_t writers = 0; writers < 2; writers++) {
			struct morsel_view *view = open_view(b, b->morsel, tier, writers);
			struct morsel_cl_stat before;
			uint64_t count = 0;

			touch(view, 0, BYTES);
			before = stat_of(view);
			for (uint32_t page = 3; page < PAGES; page += 7, count++) {
				b->words[page * 1024 + page]++;
				assert_int_equal(morsel_cl_wrote(view, page * PAGE, PAGE), 0);
			}
			touch(view, 0, BYTES);
			assert_int_equal(stat_of(view).transfers - before.transfers, 2);
			assert_int_equal(stat_of(view).bytes_to_device - before.bytes_to_device,
					 count * (PAGE + 4));
			check_all(b, view);
			reset(b);
			morsel_view_destroy(view);
		}
	}
}

/* Sealed: transferred once, never read again; device memory is not needed for what is told. */
static void test_sealed(void **state)
{
	struct bench *b = *state;
	struct morsel *sealed = support_morsel(b->pool, "sealed", BYTES, 0, 0);
	struct morsel_view *view;

	assert_int_equal(morsel_seal(sealed), 0);
	view = open_view(b, sealed, MORSEL_CL_COPY, 0);
	for (int i = 0; i < 3; i++)
		touch(view, 0, BYTES);
	assert_int_equal(stat_of(view).bytes_to_device, BYTES);
	assert_int_equal(stat_of(view).pages_compared, 0);
	morsel_view_destroy(view);
	assert_int_equal(morsel_close(sealed), 0);
}

/* ---- the order of a stream ---- */

/* A range stays granted until its event, whatever is asked for; then it is free. */
static void test_release_waits(void **state)
{
	struct bench *b = *state;

	for_each_tier(tier, 0)
	{
		struct morsel_view *view = open_view(b, b->results, tier, 0);
		struct morsel_grant grant = acquire(view, 4 * PAGE, PAGE, MORSEL_WRITE);
		struct morsel_grant used = grant;
		cl_event gate = clCreateUserEvent(b->cl.context, NULL);

		assert_int_equal(morsel_cl_release(&grant, gate), 0);
		assert_int_equal(stat_of(view).grants_pending, 1);
		usleep(20000);
		assert_int_equal(morsel_view_invalidate(view, 4 * PAGE, PAGE), -EBUSY);
		assert_int_equal(morsel_resize(b->results, 2 * PAGE), -EBUSY);
		/* Used again it is refused. */
		assert_int_equal(morsel_cl_release(&used, NULL), -EINVAL);
		assert_int_equal(morsel_cl_arg(b->add, 0, &used), -EINVAL);
		assert_int_equal(clSetUserEventStatus(gate, CL_COMPLETE), 0);
		assert_int_equal(morsel_cl_finish(view), 0);
		assert_int_equal(stat_of(view).grants_pending, 0);
		assert_int_equal(morsel_view_invalidate(view, 4 * PAGE, PAGE), 0);
		clReleaseEvent(gate);
		morsel_view_destroy(view);
	}
}

/* Acquired behind an event, nothing is ready before it; many in a row need no wait of the host. */
static void test_acquire_waits(void **state)
{
	struct bench *b = *state;

	for_each_tier(tier, 0)
	{
		struct morsel_view *view = open_view(b, b->morsel, tier, 0);
		cl_event gate = clCreateUserEvent(b->cl.context, NULL), ready[3];
		struct morsel_grant grant[3];
		cl_int status;

		for (unsigned i = 0; i < 3; i++)
			assert_int_equal(morsel_cl_acquire(view, i * 10 * PAGE, 15 * PAGE,
							   MORSEL_READ, b->cl.queue, 1, &gate,
							   &grant[i], &ready[i]),
					 0);
		usleep(20000);
		for (unsigned i = 0; i < 3; i++) {
			clGetEventInfo(ready[i], CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof(status),
				       &status, NULL);
			assert_int_not_equal(status, CL_COMPLETE);
		}
		clSetUserEventStatus(gate, CL_COMPLETE);
		assert_int_equal(clWaitForEvents(3, ready), 0);
		for (unsigned i = 0; i < 3; i++) {
			assert_int_equal(morsel_cl_release(&grant[i], NULL), 0);
			clReleaseEvent(ready[i]);
		}
		clReleaseEvent(gate);
		morsel_view_destroy(view);
	}
}

/* A row of kernels on one range, each behind the one before, without a wait of the host. */
static void test_chain(void **state)
{
	struct bench *b = *state;

	for_each_tier(tier, 0)
	{
		struct morsel_view *view = open_view(b, b->morsel, tier, 0);
		cl_event done[8];

		for (unsigned i = 0; i < 8; i++)
			add_on_device(b, view, 50 * PAGE + 128 * i, 4096, 1, &done[i]);
		assert_int_equal(morsel_cl_finish(view), 0);
		for (unsigned i = 0; i < 8; i++)
			clReleaseEvent(done[i]);
		for (uint32_t i = 50 * 1024; i < 50 * 1024 + 4096; i++) {
			uint32_t at = i - 50 * 1024, times = 0;

			for (unsigned k = 0; k < 8; k++)
				times += at >= 32 * k && at < 32 * k + 4096;
			assert_int_equal(b->words[i], i + times);
		}
		reset(b);
		morsel_view_destroy(view);
	}
}

/*
 * What a device has written and not brought back yet is not overwritten by the rest of its page,
 * which somebody else writes meanwhile.
 */
static void test_neighbours_in_a_page(void **state)
{
	struct bench *b = *state;

	for_each_tier(tier, 2)
	{
		struct morsel_view *view = open_view(b, b->morsel, tier, 0);
		struct morsel_grant writer = acquire(view, 60 * PAGE + 256, 256, MORSEL_WRITE);
		cl_uint by = 1;

		if (morsel_cl_arg(b->add, 0, &writer))
			fail_msg("%s", morsel_errormsg());
		clSetKernelArg(b->add, 1, sizeof(by), &by);
		run(b, b->add, 64, NULL, NULL);
		clFinish(b->cl.queue);
		b->words[60 * 1024 + 500] = 4711;
		touch(view, 60 * PAGE, PAGE);
		assert_int_equal(morsel_cl_release(&writer, NULL), 0);
		for (uint32_t i = 0; i < 1024; i++) {
			uint32_t want = i == 500 ? 4711 : 60 * 1024 + i + (i >= 64 && i < 128);

			assert_int_equal(b->words[60 * 1024 + i], want);
		}
		reset(b);
		morsel_view_destroy(view);
	}
}

/* ---- failures ---- */

/* An event that ends with an error ends its grant; nothing of it goes to the pool, and it is said.
 */
static void test_failed_event(void **state)
{
	struct bench *b = *state;

	for_each_tier(tier, 0)
	{
		struct morsel_view *view = open_view(b, b->morsel, tier, 0);
		struct morsel_grant grant = acquire(view, 70 * PAGE, PAGE, MORSEL_WRITE);
		cl_event gate = clCreateUserEvent(b->cl.context, NULL);
		cl_uint by = 1;

		assert_int_equal(morsel_cl_arg(b->add, 0, &grant), 0);
		clSetKernelArg(b->add, 1, sizeof(by), &by);
		run(b, b->add, 1024, NULL, NULL);
		clFinish(b->cl.queue);
		assert_int_equal(morsel_cl_release(&grant, gate), 0);
		clSetUserEventStatus(gate, CL_OUT_OF_RESOURCES);
		assert_int_equal(morsel_cl_finish(view), -EIO);
		assert_non_null(strstr(morsel_errormsg(), "CL_OUT_OF_RESOURCES"));
		assert_int_equal(morsel_cl_finish(view), 0);
		assert_int_equal(stat_of(view).grants_failed, 1);
		if (tier == MORSEL_CL_SVM || tier == MORSEL_CL_COPY) {
			assert_int_equal(b->words[70 * 1024], 70 * 1024);
			/* What the device has is not trusted: it is brought again. */
			touch(view, 70 * PAGE, PAGE);
			assert_int_equal(stat_of(view).bytes_to_device, 2 * PAGE);
		}
		assert_int_equal(morsel_view_invalidate(view, 70 * PAGE, PAGE), 0);
		reset(b);
		clReleaseEvent(gate);
		morsel_view_destroy(view);
	}
}

/* What an acquire waits for fails: it says so, and the next one brings what was marked already. */
static void test_failed_wait(void **state)
{
	struct bench *b = *state;

	for_each_tier(tier, 2)
	{
		struct morsel_view *view = open_view(b, b->morsel, tier, 0);
		cl_event gate = clCreateUserEvent(b->cl.context, NULL), ready;
		struct morsel_grant grant;

		assert_int_equal(morsel_cl_acquire(view, 0, 2 * PAGE, MORSEL_READ | MORSEL_WRITE,
						   NULL, 1, &gate, &grant, &ready),
				 0);
		clSetUserEventStatus(gate, -1000);
		assert_int_not_equal(clWaitForEvents(1, &ready), 0);
		/* Nothing of the device's junk comes to the pool. */
		assert_int_equal(morsel_cl_release(&grant, NULL), 0);
		assert_int_equal(b->words[1500], 1500);
		clReleaseEvent(ready);
		clReleaseEvent(gate);
		for (unsigned i = 0; i < 2; i++) {
			struct morsel_cl_native native;
			uint32_t *seen = malloc(2 * PAGE);

			grant = acquire(view, 0, 2 * PAGE, MORSEL_READ);
			assert_int_equal(morsel_cl_native(&grant, &native), 0);
			if (native.mem)
				clEnqueueReadBuffer(b->cl.queue, native.mem, CL_TRUE, 0, 2 * PAGE,
						    seen, 0, NULL, NULL);
			else
				clEnqueueSVMMemcpy(b->cl.queue, CL_TRUE, seen, native.pointer,
						   2 * PAGE, 0, NULL, NULL);
			assert_memory_equal(seen, b->words, 2 * PAGE);
			assert_int_equal(morsel_cl_release(&grant, NULL), 0);
			free(seen);
		}
		morsel_view_destroy(view);
	}
}

/* Calls of the driver that fail: in words, and nothing is lost or kept. */
static void test_failed_calls(void **state)
{
	struct bench *b = *state;
	struct morsel_cl_opts opts = {.size = sizeof(opts), .tier = MORSEL_CL_COPY};
	struct morsel_grant grant;
	struct morsel_view *view;
	cl_event done;

	/* The first two are the trial's. */
	fail_next("clCreateBuffer", 2, CL_MEM_OBJECT_ALLOCATION_FAILURE);
	assert_int_equal(morsel_cl_view(b->morsel, b->cl.context, &opts, &view), -ENOMEM);
	assert_non_null(strstr(morsel_errormsg(), "tier copy"));
	view = open_view(b, b->morsel, MORSEL_CL_COPY, 0);
	fail_next("clEnqueueWriteBuffer", 0, CL_DEVICE_NOT_AVAILABLE);
	assert_int_equal(morsel_cl_acquire(view, 0, PAGE, MORSEL_READ, NULL, 0, NULL, &grant, NULL),
			 -ENODEV);
	touch(view, 0, BYTES);
	assert_int_equal(stat_of(view).bytes_to_device, BYTES);
	/* A read back that fails: the pool keeps what it had. */
	fail_next("clEnqueueReadBuffer", 0, CL_DEVICE_NOT_AVAILABLE);
	add_on_device(b, view, 0, 1024, 5, &done);
	assert_int_equal(morsel_cl_finish(view), -EIO);
	assert_non_null(strstr(morsel_errormsg(), "CL_DEVICE_NOT_AVAILABLE"));
	assert_int_equal(b->words[3], 3);
	clReleaseEvent(done);
	/* A driver that cannot call back. */
	fail_next("clSetEventCallback", 1, CL_INVALID_OPERATION);
	add_on_device(b, view, 0, 1024, 5, &done);
	assert_int_equal(morsel_cl_finish(view), 0);
	assert_int_equal(b->words[3], 8);
	clReleaseEvent(done);
	morsel_view_destroy(view);
}

/* A view that goes with grants: pending ones end first, held ones are given up. */
static void test_destroy_with_grants(void **state)
{
	struct bench *b = *state;

	for_each_tier(tier, 0)
	{
		struct morsel_view *view = open_view(b, b->morsel, tier, MORSEL_CL_WRITERS_TELL);
		struct morsel_grant held;
		cl_event done;

		add_on_device(b, view, 0, 1024, 5, &done);
		held = acquire(view, 9 * PAGE, PAGE, MORSEL_WRITE);
		assert_non_null(held.view);
		morsel_view_destroy(view);
		assert_int_equal(b->words[3], 8);
		clReleaseEvent(done);
		reset(b);
	}
}

/* ---- what is refused ---- */

static void test_refusals(void **state)
{
	struct bench *b = *state;
	struct morsel_cl_opts opts = {.size = sizeof(opts), .tier = 77};
	struct morsel_cl other;
	struct morsel_view *view;
	struct morsel_grant grant = {0};
	struct morsel_cl_stat stat = {.size = sizeof(stat)};
	cl_event foreign;

	assert_int_equal(morsel_cl_view(b->morsel, b->cl.context, &opts, &view), -EINVAL);
	assert_int_equal(morsel_cl_view(b->morsel, NULL, NULL, &view), -EINVAL);
	opts = (struct morsel_cl_opts){.size = sizeof(opts), .offset = 7};
	assert_int_equal(morsel_cl_view(b->morsel, b->cl.context, &opts, &view), -EINVAL);
	opts = (struct morsel_cl_opts){.size = sizeof(opts), .bytes = BYTES + 1, .writers = 1};
	assert_int_equal(morsel_cl_view(b->morsel, b->cl.context, &opts, &view), -ERANGE);
	assert_int_equal(morsel_cl_view_stat(b->cpu, &stat), -EINVAL);
	assert_int_equal(morsel_cl_finish(b->cpu), -EINVAL);
	assert_int_equal(morsel_cl_release(&grant, NULL), -EINVAL);
	assert_int_equal(morsel_cl_open(NULL, &other), 0);
	view = open_view(b, b->morsel, MORSEL_CL_COPY, 0);
	foreign = clCreateUserEvent(other.context, NULL);
	assert_int_equal(
		morsel_cl_acquire(view, 0, PAGE, MORSEL_READ, other.queue, 0, NULL, &grant, NULL),
		-EINVAL);
	assert_non_null(strstr(morsel_errormsg(), "another context"));
	assert_int_equal(
		morsel_cl_acquire(view, BYTES, 1, MORSEL_READ, NULL, 0, NULL, &grant, NULL),
		-ERANGE);
	grant = acquire(view, 0, PAGE, MORSEL_READ);
	assert_int_equal(morsel_cl_release(&grant, foreign), -EINVAL);
	assert_int_equal(morsel_cl_arg(b->add, 0, &grant), -EACCES);
	assert_int_equal(morsel_cl_arg(b->copy, 0, &grant), 0);
	assert_int_equal(morsel_cl_arg(b->copy, 9, &grant), -EINVAL);
	assert_int_equal(morsel_cl_release(&grant, NULL), 0);
	grant = acquire(view, 4, PAGE, MORSEL_READ);
	assert_int_equal(morsel_cl_arg(b->copy, 0, &grant), -EINVAL);
	assert_non_null(strstr(morsel_errormsg(), "tensor_align"));
	assert_int_equal(morsel_cl_release(&grant, NULL), 0);
	assert_int_equal(morsel_cl_wrote(view, BYTES, 1), -ERANGE);
	clReleaseEvent(foreign);
	morsel_view_destroy(view);
	morsel_cl_close(&other);
	morsel_cl_close(&other);
}

static int look_at_device(void *ctx, const struct morsel_cl_device *device)
{
	unsigned *count = ctx;

	assert_true(device->tiers & 1u << device->tier);
	assert_true(device->name[0] && device->bytes && device->align);
	for (uint32_t tier = 1; tier <= MORSEL_CL_COPY; tier++)
		assert_int_equal(device->tiers >> tier & 1, !device->why_not[tier][0]);
	++*count;
	return 0;
}

static void test_devices(void **state)
{
	struct morsel_cl_open_opts opts = {.size = sizeof(opts), .index_plus_1 = 1000};
	struct morsel_cl cl;
	unsigned count = 0;

	assert_int_equal(morsel_cl_devices(look_at_device, &count), 0);
	assert_true(count > 0);
	assert_int_equal(morsel_cl_open(&opts, &cl), -ENODEV);
	opts.index_plus_1 = 1;
	assert_int_equal(morsel_cl_open(&opts, &cl), 0);
	morsel_cl_close(&cl);
	assert_string_equal(morsel_cl_tier_name(MORSEL_CL_HOST_POINTER), "host-pointer");
	assert_string_equal(morsel_cl_tier_name(99), "unknown");
}

/* ---- tensors ---- */

static void test_tensors(void **state)
{
	static const char head[] =
		"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]},"
		"\"b\":{\"dtype\":\"F32\",\"shape\":[64],\"data_offsets\":[12,268]}}";
	struct bench *b = *state;
	struct morsel_opts opts = {.size = sizeof(opts), .tensor_align = 256};
	struct morsel_grant grant;
	struct morsel_view *view;
	struct morsel *model;
	char path[] = "/tmp/morsel-gpu-XXXXXX";
	uint64_t length = sizeof(head) - 1;
	float values[67];
	int fd = mkstemp(path);

	for (unsigned i = 0; i < 67; i++)
		values[i] = (float)i;
	assert_int_equal(write(fd, &length, 8) + write(fd, head, length) +
				 write(fd, values, sizeof(values)),
			 8 + length + sizeof(values));
	close(fd);
	if (morsel_import(b->pool, "model", path, &opts, &model))
		fail_msg("%s", morsel_errormsg());
	unlink(path);
	for_each_tier(tier, 0)
	{
		struct morsel_grant out;
		struct morsel_view *to = open_view(b, b->results, tier, 0);

		view = open_view(b, model, tier, 0);
		assert_int_equal(morsel_cl_acquire_tensor(view, "c", MORSEL_READ, NULL, 0, NULL,
							  &grant, NULL),
				 -ENOENT);
		if (morsel_cl_acquire_tensor(view, "b", MORSEL_READ, NULL, 0, NULL, &grant, NULL))
			fail_msg("%s", morsel_errormsg());
		out = acquire(to, 0, 256, MORSEL_WRITE);
		if (morsel_cl_arg(b->copy, 0, &grant) || morsel_cl_arg(b->copy, 1, &out))
			fail_msg("%s", morsel_errormsg());
		run(b, b->copy, 64, NULL, NULL);
		clFinish(b->cl.queue);
		assert_int_equal(morsel_cl_release(&grant, NULL), 0);
		assert_int_equal(morsel_cl_release(&out, NULL), 0);
		assert_memory_equal(morsel_addr(b->cpu_results), values + 3, 256);
		memset(morsel_addr(b->cpu_results), 0, 256);
		morsel_view_destroy(view);
		morsel_view_destroy(to);
	}
	assert_int_equal(morsel_close(model), 0);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_devices),
		TEST(test_kernels),
		TEST(test_same_memory),
		TEST(test_only_changes),
		TEST(test_versions),
		TEST(test_scattered),
		TEST(test_sealed),
		TEST(test_release_waits),
		TEST(test_acquire_waits),
		TEST(test_chain),
		TEST(test_neighbours_in_a_page),
		TEST(test_failed_event),
		TEST(test_failed_wait),
		TEST(test_failed_calls),
		TEST(test_destroy_with_grants),
		TEST(test_refusals),
		TEST(test_tensors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
