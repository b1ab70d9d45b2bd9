/*
 * The pager: who is elected, who gets whose descriptor, and that protecting stops every writer. A
 * herd of processes and doubles of the rooms around: pager_herd.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/atomic.h"
#include "core/pager_herd.h"
#include "core/view_support.h"
#include "pool/internal.h"
#include "support/counts.h"

#define MANY 56 /* processes at once */

struct fixture {
	int fd;			  /* of the pool's file, ours */
	struct morsel_pool *pool; /* NULL until opened: after the herd was spawned */
	struct herd_process process[HERD_MAX];
	unsigned count;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct morsel_pool *pool = support_pool();

	herd_reset(pool);
	f->fd = dup(morsel_pool_fd(pool));
	assert_int_equal(morsel_pool_close(pool), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	if (f->pool)
		herd_do(f->pool, HERD_CLOSE, 0, -1);
	for (unsigned i = 0; i < f->count; i++)
		if (f->process[i].pid)
			herd_kill(&f->process[i]);
	close(f->fd);
	free(f);
	return 0;
}

/* Before our own handle has threads. */
static void spawn(struct fixture *f, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		f->process[f->count++] = herd_spawn(f->fd);
	for (unsigned i = 0; i < count; i++)
		assert_true(herd_tell(&f->process[i], HERD_SLOT, 0, NULL) >= 0);
}

static void attach(struct fixture *f)
{
	f->pool = support_pool_again(f->fd);
	assert_non_null(f->pool);
}

static int64_t tell(struct fixture *f, unsigned who, enum herd_op op, uint64_t arg)
{
	char words[256];
	int64_t value = herd_tell(&f->process[who], op, arg, words);

	if (value < 0)
		print_message("process %u, order %u: %s\n", who, op, words);
	return value;
}

/* ---- election ---- */

static void first_is_elected(void **state)
{
	struct fixture *f = *state;
	uint64_t before;

	spawn(f, 2);
	attach(f);
	assert_int_equal(mrs_pager_slot(f->pool), MRS_SLOTS);
	assert_false(mrs_pager_is_self(f->pool));
	before = mrs_pool_state(f->pool)->count[MRS_COUNT_ELECTIONS];
	assert_int_equal(mrs_pager_ensure(f->pool), 0);
	assert_true(mrs_pager_is_self(f->pool));
	assert_int_equal(mrs_pager_slot(f->pool), f->pool->slot);
	assert_int_equal(morsel_pool_pager(f->pool), getpid());
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(tell(f, i, HERD_ENSURE, 0), 0);
		assert_int_equal(tell(f, i, HERD_IS_SELF, 0), 0);
		assert_int_equal(tell(f, i, HERD_PAGER_SLOT, 0), f->pool->slot);
	}
	assert_int_equal(mrs_pool_state(f->pool)->count[MRS_COUNT_ELECTIONS], before + 1);
}

/* Who resigns is followed at once; who is killed too, by one of those who were connected. */
static void another_is_elected(void **state)
{
	struct fixture *f = *state;
	unsigned pagers = 0, left = 0;

	spawn(f, 4);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(tell(f, i, HERD_MAP, 2), 0);
	assert_int_equal(tell(f, 0, HERD_IS_SELF, 0), 1);
	assert_int_equal(tell(f, 0, HERD_PROTECT, 0), 0);
	herd_kill(&f->process[0]);
	for (unsigned tries = 0; tries < 2000 && pagers != 1; tries++) {
		usleep(10000);
		pagers = 0;
		for (unsigned i = 1; i < 4; i++)
			if (tell(f, i, HERD_IS_SELF, 0)) {
				pagers++;
				left = i;
			}
	}
	assert_int_equal(pagers, 1);
	/* The dead one's view is passed by, the others hand theirs over by themselves. */
	assert_true(herd_until(&f->process[left], HERD_PROTECT, 0, 0));
	assert_int_equal(tell(f, left, HERD_CLOSE, 0), 0);
	herd->view[left].record = 0;
	for (unsigned i = 1; i < 4; i++)
		if (i != left)
			assert_true(herd_until(&f->process[i], HERD_ENSURE, 0, 0));
}

static void many_attach(void **state)
{
	struct fixture *f = *state;

	spawn(f, MANY);
	attach(f);
	assert_int_equal(mrs_pager_ensure(f->pool), 0);
	for (unsigned i = 0; i < MANY; i++)
		assert_int_equal(tell(f, i, HERD_MAP, 2), 0);
	assert_int_equal(herd_do(f->pool, HERD_PROTECT, 0, -1), 0);
	herd_kill(&f->process[0]);
	assert_int_equal(herd_do(f->pool, HERD_PROTECT, 0, -1), 0);
}

