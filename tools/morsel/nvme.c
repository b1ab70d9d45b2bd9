/*
 * morsel nvme: controllers that are driven from user space. Each command opens one, does its work
 * and closes it; DEVICE is a PCI address, or "first": the first that vfio-pci has.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "commands.h"
#include "nvme.h"

#define CLASS_NVME 0x010802u

/* ---- list ---- */

struct list {
	const struct args *args;
	struct table table;
	struct json json;
};

static void list_json(struct json *json, const struct morsel_iommu_function *function)
{
	json_object(json, NULL);
	json_text(json, "device", function->bdf);
	json_text(json, "driver", function->driver);
	json_i64(json, "group", function->group);
	json_bool(json, "viable", function->viable);
	json_bool(json, "iommufd", function->has_cdev);
	json_close(json);
}

static int list_one(void *ctx, const struct morsel_iommu_function *function)
{
	struct list *list = ctx;

	if (function->class_code != CLASS_NVME)
		return 0;
	if (list->args->json) {
		list_json(&list->json, function);
		return 0;
	}
	table_add(&list->table, "%s", function->bdf);
	table_add(&list->table, "%s", *function->driver ? function->driver : "-");
	table_add(&list->table, "%" PRId32, function->group);
	table_add(&list->table, "%s",
		  strcmp(function->driver, "vfio-pci") ? "no: morsel iommu bind" : "yes");
	return 0;
}

int nvme_list(const struct command *self, int argc, char **argv)
{
	static const char *const heads[] = {"DEVICE", "DRIVER", "GROUP", "CAN BE OPENED"};
	struct args args;
	struct list list = {.args = &args};
	int code = args_read(self, NULL, 0, argc, argv, &args), rc;

	if (code != ARGS_RUN)
		return code;
	if (args.json) {
		json_begin(&list.json, stdout);
		json_list(&list.json, "controllers");
	} else {
		table_begin(&list.table, array_length(heads), "llrl", heads);
	}
	rc = morsel_iommu_list(list_one, &list);
	if (args.json) {
		json_close(&list.json);
		json_end(&list.json);
	} else {
		table_end(&list.table);
	}
	return rc < 0 ? complain_library(self, rc) : EXIT_OK;
}

/* ---- open and close ---- */

static int find_first(void *ctx, const struct morsel_iommu_function *function)
{
	if (function->class_code != CLASS_NVME || strcmp(function->driver, "vfio-pci"))
		return 0;
	memcpy(ctx, function->bdf, sizeof(function->bdf));
	return 1;
}

int nvme_on_device(const struct command *self, const char *name,
		   const struct morsel_nvme_opts *opts,
		   int (*act)(struct nvme_device *device, void *ctx), void *ctx)
{
	char first[MORSEL_IOMMU_BDF_BYTES] = "";
	struct nvme_device device = {0};
	int rc;

	if (!strcmp(name, "first") && morsel_iommu_list(find_first, first) != 1) {
		complain(self, "no NVMe controller is bound to vfio-pci: morsel iommu bind ADDRESS "
			       "gives it one; morsel nvme list shows which there are");
		return EXIT_FAILED;
	}
	rc = morsel_iommu_open(*first ? first : name, NULL, &device.device);
	if (rc)
		return complain_library(self, rc);
	rc = morsel_nvme_open(device.device, opts, &device.nvme);
	if (!rc)
		rc = act(&device, ctx);
	if (rc < 0)
		rc = complain_library(self, rc);
	morsel_nvme_close(device.nvme);
	morsel_iommu_close(device.device);
	return rc;
}

/* ---- info ---- */

