/*
 * Pools of several processes: sharing, death, fork, descriptors that travel, processes that stand
 * still, slots, namespaces, threads.
 */
#include "core/pool_support.h"

#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>
#include <time.h>

static char path[128];
static struct pool_signal ready, go;

static double now_s(void)
{
	return (double)mrs_now_ns() / 1e9;
}

static int setup(void **state)
{
	(void)state;
	pool_double_reset();
	strcpy(path, pool_path("pool"));
	signal_make(&ready);
	signal_make(&go);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	signal_close(&ready);
	signal_close(&go);
	if (!access(path, F_OK))
		assert_int_equal(morsel_pool_destroy(path, 1), 0);
	return 0;
}

/* ---- sharing ---- */

static int write_into_frame(void *ctx)
{
	struct morsel_pool *pool = pool_open(path, 0);
	struct mrs_txn txn;
	uint64_t frame;

	(void)ctx;
	if (mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn) ||
	    mrs_txn_get(&txn, 2, MRS_FRAME_MOVABLE, 0, &frame) ||
	    mrs_pool_back(&txn, frame, 4, 0, NULL))
		return 1;
	pool_double_link(0, frame, 2);
	mrs_txn_settle(&txn);
	mrs_txn_end(&txn);
	strcpy(mrs_pool_at(pool, frame, 4), "from the child");
	return morsel_pool_close(pool) ? 2 : 0;
}

static void test_two_processes_share(void **state)
{
	struct morsel_pool *pool = pool_create(path, 64 * MIB, 64 * MIB);

	assert_exit_0(pool_fork(write_into_frame, NULL));
	assert_string_equal(mrs_pool_at(pool, pool_double_frame(0), 4), "from the child");
	assert_int_equal(pool_stat(pool).slots_used, 1);
	assert_int_equal(pool_stat(pool).reaped, 0);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
	(void)state;
}

static int create_or_open(void *ctx)
{
	struct morsel_pool *pool;
	struct morsel_pool_opts opts = pool_opts(MORSEL_POOL_CREATE, 8 * MIB, 8 * MIB);
	struct morsel_pool_stat stat = {.size = sizeof(stat)};

	signal_wait(&go);
	if (morsel_pool_open(path, &opts, &pool) || morsel_pool_stat(pool, &stat))
		return 1;
	memcpy((unsigned char *)pool_double->link + 16 * (uintptr_t)ctx, stat.uuid, 16);
	return morsel_pool_close(pool) ? 2 : 0;
}

static void test_created_at_once(void **state)
{
	pid_t pid[8];

	for (uintptr_t i = 0; i < 8; i++)
		pid[i] = pool_fork(create_or_open, (void *)i);
	for (unsigned i = 0; i < 8; i++)
		signal_send(&go);
	for (unsigned i = 0; i < 8; i++)
		assert_exit_0(pid[i]);
	for (unsigned i = 1; i < 8; i++)
		assert_memory_equal(pool_double->link, pool_double->link + 2 * i, 16);
	pool_double_reset();
	(void)state;
}

/* ---- death ---- */

/* Attaches, does some work, says so, and waits to be killed. ctx: inside a transition or not. */
static int wait_to_be_killed(void *ctx)
{
	struct morsel_pool *pool = pool_open(path, 0);
	struct mrs_txn txn;
	uint64_t frame;

	if (mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn) ||
	    mrs_txn_get(&txn, 0, MRS_FRAME_MOVABLE, 0, &frame) ||
	    mrs_pool_back(&txn, frame, 1, 0, NULL))
		return 1;
	memset(mrs_pool_at(pool, frame, 1), 0x77, 4096);
	if (!ctx) {
		pool_double_link(0, frame, 0);
		mrs_txn_settle(&txn);
		mrs_txn_end(&txn);
	} else {
		mrs_store_release(&pool_double->lock, txn.index + 1);
	}
	signal_send(&ready);
	for (;;)
		pause();
}

static void kill_one(bool inside)
{
	pid_t pid = pool_fork(wait_to_be_killed, inside ? &path : NULL);

	signal_wait(&ready);
	kill(pid, SIGKILL);
	pool_wait(pid);
}

