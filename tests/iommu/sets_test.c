/*
 * The two sets of iommu/, each beside what anyone can check: IOVAs beside an array of taken pages,
 * entries beside an array that says for each page where its entry begins.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "iommu/internal.h"
#include "support/counts.h"

/* ---- IOVAs ---- */

#define PAGES	256u /* of a small space, with a gap that is not permitted */
#define GAP	100u
#define GAP_END 110u
#define LOW	0x10000ull /* where it begins */
#define NOTHING UINT64_MAX

struct space {
	struct mrs_iova iova;
	uint64_t owner[PAGES]; /* page number of the first page of its range plus 1; 0: free */
};

static bool is_free(const struct space *s, uint64_t page, uint64_t pages)
{
	for (uint64_t i = page; i < page + pages; i++)
		if (i >= PAGES || (i >= GAP && i < GAP_END) || s->owner[i])
			return false;
	return true;
}

/* The lowest place, by trying all. */
static uint64_t lowest(const struct space *s, const struct mrs_iova_want *want)
{
	for (uint64_t page = 0; page < PAGES; page++) {
		uint64_t at = LOW + page * MRS_PAGE_BYTES;

		if ((at & (want->align - 1)) == want->phase && at + want->bytes - 1 <= want->last &&
		    is_free(s, page, want->bytes / MRS_PAGE_BYTES))
			return at;
	}
	return NOTHING;
}

static void own(struct space *s, uint64_t at, uint64_t bytes)
{
	uint64_t page = (at - LOW) / MRS_PAGE_BYTES;

	for (uint64_t i = 0; i < bytes / MRS_PAGE_BYTES; i++)
		s->owner[page + i] = page + 1;
}

static void choose_one(struct space *s, uint64_t r)
{
	struct mrs_iova_want want = {
		.bytes = (1 + r % 20) * MRS_PAGE_BYTES,
		.align = MRS_PAGE_BYTES << (r >> 8) % 5,
		.last = (r >> 16) % 3 ? UINT64_MAX : LOW + 60 * MRS_PAGE_BYTES - 1,
	};
	uint64_t expected, at;
	int rc;

	want.phase = ((r >> 24) % 16 * MRS_PAGE_BYTES) & (want.align - 1);
	expected = lowest(s, &want);
	rc = mrs_iova_choose(&s->iova, &want, &at);
	if (expected == NOTHING) {
		assert_int_equal(rc, -EADDRNOTAVAIL);
		return;
	}
	assert_int_equal(rc, 0);
	assert_int_equal(at, expected);
	own(s, at, want.bytes);
}

static void take_one(struct space *s, uint64_t r)
{
	uint64_t page = r % (PAGES + 4), pages = 1 + (r >> 16) % 12;
	uint64_t at = LOW + page * MRS_PAGE_BYTES;
	bool permitted = page + pages <= PAGES && (page + pages <= GAP || page >= GAP_END);
	int rc = mrs_iova_take(&s->iova, at, pages * MRS_PAGE_BYTES);

	assert_int_equal(rc, !permitted ? -ERANGE : is_free(s, page, pages) ? 0 : -EEXIST);
	if (!rc)
		own(s, at, pages * MRS_PAGE_BYTES);
}

static void give_one(struct space *s, uint64_t r)
{
	uint64_t page = r % PAGES, first = s->owner[page];

	if (!first)
		return;
	mrs_iova_give(&s->iova, LOW + (first - 1) * MRS_PAGE_BYTES);
	for (unsigned i = 0; i < PAGES; i++)
		if (s->owner[i] == first)
			s->owner[i] = 0;
}

static void iovas(void **state)
{
	struct space *s = calloc(1, sizeof(*s));
	uint64_t random = test_seed(), steps = COUNT_DIR_HOSTILE * 10;

	/* In three pieces, out of order: neighbours become one range. */
	assert_int_equal(mrs_iova_permit(&s->iova, LOW + GAP_END * MRS_PAGE_BYTES,
					 LOW + PAGES * MRS_PAGE_BYTES - 1),
			 0);
	assert_int_equal(mrs_iova_permit(&s->iova, LOW, LOW + 50 * MRS_PAGE_BYTES - 1), 0);
	assert_int_equal(mrs_iova_permit(&s->iova, LOW + 50 * MRS_PAGE_BYTES,
					 LOW + GAP * MRS_PAGE_BYTES - 1),
			 0);
	assert_int_equal(s->iova.permitted_count, 2);
	for (uint64_t i = 0; i < steps; i++) {
		uint64_t r = test_random(&random);

		switch (r & 3) {
		case 0:
			choose_one(s, r >> 2);
			break;
		case 1:
			take_one(s, r >> 2);
			break;
		default:
			give_one(s, r >> 2);
		}
	}
	mrs_iova_free(&s->iova);
	free(s);
}

