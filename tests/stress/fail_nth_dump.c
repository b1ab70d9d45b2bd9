/*
 * Fail-the-n-th scenarios of <morsel/dump.h>. A dump that fails leaves what was under its name, or,
 * where only its directory could not be forced to disk, a whole dump; a restore leaves no name.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <morsel/dump.h>

#include "stress/fail_nth_scenarios.h"

static const char *dump_name(struct bench *b)
{
	static char name[80];

	snprintf(name, sizeof(name), "%s.dump", b->file);
	return name;
}

/* A dump of "m" that is there before the call. */
static const char *made_dump(struct bench *b)
{
	scenario_done(0);
	if (morsel_dump(b->morsel, dump_name(b), NULL, NULL))
		abort();
	return dump_name(b);
}

static int act_dump(struct bench *b)
{
	struct morsel_dump_info info = {.size = sizeof(info)};
	int code = scenario_done(morsel_dump(b->morsel, dump_name(b), NULL, &info));

	if (!access(dump_name(b), F_OK) && morsel_dump_look(dump_name(b), &info))
		abort();
	unlink(dump_name(b));
	return code;
}

static int act_dump_incremental(struct bench *b)
{
	struct morsel_dump_opts opts = {.size = sizeof(opts), .base = made_dump(b)};
	char name[96];
	int code;

	snprintf(name, sizeof(name), "%s.2", dump_name(b));
	scenario_arm();
	code = scenario_done(morsel_dump(b->morsel, name, &opts, NULL));
	unlink(name);
	unlink(dump_name(b));
	return code;
}

static int act_look(struct bench *b)
{
	struct morsel_dump_info info = {.size = sizeof(info)};
	const char *name = made_dump(b);
	int code;

	scenario_arm();
	code = scenario_done(morsel_dump_look(name, &info));
	unlink(name);
	return code;
}

static int restore(struct bench *b, const struct morsel_restore_opts *opts)
{
	const char *name = made_dump(b);
	struct morsel *morsel;
	int code;

	scenario_arm();
	code = scenario_done(morsel_restore(b->pool, "restored", name, opts, &morsel));
	unlink(name);
	if (code)
		return morsel_unlink(b->pool, "restored") == -ENOENT ? code : -ENOTRECOVERABLE;
	return morsel_close(morsel) || morsel_unlink(b->pool, "restored") ? -ENOTRECOVERABLE : 0;
}

static int act_restore(struct bench *b)
{
	return restore(b, NULL);
}

static int act_restore_part(struct bench *b)
{
	struct morsel_restore_opts opts = {.size = sizeof(opts), .offset = 70000, .bytes = 70000};

	return restore(b, &opts);
}

static int act_restore_range(struct bench *b)
{
	struct morsel_restore_opts opts = {.size = sizeof(opts), .flags = MORSEL_LAZY};
	const char *name = made_dump(b);
	struct morsel *morsel;
	int code;

	if (morsel_restore(b->pool, "lazy", name, &opts, &morsel))
		abort();
	opts.flags = 0;
	scenario_arm();
	code = scenario_done(morsel_restore_range(morsel, name, &opts));
	unlink(name);
	return morsel_close(morsel) || morsel_unlink(b->pool, "lazy") ? -ENOTRECOVERABLE : code;
}

const struct scenario dump_scenarios[] = {
	{"morsel_dump", act_dump},
	{"morsel_dump", act_dump_incremental},
	{"morsel_dump_look", act_look},
	{"morsel_restore", act_restore},
	{"morsel_restore", act_restore_part},
	{"morsel_restore_range", act_restore_range},
};
const size_t dump_scenarios_count = sizeof(dump_scenarios) / sizeof(dump_scenarios[0]);
