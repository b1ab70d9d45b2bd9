/*
 * Carriers: import from, and export to, what is not a file of this kernel.
 *
 * A carrier moves bytes between a place of its own (blocks of a device that a user-space driver
 * has, memory of another machine) and ranges of a morsel, by whatever way it has: usually a view of
 * its own over the morsel, and a device that writes straight into the frames. The core does what an
 * import is beside that: the morsel without a name, its tensor table, and the name when it is
 * complete.
 *
 * Versions as in <morsel/view.h>: the table begins with its size and MORSEL_CARRIER_VERSION. The
 * table and ctx are used during the call only.
 */
#ifndef MORSEL_CARRIER_H
#define MORSEL_CARRIER_H

#include <stddef.h>
#include <stdint.h>

#include <morsel/morsel.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MORSEL_CARRIER_VERSION 1

/*
 * Operations answer 0 or a negative errno with words (morsel_fail()). Positions are bytes of the
 * carrier's place, from 0; offsets are bytes of the morsel. Neither needs to be aligned to
 * anything, but without tensor_align each piece's position equals its offset, and all but the last
 * are of whole MiB.
 */
struct morsel_carrier_ops {
	size_t size;	  /* sizeof(struct morsel_carrier_ops) */
	uint32_t version; /* MORSEL_CARRIER_VERSION */
	uint32_t reserved;
	const char *name; /* of the place, for messages */

	/* Import: the place has `bytes` bytes. Writes all of the range of the morsel. */
	int (*fill)(void *ctx, struct morsel *morsel, uint64_t offset, uint64_t position,
		    uint64_t bytes);
	/* Import with tensor_align, else may be NULL: reads a little, to look at the description.
	 */
	int (*read)(void *ctx, uint64_t position, void *buffer, size_t bytes);
	/* Export: keeps a range of the morsel. */
	int (*drain)(void *ctx, struct morsel *morsel, uint64_t offset, uint64_t position,
		     uint64_t bytes);
	/* Export, may be NULL: all is there. What it answers is the export's answer. */
	int (*finish)(void *ctx, uint64_t bytes);
};

/*
 * As morsel_import(), but the content is the first `bytes` bytes of a carrier's place. Nobody
 * watches whether that changes meanwhile. -EOPNOTSUPP: the carrier lacks the operation that is
 * needed.
 */
MORSEL_API int morsel_import_by(struct morsel_pool *pool, const char *name,
				const struct morsel_carrier_ops *ops, void *ctx, uint64_t bytes,
				const struct morsel_opts *opts, struct morsel **morsel);

/*
 * As morsel_export(), but to a carrier's place: which needs room for as many bytes as were
 * imported, told by *bytes (may be NULL).
 */
MORSEL_API int morsel_export_by(struct morsel *morsel, const struct morsel_carrier_ops *ops,
				void *ctx, const struct morsel_opts *opts, uint64_t *bytes);

#ifdef __cplusplus
}
#endif

#endif
