/*
 * The automatic evictor: keeps what is resident between the watermarks of the budget, and makes
 * room for who waits (evict_ask.c). A step of it is a tick, called by a thread of the pager.
 *
 * Victims: a clock over the evictable morsels, in chunks. In front of the hand, chunks lose their
 * translations in every process (DROP), which costs who uses them a minor fault; when the hand
 * comes to them the processes tell which pages are mapped again (SCAN). Those are spared, for one
 * round; of the others those go first that need not be written. Who does not answer does not count
 * as a user. When a whole round has gained nothing, the next one spares nothing.
 *
 *	       DROP					    SCAN, evict
 *	front hand -> [chunk][chunk] ... queue ... [chunk] -> hand
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "object/evict.h"
#include "object/internal.h"
#include "object/retarget.h"
#include "view/mailbox.h"
#include "view/registry.h"

#define CHUNK_MIN   64u
#define CHUNK_MAX   512u /* a SCAN speaks for 32 groups of it */
#define QUEUE	    32u	 /* chunks between the drop and the hand */
#define LIST	    256u
#define UNASKED_MAX 63u
#define TICK_PAGES  16384u	 /* evicted in one tick at most: who waits is told now and then */
#define LETTER_NS   20000000ll	 /* DROP and SCAN are hints: who is slow is left out */
#define SNUB_NS	    1000000000ll /* and not asked for so long */
#define SETTLE_NS   1000000ll	 /* between DROP and SCAN at least */
#define IDLE_NS	    100000000ll
#define BACK_OFF_NS 10000000ll
#define PATIENT_NS  100000000ll /* back-off while somebody waits for room */
#define LAZY_NS	    1000000000ll

struct chunk {
	mrs_cell record;
	uint64_t page, pages;
	int64_t dropped_ns; /* 0: it has no second chance */
	uint64_t round;	    /* of the front hand when it came there */
};

/* What a pager's thread remembers from tick to tick. All of it may be lost. */
struct clock {
	struct morsel_pool *pool;
	mrs_cell list[LIST]; /* evictable morsels of this part of the round */
	unsigned count, at;
	uint64_t listed; /* cell index + 1 of the last one listed */
	uint64_t page;	 /* front hand in list[at] */
	uint64_t rounds; /* of the front hand, completed */
	uint64_t gained; /* round of the chunk in which something was evicted last */
	/* What asking who is in use has told in this round, and from which round on it is done. */
	uint64_t judged, scanned, spared;
	uint64_t ask_from, unasked;
	struct chunk queue[QUEUE];
	unsigned first, queued;
	int64_t back_off_ns, tried_ns;
	struct mrs_slot_set snubbed;
	int64_t snub_end_ns;
};

/* ---- the front hand ---- */

static int list_record(void *ctx, mrs_cell cell, void *memory)
{
	struct mrs_cell_record *record = memory;
	struct clock *clock = ctx;
	uint64_t index = (uint32_t)cell, state = mrs_load_acquire(&record->state);

	if (index < clock->listed || !(mrs_flags_of(state) & MORSEL_EVICTABLE) ||
	    mrs_state_of(state) == MRS_RECORD_FREEING)
		return 0;
	clock->list[clock->count++] = cell;
	clock->listed = index + 1;
	return clock->count == LIST;
}

/* The next morsel; false if there is none in all of the pool. */
static bool next_record(struct clock *clock)
{
	clock->page = 0;
	if (++clock->at < clock->count)
		return true;
	for (unsigned i = 0; i < 2; i++) {
		clock->at = clock->count = 0;
		mrs_cell_each(mrs_pool_cells(clock->pool), MRS_CELL_RECORD, list_record, clock);
		if (clock->count)
			return true;
		/* Past the last one: the round is over. */
		clock->listed = 0;
		clock->rounds++;
	}
	return false;
}

/* MORSEL_ADVICE_DO_NOT_NEED has put the hand somewhere. */
static void follow_hand(struct clock *clock)
{
	mrs_cell record = mrs_swap(&mrs_pool_state(clock->pool)->evict_hand, 0);
	struct morsel morsel;

	if (!record || !mrs_handle_init(&morsel, clock->pool, record) ||
	    !mrs_morsel_coherence(&morsel))
		return;
	clock->list[0] = record;
	clock->count = 1;
	clock->at = 0;
	clock->page = mrs_load_acquire(&mrs_morsel_coherence(&morsel)->hand);
	clock->first = clock->queued = 0;
}

