/* What the files behind morsel nvme share: a controller, opened for one command. */
#ifndef TOOLS_MORSEL_NVME_H
#define TOOLS_MORSEL_NVME_H

#include <morsel/nvme.h>
#include <morsel/view.h>

#include "args.h"

struct nvme_device {
	struct morsel_device *device;
	struct morsel_nvme *nvme;
};

/*
 * Opens the controller, acts, closes. act answers as for on_pool(). name is a PCI address or
 * "first". Returns the exit code.
 */
int nvme_on_device(const struct command *self, const char *name,
		   const struct morsel_nvme_opts *opts,
		   int (*act)(struct nvme_device *device, void *ctx), void *ctx);

#endif
