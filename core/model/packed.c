/*
 * The packed form of a tensor table: one block without pointers, kept in a pool beside the content.
 *
 *	| head | records | order | shapes | pieces | names |
 *
 * A record is 32 bytes and points into shapes and names; order holds the records' indices sorted by
 * name, for a binary search. Whoever reads it may be attacked through it, also while it reads:
 * every value is copied once, checked, and only the copy is used.
 */
#include "model/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/atomic.h"
#include "base/base.h"

typedef unsigned long long ull;

#define MAGIC	0x314e455453524f4dull /* "MORSTEN1" in memory */
#define VERSION 1u

struct head {
	uint64_t magic;
	uint32_t version;
	uint32_t crc; /* CRC-32C of all bytes, this field being zero */
	uint64_t bytes;
	uint64_t count;
	uint64_t pieces;
	uint64_t content_bytes;
	uint64_t source_bytes;
	uint32_t format;
	uint32_t reserved0;
	uint64_t shape_count;
	uint64_t names_bytes;
	uint64_t reserved[2];
};

struct record {
	uint64_t offset;
	uint64_t bytes;
	uint32_t name;
	uint32_t shape;
	uint16_t name_bytes;
	uint16_t type;
	uint8_t rank;
	uint8_t flags;
	uint16_t reserved;
};

_Static_assert(sizeof(struct head) == 96, "the packed form is frozen");
_Static_assert(sizeof(struct record) == 32, "the packed form is frozen");
_Static_assert(sizeof(struct mrs_piece) == 24, "the packed form is frozen");

/* Where the sections begin, and where the last one ends. */
struct sections {
	uint64_t records, order, shapes, pieces, names, end;
};

/* The counts are within their limits, so nothing here overflows. */
static struct sections sections_of(const struct head *head)
{
	struct sections s;

	s.records = sizeof(*head);
	s.order = s.records + head->count * sizeof(struct record);
	s.shapes = mrs_round_up(s.order + head->count * sizeof(uint32_t), 8);
	s.pieces = s.shapes + head->shape_count * sizeof(uint64_t);
	s.names = s.pieces + head->pieces * sizeof(struct mrs_piece);
	s.end = mrs_round_up(s.names + head->names_bytes, 8);
	return s;
}

/* ---- writing
 * ----------------------------------------------------------------------------------------- */

static struct head head_of(const struct mrs_model *model)
{
	struct head head = {
		.magic = MAGIC,
		.version = VERSION,
		.count = model->count,
		.pieces = model->piece_count,
		.content_bytes = model->bytes,
		.source_bytes = model->source_bytes,
		.format = model->format,
		.names_bytes = model->names_bytes,
	};

	for (uint64_t i = 0; i < model->count; i++)
		head.shape_count += model->tensors[i].rank;
	head.bytes = sections_of(&head).end;
	return head;
}

uint64_t mrs_model_packed_bytes(const struct mrs_model *model)
{
	return head_of(model).bytes;
}

static uint32_t checksum(const struct head *head, const unsigned char *packed)
{
	struct head clean = *head;

	clean.crc = 0;
	return mrs_crc32c(mrs_crc32c(0, &clean, sizeof(clean)), packed + sizeof(clean),
			  head->bytes - sizeof(clean));
}

static void write_records(const struct mrs_model *model, struct record *records, uint64_t *shapes)
{
	uint64_t shape = 0;

	for (uint64_t i = 0; i < model->count; i++) {
		const struct mrs_tensor *t = &model->tensors[i];

		records[i] = (struct record){
			.offset = t->offset,
			.bytes = t->bytes,
			.name = t->name,
			.shape = (uint32_t)shape,
			.name_bytes = t->name_bytes,
			.type = t->type,
			.rank = (uint8_t)t->rank,
			.flags = (uint8_t)t->flags,
		};
		memcpy(shapes + shape, t->shape, t->rank * sizeof(*shapes));
		shape += t->rank;
	}
}

/* Copies bytes if there are any: an empty model's lists are NULL. */
static void copy(void *to, const void *from, size_t bytes)
{
	if (bytes)
		memcpy(to, from, bytes);
}

