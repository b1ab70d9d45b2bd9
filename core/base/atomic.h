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
extern bool mrs_explore_inside; /* a simulated thread is running */
#define MRS_EXPLORE_POINT(p) (mrs_explore_inside ? mrs_explore_point(p) : (void)0)
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

/* Stores zero into each of count words, with release order. One scheduling point. */
static inline void mrs_zero_release(uint64_t *p, unsigned count)
{
	MRS_EXPLORE_POINT(p);
	for (unsigned i = 0; i < count; i++)
		__atomic_store_n(&p[i], 0, __ATOMIC_RELEASE);
}

/*
 * Two neighbouring words, p aligned to 16 bytes: true if p[0] was first and p[1] was second, and p[1]
 * is now desired. The halves may be accessed by the verbs above at the same time.
 */
__extension__ typedef unsigned __int128 mrs_word_pair;

static inline bool mrs_cas_second(uint64_t *p, uint64_t first, uint64_t second, uint64_t desired)
{
	MRS_EXPLORE_POINT(p);
#if defined(__x86_64__)
	uint64_t low = first, high = second;
	bool done;

	__asm__ volatile("lock cmpxchg16b %1"
			 : "=@ccz"(done), "+m"(*(mrs_word_pair *)p), "+a"(low), "+d"(high)
			 : "b"(first), "c"(desired)
			 : "memory");
	return done;
#else
	mrs_word_pair from, to;
	uint64_t from_words[2] = { first, second }, to_words[2] = { first, desired };

	__builtin_memcpy(&from, from_words, sizeof(from));
	__builtin_memcpy(&to, to_words, sizeof(to));
	return __sync_bool_compare_and_swap((mrs_word_pair *)p, from, to);
#endif
}

/*
 * Both words at once: *p is what they were together at one instant. Acquire. x86-64 processors with
 * AVX read 16 aligned bytes at once; others read until twice the same is seen, and could be fooled by
 * two changes there and back in between. Works on memory that may only be read.
 */
static inline void mrs_load_pair(const uint64_t *p, uint64_t value[2])
{
	uint64_t again[2];

	MRS_EXPLORE_POINT(p);
#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx")) {
		__extension__ typedef long long words __attribute__((vector_size(16)));
		words both;

		__asm__ volatile("movdqa %1, %0"
				 : "=x"(both)
				 : "m"(*(const mrs_word_pair *)p)
				 : "memory");
		value[0] = (uint64_t)both[0];
		value[1] = (uint64_t)both[1];
		return;
	}
#endif
	do {
		value[0] = __atomic_load_n(&p[0], __ATOMIC_ACQUIRE);
		value[1] = __atomic_load_n(&p[1], __ATOMIC_ACQUIRE);
		again[0] = __atomic_load_n(&p[0], __ATOMIC_ACQUIRE);
		again[1] = __atomic_load_n(&p[1], __ATOMIC_ACQUIRE);
	} while (again[0] != value[0] || again[1] != value[1]);
}

/* Both words at once: true if they were from, and are now to. */
static inline bool mrs_cas_pair(uint64_t *p, const uint64_t from[2], const uint64_t to[2])
{
	MRS_EXPLORE_POINT(p);
#if defined(__x86_64__)
	uint64_t low = from[0], high = from[1];
	bool done;

	__asm__ volatile("lock cmpxchg16b %1"
			 : "=@ccz"(done), "+m"(*(mrs_word_pair *)p), "+a"(low), "+d"(high)
			 : "b"(to[0]), "c"(to[1])
			 : "memory");
	return done;
#else
	mrs_word_pair before, after;

	__builtin_memcpy(&before, from, sizeof(before));
	__builtin_memcpy(&after, to, sizeof(after));
	return __sync_bool_compare_and_swap((mrs_word_pair *)p, before, after);
#endif
}

#endif
