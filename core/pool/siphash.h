/*
 * SipHash-2-4: a keyed hash of short inputs. Who does not know the key cannot choose names that
 * collide. Own implementation of Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012).
 */
#ifndef MRS_POOL_SIPHASH_H
#define MRS_POOL_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t mrs_siphash(const uint64_t key[2], const void *data, size_t bytes);

#endif