/* ---- descriptors ---- */

static void missing_descriptor(void **state)
{
	struct fixture *f = *state;
	char pid[32];

	spawn(f, 2);
	attach(f);
	assert_int_equal(mrs_pager_ensure(f->pool), 0);
	assert_int_equal(tell(f, 0, HERD_MAP, 2), 0);
	assert_int_equal(tell(f, 1, HERD_MAP, 1), 0);
	assert_int_equal(herd_do(f->pool, HERD_PROTECT, 0, -1), -EAGAIN);
	snprintf(pid, sizeof(pid), "process %d ", (int)f->process[1].pid);
	assert_non_null(strstr(morsel_errormsg(), pid));
	assert_int_equal(tell(f, 1, HERD_ENSURE, 0), 0);
	assert_int_equal(herd_do(f->pool, HERD_PROTECT, 0, -1), 0);
	/* A descriptor that went with its process is not missed. */
	herd_kill(&f->process[0]);
	herd_kill(&f->process[1]);
	assert_int_equal(herd_do(f->pool, HERD_PROTECT, 0, -1), 0);
}

/* What has been moved and is not mapped anew yet cannot be protected through the old mapping. */
static void view_that_lags(void **state)
{
	struct fixture *f = *state;

	spawn(f, 1);
	attach(f);
	assert_int_equal(mrs_pager_ensure(f->pool), 0);
	assert_int_equal(tell(f, 0, HERD_MAP, 2), 0);
	herd->view[0].moves = 5;
	herd->view[0].flags &= ~(uint64_t)MRS_VIEW_POOLED;
	mrs_fetch_add(&mrs_pool_state(f->pool)->registry, 1);
	assert_int_equal(herd_do(f->pool, HERD_PROTECT, 0, -1), -EAGAIN);
	assert_non_null(strstr(morsel_errormsg(), "moved"));
	/* It has followed: that is seen though the registry stands still. */
	herd->view[0].moves = 0;
	assert_int_equal(herd_do(f->pool, HERD_PROTECT, 0, -1), 0);
}

/* A slot's next process is not taken for the former one, whose connection somebody holds open. */
static void slot_is_used_again(void **state)
{
	struct fixture *f = *state;
	uint64_t slot, generation;
	int call;

	spawn(f, 1);
	f->process[f->count++] = herd_spawn(f->fd);
	attach(f);
	slot = (uint64_t)tell(f, 0, HERD_SLOT, 0);
	assert_int_equal(mrs_pager_ensure(f->pool), 0);
	assert_int_equal(tell(f, 0, HERD_MAP, 2), 0);
	assert_int_equal(herd_do(f->pool, HERD_PROTECT, 0, -1), 0);
	generation = herd->view[0].generation;
	call = herd_receive(&f->process[0]);
	herd_kill(&f->process[0]);
	morsel_pool_reap(f->pool);
	assert_int_equal(tell(f, 1, HERD_SLOT, 0), slot);
	assert_int_equal(tell(f, 1, HERD_MAP, 1), 0);
	assert_true(herd->view[1].generation != generation);
	assert_int_equal(herd_do(f->pool, HERD_PROTECT, 0, -1), -EAGAIN);
	assert_int_equal(tell(f, 1, HERD_ENSURE, 0), 0);
	assert_int_equal(herd_do(f->pool, HERD_PROTECT, 0, -1), 0);
	close(call);
}

static void fork_keeps_nothing(void **state)
{
	struct fixture *f = *state;

	spawn(f, 2);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(tell(f, i, HERD_MAP, 2), 0);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(tell(f, i, HERD_FORK_FDS, 0), 0);
}

/* ---- writers ---- */

