/*
 * Dump and restore of what is well: every shape of morsel comes back with its bytes, holes, page
 * sizes and tensors, whole, in part, or by way of incremental dumps. What a morsel is is gathered
 * page by page, the slow way, and compared.
 */
#include "core/object_support.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <morsel/clone.h>
#include <morsel/dump.h>

#include "object/dump_format.h"
#include "support/counts.h"

#define CHUNK (64 * KIB)

/* ---- what a morsel is, page by page ---- */

struct page {
	uint32_t crc;
	uint8_t mapped, order;
};

struct image {
	struct morsel_info info;
	uint64_t pages;
	struct page *page;
};

/* One page's bytes, through a view: what its users see. */
static void read_page(struct morsel *morsel, uint64_t page, void *bytes)
{
	uint64_t size = mrs_morsel_bytes(morsel) - page * 4096;
	struct morsel_map_opts opts = {.size = sizeof(opts),
				       .access = MORSEL_READ,
				       .offset = page * 4096,
				       .bytes = mrs_min(size, 4096u)};
	struct morsel_grant grant;
	struct morsel_view *view;

	memset(bytes, 0, 4096);
	assert_ok(morsel_map(morsel, &opts, &view));
	assert_ok(morsel_acquire(view, 0, opts.bytes, MORSEL_READ, &grant));
	memcpy(bytes, grant.addr, opts.bytes);
	morsel_release(&grant);
	morsel_view_destroy(view);
}

static void write_page(struct morsel *morsel, uint64_t page, uint64_t seed)
{
	uint64_t size = mrs_morsel_bytes(morsel) - page * 4096;
	struct morsel_map_opts opts = {
		.size = sizeof(opts), .offset = page * 4096, .bytes = mrs_min(size, 4096u)};
	struct morsel_grant grant;
	struct morsel_view *view;
	uint64_t words[512];

	for (unsigned i = 0; i < 512; i++)
		words[i] = object_word(seed, page * 4096 + i * 8);
	assert_ok(morsel_map(morsel, &opts, &view));
	assert_ok(morsel_acquire(view, 0, opts.bytes, MORSEL_READ | MORSEL_WRITE, &grant));
	memcpy(grant.addr, words, opts.bytes);
	morsel_release(&grant);
	morsel_view_destroy(view);
}

static struct image image_of(struct morsel *morsel)
{
	struct image image = {.info = object_info(morsel), .pages = mrs_morsel_pages(morsel)};
	unsigned char bytes[4096];

	image.page = calloc(image.pages + 1, sizeof(*image.page));
	assert_non_null(image.page);
	for (uint64_t i = 0; i < image.pages; i++) {
		struct mrs_run run;

		assert_ok(mrs_table_lookup(&morsel->table, i, 1, &run));
		image.page[i].mapped = run.mapped;
		image.page[i].order = (uint8_t)run.order;
		if (!run.mapped)
			continue;
		read_page(morsel, i, bytes);
		image.page[i].crc = mrs_crc32c(0, bytes, sizeof(bytes));
	}
	return image;
}

static void assert_same_info(const struct morsel_info *a, const struct morsel_info *b)
{
	assert_int_equal(a->bytes, b->bytes);
	assert_int_equal(a->flags, b->flags);
	assert_int_equal(a->pages, b->pages);
	assert_int_equal(a->sealed, b->sealed);
	assert_int_equal(a->format, b->format);
	assert_int_equal(a->tensors, b->tensors);
}

static void assert_same_image(const struct image *a, const struct image *b)
{
	assert_same_info(&a->info, &b->info);
	for (uint64_t i = 0; i < a->pages; i++)
		if (memcmp(&a->page[i], &b->page[i], sizeof(a->page[i])))
			fail_msg("page %llu: mapped %u order %u crc %08x, was %u %u %08x",
				 (unsigned long long)i, b->page[i].mapped, b->page[i].order,
				 b->page[i].crc, a->page[i].mapped, a->page[i].order,
				 a->page[i].crc);
}

static const char *dump_path(unsigned n)
{
	static char path[8][160];
	const char *directory = getenv("TMPDIR");

	n %= 8;
	snprintf(path[n], sizeof(path[n]), "%.100s/morsel-dump-%d-%u",
		 directory ? directory : "/tmp", (int)getpid(), n);
	return path[n];
}

