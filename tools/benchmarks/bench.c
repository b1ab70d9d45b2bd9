/*
 * Cases and samples in memory, written as one JSON document on stdout at the end (see bench.h).
 * Messages go to stderr, so that stdout can always be parsed.
 */
#include "bench.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define CASES_MAX 64

struct series {
	double *at;
	size_t count, room;
};

struct bench_case {
	char *name, *unit, *baseline_name, *baseline, *note, *error;
	struct series ours, theirs;
	bool emulated;
};

struct bench {
	const char *name;
	const char *only;
	bool emulated;
	size_t cases;
	struct bench_case at[CASES_MAX];
};

static void *must(void *p)
{
	if (!p)
		bench_die("out of memory");
	return p;
}

static char *copy(const char *text)
{
	return text ? must(strdup(text)) : NULL;
}

uint64_t bench_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void bench_say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

void bench_die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

bool bench_parse_bytes(const char *text, uint64_t *bytes)
{
	char *end;
	unsigned shift = 0;
	unsigned long long value;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || end == text || *text == '-')
		return false;
	if (*end == 'K' || *end == 'k')
		shift = 10;
	else if (*end == 'M' || *end == 'm')
		shift = 20;
	else if (*end == 'G' || *end == 'g')
		shift = 30;
	if (shift)
		end++;
	if (*end || value << shift >> shift != value)
		return false;
	*bytes = (uint64_t)value << shift;
	return true;
}

/* ---- options ---- */

static void usage(const char *name)
{
	bench_say("usage: bench_%s [--bytes SIZE] [--pairs N] [--dir PATH] [--only CASE]", name);
	exit(2);
}

static void read_option(struct bench_opts *opts, const char *name, const char *key,
			const char *value)
{
	if (!strcmp(key, "--bytes")) {
		if (!bench_parse_bytes(value, &opts->bytes) || !opts->bytes)
			usage(name);
	} else if (!strcmp(key, "--pairs")) {
		opts->pairs = (unsigned)strtoul(value, NULL, 10);
		if (opts->pairs < BENCH_PAIRS_MIN)
			usage(name);
	} else if (!strcmp(key, "--dir")) {
		opts->dir = value;
	} else if (!strcmp(key, "--only")) {
		opts->only = value;
	} else {
		usage(name);
	}
}

struct bench *bench_start(const char *name, struct bench_opts *opts, int argc, char **argv)
{
	struct bench *bench = must(calloc(1, sizeof(*bench)));
	int i;

	bench->name = name;
	if (opts->pairs < BENCH_PAIRS_MIN)
		opts->pairs = BENCH_PAIRS_MIN;
	if (!opts->dir)
		opts->dir = getenv("TMPDIR");
	if (!opts->dir || !*opts->dir)
		opts->dir = "/var/tmp";
	for (i = 1; i < argc; i += 2) {
		if (i + 1 == argc)
			usage(name);
		read_option(opts, name, argv[i], argv[i + 1]);
	}
	bench->only = opts->only;
	return bench;
}

/* ---- cases ---- */

bool bench_wants(const struct bench *bench, const char *name)
{
	return !bench->only || strstr(name, bench->only);
}

void bench_emulated(struct bench *bench)
{
	bench->emulated = true;
}

struct bench_case *bench_case(struct bench *bench, const char *name, const char *unit,
			      const char *baseline_name, const char *baseline)
{
	struct bench_case *c;

	if (bench->cases == CASES_MAX)
		bench_die("more than %d cases", CASES_MAX);
	c = &bench->at[bench->cases++];
	c->name = copy(name);
	c->unit = copy(unit);
	c->baseline_name = copy(baseline_name);
	c->baseline = copy(baseline);
	c->emulated = bench->emulated;
	return c;
}

static void add(struct series *s, double sample)
{
	if (s->count == s->room) {
		s->room = s->room ? 2 * s->room : 16;
		s->at = must(realloc(s->at, s->room * sizeof(*s->at)));
	}
	s->at[s->count++] = sample;
}

void bench_ours(struct bench_case *c, double sample)
{
	add(&c->ours, sample);
}

void bench_theirs(struct bench_case *c, double sample)
{
	add(&c->theirs, sample);
}

void bench_note(struct bench_case *c, const char *format, ...)
{
	char *sentence, *joined;
	va_list args;

	va_start(args, format);
	if (vasprintf(&sentence, format, args) < 0)
		bench_die("out of memory");
	va_end(args);
	if (asprintf(&joined, "%s%s%s", c->note ? c->note : "", c->note ? " " : "", sentence) < 0)
		bench_die("out of memory");
	free(sentence);
	free(c->note);
	c->note = joined;
}

