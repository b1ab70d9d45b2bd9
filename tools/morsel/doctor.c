/*
 * morsel doctor: runs the checks and prints a line for each, with the remedy below what is not ok.
 * Only a missing thing that the core needs makes it fail: a machine without RDMA is a healthy one.
 */
#include "doctor.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"

static const char *const health_names[] = {"ok", "limited", "missing"};

/* ---- what the checks use ---- */

void found(struct finding *finding, enum health health, const char *format, ...)
{
	va_list ap;

	finding->health = health;
	va_start(ap, format);
	vsnprintf(finding->detail, sizeof(finding->detail), format, ap);
	va_end(ap);
}

void remedy(struct finding *finding, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(finding->remedy, sizeof(finding->remedy), format, ap);
	va_end(ap);
}

bool read_line(const char *path, char *buffer, size_t room)
{
	FILE *file = fopen(path, "re");
	bool got = file && fgets(buffer, (int)room, file);

	if (file)
		fclose(file);
	if (got)
		buffer[strcspn(buffer, "\n")] = 0;
	return got;
}

uint64_t read_number(const char *path, uint64_t fallback)
{
	char text[64], *end;
	uint64_t value;

	if (!read_line(path, text, sizeof(text)))
		return fallback;
	value = strtoull(text, &end, 10);
	return end == text ? fallback : value;
}

int count_entries(const char *path, const char *prefix)
{
	DIR *directory = opendir(path);
	struct dirent *entry;
	int count = 0;

	if (!directory)
		return -1;
	while ((entry = readdir(directory)))
		count += strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") &&
			 !strncmp(entry->d_name, prefix, strlen(prefix));
	closedir(directory);
	return count;
}

bool seccomp_filters(void)
{
	FILE *file = fopen("/proc/self/status", "re");
	char line[256];
	int mode = 0;

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "Seccomp: %d", &mode) == 1)
			break;
	if (file)
		fclose(file);
	return mode == 2;
}

const char *seccomp_hint(void)
{
	return seccomp_filters() ? " (a seccomp filter is active: it may be what forbids it)" : "";
}

/* ---- the report ---- */

struct report {
	bool as_json;
	struct json json;
	unsigned count[3];
	bool unfit; /* something that the core needs is missing */
};

static void print_check(struct report *report, const struct check *check,
			const struct finding *finding)
{
	if (report->as_json) {
		json_object(&report->json, NULL);
		json_text(&report->json, "key", check->key);
		json_text(&report->json, "title", check->title);
		json_text(&report->json, "status", health_names[finding->health]);
		json_bool(&report->json, "needed", check->needed);
		json_text(&report->json, "detail", finding->detail);
		json_text(&report->json, "remedy", *finding->remedy ? finding->remedy : NULL);
		json_close(&report->json);
		return;
	}
	printf("%-8s %-16s ", health_names[finding->health], check->title);
	print_words(stdout, finding->detail);
	putchar('\n');
	if (*finding->remedy) {
		printf("%-8s %-16s remedy: ", "", "");
		print_words(stdout, finding->remedy);
		putchar('\n');
	}
}

static void run_checks(struct report *report, const struct check *checks, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++) {
		struct finding finding = {0};

		checks[i].run(&finding);
		report->count[finding.health]++;
		if (checks[i].needed && finding.health == HEALTH_MISSING)
			report->unfit = true;
		print_check(report, &checks[i], &finding);
		fflush(stdout);
	}
}

static void run_all(struct report *report)
{
	run_checks(report, memory_checks, memory_checks_count);
	run_checks(report, fault_checks, fault_checks_count);
	run_checks(report, iommu_checks, iommu_checks_count);
	run_checks(report, device_checks, device_checks_count);
}

int doctor(const struct command *self, int argc, char **argv)
{
	struct report report = {0};
	struct args args;
	int code = args_read(self, NULL, 0, argc, argv, &args);

	if (code != ARGS_RUN)
		return code;
	report.as_json = args.json;
	if (args.json) {
		json_begin(&report.json, stdout);
		json_list(&report.json, "checks");
		run_all(&report);
		json_close(&report.json);
		json_u64(&report.json, "ok", report.count[HEALTH_OK]);
		json_u64(&report.json, "limited", report.count[HEALTH_LIMITED]);
		json_u64(&report.json, "missing", report.count[HEALTH_MISSING]);
		json_bool(&report.json, "fit", !report.unfit);
		json_end(&report.json);
	} else {
		run_all(&report);
		printf("\n%u ok, %u limited, %u missing: %s\n", report.count[HEALTH_OK],
		       report.count[HEALTH_LIMITED], report.count[HEALTH_MISSING],
		       report.unfit ? "the core does not work here" : "the core works here");
	}
	return report.unfit ? EXIT_FAILED : EXIT_OK;
}
