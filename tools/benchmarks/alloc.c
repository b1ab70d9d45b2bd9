/*
 * bench_alloc: what the frame allocator costs, beside what one compare-and-swap costs here, and
 * what it leaves whole. Only metadata for 8 GiB of frames is made: the frames themselves are never
 * touched, so that nothing but the allocator is measured. The benchmark's own list of frames is
 * prefetched where it is read at random, for the same reason.
 *
 * Every sample of ours is followed by one of theirs. Times are ns per operation.
 */
#include "bench.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <morsel/frame.h>

#define MANAGED	     (8 * BENCH_GIB)
#define FRAMES	     (MANAGED / 4096)
#define HUGES	     (FRAMES / MORSEL_FRAMES_HUGE)
#define LOCALS	     MORSEL_FRAMES_LOCALS_MAX
#define CAS_ROUNDS   1000000
#define FRAG_ROUNDS  32
#define CHURN_ROUNDS 1000000
#define AHEAD	     16

static const char cas_words[] =
	"compare-and-swap (lock cmpxchg) on a word of an own line, one thread, 1000000 in a row";

static struct bench *bench;
static unsigned pairs;
static struct morsel_frames frames;
static void *block;
static size_t block_bytes;
static uint32_t *list; /* frames that the benchmark has */
static uint64_t rng = 88172645463325252u;

