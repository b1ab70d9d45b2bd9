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
 *
 * Steps of a Promela model carry the same names.
 */
#ifndef MRS_BASE_PROBE_H
#define MRS_BASE_PROBE_H

#ifdef MORSEL_PROBES
void mrs_probe_hit(const char *name);
#define MRS_PROBE(name) mrs_probe_hit(name)
#else
#define MRS_PROBE(name) ((void)0)
#endif

#endif