static void no_write_is_lost(void **state)
{
	struct fixture *f = *state;
	unsigned rounds = COUNT_PAGER_ROUNDS;
	volatile uint64_t *words;
	uint64_t total = 0;

	spawn(f, 4);
	attach(f);
	assert_int_equal(mrs_pager_ensure(f->pool), 0);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(tell(f, i, HERD_MAP, 2), 0);
		assert_int_equal(tell(f, i, HERD_COUNT, 3), 0);
	}
	for (unsigned i = 0; i < rounds && !mrs_load_acquire(&herd->lost); i++) {
		if (i == rounds / 2)
			herd_stop(&f->process[2]);
		assert_int_equal(herd_do(f->pool, HERD_EVICT, 3, -1), 0);
		usleep(i % 4 ? 0 : 200);
	}
	kill(f->process[2].pid, SIGCONT);
	assert_int_equal(herd->lost, 0);
	for (unsigned i = 0; i < 4; i++) {
		int64_t count = tell(f, i, HERD_STOP, 0);

		assert_true(count > 0);
		total += (uint64_t)count;
		/* The last eviction may have left the page out. */
		words = (volatile uint64_t *)herd->saved[3];
		assert_int_equal(herd_do(f->pool, HERD_EVICT, 3, -1), 0);
		assert_int_equal(words[i], count);
	}
	assert_int_equal(herd->lost, 0);
	print_message("%u evictions, %llu writes, %llu faults\n", rounds, (unsigned long long)total,
		      (unsigned long long)herd->faults);
}

/* ---- strangers ---- */

static int call_by_hand(uint64_t word, const uint8_t uuid[16])
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), at = 1;

	at += sprintf(name.sun_path + at, "morsel-pager-");
	for (unsigned i = 0; i < 16; i++)
		at += sprintf(name.sun_path + at, "%02x", uuid[i]);
	at += sprintf(name.sun_path + at, "-%llx", (unsigned long long)(word >> 16));
	if (connect(fd, (struct sockaddr *)&name,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)at))) {
		close(fd);
		return -errno;
	}
	return fd;
}

/* It knows slot and generation, not the secret. */
static void stranger_is_refused(void **state)
{
	struct fixture *f = *state;
	struct mrs_packet hello = {.magic = MRS_PACKET_MAGIC, .kind = MRS_PACKET_HELLO}, answer;
	struct pollfd end;
	char byte;
	int fd;

	spawn(f, 1);
	attach(f);
	assert_int_equal(mrs_pager_ensure(f->pool), 0);
	assert_int_equal(tell(f, 0, HERD_MAP, 1), 0);
	fd = call_by_hand(mrs_pool_state(f->pool)->pager, mrs_pool_super(f->pool)->uuid);
	assert_true(fd >= 0);
	hello.slot = herd->view[0].slot;
	hello.generation = herd->view[0].generation;
	assert_int_equal(send(fd, &hello, sizeof(hello), 0), sizeof(hello));
	assert_int_equal(recv(fd, &answer, sizeof(answer), 0), sizeof(answer));
	assert_int_equal(answer.kind, MRS_PACKET_ANSWER);
	answer.kind = MRS_PACKET_PROOF;
	answer.hash = 0x1234;
	assert_int_equal(send(fd, &answer, sizeof(answer), 0), sizeof(answer));
	end = (struct pollfd){.fd = fd, .events = POLLIN};
	assert_int_equal(poll(&end, 1, 20000), 1);
	assert_int_equal(recv(fd, &byte, 1, 0), 0);
	close(fd);
	assert_int_equal(herd_do(f->pool, HERD_PROTECT, 0, -1), -EAGAIN);
}

/* A socket of the announced name whose owner does not know the caller's nonce gets no descriptor.
 */
static void rogue_pager_gets_nothing(void **state)
{
	struct fixture *f = *state;
	struct mrs_office office = {.lock_fd = -1, .listener = -1};
	struct mrs_packet hello, answer = {.magic = MRS_PACKET_MAGIC, .kind = MRS_PACKET_ANSWER};
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec data = {&hello, sizeof(hello)};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
	struct pollfd from;
	ssize_t got;
	int call;

	spawn(f, 1);
	attach(f);
	assert_int_equal(mrs_office_take(f->pool, &office), 0);
	assert_int_equal(tell(f, 0, HERD_MAP, 0), 0);
	assert_int_equal(write(f->process[0].socket, &(uint64_t[2]){HERD_ENSURE, 0}, 16), 16);
	from = (struct pollfd){.fd = office.listener, .events = POLLIN};
	assert_int_equal(poll(&from, 1, 20000), 1);
	call = accept(office.listener, NULL, NULL);
	assert_int_equal(recv(call, &hello, sizeof(hello), 0), sizeof(hello));
	answer.slot = hello.slot;
	answer.generation = hello.generation;
	assert_int_equal(send(call, &answer, sizeof(answer), 0), sizeof(answer));
	message.msg_control = control.bytes;
	message.msg_controllen = sizeof(control.bytes);
	got = recvmsg(call, &message, 0);
	assert_true(got <= 0);
	assert_int_equal(message.msg_controllen, 0);
	close(call);
	mrs_office_leave(f->pool, &office);
	{
		struct {
			int64_t value;
			char words[256];
		} reply;

		assert_int_equal(read(f->process[0].socket, &reply, sizeof(reply)), sizeof(reply));
		assert_int_equal(reply.value, -ETIMEDOUT);
		assert_non_null(strstr(reply.words, "cannot show that it has the pool"));
	}
	/* The office is free again. */
	assert_true(herd_until(&f->process[0], HERD_ENSURE, 0, 0));
}

