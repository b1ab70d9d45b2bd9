/*
 * Writes lines to whoever runs reader.c: two processes, one memory, no system call per line.
 *
 *     $ reader /dev/shm/ring > got & seq 1 1000 | writer /dev/shm/ring; wait; cmp got <(seq 1 1000)
 *     $ morsel list --json /dev/shm/ring
 *     {
 *       "morsels": []
 *     }
 */
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include <morsel/morsel.h>

#include "channel.h"

static int fail(const char *what)
{
	fprintf(stderr, "writer: %s: %s\n", what, morsel_errormsg());
	return 1;
}

static void put(struct channel *channel, const char *text, uint32_t bytes)
{
	uint64_t at = atomic_load_explicit(&channel->written, memory_order_relaxed);

	/* acquire: what the reader has read may be written over */
	while (at - atomic_load_explicit(&channel->read, memory_order_acquire) == MESSAGES)
		sched_yield();
	memcpy(channel->message[at % MESSAGES].text, text, bytes);
	channel->message[at % MESSAGES].bytes = bytes;
	/* release: the reader that sees the counter sees the message */
	atomic_store_explicit(&channel->written, at + 1, memory_order_release);
}

int main(int argc, char **argv)
{
	struct morsel_pool_opts pool_opts = {
		.size = sizeof(pool_opts), .flags = MORSEL_POOL_CREATE, .bytes = 64 << 20};
	struct morsel_opts opts = {
		.size = sizeof(opts), .flags = MORSEL_CREATE, .bytes = sizeof(struct channel)};
	char line[MESSAGE_SIZE];
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
	while (fgets(line, sizeof(line), stdin))
		put(morsel_addr(view), line, (uint32_t)strlen(line));
	put(morsel_addr(view), "", 0);
	morsel_view_destroy(view);
	morsel_close(morsel);
	morsel_pool_close(pool);
	return 0;
}
