/*
 * bench_gpu: what it costs that an OpenCL device sees a morsel.
 *
 * Zero copy: what moves, and whether a grant's cost grows with its size (tier host-pointer).
 * Copying: what goes to the device when one page in a hundred has changed, beside OpenCL's own
 * transfer of everything (tier copy, page versions). Inference: layers of matrix by vector whose
 * weights are in a morsel, beside the same kernels on weights that were copied before. Start: a new
 * process until its device can read all weights, beside one that reads the file into memory of its
 * own; the processes run this program anew, for OpenCL does not survive a fork.
 */
#include "bench.h"
#include "pages.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <morsel/gpu.h>

#define COPY_BYTES   BENCH_GIB
#define SMALL_BYTES  (16 * BENCH_MIB)
#define GRANTS	     200u
#define WIDTH	     2048u
#define LAYERS	     16u
#define LAYER_BYTES  (WIDTH * WIDTH * sizeof(float))
#define CHANGED_PART 100u

static const char source[] =
	"kernel void layer(global const float *weights, global const float *in,\n"
	"		   global float *out, uint width) {\n"
	"	uint row = get_global_id(0);\n"
	"	float sum = 0;\n"
	"	for (uint i = 0; i < width; i++)\n"
	"		sum += weights[row * width + i] * in[i];\n"
	"	out[row] = fmax(sum, 0.0f);\n"
	"}\n"
	"kernel void look(global const ulong *words, global ulong *out) {\n"
	"	out[get_global_id(0)] = words[get_global_id(0) << 27];\n"
	"}\n";

static void must(int rc, const char *what)
{
	if (rc)
		bench_die("%s: %d: %s", what, rc, morsel_errormsg());
}

static struct morsel_pool *make_pool(uint64_t bytes)
{
	struct morsel_pool_opts opts = {.size = sizeof(opts),
					.flags = MORSEL_POOL_CREATE,
					.bytes = (bytes / BENCH_GIB + 3) * BENCH_GIB};
	struct morsel_pool *pool;

	must(morsel_pool_open(NULL, &opts, &pool), "a pool");
	return pool;
}

static struct morsel *make_morsel(struct morsel_pool *pool, const char *name, uint64_t bytes)
{
	struct morsel_opts opts = {.size = sizeof(opts), .flags = MORSEL_CREATE, .bytes = bytes};
	struct morsel *morsel;

	must(morsel_open(pool, name, &opts, &morsel), "a morsel");
	return morsel;
}

static struct morsel_view *cpu_view(struct morsel *morsel)
{
	struct morsel_view *view;

	must(morsel_map(morsel, NULL, &view), "a view of the CPU");
	return view;
}

static struct morsel_view *device_view(const struct morsel_cl *cl, struct morsel *morsel,
				       uint32_t tier, uint32_t writers)
{
	struct morsel_cl_opts opts = {.size = sizeof(opts), .tier = tier, .writers = writers};
	struct morsel_view *view;

	must(morsel_cl_view(morsel, cl->context, &opts, &view), "a view of the device");
	return view;
}

static struct morsel_cl_stat stat_of(struct morsel_view *view)
{
	struct morsel_cl_stat stat = {.size = sizeof(stat)};

	must(morsel_cl_view_stat(view, &stat), "counts");
	return stat;
}

static struct morsel_grant acquire(struct morsel_view *view, uint64_t offset, uint64_t bytes)
{
	struct morsel_grant grant;

	must(morsel_cl_acquire(view, offset, bytes, MORSEL_READ, NULL, 0, NULL, &grant, NULL),
	     "acquire");
	return grant;
}

static cl_kernel make_kernel(const struct morsel_cl *cl, const char *name)
{
	const char *text = source;
	cl_program program = clCreateProgramWithSource(cl->context, 1, &text, NULL, NULL);
	cl_kernel kernel;

	must(clBuildProgram(program, 1, &cl->device, "", NULL, NULL), "compiling");
	kernel = clCreateKernel(program, name, NULL);
	clReleaseProgram(program);
	return kernel;
}

/* ---- zero copy ---- */

/* us for one acquire and release of all of the view. */
static double grants(struct morsel_view *view)
{
	uint64_t begun = bench_now();

	for (unsigned i = 0; i < GRANTS; i++) {
		struct morsel_grant grant = acquire(view, 0, morsel_view_bytes(view));

		must(morsel_cl_release(&grant, NULL), "release");
	}
	return (double)(bench_now() - begun) / 1e3 / GRANTS;
}

