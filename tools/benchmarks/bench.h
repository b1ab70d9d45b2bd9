/*
 * What every benchmark program shares: cases, samples and the JSON document.
 *
 * A case has raw samples of two sides, ours and theirs, measured alternately in one run, and says
 * in words what theirs is. Nothing here knows a bound: whoever reviews divides the medians. A case
 * that has no samples, or fewer than BENCH_PAIRS_MIN pairs, fails, and the program exits with 1.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BENCH_PAIRS_MIN 7
#define BENCH_KIB	((uint64_t)1 << 10)
#define BENCH_MIB	((uint64_t)1 << 20)
#define BENCH_GIB	((uint64_t)1 << 30)

struct bench;
struct bench_case;

/*
 * The options that every program understands; the values are defaults before bench_start() and what
 * the user wants after it.
 */
struct bench_opts {
	uint64_t bytes; /* --bytes SIZE (K, M, G): size of the object; 0 if the program has none */
	unsigned pairs; /* --pairs N, at least BENCH_PAIRS_MIN */
	const char
		*dir; /* --dir PATH: where files on disk may be made; default TMPDIR or /var/tmp */
	const char *only; /* --only TEXT: run only the cases whose name contains it; NULL all */
};

/* Reads the options; a wrong one ends the program with 2. The result lives until bench_finish(). */
struct bench *bench_start(const char *name, struct bench_opts *opts, int argc, char **argv);

/* Everything measured from now on runs on emulated hardware. */
void bench_emulated(struct bench *bench);

/* Whether the user wants this case. */
bool bench_wants(const struct bench *bench, const char *name);

/*
 * A new case. unit is that of the samples ("ms", "ns", "kB", "count"). baseline_name is
 * targets.tsv's name for theirs and baseline the exact command or call; both NULL for a figure that
 * is only reported. All strings are copied.
 */
struct bench_case *bench_case(struct bench *bench, const char *name, const char *unit,
			      const char *baseline_name, const char *baseline);
void bench_ours(struct bench_case *c, double sample);
void bench_theirs(struct bench_case *c, double sample);
/* Adds a sentence to the case's note. */
void bench_note(struct bench_case *c, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* Drops the samples and says why: the case did not run. */
void bench_failed(struct bench_case *c, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

double bench_median_ours(const struct bench_case *c);
double bench_median_theirs(const struct bench_case *c);

/* Prints the document, frees everything, and returns the exit code: 0, or 1 if a case failed. */
int bench_finish(struct bench *bench);

/* CLOCK_MONOTONIC in ns. */
uint64_t bench_now(void);
static inline double bench_ms(uint64_t ns)
{
	return (double)ns / 1e6;
}

/* What is going on, to stderr: measuring takes minutes. */
void bench_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Says why and exits with 1: for what no case can run without. */
void bench_die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Bytes that can be had without pushing anybody out: MemAvailable, and the cgroup's rest. */
uint64_t bench_memory_available(void);
/* "512M" to bytes; false if it is not a size. */
bool bench_parse_bytes(const char *text, uint64_t *bytes);
double bench_median(const double *samples, size_t count);

#endif
