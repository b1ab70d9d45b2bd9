/*
 * The NVMe driver against a controller of plain memory: data pointers against a loop that walks
 * them back, random reads and writes in every shape of controller, and everything that can go
 * wrong.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "iommu/nvme_fake.h"
#include "nvme/internal.h"
#include "nvme/kept.h"
#include "support/counts.h"

/* ---- data pointers ---- */

#define LIST_BYTES (64u << 10)

/* The words of memory that pieces name, one number each: what any form must lead back to. */
struct words {
	uint64_t word[1 << 17];
	unsigned count;
};

static void add_words(struct words *words, uint64_t iova, uint64_t bytes)
{
	for (uint64_t i = 0; i < bytes; i += 4)
		words->word[words->count++] = iova + i;
}

static void walk_prp(struct words *words, const struct mrs_nvme_sqe *sqe, uint64_t bytes,
		     uint64_t page, const struct mrs_nvme_list *list)
{
	uint64_t first = page - sqe->dptr[0] % page, at = 0, left;

	if (first > bytes)
		first = bytes;
	add_words(words, sqe->dptr[0], first);
	left = bytes - first;
	if (left && left <= page) {
		add_words(words, sqe->dptr[1], left);
		return;
	}
	if (left)
		assert_true(sqe->dptr[1] == list->iova);
	for (; left; at += 8) {
		uint64_t entry;

		assert_in_range(at, 0, list->bytes - 8);
		memcpy(&entry, (char *)list->memory + at, 8);
		assert_int_equal(entry % page, 0);
		if ((at + 8) % page == 0 && left > page) {
			at = entry - list->iova - 8;
			continue;
		}
		add_words(words, entry, left < page ? left : page);
		left -= left < page ? left : page;
	}
}

static void walk_sgl(struct words *words, const struct mrs_nvme_sqe *sqe,
		     const struct mrs_nvme_list *list)
{
	struct mrs_nvme_sgl one, entry;

	memcpy(&one, sqe->dptr, sizeof(one));
	assert_int_equal(sqe->flags, 0x40);
	if (one.type == 0x00) {
		add_words(words, one.address, one.bytes);
		return;
	}
	assert_int_equal(one.type, 0x30);
	assert_true(one.address == list->iova);
	for (unsigned i = 0; i < one.bytes / 16; i++) {
		memcpy(&entry, (char *)list->memory + i * 16, sizeof(entry));
		assert_int_equal(entry.type, 0);
		add_words(words, entry.address, entry.bytes);
	}
}

/* Runs as a morsel has them: pages of 4 KiB and of 2 MiB, some of them neighbours; aligned or not.
 */
static unsigned make_pieces(uint64_t *random, struct morsel_nvme_piece piece[], bool inside)
{
	unsigned count = 1 + test_random(random) % 6;
	uint64_t at = 0, total = 0;

	for (unsigned i = 0; i < count; i++) {
		uint64_t pages = test_random(random) % 4 ? 1 + test_random(random) % 3 : 20;
		bool next = i && test_random(random) % 3 == 0;

		piece[i].iova = next ? at : (1 + test_random(random) % 1000) << 21;
		piece[i].bytes = pages * 4096;
		if (inside && (i == 0 || test_random(random) % 2)) {
			uint64_t skip = test_random(random) % 1024 * 4;

			piece[i].iova += i == 0 || !next ? skip : 0;
			piece[i].bytes -= skip;
		}
		if (!piece[i].bytes)
			piece[i].bytes = 4;
		at = piece[i].iova + piece[i].bytes;
		total += piece[i].bytes;
	}
	return total < sizeof(((struct words *)0)->word) / 2 ? count : 1;
}

static void pointers_lead_back(void **state)
{
	struct words *wanted = malloc(sizeof(*wanted)), *found = malloc(sizeof(*found));
	struct mrs_nvme_list list = {.memory = aligned_alloc(4096, LIST_BYTES),
				     .iova = 0x123400000,
				     .bytes = LIST_BYTES};
	uint64_t random = test_seed();
	unsigned prps = 0, refused = 0;

	for (unsigned step = 0; step < COUNT_NVME_POINTERS; step++) {
		struct morsel_nvme_piece piece[8];
		uint64_t page = 4096ull << (test_random(&random) % 3), bytes = 0;
		unsigned count = make_pieces(&random, piece, step % 2);
		struct mrs_nvme_sqe sqe = {0};
		int rc;

		wanted->count = 0;
		for (unsigned i = 0; i < count; i++) {
			add_words(wanted, piece[i].iova, piece[i].bytes);
			bytes += piece[i].bytes;
		}
		found->count = 0;
		rc = mrs_nvme_prp(&sqe, piece, count, page, &list);
		assert_int_equal(rc, mrs_nvme_prp_fits(piece, count, page) ? 0 : -EINVAL);
		if (rc) {
			refused++;
		} else {
			prps++;
			walk_prp(found, &sqe, bytes, page, &list);
			assert_int_equal(found->count, wanted->count);
			assert_memory_equal(found->word, wanted->word, wanted->count * 8);
		}
		found->count = 0;
		sqe = (struct mrs_nvme_sqe){0};
		assert_int_equal(mrs_nvme_sgl(&sqe, piece, count, &list), 0);
		walk_sgl(found, &sqe, &list);
		assert_int_equal(found->count, wanted->count);
		assert_memory_equal(found->word, wanted->word, wanted->count * 8);
	}
	printf("%u as PRPs, %u only as SGL\n", prps, refused);
	assert_true(prps && refused);
	free(list.memory);
	free(wanted);
	free(found);
}

