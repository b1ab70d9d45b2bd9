/*
 * Views for a NIC, with a device behind them that nobody here wrote: the kernel's soft-RoCE, in the
 * lab. Without an RDMA device it is skipped.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <morsel/rdma.h>
#include <morsel/swap.h>

#include "core/view_support.h"
#include "rdma/wire.h"
#include "support/counts.h"

#define BOTH (MORSEL_READ | MORSEL_WRITE)

struct lab {
	struct morsel_pool *pool;
	struct wire wire;
};

#define must(call)                                                      \
	do {                                                            \
		int must_rc = (call);                                   \
		if (must_rc)                                            \
			fail_msg("%d: %s", must_rc, morsel_errormsg()); \
	} while (0)

static int set_up(void **state)
{
	struct lab *lab = calloc(1, sizeof(*lab));
	struct morsel_swap_opts swap = {.size = sizeof(swap), .bytes = 64 * MIB};

	lab->pool = support_pool();
	must(morsel_swap_add(lab->pool, &swap, NULL));
	must(wire_open(&lab->wire));
	*state = lab;
	return 0;
}

static int tear_down(void **state)
{
	struct lab *lab = *state;

	wire_close(&lab->wire);
	must(morsel_pool_close(lab->pool));
	free(lab);
	return 0;
}

struct subject {
	struct morsel *morsel;
	struct morsel_view *view, *cpu;
};

static struct subject open_subject(struct lab *lab, uint64_t bytes, uint32_t flags, uint32_t pages,
				   const struct morsel_rdma_view_opts *opts)
{
	struct subject s = {.morsel = support_morsel(lab->pool, "m", bytes, flags, pages)};

	must(morsel_map(s.morsel, NULL, &s.cpu));
	must(morsel_rdma_view(s.morsel, lab->wire.pd, opts, &s.view));
	return s;
}

static void close_subject(struct lab *lab, struct subject *s)
{
	morsel_view_destroy(s->view);
	morsel_view_destroy(s->cpu);
	must(morsel_close(s->morsel));
	must(morsel_unlink(lab->pool, "m"));
}

static unsigned char *byte_at(const struct subject *s, uint64_t offset)
{
	return (unsigned char *)morsel_addr(s->cpu) + offset;
}

static void fill(unsigned char *at, uint64_t bytes, uint64_t seed)
{
	for (uint64_t i = 0; i < bytes; i++)
		at[i] = (unsigned char)test_random(&seed);
}

static struct morsel_rdma_view_info info_of(const struct subject *s)
{
	struct morsel_rdma_view_info info = {.size = sizeof(info)};

	must(morsel_rdma_view_info(s->view, &info));
	return info;
}

/* ---- bytes ---- */

/* Scattered frames, in three blocks of 2 MiB: what a peer writes is the morsel, and what it reads.
 */
static void moves_bytes(void **state)
{
	static const uint32_t pages[] = {MORSEL_PAGES_4K, MORSEL_PAGES_2M, MORSEL_PAGES_MIXED};
	struct lab *lab = *state;

	for (unsigned i = 0; i < 3; i++) {
		struct subject s =
			open_subject(lab, 6 * MIB, i == 1 ? 0 : MORSEL_SCATTERED, pages[i], NULL);
		const uint64_t at = 2 * MIB - 5000, bytes = 300000;
		struct morsel_rdma_share share;
		unsigned char *copy = malloc(bytes);

		must(morsel_rdma_share(s.view, at, bytes, BOTH, &share));
		fill(lab->wire.buffer, bytes, i);
		memcpy(copy, lab->wire.buffer, bytes);
		must(wire_write(&lab->wire, share.address, share.rkey, bytes));
		assert_memory_equal(byte_at(&s, at), copy, bytes);
		fill(byte_at(&s, at), bytes, i + 10);
		memcpy(copy, byte_at(&s, at), bytes);
		must(wire_read(&lab->wire, share.address, share.rkey, bytes));
		assert_memory_equal(lab->wire.buffer, copy, bytes);
		*(uint64_t *)byte_at(&s, 2 * MIB) = 40;
		must(wire_add(&lab->wire, share.address + 5000, share.rkey, 2));
		assert_int_equal(*(uint64_t *)byte_at(&s, 2 * MIB), 42);
		morsel_rdma_revoke(&share);
		close_subject(lab, &s);
		free(copy);
	}
}

