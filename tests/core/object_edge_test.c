/*
 * Where two protocols meet: a clone is being made while a page moves, is given back or is written;
 * a view has not followed a move; a letter is late. Threads are stopped at probes, so that each
 * meeting takes place.
 */
#include "core/object_support.h"

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <morsel/swap.h>

#include "core/object_device.h"
#include "object/evict.h"
#include "object/move.h"
#include "object/share.h"
#include "view/internal.h"
#include "view/mailbox.h"
#include "view/pager.h"

#define PAGE	4096u
#define PAGES	64u
#define LONG_NS 60000000000ll

/* ---- stopping at probes ---- */

void __real_mrs_probe_hit(const char *name);
void __wrap_mrs_probe_hit(const char *name);

/* A thread that comes to probe says so, and waits until it may go on; once. */
struct stop {
	const char *probe;
	uint32_t armed, there, go;
};

static struct stop stops[2];

static void stop_at(unsigned i, const char *probe)
{
	stops[i] = (struct stop){.probe = probe};
	mrs_store_release32(&stops[i].armed, 1);
}

static void await_stop(unsigned i)
{
	while (!mrs_load_acquire32(&stops[i].there))
		usleep(100);
}

static void let_go(unsigned i)
{
	mrs_store_release32(&stops[i].go, 1);
}

void __wrap_mrs_probe_hit(const char *name)
{
	for (unsigned i = 0; i < mrs_array_length(stops); i++) {
		uint32_t armed = 1;

		if (!mrs_load_acquire32(&stops[i].armed) || strcmp(stops[i].probe, name) ||
		    !mrs_cas32(&stops[i].armed, &armed, 0))
			continue;
		mrs_store_release32(&stops[i].there, 1);
		while (!mrs_load_acquire32(&stops[i].go))
			usleep(100);
	}
	__real_mrs_probe_hit(name);
}

/* ---- mappings that fail ---- */

void *__real_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);

/* Of those over a part of a view: so many succeed, and then so many fail. */
static uint32_t maps_good, maps_bad;

void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset)
{
	if (flags & MAP_FIXED && flags & MAP_SHARED && mrs_load_acquire32(&maps_bad)) {
		if (mrs_load_acquire32(&maps_good)) {
			mrs_store_release32(&maps_good, maps_good - 1);
		} else {
			mrs_store_release32(&maps_bad, maps_bad - 1);
			errno = ENOMEM;
			return MAP_FAILED;
		}
	}
	return __real_mmap(at, bytes, prot, flags, fd, offset);
}

static void fail_maps(uint32_t good, uint32_t bad)
{
	mrs_store_release32(&maps_good, good);
	mrs_store_release32(&maps_bad, bad);
}

/* ---- allocations by a thread that only touches memory: they are a handler's ---- */

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
void *__real_realloc(void *at, size_t bytes);
void *__wrap_realloc(void *at, size_t bytes);
void *__real_dlopen(const char *path, int flags);
void *__wrap_dlopen(const char *path, int flags);

static __thread bool only_touches;
static unsigned allocated;

void *__wrap_malloc(size_t bytes)
{
	allocated += only_touches;
	return __real_malloc(bytes);
}

void *__wrap_calloc(size_t n, size_t bytes)
{
	allocated += only_touches;
	return __real_calloc(n, bytes);
}

void *__wrap_realloc(void *at, size_t bytes)
{
	allocated += only_touches;
	return __real_realloc(at, bytes);
}

void *__wrap_dlopen(const char *path, int flags)
{
	allocated += only_touches;
	return __real_dlopen(path, flags);
}

/* ---- a pool, a morsel, views ---- */

struct scene {
	struct morsel_pool *pool;
	struct morsel *morsel;
	struct morsel_view *view;
	char swap_path[128];
};

static struct morsel_view *map(struct morsel *morsel, uint32_t kind, uint32_t access)
{
	struct morsel_map_opts opts = {.size = sizeof(opts), .access = access, .kind = kind};
	struct morsel_view *view;

	assert_ok(morsel_map(morsel, &opts, &view));
	return view;
}

static volatile uint64_t *word_at(struct morsel_view *view, uint64_t page)
{
	return (volatile uint64_t *)((char *)morsel_addr(view) + page * PAGE);
}

static void put_all(struct morsel_view *view, uint64_t value)
{
	for (uint64_t page = 0; page < PAGES; page++)
		*word_at(view, page) = value + page;
}

