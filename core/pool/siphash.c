/*
 * SipHash-2-4. See siphash.h.
 *
 * Four words of state, mixed with the key at the start; each eight bytes of input are followed by
 * two rounds, the last (padded with zeros, its top byte the length) included; four rounds end it.
 */
#include "pool/siphash.h"

#include <string.h>

struct state {
	uint64_t a, b, c, d;
};

static uint64_t rotate(uint64_t word, unsigned by)
{
	return word << by | word >> (64 - by);
}

static void rounds(struct state *s, unsigned count)
{
	while (count--) {
		s->a += s->b;
		s->c += s->d;
		s->b = rotate(s->b, 13) ^ s->a;
		s->d = rotate(s->d, 16) ^ s->c;
		s->a = rotate(s->a, 32);
		s->c += s->b;
		s->a += s->d;
		s->b = rotate(s->b, 17) ^ s->c;
		s->d = rotate(s->d, 21) ^ s->a;
		s->c = rotate(s->c, 32);
	}
}

static void absorb(struct state *s, uint64_t word)
{
	s->d ^= word;
	rounds(s, 2);
	s->a ^= word;
}

/* Little-endian, whatever the machine: the hash is part of the pool's format. */
static uint64_t word_of(const unsigned char *bytes, size_t count)
{
	uint64_t word = 0;

	for (size_t i = 0; i < count; i++)
		word |= (uint64_t)bytes[i] << (8 * i);
	return word;
}

uint64_t mrs_siphash(const uint64_t key[2], const void *data, size_t bytes)
{
	const unsigned char *p = data;
	size_t left = bytes;
	struct state s = {
		.a = key[0] ^ 0x736f6d6570736575ull,
		.b = key[1] ^ 0x646f72616e646f6dull,
		.c = key[0] ^ 0x6c7967656e657261ull,
		.d = key[1] ^ 0x7465646279746573ull,
	};

	for (; left >= 8; left -= 8, p += 8)
		absorb(&s, word_of(p, 8));
	absorb(&s, word_of(p, left) | (uint64_t)bytes << 56);
	s.c ^= 0xff;
	rounds(&s, 4);
	return s.a ^ s.b ^ s.c ^ s.d;
}
