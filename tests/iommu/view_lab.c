/*
 * Views of an IOMMU with a device behind it that nobody here wrote: QEMU's edu. Runs in the lab:
 *
 *	iommu_view_lab type1|iommufd [gone]
 *
 * With "gone" the last edu of the machine is pulled out, else the first is used. Without an IOMMU
 *and an edu that is bound to vfio-pci it is skipped.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include <morsel/swap.h>

#include "core/view_support.h"
#include "iommu/edu.h"

static uint32_t kind;
static char bdf[MORSEL_IOMMU_BDF_BYTES];

struct lab {
	struct morsel_pool *pool;
	struct morsel_device *device;
	struct edu edu;
};

#define must(call)                                                      \
	do {                                                            \
		int must_rc = (call);                                   \
		if (must_rc)                                            \
			fail_msg("%d: %s", must_rc, morsel_errormsg()); \
	} while (0)

static int set_up(void **state)
{
	struct morsel_iommu_opts opts = {.size = sizeof(opts), .kind = kind};
	struct lab *lab = calloc(1, sizeof(*lab));

	lab->pool = support_pool();
	must(morsel_iommu_open(bdf, &opts, &lab->device));
	must(edu_start(&lab->edu, lab->device));
	*state = lab;
	return 0;
}

static int tear_down(void **state)
{
	struct lab *lab = *state;

	must(morsel_iommu_close(lab->device));
	must(morsel_pool_close(lab->pool));
	free(lab);
	return 0;
}

static struct morsel_view *open_view(struct lab *lab, struct morsel *morsel,
				     const struct morsel_iommu_view_opts *opts)
{
	struct morsel_view *view;

	must(morsel_iommu_view(morsel, lab->device, opts, &view));
	return view;
}

static struct morsel_view *open_cpu(struct morsel *morsel)
{
	struct morsel_view *view;

	must(morsel_map(morsel, NULL, &view));
	return view;
}

static unsigned char *byte_at(struct morsel_view *cpu, uint64_t page)
{
	return (unsigned char *)morsel_addr(cpu) + page * PAGE;
}

/* ---- what there is ---- */

static void info(void **state)
{
	struct lab *lab = *state;
	struct morsel_iommu_device_info device = {.size = sizeof(device)};
	struct morsel_iommu_domain_info domain = {.size = sizeof(domain)};
	struct morsel_iommu_region region = {.size = sizeof(region)};
	uint64_t first, last;

	must(morsel_iommu_device_info(lab->device, &device));
	assert_int_equal(device.vendor, 0x1234);
	assert_int_equal(device.device, 0x11e8);
	assert_true(device.group >= 0);
	assert_int_equal(device.irqs[MORSEL_IOMMU_MSI], 1);
	must(morsel_iommu_domain_info(morsel_iommu_domain(lab->device), &domain));
	assert_int_equal(domain.devices, 1);
	assert_true(domain.page_sizes & 4096);
	printf("kind %u, pages 0x%llx, entries_max %llu, memlock %llu\n", domain.kind,
	       (unsigned long long)domain.page_sizes, (unsigned long long)domain.entries_max,
	       (unsigned long long)domain.bytes_memlock);
	for (uint32_t i = 0; i < domain.ranges; i++) {
		must(morsel_iommu_range(morsel_iommu_domain(lab->device), i, &first, &last));
		printf("IOVA 0x%llx to 0x%llx\n", (unsigned long long)first,
		       (unsigned long long)last);
	}
	assert_int_equal(
		morsel_iommu_range(morsel_iommu_domain(lab->device), domain.ranges, &first, &last),
		-ERANGE);
	must(morsel_iommu_region(lab->device, 0, &region));
	assert_int_equal(region.bytes, MIB);
	assert_int_equal(*(volatile uint32_t *)lab->edu.registers, 0x010000edu);
}

/* ---- bytes ---- */

