/*
 * What the kernel says of PCI functions: who they are, which group the IOMMU keeps them in, who
 * drives them, and who is in the way. Looking only, but for bind and unbind.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

#define PATH_BYTES 256

/* "0000:00:04.0", or "00:04.0" of domain 0000. */
int mrs_sysfs_parse(const char *given, char bdf[MORSEL_IOMMU_BDF_BYTES])
{
	unsigned domain = 0, bus, slot, function;
	int end = 0;

	if (!given)
		return morsel_fail(-EINVAL, "a PCI address is needed, for example 0000:00:04.0");
	if (sscanf(given, "%4x:%2x:%2x.%1x%n", &domain, &bus, &slot, &function, &end) != 4 ||
	    given[end]) {
		domain = end = 0;
		if (sscanf(given, "%2x:%2x.%1x%n", &bus, &slot, &function, &end) != 3 || given[end])
			return morsel_fail(-EINVAL,
					   "%.40s is not a PCI address, for example 0000:00:04.0",
					   given);
	}
	if (slot > 31 || function > 7)
		return morsel_fail(-EINVAL,
				   "%.40s is not a PCI address: device up to 1f, function "
				   "up to 7",
				   given);
	snprintf(bdf, MORSEL_IOMMU_BDF_BYTES, "%04x:%02x:%02x.%x", domain & 0xffff, bus & 0xff,
		 slot, function);
	return 0;
}

/* As much of the text as there is room for. */
static void copy_text(char *to, size_t bytes, const char *from)
{
	size_t length = strnlen(from, bytes - 1);

	memcpy(to, from, length);
	to[length] = 0;
}

static void path_of(char *path, const char *bdf, const char *what)
{
	snprintf(path, PATH_BYTES, "%s/bus/pci/devices/%s%s%s", mrs_iommu_sys->sysfs, bdf,
		 what[0] ? "/" : "", what);
}

static unsigned long read_number(const char *bdf, const char *what)
{
	char path[PATH_BYTES], text[32] = "";
	FILE *file;

	path_of(path, bdf, what);
	file = fopen(path, "re");
	if (!file)
		return 0;
	if (!fgets(text, sizeof(text), file))
		text[0] = 0;
	fclose(file);
	return strtoul(text, NULL, 0);
}

/* The last part of what a link points to; false if there is none. */
static bool read_link(const char *bdf, const char *what, char *name, size_t bytes)
{
	char path[PATH_BYTES], target[PATH_BYTES];
	const char *last;
	ssize_t n;

	path_of(path, bdf, what);
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return false;
	target[n] = 0;
	last = strrchr(target, '/');
	copy_text(name, bytes, last ? last + 1 : target);
	return true;
}

int mrs_sysfs_cdev(const char *bdf, char *name, size_t bytes)
{
	char path[PATH_BYTES];
	struct dirent *entry;
	int rc = -ENOENT;
	DIR *dir;

	path_of(path, bdf, "vfio-dev");
	dir = opendir(path);
	while (dir && rc && (entry = readdir(dir))) {
		if (strncmp(entry->d_name, "vfio", 4))
			continue;
		copy_text(name, bytes, entry->d_name);
		rc = 0;
	}
	if (dir)
		closedir(dir);
	return rc;
}

bool mrs_sysfs_can_iommufd(const char *bdf)
{
	char path[PATH_BYTES], name[32];

	snprintf(path, sizeof(path), "%s/iommu", mrs_iommu_sys->dev);
	if (access(path, R_OK | W_OK) || mrs_sysfs_cdev(bdf, name, sizeof(name)))
		return false;
	snprintf(path, sizeof(path), "%s/vfio/devices/%s", mrs_iommu_sys->dev, name);
	return !access(path, R_OK | W_OK);
}

bool mrs_sysfs_has_iommu(void)
{
	char path[PATH_BYTES];
	struct dirent *entry;
	bool found = false;
	DIR *dir;

	snprintf(path, sizeof(path), "%s/class/iommu", mrs_iommu_sys->sysfs);
	dir = opendir(path);
	while (dir && !found && (entry = readdir(dir)))
		found = entry->d_name[0] != '.';
	if (dir)
		closedir(dir);
	return found;
}

