/*
 * Errors in words, the log, checksums. See base.h.
 *
 * What a thread keeps is small in thread-local storage, which a library that is loaded late gets a
 * few hundred bytes of; the rest is memory that its key's destructor frees. Where there is none the
 * error text is cut to a fixed buffer, so that reporting that memory is short needs none.
 */
#include "base/base.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <morsel/view.h>

#define ERROR_TEXT_BYTES 1024
#define SHORT_TEXT_BYTES 128

static __thread char short_text[SHORT_TEXT_BYTES];
static __thread const char *error_text = "";
static __thread bool quiet;
static __thread void *thread_memory[MRS_THREAD_MEMORIES];

static struct {
	pthread_once_t once;
	pthread_key_t key;
	bool made;
} thread_end = {.once = PTHREAD_ONCE_INIT};

static void free_thread_memory(void *memories)
{
	void **memory = memories;

	error_text = "";
	for (size_t i = 0; i < MRS_THREAD_MEMORIES; i++) {
		free(memory[i]);
		memory[i] = NULL;
	}
}

static void make_thread_end(void)
{
	thread_end.made = !pthread_key_create(&thread_end.key, free_thread_memory);
}

void *mrs_thread_memory(enum mrs_thread_memory which, size_t bytes)
{
	if (thread_memory[which])
		return thread_memory[which];
	pthread_once(&thread_end.once, make_thread_end);
	if (!thread_end.made || pthread_setspecific(thread_end.key, thread_memory))
		return NULL;
	thread_memory[which] = calloc(1, bytes);
	return thread_memory[which];
}

static struct {
	pthread_mutex_t lock; /* protects fn and ctx against morsel_log_set(); nothing follows it */
	morsel_log_fn fn;
	void *ctx;
} log_sink = {.lock = PTHREAD_MUTEX_INITIALIZER};

const char *morsel_errormsg(void)
{
	return error_text;
}

void morsel_log_set(morsel_log_fn fn, void *ctx)
{
	pthread_mutex_lock(&log_sink.lock);
	log_sink.fn = fn;
	log_sink.ctx = ctx;
	pthread_mutex_unlock(&log_sink.lock);
}

const char *morsel_version(void)
{
	return MORSEL_VERSION_STRING;
}

static int level_of_text(const char *text)
{
	static const char *const names[] = {"none", "error", "warn", "info", "debug"};

	for (size_t i = 0; i < mrs_array_length(names); i++)
		if (!strcmp(text, names[i]))
			return (int)i;
	return MRS_LOG_WARN;
}

/* What MORSEL_LOG asks for; read once, for getenv() is not safe beside setenv(). */
static int stderr_level(void)
{
	static int level = -1;
	int seen = __atomic_load_n(&level, __ATOMIC_RELAXED);

	if (seen < 0) {
		const char *text = getenv("MORSEL_LOG");

		seen = text ? level_of_text(text) : MRS_LOG_ERROR;
		__atomic_store_n(&level, seen, __ATOMIC_RELAXED);
	}
	return seen;
}

static void log_text(enum mrs_log_level level, const char *text)
{
	morsel_log_fn fn;
	void *ctx;

	pthread_mutex_lock(&log_sink.lock);
	fn = log_sink.fn;
	ctx = log_sink.ctx;
	pthread_mutex_unlock(&log_sink.lock);
	if (fn)
		fn(ctx, level, text);
	else if ((int)level <= stderr_level())
		fprintf(stderr, "morsel: %s\n", text);
}

void mrs_log(enum mrs_log_level level, const char *format, ...)
{
	char text[ERROR_TEXT_BYTES];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	log_text(level, text);
}

static void fail_with(const char *format, va_list args)
{
	char text[ERROR_TEXT_BYTES], *kept;
	size_t room = sizeof(text);

	if (quiet)
		return;
	/* By way of a second buffer: an argument may be the current error text itself. */
	vsnprintf(text, sizeof(text), format, args);
	kept = mrs_thread_memory(MRS_THREAD_ERROR_TEXT, sizeof(text));
	if (!kept) {
		kept = short_text;
		room = sizeof(short_text);
	}
	memcpy(kept, text, room);
	kept[room - 1] = 0;
	error_text = kept;
	log_text(MRS_LOG_INFO, text);
}

bool mrs_fail_is_quiet(void)
{
	return quiet;
}

bool mrs_fail_quietly(bool on)
{
	bool before = quiet;

	quiet = on;
	return before;
}

int mrs_fail(int code, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fail_with(format, args);
	va_end(args);
	return code;
}

int morsel_fail(int code, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fail_with(format, args);
	va_end(args);
	return code;
}

int mrs_fail_errno(int code, const char *format, ...)
{
	char text[ERROR_TEXT_BYTES];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return mrs_fail(code, "%s: %s", text, strerror(-code));
}

int mrs_opts_read(void *to, size_t known, const void *from)
{
	size_t given;

	memset(to, 0, known);
	if (!from)
		return 0;
	memcpy(&given, from, sizeof(given));
	if (given < sizeof(given))
		return mrs_fail(-EINVAL,
				"an option struct must begin with its own size in bytes, "
				"found %zu: set .size = sizeof(the struct)",
				given);
	for (size_t i = known; i < given; i++)
		if (((const unsigned char *)from)[i])
			return mrs_fail(-E2BIG,
					"an option struct of %zu bytes sets an option that "
					"this libmorsel (%s) does not know: update libmorsel",
					given, MORSEL_VERSION_STRING);
	memcpy(to, from, mrs_min(given, known));
	return 0;
}

