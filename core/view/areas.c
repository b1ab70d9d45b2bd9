/*
 * The kernel's limit on areas (separate mappings) per process: vm.max_map_count.
 *
 * At the limit even a mapping that replaces another one fails, half way through a view. So a view
 * of many runs asks first. Counting what the process has means reading /proc/self/maps, which is
 * slow when there are many; so it is only done when the answer could matter.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "view/cpu.h"

#define FEW_AREAS     512u
#define DEFAULT_LIMIT 65530u
#define READ_BYTES    65536u

static uint64_t areas_limit(void)
{
	int fd = open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC);
	char text[32] = "";
	uint64_t limit;

	if (fd < 0)
		return DEFAULT_LIMIT;
	if (read(fd, text, sizeof(text) - 1) <= 0)
		text[0] = 0;
	close(fd);
	limit = strtoull(text, NULL, 10);
	return limit ? limit : DEFAULT_LIMIT;
}

/* Lines of /proc/self/maps; 0 if that cannot be read. */
static uint64_t areas_now(void)
{
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	char *buffer = fd < 0 ? NULL : malloc(READ_BYTES);
	uint64_t lines = 0;
	ssize_t got;

	while (buffer && (got = read(fd, buffer, READ_BYTES)) > 0)
		for (ssize_t i = 0; i < got; i++)
			lines += buffer[i] == '\n';
	free(buffer);
	if (fd >= 0)
		close(fd);
	return lines;
}

static int too_many(uint64_t more, uint64_t now, uint64_t limit)
{
	return mrs_fail(
		-ENOMEM,
		"the view needs %llu more mappings, the process has %llu, and vm.max_map_count "
		"allows %llu: raise it (sysctl vm.max_map_count=%llu), use a pooled view, or "
		"larger pages",
		(unsigned long long)more, (unsigned long long)now, (unsigned long long)limit,
		(unsigned long long)mrs_round_up(more + now + 1024, 1024));
}

int mrs_cpu_check_areas(uint64_t more)
{
	uint64_t limit, now;

	if (more < FEW_AREAS)
		return 0;
	limit = areas_limit();
	/* A process rarely has a quarter of the limit in other uses; if it has, mmap() will tell.
	 */
	if (more < limit / 4 * 3)
		return 0;
	now = areas_now();
	return more + now > limit ? too_many(more, now, limit) : 0;
}

int mrs_cpu_no_areas(uint64_t more)
{
	uint64_t limit = areas_limit(), now = areas_now();

	if (now + more + 1 >= limit)
		return too_many(more, now, limit);
	return mrs_fail(-ENOMEM, "mmap: no memory for page tables, or the limit on address space "
				 "(ulimit -v) is met");
}
