/*
 * What a child of fork gets from handles that it inherited: -ECHILD in words, from every function,
 * and a way to put them away. The parent's are as they were.
 */
#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

#include "object_support.h"

static struct morsel_pool *pool;
static struct morsel *morsel;
static struct morsel_view *view;

static int list_none(void *ctx, const struct morsel_info *info)
{
	return 0;
}

static int run_none(void *ctx, const struct morsel_run *run)
{
	return 0;
}

static int use_open(void)
{
	struct morsel *other;

	return morsel_open(pool, "inherited", NULL, &other);
}

static int use_create(void)
{
	struct morsel_opts opts = {.size = sizeof(opts), .flags = MORSEL_CREATE, .bytes = 1};
	struct morsel *other;

	return morsel_open(pool, "new", &opts, &other);
}

static int use_import(void)
{
	struct morsel *other;

	return morsel_import(pool, "new", "/proc/self/exe", NULL, &other);
}

static int use_export(void)
{
	return morsel_export(morsel, "/nowhere/at/all", NULL);
}

static int use_list(void)
{
	return morsel_list(pool, list_none, NULL);
}

static int use_info(void)
{
	struct morsel_info info = {.size = sizeof(info)};

	return morsel_info(morsel, &info);
}

static int use_runs(void)
{
	return morsel_runs(morsel, 0, 1, run_none, NULL);
}

static int use_tensor(void)
{
	struct morsel_tensor tensor;

	return morsel_tensor(morsel, "a", &tensor);
}

static int use_tensor_at(void)
{
	struct morsel_tensor tensor;

	return morsel_tensor_at(morsel, 0, &tensor);
}

static int use_unlink(void)
{
	return morsel_unlink(pool, "inherited");
}

static int use_rename(void)
{
	return morsel_rename(pool, "inherited", "other");
}

static int use_publish(void)
{
	return morsel_publish(morsel, "other");
}

static int use_resize(void)
{
	return morsel_resize(morsel, 2 * MIB);
}

static int use_seal(void)
{
	return morsel_seal(morsel);
}

static int use_advise(void)
{
	return morsel_advise(morsel, 0, 1, MORSEL_ADVICE_PREFETCH);
}

static int use_map(void)
{
	struct morsel_view *other;

	return morsel_map(morsel, NULL, &other);
}

static int use_acquire(void)
{
	struct morsel_grant grant;

	return morsel_acquire(view, 0, 1, MORSEL_READ, &grant);
}

static int (*const uses[])(void) = {
	use_open,   use_create, use_import, use_export,	 use_list,    use_info,
	use_runs,   use_tensor, use_unlink, use_rename,	 use_resize,  use_tensor_at,
	use_advise, use_seal,	use_map,    use_acquire, use_publish,
};

/* The number of what did not answer as it must, or 0. */
static int child(void)
{
	for (size_t i = 0; i < mrs_array_length(uses); i++)
		if (uses[i]() != -ECHILD || !strstr(morsel_errormsg(), "anew"))
			return 1 + (int)i;
	morsel_view_destroy(view);
	if (morsel_close(morsel) || morsel_pool_close(pool))
		return 100;
	return 0;
}

static void test_inherited_handles(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	pool = object_pool(64 * MIB);
	morsel = object_create(pool, "inherited", MIB, 0, MORSEL_PAGES_MIXED);
	assert_ok(morsel_map(morsel, NULL, &view));
	pid = fork();
	assert_true(pid >= 0);
	if (!pid)
		_exit(child());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(object_info(morsel).users, 1);
	assert_int_equal(morsel_close(morsel), -EBUSY);
	morsel_view_destroy(view);
	assert_ok(morsel_close(morsel));
	object_pool_end(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_inherited_handles),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
