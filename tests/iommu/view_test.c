/*
 * Devices, domains and views over a kernel in software: how few entries, who is refused and with
 * which words, what is left after every failure.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/view_support.h"
#include "iommu/fake.h"
#include "iommu/internal.h"
#include "support/counts.h"

struct room {
	struct morsel_pool *pool;
	struct morsel_device *device;
};

#define must(call)                                                      \
	do {                                                            \
		int must_rc = (call);                                   \
		if (must_rc)                                            \
			fail_msg("%d: %s", must_rc, morsel_errormsg()); \
	} while (0)

#define refused(call, error, words)                                           \
	do {                                                                  \
		assert_int_equal((call), (error));                            \
		if (!strstr(morsel_errormsg(), (words)))                      \
			fail_msg("no %s in: %s", (words), morsel_errormsg()); \
	} while (0)

static int open_kind(struct morsel_device **device, uint32_t kind)
{
	struct morsel_iommu_opts opts = {.size = sizeof(opts), .kind = kind};

	return morsel_iommu_open(FAKE_BDF, &opts, device);
}

static int set_up_with(void **state, const struct fake_rules *rules, uint32_t kind)
{
	struct room *room = calloc(1, sizeof(*room));

	fake_start(rules);
	room->pool = support_pool();
	must(open_kind(&room->device, kind));
	*state = room;
	return 0;
}

static int type1(void **state)
{
	return set_up_with(state, NULL, MORSEL_IOMMU_TYPE1);
}

static int few_entries(void **state)
{
	const struct fake_rules rules = {.entries_max = 40};

	return set_up_with(state, &rules, MORSEL_IOMMU_TYPE1);
}

static int by_address(void **state)
{
	return set_up_with(state, NULL, MORSEL_IOMMU_IOMMUFD);
}

static int with_dirty(void **state)
{
	const struct fake_rules rules = {.dirty = true};

	return set_up_with(state, &rules, MORSEL_IOMMU_AUTO);
}

static int nothing_open(void **state)
{
	fake_start(NULL);
	*state = NULL;
	return 0;
}

static int tear_down(void **state)
{
	struct room *room = *state;

	if (room) {
		must(morsel_iommu_close(room->device));
		must(morsel_pool_close(room->pool));
		assert_int_equal(fake_counts().mappings, 0);
		assert_int_equal(mrs_memory_pinned_process(), 0);
		free(room);
	}
	fake_stop();
	return 0;
}

static struct morsel_domain *domain_of(const struct room *room)
{
	return morsel_iommu_domain(room->device);
}

static struct morsel_view *view_of(const struct room *room, struct morsel *morsel, uint64_t granule)
{
	struct morsel_iommu_view_opts opts = {.size = sizeof(opts), .granule_bytes = granule};
	struct morsel_view *view;

	must(morsel_iommu_view(morsel, room->device, &opts, &view));
	return view;
}

/* ---- entries ---- */

struct expected {
	uint64_t granule;
	uint64_t end_offset, end_frame; /* of what came before */
	uint64_t entries;
};

/* As few as there can be: a new one where frames or granules end. */
static int expect_run(void *ctx, const struct morsel_run *run)
{
	struct expected *e = ctx;

	for (uint64_t at = 0; at < run->bytes; at += PAGE) {
		uint64_t offset = run->offset + at, frame = run->frame + at / PAGE;
		bool joins = e->entries && offset == e->end_offset && frame == e->end_frame &&
			     (!e->granule || offset % e->granule);

		e->entries += !joins;
		e->end_offset = offset + PAGE;
		e->end_frame = frame + 1;
	}
	return 0;
}

static int check_entry(void *ctx, const struct morsel_iommu_entry *entry)
{
	assert_int_equal(fake_mapping_at(entry->iova), entry->bytes);
	assert_true(entry->mapped);
	assert_int_equal(entry->held, 0);
	++*(uint64_t *)ctx;
	return 0;
}