/* Lists of exactly one page, one entry more, and two pages. */
static void long_lists_lead_back(void **state)
{
	struct words *wanted = malloc(sizeof(*wanted)), *found = malloc(sizeof(*found));
	struct mrs_nvme_list list = {.memory = aligned_alloc(4096, 3 * 4096), .iova = 0x5000000};

	for (uint64_t pages = 1; pages <= 128; pages++) {
		struct morsel_nvme_piece piece = {0x40000000, pages * 16 * 4096};

		/* Small pages would need much memory here: so as if pages were of 64 bytes. */
		piece.bytes = pages * 64;
		for (uint64_t skip = 0; skip < 64; skip += 60) {
			struct mrs_nvme_sqe sqe = {0};
			struct morsel_nvme_piece one = {piece.iova + skip, piece.bytes - skip};

			list.bytes = mrs_nvme_prp_list_bytes(one.bytes, 64);
			wanted->count = found->count = 0;
			add_words(wanted, one.iova, one.bytes);
			assert_int_equal(mrs_nvme_prp(&sqe, &one, 1, 64, &list), 0);
			walk_prp(found, &sqe, one.bytes, 64, &list);
			assert_int_equal(found->count, wanted->count);
			assert_memory_equal(found->word, wanted->word, wanted->count * 8);
			if (pages > 20) {
				list.bytes = 64;
				assert_int_equal(mrs_nvme_prp(&sqe, &one, 1, 64, &list), -E2BIG);
			}
		}
	}
	free(list.memory);
	free(wanted);
	free(found);
}

static void odd_memory_is_refused(void **state)
{
	uint64_t memory[16];
	struct mrs_nvme_list list = {.memory = memory, .iova = 0x1000, .bytes = sizeof(memory)};
	struct mrs_nvme_sqe sqe = {0};
	struct morsel_nvme_piece odd[] = {{0x2001, 512}}, empty[] = {{0x2000, 0}},
				 wraps[] = {{~0ull - 3, 512}}, many[9];

	assert_int_equal(mrs_nvme_prp(&sqe, odd, 1, 4096, &list), -EINVAL);
	assert_int_equal(mrs_nvme_sgl(&sqe, odd, 1, &list), -EINVAL);
	assert_int_equal(mrs_nvme_sgl(&sqe, empty, 1, &list), -EINVAL);
	assert_int_equal(mrs_nvme_prp(&sqe, wraps, 1, 4096, &list), -EINVAL);
	for (unsigned i = 0; i < 9; i++)
		many[i] = (struct morsel_nvme_piece){0x10000 * i, 512};
	assert_int_equal(mrs_nvme_sgl(&sqe, many, 9, &list), -E2BIG);
	assert_int_equal(mrs_nvme_sgl(&sqe, many, 8, &list), 0);
}

/* ---- identify data ---- */

static void identity_is_parsed(void **state)
{
	unsigned char data[4096] = {0};
	struct mrs_nvme_identity identity;
	struct mrs_nvme_geometry geometry;

	assert_int_equal(mrs_nvme_identity_parse(data, 12, &identity), -EOPNOTSUPP);
	data[512] = 0x66;
	data[513] = 0x44;
	memcpy(data + 24, "model \033[31m      ", 17);
	data[77] = 5;
	data[520] = 4;
	assert_int_equal(mrs_nvme_identity_parse(data, 13, &identity), 0);
	assert_string_equal(identity.model, "model ?[31m");
	assert_int_equal(identity.transfer_max, 32 << 13);
	assert_true(identity.deallocate && !identity.write_zeroes && !identity.sgl);
	data[77] = 0;
	assert_int_equal(mrs_nvme_identity_parse(data, 12, &identity), 0);
	assert_true(identity.transfer_max == UINT64_MAX);
	data[77] = 255;
	assert_int_equal(mrs_nvme_identity_parse(data, 12, &identity), 0);

	memset(data, 0, sizeof(data));
	assert_int_equal(mrs_nvme_geometry_parse(data, 1, &geometry), -ENOENT);
	data[0] = 100;
	data[130] = 12;
	assert_int_equal(mrs_nvme_geometry_parse(data, 1, &geometry), 0);
	assert_int_equal(geometry.block_bytes, 4096);
	data[128] = 8; /* metadata */
	assert_int_equal(mrs_nvme_geometry_parse(data, 1, &geometry), -EOPNOTSUPP);
	data[128] = 0;
	data[130] = 40;
	assert_int_equal(mrs_nvme_geometry_parse(data, 1, &geometry), -EOPNOTSUPP);
	data[26] = 3; /* beyond the formats it has */
	assert_int_equal(mrs_nvme_geometry_parse(data, 1, &geometry), -EOPNOTSUPP);
}