static struct morsel_dump_info dump(struct morsel *morsel, const char *file,
				    const struct morsel_dump_opts *opts)
{
	struct morsel_dump_info info = {.size = sizeof(info)}, look = {.size = sizeof(look)};

	assert_ok(morsel_dump(morsel, file, opts, &info));
	assert_ok(morsel_dump_look(file, &look));
	assert_memory_equal(&info, &look, sizeof(info));
	return info;
}

/* Restores it and says what it is, then removes it. */
static struct image restored(struct morsel_pool *pool, const char *file,
			     const struct morsel_restore_opts *opts)
{
	struct morsel *morsel;
	struct image image;

	assert_ok(morsel_restore(pool, "restored", file, opts, &morsel));
	image = image_of(morsel);
	assert_ok(morsel_close(morsel));
	assert_ok(morsel_unlink(pool, "restored"));
	return image;
}

static void round_trip(struct morsel_pool *pool, struct morsel *morsel)
{
	struct morsel_pool *other = object_pool(64 * MIB);
	struct image was = image_of(morsel), is;
	const char *file = dump_path(0);

	dump(morsel, file, NULL);
	is = restored(pool, file, NULL);
	assert_same_image(&was, &is);
	free(is.page);
	is = restored(other, file, NULL);
	assert_same_image(&was, &is);
	free(is.page);
	free(was.page);
	unlink(file);
	object_pool_end(other);
}

/* ---- shapes ---- */

static void fill_random(struct morsel *morsel, uint64_t *random)
{
	uint64_t pages = mrs_morsel_pages(morsel);

	for (uint64_t page = 0; page < pages; page++)
		if (test_random(random) % 4)
			write_page(morsel, page, test_random(random));
}

static void shape(uint64_t bytes, uint32_t flags, uint32_t pages, bool sealed)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = object_create(pool, "m", bytes, flags, pages);
	uint64_t random = bytes + flags;

	fill_random(morsel, &random);
	if (sealed)
		assert_ok(morsel_seal(morsel));
	round_trip(pool, morsel);
	assert_ok(morsel_close(morsel));
	object_pool_end(pool);
}

static void test_one_run(void **state)
{
	shape(3 * MIB + 123, 0, MORSEL_PAGES_MIXED, false);
	shape(MIB, 0, MORSEL_PAGES_4K, true);
	shape(1, 0, MORSEL_PAGES_MIXED, true);
	shape(300 * KIB, MORSEL_CONTIGUOUS, MORSEL_PAGES_MIXED, false);
}

static void test_scattered(void **state)
{
	shape(700 * KIB + 1, MORSEL_SCATTERED, MORSEL_PAGES_4K, false);
	shape(700 * KIB + 1, MORSEL_SCATTERED, MORSEL_PAGES_4K, true);
	shape(9 * MIB + 5, MORSEL_SCATTERED, MORSEL_PAGES_MIXED, true);
	shape(7 * MIB, MORSEL_SCATTERED, MORSEL_PAGES_2M, false);
}

static void test_evictable(void **state)
{
	shape(MIB + 77, MORSEL_EVICTABLE, MORSEL_PAGES_MIXED, false);
	shape(MIB + 77, MORSEL_EVICTABLE, MORSEL_PAGES_4K, true);
}

static void test_empty(void **state)
{
	shape(0, 0, MORSEL_PAGES_MIXED, false);
	shape(MIB, MORSEL_LAZY, MORSEL_PAGES_MIXED, false);
}

/* Holes of all sizes, some inside a chunk; and memory that was given back. */
static void test_holes(void **state)
{
	uint64_t random = test_seed();

	for (unsigned n = 0; n < COUNT_DUMP_SHAPES; n++) {
		struct morsel_pool *pool = object_pool(64 * MIB);
		uint64_t bytes = test_random(&random) % (6 * MIB);
		uint32_t policy = n % 2 ? MORSEL_PAGES_4K : MORSEL_PAGES_MIXED;
		struct morsel *morsel = object_create(pool, "m", bytes, MORSEL_LAZY, policy);
		uint64_t pages = mrs_morsel_pages(morsel);

		for (uint64_t page = 0; page < pages; page += 1 + test_random(&random) % 90)
			write_page(morsel, page, test_random(&random));
		if (bytes > 2 * MIB)
			assert_ok(morsel_advise(morsel, MIB, 200 * KIB, MORSEL_ADVICE_FREE));
		round_trip(pool, morsel);
		assert_ok(morsel_close(morsel));
		object_pool_end(pool);
	}
}