static void coalesces(void **state)
{
	static const uint64_t granules[] = {0, 4096, 65536, 2 * MIB, 64 * MIB};
	static const uint32_t flags[] = {0, MORSEL_SCATTERED, MORSEL_CONTIGUOUS};
	struct room *room = *state;

	for (unsigned i = 0; i < 15; i++) {
		struct morsel *morsel =
			support_morsel(room->pool, "m", 5 * MIB + i * 3 * PAGE, flags[i % 3],
				       flags[i % 3] == MORSEL_SCATTERED ? MORSEL_PAGES_4K : 0);
		struct expected e = {.granule = granules[i / 3]};
		struct morsel_view *view = view_of(room, morsel, e.granule);
		struct morsel_iommu_view_info info = {.size = sizeof(info)};
		uint64_t seen = 0;

		must(morsel_runs(morsel, 0, 5 * MIB + i * 3 * PAGE, expect_run, &e));
		must(morsel_iommu_view_info(view, &info));
		assert_int_equal(info.entries, e.entries);
		must(morsel_iommu_entries(view, check_entry, &seen));
		assert_int_equal(seen, e.entries);
		assert_int_equal(fake_counts().mappings, e.entries);
		assert_int_equal(info.bytes_pinned, info.bytes);
		morsel_view_destroy(view);
		assert_int_equal(fake_counts().mappings, 0);
		must(morsel_unlink(room->pool, "m"));
		must(morsel_close(morsel));
	}
}

/* One call takes away what many entries translate. */
static void one_call_takes_all(void **state)
{
	struct room *room = *state;
	struct morsel *morsel =
		support_morsel(room->pool, "m", 2 * MIB, MORSEL_SCATTERED, MORSEL_PAGES_4K);
	struct morsel_view *view = view_of(room, morsel, 4096);
	uint64_t unmaps = fake_counts().unmaps;

	must(morsel_view_invalidate(view, 10 * PAGE, 300 * PAGE));
	assert_int_equal(fake_counts().unmaps, unmaps + 1);
	assert_int_equal(fake_counts().mappings, 212);
	morsel_view_destroy(view);
	assert_int_equal(fake_counts().unmaps, unmaps + 2);
	must(morsel_close(morsel));
}

/* IOVA and frame agree modulo 2 MiB, so that the IOMMU can use such pages. */
static int check_phase(void *ctx, const struct morsel_iommu_entry *entry)
{
	if (entry->bytes >= 2 * MIB)
		assert_int_equal((entry->iova - entry->frame * PAGE) % (2 * MIB), 0);
	return 0;
}

static void phase(void **state)
{
	struct room *room = *state;
	struct morsel *small = support_morsel(room->pool, "s", 3 * PAGE, 0, MORSEL_PAGES_4K);
	struct morsel *morsel = support_morsel(room->pool, "m", 7 * MIB, MORSEL_CONTIGUOUS, 0);
	struct morsel_view *before = view_of(room, small, 0), *view = view_of(room, morsel, 0);

	must(morsel_iommu_entries(view, check_phase, NULL));
	morsel_view_destroy(view);
	morsel_view_destroy(before);
	must(morsel_close(morsel));
	must(morsel_close(small));
}

/* ---- cutting ---- */

/*
 * Random invalidations and grants beside an array of what is translated: a part that goes leaves
 * its neighbours, a held one stays, and one that would tear a held entry is refused.
 */
static void cuts(void **state)
{
	struct room *room = *state;
	struct morsel *morsel = support_morsel(room->pool, "m", 256 * PAGE, MORSEL_CONTIGUOUS, 0);
	struct morsel_view *view = view_of(room, morsel, 16 * PAGE);
	uint64_t iova = morsel_iommu_iova(view), random = test_seed(), steps = COUNT_DIR_HOSTILE;
	uint64_t refusals = 0;
	bool there[256];
	char byte;

	memset(there, true, sizeof(there));
	for (uint64_t i = 0; i < steps; i++) {
		uint64_t r = test_random(&random), page = r % 256;
		uint64_t pages = 1 + (r >> 16) % mrs_min(256 - page, 24);
		uint64_t held = (r >> 32) % 256;
		struct morsel_grant grant;
		int rc;

		must(morsel_acquire(view, held * PAGE, PAGE, MORSEL_READ, &grant));
		there[held] = true;
		rc = morsel_view_invalidate(view, page * PAGE, pages * PAGE);
		if (rc) {
			assert_int_equal(rc, -EBUSY);
			refusals++;
		} else {
			assert_false(held >= page && held < page + pages);
			memset(&there[page], false, pages);
		}
		for (unsigned k = 0; k < 256; k++)
			assert_int_equal(fake_dma(iova + k * PAGE + 5, &byte, NULL, 1),
					 there[k] ? 0 : -EFAULT);
		morsel_release(&grant);
	}
	printf("%llu of %llu were refused for a grant\n", (unsigned long long)refusals,
	       (unsigned long long)steps);
	assert_true(refusals > 0 && refusals < steps);
	morsel_view_destroy(view);
	must(morsel_close(morsel));
}

