/*
 * Errors in words, the log, and small helpers: what every room of the core may use.
 *
 * An error is decided once, where its cause is known. There mrs_fail() puts it into words (which
 * limit, which value, what to do) and returns the code; everywhere else the code is passed up
 * unchanged. The words belong to the thread and live until its next failure.
 */
#ifndef MRS_BASE_H
#define MRS_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MRS_PAGE_SHIFT 12
#define MRS_PAGE_BYTES ((uint64_t)1 << MRS_PAGE_SHIFT)
#define MRS_HUGE_ORDER 9
#define MRS_HUGE_BYTES (MRS_PAGE_BYTES << MRS_HUGE_ORDER)
#define MRS_GIANT_ORDER 18
#define MRS_GIANT_BYTES (MRS_PAGE_BYTES << MRS_GIANT_ORDER)

#define mrs_min(a, b) ((a) < (b) ? (a) : (b))
#define mrs_max(a, b) ((a) > (b) ? (a) : (b))
#define mrs_array_length(a) (sizeof(a) / sizeof((a)[0]))

/* to is a power of two. The sum must not overflow: check sizes that come from outside first. */
static inline uint64_t mrs_round_up(uint64_t value, uint64_t to)
{
	return (value + to - 1) & ~(to - 1);
}

static inline uint64_t mrs_round_down(uint64_t value, uint64_t to)
{
	return value & ~(to - 1);
}

/* Keeps the words for morsel_errormsg(), logs them at level info, returns code (a negative errno). */
int mrs_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * For a handler of a signal: while on, failures have codes and no words; what the interrupted
 * thread's words were stays, and nothing is allocated or locked for them. Returns what it was.
 */
bool mrs_fail_quietly(bool on);
/* Is this thread in such a handler? */
bool mrs_fail_is_quiet(void);

/* What a thread keeps for longer than a call. */
enum mrs_thread_memory {
	MRS_THREAD_ERROR_TEXT,
	MRS_THREAD_EVICTOR, /* the evictor's clock */
	MRS_THREAD_MEMORIES,
};

/*
 * So many bytes of the calling thread, zeroed at its first call, freed when it ends; NULL if there is no
 * memory. Not in a handler of a signal.
 */
void *mrs_thread_memory(enum mrs_thread_memory which, size_t bytes);

/* Like mrs_fail(), with ": " and the system's words for code at the end. */
int mrs_fail_errno(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

enum mrs_log_level { MRS_LOG_ERROR = 1, MRS_LOG_WARN, MRS_LOG_INFO, MRS_LOG_DEBUG };

void mrs_log(enum mrs_log_level level, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/*
 * Reads the fields that both sides know out of an option struct whose first member is its size in
 * bytes: copies at most known bytes to to and zeroes the rest. NULL means all zero. A caller that is
 * newer than the library and sets a field that the library does not know gets -E2BIG.
 */
int mrs_opts_read(void *to, size_t known, const void *from);

/* CRC-32C (Castagnoli) of bytes, continued from seed (0 at the start). */
uint32_t mrs_crc32c(uint32_t seed, const void *data, size_t bytes);

/* "6.82 GiB" into buffer (at least 16 bytes); returns buffer. For messages, not for machines. */
const char *mrs_bytes_text(uint64_t bytes, char *buffer);

#if MORSEL_CHECKS >= 1
void mrs_check_failed(const char *file, int line, const char *what) __attribute__((noreturn));
#define MRS_CHECK(condition) \
	((condition) ? (void)0 : mrs_check_failed(__FILE__, __LINE__, #condition))
#else
#define MRS_CHECK(condition) ((void)0)
#endif
/* A check that costs more than a few loads: the whole structure is walked. */
#if MORSEL_CHECKS >= 2
#define MRS_CHECK_SLOW(condition) MRS_CHECK(condition)
#else
#define MRS_CHECK_SLOW(condition) ((void)0)
#endif

#endif
