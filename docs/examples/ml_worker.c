/*
 * A worker that needs a model: the first one to run reads the file, all others map what is there.
 *
 *     $ tools/make-model --format safetensors --bytes 4M model.safetensors
 *     $ ml_worker /dev/shm/models model.safetensors
 *     ... tensors in one mapping of ... bytes, sum of all bytes ...
 *     $ for i in 1 2 3 4; do ml_worker /dev/shm/models model.safetensors > $i & done; wait
 *     $ cat 1 2 3 4 | sort -u | wc -l
 *     1
 *     $ morsel list --json /dev/shm/models | grep -c '"name"'
 *     1
 */
#include <inttypes.h>
#include <stdio.h>

#include <morsel/morsel.h>

static int fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, morsel_errormsg());
	return 1;
}

static uint64_t sum(const unsigned char *bytes, uint64_t count)
{
	uint64_t total = 0, i;

	for (i = 0; i < count; i++)
		total += bytes[i];
	return total;
}

/* Adds up every tensor, each under a grant, and prints what it found. */
static int work(struct morsel *model, struct morsel_view *view)
{
	struct morsel_info info = {.size = sizeof(info)};
	struct morsel_tensor tensor;
	struct morsel_grant grant;
	uint64_t total = 0, i;

	if (morsel_info(model, &info) < 0)
		return fail("info");
	for (i = 0; i < info.tensors; i++) {
		if (morsel_tensor_at(model, i, &tensor) < 0)
			return fail("tensor");
		if (!tensor.bytes)
			continue;
		if (morsel_acquire(view, tensor.offset, tensor.bytes, MORSEL_READ, &grant) < 0)
			return fail(tensor.name);
		total += sum(grant.addr, tensor.bytes);
		morsel_release(&grant);
	}
	printf("%" PRIu64 " tensors in one mapping of %" PRIu64 " bytes, sum of all bytes %" PRIu64
	       "\n",
	       info.tensors, morsel_view_bytes(view), total);
	return 0;
}

int main(int argc, char **argv)
{
	struct morsel_pool_opts pool_opts = {.size = sizeof(pool_opts),
					     .flags = MORSEL_POOL_CREATE};
	struct morsel_map_opts map_opts = {.size = sizeof(map_opts), .access = MORSEL_READ};
	struct morsel_pool *pool;
	struct morsel_view *view;
	struct morsel *model;
	int code;

	if (argc != 3) {
		fprintf(stderr, "usage: ml_worker POOL MODEL\n");
		return 2;
	}
	if (morsel_pool_open(argv[1], &pool_opts, &pool) < 0)
		return fail(argv[1]);
	if (morsel_import(pool, "model", argv[2], NULL, &model) < 0)
		return fail(argv[2]);
	if (morsel_map(model, &map_opts, &view) < 0)
		return fail("map");
	code = work(model, view);
	morsel_view_destroy(view);
	morsel_close(model);
	morsel_pool_close(pool);
	return code;
}
