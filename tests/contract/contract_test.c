/*
 * The contract of a view, for one target: contract_test TARGET CAPABILITIES.TSV [evictable]. The
 * tests are in promises.c, and evict.c for evictable morsels; here is what they share.
 */
#include "contract/contract.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <morsel/swap.h>

#include "base/base.h"
#include "support/counts.h"

const struct contract_target *contract_target;
uint32_t contract_caps;
bool contract_evictable;

static uint64_t seed;

static const struct contract_target *const targets[] = {
	&contract_cpu_pooled,
	&contract_cpu_stitched,
	&contract_software,
	&contract_software_copying,
#ifdef CONTRACT_IOMMU
	&contract_iommu_type1,
	&contract_iommu_iommufd,
#endif
#ifdef CONTRACT_RDMA
	&contract_rdma_pinned,
#endif
#ifdef CONTRACT_CL
	&contract_cl_system,
	&contract_cl_host_pointer,
	&contract_cl_svm,
	&contract_cl_copy,
#endif
};

/* ---- the table of capabilities ---- */

static uint32_t cap_of(const char *name)
{
	static const struct {
		const char *name;
		uint32_t cap;
	} caps[] = {
#define CAP(name) {#name, MORSEL_CAP_##name}
		CAP(ADDRESS),	CAP(FREE_USE), CAP(COHERENT), CAP(SCATTER), CAP(HOLES),
		CAP(FAULTABLE), CAP(DIRTY),    CAP(EXPORT),   CAP(PINS),
	};

	for (size_t i = 0; i < mrs_array_length(caps); i++)
		if (!strcmp(caps[i].name, name))
			return caps[i].cap;
	fprintf(stderr, "no capability is called %s\n", name);
	exit(2);
}

/* What the table lists for the target in this environment; exits if it lists nothing. */
static uint32_t listed_caps(const char *path, const char *name)
{
	const char *environment = getenv("MORSEL_ENVIRONMENT");
	FILE *file = fopen(path, "r");
	char line[512];

	environment = environment ? environment : "host";
	while (file && fgets(line, sizeof(line), file)) {
		char *rest = line, *where, *who, *cap;
		uint32_t caps = 0;

		line[strcspn(line, "\n")] = 0;
		where = strsep(&rest, "\t");
		who = rest ? strsep(&rest, "\t") : "";
		if (line[0] == '#' || strcmp(where, environment) || strcmp(who, name))
			continue;
		while (rest && (cap = strsep(&rest, " ")))
			caps |= *cap ? cap_of(cap) : 0;
		fclose(file);
		return caps;
	}
	fprintf(stderr, "%s lists no capabilities of %s in the environment %s\n", path, name,
		environment);
	exit(2);
}

/* ---- what the tests share ---- */

void contract_child(void)
{
	if (contract_target->in_child)
		contract_target = contract_target->in_child;
}

uint32_t contract_flags(uint32_t flags)
{
	return flags | (contract_evictable ? MORSEL_EVICTABLE : 0);
}

static void swap_path(char *path, size_t bytes)
{
	const char *directory = getenv("TMPDIR");

	snprintf(path, bytes, "%.60s/morsel-contract-%d-swap", directory ? directory : "/tmp",
		 (int)getpid());
}

static void add_swap(struct morsel_pool *pool)
{
	char path[128];
	struct morsel_swap_opts opts = {
		.size = sizeof(opts),
		.path = path,
		.bytes = 16 * MIB,
		.flags = MORSEL_SWAP_PLAIN_IO | MORSEL_SWAP_SPARSE | MORSEL_SWAP_OVERWRITE,
	};

	swap_path(path, sizeof(path));
	if (morsel_swap_add(pool, &opts, NULL))
		fail_msg("%s", morsel_errormsg());
}

static void remove_swap(void)
{
	char path[128];

	swap_path(path, sizeof(path));
	unlink(path);
}

int contract_set_up(void **state)
{
	struct contract *c = calloc(1, sizeof(*c));

	c->pool = support_pool();
	if (contract_evictable)
		add_swap(c->pool);
	c->fd = dup(morsel_pool_fd(c->pool));
	c->morsel = support_morsel(c->pool, "morsel", CONTRACT_PAGES * PAGE,
				   contract_flags(contract_target->flags),
				   contract_evictable ? MORSEL_PAGES_4K : contract_target->pages);
	c->random = seed;
	support_number(c->morsel, c->pool, 7);
	*state = c;
	return 0;
}

int contract_tear_down(void **state)
{
	struct contract *c = *state;

	assert_int_equal(morsel_close(c->morsel), 0);
	assert_int_equal(morsel_pool_close(c->pool), 0);
	if (contract_evictable)
		remove_swap();
	close(c->fd);
	free(c);
	return 0;
}

struct morsel_view *contract_open(struct morsel *morsel, uint32_t access)
{
	struct morsel_map_opts opts = {.size = sizeof(opts), .access = access};
	struct morsel_view *view;

