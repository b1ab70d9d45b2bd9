/*
 * Hostile pool files: whatever a pool's metadata says, its opener neither crashes nor hangs.
 *
 * A small pool with morsels of every shape is made once. An input is a list of changes of 8 bytes
 * each, applied to the words that are not zero in that pool (superblocks, state, slots, directory,
 * cells, allocator, tables) and to their neighbours; the superblocks' checksums are put right
 * unless the input's first byte says otherwise, or nothing behind them would be reached. Then the
 * pool is opened read-only and read-write, listed, checked, written to, and closed.
 *
 *   byte 0       bit 0: leave the checksums wrong; bit 1: the file ends early
 *   then 8 bytes a change: page (1), word (2), kind (1), value (4)
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"
#include "pool/format.h"

#include <morsel/morsel.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define PAGES_MAX   512
#define CHANGES_MAX 64
#define WORDS	    (MRS_PAGE_BYTES / 8)

static struct {
	off_t bytes;
	unsigned pages;
	struct {
		uint64_t frame;
		uint64_t word[WORDS];
	} page[PAGES_MAX];
} image;

static void must(int rc)
{
	if (rc < 0) {
		fprintf(stderr, "the valid pool: %s\n", morsel_errormsg());
		abort();
	}
}

static void add_morsel(struct morsel_pool *pool, const char *name, uint64_t bytes, uint32_t flags,
		       uint32_t pages)
{
	struct morsel_opts opts = {.size = sizeof(opts),
				   .flags = MORSEL_CREATE | flags,
				   .pages = pages,
				   .bytes = bytes};
	struct morsel *morsel;

	must(morsel_open(pool, name, &opts, &morsel));
	must(morsel_close(morsel));
}

static void fill_pool(struct morsel_pool *pool)
{
	char name[256];

	add_morsel(pool, "one-run", 40000, 0, MORSEL_PAGES_MIXED);
	add_morsel(pool, "lazy", 1 << 20, MORSEL_LAZY, MORSEL_PAGES_4K);
	add_morsel(pool, "scattered", 70000, MORSEL_SCATTERED, MORSEL_PAGES_4K);
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = 0;
	add_morsel(pool, name, 4096, 0, MORSEL_PAGES_4K);
	for (unsigned i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "morsel-%u", i);
		add_morsel(pool, name, i * 1000, MORSEL_LAZY, MORSEL_PAGES_4K);
	}
}

/* The pages that are not zero, while two handles are attached and one morsel is open. */
static void save_image(int fd)
{
	static uint64_t word[WORDS], zero[WORDS];
	struct stat st;

	if (fstat(fd, &st))
		abort();
	image.bytes = st.st_size;
	for (off_t at = 0; at < st.st_size && image.pages < PAGES_MAX; at += MRS_PAGE_BYTES) {
		off_t next = lseek(fd, at, SEEK_DATA);

		if (next < 0)
			break;
		at = next;
		if (pread(fd, word, sizeof(word), at) != sizeof(word) ||
		    !memcmp(word, zero, sizeof(word)))
			continue;
		image.page[image.pages].frame = (uint64_t)at / MRS_PAGE_BYTES;
		memcpy(image.page[image.pages++].word, word, sizeof(word));
	}
}

static void make_image(void)
{
	struct morsel_pool_opts opts = {.size = sizeof(opts),
					.flags = MORSEL_POOL_CREATE | MORSEL_POOL_NO_HUGE,
					.bytes = 4 << 20,
					.bytes_max = 64 << 20};
	struct morsel_pool *pool, *other;
	struct morsel *morsel;

	must(morsel_pool_open(NULL, &opts, &pool));
	fill_pool(pool);
	must(morsel_pool_open_fd(morsel_pool_fd(pool), NULL, &other));
	must(morsel_open(other, "scattered", NULL, &morsel));
	save_image(morsel_pool_fd(pool));
	must(morsel_close(morsel));
	must(morsel_pool_close(other));
	must(morsel_pool_close(pool));
}