/* Scattered frames, one IOVA after the other: what the device reads and writes is the morsel. */
static void moves_bytes(void **state)
{
	struct lab *lab = *state;
	struct morsel *morsel =
		support_morsel(lab->pool, "m", 64 * PAGE, MORSEL_SCATTERED, MORSEL_PAGES_4K);
	struct morsel_view *view = open_view(lab, morsel, NULL), *cpu = open_cpu(morsel);
	uint64_t iova = morsel_iommu_iova(view);
	struct morsel_grant grant;

	memset(byte_at(cpu, 3), 0x5a, PAGE);
	memset(byte_at(cpu, 40), 0, 2 * PAGE);
	must(morsel_acquire(view, 0, 64 * PAGE, MORSEL_READ | MORSEL_WRITE, &grant));
	assert_int_equal(grant.iova, iova);
	assert_int_equal(edu_load(&lab->edu, iova + 3 * PAGE, PAGE), 0);
	/* Over a page boundary, onto two frames. */
	assert_int_equal(edu_store(&lab->edu, iova + 40 * PAGE + 100, PAGE), 0);
	morsel_release(&grant);
	for (unsigned i = 0; i < 2 * PAGE; i++)
		assert_int_equal(byte_at(cpu, 40)[i], i >= 100 && i < PAGE + 100 ? 0x5a : 0);
	morsel_view_destroy(view);
	morsel_view_destroy(cpu);
	must(morsel_close(morsel));
}

/* What was taken away the device does not reach; acquired again it does. */
static void faults_after_invalidate(void **state)
{
	struct lab *lab = *state;
	struct morsel *morsel = support_morsel(lab->pool, "m", 16 * PAGE, 0, MORSEL_PAGES_4K);
	struct morsel_view *view = open_view(lab, morsel, NULL), *cpu = open_cpu(morsel);
	uint64_t iova = morsel_iommu_iova(view);
	struct morsel_grant grant;

	memset(byte_at(cpu, 0), 0xaa, 16 * PAGE);
	memset(byte_at(cpu, 1), 0x11, PAGE);
	assert_int_equal(edu_load(&lab->edu, iova + PAGE, PAGE), 0);
	must(morsel_view_invalidate(view, 5 * PAGE, PAGE));
	assert_int_equal(edu_store(&lab->edu, iova + 5 * PAGE, PAGE), 0);
	for (unsigned i = 0; i < 16 * PAGE; i++)
		assert_int_equal(byte_at(cpu, 0)[i], i / PAGE == 1 ? 0x11 : 0xaa);
	/* Its neighbours, which shared an entry with it, still have theirs. */
	assert_int_equal(edu_store(&lab->edu, iova + 4 * PAGE, PAGE), 0);
	assert_int_equal(edu_store(&lab->edu, iova + 6 * PAGE, PAGE), 0);
	assert_int_equal(byte_at(cpu, 4)[7], 0x11);
	assert_int_equal(byte_at(cpu, 6)[7], 0x11);
	assert_int_equal(byte_at(cpu, 5)[7], 0xaa);
	must(morsel_acquire(view, 5 * PAGE, PAGE, MORSEL_WRITE, &grant));
	assert_int_equal(edu_store(&lab->edu, grant.iova, PAGE), 0);
	morsel_release(&grant);
	assert_int_equal(byte_at(cpu, 5)[7], 0x11);
	morsel_view_destroy(view);
	morsel_view_destroy(cpu);
	must(morsel_close(morsel));
}

