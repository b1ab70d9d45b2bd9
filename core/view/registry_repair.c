/*
 * The registry after a death, at close, and under morsel_pool_check(): cells that hang in a chain,
 * or are on their way into it or out of it.
 *
 * A cell enters and leaves a chain inside a transition that names it, its slot, and for pins the
 * view. What is named and in no chain goes back; what is in its chain stays. The pins of a view go
 * before the view does, so that a VIEW cell in no chain has none.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/atomic.h"
#include "base/base.h"
#include "base/probe.h"
#include "object/object.h"
#include "view/registry.h"

static enum mrs_cell_kind kind_of(enum mrs_chain chain)
{
	return chain == MRS_CHAIN_VIEW ? MRS_CELL_VIEW : MRS_CELL_PIN;
}

/* The word after the header of a cell in a chain: its successor. NULL at the end, or at damage. */
static uint64_t *more_of(struct morsel_pool *pool, enum mrs_chain chain, mrs_cell cell)
{
	uint64_t *words = cell ? mrs_cell_at(mrs_pool_cells(pool), cell, kind_of(chain)) : NULL;

	return words ? &words[1] : NULL;
}

/* ---- taking a chain apart ---- */

/* Takes the first cell of the chain out and frees it; false if there was none. */
static bool pop(struct morsel_pool *pool, unsigned slot, enum mrs_chain chain, mrs_cell owner,
		uint64_t *head)
{
	mrs_cell cell = mrs_load_acquire(head);
	struct mrs_txn txn;
	uint64_t *more;

	if (!cell || mrs_txn_begin_patiently(pool, MRS_INTENT_OTHER, &txn))
		return false;
	mrs_store_release(&txn.intent->arg[0], slot + 1);
	mrs_store_release(&txn.intent->arg[1], owner);
	mrs_store_release32(&txn.intent->step, chain);
	mrs_store_release(&txn.intent->cell[0], cell);
	more = more_of(pool, chain, cell);
	mrs_store_release(head, more ? mrs_load_acquire(more) : 0);
	MRS_PROBE("registry.chain.unlinked");
	if (more)
		mrs_cell_put(mrs_pool_cells(pool), cell);
	MRS_PROBE("registry.chain.freed");
	mrs_txn_end(&txn);
	return true;
}

void mrs_registry_drop_slot(struct morsel_pool *pool, unsigned slot)
{
	struct mrs_slot *shared = mrs_pool_slot(pool, slot);
	uint64_t bound = mrs_load_relaxed(&mrs_pool_state(pool)->cells_high);
	mrs_cell cell;

	if (!mrs_load_acquire(&shared->views))
		return;
	while ((cell = mrs_load_acquire(&shared->views)) && bound--) {
		struct mrs_cell_view *view = mrs_cell_at(mrs_pool_cells(pool), cell, MRS_CELL_VIEW);

		while (view && bound && pop(pool, slot, MRS_CHAIN_PIN, cell, &view->pin_more))
			bound--;
		if (!pop(pool, slot, MRS_CHAIN_VIEW, 0, &shared->views))
			break;
	}
	mrs_store_release(&shared->pins, 0);
	mrs_fetch_add(&mrs_pool_state(pool)->registry, 1);
	MRS_PROBE("registry.dropped");
}

/* ---- repair ---- */

static bool is_in_chain(struct morsel_pool *pool, enum mrs_chain chain, uint64_t *head,
			mrs_cell cell)
{
	uint64_t bound = mrs_load_relaxed(&mrs_pool_state(pool)->cells_high);

	for (uint64_t *at = head; at && bound--;) {
		mrs_cell next = mrs_load_acquire(at);

		if (next == cell)
			return true;
		at = more_of(pool, chain, next);
	}
	return false;
}

