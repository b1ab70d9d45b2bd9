/*
 * bench_nvme: reading with the user-space driver, beside the kernel's driver through io_uring and
 * O_DIRECT; and what an import copies. Runs in the lab, with two controllers of the same kind: one
 * is bound to vfio-pci, one is the kernel's (tools/bench boots a machine for it).
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <morsel/nvme.h>

#define DEPTH	    32u
#define BLOCK	    ((uint64_t)65536)
#define SPAN	    (64 * BENCH_MIB) /* of the device that is read */
#define CLASS_NVME  0x010802u
#define KERNEL_DISK "/dev/nvme?n1"

struct world {
	struct bench *bench;
	const struct bench_opts *opts;
	struct morsel_device *device;
	struct morsel_nvme *nvme;
	struct morsel_pool *pool;
	struct morsel *morsel;
	struct morsel_view *view, *cpu;
	struct morsel_grant grant;
};

/* ---- ours ---- */

static int find(void *ctx, const struct morsel_iommu_function *function)
{
	if (strcmp(function->driver, "vfio-pci") || function->class_code != CLASS_NVME)
		return 0;
	*(struct morsel_iommu_function *)ctx = *function;
	return 1;
}

/* The second one: what the kernel's driver is to have. */
static int find_other(void *ctx, const struct morsel_iommu_function *function)
{
	struct morsel_iommu_function *first = ctx;

	if (function->class_code != CLASS_NVME || !strcmp(function->bdf, first->bdf))
		return 0;
	*first = *function;
	return 1;
}

static void open_world(struct world *world)
{
	struct morsel_pool_opts pool = {.size = sizeof(pool), .flags = MORSEL_POOL_CREATE};
	struct morsel_opts opts = {
		.size = sizeof(opts), .flags = MORSEL_CREATE, .bytes = DEPTH * BLOCK};
	struct morsel_nvme_opts nvme = {.size = sizeof(nvme), .depth = 64};
	struct morsel_iommu_function function, other;

	if (morsel_iommu_list(find, &function) != 1)
		bench_die("no NVMe controller is bound to vfio-pci: tools/bench runs this in the "
			  "lab");
	other = function;
	if (morsel_iommu_list(find_other, &other) != 1)
		bench_die("there is one NVMe controller: the kernel's driver needs one, too");
	if (!strcmp(other.driver, "vfio-pci") && morsel_iommu_unbind(other.bdf))
		bench_die("%s", morsel_errormsg());
	if (morsel_iommu_open(function.bdf, NULL, &world->device) ||
	    morsel_nvme_open(world->device, &nvme, &world->nvme) ||
	    morsel_pool_open(NULL, &pool, &world->pool) ||
	    morsel_open(world->pool, "memory", &opts, &world->morsel) ||
	    morsel_map(world->morsel, NULL, &world->cpu) ||
	    morsel_iommu_view(world->morsel, world->device, NULL, &world->view) ||
	    morsel_acquire(world->view, 0, opts.bytes, MORSEL_READ | MORSEL_WRITE, &world->grant))
		bench_die("%s", morsel_errormsg());
}

static void close_world(struct world *world)
{
	morsel_release(&world->grant);
	morsel_view_destroy(world->view);
	morsel_view_destroy(world->cpu);
	morsel_close(world->morsel);
	morsel_pool_close(world->pool);
	morsel_nvme_close(world->nvme);
	morsel_iommu_close(world->device);
}

static void submit_ours(struct world *world, uint64_t slot, uint64_t at, bool more)
{
	struct morsel_nvme_piece piece = {world->grant.iova + slot * BLOCK, BLOCK};
	struct morsel_nvme_io io = {.op = MORSEL_NVME_READ,
				    .flags = more ? MORSEL_NVME_MORE : 0,
				    .ns = 1,
				    .block = at / 512,
				    .blocks = BLOCK / 512,
				    .pieces = &piece,
				    .count = 1,
				    .user = (void *)(uintptr_t)slot};

	if (morsel_nvme_submit(world->nvme, 0, &io))
		bench_die("%s", morsel_errormsg());
}