static void test_tensors(void **state)
{
	static const char header[] =
		"{\"b\":{\"dtype\":\"F32\",\"shape\":[2,5],\"data_offsets\":[0,40]},"
		"\"a\":{\"dtype\":\"U8\",\"shape\":[7],\"data_offsets\":[40,47]}}";
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel_opts opts = {.size = sizeof(opts), .tensor_align = 4096};
	const char *path = object_file("model", 3, 0), *file = dump_path(0);
	struct morsel_tensor was, is;
	uint64_t bytes = sizeof(header) - 1;
	struct morsel *morsel, *copy;
	FILE *out = fopen(path, "w");

	assert_non_null(out);
	assert_int_equal(fwrite(&bytes, 8, 1, out), 1);
	assert_int_equal(fwrite(header, bytes, 1, out), 1);
	for (int i = 0; i < 47; i++)
		fputc(i * 7 & 255, out);
	assert_int_equal(fclose(out), 0);
	assert_ok(morsel_import(pool, "model", path, &opts, &morsel));
	assert_int_equal(dump(morsel, file, NULL).tensors, 2);
	assert_ok(morsel_restore(pool, "copy", file, NULL, &copy));
	for (unsigned i = 0; i < 2; i++) {
		assert_ok(morsel_tensor_at(morsel, i, &was));
		assert_ok(morsel_tensor(copy, was.name, &is));
		assert_memory_equal(&was, &is, sizeof(was));
	}
	/* It can be exported as the file that it once was. */
	assert_ok(morsel_export(copy, dump_path(1), NULL));
	assert_ok(morsel_close(copy));
	assert_ok(morsel_close(morsel));
	assert_ok(morsel_import(pool, "again", dump_path(1), &opts, &morsel));
	assert_int_equal(object_info(morsel).tensors, 2);
	assert_ok(morsel_close(morsel));
	for (int i = 0; i < 2; i++)
		unlink(dump_path((unsigned)i));
	unlink(path);
	assert_fails(morsel_restore(pool, "copy", dump_path(0), NULL, &copy), -ENOENT, "open");
	object_pool_end(pool);
}

/* The name in the dump, a taken name, and the sizes that info tells. */
static void test_names_and_info(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = object_create(pool, "a name", 2 * CHUNK, 0, MORSEL_PAGES_4K);
	struct morsel_dump_info info;
	struct morsel *copy;

	write_page(morsel, 3, 1);
	info = dump(morsel, dump_path(0), NULL);
	assert_string_equal(info.name, "a name");
	assert_int_equal(info.kind, MORSEL_DUMP_FULL);
	assert_int_equal(info.bytes_stored, CHUNK);
	assert_int_equal(info.bytes_zero, CHUNK);
	assert_int_equal(info.bytes_same, 0);
	assert_int_equal(info.bytes_file, 4096 + CHUNK + 2 * 4096);
	assert_fails(morsel_restore(pool, NULL, dump_path(0), NULL, &copy), -EEXIST, "a name");
	assert_ok(morsel_rename(pool, "a name", "b"));
	assert_ok(morsel_restore(pool, NULL, dump_path(0), NULL, &copy));
	assert_string_equal(object_info(copy).name, "a name");
	assert_ok(morsel_close(copy));
	assert_ok(morsel_close(morsel));
	unlink(dump_path(0));
	object_pool_end(pool);
}

/* ---- parts ---- */

static void test_range(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = object_create(pool, "m", 20 * CHUNK + 9, 0, MORSEL_PAGES_4K);
	struct morsel_dump_opts opts = {.size = sizeof(opts)};
	struct image was, is;
	uint64_t random = 7;

	fill_random(morsel, &random);
	was = image_of(morsel);
	for (unsigned n = 0; n < 30; n++) {
		uint64_t first, end;

		opts.offset = test_random(&random) % was.info.bytes;
		opts.bytes = test_random(&random) % (was.info.bytes - opts.offset + 1);
		if (!opts.offset && !opts.bytes)
			continue;
		dump(morsel, dump_path(0), &opts);
		is = restored(pool, dump_path(0), NULL);
		first = opts.offset / 4096;
		end = opts.bytes ? mrs_pages_in(opts.offset + opts.bytes) : was.pages;
		for (uint64_t i = 0; i < was.pages; i++) {
			bool inside = i >= first && i < end;

			assert_int_equal(is.page[i].mapped, inside);
			assert_int_equal(is.page[i].crc, inside ? was.page[i].crc : 0);
		}
		free(is.page);
	}
	opts.offset = was.info.bytes;
	opts.bytes = 1;
	assert_fails(morsel_dump(morsel, dump_path(0), &opts, NULL), -EINVAL, "not inside");
	free(was.page);
	assert_ok(morsel_close(morsel));
	unlink(dump_path(0));
	object_pool_end(pool);
}

