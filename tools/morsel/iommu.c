/*
 * morsel iommu: which PCI functions user space could drive, what an IOMMU permits, and where a
 * morsel would lie in a device's address space.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <morsel/iommu.h>

#include "commands.h"

static const char *kind_name(uint32_t kind)
{
	return kind == MORSEL_IOMMU_IOMMUFD ? "iommufd" : "type1";
}

/* ---- list ---- */

static const char *state_of(const struct morsel_iommu_function *function)
{
	if (function->group < 0)
		return "no IOMMU";
	if (!function->viable)
		return "blocked";
	return strstr(function->driver, "vfio") ? "ready" : "not bound";
}

static int add_row(void *ctx, const struct morsel_iommu_function *function)
{
	struct table *table = ctx;

	table_add(table, "%s", function->bdf);
	table_add(table, "%04x:%04x", function->vendor, function->device);
	table_add(table, "%06x", function->class_code);
	table_add(table, "%s", function->driver[0] ? function->driver : "-");
	if (function->group >= 0)
		table_add(table, "%" PRId32, function->group);
	else
		table_add(table, "%s", "-");
	if (!strcmp(state_of(function), "blocked"))
		table_add(table, "blocked by %s (%s)", function->blocker, function->blocker_driver);
	else
		table_add(table, "%s", state_of(function));
	return 0;
}

static void json_function(struct json *json, const struct morsel_iommu_function *function)
{
	json_text(json, "address", function->bdf);
	json_u64(json, "vendor", function->vendor);
	json_u64(json, "device", function->device);
	json_u64(json, "class", function->class_code);
	json_text(json, "driver", function->driver[0] ? function->driver : NULL);
	json_i64(json, "group", function->group);
	json_u64(json, "peers", function->peers);
	json_text(json, "state", state_of(function));
	json_bool(json, "iommufd", function->has_cdev);
	json_text(json, "blocker", function->blocker[0] ? function->blocker : NULL);
	json_text(json, "blocker_driver",
		  function->blocker_driver[0] ? function->blocker_driver : NULL);
}

static int add_json(void *ctx, const struct morsel_iommu_function *function)
{
	struct json *json = ctx;

	json_object(json, NULL);
	json_function(json, function);
	json_close(json);
	return 0;
}

int iommu_list(const struct command *self, int argc, char **argv)
{
	static const char *const heads[] = {"ADDRESS", "ID", "CLASS", "DRIVER", "GROUP", "STATE"};
	struct table table;
	struct args args;
	struct json json;
	int rc, code = args_read(self, NULL, 0, argc, argv, &args);

	if (code != ARGS_RUN)
		return code;
	if (args.json) {
		json_begin(&json, stdout);
		json_list(&json, "functions");
		rc = morsel_iommu_list(add_json, &json);
		json_close(&json);
		json_end(&json);
	} else {
		table_begin(&table, array_length(heads), "llllrl", heads);
		rc = morsel_iommu_list(add_row, &table);
		if (rc < 0)
			table_drop(&table);
		else
			table_end(&table);
	}
	return rc < 0 ? complain_library(self, rc) : EXIT_OK;
}

/* ---- bind, unbind ---- */

static int give(const struct command *self, int argc, char **argv, int (*to)(const char *bdf))
{
	struct args args;
	int rc, code = args_read(self, NULL, 0, argc, argv, &args);

	if (code != ARGS_RUN)
		return code;
	rc = to(args.operand[0]);
	return rc ? complain_library(self, rc) : EXIT_OK;
}

int iommu_bind(const struct command *self, int argc, char **argv)
{
	return give(self, argc, argv, morsel_iommu_bind);
}

int iommu_unbind(const struct command *self, int argc, char **argv)
{
	return give(self, argc, argv, morsel_iommu_unbind);
}

/* ---- info ---- */

struct look {
	const struct command *self;
	const struct args *args;
	uint32_t kind;
	struct morsel_device *device;
	struct morsel_iommu_function function;
	struct morsel_iommu_device_info info;
	struct morsel_iommu_domain_info domain;
};

static int open_device(struct look *look, const char *bdf)
{
	struct morsel_iommu_opts opts = {
		.size = sizeof(opts), .kind = look->kind, .flags = MORSEL_IOMMU_NO_BUS_MASTER};
	int rc = morsel_iommu_open(bdf, &opts, &look->device);

	look->info.size = sizeof(look->info);
	look->domain.size = sizeof(look->domain);
	if (!rc)
		rc = morsel_iommu_device_info(look->device, &look->info);
	if (!rc)
		rc = morsel_iommu_domain_info(morsel_iommu_domain(look->device), &look->domain);
	return rc;
}

static const char *const irq_names[] = {"INTx", "MSI", "MSI-X"};

