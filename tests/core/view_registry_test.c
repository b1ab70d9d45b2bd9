/*
 * The registry of views and pins: against a list that anyone can check, with several handles (each
 * has a slot of its own); newcomers that meet a retarget or a clone; death with views and pins, and
 * at every step of making and dropping their cells.
 */
#include "core/object_support.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "object/retarget.h"
#include "support/counts.h"
#include "view/registry.h"

#define HANDLES 3u
#define VIEWS	24u
#define PINS	40u
#define PAGES	1024u
#define PAGE	4096ull

/* ---- the obvious list ---- */

struct model_pin {
	struct mrs_pin *pin;
	uint64_t first, end;
};

struct model_view {
	struct mrs_registered *listed; /* NULL: there is none */
	struct mrs_register as;
	unsigned handle;
	struct model_pin pin[PINS];
};

struct model {
	struct morsel_pool *pool[HANDLES];
	struct morsel *morsel[2]; /* of the first handle; the second is of another family */
	struct model_view view[VIEWS];
	uint64_t epoch[2];
	uint64_t random;
};

static void model_init(struct model *model, uint64_t seed)
{
	*model = (struct model){.random = seed};
	model->pool[0] = object_pool(256 * MIB);
	for (unsigned i = 1; i < HANDLES; i++)
		assert_ok(
			morsel_pool_open_fd(morsel_pool_fd(model->pool[0]), NULL, &model->pool[i]));
	for (unsigned i = 0; i < 2; i++) {
		model->morsel[i] = object_create(model->pool[0], i ? "b" : "a", PAGES * PAGE,
						 MORSEL_EVICTABLE, MORSEL_PAGES_4K);
		assert_ok(mrs_morsel_make_coherent(model->morsel[i]));
		model->epoch[i] = mrs_morsel_coherence(model->morsel[i])->epoch;
	}
}

static void model_end(struct model *model)
{
	for (unsigned i = 0; i < VIEWS; i++)
		if (model->view[i].listed)
			mrs_registry_remove(model->pool[model->view[i].handle],
					    model->view[i].listed);
	for (unsigned i = 0; i < 2; i++)
		assert_ok(morsel_close(model->morsel[i]));
	for (unsigned i = HANDLES; i-- > 1;)
		assert_ok(morsel_pool_close(model->pool[i]));
	object_pool_end(model->pool[0]);
}

static void add(struct model *model, struct model_view *view)
{
	uint64_t r = test_random(&model->random), changes;
	unsigned which = r & 1;
	struct mrs_state *state = mrs_pool_state(model->pool[0]);

	view->handle = (unsigned)(r >> 8) % HANDLES;
	view->as = (struct mrs_register){
		.record = model->morsel[which]->cell,
		.first = (r >> 16) % PAGES,
		.flags = MRS_VIEW_BY_MAIL | (r >> 1 & 1 ? MRS_VIEW_WRITABLE : 0),
		.address = r & ~0xfffull,
		.owner = view,
	};
	view->as.pages = 1 + (r >> 32) % (PAGES - view->as.first);
	changes = mrs_load_acquire(&state->registry);
	assert_ok(mrs_registry_add(model->pool[view->handle], &view->as, &view->listed));
	assert_true(mrs_load_acquire(&state->registry) > changes);
	model->epoch[which] += r >> 1 & 1;
	assert_int_equal(mrs_morsel_coherence(model->morsel[which])->epoch, model->epoch[which]);
	for (unsigned i = 0; i < PINS; i++)
		view->pin[i].pin = NULL;
}

static void pin_or_not(struct model *model, struct model_view *view)
{
	uint64_t r = test_random(&model->random);
	struct model_pin *pin = &view->pin[r % PINS];
	struct morsel_pool *pool = model->pool[view->handle];

	if (pin->pin) {
		mrs_registry_unpin(pool, view->listed, pin->pin);
		pin->pin = NULL;
		return;
	}
	pin->first = view->as.first + (r >> 8) % view->as.pages;
	pin->end = pin->first + 1 + (r >> 32) % 8;
	assert_ok(mrs_registry_pin(pool, view->listed, pin->first, pin->end, &pin->pin));
	assert_non_null(pin->pin);
}