static void zero_copy(struct bench *bench, const struct morsel_cl *cl, unsigned pairs)
{
	struct bench_case *c =
		bench_case(bench, "zero-copy-64x-size", "us", "zero-copy",
			   "the same acquire and release of a grant of 16 MiB; both in the tier "
			   "host-pointer");
	struct bench_case *moved = bench_case(bench, "zero-copy-bytes", "bytes", "bytes",
					      "the bytes that were granted in one of those grants");
	struct morsel_pool *pool = make_pool(65 * SMALL_BYTES);
	struct morsel *small = make_morsel(pool, "small", SMALL_BYTES);
	struct morsel *large = make_morsel(pool, "large", 64 * SMALL_BYTES);
	struct morsel_view *few = device_view(cl, small, MORSEL_CL_HOST_POINTER, 0);
	struct morsel_view *many = device_view(cl, large, MORSEL_CL_HOST_POINTER, 0);

	grants(few);
	grants(many);
	for (unsigned i = 0; i < pairs; i++) {
		struct morsel_cl_stat stat;

		bench_ours(c, grants(many));
		bench_theirs(c, grants(few));
		stat = stat_of(many);
		bench_ours(moved, (double)(stat.bytes_to_device + stat.bytes_from_device));
		bench_theirs(moved, (double)(64 * SMALL_BYTES));
	}
	bench_note(c, "64 times 16 MiB; mean of %u.", GRANTS);
	morsel_view_destroy(few);
	morsel_view_destroy(many);
	morsel_close(small);
	morsel_close(large);
	morsel_pool_close(pool);
}

/* ---- copying ---- */

struct copying {
	const struct morsel_cl *cl;
	struct morsel_view *cpu, *view;
	uint64_t *words;
	cl_mem plain; /* OpenCL's own */
	uint64_t round, bytes;
	double ms;
};

/* One page in a hundred is written, told of, and brought to the device. */
static void sync_changes(struct copying *y)
{
	uint64_t before = stat_of(y->view).bytes_to_device, begun;
	uint64_t pages = COPY_BYTES / PAGE_BYTES, count = pages / CHANGED_PART;
	struct morsel_grant grant;

	y->round++;
	for (uint64_t i = 0; i < count; i++)
		y->words[(i * CHANGED_PART + (i * 37 + y->round) % CHANGED_PART) * PAGE_WORDS + 5] =
			y->round;
	begun = bench_now();
	for (uint64_t i = 0; i < count; i++)
		morsel_cl_wrote(y->view,
				(i * CHANGED_PART + (i * 37 + y->round) % CHANGED_PART) *
					PAGE_BYTES,
				PAGE_BYTES);
	grant = acquire(y->view, 0, COPY_BYTES);
	y->ms = bench_ms(bench_now() - begun);
	must(morsel_cl_release(&grant, NULL), "release");
	y->bytes = stat_of(y->view).bytes_to_device - before;
}

static double write_all(struct copying *y)
{
	uint64_t begun = bench_now();

	must(clEnqueueWriteBuffer(y->cl->queue, y->plain, CL_TRUE, 0, COPY_BYTES, y->words, 0, NULL,
				  NULL),
	     "clEnqueueWriteBuffer");
	return bench_ms(bench_now() - begun);
}

/* The device has what the morsel has. */
static void check_copy(struct copying *y)
{
	struct morsel_grant grant = acquire(y->view, 0, COPY_BYTES);
	struct morsel_cl_native native;
	uint64_t *have = malloc(COPY_BYTES);

	must(morsel_cl_native(&grant, &native), "native");
	must(clEnqueueReadBuffer(y->cl->queue, native.mem, CL_TRUE, 0, COPY_BYTES, have, 0, NULL,
				 NULL),
	     "reading back");
	if (memcmp(have, y->words, COPY_BYTES))
		bench_die("the device does not have what the morsel has");
	free(have);
	must(morsel_cl_release(&grant, NULL), "release");
}

