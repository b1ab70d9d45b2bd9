/*
 * A probe is a fresh process that measures from within: it is this program, executed anew, with one
 * descriptor (the object or the pool) and one socket to the parent.
 *
 * Steps: the parent sends the request; the probe maps, touches, reads, and says that it is ready;
 * asked, it counts its memory (so that n probes can be ready at once); asked, it unmaps and ends.
 * A program that starts probes calls probe_main() first thing in main().
 */
#ifndef BENCH_PROBE_H
#define BENCH_PROBE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum probe_what {
	PROBE_MMAP,	   /* mmap() of the descriptor */
	PROBE_POOLED,	   /* the descriptor is a pool: open it, open the morsel, map it pooled */
	PROBE_STITCHED,	   /* ... map it stitched */
	PROBE_READ_FILE,   /* read(2) the whole file into private memory, sum all words */
	PROBE_MMAP_FILE,   /* mmap the file, sum all words */
	PROBE_IMPORT_FILE, /* the descriptor is a pool: import the file, map, sum all words */
	PROBE_ATTACH,	   /* the descriptor is a pool: open it, and that is all */
	PROBE_OPEN_NAMES,  /* ... and open morsels by name: see open_names() */
};

enum probe_flags {
	PROBE_POPULATE = 1 << 0, /* fill the page table while mapping */
	PROBE_ATTACHED = 1 << 1, /* open the pool before the clock starts */
	PROBE_WARM = 1 << 2,	 /* with ATTACHED: map and unmap another morsel before, too */
	PROBE_READ = 1 << 3,	 /* read and verify the number of every page */
	PROBE_SMAPS = 1 << 4,	 /* count pss_kb and what is mapped huge: slow with 4 KiB pages */
};

#define PROBE_MORSEL "object"  /* name of the morsel that is measured */
#define PROBE_WARMUP "warm-up" /* name of a small one */

struct probe_request {
	uint32_t what;
	uint32_t flags;
	uint64_t bytes;	      /* of the object or file */
	uint64_t sum;	      /* of its words, where all are read */
	uint64_t count, seed; /* OPEN_NAMES: how many there are, and which to choose */
	char file[64];	      /* path of the file */
};

struct probe_result {
	uint64_t map_ns;   /* open, attach, register, map: until the address is known */
	uint64_t touch_ns; /* then the first byte of every GiB */
	uint64_t read_ns;  /* then all pages, or all words */
	uint64_t unmap_ns;
	uint64_t table_kb;   /* VmPTE of the process, with everything mapped and read */
	uint64_t pss_kb;     /* proportional memory of the process, hugetlb not counted */
	uint64_t huge_kb;    /* mapped by huge entries */
	uint64_t hugetlb_kb; /* of it in hugetlb pages */
	uint64_t wrong;	     /* pages or sums that were not as they should */
	int32_t error;	     /* negative errno: text says where */
	char text[252];
};

struct probe {
	pid_t pid;
	int socket;
};

/* Returns if this process is not a probe; otherwise serves and exits. */
void probe_main(int argc, char **argv);

/* Each returns 0, or -1 after saying why on stderr. A probe that was started must be ended. */
int probe_start(struct probe *probe, const struct probe_request *request, int fd);
int probe_ready(struct probe *probe);
int probe_count(struct probe *probe);
int probe_end(struct probe *probe, struct probe_result *result);

/* Sends or receives all bytes over a socket; false if the other end is gone. */
bool probe_transfer(int fd, void *at, size_t bytes, bool send_it);

/* All of it for one probe. */
int probe_run(const struct probe_request *request, int fd, struct probe_result *result);

#endif