int mrs_model_pack(const struct mrs_model *model, void *buffer, uint64_t bytes)
{
	struct head head = head_of(model);
	struct sections s = sections_of(&head);
	unsigned char *to = buffer;
	uint32_t *order;

	if (bytes < head.bytes)
		return mrs_fail(-ENOSPC, "the tensor table takes %llu bytes, there are %llu",
				(ull)head.bytes, (ull)bytes);
	order = mrs_model_sorted(model, MRS_ORDER_NAME);
	if (!order)
		return -ENOMEM;
	memset(to, 0, head.bytes);
	write_records(model, (struct record *)(to + s.records), (uint64_t *)(to + s.shapes));
	copy(to + s.order, order, model->count * sizeof(*order));
	copy(to + s.pieces, model->pieces, model->piece_count * sizeof(*model->pieces));
	copy(to + s.names, model->names, model->names_bytes);
	free(order);
	head.crc = checksum(&head, to);
	memcpy(to, &head, sizeof(head));
	return 0;
}

/* ---- reading
 * ----------------------------------------------------------------------------------------- */

/* What is open: a checked copy of the head, and where the sections are. */
struct packed {
	const unsigned char *from;
	struct head head;
	struct sections s;
};

/* The one way in which the block is read: after it the copy cannot change any more. */
static void load(void *to, const void *from, size_t bytes)
{
	memcpy(to, from, bytes);
	mrs_compiler_barrier(); /* no partner: keeps the compiler from reading from again */
}

static int damaged(const char *what, uint64_t value)
{
	return mrs_fail(-EINVAL, "the tensor table is damaged: %s (%llu): import the model again",
			what, (ull)value);
}

static int open_head(const void *from, uint64_t bytes, struct packed *packed)
{
	struct head *head = &packed->head;

	packed->from = from;
	if (bytes < sizeof(*head))
		return damaged("it is shorter than its head", bytes);
	load(head, from, sizeof(*head));
	if (head->magic != MAGIC)
		return damaged("it does not begin as one", head->magic);
	if (head->version != VERSION)
		return mrs_fail(-EPROTONOSUPPORT,
				"the tensor table has version %u, this libmorsel "
				"reads %u: update libmorsel",
				head->version, VERSION);
	if (head->count > MORSEL_TENSORS_MAX)
		return damaged("tensors", head->count);
	if (head->pieces > 2 * head->count + 1)
		return damaged("pieces", head->pieces);
	if (head->shape_count > head->count * MORSEL_TENSOR_RANK_MAX)
		return damaged("dimensions", head->shape_count);
	if (head->names_bytes > MRS_MODEL_NAMES_BYTES_MAX)
		return damaged("bytes of names", head->names_bytes);
	if (head->content_bytes > INT64_MAX)
		return damaged("bytes of content", head->content_bytes);
	packed->s = sections_of(head);
	if (head->bytes != packed->s.end || head->bytes > bytes)
		return damaged("its own size", head->bytes);
	return 0;
}

static int load_record(const struct packed *packed, uint64_t index, struct record *record)
{
	const struct head *head = &packed->head;

	load(record, packed->from + packed->s.records + index * sizeof(*record), sizeof(*record));
	if (record->rank > MORSEL_TENSOR_RANK_MAX || record->shape > head->shape_count ||
	    record->rank > head->shape_count - record->shape)
		return damaged("the shape of a tensor", index);
	if (record->name_bytes > MORSEL_TENSOR_NAME_MAX || record->name > head->names_bytes ||
	    record->name_bytes > head->names_bytes - record->name)
		return damaged("the name of a tensor", index);
	if (record->offset > head->content_bytes ||
	    record->bytes > head->content_bytes - record->offset)
		return damaged("the place of a tensor", index);
	return 0;
}

static void fill(const struct packed *packed, const struct record *record,
		 struct morsel_tensor *tensor)
{
	*tensor = (struct morsel_tensor){
		.offset = record->offset,
		.bytes = record->bytes,
		.rank = record->rank,
		.type = record->type,
		.flags = record->flags,
	};
	load(tensor->shape, packed->from + packed->s.shapes + record->shape * sizeof(uint64_t),
	     record->rank * sizeof(uint64_t));
	load(tensor->name, packed->from + packed->s.names + record->name, record->name_bytes);
}

/* The record at place i of the order by name. */
static int load_ordered(const struct packed *packed, uint64_t i, uint32_t *index,
			struct record *record)
{
	load(index, packed->from + packed->s.order + i * sizeof(*index), sizeof(*index));
	if (*index >= packed->head.count)
		return damaged("its order", *index);
	return load_record(packed, *index, record);
}

/* Like strcmp() of the record's name and name. */
static int compare(const struct packed *packed, const struct record *record, const char *name,
		   size_t bytes)
{
	const void *own = packed->from + packed->s.names + record->name;
	int order = memcmp(own, name, mrs_min(bytes, (size_t)record->name_bytes));

	return order ? order : (record->name_bytes > bytes) - (record->name_bytes < bytes);
}