static void copying(struct bench *bench, const struct morsel_cl *cl, unsigned pairs)
{
	struct bench_case *bytes = bench_case(bench, "sync-1pct-bytes", "bytes", "full-write-bytes",
					      "clEnqueueWriteBuffer of the whole buffer of 1 GiB");
	struct bench_case *time =
		bench_case(bench, "sync-1pct-time", "ms", "full-write-time",
			   "clEnqueueWriteBuffer of the whole buffer of 1 GiB, blocking");
	struct morsel_pool *pool = make_pool(COPY_BYTES);
	struct morsel *morsel = make_morsel(pool, "m", COPY_BYTES);
	struct copying y = {.cl = cl, .cpu = cpu_view(morsel)};
	struct morsel_grant grant;

	y.words = morsel_addr(y.cpu);
	for (uint64_t page = 0; page < COPY_BYTES / PAGE_BYTES; page++)
		y.words[page * PAGE_WORDS] = page_number(page);
	y.view = device_view(cl, morsel, MORSEL_CL_COPY, MORSEL_CL_WRITERS_TELL);
	y.plain = clCreateBuffer(cl->context, CL_MEM_READ_WRITE, COPY_BYTES, NULL, NULL);
	grant = acquire(y.view, 0, COPY_BYTES);
	must(morsel_cl_release(&grant, NULL), "release");
	write_all(&y);
	for (unsigned i = 0; i < pairs; i++) {
		sync_changes(&y);
		bench_ours(bytes, (double)y.bytes);
		bench_theirs(bytes, (double)COPY_BYTES);
		bench_ours(time, y.ms);
		bench_theirs(time, write_all(&y));
	}
	check_copy(&y);
	bench_note(time, "tier copy, every 100th page, no two side by side; telling, finding and "
			 "transferring them.");
	clReleaseMemObject(y.plain);
	morsel_view_destroy(y.view);
	morsel_view_destroy(y.cpu);
	morsel_close(morsel);
	morsel_pool_close(pool);
}

/* ---- inference ---- */

struct network {
	const struct morsel_cl *cl;
	cl_kernel kernel;
	cl_mem weights[LAYERS]; /* copied */
	cl_mem signal[2];
	struct morsel_view *view;
	float result[2][WIDTH];
};

static void run_layer(struct network *n, unsigned layer)
{
	cl_uint width = WIDTH;
	size_t rows = WIDTH;

	clSetKernelArg(n->kernel, 1, sizeof(cl_mem), &n->signal[layer % 2]);
	clSetKernelArg(n->kernel, 2, sizeof(cl_mem), &n->signal[1 - layer % 2]);
	clSetKernelArg(n->kernel, 3, sizeof(width), &width);
	must(clEnqueueNDRangeKernel(n->cl->queue, n->kernel, 1, NULL, &rows, NULL, 0, NULL, NULL),
	     "a layer");
}

static void put_input(struct network *n)
{
	float input[WIDTH];

	for (unsigned i = 0; i < WIDTH; i++)
		input[i] = (float)(i % 7) / 7;
	must(clEnqueueWriteBuffer(n->cl->queue, n->signal[0], CL_TRUE, 0, sizeof(input), input, 0,
				  NULL, NULL),
	     "the input");
}

/* ms for all layers; weights by grants of the view, or copied before. */
static double infer(struct network *n, bool by_view)
{
	uint64_t begun;

	put_input(n);
	begun = bench_now();
	for (unsigned i = 0; i < LAYERS; i++) {
		struct morsel_grant grant;
		cl_event done;

		if (!by_view) {
			clSetKernelArg(n->kernel, 0, sizeof(cl_mem), &n->weights[i]);
			run_layer(n, i);
			continue;
		}
		grant = acquire(n->view, i * LAYER_BYTES, LAYER_BYTES);
		must(morsel_cl_arg(n->kernel, 0, &grant), "an argument");
		run_layer(n, i);
		must(clEnqueueMarkerWithWaitList(n->cl->queue, 0, NULL, &done), "a marker");
		must(morsel_cl_release(&grant, done), "release");
		clReleaseEvent(done);
	}
	must(clEnqueueReadBuffer(n->cl->queue, n->signal[LAYERS % 2], CL_TRUE, 0,
				 sizeof(n->result[0]), n->result[by_view], 0, NULL, NULL),
	     "the result");
	return bench_ms(bench_now() - begun);
}