/* High addresses first, never 0, up to the very last byte. */
static void iova_edges(void **state)
{
	struct mrs_iova iova = {0};
	struct mrs_iova_want want = {
		.bytes = MRS_PAGE_BYTES, .align = MRS_PAGE_BYTES, .last = UINT64_MAX};
	uint64_t at;

	assert_int_equal(mrs_iova_permit(&iova, 0, 0xffff), 0);
	assert_int_equal(mrs_iova_choose(&iova, &want, &at), 0);
	assert_int_equal(at, MRS_PAGE_BYTES);
	assert_int_equal(mrs_iova_take(&iova, 0, MRS_PAGE_BYTES), 0);
	assert_int_equal(mrs_iova_permit(&iova, 1ull << 40, UINT64_MAX), 0);
	assert_int_equal(mrs_iova_choose(&iova, &want, &at), 0);
	assert_int_equal(at, 1ull << 40);
	assert_int_equal(mrs_iova_take(&iova, UINT64_MAX - 4095, 4096), 0);
	assert_int_equal(mrs_iova_take(&iova, UINT64_MAX - 4095, 8192), -ERANGE);
	want.align = 1ull << 63;
	want.phase = (1ull << 63) - MRS_PAGE_BYTES;
	assert_int_equal(mrs_iova_choose(&iova, &want, &at), 0);
	assert_int_equal(at, (1ull << 63) - MRS_PAGE_BYTES);
	want.bytes = UINT64_MAX - 8191;
	want.align = MRS_PAGE_BYTES;
	want.phase = 0;
	assert_int_equal(mrs_iova_choose(&iova, &want, &at), -EADDRNOTAVAIL);
	mrs_iova_free(&iova);
}

/* ---- entries ---- */

#define VIEW_PAGES 4096u

struct model {
	struct mrs_entries set;
	uint64_t first[VIEW_PAGES]; /* where the entry of this page begins, plus 1; 0: none */
	uint64_t count;
};

static void check_lookup(const struct model *m, uint64_t page)
{
	const struct mrs_entry *found =
		mrs_entries_from(&m->set, page * MRS_PAGE_BYTES + (page % 3 ? 0 : 77));

	while (page < VIEW_PAGES && !m->first[page])
		page++;
	if (page == VIEW_PAGES) {
		assert_null(found);
		return;
	}
	assert_non_null(found);
	assert_int_equal(found->offset, (m->first[page] - 1) * MRS_PAGE_BYTES);
	assert_int_equal(found->frame, m->first[page] + 1000);
}

static void add_entry(struct model *m, uint64_t page, uint64_t pages)
{
	struct mrs_entry entry = {
		.offset = page * MRS_PAGE_BYTES,
		.bytes = pages * MRS_PAGE_BYTES,
		.frame = page + 1001,
	};

	for (uint64_t i = page; i < page + pages; i++)
		if (i >= VIEW_PAGES || m->first[i])
			return;
	assert_int_equal(mrs_entries_add(&m->set, &entry), 0);
	for (uint64_t i = page; i < page + pages; i++)
		m->first[i] = page + 1;
	m->count++;
}

static void remove_entry(struct model *m, uint64_t page)
{
	uint64_t first = m->first[page];

	if (!first)
		return;
	/* In the middle of an entry none begins. */
	if (page != first - 1)
		mrs_entries_remove(&m->set, page * MRS_PAGE_BYTES);
	mrs_entries_remove(&m->set, (first - 1) * MRS_PAGE_BYTES);
	for (uint64_t i = first - 1; i < VIEW_PAGES && m->first[i] == first; i++)
		m->first[i] = 0;
	m->count--;
}

static void entries(void **state)
{
	struct model *m = calloc(1, sizeof(*m));
	uint64_t random = test_seed(), steps = COUNT_DIR_HOSTILE * 20;

	/* Ascending, as they mostly come: chunks are full. */
	for (uint64_t page = 0; page < VIEW_PAGES; page++)
		add_entry(m, page, 1);
	assert_int_equal(m->set.chunks, VIEW_PAGES / MRS_ENTRIES_CHUNK);
	for (uint64_t i = 0; i < steps; i++) {
		uint64_t r = test_random(&random), page = (r >> 8) % VIEW_PAGES;

		/* Waves: it grows sparse and dense again. */
		if ((r & 7) < (i / 8192 % 2 ? 2u : 5u))
			remove_entry(m, page);
		else
			add_entry(m, page, 1 + (r >> 40) % 6);
		check_lookup(m, (r >> 48) % VIEW_PAGES);
		assert_int_equal(m->set.count, m->count);
		if (i % 512 == 0)
			assert_true(mrs_entries_valid(&m->set));
	}
	assert_true(mrs_entries_valid(&m->set));
	mrs_entries_free(&m->set);
	assert_null(mrs_entries_from(&m->set, 0));
	free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(iovas),
		cmocka_unit_test(iova_edges),
		cmocka_unit_test(entries),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
