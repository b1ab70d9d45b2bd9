/*
 * See object_window.h.
 */
#include "object_window.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <morsel/swap.h>

#include "base/compat.h"
#include "object/bring.h"
#include "pool/property.h"
#include "view/pager.h"

struct morsel_pool *window_pool(uint64_t bytes, bool file)
{
	struct morsel_pool *pool = object_pool(bytes);
	struct morsel_swap_opts opts = {.size = sizeof(opts), .bytes = bytes / 2};
	char path[64];

	snprintf(path, sizeof(path), "/tmp/morsel-test-swap-%d", getpid());
	if (file) {
		opts.path = path;
		opts.flags = MORSEL_SWAP_PLAIN_IO | MORSEL_SWAP_SPARSE;
	}
	assert_ok(morsel_swap_add(pool, &opts, NULL));
	return pool;
}

void window_pool_end(struct morsel_pool *pool)
{
	char path[64];

	object_pool_end(pool);
	snprintf(path, sizeof(path), "/tmp/morsel-test-swap-%d", getpid());
	unlink(path);
}

static int open_uffd(void)
{
	struct uffdio_api api = {.api = UFFD_API,
				 .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP |
					     UFFD_FEATURE_MISSING_SHMEM |
					     UFFD_FEATURE_WP_HUGETLBFS_SHMEM};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api)) {
		print_message("skipped: no userfaultfd here\n");
		skip();
	}
	return fd;
}

static int map_run(void *ctx, const struct mrs_run *run)
{
	struct mrs_window *window = ctx;
	int prot = PROT_READ | (window->writable ? PROT_WRITE : 0);
	void *at = window_at(window, run->page);

	if (!run->mapped)
		return 0;
	if (mmap(at, run->pages * 4096, prot, MAP_SHARED | MAP_FIXED, (int)(intptr_t)window->listed,
		 (off_t)(run->frame * 4096)) != at)
		return -errno;
	return 0;
}

