/*
 * morsel: faults, and the pager.
 *
 * A page of an evictable morsel may be elsewhere than in memory (its content on a swap target). Who
 * touches it through a CPU view waits until it is back, and notices nothing but the time. Three things
 * work together in every process that has such a view:
 *
 *  - The kernel's userfaultfd stops whoever touches a page that is not there, or writes one that is
 *    being saved.
 *  - Somebody answers: a thread of the library (MORSEL_FAULTS_THREAD, the default), or the touching
 *    thread itself in a handler of SIGBUS (MORSEL_FAULTS_SIGBUS: two thirds of the time).
 *  - One attached process is the pool's *pager*. It alone evicts, and needs nobody's help for it: every
 *    process hands it its userfaultfd descriptor. Who is it, is elected; when it ends, another takes
 *    over. `morsel pager` is a service that does nothing else.
 *
 * System calls. read(), write(), io_uring and other system calls that get the address of an evicted
 * page are served like any touch where the kernel lets this process serve faults of the kernel: as
 * root (CAP_SYS_PTRACE), with access to /dev/userfaultfd, or with sysctl vm.unprivileged_userfaultfd=1.
 * Elsewhere, and with MORSEL_FAULTS_SIGBUS always, they answer EFAULT (or a short count). The remedy is
 * a grant: between morsel_acquire() and morsel_release() the range is resident and system calls work.
 * morsel_pool_faults() says which of these holds.
 *
 * Lost pages. A page whose content cannot be read back is poisoned: touching it is SIGBUS (Linux 6.6;
 * before that SIGSEGV) with si_code BUS_MCEERR_AR, or BUS_ADRERR where the kernel was built without
 * CONFIG_MEMORY_FAILURE, and a system call answers EFAULT or EHWPOISON.
 *
 * SIGBUS mode and other handlers. The library installs one handler for the process, when the first
 * view that needs it is made. What is not about its pages goes on to the handler that was there
 * before, or does what it would have done. An application that installs its own handler later replaces
 * the library's and must call the one that sigaction() gave back; else the next touch of an evicted
 * page goes wrong. Threads must not block SIGBUS (the kernel would end the process); a touch inside another
 * handler is fine. The handler runs on an alternate stack only if the handler before it did: such a
 * stack must then have 64 KiB.
 *
 * Trust. A process that attaches a pool for writing hands the pager a descriptor that controls its
 * whole address space, and takes part in the pager's election: all such processes are one trust
 * domain. Both sides show each other that they can read the pool's memory before a descriptor is
 * handed over; a stranger on the same machine gets none.
 */
#ifndef MORSEL_PAGER_H
#define MORSEL_PAGER_H

#include <morsel/morsel.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How touches of evicted pages are answered in this process. */
enum morsel_fault_mode {
	MORSEL_FAULT_TRANSPARENT = 1, /* by a thread; of system calls too */
	MORSEL_FAULT_USER,	      /* by a thread; a system call on an evicted page answers EFAULT */
	MORSEL_FAULT_SIGBUS,	      /* in the touching thread; system calls as before */
	MORSEL_FAULT_REPLACED,	      /* as before, but another handler of SIGBUS stands in front of it:
				       * it works only if that one passes on what it does not know */
};

/*
 * Which of them it is for views of this handle (enum morsel_fault_mode). -EOPNOTSUPP names what this
 * kernel, this user or this pool's kind of memory lacks: then evictable morsels can be mapped by
 * nobody here, and nothing of them is evicted.
 */
MORSEL_API int morsel_pool_faults(struct morsel_pool *pool);

/*
 * Sees to it that the pool has a pager and keeps doing so until the handle is closed: this process is
 * elected if there is none, now or later. For services (`morsel pager`); processes with views of
 * evictable morsels do it by themselves. Returns the pager's process id as it gave it itself, or 0 if it
 * has just ended. -ETIMEDOUT names a pager that does not answer.
 */
MORSEL_API int64_t morsel_pool_pager(struct morsel_pool *pool);

/*
 * Has the pager keep so many bytes (whole 2 MiB, at most 1 GiB; 0, the default: none) of free huge frames
 * whose memory is there and zeroed, so that making a morsel need not wait for the kernel to zero it. It
 * is memory: it counts against the budget, and is given up first when that is short. -EOPNOTSUPP: pools
 * without huge folios; -EINVAL: more than 1 GiB.
 */
MORSEL_API int morsel_pool_zero_ahead(struct morsel_pool *pool, uint64_t bytes);

#ifdef __cplusplus
}
#endif

#endif
