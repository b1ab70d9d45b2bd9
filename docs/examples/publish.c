/*
 * A table of accounts that changes as a whole: each change is made in a copy that nobody sees, and
 * published under the old name at one instant. A second process reads all the time, and never finds
 * money missing; it gets the old table or the new, never a mix.
 *
 *     $ publish /dev/shm/bank
 *     200 transfers, every sum was 100000
 *     $ morsel list --json /dev/shm/bank | grep '"name"'
 *           "name": "accounts",
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <morsel/morsel.h>

#define ACCOUNTS  1000
#define EACH	  100
#define TRANSFERS 200

static int fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, morsel_errormsg());
	return 1;
}

/* Opens (or creates) a table and maps it; 0, or a negative errno in words. */
static int table_open(struct morsel_pool *pool, const char *name, uint32_t flags,
		      struct morsel **morsel, struct morsel_view **view)
{
	struct morsel_opts opts = {
		.size = sizeof(opts), .flags = flags, .bytes = ACCOUNTS * sizeof(int64_t)};
	int rc = morsel_open(pool, name, &opts, morsel);

	if (rc < 0)
		return rc;
	rc = morsel_map(*morsel, NULL, view);
	if (rc < 0)
		morsel_close(*morsel);
	return rc;
}

static void table_close(struct morsel *morsel, struct morsel_view *view)
{
	morsel_view_destroy(view);
	morsel_close(morsel);
}

/* Moves one from an account to another, in a copy, and publishes that. */
static int transfer(struct morsel_pool *pool, int from, int to)
{
	struct morsel *now, *next;
	struct morsel_view *now_view, *next_view;
	int64_t *account;
	int rc = table_open(pool, "accounts", 0, &now, &now_view);

	if (rc < 0)
		return rc;
	rc = table_open(pool, "accounts.next", MORSEL_CREATE | MORSEL_EXCL, &next, &next_view);
	if (rc >= 0) {
		account = morsel_addr(next_view);
		memcpy(account, morsel_addr(now_view), ACCOUNTS * sizeof(*account));
		account[from]--;
		account[to]++;
		rc = morsel_publish(next, "accounts");
		table_close(next, next_view);
	}
	table_close(now, now_view);
	return rc;
}

/* Sums up until the first account says that all transfers were made; 0 if every sum was right. */
static int watch(const char *path)
{
	struct morsel_pool *pool;
	struct morsel_view *view;
	struct morsel *morsel;
	int64_t first = EACH;
	int wrong = 0;

	if (morsel_pool_open(path, NULL, &pool) < 0)
		return fail("reader");
	while (first > EACH - TRANSFERS && !wrong) {
		int64_t sum = 0;
		const int64_t *account;
		int i;

		if (table_open(pool, "accounts", 0, &morsel, &view) < 0)
			return fail("reader");
		account = morsel_addr(view);
		for (i = 0; i < ACCOUNTS; i++)
			sum += account[i];
		first = account[0];
		wrong = sum != ACCOUNTS * EACH;
		table_close(morsel, view);
	}
	morsel_pool_close(pool);
	return wrong;
}

static int fill(struct morsel_pool *pool)
{
	struct morsel_view *view;
	struct morsel *morsel;
	int64_t *account;
	int rc = table_open(pool, "accounts.next", MORSEL_CREATE | MORSEL_EXCL, &morsel, &view);
	int i;

	if (rc < 0)
		return rc;
	account = morsel_addr(view);
	for (i = 0; i < ACCOUNTS; i++)
		account[i] = EACH;
	rc = morsel_publish(morsel, "accounts");
	table_close(morsel, view);
	return rc;
}

int main(int argc, char **argv)
{
	struct morsel_pool_opts opts = {
		.size = sizeof(opts), .flags = MORSEL_POOL_CREATE, .bytes = 64 << 20};
	struct morsel_pool *pool;
	int i, status;
	pid_t child;

	if (argc != 2)
		return 2;
	if (morsel_pool_open(argv[1], &opts, &pool) < 0)
		return fail(argv[1]);
	if (fill(pool) < 0)
		return fail("fill");
	child = fork();
	if (child == 0)
		_exit(watch(argv[1])); /* a child opens the pool itself: nothing is inherited */
	for (i = 0; i < TRANSFERS; i++)
		if (transfer(pool, 0, 1 + i % (ACCOUNTS - 1)) < 0)
			return fail("transfer");
	waitpid(child, &status, 0);
	morsel_pool_close(pool);
	if (!WIFEXITED(status) || WEXITSTATUS(status)) {
		fprintf(stderr, "the reader saw a mix\n");
		return 1;
	}
	printf("%d transfers, every sum was %d\n", TRANSFERS, ACCOUNTS * EACH);
	return 0;
}
