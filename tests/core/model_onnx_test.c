/*
 * ONNX, made by hand: what is read, under which name, and what is refused at which byte.
 */
#include "core/model_bytes.h"

/* ---- writing messages
 * ---------------------------------------------------------------------------- */

static void put_varint(struct bytes *b, uint64_t value)
{
	for (; value > 0x7f; value >>= 7)
		put_number(b, (value & 0x7f) | 0x80, 1);
	put_number(b, value, 1);
}

static void put_int(struct bytes *b, uint32_t field, uint64_t value)
{
	put_varint(b, field << 3);
	put_varint(b, value);
}

static void put_raw(struct bytes *b, uint32_t field, const void *data, size_t count)
{
	put_varint(b, field << 3 | 2);
	put_varint(b, count);
	put(b, data, count);
}

static void put_string(struct bytes *b, uint32_t field, const char *text)
{
	put_raw(b, field, text, strlen(text));
}

/* Takes the message over. */
static void put_message(struct bytes *b, uint32_t field, struct bytes message)
{
	put_raw(b, field, message.data, message.count);
	bytes_free(&message);
}

/* A model around that graph, which it takes over. The graph's fields begin at byte 4 (or 5). */
static struct bytes model_of(struct bytes graph)
{
	struct bytes b = {0};

	put_int(&b, 1, 8);
	put_message(&b, 7, graph);
	return b;
}

/* A model with one initializer, whose fields begin at byte 6 while it is short. */
static struct bytes model_of_tensor(struct bytes tensor)
{
	struct bytes graph = {0};

	put_message(&graph, 5, tensor);
	return model_of(graph);
}

/* A tensor with raw data of zeros; name NULL for none. */
static struct bytes tensor(const char *name, uint64_t elements, uint32_t type, size_t raw)
{
	static const unsigned char zeros[256];
	struct bytes b = {0};

	put_int(&b, 1, elements);
	put_int(&b, 2, type);
	if (name)
		put_string(&b, 8, name);
	put_raw(&b, 9, zeros, raw);
	return b;
}

static struct bytes attribute(const char *name, uint32_t field, struct bytes value)
{
	struct bytes b = {0};

	/* The value before the name: order means nothing in this format. */
	put_message(&b, field, value);
	put_string(&b, 1, name);
	return b;
}

static struct bytes node(const char *output, const char *name, const char *op,
			 struct bytes attribute_)
{
	struct bytes b = {0};

	put_message(&b, 5, attribute_);
	if (op)
		put_string(&b, 4, op);
	if (name)
		put_string(&b, 3, name);
	if (output)
		put_string(&b, 2, output);
	return b;
}

/* ---- what is read
 * -------------------------------------------------------------------------------- */

static struct bytes sparse(const char *name)
{
	struct bytes b = {0};

	put_message(&b, 1, tensor(name, 2, 1, 8));
	put_message(&b, 2, tensor("ignored", 2, 7, 16));
	put_int(&b, 3, 10);
	return b;
}

/* Tensors everywhere that the format has a place for one. */
static struct bytes rich_model(void)
{
	struct bytes graph = {0}, inner = {0}, function = {0}, training = {0}, b;
	struct bytes list = {0};

	put_message(&graph, 5, tensor("w", 3, 1, 12));
	put_message(&graph, 1,
		    node("c", "n", "Constant", attribute("value", 5, tensor(NULL, 1, 9, 1))));
	put_message(&graph, 1,
		    node("r", NULL, "Reshape", attribute("value", 5, tensor("x", 1, 2, 1))));
	put_message(&inner, 5, tensor("w", 1, 3, 1));
	put_message(&inner, 1, node(NULL, "named", "Q", attribute("t", 5, tensor(NULL, 1, 3, 1))));
	put_message(&graph, 1, node("if", NULL, "If", attribute("then", 6, inner)));
	put_message(&list, 10, tensor(NULL, 1, 3, 1));
	put_message(&list, 10, tensor(NULL, 1, 3, 1));
	put_string(&list, 1, "many");
	put_message(&graph, 1, node(NULL, NULL, NULL, list));
	put_message(&graph, 15, sparse("s"));
	put_message(&graph, 1,
		    node("d", NULL, "Constant", attribute("sparse_value", 22, sparse("ignored"))));
	b = model_of(graph);
	put_string(&function, 1, "F");
	put_string(&function, 10, "dom");
	put_message(&function, 7,
		    node("fc", NULL, "Constant", attribute("value", 5, tensor(NULL, 1, 3, 1))));
	put_message(&b, 25, function);
	inner = (struct bytes){0};
	put_message(&inner, 5, tensor("g", 1, 3, 1));
	put_message(&training, 2, inner);
	put_message(&b, 20, training);
	return b;
}

