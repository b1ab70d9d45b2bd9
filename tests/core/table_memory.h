/*
 * A pool for the table's tests: plain memory for tables, mere numbers for data.
 *
 * Frames [1, TABLES_END) have memory and serve as tables; frames from DATA_FIRST on are data: at()
 * answers for them with one shared page that nobody may write. Every get and put is checked: a
 * frame is got once, put once, comes zeroed and goes back zeroed; at most one is unsettled.
 */
#ifndef TESTS_CORE_TABLE_MEMORY_H
#define TESTS_CORE_TABLE_MEMORY_H

#include <pthread.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>

#include "table/table.h"

#define TABLES_END 6144u
#define DATA_FIRST (1u << 18)
#define DATA_END   (6u << 18)

struct memory_txn {
	uint64_t pending; /* the frame that the allocator's record names, 0 none */
	unsigned pending_order;
	bool is_put;
	uint64_t building; /* the intent's word */
};

struct memory {
	pthread_mutex_t lock;
	uint64_t (*tables)[512];
	uint8_t *used; /* per frame */
	uint64_t in_use;
	uint64_t hint; /* where to look for a free table frame */
	int fail_at;   /* the get that fails; -1 none; counts down */
	int die_at;    /* the call of an operation at which the caller dies; -1 none */
	jmp_buf death;
	uint64_t root;
	uint64_t run_pages;
	struct mrs_table table;
};

void memory_open(struct memory *m);
void memory_close(struct memory *m);

/* Takes data frames: these very ones, or any aligned free block at or after hint; 0 if none. */
bool memory_take_at(struct memory *m, uint64_t frame, unsigned order);
uint64_t memory_take(struct memory *m, uint64_t hint, unsigned order);

/* What the caller of mrs_table_set() does around it: prepare, get a frame, set, or put it back. */
int memory_set(struct memory *m, struct memory_txn *txn, uint64_t page, unsigned level,
	       uint64_t frame);

/* Frames that a walk finds; asserts that it agrees with what is in use. */
uint64_t memory_audit(struct memory *m);
/* As the reaper does: finishes what the dead txn left. */
void memory_repair(struct memory *m, struct memory_txn *txn);

#endif