static void expect_all(struct morsel_view *view, uint64_t value)
{
	for (uint64_t page = 0; page < PAGES; page++)
		assert_int_equal(*word_at(view, page), value + page);
}

static struct morsel_pool *open_pool(uint32_t faults)
{
	struct morsel_pool_opts opts = {.size = sizeof(opts),
					.flags = MORSEL_POOL_CREATE,
					.bytes = 64 * MIB,
					.bytes_max = 1 * GIB,
					.faults = faults};
	struct morsel_pool *pool;

	assert_ok(morsel_pool_open(NULL, &opts, &pool));
	return pool;
}

static void scene_of(struct scene *scene, uint32_t faults, uint32_t policy)
{
	const char *directory = getenv("TMPDIR");
	struct morsel_swap_opts swap = {.size = sizeof(swap),
					.path = scene->swap_path,
					.bytes = 8 * MIB,
					.flags = MORSEL_SWAP_PLAIN_IO | MORSEL_SWAP_SPARSE};

	snprintf(scene->swap_path, sizeof(scene->swap_path), "%.60s/morsel-test-%d-edge",
		 directory ? directory : "/tmp", (int)getpid());
	unlink(scene->swap_path);
	scene->pool = open_pool(faults);
	assert_ok(morsel_swap_add(scene->pool, &swap, NULL));
	if (policy == MORSEL_PAGES_4K)
		scene->morsel = object_create(scene->pool, "m", PAGES * PAGE,
					      MORSEL_EVICTABLE | MORSEL_SCATTERED, policy);
	else
		scene->morsel = object_create(scene->pool, "m", 2 * MIB, MORSEL_EVICTABLE, policy);
	scene->view = map(scene->morsel, MORSEL_VIEW_STITCHED, MORSEL_READ | MORSEL_WRITE);
	put_all(scene->view, 1000);
}

static void scene_begin(struct scene *scene)
{
	scene_of(scene, MORSEL_FAULTS_THREAD, MORSEL_PAGES_4K);
}

static void scene_end(struct scene *scene)
{
	morsel_view_destroy(scene->view);
	assert_ok(morsel_close(scene->morsel));
	object_pool_end(scene->pool);
	unlink(scene->swap_path);
}

static uint64_t entry_of(struct morsel *morsel, uint64_t page)
{
	struct mrs_leaf leaf;

	assert_ok(mrs_table_leaf(&morsel->table, page, &leaf));
	return leaf.entry;
}

static uint64_t frame_of(struct morsel *morsel, uint64_t page)
{
	return mrs_entry_frame(entry_of(morsel, page));
}

static uint64_t free_frame(struct morsel_pool *pool)
{
	uint64_t frame = mrs_pool_super(pool)->frame_data;

	while (!mrs_place_is_free(pool, frame, 0))
		frame++;
	return frame;
}

/* Until the pager has all descriptors, and nobody else the leaf. */
static int move(struct morsel *morsel, uint64_t page)
{
	int rc = -EAGAIN;

	for (unsigned i = 0; rc == -EAGAIN && i < 1000; i++) {
		if (i)
			usleep(5000);
		rc = mrs_move(morsel, page, frame_of(morsel, page), free_frame(morsel->pool));
	}
	return rc;
}

/* Whoever was served last may have his leaf for a moment longer. */
static void evict(struct scene *scene, uint64_t page, uint64_t pages)
{
	uint64_t end = page + pages;

	for (unsigned i = 0; page < end && i < 1000; i++) {
		if (i)
			usleep(1000);
		assert_ok(morsel_advise(scene->morsel, page * PAGE, (end - page) * PAGE,
					MORSEL_ADVICE_EVICT));
		while (page < end &&
		       mrs_entry_state(entry_of(scene->morsel, page)) == MRS_ENTRY_EVICTED)
			page++;
	}
	assert_int_equal(page, end);
}

static struct mrs_window window_of(struct morsel_view *view)
{
	return (struct mrs_window){
		.fd = mrs_uffd_fd(view->morsel->pool),
		.address = (uintptr_t)view->target.addr,
		.pages = view->target.bytes / PAGE,
		.writable = view->target.access & MORSEL_WRITE,
		.listed = &view->listed,
	};
}