void mrs_registry_repair(struct mrs_txn *txn)
{
	struct mrs_cells *cells = mrs_pool_cells(txn->pool);
	enum mrs_chain chain = (enum mrs_chain)mrs_load_acquire32(&txn->intent->step);
	uint64_t slot = txn->intent->arg[0] - 1;
	mrs_cell named = txn->intent->cell[0];
	uint64_t *head = NULL;

	if (!named || slot >= MRS_SLOTS)
		return;
	if (mrs_cell_at(cells, named, MRS_CELL_CLAIMED)) {
		mrs_cell_put(cells, named);
		return;
	}
	if (chain == MRS_CHAIN_VIEW) {
		head = &mrs_pool_slot(txn->pool, slot)->views;
	} else {
		struct mrs_cell_view *owner =
			mrs_cell_at(cells, txn->intent->arg[1], MRS_CELL_VIEW);

		head = owner ? &owner->pin_more : NULL;
	}
	if (mrs_cell_at(cells, named, kind_of(chain)) &&
	    !(head && is_in_chain(txn->pool, chain, head, named)))
		mrs_cell_put(cells, named);
	MRS_PROBE("registry.repaired");
}

/* ---- check ---- */

struct check {
	struct morsel_pool *pool;
	morsel_report_fn report;
	void *ctx;
	uint64_t high;
	unsigned char *met; /* a bit per cell */
	unsigned slot;
};

static void finding(struct check *check, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void finding(struct check *check, const char *format, ...)
{
	char text[200];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	check->report(check->ctx, text);
}

static uint64_t index_of(mrs_cell cell)
{
	return cell & UINT32_MAX;
}

/* False if the cell was met before: then the chain is not followed further. */
static bool meet(struct check *check, mrs_cell cell, const char *what)
{
	uint64_t index = index_of(cell);

	if (index >= check->high)
		return false;
	if (check->met[index / 8] >> index % 8 & 1) {
		finding(check, "views of slot %u: cell %llu, a %s, hangs in two chains",
			check->slot, (unsigned long long)index, what);
		return false;
	}
	check->met[index / 8] |= (unsigned char)(1u << index % 8);
	return true;
}

static void check_pins(struct check *check, struct mrs_cell_view *view)
{
	uint64_t *more = &view->pin_more;
	mrs_cell cell;

	while (more && (cell = mrs_load_acquire(more))) {
		more = more_of(check->pool, MRS_CHAIN_PIN, cell);
		if (!more)
			finding(check, "views of slot %u: a chain of pins leads nowhere",
				check->slot);
		else if (!meet(check, cell, "pin"))
			return;
	}
}

static void check_view(struct check *check, struct mrs_cell_view *view)
{
	uint64_t record = mrs_load_acquire(&view->record);

	check_pins(check, view);
	if (record && !mrs_cell_at(mrs_pool_cells(check->pool), record, MRS_CELL_RECORD))
		finding(check, "views of slot %u: one is of a morsel that is not there",
			check->slot);
}

static void check_slot(void *ctx, unsigned slot, struct mrs_slot *shared)
{
	struct check *check = ctx;
	uint64_t *more = &shared->views;
	mrs_cell cell;

	check->slot = slot;
	while (more && (cell = mrs_load_acquire(more))) {
		more = more_of(check->pool, MRS_CHAIN_VIEW, cell);
		if (!more)
			finding(check, "views of slot %u: their chain leads nowhere", slot);
		else if (!meet(check, cell, "view"))
			return;
		else
			check_view(check,
				   mrs_cell_at(mrs_pool_cells(check->pool), cell, MRS_CELL_VIEW));
	}
}

static int check_met(void *ctx, mrs_cell cell, void *memory)
{
	struct check *check = ctx;
	uint64_t index = index_of(cell);

	if (index < check->high && !(check->met[index / 8] >> index % 8 & 1))
		finding(check, "cells: cell %llu, of a view or its pins, hangs in no slot",
			(unsigned long long)index);
	return 0;
}

void mrs_registry_validate(struct morsel_pool *pool, morsel_report_fn report, void *ctx)
{
	struct check check = {
		.pool = pool,
		.report = report,
		.ctx = ctx,
		.high = mrs_load_acquire(&mrs_pool_state(pool)->cells_high),
	};

	check.high = mrs_min(check.high, 1ull << 31);
	check.met = calloc(check.high / 8 + 1, 1);
	if (!check.met) {
		finding(&check, "views: no memory to check them with");
		return;
	}
	mrs_pool_each_slot(pool, check_slot, &check);
	mrs_cell_each(mrs_pool_cells(pool), MRS_CELL_VIEW, check_met, &check);
	mrs_cell_each(mrs_pool_cells(pool), MRS_CELL_PIN, check_met, &check);
	free(check.met);
}
