/*
 * morsel stat --openmetrics: the pool's figures as OpenMetrics text, for a scraper.
 *
 * One metric family after the other, each with its type, unit and help, and # EOF at the end. Names
 * of pools and morsels are labels: bytes that are no valid UTF-8 stand in them as \xNN.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "counters.h"

#define COUNTER(name, help)                                         \
	{                                                           \
#name, offsetof(struct morsel_counters, name), help \
	}
const struct counter_spec counter_specs[] = {
	COUNTER(faults, "Missing pages brought in at a touch."),
	COUNTER(faults_write, "Write protections lifted at a write."),
	COUNTER(faults_peer, "Faults that found the page resident: another process was quicker."),
	COUNTER(pages_in, "Pages brought in."),
	COUNTER(read_ahead, "Pages brought in before they were asked for."),
	COUNTER(over_budget, "Faults that went over the budget."),
	COUNTER(pages_out, "Pages evicted."),
	COUNTER(pages_out_clean, "Pages evicted without writing anything."),
	COUNTER(pages_out_zero, "Pages evicted that were filled with one byte."),
	COUNTER(second_chance, "Candidates of eviction spared because they were touched."),
	COUNTER(pinned, "Evictions given up because of a grant or pin."),
	COUNTER(retarget_aborts, "Page movements given up before anything could be lost."),
	COUNTER(poisoned, "Pages whose content could not be read back."),
	COUNTER(swap_errors, "Requests to swap targets that failed."),
	COUNTER(elections, "Elections of a pager."),
	COUNTER(shootdowns, "Rounds of invalidation across processes."),
	COUNTER(shootdown_timeouts, "Rounds in which a process did not answer in time."),
	COUNTER(quarantined, "Frames put in quarantine."),
	COUNTER(quarantine_freed, "Frames given back from quarantine."),
	COUNTER(pages_moved, "Pages moved to another frame."),
	COUNTER(clones, "Clones and snapshots made."),
	COUNTER(cow_pages, "Pages copied at a write after a clone."),
	COUNTER(cow_tables, "Page tables copied at a write after a clone."),
	COUNTER(promotions, "Rows of 512 pages that became one huge page."),
	COUNTER(promotions_moved, "Promotions for which pages were moved."),
	COUNTER(splits, "Huge pages split."),
	COUNTER(huge_gained, "Huge frames emptied by compaction."),
	COUNTER(zeroed, "Frames zeroed beforehand."),
};
const size_t counter_specs_count = array_length(counter_specs);

static void print_label(const char *name, const char *text)
{
	printf("%s=\"", name);
	for (; *text; text++) {
		if (*text == '\n')
			fputs("\\n", stdout);
		else if (*text == '\\' || *text == '"')
			printf("\\%c", *text);
		else
			putchar(*text);
	}
	putchar('"');
}

struct metrics {
	char *path; /* of the pool, as a label */
	struct morsel_pool *pool;
	const char *family; /* that each morsel's sample is printed for */
	int rc;
};

static void family(const char *name, const char *type, const char *unit, const char *help)
{
	printf("# TYPE morsel_%s %s\n", name, type);
	if (unit)
		printf("# UNIT morsel_%s %s\n", name, unit);
	printf("# HELP morsel_%s %s\n", name, help);
}

static void sample(const struct metrics *m, const char *name, const char *suffix)
{
	printf("morsel_%s%s{", name, suffix);
	print_label("pool", m->path);
	fputs("} ", stdout);
}

static void gauge(const struct metrics *m, const char *name, const char *unit, uint64_t value,
		  const char *help)
{
	family(name, "gauge", unit, help);
	sample(m, name, "");
	printf("%" PRIu64 "\n", value);
}

