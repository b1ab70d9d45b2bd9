/*
 * What the tests of views share: a small anonymous pool, morsels of known content, and a way to
 * touch an address and be told what happened instead of dying.
 */
#ifndef TESTS_CORE_VIEW_SUPPORT_H
#define TESTS_CORE_VIEW_SUPPORT_H

#include <stdbool.h>
#include <stdint.h>

#include <morsel/morsel.h>
#include <morsel/view.h>

#define PAGE 4096ull
#define MIB  (1ull << 20)

/* An anonymous pool with a number space of 2 GiB. */
struct morsel_pool *support_pool(void);
/* The pool of a descriptor, opened anew: in a child of fork, where the parent's handle is dead.
 * NULL if it fails. */
struct morsel_pool *support_pool_again(int fd);

/* A morsel; flags and pages as in struct morsel_opts. */
struct morsel *support_morsel(struct morsel_pool *pool, const char *name, uint64_t bytes,
			      uint32_t flags, uint32_t pages);
/* Writes each page's number, and a mark, to its beginning, through the pool's file. */
void support_number(struct morsel *morsel, struct morsel_pool *pool, uint64_t mark);
/* The word that support_number() puts on a page. */
uint64_t support_word(uint64_t page, uint64_t mark);

/* 0, or the signal's si_code << 8 | signal that reading or writing *at gave. */
int support_touch(volatile void *at, bool write);
#define TOUCH_FORBIDDEN (2 << 8 | 11) /* SEGV_ACCERR: there is a mapping without that right */
#define TOUCH_NOTHING	(1 << 8 | 11) /* SEGV_MAPERR: there is no mapping */

/* Runs fn in a forked child; its answer (0 to 255), or 1000 + the signal that killed it. */
int support_in_child(int (*fn)(void *ctx), void *ctx);

/* Areas of this process, as the kernel lists them. */
uint64_t support_areas(void);
/* Is the flag (two letters) set on the area around at? */
bool support_has_flag(const void *at, const char *flag);

#endif
