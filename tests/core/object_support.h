/*
 * What the tests of the object room share: a pool, content that can be recognised, children that do
 * something and die.
 */
#ifndef TESTS_CORE_OBJECT_SUPPORT_H
#define TESTS_CORE_OBJECT_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include <cmocka.h>

#include <morsel/morsel.h>

#include "object/internal.h"

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)

/* Fails the test with the library's words if the call failed. */
#define assert_ok(call)                                                         \
	do {                                                                    \
		int rc_ = (call);                                               \
		if (rc_ < 0)                                                    \
			fail_msg("%s = %d: %s", #call, rc_, morsel_errormsg()); \
	} while (0)
/* The call must fail with code, and say something that contains words. */
#define assert_fails(call, code, words)                                                      \
	do {                                                                                 \
		int rc_ = (call);                                                            \
		if (rc_ != (code) || !strstr(morsel_errormsg(), words))                      \
			fail_msg("%s = %d, not %d; \"%s\" without \"%s\"", #call, rc_, code, \
				 morsel_errormsg(), words);                                  \
	} while (0)

struct morsel_pool *object_pool(uint64_t bytes);
/* Checks the pool, closes it. */
void object_pool_end(struct morsel_pool *pool);
/* What the test is at, for the words of a failed check. */
extern char object_context[128];
/* Fails with the findings if there are any. */
void object_check(struct morsel_pool *pool);
uint64_t object_free_bytes(struct morsel_pool *pool);

struct morsel *object_create(struct morsel_pool *pool, const char *name, uint64_t bytes,
			     uint32_t flags, uint32_t pages);
struct morsel *object_open(struct morsel_pool *pool, const char *name);
struct morsel_info object_info(struct morsel *morsel);
bool object_exists(struct morsel_pool *pool, const char *name);

/* Content: every 8 bytes are a function of seed and offset. */
uint64_t object_word(uint64_t seed, uint64_t offset);
void object_write(struct morsel *morsel, uint64_t seed, uint64_t offset, uint64_t bytes);
/* The first offset at which it is not so, or UINT64_MAX. */
uint64_t object_differs(struct morsel *morsel, uint64_t seed, uint64_t offset, uint64_t bytes);
bool object_is_zero(struct morsel *morsel, uint64_t offset, uint64_t bytes);
/* A file of such content; returns its path, which is static. */
const char *object_file(const char *name, uint64_t seed, uint64_t bytes);

/*
 * Runs this very program as "object --child OP FD ARGUMENT" with the probe that kills it (NULL
 * none) in its environment; returns its wait status. The parent's pool stays open.
 */
int object_child(struct morsel_pool *pool, const char *op, const char *argument, const char *kill);
pid_t object_child_start(struct morsel_pool *pool, const char *op, const char *argument,
			 const char *kill);

#endif