/* A send out of two regions, as the list says; each byte of it has the key that the list has. */
static void lists(void **state)
{
	struct lab *lab = *state;
	struct subject s = open_subject(lab, 6 * MIB, MORSEL_SCATTERED, MORSEL_PAGES_4K, NULL);
	struct morsel_grant grant;
	struct morsel_rdma_key key;
	struct ibv_sge list[4];

	fill(byte_at(&s, 0), 6 * MIB, 3);
	must(morsel_acquire(s.view, 2 * MIB - 3000, 8000, MORSEL_READ, &grant));
	assert_int_equal(morsel_rdma_list(&grant, grant.offset, grant.bytes, list, 4), 2);
	assert_int_equal(list[0].length, 3000);
	assert_int_equal(list[1].length, 5000);
	must(wire_send(&lab->wire, list, 2));
	assert_memory_equal(lab->wire.buffer, byte_at(&s, 2 * MIB - 3000), 8000);
	must(morsel_rdma_key(&grant, 2 * MIB + 7, &key));
	assert_int_equal(key.lkey, list[1].lkey);
	assert_int_equal(key.address, list[1].addr + 7);
	assert_int_equal(morsel_rdma_key(&grant, grant.offset - 1, &key), -EFAULT);
	assert_int_equal(morsel_rdma_key(&grant, grant.offset + 8000, &key), -EFAULT);
	assert_int_equal(morsel_rdma_list(&grant, grant.offset, grant.bytes, list, 1), -E2BIG);
	assert_int_equal(morsel_rdma_list(&grant, grant.offset, 8001, list, 4), -EFAULT);
	morsel_release(&grant);
	assert_int_equal(morsel_rdma_key(&grant, 2 * MIB, &key), -EFAULT);
	close_subject(lab, &s);
}

/* ---- what comes and goes ---- */

/* Revoked: the peer's access fails, and memory is intact; another share of the same bytes goes on.
 */
static void revoked(void **state)
{
	struct lab *lab = *state;
	struct subject s = open_subject(lab, MIB, MORSEL_SCATTERED, MORSEL_PAGES_4K, NULL);
	struct morsel_rdma_share one, two;
	uint32_t rkey;
	uint64_t address;

	must(morsel_rdma_share(s.view, 8192, 4096, BOTH, &one));
	must(morsel_rdma_share(s.view, 8192, 4096, MORSEL_READ, &two));
	assert_int_equal(info_of(&s).shares, 2);
	rkey = one.rkey;
	address = one.address;
	memset(byte_at(&s, 4096), 7, 3 * 4096);
	memset(lab->wire.buffer, 9, 4096);
	/* Not a byte beyond it, and no write by who may read. */
	assert_int_equal(wire_write(&lab->wire, address, rkey, 4097), -EFAULT);
	assert_int_equal(wire_write(&lab->wire, two.address, two.rkey, 8), -EFAULT);
	morsel_rdma_revoke(&one);
	morsel_rdma_revoke(&one);
	assert_int_equal(wire_write(&lab->wire, address, rkey, 64), -EFAULT);
	for (unsigned i = 0; i < 3 * 4096; i++)
		assert_int_equal(byte_at(&s, 4096)[i], 7);
	must(wire_read(&lab->wire, two.address, two.rkey, 64));
	morsel_rdma_revoke(&two);
	assert_int_equal(info_of(&s).bytes_pinned, 0);
	close_subject(lab, &s);
}