static uint64_t changed(uint64_t word, uint8_t kind, uint32_t value)
{
	switch (kind % 8) {
	case 0:
		return value;
	case 1:
		return word ^ 1ull << value % 64;
	case 2:
		return word + (uint64_t)(int64_t)(int32_t)value;
	case 3:
		return ~0ull - value;
	case 4:
		return (word & 0xffffffff00000000ull) | value;
	case 5:
		return (word & 0xffffffffull) | (uint64_t)value << 32;
	case 6:
		return image.page[value % image.pages].word[value / 256 % WORDS];
	default:
		return image.page[value % image.pages].frame;
	}
}

static void apply(int fd, const uint8_t *change)
{
	unsigned page = change[0] % image.pages, word = (change[1] | change[2] << 8) % WORDS;
	uint32_t value;
	uint64_t now;
	off_t at = (off_t)(image.page[page].frame * MRS_PAGE_BYTES + word * 8);

	memcpy(&value, change + 4, sizeof(value));
	if (pread(fd, &now, 8, at) != 8)
		return;
	now = changed(now, change[3], value);
	if (pwrite(fd, &now, 8, at) != 8)
		abort();
}

static void right_checksums(int fd)
{
	struct mrs_super super;

	for (int i = 0; i < 2; i++) {
		if (pread(fd, &super, sizeof(super), i * 4096) != sizeof(super))
			return;
		super.crc = mrs_crc32c(0, &super, offsetof(struct mrs_super, crc));
		if (pwrite(fd, &super, sizeof(super), i * 4096) != sizeof(super))
			abort();
	}
}

static int hostile_file(const uint8_t *data, size_t bytes)
{
	int fd = memfd_create("hostile", MFD_CLOEXEC);
	uint8_t flags = bytes ? data[0] : 0;

	if (fd < 0 || ftruncate(fd, flags & 2 ? image.bytes / 2 : image.bytes))
		abort();
	for (unsigned i = 0; i < image.pages; i++)
		if (pwrite(fd, image.page[i].word, MRS_PAGE_BYTES,
			   (off_t)(image.page[i].frame * MRS_PAGE_BYTES)) != MRS_PAGE_BYTES)
			abort();
	for (size_t at = 1; at + 8 <= bytes && at < 1 + 8 * CHANGES_MAX; at += 8)
		apply(fd, data + at);
	if (!(flags & 1))
		right_checksums(fd);
	return fd;
}

static int look_at(void *ctx, const struct morsel_info *info)
{
	*(uint64_t *)ctx += info->bytes + info->runs;
	return 0;
}

static int look_at_run(void *ctx, const struct morsel_run *run)
{
	*(uint64_t *)ctx += run->bytes;
	return 0;
}

static void look(struct morsel_pool *pool)
{
	struct morsel_pool_stat stat = {.size = sizeof(stat)};
	uint64_t sum = 0;

	morsel_pool_stat(pool, &stat);
	morsel_list(pool, look_at, &sum);
	morsel_pool_check(pool, NULL, NULL);
}

static void use(struct morsel_pool *pool)
{
	struct morsel_opts opts = {.size = sizeof(opts), .flags = MORSEL_CREATE, .bytes = 20000};
	struct morsel *morsel;
	uint64_t sum = 0;

	if (!morsel_open(pool, "scattered", NULL, &morsel)) {
		morsel_runs(morsel, 0, 1 << 20, look_at_run, &sum);
		morsel_resize(morsel, 100000);
		morsel_close(morsel);
	}
	if (!morsel_open(pool, "new", &opts, &morsel))
		morsel_close(morsel);
	morsel_rename(pool, "morsel-3", "morsel-x");
	morsel_unlink(pool, "new");
	morsel_unlink(pool, "one-run");
	morsel_unlink(pool, "scattered");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct morsel_pool_opts reader = {.size = sizeof(reader), .flags = MORSEL_POOL_READ_ONLY};
	struct morsel_pool *pool;
	int fd;

	if (!image.pages) {
		setenv("MORSEL_LOG", "none", 1);
		make_image();
	}
	fd = hostile_file(data, bytes);
	if (!morsel_pool_open_fd(fd, &reader, &pool)) {
		look(pool);
		must(morsel_pool_close(pool));
	}
	if (!morsel_pool_open_fd(fd, NULL, &pool)) {
		use(pool);
		look(pool);
		must(morsel_pool_close(pool));
	}
	close(fd);
	return 0;
}
