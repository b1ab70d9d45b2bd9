/*
 * morsel: views for GPUs and other OpenCL devices.
 *
 * A view by this library shows a morsel to the devices of an OpenCL context. How it does that is
 * its tier; the best that all devices of the context offer is taken, or the one that the caller
 * demands. It never falls back silently: what was taken is reported, what is demanded and missing
 * is refused.
 *
 *      tier            the device sees                     copies   kernel argument
 *      system          the pool's memory, by host address  no       that address
 *      host-pointer    the pool's memory, in buffers       no       cl_mem
 *      svm             shared virtual memory of its own    yes      an address
 *      copy            buffers of its own                  yes      cl_mem
 *
 * system and host-pointer see what everybody sees, at once. svm and copy are brought up to date
 * when a range is acquired: only pages that have changed since this view had them are transferred,
 * side by side ones together, and what a device wrote comes back when its grant ends.
 *
 * Grants are ordered by the device's stream: morsel_cl_acquire() takes a queue and events to wait
 * for and gives an event after which kernels may run; morsel_cl_release() takes the event after
 * which the range is not used any more. Until that event the range is granted: nothing of it is
 * evicted, moved or cut. The plain morsel_acquire() and morsel_release() work, too: they return
 * when the range is up to date, and expect that the device has finished.
 *
 *      morsel_cl_view(weights, context, NULL, &view);
 *      morsel_cl_acquire_tensor(view, "fc.weight", MORSEL_READ, queue, 0, NULL, &grant, NULL);
 *      morsel_cl_arg(kernel, 0, &grant);
 *      clEnqueueNDRangeKernel(queue, kernel, 1, NULL, &n, NULL, 0, NULL, &done);
 *      morsel_cl_release(&grant, done);
 *
 * Conventions are those of <morsel/morsel.h>. Threads: as OpenCL itself, but that one cl_kernel
 * must not get arguments from two threads at once. fork: OpenCL does not survive it, nor do these
 * views. What the library has to say is in morsel_errormsg(); an error of OpenCL is named there.
 */
#ifndef MORSEL_GPU_H
#define MORSEL_GPU_H

#ifndef CL_TARGET_OPENCL_VERSION
#define CL_TARGET_OPENCL_VERSION 300
#endif
#include <CL/cl.h>

#include <morsel/morsel.h>