static uint64_t chunk_pages(struct morsel_pool *pool)
{
	uint64_t budget = mrs_load_relaxed(&mrs_pool_state(pool)->budget_frames) / 64;

	return mrs_round_down(mrs_min(mrs_max(budget, CHUNK_MIN), CHUNK_MAX), CHUNK_MIN);
}

static int find_content(void *ctx, const struct mrs_run *run)
{
	return run->mapped && mrs_pool_lacks(ctx, run->frame, run->pages) < run->pages;
}

/* Is any page of [page, end) mapped, with something in it? */
static bool has_resident(struct morsel *morsel, uint64_t page, uint64_t end)
{
	bool thin = mrs_load_relaxed(&morsel->record->state) & MRS_RECORD_THIN;
	struct mrs_leaf leaf;

	while (page < end) {
		if (mrs_table_leaf(&morsel->table, page, &leaf))
			return false;
		if (mrs_entry_state(leaf.entry) == MRS_ENTRY_MAPPED)
			return !thin || mrs_table_each_run(&morsel->table, page, end - page,
							   find_content, morsel->pool) == 1;
		page = leaf.page + (1ull << MRS_HUGE_ORDER * leaf.level);
	}
	return false;
}

/* The next chunk of the round with something in it; false if the pool has no evictable morsel. */
static bool next_chunk(struct clock *clock, struct chunk *chunk)
{
	uint64_t rounds = clock->rounds;
	struct morsel morsel;

	while (clock->rounds <= rounds + 1) {
		uint64_t end = 0, page, next;

		if (clock->at < clock->count &&
		    mrs_handle_init(&morsel, clock->pool, clock->list[clock->at]))
			end = mrs_morsel_pages(&morsel);
		while (clock->page < end) {
			page = clock->page;
			next = mrs_round_down(page, CHUNK_MIN) + chunk_pages(clock->pool);
			clock->page = next = mrs_min(next, end);
			*chunk = (struct chunk){.record = morsel.cell,
						.page = page,
						.pages = next - page,
						.round = clock->rounds};
			if (has_resident(&morsel, page, next))
				return true;
		}
		if (!next_record(clock))
			return false;
	}
	return false;
}

/* ---- second chance ---- */

struct viewers {
	struct clock *clock;
	struct mrs_slot_set who;
	unsigned count;
};

static int find_viewer(void *ctx, const struct mrs_seen_view *view)
{
	struct viewers *viewers = ctx;
	uint64_t bit = 1ull << view->slot % 64;

	if (!(view->flags & MRS_VIEW_CPU) || (viewers->clock->snubbed.bit[view->slot / 64] & bit))
		return 0;
	viewers->count += !(viewers->who.bit[view->slot / 64] & bit);
	viewers->who.bit[view->slot / 64] |= bit;
	return 0;
}

static void find_viewers(struct clock *clock, const struct chunk *chunk, struct viewers *viewers)
{
	uint64_t family = mrs_registry_family(clock->pool, chunk->record);

	*viewers = (struct viewers){.clock = clock};
	if (mrs_evict_now_ns() > clock->snub_end_ns)
		clock->snubbed = (struct mrs_slot_set){0};
	if (family)
		mrs_registry_each(clock->pool, family, chunk->page, chunk->page + chunk->pages,
				  find_viewer, viewers);
}

/* Who is silent is not asked again for a while, and does not count as a user. */
static uint32_t ask(struct clock *clock, const struct viewers *viewers, enum mrs_request_op op,
		    const struct chunk *chunk)
{
	struct mrs_slot_set silent = {0};
	uint32_t answer = 0;
	struct mrs_txn txn;
	int rc;

	if (mrs_txn_begin(clock->pool, MRS_INTENT_OTHER, &txn))
		return 0;
	rc = mrs_mail_ask_for(&txn, &viewers->who, op, chunk->record, chunk->page, chunk->pages, 0,
			      LETTER_NS, &silent, &answer);
	mrs_txn_end(&txn);
	if (rc == -ETIMEDOUT)
		clock->snub_end_ns = mrs_evict_now_ns() + SNUB_NS;
	for (size_t i = 0; rc == -ETIMEDOUT && i < mrs_array_length(silent.bit); i++)
		clock->snubbed.bit[i] |= silent.bit[i];
	return answer;
}

