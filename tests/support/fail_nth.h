/*
 * Fails the n-th call that the library makes to libc or the kernel, once.
 *
 * The program is linked with --wrap for each of FAIL_NTH_WRAPPED (tests/support/fail_nth.cmake), so
 * that every such call of libmorsel's code, and of the test's own, goes through a counter. Calls
 * count only while armed, and only in the thread that armed.
 */
#ifndef TESTS_SUPPORT_FAIL_NTH_H
#define TESTS_SUPPORT_FAIL_NTH_H

#include <stdbool.h>
#include <stdint.h>

/* From now on counts calls, and fails the n-th (1 ...); n 0 only counts. */
void fail_nth_arm(uint64_t n);

/* Stops; returns how many calls were counted. */
uint64_t fail_nth_disarm(void);

/* Which call was failed, for messages; NULL if none was. */
const char *fail_nth_victim(void);

#endif
