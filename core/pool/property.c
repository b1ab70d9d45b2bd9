/*
 * The table of frame properties: prop_lines.h in frames of the pool, and how it grows.
 *
 *	state.properties[0]  the table: first frame | log2 of its lines << 40 | serial << 48; 0 none
 *	state.properties[1]  lines taken, a hint for when to grow
 *	state.properties[2]  no try to grow before this CLOCK_MONOTONIC time; a hint
 *
 *  1. The first table is linked by compare-and-swap.
 *  2. A larger one replaces it behind the closed gate: changes are made inside transitions only, so
 *     nobody changes a line while it is copied, or the old table after it. Parking a transition for
 *     that is allowed where it has nothing pending; where it has, the table is used beyond the
 * point at which it should grow, up to its last line.
 *  3. Readers may be anywhere at any time. They compare the table's word before and after: a reader
 *     whose table was replaced meanwhile has read from frames that may be somebody else's by now,
 *     forgets it, and looks again. The word carries a serial, so that it never comes back.
 *  4. Death: a new table is named by the pending record until the word names it; an old one by
 *     intent.putting from before the word changes until it is free.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/probe.h"
#include "pool/counts.h"
#include "pool/internal.h"
#include "pool/property.h"

#define LINES_ORDER_MIN 10 /* 64 KiB */
#define LINES_ORDER_MAX (MORSEL_FRAMES_MAX_ORDER + 6)
#define LINES_IN_FRAME	(MRS_PAGE_BYTES / MRS_PROP_LINE_BYTES)
#define TABLE_SHIFT	40
#define SERIAL_SHIFT	48
#define AGAIN_NS	1000000000ll
#define BEAT_LINES	4096

static struct mrs_state *state_of(struct morsel_pool *pool)
{
	return (struct mrs_state *)(pool->map + MRS_FRAME_STATE * MRS_PAGE_BYTES);
}

static uint64_t *table_word(struct morsel_pool *pool)
{
	return &state_of(pool)->properties[0];
}

static uint64_t *taken_word(struct morsel_pool *pool)
{
	return &mrs_pool_state(pool)->properties[1];
}

static uint64_t table_frame(uint64_t table)
{
	return table & MRS_ENTRY_FRAME_MASK;
}

static unsigned lines_order(uint64_t table)
{
	return table >> TABLE_SHIFT & 255;
}

static unsigned frames_order(unsigned order)
{
	return order - 6;
}

/* False if there is none, or the word is damaged. A word that was right once stays so. */
static inline bool lines_of(struct morsel_pool *pool, uint64_t table, struct mrs_prop_lines *lines)
{
	unsigned order = lines_order(table);

	if (table && table == mrs_load_relaxed(&pool->properties_checked)) {
		lines->order = order;
		lines->words = (uint64_t *)(pool->map + table_frame(table) * MRS_PAGE_BYTES);
		return true;
	}
	if (!table || order < LINES_ORDER_MIN || order > LINES_ORDER_MAX ||
	    table_frame(table) < pool->super.frame_data)
		return false;
	lines->order = order;
	lines->words = mrs_pool_at(pool, table_frame(table), 1ull << frames_order(order));
	if (lines->words)
		mrs_store_relaxed(&pool->properties_checked, table);
	return lines->words != NULL;
}

static bool get_count(struct morsel_pool *pool, uint64_t frame, struct mrs_prop *prop)
{
	uint64_t count = mrs_counts_get(pool, frame);

	if (count)
		*prop = (struct mrs_prop){.value = count};
	return count != 0;
}

bool mrs_prop_get(struct morsel_pool *pool, uint64_t frame, enum mrs_prop_kind kind,
		  struct mrs_prop *prop)
{
	uint64_t *word = table_word(pool), table = mrs_load_acquire(word), before, *line, *end;
	struct mrs_prop_lines lines;
	struct mrs_prop got = {0};
	bool found;

	if (kind == MRS_PROP_SHARES)
		return get_count(pool, frame, prop);
	do {
		before = table;
		line = lines_of(pool, table, &lines)
			       ? mrs_prop_lines_find(&lines, mrs_prop_key(frame, kind), &end)
			       : NULL;
		found = line && mrs_prop_line_get(line, frame, &got);
		__atomic_thread_fence(
			__ATOMIC_ACQUIRE); /* what was read, before the word again: 3 */
		table = mrs_load_acquire(word);
	} while (table != before);
	if (found)
		*prop = got;
	return found;
}