/* A view for reading only: the device's writes do not get through. */
static void read_only(void **state)
{
	struct lab *lab = *state;
	struct morsel *morsel = support_morsel(lab->pool, "m", PAGE, 0, MORSEL_PAGES_4K);
	struct morsel_iommu_view_opts opts = {.size = sizeof(opts), .access = MORSEL_READ};
	struct morsel_view *view = open_view(lab, morsel, &opts), *cpu = open_cpu(morsel);
	struct morsel_grant grant;

	memset(byte_at(cpu, 0), 0x33, PAGE);
	must(morsel_acquire(view, 0, PAGE, MORSEL_READ, &grant));
	assert_int_equal(edu_load(&lab->edu, grant.iova, PAGE), 0);
	memset(byte_at(cpu, 0), 0x44, PAGE);
	assert_int_equal(edu_store(&lab->edu, grant.iova, PAGE), 0);
	morsel_release(&grant);
	assert_int_equal(byte_at(cpu, 0)[9], 0x44);
	morsel_view_destroy(view);
	morsel_view_destroy(cpu);
	must(morsel_close(morsel));
}

/* ---- eviction ---- */

static void add_swap(struct morsel_pool *pool)
{
	struct morsel_swap_opts opts = {
		.size = sizeof(opts),
		.path = "/tmp/iommu-lab-swap",
		.bytes = 8 * MIB,
		.flags = MORSEL_SWAP_PLAIN_IO | MORSEL_SWAP_SPARSE | MORSEL_SWAP_OVERWRITE,
	};

	must(morsel_swap_add(pool, &opts, NULL));
}

static void evict(struct morsel *morsel, uint64_t page, uint64_t pages)
{
	int rc = -EAGAIN;

	for (unsigned i = 0; i < 300 && rc == -EAGAIN; i++) {
		rc = morsel_advise(morsel, page * PAGE, pages * PAGE, MORSEL_ADVICE_EVICT);
		if (rc)
			usleep(10000);
	}
	must(rc);
}