static void info_json(struct nvme_device *device, const struct morsel_nvme_info *info)
{
	struct morsel_nvme_namespace ns = {.size = sizeof(ns)};
	struct json json;

	json_begin(&json, stdout);
	json_text(&json, "model", info->model);
	json_text(&json, "serial", info->serial);
	json_text(&json, "firmware", info->firmware);
	json_u64(&json, "version", info->version);
	json_u64(&json, "queues", info->queues);
	json_u64(&json, "depth", info->depth);
	json_u64(&json, "interrupts", info->interrupts);
	json_u64(&json, "bytes_page", info->page_bytes);
	json_u64(&json, "bytes_transfer_max", info->transfer_max);
	json_bool(&json, "sgl", info->sgl);
	json_bool(&json, "write_zeroes", info->write_zeroes);
	json_bool(&json, "deallocate", info->deallocate);
	json_bool(&json, "write_cache", info->write_cache);
	json_list(&json, "namespaces");
	for (uint32_t i = 1; i <= info->namespaces; i++) {
		if (morsel_nvme_namespace(device->nvme, i, &ns))
			continue;
		json_object(&json, NULL);
		json_u64(&json, "id", ns.id);
		json_u64(&json, "blocks", ns.blocks);
		json_u64(&json, "bytes_block", ns.block_bytes);
		json_close(&json);
	}
	json_close(&json);
	json_end(&json);
}

static const char *yes_no(uint32_t is)
{
	return is ? "yes" : "no";
}

static void info_words(struct nvme_device *device, const struct morsel_nvme_info *info, bool exact)
{
	struct morsel_nvme_namespace ns = {.size = sizeof(ns)};
	char size[SIZE_TEXT_BYTES];

	printf("model         %s\nserial        %s\nfirmware      %s\n", info->model, info->serial,
	       info->firmware);
	printf("version       %u.%u.%u\n", info->version >> 16, info->version >> 8 & 255,
	       info->version & 255);
	printf("transfers     at most %s\n", size_text(info->transfer_max, exact, size));
	printf("SGL           %s\nwrite zeroes  %s\ndeallocate    %s\nwrite cache   %s\n",
	       yes_no(info->sgl), yes_no(info->write_zeroes), yes_no(info->deallocate),
	       yes_no(info->write_cache));
	for (uint32_t i = 1; i <= info->namespaces; i++)
		if (!morsel_nvme_namespace(device->nvme, i, &ns))
			printf("namespace %-3u %s in blocks of %u bytes\n", i,
			       size_text(ns.blocks * ns.block_bytes, exact, size), ns.block_bytes);
}

static int show_controller(struct nvme_device *device, void *ctx)
{
	const struct args *args = ctx;
	struct morsel_nvme_info info = {.size = sizeof(info)};
	int rc = morsel_nvme_info(device->nvme, &info);

	if (rc)
		return rc;
	/* Numbers go up to what a hostile controller says: no more than can be asked. */
	if (info.namespaces > 1024)
		info.namespaces = 1024;
	if (args->json)
		info_json(device, &info);
	else
		info_words(device, &info, args->exact);
	return 0;
}

int nvme_info(const struct command *self, int argc, char **argv)
{
	struct args args;
	int code = args_read(self, NULL, 0, argc, argv, &args);

	if (code != ARGS_RUN)
		return code;
	return nvme_on_device(self, args.operand[0], NULL, show_controller, &args);
}

/* ---- read and write ---- */

#define CHUNK ((uint64_t)8 << 20)

struct copy {
	const struct command *self;
	const char *file;
	uint64_t ns, position, bytes;
	bool write;
	int fd;
	struct morsel_pool *pool;
	struct morsel *morsel;
	struct morsel_view *cpu, *view;
};

static int file_failed(const struct copy *copy, const char *what)
{
	complain(copy->self, "%s %s: %s", what, copy->file, strerror(errno));
	return EXIT_FAILED;
}

static int open_buffer(struct copy *copy, struct nvme_device *device)
{
	struct morsel_pool_opts pool = {.size = sizeof(pool), .flags = MORSEL_POOL_CREATE};
	struct morsel_opts opts = {.size = sizeof(opts), .flags = MORSEL_CREATE, .bytes = CHUNK};
	int rc = morsel_pool_open(NULL, &pool, &copy->pool);

	if (!rc)
		rc = morsel_open(copy->pool, "buffer", &opts, &copy->morsel);
	if (!rc)
		rc = morsel_map(copy->morsel, NULL, &copy->cpu);
	if (!rc)
		rc = morsel_iommu_view(copy->morsel, device->device, NULL, &copy->view);
	return rc;
}

