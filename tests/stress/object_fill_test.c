/*
 * Threads that fill overlapping ranges of one lazy morsel, the one with giant pages, the other with
 * huge ones inside: whoever gets a grant finds every page of it there.
 */
#include <pthread.h>
#include <unistd.h>

#include "core/object_support.h"

#define ROUNDS 4
#define PARTS  32u

/* Small grants from the end on, while the other has all of it backed. */
static void *fill_parts(void *arg)
{
	struct morsel_view *view = arg;
	struct morsel_grant grant;

	for (uint64_t i = 1; i <= PARTS; i++) {
		if (morsel_acquire(view, GIB - i * 2 * MIB, 4096, MORSEL_READ | MORSEL_WRITE,
				   &grant))
			return "a small grant failed";
		*(volatile uint64_t *)grant.addr = i;
		morsel_release(&grant);
		usleep(1000);
	}
	return NULL;
}

static void check_parts(const unsigned char *content)
{
	for (uint64_t i = 1; i <= PARTS; i++)
		assert_int_equal(*(const uint64_t *)(content + GIB - i * 2 * MIB), i);
}

static void one_round(struct morsel_pool *pool, unsigned round)
{
	struct morsel_map_opts opts = {.size = sizeof(opts), .kind = MORSEL_VIEW_STITCHED};
	struct morsel *morsel = object_create(pool, "lazy", GIB, MORSEL_LAZY, MORSEL_PAGES_MIXED);
	struct morsel_view *whole, *parts;
	struct morsel_grant grant;
	pthread_t thread;
	void *failed;
	int rc;

	assert_ok(morsel_map(morsel, &opts, &whole));
	assert_ok(morsel_map(morsel, &opts, &parts));
	assert_int_equal(pthread_create(&thread, NULL, fill_parts, parts), 0);
	usleep(round * 300);
	rc = morsel_acquire(whole, 0, GIB, MORSEL_READ | MORSEL_WRITE, &grant);
	pthread_join(thread, &failed);
	if (failed)
		fail_msg("%s", (const char *)failed);
	assert_ok(rc);
	check_parts(grant.addr);
	morsel_release(&grant);
	morsel_view_destroy(parts);
	morsel_view_destroy(whole);
	assert_ok(morsel_close(morsel));
	assert_ok(morsel_unlink(pool, "lazy"));
}

static void test_overlapping_fills(void **state)
{
	struct morsel_pool *pool = object_pool(4 * GIB);

	(void)state;
	for (unsigned i = 0; i < ROUNDS; i++)
		one_round(pool, i);
	object_pool_end(pool);
}

/* Each round has 1 GiB resident, and for a moment a second one. */
static bool memory_is_short(void)
{
	FILE *f = fopen("/proc/meminfo", "re");
	unsigned long long kib = 0;
	char line[128];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "MemAvailable: %llu", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib < 3ull << 20;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_overlapping_fills),
	};

	if (memory_is_short()) {
		printf("skipped: needs 3 GiB of available memory\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
