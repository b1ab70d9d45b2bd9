/*
 * morsel: an NVMe controller driven from user space, straight on morsels.
 *
 * A controller is opened on a struct morsel_device (<morsel/iommu.h>). Its queues and lists lie in
 *a morsel of their own. Data never passes through a buffer: a command names IOVAs, those of a
 *granted range of a view on the same device, and the controller reads and writes the morsel's
 *frames.
 *
 *	program            morsel_nvme_submit()                morsel_nvme_poll()
 *	                        |                                   ^
 *	driver    command, PRP list or SGL -> submission queue   completion queue
 *	                        |  doorbell                         |  phase bit, interrupt
 *	controller         ... reads the command, moves the data, answers ...
 *
 * Two ways to use it: asynchronous (submit and poll, any number of commands in flight up to the
 * depth of a queue) and simple (morsel_nvme_read() and its like, which cut a range of a view into
 * commands, keep several in flight and wait).
 *
 * Units: lengths and positions of the simple calls are bytes and whole blocks of the namespace;
 * asynchronous commands count in blocks. Memory is aligned to 4 bytes.
 *
 * Threads: any thread may call anything; each queue has a lock, so that threads with a queue each
 *do not meet. A completion is given to whoever polls the queue next: threads that share a queue
 *tell theirs by `user`. Queues number from 0. fork: the controller stays the parent's.
 *
 * When something goes wrong: a command that is not answered in time is aborted; if that is not
 * answered either, or the controller says that it has failed, it is reset and its queues are made
 * anew. Commands that were in flight then end with -ECANCELED (it is not known whether they were
 * done: reads and writes may be repeated); the one that was late ends with -ETIMEDOUT. A controller
 * that cannot be reset, or is gone, ends all with -ENODEV, and every later call says so.
 */
#ifndef MORSEL_NVME_H
#define MORSEL_NVME_H

#include <stddef.h>
#include <stdint.h>

#include <morsel/iommu.h>

