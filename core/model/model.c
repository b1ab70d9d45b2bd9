/*
 * The list of tensors: which parser makes it, how it grows, and the rules for all formats.
 *
 * Names and ranges are checked once, when the list is complete, by sorting: that costs n log n
 * whatever a hostile file puts in, where a hash table would have to be defended.
 */
#include "model/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

typedef unsigned long long ull;

const char *mrs_name_text(const char *name, size_t bytes, char buffer[MRS_NAME_TEXT_BYTES])
{
	size_t keep = mrs_min(bytes, (size_t)MRS_NAME_TEXT_BYTES - 4), i;

	/* A cut must not leave half a character. */
	while (keep < bytes && keep && ((unsigned char)name[keep] & 0xc0) == 0x80)
		keep--;
	for (i = 0; i < keep; i++)
		buffer[i] = (unsigned char)name[i] < 0x20 || name[i] == 0x7f ? '?' : name[i];
	strcpy(buffer + i, keep < bytes ? "..." : "");
	return buffer;
}

/* Bytes of the UTF-8 character at text, or 0 if it is none. */
static size_t utf8_length(const unsigned char *text, size_t bytes)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t length = text[0] < 0x80	 ? 1
			: text[0] < 0xc0 ? 0
			: text[0] < 0xe0 ? 2
			: text[0] < 0xf0 ? 3
			: text[0] < 0xf8 ? 4
					 : 0;
	uint32_t value;

	if (length < 2)
		return length;
	if (length > bytes)
		return 0;
	value = text[0] & (0x7f >> length);
	for (size_t i = 1; i < length; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
		value = value << 6 | (text[i] & 0x3f);
	}
	if (value < least[length] || value > 0x10ffff || (value >= 0xd800 && value < 0xe000))
		return 0;
	return length;
}

bool mrs_utf8_valid(const char *text, size_t bytes)
{
	const unsigned char *p = (const unsigned char *)text;

	while (bytes) {
		size_t length = *p ? utf8_length(p, bytes) : 0;

		if (!length)
			return false;
		p += length;
		bytes -= length;
	}
	return true;
}

int mrs_grow(void *memory, uint64_t *room, uint64_t count, size_t size)
{
	void *grown, *old;
	uint64_t want;

	if (count < *room)
		return 0;
	want = mrs_max(2 * count, (uint64_t)16);
	memcpy(&old, memory, sizeof(old));
	grown = realloc(old, want * size);
	if (!grown)
		return mrs_fail(-ENOMEM, "no memory for %llu entries of a model's description",
				(ull)want);
	memcpy(memory, &grown, sizeof(grown));
	*room = want;
	return 0;
}

/* Appends name and a final zero to a block of names; its offset goes to *offset. */
static int text_add(char **text, size_t *bytes, size_t *room, const char *name, size_t name_bytes,
		    uint32_t *offset)
{
	size_t need = *bytes + name_bytes + 1;

	if (need > MRS_MODEL_NAMES_BYTES_MAX)
		return mrs_fail(-E2BIG,
				"the names of this model take more than %zu bytes together, "
				"which is the limit",
				MRS_MODEL_NAMES_BYTES_MAX);
	if (need > *room) {
		size_t want = mrs_max(2 * need, (size_t)4096);
		char *grown = realloc(*text, want);

		if (!grown)
			return mrs_fail(-ENOMEM, "no memory for %zu bytes of names", want);
		*text = grown;
		*room = want;
	}
	*offset = (uint32_t)*bytes;
	memcpy(*text + *bytes, name, name_bytes);
	(*text)[*bytes + name_bytes] = 0;
	*bytes = need;
	return 0;
}

/* ---- keys
 * ---------------------------------------------------------------------------------------- */

