/*
 * Requests to a swap file, several in flight: liburing by dlopen (uring.c).
 */
#ifndef MRS_SWAP_URING_H
#define MRS_SWAP_URING_H

#include <sys/uio.h>

#include "swap/internal.h"

/* One request: whole pages, at neighbouring places of the file. */
struct mrs_transfer {
	struct iovec *iov;
	unsigned count;
	unsigned first; /* for the caller */
	off_t offset;
	int rc; /* 0; -EINPROGRESS: it has not ended in time, and may yet */
};

/* -EOPNOTSUPP in words: no liburing, or io_uring is forbidden. */
int mrs_uring_open(struct mrs_uring **uring);
void mrs_uring_close(struct mrs_uring *uring);
void mrs_uring_in_child(struct mrs_uring *uring);
/* False if every ring is in use: nothing has happened. Waits for ever if seconds is 0. */
bool mrs_uring_run(struct mrs_uring *uring, int fd, bool write, struct mrs_transfer request[],
		   unsigned count, unsigned seconds);

#endif