static void info_json(struct look *look)
{
	struct json json;
	uint64_t first, last;

	json_begin(&json, stdout);
	json_function(&json, &look->function);
	json_text(&json, "kind", kind_name(look->domain.kind));
	json_bool(&json, "can_reset", look->info.can_reset);
	json_object(&json, "interrupts");
	for (uint32_t i = 0; i < array_length(irq_names); i++)
		json_u64(&json, irq_names[i], look->info.irqs[i]);
	json_close(&json);
	json_list(&json, "bars");
	for (uint32_t i = 0; i < 6; i++) {
		struct morsel_iommu_region region = {.size = sizeof(region)};

		if (morsel_iommu_region(look->device, i, &region) || !region.bytes)
			continue;
		json_object(&json, NULL);
		json_u64(&json, "index", i);
		json_u64(&json, "bytes", region.bytes);
		json_bool(&json, "mappable", region.mappable);
		json_close(&json);
	}
	json_close(&json);
	json_u64(&json, "page_sizes", look->domain.page_sizes);
	json_list(&json, "ranges");
	for (uint32_t i = 0;
	     i < look->domain.ranges &&
	     !morsel_iommu_range(morsel_iommu_domain(look->device), i, &first, &last);
	     i++) {
		json_object(&json, NULL);
		json_u64(&json, "first", first);
		json_u64(&json, "last", last);
		json_close(&json);
	}
	json_close(&json);
	json_u64(&json, "entries_max", look->domain.entries_max);
	json_u64(&json, "memlock", look->domain.bytes_memlock);
	json_bool(&json, "dirty_tracking", look->domain.dirty_tracking);
	json_end(&json);
}

static void print_limit(const char *name, uint64_t value, const char *unit)
{
	if (value == UINT64_MAX)
		printf("%-16s unlimited\n", name);
	else
		printf("%-16s %" PRIu64 "%s\n", name, value, unit);
}

static void info_text(struct look *look)
{
	const struct morsel_iommu_domain_info *domain = &look->domain;
	char text[SIZE_TEXT_BYTES];
	uint64_t first, last;

	printf("%-16s %s\n", "address", look->function.bdf);
	printf("%-16s %04x:%04x, class %06x\n", "id", look->function.vendor, look->function.device,
	       look->function.class_code);
	printf("%-16s %s, group %" PRId32 ", %s\n", "driver", look->function.driver,
	       look->function.group, kind_name(domain->kind));
	for (uint32_t i = 0; i < 6; i++) {
		struct morsel_iommu_region region = {.size = sizeof(region)};

		if (!morsel_iommu_region(look->device, i, &region) && region.bytes)
			printf("BAR %-12u %s%s\n", i,
			       size_text(region.bytes, look->args->exact, text),
			       region.mappable ? "" : ", not mappable");
	}
	printf("%-16s", "interrupts");
	for (uint32_t i = 0; i < array_length(irq_names); i++)
		printf(" %s %u", irq_names[i], look->info.irqs[i]);
	printf("\n%-16s %s\n", "reset", look->info.can_reset ? "yes" : "no");
	printf("%-16s", "page sizes");
	for (unsigned bit = 0; bit < 64; bit++)
		if (domain->page_sizes >> bit & 1)
			printf(" %s", size_text(1ull << bit, look->args->exact, text));
	putchar('\n');
	for (uint32_t i = 0;
	     i < domain->ranges &&
	     !morsel_iommu_range(morsel_iommu_domain(look->device), i, &first, &last);
	     i++)
		printf("%-16s 0x%" PRIx64 " to 0x%" PRIx64 "\n", "addresses", first, last);
	print_limit("mappings", domain->entries_max, "");
	print_limit("memory", domain->bytes_memlock, " bytes");
	printf("%-16s %s\n", "dirty tracking", domain->dirty_tracking ? "yes" : "no");
}

#define KIND_OPTION(look)                                                               \
	{                                                                               \
		0, "kind", "auto|type1|iommufd", OPTION_CHOICE, &(look)->kind,          \
			"the way into the kernel; auto takes iommufd where it is there" \
	}

int iommu_info(const struct command *self, int argc, char **argv)
{
	struct look look = {.self = self};
	const struct option_spec options[] = {KIND_OPTION(&look)};
	struct args args;
	int rc, code = args_read(self, options, array_length(options), argc, argv, &args);

	if (code != ARGS_RUN)
		return code;
	look.args = &args;
	rc = morsel_iommu_find(args.operand[0], &look.function);
	if (!rc)
		rc = open_device(&look, args.operand[0]);
	if (!rc && args.json)
		info_json(&look);
	else if (!rc)
		info_text(&look);
	if (rc)
		code = complain_library(self, rc);
	morsel_iommu_close(look.device);
	return rc ? code : EXIT_OK;
}

/* ---- map ---- */