/* ---- a pager that stands still ---- */

static void stopped_pager(void **state)
{
	struct fixture *f = *state;
	char words[256], pid[32];

	spawn(f, 2);
	assert_int_equal(tell(f, 0, HERD_MAP, 2), 0);
	assert_int_equal(tell(f, 0, HERD_IS_SELF, 0), 1);
	kill(f->process[0].pid, SIGSTOP);
	assert_int_equal(herd_tell(&f->process[1], HERD_MAP, 2, words), -ETIMEDOUT);
	snprintf(pid, sizeof(pid), "process %d ", (int)f->process[0].pid);
	assert_non_null(strstr(words, pid));
	kill(f->process[0].pid, SIGCONT);
	assert_true(herd_until(&f->process[1], HERD_ENSURE, 0, 0));
	assert_int_equal(tell(f, 0, HERD_PROTECT, 0), 0);
}

/* ---- jobs ---- */

static void wait_for_answers(uint32_t count)
{
	for (unsigned i = 0; i < 2000 && mrs_load_acquire32(&herd->answered) < count; i++)
		usleep(10000);
	assert_int_equal(mrs_load_acquire32(&herd->answered), count);
}

static void jobs_are_answered(void **state)
{
	struct fixture *f = *state;
	struct mrs_pager_job job = {.word = 77, .op = MRS_REQUEST_EVICT, .record = 1, .count = 4};
	unsigned posted = 0;

	spawn(f, 1);
	attach(f);
	assert_int_equal(mrs_pager_post(f->pool, &job), -EAGAIN);
	assert_int_equal(mrs_pager_ensure(f->pool), 0);
	assert_int_equal(mrs_pager_post(f->pool, &job), 0);
	wait_for_answers(1);
	assert_int_equal(mrs_load_acquire(&herd->answer_word), 77);
	assert_int_equal(herd->answer, 0);
	job.op = MRS_REQUEST_ROOM;
	assert_int_equal(mrs_pager_post(f->pool, &job), 0);
	wait_for_answers(2);
	assert_int_equal(herd->answer, -ENOSPC);
	job.op = MRS_REQUEST_PROTECT;
	assert_int_equal(tell(f, 0, HERD_MAP, 1), 0);
	assert_int_equal(mrs_pager_post(f->pool, &job), 0);
	wait_for_answers(3);
	assert_int_equal(herd->answer, -EAGAIN);
	assert_true(mrs_load_acquire32(&herd->ticks) > 0);

	/* A queue that is full says so; what is in it when the pager ends is answered. */
	mrs_store_release32(&herd->hold_jobs, 1);
	job.op = MRS_REQUEST_EVICT;
	while (!mrs_pager_post(f->pool, &job))
		posted++;
	assert_true(posted >= MRS_JOBS && posted <= MRS_JOBS + 1);
	mrs_store_release32(&herd->hold_jobs, 0);
	assert_int_equal(herd_do(f->pool, HERD_CLOSE, 0, -1), 0);
	f->pool = NULL;
	assert_int_equal(herd->answered, 3 + posted);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(first_is_elected, setup, teardown),
		cmocka_unit_test_setup_teardown(another_is_elected, setup, teardown),
		cmocka_unit_test_setup_teardown(many_attach, setup, teardown),
		cmocka_unit_test_setup_teardown(missing_descriptor, setup, teardown),
		cmocka_unit_test_setup_teardown(view_that_lags, setup, teardown),
		cmocka_unit_test_setup_teardown(slot_is_used_again, setup, teardown),
		cmocka_unit_test_setup_teardown(fork_keeps_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(no_write_is_lost, setup, teardown),
		cmocka_unit_test_setup_teardown(stranger_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(rogue_pager_gets_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(stopped_pager, setup, teardown),
		cmocka_unit_test_setup_teardown(jobs_are_answered, setup, teardown),
	};

	test_seed();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
