/* See view_support.h. */
#include "core/view_support.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#ifdef __SANITIZE_THREAD__
/* Children of fork open the pool anew and have a service thread of their own. */
const char *__tsan_default_options(void);
__attribute__((visibility("default"))) const char *__tsan_default_options(void)
{
	return "die_after_fork=0";
}
/* Translations come and go beside a touch: that is what it is for. */
#define TOUCHES __attribute__((no_sanitize("thread")))
#else
#define TOUCHES
#endif

struct morsel_pool *support_pool(void)
{
	/* ThreadSanitizer leaves no room for the largest size that is the default, 1 TiB. */
	struct morsel_pool_opts opts = {.size = sizeof(opts),
					.flags = MORSEL_POOL_CREATE,
					.bytes = 2048 * MIB,
					.bytes_max = 65536 * MIB};
	struct morsel_pool *pool;

	if (morsel_pool_open(NULL, &opts, &pool))
		fail_msg("%s", morsel_errormsg());
	return pool;
}

struct morsel_pool *support_pool_again(int fd)
{
	struct morsel_pool *pool;

	return morsel_pool_open_fd(fd, NULL, &pool) ? NULL : pool;
}

struct morsel *support_morsel(struct morsel_pool *pool, const char *name, uint64_t bytes,
			      uint32_t flags, uint32_t pages)
{
	struct morsel_opts opts = {.size = sizeof(opts),
				   .flags = MORSEL_CREATE | MORSEL_EXCL | flags,
				   .pages = pages,
				   .bytes = bytes};
	struct morsel *morsel;

	if (morsel_open(pool, name, &opts, &morsel))
		fail_msg("%s", morsel_errormsg());
	return morsel;
}

uint64_t support_word(uint64_t page, uint64_t mark)
{
	return (page + 1) * 0x9e3779b97f4a7c15u ^ mark;
}

struct numbering {
	int fd;
	uint64_t mark;
};

static int number_run(void *ctx, const struct morsel_run *run)
{
	struct numbering *n = ctx;

	if (!run->resident)
		return 0;
	for (uint64_t at = 0; at < run->bytes; at += PAGE) {
		uint64_t word = support_word((run->offset + at) / PAGE, n->mark);

		assert_int_equal(pwrite(n->fd, &word, 8, (off_t)(run->frame * PAGE + at)), 8);
	}
	return 0;
}

void support_number(struct morsel *morsel, struct morsel_pool *pool, uint64_t mark)
{
	struct morsel_info info = {.size = sizeof(info)};
	struct numbering n = {.fd = morsel_pool_fd(pool), .mark = mark};

	assert_int_equal(morsel_info(morsel, &info), 0);
	assert_int_equal(morsel_runs(morsel, 0, info.bytes, number_run, &n), 0);
}

static sigjmp_buf touch_return;
static volatile int touch_result;

static void touch_signal(int signal, siginfo_t *info, void *context)
{
	touch_result = info->si_code << 8 | signal;
	siglongjmp(touch_return, 1);
}

TOUCHES int support_touch(volatile void *at, bool write)
{
	struct sigaction action = {.sa_sigaction = touch_signal, .sa_flags = SA_SIGINFO};
	struct sigaction old_segv, old_bus;

	sigemptyset(&action.sa_mask);
	sigaction(SIGSEGV, &action, &old_segv);
	sigaction(SIGBUS, &action, &old_bus);
	touch_result = 0;
	if (!sigsetjmp(touch_return, 1)) {
		volatile unsigned char *byte = at;

		if (write)
			*byte = *byte;
		else
			(void)*byte;
	}
	sigaction(SIGSEGV, &old_segv, NULL);
	sigaction(SIGBUS, &old_bus, NULL);
	return touch_result;
}

int support_in_child(int (*fn)(void *ctx), void *ctx)
{
	pid_t pid;
	int status;

	fflush(NULL);
	pid = fork();
	if (!pid) {
		signal(SIGSEGV, SIG_DFL);
		signal(SIGBUS, SIG_DFL);
		_exit(fn(ctx));
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

uint64_t support_areas(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	uint64_t lines = 0;
	int c;

	assert_non_null(maps);
	while ((c = fgetc(maps)) != EOF)
		lines += c == '\n';
	fclose(maps);
	return lines;
}

bool support_has_flag(const void *at, const char *flag)
{
	FILE *smaps = fopen("/proc/self/smaps", "r");
	bool inside = false, found = false;
	char line[512];

	assert_non_null(smaps);
	while (fgets(line, sizeof(line), smaps)) {
		unsigned long first, end;

		if (sscanf(line, "%lx-%lx ", &first, &end) == 2)
			inside = (uintptr_t)at >= first && (uintptr_t)at < end;
		else if (inside && !strncmp(line, "VmFlags:", 8))
			found = strstr(line + 8, flag) != NULL;
	}
	fclose(smaps);
	return found;
}