struct seen {
	struct model *model;
	bool met[VIEWS];
	unsigned count;
};

static int see(void *ctx, const struct mrs_seen_view *seen)
{
	struct seen *all = ctx;

	for (unsigned i = 0; i < VIEWS; i++) {
		const struct model_view *view = &all->model->view[i];

		if (!view->listed || all->met[i] || view->as.record != seen->record ||
		    view->as.first != seen->first || view->as.pages != seen->pages ||
		    view->as.address != seen->address || view->as.flags != seen->flags ||
		    seen->slot != mrs_pool_own_slot(all->model->pool[view->handle]))
			continue;
		all->met[i] = true;
		all->count++;
		assert_int_equal(seen->pid, getpid());
		return 0;
	}
	fail_msg("a view is seen that nobody listed");
	return 0;
}

/* Every question is answered as the list does. */
static void compare(struct model *model)
{
	uint64_t r = test_random(&model->random);
	unsigned which = r & 1, views = 0, pins = 0;
	uint64_t first = (r >> 8) % PAGES, end = first + 1 + (r >> 32) % 100;
	uint64_t record = model->morsel[which]->cell;
	uint64_t family = mrs_registry_family(model->pool[0], record);
	struct seen seen = {.model = model};
	struct mrs_seen_view by;
	struct mrs_pin pin;

	for (unsigned i = 0; i < VIEWS; i++) {
		const struct model_view *view = &model->view[i];

		if (!view->listed || view->as.record != record || view->as.first >= end ||
		    view->as.first + view->as.pages <= first)
			continue;
		views++;
		for (unsigned k = 0; k < PINS; k++)
			pins += view->pin[k].pin && view->pin[k].first < end &&
				view->pin[k].end > first;
	}
	assert_int_equal(mrs_registry_each(model->pool[0], family, first, end, see, &seen), 0);
	assert_int_equal(seen.count, views);
	assert_int_equal(mrs_registry_pinned(model->pool[0], family, first, end, &by, &pin),
			 pins != 0);
	if (pins) {
		assert_int_equal(by.record, record);
		assert_true(pin.first_plus_1 - 1 < end && pin.end > first);
	}
}

static void test_model(void **state)
{
	struct model *model = malloc(sizeof(*model));
	uint64_t steps = COUNT_REGISTRY_STEPS;

	assert_non_null(model);
	model_init(model, test_seed());
	for (uint64_t i = 0; i < steps; i++) {
		uint64_t r = test_random(&model->random);
		struct model_view *view = &model->view[r % VIEWS];

		if (!view->listed) {
			add(model, view);
		} else if (r >> 8 & 7) {
			pin_or_not(model, view);
		} else {
			mrs_registry_remove(model->pool[view->handle], view->listed);
			view->listed = NULL;
		}
		compare(model);
	}
	object_check(model->pool[0]);
	model_end(model);
	free(model);
}

/* ---- newcomers ---- */

struct newcomer {
	struct morsel_pool *pool;
	struct mrs_register as;
	struct mrs_registered *listed;
	struct mrs_pin *pin;
	uint64_t first, end; /* to be pinned */
	int rc;
	uint32_t done;
};

static void *come(void *arg)
{
	struct newcomer *newcomer = arg;

	if (newcomer->listed)
		newcomer->rc = mrs_registry_pin(newcomer->pool, newcomer->listed, newcomer->first,
						newcomer->end, &newcomer->pin);
	else
		newcomer->rc = mrs_registry_add(newcomer->pool, &newcomer->as, &newcomer->listed);
	mrs_store_release32(&newcomer->done, 1);
	return NULL;
}

static void begin_retarget(struct morsel_pool *pool, uint64_t record, uint64_t page, uint64_t count,
			   enum mrs_intent_op op, struct mrs_txn *txn)
{
	assert_ok(mrs_txn_begin(pool, op, txn));
	mrs_store_release(&txn->intent->page, page);
	mrs_store_release(&txn->intent->count, count);
	mrs_store_release(&txn->intent->cell[0], record);
	mrs_full_fence();
}