static void test_death_outside(void **state)
{
	struct morsel_pool *pool = pool_create(path, 64 * MIB, 64 * MIB);
	struct morsel_frames_stat frames;

	kill_one(false);
	assert_int_equal(pool_stat(pool).slots_used, 2);
	assert_int_equal(morsel_pool_reap(pool), 1);
	assert_int_equal(morsel_pool_reap(pool), 0);
	assert_int_equal(pool_double->intents, 0); /* it was in the middle of nothing */
	assert_int_equal(pool_double->drops, 1);
	assert_int_equal(pool_stat(pool).slots_used, 1);
	assert_int_equal(pool_stat(pool).reaped, 1);
	morsel_frames_stat_exact(mrs_pool_frames(pool), &frames);
	assert_int_equal(frames.reserved, 0);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
	(void)state;
}

static void test_death_inside(void **state)
{
	struct morsel_pool *pool = pool_create(path, 64 * MIB, 64 * MIB);
	uint64_t resident = mrs_pool_resident(pool) + 1; /* and the page of the second slot */

	kill_one(true);
	assert_int_equal(pool_stat(pool).bytes_free, 64 * MIB - 4096);
	assert_int_equal(morsel_pool_reap(pool), 1);
	assert_int_equal(pool_double->intents, 1);
	assert_int_equal(pool_double->last_op, MRS_INTENT_OTHER);
	assert_int_equal(pool_stat(pool).bytes_free, 64 * MIB);
	assert_int_equal(mrs_pool_resident(pool), resident); /* its memory is gone as well */
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
	(void)state;
}

/* Nobody has to call anything: the next one that attaches cleans up. */
static void test_attach_reaps(void **state)
{
	struct morsel_pool *pool = pool_create(path, 64 * MIB, 64 * MIB), *other;

	kill_one(true);
	other = pool_open(path, 0);
	assert_int_equal(pool_stat(pool).reaped, 1);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(other), 0);
	assert_int_equal(morsel_pool_close(pool), 0);
	(void)state;
}

/* A get that finds nothing free repairs the dead before it says so. */
static void test_get_reaps(void **state)
{
	struct morsel_pool *pool = pool_create(path, 2 * MIB, 2 * MIB);
	struct mrs_txn txn;
	uint64_t frame;

	kill_one(true);
	assert_int_equal(mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn), 0);
	assert_int_equal(mrs_txn_get(&txn, 9, MRS_FRAME_HUGE, 0, &frame), 0);
	pool_double_link(1, frame, 9);
	mrs_txn_settle(&txn);
	assert_int_equal(mrs_txn_get(&txn, 0, MRS_FRAME_MOVABLE, 0, &frame), -ENOSPC);
	mrs_txn_end(&txn);
	assert_int_equal(pool_double->intents, 1);
	assert_true(mrs_pool_relieve(pool)); /* its open morsels were left to do */
	assert_int_equal(pool_double->drops, 1);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
	(void)state;
}

/* Waiting for a lock whose owner has died ends, also inside a transition of one's own. */
static void test_wait_word_reaps(void **state)
{
	struct morsel_pool *pool = pool_create(path, 64 * MIB, 64 * MIB);
	struct mrs_txn txn;
	uint64_t value;

	kill_one(true);
	value = mrs_load_acquire(&pool_double->lock);
	assert_true(value != 0);
	assert_int_equal(mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn), 0);
	mrs_pool_wait_word(pool, &pool_double->lock, value);
	assert_int_equal(pool_double->lock, 0);
	/* A value that no living intent stands for is broken after a while. */
	pool_double->lock = 12345678;
	mrs_pool_wait_word(pool, &pool_double->lock, 12345678);
	assert_int_equal(pool_double->lock, 0);
	mrs_txn_end(&txn);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
	(void)state;
}

static int unlock_later(void *ctx)
{
	(void)ctx;
	usleep(50000);
	mrs_store_release(&pool_double->lock, 0);
	mrs_pool_wake_word(&pool_double->lock);
	return 0;
}

