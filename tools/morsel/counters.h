/* The counters of a pool by name, for stat, its OpenMetrics text, and top. */
#ifndef TOOLS_MORSEL_COUNTERS_H
#define TOOLS_MORSEL_COUNTERS_H

#include <morsel/morsel.h>
#include <morsel/observe.h>

struct counter_spec {
	const char *name; /* as the field of struct morsel_counters is called */
	size_t offset;
	const char *help;
};

extern const struct counter_spec counter_specs[];
extern const size_t counter_specs_count;

static inline uint64_t counter_value(const struct morsel_counters *counters,
				     const struct counter_spec *spec)
{
	return *(const uint64_t *)((const char *)counters + spec->offset);
}

/* Writes the OpenMetrics text to stdout: 0, or a negative errno of the library. */
int print_openmetrics(struct morsel_pool *pool, const char *path);

#endif
