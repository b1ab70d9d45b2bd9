/*
 * What the files of the table room ask of each other and of nobody else.
 */
#ifndef MRS_TABLE_INTERNAL_H
#define MRS_TABLE_INTERNAL_H

#include "table/table.h"

/* A zeroed frame for a table and its entries, not settled yet. */
int mrs_table_get_frame(struct mrs_table *table, void *txn, uint64_t *frame, uint64_t **entries);

/*
 * Gives the table in frame back, whose entries are zero already: put_begin, *place becomes 0,
 * put_end.
 */
void mrs_table_drop(struct mrs_table *table, void *txn, uint64_t *place, uint64_t frame);

#endif