static void torn_grant_is_named(void **state)
{
	struct room *room = *state;
	struct morsel *morsel = support_morsel(room->pool, "m", 64 * PAGE, MORSEL_CONTIGUOUS, 0);
	struct morsel_view *view = view_of(room, morsel, 0);
	struct morsel_grant grant;

	must(morsel_acquire(view, 10 * PAGE, PAGE, MORSEL_READ, &grant));
	refused(morsel_view_invalidate(view, 40 * PAGE, PAGE), -EBUSY, "granule");
	assert_int_equal(fake_counts().mappings, 1);
	morsel_release(&grant);
	must(morsel_view_invalidate(view, 40 * PAGE, PAGE));
	assert_int_equal(fake_counts().mappings, 2);
	morsel_view_destroy(view);
	must(morsel_close(morsel));
}

/* ---- limits ---- */

/* At the limit of entries what no grant holds makes room, and comes back when it is acquired. */
static void takes_back(void **state)
{
	struct room *room = *state;
	struct morsel *morsel[3];
	struct morsel_view *view[3];
	struct morsel_iommu_view_info info = {.size = sizeof(info)};
	struct morsel_grant grant[3];
	char byte;

	for (unsigned i = 0; i < 3; i++) {
		char name[] = {'a' + (char)i, 0};

		morsel[i] = support_morsel(room->pool, name, 20 * PAGE, MORSEL_SCATTERED,
					   MORSEL_PAGES_4K);
		view[i] = view_of(room, morsel[i], 4096);
	}
	assert_int_equal(fake_counts().mappings, 40);
	must(morsel_acquire(view[0], 0, 20 * PAGE, MORSEL_READ, &grant[0]));
	assert_int_equal(fake_counts().mappings, 40);
	for (unsigned k = 0; k < 20; k++)
		assert_int_equal(fake_dma(morsel_iommu_iova(view[0]) + k * PAGE, &byte, NULL, 1),
				 0);
	must(morsel_acquire(view[1], 0, 20 * PAGE, MORSEL_READ, &grant[1]));
	must(morsel_iommu_view_info(view[2], &info));
	assert_int_equal(info.entries, 0);
	refused(morsel_acquire(view[2], 0, PAGE, MORSEL_READ, &grant[2]), -ENOSPC, "at most 40");
	morsel_release(&grant[0]);
	must(morsel_acquire(view[2], 0, 20 * PAGE, MORSEL_READ, &grant[2]));
	morsel_release(&grant[1]);
	morsel_release(&grant[2]);
	for (unsigned i = 0; i < 3; i++) {
		morsel_view_destroy(view[i]);
		must(morsel_close(morsel[i]));
	}
}

/* A view that has more entries than there can be is refused, and nothing of it stays. */
static void too_many_entries(void **state)
{
	struct room *room = *state;
	struct morsel *morsel =
		support_morsel(room->pool, "m", 41 * PAGE, MORSEL_SCATTERED, MORSEL_PAGES_4K);
	struct morsel_iommu_domain_info info = {.size = sizeof(info)};
	struct morsel_iommu_view_opts opts = {.size = sizeof(opts), .granule_bytes = 4096};
	struct morsel_view *view;

	refused(morsel_iommu_view(morsel, room->device, &opts, &view), -ENOSPC, "at most 40");
	assert_int_equal(fake_counts().mappings, 0);
	must(morsel_iommu_domain_info(domain_of(room), &info));
	assert_int_equal(info.entries, 0);
	assert_int_equal(info.bytes_pinned, 0);
	assert_int_equal(info.views, 0);
	must(morsel_close(morsel));
}

static void memlock(void **state)
{
	struct room *room = *state;
	struct rlimit old, small = {16 * PAGE, 0};
	struct morsel *morsel = support_morsel(room->pool, "m", 17 * PAGE, 0, MORSEL_PAGES_4K);
	struct morsel_view *view;

	assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &old), 0);
	if (old.rlim_max < small.rlim_cur) {
		must(morsel_close(morsel));
		return;
	}
	small.rlim_max = old.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &small), 0);
	refused(morsel_iommu_view(morsel, room->device, NULL, &view), -ENOMEM, "69632 more");
	assert_int_equal(fake_counts().mappings, 0);
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &old), 0);
	must(morsel_close(morsel));
}

