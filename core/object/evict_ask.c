/*
 * Asking for eviction, from any process: by advice, which goes to the pager by mail; and for room
 * below the budget, which goes through two words of the pool's state and a bell, without mail or a
 * transition, for who asks may be a fault in a signal handler.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "object/evict.h"
#include "object/internal.h"
#include "object/move.h"
#include "object/retarget.h"
#include "view/mailbox.h"
#include "view/pager.h"
#include "view/registry.h"

/* ---- room ---- */

#define ASK_NS	  20000000ll   /* one sleep of who waits for room */
#define STALL_NS  5000000000ll /* a pager that does nothing for so long is none */
#define FRUITLESS 3u	       /* rounds of the evictor that gained nothing */

int64_t mrs_evict_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ll + now.tv_nsec;
}

void mrs_evict_ring(uint32_t *bell)
{
	mrs_fetch_add32(bell, 1);
	syscall(SYS_futex, bell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static void sleep_on(uint32_t *bell, uint32_t seen, int64_t ns)
{
	struct timespec time = {.tv_sec = ns / 1000000000ll, .tv_nsec = ns % 1000000000ll};

	syscall(SYS_futex, bell, FUTEX_WAIT, seen, &time, NULL, 0);
}

uint32_t *mrs_evictor_bell(struct morsel_pool *pool)
{
	return &mrs_pool_state(pool)->room_bell;
}

static void want_room(struct mrs_state *state, uint64_t frames)
{
	uint64_t wanted = mrs_load_relaxed(&state->room_wanted);

	while (wanted < mrs_max(frames, 1) &&
	       !mrs_cas(&state->room_wanted, &wanted, mrs_max(frames, 1)))
		;
	mrs_evict_ring(&state->room_bell);
}

/* Rings until the frames fit, the evictor gains nothing any more, or nobody answers in time. */
static int wait_for_room(struct morsel_pool *pool, uint64_t frames, int64_t ns)
{
	struct mrs_state *state = mrs_pool_state(pool);
	int64_t end = mrs_evict_now_ns() + ns, heard = mrs_evict_now_ns();
	uint64_t least = UINT64_MAX;
	unsigned fruitless = 0;

	for (;;) {
		uint32_t done = mrs_load_acquire32(&state->room_done);
		uint64_t resident;

		want_room(state, frames);
		sleep_on(&state->room_done, done, mrs_min(ASK_NS, ns));
		if (mrs_pool_fits(pool, frames))
			return 0;
		resident = mrs_pool_charged(pool);
		if (mrs_load_acquire32(&state->room_done) != done) {
			heard = mrs_evict_now_ns();
			fruitless = resident < least ? 0 : fruitless + 1;
			least = mrs_min(least, resident);
		}
		if (fruitless == FRUITLESS || mrs_evict_now_ns() > end ||
		    mrs_evict_now_ns() - heard > STALL_NS)
			return -ENOSPC;
	}
}

int mrs_evict_make_room(struct morsel_pool *pool, uint64_t frames, int64_t ns)
{
	struct mrs_state *state = mrs_pool_state(pool);
	bool parked;
	int rc;

	if (mrs_pool_fits(pool, frames))
		return 0;
	if (frames > mrs_load_relaxed(&state->budget_frames) || !mrs_load_acquire(&state->pager))
		return -ENOSPC;
	MRS_PROBE("evict.room.asked");
	parked = mrs_txn_park(pool);
	rc = wait_for_room(pool, frames, ns);
	mrs_txn_unpark(pool, parked);
	return rc;
}

int mrs_evict_room_for(struct morsel_pool *pool, uint64_t frames, int64_t ns)
{
	bool parked;
	int rc;

	/* Without a swap target hardly anything could go. */
	if (!mrs_load_acquire(&mrs_pool_state(pool)->swap_table))
		return -ENOSPC;
	parked = mrs_txn_park(pool);
	rc = mrs_pager_ensure(pool);
	if (!rc)
		rc = mrs_evict_make_room(pool, frames, ns);
	mrs_txn_unpark(pool, parked);
	return rc ? -ENOSPC : 0;
}

/* ---- what stays ---- */

struct stays {
	struct morsel_pool *pool;
	struct mrs_pool_stays *sum;
	uint64_t promised; /* pinned, and not there: being brought in */
};

static uint64_t pages_in_state(struct morsel *morsel, uint64_t page, uint64_t end,
			       enum mrs_entry_state state)
{
	uint64_t count = 0;
	struct mrs_leaf leaf;

	while (page < end && !mrs_table_leaf(&morsel->table, page, &leaf)) {
		uint64_t next = leaf.page + (1ull << MRS_HUGE_ORDER * leaf.level);

		next = mrs_min(mrs_max(next, page + 1), end);
		count += mrs_entry_state(leaf.entry) == state ? next - page : 0;
		page = next;
	}
	return count;
}

/* Of pages [page, end), halved until they are pinned as a whole, or by nobody. */
static uint64_t pinned_pages(struct morsel *morsel, uint64_t family, uint64_t page, uint64_t end,
			     enum mrs_entry_state state)
{
	uint64_t middle = page + (end - page) / 2;
	struct mrs_seen_view by;
	struct mrs_pin pin;

	if (!mrs_registry_pinned(morsel->pool, family, page, end, &by, &pin))
		return 0;
	if (middle == page || (pin.first_plus_1 - 1 <= page && pin.end >= end))
		return pages_in_state(morsel, page, end, state);
	return pinned_pages(morsel, family, page, middle, state) +
	       pinned_pages(morsel, family, middle, end, state);
}

static int add_stays(void *ctx, mrs_cell cell, void *memory)
{
	struct stays *stays = ctx;
	struct morsel morsel;
	uint64_t end, family, mapped, pinned = 0;

	if (!mrs_handle_init(&morsel, stays->pool, cell) || !mrs_morsel_is_evictable(&morsel))
		return 0;
	end = mrs_morsel_pages(&morsel);
	mapped = pages_in_state(&morsel, 0, end, MRS_ENTRY_MAPPED);
	if (mrs_morsel_coherence(&morsel)) {
		family = mrs_morsel_coherence(&morsel)->family;
		pinned = pinned_pages(&morsel, family, 0, end, MRS_ENTRY_MAPPED);
		stays->promised += pinned_pages(&morsel, family, 0, end, MRS_ENTRY_EVICTED);
	}
	stays->sum->pinned += pinned;
	stays->sum->evictable += mapped - mrs_min(pinned, mapped);
	return 0;
}

static uint64_t add_all_stays(struct morsel_pool *pool, struct mrs_pool_stays *sum)
{
	struct stays stays = {.pool = pool, .sum = sum};

	*sum = (struct mrs_pool_stays){0};
	mrs_cell_each(mrs_pool_cells(pool), MRS_CELL_RECORD, add_stays, &stays);
	return stays.promised;
}

void mrs_evict_stays(struct morsel_pool *pool, struct mrs_pool_stays *sum)
{
	add_all_stays(pool, sum);
}

/* ---- what may be pinned ---- */

static int pins_too_much(struct morsel_pool *pool, uint64_t pages, const struct mrs_pool_stays *sum,
			 uint64_t promised, uint64_t others)
{
	uint64_t budget = mrs_load_relaxed(&mrs_pool_state(pool)->budget_frames);
	uint64_t pinned = sum->pinned + promised;
	char text[4][16];

	return mrs_fail(
		-ENOSPC,
		"with a grant of %s there would be %s pinned by grants, and %s that cannot be "
		"evicted, in %s with a budget of %s: release grants (morsel_release), grant less "
		"at a time, or raise the budget (morsel pool budget)",
		mrs_bytes_text(pages * MRS_PAGE_BYTES, text[0]),
		mrs_bytes_text(pinned * MRS_PAGE_BYTES, text[1]),
		mrs_bytes_text(others * MRS_PAGE_BYTES, text[2]), mrs_pool_path(pool),
		mrs_bytes_text(budget * MRS_PAGE_BYTES, text[3]));
}

int mrs_evict_may_pin(struct morsel *morsel, uint64_t page, uint64_t pages)
{
	struct morsel_pool *pool = morsel->pool;
	uint64_t budget = mrs_load_acquire(&mrs_pool_state(pool)->budget_frames);
	uint64_t promised, charged, evictable, others;
	struct mrs_pool_stays sum;

	if (!budget || !mrs_morsel_is_evictable(morsel) || mrs_pool_fits(pool, pages) ||
	    mrs_pool_fits(pool, pages_in_state(morsel, page, page + pages, MRS_ENTRY_EVICTED)))
		return 0;
	promised = add_all_stays(pool, &sum);
	charged = mrs_pool_charged(pool);
	evictable = mrs_min(sum.evictable + sum.pinned, charged);
	others = charged - evictable;
	if (others + sum.pinned + promised <= budget)
		return 0;
	return pins_too_much(pool, pages, &sum, promised, others);
}

/* ---- asked for: by advice, through the pager ---- */

/* What one letter asks for, and how long it may take. */
#define LETTER_PAGES 8192u
#define LETTER_NS    10000000000ll
#define CONNECT_NS   3000000000ll
#define CONNECT_STEP 5000000l
#define BUSY_TRIES   20u

int mrs_evict_serve(struct morsel_pool *pool, uint32_t op, uint64_t record, uint64_t first,
		    uint64_t count, uint64_t *arg)
{
	struct morsel morsel;
	struct mrs_evict_job job = {
		.morsel = &morsel, .page = first, .pages = count, .quiet = true};
	int rc;

	if (op == MRS_REQUEST_ROOM) {
		want_room(mrs_pool_state(pool), count);
		return 0;
	}
	if (op != MRS_REQUEST_EVICT && op != MRS_REQUEST_MOVE)
		return -EOPNOTSUPP;
	if (!mrs_handle_init(&morsel, pool, record))
		return -ENOENT;
	if (op == MRS_REQUEST_MOVE)
		return mrs_move_here(&morsel, first, count, *arg);
	mrs_pool_may_exceed(true);
	rc = mrs_evict_job(&job);
	mrs_pool_may_exceed(false);
	*arg = job.evicted;
	return rc;
}

/* The asker's words for what the pager answered with a bare number. */
static int explain(struct morsel *morsel, int rc, uint64_t page, uint64_t pages)
{
	struct morsel_pool *pool = morsel->pool;
	struct mrs_seen_view by;
	struct mrs_pin pin;

	switch (rc) {
	case -EBUSY:
		if (mrs_registry_pinned(pool, mrs_morsel_coherence(morsel)->family, page,
					page + pages, &by, &pin))
			return mrs_evict_pinned(pool, &by, &pin);
		return mrs_fail(rc, "a grant held the pages a moment ago: try again");
	case -ENODEV:
		return mrs_fail(rc, "%s has no swap target: add one with `morsel swap add`",
				mrs_pool_path(pool));
	case -ENOSPC:
		return mrs_fail(rc,
				"every swap target of %s is full: add one with `morsel swap add`",
				mrs_pool_path(pool));
	case -EIO:
		return mrs_fail(rc,
				"a swap target of %s failed: `morsel swap list` tells which; add "
				"another with `morsel swap add`",
				mrs_pool_path(pool));
	case -EAGAIN:
		return mrs_fail(rc,
				"the pager of %s lacks the userfaultfd descriptor of a process "
				"with a writable view: try again, or end that process",
				mrs_pool_path(pool));
	case -ETIMEDOUT:
		return mrs_fail(rc, "the pager of %s, or a swap target, was too slow: try again",
				mrs_pool_path(pool));
	default:
		return mrs_fail_errno(rc, "the pager of %s refused", mrs_pool_path(pool));
	}
}

/* One letter to the pager. -EOWNERDEAD without words: it died, or gave up the office, meanwhile. */
static int ask_pager(struct morsel *morsel, uint64_t page, uint64_t pages, uint64_t *evicted)
{
	struct morsel_pool *pool = morsel->pool;
	unsigned pager = mrs_pager_slot(pool);
	struct mrs_slot_set who = {0};
	uint64_t generation;
	uint32_t answer = 0;
	struct mrs_txn txn;
	int rc;

	if (pager >= MRS_SLOTS)
		return -EOWNERDEAD;
	generation = mrs_pool_slot_generation(pool, pager);
	mrs_slot_set_add(&who, pager);
	rc = mrs_txn_begin(pool, MRS_INTENT_OTHER, &txn);
	if (rc)
		return rc;
	rc = mrs_mail_ask_for(&txn, &who, MRS_REQUEST_EVICT, morsel->cell, page, pages, 0,
			      LETTER_NS, NULL, &answer);
	*evicted = answer;
	mrs_txn_end(&txn);
	if (!rc && !*evicted &&
	    (mrs_pager_slot(pool) != pager || mrs_pool_slot_generation(pool, pager) != generation))
		return -EOWNERDEAD;
	return rc && rc != -ETIMEDOUT ? explain(morsel, rc, page, pages) : rc;
}

static int evict_piece(struct morsel *morsel, uint64_t page, uint64_t pages, uint64_t *evicted)
{
	struct timespec step = {.tv_nsec = CONNECT_STEP};
	int64_t end = mrs_evict_now_ns() + CONNECT_NS;
	int rc;

	for (;;) {
		*evicted = 0;
		rc = mrs_pager_ensure(morsel->pool);
		if (rc)
			return rc;
		rc = mrs_pager_is_self(morsel->pool)
			     ? mrs_evict_range(morsel, page, pages, false, evicted)
			     : ask_pager(morsel, page, pages, evicted);
		/* A new pager gets everyone's descriptors within moments. */
		if ((rc != -EAGAIN && rc != -EOWNERDEAD) || mrs_evict_now_ns() > end)
			break;
		nanosleep(&step, NULL);
	}
	return rc == -EOWNERDEAD ? mrs_fail(-EAGAIN, "%s has no pager that stays alive: try again",
					    mrs_pool_path(morsel->pool))
				 : rc;
}

/* Has somebody locked a page of it, a fault for instance? It was passed by. */
static bool is_busy(struct morsel *morsel, uint64_t page, uint64_t end)
{
	struct mrs_leaf leaf;

	while (page < end && !mrs_table_leaf(&morsel->table, page, &leaf)) {
		if (leaf.place && mrs_entry_lock(leaf.entry))
			return true;
		page = mrs_max(leaf.page + (1ull << MRS_HUGE_ORDER * leaf.level), page + 1);
	}
	return false;
}

/* The same as evict_piece(), and what was locked for a moment once more. */
static int evict_patiently(struct morsel *morsel, uint64_t page, uint64_t pages, uint64_t *evicted)
{
	struct timespec step = {.tv_nsec = CONNECT_STEP};
	uint64_t more = 0;
	int rc = evict_piece(morsel, page, pages, evicted);

	for (unsigned i = 0; !rc && *evicted + more < pages && i < BUSY_TRIES; i++) {
		uint64_t again = 0;

		if (!is_busy(morsel, page, page + pages))
			break;
		nanosleep(&step, NULL);
		rc = evict_piece(morsel, page, pages, &again);
		more += again;
	}
	*evicted += more;
	return *evicted ? 0 : rc;
}

int mrs_evict(struct morsel *morsel, uint64_t page, uint64_t pages, uint64_t *evicted)
{
	uint64_t total = 0;
	int rc = mrs_evict_check(morsel), first = 0;

	for (uint64_t at = page; !rc && at < page + pages; at += LETTER_PAGES) {
		uint64_t piece = 0;
		int said = evict_patiently(morsel, at, mrs_min(page + pages - at, LETTER_PAGES),
					   &piece);

		total += piece;
		/* What is pinned in one piece is no reason to leave the others. */
		if (said == -EBUSY && !first)
			first = said;
		else if (said && said != -EBUSY)
			rc = said;
	}
	if (!rc && first && !total)
		rc = explain(morsel, first, page, pages);
	if (!rc)
		*evicted = total;
	return rc;
}