struct demand {
	struct morsel *morsel;
	uint64_t seed;
	const char *file; /* dump_path() writes into one place for all */
};

static void *demand_thread(void *ctx)
{
	struct demand *demand = ctx;
	struct morsel_restore_opts opts = {.size = sizeof(opts)};
	uint64_t random = demand->seed, bytes = mrs_morsel_bytes(demand->morsel);

	for (unsigned n = 0; n < 40; n++) {
		opts.offset = test_random(&random) % bytes;
		opts.bytes = 1 + test_random(&random) % MIB;
		opts.bytes = mrs_min(bytes - opts.offset, opts.bytes);
		assert_ok(morsel_restore_range(demand->morsel, demand->file, &opts));
	}
	opts.offset = opts.bytes = 0;
	assert_ok(morsel_restore_range(demand->morsel, demand->file, &opts));
	return NULL;
}

static void on_demand(uint64_t bytes, uint32_t flags, uint32_t pages)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = object_create(pool, "m", bytes, flags, pages), *lazy;
	struct morsel_restore_opts opts = {.size = sizeof(opts), .flags = MORSEL_LAZY};
	struct image was, is;
	struct demand demand[2];
	pthread_t thread[2];
	uint64_t random = bytes;
	char file[1280];

	fill_random(morsel, &random);
	was = image_of(morsel);
	dump(morsel, dump_path(0), NULL);
	assert_ok(morsel_restore(pool, "lazy", dump_path(0), &opts, &lazy));
	assert_int_equal(object_info(lazy).bytes_allocated, 0);
	/* Only what is asked for, and what is there already stays. */
	opts = (struct morsel_restore_opts){.size = sizeof(opts), .offset = 5000, .bytes = 1};
	assert_ok(morsel_restore_range(lazy, dump_path(0), &opts));
	assert_true(object_info(lazy).bytes_allocated <= 2 * MIB);
	write_page(lazy, 1, 99);
	/* In the middle of what is still to come; larger pages would come with zeros around it. */
	if (pages == MORSEL_PAGES_4K)
		write_page(lazy, 20, 98);
	snprintf(file, sizeof(file), "%s", dump_path(0));
	for (unsigned i = 0; i < 2; i++) {
		demand[i] = (struct demand){.morsel = lazy, .seed = i, .file = file};
		assert_int_equal(pthread_create(&thread[i], NULL, demand_thread, &demand[i]), 0);
	}
	for (unsigned i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	write_page(morsel, 1, 99);
	if (pages == MORSEL_PAGES_4K)
		write_page(morsel, 20, 98);
	free(was.page);
	was = image_of(morsel);
	is = image_of(lazy);
	for (uint64_t i = 0; i < was.pages; i++) {
		assert_int_equal(is.page[i].mapped, was.page[i].mapped);
		assert_int_equal(is.page[i].crc, was.page[i].crc);
	}
	free(was.page);
	free(is.page);
	assert_ok(morsel_close(lazy));
	assert_ok(morsel_close(morsel));
	unlink(dump_path(0));
	object_pool_end(pool);
}

static void test_on_demand(void **state)
{
	on_demand(3 * MIB + 77, 0, MORSEL_PAGES_4K);
	on_demand(5 * MIB, 0, MORSEL_PAGES_MIXED);
	on_demand(6 * MIB, MORSEL_SCATTERED, MORSEL_PAGES_2M);
	on_demand(2 * MIB, MORSEL_LAZY, MORSEL_PAGES_4K);
}

/* ---- incremental ---- */

/* The generator of CRC-32C itself: exclusive-or'ed into a message it leaves the checksum. */
static void add_generator(unsigned char *bytes)
{
	const uint32_t generator = 0x1edc6f41u;

	bytes[0] ^= 1;
	for (unsigned k = 1; k <= 32; k++)
		if (generator >> (32 - k) & 1)
			bytes[k / 8] ^= (unsigned char)(1u << k % 8);
}