struct trial {
	struct look look;
	const char *address; /* as it was given, or NULL */
	uint64_t iova, granule;
	struct morsel_view *view;
	struct table table;
	struct json json;
};

static int entry_row(void *ctx, const struct morsel_iommu_entry *entry)
{
	struct trial *trial = ctx;

	table_add(&trial->table, "0x%" PRIx64, entry->iova);
	table_add_size(&trial->table, entry->offset, trial->look.args->exact);
	table_add_size(&trial->table, entry->bytes, trial->look.args->exact);
	table_add(&trial->table, "%" PRIu64, entry->frame);
	return 0;
}

static int entry_json(void *ctx, const struct morsel_iommu_entry *entry)
{
	struct trial *trial = ctx;

	json_object(&trial->json, NULL);
	json_u64(&trial->json, "iova", entry->iova);
	json_u64(&trial->json, "offset", entry->offset);
	json_u64(&trial->json, "bytes", entry->bytes);
	json_u64(&trial->json, "frame", entry->frame);
	json_close(&trial->json);
	return 0;
}

static int show_entries(struct trial *trial)
{
	static const char *const heads[] = {"IOVA", "OFFSET", "SIZE", "FRAME"};
	struct morsel_iommu_view_info info = {.size = sizeof(info)};
	int rc;

	if (!trial->look.args->json) {
		table_begin(&trial->table, array_length(heads), "lrrr", heads);
		rc = morsel_iommu_entries(trial->view, entry_row, trial);
		if (rc)
			table_drop(&trial->table);
		else
			table_end(&trial->table);
		return rc;
	}
	rc = morsel_iommu_view_info(trial->view, &info);
	if (rc)
		return rc;
	json_begin(&trial->json, stdout);
	json_text(&trial->json, "device", trial->look.args->operand[0]);
	json_name(&trial->json, trial->look.args->operand[1]);
	json_text(&trial->json, "kind", kind_name(trial->look.domain.kind));
	json_u64(&trial->json, "iova", info.iova);
	json_u64(&trial->json, "bytes", info.bytes);
	json_u64(&trial->json, "entries", info.entries);
	json_u64(&trial->json, "bytes_pinned", info.bytes_pinned);
	json_list(&trial->json, "mappings");
	rc = morsel_iommu_entries(trial->view, entry_json, trial);
	json_close(&trial->json);
	json_end(&trial->json);
	return rc;
}

/* Maps all of it under a grant, which a morsel that is evictable needs, and shows what came of it.
 */
static int try_view(struct trial *trial, struct morsel *morsel)
{
	struct morsel_iommu_view_opts opts = {
		.size = sizeof(opts),
		.access = MORSEL_READ,
		.flags = trial->address ? MORSEL_IOMMU_FIXED : 0,
		.iova = trial->iova,
		.granule_bytes = trial->granule,
	};
	struct morsel_grant grant;
	int rc = morsel_iommu_view(morsel, trial->look.device, &opts, &trial->view);

	if (rc)
		return rc;
	rc = morsel_acquire(trial->view, 0, morsel_view_bytes(trial->view), MORSEL_READ, &grant);
	if (!rc) {
		rc = show_entries(trial);
		morsel_release(&grant);
	}
	morsel_view_destroy(trial->view);
	return rc;
}

static int try_pool(struct morsel_pool *pool, void *ctx)
{
	struct trial *trial = ctx;
	struct morsel *morsel;
	int rc = morsel_open(pool, trial->look.args->operand[1], NULL, &morsel);

	if (rc)
		return rc;
	rc = open_device(&trial->look, trial->look.args->operand[0]);
	if (!rc)
		rc = try_view(trial, morsel);
	/* An error's words outlive what is closed after it. */
	morsel_iommu_close(trial->look.device);
	morsel_close(morsel);
	return rc;
}

static bool parse_address(const char *text, uint64_t *address)
{
	char *end;

	errno = 0;
	*address = strtoull(text, &end, 0);
	return !errno && end > text && !*end && *text != '-';
}

int iommu_map(const struct command *self, int argc, char **argv)
{
	struct trial trial = {.look = {.self = self}};
	const struct option_spec options[] = {
		KIND_OPTION(&trial.look),
		{0, "iova", "ADDRESS", OPTION_TEXT, &trial.address,
		 "where it is to begin; by default it is chosen"},
		{0, "granule", "SIZE", OPTION_SIZE, &trial.granule,
		 "most bytes that one mapping has; a power of two"},
	};
	struct args args;
	int code = args_read(self, options, array_length(options), argc, argv, &args);

	if (code != ARGS_RUN)
		return code;
	if (trial.address && !parse_address(trial.address, &trial.iova))
		return complain_usage(self, "--iova '%s': not an address, for example 0x100000000",
				      trial.address);
	trial.look.args = &args;
	return on_pool(self, &args, 0, try_pool, &trial);
}