/* ---- heads of kept files ---- */

/* Exports, each torn at any byte of its head: the file before it, or it. */
static void a_torn_head_leaves_the_old_file(void **state)
{
	const uint64_t place = 64 << 20;
	unsigned char heads[2 * NVME_HEAD_BYTES] = {0}, fresh[NVME_HEAD_BYTES];
	struct mrs_kept_head head;
	uint64_t random = test_seed();

	assert_int_equal(mrs_kept_newest(heads, place, &head), -1);
	assert_true(mrs_kept_half_at(place, 1) + mrs_kept_half_bytes(place) <= place);
	for (uint64_t serial = 1; serial < 60; serial++) {
		unsigned char *at = heads + (serial & 1) * NVME_HEAD_BYTES, before[NVME_HEAD_BYTES];

		memcpy(before, at, sizeof(before));
		mrs_kept_make(fresh, serial, 1000 + serial, place);
		for (unsigned i = 0; i < 20; i++) {
			size_t torn = test_random(&random) % 48;

			memcpy(at, before, sizeof(before));
			memcpy(at, fresh, torn);
			if (memcmp(at, fresh, 48) == 0 || memcmp(at, before, 48) == 0)
				continue;
			assert_int_equal(mrs_kept_newest(heads, place, &head),
					 serial == 1 ? -1 : (int)(~serial & 1));
			if (serial > 1)
				assert_int_equal(head.bytes, 999 + serial);
		}
		memcpy(at, fresh, sizeof(fresh));
		assert_int_equal(mrs_kept_newest(heads, place, &head), (int)(serial & 1));
		assert_int_equal(head.bytes, 1000 + serial);
	}
	/* Of another place, or longer than a half: none. */
	assert_int_equal(mrs_kept_newest(heads, place + 4096, &head), -1);
	mrs_kept_make(heads, 1000, place, place);
	assert_int_equal(mrs_kept_newest(heads, place, &head), 1);
}

/* ---- a controller ---- */

static struct morsel_nvme *open_patient(struct fake *fake, uint32_t queues, uint32_t depth,
					uint32_t timeout_ms)
{
	struct morsel_nvme_opts opts = {
		.size = sizeof(opts), .queues = queues, .depth = depth, .timeout_ms = timeout_ms};
	struct mrs_nvme_port port = fake_port(fake, 0);
	struct morsel_nvme *nvme = NULL;
	int rc = mrs_nvme_open_port(&port, &opts, &nvme);

	if (rc)
		printf("%d: %s\n", rc, morsel_errormsg());
	assert_int_equal(rc, 0);
	return nvme;
}

static struct morsel_nvme *open_fake(struct fake *fake, uint32_t queues, uint32_t depth)
{
	return open_patient(fake, queues, depth, 100);
}

static void check_queues(struct morsel_nvme *nvme)
{
	assert_true(mrs_ring_valid(&nvme->admin.ring));
	for (unsigned i = 0; i < nvme->queues_made; i++)
		assert_true(mrs_ring_valid(&nvme->queue[i].ring));
}

static void end_fake(struct fake *fake, struct morsel_nvme *nvme)
{
	check_queues(nvme);
	morsel_nvme_close(nvme);
	assert_true(fake->closed);
	assert_int_equal(fake->mistakes, 0);
	fake_free(fake);
}

static void it_opens_and_tells(void **state)
{
	struct fake *fake = fake_make(1);
	struct morsel_nvme *nvme = open_fake(fake, 3, 8);
	struct morsel_nvme_info info = {.size = sizeof(info)};
	struct morsel_nvme_namespace ns = {.size = sizeof(ns)};

	assert_int_equal(morsel_nvme_info(nvme, &info), 0);
	assert_string_equal(info.serial, "SERIAL7");
	assert_string_equal(info.model, "plain memory");
	assert_int_equal(info.queues, 3);
	assert_int_equal(info.depth, 8);
	assert_int_equal(info.transfer_max, 32 * 4096);
	assert_true(info.sgl && info.write_zeroes && info.deallocate && info.write_cache);
	assert_int_equal(morsel_nvme_namespace(nvme, 2, &ns), 0);
	assert_int_equal(ns.block_bytes, 4096);
	assert_int_equal(ns.blocks, 1024);
	assert_int_equal(morsel_nvme_namespace(nvme, 3, &ns), -ENOENT);
	assert_int_equal(morsel_nvme_namespace(nvme, 0, &ns), -ENOENT);
	assert_int_equal(morsel_nvme_namespace(nvme, 99, &ns), -ENOENT);
	end_fake(fake, nvme);
}

