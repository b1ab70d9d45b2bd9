/*
 * Faults in the touching thread: userfaultfd raises SIGBUS there, and a handler of the process
 * brings the page back and returns to the touch.
 *
 * The handler is installed once, for all pools. It serves addresses in views of handles that asked
 * for it; everything else goes to the handler that was there before, or meets the action that was
 * set. It leaves SIGBUS unblocked (the handler that is called on may touch an evicted page too),
 * and runs on an alternate stack only where the former handler did: such a stack is often small.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include "base/atomic.h"
#include "base/base.h"
#include "base/probe.h"
#include "pool/internal.h"
#include "view/pager.h"
#include "view/uffd.h"

#define AGAIN_NS 1000000

#ifndef BUS_MCEERR_AR
#define BUS_MCEERR_AR 4
#endif

/* The lock is of installing; former does not change after it. */
static struct {
	pthread_mutex_t lock;
	uint32_t installed;
	struct sigaction former;
} bus = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- serving ---- */

#if defined(__x86_64__)
/* The processor's error code: bit 0 the page was there, bit 1 it was a write. */
static unsigned kind_of(const ucontext_t *context)
{
	uint64_t error = (uint64_t)context->uc_mcontext.gregs[REG_ERR];

	if (!(error & 2))
		return MRS_FAULT_MISSING;
	return error & 1 ? MRS_FAULT_PROTECTED : MRS_FAULT_WRITE;
}
#elif defined(__aarch64__)
/* The exception syndrome, in a record behind the registers: bit 6 a write, bits 0-5 why. */
static unsigned kind_of(const ucontext_t *context)
{
	const char *at = (const char *)context->uc_mcontext.__reserved;
	const uint32_t esr_magic = 0x45535201;
	uint32_t head[2];
	uint64_t esr = 0;

	for (memcpy(head, at, 8); head[0] && head[1] && !esr; memcpy(head, at, 8)) {
		if (head[0] == esr_magic)
			memcpy(&esr, at + 8, 8);
		at += head[1];
	}
	if (!(esr & 1 << 6))
		return MRS_FAULT_MISSING;
	return (esr & 0x3c) == 0x0c ? MRS_FAULT_PROTECTED : MRS_FAULT_WRITE;
}
#else
/* What is not known is taken for a write: that costs a save too many. */
static unsigned kind_of(const ucontext_t *context)
{
	(void)context;
	return MRS_FAULT_WRITE;
}
#endif

/* True if the touch is to be repeated. */
static bool serve(const siginfo_t *info, const void *context)
{
	uint64_t address = mrs_round_down((uintptr_t)info->si_addr, MRS_PAGE_BYTES);
	struct mrs_region region;
	unsigned kind = kind_of(context);
	uint32_t *hold;
	int fd, rc;
	bool quiet;

	/* Sent by somebody, or a page that is poisoned already: not a fault to be served. */
	if (info->si_code <= 0 || info->si_code == BUS_MCEERR_AR ||
	    !mrs_region_find(address, &region, &hold))
		return false;
	fd = mrs_uffd_fd(region.pool);
	if (mrs_pool_faults(region.pool) != MORSEL_FAULTS_SIGBUS || fd < 0) {
		mrs_region_release(hold);
		return false;
	}
	quiet = mrs_fail_quietly(true);
	rc = mrs_region_fault(&region, fd, address,
			      region.writable || kind == MRS_FAULT_MISSING ? kind
									   : MRS_FAULT_MISSING);
	mrs_fail_quietly(quiet);
	mrs_region_release(hold);
	MRS_PROBE("view.sigbus.served");
	/* The next touch is told; a kernel without CONFIG_MEMORY_FAILURE tells by BUS_ADRERR. */
	if (rc == -EIO || rc == -ERANGE)
		return !mrs_uffd_refuse(fd, address);
	if (rc)
		mrs_sleep_ns(AGAIN_NS);
	return true;
}

/* ---- what is not ours ---- */

/* As if there had never been a handler. */
static void default_action(const siginfo_t *info)
{
	struct sigaction action = {.sa_handler = SIG_DFL};

	sigaction(SIGBUS, &action, NULL);
	/* A touch is repeated when we return, and ends the process; what was sent is not. */
	if (info->si_code <= 0)
		raise(SIGBUS);
}

static void pass_on(int signal, siginfo_t *info, void *context)
{
	const struct sigaction *former = &bus.former;

	if (former->sa_handler == SIG_DFL || (former->sa_handler == SIG_IGN && info->si_code > 0)) {
		default_action(info);
		return;
	}
	if (former->sa_handler == SIG_IGN)
		return;
	/* Undone by the kernel when our own handler returns, as it would be for theirs. */
	pthread_sigmask(SIG_BLOCK, &former->sa_mask, NULL);
	if (former->sa_flags & SA_SIGINFO)
		former->sa_sigaction(signal, info, context);
	else
		former->sa_handler(signal);
}

static void on_sigbus(int signal, siginfo_t *info, void *context)
{
	int before = errno;
	bool served = serve(info, context);

	errno = before;
	if (!served)
		pass_on(signal, info, context);
}

/* ---- installing ---- */

int mrs_sigbus_install(void)
{
	struct sigaction action = {.sa_sigaction = on_sigbus};
	int rc = 0;

	sigemptyset(&action.sa_mask);
	pthread_mutex_lock(&bus.lock);
	if (!bus.installed) {
		/* Known before the first signal can ask for it. */
		rc = sigaction(SIGBUS, NULL, &bus.former) ? -errno : 0;
		action.sa_flags =
			SA_SIGINFO | SA_NODEFER | SA_RESTART | (bus.former.sa_flags & SA_ONSTACK);
		if (!rc && sigaction(SIGBUS, &action, NULL))
			rc = -errno;
		mrs_store_release32(&bus.installed, !rc);
	}
	pthread_mutex_unlock(&bus.lock);
	return rc ? mrs_fail_errno(rc, "cannot install a handler of SIGBUS") : 0;
}

bool mrs_sigbus_stands(void)
{
	struct sigaction now;

	return mrs_load_acquire32(&bus.installed) && !sigaction(SIGBUS, NULL, &now) &&
	       now.sa_flags & SA_SIGINFO && now.sa_sigaction == on_sigbus;
}