int mrs_keys_add(struct mrs_keys *keys, const char *name, size_t bytes, uint64_t at)
{
	uint64_t room = keys->room;
	uint32_t offset;
	int error;

	if (keys->count >= MRS_MODEL_KEYS_MAX)
		return mrs_fail(-E2BIG,
				"metadata at byte %llu: more than %u keys, which is the limit",
				(ull)at, MRS_MODEL_KEYS_MAX);
	error = mrs_grow(&keys->keys, &room, keys->count, sizeof(*keys->keys));
	if (error)
		return error;
	keys->room = room;
	error = text_add(&keys->text, &keys->text_bytes, &keys->text_room, name, bytes, &offset);
	if (error)
		return error;
	keys->keys[keys->count++] =
		(struct mrs_key){.name = offset, .bytes = (uint32_t)bytes, .at = at};
	return 0;
}

static int bytes_order(const char *a, size_t a_bytes, const char *b, size_t b_bytes)
{
	int order = memcmp(a, b, mrs_min(a_bytes, b_bytes));

	return order ? order : (a_bytes > b_bytes) - (a_bytes < b_bytes);
}

static int key_order(const void *a, const void *b, void *ctx)
{
	const struct mrs_keys *keys = ctx;
	const struct mrs_key *x = a, *y = b;
	int order = bytes_order(keys->text + x->name, x->bytes, keys->text + y->name, y->bytes);

	return order ? order : (x->at > y->at) - (x->at < y->at);
}

int mrs_keys_check(struct mrs_keys *keys, const char *format)
{
	char text[MRS_NAME_TEXT_BYTES];

	if (!keys->count)
		return 0;
	qsort_r(keys->keys, keys->count, sizeof(*keys->keys), key_order, keys);
	for (size_t i = 1; i < keys->count; i++) {
		const struct mrs_key *a = &keys->keys[i - 1], *b = &keys->keys[i];
		const char *name = keys->text + b->name;

		if (!bytes_order(keys->text + a->name, a->bytes, name, b->bytes))
			return mrs_fail(-EINVAL,
					"%s: key '%s' at byte %llu stands already at byte "
					"%llu",
					format, mrs_name_text(name, b->bytes, text), (ull)b->at,
					(ull)a->at);
	}
	return 0;
}

void mrs_keys_free(struct mrs_keys *keys)
{
	free(keys->keys);
	free(keys->text);
	*keys = (struct mrs_keys){0};
}

/* ---- tensors
 * ------------------------------------------------------------------------------------- */

static int name_check(const char *name, size_t bytes, uint64_t at)
{
	char text[MRS_NAME_TEXT_BYTES];

	if (!bytes)
		return mrs_fail(-EINVAL, "the tensor at byte %llu has no name", (ull)at);
	if (bytes > MORSEL_TENSOR_NAME_MAX)
		return mrs_fail(-E2BIG,
				"tensor '%s' at byte %llu: a name of %zu bytes, the limit is "
				"%d",
				mrs_name_text(name, bytes, text), (ull)at, bytes,
				MORSEL_TENSOR_NAME_MAX);
	if (!mrs_utf8_valid(name, bytes))
		return mrs_fail(-EINVAL,
				"the tensor at byte %llu has a name that is not UTF-8 text "
				"without zero bytes",
				(ull)at);
	return 0;
}

int mrs_model_add(struct mrs_model *model, const struct mrs_tensor *tensor, const char *name,
		  size_t name_bytes)
{
	struct mrs_tensor added = *tensor;
	int error = name_check(name, name_bytes, tensor->at);

	if (error)
		return error;
	if (model->count >= MORSEL_TENSORS_MAX)
		return mrs_fail(-E2BIG,
				"the tensor at byte %llu is one more than %u, which is the "
				"limit",
				(ull)tensor->at, MORSEL_TENSORS_MAX);
	error = mrs_grow(&model->tensors, &model->tensors_room, model->count,
			 sizeof(*model->tensors));
	if (error)
		return error;
	error = text_add(&model->names, &model->names_bytes, &model->names_room, name, name_bytes,
			 &added.name);
	if (error)
		return error;
	added.name_bytes = (uint16_t)name_bytes;
	added.source = added.offset;
	model->tensors[model->count++] = added;
	return 0;
}