/* As if it had not been told of the last move of its morsel. */
static void make_stale(struct morsel_view *view)
{
	struct mrs_cell_coherence *coherence = mrs_morsel_coherence(view->morsel);

	mrs_fetch_add(&coherence->moves, 1);
}

/* Somebody clones the morsel, or not any more. */
static void freeze(struct scene *scene)
{
	mrs_store_release(&mrs_morsel_coherence(scene->morsel)->frozen, 1);
}

static void thaw(struct scene *scene)
{
	mrs_store_release(&mrs_morsel_coherence(scene->morsel)->frozen, 0);
}

/* ---- while a clone is being made ---- */

static void nothing_stale_becomes_writable(void **state)
{
	struct mrs_window window;
	struct scene scene;

	scene_begin(&scene);
	window = window_of(scene.view);
	evict(&scene, 3, 1);
	expect_all(scene.view, 1000);
	assert_false(entry_of(scene.morsel, 3) & MRS_ENTRY_DIRTY);
	make_stale(scene.view);
	freeze(&scene);
	for (enum mrs_fault_kind kind = MRS_FAULT_MISSING; kind <= MRS_FAULT_PROTECTED; kind++) {
		assert_int_equal(mrs_fault(scene.morsel, &window, 3, kind | MRS_FAULT_TRY),
				 -EAGAIN);
		assert_false(entry_of(scene.morsel, 3) & MRS_ENTRY_DIRTY);
	}
	thaw(&scene);
	assert_int_equal(mrs_fault(scene.morsel, &window, 3, MRS_FAULT_MISSING), 0);
	*word_at(scene.view, 3) = 1003;
	expect_all(scene.view, 1000);
	scene_end(&scene);
}

static void nothing_moves(void **state)
{
	struct scene scene;
	uint64_t frame, to;

	scene_begin(&scene);
	assert_ok(move(scene.morsel, 5));
	frame = frame_of(scene.morsel, 5);
	freeze(&scene);
	to = free_frame(scene.pool);
	assert_int_equal(mrs_move_here(scene.morsel, 5, frame, to), -EAGAIN);
	assert_int_equal(frame_of(scene.morsel, 5), frame);
	thaw(&scene);
	assert_ok(move(scene.morsel, 5));
	expect_all(scene.view, 1000);
	assert_int_equal(mrs_quarantine_sweep(scene.pool), 0);
	scene_end(&scene);
}

static void nothing_is_given_back(void **state)
{
	struct mrs_evict_job job = {.page = 7, .pages = 2, .discard = true, .strict = true};
	struct scene scene;

	scene_begin(&scene);
	freeze(&scene);
	job.morsel = scene.morsel;
	assert_int_equal(mrs_evict_job(&job), -EAGAIN);
	expect_all(scene.view, 1000);
	thaw(&scene);
	assert_ok(morsel_advise(scene.morsel, 7 * PAGE, PAGE, MORSEL_ADVICE_FREE));
	assert_int_equal(*word_at(scene.view, 7), 0);
	scene_end(&scene);
}

struct cloning {
	struct morsel *source, *clone;
	int rc;
};

static void *make_clone(void *arg)
{
	struct cloning *cloning = arg;

	cloning->rc = morsel_clone(cloning->source, "c", &cloning->clone);
	return NULL;
}

struct faulting {
	struct morsel *morsel;
	struct mrs_window window;
	int rc;
};

static void *fault(void *arg)
{
	struct faulting *faulting = arg;

	faulting->rc = mrs_fault(faulting->morsel, &faulting->window, 9, MRS_FAULT_PROTECTED);
	return NULL;
}

/* The leaf is found before the clone shares it, and locked when the clone is over. */
static void a_leaf_that_was_found_before(void **state)
{
	struct cloning cloning;
	struct faulting faulting;
	pthread_t cloner, faulter;
	struct morsel_view *other;
	struct scene scene;

	scene_begin(&scene);
	cloning = (struct cloning){.source = scene.morsel};
	faulting = (struct faulting){.morsel = scene.morsel, .window = window_of(scene.view)};
	stop_at(0, "clone.settled");
	assert_int_equal(pthread_create(&cloner, NULL, make_clone, &cloning), 0);
	await_stop(0);
	stop_at(1, "retarget.aimed");
	assert_int_equal(pthread_create(&faulter, NULL, fault, &faulting), 0);
	await_stop(1);
	let_go(0);
	assert_int_equal(pthread_join(cloner, NULL), 0);
	assert_ok(cloning.rc);
	let_go(1);
	assert_int_equal(pthread_join(faulter, NULL), 0);
	assert_ok(faulting.rc);
	*word_at(scene.view, 9) = 77;
	other = map(cloning.clone, MORSEL_VIEW_STITCHED, MORSEL_READ);
	expect_all(other, 1000);
	morsel_view_destroy(other);
	assert_ok(morsel_close(cloning.clone));
	scene_end(&scene);
}

