/*
 * Faults and fills through a window, beside an eviction in plain steps: what comes back is what was
 * there, and what was written is never lost.
 */
#include "object_window.h"

#include <errno.h>
#include <unistd.h>

#include "object/bring.h"
#include "support/counts.h"

#define PAGES 1024u
#define BYTES (PAGES * 4096ull)

struct fixture {
	struct morsel_pool *pool;
	struct morsel *morsel;
	struct mrs_window window;
	const struct mrs_window *list[2];
};

static void setup(struct fixture *f, uint32_t pages, bool writable, bool file)
{
	f->pool = window_pool(64 * MIB, file);
	f->morsel = object_create(f->pool, "m", BYTES, MORSEL_EVICTABLE, pages);
	object_write(f->morsel, 1, 0, BYTES);
	window_open(f->morsel, writable, &f->window);
	f->list[0] = &f->window;
}

static void teardown(struct fixture *f)
{
	window_close(&f->window);
	assert_ok(morsel_close(f->morsel));
	window_pool_end(f->pool);
}

static void assert_page(const struct fixture *f, uint64_t page, uint64_t seed)
{
	const uint64_t *at = (const uint64_t *)window_at(&f->window, page);

	for (unsigned i = 0; i < 512; i++)
		if (at[i] != object_word(seed, page * 4096 + i * 8))
			fail_msg("page %llu, word %u", (unsigned long long)page, i);
}

/* Evicted and touched, page by page, in every policy and from each kind of target. */
static void test_there_and_back(void **state)
{
	static const uint32_t policy[] = {MORSEL_PAGES_4K, MORSEL_PAGES_MIXED, MORSEL_PAGES_2M};

	for (unsigned i = 0; i < 6; i++) {
		struct window_server server;
		struct fixture f;

		setup(&f, policy[i / 2], true, i % 2);
		assert_int_equal(window_evict(f.morsel, 0, PAGES, f.list, 1), PAGES);
		for (unsigned p = 0; p < PAGES; p++)
			assert_false(window_is_resident(f.morsel, p));
		window_serve(&server, f.morsel, &f.window);
		for (unsigned p = 0; p < PAGES; p += 1 + p % 7)
			assert_page(&f, p * 389 % PAGES, 1);
		for (unsigned p = 0; p < PAGES; p++)
			assert_page(&f, p, 1);
		window_serve_stop(&server);
		assert_int_equal(server.failed, 0);
		object_check(f.pool);
		teardown(&f);
	}
}

/* ---- protection ---- */

/* When who serves it has done: the toucher goes on a little earlier. */
static bool is_dirty(const struct fixture *f, uint64_t page)
{
	uint64_t entry;

	while (mrs_entry_lock(entry = window_entry(f->morsel, page)))
		usleep(100);
	return entry & MRS_ENTRY_DIRTY;
}

/* Read back, a page is clean and stays protected; the first write is told of; then it is dirty. */
static void test_clean_until_written(void **state)
{
	struct window_server server;
	struct fixture f;

	setup(&f, MORSEL_PAGES_4K, true, false);
	window_evict(f.morsel, 0, PAGES, f.list, 1);
	window_serve(&server, f.morsel, &f.window);
	for (unsigned p = 0; p < 64; p++)
		assert_page(&f, p, 1);
	for (unsigned p = 0; p < 64; p++)
		assert_false(is_dirty(&f, p));
	for (unsigned p = 0; p < 64; p += 2) {
		uint64_t served = mrs_load_acquire(&server.served);

		*(volatile uint64_t *)window_at(&f.window, p) = 7;
		assert_true(mrs_load_acquire(&server.served) > served);
		assert_true(is_dirty(&f, p));
		assert_false(is_dirty(&f, p + 1));
	}
	/* Clean ones go without being saved, dirty ones with what was written. */
	window_evict(f.morsel, 0, PAGES, f.list, 1);
	for (unsigned p = 0; p < 64; p++)
		assert_int_equal(*(volatile uint64_t *)window_at(&f.window, p),
				 p % 2 ? object_word(1, p * 4096) : 7);
	window_serve_stop(&server);
	assert_int_equal(server.failed, 0);
	teardown(&f);
}

