#include "core/object_support.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

struct morsel_pool *object_pool(uint64_t bytes)
{
	struct morsel_pool_opts opts = {
		.size = sizeof(opts),
		.flags = MORSEL_POOL_CREATE,
		.bytes = bytes,
		.bytes_max = 4 * GIB,
	};
	struct morsel_pool *pool;

	assert_ok(morsel_pool_open(NULL, &opts, &pool));
	return pool;
}

char object_context[128];

static void print_finding(void *ctx, const char *finding)
{
	fprintf(stderr, "finding: %s %s\n", finding, object_context);
}

void object_check(struct morsel_pool *pool)
{
	assert_int_equal(morsel_pool_check(pool, print_finding, NULL), 0);
}

void object_pool_end(struct morsel_pool *pool)
{
	object_check(pool);
	assert_ok(morsel_pool_close(pool));
}

uint64_t object_free_bytes(struct morsel_pool *pool)
{
	struct morsel_pool_stat stat = {.size = sizeof(stat)};

	assert_ok(morsel_pool_stat(pool, &stat));
	return stat.bytes_free;
}

struct morsel *object_create(struct morsel_pool *pool, const char *name, uint64_t bytes,
			     uint32_t flags, uint32_t pages)
{
	struct morsel_opts opts = {
		.size = sizeof(opts),
		.flags = MORSEL_CREATE | MORSEL_EXCL | flags,
		.pages = pages,
		.bytes = bytes,
	};
	struct morsel *morsel;

	assert_ok(morsel_open(pool, name, &opts, &morsel));
	return morsel;
}

struct morsel *object_open(struct morsel_pool *pool, const char *name)
{
	struct morsel *morsel;

	assert_ok(morsel_open(pool, name, NULL, &morsel));
	return morsel;
}

struct morsel_info object_info(struct morsel *morsel)
{
	struct morsel_info info = {.size = sizeof(info)};

	assert_ok(morsel_info(morsel, &info));
	return info;
}

bool object_exists(struct morsel_pool *pool, const char *name)
{
	struct morsel *morsel;
	int rc = morsel_open(pool, name, NULL, &morsel);

	if (rc == -ENOENT)
		return false;
	assert_ok(rc);
	assert_ok(morsel_close(morsel));
	return true;
}

uint64_t object_word(uint64_t seed, uint64_t offset)
{
	uint64_t z = (seed + 1) * 0x9e3779b97f4a7c15ull + offset * 0xbf58476d1ce4e5b9ull;

	z ^= z >> 29;
	return z * 0x94d049bb133111ebull;
}

struct pattern {
	uint64_t seed;
	uint64_t wrong; /* first offset that differs */
	bool write;
};

static uint8_t pattern_byte(uint64_t seed, uint64_t offset)
{
	return (uint8_t)(object_word(seed, offset & ~7ull) >> 8 * (offset & 7));
}

static int pattern_piece(void *ctx, uint64_t offset, void *memory, uint64_t bytes)
{
	struct pattern *pattern = ctx;
	uint8_t *at = memory;

	for (uint64_t i = 0; i < bytes;) {
		bool word = !((offset + i) & 7) && bytes - i >= 8;
		uint64_t value = object_word(pattern->seed, offset + i), step = word ? 8 : 1;

		if (!word)
			value = pattern_byte(pattern->seed, offset + i);
		if (pattern->write) {
			assert_non_null(memory);
			memcpy(at + i, &value, step);
		} else if (!memory || memcmp(at + i, &value, step)) {
			pattern->wrong = offset + i;
			return 1;
		}
		i += step;
	}
	return 0;
}

void object_write(struct morsel *morsel, uint64_t seed, uint64_t offset, uint64_t bytes)
{
	struct pattern pattern = {.seed = seed, .write = true};

	assert_ok(mrs_content_each(morsel, offset, bytes, UINT64_MAX, pattern_piece, &pattern));
}

uint64_t object_differs(struct morsel *morsel, uint64_t seed, uint64_t offset, uint64_t bytes)
{
	struct pattern pattern = {.seed = seed, .wrong = UINT64_MAX};

	assert_ok(mrs_content_look(morsel, offset, bytes, UINT64_MAX, pattern_piece, &pattern));
	return pattern.wrong;
}

static int zero_piece(void *ctx, uint64_t offset, void *memory, uint64_t bytes)
{
	const uint8_t *at = memory;

	return memory && (at[0] || memcmp(at, at + 1, bytes - 1));
}

bool object_is_zero(struct morsel *morsel, uint64_t offset, uint64_t bytes)
{
	return !mrs_content_look(morsel, offset, bytes, UINT64_MAX, zero_piece, NULL);
}

const char *object_file(const char *name, uint64_t seed, uint64_t bytes)
{
	static char path[128];
	const char *directory = getenv("TMPDIR");
	FILE *file;

	snprintf(path, sizeof(path), "%.60s/morsel-test-%d-%.30s", directory ? directory : "/tmp",
		 (int)getpid(), name);
	file = fopen(path, "w");
	assert_non_null(file);
	for (uint64_t offset = 0; offset < bytes; offset += 8) {
		uint64_t value = object_word(seed, offset);

		assert_int_equal(fwrite(&value, 1, mrs_min(8, bytes - offset), file),
				 mrs_min(8, bytes - offset));
	}
	assert_int_equal(fclose(file), 0);
	return path;
}

pid_t object_child_start(struct morsel_pool *pool, const char *op, const char *argument,
			 const char *kill)
{
	int fd = dup(morsel_pool_fd(pool));
	char fd_text[16];
	pid_t pid;

	assert_true(fd >= 0);
	snprintf(fd_text, sizeof(fd_text), "%d", fd);
	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		/* A failed test leaves no child behind. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (kill)
			setenv("MORSEL_PROBE_KILL", kill, 1);
		execl("/proc/self/exe", "object", "--child", op, fd_text, argument, NULL);
		_exit(127);
	}
	close(fd);
	return pid;
}

int object_child(struct morsel_pool *pool, const char *op, const char *argument, const char *kill)
{
	pid_t pid = object_child_start(pool, op, argument, kill);
	int status;

	while (waitpid(pid, &status, 0) < 0)
		assert_int_equal(errno, EINTR);
	return status;
}
