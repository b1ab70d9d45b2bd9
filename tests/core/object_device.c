#include "core/object_device.h"

#include "contract/contract.h"

struct morsel_view *object_device_view(struct morsel *morsel, uint32_t access)
{
	struct morsel_map_opts opts = {.size = sizeof(opts), .access = access};
	struct morsel_view *view = NULL;

	return contract_software.open(morsel, &opts, &view) ? NULL : view;
}

int object_device_read(struct morsel_view *view, uint64_t offset, uint64_t *word)
{
	return contract_software.peek(view, offset, word, sizeof(*word));
}
