/*
 * Registration of backends: an operations table is checked once, here, so that nobody else needs to
 * ask whether an operation is there. Groups are all or none. See morsel/view.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "view/internal.h"

/* Names an operation and whether the table has it. */
struct op {
	const char *name;
	bool there;
};

static int check_required(const char *backend, const struct op *ops, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!ops[i].there)
			return mrs_fail(-EINVAL, "backend %s lacks the required operation %s",
					backend, ops[i].name);
	return 0;
}

static int check_group(const char *backend, const char *group, const struct op *ops, size_t n)
{
	const struct op *have = NULL, *lack = NULL;

	for (size_t i = 0; i < n; i++) {
		if (ops[i].there)
			have = &ops[i];
		else
			lack = &ops[i];
	}
	if (!have || !lack)
		return 0;
	return mrs_fail(-EINVAL,
			"backend %s has half of the group %s: %s without %s; a group is there as a "
			"whole or not at all",
			backend, group, have->name, lack->name);
}

#define OP(name)                         \
	{                                \
#name, ops->name != NULL \
	}

static int check_ops(const struct morsel_backend_ops *ops)
{
	const struct op required[] = {OP(caps), OP(map), OP(invalidate), OP(destroy)};
	const struct op grants[] = {OP(acquire), OP(release)};
	const struct op transfer[] = {OP(to_target), OP(from_target)};
	const struct op faulting[] = {OP(fault_start), OP(fault_stop)};
	const struct op dirty[] = {OP(dirty_start), OP(dirty_collect), OP(dirty_stop)};
	const struct op export[] = {OP(export_range), OP(export_revoke)};
	int rc = check_required(ops->name, required, mrs_array_length(required));

	if (!rc)
		rc = check_group(ops->name, "grants", grants, mrs_array_length(grants));
	if (!rc)
		rc = check_group(ops->name, "transfer", transfer, mrs_array_length(transfer));
	if (!rc)
		rc = check_group(ops->name, "faulting", faulting, mrs_array_length(faulting));
	if (!rc)
		rc = check_group(ops->name, "dirty tracking", dirty, mrs_array_length(dirty));
	if (!rc)
		rc = check_group(ops->name, "export", export, mrs_array_length(export));
	return rc;
}

int morsel_backend_register(const struct morsel_backend_ops *given, struct morsel_backend **out)
{
	struct morsel_backend *backend;
	struct morsel_backend_ops ops;
	int rc = mrs_opts_read(&ops, sizeof(ops), given);

	if (rc)
		return rc;
	if (!given || !ops.name || !*ops.name)
		return mrs_fail(-EINVAL, "a backend needs an operations table with a name");
	if (ops.version != MORSEL_BACKEND_VERSION)
		return mrs_fail(-EPROTONOSUPPORT,
				"backend %s is written for version %u of the view interface; this "
				"libmorsel (%s) knows version %d",
				ops.name, ops.version, MORSEL_VERSION_STRING,
				MORSEL_BACKEND_VERSION);
	rc = check_ops(&ops);
	if (rc)
		return rc;
	backend = calloc(1, sizeof(*backend));
	if (!backend)
		return mrs_fail(-ENOMEM, "no memory for backend %s", ops.name);
	backend->ops = ops;
	*out = backend;
	return 0;
}

int morsel_backend_unregister(struct morsel_backend *backend)
{
	uint32_t views = backend ? mrs_load_acquire32(&backend->views) : 0;

	if (views)
		return mrs_fail(-EBUSY, "backend %s still has %u views: destroy them first",
				backend->ops.name, views);
	free(backend);
	return 0;
}
