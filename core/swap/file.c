/*
 * A file or block device as a swap target: one page of head, then the slots.
 *
 *	head	who it belongs to: pool, target, serial. Compared by every process that opens it
 *	map	free slots of each block of 512 (hints), then 16 bits per slot: transition + 1, or 0
 *
 * A slot is taken by compare-and-swap of its 16 bits, neighbours together where they are free, so
 * that a batch becomes few requests. Content goes past the page cache (O_DIRECT) where the file
 * system can. The transition is parked while it writes: its slots carry its number.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/probe.h"
#include "swap/internal.h"
#include "swap/uring.h"

#define HEAD_MAGIC  0x3150415753004d00ull
#define BLOCK_SLOTS 512
#define REQUEST_MAX 16	    /* pages of one request: a batch becomes 32 or more */
#define SECONDS	    30	    /* that a write may take */
#define LOST	    0xffffu /* owner of a slot that a late write may still reach */
#define SLOTS_MAX   ((uint64_t)1 << 36)

struct head {
	uint64_t magic;
	uint64_t serial;
	uint64_t id[2];
	uint8_t pool[16];
	uint64_t slots;
	uint32_t reserved;
	uint32_t crc; /* CRC-32C of the bytes before it */
};

/* ---- the map ---- */

static uint64_t block_count(uint64_t slots)
{
	return (slots + BLOCK_SLOTS - 1) / BLOCK_SLOTS;
}

uint64_t mrs_swap_file_map_bytes(uint64_t slots)
{
	return mrs_round_up(block_count(slots) * 4, 8) + block_count(slots) * BLOCK_SLOTS * 2;
}

/* The map is zero at the start: so the hint is how many are taken. */
static uint32_t *taken_in(const struct mrs_swap_target *target, uint64_t block)
{
	return (uint32_t *)target->map + block;
}

static uint16_t *owner_at(const struct mrs_swap_target *target, uint64_t slot)
{
	uint64_t first = mrs_round_up(block_count(target->record->slots) * 4, 8);

	return (uint16_t *)((unsigned char *)target->map + first) + slot;
}

static bool is_slot(const struct mrs_swap_target *target, uint64_t own)
{
	return target->map && own < target->record->slots && target->record->slots <= SLOTS_MAX &&
	       mrs_swap_file_map_bytes(target->record->slots) <= MRS_PAGE_BYTES << target->record->map_order;
}

static unsigned owner(struct mrs_swap_target *target, uint64_t own)
{
	return is_slot(target, own) ? mrs_load_acquire16(owner_at(target, own)) : 0;
}

static void take_over(struct mrs_swap_target *target, uint64_t own, unsigned who)
{
	if (is_slot(target, own))
		mrs_store_release16(owner_at(target, own), (uint16_t)who);
}

static void free_slot(struct mrs_swap_target *target, struct mrs_txn *txn, uint64_t own)
{
	if (!is_slot(target, own) || !mrs_swap16(owner_at(target, own), 0))
		return;
	MRS_PROBE("swap.file.freed");
	mrs_fetch_sub32(taken_in(target, own / BLOCK_SLOTS), 1);
	mrs_swap_count(&target->record->used, -1);
	mrs_swap_count(&target->record->stored, -(int64_t)MRS_PAGE_BYTES);
}

/* Takes up to count slots of one block; returns how many are in own[]. */
static unsigned take_from_block(struct mrs_swap_target *target, uint64_t block, unsigned who,
				uint64_t own[], unsigned count)
{
	uint64_t first = block * BLOCK_SLOTS;
	uint64_t end = mrs_min(first + BLOCK_SLOTS, target->record->slots);
	unsigned got = 0;

	if (mrs_load_relaxed32(taken_in(target, block)) >= end - first)
		return 0;
	for (uint64_t slot = first; slot < end && got < count; slot++) {
		uint16_t *place = owner_at(target, slot), none = 0;

		if (mrs_load_relaxed16(place) || !mrs_cas16(place, &none, (uint16_t)who))
			continue;
		MRS_PROBE("swap.file.taken");
		own[got++] = slot;
	}
	mrs_fetch_add32(taken_in(target, block), got);
	return got;
}

