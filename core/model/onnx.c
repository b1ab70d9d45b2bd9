/*
 * ONNX: a ModelProto, walked for the tensors in it.
 *
 *	ModelProto > graph > initializer                       "name"
 *	                   > node > attribute > tensor         "output" (Constant),
 *"output/attribute" > graph > ...    "output/attribute/..." > functions > node > ...
 *"function/domain/name/..." > training_info > graphs > ...              "training/0/algorithm/..."
 *
 * Nodes go by their first output, which the format makes unique within a graph; without one by
 * their name, else by "#" and their index. Sparse tensors are two: ".../values" and ".../indices". A
 * list has its index behind the attribute. A message is read twice where its name stands inside it.
 */
#include "model/onnx.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/base.h"

typedef unsigned long long ull;

/* ---- names and nesting
 * ------------------------------------------------------------------------------- */

void mrs_onnx_path_add(struct mrs_onnx *onnx, const char *text, size_t bytes)
{
	struct mrs_onnx_path *path = &onnx->path;

	if (path->length < sizeof(path->text))
		memcpy(path->text + path->length, text,
		       mrs_min(bytes, sizeof(path->text) - path->length));
	path->length += bytes;
}

int mrs_onnx_path_add_file(struct mrs_onnx *onnx, uint64_t at, uint64_t bytes)
{
	struct mrs_onnx_path *path = &onnx->path;
	int error = 0;

	if (path->length < sizeof(path->text))
		error = mrs_reader_copy(onnx->reader, at, path->text + path->length,
					mrs_min(bytes, sizeof(path->text) - path->length));
	path->length += bytes;
	return error;
}

static void path_add_text(struct mrs_onnx *onnx, const char *text)
{
	mrs_onnx_path_add(onnx, text, strlen(text));
}

static void path_add_index(struct mrs_onnx *onnx, const char *before, uint64_t index)
{
	char text[32];

	snprintf(text, sizeof(text), "%s%llu", before, (ull)index);
	path_add_text(onnx, text);
}

int mrs_onnx_wire(const struct mrs_field *field, enum mrs_wire wire, const char *what)
{
	if (field->wire == wire)
		return 0;
	return mrs_fail(-EINVAL, "onnx: field %u at byte %llu: wire type %u, which %s cannot have",
			field->number, (ull)field->at, field->wire, what);
}

int mrs_onnx_enter(struct mrs_onnx *onnx, const struct mrs_field *field, const char *what)
{
	if (mrs_onnx_wire(field, MRS_WIRE_BYTES, what))
		return -EINVAL;
	if (onnx->depth == MRS_MODEL_NEST_MAX)
		return mrs_fail(-E2BIG,
				"onnx: %s at byte %llu: messages nested more than %u deep, which "
				"is the limit",
				what, (ull)field->at, MRS_MODEL_NEST_MAX);
	onnx->depth++;
	return 0;
}

void mrs_onnx_leave(struct mrs_onnx *onnx)
{
	onnx->depth--;
}

/* ---- the walk
 * ---------------------------------------------------------------------------------------- */

/* What walks one message with the context of what it is in. */
typedef int (*visit_fn)(struct mrs_onnx *onnx, const struct mrs_field *field, void *ctx);

/* Calls visit for every field of the message in field. */
static int walk(struct mrs_onnx *onnx, const struct mrs_field *message, const char *what,
		visit_fn visit, void *ctx)
{
	uint64_t at = message->data, end = message->data + message->bytes;
	struct mrs_field field;
	int more, error = mrs_onnx_enter(onnx, message, what);

	if (error)
		return error;
	while ((more = mrs_field_next(onnx->reader, &at, end, &field, what)) == 1) {
		error = visit(onnx, &field, ctx);
		if (error)
			return error;
	}
	mrs_onnx_leave(onnx);
	return more;
}

static int visit_graph(struct mrs_onnx *onnx, const struct mrs_field *field, void *ctx);

/* The strings of a message that make its part of a path, by field number. */
struct parts {
	const uint32_t *numbers; /* those that are wanted, in the path's order */
	size_t count;
	struct mrs_field first[3]; /* the first one of each that is not empty */
};