/* ---- where ---- */

static void where(void **state)
{
	struct room *room = *state;
	struct morsel *morsel = support_morsel(room->pool, "m", 16 * PAGE, 0, MORSEL_PAGES_4K);
	struct morsel_iommu_view_opts opts = {
		.size = sizeof(opts), .flags = MORSEL_IOMMU_FIXED, .iova = 0x40000};
	struct morsel_view *cpu, *view, *second;

	must(morsel_map(morsel, NULL, &cpu));
	must(morsel_iommu_view(morsel, room->device, &opts, &view));
	refused(morsel_iommu_view(morsel, room->device, &opts, &second), -EEXIST, "0x40000");
	opts.iova = 0xfedf8000;
	refused(morsel_iommu_view(morsel, room->device, &opts, &second), -ERANGE, "0xfedfffff");
	opts.iova = 0x80001;
	refused(morsel_iommu_view(morsel, room->device, &opts, &second), -EINVAL, "unaligned");
	opts = (struct morsel_iommu_view_opts){.size = sizeof(opts), .flags = MORSEL_IOMMU_SAME};
	refused(morsel_iommu_view(morsel, room->device, &opts, &second), -EINVAL, "CPU view");
	opts.cpu = cpu;
	opts.offset = PAGE;
	refused(morsel_iommu_view(morsel, room->device, &opts, &second), -EINVAL, "same range");
	opts.offset = 0;
	must(morsel_iommu_view(morsel, room->device, &opts, &second));
	assert_int_equal(morsel_iommu_iova(second), (uintptr_t)morsel_addr(cpu));
	morsel_view_destroy(second);
	opts = (struct morsel_iommu_view_opts){.size = sizeof(opts), .granule_bytes = 5000};
	refused(morsel_iommu_view(morsel, room->device, &opts, &second), -EINVAL, "granule");
	opts = (struct morsel_iommu_view_opts){.size = sizeof(opts), .iova_last = 0xffff};
	refused(morsel_iommu_view(morsel, room->device, &opts, &second), -EADDRNOTAVAIL, "0xffff");
	refused(morsel_iommu_entries(cpu, check_entry, NULL), -EINVAL, "not an IOMMU's");
	assert_int_equal(morsel_iommu_iova(cpu), 0);
	morsel_view_destroy(view);
	morsel_view_destroy(cpu);
	must(morsel_close(morsel));
}

/* ---- memory that is given back ---- */

static uint64_t resident(struct morsel_pool *pool)
{
	struct morsel_pool_stat stat = {.size = sizeof(stat)};

	must(morsel_pool_stat(pool, &stat));
	return stat.bytes_resident;
}

/* While a device has pages pinned their content is given up where they are: it would keep the old.
 */
static void freed_in_place(void **state)
{
	struct room *room = *state;
	struct morsel *morsel = support_morsel(room->pool, "m", 4 * MIB, 0, MORSEL_PAGES_4K);
	struct morsel_view *view = view_of(room, morsel, 0);
	uint64_t before = resident(room->pool), word = 1;

	support_number(morsel, room->pool, 3);
	must(morsel_advise(morsel, 0, 4 * MIB, MORSEL_ADVICE_FREE));
	assert_int_equal(resident(room->pool), before);
	for (unsigned page = 0; page < 1024; page++) {
		assert_int_equal(fake_dma(morsel_iommu_iova(view) + page * PAGE, &word, NULL, 8),
				 0);
		assert_int_equal(word, 0);
	}
	morsel_view_destroy(view);
	must(morsel_advise(morsel, 0, 4 * MIB, MORSEL_ADVICE_FREE));
	assert_true(resident(room->pool) <= before - 4 * MIB);
	must(morsel_close(morsel));
}

/* ---- dirty tracking ---- */

static int mark_dirty(void *ctx, uint64_t offset, uint64_t bytes)
{
	for (uint64_t at = offset; at < offset + bytes; at += PAGE)
		((bool *)ctx)[at / PAGE] = true;
	return 0;
}