static void inference(struct bench *bench, const struct morsel_cl *cl, unsigned pairs)
{
	struct bench_case *c = bench_case(bench, "inference", "ms", "copied-weights-inference",
					  "the same kernels on buffers into which the weights were "
					  "copied before");
	struct morsel_pool *pool = make_pool(LAYERS * LAYER_BYTES);
	struct morsel *morsel = make_morsel(pool, "weights", LAYERS * LAYER_BYTES);
	struct morsel_view *cpu = cpu_view(morsel);
	struct network n = {.cl = cl, .kernel = make_kernel(cl, "layer")};
	float *weights = morsel_addr(cpu);

	for (uint64_t i = 0; i < (uint64_t)LAYERS * WIDTH * WIDTH; i++)
		weights[i] = (float)((int)(i * 2654435761u >> 20 & 63) - 30) / 1024;
	n.view = device_view(cl, morsel, MORSEL_CL_AUTO, 0);
	for (unsigned i = 0; i < 2; i++)
		n.signal[i] = clCreateBuffer(cl->context, CL_MEM_READ_WRITE, WIDTH * sizeof(float),
					     NULL, NULL);
	for (unsigned i = 0; i < LAYERS; i++)
		n.weights[i] = clCreateBuffer(cl->context, CL_MEM_READ_ONLY | CL_MEM_COPY_HOST_PTR,
					      LAYER_BYTES, weights + i * WIDTH * WIDTH, NULL);
	infer(&n, true);
	infer(&n, false);
	for (unsigned i = 0; i < 2 * pairs; i++) {
		bench_ours(c, infer(&n, true));
		bench_theirs(c, infer(&n, false));
		if (memcmp(n.result[0], n.result[1], sizeof(n.result[0])))
			bench_die("the results differ");
	}
	bench_note(c, "%u layers of %u x %u by vector, tier %s; results are equal.", LAYERS, WIDTH,
		   WIDTH, morsel_cl_tier_name(stat_of(n.view).tier));
	must(morsel_cl_finish(n.view), "the end of all grants");
	for (unsigned i = 0; i < LAYERS; i++)
		clReleaseMemObject(n.weights[i]);
	for (unsigned i = 0; i < 2; i++)
		clReleaseMemObject(n.signal[i]);
	clReleaseKernel(n.kernel);
	morsel_view_destroy(n.view);
	morsel_view_destroy(cpu);
	morsel_close(morsel);
	morsel_pool_close(pool);
}

/* ---- start of a process ---- */

/* In the new process: the device has read a word of every GiB of what the buffers show. */
static void look(const struct morsel_cl *cl, cl_mem mem, uint64_t bytes)
{
	cl_kernel kernel = make_kernel(cl, "look");
	size_t count = (bytes + BENCH_GIB - 1) / BENCH_GIB;
	uint64_t words[64];
	cl_mem out = clCreateBuffer(cl->context, CL_MEM_READ_WRITE, sizeof(words), NULL, NULL);

	clSetKernelArg(kernel, 0, sizeof(mem), &mem);
	clSetKernelArg(kernel, 1, sizeof(out), &out);
	must(clEnqueueNDRangeKernel(cl->queue, kernel, 1, NULL, &count, NULL, 0, NULL, NULL),
	     "a kernel");
	must(clEnqueueReadBuffer(cl->queue, out, CL_TRUE, 0, count * 8, words, 0, NULL, NULL),
	     "what it read");
	for (size_t i = 0; i < count; i++)
		if (words[i] != page_number(i * (BENCH_GIB / PAGE_BYTES)))
			bench_die("GiB %zu is not what it should be", i);
}

static void start_by_morsel(const struct morsel_cl *cl, int fd)
{
	struct morsel_cl_native native;
	struct morsel_grant grant;
	struct morsel_pool *pool;
	struct morsel_view *view;
	struct morsel *morsel;

	must(morsel_pool_open_fd(fd, NULL, &pool), "the pool");
	must(morsel_open(pool, "m", NULL, &morsel), "the morsel");
	view = device_view(cl, morsel, MORSEL_CL_HOST_POINTER, 0);
	grant = acquire(view, 0, morsel_view_bytes(view));
	must(morsel_cl_native(&grant, &native), "native");
	look(cl, native.mem, morsel_view_bytes(view));
}

static void start_by_reading(const struct morsel_cl *cl, int fd, uint64_t bytes)
{
	char *own = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cl_mem mem;

	for (uint64_t done = 0; done < bytes;) {
		ssize_t n = pread(fd, own + done, bytes - done, (off_t)done);

		if (n <= 0)
			bench_die("reading the weights failed");
		done += (uint64_t)n;
	}
	mem = clCreateBuffer(cl->context, CL_MEM_READ_ONLY | CL_MEM_USE_HOST_PTR, bytes, own, NULL);
	look(cl, mem, bytes);
}

