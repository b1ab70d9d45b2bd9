/*
 * The main job that tools/quickstart runs, in three parts: sharing a model (share.c), sharing it with
 * half the memory that it needs (squeeze.c), and the table of what mapping costs (table.c).
 */
#ifndef QUICKSTART_H
#define QUICKSTART_H

#include <stdbool.h>
#include <stdint.h>

#define QUICKSTART_PROCESSES 8 /* at most */
#define QUICKSTART_MORSEL    "model"

/* Serves as one of the processes and exits if this process was started as one; returns if not. */
void share_main(int argc, char **argv);

/*
 * Imports the model, lets the processes map it and hash every tensor, writes the hashes to the file
 * hashes ("sha256 offset bytes name", the whole file as "(file)"), and shows that one process's
 * change is seen by all. Returns the exit code.
 */
int share_model(const char *model, const char *hashes);

/*
 * The same, without the change, by 4 processes in a pool whose budget is half of the model; what does
 * not fit goes to a swap file in dir. Returns the exit code.
 */
int squeeze_model(const char *model, const char *hashes, const char *dir);

/*
 * For both: starts count processes on the pool, each of which opens QUICKSTART_MORSEL and hashes it;
 * compares, writes the hashes, lets two of them change a word if change. 0, or -1 after words.
 */
int hash_in_processes(int pool_fd, unsigned count, bool change, const char *hashes);
/* 0 if it cannot be read. */
uint64_t file_bytes(const char *path);

/* Maps an object of bytes made of the model's tensors every way there is. Returns the exit code. */
int print_table(const char *model, uint64_t bytes, const char *dir);

#endif