/* ---- growing ---- */

static int damaged(struct morsel_pool *pool)
{
	return mrs_fail(-EIO,
			"%s is damaged: its table of frame properties is not in the pool; morsel "
			"pool check says more",
			pool->path);
}

/* A zeroed table, pending. It may go over the budget: who frees memory by evicting needs it. */
static int new_table(struct mrs_txn *txn, unsigned order, uint64_t former, uint64_t *table)
{
	unsigned frames = frames_order(order);
	uint64_t frame;
	int rc;

	if (order > LINES_ORDER_MAX)
		return mrs_fail(-ENOSPC,
				"%s has more frame properties than one table holds (%llu lines)",
				txn->pool->path, 1ull << LINES_ORDER_MAX);
	rc = mrs_txn_get(txn, frames, MRS_FRAME_IMMOVABLE, 0, &frame);
	if (rc)
		return rc;
	rc = mrs_pool_back(txn, frame, 1ull << frames, MRS_BACK_OVER_BUDGET, NULL);
	if (rc) {
		morsel_frames_put(&txn->pool->frames, txn->index, frame, frames,
				  MORSEL_FRAMES_PUT_ZERO);
		return rc;
	}
	MRS_PROBE("property.table.backed");
	memset(mrs_pool_at(txn->pool, frame, 1ull << frames), 0, MRS_PAGE_BYTES << frames);
	*table = frame | (uint64_t)order << TABLE_SHIFT |
		 (uint64_t)(uint16_t)((former >> SERIAL_SHIFT) + 1) << SERIAL_SHIFT;
	return 0;
}

static void put_table(struct mrs_txn *txn, uint64_t table)
{
	mrs_pool_unback(txn->pool, table_frame(table), 1ull << frames_order(lines_order(table)));
	mrs_txn_put_end(txn);
}

static int make_first(struct mrs_txn *txn)
{
	uint64_t table, none = 0;
	int rc;

	if (!mrs_txn_is_free(txn))
		return mrs_fail(-EAGAIN,
				"%s: the table of frame properties cannot be made in the middle of "
				"another allocation",
				txn->pool->path);
	rc = new_table(txn, LINES_ORDER_MIN, 0, &table);
	if (rc)
		return rc;
	if (mrs_cas(table_word(txn->pool), &none, table)) {
		MRS_PROBE("property.table.linked");
		mrs_txn_settle(txn);
		return 0;
	}
	mrs_txn_put_begin(txn, frames_order(LINES_ORDER_MIN), table_frame(table));
	mrs_txn_settle(txn);
	put_table(txn, table);
	return 0;
}

static uint64_t count_live(struct morsel_pool *pool, const struct mrs_prop_lines *lines)
{
	uint64_t live = 0;

	for (uint64_t i = 0; i >> lines->order == 0; i++) {
		if (i % BEAT_LINES == 0)
			mrs_gate_beat(pool);
		live += !mrs_prop_line_is_empty(mrs_prop_line(lines, i));
	}
	return live;
}

static uint64_t copy_live(struct morsel_pool *pool, const struct mrs_prop_lines *from,
			  const struct mrs_prop_lines *to)
{
	uint64_t copied = 0;

	for (uint64_t i = 0; i >> from->order == 0; i++) {
		uint64_t *line = mrs_prop_line(from, i), *place;
		bool claimed;

		if (i % BEAT_LINES == 0)
			mrs_gate_beat(pool);
		if (!line[0] || mrs_prop_line_is_empty(line))
			continue;
		place = mrs_prop_lines_claim(to, line[0], &claimed);
		if (!place)
			break; /* twice the lines that are live: only a damaged table comes here */
		memcpy(place + 1, line + 1, MRS_PROP_LINE_BYTES - sizeof(*line));
		copied += claimed;
	}
	return copied;
}

