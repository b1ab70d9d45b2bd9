/*
 * What `morsel doctor` looks at. A check tries the thing itself where that is cheap and harmless,
 * for settings lie and containers forbid; it needs no privilege, and says what it could not see.
 */
#ifndef TOOLS_MORSEL_DOCTOR_H
#define TOOLS_MORSEL_DOCTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum health { HEALTH_OK, HEALTH_LIMITED, HEALTH_MISSING };

struct finding {
	enum health health;
	char detail[400];
	char remedy[400]; /* empty if there is nothing to be done */
};

struct check {
	const char *key;   /* stable, for JSON */
	const char *title; /* for people */
	bool needed;	   /* the core does not work without it */
	void (*run)(struct finding *finding);
};

extern const struct check memory_checks[];
extern const size_t memory_checks_count;
extern const struct check fault_checks[];
extern const size_t fault_checks_count;
extern const struct check iommu_checks[];
extern const size_t iommu_checks_count;
extern const struct check device_checks[];
extern const size_t device_checks_count;

/* Sets health and detail; what was there before is overwritten. */
void found(struct finding *finding, enum health health, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void remedy(struct finding *finding, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* First line of a file without its end; false if it cannot be read. */
bool read_line(const char *path, char *buffer, size_t room);
/* The number that a file begins with; fallback if it cannot be read or is none. */
uint64_t read_number(const char *path, uint64_t fallback);
/* Entries of a directory other than . and .. that begin with prefix; -1 if it cannot be read. */
int count_entries(const char *path, const char *prefix);
/* True if a seccomp filter watches this process: then EPERM and ENOSYS may be its doing. */
bool seccomp_filters(void);
/* " (a seccomp filter is active: ...)" or "". */
const char *seccomp_hint(void);

#endif