static int visit_parts(struct mrs_onnx *onnx, const struct mrs_field *field, void *ctx)
{
	struct parts *parts = ctx;

	for (size_t i = 0; i < parts->count; i++) {
		if (field->number != parts->numbers[i])
			continue;
		if (mrs_onnx_wire(field, MRS_WIRE_BYTES, "a name"))
			return -EINVAL;
		if (!parts->first[i].bytes)
			parts->first[i] = *field;
	}
	return 0;
}

static int find_parts(struct mrs_onnx *onnx, const struct mrs_field *message, const char *what,
		      const uint32_t *numbers, size_t count, struct parts *parts)
{
	*parts = (struct parts){.numbers = numbers, .count = count};
	return walk(onnx, message, what, visit_parts, parts);
}

static int path_add_part(struct mrs_onnx *onnx, const struct parts *parts, size_t i)
{
	return mrs_onnx_path_add_file(onnx, parts->first[i].data, parts->first[i].bytes);
}

/* True if that part is exactly text (of less than 16 bytes). */
static int part_is(struct mrs_onnx *onnx, const struct parts *parts, size_t i, const char *text)
{
	char found[16];
	int error;

	if (parts->first[i].bytes != strlen(text))
		return 0;
	error = mrs_reader_copy(onnx->reader, parts->first[i].data, found, strlen(text));
	return error ? error : !memcmp(found, text, strlen(text));
}

/* ---- sparse tensors
 * ---------------------------------------------------------------------------------- */

static int visit_sparse(struct mrs_onnx *onnx, const struct mrs_field *field, void *ctx)
{
	size_t length = onnx->path.length;
	int error;

	if (field->number != 1 && field->number != 2)
		return 0;
	path_add_text(onnx, field->number == 1 ? "/values" : "/indices");
	error = mrs_onnx_tensor(onnx, field, false);
	onnx->path.length = length;
	return error;
}

static int sparse(struct mrs_onnx *onnx, const struct mrs_field *field)
{
	return walk(onnx, field, "a sparse tensor", visit_sparse, NULL);
}

/* A sparse initializer goes by the name of its values. */
static int sparse_initializer(struct mrs_onnx *onnx, const struct mrs_field *field)
{
	static const uint32_t values_number[] = {1}, name_number[] = {8};
	size_t length = onnx->path.length;
	struct parts values, name;
	int error = find_parts(onnx, field, "a sparse tensor", values_number, 1, &values);

	if (error)
		return error;
	if (!values.first[0].bytes)
		return mrs_fail(-EINVAL, "onnx: sparse tensor at byte %llu: it has no values",
				(ull)field->at);
	error = find_parts(onnx, &values.first[0], "a tensor", name_number, 1, &name);
	if (!error)
		error = path_add_part(onnx, &name, 0);
	if (!error)
		error = sparse(onnx, field);
	onnx->path.length = length;
	return error;
}

/* ---- attributes and nodes
 * ------------------------------------------------------------------------------ */

enum { TENSOR = 5, GRAPH = 6, TENSORS = 10, GRAPHS = 11, SPARSE = 22, SPARSES = 23 };

struct attribute {
	struct parts name;
	bool constant; /* of a Constant node */
	uint64_t listed[GRAPHS + 1];
	uint64_t sparse_listed;
};

/* The attribute's part of the path: none for the value of a Constant. */
static int path_add_attribute(struct mrs_onnx *onnx, struct attribute *attribute)
{
	int value = 0;

	if (attribute->constant) {
		value = part_is(onnx, &attribute->name, 0, "value");
		if (!value)
			value = part_is(onnx, &attribute->name, 0, "sparse_value");
	}
	if (value)
		return value < 0 ? value : 0;
	path_add_text(onnx, "/");
	return path_add_part(onnx, &attribute->name, 0);
}

static int visit_value(struct mrs_onnx *onnx, const struct mrs_field *field,
		       struct attribute *attribute)
{
	switch (field->number) {
	case TENSORS:
		path_add_index(onnx, "/", attribute->listed[TENSORS]++);
		/* fall through */
	case TENSOR:
		return mrs_onnx_tensor(onnx, field, false);
	case SPARSES:
		path_add_index(onnx, "/", attribute->sparse_listed++);
		/* fall through */
	case SPARSE:
		return sparse(onnx, field);
	case GRAPHS:
		path_add_index(onnx, "/", attribute->listed[GRAPHS]++);
		/* fall through */
	default: {
		uint64_t nodes = 0;

		path_add_text(onnx, "/");
		return walk(onnx, field, "a graph", visit_graph, &nodes);
	}
	}
}

