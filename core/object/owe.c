/*
 * Links that go: named from before they are gone until they are given up, and what was linked by
 * nobody else then is taken apart.
 *
 *  1. The intent says which frame (a table's, or pages') is owed. While it does, this counts as a
 *     link, and what is below a table as reached: for who counts all links while the owner is
 *     parked.
 *
 *  2. Alive, the owner gives the link up, and either others have the frame, or he takes it apart:
 *     the links of a table go one by one, and what this was the last link of goes with them.
 *
 *  3. After his death nothing but the tables tells how far he was. If they, and what others owe,
 *     have links to the frame, it is theirs. If not, another owner may have given up his own link
 *     in the meantime, and left the frame to the dead: so the repair takes it apart, links counted
 *     anew.
 *
 *  4. Somebody who came by another owner's way may be in the middle of a retarget in a table that
 *     nobody links any more. Alive, the owner waits for him (grace). A repair cannot: it leaves all
 *     as it is, and comes again.
 */
#include "object/break.h"
#include "object/internal.h"
#include "pool/property.h"

#define ENTRIES	    512u
#define OWED_TABLE  (1ull << 62)
#define ORDER_SHIFT 48

void mrs_share_owe(struct mrs_txn *txn, unsigned order, uint64_t frame, bool is_table)
{
	mrs_store_release(&txn->intent->expected, frame | (uint64_t)order << ORDER_SHIFT |
							  (is_table ? OWED_TABLE : 0) |
							  MRS_BREAK_NOTE);
	mrs_compiler_barrier();
}

void mrs_share_owe_nothing(struct mrs_txn *txn)
{
	mrs_compiler_barrier();
	mrs_store_release(&txn->intent->expected, 0);
}

bool mrs_share_owed(const struct mrs_intent *intent, struct mrs_owed *owed)
{
	uint64_t word = mrs_load_acquire(&intent->expected);

	*owed = (struct mrs_owed){
		.frame = word & MRS_ENTRY_FRAME_MASK,
		.order = word >> ORDER_SHIFT & 31,
		.is_table = word & OWED_TABLE,
	};
	return word & MRS_BREAK_NOTE;
}

bool mrs_share_owes(const struct mrs_txn *txn)
{
	return mrs_load_acquire(&txn->intent->expected) & MRS_BREAK_NOTE;
}

/* ---- who else ---- */

struct each {
	int (*fn)(void *ctx, uint64_t frame, uint64_t count, const char *by);
	void *ctx;
	int rc;
};

static void each_slot(void *ctx, unsigned slot, struct mrs_slot *shared)
{
	struct each *each = ctx;

	for (unsigned i = 0; i < MRS_INTENTS_PER_SLOT && !each->rc; i++) {
		const struct mrs_intent *intent = &shared->intent[i];
		uint64_t table = mrs_share_split_table(intent);
		struct mrs_owed owed;

		if (mrs_load_acquire32(&intent->op) == MRS_INTENT_NONE)
			continue;
		if (mrs_share_owed(intent, &owed))
			each->rc = each->fn(each->ctx, owed.frame, 1ull << owed.order, "a break");
		if (table && !each->rc)
			each->rc = each->fn(each->ctx, table, 1, "a split");
	}
}

int mrs_share_each_owed(struct morsel_pool *pool,
			int (*fn)(void *ctx, uint64_t frame, uint64_t count, const char *by),
			void *ctx)
{
	struct each each = {.fn = fn, .ctx = ctx};

	mrs_pool_each_slot(pool, each_slot, &each);
	return each.rc;
}

/* ---- taking apart ---- */

struct bury {
	struct mrs_txn *txn;
	bool (*is_last)(void *ctx, uint64_t frame);
	void *ctx;
};

static void bury_links(const struct bury *bury, uint64_t table);

/* What place links is linked nowhere else. The entry names it until the put does. */
static void bury_link(const struct bury *bury, uint64_t *place, uint64_t entry)
{
	struct mrs_txn *txn = bury->txn;
	uint64_t frame = mrs_entry_frame(entry);
	unsigned order = 0;

	if (mrs_entry_state(entry) == MRS_ENTRY_TABLE) {
		bury_links(bury, frame);
	} else {
		order = MRS_HUGE_ORDER * mrs_entry_level(entry);
		mrs_place_forget(txn, frame, order);
	}
	mrs_pool_unback(txn->pool, frame, 1ull << order);
	mrs_txn_put_begin(txn, order, frame);
	MRS_PROBE("owe.bury.named");
	mrs_store_release(place, 0);
	mrs_txn_put_end(txn);
}

static void bury_links(const struct bury *bury, uint64_t table)
{
	uint64_t *entries = mrs_object_table_ops.at(bury->txn->pool, table);

	for (unsigned i = 0; entries && i < ENTRIES; i++) {
		uint64_t entry = mrs_load_acquire(&entries[i]);

		switch (mrs_entry_state(entry)) {
		case MRS_ENTRY_EMPTY:
		case MRS_ENTRY_STALE:
			break;
		default:
			if (bury->is_last(bury->ctx, mrs_entry_frame(entry)))
				bury_link(bury, &entries[i], entry);
			else
				mrs_store_release(&entries[i], 0);
			MRS_PROBE("owe.buried.link");
		}
	}
}

void mrs_share_bury_owed(struct mrs_txn *txn, bool (*is_last)(void *ctx, uint64_t frame), void *ctx)
{
	struct bury bury = {.txn = txn, .is_last = is_last, .ctx = ctx};
	struct mrs_owed owed;

	if (!mrs_share_owed(txn->intent, &owed))
		return;
	mrs_txn_put_cancel(txn); /* it is owed: named twice */
	if (owed.is_table)
		bury_links(&bury, owed.frame);
	else
		mrs_place_forget(txn, owed.frame, owed.order);
	mrs_pool_unback(txn->pool, owed.frame, 1ull << owed.order);
	mrs_txn_put_begin(txn, owed.order, owed.frame);
	MRS_PROBE("owe.bury.last");
	mrs_share_owe_nothing(txn);
	mrs_txn_put_end(txn);
	MRS_PROBE("owe.buried");
}

static bool give_up(void *ctx, uint64_t frame)
{
	return mrs_share_drop(ctx, frame);
}

void mrs_share_bury(struct mrs_txn *txn)
{
	mrs_share_bury_owed(txn, give_up, txn);
}
