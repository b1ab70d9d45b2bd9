/* Fail-the-n-th scenarios of <morsel/swap.h>. */
#include <stdio.h>
#include <unistd.h>

#include <morsel/swap.h>

#include "stress/fail_nth_scenarios.h"
#include "support/fail_nth.h"

static int add(struct bench *b, const char *path, unsigned *id)
{
	struct morsel_swap_opts opts = {.size = sizeof(opts),
					.path = path,
					.bytes = 1 << 20,
					.flags = path ? MORSEL_SWAP_PLAIN_IO : 0};

	return morsel_swap_add(b->pool, &opts, id);
}

static int act_add(struct bench *b)
{
	char path[80];
	unsigned id;
	int code;

	snprintf(path, sizeof(path), "%s.swap", b->pool_path);
	code = scenario_done(add(b, path, &id));
	if (!code)
		code = morsel_swap_remove(b->pool, id, 0);
	if (!code && !access(path, F_OK))
		code = -1;
	return code;
}

/* Whatever step of it fails, a second try ends it. */
static int act_remove(struct bench *b)
{
	unsigned id;
	int code;

	fail_nth_disarm();
	code = add(b, NULL, &id);

	if (code)
		return code;
	scenario_arm();
	code = scenario_done(morsel_swap_remove(b->pool, id, 0));
	if (code)
		morsel_swap_remove(b->pool, id, 0);
	return code;
}

static int count_one(void *ctx, const struct morsel_swap_info *info)
{
	++*(unsigned *)ctx;
	return 0;
}

static int act_list(struct bench *b)
{
	unsigned id, count = 0;
	int code;

	fail_nth_disarm();
	code = add(b, NULL, &id);

	if (code)
		return code;
	scenario_arm();
	code = scenario_done(morsel_swap_list(b->pool, count_one, &count));
	morsel_swap_remove(b->pool, id, 0);
	return code ? code : count == 1 ? 0 : -1;
}

static int driver_open(void *ctx, const char *place, void **handle, uint64_t *bytes)
{
	return -1;
}

static void driver_close(void *handle)
{
}

static void driver_run(void *handle, int write, struct morsel_swap_io *io, unsigned count)
{
}

static const struct morsel_swap_driver_ops driver_ops = {.size = sizeof(driver_ops),
							 .version = MORSEL_SWAP_DRIVER_VERSION,
							 .scheme = "nowhere",
							 .open = driver_open,
							 .close = driver_close,
							 .run = driver_run};

static int act_driver_register(struct bench *b)
{
	struct morsel_swap_driver *driver;
	int code = scenario_done(morsel_swap_driver_register(&driver_ops, NULL, &driver));

	return code ? code : morsel_swap_driver_unregister(driver);
}

static int act_driver_unregister(struct bench *b)
{
	struct morsel_swap_driver *driver;
	int code;

	fail_nth_disarm();
	code = morsel_swap_driver_register(&driver_ops, NULL, &driver);
	if (code)
		return code;
	scenario_arm();
	return scenario_done(morsel_swap_driver_unregister(driver));
}

const struct scenario swap_scenarios[] = {
	{"morsel_swap_add", act_add},
	{"morsel_swap_remove", act_remove},
	{"morsel_swap_list", act_list},
	{"morsel_swap_driver_register", act_driver_register},
	{"morsel_swap_driver_unregister", act_driver_unregister},
};
const size_t swap_scenarios_count = sizeof(swap_scenarios) / sizeof(swap_scenarios[0]);
