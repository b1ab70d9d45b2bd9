/*
 * Export: a morsel's content becomes a file again, byte for byte as it was imported.
 *
 * The file is written beside its final place under a name of its own, forced to disk, and renamed:
 * the name means the old file or the whole new one. A morsel with aligned tensors remembers where
 * each piece of the file went; export walks the same list back.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "model/model.h"
#include "object/carrier.h"
#include "object/internal.h"

#define CHUNK_BYTES ((uint64_t)8 << 20)
#define NAME_TRIES  100u

struct export
{
	struct morsel *morsel;
	const struct morsel_opts *opts;
	const char *file;		   /* or what the carrier's place is called */
	const struct mrs_carrier *carrier; /* NULL: a file */
	char *temporary;
	int fd;
	uint64_t offset_to_source; /* position in the file minus offset in the morsel */
	uint64_t done;
	uint64_t total;
};

static int tell_progress(struct export *export)
{
	const struct morsel_opts *opts = export->opts;

	if (!opts->progress || !opts->progress(opts->progress_ctx, export->done, export->total))
		return 0;
	return mrs_fail(-ECANCELED, "the export to %s was cancelled after %llu bytes", export->file,
			(unsigned long long)export->done);
}

static int write_fully(struct export *export, const unsigned char *from, uint64_t bytes,
		       uint64_t position)
{
	while (bytes) {
		ssize_t put = pwrite(export->fd, from, bytes, (off_t)position);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return mrs_fail_errno(-errno, "cannot write %s at byte %llu",
					      export->temporary, (unsigned long long)position);
		from += put;
		bytes -= (uint64_t)put;
		position += (uint64_t)put;
	}
	return 0;
}

static int write_piece(void *ctx, uint64_t offset, void *memory, uint64_t bytes)
{
	struct export *export = ctx;
	int rc = 0;

	/* A hole stays one: the file has its full size already. */
	if (memory)
		rc = write_fully(export, memory, bytes, offset + export->offset_to_source);
	if (rc)
		return rc;
	export->done += bytes;
	return tell_progress(export);
}

/* A piece of the content, by our hands or somebody else's. */
static int take_piece(struct export *export, uint64_t offset, uint64_t bytes)
{
	uint64_t done = 0;
	int rc = 0;

	if (!export->carrier)
		return mrs_content_look(export->morsel, offset, bytes, CHUNK_BYTES, write_piece,
					export);
	while (!rc && done < bytes) {
		uint64_t part = mrs_min(bytes - done, CHUNK_BYTES);

		rc = mrs_carrier_drain(export->carrier, export->morsel, offset + done,
				       offset + done + export->offset_to_source, part);
		done += part;
		export->done += part;
		if (!rc)
			rc = tell_progress(export);
	}
	return rc;
}

static int write_pieces(struct export *export, const void *packed, uint64_t packed_bytes,
			const struct mrs_packed_head *head)
{
	uint64_t bytes = mrs_morsel_bytes(export->morsel);

	for (uint64_t i = 0; i < head->pieces; i++) {
		struct mrs_piece piece;
		int rc = mrs_packed_piece(packed, packed_bytes, i, &piece);

		if (rc)
			return rc;
		if (piece.destination > bytes || piece.bytes > bytes - piece.destination ||
		    piece.source > export->total || piece.bytes > export->total - piece.source)
			return mrs_fail(-EINVAL,
					"the tensor table is damaged: piece %llu lies "
					"outside the morsel",
					(unsigned long long)i);
		export->offset_to_source = piece.source - piece.destination;
		rc = take_piece(export, piece.destination, piece.bytes);
		if (rc)
			return rc;
	}
	return 0;
}

static int set_size(struct export *export, uint64_t bytes)
{
	export->total = bytes;
	if (export->carrier)
		return 0;
	if (ftruncate(export->fd, (off_t)bytes))
		return mrs_fail_errno(-errno, "cannot make %s %llu bytes long", export->temporary,
				      (unsigned long long)bytes);
	return 0;
}

