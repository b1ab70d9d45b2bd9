/*
 * A target in software, which shows what a promise means: its translations are an array, page ->
 * frame, and it reaches memory only by pread() and pwrite() of the pool's file at those frames.
 *
 * Two kinds: "software" sees the pool's memory, tells which pages it wrote and can be made to wait
 * for a missing page; "software-copying" has memory of its own, which the core must keep up to
 * date.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "contract/contract.h"

struct software_page {
	uint64_t frame; /* plus 1; 0: no translation */
	bool dirty;
	unsigned char *copy; /* of the copying kind */
};

struct software {
	pthread_mutex_t lock; /* an access sees all of a change of the translations or nothing */
	struct software_page *page;
	uint64_t pages;
	bool copying;
	bool tracking;
	morsel_fault_fn fault;
	void *fault_ctx;
};

/* The device: which of the two kinds. */
static char coherent_device, copying_device;

static uint32_t software_caps(void *device)
{
	if (device == &copying_device)
		return MORSEL_CAP_SCATTER | MORSEL_CAP_HOLES;
	return MORSEL_CAP_FREE_USE | MORSEL_CAP_COHERENT | MORSEL_CAP_SCATTER | MORSEL_CAP_HOLES |
	       MORSEL_CAP_FAULTABLE | MORSEL_CAP_DIRTY;
}

static struct software *software_make(const struct morsel_target *target)
{
	struct software *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->pages = target->bytes / target->page_bytes;
	s->page = calloc(s->pages, sizeof(*s->page));
	s->copying = target->device == &copying_device;
	if (!s->page) {
		free(s);
		return NULL;
	}
	pthread_mutex_init(&s->lock, NULL);
	return s;
}

static int software_map(struct morsel_target *target, const struct morsel_run *runs, size_t n)
{
	struct software *s = target->state;

	if (!s)
		target->state = s = software_make(target);
	if (!s)
		return morsel_fail(-ENOMEM, "no memory for a software target");
	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < n; i++)
		for (uint64_t at = 0; at < runs[i].bytes; at += PAGE)
			s->page[(runs[i].offset + at) / PAGE].frame = runs[i].frame + at / PAGE + 1;
	pthread_mutex_unlock(&s->lock);
	return 0;
}

static int software_invalidate(struct morsel_target *target, uint64_t offset, uint64_t bytes)
{
	struct software *s = target->state;

	pthread_mutex_lock(&s->lock);
	for (uint64_t at = offset; at < offset + bytes; at += PAGE)
		s->page[at / PAGE].frame = 0;
	pthread_mutex_unlock(&s->lock);
	return 0;
}

static void software_destroy(struct morsel_target *target)
{
	struct software *s = target->state;

	for (uint64_t i = 0; i < s->pages; i++)
		free(s->page[i].copy);
	pthread_mutex_destroy(&s->lock);
	free(s->page);
	free(s);
	target->state = NULL;
}

/* ---- access ---- */

/* Within one page. The lock is held. */
static int access_page(struct morsel_target *target, uint64_t offset, void *to, const void *from,
		       uint64_t bytes)
{
	struct software *s = target->state;
	struct software_page *page = &s->page[offset / PAGE];
	off_t at = (off_t)((page->frame - 1) * PAGE + offset % PAGE);

	if (!page->frame)
		return -EFAULT;
	if (from && !(target->access & MORSEL_WRITE))
		return -EACCES;
	if (s->copying && !page->copy)
		return -EFAULT;
	if (s->copying && to)
		memcpy(to, page->copy + offset % PAGE, bytes);
	else if (s->copying)
		memcpy(page->copy + offset % PAGE, from, bytes);
	else if (to && pread(target->fd, to, bytes, at) != (ssize_t)bytes)
		return -EIO;
	else if (from && pwrite(target->fd, from, bytes, at) != (ssize_t)bytes)
		return -EIO;
	page->dirty |= from && s->tracking;
	return 0;
}

static int access_range(struct morsel_target *target, uint64_t offset, char *to, const char *from,
			uint64_t bytes)
{
	struct software *s = target->state;
	bool waited = false;

	while (bytes) {
		uint64_t part = PAGE - offset % PAGE < bytes ? PAGE - offset % PAGE : bytes;
		int rc;

		pthread_mutex_lock(&s->lock);
		rc = access_page(target, offset, to, from, part);
		pthread_mutex_unlock(&s->lock);
		if (rc == -EFAULT && s->fault && !waited) {
			waited = true;
			rc = s->fault(s->fault_ctx, offset, part,
				      from ? MORSEL_WRITE : MORSEL_READ);
			if (!rc)
				continue;
		}
		if (rc)
			return rc;
		waited = false;
		offset += part;
		bytes -= part;
		to += to ? part : 0;
		from += from ? part : 0;
	}
	return 0;
}