/* ---- views that have not followed a move ---- */

/* The view shows the number that the page has left, as if its process had been stopped. */
static void look_back(struct morsel_view *view, uint64_t page, uint64_t frame)
{
	char *at = (char *)morsel_addr(view) + page * PAGE;

	assert_true(mmap(at, PAGE,
			 PROT_READ | (view->target.access & MORSEL_WRITE ? PROT_WRITE : 0),
			 MAP_SHARED | MAP_FIXED, morsel_pool_fd(view->morsel->pool),
			 (off_t)(frame * PAGE)) == at);
	assert_int_equal(madvise(at, PAGE, MADV_DONTFORK), 0);
	assert_ok(mrs_uffd_register(view->morsel->pool, at, PAGE));
	mrs_registry_follow(view->listed, mrs_registry_followed(view->listed) - 1);
}

static void a_grant_of_what_was_evicted_elsewhere(void **state)
{
	struct morsel_grant grant;
	struct morsel_view *view;
	struct scene scene;
	uint64_t old;

	scene_begin(&scene);
	view = map(scene.morsel, MORSEL_VIEW_STITCHED, MORSEL_READ);
	old = frame_of(scene.morsel, 4);
	assert_ok(move(scene.morsel, 4));
	look_back(view, 4, old);
	evict(&scene, 4, 1);
	assert_ok(morsel_acquire(view, 0, 16 * PAGE, MORSEL_READ, &grant));
	assert_int_equal(mrs_pool_lacks(scene.pool, old, 1), 1);
	assert_int_equal(mrs_pool_lacks(scene.pool, frame_of(scene.morsel, 4), 1), 0);
	expect_all(view, 1000);
	expect_all(scene.view, 1000);
	morsel_release(&grant);
	morsel_view_destroy(view);
	assert_int_equal(mrs_quarantine_sweep(scene.pool), 0);
	scene_end(&scene);
}

/* Another party: a handle of its own, with its own slot, service thread and descriptor. */
static struct morsel_pool *again(struct morsel_pool *pool)
{
	struct morsel_pool *other;
	int fd = dup(morsel_pool_fd(pool));

	assert_true(fd >= 0);
	assert_ok(morsel_pool_open_fd(fd, NULL, &other));
	return other;
}

/* The letter is served when the page has gone: the hole must not be mapped unwatched. */
static void a_letter_that_is_late(void **state)
{
	struct morsel_pool *pool;
	struct morsel *morsel;
	struct morsel_view *view;
	struct scene scene;
	uint64_t seen;

	scene_begin(&scene);
	pool = again(scene.pool);
	morsel = object_open(pool, "m");
	view = map(morsel, MORSEL_VIEW_STITCHED, MORSEL_READ);
	pthread_mutex_lock(&view->lock);
	assert_ok(move(scene.morsel, 4));
	evict(&scene, 4, 1);
	stop_at(0, "view.follow.mapped");
	stop_at(1, "view.told.done");
	pthread_mutex_unlock(&view->lock);
	while (!mrs_load_acquire32(&stops[0].there) && !mrs_load_acquire32(&stops[1].there))
		usleep(100);
	seen = *word_at(view, 4);
	let_go(0);
	let_go(1);
	assert_int_equal(seen, 1004);
	expect_all(scene.view, 1000);
	/* It has not followed, and does when it is asked. */
	assert_int_equal(mrs_quarantine_sweep(scene.pool), 1);
	for (unsigned i = 0; mrs_quarantine_sweep(scene.pool) && i < 1000; i++) {
		mrs_quarantine_hurry(scene.pool);
		usleep(1000);
	}
	assert_int_equal(mrs_quarantine_sweep(scene.pool), 0);
	expect_all(view, 1000);
	morsel_view_destroy(view);
	assert_ok(morsel_close(morsel));
	assert_ok(morsel_pool_close(pool));
	scene_end(&scene);
}