static uint64_t next_random(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

/* A fresh allocator, all of it free. */
static void fresh(void)
{
	if (block)
		munmap(block, block_bytes);
	block_bytes = morsel_frames_metadata_bytes(FRAMES, LOCALS);
	block = mmap(NULL, block_bytes, PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (block == MAP_FAILED)
		bench_die("no memory for %zu bytes of metadata", block_bytes);
	if (morsel_frames_init(&frames, block, block_bytes, FRAMES, LOCALS, FRAMES, 0, NULL))
		bench_die("morsel_frames_init failed");
}

static uint32_t get(unsigned local, unsigned order)
{
	uint64_t frame;

	if (morsel_frames_get(&frames, local, order, MORSEL_FRAMES_MOVABLE, 0, &frame))
		bench_die("a get of order %u failed", order);
	return (uint32_t)frame;
}

static void put(unsigned local, uint32_t frame, unsigned order)
{
	if (morsel_frames_put(&frames, local, frame, order, 0))
		bench_die("a put of frame %u, order %u failed", frame, order);
}

static void get_list(unsigned local, size_t count)
{
	for (size_t i = 0; i < count; i++)
		list[i] = get(local, 0);
}

static void shuffle(uint32_t *of, size_t count)
{
	for (size_t i = count; i > 1; i--) {
		size_t j = next_random() % i;
		uint32_t swap = of[i - 1];

		of[i - 1] = of[j];
		of[j] = swap;
	}
}

static double cas_own_line(void)
{
	static uint64_t word __attribute__((aligned(128)));
	uint64_t begin = bench_now();

	for (uint64_t i = 0, seen = word; i < CAS_ROUNDS; i++) {
		__atomic_compare_exchange_n(&word, &seen, seen + 1, 0, __ATOMIC_ACQ_REL,
					    __ATOMIC_ACQUIRE);
		seen++;
	}
	return (double)(bench_now() - begin) / CAS_ROUNDS;
}

static void timed_case(const char *name, double (*ours)(void))
{
	struct bench_case *c;

	if (!bench_wants(bench, name))
		return;
	c = bench_case(bench, name, "ns", "cas-own-line", cas_words);
	bench_say("%s", name);
	fresh();
	ours(); /* once before it counts */
	for (unsigned i = 0; i < pairs; i++) {
		bench_ours(c, ours());
		bench_theirs(c, cas_own_line());
	}
}

/* ---- One thread ------------------------------------------------------------------------------ */

static double repeat_4k(void)
{
	uint64_t begin = bench_now();

	for (unsigned i = 0; i < CHURN_ROUNDS; i++)
		put(0, get(0, 0), 0);
	return (double)(bench_now() - begin) / CHURN_ROUNDS;
}

static double bulk_get_4k(void)
{
	uint64_t begin = bench_now(), end;

	get_list(0, FRAMES);
	end = bench_now();
	for (size_t i = 0; i < FRAMES; i++)
		put(0, list[i], 0);
	return (double)(end - begin) / FRAMES;
}

static double bulk_get_2m(void)
{
	uint64_t sum = 0;

	for (unsigned round = 0; round < 16; round++) {
		uint64_t begin = bench_now();

		for (size_t i = 0; i < HUGES; i++)
			list[i] = get(0, MORSEL_FRAMES_HUGE_ORDER);
		sum += bench_now() - begin;
		for (size_t i = 0; i < HUGES; i++)
			put(0, list[i], MORSEL_FRAMES_HUGE_ORDER);
	}
	return (double)sum / 16 / HUGES;
}

/* As above, but the first time: the row of each huge frame is empty and has to be filled. */
static double bulk_get_2m_rows(void)
{
	uint64_t begin;
	double ns;

	fresh();
	begin = bench_now();
	for (size_t i = 0; i < HUGES; i++)
		list[i] = get(0, MORSEL_FRAMES_HUGE_ORDER);
	ns = (double)(bench_now() - begin) / HUGES;
	return ns;
}

static double batch_get(void)
{
	static uint64_t out[MORSEL_FRAMES_HUGE];
	uint64_t begin, count = 0;

	fresh();
	begin = bench_now();
	while (count < FRAMES) {
		int got = morsel_frames_get_many(&frames, 0, MORSEL_FRAMES_MOVABLE, 0,
						 MORSEL_FRAMES_HUGE, out);

		if (got <= 0)
			bench_die("a batch failed");
		count += (uint64_t)got;
	}
	return (double)(bench_now() - begin) / (double)count;
}

/* The places in the list are drawn AHEAD rounds before, so that the list can be prefetched. */
static double churn(size_t have)
{
	uint32_t places[AHEAD];
	uint64_t begin;

	for (unsigned i = 0; i < AHEAD; i++)
		places[i] = (uint32_t)(next_random() % have);
	begin = bench_now();
	for (unsigned i = 0; i < CHURN_ROUNDS; i++) {
		uint32_t *at = &list[places[i % AHEAD]];

		places[i % AHEAD] = (uint32_t)((next_random() >> 32) * have >> 32);
		__builtin_prefetch(&list[places[i % AHEAD]], 1);
		put(0, *at, 0);
		*at = get(0, 0);
	}
	return (double)(bench_now() - begin) / CHURN_ROUNDS;
}

static void churn_case(const char *name, unsigned percent)
{
	struct bench_case *c;
	size_t have = FRAMES * percent / 100;

	if (!bench_wants(bench, name))
		return;
	c = bench_case(bench, name, "ns", "cas-own-line", cas_words);
	bench_say("%s", name);
	fresh();
	get_list(0, have);
	churn(have);
	for (unsigned i = 0; i < pairs; i++) {
		bench_ours(c, churn(have));
		bench_theirs(c, cas_own_line());
	}
}

/* ---- Two threads ----------------------------------------------------------------------------- */

struct worker {
	pthread_t thread;
	unsigned local;
	uint32_t *list;
	size_t count;
	uint64_t ns;
	void (*work)(struct worker *w);
};

static pthread_barrier_t barrier;
static unsigned first_cpu; /* of the processors that we may use */

/* A processor for each worker: the scheduler may leave two that wake together on one for a while.
 */
static void worker_pin(unsigned index)
{
	cpu_set_t allowed, mine;

	CPU_ZERO(&mine);
	if (sched_getaffinity(0, sizeof(allowed), &allowed))
		return;
	index %= (unsigned)CPU_COUNT(&allowed);
	for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &allowed) && index-- == 0)
			CPU_SET(cpu, &mine);
	sched_setaffinity(0, sizeof(mine), &mine);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	uint64_t begin;

	worker_pin(first_cpu + w->local);
	pthread_barrier_wait(&barrier);
	begin = bench_now();
	w->work(w);
	w->ns = bench_now() - begin;
	return NULL;
}

static void work_get(struct worker *w)
{
	for (size_t i = 0; i < w->count; i++)
		w->list[i] = get(w->local, 0);
}

static void work_put(struct worker *w)
{
	for (size_t i = 0; i < w->count; i++)
		put(w->local, w->list[i], 0);
}