/* Under a grant it stays, and who holds it is named; after that the old key reaches nothing. */
static void evicted(void **state)
{
	struct lab *lab = *state;
	struct subject s =
		open_subject(lab, MIB, MORSEL_SCATTERED | MORSEL_EVICTABLE, MORSEL_PAGES_4K, NULL);
	struct morsel_rdma_key key;
	struct morsel_grant grant;

	fill(byte_at(&s, 0), MIB, 5);
	must(morsel_acquire(s.view, 40960, 8192, BOTH, &grant));
	must(morsel_rdma_key(&grant, 40960, &key));
	fill(lab->wire.buffer, 8192, 6);
	must(wire_write(&lab->wire, key.address, key.rkey, 8192));
	assert_int_equal(morsel_advise(s.morsel, 40960, 8192, MORSEL_ADVICE_EVICT), -EBUSY);
	assert_non_null(strstr(morsel_errormsg(), "held by a grant of process"));
	morsel_release(&grant);
	must(morsel_advise(s.morsel, 0, MIB, MORSEL_ADVICE_EVICT));
	assert_int_equal(info_of(&s).regions, 0);
	memset(lab->wire.buffer, 0, 4096);
	assert_int_equal(wire_write(&lab->wire, key.address, key.rkey, 4096), -EFAULT);
	assert_int_equal(wire_read(&lab->wire, key.address, key.rkey, 4096), -EFAULT);
	must(morsel_acquire(s.view, 40960, 8192, MORSEL_READ, &grant));
	must(morsel_rdma_key(&grant, 40960, &key));
	must(wire_read(&lab->wire, key.address, key.rkey, 8192));
	assert_memory_equal(lab->wire.buffer, byte_at(&s, 40960), 8192);
	fill(lab->wire.buffer, 8192, 6);
	assert_memory_equal(lab->wire.buffer, byte_at(&s, 40960), 8192);
	morsel_release(&grant);
	close_subject(lab, &s);
}

/* Evictions under a peer's traffic through grants: no lost and no stale byte. */
static void evicted_under_traffic(void **state)
{
	struct lab *lab = *state;
	struct subject s =
		open_subject(lab, MIB, MORSEL_SCATTERED | MORSEL_EVICTABLE, MORSEL_PAGES_4K, NULL);
	uint64_t random = test_seed(), version[256] = {0};

	memset(byte_at(&s, 0), 0, MIB);
	for (unsigned step = 1; step <= COUNT_RDMA_STEPS; step++) {
		unsigned page = (unsigned)(test_random(&random) % 256);
		struct morsel_rdma_key key;
		struct morsel_grant grant;
		uint64_t *words = (uint64_t *)lab->wire.buffer;

		if (!(test_random(&random) % 3))
			morsel_advise(s.morsel, page / 32 * 32 * PAGE, 32 * PAGE,
				      MORSEL_ADVICE_EVICT);
		must(morsel_acquire(s.view, page * PAGE, PAGE, BOTH, &grant));
		must(morsel_rdma_key(&grant, page * PAGE, &key));
		must(wire_read(&lab->wire, key.address, key.rkey, PAGE));
		for (unsigned i = 0; i < 512; i++)
			if (words[i] != version[page])
				fail_msg("step %u: page %u word %u is %llx, not %llx", step, page,
					 i, (unsigned long long)words[i],
					 (unsigned long long)version[page]);
		version[page] = step;
		for (unsigned i = 0; i < 512; i++)
			words[i] = step;
		must(wire_write(&lab->wire, key.address, key.rkey, PAGE));
		morsel_release(&grant);
	}
	close_subject(lab, &s);
}

/* ---- the cache ---- */

/* Again the same: nothing is registered. More than the cache holds: the oldest go. */
static void cached(void **state)
{
	struct lab *lab = *state;
	struct morsel_rdma_view_opts opts = {.size = sizeof(opts), .regions_max = 2};
	struct subject s = open_subject(lab, 8 * MIB, 0, MORSEL_PAGES_4K, &opts);
	struct morsel_grant grant[4];
	struct morsel_rdma_key key, again;

	for (unsigned i = 0; i < 4; i++)
		must(morsel_acquire(s.view, i * 2 * MIB + 100, 50, MORSEL_READ, &grant[i]));
	assert_int_equal(info_of(&s).regions, 4);
	assert_int_equal(info_of(&s).regions_held, 4);
	must(morsel_rdma_key(&grant[3], grant[3].offset, &key));
	for (unsigned i = 0; i < 4; i++)
		morsel_release(&grant[i]);
	assert_int_equal(info_of(&s).regions, 2);
	for (unsigned i = 0; i < 1000; i++) {
		must(morsel_acquire(s.view, 6 * MIB + i, 50, BOTH, &grant[0]));
		must(morsel_rdma_key(&grant[0], grant[0].offset, &again));
		assert_int_equal(again.rkey, key.rkey);
		morsel_release(&grant[0]);
	}
	assert_int_equal(info_of(&s).registered, 4);
	assert_int_equal(info_of(&s).deregistered, 2);
	must(morsel_acquire(s.view, 0, 8 * MIB, MORSEL_READ, &grant[0]));
	assert_int_equal(info_of(&s).regions_held, 4);
	assert_int_equal(info_of(&s).regions, 6);
	morsel_release(&grant[0]);
	close_subject(lab, &s);
}

