/*
 * A view of the contract suite's software target, for tests of the object room: it forgets by mail.
 */
#ifndef TESTS_CORE_OBJECT_DEVICE_H
#define TESTS_CORE_OBJECT_DEVICE_H

#include <stdint.h>

#include <morsel/morsel.h>

/* NULL if it cannot be made. */
struct morsel_view *object_device_view(struct morsel *morsel, uint32_t access);
/* What the target reads there; -EFAULT where it has no translation. */
int object_device_read(struct morsel_view *view, uint64_t offset, uint64_t *word);

#endif