static void few_queues_are_shared(void **state)
{
	struct fake *fake = fake_make(1);
	struct morsel_nvme *nvme;
	struct fake_region *region = fake_map(fake, 8192, true);
	struct morsel_nvme_piece piece = {region->iova, 512};
	struct morsel_nvme_io io = {.op = MORSEL_NVME_READ,
				    .ns = 1,
				    .blocks = 1,
				    .pieces = &piece,
				    .count = 1,
				    .user = &io};
	struct morsel_nvme_done done;

	fake->queues_max = 1;
	nvme = open_fake(fake, 4, 4);
	assert_int_equal(nvme->queues, 1);
	assert_int_equal(nvme->queues_made, 1);
	fake->ns[0].bytes[0] = 42;
	/* One of ours is in flight while a simple call goes on: its answer is kept for us. */
	assert_int_equal(morsel_nvme_submit(nvme, 0, &io), 0);
	piece.iova += 512;
	assert_int_equal(mrs_nvme_transfer(nvme, MORSEL_NVME_READ, 1, 512, &piece, 1), 0);
	assert_int_equal(morsel_nvme_poll(nvme, 0, &done, 1, 0), 1);
	assert_true(done.user == &io && !done.rc);
	assert_int_equal(region->memory[0], 42);
	assert_int_equal(morsel_nvme_poll(nvme, 0, &done, 1, -1), 0);
	assert_int_equal(morsel_nvme_poll(nvme, 1, &done, 1, 0), -EINVAL);
	end_fake(fake, nvme);
}

/* ---- random commands against a shadow copy ---- */

#define MEMORY (2u << 20)
#define FLYING 64

struct flight {
	struct morsel_nvme_io io;
	struct morsel_nvme_piece piece[4];
	uint64_t first, end; /* bytes of the media that it covers */
	uint64_t memory[4];  /* where in our memory the pieces are */
	bool used;
};

struct world {
	struct fake *fake;
	struct morsel_nvme *nvme;
	struct fake_region *memory;
	unsigned char *shadow; /* of namespace 1 */
	struct flight flight[FLYING];
	uint64_t random, done;
};

static bool overlaps(const struct world *world, uint64_t first, uint64_t end, uint64_t at,
		     uint64_t bytes)
{
	for (unsigned i = 0; i < FLYING; i++) {
		const struct flight *f = &world->flight[i];

		if (!f->used)
			continue;
		if (first < f->end && f->first < end)
			return true;
		for (unsigned k = 0; k < f->io.count; k++)
			if (at < f->memory[k] + f->piece[k].bytes && f->memory[k] < at + bytes)
				return true;
	}
	return false;
}

/* One to four pieces, of whole pages but for the ends. False: no place for it now. */
static bool plan_flight(struct world *world, struct flight *f)
{
	uint64_t page = world->nvme->page_bytes, bytes, at;
	unsigned pieces = 1 + test_random(&world->random) % 4;

	f->io = (struct morsel_nvme_io){.op = test_random(&world->random) % 2 ? MORSEL_NVME_READ
									      : MORSEL_NVME_WRITE,
					.ns = 1};
	bytes = pieces * page;
	if (pieces == 1)
		bytes = 512 *
			(1 + test_random(&world->random) % (world->nvme->transfer_max / 1024));
	f->first = test_random(&world->random) % ((4 << 20) - bytes) / 512 * 512;
	f->end = f->first + bytes;
	f->io.block = f->first / 512;
	f->io.blocks = (uint32_t)(bytes / 512);
	f->io.count = pieces;
	for (unsigned i = 0; i < pieces; i++) {
		uint64_t part = pieces == 1 ? bytes : page;

		at = test_random(&world->random) % (MEMORY - part);
		at = pieces == 1 ? at / 4 * 4 : at / page * page;
		if (overlaps(world, f->first, f->end, at, part))
			return false;
		for (unsigned k = 0; k < i; k++)
			if (f->memory[k] == at)
				return false;
		f->memory[i] = at;
		f->piece[i] = (struct morsel_nvme_piece){world->memory->iova + at, part};
	}
	f->io.pieces = f->piece;
	f->io.user = f;
	if (world->nvme->identity.sgl)
		f->io.flags = (uint32_t[]){0, MORSEL_NVME_PRP,
					   MORSEL_NVME_SGL}[test_random(&world->random) % 3];
	if (test_random(&world->random) % 3 == 0)
		f->io.flags |= MORSEL_NVME_MORE;
	return true;
}

static void land(struct world *world, const struct morsel_nvme_done *done)
{
	struct flight *f = done->user;
	uint64_t at = f->first;

	assert_int_equal(done->rc, 0);
	assert_true(f->used);
	for (unsigned i = 0; i < f->io.count; i++) {
		unsigned char *memory = world->memory->memory + f->memory[i];

		if (f->io.op == MORSEL_NVME_WRITE)
			memcpy(world->shadow + at, memory, f->piece[i].bytes);
		else
			assert_memory_equal(world->shadow + at, memory, f->piece[i].bytes);
		at += f->piece[i].bytes;
	}
	f->used = false;
	world->done++;
}