/*
 * Reflected CRC-32C, eight bytes a step by table ("slicing by 8", Kounavis and Berry, 2005). The
 * tables are made at first use.
 */
static uint32_t crc_table[8][256];

static void crc_tables_make(void)
{
	for (uint32_t byte = 0; byte < 256; byte++) {
		uint32_t crc = byte;

		for (int bit = 0; bit < 8; bit++)
			crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78u : 0);
		crc_table[0][byte] = crc;
	}
	for (uint32_t byte = 0; byte < 256; byte++)
		for (int step = 1; step < 8; step++)
			crc_table[step][byte] = (crc_table[step - 1][byte] >> 8) ^
						crc_table[0][crc_table[step - 1][byte] & 255];
}

#if defined(__x86_64__)
/*
 * The processor's own instruction: a step takes three cycles, and three can be under way at once.
 * So three thirds of a block are summed side by side, and the sums of the first two are then moved
 * on past what follows them: by multiplication with x^(8 * distance), for which crc_shift[] has the
 * products of every byte of a sum.
 */
#define CRC_THIRD 1360u /* bytes; three make 4080 of a page's 4096 */
static uint32_t crc_shift[4][256];
static bool crc_is_fast;

__attribute__((target("sse4.2"))) static uint32_t crc_plain(uint32_t crc, const unsigned char *p,
							    size_t bytes)
{
	uint64_t wide = crc, word;

	for (; bytes >= 8; bytes -= 8, p += 8) {
		memcpy(&word, p, 8);
		wide = __builtin_ia32_crc32di(wide, word);
	}
	for (; bytes; bytes--, p++)
		wide = __builtin_ia32_crc32qi((uint32_t)wide, *p);
	return (uint32_t)wide;
}

static void crc_shift_make(void)
{
	static const unsigned char zero[CRC_THIRD];

	crc_is_fast = __builtin_cpu_supports("sse4.2");
	if (!crc_is_fast)
		return;
	for (unsigned at = 0; at < 4; at++)
		for (uint32_t byte = 0; byte < 256; byte++)
			crc_shift[at][byte] = crc_plain(byte << 8 * at, zero, sizeof(zero));
}

/* The sum crc, after CRC_THIRD zero bytes more. */
static uint32_t crc_move(uint32_t crc)
{
	return crc_shift[0][crc & 255] ^ crc_shift[1][crc >> 8 & 255] ^
	       crc_shift[2][crc >> 16 & 255] ^ crc_shift[3][crc >> 24];
}

__attribute__((target("sse4.2"))) static uint32_t crc_fast(uint32_t crc, const unsigned char *p,
							   size_t bytes)
{
	for (; bytes >= 3 * CRC_THIRD; bytes -= 3 * CRC_THIRD, p += 3 * CRC_THIRD) {
		uint64_t a = crc, b = 0, c = 0;

		for (unsigned i = 0; i < CRC_THIRD; i += 8) {
			uint64_t word[3];

			memcpy(&word[0], p + i, 8);
			memcpy(&word[1], p + CRC_THIRD + i, 8);
			memcpy(&word[2], p + 2 * CRC_THIRD + i, 8);
			a = __builtin_ia32_crc32di(a, word[0]);
			b = __builtin_ia32_crc32di(b, word[1]);
			c = __builtin_ia32_crc32di(c, word[2]);
		}
		crc = crc_move(crc_move((uint32_t)a) ^ (uint32_t)b) ^ (uint32_t)c;
	}
	return crc_plain(crc, p, bytes);
}
#endif

static void crc_make(void)
{
	crc_tables_make();
#if defined(__x86_64__)
	crc_shift_make();
#endif
}

uint32_t mrs_crc32c(uint32_t seed, const void *data, size_t bytes)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	const unsigned char *p = data;
	uint32_t crc = ~seed;

	pthread_once(&once, crc_make);
#if defined(__x86_64__)
	if (crc_is_fast)
		return ~crc_fast(crc, p, bytes);
#endif
	for (; bytes >= 8; bytes -= 8, p += 8) {
		uint32_t low, high;

		memcpy(&low, p, 4);
		memcpy(&high, p + 4, 4);
		low ^= crc;
		crc = crc_table[7][low & 255] ^ crc_table[6][low >> 8 & 255] ^
		      crc_table[5][low >> 16 & 255] ^ crc_table[4][low >> 24] ^
		      crc_table[3][high & 255] ^ crc_table[2][high >> 8 & 255] ^
		      crc_table[1][high >> 16 & 255] ^ crc_table[0][high >> 24];
	}
	for (; bytes; bytes--, p++)
		crc = (crc >> 8) ^ crc_table[0][(crc ^ *p) & 255];
	return ~crc;
}

const char *mrs_bytes_text(uint64_t bytes, char *buffer)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	size_t unit = 0;

	while (value >= 1024 && unit + 1 < mrs_array_length(units)) {
		value /= 1024;
		unit++;
	}
	snprintf(buffer, 16, unit ? "%.2f %s" : "%.0f %s", value, units[unit]);
	return buffer;
}

#if MORSEL_CHECKS >= 1
void mrs_check_failed(const char *file, int line, const char *what)
{
	fprintf(stderr, "morsel: %s:%d: invariant broken: %s\n", file, line, what);
	abort();
}
#endif