/* MiB per second of reading the span once, 32 commands in flight. */
static double read_ours(struct world *world)
{
	struct morsel_nvme_done done[DEPTH];
	uint64_t start = bench_now(), next = 0, got = 0;

	for (; next < DEPTH; next++)
		submit_ours(world, next, next * BLOCK, next + 1 < DEPTH);
	while (got < SPAN / BLOCK) {
		int n = morsel_nvme_poll(world->nvme, 0, done, DEPTH, -1);

		for (int i = 0; i < n; i++, got++) {
			if (done[i].rc)
				bench_die("a read failed: %s",
					  morsel_nvme_status_words(done[i].status));
			if (next < SPAN / BLOCK)
				submit_ours(world, (uintptr_t)done[i].user, next++ * BLOCK, true);
		}
	}
	return (double)SPAN / BENCH_MIB / ((double)(bench_now() - start) / 1e9);
}

/* ---- theirs: io_uring by its system calls ---- */

struct ring {
	int fd, disk;
	unsigned *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	unsigned char *memory;
};

static void *ring_map(int fd, uint64_t bytes, off_t at)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, at);

	if (memory == MAP_FAILED)
		bench_die("mapping io_uring: %s", strerror(errno));
	return memory;
}

/* The kernel's disk comes a moment after its driver. */
static int open_disk(void)
{
	for (unsigned i = 0; i < 400; i++) {
		char path[] = KERNEL_DISK;
		int fd;

		path[sizeof("/dev/nvme") - 1] = (char)('0' + i % 4);
		fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
		if (fd >= 0)
			return fd;
		usleep(50000);
	}
	bench_die("there is no NVMe disk of the kernel's driver (" KERNEL_DISK ")");
}

static void ring_open(struct ring *ring)
{
	struct io_uring_params params = {0};
	struct iovec iov;
	unsigned char *sq, *cq;

	ring->disk = open_disk();
	ring->fd = (int)syscall(SYS_io_uring_setup, 2 * DEPTH, &params);
	if (ring->fd < 0)
		bench_die("io_uring_setup: %s", strerror(errno));
	sq = ring_map(ring->fd, params.sq_off.array + params.sq_entries * sizeof(unsigned),
		      IORING_OFF_SQ_RING);
	cq = ring_map(ring->fd,
		      params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe),
		      IORING_OFF_CQ_RING);
	ring->sqe = ring_map(ring->fd, params.sq_entries * sizeof(struct io_uring_sqe),
			     IORING_OFF_SQES);
	ring->sq_tail = (void *)(sq + params.sq_off.tail);
	ring->sq_mask = (void *)(sq + params.sq_off.ring_mask);
	ring->sq_array = (void *)(sq + params.sq_off.array);
	ring->cq_head = (void *)(cq + params.cq_off.head);
	ring->cq_tail = (void *)(cq + params.cq_off.tail);
	ring->cq_mask = (void *)(cq + params.cq_off.ring_mask);
	ring->cqe = (void *)(cq + params.cq_off.cqes);
	ring->memory = aligned_alloc(BLOCK, DEPTH * BLOCK);
	memset(ring->memory, 1, DEPTH * BLOCK);
	iov = (struct iovec){ring->memory, DEPTH * BLOCK};
	if (syscall(SYS_io_uring_register, ring->fd, IORING_REGISTER_BUFFERS, &iov, 1))
		bench_die("io_uring_register: %s", strerror(errno));
}

static void ring_put(struct ring *ring, uint64_t slot, uint64_t at)
{
	unsigned tail = *ring->sq_tail, index = tail & *ring->sq_mask;

	ring->sqe[index] = (struct io_uring_sqe){.opcode = IORING_OP_READ_FIXED,
						 .fd = ring->disk,
						 .off = at,
						 .addr = (uintptr_t)(ring->memory + slot * BLOCK),
						 .len = BLOCK,
						 .user_data = slot};
	ring->sq_array[index] = index;
	__atomic_store_n(ring->sq_tail, tail + 1, __ATOMIC_RELEASE);
}