static bool has_second_chance(struct clock *clock, const struct chunk *chunk)
{
	const struct mrs_cell_coherence *coherence;
	struct morsel morsel;
	uint64_t advice;

	/* A whole round has gained nothing, or lately all was in use. */
	if (chunk->round > clock->gained + 1 || chunk->round < clock->ask_from ||
	    !mrs_handle_init(&morsel, clock->pool, chunk->record))
		return false;
	coherence = mrs_morsel_coherence(&morsel);
	advice = coherence ? mrs_load_relaxed(&coherence->advice) : 0;
	/*
	 * What a sequential reader has passed goes first; what nobody needs as well. Where all
	 * pages are used alike asking costs faults and tells nothing.
	 */
	return advice != MORSEL_ADVICE_SEQUENTIAL && advice != MORSEL_ADVICE_DO_NOT_NEED &&
	       advice != MORSEL_ADVICE_RANDOM;
}

static void drop_chunk(struct clock *clock, struct chunk *chunk)
{
	struct viewers viewers;

	if (!has_second_chance(clock, chunk))
		return;
	find_viewers(clock, chunk, &viewers);
	if (!viewers.count)
		return;
	ask(clock, &viewers, MRS_REQUEST_DROP, chunk);
	chunk->dropped_ns = mrs_evict_now_ns();
}

/* Which of its pages are mapped again: into spared, a bit each; how many. */
static uint64_t scan_chunk(struct clock *clock, const struct chunk *chunk, uint64_t *spared)
{
	uint64_t group = mrs_mail_group(chunk->pages), count = 0;
	struct viewers viewers;
	uint32_t groups;

	memset(spared, 0, CHUNK_MAX / 8);
	if (!chunk->dropped_ns)
		return 0;
	find_viewers(clock, chunk, &viewers);
	groups = viewers.count ? ask(clock, &viewers, MRS_REQUEST_SCAN, chunk) : 0;
	for (uint64_t i = 0; groups && i < chunk->pages; i++) {
		if (!(groups >> i / group & 1))
			continue;
		spared[i / 64] |= 1ull << i % 64;
		count++;
	}
	return count;
}

/* ---- the hand ---- */

/* Not further than once around: a chunk that is there twice has no time between DROP and SCAN. */
static void fill_queue(struct clock *clock)
{
	while (clock->queued < QUEUE) {
		struct chunk *chunk = &clock->queue[(clock->first + clock->queued) % QUEUE];

		if (clock->queued && clock->rounds > clock->queue[clock->first].round)
			return;
		if (!next_chunk(clock, chunk))
			return;
		drop_chunk(clock, chunk);
		clock->queued++;
	}
}

static void sleep_until(int64_t ns)
{
	int64_t left = ns - mrs_evict_now_ns();
	struct timespec time = {.tv_nsec = mrs_min(left, SETTLE_NS)};

	if (left > 0)
		nanosleep(&time, NULL);
}

/*
 * Where nearly all of a round was in use, asking costs faults and tells nothing: it is left out for
 * rounds, twice as many each time.
 */
static void judge_round(struct clock *clock, uint64_t round)
{
	if (round == clock->judged)
		return;
	if (clock->scanned && clock->spared >= clock->scanned - clock->scanned / 16) {
		clock->unasked = mrs_min(2 * clock->unasked + 1, UNASKED_MAX);
		clock->ask_from = round + clock->unasked;
	} else if (clock->scanned) {
		clock->unasked = 0;
	}
	clock->judged = round;
	clock->scanned = clock->spared = 0;
}