/* The program anew: WHAT FD BYTES. */
static int probe(char **argv)
{
	uint64_t bytes = strtoull(argv[3], NULL, 10);
	int fd = atoi(argv[2]);
	struct morsel_cl cl;

	must(morsel_cl_open(NULL, &cl), "a device");
	if (!strcmp(argv[1], "start-by-morsel"))
		start_by_morsel(&cl, fd);
	else
		start_by_reading(&cl, fd, bytes);
	_exit(0);
}

/* ms from before the process was made until it has done its work and gone. */
static double process(const char *what, int fd, uint64_t bytes)
{
	char descriptor[16], size[32];
	uint64_t begun = bench_now();
	pid_t pid;
	int status;

	snprintf(descriptor, sizeof(descriptor), "%d", fd);
	snprintf(size, sizeof(size), "%" PRIu64, bytes);
	pid = fork();
	if (!pid) {
		execl("/proc/self/exe", "bench_gpu", what, descriptor, size, NULL);
		_exit(127);
	}
	if (waitpid(pid, &status, 0) != pid || status)
		bench_die("the process %s ended with %d", what, status);
	return bench_ms(bench_now() - begun);
}

static void start(struct bench *bench, unsigned pairs, uint64_t bytes)
{
	struct bench_case *c =
		bench_case(bench, "nth-process-start", "ms", "private-read-start",
			   "a process that reads the hot file into memory of its own, and makes a "
			   "buffer of it");
	struct morsel_pool *pool;
	struct morsel *morsel;
	struct morsel_view *cpu;
	char *at;
	int fd, file;

	if (bench_memory_available() < 3 * bytes + BENCH_GIB) {
		bench_failed(c, "3 times %" PRIu64 " MiB are not free", bytes / BENCH_MIB);
		return;
	}
	pool = make_pool(bytes);
	morsel = make_morsel(pool, "m", bytes);
	cpu = cpu_view(morsel);
	at = morsel_addr(cpu);
	for (uint64_t page = 0; page < bytes / PAGE_BYTES; page++)
		*(uint64_t *)(at + page * PAGE_BYTES) = page_number(page);
	file = memfd_create("weights", 0);
	for (uint64_t done = 0; done < bytes;) {
		ssize_t n = pwrite(file, at + done, bytes - done, (off_t)done);

		if (n <= 0)
			bench_die("no memory for the file");
		done += (uint64_t)n;
	}
	fd = dup(morsel_pool_fd(pool)); /* without close-on-exec */
	process("start-by-morsel", fd, bytes);
	for (unsigned i = 0; i < pairs; i++) {
		bench_ours(c, process("start-by-morsel", fd, bytes));
		bench_theirs(c, process("start-by-reading", file, bytes));
	}
	bench_note(c,
		   "%.2f GiB of weights; making the process, the device's context and a kernel "
		   "is in both; the file is in memory.",
		   (double)bytes / (double)BENCH_GIB);
	close(fd);
	close(file);
	morsel_view_destroy(cpu);
	morsel_close(morsel);
	morsel_pool_close(pool);
}

int main(int argc, char **argv)
{
	struct bench_opts opts = {.pairs = 7, .bytes = 6984ull * BENCH_MIB};
	struct bench *bench;
	struct morsel_cl cl;

	if (argc == 4 && !strncmp(argv[1], "start-by-", 9))
		return probe(argv);
	bench = bench_start("gpu", &opts, argc, argv);
	if (bench_wants(bench, "nth-process-start"))
		start(bench, opts.pairs, opts.bytes & ~(uint64_t)(PAGE_BYTES - 1));
	must(morsel_cl_open(NULL, &cl), "a device");
	if (bench_wants(bench, "zero-copy-bytes") || bench_wants(bench, "zero-copy-64x-size"))
		zero_copy(bench, &cl, opts.pairs);
	if (bench_wants(bench, "sync-1pct-bytes") || bench_wants(bench, "sync-1pct-time"))
		copying(bench, &cl, opts.pairs);
	if (bench_wants(bench, "inference"))
		inference(bench, &cl, opts.pairs);
	morsel_cl_close(&cl);
	return bench_finish(bench);
}
