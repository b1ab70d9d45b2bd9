/*
 * What is in an object: every page begins with its own number, spread over 64 bits, and goes on
 * with a pattern. So no two frames are equal, and a page that is in the wrong place shows.
 */
#ifndef BENCH_PAGES_H
#define BENCH_PAGES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PAGE_BYTES 4096u
#define PAGE_WORDS (PAGE_BYTES / sizeof(uint64_t))
#define HUGE_BYTES ((uint64_t)2 << 20)

/*
 * Where plain mappings go if that is free: at a 1 GiB boundary, so that the kernel can use huge
 * entries and, for hugetlb, share page tables between processes.
 */
#define MAP_HINT ((void *)0x200000000000ull)

/* At least one page; repeated from page to page. */
struct pattern {
	const void *at;
	uint64_t bytes;
};

/* The multiplier is odd: no two pages have the same number. */
static inline uint64_t page_number(uint64_t page)
{
	return (page + 1) * 0x9e3779b97f4a7c15ull;
}

static inline uint64_t sum_words(const void *at, uint64_t bytes)
{
	const uint64_t *word = at;
	uint64_t sum = 0, i;

	for (i = 0; i < bytes / sizeof(*word); i++)
		sum += word[i];
	return sum;
}

static inline void fill_page(void *at, uint64_t page, const struct pattern *pattern)
{
	uint64_t number = page_number(page), pages = pattern->bytes / PAGE_BYTES;

	memcpy(at, (const char *)pattern->at + page % pages * PAGE_BYTES, PAGE_BYTES);
	memcpy(at, &number, sizeof(number));
}

static inline void fill_pages(void *at, uint64_t first, uint64_t count,
			      const struct pattern *pattern)
{
	uint64_t i;

	for (i = 0; i < count; i++)
		fill_page((char *)at + i * PAGE_BYTES, first + i, pattern);
}

/* How many of the pages do not begin with their number: reads one word of each. */
static inline uint64_t wrong_pages(const void *at, uint64_t bytes)
{
	const volatile uint64_t *word = at;
	uint64_t wrong = 0, page;

	for (page = 0; page < bytes / PAGE_BYTES; page++)
		wrong += word[page * PAGE_WORDS] != page_number(page);
	return wrong;
}

#endif