unsigned mrs_swap_file_take(struct mrs_swap_target *target, unsigned who, uint64_t own[],
			    unsigned count)
{
	struct mrs_swap_record *record = target->record;
	uint64_t blocks = block_count(record->slots);
	uint64_t start = mrs_load_relaxed(&record->hint), block = 0;
	unsigned got = 0;

	if (!is_slot(target, 0))
		return 0;
	for (uint64_t i = 0; i < blocks && got < count; i++) {
		block = (start + i) % blocks;
		got += take_from_block(target, block, who, own + got, count - got);
	}
	mrs_store_relaxed(&record->hint, block);
	mrs_swap_count(&record->used, got);
	mrs_swap_count(&record->stored, (int64_t)(got * MRS_PAGE_BYTES));
	return got;
}

/* ---- the file ---- */

static void make_head(const struct mrs_swap_target *target, struct head *head)
{
	memset(head, 0, sizeof(*head));
	head->magic = HEAD_MAGIC;
	head->serial = target->serial;
	memcpy(head->id, target->record->id, sizeof(head->id));
	memcpy(head->pool, mrs_pool_super(target->pool)->uuid, sizeof(head->pool));
	head->slots = target->record->slots;
	head->crc = mrs_crc32c(0, head, offsetof(struct head, crc));
}

void mrs_swap_file_head(const struct mrs_swap_target *target, void *page)
{
	struct head head;

	make_head(target, &head);
	memset(page, 0, MRS_PAGE_BYTES);
	memcpy(page, &head, sizeof(head));
}

static int open_path(const char *path, int flags)
{
	int fd = open(path, O_RDWR | O_CLOEXEC | O_DIRECT | flags, 0600);

	/* tmpfs and others have no O_DIRECT. */
	if (fd < 0 && errno == EINVAL)
		fd = open(path, O_RDWR | O_CLOEXEC | flags, 0600);
	return fd < 0 ? -errno : fd;
}

static int read_head(int fd, struct head *head)
{
	unsigned char page[MRS_PAGE_BYTES] __attribute__((aligned(4096)));
	ssize_t got = pread(fd, page, sizeof(page), 0);

	memset(head, 0, sizeof(*head));
	if (got < (ssize_t)sizeof(*head))
		return got < 0 ? -errno : -ENODATA;
	memcpy(head, page, sizeof(*head));
	return 0;
}

/* -ENOENT: gone; -ESTALE: another file is there now. */
static int open_checked(struct mrs_swap_target *target)
{
	struct head wanted, found;
	int fd, rc;

	fd = open_path(target->record->path, 0);
	if (fd < 0)
		return fd;
	make_head(target, &wanted);
	rc = read_head(fd, &found);
	if (!rc && memcmp(&wanted, &found, sizeof(found)))
		rc = -ESTALE;
	if (!rc)
		return fd;
	close(fd);
	return rc;
}

/*
 * The descriptor of a target that stood here before. Another thread may still be about to write to
 * it, and must not meet another file under its number.
 */
static void retire(struct mrs_swap *swap, uint64_t fd_plus_1)
{
	for (unsigned i = 0; i < mrs_array_length(swap->retired); i++) {
		uint64_t none = 0;

		if (mrs_cas(&swap->retired[i], &none, fd_plus_1))
			return;
	}
	mrs_log(MRS_LOG_WARN,
		"the file of a removed swap target stays open until the process ends");
}