static void names_are_paths(void **state)
{
	static const char *const names[] = {"w",
					    "c",
					    "r/value",
					    "if/then/w",
					    "if/then/named/t",
					    "#3/many/0",
					    "#3/many/1",
					    "s/values",
					    "s/indices",
					    "d/values",
					    "d/indices",
					    "function/dom/F/fc",
					    "training/0/algorithm/g"};
	struct bytes b = rich_model();
	struct mrs_model model = {0};

	assert_int_equal(parse_both(b.data, b.count, &model), 0);
	assert_int_equal(model.format, MORSEL_FORMAT_ONNX);
	assert_int_equal(model.count, sizeof(names) / sizeof(names[0]));
	for (size_t i = 0; i < model.count; i++)
		assert_string_equal(mrs_model_name(&model, i), names[i]);
	expect_tensor(&model, 0, "w", MORSEL_TYPE_F32, model.tensors[0].at + 9, 12, 0);
	mrs_model_free(&model);
	expect_failing_reads_passed_up(&b);
	expect_damage_survived(&b);
	bytes_free(&b);
}

/* A model is one from the end of its graph on, and bytes before the graph can be told. */
static void prefixes(void **state)
{
	struct bytes b = model_of_tensor(tensor("w", 3, 1, 12));

	expect_prefixes_refused(&b, b.count);
	for (size_t bytes = 5; bytes < b.count; bytes++) {
		struct bytes prefix = {b.data, bytes, 0};

		expect_refused(&prefix, -EINVAL, "onnx: field 7 of the model at byte 2",
			       "reaches past the end");
	}
	bytes_free(&b);
}

/* Data in the typed fields: an array where it is one, else encoded. */
static void typed_data(void **state)
{
	static const unsigned char values[16] = {1, 2, 3, 4, 5, 6, 7, 8};
	struct bytes graph = {0}, t = {0}, b;
	struct mrs_model model = {0};
	uint64_t at;

	put_raw(&t, 1, "\2\1", 2); /* a packed shape */
	put_int(&t, 2, 1);
	put_raw(&t, 4, values, 8);
	put_string(&t, 8, "packed");
	put_message(&graph, 5, t);
	t = (struct bytes){0};
	put_int(&t, 1, 2);
	put_int(&t, 2, 1);
	for (int i = 0; i < 2; i++) {
		put_varint(&t, 4 << 3 | 5);
		put_number(&t, 1, 4);
	}
	put_string(&t, 8, "single");
	put_message(&graph, 5, t);
	t = (struct bytes){0};
	put_int(&t, 1, 3);
	put_int(&t, 2, 7);
	put_raw(&t, 7, "\1\xac\2\2", 4);
	put_string(&t, 8, "int64");
	put_message(&graph, 5, t);
	t = (struct bytes){0};
	put_int(&t, 1, 3);
	put_int(&t, 2, 22);
	put_int(&t, 5, 0x21);
	put_int(&t, 5, 0x3);
	put_string(&t, 8, "int4");
	put_message(&graph, 5, t);
	t = (struct bytes){0};
	put_int(&t, 1, 2);
	put_int(&t, 2, 8);
	put_string(&t, 6, "one");
	put_string(&t, 6, "");
	put_string(&t, 8, "strings");
	put_message(&graph, 5, t);
	t = (struct bytes){0};
	put_int(&t, 2, 15);
	put_raw(&t, 10, values, 16);
	put_string(&t, 8, "complex");
	put_message(&graph, 5, t);
	put_message(&graph, 5, tensor("none", 0, 1, 0));
	b = model_of(graph);
	assert_int_equal(parse_both(b.data, b.count, &model), 0);
	assert_int_equal(model.count, 7);
	at = model.tensors[0].at;
	expect_tensor(&model, 0, "packed", MORSEL_TYPE_F32, at + 4 + 2 + 2, 8, 0);
	assert_int_equal(model.tensors[0].rank, 2);
	for (uint64_t i = 1; i < 5; i++) {
		assert_int_equal(model.tensors[i].flags, MORSEL_TENSOR_ENCODED);
		assert_int_equal(model.tensors[i].offset, model.tensors[i].at);
		assert_true(model.tensors[i].bytes > 8);
	}
	expect_tensor(&model, 5, "complex", MORSEL_TYPE_C128, model.tensors[5].at + 4, 16, 0);
	assert_int_equal(model.tensors[6].bytes, 0);
	mrs_model_free(&model);
	bytes_free(&b);
}

static char log_words[1024];

static void keep_log(void *ctx, int level, const char *text)
{
	if (level <= 2)
		snprintf(log_words, sizeof(log_words), "%s", text);
}

