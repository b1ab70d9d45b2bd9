/* Failing the n-th call: see fail_nth.h. One line per wrapped call. */
#include "support/fail_nth.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/types.h>
#include <unistd.h>

static __thread bool armed;
static __thread uint64_t calls;
static __thread uint64_t fail_at;
static __thread const char *victim;

void fail_nth_arm(uint64_t n)
{
	calls = 0;
	fail_at = n;
	victim = NULL;
	armed = true;
}

uint64_t fail_nth_disarm(void)
{
	armed = false;
	return calls;
}

const char *fail_nth_victim(void)
{
	return victim;
}

static bool fails(const char *name)
{
	if (!armed || ++calls != fail_at)
		return false;
	victim = name;
	return true;
}

#define WRAP(type, name, error, bad, parameters, arguments)                                        \
	type __real_##name parameters;                                                             \
	type __wrap_##name parameters;                                                             \
	type __wrap_##name parameters                                                              \
	{                                                                                          \
		if (fails(#name)) {                                                                \
			errno = error;                                                             \
			return bad;                                                                \
		}                                                                                  \
		return __real_##name arguments;                                                    \
	}

WRAP(void *, malloc, ENOMEM, NULL, (size_t n), (n))
WRAP(void *, calloc, ENOMEM, NULL, (size_t n, size_t m), (n, m))
WRAP(void *, realloc, ENOMEM, NULL, (void *p, size_t n), (p, n))
WRAP(char *, strdup, ENOMEM, NULL, (const char *s), (s))
WRAP(void *, mmap, ENOMEM, MAP_FAILED,
     (void *a, size_t n, int prot, int flags, int fd, off_t off), (a, n, prot, flags, fd, off))
WRAP(int, madvise, ENOMEM, -1, (void *a, size_t n, int advice), (a, n, advice))
WRAP(int, mprotect, ENOMEM, -1, (void *a, size_t n, int prot), (a, n, prot))
WRAP(int, ftruncate, ENOSPC, -1, (int fd, off_t n), (fd, n))
WRAP(int, fallocate, ENOSPC, -1, (int fd, int mode, off_t off, off_t n), (fd, mode, off, n))
WRAP(int, memfd_create, EMFILE, -1, (const char *name, unsigned flags), (name, flags))
WRAP(int, dup, EMFILE, -1, (int fd), (fd))
WRAP(int, fstat, EIO, -1, (int fd, struct stat *st), (fd, st))
WRAP(int, fstatfs, EIO, -1, (int fd, struct statfs *st), (fd, st))
WRAP(int, fchmod, EPERM, -1, (int fd, mode_t mode), (fd, mode))
WRAP(int, fchown, EPERM, -1, (int fd, uid_t uid, gid_t gid), (fd, uid, gid))
WRAP(int, fsync, EIO, -1, (int fd), (fd))
WRAP(int, rename, EIO, -1, (const char *from, const char *to), (from, to))
WRAP(int, unlink, EACCES, -1, (const char *path), (path))
WRAP(ssize_t, read, EIO, -1, (int fd, void *p, size_t n), (fd, p, n))
WRAP(ssize_t, pread, EIO, -1, (int fd, void *p, size_t n, off_t off), (fd, p, n, off))
WRAP(ssize_t, write, ENOSPC, -1, (int fd, const void *p, size_t n), (fd, p, n))
WRAP(ssize_t, pwrite, ENOSPC, -1, (int fd, const void *p, size_t n, off_t off), (fd, p, n, off))
WRAP(void *, aligned_alloc, ENOMEM, NULL, (size_t align, size_t n), (align, n))
WRAP(ssize_t, preadv, EIO, -1, (int fd, const struct iovec *iov, int n, off_t off),
     (fd, iov, n, off))
WRAP(ssize_t, pwritev, ENOSPC, -1, (int fd, const struct iovec *iov, int n, off_t off),
     (fd, iov, n, off))
WRAP(ssize_t, sendmsg, EPIPE, -1, (int fd, const struct msghdr *m, int flags), (fd, m, flags))
WRAP(ssize_t, recvmsg, EIO, -1, (int fd, struct msghdr *m, int flags), (fd, m, flags))
WRAP(ssize_t, getrandom, EAGAIN, -1, (void *p, size_t n, unsigned flags), (p, n, flags))

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
	mode_t mode = 0;
	va_list arguments;

	va_start(arguments, flags);
	if (flags & (O_CREAT | O_TMPFILE))
		mode = va_arg(arguments, mode_t);
	va_end(arguments);
	if (fails("open")) {
		errno = EMFILE;
		return -1;
	}
	return __real_open(path, flags, mode);
}

int __real_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...)
{
	va_list arguments;
	void *argument;

	va_start(arguments, command);
	argument = va_arg(arguments, void *);
	va_end(arguments);
	if (fails("fcntl")) {
		errno = ENOLCK;
		return -1;
	}
	return __real_fcntl(fd, command, argument);
}