static void test_equal_checksums(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = object_create(pool, "m", CHUNK, 0, MORSEL_PAGES_4K);
	struct morsel_dump_opts opts = {.size = sizeof(opts), .base = dump_path(0)};
	struct morsel_dump_info info;
	unsigned char before[4096], after[4096];
	struct morsel_view *view;
	struct image was, is;

	for (uint64_t page = 0; page < 16; page++)
		write_page(morsel, page, 5);
	dump(morsel, dump_path(0), NULL);
	read_page(morsel, 4, before);
	assert_ok(morsel_map(morsel, NULL, &view));
	add_generator((unsigned char *)morsel_addr(view) + 4 * 4096 + 100);
	morsel_view_destroy(view);
	read_page(morsel, 4, after);
	assert_memory_not_equal(before, after, 4096);
	assert_int_equal(mrs_crc32c(0, before, 4096), mrs_crc32c(0, after, 4096));
	info = dump(morsel, dump_path(1), &opts);
	assert_int_equal(info.bytes_same, 0);
	is = restored(pool, dump_path(1), NULL);
	was = image_of(morsel);
	assert_same_image(&was, &is);
	{
		struct morsel *copy;
		unsigned char bytes[4096];

		assert_ok(morsel_restore(pool, "copy", dump_path(1), NULL, &copy));
		read_page(copy, 4, bytes);
		assert_memory_equal(bytes, after, 4096);
		assert_ok(morsel_close(copy));
	}
	free(was.page);
	free(is.page);
	assert_ok(morsel_close(morsel));
	unlink(dump_path(0));
	unlink(dump_path(1));
	object_pool_end(pool);
}

/* ---- beside a writer ---- */

struct writer {
	struct morsel_view *view;
	uint64_t words;
	uint32_t stop;
};

static void *writer_thread(void *ctx)
{
	struct writer *writer = ctx;
	uint64_t *word = morsel_addr(writer->view), random = 3;

	while (!mrs_load_acquire32(&writer->stop))
		mrs_store_relaxed(&word[test_random(&random) % writer->words], random);
	return NULL;
}

/* What somebody writes meanwhile never makes a dump that looks damaged. */
static void test_beside_a_writer(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = object_create(pool, "m", 8 * MIB, 0, MORSEL_PAGES_4K), *copy;
	struct writer writer = {.words = 8 * MIB / 8};
	pthread_t thread;

	assert_ok(morsel_map(morsel, NULL, &writer.view));
	assert_int_equal(pthread_create(&thread, NULL, writer_thread, &writer), 0);
	for (unsigned n = 0; n < 10; n++) {
		dump(morsel, dump_path(0), NULL);
		assert_ok(morsel_restore(pool, "copy", dump_path(0), NULL, &copy));
		assert_ok(morsel_close(copy));
		assert_ok(morsel_unlink(pool, "copy"));
	}
	mrs_store_release32(&writer.stop, 1);
	pthread_join(thread, NULL);
	morsel_view_destroy(writer.view);
	assert_ok(morsel_close(morsel));
	unlink(dump_path(0));
	object_pool_end(pool);
}

/* A chain of dumps, each on the one before, with pages that change, come and become zero. */
static void test_chain(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = object_create(pool, "m", 40 * CHUNK, MORSEL_LAZY, MORSEL_PAGES_4K);
	struct morsel_dump_opts opts = {.size = sizeof(opts)};
	struct image was[6], is;
	uint64_t random = test_seed();
	struct morsel *copy;

	for (unsigned n = 0; n < 6; n++) {
		uint64_t changes = n ? 1 + test_random(&random) % 12 : 200;
		struct morsel_dump_info info;

		while (changes--)
			write_page(morsel, test_random(&random) % (40 * 16), test_random(&random));
		if (n == 3)
			assert_ok(morsel_advise(morsel, 5 * CHUNK, 4 * CHUNK, MORSEL_ADVICE_FREE));
		was[n] = image_of(morsel);
		info = dump(morsel, dump_path(n), &opts);
		assert_int_equal(info.kind, n ? MORSEL_DUMP_INCREMENTAL : MORSEL_DUMP_FULL);
		if (n)
			assert_true(info.bytes_same > info.bytes_stored);
		opts.base = dump_path(n);
	}
	for (unsigned n = 0; n < 6; n++) {
		is = restored(pool, dump_path(n), NULL);
		assert_same_image(&was[n], &is);
		free(is.page);
		free(was[n].page);
	}
	/* Without its base, and with another in its place. */
	unlink(dump_path(1));
	assert_fails(morsel_restore(pool, "x", dump_path(3), NULL, &copy), -ENOENT, "open");
	assert_int_equal(rename(dump_path(0), dump_path(1)), 0);
	assert_fails(morsel_restore(pool, "x", dump_path(3), NULL, &copy), -EINVAL, "another dump");
	assert_ok(morsel_close(morsel));
	for (unsigned n = 0; n < 6; n++)
		unlink(dump_path(n));
	object_pool_end(pool);
}

