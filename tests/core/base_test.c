/* Errors in words, option structs, checksums, sizes in words, probes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <morsel/morsel.h>

#include "base/base.h"
#include "base/probe.h"
#include "support/counts.h"

struct test_opts {
	size_t size;
	uint32_t first;
	uint32_t second;
};

static void error_text_is_kept(void **state)
{
	assert_int_equal(mrs_fail(-ENOSPC, "%d of %d", 3, 4), -ENOSPC);
	assert_string_equal(morsel_errormsg(), "3 of 4");
	assert_int_equal(mrs_fail_errno(-EPERM, "opening '%s'", "x"), -EPERM);
	assert_string_equal(morsel_errormsg(), "opening 'x': Operation not permitted");
}

static void error_text_may_contain_itself(void **state)
{
	mrs_fail(-EIO, "inner");
	mrs_fail(-EIO, "outer: %s", morsel_errormsg());
	assert_string_equal(morsel_errormsg(), "outer: inner");
}

static void long_error_text_is_cut(void **state)
{
	char text[4096];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	mrs_fail(-EIO, "%s", text);
	assert_int_equal(strlen(morsel_errormsg()), 1023);
}

static void *other_thread(void *arg)
{
	mrs_fail(-EIO, "of the other thread");
	return NULL;
}

static void error_text_belongs_to_its_thread(void **state)
{
	pthread_t thread;

	mrs_fail(-EIO, "of this thread");
	assert_int_equal(pthread_create(&thread, NULL, other_thread, NULL), 0);
	pthread_join(thread, NULL);
	assert_string_equal(morsel_errormsg(), "of this thread");
}

static void log_sink(void *ctx, int level, const char *text)
{
	snprintf(ctx, 64, "%d %s", level, text);
}

static void log_goes_to_the_callback(void **state)
{
	char seen[64] = "";

	morsel_log_set(log_sink, seen);
	mrs_log(MRS_LOG_DEBUG, "number %d", 7);
	morsel_log_set(NULL, NULL);
	assert_string_equal(seen, "4 number 7");
}

static void older_option_struct_is_filled_with_zeros(void **state)
{
	struct test_opts given = { .size = offsetof(struct test_opts, second), .first = 1,
				   .second = 2 };
	struct test_opts read;

	assert_int_equal(mrs_opts_read(&read, sizeof(read), &given), 0);
	assert_int_equal(read.first, 1);
	assert_int_equal(read.second, 0);
}

static void newer_option_struct_is_read_only_if_its_rest_is_zero(void **state)
{
	struct {
		struct test_opts known;
		uint64_t unknown;
	} given = { .known.size = sizeof(given), .known.first = 1 };
	struct test_opts read;

	assert_int_equal(mrs_opts_read(&read, sizeof(read), &given), 0);
	given.unknown = 1;
	assert_int_equal(mrs_opts_read(&read, sizeof(read), &given), -E2BIG);
	assert_int_equal(read.first, 0);
}

static void option_struct_without_size_is_refused(void **state)
{
	struct test_opts given = { .first = 1 };
	struct test_opts read;

	assert_int_equal(mrs_opts_read(&read, sizeof(read), &given), -EINVAL);
	assert_int_equal(mrs_opts_read(&read, sizeof(read), NULL), 0);
}

/* One bit at a time, as the definition says. */
static uint32_t crc_obvious(const uint8_t *data, size_t bytes)
{
	uint32_t crc = ~0u;

	for (size_t i = 0; i < bytes; i++) {
		crc ^= data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc & 1 ? (crc >> 1) ^ 0x82f63b78u : crc >> 1;
	}
	return ~crc;
}

static void crc_equals_the_obvious(void **state)
{
	uint64_t random = test_seed();
	static uint8_t data[20000]; /* more than what is summed in three parts at once */

	assert_int_equal(mrs_crc32c(0, "123456789", 9), 0xe3069283u); /* RFC 3720's check value */
	for (size_t bytes = 0; bytes <= sizeof(data); bytes += 1 + bytes / 16) {
		for (size_t i = 0; i < bytes; i++)
			data[i] = (uint8_t)test_random(&random);
		assert_int_equal(mrs_crc32c(0, data, bytes), crc_obvious(data, bytes));
		assert_int_equal(mrs_crc32c(mrs_crc32c(0, data, bytes / 3), data + bytes / 3,
					    bytes - bytes / 3),
				 crc_obvious(data, bytes));
	}
}

static void sizes_in_words(void **state)
{
	char text[16];

	assert_string_equal(mrs_bytes_text(0, text), "0 B");
	assert_string_equal(mrs_bytes_text(1023, text), "1023 B");
	assert_string_equal(mrs_bytes_text(1024, text), "1.00 KiB");
	assert_string_equal(mrs_bytes_text(7323283456, text), "6.82 GiB");
	assert_string_equal(mrs_bytes_text(UINT64_MAX, text), "16.00 EiB");
}

static void probe_kills_at_the_hit_that_was_asked_for(void **state)
{
#ifdef MORSEL_PROBES
	int wait_status;
	pid_t child = fork();

	if (!child) {
		setenv("MORSEL_PROBE_KILL", "test.here:3", 1);
		for (int i = 0; i < 2; i++) {
			MRS_PROBE("test.here");
			MRS_PROBE("test.elsewhere");
		}
		if (getppid() > 1)
			MRS_PROBE("test.here");
		_exit(0);
	}
	assert_int_equal(waitpid(child, &wait_status, 0), child);
	assert_true(WIFSIGNALED(wait_status));
	assert_int_equal(WTERMSIG(wait_status), SIGKILL);
#endif
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(error_text_is_kept),
		cmocka_unit_test(error_text_may_contain_itself),
		cmocka_unit_test(long_error_text_is_cut),
		cmocka_unit_test(error_text_belongs_to_its_thread),
		cmocka_unit_test(log_goes_to_the_callback),
		cmocka_unit_test(older_option_struct_is_filled_with_zeros),
		cmocka_unit_test(newer_option_struct_is_read_only_if_its_rest_is_zero),
		cmocka_unit_test(option_struct_without_size_is_refused),
		cmocka_unit_test(crc_equals_the_obvious),
		cmocka_unit_test(sizes_in_words),
		cmocka_unit_test(probe_kills_at_the_hit_that_was_asked_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