static void launch(struct world *world)
{
	struct flight *f = &world->flight[test_random(&world->random) % FLYING];
	unsigned queue = (unsigned)(test_random(&world->random) % world->nvme->queues);
	int rc;

	if (f->used || !plan_flight(world, f))
		return;
	for (unsigned i = 0; i < f->io.count && f->io.op == MORSEL_NVME_WRITE; i++)
		for (uint64_t k = 0; k < f->piece[i].bytes; k += 64)
			world->memory->memory[f->memory[i] + k] =
				(unsigned char)test_random(&world->random);
	rc = morsel_nvme_submit(world->nvme, queue, &f->io);
	if (rc != -EAGAIN)
		assert_int_equal(rc, 0);
	f->used = !rc;
}

static void gather(struct world *world, int timeout_ms)
{
	struct morsel_nvme_done done[8];

	for (unsigned q = 0; q < world->nvme->queues; q++) {
		int got = morsel_nvme_poll(world->nvme, q, done,
					   1 + test_random(&world->random) % 8, timeout_ms);

		assert_true(got >= 0);
		for (int i = 0; i < got; i++)
			land(world, &done[i]);
	}
}

static bool any_flying(const struct world *world)
{
	for (unsigned i = 0; i < FLYING; i++)
		if (world->flight[i].used)
			return true;
	return false;
}

static void run_shape(uint64_t seed, unsigned shape)
{
	struct world *world = calloc(1, sizeof(*world));
	struct fake *fake = fake_make(seed + shape);

	fake->doorbell_shift = shape % 3;
	fake->page_shift = 12 + (shape / 3 % 3) * 2;
	fake->mdts = shape % 2 ? 5 : 3;
	fake->reorder = shape % 2;
	fake->sgl = shape % 4 != 3;
	fake->batch = shape % 5;
	fake->entries_max = shape % 2 ? 2048 : 8;
	*world = (struct world){.fake = fake,
				.nvme = open_patient(fake, 1 + shape % 3, 3 + shape * 5, 1000000),
				.memory = fake_map(fake, MEMORY, true),
				.shadow = calloc(1, 4 << 20),
				.random = seed * 1000 + shape};
	for (unsigned step = 0; world->done < COUNT_NVME_COMMANDS; step++) {
		launch(world);
		if (test_random(&world->random) % 4 == 0)
			gather(world, (int)(test_random(&world->random) % 3));
	}
	while (any_flying(world))
		gather(world, -1);
	check_queues(world->nvme);
	assert_memory_equal(world->shadow, fake->ns[0].bytes, 4 << 20);
	assert_int_equal(fake->faults, 0);
	assert_true(fake->prps || fake->sgl);
	free(world->shadow);
	end_fake(fake, world->nvme);
	free(world);
}

static void every_shape_reads_what_was_written(void **state)
{
	uint64_t seed = test_seed();

	for (unsigned shape = 0; shape < 18; shape++)
		run_shape(seed, shape);
}

/* ---- simple calls ---- */

static void simple_calls_cut(void **state)
{
	struct fake *fake = fake_make(1);
	struct morsel_nvme *nvme = open_fake(fake, 1, 4);
	struct fake_region *memory = fake_map(fake, 1 << 20, true),
			   *back = fake_map(fake, 1 << 20, true);
	/* In pieces that cross the boundaries of commands, and the reverse. */
	struct morsel_nvme_piece whole = {memory->iova, 1 << 20},
				 parts[] = {{back->iova + 512 * 1024, 300 * 1024},
					    {back->iova, 512 * 1024},
					    {back->iova + 812 * 1024, 212 * 1024}};
	uint64_t random = 7;

	for (unsigned i = 0; i < 1 << 20; i++)
		memory->memory[i] = (unsigned char)test_random(&random);
	assert_int_equal(mrs_nvme_transfer(nvme, MORSEL_NVME_WRITE, 2, 8192, &whole, 1), 0);
	assert_memory_equal(fake->ns[1].bytes + 8192, memory->memory, 1 << 20);
	assert_int_equal(mrs_nvme_transfer(nvme, MORSEL_NVME_READ, 2, 8192, parts, 3), 0);
	assert_memory_equal(back->memory + 512 * 1024, memory->memory, 300 * 1024);
	assert_memory_equal(back->memory, memory->memory + 300 * 1024, 512 * 1024);
	assert_memory_equal(back->memory + 812 * 1024, memory->memory + 812 * 1024, 212 * 1024);
	assert_int_equal(morsel_nvme_flush(nvme, 1), 0);
	assert_int_equal(fake->flushes, 1);
	assert_int_equal(morsel_nvme_zero(nvme, 2, 8192, 4096), 0);
	assert_int_equal(fake->ns[1].bytes[8192 + 100], 0);
	assert_int_equal(morsel_nvme_deallocate(nvme, 2, 0, 1 << 20), 0);
	assert_int_equal(fake->deallocated, 256);
	assert_int_equal(morsel_nvme_zero(nvme, 2, 100, 4096), -EINVAL);
	assert_int_equal(morsel_nvme_zero(nvme, 2, 4 << 20, 4096), -ERANGE);
	assert_int_equal(morsel_nvme_zero(nvme, 9, 0, 4096), -ENOENT);
	end_fake(fake, nvme);
}