static void close_buffer(struct copy *copy)
{
	morsel_view_destroy(copy->view);
	morsel_view_destroy(copy->cpu);
	morsel_close(copy->morsel);
	if (copy->pool)
		morsel_pool_close(copy->pool);
}

/* All of it, of a file or a pipe; false and errno. */
static bool transfer_file(struct copy *copy, uint64_t bytes)
{
	unsigned char *at = morsel_addr(copy->cpu);

	while (bytes) {
		ssize_t got = copy->write ? read(copy->fd, at, bytes) : write(copy->fd, at, bytes);

		if (got < 0 && errno == EINTR)
			continue;
		if (!got)
			errno = EIO; /* the file has become shorter */
		if (got <= 0)
			return false;
		at += got;
		bytes -= (uint64_t)got;
	}
	return true;
}

static int copy_chunk(struct copy *copy, struct nvme_device *device, uint64_t done, uint64_t bytes,
		      uint32_t block)
{
	uint64_t whole = (bytes + block - 1) / block * block;
	int rc = 0;

	if (copy->write) {
		/* What lies beyond the file in its last block is zero after. */
		memset((char *)morsel_addr(copy->cpu) + whole - block, 0, block);
		if (!transfer_file(copy, bytes))
			return file_failed(copy, "reading");
		return morsel_nvme_write(device->nvme, (uint32_t)copy->ns, copy->position + done,
					 copy->view, 0, whole);
	}
	rc = morsel_nvme_read(device->nvme, (uint32_t)copy->ns, copy->position + done, copy->view,
			      0, whole);
	if (!rc && !transfer_file(copy, bytes))
		return file_failed(copy, "writing");
	return rc;
}

static int copy_bytes(struct nvme_device *device, void *ctx)
{
	struct copy *copy = ctx;
	struct morsel_nvme_namespace ns = {.size = sizeof(ns)};
	int rc = morsel_nvme_namespace(device->nvme, (uint32_t)copy->ns, &ns);

	if (!rc && !copy->bytes)
		copy->bytes = ns.blocks * ns.block_bytes - copy->position;
	if (!rc)
		rc = open_buffer(copy, device);
	for (uint64_t done = 0; !rc && done < copy->bytes; done += CHUNK)
		rc = copy_chunk(copy, device, done,
				copy->bytes - done < CHUNK ? copy->bytes - done : CHUNK,
				ns.block_bytes);
	if (!rc && copy->write)
		rc = morsel_nvme_flush(device->nvme, (uint32_t)copy->ns);
	close_buffer(copy);
	return rc;
}