static void test_wait_word_is_woken(void **state)
{
	struct morsel_pool *pool = pool_create(path, 64 * MIB, 64 * MIB);
	struct mrs_txn txn;
	pid_t pid;

	assert_int_equal(mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn), 0);
	mrs_store_release(&pool_double->lock, txn.index + 1);
	mrs_txn_end(&txn);
	pid = pool_fork(unlock_later, NULL);
	mrs_pool_wait_word(pool, &pool_double->lock, pool_double->lock);
	assert_exit_0(pid);
	assert_int_equal(morsel_pool_close(pool), 0);
	(void)state;
}

/* ---- the gate ---- */

static int stay_inside(void *ctx)
{
	struct morsel_pool *pool = pool_open(path, 0);
	struct mrs_txn txn;

	(void)ctx;
	if (mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn))
		return 1;
	signal_send(&ready);
	signal_wait(&go);
	usleep(200000);
	mrs_store_release32(&pool_double->flag, 1);
	mrs_txn_end(&txn);
	return morsel_pool_close(pool) ? 2 : 0;
}

/* No repair while a living process is inside a transition. */
static void test_gate_waits(void **state)
{
	struct morsel_pool *pool = pool_create(path, 64 * MIB, 64 * MIB);
	pid_t inside = pool_fork(stay_inside, NULL);

	signal_wait(&ready);
	kill_one(true);
	signal_send(&go);
	assert_int_equal(morsel_pool_reap(pool), 1);
	assert_int_equal(pool_double->intents, 1);
	assert_int_equal(pool_double->flag_seen, 1);
	assert_exit_0(inside);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
	(void)state;
}

/* One that is stopped inside costs the others a time-out once, and nothing else. */
static void test_stopped_process(void **state)
{
	struct morsel_pool *pool = pool_create(path, 64 * MIB, 64 * MIB);
	pid_t inside = pool_fork(stay_inside, NULL);
	struct mrs_txn txn;
	uint64_t frame;
	double start;

	signal_wait(&ready);
	kill_one(true);
	kill(inside, SIGSTOP);
	start = now_s();
	assert_int_equal(morsel_pool_reap(pool), -ETIMEDOUT);
	assert_words("stays inside");
	assert_true(now_s() - start < 5);
	start = now_s();
	for (unsigned i = 1; i < 1000; i++) {
		assert_int_equal(mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn), 0);
		assert_int_equal(mrs_txn_get(&txn, 0, MRS_FRAME_MOVABLE, 0, &frame), 0);
		pool_double_link(i, frame, 0);
		mrs_txn_settle(&txn);
		mrs_txn_end(&txn);
	}
	assert_true(now_s() - start < 1);
	kill(inside, SIGCONT);
	signal_send(&go);
	assert_exit_0(inside);
	/* Either the one that went on cleaned up when it closed, or we do now. */
	morsel_pool_reap(pool);
	assert_int_equal(pool_stat(pool).reaped, 1);
	assert_int_equal(pool_double->intents, 1);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
	(void)state;
}

static int close_gate_and_die(void *ctx)
{
	struct morsel_pool *pool = pool_open(path, 0);

	(void)ctx;
	pthread_mutex_lock(&pool->reap_lock);
	if (mrs_gate_close(pool))
		return 1;
	kill(getpid(), SIGKILL);
	return 2;
}

static void test_gate_of_the_dead(void **state)
{
	struct morsel_pool *pool = pool_create(path, 64 * MIB, 64 * MIB);
	struct mrs_txn txn;

	pool_wait(pool_fork(close_gate_and_die, NULL));
	assert_int_not_equal(mrs_pool_state(pool)->gate, 0);
	assert_int_equal(mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn), 0);
	assert_int_equal(mrs_pool_state(pool)->gate, 0);
	assert_int_equal(mrs_pool_state(pool)->gate_epoch % 2, 0);
	mrs_txn_end(&txn);
	assert_int_equal(morsel_pool_reap(pool), 1);
	/* And of one that never was. */
	mrs_pool_state(pool)->gate = 4711;
	assert_int_equal(mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn), 0);
	mrs_txn_end(&txn);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
	(void)state;
}