/* Gate closed. Twice as many lines as are live, so that as many again fit before the next time. */
static int rebuild(struct mrs_txn *txn)
{
	struct morsel_pool *pool = txn->pool;
	uint64_t *word = table_word(pool), old = mrs_load_acquire(word), table, live, copied;
	unsigned order = LINES_ORDER_MIN;
	struct mrs_prop_lines from, to;
	int rc;

	if (!lines_of(pool, old, &from))
		return damaged(pool);
	live = count_live(pool, &from);
	while (1ull << order < 2 * live + 2)
		order++;
	rc = new_table(txn, order, old, &table);
	if (rc)
		return rc;
	if (!lines_of(pool, table, &to))
		return damaged(pool);
	copied = copy_live(pool, &from, &to);
	MRS_PROBE("property.table.copied");
	mrs_txn_put_begin(txn, frames_order(from.order), table_frame(old));
	/* Release: who finds the new table finds its lines. Pairs with the load in mrs_prop_get().
	 */
	mrs_store_release(word, table);
	MRS_PROBE("property.table.replaced");
	mrs_store_release(taken_word(pool), copied);
	mrs_txn_settle(txn);
	put_table(txn, old);
	return 0;
}

static int rebuild_if_seen(struct mrs_txn *txn, void *ctx)
{
	/* Else somebody else was quicker. */
	return mrs_load_acquire(table_word(txn->pool)) == *(uint64_t *)ctx ? rebuild(txn) : 0;
}

static int behind_gate(struct mrs_txn *txn, int (*fn)(struct mrs_txn *txn, void *ctx), void *ctx)
{
	int rc = mrs_gate_close(txn->pool);

	if (rc)
		return rc;
	mrs_txn_repairing(true);
	rc = fn(txn, ctx);
	mrs_txn_repairing(false);
	mrs_gate_open(txn->pool);
	return rc;
}

int mrs_prop_behind_gate(struct mrs_txn *txn, int (*fn)(struct mrs_txn *txn, void *ctx), void *ctx)
{
	struct morsel_pool *pool = txn->pool;
	bool parked;
	int rc;

	if (mrs_txn_is_repairing())
		return fn(txn, ctx);
	parked = mrs_txn_park(pool);
	pthread_mutex_lock(&pool->reap_lock);
	/* A gate that a dead reaper left is opened by who finishes its repair. */
	if (mrs_gate_is_stuck(pool)) {
		pthread_mutex_unlock(&pool->reap_lock);
		mrs_reap_repair(pool);
		pthread_mutex_lock(&pool->reap_lock);
	}
	rc = behind_gate(txn, fn, ctx);
	pthread_mutex_unlock(&pool->reap_lock);
	mrs_txn_unpark(pool, parked);
	return rc;
}

/* Replaces the table seen by another. 0 also if somebody else did. */
static int grow(struct mrs_txn *txn, uint64_t seen)
{
	if (!mrs_txn_is_free(txn))
		return mrs_fail(-EAGAIN,
				"%s: the table of frame properties is full and cannot grow in the "
				"middle of another allocation",
				txn->pool->path);
	return mrs_prop_behind_gate(txn, rebuild_if_seen, &seen);
}

static bool is_crowded(struct morsel_pool *pool, const struct mrs_prop_lines *lines, unsigned more)
{
	return mrs_load_relaxed(taken_word(pool)) + more > 5 * (1ull << lines->order) / 8;
}

/* Grows ahead of need; that it could not is no harm yet, and is not tried again at once. */
static void grow_if_crowded(struct mrs_txn *txn, uint64_t table, unsigned more)
{
	uint64_t *again = &mrs_pool_state(txn->pool)->properties[2];
	struct mrs_prop_lines lines;
	uint64_t now, not_before;

	if (!lines_of(txn->pool, table, &lines) || !is_crowded(txn->pool, &lines, more) ||
	    !mrs_txn_is_free(txn))
		return;
	now = (uint64_t)mrs_now_ns();
	not_before = mrs_load_relaxed(again);
	if (not_before > now && not_before - now <= AGAIN_NS)
		return;
	mrs_store_relaxed(again, grow(txn, table) ? now + AGAIN_NS : 0);
}

static int reserve_lines(struct mrs_txn *txn, unsigned count)
{
	uint64_t table = mrs_load_acquire(table_word(txn->pool));
	int rc;

	if (!table) {
		rc = make_first(txn);
		if (rc)
			return rc;
		table = mrs_load_acquire(table_word(txn->pool));
	}
	grow_if_crowded(txn, table, count);
	return 0;
}

int mrs_prop_reserve(struct mrs_txn *txn, unsigned count)
{
	int rc = reserve_lines(txn, count);

	return rc ? rc : mrs_counts_reserve(txn);
}

/* ---- changing ---- */