int mrs_tensor_size(const struct mrs_tensor *tensor, uint64_t *elements, uint64_t *bytes,
		    bool *partial)
{
	uint32_t block_elements, block_bytes;
	uint64_t n = 1, blocks, b;

	if (morsel_type_block(tensor->type, &block_elements, &block_bytes))
		return -EINVAL;
	/* A zero anywhere makes it empty, whatever the product of the others is. */
	for (uint32_t i = 0; i < tensor->rank; i++)
		if (!tensor->shape[i])
			n = 0;
	for (uint32_t i = 0; i < tensor->rank && n; i++)
		if (__builtin_mul_overflow(n, tensor->shape[i], &n) || n > INT64_MAX)
			return -EOVERFLOW;
	blocks = n / block_elements + (n % block_elements != 0);
	if (__builtin_mul_overflow(blocks, (uint64_t)block_bytes, &b) || b > INT64_MAX)
		return -EOVERFLOW;
	*partial = n % block_elements != 0;
	*elements = n;
	*bytes = b;
	return 0;
}

/* ---- the rules for all formats
 * --------------------------------------------------------------------- */

static int name_order(const void *a, const void *b, void *ctx)
{
	const struct mrs_model *model = ctx;
	uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
	const struct mrs_tensor *x = &model->tensors[i], *y = &model->tensors[j];
	int order = bytes_order(model->names + x->name, x->name_bytes, model->names + y->name,
				y->name_bytes);

	return order ? order : (i > j) - (i < j);
}

static int place_order(const void *a, const void *b, void *ctx)
{
	const struct mrs_model *model = ctx;
	uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
	const struct mrs_tensor *x = &model->tensors[i], *y = &model->tensors[j];

	if (x->source != y->source)
		return x->source < y->source ? -1 : 1;
	/* An empty one before the one that begins where it lies. */
	if (x->bytes != y->bytes)
		return x->bytes < y->bytes ? -1 : 1;
	return (i > j) - (i < j);
}

uint32_t *mrs_model_sorted(const struct mrs_model *model, enum mrs_model_order by)
{
	uint32_t *order = malloc(mrs_max(model->count, (uint64_t)1) * sizeof(*order));

	if (!order) {
		mrs_fail(-ENOMEM, "no memory to sort %llu tensors", (ull)model->count);
		return NULL;
	}
	for (uint32_t i = 0; i < model->count; i++)
		order[i] = i;
	qsort_r(order, model->count, sizeof(*order),
		by == MRS_ORDER_NAME ? name_order : place_order, (void *)model);
	return order;
}

static int check_names(const struct mrs_model *model, const uint32_t *order)
{
	char text[MRS_NAME_TEXT_BYTES];

	for (uint64_t i = 1; i < model->count; i++) {
		const struct mrs_tensor *a = &model->tensors[order[i - 1]];
		const struct mrs_tensor *b = &model->tensors[order[i]];

		if (!strcmp(model->names + a->name, model->names + b->name))
			return mrs_fail(-EINVAL,
					"%s: tensor '%s' at byte %llu has the same name as "
					"the one at byte %llu",
					morsel_format_name(model->format),
					mrs_name_text(model->names + b->name, b->name_bytes, text),
					(ull)b->at, (ull)a->at);
	}
	return 0;
}

