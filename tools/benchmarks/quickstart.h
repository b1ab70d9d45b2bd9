/*
 * The main job that tools/quickstart runs, in two halves: sharing a model (share.c) and the table
 * of what mapping costs (table.c).
 */
#ifndef QUICKSTART_H
#define QUICKSTART_H

#include <stdint.h>

#define QUICKSTART_PROCESSES 8

/* Serves as one of the processes and exits if this process was started as one; returns if not. */
void share_main(int argc, char **argv);

/*
 * Imports the model, lets the processes map it and hash every tensor, writes the hashes to the file
 * hashes ("sha256 offset bytes name", the whole file as "(file)"), and shows that one process's
 * change is seen by all. Returns the exit code.
 */
int share_model(const char *model, const char *hashes);

/* Maps an object of bytes made of the model's tensors every way there is. Returns the exit code. */
int print_table(const char *model, uint64_t bytes, const char *dir);

#endif
