/*
 * Clones and snapshots: a second morsel with the same content, made in constant time.
 *
 * A clone shares the frames of its source until one of the two is written: the first write to a page,
 * through whichever of them, gives the writer a page of his own (one page of 4 KiB, also where the
 * memory is in pages of 2 MiB; the whole 2 MiB of a morsel made with MORSEL_PAGES_2M). Clones of clones
 * work, up to 64 in a row; any number of clones may have the same source, and each of a family may be
 * resized, unlinked, published or cloned without regard to the others.
 *
 * The cut is consistent: the clone holds every write that was made before the call began, and none that
 * begins after it returned; writes made during the call are in it in an order that respects cause and
 * effect, for all writers are held up for an instant before the content is shared.
 *
 * What it costs: a clone, about a system call and one write protection of each writable view; the first
 * write to a page, a fault, a copy and a mapping (and, once for every 2 MiB and every 1 GiB, a page
 * table's copy). Memory is used for what differs. A view in which single pages have been written consists
 * of more kernel areas than before (vm.max_map_count): pages written in order share one.
 *
 * What it needs: a memfd or tmpfs pool (-EOPNOTSUPP on others, which have no userfaultfd), and views
 * whose writes can be stopped: those of evictable morsels, of clones, and of morsels that have been
 * cloned. A writable view of another morsel is in the way of its first clone (-EBUSY names the process):
 * destroy it, or create the morsel with MORSEL_EVICTABLE. A grant for writing through any kind of view
 * is in the way of every clone while it is held. Kernel I/O on a view counts only under a grant.
 *
 * Pooled views are made only over pages that nobody shares (-EOPNOTSUPP in words), and a grant through a
 * view of another target than the CPU makes its pages the morsel's own first, also to read: it takes
 * memory for them (-ENOSPC). So a write always has a way: whose views can follow gets the copy.
 */
#ifndef MORSEL_CLONE_H
#define MORSEL_CLONE_H

#include <morsel/morsel.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Makes a clone of source, calls it name (NULL: no name; it is gone with its last handle unless
 * morsel_publish() gives it one), and opens it. It has the source's size, page policy, flags and tensor
 * table; it is not sealed, also where the source is. clone NULL: the handle is closed again.
 * -EEXIST name is taken; -EBUSY a writer cannot be stopped, in words; -EMLINK 64 clones in a row;
 * -ENOSPC no cell or frame for the first table; -EOPNOTSUPP; -EROFS; -EINVAL neither name nor clone.
 * Any thread, beside all others; calls for one source take turns.
 */
MORSEL_API int morsel_clone(struct morsel *source, const char *name, struct morsel **clone);

/* The same, sealed: a snapshot, which nobody can write. */
MORSEL_API int morsel_snapshot(struct morsel *source, const char *name, struct morsel **snapshot);

#ifdef __cplusplus
}
#endif

#endif