static int visit_attribute(struct mrs_onnx *onnx, const struct mrs_field *field, void *ctx)
{
	struct attribute *attribute = ctx;
	size_t length = onnx->path.length;
	int error;

	if (field->number != TENSOR && field->number != GRAPH && field->number != TENSORS &&
	    field->number != GRAPHS && field->number != SPARSE && field->number != SPARSES)
		return 0;
	error = path_add_attribute(onnx, attribute);
	if (!error)
		error = visit_value(onnx, field, attribute);
	onnx->path.length = length;
	return error;
}

static int attribute_walk(struct mrs_onnx *onnx, const struct mrs_field *field, bool constant)
{
	static const uint32_t name_number[] = {1};
	struct attribute attribute = {.constant = constant};
	int error = find_parts(onnx, field, "an attribute", name_number, 1, &attribute.name);

	return error ? error : walk(onnx, field, "an attribute", visit_attribute, &attribute);
}

static int visit_node(struct mrs_onnx *onnx, const struct mrs_field *field, void *ctx)
{
	return field->number == 5 ? attribute_walk(onnx, field, *(bool *)ctx) : 0;
}

static int node(struct mrs_onnx *onnx, const struct mrs_field *field, uint64_t index)
{
	static const uint32_t numbers[] = {2, 3, 4}; /* output, name, op_type */
	size_t length = onnx->path.length;
	struct parts parts;
	bool constant;
	int error = find_parts(onnx, field, "a node", numbers, 3, &parts);

	if (error)
		return error;
	if (parts.first[0].bytes)
		error = path_add_part(onnx, &parts, 0);
	else if (parts.first[1].bytes)
		error = path_add_part(onnx, &parts, 1);
	else
		path_add_index(onnx, "#", index);
	if (error)
		return error;
	error = part_is(onnx, &parts, 2, "Constant");
	if (error < 0)
		return error;
	constant = error;
	error = walk(onnx, field, "a node", visit_node, &constant);
	onnx->path.length = length;
	return error;
}

/* ctx counts the graph's nodes. */
static int visit_graph(struct mrs_onnx *onnx, const struct mrs_field *field, void *ctx)
{
	uint64_t *nodes = ctx;
	size_t length = onnx->path.length;
	int error;

	switch (field->number) {
	case 1:
		return node(onnx, field, (*nodes)++);
	case 5:
		error = mrs_onnx_tensor(onnx, field, true);
		onnx->path.length = length;
		return error;
	case 15:
		return sparse_initializer(onnx, field);
	}
	return 0;
}

/* ---- the model
 * ----------------------------------------------------------------------------------------- */

static int visit_function(struct mrs_onnx *onnx, const struct mrs_field *field, void *ctx)
{
	if (field->number == 7)
		return node(onnx, field, (*(uint64_t *)ctx)++);
	return field->number == 11 ? attribute_walk(onnx, field, false) : 0;
}

static int function(struct mrs_onnx *onnx, const struct mrs_field *field)
{
	static const uint32_t numbers[] = {10, 1, 13}; /* domain, name, overload */
	uint64_t nodes = 0;
	struct parts parts;
	int error = find_parts(onnx, field, "a function", numbers, 3, &parts);

	path_add_text(onnx, "function/");
	for (size_t i = 0; i < 3 && !error; i++) {
		if (!parts.first[i].bytes)
			continue;
		error = path_add_part(onnx, &parts, i);
		path_add_text(onnx, "/");
	}
	if (!error)
		error = walk(onnx, field, "a function", visit_function, &nodes);
	onnx->path.length = 0;
	return error;
}

static int visit_training(struct mrs_onnx *onnx, const struct mrs_field *field, void *ctx)
{
	size_t length = onnx->path.length;
	uint64_t nodes = 0;
	int error;

	if (field->number != 1 && field->number != 2)
		return 0;
	path_add_text(onnx, field->number == 1 ? "/initialization/" : "/algorithm/");
	error = walk(onnx, field, "a graph", visit_graph, &nodes);
	onnx->path.length = length;
	return error;
}

struct top {
	bool graph_seen;
	uint64_t trainings;
	uint64_t nodes;
};

