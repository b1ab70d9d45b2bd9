/*
 * The places in which an object of numbered pages can be: the baselines that a machine offers, and
 * morsels. The parent makes one and keeps it mapped; probes map it, too. All of it is gone when the
 * parent is: memory files have no name, the file on disk is unlinked at once, and hugetlb pages
 * that were reserved for the measurement are given back, at a signal too.
 */
#ifndef BENCH_STORE_H
#define BENCH_STORE_H

#include <stdint.h>

#include "pages.h"
#include "probe.h"

struct morsel;
struct morsel_pool;
struct morsel_view;

enum store_kind {
	STORE_MEMFD,	  /* 4 KiB pages */
	STORE_MEMFD_HUGE, /* huge folios, by MADV_COLLAPSE */
	STORE_HUGETLB,	  /* 2 MiB hugetlb pages */
	STORE_FILE,	  /* on disk, unlinked, hot in the page cache */
	STORE_MORSEL,	  /* one run, in a memfd pool */
	STORE_SCATTERED,  /* 2 MiB pages in no order, in a memfd pool */
};

struct store {
	enum store_kind kind;
	int fd; /* of the memory, the file or the pool */
	uint64_t bytes;
	uint64_t runs; /* of a morsel */
	void *at;      /* the parent's mapping: somebody else has the object mapped, too */
	struct morsel_pool *pool;
	struct morsel *morsel;
	struct morsel_view *view;
	char missing[200]; /* why this machine cannot have it, if so */
};

/*
 * Makes it and fills every page. dir: where a file goes. -1 where the machine cannot:
 * store->missing says why, and nothing is left behind.
 */
int store_make(struct store *store, enum store_kind kind, uint64_t bytes, const char *dir,
	       const struct pattern *pattern);
void store_drop(struct store *store);

/* The kind of probe that maps it. */
enum probe_what store_probe(enum store_kind kind);
/* How it is made, in words. */
const char *store_words(enum store_kind kind);

/* An unlinked file of numbered pages; sum gets the sum of its words. -1 with words in missing. */
int store_make_file(const char *dir, uint64_t bytes, const struct pattern *pattern, uint64_t *sum,
		    char *missing, size_t missing_bytes);

#endif