static int check_places(const struct mrs_model *model, const uint32_t *order)
{
	char text[MRS_NAME_TEXT_BYTES], other[MRS_NAME_TEXT_BYTES];
	const struct mrs_tensor *before = NULL;

	for (uint64_t i = 0; i < model->count; i++) {
		const struct mrs_tensor *t = &model->tensors[order[i]];

		mrs_name_text(model->names + t->name, t->name_bytes, text);
		if (t->source > model->source_bytes || t->bytes > model->source_bytes - t->source)
			return mrs_fail(-EINVAL,
					"%s: tensor '%s' at byte %llu: its %llu bytes from "
					"byte %llu on end past the file, which has %llu",
					morsel_format_name(model->format), text, (ull)t->at,
					(ull)t->bytes, (ull)t->source, (ull)model->source_bytes);
		if (!t->bytes)
			continue;
		if (before && before->source + before->bytes > t->source)
			return mrs_fail(-EINVAL,
					"%s: tensor '%s' at byte %llu: its data from byte "
					"%llu on overlaps that of tensor '%s', which ends at byte "
					"%llu",
					morsel_format_name(model->format), text, (ull)t->at,
					(ull)t->source,
					mrs_name_text(model->names + before->name,
						      before->name_bytes, other),
					(ull)(before->source + before->bytes));
		before = t;
	}
	return 0;
}

int mrs_model_validate(struct mrs_model *model)
{
	static int (*const checks[])(const struct mrs_model *, const uint32_t *) = {
		[MRS_ORDER_NAME] = check_names,
		[MRS_ORDER_PLACE] = check_places,
	};

	for (int by = MRS_ORDER_NAME; by <= MRS_ORDER_PLACE; by++) {
		uint32_t *order = mrs_model_sorted(model, by);
		int error = order ? checks[by](model, order) : -ENOMEM;

		free(order);
		if (error)
			return error;
	}
	return 0;
}

void mrs_model_tensor(const struct mrs_model *model, uint64_t index, struct morsel_tensor *tensor)
{
	const struct mrs_tensor *t = &model->tensors[index];

	*tensor = (struct morsel_tensor){
		.offset = t->offset,
		.bytes = t->bytes,
		.rank = t->rank,
		.type = t->type,
		.flags = t->flags,
	};
	memcpy(tensor->shape, t->shape, t->rank * sizeof(t->shape[0]));
	memcpy(tensor->name, model->names + t->name, t->name_bytes);
}

/* ---- parsing
 * --------------------------------------------------------------------------------------- */

static const struct parser {
	enum morsel_format format;
	int (*claims)(struct mrs_reader *reader);
	int (*parse)(struct mrs_reader *reader, struct mrs_model *model);
} parsers[] = {
	{MORSEL_FORMAT_GGUF, mrs_gguf_claims, mrs_gguf_parse},
	{MORSEL_FORMAT_SAFETENSORS, mrs_safetensors_claims, mrs_safetensors_parse},
	{MORSEL_FORMAT_ONNX, mrs_onnx_claims, mrs_onnx_parse},
};

static int parse_as(const struct parser *parser, struct mrs_reader *reader, struct mrs_model *model)
{
	int error;

	model->format = parser->format;
	error = parser->parse(reader, model);
	return error ? error : mrs_model_validate(model);
}

int mrs_model_parse(const struct mrs_source *source, struct mrs_model *model)
{
	struct mrs_model made = {.bytes = source->bytes, .source_bytes = source->bytes};
	struct mrs_reader reader;
	int result;

	if (source->bytes > INT64_MAX)
		return mrs_fail(-EFBIG, "a source of %llu bytes: the limit is 2^63 - 1",
				(ull)source->bytes);
	result = mrs_reader_init(&reader, source);
	if (result)
		return result;
	for (size_t i = 0; i < mrs_array_length(parsers) && !result; i++) {
		result = parsers[i].claims(&reader);
		if (result == 1) {
			result = parse_as(&parsers[i], &reader, &made);
			break;
		}
	}
	mrs_reader_fini(&reader);
	if (result) {
		mrs_model_free(&made);
		return result;
	}
	*model = made;
	return 0;
}

void mrs_model_free(struct mrs_model *model)
{
	free(model->tensors);
	free(model->names);
	free(model->pieces);
	*model = (struct mrs_model){0};
}