/* Who writes and has missed a move is in nobody's way for longer than it takes to tell him again.
 */
static void a_writer_that_lags_catches_up(void **state)
{
	struct morsel_pool *pool;
	struct morsel *morsel;
	struct morsel_view *view;
	struct scene scene;

	scene_begin(&scene);
	pool = again(scene.pool);
	morsel = object_open(pool, "m");
	view = map(morsel, MORSEL_VIEW_STITCHED, MORSEL_READ | MORSEL_WRITE);
	for (uint64_t page = 4; page < 8; page++) {
		pthread_mutex_lock(&view->lock);
		if (page == 4)
			assert_ok(move(scene.morsel, page));
		else /* it lags: its writes cannot be stopped */
			assert_int_equal(mrs_move(scene.morsel, page, frame_of(scene.morsel, page),
						  free_frame(scene.pool)),
					 -EAGAIN);
		pthread_mutex_unlock(&view->lock);
	}
	for (unsigned i = 0; mrs_quarantine_sweep(scene.pool) && i < 1000; i++) {
		mrs_quarantine_hurry(scene.pool);
		usleep(1000);
	}
	assert_int_equal(mrs_quarantine_sweep(scene.pool), 0);
	evict(&scene, 0, PAGES);
	*word_at(view, 4) = 5;
	*word_at(view, 5) = 6;
	assert_int_equal(*word_at(scene.view, 4), 5);
	assert_int_equal(*word_at(scene.view, 5), 6);
	morsel_view_destroy(view);
	assert_ok(morsel_close(morsel));
	assert_ok(morsel_pool_close(pool));
	scene_end(&scene);
}

/* The pager: moves page 4 when it is told to, and dies when the page is at its new place. */
static int child_move(struct morsel_pool *pool)
{
	struct morsel *morsel = object_open(pool, "d");
	struct morsel_view *view = map(morsel, MORSEL_VIEW_STITCHED, MORSEL_READ | MORSEL_WRITE);

	assert_ok(mrs_pager_ensure(pool));
	while (*word_at(view, 4) != 1004)
		usleep(1000);
	return move(morsel, 4);
}

static void a_mover_who_dies_is_counted(void **state)
{
	struct morsel_pool *pool = object_pool(64 * MIB);
	struct morsel *morsel = object_create(pool, "d", PAGES * PAGE,
					      MORSEL_EVICTABLE | MORSEL_SCATTERED, MORSEL_PAGES_4K);
	pid_t pid = object_child_start(pool, "move", "", "move.linked:1");
	struct morsel_view *view;
	int status;

	while (mrs_pager_slot(pool) >= MRS_SLOTS)
		usleep(1000);
	view = map(morsel, MORSEL_VIEW_STITCHED, MORSEL_READ | MORSEL_WRITE);
	put_all(view, 1000);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_true(morsel_pool_reap(pool) >= 0);
	assert_int_equal(mrs_quarantine_sweep(pool), 1);
	alarm(60);
	expect_all(view, 1000);
	put_all(view, 2000);
	alarm(0);
	for (unsigned i = 0; mrs_quarantine_sweep(pool) && i < 1000; i++) {
		mrs_quarantine_hurry(pool);
		usleep(1000);
	}
	assert_int_equal(mrs_quarantine_sweep(pool), 0);
	expect_all(view, 2000);
	morsel_view_destroy(view);
	assert_ok(morsel_close(morsel));
	object_pool_end(pool);
}

static uint64_t faults(struct morsel_pool *pool)
{
	return mrs_load_acquire(&mrs_pool_state(pool)->count[MRS_COUNT_FAULTS]);
}

static void a_grant_of_what_is_elsewhere(void **state)
{
	for (uint32_t access = MORSEL_READ; access <= MORSEL_WRITE; access++) {
		struct morsel_grant grant;
		struct scene scene;
		uint64_t old, before;

		scene_begin(&scene);
		old = frame_of(scene.morsel, 4);
		assert_ok(move(scene.morsel, 4));
		look_back(scene.view, 4, old);
		assert_ok(morsel_acquire(scene.view, 0, 16 * PAGE, (int)access, &grant));
		before = faults(scene.pool);
		expect_all(scene.view, 1000);
		*word_at(scene.view, 4) = 1004;
		assert_int_equal(faults(scene.pool), before);
		morsel_release(&grant);
		scene_end(&scene);
	}
}

/* ---- the first write, where a view cannot follow ---- */

