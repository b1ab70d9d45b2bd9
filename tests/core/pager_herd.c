/* See pager_herd.h. */
#include "core/pager_herd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <signal.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/atomic.h"
#include "base/base.h"
#include "core/view_support.h"
#include "pool/internal.h"

struct herd_shared *herd;

#define BYTES (HERD_PAGES * PAGE)

/* ---- doubles ---- */

static uint32_t self(void)
{
	return (uint32_t)getpid();
}

static bool try_lock(unsigned page)
{
	uint32_t free_word = 0;

	return mrs_cas32(&herd->lock[page], &free_word, self());
}

static void unlock(unsigned page)
{
	mrs_store_release32(&herd->lock[page], 0);
}

int __wrap_mrs_fault(struct morsel *morsel, const struct mrs_window *window, uint64_t page,
		     enum mrs_fault_kind kind);
int __wrap_mrs_fault(struct morsel *morsel, const struct mrs_window *window, uint64_t page,
		     enum mrs_fault_kind kind)
{
	uint64_t address = window->address + (page - window->first) * PAGE;

	(void)morsel;
	mrs_fetch_add(&herd->faults, 1);
	if (!try_lock((unsigned)page))
		return kind & MRS_FAULT_TRY ? -EAGAIN : -EBUSY;
	if ((kind & 3) == MRS_FAULT_PROTECTED)
		mrs_uffd_protect(window->fd, address, PAGE, false);
	else
		mrs_uffd_copy(window->fd, (void *)(uintptr_t)address, herd->saved[page], PAGE,
			      false);
	unlock((unsigned)page);
	return 0;
}

int __wrap_mrs_registry_each(struct morsel_pool *pool, uint64_t family, uint64_t first,
			     uint64_t end, int (*fn)(void *, const struct mrs_seen_view *),
			     void *ctx);
int __wrap_mrs_registry_each(struct morsel_pool *pool, uint64_t family, uint64_t first,
			     uint64_t end, int (*fn)(void *, const struct mrs_seen_view *),
			     void *ctx)
{
	uint64_t count = mrs_load_acquire(&herd->views);
	int rc = 0;

	(void)pool;
	for (uint64_t i = 0; i < count && !rc && family == HERD_FAMILY; i++)
		if (mrs_load_acquire(&herd->view[i].record) && herd->view[i].first < end &&
		    first < herd->view[i].first + herd->view[i].pages)
			rc = fn(ctx, &herd->view[i]);
	return rc;
}

uint64_t __wrap_mrs_registry_family(struct morsel_pool *pool, uint64_t record);
uint64_t __wrap_mrs_registry_family(struct morsel_pool *pool, uint64_t record)
{
	(void)pool;
	return record ? HERD_FAMILY : 0;
}

int __wrap_mrs_evict_serve(struct morsel_pool *pool, uint32_t op, uint64_t record, uint64_t first,
			   uint64_t count, uint64_t *arg);
int __wrap_mrs_evict_serve(struct morsel_pool *pool, uint32_t op, uint64_t record, uint64_t first,
			   uint64_t count, uint64_t *arg)
{
	(void)pool;
	(void)record;
	while (mrs_load_acquire32(&herd->hold_jobs))
		usleep(1000);
	mrs_fetch_add32(&herd->served, 1);
	*arg = first + count;
	return op == MRS_REQUEST_EVICT ? 0 : -ENOSPC;
}

int64_t __wrap_mrs_evictor_tick(struct morsel_pool *pool);
int64_t __wrap_mrs_evictor_tick(struct morsel_pool *pool)
{
	(void)pool;
	mrs_fetch_add32(&herd->ticks, 1);
	return INT64_MAX;
}

uint32_t *__wrap_mrs_evictor_bell(struct morsel_pool *pool);
uint32_t *__wrap_mrs_evictor_bell(struct morsel_pool *pool)
{
	(void)pool;
	return &herd->bell;
}

void __wrap_mrs_mail_answer(struct morsel_pool *pool, uint64_t word, int result, uint64_t arg);
void __wrap_mrs_mail_answer(struct morsel_pool *pool, uint64_t word, int result, uint64_t arg)
{
	(void)pool;
	(void)arg;
	mrs_store_release(&herd->answer_word, word);
	mrs_store_release32((uint32_t *)&herd->answer, (uint32_t)result);
	mrs_fetch_add32(&herd->answered, 1);
}

/* ---- what a process does ---- */

static struct {
	char *view;
	unsigned page;
	unsigned index; /* its word */
	uint64_t count;
	uint32_t stop;
	pthread_t thread;
	bool counts;
} me;

