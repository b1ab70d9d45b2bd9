/*
 * bench_iommu: mapping morsels for a device, beside the bare calls of VFIO. Runs in the lab, on a
 * device that is bound to vfio-pci (tools/bench boots a machine for it).
 *
 * Both sides share one VFIO container: the program opens it, hands duplicates of its descriptors to
 * the library, and makes the bare calls itself at IOVAs far above those that the library chooses.
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <morsel/iommu.h>

#define BARE_IOVA ((uint64_t)0x6000000000) /* within 39 bits, which every IOMMU of the lab has */
#define PAGE	  4096u
#define MAP_BYTES (256 * BENCH_MIB)

struct world {
	struct bench *bench;
	const struct bench_opts *opts;
	int container; /* ours, beside the library's */
	struct morsel_device *device;
	struct morsel_pool *pool;
};

/* ---- the bare calls ---- */

static void bare_map(struct world *world, void *address, uint64_t bytes)
{
	struct vfio_iommu_type1_dma_map map = {.argsz = sizeof(map),
					       .flags = VFIO_DMA_MAP_FLAG_READ |
							VFIO_DMA_MAP_FLAG_WRITE,
					       .vaddr = (uintptr_t)address,
					       .iova = BARE_IOVA,
					       .size = bytes};

	if (ioctl(world->container, VFIO_IOMMU_MAP_DMA, &map))
		bench_die("VFIO_IOMMU_MAP_DMA of %llu bytes: %s", (unsigned long long)bytes,
			  strerror(errno));
}

static void bare_unmap(struct world *world, uint64_t bytes)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap), .iova = BARE_IOVA, .size = bytes};

	if (ioctl(world->container, VFIO_IOMMU_UNMAP_DMA, &unmap))
		bench_die("VFIO_IOMMU_UNMAP_DMA: %s", strerror(errno));
}

/* ---- the world ---- */

static int find(void *ctx, const struct morsel_iommu_function *function)
{
	if (strcmp(function->driver, "vfio-pci") || !function->viable)
		return 0;
	*(struct morsel_iommu_function *)ctx = *function;
	return 1;
}

static int open_path(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		bench_die("%s: %s", path, strerror(errno));
	return fd;
}

static void open_world(struct world *world)
{
	struct morsel_pool_opts pool = {
		.size = sizeof(pool), .flags = MORSEL_POOL_CREATE, .bytes = 2 * BENCH_GIB};
	struct morsel_iommu_opts opts = {.size = sizeof(opts), .kind = MORSEL_IOMMU_TYPE1};
	struct morsel_iommu_function function;
	char group[64];

	if (morsel_iommu_list(find, &function) != 1)
		bench_die("no device is bound to vfio-pci here: tools/bench runs this in the lab");
	snprintf(group, sizeof(group), "/dev/vfio/%d", function.group);
	world->container = open_path("/dev/vfio/vfio");
	opts.container_plus_1 = dup(world->container) + 1;
	opts.group_plus_1 = open_path(group) + 1;
	if (morsel_iommu_open(function.bdf, &opts, &world->device) ||
	    morsel_pool_open(NULL, &pool, &world->pool))
		bench_die("%s", morsel_errormsg());
}

static struct morsel *make_morsel(struct world *world, const char *name, uint64_t bytes,
				  uint32_t flags, uint32_t pages)
{
	struct morsel_opts opts = {.size = sizeof(opts),
				   .flags = MORSEL_CREATE | flags,
				   .pages = pages,
				   .bytes = bytes};
	struct morsel *morsel;

	if (morsel_open(world->pool, name, &opts, &morsel))
		bench_die("%s", morsel_errormsg());
	return morsel;
}

static void drop_morsel(struct world *world, struct morsel *morsel, const char *name)
{
	if (morsel_close(morsel) || morsel_unlink(world->pool, name))
		bench_die("%s", morsel_errormsg());
}

static double map_ours(struct world *world, struct morsel *morsel)
{
	uint64_t start = bench_now(), end;
	struct morsel_view *view;

	if (morsel_iommu_view(morsel, world->device, NULL, &view))
		bench_die("%s", morsel_errormsg());
	end = bench_now();
	morsel_view_destroy(view);
	return bench_ms(end - start);
}

