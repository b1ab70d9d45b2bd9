/*
 * Views: which tier, and the four backends by which the core knows them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#include "room.h"

/* ---- lives ---- */

void mrs_cl_view_get(struct gpu_view *view)
{
	gpu_add_relaxed(&view->refs, 1);
}

void mrs_cl_view_put(struct gpu_view *view)
{
	/* Acquire and release: the last one sees what the others did. */
	if (gpu_sub_acq_rel(&view->refs, 1) != 1)
		return;
	mrs_cl_block_free_all(view);
	pthread_cond_destroy(&view->idle);
	pthread_mutex_destroy(&view->lock);
	free(view);
}

cl_command_queue mrs_cl_late(struct gpu_view *view)
{
	cl_int code = 0;

	pthread_mutex_lock(&view->lock);
	if (!view->late)
		view->late = clCreateCommandQueue(view->context, view->device, 0, &code);
	pthread_mutex_unlock(&view->lock);
	if (!view->late)
		mrs_cl_fail(code, "a queue for what waits");
	return view->late;
}

static void release_queues(struct gpu_view *view)
{
	if (view->late)
		clReleaseCommandQueue(view->late);
	if (view->queue)
		clReleaseCommandQueue(view->queue);
	view->late = view->queue = NULL;
}

/* ---- the backends ---- */

static uint32_t caps(void *device)
{
	const struct gpu_view *view = device;

	return MORSEL_CAP_SCATTER | MORSEL_CAP_HOLES |
	       (gpu_is_copying(view) ? 0 : MORSEL_CAP_COHERENT);
}

static void end_of(struct morsel_target *target)
{
	struct gpu_view *view = target->state;

	/* In a fork there is no OpenCL any more; the mapping was not inherited. */
	if (target->forked)
		return;
	/* What was never released: its core's part has gone. */
	while (view->grants) {
		struct gpu_grant *grant = view->grants;

		view->grants = grant->next;
		if (grant->native.mem)
			clReleaseMemObject(grant->native.mem);
		if (grant->arrived)
			clReleaseEvent(grant->arrived);
		free(grant);
	}
	if (gpu_is_copying(view))
		mrs_cl_copy_destroy(view);
	else
		mrs_cl_shared_destroy(view);
	release_queues(view);
	target->state = NULL;
	mrs_cl_view_put(view);
}

/* Who destroys a view with grants gives up what was written under them; others must not wait. */
static void settle(struct morsel_target *target)
{
	struct gpu_view *view = target->state;

	mrs_cl_settle(view);
	for (struct gpu_grant *grant = view->grants; grant; grant = grant->next)
		if (grant->access & MORSEL_WRITE)
			mrs_cl_versions_end(view, grant->range);
	mrs_cl_versions_close(view);
}

#define SHARED(backend)                                                                       \
	{                                                                                     \
		.size = sizeof(struct morsel_backend_ops), .version = MORSEL_BACKEND_VERSION, \
		.name = backend, .caps = caps, .map = mrs_cl_shared_map,                      \
		.invalidate = mrs_cl_shared_invalidate, .destroy = end_of,                    \
		.acquire = mrs_cl_grant_acquire, .release = mrs_cl_grant_release,             \
		.settle = settle,                                                             \
	}
#define COPYING(backend)                                                                      \
	{                                                                                     \
		.size = sizeof(struct morsel_backend_ops), .version = MORSEL_BACKEND_VERSION, \
		.name = backend, .caps = caps, .map = mrs_cl_copy_map,                        \
		.invalidate = mrs_cl_copy_invalidate, .destroy = end_of,                      \
		.acquire = mrs_cl_grant_acquire, .release = mrs_cl_grant_release,             \
		.to_target = mrs_cl_to_target, .from_target = mrs_cl_from_target,             \
		.settle = settle,                                                             \
	}

static const struct morsel_backend_ops ops[GPU_TIERS] = {
	[MORSEL_CL_SYSTEM] = SHARED("cl-system"),
	[MORSEL_CL_HOST_POINTER] = SHARED("cl-host-pointer"),
	[MORSEL_CL_SVM] = COPYING("cl-svm"),
	[MORSEL_CL_COPY] = COPYING("cl-copy"),
};

static struct morsel_backend *backends[GPU_TIERS];
static int registered;

static void register_all(void)
{
	for (uint32_t tier = MORSEL_CL_SYSTEM; tier < GPU_TIERS && !registered; tier++)
		registered = morsel_backend_register(&ops[tier], &backends[tier]);
}

static int backend_of(uint32_t tier, struct morsel_backend **backend)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, register_all);
	*backend = backends[tier];
	return *backend ? 0
			: morsel_fail(registered ? registered : -ENOMEM,
				      "the tier %s could not be registered",
				      morsel_cl_tier_name(tier));
}

struct gpu_view *mrs_cl_view_of(struct morsel_view *view)
{
	const char *name = view ? morsel_view_backend_name(view) : NULL;

	for (uint32_t tier = MORSEL_CL_SYSTEM; tier < GPU_TIERS && name; tier++)
		if (name == ops[tier].name)
			return morsel_view_target(view)->state;
	morsel_fail(-EINVAL, "the view is not by libmorsel-gpu: %s", name ? name : "NULL");
	return NULL;
}

/* ---- making one ---- */