static int count_view(void *ctx, const struct mrs_seen_view *seen)
{
	++*(unsigned *)ctx;
	return 0;
}

/* Until the newcomer is seen: he is not done, for he waits. */
static void await_visible(struct newcomer *newcomer, uint64_t family)
{
	struct mrs_seen_view by;
	struct mrs_pin pin;
	bool visible = false;

	for (unsigned i = 0; i < 5000 && !visible; i++) {
		unsigned views = 0;

		usleep(1000);
		if (newcomer->end)
			visible = mrs_registry_pinned(newcomer->pool, family, newcomer->first,
						      newcomer->end, &by, &pin);
		else
			visible = mrs_registry_each(newcomer->pool, family, 0, PAGES, count_view,
						    &views) == 0 &&
				  views;
	}
	assert_true(visible);
	usleep(30000);
	assert_int_equal(mrs_load_acquire32(&newcomer->done), 0);
}

/* Runs come() beside a retarget of these pages by another handle, and says whether it waited. */
static void meet(struct model *model, struct newcomer *newcomer, uint64_t record, uint64_t page,
		 enum mrs_intent_op op, bool waits)
{
	struct mrs_txn txn;
	pthread_t thread;

	begin_retarget(model->pool[1], record, page, 512, op, &txn);
	newcomer->done = 0;
	assert_int_equal(pthread_create(&thread, NULL, come, newcomer), 0);
	if (waits)
		await_visible(newcomer,
			      mrs_registry_family(model->pool[0], model->morsel[0]->cell));
	else
		pthread_join(thread, NULL);
	mrs_txn_end(&txn);
	if (waits)
		pthread_join(thread, NULL);
	assert_int_equal(newcomer->rc, 0);
}

/* Who comes while a retarget of his pages is under way is seen by it at once, and waits for its
 * end. */
static void test_newcomers(void **state)
{
	struct model *model = malloc(sizeof(*model));
	struct newcomer n = {0};

	model_init(model, 1);
	n.pool = model->pool[2];
	n.as = (struct mrs_register){.record = model->morsel[0]->cell,
				     .pages = PAGES,
				     .flags = MRS_VIEW_BY_MAIL | MRS_VIEW_WRITABLE};
	for (int clone = 0; clone < 2; clone++) {
		enum mrs_intent_op op = clone ? MRS_INTENT_CLONE : MRS_INTENT_RETARGET;

		meet(model, &n, model->morsel[0]->cell, 512, op, true);
		n.first = 600;
		n.end = 700;
		meet(model, &n, model->morsel[0]->cell, 512, op, true);
		mrs_registry_unpin(n.pool, n.listed, n.pin);
		/* Other pages, and another family, are none of his business. */
		n.first = 100;
		n.end = 200;
		meet(model, &n, model->morsel[0]->cell, 512, op, clone);
		mrs_registry_unpin(n.pool, n.listed, n.pin);
		meet(model, &n, model->morsel[1]->cell, 0, op, false);
		mrs_registry_unpin(n.pool, n.listed, n.pin);
		mrs_registry_remove(n.pool, n.listed);
		n.listed = NULL;
		n.end = 0;
	}
	model_end(model);
	free(model);
}

/* Threads that come and go, and one who retargets: he never finds a page pinned that was free. */
struct crossing {
	struct model *model;
	uint64_t pinned; /* threads that use page 7 under a pin, as they see it */
	uint64_t taken;	 /* 1 while the retargeter has it */
	uint32_t stop;
	uint64_t pins, takes;
};

static void *pinner(void *arg)
{
	struct crossing *c = arg;
	struct morsel_pool *pool = c->model->pool[2];
	struct mrs_register as = {
		.record = c->model->morsel[0]->cell, .pages = PAGES, .flags = MRS_VIEW_BY_MAIL};
	struct mrs_registered *listed;
	struct mrs_pin *pin;

	assert_ok(mrs_registry_add(pool, &as, &listed));
	while (!mrs_load_acquire32(&c->stop)) {
		assert_ok(mrs_registry_pin(pool, listed, 7, 8, &pin));
		mrs_fetch_add(&c->pinned, 1);
		assert_int_equal(mrs_load_acquire(&c->taken), 0);
		mrs_fetch_add(&c->pins, 1);
		mrs_fetch_sub(&c->pinned, 1);
		mrs_registry_unpin(pool, listed, pin);
		usleep(100);
	}
	mrs_registry_remove(pool, listed);
	return NULL;
}