int mrs_packed_find(const void *from, uint64_t bytes, const char *name,
		    struct morsel_tensor *tensor)
{
	size_t name_bytes = strnlen(name, MORSEL_TENSOR_NAME_MAX + 1);
	char text[MRS_NAME_TEXT_BYTES];
	struct packed packed;
	uint64_t low = 0, high;
	int error = open_head(from, bytes, &packed);

	if (error)
		return error;
	high = packed.head.count;
	while (low < high) {
		uint64_t middle = low + (high - low) / 2;
		struct record record;
		uint32_t index;
		int order;

		error = load_ordered(&packed, middle, &index, &record);
		if (error)
			return error;
		order = compare(&packed, &record, name, name_bytes);
		if (!order) {
			fill(&packed, &record, tensor);
			return 0;
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return mrs_fail(-ENOENT, "no tensor is called '%s' among the %llu of this %s model",
			mrs_name_text(name, name_bytes, text), (ull)packed.head.count,
			morsel_format_name(packed.head.format));
}

int mrs_packed_get(const void *from, uint64_t bytes, uint64_t index, struct morsel_tensor *tensor)
{
	struct packed packed;
	struct record record;
	int error = open_head(from, bytes, &packed);

	if (error)
		return error;
	if (index >= packed.head.count)
		return mrs_fail(-ERANGE, "tensor %llu: this model has %llu", (ull)index,
				(ull)packed.head.count);
	error = load_record(&packed, index, &record);
	if (!error)
		fill(&packed, &record, tensor);
	return error;
}

static int load_piece(const struct packed *packed, uint64_t index, struct mrs_piece *piece)
{
	const struct head *head = &packed->head;

	load(piece, packed->from + packed->s.pieces + index * sizeof(*piece), sizeof(*piece));
	if (piece->source > head->source_bytes ||
	    piece->bytes > head->source_bytes - piece->source ||
	    piece->destination > head->content_bytes ||
	    piece->bytes > head->content_bytes - piece->destination)
		return damaged("a piece of its layout", index);
	return 0;
}

int mrs_packed_piece(const void *from, uint64_t bytes, uint64_t index, struct mrs_piece *piece)
{
	struct packed packed;
	struct mrs_piece found;
	int error = open_head(from, bytes, &packed);

	if (error)
		return error;
	if (index >= packed.head.pieces)
		return mrs_fail(-ERANGE, "piece %llu: this layout has %llu", (ull)index,
				(ull)packed.head.pieces);
	error = load_piece(&packed, index, &found);
	if (!error)
		*piece = found;
	return error;
}

int mrs_packed_head(const void *from, uint64_t bytes, struct mrs_packed_head *head)
{
	struct packed packed;
	int error = open_head(from, bytes, &packed);

	if (error)
		return error;
	*head = (struct mrs_packed_head){
		.format = packed.head.format,
		.count = packed.head.count,
		.pieces = packed.head.pieces,
		.content_bytes = packed.head.content_bytes,
		.source_bytes = packed.head.source_bytes,
	};
	return 0;
}

/* The order holds each record once, its names ascending. */
static int check_order(const struct packed *packed)
{
	struct record before, record;
	uint32_t index;

	for (uint64_t i = 0; i < packed->head.count; i++) {
		int error = load_ordered(packed, i, &index, &record);

		if (error)
			return error;
		if (i && compare(packed, &before,
				 (const char *)packed->from + packed->s.names + record.name,
				 record.name_bytes) >= 0)
			return damaged("its names are not in order", i);
		before = record;
	}
	return 0;
}

/* The pieces cover the file once, in its order; without pieces the content is the file. */
static int check_pieces(const struct packed *packed)
{
	const struct head *head = &packed->head;
	uint64_t end = 0;

	for (uint64_t i = 0; i < head->pieces; i++) {
		struct mrs_piece piece;
		int error = load_piece(packed, i, &piece);

		if (error)
			return error;
		if (piece.source != end)
			return damaged("the pieces of its layout leave a hole", i);
		end += piece.bytes;
	}
	if (!head->pieces)
		end = head->content_bytes;
	return end == head->source_bytes ? 0 : damaged("the size of its file", head->source_bytes);
}

int mrs_packed_check(const void *from, uint64_t bytes)
{
	struct packed packed;
	int error = open_head(from, bytes, &packed);

	if (error)
		return error;
	if (checksum(&packed.head, packed.from) != packed.head.crc)
		return damaged("its checksum is wrong", packed.head.crc);
	error = check_order(&packed);
	return error ? error : check_pieces(&packed);
}