/* A morsel whose pages can be evicted; NULL where this kernel has not what that needs. */
static struct morsel *evictable(struct lab *lab, const char *name, uint64_t bytes)
{
	struct morsel *morsel =
		support_morsel(lab->pool, name, bytes, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	struct morsel_view *cpu;
	int rc = morsel_map(morsel, NULL, &cpu);

	if (rc == -EOPNOTSUPP) {
		printf("skipped: %s\n", morsel_errormsg());
		must(morsel_close(morsel));
		return NULL;
	}
	must(rc);
	morsel_view_destroy(cpu);
	return morsel;
}

/* Evicted under the device: its write changes nothing; a grant brings the content back. */
static void evicted(void **state)
{
	struct lab *lab = *state;
	struct morsel *morsel;
	struct morsel_view *view, *cpu;
	struct morsel_iommu_view_info have = {.size = sizeof(have)};
	struct morsel_grant grant, other;
	uint64_t iova;

	add_swap(lab->pool);
	morsel = evictable(lab, "m", 32 * PAGE);
	if (!morsel)
		return;
	view = open_view(lab, morsel, NULL);
	cpu = open_cpu(morsel);
	iova = morsel_iommu_iova(view);
	must(morsel_iommu_view_info(view, &have));
	assert_int_equal(have.entries, 0);
	for (uint64_t page = 0; page < 32; page++)
		memset(byte_at(cpu, page), (int)page + 1, PAGE);
	must(morsel_acquire(view, 0, 32 * PAGE, MORSEL_WRITE, &grant));
	must(morsel_iommu_view_info(view, &have));
	assert_int_equal(have.bytes_pinned, 32 * PAGE);
	assert_int_equal(edu_load(&lab->edu, iova + PAGE, PAGE), 0);
	morsel_release(&grant);
	must(morsel_acquire(view, 9 * PAGE, PAGE, MORSEL_WRITE, &other));
	evict(morsel, 10, 5);
	must(morsel_iommu_view_info(view, &have));
	assert_int_equal(have.bytes_pinned, 27 * PAGE);
	assert_int_equal(edu_store(&lab->edu, iova + 12 * PAGE, PAGE), 0);
	assert_int_equal(byte_at(cpu, 12)[5], 13);
	/* The neighbour, which is granted, was never without. */
	assert_int_equal(edu_store(&lab->edu, iova + 9 * PAGE, PAGE), 0);
	assert_int_equal(byte_at(cpu, 9)[5], 2);
	morsel_release(&other);
	must(morsel_acquire(view, 12 * PAGE, PAGE, MORSEL_WRITE, &grant));
	assert_int_equal(edu_store(&lab->edu, grant.iova, PAGE), 0);
	morsel_release(&grant);
	assert_int_equal(byte_at(cpu, 12)[5], 2);
	for (uint64_t page = 0; page < 32; page++)
		if (page != 9 && page != 12)
			assert_int_equal(byte_at(cpu, page)[100], page + 1);
	morsel_view_destroy(view);
	morsel_view_destroy(cpu);
	must(morsel_close(morsel));
	unlink("/tmp/iommu-lab-swap");
}

/* Memory that the view reached is somebody else's after it: the device does not write there. */
static void no_early_reuse(void **state)
{
	struct lab *lab = *state;
	struct morsel *morsel = support_morsel(lab->pool, "m", 64 * PAGE, 0, MORSEL_PAGES_4K);
	struct morsel *other;
	struct morsel_view *view = open_view(lab, morsel, NULL), *cpu;
	uint64_t iova = morsel_iommu_iova(view);

	assert_int_equal(edu_load(&lab->edu, iova, PAGE), 0);
	must(morsel_resize(morsel, 32 * PAGE));
	other = support_morsel(lab->pool, "n", 64 * PAGE, 0, MORSEL_PAGES_4K);
	cpu = open_cpu(other);
	memset(byte_at(cpu, 0), 0x77, 64 * PAGE);
	assert_int_equal(edu_store(&lab->edu, iova + 40 * PAGE, PAGE), 0);
	for (unsigned i = 0; i < 64 * PAGE; i++)
		assert_int_equal(byte_at(cpu, 0)[i], 0x77);
	morsel_view_destroy(view);
	assert_int_equal(edu_store(&lab->edu, iova, PAGE), 0);
	for (unsigned i = 0; i < 64 * PAGE; i++)
		assert_int_equal(byte_at(cpu, 0)[i], 0x77);
	morsel_view_destroy(cpu);
	must(morsel_close(morsel));
	must(morsel_close(other));
}

/* ---- counts ---- */

struct again {
	struct morsel_view *view;
	unsigned rounds;
	int rc;
};

static int trapped; /* the first system call that was made */

static void on_trap(int signal, siginfo_t *info, void *context)
{
	if (!trapped)
		trapped = info->si_syscall;
	syscall(SYS_exit, 1);
}

/* From now on every system call of this thread but exit is trapped. */
static int trap_calls(void)
{
	struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
	};
	struct sock_fprog program = {.len = 4, .filter = filter};