#ifdef __cplusplus
extern "C" {
#endif

struct morsel_nvme;

enum morsel_nvme_flags {
	/* No interrupts: waiting is asking again and again. Less delay, one busy processor. */
	MORSEL_NVME_POLLED = 1,
};

struct morsel_nvme_opts {
	size_t size;	 /* sizeof(struct morsel_nvme_opts) */
	uint32_t flags;	 /* enum morsel_nvme_flags */
	uint32_t queues; /* pairs for I/O, 1 to 64; default 1. The controller may have fewer: see
			    info */
	uint32_t depth;	 /* commands in flight per queue, 2 to 4095; default 64, at most what it has
			  */
	uint32_t timeout_ms; /* for one command; default 5000 */
	uint32_t reserved;
};

/*
 * Resets the controller and makes its queues. -ENODEV: not an NVMe controller, or gone;
 * -EOPNOTSUPP: it lacks what is needed (the NVM command set, pages of 4 KiB), in words; -ETIMEDOUT:
 * it does not get ready in the time that it names itself; -ENOMEM. The device stays the caller's.
 */
MORSEL_API int morsel_nvme_open(struct morsel_device *device, const struct morsel_nvme_opts *opts,
				struct morsel_nvme **nvme);
/*
 * Shuts the controller down and gives its memory back. Commands in flight are ended first: no frame
 * is reached after. NULL is fine.
 */
MORSEL_API void morsel_nvme_close(struct morsel_nvme *nvme);

struct morsel_nvme_info {
	size_t size; /* the caller's sizeof(struct morsel_nvme_info) */
	char serial[21];
	char model[41];
	char firmware[9];
	uint8_t reserved;
	uint32_t version;      /* 0x10400: 1.4 */
	uint32_t namespaces;   /* highest number that there can be */
	uint32_t queues;       /* pairs for I/O that are in use */
	uint32_t depth;	       /* commands in flight per queue */
	uint32_t page_bytes;   /* of its memory pages */
	uint32_t interrupts;   /* 0: polled */
	uint64_t transfer_max; /* bytes of one command */
	uint32_t sgl;	       /* 1: takes SGLs */
	uint32_t write_zeroes; /* 1: knows the command */
	uint32_t deallocate;   /* 1: knows the command */
	uint32_t write_cache;  /* 1: has one: a flush makes writes durable */
	uint64_t commands;     /* completed since it was opened, administration included */
	uint64_t timeouts;     /* commands that were late */
	uint64_t aborts;       /* of them: ended by an abort */
	uint64_t resets;       /* of the controller, since it was opened */
	uint64_t bytes_read;   /* by the device, into memory */
	uint64_t bytes_written;
};
MORSEL_API int morsel_nvme_info(struct morsel_nvme *nvme, struct morsel_nvme_info *info);

struct morsel_nvme_namespace {
	size_t size; /* the caller's sizeof(struct morsel_nvme_namespace) */
	uint32_t id;
	uint32_t block_bytes;
	uint64_t blocks;
	uint64_t blocks_used; /* as the controller says */
};
/* -ENOENT: there is none of this number. */
MORSEL_API int morsel_nvme_namespace(struct morsel_nvme *nvme, uint32_t id,
				     struct morsel_nvme_namespace *ns);

/* ---- asynchronous --------------------------------------------------------------------------- */

enum morsel_nvme_op {
	MORSEL_NVME_READ = 1,	/* the device writes the memory: the grant must be for writing */
	MORSEL_NVME_WRITE,	/* the device reads the memory */
	MORSEL_NVME_FLUSH,	/* what was completed before is durable after */
	MORSEL_NVME_ZERO,	/* blocks read as zero after */
	MORSEL_NVME_DEALLOCATE, /* blocks are not needed: what they read as is the device's */
};

enum morsel_nvme_io_flags {
	MORSEL_NVME_DURABLE = 1, /* write, zero: past the write cache (force unit access) */
	MORSEL_NVME_PRP = 2,	 /* describe the memory by PRPs */
	MORSEL_NVME_SGL = 4, /* describe it by an SGL; -EOPNOTSUPP if it takes none. With neither,
			      * the shorter one that fits is chosen */
	/* Another command follows at once: the device is told of both by the first without this flag, or
	 * by the next poll. */
	MORSEL_NVME_MORE = 8,
};

/* A piece of memory as the device sees it: of one grant, grant.iova plus an offset within. */
struct morsel_nvme_piece {
	uint64_t iova;
	uint64_t bytes;
};

struct morsel_nvme_io {
	uint32_t op;	 /* enum morsel_nvme_op */
	uint32_t flags;	 /* enum morsel_nvme_io_flags */
	uint32_t ns;	 /* namespace, from 1 */
	uint32_t blocks; /* 1 to 65536 */
	uint64_t block;	 /* the first */
	/*
	 * Read and write: memory of exactly blocks * block_bytes, in any number of pieces. PRPs
	 * want every piece but the first to begin, and every one but the last to end, at a page.
	 */
	const struct morsel_nvme_piece *pieces;
	uint32_t count;
	uint32_t reserved;
	void *user; /* comes back with the completion */
};

/*
 * Puts a command into a queue and rings the doorbell. The grants must be held until it completes.
 * -EAGAIN without words: the queue is full, poll it first; -EINVAL, -E2BIG, -EOPNOTSUPP in words:
 * the device was not asked; -ENODEV.
 */
MORSEL_API int morsel_nvme_submit(struct morsel_nvme *nvme, unsigned queue,
				  const struct morsel_nvme_io *io);

struct morsel_nvme_done {
	void *user;
	int32_t rc;	 /* 0, or a negative errno: what became of it */
	uint32_t status; /* type << 8 | code, as in the specification; 0 if the device did not
			    answer */
};

/*
 * Takes up to count completions from a queue; returns how many. 0 after timeout_ms (0: at once, -1:
 * until there is one) or if nothing is in flight. Commands that are late are dealt with here.
 */
MORSEL_API int morsel_nvme_poll(struct morsel_nvme *nvme, unsigned queue,
				struct morsel_nvme_done *done, unsigned count, int timeout_ms);

/*
 * A descriptor that is readable after the queue's interrupt, for poll(2) and its like; read its 8
 * bytes, then morsel_nvme_poll() with 0. -EOPNOTSUPP: without interrupts. The controller's.
 */
MORSEL_API int morsel_nvme_fd(struct morsel_nvme *nvme, unsigned queue);

/* How a status is called in the specification, for example "LBA out of range". Never NULL. */
MORSEL_API const char *morsel_nvme_status_words(uint32_t status);

/*
 * Resets the controller and makes its queues anew, as after a time-out: what is in flight ends with
 * -ECANCELED.
 */
MORSEL_API int morsel_nvme_reset(struct morsel_nvme *nvme);

/* ---- simple --------------------------------------------------------------------------------- */

/*
 * Reads the device from byte `position` into view_offset of a view of this device, or the reverse;
 * returns when it is done. All three numbers are whole blocks. The range is granted meanwhile. A
 * command that a reset ended is repeated once. Errors as above, and those of morsel_acquire().
 */
MORSEL_API int morsel_nvme_read(struct morsel_nvme *nvme, uint32_t ns, uint64_t position,
				struct morsel_view *view, uint64_t view_offset, uint64_t bytes);
MORSEL_API int morsel_nvme_write(struct morsel_nvme *nvme, uint32_t ns, uint64_t position,
				 struct morsel_view *view, uint64_t view_offset, uint64_t bytes);
MORSEL_API int morsel_nvme_flush(struct morsel_nvme *nvme, uint32_t ns);
MORSEL_API int morsel_nvme_zero(struct morsel_nvme *nvme, uint32_t ns, uint64_t position,
				uint64_t bytes);
MORSEL_API int morsel_nvme_deallocate(struct morsel_nvme *nvme, uint32_t ns, uint64_t position,
				      uint64_t bytes);

/* ---- files on a device ----------------------------------------------------------------------- */

enum morsel_nvme_place_flags {
	/*
	 * The place keeps a file: its length, and two halves of which one is the file. An export
	 * goes to the other half and becomes the file by one write of one block at its end: a power
	 * cut leaves the old file or the new one. Without: raw bytes, and who reads knows how many.
	 */
	MORSEL_NVME_KEPT = 1,
};

/* A range of a namespace: a partition, of whole blocks, that nobody else uses. */
struct morsel_nvme_place {
	size_t size;	/* sizeof(struct morsel_nvme_place) */
	uint32_t ns;	/* namespace; default 1 */
	uint32_t flags; /* enum morsel_nvme_place_flags */
	uint64_t position;
	uint64_t bytes; /* 0: to the end of the namespace; raw, for an import: how long it is */
	/* Set by the calls, also where they fail. */
	uint64_t bytes_moved;  /* by the device, between its blocks and the morsel's frames */
	uint64_t bytes_copied; /* by the CPU: of files whose tensors are aligned anew */
	uint64_t file_bytes;   /* length of the file */
};

/*
 * As morsel_import() and morsel_export(), from and to a place: the device reads and writes the
 * morsel's frames. -ENODATA: KEPT, but no file is there; -ENOSPC the place is too small (a kept
 * file needs twice its length and 8 KiB).
 */
MORSEL_API int morsel_nvme_import(struct morsel_pool *pool, const char *name,
				  struct morsel_nvme *nvme, struct morsel_nvme_place *place,
				  const struct morsel_opts *opts, struct morsel **morsel);
MORSEL_API int morsel_nvme_export(struct morsel *morsel, struct morsel_nvme *nvme,
				  struct morsel_nvme_place *place, const struct morsel_opts *opts);
/* How long the kept file of a place is: place->file_bytes. */
MORSEL_API int morsel_nvme_look(struct morsel_nvme *nvme, struct morsel_nvme_place *place);

/* ---- evicted pages on a device --------------------------------------------------------------- */

struct morsel_swap_driver;

/*
 * Makes NVMe places known to morsel_swap_add() in this process (<morsel/swap.h>, drivers):
 *
 *	nvme:ADDRESS[/NAMESPACE][@POSITION][+BYTES]	nvme:0000:00:04.0/1@1073741824+268435456
 *
 * numbers in bytes; by default all of namespace 1. nvme is a controller that this process has open
 * and keeps open until the driver is unregistered; NULL: each place opens its controller itself.
 * Pages go by way of a buffer of the driver's. End: morsel_swap_driver_unregister().
 */
MORSEL_API int morsel_nvme_swap_driver(struct morsel_nvme *nvme,
				       struct morsel_swap_driver **driver);

#ifdef __cplusplus
}
#endif

#endif