void bench_failed(struct bench_case *c, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	free(c->error);
	if (vasprintf(&c->error, format, args) < 0)
		bench_die("out of memory");
	va_end(args);
	c->ours.count = 0;
	c->theirs.count = 0;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double bench_median(const double *samples, size_t count)
{
	double *sorted, median;

	if (!count)
		return 0;
	sorted = must(malloc(count * sizeof(*sorted)));
	memcpy(sorted, samples, count * sizeof(*sorted));
	qsort(sorted, count, sizeof(*sorted), by_value);
	median = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2;
	free(sorted);
	return median;
}

double bench_median_ours(const struct bench_case *c)
{
	return bench_median(c->ours.at, c->ours.count);
}

double bench_median_theirs(const struct bench_case *c)
{
	return bench_median(c->theirs.at, c->theirs.count);
}

/* Why the case does not count, or NULL. */
static const char *what_fails(const struct bench_case *c)
{
	if (c->error)
		return c->error;
	if (!c->ours.count)
		return "did not run";
	if (c->baseline_name &&
	    (c->ours.count < BENCH_PAIRS_MIN || c->theirs.count < BENCH_PAIRS_MIN))
		return "fewer than 7 pairs";
	return NULL;
}

/* ---- the document ---- */

static void put_text(const char *text)
{
	const unsigned char *c = (const unsigned char *)(text ? text : "");

	putchar('"');
	for (; *c; c++) {
		if (*c == '"' || *c == '\\')
			printf("\\%c", *c);
		else if (*c < 0x20)
			printf("\\u%04x", *c);
		else
			putchar(*c);
	}
	putchar('"');
}

static void put_field(const char *key, const char *text)
{
	printf("\"%s\": ", key);
	put_text(text);
}

static void put_series(const char *key, const struct series *s)
{
	size_t i;

	printf("\"%s\": [", key);
	for (i = 0; i < s->count; i++)
		printf("%s%.12g", i ? ", " : "", s->at[i]);
	printf("]");
}

static void put_case(const struct bench_case *c)
{
	const char *error = what_fails(c);

	printf("    {");
	put_field("case", c->name);
	printf(", ");
	put_field("unit", c->unit);
	printf(",\n     ");
	put_series("ours", &c->ours);
	printf(",\n     ");
	put_field("baseline_name", c->baseline_name ? c->baseline_name : "none");
	printf(", ");
	put_field("baseline", c->baseline ? c->baseline : "none");
	printf(",\n     ");
	put_series("theirs", &c->theirs);
	printf(",\n     \"emulated\": %s, ", c->emulated ? "true" : "false");
	put_field("note", c->note);
	if (error) {
		printf(", ");
		put_field("failed", error);
	}
	printf("}");
}

/* The rest of the first line of file that begins with key, or "" ; text has room for bytes. */
static void read_line(const char *file, const char *key, char *text, size_t bytes)
{
	FILE *f = fopen(file, "re");
	char line[512];

	text[0] = 0;
	while (f && fgets(line, sizeof(line), f)) {
		if (strncmp(line, key, strlen(key)))
			continue;
		snprintf(text, bytes, "%s",
			 line + strlen(key) + strspn(line + strlen(key), " \t:"));
		text[strcspn(text, "\n")] = 0;
		break;
	}
	if (f)
		fclose(f);
}

static uint64_t meminfo_bytes(const char *key)
{
	char text[128];

	read_line("/proc/meminfo", key, text, sizeof(text));
	return strtoull(text, NULL, 10) * BENCH_KIB;
}

/* What the memory cgroup still allows, or UINT64_MAX. */
static uint64_t cgroup_rest(void)
{
	char max[64], now[64];

	read_line("/sys/fs/cgroup/memory.max", "", max, sizeof(max));
	read_line("/sys/fs/cgroup/memory.current", "", now, sizeof(now));
	if (!max[0] || !now[0] || !strcmp(max, "max"))
		return UINT64_MAX;
	if (strtoull(max, NULL, 10) < strtoull(now, NULL, 10))
		return 0;
	return strtoull(max, NULL, 10) - strtoull(now, NULL, 10);
}

uint64_t bench_memory_available(void)
{
	uint64_t machine = meminfo_bytes("MemAvailable"), cgroup = cgroup_rest();

	return machine < cgroup ? machine : cgroup;
}

static void put_machine(void)
{
	char cpu[256], thp[128];
	struct utsname name;

	uname(&name);
	read_line("/proc/cpuinfo", "model name", cpu, sizeof(cpu));
	read_line("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "", thp, sizeof(thp));
	printf("  \"machine\": {");
	put_field("cpu", cpu);
	printf(", \"cores\": %ld, ", sysconf(_SC_NPROCESSORS_ONLN));
	put_field("arch", name.machine);
	printf(", ");
	put_field("kernel", name.release);
	printf(", \"memory_bytes\": %llu, \"root\": %s, ",
	       (unsigned long long)meminfo_bytes("MemTotal"), geteuid() ? "false" : "true");
	put_field("shmem_enabled", thp);
	printf("},\n");
}

static void case_free(struct bench_case *c)
{
	free(c->name);
	free(c->unit);
	free(c->baseline_name);
	free(c->baseline);
	free(c->note);
	free(c->error);
	free(c->ours.at);
	free(c->theirs.at);
}

int bench_finish(struct bench *bench)
{
	size_t i, failed = 0;

	printf("{\n  \"bench\": ");
	put_text(bench->name);
	printf(",\n");
	put_machine();
	printf("  \"cases\": [\n");
	for (i = 0; i < bench->cases; i++) {
		put_case(&bench->at[i]);
		printf(i + 1 < bench->cases ? ",\n" : "\n");
		if (what_fails(&bench->at[i])) {
			bench_say("FAILED %s: %s", bench->at[i].name, what_fails(&bench->at[i]));
			failed++;
		}
		case_free(&bench->at[i]);
	}
	printf("  ]\n}\n");
	if (!bench->cases)
		bench_say("no case ran");
	failed += !bench->cases;
	free(bench);
	if (fflush(stdout) || ferror(stdout))
		return 1;
	return failed ? 1 : 0;
}