static int write_content(struct export *export)
{
	struct morsel *morsel = export->morsel;
	uint64_t bytes = mrs_morsel_bytes(morsel), packed_bytes;
	const void *packed = mrs_morsel_packed(morsel, &packed_bytes);
	struct mrs_packed_head head = {0};
	int rc = packed ? mrs_packed_head(packed, packed_bytes, &head) : 0;

	if (rc)
		return rc;
	if (head.pieces && head.content_bytes != bytes)
		return mrs_fail(-EINVAL,
				"the morsel was imported with aligned tensors and resized since "
				"(%llu bytes, then %llu): the file cannot be put together again",
				(unsigned long long)bytes, (unsigned long long)head.content_bytes);
	rc = set_size(export, head.pieces ? head.source_bytes : bytes);
	if (rc)
		return rc;
	if (head.pieces)
		return write_pieces(export, packed, packed_bytes, &head);
	return take_piece(export, 0, bytes);
}

/* A file of a new name beside the final one. */
static int open_temporary(struct export *export)
{
	size_t bytes = strlen(export->file) + 32;
	struct timespec now;

	export->temporary = malloc(bytes);
	if (!export->temporary)
		return mrs_fail(-ENOMEM, "no memory for a file name");
	for (unsigned i = 0; i < NAME_TRIES; i++) {
		clock_gettime(CLOCK_REALTIME, &now);
		snprintf(export->temporary, bytes, "%s.%08lx%02x", export->file,
			 (unsigned long)now.tv_nsec ^ (unsigned long)getpid() << 12, i);
		export->fd = open(export->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
		if (export->fd >= 0)
			return 0;
		if (errno != EEXIST)
			break;
	}
	return mrs_fail_errno(-errno, "cannot create %s", export->temporary);
}

/* The directory of a path, forced to disk, so that the new name is there after a power cut. */
static void sync_directory(const char *file)
{
	char *directory = strdup(file);
	char *slash = directory ? strrchr(directory, '/') : NULL;
	int fd;

	if (slash)
		slash[slash == directory] = 0;
	fd = open(slash ? directory : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0) {
		if (fsync(fd))
			mrs_log(MRS_LOG_WARN, "cannot force the directory of %s to disk", file);
		close(fd);
	}
	free(directory);
}

static int put_in_place(struct export *export)
{
	if (fsync(export->fd))
		return mrs_fail_errno(-errno, "cannot force %s to disk", export->temporary);
	if (rename(export->temporary, export->file))
		return mrs_fail_errno(-errno, "cannot rename %s to %s", export->temporary,
				      export->file);
	sync_directory(export->file);
	return 0;
}

static int write_file(struct export *export)
{
	int rc = open_temporary(export);

	if (rc)
		goto free_name;
	rc = write_content(export);
	if (!rc)
		rc = put_in_place(export);
	close(export->fd);
	if (rc)
		unlink(export->temporary);
free_name:
	free(export->temporary);
	return rc;
}

static int export_held(struct export *export, const struct morsel_opts *given)
{
	struct morsel *morsel = export->morsel;
	struct morsel_opts opts;
	uint64_t hold;
	int rc = mrs_pool_usable(morsel->pool, false);

	if (!rc)
		rc = mrs_morsel_opts(given, &opts);
	/* A view of its own keeps the content from being trimmed. */
	if (!rc)
		rc = mrs_morsel_view_publish(morsel, mrs_morsel_pages(morsel), false, &hold);
	if (rc)
		return rc;
	export->opts = &opts;
	rc = export->carrier ? write_content(export) : write_file(export);
	mrs_morsel_view_withdraw(morsel, hold);
	return rc;
}

int morsel_export(struct morsel *morsel, const char *file, const struct morsel_opts *opts)
{
	struct export export = {.morsel = morsel, .file = file, .fd = -1};

	return export_held(&export, opts);
}

int morsel_export_by(struct morsel *morsel, const struct morsel_carrier_ops *ops, void *ctx,
		     const struct morsel_opts *opts, uint64_t *bytes)
{
	struct mrs_carrier carrier = {.ctx = ctx};
	struct export export = {.morsel = morsel, .carrier = &carrier, .fd = -1};
	int rc = mrs_carrier_check(&carrier, ops, MRS_CARRIER_DRAIN);

	if (rc)
		return rc;
	export.file = carrier.ops.name;
	rc = export_held(&export, opts);
	if (!rc && carrier.ops.finish)
		rc = carrier.ops.finish(ctx, export.total);
	if (!rc && bytes)
		*bytes = export.total;
	return rc;
}
