/*
 * To the device: one call of mrs_cl_to_target() is a round. It finds the pages of the range that
 * the device does not have, stages them, and enqueues what brings them; the blocks that it staged
 * them in belong to the flight that it leaves behind, until the flight's event has come.
 *
 * A page that a grant of this view may be writing on the device is not transferred as a whole: the
 * device's bytes are newer than the pool's. Of such a page only those bytes of the new grant go
 * that no writer's range covers, and the page gets no mark.
 *
 * Transfers go through queues of the view's own, so that no wait of ours is for a command of the
 * caller's: "queue" for what waits for no event of somebody else, "late" for what does. While
 * something of late is under way, everything goes there, for a mark speaks of what was enqueued.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "room.h"

#define BATCH_PAGES (GPU_BLOCK_BYTES / PAGE_BYTES)
/* Blocks in flight before the caller waits, where nobody else could make him wait for ever. */
#define BLOCKS_MAX 8u
#define PIECES_MAX BATCH_PAGES
/* So many pieces of one block or more go by a kernel. */
#define SCATTER_MIN 16u

/* ---- transfers under way ---- */

/* Transfers to the device that one call began. The core's lock of the view is held. */
struct gpu_flight {
	struct gpu_flight *next; /* older */
	cl_event done;
	struct gpu_block *blocks; /* that they read */
	struct held_event *events;
	bool is_late;
};

/*
 * Events of commands that may fail with what they wait for. Nobody looks at them; but a driver
 * (PoCL 3.1) frees one that nobody holds twice when it fails.
 */
struct held_event {
	struct held_event *next;
	cl_event event;
};

static void let_go(struct held_event *held)
{
	while (held) {
		struct held_event *next = held->next;

		if (held->event)
			clReleaseEvent(held->event);
		free(held);
		held = next;
	}
}

/* Takes an ended one off the list. */
static void land(struct gpu_view *view, struct gpu_flight **link)
{
	struct gpu_flight *flight = *link;

	*link = flight->next;
	mrs_cl_block_put(view, flight->blocks);
	let_go(flight->events);
	clReleaseEvent(flight->done);
	free(flight);
}

void mrs_cl_forget_flights(struct gpu_view *view)
{
	while (view->flights)
		land(view, &view->flights);
}

static void forget_marks(struct gpu_view *view)
{
	for (uint64_t page = 0; page < gpu_pages(view); page++)
		view->pages[page].mark = 0;
}

/* Those that have ended; after one that failed nothing that was marked is sure. */
static void land_ended(struct gpu_view *view)
{
	struct gpu_flight **link = &view->flights;

	while (*link) {
		cl_int status = mrs_cl_event_status((*link)->done);

		if (status < 0)
			forget_marks(view);
		if (status <= CL_COMPLETE)
			land(view, link);
		else
			link = &(*link)->next;
	}
}

/* The last one of a queue, NULL none: in an in-order queue the others come before. */
static struct gpu_flight *last_flight(const struct gpu_view *view, bool is_late)
{
	struct gpu_flight *flight = view->flights;

	while (flight && flight->is_late != is_late)
		flight = flight->next;
	return flight;
}

/* ---- one round of transfers to the device ---- */

/* A piece of staged bytes that go to one place: extended while what follows lies behind it. */
struct piece {
	uint64_t offset, bytes; /* in the view */
	const unsigned char *from;
};

struct round {
	struct morsel_target *target;
	struct gpu_view *view;
	struct gpu_request *request;
	uint64_t bytes;		 /* of whole pages that may go */
	struct gpu_block *block; /* being filled */
	struct gpu_block *full;	 /* their transfers are under way */
	unsigned blocks;
	bool begun; /* a command was enqueued */
	bool is_late;
	cl_command_queue queue;
	cl_uint waits; /* of its first command */
	cl_event *wait;
	struct held_event *events;
	struct piece piece[PIECES_MAX];
	unsigned pieces;
};

/* Which queue, and what its first command waits for: the caller's events, and transfers before. */
static int choose_queue(struct round *r)
{
	struct gpu_view *view = r->view;
	struct gpu_flight *prompt = last_flight(view, false), *late = last_flight(view, true);
	cl_uint given = r->request ? r->request->waits : 0;

	r->is_late = given || late;
	r->queue = r->is_late ? mrs_cl_late(view) : view->queue;
	r->wait = calloc(given + 2u, sizeof(*r->wait));
	if (!r->wait)
		return morsel_fail(-ENOMEM, "no memory for %u events", given + 2);
	for (; r->waits < given; r->waits++)
		r->wait[r->waits] = r->request->wait[r->waits];
	if (r->is_late && prompt)
		r->wait[r->waits++] = prompt->done;
	if (late)
		r->wait[r->waits++] = late->done;
	return r->queue ? 0 : -ENOMEM;
}