int mrs_swap_file_open(struct mrs_swap_target *target)
{
	uint64_t *word = &target->swap->opened[target->index], seen = mrs_load_acquire(word), mine;
	int fd;

	if (seen && seen >> 32 == target->serial)
		return (int)(uint32_t)seen - 1;
	fd = open_checked(target);
	if (fd < 0)
		return fd;
	mine = (uint64_t)(uint32_t)(fd + 1) | target->serial << 32;
	if (mrs_cas(word, &seen, mine)) {
		if (seen)
			retire(target->swap, (uint32_t)seen);
		return fd;
	}
	close(fd);
	return (uint32_t)seen ? (int)(uint32_t)seen - 1 : -ESTALE;
}

static int cannot_open(struct mrs_swap_target *target, int rc)
{
	if (rc == -ESTALE || rc == -ENODATA)
		return mrs_fail(-EIO,
				"swap file %s was replaced: it is not the one that was added to %s",
				target->record->path, mrs_pool_path(target->pool));
	return mrs_fail(-EIO, "swap file %s of %s cannot be opened: %s", target->record->path,
			mrs_pool_path(target->pool), strerror(-rc));
}

/* ---- reading and writing ---- */

static off_t offset_of(uint64_t own)
{
	return (off_t)((own + 1) * MRS_PAGE_BYTES);
}

