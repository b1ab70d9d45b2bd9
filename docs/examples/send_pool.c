/*
 * A pool without a name: anonymous memory, handed to another process over a socket. It is gone when
 * the last of them is.
 *
 *     $ send_pool
 *     the child wrote: hello from the child
 */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <morsel/morsel.h>

static int fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, morsel_errormsg());
	return 1;
}

/* Opens the morsel "note" and writes into it, or prints what is in it. */
static int note(struct morsel_pool *pool, const char *text)
{
	struct morsel_view *view;
	struct morsel *morsel;

	if (morsel_open(pool, "note", NULL, &morsel) < 0)
		return fail("open");
	if (morsel_map(morsel, NULL, &view) < 0)
		return fail("map");
	if (text)
		strcpy(morsel_addr(view), text);
	else
		printf("the child wrote: %s\n", (char *)morsel_addr(view));
	morsel_view_destroy(view);
	morsel_close(morsel);
	return 0;
}

static int child(int socket)
{
	struct morsel_pool *pool;
	int code;

	if (morsel_pool_receive(socket, NULL, &pool) < 0)
		return fail("receive");
	code = note(pool, "hello from the child");
	morsel_pool_close(pool);
	return code;
}

int main(void)
{
	struct morsel_pool_opts pool_opts = {
		.size = sizeof(pool_opts), .flags = MORSEL_POOL_CREATE, .bytes = 64 << 20};
	struct morsel_opts opts = {.size = sizeof(opts), .flags = MORSEL_CREATE, .bytes = 4096};
	struct morsel_pool *pool;
	struct morsel *morsel;
	int ends[2], status;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
		return 1;
	if (fork() == 0)
		_exit(child(ends[1]));
	if (morsel_pool_open(NULL, &pool_opts, &pool) < 0)
		return fail("pool");
	if (morsel_open(pool, "note", &opts, &morsel) < 0)
		return fail("create");
	morsel_close(morsel);
	if (morsel_pool_send(pool, ends[0]) < 0)
		return fail("send");
	wait(&status);
	if (status)
		return 1;
	status = note(pool, NULL);
	morsel_pool_close(pool);
	return status;
}
