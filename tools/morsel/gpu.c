/*
 * morsel gpu list and info: OpenCL devices, and how each would see a morsel.
 *
 * libmorsel-gpu is loaded when it is asked for: the command works on machines without an OpenCL
 * loader, and says what is missing.
 */
#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "commands.h"

#ifdef MORSEL_WITH_GPU

#include <morsel/gpu.h>

static struct {
	int (*devices)(morsel_cl_device_fn fn, void *ctx);
	const char *(*tier_name)(uint32_t tier);
} gpu;

static bool load_quietly(void)
{
	void *library = dlopen("libmorsel-gpu.so.0", RTLD_NOW);

	if (library) {
		*(void **)&gpu.devices = dlsym(library, "morsel_cl_devices");
		*(void **)&gpu.tier_name = dlsym(library, "morsel_cl_tier_name");
	}
	return gpu.devices && gpu.tier_name;
}

static int load(const struct command *self)
{
	if (load_quietly())
		return EXIT_OK;
	complain(self,
		 "libmorsel-gpu cannot be loaded: %s; it needs the OpenCL loader "
		 "(package ocl-icd-libopencl1)",
		 dlerror());
	return EXIT_FAILED;
}

static bool offers(const struct morsel_cl_device *device, uint32_t tier)
{
	return device->tiers & 1u << tier;
}

static void json_device(struct json *json, const struct morsel_cl_device *device)
{
	json_u64(json, "index", device->index);
	json_text(json, "name", device->name);
	json_text(json, "platform", device->platform_name);
	json_text(json, "version", device->version);
	json_text(json, "driver", device->driver);
	json_u64(json, "units", device->units);
	json_u64(json, "bytes", device->bytes);
	json_u64(json, "bytes_alloc_max", device->bytes_alloc_max);
	json_u64(json, "align", device->align);
	json_text(json, "tier", gpu.tier_name(device->tier));
	json_u64(json, "copies_per_process", device->copies);
	json_list(json, "tiers");
	for (uint32_t tier = MORSEL_CL_SYSTEM; tier <= MORSEL_CL_COPY; tier++) {
		json_object(json, NULL);
		json_text(json, "name", gpu.tier_name(tier));
		json_bool(json, "offered", offers(device, tier));
		json_text(json, "why_not", offers(device, tier) ? NULL : device->why_not[tier]);
		json_close(json);
	}
	json_close(json);
}

/* ---- list ---- */

static int add_json(void *ctx, const struct morsel_cl_device *device)
{
	struct json *json = ctx;

	json_object(json, NULL);
	json_device(json, device);
	json_close(json);
	return 0;
}

static int add_row(void *ctx, const struct morsel_cl_device *device)
{
	struct table *table = ctx;

	table_add(table, "%" PRIu32, device->index);
	table_add_name(table, device->name);
	table_add_name(table, device->platform_name);
	table_add(table, "%s", gpu.tier_name(device->tier));
	table_add(table, "%" PRIu32, device->copies);
	table_add_size(table, device->bytes, false);
	return 0;
}

int gpu_list(const struct command *self, int argc, char **argv)
{
	static const char *const heads[] = {"DEVICE", "NAME",	"PLATFORM",
					    "TIER",   "COPIES", "MEMORY"};
	struct table table;
	struct args args;
	struct json json;
	int rc, code = args_read(self, NULL, 0, argc, argv, &args);

	if (code != ARGS_RUN)
		return code;
	code = load(self);
	if (code)
		return code;
	if (args.json) {
		json_begin(&json, stdout);
		json_list(&json, "devices");
		rc = gpu.devices(add_json, &json);
		json_close(&json);
		json_end(&json);
	} else {
		table_begin(&table, array_length(heads), "lllllr", heads);
		rc = gpu.devices(add_row, &table);
		if (rc)
			table_drop(&table);
		else
			table_end(&table);
	}
	return rc ? complain_library(self, rc) : EXIT_OK;
}

/* ---- info ---- */

struct look {
	const struct args *args;
	uint64_t index;
	bool found;
};

