/*
 * Parts of a pool handle that the rooms above make when they first need them: threads, descriptors,
 * lists. This room knows when they must end (at close) and what a child of fork must let go of.
 */
#include "base/atomic.h"
#include "pool/internal.h"

void mrs_parts_init(struct morsel_pool *pool)
{
	pthread_mutexattr_t recursive;

	pthread_mutexattr_init(&recursive);
	pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&pool->part_lock, &recursive);
	pthread_mutexattr_destroy(&recursive);
}

struct mrs_part *mrs_pool_part(struct morsel_pool *pool, enum mrs_pool_part_index which)
{
	/* Pairs with the release in mrs_pool_part_make(). */
	return (struct mrs_part *)(uintptr_t)mrs_load_acquire(&pool->part[which]);
}

int mrs_pool_part_make(struct morsel_pool *pool, enum mrs_pool_part_index which,
		       int (*make)(struct morsel_pool *pool, struct mrs_part **part),
		       struct mrs_part **part)
{
	struct mrs_part *made = mrs_pool_part(pool, which);
	int rc = mrs_pool_usable(pool, false);

	if (rc || made)
		goto out;
	pthread_mutex_lock(&pool->part_lock);
	made = mrs_pool_part(pool, which);
	if (!made)
		rc = make(pool, &made);
	if (!rc)
		mrs_store_release(&pool->part[which], (uintptr_t)made);
	pthread_mutex_unlock(&pool->part_lock);
out:
	if (!rc)
		*part = made;
	return rc;
}

void mrs_parts_stop(struct morsel_pool *pool)
{
	for (unsigned i = MRS_PARTS; i-- > 0;) {
		struct mrs_part *part = mrs_pool_part(pool, i);

		mrs_store_release(&pool->part[i], 0);
		if (part)
			part->stop(part);
	}
}

void mrs_parts_in_child(struct morsel_pool *pool)
{
	for (unsigned i = 0; i < MRS_PARTS; i++) {
		struct mrs_part *part = mrs_pool_part(pool, i);

		if (part && part->in_child)
			part->in_child(part);
	}
}