/* A first touch that writes is one fault, not two; its neighbours stay clean. */
static void test_first_touch_writes(void **state)
{
	struct window_server server;
	struct fixture f;

	setup(&f, MORSEL_PAGES_4K, true, false);
	window_evict(f.morsel, 0, PAGES, f.list, 1);
	window_serve(&server, f.morsel, &f.window);
	*(volatile uint64_t *)window_at(&f.window, 100) = 9;
	window_serve_stop(&server);
	assert_int_equal(server.served, 1);
	for (unsigned p = 0; p < PAGES; p++)
		assert_int_equal(is_dirty(&f, p), p == 100);
	teardown(&f);
}

/* ---- what is there already ---- */

static void test_resident_wins(void **state)
{
	struct fixture f;
	uint64_t frame;

	/* What a filler leaves that died, and a peer that wrote since: memory, and EVICTED. */
	setup(&f, MORSEL_PAGES_4K, true, false);
	window_evict(f.morsel, 0, 4, f.list, 1);
	frame = mrs_entry_frame(window_entry(f.morsel, 1));
	*(uint64_t *)mrs_pool_at(f.pool, frame, 1) = 77;
	assert_true(window_is_resident(f.morsel, 1));
	assert_int_equal(mrs_fault(f.morsel, &f.window, 1, MRS_FAULT_MISSING), 0);
	assert_int_equal(*(volatile uint64_t *)window_at(&f.window, 1), 77);
	assert_true(is_dirty(&f, 1));
	assert_int_equal(mrs_entry_state(window_entry(f.morsel, 1)), MRS_ENTRY_MAPPED);
	teardown(&f);
}

static void test_given_back_is_zero(void **state)
{
	struct window_server server;
	struct fixture f;

	setup(&f, MORSEL_PAGES_4K, true, false);
	mrs_pool_unback(f.pool, mrs_entry_frame(window_entry(f.morsel, 3)), 1);
	window_serve(&server, f.morsel, &f.window);
	for (unsigned i = 0; i < 4096; i++)
		assert_int_equal(window_at(&f.window, 3)[i], 0);
	assert_page(&f, 2, 1);
	window_serve_stop(&server);
	assert_int_equal(server.failed, 0);
	teardown(&f);
}

/* Two windows stand for two processes: the page is read once. */
static void test_peers_fill_once(void **state)
{
	struct window_server server[2];
	struct mrs_window other;
	struct fixture f;
	uint64_t in;

	setup(&f, MORSEL_PAGES_4K, true, false);
	window_open(f.morsel, true, &other);
	f.list[1] = &other;
	window_evict(f.morsel, 0, PAGES, f.list, 2);
	in = mrs_pool_state(f.pool)->count[MRS_COUNT_PAGES_IN];
	window_serve(&server[0], f.morsel, &f.window);
	window_serve(&server[1], f.morsel, &other);
	for (unsigned p = 0; p < PAGES; p++)
		assert_int_equal(window_at(&f.window, p)[8], window_at(&other, p)[8]);
	for (unsigned i = 0; i < 2; i++)
		window_serve_stop(&server[i]);
	assert_int_equal(mrs_pool_state(f.pool)->count[MRS_COUNT_PAGES_IN], in + PAGES);
	window_close(&other);
	teardown(&f);
}

/* ---- what cannot be had ---- */

static void test_end_and_holes(void **state)
{
	struct fixture f;

	setup(&f, MORSEL_PAGES_4K, true, false);
	assert_int_equal(mrs_fault(f.morsel, &f.window, PAGES, MRS_FAULT_MISSING), -ERANGE);
	assert_int_equal(mrs_fault(f.morsel, &f.window, PAGES + 5000, MRS_FAULT_PROTECTED),
			 -ERANGE);
	assert_int_equal(mrs_fault(f.morsel, &f.window, PAGES, MRS_FAULT_MISSING | MRS_FAULT_TRY),
			 -ERANGE);
	teardown(&f);
}

static int lock_page(struct fixture *f, uint64_t page, struct mrs_retarget *batch)
{
	return mrs_retarget_one(f->morsel, MRS_RETARGET_EVICT, page, batch);
}

