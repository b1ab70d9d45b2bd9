/*
 * Checks of what devices of user space need: an IOMMU that is on, a way into the kernel, functions
 * that are bound to it and viable, and the limits that it sets.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <morsel/iommu.h>

#include "commands.h"
#include "doctor.h"

static void check_iommu(struct finding *finding)
{
	int units = count_entries("/sys/class/iommu", "");
	int groups = count_entries("/sys/kernel/iommu_groups", "");

	if (units <= 0 || groups <= 0) {
		found(finding, HEALTH_MISSING, "no IOMMU is on: nothing would confine a device");
		remedy(finding, "turn on VT-d or AMD-Vi in the firmware and boot with "
				"intel_iommu=on (Intel); a virtual machine needs a virtual IOMMU");
		return;
	}
	found(finding, HEALTH_OK, "%d unit%s, %d groups", units, units == 1 ? "" : "s", groups);
}

static const char *file_state(const char *path)
{
	if (access(path, F_OK))
		return "absent";
	return access(path, R_OK | W_OK) ? "no permission" : "usable";
}

static void check_vfio(struct finding *finding)
{
	const char *state = file_state("/dev/vfio/vfio");
	bool pci = !access("/sys/bus/pci/drivers/vfio-pci", F_OK);
	bool type1 = !access("/sys/module/vfio_iommu_type1", F_OK);

	found(finding,
	      strcmp(state, "usable") ? HEALTH_MISSING
	      : pci && type1	      ? HEALTH_OK
				      : HEALTH_LIMITED,
	      "/dev/vfio/vfio %s, vfio-pci %s, vfio_iommu_type1 %s", state,
	      pci ? "loaded" : "not loaded", type1 ? "loaded" : "not loaded");
	if (!strcmp(state, "no permission"))
		remedy(finding, "give the user access to /dev/vfio/vfio and to /dev/vfio/GROUP");
	else if (finding->health != HEALTH_OK)
		remedy(finding, "modprobe vfio-pci && modprobe vfio_iommu_type1 (as root)");
}

static void check_iommufd(struct finding *finding)
{
	const char *state = file_state("/dev/iommu");
	int nodes = count_entries("/dev/vfio/devices", "vfio");

	found(finding,
	      strcmp(state, "usable") ? HEALTH_MISSING
	      : nodes > 0	      ? HEALTH_OK
				      : HEALTH_LIMITED,
	      "/dev/iommu %s, %d device node%s in /dev/vfio/devices", state, nodes < 0 ? 0 : nodes,
	      nodes == 1 ? "" : "s");
	if (!strcmp(state, "no permission"))
		remedy(finding, "give the user access to /dev/iommu and /dev/vfio/devices/*");
	else if (finding->health != HEALTH_OK)
		remedy(finding,
		       "a kernel with CONFIG_IOMMUFD and CONFIG_VFIO_DEVICE_CDEV; without it "
		       "devices are used by groups and containers (type1)");
}

struct functions {
	unsigned bound, ready;
	char blocked[MORSEL_IOMMU_BDF_BYTES], blocker[MORSEL_IOMMU_BDF_BYTES], driver[32];
	int group;
};

static int look_at(void *ctx, const struct morsel_iommu_function *function)
{
	struct functions *all = ctx;

	if (!strstr(function->driver, "vfio"))
		return 0;
	all->bound++;
	all->ready += function->viable;
	if (!function->viable && !all->blocked[0]) {
		memcpy(all->blocked, function->bdf, sizeof(all->blocked));
		memcpy(all->blocker, function->blocker, sizeof(all->blocker));
		memcpy(all->driver, function->blocker_driver, sizeof(all->driver));
		all->group = function->group;
	}
	return 0;
}

static void check_functions(struct finding *finding)
{
	struct functions all = {0};

	if (morsel_iommu_list(look_at, &all) < 0 || !all.bound) {
		found(finding, HEALTH_MISSING, "no PCI function is bound to vfio-pci");
		remedy(finding,
		       "`morsel iommu list` shows what there is; `morsel iommu bind ADDRESS` "
		       "(as root) gives one to user space");
		return;
	}
	found(finding, all.ready == all.bound ? HEALTH_OK : HEALTH_LIMITED,
	      "%u PCI function%s bound to vfio-pci, %u ready", all.bound, all.bound == 1 ? "" : "s",
	      all.ready);
	if (all.blocked[0])
		remedy(finding,
		       "group %d of %s is not viable: %s is in it and the driver %s has it; "
		       "`morsel "
		       "iommu bind %s` (as root)",
		       all.group, all.blocked, all.blocker, all.driver, all.blocker);
}

static void check_entries(struct finding *finding)
{
	uint64_t limit = read_number("/sys/module/vfio_iommu_type1/parameters/dma_entry_limit", 0);

	if (!limit) {
		found(finding, HEALTH_MISSING,
		      "vfio_iommu_type1 is not loaded: its limit of mappings "
		      "is unknown");
		return;
	}
	found(finding, HEALTH_OK, "%llu mappings for each container (type1)",
	      (unsigned long long)limit);
	if (limit < 65535)
		remedy(finding, "modprobe vfio_iommu_type1 dma_entry_limit=65535");
}

const struct check iommu_checks[] = {
	{"iommu", "IOMMU", false, check_iommu},
	{"vfio", "VFIO type1", false, check_vfio},
	{"iommufd", "iommufd", false, check_iommufd},
	{"iommu_functions", "PCI functions", false, check_functions},
	{"iommu_entries", "DMA mappings", false, check_entries},
};
const size_t iommu_checks_count = array_length(iommu_checks);
