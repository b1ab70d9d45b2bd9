/*
 * Import and export by a carrier: content, tensors, alignment, and what goes wrong.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <morsel/carrier.h>

#include "support/counts.h"

/* A place in memory, filled by a CPU view, as a device would through one of its own. */
struct place {
	unsigned char *memory;
	uint64_t bytes, moved;
	unsigned fills, drains, finishes, fail_at;
	int fail;
};

static int move(struct place *place, struct morsel *morsel, uint64_t offset, uint64_t position,
		uint64_t bytes, bool fill)
{
	uint64_t first = offset & ~(uint64_t)4095;
	struct morsel_map_opts opts = {.size = sizeof(opts),
				       .access = fill ? MORSEL_READ | MORSEL_WRITE : MORSEL_READ,
				       .offset = first,
				       .bytes = offset + bytes - first};
	struct morsel_view *view;
	struct morsel_grant grant;

	assert_true(position <= place->bytes && bytes <= place->bytes - position);
	assert_int_equal(morsel_map(morsel, &opts, &view), 0);
	assert_int_equal(morsel_acquire(view, offset - first, bytes,
					fill ? MORSEL_WRITE : MORSEL_READ, &grant),
			 0);
	if (fill)
		memcpy(grant.addr, place->memory + position, bytes);
	else
		memcpy(place->memory + position, grant.addr, bytes);
	morsel_release(&grant);
	morsel_view_destroy(view);
	place->moved += bytes;
	return 0;
}

static int fill(void *ctx, struct morsel *morsel, uint64_t offset, uint64_t position,
		uint64_t bytes)
{
	struct place *place = ctx;

	if (++place->fills == place->fail_at)
		return place->fail;
	return move(place, morsel, offset, position, bytes, true);
}

static int drain(void *ctx, struct morsel *morsel, uint64_t offset, uint64_t position,
		 uint64_t bytes)
{
	struct place *place = ctx;

	if (++place->drains == place->fail_at)
		return place->fail;
	return move(place, morsel, offset, position, bytes, false);
}

static int look(void *ctx, uint64_t position, void *buffer, size_t bytes)
{
	struct place *place = ctx;

	memcpy(buffer, place->memory + position, bytes);
	return 0;
}

static int finish(void *ctx, uint64_t bytes)
{
	struct place *place = ctx;

	place->finishes++;
	return bytes == place->bytes ? 0 : -ENOTRECOVERABLE;
}

static const struct morsel_carrier_ops ops = {.size = sizeof(ops),
					      .version = MORSEL_CARRIER_VERSION,
					      .name = "memory",
					      .fill = fill,
					      .read = look,
					      .drain = drain,
					      .finish = finish};

static struct morsel_pool *make_pool(void)
{
	struct morsel_pool_opts opts = {.size = sizeof(opts), .flags = MORSEL_POOL_CREATE};
	struct morsel_pool *pool;

	assert_int_equal(morsel_pool_open(NULL, &opts, &pool), 0);
	return pool;
}

static void end_pool(struct morsel_pool *pool)
{
	assert_int_equal(morsel_pool_check(pool, NULL, NULL), 0);
	assert_int_equal(morsel_pool_close(pool), 0);
}

/* A safetensors file of two tensors of one byte per element. */
static struct place make_place(uint64_t tensor_bytes)
{
	struct place place = {0};
	char header[256];
	uint64_t length, random = test_seed();

	snprintf(header, sizeof(header),
		 "{\"a\":{\"dtype\":\"U8\",\"shape\":[%llu],\"data_offsets\":[0,%llu]},"
		 "\"b\":{\"dtype\":\"U8\",\"shape\":[100],\"data_offsets\":[%llu,%llu]}}",
		 (unsigned long long)tensor_bytes, (unsigned long long)tensor_bytes,
		 (unsigned long long)tensor_bytes, (unsigned long long)tensor_bytes + 100);
	length = strlen(header);
	place.bytes = 8 + length + tensor_bytes + 100;
	place.memory = malloc(place.bytes);
	for (uint64_t i = 0; i < place.bytes; i++)
		place.memory[i] = (unsigned char)test_random(&random);
	memcpy(place.memory, &length, 8);
	memcpy(place.memory + 8, header, length);
	return place;
}

