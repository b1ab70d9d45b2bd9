/*
 * lz4 and zstd, from whatever library of theirs is installed.
 *
 * They are opened once, before the first evictable view: a fault handler in a signal may unpack,
 * and must find everything ready. lz4 needs no memory of its own to unpack. zstd's contexts lie in
 * blocks made at the start; who finds none free waits for one, which its holder gives back without
 * waiting for anything.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "swap/internal.h"

#define CONTEXTS   4
#define ZSTD_LEVEL 3

struct mrs_codecs {
	void *lz4, *zstd; /* of dlopen() */
	int (*lz4_pack)(const char *from, char *to, int bytes, int room);
	int (*lz4_unpack)(const char *from, char *to, int bytes, int room);
	void *(*zstd_pack_make)(void);
	size_t (*zstd_pack_free)(void *context);
	size_t (*zstd_pack)(void *context, void *to, size_t room, const void *from, size_t bytes,
			    int level);
	void *(*zstd_unpack_make)(void);
	size_t (*zstd_unpack_free)(void *context);
	size_t (*zstd_unpack)(void *context, void *to, size_t room, const void *from, size_t bytes);
	unsigned (*zstd_is_error)(size_t code);
	void *packer[CONTEXTS], *unpacker[CONTEXTS];
	uint32_t packer_busy[CONTEXTS], unpacker_busy[CONTEXTS];
};

static void open_lz4(struct mrs_codecs *codecs)
{
	codecs->lz4 = dlopen("liblz4.so.1", RTLD_NOW | RTLD_LOCAL);
	if (!codecs->lz4)
		return;
	*(void **)&codecs->lz4_pack = dlsym(codecs->lz4, "LZ4_compress_default");
	*(void **)&codecs->lz4_unpack = dlsym(codecs->lz4, "LZ4_decompress_safe");
}

static bool find_zstd(struct mrs_codecs *codecs)
{
	*(void **)&codecs->zstd_pack_make = dlsym(codecs->zstd, "ZSTD_createCCtx");
	*(void **)&codecs->zstd_pack_free = dlsym(codecs->zstd, "ZSTD_freeCCtx");
	*(void **)&codecs->zstd_pack = dlsym(codecs->zstd, "ZSTD_compressCCtx");
	*(void **)&codecs->zstd_unpack_make = dlsym(codecs->zstd, "ZSTD_createDCtx");
	*(void **)&codecs->zstd_unpack_free = dlsym(codecs->zstd, "ZSTD_freeDCtx");
	*(void **)&codecs->zstd_unpack = dlsym(codecs->zstd, "ZSTD_decompressDCtx");
	*(void **)&codecs->zstd_is_error = dlsym(codecs->zstd, "ZSTD_isError");
	return codecs->zstd_pack_make && codecs->zstd_pack_free && codecs->zstd_pack &&
	       codecs->zstd_unpack_make && codecs->zstd_unpack_free && codecs->zstd_unpack &&
	       codecs->zstd_is_error;
}

/* A context packs and unpacks once, so that it has all the memory that it will want. */
static bool warm_up(struct mrs_codecs *codecs, unsigned i)
{
	unsigned char page[MRS_PAGE_BYTES] = {1}, packed[MRS_PAGE_BYTES];
	size_t bytes;

	codecs->packer[i] = codecs->zstd_pack_make();
	codecs->unpacker[i] = codecs->zstd_unpack_make();
	if (!codecs->packer[i] || !codecs->unpacker[i])
		return false;
	bytes = codecs->zstd_pack(codecs->packer[i], packed, sizeof(packed), page, sizeof(page),
				  ZSTD_LEVEL);
	if (codecs->zstd_is_error(bytes))
		return false;
	bytes = codecs->zstd_unpack(codecs->unpacker[i], page, sizeof(page), packed, bytes);
	return bytes == sizeof(page);
}

static void close_zstd(struct mrs_codecs *codecs)
{
	for (unsigned i = 0; i < CONTEXTS; i++) {
		if (codecs->packer[i])
			codecs->zstd_pack_free(codecs->packer[i]);
		if (codecs->unpacker[i])
			codecs->zstd_unpack_free(codecs->unpacker[i]);
	}
	codecs->zstd_pack = NULL;
	codecs->zstd_unpack = NULL;
}

