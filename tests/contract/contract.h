/*
 * The contract suite's view of a target: how to open a view, and how to read and write through it
 * as the target itself does. A new backend adds one of these, a line in capabilities.tsv, and
 * passes.
 */
#ifndef TESTS_CONTRACT_CONTRACT_H
#define TESTS_CONTRACT_CONTRACT_H

#include <stdbool.h>
#include <stdint.h>

#include <morsel/view.h>

#include "core/view_support.h"

struct contract_target {
	const char *name; /* as in capabilities.tsv */
	uint32_t flags;	  /* enum morsel_flags of morsels that it can show */
	uint32_t pages;	  /* enum morsel_pages of them */
	/* Views of this target. */
	int (*open)(struct morsel *morsel, const struct morsel_map_opts *opts,
		    struct morsel_view **view);
	/*
	 * Access by the target: 0, -EFAULT where it has no translation (then nothing or a part has
	 * been transferred), -EACCES where it has not the right.
	 */
	int (*peek)(struct morsel_view *view, uint64_t offset, void *buffer, uint64_t bytes);
	int (*poke)(struct morsel_view *view, uint64_t offset, const void *buffer, uint64_t bytes);
	/* What a child of fork uses instead, where this one's driver does not survive it; or NULL. */
	const struct contract_target *in_child;
};

extern const struct contract_target contract_cpu_pooled;
extern const struct contract_target contract_cpu_stitched;
extern const struct contract_target contract_software;
extern const struct contract_target contract_software_copying;
extern const struct contract_target contract_iommu_type1;
extern const struct contract_target contract_iommu_iommufd;
extern const struct contract_target contract_cl_system;
extern const struct contract_target contract_cl_host_pointer;
extern const struct contract_target contract_cl_svm;
extern const struct contract_target contract_cl_copy;
/* Why the target cannot be tested here; NULL if it can. Only of the OpenCL targets, and the lab's. */
const char *contract_cl_missing(const struct contract_target *target);
const char *contract_iommu_missing(const struct contract_target *target);

extern const struct contract_target contract_rdma_pinned;
/* Why it cannot be tested here; NULL: it can. */
const char *contract_rdma_missing(void);

/* The one under test, and what capabilities.tsv lists for it. */
extern const struct contract_target *contract_target;
extern uint32_t contract_caps;
/* Run over an evictable morsel, in a pool that has somewhere to evict to. */
extern bool contract_evictable;

#define CONTRACT_PAGES 512u

struct contract {
	struct morsel_pool *pool;
	int fd;		       /* of the pool: the truth is read through it */
	struct morsel *morsel; /* CONTRACT_PAGES pages of known content */
	uint64_t random;
};

int contract_set_up(void **state);
int contract_tear_down(void **state);
/* The first thing in a child: from then on contract_target is what works there. */
void contract_child(void);
/* The flags of a morsel in this run. */
uint32_t contract_flags(uint32_t flags);
struct morsel_view *contract_open(struct morsel *morsel, uint32_t access);

/* The morsel's bytes, by way of its runs and the pool's file: what every view must show. */
void contract_truth(const struct contract *c, struct morsel *morsel, uint64_t offset, void *buffer,
		    uint64_t bytes);
/* Under a grant: asserts that the view shows the truth; writes bytes made from seed. */
void contract_check(const struct contract *c, struct morsel_view *view, uint64_t base,
		    uint64_t offset, uint64_t bytes);
void contract_write(struct morsel_view *view, uint64_t offset, uint64_t bytes, uint64_t seed);

/* promises.c: one function per promise, in the order of architecture.md. */
void contract_one_truth(void **state);
void contract_invalidate(void **state);
void contract_random(void **state);
void contract_coherent(void **state);
void contract_no_early_reuse(void **state);
void contract_cut_and_grown(void **state);
void contract_nothing_lost(void **state);
void contract_grants_hold(void **state);
void contract_lazy(void **state);
void contract_grow(void **state);
void contract_rights(void **state);
void contract_position(void **state);
void contract_threads(void **state);
void contract_destroy_any_time(void **state);
void contract_says_no(void **state);

/* evict.c: what evictable morsels promise beside that. */
void contract_evicted_comes_back(void **state);
void contract_restored_write(void **state);
void contract_gap_in_huge(void **state);
void contract_pinned_stays(void **state);
void contract_told_before(void **state);
void contract_evict_random(void **state);
void contract_evict_threads(void **state);
void contract_stopped_process(void **state);

#endif