static void external_data(void **state)
{
	struct bytes t = {0}, entry = {0}, b;
	struct mrs_model model = {0};

	put_int(&t, 1, 1000);
	put_int(&t, 2, 1);
	put_string(&t, 8, "far");
	put_string(&entry, 1, "location");
	put_string(&entry, 2, "weights.bin");
	put_message(&t, 13, entry);
	put_int(&t, 14, 1);
	b = model_of_tensor(t);
	morsel_log_set(keep_log, NULL);
	assert_int_equal(parse_both(b.data, b.count, &model), 0);
	morsel_log_set(NULL, NULL);
	assert_non_null(strstr(log_words, "tensor 'far' at byte 6"));
	assert_non_null(strstr(log_words, "'weights.bin'"));
	expect_tensor(&model, 0, "far", MORSEL_TYPE_F32, 0, 0, MORSEL_TENSOR_EXTERNAL);
	mrs_model_free(&model);
	bytes_free(&b);
}

/* ---- what is refused
 * ----------------------------------------------------------------------------- */

static void refuse(struct bytes b, int code, const char *where, const char *what)
{
	expect_refused(&b, code, where, what);
	bytes_free(&b);
}

/* A model with one initializer "t" of two f32, and one more field. */
static struct bytes with_field(uint32_t tag, const void *value, size_t count)
{
	struct bytes t = tensor("t", 2, 1, 8);

	put_varint(&t, tag);
	put(&t, value, count);
	return model_of_tensor(t);
}

static void refused_tensors(void **state)
{
	struct bytes t = {0};

	refuse(model_of_tensor(tensor("t", 2, 1, 7)), -EINVAL, "tensor 't' at byte 6",
	       "take 8 bytes, its raw_data has 7");
	refuse(model_of_tensor(tensor("t", 2, 1, 0)), -EINVAL, "tensor 't' at byte 6", "no data");
	refuse(model_of_tensor(tensor("t", 2, 0, 8)), -EINVAL, "byte 6", "data_type 0 at byte 8");
	refuse(model_of_tensor(tensor("t", 2, 99, 8)), -EINVAL, "byte 6", "data_type 99 at byte 8");
	refuse(model_of_tensor(tensor("t", 2, 8, 2)), -EINVAL, "byte 6", "strings cannot");
	refuse(model_of_tensor(tensor(NULL, 2, 1, 8)), -EINVAL, "byte 6", "no name");
	refuse(model_of_tensor(tensor("\xff", 2, 1, 8)), -EINVAL, "byte 6", "UTF-8");
	refuse(model_of_tensor(tensor("t", UINT64_MAX, 1, 8)), -EINVAL, "byte 6",
	       "negative dimension at byte");
	refuse(model_of_tensor(tensor("t", INT64_MAX, 1, 8)), -EINVAL, "byte 6", "passes 2^63");
	/* One field too many; it stands at byte 6 + 4 + 3 + 10 = 23. */
	refuse(with_field(9 << 3 | 2, "\1x", 2), -EINVAL, "raw_data at byte 23", "second time");
	refuse(with_field(8 << 3 | 2, "\1x", 2), -EINVAL, "a name at byte 23", "second time");
	refuse(with_field(2 << 3, "\1", 1), -EINVAL, "data_type at byte 23", "second time");
	refuse(with_field(4 << 3 | 2, "\4abcd", 5), -EINVAL, "byte 6", "more than one place");
	refuse(with_field(4 << 3 | 2, "\3abc", 4), -EINVAL, "byte 6", "whole values");
	refuse(with_field(14 << 3, "\1", 1), -EINVAL, "byte 6", "more than one place");
	refuse(with_field(3 << 3 | 2, "\0", 1), -EOPNOTSUPP, "byte 6", "segment");
	refuse(with_field(8 << 3, "\1", 1), -EINVAL, "byte 23", "wire type 0, which a name");
	refuse(with_field(1 << 3 | 5, "abcd", 4), -EINVAL, "byte 23", "wire type 5");
	refuse(with_field(1 << 3 | 2, "\1\x80", 2), -EINVAL, "byte 6", "cut off");
	refuse(with_field(7 << 3 | 2, "\1\x80", 2), -EINVAL, "byte 6", "cut off");
	refuse(with_field(15 << 3 | 3, "", 0), -EINVAL, "at byte 23", "a wire type");
	refuse(with_field(15 << 3 | 2, "\1", 1), -EINVAL, "at byte 23", "past the end");
	refuse(with_field(15 << 3 | 1, "\1", 1), -EINVAL, "at byte 23", "past the end");
	refuse(with_field(0, "\1", 1), -EINVAL, "at byte 23", "field number");
	refuse(with_field(15 << 3, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10), -EINVAL,
	       "at byte 23", "longer than 64 bits");
	put_string(&t, 8, "t");
	refuse(model_of_tensor(t), -EINVAL, "tensor 't' at byte 6", "no data_type");
	t = (struct bytes){0};
	put_int(&t, 1, 2);
	put_int(&t, 2, 7);
	put_string(&t, 8, "t");
	put_raw(&t, 7, "\1", 1);
	refuse(model_of_tensor(t), -EINVAL, "tensor 't' at byte 6",
	       "2 values, its int64_data has 1");
	t = (struct bytes){0};
	put_int(&t, 1, 1);
	put_int(&t, 2, 7);
	put_string(&t, 8, "t");
	put_raw(&t, 5, "\1", 1);
	refuse(model_of_tensor(t), -EINVAL, "tensor 't' at byte 6",
	       "int32_data, which its type i64");
	t = (struct bytes){0};
	for (int i = 0; i < 17; i++)
		put_int(&t, 1, 1);
	refuse(model_of_tensor(t), -E2BIG, "byte 6", "more than 16 dimensions");
}

