/*
 * Streams of dumps, and the crew that keeps several requests of one in flight.
 *
 * A dump is read and written past the page cache where the file system can (O_DIRECT): everything
 * in it begins at whole pages, so that memory of a pool goes to the device and comes from it
 * without a copy. Where it cannot (EINVAL), the same calls go through the page cache.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "object/dump_format.h"

#define NAME_TRIES 100u

/* ---- one request ---- */

/* After an EINVAL of a request that was aligned: the file system wants none that is direct. */
static bool give_up_direct(struct mrs_stream *stream)
{
	int flags;

	if (!mrs_load_acquire32(&stream->direct))
		return false;
	flags = fcntl(stream->fd, F_GETFL);
	if (flags < 0 || fcntl(stream->fd, F_SETFL, flags & ~O_DIRECT))
		return false;
	mrs_store_release32(&stream->direct, 0);
	mrs_log(MRS_LOG_DEBUG, "%s takes no direct requests: they go through the page cache",
		stream->name);
	return true;
}

/* Takes done bytes off the front; returns how many vectors are left. */
static unsigned advance(struct iovec **iov, unsigned count, size_t done)
{
	while (count && done >= (*iov)->iov_len) {
		done -= (*iov)->iov_len;
		(*iov)++;
		count--;
	}
	if (count && done) {
		(*iov)->iov_base = (char *)(*iov)->iov_base + done;
		(*iov)->iov_len -= done;
	}
	return count;
}

int mrs_stream_write(struct mrs_stream *stream, struct iovec *iov, unsigned count, uint64_t at)
{
	while (count) {
		ssize_t put = pwritev(stream->fd, iov, (int)count, (off_t)at);

		if (put < 0 && (errno == EINTR || (errno == EINVAL && give_up_direct(stream))))
			continue;
		if (put < 0)
			return mrs_fail_errno(-errno, "cannot write %s at byte %llu", stream->name,
					      (unsigned long long)at);
		at += (uint64_t)put;
		/* What is left after a short write may be out of alignment. */
		if (put & (ssize_t)(MRS_PAGE_BYTES - 1))
			give_up_direct(stream);
		count = advance(&iov, count, (size_t)put);
	}
	return 0;
}

int mrs_stream_read(struct mrs_stream *stream, struct iovec *iov, unsigned count, uint64_t at)
{
	while (count) {
		ssize_t got = preadv(stream->fd, iov, (int)count, (off_t)at);

		if (got < 0 && (errno == EINTR || (errno == EINVAL && give_up_direct(stream))))
			continue;
		if (got < 0)
			return mrs_fail_errno(-errno, "cannot read %s at byte %llu", stream->name,
					      (unsigned long long)at);
		if (!got)
			return mrs_fail(-EINVAL, "%s ends at byte %llu, inside its content",
					stream->name, (unsigned long long)at);
		at += (uint64_t)got;
		if (got & (ssize_t)(MRS_PAGE_BYTES - 1))
			give_up_direct(stream);
		count = advance(&iov, count, (size_t)got);
	}
	return 0;
}

/* ---- files ---- */

static int open_direct(const char *name, int flags, uint32_t *direct)
{
	int fd = open(name, flags | O_DIRECT | O_CLOEXEC, 0666);

	*direct = fd >= 0;
	if (fd < 0 && errno == EINVAL)
		fd = open(name, flags | O_CLOEXEC, 0666);
	return fd;
}