/* TRY does not wait for a locked leaf; and neighbours that are locked do not matter. */
static void test_try(void **state)
{
	struct mrs_retarget batch;
	struct fixture f;

	setup(&f, MORSEL_PAGES_4K, true, false);
	window_evict(f.morsel, 0, 64, f.list, 1);
	assert_ok(lock_page(&f, 5, &batch));
	/* A second transition of this process, in another thread's name, is what this stands for.
	 */
	mrs_txn_park(f.pool);
	assert_int_equal(mrs_fault(f.morsel, &f.window, 5, MRS_FAULT_MISSING | MRS_FAULT_TRY),
			 -EAGAIN);
	assert_int_equal(mrs_fault(f.morsel, &f.window, 6, MRS_FAULT_MISSING | MRS_FAULT_TRY), 0);
	mrs_txn_unpark(f.pool, true);
	mrs_retarget_abort(&batch);
	assert_false(window_is_resident(f.morsel, 5));
	assert_true(window_is_resident(f.morsel, 6));
	assert_true(window_is_resident(f.morsel, 7));
	assert_int_equal(mrs_fault(f.morsel, &f.window, 5, MRS_FAULT_MISSING | MRS_FAULT_TRY), 0);
	teardown(&f);
}

/* A slot that reads wrong: that page only, for good; also out of a leaf of 512. */
static void test_poison(void **state)
{
	static const uint32_t policy[] = {MORSEL_PAGES_4K, MORSEL_PAGES_2M};

	for (unsigned i = 0; i < 2; i++) {
		struct mrs_swap_page page;
		struct mrs_retarget batch;
		struct fixture f;
		uint32_t epoch;
		uint64_t frame;

		setup(&f, policy[i], true, false);
		window_evict(f.morsel, 0, PAGES, f.list, 1);
		frame = mrs_entry_frame(window_entry(f.morsel, 0)) + 9;
		assert_ok(lock_page(&f, 9, &batch));
		assert_true(mrs_swap_kept(f.pool, frame, &page, &epoch));
		page.crc ^= 1;
		assert_ok(mrs_swap_keep(&batch.txn, frame, &page, epoch));
		mrs_retarget_abort(&batch);
		assert_int_equal(mrs_fault(f.morsel, &f.window, 9, MRS_FAULT_MISSING), -EIO);
		assert_int_equal(mrs_fault(f.morsel, &f.window, 9, MRS_FAULT_WRITE), -EIO);
		assert_int_equal(mrs_entry_state(window_entry(f.morsel, 9)), MRS_ENTRY_POISONED);
		assert_fails(mrs_fill_range(f.morsel, &f.window, 0, 20, false), -EIO, "lost");
		assert_ok(mrs_fill_range(f.morsel, &f.window, 10, PAGES - 10, false));
		for (unsigned p = 0; p < PAGES; p++)
			if (p != 9)
				assert_page(&f, p, 1);
		assert_int_equal(mrs_pool_state(f.pool)->count[MRS_COUNT_POISONED], 1);
		object_check(f.pool);
		teardown(&f);
	}
}

/* ---- ranges ---- */

/* After a fill for writing no touch faults any more: nobody would answer. */
static void test_fill_range(void **state)
{
	static const uint32_t policy[] = {MORSEL_PAGES_4K, MORSEL_PAGES_MIXED, MORSEL_PAGES_2M};

	for (unsigned i = 0; i < 6; i++) {
		struct fixture f;

		setup(&f, policy[i / 2], true, i % 2);
		window_evict(f.morsel, 0, PAGES, f.list, 1);
		assert_ok(mrs_fill_range(f.morsel, &f.window, 3, 700, false));
		for (unsigned p = 3; p < 703; p++)
			assert_page(&f, p, 1);
		assert_false(window_is_resident(f.morsel, PAGES - 1) && i < 2);
		assert_ok(mrs_fill_range(f.morsel, &f.window, 0, PAGES, true));
		for (unsigned p = 0; p < PAGES; p++) {
			assert_true(is_dirty(&f, p));
			*(volatile uint64_t *)window_at(&f.window, p) = p;
		}
		window_evict(f.morsel, 0, PAGES, f.list, 1);
		assert_ok(mrs_fill_range(f.morsel, &f.window, 0, PAGES, false));
		for (unsigned p = 0; p < PAGES; p++)
			assert_int_equal(*(volatile uint64_t *)window_at(&f.window, p), p);
		object_check(f.pool);
		teardown(&f);
	}
}

/* A window on the middle of leaves of 512: they are split, and nothing outside is touched. */
static void test_narrow_window(void **state)
{
	struct mrs_window narrow;
	struct fixture f;

	setup(&f, MORSEL_PAGES_2M, true, false);
	window_evict(f.morsel, 0, PAGES, f.list, 1);
	narrow = f.window;
	narrow.first = 500;
	narrow.pages = 30;
	narrow.address += 500 * 4096;
	assert_ok(mrs_fill_range(f.morsel, &narrow, 500, 30, false));
	for (unsigned p = 0; p < PAGES; p++)
		assert_int_equal(window_is_resident(f.morsel, p), p >= 500 && p < 530);
	for (unsigned p = 500; p < 530; p++)
		assert_page(&f, p, 1);
	object_check(f.pool);
	teardown(&f);
}

