/*
 * morsel top: what a pool does, now. Rates are differences of two looks divided by the time between
 * them; everything else is as it was at the last look. On a terminal the screen is drawn anew each
 * time; q or SIGINT ends. With --batch, or into a file, one picture follows the other.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "commands.h"
#include "counters.h"

#define DELAY_MAX 3600

struct top {
	const struct args *args;
	uint64_t delay; /* seconds */
	uint64_t count; /* pictures, 0 without end */
	bool batch;
	bool screen; /* stdout is a terminal that may be cleared */
	bool keys;   /* stdin is a terminal: q ends */
	struct termios before;
	struct morsel_pool *pool;
	struct morsel_counters now, then;
	struct morsel_pool_stat stat;
	double seconds; /* between the two */
	struct table *table;
};

static volatile sig_atomic_t stopped;

static void on_stop(int signal_number)
{
	stopped = signal_number;
}

static void watch_signals(void)
{
	struct sigaction action = {.sa_handler = on_stop, .sa_flags = (int)SA_RESETHAND};

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

static void keys_begin(struct top *top)
{
	struct termios raw;

	top->keys = !top->batch && isatty(STDIN_FILENO) && !tcgetattr(STDIN_FILENO, &top->before);
	if (!top->keys)
		return;
	raw = top->before;
	raw.c_lflag &= (tcflag_t) ~(ICANON | ECHO);
	tcsetattr(STDIN_FILENO, TCSANOW, &raw);
}

static void keys_end(const struct top *top)
{
	if (top->keys)
		tcsetattr(STDIN_FILENO, TCSANOW, &top->before);
}

static double clock_seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Waits for the next picture; false if it is the end. */
static bool wait_or_key(const struct top *top)
{
	double end = clock_seconds() + (double)top->delay;
	struct pollfd key = {.fd = top->keys ? STDIN_FILENO : -1, .events = POLLIN};

	while (!stopped) {
		double left = end - clock_seconds();
		char letter;

		if (left <= 0)
			return true;
		if (poll(&key, 1, (int)(left * 1000) + 1) <= 0)
			continue;
		if (read(STDIN_FILENO, &letter, 1) != 1 || letter == 'q' || letter == 'Q')
			return false;
	}
	return false;
}

static double rate(const struct top *top, uint64_t now, uint64_t then)
{
	return top->seconds > 0 ? (double)(now - then) / top->seconds : 0;
}

static void print_pool(const struct top *top)
{
	char resident[SIZE_TEXT_BYTES], budget[SIZE_TEXT_BYTES], evicted[SIZE_TEXT_BYTES];
	char quarantine[SIZE_TEXT_BYTES];
	bool exact = top->args->exact;
	const struct morsel_counters *now = &top->now;

	print_words(stdout, top->args->pool);
	printf(": %s resident", size_text(now->bytes_resident, exact, resident));
	if (top->stat.bytes_budget)
		printf(" of %s", size_text(top->stat.bytes_budget, exact, budget));
	printf(", %s evicted, %s in quarantine; %" PRIu32 " attached, ",
	       size_text(now->bytes_evicted, exact, evicted),
	       size_text(now->bytes_quarantine, exact, quarantine), top->stat.slots_used);
	if (now->pager_pid)
		printf("pager %" PRIu32 "\n", now->pager_pid);
	else
		printf("no pager\n");
}

static void print_rates(const struct top *top)
{
	static const char *const heads[] = {"FAULTS/s",	   "WRITE/s", "IN/s",
					    "OUT/s",	   "CLEAN/s", "COW/s",
					    "SHOOTDOWN/s", "us EACH", "TIMEOUTS"};
	const struct morsel_counters *now = &top->now, *then = &top->then;
	uint64_t rounds = now->shootdowns - then->shootdowns;
	struct table table;

	table_begin(&table, array_length(heads), "rrrrrrrrr", heads);
	table_add(&table, "%.0f", rate(top, now->faults, then->faults));
	table_add(&table, "%.0f", rate(top, now->faults_write, then->faults_write));
	table_add(&table, "%.0f", rate(top, now->pages_in, then->pages_in));
	table_add(&table, "%.0f", rate(top, now->pages_out, then->pages_out));
	table_add(&table, "%.0f", rate(top, now->pages_out_clean, then->pages_out_clean));
	table_add(&table, "%.0f", rate(top, now->cow_pages, then->cow_pages));
	table_add(&table, "%.0f", rate(top, now->shootdowns, then->shootdowns));
	table_add(&table, "%.1f",
		  rounds ? (double)(now->shootdown_ns - then->shootdown_ns) / 1e3 / (double)rounds
			 : 0.0);
	table_add(&table, "%" PRIu64, now->shootdown_timeouts);
	table_end(&table);
}

static int add_morsel(void *ctx, const struct morsel_info *info)
{
	struct top *top = ctx;
	struct morsel_usage usage = {.size = sizeof(usage)};
	struct morsel *morsel;

	/* One that has been removed meanwhile is left out. */
	if (morsel_open(top->pool, info->name, NULL, &morsel) < 0)
		return 0;
	if (morsel_usage(morsel, &usage) >= 0) {
		table_add_name(top->table, info->name);
		table_add_size(top->table, info->bytes, top->args->exact);
		table_add_size(top->table, usage.bytes_resident, top->args->exact);
		table_add_size(top->table, usage.bytes_evicted, top->args->exact);
		table_add(top->table, "%" PRIu64, info->users);
		table_add(top->table, "%" PRIu32, usage.views);
		table_add(top->table, "%" PRIu32, usage.pins);
	}
	morsel_close(morsel);
	return 0;
}

static int print_morsels(struct top *top)
{
	static const char *const heads[] = {"NAME",    "SIZE",	"RESIDENT", "EVICTED",
					    "HANDLES", "VIEWS", "PINS"};
	struct table table;
	int rc;

	table_begin(&table, array_length(heads), "lrrrrrr", heads);
	top->table = &table;
	rc = morsel_list(top->pool, add_morsel, top);
	if (rc < 0) {
		table_drop(&table);
		return rc;
	}
	table_sort(&table);
	table_end(&table);
	return 0;
}

static int look(struct top *top)
{
	int rc;

	top->now.size = sizeof(top->now);
	top->stat.size = sizeof(top->stat);
	rc = morsel_pool_counters(top->pool, &top->now);
	return rc < 0 ? rc : morsel_pool_stat(top->pool, &top->stat);
}

static int print_picture(struct top *top)
{
	int rc;

	if (top->screen)
		fputs("\033[H\033[J", stdout);
	print_pool(top);
	print_rates(top);
	rc = print_morsels(top);
	if (!top->screen)
		putchar('\n');
	fflush(stdout);
	return rc;
}

/* The first picture comes at once, with rates of nothing. */
static int run(struct top *top)
{
	double looked = clock_seconds();
	uint64_t n = 0;
	int rc = look(top);

	top->then = top->now;
	while (rc >= 0) {
		rc = print_picture(top);
		if (rc < 0 || ferror(stdout) || (top->count && ++n == top->count) ||
		    !wait_or_key(top))
			break;
		top->then = top->now;
		rc = look(top);
		top->seconds = clock_seconds() - looked;
		looked += top->seconds;
	}
	return rc < 0 ? rc : 0;
}

static int top_pool(struct morsel_pool *pool, void *ctx)
{
	struct top *top = ctx;
	int rc;

	top->pool = pool;
	top->screen = !top->batch && isatty(STDOUT_FILENO);
	watch_signals();
	keys_begin(top);
	rc = run(top);
	keys_end(top);
	return rc;
}

int top_show(const struct command *self, int argc, char **argv)
{
	struct top top = {.delay = 2};
	const struct option_spec options[] = {
		{'d', "delay", "SECONDS", OPTION_NUMBER, &top.delay,
		 "time between two pictures, default 2"},
		{'n', "count", "COUNT", OPTION_NUMBER, &top.count, "end after COUNT pictures"},
		{'B', "batch", NULL, OPTION_FLAG, &top.batch,
		 "one picture after the other, and no keys: for scripts"},
	};
	struct args args;
	int code = args_read(self, options, array_length(options), argc, argv, &args);

	if (code != ARGS_RUN)
		return code;
	if (top.delay > DELAY_MAX)
		return complain_usage(self, "--delay %" PRIu64 ": at most %d seconds", top.delay,
				      DELAY_MAX);
	top.args = &args;
	return on_pool(self, &args, MORSEL_POOL_READ_ONLY, top_pool, &top);
}