static void test_crossing(void **state)
{
	struct crossing c = {.model = malloc(sizeof(*c.model))};
	uint64_t family, rounds = COUNT_REGISTRY_CROSSINGS;
	pthread_t thread[2];

	model_init(c.model, 1);
	family = mrs_registry_family(c.model->pool[0], c.model->morsel[0]->cell);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, pinner, &c), 0);
	for (uint64_t i = 0; i < 100 * rounds && c.takes < rounds; i++) {
		struct mrs_seen_view by;
		struct mrs_pin pin;
		struct mrs_txn txn;

		begin_retarget(c.model->pool[1], c.model->morsel[0]->cell, 0, 512,
			       MRS_INTENT_RETARGET, &txn);
		if (!mrs_registry_pinned(c.model->pool[1], family, 7, 8, &by, &pin)) {
			mrs_store_release(&c.taken, 1);
			mrs_full_fence();
			assert_int_equal(mrs_load_acquire(&c.pinned), 0);
			c.takes++;
			mrs_store_release(&c.taken, 0);
		}
		mrs_txn_end(&txn);
	}
	mrs_store_release32(&c.stop, 1);
	for (int i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	printf("%llu pins, %llu retargets that found none\n", (unsigned long long)c.pins,
	       (unsigned long long)c.takes);
	model_end(c.model);
	free(c.model);
}

/* ---- views that are real ---- */

static int keep(void *ctx, const struct mrs_seen_view *seen)
{
	*(struct mrs_seen_view *)ctx = *seen;
	return 0;
}

/* A view of an evictable morsel is listed while it is there, and a grant of it pins. */
static void test_views(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel =
		object_create(pool, "m", 100 * PAGE, MORSEL_EVICTABLE, MORSEL_PAGES_4K);
	struct morsel_map_opts opts = {.size = sizeof(opts), .offset = 10 * PAGE};
	struct mrs_seen_view seen = {0};
	struct morsel_grant grant;
	struct morsel_view *view;
	uint64_t family, epoch;
	struct mrs_pin pin;
	int rc;

	rc = morsel_map(morsel, &opts, &view);
	if (rc == -EOPNOTSUPP) {
		print_message("skipped: %s\n", morsel_errormsg());
		morsel_close(morsel);
		object_pool_end(pool);
		skip();
	}
	assert_ok(rc);
	family = mrs_registry_family(pool, morsel->cell);
	epoch = mrs_morsel_coherence(morsel)->epoch;
	assert_int_equal(mrs_registry_each(pool, family, 0, 100, keep, &seen), 0);
	assert_int_equal(seen.record, morsel->cell);
	assert_int_equal(seen.first, 10);
	assert_int_equal(seen.pages, 90);
	assert_int_equal(seen.address, (uintptr_t)morsel_addr(view));
	assert_true(seen.flags & MRS_VIEW_CPU && seen.flags & MRS_VIEW_WRITABLE);
	assert_true(epoch > 0);
	assert_false(mrs_registry_pinned(pool, family, 0, 100, &seen, &pin));
	assert_ok(morsel_acquire(view, 5 * PAGE + 1, PAGE, MORSEL_WRITE, &grant));
	memset(grant.addr, 7, PAGE);
	assert_true(mrs_registry_pinned(pool, family, 15, 16, &seen, &pin));
	assert_true(mrs_registry_pinned(pool, family, 16, 17, &seen, &pin));
	assert_false(mrs_registry_pinned(pool, family, 17, 100, &seen, &pin));
	assert_int_equal(pin.first_plus_1, 0 + 16);
	morsel_release(&grant);
	assert_false(mrs_registry_pinned(pool, family, 0, 100, &seen, &pin));
	/* A view that goes with a grant held takes its pin with it. */
	assert_ok(morsel_acquire(view, 0, 1, MORSEL_READ, &grant));
	morsel_view_destroy(view);
	assert_false(mrs_registry_pinned(pool, family, 0, 100, &seen, &pin));
	seen.record = 0;
	assert_int_equal(mrs_registry_each(pool, family, 0, 100, keep, &seen), 0);
	assert_int_equal(seen.record, 0);
	opts.access = MORSEL_READ;
	assert_ok(morsel_map(morsel, &opts, &view));
	assert_int_equal(mrs_morsel_coherence(morsel)->epoch, epoch);
	morsel_view_destroy(view);
	morsel_close(morsel);
	object_pool_end(pool);
}