/* All of it, or -errno. */
static int transfer(int fd, bool write, struct iovec *iov, unsigned count, off_t offset)
{
	while (count) {
		ssize_t got = write ? pwritev(fd, iov, (int)count, offset)
				    : preadv(fd, iov, (int)count, offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got ? -errno : -EIO; /* the file has become shorter */
		offset += got;
		for (; count && (size_t)got >= iov->iov_len; count--, iov++)
			got -= (ssize_t)iov->iov_len;
		if (got) {
			iov->iov_base = (unsigned char *)iov->iov_base + got;
			iov->iov_len -= (size_t)got;
		}
	}
	return 0;
}

static bool is_aligned(const void *memory)
{
	return !((uintptr_t)memory % 512);
}

/* Pages of memory that O_DIRECT takes, with neighbouring slots: as many as one request may have. */
static unsigned run_length(const uint64_t own[], unsigned count)
{
	unsigned run = 1;

	while (run < count && run < REQUEST_MAX && own[run] == own[run - 1] + 1)
		run++;
	return run;
}

/* Cuts pages into requests of neighbours; returns how many. */
static unsigned cut(const uint64_t own[], struct iovec iov[], unsigned count,
		    struct mrs_transfer request[])
{
	unsigned many = 0, run;

	for (unsigned i = 0; i < count; i += run) {
		run = run_length(own + i, count - i);
		request[many++] = (struct mrs_transfer){
			.iov = iov + i, .count = run, .first = i, .offset = offset_of(own[i])};
	}
	return many;
}

/* The rings, where the target is to use them and this process can. */
static struct mrs_uring *rings_of(struct mrs_swap_target *target)
{
	struct mrs_uring *uring;
	uint32_t said = 0;

	if (target->record->flags & MORSEL_SWAP_PLAIN_IO)
		return NULL;
	uring = (struct mrs_uring *)(uintptr_t)mrs_load_acquire(&target->swap->uring);
	if (uring || mrs_load_relaxed32(&target->swap->uring_missing))
		return uring;
	if (!mrs_swap_uring(target->swap, &uring))
		return uring;
	if (mrs_cas32(&target->swap->uring_missing, &said, 1))
		mrs_log(MRS_LOG_WARN, "this process reads and writes %s one request at a time: %s",
			target->record->path, morsel_errormsg());
	return NULL;
}

/* Sets each request's rc. In time only where there are rings. */
static void run_requests(struct mrs_swap_target *target, int fd, bool write,
			 struct mrs_transfer request[], unsigned many)
{
	struct mrs_uring *uring = rings_of(target);
	bool ran = uring && mrs_uring_run(uring, fd, write, request, many, write ? SECONDS : 0);

	for (unsigned i = 0; i < many; i++) {
		/* Half done, interrupted, or refused by the ring: once more, and to the end. */
		if (!ran || (request[i].rc && request[i].rc != -EINPROGRESS))
			request[i].rc = transfer(fd, write, request[i].iov, request[i].count,
						 request[i].offset);
	}
}

/* Frees what could not be written; what may yet be written is not to be used again. */
static int finish_save(struct mrs_swap_target *target, struct mrs_txn *txn,
		       const struct mrs_transfer request[], unsigned many, const uint64_t own[],
		       const unsigned at[], struct mrs_swap_page page[])
{
	int rc = 0;

	for (unsigned i = 0; i < many; i++) {
		for (unsigned k = request[i].first; k < request[i].first + request[i].count; k++) {
			if (!request[i].rc)
				page[at[k]].slot = mrs_slot_make(target, own[k]);
			else if (request[i].rc == -EINPROGRESS)
				take_over(target, own[k], LOST);
			else
				free_slot(target, txn, own[k]);
		}
		if (request[i].rc && rc != -ETIMEDOUT)
			rc = request[i].rc == -EINPROGRESS ? -ETIMEDOUT : request[i].rc;
	}
	return rc;
}

static int write_failed(struct mrs_swap_target *target, int rc)
{
	if (rc == -ETIMEDOUT)
		return mrs_fail(rc, "writing to swap file %s of %s did not end within %d s",
				target->record->path, mrs_pool_path(target->pool), SECONDS);
	return mrs_fail(rc == -ENOSPC ? -ENOSPC : -EIO, "swap file %s of %s cannot be written: %s",
			target->record->path, mrs_pool_path(target->pool), strerror(-rc));
}

static int save(struct mrs_swap_target *target, struct mrs_txn *txn, const void *const memory[],
		struct mrs_swap_page page[], unsigned count, enum mrs_swap_effort effort)
{
	struct mrs_transfer request[MRS_SWAP_BATCH];
	struct iovec iov[MRS_SWAP_BATCH];
	unsigned at[MRS_SWAP_BATCH], many = 0, got;
	uint64_t own[MRS_SWAP_BATCH];
	int fd = mrs_swap_file_open(target), rc;
	bool parked;

	if (fd < 0)
		return cannot_open(target, fd);
	for (unsigned i = 0; i < count && many < MRS_SWAP_BATCH; i++)
		if (!page[i].slot) {
			at[many] = i;
			iov[many++] = (struct iovec){(void *)memory[i], MRS_PAGE_BYTES};
		}
	got = mrs_swap_file_take(target, txn->index + 1, own, many);
	if (!got)
		return 0;
	many = cut(own, iov, got, request);
	parked = mrs_txn_park(target->pool);
	run_requests(target, fd, true, request, many);
	MRS_PROBE("swap.file.written");
	mrs_txn_unpark(target->pool, parked);
	rc = finish_save(target, txn, request, many, own, at, page);
	return rc ? write_failed(target, rc) : 0;
}

static int load_one(struct mrs_swap_target *target, uint64_t own, void *memory)
{
	unsigned char page[MRS_PAGE_BYTES] __attribute__((aligned(4096)));
	bool direct = is_aligned(memory);
	struct iovec iov = {direct ? memory : page, MRS_PAGE_BYTES};
	int fd = target->swap ? mrs_swap_file_open(target) : -EIO, rc;

	if (fd < 0 || !is_slot(target, own))
		return -EIO;
	rc = transfer(fd, false, &iov, 1, offset_of(own));
	if (!rc && !direct)
		memcpy(memory, page, MRS_PAGE_BYTES);
	return rc ? -EIO : 0;
}

static bool is_ours(const struct mrs_swap_target *target, const struct mrs_swap_page *page)
{
	return page->rc == -EINPROGRESS && mrs_slot_target(page->slot) == target->index &&
	       is_slot(target, mrs_slot_own(page->slot));
}

static void load(struct mrs_swap_target *target, struct mrs_swap_page page[], void *const memory[],
		 unsigned count)
{
	struct mrs_transfer request[MRS_SWAP_BATCH];
	struct iovec iov[MRS_SWAP_BATCH];
	unsigned at[MRS_SWAP_BATCH], many = 0, found = 0;
	uint64_t own[MRS_SWAP_BATCH];
	int fd = mrs_swap_file_open(target);

	for (unsigned i = 0; i < count && found < MRS_SWAP_BATCH; i++) {
		if (!is_ours(target, &page[i]))
			continue;
		if (fd < 0 || !is_aligned(memory[i])) {
			page[i].rc = load_one(target, mrs_slot_own(page[i].slot), memory[i]);
			continue;
		}
		own[found] = mrs_slot_own(page[i].slot);
		iov[found] = (struct iovec){memory[i], MRS_PAGE_BYTES};
		at[found++] = i;
	}
	many = cut(own, iov, found, request);
	run_requests(target, fd, false, request, many);
	for (unsigned i = 0; i < many; i++)
		for (unsigned k = request[i].first; k < request[i].first + request[i].count; k++)
			/* One bad page must not spoil its neighbours. */
			page[at[k]].rc =
				request[i].rc ? load_one(target, own[k], memory[at[k]]) : 0;
}

/* ---- adding and removing ---- */

static int file_bytes(const char *path, uint64_t *bytes)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;
	struct stat st;

	*bytes = 0;
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	if (fstat(fd, &st))
		rc = -errno;
	else if (S_ISREG(st.st_mode))
		*bytes = (uint64_t)st.st_size;
	else if (!S_ISBLK(st.st_mode))
		rc = -ENOTSUP;
	else if (ioctl(fd, BLKGETSIZE64, bytes))
		rc = -errno;
	close(fd);
	return rc;
}