static double map_bare(struct world *world, void *address, uint64_t bytes)
{
	uint64_t start = bench_now(), end;

	bare_map(world, address, bytes);
	end = bench_now();
	bare_unmap(world, bytes);
	return bench_ms(end - start);
}

/* ---- cases ---- */

/*
 * A memfd in 4 KiB pages, touched in no order, so that its memory is where it falls: pages that lie
 * side by side would be mapped as one.
 */
static void *small_pages(uint64_t bytes)
{
	int fd = memfd_create("baseline", MFD_CLOEXEC);
	uint64_t pages = bytes / PAGE;
	char *at;

	if (fd < 0 || ftruncate(fd, (off_t)bytes))
		bench_die("memfd_create: %s", strerror(errno));
	at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		bench_die("mmap of %llu bytes failed", (unsigned long long)bytes);
	/* An odd step meets every page of a power of two. */
	for (uint64_t i = 0; i < pages; i++)
		at[i * 25717 % pages * PAGE] = (char)i;
	close(fd);
	return at;
}

static void case_huge(struct world *world)
{
	struct bench_case *c;
	struct morsel *morsel;
	void *theirs;

	if (!bench_wants(world->bench, "map-256m-huge"))
		return;
	c = bench_case(world->bench, "map-256m-huge", "ms", "map-256m-4k-one-ioctl",
		       "VFIO_IOMMU_MAP_DMA of a memfd of 256 MiB in 4 KiB pages, one call");
	morsel = make_morsel(world, "huge", MAP_BYTES, 0, MORSEL_PAGES_2M);
	if (morsel_advise(morsel, 0, MAP_BYTES, MORSEL_ADVICE_HUGE)) {
		bench_failed(c, "%s", morsel_errormsg());
	} else {
		theirs = small_pages(MAP_BYTES);
		for (unsigned i = 0; i < world->opts->pairs; i++) {
			bench_ours(c, map_ours(world, morsel));
			bench_theirs(c, map_bare(world, theirs, MAP_BYTES));
		}
		munmap(theirs, MAP_BYTES);
	}
	drop_morsel(world, morsel, "huge");
}

/* The same memory by both: what the library adds. */
static void case_bare(struct world *world)
{
	const uint64_t bytes = 64 * BENCH_MIB;
	struct bench_case *c;
	struct morsel_view *cpu;
	struct morsel *morsel;

	if (!bench_wants(world->bench, "map-vs-bare-ioctl"))
		return;
	c = bench_case(
		world->bench, "map-vs-bare-ioctl", "ms", "bare-ioctl",
		"VFIO_IOMMU_MAP_DMA of the same 64 MiB of the pool in 4 KiB pages, one call");
	morsel = make_morsel(world, "bare", bytes, MORSEL_CONTIGUOUS, MORSEL_PAGES_4K);
	if (morsel_map(morsel, NULL, &cpu))
		bench_die("%s", morsel_errormsg());
	map_ours(world, morsel);
	map_bare(world, morsel_addr(cpu), bytes);
	for (unsigned i = 0; i < world->opts->pairs; i++) {
		bench_ours(c, map_ours(world, morsel));
		bench_theirs(c, map_bare(world, morsel_addr(cpu), bytes));
	}
	morsel_view_destroy(cpu);
	drop_morsel(world, morsel, "bare");
}

/* Runs in the pool's file: pages that follow each other in the morsel and in the file. */
struct runs {
	uint64_t count, end_offset, end_frame;
};

static int count_run(void *ctx, const struct morsel_run *run)
{
	struct runs *runs = ctx;

	runs->count +=
		!runs->count || run->offset != runs->end_offset || run->frame != runs->end_frame;
	runs->end_offset = run->offset + run->bytes;
	runs->end_frame = run->frame + run->bytes / PAGE;
	return 0;
}