/* ---- groups ---- */

/* May a function with this driver be in the group of one that user space drives? */
static bool is_harmless(const char *driver)
{
	return !driver[0] || strstr(driver, "vfio") || !strcmp(driver, "pci-stub") ||
	       !strcmp(driver, "pcieport") || !strcmp(driver, "shpchp");
}

static void look_at_peer(struct morsel_iommu_function *f, const char *bdf)
{
	char driver[32] = "";

	f->peers++;
	read_link(bdf, "driver", driver, sizeof(driver));
	if (is_harmless(driver) || !f->viable)
		return;
	f->viable = 0;
	copy_text(f->blocker, MORSEL_IOMMU_BDF_BYTES, bdf);
	copy_text(f->blocker_driver, sizeof(f->blocker_driver), driver);
}

static void look_at_group(struct morsel_iommu_function *f)
{
	char path[PATH_BYTES], name[32];
	struct dirent *entry;
	DIR *dir;

	f->group = -1;
	if (!read_link(f->bdf, "iommu_group", name, sizeof(name)))
		return;
	f->group = atoi(name);
	f->viable = 1;
	path_of(path, f->bdf, "iommu_group/devices");
	dir = opendir(path);
	while (dir && (entry = readdir(dir)))
		if (entry->d_name[0] != '.' && strcmp(entry->d_name, f->bdf))
			look_at_peer(f, entry->d_name);
	if (dir)
		closedir(dir);
}

static void look(const char *bdf, struct morsel_iommu_function *f)
{
	char name[32];

	*f = (struct morsel_iommu_function){.size = sizeof(*f)};
	copy_text(f->bdf, MORSEL_IOMMU_BDF_BYTES, bdf);
	f->vendor = (uint16_t)read_number(bdf, "vendor");
	f->device = (uint16_t)read_number(bdf, "device");
	f->class_code = (uint32_t)read_number(bdf, "class");
	read_link(bdf, "driver", f->driver, sizeof(f->driver));
	f->has_cdev = !mrs_sysfs_cdev(bdf, name, sizeof(name));
	look_at_group(f);
}

int morsel_iommu_find(const char *given, struct morsel_iommu_function *function)
{
	char bdf[MORSEL_IOMMU_BDF_BYTES], path[PATH_BYTES];
	int rc = mrs_sysfs_parse(given, bdf);

	if (rc)
		return rc;
	path_of(path, bdf, "");
	if (access(path, F_OK))
		return morsel_fail(-ENODEV,
				   "there is no PCI function at %s: `morsel iommu list` shows what "
				   "there is",
				   bdf);
	look(bdf, function);
	return 0;
}

int morsel_iommu_list(morsel_iommu_function_fn fn, void *ctx)
{
	struct morsel_iommu_function function;
	char path[PATH_BYTES];
	struct dirent **name;
	int n, rc = 0;

	snprintf(path, sizeof(path), "%s/bus/pci/devices", mrs_iommu_sys->sysfs);
	n = scandir(path, &name, NULL, alphasort);
	if (n < 0)
		return errno == ENOENT
			       ? 0
			       : morsel_fail(-errno, "cannot list %s: %s", path, strerror(errno));
	for (int i = 0; i < n; i++) {
		if (!rc && name[i]->d_name[0] != '.') {
			look(name[i]->d_name, &function);
			rc = fn(ctx, &function);
		}
		free(name[i]);
	}
	free(name);
	return rc;
}

/* ---- is it ready? ---- */

static bool has_driver(const char *driver)
{
	char path[PATH_BYTES];

	snprintf(path, sizeof(path), "%s/bus/pci/drivers/%s", mrs_iommu_sys->sysfs, driver);
	return !access(path, F_OK);
}