static void dirty(void **state)
{
	struct room *room = *state;
	struct morsel *morsel = support_morsel(room->pool, "m", 600 * PAGE, MORSEL_CONTIGUOUS, 0);
	struct morsel_view *view = view_of(room, morsel, 0);
	uint64_t iova = morsel_iommu_iova(view), random = test_seed();
	bool want[600] = {false}, have[600] = {false};

	assert_int_equal(fake_dma(iova, NULL, "x", 1), 0);
	must(morsel_view_dirty_start(view));
	for (unsigned i = 0; i < 50; i++) {
		uint64_t page = test_random(&random) % 600;

		assert_int_equal(fake_dma(iova + page * PAGE + i, NULL, "x", 1), 0);
		want[page] = true;
	}
	must(morsel_view_dirty_collect(view, 0, 600 * PAGE, mark_dirty, have));
	assert_memory_equal(want, have, sizeof(want));
	memset(have, 0, sizeof(have));
	must(morsel_view_dirty_collect(view, 0, 600 * PAGE, mark_dirty, have));
	for (unsigned i = 0; i < 600; i++)
		assert_false(have[i]);
	must(morsel_view_dirty_stop(view));
	morsel_view_destroy(view);
	must(morsel_close(morsel));
}

/* ---- opening: who is refused, and with which words ---- */

static void refusals(void **state)
{
	struct morsel_iommu_opts opts = {.size = sizeof(opts), .kind = MORSEL_IOMMU_TYPE1};
	struct morsel_device *device;

	refused(morsel_iommu_open("1:2", &opts, &device), -EINVAL, "PCI address");
	refused(morsel_iommu_open(NULL, &opts, &device), -EINVAL, "PCI address");
	refused(morsel_iommu_open("0000:00:01.0", &opts, &device), -ENODEV, "morsel iommu list");
	fake_function("0000:02:00.0", -1, "vfio-pci");
	refused(morsel_iommu_open("02:00.0", &opts, &device), -ENODEV, "not for this");
	fake_driver(FAKE_BDF, "edu");
	refused(morsel_iommu_open(FAKE_BDF, &opts, &device), -ENXIO, "morsel iommu bind");
	fake_driver(FAKE_BDF, "");
	refused(morsel_iommu_open(FAKE_BDF, &opts, &device), -ENXIO, "nothing");
	fake_driver(FAKE_BDF, "vfio-pci");
	fake_function("0000:01:00.1", 7, "snd_hda");
	refused(morsel_iommu_open(FAKE_BDF, &opts, &device), -EBUSY, "0000:01:00.1");
	assert_non_null(strstr(morsel_errormsg(), "snd_hda"));
	fake_driver("0000:01:00.1", "");
	fake_remove("dev/vfio/7");
	refused(morsel_iommu_open(FAKE_BDF, &opts, &device), -ENOENT, "vfio/7");
	fake_remove("dev/vfio/vfio");
	refused(morsel_iommu_open(FAKE_BDF, &opts, &device), -ENOENT, "modprobe");
	fake_remove("sys/class/iommu/fake0");
	refused(morsel_iommu_open("02:00.0", &opts, &device), -ENODEV, "intel_iommu=on");
	opts.kind = 9;
	refused(morsel_iommu_open(FAKE_BDF, &opts, &device), -EINVAL, "kind");
	fake_driver(FAKE_BDF, "");
	fake_remove("sys/bus/pci/drivers/vfio-pci/module");
	fake_remove("sys/bus/pci/drivers/vfio-pci");
	refused(morsel_iommu_open(FAKE_BDF, NULL, &device), -ENOENT, "module vfio-pci");
	assert_int_equal(fake_counts().devices, 0);
}

static void refused_by_rules(const struct fake_rules *rules, uint32_t kind, int error,
			     const char *words)
{
	struct morsel_device *device;

	fake_stop();
	fake_start(rules);
	refused(open_kind(&device, kind), error, words);
}

static void rules_refuse(void **state)
{
	refused_by_rules(&(struct fake_rules){.no_type1 = true}, MORSEL_IOMMU_TYPE1, -ENOENT,
			 "vfio_iommu_type1");
	refused_by_rules(&(struct fake_rules){.no_iommufd = true}, MORSEL_IOMMU_IOMMUFD,
			 -EOPNOTSUPP, "MORSEL_IOMMU_TYPE1");
	refused_by_rules(&(struct fake_rules){.unsafe_interrupts = true}, MORSEL_IOMMU_TYPE1,
			 -EPERM, "allow_unsafe_interrupts");
	refused_by_rules(&(struct fake_rules){.unsafe_interrupts = true}, MORSEL_IOMMU_IOMMUFD,
			 -EPERM, "allow_unsafe_interrupts");
}