	if (sigaction(SIGSYS, &action, NULL) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		return -errno;
	return 0;
}

static void *acquire_again(void *arg)
{
	struct again *again = arg;
	struct morsel_grant grant;

	again->rc = morsel_acquire(again->view, 0, PAGE, MORSEL_READ, &grant);
	if (again->rc)
		return NULL;
	morsel_release(&grant);
	again->rc = trap_calls();
	/* A kernel without seccomp: then only what the kernel's IOMMU is asked is counted. */
	if (again->rc == -EINVAL)
		again->rc = 0;
	for (; !again->rc && again->rounds < 1000; again->rounds++) {
		again->rc = morsel_acquire(again->view, (again->rounds % 16) * PAGE, PAGE,
					   MORSEL_READ | MORSEL_WRITE, &grant);
		if (!again->rc)
			morsel_release(&grant);
	}
	syscall(SYS_exit, 0); /* all that is permitted */
	return NULL;
}

/* Acquiring what is still mapped makes no system call at all. */
static void reacquire_is_free(void **state)
{
	struct lab *lab = *state;

	add_swap(lab->pool);
	for (unsigned i = 0; i < 2; i++) {
		struct morsel *morsel =
			i ? evictable(lab, "e", 16 * PAGE)
			  : support_morsel(lab->pool, "m", 16 * PAGE, 0, MORSEL_PAGES_4K);
		struct morsel_view *view = morsel ? open_view(lab, morsel, NULL) : NULL;
		struct again again = {.view = view};
		struct morsel_iommu_domain_info before = {.size = sizeof(before)}, after = before;
		struct morsel_grant grant;
		pthread_t thread;

		if (!morsel)
			break;
		must(morsel_acquire(view, 0, 16 * PAGE, MORSEL_READ | MORSEL_WRITE, &grant));
		morsel_release(&grant);
		must(morsel_iommu_domain_info(morsel_iommu_domain(lab->device), &before));
		assert_int_equal(pthread_create(&thread, NULL, acquire_again, &again), 0);
		pthread_join(thread, NULL);
		must(morsel_iommu_domain_info(morsel_iommu_domain(lab->device), &after));
		assert_int_equal(after.maps, before.maps);
		assert_int_equal(after.unmaps, before.unmaps);
		assert_int_equal(trapped, 0);
		assert_int_equal(again.rc, 0);
		assert_int_equal(again.rounds, 1000);
		morsel_view_destroy(view);
		must(morsel_close(morsel));
	}
	unlink("/tmp/iommu-lab-swap");
}

static int count_run(void *ctx, const struct morsel_run *run)
{
	++*(uint64_t *)ctx;
	return 0;
}

/* As few entries as there are runs. */
static void entries_are_runs(void **state)
{
	static const uint32_t flags[] = {0, MORSEL_CONTIGUOUS, MORSEL_SCATTERED};
	struct lab *lab = *state;

	for (unsigned i = 0; i < 3; i++) {
		char name[] = {'a' + (char)i, 0};
		struct morsel *morsel = support_morsel(lab->pool, name, 4 * MIB, flags[i],
						       i == 2 ? MORSEL_PAGES_4K : 0);
		struct morsel_view *view = open_view(lab, morsel, NULL);
		struct morsel_iommu_view_info have = {.size = sizeof(have)};
		uint64_t runs = 0;

		must(morsel_runs(morsel, 0, 4 * MIB, count_run, &runs));
		must(morsel_iommu_view_info(view, &have));
		printf("%llu runs, %llu entries\n", (unsigned long long)runs,
		       (unsigned long long)have.entries);
		assert_true(have.entries <= runs);
		morsel_view_destroy(view);
		must(morsel_close(morsel));
	}
}

/* ---- where ---- */

static void where(void **state)
{
	struct lab *lab = *state;
	struct morsel *morsel = support_morsel(lab->pool, "m", 16 * PAGE, 0, MORSEL_PAGES_4K);
	struct morsel_view *cpu = open_cpu(morsel), *view, *second;
	struct morsel_iommu_view_opts opts = {
		.size = sizeof(opts), .flags = MORSEL_IOMMU_FIXED, .iova = 0x10000000};

	must(morsel_iommu_view(morsel, lab->device, &opts, &view));
	assert_int_equal(morsel_iommu_iova(view), 0x10000000);
	opts.iova += 8 * PAGE;
	assert_int_equal(morsel_iommu_view(morsel, lab->device, &opts, &second), -EEXIST);
	assert_non_null(strstr(morsel_errormsg(), "0x10000000"));
	opts.iova = 0xfee00000;
	assert_int_equal(morsel_iommu_view(morsel, lab->device, &opts, &second), -ERANGE);
	opts.iova = 0x20000001;
	assert_int_equal(morsel_iommu_view(morsel, lab->device, &opts, &second), -EINVAL);
	opts = (struct morsel_iommu_view_opts){.size = sizeof(opts), .iova_last = 0xfffffff};
	must(morsel_iommu_view(morsel, lab->device, &opts, &second));
	assert_true(morsel_iommu_iova(second) + 16 * PAGE - 1 <= 0xfffffff);
	morsel_view_destroy(second);
	morsel_view_destroy(view);
	opts = (struct morsel_iommu_view_opts){
		.size = sizeof(opts), .flags = MORSEL_IOMMU_SAME, .cpu = cpu};
	if (morsel_iommu_view(morsel, lab->device, &opts, &view)) {
		/* Fewer address bits than the processor's. */
		printf("%s\n", morsel_errormsg());
	} else {
		assert_int_equal(morsel_iommu_iova(view), (uintptr_t)morsel_addr(cpu));
		morsel_view_destroy(view);
	}
	morsel_view_destroy(cpu);
	must(morsel_close(morsel));
}

/* ---- limits ---- */

static void memlock(void **state)
{
	struct morsel_iommu_domain_info domain = {.size = sizeof(domain)};
	struct lab *lab = *state;
	struct rlimit old, small = {16 * PAGE, 16 * PAGE};
	struct morsel *morsel;
	struct morsel_view *view;

	must(morsel_iommu_domain_info(morsel_iommu_domain(lab->device), &domain));
	if (domain.bytes_memlock == UINT64_MAX && domain.kind == MORSEL_IOMMU_TYPE1) {
		printf("this user may lock as much as it likes\n");
		return;
	}
	assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &old), 0);
	small.rlim_max = old.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &small), 0);
	morsel = support_morsel(lab->pool, "m", 64 * PAGE, 0, MORSEL_PAGES_4K);
	assert_int_equal(morsel_iommu_view(morsel, lab->device, NULL, &view), -ENOMEM);
	printf("%s\n", morsel_errormsg());
	assert_non_null(strstr(morsel_errormsg(), "RLIMIT_MEMLOCK"));
	must(morsel_iommu_domain_info(morsel_iommu_domain(lab->device), &domain));
	assert_int_equal(domain.bytes_pinned, 0);
	assert_int_equal(domain.entries, 0);
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &old), 0);
	must(morsel_iommu_view(morsel, lab->device, NULL, &view));
	morsel_view_destroy(view);
	must(morsel_close(morsel));
}

