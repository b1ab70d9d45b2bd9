/*
 * The pager: the one attached process at a time that holds everyone's userfaultfd descriptor.
 *
 * Any process may be it; the kernel drops its lock (MRS_LOCK_PAGER) at death, and whoever notices
 * first is elected. Every process with a writable view of an evictable morsel hands it its descriptor
 * over a Unix socket, after each has shown the other that it can read the pool's memory. Correctness
 * rests on leaf locks and intents, not on there being one pager: two at once are safe.
 *
 * What a process hands over controls its whole address space: all who attach a pool for writing trust
 * each other. A view whose descriptor the pager lacks makes it refuse, never guess.
 */
#ifndef MRS_VIEW_PAGER_H
#define MRS_VIEW_PAGER_H

#include "view/registry.h"

/* Sees to it that there is a pager and that it has our descriptor. Cheap when all is well. */
int mrs_pager_ensure(struct morsel_pool *pool);
bool mrs_pager_is_self(struct morsel_pool *pool);
/* Slot of the pager, or MRS_SLOTS if there is none. */
unsigned mrs_pager_slot(struct morsel_pool *pool);

/*
 * For the service thread, which neither waits nor allocates: a request to the pager (EVICT, ROOM,
 * PROTECT) is taken over by a thread of the pager, which runs it and answers by mrs_mail_answer().
 * -EAGAIN, without words: this process is not the pager, or has too much to do; the service answers that.
 */
struct mrs_pager_job {
	uint64_t word; /* as it stood in the inbox: which request it is */
	uint32_t op;   /* enum mrs_request_op */
	uint64_t record;
	uint64_t first;
	uint64_t count;
	uint64_t arg;
};
int mrs_pager_post(struct morsel_pool *pool, const struct mrs_pager_job *job);
/* CONNECT: whoever is pager now is to get our descriptor. Does not wait. */
void mrs_pager_connect(struct morsel_pool *pool);

/* ---- in the pager only ---- */

/*
 * Stops the writers: write-protects pages [first, end) in every writable CPU view of the family, in
 * every process, stopped ones too. The leaves are locked by the caller. 0; -EAGAIN in words that name
 * a process whose descriptor is not here (yet). A process that has died is passed by.
 */
int mrs_pager_protect(struct morsel_pool *pool, uint64_t family, uint64_t first, uint64_t end);

/* ---- in any process, for its own views ---- */

/*
 * Registers [address, address + bytes) (missing and write-protect) before its first touch; whoever serves
 * this handle's faults answers for it from then on, and finds the view by mrs_region_add() (regions.h),
 * which comes first. A part that is mapped anew is registered anew; the region stays. -EOPNOTSUPP in words where the kernel has no userfaultfd for
 * this, or forbids it.
 */
int mrs_uffd_register(struct morsel_pool *pool, void *address, uint64_t bytes);
void mrs_uffd_unregister(struct morsel_pool *pool, void *address, uint64_t bytes);
/* The descriptor; -1 if there is none yet. */
int mrs_uffd_fd(struct morsel_pool *pool);

/* -EOPNOTSUPP in words where this pool's kind of memory has no userfaultfd. */
int mrs_uffd_kind_check(struct morsel_pool *pool);

/*
 * Ioctls on it, in one place: 0 or -errno without words; async-signal-safe. Copying wakes those who wait
 * at a page, lifting a protection too, and poison. Of several pages those that are resident already are
 * kept, and their waiters woken: copy answers how many they were. What is not registered of a range
 * that is protected, or no more, is passed by; -ENOENT: none of it is.
 */
int mrs_uffd_copy(int fd, void *to, const void *from, uint64_t bytes, bool protect);
int mrs_uffd_protect(int fd, uint64_t address, uint64_t bytes, bool on);
int mrs_uffd_wake(int fd, uint64_t address, uint64_t bytes);
int mrs_uffd_poison(int fd, uint64_t address, uint64_t bytes);

#endif
