/*
 * One process of the torture test: random operations on random morsels until it is told to stop, or
 * killed. Exit 3: a page held what it must not.
 */
#include "stress/torture.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <morsel/clone.h>

#include "object/retarget.h"
#include "pool/property.h"
#include "support/counts.h"

#define HANDS 3

struct hand { /* a morsel that is held open, with a view */
	struct morsel *morsel;
	struct morsel_view *view;
	struct torture_page *ledger;
	unsigned family;
	unsigned pages; /* of the view */
	uint64_t life, cuts;
	bool writable;
	bool is_cut; /* a part of the view is gone */
};

struct worker {
	struct torture *t;
	struct morsel_pool *pool;
	int pool_fd;
	uint32_t life;
	uint64_t random;
	struct hand hand[HANDS];
};

static unsigned below(struct worker *w, unsigned end)
{
	return (unsigned)(test_random(&w->random) % end);
}

static void count(struct worker *w, enum torture_kind kind, int rc)
{
	mrs_fetch_add(rc < 0 ? &w->t->refused[kind] : &w->t->done[kind], 1);
}

/* What concurrency, a small pool, and the death or stop of others explain. */
static bool is_odd(int rc)
{
	switch (rc) {
	case 0:
	case -EBUSY:
	case -EAGAIN:
	case -ENOSPC:
	case -ENOENT:
	case -EEXIST:
	case -ETIMEDOUT:
	case -EMLINK:
	case -EROFS:
	case -ENOMEM:
	case -ERANGE: /* cut meanwhile */
		return false;
	default:
		return rc < 0;
	}
}

static void expect(struct worker *w, enum torture_kind kind, const char *what, int rc)
{
	count(w, kind, rc);
	if (!is_odd(rc))
		return;
	fprintf(stderr, "torture: worker %u: %s = %d: %s\n", w->life, what, rc, morsel_errormsg());
	_exit(4);
}

/* ---- pages ---- */

/* How the page stands. */
static void print_page(struct hand *h, unsigned page)
{
	struct mrs_cell_coherence *c = mrs_morsel_coherence(h->morsel);
	struct mrs_leaf leaf = {0};
	struct mrs_prop swap = {0};
	bool has;

	mrs_table_leaf(&h->morsel->table, page, &leaf);
	has = mrs_prop_get(h->morsel->pool, mrs_entry_frame(leaf.entry), MRS_PROP_SWAP, &swap);
	fprintf(stderr,
		"torture: entry %016llx level %u%s, slot %llx (%d) epoch %llu of %llu, morsel %llu "
		"cell %llx, view %u+%u %s\n",
		(unsigned long long)leaf.entry, leaf.level, leaf.shared ? " shared" : "",
		(unsigned long long)swap.value, has, (unsigned long long)(swap.aux >> 32),
		c ? (unsigned long long)c->epoch : 0, (unsigned long long)h->morsel->record->id,
		(unsigned long long)h->morsel->cell, 0, h->pages, h->writable ? "rw" : "ro");
}

static void check_words(struct worker *w, struct hand *h, unsigned page,
			const struct torture_seen *before, const uint64_t words[512],
			const char *what)
{
	unsigned at = 0, family, number;
	uint64_t version;
	int rc = torture_judge(&h->ledger[page], before, h->family, page, words, &at);

	if (rc > 0)
		mrs_fetch_add(&w->t->raced, 1);
	if (rc >= 0)
		return;
	mrs_fetch_add32(&w->t->mismatches, 1);
	fprintf(stderr,
		"torture: worker %u (%d): %s: family %u page %u word %u is %016llx; versions %llx "
		"%llx %llx, %u writes; last word %016llx\n",
		w->life, (int)getpid(), what, h->family, page, at, (unsigned long long)words[at],
		(unsigned long long)before->version[0], (unsigned long long)before->version[1],
		(unsigned long long)before->version[2], before->writes,
		(unsigned long long)words[511]);
	print_page(h, page);
	if (torture_identify(words[at], at, &family, &number, &version))
		fprintf(stderr, "torture: that is family %u page %u version %llx\n", family, number,
			(unsigned long long)version);
	_exit(3);
}

static uint64_t *cuts_of(struct worker *w, struct hand *h)
{
	return &w->t->cuts[h->life % TORTURE_LIVES];
}

static uint64_t *at_page(struct hand *h, unsigned page)
{
	return (uint64_t *)((char *)morsel_addr(h->view) + (uint64_t)page * 4096);
}