static int no_group(const struct morsel_iommu_function *f)
{
	if (mrs_sysfs_has_iommu())
		return morsel_fail(-ENODEV,
				   "no IOMMU translates for %s: an IOMMU is on, but not for this "
				   "function",
				   f->bdf);
	return morsel_fail(
		-ENODEV,
		"this machine has no IOMMU switched on, so nothing would confine %s: "
		"enable VT-d or AMD-Vi in the firmware and intel_iommu=on on the kernel's "
		"command line; in a virtual machine, give it a virtual IOMMU",
		f->bdf);
}

int mrs_sysfs_check(const struct morsel_iommu_function *f)
{
	if (f->group < 0)
		return no_group(f);
	if (!strstr(f->driver, "vfio")) {
		if (!has_driver("vfio-pci"))
			return morsel_fail(-ENOENT, "the kernel module vfio-pci is missing: "
						    "`modprobe vfio-pci` as root");
		return morsel_fail(
			-ENXIO,
			"%s is %s%s, not to vfio-pci: `morsel iommu bind %s` as root gives "
			"it to user space",
			f->bdf, f->driver[0] ? "bound to " : "bound to nothing", f->driver, f->bdf);
	}
	if (!f->viable)
		return morsel_fail(-EBUSY,
				   "IOMMU group %d of %s is not viable: %s is in it, too, and the "
				   "kernel's driver %s has it; `morsel iommu bind %s` as root, or "
				   "unbind it",
				   (int)f->group, f->bdf, f->blocker, f->blocker_driver,
				   f->blocker);
	return 0;
}

/* ---- bind, unbind ---- */

/* Writes a word to a file of sysfs. -errno without words. */
static int write_word(const char *path, const char *word)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), rc = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, word, strlen(word)) < 0)
		rc = -errno;
	close(fd);
	return rc;
}

static int refuse_write(const char *bdf, const char *path, int rc)
{
	if (rc == -EACCES || rc == -EPERM)
		return morsel_fail(-EACCES,
				   "changing the driver of %s needs root: %s is not "
				   "writable",
				   bdf, path);
	return morsel_fail(rc, "cannot write %s for %s: %s", path, bdf, strerror(-rc));
}

/* Lets the driver go that has the function now. */
static int release_driver(const struct morsel_iommu_function *f)
{
	char path[PATH_BYTES];
	int rc;

	if (!f->driver[0])
		return 0;
	path_of(path, f->bdf, "driver/unbind");
	rc = write_word(path, f->bdf);
	return rc ? refuse_write(f->bdf, path, rc) : 0;
}

/* Which driver may have it ("\n": any), and asks the kernel to look for one. */
static int choose_driver(const char *bdf, const char *driver)
{
	char path[PATH_BYTES];
	int rc;

	path_of(path, bdf, "driver_override");
	rc = write_word(path, driver);
	if (rc)
		return refuse_write(bdf, path, rc);
	snprintf(path, sizeof(path), "%s/bus/pci/drivers_probe", mrs_iommu_sys->sysfs);
	rc = write_word(path, bdf);
	return rc ? refuse_write(bdf, path, rc) : 0;
}

int morsel_iommu_bind(const char *bdf)
{
	struct morsel_iommu_function f;
	int rc = morsel_iommu_find(bdf, &f);

	if (rc)
		return rc;
	if (strstr(f.driver, "vfio"))
		return 0;
	if (f.group < 0)
		return no_group(&f);
	if (!has_driver("vfio-pci"))
		return morsel_fail(-ENOENT, "the kernel module vfio-pci is missing: `modprobe "
					    "vfio-pci` as root");
	rc = release_driver(&f);
	if (!rc)
		rc = choose_driver(f.bdf, "vfio-pci");
	if (rc)
		return rc;
	look(f.bdf, &f);
	if (strstr(f.driver, "vfio"))
		return 0;
	return morsel_fail(-EIO, "the kernel did not give %s to vfio-pci: its log says why", f.bdf);
}

int morsel_iommu_unbind(const char *bdf)
{
	struct morsel_iommu_function f;
	int rc = morsel_iommu_find(bdf, &f);

	if (!rc && strstr(f.driver, "vfio"))
		rc = release_driver(&f);
	return rc ? rc : choose_driver(f.bdf, "\n");
}