static void without_sgls_pieces_are_cut_at_pages(void **state)
{
	struct fake *fake = fake_make(1);
	struct fake_region *memory;
	struct morsel_nvme *nvme;
	struct morsel_nvme_piece parts[3];

	fake->sgl = false;
	nvme = open_fake(fake, 1, 8);
	memory = fake_map(fake, 64 << 10, true);
	parts[0] = (struct morsel_nvme_piece){memory->iova + 512, 1024};
	parts[1] = (struct morsel_nvme_piece){memory->iova + 8192, 4096};
	parts[2] = (struct morsel_nvme_piece){memory->iova + 16384 + 1024, 7168};
	memset(memory->memory, 1, 64 << 10);
	for (unsigned i = 0; i < 24; i++)
		fake->ns[0].bytes[i * 512] = (unsigned char)(100 + i);
	assert_int_equal(mrs_nvme_transfer(nvme, MORSEL_NVME_READ, 1, 0, parts, 3), 0);
	assert_int_equal(memory->memory[512], 100);
	assert_int_equal(memory->memory[1024], 101);
	assert_int_equal(memory->memory[1536], 1);
	assert_int_equal(memory->memory[8192], 102);
	assert_int_equal(memory->memory[16384 + 1024], 110);
	assert_int_equal(fake->sgls, 0);
	end_fake(fake, nvme);
}

/* ---- what goes wrong ---- */

struct one {
	struct fake *fake;
	struct morsel_nvme *nvme;
	struct fake_region *memory;
	struct morsel_nvme_piece piece;
	struct morsel_nvme_io io;
};

static struct one one_make(void)
{
	struct one one = {.fake = fake_make(1)};

	one.nvme = open_fake(one.fake, 1, 8);
	one.memory = fake_map(one.fake, 64 << 10, true);
	one.piece = (struct morsel_nvme_piece){one.memory->iova, 4096};
	one.io = (struct morsel_nvme_io){.op = MORSEL_NVME_WRITE, .ns = 1, .blocks = 8, .count = 1};
	return one;
}

static struct morsel_nvme_done run_one(struct one *one)
{
	struct morsel_nvme_done done = {0};

	one->io.pieces = &one->piece;
	assert_int_equal(morsel_nvme_submit(one->nvme, 0, &one->io), 0);
	assert_int_equal(morsel_nvme_poll(one->nvme, 0, &done, 1, -1), 1);
	return done;
}

static void what_the_device_refuses_is_told(void **state)
{
	struct one one = one_make();

	one.io.block = 4 << 11;
	assert_int_equal(run_one(&one).rc, -ERANGE);
	assert_string_equal(morsel_nvme_status_words(run_one(&one).status), "LBA out of range");
	one.io.block = 0;
	one.fake->fail_next = 0x281;
	assert_int_equal(run_one(&one).rc, -EIO);
	one.fake->fail_next = 0x182;
	assert_int_equal(run_one(&one).rc, -EROFS);
	one.fake->fail_next = 0x7ff;
	assert_int_equal(run_one(&one).rc, -EIO);
	one.piece.iova = 0x4000; /* nothing is there */
	assert_int_equal(run_one(&one).rc, -EFAULT);
	assert_true(one.fake->faults);
	one.piece.iova = one.memory->iova;
	one.memory->writable = false;
	one.io.op = MORSEL_NVME_READ;
	assert_int_equal(run_one(&one).rc, -EFAULT);
	one.io.op = MORSEL_NVME_WRITE;
	assert_int_equal(run_one(&one).rc, 0);
	end_fake(one.fake, one.nvme);
}

static void what_cannot_be_is_refused_before(void **state)
{
	struct one one = one_make();
	struct morsel_nvme_io io = one.io;

	io.pieces = &one.piece;
	io.blocks = 7;
	assert_int_equal(morsel_nvme_submit(one.nvme, 0, &io), -EINVAL);
	io.blocks = 0;
	assert_int_equal(morsel_nvme_submit(one.nvme, 0, &io), -EINVAL);
	io = one.io;
	io.pieces = &one.piece;
	io.ns = 3;
	assert_int_equal(morsel_nvme_submit(one.nvme, 0, &io), -ENOENT);
	io.ns = 1;
	io.op = 17;
	assert_int_equal(morsel_nvme_submit(one.nvme, 0, &io), -EINVAL);
	io.op = MORSEL_NVME_WRITE;
	io.flags = MORSEL_NVME_PRP | MORSEL_NVME_SGL;
	assert_int_equal(morsel_nvme_submit(one.nvme, 0, &io), -EINVAL);
	one.piece.bytes = 1 << 20;
	io.flags = 0;
	io.blocks = 2048;
	assert_int_equal(morsel_nvme_submit(one.nvme, 0, &io), -E2BIG);
	assert_int_equal(one.nvme->queue[0].ring.flying, 0);
	end_fake(one.fake, one.nvme);
}

