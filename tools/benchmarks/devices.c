/*
 * morsel-quickstart-devices: the model through two devices, in the lab. Started there by
 * tools/quickstart with an NVMe controller and QEMU's edu behind an IOMMU:
 *
 *   morsel-quickstart-devices MODEL HASHES
 *
 *  1 The model is imported from a file. The NVMe controller writes its bytes to its blocks, out of
 * the morsel's frames, and reads them into the frames of another morsel; no processor copies a
 * byte. 2 edu takes pages of that morsel into its own buffer and puts them into a third one. 3 Two
 * processes, which have nothing to do with the devices, hash what the first one brought.
 */
#include "quickstart.h"

#include "bench.h"
#include "pages.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <morsel/edu.h>
#include <morsel/nvme.h>

#define PROCESSES  2u
#define EDU_PAGES  4u
#define CLASS_NVME 0x010802u
#define EDU_DMA_MASK 0x7fffffffffff /* what the lab tells QEMU */

struct devices {
	struct morsel_pool *pool;
	struct morsel *source, *brought;
	char nvme[MORSEL_IOMMU_BDF_BYTES], edu[MORSEL_IOMMU_BDF_BYTES];
};

static int fail(const char *what)
{
	bench_say("%s: %s", what, morsel_errormsg());
	return -1;
}

static int note_function(void *ctx, const struct morsel_iommu_function *function)
{
	struct devices *d = ctx;

	if (function->class_code == CLASS_NVME)
		memcpy(d->nvme, function->bdf, sizeof(d->nvme));
	else if (function->vendor == 0x1234 && function->device == 0x11e8)
		memcpy(d->edu, function->bdf, sizeof(d->edu));
	return 0;
}

/* ---- 1: NVMe ---- */

static void say_moved(const struct morsel_nvme_place *out, const struct morsel_nvme_place *in,
		      uint64_t ns)
{
	printf("  NVMe: %.2f MiB from the morsel's frames to the disk, %.2f MiB into other frames, "
	       "%" PRIu64 " bytes copied by a processor, %.0f ms (emulated)\n",
	       (double)out->bytes_moved / BENCH_MIB, (double)in->bytes_moved / BENCH_MIB,
	       out->bytes_copied + in->bytes_copied, bench_ms(ns));
}

static int there_and_back(struct devices *d, struct morsel_nvme *nvme)
{
	struct morsel_nvme_place out = {.size = sizeof(out), .flags = MORSEL_NVME_KEPT}, in = out;
	uint64_t start = bench_now();

	if (morsel_nvme_export(d->source, nvme, &out, NULL))
		return fail("morsel_nvme_export");
	if (morsel_nvme_import(d->pool, QUICKSTART_MORSEL, nvme, &in, NULL, &d->brought))
		return fail("morsel_nvme_import");
	say_moved(&out, &in, bench_now() - start);
	return 0;
}

static int use_nvme(struct devices *d)
{
	struct morsel_device *device;
	struct morsel_nvme *nvme;
	int error;

	if (morsel_iommu_open(d->nvme, NULL, &device))
		return fail("morsel_iommu_open");
	error = morsel_nvme_open(device, NULL, &nvme) ? fail("morsel_nvme_open") : 0;
	if (!error) {
		error = there_and_back(d, nvme);
		morsel_nvme_close(nvme);
	}
	return morsel_iommu_close(device) ? fail("morsel_iommu_close") : error;
}

/* ---- 2: edu ---- */

static int copy_pages(struct morsel_edu *edu, struct morsel_view *from, struct morsel_view *to)
{
	for (uint64_t at = 0; at < EDU_PAGES * PAGE_BYTES; at += PAGE_BYTES)
		if (morsel_edu_to_device(edu, from, at, 0, PAGE_BYTES) ||
		    morsel_edu_from_device(edu, to, at, 0, PAGE_BYTES))
			return fail("a transfer by edu");
	return 0;
}