/* Without a choice: iommufd where it is there, else type1; and it is said. */
static void chooses_the_way(void **state)
{
	for (unsigned i = 0; i < 2; i++) {
		const struct fake_rules rules = {.no_iommufd = i};
		struct morsel_iommu_domain_info info = {.size = sizeof(info)};
		struct morsel_device *device;

		fake_stop();
		fake_start(&rules);
		must(morsel_iommu_open(FAKE_BDF, NULL, &device));
		must(morsel_iommu_domain_info(morsel_iommu_domain(device), &info));
		assert_int_equal(info.kind, i ? MORSEL_IOMMU_TYPE1 : MORSEL_IOMMU_IOMMUFD);
		must(morsel_iommu_close(device));
	}
}

/* ---- every failure is undone ---- */

static unsigned descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static void fail_each_call(uint32_t kind)
{
	struct morsel_pool *pool = support_pool();
	struct morsel *morsel =
		support_morsel(pool, "m", 8 * PAGE, MORSEL_SCATTERED, MORSEL_PAGES_4K);
	struct morsel_device *device;
	unsigned before;
	uint64_t n = 0;
	int rc;

	/* What the first view of a pool opens for good. */
	must(open_kind(&device, kind));
	morsel_view_destroy(view_of(&(struct room){pool, device}, morsel, 0));
	must(morsel_iommu_close(device));
	before = descriptors();
	do {
		struct morsel_view *view = NULL;

		device = NULL;
		fake_fail(++n, ENOMEM);
		rc = open_kind(&device, kind);
		if (!rc)
			rc = morsel_iommu_view(morsel, device, NULL, &view);
		if (rc)
			assert_true(morsel_errormsg()[0]);
		morsel_view_destroy(view);
		if (device)
			must(morsel_iommu_close(device));
		assert_int_equal(fake_counts().mappings, 0);
		assert_int_equal(mrs_memory_pinned_process(), 0);
		assert_int_equal(descriptors(), before);
		/* Some calls may fail: then all went well, and there are more. */
	} while (n < 60);
	fake_fail(0, 0);
	must(morsel_close(morsel));
	must(morsel_pool_close(pool));
}

static void failures_are_undone(void **state)
{
	fail_each_call(MORSEL_IOMMU_TYPE1);
	fail_each_call(MORSEL_IOMMU_IOMMUFD);
}

/* ---- devices ---- */

static void domains_and_devices(void **state)
{
	struct room *room = *state;
	struct morsel_iommu_opts opts = {.size = sizeof(opts), .domain = domain_of(room)};
	struct morsel_iommu_domain_info info = {.size = sizeof(info)};
	struct morsel *morsel = support_morsel(room->pool, "m", 8 * PAGE, 0, 0);
	struct morsel_device *second;
	struct morsel_view *shared, *own;
	struct morsel_grant grant;

	fake_function("0000:01:00.1", 7, "vfio-pci");
	must(morsel_iommu_open("0000:01:00.1", &opts, &second));
	assert_ptr_equal(morsel_iommu_domain(second), domain_of(room));
	must(morsel_iommu_domain_info(domain_of(room), &info));
	assert_int_equal(info.devices, 2);
	opts.kind = MORSEL_IOMMU_IOMMUFD;
	refused(morsel_iommu_open("0000:01:00.1", &opts, &second), -EINVAL, "iommu-type1");
	must(morsel_iommu_domain_view(morsel, domain_of(room), NULL, &shared));
	must(morsel_iommu_view(morsel, second, NULL, &own));
	refused(morsel_iommu_close(second), -EBUSY, "1 views of this device");
	morsel_view_destroy(own);
	/* Views of the domain stay for those who are still in it. */
	must(morsel_iommu_close(second));
	refused(morsel_iommu_close(room->device), -EBUSY, "last device");
	must(morsel_acquire(shared, 0, PAGE, MORSEL_READ, &grant));
	morsel_release(&grant);
	morsel_view_destroy(shared);
	must(morsel_close(morsel));
}

