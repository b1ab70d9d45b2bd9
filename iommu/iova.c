/* Which I/O virtual addresses are taken. See iova.h. */
#include "iova.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define LOW_BYTES  ((uint64_t)4 << 30)
#define NOT_NULL   MRS_PAGE_BYTES
#define NO_ADDRESS UINT64_MAX

/* ---- permitted ---- */

static int by_first(const void *a, const void *b)
{
	const struct mrs_iova_range *left = a, *right = b;

	return left->first < right->first ? -1 : left->first > right->first;
}

int mrs_iova_permit(struct mrs_iova *iova, uint64_t first, uint64_t last)
{
	size_t n = iova->permitted_count, kept = 0;
	struct mrs_iova_range *all = realloc(iova->permitted, (n + 1) * sizeof(*all));

	if (!all)
		return morsel_fail(-ENOMEM, "no memory for a list of %zu IOVA ranges", n + 1);
	all[n++] = (struct mrs_iova_range){first, last};
	qsort(all, n, sizeof(*all), by_first);
	for (size_t i = 1; i < n; i++) {
		if (all[kept].last == UINT64_MAX || all[i].first <= all[kept].last + 1)
			all[kept].last = mrs_max(all[kept].last, all[i].last);
		else
			all[++kept] = all[i];
	}
	iova->permitted = all;
	iova->permitted_count = kept + 1;
	return 0;
}

static bool is_permitted(const struct mrs_iova *iova, uint64_t first, uint64_t last)
{
	for (size_t i = 0; i < iova->permitted_count; i++)
		if (iova->permitted[i].first <= first && last <= iova->permitted[i].last)
			return true;
	return false;
}

const char *mrs_iova_text(const struct mrs_iova *iova, char *buffer, size_t bytes)
{
	size_t used = 0;

	buffer[0] = 0;
	for (size_t i = 0; i < iova->permitted_count && used < bytes; i++)
		used += (size_t)snprintf(buffer + used, bytes - used, "%s0x%llx-0x%llx",
					 i ? ", " : "",
					 (unsigned long long)iova->permitted[i].first,
					 (unsigned long long)iova->permitted[i].last);
	return buffer;
}

/* ---- taken ---- */

/* Index of the first taken range that ends at or after the address. */
static size_t taken_from(const struct mrs_iova *iova, uint64_t address)
{
	size_t low = 0, high = iova->taken_count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (iova->taken[middle].last < address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static int insert(struct mrs_iova *iova, uint64_t first, uint64_t last)
{
	size_t at = taken_from(iova, first);

	if (iova->taken_count == iova->taken_room) {
		size_t room = 2 * iova->taken_room + 16;
		struct mrs_iova_range *taken = realloc(iova->taken, room * sizeof(*taken));

		if (!taken)
			return morsel_fail(-ENOMEM, "no memory for %zu ranges of IOVAs", room);
		iova->taken = taken;
		iova->taken_room = room;
	}
	memmove(&iova->taken[at + 1], &iova->taken[at],
		(iova->taken_count - at) * sizeof(*iova->taken));
	iova->taken[at] = (struct mrs_iova_range){first, last};
	iova->taken_count++;
	return 0;
}

int mrs_iova_take(struct mrs_iova *iova, uint64_t at, uint64_t bytes)
{
	uint64_t last = at + bytes - 1;
	char text[400];
	size_t i;

	if (last < at || !is_permitted(iova, at, last))
		return morsel_fail(-ERANGE,
				   "IOVA 0x%llx to 0x%llx is not in a range that the IOMMU permits "
				   "(%s): choose another, or let it be chosen",
				   (unsigned long long)at, (unsigned long long)last,
				   mrs_iova_text(iova, text, sizeof(text)));
	i = taken_from(iova, at);
	if (i < iova->taken_count && iova->taken[i].first <= last)
		return morsel_fail(-EEXIST,
				   "IOVA 0x%llx to 0x%llx is taken: another view of the domain has "
				   "0x%llx to 0x%llx",
				   (unsigned long long)at, (unsigned long long)last,
				   (unsigned long long)iova->taken[i].first,
				   (unsigned long long)iova->taken[i].last);
	return insert(iova, at, last);
}

void mrs_iova_give(struct mrs_iova *iova, uint64_t at)
{
	size_t i = taken_from(iova, at);

	if (i >= iova->taken_count || iova->taken[i].first != at)
		return;
	iova->taken_count--;
	memmove(&iova->taken[i], &iova->taken[i + 1],
		(iova->taken_count - i) * sizeof(*iova->taken));
}

void mrs_iova_free(struct mrs_iova *iova)
{
	free(iova->permitted);
	free(iova->taken);
	*iova = (struct mrs_iova){0};
}

/* ---- choosing ---- */

/* The lowest address from at on that has the phase; NO_ADDRESS if there is none. */
static uint64_t in_phase(const struct mrs_iova_want *want, uint64_t at)
{
	uint64_t up = (want->phase - at) & (want->align - 1);

	return at > UINT64_MAX - up ? NO_ADDRESS : at + up;
}

static bool fits(const struct mrs_iova_want *want, uint64_t at, uint64_t last)
{
	return at != NO_ADDRESS && at <= last && want->bytes - 1 <= last - at;
}

/* The lowest place inside [first, last] beside what is taken; NO_ADDRESS if there is none. */
static uint64_t lowest(const struct mrs_iova *iova, const struct mrs_iova_want *want,
		       uint64_t first, uint64_t last)
{
	uint64_t at = first > last ? NO_ADDRESS : in_phase(want, first);

	for (size_t i = taken_from(iova, first); fits(want, at, last); i++) {
		if (i == iova->taken_count || at + (want->bytes - 1) < iova->taken[i].first)
			return at;
		if (iova->taken[i].last == UINT64_MAX)
			break;
		at = in_phase(want, iova->taken[i].last + 1);
	}
	return NO_ADDRESS;
}

static uint64_t search(const struct mrs_iova *iova, const struct mrs_iova_want *want, uint64_t from,
		       uint64_t to)
{
	for (size_t i = 0; i < iova->permitted_count; i++) {
		uint64_t at = lowest(iova, want, mrs_max(iova->permitted[i].first, from),
				     mrs_min(iova->permitted[i].last, to));

		if (at != NO_ADDRESS)
			return at;
	}
	return NO_ADDRESS;
}

int mrs_iova_choose(struct mrs_iova *iova, const struct mrs_iova_want *want, uint64_t *out)
{
	uint64_t at = search(iova, want, LOW_BYTES, want->last);
	char text[400];
	int rc;

	if (at == NO_ADDRESS)
		at = search(iova, want, NOT_NULL, want->last);
	if (at == NO_ADDRESS)
		return morsel_fail(
			-EADDRNOTAVAIL,
			"no room for %llu bytes of IOVA up to 0x%llx: %zu views are in the "
			"permitted ranges %s; destroy a view, or map a part of the morsel",
			(unsigned long long)want->bytes, (unsigned long long)want->last,
			iova->taken_count, mrs_iova_text(iova, text, sizeof(text)));
	rc = insert(iova, at, at + (want->bytes - 1));
	if (!rc)
		*out = at;
	return rc;
}