static void case_entries(struct world *world)
{
	const uint64_t bytes = 16 * BENCH_MIB;
	struct bench_case *c;

	if (!bench_wants(world->bench, "entries-used"))
		return;
	c = bench_case(world->bench, "entries-used", "count", "runs",
		       "runs of the morsel: pages that follow each other in it and in the pool");
	for (unsigned i = 0; i < world->opts->pairs; i++) {
		/* Scattered, mixed, and in huge pages. */
		struct morsel *morsel =
			make_morsel(world, "runs", bytes + i * PAGE, i % 3 ? 0 : MORSEL_SCATTERED,
				    i % 3 == 2 ? MORSEL_PAGES_2M : MORSEL_PAGES_MIXED);
		struct morsel_iommu_view_info info = {.size = sizeof(info)};
		struct runs runs = {0};
		struct morsel_view *view;

		if (morsel_iommu_view(morsel, world->device, NULL, &view) ||
		    morsel_iommu_view_info(view, &info) ||
		    morsel_runs(morsel, 0, bytes + i * PAGE, count_run, &runs))
			bench_die("%s", morsel_errormsg());
		bench_ours(c, (double)info.entries);
		bench_theirs(c, (double)runs.count);
		morsel_view_destroy(view);
		drop_morsel(world, morsel, "runs");
	}
}

/* ---- system calls, counted ---- */

static volatile char blocked; /* the selector: 0 allow, 1 block */
static volatile uint64_t calls;

static void on_call(int number)
{
	blocked = 0;
	calls++;
}

/* False where the kernel cannot. */
static bool count_calls(void)
{
	struct sigaction action = {.sa_handler = on_call};

	sigaction(SIGSYS, &action, NULL);
	calls = 0;
#ifdef PR_SET_SYSCALL_USER_DISPATCH
	return !prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, 0, 0, &blocked);
#else
	return false;
#endif
}

static void case_reacquire(struct world *world)
{
	enum { ROUNDS = 1000 };
	struct morsel_grant grant;
	struct bench_case *c;
	struct morsel *morsel;
	struct morsel_view *view, *cpu;
	bool counts;

	if (!bench_wants(world->bench, "reacquire"))
		return;
	c = bench_case(world->bench, "reacquire", "us", "map+unmap-ioctl",
		       "VFIO_IOMMU_MAP_DMA and VFIO_IOMMU_UNMAP_DMA of the same MiB");
	morsel = make_morsel(world, "again", BENCH_MIB, MORSEL_CONTIGUOUS, MORSEL_PAGES_4K);
	if (morsel_map(morsel, NULL, &cpu) ||
	    morsel_iommu_view(morsel, world->device, NULL, &view) ||
	    morsel_acquire(view, 0, BENCH_MIB, MORSEL_WRITE, &grant))
		bench_die("%s", morsel_errormsg());
	morsel_release(&grant);
	counts = count_calls();
	for (unsigned i = 0; i < world->opts->pairs; i++) {
		uint64_t start = bench_now(), end;

		blocked = 1;
		for (unsigned k = 0; k < ROUNDS; k++) {
			if (morsel_acquire(view, 0, BENCH_MIB, MORSEL_WRITE, &grant)) {
				blocked = 0;
				bench_die("%s", morsel_errormsg());
			}
			morsel_release(&grant);
		}
		blocked = 0;
		end = bench_now();
		bench_ours(c, (double)(end - start) / ROUNDS / 1e3);
		start = bench_now();
		for (unsigned k = 0; k < ROUNDS / 20; k++) {
			bare_map(world, morsel_addr(cpu), BENCH_MIB);
			bare_unmap(world, BENCH_MIB);
		}
		end = bench_now();
		bench_theirs(c, (double)(end - start) / (ROUNDS / 20) / 1e3);
	}
	if (!counts)
		bench_note(c, "This kernel cannot count the system calls.");
	else if (calls)
		bench_failed(c, "acquiring again made system calls");
	else
		bench_note(c, "System calls of %u times acquire and release: 0.",
			   ROUNDS * world->opts->pairs);
	morsel_view_destroy(view);
	morsel_view_destroy(cpu);
	drop_morsel(world, morsel, "again");
}

int main(int argc, char **argv)
{
	struct bench_opts opts = {.pairs = 9};
	struct world world = {.opts = &opts};

	world.bench = bench_start("iommu", &opts, argc, argv);
	bench_emulated(world.bench);
	open_world(&world);
	case_huge(&world);
	case_bare(&world);
	case_entries(&world);
	case_reacquire(&world);
	morsel_iommu_close(world.device);
	morsel_pool_close(world.pool);
	return bench_finish(world.bench);
}
