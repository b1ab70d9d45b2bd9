/*
 * Static probes: named places with arguments, for perf, bpftrace and SystemTap.
 *
 * MRS_TRACE(name, ...) is one nop and a note in the ELF file (section .note.stapsdt, provider morsel)
 * that says where it is and where its arguments stand; nothing is computed for it but what is there
 * anyway. Where the header of systemtap-sdt-dev is missing at build time it is nothing at all, and the
 * arguments are not evaluated. tools/trace/ has scripts for each; `readelf -n libmorsel.so` lists them.
 *
 *	map		morsel id, address (0: a device's view), offset in the morsel, bytes
 *	invalidate	morsel id, offset in the view, bytes
 *	fault		morsel id, page, 1 if to write, 0 or -errno
 *	evict		morsel id, first page, pages looked at, of them evicted
 *	promote		morsel id, first of the 512 pages
 *	reap		slot, pid of the dead process
 *
 * Different from MRS_PROBE (probe.h), which is for tests and not in a release: these are for users.
 */
#ifndef MRS_BASE_TRACE_H
#define MRS_BASE_TRACE_H

#if !defined(MORSEL_EXPLORE) && defined(__has_include)
#if __has_include(<sys/sdt.h>)
#define SDT_USE_VARIADIC
#include <sys/sdt.h>
#endif
#endif

#ifdef STAP_PROBEV
#define MRS_TRACE(name, ...) STAP_PROBEV(morsel, name, __VA_ARGS__)
#define MRS_HAVE_TRACE	     1
#else
/* Named and not evaluated, so that nobody finds them unused. */
#define MRS_TRACE(name, ...) ((void)sizeof((long[]){__VA_ARGS__}))
#endif

#endif
