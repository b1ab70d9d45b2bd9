/*
 * The election: one lock of the pool's file, and an announcement of who has it.
 *
 *  1. Who gets the lock draws a secret and a serial number, binds a socket named after pool and
 *     serial, listens, and then announces slot and serial in state.pager.
 *
 *  2. Who reads the announcement finds the socket, or finds that nobody listens: then the pager has
 *     died since, its lock is free, and he is a candidate.
 *
 *  3. Who resigns takes the announcement back, closes the socket, and only then lets go of the
 *     lock. Only who holds the lock writes the announcement, so it never names two.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/base.h"
#include "base/probe.h"
#include "pool/internal.h"
#include "view/office.h"

#define BACKLOG	    512
#define NAMES_TRIED 16

static socklen_t name_of(struct morsel_pool *pool, uint64_t serial, struct sockaddr_un *name)
{
	const uint8_t *uuid = mrs_pool_super(pool)->uuid;
	int at = 1;

	*name = (struct sockaddr_un){.sun_family = AF_UNIX};
	at += snprintf(name->sun_path + at, sizeof(name->sun_path) - (size_t)at, "morsel-pager-");
	for (unsigned i = 0; i < 16; i++)
		at += snprintf(name->sun_path + at, sizeof(name->sun_path) - (size_t)at, "%02x",
			       uuid[i]);
	at += snprintf(name->sun_path + at, sizeof(name->sun_path) - (size_t)at, "-%llx",
		       (unsigned long long)serial);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)at);
}

/* A socket; noted in *fd before a fork can pass it on. */
static int open_socket(int flags, int *fd)
{
	int rc;

	mrs_fork_hold();
	*fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | flags, 0);
	rc = *fd < 0 ? -errno : 0;
	mrs_fork_release();
	return rc;
}

static void close_noted(int *fd)
{
	mrs_fork_hold();
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	mrs_fork_release();
}

/* Under a serial that nobody can have known before. */
static int listen_somewhere(struct morsel_pool *pool, int fd, uint64_t *serial)
{
	struct sockaddr_un name;

	for (unsigned i = 0; i < NAMES_TRIED; i++) {
		socklen_t length;

		if (getrandom(serial, sizeof(*serial), 0) != sizeof(*serial))
			return -errno;
		*serial >>= 16;
		length = name_of(pool, *serial, &name);
		if (!bind(fd, (struct sockaddr *)&name, length))
			return listen(fd, BACKLOG) ? -errno : 0;
		if (errno != EADDRINUSE)
			return -errno;
	}
	return -EADDRINUSE;
}

static int announce(struct morsel_pool *pool, struct mrs_office *office)
{
	struct mrs_state *state = mrs_pool_state(pool);
	uint64_t secret[2], serial;
	int rc = listen_somewhere(pool, office->listener, &serial);

	if (rc)
		return mrs_fail_errno(rc, "the pager of %s cannot listen on a socket", pool->path);
	if (getrandom(secret, sizeof(secret), 0) != sizeof(secret))
		return mrs_fail_errno(-errno, "no random numbers for the pager's secret");
	mrs_store_relaxed(&state->pager_secret[0], secret[0]);
	mrs_store_relaxed(&state->pager_secret[1], secret[1]);
	office->word = (pool->slot + 1) | serial << 16;
	MRS_PROBE("view.elect.listening");
	/* Pairs with the acquire of who looks for the pager: the secret is there. */
	mrs_store_release(&state->pager, office->word);
	mrs_fetch_add(&state->count[MRS_COUNT_ELECTIONS], 1);
	MRS_PROBE("view.elect.announced");
	return 0;
}

int mrs_office_take(struct morsel_pool *pool, struct mrs_office *office)
{
	int rc = mrs_pool_try_lock_byte(pool, MRS_LOCK_PAGER);

	if (rc < 0)
		return rc;
	office->lock_fd = rc;
	MRS_PROBE("view.elect.locked");
	rc = open_socket(SOCK_NONBLOCK, &office->listener);
	if (rc)
		mrs_fail_errno(rc, "no socket for the pager of %s", pool->path);
	else
		rc = announce(pool, office);
	if (rc)
		mrs_office_leave(pool, office);
	return rc == -EAGAIN ? -EIO : rc;
}

void mrs_office_leave(struct morsel_pool *pool, struct mrs_office *office)
{
	uint64_t ours = office->word;

	if (ours)
		mrs_cas(&mrs_pool_state(pool)->pager, &ours, 0);
	office->word = 0;
	MRS_PROBE("view.elect.withdrawn");
	close_noted(&office->listener);
	if (office->lock_fd >= 0)
		mrs_pool_unlock_byte(office->lock_fd);
	office->lock_fd = -1;
}

int mrs_office_call(struct morsel_pool *pool, uint64_t word, int *fd)
{
	struct sockaddr_un name;
	socklen_t length = name_of(pool, word >> 16, &name);
	int rc = open_socket(SOCK_NONBLOCK, fd);

	if (rc)
		return rc;
	if (!connect(*fd, (struct sockaddr *)&name, length))
		return 0;
	rc = -errno;
	close_noted(fd);
	return rc;
}
