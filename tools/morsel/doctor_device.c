/*
 * Checks of the devices that can share a pool's memory. Nothing is opened for longer than it takes
 * to know that it can be; a device that is absent is no fault of the machine.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "doctor.h"

/* How many paths match; *first (may be NULL) gets the first of them. */
static int matches(const char *pattern, char *first, size_t room)
{
	glob_t paths;
	int count = 0;

	if (glob(pattern, 0, NULL, &paths))
		return 0;
	count = (int)paths.gl_pathc;
	if (first)
		snprintf(first, room, "%s", paths.gl_pathv[0]);
	globfree(&paths);
	return count;
}

static const char *access_text(const char *path)
{
	if (access(path, F_OK))
		return "absent";
	return access(path, R_OK | W_OK) ? "no permission" : "usable";
}

static void check_rdma(struct finding *finding)
{
	int devices = count_entries("/sys/class/infiniband", "");
	char verbs[256] = "";
	int nodes = matches("/dev/infiniband/uverbs*", verbs, sizeof(verbs));

	if (devices <= 0) {
		found(finding, HEALTH_MISSING, "no RDMA device");
		remedy(finding,
		       "for software RDMA: modprobe rdma_rxe && rdma link add rxe0 type rxe "
		       "netdev INTERFACE (as root)");
		return;
	}
	if (!nodes || access(verbs, R_OK | W_OK)) {
		found(finding, HEALTH_LIMITED, "%d device%s, but %s", devices,
		      devices == 1 ? "" : "s",
		      nodes ? "no permission on /dev/infiniband" : "no /dev/infiniband/uverbs*");
		remedy(finding,
		       nodes ? "give the user access to /dev/infiniband/uverbs*"
			     : "modprobe ib_uverbs, and pass /dev/infiniband into a container");
		return;
	}
	found(finding, HEALTH_OK, "%d device%s", devices, devices == 1 ? "" : "s");
}

static void check_opencl(struct finding *finding)
{
	char words[300] = "";
	int drivers = matches("/etc/OpenCL/vendors/*.icd", NULL, 0);
	int count = gpu_look(words, sizeof(words));

	if (count > 0) {
		found(finding, HEALTH_OK, "%d device%s, the first: %s", count,
		      count == 1 ? "" : "s", words);
		return;
	}
	found(finding, drivers ? HEALTH_LIMITED : HEALTH_MISSING, "%d driver%s in "
	      "/etc/OpenCL/vendors; %s", drivers, drivers == 1 ? "" : "s", words);
	remedy(finding, drivers ? "install libmorsel-gpu and the loader (ocl-icd-libopencl1), and "
				  "look whether the user may open the device (group render)"
				: "install the GPU vendor's OpenCL driver, or pocl-opencl-icd for "
				  "the CPU");
}

static void check_kvm(struct finding *finding)
{
	const char *text = access_text("/dev/kvm");

	found(finding,
	      !strcmp(text, "usable")	? HEALTH_OK
	      : !strcmp(text, "absent") ? HEALTH_MISSING
					: HEALTH_LIMITED,
	      "/dev/kvm %s: only the test lab uses it", text);
	if (!strcmp(text, "no permission"))
		remedy(finding, "add the user to the group of /dev/kvm");
	else if (finding->health != HEALTH_OK)
		remedy(finding, "turn on virtualisation in the firmware; the lab falls back to "
				"emulation");
}

static void check_dax(struct finding *finding)
{
	char first[256] = "";
	int count = matches("/dev/dax*.*", first, sizeof(first));

	if (!count) {
		found(finding, HEALTH_MISSING, "no /dev/dax device");
		remedy(finding,
		       "persistent or CXL memory appears there after ndctl create-namespace "
		       "--mode=devdax or daxctl reconfigure-device --mode=devdax");
		return;
	}
	found(finding, access(first, R_OK | W_OK) ? HEALTH_LIMITED : HEALTH_OK,
	      "%d device%s, %s is %s", count, count == 1 ? "" : "s", first, access_text(first));
	if (finding->health != HEALTH_OK)
		remedy(finding, "give the user access to %s", first);
}

static void check_cxl(struct finding *finding)
{
	int devices = count_entries("/sys/bus/cxl/devices", "mem");
	int regions = count_entries("/sys/bus/cxl/devices", "region");

	if (devices <= 0) {
		found(finding, HEALTH_MISSING, "no CXL memory device");
		remedy(finding,
		       "CXL memory appears with CONFIG_CXL_BUS and hardware, or under QEMU");
		return;
	}
	found(finding, HEALTH_OK, "%d memory device%s, %d region%s", devices,
	      devices == 1 ? "" : "s", regions, regions == 1 ? "" : "s");
}

const struct check device_checks[] = {
	{"rdma", "RDMA", false, check_rdma}, {"opencl", "OpenCL", false, check_opencl},
	{"kvm", "KVM", false, check_kvm},    {"dax", "DAX", false, check_dax},
	{"cxl", "CXL", false, check_cxl},
};
const size_t device_checks_count = array_length(device_checks);