static void open_zstd(struct mrs_codecs *codecs)
{
	codecs->zstd = dlopen("libzstd.so.1", RTLD_NOW | RTLD_LOCAL);
	if (!codecs->zstd)
		return;
	if (!find_zstd(codecs)) {
		codecs->zstd_pack = NULL;
		codecs->zstd_unpack = NULL;
		return;
	}
	for (unsigned i = 0; i < CONTEXTS; i++)
		if (!warm_up(codecs, i)) {
			close_zstd(codecs);
			return;
		}
}

struct mrs_codecs *mrs_codecs_open(void)
{
	struct mrs_codecs *codecs = calloc(1, sizeof(*codecs));

	if (!codecs)
		return NULL;
	open_lz4(codecs);
	open_zstd(codecs);
	return codecs;
}

void mrs_codecs_close(struct mrs_codecs *codecs)
{
	if (codecs->zstd_pack)
		close_zstd(codecs);
	if (codecs->lz4)
		dlclose(codecs->lz4);
	if (codecs->zstd)
		dlclose(codecs->zstd);
	free(codecs);
}

int mrs_codec_usable(struct mrs_codecs *codecs, enum mrs_codec codec)
{
	if (codec == MRS_CODEC_LZ4 && (!codecs->lz4_pack || !codecs->lz4_unpack))
		return mrs_fail(-EOPNOTSUPP,
				"compression with lz4 needs liblz4.so.1 (package liblz4-1)");
	if (codec == MRS_CODEC_ZSTD && !codecs->zstd_pack)
		return mrs_fail(-EOPNOTSUPP,
				"compression with zstd needs libzstd.so.1 (package libzstd1)");
	return 0;
}

static unsigned take_context(uint32_t busy[])
{
	for (unsigned i = 0;; i = (i + 1) % CONTEXTS) {
		uint32_t idle = 0;

		if (mrs_cas32(&busy[i], &idle, 1))
			return i;
		mrs_spin_hint();
	}
}

unsigned mrs_codec_pack(struct mrs_codecs *codecs, enum mrs_codec codec, const void *page, void *to,
			unsigned room)
{
	unsigned i;
	size_t got;
	int bytes;

	if (codec == MRS_CODEC_LZ4 && codecs->lz4_pack) {
		bytes = codecs->lz4_pack(page, to, (int)MRS_PAGE_BYTES, (int)room);
		return bytes > 0 ? (unsigned)bytes : 0;
	}
	if (codec != MRS_CODEC_ZSTD || !codecs->zstd_pack)
		return 0;
	i = take_context(codecs->packer_busy);
	got = codecs->zstd_pack(codecs->packer[i], to, room, page, MRS_PAGE_BYTES, ZSTD_LEVEL);
	mrs_store_release32(&codecs->packer_busy[i], 0);
	return codecs->zstd_is_error(got) ? 0 : (unsigned)got;
}

int mrs_codec_unpack(struct mrs_codecs *codecs, enum mrs_codec codec, const void *from,
		     unsigned bytes, void *page)
{
	unsigned i;
	size_t got;

	switch (codec) {
	case MRS_CODEC_PLAIN:
		if (bytes != MRS_PAGE_BYTES)
			return -EBADMSG;
		memcpy(page, from, MRS_PAGE_BYTES);
		return 0;
	case MRS_CODEC_LZ4:
		if (!codecs->lz4_unpack)
			return -EOPNOTSUPP;
		return codecs->lz4_unpack(from, page, (int)bytes, (int)MRS_PAGE_BYTES) ==
				       (int)MRS_PAGE_BYTES
			       ? 0
			       : -EBADMSG;
	case MRS_CODEC_ZSTD:
		if (!codecs->zstd_unpack)
			return -EOPNOTSUPP;
		i = take_context(codecs->unpacker_busy);
		got = codecs->zstd_unpack(codecs->unpacker[i], page, MRS_PAGE_BYTES, from, bytes);
		mrs_store_release32(&codecs->unpacker_busy[i], 0);
		return got == MRS_PAGE_BYTES ? 0 : -EBADMSG;
	}
	return -EBADMSG;
}