void window_open(struct morsel *morsel, bool writable, struct mrs_window *window)
{
	uint64_t pages = mrs_morsel_pages(morsel);
	struct uffdio_register range = {.mode = UFFDIO_REGISTER_MODE_MISSING |
						UFFDIO_REGISTER_MODE_WP};
	void *at = mmap(NULL, (pages + 512) * 4096, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert_true(at != MAP_FAILED);
	*window = (struct mrs_window){
		.fd = open_uffd(),
		.address = mrs_round_up((uintptr_t)at, MRS_HUGE_BYTES),
		.pages = pages,
		.writable = writable,
	};
	/* The pool's descriptor rides in a field that is not used here. */
	window->listed = (void *)(intptr_t)morsel_pool_fd(morsel->pool);
	assert_ok(mrs_morsel_each_run(morsel, 0, pages, map_run, window));
	window->listed = NULL;
	range.range.start = window->address;
	range.range.len = pages * 4096;
	madvise((void *)(uintptr_t)window->address, pages * 4096, MADV_DONTFORK);
	assert_int_equal(ioctl(window->fd, UFFDIO_REGISTER, &range), 0);
}

void window_close(struct mrs_window *window)
{
	munmap((void *)(uintptr_t)window->address, window->pages * 4096);
	close(window->fd);
}

static void serve_one(struct window_server *server, const struct uffd_msg *message)
{
	uint64_t address = message->arg.pagefault.address;
	uint64_t flags = message->arg.pagefault.flags;
	enum mrs_fault_kind kind = flags & UFFD_PAGEFAULT_FLAG_WP      ? MRS_FAULT_PROTECTED
				   : flags & UFFD_PAGEFAULT_FLAG_WRITE ? MRS_FAULT_WRITE
								       : MRS_FAULT_MISSING;
	uint64_t page = (address - server->window->address) / 4096 + server->window->first;
	int rc;

	/* Counted first: the one who waits goes on before the fault is over. */
	mrs_fetch_add(&server->served, 1);
	rc = mrs_fault(server->morsel, server->window, page, kind);
	if (rc) {
		fprintf(stderr, "fault at page %llu: %d\n", (unsigned long long)page, rc);
		mrs_fetch_add(&server->failed, 1);
	}
}

static void *serve(void *argument)
{
	struct window_server *server = argument;
	struct pollfd wait = {.fd = server->window->fd, .events = POLLIN};
	struct uffd_msg message;

	while (!mrs_load_acquire32(&server->stop)) {
		if (poll(&wait, 1, 20) <= 0)
			continue;
		while (read(server->window->fd, &message, sizeof(message)) == sizeof(message))
			if (message.event == UFFD_EVENT_PAGEFAULT)
				serve_one(server, &message);
	}
	return NULL;
}

void window_serve(struct window_server *server, struct morsel *morsel,
		  const struct mrs_window *window)
{
	*server = (struct window_server){.window = window, .morsel = morsel};
	assert_int_equal(pthread_create(&server->thread, NULL, serve, server), 0);
}

void window_serve_stop(struct window_server *server)
{
	mrs_store_release32(&server->stop, 1);
	pthread_join(server->thread, NULL);
}

uint64_t window_entry(struct morsel *morsel, uint64_t page)
{
	struct mrs_leaf leaf;

	assert_ok(mrs_table_leaf(&morsel->table, page, &leaf));
	return leaf.entry;
}

bool window_is_resident(struct morsel *morsel, uint64_t page)
{
	struct mrs_leaf leaf;

	assert_ok(mrs_table_leaf(&morsel->table, page, &leaf));
	return mrs_bring_is_resident(morsel->pool,
				     mrs_entry_frame(leaf.entry) + (page - leaf.page));
}

/* ---- evicting ---- */

static bool is_mapped(void *ctx, uint64_t page, uint64_t entry)
{
	return mrs_entry_state(entry) == MRS_ENTRY_MAPPED;
}

static void protect(const struct mrs_window *window, uint64_t page, uint64_t pages)
{
	if (window->writable)
		assert_ok(mrs_uffd_protect(window->fd, (uintptr_t)window_at(window, page),
					   pages * 4096, true));
}

/* Saves the pages of one leaf and takes their memory. */
static void evict_leaf(struct mrs_retarget *batch, unsigned i)
{
	struct morsel_pool *pool = batch->morsel->pool;
	struct mrs_cell_coherence *coherence = mrs_morsel_coherence(batch->morsel);
	uint64_t pages = 1ull << 9 * batch->level, frame = mrs_entry_frame(batch->before[i]);
	const void *memory[512];
	struct mrs_swap_page page[512];
	uint32_t epoch;

	if (batch->before[i] & MRS_ENTRY_DIRTY || !mrs_swap_kept(pool, frame, &page[0], &epoch)) {
		for (unsigned k = 0; k < pages; k++)
			memory[k] = mrs_pool_at(pool, frame + k, 1);
		assert_ok(mrs_swap_save(mrs_swap_of(pool), &batch->txn, memory, page,
					(unsigned)pages));
		for (unsigned k = 0; k < pages; k++)
			assert_ok(mrs_swap_keep(&batch->txn, frame + k, &page[k],
						(uint32_t)coherence->epoch));
	}
	mrs_retarget_mark(batch, MRS_RETARGET_COPIED);
	MRS_PROBE("window.evict.copied");
	mrs_pool_unback(pool, frame, pages);
	MRS_PROBE("window.evict.punched");
	mrs_fetch_add(&coherence->evicted, pages);
	mrs_retarget_set(batch, i,
			 mrs_entry_make(MRS_ENTRY_EVICTED, batch->level, frame) |
				 (batch->before[i] & MRS_ENTRY_SHARED));
}

uint64_t window_evict(struct morsel *morsel, uint64_t page, uint64_t pages,
		      const struct mrs_window *const windows[], unsigned count)
{
	uint64_t end = page + pages, evicted = 0;

	while (page < end) {
		struct mrs_retarget batch;
		uint64_t next;
		int rc = mrs_retarget_begin(morsel, MRS_RETARGET_EVICT, page, end - page, is_mapped,
					    NULL, &batch, &next);

		assert_ok(rc);
		page = next;
		if (!rc)
			continue;
		for (unsigned i = 0; i < batch.count; i++) {
			uint64_t leaf_pages = 1ull << 9 * batch.level;

			if (!mrs_retarget_has(&batch, i))
				continue;
			for (unsigned w = 0; w < count; w++)
				protect(windows[w], batch.page + i * leaf_pages, leaf_pages);
			evict_leaf(&batch, i);
			evicted += leaf_pages;
		}
		mrs_retarget_end(&batch);
	}
	return evicted;
}

/* ---- joining ---- */

static bool any(void *ctx, uint64_t page, uint64_t entry)
{
	return true;
}

void window_join(struct morsel *morsel, uint64_t page)
{
	struct morsel_pool *pool = morsel->pool;
	struct mrs_retarget batch;
	struct mrs_leaf parent = {.level = 1, .page = page};
	struct mrs_prop prop;
	uint64_t next, deposit, entry;

	assert_int_equal(mrs_retarget_begin(morsel, MRS_RETARGET_PROMOTE, page, 512, any, NULL,
					    &batch, &next),
			 512);
	/* The morsel is small: its root is the level 1 table. */
	parent.place = (uint64_t *)mrs_pool_at(pool, mrs_entry_frame(morsel->record->root), 1) +
		       page / 512;
	parent.entry = *parent.place;
	prop = (struct mrs_prop){.value = batch.table};
	assert_ok(mrs_prop_set(&batch.txn, mrs_entry_frame(batch.before[0]), MRS_PROP_DEPOSIT,
			       &prop));
	MRS_PROBE("test.join.noted");
	assert_ok(mrs_table_join(&morsel->table, &parent, &deposit));
	assert_int_equal(deposit, batch.table);
	entry = mrs_entry_unlocked(parent.entry);
	assert_int_equal(mrs_entry_level(entry), 1);
	mrs_entry_put(pool, parent.place, entry);
	MRS_PROBE("test.join.unlocked");
	for (unsigned i = 0; i < 8; i++)
		batch.locked[i] = 0; /* they are stale: nobody's */
	mrs_retarget_end(&batch);
}