/* Each of the threads works on its own half of the list. ns per operation of the slower one. */
static double workers(unsigned threads, void (*work)(struct worker *w))
{
	struct worker w[2];
	uint64_t ns = 0;

	pthread_barrier_init(&barrier, NULL, threads);
	for (unsigned i = 0; i < threads; i++) {
		w[i] = (struct worker){.local = i,
				       .list = list + FRAMES / 2 * i,
				       .count = FRAMES / 2,
				       .work = work};
		if (pthread_create(&w[i].thread, NULL, worker_main, &w[i]))
			bench_die("no thread");
	}
	for (unsigned i = 0; i < threads; i++) {
		pthread_join(w[i].thread, NULL);
		ns = w[i].ns > ns ? w[i].ns : ns;
	}
	pthread_barrier_destroy(&barrier);
	return (double)ns / (FRAMES / 2);
}

static double random_put(unsigned threads)
{
	fresh();
	workers(threads, work_get);
	for (unsigned i = 0; i < threads; i++)
		shuffle(list + FRAMES / 2 * i, FRAMES / 2);
	return workers(threads, work_put);
}

static double bulk_get(unsigned threads)
{
	fresh();
	return workers(threads, work_get);
}

/* One thread, on the slower of the two processors: they need not run equally fast. */
static double alone(double (*measure)(unsigned threads))
{
	double first = measure(1), second;

	first_cpu = 1;
	second = measure(1);
	first_cpu = 0;
	return first > second ? first : second;
}

static void threads_case(const char *name, const char *baseline, const char *words,
			 double (*measure)(unsigned threads))
{
	struct bench_case *c;

	if (!bench_wants(bench, name))
		return;
	c = bench_case(bench, name, "ns", baseline, words);
	bench_say("%s", name);
	measure(2);
	for (unsigned i = 0; i < pairs; i++) {
		bench_ours(c, measure(2));
		bench_theirs(c, alone(measure));
	}
}

/* ---- What is left whole ---------------------------------------------------------------------- */

static uint64_t whole_free(void)
{
	struct morsel_frames_stat stat;

	morsel_frames_stat_exact(&frames, &stat);
	return stat.huge_free;
}

/* Puts a tenth of the list at random and gets as many again, often. */
static void churn_tenths(size_t have)
{
	for (unsigned round = 0; round < FRAG_ROUNDS; round++) {
		for (size_t i = 0; i < have / 10; i++) {
			size_t j = i + next_random() % (have - i);
			uint32_t swap = list[i];

			list[i] = list[j];
			list[j] = swap;
			put(0, list[i], 0);
		}
		get_list(0, have / 10);
	}
}

static void frag_a(void)
{
	struct bench_case *c;
	size_t have = FRAMES * 9 / 10;

	if (!bench_wants(bench, "frag-a-whole-huge"))
		return;
	c = bench_case(bench, "frag-a-whole-huge", "count", "possible-whole-huge",
		       "free frames divided by 512: what could be whole");
	bench_say("frag-a-whole-huge");
	for (unsigned i = 0; i < pairs; i++) {
		fresh();
		get_list(0, have);
		churn_tenths(have);
		bench_ours(c, (double)whole_free());
		bench_theirs(c, (double)((FRAMES - have) / MORSEL_FRAMES_HUGE));
	}
}

static void frag_d(void)
{
	struct bench_case *c;

	if (!bench_wants(bench, "frag-d"))
		return;
	c = bench_case(bench, "frag-d-served-huge", "count", "whole-free-huge",
		       "huge frames of which the rows say that all 512 frames are free");
	bench_say("frag-d");
	for (unsigned i = 0; i < pairs; i++) {
		uint64_t whole, served = 0, frame;

		fresh();
		get_list(0, FRAMES);
		/* Whole huge frames among what is freed, too: half of them at random, then singles.
		 */
		for (size_t h = 0; h < HUGES / 8; h++)
			for (size_t j = 0; j < MORSEL_FRAMES_HUGE; j++)
				put(0, list[(h * 8 + i % 8) * MORSEL_FRAMES_HUGE + j], 0);
		for (size_t h = 0, n = 0; h < HUGES; h++)
			for (size_t j = 0; h % 8 != i % 8 && j < MORSEL_FRAMES_HUGE; j++)
				list[n++] = list[h * MORSEL_FRAMES_HUGE + j];
		shuffle(list, FRAMES / 8 * 7);
		for (size_t j = FRAMES / 2; j < FRAMES / 8 * 7; j++)
			put(0, list[j], 0);
		churn_tenths(FRAMES / 2);
		whole = whole_free();
		while (!morsel_frames_get(&frames, 1, MORSEL_FRAMES_HUGE_ORDER,
					  MORSEL_FRAMES_HUGE_CLASS, 0, &frame))
			served++;
		bench_ours(c, (double)served);
		bench_theirs(c, (double)whole);
	}
}