static int check_opts(const struct morsel_cl_opts *given, struct morsel_cl_opts *opts)
{
	*opts = (struct morsel_cl_opts){.size = sizeof(*opts)};
	if (given && given->size != sizeof(*opts))
		return morsel_fail(-EINVAL,
				   "struct morsel_cl_opts has %zu bytes here, not %zu: set "
				   ".size, and build with this library's header",
				   sizeof(*opts), given->size);
	if (given)
		*opts = *given;
	if (opts->tier >= GPU_TIERS || opts->writers > MORSEL_CL_WRITERS_TELL)
		return morsel_fail(-EINVAL, "there is no tier %u, or no way %u to know of writers",
				   opts->tier, opts->writers);
	return 0;
}

static int choose_tier(const struct gpu_offer *offer, uint32_t wanted, uint32_t *tier)
{
	*tier = wanted ? wanted : mrs_cl_best(offer->tiers);
	if (offer->tiers & 1u << *tier)
		return 0;
	return morsel_fail(
		-EOPNOTSUPP,
		"the devices of the context do not offer the tier %s: %s; they offer %s and "
		"slower ones: ask for that, or leave the tier open",
		morsel_cl_tier_name(*tier), offer->why_not[*tier],
		morsel_cl_tier_name(mrs_cl_best(offer->tiers)));
}

static struct gpu_view *view_alloc(struct morsel *morsel, cl_context context,
				   const struct gpu_offer *offer, const struct morsel_cl_opts *opts)
{
	struct gpu_view *view = calloc(1, sizeof(*view));

	if (!view) {
		morsel_fail(-ENOMEM, "no memory for a view");
		return NULL;
	}
	view->refs = 1;
	view->writers = opts->writers;
	view->fine = offer->fine;
	view->morsel = morsel;
	view->context = context;
	view->device = offer->device;
	view->align = offer->align;
	view->alloc_max = offer->alloc_max;
	view->offset = opts->offset;
	pthread_mutex_init(&view->lock, NULL);
	pthread_cond_init(&view->idle, NULL);
	return view;
}

/* What only the morsel knows: how large the view is, and whether it can change. */
static int look_at_morsel(struct gpu_view *view, const struct morsel_cl_opts *opts)
{
	struct morsel_info info = {.size = sizeof(info)};
	int rc = morsel_info(view->morsel, &info);

	if (rc)
		return rc;
	view->constant = info.sealed;
	/* What is not inside the morsel the core refuses, in words. */
	if (opts->offset < info.bytes && opts->bytes <= info.bytes - opts->offset)
		view->bytes = opts->bytes ? opts->bytes : info.bytes - opts->offset;
	return 0;
}

static int prepare(struct gpu_view *view, const struct morsel_cl_opts *opts)
{
	cl_int code;
	int rc = look_at_morsel(view, opts);

	if (!rc && view->writers == MORSEL_CL_WRITERS_TELL && !view->constant && view->bytes)
		rc = mrs_cl_versions_open(view);
	if (rc)
		return rc;
	view->queue = clCreateCommandQueue(view->context, view->device, 0, &code);
	return view->queue ? 0 : mrs_cl_fail(code, "a queue for the view");
}

int morsel_cl_view(struct morsel *morsel, cl_context context, const struct morsel_cl_opts *given,
		   struct morsel_view **out)
{
	struct morsel_map_opts map = {.size = sizeof(map)};
	struct morsel_backend *backend;
	struct morsel_cl_opts opts;
	struct gpu_offer offer;
	struct gpu_view *view;
	uint32_t tier;
	int rc = check_opts(given, &opts);

	if (!rc)
		rc = mrs_cl_offer(context, &offer);
	if (!rc)
		rc = choose_tier(&offer, opts.tier, &tier);
	if (!rc)
		rc = backend_of(tier, &backend);
	if (rc)
		return rc;
	view = view_alloc(morsel, context, &offer, &opts);
	if (!view)
		return -ENOMEM;
	view->tier = tier;
	rc = prepare(view, &opts);
	map.access = opts.access;
	map.offset = opts.offset;
	/* The size that the versions were made for. */
	map.bytes = view->bytes ? view->bytes : opts.bytes;
	if (!rc)
		rc = morsel_view_create(morsel, backend, view, &map, out);
	if (rc) {
		mrs_cl_versions_close(view);
		release_queues(view);
	}
	mrs_cl_view_put(view);
	return rc;
}

/* ---- looking, telling ---- */

int morsel_cl_view_stat(struct morsel_view *view, struct morsel_cl_stat *out)
{
	struct gpu_view *v = mrs_cl_view_of(view);
	struct morsel_cl_stat stat;

	if (!v)
		return -EINVAL;
	if (out->size < sizeof(out->size) || out->size > sizeof(stat))
		return morsel_fail(-EINVAL, "struct morsel_cl_stat has %zu bytes here, not %zu",
				   sizeof(stat), out->size);
	stat = v->stat;
	pthread_mutex_lock(&v->lock);
	stat.grants_pending = v->pending;
	pthread_mutex_unlock(&v->lock);
	stat.size = out->size;
	stat.tier = v->tier;
	stat.writers = v->writers;
	memcpy(out, &stat, out->size);
	return 0;
}

int morsel_cl_wrote(struct morsel_view *view, uint64_t offset, uint64_t bytes)
{
	struct gpu_view *v = mrs_cl_view_of(view);
	struct gpu_range range = {offset, offset + bytes};

	if (!v)
		return -EINVAL;
	if (!bytes || offset > v->bytes || bytes > v->bytes - offset)
		return morsel_fail(-ERANGE, "%llu bytes at %llu are not in the view's %llu",
				   (unsigned long long)bytes, (unsigned long long)offset,
				   (unsigned long long)v->bytes);
	for (uint64_t page = gpu_first(range); v->word && page < gpu_end(range); page++)
		/* Release: who loads the new version reads what was written. */
		gpu_add_acq_rel(&v->word[page], 1ull << 16);
	return 0;
}