/* ---- death ---- */

static int child_views(struct morsel_pool *pool, const char *argument)
{
	struct mrs_registered *listed[6];
	struct mrs_pin *pin[6][12];
	struct morsel *morsel;
	int rc = morsel_open(pool, "a", NULL, &morsel);

	for (unsigned i = 0; !rc && i < mrs_array_length(listed); i++) {
		struct mrs_register as = {.record = morsel->cell,
					  .pages = PAGES,
					  .flags = MRS_VIEW_BY_MAIL | MRS_VIEW_WRITABLE};

		rc = mrs_registry_add(pool, &as, &listed[i]);
		for (unsigned k = 0; !rc && k < 12; k++)
			rc = mrs_registry_pin(pool, listed[i], k, k + 1, &pin[i][k]);
	}
	if (rc)
		return rc;
	if (!strcmp(argument, "stay")) {
		printf("there\n");
		fflush(stdout);
		pause();
	}
	for (unsigned i = 0; i < mrs_array_length(listed); i++)
		mrs_registry_remove(pool, listed[i]);
	return morsel_close(morsel);
}

static int child_retarget(struct morsel_pool *pool, const char *argument)
{
	struct morsel *morsel;
	struct mrs_txn txn;

	if (morsel_open(pool, "a", NULL, &morsel))
		return 1;
	begin_retarget(pool, morsel->cell, 0, 512, MRS_INTENT_RETARGET, &txn);
	printf("there\n");
	fflush(stdout);
	for (;;)
		pause();
}

static int count_cell(void *ctx, mrs_cell cell, void *memory)
{
	++*(unsigned *)ctx;
	return 0;
}

/* VIEW and PIN cells of the whole pool. */
static unsigned cells_of_views(struct morsel_pool *pool)
{
	unsigned count = 0;

	mrs_cell_each(mrs_pool_cells(pool), MRS_CELL_VIEW, count_cell, &count);
	mrs_cell_each(mrs_pool_cells(pool), MRS_CELL_PIN, count_cell, &count);
	return count;
}

/* Starts a child that says when it is there. */
static pid_t start(struct morsel_pool *pool, const char *op, const char *argument)
{
	int pipe_fd[2], saved = dup(STDOUT_FILENO);
	char byte;
	pid_t pid;

	assert_int_equal(pipe(pipe_fd), 0);
	fflush(stdout);
	dup2(pipe_fd[1], STDOUT_FILENO);
	pid = object_child_start(pool, op, argument, NULL);
	dup2(saved, STDOUT_FILENO);
	close(saved);
	close(pipe_fd[1]);
	assert_int_equal(read(pipe_fd[0], &byte, 1), 1);
	close(pipe_fd[0]);
	return pid;
}

