/*
 * What the walk over an ONNX model (onnx.c) and the reading of one tensor (onnx_tensor.c) share.
 */
#ifndef MRS_MODEL_ONNX_H
#define MRS_MODEL_ONNX_H

#include "model/protobuf.h"

/*
 * The name under which the next tensor would be listed. length may pass the room: what does not
 * fit is not kept, and a tensor with such a name is refused; without a tensor it does not matter.
 */
struct mrs_onnx_path {
	char text[MORSEL_TENSOR_NAME_MAX + 1];
	size_t length;
};

struct mrs_onnx {
	struct mrs_reader *reader;
	struct mrs_model *model;
	struct mrs_onnx_path path;
	unsigned depth; /* messages that are open */
	bool external_told;
};

/* Appends text, or a stretch of the file. Undone by setting path.length back. */
void mrs_onnx_path_add(struct mrs_onnx *onnx, const char *text, size_t bytes);
int mrs_onnx_path_add_file(struct mrs_onnx *onnx, uint64_t at, uint64_t bytes);

/* The field as a nested message: its wire type is checked, its depth counted. */
int mrs_onnx_enter(struct mrs_onnx *onnx, const struct mrs_field *field, const char *what);
void mrs_onnx_leave(struct mrs_onnx *onnx);
/* -EINVAL unless the field has that wire type. */
int mrs_onnx_wire(const struct mrs_field *field, enum mrs_wire wire, const char *what);

/*
 * Lists the TensorProto in field. Its name is the path, with the tensor's own name after it if
 * own_name. A tensor without a name of its own then is refused.
 */
int mrs_onnx_tensor(struct mrs_onnx *onnx, const struct mrs_field *field, bool own_name);

#endif
