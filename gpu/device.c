/*
 * Devices, and what they offer. A tier of a context is what every device in it offers.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#include "room.h"

#define DEVICES_MAX   64u
#define PLATFORMS_MAX 16u

#define BIT(tier) (1u << (tier))

const char *morsel_cl_tier_name(uint32_t tier)
{
	static const char *const names[GPU_TIERS] = {"auto", "system", "host-pointer", "svm",
						     "copy"};

	return tier < GPU_TIERS ? names[tier] : "unknown";
}

uint32_t mrs_cl_best(uint32_t tiers)
{
	for (uint32_t tier = MORSEL_CL_SYSTEM; tier < GPU_TIERS; tier++)
		if (tiers & BIT(tier))
			return tier;
	return MORSEL_CL_COPY;
}

/* ---- what a device offers ---- */

static cl_device_svm_capabilities svm_of(cl_device_id device)
{
	cl_device_svm_capabilities svm = 0;

	if (clGetDeviceInfo(device, CL_DEVICE_SVM_CAPABILITIES, sizeof(svm), &svm, NULL))
		return 0;
	return svm;
}

static uint64_t number_of(cl_device_id device, cl_device_info what)
{
	cl_ulong number = 0;

	clGetDeviceInfo(device, what, sizeof(number), &number, NULL);
	return number;
}

static void lack(struct gpu_offer *offer, uint32_t tier, const char *why)
{
	offer->tiers &= ~BIT(tier);
	if (!offer->why_not[tier][0])
		snprintf(offer->why_not[tier], sizeof(offer->why_not[tier]), "%s", why);
}

static void add_device(cl_context context, cl_device_id device, struct gpu_offer *offer)
{
	cl_device_svm_capabilities svm = svm_of(device);
	cl_uint align_bits = 0;
	char why[160];

	clGetDeviceInfo(device, CL_DEVICE_MEM_BASE_ADDR_ALIGN, sizeof(align_bits), &align_bits,
			NULL);
	offer->align = gpu_max(offer->align, gpu_max(align_bits / 8u, 1u));
	offer->alloc_max =
		gpu_min(offer->alloc_max, number_of(device, CL_DEVICE_MAX_MEM_ALLOC_SIZE));
	offer->bytes = gpu_min(offer->bytes, number_of(device, CL_DEVICE_GLOBAL_MEM_SIZE));
	offer->fine &= (svm & CL_DEVICE_SVM_FINE_GRAIN_BUFFER) != 0;
	if (!(svm & CL_DEVICE_SVM_FINE_GRAIN_SYSTEM))
		lack(offer, MORSEL_CL_SYSTEM,
		     "CL_DEVICE_SVM_CAPABILITIES does not have FINE_GRAIN_SYSTEM");
	if (!(svm & CL_DEVICE_SVM_COARSE_GRAIN_BUFFER))
		lack(offer, MORSEL_CL_SVM,
		     "CL_DEVICE_SVM_CAPABILITIES does not have COARSE_GRAIN_BUFFER");
	if (offer->tiers & BIT(MORSEL_CL_HOST_POINTER) &&
	    !mrs_cl_trial(context, device, why, sizeof(why)))
		lack(offer, MORSEL_CL_HOST_POINTER, why);
}

int mrs_cl_offer(cl_context context, struct gpu_offer *offer)
{
	cl_device_id devices[DEVICES_MAX];
	size_t bytes = 0;
	cl_int code = context ? clGetContextInfo(context, CL_CONTEXT_DEVICES, sizeof(devices),
						 devices, &bytes)
			      : CL_INVALID_CONTEXT;

	if (code)
		return mrs_cl_fail(code, "asking a context for its devices");
	if (!bytes)
		return morsel_fail(-ENODEV, "the context has no device");
	*offer = (struct gpu_offer){
		.device = devices[0],
		.tiers = BIT(MORSEL_CL_SYSTEM) | BIT(MORSEL_CL_HOST_POINTER) | BIT(MORSEL_CL_SVM) |
			 BIT(MORSEL_CL_COPY),
		.fine = true,
		.alloc_max = UINT64_MAX,
		.bytes = UINT64_MAX,
	};
	for (size_t i = 0; i < bytes / sizeof(devices[0]); i++)
		add_device(context, devices[i], offer);
	return 0;
}

/* ---- the list of devices ---- */

static void describe_offer(cl_device_id id, struct morsel_cl_device *device)
{
	struct gpu_offer offer = {.tiers = 0};
	cl_context context = clCreateContext(NULL, 1, &id, NULL, NULL, NULL);

	if (!context || mrs_cl_offer(context, &offer)) {
		for (unsigned tier = 1; tier < GPU_TIERS; tier++)
			snprintf(device->why_not[tier], sizeof(device->why_not[tier]),
				 "no context can be made on the device");
	} else {
		memcpy(device->why_not, offer.why_not, sizeof(device->why_not));
		device->tiers = offer.tiers;
		device->tier = mrs_cl_best(offer.tiers);
		device->copies = device->tier == MORSEL_CL_SVM || device->tier == MORSEL_CL_COPY;
	}
	if (context)
		clReleaseContext(context);
}

static void describe(cl_platform_id platform, cl_device_id id, uint32_t index,
		     struct morsel_cl_device *device)
{
	cl_uint units = 0, align_bits = 0;