static void end_child(pid_t pid)
{
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* The dead pin nothing, at once; reaped, nothing of them is left. */
static void test_death(void **state)
{
	struct model *model = malloc(sizeof(*model));
	struct morsel_pool *pool;
	struct mrs_seen_view by;
	unsigned views = 0;
	uint64_t family;
	struct mrs_pin pin;
	pid_t pid;

	model_init(model, 1);
	pool = model->pool[0];
	family = mrs_registry_family(pool, model->morsel[0]->cell);
	pid = start(pool, "views", "stay");
	assert_true(mrs_registry_pinned(pool, family, 11, 12, &by, &pin));
	assert_int_equal(by.pid, pid);
	assert_false(mrs_registry_pinned(pool, family, 12, PAGES, &by, &pin));
	mrs_registry_each(pool, family, 0, PAGES, count_view, &views);
	assert_int_equal(views, 6);
	end_child(pid);
	assert_false(mrs_registry_pinned(pool, family, 0, PAGES, &by, &pin));
	assert_int_equal(morsel_pool_reap(pool), 1);
	views = 0;
	mrs_registry_each(pool, family, 0, PAGES, count_view, &views);
	assert_int_equal(views, 0);
	assert_int_equal(cells_of_views(pool), 0);
	object_check(pool);
	model_end(model);
	free(model);
}

/* Who waits for a retarget whose process dies goes on when that is repaired. */
static void test_death_of_retarget(void **state)
{
	struct model *model = malloc(sizeof(*model));
	struct newcomer n = {0};
	pthread_t thread;
	pid_t pid;

	model_init(model, 1);
	n.pool = model->pool[2];
	n.as = (struct mrs_register){
		.record = model->morsel[0]->cell, .pages = PAGES, .flags = MRS_VIEW_BY_MAIL};
	pid = start(model->pool[0], "retarget", "");
	assert_int_equal(pthread_create(&thread, NULL, come, &n), 0);
	await_visible(&n, mrs_registry_family(model->pool[0], model->morsel[0]->cell));
	end_child(pid);
	pthread_join(thread, NULL);
	assert_int_equal(n.rc, 0);
	mrs_registry_remove(n.pool, n.listed);
	model_end(model);
	free(model);
}

/* Killed at every step: nothing hangs in the air. The same for the reaper after it. */
static void test_death_anywhere(void **state)
{
#ifdef MORSEL_PROBES
	static const char *const probes[] = {
		"registry.chain.claimed", "registry.chain.made", "registry.chain.linked",
		"registry.add.fields",	  "registry.add.listed", "registry.settled",
		"registry.pin.written",	  "registry.removed",	 "registry.chain.unlinked",
		"registry.chain.freed",	  "registry.dropped",	 "cell.get.claimed",
		"cell.put.clearing",	  "cell.put.cleared",
	};
	struct model *model = malloc(sizeof(*model));

	model_init(model, 1);
	for (unsigned i = 0; i < mrs_array_length(probes); i++)
		for (unsigned n = 1; n < 12; n += 3) {
			char kill_at[64];
			int status;

			snprintf(kill_at, sizeof(kill_at), "%s:%u", probes[i], n);
			snprintf(object_context, sizeof(object_context), "after %s", kill_at);
			status = object_child(model->pool[0], "views", "", kill_at);
			assert_true(WIFSIGNALED(status) || !WEXITSTATUS(status));
			if (WIFSIGNALED(status)) {
				status = object_child(model->pool[0], "reap", "", kill_at);
				assert_true(WIFSIGNALED(status) || !WEXITSTATUS(status));
			}
			assert_true(morsel_pool_reap(model->pool[0]) >= 0);
			assert_int_equal(cells_of_views(model->pool[0]), 0);
			object_check(model->pool[0]);
		}
	object_context[0] = 0;
	model_end(model);
	free(model);
#else
	print_message("skipped: this build has no probes (MORSEL_PROBES)\n");
	skip();
#endif
}

static int child_main(char **argv)
{
	struct morsel_pool *pool;
	int rc = morsel_pool_open_fd(atoi(argv[3]), NULL, &pool);

	if (rc)
		return 3;
	if (!strcmp(argv[2], "views"))
		rc = child_views(pool, argv[4]);
	else if (!strcmp(argv[2], "retarget"))
		rc = child_retarget(pool, argv[4]);
	else
		morsel_pool_reap(pool);
	if (rc)
		fprintf(stderr, "child %s: %d: %s\n", argv[2], rc, morsel_errormsg());
	return rc ? 4 : morsel_pool_close(pool) ? 5 : 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model),	       cmocka_unit_test(test_newcomers),
		cmocka_unit_test(test_crossing),       cmocka_unit_test(test_views),
		cmocka_unit_test(test_death),	       cmocka_unit_test(test_death_of_retarget),
		cmocka_unit_test(test_death_anywhere),
	};

	if (argc == 5 && !strcmp(argv[1], "--child"))
		return child_main(argv);
	return cmocka_run_group_tests_name("view: registry", tests, NULL, NULL);
}