static void list_view(struct morsel_pool *pool)
{
	uint64_t index = mrs_fetch_add(&herd->views, 1);

	herd->view[index] = (struct mrs_seen_view){
		.slot = pool->slot,
		.generation = mrs_pool_slot_generation(pool, pool->slot),
		.pid = self(),
		.first = 0,
		.pages = HERD_PAGES,
		.address = (uintptr_t)me.view,
		.flags = MRS_VIEW_CPU | MRS_VIEW_WRITABLE | MRS_VIEW_POOLED,
	};
	mrs_store_release(&herd->view[index].record, 1);
	mrs_fetch_add(&mrs_pool_state(pool)->registry, 1);
	me.index = (unsigned)index;
}

static int map_view(struct morsel_pool *pool, uint64_t how)
{
	struct mrs_region region = {.bytes = BYTES, .pool = pool, .writable = true};
	int rc;

	me.view = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, morsel_pool_fd(pool),
		       HERD_FRAME * PAGE);
	if (me.view == MAP_FAILED || madvise(me.view, BYTES, MADV_DONTFORK))
		return -errno;
	region.address = (uintptr_t)me.view;
	rc = mrs_region_add(&region);
	if (!rc)
		rc = mrs_uffd_register(pool, me.view, BYTES);
	if (!rc && how)
		list_view(pool);
	return !rc && how > 1 ? mrs_pager_ensure(pool) : rc;
}

static void *count_thread(void *ctx)
{
	volatile uint64_t *word = (volatile uint64_t *)(me.view + me.page * PAGE) + me.index;

	(void)ctx;
	me.count = *word;
	while (!mrs_load_acquire32(&me.stop)) {
		if (*word != me.count)
			mrs_fetch_add(&herd->lost, 1);
		*word = ++me.count;
	}
	return NULL;
}

static int64_t stop_count(void)
{
	mrs_store_release32(&me.stop, 1);
	pthread_join(me.thread, NULL);
	me.counts = false;
	return (int64_t)me.count;
}

/* The steps of an eviction: lock, protect, save, punch, unlock. */
static int evict(struct morsel_pool *pool, unsigned page)
{
	off_t at = (off_t)((HERD_FRAME + page) * PAGE);
	int fd = morsel_pool_fd(pool), rc;

	while (!try_lock(page))
		sched_yield();
	if (lseek(fd, at, SEEK_DATA) != at) { /* out already: reading it would put zeros there */
		unlock(page);
		return 0;
	}
	rc = mrs_pager_protect(pool, HERD_FAMILY, page, page + 1);
	if (!rc && pread(fd, herd->saved[page], PAGE, at) != PAGE)
		rc = -EIO;
	if (!rc && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, PAGE))
		rc = -errno;
	unlock(page);
	return rc;
}

static int pass_call(struct morsel_pool *pool, int socket)
{
	struct mrs_pager *pager = mrs_pager_of(pool);
	char byte = 0;
	struct iovec data = {&byte, 1};
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {{0}};
	struct msghdr message = {.msg_iov = &data,
				 .msg_iovlen = 1,
				 .msg_control = control.bytes,
				 .msg_controllen = sizeof(control.bytes)};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &pager->call, sizeof(int));
	return sendmsg(socket, &message, 0) < 0 ? -errno : 0;
}

/* Descriptors of the given kinds that this process has. */
static int count_fds(int except)
{
	int count = 0;

	for (int fd = 3; fd < 1024; fd++) {
		char link[40], name[64] = "";

		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		if (fd != except && readlink(link, name, sizeof(name) - 1) > 0)
			count += strstr(name, "socket:") || strstr(name, "userfaultfd") ||
				 strstr(name, "eventfd");
	}
	return count;
}

static int64_t fork_fds(int socket)
{
	pid_t pid = fork();
	int status;

	if (!pid)
		_exit(count_fds(socket));
	waitpid(pid, &status, 0);
	return WEXITSTATUS(status);
}

int64_t herd_do(struct morsel_pool *pool, enum herd_op op, uint64_t arg, int socket)
{
	switch (op) {
	case HERD_ENSURE:
		return mrs_pager_ensure(pool);
	case HERD_MAP:
		return map_view(pool, arg);
	case HERD_COUNT:
		me.page = (unsigned)arg;
		me.stop = 0;
		me.counts = true;
		return -pthread_create(&me.thread, NULL, count_thread, NULL);
	case HERD_STOP:
		return stop_count();
	case HERD_IS_SELF:
		return mrs_pager_is_self(pool);
	case HERD_PAGER_SLOT:
		return mrs_pager_slot(pool);
	case HERD_SLOT:
		return pool->slot;
	case HERD_EVICT:
		return evict(pool, (unsigned)arg);
	case HERD_PROTECT:
		return mrs_pager_protect(pool, HERD_FAMILY, 0, HERD_PAGES);
	case HERD_PASS_CALL:
		return pass_call(pool, socket);
	case HERD_FORK_FDS:
		return fork_fds(socket);
	case HERD_CLOSE:
		if (me.view) {
			munmap(me.view, BYTES);
			mrs_region_remove((uintptr_t)me.view);
			me.view = NULL;
		}
		return morsel_pool_close(pool);
	}
	return -EINVAL;
}

