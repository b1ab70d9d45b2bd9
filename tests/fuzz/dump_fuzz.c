/*
 * Hostile dumps: whatever a file says of itself, its reader neither crashes nor hangs, and what it
 * lets through can be restored into a pool that is whole afterwards.
 *
 * An input is a dump. Checksums of header and tables are put right unless the last byte is odd, or
 * nothing behind them would be reached.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "object/dump_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define BYTES_MAX  (1u << 20)
#define MORSEL_MAX (8ull << 20)

static void right_checksums(unsigned char *data, size_t bytes)
{
	struct mrs_dump_header *head = (struct mrs_dump_header *)data;

	if (bytes < sizeof(*head))
		return;
	for (int i = 0; i < MRS_DUMP_SECTIONS; i++) {
		struct mrs_dump_place *place = &head->section[i];

		if (place->offset < bytes && place->bytes &&
		    place->bytes <= bytes - place->offset &&
		    mrs_round_up(place->bytes, MRS_PAGE_BYTES) <= bytes - place->offset)
			place->crc = mrs_crc32c(0, data + place->offset,
						mrs_round_up(place->bytes, MRS_PAGE_BYTES));
	}
	head->file_bytes = bytes;
	head->crc = mrs_crc32c(0, head, offsetof(struct mrs_dump_header, crc));
}

static struct morsel_pool *pool_of_all(void)
{
	static struct morsel_pool *pool;
	struct morsel_pool_opts opts = {.size = sizeof(opts),
					.flags = MORSEL_POOL_CREATE | MORSEL_POOL_NO_HUGE,
					.bytes = 64 << 20,
					.bytes_max = 64 << 20};

	if (!pool && morsel_pool_open(NULL, &opts, &pool))
		abort();
	return pool;
}

static void report(void *ctx, const char *finding)
{
	fprintf(stderr, "finding: %s\n", finding);
}

static void restore(const unsigned char *data, size_t bytes)
{
	int fd = memfd_create("hostile", MFD_CLOEXEC);
	struct morsel_pool *pool = pool_of_all();
	struct morsel *morsel;
	char name[32];

	if (fd < 0 || write(fd, data, bytes) != (ssize_t)bytes)
		abort();
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	if (!morsel_restore(pool, "restored", name, NULL, &morsel)) {
		morsel_close(morsel);
		if (morsel_unlink(pool, "restored"))
			abort();
	}
	if (morsel_pool_check(pool, report, NULL))
		abort();
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct mrs_source source;
	struct mrs_dump dump;
	unsigned char *copy;

	if (bytes > BYTES_MAX)
		return 0;
	copy = aligned_alloc(MRS_PAGE_BYTES, mrs_round_up(bytes + 1, MRS_PAGE_BYTES));
	if (!copy)
		abort();
	memcpy(copy, data, bytes);
	if (bytes && !(data[bytes - 1] & 1))
		right_checksums(copy, bytes);
	mrs_source_memory(&source, copy, bytes);
	if (!mrs_dump_parse(&source, "input", &dump)) {
		struct morsel_dump_info info;

		mrs_dump_tell(&dump, &info);
		if (mrs_dump_find(dump.chunks, dump.chunk_count, 5) > dump.chunk_count)
			abort();
		mrs_dump_free(&dump);
		if (info.bytes <= MORSEL_MAX && info.range_bytes <= MORSEL_MAX)
			restore(copy, bytes);
	} else if (!*morsel_errormsg()) {
		abort();
	}
	free(copy);
	return 0;
}