static void test_snapshot(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = object_create(pool, "m", 10 * CHUNK, 0, MORSEL_PAGES_4K);
	struct morsel *snapshot = object_create(pool, "s", 10 * CHUNK, 0, MORSEL_PAGES_4K), *copy;
	struct morsel_dump_opts opts = {.size = sizeof(opts), .snapshot = snapshot};
	struct morsel_restore_opts on = {.size = sizeof(on), .base = dump_path(0)};
	struct morsel_dump_info info;
	struct image was, is;

	for (uint64_t page = 0; page < 160; page++) {
		write_page(morsel, page, page);
		write_page(snapshot, page, page);
	}
	assert_fails(morsel_dump(morsel, dump_path(1), &opts, NULL), -EINVAL, "sealed");
	assert_ok(morsel_seal(snapshot));
	write_page(morsel, 33, 1000);
	info = dump(morsel, dump_path(1), &opts);
	assert_int_equal(info.bytes_stored, CHUNK);
	assert_int_equal(info.bytes_same, 9 * CHUNK);
	assert_fails(morsel_restore(pool, "x", dump_path(1), NULL, &copy), -ENOENT, "snapshot");
	opts.snapshot = NULL;
	dump(morsel, dump_path(0), &opts);
	assert_fails(morsel_restore(pool, "x", dump_path(1), &on, &copy), -EINVAL, "another dump");
	dump(snapshot, dump_path(0), &opts);
	was = image_of(morsel);
	is = restored(pool, dump_path(1), &on);
	assert_same_image(&was, &is);
	free(was.page);
	free(is.page);
	assert_ok(morsel_close(snapshot));
	assert_ok(morsel_close(morsel));
	unlink(dump_path(0));
	unlink(dump_path(1));
	object_pool_end(pool);
}

/* A snapshot by clone: what is still shared need not be read to be known for the same. */
static void test_clone(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel =
		object_create(pool, "m", 10 * CHUNK, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	struct morsel *snapshot;
	struct morsel_dump_opts opts = {.size = sizeof(opts)};
	struct morsel_restore_opts on = {.size = sizeof(on), .base = dump_path(0)};
	struct morsel_dump_info info;
	struct image was, is;

	for (uint64_t page = 0; page < 160; page++)
		write_page(morsel, page, page);
	assert_ok(morsel_snapshot(morsel, "s", &snapshot));
	write_page(morsel, 33, 1000);
	dump(snapshot, dump_path(0), NULL);
	opts.snapshot = snapshot;
	info = dump(morsel, dump_path(1), &opts);
	assert_int_equal(info.bytes_stored, CHUNK);
	assert_int_equal(info.bytes_same, 9 * CHUNK);
	was = image_of(morsel);
	is = restored(pool, dump_path(1), &on);
	assert_same_image(&was, &is);
	free(was.page);
	free(is.page);
	was = image_of(snapshot);
	is = restored(pool, dump_path(0), NULL);
	assert_same_image(&was, &is);
	free(was.page);
	free(is.page);
	assert_ok(morsel_close(snapshot));
	assert_ok(morsel_close(morsel));
	unlink(dump_path(0));
	unlink(dump_path(1));
	object_pool_end(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_run),		cmocka_unit_test(test_scattered),
		cmocka_unit_test(test_evictable),	cmocka_unit_test(test_empty),
		cmocka_unit_test(test_holes),		cmocka_unit_test(test_tensors),
		cmocka_unit_test(test_names_and_info),	cmocka_unit_test(test_range),
		cmocka_unit_test(test_on_demand),	cmocka_unit_test(test_equal_checksums),
		cmocka_unit_test(test_beside_a_writer), cmocka_unit_test(test_chain),
		cmocka_unit_test(test_snapshot),	cmocka_unit_test(test_clone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
