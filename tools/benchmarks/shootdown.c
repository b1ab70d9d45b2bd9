/*
 * bench_shootdown: what it costs to make other processes forget a page, by mail.
 *
 * Measures a room from within: one request to every process that maps the morsel (drop the
 * translation of one page), from asking to knowing that all have. Each process has just touched the
 * page. With 16 processes the time is divided by 16: they are asked together, and awaited together.
 */
#include "bench.h"
#include "herd.h"

#include <stdio.h>
#include <string.h>

#include <morsel/morsel.h>

#include "object/object.h"
#include "view/mailbox.h"

#define ROUNDS	   50u
#define TIMEOUT_NS 10000000000ll

struct side {
	struct morsel_pool *pool;
	struct morsel *morsel;
	struct herd herd;
};

static void start(struct side *side, unsigned processes)
{
	struct morsel_pool_opts pool_opts = {.size = sizeof(pool_opts),
					     .flags = MORSEL_POOL_CREATE};
	struct morsel_opts opts = {.size = sizeof(opts),
				   .flags = MORSEL_CREATE | MORSEL_EVICTABLE,
				   .bytes = BENCH_MIB};
	struct herd_object object = {.name = "object", .bytes = BENCH_MIB};

	if (morsel_pool_open(NULL, &pool_opts, &side->pool) ||
	    morsel_open(side->pool, object.name, &opts, &side->morsel))
		bench_die("%s", morsel_errormsg());
	object.fd = morsel_pool_fd(side->pool);
	herd_start(&side->herd, processes, &object);
}

static void end(struct side *side)
{
	herd_end(&side->herd);
	morsel_close(side->morsel);
	morsel_pool_close(side->pool);
}

/* us for each process. */
static double sample(struct side *side)
{
	struct mrs_slot_set who = {0};
	uint64_t ns = 0, begun;
	struct mrs_txn txn;
	unsigned i;

	mrs_mail_viewers(side->pool, side->morsel->cell, 0, mrs_pool_own_slot(side->pool), &who);
	for (i = 0; i < ROUNDS; i++) {
		int rc;

		herd_order(&side->herd, HERD_READ, i, 1, 0);
		if (mrs_txn_begin(side->pool, MRS_INTENT_OTHER, &txn))
			bench_die("%s", morsel_errormsg());
		begun = bench_now();
		rc = mrs_mail_ask(&txn, &who, MRS_REQUEST_DROP, side->morsel->cell, i, 1, 0,
				  TIMEOUT_NS, NULL);
		ns += bench_now() - begun;
		mrs_txn_end(&txn);
		if (rc)
			bench_die("asking failed: %s", morsel_errormsg());
	}
	return (double)ns / 1e3 / ROUNDS / side->herd.count;
}

int main(int argc, char **argv)
{
	struct bench_opts opts = {.pairs = 11};
	struct bench *bench = bench_start("shootdown", &opts, argc, argv);
	struct bench_case *c;
	struct side one, many;
	unsigned i;

	c = bench_case(bench, "16p-per-process", "us", "1p",
		       "the same request to one process that maps the morsel");
	bench_note(c, "asked by mail to drop one page's translation; mean of %u.", ROUNDS);
	start(&one, 1);
	start(&many, 16);
	sample(&one);
	sample(&many);
	for (i = 0; i < opts.pairs; i++) {
		bench_ours(c, sample(&many));
		bench_theirs(c, sample(&one));
	}
	end(&many);
	end(&one);
	return bench_finish(bench);
}
