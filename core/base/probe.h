/*
 * Probes: named places in the code at which a test can look, or kill.
 *
 * MRS_PROBE("room.transition.step") stands between two steps of a transition. In a build without
 * MORSEL_PROBES it is nothing. In a test build it counts the hit and, if the environment asks for
 * it, ends the process there with SIGKILL:
 *
 *   MORSEL_PROBE_KILL=name:n   kill at the n-th hit of that probe (name "*": the n-th hit of any)
 *   MORSEL_PROBE_LOG=file      a mapped file in which hits are counted, so that they survive the kill
 *   MORSEL_PROBE_TELL=1        who is killed says at which probe
 *   MORSEL_PROBE_TRACE=file    a mapped file, as large as its maker made it, in which the processes
 *                              note what they do, in one order; when it is full, no more
 *
 * Steps of a Promela model carry the same names: tests/models/replay.py asks the model whether it
 * can do what a trace says (object/retarget_probe.h).
 */
#ifndef MRS_BASE_PROBE_H
#define MRS_BASE_PROBE_H

#ifdef MORSEL_PROBES
#include <stddef.h>
#include <stdint.h>

void mrs_probe_hit(const char *name);

/* An entry of the trace. The file begins with the offset of its free end, as an uint64_t. */
struct mrs_probe_event {
	uint32_t bytes;	 /* of the entry */
	uint32_t length; /* of what follows; written last, 0: died before */
	uint32_t pid, pad;
	char name[32];
	uint64_t word[];
};

/* Begins one with room for so many words, in the order of these calls; NULL: there is no trace. */
struct mrs_probe_event *mrs_probe_note(const char *name, size_t words);
void mrs_probe_noted(struct mrs_probe_event *event, size_t words);

#define MRS_PROBE(name) mrs_probe_hit(name)
#else
#define MRS_PROBE(name) ((void)0)
#endif

#endif
