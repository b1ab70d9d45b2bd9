/*
 * What the CPU's two backends share: where a mapping goes, and what is done to every mapping.
 *
 * A mapping is one range of addresses, of one or many kernel areas. Rules for all of it:
 * MAP_SHARED; not inherited by fork, from before its first touch (a child would fault without the
 * owner's rules); left out of core dumps on request; at an address that is congruent to the file
 * offset modulo the largest page that can be behind it, for otherwise the kernel cannot use huge
 * mappings or share page tables. A page without translation is an area without access: a touch is
 * SIGSEGV, never SIGBUS.
 */
#ifndef MRS_VIEW_CPU_H
#define MRS_VIEW_CPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <morsel/view.h>

#define MRS_CPU_CAPS (MORSEL_CAP_ADDRESS | MORSEL_CAP_FREE_USE | MORSEL_CAP_COHERENT)

/* target->state of the CPU's backends. */
struct mrs_cpu_map {
	unsigned char *base; /* of the mapping; the view's first byte is at base + lead */
	uint64_t length;
	uint64_t lead; /* bytes before the view: on hugetlbfs a run may begin inside a block */
	bool closed;   /* what is restored is mapped without access: the view is watched (watch.c) */
};

/* What is to be mapped first at the place that is chosen. */
struct mrs_cpu_want {
	uint64_t length;
	uint64_t lead;
	uint64_t align; /* power of two */
	uint64_t phase; /* base modulo align */
	int prot;
	int flags; /* of mmap() */
	int fd;
	uint64_t file_offset;
};

/* ---- place.c ---- */

/* Maps it where the view's options demand, or wherever the alignment is met. */
int mrs_cpu_place(const struct morsel_target *target, const struct mrs_cpu_want *want,
		  unsigned char **base);
/* The range is free again: the next view may go there. */
void mrs_cpu_unplace(const unsigned char *base, uint64_t length);
/* Largest page size that a mapping of so many bytes can profit from. */
uint64_t mrs_cpu_align(const struct morsel_target *target, uint64_t bytes);

/* ---- cpu.c ---- */

int mrs_cpu_prot(const struct morsel_target *target);
/*
 * Maps runs at their addresses of the view: over what is there (MAP_FIXED), or only where nothing
 * is (MAP_FIXED_NOREPLACE, for runs that follow each other; on failure none is mapped, -EEXIST has
 * no words).
 */
int mrs_cpu_map_runs(const struct morsel_target *target, const struct morsel_run *runs, size_t n,
		     int prot, int fixed);
/* Fills this process's page table. */
int mrs_cpu_populate(const struct morsel_target *target);
/* What every new mapping gets: fork rule, dump rule. */
int mrs_cpu_finish(const struct morsel_target *target, const struct mrs_cpu_map *map);
/* The same for some of an old one. */
int mrs_cpu_restore(struct morsel_target *target, const struct morsel_run *runs, size_t n);
/* Runs over what is mapped there, in use: no fork sees them without the fork rule. */
int mrs_cpu_remap(struct morsel_target *target, const struct morsel_run *runs, size_t n);
int mrs_cpu_invalidate(struct morsel_target *target, uint64_t offset, uint64_t bytes);
void mrs_cpu_destroy(struct morsel_target *target);

/* ---- areas.c: the kernel's limit on areas per process ---- */

/* -ENOMEM in words if so many more areas would be more than vm.max_map_count. Cheap if few. */
int mrs_cpu_check_areas(uint64_t more);
/* -ENOMEM in words, for when mmap() met the limit in spite of that. */
int mrs_cpu_no_areas(uint64_t more);

#endif
