/*
 * The functions behind the table of commands in main.c, and what the groups share: opening a pool,
 * describing a morsel.
 */
#ifndef TOOLS_MORSEL_COMMANDS_H
#define TOOLS_MORSEL_COMMANDS_H

#include <morsel/morsel.h>

#include "args.h"
#include "print.h"

#define array_length(a) (sizeof(a) / sizeof((a)[0]))

/* pool.c */
int pool_create(const struct command *self, int argc, char **argv);
int pool_info(const struct command *self, int argc, char **argv);
int pool_check(const struct command *self, int argc, char **argv);
int pool_destroy(const struct command *self, int argc, char **argv);
int pool_grow(const struct command *self, int argc, char **argv);
int pool_budget(const struct command *self, int argc, char **argv);
int pool_reap(const struct command *self, int argc, char **argv);

/* compact.c */
int pool_compact(const struct command *self, int argc, char **argv);

/* object.c */
int object_create(const struct command *self, int argc, char **argv);
int object_rm(const struct command *self, int argc, char **argv);
int object_rename(const struct command *self, int argc, char **argv);
int object_publish(const struct command *self, int argc, char **argv);
int object_resize(const struct command *self, int argc, char **argv);
int object_seal(const struct command *self, int argc, char **argv);

/* show.c */
int show_list(const struct command *self, int argc, char **argv);
int show_info(const struct command *self, int argc, char **argv);
int show_map(const struct command *self, int argc, char **argv);

/* clone.c */
int clone_morsel(const struct command *self, int argc, char **argv);
int clone_snapshot(const struct command *self, int argc, char **argv);

/* advise.c */
int advise_evict(const struct command *self, int argc, char **argv);
int advise_prefetch(const struct command *self, int argc, char **argv);
int advise_named(const struct command *self, int argc, char **argv);

/* swap.c */
int swap_add(const struct command *self, int argc, char **argv);
int swap_remove(const struct command *self, int argc, char **argv);
int swap_on(const struct command *self, int argc, char **argv);
int swap_list(const struct command *self, int argc, char **argv);

/* lab.c */
int lab_run(const struct command *self, int argc, char **argv);

/* stat.c */
int stat_show(const struct command *self, int argc, char **argv);

/* model.c */
int model_import(const struct command *self, int argc, char **argv);
int model_export(const struct command *self, int argc, char **argv);

/* dump.c */
int dump_write(const struct command *self, int argc, char **argv);
int dump_restore(const struct command *self, int argc, char **argv);

/* top.c, who.c */
int top_show(const struct command *self, int argc, char **argv);
int who_show(const struct command *self, int argc, char **argv);

/* pager.c */
int pager_run(const struct command *self, int argc, char **argv);

/* iommu.c */
int iommu_list(const struct command *self, int argc, char **argv);
int iommu_info(const struct command *self, int argc, char **argv);
int iommu_map(const struct command *self, int argc, char **argv);
int iommu_bind(const struct command *self, int argc, char **argv);
int iommu_unbind(const struct command *self, int argc, char **argv);

/* nvme.c, nvme_bench.c */
int nvme_list(const struct command *self, int argc, char **argv);
int nvme_info(const struct command *self, int argc, char **argv);
int nvme_read(const struct command *self, int argc, char **argv);
int nvme_write(const struct command *self, int argc, char **argv);
int nvme_import(const struct command *self, int argc, char **argv);
int nvme_export(const struct command *self, int argc, char **argv);
int nvme_bench(const struct command *self, int argc, char **argv);

/* gpu.c */
int gpu_list(const struct command *self, int argc, char **argv);
int gpu_info(const struct command *self, int argc, char **argv);
/* How many OpenCL devices there are, and in words how the first would see a morsel; a negative number
 * and why if they cannot be asked. */
int gpu_look(char *words, size_t room);

/* doctor.c */
int doctor(const struct command *self, int argc, char **argv);

/* "morsel create: " and the library's words for its last failure (code); returns EXIT_FAILED. */
int complain_library(const struct command *self, int code);

/* Opens args->pool with flags (enum morsel_pool_flags); EXIT_OK, or EXIT_FAILED after the words. */
int open_pool(const struct command *self, const struct args *args, uint32_t flags,
	      struct morsel_pool **pool);

/* Opens the pool and the morsel called name in it. */
int open_morsel(const struct command *self, const struct args *args, const char *name,
		struct morsel_pool **pool, struct morsel **morsel);

/* Closes what open_morsel() opened; either may be NULL. */
void close_morsel(struct morsel *morsel, struct morsel_pool *pool);

/*
 * Opens the pool (or the pool and the morsel that the first operand names), acts, closes. act answers
 * 0, a negative errno of the library, whose words go to stderr then, or EXIT_FAILED after words of its
 * own. Returns the exit code.
 */
int on_pool(const struct command *self, const struct args *args, uint32_t flags,
	    int (*act)(struct morsel_pool *pool, void *ctx), void *ctx);
int on_morsel(const struct command *self, const struct args *args,
	      int (*act)(struct morsel *morsel, void *ctx), void *ctx);

/*
 * For what takes long: SIGINT and SIGTERM make on_progress(), a morsel_progress_fn over a struct
 * progress, cancel.
 */
void watch_interrupts(void);
int on_progress(void *ctx, uint64_t done, uint64_t total);

const char *pool_kind_name(uint32_t kind);

/* The words of "--pages", in the order of enum morsel_pages. */
#define PAGES_CHOICES "mixed|4k|2m|1g"
const char *pages_name(uint32_t pages);

/* The keys that describe a morsel, in list, info and import alike. */
void json_morsel(struct json *json, const struct morsel_info *info);

#endif
