/*
 * A device among the processes of the torture test (tests/stress): a worker that reads and writes
 * pages by DMA of QEMU's edu, through IOMMU views and under grants, while the others evict, move,
 * clone and cut the same morsels and while it is killed and stopped as they are. Each word that the
 * device has read is judged by the ledger. Runs in the lab as the program that MORSEL_TORTURE_ACTOR
 * names:
 *
 *	iommu_torture_device --worker POOL LEDGER LIFE SEED FAULTS
 *	iommu_torture_device --probe		77 if there is no device
 *
 * A page goes through the device's buffer to or from a page of the worker's own, which the device
 * has in the same address space.
 */
#include "stress/torture.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

#include <morsel/iommu.h>

#include "iommu/edu.h"
#include "support/counts.h"

#define TRANSFERS 6 /* through one view */

struct actor {
	struct torture *t;
	struct morsel_pool *pool;
	struct morsel_device *device;
	struct edu edu;
	uint32_t life;
	uint64_t random;
	struct morsel *own; /* one page */
	struct morsel_view *own_view, *own_cpu;
	struct morsel_grant own_grant;
};

struct subject { /* the morsel that is worked on */
	struct morsel *morsel;
	struct morsel_view *view;
	struct torture_page *ledger;
	unsigned family, pages;
	bool writable;
};

static unsigned below(struct actor *a, unsigned end)
{
	return (unsigned)(test_random(&a->random) % end);
}

static void die(const struct actor *a, const char *what, int rc)
{
	fprintf(stderr, "torture: device %u: %s = %d: %s\n", a->life, what, rc, morsel_errormsg());
	_exit(4);
}

/* What others' cuts, clones and grants, and a small pool explain. */
static bool is_odd(int rc)
{
	static const int fine[] = {0,	    -EBUSY,	-EAGAIN, -ENOSPC, -ENOENT,
				   -ERANGE, -ETIMEDOUT, -EROFS,	 -ENOMEM, -EINVAL};

	for (size_t i = 0; i < sizeof(fine) / sizeof(fine[0]); i++)
		if (rc == fine[i])
			return false;
	return true;
}

static bool went_well(struct actor *a, const char *what, int rc)
{
	mrs_fetch_add(rc ? &a->t->refused[TORTURE_DEVICE] : &a->t->done[TORTURE_DEVICE], 1);
	if (is_odd(rc))
		die(a, what, rc);
	return !rc;
}

/* ---- transfers ---- */

static void from_memory(struct actor *a, uint64_t iova)
{
	if (edu_load(&a->edu, iova, 4096))
		die(a, "a transfer from memory does not end", -ETIMEDOUT);
}

static void to_memory(struct actor *a, uint64_t iova)
{
	if (edu_store(&a->edu, iova, 4096))
		die(a, "a transfer to memory does not end", -ETIMEDOUT);
}

static void judge(struct actor *a, const struct subject *s, unsigned page,
		  const struct torture_seen *before)
{
	const uint64_t *words = morsel_addr(a->own_cpu);
	unsigned at = 0;
	int rc = torture_judge(&s->ledger[page], before, s->family, page, words, &at);

	if (rc > 0)
		mrs_fetch_add(&a->t->raced, 1);
	if (rc >= 0)
		return;
	mrs_fetch_add32(&a->t->mismatches, 1);
	fprintf(stderr,
		"torture: device %u read family %u page %u: word %u is %016llx; versions %llx "
		"%llx\n",
		a->life, s->family, page, at, (unsigned long long)words[at],
		(unsigned long long)before->version[0], (unsigned long long)before->version[1]);
	_exit(3);
}

static void read_page(struct actor *a, struct subject *s, unsigned page)
{
	struct torture_seen before;
	struct morsel_grant grant;
	int rc = morsel_acquire(s->view, page * 4096ull, 4096, MORSEL_READ, &grant);

	if (!went_well(a, "acquire for reading", rc))
		return;
	torture_look_before(&s->ledger[page], &before);
	from_memory(a, grant.iova);
	morsel_release(&grant);
	to_memory(a, a->own_grant.iova);
	judge(a, s, page, &before);
}

static void write_page(struct actor *a, struct subject *s, unsigned page)
{
	struct morsel_grant grant;
	uint64_t version;
	int rc = morsel_acquire(s->view, page * 4096ull, 4096, MORSEL_READ | MORSEL_WRITE, &grant);

	if (!went_well(a, "acquire for writing", rc))
		return;
	version = torture_write_begin(a->t, &s->ledger[page], a->life, s->family, page, false);
	if (version) {
		torture_fill(s->family, page, version, morsel_addr(a->own_cpu));
		from_memory(a, a->own_grant.iova);
		to_memory(a, grant.iova);
		torture_write_end(&s->ledger[page], version);
	}
	morsel_release(&grant);
}

/* ---- morsels ---- */