static void print_counters(const struct metrics *m, const struct morsel_counters *counters)
{
	for (size_t i = 0; i < counter_specs_count; i++) {
		const struct counter_spec *spec = &counter_specs[i];

		family(spec->name, "counter", NULL, spec->help);
		sample(m, spec->name, "_total");
		printf("%" PRIu64 "\n", counter_value(counters, spec));
	}
	family("shootdown_seconds", "counter", "seconds", "Time in rounds of invalidation.");
	sample(m, "shootdown_seconds", "_total");
	printf("%" PRIu64 ".%09" PRIu64 "\n", counters->shootdown_ns / 1000000000,
	       counters->shootdown_ns % 1000000000);
}

static void print_gauges(const struct metrics *m, const struct morsel_counters *now,
			 const struct morsel_pool_stat *stat)
{
	gauge(m, "resident_bytes", "bytes", now->bytes_resident, "Memory behind the pool.");
	gauge(m, "budget_bytes", "bytes", stat->bytes_budget, "Most that may be, 0 no budget.");
	gauge(m, "budget_low_bytes", "bytes", stat->bytes_low, "Evicting stops here.");
	gauge(m, "budget_high_bytes", "bytes", stat->bytes_high, "Evicting begins here.");
	gauge(m, "compressed_bytes", "bytes", stat->bytes_compressed,
	      "Of the resident, memory that holds compressed pages.");
	gauge(m, "evicted_bytes", "bytes", now->bytes_evicted, "Content on swap targets.");
	gauge(m, "quarantine_bytes", "bytes", now->bytes_quarantine,
	      "Frames that wait until nobody can reach them.");
	gauge(m, "zeroed_bytes", "bytes", now->bytes_zeroed, "Memory zeroed and not used yet.");
	gauge(m, "space_bytes", "bytes", stat->bytes, "Number space of the pool.");
	gauge(m, "space_free_bytes", "bytes", stat->bytes_free, "Number space that nobody owns.");
	gauge(m, "space_huge_free_bytes", "bytes", stat->bytes_huge_free,
	      "Of it, in wholly free 2 MiB frames.");
	gauge(m, "attached", NULL, stat->slots_used, "Processes attached.");
	gauge(m, "objects", NULL, stat->morsels, "Morsels in the pool.");
	gauge(m, "pager", NULL, now->pager_pid != 0, "1 if a process is the pager.");
}

static int print_object(void *ctx, const struct morsel_info *info)
{
	struct metrics *m = ctx;
	struct morsel_usage usage = {.size = sizeof(usage)};
	struct morsel *morsel;
	char *name;

	/* One that has been removed meanwhile is left out. */
	if (morsel_open(m->pool, info->name, NULL, &morsel) < 0)
		return 0;
	if (morsel_usage(morsel, &usage) >= 0) {
		name = name_text(info->name);
		printf("morsel_%s{", m->family);
		print_label("pool", m->path);
		putchar(',');
		print_label("name", name);
		printf("} %" PRIu64 "\n",
		       strstr(m->family, "evicted") ? usage.bytes_evicted : usage.bytes_resident);
		free(name);
	}
	morsel_close(morsel);
	return 0;
}

static int print_objects(struct metrics *m, const char *name, const char *help)
{
	family(name, "gauge", "bytes", help);
	m->family = name;
	return morsel_list(m->pool, print_object, m);
}

int print_openmetrics(struct morsel_pool *pool, const char *path)
{
	struct metrics m = {.pool = pool};
	struct morsel_counters counters = {.size = sizeof(counters)};
	struct morsel_pool_stat stat = {.size = sizeof(stat)};
	int rc = morsel_pool_counters(pool, &counters);

	if (rc >= 0)
		rc = morsel_pool_stat(pool, &stat);
	if (rc < 0)
		return rc;
	m.path = name_text(path);
	print_counters(&m, &counters);
	print_gauges(&m, &counters, &stat);
	rc = print_objects(&m, "object_resident_bytes", "Memory behind one morsel.");
	if (rc >= 0)
		rc = print_objects(&m, "object_evicted_bytes", "Of one morsel, on swap targets.");
	if (rc >= 0)
		puts("# EOF");
	free(m.path);
	return rc;
}