static int plan(struct morsel_pool *pool, struct mrs_swap_record *record, uint64_t *map_bytes)
{
	uint64_t wanted = record->slots, bytes;
	int rc = file_bytes(record->path, &bytes);

	if (rc == -ENOTSUP)
		return mrs_fail(-EINVAL, "%s is neither a file nor a block device", record->path);
	if (rc)
		return mrs_fail_errno(rc, "cannot look at %s", record->path);
	if (!wanted)
		wanted = bytes ? bytes / MRS_PAGE_BYTES - 1 : 0;
	if (!wanted || wanted > SLOTS_MAX)
		return mrs_fail(-EINVAL,
				"how large shall swap file %s be? Give bytes, at most 256 TiB",
				record->path);
	record->slots = wanted;
	*map_bytes = mrs_swap_file_map_bytes(wanted);
	return 0;
}

static int reserve(int fd, const struct mrs_swap_record *record)
{
	off_t bytes = offset_of(record->slots);
	struct stat st;
	int rc = 0;

	if (fstat(fd, &st))
		return -errno;
	if (S_ISBLK(st.st_mode))
		return 0;
	if (st.st_size < bytes && ftruncate(fd, bytes))
		return -errno;
	if (!(record->flags & MORSEL_SWAP_SPARSE))
		do
			rc = fallocate(fd, 0, 0, bytes) ? -errno : 0;
		while (rc == -EINTR);
	return rc;
}

static int write_head(struct mrs_swap_target *target, int fd)
{
	unsigned char page[MRS_PAGE_BYTES] __attribute__((aligned(4096)));

	mrs_swap_file_head(target, page);
	if (pwrite(fd, page, sizeof(page), 0) != (ssize_t)sizeof(page))
		return errno ? -errno : -EIO;
	return fsync(fd) ? -errno : 0;
}