static int close_gate_and_stop(void *ctx)
{
	struct morsel_pool *pool = pool_open(path, 0);

	(void)ctx;
	pthread_mutex_lock(&pool->reap_lock);
	if (mrs_gate_close(pool))
		return 1;
	signal_send(&ready);
	kill(getpid(), SIGSTOP);
	mrs_gate_open(pool);
	pthread_mutex_unlock(&pool->reap_lock);
	return morsel_pool_close(pool) ? 2 : 0;
}

static pid_t stop_at_gate(void)
{
	pid_t pid = pool_fork(close_gate_and_stop, NULL);
	int status;

	signal_wait(&ready);
	assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
	assert_true(WIFSTOPPED(status));
	return pid;
}

static int signal_later(void *ctx)
{
	pid_t *pid = ctx;

	usleep(300000);
	return kill(pid[0], pid[1]);
}

/* One that is stopped with the gate closed: who can fail is told whom to continue or kill. */
static void test_stopped_at_gate(void **state)
{
	struct morsel_pool *pool = pool_create(path, 64 * MIB, 64 * MIB);
	pid_t what[2] = {stop_at_gate(), SIGCONT}, helper;
	struct mrs_txn txn;
	double start = now_s();
	char number[32];

	snprintf(number, sizeof(number), "process %d", (int)what[0]);
	assert_int_equal(mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn), -ETIMEDOUT);
	assert_true(now_s() - start > 3 && now_s() - start < 15);
	assert_words(number);
	assert_words("Continue it, or kill it");
	assert_int_equal(mrs_pool_slot(pool, mrs_pool_own_slot(pool))->active, 0);
	assert_int_equal(pool->txn_busy, 0);
	/* What cannot fail waits, and gets in when it is continued. */
	helper = pool_fork(signal_later, what);
	assert_int_equal(mrs_txn_begin_patiently(pool, MRS_INTENT_OTHER, &txn), 0);
	mrs_txn_end(&txn);
	assert_exit_0(helper);
	assert_exit_0(what[0]);
	/* Also when it is killed: the gate is taken over. */
	what[0] = stop_at_gate();
	what[1] = SIGKILL;
	helper = pool_fork(signal_later, what);
	assert_int_equal(mrs_txn_begin(pool, MRS_INTENT_FREE, &txn), 0);
	mrs_txn_end(&txn);
	assert_exit_0(helper);
	pool_wait(what[0]);
	assert_int_equal(mrs_pool_state(pool)->gate, 0);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
	(void)state;
}

static void *beat_and_continue(void *ctx)
{
	struct morsel_pool *pool = ctx;
	uint32_t gate = mrs_load_acquire32(&mrs_pool_state(pool)->gate);

	for (unsigned i = 0; i < 65; i++) {
		mrs_gate_beat(pool);
		usleep(100000);
	}
	kill((pid_t)mrs_pool_slot(pool, gate - 1)->pid, SIGCONT);
	return NULL;
}

/* The gate of one that takes long, and is at work: nobody gives up. */
static void test_slow_at_gate(void **state)
{
	struct morsel_pool *pool = pool_create(path, 64 * MIB, 64 * MIB);
	pid_t slow = stop_at_gate();
	struct mrs_txn txn;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, beat_and_continue, pool), 0);
	assert_int_equal(mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn), 0);
	mrs_txn_end(&txn);
	pthread_join(thread, NULL);
	assert_exit_0(slow);
	assert_int_equal(morsel_pool_close(pool), 0);
	(void)state;
}

/* One stopped inside, one dead: only the first of many short commands closes the gate for long. */
static void test_stopped_and_short_commands(void **state)
{
	struct morsel_pool *pool = pool_create(path, 64 * MIB, 64 * MIB);
	pid_t inside = pool_fork(stay_inside, NULL);
	uint64_t epoch;
	double start;

	signal_wait(&ready);
	kill_one(true);
	kill(inside, SIGSTOP);
	assert_int_equal(morsel_pool_close(pool_open(path, 0)), 0);
	epoch = mrs_pool_state(pool)->gate_epoch;
	assert_true(epoch > 0);
	start = now_s();
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(morsel_pool_close(pool_open(path, 0)), 0);
	if (now_s() - start < 2)
		assert_int_equal(mrs_pool_state(pool)->gate_epoch, epoch);
	assert_true(now_s() - start < 4);
	kill(inside, SIGCONT);
	signal_send(&go);
	assert_exit_0(inside);
	/* A time that nobody can have written stops nobody. */
	mrs_pool_state(pool)->reap_again_ns = UINT64_MAX;
	assert_int_equal(morsel_pool_close(pool_open(path, 0)), 0);
	assert_int_equal(pool_stat(pool).reaped, 1);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
	(void)state;
}