/* Inside a transition nobody replaces the table. NULL if the frame's line is not there. */
static uint64_t *find_line(struct mrs_txn *txn, uint64_t frame, enum mrs_prop_kind kind)
{
	uint64_t table = mrs_load_acquire(table_word(txn->pool)), *end;
	struct mrs_prop_lines lines;

	if (!lines_of(txn->pool, table, &lines))
		return NULL;
	return mrs_prop_lines_find(&lines, mrs_prop_key(frame, kind), &end);
}

/* The line, made if need be: this may park the transition, before it is found. */
static int claim_line(struct mrs_txn *txn, uint64_t frame, enum mrs_prop_kind kind, uint64_t **line)
{
	int rc = reserve_lines(txn, 1);

	while (!rc) {
		uint64_t table = mrs_load_acquire(table_word(txn->pool));
		struct mrs_prop_lines lines;
		bool claimed;

		if (!lines_of(txn->pool, table, &lines))
			return damaged(txn->pool);
		*line = mrs_prop_lines_claim(&lines, mrs_prop_key(frame, kind), &claimed);
		if (claimed)
			mrs_fetch_add(taken_word(txn->pool), 1);
		MRS_PROBE("property.line.claimed");
		if (*line)
			return 0;
		rc = grow(txn, table);
	}
	return rc;
}

int mrs_prop_set(struct mrs_txn *txn, uint64_t frame, enum mrs_prop_kind kind,
		 const struct mrs_prop *prop)
{
	uint64_t *line = find_line(txn, frame, kind);
	int rc;

	MRS_CHECK(prop->value);
	if (kind == MRS_PROP_SHARES)
		return mrs_counts_set(txn, frame, prop->value);
	if (!line) {
		rc = claim_line(txn, frame, kind, &line);
		if (rc)
			return rc;
	}
	mrs_prop_line_set(line, frame, prop, NULL);
	MRS_PROBE("property.set");
	return 0;
}

static bool clear_count(struct mrs_txn *txn, uint64_t frame, struct mrs_prop *prop)
{
	struct mrs_prop former;

	if (!get_count(txn->pool, frame, &former))
		return false;
	mrs_counts_set(txn, frame, 0); /* cannot fail: it has memory */
	if (prop)
		*prop = former;
	return true;
}

bool mrs_prop_clear(struct mrs_txn *txn, uint64_t frame, enum mrs_prop_kind kind,
		    struct mrs_prop *prop)
{
	static const struct mrs_prop none;
	uint64_t *line = find_line(txn, frame, kind);
	bool was = line && mrs_prop_line_set(line, frame, &none, prop);

	if (kind == MRS_PROP_SHARES)
		return clear_count(txn, frame, prop);
	MRS_PROBE("property.cleared");
	return was;
}

int mrs_prop_add(struct mrs_txn *txn, uint64_t frame, enum mrs_prop_kind kind, int64_t delta,
		 uint64_t *now)
{
	MRS_CHECK(kind == MRS_PROP_SHARES);
	return mrs_counts_add(txn, frame, delta, now);
}

int mrs_prop_add_many(struct mrs_txn *txn, const uint64_t frames[], unsigned count,
		      enum mrs_prop_kind kind, int64_t delta, uint64_t now[], unsigned *done)
{
	MRS_CHECK(kind == MRS_PROP_SHARES);
	return mrs_counts_add_many(txn, frames, count, delta, now, done);
}

/* ---- looking at all of it ---- */

struct each {
	int (*fn)(void *ctx, uint64_t frame, enum mrs_prop_kind kind, const struct mrs_prop *prop);
	void *ctx;
};

static int each_of_line(uint64_t *line, enum mrs_prop_kind kind, const struct each *each)
{
	uint64_t first = (line[0] >> MRS_PROP_KIND_BITS) * MRS_PROP_PAIRS;
	int rc = 0;

	for (uint64_t i = first; i < first + MRS_PROP_PAIRS && !rc; i++) {
		struct mrs_prop prop;

		if (mrs_prop_line_get(line, i, &prop))
			rc = each->fn(each->ctx, i, kind, &prop);
	}
	return rc;
}

static int each_count(void *ctx, uint64_t frame, uint64_t count)
{
	struct mrs_prop prop = {.value = count};
	struct each *each = ctx;

	return each->fn(each->ctx, frame, MRS_PROP_SHARES, &prop);
}

