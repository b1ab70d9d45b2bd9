/*
 * Fail-the-n-th scenarios of <morsel/view.h>, over a backend that has every optional group and does
 * nothing but say yes: what is failed here is the core's part.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <morsel/view.h>

#include "stress/fail_nth_scenarios.h"
#include "support/fail_nth.h"

#define MIB (1024 * 1024ull)

static uint32_t yes_caps(void *device)
{
	return MORSEL_CAP_COHERENT | MORSEL_CAP_SCATTER | MORSEL_CAP_HOLES | MORSEL_CAP_FAULTABLE |
	       MORSEL_CAP_DIRTY | MORSEL_CAP_EXPORT;
}

static int yes_map(struct morsel_target *target, const struct morsel_run *runs, size_t n)
{
	return 0;
}

static int yes_range(struct morsel_target *target, uint64_t offset, uint64_t bytes)
{
	return 0;
}

static void yes_end(struct morsel_target *target)
{
}

static int yes_fault_start(struct morsel_target *target, morsel_fault_fn fn, void *ctx)
{
	return 0;
}

static int yes_dirty_start(struct morsel_target *target)
{
	return 0;
}

static int yes_dirty_collect(struct morsel_target *target, uint64_t offset, uint64_t bytes,
			     morsel_dirty_fn fn, void *ctx)
{
	return 0;
}

static int yes_export(struct morsel_target *target, uint64_t offset, uint64_t bytes, int *fd)
{
	*fd = dup(target->fd);
	return *fd < 0 ? morsel_fail(-errno, "no descriptor is left") : 0;
}

static void yes_revoke(struct morsel_target *target, int fd)
{
	close(fd);
}

static const struct morsel_backend_ops yes_ops = {
	.size = sizeof(yes_ops),
	.version = MORSEL_BACKEND_VERSION,
	.name = "says-yes",
	.caps = yes_caps,
	.map = yes_map,
	.invalidate = yes_range,
	.destroy = yes_end,
	.fault_start = yes_fault_start,
	.fault_stop = yes_end,
	.dirty_start = yes_dirty_start,
	.dirty_collect = yes_dirty_collect,
	.dirty_stop = yes_end,
	.export_range = yes_export,
	.export_revoke = yes_revoke,
};

static struct morsel_backend *yes_backend(void)
{
	struct morsel_backend *backend;

	fail_nth_disarm();
	if (morsel_backend_register(&yes_ops, &backend))
		abort();
	return backend;
}

/* A view by the yes backend, made with failures off; then arms. */
static struct morsel_view *yes_view(struct bench *b, struct morsel_backend **backend)
{
	struct morsel_view *view;

	*backend = yes_backend();
	if (morsel_view_create(b->morsel, *backend, NULL, NULL, &view))
		abort();
	scenario_arm();
	return view;
}

static int yes_clear(struct morsel_view *view, struct morsel_backend *backend, int code)
{
	morsel_view_destroy(view);
	if (morsel_backend_unregister(backend))
		abort();
	return code;
}

static int act_register(struct bench *b)
{
	struct morsel_backend *backend;
	int code = scenario_done(morsel_backend_register(&yes_ops, &backend));

	return code ? code : morsel_backend_unregister(backend);
}

static int act_unregister(struct bench *b)
{
	struct morsel_backend *backend = yes_backend();

	scenario_arm();
	return scenario_done(morsel_backend_unregister(backend));
}

static int act_create(struct bench *b)
{
	struct morsel_backend *backend = yes_backend();
	struct morsel_view *view = NULL;
	int code;

	scenario_arm();
	code = scenario_done(morsel_view_create(b->morsel, backend, NULL, NULL, &view));
	return yes_clear(view, backend, code);
}

static int act_describe(struct bench *b)
{
	struct morsel_backend *backend;
	struct morsel_view *view = yes_view(b, &backend);
	int code = morsel_view_target(view) && morsel_view_caps(view) == yes_caps(NULL) &&
				   !strcmp(morsel_view_backend_name(view), "says-yes")
			   ? 0
			   : -EINVAL;

	return yes_clear(view, backend, scenario_done(code));
}

static int act_invalidate(struct bench *b)
{
	struct morsel_backend *backend;
	struct morsel_view *view = yes_view(b, &backend);
	int code = scenario_done(morsel_view_invalidate(view, 4096, 8192));

	return yes_clear(view, backend, code);
}

static int act_fault(struct bench *b)
{
	struct morsel_backend *backend;
	struct morsel_view *view = yes_view(b, &backend);
	int code = morsel_view_fault_start(view, NULL, NULL);

	if (!code)
		code = morsel_view_fault_stop(view);
	return yes_clear(view, backend, scenario_done(code));
}

static int ignore_dirty(void *ctx, uint64_t offset, uint64_t bytes)
{
	return 0;
}

static int act_dirty(struct bench *b)
{
	struct morsel_backend *backend;
	struct morsel_view *view = yes_view(b, &backend);
	int code = morsel_view_dirty_start(view);

	if (!code) {
		code = morsel_view_dirty_collect(view, 0, MIB, ignore_dirty, NULL);
		morsel_view_dirty_stop(view);
	}
	return yes_clear(view, backend, scenario_done(code));
}

static int act_export(struct bench *b)
{
	struct morsel_backend *backend;
	struct morsel_view *view = yes_view(b, &backend);
	int fd, code = morsel_view_export(view, 0, 4096, &fd);

	if (!code) {
		fail_nth_disarm();
		code = morsel_view_export_revoke(view, fd);
	}
	return yes_clear(view, backend, scenario_done(code));
}

static int act_revoke(struct bench *b)
{
	struct morsel_backend *backend;
	struct morsel_view *view = yes_view(b, &backend);
	int fd, code;

	fail_nth_disarm();
	if (morsel_view_export(view, 0, 4096, &fd))
		abort();
	scenario_arm();
	code = scenario_done(morsel_view_export_revoke(view, fd));
	return yes_clear(view, backend, code);
}

const struct scenario backend_scenarios[] = {
	{"morsel_backend_register", act_register},  {"morsel_backend_unregister", act_unregister},
	{"morsel_view_create", act_create},	    {"morsel_view_target", act_describe},
	{"morsel_view_backend_name", act_describe}, {"morsel_view_caps", act_describe},
	{"morsel_view_invalidate", act_invalidate}, {"morsel_view_fault_start", act_fault},
	{"morsel_view_fault_stop", act_fault},	    {"morsel_view_dirty_start", act_dirty},
	{"morsel_view_dirty_collect", act_dirty},   {"morsel_view_dirty_stop", act_dirty},
	{"morsel_view_export", act_export},	    {"morsel_view_export_revoke", act_revoke},
};
const size_t backend_scenarios_count = sizeof(backend_scenarios) / sizeof(backend_scenarios[0]);