/* ---- fork ---- */

static struct morsel_pool *inherited;

static int use_inherited(void *ctx)
{
	struct morsel_pool_stat stat = {.size = sizeof(stat)};
	struct mrs_txn txn;

	(void)ctx;
	if (morsel_pool_stat(inherited, &stat) != -ECHILD ||
	    !strstr(morsel_errormsg(), "opens the pool anew"))
		return 1;
	if (morsel_pool_fd(inherited) != -ECHILD || morsel_pool_reap(inherited) != -ECHILD ||
	    morsel_pool_check(inherited, NULL, NULL) != -ECHILD ||
	    morsel_pool_grow(inherited, 64 * MIB, 0) != -ECHILD ||
	    morsel_pool_set_budget(inherited, 0) != -ECHILD ||
	    mrs_txn_begin(inherited, MRS_INTENT_OTHER, &txn) != -ECHILD ||
	    mrs_pool_lock_byte(inherited, MRS_LOCK_SETUP) != -ECHILD)
		return 2;
	if (morsel_pool_close(inherited))
		return 3;
	inherited = pool_open(path, 0);
	return morsel_pool_close(inherited) ? 4 : 0;
}

static void test_child_of_fork(void **state)
{
	inherited = pool_create(path, 64 * MIB, 64 * MIB);
	assert_exit_0(pool_fork(use_inherited, NULL));
	assert_clean(inherited);
	assert_int_equal(pool_stat(inherited).slots_used, 1);
	assert_int_equal(morsel_pool_close(inherited), 0);
	(void)state;
}

/* Its child outlives it: that does not keep the slot, nor the lock of an import. */
static int die_and_leave_a_child(void *ctx)
{
	struct morsel_pool *pool = pool_open(path, 0);
	int byte = mrs_pool_lock_byte(pool, MRS_LOCK_IMPORT + 5);

	(void)ctx;
	if (byte < 0)
		return 1;
	if (!fork()) {
		signal_send(&ready);
		signal_wait(&go);
		_exit(0);
	}
	signal_wait(&ready);
	kill(getpid(), SIGKILL);
	return 2;
}

static void test_parent_dies_before_child(void **state)
{
	struct morsel_pool *pool = pool_create(path, 64 * MIB, 64 * MIB);
	int byte;

	pool_wait(pool_fork(die_and_leave_a_child, NULL));
	assert_int_equal(morsel_pool_reap(pool), 1);
	byte = mrs_pool_lock_byte(pool, MRS_LOCK_IMPORT + 5);
	assert_true(byte >= 0);
	mrs_pool_unlock_byte(byte);
	signal_send(&go);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
	(void)state;
}

/* ---- descriptors that travel ---- */

static int sockets[2];

static int send_and_die(void *ctx)
{
	struct morsel_pool *pool = pool_open(path, 0);

	(void)ctx;
	if (morsel_pool_send(pool, sockets[1]))
		return 1;
	kill(getpid(), SIGKILL);
	return 2;
}

static int send_memfd(void *ctx)
{
	struct morsel_pool *pool = pool_create(NULL, 8 * MIB, 8 * MIB);
	struct mrs_txn txn;
	uint64_t frame;

	(void)ctx;
	if (mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn) || mrs_txn_get_table(&txn, &frame))
		return 1;
	strcpy(mrs_pool_at(pool, frame, 1), "memfd");
	pool_double_link(0, frame, 0);
	mrs_txn_settle(&txn);
	mrs_txn_end(&txn);
	return morsel_pool_send(pool, sockets[1]) || morsel_pool_close(pool);
}