#ifdef __cplusplus
extern "C" {
#endif

enum morsel_cl_tier {
	MORSEL_CL_AUTO = 0,   /* the first that all devices of the context offer */
	MORSEL_CL_SYSTEM = 1, /* fine-grain system shared virtual memory */
	MORSEL_CL_HOST_POINTER =
		2,	    /* CL_MEM_USE_HOST_PTR, where a trial shows that nothing is copied */
	MORSEL_CL_SVM = 3,  /* clSVMAlloc(): the device's pointers are valid in its kernels */
	MORSEL_CL_COPY = 4, /* memory of the device */
};

/* "auto", "system", "host-pointer", "svm", "copy"; "unknown" for any other number. Never NULL. */
MORSEL_API const char *morsel_cl_tier_name(uint32_t tier);

/* ---- devices ------------------------------------------------------------------------------- */

/* A device, and a context and an in-order queue of it, for who does not have his own. */
struct morsel_cl {
	cl_platform_id platform;
	cl_device_id device;
	cl_context context;
	cl_command_queue queue;
};

struct morsel_cl_device {
	size_t size;		  /* the caller's sizeof(struct morsel_cl_device) */
	uint32_t index;		  /* 0 ..., in the order of the drivers */
	uint32_t tiers;		  /* bit 1 << enum morsel_cl_tier for each that the device offers */
	uint32_t tier;		  /* the one that MORSEL_CL_AUTO takes */
	uint32_t copies;	  /* 1: each process that uses it has a copy on the device */
	uint64_t bytes;		  /* its memory */
	uint64_t bytes_alloc_max; /* largest buffer: no grant is larger but in the tier system */
	uint32_t align;		  /* what a buffer's part must begin at, in bytes */
	uint32_t units;		  /* compute units */
	cl_platform_id platform;
	cl_device_id id;
	char name[128];
	char platform_name[128];
	char version[128];
	char driver[64];
	char why_not[5][160]; /* by enum morsel_cl_tier: why it is not offered; empty if it is */
};

/*
 * Calls fn for every device of every driver; a non-zero answer ends it and is returned. -ENODEV in
 * words where the loader finds no driver. A context is made and used for the trial of each device.
 */
typedef int (*morsel_cl_device_fn)(void *ctx, const struct morsel_cl_device *device);
MORSEL_API int morsel_cl_devices(morsel_cl_device_fn fn, void *ctx);

struct morsel_cl_open_opts {
	size_t size;	       /* sizeof(struct morsel_cl_open_opts) */
	uint32_t index_plus_1; /* the device's index plus 1; 0: the first GPU, or else the first
				  device */
	uint32_t reserved;
};

/* -ENODEV: there is no such device. */
MORSEL_API int morsel_cl_open(const struct morsel_cl_open_opts *opts, struct morsel_cl *cl);
/* Views on its context must be destroyed before. A zeroed struct is fine, as is NULL. */
MORSEL_API void morsel_cl_close(struct morsel_cl *cl);

/* ---- views --------------------------------------------------------------------------------- */

/* How a view of the tiers svm and copy knows which pages have changed. */
enum morsel_cl_writers {
	/*
	 * Anybody may write at any time. What is acquired is read and compared by checksum (64 bits
	 * a page) with what the device has; only what differs is transferred. A sealed morsel is
	 * not read again.
	 */
	MORSEL_CL_WRITERS_ANY = 0,
	/*
	 * Whoever writes says so, in every process: by a grant for writing of a view with this
	 * option (of any tier), or by morsel_cl_wrote(). Then page versions in the pool tell what
	 * changed, and acquiring costs what has changed. A write that nobody tells of is not seen.
	 * The versions are a morsel of their own, ".versions." and the id, 8 bytes a page; it is
	 * removed when a later view with this option finds that its morsel is gone. A process that
	 * dies while it writes leaves the pages of its grant to be transferred at every acquire.
	 */
	MORSEL_CL_WRITERS_TELL = 1,
};

struct morsel_cl_opts {
	size_t size;	  /* sizeof(struct morsel_cl_opts) */
	uint32_t tier;	  /* enum morsel_cl_tier; AUTO or a demand */
	uint32_t access;  /* enum morsel_access; default READ, and WRITE too unless sealed */
	uint32_t writers; /* enum morsel_cl_writers */
	uint32_t reserved;
	uint64_t offset; /* part of the morsel: page-aligned */
	uint64_t bytes;	 /* 0: to the end */
};

/*
 * A view of the morsel for the devices of the context, which stays the caller's and must outlive
 * it. Memory of the device is taken here (tiers svm and copy), content comes with the grants.
 * -EOPNOTSUPP names the tier that was demanded, what is missing and what there is; -E2BIG the
 * device's limit; -ENOMEM no memory on the device. morsel_view_destroy() waits for grants that have
 * been released with an event.
 */
MORSEL_API int morsel_cl_view(struct morsel *morsel, cl_context context,
			      const struct morsel_cl_opts *opts, struct morsel_view **view);

/* Counts since the view was made. Nothing moves in the tiers system and host-pointer. */
struct morsel_cl_stat {
	size_t size;		  /* the caller's sizeof(struct morsel_cl_stat) */
	uint32_t tier;		  /* enum morsel_cl_tier: never AUTO */
	uint32_t writers;	  /* enum morsel_cl_writers */
	uint64_t bytes_device;	  /* memory of its own on the device */
	uint64_t bytes_to_device; /* transferred */
	uint64_t bytes_from_device;
	uint64_t transfers;	 /* commands that did it */
	uint64_t pages_compared; /* read to find out whether they changed */
	uint64_t grants;
	uint64_t grants_pending; /* released with an event that has not come yet */
	uint64_t grants_failed;	 /* whose event ended with an error */
};
/* -EINVAL: the view is not by this library. */
MORSEL_API int morsel_cl_view_stat(struct morsel_view *view, struct morsel_cl_stat *stat);

/* ---- grants -------------------------------------------------------------------------------- */

/*
 * As morsel_acquire(), in the order of the queue (one of the view's context; NULL: a queue of the
 * view). Transfers wait for the waits events; *ready completes when the range is up to date for
 * commands that wait for it, on any queue, and the caller releases it. With ready NULL the call
 * waits itself. A range that this view's pending grants write is ready when they have finished. If
 * ready completes with an error the range is not up to date: release the grant without event.
 */
MORSEL_API int morsel_cl_acquire(struct morsel_view *view, uint64_t offset, uint64_t bytes,
				 int access, cl_command_queue queue, cl_uint waits,
				 const cl_event *wait, struct morsel_grant *grant, cl_event *ready);

/* The same for a tensor of an imported model. -ERANGE: it is not in the view's part of the morsel.
 */
MORSEL_API int morsel_cl_acquire_tensor(struct morsel_view *view, const char *name, int access,
					cl_command_queue queue, cl_uint waits, const cl_event *wait,
					struct morsel_grant *grant, cl_event *ready);

/*
 * The range is free, and what the device wrote to it comes to the pool, when the event completes;
 * the call does not wait, and *grant is empty when it returns. after NULL: the device has finished.
 * An event that ends with an error ends the grant, too; what was written under it in the tiers svm
 * and copy does not come to the pool, and morsel_cl_finish() says so. -EINVAL: the event is not of
 * the view's context, or the grant is not held; then nothing has happened.
 */
MORSEL_API int morsel_cl_release(struct morsel_grant *grant, cl_event after);

/*
 * Waits until every grant that was released has ended. 0, or the first error since the last call,
 * in words: a kernel that failed, a device that is lost, a transfer that did not come back.
 */
MORSEL_API int morsel_cl_finish(struct morsel_view *view);

/*
 * Makes the range's first byte the kernel's argument, whatever the tier. -EINVAL where a buffer
 * cannot begin there (see morsel_cl_device.align: import with morsel_opts.tensor_align, or use
 * morsel_cl_native() and hand the kernel the shift); -EACCES if the grant is for reading, and the
 * kernel is known to take a pointer that is not const.
 */
MORSEL_API int morsel_cl_arg(cl_kernel kernel, cl_uint index, const struct morsel_grant *grant);

/* The same by hand. They live as long as the grant. */
struct morsel_cl_native {
	cl_mem mem;	/* tiers host-pointer and copy, else NULL */
	uint64_t shift; /* of the range's first byte in mem */
	void *pointer;	/* tiers system and svm, else NULL */
};
MORSEL_API int morsel_cl_native(const struct morsel_grant *grant, struct morsel_cl_native *native);

/*
 * The CPU has written the range of the view's morsel (MORSEL_CL_WRITERS_TELL): to be called after
 * the write. Offsets are in the view. Does nothing in a view with MORSEL_CL_WRITERS_ANY.
 */
MORSEL_API int morsel_cl_wrote(struct morsel_view *view, uint64_t offset, uint64_t bytes);

#ifdef __cplusplus
}
#endif

#endif
