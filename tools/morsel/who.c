/*
 * morsel who: which processes and views hold a page, and why it cannot be evicted. Looks only, so
 * that it answers also while one of those processes stands still.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <morsel/observe.h>

#include "commands.h"
#include "parse.h"

struct who {
	const struct args *args;
	uint64_t number; /* of the page */
	struct morsel_page page;
	struct table table;
	struct json json;
};

static const char *state_name(uint32_t state)
{
	static const char *const names[] = {"hole", "resident", "evicted", "poisoned"};

	return state < array_length(names) ? names[state] : "unknown";
}

static const char *holder_name(uint32_t what)
{
	static const char *const names[] = {"unknown", "view", "grant", "transition", "handle"};

	return what < array_length(names) ? names[what] : names[0];
}

static const char *kind_of(const struct morsel_holder *holder)
{
	if (holder->flags & MORSEL_HOLDER_BY_MAIL)
		return "device";
	if (!(holder->flags & MORSEL_HOLDER_CPU))
		return "";
	return holder->flags & MORSEL_HOLDER_POOLED ? "pooled" : "stitched";
}

static int add_row(void *ctx, const struct morsel_holder *holder)
{
	struct who *who = ctx;
	struct table *table = &who->table;

	table_add(table, "%" PRIu32 "%s", holder->pid,
		  holder->flags & MORSEL_HOLDER_DEAD ? " (dead)" : "");
	table_add_name(table, holder->program);
	table_add(table, "%s", holder_name(holder->what));
	table_add(table, "%s", kind_of(holder));
	table_add(table, "%s", holder->flags & MORSEL_HOLDER_WRITABLE ? "rw" : "r");
	if (holder->address)
		table_add(table, "0x%" PRIx64, holder->address);
	else
		table_add(table, "%s", "-");
	table_add(table, "%" PRIu64 "+%" PRIu64, holder->offset / 4096, holder->bytes / 4096);
	table_add_name(table, holder->morsel);
	return 0;
}

static int add_json(void *ctx, const struct morsel_holder *holder)
{
	struct who *who = ctx;
	struct json *json = &who->json;

	json_object(json, NULL);
	json_u64(json, "pid", holder->pid);
	json_text(json, "program", holder->program);
	json_u64(json, "slot", holder->slot);
	json_text(json, "what", holder_name(holder->what));
	json_text(json, "kind", kind_of(holder));
	json_bool(json, "writable", holder->flags & MORSEL_HOLDER_WRITABLE);
	json_bool(json, "dead", holder->flags & MORSEL_HOLDER_DEAD);
	json_u64(json, "address", holder->address);
	json_u64(json, "offset", holder->offset);
	json_u64(json, "bytes", holder->bytes);
	json_text(json, "relative", holder->morsel[0] ? holder->morsel : NULL);
	json_close(json);
	return 0;
}

static int nothing(void *ctx, const struct morsel_holder *holder)
{
	(void)ctx;
	(void)holder;
	return 0;
}

static int print_json(struct who *who, struct morsel *morsel)
{
	const struct morsel_page *page = &who->page;
	struct json *json = &who->json;
	int rc;

	json_begin(json, stdout);
	json_name(json, who->args->operand[0]);
	json_u64(json, "page", who->number);
	json_text(json, "state", state_name(page->state));
	json_u64(json, "order", page->order);
	json_u64(json, "frame", page->frame);
	json_bool(json, "dirty", page->dirty);
	json_bool(json, "shared", page->shared);
	json_text(json, "why_not_evicted", page->why[0] ? page->why : NULL);
	json_list(json, "holders");
	rc = morsel_who(morsel, who->number * 4096, NULL, add_json, who);
	json_close(json);
	json_end(json);
	return rc;
}

static int print_table(struct who *who, struct morsel *morsel)
{
	static const char *const heads[] = {"PID",    "PROGRAM", "HOLDS", "KIND",
					    "ACCESS", "ADDRESS", "PAGES", "RELATIVE"};
	const struct morsel_page *page = &who->page;
	int rc;

	printf("page %" PRIu64 ": %s", who->number, state_name(page->state));
	if (page->state == MORSEL_PAGE_RESIDENT)
		printf(", frame %" PRIu64 "%s%s%s", page->frame,
		       page->order ? ", in a huge page" : "", page->dirty ? ", dirty" : "",
		       page->shared ? ", shared" : "");
	putchar('\n');
	if (page->why[0])
		printf("cannot be evicted now: %s\n", page->why);
	table_begin(&who->table, array_length(heads), "rlllllll", heads);
	rc = morsel_who(morsel, who->number * 4096, NULL, add_row, who);
	if (rc < 0)
		table_drop(&who->table);
	else
		table_end(&who->table);
	return rc;
}

static int who_pool(struct morsel_pool *pool, void *ctx)
{
	struct who *who = ctx;
	struct morsel *morsel;
	int rc = morsel_open(pool, who->args->operand[0], NULL, &morsel);

	if (rc < 0)
		return rc;
	who->page.size = sizeof(who->page);
	rc = morsel_who(morsel, who->number * 4096, &who->page, nothing, NULL);
	if (rc >= 0)
		rc = who->args->json ? print_json(who, morsel) : print_table(who, morsel);
	morsel_close(morsel);
	return rc;
}

int who_show(const struct command *self, int argc, char **argv)
{
	struct who who = {0};
	struct args args;
	const char *why;
	int code = args_read(self, NULL, 0, argc, argv, &args);

	if (code != ARGS_RUN)
		return code;
	if (parse_number(args.operand[1], 0, UINT64_MAX / 4096 - 1, &who.number, &why))
		return complain_usage(self, "PAGE '%s': %s", args.operand[1], why);
	who.args = &args;
	return on_pool(self, &args, MORSEL_POOL_READ_ONLY, who_pool, &who);
}
