/*
 * A carrier (<morsel/carrier.h>), checked, and where the core calls it.
 */
#ifndef MRS_OBJECT_CARRIER_H
#define MRS_OBJECT_CARRIER_H

#include <morsel/carrier.h>

#include "model/model.h"

struct mrs_carrier {
	struct morsel_carrier_ops ops;
	void *ctx;
	uint64_t bytes; /* of its place, for an import */
};

enum mrs_carrier_need {
	MRS_CARRIER_FILL = 1,
	MRS_CARRIER_READ = 2,
	MRS_CARRIER_DRAIN = 4,
};

/* Takes a copy of the table. -EINVAL, -EPROTONOSUPPORT, -EOPNOTSUPP in words. */
int mrs_carrier_check(struct mrs_carrier *carrier, const struct morsel_carrier_ops *ops,
		      unsigned needs);

int mrs_carrier_fill(const struct mrs_carrier *carrier, struct morsel *morsel, uint64_t offset,
		     uint64_t position, uint64_t bytes);
int mrs_carrier_drain(const struct mrs_carrier *carrier, struct morsel *morsel, uint64_t offset,
		      uint64_t position, uint64_t bytes);
/* Lives as long as the carrier. */
void mrs_carrier_source(const struct mrs_carrier *carrier, struct mrs_source *source);

#endif