/* The write fails or waits, and what it would have written is in nobody's page. */
static void a_view_that_cannot_follow(void **state)
{
	struct morsel_view *view;
	struct morsel *clone;
	struct scene scene;

	scene_begin(&scene);
	assert_ok(morsel_clone(scene.morsel, "c", &clone));
	fail_maps(0, 1);
	assert_int_equal(mrs_share_break(scene.morsel, 6, 1), -ENOMEM);
	*word_at(scene.view, 6) = 77;
	view = map(clone, MORSEL_VIEW_STITCHED, MORSEL_READ);
	expect_all(view, 1000);
	assert_int_equal(*word_at(scene.view, 6), 77);
	morsel_view_destroy(view);
	assert_ok(morsel_close(clone));
	scene_end(&scene);
}

/* Of several views of a relative some have followed: the others do, sooner or later. */
static void views_that_follow_late(void **state)
{
	struct morsel_view *view[3];
	struct morsel *clone, *other;
	struct morsel_pool *pool;
	struct scene scene;

	scene_begin(&scene);
	pool = again(scene.pool);
	view[2] = map(scene.morsel, MORSEL_VIEW_STITCHED, MORSEL_READ);
	assert_ok(morsel_clone(scene.morsel, "c", &clone));
	view[0] = map(clone, MORSEL_VIEW_STITCHED, MORSEL_READ | MORSEL_WRITE);
	other = object_open(pool, "c");
	view[1] = map(other, MORSEL_VIEW_STITCHED, MORSEL_READ | MORSEL_WRITE);
	for (uint64_t page = 0; page < 16; page++) {
		fail_maps((uint32_t)page % 3, 1 + (uint32_t)page % 2);
		*word_at(scene.view, page) = 77;
		fail_maps(0, 0);
		assert_int_equal(*word_at(view[2], page), 77);
		for (unsigned i = 0; i < 2; i++)
			assert_int_equal(*word_at(view[i], page), 1000 + page);
		*word_at(view[0], page) = 88;
		assert_int_equal(*word_at(view[1], page), 88);
		*word_at(view[1], page) = 99;
		assert_int_equal(*word_at(view[0], page), 99);
		assert_int_equal(*word_at(scene.view, page), 77);
	}
	for (unsigned i = 0; i < 3; i++)
		morsel_view_destroy(view[i]);
	assert_ok(morsel_close(other));
	assert_ok(morsel_pool_close(pool));
	assert_ok(morsel_close(clone));
	scene_end(&scene);
}

/* ---- two who do not follow ---- */

static uint64_t device_word(struct morsel_view *view, uint64_t page)
{
	struct morsel_grant grant;
	uint64_t word = 0;

	assert_ok(morsel_acquire(view, page * PAGE, PAGE, MORSEL_READ, &grant));
	assert_int_equal(object_device_read(view, page * PAGE, &word), 0);
	morsel_release(&grant);
	return word;
}

