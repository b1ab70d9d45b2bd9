/*
 * What writer.c and reader.c agree on: a ring of messages in a morsel. One writes, one reads; each
 * changes only its own counter, and so neither ever waits for a lock.
 */
#ifndef CHANNEL_H
#define CHANNEL_H

#include <stdatomic.h>
#include <stdint.h>

#define CHANNEL_NAME "channel"
#define MESSAGES     64
#define MESSAGE_SIZE 56

struct channel {
	_Alignas(64) _Atomic uint64_t written;
	_Alignas(64) _Atomic uint64_t read;
	struct {
		_Alignas(64) uint32_t bytes; /* 0: the end */
		char text[MESSAGE_SIZE];
	} message[MESSAGES];
};

#endif