/* The round's waits belong to its first command: the queue holds back the others. */
static void begin(struct round *r, cl_uint *waits, const cl_event **wait)
{
	*waits = r->begun ? 0 : r->waits;
	*wait = *waits ? r->wait : NULL;
	r->begun = true;
}

/* Holds the event of a command that may fail, from before it is known. */
static int hold_event(struct round *r, cl_event **event)
{
	struct held_event *held = NULL;

	*event = NULL;
	if (!r->is_late)
		return 0;
	held = calloc(1, sizeof(*held));
	if (!held)
		return morsel_fail(-ENOMEM, "no memory for an event");
	*event = &held->event;
	held->next = r->events;
	r->events = held;
	return 0;
}

static int send_piece(struct round *r, const struct piece *piece)
{
	struct gpu_view *view = r->view;
	const cl_event *wait;
	uint64_t inside;
	cl_uint waits;
	cl_event *event;
	cl_mem mem;
	cl_int code;
	int rc = hold_event(r, &event);

	if (rc)
		return rc;
	begin(r, &waits, &wait);
	if (view->tier == MORSEL_CL_SVM) {
		code = clEnqueueSVMMemcpy(r->queue, CL_FALSE, view->svm + piece->offset,
					  piece->from, piece->bytes, waits, wait, event);
	} else {
		mem = mrs_cl_segment(view, piece->offset, &inside);
		code = clEnqueueWriteBuffer(r->queue, mem, CL_FALSE, inside, piece->bytes,
					    piece->from, waits, wait, event);
	}
	if (code)
		return mrs_cl_fail(code, "a transfer to the device");
	gpu_count(view, transfers, 1);
	gpu_count(view, bytes_to_device, piece->bytes);
	return 0;
}

/* Are the pieces whole pages, staged one behind the other, of one segment? */
static bool are_pages(const struct round *r)
{
	uint64_t segment = r->view->segments ? r->view->segment_bytes : UINT64_MAX;
	const struct piece *first = &r->piece[0];

	for (unsigned i = 0; i < r->pieces; i++) {
		const struct piece *piece = &r->piece[i];

		if ((piece->offset | piece->bytes) % PAGE_BYTES ||
		    piece->offset / segment != first->offset / segment ||
		    (i && piece->from != piece[-1].from + piece[-1].bytes))
			return false;
	}
	return true;
}

/* The list of places lies in a block of its own, which goes with the others. */
static int scatter(struct round *r)
{
	struct gpu_block *block = mrs_cl_block_get(r->view, BATCH_PAGES * sizeof(cl_uint));
	uint64_t inside = r->piece[0].offset;
	cl_mem segment = NULL;
	unsigned count = 0;
	cl_uint *places;

	if (!block)
		return -ENOMEM;
	block->next = r->full;
	r->full = block;
	places = (cl_uint *)block->bytes;
	if (r->view->segments)
		segment = mrs_cl_segment(r->view, r->piece[0].offset, &inside);
	for (unsigned i = 0; i < r->pieces; i++) {
		uint64_t offset = inside + (r->piece[i].offset - r->piece[0].offset);

		for (uint64_t at = 0; at < r->piece[i].bytes; at += PAGE_BYTES)
			places[count++] = (cl_uint)((offset + at) / PAGE_BYTES);
	}
	r->begun = true;
	return mrs_cl_scatter(r->view, segment, r->piece[0].from, places, count);
}

/* What has been staged goes off. */
static int send_pieces(struct round *r)
{
	unsigned count = r->pieces;
	int rc = 0;

	if (count >= SCATTER_MIN && !r->is_late && are_pages(r) && mrs_cl_scatter_can(r->view))
		rc = scatter(r);
	else
		for (unsigned i = 0; i < count && !rc; i++)
			rc = send_piece(r, &r->piece[i]);
	r->pieces = 0;
	return rc;
}

/* Staged bytes are to go to offset. */
static int add_piece(struct round *r, uint64_t offset, const unsigned char *from, uint64_t bytes)
{
	struct piece *last = r->pieces ? &r->piece[r->pieces - 1] : NULL;
	bool apart = !last || last->offset + last->bytes != offset ||
		     last->from + last->bytes != from ||
		     (r->view->segments && !(offset % r->view->segment_bytes));
	int rc = apart && r->pieces == PIECES_MAX ? send_pieces(r) : 0;

	if (rc)
		return rc;
	if (apart)
		r->piece[r->pieces++] = (struct piece){.offset = offset, .from = from};
	r->piece[r->pieces - 1].bytes += bytes;
	return 0;
}