/*
 * A shrink takes its end away from views: touching it is SIGSEGV (or SIGBUS, at the
 * instant), also when it has grown again. No other touch may be.
 */
static sigjmp_buf cut_short;
static volatile sig_atomic_t may_be_cut;
static siginfo_t cut_by;

static void on_fault(int signal, siginfo_t *info, void *context)
{
	cut_by = *info;
	if (may_be_cut)
		siglongjmp(cut_short, 1);
	sigaction(signal, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
}

static void was_cut(struct worker *w, struct hand *h, unsigned page)
{
	may_be_cut = 0;
	h->is_cut = true;
	if (page >= TORTURE_PAGES / 2 &&
	    (mrs_load_acquire(cuts_of(w, h)) != h->cuts ||
	     mrs_load_acquire(&w->t->cuts_ended[h->life % TORTURE_LIVES]) != h->cuts))
		return;
	fprintf(stderr,
		"torture: worker %u: no memory at page %u of family %u: signal %d code %d at "
		"%+lld; "
		"cuts %llu, begun %llu, ended %llu\n",
		w->life, page, h->family, cut_by.si_signo, cut_by.si_code,
		(long long)((char *)cut_by.si_addr - (char *)at_page(h, page)),
		(unsigned long long)h->cuts, (unsigned long long)mrs_load_acquire(cuts_of(w, h)),
		(unsigned long long)mrs_load_acquire(&w->t->cuts_ended[h->life % TORTURE_LIVES]));
	print_page(h, page);
	_exit(3);
}

/* False if the page was taken away. */
static bool read_page(struct worker *w, struct hand *h, unsigned page, const char *what)
{
	struct torture_seen before;
	uint64_t words[512];
	uint64_t *from = at_page(h, page);

	torture_look_before(&h->ledger[page], &before);
	if (sigsetjmp(cut_short, 1)) {
		was_cut(w, h, page);
		return false;
	}
	may_be_cut = 1;
	for (unsigned i = 0; i < 512; i++)
		words[i] = mrs_load_relaxed(&from[i]);
	may_be_cut = 0;
	check_words(w, h, page, &before, words, what);
	return true;
}

static bool write_page(struct worker *w, struct hand *h, unsigned page)
{
	struct torture_page *ledger = &h->ledger[page];
	uint64_t version;

	version = torture_write_begin(w->t, ledger, w->life, h->family, page, false);
	if (!version)
		return false;
	if (sigsetjmp(cut_short, 1)) {
		was_cut(w, h, page);
		/* Some of it may have been written: the version stays listed. */
		mrs_store_release32(&ledger->owner, 0);
		return false;
	}
	may_be_cut = 1;
	torture_fill(h->family, page, version, at_page(h, page));
	may_be_cut = 0;
	torture_write_end(ledger, version);
	return true;
}

static void read_some(struct worker *w, struct hand *h)
{
	unsigned page = below(w, h->pages), n = below(w, 4) ? 1 : 1 + below(w, 64);

	for (; n && page < h->pages && !h->is_cut; n--, page++)
		read_page(w, h, page, "read");
	count(w, TORTURE_READ, 0);
}

static void write_some(struct worker *w, struct hand *h)
{
	unsigned page = below(w, h->pages), n = below(w, 4) ? 1 : 1 + below(w, 16);
	int rc = -EBUSY;

	for (; n && page < h->pages && h->writable && !h->is_cut; n--, page++)
		if (write_page(w, h, page))
			rc = 0;
	count(w, TORTURE_WRITE, rc);
}

/* ---- words to the core ---- */

static void advise(struct worker *w, struct hand *h, enum torture_kind kind, int advice)
{
	unsigned page = below(w, h->pages), n = below(w, 3) ? 1 + below(w, 40) : h->pages;
	int rc;

	if (n > h->pages - page)
		n = h->pages - page;
	rc = morsel_advise(h->morsel, (uint64_t)page * 4096, (uint64_t)n * 4096, advice);
	/* Somebody tries to shrink it: for an instant it is shorter, until our view is seen. */
	expect(w, kind, "advise", rc == -EINVAL ? -EAGAIN : rc);
}

static void advise_whole(struct worker *w, struct hand *h)
{
	static const int words[] = {MORSEL_ADVICE_NORMAL, MORSEL_ADVICE_SEQUENTIAL,
				    MORSEL_ADVICE_RANDOM, MORSEL_ADVICE_WILL_NEED,
				    MORSEL_ADVICE_DO_NOT_NEED};

	advise(w, h, TORTURE_ADVISE, words[below(w, 5)]);
}

static int grant(struct worker *w, struct hand *h, unsigned *page, unsigned *n, int access,
		 struct morsel_grant *held)
{
	*page = below(w, h->pages);
	*n = 1 + below(w, 8);
	if (*n > h->pages - *page)
		*n = h->pages - *page;
	return morsel_acquire(h->view, (uint64_t)*page * 4096, (uint64_t)*n * 4096, access, held);
}

static void pause_us(unsigned us)
{
	struct timespec time = {.tv_nsec = us * 1000};

	nanosleep(&time, NULL);
}

static void granted(struct worker *w, struct hand *h)
{
	int access = h->writable && below(w, 2) ? MORSEL_READ | MORSEL_WRITE : MORSEL_READ;
	struct morsel_grant held;
	unsigned page, n;
	int rc = grant(w, h, &page, &n, access, &held);

	expect(w, TORTURE_GRANT, "acquire", rc);
	if (rc)
		return;
	for (unsigned i = page; i < page + n; i++) {
		read_page(w, h, i, "granted");
		if (access & MORSEL_WRITE)
			write_page(w, h, i);
	}
	if (!below(w, 4))
		pause_us(500);
	for (unsigned i = page; i < page + n; i++)
		read_page(w, h, i, "granted again");
	morsel_release(&held);
}

/* ---- pins of others ---- */

/*
 * A page goes into a pipe by reference; what comes out is what was in it then, or later. Without a
 * grant nothing is promised: the page may be a relative's by the time the pipe is read.
 */
static void splice_page(struct worker *w, struct hand *h)
{
	unsigned page = below(w, h->pages);
	struct torture_seen before;
	struct morsel_grant held = {0};
	uint64_t words[512];
	struct iovec piece;
	int end[2], rc = 0;
	bool with_grant = below(w, 2);

	if (with_grant)
		rc = morsel_acquire(h->view, (uint64_t)page * 4096, 4096, MORSEL_READ, &held);
	if (rc || pipe2(end, O_CLOEXEC)) {
		expect(w, TORTURE_SPLICE, "acquire", rc);
		morsel_release(&held);
		return;
	}
	piece = (struct iovec){.iov_base = at_page(h, page), .iov_len = 4096};
	torture_look_before(&h->ledger[page], &before);
	/* Without a grant and without privilege a page that is away is no address (EFAULT). */
	if (vmsplice(end[1], &piece, 1, 0) == 4096) {
		pause_us(below(w, 300));
		if (read(end[0], words, 4096) == 4096 && with_grant)
			check_words(w, h, page, &before, words, "spliced");
		count(w, TORTURE_SPLICE, 0);
	} else {
		count(w, TORTURE_SPLICE, -errno);
		if (with_grant && !h->is_cut) {
			perror("torture: vmsplice under a grant");
			_exit(4);
		}
	}
	close(end[0]);
	close(end[1]);
	morsel_release(&held);
}

/* Registered buffers pin pages for as long as the ring lives. */
static void pin_by_uring(struct worker *w, struct hand *h)
{
	struct io_uring_params params = {0};
	struct morsel_grant held;
	struct iovec buffer;
	unsigned page, n;
	int rc = grant(w, h, &page, &n, h->writable ? MORSEL_READ | MORSEL_WRITE : MORSEL_READ,
		       &held);
	int ring;

	if (rc) {
		expect(w, TORTURE_URING, "acquire", rc);
		return;
	}
	ring = (int)syscall(__NR_io_uring_setup, 2, &params);
	buffer = (struct iovec){.iov_base = at_page(h, page), .iov_len = (size_t)n * 4096};
	if (ring >= 0)
		rc = (int)syscall(__NR_io_uring_register, ring, IORING_REGISTER_BUFFERS, &buffer,
				  1);
	if (ring >= 0 && !rc) {
		pause_us(below(w, 500));
		for (unsigned i = page; i < page + n; i++)
			read_page(w, h, i, "pinned");
	}
	count(w, TORTURE_URING, ring < 0 || rc ? -errno : 0);
	if (ring >= 0)
		close(ring);
	morsel_release(&held);
}

/* ---- morsels come and go ---- */

static struct torture_seat *take_seat(struct worker *w, unsigned family, unsigned seat)
{
	struct torture_seat *place = &w->t->seat[family][seat];
	uint32_t maker = mrs_load_acquire32(&place->maker);

	if (maker && !torture_has_ended(w->t, maker))
		return NULL;
	return mrs_cas32(&place->maker, &maker, w->life) ? place : NULL;
}

static void leave_seat(struct torture_seat *place)
{
	mrs_store_release32(&place->maker, 0);
}

/* Lists what is in either look; what does not fit may be anything. */
static void list_both(struct torture_page *page, const struct torture_seen *a,
		      const struct torture_seen *b)
{
	unsigned n = 0;
	bool any = b->writes - a->writes > 1;

	for (unsigned i = 0; i < 2 * TORTURE_VERSIONS; i++) {
		uint64_t version =
			i < TORTURE_VERSIONS ? a->version[i] : b->version[i - TORTURE_VERSIONS];
		bool is_new = version != 0;

		for (unsigned k = 0; k < n && is_new; k++)
			is_new = page->version[k] != version;
		if (is_new && n == TORTURE_VERSIONS - 2)
			any = true;
		else if (is_new)
			page->version[n++] = version;
	}
	if (any)
		page->version[n++] = TORTURE_ANY;
	while (n < TORTURE_VERSIONS)
		page->version[n++] = 0;
	page->owner = 0;
	page->writes = 0;
}

static void clone_hand(struct worker *w, struct hand *h, bool snapshot)
{
	enum torture_kind kind = snapshot ? TORTURE_SNAPSHOT : TORTURE_CLONE;
	struct torture_seat *place = take_seat(w, h->family, 1 + below(w, TORTURE_SEATS - 1));
	struct torture_seen *before, after;
	struct torture_page *ledger;
	uint64_t life;
	char name[32];
	int rc;

	if (!place)
		return;
	if (mrs_load_acquire(&place->life)) {
		leave_seat(place);
		return;
	}
	before = malloc(TORTURE_PAGES * sizeof(*before));
	life = mrs_fetch_add(&w->t->lives, 1) + 1;
	ledger = torture_pages(w->t, life);
	for (unsigned page = 0; page < TORTURE_PAGES; page++)
		torture_look_before(&h->ledger[page], &before[page]);
	torture_name(name, h->family, life);
	rc = snapshot ? morsel_snapshot(h->morsel, name, NULL)
		      : morsel_clone(h->morsel, name, NULL);
	expect(w, kind, "clone", rc);
	for (unsigned page = 0; !rc && page < TORTURE_PAGES; page++) {
		torture_look_after(&h->ledger[page], &after);
		list_both(&ledger[page], &before[page], &after);
	}
	free(before);
	if (!rc)
		mrs_store_release(&place->life, life);
	leave_seat(place);
}

/* The first of a family. */
static void create(struct worker *w)
{
	static const uint32_t pages[] = {MORSEL_PAGES_4K, MORSEL_PAGES_MIXED, MORSEL_PAGES_MIXED};
	unsigned family = below(w, TORTURE_FAMILIES);
	struct torture_seat *place = take_seat(w, family, 0);
	struct morsel_opts opts = {.size = sizeof(opts),
				   .flags = MORSEL_CREATE | MORSEL_EXCL | MORSEL_EVICTABLE,
				   .pages = pages[family],
				   .bytes = TORTURE_PAGES * 4096};
	struct torture_page *ledger;
	struct morsel *morsel;
	uint64_t life;
	char name[32];
	int rc;

	if (!place)
		return;
	if (mrs_load_acquire(&place->life)) {
		leave_seat(place);
		return;
	}
	life = mrs_fetch_add(&w->t->lives, 1) + 1;
	ledger = torture_pages(w->t, life);
	for (unsigned page = 0; page < TORTURE_PAGES; page++)
		ledger[page] = (struct torture_page){.version = {TORTURE_ZEROS}};
	if (below(w, 2))
		opts.flags |= MORSEL_SCATTERED;
	torture_name(name, family, life);
	rc = morsel_open(w->pool, name, &opts, &morsel);
	expect(w, TORTURE_CREATE, "create", rc);
	if (!rc) {
		morsel_close(morsel);
		mrs_store_release(&place->life, life);
	}
	leave_seat(place);
}

static void unlink_one(struct worker *w)
{
	unsigned family = below(w, TORTURE_FAMILIES);
	unsigned seat = below(w, 8) ? 1 + below(w, TORTURE_SEATS - 1) : 0;
	struct torture_seat *place = take_seat(w, family, seat);
	char name[32];
	uint64_t life;

	if (!place)
		return;
	life = mrs_load_acquire(&place->life);
	if (life) {
		torture_name(name, family, life);
		mrs_store_release(&place->life, 0);
		expect(w, TORTURE_UNLINK, "unlink", morsel_unlink(w->pool, name));
	}
	leave_seat(place);
}

/* ---- hands ---- */

static void let_go(struct hand *h)
{
	if (h->view)
		morsel_view_destroy(h->view);
	if (h->morsel)
		morsel_close(h->morsel);
	*h = (struct hand){0};
}

/* Takes some morsel into the hand, with a view. */
static void take_up(struct worker *w, struct hand *h)
{
	struct morsel_map_opts opts = {.size = sizeof(opts)};
	unsigned family = below(w, TORTURE_FAMILIES);
	uint64_t life = mrs_load_acquire(&w->t->seat[family][below(w, TORTURE_SEATS)].life);
	struct morsel_info info = {.size = sizeof(info)};
	char name[32];
	int rc;

	if (!life)
		return;
	torture_name(name, family, life);
	rc = morsel_open(w->pool, name, NULL, &h->morsel);
	expect(w, TORTURE_MAP, "open", rc);
	if (rc)
		return;
	h->family = family;
	h->ledger = torture_pages(w->t, life);
	h->life = life;
	/* One that is under way may still come. */
	h->cuts = mrs_load_acquire(&w->t->cuts_ended[life % TORTURE_LIVES]);
	if (mrs_load_acquire(cuts_of(w, h)) != h->cuts)
		h->cuts = UINT64_MAX;
	rc = morsel_info(h->morsel, &info);
	if (!rc && info.bytes < TORTURE_PAGES * 4096 && !info.sealed)
		expect(w, TORTURE_RESIZE, "grow", morsel_resize(h->morsel, TORTURE_PAGES * 4096));
	if (!rc)
		rc = morsel_info(h->morsel, &info);
	h->writable = !info.sealed && below(w, 4);
	h->pages = (unsigned)(info.bytes / 4096);
	opts.access = h->writable ? MORSEL_READ | MORSEL_WRITE : MORSEL_READ;
	opts.bytes = info.bytes;
	if (!below(w, 4))
		opts.kind = MORSEL_VIEW_STITCHED;
	if (!rc)
		rc = morsel_map(h->morsel, &opts, &h->view);
	expect(w, TORTURE_MAP, "map", rc);
	if (rc)
		let_go(h);
}

/* The second half goes and comes back as zeros, if nobody looks at it. */
static void resize(struct worker *w, struct hand *h)
{
	struct torture_page *ledger = h->ledger;
	unsigned family = h->family, first = TORTURE_PAGES / 2, taken = first;
	uint64_t *version = calloc(TORTURE_PAGES, sizeof(*version));
	int rc = -EBUSY;

	morsel_view_destroy(h->view);
	h->view = NULL;
	while (taken < TORTURE_PAGES &&
	       (version[taken] =
			torture_write_begin(w->t, &ledger[taken], w->life, family, taken, true)))
		taken++;
	mrs_fetch_add(cuts_of(w, h), 1);
	if (taken == TORTURE_PAGES)
		rc = morsel_resize(h->morsel, (uint64_t)first * 4096);
	if (!rc) {
		/* Only this worker may grow it before the ledger says zeros: others do so too,
		 * alike. */
		rc = morsel_resize(h->morsel, TORTURE_PAGES * 4096);
		for (unsigned page = first; page < taken; page++)
			torture_write_end(&ledger[page], version[page]);
	} else {
		for (unsigned page = first; page < taken; page++)
			torture_write_cancel(&ledger[page], version[page]);
	}
	mrs_fetch_add(&w->t->cuts_ended[h->life % TORTURE_LIVES], 1);
	free(version);
	expect(w, TORTURE_RESIZE, "resize", rc);
	let_go(h);
}

/* ---- processes ---- */

/* A child of fork has no views; it attaches anew, looks, and ends. */
static void fork_child(struct worker *w, struct hand *h)
{
	int status = 0;
	pid_t pid = fork();

	if (!pid) {
		struct worker child = {.t = w->t, .life = w->life, .random = w->random + 1};
		struct hand own = {0};

		if (morsel_pool_open_fd(w->pool_fd, NULL, &child.pool))
			_exit(0);
		for (unsigned i = 0; i < 20 && !own.view; i++)
			take_up(&child, &own);
		for (unsigned i = 0; i < 20 && own.view; i++)
			read_some(&child, &own);
		_exit(0);
	}
	if (pid > 0)
		waitpid(pid, &status, 0);
	count(w, TORTURE_FORK, pid > 0 && !status ? 0 : -ECHILD);
	if (WIFEXITED(status) && WEXITSTATUS(status))
		_exit(WEXITSTATUS(status));
	if (h->view)
		read_some(w, h);
}

static void attach_anew(struct worker *w)
{
	int rc;

	for (unsigned i = 0; i < HANDS; i++)
		let_go(&w->hand[i]);
	rc = morsel_pool_close(w->pool);
	expect(w, TORTURE_ATTACH, "detach", rc);
	if (rc)
		return;
	do {
		rc = morsel_pool_open_fd(w->pool_fd, NULL, &w->pool);
		expect(w, TORTURE_ATTACH, "attach", rc);
	} while (rc && !mrs_load_acquire32(&w->t->stop));
	if (rc)
		_exit(0);
}

static void reap(struct worker *w)
{
	int rc = morsel_pool_reap(w->pool);

	expect(w, TORTURE_REAP, "reap", rc < 0 ? rc : 0);
}

/* Everybody's pages move meanwhile, and what is empty then may become huge. */
static void compact(struct worker *w)
{
	struct morsel_compact_opts opts = {.size = sizeof(opts), .huge_max = 1, .move_max = 256};

	expect(w, TORTURE_COMPACT, "compact", morsel_pool_compact(w->pool, &opts, NULL));
}

static void step_with(struct worker *w, struct hand *h)
{
	unsigned choice = below(w, 1000);

	if (choice < 400)
		read_some(w, h);
	else if (choice < 700)
		write_some(w, h);
	else if (choice < 790)
		advise(w, h, TORTURE_EVICT, MORSEL_ADVICE_EVICT);
	else if (choice < 820)
		advise(w, h, TORTURE_PREFETCH, MORSEL_ADVICE_PREFETCH);
	else if (choice < 835)
		advise_whole(w, h);
	else if (choice < 840)
		advise(w, h, TORTURE_HUGE, MORSEL_ADVICE_HUGE);
	else if (choice < 880)
		granted(w, h);
	else if (choice < 900 && !torture_without("splice"))
		splice_page(w, h);
	else if (choice >= 900 && choice < 910 && !torture_without("uring"))
		pin_by_uring(w, h);
	else if (choice >= 910 && choice < 930 && !torture_without("clone"))
		clone_hand(w, h, !below(w, 4));
	else if (choice >= 930 && choice < 935 && h->writable && h->pages == TORTURE_PAGES &&
		 !torture_without("resize"))
		resize(w, h);
	else
		let_go(h);
}

static void step(struct worker *w)
{
	struct hand *h = &w->hand[below(w, HANDS)];
	unsigned choice = below(w, 1000);

	if (choice < 10)
		create(w);
	else if (choice < 25)
		unlink_one(w);
	else if (choice < 28)
		fork_child(w, h);
	else if (choice < 31)
		attach_anew(w);
	else if (choice < 34)
		reap(w);
	else if (choice < 36 && !torture_without("compact"))
		compact(w);
	else if (h->is_cut)
		let_go(h);
	else if (!h->view)
		take_up(w, h);
	else
		step_with(w, h);
}

int torture_worker(char **argv)
{
	struct worker w = {.pool_fd = atoi(argv[2]), .t = torture_map(atoi(argv[3]))};
	struct morsel_pool_opts opts = {.size = sizeof(opts)};
	struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};

	/* Before the library's own, which passes on what is not its. */
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	w.life = (uint32_t)strtoul(argv[4], NULL, 10);
	w.random = strtoull(argv[5], NULL, 10);
	opts.faults = (uint32_t)atoi(argv[6]);
	if (!w.t || morsel_pool_open_fd(w.pool_fd, &opts, &w.pool)) {
		fprintf(stderr, "torture: worker %u: %s\n", w.life, morsel_errormsg());
		return 4;
	}
	while (!mrs_load_acquire32(&w.t->stop))
		step(&w);
	for (unsigned i = 0; i < HANDS; i++)
		let_go(&w.hand[i]);
	if (!morsel_pool_close(w.pool))
		return 0;
	fprintf(stderr, "torture: worker %u: close: %s\n", w.life, morsel_errormsg());
	return 5;
}