static void both_sides_are_fixed(void **state)
{
	struct morsel_view *pooled, *device[3], *written, *twice[2];
	struct morsel *morsel, *clone, *snapshot;
	struct morsel_grant grant;
	struct scene scene;
	uint64_t word;

	scene_begin(&scene);
	morsel = object_create(scene.pool, "p", PAGES * PAGE, MORSEL_EVICTABLE | MORSEL_CONTIGUOUS,
			       MORSEL_PAGES_4K);
	pooled = map(morsel, MORSEL_VIEW_POOLED, MORSEL_READ | MORSEL_WRITE);
	put_all(pooled, 1000);
	assert_ok(morsel_clone(morsel, "c", &clone));
	device[0] = object_device_view(morsel, MORSEL_READ);
	device[1] = object_device_view(clone, MORSEL_READ);
	assert_non_null(device[0]);
	assert_non_null(device[1]);
	written = map(clone, MORSEL_VIEW_STITCHED, MORSEL_READ | MORSEL_WRITE);
	alarm(30);
	/* The source's frame stays under both its views; the clone's device has none yet. */
	*word_at(pooled, 0) = 77;
	assert_int_equal(device_word(device[0], 0), 77);
	assert_int_equal(device_word(device[1], 0), 1000);
	/* The clone's views go away from the frame. */
	*word_at(written, 1) = 88;
	assert_int_equal(device_word(device[1], 1), 88);
	assert_int_equal(*word_at(pooled, 1), 1001);
	/* Granted, the frame is the clone's own. */
	assert_ok(morsel_acquire(device[1], 2 * PAGE, PAGE, MORSEL_READ, &grant));
	*word_at(pooled, 2) = 99;
	assert_int_equal(object_device_read(device[1], 2 * PAGE, &word), 0);
	assert_int_equal(word, 1002);
	*word_at(written, 2) = 55;
	assert_int_equal(object_device_read(device[1], 2 * PAGE, &word), 0);
	assert_int_equal(word, 55);
	assert_int_equal(*word_at(pooled, 2), 99);
	morsel_release(&grant);
	/* What a device still knows of a page that its morsel leaves to a relative it forgets. */
	assert_int_equal(device_word(device[1], 5), 1005);
	assert_ok(morsel_snapshot(clone, "s", &snapshot));
	assert_ok(morsel_close(snapshot));
	assert_ok(morsel_clone(clone, "d", &snapshot));
	for (unsigned i = 0; i < 2; i++)
		twice[i] = map(snapshot, MORSEL_VIEW_STITCHED, MORSEL_READ | MORSEL_WRITE);
	*word_at(twice[0], 5) = 66;
	assert_int_equal(*word_at(twice[1], 5), 66);
	assert_int_equal(device_word(device[1], 5), 1005);
	assert_int_equal(*word_at(written, 5), 1005);
	for (unsigned i = 0; i < 2; i++)
		morsel_view_destroy(twice[i]);
	assert_ok(morsel_close(snapshot));
	assert_ok(morsel_unlink(scene.pool, "s"));
	/* Nobody writes a snapshot, but its source is written. */
	assert_ok(morsel_snapshot(morsel, "s", &snapshot));
	device[2] = object_device_view(snapshot, MORSEL_READ);
	assert_non_null(device[2]);
	assert_int_equal(device_word(device[2], 3), 1003);
	*word_at(pooled, 3) = 44;
	*word_at(pooled, 4) = 44;
	assert_int_equal(device_word(device[2], 3), 1003);
	assert_int_equal(device_word(device[2], 4), 1004);
	assert_int_equal(device_word(device[0], 4), 44);
	alarm(0);
	morsel_view_destroy(device[2]);
	assert_ok(morsel_close(snapshot));
	morsel_view_destroy(written);
	morsel_view_destroy(device[1]);
	morsel_view_destroy(device[0]);
	morsel_view_destroy(pooled);
	assert_ok(morsel_close(clone));
	assert_ok(morsel_close(morsel));
	scene_end(&scene);
}

/* ---- soft removal of a view that may write ---- */

static uint32_t ask_self(struct scene *scene, enum mrs_request_op op)
{
	struct mrs_slot_set who = {{0}};
	uint32_t answer = 0;
	struct mrs_txn txn;

	mrs_slot_set_add(&who, mrs_pool_own_slot(scene->pool));
	assert_ok(mrs_txn_begin(scene->pool, MRS_INTENT_OTHER, &txn));
	assert_ok(mrs_mail_ask_for(&txn, &who, op, scene->morsel->cell, 0, 32, 0, LONG_NS, NULL,
				   &answer));
	mrs_txn_end(&txn);
	return answer;
}

static void marks_outlive_a_drop(void **state)
{
	struct scene scene;

	scene_begin(&scene);
	evict(&scene, 0, 32);
	expect_all(scene.view, 1000);
	/* All of them clean and protected now. */
	assert_int_equal(ask_self(&scene, MRS_REQUEST_SCAN), UINT32_MAX);
	ask_self(&scene, MRS_REQUEST_DROP);
	assert_int_equal(ask_self(&scene, MRS_REQUEST_SCAN), 0);
	for (uint64_t page = 0; page < 32; page += 2)
		assert_int_equal(*word_at(scene.view, page), 1000 + page);
	for (uint64_t page = 0; page < 32; page++)
		assert_false(entry_of(scene.morsel, page) & MRS_ENTRY_DIRTY);
	for (uint64_t page = 0; page < 32; page++)
		*word_at(scene.view, page) = 2000 + page;
	for (uint64_t page = 0; page < 32; page++)
		assert_true(entry_of(scene.morsel, page) & MRS_ENTRY_DIRTY);
	evict(&scene, 0, 32);
	for (uint64_t page = 0; page < PAGES; page++)
		assert_int_equal(*word_at(scene.view, page), (page < 32 ? 2000 : 1000) + page);
	scene_end(&scene);
}

