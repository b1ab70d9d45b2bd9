/*
 * What a child of fork must let go of: descriptions that carry locks.
 *
 * A lock lives as long as a copy of its description does, so a child that keeps one would keep a
 * dead parent's slot alive. A handler closes them in the child, before fork returns there. A
 * description is listed under the same lock under which it comes into being, and fork takes that
 * lock first: there is no instant at which a child could inherit one that is not listed.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/atomic.h"
#include "pool/internal.h"

#define LOCKS_AT_ONCE 256

/* The lock protects the rest; nothing follows it. */
static struct {
	pthread_mutex_t lock;
	struct morsel_pool *first;  /* all handles of this process */
	int lock_fd[LOCKS_AT_ONCE]; /* descriptor + 1 of single locks, 0 none */
} handles = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void fork_prepare(void)
{
	pthread_mutex_lock(&handles.lock);
}

static void fork_parent(void)
{
	pthread_mutex_unlock(&handles.lock);
}

static void fork_child(void)
{
	for (struct morsel_pool *pool = handles.first; pool; pool = pool->next) {
		mrs_parts_in_child(pool);
		if (pool->lock_fd >= 0)
			close(pool->lock_fd);
		if (pool->fd >= 0)
			close(pool->fd);
		pool->lock_fd = -1;
		pool->fd = -1;
		mrs_store_relaxed32(&pool->dead, 1);
	}
	for (unsigned i = 0; i < LOCKS_AT_ONCE; i++)
		if (handles.lock_fd[i]) {
			close(handles.lock_fd[i] - 1);
			handles.lock_fd[i] = 0;
		}
	pthread_mutex_unlock(&handles.lock);
}

static void register_fork_handlers(void)
{
	pthread_atfork(fork_prepare, fork_parent, fork_child);
}

void mrs_fork_hold(void)
{
	pthread_mutex_lock(&handles.lock);
}

void mrs_fork_release(void)
{
	pthread_mutex_unlock(&handles.lock);
}

int mrs_handles_add(struct morsel_pool *pool)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	int rc = 0;

	pthread_once(&once, register_fork_handlers);
	pthread_mutex_lock(&handles.lock);
	if (!pool->read_only) {
		pool->lock_fd = mrs_file_reopen(pool->fd, pool->path, O_RDWR);
		rc = mrs_min(pool->lock_fd, 0);
	}
	if (!rc) {
		pool->next = handles.first;
		handles.first = pool;
	}
	pthread_mutex_unlock(&handles.lock);
	return rc;
}

void mrs_handles_remove(struct morsel_pool *pool)
{
	pthread_mutex_lock(&handles.lock);
	for (struct morsel_pool **at = &handles.first; *at; at = &(*at)->next)
		if (*at == pool) {
			*at = pool->next;
			break;
		}
	pthread_mutex_unlock(&handles.lock);
}

int mrs_lock_fd_open(struct morsel_pool *pool)
{
	int fd = -EUSERS;

	pthread_mutex_lock(&handles.lock);
	for (unsigned i = 0; i < LOCKS_AT_ONCE; i++) {
		if (handles.lock_fd[i])
			continue;
		fd = mrs_file_reopen(pool->fd, pool->path, O_RDWR);
		handles.lock_fd[i] = mrs_max(fd, -1) + 1;
		break;
	}
	pthread_mutex_unlock(&handles.lock);
	if (fd == -EUSERS)
		return mrs_fail(fd,
				"more than %u imports and growths of pools at once in this "
				"process",
				LOCKS_AT_ONCE);
	return fd;
}

void mrs_pool_unlock_byte(int fd)
{
	struct flock all = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

	pthread_mutex_lock(&handles.lock);
	for (unsigned i = 0; i < LOCKS_AT_ONCE; i++)
		if (handles.lock_fd[i] == fd + 1)
			handles.lock_fd[i] = 0;
	fcntl(fd, F_OFD_SETLK, &all);
	close(fd);
	pthread_mutex_unlock(&handles.lock);
}

int mrs_pool_usable(struct morsel_pool *pool, bool write)
{
	if (!pool)
		return mrs_fail(-EINVAL, "no pool was given");
	if (mrs_load_relaxed32(&pool->dead))
		return mrs_fail(-ECHILD,
				"this handle of %s belongs to the parent process: a child "
				"opens the pool anew",
				pool->path);
	if (write && pool->read_only)
		return mrs_fail(-EROFS, "%s was opened read-only", pool->path);
	return 0;
}
