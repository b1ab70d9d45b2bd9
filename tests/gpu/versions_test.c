/*
 * Page versions between processes: what another process writes on its device is transferred here,
 * and nothing else; what a process that died was writing is never taken for known.
 *
 * OpenCL does not survive a fork: so the other process is made before this one has a device.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "gpu/cl_support.h"
#include "support/counts.h"

#define PAGES 256u
#define BYTES (PAGES * PAGE)

/* What the other process is told to do. */
struct order {
	char what; /* 'w' write and release, 'h' acquire for writing and hold, 'q' end */
	uint32_t page, pages;
	unsigned char value;
};

static struct {
	struct morsel_pool *pool;
	struct morsel *morsel;
	int orders[2], answers[2];
	pid_t child;
	struct morsel_cl cl;
	struct morsel_view *view; /* tier copy, here */
} t;

/* ---- the other process ---- */

static struct morsel_view *open_view(struct morsel *morsel, struct morsel_cl *cl, uint32_t tier)
{
	struct morsel_cl_opts opts = {
		.size = sizeof(opts), .tier = tier, .writers = MORSEL_CL_WRITERS_TELL};
	struct morsel_view *view;

	return morsel_cl_view(morsel, cl->context, &opts, &view) ? NULL : view;
}

static int obey(struct morsel_cl *cl, struct morsel_view *view, const struct order *order)
{
	unsigned char *bytes = malloc(order->pages * PAGE);
	struct morsel_cl_native native;
	struct morsel_grant grant;
	int rc;

	memset(bytes, order->value, order->pages * PAGE);
	rc = morsel_cl_acquire(view, order->page * PAGE, order->pages * PAGE, MORSEL_WRITE, NULL, 0,
			       NULL, &grant, NULL);
	if (!rc)
		rc = morsel_cl_native(&grant, &native);
	if (!rc)
		rc = clEnqueueWriteBuffer(cl->queue, native.mem, CL_TRUE, native.shift,
					  order->pages * PAGE, bytes, 0, NULL, NULL);
	if (!rc && order->what == 'w')
		rc = morsel_cl_release(&grant, NULL);
	free(bytes);
	return rc;
}

static void other_process(int fd)
{
	struct morsel_pool *pool = support_pool_again(fd);
	struct morsel_view *view = NULL;
	struct morsel_cl cl = {0};
	struct morsel *morsel;
	struct order order;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (pool && !morsel_open(pool, "m", NULL, &morsel) && !morsel_cl_open(NULL, &cl))
		view = open_view(morsel, &cl, MORSEL_CL_HOST_POINTER);
	while (view && read(t.orders[0], &order, sizeof(order)) == sizeof(order)) {
		int rc = order.what == 'q' ? 0 : obey(&cl, view, &order);

		if (write(t.answers[1], &rc, sizeof(rc)) != sizeof(rc) || order.what == 'q')
			break;
	}
	_exit(view ? 0 : 1);
}

static void tell(char what, uint32_t page, uint32_t pages, unsigned char value)
{
	struct order order = {what, page, pages, value};
	int rc = -1;

	assert_int_equal(write(t.orders[1], &order, sizeof(order)), sizeof(order));
	assert_int_equal(read(t.answers[0], &rc, sizeof(rc)), sizeof(rc));
	assert_int_equal(rc, 0);
}

/* ---- here ---- */

static uint64_t transferred(void)
{
	struct morsel_cl_stat stat = {.size = sizeof(stat)};

	assert_int_equal(morsel_cl_view_stat(t.view, &stat), 0);
	assert_int_equal(stat.pages_compared, 0);
	return stat.bytes_to_device;
}

