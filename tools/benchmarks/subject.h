/*
 * What a probe does with its object: enter (open, map, touch, read; timed) and leave (unmap;
 * timed). One function per enum probe_what; the clock is read inside, around exactly what is named.
 */
#ifndef BENCH_SUBJECT_H
#define BENCH_SUBJECT_H

#include "probe.h"

struct morsel_pool;
struct morsel;
struct morsel_view;

struct subject {
	uint32_t what;
	void *at;
	uint64_t bytes;
	struct morsel_pool *pool;
	struct morsel *morsel;
	struct morsel_view *view;
};

void subject_enter(struct subject *subject, const struct probe_request *request, int fd,
		   struct probe_result *result);
void subject_leave(struct subject *subject, struct probe_result *result);

/*
 * Opens and closes q->bytes morsels of the q->count that are called "morsel-N", chosen at random
 * from q->seed: adds the time of all opens to result->map_ns, of all closes to result->unmap_ns.
 */
int open_names(struct morsel_pool *pool, const struct probe_request *q,
	       struct probe_result *result);

#endif
