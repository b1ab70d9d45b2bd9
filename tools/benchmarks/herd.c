#include "herd.h"

#include "bench.h"
#include "pages.h"
#include "probe.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <morsel/morsel.h>

struct order {
	uint64_t what, first, pages, arg;
};

struct member {
	unsigned index;
	uint64_t *at;
	bool writable;
};

static void enter_group(const char *group)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/cgroup.procs", group);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "0", 1) != 1)
		bench_die("cannot enter the memory cgroup %s", group);
	close(fd);
}

static void *map_plain(const struct herd_object *object)
{
	int prot = PROT_READ | (object->writable ? PROT_WRITE : 0);
	void *at = mmap(MAP_HINT, object->bytes, prot, MAP_SHARED, object->fd, 0);

	if (at == MAP_FAILED)
		bench_die("mmap in a member of the herd failed");
	return at;
}

static void *map_morsel(const struct herd_object *object)
{
	struct morsel_map_opts opts = {.size = sizeof(opts),
				       .access =
					       MORSEL_READ | (object->writable ? MORSEL_WRITE : 0)};
	struct morsel_pool *pool;
	struct morsel *morsel;
	struct morsel_view *view;

	if (morsel_pool_open_fd(object->fd, NULL, &pool) ||
	    morsel_open(pool, object->name, NULL, &morsel) || morsel_map(morsel, &opts, &view))
		bench_die("a member of the herd: %s", morsel_errormsg());
	return morsel_addr(view);
}

static uint64_t *page_at(const struct member *member, uint64_t page)
{
	return member->at + page * PAGE_WORDS;
}

static struct herd_sum read_pages(const struct member *member, const struct order *order)
{
	struct herd_sum sum = {0};
	uint64_t page;

	for (page = order->first; page < order->first + order->pages; page++)
		sum.done += *(volatile uint64_t *)page_at(member, page) | 1 ? 1 : 0;
	return sum;
}

static struct herd_sum write_pages(const struct member *member, const struct order *order)
{
	struct herd_sum sum = {.done = order->pages};
	uint64_t page;

	for (page = order->first; page < order->first + order->pages; page++)
		((volatile uint64_t *)page_at(member, page))[1 + member->index] += 1;
	return sum;
}

/* Word 0 of each page is its number; a writer counts its own word up. */
static struct herd_sum random_pages(const struct member *member, const struct order *order)
{
	uint64_t end = bench_now() + order->arg, state = member->index * 0x9e3779b97f4a7c15ull + 1;
	struct herd_sum sum = {0};

	do {
		unsigned i;

		for (i = 0; i < 16; i++, sum.done++) {
			volatile uint64_t *word;
			uint64_t page;

			/* xorshift64 (Marsaglia, 2003) */
			state ^= state << 13;
			state ^= state >> 7;
			state ^= state << 17;
			page = order->first + state % order->pages;
			word = page_at(member, page);
			sum.wrong += word[0] != page_number(page);
			if (member->writable && !(state >> 32 & 3))
				word[1 + member->index] += 1;
		}
	} while (bench_now() < end);
	return sum;
}

static void serve(const struct member *member, int socket)
{
	struct order order;

	while (probe_transfer(socket, &order, sizeof(order), false) && order.what != HERD_END) {
		struct herd_sum sum = order.what == HERD_READ	 ? read_pages(member, &order)
				      : order.what == HERD_WRITE ? write_pages(member, &order)
								 : random_pages(member, &order);

		if (!probe_transfer(socket, &sum, sizeof(sum), true))
			break;
	}
	_exit(0);
}

static void member_main(const struct herd_object *object, unsigned index, int socket)
{
	struct member member = {.index = index, .writable = object->writable};
	char ready = 1;

	/* However the parent ends. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (object->group)
		enter_group(object->group);
	member.at = object->name ? map_morsel(object) : map_plain(object);
	if (probe_transfer(socket, &ready, 1, true))
		serve(&member, socket);
	_exit(1);
}

/* A member is gone: why, and the end. */
static void mourn(struct herd *herd, unsigned i)
{
	int status = 0;

	waitpid(herd->pid[i], &status, 0);
	bench_die("member %u of the herd died: %s %d", i,
		  WIFSIGNALED(status) ? "signal" : "exit code",
		  WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

void herd_start(struct herd *herd, unsigned count, const struct herd_object *given)
{
	struct herd_object copy = *given, *object = &copy;
	unsigned i;
	char ready;

	/* In a child of fork the pool's own descriptor is closed. */
	copy.fd = fcntl(given->fd, F_DUPFD_CLOEXEC, 0);
	if (copy.fd < 0)
		bench_die("no descriptor is left");
	herd->count = count;
	for (i = 0; i < count; i++) {
		int pair[2];

		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
			bench_die("socketpair failed");
		fflush(NULL);
		herd->pid[i] = fork();
		if (herd->pid[i] < 0)
			bench_die("fork failed");
		if (!herd->pid[i])
			member_main(object, i, pair[1]);
		close(pair[1]);
		herd->socket[i] = pair[0];
		if (!probe_transfer(pair[0], &ready, 1, false))
			mourn(herd, i);
	}
	close(copy.fd);
}

struct herd_sum herd_order(struct herd *herd, enum herd_order what, uint64_t first, uint64_t pages,
			   uint64_t arg)
{
	struct order order = {what, first, pages, arg};
	struct herd_sum sum = {0}, one;
	unsigned i;

	for (i = 0; i < herd->count; i++)
		if (!probe_transfer(herd->socket[i], &order, sizeof(order), true))
			mourn(herd, i);
	for (i = 0; i < herd->count; i++) {
		if (!probe_transfer(herd->socket[i], &one, sizeof(one), false))
			mourn(herd, i);
		sum.done += one.done;
		sum.wrong += one.wrong;
	}
	return sum;
}

void herd_end(struct herd *herd)
{
	struct order order = {.what = HERD_END};
	unsigned i;

	for (i = 0; i < herd->count; i++) {
		probe_transfer(herd->socket[i], &order, sizeof(order), true);
		close(herd->socket[i]);
		waitpid(herd->pid[i], NULL, 0);
	}
	herd->count = 0;
}