/* ---- the herd ---- */

struct order {
	uint64_t op, arg;
};
struct answer {
	int64_t value;
	char words[256];
};

static void live(int fd, int socket)
{
	struct morsel_pool *pool = NULL;
	struct order order;
	bool opened = false;

	/* Nothing of the test's, and of the herd's. */
	for (int other = 3; other < 1024; other++)
		if (other != fd && other != socket)
			close(other);
	while (read(socket, &order, sizeof(order)) == sizeof(order)) {
		struct answer answer = {0};

		/* At the first order, so that it may be spawned long before it attaches. */
		if (!opened)
			pool = support_pool_again(fd);
		opened = true;
		if (!pool)
			break;
		answer.value = herd_do(pool, (enum herd_op)order.op, order.arg, socket);
		snprintf(answer.words, sizeof(answer.words), "%s", morsel_errormsg());
		if (write(socket, &answer, sizeof(answer)) != sizeof(answer))
			break;
		if (order.op == HERD_CLOSE)
			pool = NULL;
	}
	_exit(0);
}

void herd_reset(struct morsel_pool *pool)
{
	(void)pool;
	if (!herd)
		herd = mmap(NULL, sizeof(*herd), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			    -1, 0);
	assert_ptr_not_equal(herd, MAP_FAILED);
	memset(herd, 0, sizeof(*herd));
	memset(&me, 0, sizeof(me));
}

struct herd_process herd_spawn(int fd)
{
	struct herd_process process;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	fflush(NULL);
	process.pid = fork();
	assert_true(process.pid >= 0);
	if (!process.pid) {
		close(pair[0]);
		live(fd, pair[1]);
	}
	close(pair[1]);
	process.socket = pair[0];
	return process;
}

int64_t herd_tell(struct herd_process *process, enum herd_op op, uint64_t arg, char *words)
{
	struct order order = {op, arg};
	struct answer answer;

	assert_int_equal(write(process->socket, &order, sizeof(order)), sizeof(order));
	assert_int_equal(read(process->socket, &answer, sizeof(answer)), sizeof(answer));
	if (words)
		memcpy(words, answer.words, sizeof(answer.words));
	return answer.value;
}

bool herd_until(struct herd_process *process, enum herd_op op, uint64_t arg, int64_t value)
{
	for (unsigned i = 0; i < 2000; i++) {
		if (herd_tell(process, op, arg, NULL) == value)
			return true;
		usleep(10000);
	}
	return false;
}

int herd_receive(struct herd_process *process)
{
	char byte;
	struct iovec data = {&byte, 1};
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct msghdr message = {.msg_iov = &data,
				 .msg_iovlen = 1,
				 .msg_control = control.bytes,
				 .msg_controllen = sizeof(control.bytes)};
	struct order order = {HERD_PASS_CALL, 0};
	struct answer answer;
	int fd = -1;

	assert_int_equal(write(process->socket, &order, sizeof(order)), sizeof(order));
	assert_int_equal(recvmsg(process->socket, &message, MSG_CMSG_CLOEXEC), 1);
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
	assert_int_equal(read(process->socket, &answer, sizeof(answer)), sizeof(answer));
	assert_int_equal(answer.value, 0);
	return fd;
}

void herd_stop(struct herd_process *process)
{
	for (unsigned page = 0; page < HERD_PAGES; page++)
		while (!try_lock(page))
			sched_yield();
	kill(process->pid, SIGSTOP);
	assert_int_equal(waitpid(process->pid, NULL, WUNTRACED), process->pid);
	for (unsigned page = 0; page < HERD_PAGES; page++)
		unlock(page);
}

static void gone(struct herd_process *process)
{
	assert_int_equal(waitpid(process->pid, NULL, 0), process->pid);
	close(process->socket);
	process->pid = 0;
}

void herd_end(struct herd_process *process)
{
	shutdown(process->socket, SHUT_RDWR);
	gone(process);
}

void herd_kill(struct herd_process *process)
{
	kill(process->pid, SIGKILL);
	gone(process);
}
