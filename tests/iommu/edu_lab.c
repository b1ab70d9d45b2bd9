/*
 * The edu driver on QEMU's device: numbers, interrupts, and bytes both ways through views of
 *morsels of every shape. Runs in the lab:
 *
 *	iommu_edu_lab type1|iommufd [unplug]
 *
 * Without an IOMMU and an edu bound to vfio-pci it is skipped.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <morsel/edu.h>
#include <morsel/swap.h>

#include "core/view_support.h"
#include "support/counts.h"

static uint32_t kind;
static char bdf[MORSEL_IOMMU_BDF_BYTES];

#define must(call)                                                      \
	do {                                                            \
		int must_rc = (call);                                   \
		if (must_rc)                                            \
			fail_msg("%d: %s", must_rc, morsel_errormsg()); \
	} while (0)

struct lab {
	struct morsel_pool *pool;
	struct morsel_device *device;
	struct morsel_edu *edu;
};

static int find(void *ctx, const struct morsel_iommu_function *function)
{
	if (function->vendor != 0x1234 || function->device != 0x11e8 ||
	    strcmp(function->driver, "vfio-pci"))
		return 0;
	memcpy(ctx, function->bdf, sizeof(function->bdf));
	return 1;
}

static int set_up(void **state)
{
	struct morsel_iommu_opts opts = {.size = sizeof(opts), .kind = kind};
	struct morsel_edu_opts edu = {.size = sizeof(edu), .dma_mask = 0x7fffffffffff};
	struct lab *lab = calloc(1, sizeof(*lab));

	lab->pool = support_pool();
	must(morsel_iommu_open(bdf, &opts, &lab->device));
	must(morsel_edu_open(lab->device, &edu, &lab->edu));
	*state = lab;
	return 0;
}

static int tear_down(void **state)
{
	struct lab *lab = *state;

	morsel_edu_close(lab->edu);
	must(morsel_iommu_close(lab->device));
	must(morsel_pool_close(lab->pool));
	free(lab);
	return 0;
}

static void it_computes(void **state)
{
	struct lab *lab = *state;
	uint32_t result, wanted = 1;

	assert_int_equal(morsel_edu_identify(lab->edu) & 0xffff, 0x00ed);
	for (uint32_t n = 1; n <= 20; n++) {
		wanted *= n;
		must(morsel_edu_factorial(lab->edu, n, &result));
		assert_int_equal(result, wanted);
	}
}

static void it_computes_without_interrupts(void **state)
{
	struct lab *lab = *state;
	struct morsel_edu_opts opts = {.size = sizeof(opts), .flags = MORSEL_EDU_POLLED};
	uint32_t result;

	morsel_edu_close(lab->edu);
	must(morsel_edu_open(lab->device, &opts, &lab->edu));
	must(morsel_edu_factorial(lab->edu, 6, &result));
	assert_int_equal(result, 720);
}

/* Random pieces through the device's buffer, against a shadow; evicted between where that can be.
 */
static void move(struct lab *lab, uint32_t flags, uint32_t pages, uint64_t seed)
{
	struct morsel *morsel = support_morsel(lab->pool, "moved", 4 * MIB, flags, pages);
	struct morsel_view *view, *cpu;
	unsigned char *shadow = malloc(4 * MIB);
	uint64_t random = seed, evicted = 0;

	must(morsel_map(morsel, NULL, &cpu));
	must(morsel_iommu_view(morsel, lab->device, NULL, &view));
	for (uint64_t i = 0; i < 4 * MIB; i++)
		shadow[i] = (unsigned char)test_random(&random);
	memcpy(morsel_addr(cpu), shadow, 4 * MIB);
	for (unsigned i = 0; i < COUNT_EDU_LAB_MOVES; i++) {
		uint32_t bytes = (uint32_t)(1 + test_random(&random) % 4096);
		uint64_t from = test_random(&random) % (4 * MIB - bytes);
		uint64_t to = test_random(&random) % (4 * MIB - bytes);

		if (flags & MORSEL_EVICTABLE)
			evicted += !morsel_advise(morsel, from / PAGE * PAGE, PAGE,
						  MORSEL_ADVICE_EVICT);
		must(morsel_edu_to_device(lab->edu, view, from, 0, bytes));
		must(morsel_edu_from_device(lab->edu, view, to, 0, bytes));
		memmove(shadow + to, shadow + from, bytes);
	}
	assert_memory_equal(morsel_addr(cpu), shadow, 4 * MIB);
	if (flags & MORSEL_EVICTABLE)
		assert_true(evicted > 0);
	free(shadow);
	morsel_view_destroy(view);
	morsel_view_destroy(cpu);
	must(morsel_close(morsel));
	must(morsel_unlink(lab->pool, "moved"));
}

