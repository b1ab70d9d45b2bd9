/*
 * Carriers: what they must have, and the calls; import.c and export.c do the rest.
 */
#include "object/carrier.h"

#include <errno.h>

#include "base/base.h"
#include "base/probe.h"

int mrs_carrier_check(struct mrs_carrier *carrier, const struct morsel_carrier_ops *given,
		      unsigned needs)
{
	struct morsel_carrier_ops *ops = &carrier->ops;
	const char *lacks;
	int rc = mrs_opts_read(ops, sizeof(*ops), given);

	if (rc)
		return rc;
	if (!given || !ops->name || !*ops->name || ops->reserved)
		return mrs_fail(-EINVAL, "a carrier needs an operations table with a name");
	if (ops->version != MORSEL_CARRIER_VERSION)
		return mrs_fail(-EPROTONOSUPPORT,
				"carrier %s is written for version %u of the interface; this "
				"libmorsel (%s) knows version %d",
				ops->name, ops->version, MORSEL_VERSION_STRING,
				MORSEL_CARRIER_VERSION);
	if (carrier->bytes > INT64_MAX)
		return mrs_fail(-EFBIG, "%s cannot have %llu bytes", ops->name,
				(unsigned long long)carrier->bytes);
	lacks = needs & MRS_CARRIER_FILL && !ops->fill	   ? "fill"
		: needs & MRS_CARRIER_READ && !ops->read   ? "read, which aligned tensors need"
		: needs & MRS_CARRIER_DRAIN && !ops->drain ? "drain"
							   : NULL;
	if (lacks)
		return mrs_fail(-EOPNOTSUPP, "carrier %s lacks the operation %s", ops->name, lacks);
	return 0;
}

int mrs_carrier_fill(const struct mrs_carrier *carrier, struct morsel *morsel, uint64_t offset,
		     uint64_t position, uint64_t bytes)
{
	int rc = carrier->ops.fill(carrier->ctx, morsel, offset, position, bytes);

	MRS_PROBE("import.carried");
	return rc;
}

int mrs_carrier_drain(const struct mrs_carrier *carrier, struct morsel *morsel, uint64_t offset,
		      uint64_t position, uint64_t bytes)
{
	return carrier->ops.drain(carrier->ctx, morsel, offset, position, bytes);
}

static int source_read(void *ctx, uint64_t offset, void *buffer, size_t bytes)
{
	const struct mrs_carrier *carrier = ctx;

	return carrier->ops.read(carrier->ctx, offset, buffer, bytes);
}

void mrs_carrier_source(const struct mrs_carrier *carrier, struct mrs_source *source)
{
	*source = (struct mrs_source){
		.read = source_read, .ctx = (void *)carrier, .bytes = carrier->bytes};
}
