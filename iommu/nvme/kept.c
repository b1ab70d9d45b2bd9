/*
 * Heads of kept files as values; see kept.h. What is read is not trusted.
 */
#include "nvme/kept.h"

#include <string.h>

#define MAGIC	0x0a7470656b6d766eull /* "nvmkept\n" */
#define VERSION 1

uint64_t mrs_kept_half_bytes(uint64_t place_bytes)
{
	if (place_bytes < 2 * NVME_HEAD_BYTES)
		return 0;
	return (place_bytes - 2 * NVME_HEAD_BYTES) / 2 / NVME_HEAD_BYTES * NVME_HEAD_BYTES;
}

uint64_t mrs_kept_half_at(uint64_t place_bytes, unsigned half)
{
	return 2 * NVME_HEAD_BYTES + half * mrs_kept_half_bytes(place_bytes);
}

/* Every bit of every word changes it: enough for a block that is old, new, or torn. */
static uint64_t check_of(const struct mrs_kept_head *head)
{
	const uint64_t word[] = {head->magic, head->version, head->serial, head->bytes,
				 head->place_bytes};
	uint64_t sum = 0xcbf29ce484222325u;

	for (unsigned i = 0; i < sizeof(word) / sizeof(word[0]); i++)
		for (unsigned k = 0; k < 64; k += 8)
			sum = (sum ^ (word[i] >> k & 255)) * 0x100000001b3u;
	return sum;
}

void mrs_kept_make(void *page, uint64_t serial, uint64_t bytes, uint64_t place_bytes)
{
	struct mrs_kept_head head = {.magic = MAGIC,
				     .version = VERSION,
				     .serial = serial,
				     .bytes = bytes,
				     .place_bytes = place_bytes};

	head.check = check_of(&head);
	memset(page, 0, NVME_HEAD_BYTES);
	memcpy(page, &head, sizeof(head));
}

static bool is_valid(const struct mrs_kept_head *head, uint64_t place_bytes)
{
	return head->magic == MAGIC && head->version == VERSION &&
	       head->place_bytes == place_bytes && head->check == check_of(head) &&
	       head->bytes <= mrs_kept_half_bytes(place_bytes);
}

int mrs_kept_newest(const void *heads, uint64_t place_bytes, struct mrs_kept_head *newest)
{
	int half = -1;

	for (int i = 0; i < 2; i++) {
		struct mrs_kept_head head;

		memcpy(&head, (const char *)heads + i * NVME_HEAD_BYTES, sizeof(head));
		if (!is_valid(&head, place_bytes) || (half >= 0 && head.serial <= newest->serial))
			continue;
		*newest = head;
		half = i;
	}
	return half;
}
