/*
 * Handing a pool to another process over a Unix socket.
 *
 * What travels is a fresh description without a lock: a message that nobody reads, or a receiver
 * that keeps the descriptor, must not keep our slot alive when we die.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pool/internal.h"

static const char greeting[8] = "morsel1";

union control {
	char bytes[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

int morsel_pool_send(struct morsel_pool *pool, int socket)
{
	struct iovec data = {(void *)greeting, sizeof(greeting)};
	union control control = {{0}};
	struct msghdr message = {
		.msg_iov = &data,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	int rc = mrs_pool_usable(pool, false), fd;
	ssize_t sent;

	if (rc)
		return rc;
	fd = mrs_file_reopen(pool->fd, pool->path, pool->read_only ? O_RDONLY : O_RDWR);
	if (fd < 0)
		return fd;
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	do
		sent = sendmsg(socket, &message, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	if (sent < 0)
		rc = mrs_fail_errno(-errno, "cannot send %s over socket %d", pool->path, socket);
	close(fd);
	return rc;
}

/* The first descriptor of a message; further ones are closed, for nobody asked for them. */
static int take_descriptor(struct msghdr *message)
{
	int fd = -1;

	for (struct cmsghdr *h = CMSG_FIRSTHDR(message); h; h = CMSG_NXTHDR(message, h)) {
		size_t count = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < count; i++) {
			int one;

			memcpy(&one, CMSG_DATA(h) + i * sizeof(int), sizeof(one));
			if (fd < 0)
				fd = one;
			else
				close(one);
		}
	}
	return fd;
}

int morsel_pool_receive(int socket, const struct morsel_pool_opts *opts, struct morsel_pool **pool)
{
	char text[sizeof(greeting)];
	struct iovec data = {text, sizeof(text)};
	union control control;
	struct msghdr message = {
		.msg_iov = &data,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	ssize_t got;
	int fd, rc;

	do
		got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return mrs_fail_errno(-errno, "cannot receive a pool over socket %d", socket);
	if (!got)
		return mrs_fail(-EPIPE, "the other end of socket %d has closed it", socket);
	fd = take_descriptor(&message);
	if (fd >= 0 && got == sizeof(text) && !memcmp(text, greeting, sizeof(text)))
		rc = morsel_pool_open_fd(fd, opts, pool);
	else
		rc = mrs_fail(-EPROTO, "what came over socket %d is not a pool", socket);
	if (fd >= 0)
		close(fd);
	return rc;
}