/* What the kernel wants back: its views die, and only they. */
static void gone(void **state)
{
	struct room *room = *state;
	struct morsel *morsel = support_morsel(room->pool, "m", 8 * PAGE, 0, 0);
	struct morsel_view *view = view_of(room, morsel, 0);
	struct morsel_iommu_view_info info = {.size = sizeof(info)};
	struct morsel_iommu_region region = {.size = sizeof(region)};
	struct pollfd poll_fd = {.fd = morsel_iommu_event_fd(room->device), .events = POLLIN};
	struct morsel_grant held, grant;
	volatile uint32_t *bar;
	uint64_t bytes;
	void *address;

	must(morsel_iommu_bar(room->device, 0, &address, &bytes));
	assert_int_equal(bytes, FAKE_BAR_BYTES);
	bar = address;
	bar[bytes / 4 - 1] = 17;
	must(morsel_acquire(view, 0, 3 * PAGE, MORSEL_READ, &held));
	assert_int_equal(morsel_iommu_poll(room->device), 0);
	fake_want_back();
	assert_int_equal(poll(&poll_fd, 1, 20000), 1);
	assert_int_equal(morsel_iommu_poll(room->device), 1);
	assert_int_equal(bar[0], 0xffffffff);
	assert_int_equal(bar[bytes / 4 - 1], 0xffffffff);
	bar[3] = 4;
	assert_int_equal(fake_counts().mappings, 0);
	refused(morsel_acquire(view, 0, PAGE, MORSEL_READ, &grant), -ENODEV, "gone");
	refused(morsel_iommu_region(room->device, 0, &region), -ENODEV, "gone");
	refused(morsel_iommu_view(morsel, room->device, NULL, &view), -ENODEV, "gone");
	must(morsel_iommu_view_info(view, &info));
	assert_int_equal(info.gone, 1);
	assert_int_equal(info.bytes_pinned, 0);
	morsel_release(&held);
	must(morsel_view_invalidate(view, 0, PAGE));
	morsel_view_destroy(view);
	must(morsel_close(morsel));
}

static void interrupts(void **state)
{
	struct room *room = *state;
	struct morsel_iommu_device_info info = {.size = sizeof(info)};
	int fds[17];
	uint64_t count;

	for (unsigned i = 0; i < 17; i++)
		fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	must(morsel_iommu_device_info(room->device, &info));
	assert_int_equal(info.irqs[MORSEL_IOMMU_MSIX], 16);
	assert_int_equal(info.vendor, 0x1234);
	refused(morsel_iommu_irq_on(room->device, MORSEL_IOMMU_MSIX, 17, fds), -ERANGE,
		"16 vectors");
	refused(morsel_iommu_irq_on(room->device, 3, 1, fds), -EINVAL, "enum");
	refused(morsel_iommu_irq_trigger(room->device, 0), -ERANGE, "no vector");
	must(morsel_iommu_irq_on(room->device, MORSEL_IOMMU_MSIX, 16, fds));
	fake_interrupt(3);
	assert_int_equal(read(fds[3], &count, 8), 8);
	must(morsel_iommu_irq_trigger(room->device, 15));
	assert_int_equal(read(fds[15], &count, 8), 8);
	must(morsel_iommu_irq_on(room->device, MORSEL_IOMMU_INTX, 1, fds));
	must(morsel_iommu_irq_unmask(room->device));
	must(morsel_iommu_irq_off(room->device));
	refused(morsel_iommu_irq_trigger(room->device, 0), -ERANGE, "no vector");
	must(morsel_iommu_reset(room->device));
	for (unsigned i = 0; i < 17; i++)
		close(fds[i]);
}

static void regions(void **state)
{
	struct room *room = *state;
	struct morsel_iommu_region region = {.size = sizeof(region)};
	uint16_t command;
	uint64_t bytes;
	void *address;

	must(morsel_iommu_region(room->device, 0, &region));
	assert_int_equal(region.bytes, FAKE_BAR_BYTES);
	assert_int_equal(region.mappable, 1);
	refused(morsel_iommu_region(room->device, 9, &region), -ERANGE, "0 to 8");
	refused(morsel_iommu_bar(room->device, 1, &address, &bytes), -ENOENT, "no BAR 1");
	refused(morsel_iommu_bar(room->device, 6, &address, &bytes), -ERANGE, "0 to 5");
	must(morsel_iommu_read(room->device, MORSEL_IOMMU_CONFIG, 4, &command, 2));
	assert_int_equal(command, 6);
	must(morsel_iommu_bus_master(room->device, 0));
	must(morsel_iommu_read(room->device, MORSEL_IOMMU_CONFIG, 4, &command, 2));
	assert_int_equal(command, 2);
	command = 0x404;
	must(morsel_iommu_write(room->device, MORSEL_IOMMU_CONFIG, 4, &command, 2));
	refused(morsel_iommu_read(room->device, MORSEL_IOMMU_CONFIG, 4095, &command, 2), -ERANGE,
		"4096 bytes");
}

