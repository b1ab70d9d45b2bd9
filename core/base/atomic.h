/*
 * Atomic verbs.
 *
 * Owns the only way in which this project touches memory that another thread or process may touch
 * at the same time. A verb carries its order in its name; where it is used, a comment says what it
 * pairs with. Freestanding: usable in core/frame and in a kernel.
 *
 * Every verb is a scheduling point for the interleaving explorer (tests/support/explore.h): with
 * MORSEL_EXPLORE defined it first calls mrs_explore_point(), which may switch to another simulated
 * thread. In every other build the verbs cost what the bare instruction costs.
 *
 * Death of a process is not a power cut: what a killed process stored, in program order, the others
 * see. Against that, mrs_compiler_barrier() is enough; against another processor it is not.
 */
#ifndef MRS_BASE_ATOMIC_H
#define MRS_BASE_ATOMIC_H

#include <stdbool.h>
#include <stdint.h>

#ifdef MORSEL_EXPLORE
void mrs_explore_point(const volatile void *address);
void mrs_explore_yield(void);
#define MRS_EXPLORE_POINT(p) mrs_explore_point(p)
#else
#define MRS_EXPLORE_POINT(p) ((void)0)
#endif

#define mrs_compiler_barrier() __atomic_signal_fence(__ATOMIC_SEQ_CST)

/* Orders everything before against everything after, stores against later loads included. */
static inline void mrs_full_fence(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* Tells the processor (or the explorer, which then lets another thread run) that this one spins. */
static inline void mrs_spin_hint(void)
{
#if defined(MORSEL_EXPLORE)
	mrs_explore_yield();
#elif defined(__x86_64__)
	__builtin_ia32_pause();
#else
	mrs_compiler_barrier();
#endif
}

#define MRS_ATOMIC_VERBS(type, suffix)                                                             \
	static inline type mrs_load_relaxed##suffix(const type *p)                                 \
	{                                                                                          \
		MRS_EXPLORE_POINT(p);                                                              \
		return __atomic_load_n(p, __ATOMIC_RELAXED);                                       \
	}                                                                                          \
	static inline type mrs_load_acquire##suffix(const type *p)                                 \
	{                                                                                          \
		MRS_EXPLORE_POINT(p);                                                              \
		return __atomic_load_n(p, __ATOMIC_ACQUIRE);                                       \
	}                                                                                          \
	static inline void mrs_store_relaxed##suffix(type *p, type value)                          \
	{                                                                                          \
		MRS_EXPLORE_POINT(p);                                                              \
		__atomic_store_n(p, value, __ATOMIC_RELAXED);                                      \
	}                                                                                          \
	static inline void mrs_store_release##suffix(type *p, type value)                          \
	{                                                                                          \
		MRS_EXPLORE_POINT(p);                                                              \
		__atomic_store_n(p, value, __ATOMIC_RELEASE);                                      \
	}                                                                                          \
	/* True if *p was *expected and is now desired; otherwise *expected is what *p was. */     \
	static inline bool mrs_cas##suffix(type *p, type *expected, type desired)                  \
	{                                                                                          \
		MRS_EXPLORE_POINT(p);                                                              \
		return __atomic_compare_exchange_n(p, expected, desired, false, __ATOMIC_ACQ_REL,  \
						   __ATOMIC_ACQUIRE);                              \
	}                                                                                          \
	static inline type mrs_swap##suffix(type *p, type value)                                   \
	{                                                                                          \
		MRS_EXPLORE_POINT(p);                                                              \
		return __atomic_exchange_n(p, value, __ATOMIC_ACQ_REL);                            \
	}                                                                                          \
	/* The fetch verbs return the value before. */                                             \
	static inline type mrs_fetch_add##suffix(type *p, type value)                              \
	{                                                                                          \
		MRS_EXPLORE_POINT(p);                                                              \
		return __atomic_fetch_add(p, value, __ATOMIC_ACQ_REL);                             \
	}                                                                                          \
	static inline type mrs_fetch_sub##suffix(type *p, type value)                              \
	{                                                                                          \
		MRS_EXPLORE_POINT(p);                                                              \
		return __atomic_fetch_sub(p, value, __ATOMIC_ACQ_REL);                             \
	}                                                                                          \
	static inline type mrs_fetch_or##suffix(type *p, type value)                               \
	{                                                                                          \
		MRS_EXPLORE_POINT(p);                                                              \
		return __atomic_fetch_or(p, value, __ATOMIC_ACQ_REL);                              \
	}                                                                                          \
	static inline type mrs_fetch_and##suffix(type *p, type value)                              \
	{                                                                                          \
		MRS_EXPLORE_POINT(p);                                                              \
		return __atomic_fetch_and(p, value, __ATOMIC_ACQ_REL);                             \
	}

MRS_ATOMIC_VERBS(uint64_t, )
MRS_ATOMIC_VERBS(uint32_t, 32)
MRS_ATOMIC_VERBS(uint16_t, 16)

#endif
