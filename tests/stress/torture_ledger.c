/* The ledger of the torture test: torture.h. */
#include "stress/torture.h"

#include <sys/mman.h>

#include "support/counts.h"

struct torture *torture_map(int fd)
{
	void *map = mmap(NULL, sizeof(struct torture), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	return map == MAP_FAILED ? NULL : map;
}

void torture_name(char name[32], unsigned family, uint64_t life)
{
	snprintf(name, 32, "f%u.%llu", family, (unsigned long long)life);
}

struct torture_page *torture_pages(struct torture *t, uint64_t life)
{
	return t->page[life % TORTURE_LIVES];
}

bool torture_has_ended(struct torture *t, uint32_t worker)
{
	return mrs_load_acquire(&t->ended[worker / 64 % 64]) >> worker % 64 & 1;
}

static uint64_t word_of(unsigned family, unsigned number, uint64_t version, unsigned i)
{
	uint64_t state = version * 0x9e3779b97f4a7c15ull ^ ((uint64_t)family << 40) ^
			 ((uint64_t)number << 20) ^ i;

	return version & 1 ? 0 : test_random(&state);
}

void torture_fill(unsigned family, unsigned number, uint64_t version, uint64_t *words)
{
	for (unsigned i = 0; i < 512; i++)
		mrs_store_relaxed(&words[i], word_of(family, number, version, i));
}

/*
 * From the last place to the first: a writer makes his version the first before he clears its
 * place. The count before the versions, or after them: who is counted has been listed.
 */
static void look_at_versions(const struct torture_page *page, struct torture_seen *seen)
{
	for (unsigned i = TORTURE_VERSIONS; i--;)
		seen->version[i] = mrs_load_acquire(&page->version[i]);
}

void torture_look_before(const struct torture_page *page, struct torture_seen *seen)
{
	seen->writes = mrs_load_acquire32(&page->writes);
	look_at_versions(page, seen);
	mrs_full_fence();
}

void torture_look_after(const struct torture_page *page, struct torture_seen *seen)
{
	mrs_full_fence();
	look_at_versions(page, seen);
	seen->writes = mrs_load_acquire32(&page->writes);
}

static bool is_listed(const struct torture_seen *seen, unsigned family, unsigned number, unsigned i,
		      uint64_t word)
{
	for (unsigned k = 0; k < TORTURE_VERSIONS; k++)
		if (seen->version[k] == TORTURE_ANY ||
		    (seen->version[k] && word_of(family, number, seen->version[k], i) == word))
			return true;
	return false;
}

int torture_judge(const struct torture_page *page, const struct torture_seen *before,
		  unsigned family, unsigned number, const uint64_t words[512], unsigned *at)
{
	struct torture_seen after;

	torture_look_after(page, &after);
	for (unsigned i = 0; i < 512; i++) {
		if (is_listed(before, family, number, i, words[i]) ||
		    is_listed(&after, family, number, i, words[i]))
			continue;
		if (after.writes - before->writes > 1)
			return 1;
		*at = i;
		return -1;
	}
	return 0;
}

uint64_t torture_write_begin(struct torture *t, struct torture_page *page, uint32_t worker,
			     unsigned family, unsigned number, bool zeros)
{
	uint32_t owner = mrs_load_acquire32(&page->owner);
	uint64_t version;
	unsigned i = 0;

	if ((owner && !torture_has_ended(t, owner)) || !mrs_cas32(&page->owner, &owner, worker))
		return 0;
	while (i < TORTURE_VERSIONS && mrs_load_acquire(&page->version[i]))
		i++;
	if (i == TORTURE_VERSIONS) { /* so many have died here */
		mrs_store_release32(&page->owner, 0);
		return 0;
	}
	version = mrs_fetch_add(&t->next[family][number], 2) + 2 + zeros;
	mrs_store_release(&page->version[i], version);
	mrs_fetch_add32(&page->writes, 1);
	mrs_full_fence();
	return version;
}

void torture_write_end(struct torture_page *page, uint64_t version)
{
	mrs_full_fence();
	mrs_store_release(&page->version[0], version);
	for (unsigned i = 1; i < TORTURE_VERSIONS; i++)
		mrs_store_release(&page->version[i], 0);
	mrs_store_release32(&page->owner, 0);
}

void torture_write_cancel(struct torture_page *page, uint64_t version)
{
	for (unsigned i = 0; i < TORTURE_VERSIONS; i++)
		if (mrs_load_acquire(&page->version[i]) == version)
			mrs_store_release(&page->version[i], 0);
	mrs_store_release32(&page->owner, 0);
}

bool torture_identify(uint64_t word, unsigned i, unsigned *family, unsigned *number,
		      uint64_t *version)
{
	for (*family = 0; *family < TORTURE_FAMILIES; (*family)++)
		for (*number = 0; *number < TORTURE_PAGES; (*number)++)
			for (*version = 2; *version < 4000; *version += 2)
				if (word_of(*family, *number, *version, i) == word)
					return true;
	return false;
}
