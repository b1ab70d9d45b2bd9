/*
 * Tensors of an imported model, looked up in the packed table that lies in the pool beside the
 * content. It never changes once the morsel has a name; but it is read from shared memory, which
 * anybody may have damaged: the model room checks what it touches.
 */
#include <errno.h>

#include "model/model.h"
#include "object/internal.h"

const void *mrs_morsel_packed(struct morsel *morsel, uint64_t *bytes)
{
	struct mrs_cell_record copy;

	if (!mrs_record_copy(morsel->pool, morsel->cell, &copy) || !copy.meta_frame ||
	    mrs_record_problem(morsel->pool, &copy))
		return NULL;
	*bytes = copy.meta_bytes;
	return mrs_pool_at(morsel->pool, copy.meta_frame, mrs_pages_in(copy.meta_bytes));
}

static int packed_of(struct morsel *morsel, const void **packed, uint64_t *bytes)
{
	int rc = mrs_pool_usable(morsel->pool, false);

	if (rc)
		return rc;
	*packed = mrs_morsel_packed(morsel, bytes);
	if (*packed)
		return 0;
	return mrs_fail(-EOPNOTSUPP, "the morsel has no tensor table: it was not imported from an "
				     "ONNX, safetensors or GGUF file");
}

/* After a shrink some tensors are not there any more; and on a read-only handle, perhaps nothing.
 */
static int check_inside(struct morsel *morsel, const struct morsel_tensor *tensor)
{
	uint64_t bytes = mrs_morsel_bytes(morsel);

	if (!mrs_cell_is_current(mrs_pool_cells(morsel->pool), morsel->cell, MRS_CELL_RECORD))
		return mrs_fail(-ENOENT, "the morsel was removed meanwhile");
	if (tensor->offset <= bytes && tensor->bytes <= bytes - tensor->offset)
		return 0;
	return mrs_fail(-ENOENT,
			"the tensor '%s' lies beyond the end of the morsel, which was shrunk to "
			"%llu bytes",
			tensor->name, (unsigned long long)bytes);
}

int morsel_tensor(struct morsel *morsel, const char *name, struct morsel_tensor *tensor)
{
	struct morsel_tensor found;
	const void *packed;
	uint64_t bytes;
	int rc = packed_of(morsel, &packed, &bytes);

	if (rc)
		return rc;
	rc = mrs_packed_find(packed, bytes, name, &found);
	if (rc == -ENOENT)
		return mrs_fail(rc, "the model has no tensor '%s'", name);
	if (!rc)
		rc = check_inside(morsel, &found);
	if (!rc)
		*tensor = found;
	return rc;
}

int morsel_tensor_at(struct morsel *morsel, uint64_t index, struct morsel_tensor *tensor)
{
	struct morsel_tensor found;
	const void *packed;
	uint64_t bytes;
	int rc = packed_of(morsel, &packed, &bytes);

	if (rc)
		return rc;
	rc = mrs_packed_get(packed, bytes, index, &found);
	if (rc == -ERANGE)
		return mrs_fail(rc, "tensor %llu: the model has %llu", (unsigned long long)index,
				(unsigned long long)mrs_load_acquire(&morsel->record->tensors));
	if (!rc)
		rc = check_inside(morsel, &found);
	if (!rc)
		*tensor = found;
	return rc;
}
