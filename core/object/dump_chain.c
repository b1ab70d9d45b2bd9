/*
 * A dump and those that it stands on. An incremental dump says of a chunk "as in the base", and the
 * base may say the same again. Whether a file is the base that was meant is told by its uuid, not
 * by its name; what a chunk of it holds is compared with the checksum that the first one has for
 * it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "object/dump_format.h"

/* The description is read through the page cache: it is not aligned to what a device wants. */
static int read_description(struct mrs_dump_link *link, const char *file)
{
	struct mrs_source source;
	int fd = open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	int rc;

	if (fd < 0)
		return mrs_fail_errno(-errno, "cannot open %s", file);
	rc = mrs_source_fd(&source, &fd);
	if (!rc)
		rc = mrs_dump_parse(&source, file, &link->dump);
	close(fd);
	return rc;
}

static int link_open(const char *file, struct mrs_dump_link **link)
{
	struct mrs_dump_link *made = calloc(1, sizeof(*made));
	int rc;

	if (!made)
		return mrs_fail(-ENOMEM, "no memory for a dump");
	rc = mrs_stream_open(&made->stream, file, NULL);
	if (rc)
		goto free_link;
	rc = read_description(made, file);
	if (rc)
		goto close_stream;
	*link = made;
	return 0;
close_stream:
	mrs_stream_close(&made->stream);
free_link:
	free(made);
	return rc;
}

static bool is_base(const struct mrs_dump_header *head, const struct mrs_dump_header *base)
{
	if (head->base_kind == MRS_DUMP_BASE_DUMP)
		return !memcmp(head->base_uuid, base->uuid, sizeof(base->uuid));
	return base->kind == MORSEL_DUMP_FULL && base->sealed && base->source_id == head->base_id &&
	       !memcmp(head->base_uuid, base->pool_uuid, sizeof(base->pool_uuid));
}

/* The base of link, beside it; from malloc. NULL in words. */
static char *base_path(const struct mrs_dump_link *link)
{
	const char *file = link->stream.name, *slash = strrchr(file, '/');
	size_t before = slash ? (size_t)(slash - file) + 1 : 0;
	char *path;

	if (!link->dump.head.base_name[0]) {
		mrs_fail(-ENOENT, "%s stands on a snapshot: name a full dump of that as its base",
			 file);
		return NULL;
	}
	path = malloc(before + MORSEL_NAME_MAX + 1);
	if (!path) {
		mrs_fail(-ENOMEM, "no memory for a file name");
		return NULL;
	}
	memcpy(path, file, before);
	snprintf(path + before, MORSEL_NAME_MAX + 1, "%s", link->dump.head.base_name);
	return path;
}

static int open_base(struct mrs_dump_chain *chain, const char *given)
{
	struct mrs_dump_link *above = chain->link[chain->count - 1], *link;
	char *path = given ? strdup(given) : base_path(above);
	int rc;

	if (!path)
		return given ? mrs_fail(-ENOMEM, "no memory for a file name") : -ENOENT;
	rc = link_open(path, &link);
	if (!rc)
		chain->link[chain->count++] = link;
	if (!rc && !is_base(&above->dump.head, &link->dump.head))
		rc = mrs_fail(-EINVAL, "%s is not what %s stands on: it is another dump", path,
			      above->stream.name);
	free(path);
	return rc;
}

int mrs_dump_chain_open(struct mrs_dump_chain *chain, const char *file, const char *base)
{
	int rc;

	chain->count = 0;
	rc = link_open(file, &chain->link[0]);
	if (rc)
		return rc;
	chain->count = 1;
	while (!rc && chain->link[chain->count - 1]->dump.head.base_kind != MRS_DUMP_BASE_NONE) {
		if (chain->count > MORSEL_DUMP_CHAIN_MAX)
			rc = mrs_fail(-EINVAL, "%s stands on more than %d dumps: make a full one",
				      file, MORSEL_DUMP_CHAIN_MAX);
		else
			rc = open_base(chain, chain->count == 1 ? base : NULL);
	}
	if (rc)
		mrs_dump_chain_close(chain);
	return rc;
}

void mrs_dump_chain_close(struct mrs_dump_chain *chain)
{
	while (chain->count) {
		struct mrs_dump_link *link = chain->link[--chain->count];

		mrs_dump_free(&link->dump);
		mrs_stream_close(&link->stream);
		free(link);
	}
}

int mrs_dump_chain_find(const struct mrs_dump_chain *chain, unsigned which,
			const struct mrs_dump_chunk *chunk, struct mrs_dump_link **link,
			uint64_t *offset)
{
	uint64_t page = chunk->page, pages = chunk->pages;

	while (mrs_dump_kind(chunk) == MRS_DUMP_SAME) {
		const struct mrs_dump *base;
		uint64_t i;

		if (++which == chain->count)
			return mrs_fail(-EINVAL, "%s says of page %llu to look in a base",
					chain->link[which - 1]->stream.name,
					(unsigned long long)page);
		base = &chain->link[which]->dump;
		i = mrs_dump_find(base->chunks, base->chunk_count, page);
		chunk = &base->chunks[i];
		if (i == base->chunk_count || chunk->page != page || chunk->pages != pages)
			return mrs_fail(-EINVAL, "%s does not have pages %llu to %llu",
					chain->link[which]->stream.name, (unsigned long long)page,
					(unsigned long long)(page + pages - 1));
	}
	*link = mrs_dump_kind(chunk) == MRS_DUMP_STORED ? chain->link[which] : NULL;
	*offset = mrs_dump_kind(chunk) == MRS_DUMP_STORED ? mrs_dump_offset(chunk) : 0;
	return 0;
}