static void a_late_command_is_aborted(void **state)
{
	struct one one = one_make();
	struct morsel_nvme_info info = {.size = sizeof(info)};

	one.fake->deaf = 1;
	assert_int_equal(run_one(&one).rc, -ETIMEDOUT);
	assert_int_equal(run_one(&one).rc, 0);
	morsel_nvme_info(one.nvme, &info);
	assert_int_equal(info.timeouts, 1);
	assert_int_equal(info.aborts, 1);
	assert_int_equal(info.resets, 0);
	end_fake(one.fake, one.nvme);
}

static void what_cannot_be_aborted_is_reset(void **state)
{
	struct one one = one_make();
	struct morsel_nvme_info info = {.size = sizeof(info)};
	struct morsel_nvme_done done[4];
	int late = 0, answered = 0, got;

	one.fake->aborts = false;
	one.fake->deaf = 2;
	one.io.pieces = &one.piece;
	one.io.user = &late;
	assert_int_equal(morsel_nvme_submit(one.nvme, 0, &one.io), 0);
	/* One is as late, the third in time. */
	assert_int_equal(morsel_nvme_submit(one.nvme, 0, &one.io), 0);
	assert_int_equal(morsel_nvme_submit(one.nvme, 0, &one.io), 0);
	for (int told = 0; told < 3; told += got) {
		got = morsel_nvme_poll(one.nvme, 0, done, 4, -1);
		assert_true(got > 0);
		for (int i = 0; i < got; i++) {
			late += done[i].rc == -ETIMEDOUT;
			answered += done[i].rc == 0;
		}
	}
	assert_int_equal(late, 2);
	assert_int_equal(answered, 1);
	assert_int_equal(one.fake->enables, 2);
	morsel_nvme_info(one.nvme, &info);
	assert_int_equal(info.resets, 1);
	assert_int_equal(run_one(&one).rc, 0);
	end_fake(one.fake, one.nvme);
}

static void others_are_cancelled_by_a_reset(void **state)
{
	struct one one = one_make();
	struct morsel_nvme_done done;

	one.io.pieces = &one.piece;
	assert_int_equal(morsel_nvme_submit(one.nvme, 0, &one.io), 0);
	assert_int_equal(morsel_nvme_reset(one.nvme), 0);
	assert_int_equal(morsel_nvme_poll(one.nvme, 0, &done, 1, -1), 1);
	assert_int_equal(done.rc, -ECANCELED);
	assert_int_equal(done.status, 0);
	assert_int_equal(run_one(&one).rc, 0);
	/* Simple calls are repeated. */
	one.fake->aborts = false;
	one.fake->deaf = 3;
	assert_int_equal(mrs_nvme_transfer(one.nvme, MORSEL_NVME_WRITE, 1, 0, &one.piece, 1),
			 -ETIMEDOUT);
	one.fake->deaf = 1;
	assert_int_equal(mrs_nvme_transfer(one.nvme, MORSEL_NVME_WRITE, 1, 0, &one.piece, 1), 0);
	end_fake(one.fake, one.nvme);
}

static void closing_lets_commands_land(void **state)
{
	struct one one = one_make();

	one.io.pieces = &one.piece;
	one.fake->batch = 1;
	memset(one.memory->memory, 9, 4096);
	for (unsigned i = 0; i < 8; i++) {
		one.io.block = i * 8;
		assert_int_equal(morsel_nvme_submit(one.nvme, 0, &one.io), 0);
	}
	morsel_nvme_close(one.nvme);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(one.fake->ns[0].bytes[i * 4096], 9);
	assert_int_equal(one.fake->mistakes, 0);
	fake_free(one.fake);
}

static void deaf_administration_is_reset(void **state)
{
	struct one one = one_make();
	struct morsel_nvme_info info = {.size = sizeof(info)};
	struct morsel_nvme_namespace ns = {.size = sizeof(ns)};

	one.fake->deaf_admin = true;
	assert_int_equal(morsel_nvme_namespace(one.nvme, 1, &ns), -ETIMEDOUT);
	/* It did not come back: even its queues cannot be made. */
	morsel_nvme_info(one.nvme, &info);
	assert_int_equal(info.resets, 1);
	assert_int_equal(morsel_nvme_namespace(one.nvme, 1, &ns), -ENODEV);
	assert_false(one.fake->master);
	end_fake(one.fake, one.nvme);
}

