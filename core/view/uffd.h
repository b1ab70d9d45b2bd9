/*
 * This process's userfaultfd for one pool handle, seen from inside the view room: the descriptor,
 * what the kernel lets it do, and who answers its faults.
 */
#ifndef MRS_VIEW_UFFD_H
#define MRS_VIEW_UFFD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <morsel/pager.h>

#include "object/retarget.h"
#include "pool/pool.h"
#include "view/regions.h"

/* Threads that read, and one that tries again: of the intents of a process one remains for others.
 */
#define MRS_FAULT_READERS 2
#define MRS_FAULT_THREADS (MRS_FAULT_READERS + 1)
#define MRS_FAULTS_ASIDE  1024

/* A page that was touched. */
struct mrs_fault_touch {
	uint64_t address;
	unsigned kind; /* enum mrs_fault_kind */
	bool told;     /* the log has been told why it is not served */
};

struct mrs_fault_threads {
	pthread_mutex_t lock; /* protects what follows, but for reader; nothing follows it */
	pthread_cond_t put_aside;
	pthread_t thread[MRS_FAULT_THREADS];
	uint32_t count;
	uint32_t readers;  /* atomic: threads that read, or wait to */
	bool retries;	   /* there is the one that tries again */
	uint32_t stopping; /* atomic */
	uint32_t reader;   /* futex: who reads */
	void *end_page;
	unsigned asides;
	struct mrs_fault_touch aside[MRS_FAULTS_ASIDE];
};

struct mrs_faults {
	struct mrs_part part;
	pthread_mutex_t lock; /* of opening; mrs_fork_hold() follows it */
	uint32_t fd_plus_1;   /* atomic; 0: not open. For life, once it is open */
	bool user_only;	      /* faults of the kernel are not served */
	bool sigbus;
	uint64_t features;
	struct mrs_fault_threads threads;
};

/* The handle's, made and opened where it is not: -EOPNOTSUPP, -EMFILE in words. */
int mrs_faults_of(struct morsel_pool *pool, struct mrs_faults **faults);

/* ---- fault_thread.c ---- */

int mrs_fault_threads_start(struct mrs_faults *faults);
void mrs_fault_threads_stop(struct mrs_faults *faults);

/* ---- sigbus.c ---- */

/* Installs the process's handler if it is not; -errno in words. */
int mrs_sigbus_install(void);
/* Is ours the handler that the kernel calls? */
bool mrs_sigbus_stands(void);

/* ---- both: one fault of a region, async-signal-safe ---- */

/* What mrs_fault() answers; kind may have MRS_FAULT_TRY. */
int mrs_region_fault(const struct mrs_region *region, int fd, uint64_t address, unsigned kind);
/*
 * The page at address cannot be had: whoever touches it is told (SIGBUS; SIGSEGV before Linux 6.6).
 * -EEXIST: that had been done before.
 */
int mrs_uffd_refuse(int fd, uint64_t address);

#endif