/* ---- neighbours ---- */

static uint64_t faults_of(struct fixture *f, uint64_t first, uint64_t step, unsigned n)
{
	struct window_server server;

	window_evict(f->morsel, 0, PAGES, f->list, 1);
	window_serve(&server, f->morsel, &f->window);
	for (unsigned i = 0; i < n; i++)
		assert_page(f, (first + i * step) % PAGES, 1);
	window_serve_stop(&server);
	return server.served;
}

static void test_read_ahead(void **state)
{
	struct mrs_cell_coherence *coherence;
	struct fixture f;

	setup(&f, MORSEL_PAGES_4K, true, false);
	coherence = mrs_morsel_coherence(f.morsel);
	/* In order: 16, 32, 64 ... */
	assert_in_range(faults_of(&f, 0, 1, PAGES), 2, 16);
	coherence->advice = MORSEL_ADVICE_SEQUENTIAL;
	assert_int_equal(faults_of(&f, 0, 1, PAGES), 2);
	coherence->advice = MORSEL_ADVICE_RANDOM;
	assert_int_equal(faults_of(&f, 0, 1, PAGES), PAGES);
	coherence->advice = 0;
	/* Far apart: fetching around soon ends. */
	faults_of(&f, 5, 389, 200);
	assert_in_range(mrs_pool_state(f.pool)->count[MRS_COUNT_READ_AHEAD], 1, 3 * PAGES);
	teardown(&f);
}

/* ---- stale mappings ---- */

/* The page comes to another frame, as a mover does it; no view is told. Returns the old frame. */
static uint64_t move_page(struct fixture *f, uint64_t page)
{
	struct mrs_retarget batch;
	uint64_t from, to;

	assert_ok(mrs_retarget_one(f->morsel, MRS_RETARGET_DIRTY, page, &batch));
	from = mrs_entry_frame(batch.before[0]);
	assert_ok(mrs_txn_get(&batch.txn, 0, MRS_FRAME_MOVABLE, 0, &to));
	assert_ok(mrs_pool_back(&batch.txn, to, 1, 0, NULL));
	memcpy(mrs_pool_at(f->pool, to, 1), mrs_pool_at(f->pool, from, 1), 4096);
	mrs_swap_forget(&batch.txn, from);
	mrs_pool_unback(f->pool, from, 1);
	mrs_fetch_add(&mrs_morsel_coherence(f->morsel)->moves, 1);
	mrs_retarget_set(&batch, 0, mrs_entry_make(MRS_ENTRY_MAPPED, 0, to) | MRS_ENTRY_DIRTY);
	mrs_txn_settle(&batch.txn);
	mrs_retarget_end(&batch);
	return from;
}

static void put_frame(struct fixture *f, uint64_t frame)
{
	struct mrs_txn txn;

	assert_ok(mrs_txn_begin(f->pool, MRS_INTENT_OTHER, &txn));
	mrs_txn_put_begin(&txn, 0, frame);
	mrs_txn_put_end(&txn);
	mrs_txn_end(&txn);
}

/* A touch maps the new frame, also where the page was evicted since; the library's own thread
 * serves. */
static void test_stale_view(void **state)
{
	static const uint32_t access[] = {MORSEL_READ, MORSEL_READ | MORSEL_WRITE};

	for (unsigned kind = 0; kind < 2; kind++) {
		struct morsel_map_opts opts = {
			.size = sizeof(opts), .kind = MORSEL_VIEW_STITCHED, .access = access[kind]};
		uint64_t old[3];
		struct morsel_view *view;
		struct fixture f;

		setup(&f, MORSEL_PAGES_4K, false, false);
		assert_ok(morsel_map(f.morsel, &opts, &view));
		/* Its pages are there, and in this process's table. */
		assert_int_equal(*(volatile uint64_t *)morsel_addr(view), object_word(1, 0));
		for (unsigned i = 0; i < 3; i++)
			old[i] = move_page(&f, 5 + i);
		assert_int_equal(window_evict(f.morsel, 6, 1, NULL, 0), 1);
		f.window.address = (uintptr_t)morsel_addr(view);
		for (unsigned p = 0; p < 16; p++)
			assert_page(&f, p, 1);
		for (unsigned i = 0; kind && i < 16; i++) {
			uint64_t frame;

			*(volatile uint64_t *)window_at(&f.window, i) = 55 + i;
			frame = mrs_entry_frame(window_entry(f.morsel, i));
			assert_int_equal(*(uint64_t *)mrs_pool_at(f.pool, frame, 1), 55 + i);
		}
		/* Nothing was written to where the pages were. */
		for (unsigned i = 0; i < 3; i++)
			assert_false(mrs_bring_is_resident(f.pool, old[i]));
		morsel_view_destroy(view);
		for (unsigned i = 0; i < 3; i++)
			put_frame(&f, old[i]);
		assert_ok(morsel_close(f.morsel));
		window_pool_end(f.pool);
	}
}

