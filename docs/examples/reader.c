/*
 * Prints the lines that writer.c writes, until its end; whoever of the two comes first makes the
 * morsel. Its name goes at the end; its memory, when the last of them has closed it.
 *
 *     $ echo hello | writer /dev/shm/ring & reader /dev/shm/ring; wait
 *     hello
 */
#include <sched.h>
#include <stdio.h>

#include <morsel/morsel.h>

#include "channel.h"

static int fail(const char *what)
{
	fprintf(stderr, "reader: %s: %s\n", what, morsel_errormsg());
	return 1;
}

/* Prints one message; answers its length, 0 at the end. */
static uint32_t get(struct channel *channel)
{
	uint64_t at = atomic_load_explicit(&channel->read, memory_order_relaxed);
	uint32_t bytes;

	/* acquire: pairs with the writer's release of the counter */
	while (atomic_load_explicit(&channel->written, memory_order_acquire) == at)
		sched_yield();
	bytes = channel->message[at % MESSAGES].bytes;
	fwrite(channel->message[at % MESSAGES].text, 1, bytes, stdout);
	/* release: pairs with the writer's acquire before it writes over the message */
	atomic_store_explicit(&channel->read, at + 1, memory_order_release);
	return bytes;
}

int main(int argc, char **argv)
{
	struct morsel_pool_opts pool_opts = {
		.size = sizeof(pool_opts), .flags = MORSEL_POOL_CREATE, .bytes = 64 << 20};
	struct morsel_opts opts = {
		.size = sizeof(opts), .flags = MORSEL_CREATE, .bytes = sizeof(struct channel)};
	struct morsel_pool *pool;
	struct morsel_view *view;
	struct morsel *morsel;

	if (argc != 2)
		return 2;
	if (morsel_pool_open(argv[1], &pool_opts, &pool) < 0)
		return fail(argv[1]);
	if (morsel_open(pool, CHANNEL_NAME, &opts, &morsel) < 0)
		return fail("open");
	if (morsel_map(morsel, NULL, &view) < 0)
		return fail("map");
	while (get(morsel_addr(view)))
		continue;
	morsel_unlink(pool, CHANNEL_NAME);
	morsel_view_destroy(view);
	morsel_close(morsel);
	morsel_pool_close(pool);
	return 0;
}