/* Waits for the blocks that are under way, where that cannot be for ever. */
static int drain(struct round *r)
{
	cl_int code;

	if (r->blocks < BLOCKS_MAX || r->is_late)
		return 0;
	code = clFinish(r->queue);
	if (code)
		return mrs_cl_fail(code, "waiting for transfers to the device");
	mrs_cl_block_put(r->view, r->full);
	r->full = NULL;
	r->blocks = 0;
	return 0;
}

/* Room for bytes in a block: the one at hand, or another, as large as the round may need. */
static int make_room(struct round *r, uint64_t bytes)
{
	int rc;

	if (r->block && r->block->room - r->block->used >= bytes)
		return 0;
	rc = send_pieces(r);
	if (rc)
		return rc;
	if (r->block) {
		r->block->next = r->full;
		r->full = r->block;
		r->block = NULL;
		r->blocks++;
	}
	rc = drain(r);
	if (!rc)
		r->block = mrs_cl_block_get(r->view, r->bytes);
	return rc ? rc : r->block ? 0 : -ENOMEM;
}

/* ---- which pages ---- */

/* The mark that the page has to have now; with checksums it is known only from the bytes. */
static uint64_t wanted_mark(const struct gpu_view *view, uint64_t page)
{
	uint64_t word;

	if (view->constant)
		return 1;
	/* Acquire: pairs with who ends a write; the page is read after. */
	word = gpu_load_acquire(&view->word[page]);
	return (word & 0xffff) == view->pages[page].writers ? (word >> 16) + 1 : 0;
}

/* Pages [page, page + count) have been staged: those that differ are to go, one behind the other.
 */
static int compare(struct round *r, uint64_t page, uint64_t count, unsigned char *staged,
		   uint64_t *sent)
{
	int rc = 0;

	gpu_count(r->view, pages_compared, count);
	for (uint64_t i = 0; i < count && !rc; i++) {
		unsigned char *from = staged + i * PAGE_BYTES, *to = staged + *sent * PAGE_BYTES;
		uint64_t sum = mrs_cl_checksum(from);

		if (r->view->pages[page + i].mark == sum)
			continue;
		if (to != from)
			memcpy(to, from, PAGE_BYTES);
		rc = add_piece(r, (page + i) * PAGE_BYTES, to, PAGE_BYTES);
		r->view->pages[page + i].mark = rc ? 0 : sum;
		*sent += !rc;
	}
	return rc;
}

/* Whole pages that no grant of this view writes; of unknown content if by checksum, else stale. */
static int bring_pages(struct round *r, uint64_t page, uint64_t count)
{
	struct gpu_view *view = r->view;
	int rc = 0;

	while (count && !rc) {
		uint64_t n, sent = 0, mark[BATCH_PAGES];
		unsigned char *to;

		rc = make_room(r, PAGE_BYTES);
		if (rc)
			break;
		n = gpu_min(count, (r->block->room - r->block->used) / PAGE_BYTES);
		to = r->block->bytes + r->block->used;
		for (uint64_t i = 0; i < n && !gpu_by_checksum(view); i++)
			mark[i] = wanted_mark(view, page + i);
		rc = mrs_cl_pool_read(r->target, page * PAGE_BYTES, to, n * PAGE_BYTES);
		if (!rc && gpu_by_checksum(view))
			rc = compare(r, page, n, to, &sent);
		for (uint64_t i = 0; i < n && !rc && !gpu_by_checksum(view); i++, sent++) {
			rc = add_piece(r, (page + i) * PAGE_BYTES, to + i * PAGE_BYTES, PAGE_BYTES);
			view->pages[page + i].mark = rc ? 0 : mark[i];
		}
		/* What did not differ leaves its room to the next. */
		r->block->used += sent * PAGE_BYTES;
		page += n;
		count -= n;
	}
	return rc;
}

/* The first writer's range of this view that ends after at and begins before end. */
static struct gpu_range next_writer(struct gpu_view *view, uint64_t at, uint64_t end)
{
	struct gpu_range next = {end, end};

	pthread_mutex_lock(&view->lock);
	for (const struct gpu_grant *g = view->grants; g; g = g->next)
		if (g->access & MORSEL_WRITE && g->range.end > at && g->range.start < next.start)
			next = g->range;
	pthread_mutex_unlock(&view->lock);
	return next;
}