static bool is_kind(uint64_t kind)
{
	return kind == MRS_PROP_SWAP || kind == MRS_PROP_DEPOSIT;
}

int mrs_prop_each(struct morsel_pool *pool,
		  int (*fn)(void *ctx, uint64_t frame, enum mrs_prop_kind kind,
			    const struct mrs_prop *prop),
		  void *ctx)
{
	struct each each = {.fn = fn, .ctx = ctx};
	struct mrs_prop_lines lines;
	int rc = mrs_counts_each(pool, each_count, &each);

	if (!lines_of(pool, mrs_load_acquire(table_word(pool)), &lines))
		return rc;
	for (uint64_t i = 0; i >> lines.order == 0 && !rc; i++) {
		uint64_t *line = mrs_prop_line(&lines, i);
		uint64_t kind = mrs_load_acquire(line) & MRS_PROP_KIND_MASK;

		if (is_kind(kind))
			rc = each_of_line(line, (enum mrs_prop_kind)kind, &each);
	}
	return rc;
}

void mrs_prop_owned(struct morsel_pool *pool,
		    void (*owned)(void *ctx, uint64_t frame, uint64_t count, const char *by),
		    void *ctx)
{
	uint64_t table = mrs_load_acquire(table_word(pool));
	struct mrs_prop_lines lines;

	if (lines_of(pool, table, &lines))
		owned(ctx, table_frame(table), 1ull << frames_order(lines.order),
		      "the table of frame properties");
	mrs_counts_owned(pool, owned, ctx);
}

struct validation {
	struct morsel_pool *pool;
	morsel_report_fn report;
	void *ctx;
	int findings;
};

static void finding(struct validation *v, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void finding(struct validation *v, const char *format, ...)
{
	char text[200];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	v->findings++;
	if (v->report)
		v->report(v->ctx, text);
}

static void count_finding(void *ctx, uint64_t frame, const char *what)
{
	finding(ctx, "frame properties: frame %" PRIu64 " %s", frame, what);
}

static void validate_line(struct validation *v, const struct mrs_prop_lines *lines, uint64_t *line)
{
	uint64_t kind = line[0] & MRS_PROP_KIND_MASK, *end, first;

	if (!is_kind(kind)) {
		finding(v, "frame properties: a line of unknown kind %" PRIu64, kind);
		return;
	}
	first = (line[0] >> MRS_PROP_KIND_BITS) * MRS_PROP_PAIRS;
	if (first >= v->pool->super.frames_max)
		finding(v, "frame properties: frame %" PRIu64 " is beyond the pool", first);
	/* Also finds a key that stands twice: the search ends at the first. */
	if (mrs_prop_lines_find(lines, line[0], &end) != line)
		finding(v, "frame properties: the line of frame %" PRIu64 " is not found", first);
}

int mrs_prop_validate(struct morsel_pool *pool, morsel_report_fn report, void *ctx)
{
	struct validation v = {.pool = pool, .report = report, .ctx = ctx};
	uint64_t table = mrs_load_acquire(table_word(pool));
	struct mrs_prop_lines lines;

	mrs_counts_validate(pool, count_finding, &v);
	if (!table)
		return v.findings;
	if (!lines_of(pool, table, &lines)) {
		finding(&v, "frame properties: the table's word 0x%" PRIx64 " is damaged", table);
		return v.findings;
	}
	for (uint64_t i = 0; i >> lines.order == 0; i++) {
		uint64_t *line = mrs_prop_line(&lines, i);

		if (i % BEAT_LINES == 0 && !pool->read_only)
			mrs_gate_beat(pool);
		if (line[0])
			validate_line(&v, &lines, line);
		else if (line[1] || !mrs_prop_line_is_empty(line))
			finding(&v, "frame properties: values in line %" PRIu64 ", which is free",
				i);
	}
	return v.findings;
}

void mrs_prop_repair(struct morsel_pool *pool)
{
	struct mrs_prop_lines lines;
	uint64_t taken = 0;

	mrs_counts_repair(pool);
	if (!lines_of(pool, mrs_load_acquire(table_word(pool)), &lines))
		return;
	for (uint64_t i = 0; i >> lines.order == 0; i++) {
		if (i % BEAT_LINES == 0)
			mrs_gate_beat(pool);
		taken += *mrs_prop_line(&lines, i) != 0;
	}
	mrs_store_release(taken_word(pool), taken);
}