static void there_and_back(uint32_t flags, uint64_t align)
{
	struct morsel_pool *pool = make_pool();
	struct place place = make_place((9 << 20) + 1234), back = {.bytes = place.bytes};
	struct morsel_opts opts = {.size = sizeof(opts), .flags = flags, .tensor_align = align};
	struct morsel_tensor tensor;
	struct morsel *morsel;
	uint64_t bytes;

	back.memory = calloc(1, back.bytes);
	assert_int_equal(morsel_import_by(pool, "m", &ops, &place, place.bytes, &opts, &morsel), 0);
	assert_int_equal(place.moved, place.bytes);
	assert_int_equal(morsel_tensor(morsel, "b", &tensor), 0);
	assert_int_equal(tensor.bytes, 100);
	if (align)
		assert_int_equal(tensor.offset % align, 0);
	assert_int_equal(morsel_export_by(morsel, &ops, &back, NULL, &bytes), 0);
	assert_int_equal(bytes, place.bytes);
	assert_int_equal(back.finishes, 1);
	assert_memory_equal(back.memory, place.memory, place.bytes);
	assert_int_equal(morsel_close(morsel), 0);
	/* The name is there: nothing is read again. */
	bytes = place.fills;
	assert_int_equal(morsel_import_by(pool, "m", &ops, &place, place.bytes, NULL, &morsel), 0);
	assert_int_equal(place.fills, bytes);
	assert_int_equal(morsel_close(morsel), 0);
	free(place.memory);
	free(back.memory);
	end_pool(pool);
}

static void content_goes_there_and_back(void **state)
{
	there_and_back(0, 0);
	there_and_back(0, 4096);
	there_and_back(MORSEL_SCATTERED, 64);
	there_and_back(MORSEL_EVICTABLE, 0);
}

static void what_fails_leaves_nothing(void **state)
{
	struct morsel_pool *pool = make_pool();
	struct place place = make_place(20 << 20);
	struct morsel *morsel = NULL;

	place.fail = -EREMOTEIO;
	place.fail_at = 2;
	assert_int_equal(morsel_import_by(pool, "m", &ops, &place, place.bytes, NULL, &morsel),
			 -EREMOTEIO);
	assert_null(morsel);
	assert_int_equal(morsel_open(pool, "m", NULL, &morsel), -ENOENT);
	place.fail_at = 0;
	assert_int_equal(morsel_import_by(pool, "m", &ops, &place, place.bytes, NULL, &morsel), 0);
	place.fail_at = 2;
	assert_int_equal(morsel_export_by(morsel, &ops, &place, NULL, NULL), -EREMOTEIO);
	assert_int_equal(place.finishes, 0);
	assert_int_equal(morsel_close(morsel), 0);
	free(place.memory);
	end_pool(pool);
}

static void a_table_is_checked(void **state)
{
	struct morsel_pool *pool = make_pool();
	struct morsel_carrier_ops bad = ops;
	struct morsel_opts align = {.size = sizeof(align), .tensor_align = 64};
	struct place place = make_place(100);
	struct morsel *morsel;

	bad.version = 2;
	assert_int_equal(morsel_import_by(pool, "m", &bad, &place, 1, NULL, &morsel),
			 -EPROTONOSUPPORT);
	bad = ops;
	bad.name = NULL;
	assert_int_equal(morsel_import_by(pool, "m", &bad, &place, 1, NULL, &morsel), -EINVAL);
	assert_int_equal(morsel_import_by(pool, "m", NULL, &place, 1, NULL, &morsel), -EINVAL);
	bad = ops;
	bad.fill = NULL;
	assert_int_equal(morsel_import_by(pool, "m", &bad, &place, 1, NULL, &morsel), -EOPNOTSUPP);
	bad = ops;
	bad.read = NULL;
	assert_int_equal(morsel_import_by(pool, "m", &bad, &place, 1, &align, &morsel),
			 -EOPNOTSUPP);
	assert_int_equal(morsel_import_by(pool, "m", &bad, &place, 1ull << 63, NULL, &morsel),
			 -EFBIG);
	assert_int_equal(morsel_import_by(pool, "m", &bad, &place, place.bytes, NULL, &morsel), 0);
	bad.drain = NULL;
	assert_int_equal(morsel_export_by(morsel, &bad, &place, NULL, NULL), -EOPNOTSUPP);
	assert_int_equal(morsel_close(morsel), 0);
	free(place.memory);
	end_pool(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(content_goes_there_and_back),
		cmocka_unit_test(what_fails_leaves_nothing),
		cmocka_unit_test(a_table_is_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
