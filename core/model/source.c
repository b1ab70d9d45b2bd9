/*
 * Sources and the window through which parsers read them.
 *
 * A parser asks for a few bytes at a position; the reader answers out of its window and moves the
 * window when it must. A source in memory is one window as large as itself, so nothing is copied.
 */
#include "model/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"

void mrs_source_memory(struct mrs_source *source, const void *memory, uint64_t bytes)
{
	*source = (struct mrs_source){.bytes = bytes, .memory = memory};
}

static int fd_read(void *ctx, uint64_t offset, void *buffer, size_t bytes)
{
	int fd = *(const int *)ctx;
	unsigned char *to = buffer;

	while (bytes) {
		ssize_t got = pread(fd, to, bytes, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return mrs_fail_errno(-errno, "reading %zu bytes at byte %llu of the file",
					      bytes, (unsigned long long)offset);
		if (!got)
			return mrs_fail(-EIO,
					"the file ended at byte %llu while it was read: "
					"somebody has shortened it",
					(unsigned long long)offset);
		to += got;
		offset += (uint64_t)got;
		bytes -= (size_t)got;
	}
	return 0;
}

int mrs_source_fd(struct mrs_source *source, const int *fd)
{
	struct stat st;

	if (fstat(*fd, &st))
		return mrs_fail_errno(-errno, "asking for the size of a model file");
	*source = (struct mrs_source){
		.read = fd_read,
		.ctx = (void *)fd,
		.bytes = (uint64_t)st.st_size,
	};
	return 0;
}

int mrs_reader_init(struct mrs_reader *reader, const struct mrs_source *source)
{
	*reader = (struct mrs_reader){.source = source};
	if (source->memory) {
		reader->window = source->memory;
		reader->bytes = source->bytes;
		return 0;
	}
	reader->buffer = malloc(MRS_READER_WINDOW);
	if (!reader->buffer)
		return mrs_fail(-ENOMEM, "no memory for a window of %u bytes", MRS_READER_WINDOW);
	reader->window = reader->buffer;
	return 0;
}

void mrs_reader_fini(struct mrs_reader *reader)
{
	free(reader->buffer);
	reader->buffer = NULL;
}

/* Within the source: the one place in which a parser's mistake would become a bad read. */
static bool within(const struct mrs_reader *reader, uint64_t offset, uint64_t bytes)
{
	return offset <= reader->source->bytes && bytes <= reader->source->bytes - offset;
}

const unsigned char *mrs_reader_at(struct mrs_reader *reader, uint64_t offset, uint64_t bytes,
				   int *error)
{
	uint64_t fill;

	if (!within(reader, offset, bytes)) {
		*error = mrs_fail(-EINVAL,
				  "the file ends at byte %llu, inside of what begins at "
				  "byte %llu",
				  (unsigned long long)reader->source->bytes,
				  (unsigned long long)offset);
		return NULL;
	}
	if (offset >= reader->start && offset - reader->start <= reader->bytes &&
	    bytes <= reader->bytes - (offset - reader->start))
		return reader->window + (offset - reader->start);
	MRS_CHECK(reader->buffer && bytes <= MRS_READER_WINDOW);
	fill = mrs_min(reader->source->bytes - offset, (uint64_t)MRS_READER_WINDOW);
	reader->bytes = 0; /* a failed read leaves no half-filled window behind */
	*error = reader->source->read(reader->source->ctx, offset, reader->buffer, (size_t)fill);
	if (*error)
		return NULL;
	reader->start = offset;
	reader->bytes = fill;
	return reader->window;
}

int mrs_reader_byte_slow(struct mrs_reader *reader, uint64_t offset)
{
	int error = 0;
	const unsigned char *p = mrs_reader_at(reader, offset, 1, &error);

	return p ? *p : error;
}

int mrs_reader_copy(struct mrs_reader *reader, uint64_t offset, void *to, uint64_t bytes)
{
	unsigned char *out = to;

	while (bytes) {
		uint64_t part = mrs_min(bytes, (uint64_t)MRS_READER_WINDOW);
		int error = 0;
		const unsigned char *p = mrs_reader_at(reader, offset, part, &error);

		if (!p)
			return error;
		memcpy(out, p, part);
		out += part;
		offset += part;
		bytes -= part;
	}
	return 0;
}
