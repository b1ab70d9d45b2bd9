/*
 * The optional groups of a backend, as everybody may call them: what a backend does not have is
 * refused by name. See morsel/view.h.
 */
#include <errno.h>
#include <stdlib.h>

#include "view/internal.h"

static int lacks(const struct morsel_view *view, const char *group)
{
	return mrs_fail(-EOPNOTSUPP, "the backend %s has no %s", view->backend->ops.name, group);
}

/* 0, with the view's lock held, if the view has the capability and is of this process. */
static int enter(struct morsel_view *view, uint32_t cap, const char *group)
{
	int rc = view->caps & cap ? mrs_view_check_fork(view) : lacks(view, group);

	if (!rc)
		pthread_mutex_lock(&view->lock);
	return rc;
}

static int leave(struct morsel_view *view, int rc)
{
	pthread_mutex_unlock(&view->lock);
	return rc;
}

/* ---- faulting ---- */

int morsel_view_fault_start(struct morsel_view *view, morsel_fault_fn fn, void *ctx)
{
	int rc = enter(view, MORSEL_CAP_FAULTABLE, "faulting");

	if (rc)
		return rc;
	if (view->faulting)
		return leave(view, mrs_fail(-EBUSY, "faulting has been started for this view"));
	rc = view->backend->ops.fault_start(&view->target, fn, ctx);
	view->faulting = !rc;
	return leave(view, rc);
}

int morsel_view_fault_stop(struct morsel_view *view)
{
	int rc = enter(view, MORSEL_CAP_FAULTABLE, "faulting");

	if (rc)
		return rc;
	if (view->faulting)
		view->backend->ops.fault_stop(&view->target);
	view->faulting = false;
	return leave(view, 0);
}

/* ---- dirty tracking ---- */

int morsel_view_dirty_start(struct morsel_view *view)
{
	int rc = enter(view, MORSEL_CAP_DIRTY, "dirty tracking");

	if (rc)
		return rc;
	if (view->dirty)
		return leave(view, mrs_fail(-EBUSY, "dirty tracking runs for this view already"));
	rc = view->backend->ops.dirty_start(&view->target);
	view->dirty = !rc;
	return leave(view, rc);
}

int morsel_view_dirty_collect(struct morsel_view *view, uint64_t offset, uint64_t bytes,
			      morsel_dirty_fn fn, void *ctx)
{
	int rc = enter(view, MORSEL_CAP_DIRTY, "dirty tracking");

	if (rc)
		return rc;
	if (!view->dirty)
		return leave(view, mrs_fail(-EINVAL, "dirty tracking has not been started"));
	if (!bytes || (offset | bytes) & (MRS_PAGE_BYTES - 1) || offset > view->target.bytes ||
	    bytes > view->target.bytes - offset)
		return leave(view, mrs_fail(-ERANGE, "not whole pages inside the view"));
	return leave(view, view->backend->ops.dirty_collect(&view->target, offset, bytes, fn, ctx));
}

int morsel_view_dirty_stop(struct morsel_view *view)
{
	int rc = enter(view, MORSEL_CAP_DIRTY, "dirty tracking");

	if (rc)
		return rc;
	if (view->dirty)
		view->backend->ops.dirty_stop(&view->target);
	view->dirty = false;
	return leave(view, 0);
}

/* ---- export ---- */

int morsel_view_export(struct morsel_view *view, uint64_t offset, uint64_t bytes, int *fd)
{
	struct mrs_export *export;
	int rc = view->caps & MORSEL_CAP_EXPORT ? 0 : lacks(view, "export");

	if (rc)
		return rc;
	export = calloc(1, sizeof(*export));
	if (!export)
		return mrs_fail(-ENOMEM, "no memory for an exported range");
	rc = morsel_acquire(view, offset, bytes, (int)view->target.access, &export->grant);
	if (rc)
		goto free_export;
	pthread_mutex_lock(&view->lock);
	rc = view->backend->ops.export_range(&view->target, offset, bytes, &export->fd);
	if (!rc) {
		export->next = view->exports;
		view->exports = export;
		*fd = export->fd;
	}
	pthread_mutex_unlock(&view->lock);
	if (!rc)
		return 0;
	morsel_release(&export->grant);
free_export:
	free(export);
	return rc;
}

int morsel_view_export_revoke(struct morsel_view *view, int fd)
{
	struct mrs_export **link, *export;
	int rc = enter(view, MORSEL_CAP_EXPORT, "export");

	if (rc)
		return rc;
	link = &view->exports;
	while (*link && (*link)->fd != fd)
		link = &(*link)->next;
	export = *link;
	if (!export)
		return leave(view, mrs_fail(-EBADF, "descriptor %d is no export of this view", fd));
	*link = export->next;
	view->backend->ops.export_revoke(&view->target, fd);
	leave(view, 0);
	morsel_release(&export->grant);
	free(export);
	return 0;
}
