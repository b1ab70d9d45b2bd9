/*
 * Import: a file's content becomes a morsel, read once, straight into its frames.
 *
 * The record is made without a name, filled, and named when it is complete: nobody ever sees half
 * of it, and a death leaves a nameless record that the reaper frees. While the file is read no
 * transition is open. Of several importers of one name, one holds the import lock and reads; the
 * others wait for the lock and then find the name.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/model.h"
#include "object/carrier.h"
#include "object/internal.h"
#include "object/retarget.h"

/* One read(), and how often progress is told. */
#define CHUNK_BYTES  ((uint64_t)8 << 20)
#define IMPORT_LOCKS 4096u

struct import {
	struct morsel_pool *pool;
	const struct morsel_opts *opts;
	const char *file; /* or what the carrier's place is called */
	int fd;
	struct stat before;
	const struct mrs_carrier *carrier; /* NULL: a file */
	struct mrs_model model;
	struct morsel *morsel;
	uint64_t source;	   /* position in the file */
	uint64_t offset_to_source; /* of the piece that is being read: source minus offset */
	uint64_t done;
};

static int open_file(struct import *import)
{
	if (import->carrier)
		return 0;
	import->fd = open(import->file, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (import->fd < 0)
		return mrs_fail_errno(-errno, "cannot open %s", import->file);
	if (fstat(import->fd, &import->before))
		return mrs_fail_errno(-errno, "cannot look at %s", import->file);
	if (!S_ISREG(import->before.st_mode))
		return mrs_fail(-EINVAL, "%s is not a regular file: only those can be imported",
				import->file);
	posix_fadvise(import->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	return 0;
}

/* The file as it was when it was opened, or an error: half of the one and half of another is none.
 */
static int check_unchanged(struct import *import)
{
	const struct stat *before = &import->before;
	struct stat now;
	char beyond;

	if (fstat(import->fd, &now))
		return mrs_fail_errno(-errno, "cannot look at %s", import->file);
	if (now.st_size != before->st_size || now.st_mtim.tv_sec != before->st_mtim.tv_sec ||
	    now.st_mtim.tv_nsec != before->st_mtim.tv_nsec)
		return mrs_fail(-EIO,
				"%s changed while it was read: import it again when it is complete",
				import->file);
	/* A file that the kernel makes up (/proc) has content, but no size. */
	if (pread(import->fd, &beyond, 1, before->st_size) > 0)
		return mrs_fail(-EIO,
				"%s has more than the %llu bytes of its size: copy it to a "
				"regular file first, or import it again when it is complete",
				import->file, (unsigned long long)before->st_size);
	return 0;
}

static int tell_progress(struct import *import)
{
	const struct morsel_opts *opts = import->opts;

	if (!opts->progress ||
	    !opts->progress(opts->progress_ctx, import->done, (uint64_t)import->before.st_size))
		return 0;
	return mrs_fail(-ECANCELED, "the import of %s was cancelled after %llu bytes", import->file,
			(unsigned long long)import->done);
}

static int read_fully(struct import *import, unsigned char *to, uint64_t bytes, uint64_t position)
{
	while (bytes) {
		ssize_t got = pread(import->fd, to, bytes, (off_t)position);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return mrs_fail_errno(-errno, "cannot read %s at byte %llu", import->file,
					      (unsigned long long)position);
		if (!got)
			return mrs_fail(-EIO,
					"%s ended at byte %llu, it had %llu bytes when it was "
					"opened: import it again when it is complete",
					import->file, (unsigned long long)position,
					(unsigned long long)import->before.st_size);
		to += got;
		bytes -= (uint64_t)got;
		position += (uint64_t)got;
	}
	return 0;
}

static int read_piece(void *ctx, uint64_t offset, void *memory, uint64_t bytes)
{
	struct import *import = ctx;
	int rc;

	if (!memory)
		return mrs_fail(-EINVAL, "byte %llu of the new morsel has no frame",
				(unsigned long long)offset);
	rc = read_fully(import, memory, bytes, offset + import->offset_to_source);
	if (rc)
		return rc;
	MRS_PROBE("import.chunk");
	import->done += bytes;
	return tell_progress(import);
}

/* One piece by somebody else's hands, told as it goes. */
static int carry_piece(struct import *import, const struct mrs_piece *piece)
{
	uint64_t done = 0;
	int rc = 0;

	while (!rc && done < piece->bytes) {
		uint64_t part = mrs_min(piece->bytes - done, CHUNK_BYTES);

		rc = mrs_carrier_fill(import->carrier, import->morsel, piece->destination + done,
				      piece->source + done, part);
		done += part;
		import->done += part;
		if (!rc)
			rc = tell_progress(import);
	}
	return rc;
}

static int read_content(struct import *import)
{
	const struct mrs_model *model = &import->model;
	struct mrs_piece whole = {.bytes = (uint64_t)import->before.st_size};
	const struct mrs_piece *pieces = model->pieces ? model->pieces : &whole;
	uint64_t count = model->pieces ? model->piece_count : 1;
	int rc = 0;

	for (uint64_t i = 0; !rc && i < count; i++) {
		import->offset_to_source = pieces[i].source - pieces[i].destination;
		if (import->carrier)
			rc = carry_piece(import, &pieces[i]);
		else
			rc = mrs_content_each(import->morsel, pieces[i].destination,
					      pieces[i].bytes, CHUNK_BYTES, read_piece, import);
	}
	return rc || import->carrier ? rc : check_unchanged(import);
}

/* ---- the tensor table ---- */

static int source_read(void *ctx, uint64_t offset, void *buffer, size_t bytes)
{
	return mrs_content_read(ctx, offset, buffer, bytes);
}

/* Where pages come and go: a view of all of it, in which what has gone comes back at a touch. */
static int parse_viewed(struct import *import, struct mrs_source *source)
{
	struct morsel_map_opts opts = {.size = sizeof(opts), .access = MORSEL_READ};
	struct morsel_view *view;
	int rc = morsel_map(import->morsel, &opts, &view);

	if (rc)
		return rc;
	mrs_source_memory(source, morsel_addr(view), source->bytes);
	rc = mrs_model_parse(source, &import->model);
	morsel_view_destroy(view);
	return rc;
}

/* From memory, after the content is there: the file is not read again. */
static int parse_content(struct import *import)
{
	struct morsel *morsel = import->morsel;
	uint64_t bytes = mrs_morsel_bytes(morsel);
	struct mrs_source source = {.read = source_read, .ctx = morsel, .bytes = bytes};
	struct mrs_run run;

	if (bytes && mrs_morsel_is_evictable(morsel))
		return parse_viewed(import, &source);
	if (bytes && !mrs_table_lookup(&morsel->table, 0, mrs_pages_in(bytes), &run) &&
	    run.mapped && run.pages == mrs_pages_in(bytes))
		mrs_source_memory(&source, mrs_pool_at(import->pool, run.frame, run.pages), bytes);
	return mrs_model_parse(&source, &import->model);
}

/* The layout must be known before the content is placed: the description is read by itself. */
static int plan_layout(struct import *import)
{
	struct mrs_source source;
	int rc = 0;

	if (import->carrier)
		mrs_carrier_source(import->carrier, &source);
	else
		rc = mrs_source_fd(&source, &import->fd);

	if (!rc)
		rc = mrs_model_parse(&source, &import->model);
	if (!rc && import->model.count)
		rc = mrs_model_layout_aligned(&import->model, import->opts->tensor_align);
	return rc;
}

static int keep_tensors(struct import *import)
{
	struct mrs_cell_record *record = import->morsel->record;
	uint64_t bytes = mrs_model_packed_bytes(&import->model), frame;
	unsigned order = 0;
	struct mrs_txn txn;
	int rc;

	while (MRS_PAGE_BYTES << order < bytes)
		order++;
	if (order > MRS_GIANT_ORDER)
		return mrs_fail(-E2BIG,
				"%s describes %llu tensors in %llu bytes: at most 1 GiB of tensor "
				"table is kept",
				import->file, (unsigned long long)import->model.count,
				(unsigned long long)bytes);
	rc = mrs_txn_begin(import->pool, MRS_INTENT_RESIZE, &txn);
	if (rc)
		return rc;
	txn.intent->cell[0] = import->morsel->cell;
	rc = mrs_txn_get_meta(&txn, order, &frame);
	if (!rc) {
		mrs_store_release(&record->meta_bytes, bytes);
		mrs_store_release(&record->meta_frame, frame);
		MRS_PROBE("import.meta.linked");
		mrs_txn_settle(&txn);
	}
	mrs_txn_end(&txn);
	if (!rc)
		rc = mrs_model_pack(&import->model, mrs_pool_at(import->pool, frame, 1ull << order),
				    bytes);
	if (rc)
		return rc;
	mrs_store_release(&record->tensors, import->model.count);
	mrs_store_release(&record->format, (uint64_t)import->model.format);
	MRS_PROBE("import.packed");
	return 0;
}

/* ---- the whole ---- */

/* A complete morsel without a name in import->morsel. */
static int read_file(struct import *import)
{
	bool planned = import->opts->tensor_align != 0;
	uint64_t bytes = (uint64_t)import->before.st_size;
	int rc = planned ? plan_layout(import) : 0;

	if (rc)
		return rc;
	if (import->model.pieces)
		bytes = import->model.bytes;
	rc = mrs_handle_create(import->pool, import->opts, bytes, &import->morsel);
	if (rc)
		return rc;
	MRS_PROBE("import.created");
	rc = read_content(import);
	if (!rc && !planned)
		rc = parse_content(import);
	/* Every page has been written since: it has memory, or content on a swap target. */
	if (!rc && !import->model.pieces && mrs_morsel_is_evictable(import->morsel))
		mrs_record_clear(import->morsel->record, MRS_RECORD_THIN);
	MRS_PROBE("import.read");
	if (!rc && import->model.format != MORSEL_FORMAT_BYTES)
		rc = keep_tensors(import);
	return rc;
}

static int import_new(struct morsel_pool *pool, const char *name, const char *file,
		      const struct mrs_carrier *carrier, const struct morsel_opts *opts,
		      struct morsel **morsel)
{
	struct import import = {
		.pool = pool, .opts = opts, .file = file, .carrier = carrier, .fd = -1};
	int rc = open_file(&import);

	if (carrier)
		import.before.st_size = (off_t)carrier->bytes;
	if (!rc)
		rc = read_file(&import);
	if (!rc)
		rc = mrs_handle_link(import.morsel, name);
	if (rc)
		morsel_close(import.morsel);
	else
		*morsel = import.morsel;
	mrs_model_free(&import.model);
	if (import.fd >= 0)
		close(import.fd);
	return rc;
}

static int check_import(struct morsel_pool *pool, const char *name, const struct morsel_opts *opts)
{
	uint64_t align = opts->tensor_align;
	int rc = mrs_pool_usable(pool, false);

	if (!rc)
		rc = mrs_dir_check_name(name);
	if (rc)
		return rc;
	if (opts->flags & MORSEL_LAZY)
		return mrs_fail(-EINVAL, "an import fills every page: MORSEL_LAZY is for new "
					 "morsels");
	if (align & (align - 1) || align > MRS_MODEL_ALIGN_MAX)
		return mrs_fail(-EINVAL,
				"tensor_align %llu: it must be a power of two, at most %llu",
				(unsigned long long)align, (unsigned long long)MRS_MODEL_ALIGN_MAX);
	return mrs_check_writable(pool, "importing");
}

/* What the name means already, or -ENOENT without words; with MORSEL_EXCL that is too much. */
static int find_imported(struct morsel_pool *pool, const char *name, const struct morsel_opts *opts,
			 struct morsel **found)
{
	mrs_cell dirent;
	int rc = mrs_open_named(pool, name, found, &dirent);

	if (rc || !(opts->flags & MORSEL_EXCL))
		return rc;
	morsel_close(*found);
	return mrs_fail(-EEXIST, "the name '%s' is taken in %s", name, mrs_pool_path(pool));
}

static int import_named(struct morsel_pool *pool, const char *name, const char *file,
			const struct mrs_carrier *carrier, const struct morsel_opts *given,
			struct morsel **morsel)
{
	struct morsel_opts opts;
	struct morsel *found;
	int lock, rc = mrs_morsel_opts(given, &opts);

	if (!rc)
		rc = check_import(pool, name, &opts);
	if (!rc)
		rc = find_imported(pool, name, &opts, &found);
	if (rc != -ENOENT) {
		if (!rc)
			*morsel = found;
		return rc;
	}
	lock = mrs_pool_lock_byte(pool, MRS_LOCK_IMPORT +
						mrs_crc32c(0, name, strlen(name)) % IMPORT_LOCKS);
	if (lock < 0)
		return lock;
	MRS_PROBE("import.locked");
	/* Whoever had the lock before may have imported it; somebody else may take the name. */
	do {
		rc = find_imported(pool, name, &opts, &found);
		if (rc != -ENOENT)
			break;
		rc = import_new(pool, name, file, carrier, &opts, &found);
	} while (rc == -EEXIST);
	mrs_pool_unlock_byte(lock);
	if (!rc)
		*morsel = found;
	return rc;
}

int morsel_import(struct morsel_pool *pool, const char *name, const char *file,
		  const struct morsel_opts *opts, struct morsel **morsel)
{
	return import_named(pool, name, file, NULL, opts, morsel);
}

int morsel_import_by(struct morsel_pool *pool, const char *name,
		     const struct morsel_carrier_ops *ops, void *ctx, uint64_t bytes,
		     const struct morsel_opts *opts, struct morsel **morsel)
{
	struct mrs_carrier carrier = {.ctx = ctx, .bytes = bytes};
	bool aligned = opts && opts->size > offsetof(struct morsel_opts, tensor_align) &&
		       opts->tensor_align;
	int rc = mrs_carrier_check(&carrier, ops,
				   MRS_CARRIER_FILL | (aligned ? MRS_CARRIER_READ : 0));

	return rc ? rc : import_named(pool, name, carrier.ops.name, &carrier, opts, morsel);
}