static void test_send_and_receive(void **state)
{
	struct morsel_pool *pool = pool_create(path, 8 * MIB, 8 * MIB), *received = NULL;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
	/* A message that nobody has read yet does not keep its sender alive. */
	pool_wait(pool_fork(send_and_die, NULL));
	assert_int_equal(morsel_pool_reap(pool), 1);
	assert_int_equal(morsel_pool_receive(sockets[0], NULL, &received), 0);
	assert_memory_equal(pool_stat(pool).uuid, pool_stat(received).uuid, 16);
	assert_int_equal(pool_stat(pool).slots_used, 2);
	assert_int_equal(morsel_pool_close(received), 0);
	/* A memfd lives on with who received it. */
	assert_exit_0(pool_fork(send_memfd, NULL));
	assert_int_equal(morsel_pool_receive(sockets[0], NULL, &received), 0);
	assert_string_equal(mrs_pool_at(received, pool_double_frame(0), 1), "memfd");
	assert_clean(received);
	assert_int_equal(morsel_pool_close(received), 0);
	/* Something else, nothing, and a socket that is none. */
	received = NULL;
	assert_int_equal(write(sockets[1], "12345678", 8), 8);
	assert_int_equal(morsel_pool_receive(sockets[0], NULL, &received), -EPROTO);
	close(sockets[1]);
	assert_int_equal(morsel_pool_receive(sockets[0], NULL, &received), -EPIPE);
	assert_int_equal(morsel_pool_send(pool, sockets[0]), -EPIPE);
	close(sockets[0]);
	assert_int_equal(morsel_pool_send(pool, -1), -EBADF);
	assert_null(received);
	assert_int_equal(morsel_pool_close(pool), 0);
	(void)state;
}

/* ---- slots ---- */

static void lock_slot(int fd, unsigned slot, short type)
{
	struct flock lock = {.l_type = type,
			     .l_whence = SEEK_SET,
			     .l_start = (off_t)(MRS_LOCK_SLOT + slot),
			     .l_len = 1};

	assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
}

/* All slots but ours belong to somebody whose locks a foreign description holds. */
static void test_slots_run_out(void **state)
{
	struct morsel_pool *pool = pool_create(path, 8 * MIB, 8 * MIB), *other = NULL;
	int fd = open(path, O_RDWR | O_CLOEXEC);

	for (unsigned i = 0; i < MRS_SLOTS; i++) {
		if (i == mrs_pool_own_slot(pool))
			continue;
		assert_int_equal(mrs_slot_prepare(pool, i), 0);
		lock_slot(fd, i, F_WRLCK);
		*mrs_slot_word(pool, i) = 7 << 8 | MRS_SLOT_ATTACHED;
	}
	assert_int_equal(morsel_pool_open(path, NULL, &other), -EUSERS);
	assert_words("512 slots");
	assert_int_equal(pool_stat(pool).slots_used, MRS_SLOTS);
	/* One dies inside a transition: the next to attach repairs its slot and takes it. */
	mrs_pool_slot(pool, 300)->active = 1;
	mrs_pool_slot(pool, 300)->intent[2].op = MRS_INTENT_OTHER;
	lock_slot(fd, 300, F_UNLCK);
	other = pool_open(path, 0);
	assert_int_equal(mrs_pool_own_slot(other), 300);
	assert_int_equal(pool_double->intents, 1);
	assert_int_equal(pool_double->drops, 1);
	assert_int_equal(pool_stat(pool).reaped, 1);
	assert_int_equal(morsel_pool_close(other), 0);
	close(fd); /* all of them die */
	assert_int_equal(morsel_pool_reap(pool), MRS_SLOTS - 2);
	assert_int_equal(pool_stat(pool).slots_used, 1);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
	(void)state;
}

/* ---- namespaces ---- */

static int in_pid_namespace(void *ctx)
{
	pid_t pid;
	int status;

	(void)ctx;
	if (unshare(geteuid() ? CLONE_NEWUSER | CLONE_NEWPID : CLONE_NEWPID))
		return 77;
	pid = fork();
	if (pid < 0)
		return 77;
	if (!pid) {
		/* Number 1 there, as is the first process of every other container. */
		if (getpid() != 1)
			_exit(3);
		_exit(wait_to_be_killed(&path));
	}
	signal_wait(&ready);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return WIFSIGNALED(status) ? 0 : 4;
}