/* ---- writers against an evictor ---- */

#define WRITERS 3
#define HOT	24u /* pages that all of them write */

struct writer {
	const struct mrs_window *window;
	unsigned number;
	uint32_t *stop;
	uint64_t written[HOT];
	uint64_t lost;
	pthread_t thread;
};

/* Each writer owns one word of each page, which only he writes. */
static void *writer_main(void *argument)
{
	struct writer *w = argument;
	uint64_t random = w->number + 1;

	while (!mrs_load_acquire32(w->stop)) {
		unsigned p = (unsigned)(test_random(&random) % HOT);
		uint64_t *word = (uint64_t *)window_at(w->window, p) + w->number;

		if (mrs_load_acquire(word) != w->written[p])
			w->lost++;
		mrs_store_release(word, ++w->written[p]);
	}
	return NULL;
}

static void test_writers_lose_nothing(void **state)
{
	static const uint32_t policy[] = {MORSEL_PAGES_4K, MORSEL_PAGES_MIXED};

	for (unsigned kind = 0; kind < 2; kind++) {
		struct window_server server[WRITERS];
		struct mrs_window window[WRITERS];
		const struct mrs_window *list[WRITERS];
		struct writer writer[WRITERS];
		uint64_t random = test_seed(), evicted = 0;
		uint32_t stop = 0;
		struct fixture f;

		setup(&f, policy[kind], true, false);
		memset(writer, 0, sizeof(writer));
		assert_ok(mrs_fill_range(f.morsel, &f.window, 0, PAGES, true));
		for (unsigned p = 0; p < HOT; p++)
			memset(window_at(&f.window, p), 0, 4096);
		for (unsigned i = 0; i < WRITERS; i++) {
			window_open(f.morsel, true, &window[i]);
			list[i] = &window[i];
			window_serve(&server[i], f.morsel, &window[i]);
			writer[i].window = &window[i];
			writer[i].number = i;
			writer[i].stop = &stop;
		}
		for (unsigned i = 0; i < WRITERS; i++)
			pthread_create(&writer[i].thread, NULL, writer_main, &writer[i]);
		while (evicted < COUNT_FAULT_EVICTIONS) {
			uint64_t p = test_random(&random) % HOT;

			evicted += window_evict(f.morsel, p, 1 + test_random(&random) % 4, list,
						WRITERS);
		}
		mrs_store_release32(&stop, 1);
		for (unsigned i = 0; i < WRITERS; i++) {
			pthread_join(writer[i].thread, NULL);
			assert_int_equal(writer[i].lost, 0);
		}
		for (unsigned p = 0; p < HOT; p++)
			for (unsigned i = 0; i < WRITERS; i++)
				assert_int_equal(((uint64_t *)window_at(&window[0], p))[i],
						 writer[i].written[p]);
		for (unsigned i = 0; i < WRITERS; i++) {
			window_serve_stop(&server[i]);
			assert_int_equal(server[i].failed, 0);
			window_close(&window[i]);
		}
		printf("%llu evictions under %u writers\n", (unsigned long long)evicted, WRITERS);
		object_check(f.pool);
		teardown(&f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_there_and_back),
		cmocka_unit_test(test_clean_until_written),
		cmocka_unit_test(test_first_touch_writes),
		cmocka_unit_test(test_resident_wins),
		cmocka_unit_test(test_given_back_is_zero),
		cmocka_unit_test(test_peers_fill_once),
		cmocka_unit_test(test_end_and_holes),
		cmocka_unit_test(test_try),
		cmocka_unit_test(test_poison),
		cmocka_unit_test(test_fill_range),
		cmocka_unit_test(test_narrow_window),
		cmocka_unit_test(test_read_ahead),
		cmocka_unit_test(test_stale_view),
		cmocka_unit_test(test_writers_lose_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
