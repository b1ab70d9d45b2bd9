/*
 * Planning a content in which every tensor is aligned. See mrs_model_layout_aligned().
 *
 * One walk over the tensors in the order of the file: what lies between them is structure and goes
 * to the front, side by side; then each tensor goes to the next multiple of the alignment. The plan
 * is made aside and put into the model at the end, so that a failure changes nothing.
 */
#include "model/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

/* An encoded or external tensor stays where the structure is. */
static bool movable(const struct mrs_tensor *tensor)
{
	return !(tensor->flags & (MORSEL_TENSOR_ENCODED | MORSEL_TENSOR_EXTERNAL));
}

/* Bytes of the file that are not movable tensors. */
static uint64_t structure_bytes(const struct mrs_model *model)
{
	uint64_t bytes = model->source_bytes;

	for (uint64_t i = 0; i < model->count; i++)
		if (movable(&model->tensors[i]))
			bytes -= model->tensors[i].bytes;
	return bytes;
}

struct plan {
	const struct mrs_model *model;
	uint64_t alignment;
	uint64_t *offsets; /* new ones, by tensor */
	struct mrs_piece *pieces;
	uint64_t piece_count;
	uint64_t structure; /* end of what has been placed at the front */
	uint64_t data;	    /* end of what has been placed behind */
	uint64_t source;    /* end of what has been taken from the file */
};

static void piece_add(struct plan *plan, uint64_t destination, uint64_t bytes)
{
	struct mrs_piece *last = plan->piece_count ? &plan->pieces[plan->piece_count - 1] : NULL;

	if (!bytes)
		return;
	if (last && last->destination + last->bytes == destination)
		last->bytes += bytes;
	else
		plan->pieces[plan->piece_count++] = (struct mrs_piece){
			.source = plan->source, .destination = destination, .bytes = bytes};
	plan->source += bytes;
}

static void take_structure(struct plan *plan, uint64_t source_end)
{
	uint64_t bytes = source_end - plan->source;

	piece_add(plan, plan->structure, bytes);
	plan->structure += bytes;
}

static int place(struct plan *plan, uint32_t index)
{
	const struct mrs_tensor *t = &plan->model->tensors[index];
	uint64_t offset;

	if (!movable(t)) {
		/* Inside the stretch of structure that is taken next: it keeps its distance. */
		plan->offsets[index] = t->flags & MORSEL_TENSOR_EXTERNAL
					       ? 0
					       : plan->structure + (t->source - plan->source);
		return 0;
	}
	if (t->source > plan->source)
		take_structure(plan, t->source);
	offset = mrs_round_up(plan->data, plan->alignment);
	if (offset > INT64_MAX - t->bytes)
		return mrs_fail(-EFBIG,
				"tensors aligned to %llu bytes end past 2^63: use a smaller "
				"alignment",
				(unsigned long long)plan->alignment);
	plan->offsets[index] = offset;
	piece_add(plan, offset, t->bytes);
	plan->data = offset + t->bytes;
	return 0;
}

static int plan_make(struct plan *plan)
{
	uint32_t *order = mrs_model_sorted(plan->model, MRS_ORDER_PLACE);
	int error = 0;

	if (!order)
		return -ENOMEM;
	plan->data = structure_bytes(plan->model);
	for (uint64_t i = 0; i < plan->model->count && !error; i++)
		error = place(plan, order[i]);
	if (!error)
		take_structure(plan, plan->model->source_bytes);
	free(order);
	return error;
}

static void plan_apply(const struct plan *plan, struct mrs_model *model)
{
	for (uint64_t i = 0; i < model->count; i++)
		model->tensors[i].offset = plan->offsets[i];
	free(model->pieces);
	model->pieces = plan->pieces;
	model->piece_count = plan->piece_count;
	model->bytes = plan->data;
}

int mrs_model_layout_aligned(struct mrs_model *model, uint64_t alignment)
{
	struct plan plan = {.model = model, .alignment = alignment};
	int error;

	if (!alignment || alignment & (alignment - 1) || alignment > MRS_MODEL_ALIGN_MAX)
		return mrs_fail(-EINVAL,
				"tensor alignment %llu: it must be a power of two from 1 to "
				"%llu",
				(unsigned long long)alignment,
				(unsigned long long)MRS_MODEL_ALIGN_MAX);
	plan.offsets = calloc(model->count + 1, sizeof(*plan.offsets));
	plan.pieces = calloc(2 * model->count + 1, sizeof(*plan.pieces));
	error = plan.offsets && plan.pieces ? plan_make(&plan)
					    : mrs_fail(-ENOMEM, "no memory to lay out %llu tensors",
						       (unsigned long long)model->count);
	if (error)
		free(plan.pieces);
	else
		plan_apply(&plan, model);
	free(plan.offsets);
	return error;
}