/* Everything is acquired; the device's first byte of each page is as it should be. */
static uint64_t look(const unsigned char *want)
{
	uint64_t before = transferred();
	unsigned char *bytes = malloc(BYTES);
	struct morsel_cl_native native;
	struct morsel_grant grant;

	assert_int_equal(
		morsel_cl_acquire(t.view, 0, BYTES, MORSEL_READ, NULL, 0, NULL, &grant, NULL), 0);
	assert_int_equal(morsel_cl_native(&grant, &native), 0);
	assert_int_equal(clEnqueueReadBuffer(t.cl.queue, native.mem, CL_TRUE, 0, BYTES, bytes, 0,
					     NULL, NULL),
			 0);
	for (uint32_t page = 0; page < PAGES; page++)
		assert_int_equal(bytes[page * PAGE], want[page]);
	assert_int_equal(morsel_cl_release(&grant, NULL), 0);
	free(bytes);
	return (transferred() - before) / PAGE;
}

static void test_other_process(void **state)
{
	unsigned char want[PAGES] = {0};
	uint64_t random = test_seed();

	assert_int_equal(look(want), PAGES);
	assert_int_equal(look(want), 0);
	for (unsigned round = 1; round < 30; round++) {
		uint32_t page = (uint32_t)(test_random(&random) % PAGES);
		uint32_t pages = 1 + (uint32_t)(test_random(&random) % 20);

		pages = page + pages > PAGES ? PAGES - page : pages;
		tell('w', page, pages, (unsigned char)round);
		memset(want + page, (int)round, pages);
		assert_int_equal(look(want), pages);
	}
	/* Held, it is being written: transferred each time, and not known. */
	tell('h', 40, 3, 99);
	memset(want + 40, 99, 3);
	assert_int_equal(look(want), 3);
	assert_int_equal(look(want), 3);
	/* Dead, it stays so. */
	kill(t.child, SIGKILL);
	assert_int_equal(waitpid(t.child, NULL, 0), t.child);
	t.child = 0;
	assert_true(morsel_pool_reap(t.pool) >= 0);
	assert_int_equal(look(want), 3);
}

/* Versions go when their morsel has gone, and somebody makes new ones. */
static void test_orphans(void **state)
{
	struct morsel *other = support_morsel(t.pool, "other", PAGE, 0, 0), *found;
	struct morsel_info info = {.size = sizeof(info)};
	struct morsel_view *view = open_view(other, &t.cl, MORSEL_CL_COPY);
	char name[64];

	assert_non_null(view);
	assert_int_equal(morsel_info(other, &info), 0);
	snprintf(name, sizeof(name), ".versions.%llu", (unsigned long long)info.id);
	assert_int_equal(morsel_open(t.pool, name, NULL, &found), 0);
	assert_int_equal(morsel_close(found), 0);
	morsel_view_destroy(view);
	assert_int_equal(morsel_close(other), 0);
	assert_int_equal(morsel_unlink(t.pool, "other"), 0);
	view = open_view(t.morsel, &t.cl, MORSEL_CL_COPY);
	assert_non_null(view);
	assert_int_equal(morsel_open(t.pool, name, NULL, &found), -ENOENT);
	morsel_view_destroy(view);
}

static int set_up(void **state)
{
	int fd;

	t.pool = support_pool();
	t.morsel = support_morsel(t.pool, "m", BYTES, 0, 0);
	assert_int_equal(pipe(t.orders) + pipe(t.answers), 0);
	fd = dup(morsel_pool_fd(t.pool));
	t.child = fork();
	if (!t.child)
		other_process(fd);
	close(fd);
	close(t.answers[1]);
	if (morsel_cl_open(NULL, &t.cl))
		fail_msg("%s", morsel_errormsg());
	t.view = open_view(t.morsel, &t.cl, MORSEL_CL_COPY);
	if (!t.view)
		fail_msg("%s", morsel_errormsg());
	return 0;
}

static int tear_down(void **state)
{
	if (t.child > 0)
		kill(t.child, SIGKILL);
	morsel_view_destroy(t.view);
	morsel_cl_close(&t.cl);
	assert_int_equal(morsel_close(t.morsel), 0);
	return morsel_pool_close(t.pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_other_process),
		cmocka_unit_test(test_orphans),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