static int copy_run(const struct command *self, int argc, char **argv, bool write)
{
	struct copy copy = {.self = self, .ns = 1, .write = write};
	const struct option_spec options[] = {
		{'n', "namespace", "N", OPTION_NUMBER, &copy.ns, "default 1"},
		{0, "position", "SIZE", OPTION_SIZE, &copy.position, "first byte; default 0"},
		{'s', "size", "SIZE", OPTION_SIZE, &copy.bytes,
		 write ? "at most so much; default all of the file" : "default to the end"},
	};
	struct args args;
	int code = args_read(self, options, array_length(options), argc, argv, &args);
	struct stat st;

	if (code != ARGS_RUN)
		return code;
	copy.file = args.operand[1];
	copy.fd =
		open(copy.file,
		     write ? O_RDONLY | O_CLOEXEC : O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (copy.fd < 0 || fstat(copy.fd, &st))
		return file_failed(&copy, "opening");
	if (write && (!copy.bytes || copy.bytes > (uint64_t)st.st_size))
		copy.bytes = (uint64_t)st.st_size;
	code = write && !copy.bytes
		       ? EXIT_OK
		       : nvme_on_device(self, args.operand[0], NULL, copy_bytes, &copy);
	if (close(copy.fd) && code == EXIT_OK)
		code = file_failed(&copy, "closing");
	return code;
}

int nvme_read(const struct command *self, int argc, char **argv)
{
	return copy_run(self, argc, argv, false);
}

int nvme_write(const struct command *self, int argc, char **argv)
{
	return copy_run(self, argc, argv, true);
}

/* ---- import and export ---- */

struct carry {
	const struct command *self;
	struct args args;
	struct morsel_nvme_place place;
	struct morsel_opts opts;
	struct progress progress;
	uint64_t ns;
	bool raw, export;
	const char *name, *device;
	struct morsel_pool *pool;
};

static void tell_carried(const struct carry *carry)
{
	const struct morsel_nvme_place *place = &carry->place;
	char size[SIZE_TEXT_BYTES];
	struct json json;
	char *name;

	if (carry->args.json) {
		json_begin(&json, stdout);
		json_name(&json, carry->name);
		json_u64(&json, "bytes", place->file_bytes);
		json_u64(&json, "bytes_moved", place->bytes_moved);
		json_u64(&json, "bytes_copied", place->bytes_copied);
		json_end(&json);
		return;
	}
	name = name_text(carry->name);
	printf("%s: %s", name, size_text(place->file_bytes, carry->args.exact, size));
	printf(", %s copied by the CPU\n", size_text(place->bytes_copied, carry->args.exact, size));
	free(name);
}

static int carry_it(struct nvme_device *device, void *ctx)
{
	struct carry *carry = ctx;
	struct morsel *morsel = NULL;
	int rc;

	carry->opts.size = sizeof(carry->opts);
	carry->opts.progress = on_progress;
	carry->opts.progress_ctx = &carry->progress;
	watch_interrupts();
	progress_begin(&carry->progress, carry->export ? "export" : "import");
	if (carry->export)
		rc = morsel_open(carry->pool, carry->name, NULL, &morsel);
	else
		rc = morsel_nvme_import(carry->pool, carry->name, device->nvme, &carry->place,
					&carry->opts, &morsel);
	if (!rc && carry->export)
		rc = morsel_nvme_export(morsel, device->nvme, &carry->place, &carry->opts);
	progress_end(&carry->progress);
	if (!rc)
		tell_carried(carry);
	morsel_close(morsel);
	return rc;
}

static int carry_pool(struct morsel_pool *pool, void *ctx)
{
	struct carry *carry = ctx;

	carry->pool = pool;
	return nvme_on_device(carry->self, carry->device, NULL, carry_it, carry);
}

static int carry_run(const struct command *self, int argc, char **argv, bool export)
{
	struct carry carry = {
		.self = self, .export = export, .ns = 1, .place = {.size = sizeof(carry.place)}};
	const struct option_spec options[] = {
		{'n', "namespace", "N", OPTION_NUMBER, &carry.ns, "default 1"},
		{0, "position", "SIZE", OPTION_SIZE, &carry.place.position,
		 "where the place begins; default 0"},
		{'s', "size", "SIZE", OPTION_SIZE, &carry.place.bytes,
		 "how long the place is; default to the end"},
		{0, "raw", NULL, OPTION_FLAG, &carry.raw,
		 "bytes as they are, without the heads that make an export all or nothing"},
	};
	int code = args_read(self, options, array_length(options), argc, argv, &carry.args);

	if (code != ARGS_RUN)
		return code;
	carry.device = carry.args.operand[export ? 1 : 0];
	carry.name = carry.args.operand[export ? 0 : 1];
	carry.place.ns = (uint32_t)carry.ns;
	carry.place.flags = carry.raw ? 0 : MORSEL_NVME_KEPT;
	return on_pool(self, &carry.args, 0, carry_pool, &carry);
}

int nvme_import(const struct command *self, int argc, char **argv)
{
	return carry_run(self, argc, argv, false);
}

int nvme_export(const struct command *self, int argc, char **argv)
{
	return carry_run(self, argc, argv, true);
}