static void refused_structure(void **state)
{
	struct bytes graph = {0}, b = {0}, inner = {0};
	char name[600];

	put_message(&graph, 5, tensor("t", 1, 3, 1));
	put_message(&graph, 5, tensor("t", 1, 3, 1));
	refuse(model_of(graph), -EINVAL, "tensor 't' at byte 18", "the one at byte 6");
	put_int(&b, 1, 8);
	put_string(&b, 2, "writer");
	put_int(&b, 5, 1);
	refuse(b, -EINVAL, "byte 12", "no graph");
	graph = (struct bytes){0};
	put_string(&graph, 2, "g");
	b = model_of(graph);
	put_raw(&b, 7, "", 0);
	refuse(b, -EINVAL, "byte 7", "the second one");
	graph = (struct bytes){0};
	put_string(&graph, 2, "g");
	put_int(&graph, 5, 1);
	refuse(model_of(graph), -EINVAL, "byte 7", "wire type 0, which a tensor");
	/* Subgraphs in subgraphs: each takes three messages. */
	put_message(&inner, 5, tensor("t", 1, 3, 1));
	for (int i = 0; i < 21; i++) {
		graph = (struct bytes){0};
		put_message(&graph, 1, node("n", NULL, "If", attribute("a", 6, inner)));
		inner = graph;
	}
	refuse(model_of(inner), -E2BIG, "nested more than 64 deep", "at byte ");
	/* Two names that fit one by one. */
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = 0;
	inner = (struct bytes){0};
	graph = (struct bytes){0};
	put_message(&inner, 5, tensor(name, 1, 3, 1));
	put_message(&graph, 1, node(name, NULL, "If", attribute("a", 6, inner)));
	refuse(model_of(graph), -E2BIG, "has 1201 bytes", "the limit is 1023");
	/* A tensor that reaches past its graph, though not past the file. */
	graph = (struct bytes){0};
	put_raw(&graph, 5, "\x08\x01\x10\x03", 4);
	graph.data[1]++;
	b = model_of(graph);
	put_string(&b, 8, "opset");
	refuse(b, -EINVAL, "field 5 of a graph at byte 4", "past the end");
	graph = (struct bytes){0};
	put_message(&graph, 15, (struct bytes){0});
	refuse(model_of(graph), -EINVAL, "sparse tensor at byte 4", "no values");
}

/* What begins like a model but is none is bytes. */
static void bytes_stay_bytes(void **state)
{
	static const struct {
		const char *data;
		size_t count;
	} files[] = {{"\x08", 1},
		     {"\x08\x07", 2},
		     {"\x08\x00:\x02\x0a\x00", 6},
		     {"\x08\x07\x08\x07", 4},
		     {"\x08\x07\x12\x02\x01\x02", 6},
		     {"\x08\x07:\x02\x08\x01", 6},
		     {"\x08\x07\x0b\x0a", 4},
		     {"\x08\x80\x80\x80", 4}};

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		struct mrs_model model = {0};

		assert_int_equal(parse_both(files[i].data, files[i].count, &model), 0);
		assert_int_equal(model.format, MORSEL_FORMAT_BYTES);
		mrs_model_free(&model);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_paths),  cmocka_unit_test(prefixes),
		cmocka_unit_test(typed_data),	    cmocka_unit_test(external_data),
		cmocka_unit_test(refused_tensors),  cmocka_unit_test(refused_structure),
		cmocka_unit_test(bytes_stay_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