/* Nothing in it, or the user said that it may go. */
static int is_usable(const struct mrs_swap_target *target, int fd)
{
	struct head head;
	struct stat st;

	if (fstat(fd, &st))
		return mrs_fail_errno(-errno, "cannot look at %s", target->record->path);
	if (S_ISREG(st.st_mode) && !st.st_size)
		return 0;
	if (target->record->flags & MORSEL_SWAP_OVERWRITE)
		return 0;
	return mrs_fail(-EEXIST,
			"%s %s: what is in it would be lost; say so "
			"(MORSEL_SWAP_OVERWRITE, morsel swap add --overwrite) or name another",
			target->record->path,
			!read_head(fd, &head) && head.magic == HEAD_MAGIC
				? "holds swapped pages of a pool"
				: "is not empty");
}

static int make(struct mrs_swap_target *target)
{
	struct mrs_swap_record *record = target->record;
	bool made = access(record->path, F_OK) != 0;
	struct mrs_uring *uring;
	int fd, rc = 0;

	if (!(record->flags & MORSEL_SWAP_PLAIN_IO))
		rc = mrs_swap_uring(target->swap, &uring);
	if (rc)
		return rc;
	fd = open_path(record->path, O_CREAT);
	if (fd < 0)
		return mrs_fail_errno(fd, "cannot open swap file %s", record->path);
	rc = is_usable(target, fd);
	if (rc)
		goto close_fd;
	record->flags = (record->flags & ~MRS_SWAP_MADE) | (made ? MRS_SWAP_MADE : 0);
	rc = reserve(fd, record);
	if (!rc)
		rc = write_head(target, fd);
	if (rc)
		rc = mrs_fail_errno(rc, "cannot prepare swap file %s of %" PRIu64 " MiB",
				    record->path, record->slots >> 8);
close_fd:
	close(fd);
	if (rc && made)
		unlink(record->path);
	return rc;
}

/* Only what is provably ours is touched. */
static void unmake(struct mrs_swap_target *target)
{
	static const unsigned char nothing[MRS_PAGE_BYTES] __attribute__((aligned(4096)));
	int fd = open_checked(target);

	if (fd < 0)
		return;
	if (target->record->flags & MRS_SWAP_MADE)
		unlink(target->record->path);
	else if (pwrite(fd, nothing, sizeof(nothing), 0) < 0)
		mrs_log(MRS_LOG_WARN, "%s still says that it is a swap file: %s",
			target->record->path, strerror(errno));
	close(fd);
}

/* ---- walking ---- */

static void each(struct mrs_swap_target *target,
		 void (*fn)(void *ctx, uint64_t own, unsigned owner), void *ctx)
{
	if (!is_slot(target, 0))
		return;
	for (uint64_t i = 0; i < target->record->slots; i++) {
		unsigned who = mrs_load_acquire16(owner_at(target, i));

		if (who && who != LOST)
			fn(ctx, i, who);
	}
}

static void owned(struct mrs_swap_target *target,
		  void (*fn)(void *ctx, uint64_t frame, uint64_t count, const char *by), void *ctx)
{
}

static void repair(struct mrs_swap_target *target, struct mrs_txn *txn)
{
	uint64_t slots = target->record->slots, used = 0;

	if (!is_slot(target, 0))
		return;
	for (uint64_t block = 0; block < block_count(slots); block++) {
		uint64_t end = mrs_min((block + 1) * BLOCK_SLOTS, slots);
		uint32_t taken = 0;

		for (uint64_t i = block * BLOCK_SLOTS; i < end; i++)
			taken += mrs_load_relaxed16(owner_at(target, i)) != 0;
		mrs_store_release32(taken_in(target, block), taken);
		used += taken;
	}
	mrs_store_release(&target->record->used, used);
	mrs_store_release(&target->record->stored, used * MRS_PAGE_BYTES);
}

const struct mrs_swap_ops mrs_swap_file_ops = {
	.plan = plan,
	.make = make,
	.unmake = unmake,
	.save = save,
	.load = load,
	.load_one = load_one,
	.owner = owner,
	.take_over = take_over,
	.free = free_slot,
	.each = each,
	.owned = owned,
	.repair = repair,
};
