/*
 * How much each randomised test does: the reduced count of tools/check, and the full count of
 * tools/check --full (MORSEL_FULL=1). All counts stand here, readable at a glance; a test prints
 * the count and the seed it ran with.
 */
#ifndef TESTS_SUPPORT_COUNTS_H
#define TESTS_SUPPORT_COUNTS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline int test_full(void)
{
	const char *text = getenv("MORSEL_FULL");

	return text && !strcmp(text, "1");
}

#define MRS_COUNT(reduced, full) (test_full() ? (full) : (reduced))

/* The seed of this run, printed once per call so that a failure can be repeated. */
static inline uint64_t test_seed(void)
{
	const char *text = getenv("MORSEL_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : 1;

	printf("seed %llu, %s counts\n", (unsigned long long)seed, test_full() ? "full" : "reduced");
	return seed;
}

/* splitmix64 (Steele, Lea and Flood, 2014): a small generator whose state is one word. */
static inline uint64_t test_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/*                                        reduced      full */
#define COUNT_FRAME_MODEL_STEPS MRS_COUNT(200000, 5000000)
#define COUNT_FRAME_STRESS_OPS	MRS_COUNT(300000, 10000000)
#define COUNT_FRAME_DEATH_RUNS	MRS_COUNT(3, 60)
#define COUNT_FRAME_HOSTILE	MRS_COUNT(60, 3000)
#define COUNT_DIR_MODEL_STEPS	MRS_COUNT(50000, 1000000)
#define COUNT_DIR_NAMES		MRS_COUNT(100000, 1000000)
#define COUNT_DIR_STRESS_OPS	MRS_COUNT(300000, 10000000)
#define COUNT_DIR_HOSTILE	MRS_COUNT(3000, 100000)
#define COUNT_CONTRACT_STEPS	MRS_COUNT(1500, 50000)
#define COUNT_CONTRACT_GRANTS	MRS_COUNT(3000, 100000)
#define COUNT_TABLE_MODEL_STEPS MRS_COUNT(50000, 1000000)
#define COUNT_TABLE_HOSTILE	MRS_COUNT(1000, 100000)
#define COUNT_TABLE_JOINS	MRS_COUNT(300, 20000)
#define COUNT_TABLE_RACES	MRS_COUNT(100, 3000)
#define COUNT_MODEL_MUTATIONS MRS_COUNT(20000, 500000)
#define COUNT_MODEL_LAYOUTS	MRS_COUNT(500, 10000)
#define COUNT_POOL_REAPERS	MRS_COUNT(60, 600)
#define COUNT_RETARGET_STEPS	MRS_COUNT(3000, 100000)
#define COUNT_RETARGET_RACES	MRS_COUNT(4000, 200000)
#define COUNT_RETARGET_DEATHS	MRS_COUNT(16, 400)
#define COUNT_RETARGET_REAPER_DEATHS MRS_COUNT(4, 100)
#define COUNT_FAULT_EVICTIONS	MRS_COUNT(3000, 100000)
#define COUNT_DUMP_SHAPES	MRS_COUNT(8, 300)
#define COUNT_CLONE_MODEL_STEPS MRS_COUNT(4000, 200000)
#define COUNT_CLONE_DEATHS MRS_COUNT(2, 400)
#define COUNT_CLONE_REAPER_DEATHS MRS_COUNT(1, 40)
#define COUNT_CLONE_CUTS MRS_COUNT(30, 1000)
#define COUNT_POOL_KILLS	MRS_COUNT(200, 2000)
#define COUNT_KILLS		MRS_COUNT(200, 2000)
#define COUNT_OBJECT_NAME_STEPS MRS_COUNT(5000, 100000)
#define COUNT_OBJECT_THREAD_STEPS MRS_COUNT(5000, 200000)
#define COUNT_OBJECT_OPENS	MRS_COUNT(1000000, 10000000)
#define COUNT_OBJECT_DEATHS	MRS_COUNT(60, 100000)
#define COUNT_OBJECT_REAPER_DEATHS MRS_COUNT(10, 200)
#define COUNT_REGISTRY_STEPS	MRS_COUNT(20000, 500000)
#define COUNT_REGISTRY_CROSSINGS MRS_COUNT(3000, 100000)
#define COUNT_MAIL_PARTIES	MRS_COUNT(60, 200)
#define COUNT_EVICT_ROUNDS	MRS_COUNT(2000, 50000)
#define COUNT_BUDGET_ROUNDS	MRS_COUNT(2, 50)
#define COUNT_PROPERTY_STEPS MRS_COUNT(100000, 3000000)
#define COUNT_PROPERTY_ROUNDS MRS_COUNT(3000, 20000)
#define COUNT_TORTURE_SECONDS	MRS_COUNT(20, 3600)
#define COUNT_TORTURE_ACTOR_SECONDS MRS_COUNT(20, 120)
#define COUNT_RDMA_STEPS	MRS_COUNT(300, 20000)
#define COUNT_PARSE_SIZES	MRS_COUNT(20000, 1000000)
#define COUNT_MOVES_WRITTEN	MRS_COUNT(4000, 40000)
#define COUNT_MOVE_DEATHS	MRS_COUNT(40, 2000)
#define COUNT_MOVE_PROBES	120u
#define COUNT_COMPACT_PLANS	MRS_COUNT(3000, 100000)
#define COUNT_PAGER_ROUNDS	MRS_COUNT(3000, 100000)
#define COUNT_EVICT_PEERS	MRS_COUNT(500, 20000)

#define COUNT_NVME_POINTERS	MRS_COUNT(4000, 1000000)
#define COUNT_NVME_COMMANDS	MRS_COUNT(500, 100000)
#define COUNT_NVME_LAB_MOVES	MRS_COUNT(1000, 10000)
#define COUNT_EDU_LAB_MOVES	MRS_COUNT(6, 60)

#endif