static bool take_up(struct actor *a, struct subject *s)
{
	unsigned family = below(a, TORTURE_FAMILIES);
	uint64_t life = mrs_load_acquire(&a->t->seat[family][below(a, TORTURE_SEATS)].life);
	struct morsel_iommu_view_opts opts = {.size = sizeof(opts)};
	struct morsel_info info = {.size = sizeof(info)};
	char name[32];
	int rc;

	if (!life)
		return false;
	torture_name(name, family, life);
	if (!went_well(a, "open", morsel_open(a->pool, name, NULL, &s->morsel)))
		return false;
	s->family = family;
	s->ledger = torture_pages(a->t, life);
	rc = morsel_info(s->morsel, &info);
	s->writable = !info.sealed;
	s->pages = (unsigned)(info.bytes / 4096);
	opts.access = s->writable ? MORSEL_READ | MORSEL_WRITE : MORSEL_READ;
	if (!rc && s->pages)
		rc = morsel_iommu_view(s->morsel, a->device, &opts, &s->view);
	if (went_well(a, "view", rc) && s->view)
		return true;
	morsel_close(s->morsel);
	return false;
}

static void step(struct actor *a)
{
	struct timespec rest = {.tv_nsec = 2000000};
	struct subject s = {0};

	if (!take_up(a, &s)) {
		nanosleep(&rest, NULL);
		return;
	}
	for (unsigned i = 0; i < TRANSFERS && !mrs_load_acquire32(&a->t->stop); i++) {
		unsigned page = below(a, s.pages);

		if (s.writable && below(a, 2))
			write_page(a, &s, page);
		else
			read_page(a, &s, page);
	}
	morsel_view_destroy(s.view);
	morsel_close(s.morsel);
}

/* ---- the device ---- */

/* The one before us may have died in a transfer: it goes to where nothing is translated yet. */
static void await_idle(struct actor *a)
{
	struct timespec pause = {.tv_nsec = 10000000};

	for (unsigned i = 0; i < 1000; i++) {
		if (!(*(volatile uint64_t *)(a->edu.registers + 0x98) & 1))
			return;
		nanosleep(&pause, NULL);
	}
	die(a, "the device is busy for 10 s", -ETIMEDOUT);
}

static void open_device(struct actor *a)
{
	char bdf[MORSEL_IOMMU_BDF_BYTES];
	int rc;

	if (!edu_find(bdf, 0))
		die(a, "finding an edu", -ENODEV);
	rc = morsel_iommu_open(bdf, NULL, &a->device);
	if (!rc)
		rc = edu_start(&a->edu, a->device);
	if (rc)
		die(a, "opening the device", rc);
	await_idle(a);
}

/* Its name goes at once: it is this process's, and ends with it. */
static void open_own(struct actor *a)
{
	struct morsel_opts opts = {
		.size = sizeof(opts), .flags = MORSEL_CREATE | MORSEL_EXCL, .bytes = 4096};
	char name[32];
	int rc;

	snprintf(name, sizeof(name), "device.%u", a->life);
	rc = morsel_open(a->pool, name, &opts, &a->own);
	if (!rc)
		rc = morsel_unlink(a->pool, name);
	if (!rc)
		rc = morsel_map(a->own, NULL, &a->own_cpu);
	if (!rc)
		rc = morsel_iommu_view(a->own, a->device, NULL, &a->own_view);
	if (!rc)
		rc = morsel_acquire(a->own_view, 0, 4096, MORSEL_READ | MORSEL_WRITE,
				    &a->own_grant);
	if (rc)
		die(a, "a page of its own", rc);
}

static int end(struct actor *a)
{
	int rc;

	morsel_release(&a->own_grant);
	morsel_view_destroy(a->own_view);
	morsel_view_destroy(a->own_cpu);
	morsel_close(a->own);
	rc = morsel_iommu_close(a->device);
	if (!rc)
		rc = morsel_pool_close(a->pool);
	if (rc)
		die(a, "closing", rc);
	return 0;
}

static int probe(void)
{
	char bdf[MORSEL_IOMMU_BDF_BYTES];

	if (edu_find(bdf, 0))
		return 0;
	fprintf(stderr, "skipped: no edu here\n");
	return 77;
}

int main(int argc, char **argv)
{
	struct actor a = {0};

	if (argc == 2 && !strcmp(argv[1], "--probe"))
		return probe();
	if (argc != 7 || strcmp(argv[1], "--worker")) {
		fprintf(stderr, "a worker of the torture test: see MORSEL_TORTURE_ACTOR\n");
		return 2;
	}
	a.t = torture_map(atoi(argv[3]));
	a.life = (uint32_t)strtoul(argv[4], NULL, 10);
	a.random = strtoull(argv[5], NULL, 10);
	if (!a.t || morsel_pool_open_fd(atoi(argv[2]), NULL, &a.pool))
		die(&a, "attaching", -ENOMEM);
	open_device(&a);
	open_own(&a);
	while (!mrs_load_acquire32(&a.t->stop))
		step(&a);
	return end(&a);
}