/* ---- interrupts, reset, registers ---- */

static void interrupts(void **state)
{
	struct lab *lab = *state;
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
	uint64_t count;

	must(morsel_iommu_irq_on(lab->device, MORSEL_IOMMU_MSI, 1, &fd));
	*(volatile uint32_t *)(lab->edu.registers + 0x60) = 1;
	assert_int_equal(poll(&poll_fd, 1, 5000), 1);
	assert_int_equal(read(fd, &count, 8), 8);
	*(volatile uint32_t *)(lab->edu.registers + 0x64) = 1;
	must(morsel_iommu_irq_trigger(lab->device, 0));
	assert_int_equal(poll(&poll_fd, 1, 5000), 1);
	assert_int_equal(morsel_iommu_irq_on(lab->device, MORSEL_IOMMU_MSI, 2, &fd), -ERANGE);
	must(morsel_iommu_irq_off(lab->device));
	close(fd);
}

static void registers(void **state)
{
	struct lab *lab = *state;
	uint16_t vendor = 0, command = 0;

	must(morsel_iommu_read(lab->device, MORSEL_IOMMU_CONFIG, 0, &vendor, 2));
	assert_int_equal(vendor, 0x1234);
	must(morsel_iommu_read(lab->device, MORSEL_IOMMU_CONFIG, 4, &command, 2));
	assert_int_equal(command & 6, 6);
	must(morsel_iommu_bus_master(lab->device, 0));
	must(morsel_iommu_read(lab->device, MORSEL_IOMMU_CONFIG, 4, &command, 2));
	assert_int_equal(command & 4, 0);
	must(morsel_iommu_bus_master(lab->device, 1));
	assert_int_equal(
		morsel_iommu_read(lab->device, MORSEL_IOMMU_CONFIG, 1ull << 40, &vendor, 2),
		-ERANGE);
	assert_int_equal(morsel_iommu_reset(lab->device), 0);
	assert_int_equal(*(volatile uint32_t *)lab->edu.registers, 0x010000edu);
}