static int software_peek(struct morsel_view *view, uint64_t offset, void *buffer, uint64_t bytes)
{
	return access_range(morsel_view_target(view), offset, buffer, NULL, bytes);
}

static int software_poke(struct morsel_view *view, uint64_t offset, const void *buffer,
			 uint64_t bytes)
{
	return access_range(morsel_view_target(view), offset, NULL, buffer, bytes);
}

/* ---- coherence transfer ---- */

/* Between the copy and the pool's memory, piece by piece. */
static int transfer(struct morsel_target *target, uint64_t offset, uint64_t bytes, bool to_target)
{
	struct software *s = target->state;
	uint64_t end = offset + bytes;
	int rc = 0;

	pthread_mutex_lock(&s->lock);
	while (offset < end && !rc) {
		struct software_page *page = &s->page[offset / PAGE];
		uint64_t inside = offset % PAGE;
		uint64_t part = PAGE - inside < end - offset ? PAGE - inside : end - offset;
		off_t at = (off_t)((page->frame - 1) * PAGE + inside);
		ssize_t n;

		if (!page->copy)
			page->copy = calloc(1, PAGE);
		if (!page->frame || !page->copy) {
			rc = -EFAULT;
			break;
		}
		n = to_target ? pread(target->fd, page->copy + inside, part, at)
			      : pwrite(target->fd, page->copy + inside, part, at);
		rc = n == (ssize_t)part ? 0 : -EIO;
		offset += part;
	}
	pthread_mutex_unlock(&s->lock);
	return rc ? morsel_fail(rc, "a transfer of the software target failed") : 0;
}

static int software_to_target(struct morsel_target *target, uint64_t offset, uint64_t bytes)
{
	return transfer(target, offset, bytes, true);
}

static int software_from_target(struct morsel_target *target, uint64_t offset, uint64_t bytes)
{
	return transfer(target, offset, bytes, false);
}

/* ---- faulting, dirty tracking ---- */

static int software_fault_start(struct morsel_target *target, morsel_fault_fn fn, void *ctx)
{
	struct software *s = target->state;

	s->fault_ctx = ctx;
	s->fault = fn;
	return 0;
}

static void software_fault_stop(struct morsel_target *target)
{
	((struct software *)target->state)->fault = NULL;
}

static int software_dirty_start(struct morsel_target *target)
{
	struct software *s = target->state;

	for (uint64_t i = 0; i < s->pages; i++)
		s->page[i].dirty = false;
	s->tracking = true;
	return 0;
}

static int software_dirty_collect(struct morsel_target *target, uint64_t offset, uint64_t bytes,
				  morsel_dirty_fn fn, void *ctx)
{
	struct software *s = target->state;
	int rc = 0;

	for (uint64_t i = offset / PAGE; i < (offset + bytes) / PAGE && !rc; i++) {
		if (s->page[i].dirty)
			rc = fn(ctx, i * PAGE, PAGE);
		s->page[i].dirty = false;
	}
	return rc;
}

static void software_dirty_stop(struct morsel_target *target)
{
	((struct software *)target->state)->tracking = false;
}

/* ---- views ---- */

static const struct morsel_backend_ops software_ops = {
	.size = sizeof(software_ops),
	.version = MORSEL_BACKEND_VERSION,
	.name = "software",
	.caps = software_caps,
	.map = software_map,
	.invalidate = software_invalidate,
	.destroy = software_destroy,
	.to_target = software_to_target,
	.from_target = software_from_target,
	.fault_start = software_fault_start,
	.fault_stop = software_fault_stop,
	.dirty_start = software_dirty_start,
	.dirty_collect = software_dirty_collect,
	.dirty_stop = software_dirty_stop,
};

static struct morsel_backend *backend(void)
{
	static struct morsel_backend *registered;

	if (!registered && morsel_backend_register(&software_ops, &registered))
		abort();
	return registered;
}

static int open_software(struct morsel *morsel, const struct morsel_map_opts *opts,
			 struct morsel_view **view)
{
	return morsel_view_create(morsel, backend(), &coherent_device, opts, view);
}

static int open_copying(struct morsel *morsel, const struct morsel_map_opts *opts,
			struct morsel_view **view)
{
	return morsel_view_create(morsel, backend(), &copying_device, opts, view);
}

const struct contract_target contract_software = {
	.name = "software",
	.flags = MORSEL_SCATTERED,
	.pages = MORSEL_PAGES_4K,
	.open = open_software,
	.peek = software_peek,
	.poke = software_poke,
};

const struct contract_target contract_software_copying = {
	.name = "software-copying",
	.flags = MORSEL_SCATTERED,
	.pages = MORSEL_PAGES_4K,
	.open = open_copying,
	.peek = software_peek,
	.poke = software_poke,
};