static int visit_model(struct mrs_onnx *onnx, const struct mrs_field *field, void *ctx)
{
	struct top *top = ctx;
	int error;

	switch (field->number) {
	case 7:
		if (top->graph_seen)
			return mrs_fail(-EINVAL, "onnx: the graph at byte %llu is the second one",
					(ull)field->at);
		top->graph_seen = true;
		return walk(onnx, field, "a graph", visit_graph, &top->nodes);
	case 20:
		path_add_index(onnx, "training/", top->trainings++);
		error = walk(onnx, field, "training_info", visit_training, NULL);
		onnx->path.length = 0;
		return error;
	case 25:
		return function(onnx, field);
	}
	return 0;
}

int mrs_onnx_parse(struct mrs_reader *reader, struct mrs_model *model)
{
	struct mrs_onnx onnx = {.reader = reader, .model = model};
	struct mrs_field all = {.wire = MRS_WIRE_BYTES, .bytes = model->source_bytes};
	struct top top = {0};
	int error = walk(&onnx, &all, "the model", visit_model, &top);

	if (!error && !top.graph_seen)
		error = mrs_fail(-EINVAL, "onnx: the model has no graph up to its end at byte %llu",
				 (ull)model->source_bytes);
	return error;
}

/* ---- detection
 * ----------------------------------------------------------------------------------------- */

/* The first byte of the value is one of count. */
static int begins_with(struct mrs_reader *reader, const struct mrs_field *field, const char *set,
		       size_t count)
{
	int c;

	if (!field->bytes || field->data >= reader->source->bytes)
		return field->bytes != 0;
	c = mrs_reader_byte(reader, field->data);
	return c < 0 ? c : memchr(set, c, count) != NULL;
}

/* What can be seen of the value, up to 64 bytes, has no control characters. */
static int is_text(struct mrs_reader *reader, const struct mrs_field *field)
{
	uint64_t end =
		mrs_min(field->data + mrs_min(field->bytes, (uint64_t)64), reader->source->bytes);

	for (uint64_t at = field->data; at < end; at++) {
		int c = mrs_reader_byte(reader, at);

		if (c < 0)
			return c;
		if (c < 0x20 && c != '\t' && c != '\n' && c != '\r')
			return 0;
	}
	return 1;
}

/* Would a ModelProto have this field, and with such a value? */
static int plausible(struct mrs_reader *reader, const struct mrs_field *field)
{
	/* Tags that begin a GraphProto, an OperatorSetIdProto, a StringStringEntryProto. */
	static const char graph[] = {0x0a, 0x12, 0x2a, 0x52, 0x5a, 0x62, 0x6a, 0x72, 0x7a};
	static const char opset[] = {0x0a, 0x10};
	static const char entry[] = {0x0a, 0x12};

	if (field->number == 5)
		return field->wire == MRS_WIRE_VARINT;
	if (field->wire != MRS_WIRE_BYTES)
		return 0;
	switch (field->number) {
	case 2:
	case 3:
	case 4:
	case 6:
		return is_text(reader, field);
	case 7:
		return begins_with(reader, field, graph, sizeof(graph));
	case 8:
		return field->bytes < 4096 && begins_with(reader, field, opset, sizeof(opset));
	case 14:
		return begins_with(reader, field, entry, sizeof(entry));
	}
	return 0;
}

/*
 * There is no magic number. A file claims to be ONNX if it begins as every writer begins it, with a
 * small ir_version, and the one or two fields after it are a ModelProto's; a value that is cut off
 * by the end of the file counts, so that a truncated model is an error and not bytes.
 */
int mrs_onnx_claims(struct mrs_reader *reader)
{
	uint64_t at = 0, end = reader->source->bytes;
	struct mrs_field field;
	const char *why = NULL;
	int fits, result = mrs_field_take(reader, &at, end, &field, &why);

	if (result <= 0)
		return why ? 0 : result;
	if (field.number != 1 || field.wire != MRS_WIRE_VARINT || !field.value || field.value > 255)
		return 0;
	for (int seen = 0; seen < 2; seen++) {
		result = mrs_field_take(reader, &at, end, &field, &why);
		if (!result)
			return seen;
		if (result < 0 && (!why || !field.data))
			return why ? 0 : result;
		why = NULL;
		fits = plausible(reader, &field);
		if (fits != 1)
			return fits;
		if (result < 0 || field.number == 7)
			return 1;
	}
	return 1;
}