/* ---- closing ---- */

static void close_is_refused(void **state)
{
	struct lab *lab = *state;
	struct morsel *morsel = support_morsel(lab->pool, "m", PAGE, 0, MORSEL_PAGES_4K);
	struct morsel_view *view = open_view(lab, morsel, NULL);

	assert_int_equal(morsel_iommu_close(lab->device), -EBUSY);
	morsel_view_destroy(view);
	must(morsel_close(morsel));
}

/* ---- gone ---- */

static unsigned edus; /* how many there are */

/* The host pulls the last one out. It calls them edu0, edu1, ... in the order of their addresses.
 */
static int unplug(void)
{
	char command[64];

	snprintf(command, sizeof(command), "lab unplug edu%u", edus - 1);
	return system(command);
}

static void gone(void **state)
{
	struct lab *lab = *state;
	struct morsel *morsel = support_morsel(lab->pool, "m", 16 * PAGE, 0, MORSEL_PAGES_4K);
	struct morsel_view *view = open_view(lab, morsel, NULL);
	struct pollfd poll_fd = {.fd = morsel_iommu_event_fd(lab->device), .events = POLLIN};
	struct morsel_iommu_domain_info domain = {.size = sizeof(domain)};
	struct morsel_grant held, grant;

	must(morsel_acquire(view, 0, PAGE, MORSEL_READ, &held));
	assert_int_equal(morsel_iommu_poll(lab->device), 0);
	if (unplug()) {
		printf("nobody here can pull the device out\n");
		goto out;
	}
	assert_int_equal(poll(&poll_fd, 1, 30000), 1);
	assert_int_equal(morsel_iommu_poll(lab->device), 1);
	assert_int_equal(*(volatile uint32_t *)lab->edu.registers, 0xffffffff);
	*(volatile uint32_t *)(lab->edu.registers + 0x60) = 1;
	assert_int_equal(morsel_acquire(view, 0, PAGE, MORSEL_READ, &grant), -ENODEV);
	assert_non_null(strstr(morsel_errormsg(), "gone"));
	must(morsel_iommu_domain_info(morsel_iommu_domain(lab->device), &domain));
	assert_int_equal(domain.bytes_pinned, 0);
out:
	morsel_release(&held);
	morsel_view_destroy(view);
	must(morsel_close(morsel));
}

int main(int argc, char **argv)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(info),
		TEST(moves_bytes),
		TEST(faults_after_invalidate),
		TEST(read_only),
		TEST(evicted),
		TEST(no_early_reuse),
		TEST(reacquire_is_free),
		TEST(entries_are_runs),
		TEST(where),
		TEST(memlock),
		TEST(interrupts),
		TEST(registers),
		TEST(close_is_refused),
	};
	const struct CMUnitTest gone_tests[] = {TEST(gone)};
	struct morsel_iommu_opts opts = {.size = sizeof(opts)};
	struct morsel_device *device;
	bool pull;
	int rc;

	if (argc > 1)
		kind = !strcmp(argv[1], "iommufd") ? MORSEL_IOMMU_IOMMUFD : MORSEL_IOMMU_TYPE1;
	pull = argc > 2;
	edus = edu_find(bdf, pull);
	if (!edus) {
		fprintf(stderr, "skipped: there is no edu device here: run it in the lab\n");
		return 77;
	}
	opts.kind = kind;
	rc = morsel_iommu_open(bdf, &opts, &device);
	if (rc == -EOPNOTSUPP) {
		fprintf(stderr, "skipped: %s\n", morsel_errormsg());
		return 77;
	}
	if (rc) {
		fprintf(stderr, "%s\n", morsel_errormsg());
		return 1;
	}
	morsel_iommu_close(device);
	rc = pull ? cmocka_run_group_tests(gone_tests, NULL, NULL)
		  : cmocka_run_group_tests(tests, NULL, NULL);
	return rc ? 1 : 0;
}