static int compare(struct morsel *a, struct morsel *b)
{
	struct morsel_map_opts opts = {
		.size = sizeof(opts), .access = MORSEL_READ, .bytes = EDU_PAGES * PAGE_BYTES};
	struct morsel_view *left, *right;
	int error;

	if (morsel_map(a, &opts, &left))
		return fail("morsel_map");
	if (morsel_map(b, &opts, &right)) {
		morsel_view_destroy(left);
		return fail("morsel_map");
	}
	error = memcmp(morsel_addr(left), morsel_addr(right), opts.bytes) ? -1 : 0;
	if (error)
		bench_say("edu moved other bytes than those of the model");
	else
		printf("  edu: %u pages through the device's buffer, equal\n", EDU_PAGES);
	morsel_view_destroy(left);
	morsel_view_destroy(right);
	return error;
}

static int move_pages(struct devices *d, struct morsel_device *device, struct morsel *third)
{
	struct morsel_iommu_view_opts opts = {
		.size = sizeof(opts), .access = MORSEL_READ, .bytes = EDU_PAGES * PAGE_BYTES};
	struct morsel_edu_opts wide = {.size = sizeof(wide), .dma_mask = EDU_DMA_MASK};
	struct morsel_view *from = NULL, *to = NULL;
	struct morsel_edu *edu;
	int error;

	if (morsel_edu_open(device, &wide, &edu))
		return fail("morsel_edu_open");
	error = morsel_iommu_view(d->brought, device, &opts, &from) ||
				morsel_iommu_view(third, device, NULL, &to)
			? fail("morsel_iommu_view")
			: copy_pages(edu, from, to);
	morsel_view_destroy(from);
	morsel_view_destroy(to);
	morsel_edu_close(edu);
	return error ? error : compare(d->brought, third);
}

static int use_edu(struct devices *d)
{
	struct morsel_opts opts = {
		.size = sizeof(opts), .flags = MORSEL_CREATE, .bytes = EDU_PAGES * PAGE_BYTES};
	struct morsel_device *device;
	struct morsel *third;
	int error;

	if (morsel_open(d->pool, "third", &opts, &third))
		return fail("morsel_open");
	error = morsel_iommu_open(d->edu, NULL, &device) ? fail("morsel_iommu_open") : 0;
	if (!error) {
		error = move_pages(d, device, third);
		if (morsel_iommu_close(device))
			error = fail("morsel_iommu_close");
	}
	morsel_close(third);
	return error;
}

/* ---- all ---- */

static int show(struct devices *d, const char *model, const char *hashes)
{
	int error;

	if (!d->nvme[0] || !d->edu[0]) {
		bench_say("this machine has no NVMe controller or no edu: start it with --device "
			  "edu,nvme");
		return -1;
	}
	if (morsel_import(d->pool, "source", model, NULL, &d->source))
		return fail("morsel_import");
	error = use_nvme(d);
	if (!error)
		error = use_edu(d);
	if (!error)
		error = hash_in_processes(morsel_pool_fd(d->pool), PROCESSES, false, hashes);
	morsel_close(d->brought);
	morsel_close(d->source);
	return error;
}

int main(int argc, char **argv)
{
	struct morsel_pool_opts opts = {.size = sizeof(opts), .flags = MORSEL_POOL_CREATE};
	struct devices d = {0};
	int error;

	share_main(argc, argv);
	if (argc != 3) {
		bench_say("usage: morsel-quickstart-devices MODEL HASHES");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	opts.bytes = 4 * file_bytes(argv[1]) + 256 * (uint64_t)BENCH_MIB;
	if (morsel_pool_open(NULL, &opts, &d.pool))
		return fail("morsel_pool_open") ? 1 : 0;
	error = morsel_iommu_list(note_function, &d) < 0 ? fail("morsel_iommu_list")
							 : show(&d, argv[1], argv[2]);
	return morsel_pool_close(d.pool) || error ? 1 : 0;
}