static double read_theirs(struct ring *ring)
{
	uint64_t start = bench_now(), next = 0, got = 0;
	unsigned put = 0;

	for (; next < DEPTH; next++, put++)
		ring_put(ring, next, next * BLOCK);
	while (got < SPAN / BLOCK) {
		unsigned head;

		if (syscall(SYS_io_uring_enter, ring->fd, put, 1, IORING_ENTER_GETEVENTS, NULL, 0) <
		    0)
			bench_die("io_uring_enter: %s", strerror(errno));
		put = 0;
		head = *ring->cq_head;
		for (; head != __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE); head++, got++) {
			const struct io_uring_cqe *cqe = &ring->cqe[head & *ring->cq_mask];

			if (cqe->res != (int)BLOCK)
				bench_die("a read through io_uring answered %d", cqe->res);
			if (next < SPAN / BLOCK) {
				ring_put(ring, cqe->user_data, next++ * BLOCK);
				put++;
			}
		}
		__atomic_store_n(ring->cq_head, head, __ATOMIC_RELEASE);
	}
	return (double)SPAN / BENCH_MIB / ((double)(bench_now() - start) / 1e9);
}

/* ---- cases ---- */

static void case_seqread(struct world *world)
{
	struct ring ring;
	struct bench_case *c;

	if (!bench_wants(world->bench, "seqread-qd32"))
		return;
	c = bench_case(world->bench, "seqread-qd32", "MiB/s", "kernel-iouring-direct",
		       "io_uring, registered buffer, O_DIRECT on " KERNEL_DISK
		       ", the kernel's driver (an emulated controller of the same kind), 64 KiB "
		       "reads, 32 in flight");
	bench_note(c, "64 MiB in reads of 64 KiB, 32 in flight, one thread, interrupts; more is "
		      "better.");
	ring_open(&ring);
	read_ours(world);
	read_theirs(&ring);
	for (unsigned i = 0; i < world->opts->pairs; i++) {
		bench_ours(c, read_ours(world));
		bench_theirs(c, read_theirs(&ring));
	}
	close(ring.fd);
	close(ring.disk);
	free(ring.memory);
}

static void case_import(struct world *world)
{
	struct morsel_nvme_place place = {
		.size = sizeof(place), .ns = 1, .position = 128 * BENCH_MIB};
	struct bench_case *c;

	if (!bench_wants(world->bench, "import-copies"))
		return;
	c = bench_case(world->bench, "import-copies", "bytes", "bytes",
		       "bytes of the file that is imported");
	bench_note(c, "Copied by the CPU on the way from the device's blocks to the morsel's "
		      "frames, as the driver counts.");
	for (unsigned i = 0; i < world->opts->pairs; i++) {
		struct morsel *morsel;

		place.bytes = (i + 1) * BENCH_MIB + i * 1000;
		if (morsel_nvme_import(world->pool, "imported", world->nvme, &place, NULL,
				       &morsel) ||
		    morsel_close(morsel) || morsel_unlink(world->pool, "imported"))
			bench_die("%s", morsel_errormsg());
		if (place.bytes_moved != place.bytes)
			bench_failed(c, "the device moved %llu of %llu bytes",
				     (unsigned long long)place.bytes_moved,
				     (unsigned long long)place.bytes);
		bench_ours(c, (double)place.bytes_copied);
		bench_theirs(c, (double)place.bytes);
	}
}

int main(int argc, char **argv)
{
	struct bench_opts opts = {.pairs = 9};
	struct world world = {.opts = &opts};

	world.bench = bench_start("nvme", &opts, argc, argv);
	bench_emulated(world.bench);
	open_world(&world);
	case_seqread(&world);
	case_import(&world);
	close_world(&world);
	return bench_finish(world.bench);
}