static void a_controller_that_fails_is_reset(void **state)
{
	struct one one = one_make();
	struct morsel_nvme_done done;

	one.io.pieces = &one.piece;
	one.fake->deaf = 1;
	assert_int_equal(morsel_nvme_submit(one.nvme, 0, &one.io), 0);
	assert_int_equal(morsel_nvme_poll(one.nvme, 0, &done, 1, 1), 0);
	one.fake->registers[0x1c] |= 2; /* fatal */
	fake_step(one.fake);
	one.fake->registers[0x1c] |= 2;
	assert_int_equal(morsel_nvme_poll(one.nvme, 0, &done, 1, 90), 0 + 1);
	assert_int_equal(done.rc, -ECANCELED);
	assert_int_equal(one.fake->enables, 2);
	end_fake(one.fake, one.nvme);
}

static void one_that_does_not_turn_off_loses_the_bus(void **state)
{
	struct one one = one_make();
	struct morsel_nvme_done done;

	one.fake->stuck_off = true;
	one.fake->deaf = 1;
	one.fake->aborts = false;
	one.io.pieces = &one.piece;
	assert_int_equal(morsel_nvme_submit(one.nvme, 0, &one.io), 0);
	assert_int_equal(morsel_nvme_poll(one.nvme, 0, &done, 1, -1), 1);
	assert_int_equal(done.rc, -ENODEV);
	assert_false(one.fake->master);
	assert_int_equal(morsel_nvme_submit(one.nvme, 0, &one.io), -ENODEV);
	assert_int_equal(morsel_nvme_reset(one.nvme), -ENODEV);
	end_fake(one.fake, one.nvme);
}

static void one_that_is_pulled_ends_all(void **state)
{
	struct one one = one_make();
	struct morsel_nvme_done done;

	one.io.pieces = &one.piece;
	assert_int_equal(morsel_nvme_submit(one.nvme, 0, &one.io), 0);
	fake_pull(one.fake);
	assert_int_equal(morsel_nvme_poll(one.nvme, 0, &done, 1, -1), 1);
	assert_int_equal(done.rc, -ENODEV);
	assert_int_equal(mrs_nvme_transfer(one.nvme, MORSEL_NVME_READ, 1, 0, &one.piece, 1),
			 -ENODEV);
	assert_int_equal(one.nvme->queue[0].ring.taken, 0);
	end_fake(one.fake, one.nvme);
}

static void answers_to_nobody_are_dropped(void **state)
{
	struct one one = one_make();

	one.fake->stale = 3;
	for (unsigned i = 0; i < 40; i++)
		assert_int_equal(run_one(&one).rc, 0);
	end_fake(one.fake, one.nvme);
}

static void what_does_not_open_leaves_nothing(void **state)
{
	for (unsigned how = 0; how < 4; how++) {
		struct fake *fake = fake_make(1);
		struct morsel_nvme_opts opts = {.size = sizeof(opts), .timeout_ms = 50};
		struct mrs_nvme_port port = fake_port(fake, 0);
		struct morsel_nvme *nvme = (void *)1;
		int wanted = -ETIMEDOUT;

		fake->stuck_on = how == 0;
		fake->deaf_admin = how == 1;
		if (how == 2) {
			fake_pull(fake);
			wanted = -ENODEV;
		}
		if (how == 3) {
			opts.queues = 1000;
			wanted = -EINVAL;
		}
		assert_int_equal(mrs_nvme_open_port(&port, &opts, &nvme), wanted);
		assert_true(nvme == (void *)1 && fake->closed);
		for (unsigned i = 0; i < FAKE_REGIONS; i++)
			assert_null(fake->region[i].memory);
		fake_free(fake);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pointers_lead_back),
		cmocka_unit_test(long_lists_lead_back),
		cmocka_unit_test(odd_memory_is_refused),
		cmocka_unit_test(identity_is_parsed),
		cmocka_unit_test(a_torn_head_leaves_the_old_file),
		cmocka_unit_test(it_opens_and_tells),
		cmocka_unit_test(few_queues_are_shared),
		cmocka_unit_test(every_shape_reads_what_was_written),
		cmocka_unit_test(simple_calls_cut),
		cmocka_unit_test(without_sgls_pieces_are_cut_at_pages),
		cmocka_unit_test(what_the_device_refuses_is_told),
		cmocka_unit_test(what_cannot_be_is_refused_before),
		cmocka_unit_test(a_late_command_is_aborted),
		cmocka_unit_test(what_cannot_be_aborted_is_reset),
		cmocka_unit_test(others_are_cancelled_by_a_reset),
		cmocka_unit_test(closing_lets_commands_land),
		cmocka_unit_test(deaf_administration_is_reset),
		cmocka_unit_test(a_controller_that_fails_is_reset),
		cmocka_unit_test(one_that_does_not_turn_off_loses_the_bus),
		cmocka_unit_test(one_that_is_pulled_ends_all),
		cmocka_unit_test(answers_to_nobody_are_dropped),
		cmocka_unit_test(what_does_not_open_leaves_nothing),
	};

	/* A driver that waits for an answer that is there already is found by this. */
	alarm(40);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