	if (contract_target->open(morsel, &opts, &view))
		fail_msg("%s", morsel_errormsg());
	return view;
}

struct truth {
	int fd;
	uint64_t offset;
	char *buffer;
};

static int read_run(void *ctx, const struct morsel_run *run)
{
	struct truth *t = ctx;

	if (run->resident)
		assert_int_equal(pread(t->fd, t->buffer + (run->offset - t->offset), run->bytes,
				       (off_t)(run->frame * PAGE)),
				 run->bytes);
	else
		memset(t->buffer + (run->offset - t->offset), 0, run->bytes);
	return 0;
}

void contract_truth(const struct contract *c, struct morsel *morsel, uint64_t offset, void *buffer,
		    uint64_t bytes)
{
	uint64_t first = offset / PAGE * PAGE;
	uint64_t end = (offset + bytes + PAGE - 1) / PAGE * PAGE;
	struct truth t = {.fd = c->fd, .offset = first, .buffer = malloc(end - first)};

	assert_non_null(t.buffer);
	assert_int_equal(morsel_runs(morsel, first, end - first, read_run, &t), 0);
	memcpy(buffer, t.buffer + (offset - first), bytes);
	free(t.buffer);
}

void contract_check(const struct contract *c, struct morsel_view *view, uint64_t base,
		    uint64_t offset, uint64_t bytes)
{
	char *want = malloc(bytes), *have = malloc(bytes);
	struct morsel_grant grant;
	int rc;

	assert_true(want && have);
	rc = morsel_acquire(view, offset, bytes, MORSEL_READ, &grant);

	if (rc)
		fail_msg("%d: %s", rc, morsel_errormsg());
	assert_int_equal(contract_target->peek(view, offset, have, bytes), 0);
	contract_truth(c, c->morsel, base + offset, want, bytes);
	assert_memory_equal(want, have, bytes);
	morsel_release(&grant);
	free(want);
	free(have);
}

void contract_write(struct morsel_view *view, uint64_t offset, uint64_t bytes, uint64_t value)
{
	unsigned char *buffer = malloc(bytes);
	struct morsel_grant grant;
	int rc;

	assert_non_null(buffer);
	for (uint64_t i = 0; i < bytes; i++)
		buffer[i] = (unsigned char)(test_random(&value) >> 32);
	rc = morsel_acquire(view, offset, bytes, MORSEL_WRITE, &grant);
	if (rc)
		fail_msg("%d: %s", rc, morsel_errormsg());
	assert_int_equal(contract_target->poke(view, offset, buffer, bytes), 0);
	morsel_release(&grant);
	free(buffer);
}

int main(int argc, char **argv)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, contract_set_up, contract_tear_down)
	const struct CMUnitTest evict[] = {
		TEST(contract_evicted_comes_back), TEST(contract_restored_write),
		TEST(contract_gap_in_huge),	   TEST(contract_pinned_stays),
		TEST(contract_told_before),	   TEST(contract_evict_random),
		TEST(contract_evict_threads),	   TEST(contract_stopped_process),
	};
	const struct CMUnitTest tests[] = {
		TEST(contract_one_truth),      TEST(contract_invalidate),
		TEST(contract_random),	       TEST(contract_coherent),
		TEST(contract_no_early_reuse), TEST(contract_cut_and_grown),
		TEST(contract_nothing_lost),   TEST(contract_grants_hold),
		TEST(contract_lazy),	       TEST(contract_grow),
		TEST(contract_rights),	       TEST(contract_position),
		TEST(contract_threads),	       TEST(contract_destroy_any_time),
		TEST(contract_says_no),
	};

	for (size_t i = 0; argc >= 3 && i < mrs_array_length(targets); i++)
		if (!strcmp(targets[i]->name, argv[1]))
			contract_target = targets[i];
	if (!contract_target) {
		fprintf(stderr, "usage: contract_test TARGET CAPABILITIES.TSV [evictable]\n");
		return 2;
	}
#ifdef CONTRACT_IOMMU_LAB
	if (contract_iommu_missing(contract_target)) {
		fprintf(stderr, "skipped: %s\n", contract_iommu_missing(contract_target));
		return 77;
	}
#endif
#ifdef CONTRACT_RDMA
	if (contract_target == &contract_rdma_pinned && contract_rdma_missing()) {
		fprintf(stderr, "skipped: %s\n", contract_rdma_missing());
		return 77;
	}
#endif
#ifdef CONTRACT_CL
	if (contract_cl_missing(contract_target)) {
		fprintf(stderr, "skipped: %s\n", contract_cl_missing(contract_target));
		return 77;
	}
#endif
	contract_caps = listed_caps(argv[2], contract_target->name);
	contract_evictable = argc == 4 && !strcmp(argv[3], "evictable");
	seed = test_seed();
	if (cmocka_run_group_tests(tests, NULL, NULL))
		return 1;
	return contract_evictable ? cmocka_run_group_tests(evict, NULL, NULL) : 0;
}