/* Bytes [at, end) of one page that others of this view's grants write: what those leave out. */
static int bring_parts(struct round *r, uint64_t at, uint64_t end)
{
	struct gpu_view *view = r->view;
	uint64_t page = at / PAGE_BYTES;
	int rc = 0;

	if (!gpu_by_checksum(view) && view->pages[page].mark &&
	    view->pages[page].mark == wanted_mark(view, page))
		return 0;
	while (at < end && !rc) {
		struct gpu_range writer = next_writer(view, at, end);
		uint64_t stop = gpu_max(at, writer.start);
		uint64_t bytes = stop - at;

		if (bytes) {
			rc = make_room(r, bytes);
			if (!rc)
				rc = mrs_cl_pool_read(r->target, at,
						      r->block->bytes + r->block->used, bytes);
			if (!rc)
				rc = add_piece(r, at, r->block->bytes + r->block->used, bytes);
			if (!rc)
				r->block->used += bytes;
		}
		at = gpu_max(writer.end, stop);
	}
	return rc;
}

/* How many pages from page on are to be brought as a whole. */
static uint64_t stale_pages(const struct gpu_view *view, uint64_t page, uint64_t end)
{
	uint64_t first = page;

	for (; page < end; page++) {
		if (view->pages[page].writers)
			break;
		if (!gpu_by_checksum(view) && view->pages[page].mark &&
		    view->pages[page].mark == wanted_mark(view, page))
			break;
	}
	return page - first;
}

/* How many pages from page on the device has: the loop that an acquire of much is made of. */
static uint64_t known_pages(const struct gpu_view *view, uint64_t page, uint64_t end)
{
	uint64_t first = page;

	if (gpu_by_checksum(view))
		return 0;
	while (page < end && view->pages[page].mark &&
	       view->pages[page].mark == wanted_mark(view, page))
		page++;
	return page - first;
}

static int bring(struct round *r, struct gpu_range range)
{
	uint64_t page = gpu_first(range), end = gpu_end(range);
	int rc = 0;

	while (page < end && !rc) {
		uint64_t known = known_pages(r->view, page, end);
		uint64_t stale = stale_pages(r->view, page + known, end);

		page += known;
		if (stale)
			rc = bring_pages(r, page, stale);
		page += stale;
		if (page >= end || rc || !r->view->pages[page].writers || known + stale)
			continue;
		rc = bring_parts(r, gpu_max(range.start, page * PAGE_BYTES),
				 gpu_min(range.end, (page + 1) * PAGE_BYTES));
		page++;
	}
	return rc ? rc : send_pieces(r);
}

/* ---- the end of a round ---- */

/* Hands the blocks to the event that ends the round; the caller waits for it, or gets it. */
static int finish(struct round *r)
{
	struct gpu_flight *flight = calloc(1, sizeof(*flight));
	const cl_event *wait;
	cl_event done;
	cl_uint waits;
	cl_int code;

	if (!flight)
		return morsel_fail(-ENOMEM, "no memory for a transfer");
	begin(r, &waits, &wait);
	code = clEnqueueMarkerWithWaitList(r->queue, waits, wait, &done);
	if (code) {
		free(flight);
		return mrs_cl_fail(code, "the end of transfers to the device");
	}
	*flight = (struct gpu_flight){
		.next = r->view->flights,
		.done = done,
		.blocks = r->full,
		.events = r->events,
		.is_late = r->is_late,
	};
	r->view->flights = flight;
	r->full = NULL;
	r->events = NULL;
	clFlush(r->queue);
	if (r->request) {
		clRetainEvent(done);
		r->request->done = done;
		return 0;
	}
	code = clWaitForEvents(1, &done);
	return code ? mrs_cl_fail(code, "transfers to the device") : 0;
}

/* A round that failed in the middle: what it began ends, and what it marked is not sure. */
static void abandon(struct round *r)
{
	if (r->begun)
		clFinish(r->queue);
	forget_marks(r->view);
}

int mrs_cl_to_target(struct morsel_target *target, uint64_t offset, uint64_t bytes)
{
	struct round r = {.target = target, .view = target->state, .request = mrs_cl_request()};
	struct gpu_range range = {offset, offset + bytes};
	int rc;

	r.bytes = (gpu_end(range) - gpu_first(range)) * PAGE_BYTES;
	land_ended(r.view);
	rc = choose_queue(&r);
	if (!rc)
		rc = bring(&r, range);
	if (r.block) {
		r.block->next = r.full;
		r.full = r.block;
	}
	/* Also without a transfer of its own: what is marked may be under way. */
	if (!rc && (r.begun || r.view->flights))
		rc = finish(&r);
	if (rc)
		abandon(&r);
	mrs_cl_block_put(r.view, r.full);
	let_go(r.events);
	free(r.wait);
	return rc;
}
