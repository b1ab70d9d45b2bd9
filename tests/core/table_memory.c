/* See table_memory.h. */
#include "core/table_memory.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"

static uint64_t data_page[512]; /* what at() shows for every data frame */

static void maybe_die(struct memory *m)
{
	if (m->die_at >= 0 && m->die_at-- == 0)
		longjmp(m->death, 1);
}

static uint64_t *memory_at(void *ctx, uint64_t frame)
{
	struct memory *m = ctx;

	if (frame < TABLES_END)
		return m->tables[frame];
	return frame >= DATA_FIRST && frame < DATA_END ? data_page : NULL;
}

static bool is_zero(const uint64_t *entries)
{
	for (int i = 0; i < 512; i++)
		if (entries[i])
			return false;
	return true;
}

static int memory_get(void *ctx, void *txn_, uint64_t *frame)
{
	struct memory *m = ctx;
	struct memory_txn *txn = txn_;
	uint64_t f;

	maybe_die(m);
	assert_false(txn->pending);
	if (m->fail_at >= 0 && m->fail_at-- == 0)
		return mrs_fail(-ENOSPC, "the test wants this get to fail");
	pthread_mutex_lock(&m->lock);
	for (f = 1; f < TABLES_END; f++) {
		m->hint = m->hint + 1 < TABLES_END ? m->hint + 1 : 1;
		if (!m->used[m->hint])
			break;
	}
	if (f < TABLES_END) {
		f = m->hint;
		m->used[f] = 1;
		m->in_use++;
	}
	pthread_mutex_unlock(&m->lock);
	if (f == TABLES_END)
		return mrs_fail(-ENOSPC, "the test pool has no table frame left");
	*txn = (struct memory_txn){.pending = f, .building = txn->building};
	assert_true(is_zero(m->tables[f]));
	maybe_die(m);
	*frame = f;
	return 0;
}

static void memory_settle(void *ctx, void *txn_)
{
	struct memory_txn *txn = txn_;

	maybe_die(ctx);
	txn->pending = 0;
}

static void memory_put_begin(void *ctx, void *txn_, unsigned order, uint64_t frame)
{
	struct memory *m = ctx;
	struct memory_txn *txn = txn_;

	maybe_die(m);
	assert_true(!txn->pending || (txn->pending == frame && !txn->is_put));
	assert_true(order <= 18);
	assert_int_equal(frame & ((1ull << order) - 1), 0);
	txn->pending = frame;
	txn->pending_order = order;
	txn->is_put = true;
	maybe_die(m);
}

static void free_block(struct memory *m, uint64_t frame, unsigned order)
{
	pthread_mutex_lock(&m->lock);
	for (uint64_t i = 0; i < 1ull << order; i++) {
		assert_true(m->used[frame + i]);
		m->used[frame + i] = 0;
	}
	m->in_use -= 1ull << order;
	pthread_mutex_unlock(&m->lock);
}

static void memory_put_end(void *ctx, void *txn_)
{
	struct memory *m = ctx;
	struct memory_txn *txn = txn_;

	maybe_die(m);
	assert_true(txn->pending && txn->is_put);
	if (txn->pending < TABLES_END)
		assert_true(is_zero(m->tables[txn->pending]));
	free_block(m, txn->pending, txn->pending_order);
	txn->pending = 0;
	maybe_die(m);
}

static uint64_t *memory_building(void *ctx, void *txn_)
{
	struct memory_txn *txn = txn_;

	return &txn->building;
}

static const struct mrs_table_ops memory_ops = {
	.at = memory_at,
	.get = memory_get,
	.settle = memory_settle,
	.put_begin = memory_put_begin,
	.put_end = memory_put_end,
	.building = memory_building,
};

void memory_open(struct memory *m)
{
	memset(m, 0, sizeof(*m));
	pthread_mutex_init(&m->lock, NULL);
	m->tables = calloc(TABLES_END, sizeof(*m->tables));
	m->used = calloc(DATA_END, 1);
	assert_true(m->tables && m->used);
	m->fail_at = m->die_at = -1;
	m->table = (struct mrs_table){
		.ops = &memory_ops, .ctx = m, .root = &m->root, .run_pages = &m->run_pages};
}