/* Is there an aligned free block anywhere? Asks the rows, not the counters. */
static bool any_free(unsigned order)
{
	for (uint64_t at = 0; at < FRAMES; at += (uint64_t)1 << order)
		if (morsel_frames_is_free(&frames, at, order))
			return true;
	return false;
}

/*
 * Fills up to percent with singles, frees some at random, leaves reservations of many idle locals
 * behind, and then gets everything of one order: a refusal counts if a free block is left.
 */
static void spurious_round(unsigned percent, unsigned order, double *refused, double *gets)
{
	size_t have = FRAMES * percent / 100;
	uint64_t frame;

	fresh();
	get_list(0, have);
	for (unsigned local = 1; local < 64; local++)
		get(local, 0);
	for (size_t i = 0; i < have / 3; i++) {
		size_t j = i + next_random() % (have - i);
		uint32_t swap = list[i];

		list[i] = list[j];
		list[j] = swap;
		put(i % 64, list[i], 0);
	}
	while (!morsel_frames_get(&frames, 100, order, MORSEL_FRAMES_MOVABLE, 0, &frame))
		*gets += 1;
	*gets += 1;
	*refused += any_free(order);
}

static void spurious(void)
{
	static const unsigned percents[] = {10, 50, 90, 99};
	struct bench_case *c;

	if (!bench_wants(bench, "spurious-failures"))
		return;
	c = bench_case(bench, "spurious-failures", "count", "total-gets",
		       "all gets until the first refusal, fills of 10, 50, 90 and 99 %");
	bench_say("spurious-failures");
	for (unsigned i = 0; i < pairs || i <= MORSEL_FRAMES_MAX_ORDER; i++) {
		double refused = 0, gets = 0;

		for (unsigned p = 0; p < 4; p++)
			if (i % 4 == p || i % 19 >= 8)
				spurious_round(percents[p], i % 19, &refused, &gets);
		bench_ours(c, refused);
		bench_theirs(c, gets);
	}
}

static void metadata(void)
{
	struct bench_case *c;

	if (!bench_wants(bench, "metadata-bytes"))
		return;
	c = bench_case(bench, "metadata-bytes", "B", "managed-bytes", "8 GiB managed");
	bench_note(c, "with %u locals", LOCALS);
	for (unsigned i = 0; i < pairs; i++) {
		bench_ours(c, (double)morsel_frames_metadata_bytes(FRAMES, LOCALS));
		bench_theirs(c, (double)MANAGED);
	}
}

int main(int argc, char **argv)
{
	struct bench_opts opts = {.pairs = BENCH_PAIRS_MIN};

	bench = bench_start("alloc", &opts, argc, argv);
	pairs = opts.pairs;
	list = mmap(NULL, FRAMES * sizeof(*list), PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (list == MAP_FAILED)
		bench_die("no memory for the list of frames");
	madvise(list, FRAMES * sizeof(*list), MADV_HUGEPAGE);
	memset(list, 0, FRAMES * sizeof(*list));
	timed_case("repeat-4k-1t", repeat_4k);
	timed_case("bulk-get-4k-1t", bulk_get_4k);
	threads_case("bulk-get-4k-2t", "bulk-get-4k-1t",
		     "the same gets by one thread, on the slower of two processors", bulk_get);
	timed_case("bulk-get-2m-1t", bulk_get_2m);
	timed_case("bulk-get-2m-fresh-1t", bulk_get_2m_rows);
	timed_case("batch512-get", batch_get);
	threads_case("random-put-4k-2t", "random-put-4k-1t",
		     "the same puts by one thread, on the slower of two processors", random_put);
	churn_case("churn90-4k-1t", 90);
	churn_case("churn99-4k-1t", 99);
	spurious();
	frag_a();
	frag_d();
	metadata();
	return bench_finish(bench);
}