/* Evicts from one chunk what nobody uses, what is clean first; up to need pages of the rest. */
static uint64_t evict_chunk(struct clock *clock, const struct chunk *chunk, uint64_t need)
{
	uint64_t spared[CHUNK_MAX / 64], count;
	struct morsel morsel;
	struct mrs_evict_job job = {.morsel = &morsel,
				    .page = chunk->page,
				    .pages = chunk->pages,
				    .clean_only = need < chunk->pages,
				    .quiet = true,
				    .spared = spared};

	if (!mrs_handle_init(&morsel, clock->pool, chunk->record))
		return 0;
	if (chunk->dropped_ns)
		sleep_until(chunk->dropped_ns + SETTLE_NS);
	judge_round(clock, chunk->round);
	count = scan_chunk(clock, chunk, spared);
	clock->scanned += chunk->dropped_ns ? chunk->pages : 0;
	clock->spared += count;
	mrs_fetch_add(&mrs_pool_state(clock->pool)->count[MRS_COUNT_SECOND_CHANCE], count);
	mrs_evict_job(&job);
	if (job.clean_only && job.evicted < need) {
		uint64_t clean = job.evicted;

		job.clean_only = false;
		job.evicted = 0;
		mrs_evict_job(&job);
		job.evicted += clean;
	}
	return job.evicted;
}

static uint64_t evict_some(struct clock *clock, uint64_t need)
{
	uint64_t evicted = 0;

	follow_hand(clock);
	clock->gained = clock->rounds;
	while (evicted < mrs_min(need, TICK_PAGES)) {
		struct chunk chunk;
		uint64_t gained;

		fill_queue(clock);
		if (!clock->queued)
			break;
		chunk = clock->queue[clock->first];
		/* In the third round everything has been tried, and without mercy. */
		if (chunk.round > clock->gained + 2)
			break;
		clock->first = (clock->first + 1) % QUEUE;
		clock->queued--;
		gained = evict_chunk(clock, &chunk, need - evicted);
		evicted += gained;
		if (gained)
			clock->gained = chunk.round;
	}
	return evicted;
}

/* ---- the tick ---- */

static void sum_reserving(void *ctx, unsigned slot, struct mrs_slot *shared)
{
	*(uint64_t *)ctx += mrs_load_acquire(&shared->reserving);
}

/* How many pages must go, for the watermarks and for who waits. */
static uint64_t must_go(struct morsel_pool *pool, uint64_t wanted)
{
	uint64_t budget = mrs_load_acquire(&mrs_pool_state(pool)->budget_frames), low, high;
	uint64_t charged = mrs_pool_charged(pool), asked = charged + wanted, need = 0;

	if (!mrs_pool_watermarks(pool, &low, &high) || !budget)
		return 0;
	mrs_pool_each_slot(pool, sum_reserving, &asked);
	if (charged > high)
		need = charged - low;
	if (wanted && asked > budget)
		need = mrs_max(need, asked - budget);
	return need;
}

static struct clock *clock_for(struct morsel_pool *pool)
{
	struct clock *clock = mrs_thread_memory(MRS_THREAD_EVICTOR, sizeof(*clock));

	if (clock && clock->pool != pool)
		*clock = (struct clock){.pool = pool};
	return clock;
}

int64_t mrs_evictor_tick(struct morsel_pool *pool)
{
	struct mrs_state *state = mrs_pool_state(pool);
	struct clock *clock = clock_for(pool);
	int64_t now = mrs_evict_now_ns(), longest;
	uint64_t wanted, need, gained;

	if (!clock)
		return IDLE_NS;
	longest = mrs_load_acquire(&state->room_wanted) ? PATIENT_NS : LAZY_NS;
	if (now < clock->tried_ns + mrs_min(clock->back_off_ns, longest))
		return clock->tried_ns + mrs_min(clock->back_off_ns, longest) - now;
	/* Before the work: who asks during it rings for another tick. */
	wanted = mrs_swap(&state->room_wanted, 0);
	need = must_go(pool, wanted);
	mrs_pool_may_exceed(true);
	gained = need ? evict_some(clock, need) : 0;
	mrs_pool_may_exceed(false);
	MRS_PROBE("evictor.tick");
	if (need || wanted)
		mrs_evict_ring(&state->room_done);
	if (!need || gained) {
		clock->back_off_ns = 0;
		return gained < need ? 0 : IDLE_NS;
	}
	/* Nothing can go: what that took is spent in rest twenty times over. */
	clock->back_off_ns = mrs_max(2 * clock->back_off_ns, BACK_OFF_NS);
	clock->back_off_ns = mrs_max(clock->back_off_ns, 20 * (mrs_evict_now_ns() - now));
	clock->back_off_ns = mrs_min(clock->back_off_ns, LAZY_NS);
	clock->tried_ns = mrs_evict_now_ns();
	return mrs_min(clock->back_off_ns, longest);
}