void memory_close(struct memory *m)
{
	assert_true(is_zero(data_page));
	free(m->tables);
	free(m->used);
	pthread_mutex_destroy(&m->lock);
}

bool memory_take_at(struct memory *m, uint64_t frame, unsigned order)
{
	uint64_t count = 1ull << order;
	bool taken = frame >= DATA_FIRST && frame + count <= DATA_END;

	pthread_mutex_lock(&m->lock);
	for (uint64_t i = 0; i < count && taken; i++)
		taken = !m->used[frame + i];
	if (taken) {
		memset(&m->used[frame], 1, count);
		m->in_use += count;
	}
	pthread_mutex_unlock(&m->lock);
	return taken;
}

uint64_t memory_take(struct memory *m, uint64_t hint, unsigned order)
{
	uint64_t blocks = (DATA_END - DATA_FIRST) >> order;

	for (uint64_t i = 0; i < blocks; i++) {
		uint64_t block = ((hint >> order) + i) % blocks;

		if (memory_take_at(m, DATA_FIRST + (block << order), order))
			return DATA_FIRST + (block << order);
	}
	return 0;
}

int memory_set(struct memory *m, struct memory_txn *txn, uint64_t page, unsigned level,
	       uint64_t frame)
{
	int rc = mrs_table_prepare(&m->table, txn, page, level);
	bool taken;

	if (rc)
		return rc;
	taken = memory_take_at(m, frame, 9 * level);
	assert_true(taken);
	txn->pending = frame;
	txn->pending_order = 9 * level;
	txn->is_put = false;
	maybe_die(m);
	rc = mrs_table_set(&m->table, txn, page, level, frame);
	if (rc) {
		free_block(m, frame, 9 * level);
		txn->pending = 0;
	}
	return rc;
}

static int count_frames(void *ctx, uint64_t frame, uint64_t count, bool is_table)
{
	struct memory *m = *(struct memory **)ctx;
	uint64_t *sum = ((uint64_t **)ctx)[1];

	for (uint64_t i = 0; i < count; i++)
		assert_true(m->used[frame + i]);
	assert_int_equal(is_table, frame < TABLES_END);
	*sum += count;
	return 0;
}

static void print_finding(void *ctx, const char *finding)
{
	print_error("finding: %s\n", finding);
}

uint64_t memory_audit(struct memory *m)
{
	uint64_t sum = 0;
	void *ctx[] = {m, &sum};

	assert_int_equal(mrs_table_walk(&m->table, count_frames, ctx), 0);
	assert_int_equal(sum, m->in_use);
	assert_int_equal(mrs_table_validate(&m->table, 1ull << 36, print_finding, NULL), 0);
	return sum;
}

struct search {
	uint64_t frame;
	bool found;
};

static int search_frame(void *ctx, uint64_t frame, uint64_t count, bool is_table)
{
	struct search *search = ctx;

	search->found |= search->frame >= frame && search->frame < frame + count;
	return 0;
}

static bool is_referenced(struct memory *m, struct memory_txn *txn, uint64_t frame)
{
	struct search search = {.frame = frame};
	struct mrs_table half = m->table;

	assert_int_equal(mrs_table_walk(&m->table, search_frame, &search), 0);
	if (txn->building) {
		half.root = &txn->building;
		assert_int_equal(mrs_table_walk(&half, search_frame, &search), 0);
	}
	return search.found;
}

void memory_repair(struct memory *m, struct memory_txn *txn)
{
	m->die_at = -1;
	if (txn->pending && m->used[txn->pending] && !is_referenced(m, txn, txn->pending)) {
		/* The real pool zeroes a table's frame when it is got; here it comes zeroed. */
		if (txn->pending < TABLES_END)
			memset(m->tables[txn->pending], 0, sizeof(m->tables[0]));
		free_block(m, txn->pending, txn->pending_order);
	}
	txn->pending = 0;
	mrs_table_discard(&m->table, txn, &txn->building);
	assert_int_equal(txn->building, 0);
}