	*device = (struct morsel_cl_device){
		.size = sizeof(*device), .index = index, .platform = platform, .id = id};
	clGetDeviceInfo(id, CL_DEVICE_NAME, sizeof(device->name), device->name, NULL);
	clGetDeviceInfo(id, CL_DEVICE_VERSION, sizeof(device->version), device->version, NULL);
	clGetDeviceInfo(id, CL_DRIVER_VERSION, sizeof(device->driver), device->driver, NULL);
	clGetPlatformInfo(platform, CL_PLATFORM_NAME, sizeof(device->platform_name),
			  device->platform_name, NULL);
	clGetDeviceInfo(id, CL_DEVICE_MAX_COMPUTE_UNITS, sizeof(units), &units, NULL);
	clGetDeviceInfo(id, CL_DEVICE_MEM_BASE_ADDR_ALIGN, sizeof(align_bits), &align_bits, NULL);
	device->units = units;
	device->align = align_bits / 8;
	device->bytes = number_of(id, CL_DEVICE_GLOBAL_MEM_SIZE);
	device->bytes_alloc_max = number_of(id, CL_DEVICE_MAX_MEM_ALLOC_SIZE);
}

/* Every device; fn gets index and identity. The answer is fn's, or how many there were. */
static int each_device(int (*fn)(void *ctx, cl_platform_id platform, cl_device_id id,
				 uint32_t index),
		       void *ctx, uint32_t *count)
{
	cl_platform_id platforms[PLATFORMS_MAX];
	cl_uint platform_count = 0;
	uint32_t index = 0;
	int rc = 0;

	if (clGetPlatformIDs(PLATFORMS_MAX, platforms, &platform_count))
		platform_count = 0;
	for (cl_uint p = 0; p < gpu_min(platform_count, PLATFORMS_MAX) && !rc; p++) {
		cl_device_id ids[DEVICES_MAX];
		cl_uint n = 0;

		if (clGetDeviceIDs(platforms[p], CL_DEVICE_TYPE_ALL, DEVICES_MAX, ids, &n))
			continue;
		for (cl_uint i = 0; i < gpu_min(n, DEVICES_MAX) && !rc; i++)
			rc = fn(ctx, platforms[p], ids[i], index++);
	}
	*count = index;
	return rc;
}

static int no_device(void)
{
	return morsel_fail(-ENODEV, "no OpenCL device: install the vendor's driver, or "
				    "pocl-opencl-icd for the CPU (drivers are listed in "
				    "/etc/OpenCL/vendors, or where OCL_ICD_VENDORS says)");
}

struct listing {
	morsel_cl_device_fn fn;
	void *ctx;
};

static int list_one(void *ctx, cl_platform_id platform, cl_device_id id, uint32_t index)
{
	struct listing *listing = ctx;
	struct morsel_cl_device device;

	describe(platform, id, index, &device);
	describe_offer(id, &device);
	return listing->fn(listing->ctx, &device);
}

int morsel_cl_devices(morsel_cl_device_fn fn, void *ctx)
{
	struct listing listing = {fn, ctx};
	uint32_t count;
	int rc = each_device(list_one, &listing, &count);

	return rc || count ? rc : no_device();
}

/* ---- opening ---- */

struct choice {
	uint32_t index_plus_1; /* wanted, 0 any */
	cl_platform_id platform;
	cl_device_id device;
};

static int choose_one(void *ctx, cl_platform_id platform, cl_device_id id, uint32_t index)
{
	struct choice *choice = ctx;
	cl_device_type type = 0;

	if (choice->index_plus_1 && choice->index_plus_1 != index + 1)
		return 0;
	clGetDeviceInfo(id, CL_DEVICE_TYPE, sizeof(type), &type, NULL);
	if (choice->device && !(type & CL_DEVICE_TYPE_GPU))
		return 0;
	choice->platform = platform;
	choice->device = id;
	return choice->index_plus_1 || type & CL_DEVICE_TYPE_GPU ? 1 : 0;
}

int morsel_cl_open(const struct morsel_cl_open_opts *opts, struct morsel_cl *out)
{
	struct choice choice = {.index_plus_1 = opts ? opts->index_plus_1 : 0};
	struct morsel_cl cl = {0};
	uint32_t count;
	cl_int code;

	if (opts && opts->size != sizeof(*opts))
		return morsel_fail(-EINVAL, "struct morsel_cl_open_opts has %zu bytes, not %zu",
				   sizeof(*opts), opts->size);
	each_device(choose_one, &choice, &count);
	if (!choice.device && choice.index_plus_1 && count)
		return morsel_fail(-ENODEV, "there is no OpenCL device %u: there are %u, from 0",
				   choice.index_plus_1 - 1, count);
	if (!choice.device)
		return no_device();
	cl.platform = choice.platform;
	cl.device = choice.device;
	cl.context = clCreateContext(NULL, 1, &cl.device, NULL, NULL, &code);
	if (!cl.context)
		return mrs_cl_fail(code, "making a context");
	cl.queue = clCreateCommandQueue(cl.context, cl.device, 0, &code);
	if (!cl.queue) {
		clReleaseContext(cl.context);
		return mrs_cl_fail(code, "making a command queue");
	}
	*out = cl;
	return 0;
}

void morsel_cl_close(struct morsel_cl *cl)
{
	if (!cl || !cl->context)
		return;
	clReleaseCommandQueue(cl->queue);
	clReleaseContext(cl->context);
	memset(cl, 0, sizeof(*cl));
}
