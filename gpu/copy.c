/*
 * The tiers that keep a copy: in buffers of the device, or in shared virtual memory of its own.
 *
 * For each page of the view a mark says what the device has of it: the checksum of what was
 * transferred, or the version that the page had before it was read. A page whose mark does not hold
 * is transferred when it is acquired, as a whole; pages side by side go as one.
 *
 * A page that a grant of this view may be writing on the device is not transferred as a whole: the
 * device's bytes are newer than the pool's. Of such a page only those bytes of the new grant go
 * that no writer's range covers, and the page gets no mark. When the writer's grant ends, exactly
 * its range comes back.
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

/* ---- memory of the device ---- */

static int make_svm(struct gpu_view *view, uint64_t bytes)
{
	cl_svm_mem_flags flags =
		CL_MEM_READ_WRITE | (view->fine ? CL_MEM_SVM_FINE_GRAIN_BUFFER : 0);

	if (bytes > view->alloc_max)
		return morsel_fail(
			-E2BIG,
			"tier svm: the view's %llu bytes are more than the device's largest "
			"allocation, %llu: make views of parts, or use the tier copy",
			(unsigned long long)bytes, (unsigned long long)view->alloc_max);
	view->svm = clSVMAlloc(view->context, flags, bytes, 0);
	if (!view->svm)
		return morsel_fail(
			-ENOMEM, "tier svm: the device has no %llu bytes of shared virtual memory",
			(unsigned long long)bytes);
	return 0;
}

static int make_segments(struct gpu_view *view, uint64_t bytes)
{
	uint64_t largest = view->alloc_max & ~((2ull << 20) - 1);
	uint64_t count;
	cl_int code;

	view->segment_bytes = gpu_min(bytes, largest ? largest : view->alloc_max);
	count = (bytes + view->segment_bytes - 1) / view->segment_bytes;
	view->segments = calloc(count + 1, sizeof(*view->segments));
	if (!view->segments)
		return morsel_fail(-ENOMEM, "no memory for %llu buffers",
				   (unsigned long long)count);
	for (uint64_t i = 0; i < count; i++) {
		uint64_t size = gpu_min(view->segment_bytes, bytes - i * view->segment_bytes);

		view->segments[i] =
			clCreateBuffer(view->context, CL_MEM_READ_WRITE, size, NULL, &code);
		if (!view->segments[i])
			return mrs_cl_fail(code, "tier copy: memory of the device for the view");
	}
	return 0;
}

cl_mem mrs_cl_segment(const struct gpu_view *view, uint64_t offset, uint64_t *inside)
{
	*inside = offset % view->segment_bytes;
	return view->segments[offset / view->segment_bytes];
}

void mrs_cl_copy_destroy(struct gpu_view *view)
{
	/* Nothing is under way afterwards; a wait is for what its grants have waited for, or less.
	 */
	if (view->late)
		clFinish(view->late);
	if (view->queue)
		clFinish(view->queue);
	for (cl_mem *segment = view->segments; segment && *segment; segment++)
		clReleaseMemObject(*segment);
	if (view->svm)
		clSVMFree(view->context, view->svm);
	while (view->flights)
		land(view, &view->flights);
	free(view->segments);
	free(view->pages);
	view->segments = NULL;
	view->pages = NULL;
	view->svm = NULL;
}

static int make_copy(struct gpu_view *view, uint64_t bytes)
{
	view->pages = calloc(bytes / PAGE_BYTES, sizeof(*view->pages));
	if (!view->pages)
		return morsel_fail(-ENOMEM, "no memory for the pages of a view");
	gpu_count(view, bytes_device, bytes);
	return view->tier == MORSEL_CL_SVM ? make_svm(view, bytes) : make_segments(view, bytes);
}

/* ---- translations ---- */