static void test_pid_namespace(void **state)
{
	struct morsel_pool *pool = pool_create(path, 64 * MIB, 64 * MIB);
	int status = pool_wait(pool_fork(in_pid_namespace, NULL));

	if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
		fprintf(stderr, "skipped: this user may not make a PID namespace\n");
		morsel_pool_close(pool);
		skip();
	}
	assert_int_equal(status, 0);
	assert_int_equal(morsel_pool_reap(pool), 1);
	assert_int_equal(pool_double->intents, 1);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
	(void)state;
}

/* ---- threads ---- */

#define THREADS 8
#define ROUNDS	400

struct thread {
	struct morsel_pool *pool;
	unsigned index;
	pthread_t thread;
};

static void *thread_main(void *ctx)
{
	struct thread *me = ctx;

	for (unsigned i = 0; i < ROUNDS; i++) {
		unsigned at = me->index * 100 + i % 100, order = i % 7;
		struct mrs_txn txn;
		uint64_t frame;

		if (mrs_txn_begin(me->pool, MRS_INTENT_OTHER, &txn))
			abort();
		frame = pool_double_frame(at);
		if (frame) {
			order = mrs_putting_order(pool_double->link[at]);
			mrs_pool_unback(me->pool, frame, 1ull << order);
			mrs_txn_put_begin(&txn, order, frame);
			pool_double_unlink(at);
			mrs_txn_put_end(&txn);
		} else if (!mrs_txn_get(&txn, order, MRS_FRAME_MOVABLE, 0, &frame)) {
			if (mrs_pool_back(&txn, frame, 1ull << order, 0, NULL))
				abort();
			if (*(uint64_t *)mrs_pool_at(me->pool, frame, 1))
				abort();
			*(uint64_t *)mrs_pool_at(me->pool, frame, 1) = frame;
			pool_double_link(at, frame, order);
			mrs_txn_settle(&txn);
		}
		mrs_txn_pause(&txn);
		mrs_txn_end(&txn);
	}
	return NULL;
}

/* More threads than intents, deaths and checks beside them. */
static void test_threads(void **state)
{
	struct morsel_pool *pool = pool_create(path, 64 * MIB, 64 * MIB);
	struct thread thread[THREADS];

	for (unsigned i = 0; i < THREADS; i++) {
		thread[i] = (struct thread){.pool = pool, .index = 1 + i};
		assert_int_equal(pthread_create(&thread[i].thread, NULL, thread_main, &thread[i]),
				 0);
	}
	for (unsigned i = 0; i < 5; i++) {
		struct morsel_pool *other = pool_open(path, 0);

		assert_clean(other);
		assert_int_equal(morsel_pool_close(other), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(thread[i].thread, NULL);
	assert_clean(pool);
	assert_int_equal(morsel_pool_close(pool), 0);
	(void)state;
}

/* 20 s are usual. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define WATCHDOG_S 280
#else
#define WATCHDOG_S 45
#endif

/* Who waits for ever fails the test, with all its children, of which some may stand still. */
static void watchdog(int signal_number)
{
	(void)signal_number;
	kill(0, SIGKILL);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_two_processes_share), TEST(test_created_at_once),
		TEST(test_death_outside),	TEST(test_death_inside),
		TEST(test_attach_reaps),	TEST(test_get_reaps),
		TEST(test_wait_word_reaps),	TEST(test_wait_word_is_woken),
		TEST(test_gate_waits),		TEST(test_stopped_process),
		TEST(test_gate_of_the_dead),	TEST(test_stopped_at_gate),
		TEST(test_slow_at_gate),	TEST(test_stopped_and_short_commands),
		TEST(test_child_of_fork),	TEST(test_parent_dies_before_child),
		TEST(test_send_and_receive),	TEST(test_slots_run_out),
		TEST(test_pid_namespace),	TEST(test_threads),
	};
	int failed;

	setpgid(0, 0);
	signal(SIGALRM, watchdog);
	alarm(getenv("MORSEL_LAB") ? 280 : WATCHDOG_S); /* emulated processors are slow */
	pool_folder_make("/dev/shm");
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	pool_folder_remove();
	/* A test that failed may have left children behind. */
	signal(SIGTERM, SIG_IGN);
	kill(0, SIGTERM);
	return failed;
}
