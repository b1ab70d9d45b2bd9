/*
 * The torture test's ledger: what every page of every morsel must hold, in memory of its own that
 * all workers share.
 *
 * A page's content is derived from (family, page, version): 512 words, or zeros if the version is
 * odd. The ledger lists the versions that a page may consist of. A writer
 *
 *	1 takes the page in the ledger	  2 adds the new version	3 counts a write
 *	4 writes all words of the page	  5 makes it the only version	6 lets the page go
 *
 * so that one who is killed anywhere leaves words of versions that are listed. Each word is checked
 * at every read: it must be of a version that was listed before the read or after it; if two writes
 * were begun meanwhile nothing can be said, and that is counted. A clone's list is that of its
 * source, before and after the call.
 */
#ifndef TESTS_STRESS_TORTURE_H
#define TESTS_STRESS_TORTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/atomic.h"
#include "core/object_support.h"

#define TORTURE_FAMILIES 3
#define TORTURE_SEATS	 4    /* morsels of a family that live at once */
#define TORTURE_PAGES	 1024 /* of a morsel */
#define TORTURE_LIVES	 1024 /* incarnations with a ledger: old ones are used again */
#define TORTURE_VERSIONS 6
#define TORTURE_WORKERS	 7
#define TORTURE_ZEROS	 1ull /* the first version: zeros */
#define TORTURE_ANY	 UINT64_MAX

enum torture_kind {
	TORTURE_READ,
	TORTURE_WRITE,
	TORTURE_EVICT,
	TORTURE_PREFETCH,
	TORTURE_ADVISE,
	TORTURE_HUGE,
	TORTURE_GRANT,
	TORTURE_CLONE,
	TORTURE_SNAPSHOT,
	TORTURE_UNLINK,
	TORTURE_CREATE,
	TORTURE_RESIZE,
	TORTURE_MAP,
	TORTURE_ATTACH,
	TORTURE_FORK,
	TORTURE_SPLICE,
	TORTURE_URING,
	TORTURE_REAP,
	TORTURE_COMPACT,
	TORTURE_DEVICE, /* of an actor: torture_actor() */
	TORTURE_KINDS,
};

struct torture_page {
	uint32_t owner; /* life of the worker that writes it, 0 none */
	uint32_t writes;
	uint64_t version[TORTURE_VERSIONS]; /* 0: none */
	uint64_t unused;
};

struct torture_seat {
	uint64_t life;	/* of the morsel, 0 none; its name is made of it */
	uint32_t maker; /* life of the worker that fills or empties the seat, 0 none */
	uint32_t unused;
};

struct torture {
	uint32_t stop;
	uint32_t mismatches;
	uint64_t lives;	    /* of morsels, so far */
	uint64_t ended[64]; /* bit per life of a worker, modulo 4096: it has ended */
	uint64_t done[TORTURE_KINDS], refused[TORTURE_KINDS], raced;
	uint64_t next[TORTURE_FAMILIES][TORTURE_PAGES]; /* version */
	struct torture_seat seat[TORTURE_FAMILIES][TORTURE_SEATS];
	uint64_t
		cuts[TORTURE_LIVES]; /* how often somebody began to shrink it, and came to an end */
	uint64_t cuts_ended[TORTURE_LIVES];
	struct torture_page page[TORTURE_LIVES][TORTURE_PAGES];
};

struct torture *torture_map(int fd);
void torture_name(char name[32], unsigned family, uint64_t life);
struct torture_page *torture_pages(struct torture *t, uint64_t life);
bool torture_has_ended(struct torture *t, uint32_t worker);

/* What a reader knew before he read. */
struct torture_seen {
	uint32_t writes;
	uint64_t version[TORTURE_VERSIONS];
};
void torture_look_before(const struct torture_page *page, struct torture_seen *seen);
void torture_look_after(const struct torture_page *page, struct torture_seen *seen);
/* 0; 1 nothing can be said; -1 a word is of no version that it may be of: *at is which. */
int torture_judge(const struct torture_page *page, const struct torture_seen *before,
		  unsigned family, unsigned number, const uint64_t words[512], unsigned *at);
/* Steps 1 to 3: the new version, or 0 if somebody else has the page. Then 5 and 6. */
uint64_t torture_write_begin(struct torture *t, struct torture_page *page, uint32_t worker,
			     unsigned family, unsigned number, bool zeros);
void torture_write_end(struct torture_page *page, uint64_t version);
/* Nothing was written. */
void torture_write_cancel(struct torture_page *page, uint64_t version);
void torture_fill(unsigned family, unsigned number, uint64_t version, uint64_t *words);

/* Of which page and version a word is, for the words of a failure. */
bool torture_identify(uint64_t word, unsigned i, unsigned *family, unsigned *number,
		      uint64_t *version);

int torture_worker(char **argv);

/*
 * MORSEL_TORTURE_ACTOR: a program that runs instead of one of the workers, with their arguments; a
 * backend's test names one that drives its device. With --probe it ends in 77 where there is none.
 * NULL: all are workers.
 */
static inline const char *torture_actor(void)
{
	return getenv("MORSEL_TORTURE_ACTOR");
}

/*
 * For looking into something: MORSEL_TORTURE_WITHOUT=clone,uring leaves these kinds of operation
 * out.
 */
static inline bool torture_without(const char *what)
{
	const char *text = getenv("MORSEL_TORTURE_WITHOUT");

	return text && strstr(text, what);
}

#endif