int mrs_stream_create(struct mrs_stream *stream, const char *file)
{
	size_t bytes = strlen(file) + 32;
	struct timespec now;
	int flags;

	*stream = (struct mrs_stream){.fd = -1, .name = malloc(bytes)};
	if (!stream->name)
		return mrs_fail(-ENOMEM, "no memory for a file name");
	for (unsigned i = 0; i < NAME_TRIES; i++) {
		clock_gettime(CLOCK_REALTIME, &now);
		snprintf(stream->name, bytes, "%s.%08lx%02x", file,
			 (unsigned long)now.tv_nsec ^ (unsigned long)getpid() << 12, i);
		/* A file system without O_DIRECT may make the file and then refuse to open it. */
		stream->fd = open(stream->name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
		if (stream->fd >= 0 || errno != EEXIST)
			break;
	}
	if (stream->fd < 0) {
		int rc = mrs_fail_errno(-errno, "cannot create %s", stream->name);

		free(stream->name);
		return rc;
	}
	flags = fcntl(stream->fd, F_GETFL);
	stream->direct = flags >= 0 && !fcntl(stream->fd, F_SETFL, flags | O_DIRECT);
	return 0;
}

int mrs_stream_open(struct mrs_stream *stream, const char *file, uint64_t *size)
{
	struct stat st;
	int rc;

	*stream = (struct mrs_stream){.name = strdup(file)};
	if (!stream->name)
		return mrs_fail(-ENOMEM, "no memory for a file name");
	stream->fd = open_direct(file, O_RDONLY | O_NOCTTY | O_NONBLOCK, &stream->direct);
	if (stream->fd < 0) {
		rc = mrs_fail_errno(-errno, "cannot open %s", file);
		goto free_name;
	}
	if (fstat(stream->fd, &st)) {
		rc = mrs_fail_errno(-errno, "cannot look at %s", file);
		goto close_file;
	}
	if (!S_ISREG(st.st_mode)) {
		rc = mrs_fail(-EINVAL, "%s is not a regular file: no dump", file);
		goto close_file;
	}
	if (size)
		*size = (uint64_t)st.st_size;
	return 0;
close_file:
	close(stream->fd);
free_name:
	free(stream->name);
	return rc;
}

void mrs_stream_close(struct mrs_stream *stream)
{
	close(stream->fd);
	free(stream->name);
}

/* The directory of a path, so that the new name is there after a power cut. */
static int sync_directory(const char *file)
{
	char *directory = strdup(file);
	char *slash = directory ? strrchr(directory, '/') : NULL;
	int fd, rc = 0;

	if (!directory)
		return mrs_fail(-ENOMEM, "no memory for a file name");
	if (slash)
		slash[slash == directory] = 0;
	fd = open(slash ? directory : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd))
		rc = mrs_fail_errno(-errno,
				    "%s is complete, but its directory cannot be forced to disk: "
				    "after a power cut the name may be missing",
				    file);
	if (fd >= 0)
		close(fd);
	free(directory);
	return rc;
}

int mrs_stream_publish(struct mrs_stream *stream, const char *file)
{
	if (fsync(stream->fd))
		return mrs_fail_errno(-errno, "cannot force %s to disk", stream->name);
	MRS_PROBE("dump.synced");
	if (rename(stream->name, file))
		return mrs_fail_errno(-errno, "cannot rename %s to %s", stream->name, file);
	MRS_PROBE("dump.renamed");
	return sync_directory(file);
}

/* ---- the crew ---- */

struct crew {
	mrs_crew_fn fn;
	void *ctx;
	pthread_mutex_t lock; /* protects rc and words; nothing follows it */
	int rc;
	char words[512];
};

static void crew_failed(struct crew *crew, int rc)
{
	pthread_mutex_lock(&crew->lock);
	if (!crew->rc) {
		crew->rc = rc;
		snprintf(crew->words, sizeof(crew->words), "%s", morsel_errormsg());
	}
	pthread_mutex_unlock(&crew->lock);
}

static void *crew_member(void *ctx)
{
	struct crew *crew = ctx;
	int rc = crew->fn(crew->ctx, false);

	if (rc)
		crew_failed(crew, rc);
	return NULL;
}

int mrs_crew_run(unsigned workers, mrs_crew_fn fn, void *ctx)
{
	struct crew crew = {.fn = fn, .ctx = ctx, .lock = PTHREAD_MUTEX_INITIALIZER};
	pthread_t thread[MORSEL_DUMP_IN_FLIGHT_MAX];
	unsigned started = 0;
	sigset_t all, before;
	int rc;

	/* Signals are the application's: none is to be handled in a thread that it does not know.
	 */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	/* With fewer than were asked for it takes longer, and is no less right. */
	while (started + 1 < workers && !pthread_create(&thread[started], NULL, crew_member, &crew))
		started++;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	rc = fn(ctx, true);
	if (rc)
		crew_failed(&crew, rc);
	for (unsigned i = 0; i < started; i++)
		pthread_join(thread[i], NULL);
	pthread_mutex_destroy(&crew.lock);
	return crew.rc ? mrs_fail(crew.rc, "%s", crew.words) : 0;
}