int mrs_cl_copy_map(struct morsel_target *target, const struct morsel_run *runs, size_t n)
{
	struct gpu_view *view = target->device;

	if (!target->state) {
		int rc = make_copy(view, target->bytes);

		if (rc) {
			mrs_cl_copy_destroy(view);
			return rc;
		}
		mrs_cl_view_get(view);
		target->state = view;
	}
	for (size_t i = 0; i < n; i++)
		for (uint64_t page = 0; page < runs[i].bytes / PAGE_BYTES; page++)
			view->pages[runs[i].offset / PAGE_BYTES + page].frame =
				runs[i].frame + page + 1;
	return 0;
}

/* The device's copy may be of another frame's content when the page comes back. */
int mrs_cl_copy_invalidate(struct morsel_target *target, uint64_t offset, uint64_t bytes)
{
	struct gpu_view *view = target->state;

	for (uint64_t page = offset / PAGE_BYTES; page < (offset + bytes) / PAGE_BYTES; page++) {
		view->pages[page].frame = 0;
		view->pages[page].mark = 0;
	}
	return 0;
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
	struct gpu_block *block; /* being filled */
	struct gpu_block *full;	 /* their transfers are under way */
	unsigned blocks;
	bool begun; /* a command was enqueued */
	bool is_late;
	cl_command_queue queue;
	cl_uint waits; /* of its first command */
	cl_event *wait;
	struct held_event *events;
	struct piece piece;
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

static int send_piece(struct round *r)
{
	struct gpu_view *view = r->view;
	struct piece piece = r->piece;
	const cl_event *wait;
	uint64_t inside;
	cl_uint waits;
	cl_event *event;
	cl_mem mem;
	cl_int code;
	int rc;

	r->piece.bytes = 0;
	rc = piece.bytes ? hold_event(r, &event) : 0;
	if (rc || !piece.bytes)
		return rc;
	begin(r, &waits, &wait);
	if (view->tier == MORSEL_CL_SVM) {
		code = clEnqueueSVMMemcpy(r->queue, CL_FALSE, view->svm + piece.offset, piece.from,
					  piece.bytes, waits, wait, event);
	} else {
		mem = mrs_cl_segment(view, piece.offset, &inside);
		code = clEnqueueWriteBuffer(r->queue, mem, CL_FALSE, inside, piece.bytes,
					    piece.from, waits, wait, event);
	}
	if (code)
		return mrs_cl_fail(code, "a transfer to the device");
	gpu_count(view, transfers, 1);
	gpu_count(view, bytes_to_device, piece.bytes);
	return 0;
}

/* Staged bytes are to go to offset. */
static int add_piece(struct round *r, uint64_t offset, const unsigned char *from, uint64_t bytes)
{
	struct piece *piece = &r->piece;
	bool apart = piece->bytes && (piece->offset + piece->bytes != offset ||
				      piece->from + piece->bytes != from ||
				      (r->view->segments && !(offset % r->view->segment_bytes)));
	int rc = apart ? send_piece(r) : 0;

	if (rc)
		return rc;
	if (!piece->bytes)
		*piece = (struct piece){.offset = offset, .from = from};
	piece->bytes += bytes;
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

/* Room for bytes in a block: the one at hand, or another. */
static int make_room(struct round *r, uint64_t bytes, uint64_t wanted)
{
	int rc;

	if (r->block && r->block->room - r->block->used >= bytes)
		return 0;
	rc = send_piece(r);
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
		r->block = mrs_cl_block_get(r->view, wanted);
	return rc ? rc : r->block ? 0 : -ENOMEM;
}

/* ---- which pages ---- */

static bool by_checksum(const struct gpu_view *view)
{
	return !view->constant && !view->word;
}

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

/* Pages [page, page + count) have been staged at from: those that differ are to go. */
static int compare(struct round *r, uint64_t page, uint64_t count, const unsigned char *from,
		   uint64_t *sent)
{
	int rc = 0;

	gpu_count(r->view, pages_compared, count);
	for (uint64_t i = 0; i < count && !rc; i++) {
		uint64_t sum = mrs_cl_checksum(from + i * PAGE_BYTES);

		if (r->view->pages[page + i].mark == sum)
			continue;
		rc = add_piece(r, (page + i) * PAGE_BYTES, from + i * PAGE_BYTES, PAGE_BYTES);
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

		rc = make_room(r, PAGE_BYTES, count * PAGE_BYTES);
		if (rc)
			break;
		n = gpu_min(count, (r->block->room - r->block->used) / PAGE_BYTES);
		to = r->block->bytes + r->block->used;
		for (uint64_t i = 0; i < n && !by_checksum(view); i++)
			mark[i] = wanted_mark(view, page + i);
		rc = mrs_cl_pool_read(r->target, page * PAGE_BYTES, to, n * PAGE_BYTES);
		if (!rc && by_checksum(view))
			rc = compare(r, page, n, to, &sent);
		for (uint64_t i = 0; i < n && !rc && !by_checksum(view); i++, sent++) {
			rc = add_piece(r, (page + i) * PAGE_BYTES, to + i * PAGE_BYTES, PAGE_BYTES);
			view->pages[page + i].mark = rc ? 0 : mark[i];
		}
		/* What did not differ leaves its room to the next. */
		r->block->used += sent ? n * PAGE_BYTES : 0;
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

	if (!by_checksum(view) && view->pages[page].mark &&
	    view->pages[page].mark == wanted_mark(view, page))
		return 0;
	while (at < end && !rc) {
		struct gpu_range writer = next_writer(view, at, end);
		uint64_t stop = gpu_max(at, writer.start);
		uint64_t bytes = stop - at;

		if (bytes) {
			rc = make_room(r, bytes, bytes);
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
		if (!by_checksum(view) && view->pages[page].mark &&
		    view->pages[page].mark == wanted_mark(view, page))
			break;
	}
	return page - first;
}

static int bring(struct round *r, struct gpu_range range)
{
	uint64_t page = gpu_first(range), end = gpu_end(range);
	int rc = 0;

	while (page < end && !rc) {
		uint64_t stale = stale_pages(r->view, page, end);

		if (stale) {
			rc = bring_pages(r, page, stale);
			page += stale;
			continue;
		}
		if (r->view->pages[page].writers)
			rc = bring_parts(r, gpu_max(range.start, page * PAGE_BYTES),
					 gpu_min(range.end, (page + 1) * PAGE_BYTES));
		page++;
	}
	return rc ? rc : send_piece(r);
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
	int rc;

	land_ended(r.view);
	rc = choose_queue(&r);
	if (!rc)
		rc = bring(&r, (struct gpu_range){offset, offset + bytes});
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

/* ---- from the device ---- */

static int fetch(struct gpu_view *view, uint64_t offset, void *to, uint64_t bytes)
{
	uint64_t inside;
	cl_mem mem;
	cl_int code;

	if (view->tier == MORSEL_CL_SVM) {
		code = clEnqueueSVMMemcpy(view->queue, CL_TRUE, to, view->svm + offset, bytes, 0,
					  NULL, NULL);
	} else {
		mem = mrs_cl_segment(view, offset, &inside);
		code = clEnqueueReadBuffer(view->queue, mem, CL_TRUE, inside, bytes, to, 0, NULL,
					   NULL);
	}
	if (code)
		return mrs_cl_fail(code, "a transfer from the device");
	gpu_count(view, transfers, 1);
	gpu_count(view, bytes_from_device, bytes);
	return 0;
}

/* What came back of a page that nobody else writes is what the device has; of others it is unsure.
 */
static void mark_written(struct gpu_view *view, uint64_t offset, const unsigned char *from,
			 uint64_t bytes)
{
	uint64_t end = offset + bytes;

	for (uint64_t page = offset / PAGE_BYTES; page * PAGE_BYTES < end; page++) {
		uint64_t at = page * PAGE_BYTES;
		bool whole = at >= offset && at + PAGE_BYTES <= end;

		view->pages[page].mark = whole && view->pages[page].writers == 1
						 ? mrs_cl_checksum(from + (at - offset))
						 : 0;
	}
}

static int bring_back(struct morsel_target *target, uint64_t offset, uint64_t bytes,
		      struct gpu_block *block)
{
	struct gpu_view *view = target->state;
	uint64_t end = offset + bytes;
	int rc = 0;

	while (offset < end && !rc) {
		uint64_t n = gpu_min(end - offset, block->room);

		/* Pieces end at whole pages: so a page is written back as one. */
		if (n < end - offset)
			n -= (offset + n) % PAGE_BYTES;
		rc = fetch(view, offset, block->bytes, n);
		if (!rc)
			rc = mrs_cl_pool_write(target, offset, block->bytes, n);
		if (!rc && by_checksum(view))
			mark_written(view, offset, block->bytes, n);
		offset += n;
	}
	return rc;
}

int mrs_cl_from_target(struct morsel_target *target, uint64_t offset, uint64_t bytes)
{
	struct gpu_view *view = target->state;
	struct gpu_request *request = mrs_cl_request();
	struct gpu_range range = {offset, offset + bytes};
	struct gpu_block *block;
	int rc = -EIO;

	block = request && request->failed ? NULL : mrs_cl_block_get(view, bytes);
	if (block)
		rc = bring_back(target, offset, bytes, block);
	if (block)
		mrs_cl_block_put(view, block);
	for (uint64_t page = gpu_first(range); rc && page < gpu_end(range); page++)
		view->pages[page].mark = 0;
	if (rc && request)
		request->failed = true;
	return rc;
}

/* ---- native handles ---- */

static int native_part(struct gpu_view *view, struct gpu_grant *grant)
{
	uint64_t bytes = grant->range.end - grant->range.start, inside;
	cl_mem segment = mrs_cl_segment(view, grant->range.start, &inside);
	cl_buffer_region region = {.origin = inside, .size = bytes};
	cl_int code;

	if (inside + bytes > view->segment_bytes)
		return morsel_fail(
			-E2BIG,
			"tier copy: the grant's %llu bytes lie in two buffers, for the device's "
			"largest has %llu: acquire them in parts, or make a view that begins "
			"at them",
			(unsigned long long)bytes, (unsigned long long)view->segment_bytes);
	grant->native.shift = inside;
	grant->native.mem = segment;
	if (!inside || inside % view->align) {
		clRetainMemObject(segment);
		return 0;
	}
	grant->native.shift = 0;
	grant->native.mem =
		clCreateSubBuffer(segment, 0, CL_BUFFER_CREATE_TYPE_REGION, &region, &code);
	return grant->native.mem ? 0 : mrs_cl_fail(code, "tier copy: a part of a buffer");
}

static int count_writer(struct gpu_view *view, struct gpu_range range)
{
	for (uint64_t page = gpu_first(range); page < gpu_end(range); page++)
		if (view->pages[page].writers == UINT16_MAX)
			return morsel_fail(-EBUSY, "65535 grants write page %llu of the view",
					   (unsigned long long)page);
	for (uint64_t page = gpu_first(range); page < gpu_end(range); page++)
		view->pages[page].writers++;
	return 0;
}

int mrs_cl_copy_native(struct gpu_view *view, struct gpu_grant *grant)
{
	int rc = 0;

	if (view->tier == MORSEL_CL_SVM)
		grant->native.pointer = view->svm + grant->range.start;
	else
		rc = native_part(view, grant);
	if (!rc && grant->access & MORSEL_WRITE)
		rc = count_writer(view, grant->range);
	if (rc && grant->native.mem)
		clReleaseMemObject(grant->native.mem);
	return rc;
}

void mrs_cl_copy_release(struct gpu_view *view, struct gpu_grant *grant)
{
	if (grant->native.mem)
		clReleaseMemObject(grant->native.mem);
	if (!(grant->access & MORSEL_WRITE))
		return;
	for (uint64_t page = gpu_first(grant->range); page < gpu_end(grant->range); page++)
		view->pages[page].writers--;
}