static void print_device(const struct look *look, const struct morsel_cl_device *device)
{
	struct table table;

	table_begin(&table, 2, "ll", NULL);
	table_add(&table, "name");
	table_add_name(&table, device->name);
	table_add(&table, "platform");
	table_add_name(&table, device->platform_name);
	table_add(&table, "version");
	table_add_name(&table, device->version);
	table_add(&table, "driver");
	table_add_name(&table, device->driver);
	table_add(&table, "compute units");
	table_add(&table, "%" PRIu32, device->units);
	table_add(&table, "memory");
	table_add_size(&table, device->bytes, look->args->exact);
	table_add(&table, "largest buffer");
	table_add_size(&table, device->bytes_alloc_max, look->args->exact);
	table_add(&table, "buffers begin at");
	table_add(&table, "multiples of %" PRIu32, device->align);
	table_add(&table, "copies per process");
	table_add(&table, "%" PRIu32, device->copies);
	for (uint32_t tier = MORSEL_CL_SYSTEM; tier <= MORSEL_CL_COPY; tier++) {
		table_add(&table, "tier %s", gpu.tier_name(tier));
		table_add(&table, "%s%s", offers(device, tier) ? "yes" : "no: ",
			  !offers(device, tier)	 ? device->why_not[tier]
			  : tier == device->tier ? ", the one that is taken"
						 : "");
	}
	table_end(&table);
}

static int show_one(void *ctx, const struct morsel_cl_device *device)
{
	struct look *look = ctx;
	struct json json;

	if (device->index != look->index)
		return 0;
	look->found = true;
	if (look->args->json) {
		json_begin(&json, stdout);
		json_device(&json, device);
		json_end(&json);
	} else {
		print_device(look, device);
	}
	return 1;
}

int gpu_info(const struct command *self, int argc, char **argv)
{
	struct args args;
	struct look look = {.args = &args};
	char *end = NULL;
	int rc, code = args_read(self, NULL, 0, argc, argv, &args);

	if (code != ARGS_RUN)
		return code;
	if (args.operands)
		look.index = strtoull(args.operand[0], &end, 10);
	if (end && (*end || end == args.operand[0]))
		return complain_usage(self,
				      "a device is a number, as morsel gpu list shows it, not %s",
				      args.operand[0]);
	code = load(self);
	if (code)
		return code;
	rc = gpu.devices(show_one, &look);
	if (rc < 0)
		return complain_library(self, rc);
	if (look.found)
		return EXIT_OK;
	complain(self, "there is no OpenCL device %" PRIu64 ": see morsel gpu list", look.index);
	return EXIT_FAILED;
}

/* ---- for the doctor ---- */

struct glance {
	char *words;
	size_t room;
	int count;
};

static int glance_at(void *ctx, const struct morsel_cl_device *device)
{
	struct glance *glance = ctx;

	if (!glance->count++)
		snprintf(glance->words, glance->room, "%s, tier %s", device->name,
			 gpu.tier_name(device->tier));
	return 0;
}

int gpu_look(char *words, size_t room)
{
	struct glance glance = {.words = words, .room = room};
	int rc;

	if (!load_quietly()) {
		snprintf(words, room, "libmorsel-gpu cannot be loaded: %s", dlerror());
		return -ENOENT;
	}
	rc = gpu.devices(glance_at, &glance);
	if (rc)
		snprintf(words, room, "%s", morsel_errormsg());
	return rc ? rc : glance.count;
}

#else

static int left_out(const struct command *self, int argc, char **argv)
{
	struct args args;
	int code = args_read(self, NULL, 0, argc, argv, &args);

	if (code != ARGS_RUN)
		return code;
	complain(self, "this morsel was built without OpenCL (packages ocl-icd-opencl-dev and "
		       "opencl-headers)");
	return EXIT_FAILED;
}

int gpu_list(const struct command *self, int argc, char **argv)
{
	return left_out(self, argc, argv);
}

int gpu_info(const struct command *self, int argc, char **argv)
{
	return left_out(self, argc, argv);
}

int gpu_look(char *words, size_t room)
{
	snprintf(words, room, "morsel was built without OpenCL");
	return -ENOENT;
}

#endif