/*
 * What a cache by address gets wrong: the memory goes, other memory comes to the same addresses,
 * and an entry that is still there sends the old pages.
 */
static void address_again(void **state)
{
	struct lab *lab = *state;

	for (unsigned i = 0; i < 20; i++) {
		struct subject s = open_subject(lab, MIB, 0, MORSEL_PAGES_4K, NULL);
		struct morsel_rdma_key key;
		struct morsel_grant grant;

		memset(byte_at(&s, 0), (int)i + 1, MIB);
		must(morsel_acquire(s.view, 0, 4096, MORSEL_READ, &grant));
		must(morsel_rdma_key(&grant, 0, &key));
		must(wire_read(&lab->wire, key.address, key.rkey, 4096));
		assert_int_equal(lab->wire.buffer[4095], i + 1);
		morsel_release(&grant);
		close_subject(lab, &s);
		assert_int_equal(wire_read(&lab->wire, key.address, key.rkey, 4096), -EFAULT);
	}
}

/* ---- refusals ---- */

static void refusals(void **state)
{
	struct lab *lab = *state;
	struct morsel_rdma_view_opts opts = {.size = sizeof(opts), .access = MORSEL_READ};
	struct subject s = open_subject(lab, MIB, 0, MORSEL_PAGES_4K, &opts);
	struct morsel_rdma_share share = {0};
	struct morsel_rdma_view_info info = {.size = sizeof(info)};
	struct morsel_grant grant;
	struct morsel_rdma_key key;
	struct morsel_view *view;

	assert_int_equal(morsel_rdma_share(s.view, 0, 4096, BOTH, &share), -EACCES);
	assert_int_equal(morsel_rdma_view(s.morsel, NULL, NULL, &view), -EINVAL);
	opts.way = 9;
	assert_int_equal(morsel_rdma_view(s.morsel, lab->wire.pd, &opts, &view), -EINVAL);
	assert_int_equal(morsel_rdma_view_info(s.cpu, &info), -EINVAL);
	assert_int_equal(morsel_rdma_share(s.cpu, 0, 4096, MORSEL_READ, &share), -EINVAL);
	must(morsel_acquire(s.view, 0, 4096, MORSEL_READ, &grant));
	must(morsel_rdma_key(&grant, 0, &key));
	memset(byte_at(&s, 0), 3, 64);
	assert_int_equal(wire_write(&lab->wire, key.address, key.rkey, 64), -EFAULT);
	assert_int_equal(byte_at(&s, 0)[0], 3);
	morsel_release(&grant);
	morsel_rdma_revoke(&share);
	close_subject(lab, &s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(moves_bytes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(lists, set_up, tear_down),
		cmocka_unit_test_setup_teardown(revoked, set_up, tear_down),
		cmocka_unit_test_setup_teardown(evicted, set_up, tear_down),
		cmocka_unit_test_setup_teardown(evicted_under_traffic, set_up, tear_down),
		cmocka_unit_test_setup_teardown(cached, set_up, tear_down),
		cmocka_unit_test_setup_teardown(address_again, set_up, tear_down),
		cmocka_unit_test_setup_teardown(refusals, set_up, tear_down),
	};
	struct wire wire;
	int rc = wire_open(&wire);

	if (rc == -ENODEV) {
		fprintf(stderr, "skipped: no RDMA device here\n");
		return 77;
	}
	if (rc)
		return 1;
	wire_close(&wire);
	return cmocka_run_group_tests_name("rdma views", tests, NULL, NULL);
}