/* Where the kernel's userfaultfd lacks write protection nothing is evicted. */
static bool can_evict(struct lab *lab)
{
	struct morsel *morsel =
		support_morsel(lab->pool, "try", 4096, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	struct morsel_view *view;
	int rc = morsel_map(morsel, NULL, &view);

	if (!rc)
		morsel_view_destroy(view);
	else
		printf("without evictions: %s\n", morsel_errormsg());
	must(morsel_close(morsel));
	must(morsel_unlink(lab->pool, "try"));
	return !rc;
}

static void bytes_go_both_ways(void **state)
{
	struct lab *lab = *state;
	struct morsel_swap_opts swap = {.size = sizeof(swap),
					.path = "/tmp/edu-lab.swap",
					.bytes = 16 * MIB,
					.flags = MORSEL_SWAP_PLAIN_IO | MORSEL_SWAP_OVERWRITE};
	uint64_t seed = test_seed();
	unsigned id;

	must(morsel_swap_add(lab->pool, &swap, &id));
	move(lab, MORSEL_SCATTERED, MORSEL_PAGES_4K, seed);
	move(lab, 0, MORSEL_PAGES_2M, seed + 1);
	move(lab, 0, MORSEL_PAGES_MIXED, seed + 2);
	if (can_evict(lab))
		move(lab, MORSEL_EVICTABLE, MORSEL_PAGES_4K, seed + 3);
	must(morsel_swap_remove(lab->pool, id, 0));
}

static void what_cannot_be_is_refused(void **state)
{
	struct lab *lab = *state;
	struct morsel *morsel = support_morsel(lab->pool, "m", 1 * MIB, 0, MORSEL_PAGES_4K);
	struct morsel_iommu_view_opts only_read = {.size = sizeof(only_read),
						   .access = MORSEL_READ};
	struct morsel_edu_opts narrow = {.size = sizeof(narrow)};
	struct morsel_view *view;

	must(morsel_iommu_view(morsel, lab->device, &only_read, &view));
	assert_int_equal(morsel_edu_to_device(lab->edu, view, 0, 4000, 97), -ERANGE);
	must(morsel_edu_to_device(lab->edu, view, 0, 4000, 96));
	assert_true(morsel_edu_from_device(lab->edu, view, 0, 0, 64) < 0);
	morsel_view_destroy(view);
	/* With 28 bits, what lies above is refused before the device is asked, and below works. */
	morsel_edu_close(lab->edu);
	must(morsel_edu_open(lab->device, &narrow, &lab->edu));
	assert_int_equal(morsel_edu_transfer(lab->edu, 1, 0x10000000, 0, 64), -ERANGE);
	only_read.iova_last = 0xfffffff;
	must(morsel_iommu_view(morsel, lab->device, &only_read, &view));
	must(morsel_edu_to_device(lab->edu, view, 0, 0, 64));
	morsel_view_destroy(view);
	must(morsel_close(morsel));
}

static void it_goes_while_it_works(void **state)
{
	struct lab *lab = *state;
	struct morsel *morsel = support_morsel(lab->pool, "m", 1 * MIB, 0, MORSEL_PAGES_4K);
	time_t end = time(NULL) + 60;
	struct morsel_view *view;
	uint32_t result;
	int rc = 0;

	must(morsel_iommu_view(morsel, lab->device, NULL, &view));
	must(morsel_edu_to_device(lab->edu, view, 0, 0, 64));
	assert_int_equal(system("lab unplug edu0"), 0);
	while (!rc && time(NULL) < end)
		rc = morsel_edu_to_device(lab->edu, view, 0, 0, 64);
	printf("then %d: %s\n", rc, morsel_errormsg());
	assert_int_equal(rc, -ENODEV);
	assert_int_equal(morsel_edu_factorial(lab->edu, 3, &result), -ENODEV);
	morsel_view_destroy(view);
	must(morsel_close(morsel));
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(it_computes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(it_computes_without_interrupts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(bytes_go_both_ways, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_cannot_be_is_refused, set_up, tear_down),
	};
	const struct CMUnitTest unplug[] = {
		cmocka_unit_test_setup_teardown(it_goes_while_it_works, set_up, tear_down),
	};

	const struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};

	setrlimit(RLIMIT_MEMLOCK, &all);
	kind = argc > 1 && !strcmp(argv[1], "iommufd") ? MORSEL_IOMMU_IOMMUFD : MORSEL_IOMMU_TYPE1;
	if (morsel_iommu_list(find, bdf) != 1) {
		fprintf(stderr, "skipped: no edu device is bound to vfio-pci here\n");
		return 77;
	}
	if (argc > 2 && !strcmp(argv[2], "unplug"))
		return cmocka_run_group_tests(unplug, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