/* Descriptors that somebody with more rights has opened. */
static void handed_in(void **state)
{
	struct morsel_iommu_opts opts = {.size = sizeof(opts), .kind = MORSEL_IOMMU_TYPE1};
	int container = memfd_create("container", MFD_CLOEXEC);
	int group = memfd_create("group", MFD_CLOEXEC);
	struct morsel_device *device;

	fake_remove("dev/vfio/vfio");
	fake_remove("dev/vfio/7");
	opts.container_plus_1 = container + 1;
	opts.group_plus_1 = group + 1;
	/* If it fails they are the caller's, as they were. */
	fake_fail(4, EPERM);
	assert_true(morsel_iommu_open(FAKE_BDF, &opts, &device) < 0);
	assert_true(fcntl(container, F_GETFD) >= 0 && fcntl(group, F_GETFD) >= 0);
	must(morsel_iommu_open(FAKE_BDF, &opts, &device));
	assert_true(fcntl(container, F_GETFD) < 0 && fcntl(group, F_GETFD) < 0);
	must(morsel_iommu_close(device));
}

static int use_in_child(void *ctx)
{
	struct room *room = ctx;
	struct morsel_iommu_device_info info = {.size = sizeof(info)};
	uint64_t bytes;
	void *address;

	if (morsel_iommu_bar(room->device, 0, &address, &bytes) != -ECHILD ||
	    morsel_iommu_poll(room->device) != -ECHILD ||
	    morsel_iommu_reset(room->device) != -ECHILD)
		return 1;
	return morsel_iommu_device_info(room->device, &info) ? 2 : 0;
}

static void forked(void **state)
{
	struct room *room = *state;

#ifdef __SANITIZE_THREAD__
	skip(); /* its runtime does not survive threads in a child of fork */
#endif
	assert_int_equal(support_in_child(use_in_child, room), 0);
}

static int count_one(void *ctx, const struct morsel_iommu_function *function)
{
	++*(unsigned *)ctx;
	return 0;
}

static void lists(void **state)
{
	struct morsel_iommu_function function;
	unsigned count = 0;

	fake_function("0000:01:00.1", 7, "nvme");
	must(morsel_iommu_list(count_one, &count));
	assert_int_equal(count, 2);
	must(morsel_iommu_find("01:00.0", &function));
	assert_string_equal(function.bdf, FAKE_BDF);
	assert_int_equal(function.group, 7);
	assert_int_equal(function.peers, 1);
	assert_int_equal(function.viable, 0);
	assert_int_equal(function.has_cdev, 1);
	assert_string_equal(function.blocker, "0000:01:00.1");
	assert_string_equal(function.blocker_driver, "nvme");
	refused(morsel_iommu_find("00:20.0", &function), -EINVAL, "1f");
}

int main(void)
{
#define TEST(fn, set_up) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(coalesces, type1),
		TEST(coalesces, by_address),
		TEST(one_call_takes_all, type1),
		TEST(phase, type1),
		TEST(cuts, type1),
		TEST(cuts, with_dirty),
		TEST(torn_grant_is_named, type1),
		TEST(takes_back, few_entries),
		TEST(too_many_entries, few_entries),
		TEST(memlock, by_address),
		TEST(freed_in_place, type1),
		TEST(where, type1),
		TEST(where, with_dirty),
		TEST(dirty, with_dirty),
		TEST(refusals, nothing_open),
		TEST(rules_refuse, nothing_open),
		TEST(chooses_the_way, nothing_open),
		TEST(failures_are_undone, nothing_open),
		TEST(domains_and_devices, type1),
		TEST(gone, type1),
		TEST(gone, with_dirty),
		TEST(interrupts, type1),
		TEST(regions, type1),
		TEST(handed_in, nothing_open),
		TEST(forked, type1),
		TEST(lists, nothing_open),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