static int run_child(char **argv)
{
	struct morsel_pool *pool;

	if (morsel_pool_open_fd(atoi(argv[3]), NULL, &pool))
		return 2;
	return child_move(pool);
}

/* ---- what relatives have saved ---- */

/* A page that one saved in its third epoch is not clean in the third epoch of another. */
static void epochs_of_relatives_are_their_own(void **state)
{
	struct morsel_view *view[2];
	struct morsel *clone;
	struct scene scene;

	scene_begin(&scene);
	assert_ok(morsel_clone(scene.morsel, "c", &clone));
	for (unsigned i = 0; i < 2; i++)
		morsel_view_destroy(
			map(scene.morsel, MORSEL_VIEW_STITCHED, MORSEL_READ | MORSEL_WRITE));
	evict(&scene, 0, PAGES);
	expect_all(scene.view, 1000);
	morsel_view_destroy(scene.view);
	assert_ok(morsel_close(scene.morsel));
	assert_ok(morsel_unlink(scene.pool, "m"));
	scene.morsel = clone;
	view[0] = map(clone, MORSEL_VIEW_STITCHED, MORSEL_READ | MORSEL_WRITE);
	*word_at(view[0], 0) = 1000; /* there is nobody to share with any more */
	view[1] = map(clone, MORSEL_VIEW_STITCHED, MORSEL_READ | MORSEL_WRITE);
	*word_at(view[1], 5) = 77;
	evict(&scene, 0, PAGES);
	assert_int_equal(*word_at(view[1], 5), 77);
	*word_at(view[1], 5) = 1005;
	expect_all(view[0], 1000);
	morsel_view_destroy(view[0]);
	scene.view = view[1];
	scene_end(&scene);
}

/* ---- in a handler of SIGBUS ---- */

/* Nothing is allocated there, and no library opened: the interrupted thread may be in the midst of
 * it. */
static void a_handler_finds_all_there(void **state)
{
	static const uint32_t policies[] = {MORSEL_PAGES_4K, MORSEL_PAGES_2M};

	for (unsigned i = 0; i < mrs_array_length(policies); i++) {
		struct morsel_view *view;
		struct morsel *clone;
		struct scene scene;

		scene_of(&scene, MORSEL_FAULTS_SIGBUS, policies[i]);
		evict(&scene, 0, PAGES);
		allocated = 0;
		only_touches = true;
		for (uint64_t page = 0; page < PAGES; page++)
			*word_at(scene.view, page) += page % 2 ? 0 : 1000;
		only_touches = false;
		assert_int_equal(allocated, 0);
		assert_ok(morsel_clone(scene.morsel, "c", &clone));
		only_touches = true;
		for (uint64_t page = 0; page < PAGES; page++)
			*word_at(scene.view, page) = 3000 + page;
		only_touches = false;
		assert_int_equal(allocated, 0);
		view = map(clone, MORSEL_VIEW_STITCHED, MORSEL_READ);
		for (uint64_t page = 0; page < PAGES; page++)
			assert_int_equal(*word_at(view, page), (page % 2 ? 1000 : 2000) + page);
		expect_all(scene.view, 3000);
		morsel_view_destroy(view);
		assert_ok(morsel_close(clone));
		scene_end(&scene);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_stale_becomes_writable),
		cmocka_unit_test(nothing_moves),
		cmocka_unit_test(nothing_is_given_back),
		cmocka_unit_test(a_leaf_that_was_found_before),
		cmocka_unit_test(a_grant_of_what_was_evicted_elsewhere),
		cmocka_unit_test(a_grant_of_what_is_elsewhere),
		cmocka_unit_test(a_letter_that_is_late),
		cmocka_unit_test(a_writer_that_lags_catches_up),
		cmocka_unit_test(a_mover_who_dies_is_counted),
		cmocka_unit_test(a_view_that_cannot_follow),
		cmocka_unit_test(views_that_follow_late),
		cmocka_unit_test(both_sides_are_fixed),
		cmocka_unit_test(marks_outlive_a_drop),
		cmocka_unit_test(epochs_of_relatives_are_their_own),
		cmocka_unit_test(a_handler_finds_all_there),
	};

	if (argc > 1 && !strcmp(argv[1], "--child"))
		return run_child(argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
