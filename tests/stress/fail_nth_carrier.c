/* Fail-the-n-th scenarios of <morsel/carrier.h>, over a carrier whose place is nowhere. */
#include <errno.h>

#include <morsel/carrier.h>

#include "stress/fail_nth_scenarios.h"

static int move(void *ctx, struct morsel *morsel, uint64_t offset, uint64_t position,
		uint64_t bytes)
{
	return 0;
}

static const struct morsel_carrier_ops nowhere = {.size = sizeof(nowhere),
						  .version = MORSEL_CARRIER_VERSION,
						  .name = "nowhere",
						  .fill = move,
						  .drain = move};

static int act_import(struct bench *b)
{
	struct morsel *m;
	int code = scenario_done(
		morsel_import_by(b->pool, "carried", &nowhere, NULL, 3 << 20, NULL, &m));

	if (code)
		return code;
	return morsel_close(m) || morsel_unlink(b->pool, "carried") ? -ENOTRECOVERABLE : 0;
}

static int act_export(struct bench *b)
{
	return scenario_done(morsel_export_by(b->morsel, &nowhere, NULL, NULL, NULL));
}

const struct scenario carrier_scenarios[] = {
	{"morsel_import_by", act_import},
	{"morsel_export_by", act_export},
};
const size_t carrier_scenarios_count = sizeof(carrier_scenarios) / sizeof(carrier_scenarios[0]);
