/*
 * morsel: seeing what a pool does. Counters since its creation, what each morsel has in memory, and
 * who holds a page.
 *
 * Everything here only looks: it takes no lock, keeps nobody waiting, and works on a pool that is
 * open with MORSEL_POOL_READ_ONLY. What it tells was so at some moment during the call.
 */
#ifndef MORSEL_OBSERVE_H
#define MORSEL_OBSERVE_H

#include <stddef.h>
#include <stdint.h>

#include <morsel/morsel.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Counters of events in all processes since the pool was made; and, at the end, what is now. */
struct morsel_counters {
	size_t size; /* the caller's sizeof(struct morsel_counters) */
	/* faults */
	uint64_t faults;       /* missing pages brought in at a touch */
	uint64_t faults_write; /* protections lifted at a write */
	uint64_t faults_peer;  /* found resident: another process had been quicker */
	uint64_t pages_in;
	uint64_t read_ahead;  /* of pages_in, before they were asked for */
	uint64_t over_budget; /* faults that went over the budget, for nothing could be evicted */
	/* eviction */
	uint64_t pages_out;
	uint64_t pages_out_clean; /* of them, without writing anything */
	uint64_t pages_out_zero;  /* of them, filled with one byte: nothing was written either */
	uint64_t second_chance;	  /* candidates spared because they were touched */
	uint64_t pinned;	  /* given up because of a grant or pin */
	uint64_t retarget_aborts; /* given up, before the first step that could lose something */
	uint64_t poisoned;	  /* pages whose content could not be read back */
	uint64_t swap_errors;
	uint64_t elections; /* of a pager */
	/* coherence */
	uint64_t shootdowns; /* rounds in which other processes were told to forget translations */
	uint64_t shootdown_ns; /* time in them */
	uint64_t shootdown_timeouts;
	uint64_t quarantined;	   /* frames put in quarantine */
	uint64_t quarantine_freed; /* of them, given back */
	uint64_t pages_moved;
	/* copy-on-write */
	uint64_t clones;
	uint64_t cow_pages;
	uint64_t cow_tables;
	/* page sizes */
	uint64_t promotions;
	uint64_t promotions_moved; /* of them, by moving pages */
	uint64_t splits;
	uint64_t huge_gained; /* 2 MiB frames emptied by compaction */
	uint64_t zeroed;      /* frames zeroed beforehand */
	/* what is now */
	uint64_t bytes_resident;
	uint64_t bytes_evicted; /* of all morsels that are evictable or cloned */
	uint64_t bytes_quarantine;
	uint64_t bytes_zeroed; /* zeroed beforehand and not used yet */
	uint64_t budget_low;   /* bytes: watermarks in force; 0 where there is no budget */
	uint64_t budget_high;
	uint32_t pager_pid;    /* 0: nobody is pager */
	uint32_t swap_targets; /* 1 if the pool has any */
};
MORSEL_API int morsel_pool_counters(struct morsel_pool *pool, struct morsel_counters *counters);

/* What one morsel has in memory. */
struct morsel_usage {
	size_t size;		 /* the caller's sizeof(struct morsel_usage) */
	uint64_t bytes_resident; /* allocated and not evicted; memory given back by advice not
				    counted */
	uint64_t bytes_evicted;
	uint64_t family; /* equal for morsels that share frames; 0: it has no relatives */
	uint32_t views;	 /* listed in the pool: of evictable and cloned morsels */
	uint32_t pins;
};
MORSEL_API int morsel_usage(struct morsel *morsel, struct morsel_usage *usage);

/* ---- who holds a page ---- */

enum morsel_page_state {
	MORSEL_PAGE_HOLE = 0, /* nothing is allocated */
	MORSEL_PAGE_RESIDENT,
	MORSEL_PAGE_EVICTED,
	MORSEL_PAGE_POISONED, /* its content is lost */
};

struct morsel_page {
	size_t size;	/* the caller's sizeof(struct morsel_page) */
	uint32_t state; /* enum morsel_page_state */
	uint32_t order; /* log2 of the 4 KiB pages that stand or go together */
	uint64_t frame;
	uint32_t dirty;	 /* written since it was last saved */
	uint32_t shared; /* other morsels have it, too */
	char why[256]; /* why it cannot be evicted now, in words; empty: it can, or there is nothing
			* to evict */
};

enum morsel_holder_kind {
	MORSEL_HOLDER_VIEW = 1, /* a view that the pool lists */
	MORSEL_HOLDER_PIN,	/* a grant, or another pin */
	MORSEL_HOLDER_LOCK,	/* the page is in the middle of being evicted, filled, moved ... */
	MORSEL_HOLDER_HANDLE, /* an open handle with views that reach at least so far: plain morsels
			       */
};

enum morsel_holder_flags {
	MORSEL_HOLDER_WRITABLE = 1 << 0,
	MORSEL_HOLDER_POOLED = 1 << 1,	/* address and frame are one: the page cannot move */
	MORSEL_HOLDER_CPU = 1 << 2,	/* a mapping of the process, at address */
	MORSEL_HOLDER_BY_MAIL = 1 << 3, /* a device's: forgets when its process is asked */
	MORSEL_HOLDER_DEAD = 1 << 4,	/* the process is dead and not cleaned up yet */
};

struct morsel_holder {
	size_t size;
	uint32_t what;	/* enum morsel_holder_kind */
	uint32_t flags; /* enum morsel_holder_flags */
	uint32_t slot;
	uint32_t pid; /* in the holder's own PID namespace */
	char program[33];
	char morsel[MORSEL_NAME_MAX + 1]; /* a relative's name, where it is not this one's view */
	uint64_t offset;		  /* what it holds of the morsel, in bytes */
	uint64_t bytes;
	uint64_t address; /* of the page, in the holder's address space; 0 if it has none */
};

/*
 * Calls fn (may be NULL) for everything that holds the page at offset; a non-zero answer ends it
 * and is returned. page (may be NULL) is set first. -EINVAL beyond the morsel's end.
 */
typedef int (*morsel_holder_fn)(void *ctx, const struct morsel_holder *holder);
MORSEL_API int morsel_who(struct morsel *morsel, uint64_t offset, struct morsel_page *page,
			  morsel_holder_fn fn, void *ctx);

#ifdef __cplusplus
}
#endif

#endif
